"""The keyspace: keys, bare values, deadlines, random keys and cursors.

Interface:
  - Sampler     beside a dict: a random member in O(1), and a cursor that survives changes
  - Database    one of the sixteen: find, set, delete, expire_at, persist, random_key, scan

A value is a bare Python object: bytes is a string. No wrapper stands around it: a key of 16 bytes with a small
value costs 156 bytes (measured), and 8 more once somebody samples. A deadline is absolute, in milliseconds
of the wall clock, in a dict of its own.

Redis: db.c and dict.c. Redis keeps keys and deadlines in two hash tables that it grows step by step, and
walks them by a cursor whose bits count in reverse. Python's dict grows in one go and has neither cursor nor
random member; the Sampler adds both.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

MIN_COMPACT = 16        # below this many entries dead ones do no harm


class Sampler:
    """The keys of a dict in a list, for random picks and for cursors.

    The list is made when somebody first asks; a dict that nobody samples pays nothing for it. From then on a
    deletion leaves its entry behind, *dead*; a key that comes back before the list is cleaned wakes its old
    entry. When more than half of the entries are dead, the list is compacted in order.

    Invariants: every key of the dict has exactly one entry; compaction moves an entry only down. A cursor
    is an index that walks downwards, so it cannot pass over a key that stays: a key below the cursor stays
    below it. That is SCAN's guarantee.
    """

    __slots__ = ("members", "entries", "dead")

    def __init__(self, members: dict[bytes, Any]) -> None:
        self.members = members
        self.entries: list[bytes] | None = None
        self.dead: set[bytes] = set()       # entries whose key is gone; asked, never iterated

    def add(self, key: bytes) -> None:
        """Call it for a key that is new in the dict."""
        if self.entries is None:
            return
        if key in self.dead:
            self.dead.remove(key)
        else:
            self.entries.append(key)

    def discard(self, key: bytes) -> None:
        """Call it when a key has left the dict."""
        if self.entries is None:
            return
        self.dead.add(key)
        if 2 * len(self.dead) > len(self.entries) > MIN_COMPACT:
            self._compact()

    def clear(self) -> None:
        self.entries = None
        self.dead.clear()

    def _listed(self) -> list[bytes]:
        if self.entries is None:
            self.entries = list(self.members)
        return self.entries

    def _compact(self) -> None:
        dead = self.dead
        self.entries = [key for key in self._listed() if key not in dead]
        self.dead = set()

    def pick(self, random: Random) -> bytes | None:
        """A member, each as likely as any other; None when there is none."""
        if not self.members:
            return None
        if len(self._listed()) > 2 * len(self.members):
            self._compact()                 # only below MIN_COMPACT: keeps the expected tries at two
        entries = self._listed()
        while True:
            key = entries[int(random.random() * len(entries))]
            if key not in self.dead:
                return key

    def sample(self, random: Random, count: int) -> list[bytes]:
        """Different members, about `count` of them or all there are: as many as so many picks happen to hit."""
        if len(self.members) <= count:
            return list(self.members)
        return list(dict.fromkeys(key for _ in range(count) if (key := self.pick(random)) is not None))

    def walk(self, cursor: int, count: int) -> tuple[int, list[bytes]]:
        """About `count` members from a cursor on: (next cursor, members). 0 starts, and 0 says it is over.

        A member that is there from the first call to the last is returned at least once.
        """
        entries, dead = self._listed(), self.dead
        high = min(cursor or len(entries), len(entries))
        low = max(0, high - count)
        return low, [key for key in entries[low:high] if not dead or key not in dead]


class Database:
    """Keys, values and deadlines. `on_expired(database, key)` deletes a key whose time is over, and tells."""

    __slots__ = ("index", "values", "deadlines", "keys", "volatile", "on_expired", "average_ttl_ms")

    def __init__(self, index: int, on_expired: Callable[[Database, bytes], None]) -> None:
        self.index = index
        self.values: dict[bytes, Any] = {}
        self.deadlines: dict[bytes, int] = {}           # a subset of the keys of values
        self.keys = Sampler(self.values)
        self.volatile = Sampler(self.deadlines)         # the active expiry draws its samples here
        self.on_expired = on_expired
        self.average_ttl_ms = 0                         # INFO keyspace; the active expiry keeps it

    def __repr__(self) -> str:
        return f"<Database {self.index}: {len(self.values)} keys, {len(self.deadlines)} with a deadline>"

    def __len__(self) -> int:
        """Keys that are physically there, those among them too that are logically dead."""
        return len(self.values)

    def is_expired(self, key: bytes, now_ms: int) -> bool:
        """Whether the deadline of the key lies behind. Redis: keyIsExpired."""
        deadline = self.deadlines.get(key)
        return deadline is not None and now_ms > deadline

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
        for part in (self.values, self.deadlines, self.keys, self.volatile):
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
    for part in ("values", "deadlines", "keys", "volatile", "average_ttl_ms"):
        ours, theirs = getattr(one, part), getattr(other, part)
        setattr(one, part, theirs)
        setattr(other, part, ours)


