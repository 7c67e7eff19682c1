"""RESP, the protocol between a client and Redis. No I/O: bytes in, requests out; replies in, bytes out.

Interface:
  - RequestParser   the server's side: receive(data), then requests() until it is empty
  - encode          a reply as bytes, in RESP2 or RESP3
  - ReplyParser     the client's side: receive(data), then next() until NEED_DATA
  - the types of replies: str (a status), bytes (a bulk string), int, float, bool, None, list, dict,
    Members, Pairs, Error, Push, Verbatim, NULL_ARRAY, NO_REPLY, BLOCKED
  - ProtocolError   the bytes are no RESP; the text is the one that Redis sends before it closes

The wire, one line a type (every line ends in CR LF):

    +OK                 status             *2  then 2 values     array, and every request
    -ERR text           error              _                     null                  (RESP3)
    :42                 integer            ,1.5                  double                (RESP3)
    $5  then 5 bytes    bulk string        #t                    boolean               (RESP3)
    $-1                 null (RESP2)       %2  then 2 pairs      map                   (RESP3)
    *-1                 null (RESP2)       ~2  then 2 values     set                   (RESP3)
    =9  then txt:hello  verbatim (RESP3)   >2  then 2 values     push, not a reply     (RESP3)

Redis: processInlineBuffer, processMultibulkBuffer and the addReply family in networking.c; the client's
side is hiredis. Simpler here: a request is a list of bytes, made at once; Redis parses in place.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import chain
from typing import Any, Final

from kvref.numbers import format_double, parse_int
from kvref.quoting import split_args, text
from kvref.sampling import Hash, Members

INLINE_MAX = 64 * 1024          # longest line: PROTO_INLINE_MAX_SIZE
UNAUTHENTICATED_ARGS = 10       # before AUTH a stranger may not ask for more than this
UNAUTHENTICATED_BULK = 16384
FAST_MAX = 64 * 1024            # a larger buffer is never split as a whole
INT_MAX = 2**31 - 1

Request = list[bytes]
NO_ARGS: Final[Request] = []    # shared by all idle parsers, never changed


class ProtocolError(Exception):
    """The client does not speak RESP. After this its connection is of no more use."""


# ---- requests: bytes in ------------------------------------------------------------------------

STRIDES: Final = {b"*%d" % n: 2 * n + 1 for n in range(1, 256)}     # pieces of a request of n arguments
HEADS_MAX: Final = 1024         # bulk strings shorter than this have their first line ready: % costs more than all else
SIZES: Final = [b"$%d" % n for n in range(HEADS_MAX)]


def well_formed(data: bytes) -> tuple[list[Request], int]:
    """The requests at the head of `data`, up to the first that is not well-formed, or not whole; and their bytes."""
    pieces = data.split(b"\r\n")
    last = len(pieces) - 1                  # what follows the last CR LF is never complete
    found = []
    start = 0
    try:
        while start < last:
            end = start + STRIDES[pieces[start]]
            if end > last:
                break
            args = pieces[start + 2:end:2]
            place = start + 1
            for arg in args:
                if SIZES[len(arg)] != pieces[place]:
                    raise LookupError
                place += 2
            found.append(args)
            start = end
    except LookupError:
        pass                                # an unusual line, or one that lies: for the careful way to judge
    used = len(data)
    if start < last or pieces[last]:        # some of it is left
        used -= sum(map(len, pieces[start:])) + 2 * (last - start)
    return found, used


class RequestParser:
    """Cuts the bytes of one connection into requests, wherever the network has cut them.

    Two ways lead to the same requests. The fast way splits a well-formed pipeline at every CR LF and
    then checks each declared length against its piece; whatever it does not recognise is left to the
    careful way, which goes byte by byte as Redis does and keeps its place between calls.
    A property test holds that both agree on every input and every split.
    """

    __slots__ = ("max_bulk", "size", "missing", "_chunks", "_buffer", "_pos", "_args", "held", "left", "_bulk")

    def __init__(self, max_bulk: int = 512 * 1024 * 1024) -> None:
        self.max_bulk = max_bulk            # proto-max-bulk-len
        self._chunks: list[bytes] = []      # received, not yet joined to the buffer
        self._buffer = b""
        self._pos = 0                       # everything before it is parsed
        self.size = 0                       # bytes held that are not parsed yet: the query buffer
        self.missing = 0                    # so many more bytes must come before another look is worth it
        self._args: Request = NO_ARGS       # the arguments so far of a request cut short
        self.held = 0                       # their bytes
        self.left = 0                      # and how many are still to come
        self._bulk = -1                     # length of the argument that is being awaited

    def receive(self, data: bytes) -> None:
        """Take bytes from the network. Nothing is parsed yet."""
        if self.size:
            self._chunks.append(data)
        else:
            self._buffer = data                     # the usual case: nothing was left
        self.size += len(data)
        self.missing -= len(data)

    def requests(self, limited: bool = False) -> list[Request]:
        """The complete requests at hand; [] when more bytes are needed.

        `limited` applies the limits before AUTH and returns at most one request, because it may be the
        AUTH. Raises ProtocolError once all requests before the damage have been returned.
        """
        if self.missing > 0:
            return []
        if self._chunks:
            rest = self._buffer[self._pos:]
            self._buffer = rest + self._chunks[0] if len(self._chunks) == 1 else b"".join([rest, *self._chunks])
            self._pos = 0
            self._chunks.clear()
        if not self.size:
            return []
        found: list[Request] = []
        if not (limited or self.left or self._pos) and self.size <= FAST_MAX:
            found, self._pos = well_formed(self._buffer)
            if self._pos == self.size:              # the usual case: all of it
                self._buffer, self._pos, self.size = b"", 0, 0
                return found
        while self._pos < len(self._buffer) and not (limited and found):
            try:
                request = self._careful(limited)
            except ProtocolError:
                if found:
                    break                   # the next call meets it again, with nothing before it
                raise
            if request is None:
                break
            if request:
                found.append(request)
        self.size = len(self._buffer) - self._pos
        if not self.size:
            self._buffer, self._pos = b"", 0        # an idle connection holds no memory
        return found

    # The careful way, as Redis reads: a line ends at its first CR, and the byte after it is not looked at;
    # a NUL byte hides the rest of the buffer from the search (strchr). Both can be seen from outside.

    def _careful(self, limited: bool) -> Request | None:
        """The next request, [] for an empty one, None when it is not whole. Advances over what it parsed."""
        if not self.left:
            if self._buffer[self._pos] != 0x2A:                     # "*"
                return self._inline()
            end = self._header("mbulk")
            if end is None:
                return None
            count = self._number(end, -INT_MAX - 1, INT_MAX, "invalid multibulk length")
            if limited and count > UNAUTHENTICATED_ARGS:
                raise ProtocolError("unauthenticated multibulk length")
            self._pos = end + 2
            if count <= 0:
                return []
            self.left, self._args = count, []
        while self.left:
            argument = self._argument(limited)
            if argument is None:
                return None
            self._args.append(argument)
            self.held += len(argument)
            self.left -= 1
        request, self._args, self.held = self._args, NO_ARGS, 0
        return request

    def _argument(self, limited: bool) -> bytes | None:
        if self._bulk < 0:
            end = self._header("bulk")
            if end is None:
                return None
            if self._buffer[self._pos] != 0x24:                     # "$"
                raise ProtocolError(f"expected '$', got '{text(self._buffer[self._pos:self._pos + 1])}'")
            size = self._number(end, 0, self.max_bulk, "invalid bulk length")
            if limited and size > UNAUTHENTICATED_BULK:
                raise ProtocolError("unauthenticated bulk length")
            self._pos, self._bulk = end + 2, size
        end = self._pos + self._bulk + 2
        if end > len(self._buffer):
            self.missing = end - len(self._buffer)                  # await it; do not scan again
            return None
        argument = self._buffer[self._pos:end - 2]
        self._pos, self._bulk = end, -1
        return argument

    def _header(self, kind: str) -> int | None:
        """Where the line of a length ends, None when it is not whole."""
        end = self._line_end(b"\r")
        if end is None and len(self._buffer) - self._pos > INLINE_MAX:
            raise ProtocolError(f"too big {kind} count string")
        return end if end is not None and end + 2 <= len(self._buffer) else None

    def _number(self, end: int, low: int, high: int, complaint: str) -> int:
        number = parse_int(self._buffer[self._pos + 1:end])
        if number is None or not low <= number <= high:
            raise ProtocolError(complaint)
        return number

    def _line_end(self, mark: bytes) -> int | None:
        end = self._buffer.find(mark, self._pos)
        return None if end < 0 or self._buffer.find(b"\0", self._pos, end) >= 0 else end

    def _inline(self) -> Request | None:
        """A request typed by hand: words on a line."""
        end = self._line_end(b"\n")
        if end is None:
            if len(self._buffer) - self._pos > INLINE_MAX:
                raise ProtocolError("too big inline request")
            return None
        words = split_args(self._buffer[self._pos:end].removesuffix(b"\r"))
        if words is None:
            raise ProtocolError("unbalanced quotes in request")
        self._pos = end + 1
        return words


# ---- replies: values out -----------------------------------------------------------------------

class Error(Exception):
    """An error reply. Handlers raise or return it; `Error("ERR no such key")`.

    Bytes of the client that are no UTF-8 stand in the text as surrogate escapes.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    @property
    def code(self) -> str:
        """The first word: "ERR", "WRONGTYPE", ..."""
        return self.text.partition(" ")[0]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Error) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)


class Pairs(list[tuple[Any, Any]]):
    """Pairs in order: flat in RESP2, an array of arrays in RESP3 (ZRANGE WITHSCORES, HRANDFIELD)."""


class Push(list[Any]):
    """Out of band: a message, not the reply to a request."""


class Verbatim(bytes):
    """Text meant for people, such as INFO's; a bulk string in RESP2."""


class _Singleton:
    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


OK: Final = "OK"
NULL_ARRAY: Final = _Singleton("NULL_ARRAY")    # `*-1` in RESP2, the one null in RESP3
NO_REPLY: Final = _Singleton("NO_REPLY")        # the handler has nothing to say
BLOCKED: Final = _Singleton("BLOCKED")          # the reply comes later
NEED_DATA: Final = _Singleton("NEED_DATA")


def encode(value: Any, resp: int = 2) -> bytes:
    """The bytes of a reply in RESP2 or RESP3."""
    return _ENCODERS[type(value)](value, resp)


def _line(mark: bytes) -> Callable[[Any, int], bytes]:
    return lambda status, resp: mark + status.encode("utf-8", "surrogateescape") + b"\r\n"


HEADS: Final = [size + b"\r\n" for size in SIZES]
BYTES_ALONE: Final = {bytes}


def _bulk(data: bytes, resp: int) -> bytes:
    length = len(data)
    return (HEADS[length] if length < HEADS_MAX else b"$%d\r\n" % length) + data + b"\r\n"


def _verbatim(data: Verbatim, resp: int) -> bytes:
    return _bulk(data, resp) if resp == 2 else b"=%d\r\ntxt:%b\r\n" % (len(data) + 4, data)


def _error(error: Error, resp: int) -> bytes:
    line = error.text.replace("\r", " ").replace("\n", " ")
    return b"-%b\r\n" % line.encode("utf-8", "surrogateescape")


def _double(number: float, resp: int) -> bytes:
    digits = format_double(number)
    return _bulk(digits, resp) if resp == 2 else b",%b\r\n" % digits


def _boolean(value: bool, resp: int) -> bytes:
    return (b":1\r\n" if value else b":0\r\n") if resp == 2 else (b"#t\r\n" if value else b"#f\r\n")


def _array(values: Any, resp: int, mark: bytes = b"*") -> bytes:
    return b"%b%d\r\n" % (mark, len(values)) + _sequence(values, resp)


def _sequence(values: Any, resp: int) -> bytes:
    """The elements. Short bulk strings alone, which is what most long replies are, take no Python code for each."""
    if values and {*map(type, values)} == BYTES_ALONE and max(map(len, values)) < HEADS_MAX:
        sizes = map(SIZES.__getitem__, map(len, values))
        return b"\r\n".join(chain.from_iterable(zip(sizes, values))) + b"\r\n"
    return b"".join([_ENCODERS[type(v)](v, resp) for v in values])


def _map(pairs: dict[Any, Any], resp: int) -> bytes:
    flat = list(chain.from_iterable(pairs.items()))
    return (b"*%d\r\n" % len(flat) if resp == 2 else b"%%%d\r\n" % len(pairs)) + _sequence(flat, resp)


def _members(members: Members, resp: int) -> bytes:
    return _array(members, resp, b"*" if resp == 2 else b"~")


def _pairs(pairs: Pairs, resp: int) -> bytes:
    return _array(list(chain.from_iterable(pairs)) if resp == 2 else [list(pair) for pair in pairs], resp)


_ENCODERS: dict[type, Callable[[Any, int], bytes]] = {
    bytes: _bulk,
    str: _line(b"+"),
    int: lambda number, resp: b":%d\r\n" % number,
    type(None): lambda none, resp: b"$-1\r\n" if resp == 2 else b"_\r\n",
    list: _array,
    tuple: _array,
    deque: _array,
    dict: _map,
    float: _double,
    bool: _boolean,
    Members: _members,
    Hash: _map,
    Pairs: _pairs,
    Push: lambda values, resp: _array(values, resp, b"*" if resp == 2 else b">"),
    Verbatim: _verbatim,
    Error: _error,
    _Singleton: lambda value, resp: b"" if value in (NO_REPLY, BLOCKED) else b"*-1\r\n" if resp == 2 else b"_\r\n",
}


# ---- replies: the client's side ----------------------------------------------------------------

class _Incomplete(Exception):
    pass


class ReplyParser:
    """Decodes what a server sends, RESP2 and RESP3, into the values that `encode` takes.

    A null array and a null are both None. Meant for notebooks, tests and the simulated clients:
    a reply cut short is parsed again from its start when more has come.
    """

    def __init__(self) -> None:
        self._buffer = b""
        self._pos = 0

    def receive(self, data: bytes) -> None:
        self._buffer = self._buffer[self._pos:] + data
        self._pos = 0

    def next(self) -> Any:
        """The next reply or push, or NEED_DATA. Raises ProtocolError on an unknown type byte."""
        start = self._pos
        try:
            return self._value()
        except _Incomplete:
            self._pos = start
            return NEED_DATA

    def _line(self) -> bytes:
        end = self._buffer.find(b"\r\n", self._pos)
        if end < 0:
            raise _Incomplete
        line = self._buffer[self._pos:end]
        self._pos = end + 2
        return line

    def _value(self) -> Any:
        line = self._line()
        decode = self._DECODERS.get(line[:1])
        if decode is None:
            raise ProtocolError(f"unknown type byte {line[:1]!r}")
        return decode(self, line[1:])

    def _bytes(self, size: bytes) -> bytes | None:
        if size == b"-1":
            return None
        end = self._pos + int(size)
        if end + 2 > len(self._buffer):
            raise _Incomplete
        data = self._buffer[self._pos:end]
        self._pos = end + 2
        return data

    def _values(self, count: bytes) -> list[Any] | None:
        return None if count == b"-1" else [self._value() for _ in range(int(count))]

    def _dict(self, count: bytes) -> dict[Any, Any]:
        return {self._value(): self._value() for _ in range(int(count))}

    _DECODERS: dict[bytes, Callable[[ReplyParser, bytes], Any]] = {
        b"+": lambda self, rest: text(rest),
        b"-": lambda self, rest: Error(text(rest)),
        b":": lambda self, rest: int(rest),
        b"$": lambda self, rest: self._bytes(rest),
        b"*": lambda self, rest: self._values(rest),
        b"_": lambda self, rest: None,
        b",": lambda self, rest: float(rest),
        b"#": lambda self, rest: rest == b"t",
        b"%": lambda self, rest: self._dict(rest),
        b"~": lambda self, rest: Members.fromkeys(self._values(rest) or []),
        b">": lambda self, rest: Push(self._values(rest) or []),
        b"=": lambda self, rest: Verbatim((self._bytes(rest) or b"txt:")[4:]),
    }
