"""proc0 by SFTP into another account's folder through a real sshd: cut, killed, stalled, full, without a shell."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import DataError, TransientError
from orchestrator.step import Work
from orchestrator.transports import SiteAccess
from orchestrator.transports.packets import Packets
from orchestrator.transports.ssh import SshTransport
from orchestrator.transports.testing import USER, Sshd
from procs import sftp
from procs.sftp import Transfer

LOG = logging.getLogger("step")
BIG = 24_000_000


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "ma22a000_003"
    path.write_bytes(os.urandom(BIG))
    return path


class Counting(SshTransport):
    """Counts the bytes that go into the connection, by the connection's own count."""

    @property
    def bytes_out(self) -> int:
        assert self._current is not None
        packets = self._current.transport.packetizer
        assert isinstance(packets, Packets)
        return packets.sealed


def attempt(step: Transfer, source: Path, progress: Any = None, **document: Any) -> dict[str, Any]:
    work = Work({}, source.parent, source.parent, uuid.uuid4().hex, LOG, str(source))
    if progress is not None:
        work.progress = progress
    return step.process({"_id": "d", "run_name": "run", "file": str(source), **document}, work)


def settings(sshd: Sshd, far: Path, **more: Any) -> dict[str, Any]:
    return {"access": {**sshd.settings, **more.pop("access", {})}, "output": str(far), **more}


def total(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_file_arrives_and_is_the_far_account_s(sshd: Sshd, far: Path, source: Path) -> None:
    step = Transfer(settings(sshd, far), LOG)
    result = attempt(step, source)
    copy = Path(result["file"])
    assert total(copy) == total(source) == result["checksum"] and copy.owner() == USER
    assert attempt(step, source) == {**result, "reused": True, "sent": 0}
    json.dumps(result)
    step.close()


def test_a_cut_in_the_middle_and_the_rest_alone_is_sent(
    sshd: Sshd, far: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sftp, "PROGRESS_EVERY", 8_000_000)
    made: list[Counting] = []

    def connect(access: SiteAccess) -> Counting:
        made.append(Counting(access))
        return made[-1]

    step = Transfer(settings(sshd, far), LOG, connect=connect)
    with pytest.raises(TransientError, match="tried again later"):
        attempt(step, source, progress=lambda fraction, text="": sshd.signal_sessions(signal.SIGKILL))
    (left,) = names(far)
    there = (far / "run" / left).stat().st_size
    assert left.endswith(".part") and 8_000_000 <= there < BIG
    result = attempt(step, source)  # by the same step: it connects again
    assert result["resumed_from"] == there and result["sent"] == BIG - there
    assert BIG - there <= made[0].bytes_out < BIG - there + 100_000
    assert names(far) == ["ma22a000_003"] and total(far / "run" / "ma22a000_003") == total(source)
    step.close()


def test_a_worker_killed_in_the_middle_and_the_next_goes_on(sshd: Sshd, far: Path, source: Path) -> None:
    code = (
        "import json, logging, sys, uuid; from pathlib import Path; from orchestrator.step import Work\n"
        "from procs.sftp import Transfer\n"
        "given = json.loads(sys.argv[1]); source = Path(sys.argv[2]); log = logging.getLogger()\n"
        "work = Work({}, source.parent, source.parent, uuid.uuid4().hex, log, str(source))\n"
        "Transfer(given, log).process({'run_name': 'run'}, work)\n"
    )
    slow = json.dumps(settings(sshd, far, bandwidth=20.0))
    worker = subprocess.Popen([sys.executable, "-c", code, slow, str(source)])
    try:
        wait_until(lambda: any(path.stat().st_size > 5_000_000 for path in far.rglob("*.part")))
    finally:
        worker.kill()
        worker.wait()
    step = Transfer(settings(sshd, far), LOG)
    result = attempt(step, source)
    assert 5_000_000 < result["resumed_from"] < BIG and total(far / "run" / "ma22a000_003") == total(source)
    assert names(far) == ["ma22a000_003"]
    step.close()


def test_a_server_that_stands_still_is_given_up(
    sshd: Sshd, far: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sftp, "PROGRESS_EVERY", 4_000_000)
    step = Transfer(settings(sshd, far, access={"timeouts": {"stall": 2}}), LOG)
    began = time.monotonic()
    try:
        with pytest.raises(TransientError, match=r"no (answer|room for more data) within 2 s"):
            attempt(step, source, progress=lambda fraction, text="": sshd.signal_sessions(signal.SIGSTOP))
    finally:
        sshd.signal_sessions(signal.SIGCONT)
    assert time.monotonic() - began < 15
    assert attempt(step, source)["resumed_from"] >= 4_000_000
    step.close()


def test_a_full_disk_is_an_error_with_the_room_that_is_left(sshd: Sshd, far: Path, source: Path) -> None:
    words = ["mount", "-t", "tmpfs", "-o", "size=8m,mode=777", "tmpfs", str(far)]
    if subprocess.run(words, capture_output=True).returncode:
        pytest.skip("needs the right to mount: run the tests as root outside of an unprivileged container")
    step = Transfer(settings(sshd, far), LOG)
    try:
        with pytest.raises(TransientError, match=r"The disk is full \([0-9.]+ of 8 MB are free there\): make room"):
            attempt(step, source)
        assert names(far) == []
        source.write_bytes(os.urandom(1_000_000))
        assert attempt(step, source)["reused"] is False
        (far / "filler").write_bytes(b"")
        with (far / "filler").open("wb") as filler, pytest.raises(OSError, match="No space left"):
            while filler.write(bytes(1 << 16)):
                filler.flush()
        small = source.with_name("small")
        small.write_bytes(os.urandom(100_000))
        with pytest.raises(TransientError, match="The disk is full"):
            attempt(step, small)
        assert names(far) == ["filler", "ma22a000_003"]
    finally:
        step.close()
        end = time.monotonic() + 5
        while subprocess.run(["umount", str(far)], capture_output=True).returncode and time.monotonic() < end:
            threading.Event().wait(0.05)


def test_without_a_shell_the_copy_is_proved_by_reading_it(far: Path, source: Path) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="sshd-", dir="/var/tmp") as folder,
        Sshd(Path(folder), "--sftp-only") as server,
    ):
        step = Transfer(settings(server, far), LOG)
        result = attempt(step, source)
        assert total(Path(result["file"])) == result["checksum"]
        for number in range(3):
            small = source.with_name(f"small{number}")
            small.write_bytes(os.urandom(100_000 * number))
            result = attempt(step, small)
            assert total(Path(result["file"])) == result["checksum"] == total(small)
        step.close()


def test_a_small_file_that_is_not_the_registered_one_never_gets_its_name(
    sshd: Sshd, far: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, small = Transfer(settings(sshd, far), LOG), tmp_path / "small"
    small.write_bytes(os.urandom(100_000))
    with pytest.raises(DataError, match="was registered"):
        attempt(step, small, size=100_000, checksum="sha256:" + "0" * 64)
    really = SshTransport.deliver
    monkeypatch.setattr(
        SshTransport, "deliver",
        lambda self, part, target, data, checksum, **more: really(self, part, target, data[:-1], checksum, **more),
    )  # fmt: skip
    with pytest.raises(TransientError, match="instead of"):
        attempt(step, small)
    assert names(far) == []
    monkeypatch.undo()
    (far / "run" / "small").write_bytes(b"another")
    with pytest.raises(DataError, match="another file"):
        attempt(step, small)
    assert names(far) == ["small"]
    (far / "run" / "small").unlink()
    assert attempt(step, small)["reused"] is False and attempt(step, small)["reused"] is True
    assert names(far) == ["small"]
    step.close()


def test_no_permission_and_a_missing_folder_are_told(sshd: Sshd, far: Path, source: Path) -> None:
    shutil.chown(far, "root")
    far.chmod(0o755)
    step = Transfer(settings(sshd, far), LOG)
    with pytest.raises(TransientError, match=r"Permission denied.*Let the account write there"):
        attempt(step, source)
    step.close()


def test_a_folder_that_was_removed_meanwhile_is_made_again(sshd: Sshd, far: Path, source: Path) -> None:
    step = Transfer(settings(sshd, far), LOG)
    attempt(step, source)
    shutil.rmtree(far / "run")
    with pytest.raises(TransientError, match="Its folder has gone"):
        attempt(step, source)
    assert attempt(step, source)["reused"] is False
    step.close()


def test_a_strange_machine_gets_nothing_and_the_file_is_not_blamed(
    sshd: Sshd, far: Path, source: Path, tmp_path: Path
) -> None:
    step = Transfer(settings(sshd, far, access={"known_hosts": str(tmp_path / "none")}), LOG)
    with pytest.raises(TransientError, match="compare the fingerprint"):
        attempt(step, source)
    assert names(far) == []
    step.close()


@pytest.mark.parametrize(
    "name", ["a b", "it's", 'a"b', "$(touch pwned)", "new\nline", "-rf", "ä€", os.fsdecode(b"latin\xe9")]
)
def test_names_of_any_kind_arrive(sshd: Sshd, far: Path, source: Path, name: str) -> None:
    odd = source.rename(source.with_name(name))
    odd.write_bytes(odd.read_bytes()[:600_000])  # large enough for a checksum by the far end's shell
    output = far / "of $(touch pwned) 'x'\n"
    step = Transfer({"access": sshd.settings, "output": str(output)}, LOG)
    result = attempt(step, odd, run_name=f"run {name}", file=None)
    assert total(Path(result["file"])) == total(odd) and Path(result["file"]).parents[1] == output
    assert len(names(far)) == 1
    with SshTransport(sshd.access()) as transport:
        assert not transport.exists("pwned")
    step.close()


def test_several_workers_at_once(sshd: Sshd, far: Path, tmp_path: Path) -> None:
    sources = []
    for number in range(30):
        sources.append(tmp_path / f"f{number:02d}")
        sources[-1].write_bytes(os.urandom(20_000 * (number + 1)))
    faults: list[BaseException] = []

    def work(part: list[Path]) -> None:
        step = Transfer(settings(sshd, far), LOG)
        try:
            for one in part:
                assert attempt(step, one)["checksum"] == total(far / "run" / one.name)
        except BaseException as error:
            faults.append(error)
        finally:
            step.close()

    threads = [threading.Thread(target=work, args=(sources[n::3],)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not faults and names(far) == [one.name for one in sources]


def wait_until(true: Any, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        threading.Event().wait(0.02)
