"""redis-py, synchronous and asynchronous, in RESP2 and RESP3, against a kvref process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

redis = pytest.importorskip("redis")
import redis.asyncio  # noqa: E402

EVERY_BYTE = bytes(range(256))


@pytest.fixture(params=[2, 3], ids=["RESP2", "RESP3"])
def protocol(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def client(kvref_server: Any, protocol: int) -> Iterator[Any]:
    with redis.Redis(port=kvref_server.port, protocol=protocol) as client:
        client.flushall()
        yield client


def test_strings_and_counters(client: Any) -> None:
    assert client.set("k", "v") is True
    assert client.get("k") == b"v"
    assert client.get("nothing") is None
    assert client.set("k", "w", nx=True) is None
    assert client.set("k", "w", get=True) == b"v"
    assert client.mset({"a": 1, "b": 2}) is True
    assert client.mget("a", "b", "c") == [b"1", b"2", None]
    assert client.incrby("a", 41) == 42
    assert client.incrbyfloat("a", 0.5) == 42.5
    assert client.append("k", "!") == 2
    assert client.getrange("k", 0, -1) == b"w!"
    assert client.delete("a", "b", "c") == 2
    assert client.type("k") == b"string"


def test_binary_keys_and_values(client: Any) -> None:
    assert client.set(EVERY_BYTE, EVERY_BYTE[::-1])
    assert client.get(EVERY_BYTE) == EVERY_BYTE[::-1]
    assert client.keys() == [EVERY_BYTE]
    assert client.set("", "")
    assert client.get("") == b""


def test_a_value_of_a_megabyte(client: Any) -> None:
    value = EVERY_BYTE * 4096
    assert client.set("big", value)
    assert client.get("big") == value
    assert client.strlen("big") == 1 << 20


def test_pipelines(client: Any) -> None:
    with client.pipeline(transaction=False) as pipe:
        for n in range(1000):
            pipe.set(f"k{n}", n).get(f"k{n}")
        assert pipe.execute() == [value for n in range(1000) for value in (True, str(n).encode())]
    with client.pipeline(transaction=False) as pipe:
        pipe.set("k", "v").incr("k").get("k")
        ok, error, value = pipe.execute(raise_on_error=False)
    assert ok is True and value == b"v"
    assert isinstance(error, redis.ResponseError) and str(error) == "value is not an integer or out of range"


def test_deadlines(client: Any) -> None:
    client.set("k", "v", ex=100)
    assert 99 <= client.ttl("k") <= 100
    assert client.expire("k", 50, gt=True) is False
    assert client.pexpireat("k", 1) is True
    assert client.get("k") is None
    client.set("k", "v")
    assert client.ttl("k") == -1 and client.ttl("nothing") == -2
    client.set("soon", "v", px=30)
    wait_until(lambda: not client.exists("soon"))


def wait_until(done: Any) -> None:
    """Ask until it is so; no more than ten seconds."""
    give_up = threading.Event()
    timer = threading.Timer(10, give_up.set)
    timer.start()
    while not done():
        assert not give_up.is_set(), "it took more than ten seconds"
    timer.cancel()


def test_scan_iter_returns_every_key(client: Any) -> None:
    names = {f"key:{n}".encode() for n in range(1000)}
    client.mset(dict.fromkeys(names, 1))
    client.set("other", 1)
    assert set(client.scan_iter(match="key:*", count=37)) == names
    assert set(client.scan_iter()) == names | {b"other"}


def test_info_config_and_client_list(client: Any, kvref_server: Any, protocol: int) -> None:
    info = client.info()
    assert info["redis_version"] == "7.0.15" and info["tcp_port"] == kvref_server.port
    assert info["process_id"] == kvref_server.pid and info["connected_clients"] >= 1
    assert client.info("server")["redis_mode"] == "standalone"
    assert client.config_get("databases") == {"databases": "16"}
    assert client.config_set("timeout", 300) is True
    assert client.config_get("time*", )["timeout"] == "300"
    client.config_set("timeout", 0)
    client.client_setname("alice")
    [me] = [row for row in client.client_list() if row["id"] == str(client.client_id())]
    assert me["name"] == "alice" and me["cmd"] == "client|list" and me["lib-name"].startswith("redis-py")
    assert me["resp"] == str(protocol)
    assert client.client_info()["name"] == "alice"
    assert len(client.time()) == 2 and client.dbsize() == 0


def test_errors_are_redis_pys_exceptions(client: Any) -> None:
    client.set("k", "text")
    with pytest.raises(redis.ResponseError, match="not an integer"):
        client.incr("k")
    with pytest.raises(redis.ResponseError, match="unknown command 'NOSUCH'"):
        client.execute_command("NOSUCH")
    with pytest.raises(redis.ResponseError, match="DB index is out of range"):
        client.execute_command("SELECT", 99)


def test_other_databases_and_renaming(client: Any, kvref_server: Any, protocol: int) -> None:
    client.set("k", "v")
    with redis.Redis(port=kvref_server.port, protocol=protocol, db=5) as five:
        assert five.get("k") is None
        assert client.move("k", 5) is True
        assert five.rename("k", "l") is True
        assert five.copy("l", "m") is True
        assert sorted(five.keys()) == [b"l", b"m"]
    client.swapdb(0, 5)
    assert client.get("l") == b"v"


def test_fifty_threads_lose_no_increment(client: Any) -> None:
    def work() -> None:
        for n in range(40):
            client.incr("n")
            client.set(f"{threading.get_ident()}:{n}", n)
    threads = [threading.Thread(target=work) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client.get("n") == b"2000"


def test_asyncio(kvref_server: Any, protocol: int) -> None:
    async def play() -> None:
        async with redis.asyncio.Redis(port=kvref_server.port, protocol=protocol, decode_responses=True) as client:
            await client.flushall()
            assert await client.set("k", "gr\u00fcn") is True
            assert await client.get("k") == "gr\u00fcn"
            assert await asyncio.gather(*(client.incr("n") for _ in range(50))) is not None
            assert await client.get("n") == "50"
            async with client.pipeline(transaction=False) as pipe:
                pipe.set("a", 1)
                pipe.mget("a", "k")
                assert await pipe.execute() == [True, ["1", "gr\u00fcn"]]
            assert {key async for key in client.scan_iter(count=1)} == {"k", "n", "a"}
            assert (await client.info("keyspace"))["db0"]["keys"] == 3
            assert await client.config_get("databases") == {"databases": "16"}
            assert any(row["resp"] == str(protocol) for row in await client.client_list())
    asyncio.run(play())
