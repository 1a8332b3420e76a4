"""The transform and a worker killed at each of their fault points, with a real database: each spill is there once."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from orchestrator import faults
from orchestrator.embedded.testing import EmbeddedServer
from orchestrator.online import configuration
from orchestrator.online.stores import open_stores
from orchestrator.settings import Settings

POINTS = [name for name in faults.POINTS if name.startswith("transform.")]
#: Where it is a later time that matters: two runs of 60 spills, some in hand and some in the store.
TIMES = {"transform.processed": 17, "transform.storing": 4, "transform.stored": 4, "transform.placed": 3}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with EmbeddedServer(tmp_path_factory.mktemp("database")) as running:
        yield running


@pytest.mark.system
@pytest.mark.parametrize("name", POINTS)
def test_killed_at_a_point_and_started_again_each_spill_is_there_once(
    online: Any, server: EmbeddedServer, name: str, tmp_path: Path
) -> None:
    (online.folder / "orchestrator.yaml").write_text(
        f"url: {server.url}\ncredentials: {server.credentials_file}\nembedded: never\n"
    )
    online.online["store"] = {"kind": "couch", "prefix": re.sub(r"\W", "", name)}
    online.online["input"]["settings"] = {"spills": 60, "runs": 2, "words": 8}
    online.online["map"][0]["settings"] = {"nap": 0.002}
    online.online["workers"]["local"] = 1
    online.write()
    note = tmp_path / "note"
    environment = os.environ | {
        faults.VARIABLE: f"{name}:{TIMES.get(name, 1)}", faults.NOTE: str(note), "PYTHONPATH": "",
    }  # fmt: skip
    words = online.command("transform", "--until-end")
    first = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120)
    assert note.exists(), f"it never came to {name}: {first.stderr}"
    if name == "transform.processed":  # the worker's: it was replaced, and its spill done again
        assert first.returncode == 0, first.stderr
    else:
        assert first.returncode == -9, first.stderr
        again = online.call("transform", "--until-end")
        assert again.returncode == 0, again.stderr + online.logs()
    stores = open_stores(
        configuration.load(online.folder / "online.yaml").store, Settings.load(online.folder, {}), {}
    )
    for run in ("100", "101"):
        record = stores.of(run).record()
        assert (record.state, record.how, record.done, record.failed) == ("ended", "trailer", 60, 0), run
        assert stores.of(run).numbers() == dict.fromkeys(range(60), False)
