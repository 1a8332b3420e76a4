"""The hub: changes melt together, slow viewers cost nobody anything, the database's coming and going is told."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from typing import Any

import page_double
import page_sample as sample
import pytest

from orchestrator.errors import Unauthorised, Unavailable
from orchestrator.web import live
from orchestrator.web.live import Full, Hub
from orchestrator.web.source import Source


class Feed:
    """Changes as a test wishes them."""

    def __init__(self, *batches: Sequence[str], fault: Exception | None = None) -> None:
        self.batches = batches
        self.fault = fault
        self.closed = threading.Event()
        self.asked = 0

    def __call__(self, stop: threading.Event) -> Iterator[Sequence[str]]:
        self.asked += 1
        yield from self.batches
        if self.fault is not None:
            raise self.fault
        self.closed.wait(5)

    def close(self) -> None:
        self.closed.set()


def hub(feed: Feed | None = None) -> tuple[Hub, page_double.Double]:
    database = page_double.Double(sample.chain(), sample.documents(), sample.NOON)
    return Hub(Source(lambda: database), feed), database


def run(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(story, 10))


def parsed(text: str) -> tuple[str, Any]:
    fields = dict(line.split(": ", 1) for line in text.strip().splitlines())
    return fields["event"], json.loads(fields["data"])


async def next_event(stream: AsyncIterator[str]) -> tuple[str, Any]:
    return parsed(await asyncio.wait_for(anext(stream), 5))


def test_the_first_event_tells_whether_the_database_answers() -> None:
    async def story() -> None:
        made, _ = hub()
        name, data = await next_event(made.stream())
        assert name == "database" and data["reachable"] is True

    run(story())


def test_many_changes_are_one_event() -> None:
    async def story() -> None:
        made, _ = hub()
        stream = made.stream()
        await next_event(stream)
        for n in range(20):
            made.changed([f"d{n % 5}"])
        assert await next_event(stream) == ("change", {"ids": [f"d{n}" for n in range(5)], "many": False})

    run(story())


def test_viewers_who_read_after_an_event_read_anew() -> None:
    async def story() -> None:
        made, database = hub()
        stream = made.stream()
        await next_event(stream)
        read = made._source.cached
        assert read("all", lambda db: len(db.view("pages/files").rows)) == 19
        database.documents["new"] = sample.document("new", 1) | {"_id": "new"}
        made.changed(["new"])
        await next_event(stream)
        assert read("all", lambda db: len(db.view("pages/files").rows)) == 20

    run(story())


def test_at_most_two_events_a_second() -> None:
    async def story() -> None:
        made, _ = hub()
        stream = made.stream()
        await next_event(stream)
        loop = asyncio.get_running_loop()
        made.changed(["a"])
        await next_event(stream)
        began = loop.time()
        made.changed(["b"])
        await next_event(stream)
        assert loop.time() - began > live.PAUSE_SECONDS * 0.8

    run(story())


def test_a_viewer_that_does_not_read_holds_a_bounded_amount_and_delays_nobody() -> None:
    async def story() -> None:
        made, _ = hub()
        slow, quick = made.stream(), made.stream()
        await next_event(slow)
        await next_event(quick)
        for n in range(3):
            made.changed([f"d{n}-{i}" for i in range(60)])
            made._push()
            assert (await next_event(quick))[0] == "change"
        assert await next_event(slow) == ("change", {"ids": [], "many": True})
        assert all(len(v.ids) <= live.IDS for v in made._viewers)

    run(story())


def test_a_stream_that_nobody_reads_any_more_is_forgotten() -> None:
    async def story() -> None:
        made, _ = hub()
        stream = made.stream()
        await next_event(stream)
        assert made.viewers == 1
        await stream.aclose()  # type: ignore[attr-defined]
        assert made.viewers == 0

    run(story())


def test_silence_is_filled_with_comments() -> None:
    async def story() -> None:
        made, _ = hub()
        stream = made.stream(heartbeat=0.02)
        await next_event(stream)
        assert (await anext(stream)).startswith(":")

    run(story())


def test_too_many_viewers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        monkeypatch.setattr(live, "VIEWERS", 1)
        made, _ = hub()
        first = made.stream()
        await anext(first)
        with pytest.raises(Full, match="1 viewers"):
            await anext(made.stream())

    run(story())


def test_changes_of_the_feed_reach_the_viewers_and_closing_ends_all() -> None:
    async def story() -> None:
        feed = Feed((), ["a"], ["b", "c"])
        made, _ = hub(feed)
        stream = made.stream()
        await next_event(stream)
        made.start()
        seen: set[str] = set()
        while seen != {"a", "b", "c"}:
            _, data = await next_event(stream)
            seen |= set(data["ids"])
        made.close()
        assert [piece async for piece in stream] == []
        assert feed.closed.is_set()

    run(story())


def test_a_feed_that_breaks_is_noted_and_followed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "RETRY_SECONDS", 0.01)

    async def story() -> None:
        feed = Feed(["a"], fault=Unavailable("the database is away"))
        made, _ = hub(feed)
        made.start()
        while feed.asked < 3:
            await asyncio.sleep(0.01)
        assert not made._source.health.reachable
        made.close()

    run(story())


def test_a_refused_login_is_not_tried_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "RETRY_SECONDS", 0.01)

    async def story() -> None:
        feed = Feed(fault=Unauthorised("wrong password"))
        made, _ = hub(feed)
        made.start()
        await asyncio.sleep(0.2)
        assert feed.asked == 1
        made._source.answered()  # somebody's read was answered again
        while feed.asked < 2:
            await asyncio.sleep(0.01)
        made.close()

    run(story())


def test_the_databases_going_and_coming_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "WATCH_SECONDS", 0.02)
    monkeypatch.setattr("orchestrator.web.source.CACHE_SECONDS", 0.0)
    monkeypatch.setattr("orchestrator.web.source.AWAY_SECONDS", 0.0)

    async def story() -> None:
        made, database = hub()
        stream = made.stream()
        await next_event(stream)
        made.start()
        database.broken = Unavailable("it does not answer")
        name, data = await next_event(stream)
        assert name == "database" and not data["reachable"] and data["sentence"] == "it does not answer"
        database.broken = None
        name, data = await next_event(stream)
        assert name == "database" and data["reachable"]
        made.close()

    run(story())


def test_an_event_is_one_line_whatever_an_id_holds() -> None:
    text = live.event("change", {"ids": ["a\n\ndata: x", "\u2028ü"]})
    assert text.count("\n") == 3 and text.isascii()
