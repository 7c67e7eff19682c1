"""The workloads and the models of caches in kvref.lab.caches, against brute force on small traces; and kvref against them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cache
from random import Random
from typing import Any

import pytest

from kvref.lab import caches
from kvref.lab.caches import (MODELS, WORKLOADS, Desk, Run, Slow, belady, chance, lfu, loop, lru, rush, scans, shifting,
                              through_kvref, zipf)

ROOMS = (25, 50, 100, 200)


def small_traces() -> Iterator[list[int]]:
    for seed in range(150):
        random = Random(seed)
        keys = random.randint(1, 6)
        yield [random.randint(1, keys) for _ in range(random.randint(1, 14))]


def hits(rate: float, requests: list[int]) -> int:
    return round(rate * len(requests))


# ---- models --------------------------------------------------------------------------------------

def best(requests: list[int], room: int) -> int:
    """The most hits that any choice of victims can have, the key that has just come among them: all are tried."""
    @cache
    def most(place: int, inside: frozenset[int]) -> int:
        if place == len(requests):
            return 0
        key = requests[place]
        if key in inside:
            return 1 + most(place + 1, inside)
        if len(inside) < room:
            return most(place + 1, inside | {key})
        return max(most(place + 1, (inside | {key}) - {victim}) for victim in sorted(inside | {key}))
    return most(0, frozenset())


def test_belady_has_as_many_hits_as_the_best_of_all_choices() -> None:
    for requests in small_traces():
        for room in (1, 2, 3):
            assert hits(belady(requests, room), requests) == best(requests, room), (requests, room)


def test_no_model_has_more_hits_than_belady() -> None:
    for make in WORKLOADS.values():
        for room in ROOMS:
            optimum = belady(make(), room)
            assert all(model(make(), room) <= optimum for model in (lru, lfu, chance))


def test_lru_hits_where_fewer_other_keys_than_fit_lie_between_two_uses() -> None:
    """Mattson's stack distance; so a larger cache holds all that a smaller one does, and never has fewer hits."""
    for requests in small_traces():
        distances = []
        for place, key in enumerate(requests):
            if key in requests[:place]:
                last = max(earlier for earlier in range(place) if requests[earlier] == key)
                distances.append(len(set(requests[last + 1:place])))
        for room in (1, 2, 3, 4):
            assert hits(lru(requests, room), requests) == sum(distance < room for distance in distances)


def naive_lfu(requests: list[int], room: int) -> int:
    found, uses, last = 0, dict[int, int](), dict[int, int]()
    for now, key in enumerate(requests):
        if key in uses:
            found += 1
        elif len(uses) == room:
            del uses[min(uses, key=lambda other: (uses[other], last[other]))]
        uses[key], last[key] = uses.get(key, 0) + 1, now
    return found


def test_lfu_evicts_the_least_used_and_of_several_the_longest_idle() -> None:
    for requests in small_traces():
        for room in (1, 2, 3):
            assert hits(lfu(requests, room), requests) == naive_lfu(requests, room)


def test_who_has_room_for_all_misses_each_key_once() -> None:
    for make in WORKLOADS.values():
        requests = make()
        for model in (*MODELS.values(), chance):
            assert hits(model(requests, len(set(requests))), requests) == len(requests) - len(set(requests))


def test_chance_keeps_a_share_of_a_loop_and_lru_nothing() -> None:
    assert lru(loop(keys=220), 200) == 0
    assert chance(loop(keys=220), 200) > 0.7


# ---- workloads -----------------------------------------------------------------------------------

def test_zipf_asks_for_key_n_about_one_nth_as_often_as_for_key_one() -> None:
    counts = Counter(zipf(length=100_000))
    assert all(counts[1] / counts[number] == pytest.approx(number, rel=0.2) for number in (2, 5, 10, 20))


def test_a_scan_is_in_order_and_none_of_its_keys_comes_back() -> None:
    requests = scans(length=2_000, keys=500, every=250, scan=150)
    scanned = [key for key in requests if key > 500]
    assert max(Counter(scanned).values()) == 1 and scanned == sorted(scanned)
    assert len(scanned) == 750 and all(key > 500 for key in requests[250:400])
    assert [key for key in requests if key <= 500] == zipf(length=2_000)[:1_250]


def test_a_loop_comes_back_to_a_key_when_all_others_were_asked_for() -> None:
    requests = loop(length=2_000, keys=220)
    assert requests[:220] == list(range(1, 221)) and requests[220:] == requests[:-220]


def test_a_phase_shares_no_key_with_another() -> None:
    requests = shifting(length=2_000, phases=4)
    phases = [set(requests[start:start + 500]) for start in range(0, 2_000, 500)]
    assert sum(map(len, phases)) == len(set.union(*phases))


def test_workloads_and_models_are_the_same_each_time() -> None:
    for make in WORKLOADS.values():
        assert make() == make() and len(make()) == 2_000
    assert chance(zipf(), 50) == chance(zipf(), 50) != chance(zipf(), 50, seed=2)
    assert zipf(seed=2) != zipf()


# ---- kvref on the same requests ------------------------------------------------------------------

POLICIES = ("allkeys-lru", "allkeys-lfu", "allkeys-random", "volatile-ttl", "noeviction")


@pytest.fixture(scope="module")
def runs() -> dict[tuple[str, str], Run]:
    """(workload, policy) -> what became of it, with room for 100 pages."""
    return {(workload, policy): through_kvref(make(), policy, 100, ttl_s=3600 if policy == "volatile-ttl" else 0)
            for workload, make in WORKLOADS.items() for policy in POLICIES}


def test_no_policy_has_more_hits_than_belady(runs: Any) -> None:
    for (workload, policy), run in runs.items():
        assert 0 < len(WORKLOADS[workload]()) * run.hit_rate <= len(WORKLOADS[workload]()) * belady(WORKLOADS[workload](), 100)


def test_sampled_lru_is_near_the_exact_one_where_the_chapter_says_so(runs: Any) -> None:
    """Within two points on Zipf, with scans and when it shifts. In a loop it is better, by being inexact."""
    for workload in ("Zipf", "Zipf with scans", "shifting"):
        assert runs[workload, "allkeys-lru"].hit_rate == pytest.approx(lru(WORKLOADS[workload](), 100), abs=0.02)
    assert runs["Zipf", "allkeys-lfu"].hit_rate == pytest.approx(lfu(zipf(), 100), abs=0.02)
    assert runs["Zipf", "allkeys-random"].hit_rate == pytest.approx(chance(zipf(), 100), abs=0.03)


def test_volatile_policies_do_as_their_sisters_when_every_key_has_a_deadline(runs: Any) -> None:
    for by in ("lru", "lfu", "random"):
        run = through_kvref(zipf(), f"volatile-{by}", 100, ttl_s=3600)
        assert run.hit_rate == pytest.approx(runs["Zipf", f"allkeys-{by}"].hit_rate, abs=0.001)


def test_more_samples_find_keys_that_are_idle_for_longer() -> None:
    found = {samples: through_kvref(zipf(), "allkeys-lru", 100, maxmemory_samples=samples).older for samples in (1, 3, 5, 10)}
    means = [sum(older) / len(older) for older in found.values()]
    assert means == sorted(means, reverse=True) and 0.4 < means[0] < 0.6 and means[2] < 0.2
    assert sum(place < 0.25 for place in found[5]) > 0.9 * len(found[5])


def test_what_does_not_fit_is_evicted_or_refused(runs: Any) -> None:
    for (workload, policy), run in runs.items():
        misses = round(len(WORKLOADS[workload]()) * (1 - run.hit_rate))
        assert run.evicted + run.refused == misses - 100 and bool(run.refused) == (policy == "noeviction")


@pytest.mark.parametrize("ttl_s", [0, 3600])
@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-lru", "noeviction"])
def test_a_desk_has_room_for_so_many_pages_and_not_for_one_more(policy: str, ttl_s: int) -> None:
    desk = Desk(policy, ttl_s=ttl_s)
    desk.ask("CONFIG", "SET", "maxmemory", desk.bytes_for(20))
    for number in range(20):
        desk.visit(b"page:%d" % number)
    assert (len(desk.server.databases[0]), desk.older, desk.refused) == (20, [], 0)
    desk.visit(b"page:20")
    evicts = policy == "allkeys-lru" or (ttl_s and policy == "volatile-lru")
    over = not evicts and policy == "volatile-lru"              # as noeviction: the last write is let through
    assert len(desk.server.databases[0]) == 20 + over and len(desk.older) == bool(evicts)


def test_the_counter_of_lfu_grows_with_the_square_root_of_the_uses() -> None:
    """As redis.conf has it: with a factor of 10, about 10 after 100 uses, 18 after 1,000; without, one for each use.

    A use counts with a chance of 1 in 1 + factor * (count - 5), so n uses lift it by the root of 2n/factor above 5."""
    assert caches.counters(0, [1, 10, 100, 1_000]) == [6, 15, 105, 255]
    hundred, thousand, many = caches.counters(10, [100, 1_000, 10_000])
    assert 8 <= hundred <= 12 and 16 <= thousand <= 23 and 45 <= many <= 60
    assert (many - 5) / (thousand - 5) == pytest.approx(10 ** 0.5, rel=0.2)
    assert caches.counters(100, [1_000])[0] < thousand < caches.counters(1, [1_000])[0]


def test_the_counter_of_lfu_decays_by_one_a_minute() -> None:
    desk = Desk("allkeys-lfu")
    desk.ask("SET", "song", "la")
    desk.ask_often(1_000, b"GET", b"song")
    before = int(desk.ask("OBJECT", "FREQ", "song")[1:])
    desk.rest(5 * 60_000)
    assert int(desk.ask("OBJECT", "FREQ", "song")[1:]) == before - 5
    desk.rest(60 * 60_000)
    assert desk.ask("OBJECT", "FREQ", "song") == b":0\r\n"


def used_memory(desk: Desk) -> int:
    return int(desk.ask("INFO", "memory").split(b"used_memory:")[1].split()[0])


@pytest.mark.parametrize("policy", [policy for policy in POLICIES if policy.startswith("allkeys")])
def test_nobody_sees_more_in_use_than_maxmemory(policy: str) -> None:
    desk = Desk(policy)
    desk.ask("CONFIG", "SET", "maxmemory", "20kb")
    for key in zipf(length=300):
        desk.visit(b"page:%d" % key)
        assert used_memory(desk) <= 20 * 1024
    assert desk.older


def test_without_eviction_writes_are_refused_and_reads_go_on() -> None:
    desk = Desk("noeviction")
    desk.ask("CONFIG", "SET", "maxmemory", "20kb")
    for number in range(200):
        desk.visit(b"page:%d" % number)
    assert desk.refused > 100 and not desk.older
    assert desk.ask("SET", "new", "x") == b"-OOM command not allowed when used memory > 'maxmemory'.\r\n"
    assert desk.ask("GET", "page:0") == b"$100\r\n" + caches.PAGE + b"\r\n" and desk.ask("DEL", "page:0") == b":1\r\n"


@pytest.mark.parametrize("policy", ["volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl"])
def test_a_volatile_policy_touches_no_key_without_a_deadline(policy: str) -> None:
    desk = Desk(policy, ttl_s=3600)
    desk.ask("CONFIG", "SET", "maxmemory", "20kb")
    for number in range(30):
        assert desk.ask("SET", f"setting:{number}", caches.PAGE) == b"+OK\r\n"
    for number in range(300):
        desk.visit(b"page:%d" % number)
    assert len(desk.older) > 200 and not desk.refused
    assert sum(key.startswith(b"setting") for key in desk.server.databases[0].values) == 30


def test_a_table_has_a_row_for_each_policy_and_a_column_for_each_size() -> None:
    rates = caches.model_rates((50, 100))
    table = caches.rate_table(rates)
    assert table.head[:4] == ["hit rate (%); pages that fit", "Zipf, 50", "Zipf, 100", "Zipf with scans, 50"]
    assert [row[:3] for row in table.rows] == [["exact LRU", 53.5, 65.5], ["exact LFU", 58.5, 68.3], ["Belady's optimum", 70.7, 78.1]]


def test_the_panels_draw_what_the_table_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    shown = list[Any]()
    monkeypatch.setattr(pyplot, "show", lambda: shown.append(pyplot.gcf()))
    rates = caches.model_rates((50, 100))
    caches.panels(rates, "a claim")
    assert [panel.get_title("left") for panel in shown[0].axes] == list(WORKLOADS)
    assert list(shown[0].axes[0].lines[0].get_ydata()) == [100 * rate for rate in rates["Zipf"]["exact LRU"].values()]
    pyplot.close("all")


# ---- a stampede ----------------------------------------------------------------------------------

def naive(redis: Any, database: Slow, name: str) -> Iterator[float]:
    if redis("GET", name) is None:
        html = yield from database.page(name)
        redis("SET", name, html, "EX", 5)


def test_all_who_come_while_the_database_works_ask_it_too() -> None:
    """500 ms at 50 visitors a second: 25, and the one who comes as it ends; again 5 s after the last SET."""
    found = rush(naive, seconds=13)
    assert (found.calls, found.most, found.longest_ms) == (3 * 26, 26, 500)
    assert found.per_second == [26, 0, 0, 0, 0, 0, 26, 0, 0, 0, 0, 0, 26]


def test_a_rush_is_the_same_each_time() -> None:
    assert rush(naive, pages=20, seconds=6) == rush(naive, pages=20, seconds=6)


def locked(redis: Any, database: Slow, name: str) -> Iterator[float]:
    while redis("GET", name) is None:
        if redis("SET", "lock", "mine", "NX", "PX", 2000):
            html = yield from database.page(name)
            redis("SET", name, html, "EX", 5)
            redis("DEL", "lock")
        else:
            yield 50


def early(redis: Any, database: Slow, name: str) -> Iterator[float]:
    if redis("GET", name) is None:
        yield from locked(redis, database, name)
    elif redis("PTTL", name) < 1000 and redis("SET", "lock", "mine", "NX", "PX", 2000):
        html = yield from database.page(name)
        redis("SET", name, html, "EX", 5)
        redis("DEL", "lock")


def test_with_a_lock_one_asks_and_with_an_early_refresh_only_that_one_waits() -> None:
    with_lock, refreshed = rush(locked, seconds=13), rush(early, seconds=13)
    assert (with_lock.calls, with_lock.most) == (3, 1) and refreshed.most == 1
    assert with_lock.waited(2, 13) > 40 and refreshed.waited(2, 13) == refreshed.calls - 1
    assert with_lock.longest_ms <= 560
