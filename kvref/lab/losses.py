"""What was lost, as tables and figures: crash instants swept by `kvref.sim.loss`, outcomes counted by the explorer.

    sweeps = {mode: losses(MODES[mode], seconds=6) for mode in ("save 1 1", "AOF everysec", "AOF always")}
    loss_table(sweeps)
    sawtooth(sweeps, "The loss grows until the next save or fsync, and falls")

Interface:
  - loss_table, sawtooth                a row, a panel for each mode; against the moment of the crash
  - quantiles, ecdf                     how much is lost in how many of the crashes
  - summary_rows, summary_page          modes x crashes: from sweeps to a page to print
  - price_table, frontier               loss against throughput
  - outcome_table, heat_map             of an explorer's Report: kind of crash x operation -> what the start made of it

Each figure has the table of its numbers beside it here: show that first. A mode has one colour in all figures, which
colour-blind readers can tell from the others, and its name stands beside its line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from kvref.lab.figures import BLACK, BLUE, COLOURS, GREEN, ORANGE, PINK, RED, SKY, YELLOW, figure
from kvref.lab.table import Table
from kvref.sim.explorer import Report
from kvref.sim.invariants import BROKEN, CORRUPT, DROPPED, KINDS, LOSSY, REFUSED, TAKEN, WHOLE
from kvref.sim.loss import Losses, Row

CRASHES: Final = {"process": "kill -9", "restart": "kill -9 (restart)"}         # others: "power loss (ext4)"
INKS: Final = {"no persistence": BLACK, "save 1 1": ORANGE, "save 2 1": RED, "AOF no": PINK, "AOF everysec": BLUE,
               "AOF always": GREEN, "everysec + save 2 1": SKY}
OUTCOMES: Final = {WHOLE: GREEN, LOSSY: SKY, REFUSED: ORANGE, CORRUPT: PINK, DROPPED: BLACK, TAKEN: YELLOW,
                   BROKEN: RED}
SHARES: Final = (50, 90)                            # percent of the crashes
LOST: Final = "acknowledged writes lost"


def crash_name(crash: str) -> str:
    return CRASHES.get(crash, f"power loss ({crash})")


def ink(mode: str, number: int = 0) -> str:
    """A mode's colour, also where more is said of it: "AOF always, 8 clients". Of one that is not in the course, by its
    number."""
    return INKS.get(mode.partition(",")[0], COLOURS[number % len(COLOURS)])


# ---- one crash an instant ------------------------------------------------------------------------

def loss_table(sweeps: Mapping[str, Losses]) -> Table:
    """A row for each mode: worst and mean loss of all instants."""
    return Table(("mode", "crash", "worst loss (writes)", "mean loss", "oldest lost (s)", "may a start be refused"),
                 [(mode, crash_name(sweep.crash), sweep.worst, round(sweep.mean, 1), round(sweep.worst_s, 2),
                   sweep.may_refuse) for mode, sweep in sweeps.items()])


def sawtooth(sweeps: Mapping[str, Losses], claim: str) -> None:
    """Lost writes against the moment of the crash: a panel for each mode, all on one scale.

    A mode that loses everything goes through the top, and says how far."""
    bounded = [sweep.worst for sweep in sweeps.values() if sweep.worst < sweep.losses[-1].acknowledged]
    top = 1.2 * max(bounded or [sweep.worst for sweep in sweeps.values()]) or 1
    with figure(claim, "", "", height=0.7 + 0.95 * len(sweeps)) as axes:
        drawing = axes.figure
        drawing.suptitle(claim, x=0.01, ha="left", fontsize=12)
        drawing.supylabel(LOST, fontsize=10)
        axes.remove()
        panels = drawing.subplots(len(sweeps), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        for number, ((mode, sweep), panel) in enumerate(zip(sweeps.items(), panels)):
            colour = ink(mode, number)
            times = [0.0, *(loss.at_ms / 1000 for loss in sweep.losses)]
            lost = [0, *(loss.lost for loss in sweep.losses)]
            panel.fill_between(times, lost, color=colour, alpha=0.25, linewidth=0)
            panel.plot(times, lost, color=colour, clip_on=sweep.worst > top)
            worst = f"(on to {sweep.worst:,})" if sweep.worst > top else f"at worst {sweep.worst:,}"
            panel.text(1.01, 0.5, f"{mode}\n{worst}", transform=panel.transAxes, va="center", color=colour)
            panel.set(ylim=(0, top), xlim=(0, times[-1]))
        panels[-1].set_xlabel("moment of the crash (s of virtual time)")


# ---- distributions -------------------------------------------------------------------------------

def quantile(sweep: Losses, percent: float) -> int:
    """So many are lost at most, in so many percent of the crashes."""
    return next(lost for lost, share in sweep.distribution() if 100 * share >= percent)


def quantiles(sweeps: Mapping[str, Losses]) -> Table:
    """How the losses of each mode are spread."""
    rows = []
    for mode, sweep in sweeps.items():
        unhurt = sum(loss.lost == 0 for loss in sweep.losses) / len(sweep.losses)
        rows.append((mode, len(sweep.losses), round(100 * unhurt), *(quantile(sweep, share) for share in SHARES),
                     sweep.worst))
    most = [f"{share} % lose at most" for share in SHARES]
    return Table(("mode", "crashes", "that lose nothing (%)", *most, "worst"), rows)


def ecdf(sweeps: Mapping[str, Losses], claim: str) -> None:
    """The share of crashes that lose no more than so many writes. Modes with the same curve share a line."""
    curves: dict[tuple[tuple[int, float], ...], list[str]] = {}
    for mode, sweep in sweeps.items():
        curves.setdefault(tuple(sweep.distribution()), []).append(mode)
    widest = 1.05 * max(1, *(steps[-1][0] for steps in curves))
    with figure(claim, LOST, "% of the crash instants", height=3.9) as axes:
        axes.set_title(claim, pad=75)
        for number, (steps, modes) in enumerate(curves.items()):
            colour, worst = ink(modes[0], number), steps[-1][0]
            axes.step([0, *(lost for lost, _ in steps), widest], [0, *(100 * share for _, share in steps), 100],
                      where="post", color=colour, clip_on=False)
            axes.annotate("\n= ".join(modes), (worst, 100), (0, 6), textcoords="offset points", rotation=25,
                          rotation_mode="anchor", color=colour)
        axes.set(xlim=(0, widest), ylim=(0, 100))


# ---- modes x crashes -----------------------------------------------------------------------------

def summary_rows(sweeps: Mapping[str, Mapping[str, Losses]], prices: Mapping[str, float]) -> list[Row]:
    """From sweeps that are there already, crash -> mode -> sweep, and throughput as a share, mode -> price."""
    return [Row.of(mode, {crash: found[mode] for crash, found in sweeps.items()}, price)
            for mode, price in prices.items()]


def summary_page(rows: Sequence[Row]) -> Table:
    """What each mode loses, whether it may refuse to start, and what it costs: a page to print."""
    crashes = list(rows[0].worst) if rows else []
    head = [f"{CRASHES.get(crash, 'power loss')} {what}"
            for crash in crashes for what in ("worst", "mean", "may refuse")]
    return Table(("mode", *head, "throughput (%)"),
                 [(row.mode, *(cell for crash in crashes
                               for cell in (row.worst[crash], round(row.mean[crash], 1), row.may_refuse[crash])),
                   round(100 * row.price, 1)) for row in rows])


def price_table(rows: Iterable[Row], crash: str = "ext4") -> Table:
    """Loss and throughput, the numbers of `frontier`."""
    return Table(("mode", f"worst loss, {crash_name(crash)}", "throughput (% of no persistence)"),
                 [(row.mode, row.worst[crash], round(100 * row.price, 1)) for row in rows])


def frontier(rows: Iterable[Row], claim: str, crash: str = "ext4") -> None:
    """Worst loss against throughput: each mode is a point with its name; modes at one place share it."""
    places: dict[tuple[float, int], list[str]] = {}
    for row in rows:
        places.setdefault((round(100 * row.price, 1), row.worst[crash]), []).append(row.mode)
    with figure(claim, "throughput (% of no persistence)", f"worst {LOST}", height=4) as axes:
        for number, ((price, worst), modes) in enumerate(places.items()):
            axes.plot([price], [worst], "o", color=ink(modes[0], number), markersize=9, clip_on=False)
            if price > 50:
                axes.annotate(", ".join(modes), (price, worst), (-9, 0), textcoords="offset points", va="center",
                              ha="right")
            else:                                       # these may stand side by side
                axes.annotate(", ".join(modes), (price, worst), (2, 8), textcoords="offset points", rotation=35,
                              rotation_mode="anchor")
        axes.set_yscale("symlog", linthresh=10)
        axes.set(xlim=(0, 105), ylim=(-1, 2 * max([1, *(worst for _, worst in places)])))
        axes.yaxis.set_major_formatter("{x:,.0f}")


# ---- what the explorer has seen ------------------------------------------------------------------

def outcomes(report: Report) -> dict[tuple[str, str], dict[str, int]]:
    """(kind of crash, operation) -> how many pairs ended in each way."""
    found: dict[tuple[str, str], dict[str, int]] = {}
    for (_, profile, operation, kind), count in report.outcomes.items():
        kinds = found.setdefault((profile, operation), dict.fromkeys(KINDS, 0))
        kinds[kind] += count
    return found


def outcome_table(report: Report) -> Table:
    """Percent of the pairs behind an operation that ended so: rows for what occurs. The last counts broken promises."""
    found = outcomes(report)
    profiles, operations = (list(dict.fromkeys(place[part] for place in found)) for part in (0, 1))
    none = dict.fromkeys(KINDS, 0)
    rows = list[tuple[object, ...]]()
    for profile in profiles:
        row = [found.get((profile, operation), none) for operation in operations]
        rows += [(crash_name(profile), kind, *(_percent(kinds, kind) for kinds in row))
                 for kind in KINDS if any(kinds[kind] for kinds in row)]
    broken = [sum(found.get((profile, operation), none)[BROKEN] for profile in profiles) for operation in operations]
    rows.append(("all of them", BROKEN, *broken))
    return Table(("crash", "outcome", *operations), rows)


def heat_map(report: Report, claim: str) -> None:
    """Kind of crash x operation: each field is divided as its outcomes are."""
    found = outcomes(report)
    profiles, operations = (list(dict.fromkeys(place[part] for place in found)) for part in (0, 1))
    height = 1.2 + 0.5 * len(profiles)
    with figure(claim, "the last thing done before the crash", "kind of crash", height=height) as axes:
        for kind in [kind for kind in KINDS if any(kinds[kind] for kinds in found.values())]:
            fields = [(profiles.index(profile), operations.index(operation) + 0.92 * _before(kinds, kind) / 100,
                       0.92 * _percent(kinds, kind) / 100)
                      for (profile, operation), kinds in found.items() if kinds[kind]]
            rows, starts, widths = zip(*fields)
            axes.barh(rows, widths, left=starts, height=0.8, color=OUTCOMES[kind], label=kind)
        axes.set_xticks([column + 0.46 for column in range(len(operations))], operations)
        axes.set_yticks(list(range(len(profiles))), [crash_name(profile) for profile in profiles])
        axes.set(xlim=(-0.05, len(operations)), ylim=(len(profiles) - 0.5, -0.5))
        axes.grid(visible=False)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.figure.legend(loc="outside right center")


def _percent(kinds: Mapping[str, int], kind: str) -> float:
    pairs = sum(kinds.values())
    return round(100 * kinds[kind] / pairs, 1) if pairs else 0.0


def _before(kinds: Mapping[str, int], kind: str) -> float:
    return sum(_percent(kinds, other) for other in KINDS[:KINDS.index(kind)])
