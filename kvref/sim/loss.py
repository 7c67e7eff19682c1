"""How much is lost? One writer at a steady rate, and the plug pulled at every instant.

    sweep = losses(MODES["everysec"], crash="ext4")
    print(sweep.worst, sweep.mean)              # writes that had been acknowledged, and are gone
    [(loss.at_ms, loss.lost) for loss in sweep.losses]      # the sawtooth

Interface:
  - MODES                       the persistence modes of the course, as directives
  - losses(directives, ...)     a Losses: for each instant what the worst legal state has lost
  - throughput(directives, ...) what the same mode costs: writes a virtual second, by clients that wait for each reply
  - summary(...)                modes x crashes: worst and mean loss, whether it may refuse, the price
  - stops, visit, left          for other measures: instants of a recording, the disk there, what each state leaves

A loss counts acknowledged writes only, and its age is that of the oldest of them at the crash. "Worst" is the worst
of the states that were listed; `process` has one. The disk is a model: its fsync takes `fsync_us`, nothing else takes
time, and its kernel never writes back by itself (a real one does after up to 30 seconds).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from kvref.sim.disk import Disk, Fault
from kvref.sim.explorer import Sweep, Task
from kvref.sim.recording import Outcome, Point, Recording
from kvref.sim.scenarios import ALWAYS, EVERYSEC, NO, OFF, Scenario, Step
from kvref.sim.world import World

MODES: Final[dict[str, dict[str, str]]] = {
    "no persistence": OFF,
    "save 1 1": {"save": "1 1", "appendonly": "no"},
    "save 2 1": {"save": "2 1", "appendonly": "no"},
    "AOF no": NO,
    "AOF everysec": EVERYSEC,
    "AOF always": ALWAYS,
    "everysec + save 2 1": {**EVERYSEC, "save": "2 1"},
}
STATES: Final = 8                       # of each instant
STEP_MS: Final = 45.45                  # not in step with 100 writes a second: some crashes come while an fsync runs
KEYS: Final = 20                        # the writer takes them in turn
PRICED_MS: Final = 20                   # some 20 fsyncs, or 2,000 commands without; it goes on in the same way


class Loss(NamedTuple):
    """A crash at one instant."""

    at_ms: float
    acknowledged: int
    lost: int               # of the acknowledged ones, in the worst state
    age_s: float            # of the oldest lost one
    refused: bool           # some listed state is refused


@dataclass(frozen=True)
class Losses:
    """One mode, one kind of crash, many instants."""

    mode: Mapping[str, str]
    crash: str
    losses: tuple[Loss, ...]

    @property
    def worst(self) -> int:
        return max(loss.lost for loss in self.losses)

    @property
    def mean(self) -> float:
        return sum(loss.lost for loss in self.losses) / len(self.losses)

    @property
    def worst_s(self) -> float:
        return max(loss.age_s for loss in self.losses)

    @property
    def may_refuse(self) -> bool:
        return any(loss.refused for loss in self.losses)

    def at(self, ms: float) -> Loss:
        """The last crash not later than that. ValueError where it would come before the first."""
        earlier = [loss for loss in self.losses if loss.at_ms <= ms]
        if not earlier:
            raise ValueError(f"the first crash comes after {self.losses[0].at_ms:g} ms; {ms:g} ms is earlier")
        return earlier[-1]

    def distribution(self) -> list[tuple[int, float]]:
        """(writes lost, share of the instants at which no more are lost): the ECDF, one step for each value."""
        values = sorted(loss.lost for loss in self.losses)
        return [(value, (last + 1) / len(values)) for last, value in enumerate(values)
                if last + 1 == len(values) or values[last + 1] != value]


def losses(directives: Mapping[str, str], *, crash: str = "ext4", rate: int = 100, seconds: float = 10,
           step_ms: float = STEP_MS, fsync_us: int = 1000, faults: Sequence[Fault] = ()) -> Losses:
    """`rate` writes a second for so many virtual seconds; a crash every `step_ms`. `crash`: "process" or a profile."""
    return _losses(directives, (crash,), rate, seconds, step_ms, fsync_us, faults)[crash]


def _losses(directives: Mapping[str, str], crashes: Sequence[str], rate: int, seconds: float, step_ms: float,
            fsync_us: int = 1000, faults: Sequence[Fault] = ()) -> dict[str, Losses]:
    """One run, and all its ends."""
    script = tuple(Step(n * 1000 // rate, "writer", f"SET key:{n % KEYS} {n}") for n in range(int(rate * seconds)))
    scenario = Scenario("loss", directives, script, faults=tuple(faults), fsync_us=fsync_us)
    recording = Recording(scenario)
    sweep = Sweep(Task(scenario, tuple(crashes), STATES), recording)
    zero_us = recording.units[0].time_us
    instants = [round(number * step_ms * 1000) + zero_us for number in range(1, int(seconds * 1000 / step_ms) + 1)]
    found: dict[str, list[Loss]] = {crash: [] for crash in crashes}
    for stop, point, disk in visit(sweep, stops(recording, instants)):
        for crash, those in found.items():
            those.append(_loss(sweep, point, disk, crash, stop.now_us, zero_us))
    return {crash: Losses(directives, crash, tuple(those)) for crash, those in found.items()}


def _loss(sweep: Sweep, point: Point, disk: Disk, crash: str, now_us: int, zero_us: int) -> Loss:
    """The worst that a crash takes now."""
    recording = sweep.recording
    states = left(sweep, point, disk, crash)
    units = [state.unit for state in states if state.outcome.state is not None]
    acknowledged = recording.acknowledged(point)
    gone = [unit for unit in acknowledged if unit > min(units, default=0)]
    age_s = (now_us - recording.units[gone[0]].time_us) / 1e6 if gone else 0.0
    return Loss((now_us - zero_us) / 1000, len(acknowledged), len(gone), age_s, len(units) < len(states))


# ---- crash instants, and what is left there ------------------------------------------------------

class Stop(NamedTuple):
    """An instant, and the number of the last point that is not later."""

    point: int
    now_us: int


class Left(NamedTuple):
    """What one legal state has left."""

    outcome: Outcome
    unit: int                   # behind which the recovered state was there; 0: the start, or refused


def stops(recording: Recording, instants_us: Iterable[int]) -> list[Stop]:
    """Instants of the recording's clock, as places to stop at."""
    times = [point.time_us for point in recording.points]
    return [Stop(max(0, bisect_right(times, now_us) - 1), now_us) for now_us in instants_us]


def visit(sweep: Sweep, places: Iterable[Stop]) -> Iterator[tuple[Stop, Point, Disk]]:
    """In their order. The disk is the same object again and again, one step further."""
    waiting = deque(sorted(places))
    for number, point, disk in sweep.places():
        while waiting and waiting[0].point == number:
            yield waiting.popleft(), point, disk


def left(sweep: Sweep, point: Point, disk: Disk, crash: str, repaired: bool = False) -> list[Left]:
    """For each state that is listed here, in order, what the server makes of it.

    `repaired`: where it refuses, once more after `kvref.files` has repaired what is left."""
    recording = sweep.recording
    mode = recording.directives_at(point.seq)
    found = list[Left]()
    for image, *_ in sweep.states(disk, crash, point)[0]:
        outcome = sweep.outcome(image, mode)
        if repaired and outcome.state is None:
            outcome = sweep.outcome(image, mode, repaired=True)
        units = () if outcome.state is None else recording.index.get(outcome.state, ())
        found.append(Left(outcome, max((unit for unit in units if unit <= point.done), default=0)))
    return found


def throughput(directives: Mapping[str, str], *, clients: int = 8, ms: int = PRICED_MS, fsync_us: int = 1000) -> float:
    """Writes per virtual second: each client sends the next when it has the reply."""
    world = World(seed=1, fsync_us=fsync_us)
    world.start(**{name.replace("-", "_"): value for name, value in directives.items()})
    callers = [world.connect(f"client {number}") for number in range(clients)]
    begun_us, count = world.clock.monotonic_us(), 0
    for number, caller in enumerate(callers):
        caller.send("SET", f"key:{number}", count)
    while world.clock.monotonic_us() - begun_us < ms * 1000:
        world.settle()
        for caller in callers:
            while caller.replies:
                caller.replies.pop()
                count += 1
                caller.send("SET", caller.name, count)
    return count / (world.clock.monotonic_us() - begun_us) * 1e6


class Row(NamedTuple):
    """A line of the summary: one mode."""

    mode: str
    worst: dict[str, int]           # crash -> acknowledged writes
    mean: dict[str, float]
    worst_s: dict[str, float]
    may_refuse: dict[str, bool]
    price: float                    # of the throughput without persistence

    @classmethod
    def of(cls, mode: str, swept: Mapping[str, Losses], price: float) -> Row:
        """From sweeps of one mode, by kind of crash."""
        return cls(mode, {crash: found.worst for crash, found in swept.items()},
                   {crash: found.mean for crash, found in swept.items()},
                   {crash: found.worst_s for crash, found in swept.items()},
                   {crash: found.may_refuse for crash, found in swept.items()}, price)


def summary(modes: Mapping[str, Mapping[str, str]] = MODES, crashes: Sequence[str] = ("process", "ext4"), *,
            rate: int = 100, seconds: float = 10, step_ms: float = STEP_MS) -> list[Row]:
    """modes x crashes: worst and mean loss, whether a start may be refused, and the price in throughput."""
    free = throughput(OFF)
    return [Row.of(mode, _losses(directives, crashes, rate, seconds, step_ms), throughput(directives) / free)
            for mode, directives in modes.items()]
