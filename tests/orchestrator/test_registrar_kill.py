"""The registrar as a process, killed again and again, against a real server that is killed as well."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from orchestrator.couch import Credentials, Server
from orchestrator.embedded.testing import EmbeddedServer

PROGRAM = """
import json, sys, threading
from orchestrator.couch import Credentials, Server
from orchestrator.registrar import Registrar
from procs.register.readers import RawFormat
from procs.register.settings import RegisterSettings
url, name, password, folder = json.loads(sys.argv[1])
formats = {"raw": RawFormat("raw", lambda head: head.startswith(b"RAW"), lambda path: {"n": path.name})}
settings = RegisterSettings(directories=[folder], closed_by=["rename"], events="always", rescan=1, batch=20)
database = Server(url, Credentials(name, password)).database("runs")
print("ready", flush=True)
Registrar(database, settings, formats=formats).run(threading.Event())
"""


@pytest.mark.system
def test_kills_of_registrar_and_database_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    pause = threading.Event()
    with EmbeddedServer(tmp_path / "db") as server:
        Server(server.url, Credentials(*server.credentials)).create("runs")

        def start() -> subprocess.Popen[bytes]:
            place = json.dumps([server.url, *server.credentials, str(folder)])
            process = subprocess.Popen([sys.executable, "-c", PROGRAM, place], stdout=subprocess.PIPE)
            assert process.stdout is not None
            process.stdout.readline()
            return process

        process = start()
        try:
            for number in range(400):
                part = folder / f"run_{number:03d}.part"
                part.write_bytes(b"RAW" + os.urandom(10))
                part.rename(folder / f"run_{number:03d}")
                if number % 80 == 79:
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                    process = start()
                if number == 200:
                    server.kill()
                    server.restart()
            database = Server(server.url, Credentials(*server.credentials)).database("runs")
            end = time.monotonic() + 30
            while len(database.all_docs()) < 400 and time.monotonic() < end:
                pause.wait(0.05)
            docs = [row.doc or {} for row in database.all_docs(include_docs=True)]
        finally:
            process.kill()
            process.wait()
    assert sorted(doc["_id"] for doc in docs) == [f"run_{number:03d}" for number in range(400)]
    assert {doc["status"] for doc in docs} == {"closed"}
    assert {doc["_rev"].split("-")[0] for doc in docs} == {"1"}
