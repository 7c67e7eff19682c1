"""Saving and loading a million small keys, and how long the loop stands still while a child saves.

Both servers start from the same dump.rdb and say in their log how long that took. SAVE is timed by its client. During
BGSAVE one client sends PING after PING; the longest wait is the stall.
"""

from __future__ import annotations

import re
import tempfile
import time
from argparse import Namespace
from pathlib import Path

from kvref.persistence import rdb

from .report import Rounds, Target, progress, table
from .servers import Kind, Server, kvref, ping, redis, running

KEYS = 1_000_000
SAVE, LOAD, STALL = Target("≥", 1.5, reach=1.8), Target("≥", 0.9, reach=1.5), Target("≤", 65, reach=20)
LOADED = re.compile(r"DB loaded from disk: ([\d.]+) seconds")


def measure(options: Namespace) -> str:
    save, load, stall = Rounds(), Rounds(), Rounds()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dump.rdb"
        progress("snapshots: making a dump")
        rdb.dump(str(path), ((0, b"key:%012d" % n, b"value:%06d" % (n * 7919 % 1_000_003), None) for n in range(KEYS)))
        for number in range(options.rounds):
            for kind in (redis(), kvref(options.server)):
                progress(f"snapshots: round {number + 1} of {options.rounds}, {kind.name}")
                log = Path(folder) / f"{kind.name}.log"
                log.unlink(missing_ok=True)
                command = [*kind.command, "--dir", folder, "--logfile", str(log), "--enable-debug-command", "yes"]
                with running(Kind(kind.name, command)) as server:
                    found = wait_loaded(server, log)
                    load.add(kind.name, KEYS / found / 1e6)
                    save.add(kind.name, KEYS / ask(server, b"SAVE") / 1e6)
                    stall.add(kind.name, longest_wait(server) * 1000)
    rows = [[kind.name, f"{save.median(kind.name):.2f}", save.spread(kind.name), SAVE.verdict(kind.name, save.median(kind.name)),
             f"{load.median(kind.name):.2f}", load.spread(kind.name), LOAD.verdict(kind.name, load.median(kind.name)),
             f"{stall.median(kind.name):.1f}", STALL.verdict(kind.name, stall.median(kind.name))]
            for kind in (redis(), kvref(options.server))]
    return (f"Snapshots of {KEYS:,} small keys, with checksum; medians of {options.rounds} rounds.\n\n" + table(
        ("server", "save, M keys/s", "× Redis", "target", "load, M keys/s", "× Redis", "target", "stall, ms", "target"),
        rows))


def wait_loaded(server: Server, log: Path) -> float:
    """Seconds that the server says it took."""
    while not (found := LOADED.search(log.read_text())):
        time.sleep(0.05)
    return float(found[1])


def ask(server: Server, *words: bytes) -> float:
    """Seconds until the reply."""
    with server.connect() as sock:
        sock.settimeout(60)
        start = time.perf_counter()
        sock.sendall(b" ".join(words) + b"\r\n")
        if not sock.recv(64).startswith(b"+"):
            raise OSError(f"{server.name} does not do {words!r}")
        return time.perf_counter() - start


def longest_wait(server: Server) -> float:
    """Seconds, of all PINGs from before the fork until the child has ended."""
    longest = 0.0
    with server.connect() as sock, server.connect() as other:
        ping(sock)
        other.sendall(b"BGSAVE\r\n")
        end = time.perf_counter() + 1.5
        while (start := time.perf_counter()) < end:
            ping(sock)
            longest = max(longest, time.perf_counter() - start)
    return longest
