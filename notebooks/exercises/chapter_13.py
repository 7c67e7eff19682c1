"""Chapter 13, real clients, real Redis: the judges of its exercises."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from kvref.lab.clients import Line, redis_py
from kvref.lab.judging import Wrong, exercise
from kvref.persistence import rdb
from kvref.persistence.rdb import Entry
from kvref.resp import NEED_DATA, Error, ProtocolError, Push, ReplyParser, RequestParser
from kvref.sampling import Hash, Members
from kvref.sim import ReplyError, World
from kvref.skiplist import SortedSet

# ---- 1 -------------------------------------------------------------------------------------------

NAMES = ("HELLO", "AUTH", "SELECT", "CLIENT SETNAME", "CLIENT SETINFO", "CLIENT MAINT_NOTIFICATIONS")
OPTIONS: tuple[dict[str, Any], ...] = (
    {}, {"protocol": 3}, {"protocol": 2}, {"db": 0}, {"db": 2}, {"client_name": "shop"}, {"password": "s3cret"},
    {"password": "s3cret", "protocol": 2}, {"protocol": 2, "db": 3, "client_name": "shop", "password": "s3cret"},
    {"db": 3, "client_name": "shop", "password": "s3cret"})


def said_first(options: dict[str, Any]) -> list[str]:
    """What redis-py really says before PING."""
    world = World(seed=1)
    world.start(requirepass=options.get("password", ""))
    client = redis_py(world, **options)
    client.ping()
    words = [[word.decode() for word in request] for request, _ in client.lines[0].dialogue()]
    return [" ".join(request[:2]) if request[0] == "CLIENT" else request[0] for request in words[:-1]]


@exercise("13-1", "Section 2 shows the handshake without options: four requests. Which of them needs RESP3?",
          "You can ask the library: redis_py(world, **options), ping(), and look at lines[0].dialogue(). With a password, start "
          "the server with requirepass.",
          "RESP3: HELLO (a password rides along in it), CLIENT MAINT_NOTIFICATIONS. RESP2: AUTH if there is a password. "
          "Then SETNAME, SETINFO twice, SELECT unless db is 0.")
def handshake(solution: Any) -> None:
    """Against: connecting is one message, and nothing is refused."""
    for options in OPTIONS:
        found, right = solution(dict(options)), said_first(options)
        if not isinstance(found, (list, tuple)) or not all(isinstance(name, str) for name in found):
            raise Wrong(f"handshake({options}) returned {found!r}. It should be a list of names.")
        if unknown := [name for name in found if name not in NAMES]:
            raise Wrong(f"handshake({options}) names {unknown[0]!r}, which is none of {', '.join(NAMES)}.")
        if list(found) != right:
            at = next((at for at, pair in enumerate(zip(found, right)) if pair[0] != pair[1]), min(len(found), len(right)))
            yours = f"have {found[at]}" if at < len(found) else "have no more"
            its = "another one" if at < len(right) else "nothing more to say before your command"
            raise Wrong(f"handshake({options}): as request number {at + 1} you {yours}, and redis-py has {its}.")


# ---- 2 -------------------------------------------------------------------------------------------

VISITS = (("a", 1), ("b", 2), ("a", 2), ("c", 3))       # id, how many there were then
SAID_FIRST = 4                      # requests of the handshake
STEPS = 14                          # requests of a story at which the connection may break


def breaking(at: int, done: bool) -> Callable[[World, float | None], Line]:
    """Connections of which one breaks, at the so many-th request of all: before the server has it, or when it is `done`."""
    left = [at]

    class Breaks(Line):
        dead = False

        def sendall(self, data: bytes) -> None:
            left[0] -= 1
            if left[0] or done:
                super().sendall(data)
            self.dead = left[0] == 0

        def recv(self, size: int) -> bytes:
            if self.dead:
                self.world.settle()
                self.caller.reset()
                raise ConnectionResetError("the line is dead")
            return super().recv(size)
    return Breaks


def client_of(world: World, line: Callable[[World, float | None], Line] = Line, retries: int = 3) -> Any:
    return redis_py(world, line, retry=Retry(NoBackoff(), retries), decode_responses=True)


@exercise("13-2", "INCR may run twice. Which command may run twice without harm, and still tells how many different ones it has seen?",
          "A set takes each member once. SADD is idempotent, and SCARD counts.",
          'r.sadd("visits", visit), then return r.scard("visits"). Whether SADD answers 1 or 0 must not matter: its reply may be lost.')
def counted_once(solution: Any) -> None:
    """Against: what was sent twice has been done once."""
    world = World(seed=1)
    world.start()
    r = client_of(world)
    for number, (visit, count) in enumerate(VISITS):
        _expect_count(solution(r, visit), count, f"Nothing breaks. Visits {_listed(number)}:")
    for done in (False, True):
        for at in range(SAID_FIRST + 1, SAID_FIRST + STEPS + 1):
            world = World(seed=1)
            world.start()
            r = client_of(world, breaking(at, done))
            broke = (f"The connection breaks once, {'after' if done else 'before'} the server has done your request {at - SAID_FIRST}, "
                     "and redis-py sends that again.")
            for number, (visit, count) in enumerate(VISITS):
                _expect_count(solution(r, visit), count, f"{broke} Visits {_listed(number)}:")
            _dies(solution, at, done)


def _listed(number: int) -> str:
    return ", ".join(visit for visit, _ in VISITS[:number + 1])


def _expect_count(found: Any, count: int, story: str) -> None:
    if found != count or isinstance(found, bool):
        raise Wrong(f"{story} visited returned {found!r}. It should be {count}.")


def _dies(solution: Any, at: int, done: bool) -> None:
    """Without retries the program dies of a broken connection. It is started again, and begins with the visit at hand."""
    world = World(seed=1)
    world.start()
    r = client_of(world, breaking(at, done), retries=0)
    for number, (visit, count) in enumerate(VISITS):
        died = False
        try:
            found = solution(r, visit)
        except redis.ConnectionError:
            died = True
        if died:
            r = client_of(world)
            found = solution(r, visit)
        _expect_count(found, count, f"The program dies of its request {at - SAID_FIRST}, {'after' if done else 'before'} that was done, "
                                    f"and is called again with the same visit. Visits {_listed(number)}:")


# ---- 3 -------------------------------------------------------------------------------------------

FAR_MS = 4_102_444_800_000
TEXTS: list[Entry] = [(0, b"course", b"redis", None), (0, b"two words", b"a\r\nb", None), (0, b"", b"", None), (0, b"\xff", bytes(range(256)), None)]
KINDS: list[Entry] = [
    (0, b"list", deque([b"b", b"a", b"b", b""]), None), (0, b"set", Members.fromkeys([b"1", b"x"]), None),
    (0, b"hash", Hash({b"f": b"v", b"g": b""}), None),
    (0, b"scores", SortedSet.from_pairs([(b"ann", 0.1), (b"bob", float("inf")), (b"cem", 1 / 3), (b"dan", 1e300)]), None)]
PLACES: list[Entry] = [(0, b"session", b"ann", FAR_MS), (0, b"queue", deque([b"x"]), FAR_MS + 7), (3, b"course", b"valkey", None),
                       (3, b"until", b"x", FAR_MS), (9, b"last", b"9", None)]


@exercise("13-3", "Begin with strings: b''.join(encode([b'SET', key, value]) for _, key, value, _ in entries(data)). Then look at type(value).",
          "RPUSH key *list, SADD key *set, HSET key field value ..., ZADD key score member ...; of a SortedSet, value.scores is a dict. "
          "repr(score).encode() is exact.",
          "SELECT whenever the database is another one than before, which is 0 at first. PEXPIREAT key deadline, behind the value.")
def as_requests(solution: Any) -> None:
    """Against: data can only move as a file of the server that wrote it."""
    for what, entries in (("strings", TEXTS), ("all five types", TEXTS + KINDS), ("deadlines and three databases", TEXTS + KINDS + PLACES)):
        here = World(seed=1)
        rdb.dump("/data/dump.rdb", entries, disk=here.disk.instantly())
        here.start()
        data = solution(here.disk.content("/data/dump.rdb"))
        if not isinstance(data, (bytes, bytearray)):
            raise Wrong(f"as_requests returned {data!r:.60}. It should be bytes.")
        there = World(seed=2)
        there.start()
        _send(there, bytes(data))
        missing = _state(here).keys() - _state(there).keys()
        if missing:
            raise Wrong(f"A dump with {what}: afterwards database {min(missing)[0]} lacks the key {min(missing)[1]!r}.")
        if more := _state(there).keys() - _state(here).keys():
            raise Wrong(f"A dump with {what}: afterwards database {min(more)[0]} has a key {min(more)[1]!r}, which was not in it.")
        for place, was in _state(here).items():
            if _state(there)[place] != was:
                raise Wrong(f"A dump with {what}: the key {place[1]!r} should be {was!r}, and is {_state(there)[place]!r} "
                            "(value, deadline).")


def _send(world: World, data: bytes) -> None:
    try:
        requests = RequestParser()
        requests.receive(data)
        requests.requests()
        if requests.size:
            raise Wrong(f"What you return ends in the midst of a request: ...{data[-40:]!r}")
    except ProtocolError as error:
        raise Wrong(f"What you return is no sequence of requests: {error}.") from None
    pipe = world.connect("pipe")
    pipe.send_bytes(data)
    world.settle()
    for reply in pipe.replies:
        if isinstance(reply, Error):
            raise Wrong(f"The server answers with an error: {reply.text}")


def _state(world: World) -> dict[tuple[int, bytes], tuple[Any, int | None]]:
    def plain(value: Any) -> Any:
        return (sorted(value.scores.items()) if isinstance(value, SortedSet) else sorted(value.items()) if isinstance(value, Hash)
                else sorted(value) if isinstance(value, Members) else list(value) if isinstance(value, deque) else value)
    assert world.server
    return {(database.index, key): (plain(value), database.deadlines.get(key))
            for database in world.server.databases for key, value in database.values.items()}


# ---- 4 -------------------------------------------------------------------------------------------

ON = ("CLIENT", "TRACKING", "ON")
# Who says what, and what Bob hears from it, byte by byte, as redis-server 7.0.15 says it. Bob speaks RESP3 and tracks.
STORY: tuple[tuple[str, str, bytes], ...] = (
    ("bob", "GET k", b"_\r\n"),
    ("alice", "SET k 1", b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"),
    ("alice", "SET k 2", b""),                                                          # told already
    ("alice", "SET other 1", b""),                                                      # never read
    ("bob", "MGET k a", b"*2\r\n$1\r\n2\r\n_\r\n"),
    ("alice", "INCR k", b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"),
    ("alice", "RPUSH a x", b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\na\r\n"),
    ("bob", "LRANGE a 0 -1", b"*1\r\n$1\r\nx\r\n"),
    ("alice", "DEL a", b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\na\r\n"),
    ("bob", "HGETALL h", b"%0\r\n"),
    ("alice", "HSET h f v", b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nh\r\n"),
    ("bob", "GET k", b"$1\r\n3\r\n"),
    ("bob", "SET k 4", b"+OK\r\n>2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"),         # behind its own reply
    ("bob", "GET k", b"$1\r\n4\r\n"),
    ("bob", "MULTI", b"+OK\r\n"), ("bob", "GET k", b"+QUEUED\r\n"), ("bob", "SET k 5", b"+QUEUED\r\n"),
    ("bob", "EXEC", b"*2\r\n$1\r\n4\r\n+OK\r\n>2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"),
    ("bob", "GET k", b"$1\r\n5\r\n"),
    ("alice", "EXPIRE k 100", b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"),
    ("bob", "GET k", b"$1\r\n5\r\n"),
    ("alice", "FLUSHALL", b">2\r\n$10\r\ninvalidate\r\n_\r\n"),
    ("alice", "SET k 6", b""),                                                          # forgotten by FLUSHALL
    ("bob", "GET k", b"$1\r\n6\r\n"),
    ("bob", "CLIENT TRACKING OFF", b"+OK\r\n"),
    ("alice", "SET k 7", b""))


@exercise("13-4", "First the command: server.commands[b'client'].subcommands[b'tracking'] = Command('client|tracking', handler, 3, "
          "frozenset(), None, 'connection', '6.0.0', 'a summary'). Then give the server a Call of your own, whose read notes who has read what.",
          "class Noting(Call), with __slots__ = (); server.call = Noting(server). server.on_change.append(changed) tells of "
          "changes: changed(database, key, event). FLUSHALL tells of none: put a handler around server.commands[b'flushall'].handler.",
          "Send later: server.loop.add_timer(0, send), where send() does client.push(encode(Push([b'invalidate', [key]]), 3)) and "
          "returns None. So it stands behind the reply, that of EXEC too. Take the readers of a key away when you tell them.")
def install(solution: Any) -> None:
    """Against: a client's own cache stays true by itself."""
    world, bob, alice = _tracking(solution)
    for number, (who, line, heard) in enumerate(STORY):
        before = len(bob.received)
        (bob if who == "bob" else alice).send(*line.split())
        world.run(ms=20)
        if (found := bytes(bob.received[before:])) != heard:
            told = "; ".join(f"{name}: {line}" for name, line, _ in STORY[max(0, number - 3):number + 1])
            raise Wrong(f"{told}. From the last of these Bob should hear {heard!r}, and hears {found!r}.")
    _expiry(solution)
    _resp2_and_the_end(solution)
    for seed in range(30):
        _believers(solution, seed)


def _tracking(solution: Any, seed: int = 1, fragment: bool = False) -> tuple[World, Any, Any]:
    world = World(seed=seed, fragment=fragment)
    solution(world.start())
    bob, alice = world.connect("bob"), world.connect("alice")
    bob("HELLO", "3")
    try:
        answer = bob(*ON)
        names = [bob("CLIENT", "SETNAME", "bob"), bob("CLIENT", "GETNAME")]
    except ReplyError as error:
        raise Wrong(f"Bob says CLIENT TRACKING ON, and is answered with an error: {error}") from None
    if answer != "OK" or names != ["OK", b"bob"]:
        raise Wrong(f"CLIENT TRACKING ON is answered with {answer!r}, CLIENT SETNAME and GETNAME with {names}.")
    return world, bob, alice


def _expiry(solution: Any) -> None:
    world, bob, alice = _tracking(solution)
    alice("SET", "k", "v", "PX", "100")
    bob("GET", "k")
    world.run(ms=1_000)
    if [push[1] for push in bob.pushes] != [[b"k"]]:
        raise Wrong(f"A key that Bob has read has expired, and was deleted. He should be told once, and heard {bob.pushes}.")


def _resp2_and_the_end(solution: Any) -> None:
    world, bob, alice = _tracking(solution)
    eve = world.connect("eve")
    eve(*ON)
    for caller in (bob, eve):
        caller("GET", "k")
    before = len(eve.received)
    bob.close()
    world.run(ms=10)
    alice("SET", "k", "1")
    world.run(ms=10)
    if len(eve.received) != before:
        raise Wrong("Eve speaks RESP2, which has no pushes, and was sent one.")
    if alice("PING") != "PONG":
        raise Wrong("A client that had read a key is gone, the key changes, and the server does not answer any more.")


class Believer:
    """A client that puts what it reads into a cache, and believes it until it is told otherwise."""

    def __init__(self, caller: Any) -> None:
        self.caller, self.cache, self.reads, self.told = caller, dict[bytes, Any](), 0, 0
        self.asked: deque[list[bytes]] = deque()
        self.parser, self.at, self.queue = ReplyParser(), len(caller.received), list[bytes]()

    def send(self, *words: bytes) -> None:
        self.asked.append(list(words))
        self.caller.send(*words)

    def listen(self) -> None:
        self.parser.receive(bytes(self.caller.received[self.at:]))
        self.at = len(self.caller.received)
        while (value := self.parser.next()) is not NEED_DATA:
            if isinstance(value, Push):
                self.told += 1
                for key in self.cache.copy() if value[1] is None else value[1]:
                    self.cache.pop(key, None)
            else:
                for key, answer in self._answers(self.asked.popleft(), value):
                    self.cache[key], self.reads = answer, self.reads + 1

    def _answers(self, words: list[bytes], value: Any) -> Iterator[tuple[bytes, Any]]:
        """(key, value) of everything that was read."""
        if words[0] == b"GET" and value == "QUEUED":
            self.queue.append(words[1])
        elif words[0] == b"GET":
            yield words[1], value
        elif words[0] == b"EXEC":
            yield from ((key, value[at]) for at, key in enumerate(self.queue))
            self.queue = []


def _believers(solution: Any, seed: int) -> None:
    """Whatever they do: when all is quiet, no cache holds what the server does not."""
    dice, (world, bob, alice) = Random(seed), _tracking(solution, seed, fragment=True)
    eve = world.connect("eve")
    eve("HELLO", "3")
    eve(*ON)
    both, log = [Believer(bob), Believer(eve)], list[str]()
    for _ in range(60):
        who, key = dice.choice(both), b"k%d" % dice.randrange(3)
        for words in dice.choice((
                [[b"GET", key]], [[b"GET", key]], [[b"SET", key, b"%d" % dice.randrange(99)]], [[b"DEL", key]],
                [[b"GET", key], [b"SET", key, b"0"], [b"GET", key]], [[b"MULTI"], [b"GET", key], [b"SET", key, b"1"], [b"EXEC"]],
                [[b"SET", key, b"x", b"PX", b"30"]], [[b"FLUSHALL"]])):
            who.send(*words)
            log.append(f"{who.caller.name}: {b' '.join(words).decode()}")
        if dice.random() < 0.6:
            world.run(ms=dice.choice((1, 50)))
    world.run(ms=300)
    assert world.server
    for believer in both:
        believer.listen()
        for key, value in believer.cache.items():
            real = world.server.databases[0].values.get(key)
            if value != real:
                lately = [line for line in log if key.decode() in line or line[-5:] in ("MULTI", ": EXEC", "SHALL")][-8:]
                raise Wrong(f"{believer.caller.name.capitalize()} believes that {key!r} is {value!r}, and it is {real!r}. Lately: "
                            f"{'; '.join(lately)}")
        if believer.told > believer.reads + sum("FLUSHALL" in line for line in log):
            raise Wrong(f"{believer.caller.name.capitalize()} has read {believer.reads} values, and was told of {believer.told} "
                        "changes: more than there were to forget.")
