"""The keyspace: keys, bare values, deadlines, random keys and cursors.

Interface:
  - Database    one of the sixteen: find, set, delete, expire_at, persist, random_key, scan

A value is a bare Python object: bytes is a string. No wrapper stands around it: a key of 16 bytes with a small
value costs 156 bytes (measured), and 8 more once somebody samples. A deadline is absolute, in milliseconds
of the wall clock, in a dict of its own.

Redis: db.c and dict.c. Redis keeps keys and deadlines in two hash tables that it grows step by step, and
walks them by a cursor whose bits count in reverse. Python's dict grows in one go and has neither cursor nor
random member; `kvref.sampling` adds both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, Any

from kvref.sampling import Sampler

if TYPE_CHECKING:
    from kvref.memory import Ledger


class Database:
    """Keys, values and deadlines. `on_expired(database, key)` deletes a key whose time is over, and tells."""

    __slots__ = ("index", "frozen", "values", "deadlines", "keys", "volatile", "access", "ledger", "on_expired",
                 "on_change", "average_ttl_ms")

    def __init__(self, index: int, on_expired: Callable[[Database, bytes], None],
                 on_change: Sequence[Callable[[Database, bytes, str], None]] = ()) -> None:
        self.index = index
        self.frozen = False                             # a log is being loaded: nothing expires
        self.values: dict[bytes, Any] = {}
        self.deadlines: dict[bytes, int] = {}           # a subset of the keys of values
        self.keys = Sampler(self.values)
        self.volatile = Sampler(self.deadlines)         # the active expiry draws its samples here
        self.access: dict[bytes, int] | None = None     # what eviction goes by; None while the policy needs nothing
        self.ledger: Ledger | None = None               # what the keys count for; None without `maxmemory`
        self.on_expired = on_expired
        self.on_change = on_change                      # told of every new key: (database, key, "new")
        self.average_ttl_ms = 0                         # INFO keyspace; the active expiry keeps it

    def __repr__(self) -> str:
        return f"<Database {self.index}: {len(self.values)} keys, {len(self.deadlines)} with a deadline>"

    def __len__(self) -> int:
        """Keys that are physically there, those among them too that are logically dead."""
        return len(self.values)

    def is_expired(self, key: bytes, now_ms: int) -> bool:
        """Whether the deadline of the key lies behind. Redis: keyIsExpired."""
        deadline = self.deadlines.get(key)
        return deadline is not None and now_ms > deadline and not self.frozen

    def find(self, key: bytes, now_ms: int) -> Any:
        """The value, or None. A key whose time is over is deleted now (*lazy expiry*). Redis: expireIfNeeded."""
        if key in self.deadlines and self.is_expired(key, now_ms):
            self.on_expired(self, key)
            return None
        return self.values.get(key)

    def set(self, key: bytes, value: Any) -> None:
        """Insert the key or replace its value. A deadline stays as it is."""
        if key not in self.values:
            self.keys.add(key)
            for tell in self.on_change:
                tell(self, key, "new")
        self.values[key] = value

    def delete(self, key: bytes) -> bool:
        """Remove key, value and deadline; whether there was anything."""
        if key not in self.values:
            return False
        del self.values[key]
        self.keys.discard(key)
        self.persist(key)
        return True

    def expire_at(self, key: bytes, deadline_ms: int) -> None:
        """Give an existing key a deadline, or another one."""
        if key not in self.deadlines:
            self.volatile.add(key)
        self.deadlines[key] = deadline_ms

    def persist(self, key: bytes) -> bool:
        """Take the deadline away; whether there was one."""
        if key not in self.deadlines:
            return False
        del self.deadlines[key]
        self.volatile.discard(key)
        return True

    def clear(self) -> int:
        """Forget everything; how many keys there were."""
        count = len(self.values)
        for part in (self.values, self.deadlines, self.keys, self.volatile, self.access, self.ledger):
            if part is not None:
                part.clear()
        self.average_ttl_ms = 0
        return count

    def random_key(self, random: Random) -> bytes | None:
        """Any key, expired ones too; None when the database is empty."""
        return self.keys.pick(random)

    def scan(self, cursor: int, count: int) -> tuple[int, list[bytes]]:
        """The next keys of an iteration: see Sampler.walk."""
        return self.keys.walk(cursor, count)


def swap(databases: list[Database], a: int, b: int) -> None:
    """Exchange the content of two databases; their clients stay where they are. Redis: dbSwapDatabases."""
    one, other = databases[a], databases[b]
    for part in ("values", "deadlines", "keys", "volatile", "access", "ledger", "average_ttl_ms"):
        ours, theirs = getattr(one, part), getattr(other, part)
        setattr(one, part, theirs)
        setattr(other, part, ours)


