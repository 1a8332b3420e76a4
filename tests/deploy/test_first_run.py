"""The first command a user types: refusals in words, quick where nothing changed, right from anywhere."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def first_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, for a clone in a folder with a space in its name."""
    clone = tmp_path / "a clone"
    clone.mkdir()
    for name in ("setup.cfg", "pyproject.toml"):
        shutil.copy(ROOT / name, clone)
    spec = importlib.util.spec_from_file_location("first_run", ROOT / "deploy" / "first_run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "CLONE", clone)
    monkeypatch.setattr(module, "ENVIRONMENT", clone / ".venv")
    monkeypatch.setattr(module, "STAMP", clone / ".venv" / "first-run-stamp")
    return module


def test_an_old_python_is_refused_in_words(
    first_run: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 2, "final", 0))
    with pytest.raises(SystemExit) as ended:
        first_run.set_up(tests=False)
    assert ended.value.code == 1
    assert "Python 3.11 or newer is needed, and this is 3.9" in capsys.readouterr().err


def test_an_old_python_can_read_it() -> None:
    """Nothing newer than Python 3.6 may stand in the file: an old one must come as far as its own refusal."""
    import ast

    ast.parse((ROOT / "deploy" / "first_run.py").read_text(), feature_version=(3, 6))


def test_a_missing_venv_module_is_named(
    first_run: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(first_run.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        first_run.make_environment()
    assert "apt-get install python3-venv" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("ERROR: No matching distribution found for setuptools>=64", "Is the network there?"),
        ("NewConnectionError: [Errno -3] Temporary failure in name resolution", "Is the network there?"),
        ("OSError: [Errno 28] No space left on device", "the disk is full"),
        ("ERROR: something else", "pip could not install the project"),
    ],
)
def test_what_pip_cannot_do_is_said(
    first_run: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], said: str, sentence: str
) -> None:
    failed = subprocess.CompletedProcess([], 1, stdout=said)
    monkeypatch.setattr(first_run.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(SystemExit):
        first_run.install(Path("python"), "")
    err = capsys.readouterr().err
    assert sentence in err
    assert said in err


def test_nothing_is_installed_twice(first_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    installed: list[str] = []
    monkeypatch.setattr(first_run, "works", lambda python: True)
    monkeypatch.setattr(first_run, "install", lambda python, extras: installed.append(extras))
    first_run.ENVIRONMENT.mkdir()
    for tests in (False, False, True, False, True):
        first_run.set_up(tests=tests)
    assert installed == ["", "[test]"]
    with (first_run.CLONE / "setup.cfg").open("a") as file:
        file.write("# changed\n")
    first_run.set_up(tests=False)
    assert installed == ["", "[test]", "[test]"]  # what was there stays there


def test_a_killed_set_up_is_taken_up_again(first_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(first_run, "install", lambda python, extras: done.append("installed"))
    (first_run.ENVIRONMENT / "bin").mkdir(parents=True)
    (first_run.ENVIRONMENT / "bin" / "python").write_text("half of a program")
    first_run.set_up(tests=False)
    assert done == ["installed"]
    assert first_run.works(first_run.ENVIRONMENT / "bin" / "python")


def test_it_works_from_anywhere(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    words = [sys.executable, str(ROOT / "deploy" / "first_run.py")]
    shown = subprocess.run([*words, "--help"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (shown.returncode, "first_run.py demo" in shown.stdout) == (0, True)
    assert subprocess.run([*words, "dmeo"], cwd=tmp_path, env=environment, capture_output=True).returncode == 2


def test_what_ci_runs_is_the_readmes_second_command() -> None:
    assert "deploy/first_run.py test" in (ROOT / ".ci" / "run").read_text()
    assert "python3 deploy/first_run.py test" in (ROOT / "README.md").read_text()
    assert "python3 deploy/first_run.py demo" in (ROOT / "README.md").read_text()
