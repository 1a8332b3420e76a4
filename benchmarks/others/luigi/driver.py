"""Luigi: three tasks for each document, two worker processes, its local scheduler.

What is done is what has its output file, so each task leaves one, written under another name and renamed.
"""

import os
import time
from pathlib import Path

import luigi
import marks

FOLDER = Path(os.environ["BENCHMARK_MARKS"]).parent / "targets"


class Step(luigi.Task):
    """A step that does nothing but to leave a file."""

    document = luigi.IntParameter()
    number = luigi.IntParameter()

    def requires(self) -> list[luigi.Task]:
        return [Step(document=self.document, number=self.number - 1)] if self.number else []

    def output(self) -> luigi.LocalTarget:
        return luigi.LocalTarget(str(FOLDER / f"{self.document}_{self.number}"))

    def run(self) -> None:
        marks.mark(self.document, self.number)
        with self.output().open("w") as stream:
            stream.write("done\n")


def main() -> None:
    given = marks.options()
    FOLDER.mkdir()
    began = time.time()
    tasks = [Step(document=document, number=marks.STEPS - 1) for document in range(given.documents)]
    if not luigi.build(tasks, workers=given.workers, local_scheduler=True, log_level="ERROR"):
        raise SystemExit("Luigi says that a task failed")
    marks.throughput(given.documents, 0.0, began, "luigi")


if __name__ == "__main__":
    main()
