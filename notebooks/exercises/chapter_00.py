"""Chapter 00: virtual time, a pipeline, a durable file, and a first append-only file."""

from __future__ import annotations

from typing import Any

from kvref.lab.judging import Wrong, exercise
from kvref.sim import World

KEYS = 40_001


@exercise("00-1", "Carol waits until Bob is done. How long does KEYS take?",
          "A command costs 10 µs, and 10 ns more for each key that it goes through.",
          "Alice's INCR takes 10 µs. Then Bob: 10 µs, and 40,001 times 10 ns.")
def carol(begins_us: Any) -> None:
    """Against: a short command is quick, whoever else is there."""
    if begins_us is None:
        raise NotImplementedError
    exact = 10 + 10 + KEYS * 10 / 1000
    if abs(float(begins_us) - exact) > 1:
        raise Wrong(f"At {begins_us} µs {'Bob is still busy' if float(begins_us) < exact else 'she has long begun'}.")


@exercise("00-2", "One call waits for its reply: half a millisecond there, half a millisecond back. A hundred times.",
          "alice.send(...) sends and does not wait.",
          "Send 99 of them with alice.send, and make the last one a call: its reply comes behind all the others.")
def hundred_visits(solution: Any) -> None:
    """Against: a hundred requests cost a hundred round trips."""
    world = World(seed=1, latency_us=500)
    server = world.start()
    alice = world.connect("alice")
    alice("PING")
    before_us, ran = world.clock.monotonic_us(), server.stats.total_commands_processed
    reply = solution(alice)
    took_ms = (world.clock.monotonic_us() - before_us) / 1000
    if reply != 100:
        raise Wrong(f"The last reply is 100, not {reply!r}.")
    if took_ms >= 3:
        raise Wrong(f"It took {took_ms:.1f} ms.")
    if (ran := server.stats.total_commands_processed - ran) < 100 or alice("GET", "visits") != b"100":
        raise Wrong(f"The server ran {ran} commands. It should be INCR visits, 100 times.")


@exercise("00-3", "Two calls make a new file durable: one for its bytes, one for its name.",
          "disk.open(path, \"w\"), disk.write, disk.fsync of the file; then disk.fsync_dir of the directory.",
          "The directory is what stands before the last / of the path: path.rpartition(\"/\")[0].")
def keep(solution: Any) -> None:
    """Against: fsync of a file is all that is needed."""
    for path, data in (("/data/note", b"remember me"), ("/data/other", b"x" * 10_000)):
        world = World(seed=1)
        world.start()
        solution(world.disk, path, data)
        world.power_loss("synced")
        if path.rpartition("/")[2] not in world.disk.list("/data"):
            raise Wrong(f"After the power loss there is no file {path}.")
        if world.disk.content(path) != data:
            raise Wrong(f"After the power loss {path} holds {len(world.disk.content(path))} bytes of {len(data)}.")


@exercise("00-4", "remember: open a file for appending, and append to server.feeds a function that writes and syncs.",
          "The words are bytes. kvref.resp.encode(list(words)) makes a request of them that alice.send_bytes can send "
          "as it is. Do not forget the name of the file.",
          "replay: read the whole file in pieces until b\"\", alice.send_bytes(all of it), world.settle(). The feed gets "
          "the number of the database too; with one database you can leave it out.")
def server_that_remembers(solution: Any) -> None:
    """Against: to write a file is to save it."""
    remember, replay = solution
    for keys in (200, 3, 2):                # each time the plug is pulled after another change
        world = World(seed=1)
        remember(world, world.start())
        alice = world.connect("alice")
        for number in range(keys):
            alice("SET", f"key:{number}", f"value {number}\r\n")
        alice("INCR", "visits")
        alice("DEL", "key:0")
        world.power_loss("synced")
        if not world.disk.list("/data"):
            raise Wrong("After the power loss there is no file in /data.")
        world.start()
        replay(world, world.connect("alice"))
        bob = world.connect("bob")
        if bob("DBSIZE") != keys:
            raise Wrong(f"After {keys + 2} acknowledged changes there were {keys} keys. {bob('DBSIZE')} are back.")
        last = bob("GET", f"key:{keys - 1}"), bob("GET", "visits"), bob("EXISTS", "key:0")
        if last != (b"value %d\r\n" % (keys - 1), b"1", 0):
            raise Wrong("The keys are back, but not all of their values.")
