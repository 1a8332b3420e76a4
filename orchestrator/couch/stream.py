"""A connection that answers slowly: opened with ``requests``, read as bytes arrive, cut from another thread.

The changes follower's plumbing. Nothing is buffered beyond what has arrived: a row is handed on within the time of
one system call, not when some block is full.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import quote

import requests
from requests.adapters import HTTPAdapter
from urllib3 import connection, connectionpool
from urllib3.exceptions import HTTPError

from orchestrator.couch import wire

CONNECT_TIMEOUT = 10.0  # s for a connection to be made
_BLOCK = 64 * 1024  # bytes read at once at most
_LONGEST_WORDS = 64 * 1024  # bytes of an error answer that are looked at
_TROUBLE = (requests.RequestException, HTTPError, HTTPException, OSError, ValueError, AttributeError)
# ValueError and AttributeError: what http.client and urllib3 raise when a connection is cut under their hands.


class Broken(Exception):
    """The connection could not be made, fell silent, or was cut, perhaps in the middle of a line."""


class Stream:
    """One request at a time over one kept-alive connection; ``close`` cuts it at once, from any thread.

    Args:
        login: user and password, or None.
        read_timeout: seconds of silence after which the connection counts as broken.
    """

    def __init__(self, login: tuple[str, str] | None, read_timeout: float) -> None:
        self._read_timeout = read_timeout
        self._lock = threading.Lock()
        self._socket: Any = None
        self._closed = False
        self._response: requests.Response | None = None
        self._session = requests.Session()
        # No proxies and no ~/.netrc: as the rest of the adapter, it goes straight to the server it was given.
        self._session.trust_env = False
        authorities = ssl.get_default_verify_paths().cafile
        if authorities and Path(authorities).exists():
            self._session.verify = authorities  # the system's, and SSL_CERT_FILE, as http.client does
        self._session.headers.update({"Accept": "application/json", "Accept-Encoding": "identity"})
        if login is not None:
            # requests would encode it as Latin-1; CouchDB reads UTF-8
            token = b64encode(":".join(login).encode("utf-8")).decode("ascii")
            self._session.headers["Authorization"] = f"Basic {token}"
        adapter = HTTPAdapter(pool_connections=1, pool_maxsize=1)
        adapter.poolmanager.pool_classes_by_scheme = _pools(self._connected)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)

    def _connected(self, sock: Any) -> None:
        with self._lock:
            self._socket = sock
            closed = self._closed
        if closed:
            _cut(sock)

    def close(self) -> None:
        """Cut the connection: whoever reads from it gets Broken."""
        with self._lock:
            self._closed = True
            sock, self._socket = self._socket, None
        if sock is not None:
            _cut(sock)

    @contextmanager
    def open(self, url: str, database: str, query: dict[str, str], body: bytes | None) -> Iterator[int]:
        """Ask for ``_changes``; the answer's status. Inside the ``with``: ``lines``, ``json`` or ``words``."""
        if self._closed:
            raise Broken("closed")
        try:
            response = self._session.request(
                "GET" if body is None else "POST",
                f"{url}/{quote(database, safe='')}/_changes",
                params=query,
                data=body,
                headers=None if body is None else {"Content-Type": "application/json"},
                stream=True,
                allow_redirects=False,
                timeout=(CONNECT_TIMEOUT, self._read_timeout),
            )
        except _TROUBLE as error:
            raise Broken(_words(error, self._read_timeout)) from error
        self._response = response
        try:
            yield response.status_code
        finally:
            self._response = None
            with suppress(*_TROUBLE):  # cut already
                response.close()

    def lines(self) -> Iterator[bytes | None]:
        """Complete lines as they arrive, blank ones left out; None whenever nothing more is here at the moment.

        A half line at the end is discarded: the next round brings it whole. Raises Broken if the connection was cut.
        """
        rest: list[bytes] = []  # of a line; kept in pieces, for a row can be megabytes long
        while block := self._block():
            first, *whole = block.split(b"\n")
            rest.append(first)
            for piece in whole:
                line = b"".join(rest)
                rest = [piece]
                if line.strip():
                    yield line
            if not self._more():
                yield None
        if b"".join(rest).strip():
            raise Broken("the connection was cut in the middle of a line")

    def json(self) -> Any:
        """The whole answer's value. Raises Broken if it is not all there."""
        blocks = []
        while block := self._block():
            blocks.append(block)
        try:
            return wire.loads(b"".join(blocks))
        except ValueError as error:
            raise Broken("the answer was cut, or is not JSON") from error

    def words(self) -> dict[str, Any]:
        """An error answer's object; empty if it is none."""
        content = b""
        try:
            while len(content) < _LONGEST_WORDS and (block := self._block()):
                content += block
            answer = wire.loads(content)
        except (Broken, ValueError):
            return {"reason": content[:200].decode("utf-8", "replace")}
        return answer if isinstance(answer, dict) else {}

    def _block(self) -> bytes:
        if self._response is None:
            return b""
        try:
            return self._response.raw.read1(_BLOCK, decode_content=False) or b""
        except _TROUBLE as error:
            raise Broken(_words(error, self._read_timeout)) from error

    def _more(self) -> bool:
        """Whether bytes of a further row have arrived: then it goes into the same batch."""
        sock = self._socket
        raw = self._response.raw if self._response is not None else None
        reader = getattr(getattr(raw, "_fp", None), "fp", None)
        if sock is None or reader is None:
            return False
        try:
            patience = sock.gettimeout()
            sock.settimeout(0)
            try:
                # The line end that closes an HTTP chunk is no row yet.
                if reader.peek(1).strip(b"\r\n"):
                    return True
            finally:
                sock.settimeout(patience)
            poll = select.poll()
            poll.register(sock, select.POLLIN)
            return bool(poll.poll(0))
        except (OSError, ValueError):
            return False


def _cut(sock: Any) -> None:
    """Wake whoever waits on the socket. The plain shutdown: a TLS one would touch state that the reader uses."""
    with suppress(OSError):  # gone already
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _pools(connected: Callable[[Any], None]) -> dict[str, Any]:
    """urllib3's pools, with connections that tell their socket as soon as there is one."""

    class Plain(connection.HTTPConnection):
        def connect(self) -> None:
            super().connect()
            connected(self.sock)

    class Secure(connection.HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            connected(self.sock)

    class PlainPool(connectionpool.HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(connectionpool.HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}


def _words(error: BaseException, read_timeout: float) -> str:
    if isinstance(error, requests.ReadTimeout | TimeoutError) or "timed out" in str(error):
        return f"nothing came for {read_timeout:g} s"
    if isinstance(error, requests.ConnectionError) and "refused" in str(error):
        return "the connection was refused. Is it running?"
    if isinstance(error, requests.exceptions.SSLError) and "CERTIFICATE" in str(error):
        return "its certificate is not accepted; SSL_CERT_FILE names the authority's"
    return f"the connection broke ({type(error).__name__})"
