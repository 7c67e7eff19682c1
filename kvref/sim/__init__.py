"""The four ports in memory, and a world made of them: the computer on which a notebook runs its servers.

Interface:
  - World          one simulated computer: `from kvref.sim import World` is all that most readers need
  - Cost           what a command costs there
  - ReplyError     an error reply, WouldBlock: nothing left to wait for

Inside: clock, network, disk and processes are one port each; caller is a client; world puts them together.
The core of kvref never imports this package, and the server that runs here does not know it.
"""

from kvref.sim.caller import Caller
from kvref.sim.clock import Cost
from kvref.sim.errors import ReplyError, WouldBlock
from kvref.sim.world import World

__all__ = ["Caller", "Cost", "ReplyError", "World", "WouldBlock"]
