"""python -m tests.benchmarks: see the package's docstring."""

from __future__ import annotations

import argparse
import platform
import pstats
import sys
import tempfile

from . import __doc__ as about
from . import commands, idle, log, memory, publish, snapshots, sorted_sets, types
from .report import progress
from .servers import CannotRun, Kind, kvref, redis_version, running

PARTS = {"commands": commands.measure, "types": types.measure, "sorted_sets": sorted_sets.measure, "idle": idle.measure,
         "memory": memory.measure, "publish": publish.measure, "snapshots": snapshots.measure,
         "log": log.measure}


def main() -> int:
    options = arguments()
    try:
        if sys.platform != "linux":
            raise CannotRun("needs Linux: memory and processor time of a server are read from /proc and its clock.")
        python = f"{platform.python_implementation()} {platform.python_version()}"
        print(f"{python} beside redis-server {redis_version()}, in turns on one computer; ratios within a round.\n")
        for part in PARTS if options.part == "all" else [options.part]:
            result = profile(options) if part == "profile" else PARTS[part](options)
            progress()
            print(result, end="\n\n", flush=True)
    except (CannotRun, OSError) as reason:
        progress()
        print(f"tests.benchmarks: {reason}", file=sys.stderr)
        return 1
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.benchmarks", description=about,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", default="all", choices=[*PARTS, "all", "profile"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=100_000, help="of one test (in a pipeline 4 x as many)")
    parser.add_argument("--server", metavar="COMMAND", help='how kvref is started, for example "python -m kvref"')
    parser.add_argument("--test", nargs="+", default=["SET", "GET"], type=str.upper, help="also INCR PING MSET ...")
    parser.add_argument("--pipeline", nargs="+", default=[1, 16], type=int, help="depths, for example 1 16 64")
    parser.add_argument("--keys", type=int, default=0, help="so many random keys (default: one key)")
    parser.add_argument("--fsync-us", type=int, default=0, help="log: make each fsync so much dearer, with strace")
    return parser.parse_args()


def profile(options: argparse.Namespace) -> str:
    """kvref under cProfile, which makes every call dearer: read it for what is called how often, not for µs."""
    command = kvref(options.server).command
    place = command.index("-m")
    with tempfile.NamedTemporaryFile() as result:
        command[place:place] = ["-m", "cProfile", "-o", result.name]
        with running(Kind("kvref", command)) as server:
            for name in options.test:
                progress(f"profile: {name} P{max(options.pipeline)}")
                commands.drive(server, name, max(options.pipeline), options.requests, options.keys)
        if not result.read(1):
            raise CannotRun("the server left no profile: it must end by itself when SIGTERM asks it to.")
        pstats.Stats(result.name).strip_dirs().sort_stats("tottime").print_stats(25)
    return f"{options.test} at P{max(options.pipeline)}"


if __name__ == "__main__":
    sys.exit(main())
