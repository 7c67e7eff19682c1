"""kvref and a real redis-server answer the same to random commands; and the machine that says so would notice."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from kvref import command_table
from kvref.resp import NULL_ARRAY
from tests import record
from tests.differences import Difference, Pair, available, script, shrink
from tests.grammar import Author, Command


@pytest.fixture(scope="module")
def pair(redis_server: record.RedisServer) -> Iterator[Pair]:
    pair = Pair(redis_server.port)
    yield pair
    pair.close()


RANDOM = st.randoms(use_true_random=False)


class Clients(RuleBasedStateMachine):
    """Somebody sends pipelines of random commands to both servers."""

    pair: Pair

    def __init__(self) -> None:
        super().__init__()
        self.author = Author(random.Random(), available())
        self.sent: list[Command] = []
        self.resp, self.differed = 2, False

    @initialize(resp=st.sampled_from([2, 3]), random=RANDOM)
    def begin(self, resp: int, random: random.Random) -> None:
        self.author.random, self.resp = random, resp
        self.pair.start(resp)
        self.send(self.author.opening())

    @rule(randoms=st.lists(RANDOM, min_size=1, max_size=8))
    def pipeline(self, randoms: list[random.Random]) -> None:
        commands = []
        for self.author.random in randoms:
            commands.append(self.author.command())
        self.send(commands)

    def send(self, commands: list[Command]) -> None:
        self.sent += commands
        self.judge(self.pair.run(commands))

    def teardown(self) -> None:
        if not self.differed:
            self.judge(self.pair.finish())

    def judge(self, found: Difference | None) -> None:
        if found:
            self.differed = True
            pytest.fail("kvref differs from Redis:\n\n" + script(*shrink(self.pair, self.sent, self.resp, found)))


def test_kvref_answers_random_commands_as_redis_does(pair: Pair) -> None:
    """`shrink` is quicker than Hypothesis's way, which does not know that commands can be dropped one by one."""
    Clients.pair = pair
    run_state_machine_as_test(Clients, settings=hypothesis.settings(
        max_examples=120, stateful_step_count=20, phases=[hypothesis.Phase.generate]))


# --- the machine itself ----------------------------------------------------------------------------------------------

def wrong(reply: Callable[[Any], Any]) -> Callable[[Callable[[Any], Any]], Callable[[Any], Any]]:
    return lambda handler: lambda call: reply(handler(call))


def forgetful(handler: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Does its work, and counts no change."""
    def run(call: Any) -> Any:
        before = call.server.dirty
        reply = handler(call)
        call.server.dirty = before
        return reply
    return run


def careless(handler: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Leaves the key with its deadline."""
    def run(call: Any) -> Any:
        deadline = call.db.deadlines.get(call.args[1])
        reply = handler(call)
        if deadline and call.args[1] in call.db.values:
            call.db.expire_at(call.args[1], deadline)
        return reply
    return run


def broken(handler: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def run(call: Any) -> Any:
        if call.db.values:
            raise ZeroDivisionError
        return handler(call)
    return run


MISTAKES: dict[str, tuple[str, Callable[[Callable[[Any], Any]], Callable[[Any], Any]]]] = {
    "a length is one too large": ("llen", wrong(lambda reply: reply + 1)),
    "a null is an empty array": ("lpop", wrong(lambda reply: [] if reply is NULL_ARRAY else reply)),
    "a set in RESP3 is an array": ("smembers", wrong(list)),
    "a member is drawn twice":
        ("srandmember", wrong(lambda reply: reply[:1] * len(reply) if type(reply) is list else reply)),
    "a member is drawn that is not there": ("spop", wrong(lambda reply: b"nobody" if type(reply) is bytes else reply)),
    "a scan loses a member": ("hscan", wrong(lambda reply: [reply[0], reply[1][2:]])),
    "a change is not counted": ("zadd", forgetful),
    "SET keeps the deadline": ("set", careless),
    "a handler fails": ("persist", broken),
}


DRAWN = {"srandmember", "spop"}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_found_and_told_in_few_lines(mistake: str, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    name, spoil = MISTAKES[mistake]
    with monkeypatch.context() as patch:
        row = command_table._declared[name]
        assert row.handler
        patch.setattr(row, "handler", spoil(row.handler))
        pair.kvref.boot()
        for number in range(100):
            author = Author(random.Random(number), available())
            commands = [author.command() for _ in range(100)]
            if found := pair.difference(commands, 3):
                break
        else:
            pytest.fail("not found")
        told = script(*shrink(pair, commands, 3, found))
    pair.kvref.boot()
    few = 12 if name not in DRAWN else 100          # what was drawn once is not drawn again: shrinking may stop early
    assert name in told.lower() and len(told.split("\n")) <= few, told
