"""The mutation score: does the explorer find every bug that it should?

    for row in score():
        print(row)

A sweep of a million states that finds nothing may be blind. So it is shown servers with one bug each: what it does not
find there, it would not find here. The score is the share of mutants that it kills, and that share has to be all.

Interface:
  - score(...)      run each mutant on its own scenario, from the weakest kind of crash to the strongest, to its first
                    violation: list[Score]
  - Score           how far one of them came

Invariant: the same rows in every process and on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import replace
from typing import NamedTuple

from kvref.sim.explorer import Violation, explore
from kvref.sim.mutants import MUTANTS, ORDER
from kvref.sim.scenarios import SCENARIOS


class Score(NamedTuple):
    """One mutant, and the violation that gave it away."""

    name: str
    invariant: str              # the one that it was found to break; "": it survives
    profile: str                # of the crash, or of the last one where it takes two
    id: str                     # of the violation: `explorer.replay` tells it in full

    @property
    def killed(self) -> bool:
        return bool(self.invariant)

    @property
    def as_named(self) -> bool:
        """Whether it was found as the mutant says."""
        return (self.invariant, self.profile) == (MUTANTS[self.name].breaks, MUTANTS[self.name].weakest)

    def __str__(self) -> str:
        how = f"breaks {self.invariant:4} {self.profile:8} {self.id}" if self.killed else "SURVIVES"
        return f"{self.name:28} {how}"


def score(names: Iterable[str] | None = None, *, workers: int = 2, executor: Executor | None = None,
          progress: Callable[[int, int], object] | None = None) -> list[Score]:
    """All mutants, or these, in their order.

    `workers`, `executor`: as for `explore`; the executor's workers have to be processes, for a bug is there for all
    threads of one. `progress` is told (done, of so many) mutants. A second crash is tried last.
    """
    chosen = list(MUTANTS if names is None else names)
    found: dict[str, Score] = {}
    for profile, again in [*((profile, 0) for profile in ORDER), ("process", 1)]:
        left = [MUTANTS[name] for name in chosen if name not in found and MUTANTS[name].again >= again]
        scenarios = [replace(SCENARIOS[bug.scenario], mutant=bug.name) for bug in left]
        seconds = max((bug.again for bug in left), default=0) * again
        report = explore(scenarios, profiles=(profile,), again=seconds, workers=workers, executor=executor,
                         stop_at_first=True)
        for violation in sorted(report.violations, key=_strength):
            found.setdefault(violation.scenario.mutant, _score(violation))
        if progress:
            progress(len(found), len(chosen))
    return [found.get(name, Score(name, "", "", "")) for name in chosen]


def _strength(violation: Violation) -> tuple[int, str]:
    return ORDER.index(violation.crashes[-1].profile), violation.id


def _score(violation: Violation) -> Score:
    return Score(violation.scenario.mutant, violation.verdict.invariant, violation.crashes[-1].profile, violation.id)
