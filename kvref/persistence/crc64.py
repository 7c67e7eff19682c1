"""CRC-64 as Redis reckons it, over bytes that come in pieces.

Interface:
  - crc64(data)     of bytes that are there, at once
  - Checksum        of a stream: update(data), value()

The bits of a message are the coefficients of a polynomial over GF(2), the first bit that of the highest power;
its checksum is the remainder, times x^64, by a polynomial of degree 64 (Jones: 0xad93d23594c935a9). Bytes
come least significant bit first, as in an int made by `int.from_bytes(data, "little")`.

The textbook's way is a table of 256 remainders and one step a byte: 11 MB/s in Python. But a remainder does not
change when a multiple of the divisor is added, and this divisor has a multiple of only five terms:

    x^122180 + x^85363 + x^81349 + x^75403 + 1

So a bit may be taken out of a message if it is put in again, by exclusive or, at four places further behind:
122,180 - 85,363 bits, 122,180 - 81,349 bits, and so on. A long int does that for 4,602 bytes at once, with four shifts.
What is left in the end, some 15 kB, goes through the table. (A test divides the multiple by the divisor.)

Redis: crc64.c, crcspeed.c (a table for each of eight bytes).
"""

from __future__ import annotations

from typing import Final

JONES: Final = 0xAD93D23594C935A9           # without its x^64
MULTIPLE: Final = (122180, 85363, 81349, 75403, 0)

FOLDED: Final = (MULTIPLE[0] - MULTIPLE[1]) // 8        # bytes that can go at once: they do not touch themselves
SHIFTS: Final = tuple(MULTIPLE[0] - power - 8 * FOLDED for power in MULTIPLE[1:])
LEFT: Final = MULTIPLE[0] // 8 + 1                      # bytes that must stay
ENOUGH: Final = 256 * 1024                              # bytes to gather before folding


def _table() -> list[int]:
    """The remainder of each byte, with bits in the reverse order."""
    divisor = int(f"{JONES:064b}"[::-1], 2)
    table = list(range(256))
    for _ in range(8):
        table = [crc >> 1 ^ (divisor if crc & 1 else 0) for crc in table]
    return table


TABLE: Final = _table()


def crc64(data: bytes) -> int:
    """64 bits. 0 for no bytes, and leading zero bytes do not change it."""
    crc = 0
    for byte in fold(data):
        crc = TABLE[(crc ^ byte) & 255] ^ crc >> 8
    return crc


def fold(data: bytes) -> bytes:
    """Fewer bytes with the same checksum."""
    at, end = 0, len(data) - LEFT - FOLDED
    if end <= 0:
        return data
    number, carry = int.from_bytes, 0
    first, second, third, fourth = SHIFTS
    mask = (1 << 8 * FOLDED) - 1
    while at < end:
        head = number(data[at:at + FOLDED], "little") ^ carry & mask
        carry = carry >> 8 * FOLDED ^ head << first ^ head << second ^ head << third ^ head << fourth
        at += FOLDED
    return (number(data[at:], "little") ^ carry).to_bytes(len(data) - at, "little")


class Checksum:
    """The CRC-64 of a stream."""

    def __init__(self) -> None:
        self._rest = b""

    def update(self, data: bytes) -> None:
        self._rest += data
        if len(self._rest) > ENOUGH:
            self._rest = fold(self._rest)

    def value(self) -> int:
        return crc64(self._rest)
