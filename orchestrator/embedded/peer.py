"""The replicator's way to a database, here or elsewhere: requests over one kept-alive connection, from one thread.

Everything a replicator sends may be sent twice (revisions are named by their content, checkpoints are overwritten), so
a request on a connection that turns out to be closed is sent once more on a fresh one. Nothing follows a redirect: a
password must not travel to wherever an answer points.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from orchestrator.embedded import codec
from orchestrator.version import VERSION

TIMEOUT = 30.0  # s without a byte from the other end after which it counts as away; CouchDB's own default
BLOCK = 256 * 1024  # bytes read at once
_WORDS = 500  # characters of an error answer that are kept


class PeerError(Exception):
    """A request that did not succeed.

    Attributes:
        error: CouchDB's error word, or ``unreachable``.
        status: of the answer; 0 where there was none.
    """

    def __init__(self, error: str, reason: str, status: int = 0) -> None:
        super().__init__(f"{error}: {reason}")
        self.error = error
        self.reason = reason
        self.status = status


class Cut(Exception):
    """The connection was cut on this side: the replication is to stop."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, whole."""

    status: int
    kind: str
    body: bytes

    def json(self) -> Any:
        """The body decoded.

        Raises:
            PeerError: it is no JSON; perhaps it was cut.
        """
        try:
            return codec.loads(self.body)
        except codec.InvalidJson as error:
            raise PeerError("invalid_json", "the answer is not JSON: is there a CouchDB?", self.status) from error

    def failure(self) -> PeerError:
        """The answer as an error."""
        try:
            said = codec.loads(self.body)
            return PeerError(str(said["error"]), str(said.get("reason", ""))[:_WORDS], self.status)
        except (codec.InvalidJson, LookupError, TypeError, AttributeError):
            words = self.body[:_WORDS].decode("utf-8", "replace").strip()
            return PeerError("unexpected_answer", f"status {self.status}: {words}", self.status)


class Peer:
    """One database.

    Args:
        url: of the database, without a slash at the end and without credentials.
        headers: sent with every request, the login among them.
        timeout: seconds of silence.
    """

    def __init__(self, url: str, headers: Mapping[str, str], timeout: float = TIMEOUT) -> None:
        self.url = url.rstrip("/")
        parts = urlsplit(self.url)
        self._base = parts.path
        self._secure = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port
        self._headers = {"Accept": "application/json", "User-Agent": f"couch-orchestrator/{VERSION}", **headers}
        self._timeout = timeout
        self._connection: http.client.HTTPConnection | None = None
        self._cut = False
        self._lock = threading.Lock()

    def cut(self) -> None:
        """End what is under way and all that follows, from any thread."""
        with self._lock:
            self._cut = True
            connection = self._connection
        if connection is not None and connection.sock is not None:
            with suppress(OSError):
                socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the connection back; only from the thread that uses it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def path(self, *parts: str, query: Mapping[str, str] | None = None) -> str:
        """The path of something in the database, each part quoted (``_design/x`` and ``_local/x`` keep their slash)."""
        pieces = []
        for part in parts:
            head = next((p for p in ("_design/", "_local/") if part.startswith(p)), "")
            pieces.append(head + quote(part[len(head) :], safe=""))
        text = "/".join([self._base, *pieces])
        return f"{text}?{urlencode(query)}" if query else text

    def ask(
        self,
        method: str,
        *parts: str,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request with a JSON body, whatever its status.

        Raises:
            PeerError: there was no answer.
            Cut: the replication is to stop.
        """
        sent = dict(headers or {})
        data = None
        if body is not None:
            sent.setdefault("Content-Type", "application/json")
            data = body if isinstance(body, bytes) else codec.dumps(body)
        with self.open(method, self.path(*parts, query=query), data, sent, timeout) as response:
            with self._troubles():
                content = response.read()
            return Answer(response.status, response.headers.get("Content-Type", ""), content)

    def json(self, method: str, *parts: str, **options: Any) -> Any:
        """One request that must succeed; the answer's JSON.

        Raises:
            PeerError: it did not.
        """
        answer = self.ask(method, *parts, **options)
        if answer.status >= 300:
            raise answer.failure()
        return answer.json()

    def send(
        self, *parts: str, query: Mapping[str, str], body: Callable[[], Iterator[bytes]], headers: Mapping[str, str]
    ) -> Answer:
        """PUT a body in pieces, made anew should it have to be sent twice; the answer, whatever its status."""
        with self.open("PUT", self.path(*parts, query=query), body, headers) as response:
            with self._troubles():
                content = response.read()
            return Answer(response.status, response.headers.get("Content-Type", ""), content)

    @contextmanager
    def open(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Iterator[http.client.HTTPResponse]:  # fmt: skip
        """One request; inside the ``with`` its answer can be read in pieces (see :meth:`pieces`)."""
        again = self._connection is not None
        while True:
            connection = self._connected(timeout or self._timeout)
            try:
                with self._troubles():
                    data = body() if callable(body) else body
                    connection.request(method, path, body=data, headers={**self._headers, **(headers or {})})
                    response = connection.getresponse()
                break
            except PeerError as error:
                self.close()
                if not again or error.error != "unreachable":
                    raise
                again = False
        try:
            yield response
            if not response.isclosed():
                self.close()  # something of the answer was left unread
        except BaseException:
            self.close()
            raise

    def pieces(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        """The body as it arrives."""
        while True:
            with self._troubles():
                block = response.read1(BLOCK)
            if not block:
                return
            yield block

    def _connected(self, timeout: float) -> http.client.HTTPConnection:
        if self._connection is None:
            if self._secure:
                context = ssl.create_default_context()
                made: http.client.HTTPConnection = http.client.HTTPSConnection(
                    self._host, self._port, timeout=timeout, context=context
                )
            else:
                made = http.client.HTTPConnection(self._host, self._port, timeout=timeout)
            with self._troubles():
                made.connect()
            with self._lock:
                self._connection = made
        connection = self._connection
        if connection.sock is not None:
            connection.sock.settimeout(timeout)
        if self._cut:
            raise Cut
        return connection

    @contextmanager
    def _troubles(self) -> Iterator[None]:
        """What can go wrong on the way, as ours."""
        try:
            yield
        except TimeoutError as error:
            self._must_go_on()
            raise PeerError("timeout", f"no answer from {self.url} in time") from error
        except ssl.SSLCertVerificationError as error:
            raise PeerError("tls", f"the certificate of {self.url} is not accepted: {error.verify_message}") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            # ValueError: a connection that is cut while it is being read.
            self._must_go_on()
            words = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise PeerError("unreachable", f"{self.url} cannot be reached: {words}") from error

    def _must_go_on(self) -> None:
        if self._cut:
            raise Cut
