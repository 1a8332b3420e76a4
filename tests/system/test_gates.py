"""A gate in a chain file, from the worker (here or in a batch job) to what people read and do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import orchestrator
from orchestrator import chain as chains
from orchestrator import designs
from orchestrator.couch import deploy
from orchestrator.schedulers.fsched import PROGRAM

pytestmark = pytest.mark.system
CODE = Path(orchestrator.__file__).parent.parent

#: Writes as many bytes as the document's file number says; one byte more at each further attempt.
STEPS = """
def write(document, work):
    path = work.output_path("out", document["_id"])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * (document["file_number"] + document["proc0"]["number"]))
    return {"file": str(path), "size": path.stat().st_size}
"""
CHAIN = """
name: marks
farms:
  centre: {{scheduler: fsched, spool: {folder}/far, every: 0.3, environment: {{FSCHED_DIR: {folder}/queue}},
           path: ["{code}"], limits: {{submissions_per_minute: 1000}}}}
steps:
  - name: s0
    run: sitesteps:write
    retries: {{count: 1, wait: 0 s, on: []}}
    gates: [{{name: large-enough, size_min: {size}, then: {then}}}]{where}
"""


@pytest.mark.parametrize("where", ["", "\n    executor: farm\n    farm: centre\n    documents_per_job: 3"])
def test_what_a_gate_refuses_is_bad_with_its_reason_until_a_person_lets_it_go_on(
    make_site: Callable[..., Any], where: str
) -> None:
    site = make_site()
    folder, daemon = site.folder, "farm" if where else "poll"
    (folder / "queue").mkdir()
    (folder / "sitesteps.py").write_text(STEPS)
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{CODE}"}

    def use(**words: Any) -> None:
        text = CHAIN.format(folder=folder, code=CODE, where=where, **words)
        (folder / "chain.yaml").write_text(text)
        site.chain = chains.loads(text)
        deploy.push(site.database, designs.build(site.chain))

    def say(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "orchestrator.cli", *words], cwd=folder, env=environment, capture_output=True,
            text=True, timeout=60,
        )  # fmt: skip

    try:
        use(size="3 B", then="retry")
        site.add(3)
        assert site.start(daemon, "--until-idle").wait(60) == 0
        found = site.everything()
        assert [found[f"r000_00{n}"]["status"] for n in range(3)] == ["bad", "good", "good"]
        assert [found[f"r000_00{n}"]["proc0"]["number"] for n in range(3)] == [2, 2, 1], "two were tried again"
        entry = found["r000_000"]["proc0"]
        assert (entry["state"], entry["gate"], entry["size"]) == ("refused", "large-enough", 2)
        assert site.database.get("attempt:r000_001:proc0:1")["state"] == "refused"
        shown = say("show", "r000_000").stdout
        assert "has 2 bytes, and must have 3" in shown and "large-enough" in shown and "mark-good r000_000" in shown
        assert json.loads(say("audit", "--json", "--grace", "0").stdout)["counts"].keys() <= {"output-unnamed"}
        use(size="1 B", then="bad")
        assert say("mark-good", "r000_000", "--reason", "small ones will do").returncode == 0
        assert site.start(daemon, "--until-idle").wait(60) == 0
        assert site.everything()["r000_000"]["status"] == "good"
    finally:
        subprocess.run([sys.executable, PROGRAM, "stop"], env={**environment, "FSCHED_DIR": str(folder / "queue")})
