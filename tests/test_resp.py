"""RESP without I/O: the fast way and the careful way agree, whatever the bytes and wherever they are cut."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvref.resp import (
    NEED_DATA, NULL_ARRAY, Error, Members, Pairs, ProtocolError, Push, ReplyParser, RequestParser, Verbatim, encode)


class CarefulParser(RequestParser):
    """The same parser without its fast way: the oracle."""

    def _fast(self) -> list[list[bytes]]:
        return []


def parse(parser: RequestParser, chunks: list[bytes], limited: bool = False) -> list[Any]:
    """All requests in these chunks, then the text of the error if there is one."""
    found: list[Any] = []
    try:
        for chunk in chunks:
            parser.receive(chunk)
            while requests := parser.requests(limited):
                found += requests
    except ProtocolError as error:
        found.append(str(error))
    return found


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in zip(edges, edges[1:]) if a < b]


def command(*args: bytes) -> bytes:
    return encode(list(args))


words = st.binary(max_size=12) | st.sampled_from([b"\r\n", b"$3\r\nGET\r\n", b"*1\r\n", b"\r", b"\n", b"\0", b"x" * 2000])
whole_requests = st.lists(words, min_size=1, max_size=5).map(lambda args: command(*args))
noise = st.binary(max_size=20) | st.sampled_from([
    b"PING\r\n", b"set a 'b c'\r\n", b'"\r\n', b"*0\r\n", b"*-1\r\n", b"*03\r\n", b"*2\r\n$3\r\nGET\r\n",
    b"*1\r\n+4\r\n", b"*1\r\n$-1\r\n", b"$5\r\n", b"\r\n", b"\n", b"*1\r\n$4\r\nPINGxx", b"*1\r$4\n\nPING\r\n", b"*\r\n",
    b"*99999999999999999999\r\n", b"*1\r\n$600000000\r\n", b"*300\r\n" + b"$1\r\na\r\n" * 300])
streams = st.lists(whole_requests | noise, max_size=8).map(b"".join)


@settings(max_examples=250, deadline=None)
@given(streams, st.lists(st.integers(0, 10_000), max_size=6))
def test_fast_and_careful_way_agree_on_every_input_and_every_split(data: bytes, places: list[int]) -> None:
    expected = parse(CarefulParser(), [data[i:i + 1] for i in range(len(data))])
    assert parse(RequestParser(), cut(data, places)) == expected
    assert parse(CarefulParser(), cut(data, places)) == expected


@settings(max_examples=200, deadline=None)
@given(streams, st.lists(st.integers(0, 10_000), max_size=6))
def test_limits_before_auth_do_not_depend_on_the_split(data: bytes, places: list[int]) -> None:
    expected = parse(RequestParser(), [data[i:i + 1] for i in range(len(data))], limited=True)
    assert parse(RequestParser(), cut(data, places), limited=True) == expected


def test_the_fast_way_is_taken_for_well_formed_pipelines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RequestParser, "_careful", lambda *_: pytest.fail("the careful way was asked"))
    pipeline = command(b"SET", b"k", b"v") * 3 + command(b"GET", b"k")
    assert parse(RequestParser(), [pipeline]) == [[b"SET", b"k", b"v"]] * 3 + [[b"GET", b"k"]]


def test_every_request_comes_out_once_wherever_the_stream_is_cut() -> None:
    stream = command(b"SET", b"k", b"a\r\nb") + command(b"GET", b"k") + b"PING\r\n"
    expected = [[b"SET", b"k", b"a\r\nb"], [b"GET", b"k"], [b"PING"]]
    for place in range(len(stream) + 1):
        assert parse(RequestParser(), [stream[:place], stream[place:]]) == expected, place


def test_a_long_argument_is_awaited_not_scanned_again(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    careful = RequestParser._careful

    def counted(self: RequestParser, limited: bool) -> Any:
        nonlocal looks
        looks += 1
        return careful(self, limited)

    monkeypatch.setattr(RequestParser, "_careful", counted)
    value = b"\r\n" * 500_000
    stream = command(b"SET", b"k", value)
    parser = RequestParser()
    assert parse(parser, cut(stream, list(range(0, len(stream), 16_384)))) == [[b"SET", b"k", value]]
    assert looks <= 3


def test_nothing_is_held_back_once_a_request_has_been_returned() -> None:
    parser = RequestParser()
    assert parse(parser, [command(b"SET", b"k", b"x" * 300_000)])[0][0] == b"SET"
    assert parser.size == 0 and not parser._buffer and not parser._chunks


@pytest.mark.parametrize("stream, text", [
    (b"*1\r\n+4\r\nPING\r\n", "expected '$', got '+'"),
    (b"*x\r\n", "invalid multibulk length"),
    (b"*2147483648\r\n", "invalid multibulk length"),
    (b"*1\r\n$-1\r\n", "invalid bulk length"),
    (b"*1\r\n$536870913\r\n", "invalid bulk length"),
    (b"*" + b"1" * 70_000, "too big mbulk count string"),
    (b"*1\r\n$" + b"1" * 70_000, "too big bulk count string"),
    (b"a" * 70_000, "too big inline request"),
    (b"get 'a\r\n", "unbalanced quotes in request"),
])
def test_damage_has_its_name_and_comes_after_the_requests_before_it(stream: bytes, text: str) -> None:
    assert parse(RequestParser(), [command(b"PING") + stream]) == [[b"PING"], text]


@pytest.mark.parametrize("value, resp2, resp3", [
    ("OK", b"+OK\r\n", b"+OK\r\n"),
    (b"a\r\nb", b"$4\r\na\r\nb\r\n", b"$4\r\na\r\nb\r\n"),
    (b"", b"$0\r\n\r\n", b"$0\r\n\r\n"),
    (-7, b":-7\r\n", b":-7\r\n"),
    (None, b"$-1\r\n", b"_\r\n"),
    (NULL_ARRAY, b"*-1\r\n", b"_\r\n"),
    (True, b":1\r\n", b"#t\r\n"),
    (False, b":0\r\n", b"#f\r\n"),
    (1.5, b"$3\r\n1.5\r\n", b",1.5\r\n"),
    (float("inf"), b"$3\r\ninf\r\n", b",inf\r\n"),
    ([1, [b"x", None]], b"*2\r\n:1\r\n*2\r\n$1\r\nx\r\n$-1\r\n", b"*2\r\n:1\r\n*2\r\n$1\r\nx\r\n_\r\n"),
    ({b"a": 1}, b"*2\r\n$1\r\na\r\n:1\r\n", b"%1\r\n$1\r\na\r\n:1\r\n"),
    (Members.fromkeys([b"m"]), b"*1\r\n$1\r\nm\r\n", b"~1\r\n$1\r\nm\r\n"),
    (Pairs([(b"m", 2.0)]), b"*2\r\n$1\r\nm\r\n$1\r\n2\r\n", b"*1\r\n*2\r\n$1\r\nm\r\n,2\r\n"),
    (Push([b"message"]), b"*1\r\n$7\r\nmessage\r\n", b">1\r\n$7\r\nmessage\r\n"),
    (Verbatim(b"hi"), b"$2\r\nhi\r\n", b"=6\r\ntxt:hi\r\n"),
    (Error("ERR two\r\nlines"), b"-ERR two  lines\r\n", b"-ERR two  lines\r\n"),
])
def test_each_type_has_its_bytes_in_both_protocols(value: Any, resp2: bytes, resp3: bytes) -> None:
    assert encode(value, 2) == resp2
    assert encode(value, 3) == resp3


scalars = (st.none() | st.booleans() | st.integers(-2**63, 2**63 - 1) | st.binary(max_size=20)
           | st.floats(allow_nan=False) | st.text("abc ", max_size=5).map(lambda t: "S" + t))
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4)
                      | st.dictionaries(st.binary(max_size=4), inner, max_size=4)
                      | st.lists(inner, max_size=3).map(Push), max_leaves=12)


@settings(max_examples=200, deadline=None)
@given(st.lists(values, max_size=4), st.lists(st.integers(0, 1000), max_size=5))
def test_a_client_decodes_what_resp3_encodes_wherever_it_is_cut(replies: list[Any], places: list[int]) -> None:
    parser, found = ReplyParser(), []
    for chunk in cut(b"".join(encode(reply, 3) for reply in replies), places):
        parser.receive(chunk)
        while (value := parser.next()) is not NEED_DATA:
            found.append(value)
    assert found == replies
