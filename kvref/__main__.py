"""python -m kvref [redis.conf] [--directive value ...]: a server on this computer, started as redis-server is.

Interface:
  - main(words)     the exit status: 0 after SHUTDOWN, SIGTERM or SIGINT; 1 where it cannot start
                    or a bug has ended it
  - Log             lines as Redis writes them, to standard output or to `logfile`

    4242:M 22 Nov 2026 20:41:10.123 * Ready to accept connections
    pid  role      local time       level: . debug  - verbose  * notice  # warning

Whatever is wrong with what it was given is said in one sentence on standard error, never by a traceback.

Redis: main() and serverLog in server.c, adjustOpenFilesLimit. Simpler here: no daemon, no sentinel.
"""

from __future__ import annotations

import gc
import os
import random
import resource
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import TextIO

from kvref import __version__
from kvref.command_table import REDIS_VERSION
from kvref.config import Config, ConfigError, read_file
from kvref.machine import Computer
from kvref.persistence.cursor import Unreadable
from kvref.persistence.load import Loading
from kvref.ports import Clock, Disk
from kvref.process import LISTEN_FD, PARENT_FD
from kvref.server import Server

USAGE = """\
Usage: python -m kvref [redis.conf] [--directive value ...] [-]

A server that speaks to Redis clients and reads Redis's configuration, for reading and learning.

  python -m kvref                                 on port 6379 of this computer
  python -m kvref --port 7777 --loglevel verbose
  python -m kvref redis.conf --port 7777          the command line has the last word
  echo 'maxclients 50' | python -m kvref -        directives from standard input

  -h, --help       this text
  -v, --version    the version

Directives are those of redis.conf in Redis 7.0. One that kvref cannot follow is refused, with the reason."""

LEVELS = ".-*#"
LOGLEVELS = ("debug", "verbose", "notice", "warning")
MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
STDOUT = 1
PROGRESS_AFTER_US, BAR = 1_000_000, 40      # when a progress bar appears, and how many characters it has
OWN_FILES = 32              # descriptors beside those of clients: CONFIG_MIN_RESERVED_FDS


class Log:
    """Redis's log lines. The file is opened for each line, so that it may be moved away at any time."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def __call__(self, level: str, text: str) -> None:
        if LEVELS.index(level) < LOGLEVELS.index(self.config.loglevel):
            return
        line = f"{os.getpid()}:M {_timestamp(time.time())} {level} {text}\n"
        try:
            self.write(line.encode(errors="backslashreplace"))
        except OSError:
            pass                            # nobody listens, or the disk is full: serving goes on

    def write(self, line: bytes) -> None:
        """OSError where the log cannot be written."""
        if self.config.logfile:
            with open(self.config.logfile, "ab") as file:
                file.write(line)
        else:
            os.write(STDOUT, line)


def _timestamp(now: float) -> str:
    t = time.localtime(now)
    return (f"{t.tm_mday:02} {MONTHS[t.tm_mon - 1]} {t.tm_year} "
            f"{t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02}.{int(now * 1000) % 1000:03}")


# ---- what it was given ---------------------------------------------------------------------------

def configure(words: list[str], disk: Disk) -> Config:
    """The configuration that file, standard input and command line give together. ConfigError."""
    filename = os.path.abspath(words.pop(0)) if words and not words[0].startswith("-") else None
    asked = bool(words) and "-" in (words[0], words[-1])
    if asked:
        words.pop(0 if words[0] == "-" else -1)
    content = _content(disk, filename) if filename else b""
    config = Config.load(content, words, filename, disk, sys.stdin.buffer.read() if asked else b"")
    _enter(config)
    return config


def _content(disk: Disk, filename: str) -> bytes:
    try:
        return read_file(disk, filename)
    except OSError as error:
        raise ConfigError(f"{filename}: {error.strerror}; give the name of a redis.conf, or none.") from None


def _enter(config: Config) -> None:
    """Go to `dir`, from where all other names are seen, now and at CONFIG SET; try the log."""
    def enter() -> None:
        os.chdir(config.dir)
        config.dir = os.getcwd()
    try:
        enter()
    except OSError as error:
        raise ConfigError(f"dir {config.dir}: {error.strerror}; make this directory or choose another.") from None
    config.on_change("dir", enter)
    try:
        Log(config).write(b"")
    except OSError as error:
        raise ConfigError(f"logfile {config.logfile}: {error.strerror}; choose a file that can be written.") from None


# ---- the limit of open files ---------------------------------------------------------------------

def allow_clients(wanted: int) -> int:
    """Raise the limit of open files for so many clients; returns how many there can be."""
    needed = wanted + OWN_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    endless = resource.RLIM_INFINITY
    if soft != endless and soft < needed:
        for limits in ((needed, hard if hard == endless else max(hard, needed)), (hard, hard)):
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
                break
            except (ValueError, OSError):
                continue                    # only root may raise the hard limit
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return wanted if soft == endless else min(wanted, soft - OWN_FILES)


def follow_maxclients(config: Config, log: Log) -> None:
    """Keep the limit of open files above `maxclients`, now and at CONFIG SET. ConfigError."""
    possible = allow_clients(config.maxclients)
    if possible < 1:
        raise ConfigError(f"only {possible + OWN_FILES} files may be open, too few for one client; raise 'ulimit -n'.")
    if possible < config.maxclients:
        log("#", f"maxclients has been reduced from {config.maxclients} to {possible}, as many as the limit of open "
                 "files allows. If you need more, increase 'ulimit -n'.")
        config.maxclients = possible

    def changed() -> None:
        possible = allow_clients(config.maxclients)
        if possible < config.maxclients:
            raise ValueError("The operating system is not able to handle the specified number of clients, "
                             f"try with {possible}")
    config.on_change("maxclients", changed)


# ---- its life ------------------------------------------------------------------------------------

def serve(words: list[str], computer: Computer) -> None:
    """Run a server until it is told to end. ConfigError where it cannot start."""
    config = configure(words, computer.disk)
    log = Log(config)
    log("#", f"kvref {__version__} is starting, as Redis {REDIS_VERSION}, pid={os.getpid()}")
    if config.ignored:
        log("#", f"Known, and without effect here: {', '.join(config.ignored)}")
    follow_maxclients(config, log)
    listeners = _inherited(LISTEN_FD)
    if listeners:
        config.port = listeners[0].getsockname()[1]
    elif not (config.port and config.bind):
        raise ConfigError("port 0 or an empty bind: there is nothing to listen on; choose a port and an address.")
    computer.processes.catch_signals()
    server = Server(computer, config, random.Random(), log)
    progress = ProgressBar(sys.stderr, computer.clock)
    if sys.stderr.isatty():
        server.on_loading.append(progress)
    gc.disable()                            # a million values come to stay: there is no garbage to look for
    try:
        server.start([computer.network.adopt(listener) for listener in listeners])
    except Unreadable as error:
        log("#", f"{error.opening}: {error}")
        raise ConfigError(f"{error}. The file is as it was: restore a good copy, or move it away to start empty."
                          ) from None
    except OSError as error:
        log("#", f"Failed listening on port {config.port} (TCP), aborting.")
        raise ConfigError(f"{error.strerror}; choose another --port or --bind, or end what listens there.") from None
    finally:
        progress.end()
    gc.enable()
    gc.freeze()                             # nor is there later, among them
    for parent in _inherited(PARENT_FD):
        server.loop.watch(parent.detach(), Parent(server))
    _run(server, config, log)
    if server.failure:
        raise SystemExit(1)


class ProgressBar:
    """A bar on the terminal, when loading takes longer than a second."""

    def __init__(self, terminal: TextIO, clock: Clock) -> None:
        self.terminal, self.clock = terminal, clock
        self.shown = False                  # it stands on the line that the cursor is on

    def __call__(self, loading: Loading) -> None:
        now_us = self.clock.monotonic_us()
        if now_us - loading.start_us < PROGRESS_AFTER_US:
            return
        full = int(loading.percent * BAR // 100)
        self.terminal.write(f"\r{loading.path} [{'#' * full}{'.' * (BAR - full)}] {loading.percent:3.0f} %  "
                            f"{loading.eta_s(now_us)} s left ")
        self.terminal.flush()
        self.shown = True
        if loading.loaded == loading.total:
            self.end()

    def end(self) -> None:
        """What is written next, a refusal perhaps, has a line of its own."""
        if self.shown:
            self.terminal.write("\n")
            self.terminal.flush()
            self.shown = False


class Parent:
    """The process that started this one: when its end of the line closes, this one ends too."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def on_readable(self) -> None:
        self.server.shutdown(force=True)

    def on_writable(self) -> None:
        pass                                # nothing is said to it


def _run(server: Server, config: Config, log: Log) -> None:
    pidfile = Path(config.dir) / config.pidfile if config.pidfile else None
    try:
        if pidfile:
            pidfile.write_text(f"{os.getpid()}\n")
    except OSError as error:
        log("#", f"Can't write the pid file {pidfile}: {error.strerror}")
        pidfile = None
    try:
        server.run()
    except Exception:                       # a bug of ours: the log tells of it, wherever standard error leads
        log("#", f"=== KVREF BUG REPORT ===\n{traceback.format_exc().rstrip()}")
        raise SystemExit(1) from None
    finally:
        if pidfile:
            pidfile.unlink(missing_ok=True)


def _inherited(variable: str) -> list[socket.socket]:
    """The socket that the starting process has handed down, if any."""
    number = os.environ.pop(variable, None)
    if number is None:
        return []
    try:
        sock = socket.socket(fileno=int(number))
    except (ValueError, OSError):
        raise ConfigError(f"{variable}={number}: this is no open socket; hand one down or unset it.") from None
    sock.setblocking(False)
    sock.set_inheritable(False)
    return [sock]


VERSION_TEXT = f"kvref {__version__}, behaving as Redis server v={REDIS_VERSION} (Python {sys.version.split()[0]})"
ANSWERS = {"-h": USAGE, "--help": USAGE, "-v": VERSION_TEXT, "--version": VERSION_TEXT}


def main(words: list[str]) -> int:
    """Run the command; returns its exit status."""
    try:
        if words and words[0] in ANSWERS:
            os.write(STDOUT, f"{ANSWERS[words[0]]}\n".encode())
        else:
            serve(list(words), Computer())
    except ConfigError as error:
        print(f"kvref: {error}", file=sys.stderr)
        return 1
    except (BrokenPipeError, KeyboardInterrupt):
        return 1                            # nobody wants to read, or to wait
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
