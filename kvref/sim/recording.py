"""One run of a scenario, with all that is needed to judge what a crash at any instant of it leaves.

Disk operations, units of change and what clients learn stand in one order, by one sequence number: so "before" needs
no clock.

    seq  4  write  appendonly.aof.1.incr.aof 31 bytes
    seq  5  fsync  appendonly.aof.1.incr.aof
    seq  6  unit 1 (SET k v) had been executed before 4; ann is told of it now

Interface:
  - Recording(scenario)         runs it; operations, units, tellings, points, states
  - recover(disk, ...)          start the real server on what is left: its Outcome
  - Point                       an instant at which the plug can be pulled

Words: a *unit* is one call, EXEC, served waiter or internal deletion with all that it changes. *Told*: bytes have left
for a client after the unit was executed. (Every byte that leaves counts as telling of all that was executed before:
replies leave behind the flush of their turn, all of them.) *State*: keys, values and absolute deadlines, without those
that are over at the recording's `end_wall_us`, which is the instant of every recovery.

What promises begin with is heard from the server: the replies of SAVE and WAITAOF, the lines of its log that say that a
snapshot is done, that a write of the log has failed or that it has ended, and its directives. Whether they are kept is
judged by the operations of the disk alone.
"""

from __future__ import annotations

import itertools
import random
import traceback
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from math import inf
from typing import Any, NamedTuple

from kvref.command_table import Command, table
from kvref.config import Config, ConfigError
from kvref.database import Database
from kvref.directives import DIRECTIVES, Directive
from kvref.persistence.cursor import Unreadable
from kvref.persistence.manifest import parse
from kvref.ports import OpenMode, Ports, Socket
from kvref.quoting import split_args
from kvref.quoting import text as as_text
from kvref.resp import NEED_DATA, ReplyParser
from kvref.sampling import Hash, Members
from kvref.server import Server
from kvref.sim.clock import NEW_YEAR_US, Clock
from kvref.sim.disk import Disk, File, Operation
from kvref.sim.network import Network
from kvref.sim.processes import Processes
from kvref.sim.scenarios import Scenario
from kvref.sim.survival import PAGE
from kvref.sim.world import DEFAULTS, HOME, World
from kvref.skiplist import SortedSet

State = frozenset[tuple[int, bytes, Any, int | None]]       # (database, key, frozen value, deadline in ms)

FREEZE: dict[type, Any] = {
    bytes: lambda value: value,
    deque: lambda value: ("list", *value),
    Hash: lambda value: ("hash", frozenset(value.items())),
    Members: lambda value: ("set", frozenset(value)),
    SortedSet: lambda value: ("zset", frozenset(value.scores.items())),
}
REBOOT_US = 1_000_000               # the computer is back so long after the end of the run, or after the crash
LONG_US = 100_000                   # an fsync that takes so much longer than others is one that the log waits for
INSIDE = "in a write"
PROMISING = (b"save", b"waitaof")   # their replies promise more than that a command was executed


def entries(databases: Sequence[Database]) -> list[tuple[int, bytes, Any, int | None]]:
    """All that is there, frozen."""
    return [(database.index, key, FREEZE[type(value)](value), database.deadlines.get(key))
            for database in databases if database.values for key, value in database.values.items()]


def state_of(found: list[tuple[int, bytes, Any, int | None]], wall_ms: int) -> State:
    """What of it is left at an instant."""
    return frozenset(entry for entry in found if entry[3] is None or entry[3] >= wall_ms)


class Unit(NamedTuple):
    """A change and what was there behind it. Unit 0 is what was loaded at the start."""

    seq: int
    time_us: int
    client: int                     # its number; 0: the server itself
    found: list[tuple[int, bytes, Any, int | None]]


class Telling(NamedTuple):
    """A client learns of all units up to `units`."""

    seq: int
    time_us: int
    units: int
    client: int
    size: int                       # bytes


class Point(NamedTuple):
    """An instant at which the plug can be pulled: behind operation number `at` of the recording (0: before all)."""

    seq: int
    time_us: int
    at: int
    kind: str                       # of the operation; "start", "reply"; "in a write": number `at` is half done
    told: int                       # units that some client has been told of
    done: int                       # units executed


class Mode(NamedTuple):
    """The directives that decide what a start loads and what was promised, from an instant on."""

    seq: int
    since_us: int
    appendonly: bool
    policy: str


class Trouble(NamedTuple):
    """From where to where a write of the log may wait (an fsync runs) or has failed."""

    start: int
    end: float
    failing: bool
    start_us: int
    end_us: float


class Outcome(NamedTuple):
    """What the real server makes of what is left."""

    state: State | None             # None: it did not start
    refusal: str = ""               # its sentence
    crash: str = ""                 # a traceback: always a bug
    touched: tuple[str, ...] = ()   # changes it has made to the disk although it refused to start
    strays: tuple[str, ...] = ()    # files that it has read although no manifest names them


class Stage(World):
    """A world whose every telling and logging has its place in the order of things."""

    def __init__(self, recording: Recording) -> None:
        scenario = recording.scenario
        super().__init__(scenario.seed, fsync_us=scenario.fsync_us, child_step_us=scenario.child_step_us,
                         capacity=scenario.capacity, wall_us=recording.start_wall_us)
        self.recording = recording
        self._sequence = itertools.count(recording.initial.journal.last + 1)
        latency_us = self.disk.latency_us
        self._insert(recording.initial.moved(self.clock, self._sequence))
        self.disk.latency_us = latency_us
        self.disk.faults.extend(fault.fresh() for fault in scenario.faults)
        self.first = len(self.disk.operations)
        self.network.on_send.append(self._told)

    def next_seq(self) -> int:
        return next(self._sequence)

    def _told(self, sock: Socket, count: int) -> None:
        recording = self.recording
        recording.look_at_mode(self)
        units, now_ms = len(recording.units) - 1, self.clock.time_us() // 1000
        last = state_of(recording.units[-1].found, now_ms) if self.server else None
        if self.server and state_of(entries(self.server.databases), now_ms) != last:
            units += 1                      # of something that has been done and is no unit yet; perhaps never will be
        recording.tellings.append(Telling(self.next_seq(), self.clock.monotonic_us(), units, sock, count))

    def _write_log(self, level: str, text: str) -> None:
        super()._write_log(level, text)
        self.recording.heard(self, text)


class Recording:
    """See the module."""

    def __init__(self, scenario: Scenario, disk: Disk | None = None, start_wall_us: int = NEW_YEAR_US) -> None:
        """`disk`: start on a copy of what is there, instead of on what the scenario says."""
        self.scenario = scenario
        self.start_wall_us = start_wall_us
        self.units: list[Unit] = []
        self.tellings: list[Telling] = []
        self.saves: list[tuple[int, int]] = []              # (seq, units): a snapshot was reported done
        self.forks: dict[int, int] = {}                     # pid of a child -> units before its fork
        self.modes: list[Mode] = []
        self._settings: list[tuple[int, str, str]] = []     # (seq, directive, value) of CONFIG SET
        self._syncs: list[tuple[int, int, int]] = []        # an fsync in the background has begun: (seq, us, inode)
        self._failures: list[tuple[int, int, bool]] = []    # (seq, us, whether writes of the log fail from here on)
        self._calls: list[tuple[int, bytes, int]] = []      # (client, name, units) of commands whose reply is a promise
        self.waited: list[tuple[int, int]] = []             # (seq, units): WAITAOF has said that they are durable
        self.ended: int | None = None                       # seq: the server has shut down in good order
        self.refusal = ""
        self.callers: dict[str, Any] = {}                   # the clients, by name: what each has received
        self.log: list[str] = []
        self.initial = disk.copy() if disk else Disk.of(scenario.files or ((HOME, None),), Clock())
        world = Stage(self)
        self._perform(world)
        self.operations: list[Operation] = world.disk.operations[world.first:]
        self.log = world.log
        self.faults = list(world.disk.faults)
        self.end_wall_us = world.clock.time_us() + REBOOT_US
        self.ready_seq = self.units[0].seq if self.units else 0
        wall_ms = self.end_wall_us // 1000
        self.states: list[State] = [state_of(unit.found, wall_ms) for unit in self.units]
        self.index: dict[State, list[int]] = {}             # a state -> the units behind which it was there
        for number, state in enumerate(self.states):
            self.index.setdefault(state, []).append(number)
        self._acknowledged: dict[int, list[int]] = {}       # by point
        self._unit_seqs = [unit.seq for unit in self.units]
        self._unit_times = [unit.time_us for unit in self.units]
        self._troubles = list(self._find_troubles())
        self.points = list(self._points())

    # ---- the run

    def _perform(self, world: Stage) -> None:
        scenario = self.scenario
        self.modes.append(_mode(0, 0, Config.load(directives=[*DEFAULTS, *scenario.directives.items()])))
        try:
            server = world.start(**{name.replace("-", "_"): value for name, value in scenario.directives.items()})
        except (Unreadable, OSError) as error:
            self.refusal = str(error)
            return
        self._take(world, server, 0)
        for name in PROMISING:
            self._listen(server, name)
        for row in DIRECTIVES.values():
            server.config.on_change(row.name, partial(self._set, world, server.config, row))
        temp = f"temp-{server.processes.pid}.rdb"
        world.disk.observers.append(lambda done: self._saving(world, server) if done.path.endswith(temp) else None)
        server.feeds.append(lambda index, effect: self._fed(world, server, effect))
        fork = server.processes.fork

        def forked(work: Any) -> int:
            pid: int = fork(work)
            self.forks[pid] = len(self.units) - 1
            return pid
        server.processes.fork = forked                      # type: ignore[method-assign]
        in_background = server.processes.fsync_in_background

        def begun(file: Any) -> Any:
            self._syncs.append((world.next_seq(), world.clock.monotonic_us(), file.inode))
            return in_background(file)
        server.processes.fsync_in_background = begun        # type: ignore[method-assign]
        self.forks[server.processes.pid] = -1               # SAVE: of the instant of its rename
        self._in_unit = False
        callers = self.callers
        begun_us = world.clock.monotonic_us()
        for step in sorted(scenario.script, key=lambda step: step.at_ms):
            if (wait_us := begun_us + step.at_ms * 1000 - world.clock.monotonic_us()) > 0:
                world.run(ms=wait_us / 1000)
            if world.server is None:
                break
            if step.client not in callers:
                callers[step.client] = world.connect(step.client)
            _say(callers[step.client], step.command)
        if world.server is not None:
            world.run(ms=(begun_us + scenario.end_ms * 1000 - world.clock.monotonic_us()) / 1000)
        for who, caller in callers.items():
            self._match(scenario, who, caller)

    def _set(self, world: Stage, config: Config, row: Directive) -> None:
        self._settings.append((world.next_seq(), row.name, as_text(config.shown(row))))

    def _listen(self, server: Server, name: bytes) -> None:
        """Note how many units there were when such a command was called."""
        row = server.commands[name]
        handler = row.handler
        assert handler

        def noted(call: Any) -> Any:
            self._calls.append((call.client.sock, name, len(self.units) - 1))
            return handler(call)
        row.handler = noted

    def _match(self, scenario: Scenario, name: str, caller: Any) -> None:
        """What SAVE and WAITAOF have promised this client, from the place on at which it had the reply."""
        calls = [(word, units) for sock, word, units in self._calls if sock == caller.far]
        steps = sorted(scenario.script, key=lambda step: step.at_ms)
        asked = [split_args(step.command.encode()) or [b""] for step in steps
                 if step.client == name and not step.command.startswith("@")]
        parser, done = ReplyParser(), 0
        for words in asked if calls else []:
            while (reply := parser.next()) is NEED_DATA and done < len(caller.received):
                parser.receive(bytes(caller.received[done:done + 1]))
                done += 1
            if reply is NEED_DATA:
                return
            if words[0].lower() in PROMISING and calls:
                word, units = calls.pop(0)
                seq = self._told_at(caller.far, done)
                if word == b"save" and reply == "OK":
                    self.saves.append((seq, units))
                elif word == b"waitaof" and isinstance(reply, list) and reply[0]:
                    self.waited.append((seq, units))

    def _take(self, world: Stage, server: Server, client: int) -> None:
        self.units.append(Unit(world.next_seq(), world.clock.monotonic_us(), client, entries(server.databases)))

    def _fed(self, world: Stage, server: Server, effect: Sequence[bytes]) -> None:
        """An effect was propagated; between MULTI and EXEC several make one unit."""
        if effect[0] == b"MULTI" and len(effect) == 1:
            self._in_unit = True
        elif not self._in_unit or effect[0] == b"EXEC":
            self._in_unit = False
            self._take(world, server, server.call.client.sock if server.call.args else 0)

    def _saving(self, world: Stage, server: Server) -> None:
        """A snapshot may hold what its command has done and not told yet: FLUSHALL saves at once."""
        if not server.in_transaction and entries(server.databases) != self.units[-1].found:
            self._take(world, server, -1)

    def heard(self, world: Stage, text: str) -> None:
        """A line of the server's log: what it reports done, and when its mode has changed."""
        server = world.server
        if text == "DB saved on disk":
            self.saves.append((world.next_seq(), len(self.units) - 1))
        elif text.startswith("Background saving terminated with success"):
            self.saves.append((world.next_seq(), self.forks[max(self.forks)]))
        elif text.startswith("Error writing to the AOF file"):
            self._failures.append((world.next_seq(), world.clock.monotonic_us(), True))
        elif text.startswith(("AOF write error looks solved", "Background AOF rewrite finished")):
            self._failures.append((world.next_seq(), world.clock.monotonic_us(), False))
        elif text.startswith("Redis is now ready to exit"):
            self.ended = world.next_seq()
        self.look_at_mode(world)

    def look_at_mode(self, world: Stage) -> None:
        """Has somebody said CONFIG SET? A log that is being switched on counts from its first manifest on."""
        server = world.server
        if server is None:
            return
        mode = _mode(world.next_seq(), world.clock.monotonic_us(), server.config)
        is_whole = server.aof.file is not None and not server.aof.temporary and server.aof.manifest.base
        if mode[2:] != self.modes[-1][2:] and (is_whole or not mode.appendonly):
            self.modes.append(mode)

    # ---- looking back

    def _points(self) -> Iterator[Point]:
        """Before the first operation, after each, after each telling, behind an orderly end, and amid a long write."""
        yield Point(self.operations[0].seq - 1 if self.operations else 0, 0, 0, "start", 0, 0)
        events: list[Operation | Telling] = sorted([*self.operations, *self.tellings], key=lambda event: event.seq)
        at = told = 0
        for event in events:
            done = self.done_before(event.seq)
            if isinstance(event, Telling):
                told, kind = max(told, event.units), "reply"
            else:
                if _spans_pages(event):
                    yield Point(event.seq, event.time_us, at, INSIDE, told, done)
                at, kind = at + 1, event.kind
            yield Point(event.seq, event.time_us, at, kind, told, done)
        yield from [Point(self.ended, event.time_us, at, "reply", told, done)] if self.ended else []

    def _told_at(self, sock: Socket, count: int) -> int:
        """Where a client had so many bytes."""
        total = 0
        for telling in self.tellings:
            total += telling.size if telling.client == sock else 0
            if total >= count:
                return telling.seq
        raise AssertionError("nobody has received more than was sent")

    def done_before(self, seq: int) -> int:
        """How many units had been executed at that place in the order of things (unit 0, the start, not counted)."""
        return max(0, bisect_right(self._unit_seqs, seq) - 1)

    def done_until(self, time_us: int) -> int:
        """How many units had been executed at that time."""
        return max(0, bisect_right(self._unit_times, time_us) - 1)

    def _find_troubles(self) -> Iterator[Trouble]:
        for start, begun_us, inode in self._syncs:      # it is over with the first write behind it, or a moment later
            end = next((done for done in self.operations
                        if done.seq > start and done.kind == "fsync" and done.inode == inode), None)
            after = end and next((event.seq for event in self.operations if event.seq > end.seq and (
                event.kind == "write" or event.time_us > end.time_us + 1000)), end.seq + 1)
            yield Trouble(start, after or inf, False, begun_us, end.time_us if end else inf)
        for (start, start_us, failing), (end_seq, end_us, _) in zip(
                self._failures, [*self._failures[1:], (inf, inf, False)]):
            if failing:
                yield Trouble(start, end_seq, True, start_us, end_us)

    def was_healthy(self, from_us: int, to_us: int) -> bool:
        """Whether in all that time no write of the log failed and no fsync of it took long."""
        return not any(each.start_us <= to_us and each.end_us >= from_us for each in self._troubles
                       if each.failing or each.end_us - each.start_us > LONG_US + self.scenario.fsync_us)

    def syncing_since(self, seq: int) -> int | None:
        """Where the fsync began that runs in the background; None: none does."""
        return next((each.start for each in self._troubles if each.start <= seq < each.end and not each.failing), None)

    def is_failing(self, seq: int) -> bool:
        """Whether the log's last write has failed."""
        return any(each.start <= seq < each.end and each.failing for each in self._troubles)

    def mode_at(self, seq: int) -> Mode:
        return [mode for mode in self.modes if mode.seq <= seq][-1]

    def disk_at(self, at: int) -> Disk:
        """The disk as it was behind so many operations."""
        disk = self.initial.copy()
        for operation in self.operations[:at]:
            disk.apply(operation)
        return disk

    def directives_at(self, seq: int) -> dict[str, str]:
        """What a start after a crash is told: the directives in force at that instant."""
        mode = self.mode_at(seq)
        said = {name: value for at, name, value in self._settings if at <= seq}
        appendonly = "yes" if mode.appendonly else "no"
        return {**self.scenario.directives, **said, "appendonly": appendonly, "appendfsync": mode.policy}

    def acknowledged(self, point: Point) -> list[int]:
        """The units whose own client has its reply."""
        if point.seq not in self._acknowledged:
            self._acknowledged[point.seq] = self._acknowledged_at(point)
        return self._acknowledged[point.seq]

    def _acknowledged_at(self, point: Point) -> list[int]:
        last: dict[int, int] = {}
        for telling in self.tellings:
            if telling.seq <= point.seq:
                last[telling.client] = telling.units
        return [number for number, unit in enumerate(self.units[:point.done + 1])
                if number and number <= last.get(unit.client, 0)]

    def __repr__(self) -> str:
        return (f"<Recording of {self.scenario.name!r}: {len(self.operations)} operations, "
                f"{max(0, len(self.units) - 1)} units, {len(self.tellings)} tellings, {len(self.points)} points>")


def _spans_pages(operation: Operation) -> bool:
    return operation.kind == "write" and operation.offset // PAGE != (operation.end - 1) // PAGE


def _mode(seq: int, now_us: int, config: Config) -> Mode:
    return Mode(seq, now_us, bool(config.appendonly), str(config.appendfsync))


def _say(caller: Any, command: str) -> None:
    if caller.ended:
        return
    if command == "@stop":
        caller.reading = False
    elif command == "@read":
        caller.reading = True
    elif command == "@leave":
        caller.close()
    else:
        caller.send(*(split_args(command.encode()) or [b""]))


def recover(disk: Disk, directives: Mapping[str, str], wall_us: int, kit: Kit | None = None) -> Outcome:
    """Start the real server on a disk, look at what it has, and end it. The disk is changed as the start changes it."""
    clock = disk.clock = Clock(wall_us=wall_us)
    network = Network(clock)
    processes = Processes(clock, disk, network.wake)
    before, read = len(disk.operations), list[str]()
    _listen_to_opens(disk, _strays(disk, directives), read)
    try:
        config, commands = (kit or Kit()).parts(directives)
        server = Server(Ports(clock, network, disk, processes), config, random.Random(0), _ignore, commands)
        server.start()
    except (Unreadable, ConfigError, OSError) as error:
        touched = [done for done in disk.operations[before:] if done.kind not in ("fsync", "fsync_dir")]
        return Outcome(None, str(error), touched=tuple(map(repr, touched)), strays=tuple(read))
    except Exception:
        return Outcome(None, crash=traceback.format_exc())
    return Outcome(state_of(entries(server.databases), wall_us // 1000), strays=tuple(read))


def _listen_to_opens(disk: Disk, strays: set[int], read: list[str]) -> None:
    """Note which of these files are opened to be read."""
    whole = disk.open

    def noted(path: str, mode: OpenMode) -> File:
        file = whole(path, mode)
        if mode == "w":
            strays.discard(file.inode)                      # it is empty now
        elif mode == "r" and file.inode in strays:
            read.append(path)
        return file
    disk.open = noted                                       # type: ignore[method-assign]


def log_folder(directives: Mapping[str, str]) -> str:
    """Where the log is."""
    return f"{HOME}/{directives.get('appenddirname', 'appendonlydir')}"


def dump_path(directives: Mapping[str, str]) -> str:
    """Where the snapshot is."""
    return f"{HOME}/{directives.get('dbfilename', 'dump.rdb')}"


def _strays(disk: Disk, directives: Mapping[str, str]) -> set[int]:
    """The inodes that a start may not read: of files that are there, and that no manifest names."""
    folder, name = log_folder(directives), directives.get("appendfilename", "appendonly.aof")
    manifest, old = f"{folder}/{name}.manifest", f"{HOME}/{name}"
    known = {manifest}
    if directives.get("appendonly") != "yes":
        known.add(dump_path(directives))
    else:
        try:
            known |= {f"{folder}/{part.name}" for part in parse(disk.content(manifest)).parts}
        except (Unreadable, OSError):
            pass
        if known <= {manifest, f"{folder}/{name}"}:         # none, or that of a log from before Redis 7
            known.add(old)
    return {number for number, node in disk.inodes.items() if not node.is_directory and node.path not in known}


class Kit:
    """What a server is made of and can be used again: to make them anew is half the work of a small start."""

    def __init__(self) -> None:
        self._commands = table()
        self._configs: dict[tuple[tuple[str, str], ...], Config] = {}

    def parts(self, directives: Mapping[str, str]) -> tuple[Config, dict[bytes, Command]]:
        pairs = tuple(directives.items())
        if pairs not in self._configs:
            self._configs[pairs] = Config.load(directives=[*DEFAULTS, *pairs])
        return self._configs[pairs].copy(), self._commands


def _ignore(level: str, text: str) -> None:
    pass
