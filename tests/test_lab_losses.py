"""Tables and figures of what crashes have lost: the numbers are those of the sweeps, and the figures draw them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from kvref.lab import losses as lab
from kvref.sim.explorer import explore
from kvref.sim.loss import MODES, Losses, losses
from kvref.sim.scenarios import ALWAYS, Scenario, every

CRASHES = ("process", "ext4")
CHOSEN = ("no persistence", "save 1 1", "AOF everysec", "AOF always")


@pytest.fixture(scope="module")
def sweeps() -> Mapping[str, Mapping[str, Losses]]:
    return {crash: {mode: losses(MODES[mode], crash=crash, rate=20, seconds=3, step_ms=100) for mode in CHOSEN}
            for crash in CRASHES}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The figures that were shown."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    found = list[Any]()
    monkeypatch.setattr(pyplot, "show", lambda: found.append(pyplot.gcf()))
    yield found
    pyplot.close("all")


def test_the_tables_hold_the_numbers_of_the_sweeps(sweeps: Any) -> None:
    assert lab.loss_table(sweeps["ext4"]).rows[1:] == [
        ["save 1 1", "power loss (ext4)", 40, 17.3, 2.0, False],
        ["AOF everysec", "power loss (ext4)", 20, 11.0, 1.0, True],
        ["AOF always", "power loss (ext4)", 0, 0.0, 0.0, False]]
    assert lab.quantiles(sweeps["ext4"]).rows[0] == ["no persistence", 30, 0, 30, 54, 60]
    assert lab.quantile(sweeps["ext4"]["AOF always"], 99) == 0


def test_the_page_has_a_row_for_each_mode_and_three_columns_for_each_crash(sweeps: Any) -> None:
    rows = lab.summary_rows(sweeps, {"AOF everysec": 1.0, "AOF always": 0.074})
    assert lab.summary_page(rows).rows == [["AOF everysec", 0, 0.0, False, 20, 11.0, True, 100.0],
                                           ["AOF always", 0, 0.0, False, 0, 0.0, False, 7.4]]
    assert lab.price_table(rows).rows == [["AOF everysec", 20, 100.0], ["AOF always", 0, 7.4]]
    assert lab.summary_page([]).rows == []


def test_the_figures_draw_them(sweeps: Any, drawn: list[Any]) -> None:
    lab.sawtooth(sweeps["ext4"], "a claim")
    lab.ecdf({**sweeps["ext4"], "mine": sweeps["process"]["AOF everysec"]}, "a claim")
    lab.frontier(lab.summary_rows(sweeps, dict.fromkeys(CHOSEN, 1.0)), "a claim")
    panels, curves, points = (figure.axes for figure in drawn)
    assert [max(panel.lines[0].get_ydata()) for panel in panels] == [60, 40, 20, 0]
    named = [text.get_text() for text in curves[0].texts]
    assert named == ["no persistence", "save 1 1", "AOF everysec", "AOF always\n= mine"]
    assert {text.get_text() for text in points[0].texts} == set(CHOSEN)


def test_a_mode_has_one_colour_in_all_figures(sweeps: Any, drawn: list[Any]) -> None:
    rows = lab.summary_rows(sweeps, dict.fromkeys(CHOSEN, 1.0))
    lab.frontier([*rows, rows[-1]._replace(mode="AOF always, 8 clients", price=0.1)], "a claim")
    points = [line.get_color() for line in drawn[0].axes[0].lines]
    assert points == [lab.INKS[mode] for mode in (*CHOSEN, "AOF always")]


def test_outcomes_are_shares_of_the_states_behind_an_operation(drawn: list[Any]) -> None:
    mine = Scenario("mine", ALWAYS, every(100, "ann", "INCR n", until_ms=300))
    report = explore(mine, profiles=CRASHES, states=8, workers=1)
    table = lab.outcome_table(report)
    assert table.head[:3] == ["crash", "outcome", "start"]
    assert table.rows[-1][1:] == ["BROKEN PROMISE"] + [0] * (len(table.head) - 2)
    for crash in ("kill -9", "power loss (ext4)"):
        rows = [row[2:] for row in table.rows if row[0] == crash]
        assert all(sum(shares) == pytest.approx(100, abs=0.2) for shares in zip(*rows))
    lab.heat_map(report, "a claim")
    assert [text.get_text() for text in drawn[0].axes[0].get_yticklabels()] == ["kill -9", "power loss (ext4)"]
