"""Requests per second and processor time for the commands of lists, hashes, sets and sorted sets.

The tests are redis-benchmark's, in its own order: the list that LPUSH and RPUSH fill is the one that LRANGE reads. What
counts is the geometric mean of the ratios; the four LRANGEs count as one test.
"""

from __future__ import annotations

from argparse import Namespace
from statistics import geometric_mean

from .commands import LRANGES, Figures, conditions, in_turns
from .report import Target, table
from .servers import kvref, redis

TESTS = ("LPUSH", "RPUSH", "LPOP", "SADD", "HSET", "SPOP", "ZADD", "ZPOPMIN", *LRANGES, "MSET")
RATE = {1: Target("≥", 0.8, reach=1.0), 16: Target("≥", 0.5, reach=0.7)}     # of the mean, by depth
HEAD = ("command", "pipeline", "redis-server, requests/s", "kvref", "× Redis", "CPU × Redis")


def measure(options: Namespace) -> str:
    cases = [(name, depth) for depth in options.pipeline for name in TESTS]
    rates, costs = in_turns(options, (redis(), kvref(options.server)), cases)
    rows = [[name, str(depth), *(f"{rates[name, depth].median(server):,.0f}" for server in ("redis-server", "kvref")),
             rates[name, depth].spread("kvref"), costs[name, depth].spread("kvref")] for name, depth in cases]
    for depth in options.pipeline:
        ratio = mean(rates, depth)
        verdict = RATE[depth].verdict("kvref", ratio) if depth in RATE else ""
        rows.append(["geometric mean", str(depth), "", "", f"{ratio:.2f} {verdict}", f"{mean(costs, depth):.2f}"])
    return (f"Types: 50 clients, {conditions(options)}; LRANGE with a twentieth of the requests.\n\n"
            + table(HEAD, rows))


def mean(figures: Figures, depth: int) -> float:
    """The geometric mean of kvref's ratios to Redis."""
    ratios = {name: figures[name, depth].ratio("kvref") for name in TESTS}
    ranges = geometric_mean([ratios.pop(name) for name in LRANGES])
    return geometric_mean([*ratios.values(), ranges])
