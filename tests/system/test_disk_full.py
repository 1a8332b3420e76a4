"""Disks that are really full, for outputs, spool, logs and database: all waits, nothing is half done, all ends well."""

from __future__ import annotations

import os
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import DatabaseError

pytestmark = pytest.mark.system


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[Path, int], None]]:
    """Mounts a disk of so many kB at a folder."""
    if os.geteuid() != 0:
        pytest.skip("a small disk is mounted for this: run the tests as root")
    mounted: list[Path] = []

    def mount(folder: Path, size: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(folder)], capture_output=True, text=True
        )
        if done.returncode != 0:
            pytest.skip(f"no small disk can be mounted here ({done.stderr.strip()}): allow it, as in a virtual machine")
        mounted.append(folder)

    yield mount
    for folder in reversed(mounted):
        subprocess.run(["umount", "-l", str(folder)], check=False)


def fill(folder: Path) -> Path:
    """Take all the room there is."""
    path = folder / "takes all room"
    with path.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    return path


def check(site: Any, count: int) -> None:
    site.wait(site.finished, 90)
    found = site.everything()
    assert Counter(d["status"] for d in found.values()) == {"good": count}
    for name, document in found.items():
        for step in site.chain.steps:
            written = (site.folder / "data" / "out" / f"{name}.{step.number}").read_text()
            assert written == document[step.key]["attempt"]
    assert all(daemon.poll() is None for daemon in site.daemons), "a full disk ends no daemon"
    assert site.amiss() == []


@pytest.mark.parametrize("which", ["data", "spool", "logs"])
def test_a_full_disk_is_waited_out(
    make_site: Callable[..., Any], small_disk: Callable[[Path, int], None], which: str
) -> None:
    site = make_site(seconds=0.01, steps=2, more=", retries: {count: 50, wait: 0.5 s, longest: 1 s}")
    steps = (site.folder / "sitesteps.py").read_text()
    steps = steps.replace('work.output_path("effects")', 'work.output.parent / "effects"')
    (site.folder / "sitesteps.py").write_text(steps.replace("    delay =", "    print('a word')\n    delay ="))
    small_disk(site.folder / which, 600)
    site.add(20)
    site.start("poll")
    book = site.folder / "effects"
    site.wait(lambda: book.exists() and len(book.read_text().splitlines()) >= 4, 30, "the first steps")
    ballast = fill(site.folder / which)
    site.add_more(1, 20)
    time.sleep(4.0)
    ballast.unlink()
    check(site, 40)
    if which == "data":
        rows = site.database.all_docs(startkey="attempt:", endkey="attempt;", include_docs=True)
        assert any("the disk is full" in row.doc["reason"] for row in rows), "or it was not full"


def test_a_full_disk_under_the_database_loses_nothing_that_was_acknowledged(
    make_site: Callable[..., Any], small_disk: Callable[[Path, int], None], tmp_path: Path
) -> None:
    small_disk(tmp_path / "database", 12_000)
    site = make_site(seconds=0.01, steps=2)
    site.add(200)
    site.start("poll")
    site.wait(lambda: len(site.effects()) >= 20, 30, "the first steps")
    ballast = fill(tmp_path / "database")
    with pytest.raises(DatabaseError):
        for number in range(2000):
            site.database.put({"_id": f"other{number}", "text": "x" * 2000})
    time.sleep(4.0)
    ballast.unlink()
    site.wait(site.finished, 90)
    check(site, 200)
    effects = Counter((name, step) for name, step, _ in site.effects())
    assert set(effects.values()) == {1}, "nobody was killed, so nothing is done twice"
