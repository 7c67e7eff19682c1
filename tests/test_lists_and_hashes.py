"""Lists and hashes beyond what a script shows: every range of a short list, effects in the log, chance, cursors."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from random import Random

import pytest

from kvref.commands.scanning import draw
from kvref.lab.cli import split_args
from kvref.sampling import Hash
from tests.conftest import Machine
from tests.test_effects import Witness, one_unit, shown, witness

__all__ = ["witness"]                   # the fixture: a real redis-server with an append-only file

PLACES = range(-6, 7)


def redis_span(start: int, stop: int, length: int) -> range:
    """The definition in Redis's documentation, step by step."""
    start = start + length if start < 0 else start
    stop = stop + length if stop < 0 else stop
    return range(max(start, 0), min(stop, length - 1) + 1)


@pytest.fixture
def letters(machine: Machine) -> Iterator[deque[bytes]]:
    """A list under the key "k" that a test fills by itself."""
    machine.start()
    value: deque[bytes] = deque()
    machine.server.databases[0].set(b"k", value)
    yield value


@pytest.mark.parametrize("length", range(5))
def test_every_range_of_a_short_list(length: int, letters: deque[bytes], machine: Machine) -> None:
    client = machine.connect()
    letters.extend(b"%d" % n for n in range(length))
    for start, stop in ((a, b) for a in PLACES for b in PLACES):
        expected = [b"%d" % at for at in redis_span(start, stop, length)]
        assert client("LRANGE", "k", str(start), str(stop)) == expected, (start, stop)


@pytest.mark.parametrize("length", range(1, 5))
def test_every_trim_of_a_short_list(length: int, machine: Machine) -> None:
    machine.start()
    client = machine.connect()
    values = machine.server.databases[0].values
    for start, stop in ((a, b) for a in PLACES for b in PLACES):
        machine.server.databases[0].set(b"k", deque(b"%d" % n for n in range(length)))
        client("LTRIM", "k", str(start), str(stop))
        assert list(values.get(b"k", ())) == [b"%d" % at for at in redis_span(start, stop, length)], (start, stop)
        assert values.get(b"k") != deque(), "an empty list under a key"


@pytest.mark.parametrize("count", range(-4, 5))
def test_lrem_takes_the_first_ones_from_its_end_and_leaves_the_order(count: int, machine: Machine) -> None:
    machine.start()
    client = machine.connect()
    random = Random(count)
    for _ in range(30):
        before = random.choices([b"x", b"a", b"b"], k=random.randrange(1, 8))
        machine.server.databases[0].set(b"k", deque(before))
        places = [at for at, element in enumerate(before) if element == b"x"]
        gone = places[:count or None] if count >= 0 else places[count:]
        assert client("LREM", "k", str(count), "x") == len(gone)
        assert client("LRANGE", "k", "0", "-1") == [element for at, element in enumerate(before) if at not in gone]


# ---- what the log gets -------------------------------------------------------------------------

SETUP = ("FLUSHALL", "RPUSH l a b c a", "RPUSH m z", "HSET h f 1 g 2", "RPUSH gone a", "PEXPIREAT gone 1")

# A command on the keys of SETUP, what the log gets of it, and how much it adds to the changes.
EFFECTS = """
    LPUSH l x y                     LPUSH l x y                         2
    lpushx l x                      lpushx l x                          1
    RPUSHX none x                   -                                   0
    LPOP l                          LPOP l                              1
    RPOP l 3                        RPOP l 3                            3
    LPOP m 5                        LPOP m 5                            1
    LPOP l 0                        -                                   0
    LPOP none                       -                                   0
    LMPOP 2 none l LEFT             LPOP l 1                            1
    lmpop 2 none l right count 9    RPOP l 4                            4
    LMPOP 1 none LEFT               -                                   0
    LMOVE l m LEFT RIGHT            LMOVE l m LEFT RIGHT                1
    LMOVE l l LEFT RIGHT            LMOVE l l LEFT RIGHT                1
    LMOVE m new LEFT LEFT           LMOVE m new LEFT LEFT               1
    LMOVE none l LEFT LEFT          -                                   0
    RPOPLPUSH l m                   RPOPLPUSH l m                       1
    LSET l 0 x                      LSET l 0 x                          1
    LSET l 9 x                      -                                   0
    LINSERT l AFTER b x             LINSERT l AFTER b x                 1
    LINSERT l AFTER z x             -                                   0
    LREM l 0 a                      LREM l 0 a                          2
    LREM l 0 z                      -                                   0
    LTRIM l 1 2                     LTRIM l 1 2                         2
    LTRIM l 5 9                     LTRIM l 5 9                         4
    LTRIM l 0 -1                    -                                   0
    LTRIM none 0 0                  -                                   0
    LRANGE l 0 -1                   -                                   0
    RPUSH gone b                    DEL gone ; RPUSH gone b             1
    LMOVE l gone LEFT LEFT          DEL gone ; LMOVE l gone LEFT LEFT   1
    LPOP gone                       DEL gone                            0
    HSET h f 1                      HSET h f 1                          1
    HSET h f 3 n 4                  HSET h f 3 n 4                      2
    HMSET h f 3 n 4                 HMSET h f 3 n 4                     2
    HSETNX h n 1                    HSETNX h n 1                        1
    HSETNX h f 1                    -                                   0
    HDEL h f none g f               HDEL h f none g f                   2
    HDEL h none                     -                                   0
    HINCRBY h f 0                   HINCRBY h f 0                       1
    HINCRBYFLOAT h f 0.5            HSET h f 1.5                        1
    hincrbyfloat new f 1e3          HSET new f 1000                     1
    HGETALL h                       -                                   0
    HRANDFIELD h -5                 -                                   0
    HSCAN h 0                       -                                   0
    HSET gone a b                   DEL gone ; HSET gone a b            1
"""
CASES = [(line[4:36].strip(), line[36:72].strip(), int(line[72:])) for line in EFFECTS.strip("\n").split("\n")]


@pytest.mark.parametrize("command, effects, changes", CASES)
def test_the_log_gets_the_effect(command: str, effects: str, changes: int, machine: Machine) -> None:
    server = machine.start(enable_debug_command="yes")
    client = machine.connect()
    for line in ("DEBUG SET-ACTIVE-EXPIRE 0", *SETUP[:-1]):
        client(*split_args(line))
    server.databases[0].expire_at(b"gone", 1)           # PEXPIREAT would delete it at once, in Redis too
    logged: list[Sequence[bytes]] = []
    server.feeds.append(lambda database, effect: logged.append(tuple(effect)))
    before = server.dirty
    client(*split_args(command))
    assert shown(one_unit(logged), server.now_ms) == effects
    assert server.dirty - before == changes


def test_redis_itself_writes_the_same(witness: Witness) -> None:
    wrong = []
    for command, effects, _ in CASES:
        if "gone" in command:
            continue
        for line in SETUP:
            witness.ask(line)
        found = shown(one_unit(witness.written(command)), 0)
        if found != effects:
            wrong.append(f"{command}: {found}")
    assert not wrong


# ---- chance and cursors ------------------------------------------------------------------------

@pytest.fixture
def fields(machine: Machine) -> Iterator[Hash]:
    """A hash of 1000 fields under the key "h"."""
    machine.start()
    value = Hash((b"%d" % n, b"v") for n in range(1000))
    machine.server.databases[0].set(b"h", value)
    yield value


@pytest.mark.parametrize("size", [3, 100, 1000])
@pytest.mark.parametrize("count", [1, -1, 2, -2, -2000])
def test_every_member_is_as_likely_as_any_other(size: int, count: int) -> None:
    value = Hash((b"%d" % n, b"v") for n in range(size))
    random = Random(1)
    seen: Counter[bytes] = Counter()
    rounds = max(1, 20 * size // abs(count))
    for _ in range(rounds):
        drawn = draw(value, count, random)
        assert len(drawn) == abs(count)
        assert count < 0 or len(set(drawn)) == count
        seen.update(drawn)
    expected = rounds * abs(count) / size
    spread = sum((seen[field] - expected) ** 2 for field in value) / expected
    assert spread < size + 6 * (2 * size) ** 0.5, "chi-squared, six standard deviations"


def test_many_different_fields_are_different(fields: Hash, machine: Machine) -> None:
    client = machine.connect()
    for count in (400, 600, 999):
        assert len(set(client("HRANDFIELD", "h", str(count)))) == count
    assert client("HRANDFIELD", "h", "1000") == list(fields)
    assert client("HRANDFIELD", "h", "1", "WITHVALUES")[1] == b"v"


def test_hscan_finds_every_field_that_stays_while_others_come_and_go(fields: Hash, machine: Machine) -> None:
    client = machine.connect()
    random = Random(1)
    stay = set(list(fields)[::3])
    cursor, found, pages = b"0", set(), 0
    while not pages or cursor != b"0":
        cursor, page = client("HSCAN", "h", cursor, "COUNT", "7")
        assert set(page[1::2]) <= {b"v"} and len(page) <= 14
        found |= set(page[::2])
        pages += 1
        for _ in range(5):
            field = b"%d" % random.randrange(2000)
            if field not in stay:
                client("HDEL" if field in fields else "HSET", "h", field, *([] if field in fields else ["v"]))
    assert stay <= found and pages > 50


def test_hscan_asks_for_matches_after_it_has_counted(fields: Hash, machine: Machine) -> None:
    client = machine.connect()
    cursor, page = client("HSCAN", "h", "0", "COUNT", "100", "MATCH", "*5")
    assert cursor == b"900" and len(page) == 20
    assert client("HSCAN", "h", "0", "COUNT", "5000", "MATCH", "999") == [b"0", [b"999", b"v"]]
