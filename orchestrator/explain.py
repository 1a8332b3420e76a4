"""Why a document does not go on: the one condition that does not hold, whose it is, who would take it, what to do.

Pure, over facts that were read before (`orchestrator.facts` reads them): the chain, the document, heartbeats, attempts,
what people have paused, and the chain that the database's views were made from. `reasons` says in a sentence what the
document alone tells; here the world around it is looked at too.

Every explanation has a *cause*, a word for programs:

    through           every step is done
    running           an attempt is being made (``queued``: its batch job waits at a farm)
    wrong-type, unknown-status, open, bad, failed, given-up, hold
    refused           a gate refuses what a step has left
    needs             the step asked for needs another first; ``because`` says what keeps that one
    retry             another attempt will follow, and not yet
    chain-changed     the document or the database's views are of another chain
    odd-entry         a step's entry stands in the document, and says neither done nor failed
    other-site        the step belongs to a site whose daemons are not seen in this database
    paused            a person has paused or drained the step, the farm or the site
    no-poller         nobody has ever been heard of who serves the step
    poller-silent     those who do have not been heard of for a lease
    draining          those who do take no more
    poller-lost       who has the document is silent: it will be taken back
    job-held          the batch system says why its job does not go on
    job-unsubmitted   its job is intended, and not known to the batch system
    farm-silent       the farm's daemon is silent
    farm-away         the farm's batch system cannot be asked
    farm-full         the farm's limits are reached
    gather            a gather does the step for many documents at once, and some of them are not ready
    gathered          another document does the step for this one and others
    daemon-ended      who serves it here has ended by itself, and said why
    database          the database takes no writes
    refused-write     the database refuses what who serves the step writes for it
    busy              all who serve the step have their hands full
    soon              nothing keeps it: it is taken next
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from orchestrator import batchjobs, documents, reasons, waiting
from orchestrator.chain import Chain, Step
from orchestrator.control import Control
from orchestrator.gathering import Group
from orchestrator.hints import command
from orchestrator.lanes import MAIN
from orchestrator.takers import Taker, takers
from orchestrator.takers import taker as one_taker
from orchestrator.transitions import Kind

#: Lines of the last attempt's log that an explanation shows.
LOG_LINES = 15


#: Makes an explanation: the cause, a sentence (that of `reasons` if empty), the step, what to do.
Because = Callable[..., "Explanation"]


@dataclass(frozen=True)
class Facts:
    """What was read. ``site`` is where it is asked; ``lease`` (s) that of this site's daemons; ``beats`` by poller.

    ``deployed``: the chain in short that the database's views are made from, or None where there is none. ``ahead``:
    how many documents are ready for the step before this one, itself counted; None where it is not ready for one.
    ``branch``: the lane or gather that it is asked about. ``group``: with whom a gather would take it up. ``words``: of
    daemons of this site that have ended by themselves. ``writes``: why the database takes no writes, if that was seen.
    ``behind``: by how much our clock is behind the database's (s), None where that is not known.
    """

    now: float
    site: str = "here"
    lease: float = 60.0
    beats: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    attempts: tuple[Mapping[str, Any], ...] = ()
    controls: Mapping[str, Control] = field(default_factory=dict)
    deployed: Mapping[str, Any] | None = None
    ahead: int | None = None
    branch: str = ""
    group: Group | None = None
    words: tuple[Mapping[str, Any], ...] = ()
    writes: str = ""
    behind: float | None = None


@dataclass
class Explanation:
    """Why. ``next`` says what to do, a sentence each; ``because`` explains the step that is needed first;
    ``operation`` is the last thing that a person did to the document.
    """

    document: str
    status: str
    cause: str
    sentence: str
    step: str = ""
    owner: str = ""
    takers: list[Taker] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    next: list[str] = field(default_factory=list)
    attempts: list[dict[str, Any]] = field(default_factory=list)
    log: str = ""
    operation: str = ""
    because: Explanation | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def explain(chain: Chain, document: Mapping[str, Any], facts: Facts, step: Step | None = None) -> Explanation:
    """Why the document, or one step of it, does not go on."""
    made = _cause(chain, document, facts, step)
    key = made.step
    lane = facts.branch if chain.branch.lane else ""
    mine = [one for one in facts.attempts if (one.get("lane") or "") == lane]
    tried = [dict(one) for one in mine if not key or one.get("step") == key or step is None]
    shown = ("step", "number", "state", "error_class", "reason", "host", "started", "finished", "log")
    made.attempts = [{name: one.get(name) for name in shown} for one in tried]
    if tried:
        made.log = "\n".join(str(tried[-1].get("log_tail") or "").splitlines()[-LOG_LINES:])
    own = next((one for one in chain.steps if one.key == key), None)
    if own is not None:
        where = f", farm {own.farm}" if own.executor == "farm" else ""
        made.owner = f"{own.key} ({own.name}) belongs to site {own.site}{where}"
        made.takers = made.takers or takers(own, facts)
    mark = document.get("operation")
    if isinstance(mark, dict):
        why = f": {mark.get('reason')}" if mark.get("reason") else ""
        made.operation = f"{mark.get('what')}, by {mark.get('by')} at {mark.get('at')}{why}"
    return made


# --- the one cause ---


def _cause(chain: Chain, document: Mapping[str, Any], facts: Facts, asked: Step | None) -> Explanation:
    name, status = str(document.get("_id")), documents.status_of(document)
    sentence = reasons.why(chain, document, facts.now)

    def because(cause: str, words: str = "", *, step: str = "", then: tuple[str, ...] = ()) -> Explanation:
        return Explanation(name, str(document.get("status")), cause, words or sentence, step, next=list(then))

    if document.get("type") != chain.type:
        return because("wrong-type", then=(f"look at it as what it is; no step of the chain {chain.name} takes it",))
    if status is None:
        return because("unknown-status", then=("an admin sets its status to closed or good, or imports it anew",))
    if asked is not None and documents.is_done(document, asked):
        return because("through", f"{asked.key} ({asked.name}) is done already.", step=asked.key)
    if status.kind is Kind.OPEN:
        return because("open", then=("wait until the DAQ closes the file; the registrar must be running",))
    if status.kind is Kind.BAD:
        return _bad(chain, document, because)
    if status.kind is Kind.FAILED:
        return _failed(chain, document, because)
    if documents.holder(document) is not None:
        return _held(chain, document, facts, asked, because)
    if documents.complete(chain, document):
        return because("through")
    step = asked or _next(chain, document)
    if step is None or (step.key in document and not documents.is_done(document, step)):
        return _stuck(chain, document, step, because)
    missing = [need for need in chain.needs(step) if not documents.is_done(document, need)]
    if missing:
        names = ", ".join(f"{need.key} ({need.name})" for need in missing)
        made = because("needs", f"{step.key} ({step.name}) needs {names}, not done yet.", step=step.key)
        made.because = _elsewhere(chain, document, facts, missing[0])
        made.next = [f"first: {one}" for one in made.because.next]
        return made
    hold = document.get("hold")
    if hold is not None:
        operation = hold.get("operation") if isinstance(hold, dict) else None
        then = command("operations", operation, options="--finish") if operation else command("release", name)
        made = because("hold", reasons.on_hold(document), step=step.key, then=(then,))
        return _beside(made, chain, document, facts, step, because)
    return _ready(chain, document, facts, step, because)


def _elsewhere(chain: Chain, document: Mapping[str, Any], facts: Facts, need: Step) -> Explanation:
    """Why a step that is needed is not done: one of this lane, or of another."""
    if not need.lane:
        return explain(chain, document, facts, need)
    name = "" if need.lane == MAIN else need.lane
    whole, other = chain.whole, chain.whole.of(name)
    seen = other.branch.inward(chain.branch.outward(document, whole.type), whole.type) or {}
    # What was read of views is about the lane that was asked about.
    there = replace(facts, branch=name, ahead=None, deployed=None, group=None)
    return explain(other, seen, there, other.step(need.name))


def _next(chain: Chain, document: Mapping[str, Any]) -> Step | None:
    """The step that would be done next, were the document not on hold and no other lane behind; None: one is odd."""
    found = documents.ready_step(chain, {**document, "hold": None})
    left = [step for step in chain.steps if not documents.is_done(document, step)]
    return found or (left[0] if left and not any(step.key in document for step in left) else None)


def _bad(chain: Chain, document: Mapping[str, Any], because: Because) -> Explanation:
    name, branch = document.get("_id"), chain.branch.name
    good = command("mark-good", name, branch=branch)
    for step in chain.steps:
        entry = document.get(step.key)
        if isinstance(entry, dict) and entry.get("state") == "refused":
            then = (
                f"if its output will do as it is: {command('accept', name, step.name, branch=branch)}",
                f"to have it made again: {good}",
            )
            give_up = f"to give it up, and tell its members: {command('mark-bad', name, branch=branch)}"
            return because("refused", step=step.key, then=(*then, give_up) if document.get("gather") else then)
    return because("bad", then=(f"if it is fit for processing: {good}",))


def _failed(chain: Chain, document: Mapping[str, Any], because: Because) -> Explanation:
    again = command("retry", document.get("_id"), branch=chain.branch.name)
    for step in chain.steps:
        entry = document.get(step.key)
        if isinstance(entry, dict) and entry.get("state") == "failed":
            return because("failed", step=step.key, then=(f"mend the cause, then: {again}",))
    mark = document.get("operation")
    who = f" by {mark.get('by')}" if isinstance(mark, dict) and mark.get("what") == "abandon" else ""
    words = f"It was given up{who}: {document.get('reason') or 'no reason was given'}."
    return because("given-up", words, then=(f"to take it up again: {again}",))


def _held(
    chain: Chain, document: Mapping[str, Any], facts: Facts, asked: Step | None, because: Because
) -> Explanation:
    held, status = documents.holder(document), documents.status_of(document)
    assert held is not None and status is not None
    key, entry = held
    name = str(document.get("_id"))
    step = next((one for one in chain.steps if one.key == key), None)
    if step is None:
        known = ", ".join(one.key for one in chain.steps)
        words = f"It is held by {key} ({entry.get('step')}), and the chain has only {known}: it has changed."
        then = ", then ".join(command(what, name, branch=chain.branch.name) for what in ("abandon", "retry"))
        return because("chain-changed", words, step=key, then=(then,))
    poller = str(entry.get("poller"))
    beat = facts.beats.get(poller)
    taker = one_taker(poller, beat, facts) if beat is not None else None
    if isinstance(entry.get("gathered"), str):
        of = str(entry["gathered"])
        then = command("explain", of, branch=of.partition(":")[0])
        made = because("gathered", step=key, then=(then,))
    elif poller.startswith(batchjobs.IDENTITY):
        made = _at_farm(document, key, entry, status.kind, beat, taker, because)
    elif taker is None or not taker.alive:
        seen = f"has been silent for {taker.quiet:.0f} s" if taker else "has left no heartbeat in this database"
        words = f"{key} ({step.name}) is in the hands of poller {poller} on {entry.get('host')}, which {seen}."
        then = f"start a poller of site {step.site}: it takes the document back (orchestrator up)"
        if any(one.alive for one in takers(step, facts)):
            then = "wait: another poller of the site takes it back when the lease is over"
        made = because("poller-lost", words, step=key, then=(then,))
        deeper = waiting.nobody(step, chain.branch, facts, facts.now - taker.quiet if taker else 0.0)
        if deeper is not None:
            made = because(deeper[0], f"{words} {deeper[1]}", step=key, then=deeper[2])
    else:
        made = because("running", step=key)
        if taker.held > taker.workers:
            made.notes.append(f"the poller has {taker.held} attempts in hand for {taker.workers} workers: it may wait")
        running = (beat or {}).get("running")
        for one in running if isinstance(running, list) else ():
            if isinstance(one, dict) and one.get("attempt") == entry.get("attempt") and one.get("fraction") is not None:
                made.notes.append(f"{100 * float(one['fraction']):.0f} % done {one.get('text') or ''}".rstrip())
    made.takers = [taker] if taker else []
    if document.get("hold") is not None:
        made.notes.append(f"no further step will begin: {reasons.on_hold(document)}")
    if asked is not None and asked.key != key:
        made.notes.append(f"{asked.key} ({asked.name}) can begin at the earliest when {key} has ended")
    return made


def _at_farm(
    document: Mapping[str, Any], key: str, entry: Mapping[str, Any], kind: Kind,
    beat: Mapping[str, Any] | None, taker: Taker | None, because: Because,
) -> Explanation:  # fmt: skip
    """A document that a farm's daemon has."""
    farm = entry.get("farm")
    sentence = batchjobs.sentence(key, entry, document, kind)
    job = batchjobs.job_of(document, str(entry.get("attempt")))
    away = beat.get("away") if beat is not None else None
    if taker is None or not taker.alive:
        seen = f"silent for {taker.quiet:.0f} s" if taker else "not heard of"
        words = f"The daemon of farm {farm} is {seen}; jobs go on without it, and nothing is recorded. {sentence}"
        made = because("farm-silent", words, step=key, then=(f"orchestrator farm {farm}, or orchestrator up",))
    elif isinstance(away, dict):
        words = f"Farm {farm} cannot be asked since {away.get('since')}: {away.get('why')}. {sentence}"
        made = because("farm-away", words, step=key, then=("it goes on by itself when the farm answers again",))
    elif kind is Kind.IN_PROGRESS:
        made = because("running", sentence, step=key)
    elif not job.get("number"):
        made = because("job-unsubmitted", sentence, step=key, then=(f"see the log of `orchestrator farm {farm}`",))
    elif entry.get("says"):
        then = f"ask the farm about job {job['number']}, or release it there"
        made = because("job-held", sentence, step=key, then=(then,))
    else:
        made = because("queued", sentence, step=key)
    states = (beat or {}).get("states")
    if isinstance(states, dict) and isinstance(states.get(entry.get("job")), dict):
        told = ", ".join(f"{count} {state}" for state, count in sorted(states[entry.get("job")].items()))
        made.notes.append(f"the batch system last said of this job's tasks: {told}")
    return made


def _stuck(chain: Chain, document: Mapping[str, Any], step: Step | None, because: Because) -> Explanation:
    """No step is ready: an entry is in the way."""
    for one in chain.steps if step is None else (step,):
        entry = document.get(one.key)
        if one.key not in document or documents.is_done(document, one):
            continue
        named = entry.get("step") if isinstance(entry, dict) else None
        again = command("reset", document.get("_id"), branch=chain.branch.name, options=f"--to {one.name}")
        then = (again,)
        if isinstance(named, str) and named != one.name:
            words = f"{one.key} was {named!r} when it was written, and is {one.name!r} now: the chain has changed."
            return because("chain-changed", words, step=one.key, then=then)
        return because("odd-entry", step=one.key, then=then)
    return because("odd-entry")


def _ready(chain: Chain, document: Mapping[str, Any], facts: Facts, step: Step, because: Because) -> Explanation:
    """The document is ready for the step: what keeps those who would take it, and what would keep them besides?"""
    return _beside(_obstacle(chain, document, facts, step, because), chain, document, facts, step, because)


def _beside(
    made: Explanation, chain: Chain, document: Mapping[str, Any], facts: Facts, step: Step, because: Because
) -> Explanation:
    """Note what would keep the document if the cause were gone: whoever mends one thing shall not wait for nothing."""
    last = made
    while last.cause in ("hold", "retry", "paused", "chain-changed"):
        if last.cause in ("hold", "retry"):
            document = {key: value for key, value in document.items() if key != last.cause}
        elif last.cause == "paused":
            facts = replace(facts, controls={})
        else:
            facts = replace(facts, deployed=None)
        last = _obstacle(chain, document, facts, step, because)
        made.takers = made.takers or last.takers
        if last.cause != "soon":
            made.notes.append(f"besides: {last.sentence}")
    return made


def _obstacle(chain: Chain, document: Mapping[str, Any], facts: Facts, step: Step, because: Because) -> Explanation:
    """The first thing that keeps those who would take the document."""
    found = takers(step, facts)
    what = f"{step.key} ({step.name})"
    # Who will make the next attempt looks at his own clock.
    wait = documents.not_before(document, step) - facts.now - next((one.ahead for one in found if one.alive), 0.0)
    deeper = None
    if not any(one.alive for one in found):
        deeper = waiting.nobody(step, chain.branch, facts, max((facts.now - one.quiet for one in found), default=0.0))
    control = facts.controls.get(step.site)
    stopped = control.why_not(step) if control is not None else ""
    living = [one for one in found if one.alive]
    if wait > 0:
        words = reasons.ready_because(document, step, facts.now)
        made = because("retry", words, step=step.key, then=("it goes on by itself",))
    elif stopped:
        scope = control.stops_of(step.name, step.farm)[0].scope if control else None
        word = "" if scope is None or not scope.name else f" --{scope.kind} {scope.name}"
        made = because("paused", stopped, step=step.key, then=(f"orchestrator resume{word}",))
    elif not _same_views(chain, step, facts.deployed):
        words = f"It is ready for {what}, but the database's views are of another chain: no sweep will find it."
        made = because("chain-changed", words, step=step.key, then=("orchestrator couchapp push",))
    elif deeper is not None:
        made = because(deeper[0], f"It is ready for {what}. {deeper[1]}", step=step.key, then=deeper[2])
    elif step.executor == "gather":
        name, wanted = next((n, one) for n, one in chain.whole.gathers.items() if one.step == step.name)
        cause, words, advice = waiting.gather(name, wanted, step, facts, document)
        made = because(cause, words, step=step.key, then=advice)
    elif not found and step.site != facts.site:
        words = (
            f"It is ready for {what}, which belongs to site {step.site!r}; none of its daemons is seen in this "
            f"database (this is site {facts.site!r})."
        )
        then = f"ask at site {step.site}, and look whether its database gets what is in ours"
        made = because("other-site", words, step=step.key, then=(then,))
    elif not found:
        words = f"It is ready for {what}, and no {_who(step)} that serves it has been heard of."
        made = because("no-poller", words, step=step.key, then=(_start(step),))
    elif not living:
        words = f"It is ready for {what}; the {_who(step)} that serves it has been silent for {found[0].quiet:.0f} s."
        made = because("poller-silent", words, step=step.key, then=(_start(step),))
    elif all(one.draining for one in living):
        words = f"It is ready for {what}; who serves it is draining and takes no more."
        made = because("draining", words, step=step.key, then=(_start(step),))
    else:
        made = _with_takers(document, facts, step, living, what, because)
    made.takers = found
    if facts.ahead is not None and facts.ahead > 1:
        made.notes.append(f"{facts.ahead - 1} documents are ready for {step.key} before it (by priority, run, file)")
    return made


def _with_takers(
    document: Mapping[str, Any], facts: Facts, step: Step, living: list[Taker], what: str, because: Because
) -> Explanation:
    """Somebody lives who would take it."""
    if step.executor == "farm":
        beat = facts.beats[living[0].id]
        away = beat.get("away")
        if isinstance(away, dict):
            since = f"cannot be asked since {away.get('since')}: {away.get('why')}"
            words = f"It is ready for {what}; farm {step.farm} {since}."
            return because("farm-away", words, step=step.key, then=("it goes on by itself",))
        full = waiting.full(beat)
        if full:
            words = f"It is ready for {what}; farm {step.farm} has as many jobs as its limits allow: {full}."
            return because("farm-full", words, step=step.key, then=(f"wait, or change limits of farm {step.farm}",))
    for one in living:
        if why := waiting.refusal(facts.beats[one.id], document):
            words = f"It is ready for {what}, and the database refuses what {one.id} writes for it: {why}"
            then = (
                "mend what it says: the account's roles (orchestrator user list), or the document",
                "it is tried again within five minutes, or at once by a poller that is started anew",
            )
            return because("refused-write", words, step=step.key, then=then)
    if all(one.held >= max(1, one.workers) for one in living) and step.executor == "local":
        held, behind = sum(one.held for one in living), sum(one.backlog for one in living)
        words = (
            f"It is ready for {what}; {len(living)} living poller(s) have {held} attempts in hand and {behind} "
            "documents waiting."
        )
        return because("busy", words, step=step.key, then=("wait; a higher priority is taken first",))
    return because("soon", step=step.key)


def _same_views(chain: Chain, step: Step, deployed: Mapping[str, Any] | None) -> bool:
    """Whether the database's view of the step is made from this chain; unknown counts as yes."""
    if deployed is None:
        return True
    listed = deployed.get("steps")
    rows = {str(one.get("key")): one for one in listed if isinstance(one, dict)} if isinstance(listed, list) else {}
    row = rows.get(step.key)
    needs = [need.key for need in chain.needs(step)]
    return deployed.get("type") == chain.type and row is not None and row.get("needs") == needs


def _who(step: Step) -> str:
    return "poller" if step.executor == "local" else f"daemon of farm {step.farm}"


def _start(step: Step) -> str:
    one = f"orchestrator farm {step.farm}" if step.executor == "farm" else "orchestrator poll"
    return f"at site {step.site}: orchestrator up, or {one}"
