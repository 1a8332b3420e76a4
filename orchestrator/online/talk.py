"""The transform's end of the talk with its workers: what they say becomes calls of the pure transform, and back."""

from __future__ import annotations

import logging
import os
from typing import Any

import zmq

from orchestrator.online import wire
from orchestrator.online.commands import Birth, Configure, Death, Give, Refuse
from orchestrator.online.configuration import Online, maps_as_json
from orchestrator.online.crew import Crew
from orchestrator.online.keys import Secure
from orchestrator.online.pipeline import Pipeline, differing, versions
from orchestrator.online.transform import Transform
from orchestrator.online.words import LONGEST_NAME, is_name, sentence

log = logging.getLogger(__name__)

AT_ONCE = 500  # messages that are looked at before the next kind of thing
MOST_WORKERS = 1024  # that work at once
COPIED = 65536  # bytes; larger messages are not copied on their way to the socket


class Talk:
    """The socket, and who is behind it.

    Args:
        context: of ZeroMQ.
        online: the configuration that workers get.
        machine: is told.
        crew: the local workers, whose processes tell better than any silence whether they live.
        secure: gives the socket its keys.

    Raises:
        Conflict: the port is taken.
        SettingsError: the address cannot be listened at, or a module cannot be loaded here.
    """

    def __init__(
        self, context: Any, online: Online, machine: Transform, crew: Crew, secure: Secure | None = None
    ) -> None:
        self.versions = versions(Pipeline(online.map).classes)
        self.digest = online.digest(self.versions)
        self._online, self._machine, self._crew = online, machine, crew
        self._workers = machine.workers
        self._session = os.urandom(8)
        self.socket = context.socket(zmq.ROUTER)
        wire.prepare(self.socket)
        self.socket.router_mandatory = True
        if secure is not None:
            secure(self.socket)
        try:
            self.address = wire.listen(self.socket, online.workers.address)
        except BaseException:
            self.socket.close()
            raise

    def hear(self, now: float) -> None:
        """Take in what has come."""
        for _ in range(AT_ONCE):
            try:
                frames = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            if len(frames) >= 2:
                self._hear(frames[0], frames[1:], now)

    def ping(self) -> None:
        """To all, so that they know that somebody is here, and this end who can be reached."""
        for key in list(self._workers.workers):
            self._send(key, b"ping")

    def bye(self) -> None:
        """The transform ends."""
        for key in list(self._workers.workers):
            self._send(key, b"bye")

    def lost(self, name: str, why: str, *, fatal: bool = False) -> None:
        """A local worker has ended."""
        for worker in [one for one in self._workers.workers.values() if one.name == name]:
            self._machine.gone(worker.key, why, fatal=fatal)

    # -- what they say

    def _hear(self, key: bytes, frames: list[bytes], now: float) -> None:
        word = frames[0]
        if word == b"join" and len(frames) == 2:
            self._heard_join(key, wire.fields(frames[1]), now)
        elif word == b"leave":
            if key in self._workers.workers:
                log.info("worker %s has left", self._name(key))
            self._machine.gone(key, "has left", blame=False)
        elif key not in self._workers.workers:
            self._send(key, b"who")  # of an earlier life of ours, or given up: its spills are done elsewhere
        elif word == b"done" and len(frames) == 4:
            self._heard_result(key, frames, now)
        elif len(frames) != 2:
            return
        elif word == b"ready":
            self._heard_ready(key, wire.fields(frames[1]))
        elif word == b"born":
            said = wire.fields(frames[1])
            error = sentence(said.get("error") or "")
            if error:
                log.error("worker %s: %s", self._name(key), error)
            serial = said.get("serial")
            self._machine.born(key, serial if isinstance(serial, int) else 0, error, now)

    def _heard_result(self, key: bytes, frames: list[bytes], now: float) -> None:
        order = wire.order_of(self._session, frames[1])
        outcome = wire.outcome_of(frames, self._name(key))
        if order is None or outcome is None:
            return
        if self._machine.result(key, order, outcome, now) and outcome.failed:
            log.warning("spill %d failed in %s: %s", outcome.number, outcome.module, outcome.error.split("\n")[0])

    def _heard_join(self, key: bytes, said: dict[str, Any], now: float) -> None:
        name, host = said.get("name"), sentence(said.get("host", "?"), LONGEST_NAME)
        if not is_name(name):
            log.warning("a worker from %s has a name that is none: it is refused", host)
            self._send(key, b"refuse", b"has a name that is none: printable characters, 100 at most")
            return
        if len(self._workers.workers) >= MOST_WORKERS and key not in self._workers.workers:
            log.warning("the worker %s from %s is one too many: it is refused", name, host)
            self._send(key, b"refuse", b"is one too many: %d are there" % MOST_WORKERS)
            return
        if self._crew.has(name) and said.get("pid") != self._crew.pid(name):
            log.warning("a worker from %s calls itself %s as a local one does: it is refused", host, name)
            self._send(key, b"refuse", b"has the name of a local worker: give it another one")
            return
        for other in list(self._workers.workers.values()):
            if other.name == name and other.key != key and not self._crew.has(name) and self._send(other.key, b"ping"):
                log.warning("a second worker calls itself %s, from %s; it has to wait", name, host)
                return
        self._machine.joined(key, name, f"{host}, process {sentence(said.get('pid', '?'), 20)}", now)
        log.info("worker %s reports from %s", name, self._workers.workers[key].where)

    def _heard_ready(self, key: bytes, said: dict[str, Any]) -> None:
        theirs = said.get("versions")
        wrong = sentence(said.get("error") or "")
        if not wrong and said.get("digest") != self.digest:
            differs = differing(theirs if isinstance(theirs, dict) else {}, self.versions)
            wrong = sentence(differs) or "has other settings"
        elif wrong:
            wrong = f"says: {wrong}"
        if wrong:
            log.error("the worker %s %s: it is refused", self._name(key), wrong)
        self._machine.acknowledged(key, wrong)

    def _name(self, key: bytes) -> str:
        worker = self._workers.workers.get(key)
        return worker.name if worker else "?"

    def _send(self, key: bytes, *frames: bytes) -> bool:
        """To a worker; one that cannot be reached any more is gone."""
        try:
            self.socket.send_multipart([key, *frames], zmq.NOBLOCK, copy=len(frames[-1]) < COPIED)
        except zmq.ZMQError:
            worker = self._workers.workers.get(key)
            if worker is not None and not self._crew.has(worker.name):
                log.warning("the worker %s at %s is gone", worker.name, worker.where)
                self._machine.gone(key, "is gone")
            return False
        return True

    # -- what they are told

    def configure(self, command: Configure) -> None:
        """The modules, and what a spill may take."""
        online = self._online
        said = {"session": self._session.hex(), "map": maps_as_json(online.map), "timeout": online.workers.timeout}
        self._send(command.worker, b"configure", wire.json(said))

    def refuse(self, command: Refuse) -> None:
        """Why it is not wanted."""
        self._send(command.worker, b"refuse", command.why.encode())

    def birth(self, command: Birth) -> None:
        """A run begins."""
        run = command.run
        self._send(
            command.worker, b"birth", wire.json({"serial": run.serial, "run": run.name, "header": run.header})
        )

    def death(self, command: Death) -> None:
        """A run is over."""
        self._send(command.worker, b"death")

    def give(self, command: Give) -> None:
        """A spill."""
        self._send(command.worker, b"spill", wire.head(self._session, command.task.order), command.task.payload)
