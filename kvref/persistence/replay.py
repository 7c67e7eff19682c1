"""Executing a log again.

A *record* is a command as clients send it: `*n`, and n times `$length` and so many bytes; every line and every argument
ends in CR LF. A line that begins with `#` is an annotation. Records between MULTI and EXEC are one *unit*, all or
nothing; any other record is a unit by itself.

What ends in the midst of a unit was cut by a crash: in the last file of a log that is forgiven, if `aof-load-truncated`
says so, and the file is cut back to its last whole unit. Everything else that is no record is refused, and then nothing
on the disk has changed.

While a log is executed nothing expires, for it holds a DEL for each key that did; nobody is asked for a password or
for memory; replies go nowhere.

Interface:
  - records(commands), as_commands(databases)   bytes of a log
  - next_record(data, offset)                   one record, strictly
  - Replay(server).file(...)                    execute a file

Redis: loadSingleAppendOnlyFile, rewriteAppendOnlyFileRio in aof.c. There the two bytes behind an argument are not
looked at, and a command that changes no data is run, too; here both are refused.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from kvref.command_table import Call, Command
from kvref.database import Database
from kvref.numbers import format_double
from kvref.persistence.cursor import Unreadable
from kvref.resp import HEADS_MAX, SIZES, Error, Request, well_formed
from kvref.sampling import Hash, Members
from kvref.skiplist import SortedSet

if TYPE_CHECKING:
    from kvref.ports import File
    from kvref.server import Server

READ: Final = 16 * 1024                     # bytes at once: larger pieces are slower to split
LINE: Final = re.compile(rb"([*$])(\d{1,10})\r\n")
PART_OF_LINE: Final = re.compile(rb"[*$]\d{0,10}\r?")
ANNOTATION_MAX: Final = 1024
ARGUMENT_MAX: Final = 512 << 20             # bytes
ARITY: Final = {b"MULTI": 1, b"EXEC": 1, b"SELECT": 2}      # words
A_TIME: Final = 64                          # elements of a collection in one command
AT_ONCE: Final = 1 << 18                    # bytes
COUNTS: Final = [b"*%d" % n for n in range(HEADS_MAX)]      # as SIZES: % costs more than all else


# ---- writing -------------------------------------------------------------------------------------

def records(commands: Iterable[Sequence[bytes]]) -> bytes:
    """Commands as they stand in a log. Hot: all effects of a turn come by here, and are joined once."""
    lines: list[bytes] = []
    add = lines.append
    for words in commands:
        count = len(words)
        add(COUNTS[count] if count < HEADS_MAX else b"*%d" % count)
        for word in words:
            size = len(word)
            add(SIZES[size] if size < HEADS_MAX else b"$%d" % size)
            add(word)
    add(b"")
    return b"\r\n".join(lines)


def record(words: Sequence[bytes]) -> bytes:
    return records((words,))


MAKERS: Final[dict[type, tuple[bytes, Callable[[Any], Iterable[tuple[bytes, ...]]]]]] = {   # command, words of each
    deque: (b"RPUSH", lambda value: ((text,) for text in value)),
    Members: (b"SADD", lambda value: ((member,) for member in value)),
    Hash: (b"HMSET", lambda value: value.items()),
    SortedSet: (b"ZADD", lambda value: ((format_double(score), member) for member, score in value.scores.items())),
}


def as_commands(databases: Sequence[Database]) -> Iterator[bytes]:
    """The keyspace as the commands that make it: a base for those who want to read it (aof-use-rdb-preamble no)."""
    parts: list[bytes] = []
    for database in databases:
        if database:
            parts.append(record((b"SELECT", b"%d" % database.index)))
        for key, value in database.values.items():
            parts += _commands(key, value)
            if key in database.deadlines:
                parts.append(record((b"PEXPIREAT", key, b"%d" % database.deadlines[key])))
            if len(parts) > 1000 or sum(map(len, parts[-A_TIME:])) > AT_ONCE:
                yield b"".join(parts)
                parts.clear()
    yield b"".join(parts)


def _commands(key: bytes, value: Any) -> Iterator[bytes]:
    if type(value) is bytes:
        yield record((b"SET", key, value))
        return
    name, elements = MAKERS[type(value)]
    rest = iter(elements(value))
    while some := [word for element in islice(rest, A_TIME) for word in element]:
        yield record((name, key, *some))


# ---- reading -------------------------------------------------------------------------------------

def next_record(data: bytes, offset: int, size_max: int = ARGUMENT_MAX) -> tuple[Request, int] | int:
    """The record at the head of `data`, and its size; or how many bytes more it takes to go on, at the least.

    An annotation is a record of no words. Unreadable: these bytes are none; `offset` is that of data[0]. An argument of
    more than `size_max` bytes is taken for damage, and not for the beginning of what a crash has cut.
    """
    if data[:1] == b"#":
        end = data.find(b"\n", 0, ANNOTATION_MAX)
        if end < 0 and len(data) >= ANNOTATION_MAX:
            raise Unreadable("an annotation does not end", offset)
        return ([], end + 1) if end >= 0 else 1
    words: Request = []
    count, at = _line(data, 0, b"*", offset), data.find(b"\n") + 1
    if not count:
        if count is None:
            return 1
        raise Unreadable("a record of no words", offset)
    for _ in range(count):
        size = _line(data, at, b"$", offset)
        if size is None:
            return 1
        if size > size_max:
            raise Unreadable(f"an argument of {size} bytes is impossible", offset + at)
        start = data.find(b"\n", at) + 1
        at = start + size + 2
        if data[at - 2:at] != b"\r\n"[:max(0, len(data) - at + 2)]:
            raise Unreadable(f"behind an argument of {size} bytes there should be CR LF", offset + at - 2)
        if at > len(data):
            return at - len(data)
        words.append(data[start:at - 2])
    return words, at


def _line(data: bytes, at: int, kind: bytes, offset: int) -> int | None:
    """The number in a line such as *3 or $5; None where the data ends before the line does."""
    found = LINE.match(data, at)
    if found and found[1] == kind:
        return int(found[2])
    if len(data) - at < 13 and (at == len(data) or data[at:at + 1] == kind and PART_OF_LINE.fullmatch(data, at)):
        return None
    raise Unreadable(f"here should be {kind.decode()} and a number, and there is {data[at:at + 12]!r}", offset + at)


class Replay:
    """Executes the files of a log, in their order, on the databases of a server."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.call: Call = server.call
        self.commands = {name: row for name, row in server.commands.items()
                         if "write" in row.flags and "blocking" not in row.flags and row.handler}
        self.unit: list[Request] | None = None      # since MULTI
        self.units = 0
        self.failed = 0                             # commands that had an error for a reply

    def file(self, file: File, data: bytes, offset: int, size: int, turn: Callable[[int], None]) -> int:
        """Execute the records of a file of `size` bytes; the offset behind its last whole unit.

        `data` is what has been read of it, from `offset` on; `turn(offset)` is called now and then. Unreadable.
        """
        server, disk = self.server, self.server.disk
        self.call.db, self.call.client = server.databases[0], None              # type: ignore[assignment]
        self.call.now_ms = server.now_ms
        self.unit, good = None, offset
        size_max = max(ARGUMENT_MAX, size, server.config.proto_max_bulk_len)
        while True:
            found, used = well_formed(data)
            if not found:
                first = next_record(data, offset, size_max) if data else 1
                if isinstance(first, int):
                    left = size - offset - len(data)            # what is there, whatever a record claims
                    more = disk.read(file, min(left, max(READ, first, len(data)))) if 0 < first <= left else b""
                    if not more:
                        return good
                    data += more
                    db, now_ms = self.call.db, self.call.now_ms
                    turn(offset)                                # whoever is served then has others
                    self.call.db, self.call.now_ms, self.call.client = db, now_ms, None     # type: ignore[assignment]
                    continue
                words, used = first
                found = [words] if words else []
            good = self._execute(found, offset, good)
            offset += used
            if self.unit is None:
                good = offset
            data = data[used:]

    def _execute(self, found: list[Request], offset: int, good: int) -> int:
        """Execute records that begin at `offset`; where the last unit before an open MULTI ends."""
        commands, call, at = self.commands, self.call, 0        # record number `at` begins at `offset`
        for number, words in enumerate(found):
            row = commands.get(words[0])
            if row is None or self.unit is not None:
                offset, at = _behind(found[at:number], offset), number
                good = self._special(words, offset, good)
                continue
            if not row.least <= len(words) <= row.most:
                raise Unreadable(f"{words[0][:32]!r} with {len(words) - 1} arguments is no command",
                                 _behind(found[at:number], offset))
            call.args = words
            try:
                row.handler(call)                   # type: ignore[misc]
            except Error:
                self.failed += 1
        self.units += len(found)
        return good

    def _special(self, words: Request, offset: int, good: int) -> int:
        """What is not simply executed: SELECT, MULTI, EXEC, what stands between them, and names in other letters."""
        name, databases = words[0].upper(), self.server.databases
        if name in ARITY and len(words) != ARITY[name]:
            raise Unreadable(f"{name.decode()} with {len(words) - 1} arguments is no command", offset)
        if name == b"MULTI":
            if self.unit is not None:
                raise Unreadable("MULTI inside of MULTI", offset)
            self.unit = []
            return offset
        if name == b"EXEC":
            unit, self.unit = self.unit, None
            if unit is None:
                raise Unreadable("EXEC without MULTI", offset)
            self._execute(unit, good + len(record((b"MULTI",))), good)
        elif name not in ARITY and name.lower() not in self.commands:
            raise Unreadable(f"{words[0][:32]!r} is no command that changes data in kvref", offset)
        elif self.unit is not None:
            self.unit.append(words)
        elif name == b"SELECT":
            index = int(words[1]) if words[1].isdigit() and len(words[1]) < 8 else -1
            if not 0 <= index < len(databases):
                raise Unreadable(f"database {words[1][:20]!r} is none of this server's {len(databases)}; raise "
                                 "'databases'", offset)
            self.call.db = databases[index]
        else:
            self._execute([[name.lower(), *words[1:]]], offset, good)
        return good


def _behind(found: list[Request], offset: int) -> int:
    """Where the record behind these ends up that begin at `offset`."""
    return offset + len(records(found)) if found else offset


