"""A broadcast, somebody who publishes, and a display, all real, for tests."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hist
import httpx
import numpy as np
import uvicorn
import zmq

from orchestrator.online import rootjson
from orchestrator.online.broadcast import Broker
from orchestrator.online.configuration import Online, loads
from orchestrator.online.presenting import iso
from orchestrator.online.publication import Header
from orchestrator.online.publishing import Publisher
from orchestrator.web.online.app import JSROOT, create_app
from orchestrator.web.serve import bind

CANVASES = """
canvases:
  - {name: Hits, plots: ["hits/*"], help: "All boards alike."}
  - {name: Times, plots: ["time/*"], help: "A peak at zero."}
  - {name: Maps, plots: ["map"], group: expert}
"""


class Room:
    """All of it; parts can be stopped and started again at the same addresses."""

    def __init__(self, folder: Path, canvases: str = CANVASES, port: int = 0) -> None:
        self.folder = folder
        self._context = zmq.Context()
        self._broker: tuple[threading.Event, threading.Thread] | None = None
        self.addresses = ("tcp://127.0.0.1:*", "tcp://127.0.0.1:*")
        self.start_broker()
        self.publisher = Publisher(self.addresses[0])
        self.configuration: Online = loads(
            f"title: MICE\ninput: {{module: 'x:Y'}}\nbroadcast: {{publish: '{self.addresses[0]}', "
            f"subscribe: '{self.addresses[1]}'}}\n{canvases}"
        )
        self.port = port
        self.app: Any = None
        self._server: tuple[uvicorn.Server, threading.Thread] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start_broker(self) -> None:
        context = zmq.Context()
        end = time.monotonic() + 10
        while True:
            try:
                broker = Broker(*self.addresses, context=context)
                break
            except Exception:  # the port is free again in a moment
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)
        self.addresses = broker.addresses
        stop = threading.Event()
        thread = threading.Thread(target=broker.run, args=(stop,), daemon=True)
        thread.start()
        self._broker = (stop, thread)

    def stop_broker(self) -> None:
        if self._broker is not None:
            self._broker[0].set()
            self._broker[1].join()
            self._broker = None

    def start(self, **options: Any) -> Room:
        self.app = create_app(self.configuration, self.folder, **{"jsroot": JSROOT, **options})
        listener = bind("127.0.0.1", self.port)
        self.port = listener.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(self.app, log_level="warning", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        self._server = (server, thread)
        self.wait(lambda: self.json("/healthz")["connected"], "the broadcast")
        return self

    def stop(self) -> None:
        if self._server is not None:
            self.app.state.hub.close()
            self._server[0].should_exit = True
            self._server[1].join(10)
            self._server = None

    def close(self) -> None:
        self.stop()
        self.publisher.close()
        self.stop_broker()

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(self.url + path, timeout=20, **options)

    def json(self, path: str) -> Any:
        try:
            return self.get(path, headers={"Accept": "application/json"}).json()
        except httpx.TransportError:
            return {"connected": False, "plots": 0}

    def wait(self, done: Callable[[], Any], what: str, seconds: float = 20) -> None:
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end, f"waited in vain for {what}"
            time.sleep(0.03)

    # ---- what reducers and the transform say

    def begin(self, run: str, state: str = "begun", **more: Any) -> None:
        self.publisher.publish("run", run, "", {"state": state, "begun": iso(time.time()), **more})

    def counts(self, run: str, read: int, done: int, failed: int, pending: int, **more: Any) -> None:
        said = {"read": read, "done": done, "failed": failed, "pending": pending, **more}
        self.publisher.publish("counts", run, "", said)

    def plot(self, run: str, name: str, count: int, *, two: bool = False, at: float = 4.0, reference: bool = False,
             **more: Any) -> None:  # fmt: skip
        """A plot with so many entries, all in one place."""
        axes = [hist.axis.Regular(40, 0, 8, label="time [ns]"), hist.axis.Regular(20, 0, 8, label="place")]
        made = hist.Hist(*axes[: 2 if two else 1])
        values = [np.linspace(at - 1, at + 1, max(count, 1))[:count]] * (2 if two else 1)
        made.fill(*values)
        beside = {}
        if reference:
            other = hist.Hist(axes[0])
            other.fill(np.linspace(2, 6, 500))
            beside["reference_body"] = rootjson.to_root(other, "reference", "run 1")
        body = rootjson.dumps(made, name, str(more.get("title", name)), **beside)
        now = iso(time.time()) or ""
        header = Header(
            run=run, name=name, title=str(more.pop("title", name)), reducer=name.split("/")[0], sequence=count,
            spill=count, spills=count, entries=float(count), input_time=now, output_time=now,
            reference="run 1" if reference else "", **more,
        )  # fmt: skip
        self.publisher.publish("plot", run, name, header, body)

    def shown(self, run: str, name: str) -> int:
        """How many entries a plot has in the display."""
        found = self.json(f"/api/plots?run={run}&plots={name}")
        return int(found[0]["header"]["entries"]) if found else -1


@contextlib.contextmanager
def room(folder: Path, canvases: str = CANVASES, port: int = 0, **options: Any) -> Iterator[Room]:
    """A room that is up."""
    made = Room(folder, canvases, port)
    try:
        made.start(**options)
        yield made
    finally:
        made.close()
