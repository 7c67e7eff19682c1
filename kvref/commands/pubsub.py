"""Publish and subscribe: the commands. The mechanism is kvref/pubsub.py.

Interface: the commands of the group "pubsub".

A subscription is confirmed by a push of its own for each name, so the handlers append these themselves and return
nothing. In RESP2 a client that is subscribed may say nothing but these, PING, QUIT and RESET; see Server.check.

Redis: pubsub.c.
"""

from __future__ import annotations

from typing import Any

from kvref.command_table import Call, command, container
from kvref.commands.arguments import not_understood
from kvref.glob import glob_match
from kvref.resp import NO_REPLY, Push, encode

FLAGS = "pubsub noscript loading stale"
KINDS = {b"subscribe": "channels", b"unsubscribe": "channels", b"psubscribe": "patterns", b"punsubscribe": "patterns"}


def _confirm(call: Call, verb: bytes, name: bytes | None, count: int) -> None:
    call.client.append(encode(Push([verb, name, count]), call.client.resp))


@command("subscribe", arity=-2, flags=FLAGS, group="pubsub", since="2.0.0")
@command("psubscribe", arity=-2, flags=FLAGS, group="pubsub", since="2.0.0")
def subscribe(call: Call) -> Any:
    "Listen to channels, or to all channels that match a pattern."
    verb = call.args[0].lower()
    for name in call.args[1:]:
        _confirm(call, verb, name, call.server.pubsub.subscribe(call.client, KINDS[verb], name))
    return NO_REPLY


@command("unsubscribe", arity=-1, flags=FLAGS, group="pubsub", since="2.0.0")
@command("punsubscribe", arity=-1, flags=FLAGS, group="pubsub", since="2.0.0")
def unsubscribe(call: Call) -> Any:
    "Listen no more to some channels or patterns, or to any."
    verb, client = call.args[0].lower(), call.client
    names = call.args[1:] or list(getattr(client.subscriptions, KINDS[verb], ()))
    for name in names:
        _confirm(call, verb, name, call.server.pubsub.unsubscribe(client, KINDS[verb], name))
    if not names:
        _confirm(call, verb, None, len(client.subscriptions or ()))
    return NO_REPLY


@command("publish", arity=3, flags="pubsub loading stale fast", group="pubsub", since="2.0.0")
def publish(call: Call) -> int:
    "Send a message to all who listen now; how many copies were made."
    return call.server.pubsub.publish(call.args[1], call.args[2])


container("pubsub", group="pubsub", since="2.8.0", summary="Who listens to what.")


@command("pubsub|channels", arity=-2, flags="pubsub loading stale", group="pubsub", since="2.8.0")
def pubsub_channels(call: Call) -> list[bytes]:
    "The channels that somebody listens to, all or those that match a pattern."
    if len(call.args) > 3:
        raise not_understood(call)
    channels = call.server.pubsub.channels
    return [channel for channel in channels if len(call.args) == 2 or glob_match(call.args[2], channel)]


@command("pubsub|numsub", arity=-2, flags="pubsub loading stale", group="pubsub", since="2.8.0")
def pubsub_numsub(call: Call) -> list[Any]:
    "How many listen to each of these channels."
    channels = call.server.pubsub.channels
    return [word for name in call.args[2:] for word in (name, len(channels.get(name, ())))]


@command("pubsub|numpat", arity=2, flags="pubsub loading stale", group="pubsub", since="2.8.0")
def pubsub_numpat(call: Call) -> int:
    "How many patterns somebody listens to."
    return len(call.server.pubsub.patterns)
