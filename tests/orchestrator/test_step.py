"""Steps are found by name, with errors that say what to do, and live as long as their worker."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator.errors import DataError, SettingsError
from orchestrator.step import Work, birth, death, find

LOG = logging.getLogger("test")


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("nothing", "write it as"),
        (":x", "write it as"),
        ("no_such_module_here:x", "Install what it needs, or correct"),
        ("procs.noop:nothin", "did you mean 'nothing'"),
        ("orchestrator.version:VERSION", "not a function or a class"),
        ("logging:Filter", "no method process"),
    ],
)
def test_a_reference_that_names_no_step_says_what_to_do(reference: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        birth(reference, {}, LOG)


def test_a_function_is_a_step_and_has_nothing_to_close(tmp_path: Path) -> None:
    made = birth("procs.noop:nothing", {}, LOG)
    work = Work({"result": {"a": 1}}, tmp_path, tmp_path, "t", LOG)
    assert made.process({}, work) == {"a": 1}
    death(made)


def test_death_closes_what_can_be_closed() -> None:
    closed: list[int] = []
    death(SimpleNamespace(close=lambda: closed.append(1), process=None))  # type: ignore[arg-type]
    assert closed == [1]


def test_work_without_a_file_is_the_documents_fault(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="names no file"):
        _ = Work({}, tmp_path, tmp_path, "t", LOG).input


def test_output_paths_are_below_the_data_directory_unless_absolute(tmp_path: Path) -> None:
    work = Work({}, tmp_path, tmp_path, "t", LOG)
    assert work.output_path("raw", "f") == tmp_path / "raw" / "f"
    assert work.output_path("/elsewhere", "f") == Path("/elsewhere/f")


def test_find_returns_what_the_reference_names() -> None:
    assert find("os.path:join") is __import__("os").path.join
