"""Where spills wait between workers and reducers: in memory, in the memory of another process, or in the database.

``memory`` in this process, ``served`` in another one's, ``couch`` in the database, ``files`` what is too big for
either, ``retention`` what may go, ``names`` how things are called. One suite of tests runs against all.

    stores = open_stores(online.store, settings, os.environ)           # a reducer, a replay, a page
    stores, close = serve_stores(online.store, settings, os.environ)   # the transform
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.online.configuration import StoreSettings
    from orchestrator.online.store import Stores
    from orchestrator.settings import Settings

FOLDER = "online"  # in the site's folder
SPILLS = "spills"  # in that: results by reference
LARGE = "memory"  # the same for spills in the transform's memory, as long as it lives
SOCKET = "store.sock"  # and the way to spills in the transform's memory


def open_stores(store: StoreSettings, settings: Settings, environ: Mapping[str, str]) -> Stores:
    """The stores of a site as all of its processes but the transform see them. Nothing is asked yet.

    Raises SettingsError where the database's login cannot be read.
    """
    folder = Path(settings.folder) / FOLDER
    if store.kind == "memory":
        from orchestrator.online.stores.served import ServedStores

        return ServedStores(folder / SOCKET)
    from orchestrator.connect import server
    from orchestrator.online.stores.couch import CouchStores
    from orchestrator.online.stores.files import SpillFiles

    return CouchStores(server(settings, environ), store.prefix, SpillFiles(folder / SPILLS), store.inline)


def serve_stores(
    store: StoreSettings, settings: Settings, environ: Mapping[str, str]
) -> tuple[Stores, Callable[[], None]]:
    """The stores as the transform has them, and what it calls at its end: it serves those that are in its memory.

    Raises Conflict where another transform of the site runs.
    """
    if store.kind != "memory":
        return open_stores(store, settings, environ), _nothing
    from orchestrator.online.stores.files import SpillFiles
    from orchestrator.online.stores.memory import MemoryStores
    from orchestrator.online.stores.served import StoreServer, must_be_free

    folder = Path(settings.folder) / FOLDER
    must_be_free(folder / SOCKET)
    stores = MemoryStores(SpillFiles(folder / LARGE), store.inline)
    return stores, StoreServer(stores, folder / SOCKET).close


def _nothing() -> None:
    """The database needs no goodbye."""
