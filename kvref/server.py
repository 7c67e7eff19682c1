"""The server: what happens between a request and its reply.

    poll -> Client.on_readable -> RequestParser -> execute
         -> handler(Call) returns a value -> the reply is appended to the client's output
         -> propagate: the effect goes to those who keep a log
    before_sleep: expire a little -> send the replies -> free what is closed
    -> poll

**Every reply leaves in before_sleep.** The place of the log, once there is one, is right before: what a client
is told has then been written.

Interface:
  - Server(ports, config, random, log)   one server on one computer, real or simulated
  - start(listeners), run(), shutdown()  its life
  - execute(client, requests)            run a pipeline
  - feeds                                who wants to have every effect: the log

Redis: server.c (processCommand, call, propagateNow, beforeSleep, serverCron). Simpler here: what needs no check but
the number of its arguments is found in one lookup and run at once; everything else passes `admit` first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

import kvref.commands  # noqa: F401  (fills the command table)
from kvref.admission import admit
from kvref.blocking import Waiting
from kvref.client import Client, Limit
from kvref.command_table import Call, Command, Handler, rows, table
from kvref.database import Database
from kvref.doors import Doors
from kvref.eventloop import EventLoop
from kvref.evict import Eviction
from kvref.expire import ActiveExpiry
from kvref.memory import Memory
from kvref.notify import Notifications
from kvref.persistence import load
from kvref.persistence.aof import AppendOnlyFile
from kvref.persistence.snapshot import Snapshots
from kvref.ports import Disk, Ended, Ports, Socket
from kvref.pubsub import PubSub
from kvref.quoting import monitor_line
from kvref.resp import BLOCKED, HEADS, HEADS_MAX, NO_ARGS, OK, Error, Request, RequestParser, encode
from kvref.stats import Rates, SlowCall, SlowLog, Stats
from kvref.transactions import Watches

if TYPE_CHECKING:
    from kvref.config import Config

REFRESH_US = 1000                   # a cached wall clock is never older than this, and one command
NEVER_NS = 2**62
ANY_KEYS = {b"scan", b"randomkey"}  # they meet keys that have nothing to do with each other
EXACT_NS = 1_000_000                # a slow log that asks for less has each call timed by itself


class Server:
    """One Redis. Nothing here is global: two of them live side by side in one process."""

    def __init__(self, ports: Ports, config: Config, random: Random, log: Callable[[str, str], None],
                 commands: dict[bytes, Command] | None = None) -> None:
        """`log` is given a level (. - * #) and a line. `commands`: a table of one's own, with its counters."""
        self.ports: Ports = ports
        self.clock, self.network = ports.clock, ports.network
        self.disk, self.processes = ports.disk, ports.processes
        self.config: Config = config
        self.random: Random = random
        self.log = log                                          # (level ". - * #", text)
        self.loop = EventLoop(ports.clock, ports.network)
        self.loop.before_sleep = self.before_sleep
        self.loop.after_sleep = self.update_time
        self.run_id: str = f"{random.getrandbits(160):040x}"
        self.started_us: int = ports.clock.monotonic_us()
        self.now_us: int = 0                                    # monotonic, cached
        self.now_ms: int = 0                                    # wall clock, cached
        self._refresh_at_ns: int = 0
        self.update_time()
        self.commands: dict[bytes, Command] = commands or table()      # with counters
        self._plain = {name: row for name, row in self.commands.items() if row.is_plain}
        # Those who want to hear of changes: (database, key, event). Empty while nobody watches or waits.
        self.on_change: list[Callable[[Database, bytes, str], None]] = []
        self.databases: list[Database] = [Database(i, self.on_expired, self.on_change) for i in range(config.databases)]
        self.dirty: int = 0                                     # changes since the last save
        self.snapshots: Snapshots = Snapshots(self)
        self.aof: AppendOnlyFile = AppendOnlyFile(self)
        self.children: dict[int, Callable[[Ended], None]] = {}  # pid -> who is told of its end; one at most
        self.loading: load.Loading | None = None
        self.last_load: load.Loading | None = None
        self.on_loading: list[Callable[[load.Loading], None]] = []      # told of the progress
        self.expiry: ActiveExpiry = ActiveExpiry(self)
        # Those who get every effect: (index of the database, command). Never replaced, only changed in place.
        self.feeds: list[Callable[[int, Sequence[bytes]], None]] = []
        self.unit: list[tuple[int, Sequence[bytes]]] = []       # the effects of the call or EXEC at hand
        self.in_transaction: bool = False                       # an EXEC is running
        self.watches: Watches = Watches(self.on_change)
        self.waiting: Waiting = Waiting(self)
        self.pubsub: PubSub = PubSub()
        self.notifications: Notifications = Notifications(self)
        self.doors: Doors = Doors(self)
        self.clients: dict[int, Client] = {}
        self.monitors: list[Client] = []                        # never replaced either
        self.stats: Stats = Stats()
        self.call: Call = Call(self)                            # what the handlers see, one command after another
        self.limits: dict[str, Limit | None] = {}               # client-output-buffer-limit by class; None: no limit
        self.parser: RequestParser = self.new_parser()          # lent to every client that has nothing of its own
        self.to_flush: list[Client] = []
        self.to_close: list[Client] = []
        self._last_client_id: int = 0
        self._cron_ids: list[int] = []                          # clients that the cron has yet to look at
        self.slowlog: SlowLog = SlowLog()
        self._started_ns: int = 0                               # when the call or the run at hand began
        self._slow_ns: int = 0                                  # a call that took so long enters the slow log
        self.rates: Rates = Rates(self.now_us)
        self.memory: Memory = Memory(self)
        self.eviction: Eviction = Eviction(self)
        self.stopped, self.failure = False, ""                  # failure: why it had to end at once
        self.follow_config()

    def __repr__(self) -> str:
        keys = sum(map(len, self.databases))
        return f"<Server port {self.config.port}: keys {keys}, clients {len(self.clients)}>"

    # ---- its life

    def start(self, listeners: Sequence[Socket] = ()) -> None:
        """Listen on every `bind` address (or on the given sockets), load what is on the disk, start the timers.

        Raises OSError, with a sentence as its text, where an address cannot be had, and Unreadable for a file.
        """
        self.doors.open(listeners)
        self.log("*", f"Running mode=standalone, port={self.config.port}.")
        try:
            load.at_start(self)
        except load.Interrupted:
            self.shutdown(save=False)
            return
        self.loop.add_timer(1, self.server_cron)
        self.log("*", "Ready to accept connections")

    def hang_up(self, sock: Socket) -> None:
        self.loop.forget(sock)
        self.network.close(sock)

    def run(self) -> None:
        """Serve until `shutdown`."""
        if not self.stopped:
            self.loop.run()

    def shutdown(self, save: bool | None = None, force: bool = False) -> bool:
        """End: a last snapshot (`save` None: if there are save points), no more turns, every socket closed.

        False: it could not be saved, and so the server goes on, unless `force`. What is half loaded is never saved.
        Redis: prepareForShutdown.
        """
        if self.stopped:
            return True
        self.log("#", "User requested shutdown...")
        if self.snapshots.child is not None:
            self.log("#", "There is a child saving an .rdb. Killing it!")
            self.snapshots.cancel()
        if (reason := self.aof.unfinished) and not force:
            return self._stays(reason)
        self.aof.close()
        if self.failure:
            return True
        if (self.config.save if save is None else save) and not self.loading:
            self.log("*", "Saving the final RDB snapshot before exiting.")
            if not self.snapshots.save() and not force:
                return self._stays("Error trying to save the DB, can't exit.")
        self._end()
        self.log("#", "Redis is now ready to exit, bye bye...")
        return True

    def _stays(self, reason: str) -> bool:
        self.log("#", reason)
        self.log("#", "Errors trying to shut down the server. Check the logs for more information.")
        return False

    def abort(self, reason: str) -> None:
        """End at once, before anybody is told of what has not been saved."""
        self.log("#", reason)
        self.failure = self.failure or reason
        self._end()

    def _end(self) -> None:
        self.stopped = True
        self.doors.close()
        for client in self.clients.values():
            self.hang_up(client.sock)
        self.clients.clear()
        self.loop.stop()

    def obey(self, signal: str) -> None:
        """Somebody wants the process to end: `shutdown-on-sigterm`, `shutdown-on-sigint`."""
        self.log("#", f"Received {signal} scheduling shutdown...")
        words = self.config.get(f"shutdown-on-{signal.lower()}").split()
        save = True if "save" in words else False if "nosave" in words else None
        self.shutdown(save, "force" in words)

    def fork(self, work: Callable[[Disk], None], ended: Callable[[Ended], None]) -> int:
        """Have a child do `work`; `ended` is told when it is over. Its pid. OSError. Redis: redisFork."""
        start_us = self.clock.monotonic_us()
        pid = self.processes.fork(work)
        self.children[pid] = ended
        self.stats.latest_fork_usec = self.clock.monotonic_us() - start_us
        self.stats.total_forks += 1
        return pid

    def follow_config(self) -> None:
        """Keep what is derived from directives in step with CONFIG SET."""
        def slowlog() -> None:
            limit = self.config.slowlog_log_slower_than
            self._slow_ns = NEVER_NS if limit < 0 else limit * 1000

        def limits() -> None:
            given = self.config.client_output_buffer_limit
            self.limits = {kind: limit if any(limit) else None for kind, limit in given.items()}

        def max_bulk() -> None:
            for parser in (self.parser, *(client.parser for client in self.clients.values())):
                if parser:
                    parser.max_bulk = self.config.proto_max_bulk_len

        def events() -> None:
            self.notifications.follow(self.config.notify_keyspace_events)

        slowlog()
        limits()
        events()
        self.eviction.follow()
        self.config.on_change("notify-keyspace-events", events)
        self.config.on_change("proto-max-bulk-len", max_bulk)
        open_anew = self.doors.open_anew
        self.config.on_change("port", partial(open_anew, "Unable to listen on this port. Check server logs."))
        self.config.on_change("bind", partial(open_anew, "Failed to bind to specified addresses."))
        self.config.on_change("appendonly", self.aof.follow_config)
        self.config.on_change("dir", self.aof.follow_dir)
        self.config.on_change("slowlog-log-slower-than", slowlog)
        self.config.on_change("client-output-buffer-limit", limits)

    def path(self, name: str) -> str:
        """A file of this server: `name` in the directory `dir`."""
        return name if name.startswith("/") else f"{self.config.dir.rstrip('/')}/{name}"

    # ---- connections

    def new_parser(self) -> RequestParser:
        return RequestParser(self.config.proto_max_bulk_len)

    def welcome(self, sock: Socket) -> None:
        """A new connection."""
        self.stats.total_connections_received += 1
        self._last_client_id += 1
        client = self.clients[self._last_client_id] = Client(self, sock, self._last_client_id)
        self.loop.watch(sock, client)
        if self.loop.observers:
            self.loop.emit("accept", self.now_us, client.id, client.peer)

    def free(self, client: Client) -> None:
        """The end of a connection."""
        if self.clients.pop(client.id, None) is None:
            return
        if client.monitor:
            self.monitors.remove(client)
        self.leave(client)
        if self.loop.observers:
            self.loop.emit("close", self.clock.monotonic_us(), client.id, client.peer)
        self.hang_up(client.sock)

    def leave(self, client: Client) -> None:
        """A client that has gone watches, waits and listens no more."""
        self.watches.forget(client)
        self.waiting.forget(client)
        self.pubsub.forget(client)

    # ---- a request

    def execute(self, client: Client, requests: Iterable[Request]) -> None:
        """Run requests of one client in order. Redis: processCommand and call().

        The hot path. A plain command with the right number of words costs one lookup and one call; each reply
        is encoded before the next command runs. A run of the same quick command is accounted for as a whole,
        unless somebody wants to know of each call; see `account`.
        """
        call = self.call
        call.client, call.db, call.now_ms = client, client.db, self.now_ms
        append = client.outbox().append
        plain, singly = self._stance(client)
        command, name, words, run = None, b"", 0, 0             # the command at hand, and how often in a row
        size, dirty, alone, special = 0, self.dirty, False, False
        self._started_ns = self.clock.monotonic_us() * 1000
        for args in (rest := iter(requests)):
            if args[0] != name or len(args) != words:           # not the same again
                if run:
                    self.account(call, command, run)
                    run, dirty = 0, self.dirty
                name, words = args[0], len(args)
                command = plain.get(name)
                if command is None or not command.least <= words <= command.most:
                    command, words = admit(self, client, args), 0        # 0: never the same again
                    if client.closed:
                        break
                    if command is None:
                        continue
                    special = True
                handler = command.handler
                alone = singly or special or not command.is_quick
            call.args = args
            try:
                reply = handler(call)                           # type: ignore[misc]
            except Error as error:
                reply = error
            kind = type(reply)
            if kind is bytes:
                length = len(reply)
                data = (HEADS[length] if length < HEADS_MAX else b"$%d\r\n" % length) + reply + b"\r\n"
            elif reply is OK:
                data = b"+OK\r\n"
            elif kind is int:
                data = b":%d\r\n" % reply
            else:
                data = encode(reply, client.resp)
            append(data)
            size += len(data)
            run += 1
            if self.feeds:
                dirty = self.propagate(call, dirty)
            if alone or kind is Error:
                self.account(call, command, run, reply)
                if self.waiting.ready:
                    self.waiting.serve(client)
                run, dirty = 0, self.dirty                      # what those who waited have taken is theirs
                if special or self.eviction.over:               # it may have ended the connection, or changed it
                    if not self._goes_on(client, rest):
                        break
                    plain, singly = self._stance(client)
                    special, words = False, 0                   # even the same again may not run any more
                if client.check_limit(size):
                    break
        if run:
            self.account(call, command, run)
        client.last_command = command or client.last_command
        client.output_size += size
        client.queue()
        call.args = NO_ARGS                                     # a long argument is not to outlive its command

    def _goes_on(self, client: Client, rest: Iterator[Request]) -> bool:
        """Whether the rest of a pipeline may run now. Behind a command that waits it has to wait, too."""
        if client.blocked:
            client.blocked.later = rest
            return False
        return not (client.close_after_reply or client.closed or self.stopped)

    def _stance(self, client: Client) -> tuple[dict[bytes, Command], bool]:
        """What a special command can change, or one that uses up the memory: what this client may call without a
        further look (everything plain, or nothing), and whether each of its calls is looked at singly."""
        if self.eviction.limit:
            self.eviction.make_room()
        free = client.authenticated and not (client.monitor or client.transaction or client.subscriptions
                                             or self.loading or self.snapshots.failing or self.aof.misconf
                                             or self.eviction.out_of_memory)
        plain = self._plain if free else {}
        watched = self.monitors or self.on_change or self.loop.observers or self._slow_ns < EXACT_NS
        return plain, bool(watched or self.limits[client.kind])

    def account(self, call: Call, command: Command | None, run: int, reply: Any = None) -> None:
        """Draw the consequences of a call, or of a run of calls: time, statistics, and those who want to know.

        A run is timed as a whole, by one look at the clock. If it was slow, its last call enters the slow log,
        and says so. Below EXACT_NS `slowlog-log-slower-than` has each call timed by itself.
        """
        assert command
        started_ns, self._started_ns = self._started_ns, self.clock.tick()
        took_ns = self._started_ns - started_ns
        command.calls += run
        command.nsec += took_ns
        stats = self.stats
        stats.total_commands_processed += run
        stats.keyspace_hits += call.hits
        stats.keyspace_misses += call.misses
        call.hits = call.misses = 0
        if type(reply) is Error:
            command.failed += 1
            self.count_error(reply)
        if took_ns >= self._slow_ns and reply is not BLOCKED and "skip_slowlog" not in command.flags:
            self.remember_slow(call, took_ns // 1000, run)
        if self.monitors and run:
            self.feed_monitors(call, command)
        if self.loop.observers:
            self.loop.emit("command", started_ns // 1000, call.client.id, command.name)
        if self._started_ns >= self._refresh_at_ns and not self.in_transaction:
            self.update_time()
            call.now_ms = self.now_ms

    def perform(self, command: Command, args: Request, client: Client, db: Database, handler: Handler,
                again: bool = False) -> Any:
        """Run one command outside of `execute`; its reply. It is of a transaction, or a client that waits tries it
        `again`: then it has been counted already, and monitors have seen it."""
        call, dirty = self.call, self.dirty
        call.client, call.db, call.args, call.now_ms = client, db, args, self.now_ms
        try:
            reply = handler(call)
        except Error as error:
            reply = error
        if self.feeds:
            self.propagate(call, dirty)
        self.account(call, command, 0 if again else 1, reply)
        return reply

    # ---- what follows from a call

    def propagate(self, call: Call, dirty: int) -> int:
        """Hand the effects of a call to those who keep a log: those that it has named, else the command as it was sent.

        `dirty`: the count of changes before it; returns that of now.
        """
        if self.dirty == dirty and call.effects is None and not self.unit:
            return dirty
        effects, call.effects = call.effects, None
        if effects is None and not self.unit and not self.in_transaction:
            for feed in self.feeds:                             # the usual case
                feed(call.db.index, call.args)
            return self.dirty
        for effect in effects if effects is not None else [call.args] * (self.dirty != dirty):
            self.unit.append((call.db.index, effect))
        if not self.in_transaction:
            self.close_unit()
        return self.dirty

    def feed(self, database: Database, effect: Sequence[bytes]) -> None:
        """One effect, for the log: it belongs to the unit at hand."""
        if self.feeds:
            self.unit.append((database.index, effect))

    def close_unit(self) -> None:
        """The end of a call or of an EXEC: its effects go to the log, between MULTI and EXEC if there are several.

        Redis: propagatePendingCommands.
        """
        unit, self.unit = self.unit, []
        if len(unit) > 1:
            unit = [(unit[0][0], (b"MULTI",)), *unit, (unit[-1][0], (b"EXEC",))]
        for feed in self.feeds:
            for index, effect in unit:
                feed(index, effect)
        self.snapshots.settle()

    def tell_change(self, database: Database, key: bytes, event: str) -> None:
        """A key has changed: to those who watch it, wait for it, or are subscribed to such events."""
        for tell in list(self.on_change):
            tell(database, key, event)

    def on_expired(self, database: Database, key: bytes) -> None:
        """Delete a key whose time is over; the log hears of it as DEL. Redis: deleteExpiredKeyAndPropagate."""
        database.delete(key)
        self.stats.expired_keys += 1
        self.feed(database, (b"DEL", key))
        self.tell_change(database, key, "expired")
        if self.call.args is NO_ARGS or self.call.args[0].lower() in ANY_KEYS and not self.in_transaction:
            self.close_unit()                                   # no call has asked for this key: it goes by itself

    def count_error(self, error: Error) -> None:
        error.__traceback__ = error.__context__ = None      # shared errors must not keep old frames alive
        self.stats.total_error_replies += 1
        self.stats.errors[error.code] = self.stats.errors.get(error.code, 0) + 1

    def remember_slow(self, call: Call, took_us: int, run: int) -> None:
        """Make an entry in the slow log."""
        args = call.args if run <= 1 else [*call.args, b"... (the last of %d calls timed together)" % run]
        self.slowlog.add(SlowCall(0, self.clock.time_us() // 1_000_000, took_us, args, call.client.peer,
                                  call.client.name), self.config.slowlog_max_len)

    def feed_monitors(self, call: Call, command: Command) -> None:
        """Show a command to the clients in MONITOR mode. Redis: replicationFeedMonitors."""
        if command.flags & {"skip_monitor", "admin"}:
            return
        line = encode(monitor_line(self.clock.time_us(), call.db.index, call.client.peer, call.args))
        for monitor in self.monitors:
            monitor.push(line)

    # ---- around the sleep

    def update_time(self) -> None:
        """Look at both clocks. Commands use what is cached here. Redis: updateCachedTime."""
        self.now_us = self.clock.monotonic_us()
        self.now_ms = self.clock.time_us() // 1000
        self._refresh_at_ns = (self.now_us + REFRESH_US) * 1000

    def before_sleep(self) -> None:
        """All that must be done before the loop waits, in this order. Redis: beforeSleep."""
        self.waiting.time_out(self.now_ms)
        self.expiry.fast_cycle()
        self.waiting.go_on()
        self.aof.flush()
        if not self.failure:
            self.send_replies()
        self.free_closed()

    def blocked_until_ms(self) -> int | None:
        """The earliest instant at which a client that waits gets an answer in any case."""
        return self.waiting.next_deadline_ms

    def send_replies(self) -> None:
        """The only place that sends replies: once a turn for each client that is owed one.

        (A visitor who is refused is told at the door.)
        """
        waiting, self.to_flush = self.to_flush, []
        for client in waiting:
            client.flush()

    def free_closed(self) -> None:
        closed, self.to_close = self.to_close, []
        for client in closed:
            self.free(client)

    # ---- every now and then

    def server_cron(self) -> int:
        """Ten times a second (`hz`): signals, expiry, idle clients, samples. Redis: serverCron."""
        self.update_time()
        for signal in self.processes.signals():
            self.obey(signal)
        if self.stopped:
            return 1000
        for child in self.processes.reap():
            if child.pid in self.children:
                self.children.pop(child.pid)(child)
        self.aof.cron()                                         # first: save points that fail would never let it
        self.snapshots.cron()
        self.expiry.slow_cycle()
        self.clients_cron()
        self.eviction.cron()
        self.rates.track(self.stats, self.now_us)
        return 1000 // int(self.config.hz)

    def clients_cron(self) -> None:
        """Look at some clients, so that each is seen once a second: idle for too long, or not reading."""
        count = max(5, len(self.clients) // self.config.hz)
        idle_us = self.config.timeout * 1_000_000
        for _ in range(min(count, len(self.clients))):
            if not self._cron_ids:
                self._cron_ids = list(self.clients)
            client = self.clients.get(self._cron_ids.pop())
            if client is None:
                continue
            client.check_limit()
            busy = client.monitor or client.blocked or client.kind != "normal"
            if idle_us and self.now_us - client.last_us > idle_us and not busy:
                self.log("-", "Closing idle client")
                client.close_soon()

    def reset_stats(self) -> None:
        """CONFIG RESETSTAT."""
        self.stats.reset()
        self.snapshots.saves, self.eviction.over_since_us = 0, None
        self.expiry.stale_percent, self.expiry.time_cap_reached = 0.0, 0
        for command in rows(self.commands):
            command.calls = command.nsec = command.rejected = command.failed = 0
