"""The servers that are compared: started on a free port, watched through the kernel, ended by their own pid."""

from __future__ import annotations

import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 20
PING = b"*1\r\n$4\r\nPING\r\n"


class CannotRun(Exception):
    """One sentence for a person: what is missing, and what to do."""


@dataclass(frozen=True)
class Kind:
    name: str
    command: list[str]


def redis() -> Kind:
    return Kind("redis-server", ["redis-server", "--save", "", "--appendonly", "no", "--maxclients", "10100"])


def kvref(start: str | None) -> Kind:
    return Kind("kvref", [*(shlex.split(start) if start else [sys.executable, "-m", "kvref"]), *redis().command[1:]])


def floor() -> Kind:
    return Kind("floor", [sys.executable, "-m", "tests.benchmarks.floor"])


def redis_version() -> str:
    for program in ("redis-server", "redis-benchmark"):
        if not shutil.which(program):
            raise CannotRun(f"{program} is not installed, and every figure is a ratio to Redis's in the same run "
                            "(Debian: apt install redis-server redis-tools).")
    text = subprocess.run(["redis-server", "--version"], capture_output=True, text=True).stdout
    return "".join(re.findall(r"v=(\S+)", text))


@dataclass
class Server:
    name: str
    port: int
    process: subprocess.Popen[bytes]

    def connect(self) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def cpu_us(self) -> float:
        """User and system time of all its threads: the clock of another process (clock_getcpuclockid), in ns steps."""
        return time.clock_gettime_ns((~self.process.pid << 3) | 2) / 1000

    def resident_bytes(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0])


def ping(sock: socket.socket) -> None:
    sock.sendall(PING)
    if not sock.recv(64).startswith(b"+"):
        raise ConnectionError("PING was refused")


@contextmanager
def running(kind: Kind) -> Iterator[Server]:
    """A server that answers. Somebody may take the free port before it does; then another one is tried."""
    with tempfile.TemporaryFile() as log:
        for _ in range(3):
            with socket.create_server(("127.0.0.1", 0)) as probe:
                port = probe.getsockname()[1]
            process = subprocess.Popen([*kind.command, "--port", str(port)], cwd=ROOT, stdout=log, stderr=log)
            server = Server(kind.name, port, process)
            try:
                if answers(server):
                    yield server
                    return
            finally:
                end(process)
        log.seek(0)
        said = log.read().decode(errors="replace").strip().rpartition("\n")[2]
        raise CannotRun(f"`{shlex.join(kind.command)}` does not answer PING; it said last: {said or 'nothing'}")


def answers(server: Server) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while server.process.poll() is None and time.monotonic() < deadline:
        try:
            with server.connect() as sock:
                ping(sock)
            return server.process.poll() is None        # else it was the server that took the port
        except OSError:
            time.sleep(0.02)
    return False


def end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
