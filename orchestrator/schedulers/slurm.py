"""Slurm: ``sbatch``, ``squeue``, ``sacct``, ``scancel``.

Written against 22.05; the forms used are those of 20.02 and later. ``squeue -t all`` also lists jobs that ended less
than MinJobAge ago (300 s by default), with their exit status, so that a farm without any accounting is still judged
well by a poller that asks once a minute. ``sacct`` needs slurmdbd; without it ``sacct -c`` reads the text file of the
plugin ``jobcomp/filetxt``, where the site keeps one and lets our account open it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from orchestrator.schedulers.base import Scheduler, checked_keys, is_ours, utc
from orchestrator.schedulers.errors import SchedulerUnavailable, UnfitJob
from orchestrator.schedulers.model import INDEX, Answer, Command, Job, JobSpec, Listing, Query, Submitted
from orchestrator.schedulers.script import clock, mebibytes
from orchestrator.schedulers.states import JobState

STATES: dict[str, JobState] = {
    "PENDING": JobState.QUEUED,
    "CONFIGURING": JobState.QUEUED,
    "REQUEUED": JobState.QUEUED,
    "REQUEUE_FED": JobState.QUEUED,
    "REQUEUE_HOLD": JobState.HELD,
    "RESV_DEL_HOLD": JobState.HELD,
    "SPECIAL_EXIT": JobState.HELD,
    "RUNNING": JobState.RUNNING,
    "COMPLETING": JobState.RUNNING,
    "RESIZING": JobState.RUNNING,
    "SIGNALING": JobState.RUNNING,
    "STAGE_OUT": JobState.RUNNING,
    "STOPPED": JobState.RUNNING,
    "SUSPENDED": JobState.RUNNING,
    "COMPLETED": JobState.DONE,
    "FAILED": JobState.FAILED,
    "LAUNCH_FAILED": JobState.FAILED,
    "CANCELLED": JobState.CANCELLED,
    "REVOKED": JobState.CANCELLED,
    "TIMEOUT": JobState.TIMEOUT,
    "DEADLINE": JobState.TIMEOUT,
    "OUT_OF_MEMORY": JobState.OUT_OF_MEMORY,
    "NODE_FAIL": JobState.NODE_FAILED,
    "BOOT_FAIL": JobState.NODE_FAILED,
    "RECONFIG_FAIL": JobState.NODE_FAILED,
    "PREEMPTED": JobState.NODE_FAILED,
}
"""Slurm's words. ``PREEMPTED`` counts as the node's fault: the job did nothing wrong and may simply run again."""

HELD_REASONS = frozenset(
    {"JobHeldUser", "JobHeldAdmin", "DependencyNeverSatisfied", "BadConstraints", "PartitionTimeLimit",
     "PartitionNodeLimit", "AccountNotAllowed", "InvalidAccount", "InvalidQOS", "JobHoldMaxRequeue",
     "launch_failed_requeued_held"}
)  # fmt: skip
"""Reasons with which a pending job never begins unless somebody acts."""

# The name comes last, as it may hold anything: a stranger's may even hold a line break.
_QUEUE_FIELDS = (
    ("ArrayJobID", 20), ("ArrayTaskID", 40), ("State", 30), ("exit_code", 20), ("Reason", 80), ("Partition", 60),
    ("UserName", 60), ("NodeList", 200), ("SubmitTime", 30), ("StartTime", 30), ("EndTime", 30), ("Name", 200),
)  # fmt: skip
_QUEUE_FORMAT = ",".join(f"{field}:{width}|" for field, width in _QUEUE_FIELDS)
_TASK = re.compile(r"[0-9]{1,9}\Z")
_NO_OUTPUT = 53  # no signal: what Slurm puts there when it cannot open the job's stdout or stderr
_QUEUE_LINE = re.compile(r"[0-9]+ *\|")
_HISTORY_FIELDS = "JobID,State,ExitCode,Partition,User,NodeList,Submit,Start,End,JobName"
# sacct -c knows fewer of them
_COMPLETION_FIELDS = "JobID,State,Partition,User,NodeList,Start,End,JobName"
_HISTORY_LINE = re.compile(r"([0-9]+)(?:_(?:([0-9]+)|\[[^|]*\]))?\|")


class Slurm(Scheduler):
    """See the module and `Scheduler`."""

    name = "slurm"
    warns = True
    task_variable = "${SLURM_ARRAY_TASK_ID:-1}"
    number_variable = "${SLURM_ARRAY_JOB_ID:-${SLURM_JOB_ID:-}}"
    away = (
        "unable to contact slurm controller",
        "unable to contact the controller",
        "unable to communicate with the slurm controller",
        "connection refused",
        "connection timed out",
        "socket timed out",
        "zero bytes were transmitted",
        "slurm backup controller in standby",
        "slurmctld in recovery",
        "munge encode failed",
        "munge decode failed",
        "authentication error",
        "could not resolve host",
        "unable to establish configuration source",
        "unable to process configuration",
        "failed to open persistent connection",
        "sending persistdinit",
    )
    not_sent = ("connection refused", "connect failure", "munge encode", "configuration source", "resolve host")
    later = (
        "job violates accounting/qos policy",
        "temporarily unable to accept job",
        "resource temporarily unavailable",
        "maximum number of jobs",
        "max job",
        "submit limit",
    )

    # without cgroups a job that is killed for its memory ends as FAILED 0:9, and only these lines say why
    written = (
        ("Exceeded job memory limit", JobState.OUT_OF_MEMORY),
        ("exceeded memory limit", JobState.OUT_OF_MEMORY),
        ("oom-kill event", JobState.OUT_OF_MEMORY),
        ("oom_kill event", JobState.OUT_OF_MEMORY),
        ("DUE TO TIME LIMIT", JobState.TIMEOUT),
        ("DUE TO NODE FAILURE", JobState.NODE_FAILED),
        ("DUE TO PREEMPTION", JobState.NODE_FAILED),
    )

    def submit(self, spec: JobSpec) -> Command:
        wanted = spec.resources
        words = [
            "--parsable",
            f"--job-name={spec.name}",
            f"--output={_pattern(spec.stdout, spec)}",
            f"--error={_pattern(spec.stderr, spec)}",
            f"--chdir={spec.directory}",
            # the submitter's own environment may hold the database's password
            "--export=NONE",
            "--no-requeue",
            "--nodes=1",
            "--ntasks=1",
            f"--cpus-per-task={wanted.cores}",
        ]
        if spec.is_array:
            words.append(f"--array=1-{spec.tasks}")
        if wanted.time is not None:
            words.append(f"--time={clock(wanted.time)}")
        if wanted.memory is not None:
            words.append(f"--mem={mebibytes(wanted.memory)}M")
        if wanted.queue:
            words.append(f"--partition={wanted.queue}")
        if spec.warning is not None:
            # B: the job script alone, which has become the runner; Slurm counts up to 65535 s
            words.append(f"--signal=B:USR1@{min(65535, max(1, round(spec.warning)))}")
        return self._command("sbatch", *words, *wanted.options, "--", spec.script, timeout=60.0)

    def read_submit(self, answer: Answer, spec: JobSpec) -> Submitted:
        # "4711", or "4711;cluster" on a federation
        return self._accepted(answer, spec, re.compile(r"^([0-9]+)(?:;.*)?$", re.MULTILINE))

    def key(self, number: str, index: int | None = None) -> str:
        return number if index is None else f"{number}_{index}"

    def listing(self, query: Query) -> Command:
        who = f"--user={query.user}" if query.user else "--me"
        return self._command("squeue", "--noheader", "--array", "--states=all", who, f"--Format={_QUEUE_FORMAT}")

    def read_listing(self, answer: Answer, query: Query) -> Listing:
        self._must_succeed(answer, "list its queue")
        jobs: list[Job] = []
        unread: list[str] = []
        for line in answer.stdout.split("\n"):
            fields = [field.strip() for field in line.split("|", len(_QUEUE_FIELDS) - 1)]
            if not _QUEUE_LINE.match(line):
                continue  # the rest of a stranger's name with a line break in it
            if len(fields) != len(_QUEUE_FIELDS):
                if query.prefix in line:
                    unread.append(line[:200])
                continue
            number, task, state, status, reason, queue, user, node, submitted, started, ended, name = fields
            job = Job(
                number,
                int(task) if _TASK.match(task) else None,
                name.removesuffix("|").rstrip(),
                *_state(state, reason),
                reason="" if reason == "None" else reason,
                queue=queue,
                user=user,
                node=node,
                submitted=utc(submitted),
                started=utc(started),
                finished=utc(ended),
            )
            if is_ours(job, query):
                jobs.append(_with_status(job, status))
        return Listing(tuple(jobs), tuple(unread))

    def history(self, query: Query) -> list[Command]:
        since = f"--starttime=now-{max(1, round(query.days * 24))}hours"
        who = (f"--user={query.user}",) if query.user else ()
        plain = ("--noheader", "--parsable2", *who)
        return [
            self._command(
                "sacct", *plain, "--allocations", since, f"--format={_HISTORY_FIELDS}", timeout=60.0, way="sacct"
            ),
            self._command(
                "sacct", "--completion", *plain, f"--format={_COMPLETION_FIELDS}", timeout=60.0, way="jobcomp"
            ),
        ]

    def read_history(self, command: Command, answer: Answer, query: Query) -> Listing:
        text = answer.stderr.lower()
        if answer.exit_code and any(
            piece in text
            for piece in ("accounting storage is disabled", "jobcomp", "permission denied", "no such file")
        ):
            raise self._no_history(answer, answer.said)
        self._must_succeed(answer, "tell its history")
        jobs: dict[tuple[str, int | None], Job] = {}
        unread: list[str] = []
        for line in answer.stdout.split("\n"):
            match = _HISTORY_LINE.match(line)
            if not match:
                continue
            try:
                job = _finished_job(match, line, command.way == "jobcomp")
            except ValueError:
                if query.prefix in line:
                    unread.append(line[:200])
                continue
            if is_ours(job, query):
                jobs[job.number, job.index] = job  # a requeued job stands there once a run: the last line counts
        return Listing(tuple(jobs.values()), tuple(unread))

    def cancel(self, keys: Sequence[str]) -> Command:
        # --quiet: jobs that have ended already are no error
        return self._command("scancel", "--quiet", *checked_keys(keys), timeout=60.0)

    def read_cancel(self, answer: Answer) -> None:
        super().read_cancel(answer)
        if answer.exit_code and "invalid job id" not in answer.stderr.lower():
            raise SchedulerUnavailable(f"slurm did not cancel: {answer.said}", said=answer.said, perhaps_done=True)


def _pattern(path: str, spec: JobSpec) -> str:
    """``path`` as sbatch's file name pattern, which gives ``%`` and the backslash a meaning of their own."""
    if "\\" in path:
        raise UnfitJob(f"job {spec.name}: Slurm cannot write to a path with a backslash: {path!r}")
    return path.replace("%", "%%").replace(INDEX, "%a")


def _state(raw: str, reason: str) -> tuple[JobState, str]:
    """Our state and Slurm's words, which may be several: ``CANCELLED by 1000``, ``NODE_FAIL`` with a node's list."""
    words = raw.replace("+", " ").split()
    state = STATES.get(words[0].upper(), JobState.UNKNOWN) if words else JobState.UNKNOWN
    if state is JobState.QUEUED and reason.replace(" ", "_") in HELD_REASONS:
        state = JobState.HELD
    return state, raw


def _with_status(job: Job, status: str) -> Job:
    """``job`` with its exit code and signal, from the raw status of wait(2) (768 is exit 3) or from ``3:0``."""
    if not job.state.final:
        return replace(job, finished="")  # Slurm shows when the time limit will be reached
    code, signal = _status(status)
    if signal == _NO_OUTPUT:
        return replace(
            job, exit_code=None, signal=None, reason=f"{job.reason} (its output could not be opened)".strip()
        )
    return replace(job, exit_code=code, signal=signal)


def _status(text: str) -> tuple[int | None, int | None]:
    parts = text.split(":")
    if len(parts) == 2 and all(part.isascii() and part.isdigit() for part in parts):
        return int(parts[0]), int(parts[1]) or None
    if text.isascii() and text.isdigit() and len(text) < 10:
        return int(text) >> 8 & 0xFF, int(text) & 0x7F or None
    return None, None


def _finished_job(match: re.Match[str], line: str, completion: bool) -> Job:
    """One line of sacct. Raises ValueError if it has too few fields."""
    fields: Iterator[str] = iter(line.split("|", (_COMPLETION_FIELDS if completion else _HISTORY_FIELDS).count(",")))
    row = dict(zip((_COMPLETION_FIELDS if completion else _HISTORY_FIELDS).split(","), fields, strict=True))
    state, raw = _state(row["State"], "")
    job = Job(
        match[1],
        int(match[2]) if match[2] else None,
        row["JobName"],
        state,
        raw,
        reason=raw if " " in raw else "",
        queue=row["Partition"],
        user=row["User"].partition("(")[0],
        node="" if row["NodeList"] in ("None assigned", "(null)") else row["NodeList"],
        submitted=utc(row.get("Submit", "")),
        started=utc(row["Start"]),
        finished=utc(row["End"]),
    )
    return _with_status(job, row.get("ExitCode", ""))
