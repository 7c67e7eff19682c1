"""The skip list beside a sorted list that does the same slowly: order, ranks, ranges, copies; and its invariants."""

from __future__ import annotations

import copy
import gc
from bisect import bisect_left
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kvref import skiplist
from kvref.skiplist import Node, SkipList, SortedSet

MEMBERS = st.integers(0, 40).map(lambda n: b"m%d" % n)
SCORES = st.integers(-3, 3).map(float) | st.floats(allow_nan=False)
PAIRS = st.lists(st.tuples(MEMBERS, SCORES), max_size=80)


def check(order: SkipList, expected: list[tuple[float, bytes]]) -> None:
    """Every invariant that SkipList promises, of every node and every link."""
    ground, *upper = rows = order.levels()[::-1]
    assert [(node.score, node.member) for node in ground[1:]] == expected == sorted(expected)
    assert order.length == len(expected)
    rank_of = {id(node): rank for rank, node in enumerate(ground)}
    for below, row in zip(rows, upper):
        assert len(row) > 1, "an empty level on top"
        assert row[0].down is below[0]
        for node in row[1:]:
            assert node.down in below and (node.score, node.member) == (node.down.score, node.down.member)
        rank_of |= {id(node): rank_of[id(node.down)] for node in row}
    assert all(node.down is None for node in ground)
    for row in rows:
        ranks = [rank_of[id(node)] for node in row]
        assert [node.span for node in row] == [b - a for a, b in zip(ranks, [*ranks[1:], len(expected)])]
        assert all(node.forward is after for node, after in zip(row, [*row[1:], None]))


class Beside(RuleBasedStateMachine):
    """A SortedSet and a dict, in step."""

    def __init__(self) -> None:
        super().__init__()
        self.value = SortedSet()
        self.model: dict[bytes, float] = {}

    def ordered(self) -> list[tuple[float, bytes]]:
        return sorted((score, member) for member, score in self.model.items())

    @rule(member=MEMBERS, score=SCORES)
    def put(self, member: bytes, score: float) -> None:
        assert self.value.put(member, score) == (member not in self.model)
        self.model[member] = score

    @rule(pairs=PAIRS)
    def put_many(self, pairs: list[tuple[bytes, float]]) -> None:
        for member, score in pairs:
            self.put(member, score)

    @rule(member=MEMBERS)
    def remove(self, member: bytes) -> None:
        assert self.value.remove(member) == (self.model.pop(member, None) is not None)

    @rule(member=MEMBERS)
    def rank(self, member: bytes) -> None:
        expected = [name for _, name in self.ordered()].index(member) if member in self.model else None
        assert self.value.rank(member) == expected

    @rule(score=SCORES, member=st.just(b"") | MEMBERS)
    def before(self, score: float, member: bytes) -> None:
        assert self.value.order.before(score, member) == bisect_left(self.ordered(), (score, member))

    @precondition(lambda self: self.model)
    @rule(data=st.data(), reverse=st.booleans(), takes=st.booleans())
    def ranges(self, data: st.DataObject, reverse: bool, takes: bool) -> None:
        start = data.draw(st.integers(0, len(self.model) - 1))
        stop = data.draw(st.integers(start, len(self.model) - 1))
        expected = [(member, score) for score, member in (self.ordered()[::-1] if reverse else self.ordered())]
        assert self.value.by_rank(start, stop, reverse) == expected[start:stop + 1]
        if takes:
            assert self.value.take(start, stop, reverse) == expected[start:stop + 1]
            for member, _ in expected[start:stop + 1]:
                del self.model[member]

    @rule(member=MEMBERS, score=SCORES)
    def go_on_with_a_copy(self, member: bytes, score: float) -> None:
        """What happens to the original is nothing to the copy."""
        original, self.value = self.value, copy.copy(self.value)
        original.put(member, score)
        original.take(0, len(original) - 1)

    @rule()
    def load_afresh(self) -> None:
        self.value = SortedSet.from_pairs(self.model.items())

    @invariant()
    def agrees(self) -> None:
        assert dict(self.value.scores) == self.model and len(self.value) == len(self.model)
        check(self.value.order, self.ordered())


Beside.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestBeside = Beside.TestCase


@given(PAIRS)
def test_of_a_member_named_twice_the_last_score_counts(pairs: list[tuple[bytes, float]]) -> None:
    value = SortedSet.from_pairs(pairs)
    check(value.order, sorted((score, member) for member, score in dict(pairs).items()))


@given(st.sets(MEMBERS), MEMBERS, st.integers(1, 50))
def test_where_members_ascend_the_member_alone_tells_the_place(some: set[bytes], member: bytes, share: int) -> None:
    members = sorted(some)
    order = SkipList((float(n // share), name) for n, name in enumerate(members))
    assert order.before_member(member) == bisect_left(members, member)


def test_a_copy_shares_neither_nodes_nor_sampler() -> None:
    one = SortedSet.from_pairs((b"m%d" % n, float(n)) for n in range(100))
    sampler = one.scores.sampler
    other = copy.copy(one)
    nodes = [{id(node) for row in value.order.levels() for node in row} for value in (one, other)]
    assert not nodes[0] & nodes[1] and other.scores is not one.scores and other.scores.sampler is not sampler


def test_zero_is_stored_without_a_sign() -> None:
    value = SortedSet.from_pairs([(b"loaded", -0.0)])
    value.put(b"put", -0.0)
    assert str(value.by_rank(0, 1)) == "[(b'loaded', 0.0), (b'put', 0.0)]"


def test_a_new_score_does_not_keep_the_member_a_second_time() -> None:
    value, name = SortedSet(), bytes(bytearray(b"member"))
    value.put(name, 1.0)
    value.put(bytes(bytearray(b"member")), 2.0)
    assert value.by_rank(0, 0)[0][0] is name and next(iter(value.scores)) is name


def test_the_same_calls_build_the_same_list() -> None:
    def build() -> SkipList:
        random, value = Random(1), SortedSet()
        for _ in range(500):
            value.put(b"m%d" % random.randrange(100), random.random())
        return value.order
    assert [list(map(repr, row)) for row in build().levels()] == [list(map(repr, row)) for row in build().levels()]


def test_one_of_four_members_is_on_the_next_level() -> None:
    sizes = [len(row) - 1 for row in SkipList((float(n), b"") for n in range(100_000)).levels()[::-1]]
    for below, above in zip(sizes, sizes[1:]):
        if below > 1000:
            assert 0.2 < above / below < 0.3
    assert 7 <= len(sizes) <= 12


def test_a_search_among_64_times_as_many_does_not_take_three_times_the_steps() -> None:
    steps = 0

    class Counting(float):
        def __gt__(self, other: float) -> bool:     # what `node.score < counting` asks first
            nonlocal steps
            steps += 1
            return float(self) > other
    taken = []
    for size in (1_000, 64_000):
        order, steps = SkipList((float(n), b"") for n in range(size)), 0
        for n in range(500):
            assert order.before(Counting(n * size // 500)) == n * size // 500
        taken.append(steps / 500)
    assert taken[0] < taken[1] < 3 * taken[0] < 90


def test_a_large_set_is_freed_at_once_and_without_the_collector() -> None:
    """No links backwards, no cycles."""
    gc.collect()
    gc.disable()
    try:
        before = sum(type(thing) is Node for thing in gc.get_objects())
        value = SortedSet.from_pairs((b"m%d" % n, float(n)) for n in range(100_000))
        value.take(10_000, 90_000)
        del value
        assert sum(type(thing) is Node for thing in gc.get_objects()) == before
    finally:
        gc.enable()


def test_a_small_list_is_drawn_as_the_module_shows_it() -> None:
    order = SkipList([(1.5, b"ann"), (2, b"bob"), (2, b"cy"), (3, b"dan"), (4, b"eve")])
    lines = [line.strip() for line in (skiplist.__doc__ or "").split("\n") if line.strip().startswith("level ")]
    assert repr(order).split("\n") == lines and len(lines) == 3
    assert repr(SkipList()) == "level 1  *"
    assert repr(SkipList((float(n), b"") for n in range(1000))) == "<SkipList: 1000 members on 5 levels>"
