"""The event loop: one thread, many connections.

One turn, for ever:

    before_sleep    what must be done before waiting: here the server sends its replies
    poll            wait, but not longer than until the next timer
    after_sleep     what must be known before working: the time
    file events     sockets that can be read or written
    time events     timers that are due

Interface:
  - watch(sock, handler, write), forget(sock)      file events
  - add_timer(delay_ms, callback), remove_timer    time events
  - step(limit_us)                                 one turn
  - run(), stop()                                  turns until somebody stops it
  - observe(callback)                              be told what happens: the course draws timelines from it

Redis: ae.c (aeProcessEvents, aeMain). Simpler here: no barriers and no fired-event array. A read is always served
before a write of the same socket, which Redis reverses on request.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from kvref.ports import READABLE, WRITABLE, Clock, Network, Socket

Callback = Callable[[], None]
TimerCallback = Callable[[], int | None]    # milliseconds until it wants to run again; None: never


class FileHandler(Protocol):
    """Who wants to know that a socket is ready."""

    def on_readable(self) -> None: ...

    def on_writable(self) -> None: ...


class Event(NamedTuple):
    """Something that the loop, or a client on it, did. Times are `monotonic_us`."""

    kind: str           # accept read command write timer sleep close
    start_us: int
    end_us: int
    client: int         # id; 0: no client
    detail: str         # for people: what was read, run or sent


class Timer:
    """Somebody wants to be called when `due_us` (monotonic) has come."""

    __slots__ = ("id", "due_us", "callback", "name")

    def __init__(self, id: int, due_us: int, callback: TimerCallback) -> None:
        self.id = id
        self.due_us = due_us
        self.callback = callback
        self.name = getattr(callback, "__name__", "timer")


def _nothing() -> None:
    pass


class EventLoop:
    """See the module. `before_sleep` and `after_sleep` belong to whoever builds on the loop."""

    def __init__(self, clock: Clock, network: Network) -> None:
        self.clock = clock
        self.network = network
        self.before_sleep: Callback = _nothing
        self.after_sleep: Callback = _nothing
        self.running = False
        self.observers: list[Callable[[Event], None]] = []
        self._handlers: dict[Socket, FileHandler] = {}
        self._timers: dict[int, Timer] = {}
        self._next_id = 1
        self._next_due_us: int | None = None        # of all timers

    def __repr__(self) -> str:
        return f"<EventLoop: {len(self._handlers)} sockets, {len(self._timers)} timers>"

    # ---- what to wait for

    def watch(self, sock: Socket, handler: FileHandler, write: bool = False) -> None:
        """Tell the handler when the socket is readable, and if `write` when it is writable."""
        self._handlers[sock] = handler
        self.network.watch(sock, True, write)

    def forget(self, sock: Socket) -> None:
        """No more events of this socket, not even those that this turn has already found."""
        if self._handlers.pop(sock, None):
            self.network.watch(sock, False, False)

    def add_timer(self, delay_ms: int, callback: TimerCallback) -> int:
        """Call back once the delay is over; the callback says when it wants the next call. Returns an id."""
        timer = Timer(self._next_id, self.clock.monotonic_us() + delay_ms * 1000, callback)
        self._next_id += 1
        self._timers[timer.id] = timer
        self._reckon()
        return timer.id

    def remove_timer(self, id: int) -> None:
        self._timers.pop(id, None)
        self._reckon()

    def next_timer_us(self) -> int | None:
        """The instant (monotonic) of the next timer."""
        return self._next_due_us

    def _reckon(self) -> None:
        self._next_due_us = min((timer.due_us for timer in self._timers.values()), default=None)

    # ---- one turn

    def step(self, limit_us: int | None = None) -> None:
        """One turn. Waits until something happens, a timer is due or `limit_us` are over."""
        self.before_sleep()
        ready = self._poll(limit_us)
        self.after_sleep()
        handlers = self._handlers
        for sock, mask in ready:
            if mask & READABLE and (handler := handlers.get(sock)):
                handler.on_readable()
            if mask & WRITABLE and (handler := handlers.get(sock)):
                handler.on_writable()
        self._run_timers()

    def _poll(self, limit_us: int | None) -> list[tuple[Socket, int]]:
        if self._next_due_us is not None:
            wait_us = max(0, self._next_due_us - self.clock.monotonic_us())
            limit_us = wait_us if limit_us is None else min(wait_us, limit_us)
        if not self.observers:
            return self.network.poll(limit_us)
        start_us = self.clock.monotonic_us()
        ready = self.network.poll(limit_us)
        self.emit("sleep", start_us, 0, f"{len(ready)} sockets ready")
        return ready

    def _run_timers(self) -> None:
        now_us = self.clock.monotonic_us()
        if self._next_due_us is None or now_us < self._next_due_us:
            return
        for timer in [timer for timer in self._timers.values() if timer.due_us <= now_us]:
            if timer.id not in self._timers:
                continue                                # an earlier one has removed it
            start_us = self.clock.monotonic_us()
            again_ms = timer.callback()
            if self.observers:
                self.emit("timer", start_us, 0, timer.name)
            if again_ms is None:
                self._timers.pop(timer.id, None)
            else:
                timer.due_us = self.clock.monotonic_us() + again_ms * 1000
        self._reckon()

    def run(self) -> None:
        """Turns until `stop`."""
        self.running = True
        while self.running:
            self.step()

    def stop(self) -> None:
        self.running = False

    # ---- for those who watch

    def observe(self, callback: Callable[[Event], None]) -> Callback:
        """Call back with every Event from now on; returns a function that ends it."""
        self.observers.append(callback)
        return lambda: self.observers.remove(callback)

    def emit(self, kind: str, start_us: int, client: int, detail: str) -> None:
        """Tell the observers. Callers look first whether there are any: describing an event costs time."""
        event = Event(kind, start_us, self.clock.monotonic_us(), client, detail)
        for observer in list(self.observers):
            observer(event)
