"""The lab: the reader's copy, the normal form of notebooks, %%real, tables and timelines; and what the README says."""

from __future__ import annotations

import builtins
import json
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import kvref.lab
from kvref.eventloop import Event
from kvref.lab import normalise, reader, real
from kvref.lab.__main__ import main
from kvref.lab.table import Link, Table
from kvref.lab.timeline import Timeline
from kvref.sim import World

ROOT = Path(__file__).parent.parent


# --- open ------------------------------------------------------------------------------------------------------------

@pytest.fixture
def jupyterlab(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What JupyterLab would have been started with; it is not."""
    started: list[tuple[Any, ...]] = []
    monkeypatch.setattr(reader, "run_lab", lambda *arguments: started.append(arguments))
    return started


def test_open_copies_the_chapters_without_outputs_and_opens_them(
        tmp_path: Path, jupyterlab: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "course"
    assert main(["open", str(folder), "--no-browser", "--port", "9999", "--ServerApp.quit_button=False"]) == 0
    copies = sorted(folder.glob("*.ipynb"))
    assert [path.name for path in copies] == [path.name for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]
    for path in copies:
        ours, theirs = nbformat.read(path, 4), nbformat.read(ROOT / "notebooks" / path.name, 4)
        assert [cell.source for cell in ours.cells] == [cell.source for cell in theirs.cells]
        assert [cell.id for cell in ours.cells] == [cell.id for cell in theirs.cells]
        code = [cell for cell in ours.cells if cell.cell_type == "code"]
        assert code and all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert json.loads((folder / "progress.json").read_text()) == {"version": 1, "answers": {}}
    assert jupyterlab == [(folder, False, 9999, ["--ServerApp.quit_button=False"])]
    assert ": 00-start-here, 01-" in capsys.readouterr().out


def test_what_the_reader_has_written_is_never_changed(tmp_path: Path, jupyterlab: list[Any]) -> None:
    (tmp_path / reader.FIRST).write_text("mine")
    (tmp_path / "progress.json").write_text("my answers")
    assert "1 chapter left as you have it" in reader.fill(tmp_path)
    assert (tmp_path / reader.FIRST).read_text() == "mine"
    assert (tmp_path / "progress.json").read_text() == "my answers"


def test_a_new_chapter_is_added_to_an_old_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    course = tmp_path / "notebooks"
    (course / "solutions").mkdir(parents=True)
    for name in (reader.FIRST, "01-next.ipynb", "solutions/00.ipynb"):
        nbformat.write(new_notebook(cells=[new_code_cell("1", execution_count=1)]), course / name)
    monkeypatch.setattr(reader, "notebooks", lambda: course)
    copy = tmp_path / "copy"
    assert reader.fill(copy).endswith(": 00-start-here, 01-next added.")
    (copy / "01-next.ipynb").unlink()
    assert reader.fill(copy).endswith(": 01-next added, 1 chapter left as you have it.")
    assert reader.fill(copy).endswith(": nothing new, 2 chapters left as you have them.")
    assert sorted(path.name for path in copy.iterdir()) == [reader.FIRST, "01-next.ipynb", "progress.json"]


def test_the_course_itself_is_no_place_for_a_copy(capsys: pytest.CaptureFixture[str], jupyterlab: list[Any]) -> None:
    assert main(["open", str(ROOT / "notebooks")]) == 1
    assert capsys.readouterr().err.count("\n") == 1 and not jupyterlab


@pytest.mark.parametrize("broken", ["a file", "no notebooks"])
def test_what_cannot_be_opened_is_one_sentence(broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                               capsys: pytest.CaptureFixture[str], jupyterlab: list[Any]) -> None:
    if broken == "a file":
        (tmp_path / "course").write_text("")
    else:
        monkeypatch.setattr(reader, "__file__", str(tmp_path / "kvref" / "lab" / "reader.py"))
        monkeypatch.chdir(tmp_path)
    assert main(["open", str(tmp_path / "course")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("kvref.lab: ") and error.count("\n") == 1 and str(tmp_path) in error and not jupyterlab


def test_jupyterlab_opens_the_first_chapter_and_asks_nothing(tmp_path: Path) -> None:
    outside = reader.lab_arguments(tmp_path, browser=True, port=None, more=[])
    assert f"--ServerApp.root_dir={tmp_path.resolve()}" in outside and "--no-browser" not in outside
    assert "--LabApp.default_url=/lab/tree/00-start-here.ipynb" in outside
    inside = reader.lab_arguments(ROOT / "my-course", browser=False, port=9000, more=["--x=1"])
    assert f"--ServerApp.root_dir={ROOT}" in inside     # so that links to the package work
    assert "--LabApp.default_url=/lab/tree/my-course/00-start-here.ipynb" in inside
    assert {"--no-browser", "--port=9000", "--x=1", "--ServerApp.answer_yes=True"} <= set(inside)


@pytest.mark.parametrize("words", [["--help"], ["open", "--help"], ["html", "--help"], ["normalise", "--help"]])
def test_help_is_there(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0 and "usage: python -m kvref.lab" in capsys.readouterr().out


# --- normalise -------------------------------------------------------------------------------------------------------

def notebook(path: Path, *sources: str) -> Path:
    """A notebook that was never run, with ids as an editor gives them."""
    cells = [new_markdown_cell("# Title"), *map(new_code_cell, sources)]
    nbformat.write(new_notebook(cells=cells, metadata={"language_info": {"name": "python", "version": "3.99"}}), path)
    return path


def test_normalise_executes_and_gives_the_normal_form(tmp_path: Path) -> None:
    path = notebook(tmp_path / "a.ipynb", "import sys\nprint('out')\nprint('err', file=sys.stderr)", "6 * 7", "6 * 7")
    assert normalise.check(path) != []
    assert normalise.rewrite(path) == [] == normalise.check(path)
    done = nbformat.read(path, 4)
    assert list(done.metadata) == ["kernelspec"] and done.metadata.kernelspec.name == "python3"
    code = [cell for cell in done.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [1, 2, 3] and not any(cell.metadata for cell in code)
    assert code[1].outputs[0].data["text/plain"] == "42" and code[1].outputs[0].execution_count == 2
    assert len({cell.id for cell in done.cells}) == 4
    before = path.read_text()
    assert normalise.rewrite(path) == [] and path.read_text() == before


def test_a_cell_that_fails_leaves_the_file_as_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = notebook(tmp_path / "a.ipynb", "1", "1 / 0")
    before = path.read_text()
    assert main(["normalise", str(path)]) == 1
    error = capsys.readouterr().err
    assert "code cell 2: ZeroDivisionError" in error and error.count("\n") == 1
    assert path.read_text() == before


def normal_cells(*sources: str) -> Any:
    return normalise.normal(new_notebook(cells=[new_code_cell(source, execution_count=7) for source in sources]))


def ids(*sources: str) -> list[str]:
    return [cell.id for cell in normal_cells(*sources).cells]


def test_the_id_of_a_cell_depends_on_its_own_text_alone() -> None:
    first = ids("a", "b", "c")
    assert ids("a", "B", "c") == [first[0], *ids("B"), first[2]]
    assert ids("new", "a", "b", "c")[1:] == first
    twins = ids("a", "a")
    assert twins[0] == first[0] and len(set(twins)) == 2


def test_neighbouring_pieces_of_a_stream_become_one() -> None:
    pieces = [new_output("stream", name=name, text=text) for name, text in
              [("stdout", "a"), ("stdout", "b"), ("stderr", "c"), ("stdout", "d")]]
    cell = normalise.normal(new_notebook(cells=[new_code_cell("x", outputs=pieces, execution_count=3)])).cells[0]
    found = [(output.name, output.text) for output in cell.outputs]
    assert found == [("stdout", "ab"), ("stderr", "c"), ("stdout", "d")]
    assert len(pieces) == 4 and pieces[0].text == "a"           # the given notebook stays as it is


ERROR = new_output("error", ename="ZeroDivisionError", evalue="", traceback=[])
BAD: dict[str, dict[str, Any]] = {
    "never run": {"execution_count": None},
    "execution_count not normal": {"execution_count": 2},
    "id not normal": {"id": "9f2c"},
    "metadata not normal": {"metadata": {"execution": {"iopub.status.busy": "2026-01-01T00:00:00Z"}}},
    "it raised ZeroDivisionError": {"outputs": [ERROR]},
    "holds '/ho" + "me/alice'": {"outputs": [new_output("stream", text="in /ho" + "me/alice/kvref")]},
    "holds 'pi" + "d 4242'": {"outputs": [new_output("stream", text="server with pi" + "d 4242")]},
    "holds '0x" + "7f00deadbeef'": {"outputs": [new_output("display_data", {"text/plain": "at 0x" + "7f00deadbeef"})]},
    "holds '20:41:10'": {"outputs": [new_output("display_data", {"text/html": "at 20:41:10.123"})]},
}


@pytest.mark.parametrize("problem", BAD)
def test_check_names_the_cell_that_is_not_normal(
        problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    book = normal_cells("good", "bad")
    assert normalise.check(_written(book, tmp_path)) == []
    book.cells[1].execution_count = 2
    book.cells[1].update(nbformat.from_dict(BAD[problem]))
    if problem.startswith("execution_count"):
        book.cells[1].execution_count = 5
    path = _written(book, tmp_path)
    before = path.read_text()
    assert main(["normalise", "--check", str(path)]) == 1
    error = capsys.readouterr().err
    assert "cell 2 " in error and problem in error and "cell 1 " not in error
    assert path.read_text() == before


def _written(book: Any, folder: Path) -> Path:
    path = folder / "a.ipynb"
    path.write_text(nbformat.writes(book) + "\n")
    return path


@pytest.mark.parametrize("text", [None, "no notebook", "{}"])
def test_what_is_no_notebook_is_one_sentence(
        text: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.ipynb"
    if text is not None:
        path.write_text(text)
    assert main(["normalise", "--check", str(path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"kvref.lab: {path}: ") and error.count("\n") == 1


# --- %%real ----------------------------------------------------------------------------------------------------------

CELL = "%%real\nran = True\nran"


def run(cell: str, capsys: pytest.CaptureFixture[str]) -> tuple[Any, Any, str]:
    """The value of the cell's last line, whether its body ran, what it printed."""
    shell = InteractiveShell()
    kvref.lab.load_ipython_extension(shell)
    done = shell.run_cell(cell)
    done.raise_error()
    return done.result, shell.user_ns.get("ran"), capsys.readouterr().out


def test_a_real_cell_runs_where_the_computer_is_real(capsys: pytest.CaptureFixture[str]) -> None:
    assert real.missing() == ()
    result, ran, printed = run(CELL, capsys)
    assert result is True and ran is True and real.SENTENCE not in printed


def no(*_: Any, **__: Any) -> Any:
    raise OSError("blocked")


def _block_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", no)


def _block_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "fork")


def _block_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")
    monkeypatch.setattr(threading.Thread, "start", refuse)


BLOCKS = {"sockets": _block_sockets, "processes": _block_processes, "threads": _block_threads}


@pytest.mark.parametrize("need", BLOCKS)
def test_a_real_cell_prints_one_sentence_where_something_is_missing(
        need: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    shell = InteractiveShell()              # its own history needs a thread
    with monkeypatch.context() as patch:
        BLOCKS[need](patch)
        assert real.missing() == (need,)
        real.load(shell)
    assert shell.run_cell(CELL).success and "ran" not in shell.user_ns
    assert capsys.readouterr().out == real.SENTENCE + "\n"
    assert shell.run_cell("2 * 3").result == 6


def test_real_changes_no_other_cell_and_can_be_unloaded() -> None:
    shell = InteractiveShell()
    kvref.lab.load_ipython_extension(shell)
    kvref.lab.load_ipython_extension(shell)
    assert sum(isinstance(step, real.Real) for step in shell.input_transformers_cleanup) == 1
    for lines in (["x = '%%real'\n"], ["%%reality\n"], []):
        assert real.Real(possible=False)(lines) == lines
    assert real.Real(possible=True)(["%%real\n", "1\n"]) == ["\n", "1\n"]      # line numbers stay
    kvref.lab.unload_ipython_extension(shell)
    assert not any(isinstance(step, real.Real) for step in shell.input_transformers_cleanup)


# --- tables and timelines --------------------------------------------------------------------------------------------

def test_a_table_is_text_and_html() -> None:
    table = Table(("n", "what"), [(1, "<a>"), (12_345, "b & c")])
    assert repr(table) == "     n  what\n------  -----\n     1  <a>\n12,345  b & c"
    assert "&lt;a&gt;" in table._repr_html_() and "12,345" in table._repr_html_()
    assert 'class="mathjax_ignore' in Table(("bytes",), [(b"$1 $2",)])._repr_html_()       # else $1 $ is maths
    assert repr(Table(("empty",), [])) == "empty\n-----"
    assert repr(Table(("is it?",), [(True,), (False,)])).split() == ["is", "it?", "------", "yes", "no"]


def test_a_link_in_a_table_is_its_text_and_leads_somewhere_in_html() -> None:
    table = Table(("file",), [(Link("a & b", "../a"),)])
    assert repr(table) == "file\n-----\na & b"
    assert '<a href="../a">a &amp; b</a>' in table._repr_html_()


def turn() -> Timeline:
    world = World(seed=1)
    server = world.start()
    alice, bob = world.connect("alice"), world.connect("bob")
    world.settle()
    events: list[Event] = []
    server.loop.observe(events.append)
    alice.send("SET", "k", "v")
    bob.send("GET", "k")
    world.step()
    world.step()
    return Timeline(events, world.callers)


def test_a_timeline_shows_one_command_after_the_other() -> None:
    rows = [(start, end, who, what.split()[0]) for start, end, who, what in turn().table().rows]
    assert rows == [(0, 0, "alice", "read"), (0, 10, "alice", "command"),
                    (10, 10, "bob", "read"), (10, 20, "bob", "command"),
                    (20, 20, "alice", "write"), (20, 20, "bob", "write")]


def test_a_figure_has_its_claim_its_clients_and_its_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot
    monkeypatch.setattr(pyplot, "show", lambda: None)
    turn().draw("the claim")
    axes = pyplot.gca()
    assert axes.get_title(loc="left") == "the claim" and "µs" in axes.get_xlabel() and axes.get_ylabel() == "client"
    assert axes.get_xlim()[0] < 0               # room for the marks of the first instant
    assert [label.get_text() for label in axes.get_yticklabels()] == ["alice", "bob"]
    pyplot.close()


def test_without_matplotlib_there_is_a_sentence_in_place_of_the_figure(
        monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    imports = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return imports(name, *rest, **more)
    timeline = turn()
    monkeypatch.setattr(builtins, "__import__", without)
    timeline.draw("the claim")
    assert capsys.readouterr().out == "matplotlib is missing here: the table has the same numbers.\n"


def test_the_lab_imports_nothing_heavy_before_it_is_needed() -> None:
    script = ("import sys, kvref.lab, kvref.lab.timeline, kvref.lab.modules, kvref.lab.real, kvref.lab.__main__\n"
              "print([name for name in ('matplotlib', 'IPython', 'nbformat', 'jupyterlab') if name in sys.modules])")
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# --- the README ------------------------------------------------------------------------------------------------------

README = (ROOT / "README.md").read_text()


def test_every_link_of_the_readme_leads_somewhere() -> None:
    targets = [target for target in re.findall(r"\]\(([^)\s]+)\)", README) if not target.startswith("http")]
    assert len(targets) > 10
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_the_readme_gives_every_library_its_reason() -> None:
    rows = re.search(r"^\| library \| why \|$(.+?)^$", README, re.M | re.S)
    assert rows
    named = {name.strip() for names in re.findall(r"^\| ([a-z, -]+) \|", rows[1], re.M) for name in names.split(",")}
    required = {line.split("==")[0] for line in (ROOT / "requirements.txt").read_text().splitlines() if "==" in line}
    assert named == required


def test_the_python_of_the_readme_runs() -> None:
    for block in re.findall(r"^```python\n(.+?)^```", README, re.M | re.S):
        subprocess.run([sys.executable, "-c", block], cwd=ROOT, check=True, capture_output=True, timeout=60)
