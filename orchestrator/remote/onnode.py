"""The step of `site check --job`: what a job finds on its node. Needs nothing but the standard library."""

from __future__ import annotations

import platform
import sys
from typing import Any

from orchestrator.errors import SettingsError
from orchestrator.step import Work, find


def look(document: dict[str, Any], work: Work) -> dict[str, Any]:
    """Load the steps that the setting ``steps`` names, write into the output folder, and say what went wrong."""
    faults = {}
    for name, reference in work.settings["steps"].items():
        try:
            find(reference)
        except SettingsError as error:
            faults[name] = str(error)
        except Exception as error:
            faults[name] = f"loading {reference!r} raised {type(error).__name__}: {error}"
    said = ""
    probe = work.output / f".site-check-{work.attempt}"
    try:
        work.output.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        said = f"{work.output}: {error.strerror}"
    return {"faults": faults, "output": said, "python": f"{platform.python_version()} ({sys.executable})"}
