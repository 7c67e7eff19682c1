"""Requests per second and processor time per command, driven by redis-benchmark with 50 clients.

redis-benchmark takes a processor of its own. In deep pipelines it is itself the limit, and requests per second flatter
the slower server; processor time per command does not, and is the robust figure.
"""

from __future__ import annotations

import csv
import subprocess
from argparse import Namespace
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack

from .report import Rounds, Target, progress, table
from .servers import CannotRun, Kind, Server, floor, kvref, redis, running

RATE = {1: Target("≥", 0.85, reach=1.0), 16: Target("≥", 0.55, reach=0.70)}     # by depth of the pipeline
CPU = {16: Target("≤", 2.0, reach=1.6)}
JUDGED = ("SET", "GET")
HEAD = ("command", "pipeline", "server", "requests/s", "× Redis", "target", "CPU µs", "× Redis", "target")
# As -t lrange_100, which would push as many elements before as it makes requests
LRANGES = {f"LRANGE_{count}": f"lrange mylist 0 {count - 1}" for count in (100, 300, 500, 600)}
Case = tuple[str, int]          # test, depth of the pipeline
Figures = dict[Case, Rounds]


def measure(options: Namespace) -> str:
    kinds = (redis(), floor(), kvref(options.server))
    cases = [(name, depth) for depth in options.pipeline for name in options.test]
    rates, costs = in_turns(options, kinds, cases)
    return (f"Commands: 50 clients, {conditions(options)}.\n\n"
            + table(HEAD, [row(*case, kind.name, rates[case], costs[case]) for case in cases for kind in kinds]))


def conditions(options: Namespace) -> str:
    keys = f"{options.keys} random keys" if options.keys else "one key, as redis-benchmark does by itself"
    return (f"{options.requests} requests (in a pipeline 4 × as many), {keys}; "
            f"medians of {options.rounds} rounds (least–greatest)")


def in_turns(options: Namespace, kinds: Sequence[Kind], cases: Sequence[Case]) -> tuple[Figures, Figures]:
    """Requests per second, and processor time of a request in µs."""
    rates: Figures = defaultdict(Rounds)
    costs: Figures = defaultdict(Rounds)
    for number in range(options.rounds):
        with ExitStack() as stack:
            servers = [stack.enter_context(running(kind)) for kind in kinds]
            for server in servers:
                drive(server, "SET", 1, 1000, options.keys)                     # so that GET finds something
            for name, depth in cases:
                total = options.requests * (1 if depth == 1 else 4) // (20 if name in LRANGES else 1)
                for server in servers:
                    progress(f"commands: round {number + 1} of {options.rounds}, {name} P{depth}, {server.name}")
                    before = server.cpu_us()
                    rates[name, depth].add(server.name, drive(server, name, depth, total, options.keys))
                    costs[name, depth].add(server.name, (server.cpu_us() - before) / total)
    return rates, costs


def drive(server: Server, name: str, depth: int, requests: int, keys: int) -> float:
    """One test of redis-benchmark; returns requests per second."""
    test = LRANGES.get(name) or ("-t ping_mbulk" if name == "PING" else f"-t {name.lower()}")
    random = f" -r {keys}" if keys else ""
    command = f"redis-benchmark -q --csv -c 50 -p {server.port} -P {depth} -n {requests}{random} {test}"
    done = subprocess.run(command.split(), capture_output=True, text=True)
    lines = list(csv.reader(done.stdout.splitlines()))
    if done.returncode or len(lines) != 2:
        said = (done.stderr or done.stdout).strip().rpartition("\n")[2]
        raise CannotRun(f"`{command}` gave no figure for {server.name}: {said or 'no such test?'}")
    return float(lines[1][1])


def row(name: str, depth: int, server: str, rate: Rounds, cost: Rounds) -> list[str]:
    cells = [name, str(depth), server]
    for figures, form, targets in ((rate, ",.0f", RATE), (cost, ".2f", CPU)):
        verdict = targets[depth].verdict(server, figures.ratio(server)) if depth in targets and name in JUDGED else ""
        cells += [format(figures.median(server), form), figures.spread(server), verdict]
    return cells
