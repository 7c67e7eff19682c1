"""What a crash has left is given to redis-server as well, in a copy of its own: it finds what kvref does or refuses it.

Images of several scenarios are drawn from a seed, more of the damaged than of the clean ones, and both servers start on
them at the same instant of the wall clock: now. In the simulated world it was the first of January 2026. So the
deadlines of the scenarios are long over for both; a scenario of its own has some that are not.
"""

from __future__ import annotations

import random
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from kvref.sim.clock import Clock
from kvref.sim.crashes import Image, Space
from kvref.sim.disk import Disk
from kvref.sim.recording import Outcome, Recording, State, recover
from kvref.sim.scenarios import SCENARIOS, Scenario, at
from tests import record

redis = pytest.importorskip("redis")

FAR_MS = 32_503_680_000_000           # 1 January 3000
FAR = Scenario("far-deadlines", {"save": "", "appendonly": "yes", "appendfsync": "everysec"},
               at(40, "ann", f"SET a 1 PXAT {FAR_MS}", "SET b 1 PX 300", "HSET h f 1", f"PEXPIREAT h {FAR_MS}")
               + at(300, "bob", "BGREWRITEAOF") + at(700, "ann", "PERSIST a", "SET b 2", f"PEXPIREAT b {FAR_MS + 1}")
               + at(1500, "ann", "RENAME h i", f"GETEX a PXAT {FAR_MS + 2}", "SET b 3 KEEPTTL"))
BIG = Scenario("big-values", FAR.directives, at(40, "ann", *(f"SET big:{n} {chr(97 + n) * 1500}" for n in range(8)))
               + at(700, "ann", *(f"APPEND big:{n} {chr(107 + n) * 900}" for n in range(8))))
CHOSEN = (*(SCENARIOS[name] for name in (
    "always-transactions", "everysec-rewrite", "everysec-expiry", "everysec-text-base", "everysec-databases",
    "no-switch-on", "everysec-blocking", "everysec", "rdb", "rdb-commands")), FAR, BIG)
PROFILES = ("ext4", "torn", "posix", "reorder")
EACH = {"cut": 7, "zeros": 6, "holes": 12}       # images of each scenario, of each damage
TRIES = 60                                      # points and states that are looked at for one profile of a scenario
AT_ONCE = 4                                     # servers


class Found(NamedTuple):
    """What a server is started on."""

    scenario: str
    profile: str
    damage: str
    image: Image
    directives: Mapping[str, str]


def drawn(scenario: Scenario, seed: int = 0, each: Mapping[str, int] = EACH, tries: int = TRIES) -> list[Found]:
    """Different images that power losses of this scenario may leave."""
    dice = random.Random(f"{scenario.name} {seed}")
    recording, found = Recording(scenario), dict[Any, Found]()
    for profile in PROFILES:
        for point in dice.choices(recording.points, k=tries):
            space = Space(recording.disk_at(point.at), profile, 64)
            image, damage = space[dice.randrange(len(space))][:2]
            directives = recording.directives_at(point.seq)
            found[image, directives["appendonly"]] = Found(scenario.name, profile, damage, image, directives)
    images = list(found.values())
    dice.shuffle(images)
    return [image for damage, count in each.items()
            for image in [image for image in images if image.damage == damage][:count]]


# ---- two judges ----------------------------------------------------------------------------------

def by_kvref(found: Found, wall_us: int) -> Outcome:
    return recover(Disk.of(found.image, Clock()), found.directives, wall_us)


def by_redis(found: Found) -> Outcome:
    """Start redis-server on a copy: what it shows, or the last lines of its log."""
    with tempfile.TemporaryDirectory(prefix="kvref-", ignore_cleanup_errors=True) as folder:
        for path, content in found.image:
            place = Path(folder + path)
            place.mkdir() if content is None else place.write_bytes(content)
        options = {**found.directives, "dir": f"{folder}/data", "port": "0", "unixsocket": f"{folder}/socket"}
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        with open(f"{folder}/log", "wb") as log:
            process = subprocess.Popen(["redis-server", *words], cwd=folder, stdin=subprocess.DEVNULL,
                                       stdout=log, stderr=log)
        try:
            while process.poll() is None:
                if b"eady to accept connections" in Path(f"{folder}/log").read_bytes():
                    return Outcome(shown(f"{folder}/socket"))
                time.sleep(0.005)
            said = Path(f"{folder}/log").read_text(errors="replace").strip().splitlines()
            return Outcome(None, "\n".join(said[-1:]), crash="" if process.returncode == 1 else "\n".join(said[-40:]))
        finally:
            process.kill()
            process.wait()


def shown(socket: str) -> State:
    """Every key with its value and deadline, as the simulator freezes them."""
    return frozenset(entries(socket))


def entries(socket: str) -> Iterator[tuple[int, bytes, Any, int | None]]:
    with redis.Redis(unix_socket_path=socket) as client:
        numbers = [int(name.removeprefix("db")) for name in client.info("keyspace")]
    for number in numbers:
        with redis.Redis(unix_socket_path=socket, db=number) as client:
            for key in client.keys("*"):
                deadline = client.pexpiretime(key)
                yield number, key, value(client, key), None if deadline < 0 else deadline


def value(client: Any, key: bytes) -> Any:
    match client.type(key):
        case b"string":
            return client.get(key)
        case b"list":
            return "list", *client.lrange(key, 0, -1)
        case b"hash":
            return "hash", frozenset(client.hgetall(key).items())
        case b"set":
            return "set", frozenset(client.smembers(key))
        case b"zset":
            return "zset", frozenset(client.zrange(key, 0, -1, withscores=True))
    raise AssertionError(f"a key of type {client.type(key)}")


# ---- the comparison ------------------------------------------------------------------------------

# Where kvref refuses and redis-server starts: kvref's sentence, and the words of the README's table that tell of it.
MENDED = {
    "behind an argument of": "the two bytes behind each argument",
    "and a number, and there is": "the end of each line with a number",
}


def difference(found: Found, ours: Outcome, theirs: Outcome) -> str:
    """What is not as it should be: nobody crashes, both show the same or refuse, or it is a row of the README."""
    told = f"{found[:3]}: kvref {ours.refusal or ours.crash or ours.state!r}; redis {theirs.refusal or theirs.state!r}"
    if ours.crash or theirs.crash or ours.touched:
        return told + theirs.crash
    is_mended = ours.state is None and theirs.state is not None and any(sentence in ours.refusal for sentence in MENDED)
    return "" if ours.state == theirs.state or is_mended and found.damage != "cut" else told


@cache
def sample() -> tuple[list[Found], list[Outcome]]:
    """The images, and what kvref makes of them."""
    images = [found for scenario in CHOSEN for found in drawn(scenario)]
    wall_us = time.time_ns() // 1000
    return images, [by_kvref(found, wall_us) for found in images]


def all_by_redis(images: list[Found]) -> list[Outcome]:
    if not record.installed("redis-server"):
        pytest.skip("redis-server 7.0 is not installed")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(by_redis, images))


def test_redis_finds_after_a_power_loss_what_kvref_finds() -> None:
    images, ours = sample()
    theirs = all_by_redis(images)
    assert [told for each in zip(images, ours, theirs) if (told := difference(*each))] == []


def test_redis_starts_on_what_kvref_has_mended() -> None:
    """A start cuts a torn log, removes what no manifest names, begins a log: the content is the same for Redis, too."""
    left, ours = list[Found](), list[Outcome]()
    for found, outcome in zip(*sample()):
        disk = Disk.of(found.image, Clock())
        recover(disk, found.directives, time.time_ns() // 1000)
        if outcome.state is not None and disk.image() != found.image:
            left.append(found._replace(image=disk.image(), damage="cut"))
            ours.append(outcome)
    assert len(left) > 20
    assert [told for each in zip(left, ours, all_by_redis(left)) if (told := difference(*each))] == []


def test_the_sample_holds_what_there_is_to_judge() -> None:
    images, ours = sample()
    assert {found.damage for found in images} == set(EACH) and {found.profile for found in images} == set(PROFILES)
    assert len(images) > 100 and sum(outcome.state is None for outcome in ours) > 20
    assert {found.directives["appendonly"] for found in images} == {"yes", "no"}
    shown = [entry for outcome in ours for entry in outcome.state or ()]
    assert {deadline for *_, deadline in shown} > {None, FAR_MS, FAR_MS + 1}
    assert {number for number, *_ in shown} > {0, 1} and len({type(value) for _, _, value, _ in shown}) == 2


@pytest.mark.parametrize(("sentence", "log", "left"), [
    ("behind an argument of", b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\0\0", {(0, b"k", b"v", None)}),
    ("and a number, and there is", b"*2\r" + bytes(300), set()),             # Redis reads up to 1,023 bytes as a line
], ids=["behind an argument", "behind a number"])
def test_what_kvref_refuses_and_redis_does_not_stands_in_the_readme(sentence: str, log: bytes, left: State) -> None:
    folder = "/data/appendonlydir"
    manifest = b"file appendonly.aof.1.incr.aof seq 1 type i\n"
    image = (("/data", None), (folder, None), (f"{folder}/appendonly.aof.1.incr.aof", log),
             (f"{folder}/appendonly.aof.manifest", manifest))
    found = Found("by hand", "", "zeros", image, FAR.directives)
    ours, (theirs,) = by_kvref(found, time.time_ns() // 1000), all_by_redis([found])
    assert ours.state is None and sentence in ours.refusal and theirs.state == left
    assert MENDED[sentence] in (Path(__file__).parent.parent / "README.md").read_text()
