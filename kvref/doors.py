"""The doors: the sockets on which the server listens, and who may come in.

Interface:
  - Doors
      open(listeners)          on every `bind` address, or the given sockets
      open_anew(complaint)     after CONFIG SET port or bind
      close()

Redis: listenToPort and changeListenPort in server.c; acceptTcpHandler and acceptCommonHandler in networking.c.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kvref.client import is_loopback
from kvref.ports import Socket
from kvref.resp import Error, encode

if TYPE_CHECKING:
    from kvref.server import Server

ACCEPTS_PER_TURN = 1000

PROTECTED = (
    "DENIED Redis is running in protected mode because protected mode is enabled and no password is set for the "
    "default user. In this mode connections are only accepted from the loopback interface. If you want to connect "
    "from external computers to Redis you may adopt one of the following solutions: 1) Just disable protected mode "
    "sending the command 'CONFIG SET protected-mode no' from the loopback interface by connecting to Redis from the "
    "same host the server is running, however MAKE SURE Redis is not publicly accessible from internet if you do "
    "so. Use CONFIG REWRITE to make this change permanent. 2) Alternatively you can just disable the protected mode "
    "by editing the Redis configuration file, and setting the protected mode option to 'no', and then restarting the "
    "server. 3) If you started the server manually just for testing, restart it with the '--protected-mode no' "
    "option. 4) Setup a an authentication password for the default user. NOTE: You only need to do one of the above "
    "things in order for the server to start accepting connections from the outside.")


class Doors:
    """All doors of one server."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.listeners: list[Socket] = []

    def open(self, listeners: Sequence[Socket] = ()) -> None:
        """Raises OSError, with a sentence as its text, where an address cannot be had."""
        self.listeners = list(listeners) or self._listen()
        for listener in self.listeners:
            self.server.loop.watch(listener, Door(self, listener))

    def open_anew(self, complaint: str) -> None:
        """Close the doors and open the new ones; ValueError(complaint) if that fails."""
        self.close()
        try:
            self.open()
        except OSError as error:
            self.server.log("#", str(error.strerror))
            raise ValueError(complaint) from None

    def close(self) -> None:
        for listener in self.listeners:
            self.server.hang_up(listener)
        self.listeners = []

    def _listen(self) -> list[Socket]:
        """Sockets on every `bind` address that this computer has. Redis: listenToPort."""
        config, network = self.server.config, self.server.network
        if not (config.port and config.bind):
            return []
        found = []
        for address in config.bind:
            host = address.removeprefix("-")
            try:
                found.append(network.listen(host, config.port, config.tcp_backlog))
            except OSError as error:
                if error.errno in (errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT) or (
                        address != host and error.errno == errno.EADDRNOTAVAIL):
                    continue                        # "-::1": take it where the computer has it
                for listener in found:
                    network.close(listener)
                raise OSError(error.errno, f"Could not create server TCP listening socket "
                              f"{host}:{config.port}: bind: {error.strerror}") from None
        if not found:
            raise OSError(errno.EADDRNOTAVAIL, f"Failed listening on port {config.port} (TCP), aborting.")
        return found

    def accept(self, listener: Socket) -> None:
        """Welcome whoever waits at the door, or say why not."""
        server = self.server
        for _ in range(ACCEPTS_PER_TURN):
            try:
                visitor = server.network.accept(listener)
            except OSError as error:
                server.log("#", f"Accepting client connection: accept: {error.strerror}")
                return
            if visitor is None:
                return
            refusal = self._refusal(visitor)
            if refusal:
                self._refuse(visitor, refusal)
            else:
                server.welcome(visitor)

    def _refusal(self, sock: Socket) -> str | None:
        config = self.server.config
        if len(self.server.clients) >= config.maxclients:
            return "ERR max number of clients reached"
        if config.protected_mode and not config.requirepass:
            peer, _ = self.server.network.addresses(sock)
            return None if is_loopback(peer) else PROTECTED
        return None

    def _refuse(self, sock: Socket, refusal: str) -> None:
        self.server.stats.rejected_connections += 1
        try:
            self.server.network.send(sock, encode(Error(refusal)))
        except OSError:
            pass                                    # told or not, it goes
        self.server.network.close(sock)


class Door:
    """A listening socket, for the loop."""

    def __init__(self, doors: Doors, listener: Socket) -> None:
        self.doors, self.listener = doors, listener

    def on_readable(self) -> None:
        self.doors.accept(self.listener)

    def on_writable(self) -> None:
        pass                                        # nobody writes to a door
