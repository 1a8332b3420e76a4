"""Attachments: inline, on their own, as stubs, in ranges.

Texts are stored zipped by CouchDB, so that their digests depend on its zip library; what is said of digests here is
said of binary ones.
"""

from __future__ import annotations

import base64
import hashlib
import os
from typing import Any

import pytest

from .conftest import Database

DATA = bytes(range(256)) * 4
DIGEST = "md5-" + base64.b64encode(hashlib.md5(DATA).digest()).decode()
KIND = "application/octet-stream"


def inline(data: bytes = DATA, kind: str = KIND) -> dict[str, Any]:
    """An attachment as it stands in a document."""
    return {"content_type": kind, "data": base64.b64encode(data).decode()}


def put(database: Database, path: str, data: bytes = DATA, kind: str = KIND, **params: str) -> dict[str, Any]:
    """PUT an attachment that must be accepted."""
    answer = database.put(path, params=params, data=data, headers={"Content-Type": kind})
    assert answer.status_code == 201, answer.text
    assert answer.headers["Location"].endswith(path)
    said: dict[str, Any] = answer.json()
    return said


def test_inline(database: Database) -> None:
    revision = database.save({"_id": "d", "n": 1, "_attachments": {"trace.bin": inline()}})
    found = database.get("/d").json()
    stub = {"content_type": KIND, "revpos": 1, "digest": DIGEST, "length": len(DATA), "stub": True}
    assert found == {"_id": "d", "_rev": revision, "n": 1, "_attachments": {"trace.bin": stub}}
    answer = database.get("/d/trace.bin")
    assert answer.status_code == 200
    assert answer.content == DATA
    assert answer.headers["Content-Type"] == KIND
    assert answer.headers["Content-Security-Policy"] == "sandbox"
    assert answer.headers["Content-Length"] == str(len(DATA))
    assert answer.headers["ETag"] == f'"{DIGEST.removeprefix("md5-")}"'


def test_on_its_own(database: Database) -> None:
    said = put(database, "/d/plot.png", kind="image/png")
    assert said["ok"] is True
    assert said["id"] == "d"
    second = put(database, "/d/other", rev=said["rev"])
    assert second["rev"].startswith("2-")
    found = database.get("/d").json()["_attachments"]
    assert {name: entry["revpos"] for name, entry in found.items()} == {"plot.png": 1, "other": 2}
    assert found["plot.png"]["content_type"] == "image/png"


def test_the_documents_fields_stay(database: Database) -> None:
    first = database.save({"_id": "d", "n": 1})
    put(database, "/d/a", rev=first)
    assert database.get("/d").json()["n"] == 1


def test_a_put_needs_the_revision(database: Database) -> None:
    first = database.save({"_id": "d"})
    assert database.put("/d/a", data=DATA, headers={"Content-Type": KIND}).status_code == 409
    answer = database.put("/d/a", data=DATA, headers={"Content-Type": KIND, "If-Match": first})
    assert answer.status_code == 201
    assert database.put("/d/a", params={"rev": first}, data=b"", headers={"Content-Type": KIND}).status_code == 409
    assert database.get("/d/a").content == DATA


def test_in_full_with_the_document(database: Database) -> None:
    database.save({"_id": "d", "_attachments": {"a": inline(), "t": inline(b"text " * 50, "text/plain")}})
    found = database.get("/d", params={"attachments": "true"}).json()["_attachments"]
    assert base64.b64decode(found["a"]["data"]) == DATA
    assert base64.b64decode(found["t"]["data"]) == b"text " * 50
    assert "stub" not in found["a"]
    assert found["a"]["digest"] == DIGEST


def test_stubs_keep_and_absence_drops(database: Database) -> None:
    first = database.save({"_id": "d", "_attachments": {"a": inline(), "b": inline(b"b")}})
    second = database.save({"_id": "d", "_rev": first, "n": 2, "_attachments": {"a": {"stub": True}}})
    found = database.get("/d").json()
    assert set(found["_attachments"]) == {"a"}
    assert found["_attachments"]["a"]["revpos"] == 1
    assert database.get("/d/a").content == DATA
    assert database.get("/d/b").status_code == 404
    assert database.get("/d/b", params={"rev": first}).content == b"b"
    database.save({"_id": "d", "_rev": second})
    assert "_attachments" not in database.get("/d").json()


def test_a_document_as_it_was_read_can_be_written(database: Database) -> None:
    database.save({"_id": "d", "_attachments": {"a": inline()}})
    found = database.get("/d").json()
    database.save({**found, "n": 2})
    assert database.get("/d/a").content == DATA


def test_a_stub_for_nothing(database: Database) -> None:
    answer = database.put("/d", json={"_attachments": {"a": {"stub": True}}})
    assert answer.status_code == 412
    assert answer.json()["error"] == "missing_stub"


def test_a_stub_of_another_revision(database: Database) -> None:
    first = database.save({"_id": "d", "_attachments": {"a": inline()}})
    answer = database.put("/d", json={"_rev": first, "_attachments": {"a": {"stub": True, "revpos": 10}}})
    assert answer.status_code == 412


def test_data_that_is_not_base64(database: Database) -> None:
    answer = database.put("/d", json={"_attachments": {"a": {"content_type": KIND, "data": "notBase64Encoded="}}})
    assert answer.status_code == 400


def test_delete(database: Database) -> None:
    first = database.save({"_id": "d", "_attachments": {"a": inline()}})
    assert database.delete("/d/a").status_code == 409
    answer = database.delete("/d/none", params={"rev": first})
    assert answer.status_code == 404
    assert answer.json() == {"error": "not_found", "reason": "Document is missing attachment"}
    answer = database.delete("/d/a", params={"rev": "4-garbage"})
    assert answer.status_code == 409
    answer = database.delete("/d/a", params={"rev": first})
    assert answer.status_code == 200
    assert answer.json()["rev"].startswith("2-")
    assert "_attachments" not in database.get("/d").json()
    assert database.get("/d/a", params={"rev": first}).content == DATA


def test_a_missing_one(database: Database) -> None:
    database.save({"_id": "d"})
    answer = database.get("/d/a")
    assert answer.status_code == 404
    assert answer.json() == {"error": "not_found", "reason": "Document is missing attachment"}
    assert database.get("/none/a").json() == {"error": "not_found", "reason": "missing"}


@pytest.mark.parametrize("name", ["with space", "ä.txt", "deep/er/name", "a+b", "x?y"])
def test_names_may_hold_anything(database: Database, name: str) -> None:
    database.save({"_id": "d", "_attachments": {name: inline()}})
    path = "/".join(part.replace(" ", "%20").replace("ä", "%C3%A4").replace("?", "%3F") for part in name.split("/"))
    assert database.get(f"/d/{path.replace('+', '%2B')}").content == DATA


def test_names_do_not_begin_with_an_underscore(database: Database) -> None:
    answer = database.put("/d", json={"_attachments": {"_a": inline()}})
    assert answer.status_code == 400
    assert answer.json() == {
        "error": "bad_request",
        "reason": "Attachment name '_a' starts with prohibited character '_'",
    }


def test_ranges_of_binary(database: Database) -> None:
    database.save({"_id": "d", "_attachments": {"a": inline()}})
    assert database.get("/d/a").headers["Accept-Ranges"] == "bytes"
    answer = database.get("/d/a", headers={"Range": "bytes=10-19"})
    assert answer.status_code == 206
    assert answer.content == DATA[10:20]
    assert answer.headers["Content-Range"] == "bytes 10-19/1024"
    assert database.get("/d/a", headers={"Range": "bytes=1000-"}).content == DATA[1000:]
    assert database.get("/d/a", headers={"Range": "bytes=-24"}).content == DATA[-24:]
    whole = database.get("/d/a", headers={"Range": "bytes=0-"})
    assert whole.status_code == 200
    assert whole.content == DATA
    answer = database.get("/d/a", headers={"Range": "bytes=20-10"})
    assert answer.status_code == 416


def test_no_ranges_of_text(database: Database) -> None:
    database.save({"_id": "d", "_attachments": {"t": inline(b"some text", "text/plain")}})
    answer = database.get("/d/t", headers={"Range": "bytes=1-2"})
    assert answer.status_code == 200
    assert answer.content == b"some text"
    assert answer.headers["Accept-Ranges"] == "none"


def test_a_reader_who_has_it_already(database: Database) -> None:
    database.save({"_id": "d", "_attachments": {"a": inline()}})
    tag = database.get("/d/a").headers["ETag"]
    assert database.get("/d/a", headers={"If-None-Match": tag}).status_code == 304


def test_head(database: Database) -> None:
    database.save({"_id": "d", "_attachments": {"a": inline()}})
    answer = database.head("/d/a")
    assert answer.status_code == 200
    assert answer.content == b""
    assert answer.headers["Content-Length"] == str(len(DATA))


def test_an_empty_one(database: Database) -> None:
    put(database, "/d/empty", b"")
    assert database.get("/d/empty").content == b""
    assert database.get("/d").json()["_attachments"]["empty"]["length"] == 0


def test_a_large_one_sent_in_chunks(database: Database) -> None:
    data = os.urandom(3_000_000)
    pieces = (data[start : start + 100_000] for start in range(0, len(data), 100_000))
    answer = database.put("/d/large", data=pieces, headers={"Content-Type": KIND})
    assert answer.status_code == 201
    assert database.get("/d/large").content == data
    assert database.get("/d/large", headers={"Range": "bytes=2999990-"}).content == data[-10:]


def test_a_checksum_may_come_along(database: Database) -> None:
    good = DIGEST.removeprefix("md5-")
    headers = {"Content-Type": KIND, "Content-MD5": good}
    assert database.put("/d/a", data=DATA, headers=headers).status_code == 201


def test_in_listings_and_feeds_they_are_stubs(database: Database) -> None:
    database.save({"_id": "d", "_attachments": {"a": inline()}})
    row = database.get("/_all_docs", params={"include_docs": "true"}).json()["rows"][0]
    change = database.get("/_changes", params={"include_docs": "true"}).json()["results"][0]
    for document in (row["doc"], change["doc"]):
        assert document["_attachments"]["a"]["stub"] is True
    change = database.get("/_changes", params={"include_docs": "true", "attachments": "true"}).json()["results"][0]
    assert base64.b64decode(change["doc"]["_attachments"]["a"]["data"]) == DATA


def test_a_copy_has_them_too(database: Database) -> None:
    database.save({"_id": "from", "_attachments": {"a": inline()}})
    assert database.request("COPY", "/from", headers={"Destination": "to"}).status_code == 201
    assert database.get("/to/a").content == DATA


def test_of_a_design_document(database: Database) -> None:
    database.save({"_id": "_design/pages", "_attachments": {"style.css": inline(b"a{}", "text/css")}})
    assert database.get("/_design/pages/style.css").content == b"a{}"
