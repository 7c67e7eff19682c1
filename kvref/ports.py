"""The four ports: everything that the server asks of its computer.

The core of kvref never calls `time`, `socket`, `os`, `open` or `fork`. It asks a Clock, a Network,
a Disk and Processes. `kvref.machine` answers with the real computer; `kvref.sim` answers from memory.
The same Server runs on both, unchanged and unaware: that is the one idea of this package.

Interface:
  - Clock      two clocks, sleep, and what computing costs: `tick` and `work`
  - Network    sockets that never block, and `poll`, the only call that waits
  - Disk       files that distinguish *written* (in the page cache) from *durable* (fsynced)
  - Processes  a child that works on a frozen copy, fsync in the background, signals, memory
  - Ports      the four of them in one value

Units: times are integers, in microseconds (`_us`) or milliseconds (`_ms`); sizes are bytes.
Errors: what fails raises OSError with an errno, as the real calls do. Nothing here raises anything else.

Redis: there is no such seam in Redis. It calls the operating system wherever it needs it (ae.c, anet.c,
bio.c, rio.c, server.c), and replaces parts of it by #ifdef.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

READABLE = 1        # poll: recv or accept has something to say (bytes, an end, an error, a visitor)
WRITABLE = 2        # poll: send would take at least one byte

OpenMode = Literal["r", "w", "a"]   # read what exists; create or empty; create or append


class Clock(Protocol):
    """Two clocks. The wall clock tells the date and may jump; it serves what is a date: deadlines of keys, TIME,
    SLOWLOG, MONITOR. Timers use the other, which only goes forward."""

    def time_us(self) -> int:
        """Wall clock: microseconds since 1970-01-01 UTC."""

    def monotonic_us(self) -> int:
        """Microseconds since some fixed instant. Never goes back."""

    def sleep(self, us: int) -> None:
        """Wait, and do nothing else: the whole server stands still."""

    def tick(self) -> int:
        """The instant of `monotonic_us` in nanoseconds; called once after each command.

        On a real computer time has passed by itself. On a simulated one the clock moves here, by what a
        command costs.
        """

    def work(self, elements: int) -> None:
        """So many elements have been worked through. A simulated clock moves by what that costs."""


Socket = int        # a number, as in C: ten thousand idle connections are to cost little


class Network(Protocol):
    """Sockets that never block. A reset or otherwise broken connection raises OSError from recv or send."""

    def listen(self, host: str, port: int, backlog: int) -> Socket:
        """A listening socket. OSError when the address is taken or not ours."""

    def accept(self, listener: Socket) -> Socket | None:
        """A connection; None when nobody waits."""

    def addresses(self, sock: Socket) -> tuple[str, str]:
        """The peer's address and ours, as "ip:port"; "?:0" where the kernel does not know it any more."""

    def recv(self, sock: Socket, limit: int) -> bytes | None:
        """1 to `limit` bytes; b"" when the peer will send no more; None when nothing is there now."""

    def send(self, sock: Socket, data: bytes | memoryview) -> int:
        """How many bytes were taken: possibly fewer than given, 0 when the peer is not reading."""

    def close(self, sock: Socket) -> None: ...

    def watch(self, sock: Socket, read: bool, write: bool) -> None:
        """From now on `poll` reports these events of this socket. Both False: forget it."""

    def poll(self, timeout_us: int | None) -> list[tuple[Socket, int]]:
        """Wait until a watched socket is ready, `wake` was called or the time is over (None: never).

        Returns (socket, READABLE | WRITABLE) pairs. 0 looks without waiting.
        """

    def wake(self) -> None:
        """Make the running or the next `poll` return. Safe from threads and signal handlers."""


File = Any          # what Disk.open hands out; opaque


class Disk(Protocol):
    """Files and directories. `write` reaches the page cache; only `fsync` makes bytes durable,
    and only `fsync_dir` makes names durable (created, renamed, removed)."""

    def open(self, path: str, mode: OpenMode) -> File: ...

    def read(self, file: File, size: int) -> bytes:
        """The next bytes, at most `size`; b"" at the end."""

    def write(self, file: File, data: bytes) -> int:
        """How many bytes were taken: possibly fewer than given, as write(2)."""

    def size(self, file: File) -> int: ...

    def fsync(self, file: File) -> None: ...

    def truncate(self, file: File, size: int) -> None: ...

    def close(self, file: File) -> None: ...

    def rename(self, old: str, new: str) -> None:
        """Atomic; replaces `new` where it exists."""

    def unlink(self, path: str) -> None: ...

    def mkdir(self, path: str) -> None: ...

    def fsync_dir(self, path: str) -> None: ...

    def list(self, path: str) -> list[str]:
        """The names in a directory, sorted."""


class Job(Protocol):
    """A background fsync: look at `done` whenever you like; `error` tells how it ended."""

    done: bool
    error: OSError | None


class Ended(NamedTuple):
    """A child that is no more."""

    pid: int
    status: int             # 0: it did its work; 1: it failed; negative: killed by that signal
    copied: int = 0         # bytes of memory that it did not share with its parent in the end; 0 where nobody can tell
    error: str = ""         # why it failed


class Processes(Protocol):
    """This process, its children, and what runs beside the loop."""

    pid: int

    def memory(self) -> int:
        """Resident bytes of this process."""

    def fork(self, work: Callable[[Disk], None]) -> int:
        """Run `work` in a child that sees the memory as it is now; returns the child's pid.

        `work` does all that can be seen from outside through the Disk it is given, and sees its own `pid`. It
        ends with status 0 when it returns, with 1 when it raises.
        """

    def reap(self) -> list[Ended]:
        """The children that have ended since the last call."""

    def kill(self, pid: int) -> None:
        """End a child of ours at once."""

    def is_alive(self, pid: int) -> bool:
        """Whether there is such a process, ours or somebody's."""

    def fsync_in_background(self, file: File) -> Job:
        """One at a time, in order, beside the event loop. Its end wakes `poll`."""

    def signals(self) -> list[str]:
        """Names of the signals since the last call: "SIGTERM", "SIGINT"."""


@dataclass(frozen=True)
class Ports:
    """One computer."""

    clock: Clock
    network: Network
    disk: Disk
    processes: Processes
