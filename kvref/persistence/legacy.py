"""Encodings of values that Redis wrote before 7.0, and reads to this day. Here, too, they are only read.

Interface:
  - LEGACY      RDB type byte -> what it is called, and its decoder: a Cursor behind the key -> the value

     3  sorted set, scores as text       Redis 1.2 to 3.2   a count, then each member and its score
     9  hash as zipmap                   2.4
    10  list as ziplist                  2.4 to 3.0
    12  sorted set as ziplist            2.4 to 6.2         members and scores in turn
    13  hash as ziplist                  2.6 to 6.2         fields and values in turn
    14  list as quicklist of ziplists    3.2 to 6.2         a count, then so many strings, a ziplist in each

    score       1 byte: 253 is NaN, 254 inf, 255 -inf; below that it is the length of the text that follows: %.17g

    ziplist     bytes 4 | offset of the last entry 4 | number of entries 2, 65535 for "not counted" | entries | FF
    entry       size of the entry before it | text or number
    text        00xxxxxx                       and so many bytes
                01xxxxxx xxxxxxxx              14 bits, the high ones first
                10...... and 4 bytes           32 bits, big endian
    number      11000000 and 2 bytes           16 bits; all of these are signed and little endian
                11010000 and 4 bytes           32 bits
                11100000 and 8 bytes           64 bits
                11110000 and 3 bytes           24 bits, since version 6 (Redis 2.6), as are the two that follow
                11111110 and 1 byte            8 bits
                1111xxxx                       xxxx - 1, for 0 to 12

    zipmap      number of fields 1, 254 for "not counted" | fields | FF
    field       length | text | length of the value | free bytes 1 | value | so many free bytes

    A size or length in either: 1 byte up to 253; 254 and 4 bytes, little endian; 255 is the end.

An entry knows the size of the one before, so that a ziplist can be walked from both ends. The price: an entry that
grows beyond 253 bytes needs a longer one behind it, which may grow beyond 253 bytes, too, and so on to the end. In
a listpack an entry knows its own size. Where 5 bytes were needed for a size once, they may stay for a smaller one.
A zipmap keeps a few bytes free behind a value that became shorter, so that it can grow again where it stands.

Redis: ziplist.c, zipmap.c, rdbLoadObject and rdbLoadDoubleValue in rdb.c. Simpler here: no walking and no changing;
entries become Python objects, of which equal ones are shared (see encodings.py). Stricter, for what no Redis wrote:
a score is a number throughout (Redis takes what strtod makes of it), a length in a zipmap has 5 bytes only if it needs
them, and behind the end there is nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

from kvref.numbers import parse_double
from kvref.persistence.cursor import Cursor
from kvref.sampling import Hash
from kvref.skiplist import SortedSet

LONG, END = 254, 255                        # where a length could stand
NOT_COUNTED: Final = 0xFFFF                 # entries of a ziplist
NUMBERS: Final = {0xC0: 2, 0xD0: 4, 0xE0: 8, 0xF0: 3, 0xFE: 1}     # first byte -> bytes that follow
ZERO, TWELVE = 0xF1, 0xFD                   # the first bytes that are numbers themselves
SCORES: Final = {253: b"nan", 254: b"inf", 255: b"-inf"}


# ---- zipmaps and ziplists: texts in a row --------------------------------------------------------

def _length(cursor: Cursor, meaning: str, least: int = 0) -> int | None:
    """None where the end stands instead. `least`: from which length on 5 bytes are right."""
    length = cursor.byte(meaning)
    if length != LONG:
        return None if length == END else length
    length = cursor.number(4, meaning)
    if length < least:
        raise cursor.fail(f"the {meaning} is {length}, which does not need 5 bytes")
    return length


def _zipmap(cursor: Cursor) -> Iterator[bytes]:
    """Fields and values, in turn, as they come."""
    inner = cursor.inside(cursor.string("zipmap"))
    count = inner.byte("number of fields")
    fields, seen = 0, dict[bytes, bytes]()
    inner.begin()
    while (length := _length(inner, "length of the field", LONG)) is not None:
        text = inner.take(length, "text")
        inner.end("field", text)
        yield text
        inner.begin()
        length = _length(inner, "length of the value", LONG)
        if length is None:
            raise inner.fail("the zipmap ends between a field and its value")
        free = inner.byte("number of free bytes")
        text = inner.take(length, "text")
        inner.take(free, "free bytes")
        inner.end("value", text)
        yield seen.setdefault(text, text)
        fields += 1
        inner.begin()
    inner.end("end of the zipmap")
    _nothing_left(inner, "zipmap")
    if count not in (fields, LONG):
        raise inner.fail(f"the zipmap claims {count} fields, and there are {fields}")


def _ziplist(cursor: Cursor) -> Iterator[bytes]:
    """The entries as they come, a number as text; equal ones are one object."""
    blob = cursor.string("ziplist")
    inner = cursor.inside(blob)
    size = inner.number(4, "bytes of the ziplist")
    tail, count = inner.number(4, "offset of the last entry"), inner.number(2, "number of entries")
    if size != len(blob):
        raise inner.fail(f"the ziplist claims {size} bytes, and there are {len(blob)}")
    found, seen = 0, dict[bytes, bytes]()
    last = start = inner.at
    behind = 0                              # bytes of the entry before
    inner.begin()
    while (before := _length(inner, "size of the entry before")) is not None:
        if before != behind:
            raise inner.fail(f"the entry before should have {before} bytes, and it has {behind}")
        text = _text(inner)
        inner.end("entry", text)
        yield seen.setdefault(text, text)
        found += 1
        inner.begin()
        last, behind, start = start, inner.at - start, inner.at
    inner.end("end of the ziplist")
    _nothing_left(inner, "ziplist")
    if tail != last:
        raise inner.fail(f"the last entry of the ziplist should be at {tail}, and it is at {last}")
    if count not in (found, NOT_COUNTED):
        raise inner.fail(f"the ziplist claims {count} entries, and there are {found}")


def _text(cursor: Cursor) -> bytes:
    """What an entry of a ziplist holds."""
    first = cursor.byte("encoding and length")
    if first in NUMBERS:
        return b"%d" % cursor.number(NUMBERS[first], "number", signed=True)
    if ZERO <= first <= TWELVE:
        return b"%d" % (first - ZERO)
    kind, length = first >> 6, first & 63
    if kind == 3:
        raise cursor.fail(f"an entry of the ziplist has the impossible encoding {first:#x}", cursor.offset - 1)
    if kind == 1:
        length = length << 8 | cursor.byte("length")
    elif kind == 2:
        length = cursor.number(4, "length", "big")
    return cursor.take(length, "text")


def _nothing_left(cursor: Cursor, what: str) -> None:
    if cursor.left:
        raise cursor.fail(f"{cursor.left} bytes stand behind the end of the {what}")


# ---- values made of them -------------------------------------------------------------------------

def _pairs(cursor: Cursor, texts: Iterator[bytes]) -> dict[bytes, bytes]:
    """Fields and their values, or members and their scores, from texts in turn."""
    found: dict[bytes, bytes] = {}
    for name in texts:
        value = next(texts, None)
        if value is None:
            raise cursor.fail(f"nothing belongs to {name[:64]!r}, the last of {2 * len(found) + 1} entries")
        if name in found:
            raise cursor.fail(f"{name[:64]!r} stands twice")
        found[name] = value
    return found


def _sorted_set(cursor: Cursor, texts: Iterator[bytes]) -> SortedSet:
    """Members and scores, in turn."""
    scores: dict[bytes, float] = {}
    for member, text in _pairs(cursor, texts).items():
        score = parse_double(text)
        if score is None:
            raise cursor.fail(f"the score of {member[:64]!r} is {text[:64]!r}, which is no number")
        scores[member] = score
    return SortedSet.from_pairs(scores.items())


def _scored(cursor: Cursor) -> Iterator[bytes]:
    """Members and scores, in turn. The count is not believed: the members must be there."""
    for _ in range(cursor.length("number of members")):
        yield cursor.string("member")
        length = cursor.byte("length of the score; 253 nan, 254 inf, 255 -inf")
        yield SCORES.get(length) or cursor.take(length, "score")


def _read_quicklist(cursor: Cursor) -> deque[bytes]:
    found: deque[bytes] = deque()
    for _ in range(cursor.length("number of ziplists")):
        found.extend(_ziplist(cursor))
    return found


LEGACY: Final[dict[int, tuple[str, Callable[[Cursor], Any]]]] = {
    3: ("zset, scores as text", lambda cursor: _sorted_set(cursor, _scored(cursor))),
    9: ("hash as zipmap", lambda cursor: Hash(_pairs(cursor, _zipmap(cursor)))),
    10: ("list as ziplist", lambda cursor: deque(_ziplist(cursor))),
    12: ("zset as ziplist", lambda cursor: _sorted_set(cursor, _ziplist(cursor))),
    13: ("hash as ziplist", lambda cursor: Hash(_pairs(cursor, _ziplist(cursor)))),
    14: ("list as quicklist of ziplists", _read_quicklist),
}
