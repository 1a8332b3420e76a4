"""``orchestrator import`` from a real server and from a file."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator import importing
from orchestrator.couch import Database, Server
from orchestrator.embedded.testing import EmbeddedServer

DATE = {"year": 2012, "month": 5, "day": 3, "hour": 10, "minute": 20, "second": 30, "microsecond": 0, "timezone": 0}
#: As the old system had them: who is on tape, and which files of which host there are.
OLD_VIEWS = {
    "onhpss": 'function(doc) { if (doc.type == "daqdocument" && doc.hpss && doc["hpss"]["file"] && doc.proc0) '
    '{ emit(doc.run_name, doc["proc0"]["file_size"]); } if (doc.type == "daqmetadatadocuments" && doc.hpss && '
    'doc.metaproc0) { emit(doc.run_name, doc["metaproc0"]["file_size"]); } }',
    "byhost": 'function(doc) { if (doc.type == "daqdocument") { emit([doc.Hote, doc.run_name, doc["Bolo.nb"]], '
    "doc.date_uploaded.year); } }",
}


def _old(number: int, status: str, **more: Any) -> dict[str, Any]:
    return {
        "_id": f"run_me03a001_{number:03}", "type": "daqdocument", "run_name": "me03a001", "file_number": number,
        "file": f"/data/me03a001_{number:03}", "size_in_bytes": 10, "Hote": "s1", "Bolo.nb": 3, "date_uploaded": DATE,
        "status": status, **more,
    }  # fmt: skip


OLD = [
    _old(0, "closed"),
    _old(1, "good", proc0={"file": "/sps/1", "file_size": 10, "date_unixtime": 1336040430.5},
         hpss={"file": "/hpss/me03a001.tar.gz"}, hpss_status="done"),
    _old(2, "proc1 failed", proc0={"file": "/sps/2", "file_size": 10}, proc1={"exception": "it broke"}),
    _old(3, "proc0 in progress"),
    _old(4, "bad", proc0={"scpErrs": "lost connection"}),
    _old(5, "proc1 queued", proc0={"file": "/sps/5"}, batchJob=[{"type": "proc1", "number": 12, "message": "http://a:pw@b/"}]),
    {"_id": "me03a001_log", "type": "daqmetadatadocuments", "run_name": "me03a001", "metaproc0": {"file_size": 3},
     "hpss": {"file": "/hpss/me03a001.tar.gz"}, "status": "good"},
    {"_id": "me03a001.tar.gz", "type": "hpsstarfiledocument", "members": ["me03a001_001", "me03a001_log"]},
    {"_id": "tracker", "samba": {"a": {"lastfile": ""}}},
]  # fmt: skip


@pytest.fixture
def old(server: EmbeddedServer, tmp_path: Path) -> Iterator[Database]:
    """An old database on the same server, with a design document of its own."""
    name, there = f"old{abs(hash(tmp_path))}", Server(server.url, server.credentials)
    there.create(name)
    found = there.database(name)
    assert not [one for one in found.bulk(OLD) if not getattr(one, "rev", None)]
    found.put({"_id": "_design/old", "views": {name: {"map": source} for name, source in OLD_VIEWS.items()}})
    one = found.get("run_me03a001_001")
    picture = {"content_type": "image/png", "data": b64encode(b"\x89PNG").decode()}
    found.put({**one, "_attachments": {"picture": picture}})
    yield found


@pytest.fixture
def login(server: EmbeddedServer, tmp_path: Path) -> str:
    path = tmp_path / "old-login"
    path.touch(mode=0o600)
    path.write_text(json.dumps({"username": server.credentials.username, "password": server.credentials.password}))
    return str(path)


def test_a_dry_run_says_everything_and_writes_nothing(
    site: Any, server: EmbeddedServer, database: Database, old: Database, login: str
) -> None:
    before = database.info()["update_seq"]
    done = site("import", server.url, "--database", old.name, "--credentials", login)
    assert done.code == 0, done.err
    assert "9 would be imported" in done.out and "1 design document" in done.out
    assert database.info()["update_seq"] == before


def test_an_old_database_becomes_valid_here_and_its_views_answer_the_same(
    site: Any, server: EmbeddedServer, database: Database, old: Database, login: str
) -> None:
    words = ("import", server.url, "--database", old.name, "--credentials", login, "--write")
    done = site(*words, "--json")
    assert done.code == 0, done.err + done.out
    found = {row.id: row.doc for row in database.all_docs(include_docs=True) if not row.id.startswith("_design/")}
    assert {name: found[name].get("status") for name in found if name.startswith("run_")} == {
        "run_me03a001_000": "closed", "run_me03a001_001": "good", "run_me03a001_002": "failed",
        "run_me03a001_003": "closed", "run_me03a001_004": "bad", "run_me03a001_005": "good",
    }  # fmt: skip
    originals = {row.id: row.doc for row in old.all_docs(include_docs=True) if not row.id.startswith("_design/")}
    for name, original in originals.items():
        made = importing.restore(found[name])
        expected = {key: value for key, value in original.items() if key not in ("_rev", "_attachments")}
        assert {key: value for key, value in made.items() if key != "_attachments"} == expected | (
            {"batchJob": [{"type": "proc1", "number": 12, "message": "http://b/"}]} if name.endswith("005") else {}
        )
    carried = database.get("run_me03a001_001", attachments=True)["_attachments"]["picture"]
    assert b64decode(carried["data"]) == b"\x89PNG"
    database.put({"_id": "_design/old", "views": {name: {"map": source} for name, source in OLD_VIEWS.items()}})
    for name in OLD_VIEWS:
        assert list(database.view(f"old/{name}")) == list(old.view(f"old/{name}"))
    rows = database.view("work/failed", reduce=False).rows
    assert [row.id for row in rows] == ["run_me03a001_002"] and rows[0].value["reason"] == "it broke"
    again = site(*words)
    assert again.code == 0 and "0 imported" in again.out and "9 are there already" in again.out


def test_what_is_there_otherwise_is_left_alone(site: Any, database: Database, tmp_path: Path) -> None:
    database.put({"_id": "run_me03a001_000", "type": "daqdocument", "status": "closed"})
    dump = tmp_path / "dump"
    dump.write_text("\n".join(json.dumps(one) for one in OLD))
    done = site("import", str(dump), "--write")
    assert done.code == 1
    assert "run_me03a001_000: a document of this name is there already" in done.err
    assert database.get("run_me03a001_000")["_rev"].startswith("1-")
    assert "8 imported" in done.out


def test_words_that_do_not_fit_are_refused(site: Any, tmp_path: Path, server: EmbeddedServer) -> None:
    assert "--database" in site("import", server.url).err
    assert site("import", str(tmp_path / "absent")).code == 3
    (tmp_path / "f").write_text('{"_id": "a"}')
    assert "did you mean" in site("import", str(tmp_path / "f"), "--rules", "procs.edelweiss:translat").err
