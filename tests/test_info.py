"""INFO: Redis's sections and field names, and numbers that follow from what happened."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from kvref.commands.info import SECTIONS, human
from kvref.resp import Verbatim
from kvref.sim import ReplyError, World

# Section by section, what redis-server 7.0.15 answers to INFO everything (the fields with fixed names).
REDIS = """
Server redis_version redis_git_sha1 redis_git_dirty redis_build_id redis_mode os arch_bits monotonic_clock
  multiplexing_api atomicvar_api gcc_version process_id process_supervised run_id tcp_port server_time_usec
  uptime_in_seconds uptime_in_days hz configured_hz lru_clock executable config_file io_threads_active
Clients connected_clients cluster_connections maxclients client_recent_max_input_buffer
  client_recent_max_output_buffer blocked_clients tracking_clients clients_in_timeout_table
Memory used_memory used_memory_human used_memory_rss used_memory_rss_human used_memory_peak used_memory_peak_human
  used_memory_peak_perc used_memory_overhead used_memory_startup used_memory_dataset used_memory_dataset_perc
  total_system_memory total_system_memory_human maxmemory maxmemory_human maxmemory_policy
  mem_fragmentation_ratio mem_fragmentation_bytes mem_clients_normal mem_allocator lazyfree_pending_objects lazyfreed_objects
Persistence loading async_loading current_cow_peak current_cow_size current_cow_size_age current_fork_perc
  current_save_keys_processed current_save_keys_total rdb_changes_since_last_save rdb_bgsave_in_progress
  rdb_last_save_time rdb_last_bgsave_status rdb_last_bgsave_time_sec rdb_current_bgsave_time_sec rdb_saves
  rdb_last_cow_size rdb_last_load_keys_expired rdb_last_load_keys_loaded aof_enabled aof_rewrite_in_progress
  aof_rewrite_scheduled aof_last_rewrite_time_sec aof_current_rewrite_time_sec aof_last_bgrewrite_status
  aof_rewrites aof_rewrites_consecutive_failures aof_last_write_status aof_last_cow_size
  module_fork_in_progress module_fork_last_cow_size aof_current_size aof_base_size aof_pending_rewrite
  aof_buffer_length aof_pending_bio_fsync aof_delayed_fsync
Stats total_connections_received total_commands_processed instantaneous_ops_per_sec total_net_input_bytes
  total_net_output_bytes total_net_repl_input_bytes total_net_repl_output_bytes instantaneous_input_kbps
  instantaneous_output_kbps instantaneous_input_repl_kbps instantaneous_output_repl_kbps rejected_connections
  sync_full sync_partial_ok sync_partial_err expired_keys expired_stale_perc expired_time_cap_reached_count
  expire_cycle_cpu_milliseconds evicted_keys evicted_clients total_eviction_exceeded_time
  current_eviction_exceeded_time keyspace_hits keyspace_misses pubsub_channels pubsub_patterns
  pubsubshard_channels latest_fork_usec total_forks migrate_cached_sockets slave_expires_tracked_keys
  active_defrag_hits active_defrag_misses active_defrag_key_hits active_defrag_key_misses
  total_active_defrag_time current_active_defrag_time tracking_total_keys tracking_total_items
  tracking_total_prefixes unexpected_error_replies total_error_replies dump_payload_sanitizations
  total_reads_processed total_writes_processed io_threaded_reads_processed io_threaded_writes_processed
  reply_buffer_shrinks reply_buffer_expands
Replication role connected_slaves master_failover_state master_replid master_replid2 master_repl_offset
  second_repl_offset repl_backlog_active repl_backlog_size repl_backlog_first_byte_offset repl_backlog_histlen
CPU used_cpu_sys used_cpu_user used_cpu_sys_children used_cpu_user_children used_cpu_sys_main_thread
  used_cpu_user_main_thread
Modules
Commandstats
Errorstats
Latencystats
Cluster cluster_enabled
Keyspace
"""
FIELDS = {line.split()[0]: line.split()[1:] for line in REDIS.replace("\n  ", " ").split("\n") if line}


@pytest.fixture
def world() -> Iterator[World]:
    world = World(seed=1)
    world.start()
    yield world


def sections(world: World, *words: str) -> dict[str, dict[str, str]]:
    """What INFO answers to somebody: heading -> field -> value."""
    found: dict[str, dict[str, str]] = {}
    for line in world.connect("reader")("INFO", *words).decode().split("\r\n"):
        if line.startswith("# "):
            found[line[2:]] = {}
        elif line:
            name, _, value = line.partition(":")
            found[list(found)[-1]][name] = value
    return found


def field(world: World, section: str, name: str) -> str:
    return sections(world, section)[section.capitalize()][name]


def test_the_sections_are_those_of_redis_in_its_order(world: World) -> None:
    assert list(SECTIONS) == list(FIELDS)
    assert list(sections(world, "everything")) == list(sections(world, "all")) == list(FIELDS)


@pytest.mark.parametrize("heading", [heading for heading, fields in FIELDS.items() if fields])
def test_every_field_is_one_of_redis_and_stands_in_its_order(world: World, heading: str) -> None:
    ours = sections(world, heading)[heading]
    assert list(ours) == [name for name in FIELDS[heading] if name in ours]


def test_without_a_section_the_statistics_of_commands_are_left_out(world: World) -> None:
    assert set(FIELDS) - set(sections(world)) == {"Commandstats", "Latencystats"}
    assert list(sections(world, "default", "commandstats")) == [name for name in FIELDS if name != "Latencystats"]


def test_several_sections_come_in_redis_order_and_once(world: World) -> None:
    assert list(sections(world, "keyspace", "CLUSTER", "Keyspace", "nosuch")) == ["Cluster", "Keyspace"]
    assert sections(world, "nosuch") == {}


def test_info_is_text_for_people_in_resp3(world: World) -> None:
    alice = world.connect("alice")
    alice("HELLO", "3")
    assert alice("INFO", "cluster") == Verbatim(b"# Cluster\r\ncluster_enabled:0\r\n")


def test_the_version_is_the_one_that_kvref_follows(world: World) -> None:
    assert field(world, "server", "redis_version") == "7.0.15"


def test_uptime_follows_the_clock(world: World) -> None:
    world.run(ms=5_000)
    assert field(world, "server", "uptime_in_seconds") == "5"
    world.clock.sleep(2 * 86_400_000_000)               # the machine is suspended over the weekend
    assert field(world, "server", "uptime_in_seconds") == "172805"
    assert field(world, "server", "uptime_in_days") == "2"


def test_clients_are_counted(world: World) -> None:
    assert field(world, "clients", "connected_clients") == "1"
    others = [world.connect(name) for name in ("alice", "bob")]
    for other in others:
        other("PING")
    assert field(world, "clients", "connected_clients") == "4"       # each question comes from a new one


def test_keyspace_tells_keys_and_deadlines_of_each_database_in_use(world: World) -> None:
    alice = world.connect("alice")
    for key in "abc":
        alice("SET", key, "1")
    alice("PEXPIRE", "a", "100000")
    alice("SELECT", "3")
    alice("SET", "d", "1")
    lines = sections(world, "keyspace")["Keyspace"]
    assert list(lines) == ["db0", "db3"]
    assert lines["db0"].startswith("keys=3,expires=1,avg_ttl=")
    assert lines["db3"] == "keys=1,expires=0,avg_ttl=0"


def test_hits_misses_and_expired_keys_are_counted(world: World) -> None:
    alice = world.connect("alice")
    alice("SET", "k", "v", "PX", "50")
    alice("GET", "k")
    alice("GET", "nosuch")
    world.run(ms=500)
    stats = sections(world, "stats")["Stats"]
    assert (stats["keyspace_hits"], stats["keyspace_misses"], stats["expired_keys"]) == ("1", "1", "1")


def test_commands_are_counted_by_name_with_their_failures(world: World) -> None:
    alice = world.connect("alice")
    for words in (("ECHO", "x"), ("ECHO", "y"), ("ECHO",), ("SELECT", "99"), ("CLIENT", "ID")):
        try:
            alice(*words)
        except ReplyError:
            pass
    stats = sections(world, "commandstats")["Commandstats"]
    assert stats["cmdstat_echo"].startswith("calls=2,usec=")
    assert stats["cmdstat_echo"].endswith(",rejected_calls=1,failed_calls=0")
    assert stats["cmdstat_select"].endswith(",rejected_calls=0,failed_calls=1")
    assert stats["cmdstat_client|id"].startswith("calls=1,")
    assert "cmdstat_get" not in stats
    calls, usec, mean = (float(part.partition("=")[2]) for part in stats["cmdstat_echo"].split(",")[:3])
    assert mean == pytest.approx(usec / calls, abs=0.01)


def test_errors_are_counted_by_their_first_word(world: World) -> None:
    alice = world.connect("alice")
    for words in (("NOSUCH",), ("HELLO", "9"), ("SELECT", "99")):
        with pytest.raises(ReplyError):
            alice(*words)
    assert sections(world, "errorstats")["Errorstats"] == {"errorstat_ERR": "count=2", "errorstat_NOPROTO": "count=1"}
    assert field(world, "stats", "total_error_replies") == "3"


def test_traffic_is_counted_in_bytes(world: World) -> None:
    alice = world.connect("alice")
    before = sections(world, "stats")["Stats"]
    alice("ECHO", "x" * 1000)
    after = sections(world, "stats")["Stats"]

    def grown(name: str) -> int:
        return int(after[name]) - int(before[name])

    question = len(b"*2\r\n$4\r\nINFO\r\n$5\r\nstats\r\n")
    assert grown("total_net_input_bytes") == len(b"*2\r\n$4\r\nECHO\r\n$1000\r\n") + 1002 + question
    assert grown("total_commands_processed") == 2
    assert grown("total_connections_received") == 1
    assert grown("total_net_output_bytes") > 1000


def test_rates_rise_with_work_and_fall_with_rest(world: World) -> None:
    alice = world.connect("alice")
    for _ in range(20):
        for _ in range(50):
            alice("PING")
        world.run(ms=100)
    busy = int(field(world, "stats", "instantaneous_ops_per_sec"))
    world.run(ms=5000)
    assert busy > 100 > int(field(world, "stats", "instantaneous_ops_per_sec"))


def test_changes_are_counted_for_the_next_save(world: World) -> None:
    alice = world.connect("alice")
    before = int(field(world, "persistence", "rdb_changes_since_last_save"))
    alice("SET", "k", "v")
    alice("GET", "k")
    assert int(field(world, "persistence", "rdb_changes_since_last_save")) == before + 1


EXAMPLES: list[Any] = [(0, "0B"), (1023, "1023B"), (1024, "1.00K"), (1536, "1.50K"), (2 * 2**20, "2.00M"),
                       (3 * 2**30, "3.00G"), (2**40, "1.00T"), (5 * 2**50, "5.00P")]


@pytest.mark.parametrize("size, text", EXAMPLES)
def test_sizes_are_written_as_redis_writes_them(size: int, text: str) -> None:
    assert human(size) == text
