"""The append-only file: every effect is written down, as a rule before its reply is sent.

    feed        an effect joins those of this turn, in memory
    flush       before the loop sleeps, and before any reply leaves: write them; then, by `appendfsync`,
                  always      fsync, and only then reply
                  everysec    fsync in the background, once a second
                  no          the kernel decides
    rewrite     a child writes the keyspace as a new base, while the effects go to a new incremental file

Interface:
  - AppendOnlyFile(server)      open, flush, rewrite, cron, switch_on, switch_off, close
  - misconf                     why commands that write are refused now; "" where they are not

Invariants:
  1. With `always` no reply leaves before the log is durable, but while a child runs under `no-appendfsync-on-rewrite`,
     and while the log is only being switched on. Otherwise no reply leaves before the log is written, except while an
     fsync runs (`everysec`, two seconds at most) and after a write has failed: then the effects are in memory alone,
     and a kill loses them. After a failed write, commands that write are refused until one succeeds. On a full disk
     no rewrite begins: it would leave behind what is in memory alone, and that is written as soon as there is room.
  2. Before a manifest names a file, its name, the file and all files before it are durable.
  3. Bytes that an fsync has failed to make durable never count as durable again, whatever a later fsync reports: until
     a rewrite into new files is done, commands that write are refused.

A rewrite begins with a rotation: the incremental file is fsynced and followed by a new one, in the manifest, before the
fork. Where that cannot be (a write or an fsync has failed, or the log is only being switched on) the effects from the
fork on go to a temporary file, nothing more is appended to the old one, and one manifest names the new base and that
file together. If the last step of putting a manifest in place fails, nobody knows which one a power failure would
leave: then the server goes on with the one that the disk shows, and counts that as a failed fsync.

Redis: aof.c (feedAppendOnlyFile, flushAppendOnlyFile, rewriteAppendOnlyFileBackground and
backgroundRewriteDoneHandler). There the old file's fsync is left to the background when a rewrite begins (issue
11004), and a good fsync hides the failed one before it; both are mended here.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING, Final

from kvref.persistence import rdb
from kvref.persistence.cursor import Unreadable
from kvref.persistence.manifest import Folder, Manifest
from kvref.persistence.replay import as_commands, records
from kvref.persistence.snapshot import SYNC_EVERY, commit, remove
from kvref.ports import Disk, Ended, File, Job

if TYPE_CHECKING:
    from kvref.server import Server

SECOND_US: Final = 1_000_000
PATIENCE_US: Final = 2 * SECOND_US          # how long a write waits for an fsync that runs
PAUSE_US: Final = 500                       # between two looks at it
FAILURES_ALLOWED: Final = 3                 # rewrites in a row, before the next has to wait
LONGEST_WAIT_S: Final = 3600
FULL: Final = (errno.ENOSPC, errno.EDQUOT)  # the failures that pass by themselves


class AppendOnlyFile(Folder):
    """The log of one server."""

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self.file: File | None = None               # what is appended to; None: the log is off
        self.temporary = False                      # ... and it is no part of the manifest yet
        self.effects: list[tuple[int, Sequence[bytes]]] = []        # of this turn: index of the database, words
        self.unwritten = b""                        # what an earlier write has left over
        self.size = self.synced = 0                 # bytes of the file, and how many of them are durable
        self.others = 0                             # bytes of the parts before it
        self.base_size = 0                          # of all, behind the last rewrite; at the start of the base alone
        self.job: Job | None = None                 # the fsync that runs in the background
        self.write_error = self.sync_error = ""
        self.delayed_fsync = 0                      # writes that waited no longer for an fsync
        self.child: int | None = None
        self.scheduled = False                      # a rewrite as soon as nothing else runs
        self.last_ok = True
        self.started_s, self.last_duration_s, self.rewrites = 0, -1, 0
        self.failures = 0                           # rewrites in a row
        self.last_copied = 0                        # bytes of memory that the last child did not share
        self.durable = 0                            # how many effects are on the disk, of all that ever were
        self.waiters: list[Callable[[], bool]] = []         # who asks for that, and is told of more; True: no more
        self._encoded = self._written = 0           # effects, as `durable`
        self._selected = -1                         # the database that the file is in at its end
        self._stamped_s = 0                         # the last annotation
        self._job_size: int | None = None           # what the job will have made durable; None: of a file before this
        self._job_count = 0                         # ... and how many effects
        self._doubtful = False                      # an fsync of this file has failed
        self._retired: list[File] = []              # files with a successor, on which the job may still run
        self._last_sync_us = self._postponed_us = self._tried_us = 0
        self._suffix = "rdb"
        self._not_before_s = 0
        self.cancelled = False
        self._is_full = False                       # the disk, when a write has failed

    def __repr__(self) -> str:
        if self.file is None:
            return "<AppendOnlyFile: off>"
        return f"<AppendOnlyFile: {self.size} bytes, {self.synced} durable, {len(self.effects)} effects to be written>"

    @property
    def misconf(self) -> str:
        return self.write_error or self.sync_error

    @property
    def current_size(self) -> int:
        """Bytes of all parts."""
        return self.others + self.size

    @property
    def position(self) -> int:
        """How many effects there ever were."""
        return self._encoded + len(self.effects)

    @property
    def unfinished(self) -> str:
        """Why the server had better not end now: its log is no part of the manifest yet. "" where it may."""
        if not self.temporary:
            return ""
        if self.child is not None and not self.misconf:
            return "Writing initial AOF, can't exit."
        return (f"The AOF is not whole before a rewrite is done ({self.misconf or 'the last one has failed'}), can't "
                "exit. SHUTDOWN FORCE ends without it.")

    @property
    def must_wait(self) -> bool:
        """The disk is full. What could not be written is in memory alone, and a rewrite would leave it behind."""
        return bool(self.write_error) and self._is_full and not self.temporary and not self.sync_error

    # ---- writing

    def feed(self, index: int, effect: Sequence[bytes]) -> None:
        """An effect in database `index`. It is encoded when it is written, with all others of the turn."""
        self.effects.append((index, effect))

    def flush(self, force: bool = False) -> None:
        """Write the effects, and see that they become durable as `appendfsync` says. Redis: flushAppendOnlyFile."""
        if self.job:
            self._look_at_job()
        if self.file is None or self.server.failure:
            return
        config = self.server.config
        policy = config.appendfsync
        if (self.effects or self.unwritten) and (force or policy != "everysec" or not self._waits_for_fsync()):
            self._write()
        if self.synced == self.size or self.misconf or config.no_appendfsync_on_rewrite and self.server.children:
            return
        if policy == "always":
            self.fsync()
        elif policy == "everysec" and not self.job and self.server.now_us - self._last_sync_us >= SECOND_US:
            self._last_sync_us, self._job_size, self._job_count = self.server.now_us, self.size, self._written
            self.job = self.server.processes.fsync_in_background(self.file)

    @property
    def is_about_to_sync(self) -> bool:
        """Whether somebody waits for an fsync that will begin by itself, within the second of `everysec`."""
        unsynced = self.effects or self.unwritten or self.synced < self.size
        return bool(self.waiters and self.file is not None and unsynced and not self.misconf
                    and self.server.config.appendfsync == "everysec")

    def _waits_for_fsync(self) -> bool:
        """A write would stand still behind an fsync of the same file; so it waits, but not for ever."""
        if not self.job:
            self._postponed_us = 0
            return False
        now_us = self.server.now_us
        self._postponed_us = self._postponed_us or now_us
        if now_us - self._postponed_us < PATIENCE_US:
            return True
        self._postponed_us = 0
        self.delayed_fsync += 1
        self.server.log("*", "Asynchronous AOF fsync is taking too long (disk is busy?). Writing the AOF buffer "
                             "without waiting for fsync to complete, this may slow down Redis.")
        return False

    def _encode(self) -> bytes:
        """What an earlier write has left over, and the effects of this turn as they stand in the file."""
        effects, self.effects = self.effects, []
        stamp, commands = b"", list[Sequence[bytes]]()
        now_s = self.server.now_ms // 1000
        if self.server.config.aof_timestamp_enabled and effects and self._stamped_s != now_s:
            self._stamped_s, stamp = now_s, b"#TS:%d\r\n" % now_s
        for index, effect in effects:
            if index != self._selected:
                self._selected = index
                commands.append((b"SELECT", b"%d" % index))
            commands.append(effect)
        self._encoded += len(effects)
        return self.unwritten + stamp + records(commands)

    def _write(self) -> None:
        """Hand all to the kernel. What it does not take is kept, and the file ends where it did."""
        data, disk, taken, error = self._encode(), self.server.disk, 0, ""
        try:
            while taken < len(data):                # less than all is no error yet
                taken += disk.write(self.file, data[taken:] if taken else data)
        except OSError as failure:
            error, self._is_full = str(failure.strerror), failure.errno in FULL
            with suppress(OSError):
                if taken:
                    disk.truncate(self.file, self.size)
                    taken = 0
        self.size += taken                          # of a short write that cannot be cut back, what is there is there
        self.unwritten, self._postponed_us = data[taken:], 0
        if error:
            self._cannot_write(error)
            return
        self._written = self._encoded
        if self.write_error:
            self.write_error = ""
            self.server.log("#", "AOF write error looks solved, Redis can write again.")

    def _cannot_write(self, error: str) -> None:
        if not self.write_error:
            self.server.log("#", f"Error writing to the AOF file: {error}")
        self.write_error = error
        if self.server.config.appendfsync == "always":
            self.server.abort("Can't recover from AOF write error when the AOF fsync policy is 'always'. Exiting...")

    # ---- making durable

    def fsync(self) -> None:
        """Make what is written durable, now.

        An error is told only once, to whoever asks first. So one that runs has to be heard before.
        """
        while self.job and not self.job.done and self._job_size is not None:
            self.server.clock.sleep(PAUSE_US)
        self._look_at_job()
        if self.sync_error:
            return
        try:
            self.server.disk.fsync(self.file)
        except OSError as failure:
            self._cannot_sync(str(failure.strerror))
        else:
            self._has_synced(self.size, self._written)

    def _has_synced(self, size: int, count: int) -> None:
        """So much of the file is durable, and with it so many effects."""
        self.synced = max(self.synced, size)
        if not self.temporary:
            self.durable = max(self.durable, count)
            self._answer()

    def _answer(self) -> None:
        """Tell those who wait for it that their effects are durable."""
        if self.waiters:
            self.waiters[:] = [wait for wait in self.waiters if not wait()]
            self.server.network.wake()              # what came behind them has its turn at once

    def _look_at_job(self) -> None:
        """Is the fsync in the background over? What it was to make durable is that now, or in doubt for ever."""
        job, size = self.job, self._job_size
        if job is None or not job.done:
            return
        self.job = None
        self._close_retired()
        if size is None:
            return
        if job.error:
            self._cannot_sync(str(job.error.strerror))
        else:
            self._has_synced(size, self._job_count)

    def _cannot_sync(self, error: str) -> None:
        """The kernel may have dropped the bytes, and will report success the next time."""
        self.sync_error, self._doubtful = error, True
        if self.server.config.appendfsync == "always":
            self.server.abort(f"Can't persist AOF for fsync error when the AOF fsync policy is 'always': {error}. "
                              "Exiting...")
        else:
            self.server.log("#", f"Fail to fsync the AOF file: {error}. Writes are refused until a rewrite is done.")
            self.scheduled = True

    def _close_retired(self) -> None:
        for file in self._retired:
            self.server.disk.close(file)
        self._retired.clear()

    # ---- rewriting

    def rewrite(self) -> bool:
        """Have a child write a new base; whether it runs. There must be no other child."""
        server = self.server
        self.scheduled, self.cancelled = False, False
        self._suffix = "rdb" if server.config.aof_use_rdb_preamble else "aof"
        try:
            if self.file is None:
                self._home = server.config.dir
                self._make_directory()
                self.manifest = self.read_manifest()
            rotated = self._rotate()
            if server.failure:
                return False
            if not rotated and server.config.appendonly:
                self._divert()
            self.child = server.fork(self._write_base, self._ended)
        except (OSError, Unreadable) as error:
            server.log("#", f"Can't rewrite append only file in background: {error}")
            self._count_failure()
            return False
        self.rewrites += 1
        self.started_s = server.now_ms // 1000
        server.log("*", f"Background append only file rewriting started by pid {self.child}")
        return True

    def _rotate(self) -> bool:
        """Begin a new incremental file, in the manifest. False: the one before it cannot be made durable."""
        if self.file is None or self.temporary or self.sync_error:
            return False
        self.flush(force=True)
        if self.must_wait:
            raise OSError(errno.ENOSPC, self.write_error)
        if self.misconf:
            return False
        self.fsync()
        if self.misconf:
            return False
        manifest = self.manifest.with_incremental(self.server.config.appendfilename)
        path = self.path(manifest.incremental[-1].name)
        fresh = self._fresh(path)
        try:
            self._commit(manifest)
        finally:
            if self.manifest is manifest:
                self._append_to(fresh)
            else:
                self.server.disk.close(fresh)
                remove(self.server.disk, path)
        return True

    def _divert(self) -> None:
        """From now on the effects go to a file that is no part of the log yet; those before it will be in the base."""
        fresh = self._fresh(self._temporary_path)
        self._encoded = self._written = self.position
        self.unwritten = b""
        self.effects.clear()
        self._append_to(fresh)
        self.sync_error = self.sync_error or self.write_error       # what is not in the log is still not in the log
        self.temporary, self.write_error = True, ""
        if self.feed not in self.server.feeds:
            self.server.feeds.append(self.feed)

    def _append_to(self, fresh: File) -> None:
        """Change to another file. Of the one before nobody wants to know any more."""
        if self.file is not None:
            self._retired.append(self.file)
        self.others += 0 if self.temporary else self.size
        self.file, self.size, self.synced = fresh, 0, 0
        self._job_size, self._selected, self._postponed_us, self._doubtful = None, -1, 0, False
        if not self.job:
            self._close_retired()

    def _write_base(self, disk: Disk) -> None:
        """What the child does: the keyspace as it is now, durable, under a name of its own."""
        pid = self.server.processes.pid
        temp = self.path(f"temp-rewriteaof-{pid}.aof")
        try:
            commit(disk, self._base_path(pid), temp, self._base(),
                   SYNC_EVERY if self.server.config.aof_rewrite_incremental_fsync else 0)
        except OSError:
            remove(disk, temp)
            raise

    def _base(self) -> Iterator[bytes]:
        server = self.server
        if self._suffix == "aof":
            stamp = [b"#TS:%d\r\n" % (server.now_ms // 1000)] if server.config.aof_timestamp_enabled else []
            return chain(stamp, as_commands(server.databases))
        return rdb.blocks(server.databases, server.config, server.now_ms // 1000, server.processes.memory(), base=True,
                          uses=server.eviction.uses)

    def _ended(self, child: Ended) -> None:
        """The child has gone. Redis: backgroundRewriteDoneHandler."""
        server, self.child = self.server, None
        self.last_duration_s, self.last_copied = server.now_ms // 1000 - self.started_s, child.copied
        error = child.error or f"signal {-child.status}"
        if child.status == 0 and not self.cancelled:
            server.log("*", "Background AOF rewrite terminated with success")
            try:
                self._install(child.pid)
            except OSError as failure:
                error = str(failure.strerror)
            else:
                self.last_ok, self.failures, self._not_before_s = True, 0, 0
                server.log("*", "Background AOF rewrite finished successfully")
                return
        self._remove_work(child.pid)
        if not self.cancelled:
            server.log("#", f"Background AOF rewrite terminated with error: {error}")
            self._count_failure()

    def _count_failure(self) -> None:
        """After some failures in a row the next has to wait: 1 minute, 2, 4 ... 60; 1 while writes are refused.

        Redis: aofRewriteLimited.
        """
        if self.uncertain and self.file is not None:
            self._cannot_sync("the manifest may not outlive a power failure")
        self.last_ok = False
        self.scheduled = self.temporary or bool(self.sync_error) or self.server.config.appendonly and self.file is None
        self.failures += 1
        if self.failures >= FAILURES_ALLOWED:
            wait_s = min(60 << self.failures - FAILURES_ALLOWED, 60 if self.misconf else LONGEST_WAIT_S)
            self._not_before_s = self.server.now_ms // 1000 + wait_s
            self.server.log("#", "Background AOF rewrite has repeatedly failed and triggered the limit, will retry in "
                                 f"{wait_s // 60} minutes")

    def _install(self, pid: int) -> None:
        """The new base takes the place of all that it holds. OSError: the manifest is the old one, or `uncertain`."""
        disk, prefix, manifest = self.server.disk, self.server.config.appendfilename, self.manifest
        if self.temporary:
            manifest = manifest.with_incremental(prefix)
            self.flush(force=True)
            if self.write_error or self._doubtful:
                raise OSError(errno.EIO, self.misconf)
            disk.fsync(self.file)
        manifest = manifest.with_base(prefix, self._suffix, kept=int(self.file is not None))
        assert manifest.base
        made = [manifest.base, *manifest.incremental[-1:]] if self.temporary else [manifest.base]
        size = self.size_of(self._base_path(pid))
        try:
            self._move(self._base_path(pid), manifest.base.name, "base")
            if self.temporary:
                self._move(self._temporary_path, manifest.incremental[-1].name, "incr")
            self._commit(manifest)
        finally:
            if self.manifest is manifest:
                self.temporary, self.others = False, size
            else:
                for part in made:
                    remove(disk, self.path(part.name))
        if not self._doubtful:
            self.sync_error, self.scheduled = "", False
            self._has_synced(self.synced, self._written if made[1:] else 0)
        self.base_size = self.current_size
        self._forget_history()

    def cancel(self) -> None:
        """Kill the child: what it writes is wanted no more."""
        if self.child is not None and not self.cancelled:
            self.server.log("#", f"Killing running AOF rewrite child: {self.child}")
            self.cancelled = True
            self.server.processes.kill(self.child)
            self._remove_work(self.child)

    def cron(self) -> None:
        """Ten times a second: try again what has failed; is a rewrite due?"""
        server, config = self.server, self.server.config
        if self.write_error and server.now_us - self._tried_us >= SECOND_US:
            self._tried_us = server.now_us
            self.flush(force=True)
        if server.children or server.now_ms // 1000 < self._not_before_s or self.must_wait:
            return
        growth = self.current_size * 100 // (self.base_size or 1) - 100
        percent = config.auto_aof_rewrite_percentage
        if self.scheduled:
            self.rewrite()
        elif self.file is not None and percent and growth >= percent and (
                self.current_size > config.auto_aof_rewrite_min_size):
            server.log("*", f"Starting automatic rewriting of AOF on {growth}% growth")
            self.rewrite()

    # ---- on and off

    def open(self, manifest: Manifest) -> None:
        """At a server's start, behind the loading: go on with the files of the manifest, or begin new ones. OSError."""
        disk, prefix = self.server.disk, self.server.config.appendfilename
        self.manifest, self._home = manifest, self.server.config.dir
        self._suffix = "rdb" if self.server.config.aof_use_rdb_preamble else "aof"
        if not manifest.parts:
            self._make_directory()
            manifest = manifest.with_base(prefix, self._suffix, kept=0)
            assert manifest.base
            commit(disk, self.path(manifest.base.name), self.path(f"temp-rewriteaof-{self.server.processes.pid}.aof"),
                   self._base())
        if manifest.incremental:
            self.file = disk.open(self.path(manifest.incremental[-1].name), "a")
        else:
            manifest = manifest.with_incremental(prefix)
            self.file = self._fresh(self.path(manifest.incremental[-1].name))
        self.size = self.synced = disk.size(self.file)
        if manifest != self.manifest:
            self._commit(manifest)
        self.others = sum(self.size_of(self.path(part.name)) for part in manifest.parts[:-1])
        self.base_size = self.size_of(self.path(manifest.base.name)) if manifest.base else 0      # as in Redis
        self.server.feeds.append(self.feed)
        self._forget_history()

    def follow_config(self) -> None:
        """CONFIG SET appendonly."""
        (self.switch_on if self.server.config.appendonly else self.switch_off)()

    def switch_on(self) -> None:
        """CONFIG SET appendonly yes: there is a log when its first base is done. ValueError. Redis: startAppendOnly."""
        self.cancel()                               # a base that somebody has asked for before: no log goes with it
        if self.server.children or self.server.in_transaction:
            self.scheduled = True
            self.server.log("#", "AOF was enabled but there is already another background operation. An AOF background "
                                 "was scheduled to start when possible.")
        elif not self.rewrite():
            self.switch_off()
            raise ValueError("Unable to turn on AOF. Check server logs.")

    def switch_off(self) -> None:
        """CONFIG SET appendonly no: what is written is made durable; the files stay. Redis: stopAppendOnly."""
        self.cancel()
        if self.feed in self.server.feeds:
            self.server.feeds.remove(self.feed)
        if self.file is not None:
            if not self.temporary:
                self._finish()
            self._retired.append(self.file)
            if not self.job:
                self._close_retired()
        if self.temporary:
            remove(self.server.disk, self._temporary_path)
        self.file, self.temporary, self.scheduled, self._home = None, False, False, ""
        self._encoded = self._written = self.durable = self.position
        self.effects.clear()
        self.unwritten, self.size, self.synced, self.others = b"", 0, 0, 0
        self.write_error = self.sync_error = ""
        self._job_size, self.failures, self._not_before_s = None, 0, 0
        self._answer()

    def _finish(self) -> None:
        """The last write, and the last fsync."""
        self.flush(force=True)
        try:
            self.server.disk.fsync(self.file)
        except OSError as error:
            self.server.log("#", f"Fail to fsync the AOF file: {error.strerror}")

    def close(self) -> None:
        """The server ends: write and make durable what there is."""
        if self.child is not None:
            self.server.log("#", "There is a child rewriting the AOF. Killing it!")
            self.cancel()
        if self.file is not None and not self.server.failure:
            self.server.log("*", "Calling fsync() on the AOF file.")
            self._finish()
