"""The crash explorer: pulls the plug at every operation, in every legal way, and starts the server on what is left.

    report = explore(SCENARIOS["everysec-rewrite"])
    print(report)                       # a table; report.violations should be empty
    print(replay(report.violations[0].id))

Interface:
  - explore(scenarios, ...)     the sweep: any executor, a progress callback; returns a Report
  - Report                      points, states, recoveries, outcomes, losses, violations; adds up. shorten() shrinks the
                                first violation of each (scenario, promise)
  - replay(id, scenario)        one crash again, told in full; `scenario`: where it is one of your own
  - shrink(violation)           the shortest script that still breaks the same promise; least(items, still) finds it

A point is a place between two events of the recorded run. At each point each profile has its legal states; what a
write is torn to is among them. (For `process` a write is torn where it goes from one page to the next: there the kernel
looks at signals.) Equal images are recovered once, and judged at each point anew. On a sample of the points there is a
second crash: during the recovery, and after new writes (I7, I8, I9). The first was a kill, and a power loss of
POWER; at an eighth of these points one of ROUGH, too.

An id is scenario:point:profile:state, for a second crash behind a slash the same again.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from typing import Any, Final, NamedTuple, TypeVar

from kvref import files
from kvref.persistence.cursor import Unreadable
from kvref.sim.clock import Clock
from kvref.sim.crashes import DAMAGE, Found, Image, Space
from kvref.sim.disk import Disk
from kvref.sim.invariants import (BROKEN, KILLS, KINDS, LIED, LOSSY, REFUSED, WHOLE, Ledger, Promise, Verdict,
                                  judge, promise)
from kvref.sim.mutants import broken
from kvref.sim.recording import (INSIDE, REBOOT_US, Kit, Outcome, Point, Recording, State, dump_path, log_folder,
                                 recover, state_of)
from kvref.sim.scenarios import SCENARIOS, Scenario, Script, Step, at
from kvref.sim.survival import PAGE

PROFILES: Final = ("process", "restart", "ext4", "torn", "posix", "reorder", "hostile")
POWER: Final = ("ext4", "posix")        # the power losses of a second crash, and of the first before it
ROUGH: Final = ("torn", "reorder")      # ... or one of these before it, at every ROUGH_SHARE-th of those points
ROUGH_SHARE: Final = 8
AGAIN: Final = (at(20, "eve", "SET second:life 1", "INCR second:count", "DEL key:1 counter list")
                + at(1300, "eve", "SET second:last 1"))
STATES: Final = 64                      # of a point and profile that are looked at
KEPT: Final = 10_000                    # ... and held in memory at once
SHARE: Final = {"hostile": 16}          # of these profiles only the 16th part: they are endless
SECOND_SHARE: Final = 16                # ... and at each point of a second life
MORE: Final = {"truncate": 5, "unlink": 2}      # second lives: at so many points and states of these, the rare ones
SHRINK_TRIES: Final = 400
MOST_SHRUNK: Final = 8

Item = TypeVar("Item")
Owed = Callable[[Point, str], Promise | None]


class Crash(NamedTuple):
    """Where the plug was pulled, and how."""

    point: int
    profile: str
    state: int
    limit: int = STATES                     # of how many listed ones
    seed: int = 0                           # ... and of which sample

    def __str__(self) -> str:
        how = f"@{self.limit}" * (self.limit != STATES) + f"~{self.seed}" * (self.seed != 0)
        return f"{self.point}:{self.profile}:{self.state}{how}"


class Violation(NamedTuple):
    """A promise that was broken."""

    scenario: Scenario
    crashes: tuple[Crash, ...]
    verdict: Verdict
    shortest: Script | None = None      # that breaks it, where somebody has looked for it

    @property
    def id(self) -> str:
        bug = f"+{self.scenario.mutant}" if self.scenario.mutant else ""
        return f"{self.scenario.name}{bug}:" + "/".join(map(str, self.crashes))

    def __str__(self) -> str:
        steps = [] if self.shortest is None else self.shortest or ["(no command)"]
        return "\n    ".join([f"{self.id}  {self.verdict.invariant}: {self.verdict.text}", *map(str, steps)])


@dataclass
class Report:
    """What a sweep has found. Two of them add up."""

    points: int = 0
    pairs: int = 0                              # (point, state) that were judged
    recoveries: int = 0                         # starts of the server on distinct images
    listed: Counter[str] = field(default_factory=Counter)       # states looked at, by profile
    legal: Counter[str] = field(default_factory=Counter)        # ... of so many
    second: Counter[str] = field(default_factory=Counter)       # "recordings", "pairs", and by kind of operation
    ends: Counter[str] = field(default_factory=Counter)         # ... outcomes of these pairs, by kind
    outcomes: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)   # scenario, profile, operation, kind
    lost: Counter[tuple[str, str]] = field(default_factory=Counter)                 # scenario, profile: sum of writes
    worst: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)     # ... at worst: writes, age in us
    violations: list[Violation] = field(default_factory=list)

    def add(self, other: Report) -> None:
        self.points += other.points
        self.pairs += other.pairs
        self.recoveries += other.recoveries
        for name in ("listed", "legal", "second", "ends", "outcomes", "lost"):
            getattr(self, name).update(getattr(other, name))
        for place, loss in other.worst.items():
            self.note_loss(place, *loss)
        self.violations += other.violations

    def note_loss(self, place: tuple[str, str], writes: int, age_us: int) -> None:
        before = self.worst.get(place, (0, 0))
        self.worst[place] = max(before[0], writes), max(before[1], age_us)

    def shorten(self, most: int = MOST_SHRUNK) -> None:
        """Find the shortest script for the first violation of each (scenario, promise), and list these first."""
        first: dict[tuple[str, str, str], Violation] = {}
        for each in self.violations:
            first.setdefault((each.scenario.name, each.scenario.mutant, each.verdict.invariant), each)
        chosen = list(first.values())[:most]
        others = [each for each in self.violations if not any(each is one for one in chosen)]
        self.violations = [each._replace(shortest=shrink(each).script) for each in chosen] + others

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Values for HEAD: scenario, profile, pairs, and how many of each kind; worst and mean loss."""
        places = dict.fromkeys((scenario, profile) for scenario, profile, _, _ in self.outcomes)
        for scenario, profile in places:
            kinds: Counter[str] = Counter()
            for (name, other, _, kind), count in self.outcomes.items():
                if (name, other) == (scenario, profile):
                    kinds[kind] += count
            pairs = sum(kinds.values())
            writes, age_us = self.worst.get((scenario, profile), (0, 0))
            started = kinds[WHOLE] + kinds[LOSSY]               # a refusal is no loss, and no absence of one
            yield (scenario, profile, pairs, *(kinds[kind] for kind in KINDS), writes, round(age_us / 1e6, 2),
                   round(self.lost[scenario, profile] / max(1, started), 2))

    def to_json(self) -> dict[str, Any]:
        """The same for programs."""
        return {"points": self.points, "pairs": self.pairs, "recoveries": self.recoveries,
                "listed": dict(self.listed), "legal": dict(self.legal),
                "second": dict(self.second), "ends": dict(self.ends),
                "rows": [dict(zip(HEAD, row)) for row in self.rows()],
                "violations": [{"id": each.id, "invariant": each.verdict.invariant, "text": each.verdict.text,
                                "shortest": each.shortest} for each in self.violations]}

    def __str__(self) -> str:
        rows = [HEAD, *([f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in self.rows())]
        widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
        lines = ["  ".join(cell.ljust(width) if column < 2 else cell.rjust(width)
                           for column, (cell, width) in enumerate(zip(row, widths))) for row in rows]
        sampled = [f"{profile} {self.listed[profile]:,} of {self.legal[profile]:,}" if self.legal[profile] < 10**15 else
                   f"{profile} {self.listed[profile]:,} of {float(self.legal[profile]):.0e}" for profile in self.listed]
        second = self.second
        return "\n".join([*lines, "", f"{self.points:,} points, {self.pairs:,} (point, state) pairs, "
                          f"{self.recoveries:,} distinct recoveries", f"states looked at: {', '.join(sampled)}",
                          f"second crashes: {second['recordings']:,} second lives, {second['pairs']:,} pairs" + "".join(
                              f", {self.ends[kind]:,} {kind}" for kind in KINDS if self.ends[kind]),
                          f"violations: {len(self.violations)}", *map(str, self.violations[:20])])


HEAD: Final = ("scenario", "crash", "pairs", *KINDS, "worst loss (writes)", "oldest (s)", "mean loss (writes)")


@dataclass(frozen=True)
class Task:
    """A piece of the sweep, as data."""

    scenario: Scenario
    profiles: tuple[str, ...] = PROFILES
    limit: int = STATES                         # states of a point and profile
    again: int = 0                              # second crashes for each kind of operation
    stop_at_first: bool = False
    seed: int = 0


def run_task(task: Task) -> Report:
    """What a worker does."""
    with broken(task.scenario.mutant):
        return Sweep(task).run()


class Sweep:
    """One scenario, swept."""

    def __init__(self, task: Task, recording: Recording | None = None, before: Owed | None = None,
                 first: tuple[Crash, ...] = ()) -> None:
        """`before`: what is owed at a point of a second life, where the first decides it; `first`: how that ended."""
        self.task, self.before, self.first = task, before, first
        self.recording = recording or Recording(task.scenario)
        self.ledger = Ledger(self.recording)
        self.report = Report()
        self._kit = Kit()
        self._outcomes: dict[tuple[Any, ...], Outcome] = {}

    def run(self) -> Report:
        """Every point, every profile, every listed state."""
        report, at = self.report, -1
        if self.recording.refusal:
            raise ValueError(f"the server of {self.task.scenario.name!r} does not start: {self.recording.refusal}")
        report.points = len(self.recording.points)
        legal: dict[str, tuple[Sequence[Found] | Space, int]] = {}
        for number, point, disk in self.places():
            if at != point.at or point.kind == INSIDE:
                at, legal = point.at, {profile: self.states(disk, profile, point) for profile in self.task.profiles}
            for profile, (states, total) in legal.items():
                report.listed[profile] += len(states)
                report.legal[profile] += total
                for state, found in enumerate(states):
                    self._one(number, point, profile, state, found)
                    if report.violations and self.task.stop_at_first:
                        return report
        if self.task.again:
            self._second_crashes()
        return report

    def places(self) -> Iterator[tuple[int, Point, Disk]]:
        """Each point with the disk as it was there. The disk is the same object again and again, one step further."""
        recording = self.recording
        disk, at = recording.initial.copy(), 0
        for number, point in enumerate(recording.points):
            while at < point.at:
                disk.apply(recording.operations[at])
                at += 1
            yield number, point, disk

    def space(self, disk: Disk, profile: str) -> Space:
        return Space(disk, profile, max(2, self.task.limit // SHARE.get(profile, 1)), seed=self.task.seed)

    def states(self, disk: Disk, profile: str, point: Point) -> tuple[Sequence[Found] | Space, int]:
        """The legal states behind a crash here that are looked at, and how many there are. Many are not kept."""
        if profile == "restart":
            return [Found(disk.image(), "cut")], 1
        if profile != "process":
            space = self.space(disk, profile)
            return space if len(space) > KEPT else list(space), space.total
        if point.kind != INSIDE:
            return [Found(disk.image(), "cut")], 1
        found, write = [], self.recording.operations[point.at]
        for end in range(write.offset // PAGE * PAGE + PAGE, write.end, PAGE):      # where the kernel looks at signals
            half = disk.copy()
            half.apply(replace(write, data=write.data[:end - write.offset]))
            found.append(Found(half.image(), "cut"))
        return found, len(found)

    def outcome(self, image: Image, directives: dict[str, str], repaired: bool = False) -> Outcome:
        """What the server makes of it; asked once."""
        key = (image, directives.get("appendonly"), repaired)
        found = self._outcomes.get(key)
        if found is None:
            disk = Disk.of(image, Clock())
            if repaired:
                try:
                    files.repair(disk, _log_of(directives))
                except (Unreadable, OSError) as error:
                    return self._outcomes.setdefault(key, Outcome(None, str(error)))
            found = self._outcomes[key] = recover(disk, directives, self.recording.end_wall_us, self._kit)
            self.report.recoveries += 1
        return found

    def verdict(self, point: Point, profile: str, found: Found) -> Verdict:
        """On one state of one point. What is refused for its zeros must be whole when it has been repaired."""
        directives = self.recording.directives_at(point.seq)
        owed = self.before(point, profile) if self.before else None
        if profile == "restart":
            return self._soon(point, found.image, directives)
        damage = _damage(found, directives)
        verdict = judge(self.ledger, point, profile, damage, self.outcome(found.image, directives), owed)
        is_torn = verdict.kind == REFUSED and damage in ("cut", "zeros") and directives["appendonly"] == "yes"
        if is_torn and not self.ledger.has_dropped(point, profile) and self.ledger.betrayal(point, profile) < LIED:
            outcome = self.outcome(found.image, directives, repaired=True)
            repaired = judge(self.ledger, point, profile, damage, outcome, owed)
            if repaired.kind in (BROKEN, REFUSED):
                text = f"even when repaired: {repaired.text}"
                return Verdict(BROKEN, repaired.invariant or "I10", repaired.unit, text)
        return verdict

    def _soon(self, point: Point, image: Image, directives: dict[str, str]) -> Verdict:
        """The server is back a second after the crash: deadlines that are over at the end of the run still count."""
        owed = promise(self.ledger, point, "restart")
        wall_us = self.recording.start_wall_us + point.time_us + REBOOT_US
        self.report.recoveries += 1
        outcome = recover(Disk.of(image, Clock()), directives, wall_us, self._kit)
        return judge(self.ledger, point, "restart", "cut", outcome,
                     owed._replace(states=self._owed(point, owed, wall_us)))

    def _owed(self, point: Point, owed: Promise, wall_us: int) -> dict[State, int]:
        """The states that keep a promise, as they look at an instant, each with the last unit behind which it was."""
        units = enumerate(self.recording.units[:point.done + 1])
        return {state_of(unit.found, wall_us // 1000): number for number, unit in units
                if number >= owed.least and (owed.only is None or number in owed.only)}

    def _one(self, number: int, point: Point, profile: str, state: int, found: Found) -> Verdict:
        verdict, report = self.verdict(point, profile, found), self.report
        name = self.task.scenario.name + f"+{self.task.scenario.mutant}" * bool(self.task.scenario.mutant)
        report.pairs += 1
        report.outcomes[name, profile, point.kind, verdict.kind] += 1
        if verdict.kind == LOSSY:
            lost = [unit for unit in self.recording.acknowledged(point) if unit > verdict.unit]
            report.lost[name, profile] += len(lost)
            report.note_loss((name, profile), len(lost), point.time_us - self.recording.units[lost[0]].time_us)
        if verdict.kind == BROKEN:
            crash = Crash(number, profile, state, self.task.limit, self.task.seed)
            report.violations.append(Violation(self.task.scenario, (*self.first, crash), verdict))
        return verdict

    # ---- a second crash

    def _second_crashes(self) -> None:
        """I7, I8, I9: on a seeded sample of the points of each kind, recover, go on, and crash again."""
        dice = random.Random(f"{self.task.seed} {self.task.scenario.name} second")
        rough = random.Random(f"{self.task.seed} {self.task.scenario.name} rough")
        kinds: dict[str, list[int]] = {}
        for number, point in enumerate(self.recording.points):
            kinds.setdefault(point.kind, []).append(number)
        chosen = {number for kind, numbers in kinds.items()
                  for number in dice.sample(numbers, min(self.task.again * MORE.get(kind, 1), len(numbers)))}
        for number, point, disk in self.places():
            if number not in chosen:
                continue
            more = [rough.choice(ROUGH)] if rough.random() < 1 / ROUGH_SHARE else []
            for profile in ("process", *(POWER if point.kind in MORE else [dice.choice(POWER)]), *more):
                if profile == "process":
                    self.again(Crash(number, profile, 0), point, disk.copy())
                    continue
                space = self.space(disk, profile)
                few = min(len(space), MORE.get(point.kind, 1))
                chance, tries = (rough, len(space)) if profile in ROUGH else (dice, few)    # few of these are just cut
                states = [state for state in chance.sample(range(len(space)), tries) if space[state].damage == "cut"]
                for state in states[:few]:
                    crash = Crash(number, profile, state, self.task.limit, self.task.seed)
                    self.again(crash, point, Disk.of(space[state].image, Clock()))

    def again(self, crash: Crash, point: Point, disk: Disk) -> None:
        """A second life on what the first crash has left, and its end at every point."""
        if self.task.stop_at_first and self.report.violations:
            return
        second = self.second_life(point, disk)
        if second.refusal:
            return                                      # the first sweep has judged it
        self.report.second["recordings"] += 1
        self.report.second[point.kind] += 1
        limit = max(2, self.task.limit // SECOND_SHARE)
        sweep = Sweep(replace(self.task, profiles=("process", *POWER), limit=limit, again=0), second,
                      self.second_promise(point, crash, second), (crash,))
        found = sweep.run()
        self.report.second["pairs"] += found.pairs
        for (_, _, _, kind), count in found.outcomes.items():
            self.report.ends[kind] += count
        self.report.recoveries += found.recoveries
        self.report.violations += found.violations

    def second_life(self, point: Point, disk: Disk) -> Recording:
        scenario = replace(self.task.scenario, script=AGAIN, until_ms=0, faults=(), files=(),
                           directives=self.recording.directives_at(point.seq))
        return Recording(scenario, disk, self.recording.end_wall_us)

    def second_promise(self, point: Point, crash: Crash, second: Recording) -> Owed:
        """Killed, and then the power fails during the recovery: what the first life owed is owed (I7)."""
        legal = self._owed(point, promise(self.ledger, point, "ext4"), second.end_wall_us)

        def before(later: Point, profile: str) -> Promise | None:
            starting = later.seq < second.ready_seq
            return Promise("I7", states=legal) if crash.profile == "process" != profile and starting else None
        return before


def _log_of(directives: dict[str, str]) -> str:
    """What a start goes by: the directory of the log, or the dump."""
    return log_folder(directives) if directives["appendonly"] == "yes" else dump_path(directives)


def _damage(found: Found, directives: dict[str, str]) -> str:
    """The worst damage of a file that the start goes by; where a disk lies, of any."""
    if found.damage == "rot":
        return "rot"
    place = _log_of(directives)
    mine = [kind for path, kind in found.damages if path.startswith(place) and "/temp-" not in path]
    return max(mine, key=DAMAGE.index, default="cut")


# ---- from outside --------------------------------------------------------------------------------

def explore(scenarios: Scenario | Iterable[Scenario], *, profiles: Iterable[str] = PROFILES, states: int = STATES,
            again: int = 0, workers: int = 2, executor: Executor | None = None, seed: int = 0,
            stop_at_first: bool = False, shorten: bool = False,
            progress: Callable[[int, int], object] | None = None) -> Report:
    """Sweep them, one task for each, in `workers` processes (1: in this one) or by any `concurrent.futures.Executor`.

    A script that asks for more than one worker needs `if __name__ == "__main__":` (the others import it). `states`: at
    most so many of each point and profile; `again`: so many second crashes for each kind of operation
    of each scenario; `shorten`: also the report's violations; `progress` is told (done, of so many) tasks.
    """
    given = [scenarios] if isinstance(scenarios, Scenario) else list(scenarios)
    tasks = [Task(scenario, tuple(profiles), states, again, stop_at_first, seed) for scenario in given]
    report = Report()
    results: dict[int, Report] = {}
    for done, (number, found) in enumerate(_results(tasks, workers, executor), 1):
        results[number] = found
        if progress:
            progress(done, len(tasks))
    for number in sorted(results):              # whoever was ready first
        report.add(results[number])
    if shorten:
        report.shorten()
    return report


def _results(tasks: list[Task], workers: int, executor: Executor | None) -> Iterator[tuple[int, Report]]:
    if executor is None and (workers == 1 or len(tasks) == 1):
        yield from enumerate(map(run_task, tasks))
        return
    own = ProcessPoolExecutor(workers, get_context("spawn")) if executor is None else None
    with own or nullcontext():
        runner = executor or own
        assert runner
        longest_first = sorted(enumerate(tasks), key=lambda each: _weight(each[1]))
        waiting = {runner.submit(run_task, task): number for number, task in longest_first}
        for future in as_completed(waiting):
            yield waiting[future], future.result()


def _weight(task: Task) -> int:
    """The long ones first."""
    return -len(task.scenario.script) - task.scenario.end_ms // 100


def parse_id(text: str, scenario: Scenario | None = None) -> tuple[Scenario, tuple[Crash, ...]]:
    """The scenario and the crashes of an id. ValueError with a sentence."""
    known = {**SCENARIOS, **({scenario.name: scenario} if scenario else {})}
    own = scenario.name if scenario and text.startswith(scenario.name) else ""      # which may hold any character
    rest, _, places = text.removeprefix(own).partition(":")
    rest, _, mutant = rest.partition("+")
    name, _, times = rest.partition("*")
    name = own + name
    if name not in known:
        raise ValueError(f"no scenario of the library is called {name!r}; one of your own has to be given with its id: "
                         "replay(id, scenario)")
    if times and not times.isdecimal():
        raise ValueError(f"{times!r} does not say how often the script is repeated")
    crashes = []
    for place in places.split("/"):
        try:
            point, profile, rest = place.split(":")
            rest, _, seed = rest.partition("~")
            state, _, limit = rest.partition("@")
            crashes.append(Crash(int(point), profile, int(state), int(limit or STATES), int(seed or 0)))
        except ValueError:
            raise ValueError(f"{place!r} is no crash; one is point:profile:state") from None
    return replace(known[name].repeated(int(times or 1)), mutant=mutant), tuple(crashes)


def replay(id: str, scenario: Scenario | None = None) -> str:
    """One crash again, told in full: the script, what had been done, the disk that was found, and the verdict.

    An id has no more than the scenario's name: one that is not in the library has to be given.
    """
    return retell(*parse_id(id, scenario))


def retell(scenario: Scenario, crashes: tuple[Crash, ...]) -> str:
    """See `replay`; of any scenario."""
    with broken(scenario.mutant):
        sweep = Sweep(Task(scenario, limit=crashes[0].limit, seed=crashes[0].seed))
        lines = [str(scenario), ""]
        for life, crash in enumerate(crashes):
            if not 0 <= crash.point < len(sweep.recording.points):
                raise ValueError(f"the recording has points 0 to {len(sweep.recording.points) - 1}, not {crash.point}")
            number, point, disk = next(place for place in sweep.places() if place[0] == crash.point)
            sweep.task = replace(sweep.task, limit=crash.limit, seed=crash.seed)
            states, total = sweep.states(disk, crash.profile, point)
            if not 0 <= crash.state < len(states):          # ValueError of Space, where the profile is none
                raise ValueError(f"there are states 0 to {len(states) - 1} of {total}, not {crash.state}")
            found = states[crash.state]
            lines += _told(sweep, point, disk, crash, found)
            if life == len(crashes) - 1:
                verdict = sweep.verdict(point, crash.profile, found)
                outcome = sweep.outcome(found.image, sweep.recording.directives_at(point.seq))
                lines += ["", f"the start: {outcome.refusal or outcome.crash or f'{len(outcome.state or ())} keys'}",
                          f"verdict: {verdict.kind} {verdict.invariant} {verdict.text}".rstrip()]
            else:
                left = disk.copy() if crash.profile in KILLS else Disk.of(found.image, Clock())
                second = sweep.second_life(point, left)
                before = sweep.second_promise(point, crash, second)
                sweep = Sweep(replace(sweep.task, scenario=second.scenario), second, before, (*sweep.first, crash))
                lines += ["", "The computer is switched on again."]
    return "\n".join(lines)


def _told(sweep: Sweep, point: Point, disk: Disk, crash: Crash, found: Found) -> Iterator[str]:
    """What had happened before the plug was pulled, the last ten events of it, and what was left."""
    yield f"{point.time_us / 1e6:.6f} s: {point.done} units executed, {point.told} told, the last of what was done:"
    recording = sweep.recording
    told = [telling for telling in recording.tellings if telling.seq <= point.seq]
    events: list[Any] = sorted([*recording.operations[:point.at], *told], key=lambda event: event.seq)
    for event in events[-10:]:
        what = f"a client learns of unit {event.units}" if hasattr(event, "units") else repr(event)
        yield f"  {event.time_us / 1e6:10.6f} s  {what}"
    how = "kill -9" if crash.profile in KILLS else sweep.space(disk, crash.profile).describe(crash.state)
    yield f"the plug is pulled ({crash.profile}, state {crash.state}: {how}); left is ({found.damage}):"
    for path, content in found.image:
        yield f"  {path}" + ("/" if content is None else f"  {len(content):,} bytes")


def shrink(violation: Violation) -> Scenario:
    """The shortest script that still breaks the same promise under the same kind of crash."""
    profiles = (violation.crashes[0].profile,)
    tries = 0

    def still(script: list[Step]) -> bool:
        nonlocal tries
        tries += 1
        task = Task(replace(violation.scenario, script=tuple(script)), profiles, violation.crashes[0].limit,
                    3 if violation.crashes[1:] else 0, stop_at_first=True)
        return tries <= SHRINK_TRIES and any(found.verdict.invariant == violation.verdict.invariant
                                             for found in run_task(task).violations)
    return replace(violation.scenario, script=tuple(least(violation.scenario.script, still)))


def least(items: Sequence[Item], still: Callable[[list[Item]], bool]) -> list[Item]:
    """Items without which it is `still` so no more: drops half of them, a quarter ... one."""
    left = list(items)
    size = len(left) // 2 or 1
    while size:
        at = 0
        while at < len(left):
            fewer = left[:at] + left[at + size:]
            if still(fewer):
                left = fewer
            else:
                at += size
        size //= 2
    return left
