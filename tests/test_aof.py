"""The append-only file: what is written when, by each policy, and what every failure means for clients.

Most tests run on both machines (conftest.py). What a start makes of the files is tested in test_aof_load.py.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from kvref.sim import ReplyError, World, WouldBlock
from kvref.sim.disk import Disk, Fault
from tests import golden
from tests.conftest import Connection, Machine, Real, Simulated
from tests.journal import FOLDER, MANIFEST, Disturb, disturb, fsync_ends, held_fsync, logged, named, parts, state
from tests.saving import ALWAYS, Redis, child_ends, held_child, info, put, real_server, restart, said

__all__ = ["disturb"]                       # a fixture
INCR1, INCR2, BASE2 = "appendonly.aof.1.incr.aof", "appendonly.aof.2.incr.aof", "appendonly.aof.2.base.rdb"
POLICIES = ["always", "everysec", "no"]
MISCONF = "MISCONF Errors writing to the AOF file: "


def start(machine: Machine, **directives: str) -> Connection:
    machine.start(**{"appendonly": "yes", **directives})
    return machine.connect()


def rewrite(machine: Machine, client: Any) -> None:
    assert client("BGREWRITEAOF") == "Background append only file rewriting started"
    child_ends(machine)


# ---- in which order ------------------------------------------------------------------------------

@pytest.mark.parametrize("policy, before, after", [
    ("always", ["write", "fsync", "reply"], []), ("everysec", ["write", "reply"], ["fsync"]), ("no", ["write", "reply"], [])])
def test_the_log_is_written_before_the_reply_and_synced_as_the_policy_says(
        policy: str, before: list[str], after: list[str], machine: Machine, disturb: Disturb) -> None:
    alice = start(machine, appendfsync=policy)
    disturbed = disturb(machine)
    alice.send_bytes(b"SET a 1\r\nSET b 2\r\n")
    machine.settle()
    machine.advance(1100)
    fsync_ends(machine)
    notes = disturbed.take()                                            # also when writes stop ...
    kinds = [note.split()[0] for note in notes]
    if after and isinstance(machine, Real):                             # the thread may be quicker than the reply
        kinds.sort(key=(before + after).index)
    assert kinds == before + after and notes[0].startswith("write")
    assert {note.split()[-1] for note in notes} == {INCR1, "reply"}
    assert machine.server.aof.synced == (0 if policy == "no" else machine.server.aof.size)
    machine.advance(5000)
    assert disturbed.take() == []                                       # ... and then no more


def test_reading_writes_nothing(machine: Machine, disturb: Disturb) -> None:
    alice = start(machine, appendfsync="always")
    disturbed = disturb(machine)
    alice("GET", "a")
    alice("DEL", "a")
    assert disturbed.take() == ["reply", "reply"]


def test_a_write_waits_two_seconds_for_an_fsync_that_runs_and_no_longer(machine: Machine) -> None:
    alice = start(machine)
    with held_fsync(machine):
        alice("SET", "a", "1")
        machine.advance(1100)
        before = machine.server.aof.size
        assert machine.server.aof.job and alice("SET", "b", "2") == "OK"
        machine.advance(1900)
        assert machine.server.aof.size == before and info(alice)["aof_delayed_fsync"] == "0"
        assert info(alice)["aof_buffer_length"] == str(len("*3\r\n$3\r\nSET\r\n$1\r\nb\r\n$1\r\n2\r\n"))
        machine.advance(200)
        assert machine.server.aof.size > before and info(alice)["aof_delayed_fsync"] == "1"
        assert "Asynchronous AOF fsync is taking too long (disk is busy?)" in said(machine)
    machine.advance(1100)
    fsync_ends(machine)
    assert machine.server.aof.synced == machine.server.aof.size


@pytest.mark.parametrize("policy", ["always", "everysec"])
def test_with_no_appendfsync_on_rewrite_there_is_no_fsync_while_a_child_runs(
        policy: str, machine: Machine, disturb: Disturb) -> None:
    alice = start(machine, appendfsync=policy, no_appendfsync_on_rewrite="yes")
    disturbed = disturb(machine)
    with held_child(machine, alice):
        disturbed.take()
        alice("SET", "a", "1")
        machine.advance(1500)
        assert disturbed.take() == [f"write {INCR1}", "reply"]
    machine.advance(1100)
    fsync_ends(machine)
    assert f"fsync {INCR1}" in disturbed.take() and machine.server.aof.synced == machine.server.aof.size


# ---- what is written -----------------------------------------------------------------------------

WRITTEN = {
    "SET a 1; SET b 2": "SELECT 0; SET a 1; SET b 2",
    "SELECT 3; SET a 1; SELECT 0; GET a; SELECT 3; SET b 2; SELECT 1; SET c 3": "SELECT 3; SET a 1; SET b 2; SELECT 1; SET c 3",
    "MULTI; SET a 1; INCR n; EXEC": "SELECT 0; MULTI; SET a 1; INCR n; EXEC",
    "MULTI; SET a 1; EXEC": "SELECT 0; SET a 1",
    "MULTI; GET a; EXEC; MULTI; SET a 1; DISCARD": "",
    "MULTI; SET a 1; SELECT 5; SET a 1; EXEC": "SELECT 0; MULTI; SET a 1; SELECT 5; SET a 1; EXEC",
    "SET a 1 PXAT 1; SET a 2 XX": "SELECT 0; SET a 1 PXAT 1; DEL a",
    "SET a 1 PXAT 1; INCR a": "SELECT 0; SET a 1 PXAT 1; MULTI; DEL a; INCR a; EXEC",
    "SET a 1 EX 100": "SELECT 0; SET a 1 PXAT <ms>",
    "SET a 1; EXPIRE a 100": "SELECT 0; SET a 1; PEXPIREAT a <ms>",
    "SADD s x; SPOP s 5": "SELECT 0; SADD s x; DEL s",
    "INCRBYFLOAT n 1.5": "SELECT 0; SET n 1.5 KEEPTTL",
    "bob BLPOP l 0; RPUSH l x": "SELECT 0; RPUSH l x; LPOP l",
    "bob BLPOP l 0; MULTI; RPUSH l x y; SET a 1; EXEC": "SELECT 0; MULTI; RPUSH l x y; SET a 1; EXEC; LPOP l",
    "bob BLMPOP 0 1 l LEFT COUNT 2; RPUSH l x y z": "SELECT 0; RPUSH l x y z; LPOP l 2",
}


def play(ask: Any, bob: Any, script: str) -> None:
    for step in script.split("; "):
        if step.startswith("bob "):
            bob(step.removeprefix("bob "))
        else:
            ask(*step.split())


@pytest.mark.parametrize("script", WRITTEN)
def test_what_the_log_gets(script: str, machine: Machine) -> None:
    alice = start(machine, enable_debug_command="yes", appendfsync="no")
    alice("DEBUG", "SET-ACTIVE-EXPIRE", "0")
    bob = machine.connect()
    play(alice, lambda line: (bob.send(*line.split()), machine.settle()), script)
    assert [re.sub(r"\d{13}", "<ms>", line) for line in logged(machine)] == WRITTEN[script].split("; ") * bool(WRITTEN[script])


def test_what_redis_writes_is_the_same() -> None:
    for script, expected in WRITTEN.items():
        with real_server(appendonly="yes", enable_debug_command="yes", appendfsync="always") as server:
            alice, bob = Redis(server), Redis(server)
            alice("DEBUG", "SET-ACTIVE-EXPIRE", "0")

            def later(line: str) -> None:
                bob.peer.send_bytes(line.encode() + b"\r\n")
                while alice("CLIENT", "LIST").count(b" flags=b ") < 1:
                    pass
            play(alice, later, script)
            with open(f"{server.directory}/appendonlydir/{INCR1}", "rb") as file:
                data = file.read()
        found = [re.sub(r"\d{13}", "<ms>", b" ".join(words).decode()) for words in golden.replies(data)[0]]
        assert "; ".join(found) == expected, script


def test_select_stands_first_in_every_new_file(machine: Machine) -> None:
    alice = start(machine)
    alice("SELECT", "7")
    alice("SET", "a", "1")
    rewrite(machine, alice)
    alice("SET", "b", "2")
    assert logged(machine) == ["SELECT 7", "SET b 2"]


def test_annotations_stand_before_a_unit_once_a_second_and_never_in_one(machine: Machine) -> None:
    alice = start(machine, aof_timestamp_enabled="yes", aof_use_rdb_preamble="no", appendfsync="no")
    machine.advance(1000 - machine.server.clock.time_us() // 1000 % 1000 + 10)
    alice.send_bytes(b"MULTI\r\nSET a 1\r\nSET b 2\r\nEXEC\r\nSET c 3\r\n")
    machine.settle()
    alice.take()
    alice("SET", "d", "4")
    machine.advance(1000)
    alice("SET", "e", "5")
    stamps = re.findall(rb"(^|\n)#TS:(\d+)\r\n(\*\d)", parts(machine)[INCR1])
    assert [stamp[2] for stamp in stamps] == [b"*2", b"*3"] and int(stamps[1][1]) - int(stamps[0][1]) == 1
    rewrite(machine, alice)
    assert re.match(rb"#TS:\d+\r\n\*2\r\n", parts(machine)["appendonly.aof.2.base.aof"])


# ---- a disk that fails ---------------------------------------------------------------------------

@pytest.mark.parametrize("failing, code", [("write", errno.ENOSPC), ("write", errno.EIO), ("fsync", errno.EIO)])
def test_always_ends_the_server_before_any_reply(failing: str, code: int, machine: Machine, disturb: Disturb) -> None:
    alice, bob = start(machine, appendfsync="always", save=ALWAYS), machine.connect()
    alice("SET", "a", "1")
    disturbed = disturb(machine)
    disturbed.fail = lambda note: code * note.startswith(f"{failing} {INCR1}")
    bob.send("GET", "a")
    alice.send("SET", "a", "2")
    machine.settle()
    assert machine.server.stopped and alice.closed and alice.take() == bob.take() == b""
    assert "'always'" in machine.server.failure and os.strerror(code) in said(machine)
    disturbed.fail = lambda note: 0
    restart(machine, appendonly="yes")
    assert machine.connect()("GET", "a") in (b"1", b"2")


@pytest.mark.parametrize("policy", ["everysec", "no"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_write_that_fails_refuses_writes_until_it_succeeds(
        code: int, policy: str, machine: Machine, disturb: Disturb) -> None:
    alice = start(machine, appendfsync=policy)
    disturbed = disturb(machine)
    disturbed.fail = lambda note: code * note.startswith("write")
    assert alice("SET", "a", "1") == "OK"                               # told, and lost if the server dies now
    assert str(alice("SET", "a", "2")) == str(alice("PING")) == MISCONF + os.strerror(code)
    assert alice("GET", "a") == b"1" and info(alice)["aof_last_write_status"] == "err"
    machine.advance(3000)
    assert said(machine).count("Error writing to the AOF file: " + os.strerror(code)) == 1
    disturbed.fail = lambda note: 0
    machine.advance(1100)
    assert "AOF write error looks solved, Redis can write again." in said(machine)
    assert alice("SET", "a", "2") == "OK"
    fsync_ends(machine)                                                 # everysec: the write may have waited for it
    machine.advance(200)
    assert logged(machine) == ["SELECT 0", "SET a 1", "SET a 2"]


@pytest.mark.parametrize("policy", ["everysec", "no"])
def test_a_short_write_is_cut_back_and_made_again_whole(policy: str, machine: Machine, disturb: Disturb) -> None:
    alice = start(machine, appendfsync=policy)
    alice("SET", "a", "1")
    fsync_ends(machine)                                                 # no write waits for it
    before = parts(machine)[INCR1]
    disturbed = disturb(machine)
    disturbed.room = 9
    alice("SET", "b", "2")
    assert parts(machine)[INCR1] == before and str(alice("SET", "c", "3")) == MISCONF + os.strerror(errno.ENOSPC)
    disturbed.fail = lambda note: errno.EIO * note.startswith("truncate")
    disturbed.room = 9
    machine.advance(1100)                                               # nor can it be cut back now
    assert parts(machine)[INCR1][:len(before)] == before and len(parts(machine)[INCR1]) > len(before)
    disturbed.room = None
    machine.advance(1100)
    assert logged(machine) == ["SELECT 0", "SET a 1", "SET b 2"] and alice("SET", "c", "3") == "OK"


def test_a_write_that_takes_less_than_all_is_no_failure(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    alice, disk = start(machine, appendfsync="always"), type(machine.server.disk)
    write: Any = disk.write
    monkeypatch.setattr(disk, "write", lambda disk, file, data: write(disk, file, data[:9]))
    assert alice("SET", "a", "1") == alice("SET", "b", "x" * 100) == "OK" and not machine.server.stopped
    assert logged(machine) == ["SELECT 0", "SET a 1", "SET b " + "x" * 100]


def fail_background_fsync(machine: Machine, disturb: Disturb) -> tuple[Connection, Any]:
    alice, disturbed = start(machine), disturb(machine)
    disturbed.fail = lambda note: errno.EIO * (note in (f"fsync {INCR1}", "fsync temp-" + MANIFEST))
    alice("SET", "a", "1")
    machine.advance(1100)
    fsync_ends(machine)
    return alice, disturbed


def test_after_a_failed_fsync_writes_are_refused_until_a_rewrite_is_done(machine: Machine, disturb: Disturb) -> None:
    """A later fsync of the same file reports success, and yet the bytes may be gone."""
    alice, disturbed = fail_background_fsync(machine, disturb)
    assert str(alice("SET", "a", "2")) == MISCONF + os.strerror(errno.EIO)
    disturbed.fail = lambda note: errno.ENOENT * note.startswith("rename")          # no rewrite can be done
    machine.advance(3000)
    child_ends(machine)
    assert str(alice("SET", "a", "2")) == MISCONF + os.strerror(errno.EIO)
    assert named(machine)[-1] == INCR1 and machine.server.aof.temporary
    disturbed.fail = lambda note: 0
    machine.advance(300_000)
    child_ends(machine)
    assert alice("SET", "a", "2") == "OK" and named(machine) == [BASE2, INCR2] and not machine.server.aof.scheduled
    assert sorted(parts(machine)) == [BASE2, INCR2, MANIFEST] and logged(machine) == ["SELECT 0", "SET a 2"]
    expected = state(machine.server)
    restart(machine, appendonly="yes")
    assert state(machine.server) == expected


def failing_job(patch: pytest.MonkeyPatch) -> tuple[World, Any]:
    """A world with an fsync in the background, which is going to be told of an error, as the first to ask."""
    world = World(seed=1)
    world.start(appendonly="yes")
    alice, disk, told = world.connect("alice"), world.disk, list[str]()
    end_fsync = Disk.end_fsync

    def fail_once(disk: Disk, begun: Any) -> None:
        if not told:
            told.append("EIO")
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        end_fsync(disk, begun)
    patch.setattr(Disk, "end_fsync", fail_once)
    disk.latency_us["fsync"] = 500_000
    alice("SET", "a", "1")
    world.run(ms=1100)
    assert world.server and world.server.aof.job and not told
    return world, alice


def test_a_rewrite_trusts_no_fsync_while_another_of_the_same_file_may_be_told_the_error(
        monkeypatch: pytest.MonkeyPatch) -> None:
    world, alice = failing_job(monkeypatch)
    aof = world.server.aof                                  # type: ignore[union-attr]
    alice("BGREWRITEAOF")
    assert aof.temporary and aof.misconf and aof.durable == 0
    world.run(ms=5000)
    assert not aof.misconf and alice("SET", "a", "2") == "OK"


def test_always_trusts_none_either_right_after_everysec(monkeypatch: pytest.MonkeyPatch) -> None:
    world, alice = failing_job(monkeypatch)
    server = world.server
    assert server
    alice.send("CONFIG", "SET", "appendfsync", "always")
    alice.send("SET", "a", "2")
    world.run(ms=3000)
    assert server.failure and alice.replies == []


def test_an_fsync_that_fails_during_the_rewrite_that_heals_another_is_not_forgotten(
        machine: Machine, disturb: Disturb) -> None:
    alice = start(machine)
    aof = machine.server.aof
    alice("BGREWRITEAOF")
    alice("SET", "a", "1")
    aof._cannot_sync("as told of the new file")
    child_ends(machine)
    assert aof.rewrites == 2 and not aof.misconf and alice("SET", "a", "2") == "OK"


def test_a_full_disk_is_waited_for_and_nothing_that_was_told_is_lost(machine: Machine, disturb: Disturb) -> None:
    """A rewrite would leave behind what is in memory alone, and find no room either."""
    alice, disturbed = start(machine, appendfsync="everysec", auto_aof_rewrite_min_size="0"), disturb(machine)
    disturbed.room = 0
    assert alice("SET", "a", "1") == "OK"
    for _ in range(10):
        assert str(alice("BGREWRITEAOF")).startswith("ERR Can't execute an AOF background rewriting")
    assert "Can't rewrite append only file in background" in said(machine)
    machine.server.aof.scheduled = True
    machine.advance(1_800_000)
    assert machine.server.aof.rewrites == 0 and logged(machine) == []
    disturbed.room = None
    machine.advance(1100)
    assert logged(machine) == ["SELECT 0", "SET a 1"] or named(machine)[-1] == INCR2
    child_ends(machine)
    assert alice("SET", "b", "2") == "OK" and named(machine) == [BASE2, INCR2]
    fsync_ends(machine)
    restart(machine, appendonly="yes")
    assert machine.connect()("MGET", "a", "b") == [b"1", b"2"]


def test_while_writes_are_refused_the_next_rewrite_never_waits_for_more_than_a_minute(
        machine: Machine, disturb: Disturb) -> None:
    alice, disturbed = fail_background_fsync(machine, disturb)
    disturbed.fail = lambda note: errno.EIO * note.startswith("rename temp-rewriteaof-bg")
    for _ in range(75):
        machine.advance(30_000)
        child_ends(machine)
    disturbed.fail = lambda note: 0
    machine.advance(61_000)
    child_ends(machine)
    assert alice("SET", "a", "2") == "OK"


def test_a_rewrite_lets_writes_in_that_a_bad_file_has_refused_when_it_is_done_and_not_before(
        machine: Machine, disturb: Disturb) -> None:
    """What could not be written is in the new base, and so lost with it until then."""
    alice, disturbed = start(machine, appendfsync="no"), disturb(machine)
    disturbed.fail = lambda note: errno.EIO * note.startswith(f"write {INCR1}")
    alice("SET", "a", "1")
    alice("BGREWRITEAOF")
    assert str(alice("SET", "a", "2")) == MISCONF + os.strerror(errno.EIO)
    child_ends(machine)
    assert alice("SET", "b", "2") == "OK" and logged(machine) == ["SELECT 0", "SET b 2"]
    restart(machine, appendonly="yes")
    assert machine.connect()("MGET", "a", "b") == [b"1", b"2"]


# ---- rewriting -----------------------------------------------------------------------------------

def test_a_rotation_is_durable_step_by_step_before_the_manifest_names_it(machine: Machine, disturb: Disturb) -> None:
    alice = start(machine, appendfsync="no")
    alice("SET", "a", "1")
    disturbed = disturb(machine)
    alice("BGREWRITEAOF")
    temp = f"temp-{MANIFEST}"
    notes = [note for note in disturbed.take() if "rewriteaof" not in note and "unlink" not in note]
    assert notes[:6] == [f"fsync {INCR1}", "fsync_dir appendonlydir", f"write {temp}", f"fsync {temp}", f"rename {temp}",
                         "fsync_dir appendonlydir"]
    child_ends(machine)
    notes = [note for note in disturbed.take() if note != "reply"]
    removed = notes.index("unlink appendonly.aof.1.base.rdb")
    assert notes[removed - 6:removed] == [*notes[removed - 6:removed - 5], "fsync_dir appendonlydir", f"write {temp}",
                                          f"fsync {temp}", f"rename {temp}", "fsync_dir appendonlydir"]
    assert notes[removed - 6].startswith("rename temp-rewriteaof-bg-")
    assert sorted(parts(machine)) == [BASE2, INCR2, MANIFEST]


def test_a_manifest_that_nobody_can_look_at_keeps_the_files_that_it_may_name(machine: Machine, disturb: Disturb) -> None:
    alice = start(machine)
    alice("SET", "a", "1")
    disturbed, bad = disturb(machine), False

    def fail(note: str) -> int:
        nonlocal bad
        bad = bad or note == f"rename temp-{MANIFEST}"
        return errno.EIO * (bad and note in ("fsync_dir appendonlydir", f"open {MANIFEST}"))
    disturbed.fail = fail
    alice("BGREWRITEAOF")
    disturbed.fail = lambda note: 0
    assert INCR2 in named(machine) and INCR2 in parts(machine)
    assert str(alice("SET", "a", "2")).startswith("MISCONF")
    machine.advance(200)
    child_ends(machine)
    assert alice("SET", "b", "2") == "OK"
    fsync_ends(machine)
    restart(machine, appendonly="yes")
    assert machine.connect()("MGET", "a", "b") == [b"1", b"2"]


def test_a_manifest_that_differs_in_its_history_alone_leaves_no_doubt() -> None:
    """Its last fsync of the directory has failed; the next rewrite fails, too, and yet no write is refused."""
    world = World(seed=1)
    server = world.start(appendonly="yes")
    world.disk.faults += [Fault("fsync_dir", f"*/{FOLDER}", error="EIO", after=6),
                          Fault("create", "*.3.incr.aof", error="EIO")]
    alice = world.connect("alice")
    for failures in (0, 1):
        with suppress(ReplyError):
            alice("BGREWRITEAOF")
        world.run(ms=500)
        assert server.aof.failures == failures and not server.children
    assert all(fault.fired for fault in world.disk.faults) and alice("SET", "a", "1") == "OK"


def test_what_is_left_of_a_name_and_cannot_be_removed_is_emptied(machine: Machine, disturb: Disturb) -> None:
    alice = start(machine)
    put(machine, f"{FOLDER}/{INCR2}", b"*2\r\n$3\r\nDEL\r\n$1\r\na\r\n")
    disturbed = disturb(machine)
    disturbed.fail = lambda note: errno.EPERM * (note == f"unlink {INCR2}")
    alice("SET", "a", "1")
    rewrite(machine, alice)
    alice("SET", "b", "2")
    fsync_ends(machine)
    machine.advance(200)
    assert logged(machine) == ["SELECT 0", "SET b 2"] and len(parts(machine)[INCR2]) == machine.server.aof.size


def test_a_rewrite_that_waits_comes_before_a_save_point(machine: Machine) -> None:
    """Save points that fail, again and again, would never let it begin, and it may be what ends MISCONF."""
    alice = start(machine, save="1 1")
    alice("SET", "a", "1")
    machine.server.snapshots.last_save_s -= 100
    machine.server.aof.scheduled = True
    for _ in range(2):
        machine.advance(200)
        child_ends(machine)
    assert 0 < said(machine).index("append only file rewriting started by") < said(machine).index("Background saving started")


COMMIT = [f"open temp-{MANIFEST}", f"write temp-{MANIFEST}", f"fsync temp-{MANIFEST}", f"rename temp-{MANIFEST}",
          "fsync_dir appendonlydir", "fsync_dir appendonlydir 2"]


@pytest.mark.parametrize("failing", [*COMMIT, "rename temp-rewriteaof-bg", "unlink appendonly.aof.1.base.rdb"])
@pytest.mark.parametrize("when", ["rotation", "installation"])
@pytest.mark.parametrize("way", ["rotated", "diverted"])
def test_whatever_fails_in_a_rewrite_the_log_loads_and_goes_on(
        way: str, when: str, failing: str, machine: Machine, disturb: Disturb) -> None:
    """The manifest on the disk and the one in memory are one, also after the last fsync of the directory has failed."""
    alice = start(machine, appendfsync="everysec")
    alice("SET", "a", "1")
    disturbed = disturb(machine)
    aof, seen = machine.server.aof, dict[str, int]()

    def fail(note: str) -> int:
        name, _, count = failing.partition(" 2")
        seen[note] = seen.get(note, 0) + note.startswith(name)
        return errno.EIO * (note.startswith(name) and seen[note] >= (2 if count == "" and "2" in failing[-2:] else 1))
    if way == "diverted":
        aof._cannot_sync("as told")
    if when == "rotation":
        disturbed.fail = fail
    alice("BGREWRITEAOF")
    if when == "installation":
        disturbed.fail = fail
    child_ends(machine)
    disturbed.fail = lambda note: 0
    shown = parts(machine)
    assert shown[MANIFEST] == aof.manifest.text
    assert all(part.name in shown for part in aof.manifest.parts)
    machine.advance(200)
    child_ends(machine)
    for value in range(20):
        if alice("SET", "b", str(value)) == "OK":
            break
        alice("BGREWRITEAOF")
        child_ends(machine)
    else:
        raise AssertionError("writes are refused for ever")
    expected = state(machine.server)
    if isinstance(machine, Simulated):
        machine.advance(1100)
        fsync_ends(machine)
        machine.world.power_loss()
    restart(machine, appendonly="yes")
    assert state(machine.server) == expected
    alice = machine.connect()
    rewrite(machine, alice)
    left = set(parts(machine)) - {*named(machine), MANIFEST}
    assert left == ({failing.split()[1]} if failing.startswith("unlink") else set())


def test_a_child_that_is_killed_leaves_nothing_and_three_failures_make_the_next_wait(machine: Machine) -> None:
    alice = start(machine)
    alice("SET", "a", "1")
    for number in range(1, 5):
        alice("BGREWRITEAOF")
        machine.server.processes.kill(machine.server.aof.child)         # type: ignore[arg-type]
        child_ends(machine)
        told = info(alice)
        assert told["aof_last_bgrewrite_status"] == "err" and told["aof_rewrites_consecutive_failures"] == str(number)
        assert not [name for name in parts(machine) if name.startswith("temp-")]
    assert "AOF rewrite terminated with error: signal 9" in said(machine).replace("Background ", "")
    assert "has repeatedly failed and triggered the limit, will retry in 2 minutes" in said(machine)
    machine.server.aof.scheduled = True
    machine.advance(100_000)
    assert machine.server.aof.rewrites == 4
    machine.advance(21_000)
    child_ends(machine)
    assert machine.server.aof.rewrites == 5 and info(alice)["aof_last_bgrewrite_status"] == "ok"
    assert info(alice)["aof_rewrites_consecutive_failures"] == "0"
    expected = state(machine.server)
    restart(machine, appendonly="yes")
    assert state(machine.server) == expected


def test_a_rewrite_that_is_done_ends_the_wait_that_failures_have_brought(machine: Machine) -> None:
    alice = start(machine)
    alice("SET", "a", "1")
    for _ in range(6):
        alice("BGREWRITEAOF")
        machine.server.processes.kill(machine.server.aof.child)         # type: ignore[arg-type]
        child_ends(machine)
    rewrite(machine, alice)
    machine.server.aof.scheduled = True
    machine.advance(200)
    child_ends(machine)
    assert machine.server.aof.rewrites == 8


@pytest.mark.parametrize("percentage, size, count", [("100", "10kb", 1), ("0", "10kb", 0), ("100", "1gb", 0)])
def test_a_log_that_has_grown_is_rewritten_by_itself(percentage: str, size: str, count: int, machine: Machine) -> None:
    alice = start(machine, auto_aof_rewrite_percentage=percentage, auto_aof_rewrite_min_size=size)
    for _ in range(20):
        alice("SET", "k", "x" * 1000)
    machine.advance(200)
    child_ends(machine)
    machine.advance(1000)
    assert machine.server.aof.rewrites == count and len(named(machine)) == 2


def test_replies_of_bgrewriteaof(machine: Machine) -> None:
    alice = start(machine, save=ALWAYS)
    with held_child(machine, alice):
        assert alice("BGREWRITEAOF") == "Background append only file rewriting scheduled"
        assert info(alice)["aof_rewrite_scheduled"] == "1"
    machine.advance(200)
    child_ends(machine)
    assert machine.server.aof.rewrites == 1
    alice("BGREWRITEAOF")
    assert str(alice("BGREWRITEAOF")) == "ERR Background append only file rewriting already in progress"
    child_ends(machine)
    alice("MULTI")
    alice("BGREWRITEAOF")
    assert alice("EXEC") == ["Background append only file rewriting scheduled"]


# ---- on and off ----------------------------------------------------------------------------------

def test_bgrewriteaof_without_a_log_leaves_a_base_as_in_redis(machine: Machine) -> None:
    machine.start()
    alice = machine.connect()
    for number in (1, 2):
        alice("SET", "k", number.to_bytes(1, "big"))
        rewrite(machine, alice)
        assert sorted(parts(machine)) == [f"appendonly.aof.{number}.base.rdb", MANIFEST]
    assert info(alice)["aof_enabled"] == "0"
    assert alice("CONFIG", "SET", "appendonly", "yes") == "OK"
    child_ends(machine)
    assert sorted(parts(machine)) == [INCR1, "appendonly.aof.3.base.rdb", MANIFEST]


def test_the_log_of_a_rewrite_and_of_a_start_says_what_that_of_redis_says(machine: Machine, tmp_path: Path) -> None:
    """Tools look for these lines. (What Redis removes in the background is removed at once here.)"""
    wanted = re.compile(r"(Background A.*|Successfully renamed.*|Removing the history.*|DB loaded from.*|Background append.*)")

    def lines(text: str) -> list[str]:
        text = re.sub(r"\d+\.\d+ seconds", "N seconds", re.sub(r"(bg-|pid )\d+", r"\1N", text))
        found = [line.replace(" in the background", "") for line in wanted.findall(text)]
        history = sorted(line for line in found if line.startswith("Removing"))
        return [line for line in found if not line.startswith("Removing")] + history
    script = ["SET a 1", "BGREWRITEAOF", "CONFIG SET appendonly no", "CONFIG SET appendonly yes", "SET b 2"]
    alice = start(machine)
    for words in script:
        alice(*words.split())
        child_ends(machine)
    ours = said(machine)
    restart(machine, appendonly="yes")
    ours = ours + said(machine).removeprefix(ours)
    with real_server(appendonly="yes") as server:
        bob = Redis(server)
        for words in script:
            bob(*words.split())
            while info(bob)["aof_rewrite_in_progress"] == "1":
                pass
        shutil.copytree(f"{server.directory}/{FOLDER}", tmp_path / "copy" / FOLDER)
        theirs = Path(server.directory, "log").read_text()
    with real_server(appendonly="yes", dir=str(tmp_path / "copy"), logfile=str(tmp_path / "log")) as server:
        bob = Redis(server)
        while bob("GET", "b") != b"2":                      # it loads
            pass
        theirs += (tmp_path / "log").read_text()
    assert lines(ours) == lines(theirs)


def test_a_log_that_is_switched_on_begins_with_what_is_there(machine: Machine) -> None:
    machine.start()
    alice = machine.connect()
    alice("SET", "a", "1")
    assert alice("CONFIG", "SET", "appendonly", "yes") == "OK"
    alice("SET", "b", "2")
    assert MANIFEST not in parts(machine) and info(alice)["aof_enabled"] == "1"
    child_ends(machine)
    assert logged(machine) == ["SELECT 0", "SET b 2"]
    expected = state(machine.server)
    restart(machine, appendonly="yes")
    assert state(machine.server) == expected


def test_switching_on_off_and_on_again_at_any_moment_leaves_a_whole_log(machine: Machine) -> None:
    machine.start()
    alice = machine.connect()
    alice("SET", "a", "1")
    for words in ("yes", "no", "yes", "no", "no", "yes"):
        assert alice("CONFIG", "SET", "appendonly", words) == "OK"
        alice("INCR", "n")
    for _ in range(3):
        machine.advance(200)
        child_ends(machine)
    alice("INCR", "n")
    assert not [name for name in parts(machine) if name.startswith("temp-")] and alice("GET", "n") == b"7"
    assert alice("CONFIG", "SET", "appendonly", "no") == "OK"
    before = parts(machine)
    alice("INCR", "n")
    assert parts(machine) == before
    restart(machine, appendonly="yes")
    assert machine.connect()("GET", "n") == b"7"


def test_switching_on_during_a_rewrite_for_no_log_begins_another_for_this_one(machine: Machine) -> None:
    machine.start()
    alice = machine.connect()
    alice("SET", "a", "1")
    assert alice("BGREWRITEAOF") == "Background append only file rewriting started"
    assert alice("CONFIG", "SET", "appendonly", "yes") == "OK"
    for _ in range(3):
        machine.advance(200)
        child_ends(machine)
    alice("SET", "b", "2")
    assert logged(machine) == ["SELECT 0", "SET b 2"] and not machine.server.aof.scheduled
    restart(machine, appendonly="yes")
    assert machine.connect()("MGET", "a", "b") == [b"1", b"2"]


def test_when_dir_changes_the_log_stays_and_says_so(machine: Machine) -> None:
    alice = start(machine, enable_protected_configs="yes")
    old = machine.server.config.dir
    machine.server.disk.mkdir(f"{old}/elsewhere")
    assert alice("CONFIG", "SET", "dir", f"{old}/elsewhere") == "OK"
    assert f"The append-only file stays in {old}: a start with dir {old}/elsewhere will not find it." in said(machine)
    rewrite(machine, alice)
    assert f"{old}/{FOLDER}" == machine.server.aof.directory and machine.server.disk.list(f"{old}/elsewhere") == []
    alice("SET", "a", "1")
    for words in ("no", "yes"):
        alice("CONFIG", "SET", "appendonly", words)
    child_ends(machine)
    assert machine.server.aof.directory == f"{old}/elsewhere/{FOLDER}" and len(named(machine)) == 2
    machine.server.shutdown()
    server = restart(machine, appendonly="yes", dir=f"{old}/elsewhere")
    assert set(server.databases[0].values) == {b"a"}


def test_switching_on_in_a_transaction_and_beside_a_child_happens_later(machine: Machine) -> None:
    machine.start(save=ALWAYS)
    alice = machine.connect()
    alice.send_bytes(b"MULTI\r\nINCR n\r\nCONFIG SET appendonly yes\r\nINCR n\r\nEXEC\r\n")
    machine.settle()
    assert alice.replies()[-1] == [1, "OK", 2]
    machine.advance(200)
    child_ends(machine)
    alice("INCR", "n")
    assert logged(machine) == ["SELECT 0", "INCR n"]
    alice("CONFIG", "SET", "appendonly", "no")
    with held_child(machine, alice):
        assert alice("CONFIG", "SET", "appendonly", "yes") == "OK" and info(alice)["aof_rewrite_scheduled"] == "1"
        assert "An AOF background was scheduled to start when possible" in said(machine)
    machine.advance(200)
    child_ends(machine)
    restart(machine, appendonly="yes")
    assert machine.connect()("GET", "n") == b"3"


@pytest.mark.parametrize("failing", ["mkdir", "fsync_dir", "open temp-appendonly.aof.incr"])
def test_a_log_that_cannot_be_switched_on_is_off(failing: str, machine: Machine, disturb: Disturb) -> None:
    machine.start()
    alice = machine.connect()
    disturbed = disturb(machine)
    disturbed.fail = lambda note: errno.EIO * note.startswith(failing)
    reply = str(alice("CONFIG", "SET", "appendonly", "yes"))
    assert reply == "ERR CONFIG SET failed (possibly related to argument 'appendonly') - Unable to turn on AOF. Check server logs."
    assert info(alice)["aof_enabled"] == "0" and alice("SET", "a", "1") == "OK" and machine.server.feeds == []
    disturbed.fail = lambda note: 0
    assert alice("CONFIG", "SET", "appendonly", "yes") == "OK"
    child_ends(machine)
    assert len(named(machine)) == 2


def test_a_first_base_that_fails_is_tried_again(machine: Machine, disturb: Disturb) -> None:
    machine.start()
    alice = machine.connect()
    alice("SET", "a", "1")
    disturbed = disturb(machine)
    disturbed.fail = lambda note: errno.EIO * note.startswith("rename temp-rewriteaof-bg")
    alice("CONFIG", "SET", "appendonly", "yes")
    child_ends(machine)
    assert MANIFEST not in parts(machine) and alice("SET", "b", "2") == "OK"
    disturbed.fail = lambda note: 0
    machine.advance(200_000)
    child_ends(machine)
    expected = state(machine.server)
    restart(machine, appendonly="yes")
    assert state(machine.server) == expected


def test_a_server_does_not_end_while_it_writes_its_first_base(machine: Machine) -> None:
    machine.start(enable_debug_command="yes")
    alice = machine.connect()
    alice("CONFIG", "SET", "appendonly", "yes")
    assert str(alice("SHUTDOWN")) == "ERR Errors trying to SHUTDOWN. Check logs."
    assert "Writing initial AOF, can't exit." in said(machine)
    child_ends(machine)
    alice.send("SHUTDOWN")
    machine.settle()
    assert machine.server.stopped


def test_a_log_that_is_not_whole_keeps_the_server_there_and_the_reason_is_named(
        machine: Machine, disturb: Disturb) -> None:
    alice, disturbed = fail_background_fsync(machine, disturb)
    disturbed.fail = lambda note: errno.EIO * note.startswith("rename temp-rewriteaof-bg")
    machine.advance(200)
    child_ends(machine)
    assert machine.server.aof.temporary and machine.server.aof.child is None
    assert str(alice("SHUTDOWN")) == "ERR Errors trying to SHUTDOWN. Check logs."
    assert f"The AOF is not whole before a rewrite is done ({os.strerror(errno.EIO)}), can't exit." in said(machine)
    assert "Writing initial AOF" not in said(machine)
    alice.send("SHUTDOWN", "FORCE")
    machine.settle()
    assert machine.server.stopped


@pytest.mark.parametrize("policy", POLICIES)
def test_shutdown_makes_all_of_it_durable(policy: str) -> None:
    world = World(seed=1)
    world.start(appendonly="yes", appendfsync=policy)
    alice = world.connect()
    alice("SET", "a", "1")
    alice("BGREWRITEAOF")
    alice("SHUTDOWN")
    world.power_loss()
    world.start(appendonly="yes")
    assert world.connect()("GET", "a") == b"1"
    assert not [name for name in world.disk.list("/data/appendonlydir") if name.startswith("temp-")]


def test_a_computer_that_is_stopped_has_no_thread_any_more(machine: Machine) -> None:
    """Its fsync ends before: a thread that comes later finds closed files and sockets."""
    alice = start(machine)
    alice("SET", "a", "1")
    machine.advance(1100)
    machine.stop()
    assert not [thread for thread in threading.enumerate() if thread.name == "fsync"]


# ---- WAITAOF, DEBUG LOADAOF, INFO ----------------------------------------------------------------

def test_waitaof_waits_for_the_fsync(machine: Machine) -> None:
    alice = start(machine)
    assert alice("WAITAOF", "1", "0", "0") == [1, 0]
    alice("SET", "a", "1")
    fsync_ends(machine)
    alice("SET", "a", "2")
    with held_fsync(machine):
        alice.send_bytes(b"WAITAOF 1 0 0\r\nPING\r\n")
        machine.advance(1500)
        assert alice.replies() == []
    machine.advance(100)
    assert alice.replies() == [[1, 0], "PONG"] and not machine.server.aof.waiters


def test_waitaof_does_not_count_an_fsync_of_a_file_that_is_no_part_of_the_log_yet() -> None:
    """The child needs three seconds; meanwhile `everysec` has fsynced the temporary file."""
    world = World(seed=1, child_step_us=500_000)
    server = world.start(appendonly="no", appendfsync="everysec")
    alice = world.connect("alice")
    alice("CONFIG", "SET", "appendonly", "yes")
    alice("SET", "a", "1")
    alice.send("WAITAOF", 1, 0, 0)
    while server.aof.synced < server.aof.size or not server.aof.size:
        world.run(ms=50)
    assert server.aof.temporary and not alice.replies
    while server.aof.temporary:
        world.run(ms=50)
    world.run(ms=50)
    assert alice.replies == [[1, 0]]
    world.power_loss()
    assert state(world.start(appendonly="yes")) == {(0, b"a"): ("b'1'", None)}


@pytest.mark.parametrize("no_fsync_meanwhile", ["yes", "no"])
@pytest.mark.parametrize("policy", ["always", "everysec"])
def test_waiting_for_the_log_ends_in_a_world_where_nothing_else_happens(policy: str, no_fsync_meanwhile: str) -> None:
    world = World(seed=1)
    world.start(appendonly="yes", appendfsync=policy, no_appendfsync_on_rewrite=no_fsync_meanwhile)
    alice = world.connect("alice")
    for _ in range(3):
        alice("SET", "a", "1")
        assert alice("WAITAOF", 1, 0, 0) == [1, 0]
    alice("BGREWRITEAOF")
    alice("SET", "a", "2")
    assert alice("WAITAOF", 1, 0, 0) == [1, 0] and world.clock.monotonic_us() < 4_500_000


@pytest.mark.parametrize("replicas, policy", [(0, "no"), (1, "everysec")])
def test_what_can_never_be_durable_is_not_waited_for(replicas: int, policy: str) -> None:
    world = World(seed=1)
    world.start(appendonly="yes", appendfsync=policy)
    alice = world.connect("alice")
    alice("SET", "a", "1")
    with pytest.raises(WouldBlock):
        alice("WAITAOF", 1, replicas, 0)


def test_waits_that_are_over_leave_nothing_behind(machine: Machine) -> None:
    alice = start(machine, appendfsync="no")
    alice("SET", "a", "1")
    for _ in range(50):
        alice.send("WAITAOF", "1", "0", "1")
        machine.advance(2)
        assert alice.replies() == [[0, 0]]
    assert len(machine.server.aof.waiters) < 5


def test_waitaof_gives_up_and_says_what_there_is(machine: Machine) -> None:
    alice = start(machine)
    with held_fsync(machine):
        alice("SET", "a", "1")
        alice.send("WAITAOF", "1", "0", "50")
        machine.advance(60)
        assert alice.replies() == [[0, 0]]
    machine.advance(1100)
    fsync_ends(machine)
    alice.send("WAITAOF", "0", "1", "2500")
    machine.advance(2400)
    assert alice.replies() == []
    machine.advance(200)
    assert alice.replies() == [[1, 0]]
    alice("MULTI")
    alice("SET", "a", "1")
    alice("WAITAOF", "1", "0", "0")
    assert alice("EXEC") == ["OK", [0, 0]]
    start_always = machine.connect()
    for words, error in (("2 0 0", "ERR value is out of range, value must between 0 and 1"),
                         ("1 -1 0", "ERR value is out of range, must be positive"),
                         ("1 0 -1", "ERR timeout is negative"), ("1 0 x", "ERR timeout is not an integer or out of range")):
        assert str(start_always("WAITAOF", *words.split())) == error
    alice("CONFIG", "SET", "appendonly", "no")
    assert str(alice("WAITAOF", "1", "0", "0")) == (
        "ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.")


def test_debug_loadaof_gives_the_same_keyspace(machine: Machine) -> None:
    alice = start(machine, enable_debug_command="yes")
    for words in ("SET a 1 EX 1000", "SELECT 3", "SADD s a b", "SELECT 0", "RPUSH l a"):
        alice(*words.split())
    digest, size = alice("DEBUG", "DIGEST"), machine.server.aof.size
    assert alice("DEBUG", "LOADAOF") == "OK" and alice("DEBUG", "DIGEST") == digest
    machine.settle()
    assert machine.server.aof.size == size == len(parts(machine)[INCR1])
    alice("CONFIG", "SET", "appendonly", "no")
    assert alice("DEBUG", "LOADAOF") == "OK" and alice("DEBUG", "DIGEST") == digest


def test_info_tells_what_redis_tells_in_its_order(machine: Machine) -> None:
    alice = start(machine)
    with real_server(appendonly="yes") as server:
        theirs = [name for name in info(Redis(server)) if "aof" in name]
    assert [name for name in info(alice) if "aof" in name] == theirs


def test_behind_a_rewrite_that_was_killed_the_next_may_be_asked_for_at_once(machine: Machine) -> None:
    """It begins when the child's end has been seen, a tenth of a second later at most; in Redis at once."""
    machine.start(appendonly="yes")
    alice = machine.connect()
    alice("SET", "k", "v")
    assert "started" in alice("BGREWRITEAOF")
    alice("CONFIG", "SET", "appendonly", "no")
    assert alice("BGREWRITEAOF") == "Background append only file rewriting scheduled"
