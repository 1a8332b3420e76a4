"""A gather at work: looks for members that are ready, makes documents of them, and tells members when those are done.

Every write carries the revision that it was decided on, and every document's id follows from what is in it, so that
however many of these look at once, each member ends in one document and each document is made once. A round begins by
mending what a crash has left: members that were taken for a document that is not there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from orchestrator import documents, faults, gathering
from orchestrator.chain import Chain, Gather, Step
from orchestrator.couch import Database
from orchestrator.couch.branch import BranchDatabase
from orchestrator.documents import Claimant, Document
from orchestrator.engine.edits import Change, edit
from orchestrator.engine.pages import pages
from orchestrator.errors import Conflict, NotFound
from orchestrator.gathering import Plan

log = logging.getLogger(__name__)

#: Rows of a view, or documents, in one request.
PAGE = 1000


@dataclass
class Counts:
    """What a round has done."""

    made: int = 0
    again: int = 0
    claimed: int = 0
    finished: int = 0

    def any(self) -> bool:
        """Whether it has done anything."""
        return bool(self.made or self.again or self.claimed or self.finished)


@dataclass
class Gatherer:
    """One gather of a chain. Raises what the database raises; a round that broke off is simply begun again."""

    chain: Chain
    name: str
    database: Database
    claimant: Claimant
    #: What waits because something moves still, by label; for people.
    waiting: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.gather: Gather = self.chain.gathers[self.name]
        self.steps = self.chain.of(self.name).steps
        found = gathering.claim_step(self.chain, self.gather)
        self.lane = found[0] if found else ""
        self.step: Step | None = found[1] if found else None
        self.lane_chain = lane = self.chain.of(self.lane)
        self.members: Database = self.database
        if lane.branch.lane:
            self.members = BranchDatabase(self.database, lane.branch, self.chain.type)
        known: dict[str, Step] = {**{step.name: step for step in lane.steps}, **lane.elsewhere}
        self.after = [known[name].key for name in self.gather.after]

    def round(self, now: float) -> Counts:
        """Look once at everything."""
        counts = Counts()
        self.waiting = {}
        if self.step is not None:
            self._mend_and_finish(self.step, counts, now)
        found = gathering.groups(
            (row.key, row.value) for row in self.database.view(self._view("members"), reduce=True, group_level=2)
        )
        if self.step is None:
            made = {row.key[1]: row.value.get("of") for row in self._rows("made")}
            for plan in gathering.plans_counted(found, made, self.name):
                self._count(plan, counts, now)
        else:
            for plan in gathering.plans_claimed(found, self.gather, now):
                self._claim(plan, self.step, counts, now)
        return counts

    def _view(self, name: str) -> str:
        return f"gather-{self.name}/{name}"

    def _rows(self, name: str, **params: Any) -> Iterator[Any]:
        for page in pages(self.database, self._view(name), PAGE, **params):
            yield from page

    def _read(self, ids: Iterable[str]) -> list[Document]:
        wanted = sorted(set(ids))
        found: list[Document] = []
        for start in range(0, len(wanted), PAGE):
            part = self.members.get_many(wanted[start : start + PAGE]).values()
            found += [one for one in part if one is not None]
        return found

    def _members(self, plan: Plan, now: float) -> list[Document]:
        """The plan's members as they are now; empty where one is not ready after all, or has just moved."""
        rows = [row for key in plan.groups
                for row in self._rows("members", startkey=list(key), endkey=[*key[:-1], key[-1], {}])
                if row.key == list(key)]  # fmt: skip
        if any(row.value[1] != 1 for row in rows):
            return []
        found = self._read(row.id for row in rows)
        if gathering.moving(found, self.after[-1], self.gather.settle, now):
            self.waiting[plan.label] = f"a member has changed within the last {self.gather.settle:.0f} s"
            return []
        if len(found) > gathering.MOST:
            log.error("gather %s: %s has %d members, and %d is the most that one document can have", self.name,
                      plan.label, len(found), gathering.MOST)  # fmt: skip
            return []
        return sorted(found, key=lambda one: (str(one.get("run_name")), _order(one.get("file_number")), one["_id"]))

    # --- counted ---

    def _count(self, plan: Plan, counts: Counts, now: float) -> None:
        found = self._members(plan, now)
        if not found:
            return
        members = [gathering.member(one, self.after[-1]) for one in found]
        name = plan.label
        try:
            old: Document | None = self.database.get(name)
        except NotFound:
            old = None
        made = (
            gathering.new(self.name, self.gather, name, plan, members, now)
            if old is None
            else gathering.again(old, plan, members, now)
        )
        if made is None:
            self.waiting[name] = "its document is in work, or marked bad"
            return
        try:
            self.database.put(made)
        except Conflict:
            return  # another was first, or it has moved on: the next round looks again
        faults.point("gather.counted")
        if old is None:
            counts.made += 1
        elif old.get("members") != members:
            counts.again += 1
        log.info("gather %s: %s has %d members", self.name, name, len(members))

    # --- claimed ---

    def _claim(self, plan: Plan, step: Step, counts: Counts, now: float) -> None:
        found = self._members(plan, now)
        if not found:
            return
        name = gathering.identity(
            self.name, plan, [(one["_id"], gathering.attempt_number(one, step)) for one in found]
        )

        def take(document: Document) -> Change | None:
            if not documents.ready(self.lane_chain, document, step):
                return None
            return Change(gathering.take(document, step, self.claimant, name, now))

        counts.claimed += len(edit(self.members, {one["_id"]: take for one in found}))
        faults.point("gather.taken")
        self._settle(name, plan, step, counts, now)

    def _settle(self, name: str, plan: Plan | None, step: Step, counts: Counts, now: float) -> Document | None:
        """Have the document ``name`` be there with exactly the members that are taken for it, and give it back."""
        taken = self._read(row.id for row in self._rows("claimed", startkey=name, endkey=name))
        members = [gathering.member(one, self.after[-1]) for one in sorted(taken, key=lambda one: one["_id"])]
        try:
            there: Document | None = self.database.get(name)
        except NotFound:
            there = None
        if there is None:
            if not members:
                return None
            plan = plan or _plan_of(name, taken, self.gather)
            try:
                self.database.put(gathering.new(self.name, self.gather, name, plan, members, now))
            except Conflict:
                return None
            counts.made += 1
            faults.point("gather.made")
            log.info("gather %s: made %s of %d members", self.name, name, len(members))
            return None
        have = {one.get("id") for one in there.get("members") or ()}
        late = [one for one in members if one["id"] not in have]
        if there.get("status") == "closed" and "proc0" not in there:
            if have != {one["id"] for one in members}:  # some have come since, or a person has taken some away
                total = sum(int(one.get("size") or 0) for one in members)
                try:
                    self.database.put({**there, "members": members, "bytes": total, "updated": documents.iso(now)})
                except Conflict:
                    return None
        elif late:
            why = f"it came too late for {name}"
            self._edit_members([one["id"] for one in late], step, name, lambda d: documents.release(d, step, why, now))
        return there

    def _mend_and_finish(self, step: Step, counts: Counts, now: float) -> None:
        names = dict.fromkeys(str(row.key) for row in self._rows("claimed"))
        names |= dict.fromkeys(row.id for row in self._rows("made") if row.value.get("status") == "closed")
        last = self.steps[-1].key
        for name in names:
            there = self._settle(name, None, step, counts, now)
            if there is None:
                continue
            if gathering.refused(there):
                continue  # by a gate: its members wait until a person has looked
            if there.get("status") == "bad":
                why = f"its document {name} was marked bad: {there.get('reason') or 'no reason was given'}"
                self._edit_members(self._ids(name), step, name, partial(_refused, step=step, why=why, now=now))
            elif documents.status_of(there) and all(documents.is_done(there, one) for one in self.steps):
                faults.point("gather.telling")
                tell = partial(gathering.done, step=step, gathered=there, last=last, now=now)
                counts.finished += self._edit_members(self._ids(name), step, name, tell)

    def _ids(self, name: str) -> list[str]:
        return [row.id for row in self._rows("claimed", startkey=name, endkey=name)]

    def _edit_members(
        self, ids: Iterable[str], step: Step, name: str, make: Callable[[Document], Any]
    ) -> int:
        def decide(document: Document) -> Change | None:
            if not documents.held_by(document, step.key, name):
                return None
            made = make(document)
            return made if isinstance(made, Change) else Change(made)

        return len(edit(self.members, dict.fromkeys(ids, decide)))


def _refused(document: Document, step: Step, why: str, now: float) -> Change:
    """A member whose document a person has given up on."""
    queued = documents.seconds_of(document[step.key].get("queued")) or now
    report = documents.Report(
        str(document["_id"]), step.key, str(document[step.key].get("attempt")), queued, now, exit_code=None,
        error_class="data", reason=why,
    )  # fmt: skip
    return Change(*documents.fail(document, step, report, now))


def _plan_of(name: str, taken: list[Document], gather: Gather) -> Plan:
    """The plan that a document's id and members tell of, for one that a crash left unmade."""
    label = name.split(":", 1)[-1].rsplit(":", 1)[0]
    runs = {one.get("run_name") for one in taken}
    alone = len(runs) == 1 and str(next(iter(runs))) == label
    return Plan(label, "" if alone or not gather.period else label, next(iter(runs)) if alone else None, ())


def _order(value: Any) -> float:
    return value if isinstance(value, int | float) else -1.0
