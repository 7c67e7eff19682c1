"""python -m kvref: what it says, how it starts and ends, and what it does with what it cannot use."""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kvref.__main__ import Log, _timestamp
from kvref.config import Config
from tests.record import free_port

ROOT = Path(__file__).parent.parent
KVREF = [sys.executable, "-m", "kvref"]
LINE = re.compile(r"\d+:M \d\d (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) \d{4} \d\d:\d\d:\d\d\.\d{3} [-.*#] .+")


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


def run(*words: str, stdin: str = "", cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    """A kvref that ends by itself."""
    return subprocess.run([*KVREF, *words], input=stdin, capture_output=True, text=True, timeout=30, cwd=cwd,
                          env=environment(**env))


@contextmanager
def started(*words: str, cwd: Path, stdin: str = "") -> Iterator[tuple[subprocess.Popen[str], int, str]]:
    """A kvref that serves, its port, and what it has said."""
    for _ in range(20):                     # somebody else may take the port first
        port = free_port()
        process = subprocess.Popen([*KVREF, *words, "--port", str(port)] + (["-"] if stdin else []), cwd=cwd, text=True,
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   env=environment())
        assert process.stdin and process.stdout
        process.stdin.write(stdin)
        process.stdin.close()
        process.stdin = None
        said = ""
        for line in process.stdout:
            said += line
            if "Ready to accept" in line:
                break
        if process.poll() is None and "Ready" in said:
            break
        process.communicate()
    try:
        yield process, port, said
    finally:
        process.kill()
        process.communicate()


def ask(port: int, *words: str) -> bytes:
    """One inline command and the beginning of its reply."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.sendall(" ".join(words).encode() + b"\r\n")
        return sock.recv(4096)


# ---- what it says --------------------------------------------------------------------------------

@pytest.mark.parametrize("word", ["-h", "--help"])
def test_help_is_short_and_names_the_ways_to_start(word: str) -> None:
    result = run(word)
    assert result.returncode == 0 and result.stderr == ""
    assert result.stdout.startswith("Usage: python -m kvref [redis.conf] [--directive value ...]")
    assert len(result.stdout.splitlines()) <= 20


@pytest.mark.parametrize("word", ["-v", "--version"])
def test_version_names_both_versions(word: str) -> None:
    result = run(word)
    assert result.returncode == 0
    pattern = r"kvref \d+\.\d+\.\d+, behaving as Redis server v=7\.0\.15 \(Python 3\.\d+\.\S+\)\n"
    assert re.fullmatch(pattern, result.stdout)


def test_log_lines_have_redis_form_and_obey_loglevel(tmp_path: Path) -> None:
    config = Config.load(None, ["--logfile", str(tmp_path / "log"), "--loglevel", "verbose"])
    log = Log(config)
    for level in ".-*#":
        log(level, f"level {level} \udcff")
    config.loglevel = "warning"
    log("*", "too soft")
    lines = (tmp_path / "log").read_text().splitlines()
    assert [line[-14:] for line in lines] == [f"level {level} \\udcff"[-14:] for level in "-*#"]
    assert all(LINE.fullmatch(line) for line in lines)


def test_the_timestamp_has_milliseconds() -> None:
    assert re.fullmatch(r"\d\d \w{3} 2026 \d\d:\d\d:10\.123", _timestamp(1795380070.1239))


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    Log(Config.load(None, ["--logfile", str(tmp_path)]))("#", "a directory is no file")


# ---- starting and ending -------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_ends_it_cleanly(name: str, tmp_path: Path) -> None:
    with started("--pidfile", "kvref.pid", "--save", "", cwd=tmp_path) as (process, port, _):
        assert ask(port, "PING") == b"+PONG\r\n"
        assert (tmp_path / "kvref.pid").read_text() == f"{process.pid}\n"
        process.send_signal(signal.Signals[name])
        rest, errors = process.communicate(timeout=20)
        assert process.returncode == 0 and errors == ""
    said = rest.splitlines()
    assert all(LINE.fullmatch(line) for line in said)
    assert f"Received {name} scheduling shutdown..." in rest and "bye bye" in said[-1]
    assert list(tmp_path.iterdir()) == []


def test_shutdown_ends_it_with_status_0(tmp_path: Path) -> None:
    with started(cwd=tmp_path) as (process, port, _):
        assert ask(port, "SHUTDOWN", "NOSAVE") == b""
        process.communicate(timeout=20)
        assert process.returncode == 0


def test_file_standard_input_and_command_line_come_in_this_order(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    conf = tmp_path / "my.conf"
    conf.write_text("hz 20\ntimeout 20\nmaxclients 20\ndir data\nlogfile \"\"\nio-threads 2\n")
    words = ("my.conf", "--maxclients", "40")
    with started(*words, cwd=tmp_path, stdin="timeout 30\nmaxclients 30\n") as (_, port, _):
        assert ask(port, "CONFIG GET hz") == b"*2\r\n$2\r\nhz\r\n$2\r\n20\r\n"
        assert ask(port, "CONFIG GET timeout").endswith(b"\r\n30\r\n")
        assert ask(port, "CONFIG GET maxclients").endswith(b"\r\n40\r\n")
        assert ask(port, "CONFIG GET dir").endswith(str(tmp_path / "data").encode() + b"\r\n")
        assert ask(port, "CONFIG SET timeout 31") == ask(port, "CONFIG REWRITE") == b"+OK\r\n"
    assert conf.read_text().startswith("hz 20\ntimeout 31\nmaxclients 40\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "my.conf"]


def test_config_set_dir_goes_there_or_says_why_not(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with started("--enable-protected-configs", "local", cwd=tmp_path) as (_, port, _):
        assert ask(port, "CONFIG SET dir data") == b"+OK\r\n"
        assert ask(port, "CONFIG SET hz 20 dir /none") == (
            b"-ERR CONFIG SET failed (possibly related to argument 'dir') - No such file or directory\r\n")
        assert ask(port, "CONFIG GET dir").endswith(f"{tmp_path}/data\r\n".encode())
        assert ask(port, "CONFIG GET hz").endswith(b"\r\n10\r\n")


def test_directives_without_effect_are_named_in_one_line(tmp_path: Path) -> None:
    with started("--io-threads", "4", "--activerehashing", "no", cwd=tmp_path) as (_, _, said):
        assert [line[line.index("#"):] for line in said.splitlines() if "io-threads" in line] == [
            "# Known, and without effect here: io-threads, activerehashing"]


def test_a_listening_socket_may_be_handed_down(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = subprocess.Popen([*KVREF, "--port", "0"], cwd=tmp_path, pass_fds=[listener.fileno()],
                                   stdout=subprocess.DEVNULL, env=environment(KVREF_LISTEN_FD=str(listener.fileno())))
        port = listener.getsockname()[1]
    try:
        assert ask(port, "CONFIG GET port") == b"*2\r\n$4\r\nport\r\n$5\r\n%d\r\n" % port
    finally:
        process.terminate()
        assert process.wait(20) == 0


# ---- what it cannot use --------------------------------------------------------------------------

def test_a_port_in_use_is_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        result = run("--port", str(port), "--bind", "127.0.0.1")
    assert result.returncode == 1
    assert result.stderr == (f"kvref: Could not create server TCP listening socket 127.0.0.1:{port}: bind: Address "
                             "already in use; choose another --port or --bind, or end what listens there.\n")
    assert f"# Failed listening on port {port} (TCP), aborting.\n" in result.stdout


@pytest.mark.parametrize(("words", "sentence"), [
    (["none.conf"], "none.conf: No such file or directory; give the name of a redis.conf, or none."),
    (["/"], "kvref: /: Is a directory; give the name of a redis.conf, or none."),
    (["--port", "x"], "command line: port: argument couldn't be parsed into an integer; correct it or take it out."),
    (["--frob"], "command line: frob: no such directive in Redis 7.0, or the wrong number of arguments; "),
    (["-p", "7"], "command line: -p: no such directive"),
    (["--daemonize", "yes"], "daemonize: kvref stays in the foreground; take it out or write: daemonize no."),
    (["--port", "0"], "port 0 or an empty bind: there is nothing to listen on; choose a port and an address."),
    (["--bind", ""], "there is nothing to listen on; choose a port and an address."),
    (["--dir", "none/such"], "none/such: No such file or directory; make this directory or choose another."),
    (["--logfile", "none/such"], "logfile none/such: No such file or directory; choose a file that can be written."),
    (["--bind", "203.0.113.7"], "203.0.113.7:6379: bind: "),
    (["--requirepass", "a\udcff", "b"], "command line: requirepass: wrong number of arguments"),
])
def test_what_cannot_be_used_is_one_sentence_and_status_1(words: list[str], sentence: str, tmp_path: Path) -> None:
    result = run(*words, cwd=tmp_path)
    assert result.returncode == 1
    assert sentence in result.stderr and result.stderr.count("\n") == 1 and result.stderr.startswith("kvref: ")


def test_a_wrong_line_of_a_file_is_named_with_its_number(tmp_path: Path) -> None:
    (tmp_path / "my.conf").write_text("# mine\nhz\n")
    assert f"{tmp_path}/my.conf line 2: hz: wrong number of arguments; " in run("my.conf", cwd=tmp_path).stderr
    assert "standard input line 1: foo: no such directive" in run("-", stdin="foo 1\n").stderr


@pytest.mark.parametrize("number", ["x", "0", "999"])
def test_a_socket_that_is_none_is_one_sentence(number: str) -> None:
    result = run(KVREF_LISTEN_FD=number)
    assert result.returncode == 1
    assert result.stderr == f"kvref: KVREF_LISTEN_FD={number}: this is no open socket; hand one down or unset it.\n"


def test_a_log_that_cannot_be_written_ends_the_process_with_status_1(tmp_path: Path) -> None:
    """With `always`; the disk is full behind 100 bytes of any file. What was answered is there at the next start."""
    if not hasattr(resource, "prlimit"):
        pytest.skip("this system cannot limit the files of another process")
    words = ("--appendonly", "yes", "--appendfsync", "always")
    with started(*words, cwd=tmp_path) as (process, port, _):
        assert ask(port, "SET a 1") == b"+OK\r\n"
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (100, hard))
        assert ask(port, "SET", "b", "x" * 200) == b""
        said, complaint = process.communicate(timeout=30)
        assert process.returncode == 1
    assert "Can't recover from AOF write error when the AOF fsync policy is 'always'. Exiting..." in said
    assert "BUG" not in said and complaint == ""
    with started(*words, cwd=tmp_path) as (_, port, said):
        assert ask(port, "EXISTS a b") == b":1\r\n" and "cut off" not in said


# ---- open files ----------------------------------------------------------------------------------

def limited(soft: int, hard: int, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """What `words` say under these limits of open files."""
    code = f"import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard})); {'; '.join(words)}"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=cwd, env=environment())


def test_the_limit_of_open_files_is_raised_for_the_clients(tmp_path: Path) -> None:
    asked = ["from kvref.__main__ import allow_clients", "print(allow_clients(400))",
             "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"]
    assert limited(64, 1000, *asked, cwd=tmp_path).stdout == "400\n432\n"


def test_maxclients_shrinks_to_what_the_limit_allows(tmp_path: Path) -> None:
    asked = ["from kvref.__main__ import allow_clients", "print(allow_clients(10**9))"]
    assert limited(64, 1000, *asked, cwd=tmp_path).stdout == "968\n"


def test_a_limit_without_room_for_a_client_is_one_sentence(tmp_path: Path) -> None:
    asked = ["from kvref import __main__ as m", "m.OWN_FILES = 10**9", "sys.exit(m.main(['--port', '7']))"]
    result = limited(64, 64, *asked, cwd=tmp_path)
    assert result.returncode == 1 and result.stderr.count("\n") == 1
    assert "only 64 files may be open, too few for one client; raise 'ulimit -n'." in result.stderr


def test_config_set_maxclients_is_refused_above_the_limit(tmp_path: Path) -> None:
    with started("--maxclients", "10", cwd=tmp_path) as (_, port, _):
        assert ask(port, "CONFIG SET maxclients 1000000000 hz 20").startswith(
            b"-ERR CONFIG SET failed (possibly related to argument 'maxclients') - The operating system is not able "
            b"to handle the specified number of clients, try with ")
        assert ask(port, "CONFIG GET maxclients").endswith(b"\r\n10\r\n")
        assert ask(port, "CONFIG GET hz").endswith(b"\r\n10\r\n")
