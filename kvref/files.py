"""python -m kvref.files: what is in a file of Redis, and what a server would do with it. For operators and readers.

    dissect FILE [--html]       names every byte of a dump, every record of a log, every line of a manifest
    verify FILE or DIRECTORY    says what a server would do with it at its start
    repair FILE or DIRECTORY    cuts a bad tail off the last file of a log, and keeps a copy

Interface:
  - dissect(disk, path), dissection(disk, path)     as persistence/tracer.py's; also of a log and of a manifest
  - verify(disk, path, now_ms)  a Verdict: text, and the numbers as data
  - bad_tail(disk, path)        a Tail, which can be cut; repair(disk, path) does both
  - page(disk, path, now_ms)    dissection and verdict as one HTML page
  - main(words)                 the command line; what it can do is the table COMMANDS

Only `repair` changes a file; the others read, through the Disk port. What a start makes of a log is not described
here: load.at_start is run, in a server that nobody can reach, on a computer that only pretends (kvref.pretend). So all
but the command line works without sockets and processes too, as in a browser.

Which tail is cut? What ends in the midst of a unit, as a start would with `aof-load-truncated yes`. Also bytes that
are no record, where no record follows them, or where they hold the zeros that a file system leaves of what was never
synced: these reach to the end of a block, and what is behind them was not synced either. Everything else is damage
in the middle.

Redis: redis-check-rdb.c, redis-check-aof.c. There --fix cuts behind the last good unit, whatever follows.
"""

from __future__ import annotations

import argparse
import posixpath
import re
import signal
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html import escape
from itertools import islice
from random import Random
from typing import Any, Final, NamedTuple

from kvref.config import Config, read_file
from kvref.numbers import parse_int
from kvref.persistence import load, manifest, tracer
from kvref.persistence.cursor import CHUNK, Cursor, Unreadable
from kvref.persistence.rdb import TYPES, Reader, open_file
from kvref.persistence.replay import ARGUMENT_MAX, READ, next_record
from kvref.persistence.tracer import DETAIL, LEGEND, Part, Tracer, date, opened, quoted
from kvref.persistence.snapshot import commit
from kvref.ports import Disk
from kvref.pretend import Pretending, pretended
from kvref.server import Server

__all__ = ["Part", "Tail", "Verdict", "bad_tail", "dissect", "dissection", "main", "page", "repair", "verify"]

DATABASES: Final = 16
AUX_MAX: Final = 20             # aux fields in the text of a verdict
PAGE: Final = 20_000            # parts that a page tells apart
ADVICE: Final = ". The file is as it was: restore a good copy, or move it away to start empty."
MANIFEST: Final = ".manifest"
FILE_KINDS: Final = {"b": "base", "i": "incremental file", "h": "history, about to be deleted"}
WORDS: Final = 8                # of a command that are shown
SOUND: Final = "Nothing is to be repaired: a server would start with it, also with 'aof-load-truncated no'."
NOT_LOADED: Final = "There is a dump, and with 'appendonly yes' it is not loaded. A server would start empty."
NOTHING: Final = "There is nothing to load: no dump, and no log that a manifest names. A server would start empty."
TOOK: Final = re.compile(r": \d+\.\d+ seconds$")          # a clock that stands cannot say how long
BLOCK: Final = 4096             # of a file system
HEAD: Final = re.compile(rb"\r\n\*\d{1,7}\r\n\$\d{1,2}\r\n[A-Za-z]{2,32}\r\n")       # behind a record, another
HEAD_MAX: Final = 64
NAMES: Final = [name for name, _ in TYPES.values()]
WRITERS: Final = {1: "Redis 1.0 to 2.2", 2: "Redis 2.4", 6: "Redis 2.6 to 3.0", 7: "Redis 3.2", 8: "Redis 4.0",
                  9: "Redis 5.0 to 6.2", 10: "Redis 7.0, and kvref", 11: "Redis 7.2, and Valkey 7.2 to 8.1",
                  12: "Redis 7.4, and later ones", 80: "Valkey 9.0"}


# ---- what is in a log ----------------------------------------------------------------------------

class Torn(Unreadable):
    """What is wrong is the end of a log, and can be cut off."""


def is_log(disk: Disk, path: str) -> bool:
    """A file of a log? A base that is a dump counts as one by its name."""
    file = disk.open(path, "r")
    try:
        return disk.read(file, 4).startswith((b"*", b"#TS:")) or path.endswith(".aof")
    finally:
        disk.close(file)


def records(disk: Disk, path: str) -> Iterator[tuple[Part, bool]]:
    """The parts of a log's file, and whether a unit ends with them. Unreadable: behind a last part."""
    with opened(disk, path, Tracer) as (cursor, reader):
        size_max = max(ARGUMENT_MAX, cursor.left)
        cursor.fill(min(load.MAGIC_BYTES, cursor.left))
        if cursor.data.startswith(load.MAGIC):
            reader.alone = False
            for _ in tracer.entries(cursor, reader):
                yield from ((part, True) for part in cursor.drain())
        data, offset, unit, database, is_open = b"", cursor.offset, 0, b"0", False
        while data or cursor.left:
            try:
                found = next_record(data, offset, size_max) if data else 1
            except Unreadable as error:
                yield Part(offset, len(data), "broken off", data), False
                raise error if _is_amid(data, offset, cursor) else Torn(error.what, error.offset) from None
            if isinstance(found, int):
                if not 0 < found <= cursor.left:
                    yield Part(offset, len(data), "broken off", data), False
                    raise Torn("the file ends in the midst of a record", offset)
                data += Cursor.take(cursor, min(cursor.left, max(READ, found, len(data))), "")      # no part yet
                continue
            words, size = found
            name = words[0].upper() if words else b""
            unit += bool(words) and not is_open
            is_open = name == b"MULTI" or is_open and name != b"EXEC"
            database = words[-1] if name == b"SELECT" else database
            text = " ".join([quoted(name)[1:-1], *map(quoted, words[1:WORDS])]) + " .." * (len(words) > WORDS)
            meaning = f"unit {unit}, database {quoted(database)[1:-1]}" if words else "annotation"
            yield Part(offset, size, meaning, data[:size], text if words else data[:size].strip()), not is_open
            data, offset = data[size:], offset + size


def _is_amid(data: bytes, offset: int, cursor: Cursor) -> bool:
    """Whether records follow what is none and begins with `data`: not behind zeros that reach to the end of a block."""
    if offset == 0 and data[0] not in b"*#\0":
        return True                         # this is no log
    while True:
        head = HEAD.search(data)
        ends = range(-(offset + 1) % BLOCK, head.start() if head else len(data), BLOCK)
        if head or any(data[at] == 0 for at in ends) or not cursor.left:
            return head is not None and all(data[at] for at in ends)
        rest = Cursor.take(cursor, min(cursor.left, CHUNK), "")
        offset, data = offset + len(data[:-HEAD_MAX]), data[-HEAD_MAX:] + rest


def _lines(disk: Disk, path: str) -> Iterator[Part]:
    """The lines of a manifest."""
    data, at, refusal = read_file(disk, path), 0, None
    try:
        manifest.parse(data)
    except Unreadable as error:
        error.where, refusal, data = path, error, data[:error.offset]
    for line in data.splitlines(keepends=True):
        found = manifest.parse(line) if line[:1] != b"#" else manifest.Manifest()
        one = next(iter(found.parts + found.history), None)
        meaning = FILE_KINDS[one.kind] if one else "annotation"
        value = f"{one.name}, number {one.seq}" if one else line.strip()
        yield Part(at, len(line), meaning, line, value)
        at += len(line)
    if refusal:
        raise refusal


def dissect(disk: Disk, path: str) -> Iterator[Part]:
    """The parts of a file. They cover it without a gap, up to where it ends or is damaged. Unreadable, OSError."""
    if path.endswith(MANIFEST):
        return _lines(disk, path)
    return (part for part, _ in records(disk, path)) if is_log(disk, path) else tracer.dissect(disk, path)


def dissection(disk: Disk, path: str, most: int = DETAIL) -> Part:
    """The whole file, with so many parts told apart (of a log, the first ones); a last part without bytes says where it
    is damaged. OSError.
    """
    if not path.endswith(MANIFEST) and not is_log(disk, path):
        return tracer.dissection(disk, path, most)
    parts: list[Part] = []
    try:
        parts.extend(islice(dissect(disk, path), most))
    except Unreadable as error:
        parts.append(Part(error.offset, 0, str(error)))
    return Part(0, sum(part.length for part in parts), path, parts=parts)


# ---- what a server would do ----------------------------------------------------------------------

class Tally(Cursor):
    """A Cursor that counts what it reads."""

    sizes: dict[str, tuple[int, int]]               # type or opcode -> how many, their bytes
    start = 0

    def begin(self) -> None:
        self.start = self.base + self.at

    def end(self, meaning: str, value: object = None) -> None:
        count, size = self.sizes.get(meaning, (0, 0))
        self.sizes[meaning] = count + 1, size + self.base + self.at - self.start


@dataclass(repr=False)
class Verdict:
    """What a server would do with files at its start, and what it would find: as far as they can be read."""

    path: str
    size: int                                       # bytes
    reader: Reader                                  # of a dump: version, aux, warnings
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)                 # as Tally's
    databases: dict[int, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    checksum: str = "not reached"                   # right, off
    refusal: Unreadable | None = None
    log: list[str] = field(default_factory=list)    # what the server would write in its own
    cut: Tail | None = None                         # of a log: what the start would cut off
    empty: str = ""                                 # why a start would load nothing

    @property
    def fine(self) -> bool:
        return self.refusal is None

    @property
    def types(self) -> dict[str, tuple[int, int]]:
        """As what values are stored -> keys, bytes of type, key and value; the largest first."""
        found = [(name, count) for name, count in self.sizes.items() if name in NAMES]
        return dict(sorted(found, key=lambda pair: -pair[1][1]))

    @property
    def conclusion(self) -> str:
        keys = sum(count["keys"] - count["of these over"] for count in self.databases.values())
        if self.refusal:
            return f"A server would not start with it. {self.refusal}{ADVICE}"
        if self.empty:
            return self.empty
        cut = self.cut and f" Before that it would cut {self.cut.extent}. It keeps no copy of them; `repair` does."
        return f"A server would start with it: {keys:,} key{'s' * (keys != 1)}.{cut or ''}"

    def facts(self) -> Iterator[tuple[str, str]]:
        """Name and text."""
        reader = self.reader
        if self.size or self.fine:                  # else the manifest is refused, before any byte is looked at
            yield "bytes", f"{self.size:,}"
        if reader.version:
            yield "version", f"{reader.version}, that of {WRITERS.get(reader.version, 'no release')}"
        for name, value in list(reader.aux.items())[:AUX_MAX]:
            seconds = parse_int(value) if name == "ctime" else None
            yield quoted(name.encode("latin-1"))[1:-1], quoted(value) if seconds is None else date(seconds * 1000)
        for index, count in self.databases.items():
            yield f"database {index}", ", ".join(f"{what} {number:,}" for what, number in count.items())
        if not self.log:
            yield "checksum", self.checksum
        yield from (("warning", warning) for warning in reader.warnings)
        if reader.empty_keys:
            yield "warning", f"{reader.empty_keys:,} keys that hold nothing are left out"
        yield from (("log", line) for line in self.log)

    def __repr__(self) -> str:
        rows = [f"{size:>13,}{keys:>10,}  {name}" for name, (keys, size) in self.types.items()]
        if self.empty == NOTHING:
            return f"{self.path}\n\n{NOTHING}"
        rest = self.size - sum(size for _, size in self.types.values())
        table = ["", f"{'bytes':>13}{'keys':>10}  stored as", *rows, f"{rest:>13,}{'':10}  everything else"]
        return "\n".join([self.path, *(f"  {name:14}{text}" for name, text in self.facts()),
                          *(() if self.log else table), "", self.conclusion])


def log_config(disk: Disk, path: str) -> Config | None:
    """Of a server that finds the log: by its manifest, its directory, or the data directory. None: a file. OSError."""
    config, whole = Config(), posixpath.abspath(path)
    try:
        names = disk.list(whole)
        folder = posixpath.join(whole, config.appenddirname) if config.appenddirname in names else whole
        found = [name for name in disk.list(folder) if name.endswith(MANIFEST) and not name.startswith("temp-")]
    except NotADirectoryError:
        folder, name = posixpath.split(whole)
        if not name.endswith(MANIFEST):
            return None
        names, found = [], [name]
    config.dir, config.appenddirname, config.appendonly = *posixpath.split(folder), True
    usual = config.appendfilename + MANIFEST
    if found:
        config.appendfilename = (usual if usual in found else found[0]).removesuffix(MANIFEST)
    elif folder == whole and config.appenddirname != Config().appenddirname:        # a data directory without a log
        config.dir, config.appenddirname = whole, Config().appenddirname
        config.appendonly = config.appendfilename in names or config.dbfilename not in names
    return config


def tried(disk: Disk, path: str, config: Config | None, now_ms: int, databases: int,
          truncated: bool = True) -> Verdict:
    """The verdict of a start itself; without a config with the file `path` alone. It takes the memory of a server."""
    ports, lines = pretended(disk, now_ms), list[str]()
    own, pretending = config or Config(), ports.disk
    assert isinstance(pretending, Pretending)
    own.databases, own.aof_load_truncated = databases, truncated
    server = Server(ports, own, Random(0), lambda level, text: lines.append(f"{level} {text}"))
    verdict = Verdict(path, 0, Reader(Cursor(b"")), log=lines)
    try:
        load.at_start(server) if config else load.log(server, [path])
    except Unreadable as error:
        verdict.refusal = error
    finally:
        pretending.close(server.aof.file)
    lines[:] = ["* with 'appendonly yes'", *(line for line in lines if not TOOK.search(line))]
    verdict.size = sum(size for name, size in pretending.sizes.items() if not name.endswith(MANIFEST))
    if pretending.cut:
        cut, good = pretending.cut
        reason = "the file ends in the midst of a unit"
        verdict.cut = Tail(cut, good, pretending.sizes[cut], reason, _whole(disk, cut)[1])
    if config and verdict.fine and not server.last_load:
        verdict.empty = NOT_LOADED if config.dbfilename in disk.list(config.dir) else NOTHING
    for database in filter(None, server.databases):
        verdict.databases[database.index].update({"keys": len(database), "with a deadline": len(database.deadlines)})
        if over := sum(deadline < now_ms for deadline in database.deadlines.values()):
            verdict.databases[database.index]["of these over"] = over
    return verdict


def verify(disk: Disk, path: str, now_ms: int, databases: int = DATABASES) -> Verdict:
    """What a server does that starts at `now_ms` and has so many databases: with a dump, a file of a log (as if it were
    the last one), a manifest, or a directory, that of the data or that of the log. OSError."""
    config = log_config(disk, path)
    if config and not config.appendonly:
        return _verify_dump(disk, posixpath.join(config.dir, config.dbfilename), now_ms, databases)
    if not config and not is_log(disk, path):
        return _verify_dump(disk, path, now_ms, databases)
    return tried(disk, path, config, now_ms, databases)


def _verify_dump(disk: Disk, path: str, now_ms: int, databases: int) -> Verdict:
    """Read a dump as load.snapshot does, without keeping the values."""
    seen: dict[int, set[bytes]] = defaultdict(set)
    try:
        with opened(disk, path, Tally) as (tally, reader):
            verdict = Verdict(path, tally.left, reader)
            tally.sizes = verdict.sizes
            for index, key, _, deadline in reader:
                if index >= databases:
                    raise tally.fail(f"the file has a database {index}, and this server only {databases}; "
                                     "raise 'databases'")
                count = verdict.databases[index]
                count["keys"] += 1
                count["with a deadline"] += deadline is not None
                if deadline is not None and deadline < now_ms:
                    count["of these over"] += 1
                elif key in seen[index]:
                    error = tally.fail("the key stands twice in the file")
                    error.key = key
                    raise error
                else:
                    seen[index].add(key)
            verdict.checksum = "right" if reader.version >= 5 and any(tally.data[tally.at - 8:tally.at]) else "off"
    except Unreadable as error:
        verdict.refusal = error
    return verdict


# ---- cutting off what a crash has left -----------------------------------------------------------

class Tail(NamedTuple):
    """The end of the last file of a log, that no start can use."""

    path: str
    good: int                                       # offset behind the last whole unit
    size: int                                       # bytes of the file
    reason: str
    units: int                                      # whole ones, in front of it

    @property
    def extent(self) -> str:
        """Behind the word "cut"."""
        stay = "unit of commands stays" if self.units == 1 else "units of commands stay"
        return (f"the last {self.size - self.good:,} of {self.size:,} bytes off {self.path}, from offset {self.good} "
                f"on; {self.units:,} whole {stay}")

    def __str__(self) -> str:
        return (f"{self.path}: {self.reason}. "
                f"The last {self.size - self.good:,} of {self.size:,} bytes are no good, from offset {self.good} on.")

    def cut(self, disk: Disk) -> str:
        """Cut it off, when a copy of the file is durable; what was done. OSError."""
        folder, name = posixpath.split(self.path)
        names = disk.list(folder)
        copy = next(spare for number in range(len(names) + 1) if (spare := f"{name}.bak{number or ''}") not in names)
        file, spare = disk.open(self.path, "r"), posixpath.join(folder, copy)
        try:
            commit(disk, spare, f"{spare}.unfinished", iter(lambda: disk.read(file, CHUNK), b""))
        finally:
            disk.close(file)
        file = disk.open(self.path, "a")
        try:
            disk.truncate(file, self.good)
            disk.fsync(file)
        finally:
            disk.close(file)
        disk.fsync_dir(folder)
        return f"{self.size - self.good:,} bytes were cut off {self.path}; as it was, it is kept beside it as {copy}."


def bad_tail(disk: Disk, path: str, databases: int = DATABASES) -> Tail | None:
    """What keeps a server with `aof-load-truncated no` from starting; None: nothing does. OSError.

    `path`: a file of a log, a manifest, or a directory. Unreadable: what is wrong is no tail of the last file.
    """
    config, whole = log_config(disk, path), posixpath.abspath(path)
    if not (config.appendonly if config else is_log(disk, path)):
        raise _refusal(path, "this is no append-only file")
    if not config and any(name.endswith(MANIFEST) for name in disk.list(posixpath.dirname(whole))):
        raise _refusal(path, "this is one file of several: name the manifest beside it")
    refusal = tried(disk, whole, config, 0, databases, truncated=False).refusal
    if refusal is None:
        return None
    if refusal.where == (_last(disk, config) if config else whole):
        good, units, error = _whole(disk, refusal.where)
        cursor, _, file = open_file(disk, refusal.where)
        disk.close(file)
        if (error is None or isinstance(error, Torn)) and refusal.offset >= good and good < cursor.left:
            return Tail(refusal.where, good, cursor.left, refusal.what.partition(";")[0], units)
    raise _refusal(refusal.where, f"{refusal.what}; this is no bad tail of the last file", refusal.offset)


def _whole(disk: Disk, path: str) -> tuple[int, int, Unreadable | None]:
    """Of a file of a log: where its last whole unit ends, how many there are, and what is wrong then."""
    good = units = 0
    try:
        for part, closed in records(disk, path):
            if closed:
                good = part.offset + part.length
                units += part.meaning.startswith("unit")
    except Unreadable as error:
        return good, units, error
    return good, units, None


def _refusal(path: str, what: str, offset: int = 0) -> Unreadable:
    error = Unreadable(f"{what}, and nothing else can be repaired: restore a good copy", offset)
    error.where = path
    return error


def _last(disk: Disk, config: Config) -> str:
    """The file that a server appends to."""
    folder: str = posixpath.join(config.dir, config.appenddirname)
    try:
        parts = manifest.parse(read_file(disk, posixpath.join(folder, config.appendfilename + MANIFEST))).parts
        return posixpath.join(folder, parts[-1].name) if parts else folder
    except (Unreadable, FileNotFoundError):         # from before Redis 7
        return str(posixpath.join(config.dir, config.appendfilename))


def repair(disk: Disk, path: str) -> str:
    """Cut the bad tail off, and keep a copy: what was done. Unreadable, OSError, as `bad_tail`."""
    tail = bad_tail(disk, path)
    return tail.cut(disk) if tail else SOUND


# ---- as a page -----------------------------------------------------------------------------------

PAGE_HEAD: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>{0}</title>
<style>body {{ font: 15px/1.6 system-ui, sans-serif; margin: 1em }}
pre {{ font-size: min(13px, 2.8vw); white-space: pre-wrap; overflow-wrap: anywhere }}</style></head>
<body><h1>{0}</h1>
<pre>{1}</pre>
<p>{2}</p>
"""


def page(disk: Disk, path: str, now_ms: int) -> Iterator[str]:
    """The page in pieces; behind the last one Unreadable where the verdict is so. OSError."""
    verdict = verify(disk, path, now_ms)
    yield PAGE_HEAD.format(escape(path), escape(repr(verdict)), LEGEND)
    yield dissection(disk, path, PAGE).html(PAGE, state="open") + "</body></html>"
    if verdict.refusal:
        raise verdict.refusal


# ---- the command line ----------------------------------------------------------------------------

class Command(NamedTuple):
    run: Callable[[Disk, argparse.Namespace, int], Iterator[str]]       # what to print; Unreadable ends it
    summary: str
    example: str
    flags: dict[str, str]


def _dissect(disk: Disk, given: argparse.Namespace, now_ms: int) -> Iterator[str]:
    if given.html:
        yield from page(disk, given.file, now_ms)
        return
    for part in dissect(disk, given.file):
        yield from part.lines()


def _verify(disk: Disk, given: argparse.Namespace, now_ms: int) -> Iterator[str]:
    verdict = verify(disk, given.file, now_ms)
    yield repr(verdict)
    if verdict.refusal:
        raise verdict.refusal


def _repair(disk: Disk, given: argparse.Namespace, now_ms: int) -> Iterator[str]:
    tail = bad_tail(disk, given.file)
    if tail and not given.yes:
        yield str(tail)
        if not sys.stdin.isatty():
            sys.stdout.flush()
            print("kvref.files: nobody is there to be asked; --yes cuts them off", file=sys.stderr)
            raise SystemExit(2)
        yield "Cut them off, and keep a copy? [y/N]"
        sys.stdout.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise SystemExit("kvref.files: nothing was changed")
    yield tail.cut(disk) if tail else SOUND


COMMANDS: Final = {
    "dissect": Command(_dissect, "Name every byte of a dump, a log or a manifest.",
                       "dump.rdb | less", {"--html": "one page for a browser"}),
    "verify": Command(_verify, "Say what a server would do with it at its start.",
                      "/var/lib/redis", {}),
    "repair": Command(_repair, "Cut a bad tail off a log, while no server runs.",
                      "/var/lib/redis/appendonlydir", {"--yes": "do not ask"})}
PROGRAM: Final = "python -m kvref.files"
STATUS: Final = "Exit status: 0 fine, 1 the file cannot be read, 2 usage. Only `repair` changes a file."


def main(words: list[str]) -> int:
    """Run the command; returns its exit status. SystemExit for --help, and for wrong usage."""
    from kvref.machine import RealClock, RealDisk       # a browser has none, and the rest of this module works there
    parser = argparse.ArgumentParser(PROGRAM, description="Look into files of Redis, without a server.", epilog=STATUS)
    own_lines = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        its = commands.add_parser(name, help=command.summary, description=command.summary, formatter_class=own_lines,
                                  epilog=f"example:\n  {PROGRAM} {name} {command.example}\n\n{STATUS}")
        its.add_argument("file", metavar="FILE", help="a dump, a log, its manifest or its directory")
        for flag, summary in command.flags.items():
            its.add_argument(flag, action="store_true", help=summary)
    given = parser.parse_args(words)
    try:
        for text in COMMANDS[given.command].run(RealDisk(), given, RealClock().time_us() // 1000):
            sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace") + b"\n")
        return 0
    except Unreadable as error:
        complaint = str(error)
    except OSError as error:
        complaint = f"{given.file}: {error.strerror}"
    sys.stdout.flush()
    print(f"kvref.files: {complaint}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    for number in (signal.SIGPIPE, signal.SIGINT):      # nobody wants to read, or to wait: end as other tools do
        signal.signal(number, signal.SIG_DFL)
    sys.exit(main(sys.argv[1:]))
