"""A table that reads well as text, and as HTML where a notebook shows it.

Interface:
  - Table(head, rows)    its last line in a cell shows it; print(table) gives the text
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


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
        lines = [_line("th", self.head, style), *(_line("td", map(_text, row), style) for row in self.rows)]
        return "<table>\n" + "\n".join(lines) + "\n</table>"

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


def _line(tag: str, texts: Iterable[str], style: list[str]) -> str:
    cells = (f"<{tag}{how}>{escape(text)}</{tag}>" for text, how in zip(texts, style))
    return f"<tr>{''.join(cells)}</tr>"
