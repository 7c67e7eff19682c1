"""Keyspace notifications: what happens to keys, published as messages.

Interface:
  - Notifications     told of every change while `notify-keyspace-events` is not empty
  - CLASSES           the letters of that directive, by command group

Every event is published twice, as far as K and E ask for it:

    __keyspace@0__:course   set         what happened to this key?
    __keyevent@0__:set      course      which keys did this happen to?

These are ordinary messages: who is not subscribed at that moment misses them. `expired` is told when the key is
deleted, by whoever meets it or by the active expiry, and not when its deadline passes.

Redis: notify.c (notifyKeyspaceEvent). Simpler here: a client that listens to its own changes (RESP3) hears of them
before the reply. In Redis 7.0 they come where the handler stands: before the reply, behind it, or in an array's midst.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kvref.database import Database
    from kvref.server import Server

CLASSES: Final = {"generic": "g", "string": "$", "bitmap": "$", "list": "l", "set": "s", "hash": "h", "sorted-set": "z"}
NAMED: Final = {"del": "g", "expire": "g", "persist": "g", "expired": "x", "evicted": "e", "new": "n", "keymiss": "m",
                "sortstore": "l"}           # the class of the others is that of the command's group


class Notifications:
    """Publishes what happens to keys."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.wanted: frozenset[str] = frozenset()
        self.of_misses = False              # `keymiss` is no change: Call.read asks before it tells

    def follow(self, letters: str) -> None:
        """`notify-keyspace-events` has these letters now. Without K and E nothing is published."""
        server, wanted = self.server, frozenset(letters)
        if self.wanted:
            server.on_change.remove(self.tell)
        self.wanted = wanted if wanted & {"K", "E"} else frozenset()
        if self.wanted:
            server.on_change.append(self.tell)
        self.of_misses = "m" in self.wanted

    def tell_miss(self, db: Database, key: bytes) -> None:
        """A command that reads has not found the key. OBJECT says nothing of it."""
        if self.server.call.args[0].lower() != b"object":
            self.tell(db, key, "keymiss")

    def tell(self, db: Database, key: bytes, event: str) -> None:
        """Publish one event, if its class is wanted."""
        if not event or self._class(event) not in self.wanted:
            return
        publish = self.server.pubsub.publish
        if "K" in self.wanted:
            publish(b"__keyspace@%d__:%b" % (db.index, key), event.encode())
        if "E" in self.wanted:
            publish(b"__keyevent@%d__:%b" % (db.index, event.encode()), key)

    def _class(self, event: str) -> str:
        if event in NAMED:
            return NAMED[event]
        command = self.server.commands[self.server.call.args[0].lower()]
        return CLASSES.get(command.group, "g")
