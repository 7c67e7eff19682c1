"""What handlers read from their arguments: integers, and options that a table describes.

Interface:
  - integer, bounded, double      the number, or the error that every command answers with; also long_double
  - integer_sum, decimal_sum      what INCR and INCRBYFLOAT make of two numbers
  - span(start, stop, length)     the places between two indices that may count from the end
  - counted, input_keys           keys behind their number: ZUNION 2 one two
  - counted_pop                   all of LMPOP 2 one two LEFT COUNT 10, and of ZMPOP
  - choice(word, table)           a word of which there must be one: LEFT or RIGHT
  - Option, parse_options         the words behind the fixed arguments: NX, EX 10, MATCH pattern ...
  - CARD_OPTIONS                  the one of SINTERCARD and ZINTERCARD
  - wrong_arity, not_understood, invalid_expire   errors that name the command

Redis: getLongLongFromObjectOrReply in object.c; the loops over argv that each command has for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

from kvref.command_table import SYNTAX, Call
from kvref.numbers import (INT64_MAX, INT64_MIN, LongDouble, add_long_doubles, format_long_double, parse_double,
                           parse_int, parse_long_double)
from kvref.quoting import c_text
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


def positive(text: bytes, complaint: str = "ERR value is out of range, must be positive") -> int:
    """Zero is fine. Redis: getPositiveLongFromObjectOrReply."""
    return bounded(text, 0, INT64_MAX, complaint)


def double(text: bytes, complaint: str = "ERR value is not a valid float") -> float:
    """A double, never NaN."""
    number = parse_double(text)
    if number is None:
        raise Error(complaint)
    return number


def long_double(text: bytes, complaint: str = "ERR value is not a valid float") -> LongDouble:
    """A number with decimals as INCRBYFLOAT reads it; it may be infinite."""
    number = parse_long_double(text)
    if number is None:
        raise Error(complaint)
    return number


def integer_sum(a: int, b: int) -> int:
    """a + b, if it fits 64 bits."""
    if not INT64_MIN <= a + b <= INT64_MAX:
        raise Error("ERR increment or decrement would overflow")
    return a + b


def decimal_sum(a: LongDouble, b: LongDouble) -> bytes:
    """a + b in decimals, as INCRBYFLOAT stores it."""
    total = add_long_doubles(a, b)
    if not total.finite:
        raise Error("ERR increment would produce NaN or Infinity")
    return format_long_double(total)


def span(start: int, stop: int, length: int) -> range:
    """The places from start to stop, both included; negative indices count from the end. For LRANGE and ZRANGE."""
    start = max(0, start + length) if start < 0 else start
    stop = stop + length if stop < 0 else stop
    return range(start, min(stop, length - 1) + 1)


def counted(call: Call, at: int, too_few: str = "ERR numkeys should be greater than 0",
            too_many: Error = SYNTAX) -> tuple[list[bytes], list[bytes]]:
    """The keys whose number is `call.args[at]`, and the arguments behind them: LMPOP, ZMPOP, SINTERCARD.

    `too_few` is for everything that is no positive number, `too_many` for more keys than there are arguments
    (SINTERCARD has a text of its own). With no arguments behind the keys the rest is empty.
    """
    end = at + 1 + bounded(call.args[at], 1, INT64_MAX, too_few)
    if end > len(call.args):
        raise too_many
    return call.args[at + 1:end], call.args[end:]


def input_keys(call: Call, at: int) -> tuple[list[bytes], list[bytes]]:
    """As `counted`, with the complaints of ZUNION, ZINTER, ZDIFF, their STORE forms and ZINTERCARD."""
    integer(call.args[at])
    return counted(call, at, f"ERR at least 1 input key is needed for '{_name(call)}' command")


def counted_pop(call: Call, at: int, ends: Mapping[bytes, Kind]) -> tuple[list[bytes], Kind, int]:
    """numkeys key [key ...] <end> [COUNT count], from word `at` on: LMPOP with LEFT and RIGHT, ZMPOP with MIN and MAX.

    The keys, what `ends` says of the word behind them, and the count.
    """
    keys, rest = counted(call, at)
    end = choice(rest[0] if rest else b"", ends)
    count = parse_options(rest[1:3], POP_OPTIONS).get("count", (b"", 1))[1]
    if rest[3:]:
        raise SYNTAX                        # COUNT may not come again
    return keys, end, count


Kind = TypeVar("Kind")


def choice(word: bytes, table: Mapping[bytes, Kind]) -> Kind:
    """What a table says of a word in capitals; raises SYNTAX for other words."""
    found = table.get(word.upper())
    if found is None:
        raise SYNTAX
    return found


class Option(NamedTuple):
    """What one word says. Words that decide the same thing exclude one another; the same word may come again."""

    decides: str
    read: Callable[..., Any] | None = None      # turns the arguments behind the word into a value; None: it has none
    takes: int = 1                              # how many arguments `read` wants
    once: bool = False                          # not even the same word may come again


def parse_options(words: list[bytes], table: Mapping[bytes, Option],
                  last_wins: bool = False) -> dict[str, tuple[bytes, Any]]:
    """What was decided, with the word in capitals and its value: {"deadline": (b"EX", b"10")}.

    Raises SYNTAX for an unknown word, a contradiction (unless the last word wins) or a missing value, whichever
    comes first.
    """
    found: dict[str, tuple[bytes, Any]] = {}
    rest = iter(words)
    for sent in rest:
        word = sent.upper()
        option = table.get(word)
        if option is None or option.decides in found and (
                option.once or not last_wins and found[option.decides][0] != word):
            raise SYNTAX
        value = option.read(*[_next(rest) for _ in range(option.takes)]) if option.read else None
        found[option.decides] = (word, value)
    return found


def _next(rest: Iterator[bytes]) -> bytes:
    for word in rest:
        return word
    raise SYNTAX


POP_OPTIONS: Final = {
    b"COUNT": Option("count", partial(bounded, low=1, high=INT64_MAX, complaint="ERR count should be greater than 0")),
}
CARD_OPTIONS: Final = {
    b"LIMIT": Option("limit", partial(positive, complaint="ERR LIMIT can't be negative")),
}


def wrong_arity(call: Call) -> Error:
    """For commands whose arguments come in pairs, beyond what the table can say."""
    return Error(f"ERR wrong number of arguments for '{_name(call)}' command")


def not_understood(call: Call) -> Error:
    """For subcommands with too many words, beyond what the table can say."""
    return Error(f"ERR unknown subcommand or wrong number of arguments for '{c_text(call.args[1][:128])}'. "
                 f"Try {_name(call).upper()} HELP.")


def invalid_expire(call: Call) -> Error:
    return Error(f"ERR invalid expire time in '{_name(call)}' command")


def _name(call: Call) -> str:
    return call.args[0].lower().decode()
