"""What dead pollers leave: results recorded, claims given back, the living left alone."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from memory import Memory

from orchestrator.chain import Chain
from orchestrator.documents import Report
from orchestrator.engine.engine import Engine
from orchestrator.engine.recovery import Recovery
from orchestrator.errors import Unavailable
from orchestrator.executors.spool import Spool

Make = Callable[..., Engine]


def claimed_by(engine: Engine, memory: Memory, *names: str) -> list[Any]:
    for name in names:
        memory.add({"_id": name, "type": "daqdocument", "status": "closed"})
    engine.offer([d for d in memory.get_many(list(names)).values() if d], 1000.0)
    engine.claim(1000.0, 10.0)
    return engine.commit(1000.0)


def test_a_dead_pollers_results_are_recorded_and_its_claims_given_back(
    make_engine: Make, memory: Memory, chain: Chain, tmp_path: Path
) -> None:
    dead, living = make_engine("dead"), make_engine("living")
    tasks = claimed_by(dead, memory, "d1", "d2")
    spool = Spool(tmp_path, "dead")
    _, path = spool.new_batch()
    report = Report("d1", "proc0", next(t.attempt for t in tasks if t.document["_id"] == "d1"), 1.0, 2.0)
    path.write_text(json.dumps(report.to_json()) + "\n" + '{"half a li')
    spool.close()  # as the kernel does: the lock is free, the reports stay
    recovery = Recovery(chain, memory, living, Spool(tmp_path, "living"), lease=60.0)
    assert recovery.look(1001.0, 0.0) == 1
    living.commit(1001.0)
    assert memory.documents["d1"]["proc0"]["state"] == "done"
    assert memory.documents["d2"]["status"] == "closed"
    assert memory.documents["d2"]["retry"]["losses"] == 1
    recovery.look(1002.0, 1.0)
    assert not (tmp_path / "pollers" / "dead").exists()


def test_a_living_poller_here_is_left_alone_however_long_its_heartbeat_stands_still(
    make_engine: Make, memory: Memory, chain: Chain, tmp_path: Path
) -> None:
    other, me = make_engine("other"), make_engine("me")
    claimed_by(other, memory, "d")
    held = Spool(tmp_path, "other")
    recovery = Recovery(chain, memory, me, Spool(tmp_path, "me"), lease=60.0)
    for monotonic in (0.0, 100.0, 1000.0):
        assert recovery.look(1001.0, monotonic) == 0
    held.close()


def test_a_poller_elsewhere_is_dead_only_after_a_lease_without_a_beat(
    make_engine: Make, memory: Memory, chain: Chain, tmp_path: Path
) -> None:
    far, me = make_engine("far"), make_engine("me")
    claimed_by(far, memory, "d")
    recovery = Recovery(chain, memory, me, Spool(tmp_path, "me"), lease=60.0)
    memory.put_local("poller:far", {"id": "far", "beat": 1})
    assert recovery.look(1001.0, 0.0) == 0
    assert recovery.look(1050.0, 50.0) == 0
    memory.put_local("poller:far", {"id": "far", "beat": 2})
    assert recovery.look(1061.0, 61.0) == 0, "it has beaten since"
    assert recovery.look(1100.0, 100.0) == 0
    recovery.away()
    assert recovery.look(1130.0, 130.0) == 0, "while the database was away nobody could beat"
    assert recovery.look(1195.0, 195.0) == 1
    me.commit(1195.0)
    assert memory.documents["d"]["status"] == "closed"


def test_of_two_that_find_a_dead_poller_one_takes_over(
    make_engine: Make, memory: Memory, chain: Chain, tmp_path: Path
) -> None:
    dead, one, two = make_engine("dead"), make_engine("one"), make_engine("two")
    claimed_by(dead, memory, "d1", "d2", "d3")
    left = Spool(tmp_path, "dead")
    left.new_batch()[1].write_text("x\n")
    left.close()
    first = Recovery(chain, memory, one, Spool(tmp_path, "one"), lease=60.0)
    second = Recovery(chain, memory, two, Spool(tmp_path, "two"), lease=60.0)
    assert first.look(1001.0, 0.0) + second.look(1001.0, 0.0) == 3
    one.commit(1001.0)
    two.commit(1001.0)
    assert all(d["status"] == "closed" for d in memory.documents.values() if d["type"] == "daqdocument")


def test_a_claim_in_our_own_name_that_we_do_not_know_is_given_back(
    make_engine: Make, memory: Memory, chain: Chain, tmp_path: Path
) -> None:
    me = make_engine("me")
    claimed_by(me, memory, "d")
    recovery = Recovery(chain, memory, me, Spool(tmp_path, "me"), lease=60.0)
    assert recovery.look(1001.0, 0.0) == 0, "it is held"
    me.held.clear()
    assert recovery.look(1002.0, 1.0) == 0, "once may be a race"
    assert recovery.look(1003.0, 2.0) == 1


def test_a_poller_elsewhere_that_was_taken_over_is_forgotten_and_the_next_look_goes_on(
    make_engine: Make, memory: Memory, chain: Chain, tmp_path: Path
) -> None:
    far, me = make_engine("far"), make_engine("me")
    claimed_by(far, memory, "d")
    memory.put_local("poller:far", {"id": "far", "beat": 1})
    recovery = Recovery(chain, memory, me, Spool(tmp_path, "me"), lease=60.0)
    recovery.look(1000.0, 0.0)
    assert recovery.look(1061.0, 61.0) == 1
    me.commit(1061.0)
    for monotonic in (62.0, 200.0):
        assert recovery.look(1062.0, monotonic) == 0
    assert "poller:far" not in memory.locals, "the list of pollers does not grow with every one that ever died"


def test_a_claim_that_nobodys_name_is_on_is_given_back(
    make_engine: Make, memory: Memory, chain: Chain, tmp_path: Path
) -> None:
    memory.add({"_id": "d", "type": "daqdocument", "status": "proc 0 in progress", "proc0": {}})
    me = make_engine("me")
    recovery = Recovery(chain, memory, me, Spool(tmp_path, "me"), lease=60.0)
    assert [recovery.look(1000.0 + t, t) for t in (0.0, 61.0)] == [0, 1]
    me.commit(1061.0)
    assert memory.documents["d"]["status"] == "good"


def test_a_claim_of_a_step_that_the_chain_no_longer_has_is_freed(
    make_engine: Make, memory: Memory, chain: Chain, tmp_path: Path
) -> None:
    entry = {"poller": "old", "attempt": "t", "step": "gone"}
    memory.add({"_id": "d", "type": "daqdocument", "status": "proc 7 in progress", "proc7": entry})
    me = make_engine("me")
    recovery = Recovery(chain, memory, me, Spool(tmp_path, "me"), lease=60.0)
    assert [recovery.look(1000.0 + t, t) for t in (0.0, 61.0)] == [0, 1]
    me.commit(1061.0)
    assert memory.documents["d"]["status"] == "good"
    assert "proc7" not in memory.documents["d"]


def test_the_spool_of_a_dead_poller_goes_although_other_writes_always_wait(
    make_engine: Make, memory: Memory, chain: Chain, tmp_path: Path
) -> None:
    dead, me = make_engine("dead"), make_engine("me")
    claimed_by(dead, memory, "d1")
    Spool(tmp_path, "dead", tmp_path / "scratch").close()
    left = Spool(tmp_path, "dead", tmp_path / "scratch")
    left.new_batch()[1].write_text("x\n")
    (tmp_path / "scratch" / "dead" / "t1").mkdir(parents=True)
    os.close(left._lock or -1)  # as the kernel does
    recovery = Recovery(chain, memory, me, Spool(tmp_path, "me", tmp_path / "scratch"), lease=60.0)
    assert recovery.look(1001.0, 0.0) == 1
    recovery.look(1002.0, 1.0)
    assert (tmp_path / "pollers" / "dead").exists(), "what was taken is not written yet"
    me.commit(1003.0)
    memory.add({"_id": "d2", "type": "daqdocument", "status": "closed"})
    me.offer([memory.documents["d2"]], 1004.0)
    me.claim(1004.0, 1.0)
    recovery.look(1005.0, 2.0)
    assert not (tmp_path / "pollers" / "dead").exists()
    assert not (tmp_path / "scratch" / "dead").exists(), "nor what its workers left behind"


def test_a_dead_poller_of_an_odd_name_is_taken_over_once(
    make_engine: Make, memory: Memory, chain: Chain, tmp_path: Path
) -> None:
    dead, me = make_engine("höst/1 x"), make_engine("me")
    (task,) = claimed_by(dead, memory, "d")
    left = Spool(tmp_path, "höst/1 x")
    report = Report("d", "proc0", task.attempt, 1.0, 2.0)
    left.new_batch()[1].write_text(json.dumps(report.to_json()) + "\n")
    left.close()
    recovery = Recovery(chain, memory, me, Spool(tmp_path, "me"), lease=60.0)
    recovery.look(1001.0, 0.0)
    assert len(me.outbox) == 1
    me.commit(1001.0)
    recovery.look(1002.0, 1.0)
    assert me.counts.done == 1
    assert [path.name for path in (tmp_path / "pollers").iterdir() if path.suffix == ".lock"] == ["me.lock"]


def test_what_is_at_a_farm_belongs_to_its_daemon_however_long_that_is_away(
    make_engine: Make, memory: Memory, chain: Chain, tmp_path: Path
) -> None:
    farm, me = make_engine("farm:here:centre"), make_engine("me")
    claimed_by(farm, memory, "d")
    recovery = Recovery(chain, memory, me, Spool(tmp_path, "me"), lease=60.0)
    for monotonic in (0.0, 100.0, 1000.0):
        assert recovery.look(1001.0, monotonic) == 0
    me.commit(1001.0)
    assert memory.documents["d"]["status"] == "proc 0 in progress"


def test_another_sites_claims_are_left_to_its_own_pollers(
    make_engine: Make, memory: Memory, chain: Chain, tmp_path: Path
) -> None:
    there = make_engine("there")
    claimed_by(there, memory, "d")
    here = make_engine("here")
    here.claimant = replace(here.claimant, site="centre")
    recovery = Recovery(chain, memory, here, Spool(tmp_path, "here"), lease=60.0)
    for monotonic in (0.0, 61.0, 122.0, 183.0):
        assert recovery.look(1001.0, monotonic) == 0
    assert memory.documents["d"]["status"] == "proc 0 in progress"


def test_a_claim_whose_end_stands_in_another_version_is_not_taken_back(
    make_engine: Make, memory: Memory, chain: Chain, tmp_path: Path
) -> None:
    # Another site has put an older version of ours together with its own: it is seen, and says "in progress".
    me, dead = make_engine("me"), make_engine("dead")
    claimed_by(me, memory, "mine")
    claimed_by(dead, memory, "its")
    for name in ("mine", "its"):
        attempt = memory.documents[name]["proc0"]["attempt"]
        done = {"_id": name, "_rev": "3-z", "status": "good", "proc0": {"state": "done", "attempt": attempt}}
        memory.beside[name] = [{**memory.documents[name], **done}]
    me.held.clear()  # it has been recorded
    Spool(tmp_path, "dead").close()
    os.close(os.open(tmp_path / "pollers" / "dead.lock", os.O_CREAT | os.O_WRONLY, 0o600))
    recovery = Recovery(chain, memory, me, Spool(tmp_path, "me"), lease=60.0)
    assert [recovery.look(1001.0 + n, float(n)) for n in range(3)] == [0, 0, 0]
    me.commit(1005.0)
    assert not [name for name in memory.documents if name.startswith("attempt:")]
    memory.beside.clear()
    assert sum(recovery.look(1101.0 + n, 100.0 + n) for n in range(2)) == 2, "without such a version they are lost"


@pytest.mark.parametrize("answers_lost", [0, 1])
def test_the_record_of_a_loss_goes_again_where_the_result_was_recorded_first(
    make_engine: Make, memory: Memory, answers_lost: int
) -> None:
    """One poller sees a lease end; before its word is written, the dead one's spool is found on its own machine."""
    dead, here, elsewhere = make_engine("dead"), make_engine("here"), make_engine("elsewhere")
    (task,) = claimed_by(dead, memory, "d")
    seen = memory.get_many(["d"])["d"]
    assert seen is not None
    elsewhere.take_back(seen, dead.chain.steps[0], "its poller dead is no more", 1001.0)
    here.adopted(seen, Report("d", "proc0", task.attempt, 1000.0, 1000.5), 1001.5)
    here.commit(1001.5)
    memory.answers_lost = answers_lost  # stored, and then the network broke: it is written once more
    with suppress(Unavailable):
        elsewhere.commit(1002.0)
    elsewhere.commit(1003.0)
    assert memory.documents["d"]["proc0"]["state"] == "done"
    assert set(memory.documents) == {"d"}, "what was thought lost is done: nothing says otherwise"


def test_the_record_of_a_loss_stays_where_another_has_seen_the_same(make_engine: Make, memory: Memory) -> None:
    dead, one, other = make_engine("dead"), make_engine("one"), make_engine("other")
    claimed_by(dead, memory, "d")
    seen = memory.get_many(["d"])["d"]
    assert seen is not None
    for engine in (one, other):
        engine.take_back(seen, dead.chain.steps[0], "its poller dead is no more", 1001.0)
    one.commit(1002.0)
    other.commit(1002.0)
    assert memory.documents["attempt:d:proc0:1"]["state"] == "lost"
    assert memory.documents["d"]["retry"]["number"] == 2
