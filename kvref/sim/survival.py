"""What of one thing may survive a power loss: of the names, of a file on ext4, of a file on a disk without any order.

Each says what is undecided about it, as a list of `Dimension`s, and what is found for a choice: an option for each.

Interface:
  - Ordered, Independent    names: `names(choice)` is how far the journal got, and every path with its inode
  - Tail, Pages             a file: `found(choice, upto)` is its content and the damage to its unsynced part
  - within_reach, paths     what has a name in some state; what has one in this state

Invariant: option 0 of every dimension is the worst, and with option `best` of each everything survives.

Simpler than file systems: where changes of names that hang together have more than MOST_SETS legal sets, these count:
all up to some change, each with only what it needs, all but one with what needs it. In Tail a file's unsynced bytes
are lost from its end, and in-place overwrites before that end survive with the first byte behind it.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from kvref.sim.inodes import ROOT, Node, Operation

if TYPE_CHECKING:
    from kvref.sim.disk import Disk

PAGE, SECTOR = 4096, 512
MOST_SETS = 1000                                # of changes of names that hang together

Choice = tuple[int, ...]                        # an option for each dimension
Content = tuple[bytes, int]                     # of a file, and its damage: 0 it is cut, 1 zeros, 2 holes, 3 rot


class Dimension(NamedTuple):
    """Something undecided. Option 0 is the worst; with option `best` everything survives."""

    what: str
    size: int                                   # so many options
    word: Callable[[int], str]                  # an option in words
    best: int
    must: Sequence[int] | None = None           # options that a sample must hold; None: all


class Ordered:
    """Names as ext4 keeps them: a prefix of everything that was done to names and sizes, in one order."""

    def __init__(self, disk: Disk) -> None:
        self._inodes, entries = disk.inodes, disk.journal.entries
        self._upto = [disk.journal.committed, *(entry.seq for entry in entries)]
        self.dimensions = [Dimension("journal", len(self._upto), self._word, len(entries))] if entries else []
        self._entries = list(entries)

    def _word(self, option: int) -> str:
        return f"up to {self._entries[option - 1]!r}" if option else "as committed"

    def names(self, choice: Choice) -> tuple[int, list[tuple[str, int]]]:
        """(how far the journal got, every path with its inode)."""
        upto = self._upto[choice[0] if choice else 0]

        def of(node: Node) -> Any:
            if not node.pending:
                return node.durable
            return after(node, node.durable, [done for done in node.pending if done.seq <= upto])
        return upto, paths(self._inodes, of)


class Independent:
    """Names as POSIX keeps them: each change for itself, but that changes of one name keep their order.

    That is: none is found without those before it, so of two renames onto one name never the second alone.
    """

    def __init__(self, disk: Disk, reach: list[Node], hostile: bool) -> None:
        self._inodes, self._hostile = disk.inodes, hostile
        self.dimensions: list[Dimension] = []
        self._groups: list[tuple[int, list[Operation], list[int]]] = []     # directory, its changes, sets of them
        for node in reach:
            if node.is_directory:
                for group in _groups(node, node.history if hostile else node.pending):
                    self._add(node, group)

    def _add(self, node: Node, group: list[Operation]) -> None:
        least, last = list[int](), dict[str, int]()     # with each change, what must be there for it; sets are bits
        for index, done in enumerate(group):
            mine = [name for directory, name, _ in done.names if directory == node.number]
            least.append(functools.reduce(int.__or__, (least[last[name]] for name in mine if name in last), 1 << index))
            last.update(dict.fromkeys(mine, index))
        legal = _legal_sets(least)

        self._groups.append((node.number, group, legal))

        def word(option: int) -> str:
            return ", ".join(repr(done) for done in _chosen(group, legal[option])) or "none of them"
        self.dimensions.append(Dimension(f"names in {node.path}: {', '.join(last)}", len(legal), word, len(legal) - 1))

    def names(self, choice: Choice) -> tuple[int, list[tuple[str, int]]]:
        survive: dict[int, list[Operation]] = {}
        for option, (directory, group, legal) in zip(choice, self._groups):
            survive.setdefault(directory, []).extend(_chosen(group, legal[option]))

        def of(node: Node) -> Any:
            base = node.origin if self._hostile else node.durable
            return after(node, base, survive[node.number]) if node.number in survive else base
        return 0, paths(self._inodes, of)


def _legal_sets(least: list[int]) -> list[int]:
    """Every set of changes that holds, with each of its changes, what that needs. None is the first, all the last."""
    legal = [0]
    for index, need in enumerate(least):
        legal += [chosen | need for chosen in legal if chosen & need == need ^ 1 << index]
        if len(legal) > MOST_SETS:
            break
    else:
        return legal
    count = range(len(least))
    everything = (1 << len(least)) - 1
    without = [sum(1 << other for other in count if not least[other] >> index & 1) for index in count]
    some = dict.fromkeys([0, *least, *without, *((2 << index) - 1 for index in count)])
    return [*(each for each in some if each != everything), everything]


def _chosen(group: list[Operation], chosen: int) -> list[Operation]:
    return [done for index, done in enumerate(group) if chosen >> index & 1]


def _groups(directory: Node, changes: list[Operation]) -> list[list[Operation]]:
    """The changes of a directory, parted so that those of different groups have no name in common."""
    group_of: dict[str, list[Operation]] = {}
    for done in changes:
        names = [name for number, name, _ in done.names if number == directory.number]
        met = {id(group_of[name]): group_of[name] for name in names if name in group_of}
        merged = sorted([*itertools.chain(*met.values()), done], key=lambda each: each.seq)
        for name in [*(name for name, group in group_of.items() if id(group) in met), *names]:
            group_of[name] = merged
    return list({id(group): group for group in group_of.values()}.values())


def after(node: Node, base: Any, changes: list[Operation]) -> Any:
    """Content (bytes or names) as it is after these changes."""
    content = base.copy() if isinstance(base, dict) else bytearray(base)
    for done in changes:
        node.change(content, done)
    return content


def paths(inodes: dict[int, Node], names_of: Callable[[Node], Any]) -> list[tuple[str, int]]:
    """Every path with its inode, sorted. A directory inside itself, where renames were torn apart, is empty there."""
    found: list[tuple[str, int]] = []

    def visit(number: int, path: str, above: tuple[int, ...]) -> None:
        for name, inside in names_of(inodes[number]).items():
            found.append((f"{path}/{name}", inside))
            if inodes[inside].is_directory and inside not in above:
                visit(inside, f"{path}/{name}", (*above, inside))
    visit(ROOT, "", (ROOT,))
    return sorted(found)


def within_reach(inodes: dict[int, Node], hostile: bool) -> list[Node]:
    """Everything that has a name in some state, whatever the profile."""
    reach = [ROOT]
    for number in reach:                        # which grows
        node = inodes[number]
        if node.is_directory:
            base, changes = (node.origin, node.history) if hostile else (node.durable, node.pending)
            inside = [*base.values(), *(inode for done in changes for at, _, inode in done.names if at == number)]
            reach += [each for each in dict.fromkeys(inside) if each and each not in reach]
    return [inodes[number] for number in reach]


class Tail:
    """A file on ext4: it ends somewhere behind what is durable, and may begin there with zeros."""

    def __init__(self, node: Node, any_byte: bool, exhaustive_last: bool) -> None:
        self._node, self._changes = node, node.unsynced()
        pending = self._changes
        self._truncates = [done.seq for done in pending if done.kind == "truncate"]
        low = min([len(node.durable), *(done.offset for done in pending if done.kind == "truncate")])
        ends = sorted({done.end for done in pending if done.end > low})
        top = ends[-1] if ends else low
        pages = range((low // PAGE + 1) * PAGE, top, PAGE)
        self._low = low
        self._zeros: Sequence[int] = range(low + 1, top + 1) if any_byte else ends
        self._cuts: Sequence[int] = range(low + 1, top + 1) if any_byte else sorted({*ends, *pages})
        self._found: dict[tuple[int, ...], Content] = {}
        self._versions: dict[tuple[int, int], tuple[bytes, bytes]] = {}
        size = 1 + len(self._zeros) + len(self._cuts)
        must: Sequence[int] | None = None
        if any_byte and ends:
            last = range(max(low, pending[-1].offset) + 1, pending[-1].end + 1)
            some = [last[len(last) * part // 8] for part in range(8)] if last else []
            every = last if exhaustive_last and len(last) <= PAGE else some
            must = [0, *(1 + end - low - 1 for end in sorted({*ends, *some[1::3]})),
                    *(1 + len(self._zeros) + end - low - 1 for end in sorted({*every, *ends, *pages}))]
        self.dimensions = [Dimension(f"end of {node.path}", size, self._word, size - 1, must)] if size > 1 else []

    def _option(self, option: int) -> tuple[int, bool]:
        """(where the file ends, whether it begins with zeros behind what is durable)."""
        if not option:
            return 0, False
        zeros = option <= len(self._zeros)
        return (self._zeros[option - 1], True) if zeros else (self._cuts[option - 1 - len(self._zeros)], False)

    def _word(self, option: int) -> str:
        end, zeros = self._option(option)
        return f"ends at {end}" + f", zeros from {self._low}" * zeros if option else "nothing unsynced"

    def found(self, choice: Choice, upto: int) -> Content:
        """`upto`: how far the journal got. Truncates behind that have not been, nor what was written after them."""
        version = (0, 0)
        if self._truncates or self._node.replaced:
            version = (sum(seq <= upto for seq in self._truncates),
                       max((seq for seq in self._node.replaced if seq <= upto), default=0))
        if version not in self._versions:
            self._versions[version] = self._version(*version)
        base, full = self._versions[version]
        end, zeros = self._option(choice[0]) if choice else (0, False)
        end = max(len(base), min(end, len(full)))
        key = (*version, end, zeros and end > len(base))
        if key not in self._found:
            self._found[key] = self._content(base, full, end, zeros)
        return self._found[key]

    def _content(self, base: bytes, full: bytes, end: int, zeros: bool) -> Content:
        if end == len(base):
            return base, 0
        if not zeros:
            return (full if end == len(full) else full[:end]), 0
        until = min(end, (len(base) // PAGE + 1) * PAGE)
        content = base + bytes(until - len(base)) + full[until:end]
        return content, int(content != full[:end])

    def _version(self, truncates: int, flushed: int) -> tuple[bytes, bytes]:
        """(what is there in any case, all that may be there) after so many truncates. To replace a file by another
        forces the other's data out: what had been written before the rename `flushed` is there."""
        node, done, forced = self._node, 0, bytearray(self._node.durable)
        content = bytearray(forced)
        for change in self._changes:
            cuts = change.kind == "truncate"
            if cuts and done == truncates:
                break
            node.change(content, change)
            if change.seq <= flushed and (cuts or change.data):     # what has been dropped is not forced out
                node.change(forced, change)
            elif cuts:
                del forced[change.offset:]
            done += cuts
        return bytes(forced) if done or flushed else node.durable_bytes(), bytes(content)


class Pages:
    """A file on a disk that writes in any order: its size, and each page or sector, for itself.

    The size is the durable one, or that after an operation, or a page boundary. A page is the durable one, or as after
    some operation that touched it: it may have been written back then, and not again.
    """

    def __init__(self, node: Node, unit: int, hostile: bool) -> None:
        self._base: bytes = node.origin if hostile else node.durable_bytes()
        self._unit, self._hostile = unit, hostile
        self._wholes: list[tuple[int, bytes]] = []      # from there on unsynced: contents, each no prefix of the next
        self._found: dict[Choice, Content] = {}
        versions: dict[int, dict[bytes, int]] = {}      # of the unit at this offset, each with the seq it is from
        content, low = bytearray(self._base), len(self._base)
        sizes, last = {low}, dict[int, bytes]()
        for done in node.history if hostile else node.unsynced():
            size, cuts = len(content), done.kind == "truncate"
            if done.offset < size:
                self._wholes.append((low, bytes(content)))
            node.change(content, done)
            low = min(low, done.offset) if cuts else low
            sizes |= {len(content), done.end}
            for at in range(done.offset // unit * unit, size if cuts else done.end, unit):
                last[at] = bytes(content[at:at + unit]).rstrip(b"\0")
                if at not in versions:
                    versions[at] = {self._base[at:at + unit].rstrip(b"\0"): 0}
                versions[at].setdefault(last[at], done.seq)
        self._full = bytes(content)
        self._wholes.append((low, self._full))
        sizes.update(range((low // PAGE + 1) * PAGE, max(sizes), PAGE))
        self._sizes = [len(self._base), *sorted(size for size in sizes if low <= size != len(self._base))]
        self._dirty = [(at, list(mine)) for at, mine in sorted(versions.items()) if len(mine) > 1]
        what = "sector" if unit == SECTOR else "page"
        self.dimensions = [
            Dimension(f"size of {node.path}", len(self._sizes), lambda option: f"{self._sizes[option]} bytes",
                      self._sizes.index(len(content))),
            *(Dimension(f"{what} at {at} of {node.path}", len(mine),
                        _words(list(versions[at].values()), mine.index(last[at])), mine.index(last[at]))
              for at, mine in self._dirty)]

    def found(self, choice: Choice, upto: int) -> Content:
        if choice not in self._found:
            content = self._content(self._sizes[choice[0]], choice[1:])
            self._found[choice] = content, self._damage(content)
        return self._found[choice]

    def _content(self, size: int, options: Choice) -> bytes:
        content = bytearray(self._base[:size].ljust(size, b"\0"))
        for (at, versions), option in zip(self._dirty, options):
            if option and at < size:
                long = min(self._unit, size - at)
                content[at:at + long] = versions[option][:long].ljust(long, b"\0")
        return bytes(content)

    def _damage(self, content: bytes) -> int:
        """The least that turns some content that the file had into this one."""
        if self._hostile:
            return 0 if content == self._full else 3
        damage, data = 2, len(content.rstrip(b"\0"))
        for low, whole in self._wholes:
            if len(content) >= low and whole.startswith(content[:max(low, data)]):
                damage = min(damage, 0 if whole.startswith(content) else 1)
        return damage


def _words(seqs: list[int], best: int) -> Callable[[int], str]:
    """Versions of a page in words."""
    return lambda option: "lost" if not option else "there" if option == best else f"as after #{seqs[option]}"
