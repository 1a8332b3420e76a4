"""Calling `farside` through a transport, and finding a Python there that can run it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from orchestrator.errors import OrchestratorError
from orchestrator.transports import Transport

#: The oldest Python that runs jobs.
NEEDED = (3, 11)
#: What is tried where nobody says which Python: names as they are on the account's PATH, newest last of all but first.
CANDIDATES = ("python3", "python3.14", "python3.13", "python3.12", "python3.11", "/usr/bin/python3")
LIMIT = 120.0  # s for an order that nobody gives another limit
_MARK = "orchestrator-farside "
# An old Python must be able to read this in order to be refused in words.
_PROBE = """
import sys, json, time, platform
try:
    import sysconfig
    where = sysconfig.get_platform()
except Exception:
    where = ""
try:
    import importlib.util
    pip = importlib.util.find_spec("pip") is not None
except Exception:
    pip = False
print("")
print("orchestrator-farside " + json.dumps({"version": list(sys.version_info[:3]), "executable": sys.executable,
      "platform": where, "libc": list(platform.libc_ver()), "pip": pip}))
"""


class FarError(OrchestratorError):
    """The farm's Python did not do what was asked of it."""


@dataclass(frozen=True)
class Python:
    """A Python at the farm: how it is called, and what it said of itself."""

    words: tuple[str, ...]
    version: tuple[int, ...]
    executable: str
    platform: str
    libc: tuple[str, ...]
    pip: bool = False

    @property
    def about(self) -> str:
        """In a few words, for people and for the name of what is installed."""
        libc = " ".join(self.libc).strip()
        return f"Python {'.'.join(map(str, self.version))}, {self.platform}" + (f", {libc}" if libc else "")

    @property
    def new_enough(self) -> bool:
        return self.version[:2] >= NEEDED

    @property
    def lasting(self) -> tuple[str, ...]:
        """How jobs call it: by its full path where one word names it, since a node may have another PATH."""
        return (self.executable,) if len(self.words) == 1 and self.executable.startswith("/") else self.words


def probe(transport: Transport, words: Sequence[str]) -> Python | str:
    """The Python that these words call there, or why there is none. Raises TransportError."""
    answer = transport.run([*words, "-"], stdin=_PROBE.encode(), timeout=60.0)
    said = _answer(answer.stdout)
    if said is None:
        return answer.said or f"it ended with exit code {answer.exit_code} and said nothing"
    return Python(
        tuple(words), tuple(said["version"]), str(said.get("executable") or ""), str(said.get("platform") or ""),
        tuple(map(str, said.get("libc") or ())), bool(said.get("pip")),
    )  # fmt: skip


def find(transport: Transport, words: Sequence[str] = ()) -> Python:
    """The Python that is named, or the first one there that is new enough.

    Raises:
        FarError: none is, with what each candidate said.
        TransportError: the machine could not be asked.
    """
    tried = []
    for candidate in [tuple(words)] if words else [(name,) for name in CANDIDATES]:
        found = probe(transport, candidate)
        if isinstance(found, Python) and found.new_enough:
            return found
        what = f"is {'.'.join(map(str, found.version))}" if isinstance(found, Python) else f"does not run ({found})"
        tried.append(f"{' '.join(candidate)} {what}")
    needed = ".".join(map(str, NEEDED))
    raise FarError(
        f"there is no Python {needed} or newer on {transport.where}: {'; '.join(tried)}. Give another one with "
        "--python, such as one of the site's modules by its full path, or a container: "
        "--python 'apptainer exec /path/image.sif python3'"
    )


def call(
    transport: Transport, python: Sequence[str], order: Mapping[str, Any], timeout: float = LIMIT
) -> dict[str, Any]:
    """Have an order carried out there; its answer.

    Raises:
        FarError: it could not be, with what Python said.
        TransportError: the machine could not be asked.
    """
    text = resources.files("orchestrator.remote").joinpath("farside.py").read_text(encoding="utf-8")
    program = f"{text}\n\nmain(json.loads({json.dumps(dict(order))!r}))\n"
    answer = transport.run([*python, "-I", "-"], stdin=program.encode(), timeout=timeout)
    said = _answer(answer.stdout)
    if said is None:
        last = answer.said[-300:] or f"exit code {answer.exit_code}"
        raise FarError(f"{' '.join(python)} on {transport.where} could not {order['do']}: {last}")
    if "error" in said and order["do"] in ("verify", "imports"):
        raise FarError(f"{' '.join(python)} on {transport.where} could not {order['do']}: {said['error']}")
    return said


def _answer(text: str) -> dict[str, Any] | None:
    """The marked line; a site's start-up files may print before it."""
    for line in reversed(text.splitlines()):
        if line.startswith(_MARK):
            try:
                found = json.loads(line.removeprefix(_MARK))
            except ValueError:
                return None
            return found if isinstance(found, dict) else None
    return None
