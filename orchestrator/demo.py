"""The whole system shown in one go: a site of its own, a simulated DAQ or the user's files, and a summary.

Here is what ``orchestrator demo`` decides and knows; what it shows meanwhile is in ``orchestrator.cli.demo``.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator import chain as chains
from orchestrator import newsite, overview
from orchestrator.checks import port_is_free
from orchestrator.errors import Conflict, SettingsError
from orchestrator.runtime import FOLDER, Lock
from orchestrator.settings import Settings

if TYPE_CHECKING:
    from orchestrator.chain import Chain
    from orchestrator.couch import Database
    from orchestrator.overview import Overview

#: Which example chain takes files of a format.
CHAIN_OF = {"samba": "samba", "date": "samba", "root": "trees"}
#: Settings of a demo's site that differ from the defaults: nobody shall wait a minute for a file to count as closed.
QUICK = {"register": {"quiet": 2.0}}
HEAD = 4096  # bytes of a file that its format is told from
QUIET_ENOUGH = 20.0  # s; a closed file gets its document within seconds
SHOWN = 20  # failures that the summary lists


@dataclass
class Summary:
    """What a demo came to. ``seconds`` from the first file to the last step."""

    files: int = 0
    steps: int = 0
    failed: int = 0
    seconds: float = 0.0
    outputs: Path = field(default_factory=Path)
    page: str = ""
    failures: list[tuple[str, str, str]] = field(default_factory=list)  # document, step or "bad", reason

    @property
    def rate(self) -> float:
        """Steps in a second."""
        return self.steps / self.seconds if self.seconds > 0 else 0.0

    def to_json(self) -> dict[str, Any]:
        """The same for programs."""
        return {
            "files": self.files,
            "steps": self.steps,
            "failed": self.failed,
            "seconds": round(self.seconds, 3),
            "steps_per_second": round(self.rate, 2),
            "outputs": str(self.outputs),
            "page": self.page,
            "failures": [{"document": d, "step": s, "reason": r} for d, s, r in self.failures],
        }


def chain_for(paths: Iterable[Path]) -> str:
    """The example chain for files: raw Samba and DATE files, or ROOT event trees.

    Raises SettingsError where a path is not there, nothing is known about the files, or they need different chains.
    """
    from procs.register.readers import default_formats, detect

    formats = default_formats()
    found: dict[str, str] = {}
    for path in paths:
        if not path.exists():
            raise SettingsError(f"there is no file {path}")
        for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
            try:
                with file.open("rb") as stream:
                    form = detect(stream.read(HEAD), formats)
            except OSError as error:
                raise SettingsError(f"{file}: {error.strerror}") from None
            if form is not None:
                found.setdefault(CHAIN_OF.get(form.name, "samba"), str(file))
    if not found:
        raise SettingsError(
            f"no file is of a format that is known here ({', '.join(sorted(formats))}); name a chain with --chain"
        )
    if len(found) > 1:
        examples = " and ".join(f"{file} (chain {chain})" for chain, file in sorted(found.items()))
        raise SettingsError(
            f"the files need different chains: {examples}; process them one kind at a time, or say --chain"
        )
    return next(iter(found))


def folder_for(chain: str, wanted: Path | None) -> Path:
    """Where the demo's site goes: what the user wants, else orchestrator-demo here."""
    if wanted is not None:
        return wanted.absolute()
    name = Path(chain).stem
    return Path.cwd() / ("orchestrator-demo" if name == "samba" else f"orchestrator-demo-{name}")


def make_site(
    folder: Path, chain: str, environ: Mapping[str, str], overrides: Mapping[str, Any], *, port: int | None = None
) -> Settings:
    """Make the demo's site, or take up the one that is there, with ports that are free.

    Args:
        folder: of the site.
        chain: an example's name or a file.
        overrides: settings from the command line.
        port: the page's port if the user wants a certain one; else the usual one, or any that is free.

    Raises:
        Conflict: the site is up already, the wanted port is taken, or the site there has another chain.
        SettingsError: the folder cannot be made.
    """
    holder = Lock(folder / FOLDER).holder()
    if holder is not None:
        raise Conflict(
            f"a demo is running in {folder} already (process {holder}): end it, or choose another --directory"
        )
    source = newsite.chain_file(chain)
    chains.load(source)  # a fault in it is named before anything is made
    there = folder / "chain.yaml"
    if there.exists() and newsite.name_of(there) != newsite.name_of(source):
        raise Conflict(
            f"{folder} has another chain already ({newsite.name_of(there)!r}, and {newsite.name_of(source)!r} is "
            "wanted): choose another --directory"
        )
    before = Settings.load(folder, environ, overrides)
    chosen: dict[str, Any] = {}
    ours = before.source("url") == "default" or before.embedded == "always"  # a demo's own site says always
    if ours and before.loopback:
        chosen["embedded"] = "always"
        host, number = before.url_address
        if not port_is_free(host, number):
            chosen["url"] = f"http://{host}:{free_port()}"
    if port is not None:
        if not port_is_free(before.web_host, port):
            raise Conflict(f"port {port} is taken by another program: choose another --port, or leave it out")
        chosen["web_port"] = port
    elif not port_is_free(before.web_host, before.web_port):
        chosen["web_port"] = free_port()
    newsite.make(folder, chain, {**QUICK, **chosen})
    return Settings.load(folder, environ, {**overrides, **chosen})


def free_port() -> int:
    """A port of the loopback address that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def over(found: Overview, expected: int, quiet: float) -> bool:
    """Whether every expected file has its document and nothing goes on any more.

    A file in the demo's folder may be none that gets a document (somebody put it there): after QUIET_ENOUGH s
    without any change nobody waits for it.
    """
    return found.pending == 0 and (found.documents >= expected or quiet > QUIET_ENOUGH)


def failures(database: Database, chain: Chain) -> list[tuple[str, str, str]]:
    """(document, step or "bad", reason) of what did not get through, the first SHOWN of each kind."""
    names = {step.key: step.name for step in chain.steps}
    found = []
    for row in database.view("work/failed", reduce=False, limit=SHOWN).rows:
        found.append((str(row.id), names.get(row.key[0], str(row.key[0])), str((row.value or {}).get("reason", ""))))
    for row in database.view("work/bad", reduce=False, limit=SHOWN).rows:
        found.append((str(row.id), "bad", str((row.value or {}).get("reason", ""))))
    return found


def summarise(
    database: Database, chain: Chain, settings: Settings, before: Overview, seconds: float, page: str
) -> Summary:
    """Count what has been done since ``before``."""
    now = overview.read(database, chain)
    return Summary(
        files=now.documents - before.documents,
        steps=now.done - before.done,
        failed=now.failed,
        seconds=seconds,
        outputs=settings.data,
        page=page,
        failures=failures(database, chain) if now.failed else [],
    )


@dataclass
class Clock:
    """When the first file was there and when anything last changed: for the rate, and to say if nothing moves."""

    began: float | None = None
    changed: float = field(default_factory=time.monotonic)
    last: tuple[int, int, int] = (0, 0, 0)

    def see(self, found: Overview, before: Overview) -> None:
        """Take note of an overview."""
        now = time.monotonic()
        if self.began is None and (found.documents > before.documents or found.pending):
            self.began = now
        state = (found.documents, found.done, found.pending)
        if state != self.last:
            self.last, self.changed = state, now

    @property
    def seconds(self) -> float:
        """From the first file to the last change."""
        return 0.0 if self.began is None else max(0.001, self.changed - self.began)

    @property
    def quiet(self) -> float:
        """s since anything changed."""
        return time.monotonic() - self.changed


def daq_options(folder: Path) -> list[str]:
    """How the simulated DAQ writes into a folder: its files grow as real ones do, and it begins after what is there."""
    from procs.formats.names import parse_run_name

    days = [run.day for path in folder.glob("*/") if (run := parse_run_name(path.name)) is not None]
    options = ["pace=0.02", "flush_events=20"]
    if days:
        options.append(f"first_day={max(days) + timedelta(days=1)}")
    if any(folder.glob("sim_*/")):
        options.append("date_runs=0")
    return options


def raw_files(folder: Path) -> int:
    """How many raw files a simulated DAQ has left in a folder, by the registrar's own rules of what is one."""
    from procs.register.closed import Names
    from procs.register.settings import RegisterSettings

    names = Names(RegisterSettings())
    return sum(
        1
        for root, _, files in os.walk(folder)
        for name in files
        if names.wanted(name, os.path.relpath(str(Path(root) / name), folder))
    )
