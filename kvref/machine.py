"""The four ports on the real computer.

Interface:
  - Computer()          Ports on selectors, os, fork and one fsync thread
  - RealClock, RealNetwork, RealDisk, RealProcesses   each of them alone

Redis: anet.c and ae_epoll.c (network), rio.c and the system calls in rdb.c and aof.c (disk), bio.c (the
fsync thread), redisFork in server.c. Simpler here: one fsync thread, no priorities.
"""

from __future__ import annotations

import errno
import os
import queue
import resource
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kvref.ports import Disk, Ended, File, Job, OpenMode, Ports, Socket

KEEPALIVE_S = 300           # seconds of silence before the kernel asks whether the peer still lives
REPORT = 512                # bytes in which a child says how it went


class RealClock:
    def time_us(self) -> int:
        return time.time_ns() // 1000

    def monotonic_us(self) -> int:
        return time.monotonic_ns() // 1000

    def sleep(self, us: int) -> None:
        time.sleep(us / 1e6)

    tick = staticmethod(time.monotonic_ns)      # no layer in between: it is called after every command

    def work(self, elements: int) -> None:
        pass                                    # took the time it took


def _address(name: Any) -> str:
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class RealNetwork:
    """Non-blocking TCP, and a selector. `wake` writes to a socket that the selector watches."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._listeners: dict[Socket, socket.socket] = {}
        self._woken = False
        self._waker, self._awake = socket.socketpair()
        for end in (self._waker, self._awake):
            end.setblocking(False)
        self._selector.register(self._awake.fileno(), selectors.EVENT_READ)

    def adopt(self, listener: socket.socket) -> Socket:
        """Take over a listening socket that somebody else has opened."""
        listener.setblocking(False)
        self._listeners[listener.fileno()] = listener
        return listener.fileno()

    def listen(self, host: str, port: int, backlog: int) -> Socket:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        address = {"*": "0.0.0.0", "::*": "::"}.get(host, host)
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind((address, port))
            listener.listen(backlog)
        except OSError:
            listener.close()
            raise
        return self.adopt(listener)

    def accept(self, listener: Socket) -> Socket | None:
        try:
            sock, _ = self._listeners[listener].accept()
        except BlockingIOError:
            return None
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_KEEPIDLE"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_S)
        return sock.detach()

    def addresses(self, sock: Socket) -> tuple[str, str]:
        known = socket.socket(fileno=sock)
        try:
            return _address(known.getpeername()), _address(known.getsockname())
        except OSError:
            return "?:0", "?:0"
        finally:
            known.detach()

    def recv(self, sock: Socket, limit: int) -> bytes | None:
        try:
            return os.read(sock, limit)
        except BlockingIOError:
            return None

    def send(self, sock: Socket, data: bytes | memoryview) -> int:
        try:
            return os.write(sock, data)
        except BlockingIOError:
            return 0

    def close(self, sock: Socket) -> None:
        listener = self._listeners.pop(sock, None)
        if listener:
            listener.close()
        else:
            os.close(sock)

    def watch(self, sock: Socket, read: bool, write: bool) -> None:
        events = read * selectors.EVENT_READ | write * selectors.EVENT_WRITE
        known = sock in self._selector.get_map()
        if not events:
            if known:
                self._selector.unregister(sock)
        elif known:
            self._selector.modify(sock, events)
        else:
            self._selector.register(sock, events)

    def poll(self, timeout_us: int | None) -> list[tuple[Socket, int]]:
        # selectors.EVENT_READ and EVENT_WRITE have the values of READABLE and WRITABLE.
        events = self._selector.select(None if timeout_us is None else timeout_us / 1e6)
        ready = [(key.fd, mask) for key, mask in events]
        if self._woken:
            self._woken = False
            try:
                self._awake.recv(4096)
            except BlockingIOError:
                pass                        # an earlier recv has taken its byte with others
            ready = [pair for pair in ready if pair[0] != self._awake.fileno()]
        return ready

    def wake(self) -> None:
        try:
            self._waker.send(b"!")
        except BlockingIOError:
            pass                            # so full that poll returns anyway
        self._woken = True                  # last: a note without its byte would leave the byte for ever

    def stop(self) -> None:
        """Give the descriptors back, for a process that goes on without this network."""
        self._selector.close()
        self._waker.close()
        self._awake.close()

    def abandon(self) -> None:
        """In a child: close what is its parent's. When that one dies, its port is free and its clients see the end."""
        for sock in [*[key.fd for key in self._selector.get_map().values()], *self._listeners]:
            try:
                os.close(sock)
            except OSError:
                pass                        # a listener stands in both
        self._selector.close()


class RealDisk:
    """System calls on file descriptors, nothing buffered in between."""

    _FLAGS = {"r": os.O_RDONLY, "w": os.O_RDWR | os.O_CREAT | os.O_TRUNC, "a": os.O_RDWR | os.O_CREAT | os.O_APPEND}

    def open(self, path: str, mode: OpenMode) -> File:
        return os.open(path, self._FLAGS[mode] | os.O_CLOEXEC, 0o644)

    def read(self, file: File, size: int) -> bytes:
        return os.read(file, size)

    def write(self, file: File, data: bytes) -> int:
        return os.write(file, data)

    def size(self, file: File) -> int:
        return os.fstat(file).st_size

    def fsync(self, file: File) -> None:
        os.fdatasync(file) if hasattr(os, "fdatasync") else os.fsync(file)

    def truncate(self, file: File, size: int) -> None:
        os.ftruncate(file, size)

    def close(self, file: File) -> None:
        os.close(file)

    def rename(self, old: str, new: str) -> None:
        os.replace(old, new)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def mkdir(self, path: str) -> None:
        os.mkdir(path, 0o755)

    def fsync_dir(self, path: str) -> None:
        directory = os.open(path, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def list(self, path: str) -> list[str]:
        return sorted(os.listdir(path))


class ChildDisk(RealDisk):
    """The disk of a child. If its parent dies, another server may have started meanwhile, and saved: then what the
    child has made is out of date, and must not take the place of anything."""

    def __init__(self, parent: int) -> None:
        self.parent = parent                # pid

    def rename(self, old: str, new: str) -> None:
        if os.getppid() != self.parent:
            raise OSError(errno.EOWNERDEAD, os.strerror(errno.EOWNERDEAD))
        super().rename(old, new)


@dataclass
class _Job:
    file: File
    done: bool = False
    error: OSError | None = None


class RealProcesses:
    """Children by fork, signals by a handler that only takes a note, fsync on one thread."""

    def __init__(self, network: RealNetwork, disk: RealDisk) -> None:
        self.pid = os.getpid()
        self._network, self._disk = network, disk
        self._children: dict[int, int] = {}         # pid -> the end of a pipe on which the child reports
        self._ended: list[Ended] = []
        self._signals: list[str] = []
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def memory(self) -> int:
        try:
            with open("/proc/self/statm") as file:
                return int(file.read().split()[1]) * resource.getpagesize()
        except OSError:                     # no /proc (macOS): the largest size so far has to do
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            return peak if sys.platform == "darwin" else peak * 1024

    def fork(self, work: Callable[[Disk], None]) -> int:
        (ours, childs), parent = os.pipe(), self.pid
        try:
            pid = os.fork()
        except OSError:
            os.close(ours)
            os.close(childs)
            raise
        if pid:
            os.close(childs)
            self._children[pid] = ours
            return pid
        status, error = 1, ""
        try:                                # from here on in the child
            self.pid = os.getpid()
            self._network.abandon()
            work(ChildDisk(parent))
            status = 0
        except OSError as failure:
            error = str(failure.strerror)
        except BaseException as failure:
            error = f"a bug of kvref: {failure!r}"
        finally:
            try:
                os.write(childs, f"{_private_memory()} {error}".encode(errors="replace")[:REPORT])
            finally:
                os._exit(status)            # nothing of the parent's is cleaned up here

    def reap(self) -> list[Ended]:
        for pid in sorted(self._children):
            self._wait(pid, os.WNOHANG)
        ended, self._ended = self._ended, []
        return ended

    def _wait(self, pid: int, how: int) -> None:
        found, status = os.waitpid(pid, how)
        if found:
            pipe = self._children.pop(pid)
            copied, _, error = os.read(pipe, REPORT).decode(errors="replace").partition(" ")
            os.close(pipe)
            self._ended.append(Ended(pid, os.waitstatus_to_exitcode(status), int(copied or 0), error))

    def kill(self, pid: int) -> None:
        if pid in self._children:
            os.kill(pid, signal.SIGKILL)
            self._wait(pid, 0)              # a rename that has begun is over when this returns

    def is_alive(self, pid: int) -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except OSError:
            return True                     # not ours to ask
        except OverflowError:
            return False                    # no such number is given to a process
        return True

    def fsync_in_background(self, file: File) -> Job:
        if self._thread is None:
            self._thread = threading.Thread(target=self._sync, name="fsync", daemon=True)
            self._thread.start()
        job = _Job(file)
        self._jobs.put(job)
        return job

    def _sync(self) -> None:
        while job := self._jobs.get():
            try:
                self._disk.fsync(job.file)
            except OSError as error:
                job.error = error
            job.done = True
            self._network.wake()

    def stop(self) -> None:
        """End the thread, when it has done what it was given, for a process that goes on without it."""
        if self._thread:
            self._jobs.put(None)
            self._thread.join()

    def catch_signals(self) -> None:
        """From now on SIGTERM and SIGINT are noted for `signals`. Only in the main thread of a process of our own."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _note(self, number: int, frame: Any) -> None:
        name = signal.Signals(number).name
        if name == "SIGINT" and "SIGINT" in self._signals:
            os._exit(1)                     # asked twice: at once. Redis does the same
        self._signals.append(name)
        self._network.wake()

    def signals(self) -> list[str]:
        noted, self._signals = self._signals, []
        return noted


def _private_memory() -> int:
    """Bytes of this process that it shares with no other and has written to; 0 where there is no /proc."""
    try:
        with open("/proc/self/smaps_rollup", "rb") as file:
            return sum(int(line.split()[1]) * 1024 for line in file if line.startswith(b"Private_Dirty"))
    except OSError:
        return 0


class Computer(Ports):
    """The computer that this process runs on."""

    network: RealNetwork
    processes: RealProcesses

    def __init__(self) -> None:
        network, disk = RealNetwork(), RealDisk()
        super().__init__(RealClock(), network, disk, RealProcesses(network, disk))
