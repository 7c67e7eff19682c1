"""The order of a sorted set: a skip list, which finds places by score and by rank in O(log n).

Interface:
  - SortedSet     the value of a sorted set: each member's score, and all members in order
  - SkipList      (score, member) in ascending order; equal scores go by the bytes of the members
  - Node          one member on one level

A skip list is several linked lists above one another. All members are on the ground level; each is on the next
level, too, with a chance of 1/4, and so on. A search walks along the highest level until the next step would lead
too far, goes down, walks on: a million members take it about twice as many steps as a thousand.
Every link knows its *span*, how many places it leads on: the spans of a search add up to the rank.

    >>> SkipList([(1.5, b"ann"), (2, b"bob"), (2, b"cy"), (3, b"dan"), (4, b"eve")])
    level 3  * ────────────────────────────────4→ dan:3
    level 2  * ─────────────2→ bob:2 ──────────2→ dan:3
    level 1  * ─1→ ann:1.5 ─1→ bob:2 ─1→ cy:2 ─1→ dan:3 ─1→ eve:4

Every question about a range becomes two ranks: where does it start, where does it stop?

Redis: zskiplist in t_zset.c. There a node holds all levels of a member in one block of memory; here each is a node of
its own, three of four members have just one, and `down` leads from level to level. There are no links backwards:
a range in reverse is a range by rank, turned round. So nodes form no cycles, and a deleted set is freed at
once. The dice are not thrown, but computed: the same calls in the same order build the same list.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Self

from kvref.quoting import text
from kvref.sampling import Collection

BITS_PER_LEVEL: Final = 2                   # two zero bits in a row: a chance of 1/4 for one level more
DICE_BITS: Final = 32                       # and so at most 17 levels, enough for 4 ** 16 members
SEED: Final = 450                           # any number would do; with this one small lists have towers to look at
DRAWN_MAX: Final = 12                       # __repr__ draws lists up to this length


class Node:
    """One member on one level. The nodes of a member stand on one another: its tower."""

    __slots__ = ("score", "member", "forward", "span", "down")

    def __init__(self, score: float, member: bytes, forward: Node | None, span: int, down: Node | None) -> None:
        self.score = score
        self.member = member
        self.forward = forward              # the next node on this level
        self.span = span                    # the distance to it in places; without a next node: the places left
        self.down = down                    # the same member one level below; None on the ground

    def __repr__(self) -> str:
        return f"{text(self.member)}:{self.score:.17g}"


class SkipList:
    """(score, member) pairs in ascending order, no pair twice. NaN has no place in an order, and none here.

    Invariants: on each level the pairs ascend; who is on a level is on all below; the spans of a level add up
    to the length. A tower without a member, the *head*, stands before the first place; its rank is 0, and the
    member at place 0 has rank 1.
    """

    __slots__ = ("length", "_top", "_dice")

    def __init__(self, ascending: Iterable[tuple[float, bytes]] = ()) -> None:
        self.length = 0
        self._top = Node(0.0, b"", None, 0, None)           # the head's node on the highest level
        self._dice = SEED
        self._link_all(ascending)

    def _link_all(self, ascending: Iterable[tuple[float, bytes]]) -> None:
        """Fill an empty list. Each pair goes behind all others: no search."""
        lasts, ranks = [self._top], [0]                     # the last node of each level, from the ground, and its rank
        for rank, (score, member) in enumerate(ascending, 1):
            node = None
            for level in range(self._height()):
                if level == len(lasts):
                    self._top = Node(0.0, b"", None, 0, self._top)
                    lasts.append(self._top)
                    ranks.append(0)
                last = lasts[level]
                node = last.forward = lasts[level] = Node(score, member, None, 0, node)
                last.span = rank - ranks[level]
                ranks[level] = self.length = rank
        for last, rank in zip(lasts, ranks):
            last.span = self.length - rank

    def _height(self) -> int:
        """How many levels the next member gets: one, with a chance of 1/4 one more, with 1/16 another ..."""
        self._dice = (self._dice * 6364136223846793005 + 1442695040888963407) & 0xFFFF_FFFF_FFFF_FFFF   # Knuth's MMIX
        bits = self._dice >> DICE_BITS | 1 << DICE_BITS
        return 1 + ((bits & -bits).bit_length() - 1) // BITS_PER_LEVEL

    # ---- search: both return the last node before a place on each level, from the top, and the ranks of these nodes

    def _path(self, score: float, member: bytes) -> tuple[list[Node], list[int]]:
        """To the place of (score, member), whether it is there or not."""
        path, ranks = [], []
        node: Node | None = self._top
        rank = 0
        while node is not None:
            after = node.forward
            while after is not None and (after.score < score or after.score == score and after.member < member):
                rank += node.span
                node = after
                after = node.forward
            path.append(node)
            ranks.append(rank)
            node = node.down
        return path, ranks

    def _path_to(self, place: int) -> tuple[list[Node], list[int]]:
        path, ranks = [], []
        node: Node | None = self._top
        rank = 0
        while node is not None:
            while node.forward is not None and rank + node.span <= place:
                rank += node.span
                node = node.forward
            path.append(node)
            ranks.append(rank)
            node = node.down
        return path, ranks

    def before(self, score: float, member: bytes = b"") -> int:
        """How many come before (score, member): the place where it is, or would be."""
        return self._path(score, member)[1][-1]

    def before_member(self, member: bytes) -> int:
        """The same by the member alone. Members have to ascend, as they do where all have one score."""
        node: Node | None = self._top
        rank = 0
        while node is not None:
            while node.forward is not None and node.forward.member < member:
                rank += node.span
                node = node.forward
            node = node.down
        return rank

    def slice(self, start: int, stop: int) -> list[tuple[bytes, float]]:
        """(member, score) at the places from `start` to before `stop`, all of which must be there."""
        return self._walk(self._path_to(start)[0][-1], stop - start)

    @staticmethod
    def _walk(node: Node, count: int) -> list[tuple[bytes, float]]:
        """The next so many behind a node of the ground level."""
        pairs = []
        for _ in range(count):
            node = node.forward             # type: ignore[assignment]
            pairs.append((node.member, node.score))
        return pairs

    # ---- change

    def insert(self, score: float, member: bytes) -> None:
        """The pair must be new."""
        height = self._height()
        path, ranks = self._path(score, member)
        while len(path) < height:
            self._top = Node(0.0, b"", None, self.length, self._top)
            path.insert(0, self._top)
            ranks.insert(0, 0)
        place = ranks[-1]
        below = None
        for _ in range(height):
            node, rank = path.pop(), ranks.pop()
            ahead = place - rank            # between the node and the new one
            below = Node(score, member, node.forward, node.span - ahead, below)
            node.forward, node.span = below, ahead + 1
        for node in path:                   # their links pass over the new one
            node.span += 1
        self.length += 1

    def remove(self, score: float, member: bytes) -> bytes:
        """The pair must be there. Returns the member as it was stored."""
        (stored, _), = self._cut(*self._path(score, member), 1)
        return stored

    def take(self, start: int, stop: int) -> list[tuple[bytes, float]]:
        """As `slice`, and takes them out."""
        return self._cut(*self._path_to(start), stop - start)

    def _cut(self, path: list[Node], ranks: list[int], count: int) -> list[tuple[bytes, float]]:
        """Take out the next so many behind a place."""
        pairs = self._walk(path[-1], count)
        last = ranks[-1] + count            # the rank of the last one that goes
        for node, rank in zip(path, ranks):
            after, reached = node.forward, rank + node.span         # the next node on this level, and its rank
            while after is not None and reached <= last:
                reached += after.span
                after = after.forward
            node.forward, node.span = after, reached - rank - count
        while self._top.forward is None and self._top.down is not None:
            self._top = self._top.down
        self.length -= count
        return pairs

    # ---- to look at

    def levels(self) -> list[list[Node]]:
        """The nodes of each level, from the top, the head's first."""
        rows = []
        head: Node | None = self._top
        while head is not None:
            row = [head]
            while row[-1].forward is not None:
                row.append(row[-1].forward)
            rows.append(row)
            head = head.down
        return rows

    def __repr__(self) -> str:
        """A drawing, if it is a small one."""
        rows = self.levels()
        if self.length > DRAWN_MAX:
            return f"<SkipList: {self.length} members on {len(rows)} levels>"
        widths = [len(f"{node!r} ─1→ ") for node in rows[-1]]       # of each place, the arrow behind it included
        widths[0] = len("* ─1→ ")
        lines = []
        for height, row in zip(range(len(rows), 0, -1), rows):
            line, rank = f"level {height:<2} ", 0
            for number, node in enumerate(row):
                name = repr(node) if number else "*"
                width = sum(widths[rank:rank + node.span])
                rank += node.span
                arrow = f"{node.span}→ ".rjust(width - len(name) - 1, "─")
                line += name if node.forward is None else f"{name} {arrow}"
            lines.append(line)
        return "\n".join(lines)


class SortedSet:
    """The value of a sorted set: members, each with a score, in the order of scores."""

    __slots__ = ("scores", "order")

    def __init__(self) -> None:
        self.scores: Collection[float] = Collection()
        self.order = SkipList()

    @classmethod
    def from_pairs(cls, pairs: Iterable[tuple[bytes, float]]) -> Self:
        """From (member, score) in any order; of several scores the last one counts. Sorts once, links once."""
        made = cls()
        made.scores = Collection((member, score + 0.0) for member, score in pairs)
        made.order = SkipList(sorted([(score, member) for member, score in made.scores.items()]))
        return made

    def __copy__(self) -> Self:
        return self.from_pairs(self.scores.items())

    def __len__(self) -> int:
        return len(self.scores)

    def __eq__(self, other: object) -> bool:
        return self.scores == other.scores if isinstance(other, SortedSet) else NotImplemented

    def __repr__(self) -> str:
        return f"<SortedSet: {len(self)} members>\n{self.order}"

    def put(self, member: bytes, score: float) -> bool:
        """Give a member its score; whether the member is new."""
        old = self.scores.get(member)
        if old is not None:
            if old == score:
                return False
            member = self.order.remove(old, member)         # one object for the member, not two
        score += 0.0                        # which makes 0 of -0
        self.order.insert(score, member)
        return self.scores.put(member, score)

    def remove(self, member: bytes) -> bool:
        """Whether it was there."""
        score = self.scores.get(member)
        if score is None:
            return False
        self.order.remove(score, member)
        return self.scores.remove(member)

    def rank(self, member: bytes) -> int | None:
        """How many members come before this one, None if it is not there."""
        score = self.scores.get(member)
        return None if score is None else self.order.before(score, member)

    def by_rank(self, start: int, stop: int, reverse: bool = False) -> list[tuple[bytes, float]]:
        """(member, score) at the places from start to stop, both included; in reverse both count from the end."""
        if not reverse:
            return self.order.slice(start, stop + 1)
        end = len(self)
        return self.order.slice(end - 1 - stop, end - start)[::-1]

    def take(self, start: int, stop: int, reverse: bool = False) -> list[tuple[bytes, float]]:
        """As `by_rank`, and takes them out."""
        end = len(self)
        pairs = self.order.take(end - 1 - stop, end - start)[::-1] if reverse else self.order.take(start, stop + 1)
        for member, _ in pairs:
            self.scores.remove(member)
        return pairs
