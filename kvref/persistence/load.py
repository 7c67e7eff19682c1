"""Starting with what is on the disk.

Interface:
  - at_start(server)            load, make durable what was loaded, and clean up, before the first client is served
  - snapshot(server, path)      load a dump into the databases
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
from typing import TYPE_CHECKING

from kvref.persistence import rdb
from kvref.persistence.cursor import Cursor, Unreadable

if TYPE_CHECKING:
    from kvref.server import Server

TEMPORARY = re.compile(r"temp-(\d+)\.rdb")          # names that only a saving process gives


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
    path = server.snapshots.path
    try:
        if posixpath.basename(path) in server.disk.list(server.config.dir):
            start_us = server.clock.monotonic_us()
            snapshot(server, path)
            _make_durable(server, path)
            server.log("*", f"DB loaded from disk: {(server.clock.monotonic_us() - start_us) / 1e6:.3f} seconds")
        _clean(server)
    except OSError as error:
        refusal = Unreadable(str(error.strerror), 0)
        refusal.where = path
        raise refusal from None


def _clean(server: Server) -> None:
    """Remove what saving processes have left that are no more. Another server's child may still be writing here."""
    processes = server.processes
    for name in server.disk.list(server.config.dir):
        found = TEMPORARY.fullmatch(name)
        if not found or int(found[1]) != processes.pid and processes.is_alive(int(found[1])):
            continue                        # our own number was somebody else's: we have written nothing yet
        server.log("*", f"Removing {name}, the unfinished snapshot of a process that is no more")
        try:
            server.disk.unlink(server.path(name))
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
        _take(server, reader, cursor, loading)
    except Unreadable as error:
        error.where = path
        raise
    finally:
        server.loading = None
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


def _take(server: Server, reader: rdb.Reader, cursor: Cursor, loading: Loading) -> None:
    """Put the entries where they belong."""
    now_ms = server.clock.time_us() // 1000
    databases, index = server.databases, -1
    keys = 0
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
