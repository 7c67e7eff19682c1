"""Exercises that judge themselves: what is wrong, and up to three hints.

    def encode(words): ...
    judge("02-1", encode)

The judges stand in `notebooks/exercises/`, one file for each chapter:

    @exercise("02-1", "The first line counts the words.", "...")
    def encode(solution):
        expect(solution, [b"GET", b"k"], wants=b"*2\\r\\n$3\\r\\nGET\\r\\n$1\\r\\nk\\r\\n")

Interface:
  - judge(id, solution)       print a verdict, and after a failure the next hint; never raises
  - exercise(id, *hints)      declares a judge: a function that raises Wrong, or lets the solution's own error through
  - expect(solution, *arguments, wants)     call, compare, raise Wrong with what came
  - Wrong                     one sentence: what is not right yet
"""

from __future__ import annotations

import runpy
import traceback
from collections.abc import Callable
from typing import Any

from kvref.lab import reader
from kvref.lab.questions import record

HINTS = 3
NOTHING = "There is nothing to judge yet."
Judge = Callable[[Any], None]
_judges: dict[str, tuple[Judge, tuple[str, ...]]] = {}
_failures: dict[str, int] = {}
_loaded: set[str] = set()


class Wrong(Exception):
    """What is not right yet."""


def exercise(id: str, *hints: str) -> Callable[[Judge], Judge]:
    """Declare the judge of the exercise "02-1", with at most three hints, from a nudge to nearly all."""
    def declare(check: Judge) -> Judge:
        assert 0 < len(hints) <= HINTS
        _judges[id] = check, hints
        return check
    return declare


def exercises(chapter: str) -> dict[str, tuple[Judge, tuple[str, ...]]]:
    """The judges and hints of chapter "02"."""
    path = reader.notebooks() / "exercises" / f"chapter_{chapter}.py"
    if chapter not in _loaded and path.is_file():
        runpy.run_path(str(path))
        _loaded.add(chapter)
    return {id: row for id, row in _judges.items() if id.partition("-")[0] == chapter}


def judge(id: str, solution: Any) -> None:
    """Try the solution out. Prints "Solved", or what is wrong and a hint: each further try gets the next one."""
    check, hints = exercises(id.partition("-")[0]).get(id, (None, ()))
    if check is None:
        print(f"There is no exercise {id!r}.")
        return
    complaint = _complaint(check, solution)
    record().note(id, solved=not complaint)
    if not complaint:
        _failures.pop(id, None)
        print("Solved.")
        return
    number = min(_failures.get(id, 0) + (complaint != NOTHING), len(hints)) or 1        # an empty stub uses up no hint
    _failures[id] = number
    print(f"Not yet. {complaint}\nHint {number} of {len(hints)}: {hints[number - 1]}")


def _complaint(check: Judge, solution: Any) -> str:
    try:
        check(solution)
    except Wrong as wrong:
        return str(wrong)
    except NotImplementedError:
        return NOTHING
    except Exception as error:
        return f"Your code raised {type(error).__name__}{_where(error)}: {error}"
    return ""


def _where(error: Exception) -> str:
    """The line of a cell, which is no file, where it was raised; "" where it was raised elsewhere."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__)
             if "ipykernel" in frame.filename or frame.filename.startswith("<ipython-input")]
    return f" in line {lines[-1]} of its cell" if lines else ""


def expect(solution: Callable[..., Any], *arguments: Any, wants: Any) -> None:
    """Call it; raise Wrong where it does not return what is wanted."""
    called = f"{getattr(solution, '__name__', 'your function')}({', '.join(map(repr, arguments))})"
    found = solution(*arguments)
    if found != wants:
        raise Wrong(f"{called} returned {found!r}. It should be {wants!r}.")
