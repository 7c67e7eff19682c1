"""Notebooks as they are committed: executed in order, and free of everything that changes by itself.

    cell ids                a hash of the cell's text, so that an edit changes one id and no other
    execution counts        1, 2, 3 ...
    metadata                tags of cells, and the kernel `python3`; no times, no version of Python
    outputs                 as they came; neighbouring pieces of one stream are one
    paths, pids, addresses  not in an output: they differ on every computer

Interface:
  - rewrite(path)      execute, normalise, write; returns problems, each one sentence, [] if there are none
  - check(path)        execute nothing, write nothing; returns what `rewrite` would change
  - normal(notebook)   the normal form of an executed notebook
  - last_words(path, expression)    execute a notebook in a folder that is thrown away; the text that the expression
                                    then is, and which cells have raised
  - read(path)         a notebook and its text
  - course()           the committed notebooks
"""

from __future__ import annotations

import copy
import hashlib
import re
import subprocess
import tempfile
import warnings
from pathlib import Path
from typing import Any

import nbformat

from kvref.lab import reader

KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
CELL_KEYS = ("tags", "jupyter")         # what may stand in a cell's metadata
TIMEOUT_S = 120
NOISE = re.compile(r"/(?:home|root|Users|tmp|var/folders|private)/[\w.]+|\bpid[ =:]+\d{2,}|\b0x[0-9a-f]{8,}"
                   r"|\b\d\d:\d\d:\d\d\b(?!\.\d{3} UTC)")       # kvref.files speaks of deadlines so: not of the clock
AGAIN = "run python -m kvref.lab normalise"


def course() -> list[Path]:
    """Every notebook of the course and its solutions."""
    return sorted(path for path in reader.notebooks().rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)


def rewrite(path: Path) -> list[str]:
    """Execute a notebook and write its normal form. After an error in a cell the file is as it was."""
    notebook, _ = read(path)
    if failure := _execute(path, notebook):
        return [failure]
    path.write_text(_text(normal(notebook)), encoding="utf-8")
    return check(path)


def check(path: Path) -> list[str]:
    """Each problem names the notebook and the cell."""
    notebook, text = read(path)
    wanted = normal(notebook)
    found = [f"{path}: cell {number} ({cell.get('id', 'no id')}): {problem}"
             for number, (cell, goal) in enumerate(zip(notebook.cells, wanted.cells), 1)
             for problem in _cell_problems(cell, goal)]
    if notebook.metadata != wanted.metadata:
        found.append(f"{path}: its metadata is more than the kernel; {AGAIN}")
    if not found and text != _text(wanted):
        found.append(f"{path}: it is not written as it would be by this command; {AGAIN}")
    return found


def normal(notebook: Any) -> Any:
    """A copy in normal form. Cells that were never run stay so."""
    result = copy.deepcopy(notebook)
    result.metadata = nbformat.from_dict({"kernelspec": KERNEL})
    result.nbformat, result.nbformat_minor = 4, 5
    ids, count = _ids(result.cells), 0
    for cell, id in zip(result.cells, ids):
        cell.id = id
        cell.metadata = nbformat.from_dict({key: value for key, value in cell.metadata.items() if key in CELL_KEYS})
        if cell.cell_type == "code" and cell.execution_count is not None:
            count += 1
            cell.execution_count = count
            cell.outputs = _outputs(cell.outputs, count)
    return result


def last_words(path: Path, expression: str) -> tuple[str, list[str]]:
    """Errors in cells stop nothing. LabError where the kernel ends, or a cell goes on for too long."""
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    notebook, _ = read(path)
    code_cells = _cleared(notebook)
    notebook.cells.append(last := nbformat.v4.new_code_cell(
        f'import IPython.display\nIPython.display.display({{"text/plain": {expression}}}, raw=True)'))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        client = _client(notebook, Path(folder), allow_errors=True)
        client.extra_arguments += ["--IPKernelApp.outstream_class=None"]    # a loop that prints would fill our memory
        try:
            client.execute(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        except (CellTimeoutError, DeadKernelError) as error:
            why = "its kernel has ended"
            if isinstance(error, CellTimeoutError):
                why = f"is at work for more than {TIMEOUT_S} seconds; take it out, and try again"
            raise reader.LabError(f"{path}: code cell {_reached(code_cells)}: {why}.") from None
    raised = [f"code cell {number} raised {output.ename}: {output.evalue}".splitlines()[0]
              for number, cell in enumerate(code_cells, 1) for output in cell.outputs if output.output_type == "error"]
    return "".join(output.data.get("text/plain", "") for output in last.outputs[:1] if "data" in output), raised


# ---- its parts -----------------------------------------------------------------------------------

def _ids(cells: list[Any]) -> list[str]:
    """A hash of kind and text; a second cell with the same text is numbered."""
    seen: dict[str, int] = {}
    ids = []
    for cell in cells:
        digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:12]
        seen[digest] = seen.get(digest, 0) + 1
        ids.append(digest if seen[digest] == 1 else f"{digest}-{seen[digest]}")
    return ids


def _outputs(outputs: list[Any], count: int) -> list[Any]:
    """One output for each stretch of one stream, however it was cut on its way here."""
    result: list[Any] = []
    for output in outputs:
        if output.output_type == "execute_result":
            output.execution_count = count
        last = result[-1] if result else None
        if output.output_type == "stream" and last and last.output_type == "stream" and last.name == output.name:
            last.text += output.text
        else:
            result.append(output)
    return result


def _cell_problems(cell: Any, goal: Any) -> list[str]:
    if cell.cell_type == "code" and cell.source.strip() and cell.execution_count is None:
        return [f"it was never run; {AGAIN}"]
    found = []
    if "raises-exception" not in cell.metadata.get("tags", []):
        found += [f"it raised {output.ename}: {output.evalue}" for output in cell.get("outputs", [])
                  if output.output_type == "error"]
    if noise := NOISE.search("\n".join(map(_shown, cell.get("outputs", [])))):
        found.append(f"its output holds {noise[0]!r}, which differs on every computer")
    if cell != goal:
        wrong = ", ".join(key for key in goal if cell.get(key) != goal[key]) or "keys"
        found.append(f"{wrong} not normal; {AGAIN}")
    return found


def _shown(output: Any) -> str:
    """What a reader can read in an output."""
    texts = [value for kind, value in output.get("data", {}).items() if kind.startswith("text/")]
    return "\n".join([output.get("text", ""), *output.get("traceback", []), *texts])


def _execute(path: Path, notebook: Any) -> str:
    """Run all cells in the notebook's own folder; "" or what went wrong."""
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
    code_cells = _cleared(notebook)
    try:
        _client(notebook, path.resolve().parent).execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        reason = f"{error.ename}: {error.evalue}" if isinstance(error, CellExecutionError) else str(error).strip()
        return f"{path}: code cell {_reached(code_cells)}: {reason}; the file is as it was"
    return ""


def _cleared(notebook: Any) -> list[Any]:
    """Its code cells, as if they had never been run."""
    code_cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in code_cells:
        cell.outputs, cell.execution_count = [], None
    return code_cells


def _begun(cell: Any, cell_index: int) -> None:
    cell.execution_count = -1           # until the kernel has said which


def _reached(code_cells: list[Any]) -> int:
    """The number of the last one that was begun."""
    return max((number for number, cell in enumerate(code_cells, 1) if cell.execution_count), default=0)


def _client(notebook: Any, folder: Path, **options: Any) -> Any:
    from nbclient import NotebookClient
    return NotebookClient(notebook, timeout=TIMEOUT_S, kernel_name="python3", record_timing=False,
                          extra_arguments=["--IPKernelApp.log_level=ERROR"], on_cell_execute=_begun,
                          resources={"metadata": {"path": str(folder)}}, **options)


def read(path: Path) -> tuple[Any, str]:
    """The notebook and its text. LabError where it is none."""
    try:
        text = path.read_text(encoding="utf-8")
        with warnings.catch_warnings(action="ignore"):          # two cells with one id: it gives a new one
            return nbformat.reads(text, as_version=4), text
    except OSError as error:
        raise reader.LabError(f"{path}: {error.strerror}; give the name of a notebook.") from None
    except Exception:           # nbformat takes much for granted: of a list it raises AttributeError
        raise reader.LabError(f"{path}: this is no notebook; give the name of one.") from None


def _text(notebook: Any) -> str:
    return str(nbformat.writes(notebook)) + "\n"
