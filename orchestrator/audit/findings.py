"""What an audit can find, as one table: the guide and the command both come from it.

Severities: *error*: something is lost or contradicts itself, a person must look; *warning*: something that nobody is
working on, which a daemon's next start or a command sets right; *note*: litter, or what could not be looked at.
"""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from orchestrator.hints import named

ERROR, WARNING, NOTE = "error", "warning", "note"
#: Findings of one kind that are kept; more are counted only. A million of a kind have one cause.
KEPT = 1000


@dataclass(frozen=True)
class Kind:
    """One kind of finding. ``remedy`` may name {subject}, {document} and {step}."""

    severity: str
    meaning: str
    remedy: str


KINDS: dict[str, Kind] = {
    "design-differs": Kind(
        ERROR, "the design documents in the database are not those of the chain", "orchestrator couchapp push"
    ),
    "status-unknown": Kind(
        ERROR, "a document's status is none that the chain knows, so no step takes it",
        "correct the status, or import the document: orchestrator import --help",
    ),
    "step-unknown": Kind(
        WARNING, "a step holds or has failed a document, and the chain has no such step",
        "give the chain the step back, or: orchestrator reset --to the-step-before {document}",
    ),
    "claim-broken": Kind(
        ERROR, "a document is queued or in progress, and its step's entry does not say with whom or contradicts it",
        "orchestrator reset --to {step} {document}",
    ),
    "claim-left": Kind(
        ERROR, "a step's entry says queued or in progress, and the document's status does not",
        "orchestrator reset --to {step} {document}",
    ),
    "failure-hidden": Kind(
        ERROR, "a step's entry says failed, and the document's status does not",
        "orchestrator reset --to {step} {document}"
    ),
    "failure-unexplained": Kind(
        WARNING, "a document has failed, and neither a step's entry nor a reason says why",
        "orchestrator retry {document}",
    ),
    "order-broken": Kind(
        WARNING, "a step is done, and one that it needs is not",
        "orchestrator reset --to {step} {document}"
    ),
    "poller-gone": Kind(
        WARNING, "a document is held by a poller that lives no more, and no other has taken it over",
        "start a poller of that site, it takes the document back: orchestrator up",
    ),
    "attempt-missing": Kind(
        ERROR, "an attempt that did not succeed has no document of its own",
        "nothing brings it back; the next is written again"
    ),
    "attempt-orphaned": Kind(
        WARNING, "an attempt's document belongs to a data document that is not there",
        "restore the data document, or delete the attempt's",
    ),
    "attempt-untrue": Kind(
        WARNING, "an attempt's document says that it did not succeed, and by its data document it is done",
        "orchestrator audit --mend removes it, if it speaks of that very attempt",
    ),
    "output-missing": Kind(
        ERROR, "a step is done, and its output is not there",
        "orchestrator reset --to {step} {document}, or bring the file back"
    ),
    "output-differs": Kind(
        ERROR, "an output's size or (--deep) checksum is not the recorded one",
        "orchestrator reset --to {step} {document}, or bring the file back",
    ),
    "output-shared": Kind(
        ERROR, "two steps or documents name the same output, so one has overwritten the other",
        "give the steps different outputs in the chain, then reset the documents",
    ),
    "output-unnamed": Kind(
        NOTE, "a file in the data folder that no document names",
        "look at it; remove it if nobody needs it",
    ),
    "output-unfinished": Kind(WARNING, "an unfinished output of an attempt that is over", "rm -- {subject}"),
    "raw-shared": Kind(
        WARNING, "two documents name the same raw file", "mark one of the two bad, or delete it"
    ),
    "raw-missing": Kind(
        ERROR, "a document that is not through names a raw file of this machine that is not there",
        "bring the file back, or mark the document bad",
    ),
    "raw-differs": Kind(
        ERROR, "a raw file of this machine has another size or (--deep) checksum than its document says",
        "bring the file back; if its new content is right, register it again after deleting the document",
    ),
    "raw-unregistered": Kind(
        WARNING, "a finished raw file in a watched folder has no document", "orchestrator register -- {subject}"
    ),
    "spool-unrecorded": Kind(
        WARNING, "reports of a poller that lives no more wait in the spool",
        "start a poller on this machine, it records them: orchestrator up",
    ),
    "spool-left": Kind(
        WARNING, "a spool file or folder that no poller's work needs any more",
        "start a poller on this machine, it clears them; if it stays: rm -r -- {subject}",
    ),
    "scratch-left": Kind(NOTE, "a scratch folder of a poller that lives no more", "rm -r -- {subject}"),
    "farm-daemon-gone": Kind(
        WARNING, "documents wait for a farm whose daemon does not live",
        "orchestrator up, or: orchestrator farm {subject}"
    ),
    "job-unknown": Kind(
        WARNING, "documents wait for a batch job that the batch system does not know and that left no result",
        "start the farm's daemon, it gives the documents back: orchestrator up",
    ),
    "job-unwanted": Kind(
        WARNING, "a batch job of ours waits or runs, and no document waits for it",
        "it finds nothing to do and ends; or cancel it with the batch system's own command",
    ),
    "job-files-left": Kind(
        WARNING, "files of a batch job that no document waits for", "restart the farm's daemon, it clears them"
    ),
    "operation-unfinished": Kind(
        WARNING, "a person's operation began long ago and has not ended: it broke off",
        "orchestrator operations --finish {subject}, or give its command again",
    ),
    "past-untrue": Kind(
        WARNING, "a document of type past says that something was taken out of a document, which has it still",
        "orchestrator audit --mend",
    ),
    "not-looked-at": Kind(NOTE, "something could not be looked at", "see the sentence, then run the audit again"),
}  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong. ``subject`` is a document's id, a path, a job's name or a poller."""

    kind: str
    subject: str
    text: str
    document: str = ""
    step: str = ""
    branch: str = ""

    @property
    def severity(self) -> str:
        return KINDS[self.kind].severity

    @property
    def remedy(self) -> str:
        """What to do, with the names in it quoted for a shell where it is a command."""
        document = named(self.document or self.subject)
        if self.branch:
            document = f"--branch {shlex.quote(self.branch)} {document}"
        return KINDS[self.kind].remedy.format(
            subject=named(self.subject), document=document, step=shlex.quote(self.step)
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind, "severity": self.severity, "subject": self.subject, "document": self.document or None,
            "step": self.step or None, "branch": self.branch or None,
            "text": self.text, "remedy": self.remedy,
        }  # fmt: skip


@dataclass
class Findings:
    """Findings as they come, each once, of each kind not more than so many."""

    kept: dict[tuple[str, str, str], Finding] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, finding: Finding) -> None:
        key = (finding.kind, finding.subject, finding.document)
        if key in self.kept:
            return
        self.counts[finding.kind] += 1
        if self.counts[finding.kind] <= KEPT:
            self.kept[key] = finding

    def of(self, *kinds: str) -> list[Finding]:
        return [finding for finding in self.kept.values() if finding.kind in kinds]

    def __len__(self) -> int:
        return sum(self.counts.values())
