"""What holds for every notebook of the course; their outputs are compared by nbval, in the same run of pytest."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

from kvref.lab import normalise
from kvref.lab.modules import modules

ROOT = Path(__file__).parent.parent
NOTEBOOKS = normalise.course()
CHAPTERS = [path for path in NOTEBOOKS if path.parent.name == "notebooks"]

CODE_CELLS_MAX = 40
WORDS_MAX = 2500
EXEMPT_MAX = {"03": 0.5, "13": 0.5}     # of the code cells; elsewhere a quarter


def each(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.stem)


def cells(path: Path, kind: str = "code") -> list[Any]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def tags(cell: Any) -> list[str]:
    return list(cell.metadata.get("tags", []))


def prose(path: Path) -> str:
    return "\n\n".join(cell.source for cell in cells(path, "markdown"))


def is_figure(output: Any) -> bool:
    return "image/png" in output.get("data", {})


@each(NOTEBOOKS)
def test_every_cell_was_run_in_order_and_without_an_error_that_is_not_meant(path: Path) -> None:
    code = cells(path)
    assert code and [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    for cell in code:
        raised = [output.ename for output in cell.outputs if output.output_type == "error"]
        assert not raised or "raises-exception" in tags(cell), cell.source


@each(NOTEBOOKS)
def test_a_notebook_is_normalised(path: Path) -> None:
    assert normalise.check(path) == []


@each(CHAPTERS)
def test_a_chapter_can_be_read_in_one_hour(path: Path) -> None:
    assert len(cells(path)) <= CODE_CELLS_MAX
    assert len(prose(path).split()) <= WORDS_MAX


@each(CHAPTERS)
def test_what_is_not_compared_is_real_and_its_claim_is_asserted_by_the_next_cell(path: Path) -> None:
    code = cells(path)
    exempt = [number for number, cell in enumerate(code) if "nbval-ignore-output" in tags(cell)]
    assert len(exempt) <= EXEMPT_MAX.get(path.name[:2], 0.25) * len(code)
    for number in exempt:
        claim = code[number + 1]
        assert "real" in tags(code[number]) and "assert " in claim.source and claim.source.startswith("%%real")
        assert "nbval-ignore-output" not in tags(claim) and claim.outputs
    for cell in code:
        assert ("real" in tags(cell)) == cell.source.startswith("%%real"), cell.source
        assert "nbval-skip" not in tags(cell), cell.source


@each(CHAPTERS)
def test_no_figure_stands_without_the_table_of_its_numbers(path: Path) -> None:
    code = cells(path)
    for number in [number for number, cell in enumerate(code) if any(map(is_figure, cell.outputs))]:
        around = code[max(0, number - 1):number + 1]
        before = [output for cell in around for output in cell.outputs if not is_figure(output)]
        shown = "".join(output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in before)
        assert len(shown.splitlines()) >= 3, code[number].source


@each(CHAPTERS)
def test_a_chapter_has_its_parts_in_their_order(path: Path) -> None:
    headings = re.findall(r"^##? (.+)$", prose(path), re.M)
    assert headings[0].startswith(path.name[:2])
    wanted = ["By the end you can", "In real Redis", "What you have shown", "Synopsis", "Check yourself", "Next"]
    assert [heading for heading in headings if heading in wanted] == wanted
    assert re.search(r"\*\*Time:\*\* \d+ minutes", prose(path)) and "**Predict.**" in prose(path)


@each(CHAPTERS)
def test_every_link_leads_somewhere(path: Path) -> None:
    text = prose(path)
    anchors = {heading.replace(" ", "-") for heading in re.findall(r"^#+ (.+)$", text, re.M)}
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in anchors
        elif not target.startswith("http"):
            assert (path.parent / target).exists(), target


def test_the_first_chapter_names_the_chapters_that_exist_and_no_others() -> None:
    rows = re.findall(r"^\| (\d\d) \|[^|]+\| (.+) \|$", prose(ROOT / "notebooks" / "00-start-here.ipynb"), re.M)
    assert [number for number, _ in rows] == [f"{number:02d}" for number in range(15)]
    there = {path.name[:2] for path in CHAPTERS}
    assert {number for number, state in rows if state != "in preparation"} == there


def test_the_map_of_the_package_is_complete() -> None:
    """A package that only holds others, and says nothing of itself, is no row."""
    shown = {row[1] for row in modules().rows}
    there = {path.relative_to(ROOT).as_posix() for path in (ROOT / "kvref").rglob("*.py") if path.stat().st_size}
    assert shown == there


def test_the_map_leads_to_the_files_and_begins_with_the_tour_of_the_readme() -> None:
    rows = modules().rows
    assert all((ROOT / "notebooks" / row[1].target).is_file() for row in rows)
    tour = (ROOT / "README.md").read_text().split("## A tour of the files")[1].split("\n## ")[0]
    wanted = re.findall(r"\]\((kvref/\S+\.py)\)", tour)
    assert [row[1] for row in rows if row[0]] == wanted and [row[0] for row in rows[:len(wanted)]] == [
        number for number, _ in enumerate(wanted, 1)]
