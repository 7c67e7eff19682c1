"""The manifest: which files make up the append-only file, and in which order.

    appendonlydir/
      appendonly.aof.manifest
      appendonly.aof.3.base.rdb         what the keyspace was when the last rewrite began
      appendonly.aof.5.incr.aof         all effects since, in one file or several

    file appendonly.aof.3.base.rdb seq 3 type b
    file appendonly.aof.5.incr.aof seq 5 type i

Types: b is the base, i an incremental file, h one that a rewrite has replaced and that is about to be deleted. The
order of the lines is the order of loading. A file that is not in the manifest does not exist, whatever its name.

Interface:
  - Manifest            base, incremental, history; next_base, next_incremental, text
  - parse(data)         Unreadable, with the offset of the line
  - Folder(server)      the directory of the log: its manifest on the disk, and how it is replaced

Redis: aofLoadManifestFromFile, getAofManifestAsString, getNewBaseFileNameAndMarkPreAsHistory in aof.c. Simpler here:
nothing; a manifest without a base may be started from, as there.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from kvref.config import read_file
from kvref.numbers import parse_int
from kvref.persistence.cursor import Unreadable
from kvref.persistence.snapshot import commit, remove
from kvref.ports import Disk, File
from kvref.quoting import repr_arg, split_args
from kvref.quoting import text as as_text

if TYPE_CHECKING:
    from kvref.server import Server

PIECE: Final = 1 << 20
LINE_MAX: Final = 1024              # bytes of a line, its end included
INVALID: Final = "Invalid AOF manifest file format"         # this, and the next two: Redis's words
TOO_LONG: Final = "The AOF manifest file contains too long line"
NO_ASCENT: Final = "Found a non-monotonic sequence number"
PLAIN: Final = re.compile(rb"[!#-&(-\[\]-~]+")      # a name that needs no quotes


@dataclass(frozen=True)
class Part:
    """A file of the log."""

    name: str
    seq: int
    kind: str                       # b h i

    @property
    def line(self) -> bytes:
        name = self.name.encode(errors="surrogateescape")
        quoted = name if PLAIN.fullmatch(name) else repr_arg(name)
        return b"file %b seq %d type %b\n" % (quoted, self.seq, self.kind.encode())


@dataclass(frozen=True)
class Manifest:
    """The files of the log. Never changed: a new one takes its place, on the disk first."""

    base: Part | None = None
    incremental: tuple[Part, ...] = ()
    history: tuple[Part, ...] = ()
    base_seq: int = 0               # the highest so far
    incremental_seq: int = 0

    @property
    def parts(self) -> tuple[Part, ...]:
        """What is loaded, in order."""
        return (*((self.base,) if self.base else ()), *self.incremental)

    def with_incremental(self, prefix: str) -> Manifest:
        """One more incremental file, empty as yet: `incremental[-1]`."""
        seq = self.incremental_seq + 1
        part = Part(f"{prefix}.{seq}.incr.aof", seq, "i")
        return replace(self, incremental=(*self.incremental, part), incremental_seq=seq)

    def with_base(self, prefix: str, suffix: str, kept: int) -> Manifest:
        """A new base. What it holds becomes history: the old one, and all incremental files but the last `kept`."""
        seq = self.base_seq + 1
        cut = len(self.incremental) - kept
        gone = (*((self.base,) if self.base else ()), *self.incremental[:cut])
        return replace(self, base=Part(f"{prefix}.{seq}.base.{suffix}", seq, "b"), base_seq=seq,
                       incremental=self.incremental[cut:],
                       history=(*self.history, *(replace(part, kind="h") for part in gone)))

    def without_history(self) -> Manifest:
        return replace(self, history=())

    @property
    def text(self) -> bytes:
        return b"".join(part.line for part in (*((self.base,) if self.base else ()), *self.history, *self.incremental))


def parse(data: bytes) -> Manifest:
    """Read a manifest. Unreadable: what is wrong with which line."""
    found: dict[str, list[Part]] = {"b": [], "h": [], "i": []}
    at = 0
    for line in data.splitlines(keepends=True):
        if not line.startswith(b"#") or len(line) > LINE_MAX:
            try:
                part = _part(line)
                if part.kind == "b" and found["b"]:
                    raise ValueError("a second base file", "Found duplicate base file information")
                if part.kind == "i" and found["i"] and part.seq <= found["i"][-1].seq:
                    raise ValueError("the sequence number of an incremental file does not go up", NO_ASCENT)
            except ValueError as error:
                what, opening = error.args
                raise Unreadable(f"the manifest has {what}: {as_text(line.strip()[:80])!r}", at, opening) from None
            found[part.kind].append(part)
        at += len(line)
    if not any(found.values()):
        raise Unreadable("the manifest is empty", 0, "Found an empty AOF manifest")
    base = found["b"][0] if found["b"] else None
    return Manifest(base, tuple(found["i"]), tuple(found["h"]), base.seq if base else 0,
                    found["i"][-1].seq if found["i"] else 0)


def _part(line: bytes) -> Part:
    """One line: pairs of a word and a value, in any order; pairs that nobody knows are passed over.

    ValueError: what is wrong, and Redis's words for it.
    """
    if len(line) > LINE_MAX:
        raise ValueError("a line that is too long", INVALID if line.startswith(b"#") else TOO_LONG)
    words = split_args(line.strip()) if line.endswith(b"\n") else None
    if not words or len(words) < 6 or len(words) % 2:
        raise ValueError("a line that is none", INVALID if line.endswith(b"\n") else TOO_LONG)
    pairs = {word.lower(): value for word, value in zip(words[::2], words[1::2])}
    name, seq, kind = (pairs.get(word, b"") for word in (b"file", b"seq", b"type"))
    number = parse_int(seq)
    if not name or b"/" in name or b"\\" in name:
        raise ValueError("a file that is no plain name", "File can't be a path, just a filename" if name else INVALID)
    if not number or number < 1 or kind not in (b"b", b"h", b"i"):
        strange = "Unknown AOF file type" if kind not in (b"b", b"h", b"i") else NO_ASCENT
        raise ValueError("a sequence number or a type that is none", strange if number and kind else INVALID)
    return Part(as_text(name), number, kind.decode())


class Folder:
    """The directory of one server's log. It stays where it was when the log was opened, wherever `dir` goes."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.manifest = Manifest()                  # what the disk shows
        self.uncertain = False                      # ... and whether a power failure might bring back the one before
        self._home = ""                             # `dir` when the log was opened

    @property
    def directory(self) -> str:
        return f"{(self._home or self.server.config.dir).rstrip('/')}/{self.server.config.appenddirname}"

    def path(self, name: str) -> str:
        return f"{self.directory}/{name}"

    def _base_path(self, pid: int) -> str:
        """Where a child leaves its work."""
        return self.path(f"temp-rewriteaof-bg-{pid}.aof")

    def _remove_work(self, pid: int) -> None:
        """What a child has left."""
        remove(self.server.disk, self.path(f"temp-rewriteaof-{pid}.aof"))
        remove(self.server.disk, self._base_path(pid))

    @property
    def _temporary_path(self) -> str:
        """Of an incremental file that is no part of the log yet."""
        return self.path(f"temp-{self.server.config.appendfilename}.incr")

    @property
    def manifest_name(self) -> str:
        return f"{self.server.config.appendfilename}.manifest"

    def _fresh(self, path: str) -> File:
        """An empty file to append to. A crash may have left one of this name, that no manifest names."""
        disk = self.server.disk
        remove(disk, path)
        file = disk.open(path, "a")
        if disk.size(file):                         # it could not be removed
            disk.truncate(file, 0)
        return file

    def _move(self, path: str, name: str, kind: str) -> None:
        """Give a finished file the name that the manifest is going to say."""
        self.server.disk.rename(path, self.path(name))
        temporary = posixpath.basename(path)
        self.server.log("*", f"Successfully renamed the temporary AOF {kind} file {temporary} into {name}")

    def _forget_history(self) -> None:
        """Delete what a rewrite has replaced; last, when the manifest without it is durable. It can wait."""
        for part in self.manifest.history:
            self.server.log("*", f"Removing the history file {part.name}")
            remove(self.server.disk, self.path(part.name))
        if self.manifest.history:
            try:
                self._commit(self.manifest.without_history())
            except OSError as error:
                self.uncertain = False              # either manifest is right
                self.server.log("#", f"Can't remove what is history from the manifest: {error.strerror}")

    def _commit(self, manifest: Manifest) -> None:
        """Put a manifest in the place of the one on the disk. The names that it holds become durable before.

        OSError: nothing has changed; or the disk shows the new one (`self.manifest` is always what it shows), and
        nobody knows which of the two a power failure would leave (`uncertain`).
        """
        disk, path = self.server.disk, self.path(self.manifest_name)
        disk.fsync_dir(self.directory)
        try:
            commit(disk, path, self.path(f"temp-{self.manifest_name}"), [manifest.text])
        except OSError:
            try:
                shown = read_file(disk, path) == manifest.text
            except OSError:
                shown = True                        # nobody can look: the files of both have to stay
            if shown:
                self.manifest, self.uncertain = manifest, True
            raise
        self.manifest, self.uncertain = manifest, False

    def follow_dir(self) -> None:
        """CONFIG SET dir. An open log stays where it is. OSError: there is no such directory."""
        config = self.server.config
        self.server.disk.list(config.dir)
        if config.appendonly and self._home not in ("", config.dir):
            self.server.log("#", f"The append-only file stays in {self._home}: a start with dir {config.dir} will not "
                                 "find it. CONFIG SET appendonly no, and then yes, begins one there.")

    def size_of(self, path: str) -> int:
        disk = self.server.disk
        file = disk.open(path, "r")
        try:
            return disk.size(file)
        finally:
            disk.close(file)

    def names(self) -> list[str]:
        """What is in the directory; nothing, where there is none."""
        try:
            return self.server.disk.list(self.directory)
        except (FileNotFoundError, NotADirectoryError):
            return []

    def read_manifest(self) -> Manifest:
        """That of the disk; an empty one where there is none. Unreadable, OSError."""
        path, disk = self.path(self.manifest_name), self.server.disk
        if self.manifest_name not in self.names():
            return Manifest()
        try:
            return parse(read_file(disk, path))
        except Unreadable as error:
            error.where = path
            raise

    def adopt(self, manifest: Manifest) -> None:
        """A log from before Redis 7, one file beside the directory, becomes the base. OSError.

        It is copied, and goes when the manifest that names the copy is durable: strict POSIX allows that a power
        failure behind a rename from one directory to another finds neither name. Redis (aofUpgradePrepare) renames.
        """
        assert manifest.base
        disk, name, home = self.server.disk, manifest.base.name, self.server.config.dir
        old = self.server.path(name)
        self._make_directory()
        commit(disk, self.path(name), self.path(f"temp-rewriteaof-{self.server.processes.pid}.aof"), _pieces(disk, old))
        self._commit(manifest)
        remove(disk, old)
        disk.fsync_dir(home)
        self.server.log("*", f"Successfully migrated an old-style AOF file ({name}) into the AOF directory "
                             f"({self.directory}).")

    def _make_directory(self) -> None:
        """A directory's name stands in its parent, which has to be made durable, too."""
        if self.server.config.appenddirname not in self.server.disk.list(self.server.config.dir):
            self.server.disk.mkdir(self.directory)
        self.server.disk.fsync_dir(self.server.config.dir)


def _pieces(disk: Disk, path: str) -> Iterator[bytes]:
    """A file, piece by piece."""
    file = disk.open(path, "r")
    try:
        while piece := disk.read(file, PIECE):
            yield piece
    finally:
        disk.close(file)
