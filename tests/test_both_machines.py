"""What a client can see, on the simulated machine and on the real one: connections, limits, time."""

from __future__ import annotations

import re
from typing import Any

import pytest

from kvref.resp import Error
from tests.conftest import Connection, Machine
from tests.golden import request

MB = 1 << 20


def alive(machine: Machine) -> bool:
    return bool(machine.connect("witness")("PING") == "PONG")


# --- requests and replies --------------------------------------------------------------------------------------------

def test_a_request_may_come_byte_by_byte(machine: Machine) -> None:
    machine.start()
    alice = machine.connect("alice")
    wire = request("SET", "k", "a\r\nb") + b"PING\r\n" + request("GET", "k")
    for at in range(len(wire)):
        alice.send_bytes(wire[at:at + 1])
        machine.step()
        machine.step()
    machine.settle()
    assert alice.take() == b"+OK\r\n+PONG\r\n$4\r\na\r\nb\r\n"


def test_a_request_may_come_at_one_byte_a_second(machine: Machine) -> None:
    machine.start()
    alice = machine.connect("alice")
    for byte in request("ECHO", "slow"):
        alice.send_bytes(bytes([byte]))
        machine.advance(1000)
    assert alice.replies() == [b"slow"]


def test_a_pipeline_is_answered_in_order(machine: Machine) -> None:
    machine.start()
    alice = machine.connect("alice")
    alice.send_bytes(b"".join(request("ECHO", str(n)) + request("INCR", "n") for n in range(2000)))
    machine.settle()
    assert alice.replies() == [value for n in range(2000) for value in (str(n).encode(), n + 1)]


def test_clients_take_turns(machine: Machine) -> None:
    """A long pipeline does not hold up the others for longer than one read."""
    machine.start()
    alice, bob = machine.connect("alice"), machine.connect("bob")
    machine.settle()
    alice.send_bytes(request("INCR", "n") * 20_000)
    bob.send("GET", "n")
    machine.settle()
    [seen] = bob.replies()
    assert int(seen or 0) < 20_000
    assert len(alice.replies()) == 20_000


def test_a_big_value_goes_both_ways(machine: Machine) -> None:
    machine.start()
    alice = machine.connect("alice")
    value = bytes(range(256)) * (4 * MB // 256)
    assert alice("SET", "big", value) == "OK"
    assert alice("GET", "big") == value


def test_each_connection_has_a_database_of_its_own_choice(machine: Machine) -> None:
    machine.start()
    alice, bob = machine.connect("alice"), machine.connect("bob")
    assert alice("SELECT", "3") == "OK"
    alice("SET", "k", "three")
    assert bob("GET", "k") is None
    assert bob("SELECT", "16") == Error("ERR DB index is out of range")


def test_many_callers_are_all_let_in(machine: Machine) -> None:
    machine.start()
    callers = [machine.connect() for _ in range(200)]
    for caller in callers:
        caller.send("PING")
    machine.settle()
    assert [caller.replies() for caller in callers] == [["PONG"]] * 200


# --- sending ---------------------------------------------------------------------------------------------------------

def turns(machine: Machine) -> list[list[Any]]:
    """The events between one sleep and the next: what follows a poll, and what before_sleep did before the next."""
    found: list[list[Any]] = [[]]
    for event in machine.events:
        if event.kind == "sleep":
            found.append([])
        else:
            found[-1].append(event)
    return found


def assert_one_send_a_turn_after_all_commands(machine: Machine) -> None:
    for turn in turns(machine):
        kinds = [event.kind for event in turn]
        writers = [event.client for event in turn if event.kind == "write"]
        assert len(writers) == len(set(writers))
        if writers:
            assert "command" not in kinds[kinds.index("write"):]


def test_replies_are_sent_once_a_turn_and_after_all_commands_of_it(machine: Machine) -> None:
    machine.start()
    callers = [machine.connect() for _ in range(5)]
    machine.settle()
    for caller in callers:
        caller.send_bytes(request("PING") * 100)
    machine.settle()
    assert all(len(caller.replies()) == 100 for caller in callers)
    assert_one_send_a_turn_after_all_commands(machine)


def test_a_slow_reader_gets_everything_in_the_end_and_holds_nobody_up(machine: Machine) -> None:
    machine.start()
    slow, quick = machine.connect("slow"), machine.connect("quick")
    value = bytes(range(256)) * (2 * MB // 256)
    quick("SET", "big", value)
    slow.reading = False
    for _ in range(3):
        slow.send("GET", "big")
    slow.send("PING")
    machine.settle()
    assert quick("PING") == "PONG"
    slow.reading = True
    machine.settle()
    assert slow.replies() == [value] * 3 + ["PONG"]
    assert len(machine.kinds("write")) > 10         # in many parts
    assert_one_send_a_turn_after_all_commands(machine)


# --- the ends of a connection ----------------------------------------------------------------------------------------

def test_a_half_closed_client_gets_its_replies_and_is_let_go(machine: Machine) -> None:
    server = machine.start()
    alice = machine.connect("alice")
    alice.send("SET", "k", "v")
    alice.send("GET", "k")
    alice.half_close()
    machine.settle()
    assert alice.replies() == ["OK", b"v"]
    assert alice.closed and not server.clients


def test_a_client_may_vanish_in_the_middle_of_a_request(machine: Machine) -> None:
    server = machine.start()
    for leave in (Connection.close, Connection.reset):
        alice = machine.connect("alice")
        alice.send_bytes(request("SET", "k", "v")[:-3])
        machine.settle()
        assert len(server.clients) == 1
        leave(alice)
        machine.settle()
        assert not server.clients
    assert machine.connect("bob")("EXISTS", "k") == 0


def test_a_client_may_vanish_while_it_is_being_answered(machine: Machine) -> None:
    server = machine.start()
    witness = machine.connect("witness")
    witness("SET", "big", b"x" * MB)
    for leave in (Connection.close, Connection.reset):
        alice = machine.connect("alice")
        alice.reading = False
        alice.send_bytes(request("GET", "big") * 4)
        machine.settle()
        leave(alice)
        machine.settle()
        assert len(server.clients) == 1
    assert witness("PING") == "PONG"


def test_quit_is_answered_and_nothing_after_it_is_done(machine: Machine) -> None:
    machine.start()
    alice = machine.connect("alice")
    alice.send_bytes(request("QUIT") + request("SET", "k", "v"))
    machine.settle()
    assert alice.replies() == ["OK"] and alice.closed
    assert machine.connect("bob")("EXISTS", "k") == 0


@pytest.mark.parametrize(("wire", "reply"), [
    (b"*1\r\n$-1\r\n", b"-ERR Protocol error: invalid bulk length\r\n"),
    (b"*1\r\n$600000000\r\n", b"-ERR Protocol error: invalid bulk length\r\n"),
    (b"*9999999999\r\n", b"-ERR Protocol error: invalid multibulk length\r\n"),
    (b"*1\r\n+PING\r\n", b"-ERR Protocol error: expected '$', got '+'\r\n"),
    (b'SET k "open\r\n', b"-ERR Protocol error: unbalanced quotes in request\r\n"),
    (b"x" * 70_000, b"-ERR Protocol error: too big inline request\r\n"),
    (b"*" + b"1" * 70_000, b"-ERR Protocol error: too big mbulk count string\r\n"),
])
def test_a_protocol_error_is_answered_and_ends_the_connection(machine: Machine, wire: bytes, reply: bytes) -> None:
    server = machine.start()
    alice = machine.connect("alice")
    alice.send_bytes(request("SET", "k", "v") + wire)
    machine.settle()
    alice.send_bytes(request("DEL", "k"))
    machine.settle()
    assert alice.take() == b"+OK\r\n" + reply
    assert alice.closed and not server.clients
    assert machine.connect("bob")("GET", "k") == b"v"


def test_client_kill_cuts_off_another_and_oneself_after_the_reply(machine: Machine) -> None:
    server = machine.start()
    alice, bob = machine.connect("alice"), machine.connect("bob")
    his = bob("CLIENT", "ID")
    assert alice("CLIENT", "KILL", "ID", str(his)) == 1
    assert bob.closed and not bob.replies()
    assert alice("CLIENT", "KILL", "ID", str(alice("CLIENT", "ID")), "SKIPME", "no") == 1
    assert alice.closed and not server.clients


def test_shutdown_closes_every_connection(machine: Machine) -> None:
    server = machine.start()
    alice, bob = machine.connect("alice"), machine.connect("bob")
    bob("PING")
    alice.send("SHUTDOWN", "NOSAVE")
    machine.settle()
    assert server.stopped and not server.clients
    assert alice.closed and bob.closed and not alice.replies()


# --- limits ----------------------------------------------------------------------------------------------------------

def test_one_client_too_many_is_told_so(machine: Machine) -> None:
    server = machine.start(maxclients="2")
    first, second = machine.connect("first"), machine.connect("second")
    assert first("PING") == second("PING") == "PONG"
    third = machine.connect("third")
    machine.settle()
    assert third.take() == b"-ERR max number of clients reached\r\n" and third.closed
    assert server.stats.rejected_connections == 1
    second.close()
    machine.settle()
    assert alive(machine)


def test_an_idle_client_is_closed_after_the_timeout(machine: Machine) -> None:
    server = machine.start(timeout="10")
    idle, busy = machine.connect("idle"), machine.connect("busy")
    idle.send_bytes(b"*1\r\n$4\r\nPI")                  # half a request is no activity later on
    for _ in range(3):
        machine.advance(3000)
        busy("PING")
    assert len(server.clients) == 2
    machine.advance(3000)
    assert idle.closed and not busy.closed
    machine.advance(13_000)
    assert busy.closed


def test_no_timeout_is_the_default(machine: Machine) -> None:
    machine.start()
    alice = machine.connect("alice")
    machine.settle()
    machine.advance(600_000)
    assert alice("PING") == "PONG"


def test_a_monitor_is_never_idle(machine: Machine) -> None:
    machine.start(timeout="5")
    alice = machine.connect("alice")
    assert alice("MONITOR") == "OK"
    machine.advance(20_000)
    assert not alice.closed


def test_the_hard_output_limit_cuts_off_at_once(machine: Machine) -> None:
    server = machine.start(client_output_buffer_limit="normal 2mb 0 0")
    witness, greedy = machine.connect("witness"), machine.connect("greedy")
    witness("SET", "big", b"x" * (MB // 2))
    greedy.reading = False
    greedy.send_bytes(request("GET", "big") * 3)        # below the limit
    machine.settle()
    assert len(server.clients) == 2
    greedy.send_bytes(request("GET", "big") * 3)
    machine.settle()
    assert len(server.clients) == 1
    assert server.stats.client_output_buffer_limit_disconnections == 1
    greedy.reading = True
    machine.settle()
    assert greedy.closed
    assert witness("PING") == "PONG"


@pytest.mark.parametrize("draw", ["SRANDMEMBER set -999999999999", "HRANDFIELD hash -999999999999 WITHVALUES",
                                  "ZRANDMEMBER zset -999999999999"])
def test_endless_draws_end_where_the_output_limit_does(machine: Machine, draw: str) -> None:
    server = machine.start(client_output_buffer_limit="normal 100kb 0 0")
    alice, greedy = machine.connect("alice"), machine.connect("greedy")
    alice("SADD", "set", "")
    alice("HSET", "hash", "", "")
    alice("ZADD", "zset", "1", "")
    greedy.send_bytes(request(*draw.split()))
    machine.settle()
    assert greedy.closed and not greedy.replies()
    assert server.stats.client_output_buffer_limit_disconnections == 1


def test_the_soft_output_limit_is_patient_for_its_seconds(machine: Machine) -> None:
    server = machine.start(client_output_buffer_limit="normal 0 1mb 5")
    witness, greedy, better = machine.connect("witness"), machine.connect("greedy"), machine.connect("better")
    witness("SET", "big", b"x" * MB)
    for each in (greedy, better):
        each.reading = False
        each.send_bytes(request("GET", "big") * 2)
    machine.settle()
    machine.advance(3000)
    assert len(server.clients) == 3
    better.reading = True                               # back below the limit in time
    machine.advance(5000)
    assert len(server.clients) == 2
    assert len(better.replies()) == 2 and better("PING") == "PONG"


def test_a_query_buffer_has_its_limit(machine: Machine) -> None:
    server = machine.start(client_query_buffer_limit="1mb")
    alice = machine.connect("alice")
    alice.send_bytes(b"*1\r\n$4000000\r\n" + b"x" * 2_000_000)
    machine.settle()
    assert alice.closed and not alice.take() and not server.clients
    assert alive(machine)


def test_a_longer_bulk_than_proto_max_bulk_len_is_refused(machine: Machine) -> None:
    machine.start(proto_max_bulk_len="1mb")
    alice = machine.connect("alice")
    assert alice("SET", "k", b"x" * MB) == "OK"
    alice.send_bytes(b"*2\r\n$3\r\nGET\r\n$1048577\r\n")
    machine.settle()
    assert alice.take() == b"-ERR Protocol error: invalid bulk length\r\n" and alice.closed


@pytest.mark.parametrize(("wire", "error"), [
    (b"*11\r\n", b"unauthenticated multibulk length"),
    (b"*2\r\n$4\r\nAUTH\r\n$16385\r\n", b"unauthenticated bulk length"),
])
def test_a_stranger_may_ask_for_less(machine: Machine, wire: bytes, error: bytes) -> None:
    machine.start(requirepass="secret")
    alice = machine.connect("alice")
    alice.send_bytes(wire)
    machine.settle()
    assert alice.take() == b"-ERR Protocol error: " + error + b"\r\n" and alice.closed


def test_up_to_its_limits_a_stranger_is_answered_and_after_auth_they_are_gone(machine: Machine) -> None:
    machine.start(requirepass="secret")
    alice = machine.connect("alice")
    assert alice("MSET", *["x"] * 9) == Error("NOAUTH Authentication required.")
    assert alice("ECHO", "x" * 16384) == Error("NOAUTH Authentication required.")
    assert alice("AUTH", "wrong") == Error("WRONGPASS invalid username-password pair or user is disabled.")
    alice.send_bytes(request("AUTH", "secret") + request("MSET", *["x"] * 20) + request("ECHO", "x" * 20_000))
    machine.settle()
    assert alice.replies() == ["OK", "OK", b"x" * 20_000]


# --- what others do --------------------------------------------------------------------------------------------------

def test_monitor_shows_what_everybody_does(machine: Machine) -> None:
    machine.start()
    watcher, alice = machine.connect("watcher"), machine.connect("alice")
    alice("SELECT", "2")
    assert watcher("MONITOR") == "OK"
    alice("SET", "k", 'a "quoted"\n\xff'.encode("latin-1"))
    alice("GET", "k")
    alice("CONFIG", "GET", "port")                      # for administrators: not shown
    [first, second] = watcher.replies()
    assert re.fullmatch(r'\d+\.\d{6} \[2 127\.0\.0\.1:\d+\] "SET" "k" "a \\"quoted\\"\\n\\xff"', first)
    assert second.endswith('"GET" "k"')
    watcher.send("RESET")
    machine.settle()
    alice("PING")
    assert watcher.replies() == ["RESET"]


def test_a_monitor_that_does_not_read_is_cut_off(machine: Machine) -> None:
    server = machine.start(client_output_buffer_limit="normal 1mb 0 0")
    watcher, alice = machine.connect("watcher"), machine.connect("alice")
    watcher("MONITOR")
    watcher.reading = False
    for _ in range(40):
        alice("ECHO", b"x" * 60_000)
    assert len(server.clients) == 1 and not server.monitors
    assert alice("PING") == "PONG"


# --- time ------------------------------------------------------------------------------------------------------------

def test_a_key_is_gone_when_its_time_is_over(machine: Machine) -> None:
    server = machine.start(enable_debug_command="yes")
    alice = machine.connect("alice")
    alice("DEBUG", "SET-ACTIVE-EXPIRE", "0")
    alice("SET", "k", "v", "PX", "5000")
    machine.advance(4000)
    assert alice("GET", "k") == b"v"
    machine.advance(2000)
    assert alice("DBSIZE") == 1                         # nobody has looked at it
    assert alice("GET", "k") is None
    assert alice("DBSIZE") == 0
    assert server.stats.expired_keys == 1


def test_keys_expire_without_being_looked_at(machine: Machine) -> None:
    server = machine.start()
    effects: list[tuple[int, list[bytes]]] = []
    alice = machine.connect("alice")
    alice("SET", "stays", "v")
    for n in range(500):
        alice.send("SET", f"k{n}", "v", "PX", str(1000 + n))
    machine.settle()
    assert alice.replies() == ["OK"] * 500
    server.feeds.append(lambda db, command: effects.append((db, list(command))))
    machine.advance(900)
    assert alice("DBSIZE") == 501 and not effects
    machine.advance(3000)
    assert alice("DBSIZE") == 1
    assert server.stats.expired_keys == 500
    assert sorted(effects) == sorted((0, [b"DEL", b"k%d" % n]) for n in range(500))


def test_ttl_counts_down(machine: Machine) -> None:
    machine.start()
    alice = machine.connect("alice")
    alice("SET", "k", "v", "EX", "100")
    machine.advance(39_700)
    assert alice("TTL", "k") == 60
    assert 60_000 < alice("PTTL", "k") <= 60_300
    assert alice("PERSIST", "k") == 1
    machine.advance(100_000)
    assert alice("GET", "k") == b"v"


def test_timers_fire_at_their_instants(machine: Machine) -> None:
    server = machine.start()
    clock, fired = server.ports.clock, []
    begin_us = clock.monotonic_us()

    def ring() -> int | None:
        fired.append((clock.monotonic_us() - begin_us) // 1000)
        return 1500 if len(fired) < 3 else None
    server.loop.add_timer(700, ring)
    machine.advance(10_000)
    assert [abs(at - due) <= 20 for at, due in zip(fired, (700, 2200, 3700), strict=True)] == [True] * 3


def test_a_removed_timer_never_fires(machine: Machine) -> None:
    server = machine.start()
    fired: list[str] = []
    id = server.loop.add_timer(500, lambda: fired.append("ring"))       # type: ignore[func-returns-value, arg-type]
    server.loop.remove_timer(id)
    machine.advance(2000)
    assert not fired


def test_the_cron_runs_hz_times_a_second(machine: Machine) -> None:
    machine.start(hz="20")
    machine.advance(10_000)
    assert 195 <= sum(event.detail == "server_cron" for event in machine.kinds("timer")) <= 201


def test_time_spent_in_a_command_enters_the_slow_log(machine: Machine) -> None:
    machine.start(enable_debug_command="yes", slowlog_log_slower_than="100000")
    alice = machine.connect("alice")
    alice("DEBUG", "SLEEP", "0.25")
    alice("PING")
    [entry] = alice("SLOWLOG", "GET")
    assert entry[2] >= 250_000 and entry[3] == [b"DEBUG", b"SLEEP", b"0.25"]
