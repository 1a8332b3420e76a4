"""Mending what an audit has found, where that is mechanical and loses nothing: the same as a person would do by hand.

Each kind of finding that is mended has a line in MENDS, which says what is done; all others are left to a person. What
is done to documents goes through the same functions as people's operations and pollers, so the database's guard and the
table of transitions hold for it, and each is decided on the document as it is then. What was done is recorded as one
operation (``operation:...``, ``what: mend``).
"""

from __future__ import annotations

import os
import shutil
import socket
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from orchestrator import batchjobs, documents, faults, people, roles
from orchestrator.audit.findings import Finding
from orchestrator.chain import Chain
from orchestrator.couch import Database
from orchestrator.couch.branch import BranchDatabase
from orchestrator.documents import Claimant, Document, iso
from orchestrator.engine.engine import Engine
from orchestrator.engine.farmworld import World
from orchestrator.engine.operations import Desk, change
from orchestrator.engine.recovery import Recovery
from orchestrator.errors import DatabaseError, OrchestratorError, Refused
from orchestrator.executors.spool import Spool
from orchestrator.filenames import unfinished
from orchestrator.people import Order
from orchestrator.schedulers import Query, get
from orchestrator.selection import Selection
from orchestrator.settings import Settings
from orchestrator.transports import transport_to

#: What is done about each kind of finding; a kind that is not here is for a person, whom its remedy tells what to do.
MENDS: dict[str, str] = {
    "claim-broken": "the document is given back to before the step that holds it, as from a dead poller",
    "claim-left": "the step is reset in the document: what stands in the entry is kept in a document of type past",
    "failure-hidden": "the step is reset in the document: what stands in the entry is kept in a document of type past",
    "poller-gone": "where the dead poller's spool is here, its results are recorded and its claims given back",
    "spool-unrecorded": "its reports are recorded, as the next poller's start would",
    "spool-left": "it is removed, after a look for reports that could be recorded",
    "scratch-left": "the scratch folder is removed",
    "output-unfinished": "the unfinished file is removed",
    "job-files-left": "the files are removed at the farm, if its daemon does not live",
    "operation-unfinished": "outputs are dealt with and documents let go, or its record says that it broke off",
    "past-untrue": "the untrue document of type past is deleted",
    "attempt-untrue": "the attempt's document is deleted, if it speaks of the very attempt that is done",
}
#: Things done that the record names one by one.
NAMED = 1000


@dataclass
class Mended:
    """What was done, and what could not be: sentences by finding."""

    done: dict[Finding, str] = field(default_factory=dict)
    left: dict[Finding, str] = field(default_factory=dict)
    operation: str = ""

    def to_json(self) -> dict[str, Any]:
        def named(found: dict[Finding, str]) -> list[dict[str, str]]:
            return [{"kind": one.kind, "subject": one.subject, "text": text} for one, text in found.items()]

        return {"operation": self.operation or None, "done": named(self.done), "left": named(self.left)}


def mendable(findings: Iterable[Finding]) -> list[Finding]:
    """Those of the findings that can be mended here, in the table's order."""
    found = list(findings)
    return [one for kind in MENDS for one in found if one.kind == kind]


class Mender:
    """Mends one site. ``by`` is whose word it is; ``clock`` is s since 1970, ``monotonic`` is never set."""

    def __init__(
        self, chain: Chain, database: Database, settings: Settings, by: str, *, clock: Callable[[], float],
        monotonic: Callable[[], float], alive: Callable[[str], bool | None], recording: Database | None = None,
    ) -> None:  # fmt: skip
        """``alive`` says whether a poller or a farm's daemon lives, as the audit has seen it.

        ``recording`` is the database with the account of a poller, which may record results.
        """
        self.chain, self.database, self.settings, self.by = chain, database, settings, by
        self._recording = recording or database
        self._clock, self._monotonic, self._alive = clock, monotonic, alive

    def run(self, findings: Iterable[Finding]) -> Mended:
        """Mend what can be. Raises what the database raises; what was done until then stays, and may be done again."""
        wanted = mendable(findings)
        mended = Mended()
        if not wanted:
            return mended
        record = self._begin(wanted)
        mended.operation = record["_id"]
        faults.point("mend.begun")
        ways: dict[str, Callable[[list[Finding], Mended], None]] = {
            "claim-broken": self._give_back, "claim-left": self._reset, "failure-hidden": self._reset,
            "poller-gone": self._recover, "spool-unrecorded": self._recover, "spool-left": self._recover,
            "scratch-left": self._remove_folder, "output-unfinished": self._remove_file,
            "job-files-left": self._remove_job, "operation-unfinished": self._finish, "past-untrue": self._forget,
            "attempt-untrue": self._forget_attempt,
        }  # fmt: skip
        together: dict[Callable[[list[Finding], Mended], None], list[Finding]] = {}
        for finding in wanted:
            together.setdefault(ways[finding.kind], []).append(finding)
        for way, found in together.items():
            way(found, mended)
        faults.point("mend.done")
        self._end(record, mended)
        return mended

    # --- the record ---

    def _begin(self, wanted: list[Finding]) -> Document:
        moment = "".join(character for character in iso(self._clock()) if character.isalnum())
        record: Document = {
            "_id": f"operation:{moment}-{uuid.uuid4().hex[:8]}", "type": "operation", "what": "mend", "by": self.by,
            "at": iso(self._clock()), "reason": "what an audit has found", "site": self.settings.site,
            "selected": len(wanted), "state": "begun",
        }  # fmt: skip
        return {**record, "_rev": self.database.put(record)}

    def _end(self, record: Document, mended: Mended) -> None:
        self.database.put({
            **record, "state": "done in part" if mended.left else "done", "finished": iso(self._clock()),
            "counts": {"changed": len(mended.done), "unchanged": 0, "refused": len(mended.left)},
            "mended": mended.to_json()["done"][:NAMED],
            "refused": {f"{one.kind} {one.subject}": text for one, text in list(mended.left.items())[:NAMED]},
        })  # fmt: skip

    # --- documents ---

    def _of(self, branch: str) -> tuple[Chain, Database]:
        chain = self.chain.of(branch)
        return chain, BranchDatabase(self.database, chain.branch, self.chain.type) if branch else self.database

    def _give_back(self, found: list[Finding], mended: Mended) -> None:
        for one in found:
            chain, database = self._of(one.branch)
            now = self._clock()

            def free(document: Document, chain: Chain = chain, now: float = now, one: Finding = one) -> Any:
                held = documents.holder(document)
                step = next((step for step in chain.steps if held is not None and step.key == held[0]), None)
                if held is None or step is None or held[0] != one.step:
                    return "it has gone on since"
                entry = held[1]
                if entry.get("state") in ("queued", "in progress") and entry.get("attempt") and entry.get("poller"):
                    return "its claim is whole by now"
                freed, record = documents.lose(document, step, f"an audit found: {one.text}", now)
                return people.Changed(freed, (record,))

            self._note(one, change(database, [one.subject], free), mended)

    def _reset(self, found: list[Finding], mended: Mended) -> None:
        for one in found:
            chain, database = self._of(one.branch)
            desk = Desk(database, chain, self.settings.site, self.settings.data, self._clock)
            order = Order("reset", self.by, f"an audit found {one.kind}: {one.text}"[:500], chain.step(one.step).name)
            self._note(one, desk.perform(order, [one.subject], Selection(documents=(one.subject,))), mended)

    def _note(self, one: Finding, done: Any, mended: Mended) -> None:
        if one.subject in done.refused:
            mended.left[one] = done.refused[one.subject]
        else:
            mended.done[one] = done.unchanged.get(one.subject) or MENDS[one.kind]

    def _finish(self, found: list[Finding], mended: Mended) -> None:
        for one in found:
            record = self.database.get(one.subject)
            _, database = self._of(str(record.get("branch") or ""))
            if record.get("outputs") in people.OUTPUTS:
                desk = Desk(database, self.chain, self.settings.site, self.settings.data, self._clock)
                done = desk.finish(one.subject)
                if done.refused:
                    mended.left[one] = "; ".join(list(done.refused.values())[:3])
                    continue
            else:
                self.database.put({**record, "state": "broken off", "finished": iso(self._clock())})
            mended.done[one] = MENDS[one.kind]

    def _forget(self, found: list[Finding], mended: Mended) -> None:
        for one in found:
            past = self.database.get(one.subject)
            _, database = self._of(str(past.get("branch") or ""))
            now = database.get_many([str(past.get("document"))])
            if people.is_untrue(past, next(iter(now.values()))):
                self.database.delete(past)
            mended.done[one] = MENDS[one.kind]

    def _forget_attempt(self, found: list[Finding], mended: Mended) -> None:
        for one in found:
            attempt, owner = self.database.get(one.subject), self.database.get(one.document)
            entry = owner.get(one.subject.split(":")[-2])
            if not isinstance(entry, dict) or entry.get("attempt") != attempt.get("attempt"):
                mended.left[one] = "it speaks of another attempt: look at both"
                continue
            try:
                self.database.delete(attempt)
            except Refused as error:
                mended.left[one] = str(error)
            else:
                mended.done[one] = MENDS[one.kind]

    # --- what dead pollers have left ---

    def _recover(self, found: list[Finding], mended: Mended) -> None:
        """Adopt the spools of dead pollers of this machine, as a poller does before it begins to work."""
        if not self._may_record():
            why = "this account may not record results: start a poller, or do it with an admin's login"
            mended.left |= dict.fromkeys(found, why)
            return
        for branch in ("", *self.chain.branches()):
            chain, database = self.chain.of(branch), self._recording
            if branch:
                database = BranchDatabase(database, chain.branch, self.chain.type)
            steps = chain.at(self.settings.site)
            root = self.settings.spool / branch if branch else self.settings.spool
            if not steps or not (root / "pollers").is_dir():
                continue
            host = socket.gethostname()
            claimant = Claimant(f"{host}-{os.getpid()}-{uuid.uuid4().hex[:8]}", host, os.getpid(), self.settings.site)
            engine = Engine(chain, steps, claimant, database, lambda: uuid.uuid4().hex, Random())
            spool = Spool(root, claimant.poller, self.settings.spool / "scratch")
            recovery = Recovery(chain, database, engine, spool, self.settings.lease)
            try:
                recovery.look(self._clock(), self._monotonic())
                engine.commit(self._clock())
                recovery.finish()
            finally:
                spool.close()
        for one in found:
            if one.kind == "spool-left" and not self._cleared(Path(one.subject)):
                mended.left[one] = "it cannot be removed, or its poller has come to life"
            elif one.kind == "poller-gone" and self._still_held(one):
                mended.left[one] = "its spool is not on this machine: start a poller of that site, which takes over"
            else:
                mended.done[one] = MENDS[one.kind]

    def _may_record(self) -> bool:
        """Whether the guard lets this account write results: what it refuses would be dropped."""
        session = self._recording.connection.json("GET", ("_session",), subject=self._recording.subject)
        mine = set((session.get("userCtx") or {}).get("roles") or ())
        return bool(mine & {roles.SERVER_ADMIN, roles.ADMIN, roles.site_role(self.settings.site)})

    def _still_held(self, one: Finding) -> bool:
        _, database = self._of(one.branch)
        document = database.get(one.subject)
        held = documents.holder(document)
        return held is not None and self._alive(str(held[1].get("poller"))) is False

    def _cleared(self, path: Path) -> bool:
        """Whether a spool folder, or a file in one, that nobody needs is gone."""
        if not path.exists():
            return True
        root = self.settings.spool.resolve()
        name = path.name if path.is_dir() else path.parent.name
        folder = path if path.is_dir() else path.parent
        if root not in folder.resolve().parents or folder.parent.name != "pollers" or self._alive(name) is not False:
            return False
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        return not path.exists()

    # --- files ---

    def _remove_folder(self, found: list[Finding], mended: Mended) -> None:
        scratch = (self.settings.spool / "scratch").resolve()
        for one in found:
            path = Path(one.subject)
            if path.is_symlink() or path.resolve().parent != scratch:
                mended.left[one] = f"it does not lie in {scratch}"
                continue
            shutil.rmtree(path, ignore_errors=True)
            self._gone(one, path, mended)

    def _remove_file(self, found: list[Finding], mended: Mended) -> None:
        data = self.settings.data.resolve()
        for one in found:
            path = Path(one.subject)
            if path.is_symlink() or data not in path.resolve().parents or unfinished(path.name) is None:
                mended.left[one] = f"it is no unfinished output in {data}"
                continue
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                mended.left[one] = f"it cannot be removed: {error.strerror}"
                continue
            self._gone(one, path, mended)

    def _gone(self, one: Finding, path: Path, mended: Mended) -> None:
        if path.exists():
            mended.left[one] = "it cannot be removed"
        else:
            mended.done[one] = MENDS[one.kind]

    def _remove_job(self, found: list[Finding], mended: Mended) -> None:
        """The files of jobs that nobody waits for; a farm's daemon that lives does it itself."""
        for name in sorted({step.farm for step in self.chain.farmed(self.settings.site) if step.farm}):
            farm = self.chain.farms[name]
            spool = farm.spool.rstrip("/")
            here = [one for one in found if one.subject.startswith(f"{spool}/jobs/")]
            if not here:
                continue
            identity = batchjobs.identity(self.settings.site, name)
            if self._alive(identity):
                mended.left |= dict.fromkeys(here, "the farm's daemon lives: restart it, it clears them")
                continue
            prefix = batchjobs.prefix(self.settings.url, self.settings.database, identity)
            try:
                scheduler = get(
                    farm.scheduler, programs=farm.programs, environment=farm.environment, settings=farm.settings
                )
                with transport_to(farm.access) as transport:
                    world = World(scheduler, transport, spool, Query(prefix, farm.user))
                    world.remove(*(one.subject.rpartition("/")[2] for one in here))
                    left = set(world.jobs())
            except DatabaseError:
                raise
            except OrchestratorError as error:
                mended.left |= dict.fromkeys(here, str(error))
                continue
            for one in here:
                if one.subject.rpartition("/")[2] in left:
                    mended.left[one] = "it cannot be removed"
                else:
                    mended.done[one] = MENDS[one.kind]
