"""The tool that runs Redis's own test suite: what it reads and what it makes of what the suite says. (The suite is no
part of this repository.)"""

import sys
from pathlib import Path

import pytest

from tests import record, suite


def test_each_test_that_is_passed_over_has_a_reason() -> None:
    known = suite.known()
    assert known["unit/type/incr"] == {"INCR can modify objects in-place": "DEBUG OBJECT"}
    assert all(name and reason for tests in known.values() for name, reason in tests.items())


def test_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "version.h").write_text('#define REDIS_VERSION "7.2.4"\n')
    monkeypatch.setattr(sys, "argv", ["suite", str(tmp_path)])
    with pytest.raises(SystemExit, match="2"):
        suite.main()
    assert 'is not the source of Redis "7.0.15"' in capsys.readouterr().err


def test_outcomes_are_read_from_what_the_suite_says() -> None:
    said = ("[ready]: 7\nTesting unit/x\n[ok]: A (b) works (3 ms)\n[skip]: C\n[err]: D | e in tests/unit/x.tcl\n"
            "Expected '1' to be '2'\n[ignore]: F: not now\n[exception]: Executing test client: no socket.\n[1/1 done]: unit/x (1 seconds)\n")
    assert suite.OUTCOME.findall(said) == [
        ("ok", "A (b) works"), ("skip", "C"), ("err", "D | e"), ("ignore", "F: not now"),
        ("exception", "Executing test client: no socket.")]


@pytest.mark.parametrize(("server", "cli", "counts"), [("7.0.15", "7.0.11", True), ("8.0.2", "8.0.2", False), ("7.0.15", "8.0.2", False)])
def test_only_redis_7_0_says_what_kvref_has_to_do(server: str, cli: str, counts: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"redis-server": server, "redis-cli": cli}
    monkeypatch.setattr(record.shutil, "which", lambda program: program)
    monkeypatch.setattr(record, "version", versions.__getitem__)
    assert record.installed("redis-check-aof") == counts
    monkeypatch.setattr(record.shutil, "which", lambda program: None)
    assert not record.installed("redis-server")
