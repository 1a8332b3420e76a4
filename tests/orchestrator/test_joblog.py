"""Logs of batch jobs, read over each transport, by paths that are ours alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator import chain as chains
from orchestrator import joblog
from orchestrator.errors import NotFound
from orchestrator.joblog import Log
from orchestrator.settings import Settings
from orchestrator.transports import LocalTransport, NoShell, Transport, transport_to
from orchestrator.transports.access import read_access
from orchestrator.transports.testing import Sshd

CHAIN = chains.loads("""
name: x
farms: {centre: {scheduler: fsched, spool: /spool/}}
steps: [{name: s0, run: 'a.b:c', executor: farm, farm: centre}]
""")
FARM = CHAIN.farms["centre"]


@pytest.fixture(params=["local", "ssh"])
def place(request: pytest.FixtureRequest) -> Iterator[tuple[Transport, Path]]:
    """A transport, and a folder at its far end."""
    if request.param == "local":
        yield LocalTransport(), request.getfixturevalue("tmp_path")
        return
    sshd: Sshd = request.getfixturevalue("sshd")
    with transport_to(read_access(sshd.settings, "test")) as transport:
        yield transport, request.getfixturevalue("far")


def test_the_end_of_a_log_is_read_where_it_is(place: tuple[Transport, Path]) -> None:
    transport, folder = place
    path = folder / "out-1"
    path.write_bytes(b"x" * 100_000 + b"\xff the end \xe2\x82\xac\n")
    path.chmod(0o644)
    text, size = Log(transport, str(path)).end(14)
    assert text == "\ufffd the end €\n" and size == path.stat().st_size
    assert Log(transport, str(path)).end(10**6)[0].startswith("xxx")
    with pytest.raises(NotFound, match=r"there is no file .*out-2"):
        Log(transport, str(folder / "out-2")).end()


def test_a_log_is_followed_until_its_attempt_has_ended_and_all_is_said(place: tuple[Transport, Path]) -> None:
    transport, folder = place
    path = folder / "a log's $(touch pwned) name"
    written = [b"", b"one\n", b"one\ntwo\n", b"one\ntwo\n", b"anew\n", b"anew\nlast words\n"]

    def wait() -> None:
        """Time passes: somebody writes, and once the file is made anew."""
        if written:
            path.write_bytes(written.pop(0))
            path.chmod(0o644)

    said = list(Log(transport, str(path)).follow(0, lambda: bool(written), wait))
    assert "".join(said) == "one\ntwo\nanew\nlast words\n"
    assert not list(folder.glob("pwned"))


def test_an_account_without_a_shell_is_read_by_files_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").write_text("0123456789")
    transport = LocalTransport()

    def no_shell(*_: Any, **__: Any) -> Any:
        raise NoShell("the account runs no commands")

    monkeypatch.setattr(transport, "run", no_shell)
    assert Log(transport, str(tmp_path / "out")).end(4)[0] == "6789"


def test_paths_come_from_the_layout_and_never_from_a_text(tmp_path: Path) -> None:
    assert joblog.path_of(FARM, "orc-0-s0-1", 3, "stdout") == "/spool/logs/orc-0-s0-1/out-3"
    assert joblog.path_of(FARM, "orc-0-s0-1", 3, "stderr") == "/spool/logs/orc-0-s0-1/err-3"
    for name in ("../../etc", "a/b", "", ".", "..", "a\n", "-x", "a" * 101):
        with pytest.raises(NotFound):
            joblog.path_of(FARM, name, 1, "stdout")
    (tmp_path / "orchestrator.yaml").write_text("logs: logs\n")
    settings = Settings.load(tmp_path, {}, {})
    path = joblog.step_path(FARM, settings, "../../../etc/passwd", "proc0", "a1")
    assert Path(path).parent == tmp_path / "logs" / "steps" / "proc0" and "/.." not in path
