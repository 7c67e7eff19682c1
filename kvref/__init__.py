"""kvref: Redis that you can read.

    from kvref.sim import World             a server on a simulated computer
    with kvref.running() as server: ...     a real process with real sockets, on a port of its own
    python -m kvref                         a server, as redis-server

Interface:
  - running(**directives)   see `kvref.process`
  - __version__

Nothing is imported before it is asked for: the core also runs where there are no processes and no sockets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kvref.process import running

__version__ = "0.1.0"
__all__ = ["__version__", "running"]


def __getattr__(name: str) -> Any:
    if name == "running":
        from kvref.process import running
        return running
    raise AttributeError(f"module 'kvref' has no attribute {name!r}")
