"""Glob patterns as KEYS, SCAN, PSUBSCRIBE, CONFIG GET and COMMAND LIST understand them.

    *  any bytes       ?  one byte       [ab]  one of these       [a-z]  [^a-z]       \\x  x itself

Interface:
  - glob_match(pattern, text, nocase=False)   whether the whole text matches

A pattern is a row of *tokens*: a star, or the set of bytes that may stand at one place. The row is
translated to a regular expression, once, in which no star ever reconsiders (an atomic group): the first
place that fits the part after a star is as good as any later one. So the work is at most
len(pattern) * len(text), whatever the pattern.

Redis: stringmatchlen in util.c. Its corners are kept: an unterminated class ends with the pattern, a last
backslash is itself, [z-a] is [a-z], case is kept behind a backslash in a class, and no pattern but the
empty one matches the empty text, not even "*" (KEYS and SCAN treat "*" apart, before they ask).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache

STAR = None
ANY = frozenset(range(256))
ONE = [frozenset({byte}) for byte in range(256)]
Token = frozenset[int] | None           # the bytes that fit one place; STAR: any number of any bytes

LONG = 1024                             # a longer pattern is first looked at for what it needs


def glob_match(pattern: bytes, text: bytes, nocase: bool = False) -> bool:
    """Whether the whole of `text` matches `pattern`; `nocase` makes ASCII letters equal to their capitals."""
    return _glob(pattern, nocase)(text)


class Glob:
    """A pattern, compiled once, for the first text that is long enough: `Glob(pattern)(text)`."""

    __slots__ = ("pattern", "nocase", "_least", "_fullmatch")

    def __init__(self, pattern: bytes, nocase: bool = False) -> None:
        self.pattern, self.nocase = pattern, nocase
        self._least = 1                                 # no shorter text can match
        self._fullmatch: Callable[[bytes], object] | None = None

    def __call__(self, text: bytes) -> bool:
        if not text:
            return not self.pattern
        if len(text) < self._least:
            return False
        if self._fullmatch is None:
            if len(self.pattern) > LONG and _needs_more_than(len(text), self.pattern):
                self._least = len(text) + 1             # a pattern of a megabyte is never compiled for a short key
                return False
            self._fullmatch = _compiled(self.pattern, self.nocase).fullmatch
        return self._fullmatch(text) is not None


def _needs_more_than(length: int, pattern: bytes) -> bool:
    """Each token but a star takes one byte: whether there are more of them than `length`."""
    needed = 0
    for token in _tokens(pattern, False):
        needed += token is not STAR
        if needed > length:
            return True
    return False


@lru_cache(maxsize=256)
def _glob(pattern: bytes, nocase: bool) -> Glob:
    return Glob(pattern, nocase)


def _compiled(pattern: bytes, nocase: bool) -> re.Pattern[bytes]:
    """The parts between stars, each found at its first place, for good; the last one at the very end."""
    first, *rest = _parts(pattern, nocase)
    if not rest:
        return re.compile(first, re.DOTALL)
    middle = b"".join(b"(?>.*?" + part + b")" for part in rest[:-1])
    return re.compile(first + middle + b".*" + rest[-1], re.DOTALL)


def _parts(pattern: bytes, nocase: bool) -> list[bytes]:
    parts: list[list[bytes]] = [[]]
    for token in _tokens(pattern, nocase):
        if token is STAR:
            parts.append([])
        else:
            parts[-1].append(_expression(token))
    return [b"".join(part) for part in parts]


def _expression(token: frozenset[int]) -> bytes:
    if token is ANY:
        return b"."
    if not token:
        return rb"(?!)"                 # "[]": nothing fits
    if len(token) == 1:
        return b"\\x%02x" % min(token)
    return b"[%s]" % b"".join(b"\\x%02x" % byte for byte in sorted(token))


def _tokens(pattern: bytes, nocase: bool) -> Iterator[Token]:
    at = 0
    while at < len(pattern):
        byte, at = pattern[at:at + 1], at + 1
        if byte == b"*":
            while pattern[at:at + 1] == b"*":
                at += 1
            yield STAR
        elif byte == b"?":
            yield ANY
        elif byte == b"[":
            token, at = _class(pattern, at, nocase)
            yield token
        else:
            if byte == b"\\" and at < len(pattern):
                byte, at = pattern[at:at + 1], at + 1
            yield _range(byte[0], byte[0], nocase)


def _class(pattern: bytes, at: int, nocase: bool) -> tuple[frozenset[int], int]:
    """The bytes of a class whose inside starts at `at`, and the position after its bracket."""
    negated = pattern[at:at + 1] == b"^"
    at += negated
    found: set[int] = set()
    while at < len(pattern) and pattern[at:at + 1] != b"]":
        if pattern[at:at + 1] == b"\\" and at + 1 < len(pattern):
            found.add(pattern[at + 1])
            at += 2
        elif pattern[at + 1:at + 2] == b"-" and at + 2 < len(pattern):
            found |= _range(pattern[at], pattern[at + 2], nocase)
            at += 3
        else:
            found |= _range(pattern[at], pattern[at], nocase)
            at += 1
    return (ANY - found if negated else frozenset(found)), at + 1


def _range(first: int, last: int, nocase: bool) -> frozenset[int]:
    """From one byte to another, in either order. Bytes above 127 come first: Redis's char has a sign."""
    if first == last and not nocase:
        return ONE[first]
    low, high = sorted((_signed(first), _signed(last)))
    if nocase:
        low, high = _lower(low), _lower(high)
        return frozenset(byte for byte in ANY if low <= _lower(_signed(byte)) <= high)
    return frozenset(byte for byte in ANY if low <= _signed(byte) <= high)


def _signed(byte: int) -> int:
    return byte - 256 if byte > 127 else byte


def _lower(char: int) -> int:
    return char + 32 if 65 <= char <= 90 else char
