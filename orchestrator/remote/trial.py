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
from orchestrator.errors import ChainError
from orchestrator.remote.target import Target
from orchestrator.schedulers import Listing, Query, Scheduler, SchedulerError
from orchestrator.transports import TransportError

#: How the trial jobs' names begin: no daemon takes them for its own.
PREFIX = "orc-check-"
#: How often the job's files and the queue are looked at (s).
EVERY = 1.0
#: What the trial asks for (s): a farm starts short jobs soon.
TIME_LIMIT = 120.0


@dataclass
class Trial:
    """What came of it: the node, what was found there; if no result came, what the batch system and the job said."""

    host: str = ""
    result: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    said: str = ""
    last: str = ""
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
        end, gone = clock() + longest, 0.0
        while clock() < end:
            if attempt in world.look(name).results:
                report, trial.host = world.result(name, attempt)
                trial.result, trial.reason = report.result, report.reason
                return trial
            there, trial.said = _state(world)
            gone = 0.0 if there else gone or clock()
            if gone and clock() - gone > target.farm.grace.result:
                trial.reason = "it ended without a result"
                break
            sleep(EVERY)
        else:
            trial.reason = f"no result within {longest:g} s"
            target.transport.run(scheduler.cancel([scheduler.key(submitted.number)]).argv)
        trial.last = _last_line(target, spec.stderr)
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


def _state(world: World) -> tuple[bool, str]:
    """Whether the queue has the job, or cannot be asked; and what it, or after it the history, says of it."""
    try:
        listing = world.queue()
        if listing.jobs:
            return True, _words(listing)
        past = world.history()
    except SchedulerError as error:
        return True, str(error)
    return not listing.complete, _words(past) if past and past.jobs else "it is not in the queue any more"


def _words(listing: Listing) -> str:
    job = listing.jobs[0]
    code = f"exit code {job.exit_code}" if job.exit_code else ""
    return " ".join(word for word in (job.raw_state, job.reason, code) if word)


def _last_line(target: Target, path: str) -> str:
    """The end of what the job itself wrote as its error, if it came to that."""
    try:
        lines = target.transport.read(path).decode("utf-8", "replace").strip().splitlines()
    except TransportError:
        return ""
    return lines[-1][:300] if lines else ""
