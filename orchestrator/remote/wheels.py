"""Wheels for a farm's Python, fetched here by pip: for a farm that has no network, from a machine that has it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from orchestrator.remote.far import FarError, Python

#: Fetching everything that a step of ours needs takes a minute; a slow line is given more (s).
LIMIT = 1800.0
#: The first glibc 2.x that wheels are tagged with (PEP 599 and PEP 600: manylinux2014 is manylinux_2_17).
OLDEST = 17


def platforms(python: Python) -> list[str]:
    """The tags of wheels that run there: all of an older C library do, but pip takes each tag as it is."""
    machine = python.platform.partition("-")[2].replace("-", "_")
    if not python.platform.startswith("linux-") or python.libc[:1] != ("glibc",) or len(python.libc) < 2:
        return [python.platform.replace("-", "_").replace(".", "_")]
    found = re.match(r"2\.([0-9]+)", python.libc[1])
    newest = int(found[1]) if found else OLDEST
    tags = [f"manylinux_2_{minor}_{machine}" for minor in range(newest, OLDEST - 1, -1)]
    return [*tags, f"manylinux2014_{machine}", f"linux_{machine}"]


def words(folder: Path, requirements: Sequence[str], python: Python) -> list[str]:
    """pip's arguments."""
    tags = [word for tag in platforms(python) for word in ("--platform", tag)]
    version = ".".join(map(str, python.version[:2]))
    return [
        "download", "--quiet", "--disable-pip-version-check", "--dest", str(folder), "--only-binary", ":all:",
        "--implementation", "cp", "--python-version", version, *tags, *requirements,
    ]  # fmt: skip


def download(folder: Path, requirements: Sequence[str], python: Python) -> None:
    """Fetch wheels of the requirements and of what those need; pip's own too if the farm has none.

    Raises FarError with what pip said.
    """
    wanted = [*requirements, *([] if python.pip else ["pip"])]
    if not wanted:
        return
    folder.mkdir(parents=True, exist_ok=True)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pip", *words(folder, wanted, python)], stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=LIMIT, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise FarError(f"pip did not fetch the wheels within {LIMIT:g} s; what came is in {folder}") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")] or done.stderr.splitlines()
        # An index's URL may carry a login.
        said = re.sub(r"://[^/@\s]*@", "://...@", " ".join(lines)[:600])
        raise FarError(
            f"the wheels for {python.about} could not be fetched: {said}. Fetch others by hand into {folder}, in "
            "versions that have a wheel for it, and leave --download out"
        )
