"""Sets, bitmaps and SORT, where a golden script cannot see: what is logged, what it costs, what is refused."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from weakref import ref

import pytest

from kvref.lab.cli import split_args
from kvref.sampling import Members
from tests.conftest import Machine
from tests.test_effects import Witness, cases, logged, one_unit, touched, witness

__all__ = ["witness"]                   # the fixture: a real redis-server with an append-only file

SETUP = ("FLUSHALL", "SADD one m", "SADD three a b c", "SADD ints 1 2 3", "RPUSH l 2 1", "SET s ab", "SET d v EX 1000",
         "SET gone v PXAT 1")

# A command on the keys of SETUP, and what the log gets of it. "gone" has expired.
EFFECTS = """
    SPOP one                            SREM one m
    SPOP one 1                          DEL one
    SPOP one 7                          DEL one
    SPOP three 3                        DEL three
    SPOP three 0                        -
    SPOP x                              -
    SPOP x 3                            -
    SPOP gone                           DEL gone
    SRANDMEMBER three                   -
    SADD three a                        -
    SADD three a d                      SADD three a d
    sadd x a                            sadd x a
    SADD gone a                         DEL gone ; SADD gone a
    SREM three a x                      SREM three a x
    SREM one m                          SREM one m
    SREM three x                        -
    SMOVE three one a                   SMOVE three one a
    SMOVE three one x                   -
    SMOVE three three a                 -
    SMOVE three gone a                  DEL gone ; SMOVE three gone a
    SMOVE x gone a                      DEL gone
    SINTERSTORE x three ints            -
    SINTERSTORE one three ints          SINTERSTORE one three ints
    SUNIONSTORE x three ints            SUNIONSTORE x three ints
    SUNIONSTORE gone three              DEL gone ; SUNIONSTORE gone three
    SUNIONSTORE gone x                  SUNIONSTORE gone x
    SUNIONSTORE x three gone            DEL gone ; SUNIONSTORE x three gone
    SDIFFSTORE x three                  SDIFFSTORE x three
    SETBIT s 1 1                        -
    SETBIT s 0 1                        SETBIT s 0 1
    SETBIT s 16 0                       SETBIT s 16 0
    SETBIT gone 0 0                     DEL gone ; SETBIT gone 0 0
    BITOP NOT d s                       BITOP NOT d s
    BITOP AND d x                       BITOP AND d x
    BITOP AND x x                       -
    BITOP OR gone s                     DEL gone ; BITOP OR gone s
    SORT l                              -
    SORT l STORE d                      SORT l STORE d
    SORT x STORE d                      SORT x STORE d
    SORT x STORE x                      -
    SORT l STORE gone                   DEL gone ; SORT l STORE gone
"""
CASES = cases(EFFECTS)


@pytest.mark.parametrize("command, effects", CASES)
def test_the_log_gets_the_effect(command: str, effects: str, machine: Machine) -> None:
    assert logged(machine, SETUP, command) == effects


def test_redis_itself_writes_the_same(witness: Witness) -> None:
    assert witness.differences(SETUP, CASES) == []


def test_the_log_of_spop_names_each_member_that_was_drawn(machine: Machine) -> None:
    server = machine.start()
    client = machine.connect()
    client("SADD", "k", *map(str, range(300)))
    effects: list[Sequence[bytes]] = []
    server.feeds.append(lambda database, effect: effects.append(tuple(effect)))
    drawn = client("SPOP", "k", "5")
    assert len(set(drawn)) == 5
    assert one_unit(effects) == [(b"SREM", b"k", member) for member in drawn]
    assert not {*drawn} & {*server.databases[0].values[b"k"]}


@pytest.mark.parametrize("line, changes", [
    ("SADD x a b a", 2), ("SADD three a", 0), ("SREM three a b x", 2), ("SREM one m", 1), ("SPOP three", 1),
    ("SPOP three 2", 2), ("SPOP three 9", 3), ("SPOP x", 0), ("SMOVE three one a", 2), ("SMOVE three three a", 0),
    ("SINTERSTORE x three", 1), ("SINTERSTORE one x", 1), ("SINTERSTORE x x", 0), ("SETBIT s 0 1", 1),
    ("SETBIT s 1 1", 0), ("BITOP NOT x s", 1), ("BITOP AND x x", 0), ("BITOP AND s x", 1), ("SORT l STORE x", 2),
    ("SORT x STORE l", 1), ("SORT l", 0)])
def test_dirty_counts_changes(line: str, changes: int, machine: Machine) -> None:
    server = machine.start()
    client = machine.connect()
    for setup in SETUP:
        client(*split_args(setup))
    before = server.dirty
    client(*split_args(line))
    assert server.dirty - before == changes


# ---- what it costs -----------------------------------------------------------------------------

@pytest.mark.parametrize("line, elements", [
    ("SPOP big", 1), ("SPOP big 3", 3), ("SPOP big 0", 0), ("SRANDMEMBER big -4", 4), ("SADD k a b c", 3),
    ("SINTER big few", 4), ("SINTER big x few", 0), ("SINTERCARD 2 big few", 4),
    ("SINTERCARD 2 big big LIMIT 3", 6), ("SINTERCARD 2 big few LIMIT 3", 4), ("SDIFF few big", 4),
    ("SUNION big few", 1002), ("SMEMBERS big", 1000), ("SORT big", 1000), ("SSCAN big 0 COUNT 7", 7)])
def test_a_command_says_through_how_many_elements_it_worked(line: str, elements: int, machine: Machine) -> None:
    machine.start(set_max_intset_entries="10")
    client = machine.connect()
    client("SADD", "big", *map(str, range(1000)))
    client("SADD", "few", "1", "2")
    assert touched(machine, client, line) == elements


def test_spop_does_not_list_a_large_set_again(machine: Machine) -> None:
    server = machine.start()
    client = machine.connect()
    client("SADD", "k", *map(str, range(1000)))
    value: Members = server.databases[0].values[b"k"]
    client("SPOP", "k")
    entries = value.sampler.entries
    for _ in range(100):
        client("SPOP", "k")
    assert value.sampler.entries is entries and len(value) == 899


def test_a_deleted_collection_is_freed_at_once_whether_it_was_sampled_or_not(machine: Machine) -> None:
    server = machine.start(set_max_intset_entries="10")
    client = machine.connect()
    gc.disable()
    try:
        for line in ("SPOP k", "SRANDMEMBER k 3", "SSCAN k 0", "EXISTS k"):
            client("SADD", "k", *map(str, range(1000)))
            set_there = ref(server.databases[0].values[b"k"])
            client(*line.split())
            client("DEL", "k")
            assert set_there() is None
    finally:
        gc.enable()


def test_small_sets_that_are_drawn_from_or_scanned_carry_no_sampler(machine: Machine) -> None:
    server = machine.start()
    client = machine.connect()
    client("SADD", "k", *map(str, range(100)))
    for line in ("SPOP k", "SPOP k 3", "SRANDMEMBER k", "SRANDMEMBER k -5", "SSCAN k 0"):
        client(*line.split())
    assert server.databases[0].values[b"k"]._sampler is None


def test_bits_are_found_and_counted_across_the_blocks_that_a_long_string_is_cut_into(machine: Machine) -> None:
    server = machine.start()
    client = machine.connect()
    places = [0, 65535, 65536, 65537, 131071, 131072, 200_000]
    for place in places:
        client("SETBIT", "k", str(place), "1")
    client("BITOP", "NOT", "inverse", "k")
    for start in range(0, 200_001, 997):
        following = [place for place in places if place >= start]
        assert client("BITCOUNT", "k", str(start), "-1", "BIT") == len(following)
        assert client("BITPOS", "k", "1", str(start), "-1", "BIT") == following[0]
        assert client("BITPOS", "inverse", "0", str(start), "-1", "BIT") == following[0]
    assert server.dirty == len(places) + 1


# ---- what is refused ---------------------------------------------------------------------------

@pytest.mark.parametrize("line, word", [
    ("SORT l BY weight_*", "BY"), ("SORT l BY *", "BY"), ("SORT l GET #", "GET"), ("SORT l get object_*->name", "GET"),
    ("SORT l BY nosort GET # LIMIT x x", "GET"), ("SORT_RO l DESC BY w* NONSENSE", "BY"), ("SORT x GET # STORE y", "GET")])
def test_sort_refuses_to_look_up_other_keys(line: str, word: str, machine: Machine) -> None:
    machine.start()
    client = machine.connect()
    client("RPUSH", "l", "2", "1")
    assert client(*line.split()).text == f"ERR {word} option of SORT denied: kvref does not support it."
    assert client("DBSIZE") == 1
