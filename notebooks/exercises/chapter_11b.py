"""Chapter 11b, find the bugs: four traces, a scenario for a bug, a bug with a story, and a log that moves house."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from kvref.lab.judging import Wrong, exercise
from kvref.persistence.cursor import Unreadable
from kvref.persistence.replay import records
from kvref.sim import World
from kvref.sim.explorer import Report, explore, retell
from kvref.sim.faults import Fault
from kvref.sim.mutants import MUTANTS, Mutant, broken
from kvref.sim.scenarios import ALWAYS, Scenario, at

# ---- 1 -------------------------------------------------------------------------------------------

FOUR = {"P": "fsync-before-flush", "Q": "written-in-place", "R": "rename-not-durable", "S": "rename-before-fsync"}


@exercise("11b-1", "Right is: create, write, fsync, rename, fsync_dir. What is each of the four lacking, or doing too early?",
          "One has no rename, one has a write too many behind its fsync, one has an fsync behind its rename. And one lacks its last step.",
          "The one that opens the file itself is Q. The last step of R would be fsync_dir.")
def names(solution: Any) -> None:
    """Against: a snapshot that can be read was saved rightly."""
    found = solution()
    if not isinstance(found, dict) or set(found) != set(FOUR):
        raise Wrong(f"Return a dict with a name for each of P, Q, R, S. It was {found!r:.80}.")
    for letter, name in found.items():
        if name not in FOUR.values():
            raise Wrong(f"{letter}: {name!r:.60} is none of {', '.join(sorted(FOUR.values()))}.")
    right = sum(found[letter] == name for letter, name in FOUR.items())
    if right < len(FOUR):
        raise Wrong(f"{right} of 4 are right.")


# ---- 2 -------------------------------------------------------------------------------------------

def as_scenario(found: Any, steps: int) -> Scenario:
    """What was returned, if it can be swept in a moment."""
    if not isinstance(found, Scenario):
        raise Wrong(f"A Scenario is wanted. It was {found!r:.80}.")
    if not found.script:
        raise Wrong("In this scenario nobody says anything.")
    if len(found.script) > steps or found.end_ms > 10_000:
        raise Wrong(f"{len(found.script)} steps in {found.end_ms / 1000:.1f} s. {steps} steps in ten seconds have to do.")
    if found.mutant or found.files:
        raise Wrong("A scenario without a mutant, on an empty disk, please: the judge puts the bug in.")
    return found


def swept(scenario: Scenario, profiles: tuple[str, ...]) -> Report:
    return explore(scenario, profiles=profiles, states=8, workers=1, stop_at_first=True)


def passes(scenario: Scenario, profiles: tuple[str, ...]) -> None:
    if violations := swept(scenario, profiles).violations:
        raise Wrong(f"The explorer complains of the unbroken server, too: {violations[0].verdict.text}. Such a scenario is no evidence.")


@exercise("11b-2", "The deletion of an expired key is not logged. Replaying the log, the key would be there still, if nothing else took it away ...",
          "A deadline that was logged is over after a restart, too. So the same name must be used again, by a command that *adds* to what is there.",
          "SET k 1 PX 100; after 200 ms or more APPEND k x: a new key, without a deadline. Whoever replays it appends to the old one, which has one.")
def killer(solution: Any) -> None:
    """Against: what no scenario has shown is no bug."""
    scenario = as_scenario(solution(), 5)
    passes(scenario, ("process", "ext4"))
    report = swept(replace(scenario, mutant="expiry-not-logged"), ("process", "ext4"))
    if not report.violations:
        raise Wrong(f"At none of {report.points} points does the server with the bug break a promise.")


# ---- 3 -------------------------------------------------------------------------------------------

TALK = ("SET name ann", "INCR n", "INCRBYFLOAT f 0.5", "RPUSH jobs a b c", "LPOP jobs", "HSET hash f 1", "SADD set 1 2 3", "ZADD z 1 a 2 b", "APPEND name a",
        "LPOP name", "EXPIRE n 100", "PERSIST n", "SET short 1 PX 50", "MULTI", "DECR n", "LPUSH jobs z", "EXEC", "GETSET name bob", "SAVE", "GET short",
        "DEL f", "BGREWRITEAOF", "SELECT 3", "SET a 3", "MOVE a 0", "DBSIZE", "FLUSHDB", "SELECT 0", "DBSIZE", "GET name")
POLICIES = ("always", "everysec")
OWN = "yours"


@contextmanager
def registered(bug: Callable[..., None], scenario: Scenario) -> Iterator[None]:
    MUTANTS[OWN] = Mutant(OWN, "", "I1", "ext4", scenario.name, "", bug)
    try:
        yield
    finally:
        del MUTANTS[OWN]


def heard(name: str, policy: str) -> bytes:
    """All that a client hears of a conversation, on a server with everything switched on."""
    with broken(name):
        world = World(seed=1)
        world.start(appendonly="yes", appendfsync=policy, save="1 1")
        alice = world.connect("alice")
        for line in TALK:
            alice.send(*line.split())
            world.run(ms=60)
        world.run(ms=2500)
        alice.send("PING")
        world.run(ms=100)
        return bytes(alice.received)


@exercise("11b-3", "Take one step of the order log, fsync, reply, or of create, write, fsync, rename, fsync_dir; leave it out, or do it later. What does nobody notice?",
          "patch(owner, attribute, replacement): the owner is a class or a module, as in patch(AppendOnlyFile, 'fsync', my_fsync). Call the old one where it still is of use. "
          "inspect.getsource(MUTANTS['fsync-in-background'].patch) shows one.",
          "For example: under always, fsync only every other time. In my_bug: fsync, count = AppendOnlyFile.fsync, [0]; def other(self): count[0] += 1; count[0] % 2 and fsync(self). "
          "The scenario: some writes, one after another.")
def own_mutant(solution: Any) -> None:
    """Against: clients notice when a server loses its durability."""
    if not isinstance(solution, tuple) or len(solution) != 2 or not callable(solution[0]) or not isinstance(solution[1], Scenario):
        raise Wrong("There should be two things: (my_bug, my_scenario), a function and a Scenario.")
    bug, scenario = solution[0], as_scenario(solution[1], 60)
    if any(bug is known.patch for known in MUTANTS.values()):
        raise Wrong(f"{bug.__name__} stands in the library. One of your own, please.")
    made: list[tuple[Any, str]] = []

    def look(owner: Any, attribute: str, replacement: Any) -> None:
        made.append((owner, attribute))
    bug(look)                                               # the stub raises here; nothing is changed
    if not made:
        raise Wrong("Your function has not called patch.")
    for owner, attribute in made:
        if not hasattr(owner, attribute):
            raise Wrong(f"{getattr(owner, '__name__', owner)!s:.60} has no {attribute}: nobody would call yours.")
    story = " ".join((inspect.getdoc(bug) or "").split())
    if len(re.findall(r"[.?!](?= |$)", story)) < 2:
        raise Wrong("The story is missing: a docstring of two sentences or more. Who would write that bug, and why does nobody notice?")
    passes(scenario, ("process", "ext4", "posix"))
    with registered(bug, scenario):
        for policy in POLICIES:
            right, mine = heard("", policy), heard(OWN, policy)
            if right != mine:
                at_byte = next((n for n, (one, other) in enumerate(zip(right, mine)) if one != other), min(len(right), len(mine)))
                raise Wrong(f"A client can tell, under {policy}: after {at_byte} bytes of a conversation your server says {mine[at_byte:at_byte + 30]!r}, "
                            f"the unbroken one {right[at_byte:at_byte + 30]!r}.")
        report = swept(replace(scenario, mutant=OWN), ("process", "ext4", "posix"))
    if not report.violations:
        raise Wrong(f"It survives: {report.pairs} pairs, and no promise is broken. Is there something that your scenario does not do, or is it harmless?")


# ---- 4 -------------------------------------------------------------------------------------------

OLD, NEW = "/data/appendonly.aof", "/data/appendonlydir/appendonly.aof"
MANIFEST = "appendonly.aof.manifest"


def old_log(size: int) -> bytes:
    return records([(b"SELECT", b"0"), (b"SET", b"a", b"x" * size), (b"INCR", b"n"), (b"INCR", b"n")])


def on_old_disk(size: int) -> World:
    world = World(seed=1)
    disk = world.disk.instantly()
    file = disk.open(OLD, "w")
    disk.write(file, old_log(size))
    disk.fsync(file)
    disk.fsync_dir("/data")
    return world


def holds(world: World, size: int, when: str) -> None:
    try:
        world.start(**{name.replace("-", "_"): value for name, value in ALWAYS.items()})
    except (Unreadable, OSError) as error:
        raise Wrong(f"{when}: the server does not start. {error}") from None
    alice = world.connect("alice")
    if (alice("STRLEN", "a"), alice("GET", "n")) != (size, b"2"):
        raise Wrong(f"{when}: of {size} bytes under `a` there are {alice('STRLEN', 'a')}, and n is {alice('GET', 'n')!r:.20}, not 2.")


@exercise("11b-4", "A rename from one directory to another has two halves, and POSIX may keep either one. Renames within one directory are atomic. So what goes first?",
          "Copy. The old file is removed when, and only when, the new one's bytes, its name and the manifest are durable. A half copy must not have the final name: "
          "the next start would take it.",
          "Directory, manifest; read the old file, write to self.path('temp-' + name), fsync, close; rename it to self.path(name); fsync_dir(self.directory); unlink the old one; "
          "fsync_dir(self.server.config.dir). What a crash has left of a temporary file is in the way of nobody, if you open it with 'w'.")
def adopt(solution: Any) -> None:
    """Against: a rename is atomic from one directory to another, too."""
    if not inspect.isfunction(solution):
        raise Wrong("The function itself is wanted: adopt(self, manifest).")
    if len(inspect.signature(solution).parameters) != 2:
        raise Wrong("It should take two arguments: self and manifest.")
    with patch("kvref.persistence.manifest.Folder.adopt", solution):
        for size in (10, 9000):
            world = on_old_disk(size)
            try:
                holds(world, size, "Without any crash")
            except Wrong:
                if MANIFEST not in world.disk.list("/data/appendonlydir" if "appendonlydir" in world.disk.list("/data") else "/data"):
                    raise Wrong("Without any crash: there is no manifest after the start, and so the new place counts for nothing. Who calls self._commit?") from None
                raise
            if "appendonly.aof" in world.disk.list("/data"):
                raise Wrong("The old file is still there, after a start without any crash.")
            if "appendonlydir" not in world.disk.list("/data") or "appendonly.aof" not in world.disk.list("/data/appendonlydir"):
                raise Wrong(f"Nothing stands at {NEW} after a start without any crash.")
            world.kill()
            holds(world, size, "At the second start")
            world.power_loss()
            holds(world, size, "After a power loss that keeps only what is synced")
        _explored()
        _full_disk()


def _explored() -> None:
    """Every operation, every legal state."""
    for size in (10, 9000):
        files = (("/data", None), (OLD, old_log(size)))
        scenario = Scenario("old-log", ALWAYS, at(50, "ann", "INCR n"), files=files)
        report = explore(scenario, profiles=("process", "ext4", "posix"), states=64, again=2, workers=1, stop_at_first=True)
        if report.violations:
            crashes = report.violations[0].crashes
            told = retell(scenario, crashes).splitlines()
            plug = next((number for number, line in enumerate(told) if line.startswith("the plug is pulled")), 0)
            raise Wrong(f"The explorer has found a broken promise, at point {crashes[0].point}, {crashes[0].profile}: {report.violations[0].verdict.text:.150}.\n"
                        + "\n".join(line[:160] for line in told[max(0, plug - 4):plug + 6]))


def _full_disk() -> None:
    """A write fails: the server does not start, or has all; with room again, it starts and has all."""
    for kind, error in (("write", "ENOSPC"), ("fsync", "EIO")):
        for after in range(4):
            world = on_old_disk(9000)
            world.disk.faults.append(Fault(kind, "*", error=error, short=100 if kind == "write" else 0, after=after))
            when = f"{kind} number {after + 1} fails with {error}"
            try:
                world.start(**{name.replace("-", "_"): value for name, value in ALWAYS.items()})
            except (Unreadable, OSError):
                pass
            world.disk.faults.clear()
            if kind == "fsync":
                world.power_loss()
            elif world.server:
                world.kill()
            holds(world, 9000, f"{when}; then all is well again, and a start")
