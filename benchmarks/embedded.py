"""How fast the embedded database is, and what flushing each commit to the disk costs.

    python benchmarks/embedded.py [normal|full ...]

Starts a server of its own in a temporary folder for each way to synchronise. Documents are of about 200 bytes. The
clients run on the same cores as the server, so the figures are those of the whole machine.
"""

from __future__ import annotations

import base64
import http.client
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

from orchestrator.embedded.testing import EmbeddedServer

DOCUMENTS = 20_000
BULK = 500
PUTS = 1_500  # by each client
TEXT = "x" * 150
GUARD = "function (doc, old) { if (old && doc.n < old.n) { throw({forbidden: 'backwards'}); } }"


class Client:
    """A keep-alive connection that does nothing beyond what is measured."""

    def __init__(self, port: int, auth: tuple[str, str]) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port)
        login = base64.b64encode(":".join(auth).encode()).decode()
        self._headers = {"Authorization": f"Basic {login}", "Content-Type": "application/json"}

    def ask(self, method: str, path: str, body: Any = None) -> bytes:
        """One request; the body of its answer."""
        sent = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        self._connection.request(method, path, sent, self._headers)
        answer = self._connection.getresponse()
        data = answer.read()
        if answer.status >= 400:
            raise RuntimeError(f"{method} {path}: {answer.status} {data[:200]!r}")
        return data


def put_many(port: int, auth: tuple[str, str], name: str) -> None:
    """What one of several clients does."""
    client = Client(port, auth)
    for number in range(PUTS):
        client.ask("PUT", f"/bench/{name}-{number}", {"n": number, "text": TEXT})


def timed(label: str, count: int, work: Callable[[], Any]) -> Any:
    """Do something and print how many a second."""
    began = time.monotonic()
    result = work()
    print(f"  {label:<42}{count / (time.monotonic() - began):>12,.0f} /s", flush=True)
    return result


def bulks(documents: list[dict[str, Any]]) -> Iterator[bytes]:
    """Requests of ``BULK`` documents."""
    for start in range(0, len(documents), BULK):
        yield json.dumps({"docs": documents[start : start + BULK]}).encode()


def measure(server: EmbeddedServer) -> None:
    """All figures of one server."""
    client = Client(server.port, server.auth)
    client.ask("PUT", "/bench")
    for clients in (1, 4):
        workers = [
            multiprocessing.Process(target=put_many, args=(server.port, server.auth, f"p{clients}-{number}"))
            for number in range(clients)
        ]

        def race(workers: list[multiprocessing.Process] = workers) -> None:
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()

        timed(f"PUT of one document, {clients} client(s)", clients * PUTS, race)
    for guarded in (False, True):
        name = "/guarded" if guarded else "/plain"
        client.ask("PUT", name)
        if guarded:
            client.ask("PUT", f"{name}/_design/guard", {"validate_doc_update": GUARD})
        how = ", validated" if guarded else ""
        documents: list[dict[str, Any]] = [
            {"_id": f"d{number:06d}", "n": number, "text": TEXT} for number in range(DOCUMENTS)
        ]
        for label in ("insert", "update"):
            bodies = list(bulks(documents))

            def send(bodies: list[bytes] = bodies, name: str = name) -> list[bytes]:
                return [client.ask("POST", f"{name}/_bulk_docs", body) for body in bodies]

            answers = timed(f"bulk {label}, {BULK} at a time{how}", DOCUMENTS, send)
            rows = [row for answer in answers for row in json.loads(answer)]
            for document, row in zip(documents, rows, strict=True):
                document["_rev"] = row["rev"]
    names = [f"d{number:06d}" for number in range(DOCUMENTS)]
    keys = [json.dumps({"keys": names[start : start + BULK]}).encode() for start in range(0, DOCUMENTS, BULK)]
    path = "/plain/_all_docs?include_docs=true"
    timed("read by keys, with documents", DOCUMENTS, lambda: [client.ask("POST", path, body) for body in keys])
    timed("_all_docs, with documents", DOCUMENTS, lambda: client.ask("GET", path))
    timed("_changes", DOCUMENTS, lambda: client.ask("GET", "/plain/_changes"))
    timed("_changes, with documents", DOCUMENTS, lambda: client.ask("GET", "/plain/_changes?include_docs=true"))
    selector = {"selector": {"n": {"$gt": 10}}}
    timed("_changes, _selector", DOCUMENTS, lambda: client.ask("POST", "/plain/_changes?filter=_selector", selector))
    timed("GET of one document, 1 client", PUTS, lambda: [client.ask("GET", "/plain/d000001") for _ in range(PUTS)])


def main() -> None:
    """Measure each way to synchronise."""
    for synchronous in sys.argv[1:] or ["normal", "full"]:
        print(f"synchronous={synchronous}")
        with tempfile.TemporaryDirectory() as folder, EmbeddedServer(folder, synchronous=synchronous) as server:
            measure(server)


if __name__ == "__main__":
    main()
