"""Golden scripts: commands, `---`, and what a real redis-server 7.0.15 answered. Format, parser, player.

    # A comment. The first block of a file may give directives to the server; it has no replies.
    @directives enable-debug-command yes maxmemory-policy allkeys-lru

    SET greeting "hello\\n"
    bob> GET greeting
    @unordered
    KEYS *
    ---
    OK
    "hello\\n"
    1) "greeting"

Blocks are separated by one blank line. One server serves a file, from an empty keyspace, so state runs through it.
Above `---` stands one step on each line:

    SET k v              a command in redis-cli's quoting, from the client "default"
    bob> GET k           the same from a client of that name. A client connects when it first speaks, stays
                         through the file, and connects again when it speaks after its connection was closed
    @raw "*1\\r\\n$" "9"*20  bytes as they are (`bob> @raw ...` from bob). Pieces are joined; `*20` repeats one.
                         What comes back is shown as raw bytes
    @advance 1500ms      time passes (ms or s): really when recorded, virtually when played. Redis looks at timeouts
                         ten times a second, so go 200 ms past a deadline
    @unordered           the next reply is a list in no certain order: it is shown sorted. `@unordered pairs` sorts
                         it by twos (a map in RESP2). A list that mixes lists and scalars (SCAN: cursor and page) stays as it is
    CLIENT KILL ID $bob  the word `$bob` stands for the number of bob's connection (by CLIENT ID, asked when it connects)
    @any                 the next reply is shown as `(any)`, unless it is an error
    # text               a comment

Below `---`, after each step the machine runs until the server has nothing more to do; then everything that has
come is shown: first to the client that spoke, `(no reply)` if nothing came to it (a blocked command), `(closed)` if
the server closed its connection; then to all others, in order of their first word, each line behind `bob> `. After
`@advance` every line has such a name. An empty line inside a reply is shown as `(blank line)`.

In a file, two things are mistakes (ScriptError), because all that follows would test nothing: a client that waits for
a reply and says more, other than by `@raw`; and a command without a reply that is none of those that wait for a key.

A file that holds its commands alone is a script too: `python -m tests.record FILE` adds what is below the `---`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from kvref.lab.cli import format_reply, quote, split_args
from kvref.resp import Error, Push, Verbatim
from kvref.sampling import Members

SCRIPTS = Path(__file__).parent / "scripts"
DEFAULT = "default"
CLIENT_NUMBER = re.compile(rb"\$[a-z][a-z0-9_-]*")
NAMED = re.compile(r"([a-z][a-z0-9_-]*)> ?(.*)")
PIECE = re.compile(r'\s*("(?:[^"\\]|\\.)*")(?:\*(\d+))?')
DURATION = re.compile(r"(\d+)(ms|s)")
WAITING = {b"BLPOP", b"BRPOP", b"BLMOVE", b"BRPOPLPUSH", b"BLMPOP", b"BZPOPMIN", b"BZPOPMAX", b"BZMPOP"}


class ScriptError(Exception):
    """A golden script that cannot be read or played: file, line, what is wrong."""


@dataclass
class Step:
    """One line above `---`."""

    kind: str                       # "command" "raw" "advance"
    line: str
    client: str = DEFAULT
    data: bytes = b""               # what goes over the wire
    words: list[bytes] = field(default_factory=list)
    ms: int = 0
    mark: str = ""                  # "" "any" "unordered" "pairs"
    number: int = 0                 # line in the file


@dataclass
class Block:
    """Commands and their replies."""

    number: int                     # line in the file
    above: list[str]
    steps: list[Step]
    expected: str | None            # None: not recorded yet

    def render(self) -> str:
        if not self.steps:
            return "\n".join(self.above)
        return "\n".join([*self.above, "---", *([self.expected] if self.expected else [])])


@dataclass
class Script:
    """A file of blocks."""

    name: str
    directives: dict[str, str]
    blocks: list[Block]
    by_hand: bool = False           # from a file, not drawn at random: whoever waits is silent

    @property
    def advances(self) -> bool:
        """Whether recording it takes real time."""
        return any(step.kind == "advance" for block in self.blocks for step in block.steps)

    @property
    def numbered(self) -> set[str]:
        """The clients whose numbers are spoken of."""
        words = (word for block in self.blocks for step in block.steps for word in step.words)
        return {word[1:].decode() for word in words if CLIENT_NUMBER.fullmatch(word)}

    def render(self) -> str:
        return "\n\n".join(block.render() for block in self.blocks) + "\n"


class Peer(Protocol):
    """A connection, seen from the client's end."""

    @property
    def closed(self) -> bool:
        """Whether the server has closed it."""

    def send_bytes(self, data: bytes) -> None: ...

    def take(self) -> bytes:
        """What has come since the last call."""


class Player(Protocol):
    """A machine with a server on it: real Redis, or kvref on either machine."""

    def connect(self, name: str) -> Any: ...        # a Peer

    def settle(self, words: list[bytes]) -> None:
        """Let the server work until it waits again. `words` is the command that was sent, if one was."""

    def advance(self, ms: int) -> None: ...


# --- reading a script ------------------------------------------------------------------------------------------------

def load(path: Path) -> Script:
    script = parse(path.read_text(), path.name)
    script.by_hand = True
    return script


def scripts() -> list[Path]:
    """All golden scripts, sorted."""
    return sorted(SCRIPTS.glob("*.txt"))


def parse(text: str, name: str = "script") -> Script:
    """Raises ScriptError."""
    script = Script(name, {}, [])
    for number, lines in _chunks(text):
        split = lines.index("---") if "---" in lines else None
        above = lines[:split]
        expected = None if split is None else "\n".join(lines[split + 1:])
        steps = list(_steps(above, script, number))
        script.blocks.append(Block(number, above, steps, expected))
    return script


def _chunks(text: str) -> Iterator[tuple[int, list[str]]]:
    """The blocks: the number of their first line, and their lines."""
    chunk: list[str] = []
    for number, line in enumerate([*text.split("\n"), ""], 1):
        if line.strip():
            chunk.append(line)
        elif chunk:
            yield number - len(chunk), chunk
            chunk = []


def _steps(lines: list[str], script: Script, number: int) -> Iterator[Step]:
    mark = ""
    for number, line in enumerate(lines, number):
        try:
            if line.startswith("#"):
                continue
            if line.startswith("@directives "):
                words = [word.decode() for word in split_args(line)[1:]]
                script.directives |= dict(zip(words[::2], words[1::2], strict=True))
            elif line in ("@any", "@unordered", "@unordered pairs"):
                mark = line.split()[-1].lstrip("@")
            else:
                yield replace(_step(line, mark), number=number)
                mark = ""
        except ValueError as error:
            raise ScriptError(f"{script.name}, line {number}: {error}") from None


def _step(line: str, mark: str) -> Step:
    named = NAMED.fullmatch(line)
    client, rest = (named[1], named[2]) if named else (DEFAULT, line)
    if rest.startswith("@raw "):
        return Step("raw", line, client, _raw(rest[5:]), mark=mark)
    if rest.startswith("@advance "):
        duration = DURATION.fullmatch(rest[9:].strip())
        if not duration:
            raise ValueError(f"a duration such as 1500ms or 2s is missing in {line!r}")
        return Step("advance", line, client, ms=int(duration[1]) * (1000 if duration[2] == "s" else 1))
    if rest.startswith("@"):
        raise ValueError(f"unknown mark {rest.split()[0]!r}")
    words = split_args(rest)
    return Step("command", line, client, request(*words), words, mark=mark)


def _raw(text: str) -> bytes:
    data, at = b"", 0
    while text[at:].strip():
        piece = PIECE.match(text, at)
        if not piece:
            raise ValueError(f"@raw wants \"...\" pieces, not {text[at:]!r}")
        data += split_args(piece[1])[0] * int(piece[2] or 1)
        at = piece.end()
    return data


def request(*words: bytes | str) -> bytes:
    """A command as clients send it."""
    args = [word.encode() if isinstance(word, str) else word for word in words]
    return b"*%d\r\n" % len(args) + b"".join(b"$%d\r\n%s\r\n" % (len(arg), arg) for arg in args)


# --- reading replies -------------------------------------------------------------------------------------------------

def replies(data: bytes) -> tuple[list[Any], bytes]:
    """The whole replies at the head of `data`, and the rest. A reader of its own, so that recordings of real
    Redis do not lean on the code that they test."""
    found, at = [], 0
    while True:
        try:
            value, at = _value(data, at)
        except IndexError:
            return found, data[at:]
        found.append(value)


def _line(data: bytes, at: int) -> tuple[bytes, int]:
    end = data.find(b"\r\n", at)
    if end < 0:
        raise IndexError
    return data[at:end], end + 2


def _value(data: bytes, at: int) -> tuple[Any, int]:
    """One value. IndexError: it is not whole yet."""
    head, at = _line(data, at)
    kind, text = head[:1], head[1:]
    if kind in SCALARS:
        return SCALARS[kind](text), at
    if text == b"-1":
        return None, at
    if kind in b"$=":
        end = at + int(text)
        if len(data) < end + 2:
            raise IndexError
        body = data[at:end]
        return Verbatim(body[4:]) if kind == b"=" else body, end + 2
    items = []
    for _ in range(int(text) * (2 if kind == b"%" else 1)):
        item, at = _value(data, at)
        items.append(item)
    return AGGREGATES[kind](items), at


SCALARS = {b"+": lambda text: text.decode("utf-8", "surrogateescape"),
           b"-": lambda text: Error(text.decode("utf-8", "surrogateescape")),
           b":": int, b"(": int, b"_": lambda _: None, b"#": lambda text: text == b"t",
           b",": lambda text: "(double) " + text.decode()}      # its digits as they were sent


def _members(items: list[Any]) -> Any:
    return Members.fromkeys(tuple(item) if isinstance(item, list) else item for item in items)


AGGREGATES = {b"*": list, b">": Push, b"~": _members, b"%": lambda items: dict(zip(items[::2], items[1::2]))}


# --- playing ---------------------------------------------------------------------------------------------------------

class _Voice:
    """A named client: its connection, and the bytes of a reply that is not whole yet."""

    def __init__(self, peer: Any) -> None:
        self.peer = peer
        self.rest = b""
        self.said_closed = False
        self.waits = False          # nothing has come since it spoke, except messages of channels
        self.id = b""

    def ask_id(self, player: Player) -> None:
        self.peer.send_bytes(request("CLIENT", "ID"))
        player.settle([])
        self.id = self.peer.take().strip(b":\r\n")

    def hear(self, mark: str = "", raw: bool = False) -> list[str]:
        """What has come, as lines to show."""
        self.rest += self.peer.take()
        if raw:
            shown, self.rest = ([quote(self.rest)] if self.rest else []), b""
        else:
            values, self.rest = replies(self.rest)
            shown = [line for value in values for line in _show(value, mark)]
            self.waits = self.waits and all(isinstance(value, Push) for value in values)
        if self.peer.closed and not self.said_closed:
            self.said_closed, self.waits = True, False
            shown.append("(closed)")
        return shown


def _show(value: Any, mark: str) -> list[str]:
    if mark == "any" and not isinstance(value, Error):
        return ["(any)"]
    if mark:
        value = _in_order(value, 2 if mark == "pairs" else 1)
    return [line.rstrip("\r") or "(blank line)" for line in format_reply(value).split("\n")]


def _in_order(value: Any, group: int = 1) -> Any:
    """The same, with lists, sets and maps sorted by what they look like."""
    if isinstance(value, Members):
        return Members.fromkeys(sorted(value, key=format_reply))
    if isinstance(value, dict):
        return dict(sorted(value.items(), key=format_reply))
    if not isinstance(value, list):
        return value
    items = [_in_order(item, group) for item in value]
    nested = [isinstance(item, (list, dict)) for item in items]
    if any(nested) and not all(nested):
        return items
    size = 1 if all(nested) else group
    rows = sorted((items[at:at + size] for at in range(0, len(items), size)), key=format_reply)
    return [item for row in rows for item in row]


def play(script: Script, player: Player) -> Iterator[tuple[Block, str]]:
    """Play the script; yields each block that has steps, with what the machine said."""
    voices: dict[str, _Voice] = {}
    for block in script.blocks:
        if block.steps:
            yield block, "\n".join(line for step in block.steps for line in _play_step(script, step, voices, player))


def _with_ids(step: Step, voices: dict[str, _Voice]) -> bytes:
    """What is sent, with numbers in place of `$bob`."""
    if not any(map(CLIENT_NUMBER.fullmatch, step.words)):
        return step.data
    return request(*[voices[word[1:].decode()].id if CLIENT_NUMBER.fullmatch(word) else word for word in step.words])


def _play_step(script: Script, step: Step, voices: dict[str, _Voice], player: Player) -> list[str]:
    if step.kind == "advance":
        player.advance(step.ms)
        player.settle([])
        shown = []
    else:
        voice = voices.get(step.client)
        if voice is None or voice.peer.closed:
            peer = player.connect(step.client)
            voice = voices.setdefault(step.client, _Voice(peer))
            voice.peer, voice.rest, voice.said_closed, voice.waits = peer, b"", False, False
            if step.client in script.numbered:
                voice.ask_id(player)
        careful = script.by_hand and step.kind == "command"
        if careful and voice.waits:
            raise ScriptError(f"{script.name}, line {step.number}: {step.client} still waits: {step.line}")
        voice.peer.send_bytes(_with_ids(step, voices))
        player.settle(step.words)
        shown = voice.hear(step.mark, raw=step.kind == "raw")
        voice.waits = not shown
        if careful and voice.waits and step.words[0].upper() not in WAITING:
            raise ScriptError(f"{script.name}, line {step.number}: nothing answers {step.line}")
        shown = shown or ["(no reply)"]
    speaker = "" if step.kind == "advance" else step.client
    for name, other in voices.items():
        if name != speaker:
            shown += [f"{name}> {line}" for line in other.hear()]
    return shown
