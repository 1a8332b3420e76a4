"""A real sshd, for every test that reaches another machine."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.transports.testing import USER, Sshd, why_not

#: Tests that use a real batch system or another account of this machine: one after the other, also where tests run side
#: by side, for there is one of each. `-m one_by_one` and `-m "not one_by_one"` tell them apart.
ONE_BY_ONE = ("tests/system/farms/", "tests/system/test_farm_ssh.py", "tests/system/test_control_slurm.py",
              "tests/orchestrator/schedulers/")  # fmt: skip


def pytest_itemcollected(item: pytest.Item) -> None:
    if item.nodeid.startswith(ONE_BY_ONE) or "sshd" in getattr(item, "fixturenames", ()):
        item.add_marker("one_by_one")


@pytest.fixture(scope="session")
def sshd() -> Iterator[Sshd]:
    """One for all tests: who cuts connections cuts only those that are open."""
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="sshd-", dir="/var/tmp") as folder, Sshd(Path(folder)) as server:
        yield server


@pytest.fixture
def far(sshd: Sshd) -> Iterator[Path]:
    """A folder that belongs to the account at the far end."""
    with tempfile.TemporaryDirectory(prefix="far-", dir="/var/tmp") as folder:
        shutil.chown(folder, USER)
        yield Path(folder)
