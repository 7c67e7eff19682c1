"""What a sorted set of a million members costs beside one of a thousand: a search is to take O(log n) steps.

One server holds both and is asked for them in turns, so what disturbs both cancels out: a command at a time, and in
pipelines.
A command alone pays for its way through the kernel, too, which does not depend on the set: this is what a client sees
and what is judged. In a pipeline little but the command itself is left, and the processor's caches show: a
thousand members lie in them, a million do not, and scores are drawn at random, so neighbours in the order are far from
one another in memory. There redis-server's own ratio is the measure.
"""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Callable, Iterable
from io import BufferedRWPair
from random import Random
from statistics import median

from .report import Rounds, Target, progress, table
from .servers import CannotRun, Server, kvref, redis, running

SMALL, LARGE = 1_000, 1_000_000
SLICES, TRIPS, DEPTH = 20, 160, 16
TARGET = Target("≤", 3, reach=2)
HEAD = ("command", "server", "alone, µs: of 1,000", "of 1,000,000", "ratio", "target",
        "in pipelines, CPU µs: of 1,000", "of 1,000,000", "ratio")
PAIRS = 100                     # members of one ZADD while the sets are filled

Words = list[bytes]


def key(size: int) -> bytes:
    return b"of:%d" % size


def member(number: int) -> bytes:
    return b"member:%d" % number


def score(random: Random) -> bytes:
    return repr(random.random()).encode()


def ten(random: Random, size: int) -> Words:
    start = random.randrange(size - 10)
    return [b"ZRANGE", key(size), b"%d" % start, b"%d" % (start + 9)]


COMMANDS: dict[str, Callable[[Random, int], Words]] = {
    "ZADD, a new member": lambda random, size: [b"ZADD", key(size), score(random), b"new:%d" % random.randrange(10**9)],
    "ZADD, a new score": lambda random, size: [b"ZADD", key(size), score(random), member(random.randrange(size))],
    "ZRANK": lambda random, size: [b"ZRANK", key(size), member(random.randrange(size))],
    "ZRANGE of ten": ten,
    "ZPOPMIN": lambda random, size: [b"ZPOPMIN", key(size)],
}

# How the set is brought back to its size.
UNDO: dict[str, Callable[[BufferedRWPair, int, Random, list[Words]], None]] = {
    "ZADD, a new member": lambda stream, size, random, commands: ask(
        stream, [[b"ZREM", key(size), *(words[-1] for words in commands)]]),
    "ZPOPMIN": lambda stream, size, random, commands: add(
        stream, size, random, (b"again:%d" % random.randrange(10**9) for _ in commands)),
}


def measure(options: Namespace) -> str:
    figures = {name: [Rounds() for _ in range(6)] for name in COMMANDS}
    seconds, memory = Rounds(), Rounds()
    kinds = (redis(), kvref(options.server))
    for number in range(options.rounds):
        for kind in kinds:
            progress(f"sorted_sets: round {number + 1} of {options.rounds}, {kind.name}")
            with running(kind) as server, server.connect() as sock, sock.makefile("rwb") as stream:
                fill(stream, SMALL)
                before, started = server.resident_bytes(), time.perf_counter()
                fill(stream, LARGE)
                seconds.add(kind.name, time.perf_counter() - started)
                memory.add(kind.name, (server.resident_bytes() - before) / LARGE)
                for name in COMMANDS:
                    for column, figure in zip(figures[name], one_round(server, stream, name)):
                        column.add(kind.name, figure)
    filling = ", ".join(f"{kind.name} {seconds.median(kind.name):.1f} s, {memory.median(kind.name):.0f} bytes a member"
                        for kind in kinds)
    return (f"Sorted sets: of {LARGE:,} members beside {SMALL:,}; medians of {options.rounds} rounds. "
            f"Filling the large one, {PAIRS} members a command: {filling}.\n\n"
            + table(HEAD, [row(name, kind.name, columns) for name, columns in figures.items() for kind in kinds]))


def fill(stream: BufferedRWPair, size: int) -> None:
    random = Random(1)
    for first in range(0, size, PAIRS):
        add(stream, size, random, map(member, range(first, first + PAIRS)))


def add(stream: BufferedRWPair, size: int, random: Random, members: Iterable[bytes]) -> None:
    ask(stream, [[b"ZADD", key(size), *(word for name in members for word in (score(random), name))]])


def one_round(server: Server, stream: BufferedRWPair, name: str) -> list[float]:
    """Alone, µs: the small set, the large one, the ratio; in pipelines, CPU µs: the same."""
    random = Random(name)
    costs: dict[int, list[tuple[float, float]]] = {SMALL: [], LARGE: []}
    for _ in range(SLICES):
        for size, found in costs.items():
            commands = [COMMANDS[name](random, size) for _ in range(2 * TRIPS)]
            alone = median(trip_us(stream, words) for words in commands[:TRIPS])
            before = server.cpu_us()
            for first in range(TRIPS, 2 * TRIPS, DEPTH):
                ask(stream, commands[first:first + DEPTH])
            found.append((alone, (server.cpu_us() - before) / TRIPS))
            if name in UNDO:
                UNDO[name](stream, size, random, commands)
    return [figure for small, large in zip(zip(*costs[SMALL]), zip(*costs[LARGE]))
            for figure in (median(small), median(large), median(b / a for a, b in zip(small, large)))]


def trip_us(stream: BufferedRWPair, words: Words) -> float:
    started = time.perf_counter()
    ask(stream, [words])
    return (time.perf_counter() - started) * 1e6


def ask(stream: BufferedRWPair, commands: list[Words]) -> None:
    """Send them all, then read all replies."""
    stream.write(b"".join([b"*%d\r\n" % len(words) + b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words])
                           for words in commands]))
    stream.flush()
    for _ in commands:
        skip_reply(stream)


def skip_reply(stream: BufferedRWPair) -> None:
    line = stream.readline()
    if line[:1] == b"*":
        for _ in range(int(line[1:])):
            skip_reply(stream)
    elif line[:1] == b"$":
        stream.read(max(-2, int(line[1:])) + 2)
    elif line[:1] != b":":
        raise CannotRun(f"no reply was expected to be {line!r}.")


def row(name: str, server: str, columns: list[Rounds]) -> list[str]:
    small, large, ratio, *piped = [column.median(server) for column in columns]
    return [name, server, f"{small:.1f}", f"{large:.1f}", f"{ratio:.2f}", TARGET.verdict(server, ratio),
            *(format(figure, form) for figure, form in zip(piped, (".1f", ".1f", ".2f")))]
