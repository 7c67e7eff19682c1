"""Numbers as Redis reads and writes them. The long double is checked against a real redis-server, digit by digit."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvref.numbers import (INFINITY, INT64_MAX, INT64_MIN, MANTISSA_BITS, LongDouble, add_long_doubles, format_double,
                           format_long_double, parse_double, parse_int, parse_long_double)
from tests import golden, record

NOT_A_FLOAT = b"ERR value is not a valid float"
NOT_FINITE = b"ERR increment would produce NaN or Infinity"


# --- integers --------------------------------------------------------------------------------------------------------

@given(st.integers(INT64_MIN, INT64_MAX))
def test_an_integer_of_64_bits_is_read_as_it_is_written(number: int) -> None:
    assert parse_int(b"%d" % number) == number


@given(st.one_of(st.integers(max_value=INT64_MIN - 1), st.integers(min_value=INT64_MAX + 1)))
def test_an_integer_beyond_64_bits_is_none(number: int) -> None:
    assert parse_int(b"%d" % number) is None


@pytest.mark.parametrize("text", [b"", b" 1", b"1 ", b"\n1", b"+1", b"01", b"-01", b"-0", b"00", b"-", b"1.0", b"1e3",
                                  b"0x1", b"1_0", b"--1", b"1\0", b"\xd9\xa1", "\u0661".encode(), b"9" * 5000])
def test_what_is_not_canonical_is_no_integer(text: bytes) -> None:
    assert parse_int(text) is None


@given(st.binary(max_size=24))
def test_no_bytes_are_an_integer_but_its_own_digits(text: bytes) -> None:
    number = parse_int(text)
    assert number is None or b"%d" % number == text


# --- doubles ---------------------------------------------------------------------------------------------------------

@given(st.floats(allow_nan=False))
def test_a_double_survives_its_17_digits(x: float) -> None:
    assert parse_double(format_double(x)) == x


@pytest.mark.parametrize("x, text", [
    (0.1, b"0.10000000000000001"), (3.0, b"3"), (1e16, b"10000000000000000"), (1e17, b"1e+17"),
    (1e-5, b"1.0000000000000001e-05"), (-1.5, b"-1.5"), (-0.0, b"-0"), (5e-324, b"4.9406564584124654e-324"),
    (math.inf, b"inf"), (-math.inf, b"-inf")])
def test_doubles_look_as_in_replies(x: float, text: bytes) -> None:
    assert format_double(x) == text


@pytest.mark.parametrize("text, x", [
    (b"1", 1), (b"+1", 1), (b".5", 0.5), (b"5.", 5), (b"-1e3", -1000), (b"1E-2", 0.01), (b"inf", math.inf),
    (b"-Infinity", -math.inf), (b"0x10", 16), (b"0X1.8p1", 3), (b"-0x.8P-2", -0.125), (b"0e99999", 0), (b"-0", 0),
    (b"0x0p99999999999999999999", 0),
    (b"0." + b"0" * 400 + b"1e401", 1), (b"1" + b"0" * 5000 + b"e-5000", 1)])
def test_what_strtod_reads_is_a_double(text: bytes, x: float) -> None:
    assert parse_double(text) == x


NO_FLOATS = [b"", b" 1", b"1 ", b"1\n", b"nan", b"NaN(1)", b"1e", b"1e+", b".", b"e5", b"0x", b"0x.", b"0xp1", b"0x1p",
             b"1_0", b"1\0", b"one", b"infin", b"1d5", b"1,5", "\u0661".encode()]


@pytest.mark.parametrize("text", [*NO_FLOATS, b"1e309", b"-1e309", b"1e-330", b"0x1p1024", b"0x1p-1080",
                                  b"1e999999999999"])
def test_what_it_does_not_read_or_cannot_hold_is_none(text: bytes) -> None:
    assert parse_double(text) is None


# --- long doubles ----------------------------------------------------------------------------------------------------

def value(x: LongDouble | None) -> Fraction:
    assert x is not None and x.finite
    return Fraction(x.mantissa) * Fraction(2) ** x.exponent


def total(a: bytes, b: bytes) -> bytes:
    """What SET a, INCRBYFLOAT b answers."""
    x, y = parse_long_double(a), parse_long_double(b)
    if x is None or y is None:
        return NOT_A_FLOAT
    found = add_long_doubles(x, y)
    return format_long_double(found) if found.finite else NOT_FINITE


@pytest.mark.parametrize("a, b, text", [
    (b"0.1", b"0.2", b"0.3"), (b"10.5", b"0.1", b"10.6"), (b"5.0e3", b"200", b"5200"), (b"3.0", b"1.000", b"4"),
    (b"-0", b"-0", b"0"), (b"-1e-20", b"0", b"0"), (b"1e18", b"1", b"1000000000000000001"),
    (b"1e22", b"0.5", b"10000000000000000000000"), (b"18446744073709551615", b"1", b"18446744073709551616"),
    (b"18446744073709551616", b"1", b"18446744073709551616"), (b"18446744073709551616", b"3", b"18446744073709551620"),
    (b"1e4932", b"1e4932", NOT_FINITE), (b"inf", b"1", NOT_FINITE), (b"inf", b"-inf", NOT_FINITE),
    (b"nan", b"1", NOT_A_FLOAT), (b"1e4933", b"1", NOT_A_FLOAT)])
def test_sums_look_as_incrbyfloat_shows_them(a: bytes, b: bytes, text: bytes) -> None:
    assert total(a, b) == text


@pytest.mark.parametrize("text", [*NO_FLOATS, b"1e4933", b"1e-4966", b"0x1p16384", b"0x1p-16446",
                                  b"1e99999999999999999999", b"1" * 5120])
def test_what_strtold_does_not_read_or_cannot_hold_is_none(text: bytes) -> None:
    assert parse_long_double(text) is None


def test_the_largest_and_the_smallest() -> None:
    assert value(parse_long_double(b"0x1.fffffffffffffffep16383")) == (2**64 - 1) * Fraction(2) ** 16320
    assert value(parse_long_double(b"0x1p-16445")) == Fraction(2) ** -16445
    assert value(parse_long_double(b"0x1.8p-16446")) == Fraction(2) ** -16445       # rounded up to it
    assert parse_long_double(b"0x1.ffffffffffffffffp16383") is None                 # rounded up to infinity
    assert not INFINITY.finite
    assert len(format_long_double(LongDouble(2**64 - 1, 16320))) == 4933


@given(st.fractions(), st.integers(-5000, 5000))
def test_the_nearest_long_double_is_taken(x: Fraction, power: int) -> None:
    text = b"%de%d" % (x.numerator * 997, power)
    exact = x.numerator * 997 * Fraction(10) ** power
    found = parse_long_double(text)
    if found is None:
        assert abs(exact) >= Fraction(2) ** 16383 or abs(exact) <= Fraction(2) ** -16445
    elif exact:
        assert found.mantissa.bit_length() <= MANTISSA_BITS
        unit = Fraction(2) ** max(-16445, found.exponent)
        assert abs(value(found) - exact) <= unit / 2


@given(st.integers(-2**63, 2**63), st.integers(-2**63, 2**63), st.integers(-80, 80))
def test_a_sum_is_exact_where_it_fits_and_the_same_both_ways(a: int, b: int, exponent: int) -> None:
    x, y = LongDouble(a, exponent), LongDouble(b, exponent)
    assert add_long_doubles(x, y) == add_long_doubles(y, x)
    if (a + b).bit_length() <= MANTISSA_BITS:
        assert value(add_long_doubles(x, y)) == value(x) + value(y)


def texts(generator: random.Random) -> Iterator[bytes]:
    """Numbers of all kinds and sizes, and some that are none."""
    def digits() -> int:
        return generator.randrange(10 ** generator.randrange(1, 26))
    kinds = [
        lambda: b"%d" % generator.choice([digits(), -digits()]),
        lambda: b"%.*f" % (generator.randrange(25), generator.uniform(-1000, 1000)),
        lambda: repr(generator.uniform(-1e6, 1e6)).encode(),
        lambda: b"-%de%d" % (digits(), generator.randrange(-45, 45)),
        lambda: b"%d.%de%d" % (digits(), digits(), generator.randrange(-5000, 4950)),
        lambda: b"0x%x.%xp%d" % (digits(), digits(), generator.choice([0, -60, -16440, 16300])),
        lambda: generator.choice([
            b"inf", b"-inf", b"nan", b"0", b"-0", b"1e", b"+1", b"0.5", b"1e-17", b"0.000000000000000005",
            b"1.18973149535723176502e4932", b"1.18973149535723176509e4932", b"18446744073709551615"])]
    while True:
        yield generator.choice(kinds)()


def ask(peer: record.SocketPeer, requests: Sequence[Sequence[bytes | str]]) -> list[bytes]:
    """The replies to a pipeline, as bytes."""
    peer.send_bytes(b"".join(golden.request(*words) for words in requests))
    data = b""
    found: list[Any] = []
    while len(found) < len(requests):
        assert peer.drain(10)
        data += peer.take()
        found = golden.replies(data)[0]
    return [reply if isinstance(reply, bytes) else str(reply).encode() for reply in found]


@pytest.mark.parametrize("seed", range(4))
def test_thousands_of_sums_are_those_of_redis(seed: int, redis_server: record.RedisServer) -> None:
    some = texts(random.Random(seed))
    pairs = [(next(some), next(some)) for _ in range(1000)]
    peer = record.SocketPeer(redis_server.port)
    replies: list[bytes] = []
    for at in range(0, len(pairs), 200):
        requests = [words for a, b in pairs[at:at + 200] for words in (("SET", "sum", a), ("INCRBYFLOAT", "sum", b))]
        replies += ask(peer, requests)[1::2]
    assert [pair for pair, reply in zip(pairs, replies) if total(*pair) != reply] == []


def test_thousands_of_scores_are_those_of_redis(redis_server: record.RedisServer) -> None:
    some = texts(random.Random(5))
    numbers = [next(some) for _ in range(2000)]
    peer = record.SocketPeer(redis_server.port)
    replies = ask(peer, [words for text in numbers for words in (("DEL", "z"), ("ZADD", "z", "INCR", text, "m"))])[1::2]
    ours = [NOT_A_FLOAT if x is None else format_double(x) for x in map(parse_double, numbers)]
    assert [text for text, reply, own in zip(numbers, replies, ours) if reply != own] == []
