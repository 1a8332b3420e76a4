"""proc0 by SFTP, its decisions: what is sent, resumed, reused, refused. The far end is a folder here, without sshd."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import DataError, SettingsError, TransientError
from orchestrator.step import Work
from orchestrator.transports import (
    FileRefused,
    HostKeyRefused,
    LocalTransport,
    Sent,
    SiteAccess,
    Space,
    Timeouts,
    TransportUnavailable,
)
from procs import sftp
from procs.sftp import Transfer
from procs.sftp_source import Source, paced

LOG = logging.getLogger("step")
ACCESS = {"host": "centre", "user": "daq"}
BIG = 9_000_000


class Far(LocalTransport):
    """A far end that counts what is sent, and breaks where it is told to."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.where = "daq@centre"
        self.sent: list[int] = []
        self.cut_after: int | None = None
        self.fault: Exception | None = None
        self.room = Space(10**9, 10**9)

    def send(self, path: Any, chunks: Iterable[bytes], **more: Any) -> Sent:
        self.sent.append(0)

        def counted() -> Iterator[bytes]:
            for chunk in chunks:
                if self.fault is not None:
                    raise self.fault
                self.sent[-1] += len(chunk)
                yield chunk
                if self.cut_after is not None and self.sent[-1] >= self.cut_after:
                    self.cut_after = None
                    raise TransportUnavailable("the connection was cut")

        return super().send(path, counted(), **more)

    def space(self, path: Any) -> Space | None:
        return self.room


@pytest.fixture
def far(tmp_path: Path) -> Far:
    (tmp_path / "far").mkdir()
    return Far(tmp_path / "far")


def send(far: Far, source: Path, document: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    """One attempt by a step of its own."""
    step = Transfer({"access": ACCESS, **settings}, LOG, connect=lambda access: far)
    return attempt(step, source, document)


def attempt(step: Transfer, source: Path, document: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    work = Work({}, source.parent, source.parent, uuid.uuid4().hex, LOG, str(source), **more)
    document = {"_id": "d", "run_name": "ma22a000", "file": str(source), **(document or {})}
    if "number" in document:
        document["proc0"] = {"attempt": work.attempt, "number": document.pop("number")}
    return step.process(document, work)


def total(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_the_copy_is_identical_and_described(far: Far, source: Path, tmp_path: Path) -> None:
    result = send(far, source, {"size": 200_000, "checksum": total(source)})
    copy = tmp_path / "far" / "raw" / "ma22a000" / "ma22a000_003"
    assert copy.read_bytes() == source.read_bytes() and files(tmp_path / "far") == ["raw/ma22a000/ma22a000_003"]
    assert result == {
        "file": str(copy), "size": 200_000, "checksum": total(source), "where": "daq@centre", "reused": False,
        "resumed_from": 0, "sent": 200_000, "source": {"file": str(source), "checksum": total(source)},
    }  # fmt: skip


@pytest.mark.parametrize("size", [0, 1, sftp.READ_BACK, sftp.READ_BACK + 1, 3_000_000])
def test_files_of_any_size_and_again_are_reused(far: Far, source: Path, size: int) -> None:
    source.write_bytes(os.urandom(size))
    first = send(far, source)
    assert (first["size"], first["checksum"], first["reused"]) == (size, total(source), False)
    second = send(far, source)
    assert second == {**first, "reused": True, "sent": 0}
    assert files(Path(first["file"]).parent) == ["ma22a000_003"]


@pytest.mark.parametrize("size", [1000, 300_000])
def test_another_file_in_its_place_is_refused_or_replaced(far: Far, source: Path, size: int) -> None:
    source.write_bytes(os.urandom(size))
    copy = Path(send(far, source)["file"])
    for other in (b"another", os.urandom(size)):
        copy.write_bytes(other)
        with pytest.raises(DataError, match="is on daq@centre already and is another file"):
            send(far, source)
        assert copy.read_bytes() == other and files(copy.parent) == ["ma22a000_003"]
    assert send(far, source, overwrite="replace")["reused"] is False
    assert copy.read_bytes() == source.read_bytes()


def test_a_file_that_is_not_the_registered_one_is_a_data_error(far: Far, source: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="was registered"):
        send(far, source, {"checksum": "sha256:" + "0" * 64})
    with pytest.raises(DataError, match="bytes, but 5 were registered"):
        send(far, source, {"size": 5})
    assert files(tmp_path / "far") == []


def test_after_a_cut_only_the_rest_is_sent(far: Far, source: Path) -> None:
    source.write_bytes(os.urandom(BIG))
    far.cut_after = 5_000_000
    with pytest.raises(TransientError, match="the connection was cut"):
        send(far, source)
    folder = Path(far.absolute("raw/ma22a000"))
    (left,) = files(folder)
    there = (folder / left).stat().st_size
    assert there >= 5_000_000 and left.endswith(".part")
    result = send(far, source)
    assert result["resumed_from"] == there and result["sent"] == far.sent[-1] == BIG - there
    assert files(folder) == ["ma22a000_003"] and total(folder / "ma22a000_003") == total(source) == result["checksum"]


def test_a_part_whose_beginning_differs_is_thrown_away(far: Far, source: Path) -> None:
    source.write_bytes(os.urandom(BIG))
    far.cut_after = 5_000_000
    with pytest.raises(TransientError):
        send(far, source)
    (left,) = Path(far.absolute("raw/ma22a000")).iterdir()
    with left.open("r+b") as part:
        part.seek(1234)
        part.write(b"damaged")
    result = send(far, source)
    assert (result["resumed_from"], far.sent[-1]) == (0, BIG)
    assert files(left.parent) == ["ma22a000_003"]


def test_the_longest_good_part_is_taken_and_the_others_go(far: Far, source: Path) -> None:
    data = os.urandom(BIG)
    source.write_bytes(data)
    folder = Path(far.absolute("raw/ma22a000"))
    folder.mkdir(parents=True)
    for number, content in enumerate([data[:3_000_000], data[:6_000_000], b"x" * 7_000_000, data + b"longer", b""]):
        (folder / f".ma22a000_003.{number:032x}.part").write_bytes(content)
    strangers = [f".ma22a000_0031.{0:032x}.part", ".ma22a000_003.notes.part", "ma22a000_004"]
    for name in strangers:
        (folder / name).write_bytes(b"of others")
    assert send(far, source)["resumed_from"] == 6_000_000
    assert files(folder) == sorted([*strangers, "ma22a000_003"])


def test_a_whole_part_needs_nothing_more(far: Far, source: Path) -> None:
    source.write_bytes(os.urandom(BIG))
    folder = Path(far.absolute("raw/ma22a000"))
    folder.mkdir(parents=True)
    (folder / f".ma22a000_003.{1:032x}.part").write_bytes(source.read_bytes())
    assert send(far, source)["sent"] == 0
    assert files(folder) == ["ma22a000_003"]


def test_a_part_that_another_attempt_takes_in_the_same_moment_is_left_to_it(
    far: Far, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.write_bytes(os.urandom(BIG))
    far.cut_after = 5_000_000
    with pytest.raises(TransientError):
        send(far, source)
    real = far.rename

    def rename(old: Any, new: Any) -> None:
        Path(old).unlink()
        real(old, new)

    monkeypatch.setattr(far, "rename", rename)
    assert send(far, source)["resumed_from"] == 0


def test_resume_can_be_switched_off(far: Far, source: Path) -> None:
    source.write_bytes(os.urandom(BIG))
    far.cut_after = 5_000_000
    with pytest.raises(TransientError):
        send(far, source)
    assert send(far, source, resume=False)["sent"] == BIG


def test_parts_of_small_files_are_looked_for_only_at_a_further_attempt(far: Far, source: Path) -> None:
    folder = Path(far.absolute("raw/ma22a000"))
    folder.mkdir(parents=True)
    part = folder / f".ma22a000_003.{1:032x}.part"
    part.write_bytes(source.read_bytes()[:1000])
    send(far, source, {"number": 1})
    assert part.exists()
    Path(folder / "ma22a000_003").unlink()
    assert send(far, source, {"number": 2})["resumed_from"] == 1000
    assert files(folder) == ["ma22a000_003"]


@pytest.mark.parametrize("change", ["grow", "shrink", "replace"])
def test_a_source_that_changes_meanwhile_is_tried_again(
    far: Far, source: Path, change: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = far.send

    def sending(path: Any, chunks: Iterable[bytes], **more: Any) -> Sent:
        def meddled() -> Iterator[bytes]:
            for number, chunk in enumerate(chunks):
                yield chunk
                if number == 0:
                    if change == "replace":
                        other = source.with_name("new")
                        other.write_bytes(source.read_bytes())
                        other.replace(source)
                    else:
                        os.truncate(source, BIG + 5 if change == "grow" else 100)

        return real(path, meddled(), **more)

    source.write_bytes(os.urandom(BIG))
    monkeypatch.setattr(far, "send", sending)
    with pytest.raises(TransientError, match=r"changed while it was sent|became shorter"):
        send(far, source)
    assert files(tmp_path / "far") == []


def test_a_full_disk_is_told_with_the_room_that_is_left(far: Far, source: Path, tmp_path: Path) -> None:
    far.fault, far.room = FileRefused("could not write 'x' on daq@centre: Failure"), Space(1000, 10**9)
    with pytest.raises(TransientError, match=r"The disk is full \(0.0 of 1000 MB are free there\)"):
        send(far, source)
    assert files(tmp_path / "far") == []
    far.room = Space(10**8, 10**9)
    with pytest.raises(TransientError, match=r"100.0 of 1000 MB are free there, so perhaps a quota"):
        send(far, source)
    far.fault = FileRefused("could not write 'x': Permission denied", errno=errno.EACCES)
    with pytest.raises(TransientError, match="Let the account write there"):
        send(far, source)


@pytest.mark.parametrize("size", [1000, 400_000])
def test_bytes_that_arrive_otherwise_are_found(
    far: Far, source: Path, size: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source.write_bytes(os.urandom(size))
    real = far.send
    monkeypatch.setattr(far, "send", lambda path, chunks, **more: real(path, [b"x" * len(c) for c in chunks], **more))
    with pytest.raises(TransientError, match="has the checksum"):
        send(far, source)
    monkeypatch.setattr(far, "send", lambda path, chunks, **more: real(path, list(chunks)[1:], **more))
    with pytest.raises(TransientError, match="has 0 bytes instead of"):
        send(far, source)
    assert files(tmp_path / "far") == []


def test_a_second_copy(far: Far, source: Path, tmp_path: Path) -> None:
    (tmp_path / "tape").mkdir()
    tape = Far(tmp_path / "tape")
    result = send(far, source, second={"output": "archive"})
    assert Path(result["second"]["file"]) == tmp_path / "far" / "archive" / "ma22a000" / "ma22a000_003"
    assert result["second"]["checksum"] == total(source) == total(Path(result["second"]["file"]))

    hosts: list[str] = []

    def connect(access: SiteAccess) -> Far:
        hosts.append(access.host)
        return tape if access.host == "tape" else far

    step = Transfer({"access": ACCESS, "second": {"output": "a", "access": {"host": "tape"}}}, LOG, connect=connect)
    assert attempt(step, source)["second"]["reused"] is False
    assert hosts == ["centre", "tape"] and files(tmp_path / "tape") == ["a/ma22a000/ma22a000_003"]


@pytest.mark.parametrize(
    "name", ["a b", "it's", 'a"b', "$(touch pwned)", "new\nline", "-rf", ".hidden", "ä€", os.fsdecode(b"latin\xe9")]
)
def test_names_of_any_kind_arrive_as_one_file(far: Far, source: Path, name: str, tmp_path: Path) -> None:
    odd = source.rename(source.with_name(name))
    result = send(far, odd, {"run_name": f"../{name}", "file": None})
    assert Path(result["file"]).read_bytes() == odd.read_bytes()
    assert Path(result["file"]).parents[1] == tmp_path / "far" / "raw"
    assert len(files(tmp_path / "far")) == 1 and not list(tmp_path.rglob("pwned"))
    assert send(far, odd, {"run_name": f"../{name}", "file": None})["reused"] is True


def test_what_the_transport_refuses_is_no_fault_of_the_file(
    far: Far, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stranger(path: Any) -> None:
        raise HostKeyRefused("the key has changed")

    monkeypatch.setattr(far, "mkdir", stranger)
    with pytest.raises(TransientError, match="the key has changed"):
        send(far, source)


def test_a_source_that_is_not_there_or_no_file(far: Far, source: Path) -> None:
    with pytest.raises((DataError, TransientError), match="absent"):
        send(far, source.with_name("absent"))
    with pytest.raises(DataError):
        send(far, source.parent)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "needs the setting 'access'"),
        ({"access": {"host": "h", "password": "hunter2"}}, "password_from"),
        ({"access": ACCESS, "outputs": "x"}, "did you mean 'output'"),
        ({"access": ACCESS, "output": "~/raw"}, "from the account's home"),
        ({"access": ACCESS, "bandwidth": -1.0}, "bandwidth"),
        ({"access": ACCESS, "overwrite": "yes"}, "refuse, replace"),
        ({"access": ACCESS, "second": {"output": "raw"}}, "another folder"),
        ({"access": ACCESS, "second": "archive"}, "write {output: folder}"),
    ],
)
def test_settings_are_checked_at_birth(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Transfer(settings, LOG)
    assert sentence in str(caught.value) and "hunter2" not in str(caught.value)


def test_progress_is_told(far: Far, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sftp, "PROGRESS_EVERY", 2_000_000)
    source.write_bytes(os.urandom(BIG))
    told: list[tuple[float, str]] = []
    step = Transfer({"access": ACCESS}, LOG, connect=lambda access: far)
    attempt(step, source, progress=lambda fraction, text="": told.append((fraction, text)))
    assert len(told) >= 4 and told == sorted(told) and all(0 < fraction <= 1 for fraction, _ in told)
    assert told[0][1].endswith("of 9 MB")


@pytest.mark.parametrize("rate", [10_000, 1_000_000, 100_000_000])
def test_a_bandwidth_limit_is_kept(rate: int) -> None:
    now = [50.0]
    data = os.urandom(2_500_000)

    def wait(seconds: float) -> None:
        assert 0 < seconds < 1.1
        now[0] += seconds

    def clock() -> float:
        return now[0]

    parts = list(paced(iter([data[:1_000_000], data[1_000_000:]]), rate, clock=clock, wait=wait))
    assert b"".join(parts) == data
    assert now[0] - 50.0 == pytest.approx(len(data) / rate, rel=1e-6)


def test_lost_time_is_not_made_up_for() -> None:
    now = [0.0]
    seen: list[float] = []
    for number, _ in enumerate(
        paced(iter([b"x" * 1000] * 40), 1000, clock=lambda: now[0], wait=lambda s: advance(now, s))
    ):
        if number == 10:
            now[0] += 3600  # the connection stood still
        seen.append(now[0])
    assert seen[-1] == pytest.approx(3600 + 39 - 1, abs=2)


def advance(now: list[float], seconds: float) -> None:
    now[0] += seconds


def test_reading_ahead_stops_when_nobody_wants_more(source: Path) -> None:
    import threading

    source.write_bytes(os.urandom(30_000_000))
    before = threading.active_count()
    with Source.opened(source) as opened:
        chunks: Callable[[], bytes] | Any = opened.chunks(0)
        next(chunks)
        chunks.close()
    assert threading.active_count() == before


def test_the_guide_names_every_setting() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "transfer.md").read_text("utf-8")
    for name in [*sftp.DEFAULTS, *SiteAccess.model_fields, *Timeouts.model_fields]:
        assert f"`{name}`" in guide, name
