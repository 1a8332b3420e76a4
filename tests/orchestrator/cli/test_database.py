"""Commands on a database: couchapp, register, poll, status, show, retry, run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.couch import Database
from orchestrator.errors import Exit

Commands = Callable[..., Any]  # see conftest.py


def a_document(name: str = "ma22a000_000", **changes: Any) -> dict[str, Any]:
    """A document as registration makes it."""
    return {
        "_id": name, "type": "daqdocument", "run_name": "ma22a000", "file_number": 0, "file": f"/daq/{name}",
        "size": 12, "checksum": None, "hostname": "daq1", "site": "here", "format": "samba", "header": {},
        "registered": "2026-01-22T11:00:00.000Z", "updated": "2026-01-22T11:00:00.000Z", "status": "closed", **changes,
    }  # fmt: skip


def poll(site: Commands) -> None:
    assert site("poll", "--until-idle", "--set", "workers=1").code == 0


def test_pushing_what_is_unchanged_writes_nothing(site: Commands, database: Database) -> None:
    before = database.info()["update_seq"]
    again = site("couchapp", "push")
    assert set(again.out.split()[::2]) == {"unchanged"}
    assert database.info()["update_seq"] == before
    assert site("couchapp", "diff").code == 0


def test_a_changed_chain_is_seen_and_pushed(site: Any, database: Database) -> None:
    with (site.folder / "chain.yaml").open("a") as file:
        file.write("  - name: fourth\n    run: procs.noop:nothing\n")
    assert "not those of the chain" in site("check").out
    assert site("couchapp", "diff").code == 1
    assert "proc3" in site("couchapp", "show", "work").out
    assert "replaced" in site("couchapp", "push").out
    assert site("couchapp", "diff", "--json").json == {"differs": False, "diff": ""}


def test_a_document_goes_through_and_can_be_looked_at(site: Commands, database: Database) -> None:
    database.put(a_document())
    assert "1 closed" in site("status").out
    poll(site)
    status = site("status", "--json").json
    assert status["statuses"] == {"good": 1}
    assert [step["done"] for step in status["steps"]] == [1, 1, 1]
    assert "ma22a000_000: good" in site("show", "ma22a000_000").out
    assert site("show", "ma22a000_000", "--json").json["document"]["proc2"]["state"] == "done"


def test_status_on_an_empty_database(site: Commands) -> None:
    assert "0 documents (none yet)" in site("status").out


def test_what_failed_is_shown_and_tried_again(site: Any, database: Database) -> None:
    (site.folder / "moody.py").write_text(
        "from pathlib import Path\nfrom orchestrator.errors import DataError\n"
        "def step(document, work):\n"
        f"    if not Path({str(site.folder / 'mended')!r}).exists():\n"
        "        raise DataError('the traces are \\x1b[31mupside down')\n"
        "    return {'turned': True}\n"
    )
    (site.folder / "chain.yaml").write_text("name: moody\nsteps:\n- {name: turn, run: moody:step}\n")
    assert site("couchapp", "push").code == 0
    database.put(a_document())
    poll(site)
    shown = site("show", "ma22a000_000", "--log")
    assert "upside down" in shown.out
    assert "\x1b" not in shown.out
    assert site("retry", "ma22a000_000", "no-such").code == 1
    poll(site)
    assert database.get("ma22a000_000")["status"] == "failed"
    (site.folder / "mended").touch()
    assert "will be tried again" in site("retry", "--step", "turn", "--all").out
    assert site("run", "turn", "ma22a000_000").code == 0
    document = database.get("ma22a000_000")
    assert (document["status"], document["proc0"]["result"]) == ("good", {"turned": True})
    assert "Nothing has failed" in site("retry", "--all").out


def test_retry_asks_above_some_documents(site: Any, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"d_{n:03d}" for n in range(12)]
    saved = database.bulk([a_document(name) for name in names])
    database.bulk([a_document(one.id, _rev=one.rev, status="failed") for one in saved])  # given up by a person
    assert database.get("d_000")["status"] == "failed"
    monkeypatch.setattr("sys.stdin", open("/dev/null"))  # noqa: PTH123, SIM115
    asked = site("retry", "--all")
    assert asked.code == Exit.USAGE
    assert "12 documents, more than 10" in asked.err and "--yes" in asked.err
    assert database.get("d_000")["status"] == "failed"
    assert site("retry", "--all", "--yes", "--json").json["refused"] == {}
    assert database.get("d_011")["status"] == "closed"


def test_run_by_hand_says_why_it_cannot(site: Commands, database: Database) -> None:
    database.put(a_document())
    early = site("run", "third", "ma22a000_000")
    assert early.code == Exit.FAILED
    assert "needs" in early.err
    assert site("run", "thrid", "ma22a000_000").code == Exit.SETTINGS
    assert site("run", "first", "no-such").code == Exit.NOT_FOUND
    assert site("run", "first", "ma22a000_000").code == 0
    assert database.get("ma22a000_000")["proc0"]["state"] == "done"


def test_run_without_a_record_needs_no_database(orchestrator: Any, tmp_path: Path) -> None:
    orchestrator("init", str(tmp_path), "--chain", "noop")
    (tmp_path / "doc.json").write_text(json.dumps(a_document()))
    done = orchestrator("run", "first", str(tmp_path / "doc.json"), "--no-record", "--json")
    assert (done.code, done.json["state"]) == (0, "done")


def test_register_takes_files_and_says_what_is_wrong(site: Any, database: Database, tmp_path: Path) -> None:
    from procs.simulate import simulate

    simulate(tmp_path / "daq", runs=1, partitions=2, events=3, date_runs=0)
    assert site("register", str(tmp_path / "daq")).out.startswith("2 registered")
    assert "2 known" in site("register", str(tmp_path / "daq")).out
    odd = tmp_path / "ma22a001_000 ;$(touch x)\n'\"é"
    odd.write_text("* Archive SAMBA\n")
    result = site("register", str(odd), str(tmp_path / "missing"))
    assert result.code == 1
    assert "missing: No such file" in result.err
    bad = [row.id for row in database.view("work/bad", reduce=False)]
    assert len(bad) == 1
    assert site("show", bad[0]).code == 0


def test_simulate_lists_and_refuses_options(orchestrator: Commands, tmp_path: Path) -> None:
    assert orchestrator("simulate", "--list", "--json").json["runs"]["default"] == 3
    wrong = orchestrator("simulate", str(tmp_path / "daq"), "--option", "sead=2")
    assert (wrong.code, "Did you mean 'seed'?" in wrong.err) == (Exit.SETTINGS, True)
    words = ("--runs", "1", "--partitions", "1", "--events", "2", "--option", "date_runs=0", "--json")
    assert [one["run"] for one in orchestrator("simulate", str(tmp_path / "daq"), *words).json] == ["ma22a000"]


@pytest.mark.parametrize(
    ("environment", "code", "sentence"),
    [
        ({"ORCHESTRATOR_URL": "http://127.0.0.1:1"}, Exit.UNAVAILABLE, "cannot be reached"),
        ({"ORCHESTRATOR_COUCH_PASSWORD": "wrong"}, Exit.UNAUTHORISED, "login refused"),
        ({"ORCHESTRATOR_DATABASE": "elsewhere"}, Exit.NOT_FOUND, "elsewhere"),
    ],
)
@pytest.mark.parametrize("words", [("status",), ("show", "x"), ("poll", "--until-idle"), ("register", "x")])
def test_a_database_that_is_not_there_or_refuses(
    site: Commands, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], code: Exit, sentence: str,
    words: tuple[str, ...], tmp_path: Path,
) -> None:  # fmt: skip
    if words[0] == "poll" and code is Exit.UNAVAILABLE:
        return  # a poller waits for a database that is away
    (tmp_path / "x").write_text("* Archive SAMBA\n")
    monkeypatch.chdir(tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    result = site(*words)
    assert result.code == code
    assert sentence in result.err
    assert "Traceback" not in result.err


def test_check_is_content_with_all_of_it(site: Commands, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert site("user", "setup").code == 0
    for name in ("USER", "PASSWORD"):  # a login in the environment would be every daemon's
        monkeypatch.delenv(f"ORCHESTRATOR_COUCH_{name}")
    login = f"credentials={server.credentials_file}"
    result = site("check", "--set", "web_port=18998", "--set", login, "--json")
    assert [f for f in result.json["findings"] if f["level"] != "ok"] == []
    assert result.code == 0
