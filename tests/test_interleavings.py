"""Several clients that wait, watch, queue and listen, in random order, on a redis-server and on kvref: the same to all.

Golden scripts show what somebody thought of; these show the rest. Hypothesis draws who says what when; each script is
played on both.
"""

from __future__ import annotations

import re

import hypothesis
from hypothesis import strategies as st

from tests import golden, record
from tests.conftest import Simulated

SCRIPTS = 25
STEPS = 120
CLIENTS = ("ann", "bob", "cat", "dan")
COMMANDS = """
    BLPOP k k 0|BRPOP k 0|BLMOVE k k end end 0|BRPOPLPUSH k k 0|BLMPOP 0 2 k k end COUNT 2
    BZPOPMIN k 0|BZPOPMAX k k 0|BZMPOP 0 2 k k MIN COUNT 2
    RPUSH k v|RPUSH k v v|LPUSH k v v v|ZADD k 1 v|ZADD k 1 v 2 v|SET k v|SADD k v|DEL k|DEL k k|RPUSH k v|RPUSH k v v
    LPOP k|LMOVE k k end end|RENAME k k|RENAMENX k k|COPY k k REPLACE|MOVE k 1|SORT k ALPHA STORE k|SUNIONSTORE k k k
    ZUNIONSTORE k 2 k k|ZRANGESTORE k k 0 -1|FLUSHALL|FLUSHDB|SWAPDB 0 1|SELECT 1|SELECT 0|SELECT 0|EXPIRE k -1|PERSIST k
    MULTI|MULTI|MULTI|EXEC|EXEC|EXEC|EXEC|EXEC|DISCARD|WATCH k|WATCH k k|UNWATCH|NOSUCH|GET
    CLIENT UNBLOCK $other|CLIENT UNBLOCK $other ERROR|CLIENT UNBLOCK $other|CLIENT UNBLOCK $other|CLIENT KILL ID $other
    SUBSCRIBE c|PSUBSCRIBE c*|UNSUBSCRIBE c|UNSUBSCRIBE c|PUNSUBSCRIBE c*|PUNSUBSCRIBE c*|PUBLISH c v|PUBLISH c v
    RESET|RESET|RESET
    PUBSUB NUMSUB c|PUBSUB NUMPAT|LRANGE k 0 -1|EXISTS k k|TYPE k|DBSIZE|PING
"""
WORDS = {"k": ("a", "b"), "v": tuple("123456789"), "end": ("LEFT", "RIGHT")}
SAYINGS = [command.split() for line in COMMANDS.strip().split("\n") for command in line.strip().split("|")]
WAITS = [words for words in SAYINGS if words[0].startswith("B")]
ANN_SAYS = [words for words in SAYINGS if words not in WAITS] + [["CLIENT", "UNBLOCK", "$other"]] * 5
OTHERS_SAY = SAYINGS + WAITS * 3


@st.composite
def lines(draw: st.DrawFn) -> str:
    """One step of somebody. Ann never waits: somebody must be awake, and she wakes the others."""
    speaker = draw(st.sampled_from(["ann", *CLIENTS]))
    words = draw(st.sampled_from(ANN_SAYS if speaker == "ann" else OTHERS_SAY))
    return f"{speaker}> " + " ".join(
        "$" + draw(st.sampled_from(CLIENTS)) if word == "$other" else draw(st.sampled_from(WORDS.get(word, (word,))))
        for word in words)


# Everybody has said PING before, and so everybody has a number.
OPENING = [f"{name}> PING" for name in CLIENTS] + [f"{name}> CLIENT UNBLOCK ${name}" for name in CLIENTS]


def test_everybody_hears_the_same(redis_server: record.RedisServer) -> None:
    shared = record.RealRedis(redis_server)
    admin = shared.connect("admin")

    def on_redis(*words: str) -> None:
        admin.send_bytes(golden.request(*words))
        shared.settle([])
        assert admin.take().startswith(b"+")

    @hypothesis.settings(max_examples=SCRIPTS, phases=[hypothesis.Phase.generate])     # shrinking takes minutes
    @hypothesis.given(said=st.lists(lines(), min_size=STEPS // 4, max_size=STEPS), events=st.sampled_from(["", "KEA"]))
    def compare(said: list[str], events: str) -> None:
        drawn = golden.parse("\n\n".join([*OPENING, *said]))
        on_redis("CONFIG", "SET", "notify-keyspace-events", events)
        on_redis("FLUSHALL")
        machine = Simulated()
        machine.start(**{"notify-keyspace-events": events})
        player = record.RealRedis(redis_server)
        try:
            past: list[str] = []
            both = zip(golden.play(drawn, player), golden.play(drawn, machine))
            for (block, theirs), (_, ours) in both:
                past += [*block.above, re.sub("^", "    ", theirs, flags=re.M)]
                assert ours == theirs, "\n".join(past[-60:])
        finally:
            player.close()

    try:
        compare()
    finally:
        on_redis("CONFIG", "SET", "notify-keyspace-events", "")
        shared.close()
