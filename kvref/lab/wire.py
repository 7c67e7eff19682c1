"""The bytes of RESP, every one named: what went over a connection, as a person wants to read it.

    Wire(alice.received)                    what a client has heard
    Wire(b"*1\\r\\n$4\\r\\nPING\\r\\n")           what a client says

Interface:
  - Wire(data)          as the last line of a cell: the bytes in colour where HTML is shown, plain text elsewhere
  - Wire(data).parts    list of Part: offset, bytes, what they mean, how deep they are nested

Bytes that are cut short or wrong are shown as they are, with what is missing or wrong beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from html import escape
from typing import NamedTuple

from kvref.lab.cli import quote
from kvref.lab.table import NO_MATHS

# Backgrounds that colour-blind readers can tell apart (Okabe and Ito, lightened), with dark text on each.
COLOURS = {"type": "#9ecfee", "data": "#f9dd9c", "end": "#e0e0e0", "wrong": "#f2b38a"}
PLAIN = "background: none; padding: 0; white-space: pre"    # GitHub drops styles: <code> and &nbsp; are enough to read
WIDEST = 40                     # bytes of one value that are shown; the rest is counted


class Part(NamedTuple):
    """Some bytes that mean one thing."""

    offset: int
    data: bytes
    meaning: str
    depth: int = 0
    kind: str = "type"          # "type": a first line; "data": what it announced; "wrong"


class Wire:
    """See the module."""

    def __init__(self, data: bytes | bytearray) -> None:
        self.data = bytes(data)
        self.parts = list(_read(self.data))

    def __repr__(self) -> str:
        shown = ["  " * part.depth + "".join(text for text, _ in _pieces(part)) for part in self.parts]
        width = max(map(len, shown), default=0)
        return "\n".join(f"{part.offset:5d}  {text:{width}}  {part.meaning}" for part, text in zip(self.parts, shown))

    def _repr_html_(self) -> str:
        cell = '<td style="text-align: {}">{}</td>'
        rows = []
        for part in self.parts:
            spans = "".join(f'<span style="background: {COLOURS[kind]}; color: #111">{escape(text)}</span>'
                            for text, kind in _pieces(part))
            code = f'<code style="{PLAIN}">{"&nbsp;" * 4 * part.depth}{spans}</code>'
            rows.append("<tr>" + cell.format("right", part.offset) + cell.format("left", code)
                        + cell.format("left", escape(part.meaning)) + "</tr>")
        head = "".join(f'<th style="text-align: left">{name}</th>' for name in ("offset", "bytes", "meaning"))
        return f"<table{NO_MATHS}><tr>{head}</tr>{''.join(rows)}</table>"


def _pieces(part: Part) -> Iterator[tuple[str, str]]:
    """The text of a part and its colour, the CR LF at its end apart."""
    body, end = (part.data[:-2], "\\r\\n") if part.data.endswith(b"\r\n") and part.kind != "wrong" else (part.data, "")
    text = quote(body[:WIDEST])[1:-1] + (f"… {len(body) - WIDEST} more" if len(body) > WIDEST else "")
    yield text, part.kind
    if end:
        yield end, "end"


# ---- reading -------------------------------------------------------------------------------------

class _Stop(Exception):
    """Here the bytes end, or go wrong: (offset, depth, what is to be said)."""


COUNTS = {b"*": "array of {} element{s}", b"~": "set of {} member{s}", b">": "push of {} element{s}",
          b"%": "map of {} pair{s}"}
LENGTHS = {b"$": "bulk string of {} byte{s}", b"=": "verbatim string of {} byte{s}"}
NULLS = {b"$": "null: no such value", b"*": "null array"}
LINES: dict[bytes, Callable[[str], str]] = {
    b"+": lambda text: f"status {text}", b"-": lambda text: f"error: {text}", b":": lambda text: f"integer {text}",
    b"_": lambda text: "null", b",": lambda text: f"double {text}",
    b"#": lambda text: {"t": "boolean true", "f": "boolean false"}.get(text, "boolean?")}


def _read(data: bytes) -> Iterator[Part]:
    at = 0
    while at < len(data):
        parts: list[Part] = []
        try:
            at = _value(data, at, 0, parts)
            yield from parts
        except _Stop as stop:
            offset, depth, complaint = stop.args
            yield from parts
            yield Part(offset, data[offset:], complaint, depth, "wrong")
            return


def _value(data: bytes, at: int, depth: int, parts: list[Part]) -> int:
    """Append the parts of the value at `at`; the offset behind it."""
    end = data.find(b"\r\n", at)
    if end < 0:
        raise _Stop(at, depth, "cut short: the line has no end yet")
    mark, rest = data[at:at + 1], data[at + 1:end]
    line, at, start = data[at:end + 2], end + 2, at
    if mark in LINES:
        parts.append(Part(start, line, LINES[mark](quote(rest)[1:-1]), depth))
        return at
    if mark not in COUNTS and mark not in LENGTHS:
        parts.append(Part(start, line, "an inline request: words on a line", depth, "data"))
        return at
    if rest == b"-1" and mark in NULLS:
        parts.append(Part(start, line, NULLS[mark], depth))
        return at
    if not rest.isdigit():
        raise _Stop(start, depth, f"wrong: {quote(rest)} is no length")
    count, plural = int(rest), "" if rest == b"1" else "s"
    parts.append(Part(start, line, (COUNTS | LENGTHS)[mark].format(count, s=plural), depth))
    if mark in LENGTHS:
        return _bulk(data, at, count, depth, parts)
    for _ in range(count * (2 if mark == b"%" else 1)):
        if at >= len(data):
            raise _Stop(at, depth + 1, "cut short: an element is missing")
        at = _value(data, at, depth + 1, parts)
    return at


def _bulk(data: bytes, at: int, size: int, depth: int, parts: list[Part]) -> int:
    body = data[at:at + size + 2]
    missing = size + 2 - len(body)
    if missing:
        raise _Stop(at, depth, f"cut short: {missing} more byte{'s' * (missing != 1)} must come")
    if not body.endswith(b"\r\n"):
        raise _Stop(at, depth, f"wrong: after {size} bytes there should be \\r\\n")
    parts.append(Part(at, body, f"{size} byte{'s' * (size != 1)}, whatever they are", depth, "data"))
    return at + size + 2
