"""The reader's copy of the course, and JupyterLab on it: `python -m kvref.lab open`.

The notebooks in the repository are committed with their outputs, which give the answers away. A reader gets
them without: in a folder of their own, where nothing that is there already is ever written over.

Interface:
  - notebooks()                  the folder of the committed notebooks
  - fill(folder)                 copy what is missing there; says what it did
  - lab_arguments, run_lab       JupyterLab on that folder, on the first chapter; returns when it ends
  - LabError                     one sentence for a person
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

FIRST = "00-start-here.ipynb"
PROGRESS = {"version": 1, "answers": {}}        # the reader's own answers; they never leave this computer
PAGE = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}    # it would ask about news
LEFT_OUT = ("solutions", "answers", "exercises", "teaching.md", ".ipynb_checkpoints", "__pycache__")


class LabError(Exception):
    """Something that a person must put right; the text says what."""


def notebooks() -> Path:
    """The folder of the committed notebooks: beside the package or, where the package is installed as a copy (as Binder
    does), in the checkout that we are in. LabError where there is none."""
    beside = Path(__file__).resolve().parents[2]
    for checkout in (beside, Path.cwd(), *Path.cwd().parents):
        if (checkout / "notebooks" / FIRST).is_file():
            return checkout / "notebooks"
    raise LabError(f"there is no {FIRST} in {beside / 'notebooks'}; clone the repository and install from there: "
                   "pip install -r requirements.txt")


def default_copy() -> Path:
    """my-course in the checkout, which git ignores."""
    return notebooks().parent / "my-course"


def fill(folder: Path) -> str:
    """Copy the chapters that `folder` lacks, without outputs. Returns one sentence about it."""
    source = notebooks()
    if folder.resolve() == source:
        raise LabError(f"{folder} is where the course comes from; choose another folder for your copy.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        added = [path for path in _files(source) if _add(source / path, folder / path)]
        _write_new(folder / "progress.json", json.dumps(PROGRESS) + "\n")
    except OSError as error:
        wrong = f"{error.filename or folder}: {error.strerror}"
        raise LabError(f"{wrong}; choose a folder that you can write to.") from None
    chapters = [path.stem for path in added if path.suffix == ".ipynb"]
    kept = sum(path.suffix == ".ipynb" for path in _files(source)) - len(chapters)
    return _sentence(folder, chapters, kept)


def _sentence(folder: Path, chapters: list[str], kept: int) -> str:
    new = f"{', '.join(chapters)} added" if chapters else "nothing new"
    old = f", {_count(kept)} left as you have {'it' if kept == 1 else 'them'}" if kept else ""
    return f"Your course is in {_short(folder)}: {new}{old}."


def _count(chapters: int) -> str:
    return f"{chapters} chapter{'s' * (chapters != 1)}"


def _short(path: Path) -> str:
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def _files(source: Path) -> Iterator[Path]:
    """Notebooks and what they show, as paths inside `source`."""
    for path in sorted(source.rglob("*")):
        inside = path.relative_to(source)
        if path.is_file() and not any(part in LEFT_OUT for part in inside.parts):
            yield inside


def _add(source: Path, target: Path) -> bool:
    """Copy one file, a notebook without its outputs; False where there is one already."""
    if target.exists():
        return False
    data = source.read_bytes()
    return _write_new(target, without_outputs(data.decode()) if source.suffix == ".ipynb" else data)


def _write_new(path: Path, data: str | bytes) -> bool:
    """Write a file that does not exist; mode "x" is the promise that nothing is written over."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("xb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
    except FileExistsError:
        return False
    return True


def without_outputs(text: str) -> str:
    """The text of a notebook whose code cells have not been run."""
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell.update(outputs=[], execution_count=None)
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


# ---- JupyterLab ----------------------------------------------------------------------------------

def lab_arguments(folder: Path, browser: bool, port: int | None, more: list[str]) -> list[str]:
    """The command line of JupyterLab: this folder, this chapter, no news, no look for updates.

    It sees the whole checkout, if the folder is in there: the chapters link to the files of the package.
    """
    folder, checkout = folder.resolve(), notebooks().parent
    root = checkout if checkout in folder.parents else folder
    first = quote((folder / FIRST).relative_to(root).as_posix())
    arguments = [f"--ServerApp.root_dir={root}", f"--FileContentsManager.preferred_dir={folder}",
                 f"--LabApp.default_url=/lab/tree/{first}", "--LabApp.news_url=None",
                 "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", "--LabApp.log_level=WARN",
                 "--ServerApp.log_level=WARN", "--ServerApp.answer_yes=True"]       # Ctrl-C asks nothing
    if not browser:
        arguments.append("--no-browser")
    if port is not None:
        arguments.append(f"--port={port}")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        arguments.append("--allow-root")        # in a container there is often nobody else
    return [*arguments, *more]


def run_lab(folder: Path, browser: bool = True, port: int | None = None, more: list[str] | None = None) -> None:
    """JupyterLab in this process, so that nothing is left when it ends. Returns then."""
    try:
        from jupyterlab.labapp import LabApp
    except ImportError:
        raise LabError("JupyterLab is not installed for this Python; "
                       f"{sys.executable} -m pip install -r requirements.txt") from None
    with tempfile.TemporaryDirectory(prefix="kvref-lab-") as settings:
        _write_new(Path(settings) / "labconfig" / "page_config.json", json.dumps(PAGE))
        path = [settings, os.environ.get("JUPYTER_CONFIG_PATH", "")]
        os.environ["JUPYTER_CONFIG_PATH"] = os.pathsep.join(filter(None, path))
        os.chdir(folder)
        LabApp.launch_instance(lab_arguments(folder, browser, port, more or []))
