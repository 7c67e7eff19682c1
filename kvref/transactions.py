"""Transactions: commands that are queued, and then run in a row that nobody can interrupt.

Interface:
  - Transaction                 what one client has watched and queued
  - Watches                     who watches which key; told of every change
  - execute(server, client)     EXEC

One thread runs one command at a time, and EXEC is one command: that is all the isolation there is, and all that is
needed. There is no rollback. A command that cannot be queued (unknown, wrong number of words) spoils the transaction
beforehand: EXECABORT. A command that fails while it runs is an error among the replies; the others have run.

WATCH makes EXEC conditional: if a watched key has changed since, nothing runs, and the reply is a null. A change is
what `Call.changed` tells of, and also a deadline that has passed since.

Redis: multi.c (queueMultiCommand, execCommand, touchWatchedKey, isWatchedKeyExpired).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kvref.memory import size_of_text
from kvref.resp import NO_REPLY, NULL_ARRAY, Error, Request

if TYPE_CHECKING:
    from kvref.client import Client
    from kvref.command_table import Command
    from kvref.database import Database
    from kvref.server import Server

EXECABORT = Error("EXECABORT Transaction discarded because of previous errors.")
EXEC_REFUSED = "EXECABORT Transaction discarded because of: "       # ... and why EXEC itself may not run now

# What is done at once between MULTI and EXEC, everything else is queued.
IMMEDIATE = {"exec", "discard", "multi", "watch", "quit", "reset"}

QUEUED = 128                        # bytes of a list of words, and of its pair with the command
Place = tuple[int, bytes]           # index of a database, key


class Transaction:
    """One client's watched keys, and its queue from MULTI on."""

    __slots__ = ("open", "queue", "size", "broken", "changed", "watched")

    def __init__(self) -> None:
        self.open = False                           # MULTI was said
        self.queue: list[tuple[Command, Request]] = []
        self.size = 0                               # bytes of the queue
        self.broken = False                         # a command could not be queued
        self.changed = False                        # a watched key has changed
        self.watched: dict[Place, bool] = {}        # whether its deadline had passed already when WATCH was said

    def add(self, command: Command, args: Request) -> None:
        """Queue a command, unless it will not be run anyway."""
        if not (self.broken or self.changed):
            self.queue.append((command, args))
            self.size += QUEUED + sum(map(size_of_text, args))


class Watches:
    """The keys that anybody watches, and their watchers in order. While there are any, `on_change` tells of changes."""

    def __init__(self, on_change: list[Any]) -> None:
        self.watchers: dict[Place, dict[int, Client]] = {}
        self.on_change = on_change

    def add(self, client: Client, db: Database, key: bytes, now_ms: int) -> None:
        """WATCH one key."""
        transaction = client.transaction = client.transaction or Transaction()
        place = db.index, key
        if place not in transaction.watched:
            transaction.watched[place] = db.is_expired(key, now_ms)
            if not self.watchers:
                self.on_change.append(self.touch)
            self.watchers.setdefault(place, {})[client.id] = client

    def forget(self, client: Client) -> None:
        """UNWATCH: all keys of a client, for EXEC, DISCARD and the end of its connection too."""
        transaction = client.transaction
        if transaction is None:
            return
        for place in transaction.watched:
            watchers = self.watchers[place]
            del watchers[client.id]
            if not watchers:
                del self.watchers[place]
        if transaction.watched and not self.watchers:
            self.on_change.remove(self.touch)
        transaction.watched.clear()

    def touch(self, db: Database, key: bytes, event: str) -> None:
        """The key has changed. Who watches it has lost; but not who watched a dead key that is now deleted."""
        if event == "new":
            return                                  # what it is will be told next
        place = db.index, key
        for client in list(self.watchers.get(place, {}).values()):
            assert client.transaction
            if client.transaction.watched[place] and key not in db.values:
                client.transaction.watched[place] = False
            elif not client.transaction.watched[place]:
                client.transaction.changed = True
                self.forget(client)

    def touch_all(self, db: Database, after: Database | None, now_ms: int) -> None:
        """FLUSHDB, or SWAPDB with what will be there `after`: every watched key that is there before or after it.

        A dead key is none, neither before nor after.
        """
        if not db.values and not (after and after.values):
            return
        for (index, key), watchers in list(self.watchers.items()):
            comes = after is not None and key in after.values
            if index != db.index or not (comes or key in db.values):
                continue
            dead = after is not None and comes and after.is_expired(key, now_ms)
            for client in list(watchers.values()):
                assert client.transaction
                watched = client.transaction.watched
                if watched[index, key] if dead or not comes else False:
                    watched[index, key] = dead
                elif dead and key not in db.values:
                    watched[index, key] = True
                else:
                    client.transaction.changed = True
                    self.forget(client)


def _is_stale(server: Server, transaction: Transaction) -> bool:
    """Whether a watched key has changed, or its deadline has passed since."""
    return transaction.changed or any(
        not was_expired and server.databases[index].is_expired(key, server.now_ms)
        for (index, key), was_expired in transaction.watched.items())


def execute(server: Server, client: Client) -> Any:
    """Run the queue. The replies are appended one by one, behind their number: whatever else a command has this
    client be sent, a message of its own PUBLISH for one, comes between them."""
    transaction = client.transaction
    assert transaction
    stale = _is_stale(server, transaction)
    discard(server, client)
    if transaction.broken:
        raise EXECABORT
    if stale:
        return NULL_ARRAY
    call, db, request = server.call, server.call.db, server.call.args
    server.in_transaction = True
    client.append(b"*%d\r\n" % len(transaction.queue))
    for command, args in transaction.queue:
        assert command.handler
        leaving = client.close_after_reply          # it has killed itself: the rest runs, unanswered
        reply = server.perform(command, args, client, client.db, command.handler)
        if not leaving:
            client.reply(reply)
    server.in_transaction = False
    server.close_unit()
    call.args, call.db = request, db
    call.log_as()                                   # the unit has told all
    return NO_REPLY


def discard(server: Server, client: Client) -> None:
    """Back to a client that has said neither MULTI nor WATCH."""
    server.watches.forget(client)
    client.transaction = None
