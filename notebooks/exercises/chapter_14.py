"""Chapter 14, the capstone: an unlucky seed, work that is done once, a bug that no kill finds, and a brief of one's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from kvref.lab.briefs import BOARD, POWER, QUEUE, Brief
from kvref.lab.capstone import DEARER, Clause, Trial, Unclear, read_guarantee
from kvref.lab.judging import Wrong, bounded, exercise
from kvref.sim import ReplyError, World
from kvref.sim.mutants import MUTANTS, Mutant, broken

# ---- 1 -------------------------------------------------------------------------------------------

EVERYSEC = {"appendonly": "yes", "appendfsync": "everysec", "messaging": "pubsub"}


@exercise("14-1", "Section 8 has the loop. What would it find under other seeds?",
          "About one seed in twenty breaks it. To find one: a loop over Trial(BRIEFS['board'], design, seed).worst(clause).value.",
          "Try the seeds from 201 to 299 in a loop, and return the first whose worst value is more than 1.")
def unlucky(solution: Any) -> None:
    """Against: what was not found in one sample is not there."""
    seed = solution() if callable(solution) else solution
    if type(seed) is not int or not 200 < seed < 10**6:
        raise Wrong(f"A seed from 201 to 999,999, please. It was {seed!r:.60}.")
    found = Trial(BOARD, EVERYSEC, seed).worst(Clause("lost_seconds", "<=", 1, POWER))
    if found.value <= 1:
        raise Wrong(f"Under seed {seed} the oldest lost score is {found.value:.3f} s old. The promise holds there.")


# ---- 2 -------------------------------------------------------------------------------------------

class Died(Exception):
    """The worker is dead."""


def attempt(world: World, do: Any, last: int, executed: bool) -> int:
    """Let a new worker do job 7, and die at its command number `last`, before or after the server has executed it; 0: at none.

    Returns how many commands it has sent."""
    caller, count = world.connect("worker"), 0

    def client(*words: Any) -> Any:
        nonlocal count
        count += 1
        if count == last and not executed:
            raise Died
        reply = caller(*words)
        if count == last:
            raise Died
        return reply
    try:
        with bounded("job 7"):
            do(client, "7", 30)
    except Died:
        pass
    except ReplyError as error:
        raise Wrong(f"Redis answered: {error}") from None
    finally:
        caller.reset()
        world.settle()
    return count


def seen(world: World) -> tuple[int, int]:
    """(the balance, how often job 7 is in `doing`)."""
    eye = world.connect("eye")
    return int(eye("GET", "balance") or 0), eye("LRANGE", "doing", 0, -1).count(b"7")


@exercise("14-2", "The work is INCRBY balance. A job may come again: how do you know that it was done? And what must never be torn apart?",
          "A set `done` with the numbers of finished jobs. MULTI and EXEC: the work and the note of it happen together, or not at all.",
          'if not client("SISMEMBER", "done", job): MULTI, SADD done, INCRBY balance, EXEC. In any case, at the end: LREM doing 1 job.')
def once(solution: Any) -> None:
    """Against: at least once means that the work is done twice."""
    if not callable(solution):
        raise Wrong(f"A function is wanted. It was {solution!r:.60}.")
    commands, last = 1, 0
    while last <= commands:
        for executed in (False, True):
            world = World(seed=1)
            world.start()
            world.connect("office")("RPUSH", "doing", "6", "7", "8")
            when = f"The worker died {'behind' if executed else 'before'} its command number {last}, and another did the job: "
            commands = max(commands, attempt(world, solution, last, executed))
            if last == 0:
                when = "No worker died: "
            else:
                attempt(world, solution, 0, False)
            balance, waiting = seen(world)
            if balance != 30:
                raise Wrong(f"{when}the balance is {balance}. It should be 30.")
            if waiting:
                raise Wrong(f"{when}job 7 is still in `doing`.")
            attempt(world, solution, 0, False)
            if seen(world)[0] != 30:
                raise Wrong(f"The job came again after it was done, and the balance is {seen(world)[0]}. It should stay at 30.")
        last += 1
        if last > 30:
            raise Wrong("More than thirty commands for one job are too many.")


# ---- 3 -------------------------------------------------------------------------------------------

OWN = "yours"
SAFE = {"appendonly": "yes", "appendfsync": "always", "messaging": "list with acknowledgement"}
TALK = ("RPUSH jobs 1 2 3", "BLMOVE jobs doing LEFT RIGHT 0", "MULTI", "RPUSH results 1", "LREM doing 1 1", "EXEC", "INCR n", "SAVE",
        "SET k v PX 50", "GET k", "BGREWRITEAOF", "INCR n", "LRANGE jobs 0 -1", "DBSIZE")


@contextmanager
def registered(bug: Callable[..., None]) -> Iterator[None]:
    MUTANTS[OWN] = Mutant(OWN, "", "I1", "ext4", "always", "", bug)
    try:
        yield
    finally:
        del MUTANTS[OWN]


def heard(name: str) -> bytes:
    """All that a client hears of a conversation."""
    with broken(name):
        world = World(seed=1)
        world.start(appendonly="yes", appendfsync="always", save="1 1")
        alice = world.connect("alice")
        for line in TALK:
            alice.send(*line.split())
            world.run(ms=60)
        world.run(ms=1500)
        return bytes(alice.received)


@exercise("14-3", "kill -9 leaves the page cache, a power loss does not. What does the server do only for the second?",
          "Under always every flush ends with AppendOnlyFile.fsync. patch(AppendOnlyFile, 'fsync', my_fsync) puts yours in its place. "
          "Call the old one often enough that everybody believes it.",
          "fsync, count = AppendOnlyFile.fsync, [0]. Every second call does fsync(self); the other says only self._has_synced(self.size, self._written).")
def bug_for_a_power_loss(solution: Any) -> None:
    """Against: a test that kills the process tests durability."""
    if not callable(solution):
        raise Wrong(f"A function that is given patch is wanted. It was {solution!r:.60}.")
    made: list[tuple[Any, str]] = []
    solution(lambda owner, attribute, replacement: made.append((owner, attribute)))        # the stub raises here
    if not made or not all(hasattr(owner, attribute) for owner, attribute in made):
        raise Wrong("Your function has not called patch, or with a name that its owner does not have.")
    with registered(solution):
        if heard(OWN) != heard(""):
            raise Wrong("A client can tell: in a conversation your server says something else.")
        trial = Trial(QUEUE, SAFE, 1, OWN)
        killed, cut = (trial.worst(Clause("lost_jobs", "==", 0, crash)) for crash in ("kill", POWER))
    if killed.value:
        raise Wrong(f"kill -9 finds it, too: {killed.value:.0f} orders are lost. This bug should need a power loss.")
    if not cut.value:
        raise Wrong("No power loss of the schedule takes an order. The verdict is still true.")


# ---- 4 -------------------------------------------------------------------------------------------

SEEDS = (1, 2, 3)


@exercise("14-4", "Begin with the story: who is hurt by what? Each sentence that asks for something becomes a clause of `needs`.",
          "A menu needs one design that keeps all, one that is too weak for each need, and one that is dearer. The measures that every brief "
          "knows are enough: lost_writes, lost_seconds, refused_writes, memory_kb.",
          "Look at `likes` in section 1. A second need could be memory_kb <= 20, or refused_writes == 0, which a small maxmemory breaks.")
def own_brief(solution: Any) -> None:
    """Against: the safest setting is the right one for everybody."""
    brief = solution() if callable(solution) else solution
    if not isinstance(brief, Brief):
        raise Wrong(f"Return a Brief. It was {brief!r:.60}.")
    if len(str(brief.story).split()) < 25:
        raise Wrong("The story is short. 25 words at least: who is the customer, and what would hurt?")
    script = brief.script({name: options[0] if options else "0" for name, options in brief.choices.items()})
    if not 20 <= len(script) <= 400 or max(step.at_ms for step in script) > 10_000:
        raise Wrong(f"{len(script)} steps. From 20 to 400, in ten seconds, please.")
    if not 3 <= len(brief.menu) <= 8 or not 2 <= len(brief.needs) <= 5:
        raise Wrong(f"{len(brief.needs)} needs and {len(brief.menu)} designs on the menu. 2 to 5 needs, please, and 3 to 8 designs.")
    try:
        needs = [clause for need in brief.needs for clause in read_guarantee(need, brief)]
        trials = {seed: [Trial(brief, design, seed) for design in brief.menu] for seed in SEEDS}
    except Unclear as unclear:
        raise Wrong(str(unclear)) from None
    if len(needs) != len(brief.needs) or not any(need.crash for need in needs):
        raise Wrong("One clause for each need, and at least one of them under a crash.")
    for seed, tried in trials.items():
        good = [trial for trial in tried if trial.keeps(needs)]
        if not good:
            raise Wrong(f"Seed {seed}: no design on the menu keeps all needs. Then nobody can help this customer.")
        for need in needs:
            if all(need.holds(trial.worst(need).value) for trial in tried):
                raise Wrong(f"Seed {seed}: every design on the menu keeps {need}. A promise that nobody breaks says nothing.")
        if max(trial.coins for trial in good) <= DEARER * min(trial.coins for trial in good):
            raise Wrong(f"Seed {seed}: no design on the menu is true but dearer than needed.")
