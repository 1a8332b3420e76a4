"""Spills under fire: workers killed every few seconds, the database stopped once, a reducer, the broadcast and the
transform killed; every histogram has the same counts as from one process that was left alone."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uproot

from orchestrator.embedded.testing import EmbeddedServer

LONG = bool(os.environ.get("ORCHESTRATOR_LONG"))
SPILLS = 100_000 if LONG else 5_000
WORDS = 8


def expected(count: int) -> np.ndarray[Any, Any]:
    """Left alone: each spill's numbers folded and counted."""
    return np.bincount((np.arange(count)[:, None] + np.arange(WORDS)[None, :]).ravel() % 97, minlength=97)


def snapshot(folder: Path, run: str, name: str) -> np.ndarray[Any, Any]:
    with uproot.open(folder / "online" / "runs" / run / f"{name}.root") as file:
        return np.asarray(file[name].values())


@pytest.mark.system
@pytest.mark.timeout(1800 if LONG else 300)
def test_nothing_is_lost_or_counted_twice_whatever_dies(online: Any, tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path / "database") as server:
        (online.folder / "orchestrator.yaml").write_text(
            f"url: {server.url}\ncredentials: {server.credentials_file}\nembedded: never\n"
        )
        online.online["store"] = {"kind": "couch"}
        online.online["input"]["settings"] = {"spills": SPILLS, "words": WORDS}
        online.online["map"][0]["settings"] = {"busy": 0.0 if LONG else 0.001}
        online.online["workers"]["tries"] = 20  # kills hit whom they hit
        first = online.online["reduce"][0]
        online.online["reduce"].append({**first, "name": "again", "settings": {"plot": "again"}})
        online.start()
        chance = random.Random(1)
        begun = time.monotonic()
        next_kill, database, reducer, broadcast, transform = begun, True, True, True, True
        kills = 0

        def over() -> bool:
            told = online.told()
            return (told.get("last") or {}).get("run") == "100"

        while not over():
            told = online.told()
            done = told.get("done") or 0
            # One that has just begun is left alone: on a slow machine nothing would ever be done.
            at_work = [one["name"] for one in told.get("workers", []) if one["done"] > 150]
            now = time.monotonic()
            assert now - begun < (1500 if LONG else 270), online.logs()
            if now >= next_kill and at_work:
                next_kill = now + (chance.uniform(1.0, 4.0) if LONG else chance.uniform(0.7, 1.5))
                kills += online.kill("worker", chance.choice(at_work))
            if database and done > SPILLS // 5:
                database = False
                server.kill()
                time.sleep(5.0 if LONG else 2.0)
                server.restart()
            if reducer and done > SPILLS // 3:
                reducer = False
                assert online.kill("reduce", "folded")
            if broadcast and done > SPILLS // 2:
                broadcast = False
                assert online.kill("broadcast")
            if transform and done > 2 * SPILLS // 3:
                transform = False
                assert online.kill("transform")
            time.sleep(0.05)
        last = online.told()["last"]
        online.until(lambda: (online.folder / "online" / "runs" / "100" / "run.json").exists(), 300)
        assert kills > 1 and not (database or reducer or broadcast or transform)
        assert (last["read"], last["done"], last["failed"], last["pending"]) == (SPILLS, SPILLS, 0, 0)
        wanted = expected(SPILLS)
        for name in ("folded", "again"):
            assert (snapshot(online.folder, "100", name) == wanted).all()
        print(f"{SPILLS} spills in {time.monotonic() - begun:.0f} s, {kills} workers killed")
        online.stop()
