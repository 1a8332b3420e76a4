"""What a replay is made of, and the sentences with which it refuses."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator.couch import Credentials, Server
from orchestrator.embedded.testing import EmbeddedServer
from orchestrator.errors import Conflict, DataError, NotFound, SettingsError
from orchestrator.online import replaying
from orchestrator.online.configuration import Online, loads
from orchestrator.online.store import RunRecord
from orchestrator.online.stores import serve_stores
from orchestrator.settings import Settings

SHARED = Path(os.environ.get("ORCHESTRATOR_SHARED_DATA", Path(__file__).parents[4] / "shared" / "data"))
MICE = SHARED / "mice_06008.000"
pytestmark = pytest.mark.skipif(
    not MICE.is_file(), reason="needs the folder of real files: set ORCHESTRATOR_SHARED_DATA"
)


def online(module: str, **settings: Any) -> Online:
    return loads(f"input: {{module: 'procs.online.inputs.{module}', settings: {settings!r}}}\nstore: {{kind: memory}}")


@pytest.fixture
def site(tmp_path: Path) -> Settings:
    return Settings.load(tmp_path, {}, {"url": "http://127.0.0.1:9"})  # where nobody listens


def test_a_replay_takes_the_first_name_that_nothing_has(site: Settings) -> None:
    where = online("date:DateInput", files=str(MICE), whole="next spill", grow=True)
    made = replaying.plan([str(MICE)], where, site, {}, speed=2)
    assert replaying.runs_in(made) == ["6008.replay1"]
    # The input's own settings stay, for the spills must be the same.
    assert made.entry.settings["settings"] == {"whole": "next spill"}
    stores, close = serve_stores(where.store, site, {})
    try:
        stores.of("6008.replay1").save(RunRecord("6008.replay1"))
        (Path(site.folder) / "online" / "runs" / "6008.replay2").mkdir(parents=True)
        assert replaying.runs_in(replaying.plan(["6008"], where, site, {}, speed=2)) == ["6008.replay3"]
        for taken in ("6008.replay1", "6008.replay2"):
            with pytest.raises(Conflict, match="--as"):
                replaying.plan(["6008"], where, site, {}, speed=2, name=taken)
        assert replaying.runs_in(replaying.plan(["6008"], where, site, {}, speed=2, name="x")) == ["x"]
        with pytest.raises(SettingsError, match="cannot be a run's name"):
            replaying.plan(["6008"], where, site, {}, speed=2, name="../x")
    finally:
        close()


def test_what_is_neither_a_file_nor_a_run_is_said_so(site: Settings, tmp_path: Path) -> None:
    where = online("date:DateInput", files=str(MICE))
    with pytest.raises(NotFound, match=r"could not be asked .* name the files"):
        replaying.plan(["7777"], where, site, {}, speed=1)
    with pytest.raises(NotFound):
        replaying.plan([str(tmp_path / "*.000")], where, site, {}, speed=1)
    (tmp_path / "text").write_text("nothing")
    with pytest.raises(DataError, match="cannot be replayed"):
        replaying.plan([str(tmp_path / "text")], where, site, {}, speed=1)


def test_the_run_database_knows_where_a_runs_files_are(tmp_path: Path) -> None:
    where = online("socket:SocketInput")
    with EmbeddedServer(tmp_path / "database") as process:
        text = f"url: {process.url}\ncredentials: {process.credentials_file}\n"
        (tmp_path / "orchestrator.yaml").write_text(text)
        site = Settings.load(tmp_path, {})
        server = Server(process.url, Credentials(*process.credentials))
        server.create("runs")
        for number in (2, 0, 1):
            path = tmp_path / f"r_{number:03d}"
            if number != 2:  # that one has been taken away
                path.write_bytes(b"")
            document = {"_id": f"r_{number:03d}", "type": "daqdocument", "run_name": "r", "file": str(path)}
            server.database("runs").put(document)
        found = replaying.files_of("r", where, site, {})
        assert found == [str(tmp_path / "r_000"), str(tmp_path / "r_001")]
        with pytest.raises(NotFound, match="the run database knows none"):
            replaying.files_of("s", where, site, {})


def test_a_running_system_is_fed_as_its_input_is() -> None:
    assert replaying.target(online("socket:SocketInput"), "auto") == "socket"
    growing = online("date:DateInput", files="/daq/*", grow=True)
    assert replaying.target(growing, "auto") == replaying.target(growing, "file") == "file"
    complete = online("date:DateInput", files="x")
    samba, listening = online("samba:SambaInput", files="x"), online("socket:SocketInput")
    for where, to in ((growing, "socket"), (listening, "file"), (samba, "auto"), (complete, "auto")):
        with pytest.raises(SettingsError, match="brings its own input"):
            replaying.target(where, to)


def test_a_replayed_file_comes_after_the_newest_and_never_while_the_daq_writes(tmp_path: Path) -> None:
    where = online("date:DateInput", files=str(tmp_path / "*.[0-9][0-9][0-9]"), grow=True)
    for name in ("r_9.000", "r_10.001"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(Conflict, match=r"the DAQ writes .*r_10.001"):
        replaying.growing_path(where, time.time())
    path = replaying.growing_path(where, time.time() + 100)("6008.replay1")
    path.write_bytes(b"")
    (tmp_path / "r_11.000").write_bytes(b"")
    found = [Path(one).name for one in replaying.Listing({"files": str(tmp_path / "*.0*"), "begin": "all"}, "").found()]
    assert found == ["r_9.000", "r_10.001", "r_10.as-6008.replay1.000", "r_11.000"]
    nowhere = online("date:DateInput", files=str(tmp_path / "none" / "*"), grow=True)
    with pytest.raises(SettingsError, match="there is no folder"):
        replaying.growing_path(nowhere, time.time())


def test_a_run_that_is_on_is_not_ended_by_a_replay(tmp_path: Path) -> None:
    replaying.must_be_idle(tmp_path)
    (tmp_path / "online").mkdir()
    for run, refused in ((None, False), ("6009", True)):
        (tmp_path / "online" / "transform.json").write_text(json.dumps({"state": "running", "run": run}))
        if refused:
            with pytest.raises(Conflict, match="run 6009 is on"):
                replaying.must_be_idle(tmp_path)
        else:
            replaying.must_be_idle(tmp_path)


def test_a_run_is_over_when_its_plots_are_safe_or_without_reducers_when_it_has_ended(site: Settings) -> None:
    stores, close = serve_stores(online("socket:SocketInput").store, site, {})
    try:
        assert replaying.over(stores, ["1"], True) is None
        for state, with_reducers, without in (("begun", 0, 0), ("ended", 0, 1), ("final", 1, 1)):
            stores.of("1").save(RunRecord("1", state))
            assert bool(replaying.over(stores, ["1"], True)) == bool(with_reducers)
            assert bool(replaying.over(stores, ["1"], False)) == bool(without)
        assert replaying.wait_for(stores, ["1"], True, lambda _: False) is not None
        assert replaying.wait_for(stores, ["2"], True, lambda _: True) is None
    finally:
        close()
