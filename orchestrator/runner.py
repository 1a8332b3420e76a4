"""Runs one attempt of one step in this process, and says what became of it.

The same runner works inside a worker of the pool, for a step run by hand, and in a job on a farm. Steps are set up once
(birth) and kept; each attempt gets its scratch directory, its log and its measurements; whatever goes wrong in a step
ends in a Report with a class and a reason, never in an exception here.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator import capture, faults, gates
from orchestrator.errors import DataError, FormatError, OrchestratorError, SettingsError, StepError
from orchestrator.filenames import text_of, unfinished
from orchestrator.jobchain import ChainData, StepData
from orchestrator.lifeline import die_with_parent
from orchestrator.reports import Report
from orchestrator.step import Progress, StepObject, Work, birth, death, no_progress
from orchestrator.version import VERSION

#: A result larger than this (bytes of JSON) does not belong in a document: files are for that.
RESULT_LIMIT = 1_000_000
#: Characters of a reason that are worth keeping.
REASON_LIMIT = 20_000
#: An attempt shorter than this (s) is not worth resetting the kernel's peak-memory mark for, which costs about 20 us.
SHORT_ATTEMPT = 0.005
#: What an executable's exit code says about its failure; the first two are sysexits.h's EX_DATAERR and EX_TEMPFAIL.
EXIT_CLASSES = {65: "data", 75: "transient", 128 + signal.SIGKILL: "resources", -signal.SIGKILL: "resources",
                128 + signal.SIGXCPU: "resources", -signal.SIGXCPU: "resources"}  # fmt: skip


@dataclass
class Task:
    """One attempt to make: the document as claimed, the step's keyword, the attempt's id, the file to read."""

    document: dict[str, Any]
    step: str
    attempt: str
    source: str | None = None

    @property
    def is_repeated(self) -> bool:
        """Whether another attempt was made before this one, by the document's account."""
        entry = self.document.get(self.step)
        return isinstance(entry, dict) and entry.get("number") not in (None, 1)

    def to_json(self) -> dict[str, Any]:
        return {"document": self.document, "step": self.step, "attempt": self.attempt, "source": self.source}


@dataclass
class Places:
    """The folders a runner needs: outputs, scratch directories of attempts, and logs."""

    output: Path
    scratch: Path
    logs: Path


class _AttemptWork(Work):
    """Work whose scratch directory is made when it is first asked for: most short steps never ask."""

    @property
    def directory(self) -> Path:
        self._directory.mkdir(parents=True, exist_ok=True)
        return self._directory

    @directory.setter
    def directory(self, path: Path) -> None:
        self._directory = path


@dataclass
class Runner:
    """Executes tasks of one chain, one at a time. Not thread-safe: a process has one."""

    chain: ChainData
    places: Places
    output: capture.Capture
    clock: Callable[[], float] = time.time
    _born: dict[str, StepObject] = field(default_factory=dict)
    _software: dict[str, dict[str, Any]] = field(default_factory=dict)
    _last_seconds: float = 1.0

    def run(self, task: Task, progress: Progress = no_progress) -> Report:
        """Make one attempt. Never raises for anything that a step does; KeyboardInterrupt and SystemExit pass."""
        if self._last_seconds >= SHORT_ATTEMPT:
            _reset_peak_memory()
        before, started, ticks = _cpu_seconds(), self.clock(), time.monotonic()
        report = Report(str(task.document.get("_id")), task.step, task.attempt, started, started)
        log = self.output.logger
        scratch = self.places.scratch / task.attempt
        try:
            step = self.chain.step(task.step)
            report.software = self._software_of(step)
            work = _AttemptWork(
                step.settings, self.places.output, scratch, task.attempt, log, source=task.source, progress=progress
            )
            faults.point("runner.begun")
            if step.command is not None:
                report.result = self._execute(step, task, work, report)
            else:
                report.result = self._object(step).process(task.document, work)
            report.result = _checked(report.result)
            if step.gates:
                given = [gate if isinstance(gate, dict) else gate.model_dump(mode="json") for gate in step.gates]
                gates.check(given, task.document, report.result, work)
            if task.is_repeated:
                _clear_unfinished(report.result, task.attempt)
        except gates.GateRefused as refusal:
            # The output stays, and is named, for whoever looks at it.
            report.error_class, report.gate, report.then = refusal.kind, refusal.gate, refusal.then
            report.reason = _cleaned(str(refusal)[:REASON_LIMIT])
            log.error("the gate %r refuses the output: %s", refusal.gate, refusal)
        except Exception as error:
            report.result = {}
            _explain(error, report, log)
        faults.point("runner.done")
        report.seconds = round(time.monotonic() - ticks, 6)
        report.finished = started + report.seconds
        report.cpu_seconds = round(_cpu_seconds() - before, 6)
        report.max_rss = _peak_memory()
        self._last_seconds = report.seconds
        if os.path.lexists(scratch):
            shutil.rmtree(scratch, ignore_errors=True)
        faults.point("runner.cleared")
        report.log, report.log_tail = self.output.keep(
            self.places.logs / task.step, f"{report.document}.{task.attempt}", tail=not report.ok
        )
        return report

    def close(self) -> None:
        """Death: close every step that was set up. What goes wrong in one is logged, and the next is closed."""
        for step in self._born.values():
            try:
                death(step)
            except Exception as error:
                logging.getLogger(__name__).error("a step could not be closed", exc_info=error)
        self._born.clear()

    def _object(self, step: StepData) -> StepObject:
        if step.key not in self._born:
            assert step.run is not None
            self._born[step.key] = birth(step.run, step.settings, self.output.logger)
        return self._born[step.key]

    def _software_of(self, step: StepData) -> dict[str, Any]:
        if step.key not in self._software:
            self._software[step.key] = {
                "orchestrator": VERSION, "step": step.version, "chain": self.chain.fingerprint(),
                "git": _git_version(step), "pid": os.getpid(),
                **({"settings": dict(step.settings)} if step.settings else {}),
            }  # fmt: skip
        return dict(self._software[step.key])

    def _execute(self, step: StepData, task: Task, work: Work, report: Report) -> dict[str, Any]:
        """Run an executable step: an argument list; document and result travel as JSON files in its directory."""
        directory = work.directory
        files = {name: directory / f"{name}.json" for name in ("document", "settings", "result")}
        files["document"].write_text(json.dumps(task.document), encoding="utf-8")
        files["settings"].write_text(json.dumps(dict(step.settings)), encoding="utf-8")
        words = {name: str(path) for name, path in files.items()}
        words |= {
            "directory": str(directory), "input": task.source or "",
            "attempt": task.attempt, "output": str(work.output),
        }  # fmt: skip
        assert step.command is not None
        command = [_fill(word, words) for word in step.command]
        report.command = _cleaned(command)
        sys.stdout.flush()
        try:
            # The group is the worker's own, so that a time limit ends the executable with it.
            done = subprocess.run(
                command, cwd=directory, stdin=subprocess.DEVNULL, preexec_fn=die_with_parent, check=False
            )
        except (OSError, ValueError) as error:
            raise SettingsError(f"the executable {command[0]!r} cannot be started: {error}") from error
        report.exit_code = done.returncode
        if done.returncode != 0:
            code = done.returncode
            how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
            failure = StepError(f"{command[0]} {how}; the end of its log says more")
            failure.kind = EXIT_CLASSES.get(code, "code")
            raise failure
        if not files["result"].exists():
            return {}
        try:
            result = json.loads(files["result"].read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise StepError(f"{command[0]} left a result file that is not JSON: {error}") from error
        if not isinstance(result, dict):
            raise StepError(f"{command[0]} left a result that is not a JSON object")
        return result


def _fill(word: str, words: Mapping[str, str]) -> str:
    """Replace {document} and its like in one argument; the argument stays one argument, whatever a name holds."""
    for name, value in words.items():
        marker = "{" + name + "}"
        if marker in word:
            return value.join(_fill(part, words) for part in word.split(marker))
    return word


def _checked(result: Any) -> dict[str, Any]:
    """The result, as a document can hold it. Raises StepError where it cannot.

    Text with bytes that are not Unicode, such as a file name from an old disk, gets the readable form of ``text_of``.
    """
    if not isinstance(result, dict):
        raise StepError(f"the step returned {type(result).__name__}, not a dict: return {{}} for nothing")
    try:
        text = json.dumps(result, allow_nan=False, ensure_ascii=False)
        size = len(text.encode("utf-8", "surrogatepass"))
    except (TypeError, ValueError, RecursionError) as error:
        raise StepError(f"the step's result cannot be written as JSON: {error}") from error
    if size > RESULT_LIMIT:
        raise StepError(f"the step's result has {size} bytes of JSON, more than {RESULT_LIMIT}: write it to a file")
    return result if _is_unicode(text) else _cleaned(result)


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text) if not text.isascii() else True


def _cleaned(value: Any) -> Any:
    """The same value with every text made Unicode."""
    if isinstance(value, str):
        try:
            return text_of(value)
        except UnicodeEncodeError:  # half of a surrogate pair, which no file name holds
            return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_cleaned(key): _cleaned(inner) for key, inner in value.items()}
    return [_cleaned(inner) for inner in value] if isinstance(value, list | tuple) else value


def _explain(error: Exception, report: Report, log: logging.Logger) -> None:
    """Put an exception's class and reason into the report, and its trace into the log if it is the step's own fault."""
    if isinstance(error, StepError):
        report.error_class, report.reason = error.kind, str(error)
        log.error("%s", error)
    elif isinstance(error, FormatError):
        report.error_class, report.reason = DataError.kind, str(error)
        log.error("%s", error)
    elif isinstance(error, MemoryError):
        report.error_class, report.reason = "resources", "the step ran out of memory"
        log.error("out of memory", exc_info=error)
    elif isinstance(error, OSError):
        report.error_class, report.reason = "transient", f"{type(error).__name__}: {error}"
        log.error("an operation of the system failed", exc_info=error)
    elif isinstance(error, OrchestratorError):
        report.error_class, report.reason = "code", str(error)
        log.error("%s", error)
    else:
        last = traceback.extract_tb(error.__traceback__)[-1:]
        place = f" (at {last[0].filename}, line {last[0].lineno})" if last else ""
        report.error_class, report.reason = "code", f"{type(error).__name__}: {error}{place}"
        log.error("the step raised an exception", exc_info=error)
    report.reason = _cleaned(report.reason[:REASON_LIMIT])
    if report.exit_code == 0:
        report.exit_code = 1


def _clear_unfinished(result: Mapping[str, Any], attempt: str) -> None:
    """Remove what earlier attempts, which were killed, left unfinished of the outputs that this one has now made."""
    paths = [Path(value) for value in result.values() if isinstance(value, str) and value.startswith("/")]
    for folder in {path.parent for path in paths}:
        wanted = {path.name for path in paths if path.parent == folder}
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    part = unfinished(entry.name)
                    if part is not None and part[0] in wanted and part[1] != attempt:
                        os.unlink(entry.path)  # noqa: PTH108
        except OSError:
            continue  # litter harms nobody; the audit names what stays


def _cpu_seconds() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _peak_memory() -> int:
    """The peak resident memory of this process, or of the largest child it waited for, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return max(own.ru_maxrss, children.ru_maxrss) * unit


def _reset_peak_memory() -> None:
    """Let the kernel begin a new peak (man 5 proc, clear_refs), so that each attempt reports its own; Linux only."""
    try:
        with open("/proc/self/clear_refs", "w") as file:  # noqa: PTH123 - os.open's mode, on a hot path
            file.write("5")
    except OSError:
        return


def _git_version(step: StepData) -> str | None:
    """What git calls the folder that the step's code is in, or None where it is not in a checkout."""
    if step.run is None:
        return None
    module = sys.modules.get(step.run.partition(":")[0])
    file = getattr(module, "__file__", None)
    if file is None:
        return None
    try:
        answer = subprocess.run(
            ["git", "-C", str(Path(file).parent), "describe", "--always", "--dirty"],
            capture_output=True, text=True, timeout=5, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None if answer.returncode == 0 else None
