"""The command table against a real redis-server's, and against tests/commands.txt, the list of what is in.

    python -m tests.test_command_table      writes tests/commands.txt anew
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from kvref import command_table
from kvref.resp import Error
from tests import golden, grammar, record
from tests.differences import Kvref, Redis

LIST = Path(__file__).parent / "commands.txt"
NEWER = {"client|setinfo", "waitaof"}      # of Redis 7.2
NAMES = [row.name for row in command_table.commands() if row.name not in NEWER]
GETKEYS = 3_000                 # random commands whose keys are looked for


def listing() -> str:
    """Every command on a line of its own, a subcommand as parent|name, sorted."""
    return "".join(f"{row.name}\n" for row in command_table.commands())


class Both:
    """The same question to redis-server and to kvref."""

    def __init__(self, port: int) -> None:
        self.sides = Redis(port), Kvref()

    def ask(self, requests: Sequence[Sequence[bytes]]) -> list[list[Any]]:
        """The replies of Redis, and those of kvref."""
        return [[golden.replies(reply)[0][0] for reply in side.ask(requests)] for side in self.sides]


@pytest.fixture(scope="module")
def both(redis_server: record.RedisServer) -> Iterator[Both]:
    both = Both(redis_server.port)
    yield both
    both.sides[0].sock.close()


def about(info: list[Any]) -> dict[str, Any]:
    """The first six elements of COMMAND INFO."""
    name, arity, flags, first, last, step = info[:6]
    return {"name": name, "arity": arity, "flags": sorted(flags), "keys": (first, last, step)}


def test_command_info_says_what_redis_says(both: Both) -> None:
    redis, kvref = both.ask([[b"COMMAND", b"INFO", name.encode()] for name in NAMES])
    wrong = [f"{theirs} is in kvref {ours}" for [theirs], [ours] in zip(redis, kvref)
             if theirs is None or about(theirs) != about(ours)]
    assert not wrong


def test_subcommands_are_redis_s(both: Both) -> None:
    parents = [name for name in NAMES if "|" not in name]
    redis, kvref = both.ask([[b"COMMAND", b"INFO", name.encode()] for name in parents])
    for [theirs], [ours] in zip(redis, kvref):
        known = {sub[0] for sub in theirs[9]} | {name.encode() for name in NEWER}
        assert {sub[0] for sub in ours[9]} <= known


def test_command_list_names_subcommands_too_as_redis_does(both: Both) -> None:
    redis, kvref = both.ask([[b"COMMAND", b"LIST"], [b"COMMAND", b"LIST", b"FILTERBY", b"PATTERN", b"config*"]])
    assert set(kvref[0]) - {name.encode() for name in NEWER} <= set(redis[0]) and b"client|list" in kvref[0]
    assert sorted(kvref[1]) == sorted(redis[1])


def test_command_docs_say_the_same_of_origin_and_group(both: Both) -> None:
    redis, kvref = both.ask([[b"COMMAND", b"DOCS", name.encode()] for name in NAMES])
    wrong = []
    for name, theirs, ours in zip(NAMES, redis, kvref):
        found = [{word: docs[docs.index(word) + 1] for word in (b"since", b"group")} for _, docs in (theirs, ours)]
        if found[0] != found[1]:
            wrong.append(f"{name}: {found[0]} is in kvref {found[1]}")
    assert not wrong


def test_every_summary_is_a_sentence_of_our_own(both: Both) -> None:
    redis, kvref = both.ask([[b"COMMAND", b"DOCS", name.encode()] for name in NAMES])
    for name, theirs, ours in zip(NAMES, redis, kvref):
        summary = ours[1][ours[1].index(b"summary") + 1]
        assert summary.endswith(b".") and summary != theirs[1][theirs[1].index(b"summary") + 1], name


def test_command_getkeys_finds_the_same_keys(both: Both) -> None:
    """Of random commands, some of them spoilt."""
    author = grammar.Author(random.Random(1), frozenset(NAMES))
    commands = [author.command().words for _ in range(GETKEYS)]
    commands += [[name.encode(), *[b"2"] * count] for name in NAMES if "|" not in name for count in range(6)]
    redis, kvref = both.ask([[b"COMMAND", b"GETKEYS", *words] for words in commands])
    wrong = [f"{words}: {shown(theirs)} is in kvref {shown(ours)}"
             for words, theirs, ours in zip(commands, redis, kvref) if shown(theirs) != shown(ours)]
    assert not wrong


def shown(reply: Any) -> Any:
    return reply.text if isinstance(reply, Error) else reply


def test_commands_txt_lists_what_is_in() -> None:
    assert LIST.read_text() == listing(), "python -m tests.test_command_table writes it anew"


def test_the_grammar_of_the_comparison_knows_every_command_on_data() -> None:
    """But for those that may wait: there one client alone would wait for ever."""
    known = {grammar.command_name(line) for _, line, _ in grammar.lines()}
    data = {"string", "bitmap", "list", "hash", "set", "sorted-set", "generic"}
    at_the_end = {"dump", "restore", "object", "object|encoding", "object|refcount", "object|help"}     # of an example, or of no interest
    wanted = {row.name for row in command_table.commands() if row.group in data and "blocking" not in row.flags}
    assert wanted - known <= at_the_end


if __name__ == "__main__":
    LIST.write_text(listing())
