"""A disk that knows what is written and what is durable, and so can lose what a power failure loses.

Each file and each directory exists twice: *visible*, as every process sees it through the page cache, and
*durable*, as a computer finds it that is switched on again. Between the two stands the list of what has been
done and not been synced:

    write, truncate              change a file's visible bytes        fsync(file)     makes them durable
    create, mkdir,               change a directory's visible names   fsync_dir(dir)  makes them durable
    rename, unlink

A file whose bytes are durable and whose name is not may be lost, as POSIX allows: that is why fsync_dir exists.

Numbered principles:
  1. The disk's state is a function of `operations`: every change is recorded first and then applied.
  2. `fsync` covers what was done before it *began*; what another process writes meanwhile stays unsynced.
  3. An open file is its inode, not its name: unlinked or renamed, it goes on working.
  4. What fails and changes nothing is no operation. A failed fsync is one: it drops what it should have saved.

Interface:
  - Disk                        the Disk port
  - Disk.of(image), image()     a disk that holds just this, all of it durable; all that is visible on this one
  - operations, observers       everything that was ever done to it, in order; who wants to hear of it
  - faults                      a list of Fault: what is going to go wrong
  - dropped                     writes that a failed fsync has left readable and will never make durable
  - content(path)               a file's bytes, visible or durable: for looking and for tests
  - latency_us                  what an operation takes, by kind
  - states, power_loss          the legal states after a power failure (sim/crashes.py), and to be in one of them
  - begin_fsync, end_fsync      the two halves of an fsync, for those who do other things in between
  - copy, moved, instantly      the same files on another disk, in another computer; the same disk without waiting

Simpler than a file system: no permissions, links, rmdir or limits. A failed fsync_dir changes nothing: the next one
may succeed.
"""

from __future__ import annotations

import copy
import errno
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from html import escape
from typing import Any, NamedTuple

from kvref.ports import OpenMode
from kvref.sim.clock import Clock
from kvref.sim.crashes import Space
from kvref.sim.errors import failure
from kvref.sim.faults import Fault as Fault
from kvref.sim.faults import Strike, strike
from kvref.sim.inodes import LIES, ROOT, Image, Node
from kvref.sim.inodes import Operation as Operation

BAR, SHOWN = 120, 8              # for _repr_html_: pixels, operations
NEW: dict[str, Callable[[], Any]] = {"create": bytes, "mkdir": dict}


class Begun(NamedTuple):
    """An fsync that has begun: of this inode, its operations up to `covers`, when the newest of all was `begun`."""

    inode: int
    covers: int
    begun: int
    us: int                         # so long it takes
    error: str


@dataclass
class Journal:
    """What a journaling file system writes down in one order, and what all views of a disk share besides inodes."""

    entries: list[Operation] = field(default_factory=list)      # of names and sizes, not committed
    committed: int = 0              # up to this seq, all are
    last: int = 0                   # the newest operation
    free: int = ROOT + 1            # the next inode

    def add(self, operation: Operation) -> None:
        self.last = operation.seq
        if operation.names or operation.kind == "truncate":
            self.entries.append(operation)
        elif operation.kind in ("fsync", "fsync_dir") and not operation.error and (
                operation.covers or any(each.inode == operation.inode and each.kind in NEW for each in self.entries)):
            self.committed = max(self.committed, operation.begun)
            self.entries = [each for each in self.entries if each.seq > self.committed]


@dataclass(eq=False, slots=True)
class File:
    """An open file."""

    inode: int
    path: str
    mode: OpenMode
    position: int = 0
    closed: bool = False


class Disk:
    """The Disk port, its history, and its end."""

    def __init__(self, clock: Clock, sequence: Iterator[int] | None = None, fsync_us: int = 1000) -> None:
        self.clock = clock
        self.latency_us = {"fsync": fsync_us, "fsync_dir": fsync_us}
        self.operations: list[Operation] = []
        self.observers: list[Callable[[Operation], None]] = []
        self.faults: list[Fault] = []
        self.inodes: dict[int, Node] = {ROOT: Node.new(ROOT, "/", {})}
        self.journal = Journal()
        self._sequence = sequence or itertools.count(1)
        self._waits = True

    @classmethod
    def of(cls, image: Image, clock: Clock, sequence: Iterator[int] | None = None, fsync_us: int = 1000) -> Disk:
        """A disk with these files and directories; all is durable."""
        disk = cls(clock, sequence, fsync_us)
        disk._become(image, ROOT + 1)
        return disk

    # Files

    def open(self, path: str, mode: OpenMode) -> File:
        parent, name, number = self._place(path)
        if number is None:
            if mode == "r":
                raise failure(errno.ENOENT, path)
            self._attempt("create", path)
            number = self.journal.free
            self._do("create", path, number, names=((parent, name, number),))
        elif self._regular(number, path).visible and mode == "w":
            self._attempt("truncate", path)
            self._do("truncate", path, number)
        else:
            self._attempt("open", path)
        return File(number, path, mode)

    def read(self, file: File, size: int) -> bytes:
        if file.mode != "r":
            raise failure(errno.EBADF, file.path)
        node = self._of(file)
        struck = self._attempt("read", node.path)
        data = bytes(node.visible[file.position:file.position + (struck.short or size)])
        file.position += len(data)
        return data

    def write(self, file: File, data: bytes) -> int:
        if file.mode == "r":
            raise failure(errno.EBADF, file.path)
        node = self._of(file)
        short = self._attempt("write", node.path).short
        if file.mode == "a":
            file.position = len(node.visible)
        error = "short" if 0 < short < len(data) else ""
        data = data[:short] if error else data
        if data:
            self._do("write", node.path, node.number, offset=file.position, data=bytes(data), error=error)
        file.position += len(data)
        return len(data)

    def size(self, file: File) -> int:
        return len(self._of(file).visible)

    def fsync(self, file: File) -> None:
        self._sync(self.begin_fsync(file))

    def begin_fsync(self, file: File) -> Begun:
        """What an fsync that begins now will make durable, and how long it will take."""
        return self._begin("fsync", self._of(file))

    def end_fsync(self, begun: Begun) -> None:
        node, error = self.inodes[begun.inode], begun.error
        if error in ("", LIES) or node.to_drop(begun.covers):
            self._do("fsync_dir" if node.is_directory else "fsync", node.path, node.number,
                     covers=begun.covers, begun=begun.begun, error=error)
        if error not in ("", LIES):
            raise failure(getattr(errno, error), node.path)

    def truncate(self, file: File, size: int) -> None:
        if file.mode == "r" or size < 0:
            raise failure(errno.EINVAL, file.path)
        node = self._of(file)
        self._attempt("truncate", node.path)
        self._do("truncate", node.path, node.number, offset=size)

    def close(self, file: File) -> None:
        self._of(file)
        file.closed = True

    # Names

    def rename(self, old: str, new: str) -> None:
        source, old_name, number = self._place(old)
        target, new_name, replaced = self._place(new)
        if number is None:
            raise failure(errno.ENOENT, old)
        if number == replaced:
            return
        self._may_move(number, replaced, old, new)
        self._attempt("rename", old)
        self._do("rename", old, number, to=new, names=((source, old_name, 0), (target, new_name, number)))

    def unlink(self, path: str) -> None:
        parent, name, number = self._place(path)
        if number is None:
            raise failure(errno.ENOENT, path)
        self._regular(number, path)
        self._attempt("unlink", path)
        self._do("unlink", path, number, names=((parent, name, 0),))

    def mkdir(self, path: str) -> None:
        parent, name, number = self._place(path)
        if number is not None:
            raise failure(errno.EEXIST, path)
        self._attempt("mkdir", path)
        number = self.journal.free
        self._do("mkdir", path, number, names=((parent, name, number),))

    def fsync_dir(self, path: str) -> None:
        self._sync(self._begin("fsync_dir", self._directory(self._find(path), path)))

    def list(self, path: str) -> list[str]:
        names = self._directory(self._find(path), path).visible
        self._attempt("list", path)
        return sorted(names)

    # After a power failure

    def states(self, profile: str, limit: int = 64) -> range:
        """The states in which the disk may legally be found if the power fails now, by number; 0 is the worst. Where
        there are more than `limit`, a sample: its numbers mean something with the same limit only."""
        return range(len(Space(self, profile, limit)))

    def power_loss(self, profile: str = "synced", state: int = 0, limit: int = 64) -> None:
        """Be as the computer finds this disk when it is switched on again. Open files are no more."""
        space = Space(self, profile, limit)
        if not 0 <= state < len(space):
            raise ValueError(f"profile {profile!r} has states 0 to {len(space) - 1}, not {state}")
        self._do("power loss", profile, self.journal.free, offset=state, image=space[state].image)

    # For looking, and for others in this computer

    def content(self, path: str, durable: bool = False) -> bytes:
        """All bytes of a file, as any process sees them or as a power failure would leave them."""
        node = self._regular(self._find(path, durable), path)
        return bytes(node.durable if durable else node.visible)

    def image(self) -> Image:
        """Everything that is visible, by path."""
        nodes = ((path, self.inodes[number]) for number, path in self._walk(ROOT, "/") if number != ROOT)
        return tuple(sorted((path, None if node.is_directory else bytes(node.visible)) for path, node in nodes))

    @property
    def dropped(self) -> Sequence[Operation]:
        """Writes that a failed fsync has left in the page cache as clean: readable, and never to be durable."""
        return sorted((done for node in self.inodes.values() for done in node.dropped), key=lambda done: done.seq)

    def duration_us(self, kind: str, path: str) -> int:
        """What the next such operation will take: for those who keep the time themselves."""
        delays = (fault.delay_us for fault in self.faults if fault.concerns(kind, path) and copy.copy(fault).strikes())
        return self.latency_us.get(kind, 0) + sum(delays)

    def instantly(self) -> Disk:
        """This disk, for those who keep the time themselves: its operations take none."""
        view = copy.copy(self)
        view._waits = False
        return view

    def copy(self) -> Disk:
        """The same files on a disk of their own, without the history and the faults; its operations take no time."""
        twin = self.instantly()
        twin.operations, twin.observers, twin.faults = [], [], []
        twin.latency_us = self.latency_us.copy()
        twin.journal = replace(self.journal, entries=self.journal.entries.copy())
        twin.inodes = {number: node.copy() for number, node in self.inodes.items()}
        return twin

    def moved(self, clock: Clock, sequence: Iterator[int]) -> Disk:
        """A copy that goes on in another computer: in that one's time, and in the order of its operations."""
        twin = self.copy()
        twin.clock, twin._sequence, twin._waits = clock, sequence, True
        return twin

    def apply(self, operation: Operation) -> None:
        """What an operation does to the state; the only place that changes it (principle 1)."""
        self.journal.add(operation)
        match operation.kind:
            case "power loss":
                self._become(operation.image, operation.inode)
            case "fsync" | "fsync_dir" if operation.error == LIES:
                self.inodes[operation.inode].lied = operation.covers
            case "rot":
                self.inodes[operation.inode].rot(operation)
            case "fsync" | "fsync_dir" if operation.error:
                self.inodes[operation.inode].drop(operation.covers)
            case "fsync" | "fsync_dir":
                self.inodes[operation.inode].sync(operation.covers)
            case "write" | "truncate":
                self.inodes[operation.inode].do(operation)
            case _:
                self._change_names(operation)

    # Inside

    def _do(self, kind: str, path: str, inode: int = 0, **fields: Any) -> None:
        seq = next(self._sequence)
        while seq <= self.journal.last:         # it was told of operations that another sequence has numbered
            seq = next(self._sequence)
        operation = Operation(seq, self.clock.monotonic_us(), kind, path, inode, **fields)
        self.operations.append(operation)
        self.apply(operation)
        for observer in self.observers:
            observer(operation)

    def _begin(self, kind: str, node: Node) -> Begun:
        struck = self._struck(kind, node.path)
        return Begun(node.number, node.last_change(), self.journal.last,
                     self.latency_us.get(kind, 0) + struck.delay_us, struck.error)

    def _sync(self, begun: Begun) -> None:
        self._wait(begun.us)
        self.end_fsync(begun)

    def _change_names(self, operation: Operation) -> None:
        number = operation.inode
        if operation.kind in NEW:
            self.inodes[number] = Node.new(number, operation.path, NEW[operation.kind]())
            self.journal.free = number + 1
        elif operation.kind == "rename":
            directory, name, _ = operation.names[-1]
            if name in self.inodes[directory].visible:
                self.inodes[number].replaced.append(operation.seq)
            self.inodes[number].path = operation.to
        for directory in dict.fromkeys(directory for directory, _, _ in operation.names):
            self.inodes[directory].do(operation)

    def _become(self, image: Image, first: int) -> None:
        """Hold just this, durably; inodes are numbered from `first` on. In place: views of this disk share the dict."""
        names: dict[str, dict[str, int]] = {"": {}}
        for number, (path, content) in enumerate(image, first):
            parent, _, name = path.rpartition("/")
            names[parent][name] = number
            if content is None:
                names[path] = {}
        self.inodes.clear()
        self.inodes[ROOT] = Node.new(ROOT, "/", names[""])
        for number, (path, content) in enumerate(image, first):
            self.inodes[number] = Node.new(number, path, names[path] if content is None else content)
        self.journal.entries, self.journal.free = [], first + len(image)

    def _wait(self, us: int) -> None:
        if self._waits and us:
            self.clock.sleep(us)

    def _attempt(self, kind: str, path: str) -> Strike:
        """Wait for it, and fail where a fault says so."""
        struck = self._struck(kind, path)
        self._wait(self.latency_us.get(kind, 0) + struck.delay_us)
        if struck.error not in ("", LIES):
            raise failure(getattr(errno, struck.error), path)
        return struck

    def _struck(self, kind: str, path: str) -> Strike:
        """What the faults do to it. Bits flip at once."""
        struck = strike(self.faults, kind, path)
        for pattern, bit in struck.rots:
            for number, name in list(self._walk(ROOT, "/")):
                node = self.inodes[number]
                if fnmatchcase(name, pattern) and node.durable and not node.is_directory:
                    at = bit // 8 % len(node.durable)
                    self._do("rot", name, number, offset=at, data=bytes([node.durable[at] ^ 1 << bit % 8]))
        return struck

    def _may_move(self, number: int, replaced: int | None, old: str, new: str) -> None:
        """As rename(2): files replace files, directories empty directories, and nothing moves into itself."""
        is_directory = self.inodes[number].is_directory
        if is_directory and _parts(new)[:len(_parts(old))] == _parts(old):
            raise failure(errno.EINVAL, new)
        if replaced and not is_directory:
            self._regular(replaced, new)
        elif replaced and self._directory(replaced, new).visible:
            raise failure(errno.ENOTEMPTY, new)

    def _of(self, file: File) -> Node:
        if file.closed or file.inode not in self.inodes:
            raise failure(errno.EBADF, file.path)
        return self.inodes[file.inode]

    def _find(self, path: str, durable: bool = False) -> int:
        number = ROOT
        for name in _parts(path):
            directory = self._directory(number, path)
            names = directory.durable if durable else directory.visible
            if name not in names:
                raise failure(errno.ENOENT, path)
            number = names[name]
        return number

    def _place(self, path: str) -> tuple[int, str, int | None]:
        """(directory, name, inode or None): where this name is, or would be."""
        *above, name = _parts(path) or [""]
        parent = self._directory(self._find("/".join(above)), path)
        return (parent.number, name, parent.visible.get(name)) if name else (ROOT, name, ROOT)

    def _regular(self, number: int, path: str) -> Node:
        if self.inodes[number].is_directory:
            raise failure(errno.EISDIR, path)
        return self.inodes[number]

    def _directory(self, number: int, path: str) -> Node:
        if not self.inodes[number].is_directory:
            raise failure(errno.ENOTDIR, path)
        return self.inodes[number]

    def _walk(self, number: int, path: str) -> Iterator[tuple[int, str]]:
        """(inode, path) of everything that has a visible name, parents first."""
        yield number, path
        if self.inodes[number].is_directory:
            for name, inside in sorted(self.inodes[number].visible.items()):
                yield from self._walk(inside, f"{path.rstrip('/')}/{name}")

    def __repr__(self) -> str:
        lines = [self._line(number, path) for number, path in self._walk(ROOT, "/") if number != ROOT]
        return "\n".join([f"<Disk, {len(self.operations)} operations", *lines]) + ">"

    def _line(self, number: int, path: str) -> str:
        node = self.inodes[number]
        parent, name, _ = self._place(path)
        unsynced = "" if self._directory(parent, path).durable.get(name) == number else ", the name is not durable"
        if node.is_directory:
            return f"  {path + '/':28}{unsynced.lstrip(', ')}".rstrip()
        amount = f"{len(node.durable):,} of them durable"
        if len(node.durable) == len(node.visible):
            amount = "durable" if node.durable == node.visible else "changed since the last fsync"
        if node.dropped:
            amount += f", {sum(len(done.data) for done in node.dropped):,} dropped by a failed fsync"
        return f"  {path:28}{len(node.visible):>9,} bytes, {amount}{unsynced}"

    def _repr_html_(self) -> str:
        """For a notebook: a row for each file, and a bar of its bytes, dark where they are durable."""
        rows = []
        for number, path in self._walk(ROOT, "/"):
            node = self.inodes[number]
            sizes = ["directory", ""] if node.is_directory else [f"{len(node.visible):,}", f"{len(node.durable):,}"]
            unsynced = [repr(done) for done in node.pending] + [f"dropped: {done!r}" for done in node.dropped]
            if len(unsynced) > SHOWN:
                unsynced[SHOWN - 1:] = [f"... and {len(unsynced) - SHOWN + 1} more"]
            cells = [f"<code>{escape(path)}</code>", *sizes, _bar(node), "<br>".join(map(escape, unsynced))]
            rows.append("".join(f"<td>{cell}</td>" for cell in cells))
        head = "".join(f"<th>{title}</th>" for title in ("file", "visible", "durable", "", "unsynced operations"))
        return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


def _bar(node: Node) -> str:
    """Visible bytes as a bar; dark: those that are on the disk as they are seen."""
    if node.is_directory or not node.visible:
        return ""
    same = next((at for at, (one, other) in enumerate(zip(node.visible, node.durable)) if one != other),
                min(len(node.visible), len(node.durable)))
    dark = BAR * same // len(node.visible)
    part = '<span style="display:inline-block;height:0.8em;width:{}px;background:{}"></span>'
    return part.format(dark, "#345") + part.format(BAR - dark, "#fc9")


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]
