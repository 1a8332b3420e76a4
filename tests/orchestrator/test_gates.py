"""Gates: each kind of check lets a good output through and refuses a bad one with a reason a person can act on."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

import numpy
import pytest
import uproot

from orchestrator import chain as chains
from orchestrator import documents, gates
from orchestrator.documents import Claimant
from orchestrator.errors import ChainError, SettingsError
from orchestrator.reports import Report
from orchestrator.step import Work

CHAIN = """
name: c
steps:
  - name: a
    run: x:y
    retries: {count: 1, wait: 5 s, on: []}
    gates:
      - {name: first, %s}
"""


def refusal(tmp_path: Path, words: str, result: dict[str, Any]) -> str | None:
    """Why a gate written so refuses a result; None if it does not."""
    step = chains.loads(CHAIN % words).steps[0]
    work = Work({}, tmp_path, tmp_path, "t", logging.getLogger("test"))
    try:
        gates.check([gate.model_dump(mode="json") for gate in step.gates], {"_id": "d"}, result, work)
    except gates.GateRefused as refused:
        assert refused.gate == "first"
        return str(refused)
    return None


def too_odd(document: dict[str, Any], result: dict[str, Any], work: Work) -> str | None:
    return f"odd: {work.settings['odd']}" if work.settings["odd"] else None


def wrong(document: dict[str, Any], result: dict[str, Any], work: Work) -> Any:
    return 3


def test_a_file_must_be_there_and_of_a_size(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"x" * 1500)
    result = {"file": str(path), "more": {"picture": str(tmp_path / "none")}}
    assert refusal(tmp_path, "size_min: 1 kB, size_max: 2 kB", result) is None
    assert "must have 2000" in str(refusal(tmp_path, "size_min: 2 kB", result))
    assert "may have 1000" in str(refusal(tmp_path, "size_max: 1 kB", result))
    assert "is not there" in str(refusal(tmp_path, "file: more.picture", result))
    assert "names no 'plot'" in str(refusal(tmp_path, "file: plot", result))


def test_a_checksum_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"right")
    result = {"file": str(path), "checksum": "sha256:" + hashlib.sha256(b"right").hexdigest()}
    assert refusal(tmp_path, "checksum: true", result) is None
    path.write_bytes(b"wrong")
    assert "and the step made" in str(refusal(tmp_path, "checksum: true", result))
    assert "no checksum" in str(refusal(tmp_path, "checksum: true", {"file": str(path)}))


@pytest.mark.parametrize(("number", "fine"), [(5, True), (4.9, False), (11, False), (None, False), (True, False)])
def test_a_number_has_its_limits(tmp_path: Path, number: Any, fine: bool) -> None:
    said = refusal(tmp_path, "value: coverage.live, min: 5, max: 10", {"coverage": {"live": number}})
    assert (said is None) is fine
    assert refusal(tmp_path, "value: n, min: 1", {"n": float("nan")}) is not None


def test_a_function_is_asked_with_settings_of_its_own(tmp_path: Path) -> None:
    words = f"check: '{__name__}:too_odd', settings: {{odd: %s}}"
    assert refusal(tmp_path, words % "''", {}) is None
    assert refusal(tmp_path, words % "very", {}) == "odd: very"
    with pytest.raises(SettingsError, match="returned int"):
        refusal(tmp_path, f"check: '{__name__}:wrong'", {})


def test_the_entries_of_a_tree_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "out.root"
    with uproot.recreate(path) as file:
        file["events"] = {"x": numpy.arange(7)}
    words = "check: 'procs.gates:entries', settings: {tree: %s, %s}"
    result = {"file": str(path), "entries": 8}
    assert refusal(tmp_path, words % ("events", "min: 7"), result) is None
    assert "has 7 entries, and must have 8" in str(refusal(tmp_path, words % ("events", "min: 8"), result))
    assert "the step says 8" in str(refusal(tmp_path, words % ("events", "same_as: entries"), result))
    assert "no tree 'none'" in str(refusal(tmp_path, words % ("none", "min: 1"), result))
    path.write_bytes(b"no root file")
    assert "cannot be read" in str(refusal(tmp_path, words % ("events", "min: 7"), result))


@pytest.mark.parametrize(
    "words", ["value: n", "min: 3", "settings: {a: 1}", "check: 'no function'", "sise_min: 3", "size_min: many"]
)
def test_a_gate_that_cannot_be_meant_is_said_when_the_chain_is_read(words: str) -> None:
    with pytest.raises(ChainError, match="gates"):
        chains.loads(CHAIN % words)


@pytest.mark.parametrize(("then", "statuses"), [("bad", ["bad"]), ("retry", ["closed", "bad"])])
def test_a_refusal_is_a_state_of_its_own_and_goes_where_the_chain_says(then: str, statuses: list[str]) -> None:
    step = chains.loads(CHAIN % f"then: {then}").steps[0]
    document: dict[str, Any] = {"_id": "d", "type": "daqdocument", "status": "closed", "file": "/raw/d"}
    for number, status in enumerate(statuses, 1):
        document = documents.claim(document, step, Claimant("p", "h", 1, "here"), f"a{number}", 1000.0 * number)
        report = Report(
            "d", "proc0", f"a{number}", 1.0, 2.0, error_class="refused", reason="too small", gate="first", then=then,
            result={"file": "/out/d", "n": 1},
        )  # fmt: skip
        document, record = documents.fail(document, step, report, 1000.0 * number)
        assert document["status"] == status
        assert (record["_id"], record["state"], record["gate"]) == (f"attempt:d:proc0:{number}", "refused", "first")
    entry = document["proc0"]
    found = (entry["state"], entry["gate"], entry["reason"], entry["file"])
    assert found == ("refused", "first", "too small", "/out/d")
    assert document["reason"] == "the gate 'first' of proc0 (a) refuses the output: too small"
