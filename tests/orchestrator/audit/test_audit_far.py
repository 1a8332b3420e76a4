"""Outputs at a farm across SSH are looked for there: what is missing or differs is found, with one call a folder."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from orchestrator import chain as chains
from orchestrator.audit.document import Output
from orchestrator.audit.far import FarOutputs
from orchestrator.audit.findings import Finding
from orchestrator.transports.testing import Sshd


def looking(sshd: Sshd, far: Path, *, deep: bool = False, **access: Any) -> tuple[FarOutputs, Any]:
    chain = chains.loads(
        "name: far\nfarms:\n  centre:\n    transport: ssh\n    scheduler: fsched\n"
        f"    access: {json.dumps({**sshd.settings, **access})}\n    spool: {far}/spool\n    output: {far}/out\n"
        "steps: [{name: s0, run: 'm:f', executor: farm, farm: centre}]"
    )
    return FarOutputs(chain, deep=deep), chain.steps[0]


def wrong(looking_: FarOutputs, outputs: list[Output]) -> dict[str, str]:
    found: list[Finding] = [*looking_.look(outputs), *looking_.unseen()]
    return {one.document: one.kind for one in found if one.document} | {
        one.subject: one.kind for one in found if not one.document
    }


def test_what_is_missing_or_differs_there_is_found(sshd: Sshd, far: Path) -> None:
    for name in ("a", "b"):
        (far / name).mkdir()
    (far / "real").write_bytes(b"four")
    outputs, content = [], b"four"
    total = "sha256:" + hashlib.sha256(content).hexdigest()
    look, step = looking(sshd, far)
    for number in range(200):
        path = far / "ab"[number % 2] / f"file {number}"
        path.write_bytes(content)
        outputs.append(Output(f"d{number}", step, str(path), 4, total))
    (far / "a" / "file 0").unlink()
    (far / "b" / "file 1").write_bytes(b"longer")
    (far / "a" / "file 2").unlink()
    (far / "a" / "file 2").symlink_to(far / "real")
    (far / "b" / "file 3").unlink()
    (far / "b" / "file 3").symlink_to(far / "nowhere")
    (far / "a" / "file 4").write_bytes(b"fool")
    outputs.append(Output("lost", step, str(far / "no folder" / "file"), 4, None))
    expected = {"d0": "output-missing", "d1": "output-differs", "d3": "output-missing", "lost": "output-missing"}
    try:
        assert wrong(look, outputs) == expected
        assert len(look._folders) == 3, "a folder is listed once, however many outputs lie in it"
        (far / "a" / "file 0").write_bytes(content)
        assert wrong(look, outputs)["d0"] == "output-missing", "what was listed is kept for one look"
        look.again()
        assert "d0" not in wrong(look, outputs)
    finally:
        look.close()
    deep, _ = looking(sshd, far, deep=True)
    try:
        assert wrong(deep, outputs[:6]) == {"d1": "output-differs", "d3": "output-missing", "d4": "output-differs"}
    finally:
        deep.close()


def test_a_farm_that_cannot_be_asked_is_said_once(sshd: Sshd, far: Path) -> None:
    look, step = looking(sshd, far, port=1, timeouts={"connect": 2})
    outputs = [Output("d", step, str(far / "x"), 1, None)]
    try:
        assert wrong(look, outputs) == {"outputs at farm centre": "not-looked-at"}
        assert wrong(look, outputs) == {"outputs at farm centre": "not-looked-at"}
    finally:
        look.close()
