"""The floor: the least that a server in Python does. `python -m tests.benchmarks.floor --port N`.

It answers +OK to every command and reads none, with one send for all that one recv brought. What it costs is the price
of sockets, selector and interpreter: nothing that parses and remembers can be cheaper. A command is counted where it
begins (`*`, or the end of an inline one), so values must not hold that byte; redis-benchmark's hold only x. Five bytes
a command always fit into the socket of a client that reads its replies before it asks again: no partial sends.
"""

from __future__ import annotations

import selectors
import socket
import sys


def serve(port: int) -> None:
    selector = selectors.DefaultSelector()
    listener = socket.create_server(("127.0.0.1", port), backlog=511)
    selector.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            sock: socket.socket = key.fileobj  # type: ignore[assignment]
            if sock is listener:
                sock, _ = listener.accept()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                selector.register(sock, selectors.EVENT_READ)
            elif not answer(sock):
                selector.unregister(sock)
                sock.close()


def answer(sock: socket.socket) -> bool:
    """False when the client has left."""
    try:
        data = sock.recv(16384)
        sock.send(b"+OK\r\n" * (data.count(b"*") or data.count(b"\n")))
        return data != b""
    except OSError:
        return False


if __name__ == "__main__":
    serve(int(sys.argv[sys.argv.index("--port") + 1]))
