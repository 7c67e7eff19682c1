"""Hostile bytes neither stop the server nor make it grow, and are answered as redis-server answers them."""

from __future__ import annotations

import contextlib
import random
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kvref
from tests import record
from tests.golden import request

GROWTH_KB = 100 * 1024
NOISE = random.Random(2026)

# What is sent, and what redis-server 7.0.15 answers before it closes.
ANSWERED = {
    "a bulk of 600 MB": (b"*2\r\n$3\r\nGET\r\n$629145600\r\n", b"-ERR Protocol error: invalid bulk length\r\n"),
    "a negative bulk": (b"*1\r\n$-5\r\n", b"-ERR Protocol error: invalid bulk length\r\n"),
    "a bulk length beyond 64 bits": (b"*1\r\n$99999999999999999999\r\n", b"-ERR Protocol error: invalid bulk length\r\n"),
    "a bulk length with a sign": (b"*1\r\n$+4\r\nPING\r\n", b"-ERR Protocol error: invalid bulk length\r\n"),
    "a bulk length with a zero": (b"*1\r\n$04\r\nPING\r\n", b"-ERR Protocol error: invalid bulk length\r\n"),
    "an empty bulk length": (b"*1\r\n$\r\nPING\r\n", b"-ERR Protocol error: invalid bulk length\r\n"),
    "an empty count": (b"*\r\n", b"-ERR Protocol error: invalid multibulk length\r\n"),
    "a count of 600 million": (b"*2147483648\r\n", b"-ERR Protocol error: invalid multibulk length\r\n"),
    "a count that is no number": (b"*x\r\n", b"-ERR Protocol error: invalid multibulk length\r\n"),
    "a count with a blank": (b"* 1\r\n", b"-ERR Protocol error: invalid multibulk length\r\n"),
    "a negative count": (b"*-1\r\nPING\r\n", b"+PONG\r\n"),
    "a very negative count": (b"*-2000000000\r\nPING\r\n", b"+PONG\r\n"),
    "a count of nothing": (b"*0\r\nPING\r\n", b"+PONG\r\n"),
    "no dollar": (b"*2\r\n$4\r\nECHO\r\nhello\r\n", b"-ERR Protocol error: expected '$', got 'h'\r\n"),
    "an array in an array": (b"*1\r\n*1\r\n$4\r\nPING\r\n", b"-ERR Protocol error: expected '$', got '*'\r\n"),
    "a byte beyond ASCII for a dollar": (b"*1\r\n\xff4\r\n", b"-ERR Protocol error: expected '$', got '\xff'\r\n"),
    "an open quote": (b"GET \"k\r\n", b"-ERR Protocol error: unbalanced quotes in request\r\n"),
    "text behind a quote": (b"GET 'k'x\r\n", b"-ERR Protocol error: unbalanced quotes in request\r\n"),
    "an endless line": (b"a" * 66_000, b"-ERR Protocol error: too big inline request\r\n"),
    "an endless count": (b"*" + b"1" * 66_000, b"-ERR Protocol error: too big mbulk count string\r\n"),
    "an endless bulk length": (b"*1\r\n$" + b"1" * 66_000, b"-ERR Protocol error: too big bulk count string\r\n"),
    "a wrong end of a bulk": (b"*1\r\n$4\r\nPINGxxPING\r\n", b"+PONG\r\n+PONG\r\n"),
    "a wrong end of a count": (b"*1\rx$4\r\nPING\r\n", b"+PONG\r\n"),
    "blank lines": (b"\r\n\n \r\n\t\nPING\r\n", b"+PONG\r\n"),
    "an HTTP request": (b"GET / HTTP/1.1\r\n\r\n", b"-ERR wrong number of arguments for 'get' command\r\n"),
    "an unknown command": (request("x" * 200, "a\r\nb", b"\xff" * 200),
                           b"-ERR unknown command '" + b"x" * 128 + b"', with args beginning with: 'a  b' '"
                           + b"\xff" * 121 + b"' \r\n"),
}
# What is waited for, so that nothing is answered when the stranger hangs up.
AWAITED = {
    "a bulk of 500 MB": b"*2\r\n$3\r\nGET\r\n$524288000\r\n" + b"x" * 1000,
    "2 thousand million arguments": b"*2147483647\r\n",
    "half a number": b"*1\r\n$10",
    "half of a line end": b"*1\r\n\r",
    "half of a line end after an argument": b"*2\r\n$4\r\nECHO\r\nx\r",
    "a NUL byte that hides the line": b"PI\0NG\r\n",
    "nothing": b"",
}


def exchange(port: int, data: bytes) -> bytes:
    """Send, hang up half-way, and read until the server closes."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        with contextlib.suppress(OSError):              # the server may have had enough before the end
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while part := sock.recv(1 << 16):
                answer += part
    return answer


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    with kvref.running() as server:
        yield server


def peak_kb(pid: int) -> int:
    """The largest resident size that the process ever had."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


@pytest.fixture
def port(server: Any) -> Iterator[int]:
    """The server's port; afterwards the server must still serve, and must not have grown."""
    linux = sys.platform == "linux"
    before = peak_kb(server.pid) if linux else 0
    yield server.port
    assert exchange(server.port, b"PING\r\n") == b"+PONG\r\n"
    if linux:
        assert peak_kb(server.pid) - before < GROWTH_KB


@pytest.mark.parametrize("name", ANSWERED)
def test_answers(name: str, port: int) -> None:
    sent, answer = ANSWERED[name]
    assert exchange(port, sent) == answer


@pytest.mark.parametrize("name", ANSWERED)
def test_answers_are_redis_servers(name: str, redis_server: record.RedisServer) -> None:
    sent, answer = ANSWERED[name]
    assert exchange(redis_server.port, sent) == answer


@pytest.mark.parametrize("name", AWAITED)
def test_awaits(name: str, port: int) -> None:
    assert exchange(port, AWAITED[name]) == b""


@pytest.mark.parametrize("name", AWAITED)
def test_awaits_as_redis_server_does(name: str, redis_server: record.RedisServer) -> None:
    assert exchange(redis_server.port, AWAITED[name]) == b""


def test_binary_noise(port: int) -> None:
    for size in (1, 10, 100, 1000, 10_000, 100_000):
        for _ in range(10):
            exchange(port, NOISE.randbytes(size))


def test_a_flood_without_a_line_end(port: int) -> None:
    exchange(port, b"\x01" * (64 << 20))


def test_many_arguments(port: int) -> None:
    count = 200_000
    sent = b"*%d\r\n" % (count + 1) + b"$6\r\nEXISTS\r\n" + b"$2\r\nab\r\n" * count
    assert exchange(port, sent) == b":0\r\n"


def test_a_million_empty_requests(port: int) -> None:
    assert exchange(port, b"*0\r\n" * 300_000 + b"\r\n" * 100_000 + b"PING\r\n") == b"+PONG\r\n"


def test_deep_nonsense(port: int) -> None:
    assert exchange(port, b"*1\r\n" * 100_000).startswith(b"-ERR Protocol error: expected '$', got '*'")


def test_many_that_announce_much_and_stay(port: int) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
            sock.sendall(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$500000000\r\n" + b"x" * 10_000)
        assert exchange(port, b"PING\r\n") == b"+PONG\r\n"


def test_many_that_come_and_go(port: int) -> None:
    for n in range(300):
        sock = socket.create_connection(("127.0.0.1", port), timeout=20)
        sock.sendall(b"*1\r\n$4\r\nPI"[:n % 12])
        if n % 3 == 0:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        sock.close()


def test_replies_that_nobody_reads(port: int) -> None:
    """80 MB of replies are owed to somebody who never reads, and then resets."""
    exchange(port, request("SET", "big", b"x" * 100_000))
    sock = socket.create_connection(("127.0.0.1", port), timeout=20)
    sock.sendall(request("GET", "big") * 800)
    assert exchange(port, b"PING\r\n") == b"+PONG\r\n"
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    sock.close()
    exchange(port, b"FLUSHALL\r\n")


PIECES = st.sampled_from([
    b"*", b"$", b"1", b"2", b"4", b"0", b"-", b"-1", b"\r\n", b"\r\n", b"\n", b"\r", b"PING", b"ECHO", b"echo", b" ",
    b"\t", b'"', b"'", b"\\", b"\\x41", b"\0", b"\xff", b"\x85", b"\xa0", b"*1\r\n$4\r\nPING\r\n", b"*2\r\n$4\r\nECHO\r\n", b"$2\r\nab\r\n",
    b"*0\r\n", b"*3\r\n", b"$0\r\n\r\n"])


@settings(max_examples=300)
@given(st.binary(max_size=2000))
def test_random_bytes(server: Any, noise: bytes) -> None:
    exchange(server.port, noise)
    assert exchange(server.port, b"PING\r\n") == b"+PONG\r\n"


@settings(max_examples=300)
@given(st.lists(PIECES, max_size=25).map(b"".join))
def test_nonsense_is_answered_as_redis_server_answers_it(server: Any, redis_server: record.RedisServer,
                                                         noise: bytes) -> None:
    assert exchange(server.port, noise) == exchange(redis_server.port, noise)
