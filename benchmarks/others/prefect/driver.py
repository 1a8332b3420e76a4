"""Prefect: three tasks for each document in one flow, two threads, a server of its own on SQLite.

The server runs beside it with its services (in a real set-up it does), the log is quiet, telemetry is off. Results are
not persisted (BENCHMARK_KEEPS=most: they are, as files). The states of tasks travel to the server as events while the
flow goes on, and a service there records them: the run ends when the last one is recorded.
"""

import json
import os
import socket
import sys
import time
import urllib.request
from pathlib import Path

FOLDER = Path(os.environ["BENCHMARK_MARKS"]).parent
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    PORT = probe.getsockname()[1]
os.environ |= {
    "PREFECT_HOME": str(FOLDER), "PREFECT_API_URL": f"http://127.0.0.1:{PORT}/api", "PREFECT_LOGGING_LEVEL": "ERROR",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "PREFECT_LOGGING_TO_API_ENABLED": "false", "DO_NOT_TRACK": "1",
}  # fmt: skip

import marks  # noqa: E402 - the settings above are read when it is imported
from prefect import flow, task  # noqa: E402
from prefect.cache_policies import NO_CACHE  # noqa: E402
from prefect.task_runners import ThreadPoolTaskRunner  # noqa: E402


@task(cache_policy=NO_CACHE, persist_result=os.environ["BENCHMARK_KEEPS"] == "most")
def step(document: int, number: int) -> None:
    """A step that does nothing."""
    marks.mark(document, number)


def recorded() -> int:
    """How many tasks the server has recorded as completed."""
    asked = json.dumps({"task_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{PORT}/api/task_runs/count", asked, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        return int(answer.read())


def wait_for_records(expected: int) -> float:
    """When the last one was there. Ends the process if no more come."""
    found, since = -1, time.monotonic()
    while (now := recorded()) < expected:
        if now != found:
            found, since = now, time.monotonic()
        if time.monotonic() - since > marks.PATIENCE:
            raise SystemExit(f"{found} of {expected} tasks were recorded, then no more for {marks.PATIENCE:.0f} s")
        time.sleep(0.05)
    return time.time()


def answers() -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/api/health", timeout=2):
            return True
    except OSError:
        return False


def main() -> None:
    given = marks.options()

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=given.workers))
    def whole() -> None:
        last = []
        for document in range(given.documents):
            before: list[object] = []
            for number in range(marks.STEPS):
                before = [step.submit(document, number, wait_for=before)]
            last += before
        for one in last:
            one.wait()

    words = ("server", "start", "--host", "127.0.0.1", "--port", str(PORT))
    began = time.time()
    with marks.started(sys.executable, "-m", "prefect", *words) as server:
        while not answers():
            if server.poll() is not None or time.time() - began > 120:
                raise SystemExit("the server of Prefect did not come up")
            time.sleep(0.1)
        whole()
        ended = wait_for_records(given.documents * marks.STEPS)
    marks.throughput(given.documents, 0.0, began, "prefect", ended=ended)
    # What sends events waits at the interpreter's end until a server takes them: for ever, if that has ended before.
    os._exit(0)


if __name__ == "__main__":
    main()
