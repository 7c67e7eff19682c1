"""Chapter 09, the append-only file: bytes of the log, what a crash takes, a rewrite, and a server with a policy of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from random import Random
from typing import Any
from unittest.mock import patch

from kvref.lab.judging import Wrong, exercise, expect
from kvref.persistence.aof import AppendOnlyFile
from kvref.persistence.replay import record
from kvref.sim import ReplyError, World

LOG = "/data/appendonlydir/appendonly.aof.1.incr.aof"
Command = list[bytes]


# ---- 1 -------------------------------------------------------------------------------------------

@exercise("09-1", "A record is an array of RESP: *3, then for each word $ and its length, then the word; CR LF behind each of them. GET has no effect.",
          "EXPIRE key seconds stands there as PEXPIREAT key milliseconds: now_ms and 1000 times the seconds. That is b'%d' % number.",
          "b'*%d\\r\\n' % len(words), and for each word b'$%d\\r\\n%b\\r\\n' % (len(word), word).")
def logged(solution: Any) -> None:
    """Against: the log holds the commands."""
    world = World(seed=1)
    server = world.start(appendonly="yes")
    alice = world.connect("alice")
    alice("SET", "course", "redis")                     # the SELECT is behind us
    for words in ([b"SET", b"course", b"redis"], [b"SET", b"note", b"two\r\nlines"], [b"GET", b"course"], [b"EXPIRE", b"course", b"10"],
                  [b"SET", "Zoë".encode(), b"\x00\xff"], [b"EXPIRE", b"course", b"86400"]):
        before = len(world.disk.content(LOG))
        alice(*words)
        expect(solution, words, server.now_ms, wants=world.disk.content(LOG)[before:])


# ---- 2 -------------------------------------------------------------------------------------------

Event = tuple[str, str]


def fates(events: Iterable[Event]) -> tuple[set[str], set[str]]:
    """(told and not written, told and not durable)."""
    told, written, covered, durable = set[str](), set[str](), set[str](), set[str]()
    for what, name in events:
        if what == "write":
            written.add(name)
        elif what == "reply":
            told.add(name)
        elif what == "fsync begins":
            covered = set(written)
        else:
            durable |= covered
    return told - written, told - durable


def story(random: Random) -> list[Event]:
    """Writes, replies and fsyncs in an order that a server can bring about: each name twice, at the most."""
    events, names, open_, syncing = list[Event](), iter("abcdefghij"), list[list[Event]](), False
    for _ in range(random.randrange(6, 30)):
        step = random.choice(("new", "go on", "go on", "fsync"))
        if step == "new" and (name := next(names, "")):
            pair = [("write", name), ("reply", name)]
            random.shuffle(pair)
            open_.append(pair)
        elif step == "go on" and open_:
            pair = random.choice(open_)
            events.append(pair.pop())
            open_ = [pair for pair in open_ if pair]
        elif step == "fsync":
            syncing = not syncing
            events.append(("fsync begins" if syncing else "fsync ends", ""))
    return events


@exercise("09-2", "Keep four sets while you read: what was told, what is written, what the running fsync will cover, what is durable.",
          "An fsync covers what was written before it began; it counts when it ends. A write that nobody was told of is not lost.",
          "'fsync begins': covered = set(written). 'fsync ends': durable |= covered. At the end: told - written, told - durable.")
def lost(solution: Any) -> None:
    """Against: an fsync covers what was written while it ran."""
    write, reply, begin, end = ("write", "a"), ("reply", "a"), ("fsync begins", ""), ("fsync ends", "")
    cases: list[tuple[str, list[Event]]] = [
        ("always, in order", [write, begin, end, reply]), ("the reply before the write", [reply]), ("a write that nobody was told of", [write]),
        ("told and written", [write, reply]), ("an fsync that began before the write", [begin, write, reply, end]),
        ("an fsync that has not ended", [write, reply, begin]), ("everysec, and the fsync is through", [write, reply, begin, end]),
        ("one before the fsync began, one after", [write, reply, begin, ("write", "b"), ("reply", "b"), end]),
        ("a write held back while an fsync runs", [write, reply, begin, ("reply", "b"), end, ("reply", "c"), ("write", "b")])]
    random = Random(9)
    cases += [("events in a row that somebody has shuffled", story(random)) for _ in range(200)]
    for when, events in cases:
        found, wants = solution(list(events)), fates(events)
        if not (isinstance(found, tuple) and len(found) == 2 and all(isinstance(part, set) for part in found)):
            raise Wrong(f"Return two sets: what a kill takes, what a power loss takes. It was {found!r}.")
        for end_, mine, right in zip(("A kill", "A power loss"), found, wants):
            if mine != right:
                raise Wrong(f"{when[0].upper()}{when[1:]}: {events}. {end_} takes {_names(right)}; your answer was {_names(mine)}.")


def _names(names: set[str]) -> str:
    return ", ".join(sorted(map(str, names))) or "nothing"


# ---- 3 -------------------------------------------------------------------------------------------

def executed(log: list[Command]) -> dict[str, Any]:
    """The keyspace that a log makes: values and deadlines by key. Wrong where a command has an error for a reply."""
    world = World(seed=1)
    world.start()
    alice = world.connect("alice")
    for command in log:
        try:
            alice(*command)
        except ReplyError as error:
            raise Wrong(f"Your log holds {b' '.join(command)!r}, and that is answered by: {error}") from None
    keys = sorted(alice("KEYS", "*"))
    return {key.decode(): (alice("GET", key) if alice("TYPE", key) == "string" else alice("LRANGE", key, 0, -1), alice("PEXPIRETIME", key))
            for key in keys}


def history(random: Random, length: int) -> list[Command]:
    """A log without an error: strings s0 s1 s2, counters n0 n1, lists l0 l1."""
    log, kinds = list[Command](), ("SET", "SET", "INCR", "INCR", "RPUSH", "RPUSH", "LPOP", "DEL", "PEXPIREAT")
    sizes = Counter[bytes]()
    for number in range(length):
        kind = random.choice(kinds)
        if kind == "SET":
            key, rest = random.choice((b"s0", b"s1", b"s2", b"n0")), [b"%d" % number]
            sizes[key] = 1
        elif kind == "INCR":
            key, rest = random.choice((b"n0", b"n1")), []
            sizes[key] = 1
        elif kind == "RPUSH":
            key, rest = random.choice((b"l0", b"l1")), [b"e%d" % number]
            sizes[key] += 1
        else:
            there = [key for key in sizes if sizes[key] and (kind != "LPOP" or key.startswith(b"l"))]
            if not there:
                continue
            key, rest = random.choice(there), [b"%d" % (4_000_000_000_000 + number)] if kind == "PEXPIREAT" else []
            sizes[key] -= {"LPOP": 1, "DEL": sizes[key]}.get(kind, 0)
        log.append([kind.encode(), key, *rest])
    return log


@exercise("09-3", "Do not compare commands with each other: execute the log, on a dict, and write down what is there at the end.",
          "Two dicts, values and deadlines. SET takes a deadline away, so does DEL, and so does the LPOP of the last element. INCR begins at 0.",
          "At the end, for each key: [b'SET', key, value] or [b'RPUSH', key, *elements], and [b'PEXPIREAT', key, ms] where it has a deadline.")
def rewritten(solution: Any) -> None:
    """Against: to shorten a log one must know which command undoes which."""
    small = [[command.split() for command in line.split(b"|")] for line in (
        b"SET a 1|SET a 2", b"INCR n|INCR n|INCR n", b"RPUSH l x|RPUSH l y|RPUSH l z|LPOP l", b"SET a 1|DEL a", b"RPUSH l x|LPOP l",
        b"SET a 1|PEXPIREAT a 4000000000000", b"SET a 1|PEXPIREAT a 4000000000000|SET a 2",
        b"SET a 1|PEXPIREAT a 4000000000000|DEL a|SET a 2", b"INCR n|PEXPIREAT n 4000000000000|INCR n",
        b"RPUSH l x|PEXPIREAT l 4000000000000|LPOP l|RPUSH l y")]
    random = Random(9)
    for log in (*small, *(history(random, length) for length in (10, 30, 60, 120, 200))):
        given = [list(command) for command in log]
        found = solution(given)
        if not isinstance(found, list) or not all(isinstance(command, (list, tuple)) and command and all(
                isinstance(word, bytes) for word in command) for command in found):
            raise Wrong(f"Return a list of lists of bytes, such as [[b'SET', b'a', b'2']]. It was {found!r:.200}.")
        said = " ; ".join(b" ".join(command).decode() for command in log)
        said = said if len(said) < 200 else f"a log of {len(log)} commands"
        wants, is_ = executed(log), executed([list(command) for command in found])
        for key in sorted({*wants, *is_}):
            if wants.get(key) != is_.get(key):
                raise Wrong(f"After {said}: {key} should be {_shown(wants.get(key))}, and after yours it is {_shown(is_.get(key))}.")
        most = len(wants) + sum(deadline != -1 for _, deadline in wants.values())
        if len(found) > most:
            raise Wrong(f"After {said}: {len(found)} commands, where {most} do: one for each key, one for each deadline.")


def _shown(entry: tuple[Any, int] | None) -> str:
    return "absent" if entry is None else f"{entry[0]!r}" + (f" with the deadline {entry[1]}" if entry[1] != -1 else " without a deadline")


# ---- 4 -------------------------------------------------------------------------------------------

AT_MOST, REST_MS = 9, 250


def durable(world: World) -> int:
    """How many INCR a power loss would leave, counted in the files."""
    found = 0
    for name in world.disk.list("/data/appendonlydir"):
        if name.endswith(".incr.aof"):
            found += world.disk.content(f"/data/appendonlydir/{name}", durable=True).count(record((b"INCR", b"visits")))
    return found


def fsyncs(world: World) -> int:
    return sum(done.kind == "fsync" and done.path.endswith(".incr.aof") for done in world.disk.operations)


def check_told(world: World, told: int, when: str) -> None:
    left = durable(world)
    if told - left > AT_MOST:
        raise Wrong(f"{when}: clients were told of {told} writes, and {left} are durable. {told - left} could be lost, and at most {AT_MOST} may.")


def fast(world: World) -> None:
    """One client, 500 writes, a millisecond apart; then fifty clients at once; then pipelines."""
    before, alice = fsyncs(world), world.connect("alice")
    told = 0
    for _ in range(500):
        told = alice("INCR", "visits")
        check_told(world, told, "One client, one write after the other")
        world.run(ms=1)
    needed, count = told // 10, fsyncs(world) - before
    if count > needed + 5:
        raise Wrong(f"{told} writes, a millisecond apart, and {count} fsyncs. There may be one for ten writes: {needed}.")
    clients = [world.connect() for _ in range(50)]
    before = fsyncs(world)
    for _ in range(10):
        for client in clients:
            client.send("INCR", "visits")
        while any(len(client.replies) == 0 for client in clients):
            world.step()
            told = max([told, *(client.replies[-1] for client in clients if client.replies)])
            check_told(world, told, "Fifty clients at once")
        for client in clients:
            client.replies.clear()
    count = fsyncs(world) - before
    if count > 15:
        raise Wrong(f"Ten times fifty clients wrote at once, each time in one turn, and there were {count} fsyncs. One a turn is enough.")
    for size in (3, 8, 25, 7, 2):
        for _ in range(size):
            alice.send("INCR", "visits")
        world.settle()
        told = alice.replies[-1]
        check_told(world, told, f"A pipeline of {size}")


def slow(world: World) -> None:
    """Some writes, and then nobody says anything."""
    alice, told = world.connect("alice"), 0
    for count in (1, 4, 9, 3, 1, 12):
        for _ in range(count):
            told = alice("INCR", "visits")
        world.run(ms=REST_MS)
        if durable(world) < told:
            raise Wrong(f"{count} writes, and then nobody wrote for {REST_MS} ms. {told - durable(world)} of them are not durable yet.")
        world.run(ms=137)
    before = fsyncs(world)
    world.run(ms=5_000)
    if fsyncs(world) > before:
        raise Wrong(f"Nobody wrote for five seconds, and there were {fsyncs(world) - before} fsyncs.")
    world.run(ms=60)
    start_ms = world.clock.monotonic_us() / 1000        # 8 writes, 40 ms apart: the first of them is the oldest
    for _ in range(8):
        told = alice("INCR", "visits")
        world.run(ms=40)
    world.run(ms=max(0.0, start_ms + REST_MS - world.clock.monotonic_us() / 1000))
    if durable(world) < told - 7:
        raise Wrong(f"A write every 40 ms, never ten: after {REST_MS} ms the first of them is not durable yet.")


def rewriting(world: World) -> None:
    """A rewrite in the midst of writes, and then the plug."""
    alice, told = world.connect("alice"), 0
    for number in range(60):
        told = alice("INCR", "visits")
        if number == 33:
            alice("BGREWRITEAOF")
        world.run(ms=3)
    world.power_loss("synced")
    world.start(appendonly="yes", appendfsync="no")
    left = int(world.connect()("GET", "visits") or 0)
    if told - left > AT_MOST:
        raise Wrong(f"The plug was pulled after a rewrite: {told} writes told, {left} recovered. At most {AT_MOST} may be lost.")


def pulled(world: World) -> None:
    """The plug, after each number of writes from 1 to 40: does the next server really find them?"""
    total = 0
    for count in range(1, 41):
        alice = world.connect("alice")
        for _ in range(count):
            total = alice("INCR", "visits")
        world.power_loss("synced")
        world.start(appendonly="yes", appendfsync="no")
        left = int(world.connect()("GET", "visits") or 0)
        if total - left > AT_MOST:
            raise Wrong(f"The plug was pulled after {count} writes: {total} told, {left} recovered. At most {AT_MOST} may be lost.")


@exercise("09-4", "len(self.effects) before super().flush(force) says how many effects this turn writes. Add them up until there is an fsync.",
          "Ten or more that are not durable: self.fsync(), in flush itself, so before the replies. Fewer: remember when the oldest was written "
          "(self.server.now_us), and fsync when that is 150 ms ago. flush comes ten times a second by itself, so 250 ms are kept.",
          "class attributes waiting = 0, since_us = 0. In flush: new = len(self.effects); super().flush(force); if new and not self.waiting: self.since_us = now; "
          "self.waiting += new; if self.waiting >= 10 or self.waiting and now - self.since_us >= 150_000: self.fsync(); self.waiting = 0.")
def at_most_nine(solution: Any) -> None:
    """Against: there is nothing between always and everysec."""
    if not (isinstance(solution, type) and issubclass(solution, AppendOnlyFile)):
        raise Wrong("Give judge the class itself, a subclass of AppendOnlyFile.")
    checks: tuple[Callable[[World], None], ...] = (fast, slow, rewriting, pulled)
    with patch("kvref.server.AppendOnlyFile", solution):
        for check in checks:
            world = World(seed=1)
            world.start(appendonly="yes", appendfsync="no")
            check(world)
