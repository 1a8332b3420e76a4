"""The steps of gathered documents: a run's histograms, a bundle for tape."""

from __future__ import annotations

import hashlib
import json
import logging
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uproot

from orchestrator.errors import DataError, StepError
from orchestrator.step import Work
from procs.archive import bundle
from procs.binning import Counts
from procs.merge import merge
from procs.outputs import describe
from procs.runfiles import save


def _work(tmp_path: Path, **settings: Any) -> Work:
    return Work(settings, tmp_path / "data", tmp_path, "a" * 32, logging.getLogger("test"))


def _member(tmp_path: Path, number: int, values: list[float]) -> dict[str, Any]:
    counts = Counts("amplitude_x", "x: amplitude", "ADU")
    counts.fill(np.array(values))
    path = tmp_path / f"m{number}_histograms.root"
    save(path, "b" * 32, {"amplitude_x": counts}, {})
    return {"id": f"m{number}", "attempt": f"t{number}", **describe(path)}


def test_a_runs_histograms_have_as_many_entries_as_its_members_together(tmp_path: Path) -> None:
    members = [_member(tmp_path, n, [float(n), 2.0 * n, 5.0]) for n in range(70)]
    done = merge({"_id": "runs:r1", "run_name": "r1", "members": members}, _work(tmp_path))
    assert (done["members"], done["total"], done["entries"]) == (70, 210, {"amplitude_x": 210})
    with uproot.open(done["file"]) as file:
        assert file["amplitude_x"].values(flow=True).sum() == 210
        assert json.loads(file["members"])["m3"] == "t3"
    assert Path(done["plots"][0]["file"]).stat().st_size > 1000
    again = merge({"_id": "runs:r1", "run_name": "r1", "members": members}, _work(tmp_path, plots=False))
    assert (again["total"], again["plots"]) == (210, [])


def test_a_member_that_is_not_what_its_document_says_is_refused_by_name(tmp_path: Path) -> None:
    members = [_member(tmp_path, n, [1.0]) for n in range(2)]
    members[1]["checksum"] = "sha256:" + "0" * 64
    with pytest.raises(DataError, match="'m1' are not what its document says"):
        merge({"_id": "runs:r1", "members": members}, _work(tmp_path))
    Path(members[0]["file"]).unlink()
    with pytest.raises(DataError, match="'m0' are gone"):
        merge({"_id": "runs:r1", "members": members}, _work(tmp_path))
    for nothing in ([], None, "x"):
        with pytest.raises(DataError, match="no members"):
            merge({"_id": "runs:r1", "members": nothing}, _work(tmp_path))


def _files(tmp_path: Path) -> list[dict[str, Any]]:
    names = ["plain", "with space", "quote'\"", "$(touch pwned)", "line\nbreak"]
    made = []
    for number, name in enumerate(names):
        path = tmp_path / "raw" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes([number]) * (1000 + number))
        made.append({"id": f"d{number}", "run_name": "../r1", "file": str(path), "size": 1000 + number})
    return made


def test_a_bundle_holds_every_file_and_says_which_is_whose(tmp_path: Path) -> None:
    members = _files(tmp_path)
    twin = tmp_path / "other" / "plain"
    twin.parent.mkdir()
    twin.write_bytes(b"twin")
    members.append({"id": "twin/../x", "run_name": "../r1", "file": str(twin), "size": 4})
    done = bundle({"_id": "tars:2026-01:ab", "members": members}, _work(tmp_path))
    path = Path(done["file"])
    assert path.parent == tmp_path / "data" / "archive"
    assert done["checksum"] == "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    assert (done["members"], done["bytes"], done["size"]) == (6, 5014, path.stat().st_size)
    with tarfile.open(path) as tar:
        names = tar.getnames()
        assert len(names) == len(set(names)) == 7 and names[0] == "members.json"
        assert not any(name.startswith(("/", "..")) or "/../" in name or "\n" in name for name in names)
        listed = json.load(tar.extractfile("members.json"))["members"]  # type: ignore[arg-type]
        for one in listed:
            content = tar.extractfile(one["name"]).read()  # type: ignore[union-attr]
            assert content == Path(one["file"]).read_bytes()
            assert one["checksum"] == "sha256:" + hashlib.sha256(content).hexdigest()
    assert not list(tmp_path.glob("**/pwned")) and not list(path.parent.glob(".*"))


@pytest.mark.parametrize(
    "change", [{"size": 1}, {"checksum": "sha256:" + "0" * 64}, {"file": "/nowhere/x"}, {"file": None}]
)
def test_a_file_that_has_changed_goes_into_no_bundle(tmp_path: Path, change: dict[str, Any]) -> None:
    members = _files(tmp_path)
    members[2].update(change)
    with pytest.raises(StepError, match=r"d2"):
        bundle({"_id": "tars:x", "members": members}, _work(tmp_path))
    assert not list((tmp_path / "data").glob("**/*.tar"))
