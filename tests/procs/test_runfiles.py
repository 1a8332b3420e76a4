"""The run's histograms: complete whoever finishes last, never counted twice, rebuilt after any accident."""

from __future__ import annotations

import json
import logging
import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
import uproot

from orchestrator.errors import TransientError
from orchestrator.step import Work
from procs.binning import Counts
from procs.runfiles import MEMBER, MEMBERS, Page, locked, publish, rebuild, save

LOG = logging.getLogger("step")


def one(values: int, start: float = 0.0) -> dict[str, Counts]:
    counts = Counts("energy_a", "energy", "keV")
    counts.fill(start + np.arange(values, dtype=float))
    return {"energy_a": counts}


def put(folder: Path, number: int, values: int = 10) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"f{number}{MEMBER}"
    save(path, f"attempt{number}", one(values, 3.0 * number), {})
    return path


def total(folder: Path) -> float:
    with uproot.open(folder / "histograms_run.root") as file:
        return float(file["energy_a"].values(flow=True).sum())


def test_members_are_added_once(tmp_path: Path) -> None:
    for number in range(3):
        put(tmp_path, number)
        for _ in range(2):
            run = rebuild(tmp_path, "run", "a", LOG)
        assert len(run.members) == number + 1
        assert total(tmp_path) == 10 * (number + 1)


def test_what_is_there_already_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from procs import runfiles

    read: list[str] = []
    real = runfiles.load
    monkeypatch.setattr(runfiles, "load", lambda path: (read.append(path.name), real(path))[1])
    for number in range(3):
        put(tmp_path, number)
        rebuild(tmp_path, "run", "a", LOG)
    assert [name for name in read if name.endswith(MEMBER)] == [f"f{number}{MEMBER}" for number in range(3)]


def test_a_member_that_changed_or_went_makes_the_run_afresh(tmp_path: Path) -> None:
    for number in range(3):
        put(tmp_path, number)
    rebuild(tmp_path, "run", "a", LOG)
    put(tmp_path, 1, values=25)
    assert rebuild(tmp_path, "run", "a", LOG).histograms["energy_a"].entries == 45
    (tmp_path / f"f2{MEMBER}").unlink()
    rebuild(tmp_path, "run", "a", LOG)
    assert total(tmp_path) == 35


def test_a_damaged_run_file_is_made_again_and_a_damaged_member_is_named(tmp_path: Path) -> None:
    for number in range(3):
        put(tmp_path, number)
    rebuild(tmp_path, "run", "a", LOG)
    (tmp_path / "histograms_run.root").write_bytes(b"root damaged")
    (tmp_path / f"f0{MEMBER}").write_bytes(b"damaged too")
    run = rebuild(tmp_path, "run", "a", LOG)
    assert run.unreadable == [f"f0{MEMBER}"]
    assert total(tmp_path) == 20
    put(tmp_path, 0)
    assert rebuild(tmp_path, "run", "a", LOG).unreadable == []
    assert total(tmp_path) == 30


def test_unfinished_files_and_the_runs_own_are_no_members(tmp_path: Path) -> None:
    put(tmp_path, 0)
    (tmp_path / f".x{MEMBER}").write_bytes(b"")
    (tmp_path / f".f9{MEMBER}.abc.part").write_bytes(b"")
    name = f"x{MEMBER.removesuffix('.root')}"  # a run whose file looks like a member
    for _ in range(2):
        run = rebuild(tmp_path, name, "a", LOG)
        assert run.members == [f"f0{MEMBER}"]
        assert run.histograms["energy_a"].entries == 10


def test_publish_draws_and_says_what_it_did(tmp_path: Path) -> None:
    work = Work({}, tmp_path, tmp_path, "abc", LOG, None)

    def pages(histograms: dict[str, Counts], scope: str) -> list[Page]:
        return [Page("all", "energies", list(histograms.values()))]

    result = publish(tmp_path / f"f{MEMBER}", "run", work, one(5), "{}", pages, 10.0)
    assert [plot["title"] for plot in result["plots"]] == ["f: energies", "run run, 1 file: energies"]
    assert all(Path(plot["file"]).is_file() for plot in result["plots"])
    assert (result["total"], result["run"]["members"]) == (5, 1)
    json.dumps(result, allow_nan=False)


def test_the_lock_is_waited_for_and_not_for_ever(tmp_path: Path) -> None:
    ours, theirs = multiprocessing.Pipe()
    holder = multiprocessing.Process(target=_hold, args=(tmp_path, theirs), daemon=True)
    holder.start()
    try:
        assert ours.poll(20)
        with pytest.raises(TransientError, match="not free within 0 s"), locked(tmp_path, 0.0):
            pass
    finally:
        holder.kill()  # a dead process holds no lock
        holder.join(10)
    with locked(tmp_path, 5.0):
        pass


def _hold(folder: Path, pipe: Connection) -> None:
    with locked(folder, 5.0):
        pipe.send("held")
        pipe.recv()


def _finish(folder: Path, number: int) -> None:
    put(folder, number)
    with locked(folder, 60.0):
        rebuild(folder, "run", f"attempt{number}", LOG)


def test_many_processes_at_once_leave_the_complete_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    workers = [multiprocessing.Process(target=_finish, args=(folder, number)) for number in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert total(folder) == 60
    with uproot.open(folder / "histograms_run.root") as file:
        assert len(json.loads(str(file[MEMBERS]))) == 6
    assert not list(folder.glob(".*.part"))
