"""What can go wrong on a simulated computer: the kernel's own errors, and three of ours.

Interface:
  - failure(code, path)   the OSError that a real kernel would give; Python picks its subclass
  - Deadlock              the process waits, and there is nothing that could ever wake it
  - WouldBlock            the same, told to the person at the keyboard
  - ReplyError            an error reply, where a script asked for a value
"""

from __future__ import annotations

import errno

TEXTS = {
    errno.EADDRINUSE: "Address already in use",
    errno.EADDRNOTAVAIL: "Cannot assign requested address",
    errno.EBADF: "Bad file descriptor",
    errno.ECONNREFUSED: "Connection refused",
    errno.ECONNRESET: "Connection reset by peer",
    errno.EEXIST: "File exists",
    errno.EINVAL: "Invalid argument",
    errno.EIO: "Input/output error",
    errno.EISDIR: "Is a directory",
    errno.ENOENT: "No such file or directory",
    errno.ENOSPC: "No space left on device",
    errno.ENOTDIR: "Not a directory",
    errno.ENOTEMPTY: "Directory not empty",
    errno.EMFILE: "Too many open files",
    errno.EACCES: "Permission denied",
    errno.EROFS: "Read-only file system",
    errno.EPIPE: "Broken pipe",
    errno.ESRCH: "No such process",
    errno.ETIMEDOUT: "Connection timed out",
}


def failure(code: int, path: str | None = None) -> OSError:
    """The error with this number: FileNotFoundError for ENOENT, ConnectionResetError for ECONNRESET ..."""
    return OSError(code, TEXTS[code]) if path is None else OSError(code, TEXTS[code], path)


class Deadlock(Exception):
    """A process waits for ever: no timeout, no bytes under way, nothing scheduled."""


class WouldBlock(Exception):
    """Virtual time has nothing left to wait for: on a real computer this call would stand still."""


class ReplyError(Exception):
    """The server answered with an error; the text is the server's."""
