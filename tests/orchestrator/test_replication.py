"""The setting ``replicate``, the replications it asks for, and when one is begun anew: pure decisions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator import chain as chains
from orchestrator import children
from orchestrator.embedded.mango_selector import compile_selector
from orchestrator.errors import SettingsError
from orchestrator.replication import (
    CRASHED,
    LEAVE,
    RESTART,
    STALLED,
    START,
    STOP,
    End,
    Link,
    Memory,
    State,
    links,
    remotes,
    repair,
    selector,
)
from orchestrator.settings import Settings

HERE = End("http://127.0.0.1:5984/runs", ("me", "sesame-open"))
CENTRE = {"url": "https://couch.centre.example/", "credentials": "centre.json"}


def link() -> Link:
    found = remotes({"centre": CENTRE}, Path("/site"))
    return links(HERE, "runs", found, {"centre": ("we", "open-sesame")})[0]


def test_both_directions() -> None:
    found = remotes({"centre": {**CENTRE, "types": ["run"]}, "away": {**CENTRE, "direction": "pull"}}, Path("/s"))
    made = links(HERE, "runs", found, {})
    assert [one.name for one in made] == ["push to centre", "pull from centre", "pull from away"]
    assert (made[0].source.url, made[0].target.url) == (HERE.url, "https://couch.centre.example/runs")
    assert (made[1].source.url, made[1].target.url) == (made[0].target.url, made[0].source.url)
    assert found["centre"].credentials == Path("/s/centre.json")


def test_logins_are_in_the_request_and_nowhere_else() -> None:
    made = link()
    body = json.dumps(made.request())
    assert "sesame-open" in body
    assert "open-sesame" in body
    shown = repr(made) + json.dumps(State(made, "running").as_json())
    assert "sesame" not in shown
    assert all("@" not in end["url"] for end in (made.request()["source"], made.request()["target"]))


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({}, "replicate / centre / url"),
        ({"url": "http://u:secret@h"}, "user or a password"),
        ({**CENTRE, "password": "secret"}, "replicate / centre / password"),
        ({**CENTRE, "direction": "sideways"}, "replicate / centre / direction"),
        ({"url": "ftp://h"}, "cannot be used"),
        ("http://h", "replicate / centre"),
    ],
)
def test_what_cannot_be_used_is_named_without_its_secret(entry: Any, words: str) -> None:
    with pytest.raises(SettingsError, match=words) as caught:
        remotes({"centre": entry}, Path("/site"))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("types", "document", "passes"),
    [
        ((), {"_id": "a", "type": "x"}, True),
        ((), {"_id": "a"}, True),
        ((), {"_id": "_design/work"}, False),
        (("x",), {"_id": "a", "type": "x"}, True),
        (("x",), {"_id": "a", "type": "y"}, False),
        (("x",), {"_id": "a"}, False),
        (("x",), {"_id": "a", "_deleted": True}, True),
        (("x",), {"_id": "_design/work", "_deleted": True}, False),
    ],
)
def test_which_documents_travel(types: tuple[str, ...], document: dict[str, Any], passes: bool) -> None:
    assert compile_selector(selector(types))(document) is passes


def test_up_watches_where_another_database_is_named(tmp_path: Path) -> None:
    chain = chains.loads("name: x\nsteps: [{name: s, run: 'm:f'}]")
    names = []
    for replicate in ({}, {"centre": CENTRE}):
        settings = Settings.load(tmp_path, {}, {"replicate": replicate})
        names.append([spec.name for spec in children.specs(settings, chain, {}, embedded=False)])
    assert names == [["poller", "page"], ["poller", "replication", "page"]]


def test_a_job_is_known_by_its_ends() -> None:
    made = link()
    job = {"source": made.source.url + "/", "target": made.target.url + "/"}
    assert made.is_job(job)
    assert not made.is_job({**job, "target": made.target.url + "2/"})
    assert not made.is_job({**job, "source": job["target"], "target": job["source"]})


def test_what_is_gone_is_started_and_what_a_person_stopped_is_left() -> None:
    assert repair(State(link(), "stopped"), Memory(), None, 0.0) == START
    assert repair(State(link(), "paused"), Memory(), None, 0.0) == LEAVE
    assert repair(State(link(), "paused", job="x"), Memory(), None, 0.0) == STOP
    assert repair(State(link(), "running", behind=0), Memory(), 1, 0.0) == LEAVE


def test_a_crashed_one_is_begun_anew_once_the_other_end_answers() -> None:
    memory = Memory()
    crashing, away = State(link(), "crashing"), State(link(), "crashing", reachable=False)
    assert repair(away, memory, None, 0.0) == LEAVE
    assert repair(away, memory, None, 1000.0) == LEAVE
    assert repair(crashing, memory, None, 1001.0) == LEAVE, "the server itself tries first"
    assert repair(crashing, memory, None, 1001.0 + CRASHED) == RESTART
    assert repair(crashing, memory, None, 1002.0 + CRASHED) == LEAVE


def test_one_that_stands_still_is_begun_anew() -> None:
    memory = Memory()
    behind, level = State(link(), "running", behind=5), State(link(), "running", behind=0)
    assert repair(behind, memory, 1, 0.0) == LEAVE
    assert repair(behind, memory, 1, STALLED - 1) == LEAVE
    assert repair(behind, memory, 2, STALLED) == LEAVE, "it has moved"
    assert repair(behind, memory, 2, 2 * STALLED - 1) == LEAVE
    assert repair(behind, memory, 2, 2 * STALLED) == RESTART
    assert repair(level, Memory(progress=2), 2, 10 * STALLED) == LEAVE, "there is nothing to do"
