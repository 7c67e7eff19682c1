"""What real processes lose after kill -9 is what the simulator finds, and strace shows what its disk recorded.

Both worlds are asked the same: of a crash, since when the oldest lost write had its OK, and what that moment was. The
simulated answers of a mode, at every point of a run, on a quick and on a slow disk, are the set in which each real one
must lie. redis-server is asked, too.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import kvref
from kvref.lab.plug import MODES, Pulled, installed, pull, trials
from kvref.sim.disk import Fault, Operation
from kvref.sim.invariants import BROKEN, Ledger, judge
from kvref.sim.processes import Child, Processes
from kvref.sim.recording import Outcome, Recording, Telling, recover
from kvref.sim.scenarios import Scenario, Step, every
from tests import golden, record

TRIALS = {"no persistence": 2, "save 1 1": 4, "AOF no": 3, "AOF everysec": 4, "AOF always": 3}
PAUSES = ((1, 0.01), (16, 0.0))             # writes in one piece, seconds between two of them
EVERY_MS = 40
UNTIL_MS = 5200                             # two snapshots and a half
SLOW = Fault("fsync", delay_us=300_000, times=0)

# What the oldest lost write came first after.
NOTHING, START, REPORTED, RUNNING, POSTPONED = (
    "nothing is lost", "the start", "the fork of the last snapshot that was reported done",
    "the fork of one that has its name and was not reported", "the last write of the log")


def cause(lost: int, recovered: int, age: float, since_fork: float | None, forks: list[float], room: float) -> str:
    """Why this is lost. Ages are seconds before the crash; `room`: how far behind a fork the next OK may come."""
    if not lost:
        return NOTHING
    if not recovered and since_fork is None:
        return START
    if since_fork is not None and -0.002 <= since_fork - age <= room:
        return REPORTED
    if forks and -0.002 <= forks[-1] - age <= room:
        return RUNNING
    return POSTPONED


# ---- the simulated set ---------------------------------------------------------------------------

@cache
def simulated(mode: str) -> dict[str, list[float]]:
    """All losses that are possible: cause -> ages of the oldest lost write."""
    found = defaultdict(list)
    script = every(EVERY_MS, "ann", "SET k:{n} {n}", until_ms=UNTIL_MS)
    quick = Scenario("writer", MODES[mode], script)
    for scenario in (quick, replace(quick, faults=(SLOW,), child_step_us=100_000)):
        for why, age in losses(Recording(scenario)):
            found[why].append(age)
    return dict(found)


def losses(recording: Recording) -> list[tuple[str, float]]:
    """kill -9 at every point of a recording: (cause, age of the oldest loss)."""
    ledger, disk, at, outcomes = Ledger(recording), recording.initial.copy(), 0, dict[object, Outcome]()
    told_us: dict[int, int] = {}
    for telling in recording.tellings:
        for unit in range(len(told_us) + 1, telling.units + 1):
            told_us[unit] = telling.time_us
    begun_us = [(what, round(float(when) * 1e6)) for when, what in re.findall(
        r"([\d.]+) s  \* Background saving (started|terminated)", "\n".join(recording.log))]
    found = []
    for point in recording.points:
        if point.seq < recording.ready_seq:
            continue
        for operation in recording.operations[at:point.at]:
            disk.apply(operation)
        at = point.at
        image, directives = disk.image(), recording.directives_at(point.seq)
        if image not in outcomes:
            outcomes[image] = recover(disk.copy(), directives, recording.end_wall_us)
        verdict = judge(ledger, point, "process", "cut", outcomes[image])
        assert verdict.kind != BROKEN, verdict
        lost = [unit for unit in recording.acknowledged(point) if unit > verdict.unit]
        past = [(what, when) for what, when in begun_us if when <= point.time_us]
        forks = [(point.time_us - when) / 1e6 for what, when in past if what == "started"]
        done = sum(what == "terminated" for what, _ in past)
        age = (point.time_us - told_us[lost[0]]) / 1e6 if lost else 0.0
        room = EVERY_MS / 1000 + 0.001
        found.append((cause(len(lost), verdict.unit, age, forks[done - 1] if done else None, forks, room), age))
    return found


# ---- the real ones -------------------------------------------------------------------------------

def real(program: str, mode: str) -> list[Pulled]:
    limit = 3.2 if MODES[mode]["save"] else 0.6

    def trial(seed: int) -> Pulled:
        pipeline, pause_s = PAUSES[seed % len(PAUSES)]
        return pull(program, MODES[mode], limit, seed, pipeline=pipeline, pause_s=pause_s)
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(trial, range(TRIALS[mode])))


def gap(pulled: Pulled) -> float:
    """The longest that this writer ever waited from one OK to the next: so exact are its times."""
    return max((before - after for before, after in zip(pulled.ages, pulled.ages[1:])), default=0.0)


@pytest.mark.parametrize("program", ["kvref", "redis-server"])
@pytest.mark.parametrize("mode", TRIALS)
def test_a_real_kill_loses_what_the_simulator_says_that_it_may(mode: str, program: str) -> None:
    if program not in installed():
        pytest.skip(f"{program} is not installed")
    allowed = simulated(mode)
    for pulled in real(program, mode):
        room = 2 * gap(pulled) + 0.02
        why = cause(pulled.lost, pulled.recovered, pulled.oldest_lost_s, pulled.since_fork, pulled.forks, room)
        assert pulled.is_prefix and why in allowed, (pulled, why)
        assert min(allowed[why]) - room <= pulled.oldest_lost_s <= max(allowed[why]) + room, (pulled, why)


def test_the_simulated_sets_differ_as_the_modes_do() -> None:
    """A set that holds everything would prove nothing."""
    assert set(simulated("no persistence")) == {START}
    assert set(simulated("save 1 1")) == {NOTHING, START, REPORTED, RUNNING}
    assert set(simulated("AOF no")) == set(simulated("AOF always")) == {NOTHING}
    assert set(simulated("AOF everysec")) == {NOTHING, POSTPONED} and max(simulated("AOF everysec")[POSTPONED]) < 0.5
    assert 2 < max(simulated("save 1 1")[REPORTED]) < 3.2


@pytest.mark.parametrize("program", ["kvref", *filter(record.installed, ["redis-server"])])
def test_a_server_that_does_not_start_is_told_in_its_own_words(program: str) -> None:
    with pytest.raises(RuntimeError, match=f"(?s){program} did not start: .*wrong number of arguments"):
        pull(program, {"nonsense": "1"})


def test_many_trials_make_a_table() -> None:
    table = trials("AOF no", 2, programs=["kvref"], seconds=0.1)
    (mode, program, n, acknowledged, lost, median, worst, is_prefix), = table.rows
    assert (mode, program, n, lost, median, worst, is_prefix) == ("AOF no", "kvref", 2, 0, 0, 0, True)
    assert "acknowledged" in repr(table) and isinstance(acknowledged, int)


# ---- the order of operations ---------------------------------------------------------------------
# strace of a real server beside the recording of a simulated one. Parent, child and fsync thread run side by side. So
# each keeps its own order, and what another than the parent did stands before the parent's first operation behind it;
# only replies may come sooner or later than what a child does meanwhile.

STRACE = ["strace", "-f", "-yy", "-xx", "-s", "1000000", "-e",
          "trace=/^(openat|write|fsync|fdatasync|rename(at2?)?|unlink(at)?|mkdir(at)?|ftruncate)$"]
CALL = re.compile(r"(\w+)\((.*)\) += (\d+)(?:<.*>)?$")
TEXT = re.compile(r'["<]((?:\\x[0-9a-f]{2})+)[">]')
SOCKET = re.compile(r"<TCP:\[127\.0\.0\.1:\d+->127\.0\.0\.1:(\d+)\]>")

OFF, ALWAYS, EVERYSEC = MODES["no persistence"], MODES["AOF always"], MODES["AOF everysec"]
COMMANDS = {
    "always: the first log, and writes": (ALWAYS, ["SET k v", "APPEND k w", "GET k", "DEL k"]),
    "everysec: a write": (EVERYSEC, ["SET k v"]),
    "BGSAVE and SAVE": (OFF, ["SET k v", "BGSAVE", "SET k w", "BGSAVE", "SAVE"]),
    "BGREWRITEAOF": (ALWAYS, ["SET k v", "BGREWRITEAOF", "SET k w", "BGREWRITEAOF", "SET k x"]),
    "switched on": ({**ALWAYS, "appendonly": "no"}, ["SET k v", "CONFIG SET appendonly yes", "SET k w"]),
    "switched off": (ALWAYS, ["SET k v", "CONFIG SET appendonly no", "SET k w"]),
    "SHUTDOWN": ({**ALWAYS, "save": "100 1"}, ["SET k v", "SHUTDOWN"]),
}


class Done(NamedTuple):
    """What somebody did: `who` is "parent", or one of the others."""

    who: object
    what: str
    name: str = ""
    data: bytes = b""

    def __str__(self) -> str:
        return f"{self.what} {self.name}" + f" {len(self.data)} bytes" * bool(self.data)


def normal(events: list[Done]) -> list[str]:
    """One list: numbers of processes and the pieces of writes are gone, and each block of another has its place."""
    joined = list[Done]()
    for event in events:
        event = event._replace(name=re.sub(r"-\d+\.", "-PID.", event.name))
        place = next((place for place in range(len(joined))[::-1] if joined[place].who == event.who), None)
        if place is not None and event.what == "write" and joined[place][:3] == event[:3]:
            joined[place] = joined[place]._replace(data=joined[place].data + event.data)
        else:
            joined.append(event)
    is_dump = re.compile(r"temp-(PID|rewriteaof)")          # the bytes tell the time and the memory
    joined = [event._replace(data=b"") if is_dump.search(event.name) else event for event in joined]
    for who in dict.fromkeys(event.who for event in joined if event.who != "parent"):
        places = [place for place, event in enumerate(joined) if event.who == who]
        block = [joined[place] for place in places]
        rest = [event for event in joined if event.who != who]
        behind = places[-1] - len(block) + 1                # in `rest`
        while behind < len(rest) and rest[behind].what == "reply":
            behind += 1
        assert not [event for event in rest[places[0]:places[-1] - len(block) + 1] if event.what != "reply"], joined
        joined = rest[:behind] + block + rest[behind:]
    return [f"{'' if event.who == 'parent' else 'other: '}{event} {event.data!r}" for event in joined]


def traced(trace: str, folder: str, port: int) -> list[Done]:
    """The lines of strace that concern files in `folder` and the client with this port."""
    found, begun, there = list[Done](), dict[str, str](), {folder}
    parent = trace.split(None, 1)[0]
    for line in trace.splitlines():
        pid, text = line.split(None, 1)
        if text.endswith("<unfinished ...>"):
            begun[pid] = text.removesuffix("<unfinished ...>")
            continue
        text = re.sub(r"^<\.\.\. \w+ resumed>", lambda _: begun.pop(pid), text)
        call = CALL.fullmatch(text)
        if not call:
            continue                                        # a signal, an end, an error
        what, args = call[1].removesuffix("at2").removesuffix("at"), re.sub(r"AT_FDCWD<[^>]*>, ", "", call[2])
        texts = [bytes.fromhex(each.replace("\\x", "")) for each in TEXT.findall(args)]
        names = [each.decode(errors="replace") for each in texts if each.startswith(folder.encode())]
        sock = SOCKET.search(args)
        who = "parent" if pid == parent else pid
        if what == "write" and sock and int(sock[1]) == port:
            found.append(Done(who, "reply"))
        if not names or what == "open" and "O_CREAT" not in args:
            continue
        short = [name.removeprefix(folder) or "/" for name in names]
        if what == "open":
            found += [Done(who, "create", short[0])] if names[0] not in there else []
            there.add(names[0])
        elif what == "write":
            found.append(Done(who, "write", short[0], texts[-1]))
        elif what in ("fsync", "fdatasync"):
            found.append(Done(who, "fsync_dir" if os.path.isdir(names[0]) else "fsync", short[0]))
        else:
            found.append(Done(who, what.removeprefix("f"), " to ".join(short)))
            there.discard(names[0])
            there.update(names[1:])
    return found


def ask(peer: record.SocketPeer, command: str) -> str:
    """The reply, "" where the connection has ended before it."""
    peer.send_bytes(command.encode() + b"\r\n")
    while not peer.closed:
        peer.drain(10)
        found, _ = golden.replies(peer.buffer)
        if found:
            peer.take()
            return str(found[0])
    return ""


def strace(directives: Mapping[str, str], commands: list[str], folder: Path) -> list[Done]:
    """Run a kvref under strace, send it these commands one after the other, and kill it when its children are gone."""
    (folder / "data").mkdir()
    port = record.free_port()
    words = [word for name, value in directives.items() for word in ("--" + name, value)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*STRACE, "-o", f"{folder}/trace", sys.executable, "-P", "-m", "kvref",
                                    "--port", str(port), "--dir", f"{folder}/data", *words],
                                   stdout=log, stderr=log, start_new_session=True,
                                   env={**os.environ, "PYTHONPATH": str(Path(kvref.__file__).parent.parent)})
    try:
        while "Ready to accept" not in (folder / "log").read_text():
            assert process.poll() is None, (folder / "log").read_text()
        ann, bob = record.SocketPeer(port), record.SocketPeer(port)
        own = ann.sock.getsockname()[1]
        pid = int(re.search(r"process_id:(\d+)", ask(bob, "INFO server"))[1])        # type: ignore[index]
        for command in commands:
            ask(ann, command)
            while not ann.closed and re.search(r"in_progress:1|pending_bio_fsync:1", ask(bob, "INFO persistence")):
                pass
        if not ann.closed:
            os.kill(pid, signal.SIGKILL)
        process.wait(10)
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return traced((folder / "trace").read_text(), f"{folder}/data", own)


def recorded(directives: Mapping[str, str], commands: list[str], patch: pytest.MonkeyPatch) -> list[Done]:
    """The same in the simulated world, one command a second, on a computer that has been on for a while."""
    others: dict[int, object] = {}

    def note(method: Any, disk_of: Any) -> Any:
        def noted(self: Any, *args: Any) -> Any:
            done = disk_of(self, *args).operations
            before = len(done)
            try:
                return method(self, *args)
            finally:
                others.update((operation.seq, id(self)) for operation in done[before:])
        return noted
    patch.setattr(Child, "step", note(Child.step, lambda child, disk: disk))
    patch.setattr(Processes, "_sync", note(Processes._sync, lambda processes, *_: processes._disk))
    script = tuple(Step(1000 * number, "ann", command) for number, command in enumerate(commands, 2))
    recording = Recording(Scenario("traced", directives, script))
    found = []
    events: list[Operation | Telling] = [*recording.operations, *recording.tellings]
    for event in sorted(events, key=lambda event: event.seq):
        if isinstance(event, Telling):
            found.append(Done("parent", "reply"))
            continue
        names = [name.removeprefix("/data") or "/" for name in (event.path, event.to) if name]
        found.append(Done(others.get(event.seq, "parent"), event.kind, " to ".join(names), event.data))
    return found


def may_trace() -> bool:
    return bool(shutil.which("strace")) and not subprocess.run(["strace", "-f", "true"], capture_output=True).returncode


@pytest.mark.parametrize("case", COMMANDS)
def test_system_calls_come_in_the_order_of_the_simulated_disk(case: str, tmp_path: Path,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    if not may_trace():
        pytest.skip("strace is not installed, or not permitted")
    seen, simulated = normal(strace(*COMMANDS[case], tmp_path)), normal(recorded(*COMMANDS[case], monkeypatch))
    assert seen == simulated
