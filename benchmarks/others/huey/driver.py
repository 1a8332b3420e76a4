"""huey with SQLite or Redis: a pipeline of three tasks for each document, two worker processes.

BENCHMARK_KEEPS=sqlite: its SQLite storage, each commit flushed to the disk, with a minute's patience for its lock
(after the usual 5 s a busy machine loses tasks). Anything else: its Redis storage. Results are stored with ``most``
alone. No periodic tasks; an idle worker looks again after 5 to 20 ms.
"""

import os
import sys
import time
from pathlib import Path

import marks
from huey import RedisHuey, SqliteHuey

KEEPS = os.environ["BENCHMARK_KEEPS"]
if KEEPS == "sqlite":
    file = Path(os.environ["BENCHMARK_MARKS"]).parent / "huey.db"
    huey = SqliteHuey("noop", filename=str(file), fsync=True, timeout=60, results=False)
else:
    huey = RedisHuey("noop", url=os.environ["BENCHMARK_REDIS"], results=KEEPS == "most", store_none=KEEPS == "most")


@huey.task()
def step(document: int, number: int) -> None:
    """A step that does nothing."""
    marks.mark(document, number)


def main() -> None:
    given = marks.options()
    command = (sys.executable, "-m", "huey.bin.huey_consumer", "driver.huey", "-k", "process",
               "-w", str(given.workers), "-d", "0.005", "-m", "0.02", "-n", "-q")  # fmt: skip
    if given.what == "latency":
        with marks.started(*command):
            marks.latency(lambda number: step(number, 0), given, "huey", "redis")
        return
    began = time.time()
    for document in range(given.documents):
        pipeline = step.s(document, 0)
        for number in range(1, marks.STEPS):
            pipeline = pipeline.then(step, document, number)
        huey.enqueue(pipeline)
    enqueued, launched = time.time() - began, time.time()
    with marks.started(*command) as worker:
        marks.wait(given.documents * marks.STEPS, lambda: worker.poll() is None)
    marks.throughput(given.documents, enqueued, launched, "huey", "redis")


if __name__ == "__main__":
    import driver  # the tasks carry their module's name, which the consumer must find

    driver.main()
