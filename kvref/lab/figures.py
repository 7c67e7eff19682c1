"""One look for all figures of the course.

    with figure("A pipeline of 16 is ten times as fast", "requests in flight", "requests per second") as axes:
        axes.plot(...)

Interface:
  - figure(claim, x, y)   a context manager; gives matplotlib's Axes, and shows the figure at the end
  - BLUE, ORANGE ...      colours that colour-blind readers can tell apart (Okabe and Ito)

The title is the claim that the figure makes, the labels name units. Print the table of the numbers before: where
matplotlib is missing, as in some browsers, the body draws on nothing, and one sentence says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

BLUE, ORANGE, GREEN, PINK, SKY, YELLOW, RED, BLACK = COLOURS = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#F0E442", "#D55E00", "#000000")

STYLE: Any = {
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3, "axes.axisbelow": True,
    "axes.titlelocation": "left", "axes.titlesize": 12, "font.size": 10, "lines.linewidth": 2, "legend.frameon": False}
MISSING = "matplotlib is missing here: the table has the same numbers."


class Nothing:
    """Takes every call and attribute, and does nothing."""

    def __getattr__(self, name: str) -> Nothing:
        return self

    def __getitem__(self, key: object) -> Nothing:
        return self

    def __call__(self, *args: object, **options: object) -> Nothing:
        return self

    def __iter__(self) -> Iterator[Nothing]:
        return iter((self, self))


@contextmanager
def figure(claim: str, x: str, y: str, *, width: float = 9, height: float = 3.4) -> Iterator[Any]:
    """A figure with one pair of axes; `width` and `height` in inches."""
    try:
        from cycler import cycler
        from matplotlib import pyplot
    except ImportError:
        yield Nothing()
        print(MISSING)
        return
    with pyplot.rc_context({**STYLE, "axes.prop_cycle": cycler(color=COLOURS[:-1])}):
        _, axes = pyplot.subplots(figsize=(width, height), layout="constrained")
        axes.set(title=claim, xlabel=x, ylabel=y)
        yield axes
        pyplot.show()
