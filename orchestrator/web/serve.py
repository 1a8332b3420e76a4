"""Serving the page: binds the port first, says so where it cannot, and ends without waiting for viewers."""

from __future__ import annotations

import contextlib
import errno
import signal
import socket
from collections.abc import Callable, Generator

import uvicorn
from fastapi import FastAPI

from orchestrator.errors import Exit, OrchestratorError, SettingsError

#: Beside CouchDB's 5984 and above the ports that need rights.
PORT = 8420
#: A request gets this long, in seconds, to end after a signal; streams are ended at once.
GRACE_SECONDS = 3
#: A connection to which nothing could be sent for so long, in seconds, is ended: a viewer that is gone without a word,
#: or has stopped to read, would keep its place for ever. Streams say something every few seconds.
UNSENT_SECONDS = 60


class PortTaken(OrchestratorError):
    """Another program listens there already."""

    exit_code = Exit.CONFLICT


class _Server(uvicorn.Server):
    """Ends the viewers' streams when it is told to end, which uvicorn would wait for."""

    def __init__(self, config: uvicorn.Config, ended: Callable[[], None]) -> None:
        super().__init__(config)
        self._ended = ended

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """SIGTERM is how the page is told to end, and no failure; uvicorn would raise it anew after the end."""
        with super().capture_signals():
            yield
            captured = getattr(self, "_captured_signals", [])
            captured[:] = [number for number in captured if number != signal.SIGTERM]

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._ended()
        await super().shutdown(sockets)


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises PortTaken, or SettingsError for an address that is not this machine's."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, OverflowError) as error:
        raise SettingsError(f"the page cannot listen at {host!r}: {error}; 127.0.0.1 always works") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; every accepted connection inherits it
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNSENT_SECONDS * 1000)
        listener.bind(address)
        listener.listen(128)
    except (OSError, OverflowError) as error:
        listener.close()
        number = getattr(error, "errno", None)
        if number == errno.EADDRINUSE:
            raise PortTaken(
                f"the page cannot listen at {host} port {port}: another program does; end it, or choose another port"
            ) from error
        if number == errno.EACCES:
            raise SettingsError(f"the page may not listen at port {port}: choose one above 1023") from error
        raise SettingsError(f"the page cannot listen at {host} port {port}: {error}") from error
    return listener


def serve(
    app: FastAPI,
    *,
    host: str = "127.0.0.1",
    port: int = PORT,
    root_path: str = "",
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        host: loopback unless told otherwise: the page has no login of its own.
        port: 0 takes a free one.
        root_path: the path under which a reverse proxy shows the page.
        ready: called with the page's address once the port is bound.

    Raises PortTaken (exit code CONFLICT), SettingsError.
    """
    listener = bind(host, port)
    try:
        number = listener.getsockname()[1]
        config = uvicorn.Config(
            app,
            root_path=root_path,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
            lifespan="on",
        )
        if ready is not None:
            shown = f"[{host}]" if ":" in host else "127.0.0.1" if host in ("0.0.0.0", "") else host
            ready(f"http://{shown}:{number}{root_path}/")
        _Server(config, app.state.hub.close).run(sockets=[listener])
    finally:
        listener.close()
