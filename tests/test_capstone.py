"""The capstone's judge: each verdict can be reached for each brief, its counterexamples replay, and another seed draws other crashes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from nbformat import read
from nbformat.v4 import new_code_cell, new_notebook, writes

from kvref.lab import capstone, normalise, questions
from kvref.lab.__main__ import main
from kvref.lab.briefs import BOARD, BRIEFS, CACHE, KILL, POWER, QUEUE, WORKER, Brief
from kvref.lab.capstone import (DEAR, DEARER, HALF, NOT_BEGUN, PRICES, TRUE, UNCLEAR, WEAK, Clause, Trial, Unclear, Verdict, about, judge_design,
                                read_guarantee)
from kvref.sim.scenarios import every

ROOT = Path(__file__).parent.parent
GOOD: dict[str, tuple[str, dict[str, Any]]] = {
    "cache": ("hit_rate >= 0.6 and stale_seconds <= 60 and refused_writes == 0",
              {"maxmemory": "30kb", "maxmemory-policy": "allkeys-lru", "ttl_s": 60}),
    "queue": ('lost_jobs == 0 under kill and worker_crash and power_loss("ext4") and refused_writes == 0',
              {"appendonly": "yes", "appendfsync": "always", "messaging": "list with acknowledgement"}),
    "board": ('lost_seconds <= 1.5 under power_loss("ext4") and sleeper_kb <= 40 and missed_messages == 0 and refused_writes == 0',
              {"appendonly": "yes", "messaging": "pubsub", "client-output-buffer-limit": "pubsub 32kb 16kb 1"})}
ONE_SECOND = Clause("lost_seconds", "<=", 1, POWER)
SEEDS = (1, 2, 3, 9)                                    # 9 has an instant in the gap of everysec
LIKES = Brief("likes", "A story.", {f"lost_writes <= 60 under {POWER}": "Sixty likes may be lost."},
              lambda choices: every(20, "ann", "INCR likes", until_ms=2000),
              ({"save": "1 1"}, {"appendonly": "yes"}, {"appendonly": "yes", "appendfsync": "always"}))


def by_name(names: Any = tuple(BRIEFS)) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("name", list(names))


def clause(text: str, brief: Brief) -> Clause:
    found, = read_guarantee(text, brief)
    return found


# --- verdicts --------------------------------------------------------------------------------------------------------

@by_name()
def test_each_verdict_on_a_design_can_be_reached(name: str) -> None:
    kinds = [judge_design(name, GOOD[name][0], design).kind for design in BRIEFS[name].menu[-4:]]       # weak ones first
    assert set(kinds) == {WEAK, TRUE, DEAR} and judge_design(name, *GOOD[name]).kind == TRUE


@by_name()
def test_a_guarantee_without_one_of_the_needs_is_too_weak_and_somebody_hurts_the_customer_with_it(name: str) -> None:
    brief = BRIEFS[name]
    for left_out in brief.needs:
        if left_out == f"lost_jobs == 0 under {KILL}":
            continue                                                # that of the power loss covers it
        guarantee = " and ".join(need for need in brief.needs if need != left_out)
        verdict = judge_design(name, guarantee)
        rows = dict(verdict.rows)
        assert verdict.kind == WEAK and brief.needs[left_out] == rows["the brief"], left_out
        assert "keeps them" in rows and rows["and yet"].startswith(left_out.split()[0]), left_out
        culprit = next(trial for trial in capstone._menu(brief, 1) if rows["keeps them"].endswith(capstone._words(trial)))
        assert culprit.keeps(read_guarantee(guarantee, brief)) and not culprit.keeps([clause(left_out, brief)])


@by_name()
def test_every_need_is_broken_by_some_design_of_the_menu(name: str) -> None:
    for need in BRIEFS[name].needs:
        assert not all(trial.keeps([clause(need, BRIEFS[name])]) for trial in capstone._menu(BRIEFS[name], 1)), need


@by_name()
def test_what_is_true_is_true_under_many_seeds(name: str) -> None:
    clauses = read_guarantee(GOOD[name][0], BRIEFS[name])
    assert {seed: Trial(BRIEFS[name], GOOD[name][1], seed).keeps(clauses) for seed in SEEDS} == dict.fromkeys(SEEDS, True)


@by_name()
def test_a_guarantee_comes_first(name: str) -> None:
    assert judge_design(name).kind == judge_design(name, "  ", GOOD[name][1]).kind == NOT_BEGUN
    begun = judge_design(name, GOOD[name][0])
    assert begun.kind == HALF and "Now the design" in begun.text


def test_a_guarantee_that_promises_more_is_judged_by_its_own_words() -> None:
    guarantee, design = GOOD["queue"]
    assert judge_design("queue", f"{guarantee} and repeated_jobs == 0 under {POWER}", design).kind == WEAK
    guarantee, design = GOOD["board"]
    kept = f"{guarantee} and missed_in_tunnel == 0"
    assert judge_design("board", kept, design).kind == WEAK
    assert judge_design("board", kept, {**design, "messaging": "list"}).kind == DEAR


def test_dearer_is_what_a_design_on_the_menu_does_for_a_tenth_less() -> None:
    trials = [Trial(LIKES, design) for design in LIKES.menu]
    assert trials[1].coins * DEARER < trials[2].coins
    verdict = judge_design(LIKES, next(iter(LIKES.needs)), LIKES.menu[2])
    assert verdict.kind == DEAR and dict(verdict.rows)["cheaper"] == "appendfsync everysec in place of always"


def test_a_price_is_what_was_counted_in_the_run() -> None:
    trial = Trial(LIKES, LIKES.menu[2])
    bill, seconds = trial.bill(), trial.recording.scenario.end_ms / 1000
    assert bill["commands a second"] == pytest.approx(100 / seconds * PRICES["commands a second"])
    assert bill["fsyncs a second"] >= 100 / seconds * PRICES["fsyncs a second"] and not bill["snapshots a second"]
    assert Trial(LIKES, LIKES.menu[0]).bill()["snapshots a second"] > 0


# --- what the crashes take -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("messaging, lost, again", [("pubsub", True, False), ("list", True, False), ("list with acknowledgement", False, True),
                                                    ("list with acknowledgement in two steps", True, True)])
def test_an_order_is_done_at_most_once_or_at_least_once(messaging: str, lost: bool, again: bool) -> None:
    trial = Trial(QUEUE, {"appendonly": "yes", "appendfsync": "always", "messaging": messaging})
    taken = [trial.worst(Clause("lost_jobs", "==", 0, crash)).value for crash in (WORKER, POWER)]
    assert (max(taken) > 0) == lost
    assert (trial.worst(Clause("repeated_jobs", "==", 0, POWER)).value > 0) == again


def test_a_worker_that_lives_on_finishes_what_it_has_in_hand() -> None:
    trial = Trial(QUEUE, {"appendonly": "yes", "appendfsync": "always", "messaging": "list"})
    lost = {crash: trial.worst(Clause("lost_jobs", "==", 0, crash)).value for crash in (KILL, POWER, WORKER)}
    assert lost == {KILL: 0, POWER: 0, WORKER: 1}


def test_eviction_loses_orders_and_scores_without_a_crash_of_the_disk() -> None:
    for brief, measure, room in ((QUEUE, "lost_jobs", "3kb"), (BOARD, "lost_scores", "100")):
        design = {**GOOD[brief.name][1], "appendfsync": "always", "maxmemory": room, "maxmemory-policy": "allkeys-lru"}
        assert Trial(brief, design).worst(Clause(measure, "==", 0, KILL)).value > 10


def test_a_limit_that_cuts_off_everybody_is_no_chat() -> None:
    design = {**GOOD["board"][1], "client-output-buffer-limit": "pubsub 1 1 1"}
    assert judge_design("board", GOOD["board"][0], design).kind == WEAK


def test_scores_are_lost_as_writes_are() -> None:
    """The brief counts what is in the sorted set; the laboratory counts units. Here they must agree."""
    trial = Trial(BOARD, {"save": "1 1", "messaging": "pubsub"})
    assert trial.worst(Clause("lost_scores", "==", 0, POWER)).value == trial.worst(Clause("lost_writes", "==", 0, POWER)).value


# --- schedules -------------------------------------------------------------------------------------------------------

def test_another_seed_draws_other_crashes_and_the_same_seed_the_same() -> None:
    one, other, again = (Trial(LIKES, LIKES.menu[1], seed) for seed in (1, 2, 1))
    assert one.schedule == again.schedule and len(set(one.schedule) & set(other.schedule)) < capstone.INSTANTS / 4
    assert repr(judge_design(LIKES, next(iter(LIKES.needs)), LIKES.menu[0])) == repr(
        judge_design(LIKES, next(iter(LIKES.needs)), LIKES.menu[0]))


def test_a_bound_without_room_is_found_out_by_some_seed_and_not_by_all() -> None:
    trials = {seed: Trial(BOARD, GOOD["board"][1], seed) for seed in SEEDS}
    kept = {seed: ONE_SECOND.holds(trial.worst(ONE_SECOND).value) for seed, trial in trials.items()}
    assert kept[1] and not all(kept.values())


def test_a_cache_on_the_edge_is_found_out_by_some_seed_and_not_by_all() -> None:
    need = Clause("hit_rate", ">=", 0.6)
    assert [Trial(CACHE, {**GOOD["cache"][1], "maxmemory": "25kb"}, seed).keeps([need]) for seed in (1, 15)] == [True, False]


def test_a_verdict_says_what_was_looked_at_and_its_crash_replays() -> None:
    verdict = judge_design(LIKES, next(iter(LIKES.needs)), LIKES.menu[0])
    rows = dict(verdict.rows)
    assert verdict.kind == WEAK and rows["looked at"].startswith("40 instants drawn from seed 1, in a run of ")
    assert verdict.crash and verdict.crash[1] == rows["its id"] and "verdict: lossy as promised" in verdict.replay()
    assert "of " in dict(judge_design(LIKES, next(iter(LIKES.needs)), LIKES.menu[1]).rows)["looked at"].split("; ")[1]


def test_the_replay_finds_what_the_verdict_has_said() -> None:
    trial = Trial(LIKES, LIKES.menu[0])
    worst = trial.worst(Clause("lost_writes", "==", 0, POWER))
    assert worst.moment
    left = len(trial.recording.acknowledged(worst.moment.point)) - worst.value
    state = dict((key, value) for _, key, value, _ in worst.moment.state)
    assert int(state.get(b"likes", 0)) == left


@pytest.mark.parametrize("bug", ["reply-before-log", "fsync-in-background"])
def test_a_server_with_a_bug_gets_a_no(bug: str) -> None:
    guarantee = f"lost_writes == 0 under {POWER}"
    assert judge_design(LIKES, guarantee, LIKES.menu[2]).kind != WEAK
    verdict = judge_design(LIKES, guarantee, LIKES.menu[2], mutant=bug)
    assert verdict.kind == WEAK and f"+{bug}:" in dict(verdict.rows)["its id"] and "BROKEN PROMISE" in verdict.replay()
    assert judge_design("queue", *GOOD["queue"], mutant=bug).kind == WEAK


# --- the words -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("text, read", [
    ('lost_seconds <= 1 under power_loss("ext4")', ['lost_seconds <= 1 under power_loss("ext4")']),
    ("lost_jobs==0 under kill & worker_crash", ["lost_jobs == 0 under kill", "lost_jobs == 0 under worker_crash"]),
    ("refused_writes < 1\n memory_kb <= 1_000", ["refused_writes < 1", "memory_kb <= 1000"]),
    ("lost_jobs == 0 under kill, power_loss('torn')", ["lost_jobs == 0 under kill", 'lost_jobs == 0 under power_loss("torn")'])])
def test_a_guarantee_reads_as_it_is_written(text: str, read: list[str]) -> None:
    assert list(map(str, read_guarantee(text, QUEUE))) == read


@pytest.mark.parametrize("text, says", [
    ("we never lose data", "is no clause"), ("lost_jobs = 0 under kill", "is no clause"), ("lost_jobs == none under kill", "is no clause"),
    ("lost_orders == 0 under kill", "there are lost_writes, "), ("lost_jobs == 0", "say under which one, kill, worker_crash"),
    ("refused_writes == 0 under kill", "leave out 'under kill'"), ("lost_jobs == 0 under water", "there are kill, worker_crash"),
    ("lost_jobs == 0 under power_loss(ext4)", "there are kill"), ("and", "is no clause"), ("refused_writes <= " + "9" * 400, "a number below a billion")])
def test_a_wrong_word_gets_one_sentence_that_names_what_there_is(text: str, says: str) -> None:
    with pytest.raises(Unclear, match=None) as said:
        read_guarantee(text, QUEUE)
    assert says in str(said.value) and judge_design("queue", text).kind == UNCLEAR


@pytest.mark.parametrize("mine, need, covers", [
    ("lost_jobs == 0 under kill", "lost_jobs == 0 under kill", True), ("lost_jobs < 1 under kill", "lost_jobs == 0 under kill", True),
    ("lost_jobs <= 1 under kill", "lost_jobs == 0 under kill", False), ("lost_jobs >= 0 under kill", "lost_jobs == 0 under kill", False),
    ("lost_seconds <= 1 under power_loss('torn')", "lost_seconds <= 1.5 under power_loss('ext4')", True),
    ("lost_seconds <= 1 under power_loss('posix')", "lost_seconds <= 1.5 under power_loss('ext4')", False),
    ("lost_seconds < 1.5 under power_loss('ext4')", "lost_seconds <= 1.5 under power_loss('ext4')", True),
    ("lost_seconds <= 1.6 under power_loss('ext4')", "lost_seconds <= 1.5 under power_loss('ext4')", False),
    ("lost_seconds <= 1 under kill", "lost_seconds <= 1 under power_loss('ext4')", False),
    ("lost_seconds <= 1 under power_loss('ext4')", "lost_seconds <= 1 under kill", True),
    ("lost_jobs == 0 under power_loss('ext4')", "lost_jobs == 0 under worker_crash", False),
    ("lost_writes == 0 under kill", "lost_seconds <= 3 under kill", True), ("lost_writes <= 1 under kill", "lost_seconds <= 3 under kill", False),
    ("lost_jobs <= 0.5 under kill", "lost_jobs == 0 under kill", True), ("lost_jobs <= 1.5 under kill", "lost_jobs == 0 under kill", False),
    ("lost_jobs < 1.5 under kill", "lost_jobs <= 1 under kill", True), ("lost_jobs >= 0.5 under kill", "lost_jobs <= 1 under kill", False),
    ("lost_writes == 5 under kill", "lost_seconds <= 3 under kill", False), ("lost_writes > 1 under kill", "lost_seconds <= 3 under kill", False),
    ("lost_writes <= 0.5 under kill", "lost_seconds <= 3 under kill", True),
    ("memory_kb <= 10", "memory_kb <= 10.5", True), ("memory_kb >= 10", "memory_kb <= 10.5", False)])
def test_a_clause_covers_a_need_if_it_allows_nothing_more(mine: str, need: str, covers: bool) -> None:
    assert clause(mine, QUEUE).covers(clause(need, QUEUE)) == covers


def test_no_lost_score_is_no_old_lost_score() -> None:
    need = clause(f"lost_seconds <= 1.5 under {POWER}", BOARD)
    assert clause(f"lost_scores == 0 under {POWER}", BOARD).covers(need) and not clause(f"lost_scores <= 9 under {POWER}", BOARD).covers(need)


def test_a_limit_that_cuts_off_the_judge_s_own_eye_is_not_taken() -> None:
    """A client that is cut off measures nothing, and an order that has no answer was never taken."""
    for name, limit in (("queue", "normal 1 1 1"), ("board", "NORMAL 400 0 0"), ("board", "pubsub 32kb 0 0 normal 400 0 0")):
        verdict = judge_design(name, GOOD[name][0], {**GOOD[name][1], "client_output_buffer_limit": limit})
        assert verdict.kind == UNCLEAR and "only pubsub" in verdict.text


def test_memory_is_measured_in_a_brief_whose_script_does_not_ask_for_it() -> None:
    assert Trial(LIKES, LIKES.menu[1]).worst(clause("memory_kb <= 1", LIKES)).value > 0


def test_a_run_without_a_crash_does_not_speak_of_crashes() -> None:
    assert judge_design("cache", *GOOD["cache"]).text.startswith("the run keeps it")
    assert judge_design("queue", *GOOD["queue"]).text.startswith("no crash of this schedule")


def test_a_power_loss_takes_all_that_a_kill_takes() -> None:
    """What `covers` goes by."""
    for trial in capstone._menu(QUEUE, 1)[:4]:
        killed, cut = (trial.worst(Clause("lost_jobs", "==", 0, crash)).value for crash in (KILL, POWER))
        assert killed <= cut, trial.design


@pytest.mark.parametrize("design, says", [
    ({"messaging": "pigeon"}, "it may be pubsub, list"), ({"appendonly": "yes"}, "lacks messaging"), ({"messaging": "list", "port": 1}, "'port' is nothing"),
    ({"messaging": "list", "appendfsync": "often"}, "everysec, always, no"), ({"messaging": "list", "save": "1"}, "Invalid save parameters"),
    ({"messaging": "list", "client-output-buffer-limit": "replica 1 1 1"}, "only pubsub"), ({1: 2}, "lacks messaging"), ({"messaging": None, "save": []}, "it may be")])
def test_a_design_that_no_server_takes_gets_one_sentence(design: Any, says: str) -> None:
    verdict = judge_design("queue", GOOD["queue"][0], design)
    assert verdict.kind == UNCLEAR and says in verdict.text


@pytest.mark.parametrize("ttl", ["²", "٣٠", -1, 60.0, True, 10 ** 12, ""])
def test_a_deadline_is_a_number_of_seconds(ttl: Any) -> None:
    verdict = judge_design("cache", GOOD["cache"][0], {**GOOD["cache"][1], "ttl_s": ttl})
    assert verdict.kind == UNCLEAR and "it may be a whole number" in verdict.text


def test_nonsense_gets_a_verdict_and_no_traceback() -> None:
    for brief in (*BRIEFS, "poem", 7, None):
        for guarantee in ("", 7, GOOD["cache"][0]):
            for design in ({}, None, {"save": object()}):
                verdict = judge_design(brief, guarantee, design)        # type: ignore[arg-type]
                assert verdict.kind in (UNCLEAR, NOT_BEGUN, HALF, WEAK) and verdict._repr_html_().startswith("<div")


@by_name()
def test_a_brief_tells_its_words_and_choices(name: str) -> None:
    shown = repr(about(name))
    assert all(word in shown for word in (*BRIEFS[name].words, *BRIEFS[name].choices, *BRIEFS[name].crashes))
    assert "<div" in judge_design(name, *GOOD[name])._repr_html_() and "<table" in judge_design(name, *GOOD[name])._repr_html_()


# --- grading ---------------------------------------------------------------------------------------------------------

def notebook(folder: Path, *cells: str) -> Path:
    path = folder / "mine.ipynb"
    path.write_text(writes(new_notebook(cells=[new_code_cell(cell) for cell in cells])))
    return path


def handing_in(given: dict[str, tuple[str, dict[str, Any]]]) -> list[str]:
    return ["from kvref.lab.capstone import judge_design\nfrom pathlib import Path\nPath('trace').write_text('x')",
            *(f"judge_design({name!r}, {guarantee!r}, {design!r}, seed=1)" for name, (guarantee, design) in given.items()), "1 / 0"]


def test_grade_passes_three_true_designs_and_fails_one_that_only_the_known_seed_passes(
        tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    marginal = {**GOOD, "board": (GOOD["board"][0].replace("1.5", "1"), GOOD["board"][1])}
    path = notebook(tmp_path, *handing_in(marginal))
    before = path.read_text()
    handed_in = capstone.collect(path)
    assert handed_in == (marginal, ["code cell 5 raised ZeroDivisionError: division by zero"])
    monkeypatch.setattr(capstone, "collect", lambda path: handed_in)
    assert main(["grade", str(path), "--seed", "1"]) == 0
    said = capsys.readouterr().out
    assert said.count(": TRUE: ") == 3 and said.startswith(f"{path}\n  {handed_in.raised[0]}\ncache: TRUE")
    seed = next(seed for seed in SEEDS if not Trial(BOARD, GOOD["board"][1], seed).keeps([ONE_SECOND]))
    assert main(["grade", str(path), "--seed", "1", str(seed)]) == 1
    said = capsys.readouterr().out
    assert "board: TOO WEAK: the design does not keep" in said and f"drawn from seed {seed}" in said
    assert path.read_text() == before and [found.name for found in tmp_path.iterdir()] == ["mine.ipynb"]


@by_name()
def test_grade_judges_each_brief_by_what_was_handed_in_for_it(name: str) -> None:
    given: Any = {**GOOD, name: (GOOD[name][0], next(iter(BRIEFS[name].menu)))}
    for seeds in ((1,), (1, 2)):
        verdicts = capstone.grade(capstone.HandedIn(given, []), seeds)
        assert [brief for brief, verdict in verdicts.items() if not verdict.is_true] == [name]
        for brief, verdict in verdicts.items():
            own = clause(list(BRIEFS[brief].needs)[0], BRIEFS[brief]).measure
            assert brief == name or own in repr(verdict)


def test_of_several_seeds_the_first_that_finds_something_decides() -> None:
    kinds = (DEAR, WEAK, TRUE), (TRUE, DEAR), (NOT_BEGUN, WEAK)
    assert [capstone._hardest(Verdict(kind, "") for kind in those).kind for those in kinds] == [WEAK, DEAR, NOT_BEGUN]


@pytest.mark.parametrize("text", ["[]", "null", "{}", "7", "[" * 100_000, '{"nbformat": 4, "cells": 7}', "\x00"])
def test_what_is_no_notebook_gets_one_sentence(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.ipynb").write_text(text)
    assert main(["grade", str(tmp_path / "mine.ipynb"), "--seed", "5"]) == 1
    assert "mine.ipynb: this is no notebook" in (said := capsys.readouterr().err) and said.count("\n") == 1


def test_grade_of_a_notebook_without_designs_fails_and_of_none_says_so(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["grade", str(notebook(tmp_path, "print('hello')")), "--seed", "5"]) == 1
    assert capsys.readouterr().out.count("NOT BEGUN") == 3
    assert main(["grade", str(tmp_path / "nothing.ipynb"), "--seed", "5"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_the_seeds_are_asked_for_when_no_notebook_runs_any_more(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A program can read the command line of the one that has started it."""
    happened, answers = list[str](), iter(["", "one", "1, 2"])
    monkeypatch.setattr(capstone, "collect", lambda path: happened.append(path.name) or capstone.HandedIn({"queue": GOOD["queue"]}, []))
    monkeypatch.setattr("builtins.input", lambda asks: happened.append(asks.split()[0]) or next(answers))
    assert main(["grade", "ann.ipynb", "bob.ipynb", "--brief", "queue"]) == 0
    assert happened == ["ann.ipynb", "bob.ipynb", "Seeds,", "Seeds,", "Seeds,"]
    said, progress = capsys.readouterr()
    assert said.count("queue: TRUE: ") == said.count("drawn from seed 2") == 2 and "cache" not in said
    assert progress == "1 of 2: ann.ipynb\n2 of 2: bob.ipynb\n"
    monkeypatch.setattr("builtins.input", MagicMock(side_effect=EOFError))
    assert main(["grade", "ann.ipynb"]) == 1 and "nobody has answered" in capsys.readouterr().err
    assert main(["grade", "ann.ipynb", "--brief", "queu"]) == 1 and "there are cache, queue, board" in capsys.readouterr().err
    assert happened[5:] == ["ann.ipynb"]                            # a wrong name is told before anything is run


def test_what_the_chapter_itself_judges_is_nobody_s_hand_in() -> None:
    """It shows a colleague's design of the queue. Where the reader's cells are gone, or raise, that one is not theirs."""
    chapter, _ = normalise.read(ROOT / "notebooks" / "14-capstone.ipynb")
    judged = [cell.source for cell in chapter.cells if cell.cell_type == "code" and "judge_design(" in cell.source]
    mine = [source for source in judged if any(f'judge_design("{name}"' in source for name in BRIEFS)]
    assert len(mine) == 6 and all("_guarantee" in source for source in mine)
    assert not [source for source in set(judged) - set(mine) if 'judge_design("' in source or "judge_design(BRIEFS" in source]


def test_one_notebook_that_cannot_be_graded_keeps_no_other_from_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = notebook(tmp_path, "from kvref.lab.capstone import judge_design", "judge_design('queue', 'we lose nothing')")
    assert main(["grade", str(tmp_path / "nobody.ipynb"), str(path), "--brief", "queue", "--seed", "5"]) == 1
    said = capsys.readouterr()
    assert "nobody.ipynb: No such file" in said.err and said.out.startswith(f"{path}\nqueue: CANNOT BE READ: ")


@pytest.mark.parametrize("cells, says", [(["1", " ", "while True: pass"], "code cell 3: is at work for more than 2 seconds"),
                                         (["1", "import os; os._exit(3)"], "code cell 2: its kernel has ended")])
def test_a_notebook_that_does_not_end_gets_one_sentence(
        cells: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(normalise, "TIMEOUT_S", 2)
    assert main(["grade", str(path := notebook(tmp_path, *cells)), "--seed", "5"]) == 1
    said = capfd.readouterr()
    assert said.err.startswith(f"kvref.lab: {path}: {says}") and said.err.count("\n") == 1 and not said.out


def test_what_a_notebook_prints_does_not_come_here(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    kept = normalise.read(notebook(tmp_path, "import os, sys\nprint('{}')\nos.write(1, b'x')\nos.system('echo y')", "print('y', file=sys.stderr)\n1 / 0"))
    monkeypatch.setattr(normalise, "read", lambda path: kept)
    assert normalise.last_words(tmp_path, "'z' * 3") == ("zzz", ["code cell 2 raised ZeroDivisionError: division by zero"])
    assert [[output.output_type for output in cell.outputs] for cell in kept[0].cells] == [["execute_result"], ["error"], ["display_data"]]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("said", ["queue: TRUE", '{"queue": 5}', '{"queue": ["a", {}, 1]}', "[1]", "[" * 100_000])
def test_a_hand_in_that_somebody_has_made_up_gets_one_sentence(
        said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(normalise, "last_words", lambda path, expression: (said, []))
    assert main(["grade", "mine.ipynb", "--seed", "5"]) == 1
    assert capsys.readouterr() == ("", "kvref.lab: mine.ipynb: it hands in what cannot be read.\n")


def test_what_the_chapter_hands_in_is_the_reader_s_own() -> None:
    """No cell behind them judges another design of the same brief."""
    code = [cell.source for cell in read(ROOT / "notebooks" / "14-capstone.ipynb", 4).cells if cell.cell_type == "code"]
    for name in BRIEFS:
        last = [call for source in code for call in re.findall(rf'judge_design\("{name}", (.+)\)', source)][-1]
        assert last == f"{name}_guarantee, {name}_design, seed=SEED"


def test_the_worked_designs_are_true() -> None:
    text = (ROOT / "notebooks" / "solutions" / "14.ipynb").read_text()
    assert len(re.findall('"TRUE: (?:no crash of this schedule breaks it|the run keeps it), and nothing', text)) == 3


# --- the post-test ---------------------------------------------------------------------------------------------------

def misconceptions(question: dict[str, Any]) -> dict[str, str]:
    return {question[letter][0]: letter for letter in question["options"] if letter != question["right"]}


def test_the_questions_after_the_course_are_others_with_the_same_misconceptions() -> None:
    before, after = questions.answers("pre"), questions.answers("post")
    assert len(before) == len(after) == 12 and [id[4:] for id in before] == [id[5:] for id in after]
    for one, other in zip(before.values(), after.values()):
        assert set(misconceptions(one)) == set(misconceptions(other)) and one["ask"] != other["ask"]
        assert not set(one["options"].values()) & set(other["options"].values()) and other["why"]
        assert all(len(other[letter]) == 3 and (ROOT / "notebooks").glob(f"{other[letter][2].split()[1]}*") for letter in
                   misconceptions(other).values())


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.chdir(tmp_path)
    questions.record.cache_clear()
    yield questions.record()
    questions.record.cache_clear()


def test_progress_compares_the_two_forms_by_their_misconceptions(record: Any, capsys: pytest.CaptureFixture[str]) -> None:
    before, after = list(questions.answers("pre").values()), list(questions.answers("post").values())
    held, kept, new = ("OK means durable", "logged means durable", "a channel is a queue")
    first = {number: misconceptions(question).get(held) or misconceptions(question).get(kept) or question["right"]
             for number, question in enumerate(before, 1)}
    then = {number: misconceptions(question).get(kept) or misconceptions(question).get(new) or question["right"]
            for number, question in enumerate(after, 1)}
    questions.concepts("pre", first)
    questions.concepts("post", then)
    tables = questions.progress().tables
    assert [row[:4] for row in tables[0].rows] == [[questions.TESTS["pre"], 12, 12, 10], [questions.TESTS["post"], 12, 12, 10]]
    assert tables[1].rows == [[held, "yes", "no"], [kept, "yes", "yes"], [new, "no", "yes"]]
    assert capsys.readouterr().out.count("is a misconception: *") == 2
