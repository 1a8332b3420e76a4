"""What a replicator asks of either end: revisions with their history in, and out again as JSON and as multipart."""

from __future__ import annotations

import base64
import email
import email.policy
import gzip
import json
from email.message import EmailMessage
from typing import Any

import pytest
import requests

from .conftest import Database, eventually

A, B, C, D = "a" * 32, "b" * 32, "c" * 32, "d" * 32
BINARY = bytes(range(256)) * 300


def revision(name: str, *ids: str, **fields: Any) -> dict[str, Any]:
    """A document as a replicator brings it: ``ids`` are the hashes of its history, newest first."""
    return {"_id": name, "_rev": f"{len(ids)}-{ids[0]}", "_revisions": {"start": len(ids), "ids": list(ids)}, **fields}


def graft(database: Database, *documents: dict[str, Any]) -> None:
    """Store documents with ``new_edits=false``; CouchDB answers with the failures only."""
    assert database.bulk(list(documents), new_edits=False) == []


def parts(answer: requests.Response) -> list[EmailMessage]:
    """The parts of a multipart answer, read by Python's own MIME parser."""
    head = f"Content-Type: {answer.headers['Content-Type']}\r\n\r\n".encode()
    message = email.message_from_bytes(head + answer.content, policy=email.policy.HTTP)
    assert message.is_multipart(), answer.content[:500]
    found = list(message.iter_parts())
    assert all(isinstance(part, EmailMessage) for part in found)
    return found  # type: ignore[return-value]


def decoded(part: EmailMessage) -> Any:
    """The JSON of a part."""
    return json.loads(part.get_payload(decode=True))  # type: ignore[arg-type]


def related(document: dict[str, Any], *contents: tuple[str, bytes], boundary: str = "frontier") -> dict[str, Any]:
    """The options of a request that carries a document and its attachments as ``multipart/related``."""
    body = f"--{boundary}\r\nContent-Type: application/json\r\n\r\n".encode() + json.dumps(document).encode()
    for name, content in contents:
        body += (
            f'\r\n--{boundary}\r\nContent-Disposition: attachment; filename="{name}"\r\n'
            f"Content-Type: application/octet-stream\r\nContent-Length: {len(content)}\r\n\r\n"
        ).encode() + content
    body += f"\r\n--{boundary}--".encode()
    return {"data": body, "headers": {"Content-Type": f'multipart/related; boundary="{boundary}"'}}


def follows(content: bytes, **more: Any) -> dict[str, Any]:
    """An attachment's entry whose contents come in a part of their own."""
    return {"content_type": "application/octet-stream", "length": len(content), "follows": True, **more}


# Revisions in


def test_a_put_with_new_edits_false_keeps_revision_and_history(database: Database) -> None:
    answer = database.put("/d", params={"new_edits": "false"}, json=revision("d", C, B, A, n=1))
    assert answer.status_code == 201
    assert answer.json()["rev"] == f"3-{C}"
    found = database.get("/d", params={"revs": "true"}).json()
    assert found["_revisions"] == {"start": 3, "ids": [C, B, A]}


def test_a_revision_that_is_known_changes_nothing(database: Database) -> None:
    graft(database, revision("d", B, A, n=1))
    before = database.get().json()["update_seq"]
    graft(database, revision("d", B, A, n=2))
    assert database.get("/d").json()["n"] == 1
    assert database.get().json()["update_seq"].partition("-")[0] == before.partition("-")[0]


def test_a_late_ancestor_makes_no_conflict(database: Database) -> None:
    graft(database, revision("d", C, B, A, n=3))
    graft(database, revision("d", B, A, n=2))
    found = database.get("/d", params={"conflicts": "true"}).json()
    assert found["_rev"] == f"3-{C}"
    assert "_conflicts" not in found


@pytest.mark.parametrize("order", [0, 1])
def test_the_winner_is_the_same_in_whatever_order_the_leaves_come(database: Database, order: int) -> None:
    leaves = [revision("d", B, A, side="b"), revision("d", C, A, side="c")]
    graft(database, *(leaves if order == 0 else leaves[::-1]))
    found = database.get("/d", params={"conflicts": "true"}).json()
    assert found["_rev"] == f"2-{C}"
    assert found["_conflicts"] == [f"2-{B}"]


def test_a_conflict_ends_when_the_losing_leaf_is_deleted(database: Database) -> None:
    graft(database, revision("d", B, A, n=1), revision("d", C, A, n=2))
    assert database.delete("/d", params={"rev": f"2-{B}"}).status_code == 200
    found = database.get("/d", params={"conflicts": "true"}).json()
    assert found["_rev"] == f"2-{C}"
    assert "_conflicts" not in found


def test_a_deleted_winner_gives_way_to_a_living_leaf(database: Database) -> None:
    graft(database, revision("d", B, A, n=1), revision("d", D, C, A, _deleted=True))
    assert database.get("/d").json()["_rev"] == f"2-{B}"


GUARD = """function (doc, old, user) {
  if (doc.bad) throw {forbidden: 'no'};
  if (old && old.last) throw {forbidden: 'over'};
}"""


def test_the_guard_judges_replicated_writes_too(database: Database) -> None:
    database.save({"_id": "_design/guard", "validate_doc_update": GUARD})
    assert eventually(lambda: database.put("/probe", json={"bad": True}).status_code == 403)
    rows = database.bulk([revision("d", A, bad=True), revision("e", A)], new_edits=False)
    assert rows == [{"id": "d", "rev": f"1-{A}", "error": "forbidden", "reason": "no"}]
    answer = database.put("/f", params={"new_edits": "false"}, json=revision("f", A, bad=True))
    assert (answer.status_code, answer.json()) == (403, {"error": "forbidden", "reason": "no"})
    assert database.get("/d").status_code == 404
    assert database.get("/e").status_code == 200


def test_the_guard_sees_the_parent_of_a_replicated_revision_as_the_old_document(database: Database) -> None:
    graft(database, revision("d", A, last=True))
    database.save({"_id": "_design/guard", "validate_doc_update": GUARD})
    assert eventually(lambda: database.put("/probe", json={"bad": True}).status_code == 403)
    rows = database.bulk([revision("d", B, A)], new_edits=False)
    assert [row["reason"] for row in rows] == ["over"]
    graft(database, revision("d", A, last=True))  # it is here already: nothing is written, nothing judged


# Differences


def test_revs_diff_knows_ancestors_and_offers_its_own(database: Database) -> None:
    graft(database, revision("d", C, B, A))
    asked = {"d": [f"1-{A}", f"2-{B}", f"4-{D}"], "e": [f"1-{A}"]}
    found = database.post("/_revs_diff", json=asked).json()
    assert found["d"]["missing"] == [f"4-{D}"]
    assert found["d"]["possible_ancestors"] == [f"3-{C}"]
    assert found["e"] == {"missing": [f"1-{A}"]}


def test_changes_with_all_leaves(database: Database) -> None:
    graft(database, revision("d", B, A), revision("d", C, A), revision("d", D, C, A, _deleted=True))
    rows = database.get("/_changes", params={"style": "all_docs"}).json()["results"]
    assert [sorted(change["rev"] for change in row["changes"]) for row in rows] == [[f"2-{B}", f"3-{D}"]]
    rows = database.get("/_changes").json()["results"]
    assert rows[0]["changes"] == [{"rev": f"2-{B}"}]


# Revisions out, as JSON


def test_open_revs_as_json(database: Database) -> None:
    graft(database, revision("d", B, A, n=1), revision("d", C, A, n=2))
    found = database.get("/d", params={"open_revs": "all", "revs": "true"}).json()
    assert sorted(one["ok"]["_rev"] for one in found) == [f"2-{B}", f"2-{C}"]
    assert all(one["ok"]["_revisions"]["ids"][1] == A for one in found)
    asked = json.dumps([f"2-{B}", f"3-{D}"])
    found = database.get("/d", params={"open_revs": asked}).json()
    assert sorted(next(iter(one)) for one in found) == ["missing", "ok"]
    missing = next(one["missing"] for one in found if "missing" in one)
    assert missing == f"3-{D}"


def test_the_latest_of_an_old_revision(database: Database) -> None:
    graft(database, revision("d", B, A, n=1))
    graft(database, revision("d", C, B, A, n=2))
    found = database.get("/d", params={"open_revs": json.dumps([f"1-{A}"]), "latest": "true"}).json()
    assert [one["ok"]["_rev"] for one in found] == [f"3-{C}"]
    rows = database.post("/_bulk_get", params={"latest": "true", "revs": "true"}, json={
        "docs": [{"id": "d", "rev": f"2-{B}"}]}).json()["results"]  # fmt: skip
    assert rows[0]["docs"][0]["ok"]["_revisions"] == {"start": 3, "ids": [C, B, A]}


def test_bulk_get_gives_conflicting_and_deleted_leaves(database: Database) -> None:
    graft(database, revision("d", B, A, n=1), revision("d", C, A, n=2), revision("e", B, A, _deleted=True))
    asked = [{"id": "d", "rev": f"2-{B}"}, {"id": "d", "rev": f"2-{C}"}, {"id": "e", "rev": f"2-{B}"}]
    rows = database.post("/_bulk_get", params={"revs": "true"}, json={"docs": asked}).json()["results"]
    found = [row["docs"][0]["ok"] for row in rows]
    assert [one.get("n") for one in found] == [1, 2, None]
    assert found[2]["_deleted"] is True


@pytest.fixture
def grown(database: Database) -> Database:
    """A document with one attachment of its first revision and one of its second."""
    old = {"content_type": "application/octet-stream", "data": base64.b64encode(b"old" * 50).decode()}
    first = database.save({"_id": "d", "_attachments": {"old.bin": old}})
    stubs = database.get("/d").json()["_attachments"]
    new = {"content_type": "application/octet-stream", "data": base64.b64encode(b"new" * 50).decode()}
    database.save({"_id": "d", "_rev": first, "_attachments": {**stubs, "new.bin": new}})
    return database


def revs(database: Database) -> list[str]:
    """A document's history, newest first."""
    member = database.get("/d", params={"revs": "true"}).json()["_revisions"]
    return [f"{member['start'] - number}-{name}" for number, name in enumerate(member["ids"])]


def test_atts_since_sends_only_what_is_newer(grown: Database) -> None:
    since = json.dumps([revs(grown)[1]])
    found = grown.get("/d", params={"atts_since": since}).json()["_attachments"]
    assert found["old.bin"]["stub"] is True
    assert base64.b64decode(found["new.bin"]["data"]) == b"new" * 50
    found = grown.get("/d", params={"atts_since": json.dumps([f"1-{D}"])}).json()["_attachments"]
    assert sorted(name for name, entry in found.items() if "data" in entry) == ["new.bin", "old.bin"]
    found = grown.get("/d", params={"open_revs": "all", "atts_since": since}).json()[0]["ok"]["_attachments"]
    assert sorted(name for name, entry in found.items() if "data" in entry) == ["new.bin"]


# Revisions out, as multipart


def test_open_revs_as_multipart(grown: Database) -> None:
    newest, first = revs(grown)
    params = {"open_revs": json.dumps([newest, f"9-{D}"]), "revs": "true", "attachments": "true", "latest": "true"}
    answer = grown.get("/d", params=params, headers={"Accept": "multipart/mixed"})
    assert answer.headers["Content-Type"].startswith("multipart/mixed; boundary=")
    document, missing = sorted(parts(answer), key=lambda part: part.get_content_type(), reverse=True)
    assert missing.get_content_type() == "application/json"
    assert missing.get_param("error") == "true"
    assert decoded(missing) == {"missing": f"9-{D}"}
    assert document.get_content_type() == "multipart/related"
    text, *files = document.iter_parts()
    told = json.loads(text.get_payload(decode=True))
    assert told["_rev"] == newest
    assert told["_revisions"]["ids"][1] == first.partition("-")[2]
    assert all(entry["follows"] is True for entry in told["_attachments"].values())
    contents = {part.get_filename(): part.get_payload(decode=True) for part in files}
    assert contents == {"old.bin": b"old" * 50, "new.bin": b"new" * 50}


def test_multipart_with_atts_since(grown: Database) -> None:
    params = {"open_revs": "all", "revs": "true", "atts_since": json.dumps([revs(grown)[1]])}
    (document,) = parts(grown.get("/d", params=params, headers={"Accept": "multipart/mixed"}))
    text, *files = document.iter_parts()
    told = json.loads(text.get_payload(decode=True))
    assert told["_attachments"]["old.bin"]["stub"] is True
    assert told["_attachments"]["new.bin"]["follows"] is True
    assert [part.get_filename() for part in files] == ["new.bin"]


def test_open_revs_of_documents_without_attachments_as_multipart(database: Database) -> None:
    graft(database, revision("d", B, A, n=1), revision("d", C, A, n=2))
    answer = database.get("/d", params={"open_revs": "all"}, headers={"Accept": "multipart/mixed"})
    found = parts(answer)
    assert [part.get_content_type() for part in found] == ["application/json"] * 2
    assert sorted(decoded(part)["n"] for part in found) == [1, 2]


def test_a_document_with_its_attachments_in_one_answer(grown: Database) -> None:
    answer = grown.get("/d", params={"attachments": "true"}, headers={"Accept": "multipart/related"})
    assert answer.headers["Content-Type"].startswith("multipart/related; boundary=")
    text, *files = parts(answer)
    assert decoded(text)["_id"] == "d"
    assert sorted(str(part.get_payload(decode=True)[:3]) for part in files) == ["b'new'", "b'old'"]  # type: ignore[index]
    assert grown.get("/d", headers={"Accept": "multipart/related"}).json()["_id"] == "d", "asked for no contents"


# Multipart in


def test_put_a_document_with_its_attachments(database: Database) -> None:
    document = {"_id": "d", "n": 1, "_attachments": {"a.bin": follows(BINARY), "b.bin": follows(b"")}}
    answer = database.put("/d", **related(document, ("a.bin", BINARY), ("b.bin", b"")))
    assert answer.status_code == 201, answer.text
    assert database.get("/d").json()["n"] == 1
    assert database.get("/d/a.bin").content == BINARY
    assert database.get("/d/b.bin").content == b""
    assert database.get("/d").json()["_attachments"]["a.bin"]["length"] == len(BINARY)


def test_a_replicated_document_with_attachments_keeps_everything(database: Database) -> None:
    document = revision("d", C, B, A, n=1, _attachments={"a.bin": follows(BINARY, revpos=2)})
    answer = database.put("/d", params={"new_edits": "false"}, **related(document, ("a.bin", BINARY)))
    assert answer.status_code == 201, answer.text
    found = database.get("/d", params={"revs": "true"}).json()
    assert found["_revisions"] == {"start": 3, "ids": [C, B, A]}
    assert found["_attachments"]["a.bin"]["revpos"] == 2


def test_what_replication_brought_can_be_a_stub_later(database: Database) -> None:
    document = revision("d", A, _attachments={"a.bin": follows(BINARY, revpos=1)})
    assert database.put("/d", params={"new_edits": "false"}, **related(document, ("a.bin", BINARY))).ok
    stub = {"a.bin": {"stub": True, "revpos": 1, "content_type": "application/octet-stream"}}
    graft(database, revision("d", B, A, _attachments=stub))
    assert database.get("/d/a.bin").content == BINARY


def test_a_stub_of_nothing_is_refused(database: Database) -> None:
    document = revision("d", A, _attachments={"a.bin": {"stub": True, "revpos": 1}})
    answer = database.put("/d", params={"new_edits": "false"}, json=document)
    assert (answer.status_code, answer.json()["error"]) == (412, "missing_stub")


def test_attachments_that_were_stored_gzipped(database: Database) -> None:
    packed = gzip.compress(b"text " * 1000)
    entry = {"content_type": "text/plain", "encoding": "gzip", "encoded_length": len(packed), "length": 5000,
             "follows": True, "revpos": 1}  # fmt: skip
    document = revision("d", A, _attachments={"a.txt": entry})
    answer = database.put("/d", params={"new_edits": "false"}, **related(document, ("a.txt", packed)))
    assert answer.status_code == 201, answer.text
    assert database.get("/d/a.txt").content == b"text " * 1000


def test_a_multipart_body_that_is_cut_stores_nothing(database: Database) -> None:
    document = {"_id": "d", "_attachments": {"a.bin": follows(BINARY)}}
    options = related(document, ("a.bin", BINARY))
    options["data"] = options["data"][:-400]
    assert database.put("/d", **options).status_code >= 400
    assert database.get("/d").status_code == 404


def test_no_entry_of_a_document_names_a_file_of_the_server(database: Database) -> None:
    for forged in ({"blob": "../../server.json"}, {"blob": {"blob": "../x", "length": 1, "digest": "md5-"}}):
        entry = {"content_type": "text/plain", "length": 10, "digest": "md5-", "revpos": 1, **forged}
        assert database.put("/d", json={"_attachments": {"x": entry}}).status_code >= 400
        assert database.put("/d", **related({"_id": "d", "_attachments": {"x": entry}})).status_code >= 400


# Checkpoints


def test_checkpoints_are_kept_and_are_no_changes(database: Database) -> None:
    log = {"history": [{"session_id": A, "recorded_seq": "1-x"}], "session_id": A, "source_last_seq": "1-x"}
    first = database.put(f"/_local/{B}", json={"_id": f"_local/{B}", **log}).json()["rev"]
    assert database.put(f"/_local/{B}", json={"_id": f"_local/{B}", "_rev": first, **log}).status_code == 201
    assert database.get(f"/_local/{B}").json()["session_id"] == A
    assert database.get("/_changes").json()["results"] == []
    answer = database.post("/_ensure_full_commit", json={})
    assert answer.status_code == 201
    assert answer.json()["ok"] is True
    assert isinstance(answer.json()["instance_start_time"], str)
