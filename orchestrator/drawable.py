"""Text of documents and raw files, made fit to stand in a picture."""

from __future__ import annotations

import unicodedata


def clean(text: str, limit: int = 60) -> str:
    """A text that can be drawn: ``?`` for control characters, and not more than ``limit`` letters."""
    shown = "".join("?" if unicodedata.category(one)[0] == "C" else one for one in text)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"
