"""Large builds of an index, in processes of their own: the same rows, whatever happens on the way."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.embedded import documents, view_blocks, view_build, view_index, view_stage
from orchestrator.embedded.javascript import DesignFunctions
from orchestrator.embedded.problems import Problem
from orchestrator.embedded.store import Store
from orchestrator.embedded.view_blocks import FIRST, Block, blocks, regions, rows
from orchestrator.embedded.view_file import IndexClosed, ViewFile, recalled
from orchestrator.embedded.view_index import SUFFIX, Definition
from orchestrator.embedded.view_reduce import reduce_values
from orchestrator.embedded.views import Views

ADMIN = {"name": "admin", "roles": ["_admin"]}
DDOC: dict[str, Any] = {
    "_id": "_design/x",
    "views": {
        "n": {"map": "function (doc) { if (doc.n !== undefined) emit(doc.n, doc.n * doc.n); }", "reduce": "_stats"},
        "parts": {
            "map": "function (doc) { for (var i in doc.parts) emit(doc.parts[i], [i, doc.n / 4]); }",
            "reduce": "_count",
        },
        "fractions": {"map": "function (doc) { emit([doc.n % 3, doc._id], doc.n / 4); }", "reduce": "_sum"},
    },
}
QUERY = {"_id": "_design/q", "language": "query", "views": {"i": {"map": {"fields": {"n": "asc"}}, "reduce": "_count"}}}


@pytest.fixture(autouse=True)
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred changes are many, so that a test need not wait for a real build."""
    monkeypatch.setattr(view_index, "MANY", 100)
    monkeypatch.setattr(view_build, "BATCH", 70)
    monkeypatch.setattr(view_build.os, "sched_getaffinity", lambda _pid: {0, 1, 2}, raising=False)


def write(db: Any, *docs: dict[str, Any]) -> None:
    outcomes = db.write([documents.draft(doc) for doc in docs], user=ADMIN)
    assert all(hasattr(outcome, "deleted") for outcome in outcomes), outcomes


def made(n: int, **more: Any) -> dict[str, Any]:
    parts = [n % 5, "ä" * (n % 3), n % 5, None, {"a": [n % 2]}][: n % 6]
    return {"_id": f"d{n * 7919 % 100_000:05d}", "n": n, "parts": parts, **more}


def fill(db: Any, count: int, start: int = 0) -> None:
    write(db, *(made(n) for n in range(start, start + count)))


def change(db: Any, *numbers: int, **more: Any) -> None:
    known = db.get_many([made(n)["_id"] for n in numbers])
    write(db, *({**doc, **more} for doc in known.values()))


def content(path: Path, tables: int) -> Any:
    """All that an index file says, except how its rows are cut into blocks."""
    connection = sqlite3.connect(path)
    found = [list(rows(connection, number, (b"", ""), None)) for number in range(tables)]
    back = {id: recalled(stored) for id, stored in connection.execute("SELECT id, emitted FROM back")}
    seq = connection.execute("SELECT value FROM meta WHERE key = 'seq'").fetchone()
    connection.close()
    return found, back, seq


def inside(db: Any, ddoc: dict[str, Any], tmp_path: Path) -> Any:
    """What the server itself would make."""
    definition = Definition(ddoc)
    file = ViewFile(tmp_path / "inside.sqlite", definition.kinds, db.token)
    functions = DesignFunctions()
    apply = view_build._mapper(functions, definition)
    file.apply(view_index.mapped(definition, apply, db.changes_rows(0, 10**9, bodies=True)), db.update_seq())
    functions.close()
    file.close()
    found = content(file.path, len(definition.kinds))
    file.close(remove=True)
    return found


def check(views: Views, db: Any, ddoc: dict[str, Any], tmp_path: Path) -> None:
    """The index is what the server itself would make, and its blocks add up."""
    definition = Definition(ddoc)
    index = views.index(db, definition)
    found = content(index.file.path, len(definition.kinds))
    assert found == inside(db, ddoc, tmp_path)
    with index.file.reading() as connection:
        for number, kinds in enumerate(definition.kinds):
            pieces = list(blocks(connection, number))
            assert pieces[0].place == (b"", "")
            for block, following in zip(pieces, [*pieces[1:], None], strict=True):
                held = list(rows(connection, number, block.place, following.place if following else None))
                assert len(held) == block.size
                assert len(held) <= view_blocks.SPLIT
                if held:
                    values = [json.loads(row.v) for row in held]
                    assert block.states == [reduce_values(kind, values) for kind in kinds]
            above = list(regions(connection, number))
            for region, following in zip(above, [*above[1:], None], strict=True):
                under = list(blocks(connection, number, region.place, following.place if following else None))
                assert region.place == under[0].place
                assert region.size == sum(block.size for block in under)
                assert not region.size or region.states == view_blocks.merged(kinds, under)
    left = [path for _signature, path in view_build.leftovers(db.folder)]
    assert left == []


@pytest.mark.parametrize("ddoc", [DDOC, QUERY], ids=["javascript", "query"])
def test_a_build_by_processes_gives_the_rows_that_the_server_gives(
    views: Views, db: Any, ddoc: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    run = view_build._run

    def note(tasks: list[Any], build: Any) -> None:
        started.extend(task["mode"] for task in tasks)
        run(tasks, build)

    monkeypatch.setattr(view_build, "_run", note)
    fill(db, 900)
    write(db, {"_id": "_design/other", "views": {}}, {"_id": "empty"})
    change(db, *range(100, 200), n=4711)
    change(db, *range(300, 350), _deleted=True)
    assert views.query(db, ddoc, next(iter(ddoc["views"])), {"reduce": "false", "limit": "1"})["total_rows"] > 500
    assert started == ["stage", "stage", "stage", "merge"]
    check(views, db, ddoc, tmp_path)
    change(db, *range(40), n=-1)  # a few: by the server
    views.query(db, ddoc, next(iter(ddoc["views"])))
    check(views, db, ddoc, tmp_path)
    fill(db, 150, 2000)  # many, and far fewer than are there: by one process, in the same file
    change(db, *range(60, 80), _deleted=True)
    views.query(db, ddoc, next(iter(ddoc["views"])))
    assert started[4:] == ["follow"]
    check(views, db, ddoc, tmp_path)


def test_blocks_are_cut_between_documents(views: Views, db: Any, tmp_path: Path) -> None:
    write(db, *({"_id": f"{n:03d}", "n": n, "parts": ["same"] * 60} for n in range(120)))
    assert views.query(db, DDOC, "parts")["rows"] == [{"key": None, "value": 7200}]
    check(views, db, DDOC, tmp_path)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.lists(st.tuples(
        st.one_of(st.integers(-3, 3), st.sampled_from(["a", "B", "é"]), st.none()), st.integers(-5, 5)
    ), max_size=6)), max_size=12, unique_by=lambda document: document[0]),
    st.integers(1, 4),
    st.integers(2, 6),
)  # fmt: skip
def test_stages_merged_are_what_one_file_would_hold(documents: list[Any], stages: int, split: int) -> None:
    kinds: list[tuple[str, ...]] = [("_stats", "_sum"), ()]
    old = view_blocks.SPLIT
    view_blocks.SPLIT = split
    try:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            given = [(id, [pairs, pairs[:1]]) for id, pairs in documents]
            paths = [folder / f"{number}{view_stage.SUFFIX}" for number in range(stages)]
            for number, path in enumerate(paths):
                stage = view_stage.Stage(path, kinds, "one")
                stage.take(given[number::stages], 1)
                stage.close()
            view_stage.merge(paths, folder / "made", kinds, "t", 7, lambda: None)
            direct = ViewFile(folder / "direct", kinds, "t")
            direct.apply(given, 7)  # type: ignore[arg-type]
            direct.close()
            assert content(folder / "made", 2) == content(folder / "direct", 2)
            whole = ViewFile(folder / "made", kinds, "t")
            whole.apply([(id, None) for id, _emitted in given], 8)  # blocks that do not add up would not end empty
            with whole.reading() as connection:
                for number in (0, 1):
                    assert list(blocks(connection, number)) == [Block(FIRST, 0, "[]")]
                    assert list(regions(connection, number)) == [Block(FIRST, 0, "[]")]
            whole.close()
    finally:
        view_blocks.SPLIT = old


def test_a_stage_of_another_build_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / f"x{view_stage.SUFFIX}"
    for build, done in (("one", 0), ("one", 5), ("two", 0)):
        stage = view_stage.Stage(path, [()], build)
        assert stage.done == done
        stage.take([("a", [[(1, 2)]])], 5)
        stage.close()
    path.write_bytes(b"no database" * 1000)
    assert view_stage.Stage(path, [()], "two").done == 0


def test_documents_that_change_meanwhile_are_taken_in_at_their_newest(
    views: Views, db: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(db, 400)
    run = view_build._run

    def meanwhile(tasks: list[Any], build: Any) -> None:
        run(tasks, build)
        if tasks[0]["mode"] == "stage":
            change(db, *range(0, 400, 10), n=5)
            change(db, *range(5, 400, 10), _deleted=True)
        stale = views.query(db, DDOC, "n", {"update": "false", "reduce": "false"})
        assert stale["rows"] == []  # nobody sees half an index

    monkeypatch.setattr(view_build, "_run", meanwhile)
    assert views.query(db, DDOC, "n", {"reduce": "false"})["total_rows"] == 400  # as it was when it was asked for
    assert views.query(db, DDOC, "n", {"reduce": "false"})["total_rows"] == 360
    check(views, db, DDOC, tmp_path)


def test_who_reads_the_old_file_reads_it_to_the_end(views: Views, db: Any) -> None:
    fill(db, 50)
    views.query(db, DDOC, "n")
    index = views.index(db, Definition(DDOC))
    with index.file.reading() as connection:
        cursor = connection.execute("SELECT id FROM rows_0")
        first = cursor.fetchone()
        fill(db, 400, 50)
        assert views.query(db, DDOC, "n", {"reduce": "false"})["total_rows"] == 450
        assert len([first, *cursor]) == 50
    assert views.query(db, DDOC, "n", {"reduce": "false", "update": "false"})["total_rows"] == 450


def test_a_function_that_fails_leaves_what_is_done(
    store: Store, db: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    functions = DesignFunctions(timeout=0.5)
    views = Views(functions)
    fill(db, 600)
    source = "function (doc) { if (doc.loop) while (true) {} emit(doc.n); }"
    ddoc = {"_id": "_design/loop", "views": {"v": {"map": source}}}
    write(db, {"_id": "bad", "loop": True, "n": 0})
    with pytest.raises(Problem) as caught:
        views.query(db, ddoc, "v")
    assert caught.value.error == "os_process_error"
    assert not views.active_tasks()
    done = [path for _signature, path in view_build.leftovers(db.folder) if path.suffix == ".sqlite"]
    assert sum(sqlite3.connect(path).execute("SELECT count(*) FROM rows_0").fetchone()[0] for path in done) > 0
    known = db.get("bad")
    write(db, {**known, "loop": False})
    assert views.query(db, ddoc, "v")["total_rows"] == 601
    check(views, db, ddoc, tmp_path)
    views.close()
    functions.close()


def test_a_server_that_stops_does_not_wait_for_a_build(db: Any, store: Store) -> None:
    fill(db, 2000)
    source = "function (doc) { for (var i = 0; i < 2e5; i++); emit(1); }"
    ddoc = {"_id": "_design/slow", "views": {"v": {"map": source}}}
    views = Views(lambda: store.functions)
    ended: list[BaseException] = []

    def ask() -> None:
        try:
            views.query(db, ddoc, "v")
        except Exception as error:
            ended.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    builders = wait_for(builders_of)
    views.close()
    asking.join()
    assert isinstance(ended[0], IndexClosed)
    _gone, alive = psutil.wait_procs(builders, timeout=10)
    assert not alive


def builders_of(process: psutil.Process | None = None) -> list[psutil.Process]:
    """The processes that build for a process, by default this one."""
    found = []
    for child in (process or psutil.Process()).children(recursive=True):
        try:
            if any("view_build" in word for word in child.cmdline()):
                found.append(child)
        except psutil.Error:
            continue
    return found


def wait_for(look: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 30
    while not (found := look()):
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)
    return found


SERVER = """
import json, sys
from pathlib import Path
from orchestrator.embedded import view_build, view_index
from orchestrator.embedded.store import Store
from orchestrator.embedded.views import Views
view_index.MANY = 100
view_build.BATCH = 50
store = Store(Path(sys.argv[1]))
views = Views(lambda: store.functions)
views.query(store.database("d"), json.loads(sys.argv[2]), "n")
"""


def laid_down(folder: Path) -> int:
    """Batches that are safe in stages."""
    done = 0
    for path in folder.glob("*" + view_stage.SUFFIX):
        try:
            connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
            done += connection.execute("SELECT value FROM meta WHERE key = 'done'").fetchone()[0] > 0
            connection.close()
        except (sqlite3.Error, TypeError):
            continue
    return done


@pytest.mark.parametrize("moment", ["laying down", "sorting", "any"])
def test_a_server_killed_while_it_builds_goes_on_where_it_was(tmp_path: Path, moment: str) -> None:
    store = Store(tmp_path / "data")
    db = store.create("d")
    fill(db, 2500)
    folder, target = db.folder, db.update_seq()
    store.close()
    command = [sys.executable, "-c", SERVER, str(tmp_path / "data"), json.dumps(DDOC)]
    server = subprocess.Popen(command)
    builders = wait_for(lambda: builders_of(psutil.Process(server.pid)))
    if moment == "laying down":
        wait_for(lambda: laid_down(folder))
    elif moment == "sorting":
        wait_for(lambda: list(folder.glob(f"*{view_build.MADE}*")) or list(folder.glob("*" + SUFFIX)))
    server.kill()
    server.wait()
    _gone, alive = psutil.wait_procs(builders, timeout=20)
    assert not alive  # nobody goes on without the server
    store = Store(tmp_path / "data")
    views = Views(lambda: store.functions)
    db = store.database("d")
    change(db, *range(100), n=3)
    assert views.query(db, DDOC, "n", {"reduce": "false"})["total_rows"] == 2500
    check(views, db, DDOC, tmp_path)
    assert db.update_seq() == target + 100
    views.close()
    store.close()


def test_cleanup_removes_what_builds_have_left(views: Views, db: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(db, 300)
    run = view_build._run

    def fail(tasks: list[Any], build: Any) -> None:
        run(tasks, build)
        raise Problem(500, "index_error", "the disk is full")

    monkeypatch.setattr(view_build, "_run", fail)
    with pytest.raises(Problem, match="the disk is full"):
        views.query(db, DDOC, "n")
    assert list(view_build.leftovers(db.folder))
    views.cleanup(db)
    assert not list(view_build.leftovers(db.folder))


def test_a_process_that_dies_is_told_of(views: Views, db: Any) -> None:
    fill(db, 300)
    source = "function (doc) { for (var i = 0; i < 1e5; i++); emit(doc.n); }"
    ddoc = {"_id": "_design/slow", "views": {"v": {"map": source}}}
    ended: list[Problem] = []

    def ask() -> None:
        try:
            views.query(db, ddoc, "v")
        except Problem as problem:
            ended.append(problem)

    asking = threading.Thread(target=ask)
    asking.start()
    wait_for(builders_of)[0].kill()
    asking.join()
    assert ended[0].reason == "The process that builds the index of _design/slow ended (-9)."
    assert not builders_of()
    assert views.query(db, ddoc, "v")["total_rows"] == 300
