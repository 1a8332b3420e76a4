"""The database's password, and names that a shell could trip over, on their way through a real batch system."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

ODD = (
    "a name with spaces", "it's", '"quoted"', "new\nline", "$(touch pwned)", "`touch pwned`", "; touch pwned", "ü ∑",
    "<b>&amp;", "--help", "%t%j$x",
)  # fmt: skip


def processes_of_jobs() -> list[Path]:
    """What runs now inside a batch job of ours, by its environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if b"ORCHESTRATOR_JOB=orc-" in path.read_bytes():
                found.append(path.parent)
        except OSError:
            continue
    return found


def holders(secret: str, *folders: Path) -> list[str]:
    """Files that hold the secret."""
    found = []
    for folder in folders:
        for path in folder.rglob("*"):
            try:
                if path.is_file() and secret.encode() in path.read_bytes():
                    found.append(str(path))
            except OSError:
                continue
    return found


@pytest.mark.parametrize("name", ["slurm-accounting", "gridengine", "htcondor"])
def test_no_credential_and_no_harm_by_names(name: str, make_farm_site: Callable[..., Any]) -> None:
    site = make_farm_site(name)
    site.write_chain(
        [
            {"name": f"s{n}", "run": "farmsteps:mark", "settings": {"step": n, "seconds": 0.7, "words": list(ODD)},
             "documents_per_job": 4, "time_limit": "60 s", "memory_limit": "300 MB"}
            for n in range(2)
        ]
    )  # fmt: skip
    (site.folder / "credentials.json").unlink()
    user, secret = site.server.credentials
    # in the daemon's environment, where a batch system that passes the submitter's on would find it
    site.more |= {"ORCHESTRATOR_COUCH_USER": user, "ORCHESTRATOR_COUCH_PASSWORD": secret}
    site.database.bulk(
        [
            {"_id": odd, "type": "daqdocument", "run_name": odd, "file_number": number, "status": "closed",
             "file": f"/raw/{odd}", "hostname": odd}
            for number, odd in enumerate(ODD)
        ]
    )  # fmt: skip
    site.start()
    site.wait(lambda: len(processes_of_jobs()) >= 2, 60, "jobs to run")
    seen = 0
    for process in processes_of_jobs():
        try:
            told = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue
        seen += 1
        assert secret.encode() not in told and b"COUCH" not in told
    assert seen
    listed = b"".join(path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists())
    assert secret.encode() not in listed
    site.wait(site.finished, 120)
    site.check()
    assert set(site.everything()) == set(ODD)
    assert {name for name, _, _ in site.lines("effects")} == set(ODD)
    assert site.spool.is_dir() and not holders(secret, site.folder, site.system.folder)
    assert secret not in json.dumps([row.doc for row in site.database.all_docs(include_docs=True)])
    listing = site.command("jobs")
    assert listing.returncode == 0, listing.stderr
    assert not list(Path(site.account.pw_dir).rglob("pwned")) and not os.path.exists("/pwned")  # noqa: PTH110
