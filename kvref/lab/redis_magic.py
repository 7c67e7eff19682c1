"""%%redis: commands in a cell, one on each line, with replies as redis-cli prints them.

    %%redis                     %%redis alice               %redis other_world
    SET course redis            GET course                  (from now on %%redis talks to that one)
    bob> GET course             # a comment

Every line is sent by the client that the first line names, `redis` where it names none, or by the one whose
name stands before it. A client connects when it first speaks, and stays. It is the same client as
`world.connect("alice")` gives. What comes to the others meanwhile is shown behind their names.

Interface:
  - load(shell), unload(shell)   teach it to a notebook; `%load_ext kvref.lab` does so
  - Conversation                 what is behind it: clients by name, and a server, simulated or real

It talks to the server that was started last in this kernel. Where none was: one sentence. Simpler than redis-cli:
no reconnection, and who waits for a reply in vain (BLPOP) gets `(no reply yet)`.
"""

from __future__ import annotations

import re
import socket
from contextlib import suppress
from typing import Any, Protocol

from kvref.lab.cli import format_reply, split_args
from kvref.process import RunningServer
from kvref.resp import NEED_DATA, ReplyParser, encode
from kvref.sim import World

NAMED = re.compile(r"([A-Za-z]\w*)> ?(.*)")
DEFAULT = "redis"
PATIENCE_S = 0.5                # a real server that has not answered by then is waiting for something
WAYS = 4                        # to and fro, for the connection and for the request
NOBODY = "No server runs here yet. Start one first: world = World(seed=1); world.start()"


class Peer(Protocol):
    """One client's end."""

    def ask(self, words: list[bytes]) -> None: ...

    def hear(self) -> list[Any]:
        """What has come since."""

    @property
    def ended(self) -> str:
        """Why the connection is over; "" while it is not."""


class SimulatedPeer:
    """A caller of a World."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        known = [caller for caller in world.callers if caller.name == name and not caller.ended]
        self.caller = known[-1] if known else world.connect(name)

    def ask(self, words: list[bytes]) -> None:
        self.caller.send(*words)
        self.world.settle()
        for _ in range(WAYS):
            if not self.caller.replies and self.world.network.latency_us:
                self.world.run(ms=self.world.network.latency_us / 1000)
                self.world.settle()

    def hear(self) -> list[Any]:
        found = [*self.caller.replies, *self.caller.pushes]
        self.caller.replies.clear()
        self.caller.pushes.clear()
        return found

    @property
    def ended(self) -> str:
        return self.caller.ended


class RealPeer:
    """A TCP connection."""

    def __init__(self, server: RunningServer) -> None:
        self.sock = socket.create_connection((server.host, server.port), timeout=PATIENCE_S)
        self.parser = ReplyParser()
        self.heard: list[Any] = []
        self.ended = ""

    def ask(self, words: list[bytes]) -> None:
        self.sock.settimeout(PATIENCE_S)
        try:
            self.sock.sendall(encode(words))
            while not self.heard and not self.ended:
                self._read()
        except TimeoutError:
            pass
        except OSError as error:
            self.ended = f"the server is gone ({error.strerror})"

    def hear(self) -> list[Any]:
        try:
            self.sock.settimeout(0)
            while not self.ended:
                self._read()
        except OSError:
            pass                            # nothing more has come
        found, self.heard = self.heard, []
        return found

    def _read(self) -> None:
        data = self.sock.recv(64 * 1024)
        if not data:
            self.ended = "the server has closed the connection"
        self.parser.receive(data)
        while (value := self.parser.next()) is not NEED_DATA:
            self.heard.append(value)


class Conversation:
    """Clients by name, and whom they talk to."""

    def __init__(self) -> None:
        self.server: World | RunningServer | None = None
        self.peers: dict[str, Peer] = {}

    def turn_to(self, server: World | RunningServer) -> None:
        """From now on commands go there, over new connections: it may be the same one, started again."""
        self.server, self.peers = server, {}

    def play(self, client: str, text: str) -> str:
        """Send each line, and return the conversation as text."""
        lines = [line for line in map(str.strip, text.splitlines()) if line and not line.startswith("#")]
        return "\n".join(said for line in lines for said in self._line(client, line))

    def _line(self, client: str, line: str) -> list[str]:
        named = NAMED.fullmatch(line)
        name, command = (named[1], named[2]) if named else (client, line)
        command = _without_comment(command)
        said = [f"{name}> {command}"]
        try:
            words = split_args(command)
            if words:
                peer = self._peer(name)
                peer.ask(words)
                said += list(map(format_reply, peer.hear())) or [f"({peer.ended or 'no reply yet'})"]
        except (ValueError, RuntimeError) as error:
            return [*said, f"({error})"]
        except OSError as error:
            return [*said, f"({error.strerror or error})"]
        others = [(other, value) for other in sorted(self.peers) if other != name for value in self.peers[other].hear()]
        return said + [f"{other}: {shown}" for other, value in others for shown in format_reply(value).splitlines()]

    def _peer(self, name: str) -> Peer:
        if self.server is None:
            raise RuntimeError(NOBODY)
        known = self.peers.get(name)
        if known is None or known.ended:
            server = self.server
            self.peers[name] = SimulatedPeer(server, name) if isinstance(server, World) else RealPeer(server)
        return self.peers[name]


def _without_comment(command: str) -> str:
    """What stands before a # between blanks, unless it is inside quotes."""
    for blank in re.finditer(r"\s+#(?=\s|$)", command):
        with suppress(ValueError):                      # a quote is open there
            split_args(command[:blank.start()])
            return command[:blank.start()]
    return command


def load(shell: Any) -> None:
    """From now on `shell` (an IPython shell) knows %%redis and %redis."""
    unload(shell)
    conversation = Conversation()

    def redis(line: str, cell: str | None = None) -> None:
        if cell is not None:
            print(conversation.play(line.strip() or DEFAULT, cell))
            return
        server = shell.user_ns.get(line.strip())
        if isinstance(server, World | RunningServer):
            conversation.turn_to(server)
        else:
            print(f"%redis NAME wants the name of a World or of a running server, not {line.strip()!r}.")

    shell.register_magic_function(redis, "line_cell", "redis")
    shell.kvref_follow = conversation.turn_to
    for kind in (World, RunningServer):
        kind.on_start.append(shell.kvref_follow)
    for server in list(shell.user_ns.values()):         # started before the extension was loaded
        if isinstance(server, World) and server.server or isinstance(server, RunningServer):
            conversation.turn_to(server)


def unload(shell: Any) -> None:
    """Forget %%redis."""
    follow = shell.__dict__.pop("kvref_follow", None)
    for kind in (World, RunningServer):
        if follow in kind.on_start:
            kind.on_start.remove(follow)
    for magics in shell.magics_manager.magics.values():
        magics.pop("redis", None)
