"""The shape of the package: who may import whom, how large things may be, what the core must never do.

`python -m tests.test_structure` prints the sizes.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "kvref"

# Code of these rooms may see the real computer: it implements the ports, or belongs to a process of its own.
# The explorer is no part of the computer that it simulates: it has its work done by processes, and its shell looks at
# the clock.
REAL = {"kvref", "kvref.__main__", "kvref.files", "kvref.machine", "kvref.process", "kvref.sim.explorer",
        "kvref.sim.__main__"}
COMPUTER = {"time", "random", "socket", "os", "threading", "selectors", "signal", "subprocess", "asyncio", "select",
            "tempfile", "shutil", "pathlib", "multiprocessing", "secrets", "uuid", "datetime"}
LAB_ONLY = {"IPython", "cycler", "matplotlib", "nbformat", "nbconvert", "nbclient", "jupyterlab", "ipykernel", "traitlets",
            "redis", "bs4", "mistune", "pygments"}      # the last three come with nbconvert

BUDGETS = {"mechanisms": 4220, "persistence": 2200, "legacy": 250, "files": 450, "commands": 2750, "sim": 1760,
           "laboratory": 1815, "lab": 2745}         # lines of code
LABORATORY = {"scenarios", "recording", "invariants", "explorer", "loss", "mutants", "score"}      # of kvref.sim
MODULE_MAX = 420
FUNCTION_MAX = 62
LINE_MAX = 120


@dataclass
class Module:
    """One file of the package."""

    name: str
    path: Path

    @cached_property
    def text(self) -> str:
        return self.path.read_text()

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def room(self) -> str:
        """core, commands, sim or lab."""
        parts = self.name.split(".")
        return parts[1] if len(parts) > 1 and parts[1] in ("commands", "sim", "lab") else "core"

    @cached_property
    def code_lines(self) -> set[int]:
        """The numbers of the lines that hold code: no comments, no docstrings, no blanks."""
        silent = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
        tokens = tokenize.generate_tokens(io.StringIO(self.text).readline)
        lines = {line for token in tokens if token.type not in silent
                 for line in range(token.start[0], token.end[0] + 1)}
        return lines - {line for node in ast.walk(self.tree) if (doc := _docstring(node))
                        for line in range(doc.lineno, (doc.end_lineno or doc.lineno) + 1)}

    @cached_property
    def imports(self) -> list[tuple[str, str, bool]]:
        """(module, name or "", only for typing) of every import, also of those inside functions."""
        typing_only = {id(node) for block in ast.walk(self.tree) if isinstance(block, ast.If)
                       and ast.unparse(block.test).endswith("TYPE_CHECKING")
                       for child in block.body for node in ast.walk(child)}
        found = []
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found += [(alias.name, "", id(node) in typing_only) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                found += [(self._absolute(node), alias.name, id(node) in typing_only) for alias in node.names]
        return found

    def _absolute(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = self.name.split(".")
        base = parts[:len(parts) - node.level + (self.path.name == "__init__.py")]
        return ".".join([*base, node.module] if node.module else base)


def _docstring(node: ast.AST) -> ast.Expr | None:
    body = getattr(node, "body", None)
    if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) or not body:
        return None
    first = body[0]
    return first if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(
        first.value.value, str) else None


def _modules() -> dict[str, Module]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = Module(name, path)
    return found


MODULES = _modules()
PURE = [module for module in MODULES.values() if module.room != "lab" and module.name not in REAL]


def each(modules: list[Module]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("module", modules, ids=lambda module: module.name)


def targets(module: Module) -> Iterator[str]:
    """The modules of this package that this one needs in order to run."""
    for name, attribute, typing_only in module.imports:
        if name.split(".")[0] == "kvref" and not typing_only:
            yield f"{name}.{attribute}" if f"{name}.{attribute}" in MODULES else name


# --- arrows ----------------------------------------------------------------------------------------------------------

def test_arrows_point_from_lab_to_sim_to_core() -> None:
    below = {"lab": (), "sim": ("kvref.lab",), "core": ("kvref.sim", "kvref.lab"), "commands": ("kvref.sim", "kvref.lab")}
    wrong = [f"{module.name} imports {name}" for module in MODULES.values() for name, _, _ in module.imports
             for room in below[module.room] if f"{name}.".startswith(f"{room}.")]
    assert not wrong


def test_handlers_do_not_import_the_server() -> None:
    assert not [f"{module.name} imports {target}" for module in MODULES.values() if module.room == "commands"
                for target in targets(module) if target in ("kvref.server", "kvref.client", "kvref.machine")]


def test_no_import_goes_in_a_circle() -> None:
    arrows = {name: sorted((set(targets(module)) & set(MODULES)) - {name}) for name, module in MODULES.items()}
    done: list[str] = []

    def walk(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join([*path[path.index(name):], name])
        if name not in done:
            for target in arrows[name]:
                walk(target, (*path, name))
            done.append(name)
    for name in arrows:
        walk(name, ())


@each([module for module in MODULES.values() if module.room != "lab"])
def test_core_and_sim_need_the_standard_library_only(module: Module) -> None:
    roots = {name.split(".")[0] for name, _, _ in module.imports}
    assert not sorted(root for root in roots if root not in sys.stdlib_module_names and root != "kvref")


def test_the_lab_needs_what_requirements_txt_names() -> None:
    roots = {name.split(".")[0] for module in MODULES.values() for name, _, _ in module.imports}
    assert not sorted(root for root in roots if root not in sys.stdlib_module_names and root not in {"kvref", *LAB_ONLY})


# --- the computer is behind the ports --------------------------------------------------------------------------------

@each(PURE)
def test_the_core_reaches_the_computer_through_its_ports_alone(module: Module) -> None:
    """Randomness is handed in as a `Random`; only sim may make one, and only from a seed."""
    sim = module.room == "sim"
    wrong = [f"import {name}" for name, attribute, typing_only in module.imports
             if name.split(".")[0] in COMPUTER and not typing_only and (name, attribute) != ("random", "Random")
             and not (sim and name == "random")]
    for call in (node for node in ast.walk(module.tree) if isinstance(node, ast.Call)):
        name = ast.unparse(call.func)
        made_here = name in ("Random", "random.Random")
        if name in ("open", "input", "print", "__import__") or (made_here and not (sim and call.args)):
            wrong.append(f"line {call.lineno}: {ast.unparse(call)}")
        if sim and name.startswith("random.") and not made_here and "import random\n" in module.text:
            wrong += [f"line {call.lineno}: {name}"] if not _is_local(module, call, "random") else []
    assert not wrong


def _is_local(module: Module, call: ast.Call, name: str) -> bool:
    """Whether `name` is an argument of a function around the call, and so not the module."""
    return any(isinstance(node, ast.FunctionDef) and any(arg.arg == name for arg in node.args.args + node.args.kwonlyargs)
               and node.lineno <= call.lineno <= (node.end_lineno or 0) for node in ast.walk(module.tree))


@each(PURE)
def test_nothing_depends_on_the_order_of_a_set_or_on_hashes(module: Module) -> None:
    """Strings hash differently in each process, so the order of a builtin set would be seen."""
    wrong = []
    for node in ast.walk(module.tree):
        loops = [node.iter] if isinstance(node, (ast.For, ast.comprehension)) else []
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("list", "tuple", "iter", "next", "enumerate"):
            loops += node.args[:1]
        wrong += [f"line {loop.lineno}: {ast.unparse(loop)}" for loop in loops if _is_set(loop)]
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "hash" and not _inside_hash(module, node):
            wrong.append(f"line {node.lineno}: {ast.unparse(node)}")
    assert not wrong


def _is_set(node: ast.expr) -> bool:
    return isinstance(node, (ast.Set, ast.SetComp)) or (
        isinstance(node, ast.Call) and ast.unparse(node.func) in ("set", "frozenset"))


def _inside_hash(module: Module, call: ast.Call) -> bool:
    return any(isinstance(node, ast.FunctionDef) and node.name == "__hash__"
               and node.lineno <= call.lineno <= (node.end_lineno or 0) for node in ast.walk(module.tree))


# --- sizes -----------------------------------------------------------------------------------------------------------

def sizes() -> dict[str, int]:
    """Lines of code by budget: that of the innermost name that has one, else of the mechanisms."""
    total = dict.fromkeys(BUDGETS, 0)
    for module in MODULES.values():
        room = next((name for name in reversed(module.name.split(".")) if name in BUDGETS), "mechanisms")
        room = "laboratory" if module.room == "sim" and module.name.split(".")[-1] in LABORATORY else room
        total["commands" if module.room == "commands" else room] += len(module.code_lines)
    return total


def table() -> str:
    """Every module with its lines of code, and the budgets."""
    rows = [f"{len(module.code_lines):6d}  {module.name}" for module in MODULES.values()]
    rows += [f"{lines:6d}  {room}, of {BUDGETS[room]}" for room, lines in sizes().items()]
    return "\n".join(rows)


def test_the_package_stays_small() -> None:
    print("\n" + table())
    assert {room: lines for room, lines in sizes().items() if lines > BUDGETS[room]} == {}


@each(list(MODULES.values()))
def test_a_module_can_be_read_at_one_sitting(module: Module) -> None:
    assert len(module.code_lines) <= MODULE_MAX
    assert [f"line {number}" for number, line in enumerate(module.text.split("\n"), 1) if len(line) > LINE_MAX] == []


@each(list(MODULES.values()))
def test_a_function_fits_on_a_screen(module: Module) -> None:
    for node in ast.walk(module.tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = [line for line in module.code_lines if node.lineno <= line <= (node.end_lineno or 0)]
            assert len(lines) <= FUNCTION_MAX, f"{node.name}, line {node.lineno}: {len(lines)} lines"


@each(list(MODULES.values()))
def test_a_module_says_what_it_is_for(module: Module) -> None:
    assert not module.code_lines or ast.get_docstring(module.tree)


# --- types, paths ----------------------------------------------------------------------------------------------------

def test_types_are_complete() -> None:
    """`mypy` with the settings of pyproject.toml: strict."""
    pytest.importorskip("mypy")
    checked = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


TEXT = {".py", ".md", ".txt", ".toml", ".ipynb", ".conf", ".json", ".yml", ".cfg", ".html", ".svg", ""}
SKIP = {".git", ".venv", ".mypy_cache", ".pytest_cache", ".hypothesis", "__pycache__", ".ipynb_checkpoints",
        "my-course", "build", "dist"}
PRIVATE = re.compile("/" + r"(?:home|root|Users|work|tmp)/[\w.]|pid \d{3,}|0x7f[0-9a-f]{6,}")


def test_no_file_names_the_machine_it_was_written_on() -> None:
    """Paths of a home or temporary directory, process ids and addresses are noise in a commit."""
    wrong = []
    for path in sorted(ROOT.rglob("*")):
        parts = path.relative_to(ROOT).parts
        if path.is_file() and path.suffix in TEXT and not any(part in SKIP or part.endswith(".egg-info") for part in parts):
            for number, line in enumerate(path.read_text(errors="replace").split("\n"), 1):
                if found := PRIVATE.search(line):
                    wrong.append(f"{'/'.join(parts)}:{number}: {found[0]}")
    assert not wrong


if __name__ == "__main__":
    print(table())
