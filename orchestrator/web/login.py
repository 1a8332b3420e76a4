"""Logging in to the page, and out: a form, a cookie, and a gate for pages that only people with a login may read.

Forms are guarded twice against pages elsewhere: by what browsers say of where a request comes from, and by a token that
only our own page knows. The cookie is HttpOnly and SameSite=Lax, and Secure where the page is shown over https.
"""

from __future__ import annotations

import hmac
import secrets
from typing import Final

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from orchestrator.errors import Unauthorised, Unavailable
from orchestrator.web.forms import Fields, Hand, sent, way_back
from orchestrator.web.headers import problem
from orchestrator.web.links import Links
from orchestrator.web.login_sessions import LONGEST, Session, Sessions, TooSoon
from orchestrator.web.pages import Pages
from orchestrator.web.render import html, json_answer, wants_json
from orchestrator.web.roles import Person, Who, nobody

COOKIE: Final = "orchestrator"
#: Stands beside the form of somebody who is not logged in yet, and in it.
FORM_COOKIE: Final = "orchestrator-form"
FORM_BYTES: Final = 8192
#: What everybody may have: the form itself, what it looks like, and whether the page is alive.
OPEN: Final = ("/login", "/static/", "/healthz")


class Login:
    """The page's way to know people. ``who`` is what ``orchestrator.web.roles`` asks.

    Args:
        sessions: the logins.
        otherwise: who may change documents without a login: nobody, or `roles.anyone_here`.
    """

    def __init__(self, sessions: Sessions, otherwise: Who = nobody) -> None:
        self.sessions = sessions
        self._otherwise = otherwise
        self._token = secrets.token_urlsafe(24)  # for forms of people who need no login

    def who(self, request: Request) -> Person | None:
        """Who asks to change something."""
        return self.person(request) or self._otherwise(request)

    def person(self, request: Request) -> Person | None:
        """Who has logged in, with the way to the database in their own name; the database is asked once a minute."""
        session = self.sessions.confirmed(request.cookies.get(COOKIE, ""))
        if session is None:
            return None
        return Person(session.name, session.roles, lambda: self.sessions.run_database(session))

    def hand(self, request: Request) -> Hand | None:
        """Who would act, by what the page itself knows: never slow."""
        session = self.session(request)
        if session is not None:
            return Hand(Person(session.name, session.roles), session.token)
        person = self._otherwise(request)
        return None if person is None else Hand(person, self._token)

    def session(self, request: Request) -> Session | None:
        """The session as the page knows it, for its header: never slow."""
        return self.sessions.find(request.cookies.get(COOKIE, ""))

    def router(self, pages: Pages) -> APIRouter:
        """``/login`` and ``/logout``."""
        made = APIRouter(include_in_schema=False)

        @made.get("/login")
        def form(request: Request) -> Response:
            return self._form(request, pages, "", 200)

        @made.post("/login")
        async def log_in(request: Request) -> Response:
            fields = await sent(request, FORM_BYTES)
            known = request.cookies.get(FORM_COOKIE, "")
            if not known or not hmac.compare_digest(fields.one("token").encode(), known.encode()):
                return self._form(request, pages, "The form was too old: send it once more.", 403)
            return await run_in_threadpool(self._log_in, request, pages, fields)

        @made.post("/logout")
        async def log_out(request: Request) -> Response:
            fields = await sent(request, FORM_BYTES)
            value = request.cookies.get(COOKIE, "")
            session = self.sessions.find(value)
            if session is not None:
                if not hmac.compare_digest(fields.one("token").encode(), session.token.encode()):
                    raise HTTPException(403, "This request does not come from this page: nothing was done.")
                self.sessions.log_out(value)
            answer = RedirectResponse(Links(request.scope.get("root_path", "")).to("/"), 303)
            answer.delete_cookie(COOKIE, path=_path(request))
            return answer

        return made

    def _form(self, request: Request, pages: Pages, sentence: str, status: int) -> Response:
        token = request.cookies.get(FORM_COOKIE) or secrets.token_urlsafe(24)
        data = {"sentence": sentence, "token": token, "next": way_back(request.query_params.get("next", ""))}
        answer = html("login.html", request, {**pages.common(), "data": data}, status)
        _keep(answer, request, FORM_COOKIE, token, 3600)
        return answer

    def _log_in(self, request: Request, pages: Pages, fields: Fields) -> Response:
        name, password = fields.one("name").strip(), fields.one("password")
        if not name or not password:
            return self._form(request, pages, "Give a name and a password.", 400)
        try:
            value = self.sessions.log_in(name, password)
        except TooSoon as error:
            answer = self._form(request, pages, f"{str(error).capitalize()}.", 429)
            answer.headers["Retry-After"] = str(int(error.seconds) + 1)
            return answer
        except Unauthorised as error:
            locked = "locked" in str(error)
            words = "The database has locked this account for some minutes, after too many wrong passwords."
            return self._form(request, pages, words if locked else "The name or the password is wrong.", 401)
        except Unavailable:
            return self._form(request, pages, "The database does not answer: try again when it does.", 503)
        answer = RedirectResponse(Links(request.scope.get("root_path", "")).base + way_back(fields.one("next")), 303)
        _keep(answer, request, COOKIE, value, int(LONGEST))
        answer.delete_cookie(FORM_COOKIE, path=_path(request))
        return answer


class Gate:
    """Lets only people with a login read: pages lead to the form, programs are told 401. Plain ASGI, for streams."""

    def __init__(self, app: ASGIApp, login: Login) -> None:
        self._app = app
        self._login = login

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if any(path == one.rstrip("/") or (one.endswith("/") and path.startswith(one)) for one in OPEN):
            await self._app(scope, receive, send)
            return
        if await run_in_threadpool(self._login.person, request) is not None:
            await self._app(scope, receive, send)
            return
        answer: Response
        program = wants_json(request) or path.startswith(("/plots/", "/logs/", "/events"))
        if program or request.method not in ("GET", "HEAD"):
            sentence = "Log in first: this page may only be read by people with a login."
            answer = json_answer(problem(401, "unauthorised", sentence), 401)
        else:
            wanted = path + (f"?{request.url.query}" if request.url.query else "")
            answer = RedirectResponse(Links(scope.get("root_path", "")).to("/login", next=wanted), 303)
        await answer(scope, receive, send)


def _path(request: Request) -> str:
    return request.scope.get("root_path", "") or "/"


def _keep(answer: Response, request: Request, name: str, value: str, seconds: int) -> None:
    """Set a cookie of ours."""
    https = request.url.scheme == "https"
    answer.set_cookie(name, value, seconds, path=_path(request), secure=https, httponly=True, samesite="lax")
