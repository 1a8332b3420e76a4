"""The poller's loop, in this process, with real workers and a real server: what it does when the world misbehaves."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator import chain as chains
from orchestrator import designs, documents
from orchestrator.couch import Credentials, Database, Server, deploy
from orchestrator.embedded.testing import EmbeddedServer
from orchestrator.engine import sweep
from orchestrator.errors import NotFound, Unauthorised
from orchestrator.poller import Poller, Terms
from orchestrator.runner import Places

STEPS = """
import os, time
def step(document, work):
    work.progress(float("nan"), "\\ud800")
    with open(work.output / "effects", "a") as file:
        file.write(document["_id"] + "\\n")
    time.sleep(document.get("sleep", 0))
    work.progress(float("nan"), "\\ud800")
    return {"x": 1}
"""
CHAIN = chains.loads(
    "name: t\nsteps:\n  - {name: a, run: 'pollersteps:step'}\n  - {name: b, run: 'pollersteps:step'}\n"
)
QUICK = Terms(workers=2, lease=2.0, sweep=1.0, drain=5.0)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with EmbeddedServer(tmp_path_factory.mktemp("database")) as embedded:
        yield Server(embedded.url, Credentials(*embedded.credentials))


@pytest.fixture
def database(server: Server, tmp_path: Path) -> Database:
    name = "p" + tmp_path.name.replace("_", "-").lower()
    server.create(name)
    made = server.database(name)
    deploy.push(made, designs.build(CHAIN))
    return made


@pytest.fixture
def make(tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Poller]]:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "pollersteps.py").write_text(STEPS)
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    (tmp_path / "out").mkdir()
    places = Places(tmp_path / "out", tmp_path / "scratch", tmp_path / "logs")

    made: list[Poller] = []

    def make(on: Any = None, terms: Terms = QUICK) -> Poller:
        made.append(Poller(CHAIN, on or database, places, tmp_path / "spool", terms=terms))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def raw(name: str, **more: Any) -> dict[str, Any]:
    return {"_id": name, "type": "daqdocument", "status": "closed", "file": f"/raw/{name}", "run_name": "r", **more}


def effects(tmp_path: Path) -> list[str]:
    path = tmp_path / "out" / "effects"
    return path.read_text().splitlines() if path.exists() else []


def in_thread(made: Poller) -> tuple[threading.Thread, list[BaseException]]:
    faults: list[BaseException] = []

    def body() -> None:
        try:
            made.run()
        except BaseException as error:
            faults.append(error)

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    return thread, faults


def wait(done: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.02)


class Through:
    """A database whose next answers can be chosen. ``fault`` is raised by every request while it is set."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.fault: Exception | None = None
        self.asked = 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._database, name)
        if not callable(found):
            return found

        def ask(*arguments: Any, **more: Any) -> Any:
            if self.fault is not None:
                self.asked += 1
                raise self.fault
            return found(*arguments, **more)

        return ask


def test_what_is_there_is_done_and_nothing_is_left_behind(
    make: Callable[..., Poller], database: Database, tmp_path: Path
) -> None:
    database.bulk([raw(f"d{n}") for n in range(30)])
    make().run(until_idle=True)
    assert all(documents.complete(CHAIN, database.get(f"d{n}")) for n in range(30))
    assert sorted(effects(tmp_path)) == sorted([f"d{n}" for n in range(30)] * 2)
    assert list((tmp_path / "spool" / "pollers").iterdir()) == []
    assert list((tmp_path / "scratch").iterdir()) == []
    assert database.local_docs("poller:", "poller:\uffff") == []


def test_documents_with_odd_values_in_every_field_harm_nobody_else(
    make: Callable[..., Poller], database: Database
) -> None:
    odd: dict[str, dict[str, Any]] = {
        "priority-huge": {"priority": 10**40}, "priority-text": {"priority": "x"}, "priority-list": {"priority": [1]},
        "file-nul": {"file": "a\0b"}, "file-number": {"file": 5}, "file-bytes": {"file_bytes": "!!"},
        "no-file": {"file": ""}, "status-odd": {"status": "good", "proc9": {"state": "?"}},
        "retry-text": {"retry": "soon"},
        "retry-odd": {"retry": {"step": "proc0", "number": "x", "not_before": "never"}},
        "retry-far": {"retry": {"step": "proc0", "number": -7, "not_before": "0001-01-01T00:00:00+14:00"}},
        "run-object": {"run_name": {"a": [1]}, "file_number": "x"},
        "../../etc/passwd": {}, "name with\nnewline ; $(x)": {}, "é" * 60: {}, "x" * 200: {},
        "\u202e\x7f": {}, "a/b%2f?#": {},
    }  # fmt: skip
    database.bulk([raw(name, **fields) for name, fields in odd.items()])
    by_hand = raw("in-progress-by-hand")
    database.bulk([by_hand])
    database.put({**database.get("in-progress-by-hand"), "status": "proc 0 in progress"})
    database.bulk([raw(f"plain{n}") for n in range(5)])
    made = make()
    thread, faults = in_thread(made)
    wait(lambda: all(documents.complete(CHAIN, database.get(f"plain{n}")) for n in range(5)))
    wait(lambda: all(documents.complete(CHAIN, database.get(name)) for name in odd))
    wait(lambda: documents.complete(CHAIN, database.get("in-progress-by-hand")))
    made.stop()
    thread.join()
    assert not faults
    failed = {name for name in odd if database.get(name)["status"] == "failed"}
    assert failed == {"file-nul", "file-bytes"}


def test_documents_that_wait_or_were_refused_do_not_hide_those_behind_them_in_the_view(
    make: Callable[..., Poller], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "PAGE", 5)
    later = {"step": "proc0", "number": 2, "not_before": documents.iso(time.time() + 3000)}
    database.bulk([raw(f"a{n}", retry=later) for n in range(23)] + [raw("z")])
    made = make()
    made.engine.backlog._limit = 10
    made.run(until_idle=True)
    assert documents.complete(CHAIN, database.get("z"))


def test_draining_waits_without_spinning(make: Callable[..., Poller], database: Database) -> None:
    database.bulk([raw("slow", sleep=2.0)])
    made = make()
    thread, faults = in_thread(made)
    wait(lambda: bool(made.engine.held))
    due = {"step": "proc0", "number": 2, "not_before": documents.iso(time.time() + 0.3)}
    database.bulk([raw("again", retry=due)])
    wait(lambda: len(made.engine.backlog) > 0)
    listen, heard = made.pool.events, []

    def events(timeout: float) -> Any:
        heard.append(timeout)
        return listen(timeout)

    made.pool.events = events  # type: ignore[method-assign]
    made.stop()
    thread.join()
    assert not faults
    assert database.get("slow")["proc0"]["state"] == "done"
    assert len(heard) < 60, "a loop that spins asks thousands of times"


def test_a_refused_login_stops_it_at_once_and_the_running_step_is_recorded_by_the_next_poller(
    make: Callable[..., Poller], database: Database, tmp_path: Path
) -> None:
    database.bulk([raw("slow", sleep=1.5)])
    through = Through(database)
    made = make(through)
    thread, faults = in_thread(made)
    wait(lambda: effects(tmp_path) == ["slow"])
    through.fault = Unauthorised("login refused")
    thread.join(20.0)
    assert [type(fault) for fault in faults] == [Unauthorised]
    assert through.asked == 1, "asking again would lock the account"
    make().run(until_idle=True)
    assert documents.complete(CHAIN, database.get("slow"))
    assert effects(tmp_path) == ["slow", "slow"], "each of the two steps once"


def test_a_database_that_is_deleted_ends_it_with_a_sentence(
    make: Callable[..., Poller], database: Database, server: Server
) -> None:
    made = make()
    thread, faults = in_thread(made)
    wait(lambda: bool(database.local_docs("poller:", "poller:\uffff")))
    server.delete(database.name)
    thread.join(20.0)
    assert [type(fault) for fault in faults] == [NotFound]
    assert database.name in str(faults[0])


def test_where_no_worker_can_be_made_documents_are_free_for_others(
    make: Callable[..., Poller], database: Database, tmp_path: Path
) -> None:
    database.bulk([raw(f"d{n}") for n in range(3)])
    made = make()
    (tmp_path / "scratch").touch()
    thread, faults = in_thread(made)

    def free() -> bool:  # until the next attempt, a few seconds later
        found = [database.get(f"d{n}") for n in range(3)]
        why = [document.get("retry", {}).get("reason", "") for document in found]
        return {d["status"] for d in found} == {"closed"} and all("no worker could be started" in w for w in why)

    wait(free)
    (tmp_path / "scratch").unlink()
    wait(lambda: all(documents.complete(CHAIN, database.get(f"d{n}")) for n in range(3)))
    made.stop()
    thread.join()
    assert not faults


@pytest.mark.parametrize("what", ["fail", "mark-bad", "reset"])
def test_an_attempt_whose_document_a_person_takes_away_is_ended_and_its_report_dropped(
    make: Callable[..., Poller], database: Database, tmp_path: Path, what: str
) -> None:
    from orchestrator.engine.operations import Desk
    from orchestrator.people import Order
    from orchestrator.selection import Selection

    database.bulk([raw("long", sleep=600), raw("short", sleep=0.2)])
    made = make()
    thread, faults = in_thread(made)
    wait(lambda: "long" in effects(tmp_path))
    if what == "reset":
        database.put({**database.get("long"), "sleep": 0})
    order = Order(what, "ann", "enough", step="proc0" if what == "reset" else "")
    done = Desk(database, CHAIN, "here", tmp_path).perform(order, ["long"], Selection(documents=("long",)))
    assert list(done.changed) == ["long"]
    wait(lambda: made.engine.counts.dropped == 1 or (what == "fail" and made.engine.counts.failed == 1))
    wait(lambda: documents.complete(CHAIN, database.get("short")))
    expected = {"fail": "failed", "mark-bad": "bad", "reset": "good"}[what]
    wait(lambda: database.get("long")["status"] == expected and not made.engine.held)
    assert database.get("attempt:long:proc0:1")["state"] == "called off"
    if what == "reset":
        assert database.get("long")["proc0"]["number"] == 2
    made.stop()
    thread.join()
    assert not faults


def test_an_attempt_goes_on_under_a_hold_and_the_next_step_does_not_begin(
    make: Callable[..., Poller], database: Database, tmp_path: Path
) -> None:
    from orchestrator.engine.operations import Desk
    from orchestrator.people import Order
    from orchestrator.selection import Selection

    database.bulk([raw("held", sleep=1.0), raw("urgent", priority=3)])
    made = make()
    thread, faults = in_thread(made)
    wait(lambda: "held" in effects(tmp_path))
    desk = Desk(database, CHAIN, "here", tmp_path)
    desk.perform(Order("hold", "ann", "wait"), ["held"], Selection(documents=("held",)))
    wait(lambda: database.get("held").get("proc0", {}).get("state") == "done")
    wait(lambda: documents.complete(CHAIN, database.get("urgent")))
    assert database.get("held")["status"] == "good" and "proc1" not in database.get("held")
    desk.perform(Order("release", "ann"), ["held"], Selection(documents=("held",)))
    wait(lambda: documents.complete(CHAIN, database.get("held")))
    assert made.engine.counts.dropped == 0
    made.stop()
    thread.join()
    assert not faults
