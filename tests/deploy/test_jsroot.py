"""JSROOT comes with the project: fetched once, checked, and where it cannot be had the rest goes on."""

import hashlib
import importlib.util
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def jsroot() -> ModuleType:
    spec = importlib.util.spec_from_file_location("jsroot", ROOT / "deploy" / "jsroot.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def npm(folder: Path, script: str) -> None:
    """A program called npm in the path."""
    folder.mkdir()
    (folder / "npm").write_text("#!/bin/sh\n" + script)
    (folder / "npm").chmod(0o755)


def packed(path: Path, script: bytes) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in (("package/build/jsroot.min.js", script), ("package/LICENSE", b"MIT"), ("package/x", b"x")):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


def test_without_npm_a_sentence_says_what_is_missing_and_how_to_get_it(
    jsroot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not jsroot.fetch_or_say(tmp_path)
    said = capsys.readouterr().err
    assert "apt-get install npm" in said and "python3 deploy/jsroot.py" in said and len(said.splitlines()) == 1


def test_npm_that_cannot_fetch_is_quoted(jsroot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npm(tmp_path / "bin", "echo 'network is down' >&2; exit 1\n")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    assert jsroot.fetch(tmp_path) == "npm could not fetch it: network is down"
    assert not jsroot.there(tmp_path)


def test_only_what_was_published_is_taken(jsroot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed(tmp_path / "packed.tgz", b"alert('another one')")
    npm(tmp_path / "bin", f"cp {tmp_path}/packed.tgz jsroot-7.tgz\n")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    assert "as it was published" in jsroot.fetch(tmp_path)
    assert not list((tmp_path / jsroot.FOLDER).iterdir())


def test_the_script_and_its_licence_are_kept_and_nothing_else(
    jsroot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed(tmp_path / "packed.tgz", b"draw()")
    npm(tmp_path / "bin", f"echo called >> {tmp_path}/calls; cp {tmp_path}/packed.tgz jsroot-7.tgz\n")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(jsroot, "SHA256", hashlib.sha256(b"draw()").hexdigest())
    assert [jsroot.fetch(tmp_path), jsroot.fetch(tmp_path)] == ["", ""]
    assert sorted(path.name for path in (tmp_path / jsroot.FOLDER).iterdir()) == ["LICENSE", "jsroot.min.js"]
    assert (tmp_path / "calls").read_text().splitlines() == ["called"]  # the second time there is nothing to do


def test_the_build_backend_has_every_hook_that_pip_calls() -> None:
    code = (
        "import build_backend as b; print(all(hasattr(b, n) for n in ('build_wheel', 'build_editable', 'build_sdist',"
        " 'get_requires_for_build_wheel', 'get_requires_for_build_editable', 'prepare_metadata_for_build_wheel')))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "deploy", capture_output=True, text=True)
    assert done.stdout.strip() == "True", done.stderr
