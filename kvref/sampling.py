"""A dict from which one can draw: random members in O(1), and a cursor that survives changes.

Interface:
  - Sampler               beside any dict: pick, sample, walk
  - Collection            a dict that makes a Sampler for itself when somebody first asks
  - Hash, Members         the two that are values: fields to bytes, and the members of a set

A hash table in C has slots by number, and so random members and cursors for nothing. A Python dict has neither.
One mechanism adds both, to the keyspace, to hashes, sets and sorted sets.

Redis: dictGetFairRandomKey, dictScan in dict.c.
"""

from __future__ import annotations

from random import Random
from typing import Any, Generic, Self, TypeVar
from weakref import proxy

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

    def distinct(self, random: Random, count: int) -> list[bytes]:
        """`count` different members, each choice as likely as any other; all of them if there are not more."""
        if 2 * count >= len(self.members):
            everything = list(self.members)
            return random.sample(everything, min(count, len(everything)))
        found: dict[bytes, None] = {}
        while len(found) < count:
            found[self.pick(random)] = None                         # type: ignore[index]
        return list(found)


Value = TypeVar("Value")


class Collection(dict[bytes, Value], Generic[Value]):
    """Members with something for each, in order of insertion. Change it by `put` and `remove` alone.

    A collection that nobody samples carries no Sampler. A Sampler refers to its collection weakly: two that hold one
    another would keep the memory of a deleted set until Python's garbage collector comes by, which may take long.
    """

    __slots__ = ("_sampler", "__weakref__")

    def __init__(self, *content: Any) -> None:
        super().__init__(*content)
        self._sampler: Sampler | None = None

    def __copy__(self) -> Self:
        return type(self)(self)

    def put(self, member: bytes, value: Value) -> bool:
        """Insert or replace; whether the member is new."""
        is_new = member not in self
        self[member] = value
        if is_new and self._sampler:
            self._sampler.add(member)
        return is_new

    def remove(self, member: bytes) -> bool:
        """Whether it was there."""
        if member not in self:
            return False
        del self[member]
        if self._sampler:
            self._sampler.discard(member)
        return True

    @property
    def sampler(self) -> Sampler:
        """For random picks and cursors; made now if there is none."""
        if self._sampler is None:
            self._sampler = Sampler(proxy(self))
        return self._sampler


class Hash(Collection[bytes]):
    """The value of a hash: fields and their values."""

    __slots__ = ()


class Members(Collection[None]):
    """The value of a set, and the reply that is a set in RESP3."""

    __slots__ = ()
