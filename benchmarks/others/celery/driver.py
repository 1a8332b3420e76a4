"""Celery with Redis: a chain of three tasks for each document, two worker processes.

BENCHMARK_KEEPS=least: as fast as it goes: no results, acknowledged when a task begins (Celery's default).
BENCHMARK_KEEPS=most: starts and results recorded in Redis, acknowledged when a task has ended, given back if its worker
dies. Tuned as its guide says for many short tasks: a high prefetch multiplier, no gossip, mingle or heartbeat, no rate
limits.
"""

import os
import sys
import time

import marks
from celery import Celery, chain

MOST = os.environ["BENCHMARK_KEEPS"] == "most"
URL = os.environ["BENCHMARK_REDIS"]
app = Celery("noop", broker=URL, backend=URL if MOST else None)
app.conf.update(
    task_ignore_result=not MOST, task_track_started=MOST, task_acks_late=MOST, task_reject_on_worker_lost=MOST,
    worker_prefetch_multiplier=128, worker_disable_rate_limits=True, worker_send_task_events=False,
    broker_connection_retry_on_startup=True, worker_hijack_root_logger=False,
)  # fmt: skip


@app.task(name="step")
def step(document: int, number: int) -> None:
    """A step that does nothing."""
    marks.mark(document, number)


def main() -> None:
    given = marks.options()
    words = ("worker", "-c", str(given.workers), "-P", "prefork", "-l", "ERROR", "--without-gossip",
             "--without-mingle", "--without-heartbeat")  # fmt: skip
    command = (sys.executable, "-m", "celery", "-A", "driver", *words)
    if given.what == "latency":
        with marks.started(*command):
            marks.latency(lambda number: step.si(number, 0).apply_async(), given, "celery", "redis")
        return
    began = time.time()
    for document in range(given.documents):
        chain(*(step.si(document, number) for number in range(marks.STEPS))).apply_async()
    enqueued, launched = time.time() - began, time.time()
    with marks.started(*command) as worker:
        marks.wait(given.documents * marks.STEPS, lambda: worker.poll() is None)
    marks.throughput(given.documents, enqueued, launched, "celery", "redis")


if __name__ == "__main__":
    main()
