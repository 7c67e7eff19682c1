"""What the tests run on: two machines under one face, a real redis-server, and a kvref in a process of its own.

`machine` runs each test twice: on the simulated computer, and on the real one with real sockets, where the same
Server stands in this process and the test turns its loop by hand. On both the clock is virtual, so no test sleeps.

    server = machine.start(timeout="10")       # directives, - as _
    alice = machine.connect("alice")
    assert alice("SET", "k", "v") == "OK"      # send, run until nothing moves any more, return the reply
    alice.send_bytes(b"PING\\r\\n"); machine.settle(); alice.replies()
    machine.advance(10_000)                    # ten seconds pass at once
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

import kvref
from kvref.config import Config
from kvref.eventloop import Event
from kvref.machine import Computer
from kvref.ports import Clock, Ports
from kvref.server import Server
from kvref.sim import World
from tests import golden, record

hypothesis.settings.register_profile("kvref", deadline=None, derandomize=True, database=None, max_examples=100)
hypothesis.settings.load_profile("kvref")

# Both ends of a thousand connections: a shell may allow a process only 256 or 1,024 open files.
_soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
if 0 <= _soft < 4096:
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096 if _hard < 0 else min(4096, _hard), _hard))

SOCKET_BUFFER = 16 * 1024       # small, so that a slow reader is felt soon


class Connection:
    """A client that the test drives; `golden.Peer`. Bytes go and come only while the machine settles."""

    def __init__(self, machine: Machine, wire: Wire) -> None:
        self.machine = machine
        self.wire = wire
        self.outgoing = b""         # not yet taken by the network
        self.received = b""         # not yet taken by the test
        self.reading = True         # False: leaves everything in the network
        self.closed = False         # by the server
        self.was_reset = False

    def __call__(self, *words: bytes | str) -> Any:
        """Send a command and return its reply; an error comes as a value."""
        self.send(*words)
        self.machine.settle()
        found = self.replies()
        assert len(found) == 1, f"{len(found)} replies to {words}: {found[:3]}"
        return found[0]

    def send(self, *words: bytes | str) -> None:
        self.send_bytes(golden.request(*words))

    def send_bytes(self, data: bytes) -> None:
        self.outgoing += data
        self.pump()

    def replies(self) -> list[Any]:
        """The whole replies that have come since the last call."""
        found, self.received = golden.replies(self.received)
        return found

    def take(self) -> bytes:
        data, self.received = self.received, b""
        return data

    def half_close(self) -> None:
        """Say that nothing more will be sent; replies can still come."""
        self.wire.half_close()

    def close(self) -> None:
        self.wire.close()
        self.machine.connections.remove(self)

    def reset(self) -> None:
        self.wire.reset()
        self.machine.connections.remove(self)

    def pump(self) -> bool:
        """Move what the network takes and gives; whether anything moved."""
        moved = False
        with contextlib.suppress(OSError):
            while self.outgoing and (sent := self.wire.send(self.outgoing[:1 << 20])):
                self.outgoing = self.outgoing[sent:]
                moved = True
        while self.reading and not self.closed:
            try:
                data = self.wire.recv()
            except ConnectionError:
                data, self.was_reset = b"", True
            if data is None:
                break
            self.received += data
            self.closed = not data
            moved = True
        return moved


class Wire:
    """A client's end of a connection, non-blocking: real ..."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.sock = socket.socket()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.connect(address)
        self.sock.setblocking(False)

    def send(self, data: bytes) -> int:
        try:
            return self.sock.send(data)
        except BlockingIOError:
            return 0

    def recv(self) -> bytes | None:
        try:
            return self.sock.recv(1 << 20)
        except BlockingIOError:
            return None

    def half_close(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.sock.close()

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.sock.close()


class SimulatedWire(Wire):
    """... or simulated."""

    def __init__(self, network: Any, address: tuple[str, int]) -> None:
        self.network = network
        self.end = network.connect(*address)

    def send(self, data: bytes) -> int:
        return int(self.network.send(self.end, data))

    def recv(self) -> bytes | None:
        data: bytes | None = self.network.recv(self.end, 1 << 20)
        return data

    def half_close(self) -> None:
        self.network.shutdown(self.end)

    def close(self) -> None:
        self.network.close(self.end)

    def reset(self) -> None:
        self.network.reset(self.end)


class Machine:
    """What both machines have in common; `golden.Player`."""

    server: Server

    def __init__(self) -> None:
        self.connections: list[Connection] = []
        self.log: list[tuple[str, str]] = []
        self.events: list[Event] = []       # what the loop has done since start

    def start(self, **directives: str) -> Server:
        self.server = self._start({name.replace("_", "-"): value for name, value in directives.items()})
        self.server.loop.observe(self.events.append)
        return self.server

    def connect(self, name: str = "") -> Connection:
        """A new connection; the server sees it when the machine settles."""
        connection = Connection(self, self._wire())
        self.connections.append(connection)
        return connection

    def step(self) -> bool:
        """One turn of the loop that does not wait, then the clients' turn; whether anything moved."""
        if self.server.stopped:
            return any([connection.pump() for connection in self.connections])
        before = len(self.events)
        self.server.loop.step(self.patience_us)
        moved = any([connection.pump() for connection in self.connections])
        return moved or any(event.kind not in ("timer", "sleep") or not event.detail.startswith(("0 ", "server_cron"))
                            for event in self.events[before:])

    def settle(self, words: list[bytes] | None = None) -> None:
        """Turn the loop until nothing moves any more without time passing. `words` are of no interest here."""
        quiet = 0
        while quiet < 2:
            quiet = 0 if self.step() else quiet + 1
            self.patience_us = self.quiet_us if quiet else 0

    def advance(self, ms: int) -> None:
        """Let virtual time pass; timers fire on the way, each at its instant."""
        clock, loop = self.server.ports.clock, self.server.loop
        self.settle()
        until_us = clock.monotonic_us() + ms * 1000
        while not self.server.stopped and (now_us := clock.monotonic_us()) < until_us:
            next_us = loop.next_timer_us()
            self.jump(max(0, min(until_us, until_us if next_us is None else next_us) - now_us))
            loop.step(0)
        self.settle()

    def kinds(self, *kinds: str) -> list[Event]:
        """The events of these kinds so far."""
        return [event for event in self.events if event.kind in kinds]

    patience_us = 0             # how long a turn may wait for a socket
    quiet_us = 0                # ... before the machine counts as quiet

    def stop(self) -> None: ...
    def jump(self, us: int) -> None: ...
    def _start(self, directives: dict[str, str]) -> Server: ...     # type: ignore[empty-body]
    def _wire(self) -> Wire: ...                                    # type: ignore[empty-body]


class Simulated(Machine):
    """kvref.sim: everything in memory."""

    def _start(self, directives: dict[str, str]) -> Server:
        self.world = World(seed=1)
        return self.world.start(**directives)

    def _wire(self) -> Wire:
        return SimulatedWire(self.world.network, ("127.0.0.1", self.server.config.port))

    def jump(self, us: int) -> None:
        self.server.ports.clock.sleep(us)


class OffsetClock:
    """The real clock, set forward at will."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.offset_us = 0

    def time_us(self) -> int:
        return self.clock.time_us() + self.offset_us

    def monotonic_us(self) -> int:
        return self.clock.monotonic_us() + self.offset_us

    def sleep(self, us: int) -> None:
        self.offset_us += us

    def tick(self) -> int:
        return self.monotonic_us() * 1000

    def work(self, elements: int) -> None:
        self.clock.work(elements)


class Real(Machine):
    """This computer: real sockets, a real directory."""

    quiet_us = 1000             # the kernel may carry a packet a little later

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.directory = directory

    def _start(self, directives: dict[str, str]) -> Server:
        real = Computer()
        self.network, self.processes = real.network, real.processes
        ports = Ports(OffsetClock(real.clock), real.network, real.disk, real.processes)
        listener = socket.create_server(("127.0.0.1", 0), backlog=511)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER)
        self.address = listener.getsockname()
        config = Config.load(None, list({"dir": str(self.directory), "save": "", **directives}.items()))
        server = Server(ports, config, random.Random(1), lambda level, text: self.log.append((level, text)))
        server.start([real.network.adopt(listener)])
        return server

    def _wire(self) -> Wire:
        return Wire(self.address)

    def jump(self, us: int) -> None:
        self.server.ports.clock.sleep(us)

    def stop(self) -> None:
        for connection in self.connections:
            connection.wire.close()
        if hasattr(self, "network"):
            self.server.shutdown()
            self.processes.stop()               # first: it wakes the network
            self.network.stop()


@pytest.fixture(params=["simulated", "real"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Machine]:
    """A computer that can be started; the same tests on both kinds."""
    machine = Simulated() if request.param == "simulated" else Real(tmp_path)
    yield machine
    machine.stop()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[record.RedisServer]:
    """A real redis-server, for comparisons."""
    if not record.installed("redis-server"):
        pytest.skip("redis-server 7.0 is not installed")
    with record.RedisServer({"enable-debug-command": "yes"}) as server:
        yield server


@pytest.fixture(scope="session")
def debians_conf() -> str:
    """The text of the redis.conf that Debian installs with Redis 7.0."""
    path = Path("/etc/redis/redis.conf")
    if not record.installed("redis-server") or not os.access(path, os.R_OK):
        pytest.skip("Debian's redis.conf is not there, or of another version, or not for us to read")
    return path.read_text()


@pytest.fixture(scope="session")
def kvref_server() -> Iterator[Any]:
    """A kvref in a process of its own: port, pid, dir."""
    with kvref.running() as server:
        yield server
