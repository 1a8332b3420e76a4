"""What is large, slow or hostile to the page itself: documents of megabytes, indexes being built, memory, races."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import page_double
import page_sample as sample
import pytest
from fastapi.testclient import TestClient

from orchestrator.chain import Chain
from orchestrator.couch import Database
from orchestrator.errors import Unavailable
from orchestrator.web import source as sources
from orchestrator.web.roots import Roots
from orchestrator.web.source import Source
from orchestrator.web.trim import LETTERS, VALUES, entries, shortened, trimmed


@pytest.mark.parametrize(
    "header",
    [
        {"text": "x" * 5_000_000},
        {f"k{i}": {f"n{j}": [i, j] for j in range(40)} for i in range(2000)},
        {"list": list(range(500_000))},
        {"alike": [{"a": i, "b": "y" * 50} for i in range(50_000)]},
        {"k" * 1_000_000: 1},
    ],
)
def test_a_document_of_megabytes_has_a_page_of_kilobytes(
    client: TestClient, database: page_double.Double, header: dict[str, Any]
) -> None:
    document = sample.document("big", 1, "good", 1, header=header)
    document["proc0"]["result"] = header
    database.documents["big_001"] = document | {"_id": "big_001"}
    began = time.monotonic()
    text = client.get("/documents/big_001").text
    assert time.monotonic() - began < 5
    assert len(text) < 600_000
    assert "more in the JSON" in text or "letters more" in text
    assert client.get("/api/documents/big_001").json()["document"]["header"] == header


def test_what_is_small_is_left_as_it_is() -> None:
    value = {"a": [1, {"b": None}], "c": "text"}
    assert trimmed(value) == value
    assert entries(value) == 3 and entries(list(range(10**6))) == VALUES
    assert shortened("x" * (LETTERS + 5)).endswith("(5 letters more)")


@pytest.mark.parametrize("id", ["_all_docs", "_changes", "_design/work", "_local/poller:p1", "_security"])
def test_what_is_no_document_is_not_read_as_one(client: TestClient, database: page_double.Double, id: str) -> None:
    asked: list[str] = []
    database.get = lambda id: asked.append(id) or {}  # type: ignore[method-assign, func-returns-value]
    for path in (f"/logs/{id}/proc0", f"/plots/{id}/proc0/0", f"/documents/{id}"):
        assert client.get(path).status_code == 404
    assert not asked


def test_a_position_that_no_page_gave_out_leads_nowhere(client: TestClient) -> None:
    for at in ("WzUsbnVsbCwwXQ", "W3siYSI6MX0sImlkIiwwXQ", "W1tdLG51bGwsMF0", "W05hTixudWxsLDBd"):
        assert client.get("/runs", params={"at": at}).status_code == 404, at


def test_a_folder_exchanged_for_a_link_after_the_look_is_not_followed(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (files / "run").mkdir()
    (files / "run" / "secret.txt").write_text("harmless")
    roots = Roots(files)
    assert roots.tail("run/secret.txt")["text"] == "harmless"  # type: ignore[index]
    find = roots.find

    def exchanged(name: Any) -> Path | None:
        found = find(name)
        (files / "run").rename(files / "old")
        (files / "run").symlink_to(files.parent)
        return found

    monkeypatch.setattr(roots, "find", exchanged)
    assert roots.tail("run/secret.txt") is None


def test_what_was_asked_is_not_kept_for_ever() -> None:
    now = [0.0]
    source = Source(lambda: page_double.Double(sample.chain(), [], sample.NOON), lambda: now[0])
    for number in range(1000):
        now[0] += 0.01
        for _twice in range(2):
            source.cached(("document", number), lambda _: "x" * 1000)
    assert not source._flights
    assert len(source._answers) <= 101  # those of the last second
    now[0] += 5
    source.cached("one", lambda _: 1)
    assert list(source._answers) == ["one"]


def test_of_many_who_ask_at_once_one_reads_and_a_failure_is_not_kept() -> None:
    source = Source(lambda: page_double.Double(sample.chain(), [], sample.NOON))
    gate, reads = threading.Event(), []

    def read(_: object) -> int:
        reads.append(1)
        gate.wait(5)
        return len(reads)

    answers: list[int] = []
    threads = [threading.Thread(target=lambda: answers.append(source.cached("k", read))) for _ in range(8)]
    for thread in threads:
        thread.start()
    gate.set()
    for thread in threads:
        thread.join(5)
    assert answers == [1] * 8 and not source._flights


def test_an_index_that_is_being_built_is_shown_as_it_is(
    client: TestClient, database: page_double.Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "FRESH_SECONDS", 0.05)
    view, asked = database.view, []

    def slow(name: str, **params: Any) -> Any:
        asked.append(params["update"])
        if params["update"] == "true":
            threading.Event().wait(params["timeout"])
            raise Unavailable("no answer within 0.05 s")
        return view(name, **params)

    monkeypatch.setattr(database, "view", slow)
    monkeypatch.setattr(sources, "SLOW_SECONDS", 0.01)
    assert client.get("/runs").status_code == 200
    assert client.get("/").status_code == 200  # ... and the next reads do not wait again
    assert asked.count("true") == 1
    database.broken = Unavailable("away")
    monkeypatch.setattr(database, "view", view)
    client.app.state.source._lazy_until = 0.0  # type: ignore[attr-defined]
    assert client.get("/runs").status_code == 503  # a database that is away is still said to be away


def test_a_design_document_exchanged_by_hand_does_not_hang_the_page(
    new_database: Callable[[Chain, list[dict[str, Any]]], Database],
) -> None:
    from orchestrator.web import create_app

    database = new_database(sample.chain(), [sample.document("r", n) for n in range(50)])
    app = create_app(lambda: database, chain=sample.chain(), live=False)
    with TestClient(app, base_url="http://localhost") as client:
        assert client.get("/api/overview").json()["documents"] == 50
        design = database.get("_design/pages")
        loop = "function (doc) { while (true) {} }"
        database.put(design | {"views": {name: view | {"map": loop} for name, view in design["views"].items()}})
        app.state.source.forget()
        began = time.monotonic()
        assert client.get("/api/overview").status_code in (200, 500, 503)
        assert time.monotonic() - began < 20
        assert client.get("/healthz").status_code in (200, 503)
