"""python -m kvref.sim explore | mutants: the crash laboratory from the shell.

Interface:
  - main(words)     exit status: 0, 1 where a promise is broken or a mutant survives, 2 for words that make no sense
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from dataclasses import replace

from kvref.sim.crashes import PROFILES as POWER
from kvref.sim.explorer import PROFILES, STATES, explore, replay, retell
from kvref.sim.invariants import KILLS
from kvref.sim.mutants import MUTANTS
from kvref.sim.scenarios import SCENARIOS
from kvref.sim.score import score

BAR = 40                            # columns


def main(words: list[str] | None = None) -> int:
    """See the module."""
    given = _parser().parse_args(words)
    try:
        return int(given.run(given))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m kvref.sim", description=(
        "Pull the plug on a simulated server: at every operation, in every legal way, and see what is left."))
    verbs = parser.add_subparsers(required=True, metavar="explore | mutants")
    sweep = verbs.add_parser("explore", help="sweep the scenarios; exit status 1 where a promise is broken",
                             description=("Run each scenario once, crash it at every point in every state that its "
                                          "profile allows, start the server on what is left, and judge."))
    sweep.add_argument("--scenario", action="append", metavar="S", help="this one only; may be repeated; ? lists them")
    sweep.add_argument("--profile", action="append", metavar="P", choices=(*KILLS, *POWER),
                       help=f"this kind of crash only; may be repeated; of {', '.join((*KILLS, *POWER))}")
    sweep.add_argument("--states", type=_positive, default=STATES, metavar="N",
                       help=f"look at so many states of each point at most ({STATES}); where there are more, a sample")
    sweep.add_argument("--again", type=int, default=1, metavar="N",
                       help="so many second crashes for each kind of operation of each scenario (1)")
    sweep.add_argument("--repeat", type=_positive, default=1, metavar="N",
                       help="play each script N times in a row: more points, and more that is unsynced (1)")
    sweep.add_argument("--workers", type=_positive, default=2, metavar="N", help="processes (2)")
    sweep.add_argument("--seed", type=int, default=0, metavar="N", help="of the samples (0)")
    sweep.add_argument("--mutant", default="", metavar="M", help="the server has this bug; ? lists them")
    sweep.add_argument("--replay", metavar="ID", help="tell this one crash in full")
    sweep.add_argument("--json", action="store_true", help="for programs")
    sweep.set_defaults(run=_explore)
    bugs = verbs.add_parser("mutants", help="does the explorer find every seeded bug? Exit status 1 where one survives")
    bugs.add_argument("--workers", type=_positive, default=2, metavar="N", help="processes (2)")
    bugs.add_argument("--json", action="store_true", help="for programs")
    bugs.set_defaults(run=_mutants)
    return parser


def _positive(word: str) -> int:
    number = int(word)
    if number < 1:
        raise argparse.ArgumentTypeError("a number from 1 on")
    return number


def _progress(done: int, total: int) -> None:
    """A bar, where somebody sits and waits."""
    if sys.stderr.isatty():
        filled = BAR * done // total
        print(f"\r[{'#' * filled}{'.' * (BAR - filled)}] {done} of {total}", end="\n" if done == total else "",
              file=sys.stderr, flush=True)


def _explore(given: argparse.Namespace) -> int:
    if given.replay:
        print(replay(given.replay))
        return 0
    if "?" in (given.scenario or []):
        print("\n\n".join(map(str, SCENARIOS.values())))
        return 0
    if given.mutant == "?":
        print("\n".join(map(str, MUTANTS.values())))
        return 0
    if given.mutant and given.mutant not in MUTANTS:
        raise ValueError(f"no mutant is called {given.mutant!r}; --mutant ? lists them")
    unknown = [name for name in given.scenario or [] if name not in SCENARIOS]
    if unknown:
        raise ValueError(f"no scenario is called {unknown[0]!r}; --scenario ? lists them")
    chosen = [replace(SCENARIOS[name].repeated(given.repeat), mutant=given.mutant)
              for name in given.scenario or SCENARIOS]
    begun = time.perf_counter()
    report = explore(chosen, profiles=given.profile or PROFILES, states=given.states, again=given.again,
                     workers=given.workers, seed=given.seed, shorten=True, progress=_progress)
    if given.json:
        print(json.dumps(report.to_json(), indent=1))
    else:
        print(report)
        print(f"{time.perf_counter() - begun:.0f} s")
        for violation in report.violations[:1]:
            print("\nUnder the first of each kind stands the shortest script that breaks it. The first one in full:\n")
            print(retell(violation.scenario, violation.crashes))
    return int(bool(report.violations))


def _mutants(given: argparse.Namespace) -> int:
    begun = time.perf_counter()
    rows = score(workers=given.workers, progress=_progress)
    killed = sum(1 for row in rows if row.killed)
    took_s = time.perf_counter() - begun
    if given.json:
        print(json.dumps({"mutants": len(rows), "killed": killed, "rows": [row._asdict() for row in rows]}, indent=1))
        return int(killed < len(rows))
    print(*rows, sep="\n")
    print(f"\n{killed} of {len(rows)} mutants killed: {100 * killed / len(rows):.0f} %, in {took_s:.0f} s")
    return int(killed < len(rows))


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)       # nobody wants to read: end as other tools do
    sys.exit(main())
