"""A real sshd that is strange, slow, cut off, without a shell, behind another: every case ends, and in a sentence."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import SettingsError
from orchestrator.transports import (
    FileRefused,
    HostKeyRefused,
    LoginRefused,
    NoShell,
    SiteAccess,
    TransportUnavailable,
)
from orchestrator.transports.connection import Connection
from orchestrator.transports.ssh import SshTransport
from orchestrator.transports.testing import Sshd, why_not

Make = Callable[..., SshTransport]


@pytest.fixture
def ssh(sshd: Sshd) -> Iterator[Make]:
    """Make a transport: ``ssh(setting=value)``."""
    made: list[SshTransport] = []

    def make(**more: Any) -> SshTransport:
        made.append(SshTransport(sshd.access(**more), environ={}))
        return made[-1]

    yield make
    for transport in made:
        transport.close()


@pytest.fixture
def keygen(tmp_path: Path) -> Callable[..., Path]:
    def make(name: str, *words: str) -> Path:
        path = tmp_path / name
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", *words, "-f", path], check=True)
        return path

    return make


# ---- the machine's key


def test_an_unknown_machine_is_refused_and_nothing_is_sent(ssh: Make, sshd: Sshd, tmp_path: Path) -> None:
    with pytest.raises(HostKeyRefused, match=r"knows no key of this machine.*ssh-keyscan -p") as caught:
        ssh(known_hosts=str(tmp_path / "none")).run(["true"])
    mine = subprocess.run(
        ["ssh-keygen", "-lf", sshd.folder / "host_ed25519.pub"], capture_output=True, text=True, check=True
    )
    assert mine.stdout.split()[1] in str(caught.value) and not (tmp_path / "none").exists()


def test_a_changed_key_is_refused(ssh: Make, sshd: Sshd, tmp_path: Path, keygen: Callable[..., Path]) -> None:
    other = keygen("other")
    file = tmp_path / "known_hosts"
    file.write_text(f"[127.0.0.1]:{sshd.port} {other.with_suffix('.pub').read_text()}")
    with pytest.raises(HostKeyRefused, match="the key has changed"):
        ssh(known_hosts=str(file)).stat("x")


# ---- the login


def test_a_wrong_key_is_refused_and_not_tried_again_at_once(ssh: Make, keygen: Callable[..., Path], sshd: Sshd) -> None:
    transport = ssh(key=str(keygen("wrong")))
    with pytest.raises(LoginRefused, match=r"refused the login \(tried: key .*wrong.*authorized_keys"):
        transport.run(["true"])
    before = (sshd.folder / "log").read_text()
    with pytest.raises(LoginRefused, match="not asked again for another"):
        transport.run(["true"])
    assert (sshd.folder / "log").read_text() == before


def test_keys_that_cannot_be_used_say_why(ssh: Make, keygen: Callable[..., Path], tmp_path: Path) -> None:
    opened, locked, empty = keygen("open"), keygen("locked", "-N", "secret words"), tmp_path / "empty"
    opened.chmod(0o644)
    empty.touch(0o600)
    with pytest.raises(LoginRefused) as caught:
        ssh(key=[str(opened), str(locked), str(empty), str(tmp_path / "none")]).run(["true"])
    for words in ("chmod 600", "ssh-add", "cannot be read as a private key", "there is no such file"):
        assert words in str(caught.value)


def test_the_second_key_is_tried(ssh: Make, sshd: Sshd, keygen: Callable[..., Path]) -> None:
    assert ssh(key=[str(keygen("wrong")), str(sshd.folder / "id_ed25519")]).run(["true"]).ok


def test_keys_of_an_agent(ssh: Make, sshd: Sshd, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if shutil.which("ssh-agent") is None:
        pytest.skip("needs ssh-agent: apt-get install openssh-client")
    monkeypatch.setenv("HOME", str(tmp_path))
    # its socket's path must be short
    with tempfile.TemporaryDirectory() as folder:
        place = f"{folder}/agent"
        agent = subprocess.Popen(["ssh-agent", "-D", "-a", place], stdout=subprocess.DEVNULL)
        try:
            monkeypatch.setenv("SSH_AUTH_SOCK", place)
            wait_until(lambda: Path(place).exists())
            subprocess.run(["ssh-add", "-q", sshd.folder / "id_ed25519"], check=True)
            assert ssh(key=[], agent=True).run(["true"]).ok
            with pytest.raises(LoginRefused, match="there is no key, no agent and no password"):
                ssh(key=[], agent=False).run(["true"])
        finally:
            agent.terminate()
            agent.wait()


def test_a_password_from_the_environment_or_a_private_file_and_never_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    caplog.set_level(logging.DEBUG)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder, Sshd(Path(folder), "--password") as server:
        secret = (Path(folder) / "password").read_text().strip()
        login = {"key": str(tmp_path / "none"), "password_from": "env:FARM"}
        for more in ({}, {"password_from": f"file:{folder}/password"}):
            with SshTransport(server.access(**login | more), environ={"FARM": secret}) as transport:
                assert transport.run(["true"]).ok
                assert secret not in repr(transport) + repr(transport.access) + repr(vars(transport.access))
        with SshTransport(server.access(**login), environ={"FARM": "wrong-" + secret}) as transport:
            with pytest.raises(LoginRefused, match=r"tried: .*password") as caught:
                transport.run(["true"])
            assert secret not in str(caught.value)
        with (
            SshTransport(server.access(**login), environ={}) as transport,
            pytest.raises(SettingsError, match="not set"),
        ):
            transport.run(["true"])
    assert secret not in caplog.text


# ---- the way there


def test_through_a_jump_host(ssh: Make, sshd: Sshd) -> None:
    transport = ssh(jump=sshd.settings)
    assert transport.run(["sh", "-c", "echo $SSH_CONNECTION"]).ok
    transport.write("through", b"x" * 3_000_000)
    assert transport.size("through") == 3_000_000 and transport.remove("through")


def test_the_jump_host_must_be_known_too(ssh: Make, sshd: Sshd, tmp_path: Path) -> None:
    with pytest.raises(HostKeyRefused):
        ssh(jump={**sshd.settings, "known_hosts": str(tmp_path / "none")}).run(["true"])
    transport = ssh(jump=sshd.settings, port=1)
    with pytest.raises(TransportUnavailable, match="through the jump host"):
        transport.run(["true"])


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", 1), ("no-such-machine.invalid", 22)])
def test_a_machine_that_cannot_be_reached(ssh: Make, host: str, port: int) -> None:
    with pytest.raises(TransportUnavailable, match="cannot be reached") as caught:
        ssh(host=host, port=port).run(["true"])
    assert caught.value.transient and not caught.value.perhaps_done


def test_a_port_that_never_answers(ssh: Make) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        began = time.monotonic()
        with pytest.raises(TransportUnavailable, match="agree on keys"):
            ssh(port=silent.getsockname()[1], timeouts={"banner": 0.5}).run(["true"])
        assert time.monotonic() - began < 10


# ---- cuts and stalls


def test_a_cut_connection_is_made_again(ssh: Make, sshd: Sshd) -> None:
    transport = ssh()
    assert transport.run(["true"]).ok
    assert sshd.signal_sessions() > 0
    wait_until(lambda: not transport._current or not transport._current.alive)
    assert transport.run(["true"]).ok and transport.stat(".") is not None


def test_a_cut_during_a_command_is_no_exit_code(ssh: Make, sshd: Sshd) -> None:
    transport = ssh()
    transport.run(["true"])
    cutter = threading.Timer(0.4, sshd.signal_sessions)
    cutter.start()
    with pytest.raises(TransportUnavailable) as caught:
        transport.run(["sleep", "30"], timeout=20)
    cutter.join()
    assert caught.value.perhaps_done


def test_a_server_that_stands_still_is_given_up(ssh: Make, sshd: Sshd) -> None:
    transport = ssh(timeouts={"stall": "2 s", "login": "2 s"})
    transport.write("stalled", b"x")
    sshd.signal_sessions(signal.SIGSTOP)
    try:
        for use in (lambda: transport.send("stalled", [b"x" * 1_000_000] * 20), lambda: transport.stat("stalled")):
            began = time.monotonic()
            with pytest.raises(TransportUnavailable, match=r"within 2 s"):
                use()
            assert time.monotonic() - began < 10
            sshd.signal_sessions(signal.SIGCONT)
            transport.stat(".")
            sshd.signal_sessions(signal.SIGSTOP)
    finally:
        sshd.signal_sessions(signal.SIGCONT)
    assert transport.remove("stalled")


def test_a_command_on_a_server_that_stands_still_ends_as_well(ssh: Make, sshd: Sshd) -> None:
    transport = ssh(timeouts={"login": "1 s"})
    transport.run(["true"])
    sshd.signal_sessions(signal.SIGSTOP)
    try:
        with pytest.raises(TransportUnavailable, match="no new session within 1 s"):
            transport.run(["true"], timeout=1)
    finally:
        sshd.signal_sessions(signal.SIGCONT)


def test_the_pause_before_the_next_connection_grows_and_nobody_waits_in_it(sshd: Sshd) -> None:
    now, tries = [100.0], []

    def connect(access: SiteAccess, environ: Mapping[str, str]) -> Connection:
        tries.append(now[0])
        if len(tries) < 5:
            raise TransportUnavailable("away")
        return Connection.open(access, environ)

    transport = SshTransport(sshd.access(), clock=lambda: now[0], jitter=lambda: 0.5, connect=connect)
    while True:
        try:
            assert transport.run(["true"]).ok
            break
        except TransportUnavailable:
            now[0] += 0.25
    assert [later - sooner for sooner, later in pairwise(tries)] == [1.0, 2.0, 4.0, 8.0]
    transport.close()


def test_jitter_keeps_many_clients_apart(sshd: Sshd) -> None:
    def away(access: SiteAccess, environ: Mapping[str, str]) -> Connection:
        raise TransportUnavailable("away")

    ends = set()
    for draw in (0.0, 0.5, 0.99):
        transport = SshTransport(sshd.access(), clock=lambda: 0.0, jitter=lambda draw=draw: draw, connect=away)  # type: ignore[misc]
        with pytest.raises(TransportUnavailable, match="away"):
            transport.run(["true"])
        ends.add(transport._not_before)
    assert ends == {0.5, 1.0, 1.49}


# ---- what the far end does not have


def test_without_a_shell_files_still_work(tmp_path: Path) -> None:
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    with (
        tempfile.TemporaryDirectory(dir="/var/tmp") as folder,
        Sshd(Path(folder), "--sftp-only") as server,
        SshTransport(server.access()) as transport,
    ):
        with pytest.raises(NoShell, match="runs no commands"):
            transport.run(["true"])
        data = os.urandom(1_500_000)
        transport.write("read back", data)
        (tmp_path / "copy").write_bytes(data)
        expected = subprocess.run(["sha256sum", tmp_path / "copy"], capture_output=True, text=True, check=True)
        assert transport.checksum("read back") == f"sha256:{expected.stdout.split()[0]}"
        assert transport.remove("read back")


def test_no_permission_is_told(ssh: Make, far: Path) -> None:
    far.chmod(0o700)
    shutil.chown(far, "root")
    transport = ssh()
    for use in (
        lambda: transport.write(far / "x", b"x"),
        lambda: transport.mkdir(far / "x"),
        lambda: transport.list(far),
    ):
        with pytest.raises(FileRefused, match="Permission denied") as caught:
            use()
        assert caught.value.transient


def test_the_key_that_is_known_is_asked_for(sshd: Sshd) -> None:
    with SshTransport(sshd.access()) as transport:
        assert transport.run(["true"]).ok
        assert transport._current is not None
        assert transport._current.transport.remote_cipher.startswith("aes128-gcm")


def test_a_transport_shows_no_secret_and_connects_late(sshd: Sshd) -> None:
    transport = SshTransport(sshd.access(port=1, password_from="env:FARM"))
    assert repr(transport) == "<SshTransport sshtest@127.0.0.1:1>"
    transport.close()


def wait_until(true: Callable[[], object], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        threading.Event().wait(0.02)
