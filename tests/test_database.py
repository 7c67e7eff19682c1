"""The keyspace: the sampler's invariants under any interleaving, deadlines, and the active expiry's limits."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kvref.database import Database, swap
from kvref.sampling import Members, Sampler
from kvref.sim import World

KEYS = st.integers(0, 60).map(lambda n: b"k%d" % n)


class Keyspace(RuleBasedStateMachine):
    """Keys come and go while somebody iterates: nobody who stays is passed over."""

    def __init__(self) -> None:
        super().__init__()
        self.database = Database(0, lambda database, key: None)
        self.model: set[bytes] = set()
        self.cursor = 0
        self.iterating = False
        self.seen: set[bytes] = set()
        self.stayed: set[bytes] = set()         # there since the iteration began

    @rule(keys=st.lists(KEYS, min_size=1, max_size=20))
    def insert(self, keys: list[bytes]) -> None:
        for key in keys:
            self.database.set(key, b"v")
            self.model.add(key)

    @rule(keys=st.lists(KEYS, min_size=1, max_size=40))
    def delete(self, keys: list[bytes]) -> None:
        for key in keys:
            assert self.database.delete(key) == (key in self.model)
            self.model.discard(key)
            self.stayed.discard(key)

    @precondition(lambda self: not self.iterating)
    @rule()
    def begin(self) -> None:
        self.cursor, self.iterating, self.seen, self.stayed = 0, True, set(), set(self.model)

    @precondition(lambda self: self.iterating)
    @rule(count=st.integers(1, 15))
    def go_on(self, count: int) -> None:
        self.cursor, keys = self.database.scan(self.cursor, count)
        assert set(keys) <= self.model
        self.seen |= set(keys)
        if self.cursor == 0:
            assert self.stayed <= self.seen
            self.iterating = False

    @rule(seed=st.integers(0, 1000))
    def pick(self, seed: int) -> None:
        key = self.database.random_key(Random(seed))
        assert key in self.model if self.model else key is None

    @rule()
    def clear(self) -> None:
        assert self.database.clear() == len(self.model)
        self.model.clear()
        self.stayed.clear()

    @invariant()
    def every_key_has_exactly_one_entry(self) -> None:
        entries = self.database.keys.entries
        if entries is not None:
            assert sorted(key for key in entries if key not in self.database.keys.dead) == sorted(self.model)
            assert len(entries) <= max(16, 2 * len(self.model) + 1)


TestKeyspace = Keyspace.TestCase
TestKeyspace.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_a_random_key_is_each_as_likely_as_any_other_after_keys_have_come_and_gone() -> None:
    database = Database(0, lambda database, key: None)
    random = Random(1)
    for n in range(100):
        database.set(b"%d" % n, b"")
    database.random_key(random)                 # from here on the sampler keeps its list
    for n in range(0, 100, 2):
        database.delete(b"%d" % n)
    for n in range(0, 40, 2):
        database.set(b"%d" % n, b"")            # some come back
    picked = Counter(database.random_key(random) for _ in range(70_000))
    assert len(picked) == 70
    assert all(850 < count < 1150 for count in picked.values())     # 1,000 each; five standard deviations


def test_a_full_iteration_without_changes_returns_each_key_once() -> None:
    members = dict.fromkeys(b"%d" % n for n in range(1000))
    sampler, cursor, found = Sampler(members), 0, []
    while True:
        cursor, keys = sampler.walk(cursor, 7)
        found += keys
        if not cursor:
            break
    assert sorted(found) == sorted(members)


def test_nobody_pays_for_a_sampler_that_nobody_asks() -> None:
    database = Database(0, lambda database, key: None)
    for n in range(100):
        database.set(b"%d" % n, b"")
    assert database.keys.entries is None
    database.scan(0, 10)
    assert database.keys.entries is not None


def test_a_key_expires_after_its_deadline_not_at_it() -> None:
    expired: list[bytes] = []

    def on_expired(database: Database, key: bytes) -> None:
        expired.append(key)
        database.delete(key)

    database = Database(0, on_expired)
    database.set(b"k", b"v")
    database.expire_at(b"k", 1000)
    assert database.find(b"k", 1000) == b"v" and not expired
    assert database.find(b"k", 1001) is None and expired == [b"k"]
    assert len(database) == 0 and not database.deadlines


def test_a_new_value_keeps_the_deadline_and_a_deletion_ends_it() -> None:
    database = Database(0, lambda database, key: None)
    database.set(b"k", b"v")
    database.expire_at(b"k", 1000)
    database.set(b"k", b"w")
    assert database.deadlines == {b"k": 1000}
    database.delete(b"k")
    database.set(b"k", b"x")
    assert database.deadlines == {} and not database.persist(b"k")


def test_databases_swap_all_that_they_hold_and_keep_their_numbers() -> None:
    databases = [Database(i, lambda database, key: None) for i in range(2)]
    databases[0].set(b"a", b"1")
    databases[0].expire_at(b"a", 5)
    databases[1].set(b"b", b"2")
    swap(databases, 0, 1)
    assert (databases[0].values, databases[1].values) == ({b"b": b"2"}, {b"a": b"1"})
    assert databases[1].deadlines == {b"a": 5} and [database.index for database in databases] == [0, 1]
    databases[0].set(b"c", b"3")
    assert sorted(databases[0].scan(0, 10)[1]) == [b"b", b"c"]


# ---- active expiry -------------------------------------------------------------------------------

def filled(keys: int, dead: int, **directives: str) -> World:
    """A world with so many keys that have a deadline, of which so many have passed it unnoticed."""
    world = World(seed=1)
    server = world.start(**directives)
    server.expiry.enabled = False
    database = server.databases[0]
    for n in range(keys):
        database.set(b"%d" % n, b"v")
        database.expire_at(b"%d" % n, server.now_ms + (1 if n < dead else 3_600_000))
    world.run(ms=200)
    assert len(database) == keys
    server.expiry.enabled = True
    return world


def test_dead_keys_that_nobody_reads_are_found_within_a_second() -> None:
    world = filled(keys=2000, dead=2000)
    world.run(ms=1000)
    assert world.server is not None and len(world.server.databases[0]) == 0
    assert world.server.stats.expired_keys == 2000


def test_a_share_of_dead_keys_below_the_acceptable_is_left_for_later() -> None:
    world = filled(keys=20_000, dead=1000)
    server = world.server
    assert server is not None
    server.server_cron()
    assert 0 < server.stats.expired_keys < 1000        # one look, and on to the next database


@pytest.mark.parametrize("first_dead", [True, False])
def test_dead_keys_are_found_wherever_they_are_and_a_live_key_is_never_expired(first_dead: bool) -> None:
    world = filled(keys=3000, dead=1500 if first_dead else 0)
    server = world.server
    assert server is not None
    database = server.databases[0]
    if not first_dead:
        for n in range(1500, 3000):
            database.expire_at(b"%d" % n, server.now_ms - 1)
    live = {key for key, deadline in database.deadlines.items() if deadline > server.now_ms}
    world.run(ms=5000)
    assert live <= set(database.values)
    assert len(database) < 1500 * 1.15          # below a tenth, dead keys are lived with


@pytest.mark.parametrize("effort, most_ms", [("1", 25), ("10", 43)])
def test_a_slow_cycle_ends_when_its_share_of_the_time_is_up(effort: str, most_ms: int) -> None:
    world = filled(keys=400_000, dead=400_000, active_expire_effort=effort)
    server = world.server
    assert server is not None
    start_us = world.clock.monotonic_us()
    world.clock.cost = world.clock.cost._replace(element_ns=1000)       # a slower computer
    server.expiry.slow_cycle()
    took_ms = (world.clock.monotonic_us() - start_us) / 1000
    assert most_ms <= took_ms < most_ms + 2 and server.expiry.time_cap_reached == 1


def test_after_a_cycle_that_ran_out_of_time_a_short_one_runs_before_each_sleep() -> None:
    world = filled(keys=400_000, dead=400_000)
    server = world.server
    assert server is not None
    world.clock.cost = world.clock.cost._replace(element_ns=1000)
    server.server_cron()
    left = len(server.databases[0])
    start_us = world.clock.monotonic_us()
    server.update_time()
    server.before_sleep()
    assert len(server.databases[0]) < left
    assert 1000 <= world.clock.monotonic_us() - start_us < 2000
    left = len(server.databases[0])
    server.update_time()
    server.before_sleep()                       # too soon: not again within twice its duration
    assert len(server.databases[0]) == left


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 400)), max_size=30))
@settings(max_examples=50, deadline=None)
def test_lazy_and_active_expiry_agree_with_the_deadlines(steps: list[tuple[int, int]]) -> None:
    world = World(seed=2)
    server = world.start()
    client = world.connect()
    deadlines: dict[int, int] = {}
    for key, ttl_ms in steps:
        client("SET", f"k{key}", "v", "PX", ttl_ms + 1)
        deadlines[key] = server.databases[0].deadlines[b"k%d" % key]
        world.run(ms=ttl_ms)
        for other, deadline in deadlines.items():
            asked_ms = world.clock.time_us() // 1000
            alive = client("EXISTS", f"k{other}")
            assert alive == (asked_ms <= deadline) or abs(asked_ms - deadline) <= 1


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 60)), max_size=200), st.integers(0, 20))
def test_a_collection_that_is_sampled_hears_of_every_change(changes: list[tuple[bool, int]], sampled_from: int) -> None:
    """New members are drawn and walked like old ones, those that have gone never."""
    collection = Members()
    for number, (put, member) in enumerate(changes):
        if number == sampled_from:
            collection.sampler.walk(0, 1)
        key = b"%d" % member
        there = key in collection
        assert (collection.put(key, None) is not there) if put else (collection.remove(key) is there)
    assert sorted(collection.sampler.walk(0, 10_000)[1]) == sorted(collection)
    assert set(collection.sampler.distinct(Random(2), 5)) <= set(collection)
