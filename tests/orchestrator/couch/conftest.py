"""A server that answers exactly what a test tells it to, over real sockets: half lines, cuts and silence included."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from orchestrator.couch import Database, Server


@dataclass
class Request:
    """What came in."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))


Answer = Callable[[socket.socket, "Scripted"], bool]  # returns whether the connection stays open


def reply(value: Any, status: int = 200, headers: str = "") -> Answer:
    """A whole answer; ``value`` is sent as JSON, bytes as they are."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{headers}\r\n"

    def answer(sock: socket.socket, server: Scripted) -> bool:
        sock.sendall(head.encode() + body)
        return True

    return answer


def chunks(*parts: bytes | Callable[[], Any], end: bool = True) -> Answer:
    """A chunked answer, a chunk for each part; a part that is a function is called (to wait for the test)."""

    def answer(sock: socket.socket, server: Scripted) -> bool:
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        for part in parts:
            if callable(part):
                part()
            elif part:
                sock.sendall(b"%x\r\n%s\r\n" % (len(part), part))
        if end:
            sock.sendall(b"0\r\n\r\n")
        return end

    return answer


def raw(data: bytes) -> Answer:
    """Bytes, then the connection is cut."""

    def answer(sock: socket.socket, server: Scripted) -> bool:
        sock.sendall(data)
        return False

    return answer


def silence(sock: socket.socket, server: Scripted) -> bool:
    """Not a word until the test is over, or the client has gone."""
    sock.settimeout(20)
    with contextlib.suppress(OSError):
        sock.recv(1)
    return False


def row(seq: str, doc_id: str = "a", **more: Any) -> bytes:
    """A line of a continuous feed."""
    return json.dumps({"seq": seq, "id": doc_id, "changes": [{"rev": "1-x"}], **more}).encode() + b"\n"


@dataclass
class Scripted:
    """Answers in order; the last one again and again. ``requests`` is what came in."""

    answers: list[Answer] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    tls: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                sock = self._listener.accept()[0]
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections += 1
            self._open.append(sock)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        if self.tls is not None:
            try:
                sock = self.tls.wrap_socket(sock, server_side=True)
            except OSError:
                return
        reader = sock.makefile("rb")
        try:
            while request := self._request(reader):
                self.requests.append(request)
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                if not answer(sock, self):
                    break
        except OSError:
            pass
        finally:
            reader.close()
            sock.close()

    def _request(self, reader: Any) -> Request | None:
        line = reader.readline().decode()
        if not line:
            return None
        method, target, _ = line.split(" ")
        headers = {}
        while (line := reader.readline().decode().strip()) != "":
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(reader.readline(), 16):
                body += reader.read(size)
                reader.readline()
            reader.readline()
        else:
            body = reader.read(int(headers.get("content-length", 0)))
        return Request(method, target, headers, body)

    def close(self) -> None:
        self._listener.close()
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def drop(self) -> None:
        """Close the connections that are open now, as a server does with idle ones."""
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._open.clear()


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    server = Scripted()
    yield server
    server.close()


@pytest.fixture
def database(scripted: Scripted) -> Database:
    return Server(scripted.url, timeout=2.0).database("runs")


@pytest.fixture
def answers() -> Any:
    """The ways to answer, for tests (test files here are no package and cannot import this one)."""

    class Ways:
        pass

    for way in (reply, chunks, raw, row):
        setattr(Ways, way.__name__, staticmethod(way))
    Ways.Scripted = Scripted  # type: ignore[attr-defined]
    Ways.silence = staticmethod(silence)  # type: ignore[attr-defined]
    return Ways
