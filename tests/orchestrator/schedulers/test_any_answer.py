"""Whatever a batch system says, the reading methods raise nothing but our errors, and one odd job spoils no listing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import schedulers
from orchestrator.schedulers import Answer, JobSpec, JobState, Listing, Query, SchedulerError
from orchestrator.schedulers.gridengine import state_of
from orchestrator.schedulers.slurm import STATES

RECORDED = Path(__file__).parent / "recorded"
FOLDERS = {
    "slurm": "slurm",
    "gridengine": "gridengine",
    "htcondor": "htcondor",
    "fsched": "fsched",
    "pbs": "pbs-documented",
}
QUERY = Query("orch-t-")
SPEC = JobSpec("orch-t-a", ("true",), "/s/a.sh", "/s", "/s/a.out", "/s/a.err")
CODES = st.one_of(st.none(), st.integers(-15, 255), st.just(0), st.just(0))


def recorded(system: str, name: str) -> str:
    return str(json.loads((RECORDED / FOLDERS[system] / f"{name}.json").read_text())["stdout"])


def read_all(system: str, answer: Answer) -> None:
    """Every reading method; only our errors may come out."""
    scheduler = schedulers.get(system)
    questions = [
        lambda: scheduler.read_submit(answer, SPEC),
        lambda: scheduler.read_listing(answer, QUERY),
        lambda: scheduler.read_cancel(answer),
        *(
            lambda command=command: scheduler.read_history(command, answer, QUERY)
            for command in scheduler.history(QUERY)
        ),
    ]
    for question in questions:
        try:
            result = question()
        except SchedulerError as error:
            assert str(error)
            continue
        if isinstance(result, Listing):
            assert all(job.name.startswith(QUERY.prefix) for job in result.jobs)
    scheduler.read_stderr(answer.stderr)


@pytest.mark.parametrize("system", sorted(schedulers.SCHEDULERS))
@settings(max_examples=60, deadline=None)
@given(code=CODES, out=st.binary(max_size=400), err=st.text(max_size=60))
def test_any_bytes(system: str, code: int | None, out: bytes, err: str) -> None:
    for text in (out.decode("utf-8", "replace"), out.decode("utf-8", "surrogateescape"), out.decode("latin-1")):
        read_all(system, Answer(code, text, err))


@pytest.mark.parametrize("system", sorted(schedulers.SCHEDULERS))
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_real_answer_with_a_wound(system: str, data: st.DataObject) -> None:
    """Some characters of a recorded queue replaced, taken out or doubled."""
    text = recorded(system, "queue")
    begin = data.draw(st.integers(0, len(text)))
    end = min(len(text), begin + data.draw(st.integers(0, 40)))
    text = text[:begin] + data.draw(st.text(max_size=20)) + text[end:]
    read_all(system, Answer(0, text, ""))


@settings(max_examples=50, deadline=None)
@given(word=st.from_regex(r"[A-Z_]{1,20}", fullmatch=True))
def test_a_slurm_state_of_tomorrow_is_kept_as_unknown(word: str) -> None:
    text = recorded("slurm", "queue").replace("PENDING".ljust(30), word.ljust(30), 1)
    listing = schedulers.get("slurm").read_listing(Answer(0, text), QUERY)
    plain = schedulers.get("slurm").read_listing(Answer(0, recorded("slurm", "queue")), QUERY)
    assert len(listing.jobs) == len(plain.jobs) and listing.complete
    if word not in STATES:
        (odd,) = [job for job in listing.jobs if job.raw_state == word]
        assert odd.state is JobState.UNKNOWN and not odd.state.final


@settings(max_examples=80, deadline=None)
@given(word=st.text("qwhrtsSTRdEzNPxyQ?", max_size=6))
def test_grid_engine_letters_in_any_order(word: str) -> None:
    assert state_of(word) is state_of(word[::-1])
    text = recorded("gridengine", "queue").replace("<state>hqw</state>", f"<state>{word}</state>")
    listing = schedulers.get("gridengine").read_listing(Answer(0, text), QUERY)
    (job,) = listing.named("orch-t-held")
    assert job.raw_state == word and job.state is state_of(word)


@pytest.mark.parametrize(
    ("letters", "state"),
    [("qw", "queued"), ("hqw", "held"), ("hRwq", "held"), ("Eqw", "held"), ("EhRqw", "held"), ("r", "running"),
     ("t", "running"), ("Rr", "running"), ("S", "running"), ("T", "running"), ("tS", "running"), ("dr", "running"),
     ("dRT", "running"), ("hr", "running"), ("w", "queued"), ("z", "unknown"), ("", "unknown"), ("Yq", "unknown")],
)  # fmt: skip
def test_grid_engine_states_that_lose_whole_listings_elsewhere(letters: str, state: str) -> None:
    assert state_of(letters) == state


def test_a_strangers_broken_xml_spoils_its_own_block_only() -> None:
    text = recorded("gridengine", "queue")
    stranger = (
        "<job_list state='x'><JB_job_number>9</JB_job_number><JB_name>a\x01<&</JB_name><state>?</state></job_list>"
    )
    listing = schedulers.get("gridengine").read_listing(
        Answer(0, text.replace("</queue_info>", stranger + "</queue_info>")), QUERY
    )
    assert listing == schedulers.get("gridengine").read_listing(Answer(0, text), QUERY) and listing.complete


def test_one_of_ours_that_cannot_be_read_makes_the_listing_incomplete() -> None:
    text = recorded("gridengine", "queue").replace(
        "<JB_name>orch-t-held</JB_name>", "<JB_name>orch-t-held\x01</JB_name>"
    )
    listing = schedulers.get("gridengine").read_listing(Answer(0, text), QUERY)
    assert not listing.complete and not listing.named("orch-t-held") and listing.named("orch-t-long")


def test_a_strangers_ad_without_a_number_is_seen_as_a_gap() -> None:
    text = recorded("htcondor", "queue").replace('"ClusterId": ', '"ClusterIdX": ', 1)
    assert not schedulers.get("htcondor").read_listing(Answer(0, text), QUERY).complete
