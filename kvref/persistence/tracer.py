"""A Cursor that keeps what each byte means: how a file is dissected.

    offset  bytes                    what they mean: their value
       120                           hash as listpack: "user", 31 bytes
       120  10                         type or opcode: hash as listpack
       121                             key: "user", 5 bytes
       121  04                           length of key: 4
       122  75 73 65 72                  text

Interface:
  - dissect(disk, path)     iterates the Parts of a dump, one after the other, as it reads
  - dissection(disk, path)  the whole file as one Part, to be looked at in a notebook; a damaged one up to the damage
  - Part                    has a __repr__ and a _repr_html_
  - Tracer                  a Cursor; what it has read is in `parts`

The format is not described here. rdb.Reader reads as it always does, and asks for every byte by its meaning.

Invariants: parts cover what was read, in order, without a gap; the parts of a part cover it, but for compressed
bytes. What has a bound: a few compressed bytes may hold millions of entries, and not all of them are told apart.

Redis: redis-check-rdb.c reads to the first error, too. It tells what it was reading then, but not what it has read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from typing import Any, Final

from kvref.persistence.cursor import CHUNK, Cursor, Unreadable
from kvref.persistence.rdb import Reader, open_file
from kvref.ports import Disk
from kvref.quoting import repr_arg

DETAIL: Final = 100_000                     # parts that are told apart: within an entry, or in a dissection
OPCODE: Final = "type or opcode"            # what rdb.Reader calls the first byte of an entry
MANY: Final = "parts that are not told apart"
SHOWN: Final = 40                           # parts of a part that are shown in a notebook
HEX_MAX, TEXT_MAX = 8, 60                   # bytes in hex, characters of a value

# Backgrounds that colour-blind readers can tell apart, for dark text. The first row counts with which a meaning begins.
KINDS: Final = (
    ("#9ecfee", "frame of the file", ("type or opcode", "magic", "CRC", "number of the database", "number of keys",
                                      "number of deadlines")),
    ("#d9d9d9", "how long, how many, where", ("length", "compressed length", "back length", "bytes of", "number of",
                                              "size", "offset", "encoding", "container", "free")),
    ("#f2b38a", "compressed", ("compressed",)),
    ("#f9dd9c", "content", ("",)))
STRUCTURE: Final = KINDS[1]
FORMS: Final = {0: "a number of 8 bits", 1: "a number of 16 bits", 2: "a number of 32 bits", 3: "compressed by LZF"}
SHOW: Final[dict[str, Callable[[int], str]]] = {            # meaning -> how a value is shown
    "deadline, ms since 1970": lambda ms: f"{ms} = {date(ms)}",
    "deadline, s since 1970": lambda s: f"{s} = {date(s * 1000)}",
    "CRC-64 of all before": lambda crc: f"{crc:016x}"}
STYLE: Final = 'style="margin-left: 1em; overflow-wrap: anywhere; font-family: monospace"'
LEGEND: Final = "".join(
    f'<span style="background: {colour}; color: #111; padding: 0 .5em">{name}</span> ' for colour, name, _ in KINDS
    ) + "~ offset in what the compressed bytes become\n"


# ---- what bytes mean -----------------------------------------------------------------------------

def date(ms: int) -> str:
    """In UTC. (datetime ends with the year 9999, and a deadline of 64 bits does not.)"""
    days, ms = divmod(ms, 86_400_000)
    era, day = divmod(days + 719_468, 146_097)              # 400 years; they begin in March: a leap day is the last one
    year = (day - day // 1460 + day // 36_524 - day // 146_096) // 365
    day -= 365 * year + year // 4 - year // 100
    month = (5 * day + 2) // 153                            # 0: March. Five months have 153 days, all but the last five
    day -= (153 * month + 2) // 5
    return (f"{400 * era + year + month // 10:04}-{(month + 2) % 12 + 1:02}-{day + 1:02} "
            f"{ms // 3_600_000:02}:{ms // 60_000 % 60:02}:{ms / 1000 % 60:06.3f} UTC")


def quoted(text: bytes) -> str:
    """In double quotes; of a long one the beginning."""
    return repr_arg(text[:TEXT_MAX]).decode() + ".." * (len(text) > TEXT_MAX)


@dataclass(slots=True, repr=False)
class Part:
    """Some bytes that mean one thing, or several parts that belong together."""

    offset: int                             # in the file; of parts of compressed bytes: in what these become
    length: int                             # bytes
    meaning: str
    own: bytes = b""                        # the bytes, unless they are those of `parts`
    value: Any = None                       # what they stand for, where that can be said
    parts: list[Part] = field(default_factory=list)
    unpacked: bool = False                  # `parts` are those of other bytes, which come out of these

    @property
    def raw(self) -> bytes:
        """Its bytes; b"" where there were too many parts to keep them."""
        found = self.own or b"".join(part.raw for part in self.parts)
        return found if len(found) == self.length else b""

    @property
    def kind(self) -> tuple[str, str, tuple[str, ...]]:
        """A row of KINDS."""
        return next(kind for kind in KINDS if self.meaning.startswith(kind[2]))

    @property
    def text(self) -> str:
        """The value, for a person; of an entry of the file what it begins with."""
        if self.value is None:
            says = self.parts[1:3] if self.parts and self.parts[0].meaning == OPCODE else []
            return ", ".join(part.text for part in says if part.value is not None and part.kind is not STRUCTURE)
        if isinstance(self.value, bytes):
            return "" if self.kind is STRUCTURE or self.meaning == "number" else quoted(self.value)
        return SHOW.get(self.meaning, str)(self.value)

    @property
    def title(self) -> str:
        """What the bytes are, in one line."""
        size = f"{self.length:,} byte{'s' * (self.length != 1)}" if self.parts or self.length > HEX_MAX else ""
        return ", ".join(filter(None, (": ".join(filter(None, (self.meaning, self.text))), size)))

    @property
    def hex(self) -> str:
        return self.own.hex(" ") if len(self.own) <= HEX_MAX else f"{self.own[:4].hex(' ')} .. {self.own[-3:].hex(' ')}"

    def first(self, most: int | None) -> list[Part]:
        """So many parts, and one that stands for the others."""
        more = [] if most is None else self.parts[most:]
        if not more:
            return self.parts
        return [*self.parts[:most],
                Part(more[0].offset, sum(part.length for part in more), f"... and {len(more):,} more")]

    def lines(self, most: int | None = None, indent: str = "", mark: str = "") -> Iterator[str]:
        """As text. `most`: parts of a part; `mark`: stands before offsets that are not the file's."""
        yield f"{mark + str(self.offset):>8}  {self.hex:{HEX_MAX * 3}} {indent}{self.title}"
        for part in self.first(most):
            yield from part.lines(most, indent + "  ", "~" if self.unpacked else mark)

    def html(self, most: int, mark: str = "", state: str = "") -> str:
        """To be unfolded; `state` is "open" where it is."""
        code = f'<code style="background: {self.kind[0]}; color: #111">{self.hex}</code> ' if self.own else ""
        row = f'<span style="opacity: .7">{mark}{self.offset}</span> {code}{escape(self.title)}'
        if not self.parts:
            return f"<div {STYLE}>{row}</div>\n"
        inside = "".join(part.html(most, "~" if self.unpacked else mark) for part in self.first(most))
        return f"<details {STYLE} {state}><summary>{row}</summary>\n{inside}</details>\n"

    def __repr__(self) -> str:
        return "\n".join(self.lines(SHOWN))

    def _repr_html_(self) -> str:
        return LEGEND + self.html(SHOWN, state="open")


# ---- keeping it ----------------------------------------------------------------------------------

def _noting(read: Callable[..., Any]) -> Callable[..., Any]:
    """A method of Cursor that reads one thing; what it finds becomes the value of the part."""
    def method(self: Tracer, *given: Any, **named: Any) -> Any:
        self._last.value = found = read(self, *given, **named)
        return found
    return method


class Tracer(Cursor):
    """A Cursor that keeps what it reads as Parts."""

    __slots__ = ("parts", "room", "_open", "_last", "_text", "_inner")

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.parts: list[Part] = []
        self.room = [DETAIL]                            # for how many parts; shared with what is inside
        self._open: list[tuple[int, list[Part]]] = []   # what was begun: where, and the parts before it
        self._last = self._text = Part(0, 0, "")        # the last part; the text of the last string
        self._inner: Tracer | None = None

    def drain(self) -> list[Part]:
        """The parts since the last time."""
        parts, self.parts, self.room[0] = self.parts, [], DETAIL
        return parts

    def abandon(self) -> None:
        """No more can be read: what was begun ends here."""
        if self._inner:
            self._inner.abandon()
            self._inner.take(self._inner.left, "not looked at")
        while self._open:
            self.end("broken off")

    def _keep(self, part: Part) -> None:
        self._last = part
        self.room[0] -= not part.parts
        if part.parts[0].meaning == MANY if part.parts else self.room[0] < 0:
            if not self.parts or self.parts[-1].meaning != MANY:
                self.parts.append(Part(part.offset, 0, MANY, value=0))
            self.parts[-1].length += part.length
            self.parts[-1].value += 1
        elif part.length:
            self.parts.append(part)

    # ---- a Cursor's own

    def take(self, count: int, meaning: str) -> bytes:
        data = super().take(count, meaning)
        self._keep(Part(self.offset - count, count, meaning, data, data))
        return data

    byte, number, double = _noting(Cursor.byte), _noting(Cursor.number), _noting(Cursor.double)

    def _length(self, meaning: str) -> tuple[int, bool]:
        self.begin()
        found, special = super()._length(meaning)
        self.end(meaning, FORMS.get(found) if special else found)
        self._last.own, self._last.parts = self._last.raw, []       # its bytes say nothing one by one
        return found, special

    def string(self, meaning: str) -> bytes:
        self.begin()
        text, held = super().string(meaning), self._last
        held.meaning = "text" if held.own == text else "number" if isinstance(held.value, int) else "compressed"
        held.value = None                                           # the whole says it
        self.end(meaning, text)
        self._text = held
        return text

    def inside(self, blob: bytes) -> Cursor:
        plain, held = super().inside(blob), self._text
        self._inner = inner = Tracer(blob)
        inner.base, inner.fixed, inner.room = plain.base, plain.fixed, self.room
        held.parts, held.unpacked = inner.parts, held.own != blob
        self._last.value = None                                     # the parts say it better
        return inner

    def begin(self) -> None:
        self._open.append((self.offset, self.parts))
        self.parts = []

    def end(self, meaning: str, value: Any = None) -> None:
        parts, (offset, self.parts) = self.parts, self._open.pop()
        if parts and parts[0].meaning == OPCODE:
            parts[0].value = meaning
        self._keep(Part(offset, self.offset - offset, meaning, value=value, parts=parts))


# ---- files ---------------------------------------------------------------------------------------

@contextmanager
def opened(disk: Disk, path: str, kind: Callable[..., Any]) -> Iterator[tuple[Any, Reader]]:
    """A cursor of this kind on a dump, and its reader. Unreadable names the file."""
    plain, checksum, file = open_file(disk, path)
    try:
        cursor = kind(plain.data, plain.more, plain.left_over, plain.passed)
        yield cursor, Reader(cursor, checksum)
    except Unreadable as error:
        error.where = path
        raise
    finally:
        disk.close(file)


def entries(tracer: Tracer, reader: Reader) -> Iterator[None]:
    """Read all, with a pause after each entry; the last one comes before Unreadable. What follows a base is left."""
    try:
        for _ in reader:
            yield
        while reader.alone and tracer.left:
            tracer.take(min(tracer.left, CHUNK), "behind the end, not looked at")
            yield
    except Unreadable:
        tracer.abandon()
        yield
        raise
    yield


def dissect(disk: Disk, path: str) -> Iterator[Part]:
    """The parts of a dump. They cover it without a gap, up to where it ends or is damaged. Unreadable, OSError."""
    with opened(disk, path, Tracer) as (tracer, reader):
        for _ in entries(tracer, reader):
            yield from tracer.drain()


def dissection(disk: Disk, path: str, most: int = DETAIL) -> Part:
    """The whole file, with so many parts told apart; a last part without bytes says where it is damaged. OSError."""
    try:
        with opened(disk, path, Tracer) as (tracer, reader):
            tracer.room[0] = most
            for _ in entries(tracer, reader):
                pass
    except Unreadable as error:
        tracer.parts.append(Part(error.offset, 0, str(error)))
    return Part(0, tracer.offset, path, parts=tracer.parts)
