"""How a gather's document and its members stand to each other now: read from views, for pages and for people.

A document is *stale* where members of it have been done anew since, or more have come. A counted one (a run's) is then
gathered again by itself; of one that claims its members (a bundle) the new ones go into another document.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator import gathering
from orchestrator.chain import Chain
from orchestrator.gathering import Group

#: Reads rows of a view: ``rows("gather-runs/members", key=..., reduce=True, group=True)``.
Rows = Callable[..., Iterable[Any]]
#: Members that have gone on which are named one by one.
NAMED = 20


@dataclass(frozen=True)
class Standing:
    """``count`` and ``ready``: the members that there are now, of a counted gather. ``stale``: in words, or empty.
    ``gone``: members that have gone on since, of a bundle, the first of them."""

    count: int | None = None
    ready: int | None = None
    stale: str = ""
    gone: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """For programs and pages."""
        return {"count": self.count, "ready": self.ready, "stale": self.stale, "gone": list(self.gone)}


def gather_of(chain: Chain, document: Mapping[str, Any]) -> str:
    """The name of the gather that a document is of; empty if it is of none."""
    return next((name for name, gather in chain.gathers.items() if gather.type == document.get("type")), "")


def groups_of(rows: Rows, name: str, run: Any) -> list[Group]:
    """The members of one run that a gather without a period sees, as a group; empty where it has none."""
    key = ["", run]
    found = rows(f"gather-{name}/members", startkey=key, endkey=key, reduce=True, group=True)
    return gathering.groups((row.key, row.value) for row in found)


def standing(rows: Rows, chain: Chain, document: Mapping[str, Any]) -> Standing:
    """How the document stands to its members. Raises what ``rows`` raises."""
    name = gather_of(chain, document)
    gather = chain.gathers[name]
    members = document.get("members")
    listed = [str(one.get("id")) for one in members if isinstance(one, dict)] if isinstance(members, list) else []
    if gather.step:
        found = rows(f"gather-{name}/of", key=document.get("_id"), reduce=False, limit=gathering.MOST)
        there = {str(row.id) for row in found}
        gone = [one for one in listed if one not in there]
        words = (
            f"{len(gone)} of its {len(listed)} members have been set back or done anew since; these go into another "
            "document, and what was made of them here is old"
        )
        return Standing(stale=words if gone else "", gone=tuple(gone[:NAMED]))
    group = next(iter(groups_of(rows, name, document.get("run_name"))), None)
    if group is None:
        return Standing(0, 0, "none of its members is there any more")
    if not group.whole:
        words = f"{group.ready} of {group.count} members are ready; it is gathered again when all of them are"
        return Standing(group.count, group.ready, words)
    fresh = document.get("of") == group.stamp
    words = f"its members have changed since; it is gathered again when they have been still for {gather.settle:.0f} s"
    return Standing(group.count, group.ready, "" if fresh else words)
