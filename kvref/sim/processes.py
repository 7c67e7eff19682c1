"""What a server asks of its operating system besides files and sockets: children, a background fsync, signals.

A forked child sees the memory of the instant of the fork and works beside its parent. Here its work is done
at once, on a copy of the disk that keeps the calls; then the calls are made again on the real disk, one step
after the other while virtual time passes. So the bytes are those of the fork, and a crash can fall between
any two steps.

Interface:
  - Processes       the Processes port
  - deliver(name)   somebody sends a signal: "SIGTERM"
  - children        pids that still run
  - measure         a function that answers `memory()`

Redis: redisFork and checkChildrenDone in server.c, bio.c's fsync thread.

Simpler than there: a child cannot react to an error of the real disk; it ends with status 1. Where a write is short,
it writes the rest.
"""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

from kvref import ports
from kvref.sim.clock import Clock
from kvref.sim.disk import Begun, Disk, File
from kvref.sim.errors import failure

KILLED = -9
RESIDENT = 8 * 1024 * 1024          # memory of a server that holds nothing
STEPS = ("open", "write", "truncate", "fsync", "close", "rename", "unlink", "mkdir", "fsync_dir")


@dataclass
class Job:
    """A background fsync."""

    file: File
    done: bool = False
    error: OSError | None = None


class Recorder:
    """The disk that a child is given: a copy, and a list of the calls that changed it."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk.copy()
        self.calls: list[tuple[str, tuple[Any, ...], Any]] = []     # method, arguments, result

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            result = getattr(self._disk, name)(*args)
            if name in STEPS:
                self.calls.append((name, tuple(map(_frozen, args)), result))
            return result
        return call

    def run(self, work: Callable[[ports.Disk], None]) -> str | None:
        """Do it; why it failed, if it did."""
        try:
            work(cast(ports.Disk, self))
        except Exception as error:      # as in a process of its own: whatever it is, only the child dies of it
            return str(getattr(error, "strerror", None) or repr(error))
        return None


def _frozen(arg: Any) -> Any:
    """A buffer may change after the fork; what the child wrote may not."""
    return bytes(arg) if isinstance(arg, (bytearray, memoryview)) else arg


@dataclass
class Child:
    """Steps that are still to be made on the real disk."""

    pid: int
    calls: list[tuple[str, tuple[Any, ...], Any]]
    error: str | None                                       # why its work failed, if it did
    at: int = 0
    files: dict[int, Any] = field(default_factory=dict)     # id of a file on the copy -> the one on the real disk

    def step(self, disk: Disk) -> None:
        name, args, result = self.calls[self.at]
        answer = getattr(disk, name)(*[self.files.get(id(arg), arg) for arg in args])
        if name == "write" and answer < result:
            self.calls[self.at] = name, (args[0], args[1][answer:]), result - answer
            return
        self.at += 1
        if name == "open":
            self.files[id(result)] = answer

    def duration_us(self, disk: Disk) -> int:
        """What the disk will take for the next step."""
        if self.at == len(self.calls):
            return 0
        name, args, _ = self.calls[self.at]
        file = self.files.get(id(args[0]), args[0])
        return disk.duration_us(name, file if isinstance(file, str) else disk.inodes[file.inode].path)

    def __repr__(self) -> str:
        return f"<child {self.pid}: {self.at} of {len(self.calls)} steps done>"


class Processes:
    """The Processes port for one server process."""

    def __init__(self, clock: Clock, disk: Disk, wake: Callable[[], None], pids: Iterator[int] | None = None,
                 step_us: int = 100) -> None:
        """`step_us`: how long a child takes for each call of its disk, besides what the disk takes."""
        self._clock = clock
        self._disk = disk
        self._wake = wake
        self._pids = pids or itertools.count(100)
        self.pid = next(self._pids)
        self.step_us = step_us
        self.measure: Callable[[], int] = lambda: RESIDENT
        self.children: dict[int, Child] = {}
        self._ended: list[ports.Ended] = []
        self._jobs: list[Job] = []
        self._signals: list[str] = []

    def memory(self) -> int:
        return self.measure()

    # Children

    def fork(self, work: Callable[[ports.Disk], None]) -> int:
        recorder, parent = Recorder(self._disk), self.pid
        self.pid = pid = next(self._pids)
        error = recorder.run(work)
        self.pid = parent
        child = Child(pid, recorder.calls, error)
        self.children[child.pid] = child
        self._schedule(child)
        return child.pid

    def reap(self) -> list[ports.Ended]:
        ended, self._ended = self._ended, []
        return ended

    def kill(self, pid: int) -> None:
        if pid in self.children:
            self._end(ports.Ended(pid, KILLED))
        elif not any(child.pid == pid for child in self._ended):     # that one is a zombie: nothing happens to it
            raise failure(errno.ESRCH)

    def is_alive(self, pid: int) -> bool:
        return pid == self.pid or pid in self.children

    def _schedule(self, child: Child) -> None:
        self._clock.after(self.step_us + child.duration_us(self._disk), lambda: self._step(child))

    def _step(self, child: Child) -> None:
        if child.pid not in self.children:          # killed meanwhile
            return
        if child.at == len(child.calls):
            self._end(ports.Ended(child.pid, int(child.error is not None), error=child.error or ""))
            return
        try:
            child.step(self._disk.instantly())      # it is here that the time is kept
        except OSError as error:
            self._end(ports.Ended(child.pid, 1, error=str(error.strerror)))
        else:
            self._schedule(child)

    def _end(self, child: ports.Ended) -> None:
        del self.children[child.pid]
        self._ended.append(child)

    # The background fsync

    def fsync_in_background(self, file: ports.File) -> Job:
        job = Job(file)
        self._jobs.append(job)
        if len(self._jobs) == 1:
            self._begin(job)
        return job

    def _begin(self, job: Job) -> None:
        """It covers what is written now; what comes while it runs is the next one's."""
        try:
            begun = self._disk.begin_fsync(job.file)
        except OSError as error:
            job.error = error
            self._clock.after(0, lambda: self._finish(job))
        else:
            self._clock.after(begun.us, lambda: self._sync(job, begun))

    def _sync(self, job: Job, begun: Begun) -> None:
        try:
            self._disk.end_fsync(begun)
        except OSError as error:
            job.error = error
        self._finish(job)

    def _finish(self, job: Job) -> None:
        job.done = True
        self._jobs.remove(job)
        self._wake()
        if self._jobs:
            self._begin(self._jobs[0])

    # Signals

    def deliver(self, name: str) -> None:
        """Send this process a signal."""
        self._signals.append(name)
        self._wake()

    def signals(self) -> list[str]:
        signals, self._signals = self._signals, []
        return signals

    def has_news(self) -> bool:
        """Whether something waits here until the server looks: its next cron will."""
        return bool(self._ended or self._signals)

    def __repr__(self) -> str:
        return f"<process {self.pid}, children: {list(self.children.values())}>"
