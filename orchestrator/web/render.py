"""HTML from templates. Everything is escaped unless a template of ours says otherwise, and none does."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
from starlette.requests import Request
from starlette.responses import Response

from orchestrator.version import VERSION
from orchestrator.web import chain_picture, human, trim
from orchestrator.web.forms import hand
from orchestrator.web.links import Links
from orchestrator.web.states import STATES, kind_of

HERE = Path(__file__).parent
#: Entries of a list or table in a result that a page shows; the JSON has them all.
NESTED_ENTRIES = 60
#: A table with more entries than these, inner ones counted, is shown folded.
OPEN_ENTRIES = 14
#: Letters of a whole document that its page shows as JSON; the link beside it gives all.
RAW_LETTERS = 60_000
#: Columns of a table made of several alike; wider ones are better read one by one.
MATRIX_COLUMNS = 14
#: Levels of nesting shown as tables; deeper ones as one line of JSON.
NESTED_LEVELS = 5


@lru_cache(maxsize=1)
def assets_version() -> str:
    """Changes when a style sheet or script changes, so that no browser keeps an old one."""
    digest = hashlib.sha256(VERSION.encode())
    for path in sorted((HERE / "static").rglob("*")):
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()[:10]


def unsaid(lines: Iterable[str], said: object) -> list[str]:
    """The lines whose words do not stand in what was said already, however they are capitalised."""
    words = str(said).lower()
    return [line for line in lines if line.lower() not in words]


@lru_cache(maxsize=1)
def environment() -> jinja2.Environment:
    """The templates, made ready once."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "number": human.number,
        "size": human.size,
        "duration": human.duration,
        "clock": human.clock,
        "pretty": pretty,
        "slug": slug,
        "without": without,
        "trimmed": trim.trimmed,
        "shortened": trim.shortened,
        "unsaid": unsaid,
    }
    made.globals |= {
        "STATES": STATES,
        "status_kind": kind_of,
        "bar": chain_picture.bar,
        "columns": chain_picture.columns,
        "matrix": matrix,
        "entries": trim.entries,
        "OPEN_ENTRIES": OPEN_ENTRIES,
        "BOX": (chain_picture.BOX_WIDTH, chain_picture.BOX_HEIGHT),
        "NESTED_ENTRIES": NESTED_ENTRIES,
        "NESTED_LEVELS": NESTED_LEVELS,
    }
    return made


def pretty(value: Any) -> str:
    """JSON for the eye; the beginning where it is long."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    return text if len(text) <= RAW_LETTERS else text[:RAW_LETTERS] + f"\n… {len(text) - RAW_LETTERS} letters more"


def matrix(value: Any) -> dict[str, Any] | None:
    """A table of tables that all have the same plain entries, as columns and rows; None for anything else."""
    if isinstance(value, dict):
        rows = list(value.items())
    elif isinstance(value, list):
        rows = list(enumerate(value))
    else:
        return None
    if len(rows) < 2 or not all(isinstance(row, dict) for _, row in rows):
        return None
    columns = list(rows[0][1])
    if not 1 < len(columns) <= MATRIX_COLUMNS:
        return None
    for _, row in rows:
        if list(row) != columns or any(isinstance(entry, dict | list) for entry in row.values()):
            return None
    return {"columns": columns, "rows": [(name, list(row.values())) for name, row in rows[:NESTED_ENTRIES]]}


def without(value: Any, *keys: str) -> Any:
    """A table without the entries that the page shows elsewhere."""
    return {k: v for k, v in value.items() if k not in keys} if isinstance(value, dict) else value


def slug(text: Any) -> str:
    """A state or kind as the name of a style: one of ours, or ``other``; nothing else ever becomes part of a class."""
    known = {"open", "closed", "good", *STATES}
    return str(text).replace(" ", "-") if text in known else "other"


def html(template: str, request: Request, context: dict[str, Any], status: int = 200) -> Response:
    """A page. ``now`` in the context is what ages are counted from."""
    links = Links(request.scope.get("root_path", ""))
    now = context["now_seconds"]
    text = environment().get_template(template).render(
        links=links,
        asset=lambda name: links.static(name, assets_version()),
        ago=lambda time: human.ago(time, now),
        path=request.scope.get("path", ""),
        host=request.url.hostname,
        version=VERSION,
        login=getattr(request.app.state, "login", None) is not None,
        session=_session(request),
        hand=hand(request),
        operations=getattr(request.app.state, "acting", False),
        **context,
    )  # fmt: skip
    headers = {"Vary": "Accept"}
    return Response(text.encode("utf-8", "replace"), status, headers, "text/html; charset=utf-8")


def _session(request: Request) -> Any:
    """Who is logged in, where the page has logins at all."""
    login = getattr(request.app.state, "login", None)
    return None if login is None else login.session(request)


def json_answer(data: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Plain ASCII JSON: safe whatever a document holds."""
    try:
        body = json.dumps(data, separators=(",", ":"), default=str, allow_nan=False)
    except ValueError:  # 1e400 is valid in a document and infinite in Python, and an infinity is no JSON
        body = json.dumps(_finite(data), separators=(",", ":"), default=str, allow_nan=False)
    return Response(body.encode(), status, {"Vary": "Accept"} | (headers or {}), "application/json")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    return [_finite(entry) for entry in value] if isinstance(value, list | tuple) else value


def wants_json(request: Request) -> bool:
    """Whether the reader is a program: by the address (``/api/``, ``?format=json``) or by what it accepts."""
    path = request.scope.get("path", "").removeprefix(request.scope.get("root_path", ""))
    if path.startswith("/api/") or request.query_params.get("format") == "json":
        return True
    accept = request.headers.get("accept", "")
    return "application/json" in accept and "text/html" not in accept
