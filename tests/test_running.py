"""kvref.running(): a server in a process of its own, that never outlives its block."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import redis

import kvref
from kvref.process import RunningServer

ROOT = Path(__file__).parent.parent


def gone(server: RunningServer) -> bool:
    """Whether neither the process nor its port are there any more."""
    with pytest.raises(ProcessLookupError):
        os.kill(server.pid, 0)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), timeout=5)
    return True


def test_it_answers_when_the_block_begins_and_is_gone_afterwards() -> None:
    with kvref.running(maxclients=50, save="", protected_mode=False) as server:
        client = redis.Redis(port=server.port, decode_responses=True)
        assert client.set("course", "redis") and client.get("course") == "redis"
        assert client.config_get("maxclients", "protected-mode") == {"maxclients": "50", "protected-mode": "no"}
        assert client.info("server")["process_id"] == server.pid != os.getpid()
        assert client.config_get("dir")["dir"] == os.path.realpath(server.dir)
        assert repr(server) == f"<kvref running on port {server.port}, pid {server.pid}, dir {server.dir}>"
    assert gone(server)
    assert not Path(server.dir).exists()
    assert repr(server).endswith(", ended with status 0>")


def test_two_servers_have_ports_and_directories_of_their_own() -> None:
    with kvref.running() as one, kvref.running() as other:
        assert one.port != other.port and one.dir != other.dir
        redis.Redis(port=one.port).set("k", "v")
        assert redis.Redis(port=other.port).dbsize() == 0


def test_it_is_gone_when_the_block_raises() -> None:
    with pytest.raises(ZeroDivisionError), kvref.running() as server:
        1 / 0
    assert gone(server)


def test_kill_is_immediate_and_may_come_twice() -> None:
    with kvref.running() as server:
        server.kill()
        assert gone(server)
        server.kill()
    assert "bye bye" not in server.log and repr(server).endswith("ended with status -9>")


def test_its_log_can_be_read_while_it_runs() -> None:
    with kvref.running(loglevel="debug") as server:
        assert "Ready to accept connections" in server.log
        assert list(Path(server.dir).iterdir()) == []       # the log is not in the way of the data


def test_a_directory_that_was_given_stays(tmp_path: Path) -> None:
    with kvref.running(dir=tmp_path) as server:
        assert redis.Redis(port=server.port).config_get("dir")["dir"] == str(tmp_path.resolve())
    assert tmp_path.exists()


def test_a_password_does_not_keep_it_from_starting() -> None:
    with kvref.running(requirepass="secret") as server:
        assert redis.Redis(port=server.port, password="secret").ping()


def test_what_keeps_it_from_starting_is_told() -> None:
    with pytest.raises(RuntimeError) as caught, kvref.running(maxmemory_clients="1gb"):
        pass
    assert str(caught.value) == ("kvref did not start: kvref: command line: maxmemory-clients: kvref does not evict "
                                 "clients; take it out or write: maxmemory-clients 0.")


def test_nothing_is_written_to_the_standard_output_of_the_caller(capfd: pytest.CaptureFixture[str]) -> None:
    with kvref.running() as server:
        redis.Redis(port=server.port).ping()
    assert capfd.readouterr() == ("", "")


def test_ctrl_c_in_the_terminal_is_not_for_it() -> None:
    with kvref.running() as server:
        assert os.getpgid(server.pid) != os.getpgid(0)


def test_a_stopped_server_is_killed_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvref.process.END_S", 0.1)
    with kvref.running() as server:
        os.kill(server.pid, signal.SIGSTOP)
    assert gone(server)


def test_it_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    """The parent says where the server is, and dies without a chance to clean up."""
    code = ("import kvref, os, signal\n"
            f"server = kvref.running(dir={str(tmp_path)!r}).__enter__()\n"
            "print(server.pid, server.port, flush=True)\n"
            "os.kill(os.getpid(), signal.SIGKILL)\n")
    parent = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60,
                            env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert parent.returncode == -signal.SIGKILL
    pid, port = map(int, parent.stdout.split())
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
            assert sock.recv(1) == b""          # nothing comes but the end
    except (ConnectionRefusedError, ConnectionResetError):
        pass                                    # it has ended already
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=20)


def test_importing_kvref_imports_nothing_else() -> None:
    code = "import kvref, sys; print([name for name in sys.modules if name.startswith('kvref.') or name == 'socket'])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.stdout == "[]\n"
    with pytest.raises(AttributeError, match="no attribute 'walking'"):
        kvref.walking
