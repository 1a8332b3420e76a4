"""From real files to documents: each once, none lost, whatever the files and the database do."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator import transitions
from orchestrator.couch.database import Refusal, Saved
from orchestrator.errors import FormatError, Refused, Unauthorised, Unavailable
from orchestrator.filenames import path_of
from orchestrator.registrar import Registrar, register_paths
from procs.register.readers import RawFormat
from procs.register.settings import RegisterSettings

SHARED = Path(os.environ.get("ORCHESTRATOR_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))


def _read(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    if content.startswith(b"RAW bad"):
        raise FormatError("a broken header", path="x", offset=4)
    if content.startswith(b"RAW bug"):
        raise ZeroDivisionError("oh")
    return {"temperature": float("inf"), "text": content[:20], "numbers": (1, 2.5), "big": 2**60}


FORMATS = {
    "raw": RawFormat("raw", lambda head: head.startswith(b"RAW"), _read, lambda tail, size: tail.endswith(b"END"))
}


class Database:
    """A run database in memory, with revisions, conflicts and faults to order."""

    def __init__(self) -> None:
        self.docs: dict[str, dict[str, Any]] = {}
        self.away = 0
        self.requests: list[str] = []
        self.forbidden: set[str] = set()
        self.after_write: Callable[[], None] = lambda: None
        self.written = threading.Condition()

    def get_many(self, ids: Iterable[str]) -> dict[str, dict[str, Any] | None]:
        self._ask("get_many")
        return {name: self.docs.get(name) for name in ids}

    def bulk(self, docs: Iterable[dict[str, Any]]) -> list[Saved | Refusal]:
        self._ask("bulk")
        out: list[Saved | Refusal] = []
        for doc in docs:
            json.dumps(doc, allow_nan=False, ensure_ascii=False).encode("utf-8")
            before = self.docs.get(doc["_id"])
            if doc["_id"] in self.forbidden:
                out.append(Refusal(doc["_id"], "forbidden", "the guard says no"))
            elif (before or {}).get("_rev") != doc.get("_rev"):
                out.append(Refusal(doc["_id"], "conflict", "Document update conflict."))
            else:
                old = transitions.parse(before["status"]) if before else None
                new = transitions.parse(doc["status"])
                assert new is not None
                transitions.check(old, new)
                rev = f"{int(doc.get('_rev', '0')) + 1}"
                self.docs[doc["_id"]] = {**json.loads(json.dumps(doc)), "_rev": rev}
                out.append(Saved(doc["_id"], rev))
        with self.written:
            self.written.notify_all()
        self.after_write()
        return out

    def _ask(self, what: str) -> None:
        self.requests.append(what)
        if self.away:
            self.away -= 1
            raise Unavailable("the database did not answer: start it")

    def status(self) -> dict[str, str]:
        return {name: doc["status"] for name, doc in sorted(self.docs.items())}


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
def rules(tmp_path: Path) -> Callable[..., RegisterSettings]:
    def make(**values: Any) -> RegisterSettings:
        return RegisterSettings(**{"directories": [tmp_path], "closed_by": ["rename"], **values})

    return make


def registrar(database: Any, rules: RegisterSettings, **more: Any) -> Registrar:
    return Registrar(database, rules, formats=FORMATS, hostname="daq1", **more)


def test_a_document_says_what_the_contract_says(
    database: Database, rules: Callable[..., RegisterSettings], tmp_path: Path
) -> None:
    (tmp_path / "ma22a000_003").write_bytes(b"RAW 1")
    summary = registrar(database, rules(priority=5, site="modane"), wall=lambda: 1_700_000_000.5).once()
    assert (summary.registered, summary.documents) == (1, ["ma22a000_003"])
    doc = database.docs["ma22a000_003"]
    assert doc.pop("mtime").endswith("Z")
    assert doc.pop("checksum").startswith("sha256:")
    assert doc == {
        "_id": "ma22a000_003", "_rev": "1", "type": "daqdocument", "run_name": "ma22a000", "file_number": 3,
        "file": str(tmp_path / "ma22a000_003"), "size": 5, "hostname": "daq1", "site": "modane", "priority": 5,
        "registered": "2023-11-14T22:13:20.500Z", "updated": "2023-11-14T22:13:20.500Z", "format": "raw",
        "status": "closed",
        "header": {
            "temperature": None, "text": "RAW 1", "numbers": [1, 2.5], "big": str(2**60),
            "notes": [
                "temperature: inf is no JSON number, stored as null",
                f"big: {2**60} is beyond the integers of JSON, kept as text",
            ],
        },
    }  # fmt: skip


def test_a_thousand_files_are_registered_once_in_few_requests(
    database: Database, rules: Callable[..., RegisterSettings], tmp_path: Path
) -> None:
    for number in range(1000):
        (tmp_path / f"run_{number:04d}").write_bytes(b"RAW")
    assert registrar(database, rules()).once().registered == 1000
    assert len(database.docs) == 1000
    assert len(database.requests) <= 6
    again = registrar(database, rules()).once()  # as after a kill: nothing is remembered
    assert (again.registered, again.known) == (0, 1000)
    assert {doc["_rev"] for doc in database.docs.values()} == {"1"}


def test_what_is_wrong_with_one_file_stops_no_other(
    database: Database, rules: Callable[..., RegisterSettings], tmp_path: Path
) -> None:
    for name, content in {
        "a_000": b"RAW bad", "a_001": b"RAW bug", "a_002": b"", "a_003": b"RAW good", "a_004": b"unknown",
    }.items():  # fmt: skip
        (tmp_path / name).write_bytes(content)
    summary = registrar(database, rules(closed_by=["quiet"], quiet=0, unknown_format="bad")).once()
    assert database.status() == {"a_000": "bad", "a_001": "bad", "a_002": "bad", "a_003": "closed", "a_004": "bad"}
    reasons = {name: doc.get("reason", "") for name, doc in database.docs.items()}
    assert "a broken header (at byte 4)" in reasons["a_000"]
    assert "ZeroDivisionError" in reasons["a_001"]
    assert "empty" in reasons["a_002"]
    assert "no known format" in reasons["a_004"]
    assert (summary.bad, summary.registered, len(summary.problems)) == (4, 1, 4)


def test_unknown_files_are_left_alone_by_default(
    database: Database, rules: Callable[..., RegisterSettings], tmp_path: Path
) -> None:
    (tmp_path / "readme").write_text("hello")
    assert registrar(database, rules()).once().ignored == 1
    assert database.docs == {}


def test_the_same_name_elsewhere_is_kept_as_bad_and_said(
    database: Database, rules: Callable[..., RegisterSettings], tmp_path: Path
) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a_000").write_bytes(b"RAW " + folder.encode())
    summary = registrar(database, rules()).once()
    assert (summary.registered, summary.bad) == (1, 1)
    first = database.docs["a_000"]
    (second,) = [doc for name, doc in database.docs.items() if name != "a_000"]
    assert {first["file"], second["file"]} == {str(tmp_path / f / "a_000") for f in ("one", "two")}
    assert second["status"] == "bad"
    assert first["file"] in second["reason"]
    again = registrar(database, rules()).once()
    assert (again.known, again.bad, len(database.docs)) == (2, 0, 2)
    by_path = Database()
    assert registrar(by_path, rules(id_from="path")).once().registered == 2


def test_a_registered_file_that_was_moved_is_not_registered_again(
    database: Database, rules: Callable[..., RegisterSettings], tmp_path: Path
) -> None:
    (tmp_path / "a_000").write_bytes(b"RAW")
    registrar(database, rules()).once()
    (tmp_path / "archive").mkdir()
    (tmp_path / "a_000").rename(tmp_path / "archive" / "a_000")
    summary = registrar(database, rules()).once()
    assert (summary.moved, summary.bad, len(database.docs)) == (1, 0, 1)
    (tmp_path / "archive" / "a_000").write_bytes(b"NEW")
    (tmp_path / "archive" / "a_000").write_bytes(b"RAX")
    (tmp_path / "archive" / "a_000").write_bytes(b"RAW2")
    assert registrar(database, rules()).once().bad == 1


def test_a_file_that_changed_after_registration_is_reported_and_not_altered(
    database: Database, rules: Callable[..., RegisterSettings], tmp_path: Path
) -> None:
    (tmp_path / "a_000").write_bytes(b"RAW")
    one = registrar(database, rules())
    one.once()
    (tmp_path / "a_000").write_bytes(b"RAW longer")
    summary = one.once()
    assert summary.changed == 1
    assert "10 bytes now, but 3 when it was registered" in summary.problems[0]
    assert database.docs["a_000"]["_rev"] == "1"
    assert one.once().changed == 0  # said once


def test_open_then_closed_keeps_what_a_person_added(
    database: Database, rules: Callable[..., RegisterSettings], tmp_path: Path
) -> None:
    one = registrar(database, rules(register_open=True, closed_by=["trailer"]), wall=lambda: 1.0)
    path = tmp_path / "a_000"
    path.write_bytes(b"RAW")
    assert one.once().opened == 1
    assert database.status() == {"a_000": "open"}
    assert one.once().opened == 0
    database.docs["a_000"] |= {"comment": "look at this", "_rev": "2"}
    path.write_bytes(b"RAW END")
    later = registrar(database, rules(register_open=True, closed_by=["trailer"]), wall=lambda: 2.0)
    assert later.once().closed == 1
    doc = database.docs["a_000"]
    assert (doc["status"], doc["size"], doc["comment"]) == ("closed", 7, "look at this")
    assert (doc["registered"], doc["updated"]) == ("1970-01-01T00:00:01.000Z", "1970-01-01T00:00:02.000Z")


def test_a_refused_document_harms_no_other_and_is_tried_again(
    database: Database, rules: Callable[..., RegisterSettings], tmp_path: Path
) -> None:
    for number in range(3):
        (tmp_path / f"a_{number:03d}").write_bytes(b"RAW")
    database.forbidden = {"a_001"}
    clock = [0.0]
    one = registrar(database, rules(), monotonic=lambda: clock[0])
    summary = one.once()
    assert (summary.registered, summary.errors) == (2, 1)
    assert "the guard says no" in summary.problems[0]
    database.forbidden = set()
    clock[0] = 61.0
    assert one.once().registered == 1


def test_a_bulk_refused_as_a_whole_is_sent_one_by_one(
    database: Database, rules: Callable[..., RegisterSettings], tmp_path: Path
) -> None:
    class Picky(Database):
        def bulk(self, docs: Iterable[dict[str, Any]]) -> list[Saved | Refusal]:
            if any(doc["_id"] == "a_001" for doc in docs):
                raise Refused("a_001 is no document")
            return super().bulk(docs)

    picky = Picky()
    for number in range(3):
        (tmp_path / f"a_{number:03d}").write_bytes(b"RAW")
    summary = registrar(picky, rules()).once()
    assert (sorted(picky.docs), summary.errors) == (["a_000", "a_002"], 1)


def test_the_answer_to_a_write_lost_on_the_way_registers_nothing_twice(
    database: Database, rules: Callable[..., RegisterSettings], tmp_path: Path
) -> None:
    (tmp_path / "a_000").write_bytes(b"RAW")
    one = registrar(database, rules())

    def lose() -> None:
        database.after_write = lambda: None
        raise Unavailable("the answer was lost")

    database.after_write = lose
    with pytest.raises(Unavailable):
        one.once()
    summary = one.once()
    assert (summary.known, summary.bad, len(database.docs)) == (1, 0, 1)


def test_a_file_that_cannot_be_read_is_an_error_and_tried_again(
    database: Database, rules: Callable[..., RegisterSettings], tmp_path: Path
) -> None:
    (tmp_path / "a_000").write_bytes(b"RAW")
    answers: list[Exception] = [OSError(5, "Input/output error"), ImportError("no numpy")]

    def read(path: Path) -> dict[str, Any]:
        if answers:
            raise answers.pop(0)
        return {}

    formats = {"raw": RawFormat("raw", lambda head: True, read)}
    clock = [0.0]
    one = Registrar(database, rules(), formats=formats, monotonic=lambda: clock[0])
    for sentence in ("Input/output error", "no numpy"):
        summary = one.once()
        assert summary.errors == 1
        assert sentence in summary.problems[0]
        clock[0] += 61
    assert one.once().registered == 1


def test_a_file_that_changes_while_it_is_read_waits(
    database: Database, rules: Callable[..., RegisterSettings], tmp_path: Path
) -> None:
    path = tmp_path / "a_000"
    path.write_bytes(b"RAW")
    grow = [True]

    def read(name: Path) -> dict[str, Any]:
        if grow:
            grow.pop()
            path.write_bytes(b"RAW and more")
        return {}

    clock = [0.0]
    formats = {"raw": RawFormat("raw", lambda head: True, read)}
    one = Registrar(database, rules(events="never"), formats=formats, monotonic=lambda: clock[0])
    assert one.once().registered == 0
    clock[0] += 2
    one.once()
    assert database.docs["a_000"]["size"] == 12


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sets(
        st.one_of(
            st.binary(min_size=1, max_size=40),
            st.text(min_size=1, max_size=30).map(lambda text: text.encode("utf-8", "surrogatepass")),
        ).filter(lambda n: b"/" not in n and b"\0" not in n and n not in (b".", b"..") and len(n) < 200),
        min_size=1,
        max_size=10,
    )
)
def test_files_of_any_name_are_carried_whole(tmp_path_factory: pytest.TempPathFactory, names: set[bytes]) -> None:
    folder = tmp_path_factory.mktemp("names")
    for name in names:
        with open(os.fsencode(folder) + b"/" + name, "wb") as file:  # noqa: PTH123 - a name that is no text
            file.write(b"RAW")
    database = Database()
    rules = RegisterSettings(directories=[folder], closed_by=["rename"], temporary=["no such"], exclude=["no such"])
    registrar(database, rules).once()
    assert {os.fsencode(path_of(doc)) for doc in database.docs.values()} == {
        os.fsencode(folder) + b"/" + n for n in names
    }
    assert all(doc["status"] == "closed" for doc in database.docs.values())


def test_named_files_and_folders_go_the_same_way(
    database: Database, rules: Callable[..., RegisterSettings], tmp_path: Path
) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("a_000", "sub/a_001", "sub/.hidden", "my file.raw"):
        (tmp_path / name).write_bytes(b"RAW")
    (tmp_path / "text").write_text("no raw file")
    given_paths = [tmp_path / "a_000", tmp_path / "a_000", tmp_path / "sub", tmp_path / "missing", tmp_path / "text",
                   tmp_path / "my file.raw"]  # fmt: skip
    summary = register_paths(database, given_paths, rules(directories=[]), 5.0, formats=FORMATS, hostname="daq1")
    assert (summary.registered, summary.errors, summary.bad) == (3, 1, 1)
    assert any("No such file" in sentence for sentence in summary.problems)
    watched = registrar(database, rules()).once()  # the daemon finds the same ids
    assert (watched.registered, watched.bad, watched.known) == (0, 0, 4)
    with (tmp_path / "open").open("wb") as file:
        file.write(b"RAW")
        file.flush()
        assert register_paths(database, [tmp_path / "open"], rules(), formats=FORMATS).waiting == 1


def test_the_daemon_registers_at_once_and_waits_out_a_database_that_is_away(
    database: Database, rules: Callable[..., RegisterSettings], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    stop = threading.Event()
    one = registrar(database, rules(events="always"), draw=lambda: 0.0)
    thread = threading.Thread(target=one.run, args=(stop,), daemon=True)
    thread.start()
    try:
        (tmp_path / "first").write_bytes(b"RAW")
        _until(lambda: "first" in database.docs and not one.watcher.busy)
        (tmp_path / "a_000.part").write_bytes(b"RAW")
        begin = time.perf_counter()
        with database.written:
            (tmp_path / "a_000.part").rename(tmp_path / "a_000")
            assert database.written.wait(5)
        assert time.perf_counter() - begin < 1.0  # measured: below 1 ms
        database.away = 2
        for number in range(1, 20):
            (tmp_path / f"a_{number:03d}").write_bytes(b"RAW")
        _until(lambda: len(database.docs) == 21)
        _until(lambda: any("the database is back" in record.message for record in caplog.records))
    finally:
        stop.set()
        thread.join(5)
        one.close()
    assert not thread.is_alive()


def test_the_daemon_ends_when_the_login_is_refused(rules: Callable[..., RegisterSettings], tmp_path: Path) -> None:
    class Locked(Database):
        def get_many(self, ids: Iterable[str]) -> dict[str, dict[str, Any] | None]:
            raise Unauthorised("the login was refused")

    (tmp_path / "a_000").write_bytes(b"RAW")
    with pytest.raises(Unauthorised):
        registrar(Locked(), rules()).run(threading.Event())


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the folder of real files: set ORCHESTRATOR_SHARED_DATA")
def test_real_files_give_their_headers(database: Database, rules: Callable[..., RegisterSettings]) -> None:
    files = [SHARED / "mice_06008.000", SHARED / "uproot-Zmumu.root", SHARED / "README.md"]
    summary = register_paths(database, files, rules(directories=[]))
    assert (summary.registered, summary.bad, summary.errors) == (2, 1, 0)
    mice = database.docs["mice_06008.000"]
    assert (mice["format"], mice["run_name"], mice["file_number"], mice["size"]) == ("date", "mice_06008", 0, 2397088)
    assert mice["header"]["run_number"] == 6008
    assert database.docs["uproot-Zmumu.root"]["format"] == "root"


def _until(true: Callable[[], bool], limit: float = 10.0) -> None:
    end = time.monotonic() + limit
    pause = threading.Event()
    while not true():
        assert time.monotonic() < end
        pause.wait(0.005)
