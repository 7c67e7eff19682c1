"""Every directive of redis.conf that Redis 7.0 knows: one table, and the kinds of values that stand in it.

Interface:
  - DIRECTIVES     name -> Directive; an old name (slave-priority) leads to the same directive
  - Directive      one row: its kind, its default, its class
  - Kind           reads the words of a value, shows it to a client, writes it for redis.conf
  - FILE_ONLY      what may stand in a file without being a parameter, and why kvref refuses it

Three classes. *Followed*: kvref does what it says. *Ignored*: without effect, and harmless here, so that an
existing redis.conf starts kvref. *Refused*: kvref would do otherwise than asked, so only the default is
taken, which asks for what kvref does anyway.

Redis: static_configs and the createXConfig macros in config.c. Simpler here: the type of C that keeps a
number shows only in its limits, and some values without effect are not checked as strictly.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kvref.numbers import parse_int
from kvref.quoting import repr_arg, split_args
from kvref.quoting import text as as_text

# kind : directive (new=old name) default flags, ... -- why another value is refused. Flags: fixed (CONFIG SET refuses
# it), protected (see enable-protected-configs), hidden (CONFIG GET shows it only by its full name).
# Limits of numbers: I, L and U are the greatest int, long and unsigned long of C.
TABLE = r"""
followed
  1..10 : active-expire-effort 1
  appenddirname : appenddirname appendonlydir fixed
  appendfilename : appendfilename appendonly.aof fixed
  everysec|always|no : appendfsync everysec
  0..L:bytes : auto-aof-rewrite-min-size 64mb
  0..I : auto-aof-rewrite-percentage 100
  bool : appendonly no, aof-load-truncated yes, aof-rewrite-incremental-fsync yes, aof-use-rdb-preamble yes, \
    aof-timestamp-enabled no, no-appendfsync-on-rewrite no
  bind : bind "127.0.0.1 -::1"
  limits : client-output-buffer-limit ""
  1mb..L:bytes : client-query-buffer-limit 1gb, proto-max-bulk-len 512mb
  1..I : databases 16 fixed
  dir : dir . protected
  dbfilename : dbfilename dump.rdb protected
  events : notify-keyspace-events ""
  no|yes|local : enable-debug-command no fixed, enable-protected-configs no fixed
  0..L : hash-max-listpack-entries=hash-max-ziplist-entries 512, set-max-intset-entries 512, slowlog-max-len 128, \
    zset-max-listpack-entries=zset-max-ziplist-entries 128
  0..L:bytes : hash-max-listpack-value=hash-max-ziplist-value 64, zset-max-listpack-value=zset-max-ziplist-value 64
  hz : hz 10
  0..I : lfu-log-factor 10, lfu-decay-time 1
  -2147483648..I : list-max-listpack-size=list-max-ziplist-size -2
  string : logfile "" fixed
  debug|verbose|notice|warning : loglevel notice
  1..4294967295 : maxclients 10000
  0..U:bytes : maxmemory 0
  0..100 : maxmemory-eviction-tenacity 10
  policy : maxmemory-policy noeviction
  1..I : maxmemory-samples 5
  text : pidfile "" fixed
  0..65535 : port 6379
  bool : protected-mode yes, rdb-save-incremental-fsync yes, rdbchecksum yes fixed, rdbcompression yes, \
    stop-writes-on-bgsave-error yes
  save : save "3600 1 300 100 60 10000"
  shutdown : shutdown-on-sigint default, shutdown-on-sigterm default
  secret : requirepass ""
  -1..L : slowlog-log-slower-than 10000
  0..I : tcp-backlog 511 fixed, timeout 0

ignored
  bool : activerehashing yes, \
    cluster-allow-pubsubshard-when-down yes, cluster-allow-replica-migration yes, \
    cluster-require-full-coverage yes, crash-log-enabled yes, crash-memcheck-enabled yes, dynamic-hz yes, \
    jemalloc-bg-thread yes, latency-tracking yes, \
    repl-diskless-sync yes, replica-announced yes, replica-ignore-maxmemory=slave-ignore-maxmemory yes, \
    replica-read-only=slave-read-only yes, replica-serve-stale-data=slave-serve-stale-data yes, \
    tls-session-caching yes, aof-disable-auto-gc no, \
    cluster-allow-reads-when-down no, cluster-replica-no-failover=cluster-slave-no-failover no, \
    lazyfree-lazy-eviction no, lazyfree-lazy-expire no, lazyfree-lazy-server-del no, lazyfree-lazy-user-del no, \
    lazyfree-lazy-user-flush no, rdb-del-sync-files no, repl-disable-tcp-nodelay no, \
    replica-ignore-disk-write-errors no, replica-lazy-flush=slave-lazy-flush no, tls-prefer-server-ciphers no, \
    disable-thp yes fixed, set-proc-title yes fixed, always-show-logo no fixed, \
    io-threads-do-reads no fixed, use-exit-on-panic no hidden
  text : bind-source-addr "", cluster-announce-hostname "", cluster-announce-ip "", \
    replica-announce-ip=slave-announce-ip "", tls-ca-cert-dir "", tls-ca-cert-file "", tls-cert-file "", \
    tls-ciphers "", tls-ciphersuites "", tls-client-cert-file "", tls-client-key-file "", \
    tls-client-key-file-pass "", tls-dh-params-file "", tls-key-file "", tls-key-file-pass "", tls-protocols "", \
    aof_rewrite_cpulist "" fixed, bgsave_cpulist "" fixed, bio_cpulist "" fixed, server_cpulist "" fixed
  0..65535 : cluster-announce-bus-port 0, cluster-announce-port 0, cluster-announce-tls-port 0, \
    replica-announce-port=slave-announce-port 0, cluster-port 0 fixed
  0..I : cluster-replica-validity-factor=cluster-slave-validity-factor 10, \
    min-replicas-max-lag=min-slaves-max-lag 10, shutdown-timeout 10, \
    replica-priority=slave-priority 100, cluster-migration-barrier 1, list-compress-depth 0, \
    repl-diskless-sync-max-replicas 0, repl-diskless-sync-delay 5, tcp-keepalive 300, tls-session-cache-size 20480, \
    tls-session-cache-timeout 300, watchdog-period 0 hidden
  -2147483648..I : key-load-delay 0 hidden, rdb-key-save-delay 0 hidden
  secret : masterauth "", masteruser ""
  allchannels|resetchannels : acl-pubsub-default resetchannels
  0..L : acllog-max-len 128, busy-reply-threshold=lua-time-limit 5000, cluster-node-timeout 15000, \
    latency-monitor-threshold 0, repl-backlog-ttl 3600, stream-node-max-entries 100, \
    tracking-table-max-keys 1000000
  1..99 : active-defrag-cycle-max 25, active-defrag-cycle-min 1
  1..L:bytes : active-defrag-ignore-bytes 100mb, repl-backlog-size 1mb
  1..L : active-defrag-max-scan-fields 1000
  0..1000 : active-defrag-threshold-lower 10, active-defrag-threshold-upper 100
  0..L:bytes : hll-sparse-max-bytes 3000, stream-node-max-bytes 4096
  string : cluster-config-file nodes.conf fixed, ignore-warnings "", \
    proc-title-template "{title} {listen-addr} {server-mode}", syslog-ident redis fixed, \
    unixsocketperm 0 fixed
  0..U:bytes : cluster-link-sendbuf-limit 0
  ip|hostname|unknown-endpoint : cluster-preferred-endpoint-type ip
  no|yes|local : enable-module-command no fixed
  1..128 : io-threads 1 fixed
  words : latency-tracking-info-percentiles "50 99 99.9", oom-score-adj-values "0 200 800"
  1024..I : loading-process-events-interval-bytes 2097152 hidden
  1..I : repl-ping-replica-period=repl-ping-slave-period 10, repl-timeout 60
  no|yes|relative|absolute : oom-score-adj no
  ignore|panic|panic-on-replicas : propagation-error-behavior ignore
  disabled|on-empty-db|swapdb : repl-diskless-load disabled
  no|yes|clients : sanitize-dump-payload no
  facility : syslog-facility local0 fixed
  no|yes|optional : tls-auth-clients yes

refused
  string : aclfile "" fixed -- kvref has no ACL files
  bool : activedefrag no -- kvref does not defragment memory
  bool : cluster-enabled no fixed -- kvref is no cluster node
  bool : daemonize no fixed -- kvref stays in the foreground
  0..L:bytes : maxmemory-clients 0 -- kvref does not evict clients
  0..I : min-replicas-to-write=min-slaves-to-write 0 -- kvref does not replicate
  replicaof : replicaof=slaveof "" fixed -- kvref does not replicate
  0..4294967295 : socket-mark-id 0 fixed -- kvref does not mark sockets
  upstart|systemd|auto|no : supervised no fixed -- kvref tells no supervisor
  bool : syslog-enabled no fixed -- kvref does not log to syslog
  bool : tls-cluster no, tls-replication no -- kvref does not speak TLS
  0..65535 : tls-port 0 -- kvref does not speak TLS
  text : unixsocket "" fixed -- kvref listens on TCP only
"""

FILE_ONLY = {
    "rename-command": "kvref does not rename commands",
    "user": "kvref has no users but the default one",
    "loadmodule": "kvref loads no modules",
    "sentinel": "kvref is no sentinel",
}
EVERYONE = re.compile(rb"user default on nopass( sanitize-payload)? ~\* &\* \+@all")    # Redis writes it
OBSOLETE = ("list-max-ziplist-entries", "list-max-ziplist-value", "lua-replicate-commands")     # Redis skips them

LIMITS = {"I": 2**31 - 1, "L": 2**63 - 1, "U": 2**64 - 1}
UNITS = {b"": 1, b"b": 1, b"k": 1000, b"kb": 1 << 10, b"m": 1000**2, b"mb": 1 << 20, b"g": 1000**3, b"gb": 1 << 30}


# ---- kinds of values -----------------------------------------------------------------------------

class Kind:
    """How one kind of value is read and written. This one: text, where empty stands for "not set"."""

    several = False                     # the value is several words

    def read(self, words: list[bytes], old: Any, in_file: bool) -> Any:
        """The value for these words, where `old` is in force. ValueError with Redis's reason."""
        return as_text(words[0])

    def show(self, value: Any) -> bytes:
        """As CONFIG GET answers."""
        return str(value).encode(errors="surrogateescape")

    def lines(self, value: Any) -> list[bytes]:
        """The value as it stands in redis.conf: one element for each line that it needs."""
        return [repr_arg(self.show(value))] if value else []


class String(Kind):
    """Text that may be empty."""

    def lines(self, value: Any) -> list[bytes]:
        return [repr_arg(self.show(value))]


class FileName(String):
    """A name without a path."""

    def __init__(self, directive: str, noun: str = "filename", empty: bool = False,
                 refused: tuple[bytes, ...] = (b".", b"..")) -> None:
        self.directive, self.noun, self.empty, self.refused = directive, noun, empty, refused

    def read(self, words: list[bytes], old: Any, in_file: bool) -> str:
        if not words[0] and not self.empty:
            raise ValueError(f"{self.directive} can't be empty")
        if b"/" in words[0] or b"\\" in words[0] or words[0] in self.refused:
            raise ValueError(f"{self.directive} can't be a path, just a {self.noun}")
        return as_text(words[0])


class Secret(Kind):
    """A password: bytes, as AUTH compares them."""

    def read(self, words: list[bytes], old: Any, in_file: bool) -> bytes:
        return words[0]

    def show(self, value: bytes) -> bytes:
        return value


class Dir(Kind):
    """A directory; a relative one starts from where the server is."""

    def read(self, words: list[bytes], old: Any, in_file: bool) -> str:
        return posixpath.normpath(posixpath.join(old or ".", as_text(words[0])))


class Plain(Kind):
    """Values that need no quotes in a file."""

    def lines(self, value: Any) -> list[bytes]:
        return [self.show(value)]


class Bool(Plain):
    """yes or no."""

    def read(self, words: list[bytes], old: Any, in_file: bool) -> bool:
        if words[0].lower() not in (b"yes", b"no"):
            raise ValueError("argument must be 'yes' or 'no'")
        return words[0].lower() == b"yes"

    def show(self, value: bool) -> bytes:
        return b"yes" if value else b"no"


class Enum(Plain):
    """One of a few words."""

    def __init__(self, choices: str) -> None:
        self.choices = choices.split("|")

    def read(self, words: list[bytes], old: Any, in_file: bool) -> str:
        found = [as_text(word).lower() for word in words]
        if not found or any(word not in self.choices for word in found):
            raise ValueError(f"argument(s) must be one of the following: {', '.join(self.choices)}")
        return " ".join(choice for choice in self.choices if choice in found)


class Enums(Enum):
    """Some of a few words, in any order."""

    several = True


class Number(Plain):
    """An integer between limits."""

    def __init__(self, low: int, high: int) -> None:
        self.low, self.high = low, high

    def read(self, words: list[bytes], old: Any, in_file: bool) -> int:
        number = self.parse(words[0])
        if not self.low <= number <= self.high:
            raise ValueError(f"argument must be between {self.low} and {self.high} inclusive")
        return number

    def parse(self, word: bytes) -> int:
        number = parse_int(word)
        if number is None:
            raise ValueError("argument couldn't be parsed into an integer")
        return number


class Hz(Number):
    """Out of 1..500 it is moved there without complaint. Redis: updateHZ."""

    def read(self, words: list[bytes], old: Any, in_file: bool) -> int:
        return min(max(super().read(words, old, in_file), 1), 500)


class Bytes(Number):
    """An amount of memory: 1k is 1000, 1kb is 1024."""

    def parse(self, word: bytes) -> int:
        number = memory(word)
        if number is None:
            raise ValueError("argument must be a memory value")
        return number

    def lines(self, value: int) -> list[bytes]:
        for unit in (b"gb", b"mb", b"kb"):
            if value and value % UNITS[unit] == 0:
                return [b"%d%b" % (value // UNITS[unit], unit)]
        return [b"%d" % value]


def memory(word: bytes) -> int | None:
    """Bytes from digits and a unit; too much wraps around, as in Redis. Redis: memtoull in util.c."""
    found = re.fullmatch(rb"(\d{0,127})(\D.*)?", word, re.DOTALL)
    unit = UNITS.get((found[2] or b"").lower()) if found else None
    if found is None or unit is None:
        return None
    return min(int(found[1] or b"0"), LIMITS["U"]) * unit % 2**64


class Words(Plain):
    """Several words, none or some."""

    several = True

    def read(self, words: list[bytes], old: Any, in_file: bool) -> Any:
        return [as_text(word) for word in words if words != [b""]]

    def show(self, value: Any) -> bytes:
        return " ".join(value).encode(errors="surrogateescape")

    def lines(self, value: Any) -> list[bytes]:
        return [self.show(value) or b'""']


class Bind(Words):
    """Addresses to listen on. "-" before one: go without it where the computer does not have it."""

    def read(self, words: list[bytes], old: Any, in_file: bool) -> Any:
        if len(words) > 16:
            raise ValueError("Too many bind addresses specified.")
        return super().read(words, old, in_file)


class ReplicaOf(Words):
    """host and port; `no one` is the empty list."""

    def read(self, words: list[bytes], old: Any, in_file: bool) -> Any:
        return [] if b" ".join(words).lower() == b"no one" else super().read(words, old, in_file)

    def lines(self, value: Any) -> list[bytes]:
        return [self.show(value)] if value else []


class Save(Words):
    """Save points, as (seconds, changes). In a file a further line adds to those before."""

    def read(self, words: list[bytes], old: Any, in_file: bool) -> list[tuple[int, int]]:
        if words in ([], [b""]):
            return []
        numbers = [int(word) if re.fullmatch(rb"\+?\d{1,18}", word) else -1 for word in words]
        points = list(zip(numbers[::2], numbers[1::2]))
        if len(words) % 2 or any(seconds < 1 or changes < 0 for seconds, changes in points):
            raise ValueError("Invalid save parameters")
        if old is None:
            self.preset = points            # what the first line of a file takes the place of
        return [*old, *points] if in_file and old is not self.preset else points

    def show(self, value: list[tuple[int, int]]) -> bytes:
        return b" ".join(b"%d %d" % point for point in value)

    def lines(self, value: list[tuple[int, int]]) -> list[bytes]:
        return [b"%d %d" % point for point in value] or [b'""']


class BufferLimits(Words):
    """class -> (hard limit, soft limit, soft seconds). A class that is not named stays as it is."""

    DEFAULT = {"normal": (0, 0, 0), "replica": (256 << 20, 64 << 20, 60), "pubsub": (32 << 20, 8 << 20, 60)}

    def read(self, words: list[bytes], old: Any, in_file: bool) -> dict[str, tuple[int, int, int]]:
        limits = dict(old or self.DEFAULT)
        words = words if words != [b""] else []
        if len(words) % 4:
            raise ValueError("Wrong number of arguments in buffer limit configuration.")
        for name, hard, soft, seconds in zip(*[iter(words)] * 4):
            group = as_text(name).lower().replace("slave", "replica")
            if group not in limits:
                raise ValueError("Invalid client class specified in buffer limit configuration.")
            limits[group] = self.limit(hard, soft, seconds)
        return limits

    def limit(self, hard: bytes, soft: bytes, seconds: bytes) -> tuple[int, int, int]:
        high, low = memory(hard), memory(soft)
        if high is None or low is None or not re.fullmatch(rb"\+?\d{1,9}", seconds):
            raise ValueError("Error in hard, soft or soft_seconds setting in buffer limit configuration.")
        return high, low, int(seconds)

    def show(self, value: dict[str, tuple[int, int, int]]) -> bytes:
        text = " ".join(f"{name} {hard} {soft} {seconds}" for name, (hard, soft, seconds) in value.items())
        return text.replace("replica", "slave").encode()

    def lines(self, value: dict[str, tuple[int, int, int]]) -> list[bytes]:
        amount = Bytes(0, LIMITS["U"]).lines
        return [b"%b %b %b %d" % (name.encode(), amount(hard)[0], amount(soft)[0], seconds)
                for name, (hard, soft, seconds) in value.items()]


class Events(String):
    """Classes of keyspace events, in the order in which Redis shows them; A is spelt out."""

    ALL = "g$lshzxetd"                  # what "A" stands for

    def read(self, words: list[bytes], old: Any, in_file: bool) -> str:
        flags = as_text(words[0]).replace("A", self.ALL)
        if any(flag not in self.ALL + "nKEm" for flag in flags):
            raise ValueError("Invalid event class character. Use 'Ag$lshzxeKEtmdn'.")
        return "".join(flag for flag in self.ALL + "nKEm" if flag in flags)

    def show(self, value: str) -> bytes:
        """As Redis, which forgets to say `n` behind A."""
        return (value.replace(self.ALL + "n", "A").replace(self.ALL, "A")).encode()


KINDS: dict[str, Kind] = {
    "bool": Bool(), "text": Kind(), "string": String(), "secret": Secret(), "dir": Dir(), "bind": Bind(),
    "save": Save(), "limits": BufferLimits(), "words": Words(), "replicaof": ReplicaOf(), "events": Events(),
    "hz": Hz(0, LIMITS["I"]),
    "dbfilename": FileName("dbfilename", empty=True, refused=()),
    "appendfilename": FileName("appendfilename"),
    "appenddirname": FileName("appenddirname", "dirname"),
    "shutdown": Enums("default|save|nosave|now|force"),
    "policy": Enum("volatile-lru|volatile-lfu|volatile-random|volatile-ttl|"
                   "allkeys-lru|allkeys-lfu|allkeys-random|noeviction"),
    "facility": Enum("user|local0|local1|local2|local3|local4|local5|local6|local7"),
}


def _kind(name: str) -> Kind:
    """A kind by its name, by its choices ("yes|no") or by its limits ("0..10", "1mb..L:bytes")."""
    if name in KINDS:
        return KINDS[name]
    if "|" in name:
        return Enum(name)
    limits, _, unit = name.partition(":")
    low, high = limits.split("..")
    first = memory(low.encode()) if unit else int(low)
    return (Bytes if unit else Number)(first or 0, LIMITS[high] if high in LIMITS else int(high))


# ---- the table -----------------------------------------------------------------------------------

@dataclass(frozen=True)
class Directive:
    """One directive, and the single place that says whether kvref does as it asks."""

    name: str
    old_name: str                       # "" mostly
    kind: Kind
    default: Any
    status: str                         # followed, ignored, refused
    flags: frozenset[str]               # fixed, protected, hidden
    reason: str                         # of refused ones

    @property
    def attribute(self) -> str:
        """Its name on a Config."""
        return self.name.replace("-", "_")

    def read(self, words: list[bytes], old: Any, in_file: bool = False) -> Any:
        """The value, if kvref can do as it says; else ValueError with the reason."""
        value = self.kind.read(words, old, in_file)
        if self.status == "refused" and value != self.default:
            raise ValueError(self.reason)
        return value


def _directives(row: str, status: str) -> Iterator[Directive]:
    kind_name, _, entries = row.strip().partition(" : ")
    entries, _, reason = entries.partition(" -- ")
    kind = _kind(kind_name)
    for entry in entries.split(","):
        name, default, *flags = split_args(entry.encode()) or []
        new, _, old = as_text(name).partition("=")
        value = kind.read(default.split(b" ") if kind.several else [default], None, False)
        yield Directive(new, old, kind, value, status, frozenset(map(as_text, flags)), reason)


def _table() -> dict[str, Directive]:
    found: dict[str, Directive] = {}
    status = ""
    for row in TABLE.replace("\\\n", "").split("\n"):
        if not row.startswith(" "):
            status = row
            continue
        for directive in _directives(row, status):
            found[directive.name] = directive
            found.setdefault(directive.old_name or directive.name, directive)
    return found


DIRECTIVES = _table()
