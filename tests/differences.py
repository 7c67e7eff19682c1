"""A machine that finds differences between kvref and a real redis-server by itself.

    python -m tests.differences [--commands N] [--minutes M] [--seed S] [--only SECTION ...]

Random commands (tests/grammar.py) go to redis-server and to kvref, in batches. Every reply is compared, and after each
batch what the servers have counted: changes, hits, misses. An *example* is a few hundred commands from an empty
keyspace, in RESP2 or RESP3. At its end Redis writes all that it has to its disk and loads it again (DEBUG RELOAD),
which gives every value the encoding of one freshly loaded; then type, encoding, deadline and content of all keys must
be the same.

The first difference ends an example. Its commands are dropped one by one while the difference stays, and what is left
is printed as a golden script: put it into tests/scripts/, and `python -m tests.record` adds the replies.

tests/test_differences.py does the same with Hypothesis, always with the same commands.

kvref stands in this process, on a simulated computer whose wall clock is set to the real one before each batch.
Deadlines are far from now, and on both sides only a command that meets an expired key deletes it.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import re
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from kvref import command_table
from kvref.lab.cli import format_reply, quote
from kvref.sim import World
from kvref.sim.explorer import least
from tests import golden, record
from tests.grammar import DATABASES, TABLE, Author, Command

EXAMPLE = 300               # commands of one example in the long form ...
BATCH = 50                  # ... sent in one go
SHOWN = 400                 # characters of a reply in a report
DIRECTIVES = {"enable-debug-command": "yes"}
AT_FIRST = ("DEBUG SET-ACTIVE-EXPIRE 0", "CONFIG SET hash-max-listpack-entries 128 hash-max-listpack-value 64 "
            "zset-max-listpack-entries 128 zset-max-listpack-value 64 set-max-intset-entries 512")

Words = Sequence[bytes]


# --- replies as bytes ------------------------------------------------------------------------------------------------

AGGREGATES, BULKS, MAP = b"*~%>", b"$=", ord("%")
SIZED = AGGREGATES + BULKS


def end_of(data: bytes, at: int) -> int:
    """Where the reply at this place ends. ValueError: it is not whole yet."""
    missing = 1                                         # replies; a list is one, and its items are so many more
    while missing:
        line_end = data.index(b"\r\n", at)
        mark = data[at]
        size = int(data[at + 1:line_end]) if mark in SIZED else -1
        at = line_end + 2
        if size >= 0 and mark in BULKS:
            at += size + 2
        elif size >= 0:
            missing += 2 * size if mark == MAP else size
        missing -= 1
    if at > len(data):
        raise ValueError("not whole")
    return at


class Tree(NamedTuple):
    """A list, a set or a map: its mark, and the items, those of a map flat. Whatever has no items stays as bytes."""

    mark: bytes
    items: list[Any]

    def leaves(self) -> Iterator[bytes]:
        for item in self.items:
            yield from item.leaves() if isinstance(item, Tree) else [item]


def tree(data: bytes, at: int = 0) -> Any:
    mark, end = data[at:at + 1], end_of(data, at)
    first = data.index(b"\r\n", at) + 2
    if mark not in AGGREGATES or data[at + 1:at + 3] == b"-1":
        return data[at:end]
    items = []
    while first < end:
        items.append(tree(data, first))
        first = end_of(data, first)
    return Tree(mark, items)


def in_order(reply: Any, group: int = 1) -> Any:
    """The same, with the items of a list sorted, by groups of so many."""
    if not isinstance(reply, Tree):
        return reply
    group = 2 if reply.mark == b"%" else group
    rows = sorted((reply.items[at:at + group] for at in range(0, len(reply.items), group)), key=repr)
    return Tree(reply.mark, rows)


def shown(reply: bytes) -> str:
    """As redis-cli prints it, but not all of something long."""
    value = golden.replies(reply)[0][0]
    text = "(nil array)" if reply == b"*-1\r\n" else format_reply(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + " ..."


# --- the two sides ---------------------------------------------------------------------------------------------------

def encoded(commands: Sequence[Words]) -> bytes:
    return b"".join([b"*%d\r\n%b" % (len(words), b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words]))
                     for words in commands])


class Side:
    """A server, and one connection to it. `send` takes bytes and returns what comes back, piece by piece."""

    def send(self, data: bytes) -> Iterator[bytes]: ...         # type: ignore[empty-body]

    def ask(self, commands: Sequence[Words]) -> list[bytes]:
        """The replies to these commands, sent in one go."""
        return self.collect(self.send(encoded(commands)), len(commands))

    def collect(self, pieces: Iterator[bytes], count: int) -> list[bytes]:
        """So many replies."""
        return list(cut(pieces, count))


def cut(pieces: Iterator[bytes], count: int) -> Iterator[bytes]:
    data, at = b"", 0
    while count:
        data, at = data[at:] + next(pieces), 0
        with contextlib.suppress(ValueError):
            while count:
                end = end_of(data, at)
                yield data[at:end]
                at, count = end, count - 1


class Redis(Side):
    """redis-server."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data: bytes) -> Iterator[bytes]:
        self.sock.sendall(data)                         # now: it can work while we ask kvref
        return self._pieces()

    def _pieces(self) -> Iterator[bytes]:
        while data := self.sock.recv(1 << 20):
            yield data
        raise ConnectionError("redis-server has closed the connection")


class Kvref(Side):
    """kvref in this process, on a computer of its own."""

    def __init__(self) -> None:
        self.boot()

    def boot(self) -> None:
        self.world = World(capacity=1 << 30)
        self.server = self.world.start(**DIRECTIVES)
        self.server.loop.observers.clear()              # a trace would grow with each command
        self.sock = self.world.network.connect("127.0.0.1", self.server.config.port)
        self.dead = False

    def send(self, data: bytes) -> Iterator[bytes]:
        clock, network, loop = self.world.clock, self.world.network, self.server.loop
        clock.jump((time.time_ns() // 1000 - clock.time_us()) // 1000)
        network.send(self.sock, data)
        for _ in range(100 + len(data) // 1000):
            loop.step(0)
            while piece := network.recv(self.sock, 1 << 30):
                yield piece
        raise ConnectionError("kvref answers no more")

    def collect(self, pieces: Iterator[bytes], count: int) -> list[bytes]:
        """A handler that fails with anything but an error reply has its traceback for a reply."""
        found: list[bytes] = []
        try:
            for reply in cut(pieces, count):
                found.append(reply)
        except Exception:
            self.dead = True
            told = traceback.format_exc(limit=-2).encode()
            found += [b"=%d\r\ntxt:%b\r\n" % (len(told) + 4, told)] * (count - len(found))
        return found


# --- how replies are compared ----------------------------------------------------------------------------------------

class Exchange(NamedTuple):
    """A command and what both sides said: to it, and to the questions that its check asks right behind it."""

    pair: Pair
    command: Command
    how: str                    # the words of the check behind its first
    redis: bytes
    kvref: bytes
    more_redis: list[bytes]
    more_kvref: list[bytes]


def same(x: Exchange) -> bool:
    return x.redis == x.kvref


def unordered(x: Exchange) -> bool:
    """The same items in any order; `pairs` stay together."""
    group = 2 if x.how == "pairs" else 1
    return same(x) or in_order(tree(x.redis), group) == in_order(tree(x.kvref), group)


def listed(x: Exchange) -> bool:
    """A hash is in order as long as Redis keeps it in a listpack; a hash table has an order of its own."""
    return same(x) or x.more_redis != [b"$8\r\nlistpack\r\n"] and unordered(x)


def ordered(x: Exchange) -> bool:
    """Redis compares what precedes a zero byte; what is equal is in any order. `by nosort` a set has no order."""
    no_order = b"\0" in x.redis or x.how and x.more_redis == [b"+set\r\n"]
    return same(x) or bool(no_order) and shape(tree(x.redis)) == shape(tree(x.kvref))


def within(x: Exchange) -> bool:
    """Numbers that differ by this at most. Negative ones stand for something else, such as no deadline."""
    if same(x) or not x.redis[:1] == x.kvref[:1] == b":":
        return same(x)
    theirs, ours = int(x.redis[1:]), int(x.kvref[1:])
    return min(theirs, ours) >= 0 and abs(theirs - ours) <= int(x.how)


def drawn(x: Exchange) -> bool:
    """As many of what is there; with a positive count never the same twice."""
    theirs, ours = tree(x.redis), tree(x.kvref)
    source = tree(x.more_redis[0])
    if not isinstance(source, Tree):                    # an error, or there is no such key
        return same(x)
    there = list(source.leaves())
    if not isinstance(theirs, Tree) or not isinstance(ours, Tree):
        return same(x) or (theirs in there and ours in there)
    with_values = x.command.words[-1][:4].upper() == b"WITH"
    wanted = list(zip(there[::2], there[1::2])) if with_values else there
    again = x.command.words[2].startswith(b"-")

    def is_good(reply: Tree) -> bool:
        leaves = list(reply.leaves())
        found = list(zip(leaves[::2], leaves[1::2])) if with_values else leaves
        return set(found) <= set(wanted) and (again or len(set(found)) == len(found))
    return shape(theirs) == shape(ours) and is_good(theirs) and is_good(ours)


def shape(reply: Any) -> Any:
    return (reply.mark, [shape(item) for item in reply.items]) if isinstance(reply, Tree) else reply[:1]


def popped(x: Exchange) -> bool:
    """As many, each once. Then kvref's set is made Redis's again."""
    theirs, ours = tree(x.redis), tree(x.kvref)
    if same(x) or x.redis[:1] == b"-" or shape(theirs) != shape(ours):
        return same(x)
    taken, others = ([bulk(leaf) for leaf in (reply.leaves() if isinstance(reply, Tree) else [reply])]
                     for reply in (ours, theirs))
    if set(taken) == set(others):
        return True
    key, expected = x.command.words[1], b":%d\r\n" % len(taken)
    return x.pair.kvref.ask([[b"SADD", key, *taken], [b"SREM", key, *others]]) == [expected, expected]


def bulk(reply: bytes) -> bytes:
    return reply[reply.index(b"\r\n") + 2:-2]


def iterated(x: Exchange) -> bool:
    """Cursors differ. What a whole iteration finds does not: the items of all its pages."""
    if x.redis[:1] == b"-" or x.kvref[:1] == b"-":
        return same(x)
    words, at = list(x.command.words), 1 if x.command.name == "SCAN" else 2
    group = 2 if x.command.name in ("HSCAN", "ZSCAN") else 1
    theirs, ours = (whole(side, words, at, group) for side in (x.pair.redis, x.pair.kvref))
    if theirs != ours and x.more_redis == [b"$8\r\nskiplist\r\n"]:      # may be small, and yet print as a large one
        return numbered(theirs) == numbered(ours)
    return theirs == ours


def numbered(pairs: set[tuple[bytes, ...]]) -> set[tuple[bytes, float]]:
    return {(member, float(bulk(score))) for member, score in pairs}


def whole(side: Side, words: list[bytes], at: int, group: int) -> set[tuple[bytes, ...]]:
    cursor, found = b"0", set()
    for _ in range(100_000):
        reply = tree(side.ask([[*words[:at], cursor, *words[at + 1:]]])[0])
        if not isinstance(reply, Tree):
            return {(reply,)}
        page = list(reply.items[1].leaves())
        found |= {tuple(page[at:at + group]) for at in range(0, len(page), group)}
        cursor = bulk(reply.items[0])
        if cursor == b"0":
            break
    return found


class Check(NamedTuple):
    """The first word of a check, such as "within 5"."""

    agrees: Callable[[Exchange], bool]
    asks: str = ""              # right behind the command; `key` is its first argument; "from": what the check names
    first: str = ""             # goes before the command
    is_dialogue: bool = False   # goes on when it has seen the replies: nothing may be sent behind the command before
    counts: bool = True         # False: hits and misses depend on what a cursor happens to meet


CHECKS = {
    "same": Check(same),
    "ignored": Check(lambda x: True),
    "unordered": Check(unordered),
    "within": Check(within),
    "listed": Check(listed, "OBJECT ENCODING key"),
    "drawn": Check(drawn, "from"),
    "popped": Check(popped, is_dialogue=True),
    "iterated": Check(iterated, "OBJECT ENCODING key", is_dialogue=True, counts=False),
    # SORT of Redis 7.0 takes the ERANGE that any earlier number has left in errno for its own; this sets it to 0
    "sorted": Check(ordered, "TYPE key", first="INCRBYFLOAT errno x"),
}


def check_of(command: Command) -> tuple[Check, str]:
    name, _, how = command.check.partition(" ")
    return CHECKS[name], how


def questions(command: Command) -> list[Words]:
    """What else is asked, behind the command itself."""
    check, how = check_of(command)
    asks = how.removeprefix("from ") if check.asks == "from" else check.asks
    key = command.words[1] if len(command.words) > 1 else b""
    return [[key if word == "key" else word.encode() for word in asks.split()]] if asks else []


# --- an example ------------------------------------------------------------------------------------------------------

COUNTERS = ("rdb_changes_since_last_save", "keyspace_hits", "keyspace_misses")
COUNTED = re.compile(rb"(%s):(\d+)" % "|".join(COUNTERS).encode())
INFO: list[Words] = [[b"INFO", b"persistence"], [b"INFO", b"stats"]]

# Asked at the end: of a database, and of each key in it
OF_DATABASE = ("SCAN 0 COUNT 100000 ~ ignored", "KEYS * ~ unordered", "DBSIZE")     # SCAN deletes what has expired
OF_KEY = ("TYPE key", "OBJECT ENCODING key", "OBJECT REFCOUNT key", "PEXPIRETIME key ~ within 5000")
CONTENT = {b"string": "GET key", b"list": "LRANGE key 0 -1", b"hash": "HGETALL key ~ unordered pairs",
           b"set": "SMEMBERS key ~ unordered", b"zset": "ZRANGE key 0 -1 WITHSCORES"}


def asked(text: str, key: bytes = b"") -> Command:
    words, _, check = text.partition(" ~ ")
    return Command([key if word == "key" else word.encode() for word in words.split()], check or "same")


class Difference(NamedTuple):
    """Where kvref is not Redis."""

    words: Words                # the command, or a question at the end of an example
    redis: str
    kvref: str

    def __str__(self) -> str:
        replies = [f"# Redis: {self.redis}", f"# kvref: {self.kvref}"]
        return "\n".join([line(self.words), *(reply.replace("\n", "\n#        ") for reply in replies)])

    @property
    def signature(self) -> tuple[object, ...]:
        """The same for differences that are likely to be the same."""
        kinds = (reply[:60] if reply.startswith(("(error)", "Traceback")) else "" for reply in self[1:])
        return (self.words[0].upper(), *kinds)


def tolerated(words: Words, reply: bytes) -> bytes:
    """A reply without what kvref does otherwise on purpose: it stores a score of -0 as 0, Redis in small sets only."""
    if b"-0\r\n" in reply and words[0][:1] in b"Zz":
        return reply.replace(b"$2\r\n-0\r\n", b"$1\r\n0\r\n").replace(b",-0\r\n", b",0\r\n")
    return reply


def on_the_wire(batch: list[Command]) -> tuple[list[Words], list[tuple[Command, int, int]]]:
    """All that is sent; and of each command where its reply will be, and where the replies to its questions end."""
    wire: list[Words] = []
    places = []
    for command in batch:
        check = check_of(command)[0]
        wire += [asked(check.first).words] if check.first else []
        wire += [] if check.counts else INFO            # before it, and it is the last
        at = len(wire)
        wire += [command.words, *questions(command)]
        places.append((command, at, len(wire)))
    return wire + (INFO if check.counts else []), places


class Pair:
    """Redis and kvref, side by side."""

    def __init__(self, port: int) -> None:
        self.redis, self.kvref = Redis(port), Kvref()
        self.counted = self.count()
        self.batch = BATCH                              # so many commands in one go

    def close(self) -> None:
        """Leave the server as it was found."""
        self.start(2)
        self.redis.ask([[b"DEBUG", b"SET-ACTIVE-EXPIRE", b"1"]])
        self.redis.sock.close()

    def difference(self, commands: Sequence[Command], resp: int) -> Difference | None:
        """Play an example; the first difference, if there is one."""
        self.start(resp)
        return self.run(commands) or self.finish()

    def start(self, resp: int) -> None:
        """An empty keyspace, counters at rest."""
        if self.kvref.dead:
            self.kvref.boot()
        lines = (f"HELLO {resp}", "SELECT 0", "FLUSHALL", *AT_FIRST)
        for side in (self.redis, self.kvref):
            side.ask([text.encode().split() for text in lines])
        self.counted = self.count()

    def run(self, commands: Sequence[Command]) -> Difference | None:
        """Send commands to both, as many in one go as can be; the first difference."""
        batch: list[Command] = []
        for number, command in enumerate(commands, 1):
            batch.append(command)
            if len(batch) == self.batch or number == len(commands) or check_of(command)[0].is_dialogue:
                if found := self._run(batch):
                    return found
                batch = []
        return None

    def _run(self, batch: list[Command]) -> Difference | None:
        wire, places = on_the_wire(batch)
        redis, kvref = self.ask(wire)
        for command, at, behind in places:
            check, how = check_of(command)
            if check.agrees is same and redis[at] == kvref[at]:
                continue
            more = redis[at + 1:behind], kvref[at + 1:behind]
            if not check.agrees(Exchange(self, command, how, redis[at], kvref[at], *more)):
                return Difference(command.words, shown(redis[at]), shown(kvref[at]))
        if self.kvref.dead:                             # of a command whose reply was on its way
            return Difference(batch[-1].words, shown(redis[places[-1][1]]), shown(kvref[-1]))
        before, after = self.counted, (counters(redis), counters(kvref))
        grown = [{name: now[name] - then[name] for name in COUNTERS} for now, then in zip(after, before)]
        if grown[0] != grown[1]:
            return Difference(batch[-1].words, *(f"INFO tells of {each}" for each in grown))
        self.counted = self.count() if check_of(batch[-1])[0].is_dialogue else after
        return None

    def ask(self, wire: list[Words]) -> tuple[list[bytes], list[bytes]]:
        """The replies of both, who work at the same time."""
        data = encoded(wire)
        pieces = self.redis.send(data)
        kvref = self.kvref.collect(self.kvref.send(data), len(wire))
        redis = self.redis.collect(pieces, len(wire))
        return list(map(tolerated, wire, redis)), list(map(tolerated, wire, kvref))

    def count(self) -> tuple[dict[str, int], dict[str, int]]:
        redis, kvref = self.ask(INFO)
        return counters(redis), counters(kvref)

    def finish(self) -> Difference | None:
        """Compare all that is there, once Redis has loaded it afresh."""
        selects = [Command([b"SELECT", b"%d" % number]) for number in DATABASES]
        if found := self.run([each for select in selects for each in (select, *map(asked, OF_DATABASE))]):
            return found
        assert self.redis.ask([[b"DEBUG", b"RELOAD"]]) == [b"+OK\r\n"]
        commands = []
        for select in selects:
            keys = [bulk(key) for key in tree(self.redis.ask([select.words, [b"KEYS", b"*"]])[1]).items]
            types = [reply[1:-2] for reply in self.redis.ask([[b"TYPE", key] for key in keys])]
            commands.append(select)
            for key, kind in zip(keys, types):
                commands += [asked(text, key) for text in (*OF_KEY, CONTENT[kind])]
        self.counted = self.count()
        return self.run(commands)


def counters(info: list[bytes]) -> dict[str, int]:
    text = b"".join(reply for reply in info if b"# " in reply[:20])
    return {name.decode(): int(number) for name, number in COUNTED.findall(text)}


# --- what is left of an example --------------------------------------------------------------------------------------

def shrink(pair: Pair, commands: Sequence[Command], resp: int,
           found: Difference) -> tuple[list[Command], int, Difference]:
    """Drop commands, then words, as long as the same command differs. For `script`.

    Sent one by one, so that it is known which command it was; or in pipelines, where this makes no difference.
    """
    def differs(fewer: Sequence[Command]) -> bool:
        nonlocal found
        now = pair.difference(fewer, resp)
        if now is None or now.words[0].upper() != found.words[0].upper():
            return False
        found = now
        return True

    pair.batch = 1
    if alone := pair.difference(commands, resp):
        found = alone
    else:
        pair.batch = BATCH
    left = least(commands, differs)
    for at, command in enumerate(left):
        def still(words: list[bytes]) -> bool:
            return differs([*left[:at], Command([command.words[0], *words], command.check), *left[at + 1:]])
        left[at] = Command([command.words[0], *least(command.words[1:], still)], command.check)
    pair.batch = BATCH
    return left, resp, found


def script(commands: Sequence[Command], resp: int, found: Difference | None = None) -> str:
    """In the form of a golden script, without its replies."""
    lines = [f"HELLO {resp}"] * (resp == 3) + [line(command.words) for command in commands]
    if found and commands and lines[-1] == line(found.words):
        lines.pop()
    return "\n".join([*lines, *([str(found)] if found else [])])


def line(words: Words) -> str:
    return " ".join(word.decode() if re.fullmatch(rb"[!$-&(-~]+", word) else quote(word) for word in words)


# --- the long form ---------------------------------------------------------------------------------------------------

def available() -> frozenset[str]:
    """What kvref has."""
    return frozenset(row.name for row in command_table.commands())


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.differences", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--commands", type=int, default=100_000, help="how many (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=1e9, help="... or for how long")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="the same seed, the same commands")
    parser.add_argument("--only", nargs="+", choices=list(TABLE), metavar="SECTION", help=f"of {', '.join(TABLE)}")
    parser.add_argument("--stop", type=int, default=20, help="after so many differences (default: %(default)s)")
    options = parser.parse_args(argv)
    with record.RedisServer(DIRECTIVES) as server:
        return hunt(Pair(server.port), options)


def hunt(pair: Pair, options: argparse.Namespace) -> int:
    """Example after example; the number of differences, as far as they look different."""
    started = said = time.monotonic()
    sent = number = 0
    seen: set[tuple[object, ...]] = set()
    print(f"seed {options.seed}")
    while sent < options.commands and time.monotonic() < started + options.minutes * 60 and len(seen) < options.stop:
        number += 1
        author = Author(random.Random(f"{options.seed} {number}"), available(), options.only)
        commands, resp = author.opening() + [author.command() for _ in range(EXAMPLE)], 2 + number % 2
        found = pair.difference(commands, resp)
        sent += EXAMPLE
        if found and found.signature not in seen:
            seen.add(found.signature)
            told = script(*shrink(pair, commands, resp, found))
            print(f"\n# seed {options.seed}, example {number}\n{told}\n", flush=True)
        if time.monotonic() > said + 1 or sent >= options.commands:
            said = time.monotonic()
            progress(f"{sent:,} commands, {sent / (said - started):,.0f} a second, {len(seen)} differences")
    progress(f"{sent:,} commands, {sent / (time.monotonic() - started):,.0f} a second, {len(seen)} differences\n")
    return min(len(seen), 1)


def progress(text: str) -> None:
    sys.stderr.write(f"\r\x1b[K{text}" if sys.stderr.isatty() else text if text.endswith("\n") else "")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
