"""Eviction: which keys go when the memory that `maxmemory` grants is used up.

Before a client's requests, and after each that has changed something, what is used is compared with the limit
(`make_room`). The policy says among which keys one looks, and which of them is the worst:

    noeviction         nobody goes: commands that may need memory (`denyoom`) are refused
    allkeys-lru        the longest unused              volatile-...: the same among keys that have a deadline
    allkeys-lfu        the least often used            volatile-ttl: whose deadline is nearest
    allkeys-random     any

To find the worst of a million keys one would have to keep them in order, at each access. Redis does not: it draws a
few keys (`maxmemory-samples`), and keeps the worst that it ever saw in a *pool* of sixteen; the worst of these goes.

Interface:
  - Eviction.make_room()     evict until there is room, or the time for it is up; sets `out_of_memory`
  - Eviction.follow()        the policy or the limit has changed
  - Tracking                 the Call that notes each use of a key: there only under an LRU or LFU policy
  - frequency, idle_ms       what OBJECT FREQ and IDLETIME answer
  - uses, restore            the same for dumps

What is noted of a key, in `Database.access`: under LRU the instant of its last use; under LFU a counter of eight bits
and the minute in which it was last looked at. The counter is *logarithmic*: the more it shows, the less likely is a use
to raise it, so that 255 stands for some 300,000 uses; and each `lfu-decay-time` minutes take one away.

Redis: evict.c (performEvictions, evictionPoolPopulate, LFULogIncr, LFUDecrAndReturn). Simpler here: the clock of LRU
runs in milliseconds and never around (Redis: 24 bits of seconds in each object). For Redis a COPY or MOVE that is
refused has used the key that was in its way, and a BLMOVE its keys once more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from kvref.command_table import Call
from kvref.database import Database

if TYPE_CHECKING:
    from kvref.server import Server

POOL_SIZE: Final = 16
LOOK_AT_CLOCK: Final = 16           # evictions between two looks at the clock
LFU_START: Final = 5                # of a new key: it is to have a chance
LFU_MAX: Final = 255
IDLE_MAX_S: Final = 2**24 - 1       # a dump may say anything; Redis's clock knows no more
MINUTE_US: Final = 60_000_000


class Tracking(Call):
    """A call that notes which keys are used. `Server.call` is one while the policy needs it."""

    __slots__ = ()

    def read(self, key: bytes, kind: type | None = None) -> Any:
        self._use(key)
        return Call.read(self, key, kind)

    def lookup(self, key: bytes, kind: type | None = None) -> Any:
        self._use(key)
        return Call.lookup(self, key, kind)

    def put(self, key: bytes, value: Any, event: str) -> None:
        self._use(key)
        Call.put(self, key, value, event)

    def peek(self, key: bytes) -> Any:
        return Call.read(self, key)

    def _use(self, key: bytes) -> None:
        """Also where the value is of another kind than the command wants; but not while a child saves: to note it would
        copy memory that both share."""
        if not self.server.children and self.db.find(key, self.now_ms) is not None:
            self.server.eviction.used(self.db, key)


class Eviction:
    """Keeps the memory of one server below its limit."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.limit = 0                                  # bytes; 0: none
        self.over = False                               # more is used than that, as far as one knows
        self.out_of_memory = False                      # ... and nothing can be done about it
        self.over_since_us: int | None = None           # None: it is not
        self.kind = ""                                  # of the policy: "lru" and "lfu" need to know the use of keys
        self.pool: list[tuple[int, int, bytes]] = []    # (how bad, index of the database, key), the worst last
        self._next_db = 0
        self._timer: int | None = None                  # room is still to be made
        server.config.on_change("maxmemory", self._limit_changed)
        server.config.on_change("maxmemory-policy", self.follow)

    # ---- directives

    def follow(self) -> None:
        """maxmemory or its policy are what they are now. Redis: updateMaxmemory."""
        server, config = self.server, self.server.config
        kind = next((kind for kind in ("lru", "lfu") if kind in config.maxmemory_policy), "")
        anew = kind != self.kind or bool(config.maxmemory) != bool(self.limit)
        if kind != self.kind:
            self.kind = kind
            server.call.__class__ = Tracking if kind else Call      # whoever holds it goes on with the same object
            for database in server.databases:
                database.access = dict.fromkeys(database.values, self._fresh()) if kind else None
        self.pool.clear()
        if self.tell in server.on_change:
            server.on_change.remove(self.tell)
        if kind or config.maxmemory:
            server.on_change.append(self.tell)
        self.limit = config.maxmemory
        if anew:
            server.memory.count_anew()
        self.over, self.out_of_memory = server.memory.used() > self.limit > 0, False

    def _limit_changed(self) -> None:
        """CONFIG SET maxmemory."""
        self.follow()
        if self.over:
            self.server.log("#", f"WARNING: the new maxmemory value set via CONFIG SET ({self.limit}) is smaller than "
                                 f"the current memory usage ({self.server.memory.used()}). This will result in key "
                                 "eviction and/or the inability to accept new write commands depending on the "
                                 "maxmemory-policy.")
            self._go_on_later()

    def tell(self, database: Database, key: bytes, event: str) -> None:
        """A key is new, or has changed, or has gone."""
        access, memory = database.access, self.server.memory
        if access is not None:
            if event == "new" or event == "set" and self.kind == "lru":
                access[key] = self._fresh()
            elif key not in database.values:
                access.pop(key, None)
        if self.limit and event != "new" and not self.server.loading:
            memory.total += database.ledger.note(database, key, self.server.call.args)      # type: ignore[union-attr]
            self.over = memory.total + memory.buffers > self.limit

    # ---- uses

    def used(self, database: Database, key: bytes) -> None:
        """Somebody has read or written it. Redis: lookupKey, updateLFU."""
        assert database.access is not None
        if self.kind == "lru":
            database.access[key] = self._now_ms()
            return
        counter = self.frequency(database, key)
        if counter < LFU_MAX:
            chance = 1 / (max(0, counter - LFU_START) * self.server.config.lfu_log_factor + 1)
            counter += self.server.random.random() < chance
        database.access[key] = self._minute() << 8 | counter

    def frequency(self, database: Database, key: bytes) -> int:
        """The counter as it is now, decayed. Redis: LFUDecrAndReturn."""
        assert database.access is not None
        minute, counter = divmod(database.access[key], 256)
        period = self.server.config.lfu_decay_time
        return max(0, counter - (self._minute() - minute) // period) if period else counter

    def idle_ms(self, database: Database, key: bytes) -> int:
        """Since its last use; 0 where nobody notes it."""
        return self._now_ms() - database.access[key] if database.access is not None else 0

    @property
    def uses(self) -> Callable[[Database, bytes], tuple[str, int]] | None:
        """What a dump is to say of the use of keys: idle for so many seconds, or the counter. None: nothing."""
        return {"lru": lambda database, key: ("idle", self.idle_ms(database, key) // 1000),
                "lfu": lambda database, key: ("frequency", self.frequency(database, key))}.get(self.kind)

    def restore(self, database: Database, key: bytes, idle_s: int | None = None,
                frequency: int | None = None) -> None:
        """A key has come from a dump, which may say how it was used. Redis: objectSetLRUOrLFU."""
        if database.access is not None:
            database.access[key] = (self._now_ms() - min(idle_s or 0, IDLE_MAX_S) * 1000 if self.kind == "lru" else
                                    self._minute() << 8 | (LFU_START if frequency is None else frequency))

    def _now_ms(self) -> int:
        return self.server.now_us // 1000

    def _minute(self) -> int:
        return self.server.now_us // MINUTE_US

    def _fresh(self) -> int:
        """What is noted of a new key."""
        return self._now_ms() if self.kind == "lru" else self._minute() << 8 | LFU_START

    # ---- room

    def make_room(self) -> bool:
        """Evict until no more is used than may be; False: the time is up, and a timer goes on.

        Redis: performEvictions.
        """
        server = self.server
        self.out_of_memory = False
        self.over = server.memory.used() > self.limit > 0
        done = not self.over or bool(server.loading) or self._evict_some()
        if self.over == (self.over_since_us is None):
            server.stats.total_eviction_exceeded_us += self.over_us()
            self.over_since_us = server.clock.monotonic_us() if self.over else None
        return done

    def over_us(self) -> int:
        """For how long more has been used than may be."""
        return 0 if self.over_since_us is None else self.server.clock.monotonic_us() - self.over_since_us

    def _evict_some(self) -> bool:
        server, count = self.server, 0
        end_us = server.clock.monotonic_us() + time_limit_us(server.config.maxmemory_eviction_tenacity)
        while self.over:
            place = None if server.config.maxmemory_policy == "noeviction" else self._worst()
            if place is None:
                self.out_of_memory = True
                return True
            self._evict(*place)
            count += 1
            if count % LOOK_AT_CLOCK == 0 and server.clock.monotonic_us() > end_us:
                self._go_on_later()
                return False
        return True

    def cron(self) -> None:
        """The buffers of clients count, too."""
        if self.limit:
            self.server.memory.look_at_clients()

    def _go_on_later(self) -> None:
        if self._timer is None:
            self._timer = self.server.loop.add_timer(0, self._go_on)

    def _go_on(self) -> int | None:
        if not self.make_room():
            return 0
        self._timer = None
        return None

    def _evict(self, database: Database, key: bytes) -> None:
        """Redis: propagateDeletion; the log hears of it as DEL."""
        server = self.server
        database.delete(key)
        server.stats.evicted_keys += 1
        server.feed(database, (b"DEL", key))
        server.tell_change(database, key, "evicted")
        server.close_unit()

    def _worst(self) -> tuple[Database, bytes] | None:
        """A key to evict; None: the policy has none left."""
        which, _, by = self.server.config.maxmemory_policy.partition("-")
        volatile = which == "volatile"
        if by == "random":
            return self._any(volatile)
        while any(database.deadlines if volatile else database.values for database in self.server.databases):
            self._fill_pool(volatile, by)
            while self.pool:
                _, index, key = self.pool.pop()
                database = self.server.databases[index]
                if key in (database.deadlines if volatile else database.values):
                    return database, key            # not one that has gone since it was drawn
        return None

    def _any(self, volatile: bool) -> tuple[Database, bytes] | None:
        """From the databases in turn."""
        databases = self.server.databases
        for _ in databases:
            self._next_db = (self._next_db + 1) % len(databases)
            database = databases[self._next_db]
            key = (database.volatile if volatile else database.keys).pick(self.server.random)
            if key is not None:
                return database, key
        return None

    def _fill_pool(self, volatile: bool, by: str) -> None:
        """Draw keys of each database; the worst stay. Redis: evictionPoolPopulate."""
        badness = self._BADNESS[by]
        known = {(index, key) for _, index, key in self.pool}
        for database in self.server.databases:
            drawn = (database.volatile if volatile else database.keys).sample(
                self.server.random, self.server.config.maxmemory_samples)
            self.server.clock.work(len(drawn))
            self.pool += [(badness(self, database, key), database.index, key) for key in drawn
                          if (database.index, key) not in known]
        self.pool.sort(key=lambda entry: entry[0])
        del self.pool[:-POOL_SIZE]

    _BADNESS: Final[dict[str, Callable[[Eviction, Database, bytes], int]]] = {
        "lru": idle_ms,
        "lfu": lambda self, database, key: LFU_MAX - self.frequency(database, key),
        "ttl": lambda self, database, key: -database.deadlines[key],
    }


def time_limit_us(tenacity: int) -> int:
    """How long one may evict at a time, in microseconds. Redis: evictionTimeLimitUs."""
    if tenacity <= 10:
        return 50 * tenacity
    return int(500 * 1.15 ** (tenacity - 10)) if tenacity < 100 else 2**62
