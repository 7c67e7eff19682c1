"""Sorted sets: members with a score each, in the order of their scores.

Interface: the commands of the group "sorted-set", and for the blocking forms of those that pop
  - ENDS                                    MIN and MAX: how popping there is called
  - pop(call, key, end, count)              up to so many (member, score), None without a sorted set
  - pop_first(call, keys, end, count)       [key, pairs] of the first key that holds a sorted set, None without one

A sorted set answers two questions. What is the score of a member? A dict knows. Which member is at which place?
A skip list knows (kvref/skiplist.py); equal scores stand in the order of the members' bytes. All ranges work alike, by
rank, by score or by member: both bounds are turned into places, and what is wanted of the members between these
places follows, to see them, to count them, to store them or to take them out.

Several sorted sets make one: by union, intersection, difference. A set will do, too: each member has the score 1.
Where a member is in several of them its scores are multiplied by the sets' weights and aggregated, by SUM, MIN or MAX.
inf - inf and 0 * inf are 0 here, not NaN. The order of additions shows in the last digit: the smallest set goes first.

What the log gets, where it is not the command itself:

    ZMPOP 2 k l MIN COUNT 5         ZPOPMIN k 3         the key it was, and as many as there were

Redis: t_zset.c. Simpler here: no second layout for small sets, ZDIFF has one algorithm where Redis has two to choose
from, and -0 is always stored as 0. Ranges by member are meant for members of one score; with several
scores they are right where the members ascend all the same, else what a search in that layout happens to bring.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial, reduce
from itertools import chain
from math import inf, isnan, nextafter
from typing import Any, Final

from kvref.command_table import SYNTAX, WRONGTYPE, Call, command, counted_keys
from kvref.commands.arguments import (Option, bounded, counted_pop, double, input_keys, integer, parse_options,
                                      positive, span)
from kvref.commands.scanning import random_count, random_members, scan_collection, scanned
from kvref.commands.storing import store
from kvref.numbers import INT64_MAX, format_double, parse_double, strtod
from kvref.resp import NULL_ARRAY, Error, Pairs
from kvref.sampling import Collection, Members
from kvref.skiplist import SortedSet
from kvref.values import encoding

Scored = list[tuple[bytes, float]]          # members and their scores
Found = Mapping[str, tuple[bytes, Any]]     # what parse_options returns

# ---- members and scores ------------------------------------------------------------------------

# Whether a member may get a score; `old` is None for a new member.
RULES: Final[dict[bytes, Callable[[float | None, float], bool]]] = {
    b"NX": lambda old, new: old is None,
    b"XX": lambda old, new: old is not None,
    b"GT": lambda old, new: old is None or new > old,
    b"LT": lambda old, new: old is None or new < old,
}
ADD_WORDS: Final = {*RULES, b"CH", b"INCR"}


@command("zadd", arity=-4, flags="write denyoom fast", keys=(1, 1, 1), group="sorted-set", since="1.2.0")
def zadd(call: Call) -> int | float | None:
    "Give members their scores, new ones and old ones; how many are new."
    args = call.args
    score = parse_double(args[2]) if len(args) == 4 else None
    if score is None:
        return _add(call, set())
    value = call.lookup_or_new(args[1], SortedSet)          # the usual case: one member, no options
    call.touch(1)
    if value.scores.get(args[3]) == score:
        return 0
    is_new = value.put(args[3], score)
    call.changed(args[1], "zadd")
    return int(is_new)


@command("zincrby", arity=4, flags="write denyoom fast", keys=(1, 1, 1), group="sorted-set", since="1.2.0")
def zincrby(call: Call) -> int | float | None:
    "Add to the score of a member, which is 0 if it is new; the sum."
    return _add(call, {b"INCR"})


def _add(call: Call, words: set[bytes]) -> int | float | None:
    """How many are new (CH: or changed); for INCR the sum, or None where a rule forbids it."""
    args, at = call.args, 2
    while at < len(args) and (word := args[at].upper()) in ADD_WORDS:
        words.add(word)
        at += 1
    rules = _rules(words, len(args) - at) if words or len(args) % 2 else []
    scores = [double(text) for text in args[at::2]]
    key, is_sum = args[1], b"INCR" in words
    if b"XX" in words and call.db.find(key, call.now_ms) is None:
        return None if is_sum else 0
    value = call.lookup_or_new(key, SortedSet)
    call.touch(len(scores))
    added, changed, result = 0, 0, None
    for new, member in zip(scores, args[at + 1::2]):
        old = value.scores.get(member)
        if is_sum and old is not None:
            new += old
            if isnan(new) and b"NX" not in words:
                raise Error("ERR resulting score is not a number (NaN)")
        if rules and not all([rule(old, new) for rule in rules]):
            continue
        result = new
        if old != new:
            added += value.put(member, new)
            changed += 1
    if changed:
        call.changed(key, "zincr" if is_sum else "zadd", changed)
    return result if is_sum else changed if b"CH" in words else added


def _rules(words: set[bytes], count: int) -> list[Callable[..., bool]]:
    """The rules among the words, for so many arguments behind them."""
    if not count or count % 2:
        raise SYNTAX
    if {b"NX", b"XX"} <= words:
        raise Error("ERR XX and NX options at the same time are not compatible")
    if len({b"NX", b"GT", b"LT"} & words) > 1:
        raise Error("ERR GT, LT, and/or NX options at the same time are not compatible")
    if b"INCR" in words and count > 2:
        raise Error("ERR INCR option supports a single increment-element pair")
    return [rule for word, rule in RULES.items() if word in words]


@command("zrem", arity=-3, flags="write fast", keys=(1, 1, 1), group="sorted-set", since="1.2.0")
def zrem(call: Call) -> int:
    "Take members out; how many of them were there."
    _, key, *members = call.args
    call.touch(len(members))
    value = call.lookup(key, SortedSet)
    removed = 0 if value is None else sum([value.remove(member) for member in members])
    if removed:
        call.changed(key, "zrem", removed)
        call.drop_if_empty(key, value)
    return removed


@command("zscore", arity=3, flags="readonly fast", keys=(1, 1, 1), group="sorted-set", since="1.2.0")
def zscore(call: Call) -> float | None:
    "The score of a member."
    return _scores(call).get(call.args[2])


@command("zmscore", arity=-3, flags="readonly fast", keys=(1, 1, 1), group="sorted-set", since="6.2.0")
def zmscore(call: Call) -> list[float | None]:
    "The scores of several members; nil where there is none."
    call.touch(len(call.args) - 2)
    return [*map(_scores(call).get, call.args[2:])]


@command("zcard", arity=2, flags="readonly fast", keys=(1, 1, 1), group="sorted-set", since="1.2.0")
def zcard(call: Call) -> int:
    "How many members there are."
    return len(_scores(call))


def _scores(call: Call) -> Mapping[bytes, float]:
    value = call.read(call.args[1], SortedSet)
    return {} if value is None else value.scores


@command("zrank", arity=3, flags="readonly fast", keys=(1, 1, 1), group="sorted-set", since="2.0.0")
@command("zrevrank", arity=3, flags="readonly fast", keys=(1, 1, 1), group="sorted-set", since="2.0.0")
def zrank(call: Call) -> int | None:
    "How many members come before this one, seen from the lowest score or, by ZREVRANK, from the highest."
    value = call.read(call.args[1], SortedSet)
    rank: int | None = None if value is None else value.rank(call.args[2])
    return rank if rank is None or _name(call) == b"zrank" else len(value) - 1 - rank


def _name(call: Call) -> bytes:
    """Commands that differ in one point alone share a handler; their name says what it is."""
    return call.args[0].lower()


@command("zscan", arity=-3, flags="readonly", keys=(1, 1, 1), group="sorted-set", since="2.8.0")
def zscan(call: Call) -> list[Any]:
    "Some members and their scores, and the cursor to go on with: 0 at the end."
    value = scanned(call, SortedSet)
    is_small = value and encoding(value, call.server.config) == "listpack"
    # A small one comes at once, and in order.
    scores = Collection(value.by_rank(0, len(value) - 1)) if is_small else value and value.scores
    cursor, some = scan_collection(call, scores, is_small)
    return [b"%d" % cursor, [*chain.from_iterable((member, _text(scores[member], is_small)) for member in some)]]


def _text(score: float, is_small: bool) -> bytes:
    """A listpack keeps an integer as such, and so ZSCAN shows all its digits."""
    return b"%d" % score if is_small and abs(score) <= 2**62 and score.is_integer() else format_double(score)


@command("zrandmember", arity=-2, flags="readonly", keys=(1, 1, 1), group="sorted-set", since="6.2.0")
def zrandmember(call: Call) -> Any:
    "One or several members by chance; with a count below zero one may come again."
    _, key, *amount = call.args
    count, with_scores = random_count(call, b"WITHSCORES") if amount else (1, False)
    value = call.read(key, SortedSet)
    members = random_members(call, value.scores, count) if value else []
    if with_scores:
        return Pairs((member, value.scores[member]) for member in members)
    return members if amount else members[0] if members else None


# ---- ranges: two bounds become places ----------------------------------------------------------

Place = Callable[[SortedSet], int]
Places = Callable[[SortedSet], range]


def by_rank(first: bytes, last: bytes) -> Places:
    start, stop = integer(first), integer(last)
    return lambda value: span(start, stop, len(value))


def _between(place: Callable[[bytes, bool], Place]) -> Callable[[bytes, bytes], Places]:
    """From before the low bound to behind the high one, unless they are open, such as (1.5 and (ann."""
    def way(low: bytes, high: bytes) -> Places:
        start, stop = place(low, low[:1] == b"("), place(high, high[:1] != b"(")
        return lambda value: range(start(value), stop(value))
    return way


def _score_place(bound: bytes, behind: bool) -> Place:
    """The place of the first member with a score, or behind the last."""
    score = strtod(bound.removeprefix(b"("))
    if score is None:
        raise Error("ERR min or max is not a float")
    if behind and score == inf:
        return len
    first = nextafter(score, inf) if behind else score
    return lambda value: value.order.before(first)


def _lex_place(bound: bytes, behind: bool) -> Place:
    """The place of a member, or behind it; - and + are before and behind all."""
    if bound in (b"-", b"+"):
        return len if bound == b"+" else lambda value: 0
    if bound[:1] not in (b"[", b"("):
        raise Error("ERR min or max not valid string range item")
    member = bound[1:] + b"\0" * behind                 # there is nothing between ann and ann\0
    return lambda value: value.order.before_member(member)


by_score: Final = _between(_score_place)
by_lex: Final = _between(_lex_place)


# ---- ranges: to see and to store ---------------------------------------------------------------

LIMIT: Final = {b"LIMIT": Option("limit", lambda offset, count: (integer(offset), integer(count)), takes=2)}
WITHSCORES: Final = {b"WITHSCORES": Option("scores")}
FREE: Final = {word: Option(decides, once=True) for word, decides in (
    (b"BYSCORE", "way"), (b"BYLEX", "way"), (b"REV", "reverse"))}
WAYS: Final = {b"BYSCORE": by_score, b"BYLEX": by_lex}
RANGES: Final = {                           # what the bounds mean, whether the highest come first, words behind them
    b"zrange": (by_rank, False, LIMIT | WITHSCORES | FREE),
    b"zrangestore": (by_rank, False, LIMIT | FREE),
    b"zrevrange": (by_rank, True, LIMIT | WITHSCORES),
    b"zrangebyscore": (by_score, False, LIMIT | WITHSCORES),
    b"zrevrangebyscore": (by_score, True, LIMIT | WITHSCORES),
    b"zrangebylex": (by_lex, False, LIMIT | WITHSCORES),
    b"zrevrangebylex": (by_lex, True, LIMIT | WITHSCORES),
}


@command("zrange", arity=-4, flags="readonly", keys=(1, 1, 1), group="sorted-set", since="1.2.0")
@command("zrevrange", arity=-4, flags="readonly", keys=(1, 1, 1), group="sorted-set", since="1.2.0")
@command("zrangebyscore", arity=-4, flags="readonly", keys=(1, 1, 1), group="sorted-set", since="1.0.5")
@command("zrevrangebyscore", arity=-4, flags="readonly", keys=(1, 1, 1), group="sorted-set", since="2.2.0")
@command("zrangebylex", arity=-4, flags="readonly", keys=(1, 1, 1), group="sorted-set", since="2.8.9")
@command("zrevrangebylex", arity=-4, flags="readonly", keys=(1, 1, 1), group="sorted-set", since="2.8.9")
def zrange(call: Call) -> list[Any]:
    "The members in a range of ranks, of scores or, where all scores are the same, of members."
    return _reply(*_range(call, 1))


def _reply(pairs: Scored, found: Found) -> list[Any]:
    return Pairs(pairs) if "scores" in found else [member for member, _ in pairs]


@command("zrangestore", arity=-5, flags="write denyoom", keys=(1, 2, 1), group="sorted-set", since="6.2.0")
def zrangestore(call: Call) -> int:
    "Store the members in a range under another key."
    pairs, _ = _range(call, 2)
    return store(call, call.args[1], SortedSet.from_pairs(pairs), "zrangestore")


def _range(call: Call, at: int) -> tuple[Scored, Found]:
    """The members between two bounds, and what words were found: `call.args[at:]` is key, bound, bound and words."""
    key, low, high, *rest = call.args[at:]
    way, reverse, words = RANGES[_name(call)]
    found = parse_options(rest, words)
    way = WAYS[found["way"][0]] if "way" in found else way
    reverse = reverse or "reverse" in found
    offset, count = found["limit"][1] if "limit" in found else (0, -1)
    if way is by_rank and count != -1:
        raise Error("ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX")
    if way is by_lex and "scores" in found:
        raise Error("ERR syntax error, WITHSCORES not supported in combination with BYLEX")
    from_end = reverse and way is not by_rank           # ranks are counted from the other end already
    find = way(high, low) if from_end else way(low, high)
    value = call.read(key, SortedSet)
    if value is None:
        return [], found
    places = find(value)
    if from_end:
        places = range(len(value) - places.stop, len(value) - places.start)
    if way is not by_rank:
        places = places[offset:][:count if count >= 0 else None] if offset >= 0 else range(0)
    call.touch(len(places))
    return value.by_rank(places[0], places[-1], reverse) if places else [], found


# ---- ranges: to count and to take out ----------------------------------------------------------

@command("zcount", arity=4, flags="readonly fast", keys=(1, 1, 1), group="sorted-set", since="2.0.0")
@command("zlexcount", arity=4, flags="readonly fast", keys=(1, 1, 1), group="sorted-set", since="2.8.9")
def zcount(call: Call) -> int:
    "How many members there are in a range of scores or, where all scores are the same, of members."
    find = (by_score if _name(call) == b"zcount" else by_lex)(*call.args[2:])
    value = call.read(call.args[1], SortedSet)
    return 0 if value is None else len(find(value))


REMOVERS: Final = {b"zremrangebyrank": by_rank, b"zremrangebyscore": by_score, b"zremrangebylex": by_lex}


@command("zremrangebyrank", arity=4, flags="write", keys=(1, 1, 1), group="sorted-set", since="2.0.0")
@command("zremrangebyscore", arity=4, flags="write", keys=(1, 1, 1), group="sorted-set", since="1.2.0")
@command("zremrangebylex", arity=4, flags="write", keys=(1, 1, 1), group="sorted-set", since="2.8.9")
def zremrange(call: Call) -> int:
    "Take out the members in a range of ranks, of scores or, where all scores are the same, of members."
    find = REMOVERS[_name(call)](*call.args[2:])
    value = call.lookup(call.args[1], SortedSet)
    return 0 if value is None else len(_take(call, call.args[1], value, find(value), _name(call)))


def _take(call: Call, key: bytes, value: SortedSet, places: range, event: bytes, reverse: bool = False) -> Scored:
    """Take out the members at some places, and tell."""
    if not places:
        return []
    pairs = value.take(places[0], places[-1], reverse)
    call.touch(len(pairs))
    call.changed(key, event.decode(), len(pairs))
    call.drop_if_empty(key, value)
    return pairs


ENDS: Final = {b"MIN": b"zpopmin", b"MAX": b"zpopmax"}


@command("zpopmin", arity=-2, flags="write fast", keys=(1, 1, 1), group="sorted-set", since="5.0.0")
@command("zpopmax", arity=-2, flags="write fast", keys=(1, 1, 1), group="sorted-set", since="5.0.0")
def zpop(call: Call) -> list[Any]:
    "Take out the member with the lowest or the highest score, or so many."
    args, end = call.args, _name(call)
    if len(args) == 2:
        return [*chain(*pop(call, args[1], end, 1) or ())]      # flat in RESP3, too
    if len(args) > 3:
        raise SYNTAX
    return Pairs(pop(call, args[1], end, positive(args[2])) or ())


def pop(call: Call, key: bytes, end: bytes, count: int) -> Scored | None:
    """Take (member, score) out and tell; None without a sorted set."""
    value = call.lookup(key, SortedSet)
    return value and _take(call, key, value, range(min(count, len(value))), end, reverse=end == b"zpopmax")


@command("zmpop", arity=-4, flags="write movablekeys", more_keys=counted_keys(1), group="sorted-set", since="7.0.0")
def zmpop(call: Call) -> Any:
    "Take members out of the first of several sorted sets that is there."
    return pop_first(call, *counted_pop(call, 1, ENDS)) or NULL_ARRAY


def pop_first(call: Call, keys: list[bytes], end: bytes, count: int) -> list[Any] | None:
    """[key, pairs] of the first key that holds a sorted set; None without one."""
    for key in keys:
        pairs = pop(call, key, end, count)
        if pairs:
            call.log_as((end.upper(), key, b"%d" % len(pairs)))
            return [key, pairs]
    return None


# ---- several sorted sets -----------------------------------------------------------------------

Scores = Mapping[bytes, float | None]       # None stands for 1: the members of a set
Aggregate = Callable[[float, float], float]
AGGREGATES: Final[dict[bytes, Aggregate]] = {b"SUM": lambda a, b: _number(a + b), b"MIN": min, b"MAX": max}


def _number(score: float) -> float:
    return 0.0 if isnan(score) else score


def _aggregate(word: bytes) -> Aggregate:
    if word.upper() not in AGGREGATES:
        raise SYNTAX
    return AGGREGATES[word.upper()]


def _weights(*texts: bytes) -> list[float]:
    return [double(text, "ERR weight value is not a float") for text in texts]


# Which members are in the result?

def _union(inputs: list[Scores]) -> list[bytes]:
    return list(dict.fromkeys(chain(*inputs)))


def _inter(inputs: list[Scores]) -> list[bytes]:
    smallest, *others = sorted(inputs, key=len)
    return [member for member in smallest if all([member in other for other in others])]


def _diff(inputs: list[Scores]) -> list[bytes]:
    first, *others = inputs
    return [member for member in first if not any([member in other for other in others])]


OPERATIONS: Final = {b"zunion": _union, b"zinter": _inter, b"zdiff": _diff}


@command("zunion", arity=-3, flags="readonly movablekeys", more_keys=counted_keys(1), group="sorted-set", since="6.2.0")
@command("zinter", arity=-3, flags="readonly movablekeys", more_keys=counted_keys(1), group="sorted-set", since="6.2.0")
@command("zdiff", arity=-3, flags="readonly movablekeys", more_keys=counted_keys(1), group="sorted-set", since="6.2.0")
def zcombine(call: Call) -> list[Any]:
    "The members that are in any of the sets (union), in all of them (inter), or in the first alone (diff)."
    result, found = _combine(call, 1, WITHSCORES)
    return _reply(sorted(result.items(), key=lambda pair: (pair[1], pair[0])), found)


@command("zunionstore", arity=-4, flags="write denyoom movablekeys", keys=(1, 1, 1), more_keys=counted_keys(2),
         group="sorted-set", since="2.0.0")
@command("zinterstore", arity=-4, flags="write denyoom movablekeys", keys=(1, 1, 1), more_keys=counted_keys(2),
         group="sorted-set", since="2.0.0")
@command("zdiffstore", arity=-4, flags="write denyoom movablekeys", keys=(1, 1, 1), more_keys=counted_keys(2),
         group="sorted-set", since="6.2.0")
def zstore(call: Call) -> int:
    "Store the members that are in any of the sets (union), in all of them (inter), or in the first alone (diff)."
    result, _ = _combine(call, 2, {})
    return store(call, call.args[1], SortedSet.from_pairs(result.items()), _name(call).decode())


def _combine(call: Call, at: int, words: Mapping[bytes, Option]) -> tuple[dict[bytes, float], Found]:
    """The result, and what words were found. A wrong type is worse than a wrong word."""
    inputs, rest = _inputs(call, at)
    operation = OPERATIONS[_name(call).removesuffix(b"store")]
    if operation is not _diff:
        words = {**words, b"AGGREGATE": Option("aggregate", _aggregate),
                 b"WEIGHTS": Option("weights", _weights, takes=len(inputs))}
    found = parse_options(rest, words)
    weights = found["weights"][1] if "weights" in found else [1.0] * len(inputs)
    aggregate = found["aggregate"][1] if "aggregate" in found else AGGREGATES[b"SUM"]
    weighed = sorted(zip(inputs, weights), key=lambda pair: len(pair[0]))
    clean = _number if operation is _union else float   # ZINTER looks for NaN in the first score and in sums only
    result = {}
    for member in operation(inputs):
        first, *others = [clean(weight * (1.0 if members[member] is None else members[member]))
                          for members, weight in weighed if member in members]
        result[member] = reduce(aggregate, others, _number(first))
    return result, found


def _inputs(call: Call, at: int) -> tuple[list[Any], list[bytes]]:
    """The sets whose number is `call.args[at]`, and the words behind them."""
    keys, rest = input_keys(call, at)
    inputs = []
    for value in map(call.read, keys):
        if type(value) not in (SortedSet, Members, type(None)):
            raise WRONGTYPE
        inputs.append(value.scores if type(value) is SortedSet else value or {})
    call.touch(sum(map(len, inputs)))
    return inputs, rest


CARD_LIMIT: Final = partial(bounded, low=0, high=INT64_MAX, complaint="ERR LIMIT can't be negative")


@command("zintercard", arity=-3, flags="readonly movablekeys", more_keys=counted_keys(1), group="sorted-set",
         since="7.0.0")
def zintercard(call: Call) -> int:
    "How many members are in all of the sets; at most LIMIT, unless that is 0."
    inputs, rest = _inputs(call, 1)
    found = parse_options(rest, {b"LIMIT": Option("limit", CARD_LIMIT)})
    count = len(_inter(inputs))
    return min(count, found["limit"][1] or count) if found else count
