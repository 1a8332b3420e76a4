"""Whether the database carries the chain of this page: where not, views and pages speak of two things."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator import designs
from orchestrator.chain import Chain
from orchestrator.errors import NotFound
from orchestrator.web.source import DatabaseLike

#: What a step says in the short chain that the database carries, in the words of the page.
_WORDS = {"key": "keyword", "number": "number", "needs": "needs", "name": "name", "site": "site", "version": "version"}


def warnings(database: DatabaseLike, chain: Chain | None) -> list[str]:
    """Sentences on what differs between this page's chain and the one in the database; empty where nothing does."""
    if chain is None:
        return []
    try:
        there = database.get("_design/work").get("chain")
    except NotFound:
        return []  # the pages say so themselves
    found = differences(designs.summary(chain), there if isinstance(there, dict) else {})
    if not found:
        return []
    return [
        f"The database carries another chain than this page: {'; '.join(found)}. "
        "Put this one there with 'orchestrator couchapp push', or restart the page if its chain file is newer than it."
    ]


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """What differs between two chains in short, each in a few words; of the steps the first five."""
    found = []
    for name, word in (("name", "its name"), ("type", "the documents' type")):
        if ours.get(name) != theirs.get(name):
            found.append(f"{word} is {theirs.get(name)!r} there and {ours.get(name)!r} here")
    listed = theirs.get("steps")
    there = {str(s.get("key")): s for s in listed if isinstance(s, dict)} if isinstance(listed, list) else {}
    here = {s["key"]: s for s in ours["steps"]}
    steps = [f"{s.get('name')} ({key}) is only there" for key, s in there.items() if key not in here]
    steps += [f"{s['name']} ({key}) is only here" for key, s in here.items() if key not in there]
    for key in here:
        if key in there:
            steps += [
                f"the {word} of {here[key]['name']} ({key}) is {old!r} there and {new!r} here"
                for name, word in _WORDS.items()
                if (old := there[key].get(name)) != (new := here[key].get(name))
            ]
    more = len(steps) - 5
    return found + steps[:5] + ([f"and {more} more"] if more > 0 else [])
