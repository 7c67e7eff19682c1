"""Chapter 05, eviction: a hit rate, one visitor at a time, a cache that scans do not wash out, and a server with exact LRU."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator
from typing import Any
from unittest.mock import patch

from kvref.lab.caches import Slow, lru, rush, scans, shifting, zipf
from kvref.lab.judging import Wrong, exercise, expect
from kvref.sim import World
from kvref.sim.errors import ReplyError

PAGE = "page:7"


# ---- 1 -------------------------------------------------------------------------------------------

@exercise("05-1", "Two fields of the report count the reads that found their key, and those that did not.",
          "A server that nobody has asked yet has neither: its hit rate is 0.0, not an error.",
          "Find the lines keyspace_hits: and keyspace_misses:, take the ints behind the colons, and return hits / (hits + misses).")
def hit_rate(solution: Any) -> None:
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
    got = list[Any]()
    crowd = rush(lambda redis, database, name: impatient(_text(solution(redis, database, name)), name, got), seconds=16, each_second=40)
    if crowd.most > 1:
        raise Wrong(f"{crowd.most} visitors asked the database at the same time. It should be one.")
    if not 2 <= crowd.calls <= 4:
        raise Wrong(f"In 16 seconds the database was asked {crowd.calls} times for one page. With EX 5 it should be three times.")
    if crowd.longest_ms > 700:
        raise Wrong(f"The database needs 500 ms, and a visitor has waited for {crowd.longest_ms:.0f} ms. Look again every 50 ms.")
    _holder_dies(solution)
    _holder_is_slow(solution)


def _text(visit: Visit) -> Visit:
    found = yield from visit
    return found.decode() if isinstance(found, bytes) else found


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
    for name, requests, room, more in (("Zipf", zipf(), 100, 0.01), ("Zipf with scans", scans(), 100, 0.03), ("Zipf with scans", scans(), 50, 0.03),
                                       ("shifting", shifting(), 100, -0.03)):
        found, wants = rate(solution, requests, room), lru(requests, room) + more
        if found < wants:
            raise Wrong(f"{name}, room for {room}: your hit rate is {found:.1%}. LRU has {lru(requests, room):.1%}; yours should be at least {wants:.1%}.")
