"""Chapter 05, eviction: a hit rate, one visitor at a time, a cache that scans do not wash out, and a server with exact LRU."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator
from random import Random
from typing import Any
from unittest.mock import patch

from kvref.lab.caches import Slow, lru, rush, scans, shifting, zipf
from kvref.lab.judging import Wrong, bounded, exercise
from kvref.sim import World

PAGE = "page:7"


# ---- 1 -------------------------------------------------------------------------------------------

@exercise("05-1", "Two fields of the report count the reads that found their key, and those that did not.",
          "A server that nobody has asked yet has neither: its hit rate is 0.0, not an error.",
          "Find the lines keyspace_hits: and keyspace_misses:, take the ints behind the colons, and return hits / (hits + misses).")
def hit_rate(solution: Any) -> None:
    """Against: every command counts for the hit rate."""
    world = World(seed=1)
    world.start()
    alice = world.connect("alice")

    def report() -> str:
        return str(alice("INFO", "stats").decode())

    def ask(when: str, wants: float) -> None:
        found = solution(report())
        if not isinstance(found, int | float) or abs(found - wants) > 1e-9:
            raise Wrong(f"{when}: your answer was {found!r}. It should be {wants}.")
    ask("Nobody has read anything", 0.0)
    alice("SET", "a", 1)
    alice("GET", "a"), alice("GET", "a"), alice("GET", "a"), alice("GET", "b")
    ask("Three reads have found their key, one has not", 0.75)
    alice("CONFIG", "RESETSTAT")
    alice("GET", "b")
    ask("CONFIG RESETSTAT, and one read that finds nothing", 0.0)


# ---- 2 -------------------------------------------------------------------------------------------

PATIENCE_MS = 20_000

Visit = Generator[float, None, Any]


class Counter:
    """Runs visits by hand: a server, a database, and one visitor after the other."""

    def __init__(self, solution: Any, ms: int) -> None:
        self.solution, self.world = solution, World(seed=1)
        self.world.start(hz=1)
        self.redis = self.world.connect("web")
        self.database = Slow(lambda: self.world.clock.monotonic_us() / 1000, ms)

    def visit(self) -> Visit:
        return self.solution(self.redis, self.database, PAGE)       # type: ignore[no-any-return]

    def pause(self, visit: Visit) -> bool:
        """Go on with it until it waits, and let that time pass; False: it is over."""
        pause = next(visit, None)
        self.world.run(ms=pause or 0)
        return pause is not None


def impatient(visit: Visit, name: str, got: list[Any]) -> Visit:
    """The visit, and what the visitor gets; Wrong where it takes for ever."""
    waited = 0.0
    while True:
        try:
            pause = next(visit)
        except StopIteration as end:
            got.append(end.value)
            if not isinstance(end.value, str) or name not in end.value:
                raise Wrong(f"A visitor of {name} got {end.value!r}: it should be what database.page returned.") from None
            return
        waited += pause
        if waited > PATIENCE_MS:
            raise Wrong(f"A visitor has waited for {PATIENCE_MS // 1000} seconds, and still waits.")
        yield pause


@exercise("05-2", "SET key mine NX PX 2000 answers None where somebody else has the lock. Who gets None yields 50, and looks for the page again.",
          "Who has the lock asks the database, stores the page with EX 5 and then gives the lock back. Who waits must try for the lock again each time, "
          "too: its holder may have died.",
          "Put text of your own into the lock, such as str(id(object())) kept in a variable or a number from a counter, and DEL it only if GET says that "
          "it is still yours.")
def visit(solution: Any) -> None:
    """Against: the lock under that name is still mine."""
    got = list[Any]()
    crowd = rush(lambda redis, database, name: impatient(_text(solution(redis, database, name)), name, got), seconds=16, each_second=40)
    if crowd.most > 1:
        raise Wrong(f"{crowd.most} visitors asked the database at the same time. It should be one.")
    if not 2 <= crowd.calls <= 4:
        raise Wrong(f"In 16 seconds the database was asked {crowd.calls} times for one page. With EX 5 it should be three times.")
    if crowd.longest_ms > 700:
        raise Wrong(f"The database needs 500 ms, and a visitor has waited for {crowd.longest_ms:.0f} ms. Look again every 50 ms.")
    _gives_it_back(solution)
    _holder_dies(solution)
    _holder_is_slow(solution)


def _text(visit: Visit) -> Visit:
    found = yield from visit
    return found.decode() if isinstance(found, bytes) else found


def _gives_it_back(solution: Any) -> None:
    """Who changes a page deletes the copy. The next visitor finds no page, and should find no lock."""
    desk = Counter(solution, ms=500)
    first = impatient(_text(desk.visit()), PAGE, [])
    while desk.pause(first):
        pass
    desk.redis("DEL", PAGE)
    next(desk.visit(), None)
    if len(desk.database.asked) < 2:
        raise Wrong("A visitor was through, but his lock was still there: the next one, who found no page, had to wait for nothing. "
                    "(If you compare texts: GET answers bytes.)")


def _holder_dies(solution: Any) -> None:
    desk = Counter(solution, ms=500)
    dead = desk.visit()
    next(dead, None)
    if not desk.database.asked:
        raise Wrong("There was no page, and the first visitor did not ask the database.")
    start_ms, second = desk.database.now_ms(), impatient(_text(desk.visit()), PAGE, [])
    try:
        while desk.pause(second):
            pass
    except Wrong:
        raise Wrong("A visitor died while the database worked for him. The next one waited for a lock that nobody gives back.") from None
    if desk.database.now_ms() - start_ms > 3_500:
        raise Wrong("A visitor died with the lock in his hand. It should end by itself after 2 seconds.")


def _holder_is_slow(solution: Any) -> None:
    """The database needs 3 s; a second visitor has the lock from second 2 on, and keeps it when the first one is through."""
    desk = Counter(solution, ms=3_000)
    first, second = desk.visit(), desk.visit()
    next(first, None)
    while len(desk.database.asked) < 2 and desk.database.now_ms() < 4_000:
        pause = next(second, None)
        if len(desk.database.asked) < 2:
            desk.world.run(ms=pause or 50)
    held = {key for key in desk.redis("KEYS", "*") if key != PAGE.encode()}
    next(first, None)
    if lost := held - set(desk.redis("KEYS", "*")):
        raise Wrong(f"The database was slow, and the lock of the first visitor had ended. When he was through he deleted {min(lost).decode()}, which by then "
                    "was somebody else's.")


# ---- 3 -------------------------------------------------------------------------------------------

def rate(solution: Any, requests: list[int], room: int) -> float:
    """Hit rate of a cache whose victims the solution chooses."""
    chooser, inside, hits = solution(room), set[int](), 0
    for key in requests:
        if key in inside:
            hits += 1
            chooser.used(key)
            continue
        if len(inside) == room:
            victim = chooser.victim()
            if victim not in inside:
                raise Wrong(f"victim() returned {victim!r}, which is not in the cache.")
            inside.remove(victim)
        inside.add(key)
        chooser.added(key)
    return hits / len(requests)


@exercise("05-3", "A page that was asked for once may never come back; one that was asked for twice probably will. Keep the two apart.",
          "Two OrderedDicts: newcomers, and those that were used again while they were newcomers. Victims are the oldest newcomers.",
          "The second dict may hold at most half of the room: what it has too much goes back to the newcomers, as the youngest. With no newcomers, the oldest of the second is the victim.")
def resistant(solution: Any) -> None:
    """Against: what was used last is used next."""
    for name, requests, room, more in (("Zipf", zipf(), 100, 0.01), ("Zipf with scans", scans(), 100, 0.02), ("Zipf with scans", scans(), 50, 0.02),
                                       ("shifting", shifting(), 100, -0.06)):
        found, wants = rate(solution, requests, room), lru(requests, room) + more
        if found < wants:
            raise Wrong(f"{name}, room for {room}: your hit rate is {found:.1%}. LRU has {lru(requests, room):.1%}; yours should be at least {wants:.1%}.")


# ---- 4 -------------------------------------------------------------------------------------------

KEYS = 2_000
LINES_EACH = 2_000                  # of Python for one write that evicts


class Watched:
    """A server with the solution in it, and the order in which its keys were used, kept here as well."""

    def __init__(self, solution: Any, maxmemory: str) -> None:
        with patch("kvref.server.Eviction", solution):
            self.world = World(seed=1)
            self.server = self.world.start(maxmemory=maxmemory, maxmemory_policy="allkeys-lru", hz=1)
        self.alice, self.db = self.world.connect("alice"), 0
        self.order, self.evicted = OrderedDict[tuple[int, str], None](), 0
        self.wrong, self.flushed = "", False
        self.server.on_change.append(self.hear)

    def hear(self, database: Any, key: bytes, event: str) -> None:
        place = database.index, key.decode()
        if event == "evicted":
            oldest, self.evicted = next(iter(self.order), None), self.evicted + 1
            if place != oldest and not self.wrong:
                self.wrong = f"{place[1]!r} of database {place[0]} was evicted."
                if oldest:
                    self.wrong += f" Not used for longest was {oldest[1]!r} of database {oldest[0]}."
                if self.flushed:
                    self.wrong += " FLUSHALL came before. Does a key that comes back stand where it stood then?"
        if event in ("evicted", "expired", "del"):
            self.order.pop(place, None)

    def use(self, key: str) -> None:
        self.order[self.db, key] = None
        self.order.move_to_end((self.db, key))

    def do(self, *words: Any) -> None:
        """One command. What it uses is noted before: it may evict."""
        name, key = words[0], str(words[1]) if len(words) > 1 else ""
        there = bool(self.alice("EXISTS", key)) if name in ("GET", "RENAME") else False
        if name == "SELECT":
            self.db = int(key)
        elif name == "FLUSHALL":
            self.order.clear()
            self.flushed = True
        elif name == "SET" or name == "GET" and there:
            self.use(key)
        elif name == "RENAME" and there:
            self.order.pop((self.db, key))
            self.use(words[2])
        if name != "RENAME" or there:
            self.alice(*words)
        self.world.run(ms=2)
        if self.wrong:
            raise Wrong(f"After {' '.join(map(str, words[:2]))}: {self.wrong}")


@exercise("05-4", "An OrderedDict, (index of the database, key) -> None, oldest first, holds the order. Who is told of each use, and of each key that is new?",
          "super().used(...) and super().tell(...) first: they note what kvref needs. A key that tell finds in database.values, or that is \"new\", goes to the "
          "end of the order; any other leaves it. used: to the end.",
          "FLUSHALL tells nobody, so _worst looks at the oldest, and while that one is not in its database any more: drop it, look again. Then "
          "return self.server.databases[index], key.")
def exact(solution: Any) -> None:
    """Against: exact LRU has to look at every key."""
    if not isinstance(solution, type):
        raise Wrong("It should be a class: a kind of Eviction.")
    desk = Watched(solution, "20kb")
    random, page = Random(1), 100 * "x"
    for number in range(60):
        desk.do("SET", f"page:{number}", page)
        desk.do("GET", f"page:{random.randrange(number + 1)}")
    for step in range(500):
        key = f"page:{random.randrange(120)}"
        words = random.choice([("SET", key, page), ("SET", key, page), ("GET", key), ("GET", key), ("DEL", key), ("RENAME", key, f"page:{random.randrange(120)}"),
                               ("SET", key, page, "PX", 30), ("SELECT", random.randrange(3))])
        if words[0] != "RENAME" or words[1] != words[2]:
            desk.do(*words)
        if step == 250:
            desk.do("FLUSHALL")
    if desk.evicted < 50:
        raise Wrong(f"In a cache that is full all the time only {desk.evicted} keys were evicted.")
    _is_quick(solution)


def _is_quick(solution: Any) -> None:
    """With many keys, an eviction looks at few."""
    desk = Watched(solution, "100mb")
    for number in range(KEYS):
        desk.alice("SET", f"page:{number}", "x")
    used = int(desk.alice("INFO", "memory").split(b"used_memory:")[1].split()[0])
    desk.alice("CONFIG", "SET", "maxmemory", used)
    try:
        with bounded("", 20 * LINES_EACH):
            for number in range(20):
                desk.alice("SET", f"more:{number}", "x")
    except Wrong:
        raise Wrong(f"With {KEYS:,} keys one eviction takes more than {LINES_EACH:,} lines of Python: it looks at all of them.") from None
    if desk.server.stats.evicted_keys < 19:
        raise Wrong("Twenty keys were too many, and nothing was evicted.")
