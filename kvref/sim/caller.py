"""A client in the simulated world: alice, who calls the server and waits for its answers.

Interface:
  - alice("SET", "k", "v")     send, let the world run until the reply is there, return it
  - send, send_bytes           put requests on the wire and do not wait
  - replies, pushes            what has come and was not returned by a call; messages and other out-of-band values
  - close, shutdown, reset     the three ways to leave
  - reading                    False: she does not read, and her 64 KiB fill up
  - received                   every byte that ever reached her

Simpler than a client library: one connection, never a second attempt.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kvref.resp import NEED_DATA, Error, ProtocolError, Push, ReplyParser, RequestParser, encode
from kvref.sim.errors import ReplyError
from kvref.ports import Socket
from kvref.sim.network import Network

CONFIRMATIONS = (b"subscribe", b"unsubscribe", b"psubscribe", b"punsubscribe")      # they answer a request
MESSAGES = (b"message", b"pmessage")                                                # these come by themselves
Word = bytes | str | int | float


def request(words: tuple[Word, ...]) -> bytes:
    """The bytes of a request; text as UTF-8, numbers in decimal."""
    return encode([word if isinstance(word, bytes) else str(word).encode() for word in words])


class Caller:
    """See the module. Made by `World.connect`."""

    def __init__(self, name: str, network: Network, sock: Socket, wait: Callable[[Callable[[], bool]], None]) -> None:
        """`wait` lets the world run until a condition holds; it raises WouldBlock where that cannot be."""
        self.name = name
        self.replies: list[Any] = []
        self.pushes: list[Any] = []
        self.received = bytearray()
        self.reading = True
        self.ended = ""                     # why the connection is of no more use; "" while it is
        self._network, self._sock, self._wait = network, sock, wait
        self._end = network.end(sock)
        self.far = self._end.peer.fd        # the server's number for this connection
        self._unsent = bytearray()
        self._last_word = False             # nothing follows what is unsent
        self._requests, self._parser = RequestParser(), ReplyParser()
        self._owed = 0                      # requests sent, replies not come
        self._arrived = 0                   # replies that ever came
        self._subscriptions = 0

    def __call__(self, *words: Word) -> Any:
        """The reply to this request: bytes, str (a status), int, list ...

        Raises ReplyError for an error reply, WouldBlock where none can come any more, ConnectionError after the end.
        """
        mine = self._arrived + self._owed + 1
        self.send(*words)
        was_reading, self.reading = self.reading, True
        try:
            self._wait(lambda: self._arrived >= mine or bool(self.ended))
        finally:
            self.reading = was_reading
        if self._arrived < mine:
            if str(words[0]).upper() == "SHUTDOWN":
                return None                 # the end of the connection is the answer
            raise ConnectionError(f"{self.name}: {self.ended}")
        reply = self.replies.pop(mine - self._arrived - 1)
        if isinstance(reply, Error):
            raise ReplyError(reply.text)
        return reply

    def send(self, *words: Word) -> None:
        """Put one request on the wire."""
        self.send_bytes(request(words))

    def send_bytes(self, data: bytes) -> None:
        """Put any bytes on the wire. What the server has no room for is sent as it reads."""
        if self.ended:
            raise ConnectionError(f"{self.name}: {self.ended}")
        self._owed += self._count(data)
        self._unsent += data
        self.push_bytes()

    def close(self) -> None:
        """Hang up."""
        self._leave(self._network.close, "closed by the client")

    def reset(self) -> None:
        """Hang up the rude way: the server's next recv or send fails."""
        self._leave(self._network.reset, "reset by the client")

    def shutdown(self) -> None:
        """Say that nothing more will be sent, once all is; replies can still come."""
        self._last_word = True
        self.push_bytes()

    # For the world, between two turns of the server's loop

    def push_bytes(self) -> None:
        """Send what is unsent, as far as there is room."""
        try:
            while self._unsent and not self.ended:
                taken = self._network.send(self._sock, bytes(self._unsent))
                if not taken:
                    return
                del self._unsent[:taken]
            if self._last_word and not self.ended:
                self._network.shutdown(self._sock)
        except OSError as error:
            self._unsent.clear()
            if not self._end.inbox:         # else the last words are read first
                self.ended = f"the server is gone ({error.strerror})"

    def collect(self) -> None:
        """Read what has come, and sort it into replies and pushes."""
        try:
            while self.reading and not self.ended:
                data = self._network.recv(self._sock, 64 * 1024)
                if data is None:
                    return
                if not data:
                    self.ended = "the server has closed the connection"
                self.received += data
                self._parser.receive(data)
                self._sort()
        except OSError as error:
            self.ended = f"the server is gone ({error.strerror})"

    def cut(self, reason: str) -> None:
        """The server has died: what had come can be read, and that is all."""
        gone, reading, self.reading = self.ended, self.reading, True
        self.collect()
        self.reading = reading
        self.ended = gone or reason
        self._leave(self._network.close, reason)

    # Inside

    def _count(self, data: bytes) -> int:
        """How many requests these bytes complete: so many replies are owed. What is no RESP is answered once."""
        self._requests.receive(data)
        count = 0
        try:
            while found := self._requests.requests():
                count += len(found)
        except ProtocolError:
            self._requests = RequestParser()
            count += 1
        return count

    def _sort(self) -> None:
        while (value := self._parser.next()) is not NEED_DATA:
            kind = value[0] if isinstance(value, list) and value else None
            if kind in CONFIRMATIONS and isinstance(value[-1], int):
                self._subscriptions = value[-1]
            elif isinstance(value, Push) or (self._subscriptions and kind in MESSAGES):
                self.pushes.append(value)
                continue
            self.replies.append(value)
            self._arrived += 1
            self._owed = max(0, self._owed - 1)

    def _leave(self, how: Callable[[Socket], None], reason: str) -> None:
        if not self.ended:
            self.ended = reason
        if not self._end.closed:
            how(self._sock)

    def __repr__(self) -> str:
        state = self.ended or "connected"
        counts = {"awaited replies": self._owed, "unread replies": len(self.replies), "unread pushes": len(self.pushes)}
        return f"<{self.name}: {', '.join([state, *(f'{what} {n}' for what, n in counts.items() if n)])}>"
