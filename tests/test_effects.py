"""What follows from a command: the effect in the log (Call.log_as), changes, hits, cost.

Redis's append-only file is the witness for the effects.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from kvref.lab.cli import split_args
from tests import golden, record
from tests.conftest import Machine

SETUP = ("FLUSHALL", "MSET k v n 10", "SET d v EX 1000", "SET gone v PXAT 1",
         "RPUSH l a b c", "RPUSH l1 a", "HSET h a 1 b 2.5", "HSET h1 a 1", "SADD t m1 m2 m3", "SADD t1 m1", "SADD u m1 m4",
         "ZADD z 1 a 2 b 3 c", "ZADD z1 1 a")

# A command on the keys of SETUP, and what the log gets of it. "=" is the command as it was sent, "-" nothing, "now+100s"
# an instant in ms, "m?" any of m1, m2 ... "gone" has expired.
EFFECTS = """
    SET k w                             =
    set k w nx                          -
    SET x w nx                          =
    SET k w EX 100                      SET k w PXAT now+100s
    SET k w PX 100000 XX                SET k w PXAT now+100s
    SET k w EXAT 32503680000            SET k w PXAT 32503680000000
    set k w pxat 32503680000000 GET     SET k w PXAT 32503680000000
    SET k w GET                         SET k w
    SET k w get XX gEt                  SET k w XX
    SET d w KEEPTTL                     =
    SET d w GET KEEPTTL                 SET d w KEEPTTL
    SET x w XX GET                      -
    SET get get GET                     SET get get
    SET k w PXAT 1                      =
    SETNX x w                           =
    SETNX k w                           -
    SETEX k 100 w                       SET k w PXAT now+100s
    PSETEX k 100000 w                   SET k w PXAT now+100s
    SETEX k 0 w                         -
    GETSET k w                          SET k w
    GETSET x w                          SET x w
    GETDEL k                            DEL k
    GETDEL x                            -
    GETEX k                             -
    GETEX k EX 100                      PEXPIREAT k now+100s
    GETEX k PXAT 32503680000000         PEXPIREAT k 32503680000000
    GETEX k EXAT 1                      DEL k
    GETEX d PERSIST                     PERSIST d
    GETEX k PERSIST                     -
    GETEX x EX 100                      -
    MSET a 1 b 2                        =
    MSETNX a 1 b 2                      =
    MSETNX k 1 b 2                      -
    APPEND k w                          =
    SETRANGE k 3 w                      =
    SETRANGE k 3 ""                     -
    incr n                              =
    DECRBY n 3                          =
    INCR k                              -
    INCRBYFLOAT n 0.1                   SET n 10.1 KEEPTTL
    INCRBYFLOAT x 1e3                   SET x 1000 KEEPTTL
    INCRBYFLOAT k 1                     -
    DEL k x n                           =
    UNLINK k                            =
    DEL x                               -
    EXPIRE k 100                        PEXPIREAT k now+100s
    PEXPIRE k 100000 NX                 PEXPIREAT k now+100s NX
    EXPIREAT k 32503680000              PEXPIREAT k 32503680000000
    pexpireat k 32503680000000 gt       -
    pexpireat k 32503680000000 lt       =
    EXPIRE k 100 XX                     -
    EXPIRE k 0                          DEL k
    EXPIRE k -1 NX                      DEL k
    PEXPIREAT k 1                       DEL k
    EXPIRE x 100                        -
    PERSIST d                           =
    PERSIST k                           -
    RENAME k new                        =
    RENAME k k                          -
    RENAMENX k n                        -
    COPY d new                          =
    COPY d k                            -
    COPY d k DB 1 REPLACE               =
    MOVE d 1                            =
    MOVE x 1                            -
    GET k                               -
    GET gone                            DEL gone
    EXISTS gone gone                    DEL gone
    SET gone w                          DEL gone ; SET gone w
    SET gone w KEEPTTL                  DEL gone ; SET gone w KEEPTTL
    SET gone w EX 100                   DEL gone ; SET gone w PXAT now+100s
    GETSET gone w                       DEL gone ; SET gone w
    MSET gone w                         DEL gone ; MSET gone w
    APPEND gone w                       DEL gone ; APPEND gone w
    INCR gone                           DEL gone ; INCR gone
    EXPIRE gone 100                     DEL gone
    DEL gone                            =
    RENAME k gone                       DEL gone ; RENAME k gone
    COPY k gone                         DEL gone ; COPY k gone
    KEYS *                              -
    SCAN 0 COUNT 100                    DEL gone

    SETBIT k 7 1                        =
    SETBIT x 7 0                        =
    SETBIT l 7 1                        -
    BITOP AND x k n                     =
    BITOP OR k x none                   =
    BITOP NOT x none                    -
    SORT l ALPHA                        -
    SORT l ALPHA STORE x                =
    SORT none STORE k                   =
    sort none store x                   -

    LPUSH l x y                         =
    rpush x a                           =
    LPUSHX l a b                        =
    RPUSHX x a                          -
    LPOP l                              =
    LPOP l 2                            =
    LPOP l 0                            -
    LPOP l 9                            =
    RPOP l1                             =
    RPOP x                              -
    LSET l 0 x                          =
    LSET l 9 x                          -
    LINSERT l BEFORE a x                =
    LINSERT l AFTER none x              -
    LREM l 0 a                          =
    LREM l 0 none                       -
    LREM l1 0 a                         =
    LTRIM l 0 0                         =
    LTRIM l 5 9                         =
    LTRIM l 0 -1                        -
    LTRIM x 0 1                         -
    LMOVE l x LEFT RIGHT                =
    LMOVE l1 l LEFT LEFT                =
    LMOVE l l left right                =
    LMOVE x l LEFT LEFT                 -
    RPOPLPUSH l x                       =
    RPOPLPUSH l1 l1                     =
    rpoplpush x l                       -
    LMPOP 2 x l LEFT                    LPOP l 1
    LMPOP 2 x l RIGHT COUNT 2           RPOP l 2
    LMPOP 1 l1 LEFT COUNT 9             LPOP l1 1
    LMPOP 1 x LEFT                      -

    HSET h a 1 c 2                      =
    HSET h a 1                          =
    hset x a 1                          =
    HMSET h a 1                         =
    HSETNX h c 1                        =
    HSETNX h a 1                        -
    HDEL h a x                          =
    HDEL h x                            -
    HDEL h1 a                           =
    HINCRBY h a 5                       =
    HINCRBY x a 0                       =
    HINCRBYFLOAT h b 0.1                HSET h b 2.6
    HINCRBYFLOAT x a 1e3                HSET x a 1000
    HINCRBYFLOAT h b x                  -

    SADD t m1                           -
    SADD t a m1                         =
    SADD x 1 2                          =
    SREM t m1 none                      =
    SREM t none                         -
    SREM t1 m1                          =
    SMOVE t u m2                        =
    SMOVE t u m1                        =
    SMOVE t1 x m1                       =
    SMOVE t u none                      -
    SPOP t                              SREM t m?
    SPOP t1                             SREM t1 m?
    SPOP t 2                            SREM t m? ; SREM t m?
    SPOP t 3                            DEL t
    SPOP t 9                            DEL t
    SPOP t 0                            -
    SPOP t1 1                           DEL t1
    SPOP x                              -
    SPOP x 2                            -
    SINTERSTORE x t u                   =
    SINTERSTORE t t none                =
    SINTERSTORE k t none                =
    SINTERSTORE x t none                -
    SUNIONSTORE k t u                   =
    SUNIONSTORE x none none             -
    SDIFFSTORE x t u                    =
    SDIFFSTORE t u u                    =
    SRANDMEMBER t                       -

    ZADD z 5 a                          =
    ZADD z 1 a                          -
    ZADD z NX 5 a 6 d                   =
    ZADD z XX 5 none                    -
    ZADD z GT CH 0 a                    -
    ZADD z INCR 1.5 a                   =
    ZADD z NX INCR 1.5 a                -
    ZADD x 1e3 a                        =
    ZINCRBY z 0.1 a                     =
    ZINCRBY x 0 a                       =
    ZINCRBY z 0 a                       -
    ZINCRBY z nan a                     -
    ZREM z a none                       =
    ZREM z none                         -
    ZREM z1 a                           =
    ZREMRANGEBYRANK z 0 0               =
    ZREMRANGEBYRANK z 7 9               -
    ZREMRANGEBYRANK z 0 -1              =
    ZREMRANGEBYSCORE z 1 2              =
    ZREMRANGEBYSCORE z 5 9              -
    ZREMRANGEBYLEX z - [a               =
    ZPOPMIN z                           =
    ZPOPMIN z 2                         =
    ZPOPMAX z 9                         =
    ZPOPMAX z1                          =
    ZPOPMIN z 0                         -
    ZPOPMAX x                           -
    ZMPOP 2 x z MIN                     ZPOPMIN z 1
    ZMPOP 2 x z MAX COUNT 2             ZPOPMAX z 2
    ZMPOP 1 z1 MIN COUNT 5              ZPOPMIN z1 1
    ZMPOP 1 x MIN                       -
    ZRANGESTORE x z 0 1                 =
    ZRANGESTORE z z 5 9                 =
    ZRANGESTORE x z 5 9                 -
    ZUNIONSTORE x 2 z t WEIGHTS 1 2     =
    ZUNIONSTORE k 1 none                =
    ZUNIONSTORE x 1 none                -
    ZINTERSTORE x 2 z z1 AGGREGATE MIN  =
    ZINTERSTORE z 2 z none              =
    ZDIFFSTORE x 2 z z1                 =
    ZDIFFSTORE z 2 z z                  =

    RPUSH gone a                        DEL gone ; RPUSH gone a
    HSET gone a 1                       DEL gone ; HSET gone a 1
    SADD gone a                         DEL gone ; SADD gone a
    ZADD gone 1 a                       DEL gone ; ZADD gone 1 a
    LPOP gone                           DEL gone
    SPOP gone                           DEL gone
    ZPOPMIN gone                        DEL gone
    LLEN gone                           DEL gone
    HGETALL gone                        DEL gone
    SUNIONSTORE x gone t1               DEL gone ; SUNIONSTORE x gone t1
    SUNIONSTORE gone t1                 DEL gone ; SUNIONSTORE gone t1
    SUNIONSTORE gone none               =
    ZUNIONSTORE x 2 gone z1             DEL gone ; ZUNIONSTORE x 2 gone z1
    ZRANGESTORE gone z1 0 -1            DEL gone ; ZRANGESTORE gone z1 0 -1
    SMOVE t1 gone m1                    DEL gone ; SMOVE t1 gone m?
    SMOVE gone t m1                     DEL gone
    LMOVE l1 gone LEFT LEFT             DEL gone ; LMOVE l1 gone LEFT LEFT
    BITOP NOT gone n                    DEL gone ; BITOP NOT gone n
    SORT l1 ALPHA STORE gone            DEL gone ; SORT l1 ALPHA STORE gone
    SORT gone                           DEL gone
    LMPOP 2 gone l1 LEFT                DEL gone ; LPOP l1 1
    SINTERSTORE x t gone                DEL gone
    EXPIRE l 100                        PEXPIREAT l now+100s
    EXPIRE l 0                          DEL l
    PERSIST l                           -
    RENAME l x                          =
    COPY z x                            =
    MOVE h 1                            =
    GETDEL l                            -
    SET l x                             =
    DEL l h t z                         =

    BLPOP x l 0                         LPOP l
    brpop l1 0                          RPOP l1
    BLPOP k 0                           -
    BLMOVE l x LEFT RIGHT 0             LMOVE l x LEFT RIGHT
    BLMOVE l l1 left right 0            LMOVE l l1 left right
    BRPOPLPUSH l x 0                    RPOPLPUSH l x
    BLMPOP 0 2 x l RIGHT COUNT 2        RPOP l 2
    BLMPOP 0 1 l1 LEFT COUNT 9          LPOP l1 1
    BZPOPMIN x z 0                      ZPOPMIN z
    BZPOPMAX z1 0                       ZPOPMAX z1
    BZMPOP 0 2 x z MAX COUNT 2          ZPOPMAX z 2
    BZMPOP 0 1 z1 MIN COUNT 5           ZPOPMIN z1 1
    BLPOP gone l 0                      DEL gone ; LPOP l
    BLMOVE l1 gone LEFT LEFT 0          DEL gone ; LMOVE l1 gone LEFT LEFT
    PUBLISH c x                         -
"""


def cases(table: str) -> list[tuple[str, str]]:
    """Commands and their effects, two blanks or more between them."""
    rows = [re.split(r"  +", line.strip(), maxsplit=1) for line in table.split("\n") if line]
    return [(command, shown([split_args(command)], 0) if effects == "=" else effects) for command, effects in rows]



def shown(effects: Sequence[Sequence[bytes]], now_ms: int) -> str:
    """As in the table: instants within an hour are told from now, to the nearest 50 seconds: a busy machine may pause."""
    def word(arg: bytes) -> str:
        from_now = int(arg) - now_ms if arg.isdigit() else 0
        if 1000 < from_now < 3_600_000:
            return f"now+{round(from_now / 50_000) * 50}s"
        return "m?" if re.fullmatch(rb"m\d", arg) else arg.decode() or '""'
    return " ; ".join(" ".join(map(word, effect)) for effect in effects) or "-"


CASES = cases(EFFECTS)


def one_unit(commands: Sequence[Sequence[bytes]]) -> Sequence[Sequence[bytes]]:
    """The effects of one call. Several stand between MULTI and EXEC, one or none do not."""
    if len(commands) < 2:
        return commands
    assert [*commands[0], *commands[-1]] == [b"MULTI", b"EXEC"] and len(commands) > 3, commands
    return commands[1:-1]


def fed(machine: Machine, setup: Sequence[str], command: str) -> list[Sequence[bytes]]:
    """What kvref's log gets of a command, with the keys of `setup`; no expired key goes by itself."""
    server = machine.start(enable_debug_command="yes")
    client = machine.connect()
    for line in ("DEBUG SET-ACTIVE-EXPIRE 0", *setup):
        client(*split_args(line))
    effects: list[Sequence[bytes]] = []
    server.feeds.append(lambda database, effect: effects.append(tuple(effect)))
    client(*split_args(command))
    return effects


def logged(machine: Machine, setup: Sequence[str], command: str) -> str:
    effects = fed(machine, setup, command)
    return shown(one_unit(effects), machine.server.now_ms)


@pytest.mark.parametrize("command, effects", CASES)
def test_the_log_gets_the_effect(command: str, effects: str, machine: Machine) -> None:
    assert logged(machine, SETUP, command) == effects


class Witness:
    """A redis-server with an append-only file, and a client of it."""

    def __init__(self, server: record.RedisServer) -> None:
        self.peer = record.SocketPeer(server.port)
        self.ask("PING")                                # the port is open a moment before the log is
        self.log = next(Path(server.directory, "appendonlydir").glob("*.incr.aof"))

    def ask(self, line: str) -> None:
        self.peer.send_bytes(golden.request(*split_args(line)))
        data = b""
        while not golden.replies(data)[0]:
            assert self.peer.drain(10)
            data += self.peer.take()

    def written(self, line: str) -> list[Sequence[bytes]]:
        start = self.log.stat().st_size
        self.ask(line)
        commands: list[list[bytes]] = golden.replies(self.log.read_bytes()[start:])[0]
        return [command for command in commands if command[0].upper() != b"SELECT"]

    def differences(self, setup: Sequence[str], cases: Sequence[tuple[str, str]]) -> list[str]:
        """Where Redis logs something else than these effects."""
        self.ask("DEBUG SET-ACTIVE-EXPIRE 0")
        wrong = []
        for command, effects in cases:
            for line in setup:
                self.ask(line)
            found = shown(one_unit(self.written(command)), time.time_ns() // 1_000_000)
            if found != effects:
                wrong.append(f"{command}: {found}")
        return wrong


@pytest.fixture(scope="module")
def witness() -> Iterator[Witness]:
    if not record.installed("redis-server"):
        pytest.skip("redis-server 7.0 is not installed")
    directives = {"appendonly": "yes", "appendfsync": "no",         # everysec may hold a write back
                  "enable-debug-command": "yes", "auto-aof-rewrite-percentage": "0"}
    with record.RedisServer(directives) as server:
        yield Witness(server)


def test_redis_itself_writes_the_same(witness: Witness) -> None:
    assert witness.differences(SETUP, CASES) == []


TWO_GONE = ("FLUSHALL", "SET a v PXAT 1", "SET b v PXAT 1")
APART, TOGETHER = [b"DEL", b"DEL"], [b"MULTI", b"DEL", b"DEL", b"EXEC"]
DELETIONS = [((), "SCAN 0", APART), ((), "RANDOMKEY", APART), ((), "EXISTS a b", TOGETHER),
             (("MULTI", "SCAN 0"), "EXEC", TOGETHER), (("MULTI", "PING", "RANDOMKEY"), "EXEC", TOGETHER)]


@pytest.mark.parametrize("before, line, words", DELETIONS)
def test_what_scan_and_randomkey_find_expired_goes_one_by_one(
        before: Sequence[str], line: str, words: list[bytes], machine: Machine) -> None:
    assert [effect[0] for effect in fed(machine, (*TWO_GONE, *before), line)] == words


@pytest.mark.parametrize("before, line, words", DELETIONS)
def test_so_it_does_in_redis(before: Sequence[str], line: str, words: list[bytes], witness: Witness) -> None:
    for above in ("DEBUG SET-ACTIVE-EXPIRE 0", *TWO_GONE, *before):
        witness.ask(above)
    assert [effect[0] for effect in witness.written(line)] == words


@pytest.mark.parametrize("line", [
    "GET", "SET v GET", "GETSET v", "GETDEL", "GETEX", "GETEX EX 0", "APPEND v", "STRLEN", "GETRANGE 0 1",
    "SETRANGE 0 v", 'SETRANGE 0 ""', "INCR", "DECRBY 1", "INCRBYFLOAT 1", "INCRBYFLOAT x"])
def test_a_value_of_another_type_is_refused_and_not_logged(line: str, machine: Machine) -> None:
    server = machine.start()
    client = machine.connect()
    server.databases[0].set(b"k", deque([b"v"]))
    logged: list[Sequence[bytes]] = []
    server.feeds.append(lambda database, effect: logged.append(tuple(effect)))
    name, *rest = split_args(line)
    assert client(name, b"k", *rest).code == "WRONGTYPE"
    assert not logged and server.dirty == 0


@pytest.mark.parametrize("line, value", [
    ("SET k v", b"v"), ("MSET k v", b"v"), ("SETEX k 10 v", b"v"), ("SETNX k v", None)])
def test_set_writes_over_any_type_and_setnx_over_none(line: str, value: bytes | None, machine: Machine) -> None:
    server = machine.start()
    client = machine.connect()
    other = deque([b"v"])
    server.databases[0].set(b"k", other)
    client(*split_args(line))
    assert server.databases[0].values[b"k"] == (value or other)
    assert client("MGET", "k") == [value]


@pytest.mark.parametrize("line, changes", [
    ("SET k v", 1), ("SET k v EX 10", 1), ("MSET a 1 b 2 c 3", 3), ("MSETNX a 1 b 2", 2), ("DEL k n x", 2),
    ("RENAME k n", 1), ("MOVE k 1", 1), ("COPY k c", 1), ("GETEX k PX 9", 1), ("GETEX k", 0), ("EXPIRE k 0", 1),
    ("APPEND k v", 1), ("GET k", 0)])
def test_dirty_counts_changes(line: str, changes: int, machine: Machine) -> None:
    server = machine.start()
    client = machine.connect()
    client("MSET", "k", "v", "n", "1")
    before = server.dirty
    client(*split_args(line))
    assert server.dirty - before == changes


@pytest.mark.parametrize("line, hits, misses", [
    ("GET k", 1, 0), ("GET x", 0, 1), ("MGET k x x", 1, 2), ("EXISTS k x", 1, 1), ("TTL k", 1, 0), ("TYPE x", 0, 1),
    ("SET k v GET", 1, 0), ("GETSET x v", 0, 1), ("SET k v XX", 0, 0), ("INCR n", 0, 0), ("DEL k", 0, 0),
    ("COPY k c", 1, 0), ("RENAME k c", 0, 0), ("SCAN 0", 0, 0), ("SCAN 0 TYPE list", 2, 0),
    ("OBJECT ENCODING x", 0, 1)])
def test_only_reading_makes_hits_and_misses(line: str, hits: int, misses: int, machine: Machine) -> None:
    server = machine.start()
    client = machine.connect()
    client("MSET", "k", "v", "n", "1")
    client(*split_args(line))
    assert (server.stats.keyspace_hits, server.stats.keyspace_misses) == (hits, misses)


def touched(machine: Machine, client: Callable[..., object], line: str) -> int:
    """How many elements the clock was told of, beyond the command itself."""
    told: list[int] = []
    clock = machine.server.clock
    work, clock.work = clock.work, told.append          # type: ignore[method-assign]
    client(*split_args(line))
    clock.work = work                                   # type: ignore[method-assign]
    return sum(told)


@pytest.mark.parametrize("line, elements", [
    ("GET k0", 0), ("SET k0 v", 0), ("MGET k0 k1 x", 3), ("MSET a 1 b 2", 2), ("DEL k0 k1 x x", 4), ("EXISTS k0 k1", 2),
    ("KEYS *", 20), ("SCAN 0 COUNT 5", 5)])
def test_a_command_says_through_how_many_elements_it_worked(line: str, elements: int, machine: Machine) -> None:
    machine.start()
    client = machine.connect()
    client("MSET", *(word for i in range(20) for word in (f"k{i}", "v")))
    assert touched(machine, client, line) == elements
