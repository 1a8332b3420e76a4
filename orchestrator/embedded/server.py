"""Starts the embedded server and keeps it running: folder, lock, credentials, port, signals."""

from __future__ import annotations

import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import uvicorn

from orchestrator.embedded import layout, security
from orchestrator.embedded.http_app import Application
from orchestrator.embedded.store import Store
from orchestrator.errors import Conflict, SettingsError

# The interpreter hands the lock between the event loop, the writers and the readers this often, in seconds. Its
# default of 5 ms would make every commit wait for it.
SWITCH_INTERVAL = 0.0005

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(
    path: Path,
    host: str = "127.0.0.1",
    port: int = 5984,
    *,
    synchronous: str = "full",
    credentials_file: Path | None = None,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve a folder of databases until SIGTERM or SIGINT.

    Args:
        path: the folder; made if it is not there.
        host: a loopback address: the server is made for its own machine.
        port: 0 for any that is free.
        synchronous: ``full``: a commit is on the disk when it is acknowledged. ``normal``: it is with the operating
            system, so that a kill of the server loses nothing but a power cut may lose the last moments.
        credentials_file: the admin's name and password (JSON, mode 0600), generated if it is not there;
            ``credentials.json`` in the folder by default.
        ready: called with the server's URL once it takes connections.

    Raises:
        SettingsError: a folder, a file or an argument that cannot be used.
        Conflict: the port is taken.
    """
    if synchronous not in layout.SYNCHRONOUS:
        raise SettingsError(f"synchronous must be full or normal, not {synchronous!r}.")
    if host not in _LOOPBACK:
        raise SettingsError(
            f"The embedded database serves its own machine only (127.0.0.1), not {host}: for others use Apache CouchDB."
        )
    listener = _listen(host, port)
    try:
        store = Store(path, synchronous)
        try:
            given = credentials_file or path / "credentials.json"
            admin = security.make_credentials(given)
            place = f"http://{host}:{listener.getsockname()[1]}"
            _run(Application(store, (admin["username"], admin["password"])), listener, place, ready)
        finally:
            store.close()
    finally:
        listener.close()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise Conflict(
            f"Port {port} on {host} cannot be used ({error.strerror}): another server may be running; "
            "stop it or choose another port."
        ) from error
    return listener


class _Server(uvicorn.Server):
    """uvicorn's server, which says when it is ready and lets endless feeds end at shutdown."""

    def __init__(self, config: uvicorn.Config, application: Application, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._application = application
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, then the announcement."""
        await super().startup(sockets=sockets)
        self._announce()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, after the feeds were told to end."""
        self._application.end_feeds()
        await super().shutdown(sockets=sockets)


def _run(
    application: Application, listener: socket.socket, place: str, ready: Callable[[str], None] | None
) -> None:
    config = uvicorn.Config(
        application,
        http="httptools",
        loop="uvloop",
        lifespan="off",
        interface="asgi3",
        access_log=False,
        log_level="warning",
        server_header=False,
        headers=[("Server", "CouchDB/3.4.3 (embedded)")],
        timeout_graceful_shutdown=2,
        timeout_keep_alive=300,
        backlog=512,
    )
    sys.setswitchinterval(SWITCH_INTERVAL)
    server = _Server(config, application, lambda: ready(place) if ready is not None else None)
    # uvicorn raises the signal that ended it once more at the end; by default SIGTERM would end us there and then,
    # with the databases still open and a status that says we failed.
    in_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, lambda number, frame: None) if in_main else None
    try:
        server.run(sockets=[listener])
    except KeyboardInterrupt:
        pass
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, before)
        application.close()
