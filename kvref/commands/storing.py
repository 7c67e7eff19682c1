"""Where SUNIONSTORE, BITOP, SORT STORE and their like put what they have computed.

Interface:
  - store    the result under a key, in place of whatever is there; its length, which is what all of them answer

An empty result is no value: it deletes the key. That is so for a string, too, which SET may leave empty.

Redis: setKey in db.c, and the ends of the functions that call it.
"""

from __future__ import annotations

from collections.abc import Sized

from kvref.command_table import Call


def store(call: Call, key: bytes, value: Sized, event: str, n: int = 1) -> int:
    """`event` and `n` are what `Call.changed` is told of a result that is not empty. The old deadline goes."""
    if value:
        call.lookup(key)                    # tell if it has expired, before it is overwritten
        call.db.set(key, value)
        call.db.persist(key)
        call.changed(key, event, n)
    elif call.db.delete(key):
        call.changed(key, "del")
    return len(value)
