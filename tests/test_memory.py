"""The model of memory: what it says against the process, and the ledger against a count of everything."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

import kvref
from kvref.command_table import table
from kvref.memory import FEW, SAMPLE, size_of, size_of_value
from kvref.sim import ReplyError, World
from tests.grammar import Author

TOLERANCE = 0.15

WORKLOADS = {
    "small strings": (150_000, lambda pipe, n: pipe.execute_command("SET", "key:%011d" % n, "%08d" % n)),
    "strings with a deadline": (40_000, lambda pipe, n: pipe.execute_command(
        "SET", "page:%d" % n, "x" * (500 + n % 1000), "EX", 100_000)),
    "hashes": (15_000, lambda pipe, n: pipe.execute_command(
        "HSET", "user:%d" % n, *(word for i in range(5 + n % 15) for word in (f"field{i}", f"value-{n}-{i}")))),
    "lists, sets and sorted sets": (3_000, lambda pipe, n: (
        pipe.execute_command("RPUSH", f"l:{n}", *(f"job-{n}-{i}" for i in range(60))),
        pipe.execute_command("SADD", f"s:{n}", *(f"member-{n}-{i}" for i in range(40))),
        pipe.execute_command("ZADD", f"z:{n}", *(word for i in range(40) for word in (i * n, f"player-{n}-{i}"))))),
}


@pytest.mark.parametrize("workload", WORKLOADS)
@pytest.mark.parametrize("maxmemory", ["0", "1gb"])
def test_the_model_is_within_15_percent_of_the_process(workload: str, maxmemory: str) -> None:
    count, write = WORKLOADS[workload]
    with kvref.running(save="", maxmemory=maxmemory, maxmemory_policy="allkeys-lru") as server:
        client = redis.Redis(port=server.port)

        def figures() -> tuple[int, int]:
            told = client.info("memory")
            return int(told["used_memory"]), int(told["used_memory_rss"])
        before = figures()
        for start in range(0, count, 500):
            pipe = client.pipeline(transaction=False)
            for n in range(start, min(start + 500, count)):
                write(pipe, n)
            pipe.execute()
        used, resident = (after - was for after, was in zip(figures(), before))
        client.close()
    assert abs(used / resident - 1) < TOLERANCE, f"{workload}: {used:,} bytes by the model, {resident:,} more are resident"


def counted(server: Any) -> int:
    """Everything anew."""
    return sum(size_of(database, key) for database in server.databases for key in database.values)


KEYS = "s1 l1 l2 h1 t1 t2 z1 z2".split()
SPECIAL = [words.split() for words in (
    "MULTI", "EXEC", "EXEC", "DISCARD", "RESET", "SWAPDB 0 1", "SELECT 1", "SELECT 0", "DEBUG RELOAD", "DEBUG LOADAOF",
    "BLPOP KEY KEY 1", "BLMOVE KEY KEY LEFT RIGHT 1", "BLMPOP 1 2 KEY KEY LEFT COUNT 3", "BZPOPMIN KEY 1",
    "PEXPIRE KEY 20", "PEXPIRE KEY 300", "EXPIRE KEY 100", "SET KEY v PX 20", "GETEX KEY PX 10", "SORT KEY BY x STORE KEY",
    "CONFIG SET maxmemory 0", "CONFIG SET maxmemory 1gb", "CONFIG SET maxmemory 20kb", "BGSAVE",
    "CONFIG SET maxmemory-policy allkeys-lru", "CONFIG SET maxmemory-policy volatile-lfu", "RESTORE KEY 50 DUMP REPLACE",
    "RESTORE KEY 0 DUMP FREQ 9", "HINCRBYFLOAT KEY f 1e300", "RPUSH KEY" + " e" * 150, "SADD KEY " + " ".join(map(str, range(150))),
    "SMOVE KEY KEY 5")]
DUMP = b"\x00\x01x\n\x00\"\x80\x86_\xbd\xe8H\xd0"


@given(st.integers(0, 10**6), st.sampled_from(["allkeys-lru", "volatile-lfu", "noeviction", "volatile-ttl"]))
def test_the_ledger_is_the_sum_of_all_keys_after_any_commands(seed: int, policy: str) -> None:
    """And what is noted of uses is noted of the keys that there are."""
    dice = random.Random(seed)
    author = Author(dice, frozenset(name.decode() for name in table() if name.islower()))
    world = World(seed=seed)
    directives = {"maxmemory": "1gb", "maxmemory_policy": policy, "appendonly": "yes", "enable_debug_command": "yes"}
    server = world.start(**directives)
    clients = [world.connect("alice"), world.connect("bob")]

    def check() -> None:
        for database in server.databases:
            assert database.access is None or database.access.keys() == database.values.keys()
            if ledger := database.ledger:
                assert ledger.sizes.keys() == database.values.keys()
                sizes = {key: size if isinstance(size, int) else size.size for key, size in ledger.sizes.items()}
                assert ledger.total == sum(sizes.values())
                for key, size in ledger.sizes.items():
                    real = size_of(database, key)
                    assert size == real if isinstance(size, int) else size.size >= real, key
        assert server.memory.used() >= server.memory.buffers >= 0
    for command in [*author.opening(), *(author.command() for _ in range(80))]:
        words = command.words if dice.random() < 0.75 else [
            {"KEY": dice.choice(KEYS), "DUMP": DUMP}.get(word, word) for word in dice.choice(SPECIAL)]
        dice.choice(clients).send(*words)
        world.run(ms=dice.choice((1, 1, 1, 30)))
        check()
    world.kill()
    server = world.start(**directives)
    check()


def test_what_is_large_is_never_counted_for_less_and_hardly_for_more() -> None:
    world, dice = World(seed=1), random.Random(1)
    server = world.start(maxmemory="1gb")
    alice = world.connect("alice")
    most, lists = 1.0, server.databases[0].values
    for step in range(4000):
        n = dice.randrange(600)
        alice(*dice.choice([
            ("RPUSH", "list", "x" * dice.randrange(100)), ("RPUSH", "other", "y" * dice.randrange(100)),
            ("LMOVE", "other", "list", "LEFT", "RIGHT"), ("LPOP", "list"),
            ("HSET", "hash", f"f{n}", "v" * dice.randrange(90)), ("HDEL", "hash", f"f{n}"),
            ("SADD", "set", f"m{n}"), ("SREM", "set", f"m{n}"), ("ZADD", "zset", n, f"m{n}"),
            ("LSET", "list", 0, "z" * dice.randrange(100)) if b"list" in lists else ("PING",),
            ("SUNIONSTORE", "set", "set", "nothing") if n < 20 else ("PING",),
            ("COPY", "hash", "copy", "REPLACE") if n < 20 else ("PING",),
            ("DEL", "other") if n < 3 else ("PING",)]))
        real, ledger = counted(server), server.memory.used() - server.memory.buffers
        assert ledger >= real, step
        most = max(most, ledger / real)
    assert max(map(len, server.databases[0].values.values())) > 3 * FEW and 1 < most < 1.25, most


def test_one_large_field_that_is_written_over_and_over_counts_once() -> None:
    world = World(seed=1)
    server = world.start(maxmemory="1gb")
    alice = world.connect("alice")
    alice("HSET", "hash", *(word for n in range(2000) for word in (f"f{n}", "v")))
    for _ in range(100):
        alice("HSET", "hash", "blob", "x" * 100_000)
        assert server.memory.used() - server.memory.buffers < 1.3 * counted(server)


def test_what_no_argument_says_counts_too() -> None:
    """A deadline; and a sum that is longer than what was added."""
    world = World(seed=1)
    server = world.start(maxmemory="1gb")
    alice = world.connect("alice")
    alice("HSET", "hash", *(word for n in range(1000) for word in (f"f{n}", "v")))
    alice("EXPIRE", "hash", "1000")
    assert server.memory.used() - server.memory.buffers >= counted(server)
    for n in range(50):
        alice("HINCRBYFLOAT", "hash", f"sum{n}", "1e300")
        assert server.memory.used() - server.memory.buffers >= counted(server)


def test_a_command_of_many_keys_does_not_copy_its_arguments_for_each_of_them() -> None:
    class Words(list[bytes]):
        def __getitem__(self, at: Any) -> Any:
            assert not isinstance(at, slice)
            return super().__getitem__(at)
    world = World(seed=1)
    server = world.start(maxmemory="1gb")
    server.databases[0].set(b"key", b"value")
    server.call.args = Words([b"MSET", b"key", b"value"])
    server.eviction.tell(server.databases[0], b"key", "set")
    assert server.memory.total == counted(server) > 0


def test_a_small_sample_stands_for_a_large_value_and_none_for_all() -> None:
    value = deque([b"x" * 100] * 1000)
    assert size_of_value(value, samples=5) == size_of_value(value)
    value[3] = b""
    assert size_of_value(value, samples=5) < size_of_value(value) < size_of_value(deque([b"x" * 100] * 1000))


def test_the_buffers_of_clients_count() -> None:
    world = World(seed=1)
    server = world.start(maxmemory="1gb")
    alice, bob = world.connect("alice"), world.connect("bob")
    alice("SET", "page", "x" * 300_000)
    world.run(ms=200)
    before = int(info(alice)["used_memory"])
    bob.send_bytes(b"*2\r\n$4\r\nECHO\r\n$100000\r\n" + b"x" * 50_000)
    world.run(ms=200)
    assert int(info(alice)["used_memory"]) - before == pytest.approx(50_000, abs=100)
    assert server.memory.overhead() > 50_000


def test_the_arguments_of_a_request_cut_short_count() -> None:
    world = World(seed=1)
    world.start(maxmemory="1gb")
    alice, bob = world.connect("alice"), world.connect("bob")
    bob.send_bytes(b"*101\r\n$4\r\nMGET\r\n" + (b"$500\r\n" + b"x" * 500 + b"\r\n") * 99)
    world.run(ms=200)
    assert 99 * 500 < int(info(alice)["used_memory"]) < 100 * 500 and b" qbuf=495" in alice("CLIENT", "LIST")
    bob.send_bytes(b"$0\r\n\r\n" + b"*2\r\n$3\r\nGET\r\n")         # the end of it, and the beginning of another
    world.run(ms=200)
    assert bob.replies == [[None] * 100] and int(info(alice)["used_memory"]) < 1000


def test_what_waited_for_a_client_that_has_gone_evicts_no_key() -> None:
    world = World(seed=1)
    server = world.start(maxmemory="100kb", maxmemory_policy="allkeys-random")
    alice, bob = world.connect("alice"), world.connect("bob")
    bob.send_bytes(b"*2\r\n$4\r\nECHO\r\n$100000\r\n" + b"x" * 90_000)
    world.run(ms=200)
    assert server.memory.buffers >= 90_000
    bob.close()
    for n in range(100):                            # before anybody looks at the clients again
        alice("SET", f"key:{n}", "x" * 100)
    assert server.stats.evicted_keys == 0 and server.memory.buffers < 100


def test_what_waits_for_a_client_that_is_to_be_closed_behind_this_turn_evicts_no_key() -> None:
    world = World(seed=1)
    server = world.start(maxmemory="100kb", maxmemory_policy="allkeys-random")
    alice, bob = world.connect("alice"), world.connect("bob")
    bob.send_bytes(b"*2\r\n$4\r\nECHO\r\n$100000\r\n" + b"x" * 90_000)
    world.run(ms=200)
    number = str(alice("CLIENT", "LIST").decode().splitlines()[-1].split()[0].removeprefix("id="))
    alice.send("CLIENT", "KILL", "ID", number)
    for n in range(100):                            # all in one turn
        alice.send("SET", f"key:{n}", "x" * 100)
    world.settle()
    assert bob.ended and server.stats.evicted_keys == 0


def test_what_waits_for_exec_counts_and_is_refused_in_the_end() -> None:
    world = World(seed=1)
    server = world.start(maxmemory="100kb")
    alice, bob = world.connect("alice"), world.connect("bob")
    bob("MULTI")
    for _ in range(9):
        assert bob("SET", "page", "x" * 10_000) == "QUEUED"
        world.run(ms=200)
    assert 90_000 < server.memory.buffers < 100_000
    assert bob("SET", "page", "x" * 20_000) == "QUEUED"
    world.run(ms=200)
    with pytest.raises(ReplyError, match="OOM"):
        bob("GET", "page")
    bob("DISCARD")
    world.run(ms=200)
    assert server.memory.buffers < 1000 and alice("SET", "a", "b") == "OK"


def test_buffers_are_looked_at_without_maxmemory_too_and_forgotten_when_they_are_gone() -> None:
    world = World(seed=1)
    world.start(maxmemory="1gb")
    alice, bob = world.connect("alice"), world.connect("bob")
    bob.send_bytes(b"*2\r\n$4\r\nECHO\r\n$100000\r\n" + b"x" * 50_000)
    world.run(ms=200)
    alice("CONFIG", "SET", "maxmemory", "0")
    assert int(info(alice)["mem_clients_normal"]) >= 50_000
    bob.send_bytes(b"x" * 50_000 + b"\r\n")
    world.run(ms=200)
    assert int(info(alice)["used_memory"]) < 1000


def test_without_maxmemory_the_first_keys_stand_for_all() -> None:
    world = World(seed=1)
    server = world.start()
    alice = world.connect("alice")
    for n in range(3 * SAMPLE):
        alice.send("SET", f"key:{n:04}", "x" * 50)
    world.run(ms=10_000)
    assert len(server.databases[0]) == 3 * SAMPLE and server.databases[0].ledger is None
    assert server.memory.used() == counted(server) == int(info(alice)["used_memory"])


def info(client: Any) -> dict[str, str]:
    lines = client("INFO", "memory").decode().split("\r\n")
    return dict(line.split(":", 1) for line in lines if ":" in line)
