"""Active expiry: keys whose time is over and that nobody asks for are found by sampling.

A read deletes the expired key that it meets (*lazy* expiry, Database.find). A key that nobody reads would
stay for ever; so ten times a second, and briefly before each sleep, a cycle looks at a few keys with a
deadline, deletes the dead ones, and goes on in the same database while more than a tenth (at effort 1) of what it saw
was dead and its time is not up.

Interface:
  - ActiveExpiry.slow_cycle()    from server_cron: up to a quarter of the time between two crons
  - ActiveExpiry.fast_cycle()    before sleeping: at most 1 ms, and only if there seems to be work

Redis: activeExpireCycle in expire.c, with its constants and `active-expire-effort`. Simpler here: samples are drawn
at random, as Redis did until version 5; since then it walks along the buckets of its hash table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvref.database import Database

if TYPE_CHECKING:
    from kvref.server import Server

KEYS_PER_LOOP = 20          # keys looked at before the share of dead ones is weighed
FAST_US = 1000              # a fast cycle's time
SLOW_PERCENT = 25           # a slow cycle's share of the time
ACCEPTABLE_STALE = 10       # percent of dead keys that one lives with
LOOK_AT_CLOCK = 16          # loops between two looks at the clock
DATABASES_PER_CALL = 16


class ActiveExpiry:
    """The sampling cycle of one server."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.enabled = True                 # DEBUG SET-ACTIVE-EXPIRE
        self.stale_percent = 0.0            # running estimate: INFO expired_stale_perc
        self.time_cap_reached = 0           # INFO expired_time_cap_reached_count
        self._next_db = 0
        self._ran_out = False               # the last cycle ended because its time was up
        self._last_fast_us = -(10**9)
        self._sampled = self._expired = self._loops = 0

    @property
    def effort(self) -> int:
        """0 to 9, from the directive's 1 to 10."""
        return int(self.server.config.active_expire_effort) - 1

    @property
    def acceptable_stale(self) -> int:
        return ACCEPTABLE_STALE - self.effort

    def slow_cycle(self) -> None:
        percent = SLOW_PERCENT + 2 * self.effort
        self._cycle(max(1, percent * 1_000_000 // self.server.config.hz // 100))

    def fast_cycle(self) -> None:
        """Redis: ACTIVE_EXPIRE_CYCLE_FAST. Not again within twice its own duration."""
        if not self.stale_percent and not self._ran_out:
            return                          # the usual case, in one look
        if not self._ran_out and self.stale_percent < self.acceptable_stale:
            return
        duration_us = FAST_US + FAST_US // 4 * self.effort
        if self.server.now_us < self._last_fast_us + 2 * duration_us:
            return
        self._last_fast_us = self.server.now_us
        self._cycle(duration_us)

    def _cycle(self, limit_us: int) -> None:
        databases = self.server.databases
        if not self.enabled:
            return
        if not any(database.deadlines for database in databases):
            for database in databases:
                database.average_ttl_ms = 0
            self.stale_percent *= 0.95
            return
        count = len(databases) if self._ran_out else min(DATABASES_PER_CALL, len(databases))
        end_us = self.server.clock.monotonic_us() + limit_us
        self._ran_out = False
        self._sampled = self._expired = self._loops = 0
        for _ in range(count):
            if self._ran_out:
                break
            database = databases[self._next_db % len(databases)]
            self._next_db += 1
            self._clean(database, end_us)
        share = 100 * self._expired / self._sampled if self._sampled else 0.0
        self.stale_percent = share * 0.05 + self.stale_percent * 0.95

    def _clean(self, database: Database, end_us: int) -> None:
        """Loops over one database until few of its keys are dead or the time is up."""
        while True:
            if not database.deadlines:
                database.average_ttl_ms = 0
                return
            sampled, expired = self._loop(database)
            self._loops += 1
            if self._loops % LOOK_AT_CLOCK == 0 and self.server.clock.monotonic_us() >= end_us:
                self._ran_out = True
                self.time_cap_reached += 1
                return
            if sampled and 100 * expired <= self.acceptable_stale * sampled:
                return

    def _loop(self, database: Database) -> tuple[int, int]:
        """Look at some keys that have a deadline, delete the dead: (how many looked at, how many deleted)."""
        wanted = KEYS_PER_LOOP + KEYS_PER_LOOP // 4 * self.effort
        now_ms = self.server.now_ms
        keys = database.volatile.sample(self.server.random, wanted)
        lifetimes = [database.deadlines[key] - now_ms for key in keys]
        expired = [key for key, left_ms in zip(keys, lifetimes) if left_ms < 0]
        for key in expired:
            database.on_expired(database, key)
        _update_average(database, [left_ms for left_ms in lifetimes if left_ms > 0])
        self._sampled += len(keys)
        self._expired += len(expired)
        self.server.clock.work(len(keys))
        return len(keys), len(expired)


def _update_average(database: Database, lifetimes: list[int]) -> None:
    """A running mean in which one loop weighs a fiftieth."""
    if lifetimes:
        mean = sum(lifetimes) // len(lifetimes)
        old = database.average_ttl_ms
        database.average_ttl_ms = mean if not old else old // 50 * 49 + mean // 50
