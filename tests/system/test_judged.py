"""Two sites, each with its own database and two pollers, under kills, hangs and cuts at random: all ends right, once.

A short form runs with all the tests. The full size, 3,000 documents of three steps and ten minutes of chaos:

    ORCHESTRATOR_LONG=1 CHAOS_SEED=$RANDOM pytest tests/system/test_judged.py

Against a real CouchDB on this machine, where it makes two databases and some accounts of its own, and removes them:

    COUCHDB_URL=http://admin:password@127.0.0.1:5984 ORCHESTRATOR_LONG=1 pytest tests/system/test_judged.py

``COUCHDB_SITES=centre`` puts only the computing centre's database there: then the embedded server and CouchDB replicate
with each other. ``COUCHDB_KILL`` is a command that kills that server, as ``docker kill couch``, ``COUCHDB_START`` one
that starts it again; without them it is cut off from its pollers instead.
"""

from __future__ import annotations

import json
import os
import random
import shlex
import signal
import subprocess
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import psutil
import pytest
import requests

from orchestrator import roles
from orchestrator.audit.auditor import Auditor
from orchestrator.couch import Credentials, Server
from orchestrator.embedded.testing import Link, ServerCredentials
from orchestrator.errors import DatabaseError
from orchestrator.settings import Settings
from orchestrator.users import Users

from .test_sites import Half

pytestmark = [pytest.mark.system, pytest.mark.timeout(3600)]

SEED = int(os.environ.get("CHAOS_SEED", "20260122"))
#: Minutes of chaos; 1 means the full ten.
LONG = float(os.environ.get("ORCHESTRATOR_LONG", "0"))
MINUTES = 10.0 if LONG == 1 else LONG
SECONDS = MINUTES * 60.0 or 9.0
TOTAL = 3000 if LONG else 90
LEASE = 6.0  # s, of every poller
PASSWORD = "open-sesame-for-a-test"

#: The second and the third step run side by side, each at its own site: their versions are put together by rule.
CHAIN = """
name: judged
sites: {daq: {}, centre: {}}
steps:
  - {name: s0, run: 'sitesteps:mark', settings: {step: 0, seconds: 0.05}, site: daq,
     retries: &often {count: 50, wait: 0.2 s, on: [transient, resources, code]}}
  - {name: s1, run: 'sitesteps:mark', settings: {step: 1, seconds: 0.3}, site: centre, needs: [s0], retries: *often}
  - {name: s2, run: 'sitesteps:mark', settings: {step: 2, seconds: 0.3}, site: daq, needs: [s0], retries: *often}
"""


class RealCouch:
    """A CouchDB that others run, as the tests take a server: `kill` and `restart` by the commands that were given."""

    def __init__(self, given: str, folder: Path) -> None:
        parts = urlsplit(given)
        self.url = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        self.port = parts.port or 5984
        name = os.environ.get("COUCHDB_USER") or unquote(parts.username or "")
        password = os.environ.get("COUCHDB_PASSWORD") or unquote(parts.password or "")
        self.credentials = ServerCredentials(name, password)
        self.credentials_file = folder / "couch.json"
        self.credentials_file.write_text(json.dumps({"username": name, "password": password}))
        self.credentials_file.chmod(0o600)
        self._kill, self._start = os.environ.get("COUCHDB_KILL", ""), os.environ.get("COUCHDB_START", "")

    def kill(self) -> None:
        if self._kill:
            subprocess.run(shlex.split(self._kill), check=True, timeout=60)

    def restart(self) -> None:
        if self._start:
            subprocess.run(shlex.split(self._start), check=True, timeout=60)
        end = time.monotonic() + 60.0
        while time.monotonic() < end:
            with suppress(requests.RequestException):
                if requests.get(f"{self.url}/_up", auth=self.credentials, timeout=5).ok:
                    return
            time.sleep(0.2)
        raise AssertionError("CouchDB does not come back")

    def stop(self) -> None:
        """It is not ours to stop."""


class Place(Half):
    """One site of the two: its database behind a network of its own, its daemons with accounts of their own."""

    def __init__(self, path: Path, name: str, where: str) -> None:
        given = os.environ.get("COUCHDB_URL", "")
        real = bool(given) and name in os.environ.get("COUCHDB_SITES", "daq,centre").split(",")
        database = f"judged-{name}-{uuid.uuid4().hex[:8]}" if real else "runs"
        server: Any = RealCouch(given, path) if real else None
        super().__init__(path / name, name, CHAIN, server, database)
        self.real = real
        self.admin = Server(self.server.url, Credentials(*self.server.credentials), timeout=20.0)
        self.front = Link(self.server.port).__enter__()
        self.made: list[str] = []
        accounts = self.folder / "accounts"
        accounts.mkdir(mode=0o700)
        for daemon, granted in (("poller", roles.site_role(name)), ("replicator", roles.REPLICATOR)):
            self.account(accounts / f"{daemon}.json", granted)
        self.database.set_security({
            "admins": {"roles": [roles.SERVER_ADMIN, roles.ADMIN]},
            "members": {"roles": roles.member_roles(("daq", "centre"))},
        })  # fmt: skip
        self.write(url=self.front.url, accounts=str(accounts), lease=LEASE)
        #: The pollers, by their spools: both in one folder as on one machine, or each in its own as on two.
        self.spools = [self.folder / "spool", self.folder / ("spool" if where == "one" else "spool-2")]
        self.running: dict[int, subprocess.Popen[bytes]] = {}

    def account(self, file: Path, granted: str) -> None:
        name = f"t-{uuid.uuid4().hex[:12]}"
        Users(self.admin).add(name, PASSWORD, [granted])
        self.made.append(name)
        file.write_text(json.dumps({"username": name, "password": PASSWORD}))
        file.chmod(0o600)

    def keep_up(self) -> None:
        """Start every poller that does not run, as a supervisor would."""
        for number, spool in enumerate(self.spools):
            if number not in self.running or self.running[number].poll() is not None:
                self.running[number] = self.start("poll", "--set", f"spool={spool}")

    def audits(self) -> list[dict[str, Any]]:
        """What audits find, one for each spool: as each machine's own."""
        book = str(self.folder / "data" / "effects")
        found: list[dict[str, Any]] = []
        for spool in dict.fromkeys(self.spools):
            settings = Settings.load(self.folder).model_copy(update={"spool": spool, "url": self.server.url})
            auditor = Auditor(
                self.chain, self.database, settings, deep=True, grace=3.0, wait=time.sleep, clock=time.time
            )
            found += auditor.run().to_json()["findings"]
        return [one for one in found if one["subject"] != book]

    def attempts(self) -> dict[str, dict[str, Any]]:
        """The documents of attempts that did not succeed, by attempt."""
        rows = self.database.all_docs(startkey="attempt:", endkey="attempt;", include_docs=True)
        return {row.doc["attempt"]: row.doc for row in rows if row.doc}

    def end(self) -> None:
        self.stop()
        self.front.__exit__(None, None, None)
        if self.real:
            with suppress(DatabaseError):
                self.admin.delete(self.database.name)
                for name in self.made:
                    Users(self.admin).remove(name)
        self.server.stop()


class Pair:
    """Both sites, the link between them, and the chaos."""

    def __init__(self, path: Path, where: str) -> None:
        self.daq, self.centre = Place(path, "daq", where), Place(path, "centre", "two")
        self.link = Link(self.centre.server.port).__enter__()
        there = self.daq.folder / "centre.json"
        self.centre.account(there, roles.REPLICATOR)
        self.daq.write(replicate={
            "centre": {"url": self.link.url, "credentials": there.name, "database": self.centre.database.name}
        })  # fmt: skip
        self.dice = random.Random(SEED)
        self.done: Counter[str] = Counter()
        self.added = 0
        self.hanging: list[tuple[float, subprocess.Popen[bytes]]] = []
        self.watcher: subprocess.Popen[bytes] | None = None

    def halves(self) -> tuple[Place, Place]:
        return self.daq, self.centre

    def keep_up(self) -> None:
        for half in self.halves():
            half.keep_up()
        if self.watcher is None or self.watcher.poll() is not None:
            self.watcher = self.daq.start("replicate", "watch")

    def add(self, count: int) -> None:
        """Register so many more documents, as far as the database takes them."""
        first, last = self.added, min(TOTAL, self.added + count)
        made = [
            {
                "_id": f"r{n // 100:03d}_{n % 100:03d}", "type": "daqdocument", "run_name": f"r{n // 100:03d}",
                "file_number": n % 100, "status": "closed", "file": f"/raw/{n}", "hostname": "daq1", "site": "daq",
            }
            for n in range(first, last)
        ]  # fmt: skip
        if made:
            with suppress(DatabaseError):  # what was stored all the same is a conflict the next time
                self.daq.database.bulk(made)
                self.added = last

    # --- mischief, one method each ---

    def kill_poller(self) -> None:
        victim = self.dice.choice(list(self.dice.choice(self.halves()).running.values()))
        victim.kill()
        victim.wait()

    def kill_worker(self) -> None:
        victim = self.dice.choice(list(self.dice.choice(self.halves()).running.values()))
        with suppress(psutil.Error, IndexError):
            children = psutil.Process(victim.pid).children()
            self.dice.choice([one for one in children if "orchestrator.worker" in one.cmdline()]).kill()

    def hang_poller(self) -> None:
        """It hangs beyond its lease, and goes on as if nothing had been."""
        victim = self.dice.choice(list(self.dice.choice(self.halves()).running.values()))
        if victim.poll() is None:
            os.kill(victim.pid, signal.SIGSTOP)
            self.hanging.append((time.monotonic() + self.dice.uniform(0.5, 2.0) * LEASE, victim))

    def wake(self, *, everyone: bool = False) -> None:
        """Let those go on that have hung for their time."""
        for until, victim in list(self.hanging):
            if everyone or until < time.monotonic():
                self.hanging.remove((until, victim))
                if victim.poll() is None:
                    os.kill(victim.pid, signal.SIGCONT)

    def kill_watcher(self) -> None:
        assert self.watcher is not None
        self.watcher.kill()
        self.watcher.wait()

    def kill_database(self) -> None:
        half = self.dice.choice(self.halves())
        if half.real and not os.environ.get("COUCHDB_KILL"):
            self.cut(half.front, 3.0)
            return
        half.server.kill()
        time.sleep(self.dice.uniform(0.0, 2.0))
        half.server.restart()

    def cut_link(self) -> None:
        self.cut(self.link, 4.0)

    def cut_pollers_off(self) -> None:
        self.cut(self.dice.choice(self.halves()).front, 3.0)

    def stall_link(self) -> None:
        link = self.dice.choice([self.link, self.daq.front, self.centre.front])
        link.stall()
        time.sleep(self.dice.uniform(0.3, 4.0))
        link.mend()

    def cut(self, link: Link, most: float) -> None:
        link.cut()
        time.sleep(self.dice.uniform(0.2, most))
        link.mend()

    def chaos(self) -> None:
        """Kills, hangs and cuts until the time is over, while documents come."""
        mischief = {
            self.kill_poller: 5, self.kill_worker: 4, self.hang_poller: 1, self.kill_watcher: 1, self.kill_database: 3,
            self.cut_link: 3, self.cut_pollers_off: 2, self.stall_link: 1,
        }  # fmt: skip
        began = time.monotonic()
        hat: list[Callable[[], None]] = []
        while (past := time.monotonic() - began) < SECONDS:
            self.keep_up()
            self.wake()
            self.add(int(TOTAL * min(1.0, past / (0.9 * SECONDS))) - self.added)
            time.sleep(self.dice.uniform(0.2, 1.2))
            if not hat:  # drawn without putting back, so that a short run too has some of each
                hat = [what for what, often in mischief.items() for _ in range(often)]
                self.dice.shuffle(hat)
            what = hat.pop()
            what()
            self.done[what.__name__] += 1
        self.wake(everyone=True)
        while self.added < TOTAL:
            self.add(TOTAL)
        self.keep_up()

    # --- the end ---

    def over(self) -> bool:
        """Whether both databases say the same, every document is good, and nothing is in conflict."""
        self.keep_up()
        if not all(half.finished() for half in self.halves()):
            return False
        here, there = (half.everything() for half in self.halves())
        through = all(
            document["status"] == "good" and all(step.key in document for step in self.daq.chain.steps)
            for document in here.values()
        )
        return through and here == there and not any(half.conflicts() for half in self.halves())

    def end(self) -> None:
        for half in self.halves():
            half.end()
        self.link.__exit__(None, None, None)


@pytest.fixture
def make_pair(tmp_path: Path) -> Iterator[Callable[[str], Pair]]:
    made: list[Pair] = []

    def make(where: str) -> Pair:
        made.append(Pair(tmp_path, where))
        return made[-1]

    yield make
    for pair in made:
        pair.end()


def test_two_sites_under_kills_and_cuts_do_everything_once(make_pair: Callable[[str], Pair]) -> None:
    pair = make_pair("one" if SEED % 2 else "two")
    pair.chaos()
    pair.daq.wait(pair.over, 120 + SECONDS, "both sites to have finished")
    here, there = (half.everything() for half in pair.halves())
    assert len(here) == TOTAL
    assert here == there
    records = pair.daq.attempts()
    steps = {step.key: step for step in pair.daq.chain.steps}

    # Every run of a step is accounted for, by the document or by an attempt's, and counts close.
    for half in pair.halves():
        effects = half.effects()
        assert len({attempt for _, _, attempt in effects}) == len(effects), "one attempt ran twice"
        for name, number, attempt in effects:
            entry = here[name][f"proc{number}"]
            known = records.get(attempt)
            assert entry["attempt"] == attempt or (known is not None and known["document"] == name), (name, attempt)
    ran = Counter(attempt for half in pair.halves() for _, _, attempt in half.effects())
    numbers: dict[tuple[str, str], list[int]] = {}
    for record in records.values():
        assert record["state"] in ("lost", "failed"), record
        numbers.setdefault((record["document"], record["step"]), []).append(record["number"])
    for name, document in here.items():
        assert not {key for key in document if key.startswith("proc")} - set(steps), document
        for key, step in steps.items():
            entry = document[key]
            assert (entry["state"], entry["site"], ran[entry["attempt"]]) == ("done", step.site, 1), document
            assert sorted(numbers.get((name, key), [])) == list(range(1, entry["number"])), (name, key)
            half = pair.daq if step.site == "daq" else pair.centre
            written = (half.folder / "data" / "out" / f"{name}.{step.number}").read_text()
            assert written == entry["attempt"], "the output is not that of the attempt that is recorded"
    assert sum(ran.values()) - 3 * TOTAL <= len(records)
    for half in pair.halves():
        assert half.audits() == []
        assert half.conflicts() == 0
    assert all(daemon.poll() in (None, -signal.SIGKILL) for daemon in [*pair.daq.daemons, *pair.centre.daemons])
    print(f"seed {SEED}: {dict(pair.done)}; {len(records)} attempts lost, {sum(ran.values()) - 3 * TOTAL} ran twice")
