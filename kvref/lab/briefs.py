"""Three customers of the capstone: what each wants, what its clients do, and how it is measured whether they got it.

    print(BRIEFS["queue"].story)

Interface:
  - Brief           a customer, as data: story, needs, choices, the script of its clients, its own measures, a menu
  - BRIEFS          cache, queue, board
  - Run, Moment     what a measure is given: a recorded run of a design; one crash of it, and what a start found
  - Measure         what a word of a guarantee means; GENERAL: those that every brief knows

A brief is played in virtual time by the crash laboratory's Recording: clients of a fixed script, which the choice of
`messaging` shapes. The hit rate of the cache comes from `kvref.lab.caches`: what is asked there depends on replies.

Simpler than life: one server, clients whose programs have no bugs, work that always takes the same time; what a worker
has finished counts when it stands in the list `results`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, NamedTuple

from kvref.lab import caches
from kvref.resp import Error
from kvref.sim.recording import Point, Recording, State
from kvref.sim.scenarios import Scenario, Script, at, every

KILL, POWER, WORKER = "kill", 'power_loss("ext4")', "worker_crash"
LIST, ACK, TWO_STEPS, PUBSUB = ("list", "list with acknowledgement", "list with acknowledgement in two steps", "pubsub")
KB: Final = 1024
Directives = Mapping[str, str]


class Moment(NamedTuple):
    """One crash, and what a start has found."""

    id: str                         # for kvref.sim.explorer.replay
    crash: str                      # "kill", "worker_crash" or 'power_loss("ext4")'
    point: Point
    now_us: int
    state: State
    unit: int                       # the state is that behind this unit


@dataclass
class Run:
    """A design of a brief, played once."""

    brief: Brief
    directives: Directives
    choices: Mapping[str, Any]
    seed: int
    recording: Recording

    def ms(self, now_us: int) -> float:
        """An instant in the time of the script."""
        return (now_us - self.recording.units[0].time_us) / 1000

    def heard(self, *names: str) -> bytes:
        """All bytes that these clients have received."""
        callers = self.recording.callers
        return b"".join(bytes(callers[name].received) for name in names if name in callers)

    def replies(self, name: str) -> list[Any]:
        return list(self.recording.callers[name].replies)


class Measure(NamedTuple):
    """What a word of a guarantee means. `of` gets (Run, Moment) where it is asked `under` a crash, else (Run)."""

    about: str
    under: bool
    of: Callable[..., float | set[int]]         # things by their numbers are counted


# ---- measures of every brief ---------------------------------------------------------------------

def lost(run: Run, moment: Moment) -> list[int]:
    """Units that had been acknowledged, and are not left."""
    return [unit for unit in run.recording.acknowledged(moment.point) if unit > moment.unit]


def lost_seconds(run: Run, moment: Moment) -> float:
    """The age of the oldest lost write."""
    gone = lost(run, moment)
    return (moment.now_us - run.recording.units[gone[0]].time_us) / 1e6 if gone else 0.0


def answered(run: Run, moment: Moment, name: str) -> set[int]:
    """The commands of a client, numbered from 1, for which it has had an answer that is no error."""
    far = run.recording.callers[name].far
    told = sum(telling.client == far and telling.seq <= moment.point.seq for telling in run.recording.tellings)
    return {number for number, reply in enumerate(run.replies(name)[:told], 1) if not isinstance(reply, Error)}


def refused_writes(run: Run) -> int:
    """Errors, whoever got them."""
    return sum(isinstance(reply, Error) for name in run.recording.callers for reply in run.replies(name))


def memory_kb(run: Run) -> float:
    """What INFO said to the client "eye", at most."""
    return max([int(used) for used in re.findall(rb"used_memory:(\d+)", run.heard("eye"))], default=0) / KB


GENERAL: Final = {
    "lost_writes": Measure("acknowledged writes that are gone after a crash", True, lambda *crash: len(lost(*crash))),
    "lost_seconds": Measure("the age of the oldest lost write when the crash came", True, lost_seconds),
    "refused_writes": Measure("commands that were answered with an error", False, refused_writes),
    "memory_kb": Measure("the most memory that was in use", False, memory_kb)}


@dataclass(frozen=True)
class Brief:
    """A customer. `script` gets the choices that are no directives; `menu`: designs that others have proposed."""

    name: str
    story: str
    needs: Mapping[str, str]                    # a clause of a guarantee -> the sentence of the story that asks for it
    script: Callable[[Mapping[str, Any]], Script]
    menu: tuple[Mapping[str, Any], ...]
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)        # (): a whole number
    measures: Mapping[str, Measure] = field(default_factory=dict)
    crashes: tuple[str, ...] = (KILL, POWER)

    @property
    def words(self) -> dict[str, Measure]:
        """All that a guarantee may speak of."""
        return {**GENERAL, **self.measures}

    def play(self, directives: Directives, choices: Mapping[str, Any], seed: int, mutant: str = "") -> Run:
        script = self.script(choices)
        if not any(step.client == "eye" for step in script):            # who looks at the memory, if nobody does?
            until_ms = max(step.at_ms for step in script)
            script = (*script, *every(250, "eye", "INFO memory", start_ms=245, until_ms=until_ms))
        scenario = Scenario(self.name, directives, script, mutant=mutant, capacity=4 * KB, fsync_us=2_000)
        return Run(self, directives, choices, seed, Recording(scenario))


# ---- a cache in front of a slow shop -------------------------------------------------------------

def visits(choices: Mapping[str, Any]) -> Script:
    """The first ten seconds: a page is made when it is asked for the first time."""
    script, made, ttl = list(at(5, "eye", "PING")), set[int](), choices["ttl_s"]
    for number, page in enumerate(caches.zipf(100, 300)):
        script += at(100 * number + 10, "web", f"GET page:{page}")
        if page not in made:
            made.add(page)
            script += at(100 * number + 60, "web", f"SET page:{page} {'x' * 100}" + f" EX {ttl}" * bool(ttl))
    return tuple(script)


def cached(run: Run) -> caches.Run:
    """Three minutes of visitors, who are drawn from the seed."""
    if "cached" not in run.__dict__:
        more: dict[str, Any] = {name.replace("-", "_"): value for name, value in run.directives.items()
                                if name.startswith(("maxmemory-s", "lfu"))}
        run.__dict__["cached"] = caches.through_kvref(
            caches.zipf(1_800, 300, run.seed), run.directives.get("maxmemory-policy", "noeviction"),
            run.directives.get("maxmemory", "0"), ttl_s=int(run.choices["ttl_s"]), **more)
    found: caches.Run = run.__dict__["cached"]
    return found


CACHE = Brief("cache", """\
A shop makes its pages slowly: four in a second, no more. Ten visitors come each second, for one of 300 pages, some
popular, most rare. A cache stands in front: GET, and after a miss the shop makes the page, and SET puts it there.
  - The shop makes at most four pages a second, over the whole time.
  - Prices change. A page that is older than a minute must not be shown.
  - No write is refused: the web server's program knows no errors.
  - After a crash the cache may be empty. Visitors wait a little, and it fills up.""",
    {"hit_rate >= 0.6": "The shop makes at most four pages a second, and ten visitors come.",
     "stale_seconds <= 60": "A page that is older than a minute must not be shown.",
     "refused_writes == 0": "No write is refused: the web server's program knows no errors."},
    visits,
    tuple({"maxmemory": memory, "maxmemory-policy": policy, "ttl_s": ttl, **more} for memory, policy, ttl, more in (
        ("10kb", "allkeys-lru", 60, {}), ("30kb", "allkeys-lru", 0, {}), ("30kb", "noeviction", 60, {}),
        ("30kb", "allkeys-lru", 60, {}), ("60kb", "allkeys-lru", 60, {}),
        ("30kb", "allkeys-lru", 60, {"appendonly": "yes"}))),
    {"ttl_s": ()},
    {"hit_rate": Measure("the share of visitors who find their page", False, lambda run: cached(run).hit_rate),
     "stale_seconds": Measure("the age of the oldest page that was shown", False, lambda run: cached(run).stalest_s),
     "refused_writes": Measure("SETs that were answered with an error", False, lambda run: cached(run).refused),
     "memory_kb": Measure("the most memory that was in use", False, lambda run: cached(run).peak / KB)})


# ---- a job queue that may lose nothing -----------------------------------------------------------

JOBS, GAP_MS, WORK_MS, AWAY_MS, BACK_MS = 80, 50, 30, 1500, 2100
SAYS_MS, KNOWS_MS = 5, 20           # after the work: the worker sends the result; it has the answer, and lets go


class Job(NamedTuple):
    """When a job is sent, taken and done; the worker is away for a while."""

    number: int
    sent_ms: int
    taken_ms: int
    done_ms: int


def plan(messaging: str) -> list[Job]:
    jobs, free_ms = list[Job](), 0
    for number in range(1, JOBS + 1):
        sent_ms = GAP_MS * number
        taken_ms = max(sent_ms + 2, free_ms)
        if taken_ms + WORK_MS + 10 > AWAY_MS and taken_ms < BACK_MS:
            taken_ms = BACK_MS + 5
        if messaging == PUBSUB and AWAY_MS <= sent_ms < BACK_MS:
            continue                                    # nobody is there to take it
        jobs.append(Job(number, sent_ms, taken_ms, taken_ms + WORK_MS))
        free_ms = taken_ms + WORK_MS + 10
    return jobs


def orders(choices: Mapping[str, Any]) -> Script:
    """The office sends a job every 50 ms; the worker takes one, works 30 ms, and writes down the result."""
    how = choices["messaging"]
    take = {LIST: "BLPOP jobs 0"}.get(how, "BLMOVE jobs doing LEFT RIGHT 0")
    script = [step for ms in range(5, JOBS * GAP_MS, 250) for step in at(ms, "eye", "INFO memory")]
    if how == PUBSUB:
        script += at(6, "ear", "SUBSCRIBE jobs") + at(AWAY_MS, "ear", "@leave") + at(BACK_MS, "ear-2", "SUBSCRIBE jobs")
    send = "PUBLISH jobs" if how == PUBSUB else "RPUSH jobs"
    script += [step for number in range(1, JOBS + 1) for step in at(GAP_MS * number, "office", f"{send} job:{number}")]
    for number, _, taken_ms, done_ms in plan(how):
        result, done = f"RPUSH results job:{number}", f"LREM doing 1 job:{number}"
        script += () if how == PUBSUB else at(taken_ms, "worker", take)
        said = {ACK: ("MULTI", result, done, "EXEC"), TWO_STEPS: (done,)}.get(how, (result,))
        script += at(done_ms + SAYS_MS, "worker", *said)
        script += at(done_ms + SAYS_MS + 2, "worker", result) if how == TWO_STEPS else ()
    return tuple(script)


def listed(state: State, *keys: bytes) -> set[int]:
    """The jobs in these lists."""
    return {int(item[4:]) for _, key, value, _ in state if key in keys for item in value[1:]}


def taken(run: Run, moment: Moment) -> list[Job]:
    """The jobs that have reached the worker by now."""
    how, now_ms = run.choices["messaging"], run.ms(moment.now_us)
    got = {int(number) for number in re.findall(rb"job:(\d+)\r", run.heard("worker", "ear", "ear-2"))}
    since = Job._fields.index("sent_ms" if how == PUBSUB else "taken_ms")       # a subscriber has it at once
    return [job for job in plan(how) if job.number in got and job[since] <= now_ms]


def lost_jobs(run: Run, moment: Moment) -> set[int]:
    """Unless the worker dies itself, it finishes what it has in hand, and says so again: it is on another computer."""
    mine = taken(run, moment)
    safe = listed(moment.state, b"jobs", b"doing") | (listed(moment.state, b"results") & {job.number for job in mine})
    if moment.crash != WORKER:
        now_ms = run.ms(moment.now_us)
        safe |= {job.number for job in mine if now_ms < job.done_ms + KNOWS_MS}
    return answered(run, moment, "office") - safe


def repeated_jobs(run: Run, moment: Moment) -> set[int]:
    """Done before the crash, and still to be done for all that the lists say."""
    again, now_ms = listed(moment.state, b"jobs", b"doing"), run.ms(moment.now_us)
    return {job.number for job in taken(run, moment) if job.done_ms <= now_ms} & again


QUEUE = Brief("queue", """\
An office takes twenty orders a second, and each becomes a job for a worker on another computer. The worker takes a
job, works 30 ms, and writes the result into the list `results`. It goes away once, for 0.6 seconds. For the office an
order is taken when Redis has answered.
  - No order that was taken may be lost: not when the server's process is killed, not when the power of its computer
    fails (ext4), not when the worker dies with a job in its hand.
  - An order may be done twice. It has a number, and the machine that packs it can tell.
  - No write is refused.""",
    {f"lost_jobs == 0 under {KILL}": "No order may be lost when the server's process is killed.",
     f"lost_jobs == 0 under {WORKER}": "No order may be lost when the worker dies with a job in its hand.",
     f"lost_jobs == 0 under {POWER}": "No order may be lost when the power fails (ext4).",
     "refused_writes == 0": "No write is refused."},
    orders,
    tuple({"appendonly": log, "appendfsync": policy, "messaging": how, **more} for log, policy, how, more in (
        ("no", "no", PUBSUB, {}), ("yes", "everysec", ACK, {}), ("yes", "always", LIST, {}),
        ("yes", "always", PUBSUB, {}), ("yes", "always", ACK, {"maxmemory": "2kb"}), ("yes", "always", TWO_STEPS, {}),
        ("yes", "always", ACK, {}),
        ("yes", "always", ACK, {"save": "1 1"}))),
    {"messaging": (PUBSUB, LIST, ACK, TWO_STEPS)},
    {"lost_jobs": Measure("orders that were taken, and that nobody has done or will do", True, lost_jobs),
     "repeated_jobs": Measure("orders that are done, and will be done again", True, repeated_jobs)},
    (KILL, WORKER, POWER))


# ---- a live scoreboard with chat -----------------------------------------------------------------

FANS, MESSAGES, TUNNEL_MS, OUT_MS, ASLEEP_MS, KEPT = ("ann", "bob", "cay"), 96, 2000, 3000, 500, 25
SCORES_MS: Final = [50 * number + Random(number).randrange(50) for number in range(96)]       # nobody scores in step


def match(choices: Mapping[str, Any]) -> Script:
    """Twenty scores and twenty messages a second. Bob is in a tunnel for a second; Cay falls asleep for good."""
    how, lists = choices["messaging"], choices["messaging"] != PUBSUB
    take = ("BLPOP chat:{} 0",) if how == LIST else ("BLMOVE chat:{0} seen:{0} LEFT RIGHT 0", "LPOP seen:{}")
    looks = "CLIENT LIST", "MEMORY USAGE chat:cay", "INFO memory"
    script = [step for ms in range(200, 5000, 250) for step in at(ms, "eye", *looks)]
    for fan in FANS:
        script += at(5, fan, f"CLIENT SETNAME {fan}", *([] if lists else ["SUBSCRIBE chat"]))
    script += at(ASLEEP_MS, "cay", "@stop") + at(TUNNEL_MS, "bob", "@leave")
    script += () if lists else at(OUT_MS, "bob-2", "SUBSCRIBE chat")
    for number, score_ms in enumerate(SCORES_MS):
        script += at(score_ms, "referee", f"ZINCRBY scores 1 team:{number % 7}")
    for number in range(MESSAGES):
        now, text = 50 * number + 20, f"chat:{number}:".ljust(1000, ".")
        say = [f"PUBLISH chat {text}"] if not lists else [step for fan in FANS for step in (
            f"RPUSH chat:{fan} {text}", f"LTRIM chat:{fan} -{KEPT} -1")]
        script += at(now, "talk", *say)
        if lists:
            script += at(now + 5, "ann", *(step.format("ann") for step in take))
            bob, when = ("bob", now + 5) if now < TUNNEL_MS - 10 else ("bob-2", max(now + 5, OUT_MS))
            script += at(when, bob, *(step.format("bob") for step in take))
            script += at(now + 5, "cay", *(step.format("cay") for step in take)) if now < ASLEEP_MS else ()
    return tuple(script)


def lost_scores(run: Run, moment: Moment) -> set[int]:
    """A score adds 1, so the sum tells how many are there; they are lost from the end, or all at once."""
    there = sum(score for _, key, value, _ in moment.state if key == b"scores" for _, score in value[1])
    return {number for number in answered(run, moment, "referee") if number > there}


def oldest_score(run: Run, moment: Moment) -> float:
    """The age of the oldest lost score, in seconds."""
    gone = lost_scores(run, moment)
    return (run.ms(moment.now_us) - SCORES_MS[min(gone) - 1]) / 1000 if gone else 0.0


def missed(run: Run, *names: str) -> int:
    """So many messages never came to any of these clients."""
    return MESSAGES - len(set(re.findall(rb"chat:(\d+):", run.heard(*names))))


def sleeper_kb(run: Run) -> float:
    said = [reply for reply in run.replies("eye") if isinstance(reply, int)]
    return max([*said, *map(int, re.findall(rb"name=cay .*?omem=(\d+)", run.heard("eye")))], default=0) / KB


LIMIT, DEFAULT_LIMIT = "pubsub 32kb 16kb 1", "pubsub 32mb 8mb 60"
BOARD = Brief("board", """\
A stadium shows scores and a chat on its visitors' phones. Twenty scores come each second, and twenty messages of 1,000
bytes.
  - When the power fails (ext4), no score may be lost that is older than a second and a half.
  - Who is there and reads gets every message. Who is in a tunnel may miss what was said meanwhile: it is talk.
  - A phone that sleeps and does not read may take 40 kB of the server's memory, not more.
  - No write is refused.""",
    {f"lost_seconds <= 1.5 under {POWER}": "When the power fails (ext4), no score older than 1.5 seconds may be lost.",
     "missed_messages == 0": "Who is there and reads gets every message.",
     "refused_writes == 0": "No write is refused.",
     "sleeper_kb <= 40": "A phone that does not read may take 40 kB of the server's memory."},
    match,
    tuple({"appendonly": log, "appendfsync": policy, "messaging": how, "client-output-buffer-limit": limit, **more}
          for log, policy, how, limit, more in (
        ("no", "no", PUBSUB, LIMIT, {}), ("no", "no", PUBSUB, LIMIT, {"save": "1 1"}),
        ("yes", "everysec", PUBSUB, LIMIT, {"maxmemory": "200"}), ("yes", "everysec", PUBSUB, DEFAULT_LIMIT, {}),
        ("yes", "everysec", PUBSUB, "pubsub 500 0 0", {}), ("yes", "everysec", PUBSUB, LIMIT, {}),
        ("yes", "always", PUBSUB, LIMIT, {}),
        ("yes", "everysec", LIST, LIMIT, {}))),
    {"messaging": (PUBSUB, LIST, ACK)},
    {"lost_scores": Measure("scores that were answered, and are gone after a crash", True, lost_scores),
     "lost_seconds": Measure("the age of the oldest lost score when the crash came", True, oldest_score),
     "missed_messages": Measure("chat messages that Ann never gets, who is there and reads", False,
                                lambda run: missed(run, "ann")),
     "missed_in_tunnel": Measure("those that Bob never gets, who is away for a second", False,
                                 lambda run: missed(run, "bob", "bob-2")),
     "sleeper_kb": Measure("the memory that Cay takes, who does not read", False, sleeper_kb)})

BRIEFS: Final = {brief.name: brief for brief in (CACHE, QUEUE, BOARD)}
