"""Rounds, medians, targets, Markdown."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median


class Rounds:
    """One quantity: for each server a figure a round."""

    def __init__(self) -> None:
        self.figures: dict[str, list[float]] = defaultdict(list)

    def add(self, server: str, figure: float) -> None:
        self.figures[server].append(figure)

    def median(self, server: str) -> float:
        return median(self.figures[server])

    def ratio(self, server: str) -> float:
        """To Redis: the median of the rounds' own ratios. What disturbs a whole round cancels out."""
        return median(self.ratios(server))

    def spread(self, server: str) -> str:
        """The same, with the least and the greatest: a wide spread says that the computer had other work."""
        ratios = self.ratios(server)
        return f"{median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"

    def ratios(self, server: str) -> list[float]:
        return [ours / redis for ours, redis in zip(self.figures[server], self.figures["redis-server"])]


@dataclass(frozen=True)
class Target:
    sign: str                   # "≥" or "≤"
    limit: float
    reach: float

    def verdict(self, server: str, figure: float) -> str:
        """Only kvref is judged. "reached" is more than "met"."""
        if server != "kvref":
            return ""
        good = {"≥": figure.__ge__, "≤": figure.__le__}[self.sign]
        word = "reached" if good(self.reach) else "met" if good(self.limit) else "missed"
        return f"{word} ({self.sign} {self.limit:g}, reach {self.reach:g})"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *rows])


def progress(text: str = "") -> None:
    """On a terminal one line that changes, else a line each; never among the results."""
    sys.stderr.write(f"\r\x1b[K{text}" if sys.stderr.isatty() else f"{text}\n" if text else "")
    sys.stderr.flush()
