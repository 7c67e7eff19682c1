"""Commands about snapshots and the log, and about values as they stand in one.

Interface:
  - SAVE, BGSAVE, LASTSAVE          `persistence.snapshot`
  - DUMP, RESTORE                   one value: type byte, value, 2 bytes of version, CRC-64 of all that
  - BGREWRITEAOF, WAITAOF           `persistence.aof`; the latter is of Redis 7.2
  - DEBUG RELOAD, LOADAOF, DIGEST, DIGEST-VALUE

A RESTORE goes to the log with an absolute deadline.

Redis: saveCommand and bgsaveCommand in rdb.c, dumpCommand and restoreCommand in cluster.c, debug.c.
"""

from __future__ import annotations

import posixpath
from functools import partial
from typing import Any, Final

from kvref.command_table import SYNTAX, Call, command
from kvref.commands.arguments import Option, bounded, integer, parse_options, positive
from kvref.commands.server import DEBUG
from kvref.numbers import INT64_MAX, parse_int
from kvref.persistence import digest, load, rdb
from kvref.persistence.crc64 import crc64
from kvref.persistence.cursor import Cursor, Unreadable
from kvref.resp import OK, Error

RUNNING: Final = Error("ERR Background save already in progress")


@command("save", arity=1, flags="admin noscript no_async_loading no_multi", group="server", since="1.0.0")
def save(call: Call) -> str:
    "Write a snapshot; everybody waits until it is on the disk."
    snapshots = call.server.snapshots
    if snapshots.child is not None:
        raise RUNNING
    snapshots.saves += 1
    call.log_as()                           # it counts as no change that the count of changes is 0 now
    if not snapshots.save():
        raise Error("ERR")
    return OK


@command("bgsave", arity=-1, flags="admin noscript no_async_loading", group="server", since="1.0.0")
def bgsave(call: Call) -> str:
    "Have a child write a snapshot."
    words, server = [word.lower() for word in call.args[1:]], call.server
    if words not in ([], [b"schedule"]):
        raise SYNTAX
    if server.snapshots.child is not None:
        raise RUNNING
    if server.children or server.in_transaction:
        if not words and not server.in_transaction:
            raise Error("ERR Another child process is active (AOF?): can't BGSAVE right now. Use BGSAVE SCHEDULE in "
                        "order to schedule a BGSAVE whenever possible.")
        server.snapshots.scheduled = True
        return "Background saving scheduled"
    if not server.snapshots.save_in_background():
        raise Error("ERR")
    return "Background saving started"


@command("lastsave", arity=1, flags="loading stale fast", group="server", since="1.0.0")
def lastsave(call: Call) -> int:
    "Return when the last snapshot was done, in seconds since 1970."
    return call.server.snapshots.last_save_s


@command("bgrewriteaof", arity=1, flags="admin noscript no_async_loading", group="server", since="1.0.0")
def bgrewriteaof(call: Call) -> str:
    "Have a child write the log anew, as short as it can be."
    server = call.server
    if server.aof.child is not None and not server.aof.cancelled:      # a killed one is as good as gone
        raise Error("ERR Background append only file rewriting already in progress")
    if server.children or server.in_transaction:
        server.aof.scheduled = True
        return "Background append only file rewriting scheduled"
    if not server.aof.rewrite():
        raise Error("ERR Can't execute an AOF background rewriting. Please check the server logs for more information.")
    return "Background append only file rewriting started"


@command("waitaof", arity=4, flags="noscript blocking", group="generic", since="7.2.0")
def waitaof(call: Call) -> Any:
    "Wait until all effects so far are durable; return whether they are, and the number of replicas: none."
    server, aof, client = call.server, call.server.aof, call.client
    local, replicas = bounded(call.args[1], 0, 1), positive(call.args[2])
    timeout_ms = parse_int(call.args[3])
    if timeout_ms is None or timeout_ms < 0:
        raise Error("ERR timeout is " + ("not an integer or out of range" if timeout_ms is None else "negative"))
    if local and not server.config.appendonly:
        raise Error("ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.")
    wanted, reply = aof.position, [0, 0]

    def is_over() -> bool:
        """Asked whenever more has become durable."""
        if client.blocked and client.blocked.nothing is reply and not client.blocked.over:
            reply[0] = int(aof.file is not None and aof.durable >= wanted)
            if reply[0] and not replicas:
                server.waiting.unblock(client, reply)
        return client.blocked is None or client.blocked.over
    reply[0] = int(aof.file is not None and aof.durable >= wanted and not server.unit)
    if reply[0] >= local and not replicas:
        return reply
    if len(aof.waiters) > 2 * len(server.waiting):              # most have given up
        aof.waiters[:] = [wait for wait in aof.waiters if not wait()]
    aof.waiters.append(is_over)
    deadline_ms = call.now_ms + timeout_ms if timeout_ms else None
    return server.waiting.block(call, [], deadline_ms, lambda call, key: None, reply)


# ---- one value -----------------------------------------------------------------------------------

@command("dump", arity=2, flags="readonly", keys=(1, 1, 1), group="generic", since="2.6.0")
def dump(call: Call) -> bytes | None:
    "Return a value as it would stand in a snapshot, with version and checksum behind it."
    value = call.read(call.args[1])
    if value is None:
        return None
    kind, pieces = rdb.save_value(value, call.server.config)
    payload = bytes([kind]) + b"".join(pieces) + rdb.VERSION.to_bytes(2, "little")
    return payload + crc64(payload).to_bytes(8, "little")


def _for_eviction(text: bytes, high: int, complaint: str) -> int:
    """What is no number at all has a complaint of its own."""
    return bounded(b"%d" % integer(text), 0, high, complaint)


RESTORE_OPTIONS: Final = {
    b"REPLACE": Option("replace"), b"ABSTTL": Option("absolute"),
    b"IDLETIME": Option("use", partial(_for_eviction, high=INT64_MAX,
                                       complaint="ERR Invalid IDLETIME value, must be >= 0")),
    b"FREQ": Option("use", partial(_for_eviction, high=255,
                                   complaint="ERR Invalid FREQ value, must be >= 0 and <= 255")),
}


@command("restore", arity=-4, flags="write denyoom", keys=(1, 1, 1), group="generic", since="2.6.0")
def restore(call: Call) -> str:
    "Make a key of what DUMP returned."
    key, ttl, payload = call.args[1:4]
    found = parse_options(call.args[4:], RESTORE_OPTIONS)
    if "replace" not in found and call.lookup(key) is not None:
        raise Error("BUSYKEY Target key name already exists.")
    deadline_ms = integer(ttl)
    if deadline_ms < 0:
        raise Error("ERR Invalid TTL value, must be >= 0")
    value = _value(call, payload)
    replaced = call.db.delete(key)          # without REPLACE there is nothing
    if deadline_ms and "absolute" not in found:
        deadline_ms += call.now_ms
    in_time = call.now_ms < deadline_ms <= INT64_MAX or call.db.frozen      # a sum that overflows lies in the past in C
    if deadline_ms and not in_time:
        call.log_as(*[(b"DEL", key)] * replaced)
        if replaced:
            call.changed(key, "del")
        return OK
    call.db.set(key, value)
    if deadline_ms:
        call.db.expire_at(key, deadline_ms)
        if "absolute" not in found:
            call.log_as((*call.args[:2], b"%d" % deadline_ms, *call.args[3:], b"ABSTTL"))
    call.changed(key, "restore")
    word, number = found.get("use", (b"", None))
    call.server.eviction.restore(call.db, key, **{"idle_s" if word == b"IDLETIME" else "frequency": number})
    return OK


def _value(call: Call, payload: bytes) -> Any:
    """Redis: verifyDumpPayload, rdbLoadObject."""
    version, checksum = (int.from_bytes(part, "little") for part in (payload[-10:-8], payload[-8:]))
    if len(payload) < 10 or version > rdb.VERSION or checksum != crc64(payload[:-8]):
        raise Error("ERR DUMP payload version or checksum are wrong")
    try:
        return rdb.load_value(Cursor(payload[:-10]))
    except Unreadable as error:
        call.server.log("#", f"RESTORE: integrity check failed: {error}")       # its client hears less
        raise Error("ERR Bad data format") from None


# ---- DEBUG ---------------------------------------------------------------------------------------

def _debug_reload(call: Call) -> str:
    """Save, forget everything, load: what is there has been through the file. NOSAVE and NOFLUSH leave a step out;
    with MERGE a key of the file takes the place of one that was not forgotten.

    A file that is not ours is read once before anything is forgotten: else the next snapshot would be of a half.
    """
    server, path = call.server, call.server.snapshots.path
    words = {word.lower() for word in call.args[2:]}
    if server.loading:
        raise Error("LOADING Redis is loading the dataset in memory")       # what is half loaded is not to be saved
    if words - {b"nosave", b"noflush", b"merge"}:
        raise Error("ERR DEBUG RELOAD only supports the MERGE, NOFLUSH and NOSAVE options.")
    call.log_as()
    if b"nosave" not in words and not server.snapshots.save():
        raise Error("ERR")
    try:
        twice = _keys(call, path) if words & {b"nosave", b"merge"} else []
        for database in server.databases:
            if b"noflush" in words:
                database.keys.clear()       # loading goes past it: whoever asks next gets a new list of the keys
            else:
                server.watches.touch_all(database, None, call.now_ms)
                database.clear()
        for index, key in twice if b"merge" in words else ():
            server.databases[index].delete(key)
        load.snapshot(server, path, serving=False)
    except (Unreadable, OSError) as error:
        server.log("#", str(error))
        raise Error("ERR Error trying to load the RDB dump") from None
    return OK


def _keys(call: Call, path: str) -> list[tuple[int, bytes]]:
    """Where the living keys of a dump are to be; without a file there are none. Unreadable, OSError."""
    disk, databases = call.server.disk, call.server.databases
    if posixpath.basename(path) not in disk.list(posixpath.dirname(path)):
        return []
    return [(index, key) for index, key, _, deadline_ms in rdb.load(path, disk, call.server.config.rdbchecksum)
            if index < len(databases) and (deadline_ms is None or deadline_ms >= call.now_ms)]


def _debug_loadaof(call: Call) -> str:
    """Forget everything, and execute the log again."""
    server, aof, before = call.server, call.server.aof, (call.client, call.db, call.args)
    aof.flush(force=True)
    for database in server.databases:
        server.watches.touch_all(database, None, call.now_ms)
        database.clear()
    try:
        manifest = aof.manifest if aof.file is not None else aof.read_manifest()
        load.log(server, [aof.path(part.name) for part in manifest.parts], serving=False)
    except (Unreadable, OSError) as error:
        server.log("#", str(error))
        raise Error("ERR Error trying to load the AOF files, check server logs.") from None
    finally:
        call.client, call.db, call.args = before
        call.log_as()
    server.log("#", "Append Only File loaded by DEBUG LOADAOF")
    return OK


def _debug_digest(call: Call) -> str:
    return digest.of_databases(call.server.databases).hex()


def _debug_digest_value(call: Call) -> list[str]:
    """Of what is physically there, whether its time is over or not."""
    found = [(key, call.db.values.get(key)) for key in call.args[2:]]
    return [(digest.NOTHING if value is None else digest.of_value(value, key in call.db.deadlines)).hex()
            for key, value in found]


ANY_NUMBER: Final = range(2, 1 << 20)       # of words

DEBUG |= {
    b"reload": (_debug_reload, ANY_NUMBER, "RELOAD [NOSAVE] [NOFLUSH] [MERGE]",
                "Save, forget everything, and load it again."),
    b"loadaof": (_debug_loadaof, range(2, 3), "LOADAOF", "Flush the log, forget everything, and load the log."),
    b"digest": (_debug_digest, range(2, 3), "DIGEST", "Show a fingerprint of all databases."),
    b"digest-value": (_debug_digest_value, ANY_NUMBER, "DIGEST-VALUE <key> [<key> ...]",
                      "Show fingerprints of values."),
}
