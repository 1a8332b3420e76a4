"""``online``: the live system of the control room. Its commands stand in the modules ``online_*``, by what they do."""

from __future__ import annotations

import click

from orchestrator.cli import (
    online_display,
    online_reduce,
    online_replay,
    online_system,
    online_transform,
    online_try,
)
from orchestrator.cli.context import SiteGroup


@click.group(cls=SiteGroup, short_help="Live histograms in the control room.")
def online() -> None:
    """Live in the control room: spills transformed in parallel, histograms that nobody waits for.

    What is read, what is done with it and where it is shown stands in the file online.yaml in the site's folder.
    """


for _part in (online_system, online_try, online_replay, online_transform, online_reduce, online_display):
    for _command in _part.COMMANDS:
        online.add_command(_command)
