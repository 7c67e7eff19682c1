"""Pub/sub as chapter 12 shows it, on a simulated computer, and the two models of kvref/lab/brokers.py beside it."""

from __future__ import annotations

from typing import Any

import pytest

from kvref.lab.brokers import Exchange, Group, Queue, Topic, topic_match
from kvref.sim import Caller, World


def people(*names: str, capacity: int = 64 * 1024, **directives: Any) -> tuple[World, list[Caller]]:
    world = World(seed=1, capacity=capacity)
    world.start(**directives)
    return world, [world.connect(name) for name in names]


def words(caller: Caller) -> list[bytes]:
    return [push[-1] for push in caller.pushes]


# --- pub/sub ---------------------------------------------------------------------------------------------------------

def test_publish_counts_copies_in_buffers_and_not_readers() -> None:
    world, (alice, bob) = people("alice", "bob")
    assert alice("PUBLISH", "news.eu", "early") == 0
    bob("SUBSCRIBE", "news.eu")
    bob("PSUBSCRIBE", "news.*")
    bob.reading = False
    assert alice("PUBLISH", "news.eu", "x") == 2
    assert not bob.pushes
    bob.reset()
    bob = world.connect("bob")
    bob("SUBSCRIBE", "news.eu")
    world.run(ms=1000)
    assert not bob.pushes


@pytest.mark.parametrize("every_ms, late, away, reads, counted, read", [
    (100, 0, range(0), True, 10, 10),
    (100, 300, range(0), True, 7, 7),
    (100, 0, range(300, 600), True, 7, 7),
    (10, 0, range(300, 600), True, 70, 70),             # the same gap, ten times the loss
    (100, 0, range(0), False, 10, 0)])                  # no gap, and all is lost
def test_counted_delivered_and_gap_are_three_numbers(
        every_ms: int, late: int, away: range, reads: bool, counted: int, read: int) -> None:
    world, (alice,) = people("alice")
    bobs: list[Caller] = []
    answers = []
    for now in range(1000):
        if now == late or (away and now == away.stop):
            bobs.append(world.connect("bob"))
            bobs[-1]("SUBSCRIBE", "news")
            bobs[-1].reading = reads
        if away and now == away.start:
            bobs[-1].close()
        if now % every_ms == every_ms // 2:
            answers.append(alice("PUBLISH", "news", now))
        world.run(ms=1)
    assert sum(answers) == counted and sum(len(bob.pushes) for bob in bobs) == read
    missed = [now for now, answer in zip(range(every_ms // 2, 1000, every_ms), answers) if not answer]
    assert all(now < late or now in away for now in missed) and len(missed) + counted == 1000 // every_ms


def test_a_message_goes_to_the_channel_first_and_then_to_each_pattern() -> None:
    world, (alice, bob) = people("alice", "bob")
    for command, name in (("PSUBSCRIBE", "n*"), ("SUBSCRIBE", "news"), ("PSUBSCRIBE", "*s")):
        bob(command, name)
    assert alice("PUBLISH", "news", "x") == 3
    assert [push[:-1] for push in bob.pushes] == [[b"message", b"news"], [b"pmessage", b"n*", b"news"],
                                                  [b"pmessage", b"*s", b"news"]]


@pytest.mark.parametrize("every_ms, cut", [(50, True), (200, True), (1000, False)])
def test_a_sleeper_is_cut_off_with_what_waits_for_it_and_the_others_notice_nothing(every_ms: int, cut: bool) -> None:
    limit = "pubsub 32kb 16kb 2"
    world, (alice, bob, eve) = people("alice", "bob", "eve", capacity=4096, client_output_buffer_limit=limit)
    assert world.server
    bob("SUBSCRIBE", "news")
    eve("SUBSCRIBE", "news")
    bob.reading, counted, largest, client = False, 0, 0, world.server.clients[2]
    for _ in range(8000 // every_ms):
        counted += alice("PUBLISH", "news", "x" * 1000) - 1
        largest = max(largest, client.output_size)
        world.run(ms=every_ms)
    assert largest < 34 * 1024 and (2 not in world.server.clients) == cut
    bob.reading = True
    world.settle()
    assert len(bob.pushes) == (3 if cut else 8) and counted >= len(bob.pushes)
    assert len(eve.pushes) == 8000 // every_ms


def test_order_is_that_of_arrival_the_same_for_all_and_kept_for_a_connection() -> None:
    world, (alice, bob, ann, eve) = people("alice", "bob", "ann", "eve")
    for caller in (ann, eve):
        caller("SUBSCRIBE", "news")
    alice.send_bytes(b"PUBLISH news al")
    world.run(ms=1)
    bob.send_bytes(b"PUBLISH news bob-1\r\n")
    world.run(ms=1)
    alice.send_bytes(b"ice-1\r\nPUBLISH news alice-2\r\n")
    world.run(ms=1)
    assert words(ann) == words(eve) == [b"bob-1", b"alice-1", b"alice-2"]


def test_there_is_no_order_across_two_connections_of_one_subscriber_and_one_connection_keeps_it() -> None:
    world, (alice, one, two, both) = people("alice", "one", "two", "both")
    one("SUBSCRIBE", "question")
    two("SUBSCRIBE", "answer")
    both("SUBSCRIBE", "question", "answer")
    one.reading = False
    alice("PUBLISH", "question", "tea?")
    alice("PUBLISH", "answer", "yes!")
    world.run(ms=1)
    assert words(two) == [b"yes!"] and not one.pushes and words(both) == [b"tea?", b"yes!"]
    one.reading = True
    world.settle()
    assert words(one) == [b"tea?"]


def test_nothing_resumes_after_a_gap() -> None:
    world, (alice, eve) = people("alice", "eve")
    heard: list[bytes] = []
    eve("SUBSCRIBE", "numbers")
    for number in range(1, 10):
        if number == 4:
            heard += words(eve)
            eve.close()
            world.run(ms=1)
        if number == 7:
            eve = world.connect("eve")
            eve("SUBSCRIBE", "numbers")
        assert alice("PUBLISH", "numbers", number) == (number not in (4, 5, 6))
    world.run(ms=60_000)
    assert heard + words(eve) == [b"1", b"2", b"3", b"7", b"8", b"9"]


def test_a_push_stands_between_replies_that_keep_their_order() -> None:
    world, (alice,) = people("alice")
    alice("HELLO", "3")
    alice("SUBSCRIBE", "news")
    before = len(alice.received)
    alice.send_bytes(b"SET k v\r\nPUBLISH news hi\r\nGET k\r\n")
    world.settle()
    assert alice.received[before:] == b"+OK\r\n>3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$2\r\nhi\r\n:1\r\n$1\r\nv\r\n"


def test_expired_comes_with_the_deletion_and_only_to_who_is_there() -> None:
    world, (alice, bob) = people("alice", "bob", notify_keyspace_events="Ex", enable_debug_command="yes")
    alice("DEBUG", "SET-ACTIVE-EXPIRE", "0")
    bob("SUBSCRIBE", "__keyevent@0__:expired")
    alice("SET", "k", "v", "PX", "100")
    world.run(ms=5000)
    assert not bob.pushes
    alice("GET", "k")
    assert words(bob) == [b"k"]
    bob.close()
    alice("SET", "k", "v", "PX", "100")
    world.run(ms=200)
    alice("GET", "k")
    bob = world.connect("bob")
    bob("SUBSCRIBE", "__keyevent@0__:expired")
    world.run(ms=1000)
    assert not bob.pushes


def test_a_message_changes_nothing_that_could_be_logged() -> None:
    world, (alice,) = people("alice")
    assert world.server
    log: list[Any] = []
    world.server.feeds.append(lambda index, effect: log.append(effect))
    alice("PUBLISH", "news", "x")
    assert not log and alice("DBSIZE") == 0


# --- the model of a log ----------------------------------------------------------------------------------------------

def rest(group: Group, consumer: str) -> list[Any]:
    return [record.body for record in iter(lambda: group.poll(consumer), None)]


def test_every_group_reads_all_at_its_own_pace_and_again_after_seek() -> None:
    topic = Topic()
    places = [topic.append(number)[:2] for number in range(3)]
    assert places == [(0, 0), (0, 1), (0, 2)]
    for name in ("first", "second"):
        group = Group(topic)
        group.join(name)
        assert rest(group, name) == [0, 1, 2] and group.lag == 3
        group.seek(0, 1)
        assert rest(group, name) == [1, 2] and group.lag == 2


def test_who_takes_over_begins_at_the_commit() -> None:
    topic = Topic()
    for number in range(3):
        topic.append(number)
    group = Group(topic)
    group.join("a")
    first = group.poll("a")
    assert first
    group.commit(first)
    assert group.poll("a") == topic.at(0, 1)
    group.leave("a")
    group.join("b")
    assert rest(group, "b") == [1, 2]


def test_a_group_shares_the_partitions_and_a_key_stays_in_one() -> None:
    topic, group = Topic(partitions=4), None
    for number in range(100):
        topic.append(number, f"key:{number % 10}")
    group = Group(topic)
    for name in ("a", "b", "c", "d", "e"):
        group.join(name)
    read = {name: rest(group, name) for name in "abcde"}
    assert sorted(sum(read.values(), [])) == list(range(100)) and not read["e"]
    for key in range(10):
        one = [[number for number in numbers if number % 10 == key] for numbers in read.values()]
        assert [numbers for numbers in one if numbers] == [list(range(key, 100, 10))]


def test_retention_takes_what_nobody_has_read() -> None:
    topic = Topic(keep=2)
    for number in range(5):
        topic.append(number)
    group = Group(topic)
    group.join("late")
    assert rest(group, "late") == [3, 4] and topic.at(0, 5) is None


# --- the model of a queue --------------------------------------------------------------------------------------------

def filled(*bodies: Any) -> Queue:
    queue = Queue()
    for body in bodies:
        queue.put("key", body)
    return queue


def test_a_message_goes_to_one_consumer_in_turn_and_prefetch_bounds_what_it_holds() -> None:
    queue = filled(1, 2, 3, 4, 5)
    queue.consume("a", prefetch=2)
    queue.consume("b", prefetch=1)
    assert queue.unacknowledged == {1: "a", 2: "a", 3: "b"}
    delivery = queue.receive("b")
    assert delivery and delivery.body == 3 and queue.receive("b") is None
    queue.ack(delivery)
    assert queue.unacknowledged == {1: "a", 2: "a", 4: "b"}


def test_what_was_not_acknowledged_goes_back_to_its_place() -> None:
    queue = filled(1, 2, 3)
    queue.consume("a", prefetch=2)
    queue.receive("a")
    queue.cancel("a")
    assert [message.body for message in queue.waiting] == [1, 2, 3] and not queue.unacknowledged
    queue.consume("b", prefetch=3)
    received = [queue.receive("b") for _ in range(3)]
    assert [message and (message.body, message.redelivered) for message in received] == [(1, True), (2, True), (3, False)]


def test_acknowledgements_in_any_order() -> None:
    queue = filled(1, 2, 3)
    queue.consume("a", prefetch=3)
    first, second = queue.receive("a"), queue.receive("a")
    assert first and second
    queue.ack(second)
    third = queue.receive("a")
    assert third and third.body == 3
    queue.ack(third)
    queue.ack(first)
    assert not queue.unacknowledged and queue.receive("a") is None


def test_an_exchange_gives_each_queue_one_copy_and_keeps_none() -> None:
    exchange, mine, yours = Exchange(), Queue(), Queue()
    assert exchange.publish("orders.eu", "lost") == 0
    for pattern in ("orders.*", "orders.#"):
        exchange.bind(mine, pattern)
    exchange.bind(yours, "orders.us")
    assert exchange.publish("orders.eu", "kept") == 1
    assert [message.body for message in mine.waiting] == ["kept"] and not yours.waiting


@pytest.mark.parametrize("pattern, fits, not_", [
    ("a.b", "a.b", "a b.c a.b.c ab"), ("a.*", "a.b a.c", "a a.b.c b.a"), ("a.#", "a a.b a.b.c", "ab b.a"),
    ("#", "a a.b a.b.c", ""),
    ("*.b.#", "a.b a.b.c.d", "b a.c.b"), ("#.b", "b a.b a.a.b", "a.b.c"),
    ("a.#.b", "a.b a.x.y.b", "a.x b")])
def test_words_of_a_routing_key(pattern: str, fits: str, not_: str) -> None:
    assert all(topic_match(pattern, key) for key in fits.split())
    assert not any(topic_match(pattern, key) for key in not_.split())
