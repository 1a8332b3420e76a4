"""A thousand documents at a real batch system: how often it is called to submit them, and to watch them."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(1500)]
LONG = bool(os.environ.get("ORCHESTRATOR_LONG"))
PROGRAMS = {
    "slurm": ("sbatch", "squeue", "sacct", "scancel"), "gridengine": ("qsub", "qstat", "qacct", "qdel"),
}  # fmt: skip


class Calls:
    """Wrappers around a batch system's programs that note each call."""

    def __init__(self, site: Any) -> None:
        self.folder, self.log = site.folder / "programs", site.folder / "calls"
        self.folder.mkdir()
        self.log.touch()
        os.chown(self.log, site.account.pw_uid, site.account.pw_gid)
        for program in PROGRAMS[site.system.script]:
            real = f"{site.system.programs or '/usr/bin'}/{program}"
            wrapper = self.folder / program
            wrapper.write_text(f"#!/bin/sh\necho {program} >> {self.log}\nexec {real} \"$@\"\n")
            wrapper.chmod(0o755)

    def count(self) -> Counter[str]:
        return Counter(self.log.read_text().split())


def hold_nodes(site: Any, held: bool) -> None:
    """Let jobs wait, or begin."""
    if site.system.script == "slurm":
        state = ("state=drain", "reason=test") if held else ("state=resume",)
        site.system.admin("scontrol", "update", "nodename=n[1-2]", *state)
    else:
        site.system.admin("/usr/lib/gridengine/qmod", "-d" if held else "-e", "*")


@pytest.mark.parametrize("name", ["slurm", "gridengine"])
def test_a_thousand_documents(name: str, make_farm_site: Callable[..., Any]) -> None:
    """All of them as jobs of their own, in the queue at once; then (LONG) each done, else the first of them."""
    site = make_farm_site(name)
    calls = Calls(site)
    step = {"name": "s0", "run": "farmsteps:mark", "settings": {"step": 0}, "retries": {"count": 3, "wait": "0.1 s"}}
    site.write_chain([step], programs=str(calls.folder))
    submit, watch = PROGRAMS[name][:2]
    hold_nodes(site, True)
    try:
        site.add(1000)
        site.start()
        site.wait(lambda: site.count()["proc 0 queued"] == 1000, 120, "all documents to be queued")
        site.wait(lambda: all(d["batchjob"][-1]["number"] for d in site.everything().values()), 60, "their numbers")
        assert calls.count()[submit] <= 5
        before = calls.count()
        time.sleep(4.0)
        after = calls.count()
        # the farm is asked once a second, by one call for all thousand
        assert 2 <= after[watch] - before[watch] <= 6 and set(after - before) == {watch}
    finally:
        hold_nodes(site, False)
    wanted = 1000 if LONG else 30
    site.wait(lambda: site.count()["good"] >= wanted, 900, f"{wanted} documents to be done")
    assert calls.count()[submit] <= 5
    if LONG:
        site.wait(site.finished, 60)
        print(f"\n{name}: {site.check()}, calls {dict(calls.count())}")
    else:
        hold_nodes(site, True)
        try:
            site.stop()
        finally:
            hold_nodes(site, False)
    assert set(Counter((name, step) for name, step, _ in site.lines("effects")).values()) == {1}
