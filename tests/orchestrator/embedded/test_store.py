"""The store without HTTP: files, counts, groups of writes, compaction, what a full disk does."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.embedded import codec, compaction, http_database, layout, writer
from orchestrator.embedded.database import DatabaseStore
from orchestrator.embedded.documents import draft
from orchestrator.embedded.problems import Problem, forbidden
from orchestrator.embedded.store import Store
from orchestrator.embedded.updates import Refusal, Saved
from orchestrator.errors import SettingsError


class Guard:
    """A judge that refuses documents with a field ``bad`` and remembers what it was shown."""

    def __init__(self) -> None:
        self.shown: list[tuple[Any, Any, Any, Any]] = []

    def validate_texts(self, sources: Any, texts: list[bytes]) -> list[dict[str, str] | None]:
        asked = [tuple(json.loads(text)) for text in texts]
        self.shown.extend(asked)
        return [{"forbidden": "no"} if new.get("bad") else None for new, *_ in asked]


@pytest.fixture
def guard() -> Guard:
    return Guard()


@pytest.fixture
def store(tmp_path: Path, guard: Guard) -> Iterator[Store]:
    made = Store(tmp_path / "data", "normal", lambda: guard)
    yield made
    made.close()


@pytest.fixture
def database(store: Store) -> DatabaseStore:
    return store.create("runs/2026")


def save(database: DatabaseStore, document: dict[str, Any]) -> str:
    outcome = database.write([draft(document)])[0]
    assert isinstance(outcome, Saved), outcome
    return outcome.rev


def test_whoever_asks_after_the_answer_to_a_write_sees_it(database: DatabaseStore) -> None:
    seen: list[tuple[int, int]] = []
    for number in range(1, 4):
        job = writer.Job(Future(), [draft({"_id": f"d{number}"})])
        assert isinstance(job.future, Future)
        # On the writer's own thread, in the moment of the answer.
        job.future.add_done_callback(
            lambda _: seen.append((database.update_seq(), len(database.changes_rows(0, 9, bodies=False))))
        )
        database._writer.submit(job)
        job.future.result()
    database.run(lambda connection: None)
    assert seen == [(1, 1), (2, 2), (3, 3)]


def test_the_longest_name_is_one_that_the_disk_can_hold(store: Store) -> None:
    longest = "a" * layout.MAX_NAME
    made = store.create(longest)
    save(made, {"_id": "x"})
    assert layout.name_of(made.path) == longest
    with pytest.raises(Problem, match="illegal_database_name"):
        store.create(longest + "a")


def test_a_name_and_its_file_belong_together(store: Store, database: DatabaseStore) -> None:
    assert layout.name_of(database.path) == "runs/2026"
    assert store.names() == ["_replicator", "_users", "runs/2026"]
    store.delete("runs/2026")
    assert store.names() == ["_replicator", "_users"]
    assert not [path for path in store.folder.iterdir() if "runs" in path.name]


def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    first = Store(tmp_path, "full")
    database = first.create("abc")
    revision = save(database, {"_id": "d", "n": 1})
    gone = save(database, {"_id": "gone"})
    save(database, {"_id": "gone", "_rev": gone, "_deleted": True})
    database.set_security({"members": {"names": ["x"]}})
    token, seq = database.token, database.update_seq()
    first.close()
    second = Store(tmp_path, "full")
    again = second.database("abc")
    assert again.get("d") == {"_id": "d", "_rev": revision, "n": 1}
    assert (again.counters.documents, again.counters.deleted) == (1, 1)
    assert (again.token, again.update_seq()) == (token, seq)
    assert again.security() == {"members": {"names": ["x"]}}
    second.close()


def test_two_servers_do_not_share_a_folder(store: Store) -> None:
    with pytest.raises(SettingsError, match=r"Another server \(process \d+\) has the database folder"):
        Store(store.folder)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="cannot be written"):
        Store(tmp_path / "file" / "data")


def test_what_a_kill_left_behind_is_swept_up(tmp_path: Path) -> None:
    Store(tmp_path, "normal").close()
    half = tmp_path / "abc.couch.sqlite.0123.deleted"
    half.write_text("x")
    folder = tmp_path / "abc.index.0123.deleted"
    folder.mkdir()
    orphan = tmp_path / "abc.couch.sqlite-wal"
    orphan.write_text("x")
    store = Store(tmp_path, "normal")
    assert not half.exists()
    assert not folder.exists()
    assert not orphan.exists()
    store.close()


def test_changes_since_gives_each_document_once(database: DatabaseStore) -> None:
    first = save(database, {"_id": "a", "n": 1})
    save(database, {"_id": "b"})
    save(database, {"_id": "a", "_rev": first, "n": 2})
    b = database.get("b")
    assert b is not None
    save(database, {"_id": "b", "_rev": b["_rev"], "_deleted": True})
    rows = database.changes_since(0, 10)
    assert [(row[1], row[3]) for row in rows] == [("a", False), ("b", True)]
    assert rows[0][2] == database.get("a")
    assert rows[1][2] is None
    assert database.changes_since(rows[0][0], 10) == rows[1:]
    assert database.changes_since(0, 1) == rows[:1]


def test_pending_is_the_same_however_it_is_counted(database: DatabaseStore, monkeypatch: pytest.MonkeyPatch) -> None:
    database.write([draft({"_id": f"d{number}"}) for number in range(100)])
    for number in range(0, 100, 3):
        document = database.get(f"d{number}")
        assert document is not None
        save(database, document)
    newest = database.update_seq()
    expected = {last: len(database.changes_since(last, 1000)) for last in range(newest + 1)}
    for few in (0, 1000):
        monkeypatch.setattr("orchestrator.embedded.database._FEW", few)
        for order in (range(newest + 1), range(newest, -1, -1), range(0, newest, 7)):
            assert {last: database.pending(last) for last in order} == {last: expected[last] for last in order}


def test_one_group_may_hold_a_document_many_times(database: DatabaseStore) -> None:
    first = save(database, {"_id": "a"})
    drafts = [draft({"_id": "a", "_rev": first, "n": number}) for number in range(3)]
    outcomes = database.write(drafts)
    assert [type(outcome) for outcome in outcomes] == [Saved, Refusal, Refusal]


def test_writers_do_not_lose_each_others_updates(database: DatabaseStore) -> None:
    save(database, {"_id": "counter", "n": 0})

    def count() -> None:
        done = 0
        while done < 40:
            found = database.get("counter")
            assert found is not None
            outcome = database.write([draft({**found, "n": found["n"] + 1})])[0]
            done += isinstance(outcome, Saved)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = database.get("counter")
    assert found is not None
    assert found["n"] == 160
    assert found["_rev"].startswith("161-")


def test_the_guard_sees_new_old_user_and_security(database: DatabaseStore, guard: Guard) -> None:
    save(database, {"_id": "_design/guard", "validate_doc_update": "function () {}"})
    assert guard.shown == []
    user = {"db": "runs/2026", "name": "a", "roles": ["r"]}
    first = database.write([draft({"_id": "d", "n": 1})], user=user)[0]
    assert isinstance(first, Saved)
    outcome = database.write([draft({"_id": "d", "_rev": first.rev, "bad": True})], user=user)[0]
    assert isinstance(outcome, Refusal)
    assert (outcome.problem.status, outcome.problem.error) == (403, forbidden("").error)
    (new, old, who, security), (new2, old2, _, _) = guard.shown
    assert (new["_id"], new["n"], old, who) == ("d", 1, None, user)
    assert security == database.security()
    assert (new2["_rev"], old2["n"], old2["_rev"]) == (first.rev, 1, first.rev)
    assert old2["_revisions"] == {"start": 1, "ids": [first.rev.split("-")[1]]}


def test_the_guard_sees_what_the_group_wrote_before(database: DatabaseStore, guard: Guard) -> None:
    save(database, {"_id": "_design/guard", "validate_doc_update": "function () {}"})
    first = draft({"_id": "d", "n": 1})
    second = draft({"_id": "d", "_rev": "1-" + "0" * 32, "n": 2})
    outcomes = database.write([first, second])
    assert isinstance(outcomes[0], Saved)
    assert isinstance(outcomes[1], Refusal)
    assert outcomes[1].problem.status == 409  # and the guard is not asked about what is a conflict anyway
    assert len(guard.shown) == 1


def test_a_changed_guard_holds_from_the_next_write_on(database: DatabaseStore, guard: Guard) -> None:
    revision = save(database, {"_id": "_design/guard", "validate_doc_update": "function () {}"})
    save(database, {"_id": "_design/guard", "_rev": revision, "_deleted": True})
    save(database, {"_id": "d", "bad": True})
    assert guard.shown == []


def test_a_full_disk_refuses_the_write_and_nothing_else(database: DatabaseStore) -> None:
    first = save(database, {"_id": "before"})
    pages = database.run(lambda connection: connection.execute("PRAGMA page_count").fetchone()[0])
    database.run(lambda connection: connection.execute(f"PRAGMA max_page_count={pages + 2}"))
    with pytest.raises(Problem) as caught:
        database.write([draft({"_id": f"d{number}", "text": "x" * 5000}) for number in range(50)])
    assert caught.value.status == 507
    assert "disk is full" in caught.value.reason
    assert database.get("before") == {"_id": "before", "_rev": first}
    assert database.counters.documents == 1
    database.run(lambda connection: connection.execute("PRAGMA max_page_count=1000000"))
    save(database, {"_id": "after"})
    assert (database.counters.documents, database.update_seq()) == (2, 2)
    assert [row[1] for row in database.changes_since(0, 10)] == ["before", "after"]


def test_compaction_forgets_old_bodies_and_keeps_every_leaf(database: DatabaseStore) -> None:
    revision = first = save(database, {"_id": "d", "n": 0})
    for number in range(1, 20):
        revision = save(database, {"_id": "d", "_rev": revision, "n": number})
    for digit in "ab":
        database.write([draft({"_id": "c", "_rev": "1-" + digit * 32, "leaf": digit})], new_edits=False)
    row = database.row("d")
    assert row is not None
    assert database.revision_row(row, (1, first.split("-")[1])) is not None
    assert http_database.prune(database) == 19
    assert database.revision_row(row, (1, first.split("-")[1])) is None
    assert database.get("d") == {"_id": "d", "_rev": revision, "n": 19}
    conflicted = database.row("c")
    assert conflicted is not None
    for digit in "ab":
        found = database.revision_row(conflicted, (1, digit * 32))
        assert found is not None
        assert found.document()["leaf"] == digit


def test_pruning_works_unasked_and_keeps_what_counts(database: DatabaseStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "KEPT", 50)
    monkeypatch.setattr(compaction, "RECENT", 10)
    monkeypatch.setattr(compaction, "SLICE", 7)
    for digit in "ab":
        database.write([draft({"_id": "c", "_rev": "1-" + digit * 32, "leaf": digit})], new_edits=False)
    revision = first = save(database, {"_id": "d", "n": 0})
    for number in range(1, 100):
        revision = save(database, {"_id": "d", "_rev": revision, "n": number})
    last = first_again = save(database, {"_id": "e"})
    save(database, {"_id": "e", "_rev": last, "n": 1})

    def stored() -> int:
        return int(database.run(lambda connection: connection.execute("SELECT count(*) FROM bodies").fetchone()[0]))

    deadline = time.monotonic() + 5
    while stored() > 70:
        assert time.monotonic() < deadline
    row = database.row("d")
    assert row is not None
    assert database.revision_row(row, (1, first.split("-")[1])) is None
    assert database.get("d") == {"_id": "d", "_rev": revision, "n": 99}
    recent = database.row("e")
    assert recent is not None
    assert database.revision_row(recent, (1, first_again.split("-")[1])) is not None
    conflicted = database.row("c")
    assert conflicted is not None
    for digit in "ab":
        assert database.revision_row(conflicted, (1, digit * 32)) is not None


def test_a_deleted_database_takes_no_more_writes(store: Store, database: DatabaseStore) -> None:
    store.delete("runs/2026")
    with pytest.raises(Problem, match="Database does not exist"):
        database.write([draft({"_id": "d"})])
    with pytest.raises(Problem, match="Database does not exist"):
        database.row("d")


def test_a_fresh_database_has_another_token(store: Store, database: DatabaseStore) -> None:
    save(database, {"_id": "d"})
    old = http_database.token(database, database.update_seq())
    store.delete("runs/2026")
    fresh = store.create("runs/2026")
    save(fresh, {"_id": "d"})
    assert http_database.parse_token(fresh, old) == 0
    assert http_database.parse_token(fresh, http_database.token(fresh, 1)) == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text().filter(lambda key: not key.startswith("_")), JSON, max_size=5))
def test_any_json_comes_back(document: dict[str, Any]) -> None:
    encoded = codec.dumps(document)
    assert codec.loads(encoded) == document
    made = draft(codec.loads(encoded), "d")
    assert codec.loads(made.body) == document


BAD = [b"NaN", b"[Infinity]", b"1e999", b'"\xff"', b'"\\ud800"', b"{", b"[1,]", b"0" * 30 + b"1"]


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_json(text: bytes) -> None:
    with pytest.raises(codec.InvalidJson):
        codec.loads(text)


def test_long_integers_keep_their_digits() -> None:
    text = b'{"n":123456789012345678901234567890,"m":-9223372036854775809}'
    assert codec.dumps(codec.loads(text)) == text


def test_the_file_is_an_ordinary_sqlite_database(database: DatabaseStore) -> None:
    save(database, {"_id": "d"})
    connection = sqlite3.connect(database.path)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


@pytest.mark.parametrize("rules", [False, True])
def test_whatever_an_id_holds_its_document_is_found_again_by_a_bulk(database: DatabaseStore, rules: bool) -> None:
    if rules:
        save(database, {"_id": "_design/rules", "validate_doc_update": "a function"})
    names = ["a", "a\0", "a\0b", "\n", '"', "'", "\\u0061", "\\", "é", "e\u0301", "\U0001f600", "\u2028", " ", "1"]
    for turn in range(3):
        known = {name: row.rev for name, row in database.rows(names).items()}
        drafts = [draft({"_id": name, "n": turn, **({"_rev": known[name]} if turn else {})}) for name in names]
        assert [type(outcome) for outcome in database.write(drafts)] == [Saved] * len(names)
    assert {name: row["n"] for name, row in database.get_many(names).items()} == dict.fromkeys(names, 2)
