"""Snapshots both ways: a real Redis starts from what kvref saves, and kvref from what Redis saves.

The witness is DEBUG DIGEST, and rdb.load for what it does not tell: the deadlines. Damaged files: test_rdb_damaged.py.
"""

from __future__ import annotations

import random
import subprocess
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

import kvref
from kvref.persistence import digest, rdb
from kvref.persistence.crc64 import crc64
from kvref.persistence.cursor import Cursor, Unreadable
from kvref.persistence.rdb import Entry
from kvref.sim import ReplyError, World
from tests import golden, keyspaces, record
from tests.differences import Pair, available
from tests.grammar import DATABASES, Author
from tests.keyspaces import FAR_MS, PATH, SMALL, dumped, on_disk, plain

HOME = "/data/dump.rdb"                     # in a World
DIRECTIVES: dict[str, dict[str, str]] = {
    "as they are": {},
    "small limits": {"hash-max-listpack-entries": "3", "zset-max-listpack-entries": "3", "set-max-intset-entries": "4",
                     "list-max-listpack-size": "5"},
    "short members, small nodes": {"hash-max-listpack-value": "8", "zset-max-listpack-value": "8",
                                   "list-max-listpack-size": "-1"},
    "no compression, no checksum": {"rdbcompression": "no", "rdbchecksum": "no", "list-max-listpack-size": "-3"},
    "nothing is small": {"hash-max-listpack-entries": "0", "zset-max-listpack-entries": "0",
                         "set-max-intset-entries": "0", "list-max-listpack-size": "1"},
}


class Theirs:
    """A real redis-server."""

    def __init__(self, server: record.RedisServer) -> None:
        self.file = Path(server.directory, "dump.rdb")
        self.client = redis.Redis(port=server.port)

    def ask(self, *words: Any) -> Any:
        return self.client.execute_command(*words)

    def digest(self) -> bytes:
        found: bytes = self.ask("DEBUG", "DIGEST")
        return found

    def save(self) -> bytes:
        assert self.client.save()
        return self.file.read_bytes()

    def load(self, data: bytes) -> None:
        """After redis-check-rdb has found no fault in it: a server would end over one."""
        self.file.write_bytes(data)
        check = subprocess.run(["redis-check-rdb", str(self.file)], capture_output=True, text=True)
        assert check.returncode == 0 and "RDB looks OK" in check.stdout, check.stdout
        assert self.ask("DEBUG", "RELOAD", "NOSAVE") == b"OK"

    def fill(self, entries: list[Entry]) -> None:
        pipeline, selected = self.client.pipeline(transaction=False), 0
        for entry in entries:
            if entry[0] != selected:
                pipeline.execute_command("SELECT", selected := entry[0])
            for words in keyspaces.commands(entry):
                pipeline.execute_command(*words)
        pipeline.execute_command("SELECT", 0)
        pipeline.execute()


class Ours:
    """kvref on a simulated computer, at the hour of the real one. `data`: what it finds on its disk."""

    def __init__(self, data: bytes | None = None, **directives: object) -> None:
        self.world = World(wall_us=time.time_ns() // 1000, capacity=1 << 30)
        if data is not None:
            self.put(data)
        self.server = self.world.start(enable_debug_command="yes", **directives)
        self.ask = self.world.connect()

    def put(self, data: bytes) -> None:
        disk = self.world.disk.instantly()
        rdb.write_all(disk, disk.open(HOME, "w"), data)

    def digest(self) -> bytes:
        return str(self.ask("DEBUG", "DIGEST")).encode()

    def save(self) -> bytes:
        assert self.ask("SAVE") == "OK"
        return self.world.disk.content(HOME)


def loaded(data: bytes) -> dict[tuple[int, bytes], tuple[str, Any, int | None]]:
    return plain(rdb.load(PATH, on_disk(data)))


# ---- a keyspace on all boundaries, under several directives --------------------------------------

class Both:
    """The same entries in both servers: commands brought them to Redis, Redis's file brought them to kvref."""

    def __init__(self, server: record.RedisServer, directives: dict[str, str]) -> None:
        self.entries = keyspaces.boundaries()
        self.theirs = Theirs(server)
        self.theirs.fill(self.entries)
        keys = [key for database, key, _, _ in self.entries if database == 0]
        pipeline = self.theirs.client.pipeline(transaction=False)
        for key in keys:
            pipeline.dump(key).object("encoding", key)
        answers = pipeline.execute()        # before anything is loaded: of values as they came to be
        self.dumps, self.encodings = dict(zip(keys, answers[::2])), dict(zip(keys, answers[1::2]))
        self.digest = self.theirs.digest()
        self.their_file = self.theirs.save()
        self.directives = directives
        self.ours = Ours(self.their_file, **directives)
        self.our_file = self.ours.save()


@pytest.fixture(scope="module", params=DIRECTIVES)
def both(request: pytest.FixtureRequest, redis_server: record.RedisServer) -> Iterator[Both]:
    """A server of its own: some directives are fixed once it runs."""
    directives = DIRECTIVES[request.param]
    with record.RedisServer({"enable-debug-command": "yes", **directives}) as server:
        yield Both(server, directives)


def test_kvref_finds_all_that_redis_has_saved(both: Both) -> None:
    assert both.ours.digest() == both.digest
    assert loaded(both.their_file) == plain(both.entries)


def test_redis_finds_all_that_kvref_has_saved(both: Both) -> None:
    assert loaded(both.our_file) == plain(both.entries)
    both.theirs.load(both.our_file)
    assert both.theirs.digest() == both.digest
    both.theirs.load(dumped(both.entries, **both.directives))
    assert both.theirs.digest() == both.digest
    assert loaded(both.theirs.save()) == plain(both.entries)


def test_a_file_has_the_size_that_redis_gives_it(both: Both) -> None:
    """2 % are promised above 10 kB. Here it is the same to the byte, but for the memory that the aux fields tell of."""
    assert abs(len(both.our_file) - len(both.their_file)) <= 0.02 * len(both.their_file)
    ours, theirs = (len(data) - data.index(b"\xfe\0\xfb") for data in (both.our_file, both.their_file))
    assert ours == theirs > 10_000


def test_a_file_begins_as_that_of_redis(both: Both) -> None:
    readers = [rdb.Reader(Cursor(data)) for data in (both.our_file, both.their_file)]
    for reader in readers:
        list(reader)
    ours, theirs = readers
    assert list(ours.aux) == list(theirs.aux)
    assert ours.version == theirs.version and ours.expected == theirs.expected
    assert {name for name in ours.aux if ours.aux[name] != theirs.aux[name]} <= {"ctime", "used-mem"}
    assert abs(int(ours.aux["ctime"]) - int(theirs.aux["ctime"])) < 60 and int(ours.aux["used-mem"]) > 0


def test_dump_gives_the_bytes_that_redis_gives(both: Both) -> None:
    """But for hash tables, which have an order of their own."""
    ordered = [key for key, encoding in both.encodings.items() if encoding != b"hashtable"]
    assert {both.encodings[key] for key in ordered} >= {b"int", b"embstr", b"raw", b"quicklist", b"skiplist"}
    assert {key: both.ours.ask("DUMP", key) for key in ordered} == {key: both.dumps[key] for key in ordered}


def test_the_log_says_more_of_a_bad_payload_than_its_client_hears() -> None:
    ours, body = Ours(), b"\x12\1\1\0\n\0"      # a list with a large element of no bytes
    with pytest.raises(ReplyError, match="^ERR Bad data format$"):
        ours.ask("RESTORE", "k", 0, body + crc64(body).to_bytes(8, "little"))
    assert ours.world.log[-1].endswith("# RESTORE: integrity check failed: these bytes: at offset 4: "
                                  "a node of a list is a large element, and holds nothing")


def test_what_one_dumps_the_other_restores(both: Both) -> None:
    values = {key: value for database, key, value, _ in both.entries if database == 0}
    ours, theirs = Ours(**both.directives), both.theirs.client.pipeline(transaction=False)
    theirs.select(9)
    for key in values:
        theirs.restore(key, 0, both.ours.ask("DUMP", key))
        assert ours.ask("RESTORE", key, 0, both.dumps[key]) == "OK"
    theirs.execute_command("DEBUG", "DIGEST-VALUE", *values).flushdb().select(0)
    wanted = [digest.of_value(value, False).hex() for value in values.values()]
    assert ours.ask("DEBUG", "DIGEST-VALUE", *values) == wanted
    assert [found.decode() for found in theirs.execute()[-3]] == wanted


# ---- one thing at a time -------------------------------------------------------------------------

@pytest.fixture
def theirs(redis_server: record.RedisServer) -> Iterator[Theirs]:
    """The server of the session, empty before and after."""
    theirs = Theirs(redis_server)
    theirs.client.flushall()
    yield theirs
    theirs.client.flushall()


def test_processes_start_from_each_others_files(tmp_path: Path, redis_server: record.RedisServer) -> None:
    """On the real computer: one leaves its file in a directory, the next one begins there."""
    found = []
    with kvref.running(dir=str(tmp_path), save="", enable_debug_command="yes") as server:
        ours = redis.Redis(port=server.port)
        for entry in SMALL:
            ours.execute_command("SELECT", entry[0])
            for words in keyspaces.commands(entry):
                ours.execute_command(*words)
        found.append(ours.execute_command("DEBUG", "DIGEST"))
        assert ours.save()
    with record.RedisServer({"dir": str(tmp_path), "enable-debug-command": "yes"}) as real:
        client = redis.Redis(port=real.port)
        found.append(client.execute_command("DEBUG", "DIGEST"))
        assert client.set("from", "redis") and client.save()
        found.append(client.execute_command("DEBUG", "DIGEST"))
    with kvref.running(dir=str(tmp_path), save="", enable_debug_command="yes") as server:
        found.append(redis.Redis(port=server.port).execute_command("DEBUG", "DIGEST"))
    assert found[0] == found[1] != found[2] == found[3]


def test_a_score_of_minus_zero_is_loaded_as_zero(theirs: Theirs) -> None:
    """Redis keeps the sign, but in large sorted sets alone: a row of the README's table."""
    member = b"m" * 65
    theirs.ask("ZADD", "large", "-0", member)
    theirs.ask("ZADD", "small", "-0", "m")
    assert str(theirs.client.zscore("large", member)) == "-0.0"
    ours = Ours(theirs.save())
    assert ours.ask("ZSCORE", "large", member) == b"0"
    assert ours.ask("DUMP", "small") == theirs.client.dump("small")


def test_what_has_expired_when_loading_begins_is_left_out(theirs: Theirs) -> None:
    now_ms = time.time_ns() // 1_000_000
    data = dumped([(0, b"past", b"v", 1), (0, b"negative", b"v", -2**63), (0, b"just now", deque([b"x"]), now_ms - 1),
                   (0, b"soon", b"v", now_ms + 100_000), (0, b"never", b"v", None), (5, b"past", b"v", now_ms - 1)])
    ours = Ours(data)
    theirs.load(data)
    for ask in (ours.ask, theirs.ask):
        assert ask("DBSIZE") == 2 and ask("EXISTS", "soon", "never") == 2
        assert ask("PEXPIRETIME", "soon") == now_ms + 100_000
    assert "Done loading RDB, keys loaded: 2, keys expired: 4." in ours.world.log[-3]
    assert len(loaded(data)) == 6           # a file does not know what time it is


def test_what_expires_in_this_millisecond_is_loaded() -> None:
    """As long as an instant is not over, it is not over."""
    world = World(wall_us=FAR_MS * 1000)
    disk = world.disk.instantly()
    data = dumped((0, b"%+d" % step, b"v", FAR_MS + step) for step in (-1, 0, 1))
    rdb.write_all(disk, disk.open(HOME, "w"), data)
    assert list(world.start().databases[0].values) == [b"+0", b"+1"]


def test_a_key_that_has_expired_is_saved_as_long_as_it_is_there() -> None:
    """Nobody has met it: so does Redis, and leaves it to who loads the file."""
    ours = Ours()
    ours.ask("DEBUG", "SET-ACTIVE-EXPIRE", 0)
    ours.ask("SET", "k", "v", "PX", 1)
    ours.world.run(ms=10)
    assert list(loaded(ours.save())) == [(0, b"k")]


HELLO = b"\0\5hello\x0a\0"
HELLO += crc64(HELLO).to_bytes(8, "little")
LOGGED: list[tuple[Any, ...]] = [
    ("RESTORE", "new", 0, HELLO), ("RESTORE", "new", 100_000, HELLO), ("RESTORE", "k", 0, HELLO, "REPLACE"),
    ("RESTORE", "k", 100_000, HELLO, "replace", "freq", 5), ("RESTORE", "k", FAR_MS, HELLO, "ABSTTL", "REPLACE"),
    ("RESTORE", "k", 1, HELLO, "ABSTTL", "REPLACE"), ("RESTORE", "new", 1, HELLO, "ABSTTL"),
    ("RESTORE", "k", 2**63 - 1, HELLO, "REPLACE"), ("RESTORE", "gone", 0, HELLO),
    ("RESTORE", "gone", 0, HELLO, "REPLACE"), ("RESTORE", "gone", 1, HELLO, "ABSTTL", "REPLACE"),
    ("DUMP", "k"), ("DUMP", "gone"), ("SAVE",)]


def test_the_log_gets_what_redis_writes_to_its_own(redis_server: record.RedisServer) -> None:
    """Deadlines as instants, and nothing of a command that changed nothing."""
    def shown(effects: list[Any]) -> list[list[bytes]]:
        return [[b"soon" if word.isdigit() and 0 < int(word) - now_ms < 3_600_000 else word for word in effect]
                for effect in effects if effect[0].upper() not in (b"SELECT", b"MULTI", b"EXEC")]

    ours, now_ms = Ours(), time.time_ns() // 1_000_000
    effects: list[Any] = []
    ours.server.feeds.append(lambda database, effect: effects.append(list(effect)))
    with record.RedisServer({"appendonly": "yes", "appendfsync": "no", "enable-debug-command": "yes"}) as server:
        theirs = Theirs(server)
        theirs.client.ping()                # the port is open a moment before the log is
        log = next(Path(server.directory, "appendonlydir").glob("*.incr.aof"))
        for words in LOGGED:
            for ask in (ours.ask, theirs.ask):
                ask("DEBUG", "SET-ACTIVE-EXPIRE", 0)
                ask("FLUSHALL")
                ask("SET", "k", "v")
                ask("SET", "gone", "v", "PXAT", 1)
            effects.clear()
            start = log.stat().st_size
            ours.ask(*words)
            theirs.ask(*words)
            assert shown(effects) == shown(golden.replies(log.read_bytes()[start:])[0]), words


# ---- what the format can say and a server cannot hold --------------------------------------------

def file_of(*pieces: bytes) -> bytes:
    """A whole file around these bytes."""
    data = b"".join([b"REDIS0010", *pieces, b"\xff"])
    return data + crc64(data).to_bytes(8, "little")


def refusal(data: bytes, **directives: object) -> Unreadable:
    """What keeps kvref from starting; the file is as it was."""
    world = World()
    disk = world.disk.instantly()
    rdb.write_all(disk, disk.open(HOME, "w"), data)
    with pytest.raises(Unreadable) as caught:
        world.start(**directives)
    assert world.server is None and world.disk.content(HOME) == data
    return caught.value


def test_a_server_goes_by_the_checksum_unless_it_is_told_not_to() -> None:
    data = dumped(SMALL)[:-8] + b"12345678"
    assert "the file is damaged" in refusal(data).what
    assert Ours(data, rdbchecksum="no").ask("GET", "greeting") == b"hello"


def test_what_was_not_looked_at_is_a_line_of_the_log() -> None:
    ours = Ours(dumped(SMALL) + b"more")
    assert ours.ask("GET", "greeting") == b"hello"
    said = f"# {HOME}: 4 bytes behind the end of the file were not looked at"
    assert any(line.endswith(said) for line in ours.world.log)


@pytest.mark.parametrize("number, bytes_of_it", [(16, b"\x10"), (64, b"\x40\x40"), (2**60, b"\x81\x10" + bytes(7))])
def test_a_database_that_the_server_does_not_have_is_refused(number: int, bytes_of_it: bytes) -> None:
    data = file_of(b"\xfe\x0f\x00\x01k\x01v", b"\xfe", bytes_of_it, b"\x00\x01k\x01v")
    assert [entry[0] for entry in rdb.load(PATH, on_disk(data))] == [15, number]    # the format knows no limit
    assert str(refusal(data)) == (
        f"{HOME}: at offset {len(data) - 9}: "
        f"the file has a database {number}, and this server only 16; raise 'databases'")
    if number < 100:
        assert Ours(data, databases=number + 1).ask("INFO", "keyspace").count(b"keys=1") == 2


def test_a_key_that_stands_twice_is_refused(theirs: Theirs) -> None:
    once, twice = b"\x00\x03key\x01a", b"\x12\x03key\x01\x02" + b"\x0a\x0a\0\0\0\1\0\x81b\2\xff"
    error = refusal(data := file_of(once, twice))
    assert (error.key, error.offset) == (b"key", len(data) - 9)
    assert str(error) == f"{HOME}: at offset {len(data) - 9}, key b'key': the key stands twice in the file"
    assert Ours(file_of(once, b"\xfe\x01", twice)).ask("TYPE", "key") == "string"       # 1 has a key of its own
    assert Ours(file_of(b"\xfc\1" + bytes(7), once, twice)).ask("TYPE", "key") == "list"      # the first had expired


EMPTY = {"list": b"\1\1e\0", "set": b"\2\1e\0", "hash": b"\4\1e\0", "sorted set": b"\5\1e\0", "quicklist": b"\x12\1e\0",
         "quicklist of an empty node": b"\x12\1e\1\2\7\7\0\0\0\0\0\xff",
         "hash as listpack": b"\x10\1e\7\7\0\0\0\0\0\xff",
         "sorted set as listpack": b"\x11\1e\7\7\0\0\0\0\0\xff"}


@pytest.mark.parametrize("what", EMPTY)
def test_an_empty_collection_is_left_out_with_all_that_was_said_of_it(what: str, theirs: Theirs) -> None:
    data = file_of(b"\xfe\0", b"\xfc" + FAR_MS.to_bytes(8, "little") + b"\xf8\x40\x50", EMPTY[what], b"\0\1k\1v")
    ours = Ours(data)
    assert ours.ask("KEYS", "*") == [b"k"] and ours.ask("TTL", "k") == -1
    assert any("1 keys that held nothing were left out" in line for line in ours.world.log)
    assert loaded(data) == {(0, b"k"): ("bytes", b"v", None)}
    theirs.file.write_bytes(data)           # redis-check-rdb would refuse it, the server does not
    assert theirs.ask("DEBUG", "RELOAD", "NOSAVE") == b"OK"
    assert theirs.ask("KEYS", "*") == [b"k"] and theirs.ask("TTL", "k") == -1


def test_debug_reload_of_a_damaged_file_is_an_error_and_the_server_goes_on() -> None:
    """Redis would end."""
    ours = Ours()
    ours.ask("SET", "k", "v")
    data = ours.save()
    ours.put(data[:-9])
    with pytest.raises(ReplyError, match="^ERR Error trying to load the RDB dump$"):
        ours.ask("DEBUG", "RELOAD", "NOSAVE")
    assert f"# {HOME}: at offset {len(data) - 9}: type or opcode of 1 bytes should follow" in ours.world.log[-1]
    assert ours.ask("GET", "k") == b"v"     # or the next snapshot would be of what could be read
    ours.put(data)
    assert ours.ask("DEBUG", "RELOAD", "NOSAVE") == "OK" and ours.ask("GET", "k") == b"v"


def test_debug_reload_looks_at_the_checksum_if_it_is_wanted() -> None:
    ours = Ours()
    ours.ask("SET", "k", "v")
    ours.put(ours.save()[:-8] + b"12345678")
    with pytest.raises(ReplyError, match="^ERR Error trying to load the RDB dump$"):
        ours.ask("DEBUG", "RELOAD", "NOSAVE")
    ours.world.server.config.rdbchecksum = False        # which is read at the start alone
    assert ours.ask("DEBUG", "RELOAD", "NOSAVE") == "OK" and ours.ask("GET", "k") == b"v"


def test_keys_that_a_reload_adds_can_be_drawn_and_scanned() -> None:
    ours = Ours(dumped([(0, b"from the file", b"v", None)]))
    ours.ask("DEL", "from the file")
    ours.ask("SET", "from before", "v")
    assert ours.ask("RANDOMKEY") == b"from before"      # from now on somebody keeps a list of the keys
    ours.ask("DEBUG", "RELOAD", "NOSAVE", "NOFLUSH")
    assert sorted(ours.ask("SCAN", 0)[1]) == [b"from before", b"from the file"]
    ours.ask("DEL", "from before")
    assert ours.ask("RANDOMKEY") == b"from the file"


# ---- a keyspace by chance ------------------------------------------------------------------------

@pytest.fixture(scope="module")
def pair(redis_server: record.RedisServer) -> Iterator[Pair]:
    pair = Pair(redis_server.port)
    yield pair
    pair.close()


@pytest.mark.parametrize("seed", range(16))
def test_after_random_commands_both_save_the_same(seed: int, pair: Pair, redis_server: record.RedisServer) -> None:
    theirs = Theirs(redis_server)
    pair.start(2)
    author = Author(random.Random(f"snapshot {seed}"), available())
    assert pair.run(author.opening() + [author.command() for _ in range(200)]) is None
    tidy(pair, theirs)
    meaning, their_file = theirs.digest(), theirs.save()
    assert pair.kvref.ask([[b"DEBUG", b"DIGEST"], [b"SAVE"]]) == [b"+%b\r\n" % meaning, b"+OK\r\n"]
    our_file = pair.kvref.world.disk.content(HOME)
    fresh = Ours(their_file)
    theirs.load(our_file)
    assert fresh.digest() == theirs.digest() == meaning
    again = theirs.save()                   # now that Redis, too, has every value in the encoding of one freshly loaded
    assert loaded(again) == loaded(our_file)
    assert abs(len(again) - len(our_file)) <= max(16, 0.02 * len(again))


def tidy(pair: Pair, theirs: Theirs) -> None:
    """In every database: SCAN deletes what has expired, which is else left to those who happen to meet it. Scores of -0
    become 0: large sorted sets of Redis keep the sign, a row of the README's table. There 0 does not replace -0."""
    for database in DATABASES:
        pair.ask([[b"SELECT", b"%d" % database], [b"SCAN", b"0", b"COUNT", b"100000"]])
        theirs.ask("SELECT", database)
        for key in theirs.client.scan_iter(_type="zset"):
            for member, score in theirs.client.zrange(key, 0, -1, withscores=True):
                if score == 0:
                    theirs.ask("ZADD", key, 1, member)
                    theirs.ask("ZADD", key, 0, member)
    theirs.ask("SELECT", 0)
