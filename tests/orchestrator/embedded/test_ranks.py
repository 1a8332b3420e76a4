"""How many documents come before an id: always what counting them would give."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from orchestrator.embedded import ranks
from orchestrator.embedded.database import DatabaseStore
from orchestrator.embedded.documents import draft
from orchestrator.embedded.store import Store
from orchestrator.embedded.testing import EmbeddedServer


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DatabaseStore]:
    monkeypatch.setattr(ranks, "SPAN", 4)
    store = Store(tmp_path / "data")
    yield store.create("d")
    store.close()


def change(database: DatabaseStore, choose: random.Random, names: list[str]) -> None:
    """Create, change and delete some documents at random, some of them twice in one bulk."""
    picked = [choose.choice(names) for _ in range(choose.randint(1, 12))]
    known = database.get_many(picked)
    drafts = []
    for name in picked:
        old = known.get(name, {"_id": name})
        drafts.append(draft({**old, "n": choose.random(), **({"_deleted": True} if choose.random() < 0.4 else {})}))
    database.write(drafts)


def check(database: DatabaseStore, names: list[str]) -> None:
    there = sorted(database.get_many(names))
    with database.reading() as connection:
        for name in [*names, "", "\U0010ffff", "ä"]:
            assert database.ranks.before(connection, name) == sum(one < name for one in there), name
    assert database.counters.documents == len(there)


def test_it_is_what_counting_gives_after_any_writes(database: DatabaseStore) -> None:
    choose = random.Random(3)
    names = [f"{choose.choice('aéz')}{n}" for n in range(150)]
    for _round in range(25):
        for _ in range(4):
            change(database, choose, names)
        check(database, names)


def test_writes_while_the_spans_are_made_count_once(database: DatabaseStore) -> None:
    names = [f"d{n:03d}" for n in range(200)]
    ended = threading.Event()

    def write(seed: int) -> None:
        choose = random.Random(seed)
        while not ended.is_set():
            change(database, choose, names)

    writers = [threading.Thread(target=write, args=(seed,)) for seed in range(2)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(60):
            database.ranks._starts = []
            with database.reading() as connection:
                database.ranks.before(connection, "d100")
    finally:
        ended.set()
        for writer in writers:
            writer.join()
    check(database, names)


def test_a_listing_says_the_same_offset_either_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with EmbeddedServer(tmp_path) as server:
        def ask(method: str, path: str, **more: object) -> dict[str, object]:
            answer = requests.request(method, f"{server.url}{path}", auth=server.auth, timeout=30, **more)  # type: ignore[arg-type]
            answer.raise_for_status()
            found: dict[str, object] = answer.json()
            return found

        ask("PUT", "/d")
        count = ranks.FEW + 10
        for start in range(0, count, 5000):
            docs = [{"_id": f"{n:06d}"} for n in range(start, min(start + 5000, count))]
            requests.post(f"{server.url}/d/_bulk_docs", json={"docs": docs}, auth=server.auth, timeout=60)
        for params, offset in (
            ({"startkey": '"000123"'}, 123), ({"startkey": '"000123"', "skip": "7"}, 130), ({}, 0),
            ({"startkey": '"000123x"'}, 124), ({"startkey": '"zz"'}, count), ({"startkey": '"!"'}, 0),
            ({"startkey": '"000123"', "descending": "true"}, count - 124),
            ({"startkey": '"000123x"', "descending": "true"}, count - 124),
            ({"startkey": "null"}, 0), ({"startkey": "[]"}, count), ({"startkey": "{}", "descending": "true"}, 0),
        ):  # fmt: skip
            found = ask("GET", "/d/_all_docs", params={"limit": "1", **params})
            assert (found["offset"], found["total_rows"]) == (offset, count), params
