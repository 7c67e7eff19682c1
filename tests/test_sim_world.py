"""World: the real server on a simulated computer, as notebooks and scripts see it."""

import hashlib
import os
import pathlib
import subprocess
import sys

import pytest

from kvref.eventloop import Event
from kvref.resp import Push
from kvref.sim import Cost, ReplyError, World, WouldBlock
from kvref.sim.disk import Operation

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture
def world():
    world = World(seed=1)
    world.start()
    return world


# ---- calls and replies

def test_a_call_returns_the_decoded_reply(world):
    alice = world.connect("alice")
    assert alice("SET", "course", "redis") == "OK"
    assert alice("GET", b"course") == b"redis"
    assert alice("GET", "none") is None
    assert alice("APPEND", "course", 7) == 6
    assert alice("MGET", "course", "none") == [b"redis7", None]
    assert alice("SET", "näme", "wört") == "OK" and alice("GET", "näme") == "wört".encode()


def test_an_error_reply_raises_with_the_server_s_text(world):
    with pytest.raises(ReplyError, match=r"^ERR wrong number of arguments for 'get' command$"):
        world.connect()("GET")


def test_a_call_returns_its_own_reply_and_leaves_earlier_ones_in_order(world):
    alice = world.connect("alice")
    alice.send("SET", "k", "v")
    alice.send("GET", "none")
    assert alice("GET", "k") == b"v"
    assert alice.replies == ["OK", None]
    assert alice("PING") == "PONG"


def test_nothing_happens_before_the_world_turns(world):
    alice = world.connect("alice")
    alice.send("PING")
    assert alice.replies == [] and not world.server.clients
    world.step()
    assert len(world.server.clients) == 1 and alice.replies == []
    world.settle()
    assert alice.replies == ["PONG"] and world.clock.monotonic_us() == 10


def test_bytes_may_come_in_pieces_and_inline(world):
    alice = world.connect("alice")
    for byte in b"*2\r\n$4\r\nECHO\r\n$2\r\nhi\r\n":
        alice.send_bytes(bytes([byte]))
        world.settle()
    alice.send_bytes(b"PING\r\nPING inline\r\n")
    world.settle()
    assert alice.replies == [b"hi", "PONG", b"inline"]
    assert alice.received == b"$2\r\nhi\r\n+PONG\r\n$6\r\ninline\r\n"


def test_bytes_that_are_no_resp_are_answered_and_end_the_connection(world):
    alice = world.connect("alice")
    alice.send_bytes(b"*1\r\n:1\r\n")
    world.settle()
    assert "Protocol error" in str(alice.replies[0])
    with pytest.raises(ConnectionError, match="alice: the server"):
        alice("PING")


def test_clients_do_not_see_each_other_s_replies(world):
    alice, bob = world.connect("alice"), world.connect("bob")
    alice.send("ECHO", "a")
    assert bob("ECHO", "b") == b"b"
    assert alice.replies == [b"a"] and bob.replies == []


def test_the_connection_may_have_a_small_chunk_or_random_fragments():
    for options, chunk in (({}, 1), ({"fragment": True}, None)):
        world = World(seed=3, **options)
        world.start()
        alice = world.connect("alice", chunk=chunk)
        assert alice("SET", "k", "v" * 100) == "OK" and alice("GET", "k") == b"v" * 100
        reads = [each for each in world.trace if isinstance(each.what, Event) and each.what.kind == "read"]
        assert len(reads) > 3


def test_what_is_larger_than_the_queues_arrives_whole_both_ways(world):
    alice = world.connect("alice")
    big = bytes(range(256)) * 2000
    assert alice("SET", "big", big) == "OK"
    assert alice("GET", "big") == big


def test_who_does_not_read_leaves_the_replies_with_the_server(world):
    alice = world.connect("alice")
    alice("SET", "big", "x" * 300_000)
    alice.reading = False
    alice.send("GET", "big")
    world.run(ms=10)
    client = world.server.clients[1]
    assert alice.replies == [] and 200_000 < client.output_size < 300_000
    alice.reading = True
    world.settle()
    assert alice.replies == [b"x" * 300_000] and client.output_size == 0


def test_pushes_are_kept_apart_from_replies(world):
    alice = world.connect("alice")
    alice("HELLO", 3)
    world.server.clients[1].reply(Push([b"message", b"news", b"hello"]))
    assert alice("PING") == "PONG"
    assert alice.pushes == [[b"message", b"news", b"hello"]] and alice.replies == []


def test_messages_of_a_resp2_subscriber_are_pushes_and_confirmations_replies(world):
    alice = world.connect("alice")
    alice("PING")
    client = world.server.clients[1]
    client.reply([b"message", b"a", b"list"])
    client.reply([b"subscribe", b"news", 1])
    client.reply([b"message", b"news", b"hello"])
    world.settle()
    assert alice.replies == [[b"message", b"a", b"list"], [b"subscribe", b"news", 1]]
    assert alice.pushes == [[b"message", b"news", b"hello"]]


# ---- leaving

def test_closing_resetting_and_half_closing_end_the_server_s_client(world):
    for leave in ("close", "reset", "shutdown"):
        alice = world.connect("alice")
        alice("PING")
        getattr(alice, leave)()
        world.settle()
        assert world.server.clients == {}, leave
        with pytest.raises(ConnectionError):
            alice("PING")


def test_half_closing_waits_until_everything_is_sent(world):
    alice = world.connect("alice")
    alice.send("SET", "big", "x" * 300_000)
    alice.shutdown()
    world.settle()
    assert world.connect("bob")("STRLEN", "big") == 300_000


def test_quit_is_answered_and_then_the_connection_is_over(world):
    alice = world.connect("alice")
    assert alice("QUIT") == "OK"
    with pytest.raises(ConnectionError, match="alice: the server has closed the connection"):
        alice("PING")


def test_a_stranger_from_another_computer_is_refused_by_protected_mode():
    world = World()
    world.start(bind="0.0.0.0", protected_mode=True)
    with pytest.raises(ReplyError, match="^DENIED"):
        world.connect("mallory", source="10.0.0.9")("PING")


# ---- time

def test_virtual_time_passes_exactly_and_commands_cost_what_the_world_says(world):
    world.run(ms=1500)
    assert world.clock.monotonic_us() == 1_500_000
    world.run(ms=0.25)
    assert world.clock.monotonic_us() == 1_500_250
    for cost, us in ((Cost(), 10), (0, 0), (25, 25), (Cost(command_ns=2_000), 2)):
        other = World(cost=cost)
        other.start()
        other.connect()("PING")
        assert other.clock.monotonic_us() == us


def test_time_passes_without_a_server_too(world):
    world.kill()
    world.run(ms=100)
    assert world.clock.monotonic_us() == 100_000


def test_timers_fire_while_time_passes(world):
    alice = world.connect("alice")
    alice("SET", "k", "v", "PX", 1000)
    world.run(ms=900)
    assert len(world.server.databases[0]) == 1
    world.run(ms=400)
    assert len(world.server.databases[0]) == 0      # nobody asked for it: the expiry cycle found it


def test_a_jump_of_the_wall_clock_expires_keys_and_moves_no_timer(world):
    alice = world.connect("alice")
    alice("SET", "k", "v", "EX", 3600)
    world.run(ms=50)
    timer_us = world.server.loop.next_timer_us()
    world.clock.jump(3_600_001)
    world.run(ms=1)
    assert world.server.loop.next_timer_us() == timer_us
    assert alice("GET", "k") is None


def test_debug_sleep_holds_up_the_whole_server_in_virtual_time():
    world = World()
    world.start(enable_debug_command="yes")
    alice, bob = world.connect("alice"), world.connect("bob")
    alice.send("DEBUG", "SLEEP", "2.5")
    assert bob("PING") == "PONG"
    assert 2_500_000 <= world.clock.monotonic_us() < 2_500_100


def test_latency_is_paid_on_every_way():
    world = World(latency_us=200)
    world.start()
    alice = world.connect("alice")
    assert alice("PING") == "PONG"
    assert world.clock.monotonic_us() == 410             # the visit and the request travel together
    assert alice("PING") == "PONG"
    assert world.clock.monotonic_us() == 820


# ---- nothing left to wait for

def test_would_block_where_no_reply_can_come_and_no_time_is_lost(world):
    alice = world.connect("alice")
    alice.send_bytes(b"*2\r\n$4\r\nECHO\r\n$100\r\n")      # what follows is swallowed as the argument
    with pytest.raises(WouldBlock):
        alice("PING")
    assert world.clock.monotonic_us() < 100
    alice.send_bytes(b"x" * (102 - len(b"*1\r\n$4\r\nPING\r\n")))
    world.settle()
    assert alice.replies[0].startswith(b"*1\r\n$4\r\nPING")


def test_a_call_waits_for_a_deadline_that_the_server_knows_of(world):
    alice = world.connect("alice")
    alice("PING")
    server, deadline_ms = world.server, world.clock.time_us() // 1000 + 5000
    server.blocked_until_ms = lambda: deadline_ms       # as blocked clients will have it
    server.loop.add_timer(5000, lambda: server.clients[1].reply([b"timeout"]))
    alice.send_bytes(b"*2\r\n$4\r\nECHO\r\n$100\r\n")
    assert alice("PING") == [b"timeout"]
    assert 5_000_000 <= world.clock.monotonic_us() < 5_200_000


def test_a_call_waits_for_children_and_their_end(world):
    alice = world.connect("alice")
    alice("PING")
    server = world.server
    server.fork(lambda disk: disk.fsync(disk.open("/data/f", "w")), lambda child: server.clients[1].reply("reaped"))
    alice.send_bytes(b"*2\r\n$4\r\nECHO\r\n$100\r\n")
    assert alice("PING") == "reaped"


def test_a_child_that_the_server_never_reaps_is_not_waited_for_for_ever(world):
    alice = world.connect("alice")
    world.processes.reap = lambda: []
    world.processes.fork(lambda disk: None)
    alice.send_bytes(b"*2\r\n$4\r\nECHO\r\n$100\r\n")
    with pytest.raises(WouldBlock):
        alice("PING")


def test_a_loop_that_spins_is_a_clear_error(world):
    world.server.loop.add_timer(0, lambda: 0)
    with pytest.raises(RuntimeError, match="turns and turns"):
        world.run(ms=1)


# ---- the end, and after it

def test_a_killed_server_s_clients_get_connection_errors_and_its_memory_is_gone(world):
    alice = world.connect("alice")
    alice("SET", "k", "v")
    alice.send("PING")
    world.kill()
    assert world.server is None
    with pytest.raises(ConnectionError, match="alice: the server was killed"):
        alice("GET", "k")
    with pytest.raises(ConnectionRefusedError):
        world.connect("alice")
    world.start()
    assert world.connect("alice")("GET", "k") is None


def test_a_reply_that_had_been_sent_can_be_read_after_the_kill(world):
    alice = world.connect("alice")
    alice.reading = False
    alice.send("PING")
    world.settle()
    world.kill()
    assert alice.replies == ["PONG"]


def test_the_page_cache_survives_a_kill_and_not_a_power_loss(world):
    file = world.disk.open("/data/f", "w")
    world.disk.write(file, b"unsynced")
    world.kill()
    assert world.disk.content("/data/f") == b"unsynced"
    assert world.states("synced") == [0]
    world.power_loss("synced", state=0)
    assert world.disk.list("/data") == []
    world.start()


def test_a_power_loss_takes_a_running_server_with_it(world):
    alice = world.connect("alice")
    alice("PING")
    with pytest.raises(ValueError):
        world.power_loss("sunny")
    assert alice("PING") == "PONG"
    world.power_loss()
    assert world.server is None
    with pytest.raises(ConnectionError, match="the power failed"):
        alice("PING")


def test_children_after_a_power_loss_work_on_the_disk_that_is_left(world):
    world.power_loss()
    world.start()
    world.processes.fork(lambda disk: disk.write(disk.open("/data/f", "w"), b"x"))
    world.run(ms=10)
    assert world.disk.content("/data/f") == b"x"


def test_children_die_with_their_server(world):
    world.processes.fork(lambda disk: disk.write(disk.open("/data/f", "w"), b"x"))
    world.run(ms=0.15)
    world.kill()
    world.run(ms=100)
    assert world.disk.content("/data/f") == b""


def test_one_server_at_a_time_and_none_is_a_clear_error(world):
    with pytest.raises(RuntimeError, match="a server is running"):
        world.start()
    world.kill()
    for use in (world.step, world.kill, world.signal):
        with pytest.raises(RuntimeError, match="no server runs"):
            use()


def test_each_server_is_a_process_of_its_own(world):
    pid = world.processes.pid
    world.kill()
    world.start(port=7000)
    assert world.processes.pid == pid + 1 == world.server.ports.processes.pid
    assert world.connect("alice")("PING") == "PONG"


def test_shutdown_by_a_client_ends_the_server_and_its_other_clients(world):
    alice, bob = world.connect("alice"), world.connect("bob")
    bob("PING")
    assert alice("SHUTDOWN", "NOSAVE") is None
    assert world.server is None
    with pytest.raises(ConnectionError):
        bob("PING")
    assert any("bye bye" in line for line in world.log)
    world.start()


def test_sigterm_ends_the_server_at_its_next_cron(world):
    alice = world.connect("alice")
    alice("PING")
    world.signal("SIGTERM")
    world.run(ms=200)
    assert world.server is None and world.clock.monotonic_us() == 200_010
    with pytest.raises(ConnectionError):
        alice("PING")


def test_a_server_that_cannot_start_leaves_the_world_ready_for_the_next(world):
    world.kill()
    with pytest.raises(OSError):
        world.start(bind="127.0.0.1 10.9.8.7")
    assert world.server is None
    world.start()


def test_a_wrong_directive_is_said_before_anything_starts():
    world = World()
    with pytest.raises(Exception, match="no-such-directive"):
        world.start(no_such_directive="yes")
    assert world.server is None and world.log == []


# ---- looking

def test_the_trace_holds_loop_and_disk_in_one_order(world):
    alice = world.connect("alice")
    alice("SET", "k", "v")
    world.disk.write(world.disk.open("/data/f", "w"), b"x")
    world.kill()
    seqs = [each.seq for each in world.trace]
    assert seqs == sorted(set(seqs))
    shown = [" ".join(repr(each).split()) for each in world.trace]
    assert shown == [
        "0.000000 s #1 mkdir /data", "0.000000 s #2 fsync_dir /", "0.000000 s start",
        "0.000000 s accept 127.0.0.1:50001 (client 1)", "0.000000 s read 27 bytes (client 1)",
        "0.000010 s command set (client 1)", "0.000010 s write 5 of 5 bytes (client 1)",
        f"0.000010 s #{seqs[-3]} create /data/f", f"0.000010 s #{seqs[-2]} write /data/f 1 bytes at 0",
        "0.000010 s kill"]
    assert {type(each.what) for each in world.trace} == {Operation, Event, str}


def test_world_and_client_show_themselves(world):
    alice = world.connect("alice")
    alice("SET", "k", "v")
    alice.send("PING")
    assert repr(alice) == "<alice: connected, awaited replies 1>"
    shown = repr(world)
    assert shown.startswith("<World seed=1\n") and repr(alice) in shown and "/data/" in shown and "keys 1" in shown
    world.kill()
    assert "no server runs" in repr(world) and repr(alice).startswith("<alice: the server was killed")


def test_memory_grows_with_the_number_of_keys(world):
    alice = world.connect("alice")
    before = world.processes.memory()
    alice("MSET", "a", 1, "b", 2)
    assert world.processes.memory() == before + 2 * 160


def test_two_worlds_live_side_by_side():
    worlds = [World(seed=1), World(seed=1)]
    for index, world in enumerate(worlds):
        world.start()
        world.connect()("SET", "who", index)
    assert [world.connect()("GET", "who") for world in worlds] == [b"0", b"1"]


# ---- same seed, same bytes

def scenario(seed):
    """A little of everything; a digest of all that came of it."""
    world = World(seed, fragment=True, latency_us=150)
    world.start()
    alice, bob = world.connect("alice"), world.connect("bob", chunk=5)
    for i in range(25):
        alice("SET", f"key:{i}", "x" * i, "PX", 1000 + 90 * i)
        bob.send("SCAN", 0, "COUNT", 5)
    for words in ("KEYS *", "CONFIG GET a*", "COMMAND DOCS GET", "COMMAND INFO SET", "CLIENT LIST", "INFO everything"):
        alice.send(*words.split())
    answers = [alice("RANDOMKEY") for _ in range(10)]
    world.processes.fork(lambda disk: disk.write(disk.open("/data/f", "w"), b"child"))
    world.run(ms=2000)
    bob.reset()
    world.run(ms=300)
    world.power_loss()
    world.start()
    answers += [world.connect("carol")("RANDOMKEY"), world]
    everything = repr((answers, bytes(alice.received), bytes(bob.received), world.trace, world.log))
    return hashlib.sha256(everything.encode()).hexdigest()


def test_same_seed_same_bytes_under_any_hash_seed():
    command = [sys.executable, "-c", "from tests.test_sim_world import scenario; print(scenario(1), scenario(2))"]
    runs = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True,
                             env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed})
            for seed in ("1", "2")]
    outputs = [run.communicate()[0].split() for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert outputs[0] == outputs[1]
    assert outputs[0][0] != outputs[0][1]


def test_a_long_wire_that_is_full_does_not_keep_the_world_busy() -> None:
    """More bytes than a wire holds, and latency: nothing moves until the first of them have arrived."""
    world = World(seed=1, latency_us=50)
    world.start()
    alice = world.connect("alice")
    for number in range(600):
        alice.send("SET", f"key:{number}", "x" * 100)
    assert alice("PING") == "PONG" and len(alice.replies) == 600
