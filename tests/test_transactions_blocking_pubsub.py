"""Transactions, waiting and listening, as far as golden scripts cannot show it: time, numbers, what is left behind."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Sequence
from typing import Any

import pytest

import kvref.glob
import kvref.pubsub
from kvref.server import Server
from kvref.sim import World, WouldBlock
from tests import golden, record
from tests.conftest import Machine, Simulated

redis = pytest.importorskip("redis")
import redis.asyncio  # noqa: E402


def assert_nothing_is_left(server: Server) -> None:
    waiting = server.waiting
    assert not (server.on_change or server.watches.watchers or server.pubsub.channels or server.pubsub.patterns)
    assert not (waiting.clients or waiting.by_key or waiting.ready or waiting.unblocked or waiting.next_deadline_ms)


# ---- time --------------------------------------------------------------------------------------

def test_a_wait_ends_at_its_deadline_and_not_before(machine: Machine) -> None:
    machine.start()
    client = machine.connect()
    client.send("BLPOP", "q", "1.5")
    machine.advance(1400)
    assert client.replies() == []
    machine.advance(250)
    assert client.replies() == [None]
    assert_nothing_is_left(machine.server)


def test_deadlines_end_in_their_order(machine: Machine) -> None:
    server = machine.start()
    clients = [machine.connect() for _ in range(10)]
    for n, client in enumerate(clients):
        client.send("BLPOP", "q", f"{10 - n}")
        machine.settle()
    machine.advance(5500)
    assert [len(client.replies()) for client in clients] == [0] * 5 + [1] * 5
    assert server.waiting.with_deadline() == 5
    machine.advance(5000)
    assert_nothing_is_left(server)


def test_the_simulated_world_waits_for_a_deadline_and_knows_when_there_is_none() -> None:
    world = World(seed=1)
    world.start()
    alice = world.connect("alice")
    before_us = world.clock.monotonic_us()
    assert alice("BLPOP", "q", "3600") is None
    assert 3_600_000_000 <= world.clock.monotonic_us() - before_us < 3_600_200_000
    with pytest.raises(WouldBlock):
        alice("BLPOP", "q", "0")
    world.connect("bob")("RPUSH", "q", "x")
    assert alice.replies == [[b"q", b"x"]]


def test_one_instant_for_a_whole_exec(machine: Machine) -> None:
    server = machine.start()
    client = machine.connect()
    client("SET", "k", "v", "PX", "100")
    client("MULTI")
    for _ in range(3):
        client("PTTL", "k")
    clock = server.clock
    tick, server.clock.tick = clock.tick, lambda: (clock.sleep(90_000), tick())[1]     # type: ignore[method-assign]
    replies = client("EXEC")
    assert len(set(replies)) == 1 and replies[0] > 0


# ---- many --------------------------------------------------------------------------------------

def test_a_thousand_subscribers_and_one_encoding_for_each_protocol(machine: Machine,
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    server = machine.start()
    clients = []
    for n in range(1000):
        client = machine.connect()
        clients.append(client)
        machine.step()
        if n % 2:
            client.send("HELLO", "3")
        client.send("SUBSCRIBE", "ch")
    machine.settle()
    for client in clients:
        client.replies()
    encoded = []
    encode = kvref.pubsub.encode
    monkeypatch.setattr(kvref.pubsub, "encode", lambda value, resp: encoded.append(resp) or encode(value, resp))
    assert machine.connect()("PUBLISH", "ch", "hello") == len(clients)
    assert sorted(encoded) == [2, 3]
    assert {tuple(message) for client in clients for message in client.replies()} == {(b"message", b"ch", b"hello")}
    for client in list(clients):
        client.close()
    machine.settle()
    assert_nothing_is_left(server)


def test_many_waiters_are_served_in_the_order_in_which_they_came(machine: Machine) -> None:
    server = machine.start()
    clients = [machine.connect() for _ in range(100)]
    for client in clients:
        client.send("BLPOP", "none", "q", "0")
        machine.settle()
    gone = clients[10:20]
    for client in gone:
        client.close()
    machine.settle()
    machine.connect()("RPUSH", "q", *(f"{n}" for n in range(100)))
    served = [client.replies() for client in clients if client not in gone]
    assert served == [[[b"q", b"%d" % n]] for n in range(90)]
    assert len(server.databases[0].values[b"q"]) == 10
    assert_nothing_is_left(server)


def test_who_leaves_leaves_nothing_behind(machine: Machine) -> None:
    server = machine.start()
    for how in ("close", "reset"):
        client = machine.connect()
        client("WATCH", "a", "b")
        client("HELLO", "3")
        client.send("SUBSCRIBE", "x", "y")
        client.send("PSUBSCRIBE", "x*")
        client.send("BLPOP", "a", "b", "100")
        machine.settle()
        assert len(server.waiting) == len(server.waiting.clients) == 1 and len(server.on_change) == 2
        getattr(client, how)()
        machine.settle()
        assert_nothing_is_left(server)


def test_what_comes_behind_a_wait_runs_behind_it_whenever_it_comes(machine: Machine) -> None:
    """Also what comes in the very turn in which the wait ends: it stays behind what came before."""
    machine.start()
    bob, ann = machine.connect(), machine.connect()
    bob.send_bytes(b"BLPOP q 0\r\nECHO 1\r\nECHO 2\r\n")
    machine.settle()
    ann.send("RPUSH", "q", "x")
    bob.send_bytes(b"ECHO 3\r\nECHO 4\r\n")
    machine.settle()
    assert bob.replies() == [[b"q", b"x"], b"1", b"2", b"3", b"4"]


# ---- the slow subscriber -------------------------------------------------------------------------

LIMIT = 256 * 1024


def test_a_subscriber_that_never_reads_is_cut_off_and_the_others_are_not(machine: Machine) -> None:
    server = machine.start(client_output_buffer_limit=f"pubsub {LIMIT} 0 0")
    slow, quick, ann = machine.connect(), machine.connect(), machine.connect()
    for client in (slow, quick):
        client("SUBSCRIBE", "ch")
    slow.reading = False
    heard, most, counts = 0, 0, []
    for _ in range(200):
        counts.append(ann("PUBLISH", "ch", "x" * 10_000))
        heard += len(quick.replies())
        most = max(most, *(client.output_size for client in server.clients.values()))
    assert heard == 200 and counts[0] == 2 and counts[-1] == 1
    assert most <= LIMIT + 20_000
    assert server.stats.client_output_buffer_limit_disconnections == 1 and len(server.clients) == 2
    assert list(server.pubsub.channels[b"ch"].values())[0].output_size == 0


def test_what_waits_for_a_subscriber_costs_what_it_says_however_small_the_messages_are(machine: Machine) -> None:
    server = machine.start(client_output_buffer_limit="pubsub 0 0 0")
    slow, ann = machine.connect(), machine.connect()
    slow("SUBSCRIBE", "ch")
    slow.reading = False
    for _ in range(100):
        ann.send_bytes(b"PUBLISH ch 0123456789\r\n" * 100)
        machine.settle()
    client = next(iter(server.pubsub.channels[b"ch"].values()))
    assert client.output_size > 200_000
    assert sum(map(sys.getsizeof, client.output)) + sys.getsizeof(client.output) < 1.3 * client.output_size


@pytest.mark.parametrize("mode", ["SUBSCRIBE ch", "MONITOR"])
def test_behind_the_last_reply_comes_nothing(machine: Machine, mode: str) -> None:
    machine.start()
    slow, ann = machine.connect(), machine.connect()
    slow(*mode.split())
    slow.reading = False
    for _ in range(100):
        ann("PUBLISH", "ch", "x" * 10_000)
    slow.send("QUIT")
    machine.settle()
    for _ in range(100):
        ann("PUBLISH", "ch", "too late")
    slow.reading = True
    machine.settle()
    assert slow.replies()[-1] == "OK" and slow.closed


def test_the_time_above_the_soft_limit_counts_only_while_there_is_one(machine: Machine) -> None:
    server = machine.start(client_output_buffer_limit=f"pubsub 0 {LIMIT} 5")
    slow, ann = machine.connect(), machine.connect()
    slow("SUBSCRIBE", "ch")
    slow.reading = False
    for _ in range(200):
        ann("PUBLISH", "ch", "x" * 10_000)
    machine.advance(3000)
    for limits, advance_ms, left in (("0 0 0", 4000, 2), (f"0 {LIMIT} 5", 3000, 2), (f"0 {LIMIT} 5", 4000, 1)):
        ann("CONFIG", "SET", "client-output-buffer-limit", f"pubsub {limits}")
        machine.advance(advance_ms)
        assert len(server.clients) == left


def test_many_patterns_are_read_once_each(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.start()
    slow, ann = machine.connect(), machine.connect()
    for n in range(300):
        slow("PSUBSCRIBE", f"{n}*")
    compiled = []
    compile_ = kvref.glob._compiled
    monkeypatch.setattr(kvref.glob, "_compiled", lambda *args: compiled.append(args) or compile_(*args))
    for _ in range(3):
        assert ann("PUBLISH", "299x", "m") == 3          # 2* 29* 299*
    assert len(compiled) == 300
    slow.send("PUNSUBSCRIBE")
    machine.settle()
    assert not machine.server.pubsub.globs


def test_the_soft_limit_gives_a_subscriber_its_time(machine: Machine) -> None:
    server = machine.start(client_output_buffer_limit=f"pubsub 0 {LIMIT} 5")
    slow, ann = machine.connect(), machine.connect()
    slow("SUBSCRIBE", "ch")
    slow.reading = False
    for _ in range(200):
        ann("PUBLISH", "ch", "x" * 10_000)
    machine.advance(3000)
    assert len(server.clients) == 2
    machine.advance(5000)
    assert len(server.clients) == 1


def test_the_limits_are_redis_s(machine: Machine) -> None:
    assert machine.start().limits["pubsub"] == (32 << 20, 8 << 20, 60)


# ---- the log -------------------------------------------------------------------------------------

def test_an_exec_is_one_unit_in_the_log(machine: Machine) -> None:
    server = machine.start()
    client, bob = machine.connect(), machine.connect()
    logged: list[tuple[int, Sequence[bytes]]] = []
    server.feeds.append(lambda database, effect: logged.append((database, tuple(effect))))
    bob.send("BLPOP", "q", "0")
    machine.settle()
    for line in ("MULTI", "SET k v", "GET k", "SELECT 1", "EXPIREAT none 1", "RPUSH q 1", "SELECT 0", "RPUSH q 2", "EXEC"):
        client(*line.split())
    assert logged == [(0, (b"MULTI",)), (0, (b"SET", b"k", b"v")), (1, (b"RPUSH", b"q", b"1")),
                      (0, (b"RPUSH", b"q", b"2")), (0, (b"EXEC",)), (0, (b"LPOP", b"q"))]
    logged.clear()
    for lines in (["GET k"], []):
        for line in ("MULTI", *lines, "EXEC"):
            client(*line.split())
    assert logged == []
    for line in ("MULTI", "GET k", "SET k w", "EXEC"):
        client(*line.split())
    assert logged == [(0, (b"SET", b"k", b"w"))]


# ---- what an operator sees -----------------------------------------------------------------------

SEEN = """
mon> MONITOR
bob> BLPOP q 0
RPUSH q 1
bob> BLPOP q 0.1
@advance 300ms
bob> BLMOVE q r LEFT LEFT 0
SET r text
RPUSH q 1
DEL r q
bob> BLPOP q 0
cat> BZPOPMIN q 10
CLIENT LIST
INFO clients
ZADD q 1 a
CLIENT UNBLOCK $bob ERROR
MULTI
SET x 1
GET x
LPUSH x 1
EXEC
WATCH x
SET x 2
CLIENT INFO
MULTI
PING
CLIENT LIST
bob> CLIENT LIST ID $default
EXEC
bob> CLIENT LIST ID $default
@any
bob> HELLO 3
bob> SUBSCRIBE a b
bob> PSUBSCRIBE c
bob> CLIENT INFO
bob> BLPOP q 0
CLIENT LIST
INFO clients
INFO stats
INFO commandstats
MULTI
PUBLISH a x
BLPOP q 0
EXEC
CLIENT KILL TYPE pubsub
INFO clients
"""
FIELDS = ("flags", "db", "sub", "psub", "multi", "cmd", "resp")
NUMBERS = re.compile(r"(blocked_clients|pubsub_channels|pubsub_patterns|clients_in_timeout_table|total_commands_processed):\d+"
                     r"|cmdstat_[a-z]+:calls=\d+")


def seen(block: golden.Block, said: str) -> list[str]:
    """What must be equal: not addresses, instants and what kvref has no number for."""
    said = said.replace("\\r\\n", "\n").replace("\\n", "\n")
    lines = [re.sub(r"\d{10}\.\d{6} \[(\d+) [^]]*\]", r"at [\1]", line) for line in said.split("\n")]
    if block.steps[0].words[:1] == [b"INFO"]:
        return sorted(match[0] for match in NUMBERS.finditer(said))
    return [" ".join(word for word in line.split() if word.partition("=")[0] in FIELDS) if "addr=" in line else line
            for line in lines if line != '"']


@pytest.mark.skipif(not record.installed("redis-server"), reason="redis-server 7.0 is not installed")
def test_monitors_lists_and_numbers_show_what_redis_shows() -> None:
    script = golden.parse("\n\n".join(SEEN.replace("@any\n", "@any ").strip().split("\n")).replace("@any ", "@any\n"))
    machine = Simulated()
    machine.start()
    with record.RedisServer({}) as server:
        player = record.RealRedis(server)
        for (block, theirs), (_, ours) in zip(golden.play(script, player), golden.play(script, machine)):
            assert seen(block, ours) == seen(block, theirs), block.above
        player.close()


# ---- redis-py ------------------------------------------------------------------------------------

@pytest.fixture(params=[2, 3], ids=["RESP2", "RESP3"])
def client(kvref_server: Any, request: pytest.FixtureRequest) -> Any:
    with redis.Redis(port=kvref_server.port, protocol=request.param, decode_responses=True) as client:
        client.flushall()
        yield client


def test_redis_py_transaction_helper(client: Any) -> None:
    def withdraw(pipe: Any) -> None:
        balance = int(pipe.get("balance"))
        if not tries:
            client.set("balance", 50)                   # somebody else, just now
        tries.append(balance)
        pipe.multi()
        pipe.set("balance", balance - 10)
    tries: list[int] = []
    client.set("balance", 100)
    assert client.transaction(withdraw, "balance") == [True]
    assert tries == [100, 50] and client.get("balance") == "40"


def test_redis_py_watch_error_and_errors_inside(client: Any) -> None:
    with client.pipeline() as pipe:
        pipe.watch("k")
        client.set("k", 1)
        pipe.multi()
        pipe.incr("k")
        with pytest.raises(redis.WatchError):
            pipe.execute()
    with client.pipeline() as pipe:
        pipe.set("k", "text").incr("k").get("k")
        with pytest.raises(redis.ResponseError, match="not an integer"):
            pipe.execute()
    assert client.get("k") == "text"
    with client.pipeline() as pipe:
        pipe.set("k", "other").execute_command("NOSUCH")
        with pytest.raises(redis.ResponseError, match="unknown command 'NOSUCH'"):
            pipe.execute()
    assert client.get("k") == "text"


def test_redis_py_blocking(client: Any) -> None:
    client.rpush("q", "a", "b")
    assert list(client.blpop("q", timeout=1)) == ["q", "a"]
    assert client.blmove("q", "r", timeout=1) == "b"
    assert client.blpop("q", timeout=0.1) is None
    client.zadd("z", {"m": 1.5})
    assert list(client.bzpopmin("z")) == ["z", "m", 1.5]


def test_redis_py_subscriber_in_a_thread(client: Any) -> None:
    heard: list[tuple[str, str]] = []
    listener = client.pubsub(ignore_subscribe_messages=True)
    listener.subscribe(news=lambda message: heard.append((message["channel"], message["data"])))
    listener.psubscribe(**{"n*": lambda message: heard.append((message["pattern"], message["data"]))})
    thread = listener.run_in_thread(sleep_time=0.01)
    try:
        while client.pubsub_numpat() < 1 or client.pubsub_numsub("news") != [("news", 1)]:
            pass
        assert client.publish("news", "hello") == 2
        assert client.publish("note", "pattern alone") == 1
        while len(heard) < 3:
            thread.join(0.01)
    finally:
        thread.stop()
        thread.join()
    assert heard == [("news", "hello"), ("n*", "hello"), ("n*", "pattern alone")]


@pytest.mark.parametrize("protocol", [2, 3])
def test_redis_py_asyncio_subscriber(kvref_server: Any, protocol: int) -> None:
    async def play() -> list[str]:
        heard: list[str] = []
        async with redis.asyncio.Redis(port=kvref_server.port, protocol=protocol, decode_responses=True) as client:
            async with client.pubsub() as listener:
                await listener.subscribe("a")
                await listener.psubscribe("a*")
                for _ in range(2):
                    await listener.get_message(timeout=5)
                await client.publish("a", "hello")
                while len(heard) < 2:
                    message = await listener.get_message(ignore_subscribe_messages=True, timeout=5)
                    assert message
                    heard.append(message["type"])
        return heard
    assert asyncio.run(play()) == ["message", "pmessage"]


# ---- the same again ------------------------------------------------------------------------------

def test_same_seed_same_bytes() -> None:
    def play() -> list[bytes]:
        world = World(seed=7)
        world.start(notify_keyspace_events="KEA")
        clients = [world.connect(name) for name in ("ann", "bob", "cat", "dan")]
        for n, client in enumerate(clients[1:]):
            client("HELLO", "3")
            client("SUBSCRIBE", "a", "b")
            client("PSUBSCRIBE", *(f"__key*{letter}*" for letter in "setdel"))
            client.send("BLPOP", "q", "r", f"{n}")
        for line in ("SADD s a b c d e f", "SPOP s 2", "RPUSH q 1", "PUBLISH a x", "MULTI", "RANDOMKEY", "RPUSH r 1 2", "EXEC"):
            clients[0](*line.split())
        world.run(ms=3000)
        return [bytes(client.received) for client in clients]
    assert play() == play()
