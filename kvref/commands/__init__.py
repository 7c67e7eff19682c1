"""The commands, one file for each group, by the field's names. Importing this package fills the command table."""

from kvref.commands import clients, config, connection, info, introspection, keys, server, strings

__all__ = ["clients", "config", "connection", "info", "introspection", "keys", "server", "strings"]
