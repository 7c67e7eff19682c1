"""Glob patterns: Redis's own corners, compared with a real server, and no pattern that takes for ever."""

from __future__ import annotations

import random
import time

import pytest
import redis

from kvref.glob import glob_match
from tests import record

MATCHES = [
    (b"*", b"a"), (b"**", b"a"), (b"a*", b"a"), (b"a*", b"abc"), (b"*c", b"abc"), (b"a*c", b"ac"), (b"a*b*c", b"axbxc"),
    (b"?", b"\n"), (b"a?c", b"abc"), (b"", b""), (b"h[ae]llo", b"hello"), (b"h[^e]llo", b"hallo"), (b"[a-c]", b"b"),
    (b"[c-a]", b"b"), (b"[^", b"x"), (b"[ab", b"a"), (b"[a-", b"-"), (b"\\*", b"*"), (b"\\", b"\\"), (b"[\\]]", b"]"),
    (b"a\\", b"a\\"), (b"[^]", b"x"), (b"\xff*", b"\xff\xfe"), (b"a**b", b"ab"), (b"[a-]]", b"^"),
]
OTHERS = [
    (b"*", b""), (b"**", b""), (b"", b"a"), (b"a", b""), (b"?", b""), (b"?", b"ab"), (b"a*c", b"ab"), (b"[]", b"x"),
    (b"[^e]", b"e"), (b"[", b"["), (b"\\*", b"a"), (b"a", b"A"), (b"*a*b", b"ba"), (b"[a-c]", b"d"), (b"ab", b"a\n"),
]


@pytest.mark.parametrize(("pattern", "text"), MATCHES)
def test_it_matches(pattern: bytes, text: bytes) -> None:
    assert glob_match(pattern, text)


@pytest.mark.parametrize(("pattern", "text"), OTHERS)
def test_it_does_not_match(pattern: bytes, text: bytes) -> None:
    assert not glob_match(pattern, text)


def test_case_may_be_ignored_but_not_behind_a_backslash_in_a_class() -> None:
    assert glob_match(b"MAX*[A-C]", b"max-b", nocase=True)
    assert not glob_match(b"[\\A]", b"a", nocase=True)
    assert not glob_match(b"[Z-a]", b"z", nocase=True)


def test_many_stars_cost_no_more_than_a_product() -> None:
    """A matcher that tries every division of the text between the stars would not end in this century."""
    started = time.process_time()
    assert not glob_match(b"*a" * 60 + b"b", b"a" * 5000)
    assert not glob_match(b"a*?*" * 60 + b"b", b"a" * 5000)
    assert time.process_time() - started < 1


def test_a_huge_pattern_costs_little_on_a_short_text() -> None:
    started = time.process_time()
    assert not glob_match(b"?" * 10_000_000, b"key")
    assert not glob_match(b"abc" * 1_000_000 + b"*", b"key")
    assert time.process_time() - started < 1


def test_random_patterns_match_what_they_match_in_redis(redis_server: record.RedisServer) -> None:
    """CONFIG GET and KEYS ask the same function; KEYS can be asked about any text."""
    client = redis.Redis(port=redis_server.port)
    chance = random.Random(7)
    alphabet = b"ab-]\xe9"
    texts = sorted({bytes(chance.choices(alphabet, k=length)) for length in (1, 2, 3, 4) for _ in range(40)})
    client.flushdb()
    client.mset(dict.fromkeys(texts, b""))
    for _ in range(1500):
        pattern = bytes(chance.choices(b"ab-]*?[^\\*", k=chance.randrange(1, 9)))
        if pattern != b"*":
            expected = sorted(client.keys(pattern))
            assert [text for text in texts if glob_match(pattern, text)] == expected, pattern
    client.flushdb()
