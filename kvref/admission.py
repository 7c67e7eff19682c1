"""Who may run what, now: what stands between a request and its call.

Interface:
  - admit(server, client, args)     the command to run, or None, and the client has been told why
  - find_command(server, args)      by its name, in any case
  - CHECKS                          the reasons to refuse, in Redis's order

A plain command of a client without any peculiarity does not come by here: `Server.execute` finds it by itself.

Redis: processCommand, lookupCommand, securityWarningCommand in server.c.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from kvref.command_table import Command
from kvref.quoting import c_text
from kvref.resp import Error, Request
from kvref.transactions import EXEC_REFUSED, IMMEDIATE, discard

if TYPE_CHECKING:
    from kvref.client import Client
    from kvref.server import Server

OF_BROWSERS: Final = (b"post", b"host:")    # a web page can have a browser send bytes to any port, but beginning so
UNKNOWN_SHOWN: Final = 128                  # characters of an unknown command's arguments
ENDS_MULTI: Final = {"exec", "discard", "quit", "reset"}
WHILE_SUBSCRIBED: Final = {"subscribe", "unsubscribe", "psubscribe", "punsubscribe", "ping", "quit", "reset"}

DEBUG_REFUSED: Final = (
    'ERR DEBUG command not allowed. If the enable-debug-command option is set to "local", you can run it from a local '
    'connection, otherwise you need to set this option in the configuration file, and then restart the server.')
SNAPSHOTS_FAIL: Final = (
    "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk. Commands that "
    "may modify the data set are disabled, because this instance is configured to report errors during writes if RDB "
    "snapshotting fails (stop-writes-on-bgsave-error option). Please check the Redis logs for details about the RDB "
    "error.")
RESTRICTED: Final = ("ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed "
                     "in this context")


def admit(server: Server, client: Client, args: Request) -> Command | None:
    """Find a command and check whether it may run now; None: no, and the client has been told why.

    Redis: processCommand, securityWarningCommand.
    """
    if args[0].lower() in OF_BROWSERS:
        server.log("#", f"HTTP, perhaps an attack through somebody's browser: connection from {client.peer} closed.")
        client.close_soon()
        return None
    command, transaction = None, client.transaction
    try:
        command = client.last_command = find_command(server, args)
        check(server, client, command, args)
        if transaction and transaction.open and command.name not in IMMEDIATE:
            transaction.add(command, args)
            client.reply("QUEUED")
            return None
        return command
    except Error as error:
        refusal = error
        if command and command.name == "exec":
            discard(server, client)
            refusal = Error(EXEC_REFUSED + error.text.removeprefix("ERR "))
        elif transaction:
            transaction.broken = transaction.broken or transaction.open
        server.count_error(refusal)
        client.reply(refusal)
        return None


def check(server: Server, client: Client, command: Command, args: Request) -> None:
    """Raise the Error that keeps this command from running. Redis: processCommand, from top to bottom."""
    for applies, refusal in CHECKS:
        if applies(server, client, command, args):
            command.rejected += 1
            raise Error(refusal.format(command.name, server.aof.misconf))


def _flags(client: Client, command: Command) -> frozenset[str]:
    """Those of EXEC are of the commands that it would run, too."""
    inside = client.transaction.queue if command.name == "exec" and client.transaction else ()
    return command.flags.union(*(row.flags for row, _ in inside))


def _writes(client: Client, command: Command) -> bool:
    """Whether the command may write. PING is refused with them, so that whoever watches a server notices."""
    return command.name == "ping" or "write" in _flags(client, command)


def _grows(client: Client, command: Command) -> bool:
    """Whether the command may need more memory, as does a queue for EXEC. Redis: is_denyoom_command."""
    queued = client.transaction and client.transaction.open and command.name not in ENDS_MULTI
    return bool(queued) or "denyoom" in _flags(client, command)


def allows_debug(server: Server, client: Client) -> bool:
    """Redis: allowProtectedAction."""
    allowed = server.config.enable_debug_command
    return allowed == "yes" or allowed == "local" and client.is_local


def find_command(server: Server, args: Request) -> Command:
    """The command, or the subcommand, that the first words name in any case. Redis: lookupCommand."""
    command = server.commands.get(args[0].lower())
    if command is None:
        raise Error(f"ERR unknown command '{c_text(args[0][:128])}', with args beginning with: {_beginning(args)}")
    if not command.subcommands or len(args) < 2:
        return command
    found = command.subcommands.get(args[1].lower())
    if found is None:
        raise Error(f"ERR unknown subcommand '{c_text(args[1][:128])}'. Try {command.name.upper()} HELP.")
    return found


def _beginning(args: Request) -> str:
    """The arguments in quotes, cut at 128 characters, as the error for an unknown command shows them."""
    shown = ""
    for arg in args[1:]:
        if len(shown) >= UNKNOWN_SHOWN:
            break
        shown += f"'{c_text(arg[:UNKNOWN_SHOWN - len(shown)])}' "
    return shown


CHECKS: Final[list[tuple[Callable[[Server, Client, Command, Request], Any], str]]] = [      # when, what is answered
    (lambda server, client, command, args: not command.least <= len(args) <= command.most,
     "ERR wrong number of arguments for '{}' command"),
    (lambda server, client, command, args: "protected" in command.flags and not allows_debug(server, client),
     DEBUG_REFUSED),
    (lambda server, client, command, args:
     server.config.requirepass and not client.authenticated and "no_auth" not in command.flags,
     "NOAUTH Authentication required."),
    (lambda server, client, command, args:
     client.transaction and client.transaction.open and "no_multi" in command.flags,
     "ERR Command not allowed inside a transaction"),
    (lambda server, client, command, args: server.eviction.out_of_memory and _grows(client, command),
     "OOM command not allowed when used memory > 'maxmemory'."),
    (lambda server, client, command, args: server.snapshots.stop_writes and _writes(client, command), SNAPSHOTS_FAIL),
    (lambda server, client, command, args: server.aof.misconf and _writes(client, command),
     "MISCONF Errors writing to the AOF file: {1}"),
    (lambda server, client, command, args:
     client.subscriptions and client.resp == 2 and command.name not in WHILE_SUBSCRIBED, RESTRICTED),
    (lambda server, client, command, args: server.loading and "loading" not in command.flags,
     "LOADING Redis is loading the dataset in memory"),
    (lambda server, client, command, args: client.monitor and command.flags & {"write", "readonly"},
     "ERR Replica can't interact with the keyspace"),
]
