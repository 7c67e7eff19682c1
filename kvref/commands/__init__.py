"""The commands, one file for each group, as Redis's documentation groups them. Importing it fills the table."""

from kvref.commands import (bitmaps, blocking, clients, config, connection, hashes, info, introspection,
                            keys, lists, memory, persistence, pubsub, server, sets, sorted_sets, sorting, strings,
                            transactions)

__all__ = ["bitmaps", "blocking", "clients", "config", "connection", "hashes", "info", "introspection",
           "keys", "lists", "memory", "persistence", "pubsub", "server", "sets", "sorted_sets", "sorting", "strings",
           "transactions"]
