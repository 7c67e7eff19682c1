"""The simulated network: what a kernel's sockets do, at the edges too."""

import errno
import random

import pytest

from kvref.ports import READABLE, WRITABLE
from kvref.sim.clock import Clock
from kvref.sim.errors import Deadlock
from kvref.sim.network import Network


class Pair:
    """A connection: `near` is the client's end, `far` the server's."""

    def __init__(self, chunk=None, **options):
        self.clock = Clock()
        self.net = Network(self.clock, **options)
        self.listener = self.net.listen("127.0.0.1", 6379, 511)
        self.near = self.net.connect("127.0.0.1", 6379, chunk=chunk)
        self.clock.sleep(options.get("latency_us", 0))
        self.far = self.net.accept(self.listener)
        self.peer, self.own = self.net.addresses(self.far)


@pytest.fixture
def pair():
    return Pair()


def test_bytes_arrive_in_order_and_addresses_are_known(pair):
    assert pair.net.send(pair.near, b"one ") == 4
    assert pair.net.send(pair.near, b"two") == 3
    assert pair.net.recv(pair.far, 100) == b"one two"
    assert pair.net.recv(pair.far, 100) is None
    assert (pair.peer, pair.own) == ("127.0.0.1:50001", "127.0.0.1:6379")


def test_accept_says_none_when_nobody_waits(pair):
    assert pair.net.accept(pair.listener) is None


def test_recv_gives_at_most_the_limit(pair):
    pair.net.send(pair.near, b"abcdef")
    assert [pair.net.recv(pair.far, 4), pair.net.recv(pair.far, 4)] == [b"abcd", b"ef"]


def test_recv_gives_at_most_the_chunk_of_the_connection():
    pair = Pair(chunk=2)
    pair.net.send(pair.near, b"abc")
    assert [pair.net.recv(pair.far, 100) for _ in range(3)] == [b"ab", b"c", None]
    pair.net.send(pair.far, b"whole")
    assert pair.net.recv(pair.near, 100) == b"whole"


def test_random_fragments_are_those_of_the_seed_and_lose_nothing():
    def parts(seed):
        pair = Pair(fragments=random.Random(seed))
        pair.net.send(pair.near, bytes(range(100)))
        return list(iter(lambda: pair.net.recv(pair.far, 1000), None))
    assert parts(1) == parts(1) != parts(2)
    assert len(parts(1)) > 1 and b"".join(parts(1)) == bytes(range(100))


def test_a_full_queue_takes_a_part_then_nothing_then_what_was_read():
    pair = Pair(capacity=10)
    assert pair.net.send(pair.far, b"x" * 7) == 7
    assert pair.net.send(pair.far, b"y" * 7) == 3
    assert pair.net.send(pair.far, b"z") == 0
    assert pair.net.recv(pair.near, 4) == b"xxxx"
    assert pair.net.send(pair.far, b"z" * 7) == 4
    assert pair.net.recv(pair.near, 100) == b"xxxyyyzzzz"


def test_the_default_queue_holds_64_kib(pair):
    assert pair.net.send(pair.near, bytes(100_000)) == 65_536


def test_half_close_gives_the_rest_then_the_end_and_leaves_the_way_back_open(pair):
    pair.net.send(pair.near, b"last words")
    pair.net.shutdown(pair.near)
    assert [pair.net.recv(pair.far, 100) for _ in range(3)] == [b"last words", b"", b""]
    pair.net.send(pair.far, b"heard")
    assert pair.net.recv(pair.near, 100) == b"heard"
    with pytest.raises(BrokenPipeError):
        pair.net.send(pair.near, b"more")


def test_reset_gives_the_rest_then_the_error_once_then_the_end(pair):
    pair.net.send(pair.near, b"rest")
    pair.net.reset(pair.near)
    assert pair.net.recv(pair.far, 100) == b"rest"
    with pytest.raises(ConnectionResetError):
        pair.net.recv(pair.far, 100)
    assert pair.net.recv(pair.far, 100) == b""
    with pytest.raises(BrokenPipeError):
        pair.net.send(pair.far, b"x")


def test_send_after_a_reset_fails_at_once(pair):
    pair.net.reset(pair.near)
    with pytest.raises(ConnectionResetError):
        pair.net.send(pair.far, b"x")


def test_send_after_the_peer_closed_goes_into_nothing_once_and_then_breaks_the_pipe(pair):
    pair.net.close(pair.near)
    assert pair.net.send(pair.far, b"into nothing") == 12
    with pytest.raises(BrokenPipeError):
        pair.net.send(pair.far, b"x")


def test_close_with_unread_bytes_is_a_reset(pair):
    pair.net.send(pair.far, b"never read")
    pair.net.close(pair.near)
    with pytest.raises(ConnectionResetError):
        pair.net.recv(pair.far, 100)


def test_a_closed_socket_is_a_bad_descriptor(pair):
    pair.net.close(pair.far)
    for use in (lambda: pair.net.recv(pair.far, 1), lambda: pair.net.send(pair.far, b"x"),
                lambda: pair.net.close(pair.far), lambda: pair.net.accept(pair.far)):
        with pytest.raises(OSError) as error:
            use()
        assert error.value.errno == errno.EBADF


def test_an_address_is_taken_once_and_free_again_after_close(pair):
    for host in ("127.0.0.1", "0.0.0.0", "*"):
        with pytest.raises(OSError) as error:
            pair.net.listen(host, 6379, 511)
        assert error.value.errno == errno.EADDRINUSE
    pair.net.close(pair.listener)
    pair.net.listen("127.0.0.1", 6379, 511)


def test_an_address_that_is_not_ours_is_refused(pair):
    for host in ("10.1.2.3", "::1"):
        with pytest.raises(OSError) as error:
            pair.net.listen(host, 6379, 511)
        assert error.value.errno == errno.EADDRNOTAVAIL


def test_connect_is_refused_where_nobody_listens(pair):
    with pytest.raises(ConnectionRefusedError):
        pair.net.connect("127.0.0.1", 6380)
    pair.net.close(pair.listener)
    with pytest.raises(ConnectionRefusedError):
        pair.net.connect("127.0.0.1", 6379)


def test_the_backlog_bounds_those_who_wait():
    net = Network(Clock())
    listener = net.listen("127.0.0.1", 6379, 2)
    net.connect("127.0.0.1", 6379)
    net.connect("127.0.0.1", 6379)
    with pytest.raises(TimeoutError):
        net.connect("127.0.0.1", 6379)
    net.accept(listener)
    net.connect("127.0.0.1", 6379)


def test_closing_the_listener_resets_those_who_wait():
    net = Network(Clock())
    listener = net.listen("127.0.0.1", 6379, 511)
    near = net.connect("127.0.0.1", 6379)
    net.close(listener)
    with pytest.raises(ConnectionResetError):
        net.recv(near, 1)


def test_poll_is_level_triggered_and_in_order_of_descriptors(pair):
    near2 = pair.net.connect("127.0.0.1", 6379)
    far2 = pair.net.accept(pair.listener)
    for sock in (far2, pair.far, pair.listener):
        pair.net.watch(sock, True, False)
    pair.net.send(near2, b"2")
    pair.net.send(pair.near, b"1")
    pair.net.connect("127.0.0.1", 6379)
    expected = [(pair.listener, READABLE), (pair.far, READABLE), (far2, READABLE)]
    assert pair.net.poll(0) == expected
    assert pair.net.poll(None) == expected
    pair.net.recv(pair.far, 10)
    assert pair.net.poll(0) == [expected[0], expected[2]]


def test_poll_reports_only_what_is_watched():
    pair = Pair(capacity=4)
    pair.net.send(pair.near, b"x")
    pair.net.watch(pair.far, False, True)
    assert pair.net.poll(0) == [(pair.far, WRITABLE)]
    pair.net.watch(pair.far, True, True)
    assert pair.net.poll(0) == [(pair.far, READABLE | WRITABLE)]
    pair.net.send(pair.far, b"full")
    assert pair.net.poll(0) == [(pair.far, READABLE)]
    pair.net.watch(pair.far, False, False)
    assert pair.net.poll(0) == []


def test_an_end_and_an_error_are_readable(pair):
    pair.net.watch(pair.far, True, False)
    assert pair.net.poll(0) == []
    pair.net.shutdown(pair.near)
    assert pair.net.poll(0) == [(pair.far, READABLE)]
    pair.net.reset(pair.near)
    assert pair.net.poll(0) == [(pair.far, READABLE)]


def test_poll_passes_time_only_while_nothing_is_ready(pair):
    pair.net.watch(pair.far, True, False)
    assert pair.net.poll(2500) == [] and pair.clock.monotonic_us() == 2500
    pair.net.send(pair.near, b"x")
    pair.net.poll(10_000)
    assert pair.clock.monotonic_us() == 2500


def test_poll_jumps_to_the_event_that_makes_a_socket_ready(pair):
    pair.net.watch(pair.far, True, False)
    pair.clock.after(300, lambda: None)                                         # nothing comes of this one
    pair.clock.after(700, lambda: pair.net.send(pair.near, b"x"))
    assert pair.net.poll(None) == [(pair.far, READABLE)]
    assert pair.clock.monotonic_us() == 700


def test_an_event_at_the_very_end_of_the_timeout_is_seen(pair):
    pair.net.watch(pair.far, True, False)
    pair.clock.after(500, lambda: pair.net.send(pair.near, b"x"))
    assert pair.net.poll(500) == [(pair.far, READABLE)]


def test_wake_ends_the_running_or_the_next_poll_once(pair):
    pair.net.wake()
    assert pair.net.poll(None) == [] and pair.clock.monotonic_us() == 0
    pair.clock.after(40, pair.net.wake)
    assert pair.net.poll(1000) == [] and pair.clock.monotonic_us() == 40
    assert pair.net.poll(1000) == [] and pair.clock.monotonic_us() == 1040


def test_waiting_for_ever_for_nothing_is_a_deadlock_and_no_hang(pair):
    pair.net.watch(pair.far, True, False)
    with pytest.raises(Deadlock):
        pair.net.poll(None)


def test_latency_delays_connection_bytes_and_end_and_keeps_their_order():
    pair = Pair(latency_us=200)
    assert pair.clock.monotonic_us() == 200
    pair.net.watch(pair.far, True, False)
    pair.net.send(pair.near, b"late")
    pair.net.close(pair.near)
    assert pair.net.recv(pair.far, 10) is None
    assert pair.net.poll(None) == [(pair.far, READABLE)]
    assert pair.clock.monotonic_us() == 400
    assert [pair.net.recv(pair.far, 10), pair.net.recv(pair.far, 10)] == [b"late", b""]


def test_bytes_on_the_wire_count_against_the_capacity():
    pair = Pair(latency_us=200, capacity=4)
    assert [pair.net.send(pair.near, b"abc"), pair.net.send(pair.near, b"def")] == [3, 1]


def test_bytes_that_meet_a_closed_socket_come_back_as_a_reset():
    pair = Pair(latency_us=200)
    pair.net.send(pair.near, b"too late")
    pair.net.close(pair.far)
    pair.clock.sleep(1000)
    with pytest.raises(ConnectionResetError):
        pair.net.recv(pair.near, 10)


def test_cut_resets_every_connection_and_frees_the_port(pair):
    waiting = pair.net.connect("127.0.0.1", 6379)
    pair.net.send(pair.far, b"sent before")
    pair.net.cut()
    assert pair.net.recv(pair.near, 100) == b"sent before"
    for end in (pair.near, waiting):
        with pytest.raises(ConnectionResetError):
            pair.net.recv(end, 1)
    again = pair.net.listen("127.0.0.1", 6379, 511)
    assert again == pair.listener
    assert pair.net.poll(0) == []
