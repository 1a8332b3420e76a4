"""Lanes and gathers with real daemons: a run's document, bundles for tape, members told, everything once."""

from __future__ import annotations

import os
import signal
import tarfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator import chain as chains
from orchestrator import designs, documents
from orchestrator.couch import deploy

pytestmark = pytest.mark.system

CHAIN = """
name: marks
steps:
  - {name: s0, run: 'procs.transfer:transfer'}
  - {name: s1, run: 'sitesteps:mark', settings: {step: 1}}
lanes:
  archive:
    steps:
      - {name: tape, executor: gather, needs: [s0]}
      - {name: check, run: 'sitesteps:mark', settings: {step: check}, needs: [tape, s1]}
gathers:
  runs:
    type: run
    after: [s1]
    settle: 1 s
    every: 0.5 s
    steps: [{name: merge, run: 'sitesteps:mark', settings: {step: merge}}]
  tars:
    type: tar
    after: [s0]
    period: month
    own: 100 kB
    largest: 60 kB
    settle: 1 s
    every: 0.5 s
    step: tape
    steps: [{name: bundle, run: 'procs.archive:bundle', settings: {output: tape}}]
"""


def _site(make_site: Callable[..., Any]) -> Any:
    site = make_site()
    (site.folder / "chain.yaml").write_text(CHAIN)
    site.chain = chains.loads(CHAIN)
    deploy.push(site.database, designs.build(site.chain))
    return site


def _add(
    site: Any, run: str, count: int, size: int, registered: str = "2026-01-03T10:00:00.000Z", first: int = 0
) -> None:
    made = []
    for number in range(first, first + count):
        path = site.folder / "raw" / f"{run} {number}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(os.urandom(size))
        made.append(
            {
                "_id": f"{run}_{number:03}", "type": "daqdocument", "run_name": run, "file_number": number,
                "status": "closed", "file": str(path), "size": size, "registered": registered,
            }
        )  # fmt: skip
    site.database.bulk(made)


def _of(site: Any, kind: str) -> list[dict[str, Any]]:
    rows = site.database.all_docs(include_docs=True)
    return [row.doc for row in rows if row.doc and row.doc.get("type") == kind]


def _through(document: dict[str, Any]) -> bool:
    return document["status"] == "good" and "proc0" in document


def test_runs_and_bundles_through_kills(make_site: Callable[..., Any]) -> None:
    site = _site(make_site)
    _add(site, "ra", 4, 30_000)  # a large run: 120 kB
    for run in ("rb", "rc", "rd", "re", "rf", "rg"):
        _add(site, run, 5, 4_000)  # small ones of January: 20 kB each, three to a bundle
    _add(site, "rh", 2, 10, documents.iso(time.time()))  # a month that is not over
    site.start("poll")
    site.start("poll", "--branch", "archive")
    site.start("poll", "--branch", "tars")
    site.start("poll", "--branch", "runs")
    gatherers = [site.start("gather"), site.start("gather")]

    def most() -> bool:
        left = [d for d in site.everything().values() if d["run_name"] != "rh"]
        return all(d.get("archive_proc1", {}).get("state") == "done" for d in left)

    for _ in range(4):  # kill -9 while members are taken
        site.wait(lambda: len(site.effects()) > 10, 30)
        os.killpg(gatherers[0].pid, signal.SIGKILL)
        gatherers[0].wait()
        gatherers[0] = site.start("gather")
    site.wait(most, 90, "all members to be on tape and checked")
    site.wait(lambda: len([d for d in _of(site, "run") if _through(d)]) == 8, 60)
    site.wait(site.finished, 30)
    everything = site.everything()
    assert Counter(d["status"] for d in everything.values()) == {"good": 36}
    tars = {d["_id"]: d for d in _of(site, "tar")}
    where = {name: d["archive_proc0"]["result"]["gathered"] for name, d in everything.items() if d["run_name"] != "rh"}
    assert sorted(where) == sorted(m["id"] for d in tars.values() for m in d["members"]), "each member in one tar"
    large = [d for d in tars.values() if d.get("run_name") == "ra"]
    assert len(large) == 1 and len(large[0]["members"]) == 4
    assert sum(len(d["members"]) for d in tars.values()) == 34
    for name, document in tars.items():
        assert document["status"] == "good"
        with tarfile.open(document["proc0"]["file"]) as bundle:
            inside = bundle.getnames()
        assert len(inside) == len(document["members"]) + 1
        for member in document["members"]:
            assert everything[member["id"]]["archive_proc0"]["file"] == document["proc0"]["file"]
            assert where[member["id"]] == name
    assert "archive_proc0" not in everything["rh_000"], "its month is not over"
    runs = {d["run_name"]: d for d in _of(site, "run")}
    assert {name: len(d["members"]) for name, d in runs.items()} == {
        "ra": 4, "rb": 5, "rc": 5, "rd": 5, "re": 5, "rf": 5, "rg": 5, "rh": 2,
    }  # fmt: skip
    effects = Counter((name, step) for name, step, _ in site.effects())
    assert set(effects.values()) == {1}, effects.most_common(3)
    # A member that comes late: the run's document is made again, and keeps what it was.
    _add(site, "rb", 1, 4_000, first=5)
    site.wait(lambda: any(len(d["members"]) == 6 and _through(d) for d in _of(site, "run")), 40)
    again = site.database.get("runs:rb")
    assert again["proc0"]["number"] == 2 and again["earlier"][0]["members"] == 5
    assert Path(again["earlier"][0]["proc0"]["file"]).name
