"""Scenarios: who says what to which server, when, on what kind of disk. A scenario is data, and can go anywhere.

    mine = Scenario("a-counter", {"appendonly": "yes", "appendfsync": "everysec"},
                    every(50, "ann", "INCR visits", until_ms=2500) + at(1500, "bob", "BGREWRITEAOF"))
    print(explore(mine))

Interface:
  - Scenario            a name, directives, a script, faults of the disk, a mutant's name
  - at, every           steps of a script: (ms since the start, client, command line)
  - SCENARIOS           the library, by name: what `python -m kvref.sim explore` goes through

A line that begins with @ is done by the client itself: @stop reads no more replies, @read reads on, @leave hangs up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from kvref.sim.crashes import Image
from kvref.sim.disk import Fault

LAST_LOOK_MS = 300                  # a scenario goes on for so long behind its last step


class Step(NamedTuple):
    """One line of a script."""

    at_ms: int
    client: str
    command: str

    def __str__(self) -> str:
        return f"{self.at_ms:>6} ms  {self.client}> {self.command}"


Script = tuple[Step, ...]


@dataclass(frozen=True)
class Scenario:
    """See the module. Clients connect when they first speak; what stands at one instant is sent at once."""

    name: str
    directives: Mapping[str, str]
    script: Script
    until_ms: int = 0                       # goes on for so long, or LAST_LOOK_MS behind the last step
    faults: tuple[Fault, ...] = ()
    mutant: str = ""                        # the server has this bug: see `kvref.sim.mutants`
    files: Image = ()                       # what the disk holds at the beginning
    fsync_us: int = 1000
    child_step_us: int = 100
    capacity: int = 64 * 1024               # bytes under way to a client that does not read
    seed: int = 0
    story: str = field(default="", compare=False)

    @property
    def end_ms(self) -> int:
        return max([self.until_ms, *(step.at_ms + LAST_LOOK_MS for step in self.script)])

    def repeated(self, times: int) -> Scenario:
        """The script so many times in a row: with what is unsynced, the number of legal states grows."""
        script = tuple(step._replace(at_ms=step.at_ms + again * self.end_ms)
                       for again in range(times) for step in self.script)
        return self if times == 1 else replace(self, name=f"{self.name}*{times}", script=script,
                                               until_ms=times * self.end_ms)

    def __str__(self) -> str:
        words = [f"{name} {value or '(nothing)'}" for name, value in self.directives.items()]
        lines = [f"{self.name}: {', '.join(words) or 'no persistence'}", *([self.story] if self.story else []),
                 *map(str, self.faults), *map(str, self.script)]
        return "\n  ".join(lines)


def at(ms: int, client: str, *commands: str) -> Script:
    """These commands at once, in one piece."""
    return tuple(Step(ms, client, command) for command in commands)


def every(ms: int, client: str, command: str, *, start_ms: int = 0, until_ms: int) -> Script:
    """The same again and again; {n} in it counts from 0."""
    return tuple(Step(when, client, command.replace("{n}", str(n)))
                 for n, when in enumerate(range(start_ms, until_ms, ms)))


# ---- the library ---------------------------------------------------------------------------------

OFF = {"save": "", "appendonly": "no"}
ALWAYS, EVERYSEC, NO = ({"save": "", "appendonly": "yes", "appendfsync": policy}
                        for policy in ("always", "everysec", "no"))
RDB = {"save": "1 1", "appendonly": "no"}
RARELY = {"save": "600 1", "appendonly": "no"}
TEXT_BASE = {"aof-use-rdb-preamble": "no", "aof-timestamp-enabled": "yes"}

WRITES = every(130, "ann", "SET key:{n} {n}", until_ms=2600)
COUNTER = every(90, "ann", "INCR counter", until_ms=2500)
MIXED = (at(50, "ann", "SET name ann", "RPUSH list a b c", "HSET hash f 1 g 2")
         + at(200, "bob", "SADD set 1 2 3", "LPOP list")
         + at(450, "ann", "ZADD zset 1 one 2 two", "DEL name", "APPEND text hello")
         + at(900, "bob", "INCRBYFLOAT float 0.1")
         + at(1300, "ann", "SPOP set", "SETRANGE text 2 LL", "HINCRBY hash f 5")
         + at(1900, "bob", "RENAME text words", "LPUSH list z")
         + at(2300, "ann", "ZINCRBY zset 3 one", "GETSET name bob"))
BURST = (at(100, "ann", *(f"SET burst:{n} {'x' * 30}" for n in range(28)))
         + at(1250, "ann", *(f"INCR burst{n % 3}" for n in range(20))))
TRANSACTIONS = (at(60, "ann", "MULTI", "SET from 90", "SET to 10", "EXEC") + at(300, "bob", "SET other 1")
                + at(520, "ann", "MULTI", "DECRBY from 30", "INCRBY to 30", "LPUSH log transfer", "EXEC")
                + at(1180, "bob", "MULTI", "SELECT 1", "SET far 1", "SELECT 0", "DEL other", "EXEC")
                + at(1700, "ann", "WATCH from", "MULTI", "DECRBY from 5", "INCRBY to 5", "EXEC"))
EXPIRY = (at(40, "ann", "SET short 1 PX 400", "SET long 1 EX 1000", "SET rescued 1 PX 700", "SET plain 1")
          + at(300, "ann", "EXPIRE plain 500", "PERSIST long") + at(350, "bob", "BGREWRITEAOF")
          + at(620, "ann", "PERSIST rescued", "GETEX plain PERSIST") + at(900, "bob", "GET short", "SETEX again 1 x")
          + at(1200, "ann", "EXPIREAT plain 1", "PEXPIRE long 900000")
          + at(1800, "bob", "SET long 2 KEEPTTL", "GET again") + at(2400, "bob", "GET again", "SET done 1"))
BLOCKING = (at(30, "bob", "BLPOP queue 0") + at(60, "cay", "BLMOVE queue taken LEFT RIGHT 0")
            + at(300, "ann", "RPUSH queue 1 2 3") + at(700, "bob", "BRPOP queue other 0", "SET bob was-here")
            + at(1200, "ann", "MULTI", "LPUSH other x", "LPUSH queue y", "EXEC")
            + at(1500, "cay", "BZPOPMIN zset 0") + at(1900, "ann", "ZADD zset 1 a 2 b"))
DATABASES = (at(40, "ann", "SET a 0", "SELECT 3", "SET a 3") + at(200, "bob", "SET b 0")
             + at(420, "ann", "MOVE a 5", "SELECT 9", "SET a 9") + at(800, "bob", "SWAPDB 0 9", "SET b 1")
             + at(1000, "bob", "BGREWRITEAOF") + at(1300, "ann", "FLUSHDB", "SELECT 0", "SET last 1")
             + at(1800, "bob", "COPY b c DB 2"))
REWRITE = (WRITES + at(700, "bob", "BGREWRITEAOF") + at(701, "bob", "SET during 1", "DEL key:1")
           + at(1900, "bob", "BGREWRITEAOF"))
SWITCH_ON = WRITES + at(500, "bob", "CONFIG SET appendonly yes")
SWITCH_OFF = WRITES + at(1500, "bob", "CONFIG SET appendonly no")
OFF_AND_ON = (at(50, "ann", "INCR a") + at(200, "bob", "CONFIG SET appendonly no") + at(300, "ann", "INCRBY a 10")
              + at(400, "bob", "CONFIG SET appendonly yes", "INCR a") + at(500, "ann", "INCR a"))
SAVES = (MIXED + at(1000, "bob", "SAVE") + at(1500, "bob", "BGSAVE") + at(2000, "bob", "FLUSHALL")
         + at(2100, "ann", "SET after 1"))
SAVE_FULL = at(50, "ann", "SET a 1", "SAVE") + at(200, "ann", f"SET b {'x' * 40}", "SAVE") + at(300, "ann", "SET c 1")
SHUTDOWN, NOSAVE = at(2700, "bob", "SHUTDOWN"), at(2700, "bob", "SHUTDOWN NOSAVE")
REWRITE_COUNTER = (at(50, "ann", "SELECT 3", "INCR n", "RPUSH list a") + at(100, "bob", "BGREWRITEAOF")
                   + at(101, "ann", "INCR n") + at(300, "ann", "INCR n"))
EFFECTS = (at(20, "ann", "SET rescued 1 PX 350", "SET dies 1 PX 150", "SET price 1 EX 900", "SADD set 1 2 3 4 5 6 7 8")
           + at(100, "bob", "BGREWRITEAOF") + at(300, "ann", "APPEND dies x", "PERSIST rescued")
           + at(400, "ann", "INCRBYFLOAT price 0.5") + at(450, "ann", "SPOP set", "SPOP set")
           + at(500, "ann", "EXPIRE set 900") + at(600, "ann", "FLUSHALL", "SET last 1"))
EXEC = at(50, "ann", "SET from 9") + at(100, "ann", "MULTI", "DECRBY from 3", "INCRBY to 3", "EXEC")
SILENCE = (at(100, "ann", f"SET first {'x' * 40}") + at(1200, "bob", "BGREWRITEAOF") + at(1600, "ann", "SET last 1")
           + at(4000, "ann", "GET last"))
BIG = at(20, "ann", f"SET big {'x' * 900}") + at(100, "bob", "@stop", "GET big", "GET big")
READS_ON = at(200, "bob", "@read", "SET told 1") + at(300, "ann", "SET last 1")
READS_AND_WRITES = at(200, "bob", "@read") + at(201, "bob", "SET told 1") + at(300, "ann", "SET last 1")
FLUSHALL = (at(50, "ann", "SET a 1") + at(100, "ann", "BGSAVE", "FLUSHALL", "SET b 1", "FLUSHALL")
            + at(300, "ann", "SET c 1", "BGSAVE"))
FLUSHALL_IN_EXEC = (at(50, "ann", "SET a 1", "SAVE") + at(100, "ann", "MULTI", "SET b 1", "FLUSHALL", "SET c 1", "EXEC")
                    + at(200, "ann", "SET d 1"))
WAITAOF = (at(100, "ann", "SET a 1", "WAITAOF 1 0 0") + at(150, "bob", "SET b 1") + at(300, "bob", "WAITAOF 1 0 500")
           + at(1250, "ann", "INCR a") + at(1300, "bob", "BGREWRITEAOF") + at(1301, "ann", "INCR a", "WAITAOF 1 0 0")
           + at(2400, "bob", "SET c 1", "WAITAOF 1 0 3000"))
LISTENERS = (at(20, "sub", "PSUBSCRIBE *") + at(30, "eye", "MONITOR") + at(100, "ann", "SET a 1 PX 300")
             + at(250, "ann", "RPUSH list 1 2") + at(700, "ann", "GETSET a 2") + at(800, "bob", "PUBLISH news x"))
FEW = (at(50, "ann", "SET name ann") + at(150, "bob", "SAVE") + at(200, "ann", "SET city rome", "INCR n")
       + at(300, "bob", "SAVE") + at(350, "ann", "INCR n") + at(450, "ann", "INCR n"))
THEN_ALWAYS = at(100, "ann", "SET a 1") + at(2700, "bob", "CONFIG SET appendfsync always", "SET told 1")


def full(path: str, times: int = 1, after: int = 0, short: int = 0) -> tuple[Fault, ...]:
    """A full disk, for a while."""
    return (Fault("write", path, error="ENOSPC", short=short, after=after, times=times),)


def no_fsync(path: str, after: int = 0) -> tuple[Fault, ...]:
    """One fsync fails."""
    return (Fault("fsync", path, error="EIO", after=after),)


def lying_fsync(path: str, after: int = 0, times: int = 1) -> tuple[Fault, ...]:
    """The disk says that it is done, and is not; the next honest fsync saves that, too."""
    return (Fault("fsync", path, lies=True, after=after, times=times),)


def rot(kind: str, path: str, file: str, bit: int) -> tuple[Fault, ...]:
    """At the second such operation a bit of that file flips."""
    return (Fault(kind, path, rots=file, bit=bit, after=1),)


OLD_LOG = b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n"
DEAD_LOG = b"*3\r\n$3\r\nSET\r\n$5\r\nstray\r\n$1\r\n1\r\n"
ORPHANS = (("/data", None), ("/data/appendonlydir", None), ("/data/appendonlydir/appendonly.aof.7.incr.aof", DEAD_LOG),
           ("/data/appendonlydir/temp-rewriteaof-99.aof", DEAD_LOG), ("/data/dump.rdb", b"no dump at all"))
SHORT = (Fault("write", "*incr*", short=7, after=5, times=2),)
SLOW = (Fault("fsync", "*incr*", delay_us=2_700_000),)


def _library() -> list[Scenario]:
    found = [
        Scenario("none", OFF, WRITES, story="Everything is in memory, and nowhere else."),
        Scenario("rdb", RDB, WRITES),
        Scenario("rdb-rare", {"save": "2 5"}, COUNTER, until_ms=5200),
        Scenario("rdb-commands", RARELY, SAVES),
        Scenario("rdb-shutdown", RDB, MIXED + SHUTDOWN),
        Scenario("rdb-nosave", RDB, MIXED + NOSAVE),
        Scenario("rdb-full", RDB, COUNTER, faults=full("*temp-*"), until_ms=9000),
        Scenario("rdb-fsync-fails", RDB, COUNTER, faults=no_fsync("*temp-*"), until_ms=9000),
    ]
    for name, mode in (("always", ALWAYS), ("everysec", EVERYSEC), ("no", NO)):
        found += [
            Scenario(name, mode, MIXED),
            Scenario(f"{name}-rdb", {**mode, "save": "1 1"}, WRITES),
            Scenario(f"{name}-burst", mode, BURST),
            Scenario(f"{name}-rewrite", mode, REWRITE),
            Scenario(f"{name}-shutdown", mode, MIXED + SHUTDOWN),
            Scenario(f"{name}-full", mode, COUNTER, faults=full("*incr*", 4, after=5, short=7)),
            Scenario(f"{name}-short", mode, COUNTER, faults=SHORT),
            Scenario(f"{name}-switch-on", {**mode, "appendonly": "no"}, SWITCH_ON),
            Scenario(f"{name}-switch-off", mode, SWITCH_OFF),
        ]
    for name, mode in (("always", ALWAYS), ("everysec", EVERYSEC)):
        found += [
            Scenario(f"{name}-transactions", mode, TRANSACTIONS),
            Scenario(f"{name}-expiry", mode, EXPIRY),
            Scenario(f"{name}-blocking", mode, BLOCKING),
            Scenario(f"{name}-databases", mode, DATABASES),
            Scenario(f"{name}-waitaof", mode, WAITAOF, story="WAITAOF's answer is a promise, too."),
        ]
    return [*found, *_special()]


def _special() -> list[Scenario]:
    """What is of interest in one mode alone; the small ones each have a situation that a mutant needs."""
    return [
        Scenario("always-fsync-fails", ALWAYS, COUNTER, faults=no_fsync("*incr*", 6)),
        Scenario("everysec-fsync-fails", EVERYSEC, COUNTER, faults=no_fsync("*incr*", 1), until_ms=4000),
        Scenario("everysec-slow", EVERYSEC, COUNTER, faults=SLOW, until_ms=5200),
        Scenario("everysec-no-fsync-on-rewrite", {**EVERYSEC, "no-appendfsync-on-rewrite": "yes"}, REWRITE),
        Scenario("everysec-rewrite-rdb", {**EVERYSEC, "save": "1 3"}, REWRITE),
        Scenario("everysec-text-base", {**EVERYSEC, **TEXT_BASE}, REWRITE),
        Scenario("everysec-growth", {**EVERYSEC, "auto-aof-rewrite-min-size": "600"}, BURST),
        Scenario("rewrite-fails", EVERYSEC, REWRITE, faults=full("*temp-rewriteaof*", after=1)),
        Scenario("slow-reader", ALWAYS, BIG + READS_ON, capacity=512),
        Scenario("slow-reader-writes", ALWAYS, BIG + READS_AND_WRITES, capacity=512,
                 story="It reads on and writes: one turn of the loop finds its socket readable and writable."),
        Scenario("always-listeners", {**ALWAYS, "notify-keyspace-events": "KEA"}, LISTENERS,
                 story="Who is subscribed, or watches by MONITOR, is told of writes as well."),
        Scenario("everysec-strict", {**EVERYSEC, "aof-load-truncated": "no"}, MIXED, story="A torn log is refused."),
        Scenario("everysec-orphans", EVERYSEC, EXEC, files=ORPHANS, story="Files that no manifest names are there."),
        Scenario("everysec-often-full", EVERYSEC, COUNTER, until_ms=9000,
                 faults=tuple(fault for after in (2, 6, 10, 14, 18) for fault in full("*incr*", 2, after, short=9))),
        Scenario("no-often-full", NO, COUNTER, until_ms=9000,
                 faults=tuple(fault for after in (2, 6, 10, 14, 18) for fault in full("*incr*", 2, after, short=9))),
        Scenario("everysec-silence", EVERYSEC, SILENCE, story="A rewrite, one more write, and then nobody writes."),
        Scenario("always-rewrite-counter", ALWAYS, REWRITE_COUNTER),
        Scenario("everysec-rewrite-counter", EVERYSEC, REWRITE_COUNTER),
        Scenario("always-off-and-on", ALWAYS, OFF_AND_ON),
        Scenario("always-effects", ALWAYS, EFFECTS,
                 story="Commands that are logged as something else; one key dies, one is rescued."),
        Scenario("always-exec", ALWAYS, EXEC),
        Scenario("always-short-exec", ALWAYS, EXEC, faults=(Fault("write", "*incr*", short=60, after=1),)),
        Scenario("rdb-save-full", RARELY, SAVE_FULL,
                 faults=full("*temp-*", 2, after=1, short=60)),
        Scenario("rdb-flushall", RARELY, FLUSHALL),
        Scenario("rdb-exec", RARELY, FLUSHALL_IN_EXEC),
        Scenario("upgrade", ALWAYS, at(50, "ann", "INCR a"), files=(("/data", None), ("/data/appendonly.aof", OLD_LOG)),
                 story="The log is one file from before Redis 7."),
        Scenario("everysec-then-always", EVERYSEC, THEN_ALWAYS, faults=no_fsync("*incr*")),
        Scenario("always-fsync-lies", ALWAYS, FEW, faults=lying_fsync("*incr*", after=1, times=2),
                 story="What was promised in between is there after kill -9, and gone after a power loss."),
        Scenario("rdb-fsync-lies", RARELY, FEW, faults=lying_fsync("*temp-*", after=1)),
        Scenario("always-rot", ALWAYS, FEW, faults=rot("write", "*incr*", "*incr*", 8 * 51),
                 story="ann becomes aon: the log has no checksum."),
        Scenario("rdb-rot", RARELY, FEW, faults=rot("create", "*temp-*", "*dump.rdb", 8 * 96),
                 story="The checksum tells."),
    ]


SCENARIOS: dict[str, Scenario] = {scenario.name: scenario for scenario in _library()}
