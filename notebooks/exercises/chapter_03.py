"""Chapter 03: when replies leave, how long a loop may sleep, what a slow reader leaves over, and a polite client."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from kvref.eventloop import Event
from kvref.lab.judging import Wrong, exercise, expect
from kvref.sim import World


@exercise("03-1", "Look at the timeline of section 3. When does Alice's reply leave, and when Carol's?",
          "No reply leaves before the last command of the turn is done.",
          "So the instant is the same for all of them: the sum of all costs.")
def sent_at(solution: Any) -> None:
    """Against: a reply leaves when its command is done."""
    expect(solution, [("alice", 10), ("bob", 50), ("carol", 10)], wants={"alice": 70, "bob": 70, "carol": 70})
    expect(solution, [("alice", 10), ("alice", 10), ("bob", 1)], wants={"alice": 21, "bob": 21})
    expect(solution, [], wants={})


@exercise("03-2", "Without timers and without a limit, poll may sleep for ever: None.",
          "Otherwise it is the shorter of two times: until the first timer, and the limit.",
          "A timer that is late is due now: the time until it is 0, and never less.")
def patience(solution: Any) -> None:
    """Against: who waits for sockets cannot keep time."""
    for due, limit_us, wants in (([], None, None), ([], 50, 50), ([4_000, 2_500], None, 1_500), ([4_000, 2_500], 7, 7),
                                 ([2_500], 9_000, 1_500), ([400], None, 0), ([1_000, 400], 50, 0), ([2_500], 0, 0)):
        expect(solution, 1_000, due, limit_us, wants=wants)


@exercise("03-3", "Keep the bytes in a bytearray: append adds to its end, flush takes from its beginning.",
          "send says how many bytes it took. Only these may go; the others come first the next time.",
          "Set wants_write in flush, where you know whether anything is left. With nothing to send, do not call send.")
def outbox(solution: Any) -> None:
    """Against: send takes all that it is given."""
    box, given, wire, sends, left, room = solution(), b"", bytearray(), 0, False, 0

    def send(data: Any) -> int:
        nonlocal sends
        sends, taken = sends + 1, bytes(data)[:room]
        wire.extend(taken)
        return len(taken)

    for data, room in ((b"abc", 2), (b"defg", 0), (b"", 3), (b"hi", 9), (b"", 9), (b"j", 9)):
        box.append(data)
        if bool(box.wants_write) != left:
            raise Wrong(f"append({data!r}) has left wants_write at {box.wants_write!r}. It is for flush to set.")
        given, sends = given + data, 0
        waiting = given[len(wire):]
        box.flush(send)
        left = len(wire) < len(given)
        if sends != bool(waiting):
            raise Wrong(f"{waiting!r} was waiting. flush called send {sends} times. It should be {int(bool(waiting))}.")
        if not given.startswith(wire):
            raise Wrong(f"{given!r} was appended so far, {bytes(wire)!r} was sent. Bytes are lost or out of order.")
        if bool(box.wants_write) != left:
            raise Wrong(f"{waiting!r} was waiting, send took {room} at most, and wants_write is {box.wants_write!r}. "
                        f"It should be {left}.")


@exercise("03-4", "Keep the requests in a list of your own, made in __init__, after super().__init__(...). In each "
          "turn, give its first ten to self.server.execute(self, ten).",
          "How to be called in each turn? A timer with a delay of 0: self.server.loop.add_timer(0, self.go_on). It is "
          "due at the end of this turn already, so let only go_on run requests.",
          "One timer at a time, or it is twenty a turn: start it only where your list was empty. go_on runs the "
          "next ten; it returns 0 while any are left, and None when none are, or when self.closed.")
def polite(solution: Any) -> None:
    """Against: a pipeline of short commands holds nobody up."""
    with patch("kvref.server.Client", solution):
        world = World(seed=1)
        events: list[Event] = []
        world.start().loop.observe(events.append)
        alice, bob = world.connect("alice"), world.connect("bob")
        world.settle()
        for _ in range(2):
            alice.send_bytes(b"INCR visits\r\n" * 300)
            before_us = world.clock.monotonic_us()
            bob("PING")
            if (waited_us := world.clock.monotonic_us() - before_us) > 500:
                raise Wrong(f"Bob's PING took {waited_us:,} µs. It should be less than 500.")
        world.run(ms=1000)                  # who waits between two turns gets that time too
        if alice.replies != list(range(1, 601)):
            raise Wrong(f"Alice sent 600 INCR. She has {len(alice.replies)} replies: {alice.replies[:12]} ...")
        if (most := max(_commands_in_a_turn(events))) > 10:
            raise Wrong(f"In one turn you have run {most} of Alice's requests. It should be ten at most.")
        alice.send_bytes(b"INCR visits\r\n" * 300)
        world.step()
        alice.reset()                       # in the middle of her pipeline: the server must survive it
        bob("PING")


def _commands_in_a_turn(events: list[Event]) -> list[int]:
    """How many INCR each turn has run; a turn begins where the loop has slept."""
    turns = [0]
    for event in events:
        if event.kind == "sleep":
            turns.append(0)
        turns[-1] += event.kind == "command" and event.detail == "incr"
    return turns
