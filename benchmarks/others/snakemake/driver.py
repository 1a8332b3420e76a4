"""Snakemake: three rules for each document, two jobs at once on this machine; each job is a shell command."""

import os
import subprocess
import sys
import time
from pathlib import Path

import marks


def main() -> None:
    given = marks.options()
    folder = Path(os.environ["BENCHMARK_MARKS"]).parent
    began = time.time()
    command = [
        sys.executable, "-m", "snakemake", "-s", str(Path(__file__).parent / "Snakefile"),
        "--cores", str(given.workers), "--directory", str(folder), "--config", f"documents={given.documents}",
        "--quiet", "all", "--latency-wait", "0",
    ]  # fmt: skip
    with (folder / "said.log").open("ab") as log:
        done = subprocess.run(command, stdout=log, stderr=log, env={**os.environ, "XDG_CACHE_HOME": str(folder)})
    if done.returncode:
        raise SystemExit("Snakemake says that a rule failed")
    marks.throughput(given.documents, 0.0, began, "snakemake")


if __name__ == "__main__":
    main()
