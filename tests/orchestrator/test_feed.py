"""The feed of a daemon: what has changed comes, what steers it is told apart, and a fault leaves nobody deaf."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from orchestrator import feed as module
from orchestrator.couch import Credentials, Database, Server
from orchestrator.embedded.testing import EmbeddedServer
from orchestrator.errors import NotFound
from orchestrator.feed import Feed

GOOD = {"status": "good"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with EmbeddedServer(tmp_path_factory.mktemp("database")) as embedded:
        yield Server(embedded.url, Credentials(*embedded.credentials))


@pytest.fixture
def database(server: Server) -> Database:
    name = f"feed-{uuid.uuid4().hex}"
    server.create(name)
    return server.database(name)


@pytest.fixture
def rung(database: Database) -> Iterator[tuple[Feed, threading.Event]]:
    """A feed of good documents that `steer` steers, not started, and what its ring sets."""
    bell = threading.Event()
    made = Feed(database, [GOOD], "steer", lambda found: bell.set())
    yield made, bell
    made.close()


def wait(done: Callable[[], Any], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.01)


def names(feed: Feed) -> list[str]:
    return [document["_id"] for batch in feed.take() for document in batch]


def test_what_matches_comes_and_rings(rung: tuple[Feed, threading.Event], database: Database) -> None:
    feed, bell = rung
    assert feed.since is None and not feed.connected and not feed.waits()
    feed.start(str(database.info()["update_seq"]))
    feed.start("0")  # nothing: it has been started
    database.bulk([{"_id": "a", "status": "good"}, {"_id": "b", "status": "bad"}])
    assert bell.wait(20)
    wait(feed.waits)
    assert names(feed) == ["a"]
    assert feed.connected and not feed.waits() and feed.take() == []


def test_what_steers_is_told_apart_also_where_it_is_deleted(
    rung: tuple[Feed, threading.Event], database: Database
) -> None:
    feed, bell = rung
    assert feed.steered, "nobody has looked yet"
    feed.steered = False
    feed.start("0")
    rev = database.put({"_id": "steer"})
    wait(lambda: feed.steered)
    feed.steered = False
    database.delete({"_id": "steer", "_rev": rev})
    wait(lambda: feed.steered)
    assert bell.is_set()


def test_a_fault_of_the_thread_does_not_leave_it_deaf(
    rung: tuple[Feed, threading.Event], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FAULT_WAIT", 0.05)
    feed, _ = rung
    follow, broken = feed._follow, iter([True])

    def once() -> None:
        if next(broken, False):
            raise ZeroDivisionError("a bug")
        follow()

    monkeypatch.setattr(feed, "_follow", once)
    feed.start("0")
    database.put({"_id": "new", "status": "good"})
    wait(feed.waits)
    assert names(feed) == ["new"] and feed.fault is None


def test_a_database_that_goes_is_said_and_rings_once_more(
    rung: tuple[Feed, threading.Event], database: Database, server: Server
) -> None:
    feed, bell = rung
    feed.start("0")
    wait(lambda: feed.connected)
    server.delete(database.name)
    assert bell.wait(20)
    assert isinstance(feed.fault, NotFound)


def test_a_loop_that_is_behind_makes_the_feed_wait_and_loses_nothing(
    rung: tuple[Feed, threading.Event], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed, _ = rung
    monkeypatch.setattr(module, "LOOK", 0.02)
    feed.start("0")
    expected = [f"d{n}" for n in range(3 * module.QUEUE)]
    for name in expected:
        database.put({"_id": name, "status": "good"})
        time.sleep(0.02)  # so that they come in batches of their own
    found: list[str] = []
    wait(lambda: found.extend(names(feed)) or len(found) == len(expected))
    assert sorted(found) == sorted(expected)
