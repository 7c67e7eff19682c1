"""The cells of a notebook as a page shows them to somebody who reads, and runs nothing.

Interface:
  - prepared(cells)     the cells, changed as below
  - markdown(text)      HTML

A question becomes a card: each letter opens, and says what `predict` would say. What answers it is marked to be
folded: `begins` stands in the metadata of the cell whose output is the first answer, `ends` in that of the cell that
explains it. A text that explains, and then goes on with something else, becomes two. A figure gets its claim as `alt`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from html import escape
from itertools import pairwise
from typing import Any
from urllib.parse import quote

from mistune import BlockParser, InlineParser
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat.v4 import new_code_cell, new_markdown_cell, new_raw_cell

from kvref.lab import questions

HEADING = re.compile(r"^#", re.M)
PREDICT = re.compile(r"^\*\*Predict(?!.*^#)", re.M | re.S)     # the last words of a text, before the cell that answers


def markdown(text: str) -> str:
    """HTML as JupyterLab would make it, but for formulas: a $ is RESP's here."""
    renderer = IPythonRenderer(escape=False, anchor_link_text="#")
    return MarkdownWithMath(renderer, BlockParser(), InlineParser()).render(text)


def prepared(cells: list[Any]) -> list[Any]:
    """The cells as a page shows them: questions to click on, answers marked to be folded, figures with their claim."""
    done = []
    answers = dict(_answers(cells))
    for place, cell in enumerate(cells):
        rest = ""
        cell.metadata.update(begins=place in answers, ends=place in answers.values(), alt=_claim(cell))
        if cell.source.startswith("%%real"):
            cell.metadata.magics_language = "python"
        if cell.metadata.ends and cell.cell_type == "markdown":
            cell.source, rest = _explanation(cell.source)
        if asked := _questions(cell):
            asking = {line for call in asked for line in range(call.lineno, (call.end_lineno or 0) + 1)}
            others = "\n".join(line for at, line in enumerate(cell.source.split("\n"), 1) if at not in asking).strip()
            done += [new_code_cell(others)] if others else []
            cell = new_raw_cell("\n".join(_card(*map(ast.literal_eval, call.args)) for call in asked))
        done += [cell, new_markdown_cell(rest)] if rest else [cell]
    return done


def _answers(cells: list[Any]) -> Iterator[tuple[int, int]]:
    """Places of answers: of the first cell whose output is one, and of the cell that ends the explanation."""
    asked = [place for place, cell in enumerate(cells) if _questions(cell) or cell.cell_type == "markdown"
             and PREDICT.search(cell.source) and not any(map(_questions, cells[place + 1:][:1]))]
    for place, following in pairwise([*asked, len(cells)]):
        first = next((at for at in range(place + 1, following) if cells[at].get("outputs")), None)
        if first is not None:
            texts = [at for at in range(first + 1, len(cells[:following + 1])) if cells[at].cell_type == "markdown"]
            last = next((at for at in texts if HEADING.search(cells[at].source)), following)
            it_is = (at for at in texts if at <= last and cells[at].source.startswith("It is ("))
            yield first, next(it_is, texts[0] if texts else following - 1)


def _explanation(source: str) -> tuple[str, str]:
    """A text in two: what explains the answer, and what goes on with something else."""
    parts = source.split("\n\n")
    end = next((at for at, part in enumerate(parts) if at and part.startswith(("#", "**Predict"))), len(parts))
    if not "".join(parts[end:]).startswith("#"):
        end = max(1, end - 1)           # the last paragraph before a cell leads to it
    return "\n\n".join(parts[:end]), "\n\n".join(parts[end:])


def _tree(cell: Any) -> ast.Module:
    """The code of a cell, magics left out; nothing where that is no Python."""
    try:
        return ast.parse(re.sub(r"^\s*[%!].*", "", cell.source, flags=re.M))
    except SyntaxError:
        return ast.Module([], [])


def _questions(cell: Any) -> list[ast.Call]:
    """The calls of `predict` in a cell."""
    if cell.cell_type != "code" or "predict(" not in cell.source or cell.source.startswith("%%"):
        return []
    calls = (node.value for node in _tree(cell).body if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call))
    return [call for call in calls if getattr(call.func, "id", "") == "predict"]


def _claim(cell: Any) -> str:
    """What a figure says: the first words in the cell that are somebody's argument."""
    if not any("image/png" in output.get("data", {}) for output in cell.get("outputs", ())):
        return ""
    for node in ast.walk(_tree(cell)):
        for argument in node.args if isinstance(node, ast.Call) and getattr(node.func, "id", "") != "print" else ():
            words = argument.values if isinstance(argument, ast.JoinedStr) else [argument]
            text = "".join(str(word.value) if isinstance(word, ast.Constant) else "…" for word in words)
            if text.count(" ") > 3:
                return f"Figure: {text}. The table before it has the numbers."
    return "Figure. The table before it has the numbers."


def _card(id: str, question: str, options: Mapping[str, str]) -> str:
    """A question whose options open, each with its verdict."""
    answer = questions.answers(id.partition("-")[0])[id]
    rows = []
    for letter, text in options.items():
        said, _, where = questions.verdict(letter, answer).partition("\nWhere to look: ")
        more = f" Where to look: [{where}](#{quote(where.replace(' ', '-'))})." if where else ""
        rows.append(f"<details><summary>({letter}) {escape(text)}</summary>{markdown(said + more)}</details>")
    return (f'<section class="predict" aria-label="Your prediction"><p class="question">{escape(question)}</p>'
            f"{''.join(rows)}</section>")
