"""Pictures made of numbers: the chain as boxes and arrows, bars of states, small curves. Pure geometry, in SVG's units.

The templates draw what stands here as inline SVG, so that text is escaped where all text is, and colours come from the
one style sheet (light, dark).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.web.states import STATES, Outline

BOX_WIDTH = 168
BOX_HEIGHT = 64
#: Between boxes along the flow and across it: room for an arrow, and for the eye to tell two rows apart.
ALONG = 44
ACROSS = 20
#: Room for the boxes' outlines at the picture's edge.
MARGIN = 3
#: Longer names are cut on the box; the whole name is in its title.
NAME_LETTERS = 17


def reduced(steps: Sequence[Outline]) -> dict[str, list[str]]:
    """Each step's needs without those that another need implies: what an arrow has to be drawn for."""
    reach: dict[str, set[str]] = {}
    kept: dict[str, list[str]] = {}
    for step in steps:
        implied: set[str] = set()
        for need in step.needs:
            implied |= reach.get(need, set())
        kept[step.key] = [n for n in step.needs if n not in implied and n in reach]
        reach[step.key] = implied | {n for n in step.needs if n in reach}
    return kept


def picture(steps: Sequence[Outline], words: Mapping[str, Mapping[str, str]], vertical: bool = False) -> dict[str, Any]:
    """Boxes and arrows of a chain.

    Args:
        words: for each step's key: ``state`` (colour and icon), ``note`` (the second line), ``href``, ``title``.
        vertical: from top to bottom, for narrow screens; else from left to right.

    Returns: ``{"width", "height", "boxes": [...], "arrows": [path data, ...]}``.
    """
    needs = reduced(steps)
    depth: dict[str, int] = {}
    lane: dict[str, int] = {}
    taken: dict[int, int] = {}
    for step in steps:
        level = 1 + max((depth[n] for n in needs[step.key]), default=-1)
        depth[step.key] = level
        lane[step.key] = taken.get(level, 0)
        taken[level] = lane[step.key] + 1

    def corner(key: str) -> tuple[float, float]:
        if vertical:
            return MARGIN + lane[key] * (BOX_WIDTH + ACROSS), MARGIN + depth[key] * (BOX_HEIGHT + ALONG * 0.6)
        return MARGIN + depth[key] * (BOX_WIDTH + ALONG), MARGIN + lane[key] * (BOX_HEIGHT + ACROSS)

    boxes: list[dict[str, Any]] = []
    arrows = []
    for step in steps:
        x, y = corner(step.key)
        name = step.name if len(step.name) <= NAME_LETTERS else step.name[: NAME_LETTERS - 1] + "…"
        boxes.append({"x": x, "y": y, "key": step.key, "name": name} | dict(words.get(step.key, {})))
        for need in needs[step.key]:
            px, py = corner(need)
            arrows.append(_arrow(px, py, x, y, vertical))
    width = max((b["x"] for b in boxes), default=0) + BOX_WIDTH + MARGIN
    height = max((b["y"] for b in boxes), default=0) + BOX_HEIGHT + MARGIN
    return {"width": width, "height": height, "boxes": boxes, "arrows": arrows, "vertical": vertical}


def _arrow(px: float, py: float, x: float, y: float, vertical: bool) -> str:
    """A curve from the edge of the box at (px, py) to that of the box at (x, y), 6 units short for the arrow's head."""
    if vertical:
        ax, ay, bx, by = px + BOX_WIDTH / 2, py + BOX_HEIGHT, x + BOX_WIDTH / 2, y - 6
        middle = (ay + by) / 2
        return f"M{ax:g} {ay:g}C{ax:g} {middle:g} {bx:g} {middle:g} {bx:g} {by:g}"
    ax, ay, bx, by = px + BOX_WIDTH, py + BOX_HEIGHT / 2, x - 6, y + BOX_HEIGHT / 2
    middle = (ax + bx) / 2
    return f"M{ax:g} {ay:g}C{middle:g} {ay:g} {middle:g} {by:g} {bx:g} {by:g}"


def bar(counts: Mapping[str, int], order: Sequence[str] = STATES, width: float = 1000.0) -> list[dict[str, Any]]:
    """A bar cut by state: ``[{"state", "x", "width"}]``. A state with few documents keeps a sliver that can be seen."""
    total = sum(counts.get(s, 0) for s in order)
    if total <= 0:
        return []
    least = width / 120
    wide = {s: max(least, width * counts[s] / total) for s in order if counts.get(s, 0) > 0}
    scale = width / sum(wide.values())
    made, x = [], 0.0
    for state, span in wide.items():
        made.append({"state": state, "x": round(x, 2), "width": round(span * scale, 2)})
        x += span * scale
    return made


def columns(values: Sequence[float], height: float = 26.0, step: float = 5.0) -> list[dict[str, float]]:
    """A small curve as columns: ``[{"x", "y", "height"}]``; what is not zero is at least a unit high."""
    most = max(values, default=0)
    made = []
    for index, value in enumerate(values):
        tall = 0.0 if value <= 0 or most <= 0 else max(1.5, height * value / most)
        made.append({"x": index * step, "y": round(height - tall, 2), "height": round(tall, 2)})
    return made
