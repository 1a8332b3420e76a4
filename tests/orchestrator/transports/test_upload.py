"""How far a file has come, as its answers come in any order; and a small one that goes in one exchange."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import TransientError
from orchestrator.transports import upload
from orchestrator.transports.errors import FileRefused
from orchestrator.transports.model import Sent
from orchestrator.transports.sftp import Sftp
from orchestrator.transports.ssh import SshTransport
from orchestrator.transports.testing import Sshd
from orchestrator.transports.wire import Kind, Open


class Session:
    """Takes requests and answers them in the order that it is given."""

    block = 10

    def __init__(self, order: list[int]) -> None:
        self.order = order
        self.number = 0

    def request(self, *_: Any, **__: Any) -> tuple[int, bytes]:
        self.number += 1
        return self.number, b""

    def dispatch(self, *_: Any) -> None:
        """Nothing is sent anywhere."""

    def ready(self) -> bool:
        return False

    def next_answer(self) -> tuple[int, Kind, bytes]:
        return self.order.pop(0), Kind.STATUS, b""

    def expect(self, *_: Any) -> None:
        """All is well."""


def test_only_what_is_there_without_a_gap_is_confirmed() -> None:
    told: list[int] = []
    made = upload.Upload(Session([3, 2, 1]), b"handle", b"path", 0, told.append)  # type: ignore[arg-type]
    made.write(bytes(30))
    made._settle(2)  # the third is answered first
    made._settle(1)
    assert told == []
    made._settle(0)
    assert told == [30]


def test_small_files_go_in_one_exchange_once_the_handle_can_be_foreseen(
    sshd: Sshd, far: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packets: list[int] = []
    really = Sftp.dispatch
    monkeypatch.setattr(Sftp, "dispatch", lambda self, *data: (packets.append(1), really(self, *data)))
    with SshTransport(sshd.access()) as transport:
        for number in range(3):
            packets.clear()
            sent = transport.send(far / f"{number}", [bytes([number]) * 100_000], read_back=100_000)
            assert sent.size == 100_000 and sent.read_back == bytes([number]) * 100_000
            assert len(packets) == (2 if number == 0 else 1)
        packets.clear()
        assert transport.send(far / "empty", []).size == 0 and len(packets) == 1
        pieces = [bytes([number]) * 7000 for number in range(50)]
        assert transport.send(far / "larger", pieces).size == 350_000
        assert (far / "larger").read_bytes() == b"".join(pieces)
        assert transport.send(far / "last", iter([b"x" * 300_000])).size == 300_000  # more than one block


@pytest.mark.parametrize("wrong", [b"\0\0\0\5", b"another", b""])
def test_a_handle_foreseen_wrongly_costs_an_exchange_and_nothing_else(sshd: Sshd, far: Path, wrong: bytes) -> None:
    with SshTransport(sshd.access()) as transport:
        for name in ("one", "two", "three"):
            with transport._sftp() as sftp:
                sftp._last = wrong
            assert transport.send(far / name, [b"abc"], read_back=3) == Sent(3, b"abc")
            assert (far / name).read_bytes() == b"abc"
        with transport._sftp() as sftp:
            assert not sftp._open and sftp.likely_handle() not in (None, wrong)


def test_nothing_is_foreseen_while_something_is_open(sshd: Sshd, far: Path) -> None:
    (far / "held").write_bytes(b"keep me")
    (far / "held").chmod(0o666)
    with SshTransport(sshd.access()) as transport:
        assert transport.send(far / "one", [b"1"]).size == 1
        with transport._sftp() as sftp:
            held = sftp.open(os.fsencode(far / "held"), Open.READ | Open.WRITE)
            assert sftp.likely_handle() is None
            sftp.close_handle(held)
            assert sftp.likely_handle() == held


def test_what_refuses_a_file_at_its_opening_is_told_and_the_session_goes_on(sshd: Sshd, far: Path) -> None:
    with SshTransport(sshd.access()) as transport:
        transport.send(far / "one", [b"1"])
        with pytest.raises(FileRefused) as refused:
            transport.send(far / "no folder" / "two", [b"2"])
        assert refused.value.errno == errno.ENOENT and "open" in str(refused.value)

        def fails() -> Iterator[bytes]:
            yield b"3"
            raise TransientError("the source is gone")

        with pytest.raises(TransientError):
            transport.send(far / "three", fails())
        assert transport.send(far / "four", [b"4"]).size == 1
