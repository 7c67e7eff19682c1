"""A log of kvref is a log for redis-server, and the other way round: after every write command, both hold the same keys."""

from __future__ import annotations

import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kvref.command_table import table
from tests import golden, record
from tests.conftest import Real
from tests.grammar import Author
from tests.journal import parts
from tests.saving import Redis, child_ends, info, real_server, restart

DIRECTIVES = {"appendonly": "yes", "enable_debug_command": "yes", "appendfsync": "no"}
WAITING = ("BLPOP queue 0", "BRPOPLPUSH queue other 0", "BLMPOP 0 1 queue LEFT COUNT 2", "BZPOPMIN scores 0")
SERVING = ("RPUSH queue a", "RPUSH queue b", "RPUSH queue c d", "ZADD scores 1 a")


def work(alice: Callable[..., Any], bob: Callable[[str], None], rewrite: Callable[[], None], seed: int) -> None:
    """Every write command, transactions and blocking pops in several databases, and a rewrite in the middle."""
    author = Author(random.Random(seed), frozenset(name.decode() for name in table() if name.islower()))
    for number in range(900):
        words = author.command().words
        if number % 60 == 20:
            alice(b"MULTI")
        elif number % 60 == 26:
            alice(b"EXEC")
        elif words[0].upper() not in (b"FLUSHALL", b"FLUSHDB"):
            alice(*words)
        if number == 450:
            alice(b"EXEC")
            rewrite()
        if number % 200 == 110:                             # outside of a transaction
            alice(b"SELECT", b"0")
            alice(b"DEL", b"queue", b"scores")
            for waits, serves in zip(WAITING, SERVING):
                bob(waits)
                alice(*serves.encode().split())
    alice(b"EXEC")
    alice(b"SET", b"volatile", b"v", b"EX", b"100000")


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Real]:
    if not record.installed("redis-server"):
        pytest.skip("redis-server 7.0 is not installed")
    machine = Real(tmp_path)
    yield machine
    machine.stop()


@pytest.mark.parametrize("preamble", ["yes", "no"])
def test_redis_starts_from_a_log_of_kvref(preamble: str, machine: Real) -> None:
    machine.start(**DIRECTIVES, aof_use_rdb_preamble=preamble)
    alice, bob = machine.connect(), machine.connect()

    def wait(line: str) -> None:
        bob.send(*line.split())
        machine.settle()
    work(alice, wait, lambda: (alice("BGREWRITEAOF"), child_ends(machine))[1], seed=1)
    digest = machine.connect()("DEBUG", "DIGEST")
    assert machine.server.aof.rewrites == 1 and len(parts(machine)) == 3
    checked = subprocess.run(["redis-check-aof", f"{machine.directory}/appendonlydir/appendonly.aof.manifest"],
                             capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout[-300:]
    with record.RedisServer({"appendonly": "yes", "enable-debug-command": "yes", "dir": str(machine.directory)}) as server:
        peer = Redis(server)
        while info(peer)["loading"] != "0":
            pass
        assert peer("DEBUG", "DIGEST") == digest.decode() if isinstance(digest, bytes) else digest


@pytest.mark.parametrize("preamble", ["yes", "no"])
def test_kvref_starts_from_a_log_of_redis(preamble: str, machine: Real) -> None:
    machine.start()
    with real_server(**DIRECTIVES, aof_use_rdb_preamble=preamble, auto_aof_rewrite_percentage="0") as server:
        alice, bob = Redis(server), record.SocketPeer(server.port)

        def ask(*words: bytes) -> Any:
            alice.peer.send_bytes(golden.request(*words))
            return alice.reply()

        def wait(line: str) -> None:
            bob.send_bytes(line.encode() + b"\r\n")
            until = time.monotonic() + 5
            while info(alice, "clients")["blocked_clients"] != "1" and time.monotonic() < until:
                pass

        def rewrite() -> None:
            ask(b"BGREWRITEAOF")
            while info(alice)["aof_rewrite_in_progress"] == "1":
                pass
        work(ask, wait, rewrite, seed=2)
        digest = alice("DEBUG", "DIGEST")
        shutil.copytree(f"{server.directory}/appendonlydir", machine.directory / "appendonlydir")
    restart(machine, **DIRECTIVES)
    assert machine.connect()("DEBUG", "DIGEST") == digest
