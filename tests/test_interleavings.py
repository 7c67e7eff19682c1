"""Several clients that wait, watch, queue and listen, in random order, on a redis-server and on kvref: the same to all.

Golden scripts show what somebody thought of; these show the rest. Each script is drawn from a seed and played on both.
"""

from __future__ import annotations

import random
import re
import shutil

import pytest

from tests import golden, record
from tests.conftest import Simulated

SCRIPTS = 12
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
    SUBSCRIBE c|PSUBSCRIBE c*|UNSUBSCRIBE c|UNSUBSCRIBE c|PUNSUBSCRIBE c*|PUNSUBSCRIBE c*|PUBLISH c v|PUBLISH c v|RESET
    PUBSUB NUMSUB c|PUBSUB NUMPAT|LRANGE k 0 -1|EXISTS k k|TYPE k|DBSIZE|PING
"""
WORDS = {"k": ("a", "b"), "v": tuple("123456789"), "end": ("LEFT", "RIGHT")}


def script(seed: int) -> golden.Script:
    """A script of several clients. Everybody has said PING before, so that everybody has a number."""
    chance = random.Random(seed)
    commands = [command.split() for line in COMMANDS.strip().split("\n") for command in line.strip().split("|")]
    lines = [f"{name}> PING" for name in CLIENTS] + [f"{name}> CLIENT UNBLOCK ${name}" for name in CLIENTS]
    for _ in range(STEPS):
        if chance.random() < 0.3:
            lines.append(f"ann> CLIENT UNBLOCK ${chance.choice(CLIENTS)}")
        words = ["$" + chance.choice(CLIENTS) if word == "$other" else chance.choice(WORDS.get(word, (word,)))
                 for word in chance.choice(commands)]
        speaker = "ann" if chance.random() < 0.3 else chance.choice(CLIENTS)
        if speaker == "ann" and words[0].startswith("B"):
            continue                                # somebody must be awake
        lines.append(f"{speaker}> {' '.join(words)}")
    parsed = golden.parse("\n\n".join(lines), f"seed {seed}")
    parsed.directives["notify-keyspace-events"] = "KEA" if seed % 3 == 0 else ""
    return parsed


@pytest.mark.skipif(not shutil.which("redis-server"), reason="redis-server is not installed")
@pytest.mark.parametrize("seed", range(SCRIPTS))
def test_everybody_hears_the_same(seed: int) -> None:
    drawn = script(seed)
    machine = Simulated()
    machine.start(**drawn.directives)
    with record.RedisServer(drawn.directives) as server:
        player = record.RealRedis(server)
        both = zip(golden.play(drawn, player), golden.play(drawn, machine))
        past: list[str] = []
        for (block, theirs), (_, ours) in both:
            past += [*block.above, re.sub("^", "    ", theirs, flags=re.M)]
            assert ours == theirs, "\n".join(past[-60:])
        player.close()
