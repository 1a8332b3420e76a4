"""Finding what dead pollers left: claims that nobody works on, and reports that nobody wrote down.

Runs before work and every so often, never on exit. Three cases, for a claim of another poller:

- its spool is on this machine and its lock is free: it is dead, beyond doubt. Its reports are recorded, the claims
  without a report are given back at once.
- its spool is here and locked: it lives, whatever its heartbeat looks like.
- its spool is elsewhere: its heartbeat must stand still for a whole lease, by this poller's own monotonic clock and
  while the database was there to be read, before it counts as dead.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any, Protocol

from orchestrator import documents, faults
from orchestrator.batchjobs import IDENTITY
from orchestrator.chain import Chain, Step
from orchestrator.engine import versions
from orchestrator.engine.engine import Engine
from orchestrator.engine.heartbeat import PREFIX, LocalDocuments, beats
from orchestrator.engine.pages import pages
from orchestrator.executors.spool import Spool
from orchestrator.gathering import IDENTITY as GATHER

log = logging.getLogger(__name__)

#: What has a heartbeat and is no poller: farms' and gathers' daemons.
NO_POLLERS = (IDENTITY, GATHER)
#: Claims read in one request; a round reads them all, for the dead one's may stand behind many of the living.
LIMIT = 2000


class Views(LocalDocuments, Protocol):
    """What recovery needs of a database."""

    def view(self, name: str, **params: Any) -> Any: ...

    def get_many(self, ids: list[str]) -> dict[str, documents.Document | None]: ...


@dataclass
class Recovery:
    """Looks for lost claims of the steps of this poller's site, and gives them to its engine."""

    chain: Chain
    database: Views
    engine: Engine
    spool: Spool
    lease: float
    #: poller -> (its counter when it last changed, when that was by our monotonic clock)
    _seen: dict[str, tuple[Any, float]] = field(default_factory=dict)
    _strays: dict[str, str] = field(default_factory=dict)
    #: Whether some poller sees this one by its heartbeat alone, and would take its claims over if that stood still.
    watched: bool = False
    _strangers: dict[str, tuple[Any, float]] = field(default_factory=dict)
    _looked: float | None = None
    #: dead poller -> the documents that were taken from it, until that is written
    _dealt_with: dict[str, set[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._keys = {step.key for step in self.engine.steps}

    def away(self) -> None:
        """The database was away: nobody could beat, so all leases begin anew."""
        self._seen.clear()

    def look(self, now: float, monotonic: float) -> int:
        """One round; how many claims were found lost. Changes go into the engine's next commit."""
        self.finish()
        if self._looked is not None and monotonic - self._looked > 2 * self.lease:
            self._seen.clear()  # nobody watched meanwhile: this process, too, was stopped, or its machine slept
        self._looked = monotonic
        by_poller, strays = self._claims()
        lost = self._own_strays(strays, now)
        for name in self.spool.others():
            # Spools without claims too: reports whose documents somebody else has taken back meanwhile.
            if self.spool.alive(name) is False and not any(self.spool.same(name, p) for p in by_poller):
                by_poller[name] = []
        beating = beats(self.database)
        self._watch_strangers(beating, monotonic)
        self._seen = {poller: known for poller, known in self._seen.items() if poller in by_poller}
        for poller, ids in by_poller.items():
            if poller not in self._dealt_with and self._is_dead(poller, beating.get(poller), monotonic):
                lost += self._take_over(poller, ids, now)
        return lost

    def finish(self) -> None:
        """Of pollers from whom everything has been taken, and that written, nothing need be kept."""
        for poller, names in list(self._dealt_with.items()):
            if not names & self.engine.taking:
                self.database.delete_local(PREFIX + poller)
                faults.point("recovery.forgotten")
                self.spool.let_go(poller)
                del self._dealt_with[poller]

    def _claims(self) -> tuple[dict[str, list[str]], dict[str, str]]:
        """The documents that others hold, by poller, and those in our name of whose attempts we know nothing."""
        by_poller: dict[str, list[str]] = {}
        strays: dict[str, str] = {}
        elsewhere = {step.number for step in self.chain.steps if step.site != self.engine.claimant.site}
        for rows in pages(self.database, "work/inprogress", LIMIT):
            for row in rows:
                if row.key[0] in elsewhere:
                    continue  # another site's pollers beat in a database of their own, and look after each other
                value = row.value if isinstance(row.value, dict) else {}
                poller, attempt = str(value.get("poller")), str(value.get("attempt"))
                if poller.startswith(IDENTITY):
                    continue  # it is at a farm, where jobs outlive daemons: the farm's own daemon finds it again
                if poller != self.engine.claimant.poller:
                    by_poller.setdefault(poller, []).append(row.id)
                elif not self.engine.knows(attempt):
                    strays[row.id] = attempt
        return by_poller, strays

    def _watch_strangers(self, beating: dict[str, dict[str, Any]], monotonic: float) -> None:
        """See whether pollers live that have their spool elsewhere and so cannot see our lock."""
        known = self._strangers
        self._strangers = {}
        for poller, beat in beating.items():
            same_work = beat.get("site") == self.engine.claimant.site and beat.get("branch") == self.chain.branch.name
            if poller.startswith(NO_POLLERS) or not same_work:
                continue  # it never takes over what is ours
            if self.spool.alive(poller) is None:
                counter = (beat.get("beat"), beat.get("started"))
                last = known.get(poller)
                self._strangers[poller] = last if last and last[0] == counter else (counter, monotonic)
        self.watched = any(monotonic - since < 2 * self.lease for _, since in self._strangers.values())

    def _own_strays(self, strays: dict[str, str], now: float) -> int:
        """Claims in our own name that we know nothing of, twice in a row: a write whose answer was lost for good."""
        certain = [name for name, attempt in strays.items() if self._strays.get(name) == attempt]
        self._strays = strays
        poller, reason = self.engine.claimant.poller, "the claim was stored, but its poller never knew"
        found = [versions.of_poller(self.database, document, poller) for document in self._read(certain).values()]
        return sum(self._take_back(document, reason, now, poller) for document in found)

    def _is_dead(self, poller: str, beat: dict[str, Any] | None, monotonic: float) -> bool:
        alive = self.spool.alive(poller)
        if alive is not None:
            return not alive
        counter = None if beat is None else (beat.get("beat"), beat.get("started"))
        known = self._seen.get(poller)
        if known is None or known[0] != counter:
            self._seen[poller] = (counter, monotonic)
            return False
        return monotonic - known[1] > self.lease

    def _take_over(self, poller: str, ids: list[str], now: float) -> int:
        """Record what a dead poller's workers had reported, free the rest of what it held; how many are freed."""
        reports = self.spool.adopt(poller)
        if reports is None and self.spool.alive(poller) is not None:
            return 0  # another poller on this machine was first, or it has come to life
        faults.point("recovery.adopted")
        lost = recorded = 0
        found = {report.attempt: report for report in reports or ()}
        wanted = list(dict.fromkeys([*ids, *(report.document for report in found.values())]))
        for name, seen in self._read(wanted).items():
            document = versions.of_poller(self.database, seen, poller)
            held = documents.holder(document)
            report = found.get(str(held[1].get("attempt"))) if held else None
            if held and report is not None and held[0] == report.step and held[0] in self._keys:
                self.engine.adopted(document, report, now)
                recorded += 1
            elif name in ids:
                lost += self._take_back(document, f"its poller {poller} is no more", now, poller)
        log.warning("poller %s is no more: %d of its results recorded, %d documents taken back", poller, recorded, lost)
        faults.point("recovery.decided")
        self._dealt_with[poller] = set(wanted)
        self._seen.pop(poller, None)
        return lost

    def _take_back(self, document: documents.Document, reason: str, now: float, poller: str) -> int:
        """Free a document if the poller holds it; how many that were, 1 or 0."""
        held = documents.holder(document)
        if held is None or str(held[1].get("poller")) != poller:
            return 0
        step = next((step for step in self.chain.steps if step.key == held[0]), None)
        if step is None:
            # The chain has lost this step since: whoever finds the claim frees it, or nobody ever would.
            step = Step.model_construct(name=str(held[1].get("step")), number=int(held[0].removeprefix("proc")))
        elif held[0] not in self._keys:
            return 0
        self.engine.take_back(document, step, reason, now)
        return 1

    def _read(self, ids: list[str]) -> dict[str, documents.Document]:
        if not ids:
            return {}
        return {name: found for name, found in self.database.get_many(ids).items() if found is not None}
