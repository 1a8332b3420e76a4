"""A chain as whoever runs its steps needs it: read from what `Chain.data` gave, with nothing but the standard library.

The chain file has been checked where it was read. A worker or a batch job gets the result as JSON and only looks things
up in it, so neither pydantic nor YAML has to be there: a farm's plain Python will do.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


class StepData(Protocol):
    """What is asked of a step by who runs it; `chain.Step` has more."""

    @property
    def key(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def run(self) -> str | None: ...
    @property
    def command(self) -> tuple[str, ...] | None: ...
    @property
    def settings(self) -> Mapping[str, Any]: ...
    @property
    def time_limit(self) -> float | None: ...
    @property
    def memory_limit(self) -> int | None: ...
    @property
    def hang_limit(self) -> float | None: ...
    @property
    def version(self) -> str: ...
    @property
    def gates(self) -> tuple[Any, ...]: ...


class ChainData(Protocol):
    """What is asked of a chain by who runs its steps: `chain.Chain` fits, and so does `JobChain`."""

    def step(self, name: str) -> StepData: ...
    def data(self) -> dict[str, Any]: ...
    def fingerprint(self) -> str: ...


@dataclass(frozen=True)
class JobStep:
    """One step; see `chain.Step` for what each word means."""

    key: str
    name: str
    run: str | None = None
    command: tuple[str, ...] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    time_limit: float | None = None
    memory_limit: int | None = None
    version: str = "1"
    hang_limit: float | None = None
    gates: tuple[Any, ...] = ()


class JobChain:
    """The steps of a chain, by name and keyword."""

    def __init__(self, data: dict[str, Any]) -> None:
        """``data`` is `Chain.data`. Raises KeyError or TypeError for what is not."""
        self._data = data
        self._steps: dict[str, JobStep] = {}
        for number, one in enumerate(data["steps"]):
            command = one.get("command")
            step = JobStep(
                f"proc{number}", str(one["name"]), one.get("run"), None if command is None else tuple(command),
                one.get("settings") or {}, one.get("time_limit"), one.get("memory_limit"), str(one.get("version", "1")),
                one.get("hang_limit"), tuple(one.get("gates") or ()),
            )  # fmt: skip
            self._steps[step.name] = self._steps[step.key] = step

    def step(self, name: str) -> StepData:
        """The step of that name or keyword. Raises KeyError."""
        return self._steps[name]

    def data(self) -> dict[str, Any]:
        """What it was made of."""
        return self._data

    def fingerprint(self) -> str:
        """See `fingerprint`."""
        return fingerprint(self._data)


def fingerprint(data: Mapping[str, Any]) -> str:
    """A short hash of what a chain says, to tell two versions of it apart."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:12]
