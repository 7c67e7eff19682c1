"""The commit: at every instant dump.rdb is a whole snapshot, whatever fails, whoever is killed, and if the power goes.

Most tests run on both machines (conftest.py); crashes between two operations are the simulated one's.
"""

from __future__ import annotations

import builtins
import errno
import itertools
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kvref.persistence import rdb, snapshot
from kvref.sim import World
from tests import record
from tests.conftest import Machine, Real, Simulated
from tests.saving import ALWAYS, Watch, child_ends, files, held_child, info, said, saved, watch
from tests.test_main import environment

__all__ = ["watch"]                         # a fixture


# ---- the commit ----------------------------------------------------------------------------------

def steps(folder: str, pid: int, writes: int = 1) -> list[str]:
    temp = f"{folder}/temp-{pid}.rdb"
    return [f"open {temp} w", *["write"] * writes, "fsync", "close", f"rename {temp} {folder}/dump.rdb",
            f"fsync_dir {folder}"]


def test_the_steps_of_a_commit_come_in_this_order(machine: Machine, watch: Watch) -> None:
    """Written, durable under a name of its own, closed, renamed, the name durable: for SAVE and for a child."""
    server, alice = machine.start(save=""), machine.connect()
    alice("SET", "k", "v")
    watched = watch(machine)
    alice("SAVE")
    assert watched.notes() == steps(server.config.dir, server.processes.pid)
    alice("BGSAVE")
    pid = server.snapshots.child or 0
    if isinstance(machine, Simulated):
        assert watched.notes() == steps(server.config.dir, pid)         # on a copy of the disk, at the fork ...
    child_ends(machine)
    assert watched.notes() == steps(server.config.dir, pid)             # ... and one by one on this one


@pytest.mark.parametrize("directive, fsyncs", [("yes", 3), ("no", 1)])
def test_a_long_file_is_fsynced_in_between(directive: str, fsyncs: int, machine: Machine, watch: Watch) -> None:
    machine.start(rdb_save_incremental_fsync=directive, rdbcompression="no")
    alice, watched = machine.connect(), watch(machine)
    for db in ("0", "1"):
        alice("SELECT", db)
        alice("SET", "k", "x" * snapshot.SYNC_EVERY)
    assert alice("SAVE") == "OK"
    notes = watched.notes()
    assert notes.count("fsync") == fsyncs and notes[-4:-2] == ["fsync", "close"]


def test_a_disk_that_takes_few_bytes_at_a_time_gets_them_all(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.start()
    alice, kind = machine.connect(), type(machine.server.disk)
    write: Any = kind.write
    monkeypatch.setattr(kind, "write", lambda disk, file, data: write(disk, file, data[:7]))
    alice("SET", "k", "v" * 100)
    alice("BGSAVE")
    child_ends(machine)
    assert saved(machine) == {b"k": b"v" * 100}


OLD, NEW = {b"course": b"old"}, {b"course": b"new", b"more": b"1"}


def crashes(first: bool, how: str) -> Iterator[tuple[str, dict[bytes, Any] | None]]:
    """Crash after each operation of a BGSAVE: what the last one was, and what the next start finds."""
    for count in itertools.count():
        world = World(seed=1)
        world.start()
        alice = world.connect("alice")
        for key, value in ({} if first else OLD).items():
            alice("SET", key, value)
            alice("SAVE")
        for key, value in NEW.items():
            alice("SET", key, value)
        begin = len(world.disk.operations)
        alice("BGSAVE")
        while world.server and world.server.children and len(world.disk.operations) < begin + count:
            world.step()
        if len(world.disk.operations) < begin + count:
            return
        getattr(world, how)()
        assert set(world.disk.list("/data")) <= {"dump.rdb", "temp-101.rdb"}
        server = world.start()
        found = dict(server.databases[0].values)
        assert (world.disk.list("/data") == ["dump.rdb"]) == bool(found) and found in ({}, OLD, NEW)
        yield world.disk.operations[begin + count - 1].kind if count else "", found or None


@pytest.mark.parametrize("first", [True, False])
def test_a_crash_after_any_operation_leaves_the_old_snapshot_or_the_new_one_whole(first: bool) -> None:
    """A killed process leaves what was written, a power failure what was made durable: so the rename counts at once,
    or with the fsync of its directory."""
    old = None if first else OLD
    kinds = ["", "create", "write", "fsync", "rename", "fsync_dir"]
    assert list(crashes(first, "kill")) == list(zip(kinds, [old, old, old, old, NEW, NEW]))
    assert list(crashes(first, "power_loss")) == list(zip(kinds, [old, old, old, old, old, NEW]))


def test_a_save_that_was_acknowledged_outlives_a_power_failure() -> None:
    world = World(seed=1)
    world.start()
    alice = world.connect("alice")
    alice("SET", "k", "v")
    assert alice("SAVE") == "OK"
    world.power_loss()
    world.start()
    assert world.connect("alice")("GET", "k") == b"v"


FALLIBLE = ["open", "write", "fsync", "close", "rename", "fsync_dir"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("failing", FALLIBLE)
@pytest.mark.parametrize("command", ["SAVE", "BGSAVE"])
def test_whatever_fails_the_last_snapshot_is_whole_and_nothing_else_is_left(
        command: str, failing: str, code: int, machine: Machine, watch: Watch) -> None:
    fail(machine, watch, command, failing, code)


@pytest.mark.parametrize("failing", [name for name in FALLIBLE if name != "close"])
def test_a_simulated_child_can_fail_when_its_steps_are_made_too(failing: str, watch: Watch) -> None:
    """And not at the instant of the fork, when it does its work on a copy of the disk."""
    fail(Simulated(), watch, "BGSAVE", failing, errno.EIO, later=True)


def fail(machine: Machine, watch: Watch, command: str, failing: str, code: int, later: bool = False) -> None:
    machine.start(save=ALWAYS)
    alice = machine.connect()
    alice("SET", "course", "old")
    alice("SAVE")
    before = info(alice)
    alice("SET", "course", "new")
    watched = watch(machine)
    watched.code, watched.failing = code, "" if later else failing
    reply = alice(command)
    watched.failing = failing
    child_ends(machine)
    watched.failing = ""
    assert str(reply) == ("ERR" if command == "SAVE" else "Background saving started")
    assert list(files(machine)) == ["dump.rdb"]
    assert saved(machine) == {b"course": b"new" if failing == "fsync_dir" else b"old"}
    assert f"Error saving {machine.server.snapshots.path}: {os.strerror(code)}" in said(machine)
    after = info(alice)
    assert after["rdb_changes_since_last_save"] == "1" and after["rdb_last_save_time"] == before["rdb_last_save_time"]
    assert after["rdb_last_bgsave_status"] == ("ok" if command == "SAVE" else "err")


# ---- the child -----------------------------------------------------------------------------------

def test_a_child_that_somebody_kills_leaves_the_old_snapshot_alone(machine: Machine) -> None:
    machine.start(save=ALWAYS)
    alice = machine.connect()
    alice("SET", "k", "old")
    alice("SAVE")
    alice("SET", "k", "new")
    with held_child(machine, alice) as pid:
        if isinstance(machine, Real):
            os.kill(pid, signal.SIGKILL)
        else:
            machine.server.processes.kill(pid)
        child_ends(machine)
        assert list(files(machine)) == ["dump.rdb"] and saved(machine) == {b"k": b"old"}
    assert "Background saving terminated by signal 9" in said(machine)
    assert str(alice("SET", "k", "v")).startswith("MISCONF")


def test_its_temporary_file_is_found_even_if_the_server_has_moved(machine: Machine) -> None:
    machine.start(save="", enable_protected_configs="yes")
    alice, disk, home = machine.connect(), machine.server.disk, machine.server.config.dir
    disk.mkdir(f"{home}/elsewhere")
    alice("SET", "k", "v")
    with held_child(machine, alice):
        assert alice("CONFIG", "SET", "dir", f"{home}/elsewhere") == "OK"
        alice("FLUSHALL")
        assert disk.list(home) == ["elsewhere"] and not files(machine)


def test_a_fork_that_fails_is_a_failed_save_and_tried_again(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fork(*_: Any) -> int:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    machine.start(save=ALWAYS)
    alice = machine.connect()
    alice("SET", "k", "v")
    open_files = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch:
        where: Any = os if isinstance(machine, Real) else type(machine.server.processes)
        patch.setattr(where, "fork", fork)
        assert str(alice("BGSAVE")) == "ERR"
        assert alice("MULTI") == "OK" and alice("BGSAVE") == "QUEUED"
        assert alice("EXEC") == ["Background saving scheduled"]
        machine.advance(7000)
    assert said(machine).count("Can't save in background: fork: Resource temporarily unavailable") == 2
    assert str(alice("SET", "k", "w")).startswith("MISCONF") and not machine.server.children
    assert len(os.listdir("/proc/self/fd")) == open_files
    machine.advance(6000)
    child_ends(machine)
    assert saved(machine) == {b"k": b"v"} and alice("SET", "k", "w") == "OK"


@pytest.mark.parametrize("failure, says", [
    (ZeroDivisionError("a bug"), "ZeroDivisionError"), (OSError(errno.EIO, "\udcff" + "\u20ac" * 300), "\u20ac\u20ac"),
    (OSError(errno.EIO, "-" + "\u20ac" * 300), "-\u20ac\u20ac")])
def test_what_ends_a_child_is_told_in_its_parent_s_log(
        failure: Exception, says: str, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its text is: a report of bounded size may be cut within a character."""
    def blocks(*_: Any, **__: Any) -> Iterator[bytes]:
        yield b"REDIS"
        raise failure
    machine.start(save="")
    monkeypatch.setattr(rdb, "blocks", blocks)
    alice = machine.connect()
    alice("BGSAVE")
    child_ends(machine)
    assert says in said(machine) and files(machine) == {}
    assert info(alice)["rdb_last_bgsave_status"] == "err" and alice("SET", "k", "v") == "OK"


def test_a_real_child_reports_what_was_copied_and_leaves_neither_a_zombie_nor_a_pipe(tmp_path: Path) -> None:
    machine = Real(tmp_path)
    machine.start()
    alice = machine.connect()
    alice("PING")
    open_files = len(os.listdir("/proc/self/fd"))
    with held_child(machine, alice) as pid:
        pass
    assert not Path(f"/proc/{pid}").exists() and len(os.listdir("/proc/self/fd")) == open_files
    assert int(info(alice)["rdb_last_cow_size"]) > 0 or not Path("/proc/self/smaps_rollup").exists()
    with held_child(machine, alice) as pid:
        alice("FLUSHALL")
        assert not Path(f"/proc/{pid}").exists()            # at once: what it was about to do will not be done
    assert len(os.listdir("/proc/self/fd")) == open_files
    machine.stop()


def test_a_real_child_imports_nothing_and_writes_nothing_to_the_log(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that another thread of the parent holds at the fork is held for ever in the child."""
    parent = os.getpid()

    def in_the_parent_only(do: Any) -> Any:
        def call(*args: Any, **named: Any) -> Any:
            assert os.getpid() == parent
            return do(*args, **named)
        return call
    machine = Real(tmp_path)
    server = machine.start()
    alice = machine.connect()
    for words in ("SET s v", "RPUSH l a", "SADD t a", "HSET h f v", "ZADD z 1.5 m", "SET big " + "v" * 100):
        alice(*words.split())
    monkeypatch.setattr(builtins, "__import__", in_the_parent_only(builtins.__import__))
    monkeypatch.setattr(server, "log", in_the_parent_only(server.log))
    alice("BGSAVE")
    child_ends(machine)
    assert len(saved(machine)) == 6
    machine.stop()


PARENT = """
import os, sys
from kvref import machine
from kvref.__main__ import main
parent, gate, fsync = os.getpid(), int(sys.argv.pop(1)), machine.RealDisk.fsync
def wait_and_fsync(disk, file):
    if os.getpid() != parent:
        print("the child waits", flush=True)
        os.read(gate, 1)
    fsync(disk, file)
machine.RealDisk.fsync = wait_and_fsync
sys.exit(main(sys.argv[1:]))
"""


def test_when_the_parent_is_killed_its_port_is_free_and_its_clients_see_the_end(tmp_path: Path) -> None:
    """Were the child to keep its parent's sockets, both would have to wait for it."""
    (gate, key), port = os.pipe(), record.free_port()
    process = subprocess.Popen([sys.executable, "-c", PARENT, str(gate), "--port", str(port)], cwd=tmp_path,
                               env=environment(), stdout=subprocess.PIPE, text=True, pass_fds=[gate])
    os.close(gate)
    try:
        assert process.stdout and any("Ready to accept" in line for line in process.stdout)
        alice, bob = (record.SocketPeer(port) for _ in range(2))
        alice.send_bytes(b"SET k v\r\nBGSAVE\r\n")
        assert any("the child waits" in line for line in process.stdout)
        process.kill()
        process.wait()
        for client in (alice, bob):
            while not client.closed:
                assert client.drain(10)
        with socket.create_server(("127.0.0.1", port)):
            pass
        assert [name.startswith("temp-") for name in os.listdir(tmp_path)] == [True]
    finally:
        process.kill()
        os.close(key)                                   # the child goes on; nobody waits for its snapshot any more
        process.communicate()                           # until it has ended, too
    assert os.listdir(tmp_path) == []


def test_worlds_of_one_seed_write_the_same_bytes() -> None:
    def dump(seed: int) -> bytes:
        world = World(seed=seed)
        world.start(save="1 1")
        alice = world.connect("alice")
        for number in range(100):
            alice("SET", f"key:{number}", "v" * number)
            alice("ZADD", "scores", number / 7, f"m{number}")
            alice("SADD", "set", f"{number}")
        alice("SPOP", "set", "10")
        alice("EXPIRE", "key:1", "1000")
        world.run(ms=3000)
        return world.disk.content("/data/dump.rdb")
    assert dump(7) == dump(7) != dump(8)
