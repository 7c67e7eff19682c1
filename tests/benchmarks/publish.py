"""What a message to 1,000 subscribers costs: from the first PUBLISH until the last subscriber has the last message.

One connection publishes, one message after the other, each when the one before has been counted. The subscribers are read
by this process, as fast as it can; that costs the same for both servers. So the processor time of the server says more.
"""

from __future__ import annotations

import select
import socket
import time
from argparse import Namespace
from contextlib import ExitStack

from .report import Rounds, Target, progress, table
from .servers import Server, kvref, redis, running

SUBSCRIBERS, MESSAGES = 1000, 50
SUBSCRIBE = b"SUBSCRIBE news\r\n"
PUBLISH = b"*3\r\n$7\r\nPUBLISH\r\n$4\r\nnews\r\n$64\r\n" + b"x" * 64 + b"\r\n"
MESSAGE = b"*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$64\r\n" + b"x" * 64 + b"\r\n"
SPEED = Target("≥", 0.4, reach=0.7)


def measure(options: Namespace) -> str:
    speed, cpu = Rounds(), Rounds()
    kinds = (redis(), kvref(options.server))
    for number in range(options.rounds):
        for kind in kinds:
            progress(f"publish: round {number + 1} of {options.rounds}, {kind.name}")
            with running(kind) as server:
                seconds, cpu_us = one_round(server)
            speed.add(kind.name, MESSAGES / seconds)
            cpu.add(kind.name, cpu_us / MESSAGES / SUBSCRIBERS)
    rows = [[kind.name, f"{speed.median(kind.name):.0f}", speed.spread(kind.name),
             SPEED.verdict(kind.name, speed.ratio(kind.name)), f"{cpu.median(kind.name):.2f}", cpu.spread(kind.name)]
            for kind in kinds]
    return (f"PUBLISH: {MESSAGES} messages to {SUBSCRIBERS:,} subscribers; medians of {options.rounds} rounds.\n\n"
            + table(("server", "messages/s", "× Redis", "target", "CPU µs a delivery", "× Redis"), rows))


def one_round(server: Server) -> tuple[float, float]:
    """Seconds, and microseconds of the server's processor."""
    with ExitStack() as stack:
        subscribers = [stack.enter_context(server.connect()) for _ in range(SUBSCRIBERS)]
        for sock in subscribers:
            sock.sendall(SUBSCRIBE)
            sock.recv(1000)
        publisher = stack.enter_context(server.connect())
        poll = stack.enter_context(select.epoll())
        for sock in (*subscribers, publisher):
            poll.register(sock.fileno(), select.EPOLLIN)
        cpu_before, start = server.cpu_us(), time.perf_counter()
        drain({sock.fileno(): sock for sock in subscribers}, publisher, poll)
        return time.perf_counter() - start, server.cpu_us() - cpu_before


def drain(subscribers: dict[int, socket.socket], publisher: socket.socket, poll: select.epoll) -> None:
    """Publish and read until everybody has everything."""
    missing, published = len(MESSAGE) * MESSAGES * len(subscribers), 1
    publisher.sendall(PUBLISH)
    while missing:
        for number, _ in poll.poll(10):
            if number in subscribers:
                missing -= len(subscribers[number].recv(65_536))
            else:
                publisher.recv(100)
                if published < MESSAGES:
                    published += 1
                    publisher.sendall(PUBLISH)
