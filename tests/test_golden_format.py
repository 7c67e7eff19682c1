"""The golden scripts' own format: what is read, what is shown, what the recorder does with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kvref.lab.cli import format_reply
from tests import golden, record

needs_redis = pytest.mark.skipif(not record.installed("redis-server"), reason="redis-server 7.0 is not installed")

TEXT = """\
# A head.
@directives maxmemory-policy "allkeys-lru" save "3600 1"

# One block.
SET a "x y\\n"
bob> GET a
@unordered
KEYS *
@advance 2s
---
OK
"x y\\n"
1) "a"

@raw "*1\\r\\n$" "9"*3 "\\r\\n"
"""


class Echo:
    """A player whose server says back what it was told to say."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.closed = False
        self.waited = 0

    def connect(self, name: str) -> Echo:
        self.closed = False
        return self

    def send_bytes(self, data: bytes) -> None:
        self.sent = data

    def take(self) -> bytes:
        return self.answers.pop(0) if self.answers else b""

    def settle(self, words: list[bytes]) -> None:
        pass

    def advance(self, ms: int) -> None:
        self.waited += ms


def said(commands: str, *answers: bytes) -> list[str]:
    return [text for _, text in golden.play(golden.parse(commands), Echo(*answers))]


def test_a_script_is_read_into_directives_blocks_and_steps() -> None:
    script = golden.parse(TEXT)
    assert script.directives == {"maxmemory-policy": "allkeys-lru", "save": "3600 1"}
    head, block, raw = script.blocks
    assert not head.steps
    assert [step.words for step in block.steps] == [[b"SET", b"a", b"x y\n"], [b"GET", b"a"], [b"KEYS", b"*"], []]
    assert [step.client for step in block.steps] == ["default", "bob", "default", "default"]
    assert [step.mark for step in block.steps] == ["", "", "unordered", ""]
    assert block.steps[3].ms == 2000
    assert block.expected == 'OK\n"x y\\n"\n1) "a"'
    assert raw.expected is None and raw.steps[0].data == b"*1\r\n$999\r\n"


def test_rendering_keeps_what_was_read_and_adds_a_missing_separator() -> None:
    assert golden.parse(TEXT).render() == TEXT + "---\n"
    assert golden.parse(TEXT + "---\n").render() == TEXT + "---\n"


@pytest.mark.parametrize("line", ['SET a "open', "@advance soon", "@raw open", "@nonsense", "@directives a"])
def test_a_bad_line_is_reported_with_its_number(line: str) -> None:
    with pytest.raises(golden.ScriptError, match="script, line 4: "):
        golden.parse(f"PING\n---\n\n{line}\n")


def test_lists_in_no_certain_order_are_shown_sorted() -> None:
    assert said("@unordered\nKEYS *", b"*2\r\n$1\r\nb\r\n$1\r\na\r\n") == ['1) "a"\n2) "b"']
    assert said("@unordered pairs\nHGETALL h", b"*4\r\n$1\r\nk\r\n$1\r\na\r\n$1\r\nj\r\n$1\r\nz\r\n") == [
        '1) "j"\n2) "z"\n3) "k"\n4) "a"']
    assert said("@unordered\nSCAN 0", b"*2\r\n$1\r\n9\r\n*2\r\n$1\r\nb\r\n$1\r\na\r\n") == [
        '1) "9"\n2) 1) "a"\n   2) "b"']


def test_any_hides_a_reply_but_not_an_error() -> None:
    assert said("@any\nTIME", b":17\r\n") == ["(any)"]
    assert said("@any\nTIME", b"-ERR no\r\n") == ["(error) ERR no"]
    assert said("@any\nTIME") == ["(no reply)"]


def test_raw_replies_are_shown_as_bytes() -> None:
    assert said('@raw "PING\\r\\n"', b"+PONG\r\n") == ['"+PONG\\r\\n"']


def test_an_empty_line_of_a_reply_cannot_end_the_block() -> None:
    assert said("INFO", b"=8\r\ntxt:\r\na\r\n"[:2] + b"8\r\ntxt:a\n\nb\r\n"[1:]) == ["a\n(blank line)\nb"]


def test_what_comes_to_others_stands_behind_their_names() -> None:
    assert said("bob> PING\nPING\n@advance 100ms", b"+BOB\r\n", b"+ME\r\n", b"+LATE\r\n", b"+B\r\n", b"+M\r\n") == [
        "BOB\nME\nbob> LATE\nbob> B\ndefault> M"]


NIL = b"*-1\r\n"
MESSAGE = b">3\r\n+message\r\n+c\r\n+m\r\n"


@pytest.mark.parametrize("commands, answers, mistake", [
    ("BLPOP q 0\nGET k", [b""], "line 2: default still waits: GET k"),
    ("BLPOP q 0\n\n\nbob> PING\nblpop q 0", [b"", b"+PONG\r\n", b""], "line 5: default still waits: blpop q 0"),
    ("BLPOP q 0\n@advance 9s\nGET k", [b"", MESSAGE], "line 3: default still waits: GET k"),
    ('@raw "BLP"\nGET k', [b""], "line 2: default still waits: GET k"),
    ("PING\nGET k", [b"+PONG\r\n", b""], "line 2: nothing answers GET k"),
    ("BLPOP q 0\n@advance 9s\nGET k", [b"", NIL, b"$-1\r\n"], None),
    ("BLPOP q 0\nbob> PING\nGET k", [b"", b"+PONG\r\n", NIL, b"$-1\r\n"], None),
    ('@raw "BLP"\n@raw "OP q 0\\r\\nPI"\n@raw "NG\\r\\n"', [b"", b"", b"+PONG\r\n"], None),
])
def test_whoever_waits_is_silent(commands: str, answers: list[bytes], mistake: str | None, tmp_path: Path) -> None:
    path = tmp_path / "script"
    path.write_text(commands)
    try:
        texts = [text for _, text in golden.play(golden.load(path), Echo(*answers))]
    except golden.ScriptError as error:
        assert str(error) == f"script, {mistake}"
    else:
        assert mistake is None and "(no reply)" in "\n".join(texts)


def test_a_drawn_script_may_speak_while_it_waits() -> None:
    assert said("BLPOP q 0\nGET k", b"", b"") == ["(no reply)\n(no reply)"]


def test_whose_connection_is_closed_waits_no_more(tmp_path: Path) -> None:
    path = tmp_path / "script"
    path.write_text("BLPOP q 0\n@advance 1s\nPING")
    echo = Echo(b"", b"", b"+PONG\r\n")
    played = golden.play(golden.load(path), echo)
    echo.advance = lambda ms: setattr(echo, "closed", True)        # type: ignore[method-assign]
    assert [text for _, text in played] == ["(no reply)\ndefault> (closed)\nPONG"]


def test_the_readers_of_replies_agree() -> None:
    from kvref.resp import NEED_DATA, ReplyParser
    wire = (b"*5\r\n+OK\r\n-ERR x\r\n:-3\r\n$-1\r\n*-1\r\n%1\r\n$1\r\nk\r\n~1\r\n$1\r\nm\r\n>1\r\n#t\r\n_\r\n"
            b"=5\r\ntxt:v\r\n$3\r\n\xff\r\n\r\n")
    for cut in range(len(wire) + 1):
        parser, found = ReplyParser(), []
        for part in (wire[:cut], wire[cut:]):
            parser.receive(part)
            while (value := parser.next()) is not NEED_DATA:
                found.append(format_reply(value))
        whole, rest = golden.replies(wire[:cut])
        assert [format_reply(v) for v in golden.replies(rest + wire[cut:])[0]] == found[len(whole):]
        assert [format_reply(v) for v in whole] == found[:len(whole)]


@needs_redis
def test_the_recorder_fills_in_what_redis_says(tmp_path: Path) -> None:
    script = golden.parse('bob> BLPOP q 0\nLPUSH q v\nDEBUG JMAP\nQUIT\n\n'
                          '@raw "*1\\r\\n$-2\\r\\n"\nPING\n')
    assert record.record(script).split("---\n")[1:] == [
        '(no reply)\n(integer) 1\nbob> 1) "q"\nbob> 2) "v"\n'
        "(error) ERR DEBUG command not allowed. If the enable-debug-command option is set to \"local\", you can run it "
        "from a local connection, otherwise you need to set this option in the configuration file, and then restart the "
        "server.\n"
        'OK\n(closed)\n\n@raw "*1\\r\\n$-2\\r\\n"\nPING\n',
        '"-ERR Protocol error: invalid bulk length\\r\\n"\n(closed)\nPONG\n']


@needs_redis
def test_the_recorder_reports_a_difference_and_fails(tmp_path: Path) -> None:
    path = tmp_path / "wrong.txt"
    path.write_text("PING\n---\nPANG\n")
    ran = subprocess.run([sys.executable, "-m", "tests.record", "--check", "--any-version", str(path)],
                         cwd=golden.SCRIPTS.parents[1], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 1
    assert "-PANG" in ran.stdout and "+PONG" in ran.stdout
    assert path.read_text() == "PING\n---\nPANG\n"


@needs_redis
@pytest.mark.skipif(not record.installed("redis-server") or record.version("redis-server") != record.VERSION,
                    reason=f"recordings come from redis-server {record.VERSION}")
@pytest.mark.parametrize("path", golden.scripts(), ids=lambda path: path.stem)
def test_recordings_are_what_redis_says(path: Path) -> None:
    script = golden.load(path)
    if script.advances:
        pytest.skip("recording it takes real time: python -m tests.record --check")
    assert not (record.difference(script) and record.difference(script))       # a busy machine gets a second chance
