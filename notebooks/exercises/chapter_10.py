"""Chapter 10, recovery: the judges of its exercises."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

from kvref.lab.judging import Wrong, exercise
from kvref.persistence import load
from kvref.persistence.cursor import Unreadable
from kvref.persistence.replay import record, records
from kvref.sim import World
from kvref.sim.errors import ReplyError

FOLDER = "appendonlydir"
MANIFEST, LOG, LOG2 = (f"{FOLDER}/appendonly.aof.{name}" for name in ("manifest", "1.incr.aof", "2.incr.aof"))
Files = dict[str, bytes]
State = list[tuple[int, bytes, str, int | None]]        # database, key, value, deadline


def files_of(world: World) -> Files:
    there = world.disk.list("/data")
    names = [name for name in there if name != FOLDER]
    names += [f"{FOLDER}/{name}" for name in world.disk.list(f"/data/{FOLDER}")] if FOLDER in there else []
    return {name: world.disk.content(f"/data/{name}") for name in names}


def computer(files: Files) -> World:
    world = World(seed=1)
    disk = world.disk.instantly()
    disk.mkdir(f"/data/{FOLDER}")
    for name, data in files.items():
        disk.write(disk.open(f"/data/{name}", "w"), data)
    return world


def state(world: World) -> State:
    """All keys of all databases."""
    assert world.server
    return sorted((database.index, key, repr(value), database.deadlines.get(key))
                  for database in world.server.databases for key, value in database.values.items())


def say(world: World, *commands: str) -> None:
    alice = world.connect("alice")
    for command in commands:
        alice(*command.split())


def logged(*commands: str) -> Files:
    """The files after these commands and a kill."""
    world = World(seed=1)
    world.start(appendonly="yes")
    say(world, *commands)
    world.kill()
    return files_of(world)


def next_file(world: World) -> World:
    """Begin one more incremental file: a rewrite that is killed before it is done."""
    say(world, "BGREWRITEAOF")
    world.kill()
    world.start(appendonly="yes")
    return world


def two_files(*commands: str) -> Files:
    world = next_file(computer_with(logged("SET from log")))
    say(world, *commands)
    world.kill()
    return files_of(world)


def computer_with(files: Files) -> World:
    world = computer(files)
    world.start(appendonly="yes")
    return world


# ---- 1 -------------------------------------------------------------------------------------------

def directories() -> dict[str, Files]:
    world = World(seed=1)
    world.start()
    say(world, "SET from dump", "SAVE")
    dump = files_of(world)
    log = logged("SET from log")
    two = two_files()
    return {"A": dump, "B": two, "C": log | {LOG: log[LOG] + b"#TS:17"}, "D": two | {LOG: two[LOG][:-3]},
            "E": log | {"dump.rdb": dump["dump.rdb"][:40], f"{FOLDER}/appendonly.aof.9.incr.aof": b"rubbish"}}


def served(files: Files) -> str:
    world = computer(files)
    try:
        world.start(appendonly="yes")
    except Unreadable:
        return "refuses"
    found = world.connect()("GET", "from")
    return found.decode() if found else "nothing"


@exercise("10-1", "With appendonly yes the dump is never read, and a file that the manifest does not name does not exist.",
          "What ends in the midst of something is torn. In the last file that is forgiven, and a line without its end is torn too.",
          "Two are log for a plain reason, one after a little has been cut off; one is refused, and one server knows of no log at all.")
def five_directories(solution: Any) -> None:
    """Against: a start reads whatever data there is."""
    letters = "ABCDE"
    if solution is None or isinstance(solution, dict) and not any(solution.get(letter) for letter in letters):
        raise NotImplementedError
    if not isinstance(solution, dict) or set(solution) != set(letters):
        raise Wrong("The answers are a dict: a word for each of the letters A to E.")
    right = {letter: served(files) for letter, files in directories().items()}
    words = ("dump", "log", "nothing", "refuses")
    for letter in letters:
        if solution[letter] is not None and solution[letter] not in words:
            raise Wrong(f"{letter}: {solution[letter]!r} is none of {', '.join(words)}.")
    good = [letter for letter in letters if solution[letter] == right[letter]]
    if len(good) < len(letters):
        wrong = next(letter for letter in letters if letter not in good)
        raise Wrong(f"{len(good)} of 5 are right. A server was started on each; the first on which it did something else is {wrong}.")


# ---- 2 -------------------------------------------------------------------------------------------

def units() -> list[bytes]:
    """The pieces of a log that are whole or not at all."""
    def transaction(*commands: bytes) -> bytes:
        return records([[b"MULTI"], *([*command.split()] for command in commands), [b"EXEC"]])
    return [record([b"SELECT", b"0"]), record([b"SET", b"course", b"redis"]), b"#TS:1700000000\r\n",
            transaction(b"INCR a", b"INCR b"), record([b"SET", b"photo", b"\xff\xd8\r\n*1\r\n$4\r\nEXEC\r\n"]),
            transaction(b"SET MULTI EXEC"), record([b"SET", b"poem", b"#one\r\ntwo\n"]), transaction(b"SET x y"), b"#TS:1700000001\r\n"]


@exercise("10-2", "Walk with next_record, and remember where the last unit ended: that is not always where the last record ended.",
          "next_record gives an int where more bytes are wanted: the end. Of a whole record it gives its words and its size; words is [] for an annotation.",
          "Keep `inside`, which is True from MULTI to EXEC. After each record add its size to `at`; if you are not inside, good = at.")
def good_until(solution: Any) -> None:
    """Against: a whole record is a whole unit."""
    pieces = units()
    whole, ends = b"".join(pieces), [0]
    for piece in pieces:
        ends.append(ends[-1] + len(piece))
    for length in (len(whole), 0, *range(1, len(whole))):
        data = whole[:length]
        wants = max(end for end in ends if end <= length)
        found = solution(data)
        if found != wants or isinstance(found, bool):
            raise Wrong(f"A log of {length} bytes ends in ...{data[-40:]!r}. You keep {found!r} of them. It should be {wants}.")


# ---- 3 -------------------------------------------------------------------------------------------

def accident(*parts: tuple[str, ...]) -> tuple[Files, State]:
    """The files after these commands, with a new incremental file between the parts, and the state at the word BANG; PAUSE: time passes."""
    world = World(seed=1)
    world.start(appendonly="yes")
    before: State = []
    for number, part in enumerate(parts):
        if number:
            next_file(world)
        alice = world.connect("alice")
        for command in part:
            if command == "BANG":
                before = state(world)
            elif command == "PAUSE":
                world.run(ms=300)
            else:
                alice(*(word.replace("~", "\r\n") for word in command.split(" ")))
    world.kill()
    return files_of(world), before


ACCIDENTS: dict[str, tuple[tuple[str, ...], ...]] = {
    "in the last file": (("SET ann 50", "RPUSH jobs a b", "BANG", "FLUSHALL", "SET bob 7"),),
    "in the first of two files": (("SET ann 50", "BANG", "FLUSHALL", "SET bob 7"), ("SET cem 8",)),
    "in the second of three files": (("SET ann 50",), ("SET bob 7", "BANG", "FLUSHALL"), ("SET ann 51", "FLUSHALL")),
    "in a transaction": (("SET ann 50", "BANG", "MULTI", "SET bob 7", "FLUSHALL", "SET cem 8", "EXEC", "SET dan 9"),),
    "in small letters, with the word ASYNC": (("SET ann 50", "BANG", "MULTI", "SET bob 1", "flushall ASYNC", "EXEC"),),
    "behind a value that looks like one": (("SET trap ~*1~$8~FLUSHALL~", "SET FLUSHALL x", "BANG", "FLUSHALL"),),
    "in database 3": (("SET ann 50", "SELECT 3", "SET ann 3", "BANG", "FLUSHALL ASYNC", "SELECT 0", "SET bob 7"),),
    "and the base is not empty": (("SET ann 50", "BGREWRITEAOF", "PAUSE"), ("SET bob 7", "BANG", "FLUSHALL", "SET ann 1"))}


@exercise("10-3", "Read the manifest for the order of the files (its lines are: file NAME seq NUMBER type b or i), and walk through each incremental one with next_record.",
          "The first record whose first word is FLUSHALL, in any letters: cut its file there, or at the MULTI before it. What comes later must not be read: leave those lines "
          "out of the manifest.",
          "As in exercise 2, remember `good`, where the last unit ended; at FLUSHALL the file becomes data[:good]. A new dict: dict(files); an empty last file is fine.")
def before_the_accident(solution: Any) -> None:
    """Against: what FLUSHALL has deleted is gone."""
    for what, parts in ACCIDENTS.items():
        files, before = accident(*parts)
        given = dict(files)
        mended = solution(given)
        if given != files:
            raise Wrong("You changed the dict that you were given. Return a new one: dict(files).")
        if not isinstance(mended, dict) or not all(isinstance(name, str) and isinstance(data, bytes) for name, data in mended.items()):
            raise Wrong(f"You returned {str(mended)[:60]}. It should be a dict of names and bytes.")
        if any(name not in files for name in mended):
            raise Wrong("There is a file that was not there before. None is needed.")
        world = computer(mended)
        try:
            world.start(appendonly="yes", aof_load_truncated="no")
        except Unreadable as refusal:
            raise Wrong(f"FLUSHALL {what}: the server refuses your files. {refusal}") from None
        found = state(world)
        if found != before:
            short = [[(number, key, value) for number, key, value, _ in rows] for rows in (found, before)]
            raise Wrong(f"FLUSHALL {what}: the server has {short[0]}. Right before, there was {short[1]}.")


# ---- 4 -------------------------------------------------------------------------------------------

TURNS: tuple[tuple[str, ...], ...] = (
    ("SET ann 50",), ("MULTI", "INCRBY ann 10", "SET bob 40", "EXEC"), ("RPUSH jobs a b",), ("SET trap #CRC:~*1~",), ("DEL jobs", "SELECT 2", "SET ann 3"))


def written(world: World) -> Iterator[tuple[int, State]]:
    """Say TURNS, several commands in one turn: the size of the log and the state after each."""
    alice = world.connect("alice")
    for turn in TURNS:
        for command in turn:
            alice.send(*(word.replace("~", "\r\n") for word in command.split(" ")))
        world.settle()
        yield len(world.disk.content(f"/data/{LOG}")), state(world)


def started(files: Files, what: str) -> World:
    world = computer(files)
    try:
        world.start(appendonly="yes")
    except Unreadable as refusal:
        raise Wrong(f"{what}, and the server refuses to start: {refusal}") from None
    return world


def same(world: World, wants: State, what: str) -> None:
    found = state(world)
    if found != wants:
        raise Wrong(f"{what}. The server has {len(found)} keys: {[row[:3] for row in found]}. It should have {[row[:3] for row in wants]}.")


@exercise("10-4", "A line in FRONT of what a turn writes: how many bytes follow, and their crc64. A line behind them cannot tell a cut from a wrong length.",
          "The length in that line may be flipped too: then a damage looks torn. So the line needs a checksum of itself, and always the same size. Fewer bytes left than a line has: "
          "torn. A line that is not right: raise Unreadable. A right line, and fewer bytes than it promises: torn.",
          "_encode: left, self.unwritten = self.unwritten, b''; data = super()._encode(); return left + (line + data if data else b''). file: if offset < size, read all the rest with "
          "self.server.disk.read, find `good`, the end of the last whole piece, and return super().file(file, data[:good - offset], good and so on): offset stays, size is good.")
def checked(solution: Any) -> None:
    """Against: a checksum belongs behind what it covers."""
    if not isinstance(solution, tuple) or len(solution) != 2 or not all(isinstance(part, type) for part in solution):
        raise Wrong("There should be two classes: (CheckedFile, CheckedReplay).")
    plain_file, plain_replay = patch("kvref.server.AppendOnlyFile", solution[0]), patch("kvref.persistence.load.Replay", solution[1])
    with plain_file, plain_replay:
        world = World(seed=1)
        world.start(appendonly="yes")
        empty = len(world.disk.content(f"/data/{LOG}")), state(world)
        steps = [empty, *written(world)]
        world.kill()
        files = files_of(world)
        if len({size for size, _ in steps}) < len(steps):
            raise Wrong("After a write the log was not longer than before.")
        same(started(files, "An undamaged log"), steps[-1][1], "An undamaged log")
    same(started(files, "An unchanged kvref reads the file"), steps[-1][1], "An unchanged kvref reads the file")
    with plain_file, plain_replay:
        _full_disk()
        _cut(files, steps)
        _flipped(files)


def _full_disk() -> None:
    """The disk takes a part, then nothing, then all; what was written before and behind must be there."""
    world = World(seed=1)
    world.start(appendonly="yes", appendfsync="no")
    say(world, "SET ann 50")
    disk, write = world.disk, world.disk.write
    room = [5]

    def stingy(file: Any, data: bytes) -> int:
        if "aof" not in file.path:
            return write(file, data)
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken, room[0] = data[:room[0]], 0
        return write(file, taken)
    with patch.object(disk, "write", stingy):
        say(world, "SET bob 40")
        try:
            say(world, "SET nobody 1")
        except ReplyError:
            pass
        world.run(ms=2_500)
    world.run(ms=2_500)
    say(world, "SET cem 7")
    wants = state(world)
    world.kill()
    same(started(files_of(world), "The disk was full for a while"), wants, "The disk was full for a while")


def _cut(files: Files, steps: list[tuple[int, State]]) -> None:
    whole = files[LOG]
    for length in range(len(whole) + 1):
        what = f"The log was cut to {length} of {len(whole)} bytes"
        world = started(files | {LOG: whole[:length]}, what)
        complete = max((number for number, (size, _) in enumerate(steps) if size <= length), default=0)
        found = state(world)
        if found not in [rows for _, rows in steps[complete:complete + 2]] and found not in _inside(steps):
            same(world, steps[complete][1], f"{what}; {complete} turns are whole")
        if length % 7 == 0:                             # and it goes on with that file
            say(world, "SET after it")
            wants = state(world)
            world.kill()
            again = "The server went on, and was killed"
            same(started(files_of(world), f"{what}. {again}"), wants, f"{what}. {again}")


def _inside(steps: list[tuple[int, State]]) -> list[State]:
    """States within the last turn, which has three units."""
    without_jobs = [row for row in steps[-2][1] if row[1] != b"jobs"]
    return [without_jobs]


def _flipped(files: Files) -> None:
    world = World(seed=1)
    server = world.start()
    disk = world.disk.instantly()

    def loaded(data: bytes) -> State:
        disk.write(disk.open("/data/log", "w"), data)
        for database in server.databases:
            database.clear()
        load.log(server, ["/data/log"], serving=False)
        return state(world)
    right = loaded(files[LOG])
    silent: list[tuple[int, int]] = []
    for offset in range(len(files[LOG])):
        for bit in range(8):
            flipped = bytearray(files[LOG])
            flipped[offset] ^= 1 << bit
            try:
                if loaded(bytes(flipped)) != right:
                    silent.append((offset, bit))
            except Unreadable:
                pass
    if silent:
        offset, bit = silent[0]
        around = files[LOG][max(0, offset - 12):offset + 12]
        raise Wrong(f"{len(silent)} of {8 * len(files[LOG]):,} flips give other data without a refusal. The first: bit {bit} of byte {offset}, in the middle of {around!r}.")


