"""docs/steps.md: its code runs, its configuration loads, and its tables name every setting with its default."""

from __future__ import annotations

import importlib
import logging
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator import chain as chains
from orchestrator.step import Work, birth
from procs import amplitude, convert, histograms, transfer, trees
from procs.simulate import simulate

GUIDE = (Path(__file__).parents[2] / "docs" / "steps.md").read_text("utf-8")
BLOCK = re.compile(r"^```(\w+) (.+?)\n(.*?)^```", re.MULTILINE | re.DOTALL)
ROW = re.compile(r"^\| `(\w+)` \| (.+?) \|", re.MULTILINE)
SECTIONS = {
    "### transfer": [transfer.DEFAULTS],
    "### convert": [convert.DEFAULTS],
    "### amplitude": [amplitude.DEFAULTS],
    "### histograms": [histograms.DEFAULTS],
    "### take": [trees.TAKE, trees.SELECT, trees.MASS],
}


def blocks(language: str, kind: str) -> list[tuple[str, str]]:
    return [(words, text) for name, words, text in BLOCK.findall(GUIDE) if name == language and words.startswith(kind)]


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The guide's files, in a folder that Python finds."""
    for words, text in blocks("python", "file="):
        (tmp_path / words.removeprefix("file=")).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    return tmp_path


def test_the_first_step_runs(modules: Path, work: Callable[..., Work]) -> None:
    written = simulate(modules / "daq", runs=1, partitions=1, events=40, broken=0, date_runs=0)[0]
    document = {"_id": "ma22a000_000", "run_name": "ma22a000", "format": "samba"}
    converted = convert.convert(document, work(written.path))["file"]
    ran = blocks("python", "run")
    assert ran
    for _, text in ran:
        names: dict[str, Any] = {"site": modules, "converted": converted}
        exec(compile(text, "docs/steps.md", "exec"), names)
        assert Path(names["result"]["file"]).is_file()


def test_the_class_is_born_and_dies(modules: Path, work: Callable[..., Work]) -> None:
    step = birth("myclass:Scale", {"factor": 0.5}, logging.getLogger("step"))
    assert step.process({"size": 8}, work(None)) == {"scaled": 4.0}
    step.close()  # type: ignore[attr-defined]


def test_the_executable_runs(modules: Path) -> None:
    (modules / "in").write_text("a\nb\n")
    subprocess.run([sys.executable, modules / "lines.py", modules / "in", modules / "out"], check=True)
    assert yaml.safe_load((modules / "out").read_text()) == {"lines": 2}


def test_the_blocks_for_chain_files_load() -> None:
    found = blocks("yaml", "step")
    assert len(found) == 3
    for _, text in found:
        entry = textwrap.indent(text, "    ").replace("    ", "  - ", 1)
        first = "  - name: convert\n    run: procs.convert:convert\n"
        chain = chains.loads(f"name: test\nsteps:\n{first}{entry}", "docs/steps.md")
        assert len(chain.steps) == 2


@pytest.mark.parametrize("section", SECTIONS)
def test_every_setting_is_in_its_table_with_its_default(section: str) -> None:
    start = GUIDE.index(section)
    end = GUIDE.find("\n### ", start + 1)
    tables = GUIDE[start : end if end > 0 else None].split("| --- | --- | --- |\n")[1:]
    assert len(tables) == len(SECTIONS[section])
    for table, defaults in zip(tables, SECTIONS[section], strict=True):
        rows = {name: value.strip("`") for name, value in ROW.findall(table)}
        assert set(rows) == set(defaults)
        for name, default in defaults.items():
            shown = "" if rows[name] == "(empty)" else yaml.safe_load(rows[name])
            assert shown == default, f"{section}: {name}"
