"""The changes feed in its four forms.

A CouchDB keeps a database in shards: the order of changes of different documents is not theirs in time, a limited
answer is any part of the whole, and sequences are opaque. Nothing here asks for more.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from .conftest import TIMEOUT, Database


def changes(database: Database, body: dict[str, Any] | None = None, **params: Any) -> dict[str, Any]:
    """A feed that ends by itself."""
    if body is None:
        answer = database.get("/_changes", params=params)
    else:
        answer = database.post("/_changes", params=params, json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def ids(found: dict[str, Any]) -> list[str]:
    """The ids of a feed, sorted."""
    return sorted(row["id"] for row in found["results"])


class Lines:
    """A continuous feed: its lines as they come, with the time of each."""

    def __init__(self, database: Database, body: dict[str, Any] | None = None, **params: Any) -> None:
        params.setdefault("feed", "continuous")
        self.response: requests.Response = database.request(
            "GET" if body is None else "POST", "/_changes", params=params, json=body, stream=True
        )
        assert self.response.status_code == 200, self.response.text
        self._lines = self.response.iter_lines(chunk_size=1)

    def __iter__(self) -> Iterator[str]:
        return (line.decode() for line in iter(lambda: next(self._lines, None), None))

    def rows(self) -> Iterator[dict[str, Any]]:
        """The lines that are not blank."""
        for line in iter(self):
            if line:
                yield json.loads(line)

    def close(self) -> None:
        """Hang up."""
        self.response.close()


def later(seconds: float, function: Any, *arguments: Any) -> threading.Timer:
    """Do something in a while."""
    timer = threading.Timer(seconds, function, arguments)
    timer.start()
    return timer


def test_an_empty_database(database: Database) -> None:
    found = changes(database)
    assert found["results"] == []
    assert found["pending"] == 0
    assert found["last_seq"].startswith("0")


def test_each_document_once_at_its_newest(database: Database) -> None:
    first = database.save({"_id": "a"})
    database.save({"_id": "b"})
    second = database.save({"_id": "a", "_rev": first})
    found = changes(database)
    assert ids(found) == ["a", "b"]
    row = next(row for row in found["results"] if row["id"] == "a")
    assert row["changes"] == [{"rev": second}]
    assert set(row) == {"seq", "id", "changes"}
    assert isinstance(row["seq"], str)
    assert found["pending"] == 0


def test_since_is_where_to_go_on(database: Database) -> None:
    database.save({"_id": "a"})
    last = changes(database)["last_seq"]
    assert changes(database, since=last)["results"] == []
    database.save({"_id": "b"})
    found = changes(database, since=last)
    assert ids(found) == ["b"]
    assert changes(database, since=found["last_seq"])["results"] == []
    assert ids(changes(database, since=found["results"][0]["seq"])) == []


def test_since_in_quotes(database: Database) -> None:
    database.save({"_id": "a"})
    last = changes(database)["last_seq"]
    assert changes(database, since=json.dumps(last))["results"] == []


def test_since_now_and_zero(database: Database) -> None:
    database.save({"_id": "a"})
    assert changes(database, since="now")["results"] == []
    assert ids(changes(database, since="0")) == ["a"]
    assert ids(changes(database, since=0)) == ["a"]


@pytest.mark.parametrize("since", ["12", "garbage", "5-???"])
@pytest.mark.parametrize("feed", ["normal", "longpoll", "continuous"])
def test_since_that_no_server_gave_out(database: Database, since: str, feed: str) -> None:
    answer = database.get("/_changes", params={"since": since, "feed": feed, "timeout": 100})
    assert answer.status_code == 400
    assert answer.json() == {"error": "bad_request", "reason": "Malformed sequence supplied in 'since' parameter."}


def test_the_update_seq_of_the_database_is_a_since(database: Database) -> None:
    database.save({"_id": "a"})
    assert changes(database, since=database.get().json()["update_seq"])["results"] == []


def test_a_deletion_is_a_change(database: Database) -> None:
    revision = database.save({"_id": "a"})
    gone = database.delete("/a", params={"rev": revision}).json()["rev"]
    row = changes(database, include_docs="true")["results"][0]
    assert row["deleted"] is True
    assert row["changes"] == [{"rev": gone}]
    assert row["doc"] == {"_id": "a", "_rev": gone, "_deleted": True}


def test_include_docs(database: Database) -> None:
    revision = database.save({"_id": "a", "text": "ä", "n": [1]})
    row = changes(database, include_docs="true")["results"][0]
    assert row["doc"] == {"_id": "a", "_rev": revision, "text": "ä", "n": [1]}


def test_pages(database: Database) -> None:
    database.bulk([{"_id": f"d{number}"} for number in range(10)])
    seen: list[str] = []
    since: Any = 0
    for _ in range(4):
        found = changes(database, since=since, limit=3)
        assert len(found["results"]) <= 3
        seen += [row["id"] for row in found["results"]]
        since = found["last_seq"]
    assert sorted(seen) == [f"d{number}" for number in range(10)]
    assert changes(database, limit=4)["pending"] == 6


def test_descending(database: Database) -> None:
    database.bulk([{"_id": f"d{number}"} for number in range(5)])
    assert ids(changes(database, descending="true")) == [f"d{number}" for number in range(5)]


def test_all_leaves(database: Database) -> None:
    for digit in "abc":
        database.bulk([{"_id": "d", "_rev": "1-" + digit * 32}], new_edits=False)
    revs = [{"rev": "1-" + digit * 32} for digit in "cba"]
    assert changes(database)["results"][0]["changes"] == revs[:1]
    assert changes(database, style="all_docs")["results"][0]["changes"] == revs
    row = changes(database, include_docs="true", conflicts="true")["results"][0]
    assert row["doc"]["_conflicts"] == [one["rev"] for one in revs[1:]]


def test_by_ids(database: Database) -> None:
    database.bulk([{"_id": name} for name in "abcd"])
    assert ids(changes(database, {"doc_ids": ["b", "d", "none"]}, filter="_doc_ids")) == ["b", "d"]
    assert ids(changes(database, filter="_doc_ids", doc_ids=json.dumps(["a"]))) == ["a"]
    answer = database.post("/_changes", params={"filter": "_doc_ids"}, json={"doc_ids": "a"})
    assert answer.status_code == 400


def test_by_selector(database: Database) -> None:
    database.bulk([{"_id": "a", "status": "good"}, {"_id": "b", "status": "bad"}, {"_id": "c", "status": "good"}])
    found = changes(database, {"selector": {"status": "good"}}, filter="_selector", include_docs="true")
    assert ids(found) == ["a", "c"]
    assert {row["doc"]["status"] for row in found["results"]} == {"good"}
    assert database.get("/_changes", params={"filter": "_selector"}).status_code == 400


def test_design_documents_alone(database: Database) -> None:
    database.bulk([{"_id": "a"}, {"_id": "_design/x"}])
    assert ids(changes(database, filter="_design")) == ["_design/x"]


@pytest.mark.parametrize("name", ["_unknown", "none/such"])
def test_filters_that_are_not_there(database: Database, name: str) -> None:
    answer = database.get("/_changes", params={"filter": name})
    assert answer.status_code == (400 if name == "_unknown" else 404)


def test_a_feed_of_an_unknown_kind(database: Database) -> None:
    answer = database.get("/_changes", params={"feed": "telepathy"})
    assert answer.status_code == 400
    assert answer.json()["error"] == "bad_request"


def test_post_wants_json(database: Database) -> None:
    assert database.post("/_changes", data="x=1").status_code == 415


# Long polling


def test_longpoll_answers_at_once_if_there_is_something(database: Database) -> None:
    database.save({"_id": "a"})
    began = time.monotonic()
    assert ids(changes(database, feed="longpoll")) == ["a"]
    assert time.monotonic() - began < 5


def test_longpoll_waits_for_a_change(database: Database) -> None:
    database.save({"_id": "a"})
    last = changes(database)["last_seq"]
    began = time.monotonic()
    timer = later(0.5, lambda: requests.put(database.url + "/b", json={}, auth=database.auth, timeout=TIMEOUT))
    found = changes(database, feed="longpoll", since=last, timeout=20000)
    timer.join()
    assert ids(found) == ["b"]
    assert 0.4 < time.monotonic() - began < 10
    assert changes(database, since=found["last_seq"])["results"] == []


def test_longpoll_gives_up_in_time_with_a_sequence(database: Database) -> None:
    database.save({"_id": "a"})
    began = time.monotonic()
    found = changes(database, feed="longpoll", since="now", timeout=500)
    assert 0.4 < time.monotonic() - began < 10
    assert found["results"] == []
    assert changes(database, since=found["last_seq"])["results"] == []


def test_longpoll_waits_for_what_passes_the_filter(database: Database) -> None:
    body = {"selector": {"status": "good"}}
    client = Database(database.server, database.name)

    def write() -> None:
        client.save({"_id": "bad", "status": "bad"})
        client.save({"_id": "good", "status": "good"})

    last = changes(database)["last_seq"]
    timer = later(0.3, write)
    found = changes(database, body, feed="longpoll", filter="_selector", since=last, timeout=20000)
    timer.join()
    assert ids(found) == ["good"]


def test_heartbeats_while_waiting(database: Database) -> None:
    lines = Lines(database, feed="longpoll", since="now", heartbeat=100)
    blank = 0
    for line in lines:
        blank += not line
        if blank >= 3:
            break
    lines.close()


# Continuous feeds


def test_continuous_sends_a_line_for_each_change(database: Database) -> None:
    database.save({"_id": "a"})
    feed = Lines(database, timeout=20000)
    rows = feed.rows()
    assert next(rows)["id"] == "a"
    revision = database.save({"_id": "b"})
    row = next(rows)
    assert (row["id"], row["changes"]) == ("b", [{"rev": revision}])
    database.save({"_id": "b", "_rev": revision})
    assert next(rows)["id"] == "b"
    feed.close()


def test_continuous_ends_with_the_last_sequence(database: Database) -> None:
    database.save({"_id": "a"})
    rows = list(Lines(database, timeout=300).rows())
    assert [row.get("id") for row in rows] == ["a", None]
    assert set(rows[-1]) == {"last_seq", "pending"}
    assert changes(database, since=rows[-1]["last_seq"])["results"] == []


def test_continuous_heartbeats_outlive_the_timeout(database: Database) -> None:
    feed = Lines(database, since="now", heartbeat=200, timeout=300)
    for line in itertools.islice(feed, 5):
        assert line == ""
    database.save({"_id": "a"})
    assert next(feed.rows())["id"] == "a"
    feed.close()


def test_continuous_with_a_limit_ends_when_it_is_reached(database: Database) -> None:
    database.bulk([{"_id": "a"}, {"_id": "b"}, {"_id": "c"}])
    rows = list(Lines(database, limit=2, timeout=5000).rows())
    assert len([row for row in rows if "id" in row]) == 2
    assert "last_seq" in rows[-1]


def test_continuous_with_a_filter_and_documents(database: Database) -> None:
    body = {"selector": {"n": {"$gt": 1}}}
    feed = Lines(database, body, filter="_selector", include_docs="true", timeout=20000)
    rows = feed.rows()
    database.bulk([{"_id": "a", "n": 1}, {"_id": "b", "n": 2}])
    assert next(rows)["doc"]["n"] == 2
    feed.close()


def test_continuous_ends_when_the_database_is_deleted(database: Database) -> None:
    database.save({"_id": "a"})
    feed = Lines(database, heartbeat=500)
    rows = feed.rows()
    assert next(rows)["id"] == "a"
    Database(database.server, database.name).delete()
    assert "last_seq" in list(rows)[-1]


def test_heartbeats_while_others_write_what_does_not_pass(database: Database) -> None:
    body = {"selector": {"status": "good"}}
    feed = Lines(database, body, filter="_selector", since="now", heartbeat=300)
    client = Database(database.server, database.name)
    ended = threading.Event()

    def write() -> None:
        while not ended.wait(0.05):
            client.bulk([{"status": "bad"}])

    thread = threading.Thread(target=write)
    thread.start()
    try:
        began = time.monotonic()
        for line in itertools.islice(feed, 4):
            assert line == ""
        assert time.monotonic() - began < 10
    finally:
        ended.set()
        thread.join()
    feed.close()


def test_heartbeat_true(database: Database) -> None:
    feed = Lines(database, heartbeat="true", timeout=1)
    rows = feed.rows()
    time.sleep(0.3)
    database.save({"_id": "a"})
    assert next(rows)["id"] == "a"
    feed.close()


@pytest.mark.parametrize("heartbeat", ["0", "-1", "soon"])
def test_heartbeats_that_are_none(database: Database, heartbeat: str) -> None:
    answer = database.get("/_changes", params={"feed": "continuous", "heartbeat": heartbeat, "timeout": 100})
    assert answer.status_code == 400
    assert answer.json()["error"] == "bad_request"


# Events for browsers


def test_eventsource(database: Database) -> None:
    database.save({"_id": "a"})
    feed = Lines(database, feed="eventsource", timeout=500)
    assert feed.response.headers["Content-Type"].split(";")[0] == "text/event-stream"
    lines = [line for line in feed if line]
    assert lines[0].startswith("data: ")
    row = json.loads(lines[0].removeprefix("data: "))
    assert row["id"] == "a"
    assert lines[1].startswith("id: ")
    assert json.loads(lines[1].removeprefix("id: ")) == row["seq"]
    assert all(line.partition(":")[0] in ("data", "id", "event") for line in lines)


def test_eventsource_goes_on_after_the_last_event(database: Database) -> None:
    database.save({"_id": "a"})
    last = changes(database)["last_seq"]
    database.save({"_id": "b"})
    answer = database.get(
        "/_changes", params={"feed": "eventsource", "timeout": 300}, headers={"Last-Event-ID": last}
    )
    found = [json.loads(line[6:])["id"] for line in answer.text.splitlines() if line.startswith("data: {")]
    assert found == ["b"]


def test_many_changes_arrive_whole(database: Database) -> None:
    for start in range(0, 3000, 500):
        database.bulk([{"_id": f"d{number:04d}", "text": "x" * 50} for number in range(start, start + 500)])
    names = [f"d{number:04d}" for number in range(3000)]
    assert ids(changes(database, include_docs="true")) == names
    assert ids(changes(database, feed="longpoll")) == names
    rows = list(Lines(database, timeout=500).rows())
    assert sorted(row["id"] for row in rows[:-1]) == names
