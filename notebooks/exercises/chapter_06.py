"""Chapter 06, snapshots and fork: what a crash would take, save points, the commit, and a server that keeps three dumps."""

from __future__ import annotations

import errno
import posixpath
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from kvref.config import ConfigError
from kvref.lab.judging import Wrong, exercise
from kvref.persistence import rdb
from kvref.persistence.cursor import Unreadable
from kvref.ports import Disk, File
from kvref.sim import World
from kvref.sim.disk import Disk as SimulatedDisk
from kvref.sim.errors import ReplyError

DUMP = "/data/dump.rdb"
ENDS = ("the process is killed", "the plug is pulled", "the plug is pulled (names were durable before anybody asked, bytes were not)")


def crashed(disk: SimulatedDisk) -> Iterator[tuple[str, SimulatedDisk]]:
    """The disk after each kind of crash, if it came now."""
    names_first = disk.copy()
    for node in list(names_first.inodes.values()):
        if node.is_directory:
            node.sync(node.last_change())
    names_first.power_loss("synced")
    return zip(ENDS, (disk, pulled(disk), names_first))


def pulled(disk: SimulatedDisk) -> SimulatedDisk:
    """The disk after a power loss, if it came now: all is gone that was not synced."""
    twin = disk.copy()
    twin.power_loss("synced")
    return twin


def visits(disk: SimulatedDisk, path: str = DUMP) -> int | None:
    """The value of the key `visits` in a dump; 0 where there is no key, None where there is no file. Unreadable."""
    if posixpath.basename(path) not in disk.list("/data"):
        return None
    return next((int(value) for _, key, value, _ in rdb.load(path, disk) if key == b"visits"), 0)


# ---- 1 -------------------------------------------------------------------------------------------

@exercise("06-1", "One field of the report counts the changes since the fork of the last snapshot that was done.",
          "A snapshot that is under way, or that failed, has saved nothing yet: no other field matters.",
          "Find the line that begins with rdb_changes_since_last_save: and return the number behind the colon, as an int.")
def lost_now(solution: Any) -> None:
    """Against: a snapshot that is under way has saved something."""
    world = World(seed=1, child_step_us=20_000)
    world.start()
    alice = world.connect("alice")

    def ask(when: str, wants: int) -> None:
        found = solution(alice("INFO", "persistence").decode())
        if found != wants:
            raise Wrong(f"{when}: your answer was {found!r}. It should be {wants}.")

    def count(times: int) -> None:
        for _ in range(times):
            alice("INCR", "visits")

    ask("Right after the start", 0)
    count(7)
    ask("After 7 changes", 7)
    alice("SAVE")
    count(12)
    ask("After SAVE and 12 changes", 12)
    alice("BGSAVE")
    count(5)
    ask("12 changes, BGSAVE, which still runs, and 5 more changes", 17)
    world.run(ms=1_000)
    ask("The same a second later, when the child is done", 5)
    alice("BGSAVE")
    world.processes.kill(*world.processes.children)
    world.run(ms=1_000)
    ask("5 changes, and a BGSAVE whose child was killed", 5)


# ---- 2 -------------------------------------------------------------------------------------------

def rate(save_points: str, per_second: int, seconds: int) -> tuple[int, list[int]]:
    """(worst loss at any instant, seconds at which a snapshot began) at this rate; a save takes 0.7 seconds."""
    world = World(seed=1, child_step_us=115_000)
    server, worst, begun = world.start(save=save_points), 0, list[int]()
    alice = world.connect("alice")
    for number in range(1, per_second * seconds + 1):
        told = alice("INCR", "visits")
        worst = max(worst, told - (visits(pulled(world.disk)) or 0))
        now_s = world.clock.monotonic_us() // 1_000_000
        world.run(ms=1000 * number / per_second - world.clock.monotonic_us() / 1000)
        begun += [now_s] * (server.snapshots.saves - len(begun))
    return worst, begun


@exercise("06-2", "You need two points: one that fires soon if there are many changes, and one for the night.",
          "Period plus duration: 300 writes are three seconds. By night 25 writes are 25 seconds, and a snapshot may begin every 20.",
          "\"1 <changes> 20 1\": the first point saves every two seconds, if there are so many changes as come only by day.")
def save_points(solution: Any) -> None:
    """Against: the period of a save point bounds the loss."""
    if solution is None:
        raise NotImplementedError
    if not isinstance(solution, str) or not solution.strip():
        raise Wrong('Save points are a text, such as "3600 1 300 100".')
    try:
        World(seed=1).start(save=solution)
    except ConfigError:
        raise Wrong(f"The server does not start with save {solution!r}. It wants pairs: seconds and changes.") from None
    by_day, _ = rate(solution, per_second=100, seconds=12)
    if by_day > 300:
        raise Wrong(f"By day a power loss can take {by_day} writes. It should be at most 300.")
    by_night, begun = rate(solution, per_second=1, seconds=120)
    most = max((sum(first <= second < first + 60 for second in begun) for first in begun), default=0)
    if most > 3:
        raise Wrong(f"By night there were {most} snapshots in one minute. It should be at most three.")
    if by_night > 25:
        raise Wrong(f"By night a power loss can take {by_night} writes. It should be at most 25.")


# ---- 3 -------------------------------------------------------------------------------------------

class Stingy:
    """A disk that takes at most 7 bytes at once, is full after `room` bytes, and fails in the call `broken`."""

    def __init__(self, disk: Disk, room: int = 1 << 20, broken: str = "") -> None:
        self._disk, self._room, self._broken = disk, room, broken
        self.opened: list[File] = []
        self.written = set[str]()                       # paths

    def open(self, path: str, mode: Any) -> File:
        self.opened.append(self._disk.open(path, mode))
        if mode != "r":
            self.written.add(path)
        return self.opened[-1]

    def write(self, file: File, data: bytes) -> int:
        if not self._room:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = self._disk.write(file, data[:min(7, self._room)])
        self._room -= taken
        return taken

    def left_open(self) -> bool:
        return not all(getattr(file, "closed", True) for file in self.opened)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name == self._broken:
            def fail(*arguments: Any) -> None:
                raise OSError(errno.EIO, "Input/output error")
            return fail
        return getattr(self._disk, name)                # type: ignore[no-any-return]


def content(disk: SimulatedDisk, path: str) -> bytes | None:
    return disk.content(path) if posixpath.basename(path) in disk.list(posixpath.dirname(path)) else None


OLD, NEW, LEFT = b"the old picture", b"a brand new picture, longer than the old one", b"left by somebody who was killed before it was done"


def prepared(folder: str, files: dict[str, bytes]) -> SimulatedDisk:
    """A disk with these files in a folder, all of it durable."""
    disk = World(seed=1).disk
    if folder != "/data":
        disk.mkdir(folder)
        disk.fsync_dir("/data")
    for path, data in files.items():
        file = disk.open(path, "w")
        disk.write(file, data)
        disk.fsync(file)
        disk.close(file)
    disk.fsync_dir(folder)
    return disk


@exercise("06-3", "Five calls in this order: open, write (again and again), fsync, rename, fsync of the directory. And close.",
          "write may take only a part: while data: data = data[disk.write(file, data):].",
          "open(temp, 'w'), the writes, fsync(file), close(file), rename(temp, path), fsync_dir of the directory of `path`: path.rpartition('/')[0].")
def replace(solution: Any) -> None:
    """Against: a rename is atomic, and so it is enough."""
    _replaces(solution, DUMP, {DUMP: OLD})
    _replaces(solution, DUMP, {})
    _replaces(solution, "/data/deep/dump.rdb", {"/data/deep/dump.rdb": OLD, "/data/deep/temp-1.rdb": LEFT})
    _fails(solution, "The disk was full after 20 bytes", room=20)
    for broken in ("fsync", "rename", "fsync_dir"):
        _fails(solution, f"{broken} failed", broken=broken)


def _replaces(solution: Any, path: str, files: dict[str, bytes]) -> None:
    """Crash it after each operation, and look at what it leaves."""
    temp, old = posixpath.dirname(path) + "/temp-1.rdb", files.get(path)
    disk, found = prepared(posixpath.dirname(path), files), list[tuple[str, str, bytes | None]]()
    disk.observers.append(lambda operation: found.extend(
        (repr(operation).partition(" ")[2], end, content(left, path)) for end, left in crashed(disk)))
    stingy = Stingy(disk)
    solution(stingy, path, temp, iter([NEW[:20], b"", NEW[20:]]))
    for operation, end, left in found:
        if left not in (old, NEW):
            raise Wrong(f"After {operation!r} {end}, and {path} is {left!r}: neither the old file nor the new one.")
    for end, twin in crashed(disk):
        if content(twin, path) != NEW:
            raise Wrong(f"After the return {end}, and {path} is {content(twin, path)!r}, not the new file.")
    if stingy.written != {temp}:
        raise Wrong(f"You wrote to {', '.join(sorted(stingy.written))}. It should be by way of {temp}, and nothing else.")
    if stingy.left_open():
        raise Wrong("All is well on the disk, but a file was left open.")


def _fails(solution: Any, what: str, **fault: Any) -> None:
    """An OSError comes through, the old file is still there, and none is left open."""
    disk = prepared("/data", {DUMP: OLD})
    stingy = Stingy(disk, **fault)
    try:
        solution(stingy, DUMP, "/data/temp-1.rdb", iter([NEW]))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EIO):
            raise
    else:
        raise Wrong(f"{what}, and your function returned as if all were well.")
    late = fault.get("broken") == "fsync_dir"           # the rename is done: it may be the new one
    for end, twin in crashed(disk):
        if content(twin, DUMP) not in (OLD, *[NEW] * late):
            raise Wrong(f"{what}. Then {end}, and {DUMP} is {content(twin, DUMP)!r}, not the old file.")
    if stingy.left_open():
        raise Wrong(f"{what}, and the file was left open. try ... finally closes it in any case.")


# ---- 4 -------------------------------------------------------------------------------------------

NAMES = (DUMP, "/data/dump.1.rdb", "/data/dump.2.rdb")


def kept(disk: SimulatedDisk, when: str) -> list[int | None]:
    """What the three dumps hold."""
    found = []
    for path in NAMES:
        try:
            found.append(visits(disk, path))
        except Unreadable as error:
            raise Wrong(f"{when}: {path} cannot be read: {error}.") from None
    return found


@contextmanager
def watched(world: World, newest: int) -> Iterator[None]:
    """While snapshot `newest` is taken, look at the disk after each operation, as after each kind of crash."""
    done = newest - 1

    def look(operation: object) -> None:
        for end, disk in crashed(world.disk):
            when = f"{end.capitalize()} after {repr(operation).partition(' ')[2]!r}, while snapshot {newest} is taken"
            found = kept(disk, when)
            if done and found[0] not in (done, newest):
                raise Wrong(f"{when}: dump.rdb holds snapshot {found[0]}. It should be {done} or {newest}.")
            for older in range(max(1, done - 1), done + 1):
                if older not in found:
                    raise Wrong(f"{when}: snapshot {older} was done, and is in none of the three files. They hold {found}.")
    complaints: list[Wrong] = []

    def note(operation: object) -> None:
        try:
            look(operation)
        except Wrong as wrong:                          # not here: it would be the server that dies of it
            complaints.append(wrong)
    world.disk.observers.append(note)
    yield
    world.disk.observers.remove(note)
    if complaints:
        raise complaints[0]


@exercise("06-4", "Make room first: one of the three names may change hands by a rename. Which one must never be missing, not even between two renames?",
          "dump.1.rdb becomes dump.2.rdb by a rename; dump.rdb is read and written again as dump.1.rdb, by a commit of its own; then "
          "super()._write(disk). And if the last try was broken off: dump.1.rdb may be that copy already. Then leave it where it is.",
          "self.server.path(name) is a path; self._temp(self.server.processes.pid) a temp that the next start deletes; disk.list(self.server.config.dir) says "
          "what is there; file = disk.open(path, 'r'), disk.read(file, disk.size(file)). Make room only if dump.1.rdb and dump.rdb do not hold the same bytes.")
def keeping(solution: Any) -> None:
    """Against: each step is safe, so a row of them is."""
    with patch("kvref.server.Snapshots", solution):
        world = World(seed=1, child_step_us=1000)
        world.start()
        for newest in range(1, 7):
            _take(world, newest, in_background=not newest % 2)
            for end, disk in crashed(world.disk):
                found = kept(disk, end.capitalize())
                wants = [number if number > 0 else None for number in range(newest, newest - 3, -1)]
                if found != wants:
                    raise Wrong(f"Snapshot {newest} is done, {end}: dump.rdb, dump.1.rdb and dump.2.rdb hold the snapshots {found}. "
                                f"It should be {wants}.")
        _full(world)
        for end, stop in zip(ENDS, (World.kill, World.power_loss)):
            for steps in range(1, 60):
                if _broken_off(end, stop, steps):
                    break


def _take(world: World, newest: int, in_background: bool) -> None:
    """Change something, and take the snapshot with this number."""
    alice = world.connect("alice")
    alice("INCR", "visits")
    failed = False
    with watched(world, newest):
        try:
            alice("BGSAVE" if in_background else "SAVE")
        except ReplyError:
            failed = True
        world.run(ms=1_000 if in_background else 0)
    assert world.server
    if failed or world.server.snapshots.failing:
        raise Wrong(f"Snapshot {newest} failed: {world.log[-1].partition('# ')[2]}")


def _full(world: World) -> None:
    """There are six snapshots, and the disk is full for once."""
    alice = world.connect("alice")
    alice("INCR", "visits")
    with watched(world, 7), patch.object(world.disk, "write", side_effect=OSError(errno.ENOSPC, "No space left on device")):
        try:
            alice("SAVE")
        except ReplyError:
            pass
        else:
            raise Wrong("The disk was full, and SAVE answered OK: an OSError must leave _write.")
    with watched(world, 7):
        alice("SAVE")


def _broken_off(end: str, stop: Callable[[World], None], steps: int) -> bool:
    """Crash after so many operations of a BGSAVE, start again, save again. True if the BGSAVE was over before."""
    world = World(seed=1, child_step_us=1000)
    world.start()
    alice = world.connect("alice")
    for _ in range(3):
        alice("INCR", "visits")
        alice("SAVE")
    alice("INCR", "visits")
    alice("BGSAVE")
    before = len(world.disk.operations)
    while world.processes.children and len(world.disk.operations) < before + steps:
        world.run(ms=0.5)
    over, last = not world.processes.children, repr(world.disk.operations[-1]).partition(" ")[2]
    stop(world)
    world.start()
    litter = set(world.disk.list("/data")) - set(map(posixpath.basename, NAMES))
    if litter:
        raise Wrong(f"The server was saving, and after {last!r} {end}. After the next start there is still {', '.join(sorted(litter))}.")
    try:
        newest = (visits(world.disk) or 0) + 1
        _take(world, newest, in_background=False)
        found = kept(world.disk, "After that")
        if found[:2] != [newest, newest - 1]:
            raise Wrong(f"Snapshot {newest} is done: dump.rdb and dump.1.rdb hold the snapshots {found[:2]}. It should be {[newest, newest - 1]}.")
    except Wrong as wrong:
        raise Wrong(f"The server was saving, and after {last!r} {end}. It starts again, and saves. {wrong}") from None
    return over
