"""Histograms as ROOT writes them in JSON (``TBufferJSON``), which JSROOT parses and draws; and back.

A ``hist.Hist`` of one axis becomes a TH1D, of two a TH2D. Statistics (``fTsumw`` and its like) are those of the bins'
middles inside the range, as uproot gives them to the histograms it writes, and ``fEntries`` is the sum of all bins.
``fSumw2`` is there where the histogram keeps variances. Sparse arrays are run-length coded as ROOT does at its
"compact" level 20: ``{"$arr": "Float64", "len": n, "p": place, "v": values, "p1": ...}``.

Source of the members' names and defaults: ROOT's documentation of TH1, TH2, TAxis and TBufferJSON (root.cern).
"""

from __future__ import annotations

from typing import Any

import boost_histogram as bh
import hist
import numpy as np
import orjson

from orchestrator.errors import DataError

DENSE = 1000  # cells; a smaller array is a plain list
SPARSE = 0.5  # share of cells that are not empty; above it a plain list is no longer
APART = 4  # empty cells between two runs of values that are cheaper to write than a new run
DIGITS = 2**53  # whole numbers up to here are written without a point

_LOOKS = {
    "fLineColor": 602, "fLineStyle": 1, "fLineWidth": 1, "fFillColor": 0, "fFillStyle": 1001, "fMarkerColor": 1,
    "fMarkerStyle": 1, "fMarkerSize": 1,
}  # fmt: skip
_AXIS = {
    "fNdivisions": 510, "fAxisColor": 1, "fLabelColor": 1, "fLabelFont": 42, "fLabelOffset": 0.005,
    "fLabelSize": 0.035, "fTickLength": 0.03, "fTitleOffset": 1, "fTitleSize": 0.035, "fTitleColor": 1,
    "fTitleFont": 42,
}  # fmt: skip


def dumps(histogram: Any, name: str, title: str, y_title: str = "entries", **more: Any) -> bytes:
    """The histogram as JSON text. ``more`` are members beside ROOT's own, such as ``reference_body``."""
    return orjson.dumps({**to_root(histogram, name, title, y_title), **more})


def to_root(histogram: Any, name: str, title: str, y_title: str = "entries") -> dict[str, Any]:
    """The histogram as ROOT's JSON.

    Args:
        histogram: a ``hist.Hist`` (or boost-histogram) of one or two axes that counts, with or without weights.
        name, title: ``fName`` and ``fTitle``.
        y_title: of the axis of entries, where there is one axis; with two, of the colours.

    Raises:
        DataError: it has other axes or another storage.
    """
    axes = histogram.axes
    if len(axes) not in (1, 2):
        raise DataError(f"the histogram {name!r} has {len(axes)} axes: plots have one or two")
    values, variances = flow_values(histogram, name)
    edges = [np.asarray(axis.edges, dtype=float) for axis in axes]
    found: dict[str, Any] = {
        "_typename": f"TH{len(axes)}D", "fUniqueID": 0, "fBits": 8, "fName": name, "fTitle": title, **_LOOKS,
        "fNcells": int(values.size), "fXaxis": _axis("xaxis", axes[0]),
    }  # fmt: skip
    found["fYaxis"] = _axis("yaxis", axes[1]) if len(axes) == 2 else _value_axis("yaxis", y_title)
    found["fZaxis"] = _value_axis("zaxis", y_title if len(axes) == 2 else "")
    found.update({"fBarOffset": 0, "fBarWidth": 1000, "fEntries": _number(float(values.sum()))})
    found.update(_statistics(values, edges, variances))
    found.update(
        {
            "fMaximum": -1111, "fMinimum": -1111, "fNormFactor": 0, "fContour": [],
            "fSumw2": [] if variances is None else _array(variances.T.reshape(-1)), "fOption": "",
            "fFunctions": {"_typename": "TList", "name": "TList", "arr": [], "opt": []}, "fBufferSize": 0,
            "fBuffer": [], "fBinStatErrOpt": 0, "fStatOverflows": 2,
        }
    )  # fmt: skip
    if len(axes) == 2:
        found["fScalefactor"] = 1
        found.update(_statistics_2d(values, edges))
    found["fArray"] = _array(values.T.reshape(-1))
    return found


def loads(body: bytes | str | dict[str, Any]) -> hist.Hist:
    """The histogram of a TH1 or TH2 in ROOT's JSON, with its axes' titles as labels and ``fTitle`` as ``name``.

    Raises DataError for JSON that is none.
    """
    try:
        data = body if isinstance(body, dict) else orjson.loads(body)
        kind = str(data["_typename"])
        if not kind.startswith(("TH1", "TH2")):
            raise DataError(f"this JSON is a {kind[:40]}, no TH1 or TH2")
        axes = [_axis_back(data[key]) for key in ("fXaxis", "fYaxis")[: int(kind[2])]]
        shape = tuple(len(axis) + 2 for axis in axes)
        values = array_back(data["fArray"]).reshape(shape[::-1]).T
        variances = array_back(data["fSumw2"])
        if not len(variances):
            made = hist.Hist(*axes, storage=hist.storage.Double(), name=str(data["fTitle"]))
            made.view(flow=True)[...] = _without_missing_flow(values, made)
            return made
        made = hist.Hist(*axes, storage=hist.storage.Weight(), name=str(data["fTitle"]))
        made.view(flow=True).value = _without_missing_flow(values, made)
        made.view(flow=True).variance = _without_missing_flow(variances.reshape(shape[::-1]).T, made)
        return made
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise DataError(f"this is no histogram in ROOT's JSON: {error!r}"[:300]) from error


def flow_values(histogram: Any, name: str = "") -> tuple[np.ndarray, np.ndarray | None]:
    """Values and, where they are kept, variances of all bins, with under- and overflow on every axis.

    Raises DataError for a histogram that does not count.
    """
    if histogram.kind != bh.Kind.COUNT:
        raise DataError(f"the histogram {name!r} holds means: plots are of counts")
    pads = []
    for axis in histogram.axes:
        pads.append((0 if axis.traits.underflow else 1, 0 if axis.traits.overflow else 1))
    values = np.pad(np.asarray(histogram.values(flow=True), dtype=float), pads)
    if histogram.storage_type is not bh.storage.Weight:
        return values, None
    return values, np.pad(np.asarray(histogram.variances(flow=True), dtype=float), pads)


def _without_missing_flow(values: np.ndarray, made: Any) -> np.ndarray:
    parts = tuple(
        slice(0 if axis.traits.underflow else 1, None if axis.traits.overflow else -1) for axis in made.axes
    )
    return values[parts]


def _axis(name: str, axis: Any) -> dict[str, Any]:
    edges = np.asarray(axis.edges, dtype=float)
    category = isinstance(axis, bh.axis.StrCategory)
    variable = isinstance(axis, bh.axis.Variable)
    return {
        **_value_axis(name, str(getattr(axis, "label", "") or "")), "fNbins": len(axis),
        "fXmin": _number(edges[0]), "fXmax": _number(edges[-1]),
        "fXbins": [_number(edge) for edge in edges] if variable else [],
        "fLabels": _labels([axis.bin(index) for index in range(len(axis))]) if category else None,
    }  # fmt: skip


def _value_axis(name: str, title: str) -> dict[str, Any]:
    return {
        "_typename": "TAxis", "fUniqueID": 0, "fBits": 0, "fName": name, "fTitle": title, **_AXIS, "fNbins": 1,
        "fXmin": 0, "fXmax": 1, "fXbins": [], "fFirst": 0, "fLast": 0, "fBits2": 0, "fTimeDisplay": False,
        "fTimeFormat": "", "fLabels": None, "fModLabs": None,
    }  # fmt: skip


def _labels(names: list[str]) -> dict[str, Any]:
    items = [
        {"_typename": "TObjString", "fUniqueID": number, "fBits": 16777216, "fString": str(text)}
        for number, text in enumerate(names, 1)
    ]
    return {"_typename": "THashList", "name": "THashList", "arr": items, "opt": [""] * len(items)}


def _axis_back(data: dict[str, Any]) -> Any:
    title, labels = str(data["fTitle"]), data.get("fLabels")
    if labels:
        names = [str(item["fString"]) for item in sorted(labels["arr"], key=lambda item: int(item["fUniqueID"]))]
        return hist.axis.StrCategory(names, label=title)
    edges = array_back(data["fXbins"])
    if len(edges):
        return hist.axis.Variable(edges, label=title)
    return hist.axis.Regular(int(data["fNbins"]), float(data["fXmin"]), float(data["fXmax"]), label=title)


def _middles(edges: np.ndarray) -> np.ndarray:
    return (edges[:-1] + edges[1:]) / 2


def _statistics(values: np.ndarray, edges: list[np.ndarray], variances: np.ndarray | None) -> dict[str, Any]:
    inner = values[(slice(1, -1),) * values.ndim]
    along = inner if values.ndim == 1 else inner.sum(axis=1)
    x = _middles(edges[0])
    total = float(inner.sum())
    squares = total if variances is None else float(variances[(slice(1, -1),) * values.ndim].sum())
    sums = {"fTsumw": total, "fTsumw2": squares, "fTsumwx": (along * x).sum(), "fTsumwx2": (along * x**2).sum()}
    return {name: _number(float(value)) for name, value in sums.items()}


def _statistics_2d(values: np.ndarray, edges: list[np.ndarray]) -> dict[str, Any]:
    inner = values[1:-1, 1:-1]
    x, y = _middles(edges[0]), _middles(edges[1])
    along = inner.sum(axis=0)
    sums = {"fTsumwy": (along * y).sum(), "fTsumwy2": (along * y**2).sum(), "fTsumwxy": float(x @ inner @ y)}
    return {name: _number(float(value)) for name, value in sums.items()}


def _number(value: float) -> int | float | None:
    return int(value) if float(value).is_integer() and abs(value) < DIGITS else float(value)


def _numbers(values: np.ndarray) -> list[Any]:
    whole = np.all(values == np.rint(values)) and np.all(np.abs(values) < DIGITS)
    found: list[Any] = (values.astype(np.int64) if whole else values.astype(float)).tolist()
    return found


def _array(values: np.ndarray) -> Any:
    filled = np.flatnonzero(values)
    if len(values) < DENSE or len(filled) > SPARSE * len(values):
        return _numbers(values)
    found: dict[str, Any] = {"$arr": "Float64", "len": len(values)}
    if not len(filled):
        return found
    starts = [0, *(np.flatnonzero(np.diff(filled) > APART) + 1).tolist()]
    ends = [*starts[1:], len(filled)]
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        first, last = int(filled[start]), int(filled[end - 1])
        tail = str(number) if number else ""
        found[f"p{tail}"] = first
        found[f"v{tail}"] = _numbers(values[first : last + 1])
    return found


def array_back(data: Any, most: int = 10**8) -> np.ndarray:
    """A list of numbers, or TBufferJSON's short form of one: ``{"$arr", "len", "p", "v", "n", "p1", "v1", ...}``.

    Raises ValueError, KeyError or TypeError for what is neither, or longer than ``most``.
    """
    if not isinstance(data, dict):
        return np.array(data, dtype=float)
    length = int(data["len"])
    if not 0 <= length <= most:
        raise ValueError(f"an array of {length} numbers")
    made = np.zeros(length)
    at = 0
    for number in range(length + 1):
        part = str(number or "")
        if f"v{part}" not in data:
            break
        at = int(data.get(f"p{part}", at))
        values = data[f"v{part}"]
        many = len(values) if isinstance(values, list) else int(data.get(f"n{part}", 1))
        if not 0 <= at <= at + many <= length:
            raise ValueError("a part of an array lies outside of it")
        made[at : at + many] = values
        at += many
    return made
