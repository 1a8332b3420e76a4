"""The way of a plot to viewers: each gets the newest of what it shows, whatever the others do."""

import asyncio
import contextlib
import json
import socket
import threading
import zlib
from collections.abc import AsyncGenerator, Callable
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.online import subscribing
from orchestrator.online.subscribing import Message
from orchestrator.web.online import events, hub
from orchestrator.web.online.board import Board

BODY = b'{"_typename":"TH1D","fArray":[1,2,3]}'


def plot(name: str, entries: int, run: str = "6008", body: bytes = BODY) -> Message:
    return Message("plot", run, name, {"entries": entries, "title": name}, body)


def made(board: Board | None = None) -> hub.Hub:
    board = board or Board()
    return hub.Hub(
        board, lambda run: {"run": run}, lambda run: {"run": run, "plots": []}, lambda: 0.0,
        lambda run: found.plots if (found := board.run(run)) else {},
    )  # fmt: skip


def events_of(text: bytes) -> list[tuple[str, Any]]:
    found = []
    for part in text.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in part.splitlines() if ": " in line)
        if "event" in fields:
            found.append((fields["event"], json.loads(fields["data"])))
    return found


class Reader:
    """A viewer that reads all it gets."""

    def __init__(self, stream: AsyncGenerator[bytes, None], *, compressed: bool = False) -> None:
        self._open: Callable[[bytes], bytes] = zlib.decompressobj(31).decompress if compressed else bytes
        self.entries: dict[str, list[int]] = {}
        self.runs: list[str] = []
        self.size = 0
        self.task = asyncio.create_task(self._read(stream))

    async def _read(self, stream: AsyncGenerator[bytes, None]) -> None:
        rest = b""
        async with contextlib.aclosing(stream):
            async for piece in stream:
                self.size += len(piece)
                rest += self._open(piece)
                whole, _, rest = rest.rpartition(b"\n\n")
                for name, data in events_of(whole):
                    if name == "plot":
                        self.entries.setdefault(data["header"]["name"], []).append(data["header"]["entries"])
                        self.runs.append(data["header"]["run"])

    async def until(self, wanted: dict[str, int]) -> None:
        while {name: seen[-1] for name, seen in self.entries.items()} != wanted:
            assert not self.task.done(), self.task
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task


@given(st.lists(st.binary(max_size=3000), min_size=1, max_size=12))
def test_events_compressed_apart_make_one_stream(texts: list[bytes]) -> None:
    stream = events.HEAD + b"".join(events.block(text) for text in texts)
    assert zlib.decompressobj(31).decompress(stream) == b"".join(texts)


@pytest.mark.parametrize("compressed", [False, True])
def test_every_viewer_gets_the_newest_of_what_it_shows_and_nothing_else(compressed: bool) -> None:
    async def play() -> None:
        one = made()
        names = [f"p{number}" for number in range(20)]
        shows = [names[number % 7 :: 3] for number in range(40)]
        viewers = [Reader(one.stream("", shown, 0.02, compressed=compressed), compressed=compressed) for shown in shows]
        await asyncio.sleep(0)
        for entries in range(60):
            one.take([plot(name, entries) for name in names])
            await asyncio.sleep(0.001)
        for viewer, shown in zip(viewers, shows, strict=True):
            await asyncio.wait_for(viewer.until(dict.fromkeys(shown, 59)), 20)
            assert all(seen == sorted(set(seen)) for seen in viewer.entries.values())  # none twice, none older
        for viewer in viewers:
            await viewer.stop()
        assert one.viewers == 0 and not one._by_plot

    asyncio.run(play())


def test_a_plot_is_encoded_once_for_all_viewers(monkeypatch: pytest.MonkeyPatch) -> None:
    compressed: list[bytes] = []
    block = events.block
    monkeypatch.setattr(events, "block", lambda text: compressed.append(text) or block(text))

    async def play() -> None:
        one = made()
        one.take([plot("a", 1)])
        viewers = [Reader(one.stream("", ["a"], 0.1, compressed=True), compressed=True) for _ in range(30)]
        for viewer in viewers:
            await asyncio.wait_for(viewer.until({"a": 1}), 20)
            await viewer.stop()

    asyncio.run(play())
    assert sum(text.startswith(b"event: plot") for text in compressed) == 1


def test_between_two_pictures_there_is_the_viewers_period_and_then_comes_the_newest() -> None:
    async def play() -> None:
        one = made()
        slow = Reader(one.stream("", ["a"], 3600.0, compressed=False))
        quick = Reader(one.stream("", ["a"], 0.01, compressed=False))
        await asyncio.sleep(0)
        for entries in range(1, 50):
            one.take([plot("a", entries)])
            await asyncio.sleep(0.002)
        await asyncio.wait_for(quick.until({"a": 49}), 20)
        assert slow.entries["a"] == [1]  # the first at once
        for viewer in (slow, quick):
            await viewer.stop()

    asyncio.run(play())


def test_who_follows_the_current_run_goes_on_with_the_next_one_and_who_chose_a_run_stays() -> None:
    async def play() -> None:
        one = made()
        one.take([plot("a", 1, "1")])
        follows = Reader(one.stream("", ["a"], 0.01, compressed=False))
        stays = Reader(one.stream("1", ["a"], 0.01, compressed=False))
        await asyncio.wait_for(stays.until({"a": 1}), 20)
        one.take([plot("a", 7, "2")])
        await asyncio.wait_for(follows.until({"a": 7}), 20)
        one.take([plot("a", 2, "1")])
        await asyncio.wait_for(stays.until({"a": 2}), 20)
        one.take([plot("a", 8, "2")])
        await asyncio.wait_for(follows.until({"a": 8}), 20)
        assert set(stays.runs) == {"1"}
        for viewer in (follows, stays):
            await viewer.stop()

    asyncio.run(play())


def test_a_viewer_that_does_not_read_holds_one_piece_and_nobody_waits_for_it() -> None:
    async def play() -> None:
        one = made()
        large = b'{"_typename":"TH1D","fArray":"' + b"x" * 30_000 + b'"}'
        names = [f"p{number}" for number in range(40)]
        stuck = one.stream("", names, 0.0, compressed=False)
        await anext(stuck)  # and never again
        reader = Reader(one.stream("", names, 0.01, compressed=False))
        for entries in range(20):
            one.take([plot(name, entries, body=large) for name in names])
            await asyncio.sleep(0.001)
        await asyncio.wait_for(reader.until(dict.fromkeys(names, 19)), 30)
        (held,) = [viewer for viewer in one._viewers if viewer.period == 0.0]
        assert len(held.pending) == len(names)  # names, however much has come since
        size = 0
        async for piece in stuck:  # when it reads again, it gets the newest, in pieces of bounded size
            assert len(piece) <= hub.PIECE + 2 * len(large)
            size += len(piece)
            if size >= len(names) * len(large):
                break
        await stuck.aclose()
        await reader.stop()

    asyncio.run(play())


def test_there_is_a_most_of_viewers_and_of_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "VIEWERS", 2)

    async def play() -> None:
        one = made()
        streams = [one.stream("", [f"p{n}" for n in range(1000)], 1.0, compressed=False) for _ in range(2)]
        for stream in streams:
            await anext(stream)
        assert all(len(viewer.plots) == hub.SHOWN for viewer in one._viewers)
        with pytest.raises(hub.Full):
            await anext(one.stream("", [], 1.0, compressed=False))
        for stream in streams:
            await stream.aclose()
        await anext(one.stream("", [], 1.0, compressed=False))

    asyncio.run(play())


def test_through_the_broadcast_and_http_a_stuck_connection_holds_nobody_up(room: Any) -> None:
    names = [f"hits/{number}" for number in range(8)]
    with socket.create_connection(("127.0.0.1", room.port)) as stuck:
        query = "&".join(f"plots={name}" for name in names)
        stuck.sendall(f"GET /events?period=0.1&{query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        room.wait(lambda: room.json("/healthz")["viewers"] == 1, "the stuck viewer")
        for count in range(1, 40):
            for name in names:
                room.plot("6008", name, count)
        for name in names:
            room.wait(lambda name=name: room.shown("6008", name) == 39, f"the newest of {name}")
    room.wait(lambda: room.json("/healthz")["viewers"] == 0, "the end of the stuck viewer")


def test_a_broadcast_that_was_away_is_followed_again(room: Any) -> None:
    room.plot("6008", "hits/0", 1)
    room.wait(lambda: room.shown("6008", "hits/0") == 1, "the first")
    room.stop_broker()
    room.wait(lambda: not room.json("/api/status")["connected"], "the loss to be noticed")
    assert room.json("/api/status")["level"] == "bad"
    assert room.shown("6008", "hits/0") == 1  # what was known stays
    room.plot("6008", "hits/0", 2)
    room.start_broker()
    room.wait(lambda: room.shown("6008", "hits/0") == 2, "what came meanwhile")
    assert room.json("/api/status")["connected"]


def test_health_is_good_with_the_whole_picture_and_bad_while_the_broadcast_cannot_be_followed(
    room: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(300):
        room.plot("6008", f"hits/{number}", 1)
    room.wait(lambda: room.json("/healthz")["plots"] == 300, "the plots")
    room.stop()
    health = []
    start = threading.Thread(target=room.start)
    start.start()
    while not health or health[-1].status_code != 200:
        with contextlib.suppress(httpx.TransportError):
            health.append(room.get("/healthz"))
    start.join()
    assert health[-1].json() | {"viewers": 0, "plots": 300, "complete": True} == health[-1].json()
    monkeypatch.setattr(subscribing.Subscriber, "receive", lambda self, wait: 1 / 0)
    room.wait(lambda: room.get("/healthz").status_code == 503, "the fault to be seen")
    monkeypatch.undo()
    room.wait(lambda: room.get("/healthz").status_code == 200, "the broadcast to be followed again")


def test_a_display_that_is_started_again_has_the_current_picture(room: Any) -> None:
    room.plot("6008", "hits/0", 5)
    room.wait(lambda: room.shown("6008", "hits/0") == 5, "the plot")
    room.stop()
    room.start()
    room.wait(lambda: room.shown("6008", "hits/0") == 5, "the plot in the new display")


def test_who_looks_at_an_old_run_is_not_sent_it_again_for_each_plot_of_the_present_one() -> None:
    async def play() -> None:
        one = made()
        one.take([plot("a", 1, "1")])
        stays = Reader(one.stream("1", ["a"], 0.01, compressed=False))
        follows = Reader(one.stream("", ["a"], 0.01, compressed=False))
        await asyncio.wait_for(stays.until({"a": 1}), 20)
        for entries in range(2, 9):
            one.take([plot("a", entries, "2")])
            await asyncio.sleep(0.02)
        await asyncio.wait_for(follows.until({"a": 8}), 20)
        assert stays.entries == {"a": [1]}
        for viewer in (stays, follows):
            await viewer.stop()

    asyncio.run(play())


def test_a_viewer_is_told_of_the_next_run_before_it_gets_its_first_plot() -> None:
    async def play() -> None:
        one = made()
        one.take([plot("a", 1, "1")])
        stream = one.stream("", ["a"], 0.01, compressed=False)
        text = await anext(stream) + await anext(stream)
        assert [name for name, _ in events_of(text)] == ["list", "status", "plot"]
        one.take([plot("a", 7, "2")])
        text = b""
        while b"event: plot" not in text:
            text += await asyncio.wait_for(anext(stream), 20)
        assert [name for name, _ in events_of(text)] == ["list", "status", "plot"]
        await stream.aclose()

    asyncio.run(play())


def test_viewers_that_have_lost_a_display_do_not_all_come_back_in_one_moment() -> None:
    async def play() -> None:
        board = Board()
        chances = iter((0.0, 0.5, 1.0))
        one = hub.Hub(board, lambda run: {}, lambda run: {}, lambda: 0.0, lambda run: {}, lambda: next(chances))
        times = []
        for _ in range(3):
            stream = one.stream("", [], 1.0, compressed=False)
            times.append(int((await anext(stream)).removeprefix(b"retry: ")))
            await stream.aclose()
        assert times == [hub.RETRY[0], sum(hub.RETRY) // 2, hub.RETRY[1]]

    asyncio.run(play())
