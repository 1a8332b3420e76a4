"""Which daemons a site consists of, as specs for the supervisor. ``up`` and ``demo`` start the same ones."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import requests

from orchestrator.chain import Chain
from orchestrator.checks import port_is_free
from orchestrator.connect import server as connect
from orchestrator.errors import Conflict, SettingsError
from orchestrator.pushing import push
from orchestrator.settings import Settings
from orchestrator.supervise import Spec
from orchestrator.users import setup

DAEMONS = ("database", "registrar", "poller", "page")
EMBEDDED_VENDOR = "orchestrator"  # in the embedded server's answer to GET /, so that it is told from a real CouchDB


@dataclass(frozen=True)
class Answer:
    """What stands behind the database's address: ``nothing``, ``couchdb``, ``embedded`` or ``stranger``."""

    kind: str
    text: str = ""


def who_answers(url: str, timeout: float = 3.0) -> Answer:
    """Ask an address who it is. A 401 is an answer too: a CouchDB that wants a login for everything."""
    try:
        answer = requests.get(url + "/", timeout=timeout, allow_redirects=False)
    except requests.RequestException:
        return Answer("nothing")
    try:
        data = answer.json()
    except ValueError:
        return Answer("stranger", answer.headers.get("Server", "something that is no CouchDB"))
    if not isinstance(data, dict) or not ("couchdb" in data or data.get("error") == "unauthorized"):
        return Answer("stranger", answer.headers.get("Server", "something that is no CouchDB"))
    vendor = str((data.get("vendor") or {}).get("name", "")) if isinstance(data.get("vendor"), dict) else ""
    kind = "embedded" if EMBEDDED_VENDOR in vendor.lower() else "couchdb"
    return Answer(kind, f"{vendor} {data.get('version', '')}".strip())


def wants_embedded(settings: Settings) -> bool:
    """Whether this site's database is the embedded one, to be started with the rest.

    Raises Conflict where the address is taken by something that cannot be the run database.
    """
    if settings.embedded == "never" or (settings.embedded == "auto" and not settings.loopback):
        return False
    if not settings.loopback:
        raise SettingsError(
            f"embedded is `always`, but url {settings.url} is not on this machine: correct one of the two"
        )
    host, port = settings.url_address
    answer = who_answers(settings.url)
    if answer.kind == "couchdb" and settings.embedded == "auto":
        return False  # a real CouchDB is there: that is the database
    if answer.kind == "nothing" and port_is_free(host, port):
        return True
    what = answer.text or "another program"
    raise Conflict(
        f"the database's port {port} on {host} is taken by {what}; set another port in `url`, or end that program"
    )


def specs(
    settings: Settings,
    chain: Chain,
    environ: Mapping[str, str],
    *,
    embedded: bool,
    without: Collection[str] = (),
) -> list[Spec]:
    """The children of a site in the order of their start; the database first where it is the embedded one."""
    found: list[Spec] = []
    if embedded and "database" not in without:
        found.append(
            Spec(
                "database",
                command(settings, "db", "serve"),
                ready=lambda: who_answers(settings.url, timeout=1.0).kind == "embedded",
                prepare=lambda: prepare(settings, chain, environ, accounts=True),
                last=True,
            )
        )
    if settings.watch and "registrar" not in without:
        found.append(Spec("registrar", command(settings, "register", "--watch")))
    if "poller" not in without and (chain.at(settings.site) or not chain.farmed(settings.site)):
        share = max(1, settings.workers // max(1, settings.pollers))
        for number in range(1, settings.pollers + 1):
            name = "poller" if settings.pollers == 1 else f"poller-{number}"
            found.append(Spec(name, command(settings, "poll", "--set", f"workers={share}")))
    if "poller" not in without:
        for name, branch in chain.branches().items():
            if branch.at(settings.site):
                found.append(Spec(f"poller-{name}", command(settings, "poll", "--branch", name, "--set", "workers=1")))
    if any(gather.site == settings.site for gather in chain.gathers.values()):
        found.append(Spec("gatherer", command(settings, "gather")))
    if "poller" not in without:
        for farm in sorted({step.farm for step in chain.farmed(settings.site) if step.farm}):
            found.append(Spec(f"farm-{farm}", command(settings, "farm", farm)))
    if settings.replicate and "replication" not in without:
        found.append(Spec("replication", command(settings, "replicate", "watch")))
    if "page" not in without:
        found.append(Spec("page", command(settings, "web")))
    return found


def command(settings: Settings, *words: str) -> tuple[str, ...]:
    """The argument list of one of our own commands for this site, ending when this process does."""
    # -P: a json.py in the folder where somebody types `up` must not stand in for Python's own
    head = (sys.executable, "-P", "-m", "orchestrator.cli", "--parent", str(os.getpid()))
    return (*head, *settings.arguments(), *words)


def prepare(settings: Settings, chain: Chain, environ: Mapping[str, str], *, accounts: bool = False) -> None:
    """Make the run database and push the couchapp; with ``accounts``, give each daemon an account of its own."""
    server = connect(settings, environ)
    push(server, settings, chain)
    if accounts and "ORCHESTRATOR_COUCH_USER" not in environ:  # a login in the environment is everybody's
        setup(server, settings, chain)


def page_url(settings: Settings) -> str:
    """The status page's address for a browser on this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.web_host, settings.web_host)
    return f"http://{host}:{settings.web_port}/"


def page_answers(settings: Settings) -> bool:
    """Whether the status page's server answers, if only to say that the database is in trouble."""
    try:
        requests.get(page_url(settings), timeout=10.0)
    except requests.RequestException:
        return False
    return True
