"""The bins of a histogram in ROOT's JSON (TBufferJSON's fields of TH1 and TH2), as arrays. Pure.

What is read may come from anywhere: whatever is wrong with it is said in words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from orchestrator.errors import FormatError
from orchestrator.online.rootjson import array_back

#: Bins of a picture, those beyond the edges too; a larger histogram is none that is looked at.
MOST = 8_000_000
_BESIDE = ("reference_body", "ratio_body")


@dataclass(frozen=True)
class Axis:
    """One axis: its edges and its words."""

    edges: np.ndarray
    title: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bins:
    """A histogram of one or two axes. ``values`` and ``errors``: [x] or [x, y], without what lies beyond the edges."""

    title: str
    x: Axis
    y: Axis | None
    value_title: str
    values: np.ndarray
    errors: np.ndarray
    entries: float
    under: float  # beyond the edges, of one axis only
    over: float

    @property
    def total(self) -> float:
        """All that lies within the edges."""
        return float(self.values.sum())


Drawn = dict[str, Any] | None


def parts(body: bytes) -> tuple[Drawn, Drawn, Drawn, str]:
    """The histogram of a body, its reference and their ratio, as ROOT's JSON, and what is wrong where there is none."""
    try:
        drawn = orjson.loads(body)
    except ValueError:
        return None, None, None, "what was published is no JSON"
    if not isinstance(drawn, dict) or not isinstance(drawn.get("_typename"), str):
        return None, None, None, "what was published is no histogram in ROOT's JSON"
    beside = [found if isinstance(found := drawn.pop(key, None), dict) else None for key in _BESIDE]
    return drawn, beside[0], beside[1], ""


def read(drawn: Mapping[str, Any]) -> Bins:
    """Raises FormatError for what is no TH1 or TH2."""
    kind = drawn.get("_typename")
    try:
        if not isinstance(kind, str) or not kind.startswith(("TH1", "TH2", "TProfile")):
            raise FormatError(f"a {kind} is no histogram of one or two axes")
        return _read(drawn, two=kind.startswith("TH2"))
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise FormatError(f"the histogram {str(drawn.get('fName'))[:80]!r} is damaged: {error!r}") from error


def _read(drawn: Mapping[str, Any], *, two: bool) -> Bins:
    x = _axis(drawn["fXaxis"])
    y = _axis(drawn["fYaxis"]) if two else None
    shape = (len(x.edges) + 1,) if y is None else (len(y.edges) + 1, len(x.edges) + 1)
    content = array_back(drawn["fArray"], MOST)
    if content.size != int(np.prod(shape)):
        raise ValueError(f"{content.size} bins where the axes have {int(np.prod(shape))}")
    squares = array_back(drawn.get("fSumw2", ()), MOST)
    variances = squares if squares.size == content.size else np.abs(content)
    content, variances = content.reshape(shape).T, variances.reshape(shape).T
    inner = (slice(1, -1),) * content.ndim
    return Bins(
        title=_text(drawn.get("fTitle")), x=x, y=y,
        value_title=_text((drawn.get("fZaxis" if two else "fYaxis") or {}).get("fTitle")),
        values=content[inner], errors=np.sqrt(np.abs(variances[inner])),
        entries=float(drawn.get("fEntries") or 0),
        under=0.0 if two else float(content[0]), over=0.0 if two else float(content[-1]),
    )  # fmt: skip


def _axis(said: Mapping[str, Any]) -> Axis:
    count = int(said["fNbins"])
    if not 1 <= count <= MOST:
        raise ValueError(f"an axis of {count} bins")
    edges = array_back(said.get("fXbins", ()), MOST)
    if edges.size != count + 1:
        edges = np.linspace(float(said["fXmin"]), float(said["fXmax"]), count + 1)
    if not np.all(np.isfinite(edges)) or not np.all(np.diff(edges) > 0):
        raise ValueError("the edges of an axis do not grow")
    listed = (said.get("fLabels") or {}).get("arr") or []
    labels = [""] * count if listed else []
    for one in listed:
        place = int(one.get("fUniqueID", 0))
        if 1 <= place <= count:
            labels[place - 1] = _text(one.get("fString"))
    return Axis(edges, _text(said.get("fTitle")), tuple(labels))


def _text(value: Any) -> str:
    return value[:300] if isinstance(value, str) else ""
