"""The crash explorer: what it counts, what it finds, and that it finds the same again."""

import json
import subprocess
import sys
from collections import Counter
from concurrent.futures import Executor, Future
from dataclasses import replace

import pytest

from kvref.sim.explorer import PROFILES, Sweep, Task, Violation, explore, parse_id, replay, run_task, shrink
from kvref.sim.faults import Fault
from kvref.sim.invariants import BROKEN, CORRUPT, DROPPED, REFUSED, ROTTEN, TAKEN, WHOLE, Ledger, Verdict, judge
from kvref.sim.recording import Outcome, Recording, recover
from kvref.sim.scenarios import ALWAYS, EVERYSEC, OFF, RDB, SCENARIOS, Scenario, at, every

COUNTER = every(100, "ann", "INCR counter", until_ms=500)


class Here(Executor):
    """Runs what it is given at once."""

    def __init__(self):
        self.tasks = []

    def submit(self, work, /, *args, **options):
        self.tasks.append(args)
        future = Future()
        future.set_result(work(*args, **options))
        return future


# ---- the whole library ---------------------------------------------------------------------------

def test_the_unbroken_server_keeps_every_promise_in_every_state_that_is_looked_at():
    done = subprocess.run([sys.executable, "-m", "kvref.sim", "explore", "--json"], capture_output=True, text=True)
    report = json.loads(done.stdout)
    print(f"{report['points']:,} points, {report['pairs']:,} pairs, {report['recoveries']:,} recoveries")
    assert report["violations"] == [] and done.returncode == 0, done.stderr
    assert report["pairs"] >= 250_000
    assert report["recoveries"] >= 30_000
    kinds = {kind: count for kind, count in report["second"].items() if kind not in ("recordings", "pairs")}
    assert {"start", "reply", "create", "write", "fsync", "rename", "unlink", "mkdir", "fsync_dir"} <= kinds.keys()
    assert all(count >= 50 for kind, count in kinds.items() if kind not in ("truncate", "rot")), kinds


def test_the_library_holds_what_the_course_speaks_of():
    words = " ".join(SCENARIOS)
    for word in ("none", "rdb", "always", "everysec", "no-", "rewrite", "transactions", "expiry", "blocking", "databases",
                 "slow", "full", "switch-on"):
        assert word in words
    for mode in ("always", "everysec", "no"):
        assert SCENARIOS[f"{mode}-rdb"].directives["save"]


# ---- what it counts ------------------------------------------------------------------------------

def test_a_scenario_of_one_s_own_takes_five_lines():
    mine = Scenario("a counter", {"appendonly": "yes", "appendfsync": "everysec"},
                    every(50, "ann", "INCR visits", until_ms=2500) + at(1500, "bob", "BGREWRITEAOF"))
    report = explore(mine)
    assert not report.violations
    assert report.worst["a counter", "process"][0] if ("a counter", "process") in report.worst else True
    writes, age_us = report.worst["a counter", "ext4"]
    assert 15 <= writes <= 25 and 0.8 <= age_us / 1e6 <= 1.25
    assert "a counter" in str(report)


@pytest.mark.parametrize(("mode", "crash", "lost"), [
    (OFF, "process", 5), (OFF, "restart", 5), (OFF, "ext4", 5), (RDB, "process", 5), (EVERYSEC, "process", 0),
    (EVERYSEC, "restart", 0), (EVERYSEC, "posix", 5), (ALWAYS, "process", 0), (ALWAYS, "ext4", 0),
    (ALWAYS, "posix", 0), (ALWAYS, "reorder", 0)])
def test_the_worst_loss_of_five_writes_within_half_a_second(mode, crash, lost):
    report = explore(Scenario("five", mode, COUNTER), profiles=[crash])
    assert report.worst.get(("five", crash), (0, 0))[0] == lost


def test_points_are_before_all_behind_each_operation_and_behind_each_telling():
    recording = Recording(Scenario("five", ALWAYS, COUNTER))
    kinds = [point.kind for point in recording.points]
    assert kinds[0] == "start"
    assert len(recording.points) == 1 + len(recording.operations) + len(recording.tellings)
    assert kinds[-3:] == ["write", "fsync", "reply"]
    assert [point.told for point in recording.points][-3:] == [4, 4, 5]


def test_every_byte_of_the_last_write_is_a_state_of_its_own_when_it_may_be_torn():
    recording = Recording(Scenario("one", EVERYSEC, at(10, "ann", "SET key value")))
    sweep = Sweep(Task(recording.scenario, ("torn",)), recording)
    number, point, disk = next(place for place in sweep.places() if place[1].kind == "write" and "incr" in
                               recording.operations[place[1].at - 1].path)
    record = recording.operations[point.at - 1].data
    log = "/data/appendonlydir/appendonly.aof.1.incr.aof"
    found = {content for state, _ in zip(*sweep.states(disk, "torn", point)[:1], range(10**6))
             for path, content in state.image if path == log}
    assert {record[:end] for end in range(len(record) + 1)} <= found


def test_a_write_over_two_pages_may_be_torn_between_them_when_the_process_is_killed():
    value = "x" * 5000
    recording = Recording(Scenario("long", ALWAYS, at(10, "ann", f"SET key {value}")))
    sweep = Sweep(Task(recording.scenario, ("process",)), recording)
    sizes = {len(content) for _, point, disk in sweep.places() for state in sweep.states(disk, "process", point)[0]
             for path, content in state.image if path.endswith("incr.aof")}
    whole = max(sizes)
    assert sizes == {0, 4096, whole} and whole > 5000


def test_a_hole_that_nobody_notices_is_counted_and_is_no_pass():
    value = "x" * 9000
    report = explore(Scenario("hole", EVERYSEC, at(10, "ann", f"SET key {value}")), profiles=["posix", "reorder"])
    kinds = {kind: sum(count for (*_, other), count in report.outcomes.items() if other == kind)
             for kind in {kind for *_, kind in report.outcomes}}
    assert kinds["undetected corruption"] > 0 and not report.violations


def test_a_lying_disk_and_rotten_bits_never_make_a_traceback():
    report = explore([SCENARIOS["always"], SCENARIOS["rdb-commands"], SCENARIOS["everysec-rewrite"]],
                     profiles=["hostile"], states=200, workers=1)
    assert not report.violations
    assert {kind for *_, kind in report.outcomes} >= {"refused", "undetected corruption"}


def test_there_is_a_second_crash_behind_every_kind_of_power_loss_and_its_id_replays_it():
    seen = []

    class Seen(Sweep):
        def again(self, crash, point, disk):
            before = self.report.second["pairs"]
            super().again(crash, point, disk)
            seen.append((crash, self.report.second["pairs"] - before))
    sweep = Seen(Task(SCENARIOS["everysec-rewrite"], ("process",), again=8))
    assert not sweep.run().violations
    counts = Counter(crash.profile for crash, pairs in seen if pairs)
    assert counts.keys() == {"process", "ext4", "torn", "posix", "reorder"} and all(counts.values())
    assert 0 < counts["torn"] + counts["reorder"] < (counts["ext4"] + counts["posix"]) / 2
    for rough in ("torn", "reorder"):
        crash = next(crash for crash, pairs in seen if pairs and crash.profile == rough)
        told = replay(f"everysec-rewrite:{crash}/4:process:0@4")
        assert "The computer is switched on again." in told and f"({rough}, state {crash.state}" in told
        assert f"verdict: {WHOLE}" in told


# ---- disks that betray -------------------------------------------------------------------------

def outcomes(report, crashes):
    """How many pairs ended in each way."""
    counts = Counter()
    for (_, profile, _, kind), count in report.outcomes.items():
        counts[kind] += count * (profile in crashes)
    return +counts


KILLED, CUT = ("process", "restart"), ("ext4", "torn", "posix", "reorder")


def test_what_a_failed_fsync_dropped_is_told_of_second_lives_too():
    report = explore(SCENARIOS["everysec-fsync-fails"], profiles=("process",), again=2)
    assert report.ends[DROPPED] > 20 and sum(report.ends.values()) == report.second["pairs"]


def test_what_an_fsync_lied_about_is_taken_by_the_disk_and_by_no_killed_process():
    report = explore(SCENARIOS["always-fsync-lies"], profiles=(*KILLED, *CUT), again=2)
    assert not report.violations and report.second["recordings"] > 20
    assert outcomes(report, KILLED).keys() == {WHOLE}
    assert outcomes(report, CUT)[TAKEN] > 100 and outcomes(report, CUT).keys() == {WHOLE, REFUSED, TAKEN}
    honest = explore(replace(SCENARIOS["always-fsync-lies"], faults=()), profiles=(*KILLED, *CUT))
    assert not honest.violations and TAKEN not in outcomes(honest, CUT)


def test_a_lie_excuses_nothing_that_an_honest_fsync_has_saved_and_nothing_behind_the_next_one():
    recording = Recording(SCENARIOS["always-fsync-lies"])
    ledger = Ledger(recording)
    first, lie, _, honest = [done.seq for done in recording.operations if done.kind == "fsync" and "incr" in done.path]

    def said(seq, unit, profile):
        point = next(point for point in recording.points if point.seq == seq + 1 or point.seq > seq + 1)
        return judge(ledger, point, profile, "cut", Outcome(recording.states[unit])).kind
    assert [said(first, unit, "ext4") for unit in (0, 1)] == [BROKEN, WHOLE]
    assert [said(lie, unit, "ext4") for unit in (0, 1, 3)] == [BROKEN, TAKEN, WHOLE]
    assert [said(lie, unit, "process") for unit in (1, 3)] == [BROKEN, WHOLE]
    assert [said(honest, unit, "ext4") for unit in (3, 5)] == [BROKEN, WHOLE]
    assert judge(ledger, recording.points[-10], "ext4", "cut", Outcome(None, "no")).kind == BROKEN


def test_a_lie_about_a_snapshot_may_cost_the_start():
    report = explore(SCENARIOS["rdb-fsync-lies"], profiles=CUT, again=2)
    assert not report.violations and outcomes(report, CUT)[REFUSED] > 0
    assert REFUSED not in outcomes(explore(replace(SCENARIOS["rdb-fsync-lies"], faults=()), profiles=CUT), CUT)


@pytest.mark.parametrize("path", ["*manifest", "*base*", "*temp-*", "/data/appendonlydir"])
def test_on_a_disk_that_lies_about_a_file_s_neighbours_nothing_is_a_violation(path):
    lies = tuple(Fault(kind, path, lies=True, times=0) for kind in ("fsync", "fsync_dir"))
    report = explore(replace(SCENARIOS["everysec-rewrite-counter"], faults=lies), profiles=(*KILLED, *CUT), again=2)
    assert not report.violations and {REFUSED, TAKEN} & outcomes(report, CUT).keys()


def test_a_rotten_bit_is_noticed_by_a_checksum_and_by_nothing_else():
    log, dump = (explore(SCENARIOS[name], profiles=(*KILLED, *CUT), again=2) for name in ("always-rot", "rdb-rot"))
    assert not log.violations and not dump.violations
    for crashes in (KILLED, CUT):
        assert outcomes(log, crashes)[CORRUPT] > 20 and CORRUPT not in outcomes(dump, crashes)
        assert outcomes(dump, crashes)[REFUSED] > 5


def test_what_took_the_rotten_file_s_place_is_judged_in_full():
    rotten = Fault("write", "*incr*", rots="*incr*", bit=8 * 23, after=1)           # of the first record: *2 becomes +2
    script = at(50, "ann", "INCR n") + at(100, "ann", "INCR n") + at(200, "bob", "BGREWRITEAOF") + at(500, "ann", "INCR n")
    scenario = Scenario("mended", ALWAYS, script, faults=(rotten,))
    recording = Recording(scenario)
    ledger = Ledger(recording)
    seen = [ledger.betrayal(point, "process") for point in recording.points]
    assert seen[0] == seen[-1] == 0 and ROTTEN in seen
    gone = next(point for point in recording.points if point.kind == "unlink")      # ... and may come back: nothing reads it
    assert ledger.betrayal(gone, "process") == 0
    report = explore(scenario, profiles=(*KILLED, *CUT), again=2)
    assert not report.violations and outcomes(report, CUT)[REFUSED] > 0


# ---- the same again ------------------------------------------------------------------------------

def test_any_executor_finds_the_same():
    scenarios = [SCENARIOS["always-transactions"], SCENARIOS["rdb"]]
    other = Here()
    first, second = explore(scenarios, executor=other), explore(scenarios, workers=2)
    assert len(other.tasks) == 2
    assert first.to_json() | {"rows": sorted(map(str, first.rows()))} == second.to_json() | {
        "rows": sorted(map(str, second.rows()))}


def test_dask_s_executor_finds_the_same():
    distributed = pytest.importorskip("distributed")
    with distributed.Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=None) as client:
        assert explore(SCENARIOS["rdb"], executor=client.get_executor()).pairs == explore(SCENARIOS["rdb"]).pairs


def test_the_sweep_is_the_same_under_any_hash_seed():
    words = [sys.executable, "-m", "kvref.sim", "explore", "--scenario", "everysec-databases", "--json", "--workers", "1"]
    found = [subprocess.run(words, capture_output=True, env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
                            check=True).stdout for seed in ("1", "2")]
    assert found[0] == found[1]


def test_a_violation_has_an_id_that_replays_it_and_a_minimal_history():
    scenario = replace(SCENARIOS["always"], mutant="reply-before-log")
    report = run_task(Task(scenario, ("process",)))
    violation = report.violations[0]
    assert violation.verdict.kind == BROKEN
    told = replay(violation.id)
    assert f"verdict: {BROKEN} {violation.verdict.invariant}" in told and "a client learns of unit" in told
    unbroken = replay(violation.id.replace("+reply-before-log", ""))
    assert BROKEN not in unbroken and f"verdict: {WHOLE}" in unbroken
    shortest = shrink(violation)
    assert len(shortest.script) == 1 and run_task(Task(shortest, ("process",))).violations


def test_a_scenario_whose_server_does_not_start_says_so():
    broken = Scenario("broken", RDB, (), files=(("/data", None), ("/data/dump.rdb", b"no dump")))
    with pytest.raises(ValueError, match="the server of 'broken' does not start: .*dump.rdb"):
        explore(broken)


def test_programs_are_given_numbers():
    rows = explore(Scenario("five", OFF, COUNTER), profiles=["ext4"]).to_json()["rows"]
    assert {type(value) for value in rows[0].values()} == {str, int, float}


def test_ids_are_read_back():
    scenario, crashes = parse_id("always-rewrite+reply-before-log:12:posix:3@128/4:process:0")
    assert scenario == replace(SCENARIOS["always-rewrite"], mutant="reply-before-log")
    assert [str(crash) for crash in crashes] == ["12:posix:3@128", "4:process:0"]


@pytest.mark.parametrize("name", ["mine", "1:2+3*4 of mine", "always"])
def test_an_id_of_a_scenario_of_one_s_own_is_replayed_where_that_is_given(name):
    mine = Scenario(name, ALWAYS, at(10, "ann", "SET k v", "SET only:mine 1"), mutant="reply-before-log")
    for scenario in (mine, mine.repeated(2)):
        violation = explore(scenario, profiles=["process"]).violations[0]
        told = replay(violation.id, scenario)
        assert f"verdict: {BROKEN} {violation.verdict.invariant}" in told and "only:mine" in told
        assert told == replay(violation.id, mine)
    if name == "mine":
        with pytest.raises(ValueError, match=r"called 'mine'; one of your own has to be given .* replay\(id, scenario\)"):
            replay(violation.id)
        with pytest.raises(ValueError, match="called 'yours'"):
            replay("yours:1:ext4:0", mine)
        assert parse_id("always:1:ext4:0", mine)[0] == SCENARIOS["always"]


@pytest.mark.parametrize("words", [["--scenario", "nonsense"], ["--replay", "nonsense:1:ext4:0"], ["--replay", "none:x"],
                                   ["--replay", "none*x:1:ext4:0"], ["--replay", "none:1:ext4:99999"],
                                   ["--mutant", "nonsense"], ["--states", "0"], ["--profile", "nonsense"]])
def test_words_that_make_no_sense_get_a_sentence_and_status_2(words):
    done = subprocess.run([sys.executable, "-m", "kvref.sim", "explore", *words], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr and "Traceback" not in done.stderr


def test_a_broken_promise_is_exit_status_1_with_the_story_of_the_first():
    done = subprocess.run([sys.executable, "-m", "kvref.sim", "explore", "--scenario", "always", "--profile", "process",
                           "--mutant", "reply-before-log", "--again", "0"], capture_output=True, text=True)
    assert done.returncode == 1 and "shortest script that breaks it. The first one in full" in done.stdout


def test_the_first_violation_of_each_scenario_and_promise_is_shrunk_and_stands_first():
    buggy = [replace(SCENARIOS[name], mutant="reply-before-log") for name in ("always", "always-transactions")]
    report = explore(buggy, profiles=["process", "posix"], states=2, workers=1, shorten=True)
    kinds = {(each.scenario.name, each.verdict.invariant) for each in report.violations}
    shrunk = [each for each in report.violations if each.shortest is not None]
    assert len(shrunk) == len(kinds) > 2 and report.violations[:len(shrunk)] == shrunk
    for each in shrunk:
        assert 1 <= len(each.shortest) < len(each.scenario.script) and str(each.shortest[0]) in str(report)
    assert report.to_json()["violations"][0]["shortest"] == shrunk[0].shortest
    assert report.to_json()["violations"][-1]["shortest"] is None
    same = explore(buggy, profiles=["process", "posix"], states=2, workers=1)
    assert {each.id for each in same.violations} == {each.id for each in report.violations}
    same.shorten(most=1)
    assert [each.shortest is None for each in same.violations[:2]] == [False, True]


def test_a_promise_that_is_broken_without_a_command_says_so():
    assert str(Violation(SCENARIOS["none"], (), Verdict(BROKEN, "I9"), ())).endswith("(no command)")


def test_who_stops_reading_hears_no_complaint():
    command = [sys.executable, "-m", "kvref.sim", "explore", "--scenario", "?"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""


# ---- weaknesses that are kept --------------------------------------------------------------------

def test_a_log_that_is_being_switched_on_is_none_yet():
    """A start with `appendonly yes` before the first base is in the manifest begins empty; one with `no` does not."""
    scenario = Scenario("switch on late", {**RDB, "appendfsync": "always"},
                        every(130, "ann", "SET key:{n} {n}", until_ms=2600) + at(2700, "bob", "CONFIG SET appendonly yes"))
    recording = Recording(scenario)
    sweep = Sweep(Task(scenario), recording)
    early = [(point, disk.copy()) for _, point, disk in sweep.places()
             if point.seq < recording.modes[-1].seq and point.kind != "reply" and point.time_us > 2_690_000]
    assert len(early) > 3 and recording.modes[-1].appendonly
    starts = [recover(disk.copy(), {**scenario.directives, "appendonly": "yes"}, recording.end_wall_us).state
              for _, disk in early]
    assert starts[0] == frozenset()
    for point, disk in early:
        assert recovered(disk, recording.directives_at(point.seq), recording)


def recovered(disk, directives, recording):
    assert directives["appendonly"] == "no"
    return recover(disk, directives, recording.end_wall_us).state


def test_a_start_after_a_crash_is_told_what_config_set_said_before_it():
    """The snapshot has another name from then on: a start that asks for the old one finds nothing."""
    scenario = Scenario("another name", {"save": "", "enable-protected-configs": "yes"},
                        at(100, "ann", "SET a 1", "CONFIG SET dbfilename other.rdb", "SAVE", "SET b 2"))
    recording = Recording(scenario)
    assert "dbfilename" not in recording.directives_at(0)
    assert recording.directives_at(recording.points[-1].seq)["dbfilename"] == "other.rdb"
    assert explore([scenario], workers=1).violations == []


def test_all_profiles_are_swept_by_default():
    assert set(PROFILES) == {"process", "restart", "ext4", "torn", "posix", "reorder", "hostile"}
