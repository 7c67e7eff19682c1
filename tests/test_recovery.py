"""What chapter 10 shows of recovery: of cut logs, of flipped bits, and of copies that are taken while a server runs."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from kvref.persistence.cursor import Unreadable
from kvref.sim import World
from tests.journal import FOLDER, MANIFEST, state

Files = dict[str, bytes]                    # in the directory of the log
LOG = "appendonly.aof.1.incr.aof"


def files_of(world: World) -> Files:
    folder = f"/data/{FOLDER}"
    return {name: world.disk.content(f"{folder}/{name}") for name in world.disk.list(folder)}


def start_on(files: Files, **directives: str) -> tuple[World, Any]:
    """A fresh computer that has these files, and what a server there has; None: it refuses, and has changed nothing."""
    world = World(seed=1)
    disk = world.disk.instantly()
    disk.mkdir(f"/data/{FOLDER}")
    for name, data in files.items():
        disk.write(disk.open(f"/data/{FOLDER}/{name}", "w"), data)
    try:
        return world, state(world.start(appendonly="yes", **directives))
    except Unreadable as refusal:
        assert "\n" not in str(refusal) and files_of(world) == files
        return world, None


# ---- a log that is cut ---------------------------------------------------------------------------

def history(world: World) -> Iterator[tuple[int, Any]]:
    """Units of every kind; behind each, the size of the log and the state."""
    server = world.start(appendonly="yes", databases="4")
    alice, bob = world.connect("alice"), world.connect("bob")
    yield server.aof.size, state(server)
    bob.send("BLPOP", "queue", 0)
    for line in ("SET ann 50", "MULTI\nINCRBY ann 10\nSET bob 40\nEXEC", "SELECT 2", "SADD set a b c", "SPOP set",
                 "RPUSH queue x y", "SET session x PX 100", "", "MULTI\nDEL set\nSELECT 0\nSET ann 0\nEXEC",
                 "INCRBYFLOAT f 1.5"):
        for command in line.splitlines():
            alice.send(*command.split())
        world.run(ms=10 if line else 200)               # in the end the session expires
        yield server.aof.size, state(server)


def test_wherever_the_last_file_is_cut_whole_units_come_back_all_up_to_some_point() -> None:
    world = World(seed=1)
    units = list(history(world))
    files = files_of(world)
    assert [size for size, _ in units] == sorted(size for size, _ in units) and units[-1][0] == len(files[LOG])
    for size in range(len(files[LOG]) + 1):
        world, found = start_on(files | {LOG: files[LOG][:size]})
        assert found == [state for end, state in units if end <= size][-1], size
        strictly = start_on(files | {LOG: files[LOG][:size]}, aof_load_truncated="no")[1]
        assert strictly in ((found,) if size in dict(units) else (found, None))         # SELECT is a whole record, too
        world.connect()("SET", "more", "1")                     # nothing torn is left that could swallow what comes
        assert start_on(files_of(world), aof_load_truncated="no")[1] == found | {(0, b"more"): ("b'1'", None)}


# ---- a log with flipped bits ---------------------------------------------------------------------

WORDS = [b"name", b"Ann", b"code", b"4711", b"user:1", b"age", b"city", b"Bonn"]


@pytest.fixture(scope="module")
def keys() -> Files:
    world = World(seed=1)
    world.start(appendonly="yes")
    alice = world.connect("alice")
    for line in ("SET name Ann", "SET code 4711", "HSET user:1 age 30 city Bonn"):
        alice(*line.split())
    return files_of(world)


@pytest.mark.parametrize("truncated", ["yes", "no"])
def test_a_log_has_no_checksum_so_keys_and_values_flip_in_silence_and_little_else(truncated: str, keys: Files) -> None:
    log, right = keys[LOG], start_on(keys)[1]
    places = [(log.index(b"\r\n" + word + b"\r\n") + 2, len(word)) for word in WORDS]
    inside = {at for start, size in places for at in range(start, start + size)}
    fates: Counter[str] = Counter()
    for at, bit in itertools.product(range(len(log)), range(8)):
        flipped = log[:at] + bytes([log[at] ^ 1 << bit]) + log[at + 1:]
        world, found = start_on(keys | {LOG: flipped}, aof_load_truncated=truncated)
        after = files_of(world)[LOG]
        fate = "refused" if found is None else "cut" if len(after) < len(log) else "other" if found != right else "same"
        fates[fate] += 1
        if at in inside:
            assert fate == "other", (at, bit)
        elif fate == "same":
            assert flipped.upper() == log.upper(), "a command in small letters"
        elif fate == "cut":
            assert truncated == "yes" and log[:at].rpartition(b"\r\n")[2][:1] in (b"$", b"*"), "in a length"
    assert fates["refused"] > fates["other"] >= 8 * len(inside) and (fates["cut"] > 0) == (truncated == "yes")
    assert fates["other"] < 8 * (len(inside) + 5), "30, and the number of the database"


def test_a_flipped_length_takes_all_behind_it() -> None:
    """As in redis-server: it looks like a torn end."""
    world = World(seed=1)
    world.start(appendonly="yes")
    alice = world.connect("alice")
    for number in range(5):
        alice("SET", f"key:{number}", str(number) * 100)
    files = files_of(world)
    for number in range(5):
        at = files[LOG].index(b"$100", files[LOG].index(b"key:%d" % number))
        flipped = files | {LOG: files[LOG][:at] + b"$900" + files[LOG][at + 4:]}
        assert start_on(flipped)[1].keys() == {(0, b"key:%d" % before) for before in range(number)}
        assert start_on(flipped, aof_load_truncated="no")[1] is None


# ---- a copy --------------------------------------------------------------------------------------

def copy(rewriting: bool, order: tuple[int, ...], delay_ms: int) -> tuple[int, int | None, int]:
    """Copy file by file, with writes in between: the visits before, those that a start on the copy has, and after."""
    world = World(seed=1, child_step_us=2_000)
    world.start(appendonly="yes", auto_aof_rewrite_percentage="0")
    alice = world.connect("alice")
    for _ in range(40):
        alice("INCR", "visits")
    alice("BGREWRITEAOF")
    world.run(ms=delay_ms)
    if not rewriting:
        while world.server and world.server.children:
            world.run(ms=100)
    before, files, names = int(alice("GET", "visits")), {}, sorted(files_of(world))
    for name in [names[place] for place in order if place < len(names)] + names[len(order):]:
        if name in files_of(world):                         # else it has gone meanwhile
            files[name] = files_of(world)[name]
        alice("MULTI")
        alice("INCR", "visits")
        alice("INCR", "visits")
        alice("EXEC")
        world.run(ms=20)
    copied, found = start_on(files)
    there = None if found is None else int(copied.connect()("GET", "visits") or 0)
    return before, there, int(alice("GET", "visits"))


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_copy_of_the_directory_is_good_if_no_rewrite_runs_meanwhile(order: tuple[int, ...]) -> None:
    """Whatever file comes first: they only grow at the end of the last one."""
    for delay_ms in (0, 7, 300):
        before, found, after = copy(False, order, delay_ms)
        assert found is not None and before <= found <= after and found % 2 == 0


def test_a_copy_that_is_taken_while_a_rewrite_runs_may_be_of_no_use() -> None:
    """It is the reason for the test above, and what an operator has to know."""
    results = [copy(True, (0, 1, 2), delay_ms) for delay_ms in range(0, 200, 20)]
    bad = [found is None or found < before for before, found, _ in results]
    assert any(bad) and not all(bad)
