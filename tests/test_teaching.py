"""The page for those who teach: its tables are those of the notebooks, its minutes add up, what it says to run runs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import nbformat
import pytest
from nbclient import NotebookClient

from kvref.lab import judging, questions, reader
from tests import teaching
from tests.teaching import FOUR_WEEKS, NOTEBOOKS, PAGE, TERM, Chapter, chapters

TEXT = PAGE.read_text(encoding="utf-8")
README = (NOTEBOOKS.parent / "README.md").read_text(encoding="utf-8")
WORDS_MAX = 3100                        # of prose, its tables apart
LECTURE, NINETY = (TEXT.partition(f"## {name}")[2].partition("\n## ")[0] for name in ("One lecture", "The lecture in ninety minutes"))
CELLS = re.compile(r"\[chapter (\w+), cells? (\d+)(?: (?:to|and) (\d+))?\]\(([^)#]+)#([^)]+)\)")
each = pytest.mark.parametrize("chapter", chapters().values(), ids=lambda chapter: chapter.number)


def anchor(heading: str) -> str:
    return heading.replace(" ", "-")


def test_its_tables_are_those_of_the_notebooks() -> None:
    assert {name for _, name in teaching.MARK.findall(TEXT)} == set(teaching.TABLES)
    assert teaching.page(TEXT) == TEXT, "run python -m tests.teaching"


@each
def test_every_exercise_names_the_misconception_behind_it(chapter: Chapter) -> None:
    for exercise in chapter.exercises:
        assert 10 < len(teaching.against(exercise.id)) < 90, f"{exercise.id}: its judge needs a docstring, Against: ..."


@each
def test_all_of_its_predictions_and_exercises_were_found(chapter: Chapter) -> None:
    assert [asked.id for asked in chapter.predictions] == list(questions.answers(chapter.number))
    assert [done.id for done in chapter.exercises] == list(judging.exercises(chapter.number))


@each
def test_its_minutes_are_those_of_the_readme_and_near_an_estimate(chapter: Chapter) -> None:
    assert f"]({NOTEBOOKS.name}/{chapter.file}) | {chapter.minutes} minutes |" in README
    assert abs(chapter.minutes - chapter.estimate) <= 10


@each
def test_the_term_has_each_chapter_once(chapter: Chapter) -> None:
    assert [chapter.number for week in TERM for number in (*week[1].split(), *week[2].split())
            if number == chapter.number] == [chapter.number]


@pytest.mark.parametrize("weeks", [FOUR_WEEKS, TERM], ids=["four weeks", "term"])
def test_a_path_sets_no_exercise_before_its_chapter(weeks: teaching.Weeks) -> None:
    met: set[str] = set()
    for _, in_class, at_home, done in weeks:
        met |= {*in_class.split(), *at_home.split()}
        for id in done.split():
            number = id.partition("-")[0]
            assert number in met
            there = [exercise.id for exercise in chapters()[number].exercises] if number in chapters() else [id]
            assert id == number or id in there


def test_its_prose_can_be_read_in_a_quarter_of_an_hour() -> None:
    prose = re.sub(r"```.*?```", "", teaching.MARK.sub("", TEXT), flags=re.S)
    assert len(re.findall(r"\S*\w\S*", prose)) <= WORDS_MAX


def test_every_link_leads_somewhere() -> None:
    own = {anchor(re.sub(r"[^\w -]", "", heading).lower()) for heading in re.findall(r"^#+ (.+)$", TEXT, re.M)}
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXT):
        file, _, place = target.partition("#")
        if target.startswith("#"):
            assert place in own, target
        elif not target.startswith("http"):
            assert (NOTEBOOKS / file).exists(), target
            found = [chapter for chapter in chapters().values() if chapter.file == file]
            assert not place or place in map(anchor, found[0].sections.values()), target


# ---- the lecture ---------------------------------------------------------------------------------

def rows(text: str) -> list[list[str]]:
    return [line.strip("| ").split(" | ") for line in text.splitlines() if re.match(r"\| \d+ \|", line)]


def test_the_evening_takes_three_hours_and_the_lecture_fifty_minutes_or_ninety() -> None:
    evening = TEXT.split("## Your evening")[1].split("\n## ")[0]
    assert "Three hours" in evening and sum(int(row[0]) for row in rows(evening)) == 180
    assert [sum(int(row[0]) for row in rows(text)) for text in (LECTURE, NINETY)] == [50, 90 - 50]


def run(chosen: list[tuple[str, int]]) -> None:
    """These cells of one chapter, and no others, in this order."""
    code = {file: [cell for cell in nbformat.read(NOTEBOOKS / file, as_version=4).cells if cell.cell_type == "code"] for file, _ in chosen}
    NotebookClient(nbformat.v4.new_notebook(cells=[code[file][number - 1] for file, number in chosen]), kernel_name="python3", timeout=120,
                   resources={"metadata": {"path": str(NOTEBOOKS)}}).execute()


def test_the_cells_of_the_lecture_stand_where_it_says_and_run_in_its_order() -> None:
    """The price, which comes last, needs no more of chapter 11a than the ninety minutes have run."""
    chosen: dict[str, list[tuple[str, int]]] = {}
    for text in (NINETY, LECTURE):
        for number, first, last, file, place in CELLS.findall(text):
            chapter, cells = chapters()[number], range(int(first), int(last or first) + 1)
            assert chapter.file == file and anchor(chapter.sections[cells[0]]) == place
            asked = {asked.id for asked in chapter.predictions if asked.cell in cells}
            row = next(line for line in text.splitlines() if f"cells {first} " in line and file in line)
            assert asked == set(re.findall(r"`(\d\w+-\w+)`", row))
            chosen.setdefault(file, []).extend((file, cell) for cell in cells)
    assert sorted(map(len, chosen.values())) == [3, 13, 14]
    for cells_of_one in chosen.values():
        run(cells_of_one)


# ---- what it says to run -------------------------------------------------------------------------

def block(language: str, beginning: str) -> str:
    """The block of code in the page that begins so."""
    found = [code for code in re.findall(rf"```{language}\n(.*?)```", TEXT, re.S) if code.startswith(beginning)]
    assert len(found) == 1
    return str(found[0])


def test_the_gain_is_counted_from_the_collected_files(tmp_path: Path) -> None:
    def collected(before: int, after: int) -> str:
        given = {id: {"first": question["right"] if number < count else "z", "last": question["right"], "tries": 2}
                 for test, count in (("pre", before), ("post", after))
                 for number, (id, question) in enumerate(questions.answers(test).items())}
        return json.dumps({"version": 1, "answers": given})
    (tmp_path / "collected").mkdir()
    for name, counts in (("ann", (4, 8)), ("bob", (12, 12))):
        (tmp_path / "collected" / f"{name}.json").write_text(collected(*counts))
    said = subprocess.run([sys.executable, "-c", block("python", "import json")], cwd=tmp_path, capture_output=True,
                          text=True, env={"PYTHONPATH": str(NOTEBOOKS.parent)})
    assert said.stdout.splitlines() == ["ann: 4, then 8 of 12; gain 0.50",
                                        "bob: 12, then 12 of 12; gain nothing left to gain"]


def test_the_hub_gives_each_student_a_course_without_outputs(tmp_path: Path) -> None:
    config = MagicMock()
    said = block("python", "# jupyterhub_config.py").replace("/srv/course", str(tmp_path))
    exec(said, {"get_config": lambda: config})
    for name in ("ann", "bob"):
        (tmp_path / name).mkdir()
        config.Spawner.pre_spawn_hook(MagicMock(user=SimpleNamespace(name=name)))
    for name in ("ann", "bob"):
        first = nbformat.read(tmp_path / name / "my-course" / reader.FIRST, as_version=4)
        assert not any(cell.get("outputs") for cell in first.cells)
        assert all((tmp_path / name / file).is_file() for file in ("my-course/progress.json", "kvref/resp.py", "README.md"))


def test_a_package_that_is_installed_as_a_copy_finds_the_checkout_that_it_runs_in(tmp_path: Path) -> None:
    """Binder runs `pip install .` behind requirements.txt, and opens the notebooks in their own folder."""
    shutil.copytree(NOTEBOOKS.parent / "kvref", tmp_path / "kvref")

    def judged(folder: Path) -> str:
        words = [sys.executable, "-c", "from kvref.lab import judge; judge('00-1', None)"]
        run = subprocess.run(words, cwd=folder, capture_output=True, text=True, env={"PYTHONPATH": str(tmp_path)})
        return run.stdout + run.stderr
    assert judged(NOTEBOOKS).startswith("Not yet. There is nothing to judge yet.")
    assert "LabError: there is no 00-start-here.ipynb" in judged(tmp_path)


def test_a_reader_does_not_get_this_page() -> None:
    assert Path(PAGE.name) not in set(reader._files(NOTEBOOKS))
