"""Transactions: MULTI, EXEC, DISCARD, WATCH, UNWATCH. The mechanism is kvref/transactions.py.

Interface: the commands of the group "transactions".

Redis: multi.c.
"""

from __future__ import annotations

from typing import Any

from kvref import transactions
from kvref.command_table import Call, command
from kvref.resp import OK, Error
from kvref.transactions import Transaction

FLAGS = "noscript loading stale fast allow_busy"


@command("multi", arity=1, flags=FLAGS, group="transactions", since="1.2.0")
def multi(call: Call) -> str:
    "Begin a transaction: what follows is queued."
    transaction = call.client.transaction = call.client.transaction or Transaction()
    if transaction.open:
        raise Error("ERR MULTI calls can not be nested")
    transaction.open = True
    return OK


@command("exec", arity=1, flags="noscript loading stale skip_slowlog", group="transactions", since="1.2.0")
def exec_(call: Call) -> Any:
    "Run what was queued, if no watched key has changed."
    _open(call, "EXEC")
    return transactions.execute(call.server, call.client)


@command("discard", arity=1, flags=FLAGS, group="transactions", since="2.0.0")
def discard(call: Call) -> str:
    "Forget what was queued, and what was watched."
    _open(call, "DISCARD")
    transactions.discard(call.server, call.client)
    return OK


def _open(call: Call, name: str) -> None:
    if not (call.client.transaction and call.client.transaction.open):
        raise Error(f"ERR {name} without MULTI")


@command("watch", arity=-2, flags=FLAGS, keys=(1, -1, 1), group="transactions", since="2.2.0")
def watch(call: Call) -> str:
    "Let the next EXEC run only if these keys have not changed by then."
    transaction = call.client.transaction
    if transaction and transaction.open:
        raise Error("ERR WATCH inside MULTI is not allowed")
    if not (transaction and transaction.changed):       # it has lost already
        for key in call.args[1:]:
            call.server.watches.add(call.client, call.db, key, call.now_ms)
    return OK


@command("unwatch", arity=1, flags=FLAGS, group="transactions", since="2.2.0")
def unwatch(call: Call) -> str:
    "Forget what was watched."
    transactions.discard(call.server, call.client)      # between MULTI and EXEC it is queued, and comes too late
    return OK
