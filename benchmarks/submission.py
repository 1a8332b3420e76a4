"""Documents a second into a real batch system, by arrays and by chunks, and what it costs to watch them.

    sudo python benchmarks/submission.py                            Slurm and Grid Engine, 1,000 documents
    sudo python benchmarks/submission.py --systems slurm --documents 100 --rounds 1

It brings up a batch system of its own (deploy/batch, installed by ``deploy/batch/install.sh slurm gridengine``; hence
root), whose node takes no jobs, so that nothing runs and all wait in the queue. Then, in turns:

- *arrays*: the farm's daemon with one document a job, all jobs of a step in arrays of up to 1,000: from its first round
  to the moment when each document knows its job's number. It writes the intent, the chunk files, the note and the
  number.
- *chunks*: the same with 30 documents a job.
- *single*: the same with arrays of one job, for a tenth of the documents: one call each.
- *by hand*: the plain submit command with an array of as many tasks, and with one job a call: the batch system's own
  limit.
- *watching*: a round of the daemon with all of them in the queue; the calls it makes, and one question to the history.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import common
import yaml

from orchestrator import chain as chains
from orchestrator import designs
from orchestrator.couch import Credentials, Server, deploy
from orchestrator.documents import iso
from orchestrator.farmer import Farmer
from orchestrator.schedulers.testing import SYSTEMS, BatchSystem, NotInstalled, why_not
from orchestrator.settings import Settings

FOLDER = Path("/var/tmp/batch-systems-of-benchmarks")
PORTS = {"slurm": 24817, "gridengine": 24444}
PATIENCE = 300.0  # s


def hold(system: BatchSystem) -> None:
    """Let no job begin."""
    if system.script == "slurm":
        system.admin("scontrol", "update", "nodename=n[1-2]", "state=drain", "reason=benchmark")
    else:
        system.admin("/usr/lib/gridengine/qmod", "-d", "*")


def document(number: int) -> dict[str, Any]:
    """A file that is ready for its first step."""
    return {
        "_id": f"b_{number:06d}", "type": "daqdocument", "run_name": "b", "file_number": number, "status": "good",
        "file": f"/raw/{number}", "hostname": "daq1", "size": 10**6, "registered": iso(time.time()),
    }  # fmt: skip


def chain_of(system: BatchSystem, spool: Path, array: int, together: int) -> str:
    """A chain of one step that goes to the farm."""
    step = {"name": "first", "run": "procs.noop:nothing", "executor": "farm", "farm": "centre",
            "documents_per_job": together}  # fmt: skip
    farm = {
        **system.farm, "spool": str(spool), "every": 1, "python": [shutil.which("python3") or "/usr/bin/python3"],
        "limits": {"submissions_per_minute": 1e6, "array": array, "queued": 100_000, "jobs": 100_000},
    }  # fmt: skip
    return yaml.safe_dump({"name": "bench", "farms": {"centre": farm}, "steps": [step]}, sort_keys=False)


def by_daemon(
    system: BatchSystem, server: Server, credentials: Credentials, count: int, array: int, together: int
) -> dict[str, float]:
    """One round of the farm's daemon in this process: submits all, then watches five rounds; the jobs are cancelled."""
    name = f"bench-{uuid.uuid4().hex}"
    server.create(name)
    with tempfile.TemporaryDirectory(dir=FOLDER) as scratch:
        folder = Path(scratch)
        folder.chmod(0o755)
        login = {"username": credentials.username, "password": credentials.password}
        (folder / "credentials.json").write_text(json.dumps(login))
        (folder / "credentials.json").chmod(0o600)
        (folder / "orchestrator.yaml").write_text(
            f"url: {server.url}\ndatabase: {name}\ncredentials: credentials.json\nlease: 60\n"
        )
        chain = chains.loads(chain_of(system, folder / "far", array, together))
        database = server.database(name)
        deploy.push(database, designs.build(chain))
        database.bulk([document(number) for number in range(count)])
        database.view("work/proc0", limit=1, reduce=False)
        farmer = Farmer(chain, database, Settings.load(folder), "centre", os.environ)
        world, calls = farmer.engine.world, [0]
        run = world.transport.run

        def counted(*words: Any, **how: Any) -> Any:
            calls[0] += 1
            return run(*words, **how)

        world.transport.run = counted  # type: ignore[method-assign]
        try:
            began, used = time.monotonic(), time.process_time()
            while sum(1 for held in farmer.engine.held.values() if held.number) < count:
                farmer.round(time.time())
                if time.monotonic() - began > PATIENCE:
                    raise SystemExit(f"{system.script}: not all were submitted in {PATIENCE:.0f} s")
            found = {
                "rate": count / (time.monotonic() - began), "processor": time.process_time() - used,
                "submissions": float(world.submissions),
            }  # fmt: skip
            before, began, used = calls[0], time.monotonic(), time.process_time()
            for _round in range(5):
                farmer.round(time.time())
            found |= {
                "round": (time.monotonic() - began) / 5, "round processor": (time.process_time() - used) / 5,
                "calls": (calls[0] - before) / 5,
            }  # fmt: skip
            began = time.monotonic()
            world.history()
            found["history"] = time.monotonic() - began
            return found
        finally:
            farmer.stop()
            farmer.run()  # to its end at once
            withdraw(system, {leading(held.number) for held in farmer.engine.held.values() if held.number})
            server.delete(name)


def by_hand(system: BatchSystem, count: int, single: bool) -> dict[str, float]:
    """The batch system's own submit command."""
    with tempfile.TemporaryDirectory(dir=FOLDER) as scratch:
        folder = Path(scratch)
        folder.chmod(0o777)
        script = folder / "job.sh"
        script.write_text("#!/bin/sh\ntrue\n")
        script.chmod(0o755)
        slurm = system.script == "slurm"
        words = ["sbatch", "-o", "/dev/null"] if slurm else ["qsub", "-terse", "-o", "/dev/null", "-e", "/dev/null"]
        if not single:
            words += [f"--array=1-{count}"] if slurm else ["-t", f"1-{count}"]
        words += ["-J" if slurm else "-N", "benchmark-by-hand", str(script)]
        environment = {**os.environ, **system.environment}
        began = time.monotonic()
        numbers = []
        for _call in range(count if single else 1):
            done = subprocess.run(words, env=environment, cwd=folder, capture_output=True, text=True, check=True)
            numbers.append(leading(done.stdout))
        found = {"rate": count / (time.monotonic() - began), "submissions": float(len(numbers))}
        withdraw(system, set(numbers))
        return found


def leading(text: str) -> str:
    """The first number in a text: a job's, without its task's."""
    return next(iter(re.findall(r"[0-9]+", text)), "")


def withdraw(system: BatchSystem, numbers: set[str]) -> None:
    """Have jobs cancelled, a hundred a call."""
    words, rest = ["scancel" if system.script == "slurm" else "qdel"], sorted(numbers)
    for start in range(0, len(rest), 100):
        command = [*words, *rest[start : start + 100]]
        subprocess.run(command, env={**os.environ, **system.environment}, capture_output=True, check=False)


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--systems", nargs="*", default=list(PORTS), choices=list(PORTS))
    given = parser.parse_args()
    run = common.Run("submission", __doc__, {
        "slurm": common.first_line("slurmctld", "-V").removeprefix("slurm-wlm "),
        "gridengine": common.first_line("dpkg-query", "-W", "-f", "${Version}", "gridengine-client"),
    })  # fmt: skip
    few = max(1, given.documents // 10)
    FOLDER.mkdir(mode=0o755, parents=True, exist_ok=True)
    with common.database_server() as (server, credentials, kind):
        run.result["versions"]["database"] = kind
        for name in given.systems:
            reason = why_not(name)
            try:
                if reason:
                    raise NotInstalled(reason)
                run.say(f"{name} is brought up")
                system = SYSTEMS[name](FOLDER / name, PORTS[name], CPUS=2, SLOTS=4)
            except NotInstalled as error:
                run.add(common.table(f"{name}: not measured", [""], [], str(error)))
                continue
            with system:
                hold(system)
                daemon = partial(by_daemon, system, server, credentials)
                ways: dict[str, Callable[[], dict[str, float]]] = {
                    f"arrays, {given.documents} documents": partial(daemon, given.documents, 1000, 1),
                    f"chunks of 30, {given.documents} documents": partial(daemon, given.documents, 1000, 30),
                    f"single jobs, {few} documents": partial(daemon, few, 1, 1),
                    f"by hand, an array of {given.documents}": partial(by_hand, system, given.documents, False),
                    f"by hand, {few} single jobs": partial(by_hand, system, few, True),
                }
                found = common.interleaved(ways, given.rounds, run.say)
                run.add(shown(name, found))
    run.end(given, draw)


def shown(name: str, found: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """The table of one system."""
    keys = ("rate", "submissions", "processor", "round", "round processor", "calls", "history")
    rows = [
        [way, *(common.spread([each[key] for each in rounds]) if key in rounds[0] else None for key in keys)]
        for way, rounds in found.items()
    ]
    return common.table(
        f"{name}: submission and watching",
        ["", "documents/s", "submit calls", "processor time to submit, s", "a round of watching, s",
         "processor time of it, s", "calls a round", "a question to the history, s"],
        rows, "Processor time is the daemon's own, without the batch system's programs and without the database.",
    )  # fmt: skip


def draw(result: dict[str, Any], path: Path) -> None:
    """Documents a second as bars."""
    cells = {
        f"{table['title'].partition(':')[0]}: {row[0]}": row[1] for table in result["tables"] for row in table["rows"]
    }
    common.bars(path, "Into a batch system", "documents a second (log)", cells, logarithmic=True)


if __name__ == "__main__":
    main()
