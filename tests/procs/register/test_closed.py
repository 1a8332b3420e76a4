"""When a file counts as closed. Time is passed in; files are real."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from procs.register.closed import ClosedCheck, Look, Names, Verdict, open_for_writing
from procs.register.readers import default_formats, run_has_ended
from procs.register.settings import RegisterSettings

FORMATS = default_formats()
SAMBA = b"* Archive SAMBA\n* Version 9.19\n"
TRAILER = b"* Arret normal\n# ===== Fin de run =====\nDate.secondes = 1\n* ----------\n"


def judge(path: Path, *, unchanged: float = 0.0, age: float = 0.0, **settings: Any) -> Verdict:
    check = ClosedCheck(RegisterSettings(**settings), lambda name: run_has_ended(name, FORMATS))
    look = Look.of(path.lstat())
    return check(str(path), look, unchanged, look.modified + age)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "ma22a000_000"
    path.write_bytes(SAMBA + b"x" * 1000)
    return path


def test_a_marker_closes_it(file: Path) -> None:
    assert not judge(file, closed_by=["marker"]).closed
    (file.parent / "ma22a000_000.done").touch()
    assert judge(file, closed_by=["marker"]).closed


def test_a_whole_trailer_closes_it_and_half_of_one_does_not(file: Path) -> None:
    for length in range(len(TRAILER)):
        file.write_bytes(SAMBA + b"\x00\xff" * 3000 + TRAILER[:length])
        assert not judge(file, closed_by=["trailer"]).closed, TRAILER[:length]
    file.write_bytes(SAMBA + b"\x00\xff" * 30000 + TRAILER)
    assert judge(file, closed_by=["trailer"]).closed


def test_a_trailer_in_the_middle_of_a_trace_is_none(file: Path) -> None:
    file.write_bytes(SAMBA + TRAILER + b"\x01\x02\x03" * 10)
    assert not judge(file, closed_by=["trailer"]).closed


def test_a_trailer_counts_only_in_its_own_format(file: Path) -> None:
    file.write_bytes(b"something else\n" + TRAILER)
    assert not judge(file, closed_by=["trailer"]).closed


def test_the_next_partition_closes_it_and_no_other_file_does(file: Path) -> None:
    for name in ("ma22a000_002", "ma22a001_001", "ma22a000_0001", "ma22a000_001.part"):
        (file.parent / name).touch()
    assert not judge(file, closed_by=["partition"]).closed
    (file.parent / "ma22a000_001").touch()
    assert judge(file, closed_by=["partition"]).closed


@pytest.mark.parametrize(
    ("name", "after"),
    [("a_000", "a_001"), ("a_009", "a_010"), ("a_999", "a_1000"), ("m.099", "m.100"), ("a_S01", "a_S02"), ("a", None)],
)
def test_the_name_of_the_next_partition(name: str, after: str | None) -> None:
    names = Names(RegisterSettings())
    assert names.neighbour(name, 1) == after
    if after is not None and len(after) == len(name):
        assert names.neighbour(after, -1) == name


def test_silence_closes_it_by_watching_and_not_by_its_times_alone(file: Path) -> None:
    assert not judge(file, closed_by=["quiet"], quiet=60, unchanged=59.9, age=3000).closed
    assert judge(file, closed_by=["quiet"], quiet=60, unchanged=60, age=0).closed
    verdict = judge(file, closed_by=["quiet"], quiet=60, unchanged=20)
    assert verdict.after == pytest.approx(40)
    assert judge(file, closed_by=["quiet"], quiet=60, unchanged=0, age=3601).closed  # a backlog


def test_a_file_dated_in_the_future_is_still_closed_by_silence(file: Path) -> None:
    os.utime(file, (4e9, 4e9))
    assert not judge(file, closed_by=["quiet"], quiet=60, unchanged=1, age=-1e9).closed
    assert judge(file, closed_by=["quiet"], quiet=60, unchanged=61, age=-1e9).closed


def test_an_old_time_set_by_hand_does_not_close_a_new_file(file: Path) -> None:
    os.utime(file, (1000, 1000))
    look = Look.of(file.lstat())
    check = ClosedCheck(RegisterSettings(closed_by=["quiet"]), lambda name: False)
    assert not check(str(file), look, 0.0, file.lstat().st_ctime + 1).closed


def test_a_final_name_closes_a_file_but_not_an_empty_one(file: Path) -> None:
    assert judge(file, closed_by=["rename"]).closed
    file.write_bytes(b"")
    assert not judge(file, closed_by=["rename"]).closed
    assert judge(file, closed_by=["rename"], unchanged=61).closed


@pytest.mark.parametrize("criterion", ["trailer", "partition", "rename", "quiet"])
def test_a_file_that_a_process_writes_to_is_never_closed(file: Path, criterion: str) -> None:
    file.write_bytes(SAMBA + TRAILER)
    (file.parent / "ma22a000_001").touch()
    writer = "import sys; f = open(sys.argv[1], 'ab'); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", writer, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        if open_for_writing(str(file)) is None:
            pytest.skip("this file system grants no leases: try with TMPDIR on a local disk")
        assert not judge(file, closed_by=[criterion], unchanged=1e6, age=1e6).closed
        assert judge(file, closed_by=[criterion], unchanged=1e6, age=1e6, check_writers=False).closed
        process.communicate()
    assert judge(file, closed_by=[criterion], unchanged=1e6, age=1e6).closed


def test_asking_for_writers_never_raises(tmp_path: Path) -> None:
    assert open_for_writing(str(tmp_path)) is None
    assert open_for_writing(str(tmp_path / "nothing")) is None
    os.mkfifo(tmp_path / "pipe")
    assert open_for_writing(str(tmp_path / "pipe")) is None


def test_what_the_names_say() -> None:
    names = Names(RegisterSettings(include=["ma*", "special/*"], exclude=["*_log"]))
    assert names.wanted("ma22a000_000", "x/ma22a000_000")
    assert names.wanted("other", "special/other")
    assert not names.wanted("other", "other")
    assert not names.wanted("ma22a000_log", "ma22a000_log")
    assert not names.wanted("ma22a000_000.part", "ma22a000_000.part")
    assert not names.wanted(".ma22a000_000", ".ma22a000_000")
    assert not names.wanted("ma22a000_000.done", "ma22a000_000.done")
    assert names.wanted("ma\n x", "ma\n x")
    assert Names(RegisterSettings(closed_by=["quiet"])).wanted("a.done", "a.done")


def test_the_end_of_the_run_in_a_real_date_file(tmp_path: Path, shared_data: Path) -> None:
    content = (shared_data / "mice_06008.000").read_bytes()
    path = tmp_path / "mice_06008.000"
    path.write_bytes(content)
    assert run_has_ended(str(path), FORMATS)
    for cut in (1, 4, 80, 500_000):
        path.write_bytes(content[:-cut])
        ended = run_has_ended(str(path), FORMATS)
        assert not ended or cut == 80, cut
    path.write_bytes(content + b"\0" * 4)
    assert not run_has_ended(str(path), FORMATS)


def test_a_date_file_that_ends_with_another_event_has_not_ended(tmp_path: Path, shared_data: Path) -> None:
    content = (shared_data / "mice_06008.000").read_bytes()
    at, kinds = 0, []
    path = tmp_path / "mice_06008.000"
    while at < len(content):
        size, _, _, _, kind = struct.unpack_from("<5I", content, at)
        at += size
        kinds.append(kind)
        path.write_bytes(content[:at])
        assert run_has_ended(str(path), FORMATS) == (kind == 2), (at, kind)
    assert kinds.count(2) == 2
    assert len(kinds) == 22
