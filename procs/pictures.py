"""Static pictures of histograms: a page of panels as PNG, without pyplot and its global state.

Titles come from documents and raw files. They are drawn as plain text (no TeX), with control characters removed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from orchestrator.drawable import clean
from procs.binning import Counts
from procs.outputs import atomic_output

MOST_PANELS = 16  # a page with more is not legible
INK = "#1f4e79"


def page(path: Path, attempt: str, title: str, panels: Sequence[Counts], *, log: bool = False) -> int:
    """Draw up to :data:`MOST_PANELS` histograms on one page.

    Args:
        path: the PNG file; written atomically.
        attempt: the attempt's id.
        title: over the page.
        panels: one histogram each.
        log: logarithmic counts.

    Returns:
        how many panels were left out (the title says so too).
    """
    # Imported here: drawing is the smaller part of the steps, and the import takes a while.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, NullLocator

    shown = panels[:MOST_PANELS]
    left_out = len(panels) - len(shown)
    columns = min(len(shown), 4 if len(shown) > 4 else 2) or 1
    rows = math.ceil(len(shown) / columns) or 1
    width, height = 4.2 * columns + 0.6, 2.9 * rows + 0.5
    figure = Figure(figsize=(width, height), dpi=80)
    # Margins in inches, by hand: the automatic layout takes longer than the drawing.
    figure.subplots_adjust(
        left=0.75 / width,
        right=1 - 0.15 / width,
        bottom=0.5 / height,
        top=1 - 0.75 / height,
        wspace=0.26,
        hspace=0.42,
    )
    FigureCanvasAgg(figure)
    extra = f" (the first {len(shown)} of {len(panels)})" if left_out else ""
    figure.suptitle(clean(title, 90) + extra, fontsize=11, y=1 - 0.15 / height, va="top", parse_math=False)
    axes = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for axis, counts in zip(axes, shown, strict=False):
        values, edges = counts.zoomed()
        if counts.unit == "channel":
            edges = edges - 0.5  # whole numbers belong in the middle of their bins
        axis.stairs(values, edges, fill=True, color=INK, alpha=0.75)
        # A title with a place of its own spares matplotlib a search for one, which takes half of the time.
        axis.set_title(clean(counts.title), fontsize=9, y=1.01, parse_math=False)
        axis.set_xlabel(clean(counts.unit), fontsize=8, parse_math=False)
        axis.set_ylabel("entries", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.xaxis.set_major_locator(MaxNLocator(5))
        if log and values.max(initial=0) > 0:
            axis.set_yscale("log")
            axis.yaxis.set_minor_locator(NullLocator())
            axis.set_ylim(0.5, 3 * values.max())
        else:
            axis.set_ylim(0, 1.15 * max(values.max(initial=0), 1))
            axis.yaxis.set_major_locator(MaxNLocator(5))
        axis.text(
            0.97, 0.95, f"{counts.entries}", ha="right", va="top", fontsize=8, transform=axis.transAxes
        )
    for axis in axes[len(shown) :]:
        axis.set_visible(False)
    with atomic_output(path, attempt) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})
    return left_out
