"""Gates: what must hold of a step's output before it counts, checked where the step ran, right after it.

A refusal is no failure of the step: its output stays where it is, to be looked at. It is recorded as state ``refused``
with the gate's name and the reason, and the document is ``bad`` (or the step is tried again first, as the gate says).
Standard library only: a worker or a batch job checks gates too.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from copy import copy
from typing import Any

from orchestrator.errors import SettingsError, StepError
from orchestrator.filenames import text_of
from orchestrator.step import Work, find

#: The class of an attempt whose output a gate has refused.
REFUSED = "refused"


class GateRefused(StepError):
    """A gate refuses a step's output. ``gate`` is its name, ``then`` what is to follow: bad or retry."""

    kind = REFUSED

    def __init__(self, gate: str, reason: str, then: str) -> None:
        super().__init__(reason)
        self.gate, self.then = gate, then


def check(gates: Iterable[Mapping[str, Any]], document: dict[str, Any], result: dict[str, Any], work: Work) -> None:
    """Ask each gate (as `gatemodel.Gate` is in JSON), in order.

    Raises:
        GateRefused: the first that refuses.
        SettingsError: its function cannot be found.
        Whatever the function raises: then the attempt has failed as if the step had raised it.
    """
    for gate in gates:
        reason = _asked(gate, document, result, work)
        if reason:
            raise GateRefused(str(gate["name"]), reason, str(gate.get("then", "bad")))


def _asked(gate: Mapping[str, Any], document: dict[str, Any], result: dict[str, Any], work: Work) -> str | None:
    """Why the gate refuses, or None."""
    value = str(gate.get("value") or "")
    # A gate on a number alone does not ask for a file.
    wants_file = not value or any(gate.get(key) for key in ("size_min", "size_max", "checksum"))
    if wants_file and not (gate.get("check") and gate.get("file", "file") == "file" and "file" not in result):
        reason = _file(gate, result)
        if reason:
            return reason
    if value:
        reason = _number(gate, value, result)
        if reason:
            return reason
    if gate.get("check"):
        function = find(str(gate["check"]))
        said = function(document, result, _with_settings(work, gate.get("settings") or {}))
        if said is not None and not isinstance(said, str):
            raise SettingsError(f"the gate's function {gate['check']} returned {type(said).__name__}, not text or None")
        return said or None
    return None


def _with_settings(work: Work, settings: Mapping[str, Any]) -> Work:
    """The same work with other settings."""
    changed = copy(work)
    changed.settings = settings
    return changed


def _found(result: Mapping[str, Any], name: str) -> Any:
    """The result's value ``name``; a dot goes one level down. None where there is none."""
    value: Any = result
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _file(gate: Mapping[str, Any], result: Mapping[str, Any]) -> str | None:
    name = str(gate.get("file") or "file")
    path = _found(result, name)
    if not isinstance(path, str) or not path:
        return f"the step's result names no {name!r}"
    try:
        size = os.stat(path).st_size  # noqa: PTH116 - a name of any bytes
    except (OSError, ValueError) as error:
        return f"{text_of(path)} is not there ({getattr(error, 'strerror', None) or error})"
    least, most = gate.get("size_min"), gate.get("size_max")
    if least is not None and size < least:
        return f"{text_of(path)} has {size} bytes, and must have {least}"
    if most is not None and size > most:
        return f"{text_of(path)} has {size} bytes, and may have {most}"
    return _checksum(path, name, result) if gate.get("checksum") else None


def _checksum(path: str, name: str, result: Mapping[str, Any]) -> str | None:
    beside = name.rpartition(".")[0]
    recorded = _found(result, f"{beside}.checksum" if beside else "checksum")
    algorithm, _, wanted = str(recorded).partition(":")
    if not isinstance(recorded, str) or algorithm not in hashlib.algorithms_available:
        return f"the step's result has no checksum of {text_of(path)}"
    with open(path, "rb") as stream:  # noqa: PTH123 - a name of any bytes
        found = hashlib.file_digest(stream, algorithm).hexdigest()
    if found != wanted:
        return f"{text_of(path)} has checksum {algorithm}:{found}, and the step made {recorded}"
    return None


def _number(gate: Mapping[str, Any], name: str, result: Mapping[str, Any]) -> str | None:
    number = _found(result, name)
    if isinstance(number, bool) or not isinstance(number, int | float):
        return f"the step's result has no number {name!r}"
    if gate.get("min") is not None and not number >= gate["min"]:
        return f"{name} is {number:g}, and must be at least {gate['min']:g}"
    if gate.get("max") is not None and not number <= gate["max"]:
        return f"{name} is {number:g}, and may be at most {gate['max']:g}"
    return None
