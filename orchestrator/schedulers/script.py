"""The job script: one for every batch system, made so that nothing in it is ever read as shell words by accident.

All that the batch system itself must know travels as arguments of its submit command. The script only goes to its
directory, says which task it is, and becomes the job's program.
"""

from __future__ import annotations

import math
import shlex

from orchestrator.schedulers.model import JobSpec

NO_DIRECTORY = 111
"""Exit code of a job whose working directory is not there."""

NO_CHUNK = 112
"""Exit code of a task whose number has no chunk file: the batch system gave it a number that was not asked for."""


def job_script(spec: JobSpec, *, scheduler: str, task: str, number: str, warns: bool) -> str:
    """The script that the batch system runs once for each task.

    Args:
        scheduler: name of the batch system, for the job's environment.
        task: shell expression of the task's number from 1; its default must be 1.
        number: shell expression of the job's number.
        warns: whether the batch system sends SIGUSR1 before the time limit; if not, coreutils' ``timeout`` does.
    """
    lines = [
        "#!/bin/sh",
        f"# batch job {spec.name}: goes to its directory and becomes its program",
        "# a warning that comes before the program listens for it must not end it",
        "trap '' USR1 USR2",
        *(f"export {key}={shlex.quote(value)}" for key, value in sorted(spec.environment.items())),
        f"export ORCHESTRATOR_SCHEDULER={shlex.quote(scheduler)} ORCHESTRATOR_JOB={shlex.quote(spec.name)}",
        f'ORCHESTRATOR_TASK="{task}"',
        f'ORCHESTRATOR_JOB_NUMBER="{number}"',
        "export ORCHESTRATOR_TASK ORCHESTRATOR_JOB_NUMBER",
        f"cd -- {shlex.quote(spec.directory)} || exit {NO_DIRECTORY}",
        "set -- " + shlex.join(_words(spec, warns)),
    ]
    if spec.chunks:
        lines.append('case "$ORCHESTRATOR_TASK" in')
        lines += [f'{index}) set -- "$@" {shlex.quote(path)} ;;' for index, path in enumerate(spec.chunks, 1)]
        lines += [f'*) echo "task $ORCHESTRATOR_TASK has no chunk" >&2; exit {NO_CHUNK} ;;', "esac"]
    lines.append('exec "$@"')
    return "\n".join(lines) + "\n"


def _words(spec: JobSpec, warns: bool) -> tuple[str, ...]:
    """The command, wrapped so that it is warned where the batch system has no warning of its own."""
    if warns or spec.warning is None or spec.resources.time is None:
        return spec.command
    after = max(1, math.floor(spec.resources.time - spec.warning))
    # --foreground: only the program is warned, not the steps that it runs, as Slurm does it
    return ("timeout", "--foreground", "--preserve-status", "--signal=USR1", str(after), *spec.command)


def clock(seconds: float) -> str:
    """A duration as H:MM:SS, rounded up to whole seconds: the form that all batch systems take."""
    whole = math.ceil(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def mebibytes(size: int) -> int:
    """Bytes in MiB, rounded up."""
    return max(1, -(-size // 2**20))
