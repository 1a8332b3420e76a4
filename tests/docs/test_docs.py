"""The guides: generated parts are current, links lead somewhere, commands exist, and the tutorial really runs."""

import importlib.util
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest

from orchestrator.cli import cli

ROOT = Path(__file__).parents[2]
GUIDES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")])
BLOCK = re.compile(r"^```(sh[a-z ]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_parts_are_current() -> None:
    stale = [path.name for path in generator().stale()]
    assert not stale, f"run `python docs/generate.py`: {', '.join(stale)}"


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_links_lead_somewhere(guide: Path) -> None:
    targets = re.findall(r"\]\(([^)#:\s]+)\)", guide.read_text("utf-8"))
    missing = [target for target in targets if not (guide.parent / target).exists()]
    assert not missing


def commands_in(text: str) -> Iterator[list[str]]:
    """The words of each ``orchestrator ...`` in code blocks and inline code, up to what is not ours."""
    blocks = [line for _, block in BLOCK.findall(text) for line in block.splitlines()]
    for line in blocks + re.findall(r"`([^`\n]+)`", text):
        found = re.match(r"\s*(?:python3 deploy/first_run\.py (demo)\b|orchestrator\b)(.*)", line)
        if found:
            rest = found[2].split("#")[0].split("|")[0].split(";")[0]
            yield [*([found[1]] if found[1] else []), *shlex.split(rest)]


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_commands_and_options_exist(guide: Path) -> None:
    for words in commands_in(guide.read_text("utf-8")):
        command: click.Command = cli
        known = options(cli)
        for word in words:
            if word.startswith("-"):
                name = word.split("=")[0]
                assert name in known | options(command), (
                    f"{guide.name}: orchestrator {' '.join(words)}: no option {name}"
                )
            elif isinstance(command, click.Group) and word in command.commands:
                command = command.commands[word]
        plain = [word for word in words if re.fullmatch(r"[a-z]+", word)]
        if plain and command is cli:
            assert plain[0] in ("site", "NAME"), f"{guide.name}: orchestrator {' '.join(words)}: no such command"


def options(command: click.Command) -> set[str]:
    return {name for parameter in command.params for name in parameter.opts} | {"--help", "--version"}


@pytest.mark.system
def test_the_tutorial_runs(tmp_path: Path) -> None:
    """Each block in turn, in one folder, as a reader does it; blocks marked ``fails`` must fail."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("ORCHESTRATOR_")},
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "ORCHESTRATOR_URL": f"http://127.0.0.1:{free_port()}",
        "ORCHESTRATOR_WEB_PORT": str(free_port()),
    }
    folder = tmp_path
    try:
        for kind, block in BLOCK.findall((ROOT / "docs" / "tutorial.md").read_text("utf-8")):
            if "show ma22a000_000" in block:
                wait_until_through(folder, environment, documents=2)
            done = run_block(block, folder, environment)
            assert (done.returncode != 0) == ("fails" in kind), f"{block}\n{done.stdout}{done.stderr}"
            if "cd first" in block:
                folder = tmp_path / "first"
        assert list((folder / "data" / "spreads").rglob("*.json"))
    finally:
        run_block("orchestrator down", folder, environment)


def run_block(block: str, folder: Path, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    words = ["bash", "-euo", "pipefail", "-c", block]
    return subprocess.run(words, cwd=folder, env=environment, text=True, capture_output=True, timeout=120)


def wait_until_through(folder: Path, environment: dict[str, str], documents: int) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        done = run_block("orchestrator status --json", folder, environment)
        if f'"good": {documents}' in done.stdout and '"pending": 0' in done.stdout:
            return
        time.sleep(0.3)
    raise AssertionError(f"the files did not get through: {done.stdout}{done.stderr}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
