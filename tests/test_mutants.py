"""Every mutant is what its story says: invisible to clients, deadly at the right instant, and gone afterwards."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from kvref import blocking
from kvref.client import Client
from kvref.command_table import Call
from kvref.persistence import aof, load, manifest, replay, snapshot
from kvref.server import Server
from kvref.sim import __main__ as shell
from kvref.sim.explorer import Task, run_task
from kvref.sim.explorer import replay as tell
from kvref.sim.mutants import MUTANTS, ORDER, broken
from kvref.sim.scenarios import SCENARIOS
from kvref.sim.score import Score, score
from tests import golden
from tests.conftest import Simulated

INVARIANTS = [f"I{number}" for number in range(1, 11)]
PATCHED = (Server, Client, Call, blocking.Waiting, aof.AppendOnlyFile, manifest.Folder, manifest.Manifest,
           replay.Replay, snapshot.Snapshots, aof, load, manifest, replay, snapshot)
LOUD = {"appendonly": "yes", "appendfsync": "always", "save": "1 1"}        # everything that a mutant breaks is in use
SCRIPTS = ("blocking_lists", "differences_found", "hashes_numbers", "keys_deadlines", "lists_move", "notify_expiry",
           "persistence_bgsave", "persistence_save", "pubsub_basics", "server_flush", "server_shutdown",
           "server_swapdb", "sets_random", "strings_floats", "strings_set", "transactions_basics")

every_mutant = pytest.mark.parametrize("name", MUTANTS)


def test_there_are_enough_of_them_and_each_says_what_it_is() -> None:
    assert len(MUTANTS) >= 24
    assert len({bug.story for bug in MUTANTS.values()}) == len(MUTANTS)
    for name, bug in MUTANTS.items():
        assert bug.name == name and re.fullmatch(r"[a-z]+(-[a-z]+)*", name)
        assert 2 <= len(re.findall(r"[.?](?= |$)", bug.story)) <= 5, bug.story
        assert bug.breaks in INVARIANTS and bug.weakest in ORDER and bug.scenario in SCENARIOS and bug.real
    assert {bug.weakest for bug in MUTANTS.values()} >= {"process", "ext4", "torn", "posix"}


@every_mutant
def test_the_weakest_crash_that_kills_it_is_the_one_that_it_names(name: str) -> None:
    """All weaker ones are tried first."""
    found, = score([name], workers=1)
    assert (found.invariant, found.profile) == (MUTANTS[name].breaks, MUTANTS[name].weakest), str(found)
    assert found.killed and found.as_named
    assert found.id.startswith(f"{MUTANTS[name].scenario}+{name}:")
    assert f"verdict: BROKEN PROMISE {found.invariant}" in tell(found.id)


@pytest.mark.parametrize("name", [name for name, bug in MUTANTS.items() if bug.again])
def test_one_crash_does_not_kill_what_takes_two(name: str) -> None:
    assert run_task(Task(replace(SCENARIOS[MUTANTS[name].scenario], mutant=name), ORDER)).violations == []


@pytest.mark.parametrize("scenario", sorted({bug.scenario for bug in MUTANTS.values()}))
def test_the_unbroken_server_survives_what_kills_them(scenario: str) -> None:
    mine = [bug for bug in MUTANTS.values() if bug.scenario == scenario]
    profiles = tuple(dict.fromkeys(bug.weakest for bug in mine))
    again = min(max(bug.again for bug in mine), 3)
    assert run_task(Task(SCENARIOS[scenario], profiles, again=again)).violations == []


@cache
def _said(name: str, script: str) -> list[str]:
    machine = Simulated()
    with broken(name):
        read = golden.load(golden.SCRIPTS / f"{script}.txt")
        machine.start(**{**read.directives, **LOUD})
        return [said for _, said in golden.play(read, machine)]


def test_the_unbroken_server_says_what_redis_says_with_everything_switched_on() -> None:
    for script in SCRIPTS:
        blocks = [block.expected for block in golden.load(golden.SCRIPTS / f"{script}.txt").blocks if block.steps]
        assert _said("", script) == blocks


@every_mutant
def test_no_client_can_tell_it_from_the_unbroken_server(name: str) -> None:
    assert [script for script in SCRIPTS if _said(name, script) != _said("", script)] == []


# ---- broken --------------------------------------------------------------------------------------

def _attributes() -> list[dict[str, Any]]:
    return [dict(vars(owner)) for owner in PATCHED]


@every_mutant
def test_a_bug_is_there_inside_of_its_with_and_nowhere_else(name: str) -> None:
    before = _attributes()
    with broken(name):
        assert _attributes() != before
    assert _attributes() == before
    with pytest.raises(ZeroDivisionError), broken(name):
        1 / 0
    assert _attributes() == before


def test_no_bug_is_no_bug() -> None:
    before = _attributes()
    with broken(""):
        assert _attributes() == before


def test_an_unknown_bug_is_refused_with_a_sentence() -> None:
    sentence = "no mutant is called 'reply-after-lunch'; there is reply-before-log, "
    with pytest.raises(ValueError, match=sentence), broken("reply-after-lunch"):
        pass


def test_a_mutant_that_cannot_be_undone_halfway_is_undone_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def half(patch: Callable[[Any, str, Any], None]) -> None:
        patch(Server, "before_sleep", None)
        patch(Server, "no_such_thing", None)
        raise RuntimeError("halfway")
    monkeypatch.setitem(MUTANTS, "half", MUTANTS["reply-before-log"]._replace(name="half", patch=half))
    before = _attributes()
    with pytest.raises(RuntimeError, match="halfway"), broken("half"):
        pass
    assert _attributes() == before


# ---- score ---------------------------------------------------------------------------------------

class AtOnce(Executor):
    """Does all by itself, and when it is asked."""

    def submit(self, work: Callable[..., Any], /, *args: Any, **more: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(work(*args, **more))
        return future


@pytest.fixture(params=["here", "two processes", "any executor"])
def how(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    ways: dict[str, dict[str, Any]] = {"here": {"workers": 1}, "two processes": {"workers": 2},
                                       "any executor": {"executor": AtOnce()}}
    yield ways[request.param]


def test_the_score_has_a_row_for_each_in_their_order_wherever_they_run(how: dict[str, Any]) -> None:
    names, told = ["written-in-place", "reply-before-log"], list[tuple[int, int]]()
    rows = score(names, progress=lambda done, total: told.append((done, total)), **how)
    assert [row.name for row in rows] == names
    assert [(row.invariant, row.profile) for row in rows] == [("I10", "process"), ("I3", "process")]
    assert told[-1] == (2, 2)
    assert str(rows[1]).endswith(f"breaks I3   process  {rows[1].id}")


def test_the_shell_s_score_is_there_for_programs(monkeypatch: pytest.MonkeyPatch,
                                                 capsys: pytest.CaptureFixture[str]) -> None:
    some = score(["reply-before-log", "written-in-place"], workers=1)
    monkeypatch.setattr(shell, "score", lambda **how: [*some, Score("sound", "", "", "")])
    assert shell.main(["mutants", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["mutants"], told["killed"]) == (3, 2)
    assert told["rows"][0] == {"name": "reply-before-log", "invariant": "I3", "profile": "process", "id": some[0].id}
    assert told["rows"][2] == {"name": "sound", "invariant": "", "profile": "", "id": ""}
    monkeypatch.setattr(shell, "score", lambda **how: some)
    assert shell.main(["mutants"]) == 0
    assert capsys.readouterr().out.startswith(f"{some[0]}\n{some[1]}\n\n2 of 2 mutants killed: 100 %")


def test_a_mutant_that_is_none_survives(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = MUTANTS["reply-before-log"]._replace(name="sound", scenario="always-exec", patch=lambda patch: None)
    monkeypatch.setitem(MUTANTS, "sound", sound)
    row, = score(["sound"], workers=1)
    assert not row.killed and not row.as_named and "SURVIVES" in str(row)
