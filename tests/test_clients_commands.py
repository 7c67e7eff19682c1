"""Connections, MONITOR, the slow log, DEBUG, SHUTDOWN and COMMAND, where the answers carry times, ids or addresses
that a golden script cannot hold."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from kvref.command_table import commands
from kvref.quoting import monitor_line, repr_arg, split_args
from kvref.sampling import Members
from kvref.sim import Caller, ReplyError, World

# CLIENT LIST of redis-server 7.0.15, and what 7.2 has put behind it.
LINE = ("id addr laddr fd name age idle flags db sub psub ssub multi qbuf qbuf-free argv-mem multi-mem rbs rbp obl "
        "oll omem tot-mem events cmd user redir resp lib-name lib-ver").split()


@pytest.fixture
def world() -> Iterator[World]:
    world = World(seed=1)
    world.start(enable_debug_command="yes")
    yield world


@pytest.fixture
def alice(world: World) -> Caller:
    return world.connect("alice")


@pytest.fixture
def bob(world: World, alice: Caller) -> Caller:
    bob = world.connect("bob")
    bob("PING")
    return bob


def fields(line: bytes) -> dict[str, str]:
    return dict(part.split("=", 1) for part in line.decode().rstrip("\n").split(" "))


def info(caller: Caller) -> dict[str, str]:
    return fields(caller("CLIENT", "INFO"))


def error(caller: Caller, *words: str) -> str:
    with pytest.raises(ReplyError) as caught:
        caller(*words)
    return str(caught.value)


# ---- HELLO ---------------------------------------------------------------------------------------

GREETING = {b"server": b"redis", b"version": b"7.0.15", b"proto": 3, b"id": 1, b"mode": b"standalone",
            b"role": b"master", b"modules": []}


def test_hello_is_a_map_in_resp3_and_a_flat_list_in_resp2(alice: Caller) -> None:
    assert alice("HELLO", "3") == alice("HELLO") == GREETING
    flat = alice("HELLO", "2")
    assert dict(zip(flat[::2], flat[1::2])) == {**GREETING, b"proto": 2}


def test_hello_changes_the_protocol_only_when_everything_was_right(alice: Caller) -> None:
    error(alice, "HELLO", "3", "SETNAME", "with blank")
    assert info(alice)["resp"] == "2"


def test_a_password_that_is_set_later_does_not_shut_out_who_is_in(world: World, alice: Caller) -> None:
    alice("PING")
    alice("CONFIG", "SET", "requirepass", "secret")
    assert alice("PING") == "PONG"
    assert error(world.connect("bob"), "PING") == "NOAUTH Authentication required."


# ---- CLIENT LIST, INFO, SETINFO ------------------------------------------------------------------

def test_the_fields_of_a_client_come_in_redis_order(alice: Caller) -> None:
    assert list(info(alice)) == LINE


def test_client_list_has_a_line_for_each_connection_in_order_of_age(alice: Caller, bob: Caller) -> None:
    alice("CLIENT", "SETNAME", "alice")
    lines = [fields(line) for line in alice("CLIENT", "LIST").splitlines()]
    assert [(line["id"], line["name"], line["cmd"]) for line in lines] == [
        ("1", "alice", "client|list"), ("2", "", "ping")]
    assert [lines[0]["addr"], lines[1]["addr"]] == [info(alice)["addr"], info(bob)["addr"]]


def test_client_list_by_id_follows_the_order_of_the_question(alice: Caller, bob: Caller) -> None:
    lines = alice("CLIENT", "LIST", "ID", "2", "99", "1").splitlines()
    assert [fields(line)["id"] for line in lines] == ["2", "1"]


def test_age_and_idle_time_follow_the_clock(world: World, alice: Caller, bob: Caller) -> None:
    world.run(ms=10_000)
    alice("PING")
    world.run(ms=5_000)
    line = fields(bob("CLIENT", "LIST", "ID", "1").splitlines()[0])
    assert (line["age"], line["idle"]) == ("15", "5")


def test_a_client_shows_its_database_protocol_library_and_address(alice: Caller) -> None:
    alice("HELLO", "3")
    alice("SELECT", "7")
    assert alice("CLIENT", "SETINFO", "lib-name", "redis-py") == "OK"
    assert alice("CLIENT", "SETINFO", "LIB-VER", "5.0.1") == "OK"
    line = info(alice)
    assert (line["db"], line["resp"], line["lib-name"], line["lib-ver"]) == ("7", "3", "redis-py", "5.0.1")
    assert line["laddr"] == "127.0.0.1:6379" and line["addr"].startswith("127.0.0.1:")


def test_setinfo_refuses_what_would_break_the_line_and_what_it_does_not_know(alice: Caller) -> None:
    assert error(alice, "CLIENT", "SETINFO", "lib-name", "redis py") == (
        "ERR lib-name cannot contain spaces, newlines or special characters.")
    assert error(alice, "CLIENT", "SETINFO", "lib-size", "1") == "ERR Unrecognized option 'lib-size'"
    assert error(alice, "CLIENT", "SETINFO", "lib-name") == (
        "ERR wrong number of arguments for 'client|setinfo' command")


def test_what_redis_py_tries_on_connecting_is_an_unknown_subcommand(alice: Caller) -> None:
    assert error(alice, "CLIENT", "MAINT_NOTIFICATIONS", "ON") == (
        "ERR unknown subcommand 'MAINT_NOTIFICATIONS'. Try CLIENT HELP.")


# ---- CLIENT KILL ---------------------------------------------------------------------------------

@pytest.mark.parametrize("option, name", [("ID", "id"), ("ADDR", "addr")])
def test_a_filter_ends_the_one_connection_that_it_fits(alice: Caller, bob: Caller, option: str, name: str) -> None:
    assert alice("CLIENT", "KILL", option, info(bob)[name]) == 1
    with pytest.raises(ConnectionError):
        bob("PING")
    assert alice("PING") == "PONG"


def test_filters_are_joined_by_and(alice: Caller, bob: Caller) -> None:
    victim = info(bob)
    assert alice("CLIENT", "KILL", "ID", victim["id"], "ADDR", "1.2.3.4:5") == 0
    assert alice("CLIENT", "KILL", "ID", victim["id"], "LADDR", victim["laddr"], "USER", "default") == 1


def test_the_old_form_may_end_the_own_connection_and_still_answers(alice: Caller, bob: Caller) -> None:
    assert alice("CLIENT", "KILL", info(alice)["addr"]) == "OK"
    with pytest.raises(ConnectionError):
        alice("PING")
    assert bob("PING") == "PONG"


# ---- MONITOR -------------------------------------------------------------------------------------

def heard(bob: Caller) -> list[str]:
    """What bob's monitor has said since the last look, without times and addresses."""
    bob.collect()
    lines, bob.replies[:] = list(bob.replies), []
    for line in lines:
        assert re.match(r"\d{10}\.\d{6} \[\d+ 127\.0\.0\.1:\d+\] \"", line), line
    return [re.sub(r"^\S+ \[(\d+) \S+\]", r"\1", line) for line in lines]


@pytest.fixture
def monitor(bob: Caller) -> Caller:
    assert bob("MONITOR") == "OK"
    return bob


def test_monitor_sees_what_is_run_with_its_arguments_quoted(alice: Caller, monitor: Caller) -> None:
    alice("set", "key", b'a "b"\\\n\x00\xff')
    alice("SELECT", "3")
    assert heard(monitor) == [r'0 "set" "key" "a \"b\"\\\n\x00\xff"', '3 "SELECT" "3"']


def test_monitor_does_not_see_passwords(alice: Caller, monitor: Caller) -> None:
    alice("AUTH", "default", "sesame")
    error(alice, "AUTH", "sesame")
    error(alice, "AUTH", "a", "b", "c")
    alice("HELLO", "3", "AUTH", "default", "sesame", "SETNAME", "alice")
    assert heard(monitor) == ['0 "AUTH" "(redacted)" "(redacted)"', '0 "AUTH" "(redacted)"', '0 "AUTH" "a" "b" "c"',
                              '0 "HELLO" "3" "AUTH" "(redacted)" "(redacted)" "SETNAME" "alice"']


def test_monitor_sees_neither_administration_nor_what_was_refused(alice: Caller, monitor: Caller) -> None:
    alice("CLIENT", "LIST")
    alice("SLOWLOG", "LEN")
    alice("DEBUG", "SLEEP", "0")
    error(alice, "NOSUCH")
    error(alice, "ECHO")
    error(alice, "SELECT", "99")
    alice("CLIENT", "ID")
    assert heard(monitor) == ['0 "SELECT" "99"', '0 "CLIENT" "ID"']


def test_a_second_monitor_command_has_no_answer_and_reset_ends_it(world: World, alice: Caller, monitor: Caller) -> None:
    assert info(alice)["flags"] == "N"
    assert fields(alice("CLIENT", "LIST", "ID", "2"))["flags"] == "O"
    heard(monitor)
    monitor.send_bytes(b"MONITOR\r\nPING\r\nRESET\r\n")
    world.settle()
    assert [monitor.replies.pop(0), monitor.replies.pop()] == ["PONG", "RESET"]
    assert heard(monitor) == ['0 "PING"']
    alice("PING")
    assert heard(monitor) == []
    assert fields(alice("CLIENT", "LIST", "ID", "2"))["flags"] == "N"


def test_a_monitor_that_leaves_is_forgotten(world: World, alice: Caller, monitor: Caller) -> None:
    monitor.close()
    world.settle()
    alice("PING")
    assert world.server is not None and world.server.monitors == []


def test_what_monitor_prints_can_be_read_back() -> None:
    everything = bytes(range(256))
    assert split_args(repr_arg(everything)) == [everything]
    assert repr_arg(b"plain") == b'"plain"' and repr_arg(b"") == b'""'
    assert monitor_line(1_700_000_000_000_042, 9, "[::1]:5", [b"GET", b"\a"]) == (
        r'1700000000.000042 [9 [::1]:5] "GET" "\a"')


# ---- SLOWLOG and DEBUG ---------------------------------------------------------------------------

def test_a_slow_command_is_remembered_with_time_arguments_and_client(world: World, alice: Caller) -> None:
    alice("CLIENT", "SETNAME", "alice")
    assert alice("DEBUG", "SLEEP", "1.5") == "OK"
    [[number, time_s, usec, words, peer, name]] = alice("SLOWLOG", "GET")
    assert (number, words, name) == (0, [b"DEBUG", b"SLEEP", b"1.5"], b"alice")
    assert 1_500_000 <= usec < 1_510_000
    assert time_s == world.clock.time_us() // 1_000_000
    assert peer.decode() == info(alice)["addr"]


def test_the_slow_log_counts_its_entries_newest_first(alice: Caller) -> None:
    for seconds in ("0.1", "0.2", "0.3"):
        alice("DEBUG", "SLEEP", seconds)
    assert [entry[0] for entry in alice("SLOWLOG", "GET", "2")] == [2, 1]
    assert [entry[0] for entry in alice("SLOWLOG", "GET", "-1")] == [2, 1, 0]
    alice("SLOWLOG", "RESET")
    alice("DEBUG", "SLEEP", "0.1")
    assert [entry[0] for entry in alice("SLOWLOG", "GET")] == [3]


def test_the_slow_log_holds_no_passwords_and_shortens_what_is_long(alice: Caller) -> None:
    alice("CONFIG", "SET", "slowlog-log-slower-than", "0")
    alice("SLOWLOG", "RESET")
    alice("AUTH", "default", "sesame")
    alice("DEL", "x" * 200, *map(str, range(40)))
    entries = alice("SLOWLOG", "GET")
    assert entries[1][3] == [b"AUTH", b"(redacted)", b"(redacted)"]
    words = entries[0][3]
    assert len(words) == 32 and words[1] == b"x" * 128 + b"... (72 more bytes)"
    assert words[-1] == b"... (11 more arguments)"


@pytest.mark.parametrize("seconds", ["x", "-1", "0", "", "nan", "inf"])
def test_debug_sleep_takes_no_number_for_no_time(world: World, alice: Caller, seconds: str) -> None:
    alice("PING")
    before = world.clock.monotonic_us()
    assert alice("DEBUG", "SLEEP", seconds) == "OK"
    assert world.clock.monotonic_us() - before < 1000


def test_debug_is_for_the_loopback_alone_when_it_is_local() -> None:
    world = World(seed=1)
    world.start(enable_debug_command="local", protected_mode="no")
    assert world.connect("near")("DEBUG", "SLEEP", "0") == "OK"
    assert error(world.connect("far", source="10.0.0.7"), "DEBUG", "SLEEP", "0").startswith(
        "ERR DEBUG command not allowed.")


# ---- FLUSHALL, SWAPDB and the log, TIME, SHUTDOWN ------------------------------------------------

def test_flushes_and_swaps_go_to_the_log_as_they_are(world: World, alice: Caller) -> None:
    effects: list[tuple[int, list[bytes]]] = []
    assert world.server is not None
    world.server.feeds.append(lambda index, effect: effects.append((index, list(effect))))
    alice("FLUSHALL")
    alice("SELECT", "2")
    alice("FLUSHDB", "ASYNC")
    alice("SWAPDB", "0", "1")
    error(alice, "FLUSHALL", "NOW")
    alice("DBSIZE")
    assert effects == [(0, [b"FLUSHALL"]), (2, [b"FLUSHDB", b"ASYNC"]), (2, [b"SWAPDB", b"0", b"1"])]


def test_a_flush_counts_each_key_for_the_next_save(world: World, alice: Caller) -> None:
    alice("MSET", "a", "1", "b", "2")
    assert world.server is not None
    before = world.server.dirty
    alice("FLUSHALL")
    assert world.server.dirty == before + 2


def test_time_is_the_wall_clock(world: World, alice: Caller) -> None:
    world.clock.jump(1_000_000)
    seconds, micros = map(int, alice("TIME"))
    assert abs(seconds * 1_000_000 + micros - world.clock.time_us()) < 1000


def test_shutdown_ends_the_server_without_an_answer(world: World, alice: Caller, bob: Caller) -> None:
    alice.send_bytes(b"PING\r\nSHUTDOWN NOSAVE\r\nSET k v\r\n")
    world.settle()
    assert world.server is None
    with pytest.raises(ConnectionError):
        bob("PING")


# ---- COMMAND -------------------------------------------------------------------------------------

def test_command_count_info_list_and_docs_speak_of_the_same_commands(alice: Caller) -> None:
    everything = alice("COMMAND")
    names = [row[0] for row in everything]
    assert alice("COMMAND", "COUNT") == len(everything) == len(set(names))
    assert alice("COMMAND", "INFO") == everything
    assert alice("COMMAND", "LIST") == [row[0] for row in every_row(everything)]
    assert alice("COMMAND", "DOCS")[::2] == names


def every_row(rows: list[Any]) -> Iterator[list[Any]]:
    for row in rows:
        yield row
        yield from every_row(row[9])


def test_every_declared_command_is_described_in_ten_elements(alice: Caller) -> None:
    rows = list(every_row(alice("COMMAND")))
    assert sorted(row[0].decode() for row in rows) == [row.name for row in commands()]
    for name, arity, flags, first, last, step, categories, *rest in rows:
        assert arity != 0 and len(rest) == 3
        assert categories and all(category.startswith("@") for category in categories)
        assert ("@write" in categories) == ("write" in flags)
        assert (first, last, step) == (0, 0, 0) or first > 0


def test_flags_and_categories_are_sets_and_documents_are_maps_in_resp3(alice: Caller) -> None:
    alice("HELLO", "3")
    [row] = alice("COMMAND", "INFO", "get")
    assert row[:6] == [b"get", 2, Members.fromkeys(["readonly", "fast"]), 1, 1, 1]
    assert list(row[6]) == ["@read", "@string", "@fast"] and type(row[6]) is Members
    documents = alice("COMMAND", "DOCS", "client|id", "slowlog")
    assert documents[b"client|id"][b"since"] == b"5.0.0"
    assert list(documents[b"slowlog"][b"subcommands"]) == [b"slowlog|get", b"slowlog|help", b"slowlog|len",
                                                           b"slowlog|reset"]


def test_lists_can_be_filtered_by_category_subcommands_included(alice: Caller) -> None:
    found = alice("COMMAND", "LIST", "FILTERBY", "ACLCAT", "CONNECTION")
    assert {b"ping", b"hello", b"client|list", b"command"} <= set(found)
    assert not {b"get", b"client"} & set(found)


@pytest.mark.parametrize("name", ["CLIENT", "SLOWLOG", "COMMAND", "ACL", "DEBUG"])
def test_help_names_every_subcommand(alice: Caller, name: str) -> None:
    lines = alice(name, "HELP")
    assert lines[0] == f"{name} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"
    named = {line.split()[0].lower() for line in lines[1:] if not line.startswith(" ")}
    declared = {row.name.partition("|")[2] for row in commands() if row.name.startswith(name.lower() + "|")}
    assert named >= declared | {"help"}
    assert all(line.startswith("    ") for line in lines[2::2])
