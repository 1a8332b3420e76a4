"""The changes follower against a hostile network: real sockets, no waiting."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.couch import Credentials, Database, Follower, Server
from orchestrator.errors import DatabaseError, NotFound, SettingsError, Unauthorised


def follower(database: Database, waits: list[float] | None = None, **options: Any) -> Follower:
    """One that waits in no time, and writes down how long it would have."""

    def wait(seconds: float) -> bool:
        if waits is not None:
            waits.append(seconds)
        return False

    usual: dict[str, Any] = {"since": "0", "timeout": 0.2, "margin": 0.1, "wait": wait, "random": lambda: 1.0}
    return Follower(database, **{**usual, **options})


def collect(feed: Follower, rows: int) -> list[str]:
    """Sequences until so many have come; then the follower is closed."""
    seqs: list[str] = []
    for batch in feed.batches():
        seqs += [change.seq for change in batch.changes]
        if len(seqs) >= rows:
            feed.close()
    return seqs


def longpoll(answers: Any, *rows: bytes, last: str) -> Any:
    lines = b",\n".join(line.strip() for line in rows)
    return answers.chunks(b'{"results":[\n' + lines, b'\n],\n"last_seq":"%s","pending":0}\n' % last.encode())


def test_long_poll_rounds_go_on_from_the_last_sequence(scripted: Any, database: Database, answers: Any) -> None:
    scripted.answers = [
        longpoll(answers, answers.row("1-x"), answers.row("2-x", "b"), last="2-x"),
        longpoll(answers, last="5-y"),
        longpoll(answers, answers.row("6-x"), last="6-x"),
    ]
    feed = follower(database)
    batches = []
    for batch in feed.batches():
        batches.append(batch)
        if len(batches) == 3:
            feed.close()
    assert [[c.id for c in b.changes] for b in batches] == [["a", "b"], [], ["a"]]
    assert [b.last_seq for b in batches] == ["2-x", "5-y", "6-x"], "a quiet round moves the sequence too"
    assert [r.query["since"] for r in scripted.requests] == ["0", "2-x", "5-y"]
    assert scripted.requests[0].query["feed"] == "longpoll" and "heartbeat" not in scripted.requests[0].query
    assert scripted.connections == 1, "the connection is kept"


@pytest.mark.parametrize("mode", ["longpoll", "continuous"])
def test_documents_and_deletions_are_carried_along(scripted: Any, database: Database, answers: Any, mode: Any) -> None:
    rows = [answers.row("1-x", doc={"_id": "a", "n": 1}), answers.row("2-x", "b", deleted=True)]
    scripted.answers = [longpoll(answers, *rows, last="2-x") if mode == "longpoll" else answers.chunks(*rows)]
    feed = follower(database, mode=mode)
    changes = next(batch for batch in feed.batches() if batch.changes).changes
    if len(changes) == 1:
        changes += next(feed.batches()).changes
    assert changes[0].doc == {"_id": "a", "n": 1} and changes[0].revs == ("1-x",)
    assert changes[1].deleted or changes[1].id == "a"
    feed.close()


def test_blank_lines_are_skipped_and_the_end_line_moves_the_sequence(
    scripted: Any, database: Database, answers: Any
) -> None:
    scripted.answers = [
        answers.chunks(b"\n", b"\n\n", answers.row("1-x"), b"\n", b'{"last_seq":"9-z","pending":0}\n'),
        answers.chunks(answers.row("10-x")),
    ]
    assert collect(follower(database, mode="continuous"), 2) == ["1-x", "10-x"]
    assert scripted.requests[1].query["since"] == "9-z"


def test_a_row_cut_into_many_pieces_is_one_row(scripted: Any, database: Database, answers: Any) -> None:
    line = answers.row("1-x", doc={"_id": "a", "text": "größer\u2028"}) + answers.row("2-x")
    scripted.answers = [answers.chunks(*[line[n : n + 3] for n in range(0, len(line), 3)])]
    assert collect(follower(database, mode="continuous"), 2) == ["1-x", "2-x"]


@pytest.mark.parametrize("cut", [b'{"seq":"2-x","id":"b","cha', b'{"seq":"2-x","id":"b","changes":[{"rev":"1-x"}]}'])
@pytest.mark.parametrize("politely", [True, False])
def test_a_half_line_is_discarded_and_read_again(
    scripted: Any, database: Database, answers: Any, cut: bytes, politely: bool
) -> None:
    scripted.answers = [
        answers.chunks(answers.row("1-x"), cut, end=politely),
        answers.chunks(answers.row("2-x", "b"), answers.row("3-x")),
    ]
    waits: list[float] = []
    assert collect(follower(database, waits, mode="continuous"), 3) == ["1-x", "2-x", "3-x"]
    assert scripted.requests[1].query["since"] == "1-x"
    assert len(waits) == 1


def test_a_long_poll_answer_that_is_cut_is_asked_for_again(scripted: Any, database: Database, answers: Any) -> None:
    scripted.answers = [
        answers.chunks(b'{"results":[\n' + answers.row("1-x"), end=False),
        answers.raw(b'HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{"results":['),
        answers.raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"),
        answers.raw(b"ICY what"),
        answers.raw(b""),
        longpoll(answers, answers.row("1-x"), last="1-x"),
    ]
    waits: list[float] = []
    assert collect(follower(database, waits), 1) == ["1-x"]
    assert [r.query["since"] for r in scripted.requests] == ["0"] * 6
    assert waits == [0.25, 0.5, 1, 2, 4], "each wait is twice the last, at the jitter's upper end"


def test_waits_are_jittered_bounded_and_forgotten_after_success(
    scripted: Any, database: Database, answers: Any
) -> None:
    bad = answers.reply({"error": "x", "reason": "down"}, status=503)
    scripted.answers = [*[bad] * 12, longpoll(answers, answers.row("1-x"), last="1-x"), bad, longpoll(
        answers, answers.row("2-x"), last="2-x")]  # fmt: skip
    waits: list[float] = []
    assert collect(follower(database, waits, random=lambda: 0.5), 2) == ["1-x", "2-x"]
    assert waits[:3] == [0.1875, 0.375, 0.75] and max(waits) == 22.5
    assert waits[12] == 0.1875


def test_silence_is_a_broken_connection(scripted: Any, database: Database, answers: Any) -> None:
    scripted.answers = [answers.silence, longpoll(answers, answers.row("1-x"), last="1-x")]
    waits: list[float] = []
    feed = follower(database, waits)
    problems = []
    feed._wait = lambda seconds: problems.append(feed.problem) or False
    assert collect(feed, 1) == ["1-x"]
    assert "nothing came for 0.3 s" in problems[0]
    assert feed.connected


def test_silence_in_the_middle_of_a_feed(scripted: Any, database: Database, answers: Any) -> None:
    stuck = threading.Event()
    scripted.answers = [
        answers.chunks(answers.row("1-x"), b'{"seq":', lambda: stuck.wait(5)),
        answers.chunks(answers.row("2-x")),
    ]
    assert collect(follower(database, mode="continuous"), 2) == ["1-x", "2-x"]
    stuck.set()


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_login_stops_it(scripted: Any, database: Database, answers: Any, status: int) -> None:
    scripted.answers = [answers.reply({"error": "unauthorized", "reason": "Name or password is incorrect."}, status)]
    waits: list[float] = []
    with pytest.raises(Unauthorised, match="password"):
        collect(follower(database, waits), 1)
    assert len(scripted.requests) == 1 and not waits, "five wrong passwords lock the account"


def test_a_deleted_database_ends_it(scripted: Any, database: Database, answers: Any) -> None:
    scripted.answers = [
        answers.chunks(answers.row("1-x"), b'{"last_seq":"1-x","pending":0}\n'),
        answers.reply({"error": "not_found", "reason": "Database does not exist."}, 404),
    ]
    with pytest.raises(NotFound, match="no database 'runs'"):
        collect(follower(database, mode="continuous"), 9)


def test_a_missing_filter_says_what_to_do(scripted: Any, database: Database, answers: Any) -> None:
    scripted.answers = [answers.reply({"error": "not_found", "reason": "missing json key: newproc0"}, 404)]
    with pytest.raises(NotFound, match="couchapp push"):
        collect(follower(database, filter="filters/newproc0"), 1)


def test_a_request_that_the_server_does_not_take_is_not_repeated(
    scripted: Any, database: Database, answers: Any
) -> None:
    scripted.answers = [answers.reply({"error": "bad_request", "reason": "Invalid selector: $wat"}, 400)]
    with pytest.raises(DatabaseError, match=r"\$wat"):
        collect(follower(database, selector={"$wat": 1}), 1)
    with pytest.raises(SettingsError):
        Follower(database, since="0", selector={}, filter="a/b")


def test_a_sequence_that_the_server_does_not_know_is_given_up(
    scripted: Any, database: Database, answers: Any, caplog: pytest.LogCaptureFixture
) -> None:
    scripted.answers = [
        answers.reply({"error": "bad_request", "reason": "Malformed sequence supplied in 'since' parameter."}, 400),
        longpoll(answers, answers.row("1-x"), last="1-x"),
    ]
    assert collect(follower(database, since="77-old"), 1) == ["1-x"]
    assert [r.query["since"] for r in scripted.requests] == ["77-old", "0"]
    assert "does not know 77-old" in caplog.text


def test_a_feed_that_goes_back_is_logged_and_followed(
    scripted: Any, database: Database, answers: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    scripted.answers = [
        longpoll(answers, answers.row("50-x"), last="50-x"),
        longpoll(answers, answers.row("3-y"), last="3-y"),
        longpoll(answers, answers.row("4-y"), last="4-y"),
    ]
    assert collect(follower(database), 3) == ["50-x", "3-y", "4-y"]
    assert "went back from 50-x to 3-y" in caplog.text
    assert scripted.requests[2].query["since"] == "3-y"


def test_a_server_that_ends_quiet_rounds_at_once_is_not_asked_without_end(
    scripted: Any, database: Database, answers: Any
) -> None:
    scripted.answers = [longpoll(answers, last="1-x")]
    waits: list[float] = []
    feed = follower(database, waits)
    for number, _ in enumerate(feed.batches()):
        if number == 5:
            feed.close()
    assert waits == [0.25, 0.5, 1, 2, 4]


def test_a_selector_travels_in_the_body(scripted: Any, database: Database, answers: Any) -> None:
    scripted.answers = [longpoll(answers, answers.row("1-x"), last="1-x")]
    selector = {"status": {"$in": ["closed", "good"]}}
    collect(follower(database, selector=selector, params={"style": "all_docs"}), 1)
    [request] = scripted.requests
    assert request.method == "POST" and json.loads(request.body) == {"selector": selector}
    assert request.query["filter"] == "_selector" and request.query["style"] == "all_docs"
    assert request.headers["content-type"] == "application/json"


def test_the_login_is_sent_as_utf_8(scripted: Any, answers: Any) -> None:
    from base64 import b64decode

    scripted.answers = [longpoll(answers, answers.row("1-x"), last="1-x")]
    database = Server(scripted.url, Credentials("jürgen", "pässwörd✓")).database("runs")
    collect(follower(database), 1)
    sent = scripted.requests[0].headers["authorization"].removeprefix("Basic ")
    assert b64decode(sent).decode() == "jürgen:pässwörd✓"


def test_now_is_a_fixed_point_even_if_the_first_round_fails(scripted: Any, database: Database, answers: Any) -> None:
    scripted.answers = [
        answers.reply({"results": [], "last_seq": "17-x", "pending": 0}),
        answers.raw(b""),
        longpoll(answers, answers.row("18-x"), last="18-x"),
    ]
    assert collect(follower(database, since="now"), 1) == ["18-x"]
    assert [r.query["since"] for r in scripted.requests] == ["now", "17-x", "17-x"]


@pytest.mark.parametrize("mode", ["longpoll", "continuous"])
def test_close_from_another_thread_is_prompt(scripted: Any, database: Database, answers: Any, mode: Any) -> None:
    scripted.answers = [answers.silence] if mode == "longpoll" else [answers.chunks(b"\n", lambda: time.sleep(3))]
    feed = Follower(database, since="0", mode=mode, timeout=50)
    assert not feed.connected
    done = threading.Event()
    thread = threading.Thread(target=lambda: (list(feed.batches()), done.set()), daemon=True)
    thread.start()
    _until(lambda: bool(scripted.requests))
    if mode == "continuous":
        _until(lambda: feed.connected)
    began = time.perf_counter()
    feed.close()
    assert done.wait(1.0), "close must not wait for the server"
    assert time.perf_counter() - began < 0.5
    thread.join()
    assert list(feed.batches()) == []


def test_close_while_it_waits_to_connect_again(scripted: Any, database: Database, answers: Any) -> None:
    scripted.answers = [answers.raw(b"")]
    feed = Follower(database, since="0", random=lambda: 1.0)
    thread = threading.Thread(target=lambda: list(feed.batches()), daemon=True)
    thread.start()
    _until(lambda: len(scripted.requests) >= 3)
    feed.close()
    thread.join(1.0)
    assert not thread.is_alive()


def test_a_row_reaches_the_caller_at_once(scripted: Any, database: Database, answers: Any) -> None:
    sent: list[float] = []
    heard: list[float] = []
    go = [threading.Event() for _ in range(20)]

    def stamp(number: int) -> Callable[[], None]:
        def wait() -> None:
            go[number].wait(2)
            sent.append(time.perf_counter())

        return wait

    parts: list[Any] = []
    for number in range(20):
        parts += [stamp(number), answers.row(f"{number}-x")]
    scripted.answers = [answers.chunks(*parts)]
    feed = follower(database, mode="continuous", timeout=5)
    go[0].set()
    for batch in feed.batches():
        heard.append(time.perf_counter())
        assert len(batch.changes) == 1
        if len(heard) == 20:
            feed.close()
            break
        go[len(heard)].set()
    delays = sorted(b - a for a, b in zip(sent, heard, strict=True))
    assert delays[10] < 0.003, f"median {delays[10] * 1e3:.2f} ms"


def test_rows_that_are_there_already_come_together(scripted: Any, database: Database, answers: Any) -> None:
    block = b"".join(answers.row(f"{n}-x", f"d{n}", doc={"_id": f"d{n}", "n": n}) for n in range(3000))
    scripted.answers = [answers.chunks(*[block[n : n + 5000] for n in range(0, len(block), 5000)])]
    feed = follower(database, mode="continuous")
    sizes = []
    for batch in feed.batches():
        sizes.append(len(batch.changes))
        if sum(sizes) == 3000:
            break
    feed.close()
    assert len(sizes) < 60 and max(sizes) <= 1000


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    count=st.integers(1, 12),
    size=st.integers(1, 90),
    cuts=st.lists(st.integers(0, 900), max_size=4),
    blanks=st.booleans(),
)
def test_wherever_it_is_cut_nothing_is_lost_or_doubled(
    answers: Any, count: int, size: int, cuts: list[int], blanks: bool
) -> None:
    lines = [answers.row(f"{n}-x", f"d{n}", doc={"text": "ü" * n}) + (b"\n" if blanks else b"") for n in range(count)]
    left = list(cuts)

    def feed_from(since: str) -> Any:
        first = 0 if since == "0" else int(since.split("-")[0]) + 1
        data = b"".join(lines[first:])
        cut = left.pop(0) if left else len(data)
        data = data[:cut]
        return answers.chunks(*[data[n : n + size] for n in range(0, len(data), size)], end=not left)

    server = answers.Scripted([lambda sock, server: feed_from(server.requests[-1].query["since"])(sock, server)])
    try:
        got = collect(follower(Server(server.url).database("runs"), mode="continuous"), count)
    finally:
        server.close()
    assert got == [f"{n}-x" for n in range(count)]


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)
