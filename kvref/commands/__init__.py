"""The commands, one file for each group, as Redis's documentation groups them. Importing it fills the table."""

from kvref.commands import clients, config, connection, info, introspection, keys, server, strings

__all__ = ["clients", "config", "connection", "info", "introspection", "keys", "server", "strings"]
