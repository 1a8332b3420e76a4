"""Pools of real workers, whose steps are written for the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator import chain as chains
from orchestrator.executors.pool import Pool
from orchestrator.executors.spool import Spool
from orchestrator.runner import Places
from tests.orchestrator.executors.pools import STEPS


@pytest.fixture
def make_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Pool]]:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "poolsteps.py").write_text(STEPS)
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    made: list[tuple[Pool, Spool]] = []

    def make(*steps: str, size: int = 1, cost: float = 0.001) -> Pool:
        chain = chains.loads("name: t\nsteps:\n" + "".join(f"  - {step}\n" for step in steps))
        spool = Spool(tmp_path / "spool", "p")
        places = Places(tmp_path / "out", tmp_path / "scratch", tmp_path / "logs")
        pool = Pool(chain, places, spool, size, name="p", cost=lambda key: cost, depth=0.25)
        made.append((pool, spool))
        return pool

    yield make
    for pool, spool in made:
        if not pool._closing:
            pool.close()
        spool.close()
