"""Chapter 08, transactions on one thread: the judges of its exercises."""

from __future__ import annotations

from itertools import combinations, cycle
from typing import Any

from kvref.command_table import Command
from kvref.lab.judging import Wrong, exercise, expect
from kvref.resp import Error
from kvref.sim import ReplyError, World


@exercise("08-1", "First come, first served: go through `waiting` in its order, while there is anything left.",
          "BLPOP takes the first element that is left, BRPOP the last.",
          "Make a list of the elements; pop(0) for BLPOP, pop() for BRPOP, and stop when it is empty.")
def served(solution: Any) -> None:
    """Against: a push wakes everybody who waits."""
    for ends, elements in (("LL", "xyz"), ("LRL", "xyz"), ("RLRL", "xyz"), ("LR", "x"), ("R", "xy"), ("", "x"), ("LRRL", "vwxyz")):
        waiting = [(name, "BLPOP" if end == "L" else "BRPOP") for name, end in zip(("ann", "bob", "cem", "dot"), ends)]
        world = World(seed=1)                       # the server itself says what is right
        world.start()
        boss, clients = world.connect("boss"), [world.connect(name) for name, _ in waiting]
        for client, (_, command) in zip(clients, waiting):
            client.send(command, "jobs", "0")
            world.settle()
        boss("RPUSH", "jobs", *elements)
        wants = {client.name: client.replies[0][1].decode() for client in clients if client.replies}
        expect(solution, waiting, list(elements), wants=wants)


LIMIT = 100                         # commands that nobody disturbs; who needs more goes round in circles


def interrupted(caller: Any, others: dict[int, Any]) -> Any:
    """A client; `others` says which command of somebody else comes before its first, second ... command."""
    said, last = [0], max(others, default=0)

    def client(*words: Any) -> Any:
        said[0] += 1
        if said[0] > last + LIMIT:
            raise Wrong(f"After {said[0] - 1} commands it was still not through, though nobody has disturbed it for {LIMIT}.")
        if said[0] in others:
            others[said[0]]()
        return caller(*words)
    return client


@exercise("08-2", "Read the balance under WATCH. Decide. Then queue both changes, DECRBY and INCRBY.",
          "EXEC answers None if somebody was faster: then start again with WATCH. If there is too little: UNWATCH, and return False.",
          "while True: WATCH source; if int(GET source or 0) < amount: UNWATCH, return False; MULTI; DECRBY; INCRBY; "
          "if EXEC is not None: return True.")
def transfer(solution: Any) -> None:
    """Against: who looks again right before the write is safe."""
    times = [(), *[(number,) for number in range(1, 11)], *combinations(range(1, 9), 2)]
    for start, changes in ((100, (-50, 50)), (100, (-10, -50)), (100, (5, -5)), (100, (0, 0)), (60, (5, -5)), (40, (-30, 50))):
        for at in (*times, tuple(range(1, 601 if start == 60 else 61))):        # the last: right before each command
            world = World(seed=1)
            world.start()
            alice, bob = world.connect("alice"), world.connect("bob")
            alice("SET", "ann", start)
            balances, others, paid = [start], {}, [0]
            def look(told: str) -> tuple[int, int, int]:
                ann, ben, elsewhere = (int(value or 0) for value in bob("MGET", "ann", "ben", "elsewhere"))
                if ann + ben + elsewhere != start:
                    raise Wrong(told + f"All accounts together had {start} before, and now {ann + ben + elsewhere}.")
                if ann < 0:
                    raise Wrong(told + f"Now Ann has {ann}.")
                return ann, ben, elsewhere
            for number, change in zip(at, cycle(changes)):
                def other(number: int = number, change: int = change) -> None:
                    ann, *_ = look(f"Ann had {start}, 60 should go to Ben. Right before your command number {number}: ")
                    if ann + change >= 0:
                        bob("MULTI")
                        if change:
                            bob("INCRBY", "ann", change)
                        bob("INCRBY", "ben", 1)
                        bob("INCRBY", "elsewhere", -change - 1)
                        bob("EXEC")
                        paid[0] += 1
                    balances.append(int(bob("GET", "ann")))
                others[number] = other
            moved = solution(interrupted(alice, others), "ann", "ben", 60)
            told = (f"Ann had {start}, others came in {len(balances) - 1} time{'s' * (len(balances) != 2)}, 60 should go to Ben, "
                    f"and it returned {moved!r}. ")
            ben = look(told)[1] - paid[0]
            if moved not in (True, False):
                raise Wrong(told + "Return True or False.")
            if ben != (60 if moved else 0):
                raise Wrong(told + f"Ben got {ben}.")
            if not moved and min(balances) >= 60:
                raise Wrong(told + f"But Ann had {min(balances)} or more all the time.")
            if not everybody_is_free(world):
                raise Wrong("It has returned, and still a key is watched or a queue is open. UNWATCH, or DISCARD.")


def everybody_is_free(world: World) -> bool:
    """Whether no client watches or queues anything."""
    server = world.server
    assert server
    return not any(client.transaction and (client.transaction.open or client.transaction.changed or client.transaction.watched)
                   for client in server.clients.values())


@exercise("08-3", "Let super().block(call, *what) do the work. Then the client stands at the end of self.by_key[db.index, key], for each of its keys. Where should it stand?",
          "In a transaction nobody waits: only where the reply is BLOCKED is there a client to move. Its keys are call.client.blocked.keys.",
          "waiters = self.by_key[place]; self.by_key[place] = {call.client.id: call.client, **waiters}. And return the reply.")
def youngest(solution: Any) -> None:
    """Against: who waits is served in the end, in whatever order."""
    def world_with(*waiting: tuple[str, ...]) -> tuple[World, Any, list[Any]]:
        world = World(seed=1)
        server = world.start()
        server.waiting = solution(server)
        boss, *workers = world.connect("boss"), *[world.connect() for _ in waiting]
        workers.append(workers.pop(0))              # its number says nothing about when a client began to wait
        for worker, words in zip(workers, waiting):
            worker.send(*words)
            world.settle()
        return world, boss, workers

    def got(workers: list[Any]) -> str:
        return " ".join((worker.replies[0] or [b"", b"null"])[1].decode() if worker.replies else "-" for worker in workers)

    def check(workers: list[Any], wants: str, told: str) -> None:
        if (found := got(workers)) != wants:
            raise Wrong(f"{told} They got: {found}. It should be: {wants}.")
    _, boss, workers = world_with(*[("BLPOP", "jobs", "0")] * 3)
    boss("RPUSH", "jobs", "one", "two")
    check(workers, "- two one", "Three wait for jobs; RPUSH jobs one two.")
    boss("RPUSH", "jobs", "three", "four")
    check(workers, "three two one", "Then RPUSH jobs three four.")
    if boss("LRANGE", "jobs", "0", "-1") != [b"four"]:
        raise Wrong("Nobody waits any more, and one element should have stayed in the list.")
    _, boss, workers = world_with(("BLPOP", "b", "0"), ("BLPOP", "a", "0"), ("BLPOP", "a", "b", "0"))
    boss("MULTI")
    boss("RPUSH", "b", "b1")
    boss("RPUSH", "a", "a1")
    boss("EXEC")
    check(workers, "- a1 b1", "They wait for b, for a, for a and b; EXEC pushes b1 on b, then a1 on a.")
    _, boss, workers = world_with(("BLPOP", "a", "0"), ("BLPOP", "b", "0"))
    boss("RPUSH", "a", "a1")
    check(workers, "a1 -", "They wait for a, and for b; RPUSH a a1.")
    world, boss, workers = world_with(("BLPOP", "a", "0"), ("BLPOP", "a", "0.05"), ("BLPOP", "b", "a", "0"))
    workers[2].close()
    boss("MULTI")
    boss("BLPOP", "none", "0")
    if boss("EXEC") != [None]:
        raise Wrong("In a transaction nobody waits: BLPOP on an empty list should answer null there, at once.")
    world.run(ms=200)
    if workers[1].replies != [None]:
        raise Wrong("BLPOP a 0.05 should have answered null after 50 ms.")
    boss("RPUSH", "a", "one")
    if workers[0].replies != [[b"a", b"one"]]:
        raise Wrong("Of three who waited, one has hung up, and the time of one is over. The third should have been served.")
    assert world.server
    if world.server.waiting.by_key or len(world.server.waiting):
        raise Wrong("Nobody waits any more, but somebody still stands in by_key.")


def with_commands(solution: Any) -> tuple[World, Any]:
    """A world whose server knows the two commands, and which does not tidy up by itself."""
    world = World(seed=1)
    server = world.start(enable_debug_command="yes")
    for name, words, handler in zip(("delifeq", "setifeq"), (3, 4), solution, strict=True):
        server.commands[name.encode()] = Command(name, handler, words, frozenset({"write", "fast"}), (1, 1, 1), "string", "9.0.0", "")
    world.connect("judge")("DEBUG", "SET-ACTIVE-EXPIRE", "0")
    return world, server


def stubs(solution: Any) -> list[str]:
    """The commands of which nothing is there but a stub."""
    found = []
    for line in ("DELIFEQ k ann", "SETIFEQ k ann bob"):
        try:
            alice = with_commands(solution)[0].connect("alice")
            alice("SET", "k", "ann")
            answer(alice, line)
        except NotImplementedError:
            found.append(line.split()[0])
        except Exception:
            pass                                    # it is more than a stub
    return found


def answer(client: Any, line: str) -> Any:
    """The reply; of an error its first word."""
    try:
        return client(*line.split())
    except ReplyError as error:
        return str(error).split()[0]


@exercise("08-4", "call.args are the words. call.lookup(key, bytes) gives the value as it is now, None for a dead key, and refuses another type.",
          "call.db.delete(key) or call.db.set(key, new), which keeps the deadline; then call.changed(key, 'del') or call.changed(key, 'set'). Only if the value matches.",
          "For the log: call.log_as((b'DEL', key)), and call.log_as((b'SET', key, new, b'KEEPTTL')). Return 1.")
def own_commands(solution: Any) -> None:
    """Against: who replays the log knows my commands."""
    if not isinstance(solution, tuple | list) or len(solution) != 2 or not all(map(callable, solution)):
        raise Wrong('Give both, in this order: judge("08-4", (delifeq, setifeq)).')
    empty = stubs(solution)
    if len(empty) == 2:
        raise NotImplementedError
    for before, line, wants, value in (
            ("SET k ann", "DELIFEQ k ann", 1, None), ("SET k ann", "DELIFEQ k bob", 0, b"ann"), ("DEL k", "DELIFEQ k ann", 0, None),
            ("SET k ann", "SETIFEQ k ann bob", 1, b"bob"), ("SET k ann", "SETIFEQ k bob eve", 0, b"ann"), ("DEL k", "SETIFEQ k ann bob", 0, None),
            ("RPUSH k ann", "DELIFEQ k ann", "WRONGTYPE", "WRONGTYPE"), ("RPUSH k ann", "SETIFEQ k ann bob", "WRONGTYPE", "WRONGTYPE"),
            ("SET k ann PX 50", "DELIFEQ k ann", 0, None), ("SET k ann PX 50", "SETIFEQ k ann bob", 0, None),
            ("SET k ann PX 5000", "DELIFEQ k ann", 1, None), ("SET k ann PX 5000", "SETIFEQ k ann bob", 1, b"bob"),
            ("SET k ann PX 5000", "SETIFEQ k ann al", 1, b"al")):
        if line.split()[0] in empty:
            continue
        world, server = with_commands(solution)
        alice, bob = world.connect("alice"), world.connect("bob")
        log: list[tuple[bytes, ...]] = []
        server.feeds.append(lambda index, effect, log=log: log.append(tuple(effect)))
        alice(*before.split())
        world.run(ms=100)
        bob("WATCH", "k")
        deadlines = dict(server.databases[0].deadlines)
        events: list[tuple[bytes, str]] = []
        server.on_change.append(lambda db, key, event, events=events: events.append((key, event)))
        told = f"{before}, then 100 ms later {line}"
        try:
            found = alice("MULTI") and alice(*line.split()) and answer_of_exec(alice)
        except NotImplementedError:
            raise Wrong(f"{told}: it raised NotImplementedError. Something is still to be written there.") from None
        if found != wants or isinstance(found, bool):
            raise Wrong(f"{told}: the reply was {found!r}. It should be {wants!r}.")
        changes = [event for _, event in events if event not in ("expired", "new")]
        if changes != ([line[:3].lower()] if wants == 1 else []):
            raise Wrong(f"{told}: call.changed told of {changes}. It should tell of "
                        + (f"one change, '{line[:3].lower()}'." if wants == 1 else "none."))
        bob("MULTI")
        bob("PING")
        if (bob("EXEC") is None) != (wants == 1):
            raise Wrong(f"{told}: who watches k was " + ("not told." if wants == 1 else "told of a change, and there was none."))
        if (now := answer(bob, "GET k")) != value:
            raise Wrong(f"{told}: now GET k answers {now!r}. It should be {value!r}.")
        keys = dict(server.databases[0].values), dict(server.databases[0].deadlines)
        if value and wants == 1 and keys[1] != deadlines:
            raise Wrong(f"{told}: k has lost its deadline, or has another one.")
        again = World(seed=1)
        replica = again.start()
        replayer = again.connect("replayer")
        for effect in log:
            if not all(isinstance(word, bytes) for word in effect):
                raise Wrong(f"{told}: the log says {effect}. Give log_as tuples of bytes.")
            if isinstance(reply := answer_to(replayer, effect), ReplyError):
                raise Wrong(f"{told}: the log says {effect}, and a server without your commands answers: {reply}.")
        if (dict(replica.databases[0].values), dict(replica.databases[0].deadlines)) != keys:
            raise Wrong(f"{told}: the log says {log}. Replayed elsewhere, it gives other keys or deadlines than here.")
    if empty:
        [done] = {"DELIFEQ", "SETIFEQ"}.difference(empty)
        raise Wrong(f"{done} is right. {empty[0]} is still a stub.")


def answer_of_exec(client: Any) -> Any:
    """The only reply of a transaction; of an error its first word."""
    [reply] = client("EXEC")
    return str(reply.text).split()[0] if isinstance(reply, Error) else reply


def answer_to(client: Any, effect: tuple[bytes, ...]) -> Any:
    try:
        return client(*effect)
    except ReplyError as error:
        return error
