"""HTCondor: ``condor_submit``, ``condor_q``, ``condor_history``, ``condor_rm``.

Written against 23.9. A job that breaks one of its limits is *held* here and would stay in the queue for ever; the codes
of those holds are read as what they mean (time, memory), and the description asks HTCondor to remove such jobs itself.
Any other hold (a bad output path is one) waits for somebody. The first task is process 0; ours are counted from 1.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any

from orchestrator.schedulers.base import Scheduler, checked_keys, is_ours, utc_seconds
from orchestrator.schedulers.errors import SchedulerUnavailable, UnfitJob
from orchestrator.schedulers.model import INDEX, Answer, Command, Job, JobFile, JobSpec, Listing, Query, Submitted
from orchestrator.schedulers.script import mebibytes
from orchestrator.schedulers.states import JobState

STATES: dict[int, tuple[str, JobState]] = {
    1: ("idle", JobState.QUEUED),
    2: ("running", JobState.RUNNING),
    3: ("removed", JobState.CANCELLED),
    4: ("completed", JobState.DONE),
    5: ("held", JobState.HELD),
    6: ("transferring output", JobState.RUNNING),
    7: ("suspended", JobState.RUNNING),
}
"""JobStatus, its word in the manual, and ours. Completed with another exit code than 0 is failed."""

HOLDS: dict[int, JobState] = {34: JobState.OUT_OF_MEMORY, 46: JobState.TIMEOUT, 47: JobState.TIMEOUT}
"""HoldReasonCode of holds that are the end of a job: memory, allowed_job_duration, allowed_execute_duration."""

_MEMORY_SUBCODE = 34  # ours, with the code 3 of a periodic_hold
_EVICTED = "NumJobStarts > 0"  # in HTCondor's reason for a removal, which quotes the expression
_RECONNECT = 120  # seconds; a schedd that was started anew finds its running jobs within some tens of them
_ATTRIBUTES = (
    "ClusterId,ProcId,JobStatus,JobBatchName,Owner,QDate,JobStartDate,JobCurrentStartDate,EnteredCurrentStatus,"
    "CompletionDate,ExitCode,ExitBySignal,ExitSignal,HoldReason,HoldReasonCode,HoldReasonSubCode,LastHoldReason,"
    "LastHoldReasonCode,LastHoldReasonSubCode,RemoveReason,RemoteHost,LastRemoteHost,ResidentSetSize_RAW,TotalSubmitProcs,NumJobStarts"
)


class HTCondor(Scheduler):
    """See the module and `Scheduler`."""

    name = "htcondor"
    task_variable = "$((${ORCHESTRATOR_PROCESS:-0} + 1))"
    number_variable = "${ORCHESTRATOR_CLUSTER:-}"
    away = (
        "failed to connect",
        "failed to fetch ads",
        "can't find address of local schedd",
        "can't find address of",
        "can't connect to",
        "unable to locate",
        "connection refused",
        "failed to end classad message",
        "failed to send",
        "timed out",
        "authentication failed",
        "authenticate:",
        "communication error",
        "couldn't contact",
        "could not be contacted",
    )
    not_sent = ("connection refused", "failed to connect", "can't find address", "unable to locate", "authenticat")
    later = ("max_jobs_per_owner", "max_jobs_submitted", "number of jobs submitted would exceed")

    def files(self, spec: JobSpec) -> list[JobFile]:
        return [*super().files(spec), JobFile(_description_path(spec), self.description(spec))]

    def description(self, spec: JobSpec) -> str:
        """The submit description: one ``name = value`` a line, the value being all that follows."""
        wanted = spec.resources
        lines = [
            "universe = vanilla",
            f"executable = {_value(spec.script)}",
            "transfer_executable = false",
            "should_transfer_files = no",
            f"initialdir = {_value(spec.directory)}",
            f"output = {_value(spec.stdout)}",
            f"error = {_value(spec.stderr)}",
            f"batch_name = {spec.name}",
            'environment = "ORCHESTRATOR_PROCESS=$(Process) ORCHESTRATOR_CLUSTER=$(Cluster)"',
            "orchestrator_task = $(Process) + 1",
            "max_retries = 0",
            f"request_cpus = {wanted.cores}",
        ]
        remove = [
            f"(JobStatus == 5 && {_any_of('HoldReasonCode', HOLDS)})",
            f"(JobStatus == 5 && HoldReasonCode == 3 && HoldReasonSubCode == {_MEMORY_SUBCODE})",
            # idle again after a start: evicted, unless a new schedd is about to find the running job again
            f"(JobStatus == 1 && NumJobStarts > 0 && time() - EnteredCurrentStatus > {_RECONNECT})",
        ]
        if wanted.time is not None:
            # allowed_execute_duration counts only jobs whose files HTCondor transfers
            lines.append(f"allowed_job_duration = {math.ceil(wanted.time)}")
        if wanted.memory is not None:
            size = mebibytes(wanted.memory)
            lines += [
                f"request_memory = {size}",
                # where the node does not enforce it; ResidentSetSize is in KiB
                f"periodic_hold = ResidentSetSize > {size * 1024}",
                f"periodic_hold_subcode = {_MEMORY_SUBCODE}",
                'periodic_hold_reason = "uses more memory than it asked for"',
            ]
        lines.append(f"periodic_remove = {' || '.join(remove)}")
        if wanted.queue:
            if not re.fullmatch(r"[A-Za-z0-9_.-]+", wanted.queue):
                raise UnfitJob(f"job {spec.name}: {wanted.queue!r} cannot be a queue's name here")
            lines.append(f'+Queue = "{wanted.queue}"')
        requirements = "NumJobStarts =?= 0"  # never matched a second time
        for option in wanted.options:
            if "\n" in option or "\r" in option:
                raise UnfitJob(f"job {spec.name}: an option of HTCondor is one line: {option!r}")
            if match := re.match(r"\s*requirements\s*=(.*)", option, re.IGNORECASE):
                requirements += f" && ({match[1].strip()})"
            else:
                lines.append(option)
        lines.append(f"requirements = {requirements}")
        return "\n".join([*lines, f"queue {spec.tasks}"]) + "\n"

    def submit(self, spec: JobSpec) -> Command:
        self.description(spec)  # says now what cannot be described
        return self._command("condor_submit", "-terse", _description_path(spec), timeout=60.0)

    def read_submit(self, answer: Answer, spec: JobSpec) -> Submitted:
        # "12.0 - 12.2"
        return self._accepted(answer, spec, re.compile(r"^([0-9]+)\.[0-9]+ - [0-9]+\.[0-9]+\s*$", re.MULTILINE))

    def key(self, number: str, index: int | None = None) -> str:
        return number if index is None else f"{number}.{index - 1}"

    def listing(self, query: Query) -> Command:
        whose = ("-allusers",) if query.user else ()
        return self._command("condor_q", *whose, "-json", "-constraint", _ours(query), "-attributes", _ATTRIBUTES)

    def read_listing(self, answer: Answer, query: Query) -> Listing:
        self._must_succeed(answer, "list its queue")
        return _jobs(answer, query)

    def history(self, query: Query) -> list[Command]:
        # -since ends the search at the first job that is older, or it would read the whole file
        age = f"EnteredCurrentStatus < time() - {max(3600, round(query.days * 86400))}"
        words = ("-json", "-constraint", _ours(query), "-since", age, "-attributes", _ATTRIBUTES)
        return [self._command("condor_history", *words, timeout=60.0, way="condor_history")]

    def read_history(self, command: Command, answer: Answer, query: Query) -> Listing:
        self._must_succeed(answer, "tell its history")
        return _jobs(answer, query)

    def cancel(self, keys: Sequence[str]) -> Command:
        return self._command("condor_rm", *checked_keys(keys), timeout=60.0)


def _description_path(spec: JobSpec) -> str:
    return f"{spec.script}.sub"


def _value(text: str) -> str:
    """``text`` as a value of the description, where ``$(...)`` is a macro; spaces and quotes are as they are."""
    if text != text.strip() or text.endswith("\\"):
        raise UnfitJob(f"HTCondor cannot carry a path with blanks or a backslash at its end: {text!r}")
    return text.replace("$", "$(DOLLAR)").replace(INDEX, "$INT(orchestrator_task)")


def _any_of(attribute: str, codes: Sequence[int] | dict[int, JobState]) -> str:
    return "(" + " || ".join(f"{attribute} == {code}" for code in codes) + ")"


def _ours(query: Query) -> str:
    """The constraint: prefix and account hold nothing that needs quoting (`Query`). ``=?=`` is false if undefined."""
    name = f'substr(JobBatchName, 0, {len(query.prefix)}) =?= "{query.prefix}"'
    return f'{name} && Owner =?= "{query.user}"' if query.user else name


def _jobs(answer: Answer, query: Query) -> Listing:
    text = answer.stdout.strip()
    if not text:
        return Listing()  # what condor_q -json prints of an empty queue
    try:
        ads = json.loads(text)
    except (ValueError, RecursionError):
        raise SchedulerUnavailable("htcondor's answer is cut off or is no JSON", said=text[:200]) from None
    if not isinstance(ads, list):
        raise SchedulerUnavailable("htcondor's answer is no list of jobs", said=text[:200])
    jobs: list[Job] = []
    unread: list[str] = []
    for ad in ads:
        if not isinstance(ad, dict) or not all(_integer(ad.get(key)) is not None for key in ("ClusterId", "ProcId")):
            unread.append(str(ad)[:200])
            continue
        job = _job(ad)
        if is_ours(job, query):
            jobs.append(job)
    return Listing(tuple(jobs), tuple(unread))


def _integer(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else None


def _job(ad: dict[str, Any]) -> Job:
    """One job's ad. A task of an array keeps its number also when it is the only one left."""
    status = _integer(ad.get("JobStatus"))
    word, state = STATES.get(
        status if status is not None else -1, (f"JobStatus {ad.get('JobStatus')}", JobState.UNKNOWN)
    )
    raw, reason = word, ""
    exit_code = signal = None
    if state is JobState.HELD:
        code, subcode = _integer(ad.get("HoldReasonCode")), _integer(ad.get("HoldReasonSubCode"))
        raw, reason = f"held ({code}, {subcode})", str(ad.get("HoldReason", ""))
        state = _limit(code, subcode) or state
    elif state is JobState.QUEUED and (_integer(ad.get("NumJobStarts")) or 0) > 0:
        reason = "its node gave it back after it had begun: it is not started again and will be removed"
    elif state is JobState.CANCELLED:
        reason = str(ad.get("RemoveReason", ""))
        last = _limit(_integer(ad.get("LastHoldReasonCode")), _integer(ad.get("LastHoldReasonSubCode")))
        if limit := last or _limit(_integer(ad.get("HoldReasonCode")), _integer(ad.get("HoldReasonSubCode"))):
            state, reason = limit, str(ad.get("LastHoldReason") or ad.get("HoldReason") or reason)
        elif _EVICTED in reason:
            state, reason = JobState.NODE_FAILED, "its node gave it back after it had begun, so HTCondor removed it"
    elif state is JobState.DONE:
        if ad.get("ExitBySignal") is True:
            signal = _integer(ad.get("ExitSignal"))
            exit_code = None
        else:
            exit_code = _integer(ad.get("ExitCode"))
            # through a job wrapper or a shell a signal shows as 128 and more
            signal = exit_code - 128 if exit_code is not None and 128 < exit_code < 193 else None
        state = JobState.DONE if exit_code == 0 else JobState.FAILED
        if exit_code is None and signal is None:
            state, raw = JobState.UNKNOWN, "completed without an exit code"
    number = str(ad["ClusterId"])
    resident = _integer(ad.get("ResidentSetSize_RAW"))
    return Job(
        number,
        ad["ProcId"] + 1 if (_integer(ad.get("TotalSubmitProcs")) or 1) > 1 or ad["ProcId"] > 0 else None,
        str(ad.get("JobBatchName", "")),
        state,
        raw,
        reason=" ".join(reason.split())[:500],
        user=str(ad.get("Owner", "")),
        node=str(ad.get("RemoteHost") or ad.get("LastRemoteHost") or ""),
        exit_code=exit_code,
        signal=signal,
        submitted=utc_seconds(ad.get("QDate")),
        started=utc_seconds(ad.get("JobCurrentStartDate") or ad.get("JobStartDate")),
        finished=utc_seconds(ad.get("CompletionDate") or ad.get("EnteredCurrentStatus")) if state.final else "",
        max_memory=resident * 1024 if resident else None,
    )


def _limit(code: int | None, subcode: int | None) -> JobState | None:
    """The end that a hold stands for, if it does."""
    if code == 3 and subcode == _MEMORY_SUBCODE:
        return JobState.OUT_OF_MEMORY
    return HOLDS.get(code) if code is not None else None
