"""Views over a real database: what a query says, freshness, and the care of index files."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator.embedded import documents, view_file, view_index, view_params
from orchestrator.embedded.javascript import DesignFunctions
from orchestrator.embedded.problems import Problem
from orchestrator.embedded.store import Store
from orchestrator.embedded.view_index import SUFFIX, Definition, check_design
from orchestrator.embedded.views import Views

ADMIN = {"name": "admin", "roles": ["_admin"]}
DDOC: dict[str, Any] = {
    "_id": "_design/x",
    "views": {
        "byn": {"map": "function (doc) { emit(doc.n, doc.g); }", "reduce": "_sum"},
        "tail": {
            "map": "function (doc) { emit(doc.g, 1); }",
            "reduce": "function (k, v, r) { return r ? sum(v) : v.length; }",
        },
    },
}


def write(db: Any, *docs: dict[str, Any]) -> None:
    outcomes = db.write([documents.draft(doc) for doc in docs], user=ADMIN)
    assert all(hasattr(outcome, "deleted") for outcome in outcomes), outcomes


def fill(db: Any, count: int, start: int = 0) -> None:
    write(db, *({"_id": f"{n:05d}", "n": n, "g": n % 10} for n in range(start, start + count)))


# Freshness


def test_update_false_reads_what_is_there(views: Views, db: Any) -> None:
    fill(db, 10)
    assert views.query(db, DDOC, "byn", {"update": "false"}) == {"rows": []}
    assert views.query(db, DDOC, "byn") == {"rows": [{"key": None, "value": 45}]}
    fill(db, 10, 10)
    assert views.query(db, DDOC, "byn", {"stale": "ok"})["rows"][0]["value"] == 45
    assert views.query(db, DDOC, "byn", {"update_seq": "true", "update": "false"})["update_seq"] == f"10-{db.token}"
    assert views.query(db, DDOC, "byn")["rows"][0]["value"] == 90


def test_lazy_answers_first_and_updates_then(views: Views, db: Any) -> None:
    fill(db, 10)
    assert views.query(db, DDOC, "byn", {"update": "lazy"}) == {"rows": []}
    deadline = time.monotonic() + 10
    while not views.query(db, DDOC, "byn", {"update": "false"})["rows"]:
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


def test_many_who_ask_at_once_build_once(views: Views, db: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(db, 300)
    mapped: list[int] = []
    apply = DesignFunctions.map_texts

    def count(self: DesignFunctions, sources: list[str], texts: list[str], lib: Any = None) -> list[str]:
        mapped.append(len(texts))
        return apply(self, sources, texts, lib)

    monkeypatch.setattr(DesignFunctions, "map_texts", count)
    answers: list[Any] = []
    threads = [
        threading.Thread(target=lambda: answers.append(views.query(db, DDOC, "tail")["rows"])) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [[{"key": None, "value": 300}]] * 8
    assert sum(mapped) == 300


def test_a_map_that_fails_leaves_the_index_as_it_was(views: Views, db: Any) -> None:
    fill(db, 5)
    source = "function (doc) { if (doc.n > 7) { while (true) {} } emit(1); }"
    broken = {"_id": "_design/y", "views": {"v": {"map": source}}}
    functions = DesignFunctions(timeout=0.3)
    quick = Views(functions)
    assert quick.query(db, broken, "v")["total_rows"] == 5
    fill(db, 5, 5)
    with pytest.raises(Problem):
        quick.query(db, broken, "v")
    assert quick.query(db, broken, "v", {"update": "false"})["total_rows"] == 5
    assert not quick.active_tasks()
    quick.close()
    functions.close()


def test_progress_is_shown(views: Views, db: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view_index, "BATCH", 10)
    fill(db, 50)
    seen: list[dict[str, Any]] = []
    apply = DesignFunctions.map_texts

    def watch(self: DesignFunctions, sources: list[str], texts: list[str], lib: Any = None) -> list[str]:
        seen.extend(views.active_tasks())
        return apply(self, sources, texts, lib)

    monkeypatch.setattr(DesignFunctions, "map_texts", watch)
    views.query(db, DDOC, "byn")
    assert seen[0]["type"] == "indexer"
    assert seen[0]["database"] == "d"
    assert seen[0]["design_document"] == "_design/x"
    assert seen[0]["total_changes"] == 50
    assert seen[-1]["progress"] > seen[0]["progress"]
    assert views.active_tasks() == []


# Index files


def files(db: Any) -> set[str]:
    return {path.name.removesuffix(SUFFIX) for path in db.folder.glob("*" + SUFFIX)}


def test_a_copy_under_another_name_shares_the_index(views: Views, db: Any) -> None:
    fill(db, 20)
    views.query(db, {**DDOC, "_id": "_design/staging"}, "byn")
    assert views.query(db, DDOC, "byn", {"update": "false"})["rows"][0]["value"] == 90
    assert len(files(db)) == 1


def test_cleanup_removes_what_nobody_has(views: Views, db: Any) -> None:
    write(db, DDOC)
    other = {"_id": "_design/y", "views": {"v": {"map": "function (doc) { emit(1); }"}}}
    fill(db, 3)
    views.query(db, DDOC, "byn")
    views.query(db, other, "v")
    assert files(db) == {Definition(DDOC).signature, Definition(other).signature}
    assert views.cleanup(db) == [Definition(other).signature]
    assert files(db) == {Definition(DDOC).signature}
    assert views.query(db, DDOC, "byn", {"update": "false"})["rows"][0]["value"] == 3
    assert views.query(db, other, "v")["total_rows"] == 3


def test_info(views: Views, db: Any) -> None:
    fill(db, 3)
    info = views.info(db, DDOC)
    assert info["name"] == "x"
    assert info["view_index"]["updates_pending"]["total"] == 3
    views.query(db, DDOC, "byn")
    info = views.info(db, DDOC)["view_index"]
    assert info["updates_pending"]["total"] == 0
    assert info["signature"] == Definition(DDOC).signature
    assert info["sizes"]["file"] > 0
    assert info["updater_running"] is False


def test_a_database_made_again_has_none_of_the_old_rows(views: Views, store: Store, db: Any) -> None:
    fill(db, 3)
    views.query(db, DDOC, "byn")
    views.forget(db)
    store.delete("d")
    again = store.create("d")
    assert views.query(again, DDOC, "byn") == {"rows": []}


def test_an_index_removed_under_a_query_is_opened_again(views: Views, db: Any) -> None:
    fill(db, 10)
    views.query(db, DDOC, "byn")
    index = views.index(db, Definition(DDOC))
    reading = index.file.reading

    def vanish() -> Any:
        views.cleanup(db)  # no design document has these views: the file goes
        return reading()

    index.file.reading = vanish  # type: ignore[method-assign]
    assert views.query(db, DDOC, "byn")["rows"][0]["value"] == 45


def test_a_damaged_index_is_built_anew(views: Views, db: Any, caplog: pytest.LogCaptureFixture) -> None:
    fill(db, 500)
    assert views.query(db, DDOC, "byn", {"key": "7"})["rows"][0]["value"] == 7
    index = views.index(db, Definition(DDOC))
    index.close()
    path = index.file.path
    damaged = bytearray(path.read_bytes())
    damaged[8192:] = bytes(len(damaged) - 8192)
    path.write_bytes(damaged)
    views._indexes.clear()
    assert views.query(db, DDOC, "byn", {"reduce": "false"})["total_rows"] == 500
    assert views.query(db, DDOC, "byn", {"key": "7"})["rows"][0]["value"] == 7
    assert "damaged" in caplog.text


def test_a_folder_that_cannot_be_written_says_so(views: Views, db: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_given: Any, **_more: Any) -> Any:
        raise sqlite3.OperationalError("attempt to write a readonly database")

    monkeypatch.setattr(view_file.sqlite3, "connect", refuse)
    with pytest.raises(Problem, match=r"index of _design/x in d cannot be .* readonly"):
        views.query(db, DDOC, "byn")


def test_a_database_that_is_gone_says_so(views: Views, store: Store, db: Any) -> None:
    views.forget(db)
    store.delete("d")
    with pytest.raises(Problem) as caught:
        views.query(db, DDOC, "byn")
    assert caught.value.status == 404


def test_the_index_survives_a_restart(tmp_path: Path) -> None:
    for first in (True, False):
        store = Store(tmp_path / "data")
        views = Views(lambda store=store: store.functions)
        db = store.create("d") if first else store.database("d")
        if first:
            fill(db, 12)
            views.query(db, DDOC, "byn")
        assert views.query(db, DDOC, "byn", {"update": "false"})["rows"][0]["value"] == 46
        views.close()
        store.close()


KILLED = """
import json, sys
from pathlib import Path
from orchestrator.embedded import view_index
from orchestrator.embedded.store import Store
from orchestrator.embedded.views import Views
view_index.BATCH = 20
store = Store(Path(sys.argv[1]))
views = Views(lambda: store.functions)
print("building", flush=True)
views.query(store.database("d"), json.loads(sys.argv[2]), "byn")
print("built", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("moment", [0.05, 0.2, 0.4])  # seconds into the build
def test_a_kill_while_building_costs_nothing_but_time(tmp_path: Path, moment: float) -> None:
    store = Store(tmp_path / "data")
    fill(store.create("d"), 3000)
    store.close()
    command = [sys.executable, "-c", KILLED, str(tmp_path / "data"), json.dumps(DDOC)]
    builder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert builder.stdout is not None
    builder.stdout.readline()
    threading.Event().wait(moment)
    builder.kill()
    builder.communicate()
    store = Store(tmp_path / "data")
    views = Views(lambda: store.functions)
    db = store.database("d")
    stale = views.query(db, DDOC, "byn", {"reduce": "false", "update": "false"})
    seq = views.index(db, Definition(DDOC)).file.seq
    assert [row["key"] for row in stale["rows"]] == list(range(seq))  # one document a change: a whole number of batches
    assert views.query(db, DDOC, "byn", {"update": "false"})["rows"] == (
        [{"key": None, "value": sum(n % 10 for n in range(seq))}] if seq else []
    )
    assert views.query(db, DDOC, "byn")["rows"] == [{"key": None, "value": 13500}]
    assert views.query(db, DDOC, "byn", {"reduce": "false"})["total_rows"] == 3000
    views.close()
    store.close()


# What a query says


def test_the_url_outranks_the_body() -> None:
    params = view_params.from_request({"limit": "1"}, {"limit": 5, "skip": 2, "startkey": "a", "keys": [1, 2]})
    assert (params.limit, params.skip, params.startkey, params.keys) == (1, 2, "a", [1, 2])


def test_names_that_mean_nothing_are_passed_over() -> None:
    assert vars(view_params.parse({"nonsense": "1", "_": "2"})) == vars(view_params.Params())


@pytest.mark.parametrize(
    "query",
    [
        {"limit": "1.5"}, {"limit": ""}, {"skip": "-1"}, {"reduce": "maybe"}, {"update": "yes"}, {"stale": "false"},
        {"stable": "x"}, {"group_level": "a"}, {"partition": "p"},
    ],
)  # fmt: skip
def test_values_that_do_not_fit(query: dict[str, str]) -> None:
    with pytest.raises(Problem) as caught:
        view_params.parse(query)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("query", "reduces", "words"),
    [
        ({"reduce": "true"}, False, "Reduce is invalid"), ({"group": "true"}, False, "grouping"),
        ({"group_level": "1", "reduce": "false"}, True, "grouping"), ({"include_docs": "true"}, True, "include_docs"),
        ({"keys": "[1]"}, True, "group=true"), ({"keys": "5"}, False, "array"),
        ({"keys": "[1]", "key": "1"}, False, "incompatible"), ({"conflicts": "true"}, True, "conflicts"),
        ({"group": "false", "group_level": "1"}, True, "group=false"),
    ],
)  # fmt: skip
def test_what_does_not_go_together(query: dict[str, str], reduces: bool, words: str) -> None:
    with pytest.raises(Problem, match=words):
        view_params.validate(view_params.parse(query), reduces)


def test_a_design_document_is_checked(store: Store) -> None:
    check_design(DDOC, store.functions)
    for views in ({"v": {"map": "function (doc) {"}}, {"v": {"map": "1"}}, {"v": {"map": 5}}):
        with pytest.raises(Problem) as caught:
            check_design({"_id": "_design/y", "views": views}, store.functions)
        assert caught.value.status == 400
