"""The bins of a histogram in ROOT's JSON (TBufferJSON's fields of TH1 and TH2), as arrays. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from orchestrator.errors import FormatError

#: Bins of a picture, those beyond the edges too; a larger histogram is none that is looked at.
MOST = 8_000_000


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
    content = _array(drawn["fArray"])
    if content.size != int(np.prod(shape)):
        raise ValueError(f"{content.size} bins where the axes have {int(np.prod(shape))}")
    squares = _array(drawn.get("fSumw2", ()))
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
    edges = _array(said.get("fXbins", ()))
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


def _array(said: Any) -> np.ndarray:
    """A list of numbers, or TBufferJSON's short form of one: ``{"$arr", "len", "p", "v", "n", "p1", "v1", ...}``."""
    if not isinstance(said, Mapping):
        return np.array(said, dtype=float)
    length = int(said["len"])
    if not 0 <= length <= MOST:
        raise ValueError(f"an array of {length} numbers")
    made = np.zeros(length)
    at = 0
    for number in range(length + 1):
        part = str(number or "")
        if f"v{part}" not in said:
            break
        at = int(said.get(f"p{part}", at))
        values = said[f"v{part}"]
        many = len(values) if isinstance(values, list) else int(said.get(f"n{part}", 1))
        if not 0 <= at <= at + many <= length:
            raise ValueError("a part of an array lies outside of it")
        made[at : at + many] = values
        at += many
    return made


def _text(value: Any) -> str:
    return value[:300] if isinstance(value, str) else ""
