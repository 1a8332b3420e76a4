"""Where outputs come from, by what documents say."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator import chain as chains
from orchestrator import provenance

CHAIN = chains.loads("""
name: x
steps:
  - {name: transfer, run: 'procs.noop:noop'}
  - {name: convert, run: 'procs.noop:noop'}
  - {name: check, run: 'procs.noop:noop', needs: [transfer]}
""")


def document(**more: Any) -> dict[str, Any]:
    entry = {"state": "done", "attempt": "a", "number": 1, "host": "h", "software": {"step": "1"}}
    return {
        "_id": "x", "type": "daqdocument", "status": "good", "file": "/raw/x", "size": 9, "checksum": "sha256:raw",
        "proc0": {**entry, "step": "transfer", "file": "/data/x", "checksum": "sha256:copy"},
        "proc1": {**entry, "step": "convert", "attempt": "b", "file": "/data/x.root", "checksum": "sha256:root",
                  "result": {"plots": [{"file": "/data/x.png"}]}},
        "proc2": {**entry, "step": "check"}, **more,
    }  # fmt: skip


def test_each_steps_input_is_what_the_step_before_it_left() -> None:
    found = provenance.of_document(CHAIN, document())
    assert [one.key for one in found.steps] == ["proc0", "proc1", "proc2"]
    assert [one.input["file"] for one in found.steps] == ["/raw/x", "/data/x", "/data/x"]
    assert found.steps[1].input["checksum"] == "sha256:copy"
    assert found.raw == {"file": "/raw/x", "size": 9, "checksum": "sha256:raw"}


def test_of_one_output_only_what_led_to_it_is_told() -> None:
    found = provenance.of_document(CHAIN, document(), CHAIN.step("check"))
    assert [one.key for one in found.steps] == ["proc0", "proc2"]


@pytest.mark.parametrize(
    ("path", "step"),
    [("/data/x", "transfer"), ("/data/x.root", "convert"), ("/data/x.png", "convert"), ("/data/y", None)],
)
def test_a_file_is_known_by_the_step_that_left_it(path: str, step: str | None) -> None:
    found = provenance.step_of_file(CHAIN, document(), path)
    assert (found.name if found else None) == step


def test_an_output_that_differs_from_the_database_is_told_of() -> None:
    found = provenance.of_document(CHAIN, document(), CHAIN.step("convert"))
    assert provenance.compare(found, {"attempt": "b", "input": {"checksum": "sha256:copy"}}, "sha256:root") == []
    said = provenance.compare(found, {"attempt": "old", "input": {"checksum": "sha256:other"}}, "sha256:changed")
    assert len(said) == 3 and "another try" in said[1] and "another input" in said[2]


def test_names_become_shorter_until_nothing_is_left_to_take_away() -> None:
    assert list(provenance.names("/a/ma22a000_000_histograms.root")) == [
        "ma22a000_000_histograms.root", "ma22a000_000_histograms", "ma22a000_000", "ma22a000",
    ]  # fmt: skip


def test_a_document_in_whatever_state_is_no_error() -> None:
    for entry in (None, 3, [], {}, {"state": "done"}, {"state": "done", "software": 3, "number": "x"}):
        provenance.of_document(CHAIN, document(proc1=entry, members=[3, {"id": "a"}]))
