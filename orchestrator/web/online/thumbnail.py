"""Small pictures of plots for lists, as SVG: a millisecond each, so that a list may refresh all the time. Pure.

Only numbers go into them, no text that came from elsewhere.
"""

from __future__ import annotations

import numpy as np

from orchestrator.online.bins import Bins

WIDTH, HEIGHT = 240, 132
#: Columns of a curve, and cells of a map: more cannot be seen at this size.
COLUMNS = 120
CELLS = (48, 28)
LEVELS = 8
#: Dark to light, even to the eye (after viridis).
COLOURS = ("#46327e", "#365c8d", "#277f8e", "#1fa187", "#4ac16d", "#86d549", "#c2df23", "#fde725")
_HEAD = (
    f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}">'
    f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>'
)
_FRAME = f'<path d="M.5 .5H{WIDTH - 0.5}V{HEIGHT - 0.5}H.5Z" fill="none" stroke="#c9ccd1"/></svg>'


def draw(bins: Bins | None, *, log: bool = False, reference: Bins | None = None) -> bytes:
    """An SVG document; an empty frame where there is nothing to draw. ``log``: of the content."""
    if bins is None:
        return (_HEAD + _FRAME).encode()
    if bins.y is not None:
        return (_HEAD + _map(bins.values, log) + _FRAME).encode()
    curve = _columns(bins.values)
    other = None
    if reference is not None and reference.y is None and reference.total > 0:
        other = _columns(reference.values * (bins.total / reference.total))
    top = float(max(curve.max(initial=0), other.max(initial=0) if other is not None else 0)) or 1.0
    low = float(min(0.0, curve.min(initial=0)))
    inner = f'<path d="{_steps(curve, low, top, log)}V{HEIGHT - 6}H6Z" fill="#2f6db5" fill-opacity=".28"/>'
    inner += f'<path d="{_steps(curve, low, top, log)}" fill="none" stroke="#1d5a9e" stroke-width="1.6"/>'
    if other is not None:
        inner += f'<path d="{_steps(other, low, top, log)}" fill="none" stroke="#c2571a" stroke-dasharray="4 3"/>'
    return (_HEAD + inner + _FRAME).encode()


def _columns(values: np.ndarray) -> np.ndarray:
    """At most COLUMNS values, each the highest of its neighbours, so that a peak of one bin stays."""
    finite = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    if len(finite) <= COLUMNS:
        return finite
    return np.array([part.max() for part in np.array_split(finite, COLUMNS)])


def _steps(values: np.ndarray, low: float, top: float, log: bool) -> str:
    span = top - low
    if log:
        parts = np.log10(np.clip(values, 0.5, None) / 0.5) / max(np.log10(max(top, 1.0) / 0.5), 1e-9)
    else:
        parts = (values - low) / span
    heights = HEIGHT - 6 - np.clip(parts, 0, 1) * (HEIGHT - 18)
    width = (WIDTH - 12) / max(len(values), 1)
    return f"M6 {HEIGHT - 6}" + "".join(
        f"V{height:.1f}H{6 + width * (column + 1):.1f}" for column, height in enumerate(heights)
    )


def _map(values: np.ndarray, log: bool) -> str:
    cells = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    for axis, most in enumerate(CELLS):
        if cells.shape[axis] > most:
            parts = np.array_split(cells, most, axis=axis)
            cells = np.stack([part.max(axis=axis) for part in parts], axis=axis)
    top = float(cells.max(initial=0))
    if top <= 0:
        return ""
    scale = np.log1p(np.clip(cells, 0, None)) / np.log1p(top) if log else cells / top
    levels = np.where(cells > 0, np.minimum((scale * LEVELS).astype(int), LEVELS - 1), -1)
    width, height = WIDTH / cells.shape[0], HEIGHT / cells.shape[1]
    paths = []
    for level, colour in enumerate(COLOURS):
        places = np.argwhere(levels == level)
        if len(places):
            path = "".join(
                f"M{x * width:.1f} {HEIGHT - (y + 1) * height:.1f}h{width:.1f}v{height:.1f}h-{width:.1f}z"
                for x, y in places
            )
            paths.append(f'<path fill="{colour}" d="{path}"/>')
    return "".join(paths)
