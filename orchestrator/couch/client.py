"""The connection to CouchDB. The one module that imports python-couchdb (1.2, no longer maintained).

What is taken from it: its HTTP session and connection pool, its URL quoting and its error classes. What is mended
around it, each seen in its source (``couchdb/http.py``):

- no socket time-out by default: one is always set here, and can differ from request to request;
- it sends a request again when the connection breaks, writes too: a bulk that was in fact carried out is then
  answered with conflicts against itself. Here only reads are sent again, and an idle connection that the server has
  closed is noticed before it is used;
- it follows redirects and takes the password along to whatever host they name: refused here;
- its response cache is not safe between threads and keeps whole answers: switched off;
- a chunked error answer makes it raise AttributeError, a missing content type TypeError: both become errors of ours;
- it loads pkg_resources to learn its own version, which nobody asks for: that costs each process 9 MB and 60 ms, and it
  does without where there is none.

Thread-safe: threads share one pool of kept-alive connections, a connection serves one request at a time.
"""

from __future__ import annotations

import os
import select
import ssl
import sys
import threading
import time
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from orchestrator.couch import wire
from orchestrator.couch.answers import Subject, failure
from orchestrator.couch.credentials import Credentials
from orchestrator.errors import Conflict, DatabaseError, NotFound, SettingsError, Unavailable

if TYPE_CHECKING:
    from orchestrator.couch.database import Database

_ABSENT = "pkg_resources" not in sys.modules
if _ABSENT:
    sys.modules["pkg_resources"] = None  # type: ignore[assignment]
try:
    from couchdb import http as library
finally:
    if _ABSENT:
        del sys.modules["pkg_resources"]

_HUNG_UP = {(number,) for number in library.RETRYABLE_ERRORS}

TIMEOUT = 30.0  # s; a server that says nothing for so long is away. CouchDB answers all but a view build in ms


class _NoCache:
    """Stands where python-couchdb keeps whole answers by URL."""

    def get(self, url: str) -> None:
        return None

    def put(self, url: str, response: Any) -> None:
        return None

    def remove(self, url: str) -> None:
        return None


class _Pool(library.ConnectionPool):
    """Kept-alive connections; one that the server has closed is dropped before use, not after a failed write."""

    def __init__(self, timeout: float) -> None:
        super().__init__(timeout)
        self.process = os.getpid()
        self.wanted = threading.local()

    def get(self, url: str) -> Any:
        if self.process != os.getpid():  # after a fork: these sockets are the parent's
            self.process, self.lock = os.getpid(), threading.Lock()
            self.conns.clear()
        scheme, host = urlsplit(url)[:2]
        timeout = getattr(self.wanted, "timeout", self.timeout)
        while True:
            with self.lock:
                idle = self.conns.setdefault((scheme, host), [])
                connection = idle.pop() if idle else None
            if connection is None:
                kind = library.HTTPSConnection if scheme == "https" else library.HTTPConnection
                connection = kind(host, timeout=timeout)
                connection.connect()
                return connection
            if connection.sock is not None and not _readable(connection.sock):
                connection.sock.settimeout(timeout)
                return connection
            connection.close()

    def release(self, url: str, conn: Any) -> None:
        if conn.sock is not None:  # else the server asked to close it
            super().release(url, conn)


def _readable(sock: Any) -> bool:
    """True if an idle connection has something to read: the server's farewell."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


class Connection:
    """Requests to one server, answers as JSON, errors as ours. What Server and Database are made of.

    Args:
        url: ``http://host:port`` or ``https://...``, without user and password.
        credentials: sent with each request as basic authentication; None for an open server.
        timeout: seconds without a word from the server before it counts as away.
    """

    def __init__(self, url: str, credentials: Credentials | None = None, timeout: float = TIMEOUT) -> None:
        self.url = checked_url(url)
        self.timeout = timeout
        self._login = (credentials.username, credentials.password) if credentials else None
        # No retries by the library, and no redirects: see the module's docstring.
        self._session = library.Session(timeout=timeout, max_redirects=-1, retryable_errors=())
        self._session.cache = _NoCache()
        self._pool = _Pool(timeout)
        self._session.connection_pool = self._pool
        self._dated: tuple[str, float] | None = None  # the server's time in its last answer, and ours then

    @property
    def behind(self) -> float | None:
        """By how much (s) our clock is behind the server's, to half a second; None before it has said what time it is.

        From the header ``Date``, RFC 9110, which every answer of CouchDB has.
        """
        if self._dated is None:
            return None
        said, ours = self._dated
        try:
            return parsedate_to_datetime(said).timestamp() + 0.5 - ours
        except (TypeError, ValueError, OverflowError):
            return None

    @property
    def login(self) -> tuple[str, str] | None:
        """User and password for a client of another kind (the changes follower's)."""
        return self._login

    def request(
        self,
        method: str,
        path: tuple[str, ...],
        *,
        subject: Subject,
        body: Any = None,
        headers: dict[str, str] | None = None,
        params: dict[str, Any] | None = None,
        timeout: float | None = None,
        safe: bool | None = None,
    ) -> tuple[int, Any, Any]:
        """One request. Returns (status, headers, data), data being something with ``read`` or None.

        Args:
            path: segments, each is quoted here.
            body: bytes, sent as they are.
            params: the query; None leaves a parameter out.
            safe: asking twice does no harm, so a broken connection is tried once more. Default: GET and HEAD.
        """
        url = library.urljoin(self.url, *path, **(params or {}))
        safe = method in ("GET", "HEAD") if safe is None else safe
        while True:
            self._pool.wanted.timeout = self.timeout if timeout is None else timeout
            try:
                status, answered, data = self._session.request(
                    method, url, body=body, headers=dict(headers or {}), credentials=self._login
                )
            except TimeoutError as error:
                seconds = self.timeout if timeout is None else timeout
                raise Unavailable(f"{subject}: no answer within {seconds:g} s") from error
            except (OSError, HTTPException) as error:
                # python-couchdb raises a bare OSError(104) where the server hung up without an answer
                broken = isinstance(error, ConnectionError | HTTPException) or error.args[:1] in _HUNG_UP
                if safe and broken:
                    safe = False
                    continue
                raise Unavailable(f"{subject}: cannot be reached ({_words(error)}). Is it running?") from error
            except library.HTTPError as error:
                raise _failure(error, subject) from None
            except library.RedirectLimit as error:
                raise DatabaseError(f"{subject}: it redirects elsewhere. Give the URL it redirects to") from error
            except (AttributeError, TypeError, ValueError) as error:
                raise Unavailable(f"{subject}: its error answer cannot be read. Is it CouchDB?") from error
            if (date := answered.get("Date")) is not None:
                self._dated = (date, time.time())
            return status, answered, data

    def json(
        self,
        method: str,
        path: tuple[str, ...],
        *,
        subject: Subject,
        body: Any = None,
        params: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        timeout: float | None = None,
        safe: bool | None = None,
    ) -> Any:
        """One request with JSON both ways; a ``body`` of bytes is taken to be JSON already."""
        sent = dict(headers or {})
        if body is not None:
            sent["Content-Type"] = "application/json"
            if not isinstance(body, bytes):
                body = wire.dumps(body)
        answer = self.request(
            method, path, subject=subject, body=body, headers=sent, params=params, timeout=timeout, safe=safe
        )
        data = answer[2]
        try:
            content = data.read() if data is not None else b""
        except TimeoutError as error:
            raise Unavailable(f"{subject}: the answer stopped half way") from error
        except (OSError, HTTPException) as error:
            raise Unavailable(f"{subject}: the answer broke off ({_words(error)})") from error
        try:
            return wire.loads(content)
        except ValueError as error:
            raise Unavailable(f"{subject}: the answer is not JSON. Is it CouchDB?") from error


def checked_url(url: str) -> str:
    """``url`` without a trailing slash. Raises SettingsError if it cannot be used, or has a password in it."""
    url = url.strip()
    try:
        parts = urlsplit(url)
        port = parts.port
        (parts.hostname or "").encode("idna")
    except ValueError as error:
        raise SettingsError(f"The database's URL cannot be used ({error}): write http://127.0.0.1:5984") from error
    if "@" in parts.netloc:
        raise SettingsError(
            "The database's URL holds a user or a password, which would end up in logs and process lists. Write "
            f"{parts.scheme}://{parts.netloc.rpartition('@')[2]} and put them into a credentials file of mode 0600, "
            "or into ORCHESTRATOR_COUCH_USER and ORCHESTRATOR_COUCH_PASSWORD"
        )
    odd = any(character.isspace() for character in url)
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or odd:
        raise SettingsError(f"The database's URL {url!r} cannot be used: write http://127.0.0.1:5984 or https://...")
    if parts.query or parts.fragment:
        raise SettingsError(f"The database's URL {url!r} has a query: leave away all from '?' or '#' on")
    return url.rstrip("/")


def _words(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}; SSL_CERT_FILE names the authority's"
    if isinstance(error, OSError) and error.strerror is None and error.args[:1] in _HUNG_UP:
        return os.strerror(error.args[0])
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _failure(error: Exception, subject: Subject) -> DatabaseError:
    """python-couchdb's error as ours. Its argument is (error, reason), or (status, (error, reason))."""
    statuses = {
        library.Unauthorized: 401,
        library.Forbidden: 403,
        library.ResourceNotFound: 404,
        library.ResourceConflict: 409,
        library.PreconditionFailed: 412,
    }
    said: Any = error.args[0] if error.args else ""
    status = statuses.get(type(error), 0)
    if not status:
        status, said = said if isinstance(said, tuple) else (500, said)
    if isinstance(said, tuple):
        kind, reason = said
    else:
        text = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
        kind, reason = "", text.strip()[:200]
    return failure(int(status), str(kind or ""), _text(reason), subject)


def _text(reason: Any) -> str:
    return reason if isinstance(reason, str) else "" if reason is None else wire.dumps(reason).decode()


class Server:
    """One CouchDB, or the embedded server: nothing here asks which."""

    def __init__(self, url: str, credentials: Credentials | None = None, timeout: float = TIMEOUT) -> None:
        self.connection = Connection(url, credentials, timeout)
        self.url = self.connection.url
        self.subject = Subject(self.url)

    def __repr__(self) -> str:
        return f"Server({self.url!r})"

    def info(self) -> dict[str, Any]:
        """``GET /``: version and features."""
        return self._ask("GET", ())

    def up(self) -> bool:
        """Whether it answers at all and says it is well; a wrong password still raises Unauthorised."""
        try:
            return self._ask("GET", ("_up",)).get("status") == "ok"
        except (Unavailable, NotFound):
            return False

    def session(self) -> dict[str, Any]:
        """``GET /_session``: who we are to it, as ``userCtx``."""
        return self._ask("GET", ("_session",))

    def databases(self) -> list[str]:
        """The names of all databases (for admins)."""
        return self._ask("GET", ("_all_dbs",))

    def create(self, name: str) -> bool:
        """Make the database ``name``. Returns False if it was there already."""
        try:
            self._ask("PUT", (name,), subject=Subject(self.url, name))
        except Conflict:
            return False
        return True

    def delete(self, name: str) -> None:
        """Delete the database ``name`` with all that is in it. Raises NotFound if there is none."""
        self._ask("DELETE", (name,), subject=Subject(self.url, name))

    def database(self, name: str) -> Database:
        """The database ``name``; nothing is asked yet, so it need not exist."""
        from orchestrator.couch.database import (
            Database,
        )  # here, because Database is made of this module's parts

        return Database(self.connection, name)

    def _ask(
        self,
        method: str,
        path: tuple[str, ...],
        params: dict[str, Any] | None = None,
        subject: Subject | None = None,
    ) -> Any:
        return self.connection.json(method, path, params=params, subject=subject or self.subject)
