"""A child that outlives its server."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kvref.machine import RealDisk, RealNetwork, RealProcesses
from kvref.persistence import snapshot


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_the_child_of_a_dead_server_puts_its_file_in_nobodys_place(tmp_path: Path) -> None:
    """What it has saved is older than what another server may have saved since."""
    (ours, theirs), (end, living) = os.pipe(), os.pipe()
    middle = os.fork()
    if not middle:                                          # a server that dies while its child is saving
        RealProcesses(RealNetwork(), RealDisk()).fork(
            lambda disk: (os.read(ours, 1), snapshot.commit(disk, f"{tmp_path}/dump.rdb", f"{tmp_path}/temp", [b"old"])))
        os._exit(0)
    os.waitpid(middle, 0)
    os.close(living)
    (tmp_path / "dump.rdb").write_bytes(b"new")
    os.write(theirs, b"!")
    assert os.read(end, 1) == b""                           # it has ended
    assert (tmp_path / "temp").read_bytes() == b"old" and (tmp_path / "dump.rdb").read_bytes() == b"new"
    for pipe in (ours, theirs, end):
        os.close(pipe)
