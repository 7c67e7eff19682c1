"""Clients that wait for a key: BLPOP and its kin on a server that itself never waits.

Interface:
  - Blocked                         what one client waits for, and how to try again
  - Waiting                         who waits for which key
      block(call, keys, ...)        from now on nothing of this client is run
      touch(db, key, event)         the key is new: those who wait for it may be served
      serve(after)                  after each command or EXEC: serve them, first come first served
      time_out(now_ms)              from before_sleep
      go_on()                       from before_sleep: what came behind
      unblock(client, reply)        end the wait, with a reply
      forget(client)                ... with none: its connection ends

A client that waits costs nothing: no thread, no retries. Its connection is read on, but nothing of it is run. The
database tells of every new key, that is where there was none. After the command that made it, the waiting clients try
their command again, in the order in which they came, until the key is empty. What they take is logged as the effect,
such as LPOP, and so a replay never waits.

Redis: blocked.c (blockForKeys, handleClientsBlockedOnKeys, checkBlockedClientTimeout in timeout.c). Simpler here: the
deadlines are in a heap, which keeps those of waits that are over until most of it are such; there, in a radix tree.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any

from kvref.resp import BLOCKED, Request

if TYPE_CHECKING:
    from kvref.client import Client
    from kvref.command_table import Call, Command
    from kvref.database import Database
    from kvref.server import Server

Retry = Callable[["Call", bytes], Any]      # a reply, or BLOCKED
Place = tuple[int, bytes]                   # index of a database, key


class Blocked:
    """What one client waits for."""

    __slots__ = ("command", "args", "db", "keys", "deadline_ms", "retry", "nothing", "later", "over")

    def __init__(self, command: Command, args: Request, db: Database, keys: list[bytes], deadline_ms: int | None,
                 retry: Retry, nothing: Any) -> None:
        self.command, self.args, self.db = command, args, db
        self.keys = keys
        self.deadline_ms = deadline_ms              # wall clock; None: waits for ever
        self.retry = retry
        self.nothing = nothing                      # the reply after the deadline
        self.later: Iterable[Request] = ()           # what came behind it in the same pipeline
        self.over = False                           # it has its reply, but what came behind it has yet to run


class Waiting:
    """The clients that wait, by key, each key's in the order in which they came."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.clients: dict[int, Client] = {}
        self.by_key: dict[Place, dict[int, Client]] = {}
        self.ready: dict[Place, None] = {}          # keys to look at, in the order in which they changed
        self.unblocked: deque[Client] = deque()     # their wait is over, what came behind it has yet to run
        self.deadlines: list[tuple[int, int]] = []  # a heap: deadline, client; of waits that are over, too

    def __len__(self) -> int:
        return len(self.clients)

    def with_deadline(self) -> int:
        """How many of them do not wait for ever."""
        return sum(1 for client in self.clients.values() if client.blocked and client.blocked.deadline_ms is not None)

    def block(self, call: Call, keys: Iterable[bytes], deadline_ms: int | None, retry: Retry, nothing: Any) -> Any:
        """Let the calling client wait; the reply of its handler. In a transaction nobody waits."""
        if self.server.in_transaction:
            return nothing
        client = call.client
        keys = list(dict.fromkeys(keys))
        assert client.last_command
        client.blocked = Blocked(client.last_command, call.args, call.db, keys, deadline_ms, retry, nothing)
        if not self.clients:
            self.server.on_change.append(self.touch)
        self.clients[client.id] = client
        for key in keys:
            self.by_key.setdefault((call.db.index, key), {})[client.id] = client
        if deadline_ms is not None:
            heappush(self.deadlines, (deadline_ms, client.id))
            if len(self.deadlines) > 2 * len(self.clients) + 64:        # most of them are over
                self.deadlines = sorted((other.blocked.deadline_ms, other.id) for other in self.clients.values()
                                        if other.blocked and other.blocked.deadline_ms is not None)
        return BLOCKED

    def touch(self, db: Database, key: bytes, event: str) -> None:
        """Something has happened to the key. Only one that is new can be what somebody waits for."""
        if event == "new" and (db.index, key) in self.by_key:
            self.ready[db.index, key] = None

    def touch_all(self, db: Database) -> None:
        """The database has another content: SWAPDB."""
        for index, key in self.by_key:
            if index == db.index:
                self.touch(db, key, "new")

    def serve(self, after: Client) -> None:
        """Serve those who wait for the keys that have changed, until no more change; then the Call is again that of
        the client whose command has changed them."""
        while self.ready:
            ready, self.ready = self.ready, {}
            for index, key in ready:
                for client in list(self.by_key.get((index, key), {}).values()):
                    if key not in self.server.databases[index].values:
                        break                       # all of it is taken; if it comes again, it is ready again
                    if client.blocked and not client.blocked.over:
                        self._try(client, client.blocked, key)
        self.server.call.client, self.server.call.db = after, after.db

    def _try(self, client: Client, blocked: Blocked, key: bytes) -> None:
        def attempt(call: Call) -> Any:
            return blocked.retry(call, key)
        reply = self.server.perform(blocked.command, blocked.args, client, blocked.db, attempt, again=True)
        if reply is not BLOCKED:
            self.unblock(client, reply)

    def unblock(self, client: Client, reply: Any) -> None:
        """End the wait with a reply. What came behind the command is run before the next sleep."""
        self.forget(client)
        client.reply(reply)
        self.unblocked.append(client)

    def forget(self, client: Client) -> None:
        """End the wait, with nothing."""
        blocked = client.blocked
        if blocked is None or blocked.over:
            return
        blocked.over = True
        del self.clients[client.id]
        if not self.clients:
            self.server.on_change.remove(self.touch)
            self.deadlines.clear()
        for key in blocked.keys:
            place = blocked.db.index, key
            del self.by_key[place][client.id]
            if not self.by_key[place]:
                del self.by_key[place]

    def go_on(self) -> None:
        """From before_sleep: run what came behind the commands of clients that waited and have their reply now."""
        while self.unblocked:
            client = self.unblocked.popleft()
            blocked, client.blocked = client.blocked, None
            if blocked and not client.closed:
                self.server.execute(client, blocked.later)
            if client.parser:
                client.resume(client.parser)

    @property
    def next_deadline_ms(self) -> int | None:
        """Not later than the earliest deadline."""
        return self.deadlines[0][0] if self.deadlines else None

    def time_out(self, now_ms: int) -> None:
        """Answer those whose deadline has passed, the earliest first."""
        while self.deadlines and self.deadlines[0][0] <= now_ms:
            deadline_ms, id = heappop(self.deadlines)
            client = self.clients.get(id)
            if client and client.blocked and client.blocked.deadline_ms == deadline_ms:
                self.unblock(client, client.blocked.nothing)
