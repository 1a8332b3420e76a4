"""`orchestrator site`: its words, its answers and its exit codes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import Exit

Commands = Callable[..., Any]  # see conftest.py
CHAIN = """
name: x
farms:
  centre: {{scheduler: slurm, spool: {folder}/far, transport: ssh, output: /o, access: {{host: 127.0.0.1, port: 1}}}}
steps:
- {{name: one, run: 'onlyhere:step', executor: farm, farm: centre}}
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "chain.yaml").write_text(CHAIN.format(folder=tmp_path))
    (tmp_path / "onlyhere.py").write_text("import yaml\ndef step(document, work):\n    return {}\n")
    return tmp_path


def test_a_dry_run_says_what_would_be_sent_and_asks_nobody(orchestrator: Commands, site: Path) -> None:
    done = orchestrator("site", "install", "--dry-run", "--json")
    assert done.code == 0 and "steps/onlyhere.py" in done.json["files"]
    assert [one.partition("==")[0] for one in done.json["requirements"]] == ["PyYAML"]
    assert "PyYAML==" in orchestrator("site", "install", "--dry-run").out


@pytest.mark.parametrize("words", [("check",), ("install",), ("versions",)])
def test_a_machine_that_does_not_answer_is_a_sentence(orchestrator: Commands, site: Path, words: tuple[str]) -> None:
    done = orchestrator("site", *words)
    assert done.code == Exit.UNAVAILABLE and "127.0.0.1" in done.out + done.err and "Traceback" not in done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--wheels", "w", "--pip"), "either from --wheels or by --pip"),
        (("--download",), "--download needs --wheels"),
        (("--require", "numpy"), "--require goes with"),
    ],
)
def test_words_that_do_not_go_together(orchestrator: Commands, site: Path, words: tuple[str, ...], said: str) -> None:
    done = orchestrator("site", "install", *words)
    assert done.code == Exit.USAGE and said in done.err


def test_a_farm_that_is_not_used_is_named_with_those_that_are(orchestrator: Commands, site: Path) -> None:
    done = orchestrator("site", "check", "elsewhere")
    assert done.code == Exit.SETTINGS and "farms that it uses: centre" in done.err
    (site / "chain.yaml").write_text("name: x\nsteps: [{name: one, run: 'procs.noop:nothing'}]\n")
    assert "sends no step" in orchestrator("site", "check").err
