"""The server as a replicator: ``_replicate``, ``_scheduler`` and the documents of ``_replicator``.

Both ends are databases of the server under test, named by their URLs as any others would be. A replication between two
servers is in ``tests/orchestrator/embedded/test_replication.py``.
"""

from __future__ import annotations

import base64
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from .conftest import Client, Database, eventually

A, B, C = "a" * 32, "b" * 32, "c" * 32
BINARY = bytes(range(256)) * 8000  # 2 MB, more than is held in memory on the way


@pytest.fixture
def other(server: Client) -> Iterator[Database]:
    """A second database."""
    made = Database(server, f"conformance-{uuid.uuid4().hex}")
    assert made.put().status_code in (201, 202)
    yield made
    made.delete()


def end(database: Client, auth: tuple[str, str] | None = None) -> dict[str, Any]:
    """A database as one end of a replication."""
    name, password = auth or database.auth or ("", "")
    return {"url": database.url, "auth": {"basic": {"username": name, "password": password}}}


def replicate(server: Client, source: Database, target: Database, **options: Any) -> dict[str, Any]:
    """Replicate once; what the server says of it."""
    answer = server.post("/_replicate", json={"source": end(source), "target": end(target), **options}, timeout=120)
    assert answer.status_code == 200, answer.text
    said: dict[str, Any] = answer.json()
    assert said["ok"] is True
    return said


def jobs(server: Client, source: Database) -> list[dict[str, Any]]:
    """The scheduler's jobs from a database."""
    rows: list[dict[str, Any]] = server.get("/_scheduler/jobs", params={"limit": 1000}).json()["jobs"]
    return [row for row in rows if row["source"] == source.url + "/"]


@pytest.fixture
def described(server: Client) -> Iterator[Callable[..., str]]:
    """Puts documents into ``_replicator``; they are deleted afterwards."""
    made: list[str] = []

    def put(source: Any, target: Any, **options: Any) -> str:
        name = f"conformance-{uuid.uuid4().hex}"
        made.append(name)
        document = {"source": source, "target": target, "owner": None, **options}
        assert server.put(f"/_replicator/{name}", json=document).status_code == 201
        return name

    yield put
    for name in made:
        eventually(
            lambda name=name: server.delete(  # type: ignore[misc]
                f"/_replicator/{name}", params={"rev": server.get(f"/_replicator/{name}").json().get("_rev", "")}
            ).status_code in (200, 404)
        )  # fmt: skip


def state(server: Client, name: str) -> str:
    """What the scheduler says of a document."""
    answer = server.get(f"/_scheduler/docs/_replicator/{name}")
    return str(answer.json().get("state")) if answer.status_code == 200 else "unknown"


# Once


def test_documents_with_their_revisions_arrive(server: Client, database: Database, other: Database) -> None:
    first = database.save({"_id": "a", "n": 1})
    database.save({"_id": "a", "_rev": first, "n": 2})
    rev = database.save({"_id": "b"})
    assert database.delete("/b", params={"rev": rev}).ok
    database.bulk([{"_id": f"d{number:04d}", "n": number} for number in range(700)])
    said = replicate(server, database, other)
    entry = said["history"][0]
    assert (entry["docs_read"], entry["docs_written"], entry["doc_write_failures"]) == (702, 702, 0)
    assert said["session_id"] == entry["session_id"]
    assert said["source_last_seq"] == entry["recorded_seq"]
    assert other.get("/a", params={"revs": "true"}).json() == database.get("/a", params={"revs": "true"}).json()
    assert other.get("/b").json()["reason"] == "deleted"
    ours, theirs = database.get().json(), other.get().json()
    for count in ("doc_count", "doc_del_count"):
        assert theirs[count] == ours[count]


def test_the_second_time_goes_on_where_the_first_ended(server: Client, database: Database, other: Database) -> None:
    database.bulk([{"_id": f"d{number}"} for number in range(10)])
    first = replicate(server, database, other)
    again = replicate(server, database, other)
    assert again["no_changes"] is True
    assert again["session_id"] == first["session_id"]
    database.save({"_id": "late"})
    third = replicate(server, database, other)
    assert third["history"][0]["start_last_seq"] == first["source_last_seq"]
    assert third["history"][0]["missing_checked"] == 1
    assert third["history"][1]["session_id"] == first["session_id"]


def test_both_ends_keep_the_log(server: Client, database: Database, other: Database) -> None:
    database.save({"_id": "a"})
    said = replicate(server, database, other)
    for place in (database, other):
        rows = place.get("/_local_docs", params={"include_docs": "true"}).json()["rows"]
        logs = [row["doc"] for row in rows if "source_last_seq" in row["doc"]]
        assert [log["session_id"] for log in logs] == [said["session_id"]]
        assert logs[0]["source_last_seq"] == said["source_last_seq"]
        assert logs[0]["history"][0]["recorded_seq"] == said["source_last_seq"]


def test_without_the_target_s_log_all_is_compared_and_nothing_sent(
    server: Client, database: Database, other: Database
) -> None:
    database.bulk([{"_id": f"d{number}"} for number in range(20)])
    replicate(server, database, other)
    for row in other.get("/_local_docs").json()["rows"]:
        rev = row["value"]["rev"]
        assert other.delete("/" + row["id"], params={"rev": rev}).ok
    entry = replicate(server, database, other)["history"][0]
    assert (entry["missing_checked"], entry["missing_found"], entry["docs_written"]) == (20, 0, 0)


def test_conflicts_travel_and_both_sides_have_the_same_winner(
    server: Client, database: Database, other: Database
) -> None:
    database.save({"_id": "d", "side": "here"})
    other.save({"_id": "d", "side": "there"})
    replicate(server, database, other)
    replicate(server, other, database)
    here, there = (one.get("/d", params={"conflicts": "true"}).json() for one in (database, other))
    assert here == there
    assert len(here["_conflicts"]) == 1
    assert database.delete("/d", params={"rev": here["_conflicts"][0]}).ok
    replicate(server, database, other)
    assert "_conflicts" not in other.get("/d", params={"conflicts": "true"}).json()


def test_attachments_travel(server: Client, database: Database, other: Database) -> None:
    kind = "application/octet-stream"
    assert database.put("/d/large.bin", data=BINARY, headers={"Content-Type": kind}).status_code == 201
    small = {"content_type": kind, "data": base64.b64encode(b"small").decode()}
    stubs = database.get("/d").json()
    stubs["_attachments"]["a b+ü.bin"] = small
    database.save(stubs)
    replicate(server, database, other)
    assert other.get("/d/large.bin").content == BINARY
    assert other.get("/d/a b+ü.bin").content == b"small"
    assert other.get("/d").json()["_attachments"] == database.get("/d").json()["_attachments"]
    document = database.get("/d").json()
    del document["_attachments"]["large.bin"]
    document["_attachments"]["text.txt"] = {"content_type": "text/plain", "data": base64.b64encode(b"t" * 999).decode()}
    database.save(document)
    said = replicate(server, database, other)
    assert said["history"][0]["doc_write_failures"] == 0
    assert sorted(other.get("/d").json()["_attachments"]) == ["a b+ü.bin", "text.txt"]
    assert other.get("/d/text.txt").content == b"t" * 999


def test_some_documents_only(server: Client, database: Database, other: Database) -> None:
    database.bulk([{"_id": f"d{number}", "type": "daq" if number % 2 else "run"} for number in range(6)])
    replicate(server, database, other, doc_ids=["d0", "d%31"])
    assert sorted(row["id"] for row in other.get("/_all_docs").json()["rows"]) == ["d0", "d1"]
    replicate(server, database, other, selector={"type": "daq"})
    assert sorted(row["id"] for row in other.get("/_all_docs").json()["rows"]) == ["d0", "d1", "d3", "d5"]
    source = "function (doc, req) { return doc._id === req.query.name; }"
    database.save({"_id": "_design/f", "filters": {"one": source}})
    replicate(server, database, other, filter="f/one", query_params={"name": "d4"})
    assert sorted(row["id"] for row in other.get("/_all_docs").json()["rows"]) == ["d0", "d1", "d3", "d4", "d5"]


def test_from_a_sequence_on(server: Client, database: Database, other: Database) -> None:
    database.save({"_id": "early"})
    since = database.get("/_changes").json()["last_seq"]
    database.save({"_id": "late"})
    replicate(server, database, other, since_seq=since)
    assert [row["id"] for row in other.get("/_all_docs").json()["rows"]] == ["late"]


def test_winners_only(server: Client, database: Database, other: Database) -> None:
    leaves = [{"_id": "d", "_rev": f"1-{A}", "n": 1}, {"_id": "d", "_rev": f"1-{B}", "n": 2}]
    database.bulk(leaves, new_edits=False)
    replicate(server, database, other, winning_revs_only=True)
    found = other.get("/d", params={"conflicts": "true"}).json()
    assert (found["n"], found.get("_conflicts")) == (2, None)


def test_a_target_is_made_where_that_is_asked_for(server: Client, database: Database) -> None:
    database.save({"_id": "a"})
    made = Database(server, f"conformance-{uuid.uuid4().hex}")
    try:
        replicate(server, database, made, create_target=True)
        assert made.get("/a").status_code == 200
        replicate(server, database, made, create_target=True)
    finally:
        made.delete()


def test_a_design_document_travels_and_works(server: Client, database: Database, other: Database) -> None:
    database.save({"_id": "_design/d", "views": {"v": {"map": "function (doc) { emit(doc.n, null); }"}}})
    database.save({"_id": "a", "n": 1})
    replicate(server, database, other)
    assert other.get("/_design/d/_view/v").json()["rows"][0]["key"] == 1


# What does not go over


def test_what_the_target_s_guard_refuses_is_counted(server: Client, database: Database, other: Database) -> None:
    guard = "function (doc) { if (doc.bad) throw {forbidden: 'no'}; }"
    other.save({"_id": "_design/g", "validate_doc_update": guard})
    assert eventually(lambda: other.put("/probe", json={"bad": True}).status_code == 403)
    kind = {"content_type": "application/octet-stream", "data": base64.b64encode(BINARY[:70_000]).decode()}
    database.bulk([{"_id": "a"}, {"_id": "b", "bad": True}, {"_id": "c", "bad": True, "_attachments": {"x": kind}}])
    entry = replicate(server, database, other)["history"][0]
    assert (entry["docs_read"], entry["docs_written"], entry["doc_write_failures"]) == (3, 1, 2)
    assert other.get("/a").status_code == 200
    assert other.get("/b").status_code == 404
    assert replicate(server, database, other).get("no_changes") is True, "what was refused is not asked for again"


def test_a_database_that_is_not_there(server: Client, database: Database) -> None:
    body = {"source": {**end(database), "url": database.url + "-none"}, "target": end(database)}
    answer = server.post("/_replicate", json=body)
    assert answer.status_code in (404, 500)
    assert answer.json()["error"] == "db_not_found"
    assert answer.json()["reason"] == f"could not open {database.url}-none/"


def test_a_wrong_password_is_no_secret_in_the_answer(server: Client, database: Database, other: Database) -> None:
    body = {"source": end(database, ("nobody", "sesame-open")), "target": end(other)}
    answer = server.post("/_replicate", json=body)
    assert answer.status_code >= 400
    assert "sesame-open" not in answer.text


@pytest.mark.parametrize(
    "change",
    [
        {"source": None}, {"target": None}, {"continuous": "yes"}, {"doc_ids": "a"}, {"selector": []},
        {"doc_ids": [], "selector": {}}, {"selector": {}, "filter": "a/b"}, {"query_params": []}, {"cancel": 1},
        {"source": "a-bare-name"}, {"source": "ftp://127.0.0.1/x"}, {"create_target": 1},
    ],
)  # fmt: skip
def test_requests_that_make_no_sense(server: Client, database: Database, other: Database, change: Any) -> None:
    body = {"source": end(database), "target": end(other), **change}
    answer = server.post("/_replicate", json=body)
    assert answer.status_code >= 400
    assert "error" in answer.json()


def test_only_by_post(server: Client) -> None:
    assert server.get("/_replicate").status_code == 405


# On and on


def test_continuous_and_cancelled(server: Client, database: Database, other: Database) -> None:
    database.save({"_id": "before"})
    body = {"source": end(database), "target": end(other), "continuous": True}
    answer = server.post("/_replicate", json=body)
    assert answer.status_code == 202
    name = answer.json()["_local_id"]
    assert name.endswith("+continuous")
    assert eventually(lambda: other.get("/before").status_code == 200)
    database.save({"_id": "after"})
    assert eventually(lambda: other.get("/after").status_code == 200)
    assert server.post("/_replicate", json=body).json()["_local_id"] == name, "asked for again, it just goes on"
    assert eventually(lambda: len(jobs(server, database)) == 1)
    (job,) = jobs(server, database)
    assert (job["id"], job["target"], job["database"], job["doc_id"]) == (name, other.url + "/", None, None)
    assert {event["type"] for event in job["history"]} >= {"added", "started"}
    assert eventually(lambda: jobs(server, database)[0]["info"]["docs_written"] == 2)
    assert eventually(lambda: jobs(server, database)[0]["info"]["changes_pending"] == 0)
    assert server.get(f"/_scheduler/jobs/{name}").json()["id"] == name
    cancelled = server.post("/_replicate", json={"replication_id": name, "cancel": True})
    assert (cancelled.status_code, cancelled.json()) == (200, {"ok": True, "_local_id": name})
    assert eventually(lambda: not jobs(server, database))
    assert server.post("/_replicate", json={**body, "cancel": True}).status_code == 404
    database.save({"_id": "too-late"})
    assert other.get("/too-late").status_code == 404


def test_cancelled_by_the_same_words(server: Client, database: Database, other: Database) -> None:
    body = {"source": end(database), "target": end(other), "continuous": True}
    name = server.post("/_replicate", json=body).json()["_local_id"]
    assert server.post("/_replicate", json={**body, "cancel": True}).json()["_local_id"] == name
    assert eventually(lambda: not jobs(server, database))


def test_a_running_replication_is_a_task(server: Client, database: Database, other: Database) -> None:
    body = {"source": end(database), "target": end(other), "continuous": True}
    name = server.post("/_replicate", json=body).json()["_local_id"]
    try:
        assert eventually(
            lambda: any(
                task["type"] == "replication" and task.get("replication_id") == name and task["continuous"] is True
                for task in server.get("/_active_tasks").json()
            )
        )
    finally:
        server.post("/_replicate", json={"replication_id": name, "cancel": True})


def test_no_password_is_shown(server: Client, database: Database, other: Database) -> None:
    body = {"source": end(database), "target": end(other), "continuous": True}
    name = server.post("/_replicate", json=body).json()["_local_id"]
    try:
        assert eventually(lambda: len(jobs(server, database)) == 1)
        shown = server.get("/_scheduler/jobs").text + server.get("/_active_tasks").text
        assert (database.auth or ("", "-"))[1] not in shown
    finally:
        server.post("/_replicate", json={"replication_id": name, "cancel": True})


# By documents


def test_a_document_replicates_once(
    server: Client, database: Database, other: Database, described: Callable[..., str]
) -> None:
    database.bulk([{"_id": "a"}, {"_id": "b"}])
    name = described(end(database), end(other))
    assert eventually(lambda: server.get(f"/_replicator/{name}").json().get("_replication_state") == "completed", 90)
    assert other.get("/b").status_code == 200
    document = server.get(f"/_replicator/{name}").json()
    assert document["_replication_stats"]["docs_written"] == 2
    assert document["_replication_state_time"]
    assert eventually(lambda: state(server, name) == "completed")
    row = server.get(f"/_scheduler/docs/_replicator/{name}").json()
    assert (row["database"], row["doc_id"], row["error_count"]) == ("_replicator", name, 0)
    assert row["source"] == database.url + "/"


def test_a_document_replicates_on_until_it_is_deleted(
    server: Client, database: Database, other: Database, described: Callable[..., str]
) -> None:
    name = described(end(database), end(other), continuous=True)
    assert eventually(lambda: state(server, name) == "running", 90)
    database.save({"_id": "a"})
    assert eventually(lambda: other.get("/a").status_code == 200)
    assert "_replication_state" not in server.get(f"/_replicator/{name}").json()
    (job,) = jobs(server, database)
    assert (job["database"], job["doc_id"]) == ("_replicator", name)
    rev = server.get(f"/_replicator/{name}").json()["_rev"]
    assert server.delete(f"/_replicator/{name}", params={"rev": rev}).ok
    assert eventually(lambda: not jobs(server, database), 90)
    assert eventually(lambda: server.get(f"/_scheduler/docs/_replicator/{name}").status_code == 404)


def test_a_document_whose_source_is_missing_crashes_and_comes_back(
    server: Client, database: Database, other: Database, described: Callable[..., str]
) -> None:
    late = Database(server, f"conformance-{uuid.uuid4().hex}")
    name = described(end(late), end(other), continuous=True)
    assert eventually(lambda: state(server, name) == "crashing", 90)
    row = server.get(f"/_scheduler/docs/_replicator/{name}").json()
    assert row["error_count"] >= 1
    assert row["info"]["error"] == f"db_not_found: could not open {late.url}/"
    try:
        late.put()
        late.save({"_id": "a"})
        assert eventually(lambda: other.get("/a").status_code == 200, 200)
    finally:
        late.delete()


def test_two_documents_that_ask_for_the_same(
    server: Client, database: Database, other: Database, described: Callable[..., str]
) -> None:
    first = described(end(database), end(other), continuous=True)
    assert eventually(lambda: state(server, first) == "running", 90)
    second = described(end(database), end(other), continuous=True)
    assert eventually(lambda: state(server, second) == "failed", 90)
    assert first in server.get(f"/_scheduler/docs/_replicator/{second}").json()["info"]["error"]
    assert state(server, first) == "running"


def test_documents_by_their_state(
    server: Client, database: Database, other: Database, described: Callable[..., str]
) -> None:
    name = described(end(database), end(other), continuous=True)
    assert eventually(lambda: state(server, name) == "running", 90)
    rows = server.get("/_scheduler/docs", params={"states": "running", "limit": 1000}).json()
    assert name in [row["doc_id"] for row in rows["docs"]]
    rows = server.get("/_scheduler/docs", params={"states": "failed,completed", "limit": 1000}).json()
    assert name not in [row["doc_id"] for row in rows["docs"]]
