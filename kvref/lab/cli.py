"""Replies and command lines in the manner of redis-cli: what `%%redis`, the golden scripts and the chapters print.

Interface:
  - format_reply(value)   a reply as redis-cli prints it in a terminal, without the last newline
  - split_args(line)      one line of commands, with redis-cli's quoting, into its arguments
  - quote(data)           bytes between double quotes, as redis-cli and MONITOR write them

The values are those of `kvref.resp`. In RESP2 a client cannot know a map or a set from a list, so these have a
form of their own (`1# "k" => "v"`, `1~ "m"`) only where RESP3 was spoken.

Redis: cliFormatReplyTTY in redis-cli.c; sdscatrepr and sdssplitargs in sds.c. Simpler here: redis-cli prints the
reply of a few commands (INFO, CLIENT LIST ...) raw because it knows their names; a reply alone does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from kvref import quoting
from kvref.resp import Error, Pairs, Push, Verbatim
from kvref.sampling import Members


def quote(data: bytes) -> str:
    """Bytes in double quotes; what is not printable ASCII becomes an escape such as \\x00."""
    return quoting.repr_arg(data).decode()


def format_reply(value: Any, indent: str = "") -> str:
    """The text that redis-cli shows for a reply. `indent` stands before the second and later lines of a list."""
    if isinstance(value, Error):
        return f"(error) {_visible(value.text)}"
    if isinstance(value, Verbatim):             # before bytes
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, bool):                 # before int, of which it is a kind
        return "(true)" if value else "(false)"
    if isinstance(value, int):
        return f"(integer) {value}"
    if isinstance(value, float):
        return f"(double) {value:.17g}"
    if isinstance(value, bytes):
        return quote(value)
    if isinstance(value, str):
        return _visible(value)
    if value is None:
        return "(nil)"
    return _format_aggregate(value, indent)


def _format_aggregate(value: Any, indent: str) -> str:
    if isinstance(value, Members):
        return _numbered(value, "~", "(empty set)", indent)
    if isinstance(value, dict):
        return _numbered(value.items(), "#", "(empty hash)", indent, _format_field)
    if isinstance(value, Pairs):                # RESP3: a list of pairs
        value = [list(pair) for pair in value]
    return _numbered(value, ")", "(empty push)" if isinstance(value, Push) else "(empty array)", indent)


def _format_field(field: tuple[Any, Any], indent: str) -> str:
    """A field of a map; a value of several items begins on a line of its own."""
    key, value = field
    return f"{format_reply(key, indent)} => " + (f"\n{indent}" if _several(value) else "") + format_reply(value, indent)


def _several(value: Any) -> bool:
    """Whether a list, set or map has more than one item, or its only one has."""
    if not isinstance(value, (list, dict)) or not value:
        return False
    items = list(value.values() if isinstance(value, dict) else value)
    return len(items) > 1 or _several(items[0])


def _numbered(items: Iterable[Any], mark: str, empty: str, indent: str,
              form: Callable[[Any, str], str] = format_reply) -> str:
    """Each item behind its number; the numbers are aligned, and nested lists stand further to the right."""
    items = list(items)
    width = len(str(len(items)))
    deeper = indent + " " * (width + 2)
    lines = (f"{number:{width}d}{mark} {form(item, deeper)}" for number, item in enumerate(items, 1))
    return f"\n{indent}".join(lines) if items else empty


def _visible(text: str) -> str:
    """Bytes that are no UTF-8 stand in a status or an error as surrogate escapes."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def split_args(line: str) -> list[bytes]:
    """The arguments of a command line. ValueError: a quote is not closed, or not followed by a blank.

    "..." knows \\n \\r \\t \\b \\a \\xHH and \\ before any other character; '...' knows only \\'.
    """
    words = quoting.split_args(line.encode())
    if words is None:
        raise ValueError("Invalid argument(s): a quote is not closed, or not followed by a blank")
    return words
