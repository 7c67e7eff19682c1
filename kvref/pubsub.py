"""Publish and subscribe: messages to whoever listens at this moment.

Interface:
  - Subscriptions              the channels and patterns of one client
  - PubSub                     who listens to what
      subscribe, unsubscribe   to or from a name in one of the two tables, `channels` and `patterns`
      publish(channel, data)   to all who listen; how many copies were put into output buffers
      forget(client)           the end of a connection, or RESET

A message is kept nowhere. It is put into the output buffers of those who are subscribed when it is published: once
for the channel, and once for each pattern that matches. Whoever comes later, or is away, never hears of it; whoever
reads too slowly is cut off at the limit of its class (`client-output-buffer-limit pubsub`). Each message is encoded
once for each protocol, whatever the number of subscribers.

Redis: pubsub.c. Simpler here: no sharded channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvref.glob import Glob
from kvref.resp import Push, encode

if TYPE_CHECKING:
    from kvref.client import Client

Table = dict[bytes, dict[int, "Client"]]    # by name, then by id in the order in which they came


class Subscriptions:
    """What one client listens to, in the order in which it asked."""

    __slots__ = ("channels", "patterns")

    def __init__(self) -> None:
        self.channels: dict[bytes, None] = {}
        self.patterns: dict[bytes, None] = {}

    def __len__(self) -> int:
        return len(self.channels) + len(self.patterns)


class PubSub:
    """Who listens to what."""

    def __init__(self) -> None:
        self.channels: Table = {}
        self.patterns: Table = {}
        self.globs: dict[bytes, Glob] = {}          # the same patterns, to be matched

    def subscribe(self, client: Client, kind: str, name: bytes) -> int:
        """Listen; how much this client listens to now. `kind` is "channels" or "patterns"."""
        mine = client.subscriptions = client.subscriptions or Subscriptions()
        getattr(mine, kind)[name] = None
        getattr(self, kind).setdefault(name, {})[client.id] = client
        if kind == "patterns" and name not in self.globs:
            self.globs[name] = Glob(name)
        client.kind = "pubsub"
        return len(mine)

    def unsubscribe(self, client: Client, kind: str, name: bytes) -> int:
        """Listen no more; how much this client still listens to."""
        mine = client.subscriptions
        if mine is None:
            return 0
        table: Table = getattr(self, kind)
        if name in getattr(mine, kind):
            del getattr(mine, kind)[name]
            del table[name][client.id]
            if not table[name]:
                del table[name]
                if table is self.patterns:
                    del self.globs[name]
        if not mine:
            client.subscriptions, client.kind = None, "normal"
        return len(mine)

    def forget(self, client: Client) -> None:
        """End all subscriptions of a client, without a word."""
        for kind in ("channels", "patterns"):
            for name in list(getattr(client.subscriptions, kind, ())):
                self.unsubscribe(client, kind, name)

    def publish(self, channel: bytes, message: bytes) -> int:
        """To the channel's subscribers first, then to those of each pattern that matches, patterns in order of age."""
        count = self._copy(self.channels.get(channel), Push([b"message", channel, message]))
        for pattern in [pattern for pattern, matches in self.globs.items() if matches(channel)]:
            count += self._copy(self.patterns.get(pattern), Push([b"pmessage", pattern, channel, message]))
        return count

    @staticmethod
    def _copy(clients: dict[int, Client] | None, push: Push) -> int:
        if not clients:
            return 0
        encoded: dict[int, bytes] = {}
        for client in list(clients.values()):
            data = encoded.get(client.resp)
            if data is None:
                data = encoded[client.resp] = encode(push, client.resp)
            client.push(data)
        return len(clients)
