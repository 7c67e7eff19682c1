"""The start on what is on the disk: what is loaded, what is refused, and what clients see meanwhile.

Most tests run on both machines (conftest.py); what is answered while a file is loaded is compared with a real
redis-server that takes its time.
"""

from __future__ import annotations

import errno
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kvref.__main__ import ProgressBar
from kvref.eventloop import Event
from kvref.persistence import cursor
from kvref.persistence.cursor import Unreadable
from kvref.persistence.load import Loading
from kvref.resp import Error
from kvref.sim.clock import NEW_YEAR_US, Clock
from kvref.sim.disk import Operation
from tests import record
from tests.conftest import Connection, Machine, Real, Simulated
from tests.saving import ALWAYS, Redis, Watch, dump, files, info, put, real_server, restart, said, saved, watch
from tests.test_main import KVREF, environment

__all__ = ["watch"]                         # a fixture
LOADING = Error("LOADING Redis is loading the dataset in memory")
NOW_MS = NEW_YEAR_US // 1000
SMALL = dump((0, b"k", b"v", None))
LARGE = dump(*((0, b"key:%d" % number, b"v" * 100, None) for number in range(2000)), rdbcompression="no")


# ---- who acts while a file is loaded ---------------------------------------------------------------

class Visitor:
    """A client that comes while a server loads: it says something whenever it has heard the last answer."""

    def __init__(self, machine: Machine, patch: pytest.MonkeyPatch, *lines: str) -> None:
        self.machine, self.lines, self.said, self.replies = machine, list(lines), list[str](), list[Any]()
        self.wire: Connection | None = None
        self.reads = 0
        kind = type(machine.server.disk)
        read: Any = kind.read

        def read_and_act(disk: Any, file: Any, size: int) -> bytes:
            self.reads += 1
            if self.reads > 2:                  # the first pieces go by before anybody comes
                self.act()
            data: bytes = read(disk, file, size)
            return data
        patch.setattr(kind, "read", read_and_act)
        patch.setattr(cursor, "CHUNK", 256)

    def act(self) -> None:
        self.wire = self.wire or self.machine.connect()
        self.wire.pump()
        self.replies += self.wire.replies()
        if self.lines and len(self.replies) == len(self.said):
            self.said.append(self.lines.pop(0))
            self.wire.send(*shlex.split(self.said[-1]))


ASKED = (
    "PING", "GET key:1", "SET a b", "DBSIZE", "KEYS *", "EXPIRE a 1", "DUMP a", "OBJECT ENCODING key:1", "SAVE",
    "BGSAVE", "BLPOP l 0", "FLUSHALL", "SELECT 1", "SELECT 0", "ECHO a", "CONFIG GET save", "CLIENT GETNAME", "AUTH pw",
    "SUBSCRIBE q", "PING", "UNSUBSCRIBE q", "PUBLISH a b", "MULTI", "GET a", "EXEC", "DISCARD", "MULTI", "ECHO a",
    "EXEC", "WATCH a", "UNWATCH", "SLOWLOG LEN", "ROLE", "DEBUG SLEEP 0", "COMMAND COUNT x", "NOSUCH",
    "CONFIG SET save ''", "CONFIG SET appendonly yes", "CONFIG SET hz 11 DIR /", "CONFIG SET repl-diskless-load disabled",
    "CONFIG SET hz 11", "RESET", "QUIT")


LOCKED = ("PING", "GET key:1", "AUTH wrong", "MULTI", "AUTH pw", "PING", "GET key:1", "CONFIG GET requirepass")


@pytest.mark.parametrize("asked, password", [(ASKED, ""), (LOCKED, "pw")])
def test_while_it_loads_a_server_answers_what_a_real_one_answers(
        asked: tuple[str, ...], password: str, machine: Machine, monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path) -> None:
    machine.start()
    put(machine, "dump.rdb", LARGE)
    visitor = Visitor(machine, monkeypatch, *asked)
    directives = {"save": ALWAYS, "enable_debug_command": "yes", "enable_protected_configs": "yes", "requirepass": password}
    server = restart(machine, **directives)
    folder = tmp_path / "real"
    folder.mkdir()
    (folder / "dump.rdb").write_bytes(LARGE)
    with real_server(**directives, dir=str(folder), key_load_delay="3000",
                     loading_process_events_interval_bytes="1024") as redis:
        real = Redis(redis)
        for line, reply in zip(asked, visitor.replies, strict=True):
            assert (line, reply) == (line, real(*shlex.split(line)))
    assert LOADING in visitor.replies and len(server.databases[0]) == 2000 and server.loading is None


def test_a_password_that_is_refused_while_it_loads_stays_out_of_the_slow_log(
        machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.start()
    put(machine, "dump.rdb", LARGE)
    visitor = Visitor(machine, monkeypatch, "CONFIG SET requirepass hidden dir /", "SLOWLOG GET 1")
    restart(machine, slowlog_log_slower_than="0")
    refusal, [entry] = visitor.replies
    assert refusal == LOADING and entry[3] == [b"CONFIG", b"SET", b"requirepass", b"(redacted)", b"dir", b"/"]


def test_info_tells_how_far_loading_is(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.start()
    put(machine, "dump.rdb", LARGE)
    visitor = Visitor(machine, monkeypatch, *["INFO persistence"] * 20)
    restart(machine)
    replies = iter(visitor.replies)
    told = [info(lambda *_: next(replies)) for _ in visitor.said]
    bytes_loaded = [int(one["loading_loaded_bytes"]) for one in told]
    assert all(one["loading"] == "1" and one["loading_total_bytes"] == str(len(LARGE)) for one in told)
    assert 0 < bytes_loaded[0] < bytes_loaded[-1] < len(LARGE) and bytes_loaded == sorted(bytes_loaded)
    assert [one["loading_loaded_perc"] for one in told] == [f"{100 * many / len(LARGE):.2f}" for many in bytes_loaded]
    assert all(abs(int(one["loading_start_time"]) - machine.server.clock.time_us() // 1_000_000) < 5 for one in told)
    after = info(machine.connect())
    assert after["loading"] == "0" and "loading_total_bytes" not in after
    assert after["rdb_last_load_keys_loaded"] == "2000"


def test_how_long_loading_will_take_is_reckoned_from_how_long_it_took() -> None:
    loading = Loading("dump.rdb", total=400, start_us=1_000_000, start_s=0)
    assert (loading.percent, loading.eta_s(9_000_000)) == (0, 1)
    loading.loaded = 100
    assert (loading.percent, loading.eta_s(9_000_000)) == (25, 24)


@pytest.mark.parametrize("words", ["SHUTDOWN", "SHUTDOWN SAVE", "SHUTDOWN NOSAVE", "SIGTERM"])
def test_a_server_that_is_told_to_end_while_it_loads_saves_nothing(
        words: str, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is half loaded must not take the place of the whole."""
    machine.start()
    put(machine, "dump.rdb", LARGE)
    visitor = Visitor(machine, monkeypatch, "PING", words)
    if words == "SIGTERM":
        kind = type(machine.server.processes)
        visitor.act = lambda: monkeypatch.setattr(      # type: ignore[method-assign]
            kind, "signals", lambda _: [words])
    server = restart(machine, save=ALWAYS, shutdown_on_sigterm="save")
    assert server.stopped and files(machine) == {"dump.rdb": LARGE} and len(server.databases[0]) < 2000
    assert ("Received shutdown signal during loading, scheduling shutdown." in said(machine)) == (words == "SIGTERM")


def test_nothing_expires_while_a_file_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key is dropped if its time was over when loading began; what dies meanwhile is deleted afterwards."""
    machine = Simulated()
    machine.start()
    entries = [(0, b"key:%d" % number, b"v" * 100, NOW_MS + 10_000) for number in range(500)]
    put(machine, "dump.rdb", dump((0, b"dead", b"v", NOW_MS - 1), *entries, (5, b"dead", b"v", 1), rdbcompression="no"))
    visitor, clock = Visitor(machine, monkeypatch), machine.world.clock
    visitor.act = lambda: clock.sleep(1_000_000)        # type: ignore[method-assign]
    restart(machine)
    assert clock.time_us() // 1000 > NOW_MS + 10_000
    alice = machine.connect()
    told = info(alice)
    assert told["rdb_last_load_keys_loaded"] == "500" and told["rdb_last_load_keys_expired"] == "2"
    assert alice("DBSIZE") == 500 and alice("GET", "key:1") is None and alice("DBSIZE") == 499


# ---- what is loaded --------------------------------------------------------------------------------

def test_a_server_goes_on_where_the_last_one_saved(machine: Machine) -> None:
    machine.start(save="")
    alice = machine.connect()
    for words in ("SET s 1", "RPUSH l a b", "HSET h f v", "SADD t a b", "ZADD z 1.5 m", "SET volatile v EX 1000",
                  "SELECT 15", "SET other v"):
        alice(*words.split())
    assert alice("SAVE") == "OK"
    restart(machine)
    alice = machine.connect()
    asked = ("GET s", "LRANGE l 0 -1", "HGET h f", "SCARD t", "ZSCORE z m", "DBSIZE")
    assert [alice(*words.split()) for words in asked] == [b"1", [b"a", b"b"], b"v", 2, b"1.5", 6]
    assert 990 < alice("TTL", "volatile") <= 1000 and alice("SELECT", "15") == "OK" and alice("GET", "other") == b"v"
    assert info(alice)["rdb_changes_since_last_save"] == "0" and info(alice)["rdb_last_load_keys_loaded"] == "7"


@pytest.mark.parametrize("left_ms, is_loaded", [(-1, False), (0, True), (1, True)])
def test_a_key_whose_time_is_over_is_dropped(left_ms: int, is_loaded: bool) -> None:
    machine = Simulated()
    machine.start()
    put(machine, "dump.rdb", dump((0, b"k", b"v", NOW_MS + left_ms), (0, b"other", b"v", None)))
    server = restart(machine)
    assert (b"k" in server.databases[0].values) == is_loaded
    assert server.last_load and (server.last_load.expired, server.last_load.keys) == (not is_loaded, 1 + is_loaded)


def test_what_is_loaded_is_made_durable_before_anybody_is_shown_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that only the page cache has, as after kill -9 of a process that had written and renamed it."""
    machine = Simulated()
    machine.start()
    put(machine, "dump.rdb", LARGE)
    Visitor(machine, monkeypatch, "GET key:1")
    restart(machine)
    machine.connect()("GET", "key:1")
    trace = [told(happening.what) for happening in machine.world.trace]
    start = len(trace) - trace[::-1].index("start")
    shown = trace.index("command get", start)
    assert [what for what in trace[start:shown] if "fsync" in what] == ["fsync /data/dump.rdb", "fsync_dir /data"]
    machine.world.power_loss()
    machine.world.start()
    assert machine.world.connect()("GET", "key:1") == b"v" * 100


def told(what: Event | Operation | str) -> str:
    if isinstance(what, str):
        return what
    return f"{what.kind} {what.path if isinstance(what, Operation) else what.detail}"


def test_the_file_is_fsynced_and_then_its_directory(machine: Machine, watch: Watch) -> None:
    home = machine.start().config.dir
    put(machine, "dump.rdb", SMALL)
    watched = watch(machine)
    restart(machine)
    notes = [note for note in watched.notes() if note != "read"]
    opened = f"open {home}/dump.rdb r"
    assert notes == [opened, "close", opened, "fsync", "close", f"fsync_dir {home}"]


def test_temporary_files_of_the_dead_are_removed_and_no_others(machine: Machine) -> None:
    machine.start()
    done = subprocess.Popen(["true"])
    done.wait()
    own = machine.server.processes.pid + isinstance(machine, Simulated)     # of the next one
    dead = [f"temp-{done.pid + 500_000 * isinstance(machine, Simulated)}.rdb", "temp-99999999999999999999.rdb",
            f"temp-{own}.rdb"]
    other = ["temp-.rdb", "temp-x.rdb", f"temp-{done.pid}.rdb.bak", f"xtemp-{done.pid}.rdb", f"temp-{done.pid}.rdbx"]
    other += ["temp-1.rdb", f"temp-{os.getppid()}.rdb"] if isinstance(machine, Real) else []
    for name in [*dead, *other]:
        put(machine, name, b"REDIS")
    machine.server.disk.mkdir(machine.server.path("temp-99999998.rdb"))     # one that cannot be removed
    restart(machine)
    assert sorted(files(machine)) == sorted(other)
    assert "Can't remove temp-99999998.rdb: Is a directory" in said(machine)


# ---- what is refused -------------------------------------------------------------------------------

REFUSED = {
    "empty": (b"", "at offset 0"),
    "another file": (b"#!/bin/sh\necho no dump\n", "at offset 0"),
    "version": (b"REDIS0099" + SMALL[9:], "at offset"),
    "cut": (SMALL[:-9], f"at offset {len(SMALL) - 9}"),
    "checksum": (SMALL[:-1] + bytes([SMALL[-1] ^ 1]), f"at offset {len(SMALL) - 8}"),
    "length": (SMALL.replace(b"\x01k\x01v", b"\x01k\x81" + b"\x7f" * 8), "key b'k'"),
    "database": (dump((99, b"k", b"v", None)), "raise 'databases'"),
    "twice": (dump((0, b"k", b"v", None), (0, b"j", b"v", None)).replace(b"\x01j", b"\x01k"), "twice"),
    "a stream": (b"REDIS0010\xfe\0\x0f\x01k\x01", "stream"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_cannot_be_read_is_refused_in_one_sentence_and_left_alone(name: str, machine: Machine) -> None:
    data, says = REFUSED[name]
    machine.start()
    path = machine.server.snapshots.path
    put(machine, "dump.rdb", data)
    put(machine, "temp-99999999.rdb", b"perhaps of use for repair")
    before, state = files(machine), disk_state(machine)
    with pytest.raises(Unreadable) as refusal:
        restart(machine)
    sentence = str(refusal.value)
    assert sentence.startswith(f"{path}: at offset ") and says in sentence and "\n" not in sentence
    assert files(machine) == before and disk_state(machine) == state


def disk_state(machine: Machine) -> object:
    if isinstance(machine, Simulated):
        return len(machine.world.disk.operations)
    folder = machine.directory                      # type: ignore[attr-defined]
    return [(path.stat().st_mtime_ns, path.stat().st_ctime_ns) for path in [folder, *sorted(folder.iterdir())]]


@pytest.mark.parametrize("failing", ["open", "read", "fsync", "fsync_dir"])
def test_a_disk_that_fails_at_the_start_is_told_of(failing: str, machine: Machine, watch: Watch) -> None:
    machine.start()
    put(machine, "dump.rdb", SMALL)
    watched = watch(machine)
    watched.failing, watched.code = failing, errno.EIO
    with pytest.raises(Unreadable, match="dump.rdb: at offset 0: Input/output error"):
        restart(machine)


def test_a_directory_in_the_place_of_the_dump_is_refused(machine: Machine) -> None:
    machine.start()
    machine.server.disk.mkdir(machine.server.snapshots.path)
    with pytest.raises(Unreadable, match="dump.rdb: at offset 0: Is a directory"):
        restart(machine)


@pytest.mark.parametrize("name", REFUSED)
def test_the_process_says_so_and_ends_with_status_1(name: str, tmp_path: Path) -> None:
    (tmp_path / "dump.rdb").write_bytes(REFUSED[name][0])
    before = [(path.stat().st_mtime_ns, path.stat().st_ctime_ns) for path in (tmp_path, tmp_path / "dump.rdb")]
    result = subprocess.run([*KVREF, "--port", str(record.free_port())], capture_output=True, text=True, timeout=30,
                            cwd=tmp_path, env=environment())
    assert result.returncode == 1
    sentence = rf"kvref: {tmp_path}/dump\.rdb: at offset \d+.*: .+\. The file is as it was: .+\.\n"
    assert re.fullmatch(sentence, result.stderr)
    what = result.stderr.removeprefix("kvref: ").partition(". The file is")[0]
    assert f"# Terminating server after rdb file reading failure: {what}\n" in result.stdout
    assert "Traceback" not in result.stdout and "Ready to accept" not in result.stdout
    assert [(path.stat().st_mtime_ns, path.stat().st_ctime_ns) for path in (tmp_path, tmp_path / "dump.rdb")] == before
    assert os.listdir(tmp_path) == ["dump.rdb"]


@pytest.mark.parametrize(("log", "opening"), [(b"*1\r\n$4\r\nPING\r\n", "Bad file format"),
                                              (b"*2\r\n$4\r\nINCR", "Unexpected end of file")])
def test_the_log_file_says_why_a_log_is_refused_and_begins_as_redis_does(log: bytes, opening: str,
                                                                        tmp_path: Path) -> None:
    (tmp_path / "appendonlydir").mkdir()
    (tmp_path / "appendonlydir/appendonly.aof.manifest").write_bytes(b"file one.aof seq 1 type i\n")
    (tmp_path / "appendonlydir/one.aof").write_bytes(log)
    command = [*KVREF, "--port", str(record.free_port()), "--logfile", "log", "--appendonly", "yes",
               "--aof-load-truncated", "no"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, cwd=tmp_path, env=environment())
    what = result.stderr.removeprefix("kvref: ").partition(". The file is")[0]
    assert what.startswith(f"{tmp_path}/appendonlydir/one.aof: at offset 0: ")
    last = (tmp_path / "log").read_text().splitlines()[-1]
    assert last.endswith(f" # {opening} reading the append only file: {what}")


GATED = """
import sys
from kvref import __main__, machine
from kvref.persistence import cursor
cursor.CHUNK, reads, read = 1000, [], machine.RealDisk.read
def wait_and_read(disk, file, size):
    reads.append(size)
    if len(reads) == 2:
        print("half way", flush=True)
        sys.stdin.read()
    return read(disk, file, size)
machine.RealDisk.read = wait_and_read
sys.exit(__main__.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_process_that_is_told_to_end_while_it_loads_ends_with_status_0(name: str, tmp_path: Path) -> None:
    (tmp_path / "dump.rdb").write_bytes(LARGE)
    with subprocess.Popen([sys.executable, "-c", GATED, "--port", str(record.free_port())], cwd=tmp_path, text=True,
                          env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as process:
        assert process.stdout and any("half way" in line for line in process.stdout)
        process.send_signal(signal.Signals[name])
        rest, errors = process.communicate(timeout=20)          # closes its input: it goes on
    assert (process.returncode, errors) == (0, "") and "Received shutdown signal during loading" in rest
    assert (tmp_path / "dump.rdb").read_bytes() == LARGE


# ---- the progress bar ------------------------------------------------------------------------------

@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


def shown_on(terminal: int) -> str:
    try:
        return os.read(terminal, 1 << 16).decode()
    except (BlockingIOError, OSError):
        return ""


def test_a_progress_bar_appears_when_loading_takes_more_than_a_second(terminal: tuple[int, int]) -> None:
    clock, loading = Clock(), Loading("dump.rdb", total=400, start_us=0, start_s=0)
    with os.fdopen(os.dup(terminal[1]), "w") as file:
        show = ProgressBar(file, clock)
        for ms, loaded in ((0, 0), (999, 99)):
            clock.advance_to(ms * 1000)
            loading.loaded = loaded
            show(loading)
            show.end()
            assert shown_on(terminal[0]) == ""
        clock.advance_to(2_000_000)
        loading.loaded = 100
        show(loading)
        assert shown_on(terminal[0]) == f"\rdump.rdb [{'#' * 10}{'.' * 30}]  25 %  6 s left "
        show.end()                                  # refused: what is said comes on the next line
        assert shown_on(terminal[0]) == "\r\n"
        loading.loaded = 400
        show(loading)
        show.end()
        assert shown_on(terminal[0]) == f"\rdump.rdb [{'#' * 40}] 100 %  0 s left \r\n"


@pytest.mark.parametrize("after_us, kind, is_shown", [(0, "pty", True), (0, "pipe", False), (10**9, "pty", False)])
def test_the_bar_is_for_terminals_and_for_those_who_wait(after_us: int, kind: str, is_shown: bool, tmp_path: Path,
                                                         terminal: tuple[int, int]) -> None:
    (tmp_path / "dump.rdb").write_bytes(LARGE[:-1] + b"?")
    code = f"import sys\nfrom kvref import __main__ as m\nm.PROGRESS_AFTER_US = {after_us}\nm.main(sys.argv[1:])"
    process = subprocess.Popen([sys.executable, "-c", code, "--port", str(record.free_port())], cwd=tmp_path,
                               env=environment(), stdout=subprocess.DEVNULL,
                               stderr=terminal[1] if kind == "pty" else subprocess.PIPE)
    errors = process.communicate(timeout=20)[1]
    text = errors.decode() if errors else shown_on(terminal[0])
    assert ("[...." in text) == is_shown
    assert re.search(r"(^|\n)kvref: [^\r\n]+\r?\n$", text)


# ---- DEBUG RELOAD ----------------------------------------------------------------------------------

def test_debug_reload_leaves_those_who_wait_waiting(machine: Machine) -> None:
    machine.start(enable_debug_command="yes")
    alice, bob = machine.connect(), machine.connect()
    alice("RPUSH", "other", "a")
    bob.send("BLPOP", "list", "0")
    machine.settle()
    assert alice("DEBUG", "RELOAD") == "OK" and bob.replies() == []
    alice("RPUSH", "list", "b")
    assert bob.replies() == [[b"list", b"b"]] and alice("LLEN", "other") == 1


def test_debug_reload_in_a_transaction_reloads_what_the_transaction_has_done(machine: Machine) -> None:
    machine.start(save=ALWAYS, enable_debug_command="yes")
    alice = machine.connect()
    alice.send_bytes(b"SET a 1\r\nMULTI\r\nSET b 2\r\nDEBUG RELOAD\r\nSET c 3\r\nDBSIZE\r\nEXEC\r\n")
    machine.settle()
    assert alice.replies()[-1] == ["OK", "OK", "OK", 3]
    assert saved(machine) == {b"a": b"1", b"b": b"2"} and machine.server.dirty == 1


def test_debug_reload_of_a_file_that_cannot_be_read_is_an_error_and_serving_goes_on(machine: Machine) -> None:
    machine.start(enable_debug_command="yes")
    alice = machine.connect()
    alice("SET", "k", "v")
    put(machine, "dump.rdb", SMALL[:-9])
    assert str(alice("DEBUG", "RELOAD", "NOSAVE")) == "ERR Error trying to load the RDB dump"
    assert alice("PING") == "PONG" and info(alice)["loading"] == "0" and f"at offset {len(SMALL) - 9}" in said(machine)
