"""Plots as PNG, for browsers without scripts and for papers: drawn in a thread of their own, once for all viewers."""

from __future__ import annotations

import asyncio
import io
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from orchestrator.errors import FormatError
from orchestrator.web.online.bins import Bins, read
from orchestrator.web.online.board import Shown, parts

#: Pictures of one plot are drawn at most so often, in seconds: one costs a tenth of a second of one core.
PERIOD = 2.0
#: Bytes of pictures that are kept.
MEMORY = 48 * 1024 * 1024
#: Sizes in hundredths of an inch, which are pixels.
SIZES = {"large": (1280, 800), "medium": (800, 500)}
_PAPER, _INK, _SOFT, _CURVE, _OTHER = "#ffffff", "#1b1f24", "#5d6570", "#1d5a9e", "#c2571a"
_MARKS = {"good": "#2b6e3d", "warning": "#83590a", "bad": "#ab261e"}


class Pictures:
    """PNG of plots as they are now, or were a moment ago."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pool = ThreadPoolExecutor(1, "pictures")
        self._kept: OrderedDict[tuple[str, str, str], tuple[float, int, bytes]] = OrderedDict()
        self._drawing: dict[tuple[str, str, str], asyncio.Task[bytes]] = {}
        self._size = 0

    async def png(self, shown: Shown, size: str = "large") -> bytes:
        """The picture; one that was drawn a moment ago where there is one. Raises FormatError."""
        key = (shown.run, shown.name, size)
        kept = self._kept.get(key)
        if kept is not None and (kept[1] == shown.number or self._clock() - kept[0] < PERIOD):
            self._kept.move_to_end(key)
            return kept[2]
        task = self._drawing.get(key)
        if task is None:
            task = self._drawing[key] = asyncio.create_task(self._draw(key, shown, size))
            task.add_done_callback(lambda _: self._drawing.pop(key, None))
        return await asyncio.shield(task)

    async def _draw(self, key: tuple[str, str, str], shown: Shown, size: str) -> bytes:
        loop = asyncio.get_running_loop()
        made = await loop.run_in_executor(self._pool, draw, shown.header, shown.body, SIZES[size])
        old = self._kept.pop(key, None)
        self._size += len(made) - (len(old[2]) if old is not None else 0)
        self._kept[key] = (self._clock(), shown.number, made)
        while self._size > MEMORY:
            _, (_, _, dropped) = self._kept.popitem(last=False)
            self._size -= len(dropped)
        return made

    def close(self) -> None:
        """Draw no more."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def draw(header: dict[str, Any], body: bytes, size: tuple[int, int]) -> bytes:
    """A PNG of so many pixels. Raises FormatError."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn, other, _, fault = parts(body)
    if drawn is None:
        raise FormatError(f"{header['name']}: {fault}")
    bins = read(drawn)
    reference = read(other) if other is not None else None
    style = header["style"]
    quiet = {"text.parse_math": False, "font.family": "DejaVu Sans", "axes.formatter.use_mathtext": False}
    with matplotlib.rc_context(quiet):  # a title is a text, not a formula
        figure = Figure(figsize=(size[0] / 100, size[1] / 100), dpi=100, facecolor=_PAPER, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        if bins.y is None:
            _curve(figure, bins, reference, style)
        else:
            _map(figure, bins, style)
        _words(figure, header, bins)
        made = io.BytesIO()
        canvas.print_png(made)
    return made.getvalue()


def _dress(axes: Any, x: str, y: str) -> None:
    """As physicists draw: ticks inside and on all sides, titles at the ends of the axes."""
    axes.tick_params(which="both", direction="in", top=True, right=True, colors=_INK, labelsize=12)
    axes.minorticks_on()
    axes.set_xlabel(x[:90], loc="right", fontsize=14)
    axes.set_ylabel(y[:60], loc="top", fontsize=14)


def _curve(figure: Any, bins: Bins, reference: Bins | None, style: dict[str, Any]) -> None:
    with_ratio = reference is not None and reference.values.shape == bins.values.shape and reference.total > 0
    if with_ratio:
        axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    else:
        axes, below = figure.subplots(), None
    axes.stairs(bins.values, bins.x.edges, fill=True, color=_CURVE, alpha=0.22)
    axes.stairs(bins.values, bins.x.edges, color=_CURVE, linewidth=1.8, label="now")
    if with_ratio and below is not None and reference is not None:
        scale = bins.total / reference.total
        scaled = reference.values * scale
        axes.stairs(scaled, bins.x.edges, color=_OTHER, linewidth=1.6, linestyle=(0, (4, 2)), label="reference, scaled")
        axes.legend(frameon=False, fontsize=12)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(scaled > 0, bins.values / scaled, np.nan)
            errors = np.where(scaled > 0, bins.errors / scaled, np.nan)
        centres = (bins.x.edges[1:] + bins.x.edges[:-1]) / 2
        below.axhline(1.0, color=_SOFT, linewidth=1)
        below.errorbar(centres, ratio, errors, fmt="o", markersize=3, color=_CURVE, elinewidth=1)
        below.set_ylim(0, 2)
        _dress(below, bins.x.title, "ratio")
    _dress(axes, "" if with_ratio else bins.x.title, bins.value_title or "entries")
    if style.get("logx") and bins.x.edges[0] > 0:
        axes.set_xscale("log")
    if style.get("logy") and np.any(bins.values > 0):
        axes.set_yscale("log")
    elif not np.any(bins.values < 0):
        axes.set_ylim(bottom=0)
    axes.set_xlim(bins.x.edges[0], bins.x.edges[-1])
    _labels(axes, bins)


def _map(figure: Any, bins: Bins, style: dict[str, Any]) -> None:
    from matplotlib.colors import LogNorm

    assert bins.y is not None
    axes = figure.subplots()
    values = np.where(bins.values != 0, bins.values, np.nan).T
    low, high = (np.nanmin(values), np.nanmax(values)) if np.any(np.isfinite(values)) else (0.0, 1.0)
    norm = LogNorm(vmin=low, vmax=high) if style.get("logz") and 0 < low < high else None
    mesh = axes.pcolormesh(bins.x.edges, bins.y.edges, values, norm=norm, cmap="viridis", rasterized=True)
    bar = figure.colorbar(mesh, ax=axes, pad=0.01)
    bar.ax.tick_params(labelsize=11)
    _dress(axes, bins.x.title, bins.y.title)
    if style.get("logx") and bins.x.edges[0] > 0:
        axes.set_xscale("log")
    if style.get("logy") and bins.y.edges[0] > 0:
        axes.set_yscale("log")
    _labels(axes, bins)


def _labels(axes: Any, bins: Bins) -> None:
    if bins.x.labels and len(bins.x.labels) <= 60:
        centres = (bins.x.edges[1:] + bins.x.edges[:-1]) / 2
        axes.set_xticks(centres, bins.x.labels, rotation=45 if len(bins.x.labels) > 8 else 0)
        axes.minorticks_off()


def _words(figure: Any, header: dict[str, Any], bins: Bins) -> None:
    figure.suptitle(header["title"][:120], x=0.01, ha="left", fontsize=16, fontweight="bold", color=_INK)
    said = [f"run {header['run']}"[:40], f"{bins.entries:,.0f} entries"]
    if header["spill"] is not None:
        said.append(f"to spill {header['spill']:,.0f}")
    if bins.y is None and bins.values.size:
        mean, width = _moments(bins)
        said += [f"mean {mean:.4g}", f"width {width:.4g}"] if math.isfinite(mean) else []
        said += [f"below {bins.under:,.0f}"] if bins.under else []
        said += [f"above {bins.over:,.0f}"] if bins.over else []
    if header["output_time"]:
        said.append(header["output_time"][:19].replace("T", " ") + " UTC")
    letters = 11 if figure.get_figwidth() > 10 else 8.5
    figure.supxlabel("   ·   ".join(said), x=0.01, ha="left", fontsize=letters, color=_SOFT)
    if header["quality"] in _MARKS:
        figure.text(0.99, 0.985, header["quality"].upper(), ha="right", va="top", fontsize=15, fontweight="bold",
                    color=_MARKS[header["quality"]])  # fmt: skip


def _moments(bins: Bins) -> tuple[float, float]:
    centres = (bins.x.edges[1:] + bins.x.edges[:-1]) / 2
    total = bins.total
    if total <= 0:
        return math.nan, math.nan
    mean = float((centres * bins.values).sum() / total)
    return mean, math.sqrt(max(0.0, float((bins.values * (centres - mean) ** 2).sum() / total)))
