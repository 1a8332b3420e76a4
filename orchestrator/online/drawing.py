"""Pictures of plots as files: PNG, SVG, PDF. Without pyplot and its global state."""

from __future__ import annotations

import io
import threading
import unicodedata
import warnings
from typing import Any

import numpy as np

from orchestrator.online.publication import Header
from orchestrator.online.rootjson import flow_values

SIZE = (7.2, 5.0)  # inches
DOTS = 100  # per inch
INK, SOFT, OTHER = "#1f4e79", "#5b6470", "#b4501e"
_ONE = threading.Lock()  # matplotlib's settings are everybody's: one picture at a time
COLOURS = {"good": "#2b6e3d", "warning": "#8a5a00", "bad": "#a8201a"}


def clean(text: str, limit: int = 90) -> str:
    """A text that can be drawn: no control characters, not too long."""
    shown = "".join("?" if unicodedata.category(one)[0] == "C" else one for one in text)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def draw(
    histogram: Any, header: Header, reference: Any = None, kind: str = "png", y_title: str = "entries"
) -> bytes:
    """A picture of a plot, with the reference over it where there is one.

    Args:
        histogram: of one or two axes.
        header: its metadata.
        reference: a histogram of the same axes, scaled already.
        kind: ``png``, ``svg`` or ``pdf``.
        y_title: of the axis of entries.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    quiet = {"text.parse_math": False, "svg.hashsalt": "plot", "svg.fonttype": "none"}  # a title is no formula
    with _ONE, matplotlib.rc_context(quiet), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a letter that the font lacks is drawn as a box
        figure = Figure(figsize=SIZE, dpi=DOTS)
        FigureCanvasAgg(figure)
        figure.subplots_adjust(left=0.12, right=0.96, bottom=0.13, top=0.84)
        axes = figure.add_subplot()
        values = flow_values(histogram)[0]
        if values.ndim == 1:
            _curve(axes, histogram, values[1:-1], reference, header.style)
            axes.set_ylabel(clean(y_title), loc="top")
        else:
            _plane(figure, axes, histogram, values[1:-1, 1:-1], header.style)
        axes.set_xlabel(clean(str(histogram.axes[0].label)), loc="right")
        if type(histogram.axes[0]).__name__ == "StrCategory":
            names = [clean(str(name), 24) for name in histogram.axes[0]]
            tilt: dict[str, Any] = {"rotation": 20, "ha": "right"} if len(names) > 3 else {}
            axes.set_xticks(np.arange(len(names)) + 0.5, names, fontsize=8 if len(names) < 12 else 5, **tilt)
        figure.text(0.12, 0.94, clean(header.title), fontsize=13, va="bottom")
        figure.text(0.12, 0.925, clean(_words(header), 120), fontsize=8.5, va="top", color=SOFT)
        if header.quality in COLOURS:
            figure.text(0.96, 0.94, header.quality, fontsize=12, va="bottom", ha="right", color=COLOURS[header.quality])
        out = io.BytesIO()
        metadata: dict[str, Any] = {"png": {"Software": None}, "svg": {"Date": None}}.get(kind, {"CreationDate": None})
        figure.savefig(out, format=kind, metadata=metadata)
    return out.getvalue()


def _words(header: Header) -> str:
    parts = [f"run {header.run}", f"{header.spills} spills", f"{header.entries:g} entries", header.output_time]
    return " · ".join(parts + ([header.tag] if header.tag else []))


def _curve(axes: Any, histogram: Any, values: np.ndarray, reference: Any, style: dict[str, Any]) -> None:
    edges = np.asarray(histogram.axes[0].edges, dtype=float)
    axes.stairs(values, edges, fill=True, color=INK, alpha=0.3)
    axes.stairs(values, edges, color=INK, linewidth=1.4)
    if reference is not None:
        other = flow_values(reference)[0][1:-1]
        axes.stairs(other, edges, color=OTHER, linewidth=1.2, linestyle="--", label="reference")
        axes.legend(frameon=False, fontsize=9)
    axes.set_xlim(edges[0], edges[-1])
    if style.get("logy") and values.max(initial=0) > 0:
        axes.set_yscale("log")
    else:
        axes.set_ylim(0, 1.15 * max(float(values.max(initial=0)), 1.0))
    if style.get("logx") and edges[0] > 0:
        axes.set_xscale("log")


def _plane(figure: Any, axes: Any, histogram: Any, values: np.ndarray, style: dict[str, Any]) -> None:
    from matplotlib.colors import LogNorm

    x, y = (np.asarray(axis.edges, dtype=float) for axis in histogram.axes)
    shown = np.ma.masked_equal(values.T, 0)
    norm = LogNorm() if style.get("logz") and values.max(initial=0) > 1 else None
    if shown.count():
        figure.colorbar(axes.pcolormesh(x, y, shown, cmap="viridis", norm=norm, rasterized=True), ax=axes, pad=0.02)
    axes.set_xlim(x[0], x[-1])
    axes.set_ylim(y[0], y[-1])
    axes.set_ylabel(clean(str(histogram.axes[1].label)), loc="top")
