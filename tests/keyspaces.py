"""Keyspaces for snapshots: one that stands on every boundary, a small one with every encoding, and any other by chance.

Interface:
  - boundaries()        entries for a real Redis and for kvref: wherever an encoding changes, both sides of it
  - SMALL               a few hundred bytes with every type byte that kvref writes
  - entries, CONFIGS    Hypothesis's: any keyspace, any directives that a snapshot follows
  - plain(entries)      the same for ==: types by name, sorted sets as dicts
  - commands(entry)     how a client makes it
  - dumped(entries)     a file of them, by `rdb.dump` on a disk in memory

An entry is rdb's: (database, key, value, deadline in ms or None).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from math import inf
from random import Random
from typing import Any

from hypothesis import strategies as st

from kvref.config import Config
from kvref.persistence import rdb
from kvref.persistence.rdb import Entry
from kvref.sampling import Hash, Members
from kvref.sim.clock import Clock
from kvref.sim.disk import Disk
from kvref.skiplist import SortedSet

PATH = "/dump.rdb"
FAR_MS = 4_102_444_800_123                  # in the year 2100


def make(kind: type, content: Any) -> Any:
    """A value from what is easy to write: a set from an iterable, a sorted set from a dict of scores."""
    if kind is Members:
        return Members.fromkeys(content)
    return SortedSet.from_pairs(content.items()) if kind is SortedSet else kind(content)


# ---- on every boundary ---------------------------------------------------------------------------

NUMBERS = [edge + step for bits in (7, 8, 12, 15, 16, 23, 31, 32, 53, 62)
           for edge in (-2**bits, 2**bits) for step in (-1, 0, 1)]
NUMBERS += [0, -2**63, 2**63 - 1, 10**10, 10**11, -10**10]
NO_NUMBERS = (b"", b"00", b"+1", b"-0", b"1.5", b" 1", b"1 ", b"1\n", b"9223372036854775808", b"-9223372036854775809")
LENGTHS = (1, 10, 11, 12, 20, 21, 44, 45, 62, 63, 64, 65, 4095, 4096, 16383, 16384)     # bytes of a string
COUNTS = (1, 2, 3, 4, 5, 6, 127, 128, 129, 511, 512, 513)                               # members of a collection
SCORES = (0.0, 1.0, -1.0, 0.1, 1 / 3, -2.5, inf, -inf, 5e-324, -1.7976931348623157e308, 1e16, 1e17, -1e17, 1e18,
          2.0**53, 2.0**53 + 2, 2.0**62, -2.0**62, 2.0**62 + 1024, 2.0**63, -2.0**63, 1e19)


def boundaries() -> list[Entry]:
    """Always the same: strings, then collections by size and by what is in them; and databases 0, 3 and 15."""
    dice = Random(7)
    values = [*_strings(dice), *_collections(dice)]
    entries: list[Entry] = [(0, key, value, None) for key, value in values]
    entries += [(0, b"until " + key, value, FAR_MS + at) for at, (key, value) in enumerate(values[::9])]
    entries += [(3, b"", b"the key is empty", None), (3, b"latest", b"", 2**63 - 1)]
    return entries + [(15, bytes([byte, 0, 255]) + b"\r\n", bytes([255, byte]), None) for byte in range(0, 256, 17)]


def _strings(dice: Random) -> Iterator[tuple[bytes, bytes]]:
    for number in NUMBERS:
        yield b"number %d" % number, b"%d" % number
        yield b"%d" % number, b"a number for a key"
    for at, text in enumerate(NO_NUMBERS):
        yield b"no number, %d" % at, text
    for size in LENGTHS:
        yield b"x" * size, b"the key is compressed, if that is allowed"
        yield dice.randbytes(size), b"it cannot be"
        yield b"chaos of %d bytes" % size, dice.randbytes(size)
        yield b"%d times x" % size, b"x" * size
        yield b"%d bytes of words" % size, _words(dice, size)
        yield b"y" * size, b"short"
    yield b"100 kB", _words(dice, 100_000)


def _words(dice: Random, size: int) -> bytes:
    some = [dice.randbytes(dice.randint(1, 9)) for _ in range(40)]
    return b" ".join(dice.choice(some) for _ in range(size))[:size]


def _text(dice: Random) -> bytes:
    return dice.choice((lambda: b"%d" % dice.choice(NUMBERS), lambda: _words(dice, dice.randint(0, 70)),
                        lambda: dice.randbytes(dice.randint(0, 12)), lambda: b"w%d" % dice.randrange(10**6)))()


def _collections(dice: Random) -> Iterator[tuple[bytes, Any]]:
    kinds = {b"list": _a_list, b"ints": _an_intset, b"set": _a_set, b"hash": _a_hash, b"zset": _a_sorted_set}
    for name, build in kinds.items():
        for count in COUNTS:
            yield b"%b of %d" % (name, count), build(dice, count)
    for size in (8, 9, 63, 64, 65, 300):        # where one long member makes the whole large
        yield b"hash, a field of %d" % size, Hash({b"f" * size: b"v", b"g": b"w"})
        yield b"hash, a value of %d" % size, Hash({b"f": b"v" * size, b"g": b"w"})
        yield b"zset, a member of %d" % size, make(SortedSet, {b"m" * size: 1.5, b"n": 2.0})
    for edge in (-2**15, 2**15 - 1, -2**31, 2**31 - 1):
        for step in (-1, 0, 1):
            yield b"ints up to %d" % (edge + step), make(Members, [b"0", b"%d" % (edge + step)])
    for size in (1000, 70_000, *(full - 18 + step for full in (4096, 8192, 16384) for step in (-1, 0, 1))):
        # as long as a node has room for behind the first element
        yield b"list, up to %d" % size, deque([b"a", b"b" * size, b"c", b"d" * (size // 2), b"e" * (size // 2), b"f"])
    yield b"zset, scores", make(SortedSet, {b"%d" % at: score for at, score in enumerate(SCORES)})
    yield b"zset, scores, large", make(SortedSet, {b"%d" % at + b"m" * 70: score for at, score in enumerate(SCORES)})


def _a_list(dice: Random, count: int) -> deque[bytes]:
    return deque(_text(dice) for _ in range(count))


def _an_intset(dice: Random, count: int) -> Members:
    found = make(Members, [])
    while len(found) < count:
        found[b"%d" % dice.randint(-2**dice.choice((7, 15, 31, 63)), 2**15)] = None
    return found


def _a_set(dice: Random, count: int) -> Members:
    return make(Members, [b"%d:" % at + _text(dice) for at in range(count)])


def _a_hash(dice: Random, count: int) -> Hash:
    return Hash({b"f%d" % at: _text(dice)[:60] for at in range(count)})


def _a_sorted_set(dice: Random, count: int) -> SortedSet:
    return make(SortedSet, {b"m%d" % at: dice.choice((float(at), at / 3, dice.choice(SCORES))) for at in range(count)})


# ---- small, with every encoding ------------------------------------------------------------------

LONG = b"0123456789" * 7                    # long enough to be compressed, and to make a collection large
SMALL: list[Entry] = [
    (0, b"greeting", b"hello", None), (0, b"", b"", None), (0, b"12", b"-70000", None), (0, b"long", LONG, FAR_MS),
    (0, b"list", deque([b"one", b"2", LONG]), None), (0, b"ints", make(Members, [b"1", b"70000"]), None),
    (0, b"set", make(Members, [b"red", b"", b"7"]), None), (0, b"hash", Hash({b"name": b"ann", b"age": b"42"}), None),
    (0, b"large hash", Hash({b"name": LONG}), FAR_MS), (0, b"zset", make(SortedSet, {b"ann": 1.5, b"bob": inf}), None),
    (0, b"large zset", make(SortedSet, {LONG: -2.5, b"cy": 1e300}), None),
    (15, b"\0\xff\r\n", b"\xfe", None), (15, b"until", deque([b"x"]), FAR_MS)]
SMALL_TYPES = {0, 2, 4, 5, 11, 16, 17, 18}


# ---- by chance -----------------------------------------------------------------------------------

KEYS = st.binary(max_size=70) | st.integers(-2**40, 2**40).map(b"%d".__mod__) | st.integers(0, 300).map(b"k".__mul__)
TEXTS = KEYS | st.sampled_from(NUMBERS).map(b"%d".__mod__)
FINITE = st.floats(allow_nan=False) | st.sampled_from(SCORES) | st.integers(-2**70, 2**70).map(float)
VALUES = st.one_of(
    TEXTS,
    st.lists(TEXTS, min_size=1, max_size=12).map(deque),
    st.lists(TEXTS, min_size=1, max_size=12).map(lambda found: make(Members, found)),
    st.sets(st.integers(-2**63, 2**63 - 1), min_size=1, max_size=12).map(
        lambda found: make(Members, [b"%d" % number for number in sorted(found)])),
    st.dictionaries(TEXTS, TEXTS, min_size=1, max_size=12).map(Hash),
    st.dictionaries(TEXTS, FINITE, min_size=1, max_size=12).map(lambda found: make(SortedSet, found)))
DEADLINES = st.none() | st.integers(-2**63, 2**63 - 1)
entries = st.dictionaries(st.tuples(st.sampled_from((0, 1, 15, 63, 64, 20_000)), KEYS), st.tuples(VALUES, DEADLINES),
                          max_size=20).map(lambda found: [(*place, *rest) for place, rest in found.items()])

LIMITS = st.integers(0, 14)
CONFIGS = st.fixed_dictionaries({
    "hash-max-listpack-entries": LIMITS, "hash-max-listpack-value": LIMITS, "set-max-intset-entries": LIMITS,
    "zset-max-listpack-entries": LIMITS, "zset-max-listpack-value": LIMITS,
    "list-max-listpack-size": st.integers(-5, 5), "rdbcompression": st.booleans(), "rdbchecksum": st.booleans(),
}).map(lambda directives: Config.load(directives=directives.items()))


# ---- what is done with them ----------------------------------------------------------------------

def plain(entries: Iterable[Entry]) -> dict[tuple[int, bytes], tuple[str, Any, int | None]]:
    """No key may come twice. Hashes, sets and sorted sets without their order."""
    listed = list(entries)
    found = {(database, key): (type(value).__name__, value.scores if isinstance(value, SortedSet) else value, deadline)
             for database, key, value, deadline in listed}
    assert len(found) == len(listed)
    return found


def commands(entry: Entry) -> list[tuple[Any, ...]]:
    """What a client sends, once the database is selected."""
    _, key, value, deadline = entry
    more: list[tuple[Any, ...]] = [] if deadline is None else [("PEXPIREAT", key, deadline)]
    if isinstance(value, bytes):
        return [("SET", key, value), *more]
    if isinstance(value, SortedSet):
        pairs = [word for member, score in value.scores.items() for word in (repr(score), member)]
        return [("ZADD", key, *pairs), *more]
    if isinstance(value, Hash):
        return [("HSET", key, *(word for pair in value.items() for word in pair)), *more]
    return [("RPUSH" if isinstance(value, deque) else "SADD", key, *value), *more]


def dumped(entries: Iterable[Entry], **directives: object) -> bytes:
    """The bytes of a file."""
    disk = Disk(Clock())
    rdb.dump(PATH, entries, Config.load(directives=directives.items()), disk)
    return disk.content(PATH)


def on_disk(data: bytes) -> Disk:
    """A disk with a file of these bytes at PATH."""
    disk = Disk(Clock())
    rdb.write_all(disk, disk.open(PATH, "w"), data)
    return disk
