"""The format of dump.rdb: a keyspace as bytes.

    REDIS0010                                       magic and version
    FA name value                                   what wrote it, when (aux fields)
    FE number   FB keys deadlines                   a database, and how large its tables will be
      [FC 8 bytes | FD 4 bytes]                     the deadline of the next key, in ms or s
      [F8 length | F9 1 byte]                       for eviction: s since its last use, or how often it is used
      type key value                                a byte, a string, and what the type makes of it
    FF 8 bytes                                      the end, and the CRC-64 of all before

Interface:
  - Reader(cursor)              iterates (database, key, value, deadline in ms or None); aux, version, warnings
  - TYPES                       type byte -> what it is called, and its decoder
  - blocks(databases, config)   the bytes of a dump, a block at a time
  - save_value, load_value      a value with its type: DUMP and RESTORE
  - load(path), dump(path, entries)     the same for files, without a server

Numbers, strings and lengths are `cursor.Cursor`'s. Version 10 is written: Redis 7.0 wrote it, and later ones read it.
Read are versions 1 to 12 of Redis, and 11 and 80 of Valkey. Encodings that are no longer written are in legacy.py.

Redis: rdb.c, rdb.h. Simpler here: no streams, modules, functions; a file with one of those is refused.
"""

from __future__ import annotations

import math
import re
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, zip_longest
from typing import TYPE_CHECKING, Any, Final

from kvref.command_table import REDIS_VERSION
from kvref.config import Config
from kvref.database import Database
from kvref.numbers import format_double, parse_double, parse_int
from kvref.persistence.crc64 import Checksum
from kvref.persistence.cursor import Cursor, Unreadable
from kvref.persistence.encodings import entry, intset, listpack, read_intset, read_listpack
from kvref.persistence.legacy import LEGACY
from kvref.persistence.lzf import compress
from kvref.sampling import Hash, Members
from kvref.skiplist import SortedSet
from kvref.values import encoding

if TYPE_CHECKING:
    from kvref.ports import Disk, File

VERSION: Final = 10
BLOCK: Final = 1 << 18                      # bytes that are gathered before they are handed on
KEYS_A_BLOCK: Final = 4096
AUX, RESIZEDB, EXPIRE_MS, EXPIRE_S, SELECTDB, EOF = 0xFA, 0xFB, 0xFC, 0xFD, 0xFE, 0xFF
SLOT_INFO, IDLE, FREQ = 0xF4, 0xF8, 0xF9
PAIR_MAX: Final = 2 + 63 + 1 + 63           # bytes of a key and a string of up to 63 bytes each
NUMBER_MAX: Final = 11                      # characters of a 32-bit integer
COMPRESS_MIN: Final = 21                    # bytes of a string for which compression is tried

Entry = tuple[int, bytes, Any, int | None]  # database, key, value, deadline in ms


# ---- reading values ------------------------------------------------------------------------------

def _strings(cursor: Cursor, meaning: str) -> Iterator[bytes]:
    """A count, and so many strings. The count is not believed: the strings must be there."""
    for _ in range(cursor.length(f"number of {meaning}s")):
        yield cursor.string(meaning)


def _hash(cursor: Cursor, texts: Iterable[bytes]) -> Hash:
    """Fields and values, in turn."""
    fresh, texts = Hash(), iter(texts)
    for field in texts:
        value = next(texts, None)
        if value is None or field in fresh:
            raise cursor.fail("a field without a value" if value is None else f"the field {field[:64]!r} stands twice")
        fresh[field] = value
    return fresh


def _set(cursor: Cursor, texts: Iterable[bytes]) -> Members:
    fresh = Members()
    for member in texts:
        if member in fresh:
            raise cursor.fail(f"the member {member[:64]!r} stands twice")
        fresh[member] = None
    return fresh


def _sorted_set(cursor: Cursor, pairs: Iterable[tuple[bytes, float | None]]) -> SortedSet:
    found: dict[bytes, float] = {}
    for member, score in pairs:
        if score is None or math.isnan(score) or member in found:
            raise cursor.fail(f"the member {member[:64]!r} " + ("stands twice" if member in found else "has no score"))
        found[member] = score
    return SortedSet.from_pairs(found.items())


def _listpack(cursor: Cursor) -> Iterator[bytes]:
    return read_listpack(cursor.inside(cursor.string("listpack")))


def _pairs(texts: Iterator[bytes]) -> Iterator[tuple[bytes, float | None]]:
    in_turn = zip_longest(texts, texts, fillvalue=b"")  # a member without a score is found out by its score
    return ((member, parse_double(score)) for member, score in in_turn)


def _read_hash(cursor: Cursor) -> Hash:
    count = cursor.length("number of fields")
    return _hash(cursor, (cursor.string(meaning) for _ in range(count) for meaning in ("field", "value")))


def _read_sorted_set(cursor: Cursor) -> SortedSet:
    count = cursor.length("number of members")
    return _sorted_set(cursor, ((cursor.string("member"), cursor.double("score")) for _ in range(count)))


def _read_quicklist(cursor: Cursor) -> deque[bytes]:
    """Nodes: a listpack, or one large element that stands for itself."""
    found: deque[bytes] = deque()
    for _ in range(cursor.length("number of nodes")):
        container = cursor.length("container: 1 plain, 2 packed")
        if container not in (1, 2):
            raise cursor.fail(f"a node of a list has the unknown container {container}")
        found.extend(_listpack(cursor) if container == 2 else [cursor.string("element")])
        if container == 1 and not found[-1]:
            raise cursor.fail("a node of a list is a large element, and holds nothing")
    return found


Decoder = Callable[[Cursor], Any]

TYPES: Final[dict[int, tuple[str, Decoder]]] = {
    0: ("string", lambda cursor: cursor.string("value")),
    1: ("list", lambda cursor: deque(_strings(cursor, "element"))),
    2: ("set", lambda cursor: _set(cursor, _strings(cursor, "member"))),
    4: ("hash", _read_hash),
    5: ("zset, scores as doubles", _read_sorted_set),
    11: ("set as intset", lambda cursor: _set(cursor, read_intset(cursor.inside(cursor.string("intset"))))),
    16: ("hash as listpack", lambda cursor: _hash(cursor, _listpack(cursor))),
    17: ("zset as listpack", lambda cursor: _sorted_set(cursor, _pairs(_listpack(cursor)))),
    18: ("list as quicklist of listpacks", _read_quicklist),
    20: ("set as listpack", lambda cursor: _set(cursor, _listpack(cursor))),
    **LEGACY,
}
NOT_HELD: Final = {                         # types and opcodes
    **dict.fromkeys((6, 7), "a value of a module"), **dict.fromkeys((15, 19, 21), "a stream"),
    **dict.fromkeys((22, 23, 24, 25), "a hash with deadlines of fields"),
    0xF5: "functions", 0xF6: "functions", 0xF7: "data of a module",
}


# ---- reading a file ------------------------------------------------------------------------------

MAGIC: Final = re.compile(rb"REDIS(\d{4})|VALKEY(\d{3})")
READABLE: Final = {*range(1, 13), 80}


class Reader:
    """The entries of a dump, in the order of the file. Unreadable where it cannot be read on."""

    def __init__(self, cursor: Cursor, checksum: Checksum | None = None, alone: bool = True) -> None:
        """`checksum`: of what the cursor has passed, to be compared with the file's. `alone`: nothing is to follow."""
        self.cursor, self.checksum, self.alone = cursor, checksum, alone
        self.version = 0
        self.aux: dict[str, bytes] = {}
        self.warnings: list[str] = []
        self.empty_keys = 0                 # passed over, as Redis does: no key holds an empty collection
        self.expected: dict[int, tuple[int, int]] = {}      # database -> keys and deadlines, as announced
        self.idle_s: int | None = None      # what the file says of the last entry, for eviction
        self.freq: int | None = None
        self._db = 0
        self._deadline: int | None = None

    def __iter__(self) -> Iterator[Entry]:
        cursor = self.cursor
        plain = type(cursor) is Cursor      # nobody wants to know what each byte means
        self._header()
        while True:
            if plain and self._deadline is self.idle_s is self.freq is None:
                # the usual case without a call: strings, of which nothing more has been said, all below 64 bytes
                data, at, db = cursor.data, cursor.at, self._db
                last = len(data) - PAIR_MAX
                while at < last and not data[at] and data[at + 1] < 64:
                    middle = at + 2 + data[at + 1]
                    size = data[middle]
                    if size > 63:
                        break
                    key = data[at + 2:middle]
                    cursor.at = at = middle + 1 + size
                    yield db, key, data[middle + 1:at], None
            cursor.begin()
            kind = cursor.byte("type or opcode")
            if kind in TYPES:
                yield from self._entry(kind)
            elif kind == EOF:
                return self._end()
            elif kind in OPCODES:
                name, follow = OPCODES[kind]
                follow(self)
                cursor.end(name)
            else:
                what = NOT_HELD.get(kind)
                raise cursor.fail(f"the file holds {what}, for which kvref has no place" if what
                                  else f"{kind:#04x} is no type of value", cursor.offset - 1)

    def _header(self) -> None:
        cursor = self.cursor
        cursor.fill(min(9, cursor.left))
        found = MAGIC.match(cursor.data[cursor.at:cursor.at + 9])
        version = int(found[1] or found[2]) if found else 0
        if not found or version not in READABLE:
            raise cursor.fail(f"version {version} is none that kvref reads: 1 to 12, and Valkey's 80" if found else
                              "this is no RDB file: it does not begin with REDIS or VALKEY and a version")
        cursor.take(9, "magic and version")
        self.version = version

    def _entry(self, kind: int) -> Iterator[Entry]:
        name, decode = TYPES[kind]
        cursor = self.cursor
        key = cursor.string("key")
        try:
            value = decode(cursor)
        except Unreadable as error:
            error.key = key
            raise
        cursor.end(name)
        deadline, self._deadline = self._deadline, None
        if len(value) or kind == 0:
            yield self._db, key, value, deadline
        else:
            self.empty_keys += 1
        self.idle_s = self.freq = None

    def _end(self) -> None:
        """Redis 2.6, which wrote version 6, and all later ones close with a checksum; 0 where that is switched off."""
        cursor = self.cursor
        if self.version >= 5:
            cursor.forget()
            found = self.checksum.value() if self.checksum else None
            stored = cursor.number(8, "CRC-64 of all before")
            switched_off = stored == 0 and (cursor.left == 0 or not self.alone)
            if found is not None and found != stored and not switched_off:
                raise cursor.fail(f"the checksum is {found:016x}, and should be {stored:016x}: the file is damaged",
                                  cursor.offset - 8)
        cursor.end("end of file")
        if self.alone and cursor.left:
            self.warnings.append(f"{cursor.left} bytes behind the end of the file were not looked at")

    # opcodes: what stands between the values

    def _select(self) -> None:
        self._db = self.cursor.length("number of the database")

    def _resize(self) -> None:
        self.expected[self._db] = self.cursor.length("number of keys"), self.cursor.length("number of deadlines")

    def _aux(self) -> None:
        name = self.cursor.string("name")
        self.aux[name.decode("latin-1")] = self.cursor.string("value")

    def _expire(self, size: int, unit_ms: int) -> None:
        meaning = "deadline, ms since 1970" if unit_ms == 1 else "deadline, s since 1970"
        self._deadline = self.cursor.number(size, meaning, signed=True) * unit_ms

    def _idle(self) -> None:
        self.idle_s = self.cursor.length("seconds since the last use")

    def _freq(self) -> None:
        self.freq = self.cursor.byte("counter of uses")

    def _slots(self, numbers: int) -> None:
        for _ in range(numbers):
            self.cursor.length("about a slot of a cluster")


OPCODES: Final[dict[int, tuple[str, Callable[[Reader], None]]]] = {
    SELECTDB: ("SELECTDB", Reader._select),
    RESIZEDB: ("RESIZEDB", Reader._resize),
    AUX: ("AUX", Reader._aux),
    EXPIRE_MS: ("EXPIRETIME_MS", lambda reader: reader._expire(8, 1)),
    EXPIRE_S: ("EXPIRETIME", lambda reader: reader._expire(4, 1000)),
    IDLE: ("IDLE", Reader._idle),
    FREQ: ("FREQ", Reader._freq),
    SLOT_INFO: ("SLOT_INFO", lambda reader: reader._slots(3)),
}


# ---- writing values ------------------------------------------------------------------------------

HEADS: Final = tuple(bytes([length]) for length in range(64))
STRING_HEADS: Final = tuple(b"\0" + head for head in HEADS)     # of a key whose value is a string


def length(number: int) -> bytes:
    """See the table in cursor.py."""
    if number < 64:
        return HEADS[number]
    if number < 1 << 14:
        return (1 << 14 | number).to_bytes(2, "big")
    if number < 1 << 32:
        return b"\x80" + number.to_bytes(4, "big")
    return b"\x81" + number.to_bytes(8, "big")


def string(text: bytes, compressed: bool) -> bytes:
    """A text in the shortest form that Redis knows. Redis: rdbSaveRawString."""
    size = len(text)
    if size <= NUMBER_MAX:
        number = parse_int(text)
        if number is not None:
            for kind, width in enumerate((1, 2, 4)):
                if -1 << 8 * width - 1 <= number < 1 << 8 * width - 1:
                    return bytes([0xC0 | kind]) + number.to_bytes(width, "little", signed=True)
    elif compressed and size >= COMPRESS_MIN:
        packed = compress(text)
        if packed is not None:
            return b"\xc3" + length(len(packed)) + length(size) + packed
    return length(size) + text


def _save_list(value: deque[bytes], config: Config) -> Iterator[bytes]:
    nodes = [string(listpack(node), config.rdbcompression) for node in _nodes(value, config.list_max_listpack_size)]
    yield length(len(nodes))                # it comes first: so the list waits, but as short as it will be in the file
    for node in nodes:
        yield b"\x02" + node


NODE_BYTES: Final = {-1: 4096, -2: 8192, -3: 16384, -4: 32768, -5: 65536}
NODE_SAFE: Final = 8192                     # bytes, where the directive counts elements
MEMBERS_A_TIME: Final = 1024                # of a sorted set that are looked up at once
ENTRY_GUESS: Final = 8                      # what an element is reckoned to need besides its text


def _nodes(value: Iterable[bytes], fill: int) -> Iterator[list[bytes]]:
    """The elements as entries, cut into nodes as if they were pushed one by one. Redis: _quicklistNodeAllowInsert."""
    node: list[bytes] = []
    size = 7                                # head and end of an empty listpack
    most = NODE_BYTES.get(max(fill, -5), NODE_SAFE)
    for text in value:
        guess = size + len(text) + ENTRY_GUESS
        if node and (guess > most or fill >= 0 and len(node) >= max(fill, 1)):
            yield node
            node, size = [], 7
        node.append(entry(text))
        size += len(node[-1])
    yield node


def _packed(texts: Iterable[bytes], config: Config) -> Iterator[bytes]:
    yield string(listpack([entry(text) for text in texts]), config.rdbcompression)


def _flat(texts: Iterable[bytes], count: int, config: Config) -> Iterator[bytes]:
    yield length(count)
    for text in texts:
        yield string(text, config.rdbcompression)


def _save_intset(value: Members, config: Config) -> Iterator[bytes]:
    yield string(intset(sorted(map(int, value))), config.rdbcompression)


def _save_sorted_set(value: SortedSet, config: Config) -> Iterator[bytes]:
    """The largest first: quick for Redis to insert."""
    end = len(value)
    yield length(end)
    for start in range(0, end, MEMBERS_A_TIME):
        for member, score in value.by_rank(start, min(start + MEMBERS_A_TIME, end) - 1, reverse=True):
            yield string(member, config.rdbcompression) + struct.pack("<d", score)


def _score(score: float) -> bytes:
    """As a small sorted set keeps it: an integer where it is one, up to half of the largest. Redis: double2ll."""
    return b"%d" % score if score.is_integer() and abs(score) <= 2**62 else format_double(score)


Saver = Callable[[Any, Config], Iterator[bytes]]

SAVERS: Final[dict[tuple[type, str], tuple[int, Saver]]] = {      # (Python type, encoding) -> type byte, how
    (deque, "quicklist"): (18, _save_list),
    (Members, "intset"): (11, _save_intset),
    (Members, "hashtable"): (2, lambda value, config: _flat(value, len(value), config)),
    (Hash, "listpack"): (16, lambda value, config: _packed(_in_turn(value.items()), config)),
    (Hash, "hashtable"): (4, lambda value, config: _flat(_in_turn(value.items()), len(value), config)),
    (SortedSet, "listpack"): (17, lambda value, config: _packed(
        _in_turn((member, _score(score)) for member, score in value.by_rank(0, len(value) - 1)), config)),
    (SortedSet, "skiplist"): (5, _save_sorted_set),
}


def _in_turn(pairs: Iterable[tuple[bytes, bytes]]) -> Iterator[bytes]:
    return (text for pair in pairs for text in pair)


def save_value(value: Any, config: Config) -> tuple[int, Iterator[bytes]]:
    """(type byte, the bytes of the value in pieces), in the encoding that Redis has for it under these directives."""
    if type(value) is bytes:
        return 0, iter((string(value, config.rdbcompression),))
    kind, save = SAVERS[type(value), encoding(value, config)]
    return kind, save(value, config)


def load_value(cursor: Cursor) -> Any:
    """The value of a type byte and what follows it. Unreadable, also for an empty collection."""
    kind = cursor.byte("type")
    if kind not in TYPES:
        raise cursor.fail(f"{NOT_HELD.get(kind, 'no type')} ({kind:#04x})")
    value = TYPES[kind][1](cursor)
    if not len(value) and kind:
        raise cursor.fail("an empty collection")
    return value


# ---- writing a file ------------------------------------------------------------------------------

Uses = Callable[[Database, bytes], tuple[str, int]]     # of a key: ("idle", seconds) or ("frequency", counter)


def blocks(databases: Sequence[Database], config: Config, now_s: int = 0, memory: int = 0,
           base: bool = False, uses: Uses | None = None) -> Iterator[bytes]:
    """The bytes of a dump. `now_s`, `memory`: what to note of time and memory; `base`: a log will follow it; `uses`:
    what to note of each key for eviction."""
    checksum = Checksum()
    parts, size = [b"REDIS%04d" % VERSION], 0
    fields = (b"redis-ver", REDIS_VERSION.encode()), (b"redis-bits", b"64"), (b"ctime", b"%d" % now_s), (
        b"used-mem", b"%d" % memory), (b"aof-base", b"%d" % base)
    parts += [b"\xfa" + string(name, False) + string(text, config.rdbcompression) for name, text in fields]
    for database in databases:
        if not database:
            continue
        parts.append(b"\xfe" + length(database.index) + b"\xfb" + length(len(database))
                     + length(len(database.deadlines)))
        for piece in _entries(database, config, uses):
            parts.append(piece)
            size += len(piece)
            if size > BLOCK:
                block = b"".join(parts)
                checksum.update(block)
                yield block
                parts, size = [], 0
    block = b"".join([*parts, b"\xff"])
    checksum.update(block)
    yield block + (checksum.value() if config.rdbchecksum else 0).to_bytes(8, "little")


def _entries(database: Database, config: Config, uses: Uses | None) -> Iterator[bytes]:
    """The entries of a database in pieces: many small strings together, a large value by itself."""
    deadlines, compressed = database.deadlines, config.rdbcompression
    entries = iter(database.values.items())
    while chunk := list(islice(entries, KEYS_A_BLOCK)):
        parts: list[bytes] = []
        add, size = parts.append, 0
        for key, value in chunk:
            if size > BLOCK:
                yield b"".join(parts)
                parts.clear()
                size = 0
            if deadlines and key in deadlines:
                add(b"\xfc" + deadlines[key].to_bytes(8, "little", signed=True))
            if uses:
                what, number = uses(database, key)
                add(b"\xf8" + length(number) if what == "idle" else b"\xf9%c" % number)
            if type(value) is bytes:
                here, there = len(key), len(value)
                # the usual case without a call: neither empty nor long, and no number (that ends with a digit)
                if 0 < here < COMPRESS_MIN and 0 < there < COMPRESS_MIN and (
                        here > NUMBER_MAX or key[-1] > 57) and (there > NUMBER_MAX or value[-1] > 57):
                    add(STRING_HEADS[here] + key + HEADS[there] + value)
                else:
                    add(b"\0" + string(key, compressed) + string(value, compressed))
                    size += here + there
                continue
            kind, pieces = save_value(value, config)
            add(bytes([kind]) + string(key, compressed))
            for piece in pieces:
                add(piece)
                size += len(piece)
                if size > BLOCK:
                    yield b"".join(parts)
                    parts.clear()
                    size = 0
        yield b"".join(parts)


# ---- files, without a server ---------------------------------------------------------------------

def open_file(disk: Disk, path: str) -> tuple[Cursor, Checksum, File]:
    """A file to read: a cursor at its start, and the checksum of what it has passed. The caller closes the file."""
    file = disk.open(path, "r")
    checksum = Checksum()
    return Cursor(b"", lambda count: disk.read(file, count), disk.size(file), checksum.update), checksum, file


def load(path: str, disk: Disk | None = None, checked: bool = True) -> Iterator[Entry]:
    """(database, key, value, deadline in ms or None) of every key in a dump. Unreadable, OSError.

    `checked`: its checksum, too.
    """
    disk = disk or _real_disk()
    cursor, checksum, file = open_file(disk, path)
    try:
        yield from Reader(cursor, checksum if checked else None)
    except Unreadable as error:
        error.where = path
        raise
    finally:
        disk.close(file)


def dump(path: str, entries: Iterable[Entry], config: Config | None = None, disk: Disk | None = None) -> None:
    """Write a dump of these entries. What is there already under that name is replaced."""
    databases: dict[int, Database] = {}
    for index, key, value, deadline in entries:
        database = databases.setdefault(index, Database(index, lambda database, key: None))
        database.set(key, value)
        if deadline is not None:
            database.expire_at(key, deadline)
    disk = disk or _real_disk()
    file = disk.open(path, "w")
    try:
        for block in blocks([databases[index] for index in sorted(databases)], config or Config()):
            write_all(disk, file, block)
    finally:
        disk.close(file)


def write_all(disk: Disk, file: File, data: bytes) -> None:
    """Write until everything is taken. OSError."""
    taken = disk.write(file, data)
    while taken < len(data):
        taken += disk.write(file, data[taken:])


def _real_disk() -> Disk:
    from kvref.machine import RealDisk
    return RealDisk()
