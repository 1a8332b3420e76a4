"""Lanes: the same document with a status of its own for each, seen as if there were only the one. Pure.

A side lane ``archive`` keeps its state in a data document under keys of its own: ``archive_status``, ``archive_proc0``,
``archive_retry``, ... Whoever works in that lane sees the document *inward*: there these keys bear their plain names,
and those of the main lane are called ``main_status``, ``main_proc0``, ... The same functions, views and pollers that
know the main lane so serve every other. *Outward* turns it back; nothing is lost either way.

A gather's documents are of another type and have plain names; only their design documents bear the gather's name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAIN = "main"
#: Keys of a data document that each lane has for itself, besides procN. A hold and a priority are for all lanes.
OWN = ("status", "retry", "numbers", "batchjob", "reason", "forced")
#: Design documents of which each branch has its own.
DESIGNS = ("work", "pages", "filters")

_PROC = re.compile(r"proc\d+\Z")
_ATTEMPT = "attempt"


@dataclass(frozen=True)
class Branch:
    """A lane or a gather's chain: its name, and whether it is a lane of the main chain's documents.

    The name is empty for the main chain itself.
    """

    name: str = ""
    lane: bool = False

    # --- documents ---

    def inward(self, document: Mapping[str, Any] | None, data_type: str) -> dict[str, Any] | None:
        """The document as this lane sees it. Documents of other types come as they are."""
        if document is None or not self.lane:
            return document if document is None else dict(document)
        if document.get("type") == _ATTEMPT and str(document.get("step")).startswith(f"{self.name}_"):
            return {**document, "step": str(document["step"]).removeprefix(f"{self.name}_")}
        if document.get("type") != data_type:
            return dict(document)
        turned = self._turned(document, self.name, MAIN)
        if "status" not in turned:
            turned["status"] = "open" if document.get("status") == "open" else "closed"
        return turned

    def outward(self, document: Mapping[str, Any], data_type: str) -> dict[str, Any]:
        """The document as the database has it, from what this lane made of it."""
        if not self.lane:
            return dict(document)
        if document.get("type") == _ATTEMPT:
            step = str(document.get("step"))
            if not _PROC.match(step) or "lane" in document:  # an attempt of another lane says so itself
                return dict(document)
            name, number = document.get("document"), document.get("number")
            key = f"{self.name}_{step}"
            return {**document, "_id": f"attempt:{name}:{key}:{number}", "step": key, "lane": self.name}
        if document.get("type") != data_type:
            return dict(document)
        return self._turned(document, MAIN, self.name)

    @staticmethod
    def _turned(document: Mapping[str, Any], plain: str, other: str) -> dict[str, Any]:
        """Keys ``<plain>_x`` become ``x``, and ``x`` becomes ``<other>_x``."""
        turned: dict[str, Any] = {}
        for key, value in document.items():
            if key in OWN or _PROC.match(key):
                turned[f"{other}_{key}"] = value
                continue
            head, _, tail = key.partition("_")
            own = head == plain and (tail in OWN or _PROC.match(tail))
            turned[tail if own else key] = value
        return turned

    # --- names ---

    def design(self, name: str) -> str:
        """A design document's name in this branch: ``work`` is ``work-archive`` there."""
        return f"{name}-{self.name}" if self.name and name in DESIGNS else name

    def view(self, name: str) -> str:
        """A view's name in this branch: ``work/proc0`` is ``work-archive/proc0`` there."""
        design, slash, view = name.partition("/")
        return f"{self.design(design)}{slash}{view}"

    def selector(self, selector: Mapping[str, Any]) -> dict[str, Any]:
        """A selector of inward documents, for a feed of outward ones: it may let more through, never less."""
        if not self.lane:
            return dict(selector)
        parts: list[dict[str, Any]] = []
        for key, value in selector.items():
            if key in ("$or", "$and") and isinstance(value, list):
                parts.append({key: [self.selector(part) for part in value]})
            elif key == "status":
                own = f"{self.name}_status"
                parts.append({"$or": [{own: value}, {own: {"$exists": False}}]})
            elif key not in OWN and not _PROC.match(key):
                parts.append({key: value})
        return {"$and": parts} if len(parts) > 1 else parts[0] if parts else {}


def wrapped(source: str, name: str, data_type: str, arguments: tuple[str, ...]) -> str:
    """A design function that sees data documents inward: the JavaScript twin of `Branch.inward`.

    Args:
        source: the function, ``function (doc) {...}``.
        name: the lane's.
        data_type: the type of the chain's documents.
        arguments: its parameters that are documents, ``("doc",)`` or, for a guard, ``("doc", "old")``.
    """
    own = json.dumps(dict.fromkeys(OWN, 1))
    turn = (
        "function turn(d) { var t = {}, k, h, own = " + own + ", plain = " + json.dumps(f"{name}_") + ";"
        " if (!d || d.type !== " + json.dumps(data_type) + ") return d;"
        " for (k in d) {"
        ' if (own[k] === 1 || /^proc\\d+$/.test(k)) { t["main_" + k] = d[k]; continue; }'
        " h = k.indexOf(plain) === 0 ? k.slice(plain.length) : null;"
        " if (h !== null && (own[h] === 1 || /^proc\\d+$/.test(h))) t[h] = d[k]; else t[k] = d[k]; }"
        ' if (t.status === undefined) t.status = d.status === "open" ? "open" : "closed";'
        " return t; }"
    )
    parameters = {
        ("doc",): "doc", ("doc", "req"): "doc, req", ("doc", "old"): "doc, old, user, security",
    }[arguments]  # fmt: skip
    handed = ", ".join(f"turn({one})" if one in ("doc", "old") else one for one in parameters.split(", "))
    return f"function ({parameters}) {{ {turn}\n return ({source})({handed}); }}"
