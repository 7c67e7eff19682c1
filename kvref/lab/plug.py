"""The plug of a real process: a server that writes are sent to, kill -9 at a random moment, a restart, and a count.

    pulled = pull("kvref", MODES["save 1 1"], seconds=3, seed=1)
    pulled.lost, pulled.oldest_lost_s       # writes whose OK had come, and that are gone; since when, of the oldest
    print(trials("AOF everysec", 8))        # the same again and again, for every server that is installed

Interface:
  - pull(program, directives, seconds, seed)    one trial: its Pulled
  - trials(modes, n)                            a table: median and worst of n trials
  - MODES                                       those of kvref.sim.loss: the same modes, simulated and real
  - installed()                                 the programs that can be tried: "kvref", "redis-server"
  - living(program, directives, output)         a server that is ready, and a connection, as long as a block

A client writes `SET k:<n> <n>`, n = 0, 1, 2 ..., and notes when each OK came. *Lost* is a write with an OK that the
restarted server does not have. SIGKILL goes to the server and its children at one instant, as in the simulated world.
The moment is drawn from the seed; where the server stood at that moment is not, and so no two trials are equal.

This is a process crash. A power loss needs a disk that loses what was not synced: `kvref.sim` has one.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from threading import Timer
from typing import Any, Final

from kvref.config import as_words
from kvref.lab.table import Table
from kvref.process import START_S, RunningServer
from kvref.resp import NEED_DATA, ReplyParser, encode
from kvref.sim.loss import MODES
from kvref.sim.scenarios import OFF

AT_ONCE: Final = 1000               # keys of one MGET
PORTS: Final = 5                    # that are tried for one redis-server
SAVED = re.compile(r":M (\d+ \w{3} \d{4} [\d:.]{12}) \* Background saving (started|terminated with success)")


@dataclass(frozen=True)
class Pulled:
    """What was there before the plug was pulled, and after. All ages are seconds before that moment."""

    program: str
    directives: Mapping[str, Any]
    seed: int
    seconds: float                  # from the first write to SIGKILL
    acknowledged: int               # writes whose OK had come
    recovered: int                  # writes that the restarted server has
    lost: int                       # acknowledged and not recovered
    oldest_lost_s: float            # age of the OK of the oldest that is lost; 0: none is
    is_prefix: bool                 # what is recovered are the first writes, none left out, each with its value
    ages: list[float] = field(repr=False)       # of every OK, the oldest first
    forks: list[float] = field(repr=False)      # of every snapshot that was begun
    since_fork: float | None = None             # of the last one that the server had reported done

    def __repr__(self) -> str:
        share = f"{self.lost / self.acknowledged:.1%}" if self.acknowledged else "nothing to lose"
        return (f"<Pulled {self.program}, kill -9 after {self.seconds:.2f} s: {self.acknowledged:,} acknowledged, "
                f"{self.recovered:,} recovered, {self.lost:,} lost ({share}), the oldest of {self.oldest_lost_s:.2f} s"
                f"{'' if self.is_prefix else ', WITH GAPS'}>")


class RealRedis(RunningServer):
    """A redis-server with the face of a RunningServer. Its port is looked for, as it cannot be handed down."""

    def __init__(self, directives: dict[str, Any], output: Path) -> None:
        self.dir, self.host, self._output = str(directives["dir"]), "127.0.0.1", output
        self._life = socket.socket()                        # nobody watches it
        with socket.create_server((self.host, 0)) as free:
            self.port = free.getsockname()[1]
        pairs = {"port": self.port, "bind": self.host, **directives}.items()
        with output.open("wb") as file:
            self._process = subprocess.Popen(["redis-server", *(word for pair in pairs for word in as_words(pair))],
                                             stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True)
        self.pid = self._process.pid


PROGRAMS: Final[dict[str, type[RunningServer]]] = {"kvref": RunningServer, "redis-server": RealRedis}


def installed() -> list[str]:
    """The programs that can be tried on this computer."""
    return [name for name in PROGRAMS if name == "kvref" or shutil.which(name)]


# ---- one trial -----------------------------------------------------------------------------------

class Writer:
    """A client that writes until its server is gone, and notes when each OK came."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.parser, self.sent = sock, ReplyParser(), 0
        self.times: list[float] = []        # time.monotonic() of each OK

    def reply(self) -> Any:
        """The next reply. ConnectionError where none will come."""
        while (reply := self.parser.next()) is NEED_DATA:
            data = self.sock.recv(1 << 16)
            if not data:
                raise ConnectionError("the server is gone")
            self.parser.receive(data)
        return reply

    def write(self, pipeline: int, pause_s: float) -> None:
        """`pipeline` requests in one piece, their replies, a pause, and so on. Returns when the server is gone."""
        with suppress(ConnectionError):
            while True:
                first, self.sent = self.sent, self.sent + pipeline
                self.sock.sendall(b"".join(encode([b"SET", b"k:%d" % n, b"%d" % n]) for n in range(first, self.sent)))
                while len(self.times) < self.sent:
                    if (reply := self.reply()) != "OK":
                        raise RuntimeError(f"a write was answered with {reply!r}")
                    self.times.append(time.monotonic())
                time.sleep(pause_s)

    def found(self, sent: int) -> list[bool]:
        """Which of the first so many writes the server has."""
        values: list[Any] = []
        while len(values) < sent:
            keys = [b"k:%d" % n for n in range(len(values), min(sent, len(values) + AT_ONCE))]
            self.sock.sendall(encode([b"MGET", *keys]))
            values += self.reply()
        return [value == b"%d" % n for n, value in enumerate(values)]


def pull(program: str = "kvref", directives: Mapping[str, Any] = OFF, seconds: float = 1.0, seed: int = 0, *,
         pipeline: int = 1, pause_s: float = 0.0) -> Pulled:
    """One trial, in a fresh directory: kill -9 within `seconds`. RuntimeError where a server does not start.

    `pipeline`: writes sent in one piece; `pause_s`: between a reply and the next request.
    """
    moment, end = random.Random(seed).uniform(0.1, 1) * seconds, list[float]()
    with tempfile.TemporaryDirectory(prefix="kvref-plug-", ignore_cleanup_errors=True) as folder:
        words = {**directives, "dir": folder}
        with living(program, words, f"{folder}/first") as (server, sock):
            writer, begun = Writer(sock), time.monotonic()
            timer = Timer(moment, lambda: end.append(_kill(server)))
            timer.start()
            try:
                writer.write(pipeline, pause_s)
            finally:
                timer.cancel()
                timer.join()
            if not end:
                raise RuntimeError(f"{program} ended by itself: {server.log.strip()}")
            forks, since = _snapshots(server.log, time.time() - time.monotonic() + end[0])
        with living(program, words, f"{folder}/second") as (_, sock):
            found = Writer(sock).found(writer.sent)
    ages = [max(0.0, end[0] - when) for when in writer.times]
    lost = [age for age, is_there in zip(ages, found) if not is_there]
    return Pulled(program, directives, seed, end[0] - begun, len(ages), sum(found), len(lost), max(lost, default=0.0),
                  found == sorted(found, reverse=True), ages, forks, since)


@contextmanager
def living(program: str, directives: Mapping[str, Any], output: str) -> Iterator[tuple[RunningServer, socket.socket]]:
    """A server that has loaded what there is, and a connection; at the end, the end of all its processes."""
    for attempt in range(PORTS):
        server = PROGRAMS[program](dict(directives), Path(output))
        try:
            until = time.monotonic() + START_S
            while "Ready to accept connections" not in server.log:
                if server._process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"{program} did not start: {server.log.strip() or 'it said nothing'}")
                time.sleep(0.005)
            with socket.create_connection((server.host, server.port), START_S) as sock:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                yield server, sock
            return
        except RuntimeError as error:
            if attempt == PORTS - 1 or "Address already in use" not in str(error):      # another was quicker
                raise
        finally:
            _kill(server)
            server.stop()


def _kill(server: RunningServer) -> float:
    """SIGKILL to the server and its children, which are a group of their own; when that was, time.monotonic().

    Not after the server was waited for: then its number may be another's.
    """
    now = time.monotonic()
    if server._process.returncode is None:
        os.killpg(server.pid, signal.SIGKILL)
    return now


def _snapshots(log: str, end: float) -> tuple[list[float], float | None]:
    """The ages of all forks for a snapshot at `end` (time.time()), and that of the last one reported done."""
    ages, last = list[float](), None
    for when, what in SAVED.findall(log):
        if what == "started":
            ages.append(max(0.0, end - datetime.strptime(when, "%d %b %Y %H:%M:%S.%f").timestamp()))
        else:
            last = ages[-1]
    return ages, last


# ---- many trials ---------------------------------------------------------------------------------

def trials(modes: str | Iterable[str] = tuple(MODES), n: int = 8, *, programs: Iterable[str] | None = None,
           seconds: float | None = None, pipelines: tuple[int, ...] = (1, 16)) -> Table:
    """n trials of each mode and each installed program, with `pipelines` in turn: share lost and age of the oldest loss
    (medians), the worst age, and whether the first writes were left each time. A terminal shows how far it is.

    `seconds`: how long a trial may take; None: 3 where there are save points, 0.5 elsewhere.
    """
    todo = [(mode, program) for mode in ([modes] if isinstance(modes, str) else modes)
            for program in (programs or installed())]
    rows: list[tuple[object, ...]] = []
    for mode, program in todo:
        limit, found = seconds or (3.0 if MODES[mode]["save"] else 0.5), list[Pulled]()
        for seed in range(n):
            found.append(pull(program, MODES[mode], limit, seed, pipeline=pipelines[seed % len(pipelines)]))
            sys.stderr.write(f"\r\x1b[K{len(rows) * n + seed + 1} of {len(todo) * n} trials" * sys.stderr.isatty())
        share = statistics.median(100 * each.lost / max(1, each.acknowledged) for each in found)
        ages = [each.oldest_lost_s for each in found]
        rows.append((mode, program, n, sum(each.acknowledged for each in found), round(share, 1),
                     round(statistics.median(ages), 2), round(max(ages), 2), all(each.is_prefix for each in found)))
    sys.stderr.write("\n" * sys.stderr.isatty())
    return Table(("mode", "program", "trials", "acknowledged", "% lost", "oldest (s)", "worst (s)", "prefix"), rows)
