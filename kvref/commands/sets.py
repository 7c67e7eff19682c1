"""Sets: members, each of them once, in no order; and what sets have in common, together or of their own.

Interface: the commands of the group "set". Nothing else is meant to be imported from here.

A set is a `Members`: a dict without values. To ask for a member or to add one takes the same time in a set of ten
and of ten million, and so does drawing one by chance, for which `kvref.sampling` keeps a list beside a large set.
Clients see the order of insertion, which means nothing; Redis shows that of its hash table, or of the numbers
in an intset. The set stays a dict throughout: whether Redis would keep it as an intset matters to SSCAN alone, which
answers with a whole intset at once.

What the log gets, where it is not the command itself:

    SPOP k          SREM k <member>                     a replay must not draw again
    SPOP k 3        SREM k <member>, for each of them; DEL k if they were all there were

Redis: t_set.c. Simpler here: SDIFF has one algorithm where Redis has two to choose from. SPOP and SRANDMEMBER leave
the question of how to draw many from few to `kvref.sampling`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import filterfalse, islice
from typing import Any

from kvref.command_table import SYNTAX, WRONGTYPE, Call, command, counted_keys
from kvref.commands.arguments import CARD_OPTIONS, bounded, counted, parse_options, positive
from kvref.commands.scanning import random_members, scan_collection, scanned
from kvref.commands.storing import store
from kvref.numbers import INT64_MAX
from kvref.resp import Error
from kvref.sampling import Members
from kvref.values import encoding

# ---- members -----------------------------------------------------------------------------------


@command("sadd", arity=-3, flags="write denyoom fast", keys=(1, 1, 1), group="set", since="1.0.0")
def sadd(call: Call) -> int:
    "Add members to a set; how many of them are new."
    args = call.args
    value = call.lookup_or_new(args[1], Members)
    if len(args) == 3:                      # the usual case
        added = int(value.put(args[2], None))
    else:
        call.touch(len(args) - 2)
        added = sum([value.put(member, None) for member in args[2:]])
    if added:
        call.changed(args[1], "sadd", added)
    return added


@command("srem", arity=-3, flags="write fast", keys=(1, 1, 1), group="set", since="1.0.0")
def srem(call: Call) -> int:
    "Take members out of a set; how many of them were in it."
    _, key, *members = call.args
    call.touch(len(members))
    value = call.lookup(key, Members)
    removed = 0 if value is None else sum([value.remove(member) for member in members])
    if removed:
        call.changed(key, "srem", removed)
        call.drop_if_empty(key, value)
    return removed


@command("smove", arity=4, flags="write fast", keys=(1, 2, 1), group="set", since="1.0.0")
def smove(call: Call) -> int:
    "Move a member from one set to another; whether it was in the first."
    _, source, target, member = call.args
    have, other = call.lookup(source), call.lookup(target)
    if have is None:
        return 0                            # whatever the target holds
    if type(have) is not Members or other is not None and type(other) is not Members:
        raise WRONGTYPE
    if have is other:
        return int(member in have)
    if not have.remove(member):
        return 0
    call.changed(source, "srem")
    call.drop_if_empty(source, have)
    if (other or call.lookup_or_new(target, Members)).put(member, None):
        call.changed(target, "sadd")
    return 1


@command("sismember", arity=3, flags="readonly fast", keys=(1, 1, 1), group="set", since="1.0.0")
def sismember(call: Call) -> int:
    "Whether something is a member of a set."
    return int(call.args[2] in _members(call))


@command("smismember", arity=-3, flags="readonly fast", keys=(1, 1, 1), group="set", since="6.2.0")
def smismember(call: Call) -> list[int]:
    "Whether each of several things is a member of a set."
    value = _members(call)
    call.touch(len(call.args) - 2)
    return [int(member in value) for member in call.args[2:]]


@command("scard", arity=2, flags="readonly fast", keys=(1, 1, 1), group="set", since="1.0.0")
def scard(call: Call) -> int:
    "How many members a set has."
    return len(_members(call))


@command("smembers", arity=2, flags="readonly", keys=(1, 1, 1), group="set", since="1.0.0")
def smembers(call: Call) -> Members:
    "All members of a set."
    value = _members(call)
    call.touch(len(value))
    return value


def _members(call: Call) -> Members:
    """The set under the key of the command, an empty one where there is none. For commands that only read."""
    return call.read(call.args[1], Members) or Members()


@command("sscan", arity=-3, flags="readonly", keys=(1, 1, 1), group="set", since="2.8.0")
def sscan(call: Call) -> list[Any]:
    "Some members of a set, and the cursor to go on with: 0 at the end."
    value = scanned(call, Members)
    is_small = value is not None and encoding(value, call.server.config) == "intset"
    cursor, some = scan_collection(call, value, is_small)
    return [b"%d" % cursor, some]


# ---- members by chance -------------------------------------------------------------------------

@command("spop", arity=-2, flags="write fast", keys=(1, 1, 1), group="set", since="1.0.0")
def spop(call: Call) -> Any:
    "Take one or several members by chance out of a set."
    key, *amount = call.args[1:]
    if len(amount) > 1:
        raise SYNTAX
    count = positive(amount[0]) if amount else 1
    value = call.lookup(key, Members)
    if value is None or not count:
        return Members() if amount else None
    if amount and count >= len(value):
        call.read(key)                      # Redis hands out all of it by way of SUNION, and that counts as a hit
    drawn = random_members(call, value, count)
    for member in drawn:
        value.remove(member)
    call.changed(key, "spop", len(drawn))
    call.drop_if_empty(key, value)
    if amount and not value:
        call.log_as((b"DEL", key))
    else:
        call.log_as(*[(b"SREM", key, member) for member in drawn])
    return Members(dict.fromkeys(drawn)) if amount else drawn[0]


@command("srandmember", arity=-2, flags="readonly", keys=(1, 1, 1), group="set", since="1.0.0")
def srandmember(call: Call) -> Any:
    "One or several members of a set by chance; with a count below zero one may come again."
    key, *amount = call.args[1:]
    if len(amount) > 1:
        raise SYNTAX
    count = bounded(amount[0], -INT64_MAX, INT64_MAX) if amount else 1
    value = call.read(key, Members)
    if value is None:
        return [] if amount else None
    drawn = random_members(call, value, count)
    return drawn if amount else drawn[0]


# ---- several sets ------------------------------------------------------------------------------

@command("sinter", arity=-2, flags="readonly", keys=(1, -1, 1), group="set", since="1.0.0")
def sinter(call: Call) -> Members:
    "The members that all of the sets have."
    return _intersection(call, call.args[1:])


@command("sinterstore", arity=-3, flags="write denyoom", keys=(1, -1, 1), group="set", since="1.0.0")
def sinterstore(call: Call) -> int:
    "Store the members that all of the sets have."
    return store(call, call.args[1], _intersection(call, call.args[2:]), "sinterstore")


TOO_MANY_KEYS = Error("ERR Number of keys can't be greater than number of args")


@command("sintercard", arity=-3, flags="readonly movablekeys", more_keys=counted_keys(1), group="set", since="7.0.0")
def sintercard(call: Call) -> int:
    "How many members all of the sets have; at most LIMIT, unless that is 0."
    keys, words = counted(call, 1, too_many=TOO_MANY_KEYS)
    found = parse_options(words, CARD_OPTIONS)
    limit = found["limit"][1] if found else 0
    return len(_intersection(call, keys, limit or None))


@command("sunion", arity=-2, flags="readonly", keys=(1, -1, 1), group="set", since="1.0.0")
def sunion(call: Call) -> Members:
    "The members that any of the sets has."
    return _union(call, call.args[1:])


@command("sunionstore", arity=-3, flags="write denyoom", keys=(1, -1, 1), group="set", since="1.0.0")
def sunionstore(call: Call) -> int:
    "Store the members that any of the sets has."
    return store(call, call.args[1], _union(call, call.args[2:]), "sunionstore")


@command("sdiff", arity=-2, flags="readonly", keys=(1, -1, 1), group="set", since="1.0.0")
def sdiff(call: Call) -> Members:
    "The members of the first set that no other has."
    return _difference(call, call.args[1:])


@command("sdiffstore", arity=-3, flags="write denyoom", keys=(1, -1, 1), group="set", since="1.0.0")
def sdiffstore(call: Call) -> int:
    "Store the members of the first set that no other has."
    return store(call, call.args[1], _difference(call, call.args[2:]), "sdiffstore")


def _sets(call: Call, keys: list[bytes]) -> list[Members]:
    """All of the sets, empty ones where there is no key: a wrong type is an error even where it could not matter."""
    return [call.read(key, Members) or Members() for key in keys]


def _union(call: Call, keys: list[bytes]) -> Members:
    sets = _sets(call, keys)
    call.touch(sum(map(len, sets)))
    result = Members()
    for one in sets:
        result.update(one)                  # not by `put`: nobody has sampled it yet
    return result


def _intersection(call: Call, keys: list[bytes], limit: int | None = None) -> Members:
    """Looks at the members of the smallest set alone, and at no more of them when it has found enough."""
    smallest, *others = sorted(_sets(call, keys), key=len)
    return _those(call, smallest, others, filter, limit)


def _difference(call: Call, keys: list[bytes]) -> Members:
    first, *others = _sets(call, keys)
    return _those(call, first, others, filterfalse)


def _those(call: Call, members: Members, others: list[Members], keep: Callable[..., Iterable[bytes]],
           limit: int | None = None) -> Members:
    """The members that are in all the other sets (`filter`), or in none of them (`filterfalse`)."""
    left: Iterable[bytes] = members
    for other in others:
        left = keep(other.__contains__, left)       # nothing is looked at before it is asked for
    result = Members(dict.fromkeys(islice(left, limit)))
    call.touch((limit if len(result) == limit else len(members)) * (1 + len(others)))
    return result
