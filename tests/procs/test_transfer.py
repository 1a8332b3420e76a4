"""proc0: the copy is bit-identical and proven so, and whatever else happens ends in a sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import DataError, SettingsError, TransientError
from orchestrator.step import Work
from procs import transfer as module
from procs.outputs import checksum
from procs.transfer import transfer

Make = Callable[..., Work]


def document(source: Path, **more: Any) -> dict[str, Any]:
    return {"_id": "d", "run_name": "ma22a000", "file": str(source), **more}


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_the_copy_is_identical_and_described(source: Path, work: Make, tmp_path: Path) -> None:
    result = transfer(document(source, checksum=checksum(source), size=200_000), work(source, output="raw"))
    copy = Path(result["file"])
    assert copy == tmp_path / "data" / "raw" / "ma22a000" / "ma22a000_003"
    assert copy.read_bytes() == source.read_bytes()
    assert (result["size"], result["checksum"]) == (200_000, checksum(source))
    assert (result["reused"], result["verified"]) == (False, True)
    assert files(tmp_path / "data") == ["raw/ma22a000/ma22a000_003"]


def test_done_twice_the_copy_is_reused(source: Path, work: Make) -> None:
    first = transfer(document(source), work(source))
    stamp = Path(first["file"]).stat().st_mtime_ns
    second = transfer(document(source), work(source))
    assert second == {**first, "reused": True}
    assert Path(first["file"]).stat().st_mtime_ns == stamp


def test_another_file_in_its_place_is_refused_or_replaced(source: Path, work: Make) -> None:
    copy = Path(transfer(document(source), work(source))["file"])
    copy.write_bytes(b"another")
    with pytest.raises(DataError, match="is there already and is another file"):
        transfer(document(source), work(source))
    assert copy.read_bytes() == b"another"
    assert transfer(document(source), work(source, overwrite="replace"))["reused"] is False
    assert copy.read_bytes() == source.read_bytes()


def test_a_file_that_is_not_the_registered_one_is_a_data_error(source: Path, work: Make, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="was registered"):
        transfer(document(source, checksum="sha256:" + "0" * 64), work(source))
    with pytest.raises(DataError, match="bytes, but 5 were registered"):
        transfer(document(source, size=5), work(source))
    assert files(tmp_path / "data") == []


def test_a_source_that_changes_meanwhile_is_tried_again(
    source: Path, work: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = module._copy

    def copy(*arguments: Any) -> str:
        total = real(*arguments)
        with source.open("ab") as stream:
            stream.write(b"more")
        return total

    monkeypatch.setattr(module, "_copy", copy)
    with pytest.raises(TransientError, match="changed while it was copied"):
        transfer(document(source), work(source))
    assert files(tmp_path / "data") == []


def test_a_source_that_grows_without_end_is_left(source: Path, work: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 1000)
    real = module.Path.open
    grown: list[int] = []

    def opened(self: Path, *arguments: Any, **more: Any) -> Any:
        if self == source and not grown:
            grown.append(1)
            with real(source, "ab") as stream:
                stream.write(b"x" * 50_000)
        return real(self, *arguments, **more)

    monkeypatch.setattr(module.Path, "open", opened)
    with pytest.raises(TransientError, match="grew beyond 200000 bytes"):
        transfer(document(source), work(source))


def test_a_copy_that_reads_back_differently_is_tried_again(
    source: Path, work: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "checksum", lambda path, algorithm: "sha256:bad")
    with pytest.raises(TransientError, match="reads back as sha256:bad"):
        transfer(document(source), work(source))
    assert files(tmp_path / "data") == []


def test_sources_that_cannot_be_copied(work: Make, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"reading .*gone"):
        transfer({"run_name": "r"}, work(tmp_path / "gone"))
    with pytest.raises(DataError, match="is not a file"):
        transfer({"run_name": "r"}, work(tmp_path))
    with pytest.raises(DataError, match="names no file"):
        transfer({"run_name": "r"}, work(None))


def test_names_from_documents_stay_in_the_folder(source: Path, work: Make, tmp_path: Path) -> None:
    odd = source.with_name("a b'\n;$(touch x)é")
    source.rename(odd)
    result = transfer({"run_name": "../../elsewhere", "file": str(odd)}, work(odd))
    assert Path(result["file"]).resolve().is_relative_to(tmp_path / "data" / "raw")
    assert Path(result["file"]).read_bytes() == odd.read_bytes()


def test_a_file_that_is_in_its_place_already_is_taken(source: Path, work: Make) -> None:
    copy = transfer(document(source), work(source))["file"]
    assert transfer({"run_name": "ma22a000", "file": copy}, work(copy))["reused"] is True


def test_settings_are_checked(source: Path, work: Make) -> None:
    for bad in ({"overwrite": "maybe"}, {"algorithm": "crc"}, {"algorithm": "shake_128"}, {"outptu": "x"}):
        with pytest.raises(SettingsError):
            transfer(document(source), work(source, **bad))


def test_an_empty_file_is_copied_too(work: Make, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert transfer({"run_name": "r"}, work(tmp_path / "empty"))["size"] == 0


def test_progress_is_reported(source: Path, work: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 50_000)
    monkeypatch.setattr(module, "PROGRESS_EVERY", 100_000)
    told: list[float] = []
    job = work(source)
    job.progress = lambda fraction, text="": told.append(fraction)  # type: ignore[assignment]
    transfer(document(source), job)
    assert told == [0.5, 1.0]
