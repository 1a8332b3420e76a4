"""One HTTP request and its answer, as thin as the speed of the server asks for: raw ASGI, no framework between.

A handler takes a :class:`Request` and gives back a :class:`Response`; a refusal is a raised ``Problem``.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, unquote_to_bytes

from orchestrator.embedded import codec
from orchestrator.embedded.problems import Problem, bad_request, query_parse_error, wrong_type

if TYPE_CHECKING:
    from orchestrator.embedded.http_app import Application
    from orchestrator.embedded.security import User

Headers = list[tuple[bytes, bytes]]

MAX_REQUEST = 512 * 1024 * 1024  # bytes of a request's body that are held in memory
LARGEST = 2**63 - 1  # what SQLite takes as a number
_LARGE = 1024 * 1024  # bytes of JSON beyond which decoding would hold up the event loop
JSON = (b"content-type", b"application/json")
MUST_REVALIDATE = (b"cache-control", b"must-revalidate")


class Request:
    """What came in.

    Attributes:
        parts: the path, split at its slashes and decoded.
        query: the parameters; the first of several with one name counts.
        headers: lower-case names to values.
        user: who asks, after authentication.
    """

    __slots__ = ("_body", "_receive", "_scope", "app", "headers", "method", "parts", "query", "refreshed", "user")

    def __init__(self, app: Application, scope: dict[str, Any], receive: Callable[[], Awaitable[Any]]) -> None:
        self.app = app
        self.method: str = scope["method"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self._scope = scope
        self._receive = receive
        self._body: bytes | None = None
        self.user: User
        self.refreshed: str | None = None
        raw: bytes = scope["raw_path"]
        self.parts = split_path(raw)
        query = scope["query_string"]
        self.query: dict[str, str] = {}
        if query:
            for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
                self.query.setdefault(name, value)

    @property
    def path(self) -> str:
        """The path as it was sent, for messages and for filters."""
        return str(self._scope["raw_path"].decode("latin-1"))

    def location(self, *parts: str) -> str:
        """The absolute URL of something on this server, for the Location header."""
        host = self.header(b"host") or "127.0.0.1"
        return f"http://{host}/" + "/".join(quote(part, safe="") for part in parts)

    @property
    def peer(self) -> str:
        """The client's address."""
        client = self._scope.get("client")
        return str(client[0]) if client else "127.0.0.1"

    def header(self, name: bytes) -> str | None:
        """A header's value, or None."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives.

        Raises:
            ConnectionError: the client went away before it was complete.
        """
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ConnectionError("the client went away before its request was complete")
            more = message.get("more_body", False)
            data = message.get("body", b"")
            if data:
                yield data

    async def body(self) -> bytes:
        """The whole body, unzipped if it came zipped.

        Raises:
            Problem: 413 for more than ``MAX_REQUEST``, 400 or 415 for a bad encoding.
        """
        if self._body is None:
            parts: list[bytes] = []
            size = 0
            async for data in self.chunks():
                size += len(data)
                if size > MAX_REQUEST:
                    raise Problem(413, "too_large", "the request entity is too large")
                parts.append(data)
            self._body = self._decoded(b"".join(parts))
        return self._body

    def _decoded(self, data: bytes) -> bytes:
        encoding = self.headers.get(b"content-encoding", b"identity").strip().lower()
        if encoding == b"identity":
            return data
        if encoding != b"gzip":
            raise Problem(415, "bad_ctype", f"{encoding.decode('latin-1')} is not a supported content encoding.")
        unzip = zlib.decompressobj(zlib.MAX_WBITS | 16)
        try:
            plain = unzip.decompress(data, MAX_REQUEST)
        except zlib.error as error:
            raise bad_request("Request body is not properly gzipped.") from error
        if unzip.unconsumed_tail:
            raise Problem(413, "too_large", "the request entity is too large")
        return plain

    def check_type(self) -> None:
        """Refuse a body whose Content-Type is not JSON.

        Raises:
            Problem: 415.
        """
        kind = self.headers.get(b"content-type", b"").split(b";")[0].strip().lower()
        if kind != b"application/json":
            raise wrong_type()

    async def json(self, default: Any = None) -> Any:
        """The body as JSON; ``default`` for an empty one if that is not None.

        Raises:
            Problem: 400 for anything that is no strict JSON.
        """
        data = await self.body()
        if not data and default is not None:
            return default
        try:
            if len(data) > _LARGE:
                return await self.app.thread(codec.loads, data)
            return codec.loads(data)
        except codec.InvalidJson as error:
            raise bad_request("invalid UTF-8 JSON") from error

    async def json_object(self, default: dict[str, Any] | None = None) -> dict[str, Any]:
        """As :meth:`json`, and it must be an object."""
        value = await self.json(default)
        if not isinstance(value, dict):
            raise bad_request("Request body must be a JSON object")
        return value

    async def gone(self) -> None:
        """Return when the client has closed the connection. The body must have been read."""
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                return

    # Parameters

    def flag(self, name: str, default: bool = False) -> bool:
        """A boolean parameter.

        Raises:
            Problem: 400 for anything but ``true`` and ``false``.
        """
        value = self.query.get(name)
        if value is None:
            return default
        if value in ("true", "false"):
            return value == "true"
        raise query_parse_error(f"Invalid boolean parameter: \"{value}\"")

    def number(self, name: str, default: int | None = None) -> int | None:
        """A non-negative integer parameter.

        Raises:
            Problem: 400 for anything else.
        """
        value = self.query.get(name)
        if value is None:
            return default
        return whole(value)

    def parsed(self, name: str) -> Any:
        """A parameter that holds JSON.

        Raises:
            Problem: 400 if it does not.
        """
        try:
            return codec.loads(self.query[name])
        except codec.InvalidJson as error:
            raise bad_request("invalid UTF-8 JSON") from error


class Response:
    """What goes out: a status, a body at once or in pieces, headers."""

    __slots__ = ("body", "headers", "status", "stream")

    def __init__(
        self,
        status: int = 200,
        body: bytes = b"",
        headers: Iterable[tuple[bytes, bytes]] = (JSON, MUST_REVALIDATE),
        stream: AsyncIterator[bytes] | None = None,
    ) -> None:
        self.status = status
        self.body = body
        self.headers: Headers = list(headers)
        self.stream = stream

    def with_header(self, name: str, value: str) -> Response:
        """Add a header."""
        self.headers.append((name.lower().encode("latin-1"), value.encode("latin-1", "replace")))
        return self


def answer(value: Any, status: int = 200) -> Response:
    """A JSON answer, ended by a newline as CouchDB does."""
    return Response(status, codec.dumps(value) + b"\n")


def refusal(problem: Problem) -> Response:
    """The answer to a raised problem."""
    made = Response(problem.status, problem.body())
    for name, value in problem.headers:
        made.with_header(name, value)
    return made


def split_path(raw: bytes) -> list[str]:
    """The parts of a path, each decoded; a slash at the end makes no part.

    Raises:
        Problem: 400 if a part is not UTF-8.
    """
    pieces = raw.split(b"/")[1:]
    if pieces and not pieces[-1]:
        pieces.pop()
    try:
        return [unquote_to_bytes(piece).decode("utf-8") if b"%" in piece else piece.decode() for piece in pieces]
    except UnicodeDecodeError as error:
        raise bad_request("invalid UTF-8 in the path") from error


def whole(value: str) -> int:
    """A non-negative integer from a parameter.

    Raises:
        Problem: 400 with CouchDB's reason.
    """
    try:
        number = int(value)
    except ValueError:
        raise query_parse_error(f"Invalid value for integer: \"{value}\"") from None
    if number < 0:
        raise query_parse_error(f"Invalid value for positive integer: \"{value}\"")
    return min(number, LARGEST)


def etag_of(response_tag: str) -> tuple[bytes, bytes]:
    """An ETag header."""
    return b"etag", f'"{response_tag}"'.encode()
