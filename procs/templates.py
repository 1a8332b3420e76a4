"""The template database: what a pulse of each channel looks like, and where that knowledge comes from.

A pulse that begins at t = 0 is exp(-t / decay) - exp(-t / rise), scaled to a peak of 1 (a rise of 0 is a step that
decays); or, where a shape was measured, a list of samples. The database is a YAML file of entries, each with a
``match`` pattern for channel names; the first that fits wins. A channel that none fits gets the entry named
``fallback``, and the result says so.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from orchestrator.errors import SettingsError

SHIPPED = Path(__file__).with_name("templates.yaml")
POLARITIES = ("both", "positive", "negative")
_KEYS = {"match", "kind", "rise_ms", "decay_ms", "polarity", "samples", "sample_ms"}


@dataclass(frozen=True)
class Template:
    """One channel's pulse: its shape, its sign, and the source that is written into results.

    ``rise_ms`` and ``decay_ms`` are the time constants in milliseconds; ``samples``, if any, is a measured shape with
    ``sample_ms`` between points, the first at the pulse's start. ``fallback`` is empty, or says why this is a guess.
    """

    name: str
    rise_ms: float
    decay_ms: float
    polarity: str = "both"
    samples: tuple[float, ...] = ()
    sample_ms: float = 0.0
    source: str = "analytic"
    fallback: str = ""

    def pulse(self, length: int, onset: float, ms_per_point: float) -> np.ndarray:
        """The pulse of peak 1 in ``length`` points, beginning at point ``onset`` (which may lie between two)."""
        times = (np.arange(length) - onset) * ms_per_point
        if self.samples:
            known = np.asarray(self.samples, dtype=float)
            at = np.arange(len(known)) * self.sample_ms
            tail = np.exp(-np.clip(times - at[-1], 0, None) / self.decay_ms)  # beyond the samples it decays on
            shape = np.interp(times, at, known, left=0.0) * tail
            return np.where(times >= 0, shape, 0.0) / np.max(np.abs(known))
        late = np.clip(times, 0, None)
        shape = np.exp(-late / self.decay_ms)
        if self.rise_ms:
            shape = (shape - np.exp(-late / self.rise_ms)) / self.peak_value
        return np.where(times >= 0, shape, 0.0)

    @property
    def peak_ms(self) -> float:
        """Time from the pulse's start to its peak, in milliseconds."""
        if self.samples:
            return float(np.argmax(np.abs(self.samples))) * self.sample_ms
        if not self.rise_ms:
            return 0.0
        return math.log(self.decay_ms / self.rise_ms) * self.rise_ms * self.decay_ms / (self.decay_ms - self.rise_ms)

    @property
    def peak_value(self) -> float:
        """The unscaled analytic shape's largest value."""
        return math.exp(-self.peak_ms / self.decay_ms) - math.exp(-self.peak_ms / self.rise_ms)

    def said(self) -> dict[str, Any]:
        """What a result says about the template that was used."""
        return {
            "template": self.name,
            "source": self.source,
            "fallback": self.fallback or None,
            "rise_ms": self.rise_ms,
            "decay_ms": self.decay_ms,
        }


class TemplateDatabase:
    """All templates of a file, found by channel name."""

    def __init__(self, data: Mapping[str, Any], origin: str) -> None:
        self.origin = origin
        if not isinstance(data, Mapping) or not isinstance(data.get("templates"), Mapping):
            raise SettingsError(f"the template database {origin} has no 'templates': see procs/templates.yaml")
        self.version = str(data.get("version", "1"))
        self.templates: dict[str, tuple[str, Template]] = {}
        for name, entry in data["templates"].items():
            self.templates[str(name)] = self._entry(str(name), entry)
        self.fallback = str(data.get("fallback", ""))
        if self.fallback not in self.templates:
            raise SettingsError(f"the template database {origin} must name one of its templates as 'fallback'")

    def _entry(self, name: str, entry: Any) -> tuple[str, Template]:
        where = f"the template {name!r} of {self.origin}"
        if not isinstance(entry, Mapping) or not set(entry) <= _KEYS:
            raise SettingsError(f"{where} may have the keys {', '.join(sorted(_KEYS))} only: {entry!r}")
        try:
            rise, decay = float(entry["rise_ms"]), float(entry["decay_ms"])
            samples = tuple(float(value) for value in entry.get("samples", ()))
            spacing = float(entry.get("sample_ms", 0.0))
        except (KeyError, TypeError, ValueError) as error:
            raise SettingsError(f"{where} needs the numbers rise_ms and decay_ms: {error!r}") from error
        polarity = str(entry.get("polarity", "both"))
        if not 0 <= rise < decay < math.inf or polarity not in POLARITIES:
            raise SettingsError(f"{where} needs 0 <= rise_ms < decay_ms, and a polarity of {', '.join(POLARITIES)}")
        if samples and not (spacing > 0 and max(abs(value) for value in samples) > 0):
            raise SettingsError(f"{where}: samples need a sample_ms above 0 and a peak")
        source = f"{Path(self.origin).name} version {self.version}"
        return str(entry.get("match", "")), Template(name, rise, decay, polarity, samples, spacing, source)

    @classmethod
    def load(cls, path: Path | None = None) -> TemplateDatabase:
        """Read a YAML (or JSON) file; without a path the one that is shipped. Raises SettingsError."""
        path = path or SHIPPED
        try:
            data = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise SettingsError(f"the template database {path} cannot be read: {error}") from error
        return cls(data, str(path))

    def find(self, channel: str) -> Template:
        """The template of a channel by its name; the fallback, which says so, if none matches."""
        for pattern, template in self.templates.values():
            if pattern and fnmatch.fnmatchcase(channel.casefold(), pattern.casefold()):
                return template
        _, template = self.templates[self.fallback]
        reason = f"no template matches the channel {channel!r}: {self.fallback!r} is used"
        return Template(**{**template.__dict__, "fallback": reason})


@lru_cache(maxsize=1024)
def sampled(template: Template, length: int, onset: float, ms_per_point: float) -> np.ndarray:
    """A template's pulse in points, computed once per worker and shape; read only."""
    pulse = template.pulse(length, onset, ms_per_point)
    pulse.flags.writeable = False
    return pulse
