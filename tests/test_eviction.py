"""Eviction: who may go, that the limit holds, and what is told of it. Redis is the witness for the counters of LFU."""

from __future__ import annotations

import random
import statistics
from pathlib import Path
from typing import Any

import pytest
import redis

import kvref
from kvref.evict import LFU_START, time_limit_us
from kvref.sim import ReplyError, World
from tests.saving import real_server
from tests.test_main import ask, started

POLICIES = [f"{which}-{by}" for which in ("allkeys", "volatile") for by in ("lru", "lfu", "random")] + ["volatile-ttl"]
LIMIT = 40_000


def used(client: Any) -> int:
    """As a client sees it."""
    return int(client("INFO", "memory").split(b"used_memory:")[1].split(b"\r\n")[0])


@pytest.mark.parametrize("policy", POLICIES)
def test_the_limit_holds_after_each_write_and_volatile_policies_spare_what_has_no_deadline(policy: str) -> None:
    world, dice = World(seed=1), random.Random(1)
    server = world.start(maxmemory=LIMIT, maxmemory_policy=policy)
    alice = world.connect("alice")
    for n in range(20):
        alice("SET", f"for ever:{n}", "x" * 100)
    for n in range(600):
        word, more = dice.choice([("SET", ("x" * dice.randrange(200),)), ("SADD", ("a", "b", str(n))),
                                  ("RPUSH", ("y" * 50, "z")), ("HSET", ("f", "v"))])
        key = f"{word}:{n % 250}"
        alice(word, key, *more)
        alice("EXPIRE", key, 1000 + n)
        assert used(alice) <= LIMIT
    assert server.stats.evicted_keys > 100
    spared = sum(alice("EXISTS", f"for ever:{n}") for n in range(20))
    assert spared == 20 if policy.startswith("volatile") else spared < 20


def test_the_nearest_deadline_goes_first_the_longest_unused_and_the_least_used() -> None:
    for policy, survivor in (("volatile-ttl", "late"), ("allkeys-lru", "touched"), ("allkeys-lfu", "touched")):
        world = World(seed=1)
        server = world.start(maxmemory_policy=policy, maxmemory_samples=10)
        alice = world.connect("alice")
        for key in ("touched", "plain", "late"):
            alice("SET", key, "x", "EX", 2000 if key == "late" else 1000)
            world.run(ms=2000)
        for _ in range(50):
            alice("GET", "touched")
        alice("CONFIG", "SET", "maxmemory", server.memory.used() // 3 + 100)
        assert alice("KEYS", "*") == [survivor.encode()], policy


def test_an_evicted_key_is_a_del_in_the_log_and_an_event() -> None:
    world = World(seed=1)
    server = world.start(appendonly="yes", maxmemory=LIMIT, maxmemory_policy="allkeys-lru", notify_keyspace_events="Ee")
    alice, bob = world.connect("alice"), world.connect("bob")
    bob("SUBSCRIBE", "__keyevent@0__:evicted")
    for n in range(300):
        alice("SET", f"key:{n}", "x" * 100)
    evicted, left = server.stats.evicted_keys, dict(server.databases[0].values)
    assert evicted > 100 and (bob.pushes or bob.replies)
    world.kill()
    assert world.start(appendonly="yes").databases[0].values == left        # without a limit: the log alone says it


def test_a_write_that_crosses_the_limit_is_let_through_and_the_next_is_refused() -> None:
    world = World(seed=1)
    world.start(maxmemory=1000)
    alice = world.connect("alice")
    assert alice("SET", "a", "x" * 1000) == "OK"
    with pytest.raises(ReplyError, match="OOM command not allowed when used memory > 'maxmemory'."):
        alice("SET", "b", "")
    alice("DEL", "a")
    assert alice("SET", "b", "") == "OK"
    alice.send_bytes(b"*3\r\n$3\r\nSET\r\n$1\r\nc\r\n$900\r\n%b\r\n" % (b"x" * 900)
                     + b"*3\r\n$3\r\nSET\r\n$1\r\nd\r\n$0\r\n\r\n")
    world.run(ms=1)
    assert str(alice.replies[1]).startswith("OOM")      # within one pipeline, too


def test_evicting_much_takes_several_turns_and_others_are_served_between_them() -> None:
    world = World(seed=1)
    server = world.start(maxmemory_eviction_tenacity=0, maxmemory_policy="allkeys-lru")
    alice, bob = world.connect("alice"), world.connect("bob")
    for n in range(2000):
        alice.send("SET", f"key:{n}", "x")
    world.run(ms=500)
    turns = []
    evict = server.eviction.make_room

    def counted() -> bool:
        before, done = server.stats.evicted_keys, evict()
        turns.append(server.stats.evicted_keys - before)
        return done
    server.eviction.make_room = counted                                             # type: ignore[method-assign]
    alice("CONFIG", "SET", "maxmemory", LIMIT)
    assert bob("PING") == "PONG"
    world.run(ms=1000)
    assert max(turns) <= 32 and len(turns) > 40 and sum(turns) > 1000 and server.memory.used() <= LIMIT
    assert [time_limit_us(tenacity) for tenacity in (0, 10, 11)] == [0, 500, 575] and time_limit_us(100) > 10**12


def test_the_uses_of_keys_are_carried_by_a_dump() -> None:
    world = World(seed=1)
    world.start(maxmemory_policy="allkeys-lfu", lfu_log_factor=0)
    alice = world.connect("alice")
    for n in range(7):
        alice("SET", "hot", "x")
    alice("SADD", "cold", "a")
    alice("SAVE")
    world.kill()
    world.start(maxmemory_policy="allkeys-lfu")
    alice = world.connect("alice")
    assert alice("OBJECT", "FREQ", "hot") == LFU_START + 6 and alice("OBJECT", "FREQ", "cold") == LFU_START
    alice("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    world.run(ms=100_000)
    alice("SAVE")
    world.kill()
    world.start(maxmemory_policy="allkeys-lru")
    alice = world.connect("alice")
    assert 100 <= alice("OBJECT", "IDLETIME", "hot") <= 102


@pytest.mark.parametrize("policy", ["allkeys-lfu", "allkeys-lru"])
@pytest.mark.parametrize("rewritten_under", ["", "noeviction", "allkeys-lfu"])
def test_a_log_loads_under_any_policy_and_the_use_of_each_key_is_known_behind_it(policy: str,
                                                                                rewritten_under: str) -> None:
    world = World(seed=1)
    world.start(appendonly="yes", maxmemory_policy=rewritten_under or policy)
    alice = world.connect("alice")
    for words in ("SET a 1", "RPUSH l x", "SET gone 1", "SET moved 1", "SET old 1"):
        alice(*words.split())
    if rewritten_under:
        alice("BGREWRITEAOF")
        world.run(ms=500)
    for words in ("INCR a", "SET a 3", "RPUSH l y", "DEL gone", "RENAME old new", "MOVE moved 1", "SET late 1"):
        alice(*words.split())
    world.kill()
    server = world.start(appendonly="yes", maxmemory_policy=policy)
    for database in server.databases:
        assert database.access is not None and database.access.keys() == database.values.keys()
    assert server.databases[0].values.keys() == {b"a", b"l", b"new", b"late"}


def test_while_a_child_saves_no_use_is_noted() -> None:
    """It would copy memory that both share. What is written anew is fresh all the same."""
    for policy in ("allkeys-lfu", "allkeys-lru"):
        world = World(seed=1, child_step_us=500_000)
        server = world.start(maxmemory_policy=policy, lfu_log_factor=0)
        alice = world.connect("alice")
        for key in ("read", "written"):
            alice("SET", key, "x")
        world.run(ms=5000)
        alice("BGSAVE")
        noted = dict(server.databases[0].access or {})
        alice("GET", "read")
        alice("SET", "written", "y")
        alice("SET", "new", "z")
        assert server.children
        now = server.databases[0].access or {}
        assert now[b"read"] == noted[b"read"] and b"new" in now
        assert (now[b"written"] == noted[b"written"]) == (policy == "allkeys-lfu")
        while server.children:
            world.run(ms=500)
        alice("GET", "read")
        assert now[b"read"] > noted[b"read"]


def test_a_dump_that_tells_of_an_endless_idle_time_can_be_saved_again() -> None:
    world = World(seed=1)
    server = world.start(maxmemory_policy="allkeys-lru")
    alice = world.connect("alice")
    alice("SET", "key", "x")
    server.eviction.restore(server.databases[0], b"key", idle_s=2**64 - 1)
    assert alice("SAVE") == "OK" and alice("OBJECT", "IDLETIME", "key") == 2**24 - 1


def test_info_tells_for_how_long_more_was_used_than_may_be() -> None:
    world = World(seed=1)
    world.start()
    alice = world.connect("alice")

    def told() -> list[int]:
        lines = dict(line.split(":", 1) for line in alice("INFO", "stats").decode().split("\r\n") if ":" in line)
        return [int(lines[f"{which}_eviction_exceeded_time"]) for which in ("current", "total")]
    alice("SET", "key", "x" * 1000)
    alice("CONFIG", "SET", "maxmemory", 500)
    alice("PING")
    world.run(ms=3000)
    assert told() == [pytest.approx(3000, abs=50)] * 2
    alice("DEL", "key")
    current, total = told()
    assert current == 0 and total == pytest.approx(3000, abs=50)
    alice("CONFIG", "RESETSTAT")
    assert told() == [0, 0]


def test_the_counter_decays_a_step_a_minute() -> None:
    world = World(seed=1)
    world.start(maxmemory_policy="allkeys-lfu", lfu_log_factor=0)
    alice = world.connect("alice")
    for n in range(21):
        alice("SET", "key", "x")
    assert alice("OBJECT", "FREQ", "key") == 25
    world.run(ms=10 * 60_000)
    assert alice("OBJECT", "FREQ", "key") == 15
    alice("CONFIG", "SET", "lfu-decay-time", "0")
    assert alice("OBJECT", "FREQ", "key") == 25


def test_the_counters_are_distributed_as_redis_distributes_them() -> None:
    counts = (1, 10, 100, 1000)

    def frequencies(client: redis.Redis) -> dict[int, list[int]]:
        client.config_set("maxmemory-policy", "allkeys-lfu")
        found = {}
        for count in counts:
            pipe = client.pipeline(transaction=False)
            for key in range(40):
                pipe.set(f"key:{count}:{key}", "text")
                for _ in range(count):
                    pipe.get(f"key:{count}:{key}")
            pipe.execute()
            found[count] = [int(client.object("FREQ", f"key:{count}:{key}")) for key in range(40)]
        return found
    with kvref.running(save="") as ours:
        mine = frequencies(redis.Redis(port=ours.port))
    with real_server() as real:
        theirs = frequencies(redis.Redis(port=real.port))
    for count in counts:
        a, b = mine[count], theirs[count]
        spread = (statistics.pvariance(a) / 40 + statistics.pvariance(b) / 40) ** 0.5
        assert abs(statistics.mean(a) - statistics.mean(b)) <= 4 * spread + 0.5, (count, a, b)


def test_debian_s_own_redis_conf_starts_kvref(debians_conf: str, tmp_path: Path) -> None:
    changed = {"daemonize": "no", "dir": str(tmp_path), "logfile": '""', "pidfile": str(tmp_path / "pid")}
    lines = [(line.split() or [""])[0] for line in debians_conf.splitlines()]
    text = "\n".join(f"{name} {changed[name]}" if name in changed else line
                     for name, line in zip(lines, debians_conf.splitlines()))
    assert {"daemonize", "dir", "logfile"} <= set(lines)
    (tmp_path / "redis.conf").write_text(text)
    with started("redis.conf", cwd=tmp_path) as (_, port, _):
        assert ask(port, "SET", "key", "value") == b"+OK\r\n"


@pytest.mark.parametrize("policy", ["allkeys-lfu", "volatile-lru"])
def test_redis_reads_the_uses_that_kvref_has_noted_and_the_other_way_round(policy: str, tmp_path: Path) -> None:
    def asked(client: redis.Redis) -> list[int]:
        what = "FREQ" if policy.endswith("lfu") else "IDLETIME"
        return [int(client.object(what, key)) for key in ("one", "two")]
    directives = {"save": "", "dir": str(tmp_path), "maxmemory_policy": policy, "lfu_decay_time": "0"}
    with real_server(**directives) as real:
        client = redis.Redis(port=real.port)
        payload = client.execute_command("SADD", "set", "member") and client.dump("set")
        for key, use in (("one", 7), ("two", 200)):
            client.restore(key, 0, payload, **({"frequency": use} if policy.endswith("lfu") else {"idletime": use * 100}))
        theirs = asked(client)
        client.save()
    with kvref.running(**directives) as ours:
        client = redis.Redis(port=ours.port)
        mine = asked(client)
        assert mine == pytest.approx(theirs, abs=0 if policy.endswith("lfu") else 20)
        client.save()
    with real_server(**directives) as real:
        assert asked(redis.Redis(port=real.port)) == pytest.approx(mine, abs=0 if policy.endswith("lfu") else 20)
