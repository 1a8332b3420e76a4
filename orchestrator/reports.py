"""What a worker says of an attempt that it made: the same in a pipe, in the spool and in a batch job's result file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Report:
    """What became of one attempt, as the worker that ran it says. Travels as JSON through pipes and the spool.

    ``seconds`` and ``cpu_seconds`` in seconds, ``max_rss`` in bytes. ``error_class`` is None where the attempt
    succeeded, else transient, resources, data or code; ``refused`` where the ``gate`` of that name has refused the
    output, and ``then`` (bad or retry) is to follow.
    """

    document: str
    step: str
    attempt: str
    started: float
    finished: float
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    max_rss: int = 0
    exit_code: int | None = 0
    command: list[str] | None = None
    log: str | None = None
    log_tail: str = ""
    error_class: str | None = None
    reason: str = ""
    result: dict[str, Any] = field(default_factory=dict)
    software: dict[str, Any] = field(default_factory=dict)
    gate: str = ""
    then: str = ""

    @property
    def ok(self) -> bool:
        """Whether the attempt succeeded."""
        return self.error_class is None

    def to_json(self) -> dict[str, Any]:
        """As it travels; `from_json` reads it."""
        return dict(vars(self))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Report:
        """The report written as ``data``; unknown keys are passed over. Raises TypeError if a known one is missing."""
        known = cls.__dataclass_fields__
        if data.keys() <= known.keys():
            return cls(**data)
        return cls(**{key: value for key, value in data.items() if key in known})
