"""Everything that a farm needs, tried in turn from here, with what to do about each fault.

A check that fails does not end the others: only those that cannot be made without it are not tried.
"""

from __future__ import annotations

import secrets
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from orchestrator.engine.farmworld import World
from orchestrator.engine.submission import places
from orchestrator.errors import Exit, OrchestratorError, SettingsError
from orchestrator.remote import far, install, package, trial
from orchestrator.remote.far import FarError
from orchestrator.remote.target import Target
from orchestrator.schedulers import HistoryUnavailable, Query, Scheduler, SchedulerUnavailable, get
from orchestrator.schedulers import ask as batch
from orchestrator.settings import Settings
from orchestrator.software import Installed
from orchestrator.transports import (
    FileRefused,
    HostKeyRefused,
    LoginRefused,
    NoShell,
    TransportUnavailable,
)
from orchestrator.version import VERSION

Level = Literal["ok", "warning", "problem", "not tried"]

LITTLE_DISK, NO_DISK = 2e9, 1e8  # bytes free below which a warning is due, and below which nothing can be expected
MUCH_SKEW = 5.0  # s between the clocks, above which times in documents mislead people
WORD = "two  words \"and\" 'quotes' $HOME"  # what a shell must hand through unharmed


@dataclass(frozen=True)
class Found:
    """One line of the report; ``code`` is what the command ends with if this is the first problem."""

    check: str
    level: Level
    text: str
    remedy: str = ""
    code: Exit = Exit.OK


def ok(check: str, text: str) -> Found:
    return Found(check, "ok", text)


def warning(check: str, text: str, remedy: str) -> Found:
    return Found(check, "warning", text, remedy)


def problem(check: str, text: str, remedy: str, code: Exit = Exit.FAILED) -> Found:
    return Found(check, "problem", text, remedy, code)


class Checks:
    """The checks of one farm, in order. ``run`` yields what each found."""

    def __init__(
        self, target: Target, settings: Settings, *, job: float = 0.0, clock: Callable[[], float] = time.time
    ) -> None:
        """``job``: how long (s) to wait for a real job; 0: none is submitted."""
        self._clock = clock
        self.target, self.farm, self.settings, self._job = target, target.farm, settings, job
        self.transport = target.transport
        self.place = f"farms / {target.name}"
        self._failed: set[str] = set()
        self._scheduler: Scheduler | None = None
        self._python: tuple[str, ...] = ()
        self._installed: Installed | None = None

    def run(self) -> Iterator[Found]:
        """Try everything. Raises nothing that a farm can cause."""
        table: list[tuple[str, tuple[str, ...], Callable[[], Iterable[Found]]]] = [
            ("connection", (), self.connection),
            ("shell", ("connection",), self.shell),
            ("spool", ("connection",), self.spool),
            ("output", ("connection",), self.output),
            ("disk", ("spool",), self.disk),
            ("clock", ("shell",), self.clock),
            ("queue", ("shell",), self.queue),
            ("history", ("queue",), self.history),
            ("python", ("shell",), self.python),
            ("links", ("spool", "python"), self.links),
            ("runner", ("python",), self.runner),
            ("steps", ("runner",), self.steps),
        ]
        if self._job:
            table.append(("job", ("spool", "queue", "runner"), self.job))
        for name, needs, check in table:
            missing = [need for need in needs if need in self._failed]
            if missing:
                self._failed.add(name)
                yield Found(name, "not tried", f"this needs what failed above: {missing[0]}")
                continue
            try:
                found = list(check())
            except OrchestratorError as error:
                found = [problem(name, str(error), "see the sentence", error.exit_code)]
            if any(one.level == "problem" for one in found):
                self._failed.add(name)
            yield from found

    # ---- the way there

    def connection(self) -> Iterator[Found]:
        """Name and network, host key, login: one connection, in which each comes after the other."""
        if self.farm.access is None:
            return
        where, address = self.transport.where, f"{self.farm.access.host} port {self.farm.access.port}"
        try:
            self.transport.absolute(".")
        except HostKeyRefused as error:
            yield ok("host", f"{address} answers")
            yield problem("host key", str(error), "ask the site before anything else", error.exit_code)
            yield Found("login", "not tried", "nothing is said to a machine whose key is not known")
        except LoginRefused as error:
            yield ok("host", f"{address} answers")
            yield ok("host key", f"is the one in {self.farm.access.resolved().known_hosts}")
            yield problem("login", str(error), f"try: ssh -v {self._by_hand()}", error.exit_code)
        except SettingsError as error:
            yield problem("login", str(error), f"correct {self.place} / access", error.exit_code)
        except TransportUnavailable as error:
            text = str(error).removesuffix("; tried again later")
            remedy = f"is {self.place} / access right? Try: ssh -v {self._by_hand()}"
            yield problem("host", text, remedy, error.exit_code)
        else:
            yield ok("host", f"{address} answers")
            yield ok("host key", f"is the one in {self.farm.access.resolved().known_hosts}")
            yield ok("login", where)

    def _by_hand(self) -> str:
        access = self.farm.access
        assert access is not None
        used = access.resolved()
        words = [f"-p {used.port}"] if used.port != 22 else []
        words += [f"-J {used.jump.where}"] if used.jump is not None else []
        return " ".join([*words, f"{used.user}@{used.host}"])

    def shell(self) -> Iterator[Found]:
        try:
            answer = self.transport.run(["printf", "%s", WORD])
        except NoShell as error:
            yield problem("shell", str(error), "a farm needs an account that may run commands: ask the site")
            return
        if answer.stdout == WORD:
            yield ok("shell", "runs commands and leaves their words and answers as they are")
        else:
            extra = answer.stdout.replace(WORD, "").strip() or answer.said
            yield problem(
                "shell", f"a command's answer comes with other text: {extra[:200]!r}",
                "let ~/.bashrc and its like print only in interactive shells",
            )  # fmt: skip

    # ---- folders

    def spool(self) -> Iterator[Found]:
        """Made if it is not there; a file is written, put in the place of another, read, removed."""
        tried = list(self._folder("spool", self.target.spool))
        yield from tried
        found = self.transport.stat(self.target.spool) if tried[-1].level == "ok" else None
        if found is not None and found.mode & stat.S_IWOTH and not found.mode & stat.S_ISVTX:
            yield warning(
                "spool", f"everybody may write into {self.target.spool}: they could change what jobs run",
                f"chmod o-w {self.target.spool}",
            )  # fmt: skip

    def output(self) -> Iterator[Found]:
        yield from self._folder("output", self.farm.output or str(self.settings.data))

    def _folder(self, check: str, folder: str) -> Iterator[Found]:
        old, new = (f"{folder}/.site-check-{secrets.token_hex(6)}-{n}" for n in "12")
        try:
            self.transport.mkdir(folder)
            for path, data in ((new, b"old"), (old, b"new")):
                self.transport.write(path, data)
            self.transport.rename(old, new)
            came = self.transport.read(new)
            self.transport.remove(new)
        except FileRefused as error:
            yield problem(
                check, str(error), f"let the account write there, or correct {self.place} / {check}", Exit.FAILED
            )
            return
        if came != b"new":
            yield problem(check, f"{folder} gives back other bytes than were written", "ask the site about this disk")
            return
        yield ok(check, f"{folder}: files can be written there, and replaced in one go")

    def disk(self) -> Iterator[Found]:
        space = self.transport.space(self.target.spool)
        if space is None:
            yield warning("disk", "the room on the spool's disk cannot be asked for", "look by hand: df, quota -s")
            return
        text = f"{space.free / 1e9:.1f} GB free for the spool"
        if space.free < NO_DISK:
            yield problem("disk", text, "make room there: results of jobs would be lost")
        elif space.free < LITTLE_DISK:
            yield warning("disk", text, "make room there")
        else:
            yield ok("disk", text + "; a quota may be smaller: quota -s")

    def links(self) -> Iterator[Found]:
        order = {"do": "spool", "folder": self.target.spool, "name": f"site-check-{secrets.token_hex(6)}"}
        answer = far.call(self.transport, self._python, order)
        fault = answer.get("error") or answer.get("link")
        if fault:
            yield problem(
                "links", f"a job cannot claim its task in {self.target.spool}: {fault}",
                "jobs use a hard link for it: put the spool on a file system that has them",
            )  # fmt: skip
        else:
            yield ok("links", "a task can be claimed by one job alone")

    def clock(self) -> Iterator[Found]:
        before = self._clock()
        answer = self.transport.run(["date", "-u", "+%s"])
        after = self._clock()
        if not answer.ok or not answer.stdout.strip().isdecimal():
            yield warning("clock", f"the time there cannot be asked for: {answer.said}", "try by hand: date -u")
            return
        there = float(answer.stdout) + 0.5  # it says whole seconds
        skew = max(0.0, before - there - 0.5, there - 0.5 - after)
        if skew > MUCH_SKEW:
            yield warning(
                "clock", f"is {skew:.0f} s from ours: nothing is lost by that, but times of attempts mislead",
                "have both machines keep their time by NTP",
            )  # fmt: skip
        else:
            yield ok("clock", "agrees with ours")

    # ---- the batch system

    def _world(self) -> World:
        if self._scheduler is None:
            self._scheduler = get(
                self.farm.scheduler, programs=self.farm.programs, environment=self.farm.environment,
                settings=self.farm.settings,
            )  # fmt: skip
        query = Query(self.target.prefix, self.farm.user)
        return World(self._scheduler, self.transport, self.target.spool, query)

    def queue(self) -> Iterator[Found]:
        try:
            listing = self._world().queue()
        except SchedulerUnavailable as error:
            yield problem(
                "queue", f"{error}" + (f" ({error.said})" if error.said and error.said not in str(error) else ""),
                f"say in {self.place} / programs where its programs are, and in environment what they need: a command "
                "that comes by SSH has no login shell's settings", Exit.UNAVAILABLE,
            )  # fmt: skip
            return
        yield ok("queue", f"{self.farm.scheduler} lists {len(listing.jobs)} jobs of ours")
        if listing.unread:
            yield warning(
                "queue", f"a part of its answer cannot be read: {listing.unread[0][:120]!r}",
                "such a job is treated as unknown; please report this line",
            )  # fmt: skip

    def history(self) -> Iterator[Found]:
        world = self._world()
        try:
            listing = batch.history(world.scheduler, world.query, world._run)
        except HistoryUnavailable as error:
            yield warning(
                "history", str(error),
                "a job's end is then known by its result file and by its absence from the queue alone",
            )  # fmt: skip
        except SchedulerUnavailable as error:
            yield warning("history", str(error), "look whether the accounting is up; nothing changes state meanwhile")
        else:
            yield ok("history", f"tells of {len(listing.jobs)} jobs of ours")

    # ---- the software

    def python(self) -> Iterator[Found]:
        if not self.farm.python:
            self._installed = install.current(self.transport, self.target.spool, self.target.prefix)
        words: Sequence[str] = places(self.farm, self._installed, self.settings).python
        if self.farm.transport == "ssh" and not self.farm.python and self._installed is None:
            words = ()  # whichever would be installed for
        try:
            found = far.find(self.transport, words)
        except FarError as error:
            again = f"orchestrator site install {self.target.name} --python WORDS"
            remedy = f"correct {self.place} / python" if self.farm.python else again
            yield problem("python", str(error).partition(". Give another")[0], remedy)
            return
        self._python = found.words if words else found.lasting
        yield ok("python", f"{found.about} ({' '.join(found.words)})")

    def runner(self) -> Iterator[Found]:
        folder = self._installed.folder if self._installed else ""
        again = f"orchestrator site install {self.target.name}"
        if self._installed:
            answer = far.call(self.transport, self._python, {"do": "verify", "folder": folder})
            if "damage" in answer:
                yield problem("runner", f"{folder} is damaged: {answer['damage']}", f"{again} (it repairs that)")
                return
            manifest = answer["manifest"]
        elif not self.farm.python and self.farm.transport == "ssh":
            yield problem("runner", "nothing is installed there", again, Exit.NOT_FOUND)
            return
        order = {"do": "imports", "folder": folder, "path": list(self.farm.path), "steps": {}}
        answer = far.call(self.transport, self._python, order)
        if "runner" in answer:
            remedy = again if self._installed or not self.farm.python else f"{again}, and remove {self.place} / python"
            yield problem("runner", f"it does not start there: {answer['runner']}", remedy)
        elif answer["version"] != VERSION:
            yield warning("runner", f"version {answer['version']} is there, and {VERSION} here", again)
        elif self._installed and manifest["files"] != self._digests():
            yield warning("runner", f"{self._installed.name} is not what is here now: files have changed since", again)
        else:
            yield ok("runner", f"version {answer['version']}" + (f", {folder}" if folder else ""))

    def _digests(self) -> dict[str, str]:
        return package.Package(package.collect(self.settings.folder, self.target.steps)).digests()

    def steps(self) -> Iterator[Found]:
        modules = [] if self.farm.transport == "ssh" else [str(self.settings.folder)]
        order = {
            "do": "imports", "folder": self._installed.folder if self._installed else "",
            "path": list(self.farm.path), "modules": modules, "steps": self.target.loads(),
        }  # fmt: skip
        faults: dict[str, Any] = far.call(self.transport, self._python, order, far.LIMIT * 5).get("steps", {})
        for step in self.target.steps:
            name, fault = f"step {step.name}", faults.get(step.name)
            if fault is None:
                yield ok(name, f"{step.run or (step.command or ('',))[0]} can be run there")
            elif fault.startswith("missing "):
                remedy = f"orchestrator site install {self.target.name} --wheels DIR, or --pip (docs/sites.md)"
                yield problem(name, f"the farm's Python has no {fault.removeprefix('missing ')}", remedy)
            else:
                yield problem(name, fault, "install it there, or correct the step in the chain file")

    # ---- a real job

    def job(self) -> Iterator[Found]:
        world = self._world()
        where = places(self.farm, self._installed, self.settings)
        found = trial.run(self.target, world.scheduler, where, self._job)
        if found.reason:
            said = f"; the batch system says: {found.said}" if found.said else ""
            said += f"; the job's last words: {found.last}" if found.last else ""
            yield problem(
                "job", f"{found.reason}{said}",
                f"look into {found.logs} there: nodes must see the spool, the Python and the steps",
            )  # fmt: skip
            return
        yield ok("job", f"ran on {found.host} with Python {found.result.get('python')}")
        for name, fault in found.result.get("faults", {}).items():
            yield problem("job", f"step {name} cannot be loaded on {found.host}: {fault}", "nodes need what steps need")
        if found.result.get("output"):
            yield problem(
                "job", f"on {found.host} the output folder cannot be written: {found.result['output']}",
                f"let nodes see {self.place} / output",
            )  # fmt: skip

