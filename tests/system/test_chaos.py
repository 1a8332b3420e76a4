"""Everything killed at random, a network that cuts, delays and lies, a chain pushed again: all ends well, once."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from orchestrator import chain as chains
from orchestrator import designs, documents
from orchestrator.couch import Credentials, Server, deploy

pytestmark = pytest.mark.system

#: With another seed the kills fall elsewhere: CHAOS_SEED=$RANDOM pytest tests/system/test_chaos.py
SEED = int(os.environ.get("CHAOS_SEED", "20260122"))
#: ORCHESTRATOR_LONG=10 makes of seconds of chaos minutes, ten of them here.
LONG = float(os.environ.get("ORCHESTRATOR_LONG", "0"))


def span(seconds: float) -> float:
    """How long chaos lasts (s)."""
    return LONG * 60.0 or seconds

REGISTRAR = """
import json, sys, threading
from orchestrator.couch import Credentials, Server
from orchestrator.registrar import Registrar
from procs.register.readers import RawFormat
from procs.register.settings import RegisterSettings
url, name, password, folder = json.loads(sys.argv[1])
formats = {"raw": RawFormat("raw", lambda head: head.startswith(b"RAW"), lambda path: {"n": path.name})}
settings = RegisterSettings(directories=[folder], closed_by=["rename"], events="always", rescan=1, batch=20)
Registrar(Server(url, Credentials(name, password)).database("runs"), settings, formats=formats).run(threading.Event())
"""


def check(site: Any, count: int) -> dict[str, dict[str, Any]]:
    """All documents good, and what lies on the disk is what each one's attempt wrote."""
    found = site.everything()
    states = Counter(document["status"] for document in found.values())
    assert states == {"good": count}, [d for d in found.values() if d["status"] != "good"][:2]
    effects = set(site.effects())
    for name, document in found.items():
        for step in site.chain.steps:
            entry = document[step.key]
            assert entry["state"] == "done"
            assert (name, str(step.number), entry["attempt"]) in effects, "a result of an attempt that never ran"
            written = (site.folder / "data" / "out" / f"{name}.{step.number}").read_text()
            ran = [attempt for who, number, attempt in effects if (who, number) == (name, str(step.number))]
            assert written == entry["attempt"] or (written in ran and len(ran) > 1)
    assert site.amiss() == []
    return found


def doubled(site: Any) -> int:
    """How many runs of a step were more than one: each must be explained by a kill."""
    return sum(times - 1 for times in Counter((name, step) for name, step, _ in site.effects()).values())


def test_kills_of_everything_at_once_lose_nothing(make_site: Callable[..., Any]) -> None:
    site = make_site(seconds=0.01, steps=2, more=", retries: {count: 20, wait: 0.2 s}")
    dice = random.Random(SEED)
    raw = site.folder / "raw"
    raw.mkdir()
    total, written, kills = (3000 if LONG else 300), 0, 0

    def registrar() -> subprocess.Popen[bytes]:
        place = json.dumps([site.server.url, *site.server.credentials, str(raw)])
        with (site.folder / "log-registrar").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", REGISTRAR, place], stdout=log, stderr=log, start_new_session=True
            )
        site.daemons.append(process)
        return process

    register, pollers = registrar(), [site.start("poll"), site.start("poll")]
    end = time.monotonic() + span(15.0)
    while time.monotonic() < end:
        for _ in range(min(12, total - written)):
            part = raw / f"run_{written:04d}.part"
            part.write_bytes(b"RAW" + os.urandom(10))
            part.rename(raw / f"run_{written:04d}")
            written += 1
        time.sleep(dice.uniform(0.2, 0.7))
        kills += 1
        victim = dice.choice(["poller", "poller", "worker", "worker", "database", "registrar"])
        place = dice.randrange(2)
        if victim == "poller":
            pollers[place].kill()
            pollers[place].wait()
            pollers[place] = site.start("poll")
        elif victim == "worker":
            with suppress(psutil.Error, IndexError):
                psutil.Process(pollers[place].pid).children()[0].kill()
        elif victim == "database":
            site.server.kill()
            time.sleep(dice.uniform(0.0, 0.5))
            site.server.restart()
        else:
            register.kill()
            register.wait()
            register = registrar()
        for number, poller in enumerate(pollers):
            if poller.poll() is not None:  # as the supervisor would
                pollers[number] = site.start("poll")
    while written < total:
        (raw / f"run_{written:04d}.part").write_bytes(b"RAW")
        (raw / f"run_{written:04d}.part").rename(raw / f"run_{written:04d}")
        written += 1
    site.wait(lambda: site.finished() and len(site.everything()) == total, 120 + span(0.0))
    found = check(site, total)
    assert doubled(site) <= 2 * 2 * kills, "more was done twice than kills can explain"
    lost = [row.doc for row in site.database.all_docs(startkey="attempt:", endkey="attempt;", include_docs=True)]
    assert {record["state"] for record in lost} <= {"lost", "failed"}
    numbers = Counter((record["document"], record["step"]) for record in lost)
    for (name, step), times in numbers.items():
        assert found[name][step]["number"] == times + 1, "the counts of attempts close"


class Proxy:
    """A TCP proxy that does to connections what networks do. ``mischief`` chooses for each connection."""

    def __init__(self, target: int, dice: random.Random) -> None:
        self.target, self.dice = target, dice
        self.calm = False
        self.done: Counter[str] = Counter()
        self.port = 0

    async def serve(self, ready: threading.Event, stop: asyncio.Event) -> None:
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await stop.wait()
        server.close()
        open_still = asyncio.all_tasks() - {asyncio.current_task()}
        for task in open_still:
            task.cancel()
        await asyncio.gather(*open_still, return_exceptions=True)

    async def _lie(self, what: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request, carried there and back whole, with a lie: a feed that begins at 0 again, or conflicts.

        The conflicts are said of writes that were stored all the same, as when an answer to an earlier try was lost.
        """
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
        body = await reader.readexactly(int(length[1])) if length else b""
        if what == "rewind":
            head, changed = re.subn(rb"(_changes\?[^ ]*since=)[^& ]+", rb"\g<1>0", head)
            self.done["rewound"] += changed
        head = re.sub(rb"\r\nconnection:[^\r]*", b"", head, flags=re.IGNORECASE)
        there, back = await asyncio.open_connection("127.0.0.1", self.target)
        back.write(head[:-2] + b"Connection: close\r\n\r\n" + body)
        await back.drain()
        if what == "rewind":
            while data := await there.read(65536):
                writer.write(data)
                await writer.drain()
            back.close()
            return
        answer = await there.read(-1)
        back.close()
        if b"_bulk_docs" in head.split(b"\r\n")[0] and answer.startswith(b"HTTP/1.1 201"):
            ids = [document["_id"] for document in json.loads(body)["docs"]]
            said = [{"id": one, "error": "conflict", "reason": "Document update conflict."} for one in ids]
            content = json.dumps(said).encode()
            start = b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nConnection: close\r\n"
            answer = start + b"Content-Length: %d\r\n\r\n" % len(content) + content
            self.done["conflicts"] += 1
        writer.write(answer)
        await writer.drain()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        what, lifetime = "nothing", None
        if not self.calm:
            lifetime = self.dice.uniform(0.1, 1.2)
            ways = ["nothing", "cut", "delay", "half", "truncate", "500", "rewind", "conflict"]
            what = self.dice.choices(ways, [4, 3, 2, 1, 2, 3, 4, 4])[0]
        self.done[what] += 1
        if what == "500":
            with suppress(OSError, asyncio.IncompleteReadError):
                await reader.readuntil(b"\r\n\r\n")
                body = b'{"error":"odd","reason":"a proxy in trouble"}'
                head = b"HTTP/1.1 500 Odd\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
                writer.write(head + b"Connection: close\r\n\r\n" + body)
                await writer.drain()
            writer.close()
            return
        if what == "half":  # taken, and then silence
            await asyncio.sleep(1.5)
            writer.close()
            return
        if what in ("rewind", "conflict"):
            with suppress(OSError, asyncio.IncompleteReadError, ValueError, TimeoutError):
                await asyncio.wait_for(self._lie(what, reader, writer), 5.0)
            writer.close()
            return
        there, back = await asyncio.open_connection("127.0.0.1", self.target)
        limit = self.dice.randrange(200, 200_000) if what in ("cut", "truncate") else None

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, most: int | None) -> None:
            passed = 0
            with suppress(OSError):
                while data := await source.read(65536):
                    if what == "delay" and not self.calm:
                        await asyncio.sleep(self.dice.uniform(0.0, 0.15))
                    if most is not None and passed + len(data) > most and not self.calm:
                        sink.write(data[: most - passed])
                        await sink.drain()
                        break
                    passed += len(data)
                    sink.write(data)
                    await sink.drain()
            for end in (writer, back):
                end.close()

        # "cut" breaks requests off on their way there, "truncate" answers and feed lines on their way back.
        both = asyncio.gather(
            pump(reader, back, limit if what == "cut" else None),
            pump(there, writer, limit if what == "truncate" else None),
        )
        with suppress(TimeoutError):
            await asyncio.wait_for(both, lifetime)
        for end in (writer, back):
            end.close()


@contextmanager
def proxy(target: int, dice: random.Random) -> Iterator[Proxy]:
    made, ready = Proxy(target, dice), threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    def body() -> None:
        with suppress(RuntimeError):
            loop.run_until_complete(made.serve(ready, stop))

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield made
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(5)


def test_a_network_that_cuts_delays_and_lies_makes_nothing_happen_twice(make_site: Callable[..., Any]) -> None:
    site = make_site(seconds=0.005, steps=2)
    with proxy(site.server.port, random.Random(SEED)) as between:
        settings = (site.folder / "orchestrator.yaml").read_text()
        url = f"http://127.0.0.1:{between.port}"
        (site.folder / "orchestrator.yaml").write_text(settings.replace(site.server.url, url))
        pollers = [site.start("poll"), site.start("poll")]
        ways = ("cut", "delay", "truncate", "500", "rewound", "conflicts")
        least = int(span(10.0) / 2.5)
        rounds = 0
        while rounds < least or (rounds < 6 * least and not all(between.done[what] for what in ways)):
            hundred = rounds
            rounds += 1
            site.database.bulk(
                [
                    {
                        "_id": f"d{hundred}{n:03d}", "type": "daqdocument", "run_name": "r", "file_number": n,
                        "status": "closed", "file": f"/raw/{hundred}/{n}",
                    }
                    for n in range(100)
                ]
            )  # fmt: skip
            time.sleep(2.5)
        between.calm = True
        site.wait(site.finished, 90)
        check(site, 100 * rounds)
        assert doubled(site) == 0, "nobody was killed, so nothing may be done twice"
        assert all(poller.poll() is None for poller in pollers), "a bad network is no reason to give up"
        assert all(between.done[what] for what in ways), between.done


def test_a_chain_that_is_pushed_again_under_running_pollers_leaves_no_gap(make_site: Callable[..., Any]) -> None:
    site = make_site(seconds=0.005, steps=2)
    site.start("poll")
    site.start("poll")
    text = yaml.safe_load((site.folder / "chain.yaml").read_text())
    couch = Server(site.server.url, Credentials(*site.server.credentials), timeout=20.0).database("runs")
    for turn in range(4):
        site.add_more(turn, 60)
        extra = {"name": f"more{turn}", "run": "sitesteps:mark", "site": "elsewhere"}
        changed = {**text, "sites": {"here": {}, "elsewhere": {}}, "steps": [*text["steps"], extra][: 2 + turn % 2]}
        deploy.push(couch, designs.build(chains.loads(json.dumps(changed))))
        time.sleep(0.7)
    deploy.push(couch, designs.build(site.chain))
    site.wait(lambda: site.finished() and len(site.everything()) == 240, 40)
    check(site, 240)
    assert doubled(site) == 0
    logs = "".join(path.read_text() for path in Path(site.folder).glob("log-*"))
    assert "no view" not in logs
    assert "no _design" not in logs
    assert all(documents.complete(site.chain, document) for document in site.everything().values())
    assert all(daemon.poll() is None for daemon in site.daemons), "none had to be started again"
