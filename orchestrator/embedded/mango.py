"""Mango queries (``_find``, ``_explain``): selectors here, indexes in ``mango_index``."""

from __future__ import annotations

from orchestrator.embedded.mango_selector import SelectorError, compile_selector

__all__ = ["SelectorError", "compile_selector"]
