"""redis-py on a simulated computer, a redis-server beside kvref, and the judges of chapter 13."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from kvref.lab import judging
from kvref.lab.clients import Line, recorded, redis_py, redis_server
from kvref.lab.judging import Wrong
from kvref.sim import World
from tests import record

SOLUTIONS = Path(__file__).parent.parent / "notebooks" / "solutions" / "13.ipynb"
ONCE = Retry(NoBackoff(), 0)


@pytest.fixture
def world() -> World:
    world = World(seed=1)
    world.start()
    return world


# ---- redis-py in a World -------------------------------------------------------------------------

@pytest.mark.parametrize("protocol", [2, 3])
def test_redis_py_works_on_a_simulated_computer(world: World, protocol: int) -> None:
    r = redis_py(world, protocol=protocol, decode_responses=True)
    assert r.set("k", "v") and r.get("k") == "v" and r.get("nothing") is None
    assert r.hset("h", mapping={"a": "1", "b": "2"}) == 2 and r.hgetall("h") == {"a": "1", "b": "2"}
    assert r.set("big", "x" * 100_000) and r.strlen("big") == 100_000 and r.get("big") == "x" * 100_000
    with pytest.raises(redis.ResponseError, match="not an integer"):
        r.incr("k")
    news = r.pubsub()
    news.subscribe("c")
    assert news.get_message(timeout=1)["type"] == "subscribe"
    assert r.publish("c", "hello") == 1 and news.get_message(timeout=1)["data"] == "hello"
    assert len(r.lines) == 2


def test_time_passes_only_while_somebody_waits() -> None:
    world = World(seed=1, latency_us=250)
    world.start()
    r = redis_py(world)
    r.ping()
    begin_us = world.clock.monotonic_us()
    r.ping()
    assert 500 <= world.clock.monotonic_us() - begin_us < 600           # a round trip
    begin_us = world.clock.monotonic_us()
    assert r.blpop("queue", 2) is None
    assert 2_000_000 <= world.clock.monotonic_us() - begin_us < 2_300_000


def test_a_reply_that_does_not_come_in_time_is_a_timeout(world: World) -> None:
    r = redis_py(world, socket_timeout=1, retry=ONCE)
    with pytest.raises(redis.TimeoutError):
        r.blpop("queue", 0)
    assert 1_000_000 <= world.clock.monotonic_us() < 1_200_000


def test_who_would_wait_for_ever_gives_up_after_an_hour() -> None:
    world = World(seed=1)
    world.start(hz=1)
    with pytest.raises(TimeoutError):
        Line(world, None).recv(1)
    assert 3_600 <= world.clock.monotonic_us() / 1e6 < 3_602


def test_a_server_that_has_gone_is_a_connection_error_and_the_next_command_connects_anew(world: World) -> None:
    r = redis_py(world, retry=ONCE)
    r.ping()
    world.kill()
    for _ in range(2):                              # a dead connection, and nobody to connect to
        with pytest.raises(redis.ConnectionError):
            r.ping()
    world.start()
    assert r.ping() and len(r.lines) == 2


def test_a_client_that_is_closed_hangs_up(world: World) -> None:
    with redis_py(world) as r:
        r.ping()
        assert world.server and len(world.server.clients) == 1
    world.settle()
    assert not world.server.clients


def play(r: Any) -> None:
    r.set("k", "v")
    r.hset("h", mapping={"a": 1})
    r.hgetall("h")
    r.pipeline().incr("n").expire("n", 60).execute()
    with pytest.raises(redis.ResponseError):
        r.incr("k")
    r.set("big", b"x" * 70_000)
    r.get("big")


@pytest.mark.parametrize("options", [{}, {"protocol": 2}, {"db": 3, "client_name": "me"}], ids=str)
def test_a_line_carries_the_bytes_that_a_real_socket_does(world: World, kvref_server: Any, options: dict[str, Any]) -> None:
    with redis_py(world, **options) as ours, recorded(redis.Redis(port=kvref_server.port, **options)) as real:
        real.flushall()
        real.close()
        play(ours)
        play(real)
        assert ours.lines[0].sent == real.lines[1].sent

        def without_id(line: Any) -> bytes:
            return re.sub(rb"\$2\r\nid\r\n:\d+", b"", line.received)
        assert without_id(ours.lines[0]) == without_id(real.lines[1])


# ---- what redis-py does unasked ------------------------------------------------------------------

def names(line: Line) -> list[str]:
    return [request[0].decode() for request, _ in line.dialogue()]


def test_redis_py_connects_at_the_first_command_and_goes_on_where_the_handshake_is_refused(world: World) -> None:
    r = redis_py(world)
    assert r.lines == []
    assert r.ping()
    assert names(r.lines[0]) == ["HELLO", "CLIENT", "CLIENT", "CLIENT", "PING"]
    assert b"-ERR unknown subcommand 'MAINT_NOTIFICATIONS'" in r.lines[0].received


def test_a_pipeline_of_redis_py_is_a_transaction_unless_one_says_otherwise(world: World) -> None:
    r = redis_py(world)
    r.pipeline().set("a", 1).set("b", 2).execute()
    r.pipeline(transaction=False).set("a", 1).set("b", 2).execute()
    assert names(r.lines[0])[4:] == ["MULTI", "SET", "SET", "EXEC", "SET", "SET"]


def test_a_command_whose_reply_is_lost_is_executed_again(world: World) -> None:
    lost: list[bytes] = []

    class Loses(Line):
        def recv(self, size: int) -> bytes:
            if b"INCR" in self.sent and not lost:
                lost.append(bytes(self.sent))
                self.world.settle()
                self.caller.reset()
                raise ConnectionResetError("the line is dead")
            return super().recv(size)
    assert redis.Redis().get_retry().get_retries() == 10
    assert redis_py(world, Loses, retry=Retry(NoBackoff(), 10)).incr("n") == 2
    lost.clear()
    with pytest.raises(redis.ConnectionError):
        redis_py(world, Loses, retry=ONCE).incr("n")
    assert redis_py(world).get("n") == b"3"


# ---- a redis-server beside kvref -----------------------------------------------------------------

def test_a_redis_server_lives_as_long_as_its_block() -> None:
    if not record.installed("redis-server"):
        pytest.skip("redis-server 7.0 is not installed")
    with redis_server(databases=3) as server:
        assert server
        with redis.Redis(port=server.port, retry=ONCE) as r:
            assert r.config_get("databases") == {"databases": "3"}
    with pytest.raises(redis.ConnectionError):
        redis.Redis(port=server.port, retry=ONCE).ping()


def test_where_redis_is_not_installed_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with redis_server() as server:
        assert server is None


# ---- the judges of chapter 13 --------------------------------------------------------------------

def judge_of(id: str) -> Callable[[Any], None]:
    return judging.exercises("13")[id][0]


def solution(name: str, old: str = "", new: str = "") -> Any:
    """What the solutions call `name`, with one change of their text."""
    source = "\n".join(cell.source for cell in nbformat.read(SOLUTIONS, as_version=4).cells if cell.cell_type == "code")
    assert not old or source.count(old) == 1, old
    scope: dict[str, Any] = {}
    exec(re.sub(r"^judge\(.*", "", source.replace(old, new) if old else source, flags=re.M), scope)
    return scope[name]


@pytest.mark.parametrize("count", [
    lambda r, visit: r.incr("n"),
    lambda r, visit: r.incr("n") if r.set(f"visit:{visit}", 1, nx=True) else int(r.get("n") or 0),
    lambda r, visit: r.rpush("visits", visit),
    lambda r, visit: int(r.get("n") or 0) if not r.sadd("visits", visit) else r.incr("n"),
    lambda r, visit: r.pipeline().sadd("visits", visit).incr("n").execute()[1]], ids=["INCR", "SET NX", "RPUSH", "SADD", "MULTI"])
def test_a_count_that_a_lost_reply_makes_wrong_is_not_solved(count: Any) -> None:
    with pytest.raises(Wrong):
        judge_of("13-2")(count)


@pytest.mark.parametrize("old, new", [
    ("if database != selected", "if False"), ("if deadline is not None", "if False"), ("repr(score)", "('%g' % score)"),
    ("[b\"RPUSH\"", "[b\"LPUSH\""), ("b\"\".join(map(encode, requests))", "b\"\".join(map(encode, requests))[:-1]")])
def test_requests_that_do_not_make_the_same_data_are_not_solved(old: str, new: str) -> None:
    with pytest.raises(Wrong):
        judge_of("13-3")(solution("as_requests", old, new))


@pytest.mark.parametrize("old, new", [
    ("        server.loop.add_timer(0, send)", "        send()"),                               # before the reply
    ("readers.pop(key, {}).values()", "readers.get(key, {}).values()"),                         # again and again
    ("            readers.clear()\n", ""), ("                tell(client, None)", "                pass"),
    (" and client.resp == 3", ""), ("tracking.pop(call.client.id, None)", "pass"),
    ("    server.on_change.append(changed)", "    pass"),
    ("for client in readers.pop(key, {}).values():", "for client in readers.pop(key, {}).values() if event != 'expired' else ():"),
    ("for client in readers.pop(key, {}).values():", "for client in [c for c in readers.pop(key, {}).values() if c is not server.call.client]:"),
    ("for client in readers.pop(key, {}).values():", "readers.pop(key, None)\n        for client in tracking.values():")])
def test_a_cache_that_may_be_out_of_date_is_not_solved(old: str, new: str) -> None:
    with pytest.raises(Wrong):
        judge_of("13-4")(solution("install", old, new))


def test_the_story_of_the_tracking_client_is_what_redis_says() -> None:
    story = judge_of("13-4").__globals__["STORY"]
    if not record.installed("redis-server"):
        pytest.skip("redis-server 7.0 is not installed")
    with redis_server() as server:
        assert server
        with redis.Redis(port=server.port) as alice, redis.Redis(port=server.port) as other:
            bob = recorded(other)
            bob.client_setname("bob")
            line = bob.lines[0]
            bob.execute_command("CLIENT", "TRACKING", "ON")
            for who, words, heard in story:
                before = len(line.received)
                if who == "alice":
                    alice.execute_command(*words.split())
                    line.sendall(b"PING\r\n")
                    heard += b"+PONG\r\n"
                else:
                    line.sendall(words.encode() + b"\r\n")
                while len(line.received) < before + len(heard):
                    assert line.recv(4096)
                assert bytes(line.received[before:]) == heard, words


def test_the_solutions_are_solved() -> None:
    for id, name in (("13-1", "handshake"), ("13-2", "visited"), ("13-3", "as_requests"), ("13-4", "install")):
        judge_of(id)(solution(name))
