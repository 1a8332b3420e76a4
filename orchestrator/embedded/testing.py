"""A real server in a process of its own, for tests: on a free port, in a folder of the caller's.

    with EmbeddedServer(tmp_path) as server:
        requests.get(server.url + "/_all_dbs", auth=server.auth)
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
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


def _outlive_nobody() -> None:
    # Standard input is a pipe from the test: it ends when that does, however it ends.
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)


def main(argument: str) -> int:
    """What the process runs."""
    from orchestrator.embedded.server import serve
    from orchestrator.errors import OrchestratorError

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
