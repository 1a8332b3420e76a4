"""The status page: reads the views of the run database and shows them, live, to people and to programs.

``create_app`` makes the application, ``serve`` serves it.
"""

from __future__ import annotations

from orchestrator.web.app import create_app
from orchestrator.web.serve import PORT, serve

__all__ = ["PORT", "create_app", "serve"]
