"""A fingerprint of what a keyspace means, whatever its encodings and its order: DEBUG DIGEST.

Two servers with the same digest hold the same keys, values and types, with deadlines on the same keys: that is
how kvref's files are compared with Redis's.

    mix(d, x)   d xor SHA1(x), and of that the SHA1: the order of the x matters
    xor(d, x)   d xor SHA1(x): it does not

Interface:
  - of_value(value, volatile)   20 bytes, for DEBUG DIGEST-VALUE
  - of_databases(databases)     20 bytes, for DEBUG DIGEST

Redis: xorDigest, mixDigest, xorObjectDigest, computeDatasetDigest in debug.c.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha1
from typing import Any, Final

from kvref.database import Database
from kvref.numbers import format_double
from kvref.sampling import Hash, Members
from kvref.skiplist import SortedSet

NOTHING: Final = bytes(20)


def xor(digest: bytes, data: bytes) -> bytes:
    return _xor(digest, sha1(data).digest())


def mix(digest: bytes, data: bytes) -> bytes:
    return sha1(xor(digest, data)).digest()


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other))


def _in_order(digest: bytes, value: Iterable[bytes]) -> bytes:
    for text in value:
        digest = mix(digest, text)
    return digest


def _pairs(digest: bytes, pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    for pair in pairs:
        digest = xor(digest, _in_order(NOTHING, pair))
    return digest


def _members(digest: bytes, value: Members) -> bytes:
    for member in value:
        digest = xor(digest, member)
    return digest


TYPES: Final[dict[type, tuple[int, Callable[[bytes, Any], bytes]]]] = {     # Redis's number of the type, and how
    bytes: (0, lambda digest, value: mix(digest, value)),
    deque: (1, _in_order),
    Members: (2, _members),
    SortedSet: (3, lambda digest, value: _pairs(
        digest, ((member, format_double(score)) for member, score in value.scores.items()))),
    Hash: (4, lambda digest, value: _pairs(digest, value.items())),
}


def of_value(value: Any, volatile: bool, digest: bytes = NOTHING) -> bytes:
    """`volatile`: whether its key has a deadline; which one does not matter."""
    number, add = TYPES[type(value)]
    digest = add(mix(digest, number.to_bytes(4, "big")), value)
    return xor(digest, b"!!expire!!") if volatile else digest


def of_databases(databases: Sequence[Database]) -> bytes:
    digest = NOTHING
    for database in databases:
        if database:
            digest = mix(digest, database.index.to_bytes(4, "big"))
        for key, value in database.values.items():
            digest = xor(digest, of_value(value, key in database.deadlines, mix(NOTHING, key)))
    return digest
