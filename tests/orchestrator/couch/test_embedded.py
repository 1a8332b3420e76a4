"""The adapter against a real server: the embedded one, or any CouchDB at COUCHDB_URL.

With COUCHDB_URL, user and password come from COUCHDB_USER and COUCHDB_PASSWORD, or from the URL itself.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator import chain as chains
from orchestrator import designs
from orchestrator.couch import Credentials, Database, Follower, Refusal, Saved, Server, deploy
from orchestrator.embedded.testing import EmbeddedServer
from orchestrator.errors import Conflict, NotFound, Refused, SettingsError, Unauthorised, Unavailable
from tests.databases import couchdb

CHAIN = chains.loads("name: noop\nsteps: [{name: first, run: 'a.b:c'}, {name: second, run: 'a.b:c'}]")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with couchdb(tmp_path_factory.mktemp("embedded")) as (url, credentials):
        yield Server(url, Credentials(*credentials))


@pytest.fixture
def db(server: Server) -> Iterator[Database]:
    name = f"test-{uuid.uuid4().hex}"
    assert server.create(name)
    yield server.database(name)
    server.delete(name)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def data(number: int, **more: Any) -> dict[str, Any]:
    return {
        "_id": f"run_{number:05}", "type": "daqdocument", "run_name": f"run{number // 100}", "file_number": number,
        "file": f"/data/run_{number:05}", "size": 100, "hostname": "daq1", "status": "closed",
        "registered": "2026-01-22T11:00:00.000Z", "updated": "2026-01-22T11:00:00.000Z", **more,
    }  # fmt: skip


# --- the server -------------------------------------------------------------------------------------------------------


def test_the_server_says_who_it_is(server: Server) -> None:
    assert server.up() and "couchdb" in server.info()
    assert server.session()["userCtx"]["roles"] == ["_admin"]


def test_databases_come_and_go(server: Server) -> None:
    name = f"test-{uuid.uuid4().hex}/part+1"
    assert server.create(name) is True
    assert server.create(name) is False
    assert name in server.databases()
    server.delete(name)
    with pytest.raises(NotFound, match=r"no database 'test-"):
        server.delete(name)
    with pytest.raises(NotFound, match="create it"):
        server.database(name).info()


def test_a_wrong_password(server: Server, db: Database) -> None:
    wrong = Server(server.url, Credentials(f"nobody-{uuid.uuid4().hex}", "wrong"))
    with pytest.raises(Unauthorised, match="login refused"):
        wrong.database(db.name).get("a")
    with pytest.raises(Unauthorised):
        Server(server.url).database(db.name).info()
    with pytest.raises(Unauthorised):
        next(Follower(wrong.database(db.name), since="0").batches())


def test_a_server_that_is_not_there() -> None:
    away = Server("http://127.0.0.1:9")
    assert not away.up()
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:9.*Is it running"):
        away.info()
    with pytest.raises(Unavailable):
        away.database("x").bulk([{"_id": "a"}])


# --- documents --------------------------------------------------------------------------------------------------------


def test_a_document_is_written_read_changed_and_deleted(db: Database) -> None:
    doc = {"_id": "a", "n": 1}
    rev = db.put(doc)
    assert "_rev" not in doc and rev.startswith("1-")
    with pytest.raises(Conflict, match="'a'"):
        db.put({"_id": "a", "n": 2})
    rev = db.put({"_id": "a", "_rev": rev, "n": 2})
    read = db.get("a")
    assert read == {"_id": "a", "_rev": rev, "n": 2}
    db.delete(read)
    with pytest.raises(NotFound, match="document 'a'"):
        db.get("a")
    assert db.put({"n": 3}).startswith("1-")


@pytest.mark.parametrize(
    "doc_id",
    ["a/b", "a b", "a+b", 'quo"te', "it's", "new\nline", "tab\t", "ü✓\U0001f4a5", "100%", "a%2Fb", "?x=1&y", "#frag",
     "..a", "a;$(touch x)`y`", "{}[]|\\^", "-", "a" * 500, ",", "a=b", "@", ":colon:", "a_b", "~"],
)  # fmt: skip
def test_any_id_is_carried_safely(db: Database, doc_id: str) -> None:
    rev = db.put({"_id": doc_id, "text": doc_id})
    assert db.get(doc_id) == {"_id": doc_id, "_rev": rev, "text": doc_id}
    assert db.get_many([doc_id])[doc_id] == {"_id": doc_id, "_rev": rev, "text": doc_id}
    assert [row.id for row in db.all_docs(startkey=doc_id, endkey=doc_id)] == [doc_id]
    db.delete({"_id": doc_id, "_rev": rev})


def test_ids_that_are_none(db: Database) -> None:
    with pytest.raises(SettingsError):
        db.get("")
    with pytest.raises(Refused, match="_wrong"):
        db.put({"_id": "_wrong"})
    with pytest.raises(Refused):
        db.put({"_id": "a", "_field": 1})


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=20)
        | st.floats(allow_nan=False, allow_infinity=False, width=32),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(min_size=1, max_size=6), inner, max_size=4),
        max_leaves=12,
    )
)  # fmt: skip
def test_values_come_back_as_they_went(db: Database, value: Any) -> None:
    name = uuid.uuid4().hex
    db.put({"_id": name, "value": value})
    assert db.get(name)["value"] == value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\udcff", {1, 2}, b"bytes"])
def test_what_is_no_json_is_refused_by_name(db: Database, value: Any) -> None:
    with pytest.raises(Refused, match="ma22a000_003"):
        db.put({"_id": "ma22a000_003", "value": value})
    with pytest.raises(Refused, match="ma22a000_003"):
        db.bulk([{"_id": "good"}, {"_id": "ma22a000_003", "value": value}])
    assert db.get_many(["good"]) == {"good": None}


def test_bulk_gives_each_its_result(db: Database) -> None:
    rev = db.put({"_id": "b"})
    results = db.bulk([{"_id": "a"}, {"_id": "b"}, {"_id": "b", "_rev": rev, "n": 2}, {"n": 1}])
    assert [type(r) for r in results] == [Saved, Refusal, Saved, Saved]
    assert results[1].error == "conflict" and results[1].id == "b"
    assert isinstance(db.refusal_error(results[1]), Conflict)
    assert results[0].id == "a" and results[0].rev.startswith("1-")
    assert db.bulk([]) == []


def test_many_are_read_at_once(db: Database) -> None:
    db.bulk([{"_id": f"d{n}", "n": n} for n in range(50)])
    db.delete(db.get("d7"))
    found = db.get_many(["d1", "d7", "nothing", "d1"])
    assert found["d7"] is None and found["nothing"] is None and found["d1"]["n"] == 1
    rows = db.all_docs(startkey="d1", limit=3, include_docs=True)
    assert [row.id for row in rows] == ["d1", "d10", "d11"] and rows.rows[1].doc["n"] == 10
    assert rows.total_rows == 49 and len(rows) == 3
    assert db.get_many([]) == {}


def test_local_documents(db: Database) -> None:
    assert db.get_local("poller:1") is None
    db.put_local("poller:1", {"beat": 1})
    db.put_local("_local/poller:1", {"_rev": "ancient", "beat": 2})
    db.put_local("poller:2", {"beat": 3})
    db.put_local("zzz", {})
    assert db.get_local("poller:1")["beat"] == 2
    assert [doc["beat"] for doc in db.local_docs("poller:", "poller:\ufff0")] == [2, 3]
    assert len(db.local_docs()) == 3
    db.delete_local("zzz")
    db.delete_local("zzz")
    assert db.get_local("zzz") is None
    with pytest.raises(NotFound, match="no database"):
        Server(db.connection.url, Credentials(*db.connection.login)).database("absent").get_local("x")


def test_find(db: Database) -> None:
    db.bulk([{"_id": f"d{n}", "n": n} for n in range(9)])
    assert [d["_id"] for d in db.find({"n": {"$gt": 6}}, fields=["_id"], limit=5)] == ["d7", "d8"]


def test_security_is_put_once(db: Database) -> None:
    wanted = {"admins": {"names": [], "roles": ["_admin"]}, "members": {"names": [], "roles": ["poller"]}}
    assert deploy.secure(db, wanted) is True
    assert deploy.secure(db, wanted) is False
    assert db.security() == wanted


# --- views and their deployment ---------------------------------------------------------------------------------------


def changes_made(db: Database) -> int:
    """How many changes a database has seen: what follows in its sequence may be written in another order."""
    return int(db.info()["update_seq"].partition("-")[0])


def test_views_that_are_not_there_say_what_to_do(db: Database) -> None:
    with pytest.raises(NotFound, match=r"no _design/work.*couchapp push"):
        db.view("work/proc0")
    deploy.push(db, designs.build(CHAIN))
    with pytest.raises(NotFound, match=r"no view 'proc9'.*couchapp push"):
        db.view("work/proc9")
    with pytest.raises(SettingsError, match="design/view"):
        db.view("proc0")


def test_pushing_what_is_unchanged_writes_nothing(db: Database) -> None:
    built = designs.build(CHAIN)
    db.bulk([data(n) for n in range(20)])
    assert {action for _, action in deploy.push(db, built)} == {"created"}
    before = changes_made(db)
    assert {action for _, action in deploy.push(db, built)} == {"unchanged"}
    assert changes_made(db) == before
    assert deploy.diff(db, built) == ""
    assert db.get("_design/work")["chain"]["steps"][1]["name"] == "second"


def test_rows_of_the_deployed_views(db: Database) -> None:
    deploy.push(db, designs.build(CHAIN))
    db.bulk([data(n, priority=n == 7) for n in range(300)])
    rows = db.view("work/proc0", reduce=False, limit=3, include_docs=True).rows
    assert [row.id for row in rows] == ["run_00000", "run_00001", "run_00002"], "true is no priority"
    assert rows[0].key == [0, "run0", 0] and rows[0].doc["_id"] == "run_00000"
    assert db.view("work/proc0").rows[0].value == 300
    counts = db.view("pages/steps", group_level=2)
    assert [(row.key, row.value["count"]) for row in counts] == [([0, "ready"], 300), ([1, "waiting"], 300)]
    assert [row.value["sum"] for row in db.view("pages/runs", group_level=1)] == [10000] * 3
    keyed = db.view("pages/files", keys=[["run1", 150], ["none", 0]])
    assert [row.id for row in keyed] == ["run_00150"]
    assert db.view("pages/search", key=["00007"]).rows[0].id == "run_00007"
    assert db.view("pages/status", update="false", update_seq=True, reduce=False, limit=0).update_seq


def test_a_changed_chain_replaces_what_it_changes(db: Database) -> None:
    deploy.push(db, designs.build(CHAIN))
    db.bulk([data(n) for n in range(50)])
    longer = chains.loads("name: noop\nsteps: [{name: first, run: 'a.b:c'}, {name: second, run: 'a.b:c', needs: []}]")
    built = designs.build(longer)
    text = deploy.diff(db, built)
    assert "+++ chain/_design/work/views/proc1/map" in text and "chain/_design/guard" not in text
    assert dict(deploy.push(db, built)) == {
        "_design/work": "replaced", "_design/pages": "replaced", "_design/filters": "replaced",
        "_design/farm": "unchanged", "_design/guard": "unchanged", "_design/conflicts": "unchanged",
    }  # fmt: skip
    # the parts of a CouchDB hear of a new design document a moment later
    until(lambda: [row.value for row in db.view("work/proc1")] == [50])
    assert db.get_many(["_design/work-staging"]) == {"_design/work-staging": None}
    version = chains.loads("name: noop\nsteps: [{name: first, run: 'a.b:c'}, {name: second, run: 'a.b:c', needs: [], "
                           "version: '2'}]")  # fmt: skip
    assert dict(deploy.push(db, designs.build(version)))["_design/pages"] == "unchanged"
    assert db.get("_design/work")["chain"]["steps"][1]["version"] == "2"


def test_an_edit_by_hand_is_put_right(db: Database) -> None:
    built = designs.build(CHAIN)
    deploy.push(db, built)
    design = db.get("_design/filters")
    design["filters"]["statusgood"] = "function (doc) { return true; }"
    db.put(design)
    assert "statusgood" in deploy.diff(db, built)
    assert dict(deploy.push(db, built))["_design/filters"] == "replaced"


def test_an_interrupted_push_is_taken_up(db: Database) -> None:
    built = designs.build(CHAIN)
    deploy.push(db, built)
    db.put({"_id": "_design/work-staging", "views": {"x": {"map": "function (doc) { emit(1); }"}}})
    db.put({"_id": "_design/pages-staging", "views": {"x": {"map": "function (doc) { emit(1); }"}}})
    other = {**built, "_design/work": {**built["_design/work"], "views": {"y": {"map": "function (d) { emit(2); }"}}}}
    assert dict(deploy.push(db, other))["_design/work"] == "replaced"
    assert list(db.get("_design/work")["views"]) == ["y"]
    assert [row.id for row in db.all_docs(startkey="_design/", endkey="_design0")] == [
        "_design/conflicts", "_design/farm", "_design/filters", "_design/guard", "_design/pages", "_design/work"
    ]  # fmt: skip


def test_two_pushers_at_once_do_no_harm(db: Database) -> None:
    db.bulk([data(n) for n in range(500)])
    built = designs.build(CHAIN)
    failures: list[BaseException] = []

    def push() -> None:
        try:
            deploy.push(db, built)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=push) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert deploy.diff(db, built) == "" and db.view("work/proc0").rows[0].value == 500
    assert not any(row.id.endswith("-staging") for row in db.all_docs(startkey="_design/", endkey="_design0"))


def test_readers_see_no_gap_while_a_push_goes_on(db: Database) -> None:
    deploy.push(db, designs.build(CHAIN))
    db.bulk([data(n) for n in range(2000)])
    db.view("work/proc0")
    stop, counts, failures = threading.Event(), [], []

    def read() -> None:
        while not stop.is_set():
            try:
                counts.append(db.view("work/proc0").rows[0].value)
            except BaseException as error:
                failures.append(error)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    built = designs.build(CHAIN)
    for number in range(2):
        views = built["_design/work"]["views"]
        views[f"extra{number}"] = {"map": f"function (doc) {{ emit({number}, null); }}"}
        assert dict(deploy.push(db, built))["_design/work"] == "replaced"
    stop.set()
    reader.join()
    assert not failures and set(counts) == {2000}


def test_the_guard_speaks_through_put_and_bulk(db: Database) -> None:
    deploy.push(db, designs.build(CHAIN))
    rev = db.put(data(1, status="bad"))
    wrong = data(1, _rev=rev, status="proc 0 in progress")
    # the parts of a CouchDB hear of a new guard a moment later: ask documents enough to reach them all
    until(lambda: all(isinstance(said, Refusal) for said in db.bulk(
        [data(1, _id=uuid.uuid4().hex, status="nonsense") for _ in range(8)])))  # fmt: skip
    with pytest.raises(Refused, match="cannot go from 'bad' to 'proc 0 in progress'"):
        db.put(wrong)
    saved, refusal = db.bulk([data(2), wrong])
    assert isinstance(saved, Saved) and refusal.error == "forbidden"
    assert "cannot go from" in str(db.refusal_error(refusal)) and isinstance(db.refusal_error(refusal), Refused)


# --- the feed ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["longpoll", "continuous"])
def test_the_feed_rings_with_the_document(db: Database, mode: Any) -> None:
    db.put({"_id": "before"})
    feed = Follower(db, since="now", mode=mode, timeout=10, selector={"status": "good"})
    heard: list[Any] = []
    rung = threading.Event()

    def listen() -> None:
        for batch in feed.batches():
            heard.extend(batch.changes)
            if batch.changes:
                rung.set()

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    until(lambda: feed._resolved)
    db.put({"_id": "other", "status": "bad"})
    db.put({"_id": "ring", "status": "good"})
    assert rung.wait(30)
    feed.close()
    thread.join(30)
    assert not thread.is_alive()
    assert [c.id for c in heard] == ["ring"] and heard[0].doc["status"] == "good"
    again = Follower(db, since=feed.since, timeout=0.2)
    assert [c.id for c in next(again.batches()).changes] == []


def test_the_feed_outlives_the_server(tmp_path: Path) -> None:
    if os.environ.get("COUCHDB_URL"):
        pytest.skip("needs a server that can be killed: run without COUCHDB_URL")
    with EmbeddedServer(tmp_path) as process:
        server = Server(process.url, Credentials(*process.credentials))
        server.create("runs")
        db = server.database("runs")
        db.put({"_id": "a"})
        feed = Follower(db, since="0", mode="continuous", wait=lambda seconds: time.sleep(0.05) or False)
        heard: list[str] = []
        enough = threading.Event()

        def listen() -> None:
            for batch in feed.batches():
                heard.extend(change.id for change in batch.changes)
                if "b" in heard:
                    enough.set()

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        until(lambda: "a" in heard)
        process.kill()
        with pytest.raises(Unavailable):
            db.put({"_id": "lost"})
        process.restart()
        db.put({"_id": "b"})
        assert enough.wait(10)
        feed.close()
        thread.join(5)
        assert heard.count("b") == 1
