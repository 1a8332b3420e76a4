"""``_changes`` in its four feeds: normal, longpoll, continuous, eventsource."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from orchestrator.embedded import codec
from orchestrator.embedded.attachment_parts import whole
from orchestrator.embedded.changes import Passing, choose_filter, revs_of
from orchestrator.embedded.database import DatabaseStore, Row
from orchestrator.embedded.http_database import parse_token, token
from orchestrator.embedded.http_documents import conflicts
from orchestrator.embedded.http_request import JSON, MUST_REVALIDATE, Request, Response
from orchestrator.embedded.problems import Problem, bad_request, method_not_allowed

HEARTBEAT = 60.0  # seconds between blank lines for heartbeat=true, CouchDB's default
TIMEOUT = 60.0  # seconds a feed waits without heartbeat; also the most that may be asked for

_SCAN = 1000  # changes read, filtered and sent at a time

_BEAT = {False: b"\n", True: b"event: heartbeat\ndata: \n\n"}
_FEEDS = ("normal", "longpoll", "continuous", "eventsource")


@dataclass(slots=True)
class Feed:
    """What a request for changes asks for."""

    kind: str
    since: int
    limit: int | None
    descending: bool
    include_docs: bool
    conflicts: bool
    all_leaves: bool
    heartbeat: float | None
    timeout: float
    passing: Passing | None


async def changes(request: Request, database: DatabaseStore) -> Response:
    """``GET`` or ``POST /{db}/_changes``."""
    if request.method not in ("GET", "POST", "HEAD"):
        raise method_not_allowed("GET,POST,HEAD")
    body: dict[str, Any] = {}
    if request.method == "POST":
        request.check_type()
        body = await request.json_object({})
    else:
        await request.body()
    feed = await _read(request, database, body)
    if feed.kind == "normal":
        stream = _normal(request, database, feed)
    elif feed.kind == "longpoll":
        stream = _longpoll(request, database, feed)
    else:
        stream = _endless(request, database, feed)
    first = await anext(stream, None)
    headers = [JSON, MUST_REVALIDATE]
    if feed.kind == "eventsource":
        headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
    return Response(200, b"", headers, _joined(first, stream))


async def _joined(first: bytes | None, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if first is None:
        return
    yield first
    async for piece in rest:
        yield piece


async def _read(request: Request, database: DatabaseStore, body: dict[str, Any]) -> Feed:
    query = request.query
    kind = query.get("feed", "normal")
    if kind == "live":
        kind = "continuous"
    if kind not in _FEEDS:
        raise bad_request("Supported `feed` types: normal, continuous, live, longpoll, eventsource")
    given: Any = query.get("since", 0)
    last_id = request.header(b"last-event-id")
    given = query.get("last-event-id", given)
    if last_id is not None and kind == "eventsource":
        given = last_id
    heartbeat = None
    if "heartbeat" in query:
        if query["heartbeat"] == "true":
            heartbeat = HEARTBEAT
        else:
            heartbeat = _milliseconds(query["heartbeat"], "Invalid heartbeat value. Expecting")
            if heartbeat <= 0:
                raise bad_request("The heartbeat value should be a positive integer (in milliseconds).")
    timeout = TIMEOUT
    if "timeout" in query:
        timeout = min(TIMEOUT, _milliseconds(query["timeout"], "The timeout value should be"))
    style = query.get("style", "main_only")
    if style not in ("main_only", "all_docs"):
        raise bad_request("`style` must be main_only or all_docs")
    limit = request.number("limit")
    return Feed(
        kind=kind,
        since=parse_token(database, given),
        limit=limit,
        descending=request.flag("descending"),
        include_docs=request.flag("include_docs"),
        conflicts=request.flag("conflicts"),
        all_leaves=style == "all_docs",
        heartbeat=heartbeat,
        timeout=timeout,
        passing=await request.app.thread(choose_filter, request, database, body),
    )


def _milliseconds(text: str, complaint: str) -> float:
    try:
        return int(text) / 1000.0
    except ValueError:
        raise bad_request(f"{complaint} a positive integer value (in milliseconds).") from None


def _scan(
    request: Request, database: DatabaseStore, feed: Feed, since: int, upto: int, left: int | None
) -> tuple[list[bytes], list[int], int, bool]:
    """Read and filter one piece.

    Returns:
        The encoded rows, their sequences, how far was read, and whether that was the end.
    """
    passing = feed.passing
    size = _SCAN if left is None or passing is not None else min(_SCAN, left)
    bodies = feed.include_docs or (passing is not None and passing.documents is not None)
    if feed.descending:
        rows = database.changes_rows(0, size, descending=True, bodies=bodies, upto=since)
    else:
        rows = database.changes_rows(since, size, bodies=bodies, upto=upto)
    ended = len(rows) < size
    reached = since
    if rows:
        reached = rows[-1].seq - 1 if feed.descending else rows[-1].seq
    if passing is None:
        kept = [(row, revs_of(row, feed.all_leaves)) for row in rows]
    else:
        kept = passing.choose(database, rows, feed.all_leaves)
    if left is not None and len(kept) >= left:
        kept = kept[:left]
        reached = kept[-1][0].seq if kept else since
    elif ended and not feed.descending:
        reached = max(reached, upto)
    lines = [_line(request, database, feed, row, revs) for row, revs in kept]
    return lines, [row.seq for row, _ in kept], reached, ended


def _line(request: Request, database: DatabaseStore, feed: Feed, row: Row, listed: list[str]) -> bytes:
    revs = b",".join([b'{"rev":"%b"}' % rev.encode() for rev in listed])
    line = b'{"seq":"%b","id":%b,"changes":[%b]' % (token(database, row.seq).encode(), codec.dumps(row.id), revs)
    if row.deleted:
        line += b',"deleted":true'
    if feed.include_docs:
        extra = conflicts(row) if feed.conflicts and row.leaves > 1 else []
        line += b',"doc":' + whole(request, database, row, extra)
    return line + b"}"


async def _pieces(
    request: Request, database: DatabaseStore, feed: Feed, since: int
) -> AsyncIterator[tuple[list[bytes], list[int], int]]:
    """What is there now, in pieces of (rows, their sequences, how far was read)."""
    upto = database.update_seq()
    left = feed.limit
    position = upto if feed.descending else since
    while left != 0:
        found = await _in_thread(request, _scan, request, database, feed, position, upto, left)
        lines, seqs, position, ended = found
        yield lines, seqs, position
        if left is not None:
            left -= len(lines)
            if left <= 0:
                return
        if ended or (not feed.descending and position >= upto):
            return


async def _in_thread(request: Request, function: Any, *arguments: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(request.app.feeds, function, *arguments)


async def _normal(request: Request, database: DatabaseStore, feed: Feed) -> AsyncIterator[bytes]:
    separator = b'{"results":[\n'
    last = feed.since
    async for lines, seqs, reached in _pieces(request, database, feed, feed.since):
        if lines:
            yield separator + b",\n".join(lines)
            separator = b",\n"
        elif separator != b",\n":
            yield separator
            separator = b""
        last = (seqs[-1] if seqs else last) if feed.descending else reached
    yield b'\n],\n"last_seq":"%b","pending":%d}\n' % (
        token(database, last).encode(), await _pending(request, database, feed, last),
    )  # fmt: skip


async def _pending(request: Request, database: DatabaseStore, feed: Feed, last: int) -> int:
    if feed.limit is None or feed.descending:
        return 0
    return await request.app.thread(database.pending, last)


class _Wait:
    """Waits for a commit, or for the end: of the time, of the client, of the database or of the server."""

    def __init__(self, request: Request, database: DatabaseStore, event: asyncio.Event, feed: Feed) -> None:
        self._request = request
        self._database = database
        self._event = event
        self._feed = feed
        self._loop = asyncio.get_running_loop()
        self._gone = False
        self.restart()
        self._watch = asyncio.ensure_future(self._notice())

    async def _notice(self) -> None:
        await self._request.gone()
        self._gone = True
        self._event.set()

    def restart(self) -> None:
        """A row was sent: the time until the next blank line, or until the end, begins again."""
        beat = self._feed.heartbeat
        self._deadline = self._loop.time() + (self._feed.timeout if beat is None else beat)

    def beat(self) -> bool:
        """Whether a blank line is due, for one to be sent while what does not pass the filter is read."""
        if self._feed.heartbeat is None or self._loop.time() < self._deadline:
            return False
        self.restart()
        return True

    async def next(self) -> str:
        """What comes first: "change", "beat" or "end"."""
        left = self._deadline - self._loop.time()
        if self.ended():
            return "end"
        # Asked first, since on a busy database with a filter that nothing passes the event is always set.
        if left <= 0:
            return self._timed_out()
        try:
            await asyncio.wait_for(self._event.wait(), left)
        except TimeoutError:
            return self._timed_out()
        self._event.clear()
        return "end" if self.ended() else "change"

    def _timed_out(self) -> str:
        if self._feed.heartbeat is None:
            return "end"
        self.restart()
        return "beat"

    def ended(self) -> bool:
        """Whether nobody is there any more, or nothing to tell about."""
        return self._gone or self._database.closed or self._request.app.closing

    def close(self) -> None:
        """Stop looking out for the client."""
        self._watch.cancel()


async def _longpoll(request: Request, database: DatabaseStore, feed: Feed) -> AsyncIterator[bytes]:
    head = b'{"results":[\n'
    async with database.watching() as event:
        wait = _Wait(request, database, event, feed)
        try:
            last = feed.since
            sent = False
            while True:
                async for lines, seqs, reached in _guarded(request, database, feed, last):
                    if lines:
                        yield head + (b",\n" if sent else b"") + b",\n".join(lines)
                        head, sent = b"", True
                    elif wait.beat():
                        yield head + b"\n"
                        head = b""
                    last = (seqs[-1] if seqs else last) if feed.descending else reached
                    if wait.ended():
                        break
                if sent or feed.descending:
                    break
                if head:
                    yield head
                    head = b""
                while (what := await wait.next()) == "beat":
                    yield b"\n"
                if what == "end":
                    break
        finally:
            wait.close()
    pending = 0 if database.closed else await _pending(request, database, feed, last)
    yield head + b'\n],\n"last_seq":"%b","pending":%d}\n' % (token(database, last).encode(), pending)


async def _endless(request: Request, database: DatabaseStore, feed: Feed) -> AsyncIterator[bytes]:
    events = feed.kind == "eventsource"
    async with database.watching() as event:
        wait = _Wait(request, database, event, feed)
        try:
            last = feed.since
            begun = False
            while True:
                async for lines, seqs, reached in _guarded(request, database, feed, last):
                    if lines:
                        yield _join(lines, seqs, database, events)
                        begun = True
                        wait.restart()
                        if feed.limit is not None:
                            feed.limit -= len(lines)
                    elif wait.beat():
                        yield _BEAT[events]
                        begun = True
                    last = (seqs[-1] if seqs else last) if feed.descending else reached
                    if wait.ended():
                        break
                if (feed.limit is not None and feed.limit <= 0) or feed.descending:
                    break
                if not begun:
                    yield b"\n"  # so that the client sees at once that the feed has begun
                    begun = True
                while (what := await wait.next()) == "beat":
                    yield _BEAT[events]
                if what == "end":
                    break
        finally:
            wait.close()
    if not events:
        pending = 0 if database.closed else await _pending(request, database, feed, last)
        yield b'{"last_seq":"%b","pending":%d}\n' % (token(database, last).encode(), pending)


async def _guarded(
    request: Request, database: DatabaseStore, feed: Feed, since: int
) -> AsyncIterator[tuple[list[bytes], list[int], int]]:
    """As :func:`_pieces`, and nothing more once the database has been deleted."""
    try:
        async for piece in _pieces(request, database, feed, since):
            yield piece
    except Problem:
        if not database.closed:
            raise


def _join(lines: list[bytes], seqs: list[int], database: DatabaseStore, events: bool) -> bytes:
    if not events:
        return b"\n".join(lines) + b"\n"
    return b"".join(_event(line, seq, database) for line, seq in zip(lines, seqs, strict=True))


def _event(line: bytes, seq: int, database: DatabaseStore) -> bytes:
    return b'data: %b\nid: "%b"\n\n' % (line, token(database, seq).encode())
