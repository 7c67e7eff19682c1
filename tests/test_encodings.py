"""LZF, listpacks and intsets: equal to those of a real Redis byte for byte; of damaged ones, nothing but Unreadable."""

from __future__ import annotations

import random
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from kvref.persistence.crc64 import crc64
from kvref.persistence.cursor import Cursor, Unreadable
from kvref.persistence import encodings
from kvref.persistence.encodings import back_length, entry, intset, listpack, read_intset
from kvref.persistence.lzf import LZF_GAIN, compress, decompress
from tests import record

HASH, ZSET, LIST, INTSET = 16, 17, 18, 11       # type bytes of a dump
RAISED = {"hash-max-listpack-entries": "100000", "hash-max-listpack-value": "1000000000",
          "zset-max-listpack-value": "100000", "list-max-listpack-size": "-5", "sanitize-dump-payload": "yes"}


@pytest.fixture
def real(redis_server: record.RedisServer) -> Iterator[redis.Redis]:
    """A client of the real server, which makes compact forms of almost everything while the test runs."""
    client = redis.Redis(port=redis_server.port)
    before: dict[str, Any] = {name: client.config_get(name)[name] for name in RAISED}
    for name, value in RAISED.items():
        client.config_set(name, value)
    yield client
    client.flushall()
    for name, value in before.items():
        client.config_set(name, value)
    client.close()


def dumped(real: redis.Redis, *commands: tuple[Any, ...]) -> list[bytes]:
    """What DUMP says of a key "k" after each command, without version and checksum. The key is gone before each."""
    pipeline = real.pipeline(transaction=False)
    for command in commands:
        pipeline.delete("k")
        pipeline.execute_command(*command)
        pipeline.dump("k")
    return [dump[:-10] for dump in pipeline.execute()[2::3]]


def blob(dump: bytes, kind: int) -> bytes:
    """The listpack or intset in a dump of the type `kind`."""
    cursor = Cursor(dump)
    assert cursor.byte("type") == kind
    if kind == LIST:
        assert (cursor.length("nodes"), cursor.length("container")) == (1, 2)
    found = cursor.string("blob")
    assert not cursor.left
    return found


def payload(kind: int, packed: bytes) -> bytes:
    """What RESTORE takes: the other way."""
    one_node = b"\1\2" if kind == LIST else b""
    body = bytes([kind]) + one_node + b"\x80" + struct.pack(">I", len(packed)) + packed + struct.pack("<H", 10)
    return body + struct.pack("<Q", crc64(body))


def restored(real: redis.Redis, *payloads: bytes) -> list[Any]:
    """What RESTORE answers to each: OK, or an error."""
    pipeline = real.pipeline(transaction=False)
    for data in payloads:
        pipeline.execute_command("RESTORE", "k", 0, data, "REPLACE")
    return pipeline.execute(raise_on_error=False)


def read_listpack(cursor: Cursor) -> list[bytes]:
    """All of it."""
    return list(encodings.read_listpack(cursor))


# --- LZF: equal to Redis ---------------------------------------------------------------------------------------------

def words(dice: random.Random, size: int) -> bytes:
    some = [dice.randbytes(dice.randint(1, 12)) for _ in range(dice.choice([3, 30, 300]))]
    return b" ".join(dice.choice(some) for _ in range(size // 5 + 3))[:size]


def few_letters(dice: random.Random, size: int) -> bytes:
    return bytes(dice.choices(range(dice.choice([1, 2, 3, 5, 16, 100])), k=size))


def runs(dice: random.Random, size: int) -> bytes:
    lengths = [1, 2, 3, 16, 17, 18, 19, 20, 31, 32, 33, 64, 65, *range(262, 285), 528, 600]
    return b"".join(dice.randbytes(1) * dice.choice(lengths) for _ in range(size // 20 + 2))[:size]


def echoes(dice: random.Random, size: int) -> bytes:
    """Pieces of what stood there before between new bytes: short strings just gain enough, or just not."""
    data = dice.randbytes(4)
    while len(data) < size:
        start = dice.randrange(len(data))
        data += data[start:start + dice.randint(2, 30)] + dice.randbytes(dice.randint(0, dice.choice([4, 40])))
    return data[:size]


def period(dice: random.Random, size: int) -> bytes:
    piece = dice.randbytes(dice.randint(1, 60))
    return (piece * (size // len(piece) + 1))[:size]


Shape = Callable[[random.Random, int], bytes]      # a value of about so many bytes
SHAPES: list[Shape] = [words, few_letters, runs, echoes, period]


def same_as_redis(real: redis.Redis, values: list[bytes]) -> int:
    """Each value compressed here and there; how many of them Redis compressed."""
    some = 0
    for value, dump in zip(values, dumped(real, *(("SET", "k", value) for value in values))):
        cursor, expected = Cursor(dump[1:]), None
        if dump[1] == 0xC3:
            cursor.byte("compressed")
            size = cursor.length("compressed length")
            assert cursor.length("length") == len(value)
            expected = cursor.take(size, "bytes")
            assert decompress(expected, len(value)) == value
            some += 1
        assert compress(value) == expected, value
    return some


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_short_strings_are_compressed_as_by_redis(real: redis.Redis, shape: Shape) -> None:
    dice = random.Random(shape.__name__)
    values = [shape(dice, 21 + int(600 * dice.random()**3)) for _ in range(2000)]
    assert same_as_redis(real, values) > 50


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_long_strings_are_compressed_as_by_redis(real: redis.Redis, shape: Shape) -> None:
    """Long enough for slots that are shared by different bytes."""
    dice = random.Random(shape.__name__)
    assert same_as_redis(real, [shape(dice, size) for size in (510, 512, 513, 514, 1026, 5000, 20_000, 100_000)]) >= 4


def test_random_bytes_with_a_copy_in_them_meet_in_the_slots(real: redis.Redis) -> None:
    """65,536 slots and 60,000 bytes: many a place is pushed out by other bytes."""
    dice = random.Random(3)
    data = dice.randbytes(3000)
    values = [b"".join(data[start:start + 6] + dice.randbytes(2) for start in range(0, 2990, 3)) for _ in range(3)]
    assert same_as_redis(real, [dice.randbytes(60_000), *values, *(value * 6 for value in values)]) >= 3


@pytest.mark.parametrize("distance", [8190, 8191, 8192, 8193, 8194])
def test_references_reach_as_far_as_those_of_redis(real: redis.Redis, distance: int) -> None:
    dice = random.Random(distance)
    values = []
    for size in (3, 4, 10, 300):
        piece = dice.randbytes(size)
        values.append(b"<" + piece + dice.randbytes(distance - size) + piece + b">" + bytes(400))
    assert same_as_redis(real, values) == 4


@pytest.mark.parametrize("ahead", [0, 1, 2])
def test_matches_stop_before_the_end_where_those_of_redis_do(real: redis.Redis, ahead: int) -> None:
    """A match of each length, so many bytes before the end, from the first byte of the data or one behind it."""
    dice = random.Random(ahead)
    values = []
    for size in [*range(3, 40), *range(258, 290)]:
        piece = dice.randbytes(size)
        values += [bytes(20) + dice.randbytes(ahead) + piece + b"|" + piece + dice.randbytes(tail) for tail in range(6)]
        values += [piece + piece + dice.randbytes(tail) for tail in range(6)]
    assert same_as_redis(real, [value for value in values if len(value) > 20]) > 100


def test_what_just_pays_and_what_just_does_not_is_as_in_redis(real: redis.Redis) -> None:
    """Literals before, between and behind two matches, so many that their lengths cost a byte or two."""
    dice = random.Random(5)
    values = []
    for literals in [*range(8, 70), *range(90, 100)]:
        for size in range(6, 16):
            data = dice.randbytes(literals)
            values.append(data + data[1:1 + size] + dice.randbytes(literals % 5))
            values.append(data + data[3:7] + data[1:1 + size // 2] + dice.randbytes(literals % 3))
            values.append(data + data[1:1 + size - 3] + data[2:5] + dice.randbytes(2))
    assert 200 < same_as_redis(real, [value for value in values if len(value) > 20]) < len(values) - 200


# --- LZF: by itself --------------------------------------------------------------------------------------------------

PIECES = st.sampled_from([b"a", b"bc", b"abcd", b"0123456789", bytes(40), b"xy" * 150]) | st.binary(max_size=9)
SIMILAR = st.lists(PIECES).map(b"".join)


@given(SIMILAR)
def test_what_is_compressed_comes_back(data: bytes) -> None:
    packed = compress(data)
    if packed is not None:
        assert len(packed) <= len(data) - 4
        assert decompress(packed, len(data)) == data
        assert decompress(packed, len(data) + 1) is None and decompress(packed, len(data) - 1) is None


@given(SIMILAR, st.data())
def test_damaged_bytes_give_none_or_as_many_as_were_asked_for(data: bytes, draw: st.DataObject) -> None:
    packed = bytearray(compress(data + bytes(20)) or b"")
    packed[draw.draw(st.integers(0, len(packed) - 1))] = draw.draw(st.integers(0, 255))
    found = decompress(bytes(packed[:draw.draw(st.integers(0, len(packed)))]), len(data) + 20)
    assert found is None or len(found) == len(data) + 20


@given(st.binary(max_size=40), st.integers(0, 3000))
def test_any_bytes_give_none_or_as_many_as_were_asked_for(data: bytes, size: int) -> None:
    found = decompress(data, size)
    assert found is None or len(found) == size


@pytest.mark.parametrize("packed, size", [
    (b"\x03abc", 4), (b"\x03abc", 3), (b"\x00", 1), (b"\x00", 0),   # literals that are not there
    (b"\x00a\x20", 4), (b"\x00a\xe0", 10), (b"\x00a\xe0\x00", 10),  # references that are cut off
    (b"\x00a\x20\x01", 4), (b"\x20\x00", 3), (b"\x01ab\x20\x02", 3),    # references that lead before the start
    (b"\x00a\x20\x00", 5), (b"\x00a\x20\x00", 3), (b"", 1)])            # another size
def test_damaged_bytes_are_none(packed: bytes, size: int) -> None:
    assert decompress(packed, size) is None


def test_a_reference_may_run_into_what_it_writes() -> None:
    assert decompress(b"\x00a\xe0\xff\x00", 265) == b"a" * 265
    assert decompress(b"\x02abc\xe0\x01\x02", 13) == b"abcabcabcabca"
    assert decompress(b"\x02abc\x20\x02", 6) == b"abcabc"


def test_no_bytes_grow_more_than_the_gain_says() -> None:
    packed = b"\x00a" + b"\xe0\xff\x00" * 1000
    assert decompress(packed, 264_001) == b"a" * 264_001
    assert (LZF_GAIN - 1) * len(packed) < 264_001 <= LZF_GAIN * len(packed)


def test_a_bomb_takes_no_more_memory_than_it_claims() -> None:
    bomb = b"\x00a" + b"\xe0\xff\x00" * 100_000
    tracemalloc.start()
    assert decompress(bomb, 1000) is None
    assert tracemalloc.get_traced_memory()[1] < 2 * len(bomb)
    tracemalloc.stop()


def test_a_long_string_takes_a_few_times_its_memory() -> None:
    data = bytes(200_000)
    tracemalloc.start()
    compress(data)
    assert tracemalloc.get_traced_memory()[1] < 6 * len(data)
    tracemalloc.stop()


# --- listpacks: equal to Redis ---------------------------------------------------------------------------------------

EDGES = sorted({sign * (1 << bits) + by for bits in (0, 7, 12, 13, 15, 16, 23, 24, 31, 32, 62, 63) for sign in (1, -1)
                for by in (-1, 0, 1)} | {0, 42, 4095, -4095})
INTEGERS = [number for number in EDGES if -1 << 63 <= number < 1 << 63]
SIZES = [0, 1, 62, 63, 64, 65, 124, 125, 126, 127, 128, 4093, 4094, 4095, 4096, 4097, 16379, 16380, 16381, 16382, 16383,
         16384, 70_000, 2097144, 2097145, 2097146, 2097147, 2097152]
NOT_QUITE = [b"-0", b"00", b"01", b"+1", b" 1", b"1 ", b"1.0", b"1e3", b"-", b"--1", b"0x1", b"1_0", b"9" * 20,
             b"9" * 21, b":", b"/", "\u0661".encode()]
TEXTS = [b"%d" % number for number in EDGES] + [b"x" * size for size in SIZES] + NOT_QUITE


def test_an_entry_is_written_as_by_redis_and_read() -> None:
    assert [read_listpack(Cursor(listpack([entry(text)]))) for text in TEXTS] == [[text] for text in TEXTS]


def test_an_entry_is_the_same_in_redis(real: redis.Redis) -> None:
    """Every boundary of integers, texts and back lengths, behind a field and alone in a list."""
    for text, dump in zip(TEXTS, dumped(real, *(("HSET", "k", "field", text) for text in TEXTS))):
        assert blob(dump, HASH) == listpack([entry(b"field"), entry(text)]), text[:30]
        assert read_listpack(Cursor(blob(dump, HASH))) == [b"field", text], text[:30]
    small = [text for text in TEXTS if len(text) < 20_000]
    for text, dump in zip(small, dumped(real, *(("RPUSH", "k", text) for text in small))):
        assert blob(dump, LIST) == listpack([entry(text)]), text[:30]


def test_lists_hashes_and_sorted_sets_are_the_same_in_redis(real: redis.Redis) -> None:
    dice = random.Random(1)
    some = [text for text in TEXTS if len(text) < 5000]
    texts = [dice.choices(some, k=dice.randint(1, 8)) for _ in range(300)]
    for elements, dump in zip(texts, dumped(real, *(("RPUSH", "k", *elements) for elements in texts))):
        assert blob(dump, LIST) == listpack([entry(text) for text in elements])
        assert read_listpack(Cursor(blob(dump, LIST))) == elements
    pairs = [{text: dice.choice(some) for text in elements} for elements in texts]
    flat = [[text for pair in fields.items() for text in pair] for fields in pairs]
    for elements, dump in zip(flat, dumped(real, *(("HSET", "k", *elements) for elements in flat))):
        assert blob(dump, HASH) == listpack([entry(text) for text in elements])
    ranked = [[text for rank, member in enumerate(fields) for text in (member, b"%d" % (999 * rank))]
              for fields in pairs]
    for elements, dump in zip(ranked, dumped(real, *(("ZADD", "k", *elements[::-1]) for elements in ranked))):
        assert blob(dump, ZSET) == listpack([entry(text) for text in elements])


def test_a_listpack_of_65535_entries_does_not_count_them(real: redis.Redis) -> None:
    """A real one of 65,534 is restored, and Redis appends until it stops counting."""
    texts = [b"%d" % number for number in range(65_534)]
    assert restored(real, payload(HASH, listpack([entry(text) for text in texts]))) == [b"OK"]
    for count in (65_534, 65_536, 65_538):
        found = blob((real.dump("k") or b"")[:-10], HASH)
        assert found[4:6] == struct.pack("<H", min(count, 65_535))
        assert found == listpack([entry(text) for text in texts])
        assert read_listpack(Cursor(found)) == texts
        texts += [b"field %d" % count, b"value"]
        real.hset("k", texts[-2], texts[-1])


def test_redis_takes_what_is_written_here(real: redis.Redis) -> None:
    texts = list(dict.fromkeys(TEXTS))
    pack = listpack([entry(text) for text in texts])
    assert restored(real, payload(LIST, pack)) == [b"OK"]
    assert real.lrange("k", 0, -1) == texts
    even = texts[:len(texts) // 2 * 2]
    assert restored(real, payload(HASH, listpack([entry(text) for text in even]))) == [b"OK"]
    assert real.hgetall("k") == dict(zip(even[::2], even[1::2]))


WIDER = [(b"\xc0\x05\x02", b"5"), (b"\xf1\x05\x00\x03", b"5"), (b"\xf2\xff\xff\xff\x04", b"-1"),
         (b"\xf3\x00\x00\x00\x80\x05", b"-2147483648"), (b"\xf4" + b"\xff" * 8 + b"\x09", b"-1"),
         (b"\xe0\x01a\x03", b"a"), (b"\xf0\x01\0\0\0a\x06", b"a"), (b"\x8212\x03", b"12")]


@pytest.mark.parametrize("wide, text", WIDER)
def test_an_encoding_wider_than_needed_is_read_as_redis_does(real: redis.Redis, wide: bytes, text: bytes) -> None:
    assert read_listpack(Cursor(listpack([wide]))) == [text]
    assert restored(real, payload(LIST, listpack([wide]))) == [b"OK"]
    assert real.lrange("k", 0, -1) == [text]


def test_back_lengths_have_another_byte_one_early() -> None:
    """Redis: lpEncodeBacklen. Two bytes could say 16,383, but do not."""
    limits = {1: 127, 2: 2**14 - 2, 3: 2**21 - 2, 4: 2**28 - 2}
    for count, last in limits.items():
        assert [len(back_length(last)), len(back_length(last + 1))] == [count, count + 1]
    assert back_length(300) == bytes([300 >> 7, 300 & 127 | 128])


# --- listpacks: damaged ----------------------------------------------------------------------------------------------

ENTRIES = [b"one", b"2", b"-3", b"40000", b"x" * 70, b"y" * 200, b"", b"5000000000", b"8388607", b"z" * 5000, b"123456"]
GOOD = listpack([entry(text) for text in ENTRIES])


def unreadable(read: Callable[[Cursor], list[bytes]], data: bytes) -> str:
    with pytest.raises(Unreadable) as caught:
        read(Cursor(data))
    assert 0 <= caught.value.offset <= len(data)
    return str(caught.value)


def listpack_of(*entries: bytes, count: int | None = None, add: int = 0, end: bytes = b"\xff") -> bytes:
    body = b"".join(entries)
    return struct.pack("<IH", 6 + len(body) + len(end) + add, len(entries) if count is None else count) + body + end


@pytest.mark.parametrize("data, what", [
    (b"", "these bytes: at offset 0: bytes of the listpack of 4 bytes should follow, but the end comes after 0"),
    (listpack_of(b"\x01\x01", add=1), "at offset 6: the listpack claims 10 bytes, and there are 9"),
    (listpack_of(b"\x01\x01", add=-1), "at offset 6: the listpack claims 8 bytes, and there are 9"),
    (listpack_of(b"\x01\x01", count=2), "at offset 9: the listpack claims 2 entries, and there are 1"),
    (listpack_of(b"\x01\x01", count=65534), "at offset 9: the listpack claims 65534 entries, and there are 1"),
    (listpack_of(b"\x01\x02"), "at offset 7: the back length does not fit its entry of 1 bytes"),
    (listpack_of(b"\x83abc\x03"), "at offset 10: the back length does not fit its entry of 4 bytes"),
    (listpack_of(b"\xe0\x80" + bytes(128) + b"\x02\x81"),
     "at offset 136: the back length does not fit its entry of 130 bytes"),
    (listpack_of(b"\x01\x01", end=b""), "at offset 8: encoding of 1 bytes should follow, but the end comes after 0"),
    (listpack_of(b"\x01\x01", end=b"\xff\xff"), "at offset 9: 1 bytes stand behind the end of the listpack"),
    (listpack_of(b"\xf5\x01"), "at offset 6: an entry of the listpack has the impossible encoding 0xf5"),
    (listpack_of(b"\xfe\x01"), "at offset 6: an entry of the listpack has the impossible encoding 0xfe"),
    (listpack_of(b"\x85abc"), "at offset 7: text of 5 bytes should follow, but the end comes after 4"),
    (listpack_of(b"\xf0\xff\xff\xff\xffabc"),
     "at offset 11: text of 4294967295 bytes should follow, but the end comes after 4"),
    (listpack_of(b"\xf4\x01"), "at offset 7: number of 8 bytes should follow, but the end comes after 2"),
])
def test_a_damaged_listpack_is_unreadable_and_says_where(data: bytes, what: str) -> None:
    assert unreadable(read_listpack, data).endswith(what)


def test_a_listpack_may_leave_its_entries_uncounted() -> None:
    assert read_listpack(Cursor(listpack_of(b"\x01\x01", count=65535))) == [b"1"]
    assert read_listpack(Cursor(listpack_of())) == []


def test_every_cut_listpack_is_unreadable() -> None:
    for size in range(len(GOOD)):
        unreadable(read_listpack, GOOD[:size])
        unreadable(read_listpack, struct.pack("<I", size) + GOOD[4:size] if size >= 4 else b"")


def test_every_changed_byte_gives_unreadable_or_texts() -> None:
    good = listpack([entry(text) for text in ENTRIES if len(text) < 100])
    for at in range(len(good)):
        for byte in range(256):
            check_read(read_listpack, good[:at] + bytes([byte]) + good[at + 1:])


def check_read(read: Callable[[Cursor], list[bytes]], data: bytes) -> bool:
    """Texts or Unreadable; whether it is texts."""
    try:
        texts = read(Cursor(data))
    except Unreadable as error:
        assert 0 <= error.offset <= len(data)
        return False
    assert all(type(text) is bytes for text in texts)
    return True


@given(st.binary(max_size=60), st.none() | st.integers(0, 70))
def test_any_bytes_give_unreadable_or_texts(data: bytes, size: int | None) -> None:
    """Most with a length that is right."""
    check_read(read_listpack, struct.pack("<I", 4 + len(data) if size is None else size) + data)
    check_read(read_intset, data)
    check_read(read_intset, struct.pack("<II", 2, len(data) // 2) + data)


def test_redis_refuses_what_is_refused_here(real: redis.Redis) -> None:
    """Where one or two bytes are changed both come to the same verdict, but for bytes behind an early end."""
    dice = random.Random(2)
    good = listpack([entry(text) for text in ENTRIES if len(text) < 1000])
    broken = []
    for _ in range(2000):
        damaged = bytearray(good)
        for at in dice.choices(range(len(good)), k=dice.choice([1, 1, 2])):
            damaged[at] = dice.choice([0, 1, 0x80, 0xFF, damaged[at] ^ 1 << dice.randrange(8), dice.randrange(256)])
        broken.append(bytes(damaged))
    verdicts = [answer == b"OK" for answer in restored(real, *(payload(LIST, data) for data in broken))]
    for data, accepted in zip(broken, verdicts):
        if accepted != check_read(read_listpack, data):
            assert "behind the end" in unreadable(read_listpack, data)
    assert 100 < sum(verdicts) < 1900
    assert real.ping()


# --- intsets ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("low, high", [(0, 0), (-1, 1), (-32768, 32767), (-32769, 0), (0, 32768), (-2**31, 2**31 - 1),
                                       (-2**31 - 1, 5), (-5, 2**31), (-2**63, 2**63 - 1)])
def test_an_intset_is_the_same_in_redis(real: redis.Redis, low: int, high: int) -> None:
    numbers = sorted({low, high, *range(low, high, max(1, (high - low) // 9))})
    packed = intset(numbers)
    assert [blob(dump, INTSET) for dump in dumped(real, ("SADD", "k", *numbers[::-1]))] == [packed]
    assert read_intset(Cursor(packed)) == [b"%d" % number for number in numbers]
    assert restored(real, payload(INTSET, packed)) == [b"OK"]
    assert real.smembers("k") == {b"%d" % number for number in numbers}


@given(st.sets(st.integers(-2**63, 2**63 - 1) | st.integers(-2**15 - 3, 2**15 + 3), min_size=1))
def test_the_members_of_an_intset_come_back_in_order(numbers: set[int]) -> None:
    assert read_intset(Cursor(intset(list(numbers)))) == [b"%d" % number for number in sorted(numbers)]


@pytest.mark.parametrize("data, what", [
    (b"\2\0\0\0\1\0", "at offset 4: number of members of 4 bytes should follow, but the end comes after 2"),
    (struct.pack("<IIh", 3, 1, 5), "at offset 0: the members of the intset have 3 bytes, which should be 2, 4 or 8"),
    (struct.pack("<II", 0, 0), "at offset 0: the members of the intset have 0 bytes, which should be 2, 4 or 8"),
    (struct.pack("<II", 2, 0), "at offset 8: the intset claims 0 members of 2 bytes, and there are 0 bytes"),
    (struct.pack("<IIh", 2, 2, 5), "at offset 8: the intset claims 2 members of 2 bytes, and there are 2 bytes"),
    (struct.pack("<IIhh", 2, 1, 5, 6), "at offset 8: the intset claims 1 members of 2 bytes, and there are 4 bytes"),
    (struct.pack("<IIhh", 8, 2**32 - 1, 5, 6),
     "at offset 8: the intset claims 4294967295 members of 8 bytes, and there are 4 bytes"),
    (struct.pack("<IIhhh", 2, 3, 1, 7, 7), "at offset 12: the intset has 7 behind 7"),
    (struct.pack("<IIhhh", 2, 3, 1, -7, 8), "at offset 10: the intset has -7 behind 1"),
])
def test_a_damaged_intset_is_unreadable_and_says_where(data: bytes, what: str) -> None:
    assert unreadable(read_intset, data).endswith(what)


def test_redis_refuses_the_intsets_that_are_refused_here(real: redis.Redis) -> None:
    dice = random.Random(4)
    good = intset([-300, -1, 0, 7, 300])
    broken = [good[:at] + bytes([dice.randrange(256)]) + good[at + 1:] for at in range(len(good)) for _ in range(20)]
    verdicts = [answer == b"OK" for answer in restored(real, *(payload(INTSET, data) for data in broken))]
    assert verdicts == [check_read(read_intset, data) for data in broken]
    assert 20 < sum(verdicts) < len(broken)


# --- what a dissector is told ----------------------------------------------------------------------------------------

class Recorder(Cursor):
    """Writes down what the bytes are, as the dissector's cursor does."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.pieces: list[tuple[str, bytes]] = []
        self.groups: list[tuple[str, int, int, Any]] = []
        self.open: list[int] = []

    def take(self, count: int, meaning: str) -> bytes:
        self.pieces.append((meaning, piece := super().take(count, meaning)))
        return piece

    def begin(self) -> None:
        self.open.append(self.at)

    def end(self, meaning: str, value: Any = None) -> None:
        self.groups.append((meaning, self.open.pop(), self.at, value))


def test_every_byte_of_a_listpack_has_a_meaning() -> None:
    recorder = Recorder(listpack([entry(b"hi"), entry(b"-1"), entry(b"5"), entry(b"70000"), entry(b"x" * 64)]))
    read_listpack(recorder)
    assert b"".join(piece for _, piece in recorder.pieces) == recorder.data
    assert recorder.pieces == [
        ("bytes of the listpack", b"\x58\0\0\0"), ("number of entries", b"\5\0"),
        ("encoding", b"\x82"), ("text", b"hi"), ("back length", b"\3"),
        ("encoding", b"\xdf"), ("number", b"\xff"), ("back length", b"\2"),
        ("encoding", b"\5"), ("back length", b"\1"),
        ("encoding", b"\xf2"), ("number", b"\x70\x11\1"), ("back length", b"\4"),
        ("encoding", b"\xe0"), ("length", b"\x40"), ("text", b"x" * 64), ("back length", b"\x42"),
        ("encoding", b"\xff")]
    assert recorder.groups == [
        ("text, 6-bit length", 6, 10, b"hi"), ("13-bit number", 10, 13, b"-1"), ("7-bit number", 13, 15, b"5"),
        ("24-bit number", 15, 20, b"70000"), ("text, 12-bit length", 20, 87, b"x" * 64),
        ("end of the listpack", 87, 88, None)]
    assert not recorder.open


def test_every_byte_of_an_intset_has_a_meaning() -> None:
    recorder = Recorder(intset([7, -7]))
    read_intset(recorder)
    assert recorder.pieces == [("bytes of a member", b"\2\0\0\0"), ("number of members", b"\2\0\0\0"),
                               ("member", b"\xf9\xff"), ("member", b"\7\0")]
