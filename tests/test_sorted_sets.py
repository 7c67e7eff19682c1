"""Sorted sets, where a golden script cannot see: what is logged, what counts as a change, what it costs."""

from __future__ import annotations


import pytest

from kvref.lab.cli import split_args
from tests.conftest import Machine
from tests.test_effects import Witness, cases, logged, touched, witness

__all__ = ["witness"]                   # the fixture: a real redis-server with an append-only file

SETUP = ("FLUSHALL", "ZADD one 1 m", "ZADD three 1 a 2 b 3 c", "ZADD lex 0 a 0 b 0 c", "ZADD top inf a", "SADD set a x",
         "SET d v EX 1000", "SET gone v PXAT 1")

# A command on the keys of SETUP, and what the log gets of it. "gone" has expired.
EFFECTS = """
    ZADD three 1 a                          -
    zadd three 2 a 4 d                      zadd three 2 a 4 d
    ZADD three NX 9 a                       -
    ZADD three GT 0 a 9 b                   ZADD three GT 0 a 9 b
    ZADD x XX 1 a                           -
    ZADD x INCR 1 a                         ZADD x INCR 1 a
    ZADD three INCR 0 a                     -
    ZADD gone 1 a                           DEL gone ; ZADD gone 1 a
    ZADD gone XX 1 a                        DEL gone
    ZADD three 1 a x b                      -
    ZINCRBY three 1.5 a                     ZINCRBY three 1.5 a
    ZINCRBY top -inf a                      -
    ZREM three a x                          ZREM three a x
    ZREM one m                              ZREM one m
    ZREM three x                            -
    ZPOPMIN three                           ZPOPMIN three
    zpopmax three 2                         zpopmax three 2
    ZPOPMIN three 9                         ZPOPMIN three 9
    ZPOPMIN three 0                         -
    ZPOPMIN x                               -
    ZPOPMIN gone                            DEL gone
    ZMPOP 2 x three MIN                     ZPOPMIN three 1
    ZMPOP 2 three one MAX COUNT 2           ZPOPMAX three 2
    zmpop 1 three max count 9               ZPOPMAX three 3
    ZMPOP 1 x MIN                           -
    ZREMRANGEBYRANK three 0 1               ZREMRANGEBYRANK three 0 1
    ZREMRANGEBYRANK three 5 9               -
    ZREMRANGEBYSCORE three (1 +inf          ZREMRANGEBYSCORE three (1 +inf
    ZREMRANGEBYLEX lex - +                  ZREMRANGEBYLEX lex - +
    ZREMRANGEBYLEX x - +                    -
    ZRANGESTORE x three 0 1                 ZRANGESTORE x three 0 1
    ZRANGESTORE d three 1 2 BYSCORE         ZRANGESTORE d three 1 2 BYSCORE
    ZRANGESTORE d x 0 -1                    ZRANGESTORE d x 0 -1
    ZRANGESTORE x x 0 -1                    -
    ZRANGESTORE gone three 0 1              DEL gone ; ZRANGESTORE gone three 0 1
    ZUNIONSTORE x 2 three set               ZUNIONSTORE x 2 three set
    ZINTERSTORE d 2 three set WEIGHTS 1 2   ZINTERSTORE d 2 three set WEIGHTS 1 2
    ZINTERSTORE d 2 three one               ZINTERSTORE d 2 three one
    ZDIFFSTORE x 2 three three              -
    ZUNIONSTORE gone 1 three                DEL gone ; ZUNIONSTORE gone 1 three
    ZRANDMEMBER three                       -
    ZSCORE three a                          -
    ZUNION 2 three gone                     DEL gone
"""
CASES = cases(EFFECTS)


@pytest.mark.parametrize("command, effects", CASES)
def test_the_log_gets_the_effect(command: str, effects: str, machine: Machine) -> None:
    assert logged(machine, SETUP, command) == effects


def test_redis_itself_writes_the_same(witness: Witness) -> None:
    assert witness.differences(SETUP, CASES) == []


@pytest.mark.parametrize("line, changes", [
    ("ZADD three 1 a 7 b 8 new", 2), ("ZADD three 1 a", 0), ("ZINCRBY three 0 a", 0), ("ZINCRBY three 1 a", 1),
    ("ZREM three a b x", 2), ("ZPOPMIN three 2", 2), ("ZPOPMAX one", 1), ("ZPOPMIN x", 0),
    ("ZMPOP 2 x three MIN COUNT 9", 3), ("ZREMRANGEBYRANK three 0 1", 2),
    ("ZREMRANGEBYLEX lex - +", 3), ("ZUNIONSTORE x 2 three set", 1),
    ("ZINTERSTORE three 1 x", 1), ("ZDIFFSTORE x 1 x", 0), ("ZRANGESTORE x three 0 -1", 1),
    ("ZRANGESTORE d x 0 -1", 1)])
def test_dirty_counts_changes(line: str, changes: int, machine: Machine) -> None:
    server = machine.start()
    client = machine.connect()
    for setup in SETUP:
        client(*split_args(setup))
    before = server.dirty
    client(*split_args(line))
    assert server.dirty - before == changes


@pytest.mark.parametrize("line, elements", [
    ("ZADD k 1 a 2 b", 2), ("ZREM big 1 2 x", 3), ("ZMSCORE big 1 2", 2), ("ZRANGE big 10 19", 10),
    ("ZCOUNT big 0 999", 0), ("ZRANGE big 0 500 BYSCORE LIMIT 100 7", 7),
    ("ZREMRANGEBYSCORE big 1 5", 5), ("ZPOPMIN big 3", 3),
    ("ZUNION 2 big few", 1002), ("ZRANDMEMBER big -4", 4), ("ZSCAN big 0 COUNT 7", 7), ("ZRANK big 500", 0)])
def test_a_command_says_through_how_many_elements_it_worked(line: str, elements: int, machine: Machine) -> None:
    machine.start()
    client = machine.connect()
    client("ZADD", "big", *(word for n in range(1000) for word in (str(n), str(n))))
    client("ZADD", "few", "1", "1", "2", "2")
    assert touched(machine, client, line) == elements


def test_a_set_that_is_scanned_while_it_changes_shows_who_is_there_all_the_time(machine: Machine) -> None:
    server = machine.start()
    client = machine.connect()
    client("ZADD", "k", *(word for n in range(2000) for word in (str(n % 7), f"m{n}")))
    seen, cursor, turn = set(), b"0", 0
    while turn == 0 or cursor != b"0":
        cursor, page = client("ZSCAN", "k", cursor.decode(), "COUNT", "100")
        assert all(float(score) == server.databases[0].values[b"k"].scores[member]
                   for member, score in zip(page[::2], page[1::2]))
        seen |= {*page[::2]}
        client("ZREM", "k", *(f"m{n}" for n in range(turn, 2000, 40)))          # who goes
        client("ZADD", "k", "1", f"new{turn}")                                  # who comes
        client("ZINCRBY", "k", "10", f"m{1999 - 40 * turn}")                    # who moves
        turn += 1
    assert {b"m%d" % n for n in range(2000) if n % 40 >= turn} <= seen
