"""The tables of notebooks/teaching.md, the page for those who teach: minutes, misconceptions, paths through the course.

    python -m tests.teaching        writes them into the page, each between its two marks

Minutes of a chapter are those that it states; beside them stands an estimate: 200 words a minute, 20 lines of code,
half a minute for the output of a cell and for a prediction, and for the twelve concept questions ten. Exercises state
their minutes. A prediction's misconceptions come from `notebooks/answers/`, an exercise's from the docstring of its
judge: `Against: one recv is one request.`

Interface:
  - chapters()          every chapter, by its number
  - page(text)          the text of the page with its tables written anew
  - against(id)         the misconception behind an exercise; "" where its judge names none
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import nbformat

from kvref.lab import judging, questions

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
PAGE = NOTEBOOKS / "teaching.md"
WORDS, LINES, LOOK, CONCEPTS = 200, 20, 0.5, 10         # a minute; a minute; minutes a cell or prediction; all twelve
MARK = re.compile(r"(<!-- table: (\w+) -->\n).*?(?=<!-- end -->)", re.S)

Week = tuple[str, str, str, str]
Weeks = tuple[Week, ...]

# Which chapters are run in class, read at home, and which exercises are done. "14" stands for all of its exercises.
FOUR_WEEKS: Weeks = (
    ("What OK is worth", "00 03", "01", "00-2 00-3 01-1 03-1"),
    ("Snapshots and the log", "06 09", "04", "06-1 06-2 09-1 09-2"),
    ("The plug, and two clients", "11a 08", "10", "08-1 08-2 11a-1 11a-2"),
    ("Messages, and all together", "12 14", "", "12-1 12-2 14"),
)
TERM: Weeks = (
    ("What OK is worth", "00", "", "00-1 00-2 00-3"),
    ("A dict moves out; bytes on a wire", "02", "01", "01-1 01-2 02-1 02-3"),
    ("One thread", "03", "", "03-1 03-2 03-3"),
    ("Keys that die", "04", "", "04-1 04-2 04-3"),
    ("A cache is a bet", "05", "", "05-1 05-2 05-3"),
    ("A picture of one moment", "06", "", "06-1 06-2 06-3"),
    ("Its bytes", "07", "", "07-1 07-2 07-3"),
    ("Several commands that belong together", "08", "", "08-1 08-2 08-3"),
    ("A log", "09", "", "09-1 09-2 09-3"),
    ("The next start", "10", "", "10-1 10-2 10-3"),
    ("Every crash there is", "11a", "", "11a-1 11a-2 11a-3"),
    ("You are the detective", "11b", "", "11b-1 11b-2 11b-3"),
    ("Messages; real clients", "12", "13", "12-1 12-2 12-3"),
    ("All together", "14", "", "14"),
)


@dataclass
class Prediction:
    """One call of predict(...), and where it stands."""

    id: str
    cell: int
    heading: str


@dataclass
class Exercise:
    """One call of judge(...), with what the text before it says."""

    id: str
    title: str
    minutes: int


@dataclass
class Chapter:
    """What a notebook says of itself."""

    number: str
    file: str
    title: str
    minutes: int
    words: int = 0
    lines: int = 0
    cells: int = 0
    predictions: list[Prediction] = field(default_factory=list)
    exercises: list[Exercise] = field(default_factory=list)
    sections: dict[int, str] = field(default_factory=dict)      # the heading over each code cell

    @property
    def estimate(self) -> int:
        """Minutes to read and run it, without its exercises."""
        asked = CONCEPTS if self.number in ("00", "14") else 0
        looks = LOOK * (self.cells + len(self.predictions))
        return round(self.words / WORDS + self.lines / LINES + looks + asked)

    @property
    def link(self) -> str:
        return f"[{self.number} · {self.title}]({self.file})"


@cache
def chapters() -> dict[str, Chapter]:
    """Every chapter that exists, by its number."""
    return {chapter.number: chapter for chapter in map(_read, sorted(NOTEBOOKS.glob("*.ipynb")))}


def _read(path: Path) -> Chapter:
    cells = nbformat.read(path, as_version=4).cells
    prose = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    number, title = re.findall(r"^# (\w+) · (.+)$", prose, re.M)[0]
    chapter = Chapter(number, path.name, title, int(re.findall(r"\*\*Time:\*\* (\d+) minutes", prose)[0]))
    heading, code, told = "", 0, re.findall(r"\*\*([^*]+?)\**\s*\((\d+) minutes\)", prose)
    for cell in cells:
        if cell.cell_type == "markdown":
            text, exercises, _ = cell.source.partition("## Exercises")
            heading = (re.findall(r"^#+ (.+)$", cell.source, re.M) or [heading])[-1]
            chapter.words += 0 if chapter.exercises else len(re.findall(r"\S*\w\S*", text))
            continue
        code += 1
        chapter.sections[code] = heading
        chapter.predictions += [Prediction(id, code, heading)
                                for id in re.findall(r"^predict\(\s*\"([\w-]+)\"", cell.source, re.M)]
        if judged := re.search(r"^judge\(\s*\"([\w-]+)\"", cell.source, re.M):
            bold, minutes = told[len(chapter.exercises)]
            name = re.sub(r"^(Exercise )?\d+( · )?", "", bold).strip()
            chapter.exercises.append(Exercise(judged[1], name, int(minutes)))
        elif not chapter.exercises:
            chapter.cells += 1
            chapter.lines += sum(map(bool, map(str.strip, cell.source.splitlines())))
    return chapter


def against(id: str) -> str:
    """What the exercise is against: the first line of its judge's docstring."""
    judge, _ = judging.exercises(id.partition("-")[0])[id]
    found = re.match(r"Against: (.+)\.(?:\n|$)", judge.__doc__ or "")
    return found[1] if found else ""


# ---- the tables ----------------------------------------------------------------------------------

def _table(head: tuple[str, ...], rows: list[tuple[object, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def overview() -> str:
    """The chapters and their minutes."""
    rows: list[tuple[object, ...]] = []
    for chapter in chapters().values():
        minutes = [exercise.minutes for exercise in chapter.exercises]
        rows.append((chapter.link, chapter.minutes, chapter.estimate, f"{chapter.words:,}", chapter.cells,
                     len(chapter.predictions), " + ".join(map(str, minutes)), chapter.minutes + sum(minutes)))
    read, done = (sum(int(str(row[column])) for row in rows) for column in (1, -1))
    rows.append(("**together**", f"**{read:,}**", "", "", "", "", "", f"**{done:,}**"))
    return _table(("chapter", "minutes", "estimate", "words", "cells", "predictions", "exercises, minutes", "all"),
                  rows)


def _minutes(number: str) -> int:
    return chapters()[number].minutes if number in chapters() else 0


def _exercises(words: str) -> list[Exercise]:
    ids = words.split()
    return [exercise for chapter in chapters().values() for exercise in chapter.exercises
            if exercise.id in ids or chapter.number in ids]


def _spent(week: Week) -> tuple[int, int, int]:
    """Minutes in class, of reading at home, of exercises."""
    _, in_class, at_home, done = week
    return (sum(map(_minutes, in_class.split())), sum(map(_minutes, at_home.split())),
            sum(exercise.minutes for exercise in _exercises(done)))


def _sums(weeks: Weeks) -> list[int]:
    return [sum(column) for column in zip(*map(_spent, weeks))]


def path(weeks: Weeks) -> str:
    """A row for each week: the class, what is read at home, exercises."""
    rows: list[tuple[object, ...]] = []
    for number, week in enumerate(weeks, 1):
        title, in_class, at_home, done = week
        shown = (_named(in_class), _named(at_home), ", ".join(exercise.id for exercise in _exercises(done)))
        spent = _spent(week)
        rows.append((number, title, *(f"{what}: {minutes}" if minutes else what or "-"
                                      for what, minutes in zip(shown, spent)), sum(spent)))
    sums = _sums(weeks)
    rows.append(("", "**together**", *(f"**{minutes:,}**" for minutes in (*sums, sum(sums)))))
    return _table(("week", "", "in class: minutes", "read at home: minutes", "exercises: minutes", "all"), rows)


def paths() -> str:
    """The three ways through the course, as sums."""
    rows: list[tuple[object, ...]] = [("[one lecture](#one-lecture-what-is-an-ok-worth)", "1 class of 50 or 90", "50 or 90", "-",
                                       "say what an OK is worth, in four words")]
    for name, weeks, when, can in (
            ("[four weeks](#four-weeks)", FOUR_WEEKS, "8 classes of 50",
             "choose a way of saving, and say what it loses and what it costs"),
            ("[a term](#a-term)", TERM, "14 classes of 50, 14 labs of 100",
             "change the server, and let the explorer judge whether it keeps its promises")):
        in_class, at_home, done = _sums(weeks)
        rows.append((name, when, in_class, at_home + done, can))
    return _table(("path", "", "chapters in class, minutes", "reading and exercises, minutes", "in the end they can"),
                  rows)


def _named(numbers: str) -> str:
    return ", ".join(number if number in chapters() else f"{number} (in preparation)" for number in numbers.split())


def misconceptions() -> str:
    """Of each chapter all predictions and exercises, and what is behind them."""
    parts = []
    for chapter in chapters().values():
        answers = questions.answers(chapter.number)
        asked: list[tuple[object, ...]] = [
            (f"`{prediction.id}`, cell {prediction.cell}", _section(chapter, prediction.heading),
             answers[prediction.id]["right"], _wrong(answers[prediction.id])) for prediction in chapter.predictions]
        set_: list[tuple[object, ...]] = [
            (f"`{exercise.id}`", exercise.title, exercise.minutes, f"*{against(exercise.id)}*")
            for exercise in chapter.exercises]
        parts.append(f"### {chapter.number} · {chapter.title}\n\n"
                     + _table(("prediction", "section", "right", "each wrong answer is a misconception"), asked) + "\n"
                     + _table(("exercise", "", "minutes", "the misconception behind it"), set_))
    return "\n" + "\n".join(parts) + "\n"


def _section(chapter: Chapter, heading: str) -> str:
    return f"[{heading}]({chapter.file}#{heading.replace(' ', '-')})"


def _wrong(answer: dict[str, object]) -> str:
    return "; ".join(f"{letter}: *{misconception[0]}*" for letter, misconception in sorted(answer.items())
                     if isinstance(misconception, list))


def concepts() -> str:
    """The twelve questions of the pre-test and the post-test."""
    rows: list[tuple[object, ...]] = []
    for number, (name, question) in enumerate(questions.answers("concepts").items(), 1):
        shown = next(answer[2] for answer in question.values() if isinstance(answer, list))
        rows.append((number, f"`{name}`", shown.removeprefix("chapter "), question["right"], question["post"]["right"],
                     _wrong(question)))
    return _table(("", "question", "chapter", "right before", "right after", "each wrong answer before is a misconception"), rows)


TABLES = {"paths": paths, "overview": overview, "weeks": lambda: path(FOUR_WEEKS), "term": lambda: path(TERM),
          "misconceptions": misconceptions, "concepts": concepts}


def page(text: str) -> str:
    """The page with its tables as they should be."""
    return MARK.sub(lambda found: found[1] + TABLES[found[2]](), text)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
