"""Chapter 04, keyspace and expiry: the judges of its exercises."""

from __future__ import annotations

from itertools import count
from random import Random
from typing import Any

from kvref.lab.judging import Wrong, exercise, expect
from kvref.sim import World

MINUTE_MS = 61_000                  # and a little


@exercise("04-1", "Four cases: no key, a dead one, one without a deadline, one that lives.",
          "A key is dead when now_ms > deadline. At the deadline itself it lives, and TTL answers 0.",
          "Half a second is added before the division: (left + 500) // 1000.")
def ttl_reply(solution: Any) -> None:
    """Against: TTL 0 says that the key is gone."""
    values, deadlines = {b"code": b"4711", b"name": b"Ann"}, {b"code": 10_000}
    times = {0: 10, 8_500: 2, 8_501: 1, 9_500: 1, 9_501: 0, 10_000: 0, 10_001: -2}
    for key, now_ms, wants in ((b"nobody", 0, -2), (b"name", 0, -1), *((b"code", *pair) for pair in times.items())):
        expect(solution, values, deadlines, key, now_ms, wants=wants)


def unreliable(world: World, caller: Any, dies_before: int) -> Any:
    """A client that dies before a command; or, for 0, lets a minute pass before each but the first."""
    numbers = count(1)

    def client(*words: Any) -> Any:
        number = next(numbers)
        if number == dies_before:
            raise ConnectionError("the client has died")
        world.run(ms=0 if number == 1 or dies_before else MINUTE_MS)
        return caller(*words)
    return client


@exercise("04-2", "INCR counts, and creates the counter. Which command gives it a deadline, and may be said each time?",
          "EXPIRE with NX changes nothing where there is a deadline. So it can be said after every INCR.",
          "count = client('INCR', key); client('EXPIRE', key, 60, 'NX'); then compare count with 3.")
def allow(solution: Any) -> None:
    """Against: INCR and then EXPIRE are as good as one step."""
    world, said = World(seed=1), []
    world.start(hz=1)
    alice = world.connect("alice")
    for wait_ms, users in ((0, ["ann"] * 4 + ["bob"]), (30_000, ["ann"]), (MINUTE_MS - 30_000, ["ann"])):
        world.run(ms=wait_ms)
        said += ["yes" if solution(alice, user) else "no" for user in users]
    if said != "yes yes yes no yes no yes".split():
        raise Wrong("Four requests of Ann, one of Bob, one of Ann after 30 s, one after 61 s should get "
                    f"yes yes yes no, yes, no, yes. They got {' '.join(said)}.")
    alice("FLUSHALL")
    passed = [bool(solution(alice, "ann")) for _ in range(2)]

    def crowded(*words: Any) -> Any:
        reply = alice(*words)
        passed.append(bool(solution(alice, "ann")))
        return reply
    passed.append(bool(solution(crowded, "ann")))
    if sum(passed) != 3:
        raise Wrong(f"Ann asks a third time, and again meanwhile: {sum(passed)} requests got in, not 3.")
    for dies_before in range(5):
        alice("FLUSHALL")
        try:
            solution(unreliable(world, alice, dies_before), "ann")
        except ConnectionError:
            pass
        solution(alice, "ann")
        if any(alice("TTL", key) < 0 for key in alice("KEYS", "*")):
            what = f"A client dies before command {dies_before}" if dies_before else "A minute passes between commands"
            raise Wrong(f"{what}. Ann comes again, and still her counter has no deadline: one day she is locked out.")


@exercise("04-3", "server.databases are all databases. Walk database.volatile, not database.keys.",
          "A cursor for each database: cursor, page = database.volatile.walk(cursor, 200). A cursor of 0 starts again.",
          "For each key of the page: if database.is_expired(key, server.now_ms): database.on_expired(database, key).")
def walking(solution: Any) -> None:
    """Against: to find every dead key one must look at all keys at once."""
    world, log = World(seed=1), []
    server = world.start()
    server.expiry = solution(server)
    server.feeds.append(lambda index, effect: log.append(effect))
    for number in range(4_000):
        database, key = server.databases[number // 2_000], b"%d" % number
        database.set(key, b"x")
        database.expire_at(key, server.now_ms + (1 if number % 2 else 3_600_000))
    for enabled, ms, least, most, sentence in (
            (False, 150, 2_000, 2_000, "It is switched off (self.enabled is False), and deletes all the same."),
            (True, 100, 1_600, 2_000, "One cycle looks at 200 keys of each database, at most."),
            (True, 3_000, 0, 0, "After thirty more cycles there are still dead keys.")):
        server.expiry.enabled = enabled
        world.run(ms=ms)
        keys = [int(key) for database in server.databases for key in database.values]
        dead = sum(number % 2 for number in keys)
        if len(keys) - dead < 2_000 or not least <= dead <= most:
            raise Wrong("Living keys were deleted." if len(keys) - dead < 2_000 else sentence)
    if server.stats.expired_keys != 2_000 or len(log) != 2_000:
        raise Wrong("The keys are gone, but not by on_expired: nobody counted them, and the log does not know.")


@exercise("04-4", "Counting up means: add 1 at the low end, carry to the left. Here the carry has to go to the right.",
          "With 8 buckets the order is 0 4 2 6 1 5 3 7: turn the bits around, add one, turn them back.",
          "Take cursor % size and its log2(size) bits, in text: int(f'{n:0{bits}b}'[::-1], 2) turns them around.")
def next_cursor(solution: Any) -> None:
    """Against: a cursor counts up."""
    for seed in range(100):
        random, cursor, seen, size = Random(seed), 0, set[int](), 8
        for calls in range(2_000):
            seen |= {number for number in range(64) if number % size == cursor % size}
            cursor = solution(cursor, size)
            if not isinstance(cursor, int) or not 0 <= cursor < size:
                raise Wrong(f"With {size} buckets the next cursor was {cursor!r}: it should be from 0 to {size - 1}.")
            if not cursor:
                break
            size = random.choice((8, 16, 32, 64)) if seed else 8
        if cursor or not seed and calls != 7:
            raise Wrong("With 8 buckets that stay 8, every bucket should be visited once, and then the cursor be 0.")
        if missed := set(range(64)) - seen:
            raise Wrong(f"The table had grown and shrunk, and {len(missed)} of 64 keys were passed over.")
