"""Corners where behaviour once differed from Redis 7.0.15, or where a promise had no test of its own."""

from __future__ import annotations

import errno
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kvref
from kvref.__main__ import Log, _run
from kvref.command_table import NO_SUCH_KEY, SYNTAX
from kvref.config import Config
from kvref.machine import RealNetwork
from kvref.sim import World
from tests import golden
from tests.conftest import Connection, Machine
from tests.golden import request


def parts(machine: Machine, *lines: str) -> list[Any]:
    """The replies to a pipeline of a new client."""
    alice = machine.connect("alice")
    alice.send_bytes(b"".join(request(*line.split()) for line in lines))
    machine.settle()
    return alice.replies()


def report(alice: Connection, section: str) -> dict[str, str]:
    pairs = (line.split(":", 1) for line in alice("INFO", section).decode().split("\r\n") if ":" in line)
    return {name: value for name, value in pairs}


# ---- the rule of the sends ------------------------------------------------------------------------------------------

def test_nothing_is_sent_but_before_a_sleep_even_to_a_slow_reader(machine: Machine,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    server = machine.start()
    alice = machine.connect("alice")
    before_sleep, send = server.loop.before_sleep, server.network.send
    inside, sends = False, []

    def around() -> None:
        nonlocal inside
        inside = True
        before_sleep()
        inside = False

    def spy(sock: int, data: bytes | memoryview) -> int:
        if sock in {client.sock for client in server.clients.values()}:     # not what alice sends
            sends.append(inside)
        return send(sock, data)

    monkeypatch.setattr(server.loop, "before_sleep", around)
    monkeypatch.setattr(server.network, "send", spy)
    alice("SET", "big", b"x" * 2_000_000)
    alice.reading = False
    alice.send("GET", "big")
    machine.settle()
    alice.reading = True
    machine.settle()
    assert len(alice.replies()) == 1
    assert len(sends) > 3 and all(sends)            # several writable events, each of which only put it on the list


def test_a_silent_reply_behind_a_big_one_leaves_nothing_to_wait_for() -> None:
    world = World(capacity=1 << 20)                 # takes the big one at once
    server = world.start()
    alice = world.connect("alice")
    assert alice("MONITOR") == "OK"
    alice.send_bytes(request("ECHO", b"x" * 100_000) + request("MONITOR"))
    for _ in range(20):
        world.step()
    (client,) = server.clients.values()
    assert not client.output_size and not client.watching_write


def test_after_quit_nothing_is_kept_of_what_still_comes(machine: Machine) -> None:
    server = machine.start()
    alice = machine.connect("alice")
    alice("SET", "big", b"x" * 8_000_000)
    alice.reading = False
    alice.send_bytes(request("GET", "big") + request("QUIT"))
    machine.settle()
    alice.send_bytes(b"y" * 3_000_000)
    machine.settle()
    (client,) = server.clients.values()
    assert client.query_size < 100_000


def test_after_quit_nothing_is_run_while_the_replies_wait_for_a_slow_reader(machine: Machine) -> None:
    machine.start()
    alice, bob = machine.connect("alice"), machine.connect("bob")
    alice("SET", "big", b"x" * 8_000_000)
    alice.reading = False
    alice.send_bytes(request("GET", "big") + request("QUIT"))
    machine.settle()
    alice.send("SET", "late", "1")
    machine.settle()
    assert bob("EXISTS", "late") == 0 and not alice.closed
    alice.reading = True
    machine.settle()
    assert alice.closed and len(alice.replies()) == 2


# ---- what a client sees ---------------------------------------------------------------------------------------------

def test_a_monitor_cannot_touch_keys(machine: Machine) -> None:
    machine.start()
    said = parts(machine, "MONITOR", "GET a", "SET a 1", "DBSIZE", "SELECT 3", "RESET", "GET a")
    refused = golden.replies(b"-ERR Replica can't interact with the keyspace\r\n")[0][0]
    assert said[1:4] == [refused] * 3 and said[-1] is None


def test_debug_is_refused_before_the_password_is_asked_for(machine: Machine) -> None:
    machine.start(requirepass="x")
    assert "DEBUG command not allowed" in str(parts(machine, "DEBUG SLEEP 0")[0])


def test_a_refused_debug_is_rejected_and_not_a_call_that_failed(machine: Machine) -> None:
    machine.start()
    alice = machine.connect("alice")
    alice("DEBUG", "SLEEP", "0")
    assert "calls=0,usec=0,usec_per_call=0.00,rejected_calls=1,failed_calls=0" in str(alice("INFO", "commandstats"))


def test_a_password_that_is_taken_away_lets_everybody_in(machine: Machine) -> None:
    machine.start(requirepass="x")
    alice, bob = machine.connect("alice"), machine.connect("bob")
    bob("PING")
    assert alice("AUTH", "x") == alice("CONFIG", "SET", "requirepass", "") == "OK"
    assert bob("PING") == "PONG"
    alice("CONFIG", "SET", "requirepass", "y")      # and those who never said one are strangers again
    assert alice("PING") == "PONG" and str(bob("PING")).startswith("NOAUTH")


def test_a_protocol_error_counts_as_an_error_reply(machine: Machine) -> None:
    machine.start()
    alice, bob = machine.connect("alice"), machine.connect("bob")
    bob.send_bytes(b"*-5a\r\n")
    machine.settle()
    assert report(alice, "errorstats") == {"errorstat_ERR": "count=1"}


def test_resetstat_sets_back_what_the_expiry_counts(machine: Machine) -> None:
    server = machine.start()
    alice = machine.connect("alice")
    server.expiry.time_cap_reached, server.expiry.stale_percent = 3, 50.0
    alice("CONFIG", "RESETSTAT")
    found = report(alice, "stats")
    assert (found["expired_time_cap_reached_count"], found["expired_stale_perc"]) == ("0", "0.00")


def test_resetstat_forgets_the_time_of_each_command() -> None:
    world = World(cost=1000)
    world.start()
    alice = world.connect("alice")
    for _ in range(3):
        alice("GET", "k")
    alice("CONFIG", "RESETSTAT")
    alice("GET", "k")
    assert b"cmdstat_get:calls=1,usec=1000," in alice("INFO", "commandstats")


def test_a_new_limit_of_the_slow_log_holds_for_the_rest_of_the_pipeline() -> None:
    with kvref.running() as server, socket.create_connection((server.host, server.port), 10) as sock:
        sock.sendall(b"CONFIG SET slowlog-log-slower-than 0\r\nPING\r\nSLOWLOG LEN\r\n")
        said = b""
        while said.count(b"\n") < 3:
            said += sock.recv(100)
    assert said.endswith(b":2\r\n")               # without observers, whose events take the same way


def test_keys_expire_unlooked_at_where_swapdb_has_brought_them(machine: Machine) -> None:
    machine.start()
    alice = machine.connect("alice")
    for at in range(40):                            # more than the cycle would list one by one
        alice("SET", f"k{at}", "1", "PX", "1000")
    machine.advance(500)
    alice("SWAPDB", "0", "1")
    alice("SET", "stays", "1", "PX", "600000")
    machine.advance(3000)
    alice("SWAPDB", "0", "1")
    assert alice("DBSIZE") == 0                     # DBSIZE counts what is physically there
    alice("SELECT", "1")
    assert alice("DBSIZE") == 1


def test_the_mean_lifetime_goes_with_the_keys(machine: Machine) -> None:
    machine.start()
    alice = machine.connect("alice")
    alice("SET", "a", "1", "PX", "100000")
    machine.advance(2000)
    alice("SWAPDB", "0", "1")
    assert not report(alice, "keyspace")["db1"].endswith("avg_ttl=0")
    alice("FLUSHALL")
    alice("SET", "a", "1")
    assert report(alice, "keyspace")["db0"].endswith("avg_ttl=0")


def test_a_scan_misses_no_key_that_stays_though_most_of_those_it_has_seen_go(machine: Machine) -> None:
    machine.start()
    alice = machine.connect("alice")
    for at in range(100):
        alice("SET", f"k{at}", "1")
    cursor, seen = alice("SCAN", "0", "COUNT", "70")
    stay = [key for at in range(100) if (key := b"k%d" % at) not in seen]
    assert alice("DEL", *seen[:65]) == 65           # by then the list of keys has been compacted
    while cursor != b"0":
        cursor, more = alice("SCAN", cursor, "COUNT", "7")
        seen += more
    assert len(stay) == 30 and set(stay) <= set(seen)


def test_a_new_limit_of_an_argument_holds_in_the_middle_of_a_request(machine: Machine) -> None:
    machine.start(proto_max_bulk_len="1mb")
    alice, bob = machine.connect("alice"), machine.connect("bob")
    alice.send_bytes(b"*2\r\n$4\r\nECHO\r\n")
    machine.settle()
    bob("CONFIG", "SET", "proto-max-bulk-len", "2mb")
    alice.send_bytes(b"$1500000\r\n" + b"x" * 1_500_000 + b"\r\n")
    machine.settle()
    assert alice.replies() == [b"x" * 1_500_000]


def test_shared_errors_keep_nothing_of_the_calls_that_raised_them(machine: Machine) -> None:
    machine.start()
    parts(machine, "SET k v NX XX", "CLIENT KILL SKIPME maybe", "RENAME a b")
    for error in (SYNTAX, NO_SUCH_KEY):
        assert error.__traceback__ is error.__context__ is None


# ---- what an operator sees ------------------------------------------------------------------------------------------

def test_a_client_that_is_being_served_is_not_idle(machine: Machine) -> None:
    server = machine.start(timeout="2")
    alice = machine.connect("alice")
    alice("SET", "big", b"x" * 4_000_000)
    alice.reading = False
    alice.send("GET", "big")
    machine.settle()
    (client,) = server.clients.values()
    sent = client.output_size
    for _ in range(4):                              # four seconds, and in each of them it reads a little
        if (some := alice.wire.recv()) is not None:
            alice.received += some
        machine.settle()
        machine.advance(1000)
    assert not client.closed and client.output_size < sent


def test_a_connection_that_cannot_be_accepted_is_logged_and_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    server = world.start()
    alice = world.connect("alice")
    assert alice("PING") == "PONG"
    accept = server.network.accept

    def fail(listener: int) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(server.network, "accept", fail)
    bob = world.connect("bob")
    for _ in range(3):
        world.step()
    assert any("# Accepting client connection: " in said and "Too many open files" in said for said in world.log)
    assert alice("PING") == "PONG"
    monkeypatch.setattr(server.network, "accept", accept)
    assert bob("PING") == "PONG"


LEVELS: list[tuple[str, Callable[[Connection], None]]] = [
    ("Closing idle client", lambda client: None),
    ("Protocol error", lambda client: client.send_bytes(b"*1\r\nfoo\r\n")),
]


@pytest.mark.parametrize(("line", "act"), LEVELS, ids=["idle", "protocol"])
def test_the_ends_of_clients_are_logged_as_verbose(line: str, act: Callable[[Connection], None]) -> None:
    world = World()
    world.start(timeout="1")
    caller = world.connect()
    act(caller)                                     # type: ignore[arg-type]
    world.run(ms=5000)
    assert any(f"- {line}" in said for said in world.log)


def test_a_bug_is_told_in_the_log_and_ends_the_process(tmp_path: Path) -> None:
    class Broken:
        def run(self) -> None:
            raise KeyError("a bug")

    config = Config.load(None, ["--dir", str(tmp_path), "--pidfile", "pid", "--logfile", str(tmp_path / "log")])
    with pytest.raises(SystemExit) as end:
        _run(Broken(), config, Log(config))         # type: ignore[arg-type]
    said = (tmp_path / "log").read_text()
    assert end.value.code == 1 and not (tmp_path / "pid").exists()
    assert "BUG REPORT" in said and "KeyError: 'a bug'" in said


def test_a_bug_ends_a_simulated_server_with_all_that_was_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    server = world.start()
    alice, bob = world.connect("alice"), world.connect("bob")

    def broken(call: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(server.commands[b"ECHO"], "handler", broken)
    alice.send_bytes(request("ECHO", "x") + request("GET", "secret")[:-5])
    with pytest.raises(KeyError, match="a bug"):
        world.settle()
    with pytest.raises(ConnectionError, match="crashed"):
        bob("PING")
    world.start()
    assert world.connect("carol")("PING") == "PONG"


def test_a_timer_that_another_removes_in_the_same_turn_does_not_fire(machine: Machine) -> None:
    server = machine.start()
    fired = []

    def first() -> None:
        fired.append("first")
        server.loop.remove_timer(second)

    server.loop.add_timer(50, first)
    second = server.loop.add_timer(50, lambda: fired.append("second"))
    machine.advance(200)
    assert fired == ["first"]


# ---- the real machine -----------------------------------------------------------------------------------------------

def test_a_wake_between_its_two_steps_neither_fails_nor_spins() -> None:
    network = RealNetwork()
    try:
        network._woken = True                       # noted, and the byte is not there yet (the other thread sleeps)
        network.poll(0)
        network._waker.send(b"!")                   # now it comes
        network.wake()
        network.poll(1_000_000)
        network.poll(0)
        assert network.poll(0) == []
    finally:
        network.stop()


def test_a_hang_up_of_the_terminal_is_ignored_as_by_redis_server() -> None:
    with kvref.running() as server:
        server._process.send_signal(signal.SIGHUP)
        server.wait_ready()                         # answers PING
        assert server._process.poll() is None
