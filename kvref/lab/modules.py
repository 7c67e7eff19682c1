"""The map of the package: every module, and the first line of what it says of itself.

Interface:
  - modules()    a Table: first the tour, numbered, then the others: core, commands, sim, lab
  - TOUR         the order in which the package is best read; the README has the same, with reasons

The files are read, not imported, so the map is true and needs nothing that a module may need.
"""

from __future__ import annotations

import ast
from pathlib import Path

import kvref
from kvref.lab.table import Link, Table

TOUR = ("resp.py", "ports.py", "eventloop.py", "database.py", "sampling.py", "command_table.py",
        "commands/strings.py", "commands/keys.py", "client.py", "expire.py", "memory.py", "evict.py", "server.py",
        "admission.py", "transactions.py", "blocking.py", "pubsub.py",
        "persistence/snapshot.py", "persistence/cursor.py", "persistence/rdb.py", "persistence/load.py",
        "persistence/aof.py", "machine.py", "sim/world.py", "config.py", "directives.py", "commands/info.py",
        "sim/inodes.py", "sim/faults.py", "sim/disk.py", "sim/survival.py", "sim/crashes.py", "sim/scenarios.py",
        "sim/recording.py", "sim/invariants.py", "sim/explorer.py", "sim/mutants.py", "sim/score.py", "sim/loss.py",
        "lab/plug.py")
ROOMS = ("", "commands", "persistence", "sim", "lab")       # the others, in this order


def modules() -> Table:
    """number on the tour, module, what it is for. Names link to the files, as seen from a folder beside the package."""
    root = Path(kvref.__file__).parent
    places = {root / name: number for number, name in enumerate(TOUR, 1)}
    paths = [*places, *(path for room in ROOMS for path in sorted((root / room).glob("*.py")) if path not in places)]
    return Table(("tour", "module", "what it is for"),
                 [(places.get(path, ""), _link(path, root), about) for path in paths if (about := _about(path))])


def _link(path: Path, root: Path) -> Link:
    name = path.relative_to(root.parent).as_posix()
    return Link(name, f"../{name}")


def _about(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return docstring.split("\n")[0]
