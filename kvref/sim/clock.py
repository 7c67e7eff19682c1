"""Virtual time: two clocks that move only when somebody moves them.

A real clock runs by itself, a simulated one is pushed: by `sleep`, by the price of a command (`tick`, `work`), or by
a `poll` that has nothing to do and jumps to the next thing that will happen. So an hour passes
in less than a second, and two runs see the same times to the microsecond.

Interface:
  - time_us, monotonic_us, sleep, tick, work   the Clock port
  - jump(ms)                             somebody corrects the wall clock; timers do not notice
  - at(us, action), next_event_us        what else is going to happen in this computer: bytes on the wire,
                                         the next step of a child, the end of an fsync
  - advance_to(us)                       let time pass; what falls due happens on the way, in order
  - Cost                                 what a command costs

Invariant: an action scheduled with `at` never moves the clock itself.

Simpler than a real computer: the server's own instructions between two commands take no time at all.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import NamedTuple

NEW_YEAR_US = 1_767_225_600_000_000     # 2026-01-01T00:00:00Z: every world begins here


class Cost(NamedTuple):
    """What a command costs, in nanoseconds: so much for itself, so much for each element it touches."""

    command_ns: int = 10_000
    element_ns: int = 10


class Clock:
    """The Clock port, and the queue of everything that is going to happen."""

    def __init__(self, cost: Cost = Cost(), wall_us: int = NEW_YEAR_US) -> None:
        self.cost = cost
        self._ns = 0                    # since this computer was switched on; nanoseconds, so that 10 ns add up
        self._wall_us = wall_us         # the wall clock at that moment, as corrected since
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def time_us(self) -> int:
        return self._wall_us + self.monotonic_us()

    def monotonic_us(self) -> int:
        return self._ns // 1000

    def sleep(self, us: int) -> None:
        self._advance(self._ns + us * 1000)

    def tick(self) -> int:
        self._advance(self._ns + self.cost.command_ns)
        return self._ns

    def work(self, elements: int) -> None:
        self._advance(self._ns + elements * self.cost.element_ns)

    def jump(self, ms: int) -> None:
        """Set the wall clock forward, or back if `ms` is negative."""
        self._wall_us += ms * 1000

    def at(self, us: int, action: Callable[[], None]) -> None:
        """Do this when `monotonic_us()` reaches `us`; of two at one instant, the one asked for first."""
        heapq.heappush(self._events, (us, next(self._order), action))

    def after(self, us: int, action: Callable[[], None]) -> None:
        """Do this `us` from now."""
        self.at(self.monotonic_us() + us, action)

    def next_event_us(self) -> int | None:
        """When the next scheduled action is due; None: nothing is going to happen by itself."""
        return self._events[0][0] if self._events else None

    def advance_to(self, us: int) -> None:
        """Let time pass until `us`, which may be now: then only what is due happens."""
        self._advance(us * 1000)

    def forget_events(self) -> None:
        """A crash: what was going to happen will not."""
        self._events.clear()

    def _advance(self, ns: int) -> None:
        while self._events and self._events[0][0] * 1000 <= ns:
            us, _, action = heapq.heappop(self._events)
            self._ns = max(self._ns, us * 1000)
            action()
        self._ns = max(self._ns, ns)

    def __repr__(self) -> str:
        return f"<Clock {self.monotonic_us() / 1e6:.6f} s after switching on, {len(self._events)} events to come>"
