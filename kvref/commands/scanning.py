"""Collections a few members at a time: SCAN and its kin by cursor, RANDFIELD and RANDMEMBER by chance.

Interface, for HSCAN, SSCAN and ZSCAN:
  - scanned(call, kind)                        the value to walk, or None, once the cursor is checked
  - scan_collection(call, value, is_small)     (next cursor, matching members) as `call.args[2:]` wants them

for HRANDFIELD, SRANDMEMBER and ZRANDMEMBER:
  - random_count(call, word)                   (count, whether `word`, such as WITHVALUES, is there too)
  - random_members(call, value, count)         so many members, drawn by `draw`; repeated if the count is negative

and for SCAN and KEYS, which walk a database:
  - parse_cursor, parse_page, PAGE_OPTIONS, matcher

A small collection (`is_small`: one that Redis would keep in one block of memory) has no Sampler and is scanned
whole. The others are walked by `kvref.sampling`: a member that is there all the time is found at least once.

Redis: parseScanCursorOrReply and scanGenericCommand in db.c, the random commands of t_hash.c, t_set.c and t_zset.c.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from random import Random
from typing import Any, Final, NamedTuple

from kvref.command_table import SYNTAX, Call
from kvref.commands.arguments import Option, bounded, integer, parse_options
from kvref.glob import glob_match
from kvref.numbers import INT64_MAX, UINT64_MAX
from kvref.resp import Error
from kvref.sampling import Collection

# ---- by cursor ---------------------------------------------------------------------------------


def parse_cursor(text: bytes) -> int:
    """Unsigned 64 bits, read by C's strtoul: nothing is 0, -1 is the largest number, a zero byte ends the text."""
    text = text.partition(b"\0")[0]
    if not re.fullmatch(rb"([+-]?[0-9]{1,40})?", text):
        raise INVALID_CURSOR
    cursor = int(text or b"0")
    if abs(cursor) > UINT64_MAX:
        raise INVALID_CURSOR
    return cursor & UINT64_MAX


INVALID_CURSOR: Final = Error("ERR invalid cursor")


def _positive(text: bytes) -> int:
    number = integer(text)
    if number < 1:
        raise SYNTAX
    return number


PAGE_OPTIONS: Final = {
    b"MATCH": Option("match", bytes),
    b"COUNT": Option("count", _positive),
}


class Page(NamedTuple):
    """What one call of SCAN and its kin asks for."""

    size: int                               # members to look at
    fits: Callable[[bytes], bool]           # which of them to answer with
    type: bytes | None                      # SCAN alone: keys of this type


def parse_page(words: list[bytes], table: Mapping[bytes, Option] = PAGE_OPTIONS) -> Page:
    """The options behind a cursor."""
    found = {name: value for name, (_, value) in parse_options(words, table).items()}
    return Page(found.get("count", 10), matcher(found.get("match", b"*")), found.get("type"))


def matcher(pattern: bytes) -> Callable[[bytes], bool]:
    """Whether a text fits a pattern. "*" is treated apart: it fits the empty text, too."""
    return (lambda text: True) if pattern == b"*" else partial(glob_match, pattern)


def scanned(call: Call, kind: type) -> Any:
    """The value that HSCAN, SSCAN or ZSCAN walks, or None. A bad cursor is worse than a wrong type."""
    parse_cursor(call.args[2])
    return call.read(call.args[1], kind)


def scan_collection(call: Call, value: Collection[Any] | None, is_small: bool) -> tuple[int, list[bytes]]:
    """The next cursor and the members found. Without a value the options are not even read."""
    if value is None:
        return 0, []
    cursor, page = parse_cursor(call.args[2]), parse_page(call.args[3:])
    cursor, some = (0, list(value)) if is_small else value.sampler.walk(cursor, page.size)
    call.touch(len(some))
    return cursor, [member for member in some if page.fits(member)]


# ---- by chance ---------------------------------------------------------------------------------

SMALL: Final = 128                          # so many members are listed faster than they are drawn one by one


def random_count(call: Call, word: bytes) -> tuple[int, bool]:
    """The count of HRANDFIELD and ZRANDMEMBER, and whether `word` follows it: then it may be half as large."""
    _, _, text, *more = call.args
    count = bounded(text, -INT64_MAX, INT64_MAX)
    if more and [word] != [one.upper() for one in more]:
        raise SYNTAX
    if more and abs(count) > INT64_MAX // 2:
        raise Error("ERR value is out of range")
    return count, bool(more)


def random_members(call: Call, value: Collection[Any], count: int) -> list[bytes]:
    """Different members, all of them if there are not more; for a negative count so many, each drawn from all.

    Members of a large collection are drawn one by one: O(count), not O(size). As in Redis nothing limits a negative
    count but memory, and `client-output-buffer-limit`: so many members as it has bytes, and the client is closed.
    """
    if count < 0:
        hard = (call.server.limits[call.client.kind] or (0,))[0] or INT64_MAX
        count = max(count, -hard)
    found = draw(value, count, call.server.random)
    call.touch(len(found))
    return found


def draw(value: Collection[Any], count: int, random: Random) -> list[bytes]:
    """The members for `random_members`."""
    size = abs(count)
    if len(value) <= count:
        return list(value)
    if len(value) <= max(SMALL, size):
        pool = list(value)
        return random.sample(pool, size) if count >= 0 else random.choices(pool, k=size)
    if count >= 0:
        return value.sampler.distinct(random, count)
    return [member for _ in range(size) if (member := value.sampler.pick(random)) is not None]
