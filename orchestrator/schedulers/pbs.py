"""PBS (OpenPBS, PBS Professional; Torque with ``flavour: torque``): ``qsub``, ``qstat``, ``qdel``.

Written from the manuals, since no PBS could be run here: the fixtures of its tests are answers as documented. The
plain text of ``qstat -f`` is read, not its JSON, which OpenPBS prints broken when a job's variables hold quotes.
``qstat`` has no filter by name, so it lists what the account may see; strangers' jobs are dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import ClassVar

from orchestrator.schedulers.base import Scheduler, checked_keys, is_ours, utc
from orchestrator.schedulers.errors import UnfitJob
from orchestrator.schedulers.model import INDEX, Answer, Command, Job, JobSpec, Listing, Query, Submitted
from orchestrator.schedulers.script import clock, mebibytes
from orchestrator.schedulers.states import JobState

STATES: dict[str, JobState] = {
    "Q": JobState.QUEUED,
    "T": JobState.QUEUED,  # being moved to a node
    "W": JobState.QUEUED,  # waits for a time, or for its files
    "M": JobState.UNKNOWN,  # moved to another server: ask there
    "H": JobState.HELD,
    "R": JobState.RUNNING,
    "B": JobState.RUNNING,  # an array of which some task has begun
    "E": JobState.RUNNING,  # ending
    "S": JobState.RUNNING,
    "U": JobState.RUNNING,  # suspended while its workstation is in use
    "F": JobState.DONE,
    "X": JobState.DONE,  # a task of an array that has ended
    "C": JobState.DONE,  # Torque
}
"""PBS's letters; which end it was, ``Exit_status`` tells."""

EXITS: dict[int, tuple[JobState, str]] = {
    -1: (JobState.FAILED, "could not be started, before its output files were opened"),
    -2: (JobState.FAILED, "could not be started, after its output files were opened"),
    -3: (JobState.NODE_FAILED, "could not be started; PBS wanted to try again"),
    -4: (JobState.NODE_FAILED, "its node began anew"),
    -5: (JobState.NODE_FAILED, "its node began anew"),
    -6: (JobState.NODE_FAILED, "its node began anew"),
    -24: (JobState.FAILED, "used more cores than it asked for"),
    -25: (JobState.FAILED, "used more cores than it asked for"),
    -26: (JobState.OUT_OF_MEMORY, "used more virtual memory than it asked for"),
    -27: (JobState.OUT_OF_MEMORY, "used more memory than it asked for"),
    -28: (JobState.TIMEOUT, "used more CPU time than it asked for"),
    -29: (JobState.TIMEOUT, "ran longer than it asked for"),
}
"""Exit_status below 0, as in the manuals' table of PBS's own codes."""

_FIELD = re.compile(r" {4}([A-Za-z_.]+) = (.*)\Z")
_ID = re.compile(r"([0-9]+)(?:\[([0-9]{0,9})\])?(\.[A-Za-z0-9_.-]+)?\Z")
_DELETED = "terminated by PBS on a request to delete it (signal 15)"


class PBS(Scheduler):
    """See the module and `Scheduler`. A job's number keeps its server's name, and ``[]`` if it is an array."""

    name = "pbs"
    task_variable = "${PBS_ARRAY_INDEX:-${PBS_ARRAYID:-1}}"
    number_variable = "${PBS_JOBID:-}"
    large_exit_codes = True  # the error's number, such as 170 for an unknown queue
    settings_known: ClassVar[dict[str, tuple[str, str]]] = {
        "flavour": ("openpbs", "openpbs or torque: their words for arrays, nodes and ended jobs differ"),
    }
    away = (
        "cannot connect to",
        "connection refused",
        "unable to communicate",
        "communication failure",
        "pbs_server is currently unavailable",
        "no permission to connect",
        "invalid credential",
        "end of file",
        "timed out",
        "timeout",
        "unknown host",
        "server shutting down",
        "pbs_iff",
    )
    not_sent = ("cannot connect to", "connection refused", "invalid credential", "unknown host", "shutting down")
    later = ("maximum number of jobs", "would exceed", "limit reached", "queue is not enabled", "not started")

    def submit(self, spec: JobSpec) -> Command:
        wanted, torque = spec.resources, self._torque
        words = ["-N", spec.name, "-S", "/bin/sh", "-r", "n"]
        words += ["-o", _path(spec.stdout, spec, torque), "-e", _path(spec.stderr, spec, torque)]
        if spec.is_array:
            words += ["-t" if torque else "-J", f"1-{spec.tasks}"]
        if torque:
            words += ["-l", f"nodes=1:ppn={wanted.cores}"]
            if wanted.memory is not None:
                words += ["-l", f"mem={mebibytes(wanted.memory)}mb"]
        else:
            memory = f":mem={mebibytes(wanted.memory)}mb" if wanted.memory is not None else ""
            words += ["-l", f"select=1:ncpus={wanted.cores}{memory}"]
        if wanted.time is not None:
            words += ["-l", f"walltime={clock(wanted.time)}"]
        if wanted.queue:
            words += ["-q", wanted.queue]
        return self._command("qsub", *words, *wanted.options, spec.script, timeout=60.0)

    def read_submit(self, answer: Answer, spec: JobSpec) -> Submitted:
        # "4711.server" or "4711[].server"
        return self._accepted(answer, spec, re.compile(r"^([0-9]+(?:\[\])?(?:\.[A-Za-z0-9_.-]+)?)\s*$", re.MULTILINE))

    def key(self, number: str, index: int | None = None) -> str:
        return number if index is None else number.replace("[]", f"[{index}]", 1)

    def listing(self, query: Query) -> Command:
        # -t: arrays task by task
        return self._command("qstat", "-f", "-t", timeout=60.0)

    def read_listing(self, answer: Answer, query: Query) -> Listing:
        self._must_succeed(answer, "list its queue")
        return _jobs(answer.stdout, query)

    def history(self, query: Query) -> list[Command]:
        # Torque has no more than the ended jobs that still stand in its queue (keep_completed)
        ended = () if self._torque else ("-x",)
        return [self._command("qstat", *ended, "-f", "-t", timeout=120.0, way="qstat")]

    def read_history(self, command: Command, answer: Answer, query: Query) -> Listing:
        if answer.exit_code and "job_history_enable" in answer.stderr:
            raise self._no_history(answer, answer.said)
        self._must_succeed(answer, "tell its history")
        return _jobs(answer.stdout, query)

    def cancel(self, keys: Sequence[str]) -> Command:
        return self._command("qdel", *checked_keys(keys), timeout=60.0)

    @property
    def _torque(self) -> bool:
        return self.settings["flavour"] == "torque"


def _path(path: str, spec: JobSpec, torque: bool) -> str:
    """``path`` as qsub takes it, where a colon parts a host from a path and ``^`` and ``$`` begin variables."""
    if any(mark in path for mark in (":", "^", "$", ",")):
        raise UnfitJob(f"job {spec.name}: PBS cannot write to a path with one of the marks : ^ $ , in it: {path!r}")
    # with a leading colon there is no host, so that what follows is all path
    return path.replace(INDEX, "$PBS_ARRAYID" if torque else "^array_index^")


def _jobs(text: str, query: Query) -> Listing:
    jobs: list[Job] = []
    unread: list[str] = []
    for name, fields in _records(text):
        match = _ID.match(name)
        if not match or "job_state" not in fields:
            if fields.get("Job_Name", query.prefix).startswith(query.prefix):
                unread.append(f"Job Id: {name}"[:200])
            continue
        job = _job(match, fields)
        # while it runs, an array stands there as a whole and task by task; the tasks say more
        if is_ours(job, query):
            jobs.append(job)
    tasks = {job.number for job in jobs if job.index is not None}
    return Listing(
        tuple(job for job in jobs if job.index is not None or job.number not in tasks or not job.number.count("[]")),
        tuple(unread),
    )


def _records(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Each job's id and attributes. Long values go on in lines that begin with a tab."""
    name, fields, last = "", {}, ""  # type: str, dict[str, str], str
    for line in text.split("\n"):
        line = line.rstrip("\r")
        if line.startswith("Job Id: "):
            if name:
                yield name, fields
            name, fields, last = line[8:].strip(), {}, ""
        elif line.startswith("\t") and last:
            fields[last] += line[1:]
        elif match := _FIELD.match(line):
            last = match[1]
            fields.setdefault(last, match[2])
        else:
            last = ""
    if name:
        yield name, fields


def _job(match: re.Match[str], fields: dict[str, str]) -> Job:
    letter = fields["job_state"].strip()
    state = STATES.get(letter, JobState.UNKNOWN)
    reason, raw = fields.get("comment", ""), letter
    exit_code = signal = None
    if state is JobState.DONE:
        state, ending, exit_code, signal = _ending(fields.get("Exit_status", fields.get("exit_status", "")))
        reason, raw = (
            ending or reason,
            f"{letter}, Exit_status {fields.get('Exit_status', fields.get('exit_status', '?'))}",
        )
    index = match[2]
    number = match[1] + ("[]" if index is not None else "") + (match[3] or "")
    return Job(
        number,
        int(index) if index else None,
        fields.get("Job_Name", ""),
        state,
        raw,
        reason=reason if state is not JobState.RUNNING else "",
        queue=fields.get("queue", ""),
        user=fields.get("Job_Owner", "").partition("@")[0],
        node=fields.get("exec_host", "").partition("/")[0],
        exit_code=exit_code,
        signal=signal,
        submitted=_time(fields.get("qtime", "") or fields.get("ctime", "")),
        started=_time(fields.get("stime", "") or fields.get("start_time", "")),
        finished=_time(fields.get("obittime", "") or fields.get("comp_time", "") or fields.get("mtime", ""))
        if state.final
        else "",
        max_memory=_bytes(fields.get("resources_used.mem", "")),
    )


def _ending(text: str) -> tuple[JobState, str, int | None, int | None]:
    """State, reason, exit code and signal of ``Exit_status``; killed by a signal is 256 (Torque: 128) plus it."""
    if not re.fullmatch(r"-?[0-9]{1,6}", text.strip()):
        # deleted before it began, or a task whose array tells: no exit status at all
        return JobState.UNKNOWN, "ended without an exit status", None, None
    status = int(text)
    if status in EXITS:
        return *EXITS[status], None, None
    if status < 0:
        return JobState.FAILED, f"PBS's own code {status}", None, None
    signal = status - 256 if status > 256 else status - 128 if 128 < status < 193 else None
    if status == 256 + 15:
        return JobState.CANCELLED, _DELETED, None, 15
    if status > 256:
        return JobState.FAILED, f"ended by signal {signal}", None, signal
    return (JobState.DONE if status == 0 else JobState.FAILED), "", status, signal


def _time(text: str) -> str:
    return utc(text.strip(), "%a %b %d %H:%M:%S %Y")


def _bytes(text: str) -> int | None:
    """``1234kb`` in bytes."""
    match = re.fullmatch(r"([0-9]{1,15})(b|kb|mb|gb|tb)", text.strip().lower())
    return int(match[1]) * 1024 ** ("b", "kb", "mb", "gb", "tb").index(match[2]) or None if match else None
