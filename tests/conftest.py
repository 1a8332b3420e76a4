"""A real sshd, for every test that reaches another machine."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.transports.testing import USER, Sshd, why_not

#: Tests that use a real batch system or another account of this machine: one after the other, also where tests run side
#: by side (``pytest -n``), for there is one of each.
ONE_BY_ONE = ("tests/system/farms/", "tests/system/test_farm_ssh.py", "tests/system/test_control_slurm.py",
              "tests/orchestrator/schedulers/")  # fmt: skip


@pytest.hookimpl(tryfirst=True)  # before those who divide the tests look at the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of one file stay together, and those that are many files' stay together too; the longest come first."""

    def alone(item: pytest.Item) -> bool:
        return item.nodeid.startswith(ONE_BY_ONE) or "sshd" in getattr(item, "fixturenames", ())

    for item in items:
        group = "one by one" if alone(item) else item.nodeid.partition("::")[0]
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: not alone(item))  # sort keeps the order otherwise


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
