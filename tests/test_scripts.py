"""Every golden script gives on both machines what a real redis-server gave."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import golden
from tests.conftest import Machine


@pytest.mark.parametrize("path", golden.scripts(), ids=lambda path: path.stem)
def test_script(path: Path, machine: Machine) -> None:
    script = golden.load(path)
    machine.start(**script.directives)
    wrong = []
    for block, said in golden.play(script, machine):
        if said != block.expected:
            above = "\n".join(block.above)
            wrong.append(f"{path.name}, line {block.number}:\n{above}\n--- Redis:\n{block.expected}\n--- kvref:\n{said}")
    assert not wrong, "\n\n".join(wrong)
