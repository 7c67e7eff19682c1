"""Starting with what is on the disk.

Interface:
  - at_start(server)            load, make durable what was loaded, and clean up, before the first client is served
  - snapshot(server, path)      load a dump into the databases
  - log(server, manifest)       execute an append-only file
  - Loading                     how far it is: INFO's loading fields, and a progress bar's

While a server loads, its loop turns now and then: whoever connects is told -LOADING. Nothing expires meanwhile. A key
of dump.rdb whose time was over when loading began is not loaded.

A file that cannot be read is refused with one sentence (`cursor.Unreadable`) and not touched.

Redis: loadDataFromDisk in server.c; rdbLoad, startLoading, rdbLoadProgressCallback in rdb.c.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from kvref.persistence import rdb
from kvref.persistence.cursor import Cursor, Unreadable
from kvref.persistence.manifest import Manifest, Part
from kvref.persistence.replay import Replay
from kvref.resp import NO_ARGS

if TYPE_CHECKING:
    from kvref.server import Server

TEMPORARY = re.compile(r"temp-(?:rewriteaof-|rewriteaof-bg-)?(\d+)\.(?:rdb|aof)")     # made by saving processes
MAGIC, MAGIC_BYTES = (b"REDIS", b"VALKEY"), 6        # with these a dump begins, and so a base that is one
LOOK_AROUND = 1 << 20                               # bytes of a log between two turns of the loop
Read = TypeVar("Read")


class Interrupted(Exception):
    """The server was told to end while it loaded."""


@dataclass
class Loading:
    """How far the loading of a file is."""

    path: str
    total: int                                      # bytes
    start_us: int                                   # monotonic
    start_s: int                                    # wall clock
    loaded: int = 0                                 # bytes
    keys: int = 0
    expired: int = 0                                # keys that were left out
    observers: list[Callable[[Loading], None]] = field(default_factory=list)

    @property
    def percent(self) -> float:
        return 100 * self.loaded / self.total if self.total else 100.0

    def eta_s(self, now_us: int) -> int:
        """Seconds until the end, if it goes on like this; 1 where nobody knows."""
        return (now_us - self.start_us) * (self.total - self.loaded) // self.loaded // 1_000_000 if self.loaded else 1


def at_start(server: Server) -> None:
    """Have in memory what the disk holds. Unreadable: the server is not to start."""
    path, dump = server.aof.directory, server.snapshots.path
    names = server.disk.list(server.config.dir)
    start_us = server.clock.monotonic_us()
    try:
        manifest = server.aof.read_manifest()           # a damaged one is refused, even where it is not needed
        if server.config.appendonly:
            _log(server, names, manifest)
        elif posixpath.basename(dump) in names:
            path = dump
            snapshot(server, path)
            _make_durable(server, path)
            server.log("*", f"DB loaded from disk: {(server.clock.monotonic_us() - start_us) / 1e6:.3f} seconds")
        _clean(server)
    except OSError as error:
        refusal = Unreadable(str(error.strerror), 0, "Fatal error loading the DB")
        refusal.where = path
        raise refusal from None


# ---- the log -------------------------------------------------------------------------------------

def _log(server: Server, names: list[str], manifest: Manifest) -> None:
    """Load the log, if there is one, and go on with it. `names`: of the files in `dir`."""
    aof, start_us = server.aof, server.clock.monotonic_us()
    given, manifest, old = manifest, _checked(server, names, manifest), server.path(server.config.appendfilename)
    if manifest.parts:
        upgrade = manifest is not given
        paths = [old] if upgrade else [aof.path(part.name) for part in manifest.parts]
        log(server, paths)
        for path in paths:
            _make_durable(server, path)
        if upgrade:
            aof.adopt(manifest)
        _make_durable(server, aof.path(aof.manifest_name))
        server.disk.fsync_dir(server.config.dir)
        took_us = server.clock.monotonic_us() - start_us
        server.log("*", f"DB loaded from append only file: {took_us / 1e6:.3f} seconds")
    elif server.config.dbfilename in names:
        server.log("#", f"There is a {server.config.dbfilename}, and it is NOT loaded: with 'appendonly yes' only the "
                        "append-only file counts, and there is none yet. To keep the data of the snapshot, end this "
                        "server now, start it with 'appendonly no', and then say CONFIG SET appendonly yes.")
    aof.open(manifest)


def _checked(server: Server, names: list[str], manifest: Manifest) -> Manifest:
    """The manifest, if its files are there; for an `appendonly.aof` from before Redis 7, one is made. Unreadable."""
    aof, old = server.aof, server.config.appendfilename
    there = aof.names()
    if old in names and (not manifest.parts or manifest == _upgrade(server) and old not in there):
        return _upgrade(server)
    for part in manifest.parts:
        if part.name not in there:
            missing = Unreadable(f"the file {part.name} of the manifest is missing", 0,
                                 f"Unable to obtain the AOF file {part.name} length. stat: No such file or directory")
            missing.where = aof.path(aof.manifest_name)
            raise missing
    return manifest


def _upgrade(server: Server) -> Manifest:
    """Of a log from before Redis 7."""
    return Manifest(Part(server.config.appendfilename, 1, "b"), base_seq=1)


def log(server: Server, paths: list[str], serving: bool = True) -> None:
    """Execute the files of a log. Unreadable; a torn end of the last is cut off, if `aof-load-truncated` says so."""
    call = server.call
    replay = Replay(server)
    total = sum(server.aof.size_of(path) for path in paths)
    loading = server.loading = Loading(server.aof.directory, total, server.clock.monotonic_us(),
                                       server.clock.time_us() // 1_000_000, observers=server.on_loading)
    for database in server.databases:
        database.frozen = True
    done = 0
    try:
        for path in paths:
            start_us = server.clock.monotonic_us()

            def turn(offset: int, done: int = done) -> None:
                if serving and done + offset - loading.loaded > LOOK_AROUND:
                    loading.loaded = done + offset
                    _look_around(server, loading)
            try:
                size, good = _part(server, replay, path, turn)
            except Unreadable as error:
                error.where, error.opening = path, "Bad file format reading the append only file"
                raise
            if good < size:
                _cut(server, path, good, size, last=path is paths[-1])
            done += good
            took_us, kind = server.clock.monotonic_us() - start_us, "incr" if path.endswith(".incr.aof") else "base"
            server.log("*", f"DB loaded from {kind} file {posixpath.basename(path)}: {took_us / 1e6:.3f} seconds")
    finally:
        server.loading = None
        for database in server.databases:
            database.frozen = False
        server.memory.count_anew()
        call.args, call.effects = NO_ARGS, None
        server.dirty = call.hits = call.misses = 0
    loading.loaded, loading.keys = total, sum(map(len, server.databases))
    for told in loading.observers:
        told(loading)
    server.last_load = loading
    if replay.failed:
        server.log("#", f"{replay.failed} commands of the append-only file had an error for a reply")


def _part(server: Server, replay: Replay, path: str, turn: Callable[[int], None]) -> tuple[int, int]:
    """Execute one file, which may begin as a dump: its size, and the offset behind its last whole unit."""
    disk = server.disk
    cursor, checksum, file = rdb.open_file(disk, path)
    size = cursor.left
    try:
        cursor.fill(min(MAGIC_BYTES, size))
        if cursor.data.startswith(MAGIC):
            more = cursor.more

            def turned(count: int) -> bytes:
                turn(cursor.offset)
                return more(count) if more else b""
            cursor.more = turned
            loading = Loading(path, size, 0, 0)
            reader = rdb.Reader(cursor, checksum if server.config.rdbchecksum else None, alone=False)
            _take(server, reader, cursor, loading, expired_before_ms=None)
        return size, replay.file(file, cursor.data[cursor.at:], cursor.offset, size, turn)
    finally:
        disk.close(file)


def _cut(server: Server, path: str, good: int, size: int, last: bool) -> None:
    """A file that ends in the midst of a unit. Unreadable, unless it is the last, and cutting it is allowed."""
    if not last or not server.config.aof_load_truncated:
        error = Unreadable("the file ends in the midst of a " + (
            "unit; 'aof-load-truncated yes' would cut it off, and so does `python -m kvref.files repair`" if last else
            "unit, and it is not the last"), good, "Unexpected end of file reading the append only file")
        error.where = path
        raise error
    server.log("#", f"!!! Warning: {path} ends in the midst of a unit: its last {size - good} bytes are cut off !!!")
    file = server.disk.open(path, "a")
    try:
        server.disk.truncate(file, good)
        server.disk.fsync(file)
    finally:
        server.disk.close(file)
    server.log("#", f"AOF {path} loaded anyway because aof-load-truncated is enabled")


# ---- files that nobody needs, and such that must not vanish --------------------------------------

def _clean(server: Server) -> None:
    """Remove what saving processes have left that are no more. Another server's child may still be writing here."""
    config, parts = server.config, server.aof.read_manifest().parts
    ours = {config.dbfilename, config.appendfilename, *(f"{config.appenddirname}/{part.name}" for part in parts)}
    disk, processes, folder = server.disk, server.processes, server.config.appenddirname
    names = disk.list(server.config.dir) + [f"{folder}/{name}" for name in server.aof.names()]
    prefix = f"{folder}/temp-{server.config.appendfilename}"
    for name in [name for name in names if name not in ours]:       # whatever a file that counts is called
        found = TEMPORARY.fullmatch(posixpath.basename(name))
        if name not in (f"{prefix}.incr", f"{prefix}.manifest") and (not found or (
                int(found[1]) != processes.pid and processes.is_alive(int(found[1])))):
            continue                        # our own number was somebody else's: we have written nothing yet
        server.log("*", f"Removing {name}, the unfinished work of a process that is no more")
        try:
            disk.unlink(server.path(name))
        except OSError as error:
            server.log("#", f"Can't remove {name}: {error.strerror}")


def _make_durable(server: Server, path: str) -> None:
    """What a client is shown must not vanish: the file may have been in the page cache alone."""
    file = server.disk.open(path, "r")
    try:
        server.disk.fsync(file)
    finally:
        server.disk.close(file)
    server.disk.fsync_dir(posixpath.dirname(path))


def snapshot(server: Server, path: str, serving: bool = True) -> None:
    """Add the keys of a dump to the databases. OSError; Unreadable, which may leave a part of them there.

    `serving`: the loop is to turn now and then, to tell clients that they have to wait.
    """
    cursor, checksum, file = rdb.open_file(server.disk, path)
    loading = Loading(path, cursor.left, server.clock.monotonic_us(), server.clock.time_us() // 1_000_000,
                      observers=server.on_loading)
    server.loading, more = loading, cursor.more

    def turn(count: int) -> bytes:
        loading.loaded = cursor.offset
        if serving:
            _look_around(server, loading)
        return more(count) if more else b""
    cursor.more = turn
    try:
        reader = rdb.Reader(cursor, checksum if server.config.rdbchecksum else None)
        _take(server, reader, cursor, loading, expired_before_ms=server.clock.time_us() // 1000)
    except Unreadable as error:
        error.where = path
        raise
    finally:
        server.loading = None
        server.memory.count_anew()
        server.disk.close(file)
    server.last_load = loading
    loading.loaded = loading.total
    for told in loading.observers:
        told(loading)
    for warning in reader.warnings:
        server.log("#", f"{path}: {warning}")
    if reader.empty_keys:
        server.log("#", f"{path}: {reader.empty_keys} keys that held nothing were left out")
    server.log("*", f"Done loading RDB, keys loaded: {loading.keys}, keys expired: {loading.expired}.")


def _take(server: Server, reader: rdb.Reader, cursor: Cursor, loading: Loading, expired_before_ms: int | None) -> None:
    """Put the entries where they belong. The base of a log keeps its expired keys (None): the log may rescue them."""
    now_ms = expired_before_ms or 0
    databases, index, keys = server.databases, -1, 0
    restore = server.eviction.restore if server.eviction.uses else None
    for number, key, value, deadline in reader:
        if number != index:
            if number >= len(databases):
                raise cursor.fail(f"the file has a database {number}, and this server only {len(databases)}; "
                                  "raise 'databases'")
            database, index = databases[number], number
            values = database.values
        if deadline is not None and deadline < now_ms:
            loading.expired += 1
            continue
        if key in values:
            error = cursor.fail("the key stands twice in the file")
            error.key = key
            raise error
        values[key] = value
        keys += 1
        if restore:
            restore(database, key, reader.idle_s, reader.freq)
        if deadline is not None:
            database.expire_at(key, deadline)
    loading.keys = keys
    server.clock.work(keys)


def _look_around(server: Server, loading: Loading) -> None:
    """Between two pieces of the file: tell those who wait that they have to."""
    for told in loading.observers:
        told(loading)
    server.update_time()
    server.loop.step(0)
    if server.processes.signals():
        server.log("#", "Received shutdown signal during loading, scheduling shutdown.")
        raise Interrupted
    if server.stopped:
        raise Interrupted
