"""MEMORY: what a key takes.

Interface: the commands of MEMORY. Nothing else is meant to be imported from here.

Redis: memoryCommand in object.c. Simpler here: DOCTOR, MALLOC-STATS, PURGE and STATS are left out, for they speak of
Redis's allocator; INFO memory says what there is to say.
"""

from __future__ import annotations

from typing import Final

from kvref.command_table import SYNTAX, Call, command, container
from kvref.commands.arguments import Option, integer, parse_options
from kvref.commands.introspection import help_lines
from kvref.memory import size_of

container("memory", group="server", since="4.0.0", summary="How much memory things take.")

USAGE_OPTIONS: Final = {b"SAMPLES": Option("samples", integer)}
SAMPLES: Final = 5                          # texts of a collection that stand for all


@command("memory|usage", arity=-3, flags="readonly", keys=(2, 2, 1), group="server", since="4.0.0")
def memory_usage(call: Call) -> int | None:
    "Estimate the bytes of a key and its value, from some of its elements; SAMPLES 0: from all."
    samples = parse_options(call.args[3:], USAGE_OPTIONS).get("samples", (b"", SAMPLES))[1]
    if samples < 0:
        raise SYNTAX
    key = call.args[2]
    if key not in call.db.values:           # as in Redis, it may be one whose time is over
        return None
    call.touch(samples)
    return size_of(call.db, key, samples)


@command("memory|help", arity=2, flags="loading stale", group="server", since="4.0.0")
def memory_help(call: Call) -> list[str]:
    "What MEMORY can tell."
    return help_lines(call.server.commands[b"memory"])
