"""kvref.lab.cli prints replies, and reads command lines, as redis-cli does."""

from __future__ import annotations

import random
import socket
import subprocess
import threading
from typing import Any

import pytest

from kvref.lab.cli import format_reply, quote, split_args
from kvref.resp import Error, Pairs, Push, Verbatim, encode
from kvref.sampling import Members
from tests import golden, record

PRINTED = [
    (1, "(integer) 1"),
    (-2**63, "(integer) -9223372036854775808"),
    (b'a "b" \\ \n\r\t\a\b\x00\xff~', r'"a \"b\" \\ \n\r\t\a\b\x00\xff~"'),
    (b"", '""'),
    ("OK", "OK"),
    (None, "(nil)"),
    (True, "(true)"),
    (False, "(false)"),
    (3.25, "(double) 3.25"),
    (1e300, "(double) 1.0000000000000001e+300"),
    (float("inf"), "(double) inf"),
    (float("-inf"), "(double) -inf"),
    (Error("WRONGTYPE Operation"), "(error) WRONGTYPE Operation"),
    (Verbatim(b"two\nlines"), "two\nlines"),
    ([], "(empty array)"),
    ({}, "(empty hash)"),
    (Members(), "(empty set)"),
    (Push(), "(empty push)"),
    ([b"a", 1, None], '1) "a"\n2) (integer) 1\n3) (nil)'),
    ({b"k": b"v", b"l": [1, 2]}, '1# "k" => "v"\n2# "l" => \n   1) (integer) 1\n   2) (integer) 2'),
    (Members({b"m": None}), '1~ "m"'),
    (Push([b"message", b"c"]), '1) "message"\n2) "c"'),
    ([[1, [2, 3]], [], [b"x"] * 10],
     "1) 1) (integer) 1\n   2) 1) (integer) 2\n      2) (integer) 3\n2) (empty array)\n3)  1) \"x\"\n"
     + "".join(f'   {n:2d}) "x"\n' for n in range(2, 11)).rstrip()),
    ([{b"k": {b"a": 1, b"b": 2}}, 5], '1) 1# "k" => \n      1# "a" => (integer) 1\n      2# "b" => (integer) 2\n2) (integer) 5'),
]
LINES = [b"GET k", b'SET k "a b"', b"SET k 'it\\'s'", rb'SET k "\x41\n\r\t\b\a\"\\\q\xzz"', b'SET "" \'\'', b"  a\t b  ",
         b'a"b"', b'a"b"\'c\'', b"'a\\nb'", b'"\\x0"', 'SET k "gr\u00fcn"'.encode(), b'p"q r" s']


@pytest.mark.parametrize(("value", "text"), PRINTED, ids=[str(n) for n in range(len(PRINTED))])
def test_a_reply_is_printed_as_redis_cli_prints_it(value: Any, text: str) -> None:
    assert format_reply(value) == text


def test_pairs_are_nested_as_in_resp3() -> None:
    assert format_reply(Pairs([(b"m", 1.5)])) == '1) 1) "m"\n   2) (double) 1.5'


def test_the_words_of_a_line_keep_redis_clis_quoting() -> None:
    assert split_args(r'SET "a b" "\x00\xfF\n\q" ' + r"'it\'s \n' plain") == [
        b"SET", b"a b", b"\x00\xff\nq", b"it's \\n", b"plain"]
    assert split_args("") == split_args("  \t ") == []


@pytest.mark.parametrize("line", ['"open', "'open", '"a"b', "'a'b", '"\\'])
def test_unbalanced_quotes_are_refused(line: str) -> None:
    with pytest.raises(ValueError, match="quote"):
        split_args(line)


def test_quote_and_split_args_are_inverse() -> None:
    every = bytes(range(256))
    assert split_args(quote(every)) == [every]


class Scripted:
    """A server that gives prepared replies, one for each request, and keeps the requests."""

    def __init__(self, replies: list[bytes]) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.replies = replies
        self.requests: list[list[bytes]] = []
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self) -> None:
        with self.listener, self.listener.accept()[0] as sock:
            data = b""
            while more := sock.recv(1 << 16):
                found, data = golden.replies(data + more)       # requests are arrays of bulk strings
                for request in found:
                    self.requests.append(request)
                    sock.sendall(self.replies[len(self.requests) - 1])


def redis_cli(replies: list[bytes], lines: list[bytes]) -> tuple[str, list[list[bytes]]]:
    """What redis-cli prints in a terminal when these lines are answered so, and the requests it sent."""
    server = Scripted([encode([]), *replies])               # it asks for COMMAND DOCS first
    ran = subprocess.run(["redis-cli", "--no-raw", "-p", str(server.port)], input=b"\n".join(lines) + b"\n",
                         capture_output=True, timeout=30)
    server.thread.join(30)
    return ran.stdout.decode(), server.requests[1:]


def wild(random: random.Random, depth: int = 3) -> Any:
    """Some reply that RESP3 can carry."""
    scalars = [Verbatim(b"a\nb"), Verbatim(b"a"), None, True, False, 7, -1, 1.5, b"", b"bulk\r\n\x80", "status"]
    if depth == 0 or random.random() < 0.4:
        return random.choice(scalars)
    items = [wild(random, depth - 1) for _ in range(random.choice([0, 1, 2, 3, 11]))]
    keys = {b"k%d" % n: item for n, item in enumerate(items)}
    return random.choice([items, keys, Members.fromkeys(keys)])


@pytest.mark.skipif(not record.installed("redis-cli"), reason="redis-cli 7.0 is not installed")
def test_redis_cli_prints_the_same() -> None:
    dice = random.Random(7)
    values = [value for value, _ in PRINTED if not isinstance(value, Push)] + [wild(dice) for _ in range(300)]
    printed, _ = redis_cli([encode(value, resp=3) for value in values], [b"ANY"] * len(values))
    assert printed == "".join(format_reply(value) + "\n" for value in values)


@pytest.mark.skipif(not record.installed("redis-cli"), reason="redis-cli 7.0 is not installed")
def test_redis_cli_reads_lines_the_same() -> None:
    _, requests = redis_cli([b"+OK\r\n"] * len(LINES), LINES)
    good = []
    for line in LINES:
        try:
            good.append(split_args(line.decode()))
        except ValueError:
            pass
    assert requests == good
