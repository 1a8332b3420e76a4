"""How jobs end on real batch systems: told to end, warned before their limit, out of memory or time; and what then."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]
LONG = bool(os.environ.get("ORCHESTRATOR_LONG"))
SYSTEMS = ["slurm", "gridengine", "htcondor"]


def step(**more: Any) -> dict[str, Any]:
    retries = {"count": 3, "wait": "0.1 s", "on": ["transient", "resources"]}
    return {"name": "s0", "run": "farmsteps:mark", "retries": retries, **more}


def at_work(site: Any) -> bool:
    """Whether a job has done some of its documents, is at one and has others before it."""
    done = len(site.lines("effects"))
    return 2 <= done < len(site.lines("begun"))


def handed_back(site: Any) -> set[str]:
    """Documents whose first job did not come to them."""
    begun = {attempt for _, _, attempt in site.lines("begun")}
    return {name for name, d in site.everything().items() if d["batchjob"][0]["attempt"] not in begun}


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_job_that_is_told_to_end_hands_the_rest_back(name: str, make_farm_site: Callable[..., Any]) -> None:
    site = make_farm_site(name)
    site.write_chain([step(settings={"step": 0, "seconds": 0.8}, documents_per_job=7)])
    site.add(7)
    site.start()
    site.wait(lambda: at_work(site), 60, "a job in the middle of its documents")
    site.system.cancel(site.system.running("orc-"))
    site.wait(site.finished, 120)
    site.check()
    found, attempts = site.everything(), list(site.everything("attempt").values())
    assert len({d["batchjob"][0]["name"] for d in found.values()}) == 1, "they were all in one job"
    done = {d for d, entry in found.items() if len(entry["batchjob"]) == 1}
    assert len(done) >= 2, "what was done before stays done"
    (ended,) = attempts
    assert ended["error_class"] == "transient"
    # qdel kills at once: what the job had not come to is handed back for it
    assert ("SIGTERM" if name != "gridengine" else "cancelled") in ended["reason"], ended["reason"]
    back = handed_back(site)
    assert back == set(found) - done - {ended["document"]} and len(back) >= 2
    assert all(found[one]["proc0"]["number"] == 1 for one in back), "a retry was used up"


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_job_that_is_warned_hands_the_rest_back(name: str, make_farm_site: Callable[..., Any]) -> None:
    """Slurm warns by itself, the others by coreutils' timeout. Each document is ended at its limit, which takes a while
    longer than the limit; so the job comes near its own, is warned, and ends after the document in work."""
    if name != "gridengine" and not LONG:
        pytest.skip("takes half a minute and more: run it with ORCHESTRATOR_LONG=1")
    site = make_farm_site(name)
    # Slurm's limits are minutes, and looked at every 30 s
    count, setup = (60, "120 s") if name == "slurm" else (24, "6 s")
    settings = {"step": 0, "slow": True}
    site.write_chain(
        [step(settings=settings, documents_per_job=count, time_limit="0.3 s", degrade={"time": 10})], setup_time=setup
    )
    site.add(count)
    site.start()
    if name == "slurm":
        site.wait(lambda: len(site.system.running("orc-")) == 1, 60, "the job to run")
        site.system.admin("scontrol", "update", f"jobid={site.system.running('orc-')[0].number}", "TimeLimit=1")
    site.wait(site.finished, 200)
    site.check()
    found, back = site.everything(), handed_back(site)
    begun = Counter(name for name, _, _ in site.lines("begun"))
    assert back and all(found[one]["proc0"]["number"] == begun[one] for one in back), "a retry was used up"
    attempts = site.everything("attempt").values()
    assert all("its time limit is" in a["reason"] and a["error_class"] == "resources" for a in attempts)
    first = next(iter(found.values()))["batchjob"][0]["number"]
    ended = {job.number: job.state for job in site.system.everything("orc-")}
    assert ended[first] == "done", "it ended by itself, before its limit"


def test_the_next_job_asks_for_more(make_farm_site: Callable[..., Any]) -> None:
    """Slurm itself says what each job asked for: one ran out of memory by Slurm's count, one out of time."""
    site = make_farm_site("slurm-accounting")
    settings = {"step": 0, "ill": 16, "grab": 164_000_000}
    more = {"time": 40, "memory": 3, "queue": "long"}
    site.write_chain(
        [step(settings=settings, time_limit="5 s", memory_limit="200 MB", queue="short", degrade=more)],
        setup_memory="1 MB",  # so that step and runner together are too much for Slurm, and the step alone is not
    )
    site.add(8)
    site.start()
    site.wait(site.finished, 120)
    site.check()
    found = site.everything()
    reasons = {a["file_number"]: (a["error_class"], a["reason"]) for a in site.everything("attempt").values()}
    assert set(reasons) == {3, 7} and {kind for kind, _ in reasons.values()} == {"resources"}, reasons
    assert "its time limit is 5 s" in reasons[3][1] and "ended its job for its memory" in reasons[7][1], reasons
    names = {job["name"] for number in (3, 7) for job in found[f"r_{number:04d}"]["batchjob"]}
    told = ("sacct", "-X", "-n", "-P", "-o", "JobName")
    site.wait(lambda: names <= set(site.system.client(*told).split()), 30, "the accounting, which lags")
    asked: dict[str, tuple[int, int, str]] = {}
    for line in site.system.client("sacct", "-X", "-n", "-P", "-o", "JobName,ReqMem,TimelimitRaw,Partition").split():
        job, memory, minutes, partition = line.split("|")
        asked[job] = (int(memory.rstrip("Mcn")), int(minutes), partition)
    for number in (3, 7):
        first, second = (asked[job["name"]] for job in found[f"r_{number:04d}"]["batchjob"])
        assert first == (192, 2, "short") and second == (574, 5, "long")
    calm = [asked[d["batchjob"][0]["name"]] for d in found.values() if len(d["batchjob"]) == 1]
    assert len(calm) == 6 and set(calm) == {(192, 2, "short")}


def test_a_job_whose_time_is_up_without_a_warning_ran_out_of_resources(make_farm_site: Callable[..., Any]) -> None:
    """Slurm sends what it sends to a cancelled job; what it writes beside tells the two apart."""
    site = make_farm_site("slurm")
    site.write_chain([step(settings={"step": 0, "slow": True})])
    site.add(1)
    site.start()
    site.wait(lambda: bool(site.lines("begun")), 60, "the job to work")
    site.system.admin("scontrol", "update", f"jobid={site.system.running('orc-')[0].number}", "TimeLimit=0")
    site.wait(site.finished, 120)
    site.check()
    (attempt,) = site.everything("attempt").values()
    assert attempt["error_class"] == "resources" and "DUE TO TIME LIMIT" in attempt["reason"]
