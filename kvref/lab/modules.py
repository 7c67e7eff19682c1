"""The map of the package: every module, and the first line of what it says of itself.

Interface:
  - modules()    a Table: core, commands, sim, lab

The files are read, not imported, so the map is true and needs nothing that a module may need.
"""

from __future__ import annotations

import ast
from pathlib import Path

import kvref
from kvref.lab.table import Table

ROOMS = ("", "commands", "persistence", "sim", "lab")       # in the order of reading


def modules() -> Table:
    """module, what it is for."""
    root = Path(kvref.__file__).parent
    found = []
    for room in ROOMS:
        for path in sorted((root / room).glob("*.py")):
            about = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            if about:
                found.append((path.relative_to(root.parent).as_posix(), about.split("\n")[0]))
    return Table(("module", "what it is for"), found)
