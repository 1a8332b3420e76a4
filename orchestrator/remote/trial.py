"""One real job that does nothing but look around: it proves that a node sees the spool, the runner and the steps."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from orchestrator.chain import Chain
from orchestrator.engine import submission
from orchestrator.engine.farmworld import World
from orchestrator.engine.submission import Places
from orchestrator.errors import ChainError, OrchestratorError
from orchestrator.remote.target import Target
from orchestrator.schedulers import Query, Scheduler, SchedulerError

#: How the trial jobs' names begin: no daemon takes them for its own.
PREFIX = "orc-check-"
#: How often the job's files and the queue are looked at (s).
EVERY = 1.0
#: What the trial asks for (s): a farm starts short jobs soon.
TIME_LIMIT = 120.0


@dataclass
class Trial:
    """What came of it: the node, what was wrong there, and, if no result came, the last that the queue said."""

    host: str = ""
    result: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    said: str = ""
    logs: str = ""


def run(
    target: Target,
    scheduler: Scheduler,
    places: Places,
    longest: float,
    *,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> Trial:
    """Submit the job, wait for it at most ``longest`` seconds, and clear it away. Raises what the farm raises."""
    name = f"{PREFIX}{uuid.uuid4().hex[:10]}"
    step = _chain(target).steps[0]
    world = World(scheduler, target.transport, target.spool, Query(name, target.farm.user))
    attempt = uuid.uuid4().hex
    document = {"_id": "site-check", "type": "site-check"}
    spec = submission.spec(name, step, 0, 1, target.farm, places)
    chunk = submission.chunk(_chain(target), step, 0, name, 1, [(document, attempt)], places)
    trial = Trial(logs=spec.directory)
    world.prepare(spec, [chunk])
    try:
        submitted = world.submit(spec)
        end = clock() + longest
        while clock() < end:
            if attempt in world.look(name).results:
                report, trial.host = world.result(name, attempt)
                trial.result, trial.reason = report.result, report.reason
                return trial
            trial.said = _state(world)
            sleep(EVERY)
        trial.reason = f"no result within {longest:g} s"
        target.transport.run(scheduler.cancel([scheduler.key(submitted.number)]).argv)
        return trial
    finally:
        world.remove(name)
        if trial.host and not trial.reason:
            target.transport.run(["rm", "-rf", "--", spec.directory])


def _chain(target: Target) -> Chain:
    """A chain of one step that looks around, asking for what the farm's own steps ask for."""
    loads = {step.name: step.run for step in target.steps if step.run}
    first = target.steps[0]
    try:
        return Chain.model_validate(
            {
                "name": "site-check", "type": "site-check", "farms": {target.name: target.farm},
                "steps": [
                    {
                        "name": "site-check", "run": "orchestrator.remote.onnode:look", "executor": "farm",
                        "farm": target.name, "queue": first.queue, "time_limit": TIME_LIMIT,
                        "settings": {"steps": loads},
                    }
                ],
            }
        )  # fmt: skip
    except ValueError as error:
        raise ChainError(f"no trial job can be made for farm {target.name}: {error}") from error


def _state(world: World) -> str:
    """What the queue, and after it the history, say of the job."""
    try:
        found = world.queue().jobs or getattr(world.history(), "jobs", ())
    except (SchedulerError, OrchestratorError) as error:
        return str(error)
    return f"{found[0].raw_state} {found[0].reason}".strip() if found else "the batch system does not know it"
