"""The append-only file: what each policy costs, and how fast a log is executed again.

SET of redis-benchmark with 50 clients, each server with and without its log, all in turns. The files are in one folder for
both servers, on whatever disk the temporary directory has: `always` measures that disk first of all. Where its fsync costs next to
nothing, `--fsync-us 800` makes each one 800 µs dearer, for both servers in the same way: strace holds back the return of the
call, and of no other.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from argparse import Namespace
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

from kvref.persistence.replay import record

from .commands import drive
from .report import Rounds, Target, progress, table
from .servers import CannotRun, Kind, kvref, redis, running

COMMANDS = 1_000_000
KEYS = {"each key once": COMMANDS, "each key ten times": COMMANDS // 10}        # what a log may be of
ALWAYS, EVERYSEC, REPLAY = Target("≥", 0.9, reach=1.0), Target("≥", 0.9, reach=1.0), Target("≥", 0.85, reach=1.0)
POLICIES = ("off", "everysec", "always")
LOADED = re.compile(r"DB loaded from append only file: ([\d.]+) seconds")


def measure(options: Namespace) -> str:
    kinds, held_back = (redis(), kvref(options.server)), slow_fsync(options.fsync_us)
    rates: dict[tuple[str, int], Rounds] = defaultdict(Rounds)
    own: dict[tuple[str, int], Rounds] = defaultdict(Rounds)
    replay = {what: Rounds() for what in KEYS}
    for number in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            servers = {}
            for kind in kinds:
                for policy in POLICIES:
                    place = Path(folder) / f"{kind.name}-{policy}"
                    place.mkdir()
                    log = ["--dir", str(place), "--appendonly", "no" if policy == "off" else "yes",
                           "--appendfsync", "everysec" if policy == "off" else policy]
                    command = [*held_back, *kind.command, *log]
                    servers[kind.name, policy] = stack.enter_context(running(Kind(kind.name, command)))
            for depth in options.pipeline:
                found = {}
                for (name, policy), server in servers.items():
                    progress(f"log: round {number + 1} of {options.rounds}, P{depth}, {name} {policy}")
                    total = options.requests // (4 if policy == "always" else 1) * (1 if depth == 1 else 4)
                    found[name, policy] = drive(server, "SET", depth, total, options.keys)
                    rates[policy, depth].add(name, found[name, policy])
                for name, policy in found:
                    own[policy, depth].add(name, found[name, policy] / found[name, "off"])
            for what, keys in KEYS.items():
                for kind in kinds:
                    progress(f"log: round {number + 1} of {options.rounds}, {kind.name} executes a log, {what}")
                    replay[what].add(kind.name, COMMANDS / executed(kind, Path(folder) / f"{kind.name}-{keys}", keys))
    rows = [[policy, str(depth), kind.name, f"{rates[policy, depth].median(kind.name):,.0f}",
             rates[policy, depth].spread(kind.name), f"{own[policy, depth].median(kind.name):.2f}",
             verdict(policy, depth, kind.name, rates[policy, depth], own[policy, depth])]
            for depth in options.pipeline for policy in POLICIES for kind in kinds]
    again = [[what, kind.name, f"{rates.median(kind.name):,.0f}", rates.spread(kind.name),
              REPLAY.verdict(kind.name, rates.ratio(kind.name))] for what, rates in replay.items() for kind in kinds]
    dearer = f", each fsync {options.fsync_us} µs dearer" if held_back else ""
    return (f"The log: SET, 50 clients{dearer}; medians of {options.rounds} rounds.\n\n"
            + table(("log", "pipeline", "server", "requests/s", "× Redis", "× its own without", "target"), rows)
            + f"\n\nExecuting a log of {COMMANDS:,} SETs.\n\n"
            + table(("log", "server", "commands/s", "× Redis", "target"), again))


def slow_fsync(us: int) -> list[str]:
    """What stands before a command so that each of its fsyncs takes so many µs longer; the process is still its own."""
    if us and not shutil.which("strace"):
        raise CannotRun("--fsync-us needs strace (Debian: apt install strace).")
    calls = "fsync,fdatasync"
    return ["strace", "-D", "-f", "--seccomp-bpf", "-qq", "-o", os.devnull,
            "-e", f"trace={calls}", "-e", f"inject={calls}:delay_exit={us}"] if us else []


def verdict(policy: str, depth: int, name: str, rate: Rounds, own: Rounds) -> str:
    if policy == "always":
        return ALWAYS.verdict(name, rate.ratio(name))
    return EVERYSEC.verdict(name, own.median(name)) if (policy, depth) == ("everysec", 1) else ""


def executed(kind: Kind, place: Path, keys: int) -> float:
    """Seconds that a server says it took for a log of so many keys."""
    folder = place / "appendonlydir"
    folder.mkdir(parents=True)
    (folder / "appendonly.aof.manifest").write_bytes(b"file appendonly.aof.1.incr.aof seq 1 type i\n")
    with (folder / "appendonly.aof.1.incr.aof").open("wb") as file:
        file.write(record((b"SELECT", b"0")))
        for start in range(0, COMMANDS, 10_000):
            file.write(b"".join(record((b"SET", b"key:%012d" % (n * 7919 % keys), b"value:%06d" % n))
                                for n in range(start, start + 10_000)))
    said = place / "log"
    command = [*kind.command, "--dir", str(place), "--appendonly", "yes", "--logfile", str(said)]
    with running(Kind(kind.name, command)):
        while not (found := LOADED.search(said.read_text())):
            time.sleep(0.05)
    return float(found[1])
