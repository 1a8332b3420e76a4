"""What every answer carries, and which requests are not answered at all: plain ASGI, so that streams pass untouched."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Everything from here, nothing inline: text that gets into a page in spite of all escaping still cannot run.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "manifest-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
#: Names by which a machine calls itself.
LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


def host_name(header: str) -> str | None:
    """The name in a Host header, without its port, in lower case; None where it is malformed."""
    try:
        parts = urlsplit(f"//{header}")
        return parts.hostname if parts.netloc == header and parts.username is None else None
    except ValueError:
        return None


def _address(host: str | None) -> bool:
    try:
        return ip_address(host or "") is not None
    except ValueError:
        return False


class Guard:
    """Adds the headers, and refuses requests made under a name that is not ours.

    A page elsewhere can let its own name point to this machine (DNS rebinding) and read what a visitor's browser can
    reach here; the name it comes under gives it away. An address is no name, and cannot be made to point elsewhere: any
    is taken. ``names`` holds further names, and ``*`` allows any. ``fault``
    makes the answer to a request that ended in an unexpected error, so that it carries the headers too.
    """

    def __init__(
        self, app: ASGIApp, names: Iterable[str] = (), fault: Callable[[Request, Exception], Response] | None = None
    ) -> None:
        self._app = app
        self._fault = fault
        self._names = LOCAL_NAMES | {n.lower().strip("[]") for n in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        host = host_name(Headers(scope=scope).get("host", ""))

        started = False

        async def with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        if "*" not in self._names and host not in self._names and not _address(host):
            answer = JSONResponse(
                problem(421, "misdirected", "this page does not go by the name in the request: open it by the address "
                        "it printed when it started, or add the name to the setting web_hosts"),
                status_code=421,
            )  # fmt: skip
            await answer(scope, receive, with_headers)
            return
        try:
            await self._app(scope, receive, with_headers)
        except Exception as error:
            if started or self._fault is None:
                raise
            await self._fault(Request(scope), error)(scope, receive, with_headers)


def problem(status: int, error: str, reason: str) -> dict[str, Any]:
    """The one shape of all errors in JSON: the HTTP status, a word for programs, a sentence for people."""
    return {"status": status, "error": error, "reason": reason}
