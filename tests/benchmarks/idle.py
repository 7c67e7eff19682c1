"""What 10,000 connections that do nothing cost: memory of the server, and time of the one client that is active.

What the kernel keeps for a socket is the same for every server and not counted. Memory is read twice: when the
connections have been opened and nothing more, and after each has sent one PING and fallen silent. For the latency a
second server, without idle connections, is asked in turns with the crowded one: what disturbs both cancels out.
"""

from __future__ import annotations

import resource
import socket
import time
from argparse import Namespace
from contextlib import ExitStack
from statistics import median

from .report import Rounds, Target, progress, table
from .servers import Server, kvref, ping, redis, running

CONNECTIONS = 10_000
ROUND_TRIPS, SLICES = 300, 20
RESERVED = 100                  # file descriptors that client and server need for other things
BATCH = 100                     # less than any backlog: no SYN is lost and sent again
MEMORY, LATENCY = Target("≤", 500, reach=400), Target("≤", 1.2, reach=1.0)
HEAD = ("server", "bytes each", "target", "after one PING each", "PING alone, µs", "among idle", "ratio", "target")


def measure(options: Namespace) -> str:
    count = connections_allowed()
    columns = [Rounds() for _ in range(5)]
    kinds = (redis(), kvref(options.server))
    for number in range(options.rounds):
        for kind in kinds:
            progress(f"idle: round {number + 1} of {options.rounds}, {count} connections, {kind.name}")
            with running(kind) as crowded, running(kind) as empty:
                for column, figure in zip(columns, one_round(crowded, empty, count)):
                    column.add(kind.name, figure)
    limited = " (RLIMIT_NOFILE allows no more)" if count < CONNECTIONS else ""
    return (f"Idle connections: {count:,}{limited}; the active client's median of {SLICES} × {ROUND_TRIPS} "
            f"round trips; medians of {options.rounds} rounds.\n\n"
            + table(HEAD, [row(kind.name, [column.median(kind.name) for column in columns]) for kind in kinds]))


def one_round(crowded: Server, empty: Server, count: int) -> tuple[float, ...]:
    with ExitStack() as stack:
        actives = [stack.enter_context(server.connect()) for server in (empty, crowded)]
        before = crowded.resident_bytes()
        idle: list[socket.socket] = []
        for first in range(0, count, BATCH):
            idle += [stack.enter_context(crowded.connect()) for _ in range(min(BATCH, count - first))]
            ping(idle[-1])                                      # answered, so it and those before it are accepted
        opened = crowded.resident_bytes()
        slices = [[round_trip_us(active) for active in actives] for _ in range(SLICES)]
        for sock in idle:
            ping(sock)
        spoken = crowded.resident_bytes()
    alone, among = map(median, zip(*slices))
    return (opened - before) / count, (spoken - before) / count, alone, among, median(b / a for a, b in slices)


def round_trip_us(sock: socket.socket) -> float:
    times = []
    for _ in range(ROUND_TRIPS):
        start = time.perf_counter()
        ping(sock)
        times.append((time.perf_counter() - start) * 1e6)
    return median(times)


def row(server: str, figures: list[float]) -> list[str]:
    opened, spoken, alone, among, ratio = figures
    return [server, f"{opened:.0f}", MEMORY.verdict(server, opened), f"{spoken:.0f}", f"{alone:.1f}", f"{among:.1f}",
            f"{ratio:.2f}", LATENCY.verdict(server, ratio)]


def connections_allowed() -> int:
    """Raises the soft limit as far as needed; the servers, started later, inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = CONNECTIONS + RESERVED if hard == resource.RLIM_INFINITY else min(hard, CONNECTIONS + RESERVED)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return limit - RESERVED
