"""The command table, and Call: all that a command handler ever sees.

A command is declared once, beside the function that does it:

    @command("set", arity=-3, flags="write denyoom", keys=(1, 1, 1), group="string", since="1.0.0")
    def set_(call):
        "Set the string value of a key."

The table is the single source for lookup, arity, flags, key positions, COMMAND and the reference page.

Interface:
  - command(...)   declares a handler; "client|list" declares a subcommand of "client"
  - Command        one row of the table; a server works on copies, so that counters are its own
  - counted_keys   finds the keys of commands that count them: `more_keys`
  - table()        fresh rows for one server, under each usual spelling of their names
  - rows(table)    each of them once
  - Call           the server, client, database, arguments and instant of one call
  - errors         WRONGTYPE and the other texts that several handlers answer with

Handlers return values and never write to a socket; `kvref.resp` lists the types. A handler that cannot
go on raises (or returns) `Error`.

Redis: the table is server.c's redisCommandTable, generated from src/commands/*.json in 7.0; Call stands
for the argc, argv and db that a C handler finds in its client.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from kvref.numbers import parse_int
from kvref.resp import NO_ARGS, Error

if TYPE_CHECKING:
    from kvref.client import Client
    from kvref.database import Database
    from kvref.server import Server

REDIS_VERSION = "7.0.15"        # the Redis whose commands these are

NO_LIMIT = 2**62

Kind = TypeVar("Kind", bound=Sized)
Handler = Callable[["Call"], Any]
KeySpec = tuple[int, int, int] | None
KeyFinder = Callable[[list[bytes]], list[int] | None]

WRONGTYPE = Error("WRONGTYPE Operation against a key holding the wrong kind of value")
SYNTAX = Error("ERR syntax error")
NO_SUCH_KEY = Error("ERR no such key")


@dataclass(slots=True)
class Command:
    """One command. `arity` counts the name; negative: at least so many.

    `keys` is (first, last, step) as COMMAND INFO reports them, last counted from the end if negative; None: no
    keys in fixed places. `more_keys` finds those whose places depend on the arguments: see `counted_keys`.
    """

    name: str                           # lower case; "client|list" for a subcommand
    handler: Handler | None             # None: only its subcommands do anything
    arity: int
    flags: frozenset[str]
    keys: KeySpec
    group: str
    since: str
    summary: str
    more_keys: KeyFinder | None = None
    subcommands: dict[bytes, Command] = field(default_factory=dict)
    least: int = 0                      # words of a request, the name included: what arity means
    most: int = 0
    is_plain: bool = False              # neither ends nor changes its connection, nor waits
    is_quick: bool = False              # takes microseconds, however much is stored
    calls: int = 0                      # counters of one server: INFO commandstats
    nsec: int = 0
    rejected: int = 0
    failed: int = 0

    def __post_init__(self) -> None:
        # No subcommands, open neither to strangers alone (`no_auth`: AUTH, HELLO, QUIT, RESET) nor to administrators
        # (`admin`: MONITOR, SHUTDOWN), no transaction, no subscription
        self.is_plain = bool(self.handler and self.group not in ("transactions", "pubsub")
                             and not self.flags & {"no_auth", "admin", "blocking"})
        self.least, self.most = (self.arity, self.arity) if self.arity >= 0 else (-self.arity, NO_LIMIT)
        # Redis says `fast`, but not of what works on one string: SET may free a large value of another type
        self.is_quick = "fast" in self.flags or self.group == "string" and self.keys == (1, 1, 1)

    def fresh(self) -> Command:
        """The same row for another server. (`dataclasses.replace` takes three times as long, for 200 rows a server.)"""
        row: Command = object.__new__(Command)
        for name in Command.__slots__:
            setattr(row, name, getattr(self, name))
        row.subcommands = {}
        return row


    def key_positions(self, args: list[bytes]) -> list[int]:
        """Indices into `args` that hold keys; none where `more_keys` can make no sense of them."""
        found = self.more_keys(args) if self.more_keys else []
        if self.keys is None or found is None:
            return found or []
        first, last, step = self.keys
        return [*range(first, (last if last >= 0 else len(args) + last) + 1, step), *found]


def counted_keys(at: int) -> KeyFinder:
    """For commands whose word `at` says how many keys follow it: ZUNION 2 one two. None where it makes no sense."""
    def find(args: list[bytes]) -> list[int] | None:
        count = parse_int(args[at]) if at < len(args) else None
        return list(range(at + 1, at + 1 + count)) if count and 0 < count < len(args) - at else None
    return find


_declared: dict[str, Command] = {}


def command(name: str, *, arity: int, flags: str = "", keys: KeySpec = None, more_keys: KeyFinder | None = None,
            group: str, since: str) -> Callable[[Handler], Handler]:
    """Declare the decorated function as the handler of a command; its docstring is the summary.

    `name` is "get", or "client|list" for a subcommand; the container "client" is made by `container`.
    `flags` are Redis's names, separated by blanks: write readonly denyoom admin fast noscript loading
    stale no_auth skip_monitor skip_slowlog blocking movablekeys ...
    """
    def declare(handler: Handler) -> Handler:
        words = frozenset(flags.split())
        _declared[name] = Command(name, handler, arity, words, keys, group, since,
                                  (handler.__doc__ or "").strip().split("\n")[0], more_keys)
        return handler
    return declare


def container(name: str, *, arity: int = -2, flags: str = "", group: str, since: str, summary: str) -> None:
    """Declare a command that only has subcommands, such as CONFIG."""
    _declared[name] = Command(name, None, arity, frozenset(flags.split()), None, group, since, summary)


def commands() -> Iterator[Command]:
    """Every declared command and subcommand, sorted by name: for the reference page and for tests."""
    yield from (_declared[name] for name in sorted(_declared))


def table() -> dict[bytes, Command]:
    """Fresh rows for one server, each under its lower-case and its upper-case name.

    One dict lookup finds a command in either usual spelling; "GeT" takes the slower way over lower().
    """
    rows: dict[bytes, Command] = {}
    for name in sorted(_declared):          # "client" sorts before "client|list"
        row = _declared[name].fresh()
        parent, _, sub = name.partition("|")
        home = rows[parent.encode()].subcommands if sub else rows
        if sub:
            rows[parent.encode()].is_plain = False
        home[(sub or parent).encode()] = row
        if not sub:
            home[parent.upper().encode()] = row
    return rows


def rows(commands: dict[bytes, Command]) -> Iterator[Command]:
    """Each row of a server's table once, subcommands after their command."""
    for name, row in commands.items():
        if name == row.name.encode():
            yield row
            yield from row.subcommands.values()


class Call:
    """One call of a command, as its handler sees it.

    The server owns one Call and uses it again for every command: a handler must not keep it.
    `now_ms` is one instant for the whole command.
    """

    __slots__ = ("server", "client", "db", "args", "now_ms", "effects", "hits", "misses")

    client: Client
    db: Database                            # follows SELECT

    def __init__(self, server: Server) -> None:
        self.server = server
        self.hits = self.misses = 0         # since the last account
        self.args: list[bytes] = NO_ARGS    # args[0] is the command as sent; NO_ARGS between calls
        self.now_ms = 0                     # wall clock
        self.effects: tuple[tuple[bytes, ...], ...] | None = None

    def read(self, key: bytes, kind: type | None = None) -> Any:
        """The value of a key for a command that only reads, or None; counts as a hit or a miss.

        A key whose deadline has passed is deleted first. Raises WRONGTYPE when `kind` is given and
        the value is of another type. Redis: lookupKeyRead, db.c.
        """
        db = self.db
        if key in db.deadlines and db.is_expired(key, self.now_ms):
            db.on_expired(db, key)
        value = db.values.get(key)
        if value is None:
            self.misses += 1
            if self.server.notifications.of_misses:
                self.server.notifications.tell_miss(db, key)
            return None
        self.hits += 1
        if kind is None or type(value) is kind:
            return value
        raise WRONGTYPE

    def lookup(self, key: bytes, kind: type | None = None) -> Any:
        """As `read`, without the counting: for commands that write. Redis: lookupKeyWrite, db.c."""
        value = self.db.find(key, self.now_ms)
        if value is not None and kind is not None and type(value) is not kind:
            raise WRONGTYPE
        return value

    def peek(self, key: bytes) -> Any:
        """As `read`, for commands that look at a key without using it. Redis: LOOKUP_NOTOUCH."""
        return self.read(key)

    def put(self, key: bytes, value: Any, event: str) -> None:
        """Give a key that has no deadline a value, whatever it held, and say so. Redis: setKey, db.c."""
        server = self.server
        self.db.set(key, value)
        server.dirty += 1
        if server.on_change:
            server.tell_change(self.db, key, event)

    def lookup_or_new(self, key: bytes, kind: type[Kind]) -> Kind:
        """As `lookup`; where there is no such key, it holds a fresh, empty value from now on.

        For handlers that have checked their arguments and are about to fill it.
        """
        value: Kind | None = self.lookup(key, kind)
        if value is None:
            value = kind()
            self.db.set(key, value)
        return value

    def drop_if_empty(self, key: bytes, value: Sized) -> None:
        """No key holds an empty collection: call it after something was taken out, and after `changed`."""
        if not value:
            self.db.delete(key)
            self.changed(key, "del", 0)

    def changed(self, key: bytes, event: str, n: int = 1, db: Database | None = None) -> None:
        """Say that this call changed a key: the one place for all that follows from a change.

        `event` is Redis's name of the keyspace event, `n` what the change counts for save points, `db` the
        key's database where it is not the selected one. Those who watch keys, or wait for them, are told.
        """
        server = self.server
        server.dirty += n
        if server.on_change:
            server.tell_change(db or self.db, key, event)

    def block(self, keys: Iterable[bytes], deadline_ms: int | None, retry: Callable[[Call, bytes], Any],
              nothing: Any) -> Any:
        """Wait until one of the keys has changed and `retry(call, key)` is not BLOCKED; what the handler returns.

        `deadline_ms` is an instant of the wall clock, None: for ever; `nothing` is the reply after it. In a
        transaction nobody waits: the reply is `nothing` at once.
        """
        return self.server.waiting.block(self, keys, deadline_ms, retry, nothing)

    def log_as(self, *effects: tuple[bytes, ...]) -> None:
        """Give the log these commands in place of the one that the client sent; none: log nothing.

        An effect says what happened, not what was asked: EXPIRE k 10 becomes PEXPIREAT k <instant>.
        """
        if self.server.feeds:
            self.effects = effects

    def touch(self, elements: int) -> None:
        """Say that the command worked through so many elements; a simulated computer charges for them."""
        self.server.clock.work(elements)
