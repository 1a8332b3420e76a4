"""Who is logged in: sessions in memory, each with the person's own session at the database behind it.

A password is handed to the database (``POST /_session``) and forgotten. What the database gives for it, a cookie that
lasts some minutes and is renewed by use, is kept here; what the browser gets is a random number of ours and its
signature. So nothing in the browser opens the database, a restart of the page logs everybody out, and what the
database says of an account (gone, another password, other roles) holds here within a minute.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Any

from orchestrator import roles
from orchestrator.couch import Database
from orchestrator.couch.answers import Subject
from orchestrator.couch.client import Connection
from orchestrator.errors import DatabaseError, Unauthorised, Unavailable

#: A login ends after so long (s) whatever happens: a shift, and some more.
LONGEST = 12 * 3600.0
#: ... and after so long (s) without a request. A page that is open asks every few seconds.
IDLE = 1800.0
#: How often (s) the database is asked whether a session still holds; its own lasts 600 s without a request.
ASK_EVERY = 60.0
#: While the database is away it is asked again after so long (s).
AWAY = 5.0
#: Sessions kept at most; the one that was used longest ago goes first.
MOST = 1000
#: After so many wrong passwords in a row for one name, each further try must wait.
FREE_TRIES = 3
#: The first wait (s); it doubles with every wrong password, up to the longest.
FIRST_WAIT, LONGEST_WAIT = 2.0, 300.0
#: After so long (s) without a try, wrong passwords are forgotten.
FORGIVEN = 900.0

COOKIE = "AuthSession"  # CouchDB's


class Personal(Connection):
    """Requests to the database in the name of a person, whose cookie is renewed as it is used."""

    def __init__(self, url: str, timeout: float, cookie: str) -> None:
        super().__init__(url, None, timeout)
        self.cookie = cookie

    def request(self, method: str, path: tuple[str, ...], **options: Any) -> tuple[int, Any, Any]:
        """As the connection's, with the cookie."""
        sent = {**(options.pop("headers", None) or {}), "Cookie": f"{COOKIE}={self.cookie}"}
        answer = super().request(method, path, headers=sent, **options)
        self.cookie = cookie_in(answer[1]) or self.cookie
        return answer


def cookie_in(headers: Any) -> str:
    """The database's cookie in the headers of its answer; "" if there is none."""
    for line in headers.get_all("Set-Cookie") or () if headers is not None else ():
        try:
            found = SimpleCookie(line)
        except CookieError:
            continue
        if COOKIE in found:
            return found[COOKIE].value
    return ""


@dataclass
class Session:
    """One login. ``token`` is what forms carry, so that no page elsewhere can send one."""

    name: str
    roles: frozenset[str]
    database: Personal
    began: float
    used: float
    asked: float
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    lock: threading.Lock = field(default_factory=threading.Lock)


class TooSoon(Exception):
    """Too many wrong passwords for this name. ``seconds`` until the next try."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"too many wrong passwords: try again in {seconds:.0f} s")
        self.seconds = seconds


class Slow:
    """Slows guessing: a name that has had several wrong passwords waits longer and longer."""

    def __init__(self) -> None:
        self._wrong: OrderedDict[str, tuple[int, float]] = OrderedDict()  # how many in a row, and when the last

    def check(self, name: str, now: float) -> None:
        """Raises TooSoon."""
        count, last = self._wrong.get(name, (0, 0.0))
        if count < FREE_TRIES or now - last > FORGIVEN:
            return
        left = last + min(FIRST_WAIT * 2 ** (count - FREE_TRIES), LONGEST_WAIT) - now
        if left > 0:
            raise TooSoon(left)

    def wrong(self, name: str, now: float) -> None:
        """A wrong password."""
        count, last = self._wrong.get(name, (0, 0.0))
        self._wrong[name] = (1 if now - last > FORGIVEN else count + 1, now)
        self._wrong.move_to_end(name)
        while len(self._wrong) > MOST:
            self._wrong.popitem(last=False)

    def right(self, name: str) -> None:
        """The right one."""
        self._wrong.pop(name, None)


class Sessions:
    """Logs in and out, and knows who a cookie is from. Safe to use from many threads.

    Args:
        url: the database server's.
        database: the run database's name.
        clock: seconds, monotonic.
        timeout: s that the database may take for an answer.
    """

    def __init__(self, url: str, database: str, clock: Callable[[], float], timeout: float = 10.0) -> None:
        self._url = url
        self._name = database
        self._clock = clock
        self._timeout = timeout
        self._key = secrets.token_bytes(32)
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._lock = threading.Lock()
        self._slow = Slow()
        self._trying = threading.Lock()  # one try at a time: guessing is as slow as the database's hash

    def log_in(self, name: str, password: str) -> str:
        """Ask the database; the value of the browser's cookie.

        Raises:
            TooSoon: after several wrong passwords.
            Unauthorised: wrong name or password, or the database has locked the account.
            Unavailable: it does not answer.
        """
        with self._trying:
            self._slow.check(name, self._clock())
            try:
                cookie, granted = self._ask_database(name, password)
            except Unauthorised:
                self._slow.wrong(name, self._clock())
                raise
            self._slow.right(name)
        now = self._clock()
        made = Session(name, granted, Personal(self._url, self._timeout, cookie), now, now, now)
        identity = secrets.token_urlsafe(32)
        with self._lock:
            self._sessions[identity] = made
            while len(self._sessions) > MOST:
                self._sessions.popitem(last=False)
        return f"{identity}.{self._signature(identity)}"

    def _ask_database(self, name: str, password: str) -> tuple[str, frozenset[str]]:
        connection = Personal(self._url, self._timeout, "")
        subject = Subject(connection.url)
        said = connection.json("POST", ("_session",), subject=subject, body={"name": name, "password": password})
        if not connection.cookie:
            raise Unavailable(f"{subject}: it gives no session. Is it CouchDB?")
        return connection.cookie, _roles(said)

    def find(self, value: str) -> Session | None:
        """The session that a cookie names, as it is known here: no question to the database."""
        identity, dot, signature = value.partition(".")
        if not dot or not hmac.compare_digest(signature.encode("utf-8", "replace"), self._signature(identity).encode()):
            return None
        now = self._clock()
        with self._lock:
            found = self._sessions.get(identity)
            if found is None:
                return None
            if now - found.began > LONGEST or now - found.used > IDLE:
                del self._sessions[identity]
                return None
            found.used = now
            self._sessions.move_to_end(identity)
        return found

    def confirmed(self, value: str) -> Session | None:
        """As `find`, and the database has said within the last minute that the session holds.

        A database that is away ends no session. Slow now and then: for a thread.
        """
        found = self.find(value)
        if found is None:
            return None
        if self._clock() - found.asked <= ASK_EVERY or not found.lock.acquire(blocking=False):
            return found  # or another request is asking already
        try:
            try:
                name, granted = _who(found.database)
            except Unavailable:
                found.asked = self._clock() - ASK_EVERY + AWAY  # not by every request of every page
                return found
            except DatabaseError:
                name, granted = "", frozenset()
            if name != found.name:
                self.log_out(value)
                return None
            found.roles, found.asked = granted, self._clock()
        finally:
            found.lock.release()
        return found

    def log_out(self, value: str) -> None:
        """End a session, here; the database's own ends by itself within minutes."""
        with self._lock:
            self._sessions.pop(value.partition(".")[0], None)

    def run_database(self, session: Session) -> Database:
        """The run database in the name of the person."""
        return Database(session.database, self._name)

    def _signature(self, identity: str) -> str:
        return hmac.new(self._key, identity.encode("utf-8", "replace"), hashlib.sha256).hexdigest()


def _who(connection: Personal) -> tuple[str, frozenset[str]]:
    """Whom the database knows by the cookie, with their roles; asking the server's root renews the cookie."""
    subject = Subject(connection.url)
    said = connection.json("GET", ("_session",), subject=subject).get("userCtx") or {}
    connection.json("GET", (), subject=subject)
    return str(said.get("name") or ""), _roles(said)


def _roles(said: Any) -> frozenset[str]:
    found = said.get("roles") if isinstance(said, dict) else None
    granted = {role for role in found if isinstance(role, str)} if isinstance(found, list) else set()
    return frozenset(granted | {roles.ADMIN} if roles.SERVER_ADMIN in granted else granted)
