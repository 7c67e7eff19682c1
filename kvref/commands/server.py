"""Commands about the server as a whole: its data, its log of slow commands, its end.

Interface:
  - DBSIZE, FLUSHDB, FLUSHALL, SWAPDB
  - TIME, ROLE, SLOWLOG GET / LEN / RESET, MONITOR, DEBUG SLEEP / SET-ACTIVE-EXPIRE, SHUTDOWN
  - INFO is in info.py, COMMAND in introspection.py, CONFIG in config.py

Redis: server.c, db.c, slowlog.c, debug.c. Simpler here: FLUSHALL ASYNC frees at once, as SYNC does, and
SHUTDOWN's NOW makes no difference, for there are no replicas to wait for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kvref.command_table import SYNTAX, Call, command, container
from kvref.commands.arguments import not_understood
from kvref.database import Database, swap
from kvref.numbers import parse_int
from kvref.resp import NO_REPLY, OK, Error

ADMIN = "admin noscript loading stale"
INT = range(-2**31, 2**31)

container("slowlog", group="server", since="2.2.12", summary="The commands that took long.")


# ---- the data ------------------------------------------------------------------------------------

@command("dbsize", arity=1, flags="readonly fast", group="server", since="1.0.0")
def dbsize(call: Call) -> int:
    "Count the keys of the current database."
    return len(call.db)


def _flush(call: Call, databases: list[Database]) -> str:
    """Empty them. Goes to the log even if there was nothing to delete, as in Redis."""
    if len(call.args) > 2 or call.args[1:] and call.args[1].lower() not in (b"sync", b"async"):
        raise SYNTAX
    for database in databases:
        call.server.watches.touch_all(database, None, call.now_ms)
    count = sum(database.clear() for database in databases)
    call.server.dirty += count
    if databases is call.server.databases:
        call.server.snapshots.flushed()
    call.touch(count)
    call.log_as(tuple(call.args))
    return OK


@command("flushdb", arity=-1, flags="write", group="server", since="1.0.0")
def flushdb(call: Call) -> str:
    "Delete all keys of the current database."
    return _flush(call, [call.db])


@command("flushall", arity=-1, flags="write", group="server", since="1.0.0")
def flushall(call: Call) -> str:
    "Delete all keys of all databases."
    return _flush(call, call.server.databases)


def _index(word: bytes, which: str) -> int:
    index = parse_int(word)
    if index is None or index not in INT:
        raise Error(f"ERR invalid {which} DB index")
    return index


@command("swapdb", arity=3, flags="write fast", group="server", since="4.0.0")
def swapdb(call: Call) -> str:
    "Exchange two databases, under the feet of their clients."
    one, other = _index(call.args[1], "first"), _index(call.args[2], "second")
    databases = call.server.databases
    if not (0 <= one < len(databases) and 0 <= other < len(databases)):
        raise Error("ERR DB index is out of range")
    pair = databases[one], databases[other]
    call.server.dirty += 1
    if one == other:
        return OK
    call.server.watches.touch_all(*pair, call.now_ms)
    call.server.watches.touch_all(*pair[::-1], call.now_ms)
    swap(databases, one, other)
    for database in pair:
        call.server.waiting.touch_all(database)
    return OK


# ---- looking -------------------------------------------------------------------------------------

@command("time", arity=1, flags="loading stale fast", group="server", since="2.6.0")
def time_(call: Call) -> list[bytes]:
    "Return the wall clock: seconds, and microseconds of the current one."
    return [b"%d" % part for part in divmod(call.server.ports.clock.time_us(), 1_000_000)]


@command("role", arity=1, flags="noscript loading stale fast", group="server", since="2.8.12")
def role(call: Call) -> list[Any]:
    "Return the role in replication: always master, without replicas."
    return [b"master", 0, []]


@command("monitor", arity=1, flags=ADMIN, group="server", since="1.0.0")
def monitor(call: Call) -> Any:
    "From now on send every command that the server runs to this connection."
    if call.server.in_transaction:
        raise Error("ERR MONITOR isn't allowed for DENY BLOCKING client")
    if call.client.monitor:
        return NO_REPLY
    call.client.monitor = True
    call.server.monitors.append(call.client)
    return OK


@command("slowlog|get", arity=-2, flags="admin loading stale", group="server", since="2.2.12")
def slowlog_get(call: Call) -> list[Any]:
    "Return the newest entries: id, time, microseconds, arguments, address and name of the client."
    if len(call.args) > 3:
        raise not_understood(call)
    count = parse_int(call.args[2]) if len(call.args) == 3 else 10
    if count is None or count < -1:
        raise Error("ERR count should be greater than or equal to -1")
    entries = list(call.server.slowlog)             # newest first
    return [[entry.id, entry.time_s, entry.usec, entry.args, entry.peer.encode(), entry.name]
            for entry in entries[:len(entries) if count == -1 else count]]


@command("slowlog|len", arity=2, flags="admin loading stale", group="server", since="2.2.12")
def slowlog_len(call: Call) -> int:
    "Count the entries."
    return len(call.server.slowlog)


@command("slowlog|reset", arity=2, flags="admin loading stale", group="server", since="2.2.12")
def slowlog_reset(call: Call) -> str:
    "Forget all entries."
    call.server.slowlog.clear()
    return OK


# ---- DEBUG: for tests and lessons ----------------------------------------------------------------

def _debug_sleep(call: Call) -> str:
    """Stand still, timers and all other clients included, for so many seconds. What is no number is 0."""
    try:
        us = int(float(call.args[2]) * 1_000_000)
    except (ValueError, OverflowError):
        us = 0
    call.server.ports.clock.sleep(max(0, us))
    return OK


def _debug_active_expire(call: Call) -> str:
    """Switch the cycle that deletes expired keys on (1) or off (0); lazy expiry goes on."""
    call.server.expiry.enabled = bool(parse_int(call.args[2]))
    return OK


def _debug_help(call: Call) -> list[str]:
    return ["DEBUG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
            *(line for _, _, usage, meaning in DEBUG.values() for line in (usage, f"    {meaning}"))]


Debug = tuple[Callable[[Call], Any], range, str, str]       # handler, number of words, usage, meaning

DEBUG: dict[bytes, Debug] = {
    b"set-active-expire": (_debug_active_expire, range(3, 4), "SET-ACTIVE-EXPIRE <0|1>",
                           "Delete expired keys in the background, or only when they are met."),
    b"sleep": (_debug_sleep, range(3, 4), "SLEEP <seconds>", "Stop the server for so long."),
    b"help": (_debug_help, range(2, 3), "HELP", "Print this help."),
}


@command("debug", arity=-2, flags=ADMIN + " protected", group="server", since="1.0.0")
def debug(call: Call) -> Any:
    "Disturb the server on purpose; refused unless `enable-debug-command` allows it."
    handler, words, *_ = DEBUG.get(call.args[1].lower(), (None, range(0)))
    if handler is None or len(call.args) not in words:
        raise not_understood(call)
    return handler(call)


# ---- SHUTDOWN [NOSAVE | SAVE] [NOW] [FORCE] [ABORT] ----------------------------------------------

@command("shutdown", arity=-1, flags=ADMIN + " no_multi allow_busy", group="server", since="1.0.0")
def shutdown(call: Call) -> Any:
    "End the server."
    words = {word.lower() for word in call.args[1:]}
    if words - {b"nosave", b"save", b"now", b"force", b"abort"} or {b"save", b"nosave"} <= words:
        raise SYNTAX
    if b"abort" in words:
        raise SYNTAX if len(words) > 1 else Error("ERR No shutdown in progress.")
    save = True if b"save" in words else False if b"nosave" in words else None
    if not call.server.shutdown(save, b"force" in words):
        raise Error("ERR Errors trying to SHUTDOWN. Check logs.")
    return NO_REPLY
