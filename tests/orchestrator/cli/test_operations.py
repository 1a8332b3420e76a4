"""People's operations from the command line, on a real database: chosen, decided, recorded, and carried out whole."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.couch import Database
from orchestrator.engine import operations
from orchestrator.engine.operations import Desk
from orchestrator.errors import Exit, Unavailable
from orchestrator.people import Order
from orchestrator.selection import Selection

Commands = Callable[..., Any]  # see conftest.py

STEPS = '''
def convert(document, work):
    path = work.output_path("raw", document["_id"] + ".root")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(work.attempt)
    with work.output_path("order").open("a") as order:
        print(document["_id"], file=order)
    return {"file": str(path), "plots": [str(path.with_suffix(".png")), {"file": "/etc/hostname.png", "scope": "run"}]}

def analyse(document, work):
    return {"read": work.input.read_text()}
'''
CHAIN = """
name: two
steps:
- {name: convert, run: "twosteps:convert", version: "%s"}
- {name: analyse, run: "twosteps:analyse"}
"""


def a_document(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "_id": name, "type": "daqdocument", "run_name": name[:3], "file_number": 0, "file": f"/daq/{name}",
        "size": 12, "hostname": "daq1", "site": "here", "registered": "2026-01-22T11:00:00.000Z", "status": "closed",
        **changes,
    }  # fmt: skip


@pytest.fixture
def two(site: Any, database: Database) -> Any:
    """A site whose chain writes a file for each document, with three documents of two runs through it."""
    (site.folder / "twosteps.py").write_text(STEPS)
    (site.folder / "chain.yaml").write_text(CHAIN % "1.0")
    assert site("couchapp", "push").code == 0
    database.bulk([a_document(name) for name in ("r01_0", "r01_1", "r02_0")])
    poll(site)
    return site


def poll(site: Commands) -> None:
    assert site("poll", "--until-idle", "--set", "workers=1").code == 0


def records(database: Database) -> list[dict[str, Any]]:
    return operations.latest(database, 100)


def test_a_hold_keeps_pollers_away_until_it_is_released_and_both_are_recorded(site: Any, database: Database) -> None:
    database.bulk([a_document("r01_0"), a_document("r01_1")])
    held = site("hold", "r01_0", "--reason", "the disk is being moved")
    assert (held.code, "r01_0: is on hold" in held.out) == (0, True)
    poll(site)
    assert (database.get("r01_0")["status"], database.get("r01_1")["status"]) == ("closed", "good")
    assert site("status", "--json").json["pending"] == 0
    (record,) = records(database)
    assert (record["what"], record["state"], record["counts"]) == (
        "hold", "done", {"changed": 1, "unchanged": 0, "refused": 0},
    )  # fmt: skip
    assert record["reason"] == "the disk is being moved" and "@" in record["by"]
    assert database.get("r01_0")["operation"]["id"] == record["_id"]
    assert "r01_0: is released" in site("release", "--all").out
    poll(site)
    assert database.get("r01_0")["status"] == "good"
    assert [one["what"] for one in site("operations", "--json").json] == ["release", "hold"]
    assert "the disk is" in site("operations").out
    assert site("operations", record["_id"]).json["selection"] == {"documents": ["r01_0"]}


def test_a_dry_run_decides_everything_and_writes_nothing(two: Any, database: Database) -> None:
    before = database.info()["update_seq"]
    said = two("reset", "--to", "convert", "--run", "r01", "--outputs", "removed", "--dry-run", "--json")
    assert said.json["changed"] == {"r01_0": ["good", "closed"], "r01_1": ["good", "closed"]}
    assert said.json["operation"] == ""
    assert two("mark-bad", "nothing", "r01_0", "--reason", "x", "--dry-run").code == 1
    assert database.info()["update_seq"] == before
    assert (two.folder / "data" / "raw" / "r01_0.root").exists()


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("--run", "r01"), {"r01_0", "r01_1"}),
        (("--run", "r01", "--run", "r02"), {"r01_0", "r01_1", "r02_0"}),
        (("--runs", "r02.."), {"r02_0"}),
        (("--runs", "..r01"), {"r01_0", "r01_1"}),
        (("--runs", "r01..r02", "--status", "good"), {"r01_0", "r01_1", "r02_0"}),
        (("--status", "failed"), set()),
        (("--step", "analyse"), set()),
        (("--query", '{"run_name": "r02"}'), {"r02_0"}),
        (("--query", '{"proc0.software.step": "1.0"}', "--run", "r01"), {"r01_0", "r01_1"}),
        (("r01_0", "r02_0", "--run", "r02"), {"r02_0"}),
        (("r01_0", "--query", '{"run_name": "r02"}'), set()),
        (("--query", "{}"), {"r01_0", "r01_1", "r02_0"}),
        (("--status", "proc 1 in progress"), set()),
        (("--all",), {"r01_0", "r01_1", "r02_0"}),
    ],
)
def test_documents_are_chosen_by_any_word_and_all_must_fit(two: Any, words: tuple[str, ...], names: set[str]) -> None:
    said = two("hold", *words, "--reason", "look", "--dry-run", "--json")
    assert set(said.json["changed"]) == names, said.err


def test_ids_come_from_standard_input_and_many_want_a_yes(
    two: Any, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("r01_0\nr02_0\n\n"))
    assert two("hold", "-", "--reason", "x", "--set", "ask_above=2").code == 0
    assert "hold" in database.get("r02_0") and "hold" not in database.get("r01_1")
    monkeypatch.setattr("sys.stdin", io.StringIO("r01_0\nr02_0\n"))
    refused = two("release", "-", "--set", "ask_above=1")
    assert refused.code == Exit.USAGE and "nobody to ask" in refused.err
    assert "hold" in database.get("r01_0")
    monkeypatch.setattr("sys.stdin", io.StringIO("r01_0\nr02_0\n"))
    assert two("release", "-", "--set", "ask_above=1", "--yes").code == 0


def test_what_cannot_be_said_is_refused_in_words(two: Any) -> None:
    for words, code, sentence in (
        (("hold", "r01_0"), Exit.SETTINGS, "needs a reason"),
        (("hold", "--reason", "x"), Exit.USAGE, "Say which"),
        (("hold", "--runs", "r01", "--reason", "x"), Exit.SETTINGS, "FIRST..LAST"),
        (("hold", "--query", "[1]", "--reason", "x"), Exit.SETTINGS, "Mango selector"),
        (("hold", "--runs", "r02..r01", "--reason", "x"), Exit.SETTINGS, "ends before it begins"),
        (("hold", "--query", '{"$where": "1"}', "--reason", "x"), Exit.SETTINGS, "does not understand the query"),
        (("hold", "--status", "Faild", "--reason", "x"), Exit.SETTINGS, "did you mean 'failed'"),
        (("operations", "r01_0"), Exit.NOT_FOUND, "is no operation"),
        (("operations", "nosuch"), Exit.NOT_FOUND, "is no operation"),
        (("reset", "r01_0", "--to", "convret"), Exit.SETTINGS, "did you mean 'convert'"),
        (("priority", "r01_0", "--to", "10000000"), Exit.SETTINGS, "whole number"),
        (("fail", "r01_0", "--reason", "x"), Exit.FAILED, "no step has it"),
        (("operations", "r01_0", "--finish"), Exit.NOT_FOUND, "is no operation"),
        (("operations", "--finish"), Exit.USAGE, "which operation"),
    ):
        said = two(*words)
        assert (said.code, sentence in said.err) == (code, True), (words, said.err)


def test_a_step_is_redone_by_its_version_with_what_depends_on_it(two: Any, database: Database) -> None:
    (two.folder / "chain.yaml").write_text(CHAIN % "2.0")
    assert two("couchapp", "push").code == 0
    before = {name: database.get(name) for name in ("r01_0", "r01_1", "r02_0")}
    assert "No document fits" in two("reprocess", "convert", "--version", "7").out
    done = two("reprocess", "convert", "--not-version", "2.0", "--run", "r01", "--reason", "calibration")
    assert done.code == 0, done.err
    poll(two)
    for name in ("r01_0", "r01_1"):
        after = database.get(name)
        assert after["proc0"]["software"]["step"] == "2.0" and after["proc0"]["number"] == 2
        assert after["proc1"]["result"]["read"] == after["proc0"]["attempt"], "the analysis read the new output"
        (past,) = operations.pasts(database, name)
        assert past["entries"] == {key: before[name][key] for key in ("proc0", "proc1")}
        assert past["operation"]["reason"] == "calibration"
    assert database.get("r02_0")["_rev"] == before["r02_0"]["_rev"]
    assert "proc0 proc1" in two("operations", "--document", "r01_0").out
    assert "No document fits" in two("reprocess", "convert", "--version", "1.0", "--run", "r01").out


def test_old_outputs_are_moved_beside_or_removed_and_nothing_else_is_touched(two: Any, database: Database) -> None:
    data = two.folder / "data"
    (data / "raw" / "r01_0.png").write_text("picture")
    first = (data / "raw" / "r01_0.root").read_text()
    done = two("reset", "r01_0", "--to", "convert", "--outputs", "moved", "--json").json
    place = data / "past" / done["operation"].replace(":", "-") / "raw"
    assert (place / "r01_0.root").read_text() == first and (place / "r01_0.png").read_text() == "picture"
    assert not (data / "raw" / "r01_0.root").exists() and (data / "raw" / "r01_1.root").exists()
    document = database.get("r01_0")
    assert document["status"] == "closed" and "hold" not in document
    (past,) = operations.pasts(database, "r01_0")
    assert past["outputs"]["state"] == "moved"
    assert {one["to"] for one in past["outputs"]["files"]} == {str(place / "r01_0.root"), str(place / "r01_0.png")}
    poll(two)
    assert (data / "raw" / "r01_0.root").exists()
    assert two("reset", "r01_1", "--to", "convert", "--outputs", "removed").code == 0
    assert not (data / "raw" / "r01_1.root").exists()


def test_outputs_outside_the_data_folder_or_behind_a_link_are_never_touched(
    two: Any, database: Database, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("mine")
    data = two.folder / "data"
    (data / "link").symlink_to(outside)
    (data / "direct").symlink_to(outside / "precious")
    for name, file in (
        ("r01_0", str(outside / "precious")),
        ("r01_1", f"{data}/raw/../../outside/precious"),
    ):
        document = database.get(name)
        database.put({**document, "proc0": {**document["proc0"], "file": file, "result": {}}})
        refused = two("reset", name, "--to", "convert", "--outputs", "removed")
        assert refused.code == 1 and "is not in this site's data folder" in refused.err
        assert database.get(name)["status"] == "good", "nothing was done to it"
    for name, file in (("r02_0", data / "link" / "precious"), ("r01_0", data / "direct")):
        document = database.get(name)
        database.put({**document, "proc0": {**document["proc0"], "file": str(file), "result": {}}})
        refused = two("reset", name, "--to", "convert", "--outputs", "removed")
        assert refused.code == 1 and "not touched" in refused.err, refused.err
        assert database.get(name)["hold"]["operation"], "it waits for somebody to look"
    elsewhere = database.get("r01_1")
    entry = {**elsewhere["proc0"], "site": "lyon", "file": str(data / "raw" / "r01_1.root")}
    database.put({**elsewhere, "proc0": entry})
    refused = two("reset", "r01_1", "--to", "convert", "--outputs", "moved")
    assert "is at site 'lyon'" in refused.err
    assert (outside / "precious").read_text() == "mine"


class Breaking:
    """A database that is away from its n-th bulk write on."""

    def __init__(self, database: Database, bulks: int) -> None:
        self._database, self._bulks = database, bulks

    def __getattr__(self, name: str) -> Any:
        if name == "bulk":
            self._bulks -= 1
            if self._bulks < 0:
                raise Unavailable("the cable is out")
        return getattr(self._database, name)


@pytest.mark.parametrize("bulks", range(5))
def test_an_operation_that_is_cut_short_anywhere_is_visible_and_can_be_ended(
    two: Any, database: Database, bulks: int
) -> None:
    from orchestrator import chain as chains

    chain = chains.load(two.folder / "chain.yaml")
    data = two.folder / "data"
    whole = database.get("r01_0")
    order = Order("reset", "ann", step="proc0", outputs="moved")
    chosen = Selection(documents=("r01_0",))
    broken = Desk(Breaking(database, bulks), chain, "here", data)
    try:
        broken.perform(order, ["r01_0"], chosen)
    except Unavailable:
        (record,) = records(database)
        assert record["state"] == "begun"
    sound = Desk(database, chain, "here", data)
    sound.perform(order, ["r01_0"], chosen)  # the same command once more
    for record in records(database):
        sound.finish(record["_id"])
    document = database.get("r01_0")
    assert document["status"] == "closed" and "hold" not in document and "proc0" not in document
    assert not (data / "raw" / "r01_0.root").exists()
    kept = [past["entries"] for past in operations.pasts(database, "r01_0")]
    assert {json.dumps(entries["proc0"], sort_keys=True) for entries in kept} == {
        json.dumps(whole["proc0"], sort_keys=True)
    }
    assert len(list((data / "past").rglob("r01_0.root"))) == 1


def test_a_document_that_somebody_changes_meanwhile_is_read_and_decided_on_again(two: Any, database: Database) -> None:
    from orchestrator import chain as chains

    class Racing(Breaking):
        def __getattr__(self, name: str) -> Any:
            if name == "bulk" and self._bulks > 0:
                self._bulks -= 1
                document = database.get("r01_0")
                database.put({**document, "note": self._bulks, "proc1": {**document["proc1"], "seconds": self._bulks}})
            return getattr(self._database, name)

    desk = Desk(Racing(database, 3), chains.load(two.folder / "chain.yaml"), "here", two.folder / "data")
    done = desk.perform(Order("reset", "ann", step="proc0"), ["r01_0"], Selection(documents=("r01_0",)))
    assert list(done.changed) == ["r01_0"]
    (past,) = operations.pasts(database, "r01_0")
    assert past["entries"]["proc1"]["seconds"] == 0, "the past holds what was there when it went"
    assert database.get("r01_0")["note"] == 0
    refused = Desk(Racing(database, 99), desk.chain, "here", desk.data)
    database.put({**database.get("r01_0"), "proc0": {"state": "done"}, "proc1": {"state": "done"}, "status": "good"})
    said = refused.perform(Order("reset", "ann", step="proc0"), ["r01_0"], Selection(documents=("r01_0",)))
    assert "changes faster" in said.refused["r01_0"]
    assert len(operations.pasts(database, "r01_0")) == 1, "no past of what did not happen"


@pytest.mark.parametrize("what", ["mark-bad", "fail"])
def test_an_attempt_that_ends_well_while_it_is_called_off_has_no_record_of_its_end(
    two: Any, database: Database, what: str
) -> None:
    """Its result is stored between the record of its end and the document's change."""
    from orchestrator import chain as chains
    from orchestrator.documents import Claimant, Report, claim, finish

    chain = chains.load(two.folder / "chain.yaml")
    step = chain.steps[0]
    database.put({**a_document("r04_0"), "status": "closed"})
    held = claim(database.get("r04_0"), step, Claimant("p", "daq1", 1, "here"), "a1", 1000.0)
    database.put(held)

    class Racing(Breaking):
        def __getattr__(self, name: str) -> Any:
            if name == "bulk" and self._bulks > 0:
                self._bulks -= 1
                if not self._bulks:
                    done = finish(database.get("r04_0"), step, Report("r04_0", step.key, "a1", 1.0, 2.0), 1001.0)
                    database.put(done)
            return getattr(self._database, name)

    desk = Desk(Racing(database, 2), chain, "here", two.folder / "data")
    done = desk.perform(Order(what, "ann", "too warm"), ["r04_0"], Selection(documents=("r04_0",)))
    assert (list(done.changed), list(done.refused)) == ((["r04_0"], []) if what == "mark-bad" else ([], ["r04_0"]))
    assert database.get("r04_0")[step.key]["state"] == "done"
    assert not [row.id for row in database.all_docs(startkey="attempt:r04_0:", endkey="attempt:r04_0;")]


def test_a_command_given_again_after_a_crash_says_what_is_left_to_do(two: Any, database: Database) -> None:
    from orchestrator import chain as chains

    desk = Desk(Breaking(database, 2), chains.load(two.folder / "chain.yaml"), "here", two.folder / "data")
    words = ("reprocess", "convert", "--run", "r01", "--outputs", "removed")
    order = Order("reprocess", "ann", step="proc0", outputs="removed")
    with pytest.raises(Unavailable):
        desk.perform(order, ["r01_0", "r01_1"], Selection(runs=("r01",)))
    (begun,) = [one["_id"] for one in records(database) if one["state"] == "begun"]
    said = two(*words)
    assert "No document fits" in said.out and f"orchestrator operations --finish {begun}" in said.out
    assert two("operations", "--finish", begun).code == 0
    assert not [one for one in ("r01_0", "r01_1") if "hold" in database.get(one)]
    assert begun not in two(*words).out


def test_documents_with_a_priority_are_taken_first(two: Any, database: Database) -> None:
    database.bulk([a_document(f"r03_{n}") for n in range(20)])
    assert two("priority", "r03_7", "r03_13", "--to", "5").code == 0
    assert two("priority", "r03_2", "--to", "-5").code == 0
    rows = [str(row.id) for row in database.view("work/proc0", reduce=False).rows]
    (two.folder / "data" / "order").unlink()
    poll(two)
    taken = (two.folder / "data" / "order").read_text().split()
    for order in (rows, taken):
        assert set(order[:2]) == {"r03_7", "r03_13"} and order[-1] == "r03_2"


def test_an_output_that_a_gate_refuses_is_accepted_as_it_is(site: Any, database: Database) -> None:
    gated = CHAIN % "1.0"
    gated = gated.replace('version: "1.0"}', 'version: "1.0", gates: [{name: large, size_min: 1 kB}]}')
    (site.folder / "twosteps.py").write_text(STEPS)
    (site.folder / "chain.yaml").write_text(gated)
    assert site("couchapp", "push").code == 0
    database.bulk([a_document(name) for name in ("r01_0", "r01_1")])
    poll(site)
    assert {database.get(name)["status"] for name in ("r01_0", "r01_1")} == {"bad"}
    said = site("explain", "r01_0", "--json").json
    assert said["cause"] == "refused" and "orchestrator accept r01_0 convert" in said["next"][0]
    assert "needs a reason" in site("accept", "r01_0", "convert").err
    assert site("accept", "r01_0", "analyse", "--reason", "x").code == 1
    (site.folder / "data" / "raw" / "r01_1.root").unlink()
    done = site("accept", "--all", "convert", "--reason", "small ones will do")
    assert done.code == 1 and "r01_0: has its output accepted (bad -> good)" in done.out
    assert "r01_1.root', which was refused, is not there any more" in done.err
    poll(site)
    document = database.get("r01_0")
    assert (document["status"], document["proc1"]["state"]) == ("good", "done")
    assert document["proc0"]["accepted"]["reason"] == "small ones will do" and document["proc0"]["gate"] == "large"
    assert records(database)[0]["what"] == "accept" and "outputs" not in records(database)[0]
    assert site("audit", "--grace", "0").code == 0


CROSSING = """
name: crossing
steps:
- {name: look, run: "crossing:write"}
- {name: use, run: "crossing:write", needs: [look, verify]}
- {name: aside, run: "crossing:write", needs: []}
lanes:
  archive:
    steps:
    - {name: tape, run: "crossing:write", needs: [look]}
    - {name: verify, run: "crossing:write", needs: [tape]}
  other:
    steps:
    - {name: apart, run: "crossing:write", needs: [aside]}
"""
WRITE = '''
def write(document, work):
    path = work.output_path("out", work.attempt)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    return {"file": str(path)}
'''


def test_a_reset_redoes_what_depends_on_it_in_other_lanes_too(site: Any, database: Database) -> None:
    (site.folder / "crossing.py").write_text(WRITE)
    (site.folder / "chain.yaml").write_text(CROSSING)
    assert site("couchapp", "push").code == 0

    def through() -> dict[str, Any]:
        for branch in ((), ("--branch", "archive"), (), ("--branch", "other")):
            assert site("poll", "--until-idle", "--set", "workers=1", *branch).code == 0
        return database.get("r01_0")

    database.bulk([a_document("r01_0")])
    before = through()
    every = ("proc0", "proc1", "proc2", "archive_proc0", "archive_proc1", "other_proc0")
    assert all(before[key]["state"] == "done" for key in every)
    said = site("reset", "r01_0", "--to", "look", "--dry-run", "--json").json
    assert said["changed"] == {"r01_0": ["good", "good"]}
    assert site("reset", "r01_0", "--to", "look", "--outputs", "moved", "--reason", "again").code == 0
    between = database.get("r01_0")
    assert {key for key in every if key in between} == {"proc2", "other_proc0"}
    assert (between["status"], between["archive_status"], between["other_status"]) == ("good", "closed", "good")
    (past,) = operations.pasts(database, "r01_0")
    gone = {"proc0", "proc1", "archive_proc0", "archive_proc1"}
    assert past["entries"] == {key: before[key] for key in gone}
    assert {one["file"] for one in past["outputs"]["files"]} == {before[key]["file"] for key in gone}
    assert all(not Path(before[key]["file"]).exists() for key in gone) and Path(before["proc2"]["file"]).exists()
    after = through()
    assert {key: after[key]["number"] for key in every} == {
        "proc0": 2, "proc1": 2, "proc2": 1, "archive_proc0": 2, "archive_proc1": 2, "other_proc0": 1,
    }  # fmt: skip
    assert site("reset", "r01_0", "--to", "verify", "--branch", "archive").code == 0
    last = database.get("r01_0")
    assert {key for key in every if key in last} == {"proc0", "proc2", "archive_proc0", "other_proc0"}
    assert set(operations.pasts(database, "r01_0")[0]["entries"]) == {"proc1", "main_proc1"}
    assert site("audit", "--grace", "0").code == 0


def test_what_runs_in_another_lane_is_called_off_by_a_reset(site: Any, database: Database) -> None:
    (site.folder / "crossing.py").write_text(WRITE)
    (site.folder / "chain.yaml").write_text(CROSSING)
    assert site("couchapp", "push").code == 0
    done, now = {"state": "done", "attempt": "a", "number": 1, "site": "here"}, "2026-01-22T11:00:00.000Z"
    running = {"state": "in progress", "attempt": "b", "number": 3, "site": "here", "started": now, "step": "tape"}
    database.put(a_document("r01_0"))
    database.put({**database.get("r01_0"), "status": "good", "proc0": {**done, "step": "look"},
                  "archive_status": "proc 0 in progress", "archive_proc0": running})  # fmt: skip
    assert site("reset", "r01_0", "--to", "look").code == 0
    document = database.get("r01_0")
    assert document["archive_status"] == "closed" and "archive_proc0" not in document
    assert document["archive_numbers"] == {"proc0": 4}
    record = database.get("attempt:r01_0:archive_proc0:3")
    assert (record["state"], record["step"], record["lane"]) == ("called off", "archive_proc0", "archive")
    lane = {**done, "step": "tape"}
    database.put({**document, "status": "proc 1 in progress", "proc0": done, "proc1": {**running, "step": "use"},
                  "archive_status": "good", "archive_proc0": lane, "archive_proc1": done})  # fmt: skip
    assert site("reset", "r01_0", "--to", "tape", "--branch", "archive").code == 0
    record = database.get("attempt:r01_0:proc1:3")
    assert (record["state"], record["step"]) == ("called off", "proc1")
    assert database.get("r01_0")["status"] == "good"


def test_a_lane_has_operations_of_its_own(site: Any, database: Database) -> None:
    lane = "lanes:\n  archive:\n    steps:\n    - {name: tape, run: 'procs.noop:nothing', needs: []}\n"
    steps = "steps:\n- {name: look, run: 'procs.noop:nothing'}\n"
    (site.folder / "chain.yaml").write_text("name: two\n" + steps + lane)
    assert site("couchapp", "push").code == 0
    database.bulk([a_document("r01_0"), a_document("r01_1")])
    poll(site)
    assert site("poll", "--until-idle", "--branch", "archive", "--set", "workers=1").code == 0
    before = database.get("r01_0")
    assert before["archive_proc0"]["state"] == "done"
    query = '{"archive_proc0.state": "done", "_id": "r01_0"}'
    done = site("reset", "--to", "tape", "--branch", "archive", "--query", query, "--reason", "a new tape")
    assert done.code == 0, done.err
    after = database.get("r01_0")
    assert "archive_proc0" not in after and after["proc0"] == before["proc0"]
    (past,) = operations.pasts(database, "r01_0")
    assert past["branch"] == "archive" and past["entries"] == {"proc0": before["archive_proc0"]}
    assert database.get("r01_1")["archive_proc0"]["state"] == "done"
    assert site("explain", "r01_0", "--branch", "archive", "--json").json["cause"] == "no-poller"
    assert site("explain", "r01_0", "--json").json["cause"] == "through"
    assert site("poll", "--until-idle", "--branch", "archive", "--set", "workers=1").code == 0
    assert database.get("r01_0")["archive_proc0"]["number"] == 2
