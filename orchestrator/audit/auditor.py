"""The audit itself: everything read once in bulk, and whatever seems wrong looked at again before it is said.

Documents stream through in pages, so that memory does not grow with them (but for 8 bytes a file name, `disk.Names`).
What is only on its way, a result that is being written, a file that has just got its name, seems wrong in the first
look and not in the second, which comes ``grace`` seconds later and looks at the suspects alone.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from orchestrator import batchjobs, designs, documents, people
from orchestrator.audit import disk, farm
from orchestrator.audit.document import (
    Output,
    Rules,
    attempts_expected,
    named_paths,
    outputs,
    own_paths,
    raw_file,
    step_entries,
)
from orchestrator.audit.far import FarOutputs
from orchestrator.audit.findings import ERROR, KINDS, WARNING, Finding, Findings
from orchestrator.capture import safe_file_name
from orchestrator.chain import Chain, Step
from orchestrator.couch import Database, deploy
from orchestrator.couch.branch import BranchDatabase
from orchestrator.engine.heartbeat import beats
from orchestrator.engine.pages import pages, pages_by_id
from orchestrator.executors.spool import is_locked
from orchestrator.settings import Settings

#: Documents read in one request.
PAGE = 1000
#: Where attempts' documents begin and end among all ids, as `documents.attempt_id` makes them.
ATTEMPTS = ("attempt:", "attempt;")
#: Kinds of findings that a document's own text gives, and its files.
BY_DOCUMENT = (
    "status-unknown", "step-unknown", "claim-broken", "claim-left", "failure-hidden", "failure-unexplained",
    "order-broken", "poller-gone", "attempt-missing", "output-missing", "output-differs", "raw-missing", "raw-differs",
)  # fmt: skip
#: Those that documents of people's operations give.
BESIDE = ("operation-unfinished", "past-untrue")
#: An operation that has not ended after so long (s) has broken off; one on a million documents takes minutes.
UNFINISHED = 900.0
#: Those that come of comparing documents with each other; all others come from the disk, the spool and the farms.
ACROSS = ("attempt-orphaned", "attempt-untrue", "output-shared", "raw-shared", "design-differs")


@dataclass
class Result:
    """What an audit came to: how much was looked at, and what is wrong."""

    documents: int = 0
    attempts: int = 0
    files: int = 0
    states: Counter[str] = field(default_factory=Counter)
    findings: Findings = field(default_factory=Findings)

    @property
    def clean(self) -> bool:
        """Whether there is neither an error nor a warning."""
        return not any(one.severity in (ERROR, WARNING) for one in self.findings.kept.values())

    def to_json(self) -> dict[str, Any]:
        return {
            "ok": self.clean, "documents": self.documents, "attempts": self.attempts, "files": self.files,
            "states": dict(self.states), "counts": dict(self.findings.counts),
            "findings": [finding.to_json() for finding in self.findings.kept.values()],
        }  # fmt: skip


class Auditor:
    """One audit of one site. ``wait`` waits so many seconds, ``clock`` is s since 1970, ``tell`` is for people."""

    def __init__(
        self, chain: Chain, database: Database, settings: Settings, *, deep: bool = False, grace: float = 5.0,
        wait: Callable[[float], Any], clock: Callable[[], float], tell: Callable[[str], Any] = lambda _: None,
    ) -> None:  # fmt: skip
        self.chain, self.database, self.settings = chain, database, settings
        self._deep, self._grace, self._wait, self._clock, self._tell = deep, grace, wait, clock, tell
        self._host = socket.gethostname()
        self._chains = (chain, *chain.branches().values())
        self._types = {one.type for one in self._chains}
        self._spools = [settings.spool, *(settings.spool / name for name in chain.branches())]
        self._names, self._outputs, self._raws = disk.Names(), disk.Names(), disk.Names()
        self._folders: set[str] = set()
        self._beats: dict[str, dict[str, Any]] = {}
        self._moved: dict[str, bool] | None = None
        self._far = FarOutputs(chain, deep=deep)
        self.result = Result()

    def _is_far(self, step: Step) -> bool:
        """Whether the outputs of a step of this site lie at a farm that is reached across a network."""
        farm_ = self.chain.farms.get(step.farm or "")
        return step.site == self.settings.site and farm_ is not None and farm_.access is not None

    def _is_here(self, step: Step) -> bool:
        """Whether the outputs of a step lie on a disk that is seen here."""
        farm_ = self.chain.farms.get(step.farm or "")
        return step.site == self.settings.site and (farm_ is None or farm_.access is None)

    # --- the two looks ---

    def run(self) -> Result:
        """The whole audit. Raises what the database raises."""
        try:
            return self._run()
        finally:
            self._far.close()

    def _run(self) -> Result:
        start = str(self.database.info()["update_seq"])
        self._beats = beats(self.database)
        suspects = Findings()
        for page in self._pages():
            for finding in self._page(page):
                suspects.add(finding)
        for finding in self._attempts():
            suspects.add(finding)
        for finding in (*self._shared(), *self._around(start), *self._far.unseen()):
            suspects.add(finding)
        if len(suspects):
            pause = self._pause(suspects)
            self._tell(f"{len(suspects)} things seem wrong; they are looked at again in {pause:.0f} s")
            self._wait(pause)
            suspects = self._again(suspects, start)
        for finding in self._designs():
            suspects.add(finding)
        self.result.findings = suspects
        return self.result

    def _pause(self, suspects: Findings) -> float:
        """How long to wait before the second look: a poller's death takes a lease to be seen."""
        return max(self._grace, self.settings.lease) if suspects.of("poller-gone", "farm-daemon-gone") else self._grace

    def _again(self, suspects: Findings, start: str) -> Findings:
        """What is still wrong now."""
        later = beats(self.database)
        self._moved = {
            name: self._beats.get(name, {}).get("beat") != beat.get("beat") for name, beat in later.items()
        }
        sure = Findings()
        self._far.again()
        ids = list(dict.fromkeys(one.subject for one in suspects.of(*BY_DOCUMENT)))
        for begin in range(0, len(ids), PAGE):
            found = self.database.get_many(ids[begin : begin + PAGE])
            for finding in self._look([document for document in found.values() if document is not None]):
                if (finding.kind, finding.subject, finding.document) in suspects.kept:
                    sure.add(finding)
        people_s = suspects.of(*BESIDE)
        for begin in range(0, len(people_s), PAGE):
            part = people_s[begin : begin + PAGE]
            found = self.database.get_many([one.subject for one in part])
            self._keep(part, self._beside([one for one in found.values() if one is not None]), sure)
        orphans = suspects.of("attempt-orphaned", "attempt-untrue")
        for begin in range(0, len(orphans), PAGE):
            part = orphans[begin : begin + PAGE]
            self._keep(part, self._orphans(one.subject for one in part), sure)
        self._keep(suspects.of("output-shared", "raw-shared"), self._shared(), sure)
        around = suspects.of(*(kind for kind in KINDS if kind not in (*BY_DOCUMENT, *BESIDE, *ACROSS)))
        if around:
            self._keep(around, (*self._around(start), *self._far.unseen()), sure)
        for kind, count in suspects.counts.items():
            kept = len(suspects.of(kind))
            if count > kept and sure.counts[kind]:
                sure.counts[kind] += count - kept  # those beyond what is kept had one look only
        return sure

    @staticmethod
    def _keep(before: Iterable[Finding], now: Iterable[Finding], sure: Findings) -> None:
        known = {(one.kind, one.subject, one.document) for one in before}
        for finding in now:
            if (finding.kind, finding.subject, finding.document) in known:
                sure.add(finding)

    # --- pollers ---

    def alive(self, poller: str) -> bool | None:
        """Whether a poller or a farm's daemon lives: by its lock on this machine, else by its heartbeat."""
        name = f"{safe_file_name(poller)}.lock"
        if poller.startswith(batchjobs.IDENTITY) and is_locked(self.settings.spool / name):
            return True  # else it may live on another machine
        for spool in self._spools:
            if (lock := spool / "pollers" / name).exists():
                return is_locked(lock)
        if self._moved is not None:
            return self._moved.get(poller, False)
        at = documents.seconds_of(self._beats.get(poller, {}).get("at"))
        return at is not None and abs(self._clock() - at) < self.settings.lease

    # --- documents ---

    def _pages(self) -> Iterator[list[dict[str, Any]]]:
        """All documents but those of attempts, a page at a time."""
        for first, last in ((None, ATTEMPTS[0]), (ATTEMPTS[1], None)):
            for rows in pages_by_id(self.database, PAGE, first, last, include_docs=True):
                yield [row.doc for row in rows if row.doc is not None]

    def _page(self, page: list[dict[str, Any]]) -> Iterator[Finding]:
        ours = []
        for document in page:
            if document.get("type") in self._types:
                ours.append(document)
                self.result.documents += 1
                self.result.states[str(document.get("status"))] += 1
            elif not str(document.get("_id")).startswith("_design/"):
                self._names.add_all(named_paths(document))
        yield from self._look(ours, first=True)
        yield from self._beside(page)

    def _beside(self, page: Iterable[dict[str, Any]]) -> Iterator[Finding]:
        """What is wrong with documents of people's operations."""
        pasts: dict[str, list[dict[str, Any]]] = {}
        for document in page:
            if document.get("type") == "past":
                pasts.setdefault(str(document.get("document")), []).append(document)
            elif document.get("type") == "operation" and document.get("state") == "begun":
                at = documents.seconds_of(document.get("at"))
                if document.get("site") == self.settings.site and at is not None and self._clock() - at > UNFINISHED:
                    text = f"{document.get('by')} began it at {document.get('at')} ({document.get('what')})"
                    yield Finding("operation-unfinished", str(document["_id"]), text)
        for name, one in self.database.get_many(list(pasts)).items() if pasts else ():
            for past in pasts[name]:
                branch = str(past.get("branch") or "")
                if one is not None and branch in ("", *self.chain.branches()):
                    inward = self.chain.of(branch).branch.inward(one, self.chain.type) or {}
                    at = documents.seconds_of(past.get("at"))
                    if people.is_untrue(past, inward) and at is not None and self._clock() - at > self._grace:
                        yield Finding("past-untrue", str(past["_id"]), f"document {name} has it still", name)

    def _look(self, page: list[dict[str, Any]], *, first: bool = False) -> Iterator[Finding]:
        """What is wrong with some documents, their outputs and their attempts; at the ``first`` look names are kept."""
        expected: dict[str, str] = {}
        far: list[tuple[str, Output]] = []
        for document in page:
            if first and (raw := raw_file(document)) is not None:
                self._raws.add("\0".join(raw))
                self._names.add(raw[1])
            yield from self._raw(document)
            for chain in self._chains:
                if chain.type != document.get("type"):
                    continue
                inward = chain.branch.inward(document, self.chain.type) or {}
                entries, left = step_entries(inward), list(outputs(chain, inward))
                if first:
                    self._names.add_all(named_paths(entries))
                    self._outputs.add_all(own_paths(left))
                found = [*Rules(chain, self.alive).look(inward, entries), *self._files(left)]
                yield from (replace(one, branch=chain.branch.name) for one in found)
                far += [(chain.branch.name, one) for one in left if self._is_far(one.step)]
                for attempt in attempts_expected(inward, entries, f"{chain.branch.name}_" if chain.branch.lane else ""):
                    expected[attempt] = str(document["_id"])
        yield from self._there(far, first=first)
        if expected:
            rows = self.database.all_docs(keys=list(expected)).rows
            for row in rows:
                if row.error is not None or (row.value or {}).get("deleted"):
                    yield Finding("attempt-missing", expected[str(row.key)], f"there is no document {row.key}")

    def _there(self, far: list[tuple[str, Output]], *, first: bool) -> Iterator[Finding]:
        """What is wrong with outputs at farms whose disk is not seen here."""
        self.result.files += len(far) if first else 0
        for branch in dict.fromkeys(name for name, _ in far):
            found = self._far.look([one for name, one in far if name == branch])
            yield from (replace(one, branch=branch) for one in found)

    def _files(self, left: list[Output]) -> Iterator[Finding]:
        for output in left:
            if self._is_here(output.step):
                self.result.files += self._moved is None
                finding = disk.output_finding(output, deep=self._deep)
                if finding is not None:
                    yield finding
                elif "." not in output.path.rpartition("/")[2] and Path(output.path).is_dir():
                    self._folders.add(output.path)

    def _raw(self, document: Mapping[str, Any]) -> Iterator[Finding]:
        raw = raw_file(document) if document.get("type") == self.chain.type else None
        if raw is None or raw[0] != self._host or document.get("status") in ("open", "bad"):
            return
        if not documents.complete(self.chain, document) or self._deep:
            size, checksum = document.get("size"), document.get("checksum")
            wrong = disk.check_file(
                raw[1], size if isinstance(size, int) else None, checksum if isinstance(checksum, str) else None,
                deep=self._deep,
            )  # fmt: skip
            if wrong is not None and not (wrong[0] == "missing" and documents.complete(self.chain, document)):
                yield Finding(f"raw-{wrong[0]}", str(document["_id"]), f"its raw file {wrong[1]}")

    # --- attempts ---

    def _attempts(self) -> Iterator[Finding]:
        """Attempts' documents whose data document is not there."""
        for rows in pages_by_id(self.database, PAGE, *ATTEMPTS):
            self.result.attempts += len(rows)
            yield from self._orphans(str(row.id) for row in rows)

    def _orphans(self, ids: Iterable[str]) -> Iterator[Finding]:
        owners = {name: name.removeprefix(ATTEMPTS[0]).rsplit(":", 2)[0] for name in ids}
        if not owners:
            return
        rows = self.database.all_docs(keys=list(dict.fromkeys(owners.values())), include_docs=True).rows
        found = {str(row.key): row.doc for row in rows if row.doc and not row.doc.get("_deleted")}
        for name, owner in owners.items():
            if owner not in found:
                yield Finding("attempt-orphaned", name, f"there is no document {owner}")
                continue
            key, _, number = name.removeprefix(f"{ATTEMPTS[0]}{owner}:").rpartition(":")
            entry = found[owner].get(key)
            if not isinstance(entry, dict) or entry.get("accepted"):
                continue  # a gate had refused it, and a person has accepted it: both are true
            if entry.get("state") == "done" and str(entry.get("number")) == number:
                yield Finding("attempt-untrue", name, f"by document {owner} attempt {number} of {key} is done", owner)

    # --- names that stand twice ---

    def _shared(self) -> Iterator[Finding]:
        """Outputs and raw files that are named twice: only if there are any, all documents are read once more."""
        kinds = (("output-shared", self._outputs.doubles()), ("raw-shared", self._raws.doubles()))
        if not any(marks for _, marks in kinds):
            return
        owners: dict[tuple[str, str], set[str]] = {}
        for page in self._pages():
            for document in page:
                if document.get("type") not in self._types:
                    continue
                name, raw = str(document["_id"]), raw_file(document)
                paths: set[str] = set()
                for chain in self._chains:
                    if chain.type == document["type"]:
                        inward = chain.branch.inward(document, self.chain.type) or {}
                        paths |= own_paths(outputs(chain, inward))
                for kind, names in (("output-shared", paths), ("raw-shared", {"\0".join(raw)} if raw else set())):
                    for path in names:
                        if hash(path) in dict(kinds)[kind]:
                            owners.setdefault((kind, path), set()).add(name)
        for (kind, path), documents_ in sorted(owners.items()):
            if len(documents_) > 1:
                first, *others = sorted(documents_)
                where = path.replace("\0", ":")
                yield Finding(kind, first, f"{where} is named by {', '.join(others[:3])} too", first)

    # --- what is beside the documents ---

    def _around(self, start: str) -> Iterator[Finding]:
        """Disk, spool and farms, beside the attempts that hold documents now."""
        for names in self._changed(start):
            self._names.add_all(names)
        held = self._held()
        entries = [entry[1] for entry in map(documents.holder, held) if entry is not None]
        running = {str(entry.get("attempt")) for entry in entries}
        begun = [
            documents.seconds_of(entry.get("started") or entry.get("queued"))
            for entry in entries
            if self.alive(str(entry.get("poller"))) is not False
        ]
        since = min([self._clock() - self._grace, *(time for time in begun if time is not None)])
        spools = [one for spool in self._spools for one in disk.poller_spools(spool)]
        yield from disk.spool_findings(spools, running)
        yield from disk.scratch_findings(self.settings.spool, {one.name for one in spools})
        site = self.settings
        leave = {str(path) for path in (site.spool, site.logs, site.embedded_path, *site.watch)}
        if site.data.is_dir():
            yield from disk.data_folder(site.data, self._names, running, since, leave, self._folders)
        yield from self._unregistered()
        for name in sorted({step.farm for step in self.chain.farmed(self.settings.site) if step.farm}):
            daemon = self.alive(batchjobs.identity(self.settings.site, name))
            yield from farm.look(self.chain, self.settings, name, held, daemon)

    def _held(self) -> list[dict[str, Any]]:
        """The documents that some attempt holds now: few, however many there are."""
        found: list[dict[str, Any]] = []
        for chain in self._chains:
            database = BranchDatabase(self.database, chain.branch, self.chain.type)
            for view in ("work/inqueue", "work/inprogress"):
                for rows in pages(database, view, PAGE, include_docs=True):
                    found += [row.doc for row in rows if row.doc is not None]
        return found

    def _changed(self, start: str) -> Iterator[set[str]]:
        """The files that documents name which were written since the audit began."""
        since = start
        while True:
            answer = self.database.connection.json(
                "GET", (self.database.name, "_changes"), subject=self.database.subject,
                params={"since": since, "limit": str(PAGE), "include_docs": "true"},
            )  # fmt: skip
            for row in answer["results"]:
                if isinstance(row.get("doc"), dict):
                    yield named_paths(row["doc"])
            since = str(answer["last_seq"])
            if len(answer["results"]) < PAGE:
                return

    def _unregistered(self) -> Iterator[Finding]:
        batch: dict[str, str] = {}

        def missing() -> Iterator[Finding]:
            rows = self.database.all_docs(keys=list(batch)).rows if batch else []
            for row in rows:
                if row.error is not None:
                    path = batch[str(row.key)]
                    yield Finding("raw-unregistered", path, f"it would be document {row.key}")
            batch.clear()

        for identity, path in disk.raw_files(self.chain, self.settings, self._clock()):
            batch[identity] = path
            if len(batch) >= PAGE:
                yield from missing()
        yield from missing()

    def _designs(self) -> Iterator[Finding]:
        difference = deploy.diff(self.database, designs.build(self.chain))
        if difference:
            parts = sorted({line.split("/", 1)[-1] for line in difference.splitlines() if line.startswith("+++ ")})
            yield Finding("design-differs", "_design", ", ".join(parts)[:300])
