"""The workloads and the models of caches in kvref.lab.caches, against brute force on small traces; and kvref against them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cache
from random import Random
from typing import Any

import pytest

from kvref.lab import caches
from kvref.lab.caches import MODELS, WORKLOADS, Slow, belady, chance, lfu, loop, lru, rush, scans, shifting, zipf

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
