"""Conflicts in two real databases: both sites settle the same one, and replication finds nothing new in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator import chain as chains
from orchestrator import designs, documents, settling
from orchestrator.couch import Credentials, Database, Server, deploy
from orchestrator.couch.branch import BranchDatabase
from orchestrator.documents import Claimant, Report
from orchestrator.embedded.testing import EmbeddedServer
from orchestrator.replicating import REFUSED, Sites
from orchestrator.replication import PULL, PUSH
from orchestrator.settings import Settings

CHAIN = chains.loads("name: x\nsteps: [{name: s, run: 'm:f'}, {name: t, run: 'm:f', needs: []}]")
BASE = {"_id": "d", "type": "daqdocument", "file": "/raw/d"}
DONE = {"state": "done", "attempt": "a", "number": 1}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path_factory.mktemp("settling")) as made:
        yield made


@pytest.fixture
def sites(server: EmbeddedServer) -> Iterator[tuple[Database, Database]]:
    """Two databases of one server."""
    couch = Server(server.url, Credentials(*server.credentials))
    for name in ("here", "there"):
        couch.create(name)
        deploy.push(couch.database(name), designs.build(CHAIN))
    yield couch.database("here"), couch.database("there")
    for name in ("here", "there"):
        couch.delete(name)


def replicate(server: EmbeddedServer, source: Database, target: Database) -> dict[str, Any]:
    """Replicate once; the counts."""
    login = {"basic": {"username": server.auth[0], "password": server.auth[1]}}
    ends = {
        name: {"url": f"{server.url}/{one.name}", "auth": login}
        for name, one in (("source", source), ("target", target))
    }
    said = source.connection.json("POST", ("_replicate",), subject=source.subject, body=ends)
    return dict(said["history"][0], no_changes=said.get("no_changes", False))


def test_both_sites_settle_it_and_nothing_is_left_to_replicate(
    server: EmbeddedServer, sites: tuple[Database, Database]
) -> None:
    here, there = sites
    here.put({**BASE, "status": "good", "proc0": DONE})
    there.put({"proc1": {**DONE, "attempt": "b"}, "status": "good", **BASE})
    replicate(server, here, there)
    replicate(server, there, here)
    assert [settling.count(one) for one in sites] == [1, 1]
    for one in sites:
        (outcome,) = settling.settle(one, CHAIN)
        assert outcome.kind == settling.MERGED, outcome
    found = [one.get("d", revs=True, conflicts=True) for one in sites]
    assert found[0] == found[1]
    assert "_conflicts" not in found[0]
    assert {"proc0", "proc1"} <= found[0].keys()
    assert replicate(server, here, there)["docs_written"] == 0
    assert replicate(server, there, here)["docs_written"] == 0
    assert [settling.count(one) for one in sites] == [0, 0]
    assert settling.settle(here, CHAIN) == []


LANED = chains.loads(
    """
name: x
sites: {daq: {}, centre: {}}
steps: [{name: s, run: 'm:f', site: centre}, {name: t, run: 'm:f', site: centre}]
lanes: {archive: {steps: [{name: tape, run: 'm:f', site: daq, needs: []}, {name: verify, run: 'm:f', site: daq}]}}
"""
)


def test_two_servers_at_work_in_two_lanes_need_no_person(server: EmbeddedServer, tmp_path: Path) -> None:
    """Conflicts made on purpose: each site goes on in its own lane while the link is cut."""
    with EmbeddedServer(tmp_path) as second:
        ends: list[tuple[EmbeddedServer, Database]] = []
        for one in (server, second):
            couch = Server(one.url, Credentials(*one.credentials))
            couch.create("laned")
            deploy.push(couch.database("laned"), designs.build(LANED))
            ends.append((one, couch.database("laned")))
        names = [f"d{number}" for number in range(6)]
        ends[0][1].bulk([{**BASE, "_id": name, "status": "closed", "file": f"/raw/{name}"} for name in names])
        exchange(ends)

        def work(database: Database, lane: str, site: str, name: str, moves: int) -> None:
            chain = LANED.of(lane)
            seen: Database = BranchDatabase(database, chain.branch, LANED.type) if lane else database
            for number in range(moves):
                document = seen.get(name)
                held = documents.holder(document)
                if held is None:
                    step = documents.ready_step(chain, document)
                    assert step is not None
                    claimant = Claimant("p", site, 1, site)
                    seen.put(documents.claim(document, step, claimant, f"{site}-{name}-{number}", 1e9 + number))
                else:
                    report = Report(name, held[0], held[1]["attempt"], 1e9, 1e9 + number)
                    seen.put(documents.finish(document, chain.step(held[0]), report, 1e9 + number))

        for number, name in enumerate(names):  # 1 to 3 moves each, so that some are at work when the link comes back
            work(ends[0][1], "archive", "daq", name, 1 + number % 3)
            work(ends[1][1], "", "centre", name, 1 + number // 2)
        exchange(ends)
        assert [settling.count(database) for _, database in ends] == [len(names)] * 2
        for _, database in ends:
            assert {outcome.kind for outcome in settling.settle(database, LANED)} == {settling.MERGED}
        found = [[database.get(name, revs=True, conflicts=True) for name in names] for _, database in ends]
        assert found[0] == found[1]
        exchange(ends)
        for number, name in enumerate(names):
            work(ends[0][1], "archive", "daq", name, 3 - number % 3)
            work(ends[1][1], "", "centre", name, 3 - number // 2)
            exchange(ends)
            settling.settle(ends[number % 2][1], LANED)
        exchange(ends)
        for _, database in ends:
            for name in names:
                document = database.get(name, conflicts=True)
                assert "_conflicts" not in document
                assert (document["status"], document["archive_status"]) == ("good", "good")
                for key in ("proc0", "proc1", "archive_proc0", "archive_proc1"):
                    assert document[key]["state"] == "done"


def exchange(ends: list[tuple[EmbeddedServer, Database]]) -> None:
    """Replicate both ways, once."""
    for source, target in (ends, ends[::-1]):
        sides = {
            name: {"url": f"{one.url}/{database.name}", "auth": {"basic": dict(
                zip(("username", "password"), one.auth, strict=True))}}
            for name, (one, database) in (("source", source), ("target", target))
        }  # fmt: skip
        database = ends[0][1]
        database.connection.json("POST", ("_replicate",), subject=database.subject, body=sides)


def test_what_is_for_a_person_is_read_again_only_when_it_changes(sites: tuple[Database, Database]) -> None:
    here, _ = sites
    docs = [{**BASE, "status": "closed", "size": n, "_rev": f"1-{n:032d}"} for n in (1, 2)]
    settling.bring(here, docs)
    known: settling.Known = {}
    first = settling.settle(here, CHAIN, known=known)
    assert [outcome.kind for outcome in first] == [settling.PERSON]
    known["d"] = (known["d"][0], first[0].__class__("d", "daqdocument", settling.PERSON, "remembered", ()))
    assert [outcome.reason for outcome in settling.settle(here, CHAIN, known=known)] == ["remembered"]
    settling.bring(here, [{**docs[1], "size": 3, "_rev": f"1-{3:032d}"}])
    (again,) = settling.settle(here, CHAIN, known=known)
    assert len(again.versions) == 3
    gone = settling.take(here, "d", f"1-{1:032d}", "joe", "2026-01-22T11:00:00.000Z", "the disk says so")
    assert len(gone) == 2
    assert here.get("d")["size"] == 1
    assert settling.settle(here, CHAIN, known=known) == []
    assert known == {}
    assert here.get("d", rev=_child(here, gone[0]))["resolved"]["by"] == "joe"


def _child(database: Database, rev: str) -> str:
    """The deletion on top of a revision."""
    found: Any = database.get("d", open_revs="all", revs=True)
    return next(
        str(one["ok"]["_rev"]) for one in found
        if one["ok"].get("_deleted") and one["ok"]["_revisions"]["ids"][1] == rev.partition("-")[2]
    )  # fmt: skip


def test_a_refused_login_at_the_other_site_is_not_asked_again_and_again(server: EmbeddedServer, tmp_path: Path) -> None:
    (tmp_path / "there.json").write_text('{"username": "nobody", "password": "sesame-open"}')
    (tmp_path / "there.json").chmod(0o600)
    there = {"url": server.url, "database": "there", "credentials": "there.json"}
    here = {"url": server.url, "credentials": str(server.credentials_file), "database": "here"}
    settings = Settings.load(tmp_path, {}, {**here, "replicate": {"there": there}})
    now = [0.0]
    Server(server.url, Credentials(*server.credentials)).create("here")
    sites = Sites(settings, {}, monotonic=lambda: now[0])
    asked: list[str] = []
    plainly = sites._remote
    sites._remote = lambda name: (asked.append(name), plainly(name))[1]  # type: ignore[method-assign, func-returns-value]
    states = [state for _ in range(3) for state, _ in sites.states()]
    assert [state.link.direction for state in states[:2]] == [PUSH, PULL]
    assert not any(state.reachable for state in states)
    assert "sesame" not in "".join(state.reason for state in states)
    assert asked == ["there"]
    now[0] = REFUSED + 1
    sites.states()
    assert asked == ["there", "there"]
