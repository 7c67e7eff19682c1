"""Strings: bytes under a key, read and written whole, in ranges, or as numbers.

Interface: the commands of the group "string". Nothing else is meant to be imported from here.

A string is bare `bytes`. A counter too: INCR reads the digits, adds, and writes digits again, so that
every byte of a value is what GET shows. A changed string is a new one (bytes cannot be changed): APPEND
to a megabyte copies a megabyte.

What the log gets, where it is not the command itself:

    SET k v EX 10, SETEX, PSETEX      SET k v PXAT <instant>        a relative time would start anew at a replay
    SET k v NX GET                    SET k v NX                    nobody reads the reply there
    GETSET k v                        SET k v
    GETDEL k                          DEL k
    GETEX k EX 10 / PERSIST           PEXPIREAT k <instant> / PERSIST k, or DEL k for an instant that has passed
    INCRBYFLOAT k 0.1                 SET k <sum> KEEPTTL           the sum does not depend on who adds it up

Redis: t_string.c. Simpler here: no shared integers and no integer encoding of values; LCS is left out.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from kvref.command_table import Call, command
from kvref.commands.arguments import (Option, decimal_sum, integer, integer_sum, invalid_expire, long_double,
                                      parse_options, wrong_arity)
from kvref.numbers import INT64_MAX, INT64_MIN, ZERO
from kvref.resp import OK, Error

# ---- get and set -------------------------------------------------------------------------------


@command("get", arity=2, flags="readonly fast", keys=(1, 1, 1), group="string", since="1.0.0")
def get(call: Call) -> bytes | None:
    "Read a string."
    return call.read(call.args[1], bytes)               # type: ignore[no-any-return]


@command("set", arity=-3, flags="write denyoom", keys=(1, 1, 1), group="string", since="1.0.0")
def set_(call: Call) -> Any:
    "Write a string over whatever the key holds."
    args = call.args
    if len(args) > 3:
        return _set_with_options(call)
    key, db = args[1], call.db
    if key in db.deadlines:
        call.lookup(key)
        _put(call, key, args[2])
    else:
        call.put(key, args[2], "set")
    return OK


def _put(call: Call, key: bytes, value: bytes, deadline_ms: int | None = None, keep_deadline: bool = False) -> None:
    """Write a value over any other. The old deadline goes unless it is kept or a new one is given.

    The caller has looked the key up: so everybody was told, if it had expired.
    """
    db = call.db
    if not keep_deadline and deadline_ms is None:
        db.persist(key)
    db.set(key, value)
    call.changed(key, "set")
    if deadline_ms is not None:
        db.expire_at(key, deadline_ms)
        call.changed(key, "expire", 0)


class Unit(NamedTuple):
    """How a word such as EX states an instant."""

    ms: int                                 # milliseconds in one of it
    relative: bool                          # counted from now, or from 1970


UNITS: Final = {b"EX": Unit(1000, True), b"PX": Unit(1, True), b"EXAT": Unit(1000, False), b"PXAT": Unit(1, False)}
_INSTANTS: Final = {word: Option("deadline", bytes) for word in UNITS}

SET_OPTIONS: Final = {
    **_INSTANTS,
    b"KEEPTTL": Option("deadline"),
    b"NX": Option("condition"),             # only if the key is not there
    b"XX": Option("condition"),             # only if it is
    b"GET": Option("reply"),                # answer with the old value
}
GETEX_OPTIONS: Final = {**_INSTANTS, b"PERSIST": Option("deadline")}
NOT_GIVEN: Final = (b"", None)


def _set_with_options(call: Call) -> Any:
    key, value = call.args[1:3]
    found = parse_options(call.args[3:], SET_OPTIONS)
    word, amount = found.get("deadline", NOT_GIVEN)
    deadline = _instant(call, word, amount) if word in UNITS else None
    wants_old = "reply" in found
    old = call.read(key, bytes) if wants_old else None
    is_new = call.lookup(key) is None
    if "condition" in found and is_new != (found["condition"][0] == b"NX"):
        return old if wants_old else None
    _put(call, key, value, deadline, keep_deadline=word == b"KEEPTTL")
    if deadline is not None:
        call.log_as(_set_until(key, value, deadline))
    elif wants_old:
        call.log_as((*call.args[:3], *(arg for arg in call.args[3:] if arg.upper() != b"GET")))
    return old if wants_old else OK


def _instant(call: Call, word: bytes, amount: bytes) -> int:
    """The deadline in ms of the wall clock. Raises for zero, less, and what does not fit 64 bits."""
    unit = UNITS[word]
    number = integer(amount)
    deadline = number * unit.ms + (call.now_ms if unit.relative else 0)
    if number <= 0 or deadline > INT64_MAX:
        raise invalid_expire(call)
    return deadline


def _set_until(key: bytes, value: bytes, deadline_ms: int) -> tuple[bytes, ...]:
    return b"SET", key, value, b"PXAT", b"%d" % deadline_ms


@command("setnx", arity=3, flags="write denyoom fast", keys=(1, 1, 1), group="string", since="1.0.0")
def setnx(call: Call) -> int:
    "Write a string only if there is no such key."
    _, key, value = call.args
    if call.lookup(key) is not None:
        return 0
    _put(call, key, value)
    return 1


@command("setex", arity=4, flags="write denyoom", keys=(1, 1, 1), group="string", since="2.0.0")
def setex(call: Call) -> str:
    "Write a string that lives for so many seconds."
    return _set_for(call, b"EX")


@command("psetex", arity=4, flags="write denyoom", keys=(1, 1, 1), group="string", since="2.6.0")
def psetex(call: Call) -> str:
    "Write a string that lives for so many milliseconds."
    return _set_for(call, b"PX")


def _set_for(call: Call, word: bytes) -> str:
    _, key, amount, value = call.args
    deadline = _instant(call, word, amount)
    call.lookup(key)
    _put(call, key, value, deadline)
    call.log_as(_set_until(key, value, deadline))
    return OK


@command("getset", arity=3, flags="write denyoom fast", keys=(1, 1, 1), group="string", since="1.0.0")
def getset(call: Call) -> Any:
    "Write a string and answer with the one before it."
    _, key, value = call.args
    old = call.read(key, bytes)
    call.lookup(key)                        # for OBJECT FREQ these are two uses
    _put(call, key, value)
    call.log_as((b"SET", key, value))
    return old


@command("getdel", arity=2, flags="write fast", keys=(1, 1, 1), group="string", since="6.2.0")
def getdel(call: Call) -> Any:
    "Read a string and delete it."
    key = call.args[1]
    old = call.read(key, bytes)
    if old is not None:
        _delete(call, key)
    return old


def _delete(call: Call, key: bytes) -> None:
    call.db.delete(key)
    call.changed(key, "del")
    call.log_as((b"DEL", key))


@command("getex", arity=-2, flags="write fast", keys=(1, 1, 1), group="string", since="6.2.0")
def getex(call: Call) -> Any:
    "Read a string and give it another deadline, or none."
    key = call.args[1]
    word, amount = parse_options(call.args[2:], GETEX_OPTIONS).get("deadline", NOT_GIVEN)
    value = call.read(key, bytes)
    if value is None:
        return None
    if word in UNITS:
        _expire(call, key, _instant(call, word, amount))
    elif word == b"PERSIST" and call.db.persist(key):
        call.changed(key, "persist")
        call.log_as((b"PERSIST", key))
    return value


def _expire(call: Call, key: bytes, deadline_ms: int) -> None:
    if deadline_ms <= call.now_ms:
        _delete(call, key)
    else:
        call.db.expire_at(key, deadline_ms)
        call.changed(key, "expire")
        call.log_as((b"PEXPIREAT", key, b"%d" % deadline_ms))


# ---- several at once ---------------------------------------------------------------------------

@command("mget", arity=-2, flags="readonly fast", keys=(1, -1, 1), group="string", since="1.0.0")
def mget(call: Call) -> list[bytes | None]:
    "Read several strings; nil where there is none."
    keys = call.args[1:]
    call.touch(len(keys))
    return [value if type(value) is bytes else None for value in map(call.read, keys)]


@command("mset", arity=-3, flags="write denyoom", keys=(1, -1, 2), group="string", since="1.0.1")
def mset(call: Call) -> str:
    "Write several strings at once."
    db = call.db
    for key, value in _pairs(call):
        if key in db.deadlines:
            call.lookup(key)
            _put(call, key, value)
        else:
            call.put(key, value, "set")
    return OK


@command("msetnx", arity=-3, flags="write denyoom", keys=(1, -1, 2), group="string", since="1.0.1")
def msetnx(call: Call) -> int:
    "Write several strings at once, but none of them if any of the keys exists."
    pairs = _pairs(call)
    if any(call.lookup(key) is not None for key, _ in pairs):
        return 0
    for key, value in pairs:
        _put(call, key, value)
    return 1


def _pairs(call: Call) -> list[tuple[bytes, bytes]]:
    args = call.args
    if len(args) % 2 == 0:
        raise wrong_arity(call)
    call.touch(len(args) // 2)
    return list(zip(args[1::2], args[2::2]))


# ---- parts of a string -------------------------------------------------------------------------

@command("append", arity=3, flags="write denyoom fast", keys=(1, 1, 1), group="string", since="2.0.0")
def append(call: Call) -> int:
    "Add bytes to the end of a string."
    _, key, more = call.args
    old = call.lookup(key, bytes)
    if old is not None:
        _check_length(call, len(old) + len(more))
    return _replace(call, key, (old or b"") + more, "append")


@command("strlen", arity=2, flags="readonly fast", keys=(1, 1, 1), group="string", since="2.2.0")
def strlen(call: Call) -> int:
    "The length of a string in bytes."
    return len(call.read(call.args[1], bytes) or b"")


@command("getrange", arity=4, flags="readonly", keys=(1, 1, 1), group="string", since="2.4.0")
@command("substr", arity=4, flags="readonly", keys=(1, 1, 1), group="string", since="1.0.0")
def getrange(call: Call) -> bytes:
    "The bytes from one position to another, both included; -1 is the last."
    start, end = integer(call.args[2]), integer(call.args[3])
    value = call.read(call.args[1], bytes) or b""
    if start < 0 and end < 0 and start > end:
        return b""                          # both may lie before the first byte, where they would become equal
    first, last = (max(0, at + len(value)) if at < 0 else at for at in (start, end))
    return bytes(value[first:last + 1])


@command("setrange", arity=4, flags="write denyoom", keys=(1, 1, 1), group="string", since="2.2.0")
def setrange(call: Call) -> int:
    "Write bytes over a part of a string; a gap before them is filled with zero bytes."
    _, key, position, part = call.args
    offset = integer(position)
    if offset < 0:
        raise Error("ERR offset is out of range")
    old = call.lookup(key, bytes) or b""
    if not part:
        return len(old)
    end = offset + len(part)
    _check_length(call, end)
    return _replace(call, key, old[:offset].ljust(offset, b"\0") + part + old[end:], "setrange")


def _check_length(call: Call, length: int) -> None:
    if length > call.server.config.proto_max_bulk_len:
        raise Error("ERR string exceeds maximum allowed size (proto-max-bulk-len)")


def _replace(call: Call, key: bytes, value: bytes, event: str) -> int:
    """Put another value in place of the old one, with the same deadline; its length."""
    call.db.set(key, value)
    call.changed(key, event)
    return len(value)


# ---- numbers -----------------------------------------------------------------------------------

@command("incr", arity=2, flags="write denyoom fast", keys=(1, 1, 1), group="string", since="1.0.0")
def incr(call: Call) -> int:
    "Add one to a number."
    return _add(call, 1)


@command("decr", arity=2, flags="write denyoom fast", keys=(1, 1, 1), group="string", since="1.0.0")
def decr(call: Call) -> int:
    "Subtract one from a number."
    return _add(call, -1)


@command("incrby", arity=3, flags="write denyoom fast", keys=(1, 1, 1), group="string", since="1.0.0")
def incrby(call: Call) -> int:
    "Add an integer to a number."
    return _add(call, integer(call.args[2]))


@command("decrby", arity=3, flags="write denyoom fast", keys=(1, 1, 1), group="string", since="1.0.0")
def decrby(call: Call) -> int:
    "Subtract an integer from a number."
    amount = integer(call.args[2])
    if amount == INT64_MIN:                 # it has no opposite
        raise Error("ERR decrement would overflow")
    return _add(call, -amount)


def _add(call: Call, amount: int) -> int:
    key = call.args[1]
    old = call.lookup(key, bytes)
    total = amount if old is None else integer_sum(integer(old), amount)
    _replace(call, key, b"%d" % total, "incrby")
    return total


@command("incrbyfloat", arity=3, flags="write denyoom fast", keys=(1, 1, 1), group="string", since="2.6.0")
def incrbyfloat(call: Call) -> bytes:
    "Add a number with decimals to a number."
    _, key, amount = call.args
    old = call.lookup(key, bytes)
    total = decimal_sum(ZERO if old is None else long_double(old), long_double(amount))
    _replace(call, key, total, "incrbyfloat")
    call.log_as((b"SET", key, total, b"KEEPTTL"))
    return total
