"""CLIENT: the connections of this server, to look at, to name and to end.

Interface:
  - CLIENT ID, LIST, INFO, KILL, SETNAME, GETNAME, SETINFO (HELP: introspection.py)
  - set_name(client, name)    also for HELLO ... SETNAME
  - describe(client)          the line of CLIENT LIST

Redis: clientCommand and catClientInfoString in networking.c. lib-name and lib-ver, and CLIENT SETINFO that
sets them, are those of Redis 7.2: client libraries of today send it on every connection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kvref.command_table import SYNTAX, Call, command, container
from kvref.commands.arguments import integer, not_understood
from kvref.numbers import parse_int
from kvref.quoting import c_text, text
from kvref.resp import OK, Error, Verbatim

if TYPE_CHECKING:
    from kvref.client import Client
    from kvref.server import Server

container("client", group="connection", since="2.4.0", summary="The connections of this server.")

ADMIN = "admin noscript loading stale"
PLAIN = "noscript loading stale"


# ---- CLIENT LIST and INFO ------------------------------------------------------------------------

FLAGS: dict[str, Callable[[Any], bool]] = {
    "O": lambda c: c.monitor,
    "P": lambda c: c.kind == "pubsub",
    "x": lambda c: bool(c.transaction and c.transaction.open),
    "b": lambda c: bool(c.blocked and not c.blocked.over),
    "d": lambda c: bool(c.transaction and c.transaction.changed),
    "c": lambda c: c.close_after_reply,
    "u": lambda c: bool(c.blocked and c.blocked.over),
}


def flags(client: Client) -> str:
    """One letter for each state the connection is in; "N" for none."""
    return "".join(letter for letter, applies in FLAGS.items() if applies(client)) or "N"


# One row for each field of the line of a Client, in Redis's order. What kvref has no number for is what a Redis shows
# that does not use the feature.
FIELDS: dict[str, Callable[[Any], object]] = {
    "id": lambda c: c.id,
    "addr": lambda c: c.peer,
    "laddr": lambda c: c.own,
    "fd": lambda c: c.sock,
    "name": lambda c: c.name.decode(),
    "age": lambda c: (c.server.now_us - c.created_us) // 1_000_000,
    "idle": lambda c: (c.server.now_us - c.last_us) // 1_000_000,
    "flags": flags,
    "db": lambda c: c.db.index,
    "sub": lambda c: len(c.subscriptions.channels) if c.subscriptions else 0,
    "psub": lambda c: len(c.subscriptions.patterns) if c.subscriptions else 0,
    "ssub": lambda c: 0,
    "multi": lambda c: len(c.transaction.queue) if c.transaction and c.transaction.open else -1,
    "qbuf": lambda c: c.query_size,
    "qbuf-free": lambda c: 0,
    "argv-mem": lambda c: sum(map(len, c.server.call.args)) if c.server.call.client is c else 0,
    "multi-mem": lambda c: c.transaction.size if c.transaction else 0,
    "rbs": lambda c: 0,
    "rbp": lambda c: 0,
    "obl": lambda c: 0,                             # Redis's fixed buffer; here all output is in the list
    "oll": lambda c: len(c.output),
    "omem": lambda c: c.output_size,
    "tot-mem": lambda c: c.memory,
    "events": lambda c: "rw" if c.watching_write else "r",
    "cmd": lambda c: c.last_command.name if c.last_command else "NULL",
    "user": lambda c: "default",
    "redir": lambda c: -1,
    "resp": lambda c: c.resp,
    "lib-name": lambda c: c.lib_name.decode(),
    "lib-ver": lambda c: c.lib_ver.decode(),
}

TYPES = {b"normal": "normal", b"slave": "replica", b"replica": "replica", b"pubsub": "pubsub", b"master": "master"}


def describe(client: Client) -> str:
    """`id=7 addr=127.0.0.1:1234 ...`, one line. Redis: catClientInfoString."""
    return " ".join(f"{name}={value(client)}" for name, value in FIELDS.items()) + "\n"


def _kind(argument: bytes) -> str:
    try:
        return TYPES[argument.lower()]
    except KeyError:
        raise Error(f"ERR Unknown client type '{c_text(argument)}'") from None


def _connected(server: Server) -> list[Client]:
    """All but those that this turn has ended: they are freed before the next sleep, and gone for everybody now."""
    return [client for client in server.clients.values() if not client.closed]


def _listed(call: Call) -> list[Client]:
    """The clients that CLIENT LIST is about: all, those of a type, or those with the given ids."""
    clients, words = _connected(call.server), call.args[2:]
    option = words[0].lower() if words else b""
    if not words:
        return clients
    if option == b"type" and len(words) == 2:
        kind = _kind(words[1])
        return [client for client in clients if client.kind == kind]
    if option == b"id" and len(words) > 1:
        ids = [parse_int(word) for word in words[1:]]
        if None in ids:
            raise Error("ERR Invalid client ID")
        by_id = {client.id: client for client in clients}
        return [by_id[id] for id in ids if id in by_id]
    raise SYNTAX


@command("client|list", arity=-2, flags=ADMIN, group="connection", since="2.4.0")
def client_list(call: Call) -> Verbatim:
    "List the connections, a line each."
    return Verbatim("".join(map(describe, _listed(call))).encode())


@command("client|info", arity=2, flags=PLAIN, group="connection", since="6.2.0")
def client_info(call: Call) -> Verbatim:
    "Describe this connection."
    return Verbatim(describe(call.client).encode())


# ---- CLIENT KILL ---------------------------------------------------------------------------------

Filter = Callable[["Client"], bool]


def _by_id(call: Call, value: bytes) -> Filter:
    id = parse_int(value)
    if id is None or id < 1:
        raise Error("ERR client-id should be greater than 0")
    return lambda client: client.id == id


def _by_user(call: Call, value: bytes) -> Filter:
    if value != b"default":
        raise Error(f"ERR No such user '{c_text(value)}'")
    return lambda client: True                      # there is no other user


def _by_type(call: Call, value: bytes) -> Filter:
    kind = _kind(value)
    return lambda client: client.kind == kind


def _by_address(call: Call, value: bytes) -> Filter:
    return lambda client: client.peer == text(value)


def _by_own_address(call: Call, value: bytes) -> Filter:
    return lambda client: client.own == text(value)


def _skip_me(call: Call, value: bytes) -> Filter:
    me = call.client
    keep: dict[bytes, Filter] = {b"yes": lambda client: client is not me, b"no": lambda client: True}
    try:
        return keep[value.lower()]
    except KeyError:
        raise SYNTAX from None


FILTERS: dict[bytes, Callable[[Call, bytes], Filter]] = {
    b"id": _by_id,
    b"type": _by_type,
    b"addr": _by_address,
    b"laddr": _by_own_address,
    b"user": _by_user,
    b"skipme": _skip_me,
}


def _filters(call: Call) -> dict[bytes, Filter]:
    """The conditions of the new form; the last one of a kind counts."""
    chosen = {b"skipme": _skip_me(call, b"yes")}
    words = call.args[2:]
    for option, value in zip(words[::2], words[1::2]):
        if option.lower() not in FILTERS:
            raise SYNTAX
        chosen[option.lower()] = FILTERS[option.lower()](call, value)
    if len(words) % 2:
        raise SYNTAX
    return chosen


@command("client|kill", arity=-3, flags=ADMIN, group="connection", since="2.4.0")
def client_kill(call: Call) -> Any:
    "End connections: one by its address, or all that pass the filters ID, TYPE, ADDR, LADDR, USER, SKIPME."
    if len(call.args) == 3:
        address = text(call.args[2])
        if not _kill(call, lambda client: client.peer == address, limit=1):
            raise Error("ERR No such client")
        return OK
    chosen = _filters(call)
    return _kill(call, lambda client: all(passes(client) for passes in chosen.values()))


def _kill(call: Call, passes: Filter, limit: int | None = None) -> int:
    victims = [client for client in _connected(call.server) if passes(client)][:limit]
    for client in victims:
        if client is call.client:
            client.close_after_reply = True         # it shall still read the answer
        else:
            client.close_soon()
            call.server.leave(client)               # nobody serves or counts it any more
    return len(victims)


UNBLOCKED = Error("UNBLOCKED client unblocked via CLIENT UNBLOCK")


@command("client|unblock", arity=-3, flags=ADMIN, group="connection", since="5.0.0")
def client_unblock(call: Call) -> int:
    "End the wait of a client, as if its time were over or, on request, with an error; whether it waited."
    words = [word.lower() for word in call.args[3:]]
    if len(words) > 1:
        raise not_understood(call)
    if words and words[0] not in (b"timeout", b"error"):
        raise Error("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR")
    client = call.server.clients.get(integer(call.args[2]))
    if client is None or client.blocked is None or client.blocked.over:
        return 0
    if words == [b"error"]:
        client.blocked.command.failed += 1
        call.server.count_error(UNBLOCKED)
    call.server.waiting.unblock(client, UNBLOCKED if words == [b"error"] else client.blocked.nothing)
    return 1


# ---- names ---------------------------------------------------------------------------------------

def _check_word(what: str, value: bytes) -> None:
    """Names stand in CLIENT LIST's line, so they hold neither blanks nor anything that cannot be printed."""
    if not all(0x21 <= byte <= 0x7E for byte in value):
        raise Error(f"ERR {what} cannot contain spaces, newlines or special characters.")


def set_name(client: Client, name: bytes) -> None:
    """Name a connection; b"" takes the name away. Redis: clientSetNameOrReply."""
    _check_word("Client names", name)
    client.name = name


@command("client|id", arity=2, flags=PLAIN, group="connection", since="5.0.0")
def client_id(call: Call) -> int:
    "Return the number of this connection."
    return call.client.id


@command("client|setname", arity=3, flags=PLAIN, group="connection", since="2.6.9")
def client_setname(call: Call) -> str:
    "Name this connection."
    set_name(call.client, call.args[2])
    return OK


@command("client|getname", arity=2, flags=PLAIN, group="connection", since="2.6.9")
def client_getname(call: Call) -> bytes | None:
    "Return the name of this connection."
    return call.client.name or None


LIBRARY = {b"lib-name": "lib_name", b"lib-ver": "lib_ver"}


@command("client|setinfo", arity=4, flags=PLAIN, group="connection", since="7.2.0")
def client_setinfo(call: Call) -> str:
    "Say which client library speaks here."
    option, value = call.args[2:]
    if option.lower() not in LIBRARY:
        raise Error(f"ERR Unrecognized option '{c_text(option)}'")
    _check_word(text(option), value)
    setattr(call.client, LIBRARY[option.lower()], value)
    return OK
