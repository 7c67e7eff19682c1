"""The commands, one file for each group, as Redis's documentation groups them. Importing it fills the table."""

from kvref.commands import (bitmaps, clients, config, connection, hashes, info, introspection, keys, lists, server,
                            sets, sorted_sets, sorting, strings)

__all__ = ["bitmaps", "clients", "config", "connection", "hashes", "info", "introspection", "keys", "lists", "server",
           "sets", "sorted_sets", "sorting", "strings"]
