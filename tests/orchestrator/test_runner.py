"""The runner: whatever a step does ends in a report with a class and a reason."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator import chain as chains
from orchestrator.capture import Capture
from orchestrator.documents import Report
from orchestrator.runner import Places, Runner, Task

STEPS = """
from orchestrator.errors import DataError, FormatError, ResourceError, TransientError
FAULTS = {
    "data": DataError("cut"), "format": FormatError("cut", offset=3), "transient": TransientError("away"),
    "resources": ResourceError("too much"), "memory": MemoryError(), "system": OSError(28, "No space left on device"),
    "bug": ZeroDivisionError("division by zero"),
}
def fault(document, work):
    raise FAULTS[document["x"]]
def gives(document, work):
    return document["x"]
def where(document, work):
    (work.directory / "f").write_text("x")
    return {"directory": str(work.directory), "input": work.source, "output": str(work.output)}
class Bad:
    def __init__(self, settings, log): self.settings = settings
    def process(self, document, work): return {"set": self.settings["a"]}
    def close(self): raise RuntimeError("cannot close")
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Report]]:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "runnersteps.py").write_text(STEPS)
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    sys.modules.pop("runnersteps", None)
    output = Capture(tmp_path / "scratch", "w", redirect=False)
    runners: list[Runner] = []

    def run(step: str, x: Any = None) -> Report:
        chain = chains.loads(f"name: t\nsteps:\n  - {{name: s, {step}}}\n")
        runner = Runner(chain, Places(tmp_path / "out", tmp_path / "scratch", tmp_path / "logs"), output)
        runners.append(runner)
        return runner.run(Task({"_id": "d", "x": x}, "proc0", "t", "/raw/d"))

    yield run
    for runner in runners:
        runner.close()
    output.close()


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        ("data", "data", "cut"),
        ("format", "data", "byte 3"),
        ("transient", "transient", "away"),
        ("resources", "resources", "too much"),
        ("memory", "resources", "ran out of memory"),
        ("system", "transient", "No space left"),
        ("bug", "code", "runnersteps.py, line"),
    ],
)
def test_each_kind_of_fault_has_its_class(run: Callable[..., Report], fault: str, kind: str, words: str) -> None:
    report = run("run: 'runnersteps:fault'", fault)
    assert (report.error_class, report.exit_code, report.result) == (kind, 1, {})
    assert words in report.reason
    assert report.log is not None, "the log says more"


@pytest.mark.parametrize("result", [None, [1], "text", 5, {"x": float("nan")}, {"x": {1, 2}}, {"x": "y" * 2_000_000}])
def test_what_no_document_can_hold_is_refused(run: Callable[..., Report], result: Any) -> None:
    report = run("run: 'runnersteps:gives'", result)
    assert report.error_class == "code"
    assert report.result == {}


def test_text_that_is_no_unicode_is_made_readable(run: Callable[..., Report]) -> None:
    report = run("run: 'runnersteps:gives'", {"name": "caf\udce9", "half": ["\ud800"]})
    assert report.ok
    assert report.result == {"name": "caf\\xe9", "half": ["\\ud800"]}


def test_a_step_has_its_places_and_its_scratch_goes(run: Callable[..., Report], tmp_path: Path) -> None:
    report = run("run: 'runnersteps:where'")
    assert report.ok
    assert report.result == {
        "directory": str(tmp_path / "scratch" / "t"), "input": "/raw/d", "output": str(tmp_path / "out")
    }  # fmt: skip
    assert not (tmp_path / "scratch" / "t").exists()
    assert report.seconds > 0
    assert report.max_rss > 1_000_000


def test_a_step_that_cannot_be_closed_harms_nobody(run: Callable[..., Report]) -> None:
    assert run("run: 'runnersteps:Bad', settings: {a: 5}").result == {"set": 5}


def test_an_executable_that_leaves_no_json_is_told_so(run: Callable[..., Report]) -> None:
    report = run(
        f"command: ['{sys.executable}', '-c', 'import sys; open(sys.argv[1], \"w\").write(\"[\")', '{{result}}']"
    )
    assert report.error_class == "code"
    assert "not JSON" in report.reason


def test_an_executable_ended_by_a_signal_has_its_class(run: Callable[..., Report]) -> None:
    report = run(f"command: ['{sys.executable}', '-c', 'import os; os.kill(os.getpid(), 9)']")
    assert (report.error_class, report.exit_code) == ("resources", -9)
    assert "signal 9" in report.reason
