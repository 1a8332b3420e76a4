"""Who asks, and what they may do: basic login, cookie sessions, users in ``_users``, security objects.

The server's own admin has a generated password in a file that only the owner can read. Further users are documents in
``_users``, whose password is hashed (PBKDF2) before it is stored. There is no anonymous admin, as in CouchDB 3.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.embedded.problems import Problem, bad_request, forbidden, unauthorized
from orchestrator.errors import SettingsError

ITERATIONS = 600_000  # of PBKDF2-HMAC-SHA256: about 0.2 s for whoever guesses, once for who logs in (then cached)
MOST_ITERATIONS = 10_000_000  # of a document that somebody else has written: three seconds, and no more
#: The names that CouchDB has for the functions of ``pbkdf2_prf``.
PRF = {"sha": "sha1", "sha224": "sha224", "sha256": "sha256", "sha384": "sha384", "sha512": "sha512"}
SESSION_SECONDS = 600  # a cookie session's life without a request, CouchDB's default
USER_PREFIX = "org.couchdb.user:"
WRONG = "Name or password is incorrect."

_CACHE = 1000  # logins remembered; the cache is emptied when it is full


@dataclass(slots=True)
class User:
    """Somebody, or nobody (``name`` None)."""

    name: str | None = None
    roles: list[str] = field(default_factory=list)
    method: str | None = None  # how they logged in: "default" (basic) or "cookie", as _session says

    @property
    def is_admin(self) -> bool:
        """Whether this is the server's admin."""
        return "_admin" in self.roles

    def context(self, database: str | None = None) -> dict[str, Any]:
        """``userCtx`` as design functions see it."""
        shown: dict[str, Any] = {"name": self.name, "roles": self.roles}
        return {"db": database, **shown} if database is not None else shown


def make_credentials(path: Path) -> dict[str, str]:
    """The admin's credentials, read from their file or generated into it (mode 0600).

    Returns:
        ``username`` and ``password``, and whatever else the file says.

    Raises:
        SettingsError: the file cannot be used, or others can read it.
    """
    try:
        if path.stat().st_mode & 0o077:
            raise SettingsError(f"The credentials file {path} can be read by others: chmod 600 {path}")
        known = json.loads(path.read_text())
        if not isinstance(known["username"], str) or not isinstance(known["password"], str):
            raise ValueError("username and password must be strings")
        return known
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(f"The credentials file {path} cannot be used ({error}): mend or remove it.") from error
    made = {"username": "orchestrator", "password": secrets.token_urlsafe(24)}
    write_credentials(path, made)
    return made


def write_credentials(path: Path, credentials: dict[str, str]) -> None:
    """Write a credentials file that only its owner can read, whole or not at all.

    Raises:
        SettingsError: the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            json.dump(credentials, stream)
            stream.write("\n")
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        raise SettingsError(f"The credentials file {path} cannot be written ({error.strerror}).") from error


def hash_password(document: dict[str, Any]) -> dict[str, Any]:
    """A ``_users`` document with its plain password replaced by a salted hash.

    Raises:
        Problem: 403 if the document is no user, with CouchDB's reasons.
    """
    check_user(document)
    if not isinstance(document.get("password"), str):
        return document
    salt = secrets.token_hex(16)
    made = {key: value for key, value in document.items() if key not in ("password", "password_sha")}
    made.update(
        derived_key=derive(document["password"], salt, ITERATIONS),
        iterations=ITERATIONS,
        password_scheme="pbkdf2",
        pbkdf2_prf="sha256",
        salt=salt,
    )
    return made


def check_user(document: dict[str, Any]) -> None:
    """Refuse a ``_users`` document that is no user's.

    Raises:
        Problem: 403 with CouchDB's reasons.
    """
    if document.get("_deleted"):
        return
    name = document.get("name")
    roles = document.get("roles")
    if document.get("type") != "user":
        raise forbidden("doc.type must be user")
    if not name:
        raise forbidden("doc.name is required")
    if roles is None:
        raise forbidden("doc.roles must exist")
    if not isinstance(roles, list):
        raise forbidden("doc.roles must be an array")
    if not all(isinstance(role, str) for role in roles):
        raise forbidden("doc.roles can only contain strings")
    if document.get("_id") != f"{USER_PREFIX}{name}":
        raise forbidden(f"Doc ID must be of the form {USER_PREFIX}name")
    if any(role.startswith("_") for role in roles):
        raise forbidden("No system roles (starting with underscore) in users db.")


def derive(password: str, salt: str, iterations: int, function: str = "sha256") -> str:
    """The hash that is stored for a password. ``function`` is one of ``PRF``."""
    return hashlib.pbkdf2_hmac(function, password.encode(), salt.encode(), iterations).hex()


def matches(document: dict[str, Any], password: str) -> bool:
    """Whether a password is that of a ``_users`` document, as CouchDB has ever written one.

    ``pbkdf2_prf`` says which function was used; documents of CouchDB before 3.4 have none and used SHA-1. Older ones
    still (``simple``) are salted SHA-1 of the password.
    """
    salt, scheme = str(document.get("salt", "")), document.get("password_scheme")
    if scheme == "simple" or (scheme is None and "password_sha" in document):
        stored = document.get("password_sha")
        made = hashlib.sha1(f"{password}{salt}".encode(), usedforsecurity=False).hexdigest()
    else:
        stored, function = document.get("derived_key"), PRF.get(str(document.get("pbkdf2_prf", "sha")))
        iterations = document.get("iterations")
        if function is None or type(iterations) is not int or not 0 < iterations <= MOST_ITERATIONS:
            return False
        made = derive(password, salt, iterations, function)
    return isinstance(stored, str) and hmac.compare_digest(made.encode(), stored.encode())


class Accounts:
    """Checks passwords and cookies.

    Args:
        admin: the admin's username and password.
        lookup: gives a user's ``_users`` document, or None.
        secret: the server's own, which signs cookies.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        admin: tuple[str, str],
        lookup: Callable[[str], dict[str, Any] | None],
        secret: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._admin = admin
        self._lookup = lookup
        self._secret = secret
        self._clock = clock
        self._known: dict[str, User] = {}

    def forget(self) -> None:
        """A user has changed: check every password anew."""
        self._known.clear()

    def cached(self, header: str) -> User | None:
        """Who an Authorization header has been found to be."""
        return self._known.get(header)

    def basic(self, header: str) -> User:
        """Who an Authorization header is from. Slow at first: for a thread, not the event loop.

        Raises:
            Problem: 401 for a wrong name or password; 400 for a header that cannot be read.
        """
        kind, _, encoded = header.partition(" ")
        if kind.lower() != "basic":
            return User()
        try:
            name, colon, password = base64.b64decode(encoded.strip(), validate=True).decode("utf-8").partition(":")
        except (binascii.Error, ValueError) as error:
            raise bad_request("Authorization header has invalid base64 value") from error
        if not colon:
            return User()
        user = self.login(name, password)
        user.method = "default"
        if len(self._known) >= _CACHE:
            self._known.clear()
        self._known[header] = user
        return user

    def login(self, name: str, password: str) -> User:
        """Check a name and a password.

        Raises:
            Problem: 401.
        """
        if name == self._admin[0]:
            if hmac.compare_digest(password.encode(), self._admin[1].encode()):
                return User(name, ["_admin"])
            raise unauthorized(WRONG)
        document = self._lookup(name)
        if document is None or not matches(document, password):
            raise unauthorized(WRONG)
        return User(name, list(document.get("roles", [])))

    def _salt(self, name: str) -> tuple[str, list[str]] | None:
        if name == self._admin[0]:
            return hashlib.sha256(self._admin[1].encode()).hexdigest(), ["_admin"]
        document = self._lookup(name)
        return None if document is None else (str(document.get("salt", "")), list(document.get("roles", [])))

    def _sign(self, name: str, stamp: str, salt: str) -> str:
        return hmac.new(f"{self._secret}{salt}".encode(), f"{name}:{stamp}".encode(), "sha256").hexdigest()

    def cookie(self, name: str) -> str:
        """The value of a session cookie made now."""
        stamp = f"{int(self._clock()):X}"
        salt = self._salt(name)
        signature = self._sign(name, stamp, salt[0] if salt else "")
        return base64.urlsafe_b64encode(f"{name}:{stamp}:{signature}".encode()).decode().rstrip("=")

    def session(self, value: str) -> tuple[User, bool]:
        """Who a cookie is from, and whether it should be renewed; nobody if it has expired or is forged.

        Raises:
            Problem: 400 for a cookie that is none of ours.
        """
        if not value:
            return User(), False
        try:
            plain = base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)).decode("utf-8")
            name, stamp, signature = plain.rsplit(":", 2)
            age = self._clock() - int(stamp, 16)
        except (binascii.Error, ValueError) as error:
            raise bad_request("Malformed AuthSession cookie. Please clear your cookies.") from error
        known = self._salt(name)
        if known is None or not hmac.compare_digest(signature, self._sign(name, stamp, known[0])):
            return User(), False
        if age < 0 or age > SESSION_SECONDS:
            return User(), False
        return User(name, known[1], "cookie"), age > SESSION_SECONDS * 0.1


def require_server_admin(user: User) -> None:
    """Refuse all but the server's admin.

    Raises:
        Problem: 401.
    """
    if not user.is_admin:
        raise unauthorized("You are not a server admin.")


def is_database_admin(user: User, security: dict[str, Any]) -> bool:
    """Whether somebody may change a database's design documents and security."""
    return user.is_admin or _listed(user, security.get("admins"))


def require_database_admin(user: User, security: dict[str, Any]) -> None:
    """Refuse all but a database's admins.

    Raises:
        Problem: 401 for nobody, 403 for somebody else.
    """
    if is_database_admin(user, security):
        return
    if user.name is None:
        raise unauthorized("You are not a db or server admin.")
    raise forbidden("You are not a db or server admin.")


def require_member(user: User, security: dict[str, Any]) -> None:
    """Refuse who may not read a database.

    Raises:
        Problem: 401 for nobody, 403 for somebody else.
    """
    if user.is_admin:
        return
    members = security.get("members") or {}
    if not members.get("names") and not members.get("roles"):
        return
    if _listed(user, members) or _listed(user, security.get("admins")):
        return
    if user.name is None:
        raise unauthorized("You are not authorized to access this db.")
    raise forbidden("You are not allowed to access this db.")


def _listed(user: User, group: Any) -> bool:
    if not isinstance(group, dict) or user.name is None:
        return False
    return user.name in (group.get("names") or []) or any(role in (group.get("roles") or []) for role in user.roles)


def check_security(value: object) -> dict[str, Any]:
    """Refuse a security object of the wrong shape.

    Raises:
        Problem: 400.
    """
    if not isinstance(value, dict):
        raise bad_request("Request body must be a JSON object")
    for group in ("admins", "members"):
        entry = value.get(group, {})
        if not isinstance(entry, dict):
            raise Problem(400, "bad_request", f"{group} must be a JSON object")
        for kind in ("names", "roles"):
            listed = entry.get(kind, [])
            if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
                raise Problem(400, "bad_request", f"{kind} must be a JSON list of strings")
    return value
