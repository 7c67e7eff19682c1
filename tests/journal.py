"""What the tests of the append-only file share: looking into it, noting and failing the operations of a disk.

Everything works on both machines of conftest.py, but `crashes`, which is for the simulated one.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from kvref.config import read_file
from kvref.persistence.manifest import parse
from kvref.sim import World
from tests import golden
from tests.conftest import Machine, Real, Simulated

FOLDER = "appendonlydir"
MANIFEST = "appendonly.aof.manifest"
CHANGES = ("write", "fsync", "truncate", "rename", "unlink", "mkdir", "fsync_dir")


def parts(machine: Machine) -> dict[str, bytes]:
    """The files in the directory of the log, as any process sees them. A real child may take its own away meanwhile."""
    server, found = machine.server, {}
    folder = f"{server.config.dir}/{FOLDER}"
    for name in server.disk.list(folder):
        with suppress(FileNotFoundError):
            found[name] = read_file(server.disk, f"{folder}/{name}")
    return found


def named(machine: Machine) -> list[str]:
    """The names in the manifest, in order."""
    return [part.name for part in parse(parts(machine)[MANIFEST]).parts]


def logged(machine: Machine) -> list[str]:
    """The commands in the last incremental file, annotations left out."""
    data = b"".join(line for line in parts(machine)[named(machine)[-1]].splitlines(keepends=True)
                    if not line.startswith(b"#"))
    return [b" ".join(words).decode() for words in golden.replies(data)[0]]


def path_of(file: Any) -> str:
    return os.readlink(f"/proc/self/fd/{file}") if isinstance(file, int) else str(file.path)


class Disturbed:
    """The disk of a machine, whose changes are noted by name, and fail where `fail` says so."""

    def __init__(self, machine: Machine, patch: pytest.MonkeyPatch) -> None:
        self.machine = machine
        self.notes: list[str] = []
        self.fail: Callable[[str], int] = lambda note: 0            # an errno
        self.room: int | None = None                                # bytes that fit on the disk
        kind = type(machine.server.disk)
        for name in (*CHANGES, "open", "begin_fsync"):
            if hasattr(kind, name) and not (name == "fsync" and hasattr(kind, "begin_fsync")):
                patch.setattr(kind, name, self._through(name, getattr(kind, name)))
        machine.server.loop.observe(lambda event: self.notes.append("reply") if event.kind == "write" else None)

    def _through(self, name: str, method: Any) -> Any:
        def call(disk: Any, *args: Any) -> Any:
            path = os.path.basename(args[0] if isinstance(args[0], str) else path_of(args[0]))
            note = f"{'fsync' if name == 'begin_fsync' else name} {path}"
            if code := self.fail(note):
                raise OSError(code, os.strerror(code))
            if name != "open":
                self.notes.append(note)
            if name == "write" and self.room is not None:
                if not self.room:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                args = (args[0], args[1][:self.room])
                self.room -= len(args[1])
            return method(disk, *args)
        return call

    def take(self) -> list[str]:
        notes, self.notes = self.notes, []
        return notes


Disturb = Callable[[Machine], Disturbed]


@pytest.fixture
def disturb(monkeypatch: pytest.MonkeyPatch) -> Disturb:
    """Note and fail the changes that a machine's disk is told to make, from now on."""
    return lambda machine: Disturbed(machine, monkeypatch)


def fsync_ends(machine: Machine) -> None:
    """Return when no fsync runs in the background, and the server knows."""
    for _ in range(100):
        job = machine.server.aof.job
        if job is None:
            return
        while isinstance(machine, Real) and not job.done:
            pass
        machine.advance(10)
    raise AssertionError("an fsync does not end")


@contextmanager
def held_fsync(machine: Machine) -> Iterator[None]:
    """An fsync in the background does not end meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        if isinstance(machine, Simulated):
            patch.setitem(machine.world.disk.latency_us, "fsync", 20_000_000)
            yield
            patch.undo()
            machine.advance(20_000)
            return
        gate, kind = threading.Event(), type(machine.server.disk)
        fsync: Any = kind.fsync

        def wait_and_fsync(disk: Any, file: Any) -> None:
            if threading.current_thread() is not threading.main_thread():
                gate.wait()
            fsync(disk, file)
        patch.setattr(kind, "fsync", wait_and_fsync)
        try:
            yield
        finally:
            gate.set()
        fsync_ends(machine)


def state(server: Any) -> dict[tuple[int, bytes], Any]:
    """Keys, values and deadlines of a server, for comparison."""
    return {(database.index, key): (repr(value), database.deadlines.get(key))
            for database in server.databases for key, value in database.values.items()}


def crashes(run: Callable[[World], Iterator[Any]], how: str, **directives: str) -> Iterator[tuple[World, list[Any]]]:
    """Crash after each operation of the disk in turn, while a scripted run goes on: the world, and what it has yielded."""
    whole = World(seed=1)
    whole.start(**directives)
    first = len(whole.disk.operations)
    for _ in run(whole):
        pass
    for point in range(first, len(whole.disk.operations) + 1):
        world = World(seed=1)
        world.start(**directives)
        told: list[Any] = []
        world.disk.observers.append(Plug(point - first, world))
        try:
            for one in run(world):
                told.append(one)
        except PowerCut:
            pass
        unplug(world)
        getattr(world, how)()
        yield world, told


class PowerCut(BaseException):
    """Nobody in the server may catch it."""


class Plug:
    """Pulled after so many operations."""

    def __init__(self, point: int, world: World) -> None:
        self.point, self.world = point, world

    def __call__(self, operation: Any) -> None:
        self.point -= 1
        if self.point <= 0:
            disk: Any = self.world.disk
            disk._do = self.cut             # no `finally` of the server may change anything any more
            self.cut()

    def cut(self, *_: Any, **__: Any) -> None:
        raise PowerCut


def unplug(world: World) -> None:
    """The computer is there again, for the next start."""
    world.disk.observers.pop()
    vars(world.disk).pop("_do", None)
