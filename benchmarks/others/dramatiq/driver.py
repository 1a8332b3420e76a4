"""dramatiq with Redis: a pipeline of three messages for each document, two worker processes of four threads.

BENCHMARK_KEEPS=least: no results. BENCHMARK_KEEPS=most: results stored in Redis. A message is acknowledged when its
actor has ended, in both. Four threads a process instead of eight: more only compete for Python's lock in steps that do
nothing.
"""

import os
import sys
import time

import dramatiq
import marks
from dramatiq.brokers.redis import RedisBroker

MOST = os.environ["BENCHMARK_KEEPS"] == "most"
broker = RedisBroker(url=os.environ["BENCHMARK_REDIS"])
if MOST:
    from dramatiq.results import Results
    from dramatiq.results.backends import RedisBackend

    broker.add_middleware(Results(backend=RedisBackend(url=os.environ["BENCHMARK_REDIS"])))
dramatiq.set_broker(broker)


def begin(document: int, number: int) -> None:
    """A step that does nothing."""
    marks.mark(document, number)


step = dramatiq.actor(actor_name="step", **({"store_results": True} if MOST else {}))(begin)


def main() -> None:
    given = marks.options()
    command = (sys.executable, "-m", "dramatiq", "driver", "-p", str(given.workers), "-t", "4")
    if given.what == "latency":
        with marks.started(*command):
            marks.latency(lambda number: step.send(number, 0), given, "dramatiq", "redis")
        return
    began = time.time()
    for document in range(given.documents):
        messages = [
            step.message_with_options(args=(document, number), pipe_ignore=True) for number in range(marks.STEPS)
        ]
        dramatiq.pipeline(messages).run()
    enqueued, launched = time.time() - began, time.time()
    with marks.started(*command) as worker:
        marks.wait(given.documents * marks.STEPS, lambda: worker.poll() is None)
    marks.throughput(given.documents, enqueued, launched, "dramatiq", "redis")


if __name__ == "__main__":
    main()
