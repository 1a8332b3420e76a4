"""Writing down what became of attempts at a farm; what is written is let go of, and its files at the farm go."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator import faults
from orchestrator.documents import Document
from orchestrator.engine import verdicts
from orchestrator.engine.backlog import Backlog
from orchestrator.engine.edits import Decide, edit
from orchestrator.engine.farmworld import Files, World
from orchestrator.engine.fate import Fate, Verdict
from orchestrator.engine.holdings import Holdings
from orchestrator.engine.verdicts import AtFarm
from orchestrator.engine.witnesses import Witnesses
from orchestrator.errors import OrchestratorError

log = logging.getLogger(__name__)

#: Verdicts after which the farm has an attempt no more.
OVER = (Verdict.DONE, Verdict.RETURNED, Verdict.LOST, Verdict.FAILED)


@dataclass
class Recorder:
    """One farm's. Use from one thread."""

    held: Holdings
    database: Any
    world: World
    witnesses: Witnesses
    backlog: Backlog
    #: Why the database would not have an attempt's end.
    _refused: dict[str, str] = field(default_factory=dict)
    #: Attempts whose end cannot or need not be written: they are let go of all the same.
    _dropped: set[str] = field(default_factory=set)

    def record(self, fates: Mapping[str, Fate], now: float, files: Mapping[str, Files | None] | None = None) -> None:
        """Write what the fates say, by attempt; then the spool's files of what is written go.

        ``files`` are those that the jobs have left, as far as they are known. Raises what database and farm raise:
        what was not written is judged again in the next round.
        """
        decisions: dict[str, Decide] = {}
        over: dict[str, Verdict] = {}
        for attempt, found in fates.items():
            at = self.held[attempt]
            decide = self._decision(at, found, (files or {}).get(at.job) or Files(), now)
            if decide is not None:
                decisions[at.document] = decide
            if found.verdict in OVER:
                over[attempt] = found.verdict
        if over:
            faults.point("farm.recording")
        saved = self.write(decisions)
        if over:
            faults.point("farm.recorded")
        self._let_go(over, saved, now)

    def write(self, decisions: dict[str, Decide]) -> dict[str, Document]:
        """Write decisions about documents that are held; those that were written, by id, as they are now."""
        if not decisions:
            return {}
        saved = edit(self.database, decisions, self._is_refused, pick=self.held.version)
        self.held.refresh(saved.values())
        return saved

    def _is_refused(self, name: str, why: str) -> None:
        for at in self.held.values():
            if at.document == name:
                if at.attempt in self._refused:
                    log.error("document %s is not written any more: %s", name, why)
                    self._dropped.add(at.attempt)
                self._refused[at.attempt] = why

    def _decision(self, at: AtFarm, found: Fate, files: Files, now: float) -> Decide | None:
        """What a fate makes of the document; None where there is nothing to write now."""
        if found.verdict is Verdict.DONE:
            return self._done(at, now)
        if found.verdict is Verdict.RETURNED:
            return verdicts.released(at, files.returned.get(at.attempt, found.reason), now, self._dropped)
        if found.verdict is Verdict.LOST:
            return verdicts.lost(at, found, now, self._dropped)
        if found.verdict is Verdict.FAILED:
            return verdicts.failed(at, found, now, self._dropped)
        if found.verdict is Verdict.RUNNING and not at.begun:
            marker = files.markers.get(at.task)
            if marker is not None:
                return verdicts.begun(at, marker.host, marker.attempt_started or marker.started, now)
        if found.verdict is Verdict.HELD and not at.says:
            return verdicts.says(at, found.reason, now)
        if found.verdict is Verdict.QUEUED and at.says:
            return verdicts.says(at, "", now)
        return None

    def _done(self, at: AtFarm, now: float) -> Decide | None:
        """The decision that the result's file asks for; None where it cannot be read now."""
        refused = self._refused.get(at.attempt)
        try:
            report, host = self.world.result(at.job, at.attempt)
            if (report.attempt, report.document) != (at.attempt, at.document):
                raise ValueError("it speaks of another attempt")
            if report.error_class == "transient" and report.exit_code is None:
                report = verdicts.why_told(report, self.world.last_words(at.job, at.task))
        except ValueError as error:
            refused, host = f"the result file cannot be used: {error}", ""
        except OrchestratorError as error:
            log.warning("%s", error)
            return None
        if refused:
            bad = Fate(Verdict.FAILED, f"the result was refused: {refused}", "code")
            return verdicts.failed(at, bad, now, self._dropped)
        return verdicts.reported(at, report, host, now, self._dropped)

    def _let_go(self, over: Mapping[str, Verdict], saved: Mapping[str, Document], now: float) -> None:
        """Of those whose end is written nothing need be kept, here or at the farm."""
        gone: list[tuple[str, str]] = []
        given_up: set[tuple[str, int]] = set()
        for attempt, verdict in over.items():
            at = self.held[attempt]
            if at.document not in saved and attempt not in self._dropped:
                continue  # not written this time: the next round decides again
            del self.held[attempt]
            self._dropped.discard(attempt)
            self.witnesses.forget(attempt)
            self._refused.pop(attempt, None)
            if verdict is not Verdict.DONE:
                given_up.add((at.job, at.task))
            if at.document in saved:
                self.backlog.offer(saved[at.document], now)
            gone.append((at.job, attempt))
        self.world.forget(gone)
        # what goes on although its node or its job counts as gone is to end: others have its documents now
        self.world.give_up(given_up - self.held.tasks().keys())
        jobs = {job for job, _ in gone} - self.held.jobs()
        if jobs:
            faults.point("farm.forgotten")
            self.world.remove(*jobs)
            faults.point("farm.removed")
