"""python -m kvref.files: what is in a file of Redis, and what a server would do with it. For operators and readers.

    dissect FILE [--html]       names every byte of a dump, nested, with offsets
    verify FILE                 says what a server would do with it at its start

Interface:
  - dissect(disk, path), dissection(disk, path)     see persistence/tracer.py
  - verify(disk, path, now_ms)  a Verdict: text, and the numbers as data
  - page(disk, path, now_ms)    both as one HTML page
  - main(words)                 the command line; what it can do is the table COMMANDS

Files are only read, through the Disk port; a file that is being replaced is read as it was when it was opened.

Redis: redis-check-rdb.c.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html import escape
from typing import Final, NamedTuple

from kvref.machine import RealClock, RealDisk
from kvref.numbers import parse_int
from kvref.persistence.cursor import Cursor, Unreadable
from kvref.persistence.rdb import TYPES, Reader
from kvref.persistence.tracer import LEGEND, Part, date, dissect, dissection, opened, quoted
from kvref.ports import Disk

__all__ = ["Part", "Verdict", "dissect", "dissection", "main", "page", "verify"]

DATABASES: Final = 16
AUX_MAX: Final = 20             # aux fields in the text of a verdict
PAGE: Final = 20_000            # parts that a page tells apart
ADVICE: Final = ". The file is as it was: restore a good copy, or move it away to start empty."
NAMES: Final = [name for name, _ in TYPES.values()]
WRITERS: Final = {1: "Redis 1.0 to 2.2", 2: "Redis 2.4", 6: "Redis 2.6 to 3.0", 7: "Redis 3.2", 8: "Redis 4.0",
                  9: "Redis 5.0 to 6.2", 10: "Redis 7.0, and kvref", 11: "Redis 7.2, and Valkey 7.2 to 8.1",
                  12: "Redis 7.4, and later ones", 80: "Valkey 9.0"}


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
    """What a server would do with a dump at its start, and what it would find: as far as the file can be read."""

    path: str
    size: int                                       # bytes
    reader: Reader                                  # version, aux, warnings
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)                 # as Tally's
    databases: dict[int, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    checksum: str = "not reached"                   # right, off
    refusal: Unreadable | None = None

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
        return (f"A server would start with it: {keys:,} key{'s' * (keys != 1)}." if self.fine else
                f"A server would not start with it. {self.refusal}{ADVICE}")

    def facts(self) -> Iterator[tuple[str, str]]:
        """Name and text."""
        reader = self.reader
        yield "bytes", f"{self.size:,}"
        if reader.version:
            yield "version", f"{reader.version}, that of {WRITERS.get(reader.version, 'no release')}"
        for name, value in list(reader.aux.items())[:AUX_MAX]:
            seconds = parse_int(value) if name == "ctime" else None
            yield quoted(name.encode("latin-1"))[1:-1], quoted(value) if seconds is None else date(seconds * 1000)
        for index, count in self.databases.items():
            yield f"database {index}", ", ".join(f"{what} {number:,}" for what, number in count.items())
        yield "checksum", self.checksum
        yield from (("warning", warning) for warning in reader.warnings)
        if reader.empty_keys:
            yield "warning", f"{reader.empty_keys:,} keys that hold nothing are left out"

    def __repr__(self) -> str:
        rows = [f"{size:>13,}{keys:>10,}  {name}" for name, (keys, size) in self.types.items()]
        rest = self.size - sum(size for _, size in self.types.values())
        return "\n".join([
            self.path, *(f"  {name:14}{text}" for name, text in self.facts()),
            "", f"{'bytes':>13}{'keys':>10}  stored as", *rows, f"{rest:>13,}{'':10}  everything else",
            "", self.conclusion])


def verify(disk: Disk, path: str, now_ms: int, databases: int = DATABASES) -> Verdict:
    """Read a dump as a server does that starts at `now_ms` and has so many databases (load.snapshot). OSError."""
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


COMMANDS: Final = {
    "dissect": Command(_dissect, "Name every byte of a dump, nested, with offsets.", "dump.rdb | less",
                       {"--html": "one page for a browser"}),
    "verify": Command(_verify, "Say what a server would do with a dump at its start.", "/var/lib/redis/dump.rdb", {})}
PROGRAM: Final = "python -m kvref.files"
STATUS: Final = "Exit status: 0 fine, 1 the file cannot be read, 2 usage. No file is changed."


def main(words: list[str]) -> int:
    """Run the command; returns its exit status. SystemExit for --help, and for wrong usage."""
    parser = argparse.ArgumentParser(PROGRAM, description="Look into files of Redis, without a server.", epilog=STATUS)
    own_lines = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        its = commands.add_parser(name, help=command.summary, description=command.summary, formatter_class=own_lines,
                                  epilog=f"example:\n  {PROGRAM} {name} {command.example}\n\n{STATUS}")
        its.add_argument("file", metavar="FILE", help="a dump, such as dump.rdb")
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
