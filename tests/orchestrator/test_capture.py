"""Logs of attempts: whole, each its own, bounded, and never the reason why a result is lost."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import capture
from orchestrator.capture import Capture, keep_left, output_path, safe_file_name


@given(st.text(max_size=300), st.text(max_size=300))
def test_any_text_becomes_a_file_name_that_is_no_path_and_different_texts_different_ones(one: str, other: str) -> None:
    name = safe_file_name(one)
    assert 0 < len(name) <= 180
    assert "/" not in name
    assert not name.startswith(".")
    assert name.isascii()
    assert safe_file_name(name) == name, "a name that is safe already stays as it is"
    if one != other and name == one:
        assert safe_file_name(other) != name or safe_file_name(other) == other == name


@pytest.mark.parametrize("name", ["..", "/etc/passwd", "\ud800", "\udcff", "", "a" * 500, "é\n"])
def test_hostile_names_are_carried(name: str) -> None:
    assert "/" not in safe_file_name(name)


def test_each_attempt_has_its_own_log_and_silence_leaves_none(tmp_path: Path) -> None:
    made = Capture(tmp_path / "scratch", "w", redirect=False)
    made.logger.info("first")
    kept, tail = made.keep(tmp_path / "logs", "a", tail=True)
    assert kept is not None
    assert "first" in tail
    assert made.keep(tmp_path / "logs", "b", tail=True) == (None, "")
    made.logger.info("third")
    again, _ = made.keep(tmp_path / "logs", "c", tail=False)
    assert again is not None
    assert "first" not in Path(again).read_text()
    made.close()
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_log_folder_that_cannot_be_written_costs_the_log_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "logs").touch()
    made = Capture(tmp_path / "scratch", "w", redirect=False)
    made.logger.info("words")
    kept, tail = made.keep(tmp_path / "logs", "a", tail=True)
    assert kept is None
    assert "could not be kept" in tail
    assert "words" in tail
    assert made.keep(tmp_path / "logs", "b", tail=True) == (None, ""), "and the next attempt begins with an empty one"
    made.close()


def test_a_log_goes_from_one_file_system_to_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other_file_system(path: Path, target: Path) -> Path:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(Path, "rename", other_file_system)
    made = Capture(tmp_path / "scratch", "w", redirect=False)
    made.logger.info("words")
    kept, _ = made.keep(tmp_path / "logs", "a", tail=False)
    assert kept is not None
    assert "words" in Path(kept).read_text()
    assert made.keep(tmp_path / "logs", "b", tail=True) == (None, "")
    made.close()


def test_what_a_dead_process_left_is_kept_once_and_cut_in_its_middle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture, "LOG_LIMIT", 1000)
    path = output_path(tmp_path, "w")
    path.write_bytes(b"first" + b"." * 5000 + b"last")
    kept, tail = keep_left(path, tmp_path / "logs", "a")
    assert kept is not None
    text = Path(kept).read_text()
    assert text.startswith("first")
    assert text.endswith("last")
    assert "4009 bytes are left out here" in text
    assert tail.endswith("last")
    assert keep_left(path, tmp_path / "logs", "a") == (None, "")
