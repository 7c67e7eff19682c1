"""Questions before answers: predict, and what became of the predictions.

    predict("02-cut", "What does the naive parser make of half a request?",
            {"a": "It waits.", "b": "It returns half a value."}, mine=None)

The reader sets mine="a" and runs the cell. With None, as committed, it prints the question and stops nothing.
The answers stand apart, in `notebooks/answers/02.toml`, so that a question does not give its answer away. Every wrong
option is a misconception: its name, why it is none, where to look.

    ["02-cut"]
    right = "b"
    why = "It looks for the end of the line, and does not know that more bytes belong to it."
    a = ["one recv is one request", "TCP delivers bytes, not messages.", "2 · A naive parser"]

Interface:
  - predict(id, question, options, mine)    ask; where there is an answer, judge it
  - concepts(test, mine)                    the twelve questions of the course, before it ("pre"), and after it in other
                                            words ("post"), with the same misconceptions, so that both can be compared
  - progress()                              a Table: what was asked, answered, and right at the first try
  - Record                                  the reader's answers, in progress.json where `open` has made one
  - answers(chapter)                        the file of a chapter, as a dict
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from kvref.lab import reader
from kvref.lab.table import Table

FILE = "progress.json"
TESTS = {"pre": "concept questions before the course", "post": "the same after it, in other words"}


# ---- the reader's answers ------------------------------------------------------------------------

class Record:
    """Answers by id: {"first": "a", "last": "b", "tries": 2}; of an exercise, {"solved": True, "tries": 3}.

    They are kept in the folder of the notebook, if `python -m kvref.lab open` has made a file for them there, and
    never leave this computer. A file that is not what we wrote stays untouched.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answers: dict[str, dict[str, Any]] = {}
        self.saved = path.is_file()
        self.read()

    def read(self) -> None:
        """What the file holds now: another chapter, open in a kernel of its own, may have written to it."""
        if not self.saved:
            return
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            self.answers = {str(id): dict(answer) for id, answer in content["answers"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            self.saved = False
            print(f"{self.path.name} cannot be read as it is; your answers are kept until this kernel ends.")

    def note(self, id: str, **answer: Any) -> None:
        """Remember one try. The file is replaced in one step: whenever this ends, it is whole."""
        self.read()
        old = self.answers.get(id, {})
        first = {"first": old["first"]} if "first" in old else {}
        tries = old.get("tries")
        self.answers[id] = {**answer, **first, "tries": (tries if isinstance(tries, int) else 0) + 1}
        if self.saved:
            content = json.dumps({"version": 1, "answers": self.answers}, indent=1)
            new = self.path.with_suffix(".new")
            try:
                new.write_text(content + "\n", encoding="utf-8")
                new.replace(self.path)
            except OSError as error:
                print(f"{self.path.name} was not written: {error.strerror}")


@cache
def record() -> Record:
    """The one of this kernel."""
    return Record(Path.cwd() / FILE)


# ---- asking --------------------------------------------------------------------------------------

def predict(id: str, question: str, options: Mapping[str, str], mine: str | None = None) -> None:
    """Ask, or judge the answer `mine`, a letter of `options`. Never raises."""
    print(question)
    for letter, text in options.items():
        print(f"  ({letter}) {text}")
    if mine is None:
        print('Your prediction: put mine="' + next(iter(options), "a") + '" or another letter, and run the cell.')
        return
    letter = str(mine).strip().lower().strip("()")
    answer = answers(id.partition("-")[0]).get(id)
    if answer is None:
        return print(f"There is no answer for {id!r}.")
    if letter not in options:
        return print(f"mine={mine!r} is none of the letters {', '.join(options)}.")
    record().note(id, first=letter, last=letter, right=letter == answer["right"])
    print("\n" + verdict(letter, answer))


def verdict(letter: str, answer: dict[str, Any]) -> str:
    if letter == answer["right"]:
        return f"({letter}) it is. {answer['why']}"
    name, why_not, where = answer[letter]
    return f"({letter}) is a misconception: *{name}*. {why_not}\nWhere to look: {where}"


@cache
def answers(chapter: str) -> dict[str, Any]:
    """The answers of "02", "pre" or "post"; {} where there are none."""
    if chapter in TESTS:
        return {f"{chapter}-{name}": question["post"] if chapter == "post" else question
                for name, question in answers("concepts").items()}
    path = reader.notebooks() / "answers" / f"{chapter}.toml"
    return tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def concepts(test: str, mine: Mapping[int, str] = {}) -> None:
    """Ask the twelve concept questions; note `mine`, letters by number. After the course, judge them. Never raises."""
    for number, (id, question) in enumerate(answers(test).items(), 1):
        given = str(mine.get(number, "")).strip().lower()
        print(f"{number:2d}. {question['ask']}")
        for letter, text in question["options"].items():
            print(f"    {'>' if letter == given else ' '} ({letter}) {text}")
        if given in question["options"]:
            record().note(id, first=given, last=given, right=given == question["right"])
            if test == "post":
                print("      " + verdict(given, question).replace("\n", "\n      "))
    noted = sum(f"{test}-{name}" in record().answers for name in answers("concepts"))
    print(f"{noted} of {len(answers(test))} answers noted." if noted else
          'Your answers: put mine={1: "a", 2: "c", ...} and run the cell. They are noted'
          + (", not judged." if test == "pre" else ", and judged at once."))


# ---- what became of it ---------------------------------------------------------------------------

def progress() -> Any:
    """What this reader has predicted and solved so far: a Table, or one sentence where there is nothing yet."""
    record().read()
    known = record().answers
    if not known:
        return Sentence("Nothing answered yet. Answers to predict and judge are counted here.")
    chapters = {id.partition("-")[0] for id in known}
    rows = [_row(chapter, known) for chapter in ("pre", *sorted(chapters - {*TESTS}), "post") if chapter in chapters]
    twice = {id: known[id] for id in known if all(f"{test}-{id.partition('-')[2]}" in known for test in TESTS)}
    before, after = _held("pre", twice), _held("post", twice)
    moved = [(name, *("yes" if name in held else "no" for held in (before, after)))
             for name in dict.fromkeys(before + after)]
    table = Table(("chapter", "predicted", "of", "right at first", "exercises solved"), rows)
    return Tables(table, Table(("misconception", "before the course", "after it"), moved)) if moved else table


def _row(chapter: str, known: dict[str, dict[str, Any]]) -> tuple[object, ...]:
    asked = answers(chapter)
    here = {id: answer for id, answer in known.items() if id.partition("-")[0] == chapter}
    first = [answer["first"] == asked[id]["right"] for id, answer in here.items() if id in asked and "first" in answer]
    solved = [bool(answer["solved"]) for answer in here.values() if "solved" in answer]
    judged = chapter != "pre" or any(id.startswith("post-") for id in known)        # before that it would tell
    return TESTS.get(chapter, chapter), len(first), len(asked), sum(first) if judged else "", sum(solved)


def _held(test: str, known: dict[str, dict[str, Any]]) -> list[str]:
    """The misconceptions that the answers to this test show."""
    return [answer[given][0] for id, answer in answers(test).items()
            if isinstance(answer.get(given := str(known.get(id, {}).get("first"))), list)]


class Sentence(str):
    """Text that a notebook shows without quotes."""

    def __repr__(self) -> str:
        return str(self)


class Tables:
    """Several tables, one under the other."""

    def __init__(self, *tables: Table) -> None:
        self.tables = tables

    def __repr__(self) -> str:
        return "\n\n".join(map(repr, self.tables))

    def _repr_html_(self) -> str:
        return "\n".join(table._repr_html_() for table in self.tables)
