"""Record golden scripts from a real redis-server: what it answers is what the tests expect of kvref.

    python -m tests.record [FILE ...]      plays tests/scripts/*.txt and rewrites what stands below each `---`
    python -m tests.record --check         compares instead of writing; exit 1 where anything differs
    --any-version                          goes on with another redis-server than 7.0.15
    --server PATH                          which redis-server (default: the one on PATH)

The format is described in tests/golden.py. Each file gets a private server: a free port of 127.0.0.1, a temporary
directory, no persistence, ended by its process id.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import re
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests import golden

VERSION = "7.0.15"
GRACE_S = 0.03          # how long a client that has heard nothing is given before it counts as blocked


class RecordError(Exception):
    """One sentence for the person at the shell."""


@cache
def version(executable: str) -> str:
    """What `redis-server --version` or `redis-cli --version` says, such as "7.0.15"."""
    words = subprocess.run([executable, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"(?:v=|redis-cli )(\S+)", words)
    return found[1] if found else "unknown"


def installed(program: str) -> bool:
    """Whether this program of Redis is here, and of version 7.0: that alone says what kvref has to do."""
    return bool(shutil.which(program)) and all(version(each).startswith("7.0.")
                                               for each in ("redis-server", "redis-cli") if shutil.which(each))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RedisServer:
    """A private redis-server. `directives` are lines of redis.conf: name and the rest of the line."""

    def __init__(self, directives: dict[str, str], executable: str = "redis-server", command: list[str] | None = None):
        self.directory = tempfile.mkdtemp(prefix="kvref-redis-")
        self.command = command or [executable]
        self.directives = {"save": '""', "appendonly": "no", "bind": "127.0.0.1", "dir": self.directory,
                           "logfile": "log", **directives}
        for _ in range(20):
            self.port = free_port()
            if self._start():
                return
        log = Path(self.directory, "log")
        raise RecordError(f"redis-server did not start with {directives}: "
                          + (log.read_text()[-300:] if log.exists() else self.process.communicate()[0].decode()))

    def _start(self) -> bool:
        conf = Path(self.directory, "redis.conf")
        conf.write_text("".join(f"{name} {value or chr(34) * 2}\n"
                                for name, value in {**self.directives, "port": str(self.port)}.items()))
        self.process = subprocess.Popen([*self.command, str(conf)], cwd=self.directory,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        while self.process.poll() is None:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
                return True
            time.sleep(0.005)
        return False

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> RedisServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class SocketPeer:
    """A client's end of a real connection; `golden.Peer`."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.closed = False

    def send_bytes(self, data: bytes) -> None:
        with contextlib.suppress(ConnectionError):      # the server may have had enough before the end
            self.sock.sendall(data)

    def drain(self, wait: float = 0) -> bool:
        """Read what is there; whether there was anything."""
        if self.closed or not select.select([self.sock], [], [], wait)[0]:
            return False
        try:
            data = self.sock.recv(1 << 20)
        except ConnectionError:
            data = b""
        self.buffer += data
        if not data:
            self.closed = True
            self.sock.close()
        return True

    def take(self) -> bytes:
        data, self.buffer = self.buffer, b""
        return data


class RealRedis:
    """A redis-server in its process, watched until it sleeps; `golden.Player`."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self.peers: list[SocketPeer] = []
        self.speaker: SocketPeer | None = None

    def connect(self, name: str) -> SocketPeer:
        peer = SocketPeer(self.server.port)
        send = peer.send_bytes

        def speak(data: bytes) -> None:
            self.speaker = peer
            send(data)
        peer.send_bytes = speak                         # type: ignore[method-assign]
        self.peers.append(peer)
        return peer

    def settle(self, words: list[bytes]) -> None:
        if [word.upper() for word in words[:2]] == [b"DEBUG", b"SLEEP"]:
            time.sleep(float(words[2]))
        if self.speaker and not self.speaker.buffer:
            self._until_asleep()
            self.speaker.drain(GRACE_S)
        self.speaker = None
        self._until_asleep()
        while any([peer.drain(0.001) for peer in self.peers]):
            self._until_asleep()
        self.peers = [peer for peer in self.peers if not peer.closed]

    def _until_asleep(self) -> None:
        """Return when the server waits in poll: then it has sent all that it had to send."""
        stat = Path(f"/proc/{self.server.process.pid}/stat")
        try:
            while stat.read_text().rpartition(")")[2].split()[0] == "R":
                time.sleep(0)
        except (OSError, IndexError):                   # not Linux, or it has gone
            time.sleep(GRACE_S)

    def advance(self, ms: int) -> None:
        time.sleep(ms / 1000)

    def close(self) -> None:
        for peer in self.peers:
            peer.sock.close()


def record(script: golden.Script, executable: str = "redis-server") -> str:
    """The text of the script with what redis-server answers now; `script` itself is left as it is."""
    with RedisServer(script.directives, executable) as server:
        player = RealRedis(server)
        answers = {block.number: said for block, said in golden.play(script, player)}
        player.close()
    fresh = golden.parse(script.render(), script.name)
    for block, old in zip(fresh.blocks, script.blocks, strict=True):
        block.expected = answers.get(old.number)
    return fresh.render()


def difference(script: golden.Script, executable: str = "redis-server") -> str:
    """A unified diff between the recording and what redis-server answers now; empty when they agree."""
    return "\n".join(difflib.unified_diff(script.render().split("\n"), record(script, executable).split("\n"),
                                          f"{script.name} as recorded", f"{script.name} now", lineterm=""))


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.record", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="golden scripts (default: all)")
    parser.add_argument("--check", action="store_true", help="compare and write nothing; exit 1 on a difference")
    parser.add_argument("--any-version", action="store_true", help=f"accept another version than {VERSION}")
    parser.add_argument("--server", default="redis-server", help="the redis-server to ask")
    options = parser.parse_args(argv)
    try:
        return _main(options)
    except (RecordError, golden.ScriptError, OSError) as error:
        print(f"record: {error}", file=sys.stderr)
        return 1


def _main(options: argparse.Namespace) -> int:
    if not shutil.which(options.server):
        raise RecordError(f"{options.server} is not installed; recordings come from redis-server {VERSION}")
    found = version(options.server)
    print(f"redis-server {found}")
    if found != VERSION and not options.any_version:
        raise RecordError(f"recordings come from {VERSION}; --any-version goes on with {found}")
    differences = [said for path in options.files or golden.scripts() for said in _each(path, options)]
    print("\n".join(differences), end="\n" if differences else "")
    return 1 if differences and options.check else 0


def _each(path: Path, options: argparse.Namespace) -> Iterator[str]:
    script = golden.load(path)
    if options.check:
        if said := difference(script, options.server):
            yield said
        return
    text = record(script, options.server)
    changed = text != path.read_text()
    if changed:
        path.write_text(text)
    print(f"{path}: {'rewritten' if changed else 'as it was'}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
