"""What only the store in the database has: outages, other people's databases, files, forms of documents."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.couch import Credentials, Database, Server
from orchestrator.embedded.testing import EmbeddedServer
from orchestrator.errors import DataError, Refused, TransientError, Unavailable
from orchestrator.online.packing import packed
from orchestrator.online.spill import Spill
from orchestrator.online.store import Outcome, RunRecord
from orchestrator.online.stores.couch import LONGEST_ERROR, CouchStores
from orchestrator.online.stores.files import SpillFiles
from orchestrator.online.stores.memory import MemoryStores
from orchestrator.online.stores.served import ServedStores, StoreServer


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path_factory.mktemp("database")) as found:
        yield found


def stores_of(process: EmbeddedServer, folder: Path, prefix: str = "spills") -> CouchStores:
    server = Server(process.url, Credentials(*process.credentials), timeout=5)
    return CouchStores(server, prefix, SpillFiles(folder / "spills"), 40_000)


@pytest.fixture
def stores(shared: EmbeddedServer, tmp_path: Path) -> CouchStores:
    return stores_of(shared, tmp_path, f"s{uuid.uuid4().hex[:12]}")


def outcome(number: int, size: int = 10) -> Outcome:
    return Outcome(number, packed(Spill("6008", number, data={"a": np.arange(size, dtype=np.uint8)})))


def test_what_was_put_survives_the_server_and_followers_go_on_after_an_outage(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path / "database") as process:
        _outage(stores_of(process, tmp_path), process)


def _outage(stores: CouchStores, process: EmbeddedServer) -> None:
    store = stores.of("6008")
    store.save(RunRecord("6008"))
    seen: list[int] = []
    stop = threading.Event()

    def follow() -> None:
        for arrivals in stores.of("6008").follow(None, wait=stop.wait):
            seen.extend(one.number for one in arrivals.outcomes)

    thread = threading.Thread(target=follow)
    thread.start()
    store.put([outcome(0), outcome(1, 20_000), outcome(2, 300_000)])
    _until(lambda: set(seen) == {0, 1, 2})
    process.kill()
    with pytest.raises(Unavailable):
        store.put([outcome(3)])
    with pytest.raises(Unavailable):
        store.save(RunRecord("6008"))
    process.restart()
    assert store.put([outcome(n) for n in range(6)]) == 3
    _until(lambda: set(seen) == set(range(6)))
    stop.set()
    thread.join(20)
    assert not thread.is_alive()


def test_databases_of_others_are_neither_listed_nor_dropped(stores: CouchStores) -> None:
    server = stores.server
    theirs = {f"{stores.prefix}-notes", f"{stores.prefix}-7", f"{stores.prefix}x"}
    for name in theirs:
        server.create(name)
    server.database(f"{stores.prefix}-7").put({"_id": "run", "type": "online run", "record": {"run": "8"}})
    server.database(f"{stores.prefix}-notes").put({"_id": "run", "text": "mine"})
    assert stores.runs() == []
    for run in ("notes", "7"):
        with pytest.raises(Refused, match="it stays"):
            stores.of(run).drop()
    assert theirs <= set(server.databases())


def test_records_that_have_not_changed_are_not_read_again(stores: CouchStores, monkeypatch: pytest.MonkeyPatch) -> None:
    for run in "123":
        stores.of(run).save(RunRecord(run))
    asked: list[str] = []
    original = Database.get

    def counted(self: Database, doc_id: str, **params: object) -> object:
        asked.append(self.name)
        return original(self, doc_id, **params)

    monkeypatch.setattr(Database, "get", counted)
    assert [one.run for one in stores.runs()] == ["1", "2", "3"] and len(asked) == 3
    asked.clear()
    assert len(stores.runs()) == 3 and not asked
    CouchStores(stores.server, stores.prefix, stores.files).of("2").save(RunRecord("2", "ended"))
    asked.clear()
    assert [one.state for one in stores.runs()] == ["begun", "ended", "begun"]
    assert asked == [f"{stores.prefix}-2"]
    stores.of("1").drop()
    assert [one.run for one in stores.runs()] == ["2", "3"]


def test_spills_are_documents_attachments_or_files_by_their_size(stores: CouchStores, tmp_path: Path) -> None:
    store = stores.of("6008")
    store.save(RunRecord("6008"))
    store.put([outcome(0), outcome(1, 20_000), outcome(2, 300_000)])
    database = stores.server.database(f"{stores.prefix}-6008")
    small, middle, big = (database.get(f"spill:{number:09d}") for number in range(3))
    assert "data" in small and "_attachments" not in small
    assert middle["_attachments"]["spill"]["length"] > 20_000 and "data" not in middle
    path = tmp_path / "spills" / "6008" / big["file"]["name"]
    assert path.stat().st_size == big["file"]["size"]
    store.drop()
    assert not path.exists() and f"{stores.prefix}-6008" not in stores.server.databases()


def test_a_file_that_is_gone_or_changed_is_a_failed_spill_so_that_the_run_still_closes(
    stores: CouchStores, tmp_path: Path
) -> None:
    store = stores.of("6008")
    store.save(RunRecord("6008"))
    store.put([outcome(0, 300_000), outcome(1, 300_000)])
    first, second = sorted((tmp_path / "spills" / "6008").iterdir())
    first.unlink()
    second.write_bytes(second.read_bytes()[:-1] + b"?")
    found: dict[int, Outcome] = {}
    for arrivals in store.follow(None, wait=lambda _: False):
        found.update({one.number: one for one in arrivals.outcomes})
        if len(found) == 2:
            break
    assert "cannot be read" in found[0].error and "is not what was written" in found[1].error
    with pytest.raises(DataError):
        store.spill(0)


def test_a_reference_in_a_document_leads_nowhere_else(stores: CouchStores, tmp_path: Path) -> None:
    (tmp_path / "spills" / "6008").mkdir(parents=True)
    (tmp_path / "secret").write_text("x")
    for name in ("../../secret", "/etc/passwd", "", None, "000000000-0123456789abcdef.spill/../../../secret"):
        with pytest.raises(DataError):
            stores.files.read("6008", {"name": name, "size": 1, "sha256": ""})


def test_a_full_disk_is_a_passing_fault(tmp_path: Path) -> None:
    (tmp_path / "spills").write_text("in the way")
    with pytest.raises(TransientError, match="Make room"):
        SpillFiles(tmp_path / "spills").write("1", [(0, b"x")])


def test_a_memory_whose_large_spills_find_no_room_has_them_all_when_there_is_room_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = SpillFiles(tmp_path / "large")
    store = MemoryStores(files, inline=100).of("1")
    store.save(RunRecord("1"))
    kept, full = SpillFiles.write, [True, False, True, True, False, False]

    def write(self: SpillFiles, *given: Any, **more: Any) -> Any:
        if full and full.pop():
            raise TransientError("no room")
        return kept(self, *given, **more)

    monkeypatch.setattr(SpillFiles, "write", write)
    spills = [outcome(number, size=1000) for number in range(4)]
    for _ in range(5):
        with contextlib.suppress(TransientError):
            store.put(spills)
    assert sorted(store.numbers()) == [0, 1, 2, 3]
    came = next(store.follow(None, wait=lambda seconds: True)).outcomes
    assert {one.number: one.packed for one in came} == {one.number: one.packed for one in spills}
    assert [one.number for one in map(store.spill, range(4)) if one is not None] == [0, 1, 2, 3]


def test_a_file_that_could_not_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("orchestrator.online.stores.files.os.fsync", refuse)
    with pytest.raises(TransientError, match="No space left"):
        SpillFiles(tmp_path).write("1", [(0, b"content")])
    assert list((tmp_path / "1").iterdir()) == []


def test_a_long_trace_keeps_its_end(stores: CouchStores) -> None:
    store = stores.of("6008")
    store.save(RunRecord("6008"))
    store.put([Outcome(0, None, "x" * 10**6 + "ValueError: here")])
    error = stores.server.database(f"{stores.prefix}-6008").get("spill:000000000")["error"]
    assert len(error) == LONGEST_ERROR and error.endswith("ValueError: here")


def test_two_who_write_the_record_lose_nothing_of_it(stores: CouchStores) -> None:
    one, two = stores.of("6008"), CouchStores(stores.server, stores.prefix, stores.files).of("6008")
    one.save(RunRecord("6008", done=1))
    two.save(RunRecord("6008", done=2))
    one.save(RunRecord("6008", done=3))
    two.save(RunRecord("6008", state="final", snapshot="2026-01-01T00:00:00Z"))
    one.save(RunRecord("6008", state="ended", done=5))
    found = one.record()
    assert found is not None and (found.state, found.done, found.snapshot) == ("final", 5, "2026-01-01T00:00:00Z")


def test_large_spills_of_a_memory_wait_in_files_that_go_with_it(tmp_path: Path) -> None:
    files = SpillFiles(tmp_path / "memory")
    stores = MemoryStores(files, 1000)
    stores.of("1").save(RunRecord("1"))
    stores.of("1").put([outcome(0), outcome(1, 5000)])
    assert len(list((tmp_path / "memory" / "1").iterdir())) == 1
    spill = stores.of("1").spill(1)
    assert spill is not None and len(spill.data["a"]) == 5000
    MemoryStores(files, 1000)  # the next process: what the one before had in memory is gone
    assert files.runs() == []
    arrivals = next(iter(stores.of("1").follow(None, wait=lambda _: True)))
    assert arrivals.outcomes[1].failed and "cannot be read" in arrivals.outcomes[1].error


def test_a_process_that_served_its_memory_and_died_is_said_to_be_away(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100) / "store.sock"
    server = StoreServer(MemoryStores(), deep)
    stores = ServedStores(deep)
    store = stores.of("6008")
    store.save(RunRecord("6008"))
    assert oct(deep.stat().st_mode & 0o777) == "0o600"
    server.close()
    with pytest.raises(Unavailable, match="Is it running"):
        store.put([outcome(1)])
    arrivals = store.follow(None, wait=lambda _: False)
    assert next(arrivals).outcomes == ()
    with StoreServer(MemoryStores(), deep):
        stores.of("6008").save(RunRecord("6008"))
        assert store.put([outcome(1)]) == 1
        end = time.monotonic() + 20
        while not (found := next(arrivals).outcomes):
            assert time.monotonic() < end
        assert found[0].number == 1
        arrivals.close()  # type: ignore[attr-defined]


def _until(condition: object) -> None:
    end = time.monotonic() + 20
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.01)
