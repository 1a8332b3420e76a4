"""A worker: takes the map modules from the transform, proves that it has the same ones, and runs them over spills.

It keeps nothing that could be lost: whenever it ends, by whatever, the transform gives its spills to another one. One
spill may take so long and no longer: the kernel's timer then ends the process, wherever it hangs, with a trace of all
threads in its log.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import socket as sockets
import sys
import time
from collections.abc import Callable
from typing import Any

import zmq

from orchestrator import faults
from orchestrator.errors import OrchestratorError, SettingsError
from orchestrator.online import wire
from orchestrator.online.configuration import digest, maps_from_json
from orchestrator.online.keys import Secure
from orchestrator.online.module import RunConfiguration
from orchestrator.online.packing import unpacked
from orchestrator.online.pipeline import Pipeline, versions
from orchestrator.online.store import Outcome

log = logging.getLogger(__name__)

LOOK = 0.2  # s between two looks at whether to stop


class Worker:
    """One worker process.

    Args:
        address: of the transform.
        name: what it is called there; unique among its workers.
        secure: gives the socket its keys.
        stay: wait for the next transform when one has ended, instead of ending with it.
        patience: s without a sign of a transform after which it ends (with ``stay`` it waits for ever).
    """

    def __init__(
        self,
        address: str,
        name: str,
        *,
        secure: Secure | None = None,
        stay: bool = False,
        patience: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._address, self._secure = address, secure
        self._stay, self._patience = stay, patience
        self._clock = clock
        self._pipeline: Pipeline | None = None
        self._timeout = 0.0
        self._over = False
        self._refused = ""

    def run(self, stopping: Callable[[], bool]) -> None:
        """Work until ``stopping`` says so, the transform ends, or it refuses this worker.

        Raises:
            SettingsError: the transform has refused it, with the reason; or it was not to be reached.
        """
        faulthandler.register(signal.SIGALRM, file=sys.stderr, all_threads=True, chain=True)
        with zmq.Context() as context:
            socket = context.socket(zmq.DEALER)
            wire.prepare(socket)
            if self._secure is not None:
                self._secure(socket)
            try:
                socket.connect(self._address)
            except zmq.ZMQError as error:
                socket.close()
                raise SettingsError(f"{self._address} is no address of a transform: {error.strerror}") from None
            try:
                self._work(socket, stopping)
                socket.send(b"leave")
            finally:
                self._forget()
                socket.close(linger=500)
        if self._refused:
            raise SettingsError(f"the transform at {self._address} refuses {self.name}: it {self._refused}")

    def _work(self, socket: Any, stopping: Callable[[], bool]) -> None:
        heard, joined = self._clock(), float("-inf")
        while not (stopping() or self._over):
            now = self._clock()
            if now - heard > wire.SILENCE and self._pipeline is not None:
                log.warning("nothing heard of the transform for %.0f s", now - heard)
                self._forget()
            if self._pipeline is None:
                if now - heard > self._patience and not self._stay:
                    raise SettingsError(
                        f"no transform answers at {self._address}; is it running there, with the same key?"
                    )
                if now - joined > wire.JOINS:
                    joined = now
                    socket.send_multipart([b"join", wire.json(_myself(self.name))])
            if not socket.poll(int(LOOK * 1000)):
                continue
            self._hear(socket, socket.recv_multipart())
            heard = self._clock()

    def _hear(self, socket: Any, frames: list[bytes]) -> None:
        word = frames[0]
        if word == b"spill" and len(frames) == 3:
            if self._pipeline is not None:
                result = wire.done(frames[1], self._process(self._pipeline, frames[2]))
                faults.point("transform.processed")
                socket.send_multipart(result, copy=False)
        elif word == b"configure":
            socket.send_multipart([b"ready", wire.json(self._configure(wire.fields(frames[1])))])
        elif word == b"birth":
            said = wire.fields(frames[1])
            socket.send_multipart([b"born", wire.json({"serial": said.get("serial"), "error": self._birth(said)})])
        elif word == b"death" and self._pipeline is not None:
            self._pipeline.death()
        elif word == b"refuse":
            self._refused, self._over = frames[1].decode("utf-8", "replace"), True
        elif word == b"who":
            self._forget()
        elif word == b"bye":
            log.info("the transform has ended")
            self._forget()
            self._over = not self._stay

    def _configure(self, said: dict[str, Any]) -> dict[str, Any]:
        self._forget()
        answer: dict[str, Any] = {"session": said.get("session"), "versions": {}, "digest": "", "error": ""}
        try:
            maps = maps_from_json(said.get("map"))
            self._timeout = float(said.get("timeout", 60.0))
            self._pipeline = Pipeline(maps, self.name)
            found = versions(self._pipeline.classes)
            answer |= {"versions": found, "digest": digest(maps, found)}
            log.info("has the modules %s", ", ".join(self._pipeline.classes) or "(none)")
        except (OrchestratorError, ValueError) as error:
            answer["error"] = " ".join(str(error).split())
            self._pipeline = Pipeline(())  # not asked again: the transform will refuse it
        return answer

    def _birth(self, said: dict[str, Any]) -> str:
        if self._pipeline is None:
            return "has no modules yet"
        run = str(said.get("run", ""))
        self._limit(self._timeout)
        try:
            self._pipeline.birth(RunConfiguration(run, dict(said.get("header") or {})))
        except OrchestratorError as error:
            return str(error)
        finally:
            self._limit(0)
        log.info("ready for run %s", run)
        return ""

    def _process(self, pipeline: Pipeline, content: bytes) -> Outcome:
        self._limit(self._timeout)
        try:
            outcome = pipeline.process(unpacked(content))
        except Exception as error:  # packed by the transform, so this is a fault of ours; the spill is kept with it
            log.exception("a spill")
            outcome = Outcome(-1, None, f"{type(error).__name__}: {error}")
        finally:
            self._limit(0)
        if outcome.failed:
            log.warning("spill %d: %s: %s", outcome.number, outcome.module, outcome.error)
        return outcome

    def _limit(self, seconds: float) -> None:
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def _forget(self) -> None:
        if self._pipeline is not None:
            self._pipeline.death()
        self._pipeline = None


def _myself(name: str) -> dict[str, Any]:
    return {"name": name, "host": sockets.gethostname(), "pid": os.getpid()}


def default_name() -> str:
    """A name that no other worker has: of this machine and this process."""
    return f"{sockets.gethostname()}-{os.getpid()}"
