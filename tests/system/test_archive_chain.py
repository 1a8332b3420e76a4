"""The example chain with an archive lane and runs, on simulated Samba files, from the DAQ's folder to the bundle."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import uproot

import orchestrator
from orchestrator.embedded.testing import EmbeddedServer

pytestmark = pytest.mark.system
CODE = Path(orchestrator.__file__).parent.parent


def test_runs_have_their_histograms_and_raw_files_their_bundle(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path / "database") as server:
        site = tmp_path / "site"
        environment = {**os.environ, "PYTHONPATH": str(CODE), "ORCHESTRATOR_URL": server.url}
        environment["ORCHESTRATOR_COUCH_USER"], environment["ORCHESTRATOR_COUCH_PASSWORD"] = server.credentials

        def run(*words: str) -> str:
            done = subprocess.run(
                [sys.executable, "-m", "orchestrator.cli", *words], cwd=tmp_path, env=environment, capture_output=True,
                text=True, timeout=180,
            )  # fmt: skip
            assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
            return done.stdout

        run("init", str(site), "--chain", "samba-archive")
        chain = site / "chain.yaml"
        text = re.sub(r"settle: 1?0? ?(min|h)|settle: \S+ \S+", "settle: 0 s", chain.read_text())
        chain.write_text(text.replace("own: 200 MB ", "own: 1 kB "))
        run("-C", str(site), "couchapp", "push")
        run("-C", str(site), "simulate", str(tmp_path / "daq"), "--runs", "2", "--partitions", "2", "--events", "20")
        run("-C", str(site), "register", str(tmp_path / "daq"))
        run("-C", str(site), "poll", "--until-idle")
        run("-C", str(site), "gather", "--until-idle")
        for branch in ("runs", "tars"):
            run("-C", str(site), "poll", "--branch", branch, "--until-idle")
        run("-C", str(site), "gather", "--until-idle")

        def show(name: str) -> dict[str, Any]:
            return dict(json.loads(run("-C", str(site), "show", name, "--json"))["document"])

        from orchestrator.couch import Credentials, Server

        rows = Server(server.url, Credentials(*server.credentials)).database("runs").all_docs(include_docs=True)
        found = [row.doc for row in rows if row.doc]
        data = [one for one in found if one.get("type") == "daqdocument"]
        runs = [one for one in found if one.get("type") == "run"]
        assert len(data) >= 4 and all(one["archive_status"] == "good" for one in data)
        assert {one["run_name"] for one in runs} == {one["run_name"] for one in data}
        for one in runs:
            assert one["status"] == "good", one
            members = [d for d in data if d["run_name"] == one["run_name"]]
            assert len(one["members"]) == len(members)
            total = sum(d["proc3"]["result"]["total"] for d in members)
            assert one["proc0"]["result"]["total"] == total > 0
            with uproot.open(one["proc0"]["file"]) as file:
                histograms = [key for key in file.keys() if file.classname_of(key).startswith("TH1")]  # noqa: SIM118
                sums = [file[key].values(flow=True).sum() for key in histograms]
            assert sum(sums) == total
        for one in data:
            with tarfile.open(one["archive_proc0"]["file"]) as tar:
                listed = json.load(tar.extractfile("members.json"))["members"]  # type: ignore[arg-type]
            assert one["_id"] in {entry["id"] for entry in listed}
        assert show(data[0]["_id"])["archive_proc0"]["state"] == "done"

        # Every output knows where it comes from: by itself, by its name, or as a member.
        one = data[0]
        for key in ("proc0", "proc1", "proc2", "proc3"):
            told = json.loads(run("-C", str(site), "provenance", one[key]["file"], "--json"))
            assert told["document"] == one["_id"] and told["notes"] == []
            assert [step["key"] for step in told["steps"]] == [f"proc{n}" for n in range(int(key[4:]) + 1)]
            assert told["steps"][-1]["output"]["checksum"] == one[key]["checksum"]
            assert all(step["host"] and step["software"]["chain"] and step["input"]["file"] for step in told["steps"])
        assert told["steps"][-1]["software"]["settings"]["output"] == "histograms"
        assert told["steps"][2]["input"]["checksum"] == one["proc1"]["checksum"]
        for made in (runs[0]["proc0"]["file"], one["archive_proc0"]["file"]):
            told = json.loads(run("-C", str(site), "provenance", made, "--json"))
            assert told["notes"] == [] and len(told["members"]) >= 2
        with Path(one["proc0"]["file"]).open("ab") as file:
            file.write(b"x")
        words = [sys.executable, "-m", "orchestrator.cli", "-C", str(site), "provenance", one["proc0"]["file"]]
        changed = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
        assert changed.returncode == 1 and "not what the database says" in changed.stderr
