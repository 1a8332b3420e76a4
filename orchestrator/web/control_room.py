"""Where the live system's pages are, for links from the status page: another server on the same machine."""

from __future__ import annotations

import glob
import logging
from pathlib import Path
from urllib.parse import urlencode

from orchestrator.errors import SettingsError

log = logging.getLogger(__name__)


class ControlRoom:
    """The control room of a site.

    Args:
        folder: the online system's, in the site's: what is in it says which runs it has.
        port: of its pages.
    """

    def __init__(self, folder: Path, port: int) -> None:
        self._folder, self._port = folder, port

    def page(self, host: str | None) -> str:
        """Its first page, under the name ``host`` by which the reader has reached this machine."""
        name = host or "127.0.0.1"
        return f"http://{f'[{name}]' if ':' in name else name}:{self._port}/"

    def run(self, host: str | None, run: object) -> str:
        """The page of a run; empty where the live system has nothing of it."""
        return f"{self.page(host)}runs/?{urlencode({'name': run})}" if isinstance(run, str) and self._has(run) else ""

    def _has(self, run: str) -> bool:
        from orchestrator.online.stores.names import checked_run

        try:
            checked_run(run)
        except SettingsError:
            return False
        saved = f"*.{glob.escape(run)}.state"  # of a reducer: orchestrator.online.checkpoint
        return (self._folder / "runs" / run).is_dir() or any((self._folder / "state").glob(saved))


def control_room(folder: Path) -> ControlRoom | None:
    """That of the site in ``folder``; None for a site without one, or with one that cannot be started."""
    if not (folder / "online.yaml").exists():
        return None
    from orchestrator.online.configuration import load

    try:
        return ControlRoom(folder / "online", load(folder / "online.yaml").web_port)
    except SettingsError as error:
        log.warning("the status page has no links to the control room: %s", error)
        return None
