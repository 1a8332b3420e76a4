"""What a person asks to have done to documents: the operations there are, an order, and what comes of it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.documents import REASON_LIMIT, Document, iso
from orchestrator.errors import SettingsError

#: What can become of the output files of steps that are reset.
OUTPUTS = ("kept", "moved", "removed")
#: No priority is larger, so that it stays a whole number wherever it is read.
PRIORITY_LIMIT = 1_000_000

@dataclass(frozen=True)
class Kindly:
    """One operation for command line, web and documentation: ``said`` completes "the document ..."."""

    name: str
    help: str
    said: str
    needs_reason: bool = False
    needs_step: bool = False


OPERATIONS: tuple[Kindly, ...] = (
    Kindly("retry", "Set failed documents going again, from the step that failed.", "will be tried again"),
    Kindly("hold", "Keep documents from being taken by any step; what runs goes on.", "is on hold", True),
    Kindly("release", "Let documents that are on hold go on.", "is released"),
    Kindly("fail", "Take documents away from the step that has them: it failed.", "has failed", True),
    Kindly("abandon", "Give up on documents, wherever they are.", "is given up", True),
    Kindly("mark-bad", "Take documents out of processing.", "is bad", True),
    Kindly("mark-good", "Put bad documents back, or accept closed ones.", "is good"),
    Kindly("accept", "Take an output that a gate has refused as it is.", "has its output accepted", True, True),
    Kindly("reset", "Have a step, and all that depends on it, done again.", "is reset", False, True),
    Kindly("reprocess", "Redo a step by its version, by query or by runs.", "will be done again", False, True),
    Kindly("priority", "Say which documents are taken first.", "has its priority"),
)
NAMES = tuple(one.name for one in OPERATIONS)


@dataclass(frozen=True)
class Order:
    """What a person asks for. ``step`` is a keyword; ``outputs`` one of OUTPUTS; ``value`` a priority.

    Raises SettingsError where something is missing or cannot be.
    """

    what: str
    by: str
    reason: str = ""
    step: str = ""
    outputs: str = "kept"
    value: int = 0

    def __post_init__(self) -> None:
        if self.what not in NAMES:
            raise SettingsError(f"there is no operation {self.what!r}; there are: {', '.join(NAMES)}")
        kind = OPERATIONS[NAMES.index(self.what)]
        if kind.needs_reason and not self.reason.strip():
            raise SettingsError(f"{self.what} needs a reason: others will want to know why")
        if kind.needs_step and not self.step:
            raise SettingsError(f"{self.what} needs a step")
        if self.outputs not in OUTPUTS:
            raise SettingsError(f"outputs can be {', '.join(OUTPUTS)}, not {self.outputs!r}")
        if isinstance(self.value, bool) or not isinstance(self.value, int) or abs(self.value) > PRIORITY_LIMIT:
            raise SettingsError(f"a priority is a whole number from -{PRIORITY_LIMIT} to {PRIORITY_LIMIT}")


@dataclass(frozen=True)
class Asked:
    """An order that is being carried out: the operation's id, and when (s since 1970)."""

    id: str
    order: Order
    at: float

    @property
    def reason(self) -> str:
        """The reason as documents keep it."""
        return self.order.reason[:REASON_LIMIT]

    def words(self) -> str:
        """Who did what and why, as the reason of an attempt that is called off."""
        why = f": {self.reason}" if self.reason else ""
        return f"called off by {self.order.by} ({self.order.what}{why})"

    def mark(self, document: Document, before: Mapping[str, Any]) -> Document:
        """The document with ``operation``: who did this, and what it was before."""
        was = {key: before[key] for key in ("status", "reason", "hold", "priority") if before.get(key) is not None}
        operation = {
            "id": self.id, "what": self.order.what, "by": self.order.by, "at": iso(self.at), "reason": self.reason,
            "was": was,
        }  # fmt: skip
        return {**document, "operation": operation, "updated": iso(self.at)}


@dataclass(frozen=True)
class Changed:
    """A document's next version, and the documents (attempts, past) that must be written before it."""

    document: Document
    records: tuple[Document, ...] = ()


#: A decision on a document as it is read: its next version, or in words why there is nothing to do.
#: Raises IllegalTransition where it cannot be done.
Decide = Callable[[Document], Changed | str]
