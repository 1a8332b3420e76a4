"""The guide's modules and files for the live system are those of a student: they are tried as the guide says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.online import configuration

GUIDE = (Path(__file__).parents[2] / "docs" / "online.md").read_text("utf-8")


def block(language: str, has: str) -> str:
    """The code block of a language that contains a text."""
    found = re.findall(rf"^```{language}\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    return next(one for one in found if has in one)


def test_a_module_is_twenty_lines_and_runs_alone_on_a_file(tmp_path: Path) -> None:
    module = block("python", "class TriggersPerSpill")
    assert len(module.splitlines()) <= 20
    (tmp_path / "mine.py").write_text(module)
    (tmp_path / "spills.json").write_text(block("json", "triggers"))
    said = []
    for line in block("sh", "online try mine:CountTriggers").splitlines():
        words = line.removeprefix("orchestrator ").split()
        done = subprocess.run(
            [sys.executable, "-P", "-m", "orchestrator.cli", *words], cwd=tmp_path, capture_output=True, text=True,
            timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        said.append(done.stdout)
    assert re.search(r"spill 0 \(\S+ ms\)\n  \+ triggers: 3\n", said[0])
    assert "triggers: Triggers per spill\n  entries 3\n" in said[1]
    assert (tmp_path / "try-TriggersPerSpill" / "TriggersPerSpill.root").stat().st_size > 0
    assert (tmp_path / "try-TriggersPerSpill" / "triggers.png").read_bytes().startswith(b"\x89PNG")


def test_the_first_online_yaml_is_right(tmp_path: Path) -> None:
    found = configuration.loads(block("yaml", "title: My experiment"))
    assert [one.name for one in found.reduce] == ["tdc", "occupancy"]


@pytest.mark.parametrize("name", ["mice", "samba"])
def test_the_ready_made_files_are_right(name: str) -> None:
    configuration.load(Path(__file__).parents[2] / "procs" / "online" / "examples" / f"{name}.yaml")
