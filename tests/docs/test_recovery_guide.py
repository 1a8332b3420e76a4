"""The guide to recovery has an entry for every error there is, and each entry is tried by a test."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import orchestrator
import procs
from orchestrator.errors import Exit, OrchestratorError
from orchestrator.remedies import REMEDIES

ROOT = Path(orchestrator.__file__).parent.parent
GUIDE = ROOT / "docs" / "recovery.md"
#: Errors that never reach a person as such: a name that begins so is a module's own affair.
PRIVATE = "_"


@cache
def classes() -> dict[str, type[OrchestratorError]]:
    """Every error class of ours, by name."""
    for package in (orchestrator, procs):
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if not module.name.endswith("__main__"):
                try:
                    importlib.import_module(module.name)
                except ImportError as error:
                    assert not str(error.name).startswith(("orchestrator", "procs")), error  # an optional library

    def below(one: type[OrchestratorError]) -> Iterator[type[OrchestratorError]]:
        yield one
        for other in one.__subclasses__():
            yield from below(other)

    return {
        one.__name__: one
        for one in below(OrchestratorError)
        if one.__module__.partition(".")[0] in ("orchestrator", "procs") and not one.__name__.startswith(PRIVATE)
    }


def test_every_error_has_its_entry_and_every_entry_its_error() -> None:
    missing = sorted(set(classes()) - set(REMEDIES))
    assert not missing, f"say in orchestrator/remedies.py what to do about: {', '.join(missing)}"
    assert not set(REMEDIES) - set(classes()), "an entry for an error that there is not"


@pytest.mark.parametrize("name", REMEDIES)
def test_every_entry_is_tried_by_a_test(name: str) -> None:
    file, _, test = REMEDIES[name].test.partition("::")
    tree = ast.parse((ROOT / file).read_text())
    names = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert test in names, f"{name}: there is no test {test} in {file}"


def raised() -> Iterator[tuple[Path, ast.Raise, ast.Call]]:
    for path in sorted((ROOT / "orchestrator").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name):
                yield path, node, node.exc


def test_every_error_that_is_raised_says_something() -> None:
    known = set(classes())
    silent = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path, node, call in raised()
        if call.func.id in known and not call.args and not call.keywords  # type: ignore[attr-defined]
    ]
    bare = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sorted((ROOT / "orchestrator").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Name) and node.exc.id in known
    ]
    assert not silent and not bare, "an error without a sentence"


def test_every_exit_code_is_met_in_the_guide() -> None:
    text = GUIDE.read_text()
    for code in Exit:
        assert f"| {int(code)} | {code.name} |" in text
    for code in {one.exit_code for one in classes().values()}:
        assert f"({int(code)})" in text, f"no entry of the guide ends with {code.name}"


def test_every_message_that_the_guide_quotes_is_one_of_ours() -> None:
    quoted = re.findall(r'\*\*"([^"]+)"', GUIDE.read_text())
    assert len(quoted) >= 8
    sources = " ".join(
        "".join(part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str))
        for path in sorted((ROOT / "orchestrator").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.JoinedStr | ast.Constant)
    )
    for words in quoted:
        for part in words.split("..."):
            assert part.strip() in sources, f"nothing says {words!r} any more"
