"""Exercises that judge themselves: what is wrong, and up to three hints.

    def encode(words): ...
    judge("02-1", encode)

The judges stand in `notebooks/exercises/`, one file for each chapter:

    @exercise("02-1", "The first line counts the words.", "...")
    def encode(solution):
        "Against: a character is a byte."
        expect(solution, [b"GET", b"k"], wants=b"*2\\r\\n$3\\r\\nGET\\r\\n$1\\r\\nk\\r\\n")

The docstring names the misconception behind the exercise, for those who teach: `notebooks/teaching.md` lists them.

Interface:
  - judge(id, solution)       print a verdict, and after a failure the next hint; never raises
  - exercise(id, *hints)      declares a judge: a function that raises Wrong, or lets the solution's own error through
  - expect(solution, *arguments, wants)     call, compare, raise Wrong with what came
  - Wrong                     one sentence: what is not right yet
  - bounded(what)             around one small case: a loop without an end is Wrong at once, and `what` says where

A loop without an end must not take the reader's kernel with it. So each judge has its time: 10 seconds of work, 60 of
waiting. A thread looks at the clock meanwhile, and raises Endless in ours when it is over: that costs a solution
nothing, and needs no signal. Where there are no threads, lines are counted instead.
"""

from __future__ import annotations

import ctypes
import runpy
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from kvref.lab import reader
from kvref.lab.questions import record

HINTS = 3
NOTHING = "There is nothing to judge yet."
WORK_S = 10                     # seconds of the processor: a busy computer is not the reader's fault
WAIT_S = 60                     # seconds on the wall
LOOK_S = 0.05                   # between two looks at the clock
LINES = 1_000_000               # of Python, for one small case
LINES_IN_ALL = 30_000_000       # for a judge, where there are no threads
Judge = Callable[[Any], None]
_judges: dict[str, tuple[Judge, tuple[str, ...]]] = {}
_failures: dict[str, int] = {}
_loaded: set[str] = set()


class Wrong(Exception):
    """What is not right yet."""


class Endless(BaseException):
    """The time is over. No Exception, so that a solution does not catch it."""


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
        _in_time(check, solution)
    except Wrong as wrong:
        return str(wrong)
    except NotImplementedError:
        return NOTHING
    except Exception as error:
        return f"Your code raised {type(error).__name__}{_where(error)}: {error}"
    return ""


def _in_time(check: Judge, solution: Any) -> None:
    """As check(solution); Wrong when its time is over."""
    worked_s, began_s, ended = time.process_time(), time.monotonic(), threading.Event()
    ours = ctypes.c_ulong(threading.get_ident())

    def is_over() -> bool:
        return time.process_time() - worked_s > WORK_S or time.monotonic() - began_s > WAIT_S

    def watch() -> None:
        while not ended.wait(LOOK_S):
            if is_over():               # again and again: a solution may have caught the last one
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ours, ctypes.py_object(Endless))
    thread = threading.Thread(target=watch, name="judge", daemon=True)
    try:
        thread.start()
    except RuntimeError:                # in a browser
        with bounded("", LINES_IN_ALL):
            check(solution)
        return
    try:
        check(solution)
    except Endless:
        seconds, what = (WORK_S, "work") if time.process_time() - worked_s > WORK_S else (WAIT_S, "waiting")
        raise Wrong(f"After {seconds} seconds of {what} your code was still at it. Has a loop no end?") from None
    finally:
        while True:
            try:
                ended.set()
                thread.join()
                break
            except Endless:             # a last one, that was on its way
                pass


@contextmanager
def bounded(what: str, lines: int = LINES) -> Iterator[None]:
    """Wrong as soon as so many lines of Python were run; of kvref's own functions only the calls count."""
    left = lines

    def count(frame: Any, event: str, argument: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise Endless
        return None if frame.f_globals.get("__name__", "").startswith("kvref.") else count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        yield
    except Endless:
        if left >= 0:                   # not ours: the judge's time is over
            raise
        case = f"{what.rstrip('.')}: after" if what else "After"
        raise Wrong(f"{case} {lines:,} lines of Python your code was still at it. Has a loop no end?") from None
    finally:
        sys.settrace(before)


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
