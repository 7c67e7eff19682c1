"""Bytes for a human eye, as MONITOR, SLOWLOG's readers and redis-cli show them, and the way back.

Interface:
  - repr_arg(b)      one argument in double quotes, with escapes: b'a\\n' -> b'"a\\\\n"'
  - monitor_line     what MONITOR says about one command
  - text(b)          bytes as a str that gives the same bytes back, whatever they are
  - c_text(b)        the same up to the first zero byte
  - split_args(line) a line of words, some of them quoted: redis.conf, inline requests, redis-cli

Redis: sdscatrepr and sdssplitargs in sds.c, replicationFeedMonitors in replication.c.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_NAMED = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t", "\a": "\\a", "\b": "\\b"}
_ESCAPES = {code: _NAMED.get(chr(code), f"\\x{code:02x}")
            for code in range(256) if chr(code) in _NAMED or not 32 <= code < 127}


def text(b: bytes) -> str:
    """UTF-8, with what is none as surrogate escapes: for error texts, which are str."""
    return b.decode("utf-8", "surrogateescape")


def c_text(b: bytes) -> str:
    """What C's %s prints of it: error replies quote arguments so."""
    return text(b.partition(b"\0")[0])


def repr_arg(b: bytes) -> bytes:
    """The bytes in double quotes; what cannot be printed as `\\xNN`. Redis: sdscatrepr."""
    return b'"' + b.decode("latin-1").translate(_ESCAPES).encode() + b'"'


def monitor_line(time_us: int, db: int, peer: str, args: Iterable[bytes]) -> str:
    """One status line, such as `1700000000.123456 [0 127.0.0.1:1234] "set" "k" "v"`."""
    words = b" ".join(map(repr_arg, args)).decode()
    return f"{time_us // 1_000_000}.{time_us % 1_000_000:06} [{db} {peer}] {words}"


_UNESCAPED = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"a": b"\a"}
_WORD = re.compile(rb"""
    "  (?P<double> (?: \\. | [^"\\] )*+ )  " (?=[\s\0]|\Z)      # an end quote must end the word
  | '  (?P<single> (?: \\' | [^']   )*+ )  ' (?=[\s\0]|\Z)
  |    (?P<plain>  [^\s\0"']+          )
""", re.VERBOSE | re.DOTALL)
_ESCAPE = re.compile(rb"\\(x[0-9a-fA-F]{2}|.)", re.DOTALL)


def split_args(line: bytes) -> list[bytes] | None:
    """The words of a line; None when its quotes are unbalanced. A NUL byte ends the line.

    `"..."` knows \\n \\r \\t \\b \\a \\xNN and `\\` before any other byte; `'...'` knows only `\\'`.
    Redis: sdssplitargs.
    """
    line = line.partition(b"\0")[0]
    words: list[bytes] = []
    at, open_word = 0, False
    while at < len(line):
        if line[at:at + 1].isspace():
            at, open_word = at + 1, False
            continue
        match = _WORD.match(line, at)
        if match is None:
            return None
        text = _unquoted(match)
        if open_word:
            words[-1] += text
        else:
            words.append(text)
        at, open_word = match.end(), True
    return words


def _unquoted(match: re.Match[bytes]) -> bytes:
    if match["double"] is not None:
        return _ESCAPE.sub(_unescape, match["double"])
    if match["single"] is not None:
        return match["single"].replace(b"\\'", b"'")
    return match["plain"]


def _unescape(match: re.Match[bytes]) -> bytes:
    code = match[1]
    return bytes([int(code[1:], 16)]) if len(code) == 3 else _UNESCAPED.get(code, code)
