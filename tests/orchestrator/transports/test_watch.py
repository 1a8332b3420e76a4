"""The time-out from outside: it ends what takes too long, once, and leaves alone what does not."""

from __future__ import annotations

import threading

from orchestrator.transports.watch import Watch


def test_a_wait_that_is_too_long_is_ended_and_a_short_one_is_not() -> None:
    ended: list[str] = []
    late = threading.Event()

    def end(why: str) -> None:
        ended.append(why)
        late.set()

    watch = Watch(end)
    with watch.limit(30, "answer"):
        pass
    idle = watch.add(0.01)  # set by nobody
    assert not late.wait(0.5) and ended == []
    idle.wait_for("word from afar")
    assert late.wait(5) and ended == ["no word from afar within 0.01 s"]
    watch.close()


def test_an_answer_in_time_clears_the_deadline() -> None:
    ended: list[str] = []
    watch = Watch(ended.append)
    limit = watch.add(0.3)
    for _ in range(4):
        limit.wait_for("answer")
        assert not threading.Event().wait(0.2)
    limit.clear()
    assert not threading.Event().wait(0.6) and ended == []
    watch.close()
    watch.drop(limit)
