"""The whole online system of a site: which processes it has, and the one that keeps them alive."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests

from orchestrator import runtime
from orchestrator.children import command
from orchestrator.errors import Conflict, Exit, OrchestratorError, SettingsError
from orchestrator.online import configuration, progress, reducer_status
from orchestrator.online.checking import CONFIGURATION, Checks
from orchestrator.online.configuration import Online
from orchestrator.online.stores import FOLDER
from orchestrator.runtime import Lock, end_leftovers
from orchestrator.settings import Settings
from orchestrator.supervise import Spec, Supervisor
from orchestrator.up import TICK, Signals, stop_in_order

PATIENCE = 60.0  # s until all processes and workers must be there; a worker loads numerical libraries first


def specs(settings: Settings, online: Online, ready: Callable[[], bool]) -> list[Spec]:
    """The processes in the order of their start. The broadcast ends last, so that the last plots reach viewers.

    The pages start beside the workers, which take as long, and show that these are waited for.
    """
    return [
        Spec("online-broadcast", command(settings, "online", "broadcast"), last=True),
        Spec("online-display", command(settings, "online", "display")),
        Spec("online-transform", command(settings, "online", "transform"), ready=ready),
        *(Spec(f"online-reduce-{one.name}", command(settings, "online", "reduce", one.name)) for one in online.reduce),
    ]


class System:
    """The online system of a site, run by this process: ``start``, then ``run``, then it is over."""

    def __init__(self, settings: Settings, environ: Mapping[str, str]) -> None:
        self._settings, self._environ = settings, environ
        self.folder = Path(settings.folder) / FOLDER
        self._lock = Lock(self.folder)
        self._expected: tuple[str, ...] = ()  # workers elsewhere that must be there
        self.leftovers: list[str] = []

    def run(self, signals: Signals, say: Callable[[str], None]) -> None:
        """Check, start, watch until a signal comes, stop in order. ``say`` gets sentences for whoever looks on.

        Raises:
            Conflict: it runs already, or a port is taken.
            OrchestratorError: a check refuses, or a process cannot be started; the sentence says which.
        """
        take(self._lock, self._settings)
        try:
            self.leftovers = end_leftovers(self.folder)
            with contextlib.suppress(OSError):
                (self.folder / progress.FILE).unlink()
            reducer_status.forget(self.folder)
            online = Checks(self._settings, self._environ).must_pass()
            self._expected = online.workers.remote
            supervisor = Supervisor(
                specs(self._settings, online, self._workers_there),
                logs=self._settings.logs, runtime=self.folder, drain=self._settings.drain,
                log_size=self._settings.log_size * 1e6,
                about={"folder": str(self._settings.folder), "page": page_of(online), "title": online.title,
                       "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "up": False},
            )  # fmt: skip
            try:
                self._watch(supervisor, page_of(online), signals, say)
            finally:
                stop_in_order(supervisor, signals)
        finally:
            self._lock.release()

    def _watch(self, supervisor: Supervisor, page: str, signals: Signals, say: Callable[[str], None]) -> None:
        told, end = False, time.monotonic() + PATIENCE
        while not signals.wait(TICK):
            supervisor.tick(time.monotonic())
            while supervisor.news:
                say(supervisor.news.pop(0))
            if told:
                continue
            for child in supervisor.children:
                if child.state == "given up":
                    raise _ended(child.ended, child.exit_code, child.spec.name, child.log)
            if supervisor.ready and not (pages := pages_missing(page)):
                told = True
                supervisor.say(up=True)
                say(f"The online system in {self._settings.folder} is running, pages at {page}")
            elif time.monotonic() > end:
                raise OrchestratorError(self._why_not(supervisor) if not supervisor.ready else pages)

    def _workers_there(self) -> bool:
        """Whether every worker that must be there has acknowledged the configuration."""
        said = progress.read(self.folder / progress.FILE)
        return said is not None and said.get("state") == "running" and not unready(said, self._expected)

    def _why_not(self, supervisor: Supervisor) -> str:
        said = progress.read(self.folder / progress.FILE) or {}
        missing = unready(said, self._expected)
        if missing:
            words = ", ".join(missing)
            return (
                f"after {PATIENCE:.0f} s these workers have not reported: {words}; start them with `orchestrator "
                "online worker --connect ADDRESS --name NAME`, or take them out of `workers.remote`"
            )
        late = [f"{one.spec.name} {one.ended or one.state}" for one in supervisor.children if one.state != "running"]
        return f"after {PATIENCE:.0f} s not everything runs: {'; '.join(late)}"


def pages_missing(page: str) -> str:
    """Why the pages at an address show no live plots yet; empty where they do."""
    try:
        answer = requests.get(f"{page}healthz", timeout=1.0)
    except requests.RequestException:
        return f"after {PATIENCE:.0f} s no page answers at {page}; see the log online-display.log"
    if answer.status_code != 200:
        return f"after {PATIENCE:.0f} s the pages at {page} do not hear the broadcast; see the log online-display.log"
    return ""


def unready(said: dict[str, Any], expected: Collection[str]) -> list[str]:
    """Workers that have not acknowledged the configuration, by what the transform says of itself.

    An expected one that was refused has not: the transform may live a moment longer before it ends because of it.
    Others that are refused keep nobody waiting.
    """
    return [
        one["name"] for one in said.get("workers", [])
        if one["state"] in ("not there", "gets its modules") or (one["state"] == "refused" and one["name"] in expected)
    ]  # fmt: skip


def take(lock: Lock, settings: Settings) -> None:
    """Raises Conflict where the site's online system runs already."""
    try:
        lock.take()
    except Conflict:
        raise Conflict(
            f"the online system in {settings.folder} runs already (process {lock.holder()}); "
            f"`orchestrator -C '{settings.folder}' online stop` stops it"
        ) from None


def page_of(online: Online) -> str:
    """The pages' address for a browser on this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(online.web_host, online.web_host)
    return f"http://{host}:{online.web_port}/"


def state(settings: Settings) -> dict[str, Any]:
    """How it is: processes, run, counts, workers, and how far each reducer is. For ``orchestrator online status``."""
    folder = Path(settings.folder) / FOLDER
    holder = Lock(folder).holder()
    status = runtime.read_status(folder) if holder is not None else None
    said = progress.read(folder / progress.FILE)
    found: dict[str, Any] = {"running": holder is not None, "pid": holder, "folder": str(settings.folder)}
    found["system"] = status
    found["transform"] = said if said is not None and (holder is not None or said.get("state") == "ended") else None
    found["silent"] = _silence(said) if holder is not None else 0.0
    found["reducers"] = _reducers(folder, said or {}, status)
    found["broadcast"] = _broadcast(settings) if holder is not None else None
    return found


def _silence(said: dict[str, Any] | None) -> float:
    """For how long the transform has not said how it is, s; it does so about twice a second."""
    try:
        then = datetime.fromisoformat(str((said or {})["time"]))
        return max(0.0, (datetime.now(UTC) - then).total_seconds())
    except (KeyError, ValueError, TypeError):
        return 0.0


def _broadcast(settings: Settings) -> dict[str, Any] | None:
    """How much the broadcast keeps for viewers that join; None where it does not say."""
    from orchestrator.online.keys import keys_for
    from orchestrator.online.subscribing import about

    try:
        online = configuration.load(settings.folder / CONFIGURATION)
        keys = keys_for(online.workers.key, online.broadcast.subscribe)
        return about(online.broadcast.subscribe, secure=keys.connecting if keys else None)
    except SettingsError:  # the file was spoilt since the start
        return None


def _reducers(folder: Path, said: dict[str, Any], status: dict[str, Any] | None) -> list[dict[str, Any]]:
    """For each reducer how many spills of the run it has counted, how many it lacks, and what is wrong with it."""
    from orchestrator.online import snapshot

    names = [
        str(one["name"]).removeprefix("online-reduce-")
        for one in (status or {}).get("children", []) if str(one.get("name", "")).startswith("online-reduce-")
    ]  # fmt: skip
    latest = said if said.get("run") else said.get("last") or {}
    run, stored = latest.get("run"), int(latest.get("done") or 0) + int(latest.get("failed") or 0)
    found = []
    for name in names:
        words, finished, gave_up = reducer_status.read(folder, name), False, ""
        if run is not None and latest.get("begun"):
            part = snapshot.finished(folder / "runs", str(run), name, int(latest["opened"]), str(latest["begun"]))
            finished, gave_up = part is not None, str((part or {}).get("error") or "")
        counted = words.counted if words is not None and words.of(latest) else stored if finished else None
        found.append({"name": name, "run": run, "counted": counted, "finished": finished,
                      "failed": words.failed if words is not None and words.of(latest) else None,
                      "trouble": (words.trouble() if words is not None else "") or gave_up, "gave_up": bool(gave_up),
                      "lag": None if counted is None or run is None else max(0, stored - counted)})  # fmt: skip
    return found


def _ended(words: str, code: int | None, name: str, log: Path) -> OrchestratorError:
    kind = SettingsError if code == Exit.SETTINGS else OrchestratorError
    _, ours, sentence = words.partition(": orchestrator: ")  # its own last words, if it had any
    error = kind(f"{sentence if ours else f'{name} {words}'} (see {log})")
    error.exit_code = Exit(code) if code in set(Exit) and code else Exit.FAILED
    return error
