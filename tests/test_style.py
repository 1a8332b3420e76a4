"""The whole project is clean for ruff and mypy, and its imports point one way. Part of the tests, so that pytest's last
line speaks for them too."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
#: The rooms of docs/architecture.md that are folders, by height: imports go down, or stay in a room.
HEIGHTS = {"cli": 4, "web": 4, "remote": 3, "audit": 3, "online": 3, "engine": 2, "couch": 1, "executors": 1,
           "schedulers": 1, "transports": 1, "embedded": 1}  # fmt: skip


def run(*words: str) -> None:
    done = subprocess.run([sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff() -> None:
    run("ruff", "check", "--output-format", "concise", ".")


def test_mypy() -> None:
    run("mypy")


def imported(path: Path) -> Iterator[str]:
    """The names of modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_imports_point_down_only() -> None:
    upwards = []
    for path in (ROOT / "orchestrator").rglob("*.py"):
        room = path.relative_to(ROOT / "orchestrator").parts[0]
        for name in imported(path):
            top, _, rest = name.partition(".")
            other = rest.partition(".")[0] if top == "orchestrator" else ""
            if room in HEIGHTS and HEIGHTS.get(other, 0) > HEIGHTS[room]:
                upwards.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not upwards


def test_steps_know_neither_database_nor_farm() -> None:
    """They may send files and be reducers of the online system; the room that they are run from is none of theirs."""
    strange = {*HEIGHTS, "chain", "documents", "poller", "farmer", "gatherer", "settings"} - {"transports", "online"}
    found = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in (ROOT / "procs").rglob("*.py") for name in imported(path)
        if name.startswith("orchestrator.") and name.split(".")[1] in strange
    }  # fmt: skip
    assert not found
