"""The configuration: redis.conf and the command line, CONFIG GET, SET and REWRITE, beside those of a real server."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from kvref.config import Config, ConfigError, command_line
from kvref.directives import DIRECTIVES
from kvref.sim import World
from kvref.sim.errors import ReplyError
from tests import record



def refusal(*words: str, text: str | None = None, **more: Any) -> str:
    """What is said of a configuration that cannot be used."""
    with pytest.raises(ConfigError) as caught:
        Config.load(text, words, **more)
    return str(caught.value)


def shown(config: Config, name: str) -> str:
    return config.matching([name.encode()])[name.encode()].decode()


# ---- the table -----------------------------------------------------------------------------------

CHOSEN = {"bind", "save", "dir", "port", "logfile", "enable-protected-configs"}     # here on purpose, or by the test


@pytest.fixture(scope="module")
def real() -> Iterator[redis.Redis]:
    """A redis-server that lets CONFIG SET change all that it can."""
    if not record.installed("redis-server"):
        pytest.skip("redis-server 7.0 is not installed")
    with record.RedisServer({"enable-protected-configs": "yes"}) as server:
        yield redis.Redis(port=server.port, decode_responses=True)


def test_every_directive_of_redis_is_known_with_its_default(real: redis.Redis) -> None:
    theirs = real.config_get("*")
    ours = {name.decode(): value.decode() for name, value in Config().matching([b"*"]).items()}
    assert sorted(ours) == sorted(theirs)
    assert {name: ours[name] for name in ours if name not in CHOSEN} == {
        name: theirs[name] for name in theirs if name not in CHOSEN}


def test_hidden_directives_are_those_of_redis(real: redis.Redis) -> None:
    hidden = [name for name, row in DIRECTIVES.items() if "hidden" in row.flags]
    assert {name: shown(Config(), name) for name in hidden} == real.config_get(*hidden)
    assert len(hidden) == 5


def test_what_cannot_be_set_at_run_time_is_what_redis_does_not_set(real: redis.Redis) -> None:
    for name, row in DIRECTIVES.items():
        with pytest.raises(redis.ResponseError) as theirs:
            real.execute_command("CONFIG", "SET", name, "x", name, "x")     # a duplicate: never carried out
        assert ("fixed" in row.flags) == ("immutable" in str(theirs.value)), name


def test_what_is_protected_is_what_redis_protects(redis_server: record.RedisServer) -> None:
    client = redis.Redis(port=redis_server.port, decode_responses=True)
    for name, row in DIRECTIVES.items():
        with pytest.raises(redis.ResponseError) as theirs:
            client.execute_command("CONFIG", "SET", name, "x", name, "x")
        assert ("protected" in row.flags) == ("protected config" in str(theirs.value)), name


def test_a_refused_directive_may_be_given_with_the_value_that_kvref_has() -> None:
    for name, row in DIRECTIVES.items():
        if row.status == "refused" and name != "replicaof" != row.name:
            usual = row.kind.show(row.default).decode()
            assert Config.load(None, [f"--{name}", usual]).get(name) == row.default
    assert Config.load("replicaof no one").replicaof == []


@pytest.mark.parametrize("line", [
    "maxmemory-clients 1mb", "daemonize yes", "tls-port 6380",
    "replicaof example.org 6379", "slaveof example.org 6379", "cluster-enabled yes", "supervised systemd",
    "unixsocket /run/redis.sock", "aclfile users.acl", "syslog-enabled yes", "min-slaves-to-write 1",
    "user alice on", "loadmodule x.so", "rename-command FLUSHALL x", "search.threads 4",
    "sentinel monitor mymaster 127.0.0.1 6379 2",
])
def test_what_kvref_would_do_otherwise_is_refused_in_one_sentence(line: str) -> None:
    said = refusal(text=f"\n{line}\n", filename="x.conf")
    assert said.startswith(f"x.conf line 2: {line.split()[0]}: kvref ")
    assert said.endswith(".") and said.count("\n") == 0 and "take it out" in said


def test_what_is_without_effect_is_collected() -> None:
    config = Config.load("io-threads 4\nport 7\nslave-lazy-flush yes\nio-threads 2\n")
    assert config.ignored == ["io-threads", "replica-lazy-flush"]
    assert config.io_threads == 2


def test_debians_redis_conf_is_refused_for_daemonize_alone(debians_conf: str) -> None:
    assert ": daemonize: kvref stays in the foreground; take it out" in refusal(text=debians_conf)
    config = Config.load(debians_conf.replace("daemonize yes", "daemonize no"))
    assert config.dir == "/var/lib/redis"
    assert config.bind == ["127.0.0.1", "-::1"]


# ---- redis.conf ----------------------------------------------------------------------------------

def test_comments_blanks_quotes_and_capitals() -> None:
    config = Config.load(b"# hz 1\n\n \t \r\n  HZ 20\r\n"
                         b'"timeout" \'5\'\nrequirepass "a\\x41\\n\\"\xff"\nlogfile \'it\\\'s\'\nmaxclients 7')
    assert (config.hz, config.timeout, config.maxclients) == (20, 5, 7)
    assert config.requirepass == b'aA\n"\xff'
    assert config.logfile == "it's"


@pytest.mark.parametrize(("line", "reason"), [
    ("hz", "wrong number of arguments"),
    ("hz 10 # ten", "wrong number of arguments"),
    ("hz 1x", "argument couldn't be parsed into an integer"),
    ("maxclients 0", "argument must be between 1 and 4294967295 inclusive"),
    ("loglevel loud", "argument(s) must be one of the following: debug, verbose, notice, warning"),
    ("protected-mode maybe", "argument must be 'yes' or 'no'"),
    ("proto-max-bulk-len 1zb", "argument must be a memory value"),
    ("client-output-buffer-limit normal 0 0", "Wrong number of arguments in buffer limit configuration."),
    ("save 60", "Invalid save parameters"),
    ("appendfilename a/b", "appendfilename can't be a path, just a filename"),
    ("appenddirname .", "appenddirname can't be a path, just a dirname"),
    ("appendfilename ..", "appendfilename can't be a path, just a filename"),
    ("frobnicate 1", "no such directive in Redis 7.0, or the wrong number of arguments"),
    ('requirepass "secret', "unbalanced quotes; close the quotes, with a blank behind them"),
    ('requirepass "secret"x', "unbalanced quotes; close the quotes, with a blank behind them"),
])
def test_a_wrong_line_is_named_with_its_place_and_what_is_wrong(line: str, reason: str) -> None:
    said = refusal(text=f"port 7\n{line}", filename="my.conf")
    assert said.startswith(f"my.conf line 2: {line.split()[0]}: {reason}")
    assert "secret" not in said


def test_memory_has_redis_units() -> None:
    for text, size in {"1048576": 1 << 20, "2000k": 2_000_000, "2000kb": 2000 << 10, "3m": 3_000_000, "3MB": 3 << 20,
                       "1g": 10**9, "1Gb": 1 << 30, "1048577b": 1048577}.items():
        assert Config.load(f"proto-max-bulk-len {text}").proto_max_bulk_len == size


def test_later_lines_win_and_classes_of_buffer_limits_add_up() -> None:
    config = Config.load("bind 127.0.0.1 ::1\nbind 10.0.0.1\nclient-output-buffer-limit normal 1mb 512kb 10\n"
                         "client-output-buffer-limit slave 3 2 1 pubsub 6 5 4\n")
    assert config.bind == ["10.0.0.1"]
    assert config.client_output_buffer_limit == {
        "normal": (1 << 20, 512 << 10, 10), "replica": (3, 2, 1), "pubsub": (6, 5, 4)}


def test_hz_out_of_range_is_moved_into_it() -> None:
    assert [Config.load(f"hz {hz}").hz for hz in (0, 1, 500, 9999)] == [1, 1, 500, 500]


def test_a_value_of_several_words_may_stand_in_quotes() -> None:
    assert Config.load('bind "127.0.0.1  ::1"').bind == Config.load("bind 127.0.0.1 ::1").bind == ["127.0.0.1", "::1"]
    assert Config.load('bind ""').bind == []


def test_what_redis_adds_when_it_rewrites_its_file_is_understood() -> None:
    Config.load("user default on nopass ~* &* +@all\nuser default on nopass sanitize-payload ~* &* +@all\n"
                "list-max-ziplist-entries 512\nlua-replicate-commands yes\n")


# ---- include -------------------------------------------------------------------------------------

def disk_with(**files: str) -> World:
    world = World(seed=1)
    for path in ("/conf", "/conf/a", "/conf/b"):
        world.disk.mkdir(path)
    for name, text in files.items():
        file = world.disk.open("/conf/" + name.replace("__", "/").replace("_", "."), "w")
        world.disk.write(file, text.encode())
        world.disk.close(file)
    return world


def test_include_takes_a_file_where_it_stands() -> None:
    disk = disk_with(one_conf="hz 20\ntimeout 20\n").disk
    config = Config.load("hz 10\ntimeout 10\ninclude /conf/one.conf\nhz 30\n", disk=disk)
    assert (config.hz, config.timeout) == (30, 20)


def test_include_with_wildcards_takes_what_is_there_in_order() -> None:
    disk = disk_with(a__x_conf="hz 20\ntimeout 20", b__y_conf="timeout 30", a___hidden_conf="hz 99").disk
    config = Config.load("include /conf/[ab]/*.conf\ninclude /conf/no/*\ninclude /conf/*.none\n", disk=disk)
    assert (config.hz, config.timeout) == (20, 30)


def test_include_of_a_file_that_is_missing_or_wrong_names_the_file() -> None:
    disk = disk_with(one_conf="\nhz x\n", two_conf="include /conf/two.conf").disk
    missing = refusal(text="include /conf/no.conf", filename="x.conf", disk=disk)
    assert missing.startswith("x.conf line 1: include /conf/no.conf: No such file or directory; ")
    assert refusal(text="include /conf/one.conf", disk=disk).startswith("/conf/one.conf line 2: hz: ")
    assert "includes itself" in refusal(text="include /conf/two.conf", disk=disk)


# ---- the command line ----------------------------------------------------------------------------

@pytest.mark.parametrize(("words", "lines"), [
    (["--port", "7777", "--save", ""], [b'port "7777"', b'save ""']),
    (["--save"], [b'save ""']),
    (["--save", "--port", "7"], [b'save ""', b'port "7"']),
    (["--requirepass", "--port"], [b'requirepass "--port"']),
    (["--bind", "127.0.0.1", "::1", "--hz", "5"], [b'bind "127.0.0.1" "::1"', b'hz "5"']),
    (["--port 7", "--hz", "5"], [b"port 7", b'hz "5"']),
    (["--requirepass", 'a"b\\'], [b'requirepass "a\\"b\\\\"']),
    (["-p", "7"], [b' "-p" "7"']),
])
def test_words_become_lines_as_redis_makes_them(words: list[str], lines: list[bytes]) -> None:
    assert command_line(words) == lines


def test_the_command_line_has_the_last_word() -> None:
    config = Config.load("port 1\nhz 20", ["--port", "2", "--PORT", "3"], stdin=b"hz 30\n")
    assert (config.port, config.hz) == (3, 30)


def test_pairs_may_be_python_values() -> None:
    config = Config.load(None, [("protected_mode", False), ("hz", 20), ("bind", ["::1", "10.0.0.1"]), ("save", ""),
                                ("requirepass", b"\xff"), ("server_cpulist", "0-7")])
    assert (config.protected_mode, config.hz, config.bind) == (False, 20, ["::1", "10.0.0.1"])
    assert config.requirepass == b"\xff"


@pytest.mark.parametrize("words", [["--port"], ["--port", "7", "8"], ["--frob", "1"], ["-p", "7"], ["--hz", "x"]])
def test_a_wrong_word_of_the_command_line_is_named(words: list[str]) -> None:
    assert refusal(*words).startswith(f"command line: {words[0].removeprefix('--')}: ")


# ---- CONFIG GET and SET --------------------------------------------------------------------------

@pytest.fixture
def alice() -> Iterator[Any]:
    """A client of a simulated server that guards nothing."""
    world = World(seed=1)
    world.start(enable_protected_configs="yes")
    yield world.connect("alice")


def said(client: Any, *words: str) -> str:
    """The reply to CONFIG SET, or its error."""
    try:
        return str(client("CONFIG", "SET", *words))
    except ReplyError as error:
        return str(error)


def value(client: Any, name: str) -> str:
    found = client("CONFIG", "GET", name)
    assert len(found) == 2
    return str(found[1].decode())


def test_get_takes_several_patterns_and_answers_each_name_once(alice: Any) -> None:
    found = alice("CONFIG", "GET", "h[yz]", "TIMEOUT", "timeout", "maxmemory-*s", "nothing", "key-load-delay", "key-*")
    assert found[::2] == [b"hz", b"TIMEOUT", b"maxmemory-clients", b"maxmemory-samples", b"key-load-delay"]


def test_an_old_name_is_another_name_of_the_same(alice: Any) -> None:
    assert said(alice, "slave-priority", "7") == "OK"
    assert alice("CONFIG", "GET", "*-priority") == [b"replica-priority", b"7", b"slave-priority", b"7"]


def test_set_is_all_or_nothing(alice: Any) -> None:
    assert said(alice, "hz", "50", "timeout", "9", "loglevel", "DEBUG") == "OK"
    assert (value(alice, "hz"), value(alice, "timeout"), value(alice, "loglevel")) == ("50", "9", "debug")
    assert "'timeout'" in said(alice, "hz", "60", "timeout", "x")
    assert "'nope'" in said(alice, "hz", "60", "nope", "x")
    assert (value(alice, "hz"), value(alice, "timeout")) == ("50", "9")


def test_a_part_of_the_server_may_refuse_and_everything_is_undone() -> None:
    config, seen = Config(), []

    def no() -> None:
        seen.append((config.hz, config.timeout))
        if config.timeout == 9:
            raise ValueError("not today")

    config.on_change("hz", lambda: seen.append(config.hz))
    config.on_change("timeout", no)
    with pytest.raises(ConfigError, match=re.escape("(possibly related to argument 'timeout') - not today")):
        config.set([(b"hz", b"50"), (b"timeout", b"9")])
    assert (config.hz, config.timeout) == (10, 0)
    assert seen == [50, (50, 9), 10, (10, 0)]


def test_watchers_hear_of_changes_only() -> None:
    config, seen = Config(), []
    config.on_change("slave-priority", lambda: seen.append(config.replica_priority))
    config.set([(b"replica-priority", b"100")])
    config.set([(b"replica-priority", b"5"), (b"hz", b"20")])
    assert seen == [5]


def test_protected_directives_need_leave() -> None:
    world = World(seed=1)
    world.start()
    client = world.connect("alice")
    assert said(client, "dbfilename", "x.rdb").endswith("'dbfilename') - can't set protected config")


def test_passwords_are_kept_out_of_slowlog_and_repr() -> None:
    world = World(seed=1)
    server = world.start(slowlog_log_slower_than="0")
    client = world.connect("alice")
    assert client("CONFIG", "SET", "requirepass", "geheim", "hz", "20") == "OK"
    assert client("SLOWLOG", "GET")[0][3] == [b"CONFIG", b"SET", b"requirepass", b"(redacted)", b"hz", b"20"]
    assert "geheim" not in repr(server.config) and "hz 20" in repr(server.config)


WRONG = [
    ["foo", "1"], ["foo", "1", "bar", "2"], ["maxclients", "0", "foo", "2"], ["hz", "1", "timeout"], ["a", "b", "c"],
    ["hz", "1", "hz", "2"], ["HZ", "1", "hz", "2"], ["databases", "3"], ["enable-debug-command", "yes"],
    ["logfile", "x"], ["appendfilename", "x"], ["slaveof", "x"], ["io-threads", "3"], ["Databases", "3"],
    ["maxclients", "0"], ["maxclients", "-1"], ["maxclients", "4294967296"], ["maxclients", "99999999999999999999"],
    ["hz", ""], ["hz", "+5"], ["hz", "05"], ["hz", " 5"], ["hz", "5 "], ["hz", "-1"], ["HZ", "x"], ["timeout", "-1"],
    ["tcp-keepalive", "99999999999"], ["slowlog-log-slower-than", "-2"], ["active-expire-effort", "11"],
    ["list-max-ziplist-size", "-99999999999"], ["hash-max-ziplist-entries", "x"], ["repl-ping-slave-period", "0"],
    ["proto-max-bulk-len", "1"], ["proto-max-bulk-len", "100b"], ["proto-max-bulk-len", "9223372036854775808"],
    ["client-query-buffer-limit", "1"], ["client-query-buffer-limit", "1 kb"], ["client-query-buffer-limit", "10%"],
    ["zset-max-listpack-value", "-1"], ["repl-backlog-size", "0"], ["maxmemory", "1zb"], ["maxmemory", "-1"],
    ["appendonly", "maybe"], ["protected-mode", "1"], ["activedefrag", ""], ["use-exit-on-panic", "x"],
    ["loglevel", "loud"], ["appendfsync", ""], ["maxmemory-policy", "no"], ["sanitize-dump-payload", "x"],
    ["shutdown-on-sigterm", "foo"], ["shutdown-on-sigterm", "save  now"], ["propagation-error-behavior", "x"],
    ["save", "a"], ["save", "1 1 1"], ["save", "-1 1"], ["save", "1 -1"], ["save", "1 1  2 2"], ["save", " "],
    ["save", "0 1"], ["notify-keyspace-events", "Q"], ["dbfilename", "a/b"],
    ["client-output-buffer-limit", "foo"], ["client-output-buffer-limit", "normal 0 0"],
    ["client-output-buffer-limit", "master 0 0 0"], ["client-output-buffer-limit", "normal 0 0 x"],
    ["client-output-buffer-limit", "normal 0 0 -1"], ["client-output-buffer-limit", "normal 1x 0 1"],
    ["client-output-buffer-limit", "normal 0 0 0 foo 0 0 0"],
]


def test_config_set_fails_with_redis_words(real: redis.Redis, alice: Any) -> None:
    for words in WRONG:
        with pytest.raises(redis.ResponseError) as theirs:
            real.execute_command("CONFIG", "SET", *words)
        assert said(alice, *words).removeprefix("ERR ") == str(theirs.value), words


RIGHT = [
    ["hz", "0"], ["hz", "9999"], ["loglevel", "NOTICE"], ["maxmemory-policy", "Volatile-LFU"], ["save", ""],
    ["client-output-buffer-limit", "normal 1mb 512k 10 pubsub 1 2 3"], ["client-output-buffer-limit", "SLAVE 1 2 3"],
    ["client-output-buffer-limit", "replica 5 6 7"], ["client-output-buffer-limit", ""], ["hll-sparse-max-bytes", "5k"],
    ["proto-max-bulk-len", "1Gb"], ["requirepass", ""], ["dbfilename", ""], ["appendonly", "NO"],
    ["appendfsync", "ALWAYS"],
    ["notify-keyspace-events", ""], ["maxmemory", "b"], ["maxmemory", ""], ["shutdown-on-sigterm", "default"],
    ["hash-max-ziplist-entries", "3"], ["list-max-listpack-size", "-5"], ["latency-tracking-info-percentiles", "50 99"],
    ["oom-score-adj-values", "1 2 3"], ["slowlog-log-slower-than", "-1"], ["auto-aof-rewrite-min-size", "0"],
]


def test_values_look_afterwards_as_in_redis(real: redis.Redis, alice: Any) -> None:
    for name, text in RIGHT:
        assert real.config_set(name, text) and said(alice, name, text) == "OK", (name, text)
        assert value(alice, name) == real.config_get(name)[name], (name, text)


def test_keyspace_events_are_read_and_shown_as_by_redis(real: redis.Redis) -> None:
    kind = DIRECTIVES["notify-keyspace-events"].kind
    for text in ("AKEnm", "g$lshzxetd", "g$lshzxetdn", "mA", "K", "xE$g", ""):
        real.config_set("notify-keyspace-events", text)
        flags = real.config_get("notify-keyspace-events")["notify-keyspace-events"]
        assert kind.show(kind.read([text.encode()], "", False)) == flags.encode()
    real.config_set("notify-keyspace-events", "")


def test_parts_that_are_not_built_yet_say_so(alice: Any) -> None:
    assert said(alice, "maxmemory-clients", "1mb").endswith("'maxmemory-clients') - kvref does not evict clients")
    assert value(alice, "maxmemory-clients") == "0" and value(alice, "save") == ""


# ---- CONFIG REWRITE ------------------------------------------------------------------------------

BEFORE = """\
hz 12
# my comment


slave-priority 7
  timeout   3
timeout 4
MAXCLIENTS 100
logfile ""
requirepass old
include other.conf
proto-max-bulk-len 1048576
frobnicate 1
requirepass "open
client-output-buffer-limit normal 0 0 0
"""

AFTER = """\
hz 50
# my comment

replica-priority 7
timeout 9

maxclients 100
logfile ""

include other.conf
proto-max-bulk-len 1mb
# ??? frobnicate 1
# ??? requirepass "open
client-output-buffer-limit normal 0 0 0

# Generated by CONFIG REWRITE
client-output-buffer-limit replica 256mb 64mb 5
dbfilename "my \\"dump\\""
dir "."
latency-tracking-info-percentiles 50 99 99.9
save 3600 1
save 300 100
save 60 10000
"""


def changed() -> Config:
    config = Config.load("slave-priority 7\nmaxclients 100\nproto-max-bulk-len 1048576\nrequirepass old")
    config.set([(b"hz", b"50"), (b"timeout", b"9"), (b"requirepass", b""), (b"dbfilename", b'my "dump"'),
                (b"client-output-buffer-limit", b"slave 256mb 64mb 5")], protected=True)
    return config


def test_rewrite_keeps_comments_and_order_and_appends_what_is_new() -> None:
    assert changed().rewritten(BEFORE.encode()).decode() == AFTER


def test_rewrite_of_what_was_rewritten_changes_nothing() -> None:
    config = changed()
    once = config.rewritten(AFTER.replace("requirepass", "#").encode())
    assert config.rewritten(once) == once


def test_a_rewritten_file_gives_the_same_configuration() -> None:
    config = changed()
    again = Config.load(config.rewritten(b""))
    assert {name: again.get(name) for name in DIRECTIVES} == {name: config.get(name) for name in DIRECTIVES}


def test_every_value_survives_rewriting() -> None:
    """Each directive in turn, with a value that is not its default."""
    other = {"dir": "/x", "bind": "10.0.0.1 ::1", "client-output-buffer-limit": "pubsub 1mb 1000 5", "hz": "77",
             "logfile": "a b", "requirepass": "\\x \"q\"", "latency-tracking-info-percentiles": ""}
    for name, row in DIRECTIVES.items():
        if row.status == "refused":
            continue
        choices = getattr(row.kind, "choices", ["yes", "no", "7", "2mb", "1024", "name"])
        for text in [other.get(row.name, ""), *choices]:
            try:
                config = Config.load(None, [(name, text)])
            except ConfigError:
                continue
            assert Config.load(config.rewritten(b"")).get(name) == config.get(name), (name, text)


def test_a_real_server_starts_from_what_kvref_writes(tmp_path: Path, redis_server: record.RedisServer) -> None:
    """Redis reads all of it, up to a last line that keeps it from starting."""
    config = changed()
    config.dir = str(tmp_path)
    (tmp_path / "redis.conf").write_bytes(config.rewritten(b"") + b"frobnicate 1\n")
    words = subprocess.run(["redis-server", str(tmp_path / "redis.conf")], capture_output=True, text=True, cwd=tmp_path)
    assert ">>> 'frobnicate 1'" in words.stderr


def test_rewrite_is_durable_and_leaves_no_other_file() -> None:
    world = World(seed=1)
    server = world.start()
    client = world.connect("alice")
    with pytest.raises(ReplyError, match="ERR The server is running without a config file"):
        client("CONFIG", "REWRITE")
    world.disk.mkdir("/etc")
    world.disk.fsync_dir("/")
    server.config.filename = "/etc/redis.conf"
    client("CONFIG", "SET", "hz", "33")
    assert client("CONFIG", "REWRITE") == "OK"
    assert world.disk.list("/etc") == ["redis.conf"]
    world.power_loss("synced")
    file = world.disk.open("/etc/redis.conf", "r")
    assert b"\nhz 33\n" in world.disk.read(file, 10_000)


def test_a_rewrite_that_fails_leaves_the_old_file() -> None:
    world = World(seed=1)
    server = world.start()
    client = world.connect("alice")
    server.config.filename = "/no/such/directory/redis.conf"
    with pytest.raises(ReplyError, match="ERR Rewriting config file: No such file or directory"):
        client("CONFIG", "REWRITE")


# ---- CONFIG RESETSTAT and the rest ---------------------------------------------------------------

def test_resetstat_sets_the_counters_back() -> None:
    world = World(seed=1)
    server = world.start()
    client = world.connect("alice")
    client("GET", "missing")
    assert server.stats.keyspace_misses == 1
    assert client("CONFIG", "RESETSTAT") == "OK"
    assert server.stats.keyspace_misses == 0


def test_commands_have_the_shape_that_redis_gives_them(redis_server: record.RedisServer, alice: Any) -> None:
    client = redis.Redis(port=redis_server.port)
    for name in ("get", "set", "rewrite", "resetstat", "help"):
        theirs = client.execute_command("COMMAND", "INFO", f"config|{name}")
        theirs = next(iter(theirs.values())) if isinstance(theirs, dict) else theirs[0]
        ours = alice("COMMAND", "INFO", f"config|{name}")[0]
        assert ours[1] == theirs["arity"], name
        assert sorted(str(flag) for flag in ours[2]) == sorted(flag.decode() if isinstance(flag, bytes) else flag
                                                               for flag in theirs["flags"]), name


@pytest.mark.parametrize(("directive", "nothing"), [("bind", ""), ("port", "0")])
def test_without_an_address_or_a_port_nobody_comes_in_and_who_is_there_stays(directive: str, nothing: str) -> None:
    world = World(seed=1)
    server = world.start()
    alice = world.connect("alice")
    _, before = alice("CONFIG", "GET", directive)
    assert alice("CONFIG", "SET", directive, nothing) == "OK" and not server.doors.listeners
    assert alice("CONFIG", "SET", directive, before) == "OK" and world.connect("bob")("PING") == "PONG"
