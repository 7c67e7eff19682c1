"""The chapters, run without Jupyter: as in a browser, and to see which lines they visit.

    python -m tests.chapters run [NOTEBOOK ...]     without sockets, fork, threads and matplotlib; compares what is printed
    python -m tests.chapters unvisited              the lines of the mechanisms that no chapter has run

A notebook in a browser has no sockets, no fork and no threads. There `%%real` cells print one sentence, and all
others must print what is committed.
"""

from __future__ import annotations

import argparse
import builtins
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import nbformat
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from traitlets.config import Config

import kvref
from kvref.lab.figures import MISSING
from kvref.lab.real import SENTENCE
from tests.test_structure import MODULES

ROOT = Path(__file__).parent.parent
CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MECHANISMS = {str(module.path): module for module in MODULES.values() if module.room == "core"}


def block() -> None:
    """From now on this process has no sockets, no fork, no threads, no `resource` and no matplotlib, like a browser."""
    real_import = builtins.__import__

    def refuse(*words: Any, **options: Any) -> Any:
        raise RuntimeError("this is missing here, as it is in a browser")

    def import_(name: str, *more: Any, **options: Any) -> Any:
        if name.split(".")[0] in ("matplotlib", "resource"):
            raise ImportError(f"No module named {name!r}")
        return real_import(name, *more, **options)
    socket.socket.__init__ = refuse                 # type: ignore[method-assign]
    threading.Thread.start = refuse                 # type: ignore[method-assign]
    del os.fork
    builtins.__import__ = import_


def new_shell() -> InteractiveShell:
    """IPython without history, which would need a thread, and without colours."""
    shell = InteractiveShell(config=Config({"HistoryManager": {"enabled": False}}))
    shell.run_line_magic("colors", "NoColor")
    return shell


def play(path: Path, shell: InteractiveShell) -> Iterator[tuple[Any, str]]:
    """Run each code cell; yields it with what it printed."""
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            with capture_output() as said:
                shell.run_cell(cell.source)
            yield cell, said.stdout + "".join(output.data.get("text/plain", "") for output in said.outputs)


def expected(cell: Any) -> str:
    """What is committed, as text; of an error its last line."""
    if cell.source.startswith("%%real"):
        return SENTENCE
    return "".join(output.get("text", "") + output.get("data", {}).get("text/plain", "") + output.get("evalue", "") + "\n"
                   for output in cell.outputs if "image/png" not in output.get("data", {}))


def same(said: str, wanted: str, cell: Any) -> bool:
    if "raises-exception" in cell.metadata.get("tags", []):
        return wanted.strip().splitlines()[-1] in said
    return _plain(said) == _plain(wanted)


def _plain(text: str) -> list[str]:
    text = re.sub(r"^Out\[\d+\]: ?", "", text, flags=re.M).replace(MISSING, "")
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def differences(path: Path) -> list[str]:
    """Run the notebook in this process, which is blocked for ever after."""
    shell = new_shell()
    block()
    return [f"{path.name}, cell {cell.id}: printed\n{said}\nin place of\n{expected(cell)}"
            for cell, said in play(path, shell) if not same(said, expected(cell), cell)]


# ---- which lines the chapters visit --------------------------------------------------------------

def visited(path: Path) -> dict[str, set[int]]:
    """Lines of the mechanisms that the notebook runs in this process, by file."""
    lines: dict[str, set[int]] = {name: set() for name in MECHANISMS}

    def tracer(frame: FrameType, event: str, argument: object) -> Any:
        seen = lines.get(frame.f_code.co_filename)
        if seen is None:
            return None

        def local(frame: FrameType, event: str, argument: object) -> Any:
            seen.add(frame.f_lineno)
            return local
        return local(frame, event, argument)
    shell = new_shell()
    sys.settrace(tracer)
    for _ in play(path, shell):
        pass
    sys.settrace(None)
    return lines


def unvisited(paths: list[Path]) -> dict[str, list[int]]:
    """Lines of functions in the mechanisms that no chapter has run, by module. Each chapter has a process of its own."""
    seen: dict[str, set[int]] = {name: set() for name in MECHANISMS}
    children = [subprocess.Popen([sys.executable, "-m", "tests.chapters", "visit", str(path)], cwd=ROOT, text=True,
                                 stdout=subprocess.PIPE) for path in paths]
    for child in children:
        for name, lines in json.loads(child.communicate()[0]).items():
            seen[name].update(lines)
    return {MECHANISMS[name].name: sorted(_statements(name) - lines) for name, lines in seen.items()}


def _statements(name: str) -> set[int]:
    """The lines inside functions that hold code of their own."""
    def inside(code: Any) -> Iterator[int]:
        for constant in code.co_consts:
            if hasattr(constant, "co_lines"):
                if not constant.co_name.startswith("<") and constant.co_flags & 0x2:        # a function, no class body
                    yield from (line for _, _, line in constant.co_lines() if line and line > constant.co_firstlineno)
                yield from inside(constant)
    return set(inside(compile(Path(name).read_text(), name, "exec")))


def listing(paths: list[Path] = CHAPTERS) -> str:
    """The lines that no chapter visits, and the share of those that one does."""
    missing = unvisited(paths)
    total = sum(len(_statements(name)) for name in MECHANISMS)
    share = 1 - sum(map(len, missing.values())) / total
    rows = [f"{name:32} {len(lines):4d}  {_spans(lines)}" for name, lines in missing.items() if lines]
    return "\n".join([*rows, f"{share:.0%} of {total} lines of the mechanisms are run by a chapter"])


def _spans(lines: list[int]) -> str:
    spans: list[list[int]] = []
    for line in lines:
        if spans and line - spans[-1][1] <= 1:
            spans[-1][1] = line
        else:
            spans.append([line, line])
    return " ".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chapters", description=__doc__.split("\n")[0])
    parser.add_argument("do", choices=["run", "unvisited", "visit"])
    parser.add_argument("notebooks", nargs="*", type=Path)
    options = parser.parse_args()
    os.environ.setdefault("MPLBACKEND", "agg")
    if options.do == "unvisited":
        print(listing())
        return 0
    if options.do == "visit":
        print(json.dumps({name: sorted(lines) for name, lines in visited(options.notebooks[0]).items()}))
        return 0
    if len(options.notebooks) != 1:         # a blocked process cannot be opened again: one process for each
        return max(subprocess.call([sys.executable, "-m", "tests.chapters", "run", str(path)], cwd=ROOT)
                   for path in options.notebooks or CHAPTERS)
    found = differences(options.notebooks[0])
    print("\n\n".join(found) or f"{options.notebooks[0].name}: as committed")
    return bool(found)


if __name__ == "__main__":
    assert kvref.__file__
    sys.exit(main())
