"""What a replication is asked to do: the body of ``POST /_replicate``, or a document of ``_replicator``.

Both have the same members; what CouchDB refuses is refused in its words. Credentials come in the three forms that
CouchDB knows (an ``auth`` object, the URL's user part, an Authorization header), in that order of preference; an
endpoint that brings none takes what the server's own file of remote logins has for its URL (see ``remotes``). What is
shown of an endpoint never holds them. Pure data in, data out.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from orchestrator.embedded import codec

BATCH = 500  # changes taken at a time, CouchDB's default worker_batch_size
CHECKPOINT = 5.0  # s between two checkpoints while there is something to record

Logins = Callable[[str], tuple[str, str] | None]


class BadReplication(ValueError):
    """The request makes no sense, or asks for what is not supported (``status`` 501)."""

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One end: its URL without credentials, and the headers that carry them."""

    url: str
    headers: Mapping[str, str] = field(repr=False)

    @property
    def shown(self) -> str:
        """The URL as CouchDB shows it, with a slash at the end."""
        return self.url + "/"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A replication that is asked for."""

    source: Endpoint
    target: Endpoint
    continuous: bool = False
    create_target: bool = False
    winning_revs_only: bool = False
    use_checkpoints: bool = True
    use_bulk_get: bool = True
    doc_ids: tuple[str, ...] | None = None
    selector: dict[str, Any] | None = None
    filter: str = ""
    query_params: dict[str, str] = field(default_factory=dict)
    since_seq: Any = None
    batch: int = BATCH
    checkpoint: float = CHECKPOINT

    def identity(self, server: str, filter_code: str) -> str:
        """The replication's id: the same request to the same server always has the same one, whatever its login.

        Args:
            server: the server's own uuid.
            filter_code: the filter function's source; one that has changed makes another replication.
        """
        facts: list[Any] = [server, self.source.url, self.target.url]
        if self.doc_ids is not None:
            facts.append(["doc_ids", *self.doc_ids])
        if self.selector is not None:
            facts.append(["selector", self.selector])
        if self.filter:
            facts.append(["filter", self.filter, filter_code, sorted(self.query_params.items())])
        if self.winning_revs_only:
            facts.append("winning_revs_only")
        if self.since_seq is not None:
            facts.append(["since_seq", self.since_seq])
        return hashlib.md5(codec.dumps(facts), usedforsecurity=False).hexdigest()

    @property
    def suffix(self) -> str:
        """What follows the id in answers; checkpoints leave it out."""
        return ("+continuous" if self.continuous else "") + ("+create_target" if self.create_target else "")


_FLAGS = ("continuous", "create_target", "winning_revs_only", "use_checkpoints", "use_bulk_get")
_PROXIES = ("proxy", "source_proxy", "target_proxy")


def parse(body: Mapping[str, Any], logins: Logins) -> Wanted:
    """Read a request.

    Args:
        logins: the user and password that the server itself knows for a URL, or None.

    Raises:
        BadReplication: with CouchDB's reason.
    """
    for name in _PROXIES:
        if body.get(name):
            raise BadReplication(f"`{name}` is not supported by the embedded database; use Apache CouchDB.", 501)
    options: dict[str, Any] = {}
    for name in _FLAGS:
        if name in body:
            if not isinstance(body[name], bool):
                raise BadReplication(f"parameter `{name}` must be a boolean")
            options[name] = body[name]
    if body.get("doc_ids") is not None:
        listed = body["doc_ids"]
        if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
            raise BadReplication("parameter `doc_ids` must be an array")
        options["doc_ids"] = tuple(sorted({unquote(one) for one in listed}))
    for name in ("selector", "query_params"):
        if body.get(name) is not None:
            if not isinstance(body[name], dict):
                what = "a JSON object" if name == "selector" else "an object"
                raise BadReplication(f"parameter `{name}` must be {what}")
            options[name] = body[name]
    options["query_params"] = {key: _text(value) for key, value in options.get("query_params", {}).items()}
    if body.get("filter") is not None:
        name = body["filter"]
        if not isinstance(name, str) or name.count("/") != 1 or name.startswith("/") or name.endswith("/"):
            raise BadReplication("`filter` must be of the form `designname/filtername`")
        options["filter"] = name
    if sum(bool(name in options and options[name] is not None) for name in ("doc_ids", "selector", "filter")) > 1:
        raise BadReplication("`doc_ids`,`filter`,`selector` are mutually exclusive")
    if body.get("since_seq") is not None:
        options["since_seq"] = body["since_seq"]
    if "worker_batch_size" in body:
        options["batch"] = max(1, min(10_000, _number(body, "worker_batch_size")))
    if "checkpoint_interval" in body:
        options["checkpoint"] = max(0.1, _number(body, "checkpoint_interval") / 1000.0)
    source = endpoint(body.get("source"), "source", logins)
    target = endpoint(body.get("target"), "target", logins)
    return Wanted(source, target, **options)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else codec.dumps(value).decode()


def _number(body: Mapping[str, Any], name: str) -> int:
    try:
        return int(body[name])
    except (TypeError, ValueError):
        raise BadReplication(f"parameter `{name}` must be a number") from None


def endpoint(value: Any, name: str, logins: Logins) -> Endpoint:
    """One end of a replication, from its URL or its object.

    Raises:
        BadReplication: it is missing, no URL of HTTP, or a bare name: databases of this server need their URL too.
    """
    given: dict[str, Any] = {"url": value} if isinstance(value, str) else value if isinstance(value, dict) else {}
    if not given:
        raise BadReplication(f"Missing replicator database: `{name}` must be a URL, or an object with one")
    url = given.get("url")
    if not isinstance(url, str) or not url:
        raise BadReplication(f"`{name}` has an invalid url")
    if not url.startswith(("http://", "https://")):
        raise BadReplication("local_endpoints_not_supported", 500)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise BadReplication(f"`{name}` has an invalid url") from None
    if not parts.hostname or parts.query or parts.fragment or not parts.path.strip("/"):
        raise BadReplication(f"`{name}` has an invalid url")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    plain = urlunsplit(
        (parts.scheme, host if port is None else f"{host}:{port}", parts.path.rstrip("/"), "", "")
    )
    extra = given.get("headers") or {}
    if not isinstance(extra, dict) or not all(isinstance(text, str) for text in extra.values()):
        raise BadReplication(f"`{name}`: headers must be an object of strings")
    if any(character in text for pair in extra.items() for text in pair for character in "\r\n"):
        raise BadReplication(f"`{name}`: a header with a line end in it")
    headers = dict(extra)
    login = _login(given, parts.username, parts.password, name)
    if login is None and not any(key.lower() == "authorization" for key in headers):
        login = logins(plain)
    if login is not None:
        headers = {key: text for key, text in headers.items() if key.lower() != "authorization"}
        headers["Authorization"] = "Basic " + b64encode(f"{login[0]}:{login[1]}".encode()).decode("ascii")
    return Endpoint(plain, headers)


def _login(given: Mapping[str, Any], user: str | None, password: str | None, name: str) -> tuple[str, str] | None:
    basic = (given.get("auth") or {}).get("basic") if isinstance(given.get("auth") or {}, dict) else None
    if basic is not None:
        if not isinstance(basic, dict) or not all(isinstance(basic.get(key), str) for key in ("username", "password")):
            raise BadReplication(f"`{name}`: auth.basic needs a username and a password")
        return basic["username"], basic["password"]
    if user is not None:
        return unquote(user), unquote(password or "")
    return None
