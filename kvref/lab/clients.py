"""Real clients: redis-py on a simulated computer, and a redis-server beside kvref.

    client = redis_py(world)                a redis.Redis, whose connections lead into a World
    client.hset("user:1", "name", "ann")
    client.lines[0].dialogue()              every request and its reply, from the handshake on

redis-py asks little of a socket, and `Line` has all of that. Whatever is above it is the library's own: handshake,
pool, retries, parsers. Time is the world's: who waits for a reply lets it pass.

Interface:
  - redis_py(world, line=Line, **options)   a redis.Redis with these options; `.lines`: its connections, oldest first
  - Line(world, timeout_s)    what redis-py takes for a socket. Derive from it, and lose what you like
  - recorded(client)          the same `.lines` for a client on real sockets: each a Tape
  - Noted                     a Line or a Tape: .sent, .received (bytes), .dialogue()
  - redis_server(**directives)      as kvref.running; None in its place where Redis is not installed
  - servers(**directives)     a dict of both by name, or of kvref alone
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import redis

from kvref.process import RunningServer, running
from kvref.resp import NEED_DATA, ReplyParser, RequestParser
from kvref.sim import World

ABSENT = "There is no redis-server on this computer: what follows is about kvref alone."
HOUR_S = 3600.0                     # who would wait for ever gives up then


class Noted:
    """What has passed over one connection."""

    def __init__(self) -> None:
        self.sent, self.received = bytearray(), bytearray()

    def dialogue(self) -> list[tuple[list[bytes], Any]]:
        """(request, reply) in order, as if nothing but replies had come; None for a reply that did not come."""
        requests, replies, found = RequestParser(), ReplyParser(), list[tuple[list[bytes], Any]]()
        requests.receive(bytes(self.sent))
        replies.receive(bytes(self.received))
        for request in requests.requests():
            reply = replies.next()
            found.append((list(request), None if reply is NEED_DATA else reply))
        return found


class Line(Noted):
    """A connection to the server of a World, with the face of a socket."""

    def __init__(self, world: World, timeout_s: float | None) -> None:
        super().__init__()
        self.world, self.caller, self.timeout_s = world, world.connect("redis-py"), timeout_s

    def sendall(self, data: bytes) -> None:
        self.sent += data
        self.caller.send_bytes(bytes(data))

    def recv(self, size: int) -> bytes:
        """What has come; b"" at the end. TimeoutError where nothing comes in time."""
        self._wait()
        at = len(self.received)
        data = bytes(self.caller.received[at:at + size])
        self.received += data
        return data

    def _wait(self) -> None:
        clock, caller = self.world.clock, self.caller
        until_us = clock.monotonic_us() + round(1e6 * (HOUR_S if self.timeout_s is None else self.timeout_s))
        self.world.settle()
        while len(caller.received) == len(self.received) and not caller.ended:
            if clock.monotonic_us() >= until_us:
                raise TimeoutError("timed out")
            self.world.step()
            self.world.settle()                         # a reply leaves, and it is known when it will be here

    def settimeout(self, timeout_s: float | None) -> None:
        self.timeout_s = timeout_s

    def getpeername(self) -> tuple[str, int]:
        return "127.0.0.1", 6379

    def shutdown(self, how: int) -> None: ...

    def close(self) -> None:
        self.caller.close()


class Tape(Noted):
    """A real socket whose bytes are noted as they pass."""

    def __init__(self, sock: Any) -> None:
        super().__init__()
        self.sock = sock

    def sendall(self, data: bytes) -> None:
        self.sent += data
        self.sock.sendall(data)

    def recv(self, size: int) -> bytes:
        data: bytes = self.sock.recv(size)
        self.received += data
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sock, name)


def redis_py(world: World, line: Callable[[World, float | None], Noted] = Line, **options: Any) -> Any:
    """redis.Redis(**options), whose connections are Lines into this world."""
    return _through(redis.Redis(**options), lambda connection: line(world, connection.socket_timeout))


def recorded(client: redis.Redis) -> Any:
    """The client, whose connections are noted from now on."""
    connect = client.connection_pool.connection_class._connect
    return _through(client, lambda connection: Tape(connect(connection)))


def _through(client: Any, connect: Callable[[Any], Noted]) -> Any:
    """Have redis-py take what `connect` makes for the socket of a connection."""
    client.lines = []

    def _connect(connection: Any) -> Noted:
        client.lines.append(connect(connection))
        return client.lines[-1]
    pool = client.connection_pool
    pool.connection_class = type("Connection", (pool.connection_class,), {"_connect": _connect})
    return client


@contextmanager
def redis_server(**directives: Any) -> Iterator[RunningServer | None]:
    """A redis-server as long as the block lasts; it ends by SIGKILL, unless it has ended before."""
    from kvref.lab.plug import installed, living
    if "redis-server" not in installed():
        yield None
        return
    with TemporaryDirectory(prefix="kvref-", ignore_cleanup_errors=True) as folder:
        (Path(folder) / "data").mkdir()
        with living("redis-server", {"dir": f"{folder}/data", **directives}, f"{folder}/output") as (server, _):
            yield server


@contextmanager
def servers(**directives: Any) -> Iterator[dict[str, RunningServer]]:
    """What there is of both, each in a directory of its own."""
    with running(**directives) as ours, redis_server(**directives) as theirs:
        yield {"kvref": ours, **({"redis-server": theirs} if theirs else {})}
