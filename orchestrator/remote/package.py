"""What is sent to a farm: the runner, the steps, the site's own modules; and what the steps need besides."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

import orchestrator
import procs
from orchestrator.chain import Step
from orchestrator.errors import SettingsError
from orchestrator.version import VERSION

#: Parts of the orchestrator that no batch job uses.
WITHOUT = ("cli", "web", "embedded", "couch")
#: More than this (bytes) of the site's own files is surely not code.
MOST = 50_000_000
SCAN_LIMIT = 120.0  # s for importing all steps here
# Which modules a process has after it has loaded the steps, here.
SCAN = """
import json, sys
order = json.load(sys.stdin)
sys.path += [p for p in order["path"] if p not in sys.path]
from orchestrator.step import find
failed = {}
for name, run in order["steps"].items():
    try:
        find(run)
    except BaseException as error:
        failed[name] = " ".join(str(error).split())[:300]
print("\\n" + json.dumps({"modules": sorted({m.partition(".")[0] for m in sys.modules}), "failed": failed}))
"""


@dataclass(frozen=True)
class Needs:
    """What the steps load besides us and Python's own library: ``name==version`` each, as it is here.

    ``unknown`` are steps that cannot be loaded here, with why: what they need is not known.
    """

    requirements: tuple[str, ...] = ()
    unknown: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Package:
    """Files to send, by their name in the version's folder; ``wheels`` go with them but do not stay."""

    files: Mapping[str, Path]
    wheels: tuple[Path, ...] = ()
    requirements: tuple[str, ...] = ()
    source: str = "none"  # of the packages: none, wheels or pip

    def digests(self) -> dict[str, str]:
        """SHA-256 of each file, by its name."""
        return {name: _digest(path) for name, path in sorted(self.files.items())}

    def name(self, digests: Mapping[str, str], python: Iterable[str], about: str) -> str:
        """``<version>-<digest>`` of all that decides what jobs will do; ``about`` says which Python it is."""
        words = list(python)
        return f"{VERSION}-{_digest_of([dict(digests), self.packages_key(words, about), words, about])[:12]}"

    def packages_key(self, python: Iterable[str], about: str) -> str:
        """A digest of all that decides which packages come of it; empty where there are none."""
        if not self.requirements:
            return ""
        wheels = {path.name: _digest(path) for path in self.wheels}
        return _digest_of([wheels, list(self.requirements), self.source, list(python), about])

    def write(self, path: Path) -> None:
        """The files as one archive."""
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, file in sorted(self.files.items()):
                archive.write(file, name)


def collect(folder: Path, steps: Iterable[Step]) -> dict[str, Path]:
    """The files of the runner, of ``procs`` and of the site's own modules, by their name in the version's folder.

    Raises SettingsError where the site's own files are too many to be code.
    """
    files: dict[str, Path] = {}
    for package in (orchestrator, procs):
        root = Path(str(package.__file__)).parent
        for path in _files(root):
            inside = path.relative_to(root)
            if package is procs or inside.parts[0] not in WITHOUT:
                files[f"lib/{root.name}/{inside}"] = path
    own = dict(_own(folder, {(step.run or "").partition(".")[0].partition(":")[0] for step in steps if step.run}))
    total = sum(path.stat().st_size for path in own.values())
    if total > MOST:
        largest = max(own.values(), key=lambda path: path.stat().st_size)
        raise SettingsError(
            f"the modules in {folder} and beside them have {total / 1e6:.0f} MB, which is more than code: the largest "
            f"file is {largest}; keep data out of folders with steps"
        )
    return files | own


def _own(folder: Path, modules: set[str]) -> Iterable[tuple[str, Path]]:
    """The site's modules, those in the folder and those that its steps find elsewhere outside any distribution."""
    places = {path for path in folder.glob("*.py") if path.is_file()}
    places |= {path.parent for path in folder.glob("*/__init__.py")}
    installed = packages_distributions()
    for name in modules - {"orchestrator", "procs", ""} - set(sys.stdlib_module_names):
        place = folder / name
        if place.is_dir():
            places.add(place)
        elif name not in installed and (found := _origin(name)) is not None:
            places.add(found)
    for place in sorted(places):
        if place.is_dir():
            yield from ((f"steps/{place.name}/{path.relative_to(place)}", path) for path in _files(place))
        else:
            yield f"steps/{place.name}", place


def _origin(name: str) -> Path | None:
    """Where a module is: its file, or its folder if it is a package."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    return Path(spec.origin) if spec.origin and Path(spec.origin).is_file() else None


def _files(root: Path) -> Iterable[Path]:
    """The files of a package, without what Python makes and what is hidden."""
    for base, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name != "__pycache__" and not name.startswith("."))
        for name in sorted(names):
            path = Path(base, name)
            if not name.startswith(".") and not name.endswith((".pyc", ".pyo")) and path.is_file():
                yield path


def needs(folder: Path, steps: Iterable[Step]) -> Needs:
    """Load the steps here, in a process of their own, and see which distributions that takes."""
    order = {"path": [str(folder)], "steps": {step.name: step.run for step in steps if step.run}}
    if not order["steps"]:
        return Needs()
    try:
        done = subprocess.run(
            [sys.executable, "-c", SCAN], input=json.dumps(order), capture_output=True, text=True, timeout=SCAN_LIMIT,
            check=False, env={**os.environ, "PYTHONPATH": os.pathsep.join([str(_root()), *_pythonpath()])},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Needs((), dict.fromkeys(order["steps"], f"loading it had not ended after {SCAN_LIMIT:g} s"))
    try:
        answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        why = done.stderr.strip().splitlines()[-1:] or ["the process ended"]
        return Needs((), dict.fromkeys(order["steps"], why[0][:300]))
    known = packages_distributions()
    ours = set(known.get("orchestrator", ())) | {"pip", "setuptools"}
    names = {name for module in answer["modules"] for name in known.get(module, ()) if module not in _ALWAYS}
    found = sorted({f"{name}=={version(name)}" for name in names - ours}, key=str.lower)
    return Needs(tuple(found), answer["failed"])


#: Modules that an environment loads by itself when Python starts.
_ALWAYS = frozenset({"_distutils_hack", "sitecustomize", "usercustomize"})


def _root() -> Path:
    return Path(str(orchestrator.__file__)).parent.parent


def _pythonpath() -> list[str]:
    return [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]


def wheels_of(folder: Path) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """The wheels in a folder, and the names of the projects in them but for pip's own.

    Raises SettingsError if there is none, or if something else lies there that pip would want to build.
    """
    wheels = tuple(sorted(folder.glob("*.whl")))
    if not wheels:
        raise SettingsError(f"there is no wheel (*.whl) in {folder}: `pip download` or `pip wheel` puts them there")
    names = {path.name.partition("-")[0].replace("_", "-").lower() for path in wheels}
    return wheels, tuple(sorted(names - {"pip"}))


def _digest_of(what: list[Any]) -> str:
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
