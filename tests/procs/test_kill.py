"""kill -9 at any moment of a step, then the step again: the output is whole, and only part files are left over."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from procs.rootio import counts
from procs.simulate import simulate

PROGRAM = """
import logging, sys, uuid
from pathlib import Path
from orchestrator.step import Work
from procs.amplitude import Amplitude
from procs.convert import convert
from procs.histograms import histograms
from procs.transfer import transfer

source, output = sys.argv[1], Path(sys.argv[2])
document = {"_id": "d", "run_name": "run", "file": source, "format": "samba"}
work = lambda text: Work({}, output, output, uuid.uuid4().hex, logging.getLogger(), text)
analysis = Amplitude({}, logging.getLogger())
print("go", flush=True)
for step in (transfer, convert, analysis.process, histograms):
    source = step(document, work(source))["file"]
print("done", flush=True)
"""


@pytest.mark.timeout(120)
def test_a_killed_chain_of_steps_is_whole_after_the_next_try(tmp_path: Path) -> None:
    written = simulate(tmp_path / "daq", runs=1, partitions=1, events=400, broken=0, date_runs=0, detectors=1)[0]
    output = tmp_path / "data"
    output.mkdir()
    command = [sys.executable, "-c", PROGRAM, str(written.path), str(output)]
    chance = random.Random(5)
    for _ in range(3):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "go\n"
            try:
                child.wait(chance.uniform(0.0, 0.7))
            except subprocess.TimeoutExpired:
                child.kill()
        for path in output.rglob("*.root"):
            if not path.name.startswith("."):
                counts(path)  # whatever has its last name can be read
    subprocess.run(command, check=True, capture_output=True)
    finished = {path.name: path for path in output.rglob("*.root") if not path.name.startswith(".")}
    assert set(finished) == {"d.root", "d_amplitudes.root", "d_histograms.root", "histograms_run.root"}
    assert counts(finished["d.root"]) == {"channels": 2, "events": 400, "pulses": 800}
    assert counts(finished["d_amplitudes.root"]) == {"amplitudes": 800}
    hidden = [path.name for path in output.rglob(".*") if path.is_file() and path.name != ".histograms.lock"]
    assert all(name.endswith(".part") for name in hidden)
