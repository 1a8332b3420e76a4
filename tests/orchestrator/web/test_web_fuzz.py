"""Documents that hold anything at all, through the real couchapp and every page: never a fault, always valid JSON."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import page_sample as sample
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.chain import Chain
from orchestrator.couch import Database
from orchestrator.web import create_app
from orchestrator.web.links import Links

Make = Callable[[Chain, list[dict[str, Any]]], Database]

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_PLAIN = (
    st.none()
    | st.booleans()
    | st.sampled_from([0, -1, 2**63, 1e308, -1e308, -0.0, 1.5])
    | st.integers(-(2**63), 2**64 - 1)  # CouchDB takes larger ones: see test_web_safety
    | st.floats(allow_nan=False, allow_infinity=False)
    | _TEXT
    | st.sampled_from(["proc0", "proc1", "done", "failed", "in progress", "run", "a.png", "../../x", "/etc/passwd"])
    | st.sampled_from(["2026-01-22T11:00:00.123Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59Z", "\0", "%2e%2e"])
)
_ANY = st.recursive(
    _PLAIN,
    lambda inside: (
        st.lists(inside, max_size=4)
        | st.dictionaries(_TEXT | st.sampled_from(["a", "items", "file", "plots", "count"]), inside, max_size=4)
    ),
    max_leaves=8,
)
_STATUS = st.sampled_from(
    [
        "open",
        "closed",
        "good",
        "bad",
        "failed",
        "proc 0 queued",
        "proc 1 in progress",
        "proc 99 queued",
        "proc0 failed",
        "proc 0 in progress",
        "proc " + "9" * 400 + " queued",
    ]
)
_ENTRY_FIELDS = (
    *("state", "reason", "error_class", "seconds", "cpu_seconds", "max_rss", "started", "finished", "number", "host"),
    *("poller", "attempt", "result", "software", "log", "file", "size", "checksum", "was", "first", "losses"),
)
_ENTRY = _ANY | st.fixed_dictionaries(
    {"state": st.sampled_from(["done", "failed", "in progress", "queued"]) | _ANY},
    optional=dict.fromkeys(_ENTRY_FIELDS[1:], _ANY),
)
_RETRY = _ANY | st.fixed_dictionaries(
    {"step": st.sampled_from(["proc0", "proc1"])},
    optional={"number": _ANY, "not_before": _ANY, "reason": _ANY, "error_class": _ANY},
)
_FIELDS = ("run_name", "file_number", "file", "size", "checksum", "hostname", "site", "registered", "updated", "format")
_DOCUMENT = st.fixed_dictionaries(
    {"type": st.just("daqdocument"), "status": _STATUS | _ANY},
    optional={
        **dict.fromkeys((*_FIELDS, "priority", "header", "reason", "batchjob"), _ANY),
        **{f"proc{n}": _ENTRY for n in range(4)},
        "retry": _RETRY,
    },
)
_ATTEMPT = st.fixed_dictionaries(
    {"type": st.just("attempt"), "document": st.just("same"), "step": st.sampled_from(["proc0"]) | _ANY},
    optional=dict.fromkeys((*_ENTRY_FIELDS, "log_tail"), _ANY),
)
_BEAT = st.fixed_dictionaries(
    {"id": st.just("p1") | _ANY},
    optional=dict.fromkeys(("at", "beat", "lease", "steps", "host", "pid", "started", "running", "site"), _ANY),
)
_NUMBERS = itertools.count()


def read(client: TestClient, path: str) -> None:
    """The page, and what it is in JSON by the strict rules of JSON: no NaN, no infinity."""
    page = client.get(path)
    assert page.status_code in (200, 404), (path, page.text[-1500:])
    answer = client.get(path, headers={"Accept": "application/json"})
    assert answer.status_code == page.status_code

    def refuse(word: str) -> None:
        raise AssertionError(f"{path}: {word} is not JSON")

    json.loads(answer.content, parse_constant=refuse)


@pytest.fixture
def database(new_database: Make) -> Database:
    """Without the guard, which would not take most of these documents."""
    made = new_database(sample.chain(), [])
    made.delete(made.get("_design/guard"))
    return made


@pytest.fixture
def client(database: Database, files: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setattr("orchestrator.web.source.CACHE_SECONDS", 0.0)
    app = create_app(lambda: database, chain=sample.chain(), files_root=files, live=False)
    with TestClient(app, base_url="http://localhost", headers={"Accept": "text/html"}) as made:
        yield made


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    documents=st.lists(_DOCUMENT, min_size=1, max_size=4), attempts=st.lists(_ATTEMPT, max_size=2), beat=_BEAT,
    name=_TEXT.filter(lambda text: text and not text.startswith("_")),
)  # fmt: skip
def test_any_document_in_every_page(
    client: TestClient,
    database: Database,
    documents: list[dict[str, Any]],
    attempts: list[dict[str, Any]],
    beat: dict[str, Any],
    name: str,
) -> None:
    number = next(_NUMBERS)
    made = [document | {"_id": f"{name}{number}.{n}"} for n, document in enumerate(documents)]
    made += [a | {"_id": f"attempt:{number}.{n}", "document": made[0]["_id"]} for n, a in enumerate(attempts)]
    saved = database.bulk(made)
    assert all(hasattr(each, "rev") for each in saved), saved
    database.put_local("poller:p1", beat)
    links = Links()
    for path in ("/", "/runs", "/files", "/failed", "/bad", "/files?state=ready", "/files?status=in progress"):
        read(client, path)
    for document in made[: len(documents)]:
        read(client, links.document(document["_id"]))
        if isinstance(document.get("run_name"), str) and 0 < len(document["run_name"]) < 200:
            read(client, links.run(document["run_name"]))
        for step in range(2):
            part = quote(document["_id"], safe="")
            assert client.get(f"/plots/{part}/proc{step}/0").status_code == 404
            assert client.get(f"/logs/{part}/proc{step}").status_code == 404
    for document in database.get_many([d["_id"] for d in made]).values():
        if document is not None:
            database.delete(document)
