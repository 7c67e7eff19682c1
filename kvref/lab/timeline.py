"""What the event loop did, from its observers: a table, and a figure.

    events = []
    server.loop.observe(events.append)
    ...
    turn = Timeline(events, world.callers)
    turn.table()
    turn.draw("Three clients, one thread")

Interface:
  - Timeline(events, callers)  what the clients of a World had to do with
  - table()                    one row an event, with times in microseconds of virtual time
  - draw(claim)                a row of the figure for each client, time to the right
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kvref.eventloop import Event
from kvref.lab.figures import BLUE, GREEN, RED, figure
from kvref.lab.table import Table
from kvref.sim import Caller

SHAPES = {"read": ("v", BLUE, "request is read"), "write": ("^", RED, "reply is sent")}


class Timeline:
    """Only what belongs to a client is kept; the instant of the first of it is 0."""

    def __init__(self, events: Iterable[Event], callers: Iterable[Caller]) -> None:
        """Clients are named in the order in which they connected: client 1 is the first caller."""
        self.names = {number: caller.name for number, caller in enumerate(callers, 1)}
        self.events = [event for event in events if event.client in self.names]
        self.zero_us = 0
        self.zero_us = min((self._span(event)[0] for event in self.events), default=0)

    def table(self) -> Table:
        """from, to (µs), client, what."""
        return Table(("from µs", "to µs", "client", "what"),
                     [(*self._span(event), self.names[event.client], f"{event.kind} {event.detail}")
                      for event in self.events])

    def draw(self, claim: str) -> None:
        """The same as a figure, `claim` above it. Where matplotlib is missing: one sentence."""
        with figure(claim, "virtual time (µs)", "client", height=0.6 * len(self.names) + 1.6) as axes:
            axes.use_sticky_edges = False           # else what happens at 0 is cut in half by the edge
            self._draw_events(axes)
            axes.set_yticks(list(self.names), list(self.names.values()))
            axes.set_ylim(len(self.names) + 0.6, 0.4)
            axes.grid(axis="y", visible=False)
            axes.spines["left"].set_visible(False)
            axes.figure.legend(loc="outside right center")

    def _draw_events(self, axes: Any) -> None:
        commands = [event for event in self.events if event.kind == "command"]
        axes.barh([event.client for event in commands], [event.end_us - event.start_us for event in commands],
                  left=[event.start_us - self.zero_us for event in commands], height=0.45, color=GREEN,
                  edgecolor="white", label="command runs")
        for kind, (marker, colour, label) in SHAPES.items():
            events = [event for event in self.events if event.kind == kind]
            axes.scatter([self._span(event)[0] for event in events], [event.client for event in events],
                         marker=marker, s=90, color=colour, edgecolors="white", zorder=3, label=label)

    def _span(self, event: Event) -> tuple[int, int]:
        """From and to. Only a command takes time here; a read or a send is an instant, that of its end."""
        start_us = event.start_us if event.kind == "command" else event.end_us
        return start_us - self.zero_us, event.end_us - self.zero_us
