"""Lists: elements in order, quick at both ends.

Interface: the commands of the group "list", and for their blocking forms
  - ENDS                                    LEFT and RIGHT: how to push and pop there, and what that is called
  - pop(call, key, end)                     an element, None without a list
  - pop_many(call, key, end, count)         up to so many elements, None without a list
  - pop_first(call, keys, end, count)       [key, elements] of the first key that holds a list, None without one
  - move(call, source, target, out, into)   from one end of a list to one end of another; the element, None without one

A list is a bare `deque` of bytes: a chain of blocks with room for 64 elements each. Both ends are at hand. What lies
between them is reached from the nearer end, and so a range costs what is read and what is skipped, an insertion
what must make room. Python code runs once for each element only where elements are taken out or compared.

What the log gets, where it is not the command itself:

    LMPOP 2 k l LEFT COUNT 5        LPOP l 3            the key it was, and as many as there were

Redis: t_list.c, quicklist.c. Simpler here: LPOS RANK -9223372036854775808, which C cannot turn around, finds nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from typing import Any, Final, NamedTuple

from kvref.command_table import NO_SUCH_KEY, Call, command, counted_keys
from kvref.commands.arguments import Option, choice, counted_pop, integer, parse_options, positive, span, wrong_arity
from kvref.resp import NULL_ARRAY, OK, Error


class End(NamedTuple):
    """One end of a list: what a deque does there, and what Redis calls it."""

    push: Callable[[deque[bytes], Iterable[bytes]], None]       # one after the other
    pop: Callable[[deque[bytes]], bytes]
    pushed: str                             # events
    popped: str


LEFT: Final = End(deque.extendleft, deque.popleft, "lpush", "lpop")
RIGHT: Final = End(deque.extend, deque.pop, "rpush", "rpop")
ENDS: Final = {b"LEFT": LEFT, b"RIGHT": RIGHT}

# ---- push --------------------------------------------------------------------------------------

@command("lpush", arity=-3, flags="write denyoom fast", keys=(1, 1, 1), group="list", since="1.0.0")
def lpush(call: Call) -> int:
    "Put elements before the first, one after the other; makes a list where there is none."
    return _push(call, LEFT, call.lookup_or_new(call.args[1], deque))


@command("rpush", arity=-3, flags="write denyoom fast", keys=(1, 1, 1), group="list", since="1.0.0")
def rpush(call: Call) -> int:
    "Put elements behind the last; makes a list where there is none."
    return _push(call, RIGHT, call.lookup_or_new(call.args[1], deque))


@command("lpushx", arity=-3, flags="write denyoom fast", keys=(1, 1, 1), group="list", since="2.2.0")
def lpushx(call: Call) -> int:
    "Put elements before the first, if there is a list."
    return _push(call, LEFT, call.lookup(call.args[1], deque))


@command("rpushx", arity=-3, flags="write denyoom fast", keys=(1, 1, 1), group="list", since="2.2.0")
def rpushx(call: Call) -> int:
    "Put elements behind the last, if there is a list."
    return _push(call, RIGHT, call.lookup(call.args[1], deque))


def _push(call: Call, end: End, value: deque[bytes] | None) -> int:
    if value is None:
        return 0
    end.push(value, call.args[2:])
    call.changed(call.args[1], end.pushed, len(call.args) - 2)
    return len(value)


# ---- pop and move ------------------------------------------------------------------------------

@command("lpop", arity=-2, flags="write fast", keys=(1, 1, 1), group="list", since="1.0.0")
def lpop(call: Call) -> Any:
    "Take out the first element, or so many."
    return pop(call, call.args[1], LEFT) if len(call.args) == 2 else _pop_count(call, LEFT)


@command("rpop", arity=-2, flags="write fast", keys=(1, 1, 1), group="list", since="1.0.0")
def rpop(call: Call) -> Any:
    "Take out the last element, or so many, the last one first."
    return pop(call, call.args[1], RIGHT) if len(call.args) == 2 else _pop_count(call, RIGHT)


def _pop_count(call: Call, end: End) -> Any:
    if len(call.args) > 3:
        raise wrong_arity(call)
    elements = pop_many(call, call.args[1], end, positive(call.args[2]))
    return NULL_ARRAY if elements is None else elements


def pop(call: Call, key: bytes, end: End) -> bytes | None:
    """Take one element out and tell; None without a list."""
    if (value := call.lookup(key, deque)) is None:
        return None
    element = end.pop(value)
    call.changed(key, end.popped)
    if not value:
        call.drop_if_empty(key, value)
    return element


def pop_many(call: Call, key: bytes, end: End, count: int) -> list[bytes] | None:
    """Take out up to `count` elements and tell; None without a list."""
    if (value := call.lookup(key, deque)) is None:
        return None
    elements = [end.pop(value) for _ in range(min(count, len(value)))]
    if elements:
        _removed(call, key, value, end.popped, len(elements))
    return elements


def _removed(call: Call, key: bytes, value: deque[bytes], event: str, n: int) -> None:
    call.touch(n)
    call.changed(key, event, n)
    call.drop_if_empty(key, value)


@command("lmpop", arity=-4, flags="write movablekeys", more_keys=counted_keys(1), group="list", since="7.0.0")
def lmpop(call: Call) -> Any:
    "Take elements out of the first of several lists that is there."
    return pop_first(call, *counted_pop(call, 1, ENDS)) or NULL_ARRAY


def pop_first(call: Call, keys: list[bytes], end: End, count: int) -> list[Any] | None:
    """Take up to `count` elements from the first key that holds a list: [key, elements], None without one."""
    for key in keys:
        if elements := pop_many(call, key, end, count):
            call.log_as((end.popped.upper().encode(), key, b"%d" % len(elements)))
            return [key, elements]
    return None


@command("lmove", arity=5, flags="write denyoom", keys=(1, 2, 1), group="list", since="6.2.0")
def lmove(call: Call) -> bytes | None:
    "Take an element out at one end of a list and put it in at one end of another, or the same."
    return move(call, call.args[1], call.args[2], choice(call.args[3], ENDS), choice(call.args[4], ENDS))


@command("rpoplpush", arity=3, flags="write denyoom", keys=(1, 2, 1), group="list", since="1.2.0")
def rpoplpush(call: Call) -> bytes | None:
    "Take out the last element of a list and put it before the first of another, or the same."
    return move(call, call.args[1], call.args[2], RIGHT, LEFT)


def move(call: Call, source: bytes, target: bytes, out: End, into: End) -> bytes | None:
    """The element that went from end `out` of a list to end `into` of another; None without the first list."""
    if (value := call.lookup(source, deque)) is None:
        return None
    into.push(call.lookup_or_new(target, deque), [element := out.pop(value)])       # in this order: WRONGTYPE first
    call.changed(target, into.pushed, 0)
    _removed(call, source, value, out.popped, 1)
    return element


# ---- look --------------------------------------------------------------------------------------

@command("llen", arity=2, flags="readonly fast", keys=(1, 1, 1), group="list", since="1.0.0")
def llen(call: Call) -> int:
    "How many elements there are."
    return len(call.read(call.args[1], deque) or ())


@command("lindex", arity=3, flags="readonly", keys=(1, 1, 1), group="list", since="1.0.0")
def lindex(call: Call) -> bytes | None:
    "The element at a place; -1 is the last."
    value = call.read(call.args[1], deque) or ()
    at = integer(call.args[2]) if value else 0
    return value[at] if -len(value) <= at < len(value) else None


@command("lrange", arity=4, flags="readonly", keys=(1, 1, 1), group="list", since="1.0.0")
def lrange(call: Call) -> list[bytes]:
    "The elements from one place to another, both included; -1 is the last."
    start, stop = integer(call.args[2]), integer(call.args[3])
    value = call.read(call.args[1], deque) or ()
    places = span(start, stop, len(value)) or range(0)
    call.touch(len(places))
    if places.start <= len(value) - places.stop:        # walk from the nearer end
        return list(islice(value, places.start, places.stop))
    return list(islice(reversed(value), len(value) - places.stop, len(value) - places.start))[::-1]


def _rank(text: bytes) -> int:
    if (rank := integer(text)) == 0:
        raise Error("ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... "
                    "or use negative to start from the end of the list")
    return rank


LPOS_OPTIONS: Final = {
    b"RANK": Option("rank", _rank),
    b"COUNT": Option("count", partial(positive, complaint="ERR COUNT can't be negative")),
    b"MAXLEN": Option("maxlen", partial(positive, complaint="ERR MAXLEN can't be negative")),
}


@command("lpos", arity=-3, flags="readonly", keys=(1, 1, 1), group="list", since="6.0.6")
def lpos(call: Call) -> Any:
    "The places of elements equal to this one: the first, or so many."
    _, key, element, *words = call.args
    found = {name: number for name, (_, number) in parse_options(words, LPOS_OPTIONS).items()}
    rank, count = found.get("rank", 1), found.get("count", 1)
    value = call.read(key, deque) or ()
    call.touch(len(value))
    line = islice(value if rank > 0 else reversed(value), found.get("maxlen") or None)
    matches = (at if rank > 0 else len(value) - 1 - at for at, other in enumerate(line) if other == element)
    places = list(islice(islice(matches, abs(rank) - 1, None), count or None))
    return places if "count" in found else places[0] if places else None


# ---- change ------------------------------------------------------------------------------------

@command("lset", arity=4, flags="write denyoom", keys=(1, 1, 1), group="list", since="1.0.0")
def lset(call: Call) -> str:
    "Put an element in place of another; -1 is the last."
    _, key, text, element = call.args
    if (value := call.lookup(key, deque)) is None:
        raise NO_SUCH_KEY
    at = integer(text)
    if not -len(value) <= at < len(value):
        raise Error("ERR index out of range")
    value[at] = element
    call.changed(key, "lset")
    return OK


@command("linsert", arity=5, flags="write denyoom", keys=(1, 1, 1), group="list", since="2.2.0")
def linsert(call: Call) -> int:
    "Put an element before or after the first that equals a pivot; -1 if none does."
    _, key, word, pivot, element = call.args
    offset = choice(word, {b"BEFORE": 0, b"AFTER": 1})
    value = call.lookup(key, deque) or deque()
    call.touch(len(value))
    if pivot not in value:
        return -1 if value else 0
    value.insert(value.index(pivot) + offset, element)
    call.changed(key, "linsert")
    return len(value)


@command("lrem", arity=4, flags="write", keys=(1, 1, 1), group="list", since="1.0.0")
def lrem(call: Call) -> int:
    "Take out elements equal to this one: so many from the left, from the right if negative, all for 0."
    key, wanted, element = call.args[1], integer(call.args[2]), call.args[3]
    value = call.lookup(key, deque) or deque()
    end, before, passed = LEFT if wanted >= 0 else RIGHT, len(value), deque[bytes]()
    while value and before - len(value) - len(passed) < (abs(wanted) or before):
        if (other := end.pop(value)) != element:
            passed.append(other)
    end.push(value, reversed(passed))
    call.touch(len(passed))
    if removed := before - len(value):
        _removed(call, key, value, "lrem", removed)
    return removed


@command("ltrim", arity=4, flags="write", keys=(1, 1, 1), group="list", since="1.0.0")
def ltrim(call: Call) -> str:
    "Keep the elements from one place to another, and none else."
    start, stop = integer(call.args[2]), integer(call.args[3])
    if value := call.lookup(call.args[1], deque):
        places = span(start, stop, len(value)) or range(0)
        surplus = len(value) - len(places)
        for end, count in (LEFT, places.start), (RIGHT, len(value) - places.stop):
            for _ in range(count):
                end.pop(value)
        _removed(call, call.args[1], value, "ltrim", surplus)
    return OK
