"""What the notebooks ask, show and draw with: %%redis, Wire, predict, judge, progress, figure."""

from __future__ import annotations

import builtins
import json
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell
from nbformat.v4 import new_code_cell, new_notebook

import kvref
from kvref.lab import judging, questions
from kvref.lab.cli import format_reply
from kvref.lab.figures import MISSING, figure
from kvref.lab.judging import Wrong, bounded, exercise, expect, judge
from kvref.lab.questions import Record, concepts, predict, progress
from kvref.lab.redis_magic import NOBODY
from kvref.lab.wire import Wire
from kvref.process import RunningServer
from kvref.resp import Error, Pairs, Push, Verbatim, encode
from kvref.sampling import Members
from kvref.sim import World


# --- %%redis ---------------------------------------------------------------------------------------------------------

@pytest.fixture
def shell() -> Iterator[Any]:
    """A notebook that has loaded the lab."""
    before = len(World.on_start), len(RunningServer.on_start)
    shell = InteractiveShell()
    shell.run_cell("%load_ext kvref.lab")
    yield shell
    shell.run_cell("%unload_ext kvref.lab")
    assert (len(World.on_start), len(RunningServer.on_start)) == before


def said(shell: Any, capsys: pytest.CaptureFixture[str], cell: str) -> list[str]:
    capsys.readouterr()
    shell.run_cell(cell)
    return capsys.readouterr().out.splitlines()


def test_replies_stand_below_their_commands_as_redis_cli_prints_them(shell: Any, capsys: Any) -> None:
    World(seed=1).start()
    assert said(shell, capsys, "%%redis\nSET k 'a b'\n\n# a comment\nGET k\nMGET k x\nGET") == [
        "redis> SET k 'a b'", "OK", "redis> GET k", '"a b"', "redis> MGET k x", '1) "a b"', "2) (nil)",
        "redis> GET", "(error) ERR wrong number of arguments for 'get' command"]


def test_a_comment_stands_behind_a_command_but_not_in_quotes(shell: Any, capsys: Any) -> None:
    World(seed=1).start()
    assert said(shell, capsys, "%%redis\nSET k 'a # b'    # a comment\nbob> GET k #") == [
        "redis> SET k 'a # b'", "OK", "bob> GET k", '"a # b"']
    assert said(shell, capsys, "%%redis\nECHO a#b")[-1] == '"a#b"'


def test_named_clients_have_connections_of_their_own(shell: Any, capsys: Any) -> None:
    world = World(seed=1)
    world.start()
    alice = world.connect("alice")
    assert said(shell, capsys, "%%redis alice\nSELECT 1\nSET k 1\nbob> DBSIZE\nDBSIZE") == [
        "alice> SELECT 1", "OK", "alice> SET k 1", "OK", "bob> DBSIZE", "(integer) 0", "alice> DBSIZE", "(integer) 1"]
    assert alice("DBSIZE") == 1 and [caller.name for caller in world.callers] == ["alice", "bob"]


def test_what_comes_to_others_stands_behind_their_names(shell: Any, capsys: Any) -> None:
    World(seed=1).start()
    lines = said(shell, capsys, "%%redis bob\nmia> MONITOR\nPING")
    assert lines[:4] == ["mia> MONITOR", "OK", "bob> PING", "PONG"] and lines[4].startswith("mia: ")


def test_the_server_that_was_started_last_is_meant_and_another_can_be_chosen(shell: Any, capsys: Any) -> None:
    shell.run_cell("from kvref.sim import World\none = World(seed=1); _ = one.start(); two = World(seed=2); _ = two.start()")
    assert said(shell, capsys, "%%redis\nSET k two")[-1] == "OK"
    shell.run_cell("%redis one")
    assert said(shell, capsys, "%%redis\nGET k")[-1] == "(nil)"
    shell.run_cell("one.kill(); _ = one.start()")
    assert said(shell, capsys, "%%redis\nPING")[-1] == "PONG"
    assert said(shell, capsys, "%redis three") == ["%redis NAME wants the name of a World or of a running server, not 'three'."]


def test_a_real_server_answers_too(shell: Any, capsys: Any) -> None:
    with kvref.running():
        assert said(shell, capsys, "%%redis\nSET k 1\nbob> INCR k\nQUIT") == [
            "redis> SET k 1", "OK", "bob> INCR k", "(integer) 2", "redis> QUIT", "OK"]
    assert said(shell, capsys, "%%redis bob\nPING")[-1].startswith("(")


def test_what_goes_wrong_is_a_sentence(shell: Any, capsys: Any) -> None:
    assert said(shell, capsys, "%%redis\nPING") == ["redis> PING", f"({NOBODY})"]
    world = World(seed=1)
    world.start()
    assert said(shell, capsys, "%%redis\nGET 'k")[-1].startswith("(Invalid argument(s)")
    world.kill()
    assert said(shell, capsys, "%%redis\nPING")[-1] == "(Connection refused)"


def test_who_waits_for_a_key_has_no_reply_yet_and_hears_it_later(shell: Any, capsys: Any) -> None:
    World(seed=1).start()
    assert said(shell, capsys, "%%redis\nbob> BLPOP q 0\nRPUSH q job") == [
        "bob> BLPOP q 0", "(no reply yet)", "redis> RPUSH q job", "(integer) 1", 'bob: 1) "q"', 'bob: 2) "job"']


def test_a_wire_with_latency_is_waited_for(shell: Any, capsys: Any) -> None:
    World(seed=1, latency_us=700).start()
    assert said(shell, capsys, "%%redis\nPING") == ["redis> PING", "PONG"]


def test_a_world_that_was_there_before_the_lab_is_found(capsys: Any) -> None:
    shell = InteractiveShell()
    shell.run_cell("from kvref.sim import World\nworld = World(seed=1)\n_ = world.start()\n%load_ext kvref.lab")
    assert said(shell, capsys, "%%redis\nPING")[-1] == "PONG"
    shell.run_cell("%unload_ext kvref.lab")


# --- Wire ------------------------------------------------------------------------------------------------------------

scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.binary(max_size=50),
                    st.text("abc ", max_size=5), st.builds(Error, st.text("ERabc ", max_size=9)),
                    st.builds(Verbatim, st.binary(max_size=9)))
replies = st.recursive(scalars, lambda inner: st.one_of(
    st.lists(inner, max_size=4), st.lists(inner, max_size=3).map(Push),
    st.lists(st.binary(max_size=4), max_size=4).map(Members.fromkeys),
    st.dictionaries(st.binary(max_size=4), inner, max_size=3), st.lists(st.tuples(inner, inner), max_size=2).map(Pairs)), max_leaves=12)


@given(st.lists(replies, max_size=3), st.sampled_from([2, 3]))
def test_every_byte_is_named_once(values: list[Any], resp: int) -> None:
    data = b"".join(encode(value, resp) for value in values)
    parts = Wire(data).parts
    assert b"".join(part.data for part in parts) == data and all(part.kind != "wrong" for part in parts)
    assert [part.offset for part in parts] == [sum(len(part.data) for part in parts[:n]) for n in range(len(parts))]


@given(replies, st.data())
def test_bytes_that_are_cut_short_are_named_as_far_as_they_go(value: Any, data: st.DataObject) -> None:
    whole = encode(value)
    part = whole[:data.draw(st.integers(0, len(whole) - 1))]
    parts = Wire(part).parts
    assert b"".join(part.data for part in parts) == part
    assert not part or parts[-1].kind == "wrong" and parts[-1].meaning.startswith("cut short")


@given(st.binary(max_size=60))
def test_any_bytes_can_be_shown(data: bytes) -> None:
    wire = Wire(data)
    assert b"".join(part.data for part in wire.parts) == data
    assert repr(wire).count("\n") + bool(data) == len(wire.parts) and wire._repr_html_().startswith("<table class")


def test_the_bytes_of_a_request_in_text_and_in_colour() -> None:
    wire = Wire(b"*2\r\n$3\r\nGET\r\n$5\r\n<\r\n>!\r\n")
    assert repr(wire).splitlines() == [
        "    0  *2\\r\\n         array of 2 elements",
        "    4    $3\\r\\n       bulk string of 3 bytes",
        "    8    GET\\r\\n      3 bytes, whatever they are",
        "   13    $5\\r\\n       bulk string of 5 bytes",
        "   17    <\\r\\n>!\\r\\n  5 bytes, whatever they are"]
    assert "&lt;\\r\\n&gt;!" in wire._repr_html_()
    assert "<code" in wire._repr_html_() and "&nbsp;" in wire._repr_html_()         # GitHub drops every style


def test_lengths_that_lie_are_shown_where_they_lie() -> None:
    assert Wire(b"$3\r\nGETTER\r\n").parts[-1].meaning == "wrong: after 3 bytes there should be \\r\\n"
    assert Wire(b"$x\r\n").parts[-1].meaning == "wrong: \"x\" is no length"
    assert Wire(b"*2\r\n:1\r\n").parts[-1].meaning == "cut short: an element is missing" or len(Wire(b"*2\r\n:1\r\n").parts) == 2
    assert "60 more" in repr(Wire(encode(b"x" * 100)))


# --- predict, progress -----------------------------------------------------------------------------------------------

ANSWERS = {"right": "b", "why": "So it is.", "a": ["the moon is near", "It is far.", "2 · The moon"]}


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder as `open` makes it, and one question for each test."""
    (tmp_path / questions.FILE).write_text('{"version": 1, "answers": {}}')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(questions, "answers", lambda chapter: {f"{chapter}-moon": ANSWERS})
    questions.record.cache_clear()
    yield tmp_path
    questions.record.cache_clear()


OPTIONS = {"a": "near", "b": "far"}


def test_a_question_without_an_answer_is_only_asked(reader: Path, capsys: Any) -> None:
    predict("01-moon", "How far is the moon?", OPTIONS)
    assert capsys.readouterr().out.splitlines() == [
        "How far is the moon?", "  (a) near", "  (b) far", 'Your prediction: put mine="a" or another letter, and run the cell.']
    assert str(progress()).startswith("Nothing answered yet.")


def test_a_wrong_option_names_its_misconception_and_where_to_look(reader: Path, capsys: Any) -> None:
    predict("01-moon", "?", OPTIONS, mine="A")
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "(a) is a misconception: *the moon is near*. It is far.", "Where to look: 2 · The moon"]
    predict("01-moon", "?", OPTIONS, mine="(b)")
    assert capsys.readouterr().out.splitlines()[-1] == "(b) it is. So it is."
    kept = json.loads((reader / questions.FILE).read_text())["answers"]["01-moon"]
    assert (kept["first"], kept["last"], kept["tries"]) == ("a", "b", 2)
    assert progress().rows == [["01", 1, 1, 0, 0]]


def test_what_is_no_letter_is_not_counted(reader: Path, capsys: Any) -> None:
    predict("01-moon", "?", OPTIONS, mine="z")
    assert capsys.readouterr().out.splitlines()[-1] == "mine='z' is none of the letters a, b."
    predict("01-sun", "?", OPTIONS, mine="a")
    assert "no answer" in capsys.readouterr().out and not questions.record().answers


def test_progress_shows_which_misconceptions_moved(reader: Path) -> None:
    predict("pre-moon", "?", OPTIONS, mine="a")
    predict("post-moon", "?", OPTIONS, mine="b")
    shown = repr(progress())
    assert "concept questions before the course" in shown and "the moon is near" in shown
    assert progress().tables[1].rows == [["the moon is near", "yes", "no"]] and "<table>" in progress()._repr_html_()


def test_the_concept_questions_note_before_the_course_and_judge_after_it(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    questions.record.cache_clear()
    concepts("pre")
    asked = capsys.readouterr().out
    assert asked.count("?") + asked.count("...\n") >= 12 and "12. " in asked and asked.endswith("not judged.\n")
    concepts("pre", mine={1: "a", 2: "C", 3: "z"})
    noted = capsys.readouterr().out
    assert "> (a)" in noted and "misconception" not in noted and noted.endswith("2 of 12 answers noted.\n")
    concepts("post", {1: "c", 2: "b"})
    assert "(b) is a misconception: *a crash of a process" in capsys.readouterr().out
    assert [row[:4] for row in progress().tables[0].rows] == [
        [questions.TESTS["pre"], 2, 12, 1], [questions.TESTS["post"], 2, 12, 1]]
    assert ["OK means durable", "yes", "no"] in progress().tables[1].rows
    questions.record.cache_clear()


def test_every_concept_question_has_its_answers() -> None:
    found = questions.answers("concepts")
    assert len(found) == 12
    for question in found.values():
        wrong = set(question["options"]) - {question["right"]}
        assert question["right"] in question["options"] and question["why"] and len(wrong) >= 2
        assert all(len(question[letter]) == 3 for letter in wrong)


def test_a_file_of_answers_that_is_damaged_stays_untouched(reader: Path, capsys: Any) -> None:
    for damaged in ("", "[1]", 100_000 * "[", '{"answers": 7}', "\udcff".encode("utf-8", "surrogateescape").decode("latin-1")):
        (reader / questions.FILE).write_text(damaged)
        record = Record(reader / questions.FILE)
        assert "cannot be read" in capsys.readouterr().out
        record.note("01-moon", first="a", last="a", right=False)
        assert record.answers and (reader / questions.FILE).read_text() == damaged


def test_answers_that_somebody_has_edited_by_hand_are_counted_as_they_can_be(reader: Path) -> None:
    odd = {"pre-moon": {"first": "z"}, "post-moon": {"first": ["a"]}, "02-1": {"solved": "yes", "tries": "many"}}
    (reader / questions.FILE).write_text(json.dumps({"version": 1, "answers": odd}))
    assert "02" in repr(progress())
    questions.record().note("02-1", solved=True)
    assert questions.record().answers["02-1"]["tries"] == 1


def test_two_chapters_that_are_open_at_once_keep_the_answers_of_both(reader: Path) -> None:
    one, other = Record(reader / questions.FILE), Record(reader / questions.FILE)
    one.note("01-moon", first="a", last="a", right=False)
    other.note("02-sun", first="b", last="b", right=True)
    one.note("01-moon", first="b", last="b", right=True)
    assert set(Record(reader / questions.FILE).answers) == {"01-moon", "02-sun"}
    assert sorted(path.name for path in reader.iterdir()) == [questions.FILE]


def test_without_a_file_answers_last_as_long_as_the_kernel(tmp_path: Path) -> None:
    record = Record(tmp_path / questions.FILE)
    record.note("01-moon", first="a", last="a", right=False)
    assert record.answers and not list(tmp_path.iterdir())


# --- judge -----------------------------------------------------------------------------------------------------------

@pytest.fixture
def exercise_99(monkeypatch: pytest.MonkeyPatch, reader: Path) -> None:
    monkeypatch.setattr(judging, "_judges", {})
    monkeypatch.setattr(judging, "_failures", {})

    @exercise("99-1", "One.", "Two.", "Three.")
    def double(solution: Any) -> None:
        expect(solution, 2, wants=4)
        if solution(0):
            raise Wrong("Twice nothing is nothing.")


def verdict(capsys: Any, solution: Any) -> list[str]:
    judge("99-1", solution)
    return list(capsys.readouterr().out.splitlines())


@pytest.mark.usefixtures("exercise_99")
def test_each_failure_gets_the_next_of_three_hints(capsys: Any) -> None:
    def stub(n: int) -> int:
        raise NotImplementedError
    for _ in range(2):                                  # Run All, twice: a stub uses up no hint
        assert verdict(capsys, stub) == ["Not yet. There is nothing to judge yet.", "Hint 1 of 3: One."]
    assert verdict(capsys, lambda n: n)[1] == "Hint 2 of 3: Two."
    assert verdict(capsys, lambda n: 4)[0] == "Not yet. Twice nothing is nothing."
    assert verdict(capsys, lambda n: n + 1)[1] == "Hint 3 of 3: Three."
    assert verdict(capsys, lambda n: 2 * n) == ["Solved."]
    assert questions.record().answers["99-1"] == {"solved": True, "tries": 6}
    assert verdict(capsys, stub)[1] == "Hint 1 of 3: One."


@pytest.mark.usefixtures("exercise_99")
def test_a_solution_that_raises_is_told_what_it_raised(capsys: Any) -> None:
    assert verdict(capsys, lambda n: n / 0)[0] == "Not yet. Your code raised ZeroDivisionError: division by zero"
    assert verdict(capsys, None)[0].startswith("Not yet. Your code raised TypeError")

    def named(n: int) -> int:
        return n
    assert verdict(capsys, named)[0] == "Not yet. named(2) returned 2. It should be 4."


@pytest.mark.usefixtures("exercise_99")
def test_what_is_raised_in_a_cell_is_told_with_its_line(shell: Any, capsys: Any) -> None:
    cell = "from kvref.lab import judge\ndef solution(n):\n    return m\njudge('99-1', solution)"
    assert said(shell, capsys, cell)[0].endswith("raised NameError in line 3 of its cell: name 'm' is not defined")


def test_arguments_are_shown_as_they_were_given() -> None:
    def pop(given: list[int]) -> int:
        return given.pop()
    with pytest.raises(Wrong, match=r"^pop\(\[1\]\) returned"):
        expect(pop, [1], wants=2)


def for_ever(n: int) -> int:
    while True:
        n += 1


def deaf(n: int) -> int:
    while True:
        try:
            n += len(str(n))
        except:                                         # noqa: E722
            pass


def waits(n: int) -> int:
    while True:
        time.sleep(0.001)


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch, exercise_99: None) -> Iterator[None]:
    """Little time; and whatever happens, nothing is left behind."""
    for name, value in {"WORK_S": 0.1, "WAIT_S": 60, "LOOK_S": 0.01}.items():
        monkeypatch.setattr(judging, name, value)
    before = threading.enumerate(), sys.gettrace(), signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGALRM)
    yield
    assert (threading.enumerate(), sys.gettrace(), signal.getsignal(signal.SIGINT),
            signal.getsignal(signal.SIGALRM)) == before


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("solution", [for_ever, deaf])
def test_a_loop_without_an_end_is_stopped(solution: Any, capsys: Any) -> None:
    for hint in ("Hint 1 of 3: One.", "Hint 2 of 3: Two."):
        assert verdict(capsys, solution) == [
            "Not yet. After 0.1 seconds of work your code was still at it. Has a loop no end?", hint]
    assert verdict(capsys, lambda n: 2 * n) == ["Solved."]


@pytest.mark.usefixtures("hurried")
def test_who_waits_for_ever_is_stopped_too(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "WORK_S", 60)
    monkeypatch.setattr(judging, "WAIT_S", 0.1)
    assert verdict(capsys, waits)[0] == (
        "Not yet. After 0.1 seconds of waiting your code was still at it. Has a loop no end?")


@pytest.mark.usefixtures("hurried")
def test_a_judge_may_run_in_any_thread(capsys: Any) -> None:
    thread = threading.Thread(target=judge, args=("99-1", for_ever))
    thread.start()
    thread.join()
    assert "0.1 seconds of work" in capsys.readouterr().out


@pytest.mark.usefixtures("hurried")
def test_a_solution_is_not_traced_as_that_would_slow_it_down(capsys: Any) -> None:
    assert verdict(capsys, lambda n: 2 * n if sys.gettrace() is None else 0) == ["Solved."]


@pytest.mark.usefixtures("hurried")
def test_without_threads_lines_are_counted(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: Any) -> None:
        raise RuntimeError("can't start new thread")
    monkeypatch.setattr(threading.Thread, "start", refuse)
    monkeypatch.setattr(judging, "LINES_IN_ALL", 10_000)
    assert verdict(capsys, for_ever)[0] == (
        "Not yet. After 10,000 lines of Python your code was still at it. Has a loop no end?")
    assert verdict(capsys, lambda n: 2 * n) == ["Solved."]


@pytest.mark.usefixtures("hurried")
def test_one_small_case_can_be_bounded_and_is_named(capsys: Any) -> None:
    @exercise("99-2", "One.")
    def small(solution: Any) -> None:
        with bounded("A set of one member.", lines=1000):
            solution(1)
    judge("99-2", for_ever)
    assert capsys.readouterr().out.startswith("Not yet. A set of one member: after 1,000 lines of Python your code was ")
    with pytest.raises(judging.Endless), bounded("x"):              # the time of the judge around it
        raise judging.Endless


def test_a_kernel_survives_a_loop_without_an_end(tmp_path: Path) -> None:
    NotebookClient = pytest.importorskip("nbclient").NotebookClient
    book = new_notebook(cells=[new_code_cell(source) for source in (
        "from kvref.lab import judging\njudging.WORK_S = 0.2\n"
        "@judging.exercise('99-1', 'One.')\ndef check(solution):\n    solution()",
        "def endless():\n    while True:\n        pass\njudging.judge('99-1', endless)",
        "judging.judge('99-1', lambda: 0)")])
    NotebookClient(book, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert [cell.outputs[0].text for cell in book.cells[1:]] == [
        "Not yet. After 0.2 seconds of work your code was still at it. Has a loop no end?\nHint 1 of 1: One.\n",
        "Solved.\n"]


def test_an_exercise_that_does_not_exist(capsys: Any) -> None:
    judge("98-1", None)
    assert capsys.readouterr().out == "There is no exercise '98-1'.\n"


# --- figures ---------------------------------------------------------------------------------------------------------

def test_a_figure_without_matplotlib_is_a_sentence(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    real_import = builtins.__import__

    def without(name: str, *more: Any) -> Any:
        if name.split(".")[0] in ("matplotlib", "cycler"):
            raise ImportError(name)
        return real_import(name, *more)
    monkeypatch.setattr(builtins, "__import__", without)
    with figure("A claim", "x (s)", "y (ms)") as axes:
        axes.plot([1, 2], [3, 4], label="a")
        axes.spines["top"].set_visible(False)
        first, second = axes.plot([1], [2])
    assert capsys.readouterr().out == MISSING + "\n"


def test_a_figure_has_its_claim_and_its_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib").use("agg")
    with figure("A claim", "x (s)", "y (ms)") as axes:
        axes.plot([1, 2], [3, 4])
    assert axes.get_title("left") == "A claim"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("x (s)", "y (ms)")


def test_replies_of_the_new_types_have_their_form() -> None:
    assert format_reply(Members.fromkeys([b"a"])) == '1~ "a"'
