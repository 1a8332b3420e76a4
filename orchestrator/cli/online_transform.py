"""``online``: start, stop and status of the whole, the transform, a worker, and one module alone on a file."""

from __future__ import annotations

import click

#: Added to the group ``orchestrator online``.
COMMANDS: tuple[click.Command, ...] = ()
