"""Chapter 11a, the crash laboratory: directives for a bound, a scenario with a prediction, an invariant, and an everysec of one's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from random import Random
from typing import Any
from unittest.mock import patch

from kvref.config import Config, ConfigError
from kvref.lab.judging import Wrong, exercise
from kvref.persistence.aof import AppendOnlyFile
from kvref.sim import World
from kvref.sim.explorer import explore
from kvref.sim.loss import losses, throughput
from kvref.sim.recording import Recording
from kvref.sim.scenarios import EVERYSEC, OFF, Scenario, every

Command = list[bytes]


# ---- 1 -------------------------------------------------------------------------------------------

BEARABLE, HALF = 100, 0.5


def as_directives(found: Any) -> Mapping[str, str]:
    """What was returned, if a server takes it."""
    if not isinstance(found, Mapping) or not all(isinstance(word, str) for pair in found.items() for word in pair):
        raise Wrong(f"Return a dict of strings, such as {{'save': '', 'appendonly': 'no'}}. It was {found!r:.100}.")
    words = {name.replace("_", "-"): value for name, value in found.items()}
    if strange := set(words) - {"save", "appendonly", "appendfsync"}:
        raise Wrong(f"save, appendonly and appendfsync are enough; {sorted(strange)[0]} is more.")
    try:
        Config.load(directives=list(words.items()))
    except ConfigError as error:
        raise Wrong(f"A server does not take that: {error}") from None
    return words


@exercise("11a-1", "The page to print has a column for the loss, and one for the throughput. 50 writes a second: how many seconds are 100?",
          "Without a log at most two seconds may lie between two snapshots. With one, a policy that syncs often enough and does not wait for it.",
          "{'save': '', 'appendonly': 'yes', 'appendfsync': 'everysec'}")
def bearable(solution: Any) -> None:
    """Against: who wants to bound the loss must pay for each write."""
    words = as_directives(solution())
    words = {"save": "", "appendonly": "no", **words}
    sweep = losses(words, rate=50, seconds=5, step_ms=100)
    if sweep.worst > BEARABLE:
        at = next(loss for loss in sweep.losses if loss.lost > BEARABLE)
        raise Wrong(f"The plug was pulled after {at.at_ms / 1000:.1f} s, and {at.lost} acknowledged writes were gone. {BEARABLE} may be.")
    share = throughput(words, ms=20) / throughput(OFF, ms=20)
    if share < HALF:
        raise Wrong(f"The loss is small enough, at worst {sweep.worst} writes. But only {share:.0%} of the speed is left.")


# ---- 2 -------------------------------------------------------------------------------------------

@exercise("11a-2", "Scenario('mine', EVERYSEC, every(100, 'ann', 'INCR n', until_ms=900)) is a scenario. When is its first fsync?",
          "The last instant at which nothing is durable is the worst. Under everysec the log is synced a second after the start, if something is in it; a Scenario "
          "runs 300 ms longer than its script.",
          "The nine writes of that one are all acknowledged before anything is durable: return it with 9.")
def my_scenario(solution: Any) -> None:
    """Against: one crash, tried by hand, shows the worst."""
    found = solution()
    if not (isinstance(found, tuple) and len(found) == 2 and isinstance(found[0], Scenario) and type(found[1]) is int):
        raise Wrong(f"Return a pair: a Scenario and a number. It was {found!r:.100}.")
    scenario, predicted = found
    if scenario.mutant or scenario.files or scenario.faults:
        raise Wrong("The unbroken server, on an empty disk that works, please.")
    if len(scenario.script) > 300 or scenario.end_ms > 20_000:
        raise Wrong("That is a long one. Twenty seconds and 300 steps are enough.")
    if len(Recording(scenario).units) <= 5:                 # the first is the empty start
        raise Wrong("Five writes at least. Another command than a write does not count, nor one that changes nothing; an EXEC is one.")
    report = explore(scenario, profiles=("ext4",), states=8, workers=1)
    worst, age_us = report.worst.get((scenario.name, "ext4"), (0, 0))
    if not worst:
        raise Wrong(f"A power loss takes nothing from it, at any of its {report.points} points.")
    if worst != predicted:
        raise Wrong(f"You predict {predicted}, and the worst of {report.pairs} crashes takes {worst}; the oldest was {age_us / 1e6:.2f} s old.")


# ---- 3 -------------------------------------------------------------------------------------------

def states(commands: list[Command]) -> Iterator[dict[bytes, bytes]]:
    """The keyspace after 0, 1, 2 ... commands, of the real server."""
    world = World(seed=1)
    world.start()
    alice = world.connect("alice")
    yield {}
    for command in commands:
        alice(*command)
        yield {key: alice("GET", key) for key in alice("KEYS", "*")}


def history(random: Random, length: int) -> list[Command]:
    commands = list[Command]()
    for number in range(length):
        kind = random.choice((b"SET", b"INCR", b"INCR", b"APPEND", b"DEL"))
        key = random.choice((b"n", b"m") if kind == b"INCR" else (b"a", b"b", b"n") if kind == b"DEL" else (b"a", b"b"))
        commands.append([kind, key, *([b"%d" % number] if kind in (b"SET", b"APPEND") else [])])
    return commands


@exercise("11a-3", "Execute the commands one by one, on a dict, and compare it with found after each; and once before the first.",
          "INCR of a key that is not there begins at 0, and its value is bytes: b'%d'. APPEND to nothing is SET. DEL of nothing is nothing.",
          "state, right = {}, []; for n in range(len(commands) + 1): if state == found: right.append(n); then execute commands[n], if there is one.")
def prefixes(solution: Any) -> None:
    """Against: where every key looks right, the state is right."""
    def words(line: str) -> list[Command]:
        return [command.encode().split() for command in line.split("; ") if command]
    random = Random(11)
    logs = [words(line) for line in ("", "SET a 1", "INCR n; INCR n; INCR n", "SET a 1; SET a 2; SET a 1", "SET a 1; DEL a; SET a 1",
                                     "APPEND a x; APPEND a y", "DEL a; DEL a", "INCR n; DEL n; INCR n")]
    logs += [history(random, 30) for _ in range(6)]
    for log in logs:
        behind = list(states(log))
        cases = [*behind, {**behind[-1], b"extra": b"1"}]
        cases += [{key: value for key, value in behind[-1].items() if key != missing} for missing in behind[-1]]    # one key is gone
        cases += [{**behind[-1], key: b"\x00" * len(value)} for key, value in behind[-1].items()]                   # a hole in it
        for found in cases:
            wants = [number for number, state in enumerate(behind) if state == found]
            mine = solution([list(command) for command in log], dict(found))
            if mine != wants:
                said = "; ".join(b" ".join(command).decode() for command in log)
                said = said if len(said) < 120 else f"{len(log)} commands"
                raise Wrong(f"Commands: {said or 'none'}. Found: {found!r:.150}. It is the state after {wants}; your answer was {mine!r:.60}.")


# ---- 4 -------------------------------------------------------------------------------------------

FSYNCS = (4, 6)             # a second


def fsyncs(world: World, ms: float) -> int:
    before = len(world.disk.operations)
    world.run(ms=ms)
    return sum(done.kind == "fsync" and done.path.endswith(".incr.aof") for done in world.disk.operations[before:])


@exercise("11a-4", "flush compares self.server.now_us - self._last_sync_us with SECOND_US, and it is called in every turn: at least ten times a second.",
          "In a flush of your own: write first, by super().flush(force). Then, under everysec, if no self.job runs and not all is synced, and 200 ms have passed: "
          "begin a job, as flush does.",
          "Simpler: make super() believe that a second is over. In flush, if now_us - self._last_sync_us >= 199_000 and the policy is everysec: "
          "self._last_sync_us = self.server.now_us - 1_000_000; then super().flush(force), which sets it anew.")
def five_times_a_second(solution: Any) -> None:
    """Against: to sync more often is to wait more often."""
    cls = solution() if not isinstance(solution, type) else solution
    if not (isinstance(cls, type) and issubclass(cls, AppendOnlyFile)):
        raise Wrong("Return the class itself, a subclass of AppendOnlyFile.")
    with patch("kvref.server.AppendOnlyFile", cls):
        sweep = losses(EVERYSEC, rate=50, seconds=3, step_ms=50)
        if sweep.worst_s > 0.31:
            raise Wrong(f"A write of {sweep.worst_s:.2f} s before the plug was pulled is lost. After 200 ms, and 100 to notice, it should be durable.")
        world = World(seed=1)
        world.start(appendonly="yes", appendfsync="everysec")
        alice = world.connect("alice")
        for _ in range(20):
            alice.send("INCR", "n")
            world.run(ms=100)
        count = 0
        for _ in range(20):
            alice.send("INCR", "n")
            count += fsyncs(world, 100)
        if not 2 * FSYNCS[0] <= count <= 2 * FSYNCS[1]:
            raise Wrong(f"A write every 100 ms for two seconds, and {count} fsyncs. Ten is five times a second.")
        world.run(ms=1_000)
        if idle := fsyncs(world, 3_000):
            raise Wrong(f"Nobody wrote for three seconds, and there were {idle} fsyncs. There was nothing to sync.")
        begun_us = world.clock.monotonic_us()
        alice("INCR", "n")
        if world.clock.monotonic_us() - begun_us > 500:
            raise Wrong("Alice has waited for an fsync. Under everysec it runs in the background.")
        alice("CONFIG", "SET", "appendfsync", "no")
        world.run(ms=1_000)
        for _ in range(5):
            alice("INCR", "n")
            world.run(ms=150)
        if fsyncs(world, 1_000):
            raise Wrong("CONFIG SET appendfsync no, and it still syncs.")
        scenario = Scenario("five-times", EVERYSEC, every(90, "ann", "INCR n", until_ms=900))
        report = explore(scenario, profiles=("process", "ext4"), states=8, workers=1)
        if report.violations:
            raise Wrong(f"The explorer has found a broken promise: {report.violations[0].verdict.invariant}, {report.violations[0].verdict.text}.")
