"""What must hold after a crash, and what may be lost: the promises of every persistence mode, made exact.

    I1  always: every write that a client has been told of survives; in every mode, those for which WAITAOF has said so
    I2  everysec, power loss: every write executed before the start of the last fsync of the log that was completed; and
        where nothing is broken or slow, every write that is older than PROMPT_MS. Behind an orderly end: every write
    I3  process crash: always loses nothing told; everysec and no only writes whose flush was postponed or has failed
    I4  a start from dump.rdb: a completed snapshot, whole, as of its fork, and none older than the last one done
    I5  the state is the state behind some unit: never half of one, never one without those before it
    I6  so an EXEC survives whole or not at all
    I7  a second crash during the recovery changes nothing of it
    I8  what is written after a recovery keeps its own promises, and takes nothing of what was recovered with it
    I9  what was deleted stays deleted, nobody who was served sees less later, no file is read that nothing names
    I10 the server starts, but where the damage allows a refusal; and a file that is refused is not touched

Interface:
  - Ledger(recording)       what is durable, written and saved at every place of a recording
  - promise(...)            the least that must be left, and why
  - judge(...)              the verdict on one outcome

I5 and I6 need no rule of their own: a state that is behind no unit is none. Where a *refusal* is allowed, and where
bytes were dropped by the kernel after a failed fsync, the README's table of what a crash can take says what may happen.
A *hole* inside the log, which has no checksum, is counted as undetected corruption, never as a pass. Where the disk
itself has lied or rotted, a start may be refused, or find a state that never was (undetected corruption), or one older
than what is owed: that is *taken by the disk*. If only the end of the log was lied about, just the last, and not below
what honest fsyncs have saved.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from math import inf
from typing import Final, NamedTuple

from kvref.persistence.cursor import Unreadable
from kvref.persistence.manifest import parse
from kvref.sim.disk import Disk, Operation
from kvref.sim.inodes import LIES
from kvref.sim.recording import Outcome, Point, Recording, State, dump_path
from kvref.sim.survival import within_reach

KILLS: Final = ("process", "restart")       # the page cache survives; "restart": the server is back within a second
PROMPT_MS: Final = 1250             # everysec on a healthy disk: one second, a cron's tick, an fsync, and some room
PATIENCE_MS: Final = 2250           # so long may a write wait for an fsync that runs
WHOLE, LOSSY, REFUSED, CORRUPT, DROPPED, TAKEN, BROKEN = KINDS = (
    "whole", "lossy as promised", "refused", "undetected corruption", "dropped by the kernel", "taken by the disk",
    "BROKEN PROMISE")
LIED_AT_END, LIED, ROTTEN = 1, 2, 3     # what the disk has done: lied about the end of the log alone; about more


class Promise(NamedTuple):
    """What is left is the state behind unit `least` or a later one; or behind one of `only`."""

    invariant: str
    least: int = 0
    only: frozenset[int] | None = None
    states: Mapping[State, int] | None = None   # or it is one of these, each with its unit


class Verdict(NamedTuple):
    """On one (point, state)."""

    kind: str
    invariant: str = ""             # the one that is broken
    unit: int = -1                  # behind which the recovered state was there
    text: str = ""


class Steps:
    """A number that changes at some places of a recording."""

    def __init__(self) -> None:
        self.seqs: list[int] = [0]
        self.values: list[int] = [0]

    def set(self, seq: int, value: int) -> None:
        self.seqs.append(seq)
        self.values.append(value)

    def at(self, seq: int) -> int:
        return self.values[bisect_right(self.seqs, seq) - 1]


class Ledger:
    """Read from the recorded operations, not from what the server believes of its log."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.durable, self.written = Steps(), Steps()       # units, of the log that the manifest names
        self.renamed: list[tuple[int, int]] = []            # (seq, units) of snapshots with their final name
        self._synced: dict[int, int] = {}                   # inode -> units that an fsync of it has covered
        self._handed: dict[int, int] = {}                   # inode -> units that a write to it has held
        self._inodes: dict[str, int] = {}                   # path -> inode
        self._texts: dict[int, bytes] = {}                  # manifests: inode -> content
        self._candidate = self._current = 0                 # the log's last file; that of the next manifest
        self._parts: set[int] = set()                       # the inodes of the next manifest
        self._dropped = {operation.inode for operation in recording.initial.dropped}
        self._doubt = Steps()                               # whether the log has a file of which bytes were dropped
        self.doubtful: float = inf if self._dropped else 0         # units that had been executed when an fsync failed
        self._folder = ""
        self._live: set[int] = set()                        # the inodes of this manifest, and of one on its way
        self._betrayed = Steps()
        for number, node in recording.initial.inodes.items():
            self._inodes[node.path] = number
        self._begin()
        disk = recording.initial.copy()
        is_honest = not any(node.is_betrayed for node in disk.inodes.values()) and not any(
            operation.error == LIES or operation.kind == "rot" for operation in recording.operations)
        self._betrayed.set(0, 0 if is_honest else self._betrayal(disk))
        for operation in recording.operations:
            self._follow(operation)
            if not is_honest:
                disk.apply(operation)
                self._betrayed.set(operation.seq, self._betrayal(disk))

    def _begin(self) -> None:
        """The log that is there at the start, if it is one."""
        for path, number in list(self._inodes.items()):
            if path.endswith(".manifest") and "temp-" not in path:
                self._texts[number] = bytes(self.recording.initial.inodes[number].visible)
                self._named(path, number)
                self._current = self._candidate
        self._doubt.set(0, int(bool(self._dropped)))

    def _follow(self, operation: Operation) -> None:
        done = self.recording.done_before(operation.seq)
        match operation.kind:
            case "create":
                self._inodes[operation.path] = operation.inode
            case "write":
                if not operation.error:
                    self._handed[operation.inode] = done
                if ".manifest" in operation.path:
                    self._texts[operation.inode] = self._texts.get(operation.inode, b"") + operation.data
            case "rename":
                self._renamed(operation, done)
            case "fsync" | "fsync_dir" if operation.error == LIES:
                pass
            case "fsync" if operation.error:
                if ".incr" in operation.path:
                    self._dropped.add(operation.inode)
                    self._doubt.set(operation.seq, 1)
                    self.doubtful = max(self.doubtful, done)
            case "fsync":
                covered = self.recording.done_before(operation.begun)
                self._synced[operation.inode] = max(self._synced.get(operation.inode, 0), covered)
            case "fsync_dir" if self._candidate and operation.path == self._folder:
                self._current, self._candidate, self._live = self._candidate, 0, self._parts.copy()
                self._doubt.set(operation.seq, int(bool(self._parts & self._dropped)))
        inode = self._current
        if inode:
            self.written.set(operation.seq, max(self.written.values[-1], self._handed.get(inode, 0)))
            if inode not in self._dropped:
                self.durable.set(operation.seq, max(self.durable.values[-1], self._synced.get(inode, 0)))

    def _renamed(self, operation: Operation, done: int) -> None:
        self._inodes[operation.to] = operation.inode
        if operation.to.endswith(".manifest"):
            self._named(operation.to, operation.inode)
        elif operation.to == dump_path(self.recording.directives_at(operation.seq)):
            pid = int(operation.path.rpartition("temp-")[2].partition(".")[0])
            fork = self.recording.forks.get(pid, -1)
            self.renamed.append((operation.seq, done if fork < 0 else fork))

    def _named(self, path: str, inode: int) -> None:
        """A manifest has its name; it counts when the name is durable."""
        folder = path.rpartition("/")[0]
        try:
            parts = parse(self._texts.get(inode, b"")).parts
        except Unreadable:
            return
        self._parts = {self._inodes.get(f"{folder}/{part.name}", 0) for part in parts}
        self._live |= self._parts
        if parts[-1].kind == "i":
            self._folder, self._candidate = folder, self._inodes.get(f"{folder}/{parts[-1].name}", 0)

    def has_dropped(self, point: Point, profile: str) -> bool:
        """Whether an fsync of a file has failed that the manifest names, so that the kernel has dropped bytes for good.

        It is over with a manifest that names other files.
        """
        return bool(self._doubt.at(point.seq)) and profile not in KILLS

    def betrayal(self, point: Point, profile: str) -> int:
        """What the disk has done to files that a start goes by. A lie takes nothing from the page cache."""
        done = self._betrayed.at(point.seq)
        return 0 if profile in KILLS and done < ROTTEN else done

    def _betrayal(self, disk: Disk) -> int:
        mine = [node for node in within_reach(disk.inodes, False) if node.is_betrayed and (
            node.number in self._live or not any(part in node.path for part in (".incr.", ".base.", "temp-")))]
        return max((ROTTEN if node.rotten else LIED_AT_END if node.number == self._current else LIED for node in mine),
                   default=0)


def promise(ledger: Ledger, point: Point, profile: str) -> Promise:
    """What the mode in force owes at this point. `profile` "process": the page cache survives."""
    recording, seq = ledger.recording, point.seq
    if seq < recording.ready_seq:
        return Promise("I7", 0, frozenset({0}))
    mode = recording.mode_at(seq)
    if not mode.appendonly:
        return _snapshots(ledger, point, profile)
    if recording.ended is not None and recording.ended <= seq:
        return Promise("I2", point.done)
    waited = max((units for at, units in recording.waited if at <= seq), default=0)
    if mode.policy == "always":
        if recording.directives_at(seq).get("no-appendfsync-on-rewrite") == "yes" and profile not in KILLS:
            return Promise("I1", max(waited, min(point.told, ledger.durable.at(seq))))
        return Promise("I3" if profile in KILLS else "I1", point.told)
    if profile in KILLS:
        return Promise("I3", _handed_over(ledger, point))
    if waited:
        return Promise("I1", max(waited, ledger.durable.at(seq)))
    if mode.policy == "everysec":
        return Promise("I2", max(ledger.durable.at(seq), _prompt(ledger, point)))
    return Promise("I9", ledger.durable.at(seq))


def _snapshots(ledger: Ledger, point: Point, profile: str) -> Promise:
    """A snapshot never takes the place of a newer one."""
    renamed = [units for seq, units in ledger.renamed if seq <= point.seq]
    done = max((units for seq, units in ledger.recording.saves if seq <= point.seq), default=0)
    if profile in KILLS:
        return Promise("I4", 0, frozenset([max([done, *renamed])]))
    return Promise("I4", 0, frozenset([done, *(units for units in renamed if units >= done)]))


def _handed_over(ledger: Ledger, point: Point) -> int:
    """Units that a process crash may not take: all that were told, but for those whose write had to wait or failed."""
    recording = ledger.recording
    written = ledger.written.at(point.seq)
    if recording.is_failing(point.seq):
        return min(point.told, written)
    since = recording.syncing_since(point.seq)
    if since is None:
        return point.told
    overdue = recording.done_until(point.time_us - PATIENCE_MS * 1000)
    return min(point.told, max(written, recording.done_before(since), overdue))


def _prompt(ledger: Ledger, point: Point) -> int:
    """Units that are older than a healthy disk needs. (That is no promise of Redis's; but who never syncs keeps I2.)"""
    recording = ledger.recording
    lazy = recording.directives_at(point.seq).get("no-appendfsync-on-rewrite") == "yes"
    if lazy or ledger.has_dropped(point, "ext4"):
        return 0
    until_us = point.time_us - PROMPT_MS * 1000 - 2 * recording.scenario.fsync_us
    if recording.mode_at(point.seq).since_us > until_us or not recording.was_healthy(until_us, point.time_us):
        return 0
    return min(recording.done_until(until_us), point.told)


def judge(ledger: Ledger, point: Point, profile: str, damage: str, outcome: Outcome,
          owed: Promise | None = None) -> Verdict:
    """What to say of what a start has made of the damage. `owed`: what must be left, where that is known already."""
    recording = ledger.recording
    owed = owed or promise(ledger, point, profile)
    dropped = ledger.has_dropped(point, profile) and owed.least <= ledger.doubtful
    betrayal = ledger.betrayal(point, profile)
    if outcome.crash:
        return Verdict(BROKEN, "I10", text="a traceback: " + outcome.crash.strip().splitlines()[-1])
    if outcome.touched:
        return Verdict(BROKEN, "I10", text=f"refused, and yet changed the disk: {outcome.touched[0]}")
    if outcome.strays:
        return Verdict(BROKEN, "I9", text=f"reads {outcome.strays[0]}, which nothing names")
    if outcome.state is None:
        directives = recording.directives_at(point.seq)
        strict = directives.get("aof-load-truncated") == "no" and directives["appendonly"] == "yes"
        if damage == "cut" and not dropped and not strict and betrayal < LIED:
            return Verdict(BROKEN, "I10", text=f"refused a clean cut: {outcome.refusal}")
        return Verdict(DROPPED if dropped and damage == "cut" else REFUSED, text=outcome.refusal)
    if owed.states is not None:
        unit = owed.states.get(outcome.state, -1)
        if unit < 0 and betrayal:
            return Verdict(CORRUPT if betrayal == ROTTEN else TAKEN)
        return _kept(recording, point, unit) if unit >= 0 else Verdict(
            BROKEN, owed.invariant, text="the state is none of those that are owed")
    found = [unit for unit in recording.index.get(outcome.state, ()) if unit <= point.done]
    if not found:
        if damage == "rot" or betrayal >= LIED or damage == "holes" and recording.mode_at(point.seq).appendonly:
            return Verdict(CORRUPT)
        if dropped:
            return Verdict(DROPPED)
        return Verdict(BROKEN, "I5", text="the state is that behind no unit")
    if owed.only is not None:
        found = [unit for unit in found if unit in owed.only]
    if not found or found[-1] < owed.least:
        unit = found[-1] if found else max(unit for unit in recording.index[outcome.state] if unit <= point.done)
        if damage == "rot" or dropped and recording.initial.dropped and owed.invariant != "I1":
            return Verdict(CORRUPT if damage == "rot" else DROPPED, unit=unit)
        if betrayal >= LIED or betrayal and unit >= ledger.durable.at(point.seq):
            return Verdict(TAKEN, unit=unit)
        wanted = f"unit {owed.least} or later" if owed.only is None else f"one of {sorted(owed.only)}"
        return Verdict(BROKEN, owed.invariant, unit, f"the state is that behind unit {unit}, owed is {wanted}")
    return _kept(recording, point, found[-1])


def _kept(recording: Recording, point: Point, unit: int) -> Verdict:
    """All promises are kept. What was acknowledged may be lost all the same."""
    return Verdict(LOSSY if any(number > unit for number in recording.acknowledged(point)) else WHOLE, unit=unit)
