"""What a start makes of the files of a log: after a crash at any instant, and after any damage.

Crashes between two operations are the simulated machine's; the rest runs on both (conftest.py), and what is forgiven and
what refused is compared with a real redis-server that is given a fresh copy.
"""

from __future__ import annotations

import errno
import functools
import random
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from kvref.command_table import table
from kvref.persistence import cursor, load, replay
from kvref.persistence.cursor import Unreadable
from kvref.persistence.replay import record
from kvref.sim import World
from kvref.sim.clock import NEW_YEAR_US
from tests.conftest import Machine, Simulated
from tests.grammar import Author
from tests.journal import FOLDER, MANIFEST, Disturb, Plug, PowerCut, crashes, disturb, parts, state, unplug
from tests.record import installed
from tests.saving import child_ends, dump, files, info, put, restart, said

__all__ = ["disturb"]                       # a fixture
NOW_MS = NEW_YEAR_US // 1000
INCR1, INCR2 = "appendonly.aof.1.incr.aof", "appendonly.aof.2.incr.aof"
BASE = "appendonly.aof.1.base.rdb"


def log(*lines: str) -> bytes:
    return b"".join(record(line.encode().split()) for line in lines)


def manifest(*names: str) -> bytes:
    return b"".join(b"file %b seq %d type %b\n" % (name.encode(), int(name.split(".")[2]), b"b" if ".base." in name else b"i")
                    for name in names)


def lay(machine: Machine, contents: dict[str, bytes]) -> None:
    """Have these files in the directory of the log, and a manifest of them."""
    machine.start()
    disk = machine.server.disk
    disk.mkdir(machine.server.path(FOLDER))
    for name, data in {MANIFEST: manifest(*contents), **contents}.items():
        put(machine, f"{FOLDER}/{name}", data)


# ---- a crash after every operation ---------------------------------------------------------------

def scripted(world: World) -> Iterator[dict[str, Any]]:
    """Units, with a rewrite in the midst; after each, when its reply has come, the state."""
    alice = world.connect("alice")
    for number in range(12):
        alice.send_bytes(b"MULTI\r\nSET a %d\r\nRPUSH l %d\r\nEXEC\r\n" % (number, number))
        world.settle()
        assert world.server
        yield state(world.server)
        if number == 4:
            alice("BGREWRITEAOF")
        world.run(ms=300 if number != 9 else 1500)


@functools.cache
def states() -> list[dict[str, Any]]:
    world = World(seed=1)
    world.start(appendonly="yes")
    return [{}, *scripted(world)]


@pytest.mark.parametrize("preamble", ["yes", "no"])
@pytest.mark.parametrize("how", ["kill", "power_loss"])
@pytest.mark.parametrize("policy", ["always", "everysec", "no"])
def test_after_a_crash_at_any_operation_the_state_is_that_after_some_unit(policy: str, how: str, preamble: str) -> None:
    """I1, I3, I5: always loses nothing told, and a process crash nothing at all; everysec what came since its fsync (I2)."""
    directives = {"appendonly": "yes", "appendfsync": policy, "aof_use_rdb_preamble": preamble}
    points = 0
    for world, told in crashes(scripted, how, **directives):
        synced = [operation.covers for operation in world.disk.operations if operation.kind == "fsync"]
        assert synced
        server = world.start(**directives)
        found = state(server)
        assert found in states()
        if policy == "always" or how == "kill":
            assert states().index(found) >= len(told)
        elif policy == "everysec":
            assert states().index(found) >= len(told) - 8           # units in two seconds, the pause of 1.5 s among them
        again(world, found, directives)
        points += 1
    assert points > 40


def again(world: World, expected: Any, directives: dict[str, str]) -> None:
    """What has been served is durable: I7, I8."""
    world.connect("alice")("SET", "more", "1")
    world.power_loss()
    found = state(world.start(**directives))
    found.pop((0, b"more"), None)
    assert found == expected
    assert directives["appendfsync"] != "always" or (0, b"more") in state(world.server)
    world.kill()


@pytest.mark.parametrize("how", ["kill", "power_loss"])
def test_a_crash_at_any_operation_of_a_recovery_changes_nothing(how: str) -> None:
    def recovery(point: int | None) -> tuple[World, Any, int]:
        world = World(seed=1)
        machine = Simulated()
        machine.world, machine.server = world, world.start()
        lay_on(world, {BASE: dump((0, b"k", b"v", None)), INCR1: log("SELECT 0", "SET a 1"),
                       INCR2: log("SELECT 0", "SET b 2") + log("SET c 3")[:-5]}, b"file old seq 1 type h\n")
        world.kill()
        before = len(world.disk.operations)
        if point is not None:
            world.disk.observers.append(Plug(point, world))
            with pytest.raises(PowerCut):
                world.start(appendonly="yes")
            unplug(world)
            if how == "power_loss":
                world.power_loss()
        server = world.start(appendonly="yes")
        return world, state(server), len(world.disk.operations) - before
    _, expected, count = recovery(None)
    assert {key for _, key in expected} == {b"k", b"a", b"b"} and count > 10
    for point in range(1, count + 1):
        world, found, _ = recovery(point)
        assert found == expected and world.disk.list(f"/data/{FOLDER}") == sorted([BASE, INCR1, INCR2, MANIFEST])


def lay_on(world: World, contents: dict[str, bytes], history: bytes = b"") -> None:
    disk = world.disk.instantly()
    disk.mkdir(f"/data/{FOLDER}")
    everything = {MANIFEST: manifest(*contents) + history, "old": b"x", f"temp-{MANIFEST}": b"x",
                  "temp-appendonly.aof.incr": b"x", "temp-rewriteaof-bg-99999999.aof": b"x", **contents}
    for name, data in everything.items():
        file = disk.open(f"/data/{FOLDER}/{name}", "w")
        disk.write(file, data)
        disk.fsync(file)
    for folder in (f"/data/{FOLDER}", "/data", "/"):
        disk.fsync_dir(folder)


def test_upgrading_a_log_of_one_file_survives_a_crash_after_each_operation() -> None:
    for how in ("kill", "power_loss"):
        for point in range(1, 40):
            world = World(seed=1)
            world.start()
            disk = world.disk.instantly()
            file = disk.open("/data/appendonly.aof", "w")
            disk.write(file, log("SELECT 0", "SET a 1", "SET b 2") + b"*3\r\n$3\r\nSET\r")
            disk.fsync(file)
            disk.fsync_dir("/data")
            world.kill()
            world.disk.observers.append(Plug(point, world))
            try:
                world.start(appendonly="yes")
                world.connect()("SET", "c", "3")
            except PowerCut:
                pass
            unplug(world)
            if how == "power_loss" or world.server:
                getattr(world, how)()
            server = world.start(appendonly="yes")
            assert {(0, b"a"), (0, b"b")} <= set(state(server)), (how, point)
            assert world.disk.list("/data")[-1] == FOLDER       # the power may leave both names of the one file
            assert b"file appendonly.aof seq 1 type b\n" in world.disk.content(f"/data/{FOLDER}/{MANIFEST}")


def test_a_log_that_was_just_copied_there_is_durable_before_the_first_client_is_served() -> None:
    """Its files, the manifest, and the names of them all: nobody has fsynced any of it."""
    files = {MANIFEST: b"file appendonly.aof.1.incr.aof seq 1 type i\n",
             "appendonly.aof.1.incr.aof": record((b"SET", b"a", b"1"))}
    world = World(seed=1)
    disk = world.disk.instantly()
    disk.mkdir(f"/data/{FOLDER}")
    for name, data in files.items():
        disk.write(disk.open(f"/data/{FOLDER}/{name}", "w"), data)
    shown = state(world.start(appendonly="yes"))
    world.power_loss()
    assert shown and state(world.start(appendonly="yes")) == shown


def test_a_file_that_no_manifest_names_is_never_read(machine: Machine) -> None:
    lay(machine, {BASE: dump((0, b"k", b"v", None)), INCR1: log("SELECT 0", "SET a 1")})
    stray = log("SELECT 0", "SET stray 1")
    for name in (INCR2, "temp-appendonly.aof.incr", "appendonly.aof.2.base.rdb", "appendonly.aof"):
        put(machine, f"{FOLDER}/{name}", stray)
    server = restart(machine, appendonly="yes", appendfsync="no")
    assert set(server.databases[0].values) == {b"k", b"a"}
    alice = machine.connect()
    alice("BGREWRITEAOF")
    alice("SET", "b", "1")
    child_ends(machine)
    server = restart(machine, appendonly="yes")
    assert set(server.databases[0].values) == {b"k", b"a", b"b"}


# ---- what is loaded ------------------------------------------------------------------------------

def test_each_file_begins_in_database_0(machine: Machine) -> None:
    lay(machine, {BASE: dump((0, b"k", b"v", None), (3, b"k", b"v", None)), INCR1: log("SET a 1", "SELECT 5", "SET b 2"),
                  INCR2: log("SET c 3")})
    server = restart(machine, appendonly="yes")
    assert {place for place in state(server)} == {(0, b"k"), (3, b"k"), (0, b"a"), (5, b"b"), (0, b"c")}
    assert info(machine.connect())["aof_base_size"] == str(len(parts(machine)[BASE]))       # as in Redis


@pytest.mark.parametrize("base", [dump((0, b"k", b"v", None)), b"VALKEY080\xfe\0\0\1k\1v\xff" + bytes(8)],
                         ids=["redis", "valkey"])
@pytest.mark.parametrize("behind", [b"", log("SET j w")], ids=["alone", "and records"])
def test_a_base_may_be_a_dump_of_redis_or_valkey(base: bytes, behind: bytes, machine: Machine) -> None:
    lay(machine, {BASE: base + behind, INCR1: log("SELECT 0", "SET a 1")})
    assert set(restart(machine, appendonly="yes").databases[0].values) == {b"k", b"a", *([b"j"] if behind else [])}


@pytest.mark.parametrize("rescue", ["PERSIST k", "PEXPIREAT k 32503680000000", "EXPIRE k 100", "RENAME k j"])
def test_an_expired_key_of_the_base_may_be_rescued_by_the_log(rescue: str) -> None:
    machine = Simulated()
    lay(machine, {BASE: dump((0, b"k", b"v", NOW_MS - 5), (0, b"dead", b"v", NOW_MS - 5)), INCR1: log(rescue)})
    server = restart(machine, appendonly="yes", enable_debug_command="yes")
    assert len(server.databases[0].values) == 2
    alice = machine.connect()
    alice("MGET", "dead", "j")
    expected = b"v" if rescue != "RENAME k j" else None
    assert alice("GET", "k") == expected and alice("DBSIZE") == (1 if expected else 0)


@pytest.mark.parametrize("line", ["EXPIRE k -1", "PEXPIREAT k 1", "EXPIREAT k 1", "SET k v PXAT 1", "SET k v EX 1"])
def test_a_deadline_in_the_past_only_stands_there_while_a_log_is_loaded(line: str) -> None:
    machine = Simulated()
    lay(machine, {BASE: dump(), INCR1: log("SET k v", line, "APPEND k w", "PERSIST k")})
    restart(machine, appendonly="yes")
    assert machine.connect()("GET", "k") == b"vw"


@pytest.mark.parametrize("seed", range(4))
def test_a_log_may_hold_any_command_that_changes_data_though_kvref_would_have_written_another(seed: int) -> None:
    """Nobody is the client of these. (An old Redis, or a person, may have written SPOP or GETEX.)"""
    rows = table()
    author = Author(random.Random(seed), frozenset(name.decode() for name, row in rows.items()
                                                   if name.islower() and "write" in row.flags and "blocking" not in row.flags))
    commands = [[b"SADD", b"s1", b"a", b"b", b"c"], [b"SPOP", b"s1", b"2"], *([*author.command().words] for _ in range(2000))]
    written = [words for words in commands if words and (row := rows.get(words[0].lower())) and "write" in row.flags
               and "blocking" not in row.flags and row.least <= len(words) <= row.most]
    assert len(written) > 1000
    machine = Simulated()
    lay(machine, {BASE: dump(), INCR1: b"".join(map(record, written))})
    restart(machine, appendonly="yes")
    assert machine.server.databases[0].values


def test_passwords_and_errors_do_not_matter_to_a_log(machine: Machine) -> None:
    lay(machine, {BASE: dump(), INCR1: log("SET k v", "LPUSH k x", "SET j v")})
    restart(machine, appendonly="yes", requirepass="secret")
    assert len(machine.server.databases[0].values) == 2 and "1 commands of the append-only file had an error" in said(machine)


def test_flushall_in_a_log_saves_nothing(machine: Machine) -> None:
    lay(machine, {BASE: dump((0, b"k", b"v", None)), INCR1: log("FLUSHALL", "SET a 1")})
    server = restart(machine, appendonly="yes", save="1 1")
    machine.connect()("SET", "b", "1")
    assert set(server.databases[0].values) == {b"a", b"b"} and list(files(machine)) == []


def test_a_long_log_is_loaded_in_steps_and_tells_how_far_it_is(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two steps the loop turns, and whoever asks is told -LOADING, as for a snapshot (test_loading.py)."""
    monkeypatch.setattr(load, "LOOK_AROUND", 100)
    monkeypatch.setattr(replay, "READ", 100)
    monkeypatch.setattr(cursor, "CHUNK", 100)
    lay(machine, {BASE: dump(), INCR1: log("SELECT 3", *[f"SET k{number} v" for number in range(100)])})
    told: list[tuple[float, str]] = []
    visitor: list[Any] = []
    look_around = load._look_around

    def visit(server: Any, loading: load.Loading) -> None:
        if isinstance(machine, Simulated):
            visitor[1:] = []
            if not visitor:
                visitor.append(machine.world.network.connect("127.0.0.1", server.config.port))
                machine.world.network.send(visitor[0], b"GET k1\r\n")
        look_around(server, loading)
        told.append((loading.percent, str(machine.world.network.recv(visitor[0], 99)) if visitor else "LOADING"))
    monkeypatch.setattr(load, "_look_around", visit)
    restart(machine, appendonly="yes")
    percents = [percent for percent, _ in told]
    assert len(told) > 5 and percents == sorted(percents) and 90 < percents[-1] <= 100
    assert any("LOADING" in said for _, said in told) and info(machine.connect())["loading"] == "0"
    assert [len(database) for database in machine.server.databases[:4]] == [0, 0, 0, 100]       # a visitor's is 0


def test_an_argument_may_be_longer_than_512_mb_if_the_file_is(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """proto-max-bulk-len may have let it in, and be another now. Here 1 MB stands for 512."""
    monkeypatch.setattr(replay, "ARGUMENT_MAX", 1 << 20)
    whole = record([b"SET", b"k", b"x" * 3_000_000])
    lay(machine, {BASE: dump(), INCR1: whole})
    restart(machine, appendonly="yes", proto_max_bulk_len="1mb")
    assert machine.connect()("STRLEN", "k") == 3_000_000
    put(machine, f"{FOLDER}/{INCR1}", whole[:1000])
    is_refused(machine, "an argument of 3000000 bytes is impossible", proto_max_bulk_len="1mb")
    restart(machine, appendonly="yes", proto_max_bulk_len="4mb")          # torn, and so forgiven
    assert machine.connect()("DBSIZE") == 0


@pytest.mark.parametrize("appendonly", ["yes", "no"])
def test_what_counts_is_never_cleaned_away_whatever_its_name(appendonly: str, machine: Machine) -> None:
    machine.start()
    put(machine, "temp-99999997.rdb", dump((0, b"k", b"v", None)))
    put(machine, "temp-99999998.aof", log("SELECT 0", "SET a 1"))
    put(machine, "temp-99999999.rdb", b"x")
    for _ in range(2):
        server = restart(machine, appendonly=appendonly, dbfilename="temp-99999997.rdb", appendfilename="temp-99999998.aof")
        assert set(server.databases[0].values) == {b"a" if appendonly == "yes" else b"k"}
        there = machine.server.disk.list(server.config.dir)
        assert "temp-99999997.rdb" in there and "temp-99999999.rdb" not in there


def test_with_only_a_snapshot_there_a_log_begins_empty_and_says_so(machine: Machine) -> None:
    machine.start()
    put(machine, "dump.rdb", dump((0, b"k", b"v", None)))
    server = restart(machine, appendonly="yes")
    assert not server.databases[0].values and "There is a dump.rdb, and it is NOT loaded" in said(machine)
    machine.connect()("SET", "a", "1")
    machine.server.disk.unlink(machine.server.path("dump.rdb"))
    restart(machine, appendonly="yes")
    assert machine.connect()("GET", "a") == b"1"


def test_transactions_are_executed_in_linear_time(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a record begins is counted on from the one before, not from the beginning of what was read."""
    plain, encoded = replay.records, [0]

    def counting(commands: Any) -> bytes:
        encoded[0] += len(commands)
        return plain(commands)
    lay(machine, {BASE: dump(), INCR1: 500 * log("MULTI", "INCR n", "INCR n", "EXEC")})
    monkeypatch.setattr(replay, "records", counting)
    restart(machine, appendonly="yes")
    assert machine.connect()("GET", "n") == b"1000" and encoded[0] < 2 * 4 * 500


def test_a_record_of_many_and_large_arguments_is_read_in_linear_time(machine: Machine) -> None:
    lay(machine, {BASE: dump(), INCR1: record([b"RPUSH", b"l", *[b"%d" % number for number in range(50_000)]]) +
                  record([b"SET", b"k", b"x" * 3_000_000])})
    restart(machine, appendonly="yes")
    assert machine.connect()("LLEN", "l") == 50_000 and machine.connect()("STRLEN", "k") == 3_000_000


# ---- what is refused -----------------------------------------------------------------------------

WHOLE = log("SELECT 0", "SET a 1")
REFUSED = {
    "zeros behind": (WHOLE + bytes(50), len(WHOLE), "here should be * and a number"),
    "no record": (WHOLE + b"SET a 2\r\n", len(WHOLE), "here should be *"),
    "a length that is none": (WHOLE + b"*1\r\n$x\r\n", len(WHOLE) + 4, "here should be $"),
    "a hostile length": (WHOLE + b"*2\r\n$9999999999\r\n", len(WHOLE) + 4, "impossible"),
    "a negative length": (WHOLE + b"*1\r\n$-1\r\n", len(WHOLE) + 4, "here should be $"),
    "no words": (WHOLE + b"*0\r\n", len(WHOLE), "no words"),
    "no CR LF": (WHOLE + b"*1\r\n$4\r\nPINGxx", len(WHOLE) + 12, "CR LF"),
    "reads": (WHOLE + log("GET a"), len(WHOLE), "no command that changes data"),
    "unknown": (WHOLE + log("HELLO 3"), len(WHOLE), "no command that changes data"),
    "too few words": (WHOLE + log("SET a"), len(WHOLE), "no command"),
    "EXEC": (WHOLE + log("EXEC"), len(WHOLE), "EXEC without MULTI"),
    "nested": (WHOLE + log("MULTI", "SET a 1", "MULTI"), len(WHOLE) + len(log("MULTI", "SET a 1")), "MULTI inside"),
    "in a unit": (WHOLE + log("MULTI", "SET a 2", "GET a", "EXEC"), len(WHOLE) + len(log("MULTI", "SET a 2")), "GET"),
    "database": (WHOLE + log("SELECT 99"), len(WHOLE), "raise 'databases'"),
    "SELECT": (WHOLE + log("SELECT"), len(WHOLE), "SELECT with 0 arguments"),
    "annotation": (WHOLE + b"#" + b"x" * 2000, len(WHOLE), "annotation"),
}


def is_refused(machine: Machine, *says: str, **directives: str) -> None:
    before = parts(machine)
    put(machine, f"{FOLDER}/temp-rewriteaof-99999999.aof", b"perhaps of use for repair")
    before = parts(machine)
    with pytest.raises(Unreadable) as refusal:
        restart(machine, appendonly="yes", **directives)
    sentence = str(refusal.value)
    assert all(word in sentence for word in says) and "\n" not in sentence, sentence
    assert parts(machine) == before


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_log_is_refused_in_one_sentence_and_left_alone(name: str, machine: Machine) -> None:
    data, offset, says = REFUSED[name]
    lay(machine, {BASE: dump(), INCR1: data})
    is_refused(machine, f"{INCR1}: at offset {offset}", says)


def test_a_file_in_the_middle_must_be_whole(machine: Machine) -> None:
    lay(machine, {BASE: dump(), INCR1: WHOLE + WHOLE[:-3], INCR2: log("SET b 2")})
    is_refused(machine, INCR1, f"at offset {len(log('SELECT 0', 'SET a 1', 'SELECT 0'))}", "not the last")


@pytest.mark.parametrize("contents", [{BASE: dump()[:-9], INCR1: b""}, {BASE: dump()[:5], INCR1: b""},
                                      {BASE: b"RED", INCR1: b""}])
def test_a_base_must_be_whole(contents: dict[str, bytes], machine: Machine) -> None:
    lay(machine, contents)
    is_refused(machine, BASE)


def test_debug_loadaof_of_a_damaged_log_is_an_error_and_the_server_goes_on(machine: Machine) -> None:
    """Redis would end."""
    lay(machine, {BASE: dump(), INCR1: WHOLE})
    restart(machine, appendonly="yes", enable_debug_command="yes")
    put(machine, f"{FOLDER}/{BASE}", b"RED")
    alice = machine.connect()
    assert str(alice("DEBUG", "LOADAOF")) == "ERR Error trying to load the AOF files, check server logs."
    assert alice("PING") == "PONG" and BASE in said(machine)


@pytest.mark.parametrize("name", [BASE, INCR1])
def test_a_file_that_is_missing_is_named(name: str, machine: Machine) -> None:
    lay(machine, {BASE: dump(), INCR1: WHOLE})
    machine.server.disk.unlink(machine.server.path(f"{FOLDER}/{name}"))
    is_refused(machine, MANIFEST, name, "missing")


def test_a_damaged_manifest_is_refused(machine: Machine) -> None:
    lay(machine, {BASE: dump(), INCR1: WHOLE})
    put(machine, f"{FOLDER}/{MANIFEST}", b"")
    is_refused(machine, MANIFEST, "empty")


NEEDLESS = {"empty": (b"", True), "garbage": (b"garbage\n", True), "a second base": (manifest(BASE, BASE), True),
            "a file that is missing": (manifest(BASE, INCR2), False), "sound": (manifest(BASE, INCR1), False)}


@pytest.mark.parametrize(("text", "refused"), NEEDLESS.values(), ids=NEEDLESS)
def test_a_damaged_manifest_is_refused_with_appendonly_no_too(text: bytes, refused: bool, machine: Machine) -> None:
    """Its files are not looked at. redis-server decides the same."""
    lay(machine, {BASE: dump(), INCR1: b"no log"})
    put(machine, f"{FOLDER}/{MANIFEST}", text)
    put(machine, "dump.rdb", dump((0, b"k", b"v", None)))
    before = parts(machine)
    if refused:
        with pytest.raises(Unreadable, match=f"{FOLDER}/{MANIFEST}: at offset"):
            restart(machine)
    else:
        assert set(restart(machine).databases[0].values) == {b"k"}
    assert parts(machine) == before
    if installed("redis-server"):
        assert (redis_verdict({MANIFEST: text, INCR1: b"no log"}, appendonly="no") is None) == refused


def test_a_file_in_the_place_of_the_directory_matters_to_the_log_alone(machine: Machine) -> None:
    machine.start()
    put(machine, FOLDER, b"a file")
    assert restart(machine).stopped is False
    with pytest.raises(Unreadable, match="Not a directory"):
        restart(machine, appendonly="yes")


def test_a_log_of_one_file_that_is_damaged_is_left_where_it_is(machine: Machine) -> None:
    machine.start()
    put(machine, "appendonly.aof", WHOLE + b"xxx")
    with pytest.raises(Unreadable, match=f"appendonly.aof: at offset {len(WHOLE)}"):
        restart(machine, appendonly="yes")
    assert files(machine) == {"appendonly.aof": WHOLE + b"xxx"}
    assert machine.server.disk.list(machine.server.config.dir) == ["appendonly.aof"]


@pytest.mark.parametrize("failing", ["fsync", "fsync_dir", "write", "rename"])
def test_a_disk_that_fails_at_the_start_is_told_of(failing: str, machine: Machine, disturb: Disturb) -> None:
    lay(machine, {BASE: dump((0, b"k", b"v", None))})
    disturbed = disturb(machine)
    disturbed.fail = lambda note: errno.EIO * note.startswith(failing + " ")
    with pytest.raises(Unreadable, match="Input/output error"):
        restart(machine, appendonly="yes")
    disturbed.fail = lambda note: 0
    assert b"k" in restart(machine, appendonly="yes").databases[0].values


def test_a_flipped_byte_anywhere_is_never_a_traceback() -> None:
    sound = {BASE: dump((0, b"k", b"v", None), (0, b"l", b"w" * 50, NOW_MS + 10**9)),
             INCR1: log("SELECT 1", "MULTI", "SET a 1", "RPUSH l 1 2 3", "EXEC", "PEXPIREAT a 32503680000000")}
    every = {MANIFEST: manifest(*sound), **sound}
    world = World(seed=1)
    world.start()
    lay_on(world, sound)
    world.kill()
    disk, refused, loaded = world.disk.instantly(), 0, 0
    for name, data in every.items():
        for at in range(len(data)):
            for flip in (0x01, 0x20, 0x80):
                damaged = data[:at] + bytes([data[at] ^ flip]) + data[at + 1:]
                _write(disk, name, damaged)
                try:
                    world.start(appendonly="yes", aof_load_truncated="no")
                    loaded += 1
                    world.kill()
                except Unreadable as error:
                    assert "\n" not in str(error)
                    assert disk.content(f"/data/{FOLDER}/{name}") == damaged
                    refused += 1
                for other, sane in every.items():
                    _write(disk, other, sane)
    assert refused > loaded > 0


def _write(disk: Any, name: str, data: bytes) -> None:
    file = disk.open(f"/data/{FOLDER}/{name}", "w")
    disk.write(file, data)
    disk.close(file)


# ---- a torn end ----------------------------------------------------------------------------------

TAIL = [log("SET b 2"), log("MULTI", "INCR n", "EXEC"), b"#TS:1\r\n", log("DEL a")]      # units
WHOLE_UNITS = [len(log("SELECT 0", "SET a 1") + b"".join(TAIL[:count])) for count in range(len(TAIL) + 1)]
FIRST = WHOLE_UNITS[0]
TORN = log("SELECT 0", "SET a 1") + b"".join(TAIL)
# Differences, each a row of the README. Where a record inside of MULTI is torn, Redis cuts that record alone, and the
# next start finds a MULTI without its EXEC ...
OPEN = range(WHOLE_UNITS[1] + len(log("MULTI")) + 1, WHOLE_UNITS[2])
# ... half an annotation is a whole one for it: the file stays as it is, and the next record begins in that line ...
HALF_LINE = range(WHOLE_UNITS[2] + 1, WHOLE_UNITS[3])
# ... and with a torn record goes the annotation before it.
BEHIND_LINE = range(WHOLE_UNITS[3] + 1, WHOLE_UNITS[4])
Verdict = tuple[str, int] | None            # digest of what is loaded, and how long the file is then; None: refused


def redis_verdict(contents: dict[str, bytes], **directives: str) -> Verdict:
    """Of a redis-server that starts on such a directory of the log."""
    words = [word for name, value in directives.items() for word in (f"--{name.replace('_', '-')}", value)]
    with tempfile.TemporaryDirectory(prefix="kvref-redis-") as home:
        folder = Path(home, FOLDER)
        folder.mkdir()
        for name, data in {MANIFEST: manifest(BASE, INCR1), BASE: dump(), **contents}.items():
            (folder / name).write_bytes(data)
        # A socket in its own directory: several servers start at once, and would take each other's free ports.
        process = subprocess.Popen(["redis-server", "--port", "0", "--unixsocket", f"{home}/s", "--dir", home,
                                    "--save", "", "--enable-debug-command", "yes", *words],
                                   stdout=subprocess.PIPE, text=True)
        assert process.stdout
        try:
            if not any("ready to accept" in line.lower() for line in process.stdout):
                return None
            with socket.socket(socket.AF_UNIX) as peer:
                peer.settimeout(10)
                peer.connect(f"{home}/s")
                peer.sendall(b"DEBUG DIGEST\r\n")
                digest = peer.recv(100).decode().strip().removeprefix("+")
            return digest, (folder / INCR1).stat().st_size
        finally:
            process.kill()
            process.wait(10)
            process.stdout.close()


def kvref_verdict(data: bytes, truncated: str) -> Verdict:
    machine = Simulated()
    lay(machine, {BASE: dump(), INCR1: data})
    try:
        restart(machine, appendonly="yes", aof_load_truncated=truncated, enable_debug_command="yes")
    except Unreadable:
        assert parts(machine)[INCR1] == data
        return None
    digest = machine.connect()("DEBUG", "DIGEST")
    return digest if isinstance(digest, str) else digest.decode(), len(parts(machine)[INCR1])


@pytest.mark.parametrize("truncated", ["yes", "no"])
def test_a_log_that_is_cut_anywhere_is_cut_back_to_its_last_whole_unit(truncated: str) -> None:
    """Whole units come back, all up to some point, wherever the file ends."""
    whole = [kvref_verdict(TORN[:size], "no") for size in WHOLE_UNITS]
    assert all(whole) and len({verdict[0] for verdict in whole if verdict}) == 4         # an annotation changes nothing
    for end in range(FIRST, len(TORN) + 1):
        good = max(number for number, size in enumerate(WHOLE_UNITS) if size <= end)
        forgiven = truncated == "yes" or end in WHOLE_UNITS
        assert kvref_verdict(TORN[:end], truncated) == (whole[good] if forgiven else None), end


@pytest.mark.parametrize("truncated", ["yes", "no"])
def test_redis_server_comes_to_the_same_verdict_at_every_byte(truncated: str) -> None:
    if not installed("redis-server"):
        pytest.skip("redis-server 7.0 is not installed")
    ends = range(FIRST, len(TORN) + 1)
    with ThreadPoolExecutor(4) as pool:             # it takes its time to start
        verdicts = list(pool.map(lambda end: redis_verdict({INCR1: TORN[:end]}, appendonly="yes",
                                                           aof_load_truncated=truncated), ends))
    for end, theirs in zip(ends, verdicts):
        ours = kvref_verdict(TORN[:end], truncated)
        if end in OPEN and truncated == "yes":
            assert theirs and ours and theirs[0] == ours[0] and theirs[1] >= ours[1] == WHOLE_UNITS[1]
        elif end in HALF_LINE:
            assert theirs and theirs[1] == end and ours == ((theirs[0], WHOLE_UNITS[2]) if truncated == "yes" else None)
        elif end in BEHIND_LINE and truncated == "yes":
            assert theirs and theirs[1] == WHOLE_UNITS[2] and ours == (theirs[0], WHOLE_UNITS[3])
        else:
            assert theirs == ours, end


# ---- any commands --------------------------------------------------------------------------------

@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("preamble", ["yes", "no"])
def test_the_replay_of_any_commands_gives_an_equal_keyspace(preamble: str, seed: int) -> None:
    world = World(seed=seed)
    directives = {"appendonly": "yes", "appendfsync": "no", "aof_use_rdb_preamble": preamble, "enable_debug_command": "yes"}
    server = world.start(**directives)
    author = Author(random.Random(seed), frozenset(name.decode() for name in table() if name.islower()))
    alice = world.connect("alice")
    for number in range(700):
        words = author.command().words
        if number % 50 == 7:
            alice.send("MULTI")
        elif number % 50 == 12:
            alice.send("EXEC")
        alice.send(*words)
        world.settle()
        alice.replies.clear()
        if number == 350:
            alice("BGREWRITEAOF")
    world.run(ms=1000)
    expected = world.connect("bob")("DEBUG", "DIGEST")
    assert server.aof.rewrites == 1
    world.kill()
    world.start(**directives)
    assert world.connect("bob")("DEBUG", "DIGEST") == expected
