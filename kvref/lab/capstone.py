"""The capstone's judge: a guarantee, written first, and a design that is to keep it.

    judge_design("board", 'lost_seconds <= 1 under power_loss("ext4")', {"save": "1 1", "messaging": "pubsub"}, seed=1)

Interface:
  - judge_design(brief, guarantee, design, seed)    a Verdict: too weak, true, or true but dearer; never raises
  - about(brief)                the customer, and the words and choices there are
  - read_guarantee(text, brief)     a sentence as Clauses; Unclear: one sentence about what cannot be read
  - Trial(brief, design, seed)      a design, played once and crashed at the instants of a seed; its price
  - handed_in()                 the last guarantee and design of each brief
  - collect(path)               HandedIn: run a notebook, which is told no seed; what it hands in, which cells raised
  - grade(handed_in, seeds, briefs)     the verdicts on it

A guarantee is clauses with "and" between them: measure, sign, number, and, where a crash belongs to it, `under` and the
crash. It is *too weak* if it leaves out something that the brief asks for; then a design that keeps it and hurts the
customer is looked for. A design is too weak if some crash of the schedule breaks the guarantee. It is *dearer than
needed* if a design of the brief's menu costs a tenth less and meets all needs.

A schedule: INSTANTS of the run, one half drawn from the time, one half from the recording's points. At each of them at
most STATES legal states, seeded as well. So "true" says that nothing was found there; a verdict says how many.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from math import floor
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

from kvref.config import Config, ConfigError
from kvref.lab import reader
from kvref.lab.briefs import BRIEFS, KILL, WORKER, Brief, Moment, lost, lost_seconds
from kvref.lab.figures import BLACK, GREEN, ORANGE, RED
from kvref.lab.questions import Sentence
from kvref.lab.table import Table
from kvref.sim.explorer import Crash, Sweep, Task, replay
from kvref.sim.loss import left, stops, visit
from kvref.sim.mutants import broken
from kvref.sim.scenarios import Scenario

INSTANTS, STATES = 40, 8
DEARER: Final = 1.1
PRICES: Final = {"commands a second": 0.1, "fsyncs a second": 0.5, "kB written a second": 5.0,
                 "snapshots a second": 20.0, "kB of memory": 1.0}       # in coins, and invented
SIGNS: Final = {"<=": operator.le, ">=": operator.ge, "==": operator.eq, "<": operator.lt, ">": operator.gt}
CLAUSE: Final = re.compile(r"(\w+)\s*(<=|>=|==|<|>)\s*(\d+(?:_\d+)*(?:\.\d+)?)(?:\s+under\s+(.+))?")
NUMBER: Final = re.compile("[0-9]{1,9}")
POWERS: Final = tuple(f'power_loss("{profile}")' for profile in ("ext4", "torn", "posix", "reorder"))
LIMIT: Final = "client-output-buffer-limit"
DIRECTIVES: Final = {"save": "", "appendonly": "no", "appendfsync": "everysec", "maxmemory": "0",
                     "maxmemory-policy": "noeviction", LIMIT: "pubsub 32mb 8mb 60"}
MORE: Final = ("maxmemory-samples", "lfu-log-factor", "lfu-decay-time", "no-appendfsync-on-rewrite")
NOT_BEGUN, HALF, UNCLEAR, WEAK, TRUE = "NOT BEGUN", "HALFWAY", "CANNOT BE READ", "TOO WEAK", "TRUE"
DEAR = "TRUE, BUT DEARER THAN NEEDED"
COLOURS: Final = {NOT_BEGUN: BLACK, HALF: BLACK, UNCLEAR: BLACK, WEAK: RED, TRUE: GREEN, DEAR: ORANGE}


class Unclear(Exception):
    """One sentence: what cannot be read, and what can."""


# ---- the guarantee -------------------------------------------------------------------------------

class Clause(NamedTuple):
    """One promise. `crash`: "" where none belongs to it."""

    measure: str
    sign: str
    bound: float
    crash: str = ""

    def holds(self, value: float) -> bool:
        return bool(SIGNS[self.sign](value, self.bound))

    def covers(self, need: Clause) -> bool:
        """Whether it promises at least as much. A power loss may leave what a kill leaves, and less."""
        crash = (self.crash == need.crash or (need.crash, self.crash) == POWERS[:2]
                 or need.crash == KILL and self.crash in POWERS)
        whole = not self.measure.endswith(("_seconds", "_rate", "_kb"))                 # things are counted
        if self.measure in ("lost_writes", "lost_scores") and need.measure == "lost_seconds":   # none lost, none old
            return crash and not any(self.holds(max(1, value)) for value in (1, self.bound, self.bound + 1, 1e20))
        step = 1 if whole else 1e-6
        bounds = [float(floor(bound)) if whole else bound for bound in (self.bound, need.bound)]
        values = [bound + more for bound in bounds for more in (-step, 0, step, 1e9)]
        return crash and self.measure == need.measure and all(
            need.holds(value) for value in values if value >= 0 and self.holds(value))

    def __str__(self) -> str:
        return f"{self.measure} {self.sign} {self.bound:g}" + f" under {self.crash}" * bool(self.crash)


def read_guarantee(text: str, brief: Brief) -> list[Clause]:
    """The clauses of a sentence. A crash alone stands for the clause before it, under that crash, too."""
    clauses = list[Clause]()
    for part in re.split(r"\s+and\s+|\s*[&,\n]\s*", text.strip()):
        if clauses and clauses[-1].crash and re.fullmatch(r"kill|\w+_crash|power_loss\(.*\)", part):
            clauses.append(clauses[-1]._replace(crash=_crash(part, brief)))
        elif part:
            clauses.append(_clause(part, brief))
    return clauses


def _clause(part: str, brief: Brief) -> Clause:
    found = CLAUSE.fullmatch(part)
    if not found:
        raise Unclear(f"{part!r} is no clause. Write a measure, a sign ({', '.join(SIGNS)}), a number and, if a crash "
                      "belongs to it, under and the crash: lost_writes <= 3 under kill")
    measure, sign, bound, crash = found.groups()
    if measure not in brief.words:
        raise Unclear(f"There is no measure {measure!r} in this brief; there are {', '.join(brief.words)}.")
    if brief.words[measure].under and not crash:
        raise Unclear(f"{measure} is measured after a crash: say under which one, {', '.join(brief.crashes)}.")
    if crash and not brief.words[measure].under:
        raise Unclear(f"{measure} is measured without a crash: leave out 'under {crash}'.")
    if float(bound) > 1e9:
        raise Unclear(f"{measure} {sign} {bound[:9]}...: write a number below a billion.")
    return Clause(measure, sign, float(bound), _crash(crash, brief) if crash else "")


def _crash(text: str, brief: Brief) -> str:
    name = text.strip().replace("'", '"')
    if name not in _crashes(brief):
        raise Unclear(f"There is no crash {text!r} in this brief; there are {', '.join(_crashes(brief))}.")
    return name


def _crashes(brief: Brief) -> list[str]:
    return list(dict.fromkeys((*brief.crashes, *POWERS)))


# ---- the design ----------------------------------------------------------------------------------

def read_design(brief: Brief, design: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """(directives, choices), complete. Unclear where a server would not start with them."""
    words = {name if name in brief.choices else str(name).replace("_", "-"): str(value)
             for name, value in design.items()}
    for name, options in brief.choices.items():
        if name not in words:
            raise Unclear(f"The design lacks {name}: {_either(options)}.")
        if words[name] not in options if options else not NUMBER.fullmatch(words[name]):
            raise Unclear(f"{name} is {words[name]!r}; it may be {_either(options)}.")
    choices = {name: words.pop(name) for name in brief.choices}
    for name in words:
        if name not in (*DIRECTIVES, *MORE):
            there = ", ".join((*brief.choices, *DIRECTIVES, *MORE))
            raise Unclear(f"{name!r} is nothing to choose here; there are {there}.")
    if re.search("normal|slave|replica", words.get(LIMIT, "").lower()):
        raise Unclear(f"{LIMIT}: only pubsub can be limited here. The judge itself looks on as a normal client.")
    directives = {**DIRECTIVES, **words}
    try:
        Config.load(directives=list(directives.items()))
    except ConfigError as error:
        raise Unclear(f"A server does not start with that: {error}") from None
    return directives, choices


def _either(options: tuple[str, ...]) -> str:
    return ", ".join(options) or "a whole number, 0 for none"


class Found(NamedTuple):
    """What a measure gave, and where."""

    value: float
    numbers: set[int]               # of the things that it counted
    moment: Moment | None

    def __str__(self) -> str:
        some = ", ".join(map(str, sorted(self.numbers)[:5])) + ", ..." * (len(self.numbers) > 5)
        return f"{self.value:.4g}" + f": number {some}" * bool(some)


class Trial:
    """See the module."""

    def __init__(self, brief: Brief, design: Mapping[str, Any], seed: int = 1, mutant: str = "") -> None:
        self.brief, self.seed, self.mutant = brief, seed, mutant
        self.design = read_design(brief, design)
        with broken(mutant):
            self.run = brief.play(*self.design, seed, mutant)
        self.recording, dice = self.run.recording, Random(f"{seed} schedule")
        if self.recording.refusal:
            raise Unclear(f"A server does not start with that: {self.recording.refusal}")
        points, zero_us = self.recording.points, self.recording.units[0].time_us
        drawn = [dice.random() for _ in range(INSTANTS)]
        span_us = self.recording.scenario.end_ms * 1000
        self.schedule = stops(self.recording, [zero_us + int(share * span_us) for share in drawn[::2]])
        self.schedule += [(self.schedule[0]._replace(point=number, now_us=points[number].time_us))
                          for number in (int(share * len(points)) for share in drawn[1::2])]
        self.looked: dict[str, tuple[int, int]] = {}            # crash -> states looked at, of so many
        self._moments: dict[str, list[Moment]] = {}

    def moments(self, crash: str) -> list[Moment]:
        """Every state of every instant, after a start."""
        if crash not in self._moments:
            with broken(self.mutant):
                self._moments[crash] = self._crashed(crash)
        return self._moments[crash]

    def _crashed(self, crash: str) -> list[Moment]:
        recording, found = self.recording, list[Moment]()
        profile = "process" if crash in (KILL, WORKER) else crash.split('"')[1]
        sweep = Sweep(Task(recording.scenario, (profile,), STATES, seed=self.seed), recording)
        name = self.brief.name + f"+{self.mutant}" * bool(self.mutant)
        listed = legal = 0
        for (number, now_us), point, disk in visit(sweep, self.schedule):
            if crash == WORKER:                                 # the server goes on: nothing of it is lost
                found.append(Moment("", crash, point, now_us, recording.states[point.done], point.done))
                continue
            states = left(sweep, point, disk, profile, repaired=True)
            for state, (outcome, unit) in enumerate(states):
                id = f"{name}:{Crash(number, profile, state, STATES, self.seed)}"
                found.append(Moment(id, crash, point, now_us, outcome.state or frozenset(), unit))
            listed, legal = listed + len(states), legal + sweep.states(disk, profile, point)[1]
        self.looked[crash] = listed, legal
        return found

    def worst(self, clause: Clause) -> Found:
        """What is farthest from the promise."""
        measure, moments = self.brief.words[clause.measure].of, self.moments(clause.crash) if clause.crash else []
        values: list[tuple[Any, Moment | None]] = [(measure(self.run, moment), moment) for moment in moments]
        found = [Found(float(len(what)), what, moment) if isinstance(what, set) else Found(float(what), set(), moment)
                 for what, moment in values or [(measure(self.run), None)]]
        far = -1 if clause.sign.startswith(">") else 1
        return max(found, key=lambda each: (not clause.holds(each.value), far * each.value))

    def keeps(self, clauses: list[Clause]) -> bool:
        return all(clause.holds(self.worst(clause).value) for clause in clauses)

    def bill(self) -> dict[str, float]:
        """Coins by what they are for: counted in the run, at PRICES."""
        recording, seconds = self.recording, self.recording.scenario.end_ms / 1000
        memory_kb = self.brief.words["memory_kb"].of(self.run)
        assert isinstance(memory_kb, float)
        amounts = (sum(step.client != "eye" and step.command[0] != "@" for step in recording.scenario.script) / seconds,
                   sum(done.kind in ("fsync", "fsync_dir") for done in recording.operations) / seconds,
                   sum(len(done.data) for done in recording.operations) / 1024 / seconds,
                   (len(recording.forks) - 1) / seconds, memory_kb)
        return {what: amount * price for amount, (what, price) in zip(amounts, PRICES.items())}

    @property
    def coins(self) -> int:
        return round(sum(self.bill().values()))


# ---- the verdict ---------------------------------------------------------------------------------

@dataclass
class Verdict:
    """What is said of a guarantee and a design."""

    kind: str
    text: str
    rows: list[tuple[str, str]] = field(default_factory=list)
    crash: tuple[Scenario, str] | None = None           # the one that is told of

    def __repr__(self) -> str:
        wide = max((len(what) for what, _ in self.rows), default=0)
        return "\n".join([f"{self.kind}: {self.text}", *(f"  {what:{wide}}  {text}" for what, text in self.rows)])

    @property
    def is_true(self) -> bool:
        return self.kind in (TRUE, DEAR)

    def replay(self) -> str:
        """The crash again, told in full: what had been done, the disk that was found, the start."""
        return replay(self.crash[1], self.crash[0]) if self.crash and self.crash[1] else "No file was lost in this."

    def _repr_html_(self) -> str:
        table = Table(("", ""), self.rows)._repr_html_() if self.rows else ""
        return (f'<div style="border-left: 6px solid {COLOURS[self.kind]}; padding-left: 12px"><p><b>{self.kind}</b>: '
                f"{escape(self.text)}</p>{table}</div>")


_handed_in: dict[str, tuple[str, dict[str, Any]]] = {}
_menus: dict[tuple[int, int], tuple[Brief, list[Trial]]] = {}


def judge_design(brief: str | Brief, guarantee: str = "", design: Mapping[str, Any] = {}, seed: int = 1,
                 mutant: str = "") -> Verdict:
    """See the module. `mutant`: the server has this bug (kvref.sim.mutants)."""
    known = BRIEFS.get(brief) if isinstance(brief, str) else brief
    if not isinstance(known, Brief):
        return Verdict(UNCLEAR, f"There is no brief {brief!r}; there are {', '.join(BRIEFS)}.")
    if not isinstance(guarantee, str) or not isinstance(design, Mapping):
        return Verdict(UNCLEAR, "A guarantee is a text, and a design is a dict.")
    _handed_in[known.name] = guarantee, dict(design)
    try:
        return _judged(known, guarantee, design, seed, mutant)
    except Unclear as unclear:
        return Verdict(UNCLEAR, str(unclear))


def _judged(brief: Brief, guarantee: str, design: Mapping[str, Any], seed: int, mutant: str) -> Verdict:
    if not guarantee.strip():
        said = "write the guarantee first. It is a sentence of these words; about(...) explains them."
        return Verdict(NOT_BEGUN, said, [("measures", ", ".join(brief.words)), ("crashes", ", ".join(_crashes(brief)))])
    clauses, needs = read_guarantee(guarantee, brief), [read_guarantee(need, brief)[0] for need in brief.needs]
    mine = Trial(brief, design, seed, mutant) if design else None
    missing = [need for need in needs if not any(clause.covers(need) for clause in clauses)]
    if missing:
        return _too_little(brief, clauses, missing, mine, seed)
    if mine is None:
        return Verdict(HALF, "the guarantee promises all that the brief asks for. Now the design.",
                       [("to choose", ", ".join((*brief.choices, *DIRECTIVES)))])
    found = [mine.worst(clause) for clause in clauses]
    for clause, worst in zip(clauses, found):
        if not clause.holds(worst.value):
            rows = [("promised", str(clause)), ("measured", str(worst)), *_crash_rows(mine, worst.moment),
                    *_looked(mine)]
            return Verdict(WEAK, "the design does not keep the guarantee.", rows, _crash_of(mine, worst))
    rows = [("kept", f"{clause}: at worst {worst}") for clause, worst in zip(clauses, found)]
    rows += [("price", _price(mine)), *_looked(mine)]
    cheaper = [trial for trial in _menu(brief, seed) if trial.coins * DEARER < mine.coins and trial.keeps(needs)]
    if cheaper:
        cheap = min(cheaper, key=lambda trial: trial.coins)
        return Verdict(DEAR, f"{cheap.coins} coins in place of {mine.coins} buy all that the brief asks for.",
                       [("cheaper", _difference(cheap, mine)), ("its price", _price(cheap)), *rows])
    said = "no crash of this schedule breaks it" if any(clause.crash for clause in clauses) else "the run keeps it"
    return Verdict(TRUE, f"{said}, and nothing on the menu is much cheaper.", rows)


def _too_little(brief: Brief, clauses: list[Clause], missing: list[Clause], mine: Trial | None, seed: int) -> Verdict:
    """The guarantee leaves something out. Who goes by it, may hurt the customer: who, and when?"""
    said = "the guarantee allows what the brief forbids."
    words = ("your words", " and ".join(map(str, clauses)))
    for trial in [*([mine] if mine else []), *_menu(brief, seed)]:
        for need in missing if trial.keeps(clauses) else []:
            found = trial.worst(need)
            if not need.holds(found.value):
                whose = "your design" if trial is mine else f"for example {_words(trial)}"
                rows = [("the brief", brief.needs[str(need)]), words, ("keeps them", whose),
                        ("and yet", f"{need.measure} is {found}"), *_crash_rows(trial, found.moment)]
                return Verdict(WEAK, said, rows, _crash_of(trial, found))
    nobody = "nobody on the menu keeps your words and does what is forbidden; somebody may"
    return Verdict(WEAK, said, [("the brief", brief.needs[str(missing[0])]), words, ("the menu", nobody)])


def _crash_of(trial: Trial, found: Found) -> tuple[Scenario, str] | None:
    return (trial.recording.scenario, found.moment.id) if found.moment else None


def _menu(brief: Brief, seed: int) -> list[Trial]:
    """What others have proposed; never of a server with a bug."""
    if (id(brief), seed) not in _menus:
        _menus[id(brief), seed] = brief, [Trial(brief, design, seed) for design in brief.menu]
    return _menus[id(brief), seed][1]


def _crash_rows(trial: Trial, moment: Moment | None) -> list[tuple[str, str]]:
    if moment is None:
        return [("the crash", "none: it is so all the time")]
    told, gone = trial.recording.acknowledged(moment.point), lost(trial.run, moment)
    age = f", the oldest {lost_seconds(trial.run, moment):.3f} s old" * bool(gone)
    what = f"of {len(told)} acknowledged writes {len(gone)} are lost{age}"
    id = [("its id", moment.id)] if moment.id else []
    return [("the crash", f"{moment.crash} at {trial.run.ms(moment.now_us) / 1000:.3f} s: {what}"), *id]


def _looked(trial: Trial) -> list[tuple[str, str]]:
    states = [f"; {crash}: " + (f"all {legal:,} states" if listed == legal else f"{listed:,} of {legal:,} states")
              for crash, (listed, legal) in trial.looked.items() if legal]
    if not trial.looked:
        return [("looked at", f"one run; no clause has a crash. What chance decides is drawn from seed {trial.seed}")]
    points = len(trial.recording.points)
    return [("looked at", f"{INSTANTS} instants drawn from seed {trial.seed}, in a run of {points:,} points"
             + "".join(states))]


def _price(trial: Trial) -> str:
    parts = [f"{coins:.1f} for {what}" for what, coins in trial.bill().items() if coins]
    return f"{trial.coins} coins: " + ", ".join(parts)


def _words(trial: Trial) -> str:
    directives, choices = trial.design
    said = {name: value for name, value in directives.items() if DIRECTIVES.get(name) != value}
    return ", ".join(f"{name} {value}" for name, value in {**choices, **said}.items())


def _difference(cheap: Trial, mine: Trial) -> str:
    theirs, ours = ({**directives, **choices} for directives, choices in (cheap.design, mine.design))
    return ", ".join(f"{name} {theirs[name] or '(nothing)'} in place of {ours.get(name) or '(nothing)'}"
                     for name in theirs if theirs[name] != ours.get(name))


def about(brief: str | Brief) -> Any:
    """The story, and what a guarantee and a design may say."""
    known = BRIEFS[brief] if isinstance(brief, str) else brief
    words = Table(("measure", "what it is", "needs a crash"),
                  [(name, each.about, each.under) for name, each in known.words.items()])
    choices = [f"{name}: {_either(options)}" for name, options in known.choices.items()]
    return Sentence("\n".join([known.story, "", repr(words), "", f"crashes: {', '.join(_crashes(known))}",
                               f"directives: {', '.join(DIRECTIVES)}", *choices]))


# ---- grading -------------------------------------------------------------------------------------

def handed_in() -> str:
    """As JSON, for `grade`."""
    return json.dumps(_handed_in, default=str)


class HandedIn(NamedTuple):
    """What somebody's notebook has left."""

    given: dict[str, tuple[str, dict[str, Any]]]        # brief -> guarantee, design
    raised: list[str]                                   # a sentence for each cell that did


def collect(path: Path) -> HandedIn:
    """Run a notebook. What raises in it stops nothing."""
    from kvref.lab import normalise
    said, raised = normalise.last_words(path, "__import__('kvref.lab.capstone').lab.capstone.handed_in()")
    try:
        return HandedIn({name: (text, design) for name, (text, design) in json.loads(said).items()}, raised)
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise reader.LabError(f"{path}: it hands in what cannot be read.") from None


def grade(handed_in: HandedIn, seeds: Sequence[int], briefs: Sequence[str] = ()) -> dict[str, Verdict]:
    """For each brief, or each of these, the first verdict that is not true, or the last one."""
    given = handed_in.given
    return {name: _hardest(judge_design(name, *given.get(name, ("", {})), seed) for seed in seeds)
            for name in briefs or BRIEFS}


def _hardest(verdicts: Iterable[Verdict]) -> Verdict:
    for verdict in verdicts:
        if not verdict.is_true:
            break
    return verdict
