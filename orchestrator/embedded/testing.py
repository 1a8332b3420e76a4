"""A real server in a process of its own, for tests: on a free port, in a folder of the caller's.

    with EmbeddedServer(tmp_path) as server:
        requests.get(server.url + "/_all_dbs", auth=server.auth)
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from pathlib import Path
from typing import NamedTuple

from orchestrator.errors import Unavailable

START_SECONDS = 30.0  # a start takes under a second; a loaded machine may need more


class ServerCredentials(NamedTuple):
    """The admin's name and password."""

    username: str
    password: str


class EmbeddedServer:
    """A context manager around one server process.

    Args:
        path: the folder of the databases; kept afterwards.
        synchronous: as :func:`orchestrator.embedded.serve`.
        environment: further environment variables of the process.

    Attributes:
        url: without credentials and without a slash at the end.
        credentials: of the generated admin; ``auth`` is the same as a plain tuple.
        credentials_file: where they are.
        exit_code: of the process that ended last.
    """

    def __init__(
        self, path: Path | str, *, synchronous: str = "normal", port: int = 0, environment: dict[str, str] | None = None
    ) -> None:
        self.path = Path(path)
        self.synchronous = synchronous
        self.port = port
        self.url = ""
        self.credentials_file = self.path / "credentials.json"
        self.credentials = ServerCredentials("", "")
        self._environment = environment or {}
        self.exit_code: int | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def auth(self) -> tuple[str, str]:
        """Name and password, as ``requests`` takes them."""
        return (self.credentials.username, self.credentials.password)

    @property
    def pid(self) -> int:
        """The process's number."""
        if self._process is None:
            raise Unavailable("The embedded server is not running.")
        return self._process.pid

    def __enter__(self) -> EmbeddedServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the process and wait until it takes connections.

        Raises:
            Unavailable: it ended at once or did not come up; with what it said.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        reading, writing = os.pipe()
        command = [
            sys.executable, "-m", "orchestrator.embedded.testing",
            json.dumps({"path": str(self.path), "port": self.port, "synchronous": self.synchronous, "fd": writing}),
        ]  # fmt: skip
        errors = self.path / "server.log"
        with errors.open("ab") as log:
            self._process = subprocess.Popen(
                command, pass_fds=[writing], stdin=subprocess.PIPE, stdout=log, stderr=log,
                env={**os.environ, **self._environment},
            )  # fmt: skip
        os.close(writing)
        with os.fdopen(reading, "rb") as stream:
            os.set_blocking(stream.fileno(), True)
            line = stream.readline()
        if not line:
            self._process.wait(START_SECONDS)
            said = errors.read_text(errors="replace").strip().splitlines()[-1:]
            raise Unavailable(f"The embedded server did not start: {' '.join(said)}")
        self.url = line.decode().strip()
        self.port = int(self.url.rsplit(":", 1)[1])
        known = json.loads(self.credentials_file.read_text())
        self.credentials = ServerCredentials(known["username"], known["password"])

    def stop(self) -> None:
        """SIGTERM, and wait."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, and wait: what was acknowledged must be there after :meth:`restart`."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop if need be and start again, on the same port."""
        self.stop()
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.start()
                return
            except Unavailable:
                if time.monotonic() > deadline:
                    raise

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        self.exit_code = None
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        try:
            process.wait(20.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdin is not None:
            process.stdin.close()
        self.exit_code = process.returncode


class Link:
    """A network between two servers that can be cut, mended and stalled: a TCP relay on a port of its own.

    Args:
        target: the port on this machine that it leads to.

    Attributes:
        url: of the relay.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._whole = threading.Event()
        self._flowing = threading.Event()
        self._whole.set()
        self._flowing.set()
        self._closed = False

    def __enter__(self) -> Link:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self._closed = True
        self._flowing.set()
        self.cut()
        self._listener.close()

    def cut(self) -> None:
        """Break all connections off; new ones are closed at once until :meth:`mend`."""
        self._whole.clear()
        with self._lock:
            ends, self._open = self._open, set()
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Let connections through again."""
        self._whole.set()
        self._flowing.set()

    def stall(self) -> None:
        """Keep connections open and let nothing through, until :meth:`mend`: what a firewall does that forgets."""
        self._flowing.clear()

    def _accept(self) -> None:
        while not self._closed:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                if not self._whole.is_set():
                    raise ConnectionError("cut")
                far = socket.create_connection(("127.0.0.1", self._target), timeout=5.0)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            with self._lock:
                self._open |= {near, far}
            if not self._whole.is_set():
                self.cut()  # cut while this one was being made
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._flowing.wait()
                sink.sendall(data)
        with self._lock:
            self._open -= {source, sink}
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def _outlive_nobody() -> None:
    # Standard input is a pipe from the test: it ends when that does, however it ends.
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)


def main(argument: str) -> int:
    """What the process runs."""
    from orchestrator import faults
    from orchestrator.embedded.server import serve
    from orchestrator.errors import OrchestratorError

    faults.arm(os.environ)
    options = json.loads(argument)

    def ready(url: str) -> None:
        os.write(options["fd"], f"{url}\n".encode())
        os.close(options["fd"])

    threading.Thread(target=_outlive_nobody, daemon=True).start()
    path = Path(options["path"])
    try:
        serve(
            path,
            port=options["port"],
            synchronous=options["synchronous"],
            credentials_file=path / "credentials.json",
            ready=ready,
        )
    except OrchestratorError as error:
        print(error, file=sys.stderr)
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
