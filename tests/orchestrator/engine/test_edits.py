"""Decisions about documents at a farm, written in bulk while others change the same documents."""

from __future__ import annotations

from typing import Any

from memory import Memory

from orchestrator import documents
from orchestrator.chain import Chain
from orchestrator.documents import Claimant, Document, Report
from orchestrator.engine.edits import Change, edit


def test_the_record_of_a_loss_goes_again_where_a_job_has_written_its_own_result(memory: Memory, chain: Chain) -> None:
    """A job that reaches the database itself is faster than the word of the witnesses that it is gone."""
    step = chain.steps[0]
    memory.add({"_id": "d", "type": "daqdocument", "status": "closed"})
    memory.add(documents.claim(memory.documents["d"], step, Claimant("farm:x", "daq1", 1, "here"), "a1", 1000.0))

    def lost(document: Document) -> Change | None:
        if document["proc0"]["state"] == "done":
            return None
        change = Change(*documents.lose(document, step, "it is in no queue", 1001.0))
        memory.add(documents.finish(memory.documents["d"], step, Report("d", "proc0", "a1", 1.0, 2.0), 1001.0))
        return change

    assert edit(memory, {"d": lost}) == {}
    assert memory.documents["d"]["proc0"]["state"] == "done"
    assert set(memory.documents) == {"d"}


def test_the_record_of_a_loss_stays_with_a_document_that_another_change_made_late(memory: Memory, chain: Chain) -> None:
    step, held = chain.steps[0], list[Any]()
    memory.add({"_id": "d", "type": "daqdocument", "status": "closed"})
    memory.add(documents.claim(memory.documents["d"], step, Claimant("farm:x", "daq1", 1, "here"), "a1", 1000.0))

    def lost(document: Document) -> Change:
        if not held:
            held.append(memory.add({**memory.documents["d"], "priority": 3}))
        return Change(*documents.lose(document, step, "it is in no queue", 1001.0))

    assert set(edit(memory, {"d": lost})) == {"d"}
    assert memory.documents["attempt:d:proc0:1"]["state"] == "lost"
