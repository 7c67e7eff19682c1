"""%%real: a cell that runs only where the computer is a real one.

    %%real
    with kvref.running() as server: ...

A notebook that is opened in a browser has no sockets, no fork and no threads. There a cell that begins with
%%real prints one sentence in place of an error, and *Run All* goes on.

Interface:
  - load(shell), unload(shell)   teach it to a notebook; `%load_ext kvref.lab` does so
  - missing()                    what this computer lacks: () on a real one

It is no function that runs the cell, but a step in reading it: the first line is taken off before Python sees
the cell. So everything else, tracebacks and line numbers too, is as in any other cell.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

MAGIC = "%%real"
SENTENCE = "This cell needs real sockets, processes and threads, which are missing here. Nothing below needs it."


def _sockets() -> None:
    with socket.create_server(("127.0.0.1", 0)):
        pass


def _processes() -> None:
    if sys.platform in ("emscripten", "wasi") or not hasattr(os, "fork"):
        raise OSError("no processes")


def _threads() -> None:
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()


NEEDS: dict[str, Callable[[], None]] = {"sockets": _sockets, "processes": _processes, "threads": _threads}


def missing() -> tuple[str, ...]:
    """Each need is tried out; the names of those that fail."""
    return tuple(name for name, attempt in NEEDS.items() if not _works(attempt))


def _works(attempt: Callable[[], None]) -> bool:
    try:
        attempt()
    except (OSError, RuntimeError, AttributeError, NotImplementedError):
        return False
    return True


class Real:
    """The step: lines of a cell in, lines of a cell out."""

    def __init__(self, possible: bool) -> None:
        self.possible = possible

    def __call__(self, lines: list[str]) -> list[str]:
        if not lines or lines[0].split() != [MAGIC]:
            return lines
        return ["\n", *lines[1:]] if self.possible else [f"print({SENTENCE!r})\n"]


def load(shell: Any) -> None:
    """From now on `shell` (an IPython shell) knows %%real."""
    unload(shell)
    shell.input_transformers_cleanup.append(Real(not missing()))


def unload(shell: Any) -> None:
    """Forget %%real."""
    steps = shell.input_transformers_cleanup
    steps[:] = [step for step in steps if not isinstance(step, Real)]
