"""CONFIG: look at the directives, change them while the server runs, write them back to redis.conf.

Interface:
  - CONFIG GET, SET, REWRITE, RESETSTAT, HELP

Redis: configGetCommand, configSetCommand and configRewriteCommand in config.c.
"""

from __future__ import annotations

from kvref.command_table import SYNTAX, Call, command, container
from kvref.commands.introspection import help_lines
from kvref.config import ConfigError
from kvref.directives import DIRECTIVES, Secret
from kvref.quoting import text
from kvref.resp import OK, Error

ADMIN = "admin noscript loading stale"
NOT_WHILE_LOADING = {"appendonly", "dir", "repl-diskless-load"}     # Redis: DENY_LOADING_CONFIG

container("config", group="server", since="2.0.0", summary="The directives of redis.conf.")


@command("config|get", arity=-3, flags=ADMIN, group="server", since="2.0.0")
def config_get(call: Call) -> dict[bytes, bytes]:
    "Show the directives whose names match one of the patterns."
    return call.server.config.matching(call.args[2:])


@command("config|set", arity=-4, flags=ADMIN, group="server", since="2.0.0")
def config_set(call: Call) -> str:
    "Change one or more directives, all of them or none."
    if len(call.args) % 2:
        raise SYNTAX
    pairs = list(zip(call.args[2::2], call.args[3::2]))
    _redact(call)
    if call.server.loading and not NOT_WHILE_LOADING.isdisjoint(text(name).lower() for name, _ in pairs):
        raise Error("LOADING Redis is loading the dataset in memory")
    try:
        call.server.config.set(pairs, _may_set_protected(call))
    except ConfigError as error:
        raise Error(f"ERR {error}") from None
    return OK


def _redact(call: Call) -> None:
    """Passwords do not appear in MONITOR or SLOWLOG."""
    for at in range(2, len(call.args), 2):
        row = DIRECTIVES.get(text(call.args[at]).lower())
        if row is not None and isinstance(row.kind, Secret):
            call.args[at + 1] = b"(redacted)"


def _may_set_protected(call: Call) -> bool:
    allowed = call.server.config.enable_protected_configs
    return allowed == "yes" or allowed == "local" and call.client.is_local


@command("config|rewrite", arity=2, flags=ADMIN, group="server", since="2.8.0")
def config_rewrite(call: Call) -> str:
    "Write the directives as they are now to the redis.conf that the server was started with."
    if call.server.config.filename is None:
        raise Error("ERR The server is running without a config file")
    try:
        call.server.config.rewrite(call.server.ports.disk)
    except OSError as error:
        call.server.log("#", f"CONFIG REWRITE failed: {error.strerror}")
        raise Error(f"ERR Rewriting config file: {error.strerror}") from None
    call.server.log("#", "CONFIG REWRITE executed with success.")
    return OK


@command("config|resetstat", arity=2, flags=ADMIN, group="server", since="2.0.0")
def config_resetstat(call: Call) -> str:
    "Set the counters of INFO back to zero."
    call.server.reset_stats()
    return OK


@command("config|help", arity=2, flags="loading stale", group="server", since="5.0.0")
def config_help(call: Call) -> list[str]:
    "Print what the subcommands do."
    return help_lines(call.server.commands[b"config"])
