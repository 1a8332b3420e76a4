"""Grid Engine (SGE, Son of Grid Engine, Univa, Altair): ``qsub``, ``qstat``, ``qacct``, ``qdel``.

Written against 8.1.9. What ends is gone from ``qstat`` at once and stands in the accounting file a second later; a job
deleted while it waited leaves no trace in either. Two answers of the accounting need care: a job whose shepherd was
killed (``failed 19``) has exit status 0 while its payload goes on, and one removed by force from a node that does not
answer has ``failed 0`` and exit status 0 as well. So here, more than elsewhere, *done* is what the result file says.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import ClassVar
from xml.etree import ElementTree

from orchestrator.schedulers.base import Scheduler, checked_keys, is_ours, utc
from orchestrator.schedulers.errors import SchedulerUnavailable, UnfitJob
from orchestrator.schedulers.model import INDEX, Answer, Command, Job, JobSpec, Listing, Query, Submitted
from orchestrator.schedulers.script import clock, mebibytes
from orchestrator.schedulers.states import JobState

_LETTERS = frozenset("qwhrtsSTRdEzNP")
_BLOCK = re.compile(r"<job_list\b.*?</job_list>", re.DOTALL)
_NODE_FAULTS = frozenset({19, 22, 24, 25})  # shepherd or host gone, rescheduled: not the job's doing
_LIMIT = 37  # "qmaster enforced h_rt, h_cpu, or h_vmem limit"
_SIGNAL = re.compile(r"([0-9]+)")
_AMOUNT = re.compile(r"([0-9.]+)\s*([kKmMgGtT]?)[bB]?\s*\Z")
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
_TIMES = ("%a %b %d %H:%M:%S %Y", "%m/%d/%Y %H:%M:%S.%f", "%m/%d/%Y %H:%M:%S")


class GridEngine(Scheduler):
    """See the module and `Scheduler`. Settings: ``memory`` and ``parallel``, what sites name differently."""

    name = "gridengine"
    # s_rt would send SIGUSR1, but a job that goes on after it is not killed at h_rt for another minute and more; and
    # with -notify it is not killed at all. So coreutils' timeout warns, and h_rt alone is asked for.
    task_variable = "$(case ${SGE_TASK_ID:-} in ''|undefined) echo 1;; *) echo \"$SGE_TASK_ID\";; esac)"
    number_variable = "${JOB_ID:-}"
    settings_known: ClassVar[dict[str, tuple[str, str]]] = {
        "memory": ("h_vmem", "the resource that limits a slot's memory: h_vmem, h_rss, mem_free, ..."),
        "parallel": ("smp", "the parallel environment that gives several cores of one node"),
    }
    away = (
        "commlib error",
        "unable to send message to qmaster",
        "unable to contact qmaster",
        "error reading answer list from qmaster",
        "failed receiving gdi request",
        "got select error",
        "connection refused",
        "timeout",
        "can't unpack gdi request",
        "cell directory",
        "sge_root",
        "access denied: client ip",
        "not an admin host",
        "neither submit nor admin host",
    )
    not_sent = ("connection refused", "cell directory", "sge_root", "client ip", "submit nor admin")
    later = ("maximum number of", "more than", "job-limit", "quota", "job limit")

    def submit(self, spec: JobSpec) -> Command:
        wanted = spec.resources
        words = [
            "-terse",
            "-N", spec.name,
            "-S", "/bin/sh",
            "-wd", spec.directory,
            "-o", _path(spec.stdout, spec),
            "-e", _path(spec.stderr, spec),
            "-r", "n",
        ]  # fmt: skip
        if spec.is_array:
            words += ["-t", f"1-{spec.tasks}"]
        if wanted.time is not None:
            words += ["-l", f"h_rt={clock(wanted.time)}"]
        if wanted.memory is not None:
            words += ["-l", f"{self.settings['memory']}={math.ceil(mebibytes(wanted.memory) / wanted.cores)}M"]
        if wanted.cores > 1:
            words += ["-pe", self.settings["parallel"], str(wanted.cores)]
        if wanted.queue:
            words += ["-q", wanted.queue]
        return self._command("qsub", *words, *wanted.options, spec.script, timeout=60.0)

    def read_submit(self, answer: Answer, spec: JobSpec) -> Submitted:
        # "14", or "14.1-6:1" for an array
        return self._accepted(answer, spec, re.compile(r"^([0-9]+)(?:\.[0-9]+-[0-9]+:[0-9]+)?$", re.MULTILINE))

    def listing(self, query: Query) -> Command:
        # -g d: waiting arrays task by task, as the running ones are listed anyway
        return self._command("qstat", "-xml", "-g", "d", "-u", query.user or "*")

    def read_listing(self, answer: Answer, query: Query) -> Listing:
        self._must_succeed(answer, "list its queue")
        text = answer.stdout
        if not text.rstrip().endswith(("</job_info>", "<job_info/>")):
            raise SchedulerUnavailable("gridengine's answer about its queue is cut off", said=text[-200:])
        jobs: list[Job] = []
        unread: list[str] = []
        # block by block: a stranger's name that is not good XML spoils its own block only
        for block in _BLOCK.findall(text):
            try:
                job = _queued_job(block)
            except (ElementTree.ParseError, ValueError):
                if f"<JB_name>{query.prefix}" in block:
                    unread.append(block[:200])
                continue
            if is_ours(job, query):
                jobs.append(job)
        if text.count("<job_list") != len(_BLOCK.findall(text)):
            unread.append("a <job_list> without its end")
        return Listing(tuple(jobs), tuple(unread))

    def history(self, query: Query) -> list[Command]:
        who = ("-o", query.user) if query.user else ()
        # not -d: it goes by the start, and would leave out the jobs whose start was never noted, the lost ones
        words = (*who, "-j", f"{query.prefix}*")
        return [self._command("qacct", *words, timeout=60.0, way="qacct")]

    def read_history(self, command: Command, answer: Answer, query: Query) -> Listing:
        said = answer.stderr.lower() + answer.stdout.lower()
        if answer.exit_code == 1 and ("not found" in said or "no jobs running since startup" in said):
            return Listing()
        if answer.exit_code and "accounting" in said and ("no such file" in said or "permission denied" in said):
            raise self._no_history(answer, answer.said)
        self._must_succeed(answer, "tell its history")
        jobs: dict[tuple[str, int | None], Job] = {}
        unread: list[str] = []
        for record in re.split(r"(?m)^=+[^\S\n]*$", answer.stdout)[1:]:
            fields: dict[str, str] = {}
            for line in record.split("\n"):
                key, _, value = line.partition(" ")
                fields.setdefault(key, value.strip())
            try:
                job = _ended_job(fields)
            except (KeyError, ValueError):
                unread.append(" ".join(record.split())[:200])
                continue
            if is_ours(job, query):
                jobs[job.number, job.index] = job
        return Listing(tuple(jobs.values()), tuple(unread))

    def cancel(self, keys: Sequence[str]) -> Command:
        return self._command("qdel", *checked_keys(keys), timeout=60.0)


def _path(path: str, spec: JobSpec) -> str:
    """``path`` as qsub takes it, where ``$`` begins a variable, a comma another path and a colon a path at a host."""
    if "," in path or ":" in path:
        raise UnfitJob(f"job {spec.name}: Grid Engine cannot write to a path with a comma or a colon: {path!r}")
    return path.replace("$", "$$").replace(INDEX, "$TASK_ID")


def state_of(raw: str) -> JobState:
    """The state that Grid Engine's letters say, in any order and number (``hRwq``, ``dRT``, ``Eqw``).

    One letter that is not known makes the whole unknown. A job marked for deletion (``d``) is still where it is.
    """
    letters = set(raw)
    if not letters or not letters <= _LETTERS:
        return JobState.UNKNOWN
    if "z" in letters:
        return JobState.UNKNOWN  # ended; how, only the accounting knows
    if "E" in letters or ("h" in letters and not letters & set("rt")):
        return JobState.HELD
    if letters & set("rtsSTN") or letters == {"d", "R"}:
        return JobState.RUNNING
    return JobState.QUEUED if letters & set("qwP") else JobState.UNKNOWN


def _queued_job(block: str) -> Job:
    """One ``<job_list>`` of ``qstat -xml``. Raises ParseError or ValueError."""
    element = ElementTree.fromstring(block)

    def text(name: str) -> str:
        return (element.findtext(name) or "").strip()

    number, raw, tasks = text("JB_job_number"), text("state"), text("tasks")
    if not (number.isascii() and number.isdigit()):
        raise ValueError("no job number")
    queue, _, node = text("queue_name").partition("@")
    state = state_of(raw)
    return Job(
        number,
        int(tasks) if tasks.isascii() and tasks.isdigit() else None,
        # not stripped: a stranger's name that begins with a space is not ours
        element.findtext("full_job_name") or element.findtext("JB_name") or "",
        state,
        raw,
        reason=_why(raw) if state is not JobState.RUNNING else "",
        queue=queue,
        user=text("JB_owner"),
        node=node,
        submitted=utc(text("JB_submission_time")),
        started=utc(text("JAT_start_time")),
    )


def _why(raw: str) -> str:
    if "E" in raw:
        return "error at its start (see `qstat -j`): a bad output path, working directory or shell, or a faulty node"
    if "h" in raw:
        return "on hold"
    return "marked for deletion" if "d" in raw else ""


def _ended_job(fields: dict[str, str]) -> Job:
    """One record of ``qacct``. Raises KeyError or ValueError if it is not whole."""
    number, task = fields["jobnumber"], fields["taskid"]
    if not (number.isascii() and number.isdigit()):
        raise ValueError("no job number")
    failed, status = _leading(fields["failed"]), _leading(fields["exit_status"])
    signal = status - 128 if status > 128 else None
    state, reason = _fate(failed, status, fields)
    return Job(
        number,
        int(task) if task.isascii() and task.isdigit() else None,
        fields["jobname"],
        state,
        f"failed {fields['failed']}, exit_status {fields['exit_status']}",
        reason=reason,
        queue=fields.get("qname", ""),
        user=fields.get("owner", ""),
        node=fields.get("hostname", ""),
        exit_code=status,
        signal=signal,
        submitted=_time(fields.get("qsub_time", "")),
        started=_time(fields.get("start_time", "")),
        finished=_time(fields.get("end_time", "")),
        max_memory=_bytes(fields.get("ru_maxrss", "")),
    )


def _leading(text: str) -> int:
    match = _SIGNAL.match(text)
    if not match or len(match[1]) > 9:
        raise ValueError(f"{text!r} is no status")
    return int(match[1])


def _fate(failed: int, status: int, fields: dict[str, str]) -> tuple[JobState, str]:
    """What ``failed`` and ``exit_status`` together say; ``failed`` goes first."""
    words = fields["failed"].partition(":")[2].strip()
    category = fields.get("category", "")
    if failed == _LIMIT:
        # one code for three limits: the request tells, and where both were asked for, time is what ends jobs here
        memory_only = "h_rt=" not in category and "h_vmem=" in category
        return (JobState.OUT_OF_MEMORY if memory_only else JobState.TIMEOUT), words
    if failed in _NODE_FAULTS:
        return JobState.NODE_FAILED, f"{words}: the program may still be running on {fields.get('hostname', '?')}"
    if failed not in (0, 100):
        # a failed start has a record of its own, but the job goes on waiting, in state E: no end unless it is deleted
        never = fields.get("start_time", "").startswith("-")
        return (JobState.UNKNOWN, f"could not be started: {words}") if never else (JobState.FAILED, words)
    signal = status - 128
    if signal in (10, 24):  # SIGUSR1 at s_rt, SIGXCPU at s_cpu
        return JobState.TIMEOUT, f"ended by the warning before its limit (signal {signal})"
    if failed == 100 and signal == 9:
        return (
            JobState.CANCELLED,
            "killed by SIGKILL: cancelled, or killed on its node (by hand, or for want of memory)",
        )
    if failed == 100 and signal == 12:
        return JobState.CANCELLED, "ended by the warning before it was cancelled (signal 12)"
    return (JobState.DONE if status == 0 and failed == 0 else JobState.FAILED), words


def _time(text: str) -> str:
    return next((found for form in _TIMES if (found := utc(text, form))), "")


def _bytes(text: str) -> int | None:
    """``4.582KB`` of Son of Grid Engine in bytes; the bare numbers of others are KiB."""
    match = _AMOUNT.match(text)
    try:
        if match is None or float(match[1]) == 0:
            return None
        bare = text.strip().replace(".", "").isdigit()
        return int(float(match[1]) * 1024 ** (1 if bare else _POWERS[match[2].upper()]))
    except ValueError:
        return None
