"""Hashes: fields and their values under one key.

Interface: the commands of the group "hash". Nothing else is meant to be imported from here.

A hash is a `kvref.sampling.Hash`: a dict from field to value, in order of insertion, which draws members at random
and walks them by a cursor once somebody asks. A value is bytes; a counter is the digits of a number, as in strings.

What the log gets, where it is not the command itself:

    HINCRBYFLOAT k f 0.1            HSET k f <sum>      the sum does not depend on who adds it up

Redis: t_hash.c.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

from kvref.command_table import Call, command
from kvref.commands.arguments import bounded, decimal_sum, integer, integer_sum, long_double, wrong_arity
from kvref.commands.scanning import random_count, random_members, scan_collection, scanned
from kvref.numbers import INT64_MAX, INT64_MIN
from kvref.resp import OK, Error, Pairs
from kvref.sampling import Hash
from kvref.values import encoding

# ---- set ---------------------------------------------------------------------------------------


@command("hset", arity=-4, flags="write denyoom fast", keys=(1, 1, 1), group="hash", since="2.0.0")
def hset(call: Call) -> int:
    "Write fields; how many of them are new."
    args = call.args
    if len(args) % 2:
        raise wrong_arity(call)
    value = call.lookup_or_new(args[1], Hash)
    added = int(value.put(args[2], args[3])) if len(args) == 4 else sum(map(value.put, args[2::2], args[3::2]))
    call.changed(args[1], "hset", len(args) // 2 - 1)
    return added


@command("hmset", arity=-4, flags="write denyoom fast", keys=(1, 1, 1), group="hash", since="2.0.0")
def hmset(call: Call) -> str:
    "Write fields, as HSET does."
    hset(call)
    return OK


@command("hsetnx", arity=4, flags="write denyoom fast", keys=(1, 1, 1), group="hash", since="2.0.0")
def hsetnx(call: Call) -> int:
    "Write a field only if it is not there."
    _, key, field, text = call.args
    value = call.lookup_or_new(key, Hash)
    if field in value:
        return 0
    value.put(field, text)
    call.changed(key, "hset")
    return 1


@command("hdel", arity=-3, flags="write fast", keys=(1, 1, 1), group="hash", since="2.0.0")
def hdel(call: Call) -> int:
    "Delete fields; how many there were."
    _, key, *fields = call.args
    value = call.lookup(key, Hash)
    if value is None:
        return 0
    call.touch(len(fields))
    removed: int = sum(map(value.remove, fields))
    if removed:
        call.changed(key, "hdel", removed)
        call.drop_if_empty(key, value)
    return removed


# ---- get ---------------------------------------------------------------------------------------

@command("hget", arity=3, flags="readonly fast", keys=(1, 1, 1), group="hash", since="2.0.0")
def hget(call: Call) -> bytes | None:
    "Read a field."
    return _read(call).get(call.args[2])


@command("hmget", arity=-3, flags="readonly fast", keys=(1, 1, 1), group="hash", since="2.0.0")
def hmget(call: Call) -> list[bytes | None]:
    "Read several fields; nil where there is none."
    value = _read(call)
    call.touch(len(call.args) - 2)
    return [value.get(field) for field in call.args[2:]]


@command("hexists", arity=3, flags="readonly fast", keys=(1, 1, 1), group="hash", since="2.0.0")
def hexists(call: Call) -> int:
    "Whether a field is there."
    return int(call.args[2] in _read(call))


@command("hlen", arity=2, flags="readonly fast", keys=(1, 1, 1), group="hash", since="2.0.0")
def hlen(call: Call) -> int:
    "How many fields there are."
    return len(_read(call))


@command("hstrlen", arity=3, flags="readonly fast", keys=(1, 1, 1), group="hash", since="3.2.0")
def hstrlen(call: Call) -> int:
    "The length of a field's value in bytes."
    return len(_read(call).get(call.args[2], b""))


@command("hgetall", arity=2, flags="readonly", keys=(1, 1, 1), group="hash", since="2.0.0")
def hgetall(call: Call) -> Hash:
    "All fields and their values."
    return _all(call)


@command("hkeys", arity=2, flags="readonly", keys=(1, 1, 1), group="hash", since="2.0.0")
def hkeys(call: Call) -> list[bytes]:
    "All fields."
    return list(_all(call))


@command("hvals", arity=2, flags="readonly", keys=(1, 1, 1), group="hash", since="2.0.0")
def hvals(call: Call) -> list[bytes]:
    "The values of all fields."
    return list(_all(call).values())


def _all(call: Call) -> Hash:
    value = _read(call)
    call.touch(len(value))
    return value


def _read(call: Call) -> Hash:
    """The hash under the first key; without one an empty hash, which nobody keeps."""
    return call.read(call.args[1], Hash) or Hash()


# ---- numbers -----------------------------------------------------------------------------------

@command("hincrby", arity=4, flags="write denyoom fast", keys=(1, 1, 1), group="hash", since="2.0.0")
def hincrby(call: Call) -> int:
    "Add an integer to a field."
    amount = integer(call.args[3])
    old = bounded(_number(call), INT64_MIN, INT64_MAX, "ERR hash value is not an integer")
    total = integer_sum(old, amount)
    _store(call, b"%d" % total, "hincrby")
    return total


@command("hincrbyfloat", arity=4, flags="write denyoom fast", keys=(1, 1, 1), group="hash", since="2.6.0")
def hincrbyfloat(call: Call) -> bytes:
    "Add a number with decimals to a field."
    _, key, field, text = call.args
    amount = long_double(text)
    if not amount.finite:
        raise Error("ERR value is NaN or Infinity")
    total = decimal_sum(long_double(_number(call), "ERR hash value is not a float"), amount)
    _store(call, total, "hincrbyfloat")
    call.log_as((b"HSET", key, field, total))
    return total


def _number(call: Call) -> bytes:
    """What the field to be changed holds; 0 if there is no such field."""
    _, key, field, _ = call.args
    return (call.lookup(key, Hash) or Hash()).get(field, b"0")


def _store(call: Call, text: bytes, event: str) -> None:
    _, key, field, _ = call.args
    (call.db.values.get(key) or call.lookup_or_new(key, Hash)).put(field, text)     # `_number` has looked it up
    call.changed(key, event)


# ---- some of it --------------------------------------------------------------------------------

@command("hrandfield", arity=-2, flags="readonly", keys=(1, 1, 1), group="hash", since="6.2.0")
def hrandfield(call: Call) -> Any:
    "A random field, or so many different ones; with a negative count the same may come again."
    if len(call.args) == 2:
        value = _read(call)
        return random_members(call, value, 1)[0] if value else None
    count, with_values = random_count(call, b"WITHVALUES")
    value = _read(call)
    fields = random_members(call, value, count) if value else []
    return Pairs((field, value[field]) for field in fields) if with_values else fields


@command("hscan", arity=-3, flags="readonly", keys=(1, 1, 1), group="hash", since="2.8.0")
def hscan(call: Call) -> list[Any]:
    "Some of the fields with their values, and the cursor to go on with: 0 at the end."
    value = scanned(call, Hash)
    is_small = value is not None and encoding(value, call.server.config) == "listpack"
    cursor, fields = scan_collection(call, value, is_small)
    return [b"%d" % cursor, list(chain.from_iterable((field, value[field]) for field in fields))]
