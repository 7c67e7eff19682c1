"""Verdicts and promises by hand: what a judge says of an outcome that the unbroken server never shows him."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from kvref import files
from kvref.persistence import load
from kvref.persistence.aof import AppendOnlyFile
from kvref.persistence.cursor import Unreadable
from kvref.persistence.snapshot import Snapshots
from kvref.sim.crashes import Found
from kvref.sim.disk import Fault
from kvref.sim.explorer import POWER, Crash, Sweep, Task, _damage, explore
from kvref.sim.invariants import (BROKEN, CORRUPT, DROPPED, KILLS, LOSSY, PROMPT_MS, REFUSED, WHOLE, Ledger, Steps,
                                  Verdict, judge, promise)
from kvref.sim.recording import Outcome, Point, Recording, recover, state_of
from kvref.sim.scenarios import ALWAYS, EVERYSEC, NO, OFF, RARELY, RDB, SCENARIOS, Scenario, Script, at, every

COUNTER = every(100, "ann", "INCR counter", until_ms=500)       # five units
LONG = every(90, "ann", "INCR counter", until_ms=3500)
LOG = "/data/appendonlydir/appendonly.aof.1.incr.aof"
NOBODY = frozenset({(0, b"nobody", b"has written this", None)})


def lived(directives: Any, script: Script = COUNTER, **more: Any) -> Ledger:
    return Ledger(Recording(Scenario("mine", directives, script, **more)))


def verdict(ledger: Ledger, outcome: Outcome, damage: str = "cut", profile: str = "ext4", place: int = -1) -> Verdict:
    return judge(ledger, ledger.recording.points[place], profile, damage, outcome)


def after(ledger: Ledger, unit: int) -> Outcome:
    """A start that shows the state behind this unit."""
    return Outcome(ledger.recording.states[unit])


def owed(ledger: Ledger, profile: str) -> Iterator[tuple[Point, int]]:
    """Of each point, the least that must be left."""
    return ((point, promise(ledger, point, profile).least) for point in ledger.recording.points)


# ---- verdicts ------------------------------------------------------------------------------------

@pytest.mark.parametrize("damage", ["cut", "zeros", "holes", "rot"])
def test_no_damage_excuses_a_traceback_a_stray_file_or_a_refused_one_that_was_changed(damage: str) -> None:
    ledger = lived(ALWAYS)
    state = ledger.recording.states[-1]
    assert verdict(ledger, Outcome(None, crash="Traceback\nKeyError: 1"), damage)[:2] == (BROKEN, "I10")
    assert verdict(ledger, Outcome(None, "no", touched=("#1 truncate /f",)), damage)[:2] == (BROKEN, "I10")
    assert verdict(ledger, Outcome(state, strays=("/f",)), damage)[:2] == (BROKEN, "I9")
    assert verdict(ledger, Outcome(state), damage).kind == WHOLE


@pytest.mark.parametrize(("mode", "damage", "kind"), [
    (ALWAYS, "cut", BROKEN), (ALWAYS, "zeros", REFUSED), (ALWAYS, "holes", REFUSED), (ALWAYS, "rot", REFUSED),
    (RDB, "cut", BROKEN), ({**ALWAYS, "aof-load-truncated": "no"}, "cut", REFUSED),
    ({**RDB, "aof-load-truncated": "no"}, "cut", BROKEN)])
def test_a_clean_cut_is_never_refused_but_of_a_log_that_may_not_be_torn(mode: Any, damage: str, kind: str) -> None:
    assert verdict(lived(mode), Outcome(None, "no"), damage).kind == kind


@pytest.mark.parametrize(("mode", "damage", "kind"), [
    (ALWAYS, "cut", BROKEN), (ALWAYS, "zeros", BROKEN), (ALWAYS, "holes", CORRUPT), (ALWAYS, "rot", CORRUPT),
    (RDB, "zeros", BROKEN), (RDB, "holes", BROKEN), (RDB, "rot", CORRUPT)])
def test_a_state_that_never_was_is_corruption_only_behind_holes_in_a_log_and_on_a_disk_that_lies(
        mode: Any, damage: str, kind: str) -> None:
    found = verdict(lived(mode), Outcome(NOBODY), damage)
    assert (found.kind, found.invariant) == (kind, "I5" if kind == BROKEN else "")


@pytest.mark.parametrize("damage", ["cut", "zeros", "holes"])
def test_no_honest_damage_excuses_the_loss_of_what_is_owed(damage: str) -> None:
    ledger = lived(ALWAYS)
    assert verdict(ledger, after(ledger, 4), damage)[:3] == (BROKEN, "I1", 4)
    assert verdict(ledger, after(ledger, 5), damage) == Verdict(WHOLE, unit=5)


def test_a_state_that_comes_again_later_does_not_count_as_that_of_then() -> None:
    ledger = lived(ALWAYS, at(10, "ann", "SET n 1") + at(20, "ann", "INCR n") + at(30, "ann", "DECR n"))
    second = next(place for place, point in enumerate(ledger.recording.points) if point.told == point.done == 2)
    assert ledger.recording.states[1] == ledger.recording.states[3]
    assert verdict(ledger, after(ledger, 1), place=second)[:3] == (BROKEN, "I1", 1)
    assert verdict(ledger, after(ledger, 1)) == Verdict(WHOLE, unit=3)


def test_what_nobody_was_promised_may_be_lost_and_is_counted_as_lost() -> None:
    ledger = lived(NO)
    assert [verdict(ledger, after(ledger, unit)).kind for unit in range(6)] == [LOSSY] * 5 + [WHOLE]


def test_a_failed_fsync_excuses_nothing_that_was_durable_before() -> None:
    ledger = lived(EVERYSEC, LONG, faults=(Fault("fsync", "*incr*", error="EIO", after=1),))
    place, point = next((place, point) for place, point in enumerate(ledger.recording.points)
                        if ledger.has_dropped(point, "ext4"))
    least = promise(ledger, point, "ext4").least
    assert 0 < least < point.done
    assert verdict(ledger, after(ledger, least - 1), place=place)[:2] == (BROKEN, "I2")
    assert verdict(ledger, after(ledger, least), place=place).kind == LOSSY
    assert verdict(ledger, Outcome(NOBODY), place=place).kind == DROPPED
    assert verdict(ledger, Outcome(None, "no"), place=place).kind == DROPPED
    assert verdict(ledger, Outcome(NOBODY), profile="process", place=place).kind == BROKEN


def test_doubt_about_dropped_bytes_ends_with_the_manifest_that_names_other_files() -> None:
    ledger = Ledger(Recording(SCENARIOS["everysec-fsync-fails"]))
    points = ledger.recording.points
    doubts = [ledger.has_dropped(point, "ext4") for point in points]
    assert True in doubts and doubts[0] is doubts[-1] is False
    assert not any(ledger.has_dropped(point, profile) for point in points for profile in KILLS)


# ---- promises ------------------------------------------------------------------------------------

@pytest.mark.parametrize("mode", [ALWAYS, EVERYSEC, NO])
def test_the_ledger_knows_how_many_units_are_in_the_log_and_how_many_of_them_durable(mode: Any) -> None:
    ledger = lived(mode, LONG + at(3600, "ann", "SHUTDOWN"))
    seen = set()
    for _, point, disk in Sweep(Task(ledger.recording.scenario), ledger.recording).places():
        if point.seq >= ledger.recording.ready_seq and point.kind != "in a write":
            written, durable = (disk.content(LOG, durable=only).count(b"INCR") for only in (False, True))
            assert (ledger.written.at(point.seq), ledger.durable.at(point.seq)) == (written, durable)
            seen.add((written, durable))
    assert len(seen) > 39 and max(seen) == (39, 39)


@pytest.mark.parametrize("mode", [ALWAYS, EVERYSEC, NO])
def test_an_orderly_end_leaves_everything(mode: Any) -> None:
    ledger = lived(mode, COUNTER + at(600, "ann", "SHUTDOWN"))
    for profile in ("ext4", *KILLS):
        assert promise(ledger, ledger.recording.points[-1], profile).least == 5


def test_a_server_that_ends_without_a_last_fsync_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    script = COUNTER + at(600, "ann", "SHUTDOWN")
    modes = {"everysec": EVERYSEC, "no": NO}
    scenarios = [Scenario(name, mode, script) for name, mode in modes.items()]
    assert not explore(scenarios, profiles=["ext4"], workers=1).violations
    monkeypatch.setattr(AppendOnlyFile, "_finish", lambda aof: aof.flush(force=True))
    found = explore(scenarios, profiles=["ext4"], workers=1).violations
    assert {(each.scenario.name, each.verdict.invariant) for each in found} == {("everysec", "I2"), ("no", "I2")}


def test_without_fsyncs_what_a_rewrite_has_made_durable_is_owed_all_the_same() -> None:
    script = (*COUNTER, *at(600, "ann", "BGREWRITEAOF"), *every(100, "ann", "INCR counter", until_ms=2500)[20:])
    ledger = lived(NO, script)
    point, least = list(owed(ledger, "ext4"))[-1]
    assert 5 <= least == ledger.durable.at(point.seq) < point.done


def test_everysec_owes_what_is_durable_and_on_a_healthy_disk_what_is_older_than_a_little_more_than_a_second() -> None:
    ledger = lived(EVERYSEC, LONG)
    for point, least in owed(ledger, "ext4"):
        old = ledger.recording.done_until(point.time_us - (PROMPT_MS + 50) * 1000)
        assert least >= max(ledger.durable.at(point.seq), old) and least <= point.done
    assert 1000 <= PROMPT_MS <= 1500


def test_a_kill_may_take_what_waits_for_an_fsync_that_runs_and_that_for_two_seconds_alone() -> None:
    slow = lived(EVERYSEC, LONG, faults=(Fault("fsync", "*incr*", delay_us=2_900_000),), until_ms=4500)
    for profile in KILLS:
        waits = [point.told - least for point, least in owed(slow, profile)]
        assert min(waits) == 0 and 15 <= max(waits) <= 26 and waits[-1] == 0
        assert all(point.told == least for point, least in owed(lived(EVERYSEC, LONG), profile)
                   if point.time_us < 900_000)
    quick = lived(EVERYSEC, LONG).recording
    times = [point.time_us for point in quick.points if quick.syncing_since(point.seq) is None]
    assert any(1_500_000 < time_us < 1_900_000 for time_us in times)


def test_a_server_that_writes_nothing_owes_a_kill_what_came_before_the_fsync_that_runs_all_the_same() -> None:
    ledger = lived(EVERYSEC, LONG)
    ledger.written = Steps()
    recording = ledger.recording
    begun = [(recording.syncing_since(point.seq), least) for point, least in owed(ledger, "process")]
    since = [(recording.done_before(seq), least) for seq, least in begun if seq is not None]
    assert since and all(least >= done > 0 for done, least in since)


def test_a_kill_may_take_what_could_not_be_written_and_nothing_that_was() -> None:
    full = lived(EVERYSEC, LONG, faults=(Fault("write", "*incr*", error="ENOSPC", after=5, times=2),))
    failing = [(point, least) for point, least in owed(full, "process") if full.recording.is_failing(point.seq)]
    assert failing and all(least == min(point.told, full.written.at(point.seq)) >= 5 for point, least in failing)
    last = full.recording.points[-1]
    assert promise(full, last, "process").least == last.told and not full.recording.is_failing(last.seq)


def test_without_any_fsync_a_second_life_still_owes_what_it_was_started_with() -> None:
    first = Recording(Scenario("mine", NO, COUNTER))
    second = Ledger(Recording(replace(first.scenario, script=at(10, "ann", "SET other 1")), first.disk_at(10**6)))
    ready = [point for point in second.recording.points if point.seq >= second.recording.ready_seq]
    assert promise(second, ready[-1], "ext4").invariant == "I9"
    assert verdict(second, Outcome(frozenset()))[:2] == (BROKEN, "I5")


def test_before_the_first_client_is_served_what_was_loaded_is_the_only_legal_state() -> None:
    first = Recording(Scenario("mine", EVERYSEC, COUNTER))
    second = Ledger(Recording(replace(first.scenario, script=at(10, "ann", "INCR counter")), first.disk_at(10**6)))
    early = [point for point in second.recording.points if point.seq < second.recording.ready_seq]
    assert early and all(promise(second, point, "ext4").only == {0} for point in early)


def test_a_snapshot_that_was_reported_done_is_never_followed_by_an_older_one() -> None:
    ledger = lived(RARELY, at(10, "ann", "INCR n") + at(20, "ann", "SAVE") + at(30, "ann", "INCR n")
                   + at(40, "ann", "BGSAVE") + at(400, "ann", "INCR n"))
    points = ledger.recording.points
    assert promise(ledger, points[-1], "ext4").only == promise(ledger, points[-1], "process").only == {2}
    owes = [(promise(ledger, point, "process").only, promise(ledger, point, "ext4").only) for point in points]
    assert ({1}, {0, 1}) in owes and ({2}, {1, 2}) in owes              # renamed, and not reported done
    assert ({0}, {0}) in owes and ({1}, {1}) in owes
    assert verdict(ledger, after(ledger, 1))[:2] == verdict(ledger, after(ledger, 3))[:2] == (BROKEN, "I4")
    assert verdict(ledger, after(ledger, 2)).kind == LOSSY

def test_flushall_is_done_as_a_save_is() -> None:
    ledger = lived(RARELY, at(10, "ann", "INCR n") + at(20, "ann", "FLUSHALL") + at(30, "ann", "INCR n"))
    assert promise(ledger, ledger.recording.points[-1], "ext4").only == {2}


def test_a_save_that_only_says_so_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = Scenario("mine", RARELY, at(10, "ann", "INCR n") + at(20, "ann", "SAVE") + at(30, "ann", "INCR n"))
    assert not explore(scenario, profiles=["process"], workers=1).violations
    monkeypatch.setattr(Snapshots, "save", lambda snapshots: True)
    assert {each.verdict.invariant for each in explore(scenario, profiles=["process"], workers=1).violations} == {"I4"}


# ---- what the judge is told ----------------------------------------------------------------------

@pytest.mark.parametrize(("damages", "mode", "damage"), [
    ((), ALWAYS, "cut"), (((LOG, "zeros"),), ALWAYS, "zeros"),
    (((LOG, "zeros"), (LOG + "x", "holes")), ALWAYS, "holes"), (((LOG, "holes"),), RDB, "cut"),
    ((("/data/dump.rdb", "holes"),), ALWAYS, "cut"),
    ((("/data/dump.rdb", "zeros"),), RDB, "zeros"),
    ((("/data/appendonlydir/temp-rewriteaof-7.aof", "holes"),), ALWAYS, "cut")])
def test_only_damage_to_what_a_start_goes_by_excuses_it(damages: Any, mode: Any, damage: str) -> None:
    assert _damage(Found((), "holes", damages), mode) == damage
    assert _damage(Found((), "rot", damages), mode) == "rot"


def test_an_image_is_started_on_with_a_log_and_without_one() -> None:
    recording = Recording(Scenario("mine", ALWAYS, COUNTER))
    sweep, image = Sweep(Task(recording.scenario), recording), recording.disk_at(10**6).image()
    for _ in range(2):
        assert sweep.outcome(image, {**ALWAYS}).state == recording.states[5]
        assert sweep.outcome(image, {**ALWAYS, "appendonly": "no"}).state == frozenset()


@pytest.mark.parametrize(("good", "invariant"), [(None, "I10"), (0, "I2")])
def test_what_is_refused_for_its_zeros_must_be_whole_when_it_has_been_repaired(
        good: int | None, invariant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repair that does nothing, and one that cuts everything."""
    recording = Recording(Scenario("mine", EVERYSEC, LONG))
    sweep = Sweep(Task(recording.scenario), recording)
    number, point, disk = next(place for place in sweep.places() if place[1].time_us > 2_500_000 and
                               promise(sweep.ledger, place[1], "ext4").least < place[1].done)
    found = next(found for found in sweep.states(disk, "ext4", point)[0] if found.damage == "zeros")
    assert sweep.verdict(point, "ext4", found).kind == REFUSED

    def repair(disk: Any, path: str) -> None:
        if good is not None:
            disk.truncate(disk.open(LOG, "a"), good)
    monkeypatch.setattr(files, "repair", repair)
    other = Sweep(Task(recording.scenario), recording)
    verdict = other.verdict(point, "ext4", found)
    assert verdict[:2] == (BROKEN, invariant) and verdict.text.startswith("even when repaired: ")


def test_a_start_that_changes_what_it_refuses_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Recording(Scenario("mine", ALWAYS, COUNTER)).disk_at(10**6)
    disk.truncate(disk.open(LOG, "a"), 100)
    assert recover(disk.copy(), ALWAYS, 0).touched == ()
    cut = load._cut

    def cut_and_refuse(*args: Any, **options: Any) -> None:
        cut(*args, **options)
        raise Unreadable("too late", 0)
    monkeypatch.setattr(load, "_cut", cut_and_refuse)
    refused = recover(disk.copy(), ALWAYS, 0)
    assert refused.state is None and len(refused.touched) == 1 and "truncate" in refused.touched[0]


def test_a_restart_within_a_second_sees_the_loss_of_what_is_over_at_the_end_of_the_run() -> None:
    script = at(10, "ann", "SET short 1 PX 1500") + at(3000, "ann", "SET last 1")
    recording = Recording(Scenario("mine", ALWAYS, script))
    sweep = Sweep(Task(recording.scenario), recording)
    point = next(point for point in recording.points if point.told == 1)
    ready = next(point for point in recording.points if point.seq > recording.ready_seq)
    before, there = (Found(recording.disk_at(at).image(), "cut") for at in (ready.at - 1, point.at))
    assert [sweep.verdict(point, profile, before).kind for profile in KILLS] == [WHOLE, BROKEN]
    assert [sweep.verdict(point, profile, there).kind for profile in KILLS] == [WHOLE, WHOLE]


def test_during_the_recovery_from_a_kill_a_power_loss_may_take_what_it_might_have_taken_then() -> None:
    """And no more: a state that was never legal is no state of the second life."""
    recording = Recording(Scenario("mine", ALWAYS, COUNTER))
    sweep, last = Sweep(Task(recording.scenario), recording), recording.points[-1]
    second = sweep.second_life(last, recording.disk_at(10**6))
    killed, cut = (sweep.second_promise(last, Crash(0, profile, 0), second) for profile in ("process", "ext4"))
    early, late = second.points[0], second.points[-1]
    mine = killed(early, "ext4")
    assert mine and mine.invariant == "I7" and set(mine.states or ()) == {recording.states[5]}
    assert [killed(late, "ext4"), killed(early, "process"), cut(early, "ext4")] == [None] * 3
    ledger = Ledger(second)
    assert judge(ledger, early, "ext4", "cut", Outcome(frozenset()), mine)[:2] == (BROKEN, "I7")
    assert judge(ledger, early, "ext4", "cut", Outcome(recording.states[5]), mine).kind == WHOLE


def test_a_second_life_begins_behind_a_kill_and_behind_power_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []
    monkeypatch.setattr(Sweep, "again", lambda sweep, crash, point, disk: begun.append(crash.profile))
    report = Sweep(Task(Scenario("mine", ALWAYS, COUNTER), ("process",), again=3)).run()
    assert set(begun) == {"process", *POWER, "torn", "reorder"} and not report.violations


@pytest.mark.parametrize(("one", "other"), [
    ("RPUSH k a b", "RPUSH k b a"), ("HSET k f 1", "HSET k f 2"), ("ZADD k 1 a", "ZADD k 2 a"),
    ("SADD k 1", "SADD k 2"), ("SET k 1", "SET k 1 PX 90000"), ("SADD k a", "RPUSH k a"), ("SET k 1", "APPEND l 1")])
def test_states_that_a_client_can_tell_apart_differ(one: str, other: str) -> None:
    first, second = (Recording(Scenario("mine", OFF, at(10, "ann", command))).states[-1] for command in (one, other))
    assert first != second


def test_keys_of_different_databases_differ_and_one_whose_time_comes_now_is_there() -> None:
    scripts = [at(10, "ann", f"SELECT {number}", "SET k 1") for number in (0, 1)]
    assert len({Recording(Scenario("mine", OFF, script)).states[-1] for script in scripts}) == 2
    assert [len(state_of([(0, b"k", b"v", 1000)], now_ms)) for now_ms in (999, 1000, 1001)] == [1, 1, 0]
