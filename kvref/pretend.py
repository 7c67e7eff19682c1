"""A computer that only pretends: a disk that is read and never written, a clock that stands, and nothing else.

For those who want to know what a server would do without letting it: `kvref.files` runs a real start on it.

Interface:
  - pretended(disk, now_ms)     Ports, whose `disk` is a Pretending
  - Pretending                  .sizes: bytes of each file that was read; .cut: (path, size) if one was to be cut

No port of it touches the computer but by reading `disk`. So a start on it comes to the same everywhere: also where
there are no sockets and no processes. Of a file that does not exist only the name is kept. There is never a visitor, a
signal or a child, and no other process is alive.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

from kvref.ports import Disk, Ended, File, Job, OpenMode, Ports, Socket

__all__ = ["Pretending", "pretended"]


def _refuse(what: str) -> OSError:
    return OSError(errno.ENOSYS, f"there is no {what} here")


class Standing:
    """A clock that shows one instant for ever."""

    def __init__(self, now_ms: int) -> None:
        self.now_us = now_ms * 1000

    def time_us(self) -> int:
        return self.now_us

    def monotonic_us(self) -> int:
        return 0

    tick = monotonic_us

    def sleep(self, us: int) -> None: ...

    work = sleep


class NoNetwork:
    """Nobody can be reached, and nobody comes."""

    def listen(self, host: str, port: int, backlog: int) -> Socket:
        raise _refuse("network")

    def accept(self, listener: Socket) -> Socket | None:
        raise _refuse("network")

    def addresses(self, sock: Socket) -> tuple[str, str]:
        raise _refuse("network")

    def recv(self, sock: Socket, limit: int) -> bytes | None:
        raise _refuse("network")

    def send(self, sock: Socket, data: bytes | memoryview) -> int:
        raise _refuse("network")

    def close(self, sock: Socket) -> None: ...

    def watch(self, sock: Socket, read: bool, write: bool) -> None: ...

    def poll(self, timeout_us: int | None) -> list[tuple[Socket, int]]:
        return []

    def wake(self) -> None: ...


class NoProcesses:
    """One process, alone."""

    pid = 0

    def memory(self) -> int:
        return 0

    def fork(self, work: Callable[[Disk], None]) -> int:
        raise _refuse("second process")

    def fsync_in_background(self, file: File) -> Job:
        raise _refuse("second thread")

    def kill(self, pid: int) -> None: ...

    def is_alive(self, pid: int) -> bool:
        return False

    def reap(self) -> list[Ended]:
        return []

    def signals(self) -> list[str]:
        return []


class Pretending:
    """A disk that is only read. Who writes believes it was done."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.list, self.read = disk.list, disk.read
        self.made, self.gone = set[str](), set[str]()
        self.sizes = dict[str, int]()
        self.cut: tuple[str, int] | None = None
        self._appended = ""

    def open(self, path: str, mode: OpenMode) -> File:
        try:
            if path in self.gone:
                raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
            file = self.disk.open(path, "r")
        except FileNotFoundError:
            if mode == "r" and path not in self.made:
                raise
            self.made.add(path)
            return None
        if mode == "r":
            self.sizes[path] = self.disk.size(file)
        else:
            self._appended = path
        return file

    def size(self, file: File) -> int:
        return 0 if file is None else self.disk.size(file)

    def close(self, file: File) -> None:
        if file is not None:
            self.disk.close(file)

    def write(self, file: File, data: bytes) -> int:
        return len(data)

    def rename(self, old: str, new: str) -> None:
        self.made.add(new)

    def unlink(self, path: str) -> None:
        self.gone.add(path)

    def truncate(self, file: File, size: int) -> None:
        """Of the file that was opened last: a start cuts one at most."""
        self.cut = self._appended, size

    def _nothing(self, what: Any) -> None: ...

    fsync = fsync_dir = mkdir = _nothing


def pretended(disk: Disk, now_ms: int) -> Ports:
    """A computer that has the files of `disk`, and on which it is `now_ms` for ever."""
    return Ports(Standing(now_ms), NoNetwork(), Pretending(disk), NoProcesses())
