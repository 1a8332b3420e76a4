"""From ready documents to batch jobs: which documents share a job, what it asks for, what is in its files. Pure."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from orchestrator import batchjobs, documents, jobfiles
from orchestrator.chain import Chain, Step
from orchestrator.documents import Document
from orchestrator.errors import DataError
from orchestrator.farms import Farm
from orchestrator.jobfiles import Chunk
from orchestrator.runner import Task
from orchestrator.schedulers import INDEX, JobSpec, Resources
from orchestrator.settings import Settings
from orchestrator.software import Installed

#: A job is warned so long (s) before its time limit, or half its set-up time before, if that is less.
WARNING = 60.0


@dataclass
class Intent:
    """A batch job that is to be: its name, the step, how often it asks for more, the documents of each task."""

    name: str
    step: Step
    degrade: int
    chunks: list[list[Document]]


def plan(
    taken: Iterable[tuple[Document, Step]], farm: Farm, new_name: Callable[[Step], str], most: int
) -> list[Intent]:
    """Group documents into jobs: by step and by what they ask for, in chunks, in arrays; at most ``most`` jobs."""
    groups: dict[tuple[str, int], tuple[Step, list[Document]]] = {}
    for document, step in taken:
        key = (step.key, batchjobs.degraded(document, step))
        groups.setdefault(key, (step, []))[1].append(document)
    intents = []
    for (_, degrade), (step, found) in groups.items():
        size = step.documents_per_job
        chunks = [found[start : start + size] for start in range(0, len(found), size)]
        for start in range(0, len(chunks), farm.limits.array):
            intents.append(Intent(new_name(step), step, degrade, chunks[start : start + farm.limits.array]))
    return intents[:most]


def asked(step: Step, degrade: int) -> Step:
    """The step with the limits and the queue of a job that asks for more, ``degrade`` times."""
    if degrade <= 0:
        return step
    change: dict[str, Any] = {}
    if step.time_limit is not None:
        change["time_limit"] = step.time_limit * step.degrade.time**degrade
    if step.memory_limit is not None:
        change["memory_limit"] = int(step.memory_limit * step.degrade.memory**degrade)
    if step.degrade.queue:
        change["queue"] = step.degrade.queue
    return step.model_copy(update=change)


@dataclass
class Places:
    """Folders at the farm, and how its Python is called there."""

    spool: str
    output: str
    logs: str
    python: tuple[str, ...]
    path: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    direct: dict[str, str] | None = None


def places(farm: Farm, installed: Installed | None, settings: Settings) -> Places:
    """Where things are at a farm, and its Python: the chain's, else the installed one, else, here, this one."""
    local, spool = farm.transport == "local", farm.spool.rstrip("/")
    logs = str(settings.logs / "steps") if local else f"{spool}/logs/steps"
    output = farm.output or str(settings.data)
    direct = {"database": farm.database, "credentials": farm.credentials} if farm.results == "both" else None
    if installed is not None and not farm.python:
        path, modules = (*installed.path, *farm.path), installed.modules
        return Places(spool, output, logs, installed.python, path, modules, direct)
    modules = (str(settings.folder),) if local else ()
    return Places(spool, output, logs, farm.python or (sys.executable,), farm.path, modules, direct)


def spec(name: str, step: Step, degrade: int, tasks: int, farm: Farm, places: Places) -> JobSpec:
    """The job as the batch system is told of it. Raises UnfitJob where it cannot be told."""
    wanted = asked(step, degrade)
    time = None
    if wanted.time_limit is not None:
        time = wanted.time_limit * step.documents_per_job + farm.setup_time
    memory = None if wanted.memory_limit is None else wanted.memory_limit + farm.setup_memory
    folder, logs = jobfiles.folder(places.spool, name), jobfiles.logs(places.spool, name)
    index = INDEX if tasks > 1 else "1"
    warning = None if time is None else min(WARNING, farm.setup_time / 2)
    return JobSpec(
        name, (*places.python, "-m", "orchestrator.job"), f"{logs}/script", logs, f"{logs}/out-{index}",
        f"{logs}/err-{index}", array=tasks,
        chunks=tuple(f"{folder}/{jobfiles.chunk_name(task)}" for task in range(1, tasks + 1)),
        resources=Resources(time, memory, step.cores, wanted.queue, farm.options),
        environment={"PYTHONPATH": ":".join(places.path)} if places.path else {},
        warning=warning or None,
    )  # fmt: skip


def chunk(
    chain: Chain, step: Step, degrade: int, name: str, task: int, found: list[tuple[Document, str]], places: Places
) -> Chunk:
    """The chunk file of one task; ``found`` are its documents, as claimed, with their attempts."""
    limited = tuple(asked(step, degrade) if one.key == step.key else one for one in chain.steps)
    data = chain.model_copy(update={"steps": limited, "farms": {}}).model_dump(mode="json")
    tasks = []
    for document, attempt in found:
        try:
            source = documents.input_file(chain, document, step)
        except DataError:
            source = None  # the step is told that there is no input, in its own attempt
        tasks.append(Task(document, step.key, attempt, source).to_json())
    return Chunk(
        name, task, jobfiles.folder(places.spool, name), step.key, data, chain.fingerprint(), places.output, "",
        places.logs, list(places.modules), tasks, places.direct,
    )  # fmt: skip


@dataclass
class Pace:
    """How many submissions may still be made: so many a minute."""

    per_minute: float
    _made: deque[float] = field(default_factory=deque)

    def left(self, now: float) -> int:
        """Submissions that may be made now."""
        while self._made and not 0 <= now - self._made[0] < 60:
            self._made.popleft()
        return max(0, int(max(1.0, self.per_minute)) - len(self._made))

    def shift(self, by: float) -> None:
        """The clock was set by so many seconds."""
        self._made = deque(made + by for made in self._made)

    def made(self, now: float) -> None:
        """One has been made."""
        self._made.append(now)
