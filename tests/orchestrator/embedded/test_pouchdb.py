"""Replication with an implementation by other people: PouchDB's server, which keeps CouchDB's protocol.

Whatever happens to documents at both ends, and whichever end replicates, both have the same leaves in the end: the same
revisions, bodies, deletions and attachments, and thus the same winners.
"""

from __future__ import annotations

import base64
import os
import random
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import requests

from orchestrator.embedded.testing import EmbeddedServer

INSTALL = Path(__file__).parents[3] / "deploy" / "pouchdb"
FOLDER = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "couch-orchestrator" / "pouchdb"
#: Odd ones among them: each has to be quoted in every request of a replication.
NAMES = ["a", "b", "c", "run 1/sub", "ü+%", "100%25", "d?x=1&y#z", "emoji-🦆"]

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(
        shutil.which("node") is None or not (FOLDER / "installed").exists(),
        reason="needs PouchDB's server, by npm: sh deploy/pouchdb/install.sh",
    ),
]


class Pouch:
    """PouchDB's server in a process of its own, with its databases in a folder."""

    auth = ("admin", "cave-of-wonders")

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        folder.mkdir()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.process = subprocess.Popen(
            ["node", str(INSTALL / "server.js"), str(self.folder), str(self.port)],
            cwd=FOLDER, stdout=subprocess.PIPE, text=True, env={**os.environ, "PASSWORD": self.auth[1]},
        )  # fmt: skip
        assert self.process.stdout is not None
        words = self.process.stdout.readline().split()
        assert words[:1] == ["port"], words
        self.port = int(words[1])

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


class End:
    """A database at one of the two servers."""

    def __init__(self, server: EmbeddedServer | Pouch, name: str) -> None:
        self.server, self.name = server, name
        assert self.ask("PUT").status_code == 201

    def ask(self, method: str, name: str = "", rest: str = "", **options: Any) -> requests.Response:
        path = f"/{quote(name, safe='')}" if name else ""
        options.setdefault("timeout", 60)
        return requests.request(
            method, f"{self.server.url}/{self.name}{path}{rest}", auth=self.server.auth,
            headers={"Accept": "application/json", **options.pop("headers", {})}, **options,
        )  # fmt: skip

    def leaves(self, name: str) -> dict[str, dict[str, Any]]:
        """All leaves of a document, by revision."""
        answer = self.ask("GET", name, params={"open_revs": "all", "revs": "true"})
        found = {row["ok"]["_rev"]: row["ok"] for row in answer.json()} if answer.status_code == 200 else {}
        for document in found.values():
            for attachment in document.get("_attachments", {}).values():
                for beside in ("stub", "follows", "revpos", "encoding", "encoded_length", "data"):
                    attachment.pop(beside, None)
        return found

    def end(self) -> dict[str, Any]:
        """This database as an end of the embedded server's replication."""
        name, password = self.server.auth
        url = f"{self.server.url}/{self.name}"
        return {"url": url, "auth": {"basic": {"username": name, "password": password}}}

    def address(self) -> str:
        """This database as an end of PouchDB's, which knows no other form."""
        name, password = self.server.auth
        return f"http://{name}:{password}@{urlsplit(self.server.url).netloc}/{self.name}"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EmbeddedServer, Pouch]]:
    folder = tmp_path_factory.mktemp("servers")
    pouch = Pouch(folder / "pouch")
    pouch.start()
    try:
        with EmbeddedServer(folder / "embedded") as embedded:
            yield embedded, pouch
    finally:
        pouch.kill()


@pytest.fixture
def ends(servers: tuple[EmbeddedServer, Pouch]) -> tuple[End, End]:
    """The same database at both servers; the embedded one is the first."""
    name = f"runs-{uuid.uuid4().hex}"
    return End(servers[0], name), End(servers[1], name)


def embedded_replicates(source: End, target: End, embedded: End) -> None:
    body = {"source": source.end(), "target": target.end()}
    answer = requests.post(embedded.server.url + "/_replicate", json=body, auth=embedded.server.auth, timeout=120)
    assert answer.status_code == 200, answer.text
    assert answer.json()["history"][0]["doc_write_failures"] == 0, answer.text


def pouch_replicates(source: End, target: End, embedded: End) -> None:
    pouch = target if source is embedded else source
    body = {"source": source.address(), "target": target.address()}
    answer = requests.post(pouch.server.url + "/_replicate", json=body, auth=pouch.server.auth, timeout=120)
    assert answer.status_code == 200, answer.text
    assert answer.json()["doc_write_failures"] == 0, answer.text


def change(end: End, dice: random.Random) -> None:
    """One thing that can happen to a document: made, edited on any of its branches, deleted, given attachments."""
    name = dice.choice(NAMES)
    leaves = end.leaves(name)
    body = {"n": dice.randrange(1000), "by": "ünï", "list": [None, True, 1.5, {"x": "\u2028"}], "at": end.server.port}
    alive = [revision for revision, document in leaves.items() if not document.get("_deleted")]
    revision = {"_rev": dice.choice(alive)} if alive else {}
    what = dice.random()
    if what < 0.2 and alive:
        assert end.ask("DELETE", name, params={"rev": revision["_rev"]}).status_code == 200
        return
    files = leaves[revision["_rev"]].get("_attachments", {}) if alive else {}
    body["_attachments"] = {key: {**entry, "stub": True} for key, entry in files.items()}
    if what < 0.5:
        kind = dice.choice(["application/octet-stream", "text/plain"])
        content = base64.b64encode(dice.randbytes(3000)).decode()
        body["_attachments"][dice.choice(["a b/ü.bin", "trace.root"])] = {"content_type": kind, "data": content}
    if not body["_attachments"]:
        del body["_attachments"]  # PouchDB keeps an empty one, CouchDB does not
    assert end.ask("PUT", name, json={**body, **revision}).status_code == 201


@pytest.mark.parametrize("seed", range(4))
def test_both_ends_have_the_same_leaves_whatever_happens_and_whoever_replicates(
    ends: tuple[End, End], seed: int
) -> None:
    dice = random.Random(seed)
    embedded, pouch = ends
    for _ in range(4):
        for _ in range(12):
            change(dice.choice(ends), dice)
        for source, target in dice.sample([(embedded, pouch), (pouch, embedded)], 2):
            dice.choice([embedded_replicates, pouch_replicates])(source, target, embedded)
    embedded_replicates(embedded, pouch, embedded)
    pouch_replicates(pouch, embedded, embedded)
    conflicts = 0
    for name in NAMES:
        here, there = embedded.leaves(name), pouch.leaves(name)
        assert here.keys() == there.keys()
        for revision in here:
            assert here[revision] == there[revision]
        conflicts += len([1 for document in here.values() if not document.get("_deleted")]) > 1
        winners = [end.ask("GET", name) for end in ends]
        assert winners[0].status_code == winners[1].status_code
        if winners[0].status_code != 200:
            continue
        first, second = (answer.json() for answer in winners)
        assert first["_rev"] == second["_rev"]
        for file in first.get("_attachments", {}):
            contents = [end.ask("GET", name, "/" + quote(file)).content for end in ends]
            assert contents[0] == contents[1]
            assert len(contents[0]) == 3000
    assert conflicts, "no conflict was left: the histories are too tame"


def test_a_continuous_replication_goes_on_after_kill_9_of_pouchdb(tmp_path: Path) -> None:
    pouch = Pouch(tmp_path / "pouch")
    pouch.start()
    try:
        with EmbeddedServer(tmp_path / "embedded") as server:
            here, there = End(server, "runs"), End(pouch, "runs")
            for source, target in ((here, there), (there, here)):
                body = {"source": source.end(), "target": target.end(), "continuous": True}
                asked = requests.post(server.url + "/_replicate", json=body, auth=server.auth, timeout=60)
                assert asked.status_code == 202, asked.text
            for turn in range(3):
                docs = [{"_id": f"{turn}-{n:03d}", "n": n} for n in range(200)]
                assert here.ask("POST", rest="/_bulk_docs", json={"docs": docs}).status_code == 201
                pouch.kill()
                pouch.start()
                assert there.ask("PUT", f"there-{turn}", json={"turn": turn}).status_code == 201
            until(lambda: all(number(end) == 603 for end in (here, there)))
    finally:
        pouch.kill()


def number(end: End) -> int:
    """How many documents there are. PouchDB's own count is not to be relied on after a kill: they are listed."""
    return len(end.ask("GET", "_all_docs").json()["rows"])


def until(condition: Callable[[], bool], seconds: float = 90.0) -> None:
    """Wait for something that must come."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.1)
