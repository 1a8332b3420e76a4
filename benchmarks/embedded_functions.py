"""How fast the embedded server's design functions, views and selectors are on this machine.

    python benchmarks/embedded_functions.py [documents]

Prints one line a figure. Nothing here goes through HTTP: it is what the server itself spends.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestrator.embedded import documents
from orchestrator.embedded.collation import sort_key
from orchestrator.embedded.javascript import DesignFunctions
from orchestrator.embedded.mango import compile_selector
from orchestrator.embedded.store import Store
from orchestrator.embedded.views import Views

ADMIN = {"db": "runs", "name": "admin", "roles": ["_admin"]}
MAP = "function (doc) { if (doc.type === 'daqdocument') { emit([doc.run_name, doc.file_number], doc.size); } }"
GUARD = "function (n, o, u, s) { if (o && o.status === 'good' && n.status === 'closed') { throw({forbidden: 'no'}); } }"
FILTER = "function (doc, req) { return doc.status === req.query.status; }"
DESIGN: dict[str, Any] = {
    "_id": "_design/pages",
    "views": {
        "runs": {"map": MAP, "reduce": "_stats"},
        "status": {"map": "function (doc) { emit([doc.status, doc.run_name, doc.file_number], 1); }", "reduce": "_sum"},
        "daq": {"map": "function (doc) { emit([doc.hostname, doc.status], null); }", "reduce": "_count"},
    },
}


def make(number: int, choose: random.Random) -> dict[str, Any]:
    """A data document as the chain has it, of about 250 bytes."""
    run = f"ma22a{number // 100:05d}"
    return {
        "_id": f"{run}_{number % 100:03d}", "type": "daqdocument", "run_name": run, "file_number": number % 100,
        "file": f"/data/{run}/{run}_{number % 100:03d}", "size": choose.randint(10**6, 10**9), "hostname": "daq1",
        "site": "here", "status": choose.choice(["closed", "good", "bad"]), "header": {"temperature": 0.02},
    }  # fmt: skip


def rate(what: str, count: int, work: Callable[[], Any]) -> None:
    """Print how many a second a piece of work does."""
    started = time.perf_counter()
    work()
    print(f"{what:<50} {count / (time.perf_counter() - started):>12,.0f} /s")


def latency(what: str, work: Callable[[], Any]) -> None:
    """Print the best of five times, in milliseconds."""
    best = float("inf")
    for _round in range(5):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    print(f"{what:<50} {1000 * best:>12.1f} ms")


def main() -> None:
    """Measure and print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    choose = random.Random(1)
    docs = [{**make(number, choose), "_rev": "1-" + 32 * "a"} for number in range(count)]
    functions = DesignFunctions()
    functions.map([MAP], docs[:10])
    rate("map, one function", count, lambda: functions.map([MAP], docs))
    rate("map, ten functions", count, lambda: functions.map([MAP] * 10, docs))
    writes = [(doc, doc, ADMIN, {}) for doc in docs]
    functions.validate([("_design/guard", GUARD)], writes[:10])
    rate("validate_doc_update, in batches", count, lambda: functions.validate([("_design/guard", GUARD)], writes))
    rate("validate_doc_update, one at a time", 2000, lambda: [
        functions.validate([("_design/guard", GUARD)], [write]) for write in writes[:2000]
    ])  # fmt: skip
    rate("JavaScript filter", count, lambda: functions.filter(FILTER, docs, {"query": {"status": "good"}}))
    functions.close()
    matches = compile_selector({"type": "daqdocument", "status": "good"})
    rate("selector of two fields", count, lambda: [matches(doc) for doc in docs])
    rate("collation key of [text, number]", count, lambda: [sort_key([doc["run_name"], doc["size"]]) for doc in docs])

    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "data", synchronous="normal")
        views = Views(lambda: store.functions)
        db = store.create("runs")
        for start in range(0, count, 500):
            db.write([documents.draft(make(number, choose)) for number in range(start, start + 500)], user=ADMIN)

        def ask(name: str, **query: str) -> Any:
            return views.query(db, DESIGN, name, query)

        rate("view build, three maps", count, lambda: ask("runs"))
        latency("reduce of everything (_stats)", lambda: ask("runs"))
        latency("status, group_level=1", lambda: ask("status", group_level="1"))
        latency("daq, group=true", lambda: ask("daq", group="true"))
        latency("runs, group_level=1, limit=50, descending", lambda: ask(
            "runs", group_level="1", limit="50", descending="true"
        ))  # fmt: skip
        latency("a page of 50 rows with documents", lambda: ask(
            "runs", reduce="false", limit="50", skip=str(count // 2), include_docs="true"
        ))  # fmt: skip
        changed = [{**doc, "status": "open"} for doc in db.get_many([doc["_id"] for doc in docs[:500]]).values()]
        db.write([documents.draft(doc) for doc in changed], user=ADMIN)
        rate("view update, 500 changed documents", 500, lambda: ask("status", group_level="1"))
        views.close()
        store.close()


if __name__ == "__main__":
    main()
