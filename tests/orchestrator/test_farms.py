"""What a chain may say of farms, and what each fault is told as."""

import pytest

from orchestrator import chain as chains
from orchestrator import farms, schedulers
from orchestrator.errors import ChainError

FARM = "farms: {lyon: {scheduler: slurm, spool: /spool}}\n"
STEP = "steps:\n  - {name: convert, run: 'a.b:c', executor: farm, farm: lyon%s}\n"


def test_a_farm_with_defaults() -> None:
    chain = chains.loads("name: x\n" + FARM + STEP % ", documents_per_job: 30, degrade: {memory: 2}")
    farm = chain.farms["lyon"]
    assert farm.transport == "local" and farm.limits.array == 1000 and farm.grace.unknown == 120
    assert chain.steps[0].documents_per_job == 30
    assert chain.farmed("here", "lyon") == chain.steps and not chain.at("here")
    assert not chain.farmed("here", "other")


def test_the_batch_systems_are_those_of_the_schedulers() -> None:
    assert set(farms.SCHEDULERS) == set(schedulers.SCHEDULERS)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: x\n" + STEP % "", "one of the chain's farms: no farm 'lyon'"),
        ("name: x\n" + FARM + "steps: [{name: a, run: 'b:c', executor: farm, farm: lion}]", "did you mean 'lyon'"),
        ("name: x\n" + FARM + "steps: [{name: a, run: 'b:c', executor: farm}]", "name one"),
        ("name: x\n" + FARM + "steps: [{name: a, run: 'b:c', cores: 2}]", "cores: this is for executor farm only"),
        ("name: x\nfarms: {l: {scheduler: slurm, spool: here}}\n" + "steps: [{name: a, run: 'b:c'}]", "absolute path"),
        ("name: x\nfarms: {l: {scheduler: slrm, spool: /s}}\n" + "steps: [{name: a, run: 'b:c'}]", "no batch system"),
        (
            "name: x\nfarms: {l: {scheduler: slurm, spool: /s, transport: ssh}}\nsteps: [{name: a, run: 'b:c'}]",
            "say which machine",
        ),
        (
            "name: x\nfarms: {l: {scheduler: slurm, spool: /s, access: {host: h}}}\nsteps: [{name: a, run: 'b:c'}]",
            "for transport ssh only",
        ),
        (
            "name: x\nfarms: {l: {scheduler: slurm, spool: /s, grace: {unknwon: 3}}}\nsteps: [{name: a, run: 'b:c'}]",
            "did you mean 'unknown'",
        ),
    ],
)
def test_faults_are_told_with_their_place(text: str, said: str) -> None:
    with pytest.raises(ChainError, match=said):
        chains.loads(text)
