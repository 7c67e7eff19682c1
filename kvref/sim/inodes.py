"""What a disk is made of: operations, and the inodes that they change.

Interface:
  - Operation       one change of the disk, complete: applied to the same disk it has the same effect
  - Node            an inode: what is visible, what is durable, and the operations between the two
  - Image           all files and directories by path, as a computer finds them when it is switched on

Invariant: a node's visible content is its durable one after `pending`, but for what a failed fsync has `dropped`; and
it is `origin` after `history`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

ROOT = 1
LIES = "lies"                   # Operation.error of an fsync that was reported and not done

Image = tuple[tuple[str, bytes | None], ...]        # sorted (path, content); None: a directory
Name = tuple[int, str, int]     # in this directory, this name now means this inode (0: nothing)


@dataclass(frozen=True, slots=True)
class Operation:
    """One change of the disk."""

    seq: int
    time_us: int
    kind: str                       # create write truncate fsync rename unlink mkdir fsync_dir rot "power loss"
    path: str
    inode: int = 0                  # power loss: the number of the first inode in `image`
    offset: int = 0                 # write, rot: where; truncate: the new size; power loss: which state
    data: bytes = b""               # rot: the one byte as it is now
    to: str = ""                    # rename
    names: tuple[Name, ...] = ()
    covers: int = 0                 # fsync: operations of this inode up to this seq; 0: there were none
    begun: int = 0                  # fsync: the last operation of all before it began
    error: str = ""                 # fsync: "EIO" or another, or LIES; write: "short"
    image: Image = ()               # power loss: what is found after it

    @property
    def end(self) -> int:
        """Where a write ends; the size after a truncate."""
        return self.offset + len(self.data)

    def __repr__(self) -> str:
        more = {"write": f" {len(self.data)} bytes at {self.offset}", "truncate": f" to {self.offset} bytes",
                "rename": f" to {self.to}", "rot": f" in byte {self.offset}",
                "power loss": f" state {self.offset}"}.get(self.kind, "")
        return f"#{self.seq} {self.kind} {self.path}{more}" + (f" ({self.error})" if self.error else "")


@dataclass
class Node:
    """An inode. A file's content is its bytes, a directory's its names, each with the number of an inode."""

    number: int
    path: str                                   # as last created or renamed
    visible: Any                                # bytearray, or dict[str, int]
    durable: Any
    origin: Any                                 # when the computer was switched on: bytes, or dict[str, int]
    pending: list[Operation] = field(default_factory=list)      # unsynced
    history: list[Operation] = field(default_factory=list)      # all since the computer was switched on
    dropped: list[Operation] = field(default_factory=list)      # writes that count as clean and are not on the disk
    replaced: list[int] = field(default_factory=list)           # seq of renames by which it took another's name
    settled: bytes | None = field(default=None, compare=False)      # durable, as bytes; None: ask `durable_bytes`
    lied: int = 0                               # an fsync that did nothing has reported operations up to this seq
    rotten: bool = False                        # a durable byte has flipped

    @staticmethod
    def new(number: int, path: str, content: bytes | dict[str, int]) -> Node:
        """A node that is durable as it is."""
        if isinstance(content, dict):
            return Node(number, path, content, content.copy(), content.copy())
        return Node(number, path, bytearray(content), bytearray(content), content, settled=content)

    @property
    def is_directory(self) -> bool:
        return isinstance(self.visible, dict)

    def do(self, operation: Operation) -> None:
        self.change(self.visible, operation)
        self.pending.append(operation)
        self.history.append(operation)

    def sync(self, covers: int) -> None:
        for operation in self.pending:
            if operation.seq <= covers:
                self.change(self.durable, operation)
        self.pending = [operation for operation in self.pending if operation.seq > covers]
        self.settled = None

    def drop(self, covers: int) -> None:
        """An fsync has failed: Linux keeps the pages, calls them clean, and never writes them again."""
        lost = self.to_drop(covers)
        self.dropped += lost
        seqs = {operation.seq for operation in lost}
        self.pending = [operation for operation in self.pending if operation.seq not in seqs]

    def to_drop(self, covers: int) -> list[Operation]:
        """Writes alone: names and sizes stand in the journal, which tries again."""
        return [operation for operation in self.pending if operation.kind == "write" and operation.seq <= covers]

    def rot(self, operation: Operation) -> None:
        """A durable byte has become another, and is read like that, if the page cache holds nothing newer."""
        at = operation.offset
        if self.visible[at:at + 1] == self.durable[at:at + 1]:
            self.change(self.visible, operation)
            self.history.append(operation)
        self.change(self.durable, operation)
        self.rotten, self.settled = True, None

    @property
    def is_betrayed(self) -> bool:
        """Whether the disk has done, or would do after a power loss, what it had promised not to."""
        return self.rotten or bool(self.pending and self.pending[0].seq <= self.lied)

    def unsynced(self) -> list[Operation]:
        """`pending`, and what dropped writes may have left: a longer file, with zeros in it.

        Whether one did, no later fsync tells, unless what it saves sets the size anew.
        """
        if not self.dropped:
            return self.pending
        cuts = [done.seq for done in self.history if done.kind == "truncate" and done not in self.pending]
        cut = max(cuts, default=0)
        longer = [replace(done, offset=done.end, data=b"") for done in self.dropped
                  if done.seq > cut and done.end > len(self.durable)]
        return sorted([*longer, *self.pending], key=lambda done: done.seq)

    def last_change(self) -> int:
        """The seq of the newest unsynced operation; 0: none."""
        return self.pending[-1].seq if self.pending else 0

    def durable_bytes(self) -> bytes:
        """A file's durable content: the same object until that changes."""
        if self.settled is None:
            self.settled = bytes(self.durable)
        return self.settled

    def copy(self) -> Node:
        return Node(self.number, self.path, self.visible.copy(), self.durable.copy(), self.origin, self.pending.copy(),
                    self.history.copy(), self.dropped.copy(), self.replaced.copy(), self.settled, self.lied,
                    self.rotten)

    def change(self, content: Any, operation: Operation) -> None:
        """What the operation does to content of this node's kind: a bytearray, or names."""
        if isinstance(content, dict):
            self._change_names(content, operation)
            return
        offset, data = operation.offset, operation.data
        if offset > len(content):
            content.extend(bytes(offset - len(content)))            # a gap reads as zeros
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
