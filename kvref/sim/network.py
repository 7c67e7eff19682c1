"""Sockets in memory: two bounded queues of bytes for each connection, and `poll`, which moves the clock.

    client                                    server
    send ──> [ server's inbox, 64 KiB ] ──> recv
    recv <── [ client's inbox, 64 KiB ] <── send

A full queue takes part of what is sent, or nothing: that is how a slow reader is felt. Every end of a
connection that a real one can come to is here: half-closed, closed, reset, broken.

Interface:
  - listen, accept, addresses, recv, send, close, watch, poll, wake   the Network port, for the server
  - connect, shutdown, reset                               what only clients do
  - cut()                                                  a crash: every connection of the server is reset
  - latency_us, capacity                                   of every wire; `chunk`: a recv gives at most so many bytes
  - activity, found                                        counters: bytes or connections moved; poll found something

Corresponds to the kernel below Redis's anet.c and ae_epoll.c; where ends and errors are concerned, to Linux's.

Simpler than there: one computer, so one `poll`; a connection is made at once; no packets, no loss, no Nagle.
"""

from __future__ import annotations

import errno
import itertools
import random
from collections.abc import Callable

from kvref.ports import READABLE, WRITABLE, Socket
from kvref.sim.clock import Clock
from kvref.sim.errors import Deadlock, failure

ANY, LOCAL = "0.0.0.0", "127.0.0.1"   # this computer has one address, and no IPv6
FIRST_FD, FAR_FD = 6, 1_000_000     # 6 is where Redis, too, usually begins


class End:
    """One end of a connection: what has arrived and not been read, and how the story ends."""

    def __init__(self, fd: int, address: str, room: int, chunk: int | None = None) -> None:
        self.fd = fd
        self.address = address
        self.peer: End = self
        self.inbox = bytearray()
        self.room = room            # how many bytes the peer may still send; those on the wire are taken off
        self.chunk = chunk          # recv gives at most so many
        self.ended = False          # the peer will send no more
        self.shut = False           # we shall send no more
        self.closed = False
        self.error = 0              # an errno that the next call reports, once

    def readiness(self) -> int:
        """READABLE and WRITABLE as poll(2) would say: an error or an end is an answer, too."""
        readable = bool(self.inbox) or self.ended or self.error
        writable = self.peer.room > 0 or self.peer.closed or self.error
        return (READABLE if readable else 0) | (WRITABLE if writable else 0)

    def __repr__(self) -> str:
        words = [word for word in ("ended", "shut", "closed") if getattr(self, word)]
        return f"<{self.address} to {self.peer.address}: {' '.join([f'{len(self.inbox)} bytes to read', *words])}>"


class Listener:
    """A listening socket and its queue of visitors."""

    def __init__(self, fd: int, host: str, port: int, backlog: int) -> None:
        self.fd, self.host, self.port, self.backlog = fd, host, port, max(backlog, 1)
        self.visitors: list[End] = []

    def readiness(self) -> int:
        return READABLE if self.visitors else 0

    def answers(self, host: str, port: int) -> bool:
        """Whether who calls this address reaches us, and so whether nobody else can listen there."""
        return port == self.port and (host == self.host or ANY in (host, self.host))

    def __repr__(self) -> str:
        return f"<listening on {self.host}:{self.port}, {len(self.visitors)} waiting>"


class Network:
    """The Network port, and the other side of it."""

    def __init__(self, clock: Clock, *, latency_us: int = 0, capacity: int = 64 * 1024,
                 fragments: random.Random | None = None) -> None:
        """`fragments`: each recv gives a random part of what is there, and so splits requests anywhere."""
        self._clock = clock
        self.latency_us = latency_us
        self.capacity = capacity
        self.fragments = fragments
        self.activity = self.found = 0
        self.on_send: list[Callable[[Socket, int], None]] = []      # told how many bytes the server has sent, to whom
        self._ends: dict[int, End] = {}
        self._listeners: dict[int, Listener] = {}
        self._watched: dict[int, int] = {}
        self._woken = False
        self._fds = itertools.count(FIRST_FD)       # the server's
        self._far_fds = itertools.count(FAR_FD)     # clients are other processes, but share the table of ends
        self._ports = itertools.count(50_001)       # where clients call from

    # The server's side: the Network port

    def listen(self, host: str, port: int, backlog: int) -> Socket:
        host = ANY if host in ("", "*") else host
        if host not in (ANY, LOCAL):
            raise failure(errno.EADDRNOTAVAIL)
        if any(rival.answers(host, port) for rival in self._listeners.values()):
            raise failure(errno.EADDRINUSE)
        listener = Listener(next(self._fds), host, port, backlog)
        self._listeners[listener.fd] = listener
        return listener.fd

    def accept(self, listener: Socket) -> Socket | None:
        if listener not in self._listeners:
            raise failure(errno.EBADF)
        visitors = self._listeners[listener].visitors
        if not visitors:
            return None
        self.activity += 1
        return visitors.pop(0).fd

    def addresses(self, sock: Socket) -> tuple[str, str]:
        end = self.end(sock)
        return end.peer.address, end.address

    def recv(self, sock: Socket, limit: int) -> bytes | None:
        end = self.end(sock)
        if end.inbox:
            return self._take(end, limit)
        if end.error == errno.ECONNRESET:       # reported once; from then on the connection has merely ended
            end.error = 0
            raise failure(errno.ECONNRESET)
        return b"" if end.ended else None

    def send(self, sock: Socket, data: bytes | memoryview) -> int:
        end = self.end(sock)
        if end.error or end.shut:
            code, end.error = end.error or errno.EPIPE, 0
            raise failure(code)
        self.activity += end.peer.closed or end.peer.room > 0
        if end.peer.closed:                     # as TCP: this goes out into nothing, and a reset comes back
            self._carry(lambda: self._break(end, errno.EPIPE if end.ended else errno.ECONNRESET))
            return len(data)
        taken = bytes(data[:end.peer.room])
        end.peer.room -= len(taken)
        if taken:
            self._carry(lambda: self._arrive(end.peer, taken))
            if sock < FAR_FD:
                for told in self.on_send:
                    told(sock, len(taken))
        return len(taken)

    def close(self, sock: Socket) -> None:
        """Unread bytes turn the end of a connection into a reset, as in TCP."""
        self.activity += 1
        self._watched.pop(sock, None)
        if sock in self._listeners:
            for visitor in self._listeners.pop(sock).visitors:
                self.reset(visitor.fd)
            return
        end = self.end(sock)
        if end.inbox:
            self.reset(sock)
        else:
            self.shutdown(sock)
            self._drop(end)

    def watch(self, sock: Socket, read: bool, write: bool) -> None:
        events = (READABLE if read else 0) | (WRITABLE if write else 0)
        if events:
            self._watched[sock] = events
        else:
            self._watched.pop(sock, None)

    def poll(self, timeout_us: int | None) -> list[tuple[Socket, int]]:
        """Ready sockets in the order of their numbers. Time passes only while nothing is ready.

        Raises Deadlock instead of waiting for ever.
        """
        deadline = None if timeout_us is None else self._clock.monotonic_us() + timeout_us
        while True:
            now = self._clock.monotonic_us()
            self._clock.advance_to(now)                 # what is due at this instant happens before the look
            ready = self._ready()
            if ready or self._woken or (deadline is not None and now >= deadline):
                self._woken = False
                self.found += bool(ready)
                return ready
            instants = [us for us in (deadline, self._clock.next_event_us()) if us is not None]
            if not instants:
                raise Deadlock("poll would wait for ever: no timeout, nothing on the wire, nothing scheduled")
            self._clock.advance_to(min(instants))

    def wake(self) -> None:
        self._woken = True

    # The clients' side

    def connect(self, host: str, port: int, *, source: str = "127.0.0.1", chunk: int | None = None) -> Socket:
        """A connection to whoever listens there; `chunk` is what they get at most from one recv.

        ConnectionRefusedError where nobody listens, TimeoutError where too many wait already.
        """
        listener = next((each for each in self._listeners.values() if each.answers(host, port)), None)
        if listener is None:
            raise failure(errno.ECONNREFUSED)
        if len(listener.visitors) >= listener.backlog:
            raise failure(errno.ETIMEDOUT)
        near = End(next(self._far_fds), f"{source}:{next(self._ports)}", self.capacity)
        far = End(next(self._fds), f"{host}:{port}", self.capacity, chunk)
        near.peer, far.peer = far, near
        self._ends[near.fd], self._ends[far.fd] = near, far
        self._carry(lambda: self._visit(listener, far))
        return near.fd

    def shutdown(self, sock: Socket) -> None:
        """Half-close: the peer reads what is left, then b"". We can still receive."""
        end = self.end(sock)
        if not end.shut:
            end.shut = True
            self._carry(lambda: self._end_of(end.peer))

    def reset(self, sock: Socket) -> None:
        """Close by RST: the peer reads what is left, then gets ECONNRESET."""
        end = self.end(sock)
        end.shut = True
        self._carry(lambda: self._break(end.peer, errno.ECONNRESET))
        self._drop(end)

    def cut(self) -> None:
        """The process has died: the kernel resets its connections and frees its ports."""
        for fd in list(self._listeners):
            self.close(fd)
        for fd in [fd for fd in self._ends if fd < FAR_FD]:
            self.reset(fd)
        self._watched.clear()
        self._woken = False
        self._fds = itertools.count(FIRST_FD)

    # Inside

    def _ready(self) -> list[tuple[Socket, int]]:
        ready: list[tuple[Socket, int]] = []
        for fd in sorted(self._watched):
            events = (self._listeners.get(fd) or self._ends[fd]).readiness() & self._watched[fd]
            if events:
                ready.append((fd, events))
        return ready

    def _take(self, end: End, limit: int) -> bytes:
        self.activity += 1
        size = min(limit, len(end.inbox), end.chunk or limit)
        if self.fragments is not None:
            size = self.fragments.randint(1, size)
        data = bytes(end.inbox[:size])
        del end.inbox[:size]
        end.room += size
        return data

    def _carry(self, effect: Callable[[], None]) -> None:
        """Let this happen at the other end of the wire: at once, or when the latency is over. Keeps the order."""
        if self.latency_us:
            self._clock.after(self.latency_us, effect)
        else:
            effect()

    def _visit(self, listener: Listener, end: End) -> None:
        if listener.fd in self._listeners:
            listener.visitors.append(end)
        else:
            self.reset(end.fd)

    def _arrive(self, end: End, data: bytes) -> None:
        if end.closed:
            self._break(end.peer, errno.ECONNRESET)
        else:
            end.inbox += data

    def _end_of(self, end: End) -> None:
        end.ended = True

    def _break(self, end: End, code: int) -> None:
        if not end.closed:
            end.error, end.ended, end.shut = code, True, True

    def _drop(self, end: End) -> None:
        end.closed = True
        self._watched.pop(end.fd, None)
        self._ends.pop(end.fd, None)

    def end(self, sock: Socket) -> End:
        """What stands behind a number; OSError(EBADF) when nothing does."""
        if sock not in self._ends:
            raise failure(errno.EBADF)
        return self._ends[sock]

    def __repr__(self) -> str:
        lines = [repr(each) for each in (*self._listeners.values(), *self._ends.values())]
        return "\n".join([f"<Network, {len(self._ends) // 2} connections", *(f"  {line}" for line in lines)]) + ">"
