"""The chain's page: each step with all that the chain says about it. Secrets are never shown."""

from __future__ import annotations

import re
from typing import Any

from orchestrator.chain import Chain

#: Settings whose names speak of secrets. A chain should hold none; a page that shows one makes it worse.
_SECRET = re.compile(r"pass(word|wd|phrase)?\b|secret|token|api_?key|private_?key|credential", re.IGNORECASE)
HIDDEN = "(not shown)"


def masked(value: Any) -> Any:
    """The same, with what stands under a secret's name hidden, at any depth."""
    if isinstance(value, dict):
        return {k: HIDDEN if _SECRET.search(str(k)) and v not in (None, "") else masked(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [masked(v) for v in value]
    return value


def chain(chain: Chain | None) -> dict[str, Any]:
    """The chain as plain JSON; its steps empty where none was given."""
    if chain is None:
        return {"name": None, "type": None, "description": "", "fingerprint": None, "sites": {}, "steps": []}
    return {
        "name": chain.name,
        "type": chain.type,
        "description": chain.description,
        "fingerprint": chain.fingerprint(),
        "sites": {name: site.model_dump(mode="json") for name, site in chain.sites.items()},
        "steps": [
            masked(step.model_dump(mode="json", exclude_none=True))
            | {"number": step.number, "key": step.key, "needs": [n.name for n in chain.needs(step)]}
            for step in chain.steps
        ],
    }
