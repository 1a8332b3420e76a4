"""Pictures of plots: PNG, SVG, PDF, with the reference beside the data. Without pyplot and its global state.

A plot of one axis has its reference over it and the ratio below. One of two axes has at its right the scaled reference
and the difference of both in standard deviations.
"""

from __future__ import annotations

import io
import math
import threading
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from orchestrator.drawable import clean
from orchestrator.errors import FormatError
from orchestrator.online.bins import Bins, parts, read

SIZE = (800, 500)  # pixels
DOTS = 100  # pixels per inch
MANY = 8  # labels of an axis above which they stand aslant
LETTERS = 24  # of a label
MOST_LABELS = 60  # more cannot be read
PULLS = 5.0  # a difference is drawn from -5 to 5 standard deviations
PAPER, INK, SOFT, CURVE, OTHER = "#ffffff", "#1b1f24", "#5d6570", "#1d5a9e", "#c2571a"
COLOURS = {"good": "#2b6e3d", "warning": "#83590a", "bad": "#ab261e"}
_ONE = threading.Lock()  # matplotlib's settings are everybody's: one picture at a time


def draw(header: Mapping[str, Any], body: bytes, size: tuple[int, int] = SIZE, kind: str = "png") -> bytes:
    """A picture of a plot as it was published.

    Args:
        header: its metadata, the fields of ``publication.Header``.
        body: its histogram in ROOT's JSON, with the reference where it has one.
        size: in pixels.
        kind: ``png``, ``svg`` or ``pdf``.

    Raises FormatError for a body that is no histogram of one or two axes.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn, other, _, fault = parts(body)
    if drawn is None:
        raise FormatError(f"{header['name']}: {fault}")
    bins = read(drawn)
    reference = _fitting(bins, read(other)) if other is not None else None
    letters = 12.0 if size[0] > 1000 else 9.5
    quiet = {
        "text.parse_math": False, "font.family": "DejaVu Sans", "axes.formatter.use_mathtext": False,  # no formulas
        "font.size": letters, "svg.hashsalt": "plot", "svg.fonttype": "none",
    }  # fmt: skip
    with _ONE, matplotlib.rc_context(quiet), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a letter that the font lacks is drawn as a box
        figure = Figure(figsize=(size[0] / DOTS, size[1] / DOTS), dpi=DOTS, facecolor=PAPER)
        FigureCanvasAgg(figure)
        if bins.y is None:
            _curve(figure, bins, reference, header.get("style") or {})
        else:
            _planes(figure, bins, reference, header)
        _margins(figure, bins, letters)
        _words(figure, header, bins, letters)
        out = io.BytesIO()
        metadata: dict[str, Any] = {"png": {"Software": None}, "svg": {"Date": None}}.get(kind, {"CreationDate": None})
        figure.savefig(out, format=kind, metadata=metadata)
    return out.getvalue()


def _fitting(bins: Bins, reference: Bins) -> Bins | None:
    """The reference where it can be shown with the plot."""
    return reference if reference.values.shape == bins.values.shape and reference.total > 0 else None


def _scaled(bins: Bins, reference: Bins) -> tuple[np.ndarray, np.ndarray]:
    """Values and errors of the reference with as many entries as the plot: what is compared is the shape."""
    scale = bins.total / reference.total
    return reference.values * scale, reference.errors * abs(scale)


def _margins(figure: Any, bins: Bins, letters: float) -> None:
    """In letters' heights, by hand: matplotlib's own layout takes twice as long as the drawing."""
    width, height = figure.get_size_inches() * 72 / letters
    bottom = 3.6
    if MANY < len(bins.x.labels) <= MOST_LABELS:
        bottom += 0.3 * min(LETTERS, max(map(len, _told_apart(bins.x.labels)[1])))
    figure.subplots_adjust(left=6.5 / width, right=1 - 2 / width, bottom=bottom / height, top=1 - 4.4 / height)


def _dress(axes: Any, x: str, y: str) -> None:
    """As physicists draw: ticks inside and on all sides, titles at the ends of the axes."""
    axes.tick_params(which="both", direction="in", top=True, right=True, colors=INK)
    axes.minorticks_on()
    axes.set_xlabel(clean(x, 90), loc="right", fontsize="large")
    axes.set_ylabel(clean(y), loc="top", fontsize="large")


def _curve(figure: Any, bins: Bins, reference: Bins | None, style: Mapping[str, Any]) -> None:
    if reference is not None:
        axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1), gridspec_kw={"hspace": 0.06})
    else:
        axes, below = figure.subplots(), None
    axes.stairs(bins.values, bins.x.edges, fill=True, color=CURVE, alpha=0.22)
    axes.stairs(bins.values, bins.x.edges, color=CURVE, linewidth=1.8, label="now")
    if below is not None and reference is not None:
        scaled, _ = _scaled(bins, reference)
        axes.stairs(scaled, bins.x.edges, color=OTHER, linewidth=1.6, linestyle=(0, (4, 2)), label="reference, scaled")
        axes.legend(frameon=False)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(scaled > 0, bins.values / scaled, np.nan)
            errors = np.where(scaled > 0, bins.errors / scaled, np.nan)
        centres = (bins.x.edges[1:] + bins.x.edges[:-1]) / 2
        below.axhline(1.0, color=SOFT, linewidth=1)
        below.errorbar(centres, ratio, errors, fmt="o", markersize=3, color=CURVE, elinewidth=1)
        below.set_ylim(0, 2)
        _dress(below, bins.x.title, "ratio")
    _dress(axes, "" if below is not None else bins.x.title, bins.value_title or "entries")
    _scales(axes, bins, style)
    if style.get("logy") and np.any(bins.values > 0):
        axes.set_yscale("log")
    elif not np.any(bins.values < 0):
        axes.set_ylim(bottom=0)
    axes.set_xlim(bins.x.edges[0], bins.x.edges[-1])
    _labels(below if below is not None else axes, bins)


def _planes(figure: Any, bins: Bins, reference: Bins | None, header: Mapping[str, Any]) -> None:
    style = header.get("style") or {}
    if reference is None:
        _plane(figure, figure.subplots(), bins, bins.values, style)
        return
    grid = figure.add_gridspec(2, 2, width_ratios=(1.7, 1), wspace=0.26, hspace=0.5)
    scaled, errors = _scaled(bins, reference)
    values = np.concatenate([bins.values.ravel(), scaled.ravel()])
    span = (min(float(values.min()), 0.0), float(values.max()))
    _plane(figure, figure.add_subplot(grid[:, 0]), bins, bins.values, style, span=span)
    above, below = figure.add_subplot(grid[0, 1]), figure.add_subplot(grid[1, 1])
    _plane(figure, above, bins, scaled, style, span=span, small=True)
    above.set_title(clean(f"{header.get('reference') or 'reference'}, scaled", 40), fontsize="medium", color=OTHER)
    spread = np.sqrt(bins.errors**2 + errors**2)
    pulls = np.divide(bins.values - scaled, spread, out=np.zeros_like(scaled), where=spread > 0)
    _plane(figure, below, bins, np.clip(pulls, -PULLS, PULLS), {**style, "logz": False}, span=(-PULLS, PULLS),
           small=True, colours="RdBu_r")  # fmt: skip
    below.set_title("difference, in standard deviations", fontsize="medium", color=OTHER)


def _plane(
    figure: Any, axes: Any, bins: Bins, values: np.ndarray, style: Mapping[str, Any], *,
    span: tuple[float, float] | None = None, small: bool = False, colours: str = "viridis",
) -> None:  # fmt: skip
    from matplotlib.colors import LogNorm, Normalize

    assert bins.y is not None
    shown = np.where(values != 0, values, np.nan).T
    seen = shown[np.isfinite(shown)]
    low, high = span or ((float(seen.min()), float(seen.max())) if seen.size else (0.0, 1.0))
    least = float(seen[seen > 0].min()) if np.any(seen > 0) else 0.0
    norm = LogNorm(vmin=least, vmax=high) if style.get("logz") and 0 < least < high else Normalize(vmin=low, vmax=high)
    mesh = axes.pcolormesh(bins.x.edges, bins.y.edges, shown, norm=norm, cmap=colours, rasterized=True)
    figure.colorbar(mesh, ax=axes, pad=0.02, fraction=0.06)
    _dress(axes, "" if small else bins.x.title, "" if small else bins.y.title)
    _scales(axes, bins, style)
    if style.get("logy") and bins.y.edges[0] > 0:
        axes.set_yscale("log")
    if not small:
        _labels(axes, bins)


def _scales(axes: Any, bins: Bins, style: Mapping[str, Any]) -> None:
    if style.get("logx") and bins.x.edges[0] > 0:
        axes.set_xscale("log")


def _labels(axes: Any, bins: Bins) -> None:
    if bins.x.labels and len(bins.x.labels) <= MOST_LABELS:
        centres = (bins.x.edges[1:] + bins.x.edges[:-1]) / 2
        aslant: dict[str, Any] = {"rotation": 30, "ha": "right"} if len(bins.x.labels) > MANY else {}
        alike, shown = _told_apart(bins.x.labels)
        axes.set_xticks(centres, [clean(label, LETTERS) for label in shown], **aslant)
        if alike:
            axes.set_xlabel(clean(f"{bins.x.title} ({alike} …)".strip(), 90), loc="right", fontsize="large")
        axes.minorticks_off()


def _told_apart(labels: Sequence[str]) -> tuple[str, list[str]]:
    """The words with which all labels begin, and what is left of each: room for what tells them apart."""
    words = [label.split(" ") for label in labels]
    same = 0
    while len(words) > 1 and all(len(one) > same + 1 and one[same] == words[0][same] for one in words):
        same += 1
    return " ".join(words[0][:same]), [" ".join(one[same:]) for one in words]


def _words(figure: Any, header: Mapping[str, Any], bins: Bins, letters: float) -> None:
    width, height = figure.get_size_inches() * 72 / letters
    left, top = 1 / width, 1 - 0.7 / height
    figure.text(left, top, clean(header["title"], 120), va="top", fontsize=1.35 * letters, fontweight="bold", color=INK)
    said = [f"run {clean(header['run'], 40)}", f"{bins.entries:,.0f} entries"]
    if header.get("spill") is not None:
        said.append(f"to spill {header['spill']:,.0f}")
    if bins.y is None and bins.values.size and not bins.x.labels:
        mean, spread = _moments(bins)
        said += [f"mean {mean:.4g}", f"width {spread:.4g}"] if math.isfinite(mean) else []
        said += [f"below {bins.under:,.0f}"] if bins.under else []
        said += [f"above {bins.over:,.0f}"] if bins.over else []
    if header.get("output_time"):
        said.append(header["output_time"][:19].replace("T", " ") + " UTC")
    said += [clean(header["tag"], 40)] if header.get("tag") else []
    figure.text(left, top - 2.1 / height, "  ·  ".join(said), va="top", fontsize=0.92 * letters, color=SOFT)
    if header.get("quality") in COLOURS:
        figure.text(1 - left, top, header["quality"].upper(), ha="right", va="top", fontsize=1.3 * letters,
                    fontweight="bold", color=COLOURS[header["quality"]])  # fmt: skip


def _moments(bins: Bins) -> tuple[float, float]:
    centres = (bins.x.edges[1:] + bins.x.edges[:-1]) / 2
    total = bins.total
    if total <= 0:
        return math.nan, math.nan
    mean = float((centres * bins.values).sum() / total)
    return mean, math.sqrt(max(0.0, float((bins.values * (centres - mean) ** 2).sum() / total)))
