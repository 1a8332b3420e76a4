"""What ``orchestrator check`` looks at: each part of a site, in the order in which it must be right.

Each function returns findings and changes nothing. A finding that is not ok carries its remedy.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from orchestrator.chain import Chain, Step
from orchestrator.errors import DatabaseError, Exit, OrchestratorError, SettingsError, Unavailable
from orchestrator.settings import SITE_FILE, Settings, unknown_variables

LITTLE_DISK = 2e9  # bytes free below which a warning is due; raw files and their ROOT files come in at this size
NO_DISK = 1e8  # bytes free below which nothing can be expected to work


@dataclass(frozen=True)
class Finding:
    """One line of the report. ``code`` is what the command ends with if this is the first problem."""

    level: Literal["ok", "warning", "problem"]
    subject: str
    text: str
    remedy: str = ""
    code: Exit = Exit.OK


def step_fault(step: Step) -> str:
    """Why a step could not be run here, in a sentence; empty if it could. Imports the step's module."""
    from orchestrator.step import find

    place = f"steps[{step.number}] ({step.name})"
    if step.command:
        program = step.command[0]
        if "{" not in program and shutil.which(program) is None:
            return f"{place} / command: there is no executable {program!r}; give its full path or put it on PATH"
        return ""
    try:
        find(step.run or "")
    except SettingsError as error:
        return f"{place} / run: {error}"
    except Exception as error:
        return f"{place} / run: loading {step.run!r} raised {type(error).__name__}: {error}"
    return ""


def environment(settings: Settings, environ: Mapping[str, str]) -> Iterator[Finding]:
    """The settings themselves are right, or they could not have been loaded; what is around them may be off."""
    file = settings.folder / SITE_FILE
    if file.exists():
        yield Finding("ok", "settings", str(file))
    else:
        yield Finding("warning", "settings", f"there is no {file}; defaults are used", "`orchestrator init` makes one")
    for sentence in unknown_variables(environ):
        yield Finding("warning", "settings", sentence, "correct or unset it")
    if settings.web_host not in ("127.0.0.1", "localhost", "::1"):
        yield Finding(
            "warning",
            "settings",
            f"the page is open to the network ({settings.web_host})",
            "put a proxy with https before it: passwords must not travel in the clear"
            if settings.web_reading == "login"
            else "set `web_reading` to `login`, and put a proxy with https before it",
        )


def chain_steps(chain: Chain, settings: Settings) -> Iterator[Finding]:
    """The chain is valid; its steps must be loadable, and some must be ours."""
    yield Finding("ok", "chain", f"{settings.chain}: {chain.name}, {len(chain.steps)} steps")
    ours, farmed = chain.at(settings.site), chain.farmed(settings.site)
    if not ours and not farmed:
        sites = ", ".join(sorted({step.site for step in chain.steps}))
        yield Finding(
            "problem",
            "chain",
            f"no step belongs to the site {settings.site!r}",
            f"set `site` to one of: {sites}",
            Exit.SETTINGS,
        )
    for step in ours:
        fault = step_fault(step)
        if fault:
            yield Finding(
                "problem", "step", fault, "correct it in the chain file, or install what is missing", Exit.SETTINGS
            )
        else:
            yield Finding("ok", "step", f"{step.key} {step.name}: {step.run or (step.command or ('',))[0]}")
    for farm in sorted({step.farm for step in farmed if step.farm}):
        names = ", ".join(step.name for step in farmed if step.farm == farm)
        yield Finding("ok", "farm", f"{farm}: {names}; `orchestrator site check {farm}` tries what they need there")


def registration(settings: Settings) -> Iterator[Finding]:
    """The registrar's settings and the directories it watches."""
    from pydantic import ValidationError

    from procs.register.settings import RegisterSettings

    try:
        RegisterSettings.model_validate(settings.register_settings)
    except ValidationError as error:
        for item in error.errors():
            place = ".".join(map(str, item["loc"]))
            yield Finding(
                "problem", "register", f"register.{place}: {item['msg']}", f"correct {SITE_FILE}", Exit.SETTINGS
            )
    for path in settings.watch:
        if not path.is_dir():
            yield Finding("problem", "watch", f"there is no folder {path}", f"mkdir -p '{path}'", Exit.SETTINGS)
        elif not os.access(path, os.R_OK | os.X_OK):
            yield Finding("problem", "watch", f"{path} cannot be read", "give this account read access", Exit.SETTINGS)
        else:
            yield Finding("ok", "watch", str(path))


def folders(settings: Settings) -> Iterator[Finding]:
    """Where files are written: the folder must take one, and the disk must have room."""
    for name in ("data", "spool", "logs"):
        path: Path = settings.value(name)
        there = path
        while not there.exists() and there != there.parent:
            there = there.parent  # it is made when it is first needed
        try:
            with tempfile.NamedTemporaryFile(dir=there, prefix=".orchestrator-check-"):
                pass
        except OSError as error:
            yield Finding(
                "problem",
                name,
                f"{path} cannot be written: {error.strerror}",
                "give this account write access",
                Exit.SETTINGS,
            )
            continue
        free = shutil.disk_usage(there).free
        text = f"{path} ({free / 1e9:.1f} GB free)"
        if free < NO_DISK:
            yield Finding("problem", name, text, "make room on this disk", Exit.FAILED)
        elif free < LITTLE_DISK:
            yield Finding("warning", name, text, "make room on this disk")
        else:
            yield Finding("ok", name, text)


def database(settings: Settings, environ: Mapping[str, str], chain: Chain | None) -> Iterator[Finding]:
    """The server answers, knows us, has the run database, and the couchapp in it is the chain's."""
    from orchestrator.connect import server as connect

    try:
        server = connect(settings, environ, timeout=10.0)
        info = server.info()
    except Unavailable as error:
        if settings.embedded != "never" and settings.loopback:
            yield Finding(
                "ok", "database", f"nothing answers at {settings.url} yet; `orchestrator up` starts the embedded one"
            )
        else:
            yield Finding("problem", "database", str(error), "start it, or correct `url`", Exit.UNAVAILABLE)
        return
    except OrchestratorError as error:
        yield Finding("problem", "database", str(error), "correct the credentials file", error.exit_code)
        return
    vendor = info.get("vendor")
    name = vendor.get("name", "") if isinstance(vendor, dict) else ""
    yield Finding("ok", "database", f"{settings.url}: {name or 'CouchDB'} {info.get('version', '?')}")
    yield from accounts(settings, environ)
    try:
        server.database(settings.database).info()
        yield Finding("ok", "database", f"login accepted; the database {settings.database!r} is there")
        if chain is not None:
            yield from couchapp(settings, environ, chain)
    except OrchestratorError as error:
        remedy = "`orchestrator up` or `orchestrator couchapp push` makes it"
        if error.exit_code is Exit.NOT_FOUND:
            yield Finding("warning", "database", f"the database {settings.database!r} is not there yet", remedy)
        else:
            yield Finding("problem", "database", str(error), "see the sentence", error.exit_code)


def accounts(settings: Settings, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Each daemon logs in with an account of its own, which has the roles it needs and no server's."""
    from orchestrator import users
    from orchestrator.connect import server as connect
    from orchestrator.roles import SERVER_ADMIN

    remedy = "`orchestrator user setup` makes an account for each daemon (`up` does it with the embedded database)"
    as_admin = []
    for daemon in users.DAEMONS:
        if daemon.name == "replicator" or (daemon.name == "registrar" and not settings.watch):
            continue
        own = users.file_of(daemon.name, settings)
        if daemon.name == "farm" and not own.exists():
            continue
        try:
            who = connect(settings, environ, timeout=10.0, daemon=daemon.name).session().get("userCtx") or {}
        except OrchestratorError as error:
            what = f"the {daemon.name}'s login in {own} is not accepted: {error}"
            yield Finding("problem", "account", what, "`orchestrator user setup --renew`", error.exit_code)
            continue
        has = set(who.get("roles") or ())
        if SERVER_ADMIN in has:
            as_admin.append(daemon.name)
            continue
        missing = [role for role in users.roles_of(daemon.name, settings) if role not in has]
        if missing:
            what = f"{daemon.name}: the account {who.get('name')} lacks the role {', '.join(missing)}"
            yield Finding("problem", "account", what, remedy, Exit.UNAUTHORISED)
        else:
            yield Finding("ok", "account", f"{daemon.name}: {who.get('name')} ({', '.join(sorted(has))})")
    if as_admin:
        what = f"{', '.join(as_admin)} would run with the server admin's account, which the guard does not bind"
        yield Finding("warning", "account", what, remedy)


def couchapp(settings: Settings, environ: Mapping[str, str], chain: Chain) -> Iterator[Finding]:
    """The design documents in the database are those of this chain."""
    from orchestrator.connect import run_database
    from orchestrator.couch import deploy
    from orchestrator.designs import build

    if deploy.diff(run_database(settings, environ), build(chain)):
        yield Finding(
            "warning",
            "couchapp",
            "the design documents are not those of the chain",
            "`orchestrator couchapp push` (`up` does it too)",
        )
    else:
        yield Finding("ok", "couchapp", "up to date")


def ports(settings: Settings) -> Iterator[Finding]:
    """The page's port is free, or it is ours already."""
    from orchestrator.runtime import FOLDER, Lock

    if Lock(settings.folder / FOLDER).holder() is not None:
        yield Finding("ok", "up", "this site is up")
        return
    if port_is_free(settings.web_host, settings.web_port):
        yield Finding("ok", "web", f"port {settings.web_port} is free")
    else:
        yield Finding(
            "problem",
            "web",
            f"port {settings.web_port} on {settings.web_host} is taken by another program",
            "set another `web_port`",
            Exit.CONFLICT,
        )


def port_is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def all_findings(settings: Settings, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Every check of the site, in order. Database faults never stop the others."""
    from orchestrator.chain import load

    yield from environment(settings, environ)
    chain = None
    try:
        chain = load(settings.chain)
    except OrchestratorError as error:
        for line in str(error).splitlines():
            yield Finding("problem", "chain", line, "correct the chain file, see docs/chain.md", error.exit_code)
    if chain is not None:
        yield from chain_steps(chain, settings)
    yield from registration(settings)
    yield from folders(settings)
    try:
        yield from database(settings, environ, chain)
    except DatabaseError as error:
        yield Finding("problem", "database", str(error), "see the sentence", error.exit_code)
    yield from ports(settings)
