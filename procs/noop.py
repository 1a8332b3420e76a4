"""A step that does nothing, for load tests and for trying out a chain. Imports nothing, so that it costs nothing."""

from __future__ import annotations

from typing import Any


def nothing(document: dict[str, Any], work: Any) -> dict[str, Any]:
    """Return at once, with whatever the setting ``result`` holds."""
    return dict(work.settings.get("result", {}))
