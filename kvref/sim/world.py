"""One simulated computer with a Redis server on it, and the people who call it.

    world = World(seed=1)
    server = world.start(maxclients=100)
    alice = world.connect("alice")
    alice("SET", "course", "redis")         # -> 'OK'
    world.run(ms=3_600_000)                 # an hour passes; timers fire
    world.power_loss()                      # and the plug is pulled

The server is the real one; only its four ports are simulated. Nothing happens by itself: the world lets the
server's loop turn while somebody waits (`alice(...)`), while time is told to pass (`run`) or once (`step`).
Same seed and same calls, same bytes, same times.

Interface:
  - World              clock, network, disk, processes, log, trace; start, connect, step, settle, run, signal,
                       kill, power_loss, states
  - Happening          one line of the trace

When is there nothing left to wait for? When nothing moves at this instant (`settle`), nothing is scheduled in
this computer (bytes on the wire, children, fsyncs), and the server says of no blocked client that it has a deadline,
or waits for an fsync that is due.
The cron timer, which comes round for ever, does not count.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import ClassVar, NamedTuple

from kvref.config import Config
from kvref.eventloop import Event
from kvref.ports import Ports
from kvref.server import Server
from kvref.sim.caller import Caller
from kvref.sim.clock import NEW_YEAR_US, Clock, Cost
from kvref.sim.disk import Disk, Operation
from kvref.sim.errors import Deadlock, WouldBlock
from kvref.sim.network import Network
from kvref.sim.processes import RESIDENT, Processes

HOME = "/data"
PORT = 6379
DEFAULTS = (("dir", HOME), ("bind", "127.0.0.1"), ("port", PORT), ("save", ""))
KEY_BYTES = 160                     # what a key adds to the memory that the process reports, whatever it holds
CRONS_TO_NOTICE = 20                # by then a server has seen that a child has ended or a signal has come
STUCK_TURNS = 2_000                # so many turns without time, bytes or disk moving: a loop that spins


class Happening(NamedTuple):
    """Something that happened: an Event of the loop, an Operation of the disk, or a sentence about the world."""

    seq: int
    time_us: int
    what: Event | Operation | str

    def __repr__(self) -> str:
        what = self.what
        if isinstance(what, Event):
            what = f"{what.kind} {what.detail}" + (f" (client {what.client})" if what.client else "")
        return f"{self.time_us / 1e6:12.6f} s  {what}"


class World:
    """See the module."""

    on_start: ClassVar[list[Callable[[World], None]]] = []      # told of every server that is started: notebooks

    def __init__(self, seed: int = 0, *, cost: Cost | int = Cost(), wall_us: int = NEW_YEAR_US,
                 latency_us: int = 0, capacity: int = 64 * 1024, fragment: bool = False,
                 fsync_us: int = 1000, child_step_us: int = 100) -> None:
        """`cost`: of a command; a number is microseconds a command, elements free. `latency_us`: of every wire,
        one way. `capacity`: bytes under way in each direction of a connection. `fragment`: requests arrive in
        random parts. `fsync_us`, `child_step_us`: how long an fsync and a step of a child take."""
        self.seed = seed
        self.server: Server | None = None
        self.callers: list[Caller] = []
        self.log: list[str] = []
        self.trace: list[Happening] = []
        self._sequence = itertools.count(1)         # one for disk and loop, so that their order is known
        self._pids = itertools.count(100)
        self._boots = itertools.count(1)
        self._child_step_us = child_step_us
        self._turns = self._timers_fired = 0        # turns: in a row without progress
        self.clock = Clock(Cost(cost * 1000, 0) if isinstance(cost, int) else cost, wall_us)
        self.network = Network(self.clock, latency_us=latency_us, capacity=capacity,
                               fragments=random.Random(f"{seed} network") if fragment else None)
        self._insert(Disk(self.clock, self._sequence, fsync_us))
        builder = self.disk.instantly()
        builder.mkdir(HOME)
        builder.fsync_dir("/")

    def _insert(self, disk: Disk) -> None:
        """From now on this is the computer's disk."""
        self.disk = disk
        disk.observers.append(lambda done: self.trace.append(Happening(done.seq, done.time_us, done)))
        self.processes = self._new_process()

    # ---- a server's life

    def start(self, **directives: object) -> Server:
        """Start a server on what the disk holds. Directives of redis.conf, with _ for -: appendonly="yes".

        Raises RuntimeError while one runs, ConfigError and OSError as the server itself would.
        """
        if self.server is not None:
            raise RuntimeError("a server is running: end it first, by kill(), power_loss() or SHUTDOWN")
        config = Config.load(directives=[*DEFAULTS, *directives.items()])
        ports = Ports(self.clock, self.network, self.disk, self.processes)
        server = Server(ports, config, random.Random(f"{self.seed} server {next(self._boots)}"), self._write_log)
        self.processes.measure = lambda: RESIDENT + KEY_BYTES * sum(map(len, server.databases))
        server.loop.observe(self._observe)
        self._note("start")
        try:
            server.start()
        except BaseException:
            self._end("the server did not start")
            raise
        self.server = server
        for tell in self.on_start:
            tell(self)
        return server

    def connect(self, name: str = "client", *, source: str = "127.0.0.1", chunk: int | None = None) -> Caller:
        """Somebody calls the server; ConnectionRefusedError where none runs.

        `source`: the address from which; `chunk`: the server reads at most so many bytes at once.
        """
        port = int(self.server.config.port) if self.server else PORT
        sock = self.network.connect("127.0.0.1", port, source=source, chunk=chunk)
        caller = Caller(name, self.network, sock, self._wait)
        self.callers = [*(other for other in self.callers if not other.ended), caller]
        return caller

    def signal(self, name: str = "SIGTERM") -> None:
        """Send the server a signal; it looks at its next cron."""
        self._running()
        self.processes.deliver(name)

    def kill(self) -> None:
        """kill -9: the server and its children are gone, the page cache survives."""
        self._running()
        self._note("kill")
        self._end("the server was killed")

    def power_loss(self, profile: str = "synced", state: int = 0) -> None:
        """Pull the plug: the disk is left in one of the legal `states`. State 0 is the worst."""
        if state not in self.states(profile):
            raise ValueError(f"after a power loss of profile {profile!r} there is no state {state}")
        self._end("the power failed")
        self.disk.power_loss(profile, state)

    def states(self, profile: str = "synced") -> list[int]:
        """The states in which the disk may be found if the power fails now."""
        return list(self.disk.states(profile))

    # ---- time

    def step(self) -> None:
        """One turn of the server's loop. It waits where nothing is ready, at most until its next timer."""
        self._turn(None)

    def settle(self) -> None:
        """All that can happen at this instant: turns without waiting, until nothing moves."""
        before = None
        while self.server is not None and before != self._moved():
            before = self._moved()
            self._turn(0)

    def run(self, ms: float) -> None:
        """Let virtual time pass: exactly so much, but for a command that is still running at the end."""
        end_us = self.clock.monotonic_us() + round(ms * 1000)
        while self.server is not None and self.clock.monotonic_us() < end_us:
            self._turn(end_us - self.clock.monotonic_us())
        if self.clock.monotonic_us() < end_us:
            self.clock.advance_to(end_us)

    def _wait(self, done: Callable[[], bool]) -> None:
        """Let the world run until `done`. WouldBlock where that can never be."""
        crons = 0
        while not done():
            before = self._moved()
            self._turn(0)
            if done() or before != self._moved():
                continue
            if self._scheduled():
                crons = 0
            elif self.processes.has_news() and crons < CRONS_TO_NOTICE:
                crons += 1
            else:
                raise WouldBlock("no reply, and nothing left in this world that could bring one")
            self._turn(None)

    def _scheduled(self) -> bool:
        """Whether something besides the server's cron is going to happen by itself."""
        server = self._running()
        if self.clock.next_event_us() is not None or server.aof.is_about_to_sync:
            return True
        deadline_ms = server.blocked_until_ms()
        return deadline_ms is not None and deadline_ms >= self.clock.time_us() // 1000

    def _turn(self, limit_us: int | None) -> None:
        """One turn. Waits no longer than until the next event, so that whoever waits for it can look."""
        server, before = self._running(), self._progress()
        for caller in self.callers:
            caller.push_bytes()
        event_us = self.clock.next_event_us()
        if event_us is not None:
            until_us = max(0, event_us - self.clock.monotonic_us())
            limit_us = until_us if limit_us is None else min(limit_us, until_us)
        try:
            server.loop.step(limit_us)
        except Deadlock as deadlock:
            raise WouldBlock(str(deadlock)) from None
        except Exception:                   # a bug in the server: it dies of it, as its process would
            self._note("crash")
            self._end("the server has crashed")
            raise
        for caller in self.callers:
            caller.collect()
        if server.stopped:
            self._note("shutdown")
            self._end("the server has shut down")
        self._turns = self._turns + 1 if before == self._progress() else 0
        if self._turns > STUCK_TURNS:
            raise RuntimeError("the server's loop turns and turns, and nothing gets done: a bug in the server")

    def _moved(self) -> tuple[int, ...]:
        """Changes with every turn in which anything happened, and so with every turn that another must follow."""
        return self.network.activity, self.network.found, len(self.disk.operations), self._timers_fired

    def _progress(self) -> tuple[int, ...]:
        """Changes whenever something gets done: bytes or the disk move, or time passes."""
        return self.network.activity, len(self.disk.operations), self.clock.monotonic_us()

    # ---- inside

    def _running(self) -> Server:
        if self.server is None:
            raise RuntimeError("no server runs in this world: world.start(...)")
        return self.server

    def _end(self, reason: str) -> None:
        """The process is no more, however that came."""
        self.server = None
        self.network.cut()
        for caller in self.callers:
            caller.cut(reason)
        self.callers.clear()
        self.clock.forget_events()
        self.processes = self._new_process()

    def _new_process(self) -> Processes:
        return Processes(self.clock, self.disk, self.network.wake, self._pids, self._child_step_us)

    def _observe(self, event: Event) -> None:
        self._timers_fired += event.kind == "timer"
        if event.kind != "sleep" or event.end_us > event.start_us:      # a look without waiting is no sleep
            self.trace.append(Happening(next(self._sequence), event.end_us, event))

    def _note(self, what: str) -> None:
        self.trace.append(Happening(next(self._sequence), self.clock.monotonic_us(), what))

    def _write_log(self, level: str, text: str) -> None:
        self.log.append(f"{self.clock.monotonic_us() / 1e6:12.6f} s  {level} {text}")

    def __repr__(self) -> str:
        lines = [repr(self.clock), repr(self.server) if self.server else "no server runs", *map(repr, self.callers),
                 *repr(self.disk).splitlines()]
        return "\n".join([f"<World seed={self.seed}", *(f"  {line}" for line in lines)]) + ">"
