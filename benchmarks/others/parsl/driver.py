"""Parsl: three apps for each document, each waiting for the one before, two workers of the high-throughput executor.

BENCHMARK_KEEPS=most: every result is checkpointed when its task ends, so that a second run of the same script skips it;
``least``: no checkpoints. The queue of the tasks themselves lives in the memory of the script that submits them.
"""

import os
import time
from pathlib import Path

import marks
import parsl
import steps
from parsl.app.app import python_app
from parsl.config import Config
from parsl.dataflow.memoization import BasicMemoizer
from parsl.executors import HighThroughputExecutor
from parsl.providers import LocalProvider


def main() -> None:
    given = marks.options()
    most = os.environ["BENCHMARK_KEEPS"] == "most"
    folder = Path(os.environ["BENCHMARK_MARKS"]).parent
    began = time.time()
    executor = HighThroughputExecutor(
        label="two", address="127.0.0.1", max_workers_per_node=given.workers, prefetch_capacity=50, encrypted=False,
        provider=LocalProvider(init_blocks=1, min_blocks=1, max_blocks=1),
    )  # fmt: skip
    config = Config(
        executors=[executor], run_dir=str(folder), strategy="none", initialize_logging=False,
        memoizer=BasicMemoizer(checkpoint_mode="task_exit" if most else None, memoize=most),
    )  # fmt: skip
    with parsl.load(config):
        step = python_app(steps.begin, cache=most)
        last = []
        for document in range(given.documents):
            before = None
            for number in range(marks.STEPS):
                before = step(document, number, before)
            last.append(before)
        enqueued = time.time() - began
        for one in last:
            one.result()
        marks.throughput(given.documents, enqueued, began, "parsl")


if __name__ == "__main__":
    main()
