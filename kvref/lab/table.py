"""A table that reads well as text, and as HTML where a notebook shows it.

Interface:
  - Table(head, rows)    as the last line of a cell it is shown; print(table) gives the text
  - Link(text, target)   a value that leads somewhere where HTML is shown, and is its text elsewhere
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

NO_MATHS = ' class="mathjax_ignore tex2jax_ignore"'     # else what stands between two $ is shown as maths


class Link(str):
    """Text with a target: a path relative to the notebook, or an address."""

    target: str

    def __new__(cls, text: str, target: str) -> Link:
        link = super().__new__(cls, text)
        link.target = target
        return link


class Table:
    """Rows of values under a head. Columns in which every value is a number are aligned to the right."""

    def __init__(self, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        self.head = list(head)
        self.rows = [list(row) for row in rows]

    def __repr__(self) -> str:
        lines = [self.head, *(list(map(_text, row)) for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines)]
        lines.insert(1, ["-" * width for width in widths])
        return "\n".join("  ".join(self._aligned(line, widths)).rstrip() for line in lines)

    def _repr_html_(self) -> str:
        style = [f' style="text-align: {"right" if right else "left"}"' for right in self._numeric()]
        lines = [_line("th", self.head, style), *(_line("td", row, style) for row in self.rows)]
        body = "\n".join(lines)
        return f"<table{NO_MATHS if '$' in body else ''}>\n{body}\n</table>"

    def _numeric(self) -> list[bool]:
        columns = list(zip(*self.rows)) or [()] * len(self.head)
        return [bool(column) and all(map(_is_number, column)) for column in columns]

    def _aligned(self, line: list[str], widths: list[int]) -> list[str]:
        return [text.rjust(width) if right else text.ljust(width)
                for text, width, right in zip(line, widths, self._numeric())]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if _is_number(value) else str(value)


def _line(tag: str, values: Iterable[object], style: list[str]) -> str:
    cells = (f"<{tag}{how}>{_html(value)}</{tag}>" for value, how in zip(values, style))
    return f"<tr>{''.join(cells)}</tr>"


def _html(value: object) -> str:
    text = escape(_text(value))
    return f'<a href="{escape(value.target)}">{text}</a>' if isinstance(value, Link) else text
