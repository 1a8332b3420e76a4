"""Who works and how far: heartbeats, whatever the clocks say, and what runs now."""

from __future__ import annotations

from typing import Any

import page_double
import page_sample as sample
import pytest
from fastapi.testclient import TestClient

from orchestrator import designs
from orchestrator.chain import loads
from orchestrator.web import deployed
from orchestrator.web.pollers import LEASE_SECONDS, SILENT, Pollers

NOW = sample.NOON


class Beats:
    """A database of heartbeats."""

    def __init__(self, *beats: dict[str, Any]) -> None:
        self.beats = list(beats)

    def local_docs(self, startkey: str, endkey: str, /) -> list[dict[str, Any]]:
        return self.beats


def beat(count: int, at: float, **more: Any) -> dict[str, Any]:
    return {"id": "p1", "at": sample.iso(at), "beat": count, "started": sample.iso(NOW - 9000)} | more


def alive(pollers: Pollers, database: Beats, now: float) -> bool:
    return bool(pollers.beats(database, now)[0]["alive"])  # type: ignore[arg-type]


@pytest.mark.parametrize(("lease", "patience"), [(None, 60), (10, 10), (600, 600), (0, 60), ("x", 60), (True, 60)])
def test_silence_is_measured_by_the_lease_that_the_heartbeat_names(lease: object, patience: float) -> None:
    database = Beats(beat(1, NOW, lease=lease))
    assert alive(Pollers(), database, NOW + patience - 1)
    assert not alive(Pollers(), database, NOW + patience)


def test_a_poller_whose_clock_is_wrong_is_judged_by_its_counter() -> None:
    for wrong in (-3600.0, 3600.0):
        pollers = Pollers()
        database = Beats(beat(1, NOW + wrong))
        assert alive(pollers, database, NOW) is (wrong > 0)  # at first sight there is nothing else to go by
        database.beats = [beat(2, NOW + wrong + 10)]
        assert alive(pollers, database, NOW + 10)
        assert alive(pollers, database, NOW + LEASE_SECONDS - 1)
        assert not alive(pollers, database, NOW + 10 + LEASE_SECONDS)  # the counter stands still
    pollers = Pollers()
    assert not alive(pollers, Beats(beat(1, NOW - 900)), NOW)
    assert not alive(pollers, Beats(beat(5, NOW + 100)), NOW + 500)  # moved while nobody looked, and died since


def test_of_pollers_that_were_killed_the_last_are_listed() -> None:
    dead = [beat(1, NOW - 1000 - n) | {"id": f"dead{n}"} for n in range(40)]
    listed = Pollers().beats(Beats(*dead, beat(1, NOW)), NOW)  # type: ignore[arg-type]
    assert [p["id"] for p in listed] == ["p1", *(f"dead{n}" for n in range(SILENT))]


@pytest.fixture
def running(database: page_double.Double) -> page_double.Double:
    said = {"document": "ma22b001_004", "step": "proc2", "attempt": "b" * 32, "fraction": 0.42, "text": "event 42 <b>"}
    database.local["_local/poller:node2-4711"] = beat(3, NOW - 2, running=[said], host="node2") | {"id": "node2-4711"}
    return database


def test_what_runs_now_is_on_the_overview_and_on_the_documents_page(
    client: TestClient, running: page_double.Double
) -> None:
    shown = client.get("/api/overview").json()["running"]
    assert shown["total"] == 1
    row = shown["shown"][0]
    assert (row["document"], row["name"], row["fraction"], row["host"]) == ("ma22b001_004", "analyse", 0.42, "node2")
    assert row["since"] == sample.iso(NOW - 42)
    for path in ("/", "/documents/ma22b001_004"):
        text = client.get(path).text
        assert 'aria-label="42 % done"' in text and "event 42 &lt;b&gt;" in text and "data-lively" in text
    assert "data-lively" not in client.get("/documents/ma22b001_003").text


def test_what_runs_at_a_silent_poller_is_said(client: TestClient, running: page_double.Double) -> None:
    running.local["_local/poller:node2-4711"]["at"] = sample.iso(NOW - 100)
    assert client.get("/api/overview").json()["running"]["shown"][0]["alive"] is False
    assert "its poller is silent" in client.get("/").text
    assert client.get("/api/documents/ma22b001_004").json()["steps"][2]["progress"] is None


def test_progress_of_another_attempt_is_not_shown(client: TestClient, running: page_double.Double) -> None:
    running.local["_local/poller:node2-4711"]["running"][0]["attempt"] = "of before"
    assert client.get("/api/overview").json()["running"]["shown"][0]["fraction"] is None


def test_another_chain_in_the_database_is_warned_of(client: TestClient, database: page_double.Double) -> None:
    database.documents["_design/work"] = designs.build(sample.chain())["_design/work"]
    assert client.get("/api/overview").json()["warnings"] == []
    other = loads(sample.CHAIN.replace("name: analyse", "name: fit").replace('version: "2"', 'version: "3"'))
    database.documents["_design/work"] = designs.build(other)["_design/work"]
    (said,) = client.get("/api/overview").json()["warnings"]
    assert "the version of transfer (proc0) is '3' there and '2' here" in said
    assert "the name of analyse (proc2) is 'fit' there and 'analyse' here" in said and "couchapp push" in said
    assert said.replace("'", "&#39;") in client.get("/").text


@pytest.mark.parametrize("odd", [{}, {"steps": 7}, {"steps": [7, {"key": []}, {"key": "proc9"}], "name": None}])
def test_whatever_the_database_carries_is_compared(odd: dict[str, Any]) -> None:
    assert deployed.differences(designs.summary(sample.chain()), odd)
