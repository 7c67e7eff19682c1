"""Commands that wait until there is something to take. The mechanism is kvref/blocking.py.

Interface: BLPOP, BRPOP, BLMOVE, BRPOPLPUSH, BLMPOP, BZPOPMIN, BZPOPMAX, BZMPOP.

Each is the form that does not wait, tried on its keys in order; where none has anything, the client waits for any of
them. A key that comes with a value of another type is passed over.

What the log gets is the form that does not wait: LPOP, LMOVE, ZPOPMIN ...

Redis: t_list.c, t_zset.c (blockingPopGenericCommand, blockingGenericZpopCommand), timeout.c.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from fractions import Fraction
from math import ceil
from typing import Any, Final

from kvref.command_table import Call, command, counted_keys
from kvref.commands import lists, sorted_sets
from kvref.commands.arguments import choice, counted_pop
from kvref.numbers import INT64_MAX, parse_long_double
from kvref.resp import BLOCKED, NULL_ARRAY, Error
from kvref.skiplist import SortedSet

Pop = Callable[[Call, bytes], Any]          # from one key; None where there is nothing to take


def _wait(call: Call, timeout: bytes, keys: list[bytes], kind: type, pop: Pop, nothing: Any = NULL_ARRAY) -> Any:
    """The reply of `pop` for the first key that has something, else wait; `nothing` after the timeout."""
    deadline_ms = _deadline(call, timeout)
    for key in keys:
        reply = pop(call, key)
        if reply is not None:
            return reply

    def retry(call: Call, key: bytes) -> Any:
        return pop(call, key) if type(call.db.find(key, call.now_ms)) is kind else BLOCKED
    return call.block(keys, deadline_ms, retry, nothing)


def _deadline(call: Call, text: bytes) -> int | None:
    """The instant, for a timeout in seconds; 0 is for ever. Redis: getTimeoutFromObjectOrReply."""
    number = parse_long_double(text)
    if number is None:
        raise Error("ERR timeout is not a float or out of range")
    product = number.mantissa * 1000
    lost = max(0, product.bit_length() - 64)    # a long double keeps 64 bits: 0.1 is 100 ms, not a little more
    ms = ceil(round(Fraction(product, 2**lost)) * Fraction(2) ** (number.exponent + lost)) if number.finite else -1
    if not 0 <= ms <= INT64_MAX:                # what does not fit is negative in C
        raise Error("ERR timeout is negative")
    return call.now_ms + ms if 0 < ms <= INT64_MAX - call.now_ms else None      # the sum overflows: for ever


ENDS: Final = {b"blpop": lists.LEFT, b"brpop": lists.RIGHT}


@command("blpop", arity=-3, flags="write noscript blocking", keys=(1, -2, 1), group="list", since="2.0.0")
@command("brpop", arity=-3, flags="write noscript blocking", keys=(1, -2, 1), group="list", since="2.0.0")
def blpop(call: Call) -> Any:
    "Take an element out of the first list that has one; wait until there is one."
    end = ENDS[call.args[0].lower()]

    def pop(call: Call, key: bytes) -> Any:
        element = lists.pop(call, key, end)
        if element is None:
            return None
        call.log_as((end.popped.upper().encode(), key))
        return [key, element]
    return _wait(call, call.args[-1], call.args[1:-1], deque, pop)


@command("blmove", arity=6, flags="write denyoom noscript blocking", keys=(1, 2, 1), group="list", since="6.2.0")
def blmove(call: Call) -> Any:
    "Take an element out of a list and put it into another; wait until there is one."
    _, source, target, out, into, timeout = call.args
    ends = choice(out, lists.ENDS), choice(into, lists.ENDS)
    return _move(call, timeout, target, *ends, (b"LMOVE", source, target, out, into))


@command("brpoplpush", arity=4, flags="write denyoom noscript blocking", keys=(1, 2, 1), group="list", since="2.2.0")
def brpoplpush(call: Call) -> Any:
    "Take the last element of a list and put it before the first of another; wait until there is one."
    _, source, target, timeout = call.args
    return _move(call, timeout, target, lists.RIGHT, lists.LEFT, (b"RPOPLPUSH", source, target))


def _move(call: Call, timeout: bytes, target: bytes, out: lists.End, into: lists.End, effect: tuple[bytes, ...]) -> Any:
    def pop(call: Call, key: bytes) -> Any:
        element = lists.move(call, key, target, out, into)
        if element is not None:
            call.log_as(effect)
        return element
    return _wait(call, timeout, [effect[1]], deque, pop, nothing=None)


@command("blmpop", arity=-5, flags="write blocking movablekeys", more_keys=counted_keys(2), group="list", since="7.0.0")
def blmpop(call: Call) -> Any:
    "Take elements out of the first of several lists that is there; wait until there is one."
    keys, end, count = counted_pop(call, 2, lists.ENDS)
    return _wait(call, call.args[1], keys, deque, lambda call, key: lists.pop_first(call, [key], end, count))


ZENDS: Final = {b"bzpopmin": b"zpopmin", b"bzpopmax": b"zpopmax"}


@command("bzpopmin", arity=-3, flags="write noscript blocking fast", keys=(1, -2, 1), group="sorted-set", since="5.0.0")
@command("bzpopmax", arity=-3, flags="write noscript blocking fast", keys=(1, -2, 1), group="sorted-set", since="5.0.0")
def bzpop(call: Call) -> Any:
    "Take the member with the lowest or highest score out of the first sorted set that is there; wait for one."
    end = ZENDS[call.args[0].lower()]

    def pop(call: Call, key: bytes) -> Any:
        found = sorted_sets.pop(call, key, end, 1)
        if not found:
            return None
        call.log_as((end.upper(), key))
        return [key, *found[0]]
    return _wait(call, call.args[-1], call.args[1:-1], SortedSet, pop)


@command("bzmpop", arity=-5, flags="write blocking movablekeys", more_keys=counted_keys(2), group="sorted-set",
         since="7.0.0")
def bzmpop(call: Call) -> Any:
    "Take members out of the first of several sorted sets that is there; wait until there is one."
    keys, end, count = counted_pop(call, 2, sorted_sets.ENDS)
    return _wait(call, call.args[1], keys, SortedSet, lambda call, key: sorted_sets.pop_first(call, [key], end, count))
