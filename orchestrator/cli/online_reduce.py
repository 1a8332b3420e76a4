"""``online``: the reducers and the broadcast."""

from __future__ import annotations

import click

#: Added to the group ``orchestrator online``.
COMMANDS: tuple[click.Command, ...] = ()
