"""What the tests of snapshots and of loading share: looking at files, watching and failing a disk, a child that waits.

Everything here works on both machines of conftest.py: a disk is reached through its class, so that a child has it too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from kvref.config import Config, read_file
from kvref.persistence import rdb
from kvref.server import Server
from kvref.sim.clock import Clock
from kvref.sim.disk import Disk
from tests import golden, record
from tests.conftest import Machine, Real, Simulated

OPERATIONS = ("open", "read", "write", "fsync", "close", "rename", "unlink", "fsync_dir")
LONG_US = 10_000_000
ALWAYS = "3600 1000000"                     # save points that are never reached


def info(ask: Callable[..., Any], section: str = "persistence") -> dict[str, str]:
    """What INFO tells: field -> value."""
    return dict(line.split(":", 1) for line in ask("INFO", section).decode().split("\r\n") if ":" in line)


def files(machine: Machine) -> dict[str, bytes]:
    """The files in the server's directory, as any process sees them."""
    found = {}
    for name in machine.server.disk.list(machine.server.config.dir):
        with suppress(IsADirectoryError):
            found[name] = read_file(machine.server.disk, machine.server.path(name))
    return found


def saved(machine: Machine) -> dict[bytes, Any]:
    """The keys of database 0 in dump.rdb."""
    return {key: value for db, key, value, _ in rdb.load(machine.server.snapshots.path, machine.server.disk) if not db}


def said(machine: Machine) -> str:
    """What the server has said in its log."""
    if isinstance(machine, Simulated):
        return "\n".join(machine.world.log)
    return "\n".join(text for _, text in machine.log)


def put(machine: Machine, name: str, data: bytes) -> None:
    """Write a file into the server's directory; only the page cache has it."""
    disk: Any = machine.server.disk
    disk = disk.instantly() if isinstance(machine, Simulated) else disk
    file = disk.open(machine.server.path(name), "w")
    rdb.write_all(disk, file, data)
    disk.close(file)


def restart(machine: Machine, **directives: str) -> Server:
    """kill -9, and a start on what the disk holds."""
    machine.connections.clear()
    if isinstance(machine, Simulated):
        if machine.world.server:
            machine.world.kill()
        machine.server = machine.world.start(**directives)
        machine.server.loop.observe(machine.events.append)
    else:
        machine.stop()
        machine.start(**directives)
    return machine.server


def dump(*entries: rdb.Entry, **directives: str) -> bytes:
    """The bytes of a dump with these keys: (database, key, value, deadline in ms or None)."""
    disk = Disk(Clock())
    rdb.dump("/dump.rdb", entries, Config.load(directives=list(directives.items())), disk)
    return disk.content("/dump.rdb")


def block(machine: Machine) -> None:
    """Put a directory in the place of dump.rdb: no snapshot can be done from now on ..."""
    name = machine.server.snapshots.path
    if os.path.basename(name) in files(machine):
        machine.server.disk.unlink(name)
    machine.server.disk.mkdir(name)


def unblock(machine: Machine) -> None:
    """... and now again."""
    machine.server.disk.rename(machine.server.snapshots.path, machine.server.path("away"))


def child_ends(machine: Machine) -> None:
    """Return when there is no child any more and the server knows."""
    server = machine.server
    for pid in server.children if isinstance(machine, Real) else ():
        with suppress(ChildProcessError):           # the server has waited for it
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    while server.children and not server.stopped:
        machine.advance(100)


class Watched:
    """The disk of a machine, whose every operation is noted, its child's too; one kind of them may fail."""

    def __init__(self, machine: Machine, patch: pytest.MonkeyPatch) -> None:
        self.failing, self.code = "", 0
        self._notes, self._pen = os.pipe()          # a pipe, so that a child's notes arrive here
        os.set_blocking(self._notes, False)
        kind = type(machine.server.disk)
        for name in OPERATIONS:
            patch.setattr(kind, name, self._through(name, getattr(kind, name)))

    def _through(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(disk: Any, *args: Any) -> Any:
            os.write(self._pen, " ".join([name, *(arg for arg in args if isinstance(arg, str))]).encode() + b"\n")
            if name == self.failing:
                raise OSError(self.code, os.strerror(self.code))
            return method(disk, *args)
        return call

    def notes(self) -> list[str]:
        """The operations since the last call, with the names of files: 'open /data/temp-100.rdb w'."""
        try:
            return os.read(self._notes, 1 << 16).decode().splitlines()
        except BlockingIOError:
            return []

    def close(self) -> None:
        os.close(self._notes)
        os.close(self._pen)


Watch = Callable[[Machine], Watched]


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """Watch the disk of a machine from now on."""
    made: list[Watched] = []

    def watch(machine: Machine) -> Watched:
        made.append(Watched(machine, monkeypatch))
        return made[-1]
    yield watch
    monkeypatch.undo()
    for watched in made:
        watched.close()


@contextmanager
def held_child(machine: Machine, alice: Any) -> Iterator[int]:
    """A BGSAVE whose child has written its temporary file and stands in the fsync of it; its pid. Then it goes on."""
    with pytest.MonkeyPatch.context() as patch:
        if isinstance(machine, Simulated):
            patch.setitem(machine.world.disk.latency_us, "fsync", LONG_US)
            assert alice("BGSAVE") == "Background saving started"
            machine.advance(1)
            patch.undo()
            yield machine.server.snapshots.child or 0
            machine.advance(LONG_US // 1000)
            child_ends(machine)
            return
        gate, key, arrived, bell = *os.pipe(), *os.pipe()
        kind, parent = type(machine.server.disk), os.getpid()
        fsync = kind.fsync

        def wait_and_fsync(disk: Any, file: Any) -> None:
            if os.getpid() != parent:
                os.write(bell, b"!")
                os.read(gate, 1)
            fsync(disk, file)
        patch.setattr(kind, "fsync", wait_and_fsync)
        assert alice("BGSAVE") == "Background saving started"
        assert os.read(arrived, 1)
        yield machine.server.snapshots.child or 0
        os.write(key, b"!")
        for end in (gate, key, arrived, bell):
            os.close(end)
    child_ends(machine)


class Redis:
    """A client of a real redis-server."""

    def __init__(self, server: record.RedisServer) -> None:
        self.server, self.peer = server, record.SocketPeer(server.port)

    def __call__(self, *words: str) -> Any:
        self.peer.send_bytes(golden.request(*words))
        return self.reply()

    def reply(self) -> Any:
        while True:
            found, rest = golden.replies(self.peer.buffer)
            if found:
                assert not rest and len(found) == 1
                self.peer.take()
                return found[0]
            assert self.peer.drain(10) and not self.peer.closed, "redis-server says nothing"


@contextmanager
def real_server(**directives: str) -> Iterator[record.RedisServer]:
    if not record.installed("redis-server"):
        pytest.skip("redis-server 7.0 is not installed")
    with record.RedisServer({name.replace("_", "-"): value for name, value in directives.items()}) as server:
        yield server
