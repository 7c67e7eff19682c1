"""The files of Redis: snapshots and their format."""
