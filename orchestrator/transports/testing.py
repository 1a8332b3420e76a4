"""A real sshd for tests: `deploy/ssh/sshd.sh` of a source checkout, on a free port of the loopback address."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from orchestrator.transports.access import SiteAccess, read_access

SCRIPT = Path(__file__).parents[2] / "deploy" / "ssh" / "sshd.sh"
USER = "sshtest"


def why_not() -> str | None:
    """Why there can be no sshd here, with what to do; None if there can."""
    if os.getuid() != 0:
        return "needs root, since sshd logs in another account: run the tests as root"
    if not SCRIPT.exists():
        return f"needs a source checkout: {SCRIPT} is not there"
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    if shutil.which("sshd", path=path) is None or shutil.which("ssh-keygen") is None:
        return "needs a real sshd: apt-get install openssh-server openssh-client"
    return None


class Sshd:
    """A running sshd; a context manager. Its folder must be one that other accounts can read."""

    def __init__(self, folder: Path, *words: str, port: int = 0, user: str = USER) -> None:
        """``words``: ``--sftp-only``, ``--password``; ``user``: the account, made if it is not there."""
        self.folder, self.user = folder, user
        self._words = words
        self.port = port or _free_port()
        self.up()

    def up(self) -> None:
        self._call("up", *self._words)

    def down(self) -> None:
        """Ends the server and its sessions."""
        self._call("down")

    @property
    def settings(self) -> dict[str, Any]:
        """How to reach it, as a settings file says it."""
        return {
            "host": "127.0.0.1",
            "port": self.port,
            "user": self.user,
            "agent": False,
            "known_hosts": str(self.folder / "known_hosts"),
            "key": str(self.folder / "id_ed25519"),
        }

    def access(self, **more: Any) -> SiteAccess:
        return read_access({**self.settings, **more}, "test")

    def signal_sessions(self, number: int = signal.SIGKILL) -> int:
        """Sends a signal to what serves the present connections; how many processes got it."""
        server = psutil.Process(int((self.folder / "sshd.pid").read_text()))
        reached = 0
        for child in server.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # it ended just now, by itself or with another one
                child.send_signal(number)
                reached += 1
        return reached

    def commands(self) -> list[str]:
        """The command lines of all processes of the account, without sshd's own and without those that have ended."""
        found = []
        for process in psutil.process_iter(["username", "cmdline", "status"]):
            words = process.info["cmdline"] or []
            if process.info["username"] == self.user and words and not words[0].startswith("sshd"):
                found.append(" ".join(words))
        return found

    def _call(self, *words: str) -> None:
        environment = {**os.environ, "PORT": str(self.port), "SSH_USER": self.user}
        done = subprocess.run(
            [SCRIPT, words[0], self.folder, *words[1:]], env=environment, capture_output=True, text=True, timeout=60
        )
        if done.returncode:
            raise RuntimeError(done.stderr or done.stdout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
