"""Bugs with names: the server with one durability step broken, a few lines each.

    with broken("reply-before-log"):
        report = explore(SCENARIOS["always"])           # report.violations is not empty
    print(MUTANTS["reply-before-log"].story)

A mutant is invisible to clients: it answers every command as the unbroken server does, for years. Only a crash shows
it, at the right instant, of the right kind. Most of them have been in real servers; the number behind the name of a
system is that of its issue or pull request. The explorer must kill every one of them and pass the unbroken server: that
is the reason to believe it (score.py).

Interface:
  - Mutant              a bug: what it is, which promise it breaks, the weakest crash that shows it, who had it
  - MUTANTS             all of them, by name
  - broken(name)        in this `with` every server of this process has that bug
  - ORDER               kinds of crashes, the weakest first

A bug is written as a function that is given `patch(owner, attribute, replacement)`; its docstring is the story. It is
active while the scenario runs and while the server recovers.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, NamedTuple

from kvref import blocking
from kvref.client import Client
from kvref.command_table import Call
from kvref.config import read_file
from kvref.persistence import aof, load, manifest, rdb, replay, snapshot
from kvref.persistence.aof import AppendOnlyFile
from kvref.persistence.manifest import Folder, Manifest
from kvref.persistence.replay import Replay
from kvref.persistence.snapshot import Snapshots
from kvref.ports import Disk
from kvref.server import Server

Patch = Callable[[Any, str, Any], None]
ORDER: Final = ("process", "ext4", "torn", "posix", "reorder")      # of crashes, the weakest first
FOOTER: Final = 9                   # the last bytes of a snapshot: an opcode and a checksum


class Mutant(NamedTuple):
    """See the module."""

    name: str
    story: str
    breaks: str                 # the invariant
    weakest: str                # the first profile of ORDER that shows it; of two crashes, that of the second
    scenario: str
    real: str                   # who had it
    patch: Callable[[Patch], None]
    again: int = 0              # it takes a second crash: so many for each kind of operation

    def __str__(self) -> str:
        return f"{self.name} ({self.breaks}, {self.weakest}, {self.scenario}; {self.real}): {self.story}"


MUTANTS: dict[str, Mutant] = {}


def mutant(name: str, breaks: str, weakest: str, scenario: str, real: str,
           again: int = 0) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
    """A bug for `MUTANTS`."""
    def add(patch: Callable[[Patch], None]) -> Callable[[Patch], None]:
        story = " ".join((patch.__doc__ or "").split())
        MUTANTS[name] = Mutant(name, story, breaks, weakest, scenario, real, patch, again)
        return patch
    return add


@contextmanager
def broken(name: str) -> Iterator[None]:
    """See the module. "" is no bug; ValueError for a name that is none."""
    if name and name not in MUTANTS:
        raise ValueError(f"no mutant is called {name!r}; there is {', '.join(MUTANTS)}")
    undo: list[tuple[Any, str, Any]] = []

    def patch(owner: Any, attribute: str, replacement: Any) -> None:
        undo.append((owner, attribute, vars(owner).get(attribute, _NOTHING)))
        setattr(owner, attribute, replacement)
    try:
        if name:
            MUTANTS[name].patch(patch)
        yield
    finally:
        for owner, attribute, before in reversed(undo):
            if before is _NOTHING:
                delattr(owner, attribute)
            else:
                setattr(owner, attribute, before)


_NOTHING = object()


# ---- what is told before it is written -----------------------------------------------------------

@mutant("reply-before-log", "I3", "process", "always", "Redis 4890")
def _reply_before_log(patch: Patch) -> None:
    """Replies leave first, and then the log is written. The order of two lines; every test passes, for both are
    done a moment later. Redis had it in a corner until version 7: while a script ran for too long, its clients
    were answered without the log having been flushed."""
    def before_sleep(self: Server) -> None:
        self.waiting.time_out(self.now_ms)
        self.expiry.fast_cycle()
        self.waiting.go_on()
        self.send_replies()
        self.aof.flush()
        self.free_closed()
    patch(Server, "before_sleep", before_sleep)


@mutant("send-when-writable", "I3", "process", "slow-reader-writes", "Redis 4.0.8")
def _send_when_writable(patch: Patch) -> None:
    """A client that reads slowly is sent the rest as soon as its socket is writable again, which may be in the
    same turn in which it wrote something, before the log. Redis sent replies of `appendfsync always` like that
    until 4.0.9, whose notes call the upgrade critical."""
    patch(Client, "on_writable", Client.flush)


@mutant("fsync-in-background", "I1", "ext4", "always", "almost everybody, once, for speed")
def _fsync_in_background(patch: Patch) -> None:
    """`always` hands its fsync to another thread and does not wait for it. It is much faster, and `kill -9` never
    loses anything. The reply runs ahead of the disk by one fsync: a power loss finds out."""
    def fsync(self: AppendOnlyFile) -> None:
        if not self.job:
            self._job_size, self._job_count = self.size, self._written
            self.job = self.server.processes.fsync_in_background(self.file)
    patch(AppendOnlyFile, "fsync", fsync)


@mutant("written-by-the-clock", "I3", "process", "everysec", "every log with a buffer of its own")
def _written_by_the_clock(patch: Patch) -> None:
    """The log is kept in the server's memory and written once a second, together with the fsync: fewer system
    calls. With `everysec` a second may be lost anyway, somebody said. But a second of a power loss is not a second
    of every crash: what the kernel has, a dead process cannot lose."""
    flush = AppendOnlyFile.flush

    def seldom(self: AppendOnlyFile, force: bool = False) -> None:
        waits = self.server.now_us - self._last_sync_us < aof.SECOND_US
        if force or not waits or self.server.config.appendfsync != "everysec":
            flush(self, force)
    patch(AppendOnlyFile, "flush", seldom)


@mutant("waits-for-ever", "I3", "process", "everysec-slow", "Redis 641 and 990 tell why it is tempting")
def _waits_for_ever(patch: Patch) -> None:
    """While an fsync runs, a write to the same file stands still, and the server with it; so the write is put off
    until the fsync is over. Redis puts it off for two seconds and then writes, whatever it costs, and says so in
    its log. Somebody who wants that line to vanish takes the limit away."""
    patch(aof, "PATIENCE_US", 1 << 62)


@mutant("waitaof-counts-written", "I1", "ext4", "everysec-waitaof", "nobody known")
def _waitaof_counts_written(patch: Patch) -> None:
    """WAITAOF answers how many disks have what was written so far. Written is not durable: this one answers when the
    kernel has the bytes, and its caller believes in a disk that has never seen them."""
    patch(AppendOnlyFile, "durable", property(lambda self: self._written, lambda self, count: None))


@mutant("told-in-the-midst", "I3", "process", "always-listeners", "whoever thinks that only replies tell")
def _told_in_the_midst(patch: Patch) -> None:
    """What MONITOR shows leaves at once: it is no reply, somebody said, and so nobody waits for the log on its behalf.
    But it tells of a write, and who sees it acts on it."""
    feed = Server.feed_monitors

    def at_once(self: Server, call: Call, command: Any) -> None:
        feed(self, call, command)
        for monitor in self.monitors:
            if monitor is not call.client:
                monitor.flush()
    patch(Server, "feed_monitors", at_once)


# ---- names, renames and snapshots ----------------------------------------------------------------

def _commit(patch: Patch, changed: Callable[..., None]) -> None:
    for module in (snapshot, aof, manifest):
        patch(module, "commit", changed)


@mutant("rename-not-durable", "I4", "ext4", "rdb", "Redis 3487, 10737")
def _rename_not_durable(patch: Patch) -> None:
    """The snapshot is written, fsynced and renamed, and reported done. But a name lives in its directory, which
    has not been fsynced: after a power loss the old file is back. Redis learned it in 2022 from an article about
    how data reaches the disk."""
    def commit(disk: Disk, path: str, temp: str, blocks: Any, sync_every: int = 0) -> None:
        _write(disk, temp, blocks)
        disk.rename(temp, path)
    _commit(patch, commit)


@mutant("rename-before-fsync", "I10", "ext4", "rdb", "desktops on ext4, 2009 (Ubuntu 317781)")
def _rename_before_fsync(patch: Patch) -> None:
    """The new file gets its name first and is fsynced then. A power loss between the two leaves the name and none
    of the bytes: an empty file. Thousands found their settings like that when ext4 came; it now forces the bytes
    out where the rename replaces a file, which is no help for the first."""
    def commit(disk: Disk, path: str, temp: str, blocks: Any, sync_every: int = 0) -> None:
        file = _write(disk, temp, blocks, sync=False)
        disk.rename(temp, path)
        disk.fsync(file)
        disk.fsync_dir(posixpath.dirname(path))
    _commit(patch, commit)


def _write(disk: Disk, path: str, blocks: Any, sync: bool = True) -> Any:
    file = disk.open(path, "w")
    for block in blocks:
        rdb.write_all(disk, file, block)
    if sync:
        disk.fsync(file)
    return file


@mutant("written-in-place", "I10", "process", "rdb-commands", "whoever opens the file itself for writing")
def _written_in_place(patch: Patch) -> None:
    """No temporary file: the snapshot is written over the last one. It is whole before, and it is whole after. In
    between there is no snapshot at all, and that lasts the longer the more there is to lose."""
    def commit(disk: Disk, path: str, temp: str, blocks: Any, sync_every: int = 0) -> None:
        _write(disk, path, blocks)
        disk.fsync_dir(posixpath.dirname(path))
    patch(snapshot, "commit", commit)


@mutant("directory-not-durable", "I1", "posix", "always-exec", "Redis 7.0.15")
def _directory_not_durable(patch: Patch) -> None:
    """The log's own directory is made and everything in it is fsynced, the directory too. Its name stands in *its*
    parent, and nobody has fsynced that. On ext4 one fsync takes all earlier names along; POSIX promises nothing of
    the kind, and the whole log may vanish."""
    def make(self: Folder) -> None:
        if self.server.config.appenddirname not in self.server.disk.list(self.server.config.dir):
            self.server.disk.mkdir(self.directory)
    patch(Folder, "_make_directory", make)


@mutant("manifest-before-names", "I10", "posix", "always-exec", "LevelDB had to add SyncDirIfManifest")
def _manifest_before_names(patch: Patch) -> None:
    """The manifest names a new file, and is fsynced. The new file's own name is fsynced together with the
    manifest's, a moment later: one system call less. Where names become durable in any order, the manifest can be
    there and the file that it names is not."""
    def commit(self: Folder, fresh: Manifest) -> None:
        path = self.path(self.manifest_name)
        snapshot.commit(self.server.disk, path, self.path(f"temp-{self.manifest_name}"), [fresh.text])
        self.manifest = fresh
    patch(Folder, "_commit", commit)


@mutant("upgrade-moves-first", "I5", "process", "upgrade", "migrations without an order")
def _upgrade_moves_first(patch: Patch) -> None:
    """A log from before version 7 is moved into the new directory, and then the manifest is written that names it. A
    crash between the two: no old file, no manifest, an empty server."""
    def adopt(self: Folder, fresh: Manifest) -> None:
        assert fresh.base
        self._make_directory()
        self.server.disk.rename(self.server.path(fresh.base.name), self.path(fresh.base.name))
        self.server.disk.fsync_dir(self.server.config.dir)
        self._commit(fresh)
    patch(Folder, "adopt", adopt)


@mutant("upgrade-by-rename", "I10", "posix", "upgrade", "Redis 7 still; kvref, until this explorer found it")
def _upgrade_by_rename(patch: Patch) -> None:
    """A log from before version 7 is renamed from one directory into another. POSIX makes a rename atomic for whoever
    looks; what is on the disk of the two directories before both are fsynced may be both names, or one, or none."""
    def adopt(self: Folder, fresh: Manifest) -> None:
        assert fresh.base
        disk, name = self.server.disk, fresh.base.name
        self._make_directory()
        self._commit(fresh)
        disk.rename(self.server.path(name), self.path(name))
        disk.fsync_dir(self.directory)
        disk.fsync_dir(self.server.config.dir)
    patch(Folder, "adopt", adopt)


@mutant("save-beside-child", "I4", "process", "rdb-flushall", "Redis 13434")
def _save_beside_child(patch: Patch) -> None:
    """FLUSHALL saves at once, and a child that was saving before is not killed, or its end is not waited for. It
    goes on, and renames what was there before FLUSHALL over the new snapshot. What was deleted is back."""
    patch(Snapshots, "cancel", lambda self: None)


@mutant("child-that-failed-counts", "I4", "process", "rdb-full", "Redis 1896")
def _child_that_failed_counts(patch: Patch) -> None:
    """The child that saves has died, or the disk was full. Its parent looks at how it ended with one eye, and
    reports the snapshot done. LASTSAVE is now; the file is of last week."""
    ended = Snapshots._ended
    patch(Snapshots, "_ended", lambda self, child: ended(self, child._replace(status=0)))


@mutant("flushall-saves-inside-exec", "I4", "process", "rdb-exec", "Redis 7.0.15")
def _flushall_saves_inside_exec(patch: Patch) -> None:
    """FLUSHALL saves a snapshot at once: inside of a transaction, too. The snapshot holds the first half of that
    transaction; a crash makes it the truth."""
    def flushed(self: Snapshots) -> None:
        self.cancel()
        if self.server.config.save and not self.server.loading:
            self.save()
    patch(Snapshots, "flushed", flushed)


# ---- fsync ---------------------------------------------------------------------------------------

@mutant("fsync-result-ignored", "I1", "ext4", "always-fsync-fails", "Redis 8111")
def _fsync_result_ignored(patch: Patch) -> None:
    """fsync is called and its result is thrown away. Researchers made disks fail in 2020 and found that Redis
    served from memory what the disk had long lost."""
    def fsync(self: AppendOnlyFile) -> None:
        with suppress(OSError):
            self.server.disk.fsync(self.file)
        self._has_synced(self.size, self._written)
    patch(AppendOnlyFile, "fsync", fsync)


@mutant("fsync-again", "I1", "ext4", "always-fsync-fails", "PostgreSQL until 2018 (fsyncgate)")
def _fsync_again(patch: Patch) -> None:
    """fsync fails, so it is tried again; now it succeeds, and all is well. It is not: after a failure Linux calls
    the pages clean and never writes them again, and so the second fsync has nothing to do. PostgreSQL believed it
    for twenty years."""
    fsync = AppendOnlyFile.fsync

    def twice(self: AppendOnlyFile) -> None:
        try:
            self.server.disk.fsync(self.file)
        except OSError:
            fsync(self)
        else:
            self._has_synced(self.size, self._written)
    patch(AppendOnlyFile, "fsync", twice)


@mutant("goes-on-after-failure", "I1", "ext4", "always-fsync-fails", "Redis 8347")
def _goes_on_after_failure(patch: Patch) -> None:
    """With `always`, a failed fsync is written to the server's log and new writes are refused. The write at hand,
    however, has been executed, and its client is told OK. What cannot be kept must not be told: since 2021 Redis
    ends at once."""
    def cannot_sync(self: AppendOnlyFile, error: str) -> None:
        self.sync_error, self._doubtful = error, True
    patch(AppendOnlyFile, "_cannot_sync", cannot_sync)


@mutant("last-second-never", "I2", "ext4", "everysec-silence", "Redis 5985, 6053")
def _last_second_never(patch: Patch) -> None:
    """`everysec` looks for something to fsync when it has something to write. As long as clients write, it is
    right. When they stop, the last second of the log stays unsynced for minutes or for ever: "one second" was
    never the bound. A maintainer showed it with strace, in 2019."""
    flush = AppendOnlyFile.flush

    def busy(self: AppendOnlyFile, force: bool = False) -> None:
        if self.effects or self.unwritten or force:
            flush(self, force)
    patch(AppendOnlyFile, "flush", busy)


@mutant("offset-of-another-file", "I2", "ext4", "everysec-silence", "Redis 6134, 11973")
def _offset_of_another_file(patch: Patch) -> None:
    """How far the log is durable is one number; a rewrite begins a new file and leaves the number as it was. Until
    the new file is as long as the old one it counts as durable. The repair of the last bug had this one in it;
    four years later the end of a rewrite still set the number wrongly."""
    append_to, flush = AppendOnlyFile._append_to, AppendOnlyFile.flush

    def forgetful(self: AppendOnlyFile, *args: Any, **more: Any) -> None:
        synced = self.synced
        append_to(self, *args, **more)
        self.synced = synced

    def trusting(self: AppendOnlyFile, force: bool = False) -> None:
        if self.effects or self.unwritten or force or self.synced < self.size:
            flush(self, force)
    patch(AppendOnlyFile, "_append_to", forgetful)
    patch(AppendOnlyFile, "flush", trusting)


@mutant("no-fsync-of-what-is-loaded", "I5", "ext4", "rdb-save-full", "most programs that load a file", again=3)
def _no_fsync_of_what_is_loaded(patch: Patch) -> None:
    """The server is killed, starts again, loads its file and serves it. What it has loaded may be in the page
    cache alone: the one that was killed had not come to its fsync. Clients see the write; then the power fails,
    and what they have seen never was."""
    patch(load, "_make_durable", lambda server, path: None)


@mutant("fsync-error-forgotten", "I10", "ext4", "everysec-then-always", "Redis 7.0.15")
def _fsync_error_forgotten(patch: Patch) -> None:
    """An fsync in the background fails and the server's log says so. The next one, a second later, is good, and so
    is everything again. The bytes of the first are lost for ever, in the midst of the file; whatever is written
    behind them, with whatever policy, can no longer be read."""
    look = AppendOnlyFile._look_at_job

    def once(self: AppendOnlyFile) -> None:
        if self.job and self.job.done and self.job.error:
            self.job.error = None
            self._job_size = None
            self.server.log("#", "Fail to fsync the AOF file.")
        look(self)
    patch(AppendOnlyFile, "_look_at_job", once)


# ---- rewriting -----------------------------------------------------------------------------------

@contextmanager
def _without(owner: Any, method: str) -> Iterator[None]:
    """Here it does nothing."""
    vars(owner)[method] = lambda *args, **more: None
    try:
        yield
    finally:
        del vars(owner)[method]


@mutant("rotate-before-fsync", "I10", "ext4", "everysec-rewrite-counter", "Redis 11004")
def _rotate_before_fsync(patch: Patch) -> None:
    """A rewrite begins a new file, and the manifest names both. The old one's last second has not been fsynced: it
    was about to be. Now the power fails, the new file is there, and the end of the one before it is not: a hole in
    the middle of history."""
    rotate = AppendOnlyFile._rotate

    def quickly(self: AppendOnlyFile) -> bool:
        with _without(self, "fsync"):
            return rotate(self)
    patch(AppendOnlyFile, "_rotate", quickly)


@mutant("incremental-before-base", "I5", "process", "always-off-and-on", "Redis 10616, release candidates of 7.0")
def _incremental_before_base(patch: Patch) -> None:
    """The log is switched on at run time: its first base takes a while, and effects must be written down
    meanwhile. So the manifest names their file at once. Until the base is done it stands behind the base of an
    earlier life, or behind none."""
    divert = AppendOnlyFile._divert

    def listed(self: AppendOnlyFile) -> None:
        if self.file is not None:
            return divert(self)
        fresh = self.manifest.with_incremental(self.server.config.appendfilename)
        file = self._fresh(self.path(fresh.incremental[-1].name))
        self._commit(fresh)
        self._append_to(file)
        self.effects.clear()
        self.server.feeds.append(self.feed)
    patch(AppendOnlyFile, "_divert", listed)


@mutant("writes-during-rewrite-lost", "I3", "process", "always-rewrite-counter", "feared in Redis 948")
def _writes_during_rewrite_lost(patch: Patch) -> None:
    """A child writes the new base; meanwhile effects go on into the old file, where they always went. Then the new
    base takes its place. It was true when the child was forked, and all that came after has gone with the old
    file."""
    append_to = AppendOnlyFile._append_to

    def stay(self: AppendOnlyFile, fresh: Any) -> None:
        if self.file is None or fresh.path == self._temporary_path:
            return append_to(self, fresh)
        self.server.disk.close(fresh)
    patch(AppendOnlyFile, "_append_to", stay)


@mutant("history-deleted-first", "I10", "process", "always-rewrite-counter", "whoever tidies up before signing")
def _history_deleted_first(patch: Patch) -> None:
    """The rewrite is done, the files that it replaces are deleted, and then the manifest is written that does not
    need them. Two lines in the wrong order. A crash between them leaves a manifest full of files that are no more."""
    commit = Folder._commit

    def tidy(self: Folder, fresh: Manifest) -> None:
        for part in fresh.history:
            snapshot.remove(self.server.disk, self.path(part.name))
        commit(self, fresh)
    patch(Folder, "_commit", tidy)


@mutant("history-loaded", "I5", "process", "always-rewrite-counter", "any directory listing taken for a manifest")
def _history_loaded(patch: Patch) -> None:
    """At a start every file of the manifest is loaded, those too that are marked as history: a crash came before
    they could be deleted. The new base holds all that they say. INCR is counted twice."""
    def parts(self: Manifest) -> tuple[manifest.Part, ...]:
        base = (self.base,) if self.base else ()
        return (*base, *(part for part in self.history if "incr" in part.name), *self.incremental)
    patch(Manifest, "parts", property(parts))


@mutant("manifest-in-place", "I10", "process", "always-rewrite-counter", "configuration files everywhere")
def _manifest_in_place(patch: Patch) -> None:
    """The manifest has a hundred bytes: what could happen while they are written? Opening it for writing has
    emptied it. A crash before the write leaves a directory full of data and nothing that says so."""
    def commit(self: Folder, fresh: Manifest) -> None:
        _write(self.server.disk, self.path(self.manifest_name), [fresh.text])
        self.server.disk.fsync_dir(self.directory)
        self.manifest = fresh
    patch(Folder, "_commit", commit)


@mutant("database-forgotten", "I5", "process", "always-rewrite-counter", "why Redis resets aof_selected_db")
def _database_forgotten(patch: Patch) -> None:
    """The log says SELECT only where the database changes. A rewrite begins a new file, and the writer believes
    that it is still in database 3; whoever reads that file begins in database 0."""
    append_to = AppendOnlyFile._append_to

    def remember(self: AppendOnlyFile, *args: Any, **more: Any) -> None:
        selected = self._selected
        append_to(self, *args, **more)
        self._selected = selected
    patch(AppendOnlyFile, "_append_to", remember)


# ---- full disks, half writes ---------------------------------------------------------------------

@mutant("short-write-not-cut-back", "I10", "process", "everysec-full", "Redis 587")
def _short_write_not_cut_back(patch: Patch) -> None:
    """The disk is full, and half a record is in the file. Later there is room, and the record is written again,
    whole, behind its own half. Everything behind that place cannot be read."""
    write = AppendOnlyFile._write

    def leave(self: AppendOnlyFile) -> None:
        with _without(self.server.disk, "truncate"):
            write(self)
    patch(AppendOnlyFile, "_write", leave)


@mutant("full-disk-unnoticed", "I10", "process", "rdb-save-full", "Redis 1604")
def _full_disk_unnoticed(patch: Patch) -> None:
    """The snapshot's last bytes wait in a buffer of the C library and are written by `fclose`, whose result nobody
    looks at. The disk is full: half a file takes the place of a whole one. Its owner restarted, and the data set
    was empty."""
    def commit(disk: Disk, path: str, temp: str, blocks: Any, sync_every: int = 0) -> None:
        with suppress(OSError):
            _write(disk, temp, blocks)
        disk.rename(temp, path)
        disk.fsync_dir(posixpath.dirname(path))
    patch(snapshot, "commit", commit)


@mutant("fsync-before-flush", "I10", "ext4", "rdb", "Valkey 4466")
def _fsync_before_flush(patch: Patch) -> None:
    """fsync, then close. Closing writes what was left in the program's own buffer, and so the last bytes are
    handed to the kernel behind the fsync that was to cover them. Every test passed: it read them from the page
    cache."""
    def commit(disk: Disk, path: str, temp: str, blocks: Any, sync_every: int = 0) -> None:
        data = b"".join(blocks)
        file = _write(disk, temp, [data[:-FOOTER]])
        rdb.write_all(disk, file, data[-FOOTER:])
        disk.rename(temp, path)
        disk.fsync_dir(posixpath.dirname(path))
    _commit(patch, commit)


# ---- what is written down ------------------------------------------------------------------------

def _log_as(patch: Patch, instead: Callable[[Call, tuple[tuple[bytes, ...], ...]], Any]) -> None:
    """`instead` gives the effects to log; None: the command as it was sent."""
    def log_as(self: Call, *effects: tuple[bytes, ...]) -> None:
        if self.server.feeds:
            self.effects = instead(self, effects)
    patch(Call, "log_as", log_as)


@mutant("expire-relative", "I5", "process", "always-effects", "Redis 8433: its replicas, until 7.0")
def _expire_relative(patch: Patch) -> None:
    """EXPIRE k 10 is logged as it was sent. Whoever loads the log tomorrow gives the key ten seconds from
    tomorrow. A log must say what happened, not what was asked: PEXPIREAT k and an instant."""
    _log_as(patch, lambda call, effects: None if effects and effects[0][0] == b"PEXPIREAT" else effects)


@mutant("spop-as-sent", "I5", "process", "always-effects", "why SPOP is logged as SREM, Redis 2139")
def _spop_as_sent(patch: Patch) -> None:
    """SPOP takes a member at random. Logged as it was sent, it takes another one when the log is loaded: a prize
    is drawn twice, and one is never drawn."""
    _log_as(patch, lambda call, effects: None if call.args[0].upper() == b"SPOP" else effects)


@mutant("float-loses-deadline", "I5", "process", "always-effects", "Redis 5256, until 6.0")
def _float_loses_deadline(patch: Patch) -> None:
    """INCRBYFLOAT is logged as SET with the sum, so that no other machine rounds otherwise. But SET takes away the
    deadline: after a restart the key lives for ever. SET learned KEEPTTL for this."""
    _log_as(patch, lambda call, effects: tuple([tuple([word for word in effect if word != b"KEEPTTL"])
                                                for effect in effects]))


@mutant("flushall-not-logged", "I5", "process", "always-effects", "Redis 142, 2.4.0")
def _flushall_not_logged(patch: Patch) -> None:
    """Whether a command is logged is told from the count of changes; FLUSHALL saves a snapshot, which sets the
    count to 0. So it was not logged, and a restart brought everything back that had been deleted."""
    feed = AppendOnlyFile.feed

    def deaf(self: AppendOnlyFile, index: int, effect: Any) -> None:
        if effect[0].upper() != b"FLUSHALL":
            feed(self, index, effect)
    patch(AppendOnlyFile, "feed", deaf)


@mutant("served-pop-not-logged", "I3", "process", "always-blocking", "Redis 413, until 2.6")
def _served_pop_not_logged(patch: Patch) -> None:
    """Somebody waits with BLPOP, and RPUSH serves them. The log holds the RPUSH, for that was a command; that an
    element left the list again was none. After a restart the job is in the queue once more, and is done twice."""
    attempt = blocking.Waiting._try

    def silently(self: blocking.Waiting, *args: Any) -> None:
        feeds, before = self.server.feeds, self.server.feeds.copy()
        feeds[:] = [feed for feed in before if feed != self.server.aof.feed]
        attempt(self, *args)
        feeds[:] = before
    patch(blocking.Waiting, "_try", silently)


@mutant("expiry-not-logged", "I5", "process", "always-effects", "every log of commands, at first")
def _expiry_not_logged(patch: Patch) -> None:
    """A key's time is over and it is deleted; no command has done that, and so the log does not know. Then APPEND
    makes a new key of that name. Whoever loads the log appends to the old one."""
    def on_expired(self: Server, database: Any, key: bytes) -> None:
        database.delete(key)
        self.stats.expired_keys += 1
        if self.on_change:
            self.tell_change(database, key, "expired")
    patch(Server, "on_expired", on_expired)


@mutant("base-without-the-dead", "I3", "process", "always-effects", "Redis 4950")
def _base_without_the_dead(patch: Patch) -> None:
    """Keys whose time is over are left out when a snapshot is loaded, and the base of a log is a snapshot. But the
    log behind it may say PERSIST: the key was saved in time, and is missing after the restart."""
    take = load._take

    def strictly(server: Server, reader: Any, cursor: Any, loading: Any, expired_before_ms: int | None) -> None:
        take(server, reader, cursor, loading, expired_before_ms or server.clock.time_us() // 1000)
    patch(load, "_take", strictly)


@mutant("getset-not-logged", "I3", "process", "always", "any command whose effect is told apart")
def _getset_not_logged(patch: Patch) -> None:
    """A command that reads and writes is taken for one that reads. Its reply is right, its value is in memory, and the
    log has never heard of it."""
    propagate = Server.propagate

    def quiet(self: Server, call: Call, dirty: int) -> int:
        if call.args and call.args[0].upper() == b"GETSET":
            return self.dirty
        return propagate(self, call, dirty)
    patch(Server, "propagate", quiet)


@mutant("strays-loaded", "I9", "process", "everysec-orphans", "Redis 7's manifest is there because of it")
def _strays_loaded(patch: Patch) -> None:
    """Whatever looks like a part of the log is looked at, whether or not the manifest names it. A crash leaves such
    files behind: an incremental file whose manifest never came, a base that was never finished."""
    checked = load._checked

    def curious(server: Server, names: Any, given: Manifest) -> Manifest:
        for name in server.aof.names():
            read_file(server.disk, server.aof.path(name))
        return checked(server, names, given)
    patch(load, "_checked", curious)


# ---- transactions --------------------------------------------------------------------------------

@mutant("exec-not-wrapped", "I5", "torn", "always-exec", "Redis 6152")
def _exec_not_wrapped(patch: Patch) -> None:
    """The effects of a transaction are logged one after another, without MULTI before and EXEC behind them. They
    leave in one write, so that no crash of the process can part them. A power loss can: the money has left one
    account and has not reached the other."""
    def close_unit(self: Server) -> None:
        unit, self.unit = self.unit, []
        for feed in self.feeds:
            for index, effect in unit:
                feed(index, effect)
        self.snapshots.settle()
    patch(Server, "close_unit", close_unit)


@mutant("half-exec-executed", "I5", "torn", "always-exec", "Redis 5201")
def _half_exec_executed(patch: Patch) -> None:
    """MULTI and EXEC are in the log, and the loader runs what stands between them as it comes. If the end is
    missing, half has been run when it finds out."""
    special = Replay._special

    def at_once(self: Replay, words: Any, offset: int, good: int) -> int:
        return good if words[0].upper() in (b"MULTI", b"EXEC") else special(self, words, offset, good)
    patch(Replay, "_special", at_once)


@mutant("cut-behind-multi", "I3", "process", "always-short-exec", "Valkey 4342; Redis 7.0.15 too", again=8)
def _cut_behind_multi(patch: Patch) -> None:
    """A transaction is torn, and the loader cuts the file behind its last whole record. That leaves MULTI without
    an end. The server starts, all looks well, new writes are appended: inside of that MULTI, where the next start
    throws them away."""
    whole = Replay.file

    def file(self: Replay, file: Any, data: bytes, offset: int, size: int, turn: Any) -> int:
        good = whole(self, file, data, offset, size, turn)
        text = read_file(self.server.disk, file.path)
        while self.unit is not None and isinstance(found := replay.next_record(text[good:], good), tuple):
            good += found[1]
        return good
    patch(Replay, "file", file)


@mutant("tail-not-cut", "I10", "process", "always-short-exec", "Redis 587's other half", again=8)
def _tail_not_cut(patch: Patch) -> None:
    """The log ends in the midst of a record; the loader passes over that end, says so, and goes on. It leaves the
    bytes where they are, and the next record is appended behind them. The first start is forgiving, the second one
    refuses everything since."""
    patch(load, "_cut", lambda server, path, good, size, last: None)
