"""One connection: bytes that came in, replies that go out, and the limits on both.

Interface:
  - on_readable()          the loop says that bytes (or the end) are there: read once, run what is complete
  - reply(value)           append a reply, encoded for this client's protocol
  - append(data)           append bytes that are encoded already
  - flush()                one send; called once a turn, from before_sleep
  - close_soon()           drop it at the end of this turn; what it was still owed is not sent
  - close_after_reply      once set: no request is run any more, and the last reply ends the connection

Invariant: nothing is sent outside `flush`, and only Server.before_sleep calls it. A writable socket only puts
the client back on the list of those to flush. So no reply will leave before the log of its turn, once there is one.

An idle connection costs a few hundred bytes: no parser, no addresses, no Call of its own. It borrows the
server's parser, and keeps it only while a request has come in part.

Redis: networking.c (createClient, readQueryFromClient, writeToClient, checkClientOutputBufferLimits).
Simpler here: one list of chunks in place of a static buffer and a list of nodes; no I/O threads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kvref.blocking import Blocked
from kvref.command_table import Command
from kvref.database import Database
from kvref.ports import Socket
from kvref.pubsub import Subscriptions
from kvref.resp import Error, ProtocolError, RequestParser, encode
from kvref.transactions import Transaction

if TYPE_CHECKING:
    from kvref.server import Server

READ_SIZE = 16 * 1024           # one recv: PROTO_IOBUF_LEN
READ_MAX = 1024 * 1024          # one recv while a long argument is awaited
SMALL, MANY = 4096, 64          # bytes of a small chunk; how many of them are joined when they have to wait
SEND_MAX = 64 * 1024            # small chunks are joined up to this for one send: NET_MAX_WRITES_PER_EVENT

NOTHING: list[bytes | memoryview] = []      # the output of every client that has none; never changed
Limit = tuple[int, int, int]    # hard bytes, soft bytes, seconds over the soft limit; 0: none


def is_loopback(address: str) -> bool:
    return address.startswith(("127.", "[::1]:"))


class Client:
    """See the module. CLIENT LIST shows what is here."""

    __slots__ = ("server", "sock", "id", "name", "lib_name", "lib_ver", "resp", "authenticated", "db", "parser",
                 "output", "output_size", "queued", "watching_write", "close_after_reply", "closed", "monitor",
                 "kind", "transaction", "blocked", "subscriptions", "over_soft_since_us", "created_us", "last_us",
                 "last_command", "_addresses")

    def __init__(self, server: Server, sock: Socket, id: int) -> None:
        self.server: Server = server
        self.sock: Socket = sock
        self.id: int = id
        self.name: bytes = b""
        self.lib_name: bytes = b""
        self.lib_ver: bytes = b""
        self.resp: int = 2
        self.authenticated: bool = not server.config.requirepass
        self.db: Database = server.databases[0]
        self.parser: RequestParser | None = None    # its own only while part of a request is here
        self.output: list[bytes | memoryview] = NOTHING
        self.output_size: int = 0
        self.queued: bool = False                   # on the server's list of clients to flush
        self.watching_write: bool = False
        self.close_after_reply: bool = False
        self.closed: bool = False                   # or about to be
        self.monitor: bool = False
        self.kind: str = "normal"                   # class of client-output-buffer-limit
        self.transaction: Transaction | None = None         # once it has said WATCH or MULTI
        self.blocked: Blocked | None = None         # while it waits for a key
        self.subscriptions: Subscriptions | None = None
        self.over_soft_since_us: int = 0
        self.created_us: int = server.now_us
        self.last_us: int = server.now_us           # of the last bytes from it
        self.last_command: Command | None = None
        self._addresses: tuple[str, str] | None = None

    def __repr__(self) -> str:
        return f"<Client {self.id} {self.peer}: {self.query_size} bytes in, {self.output_size} bytes out>"

    @property
    def peer(self) -> str:
        """ "ip:port" of the other end. Asked for when somebody wants to know."""
        return self._both_addresses()[0]

    @property
    def own(self) -> str:
        """ "ip:port" of our end."""
        return self._both_addresses()[1]

    def _both_addresses(self) -> tuple[str, str]:
        self._addresses = self._addresses or self.server.network.addresses(self.sock)
        return self._addresses

    @property
    def is_local(self) -> bool:
        """Whether it calls from this computer."""
        return is_loopback(self.peer)

    @property
    def query_size(self) -> int:
        """Bytes that came in and are no whole request yet: not parsed, or arguments of one cut short."""
        return self.parser.size + self.parser.held if self.parser else 0

    @property
    def memory(self) -> int:
        """Bytes that are held for it: no whole request yet, queued for EXEC, unsent."""
        return self.query_size + (self.transaction.size if self.transaction else 0) + self.output_size

    def select(self, index: int) -> None:
        """Use another database from now on. Only within a call of this client."""
        self.db = self.server.call.db = self.server.databases[index]

    # ---- in

    def on_readable(self) -> None:
        """Read once and run every request that is complete."""
        server = self.server
        parser = self.parser or server.parser
        start_us = server.clock.monotonic_us() if server.loop.observers else 0
        size = READ_SIZE if parser.missing <= READ_SIZE else min(parser.missing, READ_MAX)
        try:
            data = server.network.recv(self.sock, size)
        except OSError as error:
            server.log("-", f"Reading from client: {error.strerror}")
            return self.close_soon()
        if data is None:
            return
        if not data:
            return self.close_soon()
        server.stats.total_net_input_bytes += len(data)
        self.last_us = server.now_us
        if server.loop.observers:
            server.loop.emit("read", start_us, self.id, f"{len(data)} bytes")
        if self.close_after_reply:
            return                                  # nothing more is run: hold nothing more
        parser.receive(data)
        self.run_requests(parser)
        if parser.size or parser.left or self.parser:
            self._keep(parser)

    def run_requests(self, parser: RequestParser) -> None:
        """Run what the parser holds, as long as this client is to be listened to."""
        server = self.server
        while not (self.close_after_reply or self.closed or self.blocked):
            try:
                requests = parser.requests(not self.authenticated and bool(server.config.requirepass))
            except ProtocolError as error:
                server.log("-", f"Protocol error ({error}) from client: {self!r}")
                complaint = Error(f"ERR Protocol error: {error}")
                server.count_error(complaint)
                self.reply(complaint)
                self.close_after_reply = True
                return
            if not requests:
                return
            server.execute(self, requests)
            if not parser.size:
                return

    def resume(self, parser: RequestParser) -> None:
        """Go on after a wait."""
        self.run_requests(parser)
        self._keep(parser)

    def _keep(self, parser: RequestParser) -> None:
        """Hold on to a parser with part of a request in it, or give up one that is empty again."""
        if parser is self.server.parser:
            self.server.parser = self.server.new_parser()
        self.parser = parser if parser.size or parser.left else None
        if parser.size > self.server.config.client_query_buffer_limit:
            self.server.log("#", f"Closing client that reached max query buffer length: {self!r}")
            self.close_soon()

    # ---- out

    def reply(self, value: Any) -> None:
        """Append a reply, encoded now: values are live objects, and the next command may change them."""
        self.append(encode(value, self.resp))

    def append(self, data: bytes) -> None:
        """Append encoded bytes. They wait for `flush`, and count against the client's limit."""
        if self.closed or not data:
            return
        self.outbox().append(data)
        self.output_size += len(data)
        self.queue()
        self.check_limit()

    def push(self, data: bytes) -> None:
        """Append what is no reply: a message. Behind the last reply nothing more comes."""
        if not self.close_after_reply:
            self.append(data)

    def outbox(self) -> list[bytes | memoryview]:
        """The list of what is to be sent, which is this client's own from now until all of it has gone."""
        if self.output is NOTHING:
            self.output = []
        return self.output

    def queue(self) -> None:
        """Have the server flush this client before it sleeps."""
        if not self.queued:
            self.queued = True
            self.server.to_flush.append(self)

    on_writable = queue

    def flush(self) -> None:
        """Send once. What the socket does not take waits until it is writable."""
        server, output = self.server, self.output
        self.queued = False
        if self.closed or not self.output_size:
            self.output = NOTHING
            return
        data = output[0] if len(output) == 1 else self._next_chunk()
        start_us = server.clock.monotonic_us() if server.loop.observers else 0
        try:
            sent = server.network.send(self.sock, data)
        except OSError as error:
            server.log("-", f"Error writing to client: {error.strerror}")
            return self.close_soon()
        server.stats.total_net_output_bytes += sent
        if sent:
            self.last_us = server.now_us
        self.output_size -= sent
        if sent < len(data):
            output[0] = memoryview(data)[sent:]
            self._compact(output)
        elif self.output_size:
            del output[0]
        else:
            output = self.output = NOTHING
        if server.loop.observers:
            server.loop.emit("write", start_us, self.id, f"{sent} of {sent + self.output_size} bytes")
        if not output and self.close_after_reply:
            return self.close_soon()
        if self.watching_write == (not output):
            self._watch_write(bool(output))

    def _next_chunk(self) -> bytes | memoryview:
        """What to send: the whole output when it is small, else small chunks joined. It becomes output[0]."""
        output = self.output
        count, size = len(output), self.output_size
        if size > SEND_MAX:
            count = size = 0
            while count < len(output) and (not count or size + len(output[count]) <= SEND_MAX):
                size += len(output[count])
                count += 1
        if count > 1:
            output[:count] = [b"".join(output[:count])]
        return output[0]

    @staticmethod
    def _compact(output: list[bytes | memoryview]) -> None:
        """Join small chunks that have to wait: an object for each would cost more memory than what it says."""
        at = len(output)
        while at > 1 and len(output[at - 1]) < SMALL:
            at -= 1
        if len(output) - at >= MANY:
            output[at:] = [b"".join(output[at:])]

    def _watch_write(self, wanted: bool) -> None:
        """Ask for writable events only while the socket is full: a syscall saved on every other reply."""
        self.watching_write = wanted
        self.server.loop.watch(self.sock, self, write=wanted)

    # ---- limits and the end

    def check_limit(self, more: int = 0) -> bool:
        """Cut off a client that does not read; whether it is cut off. `more` bytes are not counted yet.

        Redis: checkClientOutputBufferLimits and closeClientOnOutputBufferLimitReached.
        """
        limit = self.server.limits[self.kind]
        if limit is None or self.closed:
            self.over_soft_since_us = 0
            return self.closed
        hard, soft, soft_seconds = limit
        size, now_us = self.output_size + more, self.server.now_us
        self.over_soft_since_us = (self.over_soft_since_us or now_us) if soft and size >= soft else 0
        over_soft = self.over_soft_since_us and now_us - self.over_soft_since_us > soft_seconds * 1_000_000
        if (hard and size >= hard) or over_soft:
            last = f", last command {self.last_command.name}" if self.last_command else ""
            self.server.log("#", f"Client {self!r} ({self.kind}{last}) scheduled to be closed ASAP for overcoming of "
                                 "output buffer limits.")
            self.server.stats.client_output_buffer_limit_disconnections += 1
            self.close_soon()
        return self.closed

    def close_soon(self) -> None:
        """Close this client before the next sleep; from now on nothing is read from it or sent to it."""
        if not self.closed:
            self.closed = True
            self.server.waiting.forget(self)        # an element given to it now would be lost
            self.server.memory.stale |= self.memory > 0     # what was held for it is to evict no key
            self.server.to_close.append(self)
