"""The whole project is clean for ruff and mypy. Part of the tests, so that pytest's last line speaks for them too."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def run(*words: str) -> None:
    done = subprocess.run([sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff() -> None:
    run("ruff", "check", "--output-format", "concise", ".")


def test_mypy() -> None:
    run("mypy")
