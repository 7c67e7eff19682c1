"""How much memory is used: a model that can be explained.

Nobody can ask CPython what the objects of a server take together. So kvref counts by what is known of them: a text is
an object of 33 bytes and its length, rounded up to 16; an entry of a large table takes between 30 and 60 bytes, 40 on
average; `SHAPES` says the rest. The interpreter and its modules are not counted: `used_memory` of an empty server is 0.

Interface:
  - size_of(database, key)       what MEMORY USAGE answers: key, value, deadline, and what is noted of them
  - size_of_value(value)         of any value, exactly or from a few of its elements
  - Ledger                       what each key of a database counts for; kept only while there is a `maxmemory`
  - Memory                       used_memory, and what INFO says of it

A value of up to FEW elements is counted anew with each change. A larger one is not: what a change brings is added, and
once an eighth of its elements or of its bytes may have changed it is counted anew. So it is never counted for less than
it is, and what was taken out of it may count a little longer.

Without `maxmemory` nobody keeps a ledger: writing is as fast as if there were no such module. Then INFO counts
the SAMPLE first keys of a database, and takes them for the mean.

Redis: zmalloc.c counts each allocation, so there it is exact; objectComputeSize in object.c guesses for MEMORY USAGE,
from five elements, as here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from kvref.database import Database
from kvref.resp import NO_ARGS
from kvref.sampling import Hash, Members
from kvref.skiplist import SortedSet

if TYPE_CHECKING:
    from kvref.server import Server

PLACE: Final = 40                   # bytes of an entry in a large table, on average
NUMBER: Final = 32                  # an int or a float
DEADLINE: Final = PLACE + NUMBER
NODE: Final = 80                    # of a skip list; a member has 4/3 of them on average
FEW: Final = 64                     # elements that are counted anew with each change
SAMPLE: Final = 1000                # keys that stand for all where there is no ledger
SMALL_TABLE: Final = 170            # entries up to which a table is counted as CPython lays it out


def size_of_text(text: bytes) -> int:
    """A `bytes` object: 33 bytes and the text, in cells of 16."""
    return len(text) + 48 & ~15


def size_of_table(entries: int) -> int:
    """A dict: a power of two of slots, a byte for each, and 24 bytes for each of two thirds of them."""
    if entries > SMALL_TABLE:
        return PLACE * entries
    slots = 8
    while slots * 2 // 3 < entries:
        slots *= 2
    return slots + slots * 2 // 3 * 24


class Shape(NamedTuple):
    """What a collection takes besides its texts."""

    base: int                                       # an empty one
    each: int                                       # an element
    table: Callable[[int], int]                     # all elements together
    texts: Callable[[Any], Iterable[bytes]]


SHAPES: Final[dict[type, Shape]] = {
    deque: Shape(248, 0, lambda count: 528 * (1 + count // 64), lambda value: value),       # blocks of 64 pointers
    Hash: Shape(112, 0, size_of_table, lambda value: chain.from_iterable(value.items())),
    Members: Shape(112, 0, size_of_table, lambda value: value),
    SortedSet: Shape(288, NUMBER + NODE * 4 // 3, size_of_table, lambda value: value.scores),
}


def size_of_value(value: Any, samples: int = 0) -> int:
    """In bytes. `samples`: of a larger collection, its first so many texts stand for all; 0: exactly."""
    if type(value) is bytes:
        return size_of_text(value)
    base, each, table, texts = SHAPES[type(value)]
    count = len(value)
    if not samples or count <= samples:
        contents = sum(map(size_of_text, texts(value)))
    else:
        a_field = 2 if type(value) is Hash else 1
        contents = sum(map(size_of_text, islice(texts(value), samples * a_field))) * count // samples
    return base + each * count + table(count) + contents


def size_of_entry(database: Database) -> int:
    """The places of one key in the tables: of values, of sizes, of uses."""
    return PLACE + (PLACE if database.ledger else 0) + (PLACE + NUMBER if database.access is not None else 0)


def size_of(database: Database, key: bytes, samples: int = 0) -> int:
    """A key that is there, with its value and all that the server keeps about it, in bytes."""
    deadline = DEADLINE if key in database.deadlines else 0
    return size_of_entry(database) + deadline + size_of_text(key) + size_of_value(database.values[key], samples)


class Counted:
    """A large value, between two counts."""

    __slots__ = ("value", "size", "length", "changes_left", "bytes_left")

    def __init__(self, value: Any, size: int) -> None:
        self.value, self.size, self.length = value, size, len(value)
        self.changes_left, self.bytes_left = self.length // 8, size // 8

    def changed(self, value: Any, brought: list[bytes]) -> bool:
        """Add what a command may have brought; False: it is time to count anew."""
        before, self.length = self.length, len(value)
        more = self.length - before
        if type(value) is Hash and len(brought) == 2:   # HINCRBYFLOAT: the sum may be longer than what was added
            brought = [brought[0], value.get(brought[0], brought[1])]
        came = sum(map(size_of_text, brought))
        self.changes_left -= max(1, abs(more), len(brought))
        self.bytes_left -= came
        if value is not self.value or min(self.changes_left, self.bytes_left) < 0:
            return False
        shape = SHAPES[type(value)]
        self.size += shape.each * more + shape.table(self.length) - shape.table(before) + came
        if more > 0 and type(value) is deque:           # LMOVE brings what no argument says: it lies at one of the ends
            self.size += more * max(size_of_text(value[0]), size_of_text(value[-1]))
        return True


class Ledger:
    """What the keys of one database count for."""

    __slots__ = ("sizes", "total")

    def __init__(self) -> None:
        self.sizes: dict[bytes, int | Counted] = {}
        self.total = 0

    def clear(self) -> None:
        self.sizes.clear()
        self.total = 0

    def note(self, database: Database, key: bytes, args: list[bytes]) -> int:
        """A command with these arguments has changed the key; by how much the total has grown."""
        old = self.sizes.get(key, 0)
        before = old if type(old) is int else old.size          # type: ignore[union-attr]
        value = database.values.get(key)
        if value is None:
            self.sizes.pop(key, None)
            size = 0
        elif type(old) is Counted and old.changed(value, args[2:]):
            size = old.size
        else:
            large = type(value) is not bytes and len(value) > FEW
            size = size_of(database, key) + large * DEADLINE    # where no count may follow, as if it had one
            self.sizes[key] = Counted(value, size) if large else size
        self.total += size - before
        return size - before


class Memory:
    """What INFO says of memory, and what `maxmemory` goes by."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.buffers = 0                    # of all clients, when somebody last looked
        self.stale = False                  # and somebody has gone since who held some of it
        self.total = 0                      # of all ledgers, at least: FLUSHALL may have made it less
        self.peak = 0

    def count_anew(self) -> None:
        """Open ledgers, or close them, as `maxmemory` says."""
        for database in self.server.databases:
            database.ledger = ledger = Ledger() if self.server.config.maxmemory else None
            if ledger:
                for key in database.values:
                    ledger.note(database, key, NO_ARGS)
        self.used()

    def used(self) -> int:
        """used_memory: what the keys count for, and the clients' buffers."""
        if self.stale or not self.server.config.maxmemory:
            self.look_at_clients()              # without a limit nobody else does
        self.total = sum(map(self._of, self.server.databases))
        self.peak = max(self.peak, self.total + self.buffers)
        return self.total + self.buffers

    @staticmethod
    def _of(database: Database) -> int:
        if database.ledger:
            return database.ledger.total
        some = list(islice(database.values, SAMPLE))
        return sum(size_of(database, key, samples=5) for key in some) * len(database) // max(1, len(some))

    def overhead(self) -> int:
        """What of it is neither a key nor a value."""
        return self.buffers + sum(len(database) * size_of_entry(database) + len(database.deadlines) * DEADLINE
                                  for database in self.server.databases)

    def look_at_clients(self) -> None:
        """Ten times a second: what waits to be parsed, to be run by EXEC, to be sent."""
        self.buffers = sum(client.memory for client in self.server.clients.values() if not client.closed)
        self.stale = False
