"""What must hold between the fields of a chain: each fault a sentence with its place and the remedy. Pure."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING

from orchestrator import logins
from orchestrator.farms import farm_faults
from orchestrator.lanes import DESIGNS, MAIN, OWN

if TYPE_CHECKING:
    from orchestrator.chain import Chain, Step

#: No lane or gather is called so: keys of documents and names of design documents would be taken for others.
DESIGN_WORDS = (*DESIGNS, "gathers", "attempt", "step")


def near(name: str, known: list[str]) -> str:
    """Words for an error: the nearest known name, else all of them."""
    found = get_close_matches(str(name), known, n=1, cutoff=0.6)
    return f" (did you mean {found[0]!r}?)" if found else f" (known: {', '.join(known)})" if known else ""


def named_checks(chain: Chain) -> list[str]:
    """Checks across fields, each of which ends in a sentence."""
    faults = []
    every = [("", chain.steps), *((f"lanes / {n} / ", lane.steps) for n, lane in chain.lanes.items()),
             *((f"gathers / {n} / ", gather.steps) for n, gather in chain.gathers.items())]  # fmt: skip
    names = [step.name for _, steps in every for step in steps]
    for name in sorted({n for n in names if names.count(n) > 1}):
        faults.append(f"steps: all step names must be unique, and {name!r} stands there {names.count(name)} times")
    in_lanes = [step.name for where, steps in every if not where.startswith("gathers") for step in steps]
    for where, steps in every:
        own = [s.name for s in steps]
        beside = [] if where.startswith("gathers") else in_lanes
        for step in steps:
            faults.extend(_step_faults(chain, step, f"{where}steps[{step.number}] ({step.name})", own, beside))
    faults.extend(_branch_faults(chain))
    for name, farm in chain.farms.items():
        faults.extend(f"farms / {name} / {fault}" for fault in farm_faults(farm))
    return faults


def _step_faults(chain: Chain, step: Step, place: str, names: list[str], beside: list[str]) -> list[str]:
    """What is wrong with one step. ``names``: those of its own lane; ``beside``: of all lanes."""
    faults = []
    done_elsewhere = step.executor == "gather"
    if (step.run is None) == (step.command is None) and not done_elsewhere:
        faults.append(f"{place}: a step has either 'run' or 'command': give exactly one of the two")
    if step.run is not None and not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", step.run):
        faults.append(f"{place} / run: {step.run!r} names no step: write it as 'package.module:function'")
    for where in logins.places({"settings": step.settings, "command": step.command or []}):
        faults.append(
            f"{place} / {where}: a login would stand in every document: name a file that holds it, or a variable"
        )
    if step.site not in chain.sites:
        faults.append(f"{place} / site: no site {step.site!r}{near(step.site, list(chain.sites))}")
    for need in step.needs or ():
        if need not in names and need not in beside:
            faults.append(f"{place} / needs: no step {need!r}{near(need, [*names, *beside])}")
        elif need in names and names.index(need) >= step.number:
            faults.append(f"{place} / needs: {need!r} does not come before this step: move it up, or drop the need")
    if step.name in ("bad", "good", "open", "closed", "failed") or re.fullmatch(r"proc\d+", step.name):
        faults.append(f"{place} / name: {step.name!r} is a word of the documents; choose another")
    if step.executor == "farm" and step.farm not in chain.farms:
        which = "name one" if step.farm is None else f"no farm {step.farm!r}{near(step.farm, list(chain.farms))}"
        faults.append(f"{place} / farm: a step with executor farm needs one of the chain's farms: {which}")
    if step.executor == "farm" and not place.startswith("steps["):
        faults.append(f"{place} / executor: steps of lanes and gathers run in pollers: leave it out")
    if step.executor != "farm":
        given = step.model_fields_set & {"farm", "documents_per_job", "cores", "queue", "degrade"}
        faults.extend(f"{place} / {name}: this is for executor farm only" for name in sorted(given))
    if done_elsewhere:
        given = step.model_fields_set & {"run", "command", "time_limit", "memory_limit"}
        faults.extend(f"{place} / {name}: a gather's documents do this step: say it there" for name in sorted(given))
        if not any(gather.step == step.name for gather in chain.gathers.values()):
            faults.append(f"{place}: no gather names it: gathers / ... / step: {step.name}")
    return faults


def _branch_faults(chain: Chain) -> list[str]:
    """What is wrong with lanes and gathers as such."""
    faults = []
    lane_steps = {step.name: step for lane in chain.lanes.values() for step in lane.steps}
    main_steps = [step.name for step in chain.steps]
    for name in (*chain.lanes, *chain.gathers):
        if name == MAIN or name in OWN or name in DESIGN_WORDS:
            faults.append(f"{name!r} is a word of the documents: choose another name for the lane or gather")
    for name in sorted(set(chain.lanes) & set(chain.gathers)):
        faults.append(f"gathers / {name}: a lane has this name: choose another")
    for name, step in lane_steps.items():
        loop = _circle(chain, name, [])
        if loop:
            faults.append(f"lanes: {' waits for '.join(loop)}: none would ever begin; drop a need of {step.name!r}")
            break
    types = [chain.type, *(gather.type for gather in chain.gathers.values())]
    for name, gather in chain.gathers.items():
        place = f"gathers / {name}"
        if types.count(gather.type) > 1:
            faults.append(f"{place} / type: {gather.type!r} is the type of other documents already: choose another")
        if gather.site not in chain.sites:
            faults.append(f"{place} / site: no site {gather.site!r}{near(gather.site, list(chain.sites))}")
        for need in gather.after:
            if need not in main_steps and need not in lane_steps:
                faults.append(f"{place} / after: no step {need!r}{near(need, [*main_steps, *lane_steps])}")
        if gather.step and (gather.step not in lane_steps or lane_steps[gather.step].executor != "gather"):
            faults.append(f"{place} / step: {gather.step!r} is no step of a lane with executor gather")
        if gather.step in lane_steps and lane_steps[gather.step].site != gather.site:
            where = lane_steps[gather.step].site
            faults.append(f"{place} / site: {gather.site!r}, and its step {gather.step!r} is of {where!r}: say one")
        if gather.period and not gather.step:
            faults.append(f"{place} / step: with a period, say which step of a lane this is for its members")
        if not gather.period:
            given = gather.model_fields_set & {"own", "largest"}
            faults.extend(f"{place} / {one}: this is for a gather with a period" for one in sorted(given))
    for step in chain.steps:
        if step.executor == "gather":
            faults.append(f"steps[{step.number}] ({step.name}) / executor: gather is for steps of a lane")
    return faults


def _circle(chain: Chain, name: str, above: list[str]) -> list[str]:
    """Steps that wait for each other in a circle, from ``name`` on; empty if there are none."""
    if name in above:
        return [*above[above.index(name) :], name]
    for one in (chain, *chain.branches().values()):
        step = next((s for s in one.steps if s.name == name), None)
        if step is not None and (one is chain or one.branch.lane):
            for need in one.needs(step):
                found = _circle(chain, need.name, [*above, name])
                if found:
                    return found
    return []
