"""The front of the README: its picture and its table are what the simulated computer loses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kvref.lab import readme
from kvref.sim import loss
from kvref.sim.loss import MODES, Losses, losses
from kvref.sim.mutants import MUTANTS
from kvref.sim.scenarios import SCENARIOS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PICTURE = ROOT / "notebooks" / readme.PICTURE


@pytest.fixture(scope="module")
def swept() -> dict[str, Losses]:
    return readme.sweeps()


def test_the_picture_is_the_one_that_these_numbers_make(swept: dict[str, Losses]) -> None:
    assert PICTURE.read_text() == readme.picture(swept), "run python -m kvref.lab.readme"
    assert PICTURE.stat().st_size < 80_000


def test_the_words_for_those_who_do_not_see_the_picture_have_its_numbers(swept: dict[str, Losses]) -> None:
    alt = re.search(rf"!\[(.+)\]\(notebooks/{readme.PICTURE}\)", README)
    assert alt and "No persistence: all of them." in alt[1] and "AOF always: none" in alt[1]
    for mode in ("save 1 1", "AOF everysec"):
        assert f"{mode}: at worst {swept[mode].worst}," in alt[1]
    assert swept["AOF always"].worst == 0
    assert all(crash.lost == crash.acknowledged for crash in swept["no persistence"].losses)


def test_the_table_is_the_summary() -> None:
    assert readme.table(readme.rows()) in README, "run python -m kvref.lab.readme, which prints it"


def test_the_throughput_of_some_milliseconds_is_that_of_many() -> None:
    short, long = (loss.throughput(MODES["AOF always"], ms=ms) for ms in (loss.PRICED_MS, 400))
    assert short == pytest.approx(long, rel=0.001)


def test_a_power_cut_in_the_midst_of_an_fsync_is_among_them() -> None:
    """So the table does not say of `always` that it always starts."""
    assert losses(MODES["AOF always"], seconds=2).may_refuse


def test_an_instant_before_the_first_is_refused_with_a_sentence() -> None:
    sweep = losses(MODES["no persistence"], rate=10, seconds=1)
    assert sweep.at(60) == sweep.losses[0]
    with pytest.raises(ValueError, match="the first crash comes after 45.45 ms; 20 ms is earlier"):
        sweep.at(20)


@pytest.mark.parametrize("mode", MODES)
def test_what_was_not_acknowledged_is_not_lost(mode: str) -> None:
    """And the sawtooth's age is that of the oldest lost write: as many writes as fit into that time are lost."""
    for crash in losses(MODES[mode], seconds=3).losses:
        assert 0 <= crash.lost <= crash.acknowledged
        assert crash.lost == pytest.approx(100 * crash.age_s, abs=1)


# ---- what differs from Redis, and what shows it --------------------------------------------------

DIFFERENCES = README.split("## What differs from Redis")[1].split("\n## ")[0]
DURABILITY = DIFFERENCES.split("**What a client or an operator sees.**")[0]
ROWS = [line.strip("| ").split(" | ") for line in DURABILITY.splitlines() if line.startswith("| ")][1:]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_what_a_crash_can_take_is_shown_by_what_there_is(row: list[str]) -> None:
    _, _, kind, shown = row
    assert kind in {"mended", "safer", "newer", "kept"}
    left = shown
    for phrase, what, name in re.findall(r"((mutant|scenario)s? `([a-z-]+)`)", shown):
        assert name in (MUTANTS if what == "mutant" else SCENARIOS)
        left = left.replace(phrase, "")
    for phrase, name, path in re.findall(r"(\[`(\w+\.py)`\]\((\S+)\))", shown):
        assert path == f"tests/{name}" and (ROOT / path).is_file()
        left = left.replace(phrase, "")
    assert shown and not left.strip(", "), f"{left!r} is neither a mutant nor a scenario nor a file of tests"


def test_every_mutant_that_redis_still_is_has_its_row() -> None:
    """And the kinds of weakness that are kept are there."""
    shown = {name for row in ROWS for name in re.findall(r"`([a-z-]+)`", row[3])}
    assert {name for name, bug in MUTANTS.items() if re.search(r"7\.0\.15|still", bug.real)} <= shown
    assert len([row for row in ROWS if row[2] == "kept"]) >= 10


def test_the_mutants_are_counted() -> None:
    assert f"The {len(MUTANTS)} mutants are servers with one durability bug each" in README
    assert f"all {len(MUTANTS)} are killed" in (ROOT / "notebooks" / "11b-find-the-bugs.ipynb").read_text()
