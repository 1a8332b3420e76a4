"""Documents through two farmed steps on each real batch system, while everything goes wrong that can.

Jobs are cancelled by hand, killed for time and for memory, nodes set down, the batch system's daemon stopped and made
to hang, the database killed, the farm's daemon killed with -9 every few seconds, and a stranger's jobs stand in the
same queue. ``ORCHESTRATOR_LONG=1`` runs 300 documents with outages of a minute.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(2500)]
LONG = bool(os.environ.get("ORCHESTRATOR_LONG"))
#: Documents, and how long (s) an outage is.
COUNT, OUTAGE = (300, 60.0) if LONG else (32, 4.0)
SYSTEMS = ("slurm", "slurm-accounting", "gridengine", "htcondor")
#: Of so many documents one sleeps past its limit, one takes too much memory, one has a bad header, one crashes.
ILL = 16
ODD = "odd <b>&\"' $(touch pwned) `touch pwned`"


class Strangers:
    """Jobs of the same account that are none of ours: one that is held, under an odd name, and one that runs."""

    def __init__(self, system: Any, folder: Path) -> None:
        self.system = system
        if system.script == "slurm":
            words = ("sbatch", "--parsable", "--output=/dev/null", "--time=1:00:00", "--mem=10M")
            odd = system.client(*words, "--hold", f"--job-name={ODD}|\n12|N/A|PENDING|x", "--wrap=sleep 1000")
            runs = system.client(*words, "--job-name=Xorc-", "--wrap=sleep 1000")
        elif system.script == "gridengine":
            words = ("qsub", "-terse", "-o", "/dev/null", "-e", "/dev/null", "-b", "y")
            odd = system.client(*words, "-h", "-N", ODD.replace(" ", "_"), "sleep", "1000")
            runs = system.client(*words, "-N", "Xorc-", "sleep", "1000")
        else:
            numbers = []
            for name, hold in ((ODD, "true"), ("Xorc-", "false")):
                description = folder / f"stranger-{hold}.sub"
                description.write_text(
                    f"universe = vanilla\nexecutable = /bin/sleep\ntransfer_executable = false\narguments = 1000\n"
                    f"should_transfer_files = no\nbatch_name = {name}\nhold = {hold}\nqueue 1\n"
                )
                numbers.append(system.client("condor_submit", "-terse", str(description)).split(".")[0])
            odd, runs = numbers
        self.jobs = {odd.strip(): "held", runs.strip(): "running"}
        self.seen = self.states()

    def states(self) -> dict[str, tuple[str, str]]:
        found = [*self.system.queue("odd").jobs, *self.system.queue("Xorc-").jobs]
        return {job.number: (str(job.state), job.started) for job in found if job.number in self.jobs}

    def settled(self) -> bool:
        self.seen = self.states()
        return {number: state for number, (state, _) in self.seen.items()} == self.jobs

    def end(self) -> None:
        found = [*self.system.queue("odd").jobs, *self.system.queue("Xorc-").jobs]
        self.system.cancel([job for job in found if job.number in self.jobs])


def steps(chunk: int, **more: Any) -> list[dict[str, Any]]:
    """Two steps, one after the other: the first in chunks, the second a document a job."""
    common = {
        "run": "farmsteps:mark", "memory_limit": "250 MB", "time_limit": "8 s",
        "retries": {"count": 12, "wait": "0.2 s", "on": ["transient", "resources"]},
        "degrade": {"time": 1.5, "memory": 1.5}, **more,
    }  # fmt: skip
    settings = {"seconds": 0.3, "ill": ILL, "grab": 400_000_000}
    return [
        {"name": "s0", "documents_per_job": chunk, "settings": {**settings, "step": 0}, **common},
        {"name": "s1", "documents_per_job": 1, "settings": {**settings, "step": 1}, **common},
    ]


def cancel_some(site: Any, dice: random.Random) -> str:
    """Two jobs that run and one that waits, by the system's own command."""
    if not site.system.answers():
        return "could not ask"
    jobs = site.system.queue("orc-").jobs
    running = [job for job in jobs if job.state == "running"]
    waiting = [job for job in jobs if job.state == "queued"]
    victims = dice.sample(running, min(2, len(running))) + dice.sample(waiting, min(1, len(waiting)))
    if victims:
        site.system.cancel(victims)
    return ", ".join(f"{job.number}.{job.index} ({job.state})" for job in victims)


def time_is_up(site: Any, dice: random.Random) -> str:
    """Slurm can be made to end a job at its time limit; the others have tests of their own."""
    running = site.system.running("orc-") if site.system.answers() else []
    if site.system.script != "slurm" or not running:
        return "nothing"
    job = dice.choice(running)
    site.system.admin("scontrol", "update", f"jobid={site.system.scheduler.key(job.number, job.index)}", "TimeLimit=0")
    return f"{job.number}.{job.index}"


def restart(site: Any) -> None:
    site.kill()
    site.start()


def schedule(site: Any, dice: random.Random) -> list[tuple[float, Callable[[], Any]]]:
    """Each kind of trouble, one after the other and partly at once; LONG stretches it."""
    system, stretch = site.system, OUTAGE / 4.0
    plan: list[tuple[float, Callable[[], Any]]] = [
        (5, partial(cancel_some, site, dice)),
        (9, partial(time_is_up, site, dice)),
        (10, system.stop), (10 + OUTAGE, system.start),
        (12 + OUTAGE, partial(cancel_some, site, dice)),
        (13 + OUTAGE, site.server.kill), (13 + 1.5 * OUTAGE, site.server.restart),
        (14 + 1.5 * OUTAGE, system.freeze), (14 + 2.5 * OUTAGE, system.thaw),
        (16 + 2.5 * OUTAGE, partial(cancel_some, site, dice)),
    ]  # fmt: skip
    if LONG or system.script != "htcondor":  # which waits two minutes before it gives up a job whose node is gone
        plan += [(6, system.node_down), (8, system.node_up)]
    if hasattr(system, "stop_accounting"):
        plan += [(16.5 + 2.5 * OUTAGE, system.stop_accounting), (16.5 + 3.5 * OUTAGE, system.start_accounting)]
    end = max(when for when, _ in plan)
    kills = [3.0 + 4.0 * n * max(1.0, stretch / 10) for n in range(1000)]
    plan += [(when, partial(restart, site)) for when in kills if when < end]
    return [(when, named(act)) for when, act in plan]


def named(act: Callable[[], Any]) -> Callable[[], Any]:
    """``act`` with the name of what it does, for the log."""

    def do() -> Any:
        return act()

    do.__name__ = getattr(act, "func", act).__name__
    return do


def story(site: Any, disturb: Callable[..., Any]) -> dict[str, Any]:
    """All documents through, with all the trouble; figures and what was done."""
    name = type(site.system).__name__
    site.write_chain(steps(3), limits={"submissions_per_minute": 1000, "array": 10})
    strangers = Strangers(site.system, site.folder)
    site.wait(strangers.settled, 60, "the strangers' jobs to be as they should")
    before = strangers.seen
    site.add(COUNT)
    began = time.monotonic()
    site.start()
    trouble = disturb(site, schedule(site, random.Random(name)))
    site.wait(lambda: not trouble.is_alive(), 1200, "the trouble to be over")
    site.wait(site.finished, 1100 if LONG else 250)
    took = time.monotonic() - began
    figures = site.check(ill=ILL)
    if not (LONG and site.system.script == "htcondor"):  # there the node's end takes the stranger's running job along
        assert strangers.states() == before
    strangers.end()
    return {**figures, "seconds": round(took), "trouble": trouble.log}


@pytest.fixture(scope="module")
def stories(
    make_lasting_site: Callable[..., Any], disturb: Callable[..., Any], request: pytest.FixtureRequest
) -> Iterator[dict[str, Future[dict[str, Any]]]]:
    """The systems live through theirs side by side, since most of it is waiting; full-size ones one after the other."""
    here = [item for item in request.session.items if item.path == Path(__file__) and hasattr(item, "callspec")]
    wanted = {item.callspec.params["name"] for item in here}
    stories: dict[str, Future[dict[str, Any]]] = {}
    with ThreadPoolExecutor(1 if LONG else len(SYSTEMS)) as pool:
        for name in [name for name in SYSTEMS if name in wanted]:
            try:
                site = make_lasting_site(name)
            except pytest.skip.Exception as reason:
                stories[name] = Future()
                stories[name].set_exception(reason)
            else:
                stories[name] = pool.submit(story, site, disturb)
        yield stories


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_document_ends_right(name: str, stories: dict[str, Future[dict[str, Any]]]) -> None:
    found = stories[name].result(timeout=2400)
    print(f"\n{name}: {found.pop('trouble')}\n{name}: {found}")
    assert found["documents"] == COUNT and found["repeated"] > 0
