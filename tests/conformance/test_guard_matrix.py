"""Every cell of the table of transitions tried over HTTP by every role, and every refusal by every way to write.

What each may do is worked out from ``orchestrator.transitions`` alone: a row that is changed there is tried here. On
the embedded server as on CouchDB.
"""

from __future__ import annotations

import itertools
import uuid
from typing import Any

import pytest

from orchestrator import chain as chains
from orchestrator import transitions
from orchestrator.transitions import HELD, TRANSITIONS, Kind

CHAIN = chains.loads("""
name: guarded
sites: {here: {}, lyon: {}}
steps:
  - {name: transfer, run: "procs.noop:nothing"}
  - {name: convert, run: "procs.noop:nothing", site: lyon}
  - {name: show, run: "procs.noop:nothing"}
""")
ACCOUNTS = {
    "here": ["site:here"], "lyon": ["site:lyon"], "operator": ["operator"], "viewer": ["viewer"],
    "both": ["site:here", "operator"],
}  # fmt: skip
STATUSES = [
    *(kind.value for kind in Kind if transitions.parse(kind.value)),
    *(f"proc {step.number} {kind.value}" for step in CHAIN.steps for kind in sorted(HELD)),
]
CELLS = [(before, after) for before, after in itertools.product([None, *STATUSES], STATUSES) if before != after]
FORCED = {"by": "test", "why": "a beginning", "at": "0"}
GUARD = "_design/guard"


def permitted(before: str | None, after: str, granted: list[str]) -> bool:
    """Whether the table lets an account with these roles make the step."""
    old, new = transitions.parse(before), transitions.parse(after)
    assert new is not None
    kind = Kind.NEW if old is None else old.kind
    numbers = {status.step for status in (old, new) if status is not None and status.step is not None}
    sites = {CHAIN.steps[number].site for number in numbers} or {"here"}
    for one in TRANSITIONS:
        if kind not in one.before or one.after is not new.kind:
            continue
        moves = old is not None and old.step is not None and new.step is not None
        if moves and not {"same": new.step == old.step, "later": new.step > old.step}.get(one.step, True):  # type: ignore
            continue
        if one.by == "person":
            if "operator" in granted and old is not None:
                return True
        elif all(f"site:{site}" in granted for site in sites):
            return True
    return False


def document(name: str, status: str) -> dict[str, Any]:
    return {
        "_id": name, "type": CHAIN.type, "status": status, "site": "here", "file": "/raw/one", "forced": FORCED
    }  # fmt: skip


def prepared(guarded: Any) -> dict[tuple[str | None, str], dict[str, Any]]:
    """A document for each cell, in the state before; what is to be written of it, with the revision it follows."""
    names = {cell: f"c{number:03d}" for number, cell in enumerate(CELLS)}
    there = [document(names[cell], cell[0]) for cell in CELLS if cell[0] is not None]
    revs = {row["id"]: row["rev"] for row in guarded.bulk(there)}
    assert len(revs) == len(there)
    wanted = {}
    for before, after in CELLS:
        made = document(names[before, after], after)
        if before is None:
            del made["forced"]  # who registers a file forces nothing
        else:
            made["_rev"] = revs[made["_id"]]
        wanted[before, after] = made
    return wanted


def everything(guarded: Any) -> dict[str, dict[str, Any]]:
    rows = guarded.get("/_all_docs", params={"include_docs": "true", "conflicts": "true"}).json()["rows"]
    return {row["id"]: row["doc"] for row in rows}


@pytest.mark.parametrize("who", ACCOUNTS)
def test_one_bulk_of_all_cells_stores_what_the_table_has_and_nothing_else(
    guarded: Any, accounts: Any, who: str
) -> None:
    wanted, before = prepared(guarded), everything(guarded)
    rows = guarded.as_user(accounts[who]).post("/_bulk_docs", json={"docs": list(wanted.values())}).json()
    now = everything(guarded)
    passed = 0
    for (cell, made), row in zip(wanted.items(), rows, strict=True):
        assert row["id"] == made["_id"]
        if permitted(*cell, ACCOUNTS[who]):
            assert "rev" in row, (cell, row)
            assert now[made["_id"]]["status"] == cell[1]
            passed += 1
        else:
            assert (row["error"], bool(row["reason"])) == ("forbidden", True), (cell, row)
            assert now.get(made["_id"]) == before.get(made["_id"]), cell
    assert passed or who == "viewer"


def forged(made: dict[str, Any]) -> dict[str, Any]:
    """The same as a revision made elsewhere."""
    number, _, parent = made.get("_rev", "0-").partition("-")
    fresh = uuid.uuid4().hex
    start, ids = int(number) + 1, [fresh, parent] if parent else [fresh]
    return {**made, "_rev": f"{start}-{fresh}", "_revisions": {"start": start, "ids": ids}}


@pytest.mark.parametrize("who", ACCOUNTS)
def test_what_is_refused_is_refused_by_every_way_to_write(guarded: Any, accounts: Any, who: str) -> None:
    wanted = {cell: made for cell, made in prepared(guarded).items() if not permitted(*cell, ACCOUNTS[who])}
    for after in STATUSES:
        guarded.save(document(f"z-{after}", after))  # to be copied over others
    before = everything(guarded)
    account = guarded.as_user(accounts[who])
    for made in wanted.values():
        path, rev = f"/{made['_id']}", made.get("_rev")
        named = {"rev": rev} if rev else {}
        elsewhere = forged(made)
        source = f"/z-{made['status']}"
        answers = {
            "PUT": account.put(path, json=made),
            "PUT new_edits=false": account.put(path, json=elsewhere, params={"new_edits": "false"}),
            "POST": account.post("", json=made),
            "COPY": account.request(
                "COPY", source, headers={"Destination": made["_id"] + (f"?rev={rev}" if rev else "")}
            ),
        }  # fmt: skip
        if rev:
            answers["DELETE"] = account.delete(path, params=named)
        for way, answer in answers.items():
            assert answer.status_code == 403, (way, made, answer.text)
            assert answer.json()["error"] == "forbidden"
    for docs, new_edits in (
        ([forged(made) for made in wanted.values()], False),
        ([{"_id": made["_id"], "_rev": made["_rev"], "_deleted": True} for made in wanted.values() if "_rev" in made],
         True),
    ):  # fmt: skip
        rows = account.post("/_bulk_docs", json={"docs": docs, "new_edits": new_edits}).json()
        assert len(rows) == len(docs)
        assert {row["error"] for row in rows} == {"forbidden"}
    assert everything(guarded) == before


@pytest.mark.parametrize("who", [*ACCOUNTS, "stranger", "nobody"])
def test_what_is_beside_documents_is_for_admins(
    guarded: Any, accounts: Any, user: tuple[str, str], who: str
) -> None:
    auth = {"stranger": user, "nobody": None}.get(who) if who in ("stranger", "nobody") else accounts[who]
    account = guarded.as_user(auth)
    guarded.save(document("a", "closed"))
    guard, security = guarded.get(f"/{GUARD}").json(), guarded.get("/_security").json()
    limit = guarded.get("/_revs_limit").json()
    before = everything(guarded)
    harmless = {**guard, "validate_doc_update": "function () {}"}
    for way, answer in {
        "PUT the guard": account.put(f"/{GUARD}", json=harmless),
        "PUT the guard, new_edits=false": account.put(
            f"/{GUARD}", json=forged(harmless), params={"new_edits": "false"}
        ),
        "DELETE the guard": account.delete(f"/{GUARD}", params={"rev": guard["_rev"]}),
        "COPY over the guard": account.request(
            "COPY", "/a", headers={"Destination": f"{GUARD}?rev={guard['_rev']}"}
        ),
        "PUT another design": account.put("/_design/more", json={"validate_doc_update": "function () {}"}),
        "attach to the guard": account.put(
            f"/{GUARD}/x", data=b"x", params={"rev": guard["_rev"]}, headers={"Content-Type": "text/plain"}
        ),
        "PUT _security": account.put("/_security", json={}),
        "PUT _revs_limit": account.put("/_revs_limit", json=1),
        "POST _purge": account.post("/_purge", json={"a": [before["a"]["_rev"]]}),
        "POST _compact": account.post("/_compact", json={}),
        "POST _view_cleanup": account.post("/_view_cleanup", json={}),
        "DELETE the database": account.delete(""),
    }.items():  # fmt: skip
        # 405, 501: what a server does not have at all
        assert answer.status_code in (401, 403, 405, 501), (way, answer.status_code, answer.text)
    for new_edits, design in ((True, harmless), (False, forged(harmless))):
        answer = account.post("/_bulk_docs", json={"docs": [design], "new_edits": new_edits})
        refused = answer.status_code in (401, 403) or answer.json()[0].get("error") in ("forbidden", "unauthorized")
        assert refused, answer.text
    assert guarded.get("/_security").json() == security
    assert guarded.get("/_revs_limit").json() == limit
    assert everything(guarded) == before


@pytest.mark.parametrize("who", ["viewer", "stranger", "nobody"])
def test_who_only_reads_attaches_nothing_and_removes_nothing(
    guarded: Any, accounts: Any, user: tuple[str, str], who: str
) -> None:
    auth = {"stranger": user, "nobody": None}.get(who) if who in ("stranger", "nobody") else accounts[who]
    account = guarded.as_user(auth)
    rev = guarded.save({
        **document("a", "closed"),
        "_attachments": {"log": {"content_type": "text/plain", "data": "eA=="}},
    })  # fmt: skip
    before = everything(guarded)
    text = {"Content-Type": "text/plain"}
    boundary = "b0undary"
    related = (
        f'--{boundary}\r\nContent-Type: application/json\r\n\r\n{{"_id": "b", "type": "daqdocument", '
        f'"status": "closed", "site": "here", "file": "/b", "_attachments": {{"x": {{"follows": true, '
        f'"content_type": "text/plain", "length": 1}}}}}}\r\n--{boundary}\r\n\r\nx\r\n--{boundary}--'
    )
    for way, answer in {
        "attach": account.put("/a/more", data=b"x", params={"rev": rev}, headers=text),
        "attach to nothing": account.put("/b/more", data=b"x", headers=text),
        "replace": account.put("/a/log", data=b"y", params={"rev": rev}, headers=text),
        "remove": account.delete("/a/log", params={"rev": rev}),
        "multipart": account.put(
            "/b", data=related.encode(), headers={"Content-Type": f'multipart/related; boundary="{boundary}"'}
        ),
        "batch": account.post("", json=document("b", "closed"), params={"batch": "ok"}),
    }.items():  # fmt: skip
        if way == "batch" and answer.status_code == 202:
            continue  # taken, and judged later: that nothing comes of it is seen below
        assert answer.status_code in (401, 403), (way, answer.status_code, answer.text)
    assert everything(guarded) == before


@pytest.mark.parametrize("who", ["stranger", "nobody"])
def test_who_is_no_member_writes_no_local_documents_either(
    guarded: Any, user: tuple[str, str], who: str
) -> None:
    account = guarded.as_user(user if who == "stranger" else None)
    assert account.put("/_local/poller:x", json={"beat": 1}).status_code in (401, 403)
    assert account.get("/_local/poller:x").status_code in (401, 403)
    assert account.post("/_bulk_docs", json={"docs": [{"_id": "_local/y"}]}).status_code in (401, 403)
