"""SORT: a list, a set or a sorted set, in the order of its elements.

Interface: SORT and SORT_RO. Nothing else is meant to be imported from here.

The value stays as it is; the sorted elements are the answer, or with STORE become a list under another key. Elements
are compared as numbers, equal ones and with ALPHA all as bytes. `BY nosort` (any word without an asterisk) keeps the
order that lists and sorted sets have of themselves, and is only good for DESC and LIMIT.

Redis: sort.c, and sortGetKeys in db.c. Simpler here: BY with a pattern and GET, which look up a key for each element,
are refused; ALPHA compares bytes, as Redis does in the C locale, but does not stop at a zero byte.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final, NoReturn

from kvref.command_table import WRONGTYPE, Call, command
from kvref.commands.arguments import Option, integer, parse_options
from kvref.commands.storing import store
from kvref.numbers import parse_double
from kvref.resp import Error
from kvref.sampling import Members
from kvref.skiplist import SortedSet


def _refuse(word: str) -> NoReturn:
    raise Error(f"ERR {word} option of SORT denied: kvref does not support it.")


SORT_RO_OPTIONS: Final = {
    b"ASC": Option("order"),
    b"DESC": Option("order"),
    b"ALPHA": Option("alpha"),
    b"LIMIT": Option("limit", lambda start, count: (integer(start), integer(count)), takes=2),
    b"BY": Option("by", lambda pattern: _refuse("BY") if b"*" in pattern else pattern),
    b"GET": Option("get", lambda pattern: _refuse("GET")),
}
SORT_OPTIONS: Final = {**SORT_RO_OPTIONS, b"STORE": Option("store", bytes)}


def _target(args: list[bytes]) -> list[int]:
    """Where the key behind STORE is, the last if there are several: COMMAND GETKEYS. What LIMIT, BY and GET take is
    passed over; what STORE takes may itself be a STORE."""
    at, found = 2, list[int]()
    while at < len(args) - 1:
        word = args[at].upper()
        if word == b"STORE":
            found = [at + 1]
        option = SORT_RO_OPTIONS.get(word)
        at += 1 + (option.takes if option and option.read else 0)
    return found


@command("sort", arity=-2, flags="write denyoom movablekeys", keys=(1, 1, 1), more_keys=_target, group="generic",
         since="1.0.0")
def sort(call: Call) -> Any:
    "Sort the elements of a list, a set or a sorted set; answer with them, or store them as a list."
    found = parse_options(call.args[2:], SORT_OPTIONS, last_wins=True)
    result = _sorted(call, found)
    return store(call, found["store"][1], deque(result), "sortstore", len(result)) if "store" in found else result


@command("sort_ro", arity=-2, flags="readonly movablekeys", keys=(1, 1, 1), group="generic", since="7.0.0")
def sort_ro(call: Call) -> list[bytes]:
    "Sort the elements of a list, a set or a sorted set; never store them."
    return _sorted(call, parse_options(call.args[2:], SORT_RO_OPTIONS, last_wins=True))


ELEMENTS: Final[dict[type, Callable[[Any], list[bytes]]]] = {
    type(None): lambda none: [],
    deque: list,
    Members: list,
    SortedSet: lambda value: [member for member, _ in value.by_rank(0, len(value) - 1)],
}


def _sorted(call: Call, found: dict[str, tuple[bytes, Any]]) -> list[bytes]:
    value = call.read(call.args[1])
    if type(value) not in ELEMENTS:
        raise WRONGTYPE
    elements, backwards = ELEMENTS[type(value)](value), found.get("order") == (b"DESC", None)
    call.touch(len(elements))
    if "by" not in found:
        elements.sort(key=None if "alpha" in found else _number, reverse=backwards)
    elif type(value) is Members and "store" in found:
        elements.sort(reverse=backwards)    # the order of a set is none, and a replay may find another
    elif backwards:
        elements.reverse()
    start, count = found["limit"][1] if "limit" in found else (0, -1)
    return elements[max(start, 0):][:count if count >= 0 else None]


TINY: Final = 2.0 ** -1022                  # below it digits are lost, and strtod says ERANGE


def _number(element: bytes) -> tuple[float, bytes]:
    """What C's strtod makes of it, up to the first zero byte; blanks may come first, and nothing at all is 0."""
    text = element.partition(b"\0")[0]
    number = parse_double(text.lstrip()) if text else 0.0
    if number is None or 0 < abs(number) < TINY:
        raise Error("ERR One or more scores can't be converted into double")
    return number, element
