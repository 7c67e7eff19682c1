"""The reader of snapshots: it gives back what was written, and refuses with one sentence what is not whole.

No server is needed, but for the tests that begin with files of a real one.
"""

from __future__ import annotations

import random
import struct
import tracemalloc
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kvref.config import Config
from kvref.database import Database
from kvref.persistence import rdb
from kvref.persistence.crc64 import Checksum, crc64
from kvref.persistence.cursor import CHUNK, Cursor, Unreadable
from kvref.persistence.encodings import listpack
from kvref.persistence.lzf import LZF_GAIN
from kvref.persistence.rdb import Entry
from kvref.sampling import Hash, Members
from kvref.skiplist import SortedSet
from tests import record
from tests.dumps.make import DUMPS
from tests.keyspaces import (CONFIGS, FAR_MS, PATH, SMALL, SMALL_TYPES, boundaries, commands, dumped, entries, on_disk,
                             plain)

SMALL_FILE = dumped(SMALL)
UNCHECKED_FILE = dumped(SMALL, rdbchecksum="no", rdbcompression="no")
PLAIN = Config.load(directives=[("rdbcompression", "no")])
LARGE_FILE = dumped([entry for entry in boundaries() if len(entry[2]) < 600])


def read(data: bytes, checked: bool = True) -> list[Entry]:
    """All entries. Unreadable."""
    checksum = Checksum()
    return list(rdb.Reader(Cursor(data, passed=checksum.update), checksum if checked else None))


def refusal(data: bytes, checked: bool = True) -> Unreadable:
    """What is said of it: one short sentence with an offset that there is."""
    with pytest.raises(Unreadable) as caught:
        read(data, checked)
    assert_clear(caught.value, data)
    return caught.value


def assert_clear(error: Unreadable, data: bytes) -> None:
    assert 0 <= error.offset <= len(data)
    assert len(str(error)) < 500 and "\n" not in str(error) and error.what


# ---- what was written comes back -----------------------------------------------------------------

@given(entries, CONFIGS)
def test_what_is_dumped_is_loaded(keyspace: list[Entry], config: Config) -> None:
    """In its order, too, by databases; under any directives."""
    disk = on_disk(b"something else stood here before")
    rdb.dump(PATH, keyspace, config, disk)
    found = list(rdb.load(PATH, disk))
    assert plain(found) == plain(keyspace)
    assert [entry[:2] for entry in found] == sorted((entry[:2] for entry in keyspace), key=lambda place: place[0])


def test_the_small_file_has_every_type_that_is_written() -> None:
    found = set()

    class Typed(Cursor):
        def byte(self, meaning: str) -> int:
            byte = super().byte(meaning)
            found.add(byte)
            return byte
    list(rdb.Reader(Typed(SMALL_FILE)))
    assert found == SMALL_TYPES | {rdb.AUX, rdb.SELECTDB, rdb.RESIZEDB, rdb.EXPIRE_MS, rdb.EOF}


def test_the_head_says_who_wrote_it_and_how_much_there_is() -> None:
    reader = rdb.Reader(Cursor(dumped(SMALL, rdbcompression="no")))
    assert plain(reader) == plain(SMALL)
    assert reader.version == 10 and not reader.warnings
    assert reader.aux == {
        "redis-ver": b"7.0.15", "redis-bits": b"64", "ctime": b"0", "used-mem": b"0", "aof-base": b"0"}
    assert reader.expected == {0: (11, 2), 15: (2, 1)}


def test_a_long_value_comes_in_blocks_and_not_at_once() -> None:
    """A dump is written as it is made: what waits for the disk is never the whole."""
    disk = on_disk(b"")
    rdb.dump(PATH, [(0, b"list", deque(b"%d" % number for number in range(150_000)), None),
                    *((0, b"k%d" % number, b"v" * 20, None) for number in range(40_000))], None, disk)
    sizes = [len(operation.data) for operation in disk.operations if operation.kind == "write"]
    assert len(sizes) > 5 and max(sizes) < 3 * rdb.BLOCK
    assert len(list(rdb.load(PATH, disk))) == 40_001


def test_a_long_file_is_read_a_piece_at_a_time() -> None:
    data = dumped(((0, b"key %d" % number, b"v" * 40, None) for number in range(60_000)), rdbcompression="no")
    asked, held, at = [], 0, 0

    def more(count: int) -> bytes:
        nonlocal at
        asked.append(count)
        piece = data[at:at + count]
        at += count
        return piece
    cursor = Cursor(b"", more, len(data))
    for _ in rdb.Reader(cursor):
        held = max(held, len(cursor.data))
    assert sum(asked) == len(data) > 2 * CHUNK and len(asked) == 1 + len(data) // CHUNK
    assert held < 1.01 * CHUNK


# ---- one byte, a few bytes ------------------------------------------------------------------------

def test_every_change_of_any_one_byte_of_a_small_file_is_refused() -> None:
    """Exhaustive over the bytes of a file with every type that is written; of each byte, six other values of 255."""
    for at, byte in enumerate(SMALL_FILE):
        for other in {byte ^ 1, byte ^ 0x80, byte ^ 0xFF, byte + 1 & 0xFF, 0, 0xFF} - {byte}:
            refusal(SMALL_FILE[:at] + bytes([other]) + SMALL_FILE[at + 1:])


@settings(max_examples=30)
@given(st.integers(0, len(LARGE_FILE) - 1), st.integers(1, 255))
def test_a_change_of_one_byte_of_a_large_file_is_refused(at: int, change: int) -> None:
    """Sampled: bytes and values."""
    refusal(LARGE_FILE[:at] + bytes([LARGE_FILE[at] ^ change]) + LARGE_FILE[at + 1:])


@pytest.mark.parametrize("data", [SMALL_FILE, UNCHECKED_FILE], ids=["with checksum", "without checksum"])
def test_every_prefix_of_a_small_file_is_refused(data: bytes) -> None:
    """Exhaustive."""
    for size in range(len(data)):
        refusal(data[:size])
        refusal(data[:size], checked=False)


@settings(max_examples=60)
@given(st.integers(0, len(LARGE_FILE) - 1))
def test_a_prefix_of_a_large_file_is_refused(size: int) -> None:
    """Sampled."""
    refusal(LARGE_FILE[:size], checked=False)


def test_a_file_that_becomes_shorter_while_it_is_read_is_refused() -> None:
    rest = iter([SMALL_FILE[:100]])
    with pytest.raises(Unreadable, match="the file has become shorter while it was read"):
        list(rdb.Reader(Cursor(b"", lambda count: next(rest, b""), len(SMALL_FILE))))


@given(st.binary(min_size=1, max_size=50))
@example(b"\0" * 8)
@example(SMALL_FILE)
def test_bytes_behind_the_checksum_are_a_warning(more: bytes) -> None:
    checksum = Checksum()
    reader = rdb.Reader(Cursor(SMALL_FILE + more, passed=checksum.update), checksum)
    assert plain(reader) == plain(SMALL)
    assert reader.warnings == [f"{len(more)} bytes behind the end of the file were not looked at"]


def test_in_a_log_bytes_behind_the_checksum_are_no_surprise() -> None:
    """The commands that follow are the caller's: the cursor stands before them."""
    for data in (SMALL_FILE, UNCHECKED_FILE):
        checksum = Checksum()
        cursor = Cursor(data + b"*1\r\n$4\r\nPING\r\n", passed=checksum.update)
        reader = rdb.Reader(cursor, checksum, alone=False)
        assert plain(reader) == plain(SMALL) and not reader.warnings
        assert cursor.take(4, "command") == b"*1\r\n"


# ---- the checksum --------------------------------------------------------------------------------

def test_the_checksum_is_that_of_all_before_it() -> None:
    assert int.from_bytes(SMALL_FILE[-8:], "little") == crc64(SMALL_FILE[:-8])


def test_a_checksum_of_zero_is_one_that_was_switched_off() -> None:
    assert UNCHECKED_FILE[-8:] == bytes(8)
    assert plain(read(UNCHECKED_FILE)) == plain(read(SMALL_FILE[:-8] + bytes(8))) == plain(SMALL)


def test_zeros_are_no_checksum_where_the_file_goes_on() -> None:
    """An end in the midst of zeros would else be taken for the end of a file without a checksum."""
    error = refusal(UNCHECKED_FILE + b"\0")
    assert error.offset == len(UNCHECKED_FILE) - 8
    assert error.what == (f"the checksum is {crc64(UNCHECKED_FILE[:-8]):016x}, and should be {0:016x}: "
                          "the file is damaged")


def test_who_does_not_want_the_checksum_does_not_look_at_it() -> None:
    """`rdbchecksum no`."""
    changed = SMALL_FILE[:-8] + b"12345678"
    assert "the file is damaged" in refusal(changed).what
    assert plain(read(changed, checked=False)) == plain(SMALL)


# ---- the inlined strings, and the same in pieces -------------------------------------------------

class General(Cursor):
    """Not `Cursor` itself: the reader takes the general way for every entry."""


def both_ways(data: bytes) -> Iterator[tuple[list[Entry], str]]:
    """What is read, and what is said where it stops: inlined and not, at once and in pieces."""
    for kind in (Cursor, General):
        yield outcome(kind(data))
        for size in (1, 2, 7, 129, 4096):
            pieces = (data[at:at + size] for at in range(0, len(data), size))
            yield outcome(kind(b"", lambda count: next(pieces, b""), len(data)))


def outcome(cursor: Cursor) -> tuple[list[Entry], str]:
    found: list[Entry] = []
    try:
        for database, key, value, deadline in rdb.Reader(cursor):
            found.append((database, key, value if isinstance(value, bytes) else repr(value), deadline))
    except Unreadable as error:
        return found, str(error)
    return found, ""


Pair = tuple[bytes, bytes, int | None]
STRINGS = st.binary(max_size=70) | st.integers(60, 66).map(b"\1".__mul__) | st.just(b"12")      # \1 could be a length
PAIRS = st.lists(st.tuples(STRINGS, STRINGS, st.sampled_from((None, None, None, FAR_MS))), max_size=30)


@settings(max_examples=50)
@given(PAIRS, st.booleans())
def test_the_inlined_strings_are_read_as_all_others(pairs: list[Pair], compressed: bool) -> None:
    keyspace: dict[bytes, Entry] = {key: (0, key, value, deadline) for key, value, deadline in pairs}
    ways = list(both_ways(dumped(keyspace.values(), rdbcompression=compressed)))
    assert ways == [(list(keyspace.values()), "")] * len(ways)


@settings(max_examples=50)
@given(PAIRS, st.data())
def test_of_a_damaged_file_the_inlined_strings_say_the_same(pairs: list[Pair], draw: st.DataObject) -> None:
    data = bytearray(dumped([(0, b"%d" % at + key, *rest) for at, (key, *rest) in enumerate(pairs)]))
    start = data.index(b"aof-base")
    for _ in range(draw.draw(st.integers(0, 3))):
        data[draw.draw(st.integers(start, len(data) - 1))] = draw.draw(st.integers(0, 255))
    first, *others = both_ways(bytes(data))
    assert others == [first] * len(others)


def test_files_with_every_type_are_read_the_same_in_pieces() -> None:
    for data in (SMALL_FILE, UNCHECKED_FILE, *(data for data, _ in DUMPS.values())):
        first, *others = both_ways(data)
        assert first[0] and not first[1] and others == [first] * len(others)


def test_what_is_said_of_one_key_is_not_said_of_the_next() -> None:
    """The inlined way must not pass over a deadline, an idle time or a counter that stands before a string."""
    strings = b"\0\1a\1v", b"\0\1b\1v"
    deadline = b"\xfc" + FAR_MS.to_bytes(8, "little")
    for said, seen in ((deadline, (FAR_MS, None, None)), (b"\xfd\1\0\0\0", (1000, None, None)),
                       (b"\xf8\x40\x50", (None, 80, None)), (b"\xf9\7", (None, None, 7)),
                       (deadline + b"\xf9\0", (FAR_MS, None, 0))):
        data = b"".join([b"REDIS0010\xfe\0", said, *strings, b"\xff", bytes(8), bytes(rdb.PAIR_MAX)])
        reader = rdb.Reader(Cursor(data))
        found = [(key, deadline, reader.idle_s, reader.freq) for _, key, _, deadline in reader]
        assert found == [(b"a", *seen), (b"b", None, None, None)]


# ---- what a sentence says ------------------------------------------------------------------------

def entry(kind: int, *pieces: bytes) -> bytes:
    """A file up to this entry, of the key "k"; the value begins at offset 14."""
    return b"REDIS0010\xfe\0" + bytes([kind]) + b"\1k" + b"".join(pieces)


NO_RDB = "this is no RDB file: it does not begin with REDIS or VALKEY and a version"
NO_PLACE = "the file holds {}, for which kvref has no place"
REFUSED: dict[str, tuple[bytes, int, bytes | None, str]] = {        # bytes, offset, key, what is said
    "nothing": (b"", 0, None, NO_RDB),
    "a log": (b"*1\r\n$4\r\nPING\r\n", 0, None, NO_RDB),
    "version 0": (b"REDIS0000\xff", 0, None, "version 0 is none that kvref reads: 1 to 12, and Valkey's 80"),
    "version 13": (b"REDIS0013\xff", 0, None, "version 13 is none that kvref reads: 1 to 12, and Valkey's 80"),
    "Valkey's 81": (b"VALKEY081\xff", 0, None, "version 81 is none that kvref reads: 1 to 12, and Valkey's 80"),
    "no type": (entry(0, b"\1v", b"\x20"), 16, None, "0x20 is no type of value"),
    **{f"type {kind}": (entry(kind), 11, None, NO_PLACE.format("a value of a module")) for kind in (6, 7)},
    **{f"type {kind}": (entry(kind), 11, None, NO_PLACE.format("a stream")) for kind in (15, 19, 21)},
    **{f"type {kind}": (entry(kind), 11, None, NO_PLACE.format("a hash with deadlines of fields"))
       for kind in (22, 23, 24, 25)},
    "functions": (b"REDIS0010\xf5\x05hello", 9, None, NO_PLACE.format("functions")),
    "functions of a candidate": (b"REDIS0010\xf6\x05hello", 9, None, NO_PLACE.format("functions")),
    "what a module left": (b"REDIS0010\xf7\0", 9, None, NO_PLACE.format("data of a module")),
    "a key that is cut": (entry(0)[:-1], 13, None, "key of 1 bytes should follow, but the end comes after 0"),
    "a value that is cut": (entry(0, b"\5hell"), 15, b"k", "value of 5 bytes should follow, but the end comes after 4"),
    "no end": (entry(0, b"\1v"), 16, None, "type or opcode of 1 bytes should follow, but the end comes after 0"),
    "half a checksum": (entry(0, b"\1v\xff\0\0"), 17, None,
                        "CRC-64 of all before of 8 bytes should follow, but the end comes after 2"),
    "a length of no kind": (entry(0, b"\x82"), 14, b"k", "length of value has the impossible encoding 0x82"),
    "a string of no kind": (entry(0, b"\xc4\0"), 14, b"k", "value has the impossible encoding 0xc4"),
    "a string for a count": (entry(1, b"\xc0\1"), 14, b"k", "number of elements has the impossible encoding 0xc0"),
    "more than LZF can hold": (entry(0, b"\xc3\3\x41\x09abc"), 18, b"k",
                               "value claims 265 bytes, and 3 compressed bytes cannot hold them"),
    "LZF that leads nowhere": (entry(0, b"\xc3\3\x09\xe0\0\0"), 17, b"k", "the compressed bytes of value are damaged"),
    "a large element that is empty": (entry(18, b"\1\1\0"), 17, b"k",
                                      "a node of a list is a large element, and holds nothing"),
    "a node of no kind": (entry(18, b"\1\3\1v"), 16, b"k", "a node of a list has the unknown container 3"),
    "an intset out of order": (entry(11, b"\x0c\2\0\0\0\2\0\0\0\2\0\1\0"), 25, b"k", "the intset has 1 behind 2"),
    "... in LZF": (entry(11, b"\xc3\x0d\x0c\x0b\2\0\0\0\2\0\0\0\2\0\1\0"), 30, b"k",
                   "the intset has 1 behind 2 (in compressed bytes)"),
    "a field without a value": (entry(16, b"\x09\x09\0\0\0\1\0\1\1\xff"), 24, b"k", "a field without a value"),
    "a field twice": (entry(4, b"\2\1f\1v\1f\1w"), 23, b"k", "the field b'f' stands twice"),
    "a member twice": (entry(2, b"\2\1m\1m"), 19, b"k", "the member b'm' stands twice"),
    "a scored member twice": (entry(5, b"\2\1m", bytes(8), b"\1m", bytes(8)), 35, b"k", "the member b'm' stands twice"),
    "a score that is none": (entry(5, b"\1\1m\0\0\0\0\0\0\xf8\x7f"), 25, b"k", "the member b'm' has no score"),
    "a member without a score": (entry(17, b"\x0a\x0a\0\0\0\1\0\x81m\2\xff"), 25, b"k", "the member b'm' has no score"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_read_is_refused_with_one_sentence(what: str) -> None:
    data, offset, key, said = REFUSED[what]
    for cursor in (Cursor(data), General(data)):
        with pytest.raises(Unreadable) as caught:
            list(rdb.Reader(cursor))
        assert (caught.value.what, caught.value.offset, caught.value.key) == (said, offset, key)


def test_a_sentence_names_the_file_and_not_all_of_a_long_key(tmp_path: Path) -> None:
    disk = on_disk(b"REDIS0010\xfe\0\0\x50\0" + b"k" * 4096 + b"\5v")
    with pytest.raises(Unreadable) as caught:
        list(rdb.load(PATH, disk))
    assert str(caught.value) == (f"{PATH}: at offset 4111, key {b'k' * 64!r}: "
                                 "value of 5 bytes should follow, but the end comes after 1")
    path = tmp_path / "dump.rdb"            # by default it is the real disk
    path.write_bytes(SMALL_FILE[:-1])
    with pytest.raises(Unreadable, match=f"^{path}: at offset {len(SMALL_FILE) - 8}: CRC-64 of all before of 8 bytes"):
        list(rdb.load(str(path)))
    with pytest.raises(FileNotFoundError):
        list(rdb.load(str(tmp_path / "none")))


# ---- hostile files: what they may cost ------------------------------------------------------------

class Counting(Cursor):
    """Counts what is asked of it, and of the cursors inside; and what has been unpacked for those."""

    def __init__(self, data: bytes, totals: dict[str, int] | None = None) -> None:
        super().__init__(data)
        self.totals = {"asked": 0, "inside": 0} if totals is None else totals

    def take(self, count: int, meaning: str) -> bytes:
        self.totals["asked"] += 1
        return super().take(count, meaning)

    def inside(self, blob: bytes) -> Cursor:
        self.totals["inside"] += len(blob)
        outer, inner = super().inside(blob), Counting(blob, self.totals)
        inner.base, inner.fixed = outer.base, outer.fixed
        return inner


def assert_cheap(data: bytes, most: int = 100) -> str:
    """Whatever these bytes are: entries, or one sentence, with time and memory in proportion to their number.

    `most`: bytes of memory for a byte of the file. Returns the sentence.
    """
    cursor, said = Counting(data), ""
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    try:
        list(rdb.Reader(cursor))
    except Unreadable as error:
        assert_clear(error, data)
        said = error.what
    peak = tracemalloc.get_traced_memory()[1] - before
    assert cursor.totals["inside"] <= LZF_GAIN * len(data)
    assert cursor.totals["asked"] <= 2 * (len(data) + cursor.totals["inside"]) + 10
    assert peak < 20_000 + most * (len(data) + cursor.totals["inside"]), peak
    return said


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


# Lengths that lead to nothing that must be there
HINTS = {"number of keys", "number of deadlines", "number of the database", "seconds since the last use",
         "about a slot of a cluster"}
HUGE = [b"\x81" + (2**60).to_bytes(8, "big"), b"\x81" + b"\xff" * 8, b"\x80\xff\xff\xff\xff", b"\x80\0\x10\0\0"]


class Lengths(Cursor):
    """Notes where the lengths and counts stand: (start, end, meaning)."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.places: list[tuple[int, int, str]] = []

    def _length(self, meaning: str) -> tuple[int, bool]:
        start = self.offset
        found = super()._length(meaning)
        self.places.append((start, self.offset, meaning))
        return found


def test_a_huge_length_wherever_one_may_stand_costs_nothing(traced: None) -> None:
    """2^60 and others, in the place of every length and count of files with all types; those within listpacks, intsets
    and older forms have tests of their own."""
    count = 0
    for data in (SMALL_FILE, UNCHECKED_FILE, *(data for data, _ in DUMPS.values())):
        cursor = Lengths(data)
        list(rdb.Reader(cursor))
        for start, end, meaning in cursor.places:
            for huge in HUGE:
                said = assert_cheap(data[:start] + huge + data[end:], most=30)
                assert bool(said) == (meaning not in HINTS), meaning
                count += 1
    assert count > 1000


@pytest.mark.parametrize("packed", [b"", b"\0a", b"\0a" + b"\xe0\xff\0" * 1000, b"\xff" * 1000, b"\x1f" * 1000])
@pytest.mark.parametrize("size", [0, 1, 86 * 1000, 264 * 1000 + 1, 2**32, 2**60])
def test_a_bomb_costs_no_more_than_its_bytes_can_hold(packed: bytes, size: int, traced: None) -> None:
    data = entry(0, b"\xc3", rdb.length(len(packed)), rdb.length(size), packed, b"\xff" + bytes(8))
    tracemalloc.reset_peak()
    whole = not assert_cheap(data, most=3 * LZF_GAIN)
    assert tracemalloc.get_traced_memory()[1] < 3 * LZF_GAIN * len(data) + 20_000
    assert whole == ((len(packed), size) in ((0, 0), (2, 1), (3002, 264_001)))


COUNT = 50_000
ROWS = {                                    # type, what stands before the string, the first entry, all others
    "a list of small numbers": (18, b"\1\2", b"\x64\1", b"\x64\1"),
    "a list of numbers": (18, b"\1\2", b"\xc3\xe8\2", b"\xc3\xe8\2"),
    "a list of texts": (18, b"\1\2", b"\x82ab\3", b"\x82ab\3"),
    "a hash": (16, b"", b"\x64\1", b"\x64\1"),
    "a sorted set": (17, b"", b"\x64\1", b"\x64\1"),
    "a set": (20, b"", b"\x64\1", b"\x64\1"),
    "a ziplist": (10, b"", b"\0\xfd", b"\2\xfd"),
    "a ziplist of bytes": (10, b"", b"\0\xfe\x64", b"\3\xfe\x64"),
    "a quicklist of ziplists": (14, b"\1", b"\0\xfd", b"\2\xfd"),
    "a hash as ziplist": (13, b"", b"\0\xfd", b"\2\xfd"),
    "a sorted set as ziplist": (12, b"", b"\0\xfd", b"\2\xfd"),
    "a zipmap": (9, b"", b"", b"\2ab\2\0cd"),
}


@pytest.mark.parametrize("what", ROWS)
def test_a_bomb_of_entries_costs_no_more_than_six_times_what_redis_spends_on_it(what: str, traced: None) -> None:
    """Equal entries, which LZF makes 88 times as short. Redis keeps the unpacked string as it is; here an entry of it
    costs a pointer to one object that all share, and a member or field that stands twice is noticed at once."""
    kind, before, first, entries = ROWS[what]
    if kind == 9:
        blob = b"\xfe" + entries * COUNT + b"\xff"
    elif kind in (10, 12, 13, 14):
        tail = 10 + len(first) + (COUNT - 2) * len(entries)
        blob = struct.pack("<IIH", tail + len(entries) + 1, tail, 0xFFFF) + first + entries * (COUNT - 1) + b"\xff"
    else:
        blob = listpack([entries] * COUNT)
    data = entry(kind, before, rdb.string(blob, True), b"\xff" + bytes(8))
    assert len(data) < len(blob) / 80
    read(data, checked=False) if kind in (18, 10, 14) else refusal(data, checked=False)     # warm: ints, tables
    tracemalloc.reset_peak()
    start = tracemalloc.get_traced_memory()[0]
    try:
        value = read(data, checked=False)[0][2]
        assert len(value) == COUNT and tracemalloc.get_traced_memory()[0] - start < 6 * len(blob)
    except Unreadable as error:
        assert "twice" in error.what and kind not in (18, 10, 14)
        assert tracemalloc.get_traced_memory()[1] - start < 3 * len(blob)
    assert tracemalloc.get_traced_memory()[1] - start < 6 * len(blob)


def test_a_bomb_of_many_nodes_costs_no_more(traced: None) -> None:
    """Nodes as small as a server makes them: what is shared in one is not shared with the next."""
    node = b"\2" + rdb.string(listpack([b"\x64\1"] * 4000), True)
    data = entry(18, rdb.length(30), node * 30, b"\xff" + bytes(8))
    start = tracemalloc.get_traced_memory()[0]
    assert len(read(data, checked=False)[0][2]) == 30 * 4000
    assert tracemalloc.get_traced_memory()[1] - start < 6 * 30 * 8007


def test_what_looks_like_a_value_within_a_value_is_text(traced: None) -> None:
    """Nothing nests: a list in a list in a list is a list with one long element."""
    value = rdb.save_value(deque([b"x"]), Config())
    for depth in range(1000):
        text = bytes([value[0]]) + b"".join(value[1])
        value = rdb.save_value(deque([text]), PLAIN)
    assert rdb.load_value(Cursor(bytes([value[0]]) + b"".join(value[1]))) == deque([text])
    assert assert_cheap(entry(18, b"\x81\x10" + bytes(7), b"\2\7\7\0\0\0\0\0\xff" * 5000)).startswith("container")
    assert assert_cheap(entry(18, rdb.length(5000), b"\2\7\7\0\0\0\0\0\xff" * 5000, b"\xff" + bytes(8))) == ""


def mutated(data: bytes, dice: random.Random, others: list[bytes]) -> bytes:
    """One to four things done to a file: bytes changed, lost, doubled, moved, or taken from another one."""
    for _ in range(dice.choice((1, 1, 2, 4))):
        at, size = dice.randrange(9, len(data) + 1), dice.choice((1, 1, 2, 4, 8, 30))
        piece = dice.choice((b"", dice.randbytes(size), data[at:at + size] * 2, bytes([dice.choice(SPECIAL)]),
                             dice.choice(HUGE), dice.choice(others)[at:at + dice.randrange(100)]))
        data = data[:at] + piece + data[at + dice.choice((0, size, len(piece))):]
    return data


SPECIAL = [0, 1, 2, 16, 17, 18, 63, 64, 127, 128, 129, 192, 193, 195, *range(240, 256)]


@pytest.mark.parametrize("seed", range(4))
def test_a_mutated_file_is_read_or_refused_in_few_steps_and_little_memory(seed: int, traced: None) -> None:
    """Seeds: kvref's own, with every type that it writes, and those of every older version. Checksums do not count."""
    dice = random.Random(seed)
    seeds = [SMALL_FILE, UNCHECKED_FILE, UNCHECKED_FILE, *(data for data, _ in DUMPS.values())]
    said = [assert_cheap(mutated(dice.choice(seeds), dice, seeds)) for _ in range(1000)]
    assert said.count("") > 20 and len(set(said)) > 100     # some are read, and many different things are found


def test_a_mutated_file_of_a_real_redis_is_read_or_refused(redis_server: record.RedisServer, traced: None) -> None:
    client, dice = redis.Redis(port=redis_server.port), random.Random(5)
    client.flushall()
    for database in (0, 15):
        pipeline = client.pipeline(transaction=False)
        pipeline.select(database)
        for each in (each for each in SMALL if each[0] == database):
            for words in commands(each):
                pipeline.execute_command(*words)
        pipeline.save()
        pipeline.execute()
    data = Path(redis_server.directory, "dump.rdb").read_bytes()
    client.flushall()
    assert plain(read(data)) == plain(SMALL)
    for _ in range(600):
        assert_cheap(mutated(data, dice, [data, SMALL_FILE]))


def test_a_mutated_large_file_is_read_or_refused(traced: None) -> None:
    dice = random.Random(6)
    for _ in range(6):
        assert_cheap(mutated(LARGE_FILE, dice, [LARGE_FILE]), most=20)


@settings(max_examples=150)
@given(st.binary(max_size=400), st.sampled_from([b"REDIS0010", b"REDIS0003", b"REDIS0012\xfa\0\0", b"VALKEY080\xfe\0"]))
def test_any_bytes_behind_a_good_head_are_read_or_refused(data: bytes, head: bytes) -> None:
    try:
        read(head + data, checked=False)
    except Unreadable as error:
        assert_clear(error, head + data)


PAYLOADS = [bytes([kind]) + b"".join(pieces) for kind, pieces in (
    rdb.save_value(value, config) for config in (Config(), PLAIN) for _, _, value, _ in SMALL)]


@settings(max_examples=150)
@given(st.sampled_from(PAYLOADS), st.randoms(use_true_random=False))
@example(b"", random.Random(0))
def test_a_mutated_value_is_restored_or_refused(payload: bytes, dice: random.Random) -> None:
    """RESTORE, behind its checksum. A value is never empty."""
    if payload:
        assert rdb.load_value(Cursor(payload)) is not None
        payload = mutated(b"123456789" + payload, dice, PAYLOADS)[9:]
    try:
        value = rdb.load_value(Cursor(payload))
    except Unreadable as error:
        assert_clear(error, payload)
    else:
        assert isinstance(value, bytes) or len(value)


MANY = range(60_000)
LARGE: dict[str, Any] = {
    "list": deque(b"%06d" % (n * 7919 % 1_000_003) * 3 for n in MANY),
    "hash": Hash((b"f%d" % n, b"v%d" % n) for n in MANY),
    "set": Members((b"m%d" % n, None) for n in MANY),
    "sorted set": SortedSet.from_pairs((b"m%d" % n, n / 7) for n in MANY),
}


@pytest.mark.parametrize("name", LARGE)
def test_while_a_large_collection_is_saved_a_few_blocks_are_held(name: str, traced: None,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    """However large it is; of a list all packed nodes, 10 bytes for each element here: their number comes first.

    With small blocks: who counts memory takes his time for each element."""
    monkeypatch.setattr(rdb, "BLOCK", 1 << 16)
    database = Database(0, lambda database, key: None)
    database.set(b"k", LARGE[name])
    for config in (PLAIN, Config()):
        tracemalloc.reset_peak()
        start = tracemalloc.get_traced_memory()[0]
        assert sum(map(len, rdb.blocks([database], config))) > 4 * rdb.BLOCK
        assert tracemalloc.get_traced_memory()[1] - start < 25 * rdb.BLOCK < 35 * len(MANY)
    assert plain(read(b"".join(rdb.blocks([database], PLAIN)))) == plain([(0, b"k", LARGE[name], None)])


@pytest.mark.parametrize("count", [rdb.MEMBERS_A_TIME + extra for extra in (-1, 0, 1, 1000, rdb.MEMBERS_A_TIME)])
def test_a_large_sorted_set_is_written_from_the_largest_member_to_the_smallest(count: int) -> None:
    value = SortedSet.from_pairs((b"%d" % n, float(n)) for n in range(count))
    kind, pieces = rdb.save_value(value, PLAIN)
    cursor = Cursor(b"".join(pieces))
    assert (kind, cursor.length("members")) == (5, count)
    assert [(cursor.string("member"), cursor.double("score")) for _ in range(count)] == value.by_rank(0, count - 1)[::-1]
    assert cursor.left == 0


def test_a_dump_is_made_in_blocks_whatever_is_in_it() -> None:
    values: dict[bytes, object] = {b"%d" % n: bytes([n % 251]) * 50_000 for n in range(100)}
    values[b"hash"] = Hash((b"f%d" % n, b"v" * 100) for n in range(20_000))
    database = Database(0, lambda database, key: None)
    for key, value in values.items():
        database.set(key, value)
    config = Config()
    config.rdbcompression = False
    assert max(map(len, rdb.blocks([database], config))) < 2 * rdb.BLOCK + 50_100
