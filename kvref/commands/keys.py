"""Keys, whatever they hold: deletion, deadlines, names, iteration.

Interface: the commands of the group "generic". Nothing else is meant to be imported from here.

A deadline is an instant of the wall clock, in milliseconds. EXPIRE and its kin state it in four ways, all
of them are logged as PEXPIREAT, or as DEL where the instant has already passed.

Redis: db.c, expire.c, and the OBJECT command in object.c. Simpler here: UNLINK frees the value at once, as DEL does;
OBJECT ENCODING is what the value would have if a command made it now: not how it grew, nor what a file held (of which
Redis keeps the listpacks).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from kvref.command_table import NO_SUCH_KEY, Call, command, container
from kvref.commands.arguments import Option, bounded, integer, invalid_expire, parse_options
from kvref.commands.introspection import help_lines
from kvref.commands.scanning import PAGE_OPTIONS, matcher, parse_cursor, parse_page
from kvref.database import Database
from kvref.numbers import INT64_MAX, INT64_MIN, parse_int
from kvref.quoting import c_text
from kvref.resp import OK, Error
from kvref.values import encoding, type_name

# ---- is it there? ------------------------------------------------------------------------------

@command("type", arity=2, flags="readonly fast", keys=(1, 1, 1), group="generic", since="1.0.0")
def type_(call: Call) -> str:
    "The type of the value: string, list, hash, set, zset; none without a key."
    return type_name(call.peek(call.args[1]))


@command("exists", arity=-2, flags="readonly fast", keys=(1, -1, 1), group="generic", since="1.0.0")
def exists(call: Call) -> int:
    "How many of the keys exist; a key named twice counts twice."
    return _count(call, call.peek)


@command("touch", arity=-2, flags="readonly fast", keys=(1, -1, 1), group="generic", since="3.2.1")
def touch(call: Call) -> int:
    "Mark keys as just used; how many of them exist."
    return _count(call, call.read)


def _count(call: Call, look: Callable[[bytes], Any]) -> int:
    keys = call.args[1:]
    call.touch(len(keys))
    return sum(look(key) is not None for key in keys)


@command("del", arity=-2, flags="write", keys=(1, -1, 1), group="generic", since="1.0.0")
def del_(call: Call) -> int:
    "Delete keys; how many there were."
    return _delete_all(call)


@command("unlink", arity=-2, flags="write fast", keys=(1, -1, 1), group="generic", since="4.0.0")
def unlink(call: Call) -> int:
    "Delete keys, as DEL does."
    return _delete_all(call)


def _delete_all(call: Call) -> int:
    keys = call.args[1:]
    call.touch(len(keys))
    return sum(_delete(call, key) for key in keys)


def _delete(call: Call, key: bytes) -> bool:
    if call.lookup(key) is None:
        return False
    call.db.delete(key)
    call.changed(key, "del")
    return True


# ---- deadlines ---------------------------------------------------------------------------------

@command("expire", arity=-3, flags="write fast", keys=(1, 1, 1), group="generic", since="1.0.0")
def expire(call: Call) -> int:
    "Let a key live for so many seconds."
    return _expire(call, 1000, call.now_ms)


@command("pexpire", arity=-3, flags="write fast", keys=(1, 1, 1), group="generic", since="2.6.0")
def pexpire(call: Call) -> int:
    "Let a key live for so many milliseconds."
    return _expire(call, 1, call.now_ms)


@command("expireat", arity=-3, flags="write fast", keys=(1, 1, 1), group="generic", since="1.2.0")
def expireat(call: Call) -> int:
    "Let a key live until a second since 1970."
    return _expire(call, 1000, 0)


@command("pexpireat", arity=-3, flags="write fast", keys=(1, 1, 1), group="generic", since="2.6.0")
def pexpireat(call: Call) -> int:
    "Let a key live until a millisecond since 1970."
    return _expire(call, 1, 0)


# Whether a new deadline may take the place of the old one. A key without a deadline (None) lives for ever.
RULES: Final[dict[bytes, Callable[[int, int | None], bool]]] = {
    b"NX": lambda new, old: old is None,
    b"XX": lambda new, old: old is not None,
    b"GT": lambda new, old: old is not None and new > old,
    b"LT": lambda new, old: old is None or new < old,
}
CONTRADICTIONS: Final = (
    (b"NX", {b"XX", b"GT", b"LT"}, Error("ERR NX and XX, GT or LT options at the same time are not compatible")),
    (b"GT", {b"LT"}, Error("ERR GT and LT options at the same time are not compatible")),
)


def _expire(call: Call, unit_ms: int, base_ms: int) -> int:
    """Give a key its deadline: `args[2]` units after `base_ms`."""
    key, amount, *words = call.args[1:]
    rules = _rules(words)
    deadline = _deadline(call, integer(amount) * unit_ms, base_ms)
    if call.lookup(key) is None or not all(RULES[rule](deadline, call.db.deadlines.get(key)) for rule in rules):
        return 0
    if deadline <= call.now_ms and not call.db.frozen:
        _delete(call, key)
        call.log_as((b"DEL", key))
        return 1
    call.db.expire_at(key, deadline)
    call.changed(key, "expire")
    if (unit_ms, base_ms) != (1, 0):        # PEXPIREAT is its own effect
        call.log_as((b"PEXPIREAT", key, b"%d" % deadline, *words))
    return 1


def _rules(words: list[bytes]) -> list[bytes]:
    rules = [word.upper() for word in words]
    for rule, word in zip(rules, words):
        if rule not in RULES:
            raise Error(f"ERR Unsupported option {c_text(word)}")
    for rule, others, error in CONTRADICTIONS:
        if rule in rules and not others.isdisjoint(rules):
            raise error
    return rules


def _deadline(call: Call, span_ms: int, base_ms: int) -> int:
    """Negative is fine: it has passed. What does not fit 64 bits on the way is not."""
    if not INT64_MIN <= span_ms <= INT64_MAX - base_ms:
        raise invalid_expire(call)
    return base_ms + span_ms


@command("ttl", arity=2, flags="readonly fast", keys=(1, 1, 1), group="generic", since="1.0.0")
def ttl(call: Call) -> int:
    "Seconds left to live; -1 without a deadline, -2 without a key."
    return _rounded(_left(call, call.now_ms))


@command("pttl", arity=2, flags="readonly fast", keys=(1, 1, 1), group="generic", since="2.6.0")
def pttl(call: Call) -> int:
    "Milliseconds left to live; -1 without a deadline, -2 without a key."
    return _left(call, call.now_ms)


@command("expiretime", arity=2, flags="readonly fast", keys=(1, 1, 1), group="generic", since="7.0.0")
def expiretime(call: Call) -> int:
    "The deadline in seconds since 1970; -1 without a deadline, -2 without a key."
    return _rounded(_left(call, 0))


@command("pexpiretime", arity=2, flags="readonly fast", keys=(1, 1, 1), group="generic", since="7.0.0")
def pexpiretime(call: Call) -> int:
    "The deadline in milliseconds since 1970; -1 without a deadline, -2 without a key."
    return _left(call, 0)


def _left(call: Call, since_ms: int) -> int:
    key = call.args[1]
    if call.peek(key) is None:
        return -2
    deadline = call.db.deadlines.get(key)
    return -1 if deadline is None else max(0, deadline - since_ms)


def _rounded(ms: int) -> int:
    """To the nearest second; -1 and -2 are no times."""
    return (ms + 500) // 1000 if ms >= 0 else ms


@command("persist", arity=2, flags="write fast", keys=(1, 1, 1), group="generic", since="2.2.0")
def persist(call: Call) -> int:
    "Take the deadline from a key; whether it had one."
    key = call.args[1]
    if call.lookup(key) is None or not call.db.persist(key):
        return 0
    call.changed(key, "persist")
    return 1


# ---- other names, other databases --------------------------------------------------------------

@command("rename", arity=3, flags="write", keys=(1, 2, 1), group="generic", since="1.0.0")
def rename(call: Call) -> str:
    "Give a value another key, in place of what that key held."
    _rename(call, replace=True)
    return OK


@command("renamenx", arity=3, flags="write fast", keys=(1, 2, 1), group="generic", since="1.0.0")
def renamenx(call: Call) -> int:
    "Give a value another key, if that key is free."
    return int(_rename(call, replace=False))


def _rename(call: Call, replace: bool) -> bool:
    _, old, new = call.args
    if call.lookup(old) is None:
        raise NO_SUCH_KEY
    if old == new or (call.lookup(new) is not None and not replace):
        return False
    _carry(call.db, old, call.db, new)
    call.changed(old, "rename_from")
    call.changed(new, "rename_to", 0)       # one change, told of two keys
    return True


def _carry(source: Database, old: bytes, target: Database, new: bytes) -> None:
    """Take a key elsewhere, with all that is known of it."""
    value, deadline = source.values[old], source.deadlines.get(old)
    use = source.access[old] if source.access is not None else None
    source.delete(old)
    _place(target, new, value, deadline)
    if target.access is not None and use is not None:
        target.access[new] = use


def _place(db: Database, key: bytes, value: Any, deadline_ms: int | None) -> None:
    """Put value and deadline in place of whatever is there."""
    db.delete(key)
    db.set(key, value)
    if deadline_ms is not None:
        db.expire_at(key, deadline_ms)


@command("move", arity=3, flags="write fast", keys=(1, 1, 1), group="generic", since="1.0.0")
def move(call: Call) -> int:
    "Take a key to another database, if it is free there."
    key = call.args[1]
    target = _database(call, call.args[2])
    if target is call.db:
        raise SAME_OBJECT
    if call.lookup(key) is None or target.find(key, call.now_ms) is not None:
        return 0
    _carry(call.db, key, target, key)
    call.changed(key, "move_from")
    call.changed(key, "move_to", 0, target)
    return 1


@command("copy", arity=-3, flags="write denyoom", keys=(1, 2, 1), group="generic", since="6.2.0")
def copy_(call: Call) -> int:
    "Copy a value to another key, in this database or another."
    source, key, *words = call.args[1:]
    found = parse_options(words, {b"DB": Option("db", partial(_database, call)), b"REPLACE": Option("replace")})
    target: Database = found.get("db", (b"", call.db))[1]
    if target is call.db and source == key:
        raise SAME_OBJECT
    value = call.read(source)
    if value is None or (target.find(key, call.now_ms) is not None and "replace" not in found):
        return 0
    _place(target, key, copy.copy(value), call.db.deadlines.get(source))
    call.changed(key, "copy_to", 1, target)
    return 1


SAME_OBJECT: Final = Error("ERR source and destination objects are the same")
INT32_MIN: Final = -2**31
INT32_MAX: Final = 2**31 - 1


def _database(call: Call, text: bytes) -> Database:
    index = bounded(text, INT32_MIN, INT32_MAX)
    if not 0 <= index < len(call.server.databases):
        raise Error("ERR DB index is out of range")
    return call.server.databases[index]


# ---- which keys are there? ---------------------------------------------------------------------

@command("keys", arity=2, flags="readonly", group="generic", since="1.0.0")
def keys(call: Call) -> list[bytes]:
    "All keys that match a pattern. Looks at every key, while everybody waits."
    db, now_ms = call.db, call.now_ms
    fits = matcher(call.args[1])
    call.touch(len(db))
    return [key for key in db.values if fits(key) and not db.is_expired(key, now_ms)]


SCAN_OPTIONS: Final = {**PAGE_OPTIONS, b"TYPE": Option("type", bytes.lower)}


@command("scan", arity=-2, flags="readonly", group="generic", since="2.8.0")
def scan(call: Call) -> list[Any]:
    "Some of the keys, and the cursor to go on with: 0 at the end."
    cursor, page = parse_cursor(call.args[1]), parse_page(call.args[2:], SCAN_OPTIONS)
    kind = None if page.type is None else page.type.decode("latin-1")
    cursor, some = call.db.scan(cursor, page.size)
    call.touch(len(some))
    now_ms, find = call.now_ms, call.db.find                # in Redis, too, TYPE makes hits of the keys it looks at
    return [b"%d" % cursor, [key for key in some if page.fits(key) and _is_of(
        find(key, now_ms) if kind is None else call.peek(key), kind)]]


def _is_of(value: Any, kind: str | None) -> bool:
    return value is not None and kind in (None, type_name(value))


@command("randomkey", arity=1, flags="readonly", group="generic", since="1.0.0")
def randomkey(call: Call) -> bytes | None:
    "Any key, each as likely as the others."
    while (key := call.db.random_key(call.server.random)) is not None:
        if call.db.find(key, call.now_ms) is not None:
            break                           # the others have expired: now they are gone, too
    return key


# ---- object: how a value is kept ---------------------------------------------------------------

container("object", group="generic", since="2.2.3", summary="How the server keeps a value.")


@command("object|encoding", arity=3, flags="readonly", keys=(2, 2, 1), group="generic", since="2.2.3")
def object_encoding(call: Call) -> bytes | None:
    "The layout that Redis would choose for the value."
    value = call.peek(call.args[2])
    return None if value is None else encoding(value, call.server.config).encode()


@command("object|refcount", arity=3, flags="readonly", keys=(2, 2, 1), group="generic", since="2.2.3")
def object_refcount(call: Call) -> int | None:
    "How many share the value: 1, but for the small integers, which Redis shares."
    value = call.peek(call.args[2])
    if value is None:
        return None
    each_for_itself = call.server.eviction.limit and call.server.eviction.kind      # each with its own use
    number = parse_int(value) if type(value) is bytes and not each_for_itself else None
    return INT32_MAX if number is not None and 0 <= number < SHARED_INTEGERS else 1


SHARED_INTEGERS: Final = 10_000


@command("object|idletime", arity=3, flags="readonly", keys=(2, 2, 1), group="generic", since="2.2.3")
def object_idletime(call: Call) -> int | None:
    "Seconds since the key was last used; 0 unless an LRU policy has it noted."
    if call.peek(call.args[2]) is None:
        return None
    if call.server.eviction.kind == "lfu":
        raise Error("ERR An LFU maxmemory policy is selected, idle time not tracked." + SWITCHING)
    return call.server.eviction.idle_ms(call.db, call.args[2]) // 1000


@command("object|freq", arity=3, flags="readonly", keys=(2, 2, 1), group="generic", since="4.0.0")
def object_freq(call: Call) -> int | None:
    "How often the key is used, on a logarithmic scale up to 255; counted under an LFU policy only."
    if call.peek(call.args[2]) is None:
        return None
    if call.server.eviction.kind != "lfu":
        raise Error("ERR An LFU maxmemory policy is not selected, access frequency not tracked." + SWITCHING)
    return call.server.eviction.frequency(call.db, call.args[2])


SWITCHING: Final = (" Please note that when switching between policies at runtime LRU and LFU data will take some time "
                    "to adjust.")


@command("object|help", arity=2, flags="loading stale", group="generic", since="6.2.0")
def object_help(call: Call) -> list[str]:
    "What OBJECT can tell."
    return help_lines(call.server.commands[b"object"])
