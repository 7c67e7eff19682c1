"""The types of values: which Python object stands for which of Redis's types, and how Redis would encode it.

Interface:
  - TYPES                      one row for each Python type that a key can hold
  - type_name(value)           what TYPE answers
  - encoding(value, config)    what OBJECT ENCODING answers, and what the snapshot writer goes by

    bytes       string      int, embstr or raw
    deque       list        quicklist
    Hash        hash        listpack while it is small, then hashtable
    Members     set         intset while it is small and all integers, then hashtable
    SortedSet   zset        listpack while it is small, then skiplist

Small collections are kept by Redis in one block of memory, which is compact, and quick as long as it is short.
Python's objects have no such forms; the answer is the encoding that Redis would choose for the value if a command
made it now. Redis keeps the larger form when a collection shrinks again, and a listpack that a file held however long
its texts are; kvref does not remember.

Redis: object.c (tryObjectEncoding, strEncoding), t_hash.c, t_set.c, t_zset.c (the *TypeConvert functions).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from kvref.numbers import parse_int
from kvref.sampling import Hash, Members
from kvref.skiplist import SortedSet

if TYPE_CHECKING:
    from kvref.config import Config

EMBSTR_MAX: Final = 44                      # bytes of a string that fit one 64-byte cell with its header


class ValueType(NamedTuple):
    """What the outside world calls values of one Python type."""

    name: str                               # TYPE
    encoding: Callable[[Any, Config], str]  # OBJECT ENCODING


def type_name(value: Any) -> str:
    return "none" if value is None else TYPES[type(value)].name


def encoding(value: Any, config: Config) -> str:
    return TYPES[type(value)].encoding(value, config)


def _string(value: bytes, config: Config) -> str:
    """Integers are kept as integers, short strings beside their header, long ones apart."""
    if parse_int(value) is not None:
        return "int"
    return "embstr" if len(value) <= EMBSTR_MAX else "raw"


def _hash(value: Hash, config: Config) -> str:
    small = len(value) <= config.hash_max_listpack_entries and _all_short(
        (text for pair in value.items() for text in pair), config.hash_max_listpack_value)
    return "listpack" if small else "hashtable"


def _set(value: Members, config: Config) -> str:
    small = len(value) <= config.set_max_intset_entries and all(parse_int(member) is not None for member in value)
    return "intset" if small else "hashtable"


def _sorted_set(value: SortedSet, config: Config) -> str:
    small = len(value) <= config.zset_max_listpack_entries and _all_short(
        value.scores, config.zset_max_listpack_value)
    return "listpack" if small else "skiplist"


def _all_short(texts: Iterable[bytes], limit: int) -> bool:
    return all(len(text) <= limit for text in texts)


TYPES: Final[dict[type, ValueType]] = {
    bytes: ValueType("string", _string),
    deque: ValueType("list", lambda value, config: "quicklist"),
    Hash: ValueType("hash", _hash),
    Members: ValueType("set", _set),
    SortedSet: ValueType("zset", _sorted_set),
}
