"""Chapter 07, RDB byte by byte: the judges of its exercises."""

from __future__ import annotations

import tracemalloc
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from kvref.config import Config
from kvref.lab.judging import Wrong, bounded, exercise, expect
from kvref.persistence import rdb
from kvref.persistence.crc64 import crc64
from kvref.persistence.cursor import Cursor, Unreadable
from kvref.sampling import Hash, Members
from kvref.sim import World
from kvref.skiplist import SortedSet

PLAIN = Config.load(directives=[("rdbcompression", "no")])
PACKED = Config()
MEMORY = 1_000_000


def first_difference(found: bytes, wanted: bytes) -> int:
    return next((at for at, pair in enumerate(zip(found, wanted)) if pair[0] != pair[1]), min(len(found), len(wanted)))


@contextmanager
def trying(what: str) -> Iterator[None]:
    """As `bounded`; an error of the solution tells at what it happened."""
    try:
        with bounded(what):
            yield
    except (Wrong, NotImplementedError):
        raise
    except Unreadable as error:
        error.what += f" ({what})"
        raise
    except Exception as error:
        error.args = (f"{error} ({what})",)
        raise


def refuses(what: str, attempt: Callable[[], Any], memory: int | None = None) -> None:
    """It has to raise ValueError, and needs no more memory than these bytes."""
    if memory:
        tracemalloc.start()
    try:
        with bounded(what):
            found = attempt()
    except ValueError:
        if memory and tracemalloc.get_traced_memory()[1] > memory:
            raise Wrong(f"{what} It should not ask for memory for what is not there.") from None
        return
    except (Wrong, NotImplementedError):
        raise
    except Exception as error:
        raise Wrong(f"{what} It should raise ValueError, and it raised {type(error).__name__}.") from None
    finally:
        if memory:
            tracemalloc.stop()
    raise Wrong(f"{what} It should raise ValueError, and it returned {short(found)}.")


def short(found: Any) -> str:
    """To be shown: what is long is cut."""
    if isinstance(found, (tuple, list)):
        items = ", ".join([short(item) for item in found[:8]] + ["..."] * (len(found) > 8))
        return f"({items})" if isinstance(found, tuple) else f"[{items}]"
    text = repr(found)
    return text if len(text) <= 60 else f"{text[:40]}..." + (f" ({len(found):,} bytes)" if isinstance(found, bytes) else "")


# ---- 1

KEYS = ((b"k", b"hi"), (b"n", b"300"), (b"7", b"seven"))


@exercise("07-1", "Each begins with the type byte of a string, 00. Then the key, then the value, each with a length in front. h is 68 in hex.",
          "300 is an integer of two bytes: c1, then the low byte first. 300 = 1 x 256 + 44.",
          "A key is a text like any other: the key 7 is written as an integer of one byte, c0 07.")
def by_hand(solution: Any) -> None:
    """Against: a file holds texts as they were sent."""
    texts = list(solution())
    if len(texts) != len(KEYS) or not all(isinstance(text, str) for text in texts):
        raise Wrong("It should return three texts in hex.")
    for text, (key, value) in zip(texts, KEYS):
        name = f"SET {key.decode()} {value.decode()}"
        try:
            found = bytes.fromhex(text)
        except ValueError:
            raise Wrong(f"{name}: {text!r} is no text in hex, such as '00 01 6b'.") from None
        wanted = b"\0" + rdb.string(key, True) + rdb.string(value, True)
        if found != wanted:
            at = first_difference(found, wanted)
            right = f"{found[:at].hex(' ')} is right" if at else "nothing is right yet"
            raise Wrong(f"{name}: {right}, " + ("and more should follow." if at == len(found) else "and nothing should follow." if at == len(wanted) else
                                                f"and {found[at]:02x} should not follow." if at else f"{found[at]:02x} is no type byte of a string."))


# ---- 2

TEXTS = (b"", b"k", b"x" * 63, b"x" * 64, b"y" * 300, b"z" * 16_383, b"z" * 16_384, b"\xc0\xff\x00", b"0", b"-1", b"127", b"-128", b"128", b"-129",
         b"12345", b"-32768", b"40000", b"2147483647", b"-2147483648", b"2147483648", b"012345")


def called(text: bytes, data: bytes) -> str:
    return f"A text of {len(text)} bytes, written as {data[:12].hex(' ')}{' ..' * (len(data) > 12)}"


@exercise("07-2", "Look at the two high bits of the first byte. For 11 the low six say what follows: 0, 1, 2 for an integer of 1, 2, 4 bytes.",
          "Lengths have the high byte first, integers the low byte first, and integers have a sign: int.from_bytes(..., 'little', signed=True).",
          "A slice never complains. Compare: if at + count > len(data), raise ValueError. Do it in one helper that takes `count` bytes.")
def one_text(solution: Any) -> None:
    """Against: a length may be believed."""
    for text in TEXTS:
        for before, behind in ((b"", b""), (b"\0\x01k", b"\xff\xff")):
            data = rdb.string(text, False)
            with trying(called(text, data)):
                found = solution(before + data + behind, len(before))
            wanted = text, len(before) + len(data)
            if found != wanted:
                raise Wrong(f"{called(text, data)}, at offset {len(before)}: it returned {short(found)}, and not {short(wanted)}.")
    expect(solution, b"\x80\0\0\0\x02hi", 0, wants=(b"hi", 7))
    expect(solution, b"\x81\0\0\0\0\0\0\0\x02hi", 0, wants=(b"hi", 11))
    for text in TEXTS:
        data = rdb.string(text, False)
        for end in sorted({*range(min(len(data), 12)), len(data) - 1}):
            refuses(f"{called(text, data)}, cut after {end} bytes.", lambda cut=data[:end]: solution(cut, 0))
    for claim in (b"\x7f\xff", b"\x80\x04\0\0\0", b"\x80\xff\xff\xff\xff", b"\x81" + (2**60).to_bytes(8, "big")):
        refuses(f"{claim.hex(' ')} claims a long text, and two bytes follow.", lambda data=claim + b"hi": solution(data, 0), MEMORY)
    for first in (0x82, 0xBF, 0xC4, 0xFF):
        refuses(f"{first:02x} begins no text.", lambda data=bytes([first]) + bytes(40): solution(data, 0))


# ---- 3

ENTRIES = [
    (0, b"name", b"Ann", None), (0, b"7", b"2147483647", None), (0, b"", b"", 1_700_000_000_123), (0, b"long", b"x" * 20_000, None),
    (0, b"\xff\xfe", b"\xfa\xfb\xfc", None), (3, b"name", b"Bob", -5), (3, b"n", b"-129", 2**50), (15, b"k" * 64, b"v" * 63, None)]


def closed(data: bytes) -> bytes:
    return data + crc64(data).to_bytes(8, "little")


def written(entries: list[Any]) -> bytes:
    disk = World(seed=1).disk
    rdb.dump("/data/dump.rdb", entries, PLAIN, disk)
    return disk.content("/data/dump.rdb")


OLD = (b"REDIS0009\xfa\x05\xc0\x07\xc1\x00\x01" b"\xfa\x03old\x00" b"\xfe\x02\xfb\x03\x01" b"\xf8\x41\x00\x00\x01a\x011" b"\xfd\x00\xf1\x53\x65\xf9\x05\x00\x01b\x012"
       b"\x00\x01c\x80\x00\x00\x00\x013" b"\xff")
OLD_ENTRIES = [(2, b"a", b"1", None), (2, b"b", b"2", 1_700_000_000_000), (2, b"c", b"3", None)]


@exercise("07-3", "Nine bytes, then a loop: one byte says what follows. Seven opcodes are passed over or remembered, 00 is a key and its value, ff is the end.",
          "A deadline belongs to the next key only: forget it when you have yielded. fc is 8 bytes, fd is 4 bytes of seconds, low byte first, signed.",
          "if crc64(data[:-8]).to_bytes(8, 'little') != data[-8:] and data[-8:] != bytes(8): raise ValueError. Do that first, and make every cut a ValueError, too.")
def read_dump(solution: Any) -> None:
    """Against: what can be read is not damaged."""
    whole = written(ENTRIES)
    cases = (("three databases", whole, ENTRIES), ("no key", written([]), []), ("an old file, with fd, f8 and f9", closed(OLD.replace(b"\xc0\x07", b"seven")), OLD_ENTRIES),
             ("an old file whose notes hold integers", closed(OLD.replace(b"\xfa\x05\xc0\x07", b"\xfa\xc0\x07")), OLD_ENTRIES),
             ("no checksum, but eight zeros", whole[:-8] + bytes(8), ENTRIES))
    for what, data, wanted in cases:
        with trying(what):
            found = [tuple(entry) for entry in solution(data)]
        if found != wanted:
            at = next((number for number, pair in enumerate(zip(found, wanted)) if pair[0] != pair[1]), min(len(found), len(wanted)))
            here, there = (short(entries[at]) if at < len(entries) else "nothing" for entries in (found, wanted))
            raise Wrong(f"{what}: entry {at} is {here}, and should be {there}.")
    small = written(ENTRIES[:3])
    for at in range(len(small)):
        damaged = bytearray(small)
        damaged[at] ^= 4
        refuses(f"Byte {at} of {len(small)} is wrong.", lambda data=bytes(damaged): list(solution(data)))
        refuses(f"The file is cut after {at} of {len(small)} bytes.", lambda data=small[:at]: list(solution(data)))
    for end in range(9, len(small) - 9):
        for data, last in ((small[:end] + bytes(8), "eight zeros"), (closed(small[:end]), "a checksum that is right")):
            refuses(f"The file is cut after {end} bytes, and {last} follow{'s' * (last[0] == 'a')}.", lambda data=data: list(solution(data)))
    for body, what in ((b"\x01\x01k\x01\x01a\xff", "01, a list, is no string."), (b"\x00\x01k\x81" + (2**60).to_bytes(8, "big") + b"v\xff", "A value claims 2**60 bytes."),
                       (b"\x00\x01k\xc3\x09\x40\x64\x01\x61\x61\xe0\x57\x00\x01\x61\x61\xff", "A value is compressed.")):
        refuses(what, lambda data=closed(b"REDIS0010" + body): list(solution(data)))


# ---- 4

KIND = 200


@contextmanager
def installed(save: Any, load: Any) -> Iterator[None]:
    """kvref, with another type byte."""
    plain = rdb.save_value
    rdb.save_value, rdb.TYPES[KIND] = save, ("set in bits", load)
    try:
        yield
    finally:
        rdb.save_value = plain
        del rdb.TYPES[KIND]


def members(*what: Any) -> Members:
    return Members.fromkeys(item if isinstance(item, bytes) else b"%d" % item for item in what)


SETS = {
    "the ids 0 to 999": members(*range(1000)), "the ids 0 to 1999, more than an intset may have": members(*range(2000)),
    "-500 to 99": members(*range(-500, 100)), "every third number from 10**9 on": members(*range(10**9, 10**9 + 3000, 3)),
    "the numbers at the end of 64 bits": members(*range(2**63 - 300, 2**63)), "{5}": members(5), "0 and 10**12": members(0, 10**12),
    "the smallest and the largest integer": members(-2**63, 2**63 - 1), "500 and no others up to 10,000, in steps of 100": members(*range(500, 10_000, 100)),
    "numbers and a word": members(*range(300), b"word"), "7 and 007": members(*range(300), b"007"), "'+5' and numbers": members(*range(300), b"+5"),
    "2**63, which needs 65 bits, and numbers": members(*range(300), b"9223372036854775808"), "0 and 80": members(0, 80), "1 to 30": members(*range(1, 31))}
SHORTER = "the ids 0 to 999", "-500 to 99", "every third number from 10**9 on", "1 to 30"       # in bits, whatever stands before these


def others() -> dict[str, Any]:
    scores = SortedSet.from_pairs((b"m%d" % number, float(number)) for number in range(200))
    return {"a string": b"12345", "a list": deque([b"1", b"2"]), "a hash": Hash({b"%d" % n: b"%d" % n for n in range(600)}), "a sorted set": scores}


def flat(save: Any, value: Any) -> tuple[int, bytes]:
    kind, pieces = save(value, PACKED)
    return kind, b"".join(pieces)


def still_right(save: Any, load: Any) -> None:
    for name, value in (SETS | others()).items():
        plain_kind, plain = flat(rdb.save_value, value)
        with trying(f"writing {name}"):
            kind, data = flat(save, value)
        if (kind, data) == (plain_kind, plain):
            if name in SHORTER:
                raise Wrong(f"{name}: bits would be shorter than these {len(data)} bytes. (They need not begin at 0.)")
        else:
            if name in others():
                raise Wrong(f"{name} is written in other bytes than before.")
            if kind == plain_kind:
                raise Wrong(f"{name}: with type byte {kind} it should be kvref's {len(plain)} bytes, not these {len(data)}. (The pieces come only once.)")
            if kind != KIND:
                raise Wrong(f"{name}: the type byte is {kind}, and should be {plain_kind}, or {KIND} for bits.")
            if len(data) >= len(plain):
                raise Wrong(f"{name}: {len(data)} bytes with your form, {len(plain)} with kvref's. Then kvref's should be written.")
            cursor = Cursor(data + b"rest")
            with trying(f"reading {name}"):
                found = load(cursor)
            if type(found) is not Members or found != value:
                raise Wrong(f"{name}: what was read back is not what was written, but {str(found)[:60]}.")
            if cursor.left != 4:
                raise Wrong(f"{name}: {cursor.left} bytes were left to be read, and 4 of them are those of the next key.")
    kind, data = flat(save, SETS["the ids 0 to 999"])
    if kind != KIND or len(data) > 150:
        raise Wrong(f"The ids 0 to 999 took {len(data)} bytes with type byte {kind}. 125 are needed for the bits.")


def in_the_server(save: Any, load: Any) -> None:
    world = World(seed=1)
    world.start(enable_debug_command="yes")
    alice = world.connect("alice")
    alice("SADD", "ids", *range(700))
    alice("SADD", "tags", "red", "blue")
    alice("SET", "name", "Ann")
    before, payload = alice("DEBUG", "DIGEST"), alice("DUMP", "ids")
    alice("SAVE")
    world.kill()
    world.start(enable_debug_command="yes")
    alice = world.connect("alice")
    if alice("DEBUG", "DIGEST") != before:
        raise Wrong("The server saved, was started again, and holds something else than before.")
    alice("RESTORE", "copy", 0, payload)
    if payload[0] != KIND or alice("SDIFF", "ids", "copy") or alice("SCARD", "copy") != 700:
        raise Wrong("DUMP and RESTORE do not give back the same set.")


def hostile(load: Any, data: bytes, what: str) -> None:
    try:
        with bounded(what):
            found = load(Cursor(data))
    except Unreadable:
        return
    except (Wrong, NotImplementedError):
        raise
    except Exception as error:
        raise Wrong(f"{what}: {type(error).__name__}, and not Unreadable: {error}") from None
    if len(found) > 1000 * len(data):
        raise Wrong(f"{what}: {len(data)} bytes have become {len(found):,} members.")


@exercise("07-4", "Write the lowest member, then a text in which bit n stands for lowest + n. rdb.string writes both, cursor.string reads both.",
          "Only if parse_int (kvref.numbers) finds a number in every member, and the highest is not too far from the lowest. Compare lengths, and return what is shorter.",
          "Reading: low = parse_int(cursor.string('lowest')); None is a reason for cursor.fail. bits = cursor.string('bits'). "
          "Then Members.fromkeys(b'%d' % (low + n) for n in range(8 * len(bits)) if bits[n // 8] >> n % 8 & 1).")
def bits(solution: Any) -> None:
    """Against: what I have written myself I can trust when I read it."""
    if not isinstance(solution, tuple) or len(solution) != 2 or not all(map(callable, solution)):
        raise Wrong("It takes two functions.")
    save, load = solution
    still_right(save, load)
    with installed(save, load):
        in_the_server(save, load)
    _, data = flat(save, SETS["-500 to 99"])
    for end in range(len(data)):
        hostile(load, data[:end], f"A set that is cut after {end} of {len(data)} bytes")
    for at in range(len(data)):
        for change in (1, 2, 4, 8, 16, 32, 64, 128, 255):
            hostile(load, data[:at] + bytes([data[at] ^ change]) + data[at + 1:], f"A set with byte {at} changed")
    for start in (b"", b"\x81" + (2**60).to_bytes(8, "big"), b"\x80\xff\xff\xff\xff", b"\xc3\x05\x41\x00\x01\0\0\xe0\xff\0", b"\x03abc", data[:3]):
        hostile(load, start + b"\x81" + (2**60).to_bytes(8, "big") + b"\x03abc", "Bytes that claim far too much")
