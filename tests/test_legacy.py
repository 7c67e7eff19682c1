"""What Redis wrote before 7.0: dumps of every version, every form of an entry, and what becomes of damaged ones.

The dumps are in tests/dumps, made by hand; what they hold is said there beside their bytes. A real redis-server reads
versions 1 to 10, and it has the last word on values as well: RESTORE takes the type byte and bytes of any of them.
"""

from __future__ import annotations

import tracemalloc
from collections import deque
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from kvref.persistence import rdb
from kvref.persistence.crc64 import Checksum, crc64
from kvref.persistence.cursor import Cursor, Unreadable
from kvref.persistence.legacy import LEGACY
from kvref.sampling import Hash, Members
from kvref.skiplist import SortedSet
from tests import record
from tests.dumps.make import DUMPS, HERE, Content, Key, s, summed, ziplist

SCORED, ZIPMAP, LIST, ZSET, HASH, QUICKLIST = LEGACY


def plain(value: Any) -> Any:
    """As the dumps' claims say it."""
    as_claimed: dict[type, Callable[[Any], Any]] = {
        bytes: bytes, deque: list, Members: set, Hash: dict, SortedSet: lambda value: dict(value.scores)}
    return as_claimed[type(value)](value)


def read(kind: int, data: bytes) -> Any:
    """The value of a type and the bytes behind the key. Unreadable, also where bytes are left over."""
    cursor = Cursor(data)
    value = LEGACY[kind][1](cursor)
    if cursor.left:
        raise cursor.fail("bytes are left")
    return plain(value)


# ---- dumps ---------------------------------------------------------------------------------------

each_dump = pytest.mark.parametrize("name", DUMPS)


@each_dump
def test_the_committed_dumps_are_the_bytes_that_make_py_spells_out(name: str) -> None:
    assert (HERE / name).read_bytes() == DUMPS[name][0]


def test_every_committed_dump_is_explained() -> None:
    files = {path.name for path in HERE.glob("*.rdb")}
    assert files == {*DUMPS, "redis-7.0.15.rdb"}
    assert [name for name in files if f"`{name}`" not in (HERE / "README.md").read_text()] == []


@each_dump
def test_a_dump_of_any_version_holds_what_is_said_beside_its_bytes(name: str) -> None:
    content = {(db, key): (plain(value), deadline) for db, key, value, deadline in rdb.load(str(HERE / name))}
    assert content == {place: (key.value, key.deadline_ms) for place, key in DUMPS[name][1].items()}


@each_dump
def test_what_eviction_wants_to_know_is_read(name: str) -> None:
    reader = rdb.Reader(Cursor(DUMPS[name][0]))
    found = {(db, key): (reader.idle_s, reader.freq) for db, key, _, _ in reader}
    assert found == {place: (key.idle_s, key.freq) for place, key in DUMPS[name][1].items()}


@each_dump
def test_every_byte_of_a_dump_with_a_checksum_matters(name: str) -> None:
    """Versions before 5 have none, and a stored 0 means that it was switched off. The magic is not looked at: REDIS0012
    is one bit away from REDIS0002, which has no checksum."""
    data = DUMPS[name][0]
    summed_up = summed(data[:-8]) == data
    for at in range(9, len(data)) if summed_up else ():
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1:]
        with pytest.raises(Unreadable):
            list(rdb.Reader(*checked(changed)))


def checked(data: bytes) -> tuple[Cursor, Checksum]:
    """What a Reader is made from."""
    checksum = Checksum()
    return Cursor(data, passed=checksum.update), checksum


@each_dump
def test_a_dump_that_is_cut_is_refused(name: str) -> None:
    data = DUMPS[name][0]
    for end in range(len(data)):
        with pytest.raises(Unreadable):
            list(rdb.Reader(Cursor(data[:end])))


# ---- what a real redis-server makes of the dumps -------------------------------------------------

Load = Callable[[bytes, str], Any]          # a dump, a policy of eviction -> a client


@pytest.fixture
def redis_loads(redis_server: record.RedisServer) -> Iterator[Load]:
    """Have the server load a dump under a policy of eviction."""
    client: Any = redis.Redis(port=redis_server.port)

    def load(data: bytes, policy: str) -> Any:
        client.config_set("maxmemory-policy", policy)
        Path(redis_server.directory, "dump.rdb").write_bytes(data)
        client.execute_command("DEBUG", "RELOAD", "NOSAVE")
        return client
    yield load
    client.config_set("maxmemory-policy", "noeviction")
    client.flushall()


def asked(client: Any, key: bytes) -> Any:
    """The value of a key, in the shape of a claim."""
    questions: dict[bytes, Callable[[], Any]] = {
        b"string": lambda: client.get(key), b"list": lambda: client.lrange(key, 0, -1),
        b"set": lambda: set(client.smembers(key)), b"hash": lambda: client.hgetall(key),
        b"zset": lambda: dict(client.zrange(key, 0, -1, withscores=True))}
    return questions[client.type(key)]()


def content_of(client: Any) -> dict[tuple[int, bytes], tuple[Any, int | None]]:
    """(value, deadline) of all that the server holds."""
    found = {}
    for name in client.info("keyspace"):
        db = int(name.removeprefix("db"))
        client.execute_command("SELECT", db)
        for key in client.keys():
            deadline = client.execute_command("PEXPIRETIME", key)
            found[db, key] = asked(client, key), None if deadline == -1 else deadline
    client.execute_command("SELECT", 0)
    return found


UP_TO_10 = [name for name, (data, _) in DUMPS.items() if data.startswith(b"REDIS") and int(data[5:9]) <= 10]
NEWER = [name for name in DUMPS if name not in UP_TO_10]


@pytest.mark.parametrize("name", UP_TO_10)
def test_a_real_redis_finds_the_same_in_a_dump(name: str, redis_loads: Load) -> None:
    data, content = DUMPS[name]
    assert content_of(redis_loads(data, "noeviction")) == {
        place: (key.value, key.deadline_ms) for place, key in content.items()}


@pytest.mark.parametrize("name", UP_TO_10)
def test_a_real_redis_finds_the_same_for_eviction(name: str, redis_loads: Load) -> None:
    data, content = DUMPS[name]
    client = redis_loads(data, "allkeys-lru")
    for (_, name_of_key), key in content.items():
        if key.idle_s is not None:
            assert key.idle_s <= client.object("IDLETIME", name_of_key) <= key.idle_s + 10
    client = redis_loads(data, "allkeys-lfu")
    for (_, name_of_key), key in content.items():
        if key.freq is not None:
            assert client.object("FREQ", name_of_key) == key.freq


SLOT_INFO = [b"\xf4\x53\xc5\x01\x00", b"\xf4\x6f\x96\x01\x00", b"\xf4\x6f\x96\x01\x01"]


def for_7_0(data: bytes, content: Content) -> bytes:
    """The same as version 10: without word of slots, and a set that is a listpack as a list of one packed node."""
    body = b"REDIS0010" + data[9:-8]
    for opcode in SLOT_INFO:
        body = body.replace(opcode, b"")
    for _, name in content:
        body = body.replace(b"\x14" + s(name), b"\x12" + s(name) + b"\x01\x02")
    return summed(body)


@pytest.mark.parametrize("name", NEWER)
def test_a_real_redis_finds_the_same_in_the_values_of_a_newer_dump(name: str, redis_loads: Load) -> None:
    data, content = DUMPS[name]
    found = content_of(redis_loads(for_7_0(data, content), "noeviction"))
    assert {place: (set(value) if type(content[place].value) is set else value, deadline)
            for place, (value, deadline) in found.items()} == {
        place: (key.value, key.deadline_ms) for place, key in content.items()}


# ---- every form of an entry ----------------------------------------------------------------------

WIDTHS = {b"\xfe": 1, b"\xc0": 2, b"\xf0": 3, b"\xd0": 4, b"\xe0": 8}       # first byte of a number -> its bytes


@pytest.mark.parametrize(("first", "width"), WIDTHS.items())
def test_a_number_of_each_width_is_read_to_its_limits(first: bytes, width: int) -> None:
    limits = [-1 << 8 * width - 1, -1, 0, (1 << 8 * width - 1) - 1]
    entries = [first + number.to_bytes(width, "little", signed=True) for number in limits]
    assert read(LIST, s(ziplist(*entries))) == [b"%d" % number for number in limits]


def test_the_numbers_0_to_12_stand_in_the_first_byte() -> None:
    assert read(LIST, s(ziplist(*[bytes([0xF1 + n]) for n in range(13)]))) == [b"%d" % n for n in range(13)]


@pytest.mark.parametrize("first", [0xC1, 0xCF, 0xD1, 0xE1, 0xEF, 0xFF])
def test_other_first_bytes_are_impossible(first: int) -> None:
    with pytest.raises(Unreadable, match=f"the impossible encoding {first:#x}"):
        read(LIST, s(ziplist(bytes([first]) + bytes(9))))


def number_entry(number: int, first: bytes) -> tuple[bytes, bytes]:
    """(the entry, what it says)."""
    return first + number.to_bytes(WIDTHS[first], "little", signed=True), b"%d" % number


def text_entry(text: bytes, head: int) -> tuple[bytes, bytes]:
    """`head`: how many bytes for the length, of 1, 2 and 5; more if it does not fit."""
    if head == 1 and len(text) < 64:
        return bytes([len(text)]) + text, text
    if head < 5:
        return (0x4000 | len(text)).to_bytes(2, "big") + text, text
    return b"\x80" + len(text).to_bytes(4, "big") + text, text


# Entries of 253 and 254 bytes stand on the two sides of where sizes need 5 bytes.
texts = st.builds(lambda text, times: text * times, st.binary(max_size=9), st.sampled_from([1, 1, 7, 28, 60]))
numbers = st.sampled_from(sorted(WIDTHS)).flatmap(lambda first: st.builds(
    number_entry, st.integers(-1 << 8 * WIDTHS[first] - 1, (1 << 8 * WIDTHS[first] - 1) - 1), st.just(first)))
text_entries = st.builds(text_entry, texts, st.sampled_from([1, 1, 2, 5]))
small = st.integers(0, 12).map(lambda number: (bytes([0xF1 + number]), b"%d" % number))
entries = st.lists(st.one_of(text_entries, numbers, small), max_size=12)
score_texts = st.floats(allow_nan=False).map(lambda score: b"%.17g" % score)
fields = st.dictionaries(texts, texts, min_size=1, max_size=6)


def long_string(data: bytes) -> bytes:
    return s(data) if len(data) < 1 << 14 else b"\x80" + len(data).to_bytes(4, "big") + data


def small_length(text: bytes) -> bytes:
    """Before a text in a zipmap."""
    return bytes([len(text)]) if len(text) < 254 else b"\xfe" + len(text).to_bytes(4, "little")


def zipmap(pairs: dict[bytes, bytes], free: int = 0) -> bytes:
    return bytes([len(pairs)]) + b"".join(
        small_length(field) + field + small_length(value) + bytes([free]) + value + b"?" * free
        for field, value in pairs.items()) + b"\xff"


def in_turn(pairs: dict[bytes, bytes]) -> bytes:
    return ziplist(*[text_entry(text, 1)[0] for pair in pairs.items() for text in pair])


Payload = tuple[int, bytes, Any]            # type byte, what follows the key, the value

lists = entries.map(lambda found: (
    LIST, long_string(ziplist(*[entry for entry, _ in found])), [text for _, text in found]))
quicklists = st.lists(entries, max_size=4).map(lambda nodes: (
    QUICKLIST, bytes([len(nodes)]) + b"".join(long_string(ziplist(*[entry for entry, _ in node])) for node in nodes),
    [text for node in nodes for _, text in node]))
hashes = fields.map(lambda pairs: (HASH, long_string(in_turn(pairs)), pairs))
zipmaps = st.builds(lambda pairs, free: (ZIPMAP, long_string(zipmap(pairs, free)), pairs), fields, st.integers(0, 4))
zsets = st.dictionaries(texts, score_texts, max_size=6).map(lambda pairs: (
    ZSET, long_string(in_turn(pairs)), {member: float(score) for member, score in pairs.items()}))
scored = st.dictionaries(texts, score_texts, max_size=6).map(lambda pairs: (
    SCORED, bytes([len(pairs)]) + b"".join(s(member) + {b"inf": b"\xfe", b"-inf": b"\xff"}.get(
        score, bytes([len(score)]) + score) for member, score in pairs.items()),
    {member: float(score) for member, score in pairs.items()}))
payloads: st.SearchStrategy[Payload] = st.one_of(lists, quicklists, hashes, zipmaps, zsets, scored)


@given(payloads)
@settings(max_examples=150)
def test_whatever_was_written_is_read(payload: Payload) -> None:
    kind, data, value = payload
    assert read(kind, data) == value


def test_a_size_may_stand_in_5_bytes_though_1_would_do() -> None:
    """So does an entry behind one that was long once."""
    blob = ziplist(b"\x01a", b"\x01b")
    body = blob[10:14].replace(b"\x03", b"\xfe\x03\x00\x00\x00") + blob[14:]
    head = (len(body) + 10).to_bytes(4, "little") + blob[4:10]
    assert read(LIST, s(head + body)) == [b"a", b"b"]


def test_a_ziplist_of_more_entries_than_it_can_count_is_read() -> None:
    blob = ziplist(b"\xf1", b"\xf2")
    assert read(LIST, s(blob[:8] + b"\xff\xff" + blob[10:])) == [b"0", b"1"]
    many = ziplist(*[b"\xf1"] * 3)[:8] + b"\xff\xff" + b"\x00\xf1" + b"\x02\xf1" * 70_000 + b"\xff"
    many = len(many).to_bytes(4, "little") + (len(many) - 3).to_bytes(4, "little") + many[8:]
    assert read(LIST, long_string(many)) == [b"0"] * 70_001


def test_a_zipmap_of_more_fields_than_it_can_count_is_read() -> None:
    pairs = {b"%d" % number: b"" for number in range(300)}
    assert read(ZIPMAP, s(b"\xfe" + zipmap(dict(list(pairs.items())[:9]))[1:])) == dict(list(pairs.items())[:9])
    many = b"\xfe" + b"".join(small_length(field) + field + b"\x00\x00" for field in pairs) + b"\xff"
    assert read(ZIPMAP, s(many)) == pairs


def test_an_empty_ziplist_makes_an_empty_value_for_the_reader_to_pass_over() -> None:
    empty = s(ziplist())
    assert [read(LIST, empty), read(HASH, empty), read(ZSET, empty)] == [[], {}, {}]
    assert read(QUICKLIST, b"\x02" + empty * 2) == []
    assert read(QUICKLIST, b"\x02" + empty + s(ziplist(b"\xf1"))) == [b"0"]


def test_minus_zero_is_zero() -> None:
    values = [read(SCORED, b"\x01" + s(b"m") + b"\x02-0"), read(ZSET, s(ziplist(b"\x01m", b"\x02-0")))]
    assert [str(value) for value in values] == ["{b'm': 0.0}"] * 2


# ---- what is damaged -----------------------------------------------------------------------------

def patched(blob: bytes, at: int, data: bytes) -> bytes:
    return s(blob[:at] + data + blob[at + len(data):])


TWO = ziplist(b"\x03one", b"\x03two")       # 21 bytes, the second entry at 15
PAIR = zipmap({b"f": b"v"})                 # 1, 1 f, 1 0 v, end

DAMAGED: dict[str, tuple[int, bytes, str]] = {
    "too many bytes": (LIST, patched(TWO, 0, b"\x16"), "the ziplist claims 22 bytes, and there are 21"),
    "too few bytes": (LIST, patched(TWO, 0, b"\x14"), "the ziplist claims 20 bytes, and there are 21"),
    "no place for the head": (LIST, s(TWO[:9]), "number of entries of 2 bytes should follow, but the end"),
    "wrong tail": (LIST, patched(TWO, 4, b"\x0a"), "the last entry of the ziplist should be at 10, and it is at 15"),
    "wrong tail of none": (LIST, patched(ziplist(), 4, b"\x09"), "should be at 9, and it is at 10"),
    "too many entries": (LIST, patched(TWO, 8, b"\x03"), "the ziplist claims 3 entries, and there are 2"),
    "too few entries": (LIST, patched(TWO, 8, b"\x00"), "the ziplist claims 0 entries, and there are 2"),
    "something before the first": (LIST, patched(TWO, 10, b"\x01"), "should have 1 bytes, and it has 0"),
    "wrong size of the first": (LIST, patched(TWO, 15, b"\x04"), "the entry before should have 4 bytes, and"),
    "an end too early": (LIST, patched(TWO, 15, b"\xff"), "5 bytes stand behind the end of the ziplist"),
    "no end": (LIST, patched(TWO, 20, b"\x05"), "encoding and length of 1 bytes should follow, but"),
    "a text too long": (LIST, patched(TWO, 16, b"\x05"), "text of 5 bytes should follow, but the end comes after 4"),
    "a second one in a quicklist": (QUICKLIST, b"\x02" + s(TWO), "length of ziplist of 1 bytes should follow"),
    "a number for a ziplist": (LIST, b"\xc0\x07", "bytes of the ziplist of 4 bytes should follow"),
    "a field alone": (HASH, s(ziplist(b"\x01f")), "nothing belongs to b'f', the last of 1 entries"),
    "a field twice": (HASH, s(ziplist(b"\xf1", b"\xf1", b"\x010", b"\xf1")), "b'0' stands twice"),
    "a member twice": (ZSET, s(ziplist(b"\x01m", b"\xf1", b"\x01m", b"\xf2")), "b'm' stands twice"),
    "a score that is none": (ZSET, s(ziplist(b"\x01m", b"\x03one")), "the score of b'm' is b'one', which is no number"),
    "a score of NaN": (ZSET, s(ziplist(b"\x01m", b"\x03nan")), "the score of b'm' is b'nan', which is no number"),
    "a score of NaN in a byte": (SCORED, b"\x01" + s(b"m") + b"\xfd", "the score of b'm' is b'nan', which is"),
    "a score of nothing": (SCORED, b"\x01" + s(b"m") + b"\x00", "the score of b'm' is b'', which is no number"),
    "a member twice, in text": (SCORED, b"\x02" + (s(b"m") + b"\x011") * 2, "b'm' stands twice"),
    "a member too few": (SCORED, b"\x02" + s(b"m") + b"\x011", "length of member of 1 bytes should follow"),
    "a score cut": (SCORED, b"\x01" + s(b"m") + b"\x031.", "score of 3 bytes should follow, but the end comes after 2"),
    "a count that is none": (SCORED, b"\xc0\x01", "number of members has the impossible encoding 0xc0"),
    "too many fields": (ZIPMAP, patched(PAIR, 0, b"\x02"), "the zipmap claims 2 fields, and there are 1"),
    "no zipmap at all": (ZIPMAP, b"\x00", "number of fields of 1 bytes should follow, but the end comes after 0"),
    "a zipmap without end": (ZIPMAP, s(PAIR[:-1]), "length of the field of 1 bytes should follow"),
    "bytes behind a zipmap": (ZIPMAP, s(PAIR + b"\xff"), "1 bytes stand behind the end of the zipmap"),
    "a zipmap field alone": (ZIPMAP, s(b"\x01\x01f\xff"), "the zipmap ends between a field and its value"),
    "a zipmap field twice": (ZIPMAP, s(b"\x02" + PAIR[1:-1] * 2 + b"\xff"), "b'f' stands twice"),
    "free bytes that are not there": (ZIPMAP, patched(PAIR, 4, b"\x02"), "free bytes of 2 bytes should follow"),
    "a short length in 5 bytes": (ZIPMAP, s(b"\x01\xfe\x01\x00\x00\x00f\x01\x00v\xff"), "does not need 5 bytes"),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_what_is_damaged_is_refused_with_one_sentence(what: str) -> None:
    kind, data, sentence = DAMAGED[what]
    with pytest.raises(Unreadable) as error:
        read(kind, data)
    assert sentence in str(error.value)


def test_a_sentence_stays_short_however_long_the_names_are() -> None:
    name = b"\x80\x00\x01\x00\x00" + b"\x00" * 0x10000
    for kind, names in (HASH, [name] * 4), (HASH, [name]), (ZSET, [name] * 2):
        with pytest.raises(Unreadable) as error:
            read(kind, long_string(ziplist(*names)))
        assert len(str(error.value)) < 600


def test_an_error_names_the_offset_in_the_file() -> None:
    """Of compressed bytes, which have no places of their own, where they end."""
    blob = ziplist(b"\x03one", b"\xff\xff")
    with pytest.raises(Unreadable) as error:
        list(rdb.Reader(Cursor(b"REDIS0002\x0a" + s(b"key") + s(blob) + b"\xff")))
    assert (error.value.offset, error.value.key) == (9 + 1 + 4 + 1 + 16, b"key")
    packed = b"\xc3" + s(b"\x12" + blob)[:1] + s(blob)[:1] + b"\x12" + blob
    assert len(blob) == 19
    with pytest.raises(Unreadable, match="in compressed bytes") as error:
        list(rdb.Reader(Cursor(b"REDIS0002\x0a" + s(b"key") + packed + b"\xff")))
    assert error.value.offset == 9 + 1 + 4 + len(packed)


LARGE = b"\x81" + (1 << 60).to_bytes(8, "big")
HOSTILE: dict[str, tuple[int, bytes]] = {
    "members": (SCORED, LARGE + s(b"m") + b"\x011"),
    "a member": (SCORED, b"\x01" + LARGE),
    "ziplists": (QUICKLIST, LARGE + s(TWO)),
    "a ziplist": (LIST, LARGE + TWO),
    "the bytes of a ziplist": (LIST, patched(TWO, 0, b"\xff" * 4)),
    "the tail of a ziplist": (LIST, patched(TWO, 4, b"\xff" * 4)),
    "the entries of a ziplist": (LIST, patched(TWO, 8, b"\xfe\xff")),
    "an entry before": (LIST, patched(TWO, 15, b"\xfe" + b"\xff" * 4)),
    "a text of a ziplist": (LIST, s(ziplist(b"\x80\xff\xff\xff\xff"))),
    "a field of a zipmap": (ZIPMAP, s(b"\x01\xfe\xff\xff\xff\xfff\xff")),
    "a value of a zipmap": (ZIPMAP, s(b"\x01\x01f\xfe\xff\xff\xff\xff\x00v\xff")),
    "a compressed ziplist": (LIST, b"\xc3\x05" + LARGE + bytes(5)),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_claim_of_length_costs_no_memory(what: str) -> None:
    kind, data = HOSTILE[what]
    tracemalloc.start()
    try:
        with pytest.raises(Unreadable):
            read(kind, data)
        assert tracemalloc.get_traced_memory()[1] < 64 * 1024
    finally:
        tracemalloc.stop()


@given(payloads)
@settings(max_examples=30)
def test_a_value_that_is_cut_is_refused(payload: Payload) -> None:
    kind, data, _ = payload
    for end in range(len(data)):
        with pytest.raises(Unreadable):
            read(kind, data[:end])


@st.composite
def mutated(draw: st.DrawFn, source: st.SearchStrategy[Payload] = payloads) -> tuple[int, bytes]:
    """A payload with a few bytes changed, lost or added; mostly in the head and where it tells of lengths."""
    kind, data, _ = draw(source)
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, min(len(changed), draw(st.sampled_from([14, 1000]))) - 1)))
        byte = draw(st.one_of(st.integers(0, 255), st.sampled_from([0, 1, 0x80, 253, 254, 255])))
        changed[at:at + draw(st.integers(0, 1))] = bytes([byte] * draw(st.integers(0, 1)))
    return kind, bytes(changed)


@given(st.one_of(mutated(), st.tuples(st.sampled_from(sorted(LEGACY)), st.binary(max_size=60))))
@settings(max_examples=250)
def test_any_bytes_make_a_value_or_are_unreadable_and_nothing_else(payload: tuple[int, bytes]) -> None:
    kind, data = payload
    try:
        read(kind, data)
    except Unreadable as error:
        assert str(error) and "\n" not in str(error) and 0 <= error.offset <= len(data)


STRICTER = ("which is no number", "bytes are left", "behind the end of the zipmap", "between a field and its value",
            "should follow")                # RESTORE does not mind what follows, its own checksum included


@given(payload=st.one_of(payloads.map(lambda payload: payload[:2]), mutated()))
@example(payload=(ZIPMAP, DAMAGED["a short length in 5 bytes"][1]))
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_real_redis_makes_the_same_of_any_bytes(redis_server: record.RedisServer, payload: tuple[int, bytes]) -> None:
    """What kvref reads Redis reads alike; what it refuses Redis refuses, but for the few things said in legacy.py."""
    kind, data = payload
    client: Any = redis.Redis(port=redis_server.port)
    try:
        mine = read(kind, data) or "refused: empty"
    except Unreadable as error:
        mine = f"refused: {error}"
    body = bytes([kind]) + data + b"\x0a\x00"
    try:
        client.restore("legacy", 0, body + crc64(body).to_bytes(8, "little"), replace=True)
        its = asked(client, b"legacy")
    except redis.ResponseError as error:
        its = f"refused: {error}"
    finally:
        client.delete("legacy")
    if isinstance(mine, str):
        assume(not any(reason in mine for reason in STRICTER))
        assert isinstance(its, str), mine
    else:
        assert its == mine


# ---- for those who look at a file ----------------------------------------------------------------

class Watched(Cursor):
    """Counts what is taken, and holds every begin to its end."""

    __slots__ = ("open", "taken", "inner")

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.open, self.taken = 0, 0
        self.inner: list[Watched] = []

    def take(self, count: int, meaning: str) -> bytes:
        assert meaning
        self.taken += count
        return super().take(count, meaning)

    def inside(self, blob: bytes) -> Cursor:
        self.inner.append(Watched(blob))
        return self.inner[-1]

    def begin(self) -> None:
        self.open += 1

    def end(self, meaning: str, value: Any = None) -> None:
        assert meaning and self.open
        self.open -= 1


@given(payloads)
def test_every_byte_is_taken_once_under_a_name(payload: Payload) -> None:
    kind, data, _ = payload
    cursor = Watched(data)
    LEGACY[kind][1](cursor)
    for watched in (cursor, *cursor.inner):
        assert (watched.taken, watched.open) == (len(watched.data), 0)


def test_infinite_scores_have_bytes_of_their_own() -> None:
    assert read(SCORED, b"\x02" + s(b"a") + b"\xfe" + s(b"b") + b"\xff") == {b"a": inf, b"b": -inf}
