"""Bytes for a small key: resident memory before and after a million of them, `key:000000000001` with 8 to 16 bytes."""

from __future__ import annotations

from argparse import Namespace

from .report import Rounds, Target, progress, table
from .servers import CannotRun, Server, kvref, redis, running

KEYS, BATCH = 1_000_000, 1_000
TARGET = Target("≤", 160, reach=140)


def measure(options: Namespace) -> str:
    each = Rounds()
    kinds = (redis(), kvref(options.server))
    for number in range(options.rounds):
        for kind in kinds:
            progress(f"memory: round {number + 1} of {options.rounds}, {KEYS:,} keys, {kind.name}")
            with running(kind) as server:
                before = server.resident_bytes()
                fill(server)
                each.add(kind.name, (server.resident_bytes() - before) / KEYS)
    return (f"Memory: {KEYS:,} keys of 16 bytes, values of 8 to 16; medians of {options.rounds} rounds.\n\n"
            + table(("server", "bytes a key", "× Redis", "target"), [row(kind.name, each) for kind in kinds]))


def fill(server: Server) -> None:
    with server.connect() as sock:
        for first in range(0, KEYS, BATCH):
            sock.sendall(b"".join(map(set_command, range(first, first + BATCH))))
            missing = BATCH * len(b"+OK\r\n")
            while missing:
                replies = sock.recv(missing)
                if not replies or b"-" in replies:
                    raise CannotRun(f"{server.name} refused a SET: {replies[:100].decode(errors='replace')!r}")
                missing -= len(replies)


def set_command(number: int) -> bytes:
    size = 8 + number % 9
    return b"*3\r\n$3\r\nSET\r\n$16\r\nkey:%012d\r\n$%d\r\n%0*d\r\n" % (number, size, size, number)


def row(server: str, each: Rounds) -> list[str]:
    figure = each.median(server)
    return [server, f"{figure:.0f}", f"{each.ratio(server):.2f}", TARGET.verdict(server, figure)]
