"""Caches: workloads, the exact algorithms, and kvref on the same requests.

    requests = zipf()                                   # a list of keys, as a website asks for its pages
    lru(requests, 100)                                  # hit rate of a cache with room for 100 keys
    through_kvref(requests, "allkeys-lru", 100)         # a Run: hit rate, evicted, refused

Interface:
  - zipf, scans, loop, shifting         workloads; WORKLOADS holds them by name
  - lru, lfu, belady, chance            models (requests, room) -> hit rate, each O(log n) a request or better; MODELS
  - through_kvref                       cache-aside through a real server in virtual time -> Run
  - Desk, counters                      a server and a client without a wire; LFU's counter after so many reads
  - model_rates, rate_table, panels     hit rate against memory, for each workload; a table and a figure
  - Slow, rush                          visitors who wait for a slow database -> Rush: how often it was asked

All is drawn from seeds, so that two runs see the same. A workload is a list of ints; on the wire key 7 is `page:7`.

Simpler than a website: all pages are of one size, requests come one at a time, at even distances. No page changes.
"""

from __future__ import annotations

import heapq
from collections import Counter, OrderedDict
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from itertools import accumulate
from random import Random
from typing import Any, Final, NamedTuple

from kvref.lab.figures import BLACK, BLUE, GREEN, ORANGE, PINK, RED, SKY, figure
from kvref.lab.table import Table
from kvref.sim import World

NEVER: Final = 1 << 60
MISS, PAGE = b"$-1\r\n", b"<html>" + 94 * b"."       # a reply, and a page of 100 bytes

INKS: Final = {"exact LRU": (BLUE, "--", ""), "exact LFU": (ORANGE, "--", ""), "Belady's optimum": (BLACK, "--", ""),
               "allkeys-lru": (BLUE, "-", "o"), "allkeys-lfu": (ORANGE, "-", "s"), "allkeys-random": (GREEN, "-", "^"),
               "volatile-ttl": (PINK, "-", "D"), "noeviction": (RED, "-", "v")}        # colour, line, marker


# ---- workloads -----------------------------------------------------------------------------------

def zipf(length: int = 2_000, keys: int = 500, seed: int = 1) -> list[int]:
    """Key number n is asked for with a weight of 1/n: few are popular, many are rare."""
    weights = list(accumulate(1 / number for number in range(1, keys + 1)))
    return Random(seed).choices(range(1, keys + 1), cum_weights=weights, k=length)


def scans(length: int = 2_000, keys: int = 500, every: int = 250, scan: int = 150, seed: int = 1) -> list[int]:
    """Zipf, and after `every` such requests somebody reads `scan` keys in a row that nobody asks for again."""
    popular, requests = iter(zipf(length, keys, seed)), list[int]()
    while len(requests) < length:
        requests += [next(popular) for _ in range(every)]
        requests += range(keys + len(requests), keys + len(requests) + scan)
    return requests[:length]


def loop(length: int = 2_000, keys: int = 220) -> list[int]:
    """All keys in their order, again and again."""
    return [1 + number % keys for number in range(length)]


def shifting(length: int = 2_000, keys: int = 500, phases: int = 4, seed: int = 1) -> list[int]:
    """Zipf, in so many phases; each has popular keys of its own."""
    return [number + keys * (place * phases // length) for place, number in enumerate(zipf(length, keys, seed))]


WORKLOADS: Final[Mapping[str, Callable[..., list[int]]]] = {
    "Zipf": zipf, "Zipf with scans": scans, "loop": loop, "shifting": shifting}


# ---- exact models --------------------------------------------------------------------------------

def lru(requests: Sequence[int], room: int) -> float:
    """Least recently used: evict the key whose last use is longest ago."""
    cache, hits = OrderedDict[int, None](), 0           # in the order of their last use
    for key in requests:
        if key in cache:
            hits += 1
            cache.move_to_end(key)
        else:
            if len(cache) == room:
                cache.popitem(last=False)
            cache[key] = None
    return hits / len(requests)


def lfu(requests: Sequence[int], room: int) -> float:
    """Least frequently used since it came in; of several the one whose last use is longest ago."""
    used, hits = dict[int, tuple[int, int]](), 0        # key -> (uses, last use); only what is in the cache
    heap = list[tuple[tuple[int, int], int]]()          # holds old pairs, too: they are passed over
    for now, key in enumerate(requests):
        if key in used:
            hits += 1
        elif len(used) == room:
            while used.get(heap[0][1]) != heap[0][0]:
                heapq.heappop(heap)
            del used[heapq.heappop(heap)[1]]
        used[key] = used.get(key, (0, 0))[0] + 1, now
        heapq.heappush(heap, (used[key], key))
    return hits / len(requests)


def belady(requests: Sequence[int], room: int) -> float:
    """The optimum, which knows the future: evict whose next use is farthest, be it the key that has just come."""
    next_use, comes = [NEVER] * len(requests), dict[int, int]()
    for now in range(len(requests) - 1, -1, -1):        # backwards: what comes next?
        next_use[now] = comes.get(requests[now], NEVER)
        comes[requests[now]] = now
    cache, hits = dict[int, int](), 0                   # key -> its next use
    heap = list[tuple[int, int]]()                      # (minus its next use, key); old pairs are passed over
    for key, again in zip(requests, next_use):
        hits += key in cache
        cache[key] = again
        heapq.heappush(heap, (-again, key))
        if len(cache) > room:
            while cache.get(heap[0][1]) != -heap[0][0]:
                heapq.heappop(heap)
            del cache[heapq.heappop(heap)[1]]
    return hits / len(requests)


def chance(requests: Sequence[int], room: int, seed: int = 1) -> float:
    """Evict any key, drawn at random."""
    random, cache, inside, hits = Random(seed), list[int](), set[int](), 0
    for key in requests:
        if key in inside:
            hits += 1
            continue
        if len(cache) == room:
            place = random.randrange(room)
            inside.remove(cache[place])
            cache[place] = cache[-1]
            cache.pop()
        cache.append(key)
        inside.add(key)
    return hits / len(requests)


MODELS: Final[Mapping[str, Callable[[Sequence[int], int], float]]] = {
    "exact LRU": lru, "exact LFU": lfu, "Belady's optimum": belady}


# ---- kvref on the same requests ------------------------------------------------------------------

class Run(NamedTuple):
    """What became of a workload."""

    hit_rate: float
    evicted: int
    refused: int                # SETs that were answered OOM
    older: list[float]          # of each evicted key: the share of the keys that had been idle for longer
    stalest_s: float            # the age of the oldest page that was served
    peak: int                   # bytes of memory


def through_kvref(requests: Sequence[int], policy: str, room: int | str, *, gap_ms: int = 100, ttl_s: int = 0,
                  **directives: object) -> Run:
    """Cache-aside: GET, and after a miss SET, so many virtual milliseconds apart; with `ttl_s`, SET ... EX.

    `room`: for so many pages, or the value of `maxmemory` as text."""
    desk = Desk(policy, ttl_s=ttl_s, **directives)
    desk.ask("CONFIG", "SET", "maxmemory", room if isinstance(room, str) else desk.bytes_for(room))
    for key in requests:
        desk.visit(b"page:%d" % key)
        desk.rest(gap_ms)
    memory = desk.server.memory
    peak = max(memory.used(), memory.peak)
    return Run(desk.hits / len(requests), len(desk.older), desk.refused, desk.older, desk.stalest_ms / 1000, peak)


class Desk:
    """A server, and one client that needs no wire: commands go to Server.execute, which is ten times as fast."""

    def __init__(self, policy: str, *, ttl_s: int = 0, **directives: object) -> None:
        self.world, self.evicts = World(seed=1), policy != "noeviction"
        self.server = self.world.start(maxmemory=1 << 30, maxmemory_policy=policy, databases=1, **directives)
        self.server.loop.observers.clear()              # the trace of this world, which nobody reads
        self.world.connect("desk")
        self.world.settle()
        self.client = next(iter(self.server.clients.values()))
        self.ending = (b"EX", ttl_s) if ttl_s else ()
        self.used, self.older = OrderedDict[bytes, int](), list[float]()        # by last use: keys, and when SET (ms)
        self.hits = self.refused = self.stalest_ms = 0
        self.server.feeds.append(self.hear)

    def bytes_for(self, room: int) -> int:
        """Memory for so many pages, and not for one more. It empties the server."""
        self.ask("SET", "page:1", PAGE, *self.ending)
        page = int(self.ask("MEMORY", "USAGE", "page:1")[1:])
        self.ask("FLUSHALL")
        return page * room + (page // 2 if self.evicts else -page // 2)       # who refuses has let one write through

    def visit(self, name: bytes) -> None:
        """GET, and after a miss SET."""
        if self.ask("GET", name) != MISS:
            self.hits += 1
            self.used.move_to_end(name)
            self.stalest_ms = max(self.stalest_ms, self.server.now_ms - self.used[name])
            return
        self.used[name] = self.server.now_ms
        if self.ask("SET", name, PAGE, *self.ending).startswith(b"-OOM"):
            self.refused += 1
            del self.used[name]

    def ask(self, *words: bytes | str | int) -> bytes:
        """The reply to one command, as it would go on the wire."""
        return self.ask_often(1, *(word if isinstance(word, bytes) else str(word).encode() for word in words))

    def ask_often(self, times: int, *words: bytes) -> bytes:
        """A pipeline of one command, so many times; the last reply."""
        client = self.client
        self.server.execute(client, [list(words)] * times)
        reply = bytes(client.output[-1])
        client.output, client.output_size = [], 0
        return reply

    def rest(self, ms: int) -> None:
        """Let virtual time pass."""
        self.world.clock.sleep(1000 * ms)
        self.server.update_time()

    def hear(self, index: int, effect: Sequence[bytes]) -> None:
        """The log is told DEL of every key that is evicted."""
        if effect[0] == b"DEL":
            place = next(place for place, key in enumerate(self.used) if key == effect[1])
            self.older.append(place / len(self.used))
            del self.used[effect[1]]


def counters(factor: int, uses: Iterable[int], keys: int = 3) -> list[float]:
    """What OBJECT FREQ says after so many reads in all (rising numbers), the mean of some keys."""
    desk, done, found = Desk("allkeys-lfu", lfu_log_factor=factor), 0, list[float]()
    names = [b"key:%d" % number for number in range(keys)]
    for name in names:
        desk.ask("SET", name, "x")
    for reads in uses:
        for name in names:
            desk.ask_often(reads - done, b"GET", name)
        found.append(round(sum(int(desk.ask("OBJECT", "FREQ", name)[1:]) for name in names) / keys, 1))
        done = reads
    return found


# ---- hit rate against memory ---------------------------------------------------------------------

Rates = dict[str, dict[str, dict[int, float]]]          # workload -> policy or model -> room -> hit rate


def ink(policy: str) -> dict[str, Any]:
    """How a policy is drawn, in every figure."""
    return dict(zip(("color", "linestyle", "marker"), INKS.get(policy, (SKY, "-", "x"))))


def model_rates(rooms: Iterable[int]) -> Rates:
    """What the exact algorithms reach."""
    return {workload: {name: {room: model(requests, room) for room in rooms} for name, model in MODELS.items()}
            for workload, requests in ((name, make()) for name, make in WORKLOADS.items())}


def rate_table(rates: Rates) -> Table:
    """Percents: a row for each policy, a column for each workload and size of the memory."""
    policies = list(next(iter(rates.values())))
    head = [f"{workload}, {room}" for workload, rows in rates.items() for room in rows[policies[0]]]
    return Table(("hit rate (%); pages that fit", *head),
                 [(policy, *(round(100 * rate, 1) for rows in rates.values() for rate in rows[policy].values()))
                  for policy in policies])


def panels(rates: Rates, claim: str) -> None:
    """Hit rate against memory, a panel for each workload. What is exact is dashed, on top; the optimum is black."""
    with figure(claim, "", "", height=4, width=11) as axes:
        drawing = axes.figure
        drawing.suptitle(claim, x=0.01, ha="left", fontsize=12)
        axes.remove()
        row = drawing.subplots(1, len(rates), sharex=True, sharey=True, squeeze=False)[0]
        for panel, (workload, rows) in zip(row, rates.items()):
            for policy, line in rows.items():
                panel.plot(list(line), [100 * rate for rate in line.values()], label=policy, markersize=5,
                           zorder=3 if policy in MODELS else 2, **ink(policy))
            panel.set_title(workload, fontsize=10)
            panel.set(ylim=(-2, 100), xlabel="memory (pages)", xticks=list(line))       # 0 is seen above the axis
        row[0].set_ylabel("hit rate (%)")
        drawing.legend(*row[0].get_legend_handles_labels(), loc="outside right center")


# ---- a stampede ----------------------------------------------------------------------------------

Visit = Generator[float, None, None]                    # a visitor's program: it yields the milliseconds that it waits


class Slow:
    """A database that needs 500 ms for a page, and counts. In a visit: `html = yield from database.page(name)`."""

    def __init__(self, now_ms: Callable[[], float], ms: int = 500) -> None:
        self.now_ms, self.ms = now_ms, ms
        self.asked, self.busy, self.most = list[float](), 0, 0      # when; now at work; at most at work

    def page(self, name: str) -> Generator[float, None, str]:
        self.asked.append(self.now_ms())
        self.busy += 1
        self.most = max(self.most, self.busy)
        yield self.ms
        self.busy -= 1
        return f"<html>{name}, made at {self.now_ms():.0f} ms"


class Rush(NamedTuple):
    """What a crowd of visitors has cost."""

    asked: list[float]          # when the database was asked, in ms
    most: int                   # of these calls at once
    seconds: int                # that the crowd came for
    waits: list[tuple[float, float]]        # of each visitor: when he came, and how long he waited, in ms

    @property
    def calls(self) -> int:
        return len(self.asked)

    @property
    def per_second(self) -> list[int]:
        """Calls of the database in each second."""
        counts = Counter(int(ms // 1000) for ms in self.asked)
        return [counts[second] for second in range(self.seconds)]

    @property
    def longest_ms(self) -> int:
        return round(max(waited for _, waited in self.waits))

    def waited(self, first_s: float, last_s: float) -> int:
        """How many who came between these seconds had to wait at all."""
        return sum(waited >= 1 for came, waited in self.waits if first_s <= came / 1000 < last_s)


def rush(visit: Callable[[Any, Slow, str], Visit], *, pages: int = 1, seconds: int = 21, each_second: int = 50,
         seed: int = 1) -> Rush:
    """Visitors come at even distances, each for a page drawn at random: `visit(redis, database, name)`."""
    world, random = World(seed=seed), Random(seed)
    world.start(hz=1)
    redis, start_us = world.connect("web"), world.clock.monotonic_us()

    def now_ms() -> float:
        return (world.clock.monotonic_us() - start_us) / 1000
    database, waits = Slow(now_ms), list[tuple[float, float]]()
    came = [1000 * number / each_second for number in range(seconds * each_second)]
    visits = [(ms, number, visit(redis, database, f"page:{random.randrange(pages)}")) for number, ms in enumerate(came)]
    while visits:                                       # a heap: who comes, or goes on, next?
        at_ms, number, visitor = heapq.heappop(visits)
        world.run(ms=max(0, at_ms - now_ms()))
        pause = next(visitor, None)
        if pause is None:
            waits.append((came[number], now_ms() - came[number]))
        else:
            heapq.heappush(visits, (now_ms() + pause, number, visitor))
    return Rush(database.asked, database.most, seconds, waits)
