"""Which farm is meant, and what this site has done there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator import batchjobs
from orchestrator.chain import Chain, Step
from orchestrator.errors import ChainError
from orchestrator.farms import Farm
from orchestrator.settings import Settings
from orchestrator.transports import Transport, transport_to


@dataclass(frozen=True)
class Target:
    """A farm: its name, what the chain says of it, the way to it, our jobs' prefix, the steps that are done there."""

    name: str
    farm: Farm
    transport: Transport
    prefix: str
    steps: Sequence[Step]

    @property
    def spool(self) -> str:
        return self.farm.spool.rstrip("/")

    def loads(self) -> dict[str, dict[str, str]]:
        """The steps as `farside` is told of them."""
        return {
            step.name: {"run": step.run} if step.run else {"command": (step.command or ("",))[0]}
            for step in self.steps
        }


def farm_of(chain: Chain, site: str, name: str | None) -> str:
    """The farm's name where it may be left out: the only one that the site uses. Raises ChainError."""
    used = sorted({step.farm for step in chain.farmed(site) if step.farm})
    if name is None and len(used) == 1:
        return used[0]
    if name is None:
        raise ChainError(f"say which farm: {', '.join(used) or f'the chain sends no step of site {site!r} to any'}")
    if name not in used:
        known = ", ".join(used) or "none"
        raise ChainError(f"site {site!r} sends no step to a farm {name!r}; farms that it uses: {known}")
    return name


def target_of(chain: Chain, settings: Settings, name: str | None) -> Target:
    """The farm, not connected yet. Raises ChainError for one that the site does not use."""
    chosen = farm_of(chain, settings.site, name)
    farm = chain.farms[chosen]
    prefix = batchjobs.prefix(settings.url, settings.database, batchjobs.identity(settings.site, chosen))
    return Target(chosen, farm, transport_to(farm.access), prefix, chain.farmed(settings.site, chosen))
