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


ACCESS = (
    "name: x\nfarms: {l: {scheduler: slurm, spool: /s, output: /o, transport: ssh, access: %s}}\n"
    "steps: [{name: a, run: 'b:c'}]"
)


@pytest.mark.parametrize(
    "access",
    [
        "{host: h, password: hunter2}",
        "{host: h, jump: {host: g, key_passphrase: hunter2}}",
        "{host: 'daq:hunter2@h'}",
        "{host: h, user: 'daq:hunter2@h'}",
        "{host: h, password_from: hunter2}",
        "{host: h, timeouts: {login: hunter2}}",
        "{host: h, port: hunter2}",
        "{host: h, agent: hunter2}",
        "{host: h, sessions: hunter2, known_hosts: [hunter2], key: {hunter2: 1}, jump: hunter2}",
        "hunter2",
        "[hunter2]",
        "ssh://daq:hunter2@h",
    ],
)
def test_a_fault_in_an_access_repeats_no_secret(access: str) -> None:
    with pytest.raises(ChainError) as caught:
        chains.loads(ACCESS % access)
    assert "farms / l / access" in str(caught.value) and "hunter2" not in str(caught.value)


def test_an_access_means_the_same_to_whoever_reads_the_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    text = ACCESS % "{host: h, key: ~/.ssh/farm, jump: {host: g}}"
    prints = set()
    for name in ("anna", "otto"):
        monkeypatch.setenv("HOME", f"/home/{name}")
        monkeypatch.setenv("LOGNAME", name)
        chain = chains.loads(text)
        prints.add(chain.fingerprint())
        access = chain.farms["l"].access
        assert access is not None
        used = access.resolved()
        assert used.where == f"{name}@h" and str(used.key[0]) == f"/home/{name}/.ssh/farm"
        assert used.jump is not None and str(used.jump.known_hosts) == f"/home/{name}/.ssh/known_hosts"
    assert len(prints) == 1


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
            "name: x\nfarms: {l: {scheduler: slurm, spool: /s, transport: ssh, access: {hots: h}}}\n"
            "steps: [{name: a, run: 'b:c'}]",
            r"farms / l / access / hots: 'hots' is not known here \(did you mean 'host'",
        ),
        (
            "name: x\nfarms: {l: {scheduler: slurm, spool: /s, transport: ssh, "
            "access: {host: h, timeouts: {lgoin: 1}}}}\nsteps: [{name: a, run: 'b:c'}]",
            "access / timeouts / lgoin.*did you mean 'login'",
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


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("results: both", "write the run database as the nodes reach it"),
        ("results: both, database: 'http://h:5984'", "write the run database as the nodes reach it"),
        ("results: both, database: 'file:///runs'", "write the run database as the nodes reach it"),
        ("results: both, database: 'http://daq:hunter2@h:5984/runs'", "mode 0600"),
        ("results: both, database: 'http://h:5984/runs', credentials: login", "must be an absolute path at the farm"),
        ("credentials: /login", "for results: both only"),
        ("results: database", "spool"),
    ],
)
def test_the_way_straight_to_the_database_is_checked(words: str, sentence: str) -> None:
    with pytest.raises(ChainError) as caught:
        chains.loads("name: x\n" + FARM.replace("/spool}", f"/spool, {words}}}") + STEP % "")
    assert sentence in str(caught.value) and "hunter2" not in str(caught.value)
