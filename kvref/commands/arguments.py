"""What handlers read from their arguments: integers, and options that a table describes.

Interface:
  - integer, bounded, double      the number, or the error that every command answers with
  - span(start, stop, length)     the places between two indices that may count from the end
  - Option, parse_options         the words behind the fixed arguments: NX, EX 10, MATCH pattern ...
  - wrong_arity, invalid_expire   errors that name the command

Redis: getLongLongFromObjectOrReply in object.c; the loops over argv that each command has for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from kvref.command_table import SYNTAX, Call
from kvref.numbers import INT64_MAX, parse_double, parse_int
from kvref.resp import Error

NOT_AN_INTEGER: Final = Error("ERR value is not an integer or out of range")


def integer(text: bytes) -> int:
    """A signed 64-bit integer; raises Redis's error for anything else."""
    number = parse_int(text)
    if number is None:
        raise NOT_AN_INTEGER
    return number


def bounded(text: bytes, low: int, high: int, complaint: str = "") -> int:
    """An integer from low to high. Redis: getRangeLongFromObjectOrReply."""
    number = parse_int(text)
    if number is not None and low <= number <= high:
        return number
    if complaint:
        raise Error(complaint)
    integer(text)
    raise Error(f"ERR value is out of range, value must between {low} and {high}")


def positive(text: bytes) -> int:
    """Zero is fine. Redis: getPositiveLongFromObjectOrReply."""
    return bounded(text, 0, INT64_MAX, "ERR value is out of range, must be positive")


def double(text: bytes, complaint: str = "ERR value is not a valid float") -> float:
    """A double, never NaN."""
    number = parse_double(text)
    if number is None:
        raise Error(complaint)
    return number


def span(start: int, stop: int, length: int) -> range:
    """The places from start to stop, both included; negative indices count from the end. For LRANGE and ZRANGE."""
    start = max(0, start + length) if start < 0 else start
    stop = stop + length if stop < 0 else stop
    return range(start, min(stop, length - 1) + 1)


class Option(NamedTuple):
    """What one word says. Words that decide the same thing exclude one another; the same word may come again."""

    decides: str
    read: Callable[..., Any] | None = None      # turns the arguments behind the word into a value; None: it has none
    takes: int = 1                              # how many arguments `read` wants


def parse_options(words: list[bytes], table: Mapping[bytes, Option]) -> dict[str, tuple[bytes, Any]]:
    """What was decided, with the word in capitals and its value: {"deadline": (b"EX", b"10")}.

    Raises SYNTAX for an unknown word, a contradiction or a missing value, whichever comes first.
    """
    found: dict[str, tuple[bytes, Any]] = {}
    rest = iter(words)
    for sent in rest:
        word = sent.upper()
        option = table.get(word)
        if option is None or found.get(option.decides, (word,))[0] != word:
            raise SYNTAX
    """The places from start to stop, both included; negative indices count from the end. As LRANGE wants them."""
    return found


def _next(rest: Iterator[bytes]) -> bytes:
    for word in rest:
        return word
    raise SYNTAX


def wrong_arity(call: Call) -> Error:
    """For commands whose arguments come in pairs, beyond what the table can say."""
    return Error(f"ERR wrong number of arguments for '{_name(call)}' command")


def invalid_expire(call: Call) -> Error:
    return Error(f"ERR invalid expire time in '{_name(call)}' command")


def _name(call: Call) -> str:
    return call.args[0].lower().decode()
