"""Putting the runner and the steps at a farm: sent under a temporary name, checked there, renamed, then switched to.

Every part can be interrupted and repeated: what has its last name is whole, what has a temporary name is nobody's.
"""

from __future__ import annotations

import json
import secrets
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator import software
from orchestrator.documents import iso
from orchestrator.faults import point
from orchestrator.lines import line_of, value_of
from orchestrator.remote import far
from orchestrator.remote.far import FarError, Python
from orchestrator.remote.package import Package
from orchestrator.remote.target import Target
from orchestrator.software import Installed
from orchestrator.transports import FileRefused, Transport
from orchestrator.version import VERSION

#: A version that was replaced stays for so long (s) at least: daemons look for a new one every round.
KEEP = 600.0
#: What interrupted installations leave is cleared away after this (s).
LEFTOVER = 86_400.0
#: Unpacking, compiling and trying, on a slow shared file system, and pip's own limit besides (s).
INSTALL_LIMIT = 1800.0


@dataclass
class Outcome:
    """What an installation came to.

    ``done`` is ``installed``, ``there already`` or ``repaired``; ``faults`` are steps that cannot be loaded there, by
    name; ``current`` whether new jobs use it; ``advice`` sentences for whoever installs.
    """

    name: str
    folder: str
    python: Python
    done: str
    current: bool
    faults: Mapping[str, str] = field(default_factory=dict)
    advice: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    files: int = 0
    packages: tuple[str, ...] = ()


def current(transport: Transport, spool: str, prefix: str) -> Installed | None:
    """The version that new jobs use; None if nothing is installed. Raises FarError for a record that is spoilt."""
    path = software.record(spool, prefix)
    if not transport.exists(path):
        return None
    try:
        return Installed.from_json(value_of(transport.read(path)))
    except ValueError as error:
        raise FarError(f"{path} on {transport.where} cannot be used ({error}): install again") from error


def install(
    target: Target,
    package: Package,
    python: Python,
    now: float,
    *,
    force: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Install a package, make it the current version, clear away what nothing names any more.

    Args:
        force: make it current even if a step cannot be loaded there.
        say: told what is being done.

    Raises:
        FarError: it could not be installed; the farm is as it was.
        TransportError: the machine could not be asked, or a file was refused.
    """
    transport, digests = target.transport, package.digests()
    name = package.name(digests, python.lasting, python.about)
    folder = f"{software.folder(target.spool)}/{name}"
    words = python.lasting
    loads = target.loads()
    damage = _damage(transport, words, folder)
    if damage is None:
        done = "there already"
        answer = far.call(transport, words, {"do": "imports", "folder": folder, "steps": loads})
        if "steps" not in answer:
            raise FarError(f"the runner does not start on {transport.where}: {answer.get('runner')}")
        faults: dict[str, str] = answer["steps"]
    else:
        done = "installed" if damage == "it is not there" else "repaired"
        key = package.packages_key(words, python.about)
        sibling = _sibling(target, words, key)
        wheels = () if sibling else package.wheels
        say(f"sending {len(digests)} files" + (f" and {len(wheels)} wheels" if wheels else ""))
        staging = f"{software.folder(target.spool)}/.staging-{secrets.token_hex(8)}"
        manifest = {
            "format": software.FORMAT, "name": name, "version": VERSION, "installed": iso(now), "python": list(words),
            "about": python.about, "requirements": list(package.requirements), "from": package.source,
            "packages_key": key,
        }  # fmt: skip
        _send(transport, staging, package, wheels)
        point("install.sent")
        how = f", with the packages of {sibling.rpartition('/')[2]}" if sibling else ", installing packages"
        say("unpacking and trying it there" + (how if package.requirements else ""))
        order = {
            "do": "install", "staging": staging, "files": digests, "manifest": manifest, "steps": loads,
            "packages": {"from": package.source, "requirements": list(package.requirements), "sibling": sibling},
        }  # fmt: skip
        answer = _order(transport, words, order, staging)
        faults = answer["steps"]
        point("install.unpacked")
        _rename(transport, staging, folder, damaged=done == "repaired")
        point("install.named")
    outcome = Outcome(name, folder, python, done, not faults or force, faults, files=len(digests))
    outcome.packages = package.requirements
    if outcome.current:
        record = Installed(name, VERSION, folder, words, iso(now))
        path = software.record(target.spool, target.prefix)
        before = _spoilt_is_none(transport, target)
        if before is None or (before.name, before.python, before.folder) != (name, words, folder):
            transport.write(path, line_of(record.to_json()))
        point("install.recorded")
    if faults:
        outcome.advice += _advice(target, faults)
    outcome.removed = [one["name"] for one in versions(target, words, remove=True) if one["removed"]]
    return outcome


def versions(
    target: Target, python: Sequence[str], *, remove: bool = False, keep: float = KEEP
) -> list[dict[str, Any]]:
    """The versions there, each with the number of jobs in the spool that name it; with ``remove``, unused ones go."""
    order = {
        "do": "clean", "software": software.folder(target.spool), "spool": target.spool, "remove": remove,
        "keep": keep, "leftover": LEFTOVER,
    }  # fmt: skip
    answer = far.call(target.transport, python, order)
    if "error" in answer:
        raise FarError(f"the versions on {target.transport.where} cannot be looked at: {answer['error']}")
    return list(answer["versions"])


def _spoilt_is_none(transport: Transport, target: Target) -> Installed | None:
    try:
        return current(transport, target.spool, target.prefix)
    except FarError:
        return None


def _damage(transport: Transport, words: Sequence[str], folder: str) -> str | None:
    """What is wrong with a version that should be there; None if it is whole."""
    answer = far.call(transport, words, {"do": "verify", "folder": folder})
    return answer.get("damage")


def _sibling(target: Target, words: Sequence[str], key: str) -> str:
    """The folder of a version that has the same packages: they need not travel again. Empty if there is none."""
    for one in versions(target, words) if key else ():
        folder = f"{software.folder(target.spool)}/{one['name']}"
        if one.get("packages_key") == key and _damage(target.transport, words, folder) is None:
            return folder
    return ""


def _send(transport: Transport, staging: str, package: Package, wheels: Sequence[Path]) -> None:
    """The archive and the wheels, into a folder that nobody reads."""
    transport.mkdir(staging)
    with tempfile.TemporaryDirectory(prefix="orchestrator-package-") as here:
        archive = Path(here) / "package.zip"
        package.write(archive)
        transport.put(archive, f"{staging}/package.zip")
    if wheels:
        transport.mkdir(f"{staging}/wheels")
        for wheel in wheels:
            transport.put(wheel, f"{staging}/wheels/{wheel.name}")


def _order(transport: Transport, words: Sequence[str], order: Mapping[str, Any], staging: str) -> dict[str, Any]:
    """Have it unpacked and tried; what cannot be used is removed again."""
    try:
        answer = far.call(transport, words, order, INSTALL_LIMIT)
        if "error" in answer:
            raise FarError(f"nothing was installed on {transport.where}: {answer['error']}")
        return answer
    except FarError:
        transport.run(["rm", "-rf", "--", staging])
        raise


def _rename(transport: Transport, staging: str, folder: str, *, damaged: bool) -> None:
    """Give the checked version its name; a damaged one steps aside."""
    if damaged:
        aside, _, name = folder.rpartition("/")
        transport.rename(folder, f"{aside}/.damaged-{name}-{secrets.token_hex(4)}")
    try:
        transport.rename(staging, folder)
    except FileRefused:
        if not transport.exists(f"{folder}/{software.MANIFEST}"):
            raise
        transport.run(["rm", "-rf", "--", staging])  # somebody installed the same in this moment


def _advice(target: Target, faults: Mapping[str, str]) -> list[str]:
    """What to do about packages that steps lack there."""
    missing = sorted({fault.removeprefix("missing ") for fault in faults.values() if fault.startswith("missing ")})
    if not missing:
        return []
    again = f"orchestrator site install {target.name}"
    return [
        f"the farm's Python has no {', '.join(missing)}. One of these helps:",
        f"  {again} --wheels wheels --download   this machine has the network: fetch here, send along",
        f"  {again} --wheels wheels              wheels that you have put into the folder",
        f"  {again} --pip                        the farm has the network: pip there fetches",
        f"  {again} --python WORDS               another Python there that has them",
    ]


def as_json(outcome: Outcome) -> dict[str, Any]:
    """For programs."""
    data = json.loads(json.dumps(vars(outcome), default=vars))
    data["python"] = {"words": list(outcome.python.lasting), "about": outcome.python.about}
    return dict(data)
