"""python -m kvref.files: every byte is named, a verdict is what a start does, and nothing makes a traceback.

tests/dumps/redis-7.0.15.rdb was written by a real redis-server that had been sent REAL_COMMANDS; redis-7.0.15.txt is
its dissection, read through and found right. After a change of the words that is meant:

    python -m kvref.files dissect tests/dumps/redis-7.0.15.rdb > tests/dumps/redis-7.0.15.txt
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import example, given
from hypothesis import strategies as st

from kvref import files
from kvref.config import Config
from kvref.machine import RealDisk
from kvref.persistence import rdb, tracer
from kvref.persistence.crc64 import Checksum, crc64
from kvref.persistence.cursor import Cursor, Unreadable
from kvref.persistence.rdb import Entry
from kvref.persistence.tracer import MANY, SHOWN, Part, Tracer
from kvref.sim import World
from kvref.sim.clock import NEW_YEAR_US
from tests import record
from tests.dumps.make import DUMPS, HERE
from tests.keyspaces import CONFIGS, FAR_MS, PATH, SMALL, boundaries, dumped, entries, on_disk, plain
from tests.test_main import ROOT, environment

LONG = "0123456789abcdefghij" * 4           # too long for a listpack
REAL_COMMANDS: list[tuple[int, tuple[str | float, ...]]] = [
    (0, ("SET", "greeting", "hello")), (0, ("SET", "number", 12345)), (0, ("SET", "compressed", "a" * 100)),
    (0, ("SET", "session", "token", "PXAT", 2_000_000_000_000)),
    (0, ("RPUSH", "queue", *["GET /index.html"] * 4, -300)),
    (0, ("SADD", "numbers", 1, 2, 300)), (0, ("SADD", "tags", "red")),
    (0, ("HSET", "user", "name", "ann", "age", 42)), (0, ("HSET", "article", "title", LONG)),
    (0, ("ZADD", "board", 1.5, "ann", 3, "bob")), (0, ("ZADD", "ranking", 0.1, LONG)),
    (3, ("SET", "elsewhere", "database 3"))]
REAL = HERE / "redis-7.0.15.rdb"
NOW_MS = NEW_YEAR_US // 1000                # when a World begins


def summed(data: bytes) -> bytes:
    """A file without its checksum, and the right one."""
    return data + crc64(data).to_bytes(8, "little")


BARE = dumped(SMALL, rdbchecksum="no", rdbcompression="no")
FILES = {**{name: data for name, (data, _) in DUMPS.items()}, REAL.name: REAL.read_bytes(), "small": dumped(SMALL),
         "bare": BARE, "empty": summed(b"REDIS0010\xff"), "boundaries": dumped(boundaries())}
HEAD = b"REDIS0010\xfe\0"
LIST = HEAD + b"\x12\x01k\x01\x02"          # a list of one listpack, which follows


def bomb(entries: int, nodes: int = 1) -> bytes:
    """A file with a list whose listpacks have so many entries of one byte; 3 bytes stand for 264."""
    size = 2 * entries + 7
    blob = rdb.string(size.to_bytes(4, "little") + b"\xff\xff" + b"\x07\x01" * entries + b"\xff", True)
    return summed(HEAD + b"\x12\x01k" + rdb.length(nodes) + (b"\x02" + blob) * nodes + b"\xff")


DAMAGED: dict[str, bytes] = {
    "nothing": b"",
    "no dump": b"#!/bin/sh\necho hello\n",
    "the magic alone": b"REDIS0010",
    "another version": b"REDIS0099\xff",
    "cut in a deadline": HEAD + b"\xfc\0\0\0",
    "cut in a key": HEAD + b"\0\x05ke",
    "cut before a value": HEAD + b"\0\x01k",
    "cut in a number": HEAD + b"\0\x01k\xc2\1\2",
    "no end": HEAD + b"\0\x01k\x01v",
    "half a checksum": summed(HEAD + b"\xff")[:-4],
    "wrong checksum": HEAD + b"\xff" + b"12345678",
    "a length of 2^60": HEAD + b"\0\x01k\x81\x10" + bytes(7) + b"v",
    "a length of no form": HEAD + b"\0\x01k\x82v",
    "a string of no form": HEAD + b"\0\x01k\xc4v",
    "a type of no form": HEAD + b"\x2a\x01kv",
    "a stream": HEAD + b"\x0f\x01kv",
    "functions": HEAD + b"\xf5\x01f",
    "an LZF that lies": HEAD + b"\0\x01k\xc3\x03\x20abc",
    "an LZF bomb": HEAD + b"\0\x01k\xc3\x03\x81\x10" + bytes(7) + b"abc",
    "a count of 2^60": HEAD + b"\x02\x01k\x81\x10" + bytes(7),
    "a member twice": HEAD + b"\x02\x01k\x02\x01m\x01m\xff",
    "a score that is none": HEAD + b"\x05\x01k\x01\x01m" + bytes(6) + b"\xf8\x7f",
    "a node of no form": HEAD + b"\x12\x01k\x01\x03\x01v",
    "a listpack that lies": HEAD + b"\x10\x01k\x07\x09\0\0\0\0\0\xff",
    "a listpack broken off": HEAD + b"\x10\x01k\x0a\x0a\0\0\0\x01\0\x84name",
    "a number for a listpack": HEAD + b"\x10\x01k\xc2\1\2\3\4",
    "an odd listpack": HEAD + b"\x10\x01k\x0a\x0a\0\0\0\x01\0\x81n\x02\xff",
    "an intset that lies": HEAD + b"\x0b\x01k\x08\x02\0\0\0\x09\0\0\0",
    "a ziplist broken off": HEAD + b"\x0d\x01k\x0d\x0d\0\0\0\x0a\0\0\0\x01\0\0\x04n",
    "a zipmap broken off": HEAD + b"\x09\x01k\x03\x01\x04n",
    "a compressed listpack that lies": LIST + rdb.string(b"\x64\0\0\0\x01" + bytes(95), True),
    "a key twice": summed(HEAD + b"\0\1k\1v\0\1k\1w\xff"),
    "a database too many": summed(b"REDIS0010\xfe\x10\0\1k\1v\xff"),
    "a database 2^60": HEAD[:-1] + b"\x81\x10" + bytes(7) + b"\0\1k\1v\xff" + bytes(8),
}
REFUSED = ("a key twice", "a database too many", "a database 2^60")      # can be read, but are no good for a start
UNREADABLE = {name: data for name, data in DAMAGED.items() if name not in REFUSED}
each_file = pytest.mark.parametrize("data", FILES.values(), ids=FILES)
each_damaged = pytest.mark.parametrize("data", UNREADABLE.values(), ids=UNREADABLE)


def parts_of(data: bytes) -> tuple[list[Part], str]:
    """The parts of a file, and what ended them early."""
    found: list[Part] = []
    try:
        found.extend(files.dissect(on_disk(data), PATH))
    except Unreadable as error:
        return found, str(error)
    return found, ""


def every(parts: list[Part]) -> Iterator[Part]:
    for part in parts:
        yield part
        yield from every(part.parts)


def assert_covered(parts: list[Part], data: bytes, start: int = 0, end: int | None = None) -> None:
    """The parts lie side by side from `start` to `end`, are what stands there, and so on inside."""
    edges = [start, *(part.offset + part.length for part in parts)]
    assert edges[:-1] == [part.offset for part in parts]
    assert end in (None, edges[-1])
    for part in parts:
        assert part.length > 0 and part.meaning
        assert part.raw == data[part.offset:part.offset + part.length]
        if part.parts and part.unpacked:
            # a number where a listpack should be has no bytes of its own: its digits count from where it stands
            assert part.parts[0].offset == (0 if part.meaning == "compressed" else part.offset)
            assert all(one.offset + one.length == other.offset for one, other in pairwise(part.parts))
        elif part.parts:
            assert_covered(part.parts, data, part.offset, part.offset + part.length)


# ---- naming every byte ---------------------------------------------------------------------------

def test_a_dump_of_a_real_server_is_named_byte_for_byte() -> None:
    shown = [line for part in files.dissect(RealDisk(), str(REAL)) for line in part.lines()]
    assert shown == (HERE / "redis-7.0.15.txt").read_text().splitlines()


def test_the_dump_in_the_tests_is_what_a_real_server_writes(redis_server: record.RedisServer) -> None:
    """Apart from the order of keys, which is another each time, and the time."""
    with redis.Redis(port=redis_server.port) as client:
        client.flushall()
        for database, words in REAL_COMMANDS:
            client.execute_command("SELECT", database)
            client.execute_command(*words)
        client.execute_command("SELECT", 0)
        client.save()
        client.flushall()
    fresh, kept = (sorted(part.raw for part in files.dissect(RealDisk(), path)
                          if not re.match("AUX|end of", part.meaning))
                   for path in (f"{redis_server.directory}/dump.rdb", str(REAL)))
    assert fresh == kept


@each_file
def test_parts_cover_a_file_without_a_gap_and_so_do_theirs(data: bytes) -> None:
    parts, error = parts_of(data)
    assert not error
    assert_covered(parts, data, 0, len(data))


@given(entries, CONFIGS, st.binary(max_size=20))
@example(SMALL, Config(), b"")
def test_parts_cover_any_dump_and_what_is_behind_it(keyspace: list[Entry], config: Config, behind: bytes) -> None:
    disk = on_disk(b"")
    rdb.dump(PATH, keyspace, config, disk)
    data = disk.content(PATH)
    if not config.rdbchecksum:
        behind = b""                        # 0 counts as "off" only at the end
    parts, error = parts_of(data + behind)
    assert not error
    assert_covered(parts, data + behind, 0, len(data + behind))


@each_damaged
def test_parts_cover_a_damaged_file_up_to_where_reading_ended(data: bytes) -> None:
    parts, error = parts_of(data)
    assert error.startswith(f"{PATH}: at offset ") and "\n" not in error
    assert_covered(parts, data)


def test_every_prefix_is_dissected_up_to_its_end_or_to_what_lacks_bytes() -> None:
    for size in range(len(BARE)):
        parts, error = parts_of(BARE[:size])
        assert error
        assert_covered(parts, BARE[:size])
        assert sum(part.length for part in parts) >= size - 90, "no text and no listpack is longer"


def test_what_was_not_read_to_its_end_is_called_so() -> None:
    parts, _ = parts_of(HEAD + b"\x12\x01k\x01\x02\x0a\x0a\0\0\0\x01\0\x84name")
    assert [part.meaning for part in parts] == ["magic and version", "SELECTDB", "broken off"]
    inside = [part.meaning for part in every(parts[-1:]) if not part.own]
    assert inside == ["broken off", "key", "listpack", "broken off"]


def read(cursor: Cursor, checksum: Checksum) -> tuple[list[Entry], str]:
    found: list[Entry] = []
    try:
        for entry in rdb.Reader(cursor, checksum):
            found.append(entry)
    except Unreadable as error:
        return found, str(error)
    return found, ""


def assert_same_entries(data: bytes) -> None:
    """A Reader gives the same, and refuses with the same words, with each kind of cursor."""
    results = []
    for kind in (Cursor, Tracer, files.Tally):
        checksum = Checksum()
        cursor = kind(data, None, 0, checksum.update)
        if isinstance(cursor, files.Tally):
            cursor.sizes = {}
        found, error = read(cursor, checksum)
        results.append((plain(found) if not error else len(found), error))
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("data", [*FILES.values(), *UNREADABLE.values()], ids=[*FILES, *UNREADABLE])
def test_who_watches_changes_nothing(data: bytes) -> None:
    assert_same_entries(data)


@given(st.sampled_from([BARE, FILES["redis-2.4-zipmap.rdb"], FILES["redis-3.2-quicklist.rdb"], FILES[REAL.name]]),
       st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_who_watches_changes_nothing_of_a_damaged_file(data: bytes, changes: list[tuple[float, int]]) -> None:
    damaged = bytearray(data)
    for place, byte in changes:
        damaged[int(place * (len(data) - 1))] = byte
    try:
        assert_same_entries(bytes(damaged))
    except AssertionError as failure:       # a key may come twice now, which `plain` does not like
        assert failure.args == ("assert len(found) == len(listed)",) or "len(listed)" in str(failure)
    parts, _ = parts_of(bytes(damaged))
    assert_covered(parts, bytes(damaged))


@given(st.binary(max_size=40),
       st.sampled_from([b"REDIS0010", HEAD, HEAD + b"\x10\1k", LIST + b"\xc3", HEAD + b"\x0d\1k", b""]))
def test_bytes_of_any_kind_make_parts_a_verdict_and_a_page(data: bytes, head: bytes) -> None:
    parts, error = parts_of(head + data)
    assert_covered(parts, head + data)
    disk = on_disk(head + data)
    whole, verdict = files.dissection(disk, PATH), files.verify(disk, PATH, NOW_MS)
    assert bool(error) <= (not verdict.fine) and repr(whole) and whole._repr_html_() and repr(verdict)


# ---- showing it ----------------------------------------------------------------------------------

def test_a_part_says_what_it_is() -> None:
    part = next(part for part in files.dissect(RealDisk(), str(REAL)) if part.meaning == "set as intset")
    assert (part.offset, part.length, part.raw[:1], part.value) == (197, 24, b"\x0b", None)
    assert [inner.meaning for inner in part.parts] == ["type or opcode", "key", "intset"]
    assert part.parts[1].value == b"numbers"
    assert [inner.value for inner in part.parts[2].parts[1].parts] == [2, 3, 1, 2, 300]
    assert repr(part).splitlines()[0] == '     197                           set as intset: "numbers", 24 bytes'


def test_offsets_in_compressed_bytes_are_marked() -> None:
    part = next(part for part in files.dissect(RealDisk(), str(REAL)) if part.meaning.startswith("list "))
    held = next(inner for inner in every([part]) if inner.unpacked)
    assert held.meaning == "compressed" and held.length == 32
    assert sum(inner.length for inner in held.parts) == 78
    marked = [line for line in repr(part).splitlines() if line.lstrip().startswith("~")]
    assert len(marked) == len(list(every(held.parts)))


def test_a_dissection_is_the_file_as_one_part() -> None:
    whole = files.dissection(RealDisk(), str(REAL))
    assert whole.length == len(FILES[REAL.name]) and whole.meaning == str(REAL)
    assert repr(whole.parts) == repr(list(files.dissect(RealDisk(), str(REAL))))


@each_damaged
def test_a_dissection_of_a_damaged_file_ends_with_what_is_wrong(data: bytes) -> None:
    parts, error = parts_of(data)
    whole = files.dissection(on_disk(data), PATH)
    assert repr(whole.parts[:-1]) == repr(parts)
    assert whole.parts[-1].meaning == error and repr(whole).splitlines()[-1].strip().endswith(error)
    assert whole.length == sum(part.length for part in parts)


def test_a_notebook_shows_some_parts_and_says_how_many_more() -> None:
    data = dumped([(0, b"key:%d" % number, b"v", None) for number in range(100)])
    whole = files.dissection(on_disk(data), PATH)
    more = len(whole.parts) - SHOWN
    assert more == 69                       # the magic, 5 aux fields, two opcodes, 100 keys, the end
    shown = repr(whole)
    assert shown.endswith(f"... and {more} more, {sum(part.length for part in whole.parts[SHOWN:]):,} bytes")
    assert b"key:31" in whole.parts[SHOWN - 1].raw and '"key:31"' in shown and '"key:32"' not in shown
    assert f"... and {more} more" in whole._repr_html_() and "key:32" not in whole._repr_html_()


@given(st.integers(-62_135_596_800_000, 253_402_300_799_999))
@example(0)
@example(951_782_400_000)                   # 29 February 2000
@example(4_107_542_399_999)                 # the last of 28 February 2100, which is no leap year
def test_a_date_is_that_of_the_calendar(ms: int) -> None:
    found = datetime(1970, 1, 1) + timedelta(milliseconds=ms)
    assert tracer.date(ms) == found.isoformat(" ", "milliseconds") + " UTC"


def test_no_deadline_is_too_far_for_a_date() -> None:
    assert tracer.date(2**63 - 1) == "292278994-08-17 07:12:55.807 UTC"
    assert tracer.date(-2**63).endswith("-05-16 16:47:04.192 UTC")
    parts, _ = parts_of(summed(HEAD + b"\xfc" + b"\xff" * 7 + b"\x7f" + b"\0\1k\1v\xfd\xff\xff\xff\xff\0\1l\1v\xff"))
    assert "292278994-08-17" in repr(parts[2]) and "-1 = 1969-12-31 23:59:59.000 UTC" in repr(parts[4])


def test_the_colours_can_be_read_and_told_apart() -> None:
    """Contrast with the dark text after WCAG; lightness or blueness differ, which all eyes see."""
    found = [tuple(int(colour[at:at + 2], 16) for at in (1, 3, 5)) for colour, _, _ in tracer.KINDS]
    for red, green, blue in found:
        assert contrast((red, green, blue), (0x11, 0x11, 0x11)) > 7
    for at, one in enumerate(found):
        for other in found[:at]:
            assert max(abs(sum(one[:2]) - sum(other[:2])) / 2, abs(one[2] - other[2])) >= 20


def contrast(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    def luminance(colour: tuple[int, ...]) -> float:
        linear = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


# ---- bounds --------------------------------------------------------------------------------------

def peak(work: Callable[[], Any]) -> int:
    """Bytes of memory that it takes at most."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_long_file_streams() -> None:
    data = dumped([(0, b"key:%d" % number, b"v" * 100, None) for number in range(20_000)], rdbcompression="no")
    disk = on_disk(data)
    assert peak(lambda: [None for _ in files.dissect(disk, PATH)]) < 8 << 20    # pieces of the file, and a checksum's
    sizes = [part.length for part in files.dissect(disk, PATH) if part.meaning == "string"]
    assert files.verify(disk, PATH, 0).types == {"string": (20_000, sum(sizes))}


@pytest.mark.parametrize("work", [lambda disk: list(files.dissect(disk, PATH)),
                                  lambda disk: files.dissection(disk, PATH, 1000)], ids=["dissect", "dissection"])
def test_of_a_bomb_only_so_many_parts_are_told_apart(work: Callable[[Any], Any],
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracer, "DETAIL", 1000)
    data = bomb(200_000)
    assert len(data) < 5000
    found = work(on_disk(data))
    parts = list(every(found.parts if isinstance(found, Part) else found))
    assert 1000 <= len(parts) < 2500
    listpack = next(part for part in parts if part.unpacked)
    assert sum(part.length for part in listpack.parts) == 400_007 and listpack.parts[-1].meaning == MANY
    assert listpack.parts[-1].value > 190_000


def test_parts_are_counted_over_all_of_a_value_and_anew_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracer, "DETAIL", 1000)
    parts, _ = parts_of(bomb(200, nodes=50))
    assert 1000 <= len(list(every(parts))) < 2500
    parts, _ = parts_of(dumped([(0, b"key:%d" % number, b"v", None) for number in range(1000)]))
    assert MANY not in {part.meaning for part in every(parts)}


def test_a_bomb_of_entries_without_keys_has_a_bound_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracer, "DETAIL", 1000)
    data = summed(HEAD + b"\xfa\0\0" * 20_000 + b"\xff")
    disk = on_disk(data)
    assert peak(lambda: list(files.dissect(disk, PATH))) < 1 << 20
    parts = list(files.dissect(disk, PATH))
    assert sum(part.length for part in parts) == len(data) and parts[-1].meaning == MANY


def test_only_what_is_kept_has_bytes() -> None:
    """Where there was no room for parts, `raw` is empty rather than half."""
    data = dumped(boundaries())
    whole = files.dissection(on_disk(data), PATH, 500)
    assert len(list(every(whole.parts))) < 1500
    assert [part for part in every(whole.parts) if part.raw and len(part.raw) != part.length] == []
    assert whole.length == len(data) and whole.parts[-1].meaning == MANY and whole.parts[-1].raw == b""


# ---- what a server would do ----------------------------------------------------------------------

def start(data: bytes, disk_path: str = "/data/dump.rdb") -> tuple[int, str]:
    """What a start does with a file: keys, or why not."""
    world = World(seed=1)
    rdb.write_all(world.disk, world.disk.open(disk_path, "w"), data)
    try:
        server = world.start()
    except Unreadable as error:
        return 0, str(error)
    return sum(map(len, server.databases)), ""


def judged(data: bytes) -> tuple[int, str]:
    world = World(seed=1)
    rdb.write_all(world.disk, world.disk.open("/data/dump.rdb", "w"), data)
    verdict = files.verify(world.disk, "/data/dump.rdb", world.clock.time_us() // 1000)
    assert verdict.fine == (verdict.refusal is None) == (verdict.checksum != "not reached")
    if verdict.refusal:
        assert repr(verdict).splitlines()[-1] == (
            f"A server would not start with it. {verdict.refusal}. The file is as it was: "
            "restore a good copy, or move it away to start empty.")
        return 0, str(verdict.refusal)
    keys = re.fullmatch(r"A server would start with it: ([\d,]+) keys?\.", repr(verdict).splitlines()[-1])
    assert keys
    return int(keys[1].replace(",", "")), ""


@pytest.mark.parametrize("data", [*FILES.values(), *DAMAGED.values(), BARE + b"behind", FILES["small"] + b"behind"],
                         ids=[*FILES, *DAMAGED, "more behind no checksum", "more behind it"])
def test_a_verdict_is_what_a_start_does(data: bytes) -> None:
    assert judged(data) == start(data)


@given(entries, CONFIGS, st.none() | st.floats(0, 1), st.none() | st.tuples(st.floats(0, 1), st.integers(0, 255)))
def test_a_verdict_is_what_a_start_does_with_any_file(keyspace: list[Entry], config: Config, cut: float | None,
                                                      change: tuple[float, int] | None) -> None:
    disk = on_disk(b"")
    rdb.dump(PATH, keyspace, config, disk)
    data = bytearray(disk.content(PATH))
    if cut is not None:
        del data[int(cut * len(data)):]
    if change and data:
        data[int(change[0] * (len(data) - 1))] = change[1]
    assert judged(bytes(data)) == start(bytes(data))


def test_a_deadline_is_over_in_the_next_millisecond_as_at_a_start() -> None:
    data = dumped([(0, b"just", b"v", NOW_MS), (0, b"over", b"v", NOW_MS - 1), (0, b"long over", b"v", 0),
                   (1, b"far", b"v", FAR_MS)])
    assert judged(data) == start(data) == (2, "")
    verdict = files.verify(on_disk(data), PATH, NOW_MS)
    assert verdict.databases == {0: {"keys": 3, "with a deadline": 3, "of these over": 2},
                                 1: {"keys": 1, "with a deadline": 1}}
    assert files.verify(on_disk(data), PATH, NOW_MS + 1).conclusion == "A server would start with it: 1 key."


def test_a_key_twice_is_none_where_the_first_is_over() -> None:
    data = summed(HEAD + b"\xfc" + bytes(8) + b"\0\1k\1v\0\1k\1w\xff")
    assert judged(data) == start(data) == (1, "")


def test_the_number_of_databases_can_be_said() -> None:
    data = DAMAGED["a database too many"]
    assert "raise 'databases'" in files.verify(on_disk(data), PATH, 0).conclusion
    assert files.verify(on_disk(data), PATH, 0, databases=17).fine


def test_a_verdict_reads_well() -> None:
    assert repr(files.verify(on_disk(FILES[REAL.name]), PATH, NOW_MS)) == """\
/dump.rdb
  bytes         439
  version       10, that of Redis 7.0, and kvref
  redis-ver     "7.0.15"
  redis-bits    "64"
  ctime         2026-11-23 04:16:32.000 UTC
  used-mem      "1089880"
  aof-base      "0"
  database 0    keys 11, with a deadline 1
  database 3    keys 1, with a deadline 0
  checksum      right

        bytes      keys  stored as
           89         5  string
           50         1  zset, scores as doubles
           48         1  hash
           45         1  list as quicklist of listpacks
           32         1  hash as listpack
           32         1  zset as listpack
           24         1  set as intset
           11         1  set
          108            everything else

A server would start with it: 12 keys."""


@each_file
def test_bytes_by_type_are_those_of_the_parts(data: bytes) -> None:
    verdict = files.verify(on_disk(data), PATH, NOW_MS)
    found: dict[str, tuple[int, int]] = {}
    for part in parts_of(data)[0]:
        if part.meaning in files.NAMES:
            keys, size = found.get(part.meaning, (0, 0))
            found[part.meaning] = keys + 1, size + part.length
    assert verdict.types == found
    assert [size for _, size in verdict.types.values()] == sorted((size for _, size in found.values()), reverse=True)
    assert verdict.size == len(data)


@pytest.mark.parametrize(("data", "said"), [
    (BARE, "checksum      off"), (FILES["small"], "checksum      right"),
    (FILES["redis-2.4-zipmap.rdb"], "checksum      off"),
    (FILES["small"] + b"12345", "warning       5 bytes behind the end of the file were not looked at"),
    (summed(HEAD + b"\x02\x01k\0\xff"), "warning       1 keys that hold nothing are left out"),
    (FILES["valkey-9.rdb"], "version       80, that of Valkey 9.0"),
    (summed(b"REDIS0004\xff"), "version       4, that of no release"),
    (DAMAGED["no end"], "checksum      not reached"), (DAMAGED["wrong checksum"], "checksum      not reached"),
], ids=str)
def test_a_verdict_says(data: bytes, said: str) -> None:
    assert f"  {said}" in repr(files.verify(on_disk(data), PATH, NOW_MS)).splitlines()


def test_a_verdict_of_many_notes_is_short() -> None:
    data = summed(HEAD + b"".join(b"\xfa\x04%04d" % n + b"\x40\x50" + b"x" * 80 for n in range(1000)) + b"\xff")
    assert len(repr(files.verify(on_disk(data), PATH, 0))) < 4000


def test_what_the_disk_refuses_is_raised() -> None:
    class Failing(RealDisk):
        def read(self, file: Any, size: int) -> bytes:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
    for work in (lambda: list(files.dissect(Failing(), str(REAL))), lambda: files.dissection(Failing(), str(REAL)),
                 lambda: files.verify(Failing(), str(REAL), 0)):
        with pytest.raises(OSError, match="Input/output error"):
            work()


def test_a_file_that_shrinks_meanwhile_is_refused_with_a_sentence(tmp_path: Path) -> None:
    path = str(tmp_path / "cut.rdb")
    Path(path).write_bytes(BARE[:200])

    class Shrinking(RealDisk):
        def size(self, file: Any) -> int:
            return super().size(file) + 1000
    assert "has become shorter" in str(files.verify(Shrinking(), path, 0).refusal)
    assert "has become shorter" in files.dissection(Shrinking(), path).parts[-1].meaning


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="counts files as Linux shows them")
def test_every_file_is_closed_again(tmp_path: Path) -> None:
    (tmp_path / "cut.rdb").write_bytes(FILES[REAL.name][:200])
    before = open_files()
    for path in (str(REAL), str(tmp_path / "cut.rdb")):
        files.verify(RealDisk(), path, 0)
        files.dissection(RealDisk(), path)
        some: Any = files.dissect(RealDisk(), path)
        next(some)
        some.close()
    assert open_files() == before


@pytest.mark.skipif(not record.installed("redis-check-rdb"), reason="needs redis-check-rdb")
@pytest.mark.parametrize("name", [*FILES, *DAMAGED])
def test_redis_says_the_same(name: str, tmp_path: Path) -> None:
    """Not asked is what only one of them knows: versions later than 7.0, and streams."""
    data = {**FILES, **DAMAGED}[name]
    if name in ("redis-7.2-set-listpack.rdb", "redis-7.4-slot-info.rdb", "valkey-9.rdb", "a stream", "functions"):
        pytest.skip("too new, or not held by kvref")
    path = tmp_path / "dump.rdb"
    path.write_bytes(data)
    said = subprocess.run(["redis-check-rdb", str(path)], capture_output=True, timeout=30)
    assert (said.returncode == 0) == (name in FILES or name not in UNREADABLE) == (not parts_of(data)[1])


# ---- as a page -----------------------------------------------------------------------------------

class Page(HTMLParser):
    """What is open, what was said, and that every tag is closed by its own."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page_of(data: bytes, path: str = "/dump.rdb") -> str:
    disk = on_disk(b"")
    rdb.write_all(disk, disk.open(path, "w"), data)
    pieces: list[str] = []
    try:
        pieces.extend(files.page(disk, path, NOW_MS))
    except Unreadable:
        assert data in DAMAGED.values()
    return "".join(pieces)


@pytest.mark.parametrize("data", [*FILES.values(), *DAMAGED.values()], ids=[*FILES, *DAMAGED])
def test_a_page_is_whole_and_asks_for_nothing(data: bytes) -> None:
    if len(data) > 200_000:
        pytest.skip("long, and no other than the rest")
    text = page_of(data)
    page = Page(text)
    assert text.startswith("<!doctype html>\n") and text.rstrip().endswith("</html>")
    assert {tag for tag, _ in page.tags} <= {"html", "head", "meta", "title", "style", "body", "h1", "pre", "p", "span",
                                             "details", "summary", "div", "code"}
    assert not re.search(r"https?:|url\(|@import|\bsrc=|\bhref=|\son\w+=", text)
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.attributes("meta")
    assert {"name": "color-scheme", "content": "light dark"} in page.attributes("meta")
    assert repr(files.verify(on_disk(data), "/dump.rdb", NOW_MS)) in page.text


def test_a_page_shows_every_part_of_a_small_file() -> None:
    page = Page(page_of(FILES[REAL.name]))
    parts = list(every(parts_of(FILES[REAL.name])[0]))
    assert len(page.attributes("details")) == 1 + len([part for part in parts if part.parts])
    assert len(page.attributes("code")) == len([part for part in parts if part.own])
    for part in parts:
        assert f"{part.hex} {part.title}" in page.text if part.own else part.title in page.text
    for _, name, _ in tracer.KINDS:
        assert name in page.text


def test_what_a_file_holds_is_no_html() -> None:
    text = page_of(dumped([(0, b"<script>alert(1)</script>", b"&amp;<b>\"'", None)]), "/<i>.rdb")
    page = Page(text)
    assert "<script" not in text and "<b>" not in text and "<i>" not in text
    assert '"<script>alert(1)</script>", "&amp;<b>\\"\'"' in page.text and "/<i>.rdb" in page.text


def test_a_notebook_gets_html_without_a_page_around() -> None:
    text = files.dissection(RealDisk(), str(REAL))._repr_html_()
    page = Page(text)
    assert "<html" not in text and "<style" not in text and "<script" not in text
    assert ["open" in details for details in page.attributes("details")].index(False) == 1
    assert sum("open" in details for details in page.attributes("details")) == 1
    assert all("background" in (code["style"] or "") for code in page.attributes("code"))


def test_a_page_of_a_long_file_stays_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PAGE", 300)
    page = Page(page_of(dumped([(0, b"key:%d" % number, b"v", None) for number in range(5000)])))
    assert len(page.tags) < 3000
    assert MANY in page.text and "A server would start with it: 5,000 keys." in page.text


# ---- the command line ----------------------------------------------------------------------------

FILES_COMMAND = [sys.executable, "-m", "kvref.files"]


def run(*words: str, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    found = subprocess.run([*FILES_COMMAND, *words], capture_output=True, timeout=60, cwd=cwd, env=environment(**env),
                           encoding="utf-8", errors="surrogateescape")
    assert "Traceback" not in found.stderr and "Exception" not in found.stderr
    return found


def complaint(result: subprocess.CompletedProcess[str]) -> str:
    """The one sentence of a run that failed."""
    assert result.returncode == 1
    assert result.stderr.startswith("kvref.files: ") and result.stderr.count("\n") == 1
    return result.stderr.removeprefix("kvref.files: ").rstrip("\n")


def test_dissect_prints_the_parts() -> None:
    result = run("dissect", str(REAL))
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == (HERE / "redis-7.0.15.txt").read_text()


def test_dissect_as_a_page(tmp_path: Path) -> None:
    (tmp_path / "d.rdb").write_bytes(FILES["small"])
    result = run("dissect", "--html", "d.rdb", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert "A server would start with it: 13 keys." in Page(result.stdout).text


def test_verify_prints_the_verdict() -> None:
    result = run("verify", REAL.name, cwd=HERE)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("redis-7.0.15.rdb\n  bytes         439\n")
    assert result.stdout.endswith("\n\nA server would start with it: 12 keys.\n")


def test_a_damaged_file_is_shown_up_to_the_damage(tmp_path: Path) -> None:
    (tmp_path / "cut.rdb").write_bytes(FILES[REAL.name][:300])
    whole = (HERE / "redis-7.0.15.txt").read_text()
    for words in (("dissect", "cut.rdb"), ("verify", "cut.rdb"), ("dissect", "cut.rdb", "--html")):
        assert complaint(run(*words, cwd=tmp_path)) == (
            "cut.rdb: at offset 296: key of 6 bytes should follow, but the end comes after 4")
    shown = run("dissect", "cut.rdb", cwd=tmp_path).stdout
    assert whole.startswith(shown[:shown.index("     294  ")].rsplit("\n", 2)[0])
    assert shown.splitlines()[-1].startswith("     295  06") and "broken off" in shown
    Page(run("dissect", "cut.rdb", "--html", cwd=tmp_path).stdout)


def test_what_is_wrong_is_said_last(tmp_path: Path) -> None:
    (tmp_path / "cut.rdb").write_bytes(FILES[REAL.name][:300])
    for words in (["dissect"], ["dissect", "--html"], ["verify"]):
        both = subprocess.run([*FILES_COMMAND, *words, "cut.rdb"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              cwd=tmp_path, env=environment(PYTHONUNBUFFERED=""), timeout=60, text=True).stdout
        assert both.splitlines()[-1].startswith("kvref.files: cut.rdb: at offset 296")


@pytest.mark.parametrize("command", ["dissect", "verify"])
def test_what_is_no_file_makes_one_sentence(command: str, tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    assert complaint(run(command, "missing.rdb", cwd=tmp_path)) == "missing.rdb: No such file or directory"
    if command == "dissect":
        assert complaint(run(command, str(tmp_path))) == f"{tmp_path}: Is a directory"
    assert "empty: at offset 0: this is no RDB file" in complaint(run(command, "empty", cwd=tmp_path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_makes_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"")
    (tmp_path / "secret").chmod(0)
    assert complaint(run("verify", "secret", cwd=tmp_path)) == "secret: Permission denied"


def test_verify_takes_the_time_of_the_clock(tmp_path: Path) -> None:
    (tmp_path / "d.rdb").write_bytes(dumped([(0, b"over", b"v", 1_600_000_000_000), (0, b"far", b"v", FAR_MS)]))
    result = run("verify", "d.rdb", cwd=tmp_path)
    assert "  database 0    keys 2, with a deadline 2, of these over 1\n" in result.stdout
    assert result.stdout.endswith("A server would start with it: 1 key.\n")


@pytest.mark.parametrize("words", [(), ("mend",), ("dissect",), ("verify", "a", "b"), ("verify", "--html", "a"),
                                   ("--nothing",)], ids=str)
def test_wrong_usage_is_status_2(words: tuple[str, ...]) -> None:
    result = run(*words)
    assert result.returncode == 2 and result.stdout == "" and result.stderr.startswith("usage: python -m kvref.files")


def test_help_names_every_command_and_each_has_an_example() -> None:
    result = run("--help")
    assert (result.returncode, result.stderr) == (0, "")
    for name, command in files.COMMANDS.items():
        assert f"{name} " in result.stdout and command.summary in result.stdout
        its = run(name, "--help")
        assert its.returncode == 0 and f"example:\n  python -m kvref.files {name} {command.example}\n" in its.stdout
        assert "Exit status: 0 fine, 1 the file cannot be read, 2 usage." in its.stdout


def test_who_stops_reading_hears_no_complaint(tmp_path: Path) -> None:
    (tmp_path / "d.rdb").write_bytes(FILES["boundaries"])
    with subprocess.Popen([*FILES_COMMAND, "dissect", "d.rdb"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          cwd=tmp_path, env=environment()) as process:
        assert process.stdout and process.stderr
        assert process.stdout.readline().startswith(b"       0  52 45 44 49")
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == -signal.SIGPIPE


@pytest.mark.parametrize("env", [{"LC_ALL": "C", "PYTHONUTF8": "0"}, {"PYTHONIOENCODING": "ascii"}], ids=str)
def test_a_name_of_any_bytes_can_be_shown_everywhere(env: dict[str, str], tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9-\xc3\xa9.rdb")
    (tmp_path / name).write_bytes(FILES["small"])
    for words in (("verify",), ("dissect", "--html")):
        result = run(*words, name, cwd=tmp_path, **env)
        assert (result.returncode, result.stderr) == (0, "") and "caf" in result.stdout
    assert "caf" in complaint(run("verify", name + "x", cwd=tmp_path, **env))


def test_the_standard_library_is_enough(tmp_path: Path) -> None:
    """The package alone, copied onto a server, without site-packages."""
    shutil.copytree(ROOT / "kvref", tmp_path / "kvref", ignore=shutil.ignore_patterns("__pycache__", "lab", "sim"))
    script = ("import sys; sys.path.insert(0, sys.argv.pop(1)); from kvref.files import main; "
              "sys.exit(main(sys.argv[1:]))")
    result = subprocess.run([sys.executable, "-I", "-S", "-c", script, str(tmp_path), "verify", str(REAL)],
                            capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (0, "") and "12 keys" in result.stdout


def test_the_file_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "d.rdb"
    path.write_bytes(FILES["small"][:-1])
    path.chmod(0o444)
    before = path.stat()
    for words in (("dissect",), ("dissect", "--html"), ("verify",)):
        complaint(run(*words, str(path)))
    assert path.read_bytes() == FILES["small"][:-1]
    assert (path.stat().st_mtime_ns, path.stat().st_mode) == (before.st_mtime_ns, before.st_mode)
    assert list(tmp_path.iterdir()) == [path]
