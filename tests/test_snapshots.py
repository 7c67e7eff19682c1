"""Snapshots: when they are taken, what a failure means for clients, and the last one at the end.

Most tests run on both machines (conftest.py). What is shown to clients is compared with a real redis-server after the
same steps. How a snapshot gets onto the disk is tested in test_commit.py.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

import kvref
from kvref.config import Config, ConfigError
from kvref.sim import World
from tests.conftest import Machine, Real, Simulated
from tests.saving import (
    ALWAYS, Redis, Watch, block, child_ends, files, held_child, info, real_server, said, saved, unblock,
    watch)

__all__ = ["watch"]                         # a fixture
RUNNING = "ERR Background save already in progress"


def forks(world: World) -> list[float]:
    """The seconds at which background saves began."""
    return [float(line.split()[0]) for line in world.log if "Background saving started" in line]


# ---- save points ---------------------------------------------------------------------------------

def busy(save: str, changes: int, ms: int, every_ms: int = 100) -> list[float]:
    """When a server saves that starts at a full second and is given so many changes every 100 ms."""
    world = World(seed=1)
    world.start(save=save)
    alice = world.connect("alice")
    for _ in range(ms // every_ms):
        for _ in range(changes):
            alice("INCR", "counter")
        world.run(ms=every_ms)
    return [round(second, 1) for second in forks(world)]


def test_save_1_1_saves_every_two_seconds() -> None:
    """More than one second must have passed, and seconds are counted whole: Redis does the same."""
    assert busy("1 1", changes=1, ms=7000) == [2.0, 4.0, 6.0]
    assert busy("2 1", changes=1, ms=7000) == [3.0, 6.0]


@pytest.mark.parametrize("changes, second", [(1, 6.0), (3, 4.0), (4, 4.0), (10, 2.0), (11, 2.0)])
def test_of_several_save_points_the_first_that_is_reached_counts(changes: int, second: float) -> None:
    world = World(seed=1)
    world.start(save="5 1 3 3 1 10")
    for _ in range(changes):
        world.connect("alice")("INCR", "counter")
    world.run(ms=20_000)
    assert [round(found, 1) for found in forks(world)] == [second]


def test_nothing_is_saved_without_changes_or_without_save_points() -> None:
    assert busy("1 1", changes=0, ms=5000) == []
    assert busy("", changes=1, ms=5000) == []


def test_only_whole_seconds_count_for_a_save_point() -> None:
    """LASTSAVE is a whole second: a snapshot done at 4.9 counts as one of second 4, and the next may come at 6.0."""
    world = World(seed=1)
    world.start(save="1 1")
    alice = world.connect("alice")
    world.run(ms=4900)
    alice("SAVE")
    alice("SET", "k", "v")
    world.run(ms=3000)
    assert [round(second, 1) for second in forks(world)] == [6.0]


def test_changes_while_a_child_saves_count_for_the_next(machine: Machine) -> None:
    machine.start(save=ALWAYS)
    alice = machine.connect()
    for key in ("a", "b"):
        alice("SET", key, "of the fork")
    with held_child(machine, alice):
        for key in ("a", "c", "d"):
            alice("SET", key, "later")
        assert info(alice)["rdb_changes_since_last_save"] == "5"
    assert info(alice)["rdb_changes_since_last_save"] == "3"
    assert saved(machine) == {b"a": b"of the fork", b"b": b"of the fork"}


def test_config_set_save_moves_the_save_points_of_a_running_server() -> None:
    world = World(seed=1)
    world.start(save="1 1")
    alice = world.connect("alice")
    alice("SET", "k", "v")
    alice("CONFIG", "SET", "save", "7 1 100 5")
    world.run(ms=7500)
    assert forks(world) == []
    assert alice("CONFIG", "GET", "save") == [b"save", b"7 1 100 5"]
    world.run(ms=1000)
    assert [round(second, 1) for second in forks(world)] == [8.0]


def test_the_directive_save_is_read_set_and_rewritten_as_in_redis() -> None:
    """The first line of a file takes the place of the default, the next add to it; CONFIG SET names them all."""
    lines = 'save 900 1\nsave 300 10 60 5\n'
    steps = ("5 1 10 2", "", "1", "0 1", "7 -1", "x 1")
    assert Config.load().save == [(3600, 1), (300, 100), (60, 10000)]
    assert Config.load('save ""\n').save == []
    with real_server(save=lines.strip().removeprefix("save ")) as server:
        real = Redis(server)
        config = Config.load(lines)
        assert real("CONFIG", "GET", "save") == [b"save", config.matching([b"save"])[b"save"]]
        for step in steps:
            answer, expected = "OK", real("CONFIG", "SET", "save", step)
            try:
                config.set([(b"save", step.encode())])
            except ConfigError as error:
                answer = f"ERR {error}"
            assert answer == str(expected)
            assert real("CONFIG", "GET", "save") == [b"save", config.matching([b"save"])[b"save"]]
            real("CONFIG", "REWRITE")
            rewritten = Path(server.directory, "redis.conf").read_bytes()
            assert save_lines(rewritten) == save_lines(config.rewritten(lines.encode()))


def save_lines(text: bytes) -> list[bytes]:
    return [line for line in text.splitlines() if line.startswith(b"save")]


def test_after_a_failure_the_next_attempt_comes_more_than_five_seconds_later() -> None:
    machine = Simulated()
    machine.start(save="1 1")
    alice = machine.connect()
    block(machine)
    alice("SET", "k", "v")
    machine.advance(15_000)
    assert [round(second, 1) for second in forks(machine.world)] == [2.0, 8.0, 14.0]
    unblock(machine)
    machine.advance(6_000)
    assert [round(second, 1) for second in forks(machine.world)] == [2.0, 8.0, 14.0, 20.0]
    assert saved(machine) == {b"k": b"v"}


def test_bgsave_in_a_transaction_is_done_by_the_next_cron_whatever_comes_between(machine: Machine) -> None:
    machine.start(save=ALWAYS)
    alice = machine.connect()
    alice.send_bytes(b"MULTI\r\nBGSAVE\r\nEXEC\r\nBGSAVE\r\nBGSAVE\r\n")
    machine.settle()
    assert alice.replies()[2:4] == [["Background saving scheduled"], "Background saving started"]
    child_ends(machine)
    machine.advance(200)
    child_ends(machine)
    assert machine.server.snapshots.saves == 2 and not machine.server.snapshots.scheduled


def test_while_a_child_saves_there_is_no_other(machine: Machine) -> None:
    machine.start(save="")
    alice = machine.connect()
    with held_child(machine, alice) as pid:
        for words in (["BGSAVE"], ["BGSAVE", "SCHEDULE"], ["SAVE"]):
            assert str(alice(*words)) == RUNNING
        assert list(machine.server.children) == [pid]
    assert alice("BGSAVE") == "Background saving started"
    child_ends(machine)


def test_while_the_log_is_rewritten_a_snapshot_has_to_be_scheduled_and_comes_next(machine: Machine) -> None:
    machine.start(save="", appendonly="yes")
    alice = machine.connect()
    alice.send_bytes(b"BGREWRITEAOF\r\nBGSAVE\r\nBGSAVE SCHEDULE\r\n")        # in one turn: nobody has been waited for
    machine.settle()
    started, refused, scheduled = map(str, alice.replies())
    assert (started, scheduled) == ("Background append only file rewriting started", "Background saving scheduled")
    assert refused == ("ERR Another child process is active (AOF?): can't BGSAVE right now. Use BGSAVE SCHEDULE in order "
                       "to schedule a BGSAVE whenever possible.")
    assert machine.server.snapshots.saves == 0
    child_ends(machine)
    machine.advance(200)
    child_ends(machine)
    assert machine.server.snapshots.saves == 1 and saved(machine) == {}


# ---- the same steps as in a real redis-server -----------------------------------------------------

STEPS = {
    "saves": """
        SET a 1; SAVE; SET b 1; SET b 2; BGSAVE; wait; EXPIRE b 1000; DEL nothing; DEBUG RELOAD; SET c 1
        DEBUG RELOAD NOSAVE; EXISTS c; DEBUG SET-ACTIVE-EXPIRE 0; SET c 1 PXAT 1; DEBUG RELOAD; FLUSHALL; SET c 1
        MULTI; SET d 1; DEBUG RELOAD; SET e 1; EXEC; DBSIZE
        CONFIG SET save ''; FLUSHALL; BGSAVE SCHEDULE; wait; CONFIG RESETSTAT""",
    "failures": """
        SET a 1; block; SAVE; PING; SET a 2; BGSAVE; wait; PING; SET a 3; GET a; FLUSHALL; INFO errorstats
        MULTI; PING; EXEC; MULTI; SET a 1; EXEC; MULTI; GET a; EXEC; SUBSCRIBE x; PING; UNSUBSCRIBE x; PUBLISH x y
        CONFIG SET stop-writes-on-bgsave-error no; SET a 4; PING; MULTI; SET a 5
        bob CONFIG SET stop-writes-on-bgsave-error yes; EXEC; DISCARD; CONFIG SET save ''; SET a 6; PING
        MULTI; SET a 7; PING; bob CONFIG SET save '3600 1000000'; EXEC; SHUTDOWN; SHUTDOWN NOW; SHUTDOWN ABORT
        DEBUG RELOAD; GET a; unblock; SET a 8; BGSAVE; wait; SET a 8; PING
        block; BGSAVE; wait; SET a 9; unblock; SAVE; SET a 9""",
}
COMPARED = ("loading", "rdb_changes_since_last_save", "rdb_bgsave_in_progress", "rdb_last_bgsave_status", "rdb_saves",
            "rdb_last_load_keys_expired", "rdb_last_load_keys_loaded")
LEFT_OUT = {f"current_{name}" for name in ("cow_peak", "cow_size", "cow_size_age", "fork_perc", "save_keys_processed",
                                           "save_keys_total")}     # what a child tells while it works


def looked_at(ask: Callable[..., Any]) -> dict[str, object]:
    """What INFO tells that does not depend on how fast a machine is."""
    told = info(ask)
    return {name: told[name] for name in COMPARED} | {
        "lastsave": told["rdb_last_save_time"] == str(ask("LASTSAVE")),
        "took": told["rdb_last_bgsave_time_sec"] == "-1", "takes": told["rdb_current_bgsave_time_sec"] == "-1"}


@pytest.mark.parametrize("name", STEPS)
def test_replies_and_info_are_those_of_a_real_server_after_the_same_steps(name: str, machine: Machine) -> None:
    machine.start(save=ALWAYS, enable_debug_command="yes")
    with real_server(save=ALWAYS, enable_debug_command="yes") as server:
        dump = Path(server.directory, "dump.rdb")
        ours, theirs = {name: machine.connect() for name in "ab"}, {name: Redis(server) for name in "ab"}
        for step in re.split(r"[;\n]\s*", STEPS[name].strip()):
            if step == "block":
                block(machine)
                dump.unlink(missing_ok=True)
                dump.mkdir()
            elif step == "unblock":
                unblock(machine)
                dump.rmdir()
            elif step == "wait":
                child_ends(machine)
                while info(theirs["a"])["rdb_bgsave_in_progress"] != "0":
                    pass
            else:
                who, words = ("b" if step.startswith("bob ") else "a"), shlex.split(step.removeprefix("bob "))
                assert (step, ours[who](*words)) == (step, theirs[who](*words))
            if not step.startswith("BGSAVE"):               # a real child may be over before one can look
                assert (step, looked_at(ours["b"])) == (step, looked_at(theirs["b"]))


def test_info_tells_all_that_redis_tells_of_snapshots_but_a_child_s_progress(machine: Machine) -> None:
    machine.start()
    with real_server() as server:
        ours, theirs = (set(info(ask)) for ask in (machine.connect(), Redis(server)))
    assert {name for name in theirs - ours if "aof" not in name and "module" not in name} == LEFT_OUT
    assert ours <= theirs


# ---- FLUSHALL ------------------------------------------------------------------------------------

def test_flushall_saves_the_nothing_at_once_where_there_are_save_points(machine: Machine) -> None:
    machine.start(save=ALWAYS)
    alice = machine.connect()
    alice("SET", "k", "v")
    alice("SAVE")
    alice("FLUSHALL")
    assert saved(machine) == {} and not machine.server.children
    alice("SET", "k", "v")
    alice("SAVE")
    alice("CONFIG", "SET", "save", "")
    alice("FLUSHALL")
    assert saved(machine) == {b"k": b"v"}


@pytest.mark.parametrize("save", [ALWAYS, ""])
def test_flushall_kills_a_running_child_and_removes_its_file(save: str, machine: Machine) -> None:
    machine.start(save=save)
    alice = machine.connect()
    alice("SET", "k", "v")
    with held_child(machine, alice) as pid:
        assert f"temp-{pid}.rdb" in files(machine)
        alice.send_bytes(b"FLUSHALL\r\nFLUSHALL\r\n")
        machine.settle()
        assert alice.replies() == ["OK", "OK"]
        assert list(files(machine)) == ["dump.rdb"] * bool(save)
    assert list(files(machine)) == ["dump.rdb"] * bool(save)
    assert info(alice)["rdb_last_bgsave_status"] == "ok"
    assert alice("SET", "k", "v") == "OK"


def test_a_child_that_has_just_finished_does_not_count_after_flushall(machine: Machine) -> None:
    """Redis subtracts the changes that it saved from those since, which are none: -1 changes are left to save."""
    machine.start(save=ALWAYS)
    alice = machine.connect()
    alice("SET", "k", "v")
    machine.advance(95 - machine.server.now_us // 1000 % 100)       # just before a cron
    alice("BGSAVE")
    if isinstance(machine, Real):
        os.waitid(os.P_PID, machine.server.snapshots.child or 0, os.WEXITED | os.WNOWAIT)
    else:
        machine.server.clock.sleep(50_000)
    alice("FLUSHALL")
    child_ends(machine)
    assert info(alice)["rdb_changes_since_last_save"] == "0" and saved(machine) == {}


def test_debug_reload_kills_a_running_child(machine: Machine) -> None:
    """In Redis it goes on, and puts an older snapshot in the place of the one that RELOAD has made."""
    machine.start(save=ALWAYS, enable_debug_command="yes")
    alice = machine.connect()
    alice("SET", "k", "old")
    with held_child(machine, alice):
        alice("SET", "k", "new")
        assert alice("DEBUG", "RELOAD") == "OK"
    assert saved(machine) == {b"k": b"new"} and info(alice)["rdb_changes_since_last_save"] == "0"


def test_flushall_in_a_transaction_saves_behind_it(machine: Machine, watch: Watch) -> None:
    """Redis saves inside, and so a state that no client is ever shown."""
    machine.start(save=ALWAYS)
    alice = machine.connect()
    watched = watch(machine)
    alice.send_bytes(b"SET k v\r\nMULTI\r\nSET a 1\r\nFLUSHALL\r\nFLUSHALL\r\nSET b 2\r\nEXEC\r\n")
    machine.settle()
    assert saved(machine) == {b"b": b"2"} and machine.server.dirty == 0
    assert sum(note.startswith("rename") for note in watched.notes()) == 1


# ---- the end -------------------------------------------------------------------------------------

@pytest.mark.parametrize("save, words, is_saved", [
    (ALWAYS, "", True), ("", "", False), ("", "save", True), (ALWAYS, "nosave", False), (ALWAYS, "now", True),
    ("", "save now force", True), (ALWAYS, "nosave force", False)])
@pytest.mark.parametrize("how", ["SHUTDOWN", "SIGTERM", "SIGINT"])
def test_shutdown_and_signals_save_as_they_are_told(how: str, save: str, words: str, is_saved: bool,
                                                    machine: Machine) -> None:
    machine.start(save=save, **{f"shutdown_on_{how.lower()}": words or "default"} if how != "SHUTDOWN" else {})
    machine.connect()("SET", "k", "v")
    if how == "SHUTDOWN":
        machine.connect().send(how, *words.split())
    else:
        deliver(machine, how)
    machine.advance(200)
    assert machine.server.stopped
    assert list(files(machine)) == ["dump.rdb"] * is_saved
    assert not is_saved or saved(machine) == {b"k": b"v"}


def deliver(machine: Machine, name: str) -> None:
    """Send the server a signal. On the real machine, where the process is the test's, only its handler gets it."""
    processes: Any = machine.server.processes
    if isinstance(machine, Real):
        processes._note(signal.Signals[name], None)
    else:
        processes.deliver(name)


def test_a_server_that_cannot_save_does_not_end_unless_forced(machine: Machine) -> None:
    machine.start(save=ALWAYS)
    alice = machine.connect()
    block(machine)
    for _ in range(2):
        deliver(machine, "SIGTERM")
        machine.advance(200)
        assert not machine.server.stopped and alice("SET", "k", "v") == "OK"
    assert said(machine).count("Error trying to save the DB, can't exit.") == 2
    alice.send("SHUTDOWN", "FORCE")
    machine.settle()
    assert machine.server.stopped and alice.closed


def test_a_process_saves_when_it_is_told_to_end(tmp_path: Path) -> None:
    for found in (None, b"v"):
        with kvref.running(dir=str(tmp_path)) as server, redis.Redis(port=server.port) as client:
            assert client.get("k") == found
            client.set("k", "v")


@pytest.mark.parametrize("words", ["SHUTDOWN", "SHUTDOWN NOSAVE"])
def test_a_child_does_not_outlive_its_server_nor_does_its_file(words: str, machine: Machine) -> None:
    machine.start(save=ALWAYS)
    alice = machine.connect()
    alice("SET", "k", "v")
    with held_child(machine, alice):
        alice.send(*words.split())
        machine.settle()
        assert machine.server.stopped
        assert list(files(machine)) == ["dump.rdb"] * (words == "SHUTDOWN")
