"""Chapter 12, publish and subscribe: the judges of its exercises."""

from __future__ import annotations

from itertools import count
from typing import Any

from kvref.lab.judging import Wrong, exercise, expect
from kvref.sim import World

Client = tuple[set[bytes], set[bytes]]      # channels, patterns
ORDERS = [b"pizza", b"tea", b"soup", b"cake", b"salt"]


@exercise("12-1", "PUBLISH counts copies: a client may get more than one.",
          "Of each client: 1 if the channel is among its channels, and 1 for each of its patterns that fits.",
          "sum((channel in channels) + sum(glob_match(p, channel) for p in patterns) for channels, patterns in clients)")
def counted(solution: Any) -> None:
    """Against: PUBLISH counts clients."""
    news_eu = b"news.eu"
    bob: Client = ({news_eu}, set())
    eve: Client = ({news_eu, b"news.us"}, {b"news.*", b"n*u"})
    zoe: Client = (set(), {b"news.??", b"*"})
    for clients, channel, wants in (([], news_eu, 0), ([bob], news_eu, 1), ([bob], b"news", 0), ([eve], news_eu, 3),
                                    ([bob, eve, zoe], news_eu, 6), ([bob, eve, zoe], b"news.asia", 2), ([zoe], b"x", 1)):
        expect(solution, clients, channel, wants=wants)


@exercise("12-2", "Remember, for each publisher, the highest number that you have seen.",
          "The number that should come is one more than that; for a new publisher it is 1.",
          "Below the expected number: -1, and remember nothing. Else the difference, and remember the number.")
def watch(solution: Any) -> None:
    """Against: a subscriber notices what it has missed."""
    watch, said = solution(), []
    story = (("a", 1, 0), ("a", 2, 0), ("b", 3, 2), ("a", 2, -1), ("a", 6, 3), ("a", 4, -1), ("b", 4, 0), ("a", 7, 0))
    for publisher, number, wants in story:
        said.append(f"{publisher} {number}")
        found = watch.message(publisher, number)
        if found != wants or isinstance(found, bool):
            raise Wrong(f"After {', '.join(said[:-1]) or 'nothing'} came {said[-1]}: message returned {found!r}. "
                        f"It should be {wants}.")
    if solution().message("a", 1) != 0:
        raise Wrong("Two subscribers have one memory: keep it in self, not in the class.")


class Died(Exception):
    """The client has died."""


def mortal(caller: Any, dies_before: int) -> Any:
    """A client that dies before its so many-th command; 0: never. Who does not end would keep the judge for ever."""
    numbers = count(1)

    def client(*words: Any) -> Any:
        number = next(numbers)
        if number == dies_before:
            raise Died
        if number > 1000:
            raise Wrong("A thousand commands, and no end. Return when nothing is left: here nobody waits for the bell.")
        return caller(*words)
    return client


@exercise("12-3", "A client may die anywhere. What must have happened before the bell rings? What before the offset moves?",
          "RPUSH, then the bell. LRANGE log offset -1 gives all that is not done. Move the offset after each handle, "
          "and for each message.",
          "work: offset = int(client('GET', key) or 0); for message in client('LRANGE', 'log', offset, -1): "
          "handle(message); client('INCR', key).")
def log_and_bell(solution: Any) -> None:
    """Against: the message on the channel is the job."""
    send, work = solution
    _, alice, _ = _computer()
    for order in ORDERS[:3]:
        send(mortal(alice, 0), order)
    for group in ("kitchen", "books"):
        _works(work, alice, group, ORDERS[:3], "Three orders were sent.")
    _works(work, alice, "kitchen", [], "All were done.")
    send(mortal(alice, 0), ORDERS[3])
    _works(work, alice, "kitchen", [ORDERS[3]], "Then another one was sent.")
    if "log" not in [key.decode() for key in alice("KEYS", "*")]:
        raise Wrong('The messages should be in the list "log".')
    for dies_before in range(1, 5):
        _dying_sender(send, work, dies_before)
    for dies_before in range(1, 15):
        _dying_worker(send, work, dies_before)
    for dies_at in ORDERS[:3]:
        _dying_worker(send, work, 0, dies_at)


def _computer() -> tuple[World, Any, Any]:
    world = World(seed=1)
    world.start()
    bob = world.connect("bob")
    bob("SUBSCRIBE", "bell")
    return world, world.connect("alice"), bob


def _works(work: Any, caller: Any, group: str, wants: list[bytes], story: str) -> None:
    done: list[bytes] = []
    work(mortal(caller, 0), group, done.append)
    if done != wants:
        raise Wrong(f"{story} The group {group!r} should do {wants}, and did {done}.")


def _dying_sender(send: Any, work: Any, dies_before: int) -> None:
    world, alice, bob = _computer()
    try:
        send(mortal(alice, dies_before), ORDERS[0])
        survived = True
    except Died:
        survived = False
    world.settle()
    alice.close()
    done: list[bytes] = []
    work(mortal(world.connect("eve"), 0), "kitchen", done.append)
    if bob.pushes and not done:
        raise Wrong("A sender died in between: the bell has rung, and there is no message.")
    if survived and not (bob.pushes and done == ORDERS[:1]):
        raise Wrong("One message was sent. " + ("It cannot be found." if bob.pushes else "The bell has not rung."))


def _dying_worker(send: Any, work: Any, dies_before: int, dies_at: bytes = b"") -> None:
    world, alice, _ = _computer()
    for order in ORDERS:
        send(alice, order)
    done: list[bytes] = []

    def handle(message: bytes) -> None:
        if message == dies_at:
            raise Died
        done.append(message)
    try:
        work(mortal(world.connect("bob"), dies_before), "kitchen", handle)
    except Died:
        pass
    work(mortal(world.connect("bob"), 0), "kitchen", done.append)
    when = f"while it did {dies_at!r}" if dies_at else f"before its command number {dies_before}"
    if list(dict.fromkeys(done)) != ORDERS:
        raise Wrong(f"A worker died {when}, and another one went on. Together they did {done}.")
    if len(done) > len(ORDERS) + 1:
        raise Wrong(f"A worker died {when}. {len(done) - len(ORDERS)} messages were done twice; one is enough.")


@exercise("12-4", "Begin with one that calls super() in both methods, and remembers the last message of each channel as a Push.",
          "What you append within subscribe stands before the confirmation. Give server.loop.add_timer a function "
          "that appends it later. Who is in self.channels.get(name, {}) already is owed nothing.",
          "Note the Push that is owed, for each (client.id, name). The function takes the note away and looks again: is it "
          "still the last one, and client.id in self.channels.get(name, {})? Then client.append(encode(push, client.resp)).")
def last_word(solution: Any) -> None:
    """Against: a message that comes late or twice does no harm."""
    for resp in ("2", "3"):
        world, alice, bob, eve = _with(solution, resp)
        bob("SUBSCRIBE", "score")
        world.run(ms=10)
        _heard(bob, [], "Nothing was published.")
        if [alice("PUBLISH", "score", text) for text in ("1:0", "2:0")] != [1, 1] or alice("PUBLISH", "rain", "soon") != 0:
            raise Wrong("PUBLISH no longer answers with the number of copies.")
        world.run(ms=10)
        _heard(bob, [b"1:0", b"2:0"], "Bob was there all the time.")
        before = len(eve.received)
        eve("SUBSCRIBE", "other", "score")
        world.run(ms=10)
        _heard(eve, [b"2:0"], "1:0 and 2:0 were published, then Eve came.")
        if eve.received.rfind(b"subscribe", before) > eve.received.find(b"2:0", before):
            raise Wrong("The message stands before the confirmation of the subscription.")
        if (b">" if resp == "3" else b"*") + b"3\r\n$7\r\nmessage" not in eve.received[before:]:
            raise Wrong(f"Eve speaks RESP{resp}, and the message is not written as PUBLISH writes it to her: encode a Push, "
                        "by client.resp.")
        _heard(bob, [], "Eve came, and Bob was there before.")
        eve("PSUBSCRIBE", "r*")
        world.run(ms=10)
        _heard(eve, [], "Eve subscribed by a pattern, and those stay as they are.")
        bob("SUBSCRIBE", "score")
        eve("PSUBSCRIBE", "score")
        world.run(ms=10)
        _heard(bob, [], "Bob, who listens to score, says SUBSCRIBE score again.")
        _heard(eve, [], "Eve says PSUBSCRIBE score: that is a pattern, too.")
        if alice("PUBLISH", "score", "3:0") != 3:
            raise Wrong("Bob listens, Eve listens twice, and PUBLISH does not answer 3.")
    _races(solution)


def _races(solution: Any) -> None:
    world, alice, bob, eve = _with(solution, "2")
    alice("PUBLISH", "score", "old")
    bob.send("SUBSCRIBE", "score")
    alice.send("PUBLISH", "score", "new")
    world.run(ms=10)
    heard = [push[-1] for push in bob.pushes]
    if heard not in ([b"new"], [b"old", b"new"]):
        raise Wrong(f"Bob subscribes, and in the same turn of the loop *new* is published after *old*. He hears {heard}.")
    eve.send("SUBSCRIBE", "score")
    eve.send("UNSUBSCRIBE", "score")
    world.run(ms=10)
    if eve.received.rfind(b"new") > eve.received.rfind(b"unsubscribe"):
        raise Wrong("Eve subscribed and unsubscribed in one turn of the loop, and hears a message afterwards.")
    zoe = world.connect("zoe")
    alice("PUBLISH", "rain", "soon")
    zoe.send("SUBSCRIBE", "rain")
    zoe.send("UNSUBSCRIBE", "rain")                     # nobody is left: the channel is gone
    world.run(ms=10)
    if zoe.received.rfind(b"soon") > zoe.received.rfind(b"unsubscribe"):
        raise Wrong("Zoe subscribed and unsubscribed in one turn of the loop, and hears a message afterwards.")
    for word in ("SUBSCRIBE", "UNSUBSCRIBE", "SUBSCRIBE"):
        zoe.send(word, "rain")
    world.run(ms=10)
    times = zoe.received.rpartition(b"subscribe")[2].count(b"soon")
    if times != 1:
        raise Wrong("Zoe said SUBSCRIBE, UNSUBSCRIBE, SUBSCRIBE in one turn of the loop. After that she should hear the last "
                    f"message once, and hears it {times} times.")
    ann = world.connect("ann")
    ann.send("SUBSCRIBE", "score", "score")
    world.run(ms=10)
    _heard(ann, [b"new"], "Ann said SUBSCRIBE score score.")
    zoe.send("SUBSCRIBE", "score")
    zoe.send("QUIT")
    zoe.close()
    world.run(ms=10)
    if alice("PING") != "PONG":
        raise Wrong("Zoe subscribed and left in one turn of the loop, and the server does not answer any more.")


def _with(solution: Any, resp: str) -> tuple[World, Any, Any, Any]:
    world = World(seed=1)
    server = world.start()
    _limit_timers(server.loop)
    server.pubsub = solution(server)
    for method in ("subscribe", "unsubscribe", "publish", "forget"):
        if not callable(getattr(server.pubsub, method, None)):
            raise Wrong(f"The server needs {method}: make a class on top of PubSub.")
    bob, alice, eve = (world.connect(name) for name in ("bob", "alice", "eve"))         # bob's requests are found first
    for caller in (bob, eve):
        caller("HELLO", resp)
    return world, alice, bob, eve


def _limit_timers(loop: Any) -> None:
    """A function that comes back at once for ever would keep this world from ever being done."""
    add_timer = loop.add_timer

    def limited(delay_ms: int, function: Any) -> Any:
        calls = count()

        def once_in_a_while() -> Any:
            if next(calls) > 100:
                raise Wrong("Your timer runs again and again: its function must return None.")
            return function()
        return add_timer(delay_ms, once_in_a_while)
    loop.add_timer = limited


def _heard(caller: Any, wants: list[bytes], story: str) -> None:
    heard = [push[-1] for push in caller.pushes]
    caller.pushes.clear()
    if heard != wants:
        raise Wrong(f"{story} {caller.name.capitalize()} should hear {wants}, and hears {heard}.")
