"""COMMAND: what the server knows about its own commands; and the HELP of every command with subcommands.

Everything is read off the command table, so that a new command appears here by being declared.

Interface:
  - COMMAND, COMMAND COUNT, LIST [FILTERBY], INFO, DOCS, GETKEYS, HELP
  - CLIENT HELP, PUBSUB HELP, SLOWLOG HELP, ACL HELP; `help_lines(row)` for who wants the same
  - commands(server)  each command of a server once
  - categories(row)   its ACL categories

Redis: commandCommand and its sisters in server.c; setImplicitACLCategories too. Simpler here: tips, key
specifications, complexity and arguments are empty or missing (first key, last key and step are right), and
the text of HELP is made from the summaries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from kvref.admission import find_command
from kvref.command_table import SYNTAX, Call, Command, command, rows
from kvref.glob import glob_match
from kvref.resp import Error
from kvref.sampling import Members

if TYPE_CHECKING:
    from kvref.server import Server

# In the order in which COMMAND INFO shows them; other words in a row's flags are for this server alone.
PUBLIC_FLAGS = ("write", "readonly", "denyoom", "admin", "pubsub", "noscript", "blocking", "loading", "stale",
                "skip_monitor", "skip_slowlog", "fast", "no_auth", "may_replicate", "no_mandatory_keys",
                "no_async_loading", "no_multi", "movablekeys", "allow_busy")

CATEGORIES = ("keyspace", "read", "write", "set", "sortedset", "list", "hash", "string", "bitmap", "pubsub",
              "admin", "fast", "slow", "blocking", "dangerous", "connection", "transaction")

GROUP_CATEGORY = {"generic": "keyspace", "sorted-set": "sortedset", "transactions": "transaction", "server": ""}
FLAG_CATEGORIES = {"write": ("write",), "readonly": ("read",), "admin": ("admin", "dangerous"),
                   "pubsub": ("pubsub",), "blocking": ("blocking",), "fast": ("fast",)}
MORE_CATEGORIES = {                                 # what follows neither from the group nor from the flags
    "command": ("connection",), "dbsize": ("keyspace",), "swapdb": ("keyspace", "dangerous"),
    "flushall": ("keyspace", "dangerous"), "flushdb": ("keyspace", "dangerous"), "info": ("dangerous",),
    "keys": ("dangerous",), "lastsave": ("admin", "dangerous"), "restore": ("dangerous",),
    "role": ("admin", "dangerous"), "sort": ("set", "sortedset", "list", "dangerous"),
    "sort_ro": ("set", "sortedset", "list", "dangerous"), "wait": ("connection",),
}


# ---- the rows of a server ------------------------------------------------------------------------

def commands(server: Server) -> Iterator[Command]:
    """Each command once, in order of names, without subcommands."""
    return (row for row in rows(server.commands) if "|" not in row.name)


def find(server: Server, name: bytes) -> Command | None:
    """The row of "get" or "client|list", in any spelling."""
    parent, bar, sub = name.lower().partition(b"|")
    row = server.commands.get(parent)
    return row.subcommands.get(sub) if row and bar else row


def categories(row: Command) -> list[str]:
    """ACL categories without the @, in Redis's order."""
    parent = row.name.partition("|")[0]
    found = {"slow" if "fast" not in row.flags else "fast"}
    for flag, names in FLAG_CATEGORIES.items():
        if flag in row.flags:
            found.update(names)
    found.update(MORE_CATEGORIES.get(parent, ()))
    if not row.subcommands and not {"sort", "sort_ro", "wait"} & {parent}:
        found.add(GROUP_CATEGORY.get(row.group, row.group))
    return [name for name in CATEGORIES if name in found]


def _first_last_step(row: Command) -> tuple[int, int, int]:
    return row.keys or (0, 0, 0)


def describe(row: Command) -> list[Any]:
    """The ten elements of COMMAND INFO: name, arity, flags, first key, last key, step, categories, tips, key
    specifications, subcommands. Redis: addReplyCommandInfo."""
    flags = [flag for flag in PUBLIC_FLAGS if flag in row.flags]
    return [row.name.encode(), row.arity, Members.fromkeys(flags), *_first_last_step(row),
            Members.fromkeys("@" + name for name in categories(row)), Members(), Members(),
            [describe(sub) for sub in row.subcommands.values()] or Members()]


def document(row: Command) -> dict[bytes, Any]:
    """The map of COMMAND DOCS. Redis: addReplyCommandDocs."""
    docs: dict[bytes, Any] = {b"summary": row.summary.encode(), b"since": row.since.encode(),
                              b"group": row.group.encode()}
    if row.subcommands:
        docs[b"subcommands"] = {sub.name.encode(): document(sub) for sub in row.subcommands.values()}
    return docs


# ---- COMMAND -------------------------------------------------------------------------------------

@command("command", arity=-1, flags="loading stale", group="server", since="2.8.13")
def command_(call: Call) -> Any:
    "Describe every command."
    return [describe(row) for row in commands(call.server)]


@command("command|count", arity=2, flags="loading stale", group="server", since="2.8.13")
def command_count(call: Call) -> int:
    "Count the commands of this server."
    return sum(1 for _ in commands(call.server))


@command("command|info", arity=-2, flags="loading stale", group="server", since="2.8.13")
def command_info(call: Call) -> Any:
    "Describe some commands, or all."
    if len(call.args) == 2:
        return command_(call)
    found = [find(call.server, name) for name in call.args[2:]]
    return [describe(row) if row else None for row in found]


@command("command|docs", arity=-2, flags="loading stale", group="server", since="7.0.0")
def command_docs(call: Call) -> Any:
    "Say what some commands do, or all."
    found = [find(call.server, name) for name in call.args[2:]] or commands(call.server)
    return {row.name.encode(): document(row) for row in found if row}


FILTERS: dict[bytes, Callable[[Command, bytes], bool]] = {
    b"module": lambda row, name: False,
    b"aclcat": lambda row, name: name.lower().decode("latin-1") in categories(row),
    b"pattern": lambda row, pattern: glob_match(pattern, row.name.encode(), nocase=True),
}


@command("command|list", arity=-2, flags="loading stale", group="server", since="7.0.0")
def command_list(call: Call) -> list[bytes]:
    "List the names of commands, all or those that pass a filter."
    words = call.args[2:] or [b"filterby", b"pattern", b"*"]
    keep = FILTERS.get(words[1].lower()) if len(words) == 3 and words[0].lower() == b"filterby" else None
    if keep is None:
        raise SYNTAX
    return [row.name.encode() for row in rows(call.server.commands) if keep(row, words[2])]


@command("command|getkeys", arity=-4, flags="loading stale", group="server", since="2.8.13")
def command_getkeys(call: Call) -> list[bytes]:
    "Pick the keys out of a whole command."
    request = call.args[2:]
    try:
        row = find_command(call.server, request)
    except Error:
        raise Error("ERR Invalid command specified") from None
    if row.keys is None and row.more_keys is None:
        raise Error("ERR The command has no key arguments")
    if not row.least <= len(request) <= row.most:
        raise Error("ERR Invalid number of arguments specified for command")
    positions = row.key_positions(request)
    if not positions:
        raise Error("ERR Invalid arguments specified for command")
    return [request[i] for i in positions]


# ---- HELP ----------------------------------------------------------------------------------------

def help_lines(row: Command) -> list[str]:
    """A page of help, as statuses. Redis: addReplyHelp, with the texts in the code."""
    lines = [f"{row.name.upper()} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"]
    for name, sub in row.subcommands.items():
        if name != b"help":
            lines += [name.decode().upper(), "    " + sub.summary]
    return [*lines, "HELP", "    Print this help."]


def _help(call: Call) -> list[str]:
    "Print what the subcommands do."
    return help_lines(call.server.commands[call.args[0].lower()])


for _name, _group, _since in (("acl", "server", "6.0.0"), ("client", "connection", "5.0.0"),
                              ("command", "server", "5.0.0"), ("pubsub", "pubsub", "6.2.0"),
                              ("slowlog", "server", "6.2.0")):
    command(f"{_name}|help", arity=2, flags="loading stale", group=_group, since=_since)(_help)
