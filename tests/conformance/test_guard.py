"""The guard of the run database asked directly over HTTP: every refusal, by PUT, in bulk, and with ``new_edits=false``.

On the embedded server as on CouchDB: the accounts are in ``_users``, the guard is the one that is pushed.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from orchestrator import chain as chains
from orchestrator import designs

CHAIN = chains.loads("""
name: guarded
sites: {here: {}, lyon: {}}
steps:
  - {name: transfer, run: "procs.noop:nothing"}
  - {name: convert, run: "procs.noop:nothing", site: lyon}
""")
DONE = {"state": "done", "attempt": "a1", "result": {"n": 3}}
ACCOUNTS = {
    "here": ["site:here"], "lyon": ["site:lyon"], "operator": ["operator"], "chief": ["admin"],
    "carrier": ["replicator"], "viewer": ["viewer"],
}  # fmt: skip


def doc(name: str, status: str = "closed", **more: Any) -> dict[str, Any]:
    return {"_id": name, "type": CHAIN.type, "status": status, "site": "here", "file": f"/raw/{name}", **more}


def by_put(account: Any, document: dict[str, Any]) -> tuple[int, str]:
    answer = account.put(f"/{quote(document['_id'], safe='')}", json=document)
    return answer.status_code, str(answer.json().get("reason", ""))


def by_bulk(account: Any, document: dict[str, Any]) -> tuple[int, str]:
    [row] = account.post("/_bulk_docs", json={"docs": [document]}).json()
    status = {"forbidden": 403, "unauthorized": 401, "conflict": 409}.get(row.get("error", ""), 201)
    return status, str(row.get("reason", ""))


WAYS: dict[str, Callable[[Any, dict[str, Any]], tuple[int, str]]] = {"PUT": by_put, "bulk": by_bulk}


def forged(document: dict[str, Any], rev: str | None) -> dict[str, Any]:
    """The document as a revision made elsewhere, which follows ``rev``."""
    number, _, parent = (rev or "0-").partition("-")
    fresh = uuid.uuid4().hex
    ids = [fresh, parent] if parent else [fresh]
    start = int(number) + 1
    bare = {key: value for key, value in document.items() if key != "_rev"}
    return {**bare, "_rev": f"{start}-{fresh}", "_revisions": {"start": start, "ids": ids}}


#: What may not be: (what it is called, who tries, the document as it is, as it shall be, a word of the reason).
REFUSALS: list[tuple[str, str, dict[str, Any] | None, dict[str, Any], str]] = [
    ("a viewer writes", "viewer", doc("a"), doc("a", note="x"), "read only"),
    ("a viewer registers", "viewer", None, doc("a"), "read only"),
    ("a site registers another's file", "lyon", None, doc("a"), "is at the site"),
    ("an operator registers", "operator", None, doc("a"), "registrar"),
    ("another site claims", "lyon", doc("a"), doc("a", "proc 0 in progress", proc0={}), "site:here"),
    ("an operator claims", "operator", doc("a"), doc("a", "proc 0 in progress", proc0={}), "daemons"),
    ("another site finishes", "here", doc("a", "proc 1 in progress", proc1={}), doc("a", "good", proc1=DONE), "lyon"),
    ("another site gives up", "here", doc("a", "proc 1 queued", proc1={}), doc("a", "failed", proc1={}), "site:lyon"),
    ("another site releases", "here", doc("a", "proc 1 in progress", proc1={}), doc("a", "good"), "site:lyon"),
    ("another site's result is changed", "here", doc("a", "good", proc1=DONE), doc("a", "good", proc1={}), "lyon"),
    ("another site's result is removed", "here", doc("a", "good", proc1=DONE), doc("a", "good"), "site:lyon"),
    ("another site's result is made up", "here", doc("a", "good"), doc("a", "good", proc1=DONE), "site:lyon"),
    ("an operator makes a result up", "operator", doc("a"), doc("a", proc0=DONE), "cannot say"),
    ("a daemon marks bad", "here", doc("a"), doc("a", "bad"), "operator or admin"),
    ("a daemon retries", "here", doc("a", "failed"), doc("a", "good"), "operator or admin"),
    ("a daemon lifts a hold", "here", doc("a", hold={"by": "x"}), doc("a"), "'hold'"),
    ("a daemon signs for a person", "here", doc("a"), doc("a", operation={"by": "x"}), "'operation'"),
    ("a daemon forces", "here", doc("a", "bad"),
     doc("a", "good", forced={"by": "x", "why": "x", "at": "x"}), "operator or admin"),
    ("an operator forces", "operator", doc("a"), doc("a", forced={"by": "x", "why": "x", "at": "x"}), "admins"),
    ("a leap", "chief", doc("a"), doc("a", "proc 0 oddly"), "none that is known"),
    ("an illegal transition", "chief", doc("a", "bad"), doc("a", "proc 0 in progress"), "cannot go"),
    ("another file", "chief", doc("a"), doc("a", file="/else"), "'file' says"),
    ("another site", "operator", doc("a"), doc("a", site="lyon"), "'site' says"),
    ("another type", "chief", doc("a"), {"_id": "a", "type": "attempt"}, "cannot change"),
    ("no type", "chief", None, {"_id": "a"}, "needs a type"),
    ("an entry that is none", "here", doc("a"), doc("a", proc0=[1]), "must be an object"),
    ("a daemon deletes", "here", doc("a"), {"_id": "a", "_deleted": True}, "delete"),
    ("an operator deletes", "operator", doc("a"), {"_id": "a", "_deleted": True}, "delete"),
    ("another site's attempt", "here", None, {"_id": "attempt:a", "type": "attempt", "step": "proc1"}, "site:lyon"),
    ("an attempt is changed", "here", {"_id": "attempt:a", "type": "attempt", "step": "proc0"},
     {"_id": "attempt:a", "type": "attempt", "step": "proc0", "reason": "another"}, "to change"),
    ("a daemon pauses", "here", None, {"_id": "control:here", "type": "control", "site": "here"}, "operator"),
    ("a daemon writes an operation", "here", None,
     {"_id": "operation:a", "type": "operation", "site": "here"}, "operator"),
    ("a file's name is taken", "here", None, {"_id": "a", "type": "attempt", "step": "proc0"}, "begins with"),
    ("another site's control document is taken", "here", None,
     {"_id": "control:lyon", "type": "attempt", "step": "proc0"}, "begins with"),
    ("a file is named as a record", "here", None, {**doc("a"), "_id": "operation:a"}, "for documents of that type"),
    ("an operation by nobody", "operator", None, {"_id": "operation:a", "type": "operation"}, "not signed"),
    ("a pause in another's name", "operator", None,
     {"_id": "control:here", "type": "control", "stops": {"site": {"by": "bob"}}}, "signed by you"),
    ("a type of nobody's", "operator", None, {"_id": "a", "type": "note"}, "admin"),
]  # fmt: skip


@pytest.mark.parametrize(("who", "old", "new", "word"), [row[1:] for row in REFUSALS], ids=[row[0] for row in REFUSALS])
def test_refused(guarded: Any, accounts: Any, who: str, old: Any, new: Any, word: str) -> None:
    """What may not be is refused whichever way it comes, with the reason, and nothing of it is stored."""
    if old is not None:
        force = {"forced": {"by": "test", "why": "a beginning", "at": "0"}} if old["type"] == CHAIN.type else {}
        rev = guarded.save({**old, **force})
        old = {**old, **force}
        new = {**force, **new} if new.get("type") == CHAIN.type else new
    else:
        rev = None
    account = guarded.as_user(accounts[who])
    for way, write in WAYS.items():
        status, reason = write(account, {**new, **({"_rev": rev} if rev else {})})
        assert (status, word in reason) == (403, True), (way, status, reason)
    answer = account.post("/_bulk_docs", json={"docs": [forged(new, rev)], "new_edits": False})
    assert [row["error"] for row in answer.json()] == ["forbidden"], answer.text
    assert "new_edits=false" in answer.json()[0]["reason"]
    found = guarded.get("/" + quote(new["_id"], safe=""), params={"conflicts": "true"})
    if old is None:
        assert found.status_code == 404
    else:
        assert found.json() == {**old, "_rev": rev}


def test_nobody_and_strangers_do_not_even_read(guarded: Any, anybody: Any, user: tuple[str, str]) -> None:
    guarded.save(doc("a"))
    for account, statuses in ((guarded.as_user(None), (401,)), (guarded.as_user(user), (403,))):
        assert account.get("/a").status_code in statuses
        assert account.put("/b", json=doc("b")).status_code in statuses
        for new_edits in (True, False):
            sent = {"docs": [forged(doc("b"), None) if not new_edits else doc("b")], "new_edits": new_edits}
            assert account.post("/_bulk_docs", json=sent).status_code in statuses
    assert anybody.get(f"/{guarded.name}/a").status_code == 401
    assert guarded.get("/b").status_code == 404


def test_a_whole_life_by_those_whose_it_is(guarded: Any, accounts: Any) -> None:
    """What each may do passes, and each with nothing but its own role."""
    here, lyon, operator = (guarded.as_user(accounts[name]) for name in ("here", "lyon", "operator"))
    life: list[tuple[Any, dict[str, Any]]] = [
        (here, doc("a", "open")),
        (here, doc("a", "closed", size=5)),
        (here, doc("a", "proc 0 in progress", size=5, proc0={"state": "in progress"})),
        (here, doc("a", "good", size=5, proc0=DONE)),
        (operator, doc("a", "good", size=5, proc0=DONE, hold={"by": "ann"})),
        (operator, doc("a", "good", size=5, proc0=DONE)),
        (lyon, doc("a", "proc 1 queued", size=5, proc0=DONE, proc1={})),
        (lyon, doc("a", "proc 1 in progress", size=5, proc0=DONE, proc1={})),
        (lyon, doc("a", "failed", size=5, proc0=DONE, proc1={"state": "failed"})),
        (operator, doc("a", "good", size=5, proc0=DONE, retry={"by": "ann"})),
        (lyon, doc("a", "proc 1 in progress", size=5, proc0=DONE, proc1={})),
        (operator, doc("a", "bad", size=5, proc0=DONE)),
        (operator, doc("a", "good", size=5, proc0=DONE)),
    ]
    rev = None
    for number, (account, document) in enumerate(life):
        answer = account.put("/a", json={**document, **({"_rev": rev} if rev else {})})
        assert answer.status_code == 201, (number, answer.text)
        rev = answer.json()["rev"]
    for account, record in (
        (lyon, {"_id": "attempt:x", "type": "attempt", "step": "proc1"}),
        (operator, {"_id": "operation:y", "type": "operation", "by": accounts["operator"][0]}),
        (operator, {"_id": "control:z", "type": "control"}),
    ):  # fmt: skip
        assert account.put(f"/{record['_id']}", json=record).status_code == 201
    assert guarded.as_user(accounts["chief"]).delete("/a", params={"rev": rev}).status_code == 200


def test_a_replicator_brings_what_was_made_elsewhere(guarded: Any, accounts: Any) -> None:
    carrier = guarded.as_user(accounts["carrier"])
    rev = guarded.save(doc("a"))
    far = forged(doc("a", "good", proc0=DONE, proc1=DONE), rev)  # many transitions on, of two sites
    new = forged(doc("b", "failed", proc0={"state": "failed"}), None)
    answer = carrier.post("/_bulk_docs", json={"docs": [far, new], "new_edits": False})
    assert answer.status_code == 201 and answer.json() == [], answer.text
    assert guarded.get("/a").json()["status"] == "good" and guarded.get("/b").json()["status"] == "failed"
    gone = forged({"_id": "a", "_deleted": True}, far["_rev"])
    assert carrier.post("/_bulk_docs", json={"docs": [gone], "new_edits": False}).json() == []
    assert guarded.get("/a").status_code == 404
    broken = [forged(doc("c", "oddly"), None), forged({"_id": "d"}, None)]
    answer = carrier.post("/_bulk_docs", json={"docs": broken, "new_edits": False})
    assert [row["error"] for row in answer.json()] == ["forbidden", "forbidden"]
    design = {"_id": "_design/guard", "validate_doc_update": "function () {}"}
    assert carrier.put("/_design/guard", json=design).status_code in (401, 403, 409)
    assert carrier.put("/_design/more", json={**design, "_id": "_design/more"}).status_code in (401, 403)
    assert carrier.put("/_security", json={}).status_code in (401, 403)


def test_replication_needs_a_reader_there_and_a_replicator_here(server: Any, guarded: Any, accounts: Any) -> None:
    """The account that reaches the other site's database may only read it; the one that writes never leaves home."""
    there = type(guarded)(server, f"conformance-{uuid.uuid4().hex}")
    assert there.put().status_code in (201, 202)
    try:
        security = guarded.get("/_security").json()
        assert there.put("/_security", json=security).status_code == 200
        there.save(designs.build(CHAIN)["_design/guard"])
        rev = guarded.save(doc("a"))
        there.post("/_bulk_docs", json={"docs": [{**doc("a"), **_history(rev)}], "new_edits": False})
        for status, more in (("proc 0 in progress", {"proc0": {}}), ("good", {"proc0": DONE})):
            rev = there.save({**doc("a", status, **more), "_rev": rev})
        there.save(doc("b", "open"))

        def replicate(reader: str, writer: str) -> Any:
            ends = {"source": (there, reader), "target": (guarded, writer)}
            body = {
                end: {
                    "url": base.url,
                    "auth": {"basic": dict(zip(("username", "password"), accounts[who], strict=True))},
                }
                for end, (base, who) in ends.items()
            }
            selector = {"selector": {"type": {"$gt": None}}}  # all but design documents, which are pushed
            return server.post("/_replicate", json={**body, **selector})

        answer = replicate("viewer", "carrier")
        assert answer.status_code == 200, answer.text
        assert guarded.get("/a").json()["_rev"] == rev and guarded.get("/b").json()["status"] == "open"
        assert guarded.get("/a").json()["proc0"] == DONE
        there.save(doc("c"))
        refused = replicate("viewer", "here")
        assert refused.status_code != 200 or refused.json()["history"][0]["doc_write_failures"] >= 1, refused.text
        assert guarded.get("/c").status_code == 404
    finally:
        there.delete()


def _history(rev: str) -> dict[str, Any]:
    number, _, name = rev.partition("-")
    return {"_rev": rev, "_revisions": {"start": int(number), "ids": [name]}}


@pytest.mark.parametrize("who", ["here", "operator", "carrier", "viewer"])
def test_the_guard_is_not_theirs_to_change(guarded: Any, accounts: Any, who: str) -> None:
    account = guarded.as_user(accounts[who])
    design = guarded.get("/_design/guard").json()
    open_to_all = {**design, "validate_doc_update": "function () {}"}
    assert account.put("/_design/guard", json=open_to_all).status_code in (401, 403)
    assert account.delete("/_design/guard", params={"rev": design["_rev"]}).status_code in (401, 403)
    assert account.put("/_security", json={}).status_code in (401, 403)
    assert guarded.as_user(accounts["chief"]).put("/_design/guard", json=design).status_code == 201


def test_an_account_s_roles_are_not_its_own_to_change(server: Any, accounts: Any) -> None:
    name = accounts["operator"][0]
    path = f"/_users/org.couchdb.user:{name}"
    own = {"auth": accounts["operator"]}
    found = server.get(path).json()
    answer = server.put(path, json={**found, "roles": ["operator", "admin"]}, **own)
    assert answer.status_code in (401, 403), answer.text
    assert server.get(path).json()["roles"] == ["operator"]
