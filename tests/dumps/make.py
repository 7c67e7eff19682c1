"""The dumps of this directory, byte for byte: `python -m tests.dumps.make` writes them anew.

No old server wrote them. Each was put together by hand, after the sources of the Redis that wrote its version, in the
forms that this Redis had and later ones gave up. So that nothing is proved by itself, nothing of kvref is used here:
values are literal bytes, and four small functions add what only repeats them: the length before a text, what a
ziplist or listpack says of itself, and the checksum. Beside the bytes stands what they hold; tests/test_legacy.py holds
kvref and, as far as it reads the version, a real redis-server to it. README.md says what is where.

A claim is bytes, a list, a set, a dict of bytes (a hash) or of floats (a sorted set).
"""

from __future__ import annotations

from math import inf
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent


class Key(NamedTuple):
    """What a dump says of a key."""

    value: Any
    deadline_ms: int | None = None
    idle_s: int | None = None               # since its last use
    freq: int | None = None                 # counter of uses


Content = dict[tuple[int, bytes], Key]      # (database, key) ->


def s(text: bytes) -> bytes:
    """A string: length and text."""
    return (bytes([len(text)]) if len(text) < 64 else (0x4000 | len(text)).to_bytes(2, "big")) + text


def ziplist(*entries: bytes) -> bytes:
    """Entries are given from their encoding on; each gets the size of the one before it in front."""
    body, start, size = b"", 10, 0
    for entry in entries:
        start += size
        entry = (bytes([size]) if size < 254 else b"\xfe" + size.to_bytes(4, "little")) + entry
        size = len(entry)
        body += entry
    head = (len(body) + 11).to_bytes(4, "little") + start.to_bytes(4, "little") + len(entries).to_bytes(2, "little")
    return head + body + b"\xff"


def listpack(*entries: bytes) -> bytes:
    """Entries are given from their encoding on; each gets its own size behind it."""
    body = b"".join(entry + bytes([len(entry)]) for entry in entries) + b"\xff"
    return (len(body) + 6).to_bytes(4, "little") + len(entries).to_bytes(2, "little") + body


def summed(*pieces: bytes) -> bytes:
    """A whole file, and its CRC-64, reckoned bit by bit."""
    data, crc = b"".join(pieces), 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x95AC9329AC4BC9B5 if crc & 1 else 0)
    return data + crc.to_bytes(8, "little")


DUMPS: dict[str, tuple[bytes, Content]] = {}


# ---- version 1: Redis 1 to 2.2. Every collection is written out, element by element

DUMPS["redis-1-linked-list-zset-text.rdb"] = b"".join([
    b"REDIS0001",
    b"\xfe\x00",                                                    # database 0
    b"\x00", s(b"greeting"), s(b"hello"),
    b"\x00", s(b"nothing"), b"\x00",
    b"\x00", s(b"\x00\xff\r\n"), s(b"\xfe\x80 bytes"),              # no text
    b"\x00", s(b"8 bits"), b"\xc0\x85",                             # -123
    b"\x00", s(b"16 bits"), b"\xc1\xd4\xfe",                        # -300
    b"\x00", s(b"32 bits"), b"\xc2\x70\x11\x01\x00",                # 70000
    b"\x00", s(b"64 bits"), s(b"9223372036854775807"),              # no short form: text
    b"\x00", b"\xc0\x07", s(b"a number as key"),
    b"\x00", s(b"14 bits of length"), b"\x40\x46" + b"-" * 70,
    b"\x00", s(b"compressed"), b"\xc3\x05\x40\x64" b"\x00a\xe0\x5a\x00",    # 5 bytes for 100: a, and 99 from one before
    b"\x01", s(b"queue"), b"\x04", s(b"one"), b"\xc0\x02", s(b"three"), s(b"one"),
    b"\x02", s(b"tags"), b"\x03", s(b"red"), s(b""), b"\xc0\x07",
    b"\x03", s(b"board"), b"\x06",
    s(b"ann"), b"\x031.5", s(b"bob"), b"\x013", s(b"cy"), b"\xff", s(b"dan"), b"\xfe",
    s(b"eve"), b"\x130.10000000000000001", b"\xc0\x07", b"\x07-1e+300",
    b"\x04", s(b"user"), b"\x02", s(b"name"), s(b"ann"), s(b"age"), b"\xc0\x2a",    # since 2.0
    b"\xfe\x03",                                                    # database 3
    b"\xfd\xff\xff\xff\x7f", b"\x00", s(b"session"), s(b"token"),   # the last second of 32 bits
    b"\xff",                                                        # the end: no checksum before version 5
]), {
    (0, b"greeting"): Key(b"hello"),
    (0, b"nothing"): Key(b""),
    (0, b"\x00\xff\r\n"): Key(b"\xfe\x80 bytes"),
    (0, b"8 bits"): Key(b"-123"),
    (0, b"16 bits"): Key(b"-300"),
    (0, b"32 bits"): Key(b"70000"),
    (0, b"64 bits"): Key(b"9223372036854775807"),
    (0, b"7"): Key(b"a number as key"),
    (0, b"14 bits of length"): Key(b"-" * 70),
    (0, b"compressed"): Key(b"a" * 100),
    (0, b"queue"): Key([b"one", b"2", b"three", b"one"]),
    (0, b"tags"): Key({b"red", b"", b"7"}),
    (0, b"board"): Key({b"ann": 1.5, b"bob": 3.0, b"cy": -inf, b"dan": inf, b"eve": 0.1, b"7": -1e300}),
    (0, b"user"): Key({b"name": b"ann", b"age": b"42"}),
    (3, b"session"): Key(b"token", deadline_ms=(2**31 - 1) * 1000),
}


# ---- version 2: Redis 2.4. Small collections are written as they lie in memory

DUMPS["redis-2.4-zipmap.rdb"] = b"".join([
    b"REDIS0002",
    b"\xfe\x00",
    b"\x09", s(b"zipmap"), s(
        b"\x04"                                                     # 4 fields
        b"\x04name" b"\x03\x00ann"                                  # value: length, free bytes, text
        b"\x03age" b"\x01\x02" b"9" b"00"                           # was 900 before: 2 free bytes
        b"\x05empty" b"\x00\x00"
        b"\x04long" b"\xfe\xfe\x00\x00\x00\x00" + b"x" * 254 +      # a length of 254 in 5 bytes
        b"\xff"),
    b"\x0a", s(b"ziplist"), s(ziplist(
        b"\x05hello",
        b"\xc0\x39\x30",                                            # 12345 in 16 bits
        b"\xc0\x00\x80",                                            # -32768
        b"\xd0\xa0\x86\x01\x00",                                    # 100000 in 32 bits
        b"\xe0\x00\x00\x00\x00\x00\x00\x00\x80",                    # -2**63 in 64 bits
        b"\x40\x46" + b"y" * 70,                                    # 14 bits of length
        b"\x40\xfb" + b"z" * 251,                                   # fills 254 bytes:
        b"\x05after",                                               # ... this one needs 5 bytes to say so
        b"\x00")),
    b"\x0b", s(b"intset 16"), s(b"\x02\x00\x00\x00" b"\x03\x00\x00\x00" b"\xff\xff" b"\x07\x00" b"\x2c\x01"),
    b"\xfd\xff\xff\xff\x7f",                                        # the last second of 32 bits
    b"\x0c", s(b"zset"), s(ziplist(                                 # by score
        b"\x03cyd", b"\x04-inf", b"\x03ann", b"\x031.5", b"\x03bob", b"\xc0\x03\x00",
        b"\xc0\x07\x00", b"\x12100.09999999999999", b"\x03dan", b"\x03inf")),
    b"\xff",
]), {
    (0, b"zipmap"): Key({b"name": b"ann", b"age": b"9", b"empty": b"", b"long": b"x" * 254}),
    (0, b"ziplist"): Key([b"hello", b"12345", b"-32768", b"100000", b"-9223372036854775808", b"y" * 70, b"z" * 251,
                          b"after", b""]),
    (0, b"intset 16"): Key({b"-1", b"7", b"300"}),
    (0, b"zset"): Key({b"cyd": -inf, b"ann": 1.5, b"bob": 3.0, b"7": 100.1, b"dan": inf}, (2**31 - 1) * 1000),
}


# ---- version 6: Redis 2.6 to 3.0. Milliseconds since 3, hashes as ziplists since 4, a checksum since 5, small numbers

DUMPS["redis-2.6-ziplists.rdb"] = summed(
    b"REDIS0006",
    b"\xfe\x00",
    b"\x0d", s(b"hash"), s(ziplist(
        b"\x04name", b"\x03ann",
        b"\x03age", b"\xfe\x2a",                                    # 42 in 8 bits
        b"\xf1", b"\xfd",                                           # 0 and 12 in the first byte
        b"\xfe\x80", b"\xf0\x00\x00\x80",                           # -128, and -2**23 in 24 bits
        b"\x05empty", b"\x00")),
    b"\xfc\x15\xcd\x5b\x07\xff\x01\x00\x00",                        # in ms
    b"\x0c", s(b"zset"), s(ziplist(
        b"\x03ann", b"\xf0\x40\xe2\x01",                            # 123456 in 24 bits
        b"\x03bob", b"\xe0\xff\xff\xff\xff\xff\xff\xff\x7f")),      # 2**63 - 1, and no double is just that
    b"\xfd\x00\x94\x35\x77",                                        # in s: a 2.6 writes ms, and reads both
    b"\x0a", s(b"list"), s(ziplist(b"\x03one", b"\xf3", b"\xfe\xff", b"\xf0\xff\xff\x7f", b"\xd0\xff\xff\xff\x7f")),
    b"\x0b", s(b"intset 32"), s(b"\x04\x00\x00\x00" b"\x02\x00\x00\x00" b"\x60\x79\xfe\xff" b"\x07\x00\x00\x00"),
    b"\x0b", s(b"intset 64"), s(b"\x08\x00\x00\x00" b"\x01\x00\x00\x00" b"\x00\x00\x00\x00\x00\x00\x00\x80"),
    b"\xff",
), {
    (0, b"hash"): Key({b"name": b"ann", b"age": b"42", b"0": b"12", b"-128": b"-8388608", b"empty": b""}),
    (0, b"zset"): Key({b"ann": 123456.0, b"bob": 2.0**63}, deadline_ms=0x1FF075BCD15),
    (0, b"list"): Key([b"one", b"2", b"-1", b"8388607", b"2147483647"], deadline_ms=2_000_000_000_000),
    (0, b"intset 32"): Key({b"-100000", b"7"}),
    (0, b"intset 64"): Key({b"-9223372036854775808"}),
}


# ---- version 7: Redis 3.2. Aux fields, the sizes of the tables, lists of several ziplists

DUMPS["redis-3.2-quicklist.rdb"] = b"".join([
    b"REDIS0007",
    b"\xfa", s(b"redis-ver"), s(b"3.2.13"),
    b"\xfa", s(b"redis-bits"), b"\xc0\x40",
    b"\xfa", s(b"ctime"), b"\xc2\x00\x2f\x68\x59",
    b"\xfa", s(b"used-mem"), b"\xc2\x50\x92\x0c\x00",
    b"\xfe\x00",
    b"\xfb\x02\x00",                                                # 2 keys, 0 with a deadline
    b"\x0e", s(b"quicklist"), b"\x02",
    s(ziplist(b"\x03one", b"\xf3")),
    b"\xc3\x14\x40\x72"                                             # 20 bytes for 114: a ziplist of one entry
    b"\x0d" b"\x72\x00\x00\x00" b"\x0a\x00\x00\x00" b"\x01\x00" b"\x00\x40\x64" b"a"      # 14 bytes as they are ...
    b"\xe0\x5a\x00"                                                 # ... 99 times the byte before ...
    b"\x00\xff",                                                    # ... 1 byte as it is
    b"\x03", s(b"board"), b"\x01", s(b"ann"), b"\x13" b"0.10000000000000001",             # still text
    b"\xff", bytes(8),                                              # rdbchecksum no
]), {
    (0, b"quicklist"): Key([b"one", b"2", b"a" * 100]),
    (0, b"board"): Key({b"ann": 0.1}),
}


# ---- version 9: Redis 5 to 6.2. Scores as doubles since 8, and what eviction wants to know

DUMPS["redis-5-lfu-lru.rdb"] = summed(
    b"REDIS0009",
    b"\xfa", s(b"redis-ver"), s(b"5.0.14"),
    b"\xfa", s(b"redis-bits"), b"\xc0\x40",
    b"\xfa", s(b"ctime"), b"\xc2\x00\x2f\x68\x5f",
    b"\xfa", s(b"used-mem"), b"\xc2\x50\x92\x0c\x00",
    b"\xfa", s(b"aof-preamble"), b"\xc0\x00",
    b"\xfe\x00",
    b"\xfb\x04\x01",
    b"\xfc\x15\xcd\x5b\x07\xff\x01\x00\x00", b"\xf8\x40\x64",       # 100 s idle
    b"\x05", s(b"zset"), b"\x04",
    s(b"dan"), b"\x00\x00\x00\x00\x00\x00\xf0\x7f", s(b"ann"), b"\x9a\x99\x99\x99\x99\x99\xb9\x3f",     # inf, 0.1
    s(b"eve"), b"\x00\x00\x00\x00\x00\x00\xf0\xbf", s(b"cy"), b"\x00\x00\x00\x00\x00\x00\xf0\xff",      # -1, -inf
    b"\xf8\x4e\x10",                                                # 3600 s idle
    b"\x0d", s(b"hash"), s(ziplist(b"\x04name", b"\x03ann")),
    b"\xf9\xff", b"\x0e", s(b"often"), b"\x01", s(ziplist(b"\xfb", b"\x03ten")),
    b"\xf9\x05", b"\x00", s(b"seldom"), s(b"used"),
    b"\xff",
), {
    (0, b"zset"): Key({b"dan": inf, b"ann": 0.1, b"eve": -1.0, b"cy": -inf}, 0x1FF075BCD15, idle_s=100),
    (0, b"hash"): Key({b"name": b"ann"}, idle_s=3600),
    (0, b"often"): Key([b"10", b"ten"], freq=255),
    (0, b"seldom"): Key(b"used", freq=5),
}


# ---- version 11: Redis 7.2, Valkey 7.2 to 8.1. Small sets as listpacks: each entry is followed by its own size

DUMPS["redis-7.2-set-listpack.rdb"] = summed(
    b"REDIS0011",
    b"\xfa", s(b"redis-ver"), s(b"7.2.5"),
    b"\xfa", s(b"redis-bits"), b"\xc0\x40",
    b"\xfa", s(b"ctime"), b"\xc2\x00\x2f\x68\x65",
    b"\xfa", s(b"used-mem"), b"\xc2\x50\x92\x0c\x00",
    b"\xfa", s(b"aof-base"), b"\xc0\x00",
    b"\xfe\x00",
    b"\xfb\x04\x00",
    b"\x14", s(b"set"), s(listpack(b"\x83red", b"\x07", b"\xc1\x2c", b"\x80")),             # 7; 300 in 13 bits; nothing
    b"\x10", s(b"hash"), s(listpack(b"\x84name", b"\x83ann", b"\x83age", b"\x2a")),
    b"\x11", s(b"zset"), s(listpack(b"\x83ann", b"\x831.5", b"\x83bob", b"\xdf\xff")),      # -1 in 13 bits
    b"\x12", s(b"list"), b"\x02", b"\x02", s(listpack(b"\x83one", b"\x02")), b"\x01", s(b"large"),   # packed, plain
    b"\xff",
), {
    (0, b"set"): Key({b"red", b"7", b"300", b""}),
    (0, b"hash"): Key({b"name": b"ann", b"age": b"42"}),
    (0, b"zset"): Key({b"ann": 1.5, b"bob": -1.0}),
    (0, b"list"): Key([b"one", b"2", b"large"]),
}


# ---- version 12: Redis 7.4, here of a cluster: what to expect of a slot

DUMPS["redis-7.4-slot-info.rdb"] = summed(
    b"REDIS0012",
    b"\xfa", s(b"redis-ver"), s(b"7.4.0"),
    b"\xfa", s(b"redis-bits"), b"\xc0\x40",
    b"\xfe\x00",
    b"\xfb\x02\x00",
    b"\xf4", b"\x53\xc5", b"\x01", b"\x00",                         # slot 5061: 1 key, 0 with a deadline
    b"\x00", s(b"bar"), s(b"in slot 5061"),
    b"\xf4", b"\x6f\x96", b"\x01", b"\x00",                         # slot 12182
    b"\x14", s(b"foo"), s(listpack(b"\x83red", b"\x07")),
    b"\xff",
), {
    (0, b"bar"): Key(b"in slot 5061"),
    (0, b"foo"): Key({b"red", b"7"}),
}


# ---- version 80: Valkey 9. Another magic; what to expect of a slot is an aux field again, and may stand among the keys

DUMPS["valkey-9.rdb"] = summed(
    b"VALKEY080",
    b"\xfa", s(b"valkey-ver"), s(b"9.0.0"),
    b"\xfa", s(b"redis-bits"), b"\xc0\x40",
    b"\xfa", s(b"ctime"), b"\xc2\x00\x2f\x68\x69",
    b"\xfa", s(b"used-mem"), b"\xc2\x50\x92\x0c\x00",
    b"\xfa", s(b"aof-base"), b"\xc0\x00",
    b"\xfe\x00",
    b"\xfb\x02\x01",
    b"\xfa", s(b"slot-info"), s(b"5061,1,0,0"),
    b"\x10", s(b"bar"), s(listpack(b"\x84name", b"\x83ann")),
    b"\xf4", b"\x6f\x96", b"\x01", b"\x01",                         # the opcode of Redis: Valkey reads it, too
    b"\xfc\x15\xcd\x5b\x07\xff\x01\x00\x00", b"\x00", s(b"foo"), s(b"in slot 12182"),
    b"\xff",
), {
    (0, b"bar"): Key({b"name": b"ann"}),
    (0, b"foo"): Key(b"in slot 12182", deadline_ms=0x1FF075BCD15),
}


if __name__ == "__main__":
    for name, (data, _) in DUMPS.items():
        (HERE / name).write_bytes(data)
