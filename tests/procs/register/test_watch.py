"""The watcher on real folders with real events; its clock is ours."""

from __future__ import annotations

import logging
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from procs.register import watch
from procs.register.found import Found, outermost
from procs.register.readers import default_formats, run_has_ended
from procs.register.settings import RegisterSettings
from procs.register.watch import Watcher

FORMATS = default_formats()


class Clock:
    """Monotonic seconds that go when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(tmp_path: Path, clock: Clock) -> Iterator[Callable[..., Watcher]]:
    made: list[Watcher] = []

    def make_one(**settings: Any) -> Watcher:
        values: dict[str, Any] = {
            "directories": [str(tmp_path)],
            "events": "always",
            "closed_by": ["rename"],
            **settings,
        }
        one = Watcher(
            RegisterSettings(**values), lambda path: run_has_ended(path, FORMATS), monotonic=clock, wall=time.time
        )
        made.append(one)
        return one

    yield make_one
    for one in made:
        one.close()


def drain(watcher: Watcher, limit: int = 500) -> list[str]:
    """Everything that is ready now, settled, by name."""
    found: list[Found] = []
    while True:
        part = watcher.take(limit)
        for one in part:
            watcher.settle(one)
        found += part
        if not part and not watcher.busy:
            return [Path(one.path).name for one in found]


def test_files_are_found_once_wherever_they_are(make: Callable[..., Watcher], tmp_path: Path, clock: Clock) -> None:
    deep = tmp_path / "a" / "b" / "c"
    deep.mkdir(parents=True)
    for number in range(50):
        (tmp_path / f"x{number}").write_text("x")
        (deep / f"y{number}").write_text("y")
    watcher = make()
    assert sorted(drain(watcher, 7)) == sorted([f"x{n}" for n in range(50)] + [f"y{n}" for n in range(50)])
    assert drain(watcher) == []
    clock.now += 61
    assert drain(watcher) == []  # a scan later, still once


def test_events_tell_of_new_files_without_a_scan(make: Callable[..., Watcher], tmp_path: Path) -> None:
    watcher = make()
    assert drain(watcher) == []
    (tmp_path / "written").write_text("x")
    with (tmp_path / "r.part").open("w") as file:
        file.write("x")
        file.flush()
        assert drain(watcher) == ["written"]
    (tmp_path / "r.part").rename(tmp_path / "renamed")
    assert drain(watcher) == ["renamed"]
    os.link(tmp_path / "renamed", tmp_path / "linked")
    assert drain(watcher) == ["linked"]
    new = tmp_path / "new" / "deeper"
    new.mkdir(parents=True)
    (new / "inside").write_text("x")
    assert drain(watcher) == ["inside"]
    (new / "later").write_text("x")
    assert drain(watcher) == ["later"]


def test_a_folder_moved_in_or_renamed_is_followed(
    make: Callable[..., Watcher], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    watcher = make()
    drain(watcher)
    outside = tmp_path_factory.mktemp("outside")
    (outside / "run").mkdir()
    (outside / "run" / "one").write_text("x")
    (outside / "run").rename(tmp_path / "run")
    assert drain(watcher) == ["one"]
    (tmp_path / "run").rename(tmp_path / "other")
    assert drain(watcher) == ["one"]  # another path; the database knows that it is the same file
    (tmp_path / "other" / "two").write_text("x")
    found = watcher.take(10)
    assert [one.path for one in found] == [str(tmp_path / "other" / "two")]
    (tmp_path / "other").rename(outside / "other")
    drain(watcher)
    assert watcher.watched == 1  # the watch on what has left is given back


def test_a_file_still_being_written_is_never_handed_out(
    make: Callable[..., Watcher], tmp_path: Path, clock: Clock
) -> None:
    watcher = make(closed_by=["quiet"], quiet=10)
    with (tmp_path / "growing").open("wb") as file:
        for _ in range(30):
            file.write(b"x" * 10)
            file.flush()
            clock.now += 9
            assert drain(watcher) == []
    clock.now += 9.9
    assert drain(watcher) == []
    clock.now += 10.1
    assert drain(watcher) == ["growing"]


def test_a_trailer_or_a_marker_or_the_next_partition_rings_at_once(
    make: Callable[..., Watcher], tmp_path: Path
) -> None:
    watcher = make(closed_by=["marker", "trailer", "partition"])
    (tmp_path / "a_000").write_text("* Archive SAMBA\nx")
    assert drain(watcher) == []
    assert watcher.waiting_count == 1
    (tmp_path / "a_001").write_text("* Archive SAMBA\nx")
    assert drain(watcher) == ["a_000"]
    (tmp_path / "a_001.done").touch()
    assert drain(watcher) == ["a_001"]
    (tmp_path / "b_000").write_text("* Archive SAMBA\n# ===== Fin de run =====\nDate = 1\n* ------\n")
    assert drain(watcher) == ["b_000"]
    assert watcher.waiting_count == 0


def test_without_events_scans_find_the_same(make: Callable[..., Watcher], tmp_path: Path, clock: Clock) -> None:
    watcher = make(events="never", poll=2)
    assert drain(watcher) == []
    (tmp_path / "one").write_text("x")
    assert drain(watcher) == []
    clock.now += 2.1
    assert drain(watcher) == ["one"]


def test_a_network_file_system_is_polled(tmp_path: Path, clock: Clock) -> None:
    settings = RegisterSettings(directories=[str(tmp_path)], closed_by=["rename"])
    watcher = Watcher(settings, lambda path: False, monotonic=clock, has_events=lambda folder: False)
    assert drain(watcher) == []
    (tmp_path / "one").write_text("x")
    assert drain(watcher) == []
    clock.now += 2.1
    assert drain(watcher) == ["one"]
    watcher.close()


def test_lost_events_are_made_up_for_by_a_scan(
    make: Callable[..., Watcher], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher = make()
    drain(watcher)
    monkeypatch.setattr(watch, "MOST_RUNG", 100)
    for number in range(300):
        (tmp_path / f"x{number:03d}").write_text("x")
    assert sorted(drain(watcher)) == [f"x{number:03d}" for number in range(300)]


def test_a_folder_that_is_away_is_reported_and_found_when_it_is_back(
    make: Callable[..., Watcher], tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    here, away = tmp_path / "here", tmp_path / "away"
    here.mkdir()
    watcher = make(directories=[str(here), str(away)])
    (here / "one").write_text("x")
    assert drain(watcher) == ["one"]
    for _ in range(5):
        clock.now += 3
        assert drain(watcher) == []
    assert list(watcher.problems) == [str(away)]
    assert len([r for r in caplog.records if "cannot be read" in r.message]) == 1
    away.mkdir()
    (away / "two").write_text("x")
    clock.now += 3
    assert drain(watcher) == ["two"]
    assert watcher.problems == {}
    (away / "two").unlink()
    away.rmdir()  # vanishes while it is watched
    drain(watcher)
    away.mkdir()
    (away / "three").write_text("x")
    clock.now += 3
    assert drain(watcher) == ["three"]
    (away / "four").write_text("x")
    assert drain(watcher) == ["four"]  # by an event of the new folder


def _again_without_roots_privileges() -> None:
    """Run the test once more where file permissions hold for root too; skip it where that cannot be had."""
    if shutil.which("setpriv") is None:
        pytest.skip("this account may read every folder: run as a user, or install util-linux for setpriv")
    without = "-dac_override,-dac_read_search"
    test = f"{__file__}::test_a_folder_that_may_not_be_read_stops_no_other"
    command = ["setpriv", f"--bounding-set={without}", f"--inh-caps={without}"]
    again = subprocess.run(
        [*command, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test], capture_output=True, text=True
    )
    assert again.returncode == 0 and "1 passed" in again.stdout, again.stdout + again.stderr


def test_a_folder_that_may_not_be_read_stops_no_other(make: Callable[..., Watcher], tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0)
    if os.access(tmp_path / "locked", os.R_OK):
        _again_without_roots_privileges()
        return
    (tmp_path / "one").write_text("x")
    watcher = make()
    assert drain(watcher) == ["one"]
    assert str(tmp_path / "locked") in watcher.problems


def test_symbolic_links_are_not_followed(
    make: Callable[..., Watcher], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("secret")
    (outside / "secret").write_text("x")
    (tmp_path / "link").symlink_to(outside / "secret")
    (tmp_path / "folder").symlink_to(outside)
    (tmp_path / "loop").symlink_to(tmp_path)
    watcher = make()
    assert drain(watcher) == []
    (tmp_path / "later").symlink_to(outside / "secret")
    (tmp_path / "later_folder").symlink_to(outside)
    assert drain(watcher) == []


def test_pipes_sockets_and_temporary_folders_are_left_alone(make: Callable[..., Watcher], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / ".snapshot").mkdir()
    (tmp_path / ".snapshot" / "old").write_text("x")
    assert drain(make()) == []


def test_names_of_any_bytes_come_through_scans_and_events(make: Callable[..., Watcher], tmp_path: Path) -> None:
    hostile = [
        b"a b",
        b"new\nline",
        b"\xff\xfe",
        b"'\"",
        b"$(id);`id`",
        "é\u202e".encode(),
        b"-rf",
        b"*",
        b"\\",
        b"x" * 255,
    ]
    folder = os.fsencode(tmp_path)
    watcher = make()
    drain(watcher)
    for name in hostile:
        with open(folder + b"/" + name, "wb") as file:  # noqa: PTH123 - a name that is no text
            file.write(b"x")
    by_event = drain(watcher)
    assert sorted(map(os.fsencode, by_event)) == sorted(hostile)
    assert sorted(drain(make())) == sorted(by_event)


def test_a_changed_file_is_handed_out_again_and_a_kept_back_one_later(
    make: Callable[..., Watcher], tmp_path: Path, clock: Clock
) -> None:
    watcher = make()
    (tmp_path / "one").write_text("x")
    (found,) = watcher.take(10)
    watcher.again(found, 60, "refused")
    assert drain(watcher) == []
    assert watcher.waiting == {str(tmp_path / "one"): "refused"}
    clock.now += 60.1
    assert drain(watcher) == ["one"]
    (tmp_path / "one").write_text("longer")
    assert drain(watcher) == ["one"]


def test_a_quiet_file_kept_back_need_not_be_quiet_again(
    make: Callable[..., Watcher], tmp_path: Path, clock: Clock
) -> None:
    watcher = make(closed_by=["quiet"], quiet=100)
    (tmp_path / "one").write_text("x")
    drain(watcher)
    clock.now += 101
    (found,) = watcher.take(10)
    watcher.again(found, 0)
    assert drain(watcher) == ["one"]


def test_open_files_are_announced_once_and_handed_out_when_closed(
    make: Callable[..., Watcher], tmp_path: Path, clock: Clock
) -> None:
    watcher = make(closed_by=["quiet"], quiet=10, register_open=True)
    with (tmp_path / "one").open("w") as file:
        (found,) = watcher.take(10)
        assert not found.closed
        watcher.settle(found)
        file.write("x")
        file.flush()
        clock.now += 61
        assert drain(watcher) == []
    clock.now += 61
    (found,) = watcher.take(10)
    assert found.closed


def test_waiting_files_that_are_deleted_are_forgotten(
    make: Callable[..., Watcher], tmp_path: Path, clock: Clock
) -> None:
    watcher = make(closed_by=["marker"])
    (tmp_path / "one").write_text("x")
    drain(watcher)
    assert watcher.waiting_count == 1
    (tmp_path / "one").unlink()
    clock.now += 61
    drain(watcher)
    assert watcher.waiting_count == 0


def test_waiting_ends_with_an_event_and_with_the_stop_sign(tmp_path: Path) -> None:
    settings = RegisterSettings(directories=[str(tmp_path)], closed_by=["rename"], events="always")
    watcher = Watcher(settings, lambda path: False)
    while watcher.take(10) or watcher.busy:
        pass
    stop = threading.Event()
    thread = threading.Thread(target=watcher.wait, args=(60.0, stop))
    thread.start()
    (tmp_path / "one").write_text("x")
    thread.join(5)
    assert not thread.is_alive()
    stop.set()
    begin = time.perf_counter()
    watcher.wait(60.0, stop)
    assert time.perf_counter() - begin < 1
    watcher.close()


def test_a_large_folder_is_scanned_quickly_and_remembered_cheaply(
    make: Callable[..., Watcher], tmp_path: Path, clock: Clock
) -> None:
    for number in range(10_000):
        os.mknod(tmp_path / f"f{number}")
        if number % 10 == 0:
            os.truncate(tmp_path / f"f{number}", 1)
    watcher = make(closed_by=["marker", "quiet"], quiet=0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert len(drain(watcher)) == 10_000
    clock.now += 61
    begin = time.perf_counter()
    assert drain(watcher) == []
    assert time.perf_counter() - begin < 2.0  # measured: 0.05 s
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000  # kB


def test_folders_inside_others_are_watched_once() -> None:
    assert outermost(["/a/b", "/a", "/a/", "//a/c", "/ab"]) == ["/a", "/ab"]
    assert outermost(["/", "/a"]) == ["/"]
