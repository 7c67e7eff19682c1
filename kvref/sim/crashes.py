"""What may be found on a disk after a power loss: every legal state, numbered.

A disk promises what was synced. Of everything else a *profile* says what may survive:

    synced      nothing. One state
    ext4        names and truncates are a prefix of one journal; a file ends where some write ended, at a page
                boundary, or has zeros where its unsynced part begins (data=ordered, delayed allocation, auto_da_alloc)
    torn        ext4, and a file ends at any byte beyond its last fsync
    posix       each name, each size and each page for itself, as after any operation; a missing page is zeros
    reorder     posix with sectors in place of pages
    hostile     posix over everything since the computer was switched on, as if no fsync had ever been done; bits rot

What is undecided is a list of *dimensions*, each with its options: how far the journal got, where this file ends,
which version of that page is there. A state is a choice for each. Their number, `total`, is the product: it counts
choices, of which several may give the same image. Where that is more than can be looked at, a Space lists a cover
(every two options of every two dimensions meet, as far as the limit allows; each option occurs) and a seeded sample.
Of `hostile`, which is endless, the sample is another one after each operation: few states of many points cover much.

Interface:
  - PROFILES
  - Space(disk, profile)    the states: len, [number], describe(number), total, is_exhaustive, dimensions
  - Found                   one of them: an image, and the damage to unsynced tails

Invariants: state 0 is the worst, nothing unsynced survives. Numbers mean the same in every process. Nothing here
changes the disk; a Space is good until the disk changes.
What survives of each thing is in survival.py, with what is simpler than on file systems.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from kvref.sim.inodes import Image as Image
from kvref.sim.survival import PAGE, SECTOR, Choice, Dimension, Independent, Ordered, Pages, Tail, paths, within_reach

if TYPE_CHECKING:
    from kvref.sim.disk import Disk

PROFILES = ("synced", "ext4", "torn", "posix", "reorder", "hostile")
DAMAGE = ("cut", "zeros", "holes", "rot")       # worse and worse
FLIPS = 8                                       # bits that may rot
LOST = 0.25                                     # share of what is undecided that is not at its best, profile hostile
PRIMES = (7, 5, 3, 2)

Skeleton = tuple[int, list[Any], list[Any], list[int]]      # see Space._skeleton


class Found(NamedTuple):
    """What a computer finds when it is switched on. `damage`: the worst that the crash has done to an unsynced tail.

    "cut": it is a clean prefix. "zeros": zeros where it begins, or from some point to the end. "holes": bytes missing
    before others that are there. "rot": anything. What a failed fsync dropped, the crash has not done: zeros in its
    place count as what was written.
    """

    image: Image
    damage: str
    damages: tuple[tuple[str, str], ...] = ()       # (path, its damage) of files that are found, and not just cut


class Space:
    """See the module."""

    def __init__(self, disk: Disk, profile: str, limit: int = 64, seed: int = 0, exhaustive_last: bool = True) -> None:
        """`limit`: how many states may be listed; `exhaustive_last`: profile torn cuts a file's last write, up to a
        page, at every byte, even where that is more than `limit`."""
        if profile not in PROFILES:
            raise ValueError(f"no profile of power loss is called {profile!r}; there is {', '.join(PROFILES)}")
        self.profile, self._inodes, self._hostile = profile, disk.inodes, profile == "hostile"
        journaled, strict = profile in ("ext4", "torn"), profile == "synced"
        reach = within_reach(disk.inodes, self._hostile)
        self._names = Ordered(disk) if journaled else Independent(disk, [] if strict else reach, self._hostile)
        self._dimensions = list(self._names.dimensions)
        self._named = len(self._dimensions)
        self._files: dict[int, tuple[Tail | Pages, int, int]] = {}      # inode -> its part of a choice
        for node in [] if strict else reach:
            if not node.is_directory and (node.history if self._hostile else node.unsynced()):
                file = Tail(node, profile == "torn", exhaustive_last) if journaled else Pages(
                    node, SECTOR if profile == "reorder" else PAGE, self._hostile)
                first = len(self._dimensions)
                self._dimensions += file.dimensions
                self._files[node.number] = file, first, len(self._dimensions)
        self._skeletons: dict[Choice, Skeleton] = {}
        self._flips: list[tuple[int, int]] = [(0, 0)]                   # inode, bit
        if self._hostile:
            self._add_rot(disk, random.Random(f"{seed} rot {disk.journal.last}"))
        sizes = [dimension.size for dimension in self._dimensions]
        self.total = math.prod(sizes)
        if self.total <= limit:
            self._rows = list(itertools.product(*map(range, sizes)))
        elif self._hostile:
            self._rows = _at_random(self._dimensions, limit, random.Random(f"{seed} hostile {disk.journal.last}"))
        else:
            self._rows = _sample(self._dimensions, limit, random.Random(f"{seed} {profile}"),
                                 profile == "torn" and exhaustive_last)
        self.is_exhaustive = len(self._rows) == self.total

    def _add_rot(self, disk: Disk, rng: random.Random) -> None:
        """Any bit of all files as likely as any other."""
        found = [number for _, number in paths(disk.inodes, lambda node: node.visible)]
        sizes = [0 if disk.inodes[number].is_directory else len(disk.inodes[number].visible) for number in found]
        if any(sizes):
            struck = rng.choices(range(len(found)), sizes, k=FLIPS)
            self._flips += [(found[place], rng.randrange(8 * sizes[place])) for place in struck]

        def word(option: int) -> str:
            number, bit = self._flips[option]
            return f"bit {bit % 8} of byte {bit // 8} of {self._inodes[number].path} flips" if option else "no bit"
        self._dimensions.append(Dimension("rot", len(self._flips), word, 0))

    @property
    def dimensions(self) -> list[tuple[str, list[str]]]:
        """What is undecided: (what it is, its options in words)."""
        return [(each.what, list(map(each.word, range(each.size)))) for each in self._dimensions if each.size > 1]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Found]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, number: int) -> Found:
        """Numbers as in a list. IndexError."""
        row = self._rows[number]
        named = row[:self._named]
        if named not in self._skeletons:
            self._skeletons[named] = self._skeleton(named)
        upto, entries, open_, numbers = self._skeletons[named]
        image, damage, damages = entries.copy(), 3 if self._hostile else 0, list[tuple[str, str]]()
        for place, path, file, first, last in open_:
            content, harm = file.found(row[first:last], upto)
            image[place] = path, content
            if harm:
                damage = max(damage, harm)
                damages.append((path, DAMAGE[harm]))
        inode, bit = self._flips[row[-1]] if self._hostile else (0, 0)
        if inode:
            for place in [place for place, number in enumerate(numbers) if number == inode]:
                path, content = image[place]
                image[place] = path, _flipped(content, bit)
                damages = sorted({*damages, (path, "rot")})
        return Found(tuple(image), DAMAGE[damage], tuple(damages))

    def _skeleton(self, named: Choice) -> Skeleton:
        """(how far the journal got, the image with what is decided, what is not, the inode of each entry)."""
        upto, found = self._names.names(named)
        entries: list[Any] = []
        open_: list[Any] = []
        for place, (path, number) in enumerate(found):
            node = self._inodes[number]
            if number in self._files:
                open_.append((place, path, *self._files[number]))
            entries.append((path, None if node.is_directory else node.durable_bytes()))
        return upto, entries, open_, [number for _, number in found]

    def describe(self, number: int) -> str:
        """One line: which choice on which file."""
        chosen = [f"{dimension.what}: {dimension.word(option)}"
                  for dimension, option in zip(self._dimensions, self._rows[number]) if dimension.size > 1]
        return "; ".join(chosen) or "all is decided"

    def __repr__(self) -> str:
        how = "all" if self.is_exhaustive else f"{len(self):,} listed"
        lines = [f"  {each.what}: {each.size:,} options, from '{each.word(0)}' to '{each.word(each.best)}'"
                 for each in self._dimensions if each.size > 1]
        return "\n".join([f"<Space {self.profile}: {self.total:,} states, {how}", *lines]) + ">"


def _flipped(content: bytes, bit: int) -> bytes:
    if not content:
        return content
    at = bit // 8 % len(content)
    return content[:at] + bytes([content[at] ^ 1 << bit % 8]) + content[at + 1:]


def _sample(dimensions: list[Dimension], limit: int, rng: random.Random, beyond: bool) -> list[Choice]:
    """The worst, the best, a pairwise cover, each option that must occur, and at random up to `limit`.

    `beyond`: options that must occur do so even where that is more than `limit`.
    """
    best, sizes = tuple(each.best for each in dimensions), [each.size for each in dimensions]
    rows = dict.fromkeys([(0,) * len(best), best, *_pairs(sizes, limit // 2)])
    for index, seen in enumerate([{row[index] for row in rows} for index in range(len(best))]):
        must = dimensions[index].must
        if beyond or len(rows) < limit:
            rows.update(dict.fromkeys((*best[:index], option, *best[index + 1:])
                                      for option in (range(sizes[index]) if must is None else must)
                                      if option not in seen or beyond))
    for _ in range(2 * limit):
        if len(rows) >= limit:
            break
        rows[tuple([int(rng.random() * size) for size in sizes])] = None
    return list(rows)[:None if beyond else limit]


def _at_random(dimensions: list[Dimension], limit: int, rng: random.Random) -> list[Choice]:
    """The worst, the best, the best with a bit flipped; then any bit or none, and something of all else is lost."""
    *others, rot = dimensions
    best = tuple(each.best for each in others)
    rows = dict.fromkeys([(0,) * len(dimensions), (*best, 0), (*best, rot.size - 1)])
    for _ in range(4 * limit):
        if len(rows) >= limit:
            break
        rows[(*(int(rng.random() * each.size) if rng.random() < LOST else each.best for each in others),
              int(rng.random() * rot.size))] = None
    return list(rows)[:limit]


def _pairs(sizes: list[int], limit: int) -> Iterator[Choice]:
    """Every two options of every two dimensions meet in one of these, if no dimension has more options than a prime p
    that is small enough; of a larger dimension p options stand for all.

    Row (a, b) of p * p gives the column c the option a * c + b mod p: two different columns show all pairs. Where there
    are more than p dimensions, one such array for each digit of a dimension's number: two numbers differ in one.
    """
    digits = {p: next(n for n in itertools.count(1) if p ** n >= len(sizes)) for p in PRIMES}
    fitting = [p for p in PRIMES if p * p * digits[p] <= limit] or [2]
    p = next((p for p in reversed(fitting) if p >= max(sizes)), fitting[0])
    options = [range(size) if size <= p else [(size - 1) * part // (p - 1) for part in range(p)] for size in sizes]
    for digit in range(digits[p]):
        columns = [(index // p ** digit % p, mine, len(mine)) for index, mine in enumerate(options)]
        for a, b in itertools.product(range(p), range(p)):
            yield tuple([mine[(a * c + b) % p % size] for c, mine, size in columns])
