"""Outputs: whole under their last name or not at all, whatever happens, and names that cannot leave their folder."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import DataError, SettingsError, TransientError
from procs import outputs
from procs.options import options


def test_an_output_appears_whole_under_its_last_name(tmp_path: Path) -> None:
    target = tmp_path / "new" / "file.bin"
    with outputs.atomic_output(target, "abc") as temporary:
        assert temporary.parent == target.parent
        assert temporary.name == ".file.bin.abc.part"
        temporary.write_bytes(b"data")
        assert not target.exists()
    assert target.read_bytes() == b"data"
    assert [path.name for path in target.parent.iterdir()] == ["file.bin"]


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    target.write_bytes(b"old")
    with pytest.raises(RuntimeError), outputs.atomic_output(target, "abc") as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError("the step fails")
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file.bin"]


def test_the_check_sees_the_temporary_file_and_can_refuse_it(tmp_path: Path) -> None:
    seen: list[bytes] = []

    def check(path: Path) -> None:
        seen.append(path.read_bytes())
        raise DataError("not good enough")

    with pytest.raises(DataError), outputs.atomic_output(tmp_path / "f", "abc", check=check) as temporary:
        temporary.write_bytes(b"data")
    assert seen == [b"data"]
    assert not list(tmp_path.iterdir())


def test_everything_is_flushed_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    real_sync, real_replace = outputs.sync, Path.replace
    monkeypatch.setattr(outputs, "sync", lambda path: (order.append(f"sync {path.name}"), real_sync(path)))
    monkeypatch.setattr(Path, "replace", lambda self, to: (order.append("rename"), real_replace(self, to))[1])
    with outputs.atomic_output(tmp_path / "f", "abc") as temporary:
        temporary.write_bytes(b"data")
    assert order == ["sync .f.abc.part", "rename", f"sync {tmp_path.name}"]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permission"),
        (errno.ESTALE, "stale"),
    ],
)
def test_storage_faults_are_transient_and_name_the_file(tmp_path: Path, number: int, words: str) -> None:
    with pytest.raises(TransientError) as caught, outputs.atomic_output(tmp_path / "f.root", "abc"):
        raise OSError(number, os.strerror(number))
    assert words in str(caught.value)
    assert "f.root" in str(caught.value)
    assert not list(tmp_path.iterdir())
    if number == errno.ENOSPC:
        assert "MB are free" in str(caught.value)


def test_a_missing_file_is_a_data_error_but_a_missing_folder_may_come_back(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"reading .*gone"):
        outputs.checksum(tmp_path / "gone")
    with pytest.raises(TransientError, match="mounted"):
        outputs.checksum(tmp_path / "not mounted" / "gone")


def test_checksum_is_that_of_hashlib(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x" * 3_000_000)
    assert outputs.checksum(path) == "sha256:" + hashlib.sha256(b"x" * 3_000_000).hexdigest()
    assert outputs.describe(path)["size"] == 3_000_000


@pytest.mark.parametrize("name", ["ma22a000_003", "a b", "é$();'\"", "mice_06008.000", "x" * 180])
def test_a_harmless_name_stays_as_it_is(name: str) -> None:
    assert outputs.safe_name(name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../../etc/passwd", "/etc/passwd", "a\0b", "a\nb", ".hidden", "x" * 181, "\ud800", " a"]
)
def test_a_dangerous_name_is_changed(name: str) -> None:
    safe = outputs.safe_name(name)
    assert safe != name
    assert "/" not in safe
    assert not safe.startswith(".")


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(codec=None), max_size=300), st.text(max_size=300))
def test_any_name_becomes_a_file_in_its_folder_and_no_two_share_one(one: str, two: str) -> None:
    root = Path("/data/run")
    for text in (one, two):
        safe = outputs.safe_name(text)
        assert (root / safe).parent == root
        assert 0 < len(safe.encode()) <= outputs.NAME_LIMIT
        assert all(ord(c) >= 32 for c in safe)
    if one != two:
        assert outputs.safe_name(one) != outputs.safe_name(two)


def test_a_path_outside_is_refused_also_through_a_link(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    assert outputs.inside(root, root / "a" / "b") == root / "a" / "b"
    (root / "link").symlink_to(tmp_path)
    for path in (root / ".." / "x", root / "link" / "x", Path("/etc/passwd")):
        with pytest.raises(DataError, match="outside"):
            outputs.inside(root, path)


def test_place_uses_the_run_and_the_settings(tmp_path: Path) -> None:
    document = {"run_name": "../run"}
    path = outputs.place(tmp_path, {"output": "deep/raw"}, "raw", document, "../../f")
    assert path.parent.parent == tmp_path / "deep" / "raw"
    assert outputs.place(tmp_path, {}, "raw", {}, "f") == tmp_path / "raw" / "no run" / "f"


def test_a_suffix_stays_whatever_the_name_is(tmp_path: Path) -> None:
    for name in ("a", "a/b", "x" * 400, "..", "é\n"):
        path = outputs.place(tmp_path, {}, "histograms", {"run_name": "r"}, name, "_histograms.root")
        assert path.name.endswith("_histograms.root")
        with outputs.atomic_output(path, "f" * 32) as temporary:
            temporary.write_bytes(b"")


def test_plain_makes_strict_json() -> None:
    array = np.array([1.5, np.nan])
    value = {"a": np.float64("nan"), 1: [np.int64(3), math.inf, array], "p": Path("/x"), "b": np.bool_(1)}
    assert outputs.plain(value) == {"a": None, "1": [3, None, [1.5, None]], "p": "/x", "b": True}
    json.dumps(outputs.plain(value), allow_nan=False)


def test_options_fill_defaults_and_refuse_what_they_do_not_know() -> None:
    defaults = {"output": "raw", "rate": 1.0, "count": 3, "on": True, "any": None}
    chosen = options({"rate": 2, "any": [1]}, "step", defaults)
    assert (chosen.output, chosen.rate, chosen.any) == ("raw", 2, [1])
    for bad, words in (
        ({"outptu": "x"}, "did you mean 'output'"),
        ({"zzz": 1}, "known: "),
        ({"rate": "fast"}, "write a float"),
        ({"count": True}, "write a int"),
        ({"on": "yes"}, "write a bool"),
        ({"output": None}, "write a str"),
    ):
        with pytest.raises(SettingsError, match=words):
            options(bad, "step", defaults)
