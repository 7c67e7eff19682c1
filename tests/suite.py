"""Redis's own test suite, run against kvref.

    python -m tests.suite FOLDER [UNIT ...]     FOLDER: the source of Redis 7.0.15, unpacked; needs tclsh and Redis's tools

It takes some minutes, and its source has to be fetched, so it is no part of the other tests. Which units are run, and
which of their tests are passed over, each with its reason, stands in `suite.txt`:

    unit/type/hash
        the name of a test | the reason
        another one | ! the reason      this one is run, since the tests behind it need what it leaves, and fails

Prints a line for each unit, and what has failed. Exit status 1 if something has failed that is not named there.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
VERSION = '"7.0.15"'
TOOLS = ("redis-cli", "redis-benchmark", "redis-check-rdb", "redis-check-aof")
TCL = ("tclsh", "tclsh8.7", "tclsh8.6", "tclsh8.5")
# The suite tells every server to listen on a Unix socket, too, and waits for a line of the log that kvref has not: it
# is added when kvref listens, as in Redis.
SERVER = """#!{python}
import os, pathlib, sys
sys.path.insert(0, {root!r})
from kvref import __main__ as kvref
for conf in filter(pathlib.Path.is_file, map(pathlib.Path, sys.argv[1:2])):
    conf.write_text("".join(line for line in conf.open() if not line.startswith("unixsocket ")))
say = kvref.Log.__call__
def heard(log, level, line):
    say(log, level, line)
    if line.startswith("Running mode="):
        os.write(1, b" PID: %d\\n" % os.getpid())
kvref.Log.__call__ = heard
sys.exit(kvref.main(sys.argv[1:]))
"""
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
OUTCOME = re.compile(r"^\[(ok|err|skip|ignore|exception|TIMEOUT)\]:? (.*?)(?: \(\d+ ms\)| in tests/\S+)?$", re.M)


class Outcome(NamedTuple):
    """What the tests of one unit came to."""

    passed: int
    skipped: int
    failed: list[str]


def known() -> dict[str, dict[str, str]]:
    """unit -> the name of a test that is passed over -> why."""
    units: dict[str, dict[str, str]] = {}
    for line in (ROOT / "tests" / "suite.txt").read_text().splitlines():
        if line.startswith(" "):
            name, _, reason = line.strip().rpartition(" | ")
            tests[name] = reason
        elif line and not line.startswith("#"):
            tests = units[line] = {}
    return units


def prepare(source: Path, folder: Path) -> None:
    """A copy of the suite, whose redis-server is kvref."""
    shutil.copytree(source / "tests", folder / "tests", ignore=shutil.ignore_patterns("tmp"))
    (folder / "tests" / "tmp").mkdir()
    (folder / "src").mkdir()
    for tool in TOOLS:
        (folder / "src" / tool).symlink_to(shutil.which(tool) or sys.exit(f"{tool} is not installed"))
    server = folder / "src" / "redis-server"
    server.write_text(SERVER.format(root=str(ROOT), python=sys.executable))
    server.chmod(0o755)


def run(folder: Path, unit: str, reasons: dict[str, str], port: int) -> Outcome:
    """Run one unit, with servers that listen on `port` and those behind it."""
    skips = folder / "skips"
    skips.write_text("".join(f"{name}\n" for name, reason in reasons.items() if reason[0] != "!"))
    tcl = next((path for name in TCL if (path := shutil.which(name))), None) or sys.exit("tclsh is not installed")
    done = subprocess.run([tcl, "tests/test_helper.tcl", "--clients", "1", "--durable", "--timeout", "600",
                           "--baseport", str(port), "--single", unit, "--skipfile", str(skips)],
                          cwd=folder, capture_output=True, stdin=subprocess.DEVNULL, check=False)
    said = COLOURS.sub("", done.stdout.decode(errors="replace")).partition("\n                   The End")[0]
    found = OUTCOME.findall(said)
    failed = [name for how, name in found if how in ("err", "exception", "TIMEOUT")]
    if done.returncode and not failed:
        failed = [said.strip().rpartition("\n")[2]]
    passed, skipped = (sum(how == which for how, _ in found) for which in ("ok", "skip"))
    return Outcome(passed, skipped, [name for name in failed if name not in reasons])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.suite", description="Redis's own test suite, run against kvref.")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the source of Redis 7.0.15, unpacked")
    parser.add_argument("units", nargs="*", metavar="UNIT", help="such as unit/type/list; default: all of suite.txt")
    parser.add_argument("--port", type=int, default=21111, help="the first of some that are free; default: 21111")
    options = parser.parse_intermixed_args()
    version = options.folder / "src" / "version.h"
    if not version.is_file() or VERSION not in version.read_text():
        parser.error(f"{options.folder} is not the source of Redis {VERSION}")
    total = Outcome(0, 0, [])
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        prepare(options.folder, Path(name))
        for unit in options.units or known():
            outcome = run(Path(name), unit, known().get(unit, {}), options.port)
            print(f"{unit:45} {outcome.passed:4} passed, {outcome.skipped:3} passed over, {len(outcome.failed):3} failed", flush=True)
            for failed in outcome.failed:
                print(f"    {failed}")
            total = Outcome(*(one + other for one, other in zip(total, outcome)))
    print(f"{total.passed} passed, {total.skipped} passed over, {len(total.failed)} failed")
    return bool(total.failed)


if __name__ == "__main__":
    sys.exit(main())
