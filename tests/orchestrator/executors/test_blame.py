"""Why a worker ended, by what is known of it."""

from __future__ import annotations

import signal

import pytest

from orchestrator.executors import blame
from orchestrator.executors.events import LOST


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (7, "code", "exit code 7"),
        (-signal.SIGSEGV, "code", "crashed: signal 11"),
        (-signal.SIGXCPU, "resources", "CPU time"),
        (-signal.SIGKILL, "resources", "memory runs out"),
    ],
)
def test_a_workers_own_end_is_told_by_its_exit_code(code: int, kind: str, words: str) -> None:
    found, reason = blame.why(None, code, lambda: "")
    assert found == kind and words in reason


def test_what_the_pool_has_decided_goes_before_the_exit_code() -> None:
    verdict = ("resources", "ended after 3 s")
    assert blame.why(verdict, -signal.SIGKILL, lambda: "others may have it") == verdict


def test_a_kill_whose_reason_is_known_counts_as_a_loss_and_no_other_end_does() -> None:
    assert blame.why(None, -signal.SIGKILL, lambda: "no beat") == (LOST, "no beat")
    assert blame.why(None, 1, lambda: "no beat")[0] == "code"
