"""What a server counts about itself: INFO's counters, rates, and the slow log.

Interface:
  - Stats        the counters that CONFIG RESETSTAT sets back
  - Rate, Rates  means over the last samples of counters: INFO instantaneous_*
  - SlowLog      the latest calls that took long: SLOWLOG

Redis: the stat_ fields and trackInstantaneousMetric in server.c; slowlog.c.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, fields

SAMPLES = 16                        # of a rate
SAMPLE_US = 100_000                 # between two of them
MAX_ARGS, MAX_BYTES = 32, 128       # what an entry of the slow log keeps of a request


@dataclass(slots=True)
class Stats:
    """Counters that CONFIG RESETSTAT sets back; INFO's names."""

    total_connections_received: int = 0
    total_commands_processed: int = 0
    total_net_input_bytes: int = 0
    total_net_output_bytes: int = 0
    rejected_connections: int = 0
    expired_keys: int = 0
    evicted_keys: int = 0
    total_eviction_exceeded_us: int = 0
    keyspace_hits: int = 0
    keyspace_misses: int = 0
    total_error_replies: int = 0
    client_output_buffer_limit_disconnections: int = 0
    total_forks: int = 0
    latest_fork_usec: int = 0
    errors: dict[str, int] = field(default_factory=dict)    # INFO errorstats

    def reset(self) -> None:
        """All back to nothing, in place: others hold on to this object."""
        for each, fresh in ((each.name, getattr(Stats(), each.name)) for each in fields(self)):
            setattr(self, each, fresh)


@dataclass(slots=True)
class SlowCall:
    """One entry of the slow log."""

    id: int
    time_s: int
    usec: int
    args: list[bytes]
    peer: str
    name: bytes


class Rate:
    """A mean over the last samples of a counter. Redis: trackInstantaneousMetric."""

    def __init__(self) -> None:
        self._samples: deque[float] = deque(maxlen=SAMPLES)
        self._last = 0
        self._last_us = 0

    def track(self, counter: int, now_us: int) -> None:
        if self._last_us and now_us > self._last_us:
            self._samples.append(max(0, counter - self._last) * 1e6 / (now_us - self._last_us))
        self._last, self._last_us = counter, now_us

    def per_second(self) -> float:
        return sum(self._samples) / len(self._samples) if self._samples else 0.0


class Rates:
    """Of commands, and of bytes in and out."""

    def __init__(self, now_us: int) -> None:
        self.commands, self.input, self.output = Rate(), Rate(), Rate()
        self._sampled_us = now_us

    def track(self, stats: Stats, now_us: int) -> None:
        """Take a sample, if the last one was long ago."""
        if now_us - self._sampled_us >= SAMPLE_US:
            self._sampled_us = now_us
            self.commands.track(stats.total_commands_processed, now_us)
            self.input.track(stats.total_net_input_bytes, now_us)
            self.output.track(stats.total_net_output_bytes, now_us)


class SlowLog(deque[SlowCall]):
    """Newest first."""

    next_id = 0

    def add(self, call: SlowCall, max_len: int) -> None:
        """Remember a call, its arguments shortened. Redis: slowlogPushEntryIfNeeded."""
        args = [_shortened(arg) for arg in call.args[:MAX_ARGS]]
        if len(call.args) > MAX_ARGS:
            args[-1] = b"... (%d more arguments)" % (len(call.args) - MAX_ARGS + 1)
        call.id, call.args = self.next_id, args
        self.next_id += 1
        self.appendleft(call)
        while len(self) > max_len:
            self.pop()


def _shortened(arg: bytes) -> bytes:
    more = len(arg) - MAX_BYTES
    return arg if more <= 0 else arg[:MAX_BYTES] + b"... (%d more bytes)" % more
