"""Snapshots: when they are taken, by whom, and how a finished one takes the place of the last.

    SAVE        writes here and now; everybody waits
    BGSAVE      forks; the child sees the memory of that instant, and writes while the parent serves
    save 60 100     a save point: after 60 seconds, if at least 100 changes were made

The commit has five steps, and each is needed: write temp-<pid>.rdb, fsync it, rename it to dump.rdb, fsync the
directory; only then is the snapshot *done*. A crash before the rename leaves the old file whole; one before
the fsync of the directory leaves either of them.

Interface:
  - Snapshots(server)           save, save_in_background, cron, cancel; what INFO persistence tells
  - commit(disk, path, temp, blocks)    the five steps

Invariants: dump.rdb is never opened for writing. `dirty` counts the changes since the *fork* of the last snapshot
that was done. There is one child at a time.

Redis: rdbSave, rdbSaveBackground, backgroundSaveDoneHandlerDisk in rdb.c, serverCron. Simpler here: the child's
lines for the log are written by its parent.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from kvref.persistence import rdb
from kvref.ports import Disk, Ended

if TYPE_CHECKING:
    from kvref.server import Server

RETRY_S: Final = 5                          # after a failure
SYNC_EVERY: Final = 4 << 20                 # bytes; a long file is fsynced in between, so that no fsync is long


def commit(disk: Disk, path: str, temp: str, blocks: Iterable[bytes], sync_every: int = SYNC_EVERY) -> None:
    """Make `blocks` the content of the file `path`, by way of `temp` beside it.

    OSError: nothing has changed, or (the last step has failed) the new content may not outlive a power failure.
    """
    file = disk.open(temp, "w")
    try:
        written = 0
        for block in blocks:
            rdb.write_all(disk, file, block)
            written += len(block)
            if written >= sync_every > 0:
                disk.fsync(file)
                written = 0
        disk.fsync(file)
    finally:
        disk.close(file)
    disk.rename(temp, path)
    disk.fsync_dir(posixpath.dirname(path))


class Snapshots:
    """The snapshots of one server. Times are seconds of the wall clock."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.last_save_s = server.now_ms // 1000        # at its start, a server counts as saved
        self.last_try_s = 0
        self.failing = False                            # the last one failed
        self.child: int | None = None                   # pid
        self.scheduled = False                          # BGSAVE as soon as nothing else runs
        self.started_s = 0
        self.last_duration_s = -1
        self.last_copied = 0                            # bytes of memory that the last child did not share
        self.saves = 0
        self._dirty_before = 0                          # changes up to the fork
        self._childs_file = ""                          # the temporary one
        self._cancelled = False                         # the child was killed: what it did does not count
        self._owed = False                              # FLUSHALL inside an EXEC

    @property
    def path(self) -> str:
        return self.server.path(self.server.config.dbfilename)

    @property
    def stop_writes(self) -> bool:
        """Whether commands that write are refused: nothing that they change would be saved."""
        config = self.server.config
        return bool(self.failing and config.stop_writes_on_bgsave_error and config.save)

    # ---- saving

    def save(self) -> bool:
        """Write a snapshot now; whether it is done. Redis: rdbSave.

        A child that is at it would put one of yesterday in its place, and so is killed.
        """
        self.cancel()
        try:
            self._write(self.server.disk)
        except OSError as error:
            self._complain(error.strerror)
            return False
        self.server.log("*", "DB saved on disk")
        self.server.dirty = 0
        self._done()
        return True

    def save_in_background(self) -> bool:
        """Fork a child that writes a snapshot; whether it runs. There must be no other child."""
        server = self.server
        self.last_try_s = server.now_ms // 1000
        self.saves += 1
        try:
            self.child = server.fork(self._write, self._ended)
        except OSError as error:
            self.failing = True
            server.log("#", f"Can't save in background: fork: {error.strerror}")
            return False
        self._dirty_before, self.started_s, self._cancelled = server.dirty, self.last_try_s, False
        self._childs_file = self._temp(self.child)
        server.log("*", f"Background saving started by pid {self.child}; for the fork everything stood still for "
                        f"{server.stats.latest_fork_usec / 1000:.1f} ms")
        return True

    def _write(self, disk: Disk) -> None:
        """What the child does, too: it touches values and its own file, and nothing else."""
        server, config = self.server, self.server.config
        temp = self._temp(server.processes.pid)
        try:
            commit(disk, self.path, temp, rdb.blocks(server.databases, config, server.now_ms // 1000,
                                                     server.processes.memory(), uses=server.eviction.uses),
                   SYNC_EVERY if config.rdb_save_incremental_fsync else 0)
        except OSError:
            remove(disk, temp)
            raise

    def _temp(self, pid: int) -> str:
        return self.server.path(f"temp-{pid}.rdb")

    def _ended(self, child: Ended) -> None:
        """The child has gone. Redis: backgroundSaveDoneHandlerDisk."""
        server, self.child = self.server, None
        now_s = server.now_ms // 1000
        self.last_duration_s, self.last_copied = now_s - self.started_s, child.copied
        if self._cancelled:
            pass                                        # even if it was done before it was killed
        elif child.status == 0:
            server.log("*", f"Background saving terminated with success; {child.copied >> 20} MB of memory were copied")
            server.dirty -= self._dirty_before
            self._done()
        else:
            self.failing = True
            if child.status < 0:
                server.log("#", f"Background saving terminated by signal {-child.status}")
            else:
                self._complain(child.error)
        if child.status:
            remove(server.disk, self._childs_file)

    def _done(self) -> None:
        self.last_save_s, self.failing = self.server.clock.time_us() // 1_000_000, False

    def _complain(self, reason: str | None) -> None:
        self.server.log("#", f"Error saving {self.path}: {reason or 'for no known reason'}. The file there is the last "
                             "that was finished")

    def cancel(self) -> None:
        """Kill the child: what it writes is wanted no more. Redis: killRDBChild."""
        if self.child is not None and not self._cancelled:
            self._cancelled = True
            self.server.processes.kill(self.child)
            remove(self.server.disk, self._childs_file)

    # ---- when

    def cron(self) -> None:
        """Ten times a second: is a save point reached? The comparison is strict, in whole seconds."""
        server = self.server
        if server.children:
            return
        now_s = server.now_ms // 1000
        if self.failing and now_s - self.last_try_s <= RETRY_S:
            return
        for seconds, changes in server.config.save:
            if server.dirty >= changes and now_s - self.last_save_s > seconds:
                server.log("*", f"{changes} changes in {seconds} seconds. Saving...")
                self.save_in_background()
                return
        if self.scheduled:
            self.scheduled = not self.save_in_background()

    def flushed(self) -> None:
        """FLUSHALL: what a child saves is of yesterday; and a server that saves at all saves the nothing at once.

        In a transaction it is done behind EXEC, so that no half of one is ever saved. (Redis does it inside.)
        """
        self.cancel()
        self._owed = bool(self.server.config.save) and not self.server.loading      # what a log says was long ago
        if not self.server.in_transaction:
            self.settle()

    def settle(self) -> None:
        """At the end of a unit: do what FLUSHALL has left to do."""
        if self._owed:
            self._owed = False
            self.save()


def remove(disk: Disk, path: str) -> None:
    """If it is there."""
    try:
        disk.unlink(path)
    except OSError:
        pass
