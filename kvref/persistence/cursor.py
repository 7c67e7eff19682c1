"""A place in bytes, with what RDB's primitives are read by.

Interface:
  - Cursor          take, byte, number, double, length, string: each reads on; `offset`, `left`, `fail`
  - Unreadable      what is wrong with a file, at which offset, in which key: one sentence

    length      00xxxxxx                       6 bits
                01xxxxxx xxxxxxxx              14 bits
                10000000 and 4 bytes           32 bits, big endian
                10000001 and 8 bytes           64 bits, big endian
    string      a length and so many bytes, or one of these:
                11000000 and 1 byte            an integer, written as text: 8 bits
                11000001 and 2 bytes           16 bits, little endian
                11000010 and 4 bytes           32 bits
                11000011, length c, length n   c bytes, compressed by LZF from n

`meaning` says what the bytes are, for those who look at a file rather than load it: a Cursor throws it away, the
dissector's keeps it (kvref.files). A file is described once, by the functions that read it.

Redis: rdbLoadLenByRef, rdbLoadIntegerObject, rdbLoadLzfStringObject, rdbGenericLoadStringObject in rdb.c.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final, Literal

from kvref.persistence.lzf import LZF_GAIN, decompress

CHUNK: Final = 1024 * 1024                  # bytes that are read at once
INTEGERS: Final = {0: 1, 1: 2, 2: 4}        # special encoding of a string -> bytes
LZF: Final = 3


class Unreadable(Exception):
    """Bytes that kvref will not go on reading, because they are damaged or hold what it has no place for."""

    def __init__(self, what: str, offset: int,
                 opening: str = "Terminating server after rdb file reading failure") -> None:
        super().__init__(what)
        self.what, self.offset = what, offset
        self.opening = opening              # of a line in the log: Redis's words
        self.key: bytes | None = None
        self.where = ""                     # the file

    def __str__(self) -> str:
        key = "" if self.key is None else f", key {self.key[:64]!r}"
        return f"{self.where or 'these bytes'}: at offset {self.offset}{key}: {self.what}"


class Cursor:
    """Reads bytes in order. `data` is at hand, `left_over` more come by `more(count)`: at least one byte each time."""

    __slots__ = ("data", "at", "base", "left_over", "more", "passed", "fixed", "_text_at")

    def __init__(self, data: bytes, more: Callable[[int], bytes] | None = None, left_over: int = 0,
                 passed: Callable[[bytes], None] | None = None) -> None:
        self.data, self.at = data, 0
        self.base = 0                       # the offset of data[0]
        self.more, self.left_over = more, left_over
        self.passed = passed                # is given all bytes once that have been read, in order
        self.fixed: int | None = None       # the offset to name for every error: of compressed bytes
        self._text_at: int | None = None    # where the text of the last string began; None: compressed, up to here

    @property
    def offset(self) -> int:
        return self.base + self.at

    @property
    def left(self) -> int:
        """Bytes that have not been read."""
        return len(self.data) - self.at + self.left_over

    def fail(self, what: str, offset: int | None = None) -> Unreadable:
        """For the caller to raise."""
        if self.fixed is not None:
            return Unreadable(f"{what} (in compressed bytes)", self.fixed)
        return Unreadable(what, self.offset if offset is None else offset)

    def fill(self, count: int, meaning: str = "data") -> None:
        """Have `count` bytes at hand; Unreadable where the end comes first."""
        if self.at + count <= len(self.data):
            return
        if count > self.left:
            raise self.fail(f"{meaning} of {count} bytes should follow, but the end comes after {self.left}")
        self.forget()
        pieces = [self.data]
        missing = count - len(self.data)
        while missing > 0 and self.more:
            piece = self.more(min(max(missing, CHUNK), self.left_over))
            if not piece:
                raise self.fail("the file has become shorter while it was read")
            pieces.append(piece)
            missing -= len(piece)
            self.left_over -= len(piece)
        self.data = b"".join(pieces)

    def forget(self) -> None:
        """Let go of what has been read."""
        if self.passed:
            self.passed(self.data[:self.at])
        self.base += self.at
        self.data, self.at = self.data[self.at:], 0

    # ---- what stands in the file. `meaning`: for the dissector

    def take(self, count: int, meaning: str) -> bytes:
        """The next bytes."""
        end = self.at + count
        if end > len(self.data):
            self.fill(count, meaning)
            end = self.at + count
        piece = self.data[self.at:end]
        self.at = end
        return piece

    def byte(self, meaning: str) -> int:
        return self.take(1, meaning)[0]

    def number(self, size: int, meaning: str, order: Literal["little", "big"] = "little", signed: bool = False) -> int:
        """An integer of `size` bytes."""
        return int.from_bytes(self.take(size, meaning), order, signed=signed)

    def double(self, meaning: str) -> float:
        """Eight bytes."""
        found: float = struct.unpack("<d", self.take(8, meaning))[0]
        return found

    def length(self, meaning: str) -> int:
        """A length or a count. Unreadable where a special encoding stands."""
        length, special = self._length(meaning)
        if special:
            raise self.fail(f"{meaning} has the impossible encoding {0xC0 | length:#x}", self.offset - 1)
        return length

    def _length(self, meaning: str) -> tuple[int, bool]:
        """A length, or the number of a special encoding and True."""
        first = self.take(1, meaning)[0]
        kind = first >> 6
        if kind == 0:
            return first, False
        if kind == 1:
            return (first & 63) << 8 | self.take(1, meaning)[0], False
        if kind == 3:
            return first & 63, True
        if first not in (0x80, 0x81):
            raise self.fail(f"{meaning} has the impossible encoding {first:#x}", self.offset - 1)
        return self.number(4 if first == 0x80 else 8, meaning, "big"), False

    def string(self, meaning: str) -> bytes:
        """A string in any of its forms."""
        length, special = self._length(f"length of {meaning}")
        self._text_at = self.offset
        if not special:
            return self.take(length, meaning)
        if length in INTEGERS:
            return b"%d" % self.number(INTEGERS[length], meaning, signed=True)
        if length != LZF:
            raise self.fail(f"{meaning} has the impossible encoding {0xC0 | length:#x}", self.offset - 1)
        packed, size = self.length(f"compressed length of {meaning}"), self.length(f"length of {meaning}")
        if size > packed * LZF_GAIN:
            raise self.fail(f"{meaning} claims {size} bytes, and {packed} compressed bytes cannot hold them")
        start = self.offset
        text = decompress(self.take(packed, f"{meaning}, compressed"), size)
        if text is None:
            raise self.fail(f"the compressed bytes of {meaning} are damaged", start)
        self._text_at = None
        return text

    def inside(self, blob: bytes) -> Cursor:
        """A cursor on bytes that the last string held, which have a structure of their own."""
        inner = Cursor(blob)
        if self._text_at is None:
            inner.fixed = self.offset
        else:
            inner.base = self._text_at
        return inner

    def begin(self) -> None:
        """What is read from here to `end` belongs together."""

    def end(self, meaning: str, value: Any = None) -> None:
        """It was a `meaning`; with `value` where what was read does not say by itself what it stands for."""
