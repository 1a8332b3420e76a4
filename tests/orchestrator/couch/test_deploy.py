"""Pushing design documents, where a real server is too quick to show it: slow builds and faults."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.couch import Server, deploy
from orchestrator.errors import Unavailable

DESIGN = {"_design/work": {"_id": "_design/work", "views": {"a": {"map": "function (doc) { emit(1); }"}}}}


def test_a_slow_build_is_asked_for_again_and_its_progress_told(scripted: Any, answers: Any) -> None:
    tasks = [{"type": "indexer", "database": "shards/0-7/runs.17", "design_document": "_design/work-staging",
              "changes_done": 40, "total_changes": 100}] * 2  # fmt: skip
    nothing = answers.reply({"rows": [{"key": "_design/work", "error": "not_found"}]})
    saved = answers.reply({"ok": True, "id": "x", "rev": "1-a"}, 201)

    def signature(value: str) -> Any:
        return answers.reply({"name": "x", "view_index": {"signature": value}})

    scripted.answers = [nothing, nothing, saved, answers.silence, answers.reply(tasks), answers.reply({"rows": []}),
                        nothing, saved, signature("old"), signature("new"), signature("new"), signature("new"),
                        nothing, answers.reply({"ok": True}, 202)]  # fmt: skip
    seen: list[deploy.Progress] = []
    database = Server(scripted.url).database("runs")
    short, deploy.POLL_TIMEOUT = deploy.POLL_TIMEOUT, 0.1
    try:
        pushed = deploy.push(database, DESIGN, progress=seen.append, wait=lambda seconds: None)
    finally:
        deploy.POLL_TIMEOUT = short
    assert pushed == [("_design/work", "created")]
    assert seen == [deploy.Progress("_design/work", "a", 80, 200)]
    # the staging document goes when the index is known under the live name, and not before
    assert [r.method for r in scripted.requests[-9:]] == ["GET", "POST", "COPY", *["GET"] * 4, "POST", "POST"]
    assert scripted.requests[-7].headers["destination"] == "_design/work"


def test_a_view_that_cannot_be_built_ends_the_push(scripted: Any, answers: Any) -> None:
    nothing = answers.reply({"rows": [{"key": "_design/work", "error": "not_found"}]})
    saved = answers.reply({"ok": True, "id": "x", "rev": "1-a"}, 201)
    scripted.answers = [nothing, nothing, saved, answers.reply({"error": "os_process_error", "reason": "no"}, 500)]
    with pytest.raises(Unavailable, match="os_process_error"):
        deploy.push(Server(scripted.url).database("runs"), DESIGN, wait=lambda seconds: None)
    assert not any(r.method == "COPY" for r in scripted.requests), "the live one is untouched"
