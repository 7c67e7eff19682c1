"""What handlers read from their arguments: integers, and options that a table describes.

Interface:
  - integer(text)                 the number, or the error that every command answers with
  - Option, parse_options         the words behind the fixed arguments: NX, EX 10, MATCH pattern ...
  - wrong_arity, invalid_expire   errors that name the command

Redis: getLongLongFromObjectOrReply in object.c; the loops over argv that each command has for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from kvref.command_table import SYNTAX, Call
from kvref.numbers import parse_int
from kvref.resp import Error

NOT_AN_INTEGER: Final = Error("ERR value is not an integer or out of range")


def integer(text: bytes) -> int:
    """A signed 64-bit integer; raises Redis's error for anything else."""
    number = parse_int(text)
    if number is None:
        raise NOT_AN_INTEGER
    return number


class Option(NamedTuple):
    """What one word says. Words that decide the same thing exclude one another; the same word may come again."""

    decides: str
    read: Callable[[bytes], Any] | None = None      # turns the argument behind the word into a value; None: it has none


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
        found[option.decides] = (word, option.read(_next(rest)) if option.read else None)
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
