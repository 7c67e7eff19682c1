"""The judges of chapter 02: RESP on the wire."""

from __future__ import annotations

from itertools import product, zip_longest
from typing import Any

from kvref.lab.judging import Wrong, exercise, expect
from kvref.resp import RequestParser, encode
from kvref.sim import World

REQUESTS = [[b"SET", b"k", b"two\r\nlines"], [b"ECHO", b""], [b"DEL", *[b"k"] * 11, b"*1\r\n$4\r\nPING\r\n"],
            [b"ECHO", bytes(range(256))]]
STREAM, PING, BIG = b"".join(map(encode, REQUESTS)), encode([b"PING"]), encode([b"ECHO", b"x" * 99_999])
CLOSED = b" (and the connection is closed)"
DIALOGUES = (                       # what is sent, and what must come back
    (PING * 3 + encode([b"ECHO", b"a\r\nb"]), b"+PONG\r\n" * 3 + b"$4\r\na\r\nb\r\n"),
    (BIG, BIG.partition(b"ECHO\r\n")[2]),
    (b"PING\r\n\r\necho \"two words\"\n" + PING, b"+PONG\r\n$9\r\ntwo words\r\n+PONG\r\n"),
    (PING + b"*1\r\n+PING\r\n", b"+PONG\r\n-ERR Protocol error: expected '$', got '+'\r\n" + CLOSED),
    (PING + b"*1\r\n$-1\r\n", b"+PONG\r\n-ERR Protocol error: invalid bulk length\r\n" + CLOSED),
    (b"*1\r\n$536870913\r\n", b"-ERR Protocol error: invalid bulk length\r\n" + CLOSED))
ASKS_MAX = 10_000                   # far more calls of requests() than these dialogues need


@exercise("02-1", 'How many bytes has "é"?',
          "Make bytes of each word before you count: word.encode() where it is a str.",
          "Put bytes together, not text: b\"$%d\\r\\n%b\\r\\n\" % (len(word), word).")
def careful(solution: Any) -> None:
    """Against: a character is a byte."""
    for words in (("PING",), ("SET", "k", "é"), ("SET", "name", "Zoë 😀"), ("SET", "k", ""), (b"SET", "k", b"\xff\r\n")):
        expect(solution, *words, wants=encode([word if isinstance(word, bytes) else word.encode() for word in words]))


@exercise("02-2", "Begin with ask of section 8; its world and its client are self.world and self.caller here.",
          "Where the 100 ms are over, nothing that still comes on this connection may ever be read.",
          "Before you raise TimeoutError: self.caller.close(), then self.caller = self.world.connect(\"safe\").")
def safe(solution: Any) -> None:
    """Against: after a timeout the connection is as good as before."""
    world = World(seed=1, latency_us=200)
    server = world.start(enable_debug_command="yes")
    client, bob = solution(world), world.connect("bob")
    bob("MSET", "a", "1", "b", "2")
    for busy_s, key in ((0, "a"), (0.05, "b"), (0.3, "a"), (0, "b"), (0, "a"), (0.3, "b"), (0, "a")):
        bob.send("DEBUG", "SLEEP", busy_s)
        try:
            found = client.ask("GET", key)
        except TimeoutError:
            found = "TimeoutError"
        if found != (wanted := "TimeoutError" if busy_s > 0.1 else {"a": b"1", "b": b"2"}[key]):
            raise Wrong(f"The server is busy for {busy_s} s: ask('GET', {key!r}) gave {found!r}, in place of "
                        f"{wanted!r}.")
    world.run(ms=10)
    opened, still_open = server.stats.total_connections_received - 1, len(server.clients) - 1
    if (opened, still_open) != (3, 1):
        raise Wrong("After two timeouts there should be 3 connections opened, and 1 still open. "
                    f"You have opened {opened}, and {still_open} still open.")


@exercise("02-3", "Keep what you cannot use yet in an attribute, and put the new bytes behind it.",
          "A line is whole when its \\r\\n is there, a value when length + 2 bytes are there: do not search in it.",
          "Where something is missing, leave the buffer as it is. What is whole, cut off its front, and try the next.")
def parser(solution: Any) -> None:
    """Against: one recv is one request."""
    cuts = [(f"cut before {STREAM[at:][:12]!r}", [STREAM[:at], STREAM[at:]]) for at in range(1, len(STREAM))]
    for how, parts in (("uncut", [STREAM]), *cuts, ("byte by byte", [bytes([byte]) for byte in STREAM])):
        receive = solution().receive
        found = [request for part in parts for request in receive(part) or []]
        for number, (request, wanted) in enumerate(zip_longest(found, REQUESTS), 1):
            if request != wanted:
                raise Wrong(f"Four requests, {how}: number {number} is {shown(request)}. It should be {shown(wanted)}.")


def shown(value: Any) -> str:
    return repr(value)[:110] if value is not None else "missing"


@exercise("02-4", "Begin with exercise 3. `size` must be right: a parser that holds nothing is lent to the next client.",
          "A request without * is a line up to \\n. kvref.quoting.split_args finds its words; no words, no request.",
          "A wrong length behind good requests? Return these. The next call finds it in front, and raises.")
def server_parser(solution: Any) -> None:
    """Against: a wrong request spoils the good ones before it."""
    class Counted(solution):        # type: ignore[misc]
        asked = 0
        held = 0                        # what arguments take while their request is cut short is not asked for

        def requests(self, limited: bool = False) -> Any:
            Counted.asked += 1
            if Counted.asked > ASKS_MAX or isinstance(self, RequestParser):
                raise Wrong("It should be a parser of your own, with requests() == [] when nothing more is whole.")
            return super().requests(limited)

    for fragment, (sent, wanted) in product((False, True), DIALOGUES):
        world = World(seed=1, fragment=fragment)
        server = world.start()
        server.new_parser, server.parser = Counted, Counted()   # type: ignore[method-assign]
        alice, bob = world.connect("alice"), world.connect("bob")
        alice.send_bytes(sent)
        bob.send_bytes(PING * 3)
        world.settle()
        if (found := bytes(alice.received) + (CLOSED if alice.ended else b"")) != wanted:
            raise Wrong(f"Alice sends {shown(sent)}, and it arrives {'in pieces' if fragment else 'at once'}. "
                        f"The answer should be {shown(wanted)}. It is {shown(found)}.")
        if bob.replies != ["PONG"] * 3:
            raise Wrong(f"Two clients at once: Bob sends three PINGs, and gets {shown(bob.replies)}. Is `size` right?")
