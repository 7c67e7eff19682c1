"""Commands about the connection itself: who speaks, which protocol, which database.

Interface:
  - PING, ECHO, QUIT, RESET, SELECT, AUTH, HELLO, ACL WHOAMI

Redis: server.c, networking.c (helloCommand, resetCommand), acl.c (authCommand), db.c (selectCommand).
Simpler here: there is one user, `default`, and its password is `requirepass`.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kvref.command_table import REDIS_VERSION, SYNTAX, Call, command, container
from kvref.commands.clients import set_name
from kvref.numbers import parse_int
from kvref.quoting import c_text
from kvref.resp import OK, Error
from kvref.transactions import discard

if TYPE_CHECKING:
    from kvref.client import Client


FAST = "noscript loading stale fast no_auth allow_busy"

WRONGPASS = Error("WRONGPASS invalid username-password pair or user is disabled.")
NO_PASSWORD = Error("ERR AUTH <password> called without any password configured for the default user. "
                    "Are you sure your configuration is correct?")
NOAUTH_HELLO = Error("NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO "
                     "AUTH <user> <pass> option can be used to authenticate the client and select the RESP "
                     "protocol version at the same time")

container("acl", group="server", since="6.0.0", summary="Who may do what.")


@command("ping", arity=-1, flags="fast", group="connection", since="1.0.0")
def ping(call: Call) -> Any:
    "Answer PONG, or with the text that was sent."
    if len(call.args) > 2:
        raise Error("ERR wrong number of arguments for 'ping' command")
    if call.client.subscriptions and call.client.resp == 2:
        return [b"pong", call.args[1] if len(call.args) == 2 else b""]
    return call.args[1] if len(call.args) == 2 else "PONG"


@command("echo", arity=2, flags="loading stale fast", group="connection", since="1.0.0")
def echo(call: Call) -> bytes:
    "Answer with the text that was sent."
    return call.args[1]


@command("quit", arity=-1, flags=FAST, group="connection", since="1.0.0")
def quit_(call: Call) -> str:
    "Answer OK and close the connection."
    call.client.close_after_reply = True
    return OK


@command("select", arity=2, flags="loading stale fast", group="connection", since="1.0.0")
def select(call: Call) -> str:
    "Make another database the current one of this connection."
    index = parse_int(call.args[1])
    if index is None:
        raise Error("ERR value is not an integer or out of range")
    if not -2**31 <= index < 2**31:
        raise Error("ERR value is out of range, value must between -2147483648 and 2147483647")
    if not 0 <= index < len(call.server.databases):
        raise Error("ERR DB index is out of range")
    call.client.select(index)
    return OK


@command("reset", arity=1, flags=FAST, group="connection", since="6.2.0")
def reset(call: Call) -> str:
    "Make the connection as it was when it was new."
    client, server = call.client, call.server
    if client.monitor:
        server.monitors.remove(client)
        client.monitor = False
    discard(server, client)
    server.pubsub.forget(client)
    client.resp = 2
    client.name = b""
    client.select(0)
    client.authenticated = not server.config.requirepass
    return "RESET"


# ---- who is speaking -----------------------------------------------------------------------------

REDACTED = b"(redacted)"


def log_in(call: Call, user: bytes, password: bytes) -> None:
    """Take the client for the default user, or raise. Without `requirepass` any password is right.

    The comparison takes as long for a wrong first byte as for a wrong last one.
    """
    wanted = call.server.config.requirepass
    if user != b"default" or wanted and not hmac.compare_digest(password, wanted):
        raise WRONGPASS
    call.client.authenticated = True


@command("auth", arity=-2, flags=FAST, group="connection", since="1.0.0")
def auth(call: Call) -> str:
    "Say the password, with or without the user."
    if len(call.args) > 3:
        raise SYNTAX
    words = call.args[1:]
    call.args[1:] = [REDACTED] * len(words)         # MONITOR and SLOWLOG come after this
    if len(words) == 1 and not call.server.config.requirepass:
        raise NO_PASSWORD
    user, password = words if len(words) == 2 else (b"default", words[0])
    log_in(call, user, password)
    return OK


@command("acl|whoami", arity=2, flags="noscript loading stale", group="server", since="6.0.0")
def acl_whoami(call: Call) -> bytes:
    "Return the user of this connection."
    return b"default"


# ---- HELLO [protocol [AUTH user password] [SETNAME name]] ----------------------------------------

def _hello_auth(call: Call, i: int) -> None:
    user, password = call.args[i + 1:i + 3]
    call.args[i + 1:i + 3] = [REDACTED, REDACTED]
    log_in(call, user, password)


def _hello_setname(call: Call, i: int) -> None:
    set_name(call.client, call.args[i + 1])


HELLO_OPTIONS: dict[bytes, tuple[int, Callable[[Call, int], None]]] = {
    b"auth": (2, _hello_auth),
    b"setname": (1, _hello_setname),
}


def _protocol(word: bytes) -> int:
    version = parse_int(word)
    if version is None:
        raise Error("ERR Protocol version is not an integer or out of range")
    if version not in (2, 3):
        raise Error("NOPROTO unsupported protocol version")
    return version


@command("hello", arity=-1, flags=FAST, group="connection", since="6.0.0")
def hello(call: Call) -> dict[bytes, Any]:
    "Choose the protocol, and learn who the server is."
    client, args = call.client, call.args
    version = _protocol(args[1]) if len(args) > 1 else client.resp
    i = 2
    while i < len(args):                            # an option before a wrong one has had its effect: as Redis
        count, option = HELLO_OPTIONS.get(args[i].lower(), (len(args), None))
        if option is None or i + count >= len(args):
            raise Error(f"ERR Syntax error in HELLO option '{c_text(args[i])}'")
        option(call, i)
        i += 1 + count
    if not client.authenticated:
        raise NOAUTH_HELLO
    client.resp = version
    return {b"server": b"redis", b"version": REDIS_VERSION.encode(), b"proto": version, b"id": client.id,
            b"mode": b"standalone", b"role": b"master", b"modules": []}
