"""A disk that knows what is written and what is durable, and so can lose what a power failure loses.

Each file and each directory exists twice: *visible*, as every process sees it through the page cache, and
*durable*, as a computer finds it that is switched on again. Between the two stands the list of what has been
done and not been synced:

    write, truncate              change a file's visible bytes        fsync(file)     makes them durable
    create, mkdir,               change a directory's visible names   fsync_dir(dir)  makes them durable
    rename, unlink

A file whose bytes are durable and whose name is not is lost, as POSIX allows: that is why fsync_dir exists.

Numbered principles:
  1. The disk's state is a function of `operations`: every change is recorded first and then applied.
  2. `fsync` covers what was done before it *began*; what another process writes meanwhile stays unsynced.
  3. An open file is its inode, not its name: unlinked or renamed, it goes on working.

Interface:
  - Disk                        the Disk port
  - operations, observers       everything that was ever done to it, in order; who wants to hear of it
  - content(path)               a file's bytes, visible or durable: for looking and for tests
  - latency_us                  what an operation takes, by kind
  - states, power_loss          the legal states after a power failure, and to be in one of them
  - begin_fsync, end_fsync      the two halves of an fsync, for those who do other things in between
  - copy, instantly             the same files on another disk; the same disk without waiting

Simpler than a file system: no permissions, links, rmdir or limits, and one profile of power loss, "synced":
nothing survives but what was synced.
"""

from __future__ import annotations

import copy
import errno
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from kvref.ports import OpenMode
from kvref.sim.clock import Clock
from kvref.sim.errors import failure

ROOT = 1
PROFILES = {"synced": 1}        # name -> number of states after a power loss; state 0 is always the worst

NEW: dict[str, Callable[[], Any]] = {"create": bytearray, "mkdir": dict}
Name = tuple[int, str, int]     # in this directory, this name now means this inode (0: nothing)


@dataclass(frozen=True, slots=True)
class Operation:
    """One change of the disk, complete: applied to the same disk it has the same effect."""

    seq: int
    time_us: int
    kind: str                       # create write truncate fsync rename unlink mkdir fsync_dir "power loss"
    path: str
    inode: int = 0
    offset: int = 0                 # write: where; truncate: the new size
    data: bytes = b""
    to: str = ""                    # rename
    names: tuple[Name, ...] = ()
    covers: int = 0                 # fsync: operations up to this seq

    def __repr__(self) -> str:
        more = {"write": f" {len(self.data)} bytes at {self.offset}", "truncate": f" to {self.offset} bytes",
                "rename": f" to {self.to}", "power loss": f" state {self.offset}"}.get(self.kind, "")
        return f"#{self.seq} {self.kind} {self.path}{more}"


@dataclass
class Node:
    """An inode: what is visible, what is durable, and the operations between the two, in order.

    A file's content is its bytes, a directory's its names, each with the number of an inode.
    """

    number: int
    path: str                                   # as last created or renamed
    visible: Any                                # bytearray, or dict[str, int]
    durable: Any
    pending: list[Operation] = field(default_factory=list)

    @property
    def is_directory(self) -> bool:
        return isinstance(self.visible, dict)

    def do(self, operation: Operation) -> None:
        self._change(self.visible, operation)
        self.pending.append(operation)

    def sync(self, covers: int) -> None:
        for operation in self.pending:
            if operation.seq <= covers:
                self._change(self.durable, operation)
        self.pending = [operation for operation in self.pending if operation.seq > covers]

    def last_change(self) -> int:
        """The seq of the newest unsynced operation; 0: none."""
        return self.pending[-1].seq if self.pending else 0

    def lose(self) -> None:
        self.visible, self.pending = self.durable.copy(), []

    def copy(self) -> Node:
        return Node(self.number, self.path, self.visible.copy(), self.durable.copy(), self.pending.copy())

    def _change(self, content: Any, operation: Operation) -> None:
        if self.is_directory:
            self._change_names(content, operation)
            return
        offset, data = operation.offset, operation.data
        content.extend(bytes(max(0, offset - len(content))))        # a gap reads as zeros
        if operation.kind == "truncate":
            del content[offset:]
        else:
            content[offset:offset + len(data)] = data

    def _change_names(self, content: dict[str, int], operation: Operation) -> None:
        for directory, name, inode in operation.names:
            if directory == self.number:
                content.pop(name, None)
                if inode:
                    content[name] = inode


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
        self.inodes: dict[int, Node] = {ROOT: Node(ROOT, "/", {}, {})}
        self._sequence = sequence or itertools.count(1)
        self._numbers = itertools.count(ROOT + 1)
        self._waits = True

    # Files

    def open(self, path: str, mode: OpenMode) -> File:
        parent, name, number = self._place(path)
        if number is None:
            if mode == "r":
                raise failure(errno.ENOENT, path)
            number = next(self._numbers)
            self._do("create", path, number, names=((parent, name, number),))
        elif self._regular(number, path).visible and mode == "w":
            self._do("truncate", path, number)
        return File(number, path, mode)

    def read(self, file: File, size: int) -> bytes:
        if file.mode != "r":
            raise failure(errno.EBADF, file.path)
        data = bytes(self._of(file).visible[file.position:file.position + size])
        file.position += len(data)
        return data

    def write(self, file: File, data: bytes) -> int:
        if file.mode == "r":
            raise failure(errno.EBADF, file.path)
        node = self._of(file)
        self._wait("write")
        if file.mode == "a":
            file.position = len(node.visible)
        if data:
            self._do("write", node.path, node.number, offset=file.position, data=bytes(data))
        file.position += len(data)
        return len(data)

    def size(self, file: File) -> int:
        return len(self._of(file).visible)

    def fsync(self, file: File) -> None:
        begun = self.begin_fsync(file)
        self._wait("fsync")
        self.end_fsync(begun)

    def begin_fsync(self, file: File) -> tuple[int, int]:
        """What an fsync that begins now will make durable: (inode, up to this operation)."""
        node = self._of(file)
        return node.number, node.last_change()

    def end_fsync(self, begun: tuple[int, int]) -> None:
        number, covers = begun
        self._do("fsync", self.inodes[number].path, number, covers=covers)

    def truncate(self, file: File, size: int) -> None:
        if file.mode == "r" or size < 0:
            raise failure(errno.EINVAL, file.path)
        node = self._of(file)
        self._wait("truncate")
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
        self._wait("rename")
        self._do("rename", old, number, to=new, names=((source, old_name, 0), (target, new_name, number)))

    def unlink(self, path: str) -> None:
        parent, name, number = self._place(path)
        if number is None:
            raise failure(errno.ENOENT, path)
        self._regular(number, path)
        self._wait("unlink")
        self._do("unlink", path, number, names=((parent, name, 0),))

    def mkdir(self, path: str) -> None:
        parent, name, number = self._place(path)
        if number is not None:
            raise failure(errno.EEXIST, path)
        number = next(self._numbers)
        self._do("mkdir", path, number, names=((parent, name, number),))

    def fsync_dir(self, path: str) -> None:
        node = self._directory(self._find(path), path)
        covers = node.last_change()
        self._wait("fsync_dir")
        self._do("fsync_dir", path, node.number, covers=covers)

    def list(self, path: str) -> list[str]:
        return sorted(self._directory(self._find(path), path).visible)

    # After a power failure

    def states(self, profile: str) -> range:
        """The states in which the disk may legally be found if the power fails now."""
        if profile not in PROFILES:
            raise ValueError(f"no profile of power loss is called {profile!r}; there is {', '.join(PROFILES)}")
        return range(PROFILES[profile])

    def power_loss(self, profile: str = "synced", state: int = 0) -> None:
        """Be as the computer finds this disk when it is switched on again. Open files are no more."""
        if state not in self.states(profile):
            raise ValueError(f"profile {profile!r} has states 0 to {len(self.states(profile)) - 1}, not {state}")
        self._do("power loss", profile, offset=state)

    # For looking, and for others in this computer

    def content(self, path: str, durable: bool = False) -> bytes:
        """All bytes of a file, as any process sees them or as a power failure would leave them."""
        node = self._regular(self._find(path, durable), path)
        return bytes(node.durable if durable else node.visible)

    def instantly(self) -> Disk:
        """This disk, for those who keep the time themselves: its operations take none."""
        view = copy.copy(self)
        view._waits = False
        return view

    def copy(self) -> Disk:
        """The same files on a disk of their own, without the history; its operations take no time."""
        twin = self.instantly()
        twin.operations, twin.observers = [], []
        twin.inodes = {number: node.copy() for number, node in self.inodes.items()}
        return twin

    def apply(self, operation: Operation) -> None:
        """What an operation does to the state; the only place that changes it (principle 1)."""
        match operation.kind:
            case "power loss":
                self._lose()
            case "fsync" | "fsync_dir":
                self.inodes[operation.inode].sync(operation.covers)
            case "write" | "truncate":
                self.inodes[operation.inode].do(operation)
            case _:
                self._change_names(operation)

    # Inside

    def _do(self, kind: str, path: str, inode: int = 0, **fields: Any) -> None:
        operation = Operation(next(self._sequence), self.clock.monotonic_us(), kind, path, inode, **fields)
        self.operations.append(operation)
        self.apply(operation)
        for observer in self.observers:
            observer(operation)

    def _change_names(self, operation: Operation) -> None:
        if operation.kind in NEW:
            new = NEW[operation.kind]
            self.inodes[operation.inode] = Node(operation.inode, operation.path, new(), new())
        elif operation.kind == "rename":
            self.inodes[operation.inode].path = operation.to
        for directory in dict.fromkeys(directory for directory, _, _ in operation.names):
            self.inodes[directory].do(operation)

    def _lose(self) -> None:
        for node in self.inodes.values():
            node.lose()
        found = dict(self._walk(ROOT, "/"))
        for number in [number for number in self.inodes if number not in found]:
            del self.inodes[number]         # in place: views of this disk share the dict
        for number, path in found.items():
            self.inodes[number].path = path

    def _wait(self, kind: str) -> None:
        if self._waits:
            self.clock.sleep(self.latency_us.get(kind, 0))

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
        amount = "durable" if not node.pending else f"{len(node.durable):,} of them durable"
        if len(node.durable) == len(node.visible) and node.pending:
            amount = "changed since the last fsync"
        return f"  {path:28}{len(node.visible):>9,} bytes, {amount}{unsynced}"


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]
