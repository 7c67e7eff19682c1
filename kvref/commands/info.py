"""INFO: sections, their fields, and where each number comes from.

Interface:
  - SECTIONS                 heading -> fields; a field is a name and a function of the server
  - report(server, words)    the text for the sections that were asked for
  - human(size)              1536 -> "1.50K"

Redis: genRedisInfoString in server.c. All sections of 7.0.15 are there; fields that kvref could only invent
(the allocator, Lua, replication offsets, processor times) are not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from kvref.command_table import REDIS_VERSION, Call, command, rows
from kvref.persistence.replay import records
from kvref.resp import Verbatim

if TYPE_CHECKING:
    from kvref.server import Server

Fields = dict[str, Callable[[Any], object]]         # of a Server
Lines = Iterator[tuple[str, object]]


def human(size: int) -> str:
    """A number of bytes for people, as Redis writes it: 512B, 1.50K, 2.00M. Redis: bytesToHuman."""
    if size < 1024:
        return f"{size}B"
    amount = float(size)
    for unit in "KMGT":
        amount /= 1024
        if amount < 1024:
            return f"{amount:.2f}{unit}"
    return f"{amount / 1024:.2f}P"


def _uptime_s(server: Server) -> int:
    return (server.now_us - server.started_us) // 1_000_000


def _used(server: Server) -> int:
    return server.memory.total + server.memory.buffers


def _resident(server: Server) -> int:
    return server.ports.processes.memory()


# ---- fixed fields --------------------------------------------------------------------------------

SERVER: Fields = {
    "redis_version": lambda s: REDIS_VERSION,
    "redis_mode": lambda s: "standalone",
    "process_id": lambda s: s.ports.processes.pid,
    "run_id": lambda s: s.run_id,
    "tcp_port": lambda s: s.config.port,
    "server_time_usec": lambda s: s.ports.clock.time_us(),
    "uptime_in_seconds": _uptime_s,
    "uptime_in_days": lambda s: _uptime_s(s) // 86400,
    "hz": lambda s: s.config.hz,
    "configured_hz": lambda s: s.config.hz,
    "lru_clock": lambda s: s.now_ms // 1000 & 0xFFFFFF,
    "config_file": lambda s: s.config.filename or "",
    "io_threads_active": lambda s: 0,
}

CLIENTS: Fields = {
    "connected_clients": lambda s: len(s.clients) - len(s.to_close),
    "cluster_connections": lambda s: 0,
    "maxclients": lambda s: s.config.maxclients,
    "blocked_clients": lambda s: len(s.waiting),
    "tracking_clients": lambda s: 0,
    "clients_in_timeout_table": lambda s: s.waiting.with_deadline(),
}

MEMORY: Fields = {
    "used_memory": lambda s: s.memory.used(),               # counts; those below take what it has found
    "used_memory_human": lambda s: human(_used(s)),
    "used_memory_rss": _resident,
    "used_memory_rss_human": lambda s: human(_resident(s)),
    "used_memory_peak": lambda s: s.memory.peak,
    "used_memory_peak_human": lambda s: human(s.memory.peak),
    "used_memory_overhead": lambda s: s.memory.overhead(),
    "used_memory_startup": lambda s: 0,
    "used_memory_dataset": lambda s: _used(s) - s.memory.overhead(),
    "maxmemory": lambda s: s.config.maxmemory,
    "maxmemory_human": lambda s: human(s.config.maxmemory),
    "maxmemory_policy": lambda s: s.config.maxmemory_policy,
    "mem_clients_normal": lambda s: s.memory.buffers,
}

PERSISTENCE: Fields = {
    "loading": lambda s: int(s.loading is not None),
    "async_loading": lambda s: 0,
    "rdb_changes_since_last_save": lambda s: s.dirty,
    "rdb_bgsave_in_progress": lambda s: int(s.snapshots.child is not None),
    "rdb_last_save_time": lambda s: s.snapshots.last_save_s,
    "rdb_last_bgsave_status": lambda s: "err" if s.snapshots.failing else "ok",
    "rdb_last_bgsave_time_sec": lambda s: s.snapshots.last_duration_s,
    "rdb_current_bgsave_time_sec": lambda s: (
        s.now_ms // 1000 - s.snapshots.started_s if s.snapshots.child is not None else -1),
    "rdb_saves": lambda s: s.snapshots.saves,
    "rdb_last_cow_size": lambda s: s.snapshots.last_copied,
    "rdb_last_load_keys_expired": lambda s: s.last_load.expired if s.last_load else 0,
    "rdb_last_load_keys_loaded": lambda s: s.last_load.keys if s.last_load else 0,
    "aof_enabled": lambda s: int(s.config.appendonly),
    "aof_rewrite_in_progress": lambda s: int(s.aof.child is not None),
    "aof_rewrite_scheduled": lambda s: int(s.aof.scheduled),
    "aof_last_rewrite_time_sec": lambda s: s.aof.last_duration_s,
    "aof_current_rewrite_time_sec": lambda s: (
        s.now_ms // 1000 - s.aof.started_s if s.aof.child is not None else -1),
    "aof_last_bgrewrite_status": lambda s: "ok" if s.aof.last_ok else "err",
    "aof_rewrites": lambda s: s.aof.rewrites,
    "aof_rewrites_consecutive_failures": lambda s: s.aof.failures,
    "aof_last_write_status": lambda s: "err" if s.aof.misconf else "ok",
    "aof_last_cow_size": lambda s: s.aof.last_copied,
}

AOF: Fields = {
    "aof_current_size": lambda s: s.aof.current_size,
    "aof_base_size": lambda s: s.aof.base_size,
    "aof_pending_rewrite": lambda s: int(s.aof.scheduled),
    "aof_buffer_length": lambda s: len(s.aof.unwritten) + len(records(words for _, words in s.aof.effects)),
    "aof_pending_bio_fsync": lambda s: int(s.aof.job is not None),
    "aof_delayed_fsync": lambda s: s.aof.delayed_fsync,
}


def _persistence(server: Server) -> Lines:
    yield from _fixed(PERSISTENCE)(server)
    if server.config.appendonly:
        yield from ((name, value(server)) for name, value in AOF.items())
    if server.loading:
        yield from ((name, value(server)) for name, value in LOADING.items())


LOADING: Fields = {
    "loading_start_time": lambda s: s.loading.start_s,
    "loading_total_bytes": lambda s: s.loading.total,
    "loading_loaded_bytes": lambda s: s.loading.loaded,
    "loading_loaded_perc": lambda s: f"{s.loading.percent:.2f}",
    "loading_eta_seconds": lambda s: s.loading.eta_s(s.now_us),
}


def _stat(name: str) -> Callable[[Server], object]:
    return lambda server: getattr(server.stats, name)


def _kbps(bytes_per_second: float) -> str:
    return f"{bytes_per_second / 1024:.2f}"


STATS: Fields = {
    "total_connections_received": _stat("total_connections_received"),
    "total_commands_processed": _stat("total_commands_processed"),
    "instantaneous_ops_per_sec": lambda s: int(s.rates.commands.per_second()),
    "total_net_input_bytes": _stat("total_net_input_bytes"),
    "total_net_output_bytes": _stat("total_net_output_bytes"),
    "instantaneous_input_kbps": lambda s: _kbps(s.rates.input.per_second()),
    "instantaneous_output_kbps": lambda s: _kbps(s.rates.output.per_second()),
    "rejected_connections": _stat("rejected_connections"),
    "expired_keys": _stat("expired_keys"),
    "expired_stale_perc": lambda s: f"{s.expiry.stale_percent:.2f}",
    "expired_time_cap_reached_count": lambda s: s.expiry.time_cap_reached,
    "evicted_keys": _stat("evicted_keys"),
    "evicted_clients": lambda s: 0,
    "total_eviction_exceeded_time": lambda s: (s.stats.total_eviction_exceeded_us + s.eviction.over_us()) // 1000,
    "current_eviction_exceeded_time": lambda s: s.eviction.over_us() // 1000,
    "keyspace_hits": _stat("keyspace_hits"),
    "keyspace_misses": _stat("keyspace_misses"),
    "pubsub_channels": lambda s: len(s.pubsub.channels),
    "pubsub_patterns": lambda s: len(s.pubsub.patterns),
    "pubsubshard_channels": lambda s: 0,
    "latest_fork_usec": _stat("latest_fork_usec"),
    "total_forks": _stat("total_forks"),
    "total_error_replies": _stat("total_error_replies"),
}

REPLICATION: Fields = {
    "role": lambda s: "master",
    "connected_slaves": lambda s: 0,
    "master_failover_state": lambda s: "no-failover",
    "master_repl_offset": lambda s: 0,
    "repl_backlog_active": lambda s: 0,
}


# ---- fields with names of their own --------------------------------------------------------------

def _fixed(fields: Fields) -> Callable[[Server], Lines]:
    return lambda server: ((name, value(server)) for name, value in fields.items())


def _command_stats(server: Server) -> Lines:
    for row in rows(server.commands):
        if row.calls or row.failed or row.rejected:
            yield f"cmdstat_{row.name}", (
                f"calls={row.calls},usec={row.nsec // 1000},usec_per_call={row.nsec / 1000 / (row.calls or 1):.2f},"
                f"rejected_calls={row.rejected},failed_calls={row.failed}")


def _error_stats(server: Server) -> Lines:
    for code in sorted(server.stats.errors):
        yield f"errorstat_{code}", f"count={server.stats.errors[code]}"


def _keyspace(server: Server) -> Lines:
    for db in server.databases:
        if db:
            yield f"db{db.index}", f"keys={len(db)},expires={len(db.deadlines)},avg_ttl={db.average_ttl_ms}"


SECTIONS: dict[str, Callable[[Server], Lines]] = {
    "Server": _fixed(SERVER),
    "Clients": _fixed(CLIENTS),
    "Memory": _fixed(MEMORY),
    "Persistence": _persistence,
    "Stats": _fixed(STATS),
    "Replication": _fixed(REPLICATION),
    "CPU": _fixed({}),
    "Modules": _fixed({}),
    "Commandstats": _command_stats,
    "Errorstats": _error_stats,
    "Latencystats": _fixed({}),
    "Cluster": _fixed({"cluster_enabled": lambda s: 0}),
    "Keyspace": _keyspace,
}

ALL = {name.lower() for name in SECTIONS}
GROUPS = {"all": ALL, "everything": ALL, "default": ALL - {"commandstats", "latencystats"}, "module_list": {"modules"}}


def report(server: Server, words: list[str]) -> str:
    """The sections that the words name, in INFO's own order; a name that nobody knows is passed over."""
    wanted: set[str] = set()
    for word in words or ["default"]:
        wanted |= GROUPS.get(word.lower(), {word.lower()})
    return "\r\n".join(f"# {heading}\r\n" + "".join(f"{name}:{value}\r\n" for name, value in lines(server))
                       for heading, lines in SECTIONS.items() if heading.lower() in wanted)


@command("info", arity=-1, flags="loading stale", group="server", since="1.0.0")
def info(call: Call) -> Verbatim:
    "Report on the state of the server, by sections."
    text = report(call.server, [word.decode("latin-1") for word in call.args[1:]])
    return Verbatim(text.encode("utf-8", "surrogateescape"))
