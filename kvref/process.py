"""A kvref server as a process of its own, for scripts, notebooks and tests.

    with kvref.running(maxclients=50) as server:
        redis.Redis(port=server.port).set("course", "redis")

Interface:
  - running(**directives)   a context manager; the server lives as long as its block
  - RunningServer           port, pid, dir, log, kill()

The listening socket is made here and handed down, so that no other process can take the port in between,
and a connection that is made before the server is ready simply waits. A second socket ties the lives
together: when this process ends, in whatever way, the server sees that socket close, and ends too.

Redis: nothing; its tests start servers from Tcl (start_server in tests/support/server.tcl).
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from kvref.config import as_words

START_S = 20.0              # how long a server may take until it answers PING
END_S = 5.0                 # how long it may take to end by itself
LISTEN_FD = "KVREF_LISTEN_FD"       # environment: a listening socket to take over
PARENT_FD = "KVREF_PARENT_FD"       # environment: a socket whose end is the server's end


class RunningServer:
    """A server in a process of its own."""

    on_start: ClassVar[list[Callable[[RunningServer], None]]] = []      # told of every server that is ready: notebooks

    def __init__(self, directives: dict[str, Any], output: Path) -> None:
        self.dir = str(directives["dir"])
        self._output = output
        bind = directives.get("bind", "127.0.0.1")
        self.host = (bind if isinstance(bind, str) else " ".join(bind)).split()[0].removeprefix("-")
        with _listener(self.host, int(directives.pop("port", 0))) as listener:
            self.port: int = listener.getsockname()[1]
            self._life, inherited = socket.socketpair()
            words = [word for pair in directives.items() for word in as_words(pair)]
            with inherited, output.open("wb") as file:
                self._process = _spawn(["--port", str(self.port), *words], file, listener, inherited)
        self.pid = self._process.pid

    def __repr__(self) -> str:
        status = self._process.poll()
        state = "" if status is None else f", ended with status {status}"
        return f"<kvref running on port {self.port}, pid {self.pid}, dir {self.dir}{state}>"

    @property
    def log(self) -> str:
        """What the server has said so far."""
        return self._output.read_text(errors="replace") if self._output.exists() else ""

    def wait_ready(self) -> None:
        """Return when PING is answered. RuntimeError, with what the server said, when it is not."""
        try:
            with socket.create_connection((self.host, self.port), START_S) as sock:
                sock.settimeout(START_S)
                sock.sendall(b"PING\r\n")
                if sock.recv(1):                    # +PONG, or -NOAUTH where it wants a password
                    return
        except OSError:
            pass
        self.stop()
        raise RuntimeError(f"kvref did not start: {self.log.strip() or 'it said nothing'}")

    def kill(self) -> None:
        """SIGKILL, as `kill -9`: the process has no time to do anything. Returns when it is gone."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """SIGTERM, and SIGKILL for a server that does not end by itself. Returns when it is gone."""
        try:
            self._process.terminate()
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self.kill()
            self._life.close()


@contextmanager
def running(**directives: Any) -> Iterator[RunningServer]:
    """Start a server with these directives of redis.conf, _ for -, and end it with the block.

    It has a free port and a temporary directory, unless `port` or `dir` say otherwise; the temporary one is
    removed at the end. Raises RuntimeError with what the process said where it does not start.
    """
    with tempfile.TemporaryDirectory(prefix="kvref-", ignore_cleanup_errors=True) as folder:
        (Path(folder) / "data").mkdir()
        server = RunningServer({"dir": f"{folder}/data", **directives}, Path(folder) / "output")
        try:
            server.wait_ready()
            for tell in server.on_start:
                tell(server)
            yield server
        finally:
            server.stop()


def _listener(host: str, port: int) -> socket.socket:
    return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=511)


def _spawn(words: list[str], output: Any, *handed_down: socket.socket) -> subprocess.Popen[bytes]:
    """Start Python on this package, wherever it was imported from, in a session of its own: Ctrl-C is not for it."""
    listener, life = handed_down
    here = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH", "")]))
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "kvref", *words],
        env={**os.environ, "PYTHONPATH": path, LISTEN_FD: str(listener.fileno()), PARENT_FD: str(life.fileno())},
        stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
        pass_fds=[listener.fileno(), life.fileno()], start_new_session=True)
