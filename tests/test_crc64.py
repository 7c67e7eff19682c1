"""CRC-64: the multiple that folds is one, the checksum is Redis's, and it does not matter how the bytes come."""

from __future__ import annotations

import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kvref.persistence.crc64 import ENOUGH, FOLDED, JONES, LEFT, MULTIPLE, Checksum, crc64, fold

NOISE = random.Random(64).randbytes(3 * ENOUGH)
SIZES = st.integers(0, 3 * (LEFT + FOLDED)) | st.integers(-20, 20).flatmap(
    lambda near: st.sampled_from([max(0, size + near) for size in (0, LEFT, LEFT + FOLDED, LEFT + 2 * FOLDED, ENOUGH)]))


def bit_by_bit(data: bytes) -> int:
    """As a textbook divides: each bit, in a number of 64."""
    crc, divisor = 0, int(f"{JONES:064b}"[::-1], 2)
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (divisor if crc & 1 else 0)
    return crc


def remainder(dividend: int, divisor: int) -> int:
    """Of polynomials over GF(2): without carries, so subtraction is exclusive or."""
    while (excess := dividend.bit_length() - divisor.bit_length()) >= 0:
        dividend ^= divisor << excess
    return dividend


def test_the_divisor_divides_the_multiple() -> None:
    divisor = 1 << 64 | JONES
    assert remainder(sum(1 << power for power in MULTIPLE), divisor) == 0
    assert remainder(sum(1 << power for power in MULTIPLE[1:]), divisor) != 0


def test_what_is_folded_at_once_does_not_touch_itself() -> None:
    """The nearest place behind a bit is out of the piece, the farthest within what must stay."""
    assert 8 * FOLDED <= MULTIPLE[0] - MULTIPLE[1] and MULTIPLE[0] <= 8 * LEFT


@pytest.mark.parametrize("data, checksum", [(b"", 0), (b"\0" * 1000, 0), (b"123456789", 0xE9C6D914C4B8D9CA)])
def test_known_checksums(data: bytes, checksum: int) -> None:
    """Zeros at the start leave no trace: a file must begin with something else. The last is the usual check value."""
    assert crc64(data) == bit_by_bit(data) == checksum


@settings(max_examples=60)
@given(SIZES, st.integers(0, ENOUGH))
@example(LEFT + FOLDED, 0)
@example(LEFT + FOLDED + 1, 0)
def test_fewer_bytes_have_the_same_checksum(size: int, start: int) -> None:
    data = NOISE[start:start + size]
    fewer = fold(data)
    assert len(fewer) <= max(LEFT + FOLDED, 0) and len(fewer) <= len(data)
    assert crc64(fewer) == crc64(data)


@settings(max_examples=12)
@given(SIZES.filter(lambda size: size < 40_000))
def test_it_is_the_remainder_of_the_textbook(size: int) -> None:
    assert crc64(NOISE[:size]) == bit_by_bit(NOISE[:size])


@settings(max_examples=40)
@given(st.lists(st.integers(0, 2 * ENOUGH), max_size=6), st.integers(0, 2 * ENOUGH))
@example([], 0)
@example([ENOUGH], ENOUGH + 1)
@example([1, 1, 2], 2)
def test_of_a_stream_it_is_the_same_however_it_is_cut(cuts: list[int], size: int) -> None:
    checksum, at = Checksum(), 0
    for cut in sorted(min(cut, size) for cut in cuts):
        checksum.update(NOISE[at:cut])
        at = cut
    checksum.update(NOISE[at:size])
    assert checksum.value() == crc64(NOISE[:size])
    assert checksum.value() == checksum.value()


def test_a_stream_is_not_kept() -> None:
    checksum = Checksum()
    for _ in range(5):
        checksum.update(NOISE)
        assert len(checksum._rest) <= ENOUGH


@pytest.mark.parametrize("at", [0, 1, FOLDED - 1, FOLDED, LEFT, LEFT + FOLDED, 2 * LEFT, -1])
def test_each_bit_counts(at: int) -> None:
    data = bytearray(NOISE[:3 * LEFT])
    before = crc64(bytes(data))
    for bit in range(8):
        data[at] ^= 1 << bit
        assert crc64(bytes(data)) != before
        data[at] ^= 1 << bit
