"""Grouped writes, over a database that does what the test says."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from orchestrator.couch import BulkWriter, Refusal, Saved
from orchestrator.errors import Conflict, DatabaseError, Refused, Unavailable


class FakeDatabase:
    """Keeps the groups it was given; ``hold`` stops it inside a request."""

    name = "runs"

    def __init__(self) -> None:
        self.groups: list[list[dict[str, Any]]] = []
        self.go = threading.Event()
        self.go.set()
        self.entered = threading.Event()
        self.error: Exception | None = None

    def bulk_encoded(self, docs: list[bytes], *, timeout: float | None = None) -> list[Saved | Refusal]:
        group = [json.loads(doc) for doc in docs]
        self.entered.set()
        assert self.go.wait(10)
        self.groups.append(group)
        if self.error is not None:
            raise self.error
        if any("_bad" in doc for doc in group):
            raise Refused("a document is none")
        return [
            Refusal(doc["_id"], "conflict", "Document update conflict.") if "old" in doc else Saved(doc["_id"], "1-x")
            for doc in group
        ]

    def refusal_error(self, refusal: Refusal) -> DatabaseError:
        return Conflict(refusal.id)


@pytest.fixture
def database() -> FakeDatabase:
    return FakeDatabase()


def held(database: FakeDatabase, **options: Any) -> BulkWriter:
    """A writer that is stuck in its first request, so that the next group gathers."""
    writer = BulkWriter(database, **options)  # type: ignore[arg-type]
    database.go.clear()
    writer.submit({"_id": "first"})
    assert database.entered.wait(5)
    return writer


def test_what_gathers_during_a_request_goes_together(database: FakeDatabase) -> None:
    writer = held(database)
    futures = writer.submit_many([{"_id": f"d{n}"} for n in range(40)])
    database.go.set()
    assert [future.result(5).id for future in futures] == [f"d{n}" for n in range(40)]
    assert [len(group) for group in database.groups] == [1, 40]
    writer.close()


def test_groups_are_bounded(database: FakeDatabase) -> None:
    writer = held(database, max_documents=15)
    writer.submit_many([{"_id": f"d{n}"} for n in range(40)])
    database.go.set()
    writer.close()
    assert [len(group) for group in database.groups] == [1, 15, 15, 10]


def test_a_group_is_bounded_in_bytes(database: FakeDatabase) -> None:
    writer = held(database)
    writer.submit_many([{"_id": f"d{n}", "text": "x" * 1_500_000} for n in range(5)])
    database.go.set()
    writer.close()
    assert [len(group) for group in database.groups] == [1, 2, 2, 1]


def test_writes_to_one_document_keep_their_order(database: FakeDatabase) -> None:
    writer = held(database)
    writer.submit_many([{"_id": "a", "n": 1}, {"_id": "b"}, {"_id": "a", "n": 2}, {"_id": "c"}, {"_id": "a", "n": 3}])
    database.go.set()
    writer.close()
    assert [[(d["_id"], d.get("n")) for d in group] for group in database.groups[1:]] == [
        [("a", 1), ("b", None), ("c", None)],
        [("a", 2)],
        [("a", 3)],
    ]


def test_a_write_that_was_held_back_stays_ahead_of_later_ones(database: FakeDatabase) -> None:
    writer = held(database, max_documents=2)
    writer.submit_many([{"_id": "a", "n": 1}, {"_id": "a", "n": 2}, {"_id": "b"}, {"_id": "a", "n": 3}, {"_id": "c"}])
    database.go.set()
    writer.close()
    written = [doc["n"] for group in database.groups for doc in group if doc["_id"] == "a"]
    assert written == [1, 2, 3]


def test_a_conflict_is_only_its_own(database: FakeDatabase) -> None:
    with BulkWriter(database) as writer:  # type: ignore[arg-type]
        good, old = writer.submit_many([{"_id": "a"}, {"_id": "b", "old": True}])
        assert good.result(5) == Saved("a", "1-x")
        with pytest.raises(Conflict, match="b"):
            old.result(5)


def test_one_document_that_is_none_stands_alone_in_the_end(database: FakeDatabase) -> None:
    writer = held(database)
    futures = writer.submit_many([{"_id": f"d{n}", **({"_bad": 1} if n == 5 else {})} for n in range(16)])
    database.go.set()
    writer.close()
    assert [n for n, future in enumerate(futures) if future.exception(5)] == [5]
    assert isinstance(futures[5].exception(), Refused)


def test_everybody_hears_that_the_database_is_away(database: FakeDatabase) -> None:
    writer = held(database)
    futures = writer.submit_many([{"_id": "a"}, {"_id": "b"}])
    database.error = Unavailable("away")
    database.go.set()
    for future in futures:
        with pytest.raises(Unavailable, match="away"):
            future.result(5)
    database.error = None
    assert writer.submit({"_id": "c"}).result(5) == Saved("c", "1-x"), "it goes on afterwards"
    writer.close()


def test_a_fault_of_the_code_reaches_the_callers_too(database: FakeDatabase) -> None:
    database.error = ZeroDivisionError("odd")
    with BulkWriter(database) as writer, pytest.raises(ZeroDivisionError):  # type: ignore[arg-type]
        writer.submit({"_id": "a"}).result(5)


def test_what_is_cancelled_in_time_is_not_written(database: FakeDatabase) -> None:
    writer = held(database)
    one, two = writer.submit_many([{"_id": "a"}, {"_id": "b"}])
    assert one.cancel()
    database.go.set()
    assert writer.flush(5) and two.result(5).id == "b"
    writer.close()
    assert [d["_id"] for group in database.groups for d in group] == ["first", "b"]


def test_later_changes_to_the_dict_do_not_matter(database: FakeDatabase) -> None:
    writer = held(database)
    doc = {"_id": "a", "n": 1}
    writer.submit(doc)
    doc["n"] = 2
    with pytest.raises(Refused):
        writer.submit_many([{"_id": "x"}, {"_id": "nan", "value": float("nan")}])
    database.go.set()
    writer.close()
    assert database.groups[1] == [{"_id": "a", "n": 1}]


def test_flush_and_close(database: FakeDatabase) -> None:
    writer = held(database)
    writer.max_wait = 60
    writer.submit({"_id": "a"})
    assert not writer.flush(0.05), "it says so when the time was too short"
    database.go.set()
    assert writer.flush(5)
    writer.submit({"_id": "b"})
    writer.close()
    writer.close()
    assert [[d["_id"] for d in group] for group in database.groups] == [["first"], ["a"], ["b"]]
    with pytest.raises(DatabaseError, match="closed"):
        writer.submit({"_id": "c"})
