"""The manifest: which ones are read, and which Redis refuses, too."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvref.persistence.cursor import Unreadable
from kvref.persistence.manifest import Manifest, Part, parse
from tests import record

GOOD = {
    b"file a.1.base.rdb seq 1 type b\nfile a.1.incr.aof seq 1 type i\n": ["a.1.base.rdb", "a.1.incr.aof"],
    b"# a comment\nfile a seq 7 type b\n": ["a"],
    b"seq 1 type b file a\n": ["a"],
    b"FILE a SEQ 1 TYPE b\n": ["a"],
    b"file a seq 1 type b creator somebody\n": ["a"],
    b'file "a b\\x01" seq 1 type b\n': ["a b\x01"],
    b"file a seq 1 type i\nfile b seq 3 type i\n": ["a", "b"],
    b"file old seq 1 type h\nfile a seq 2 type b\n": ["a"],
    b"  file a seq 1 type b  \n": ["a"],
}
BAD = {
    "empty": b"", "blank line": b"\n", "comment only": b"# nothing\n", "no end of line": b"file a seq 1 type b",
    "too few words": b"file a seq 1\n", "odd words": b"file a seq 1 type b x\n", "no name": b"seq 1 type b x y\n",
    "type": b"file a seq 1 type x\n", "seq 0": b"file a seq 0 type b\n", "seq": b"file a seq x type b\n",
    "two bases": b"file a seq 1 type b\nfile b seq 2 type b\n", "a path": b"file ../a seq 1 type b\n",
    "a path's end": b"file a/ seq 1 type b\n", "sequence": b"file a seq 2 type i\nfile b seq 1 type i\n",
    "same sequence": b"file a seq 2 type i\nfile b seq 2 type i\n", "long": b"file a seq 1 type b x " + b"y" * 1100 + b"\n",
    "a long comment": b"#" + b"x" * 1100 + b"\nfile a seq 1 type b\n", "negative": b"file a seq -1 type i\n",
    "quotes": b'file "a seq 1 type b\n', "zeros": bytes(100), "binary": b"REDIS0011\xfa\n",
    "a blank line behind": b"file a seq 1 type b\n\n", "zeros behind": b"file a seq 1 type b\n" + bytes(40),
}


@pytest.mark.parametrize("data", GOOD)
def test_what_is_read(data: bytes) -> None:
    assert [part.name for part in parse(data).parts] == GOOD[data]


@pytest.mark.parametrize("name", BAD)
def test_what_is_refused_in_one_sentence(name: str) -> None:
    with pytest.raises(Unreadable) as refusal:
        parse(BAD[name])
    assert "the manifest" in str(refusal.value) and "\n" not in str(refusal.value)


def test_the_sentence_names_the_line() -> None:
    with pytest.raises(Unreadable, match="at offset 20: .*'file b seq x type i'"):
        parse(b"file a seq 1 type b\nfile b seq x type i\n")


FORGIVEN = {BAD["comment only"]}           # by Redis, which then begins with an empty log


@pytest.mark.parametrize("data", [*GOOD, *BAD.values()], ids=[*map(repr, GOOD), *BAD])
def test_redis_itself_reads_or_refuses_the_same(data: bytes) -> None:
    if not record.installed("redis-server"):
        pytest.skip("redis-server 7.0 is not installed")
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home, "appendonlydir")
        folder.mkdir()
        for name in GOOD.get(data, []):
            (folder / name).write_bytes(b"")
        (folder / "appendonly.aof.manifest").write_bytes(data)
        port = record.free_port()
        process = subprocess.Popen(["redis-server", "--port", str(port), "--dir", home, "--appendonly", "yes", "--save", "",
                                    "--bind", "127.0.0.1"], stdout=subprocess.PIPE,
                                   text=True, errors="replace")
        assert process.stdout
        try:
            said = ""
            for line in process.stdout:
                said += line
                if "Ready to accept" in line:
                    break
            assert ("Ready to accept" in said) == (data in GOOD or data in FORGIVEN), said[-300:]
            if "Ready to accept" not in said:
                with pytest.raises(Unreadable) as refusal:
                    parse(data)
                assert refusal.value.opening in said
        finally:
            process.terminate()
            process.wait(10)
            process.stdout.close()


@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda data: b"file a seq 1 type b\n" + data))
def test_whatever_stands_there_is_read_or_refused(data: bytes) -> None:
    try:
        parse(data)
    except Unreadable as error:
        assert 0 <= error.offset <= len(data)


NAMES = st.text(st.characters(exclude_characters="/\\\0", exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(NAMES, st.integers(1, 2**60), st.integers(0, 3), st.integers(0, 3))
def test_what_is_written_is_read_back(name: str, seq: int, incremental: int, history: int) -> None:
    manifest = Manifest(Part(name, seq, "b"), (), tuple(Part(f"{name}{n}", n + 1, "h") for n in range(history)), seq)
    for _ in range(incremental):
        manifest = manifest.with_incremental(name)
    assert parse(manifest.text) == manifest


def test_a_new_base_makes_history_of_what_it_holds() -> None:
    manifest = Manifest().with_base("a", "rdb", kept=0).with_incremental("a").with_incremental("a")
    after = manifest.with_base("a", "aof", kept=1)
    assert [part.name for part in after.parts] == ["a.2.base.aof", "a.2.incr.aof"]
    assert [part.name for part in after.history] == ["a.1.base.rdb", "a.1.incr.aof"]
    assert after.with_incremental("a").incremental[-1].seq == 3 and not after.without_history().history
