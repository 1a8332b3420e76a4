"""`site check`: for each fault that a farm can have, the check that finds it, and what it says to do."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import orchestrator
from orchestrator import chain as chains
from orchestrator.errors import Exit
from orchestrator.remote import far as farend
from orchestrator.remote import install, package
from orchestrator.remote.check import Checks, Found
from orchestrator.remote.target import Target, target_of
from orchestrator.schedulers.fsched import PROGRAM
from orchestrator.settings import Settings
from orchestrator.transports import LocalTransport, Space
from orchestrator.transports.testing import USER, Sshd

CODE = Path(orchestrator.__file__).parent.parent


class Place:
    """A site with a farm: the scheduler for trying out, here or at the other account."""

    def __init__(self, folder: Path, far: Path, access: dict[str, Any] | None = None) -> None:
        self.folder, self.far, self.access = folder, far, access
        folder.mkdir(exist_ok=True)
        (folder / "checksteps.py").write_text("def step(document, work):\n    return {}\n")
        self.farm: dict[str, Any] = {
            "scheduler": "fsched", "spool": f"{far}/spool", "output": f"{far}/out",
            "environment": {"FSCHED_DIR": f"{far}/queue"},
        }  # fmt: skip
        if access is not None:
            self.farm |= {
                "transport": "ssh", "access": access,
                "settings": {"python": "/usr/bin/python3", "program": f"{far}/fsched.py"},
            }  # fmt: skip
        self.run = "checksteps:step"

    def target(self) -> Target:
        steps = [{"name": "s0", "run": self.run, "executor": "farm", "farm": "centre"}]
        steps.append({"name": "s1", "command": ["sort"], "executor": "farm", "farm": "centre"})
        text = json.dumps({"name": "x", "farms": {"centre": self.farm}, "steps": steps})
        return target_of(chains.loads(text), Settings.load(self.folder), None)

    def check(self, target: Target | None = None, **how: Any) -> dict[str, Found]:
        """What was found, the worst of each check."""
        used = target or self.target()
        found: dict[str, Found] = {}
        with used.transport:
            for one in Checks(used, Settings.load(self.folder), **how).run():
                if one.level != "ok" or one.check not in found:
                    found[one.check] = one
        for one in found.values():
            assert one.text and (one.remedy or one.level in ("ok", "not tried")), one
            assert (one.code != Exit.OK) == (one.level == "problem"), one
        return found

    def install(self) -> None:
        target = self.target()
        with target.transport:
            made = package.Package(package.collect(self.folder, target.steps))
            install.install(target, made, farend.find(target.transport), time.time())


def levels(found: dict[str, Found], *but: str) -> set[str]:
    return {one.level for name, one in found.items() if name not in but}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "far" / "queue").mkdir(parents=True)
    return Place(tmp_path / "site", tmp_path / "far")


@pytest.fixture
def across(tmp_path: Path, sshd: Sshd, far: Path) -> Iterator[Place]:
    (far / "queue").mkdir()
    shutil.copy(PROGRAM, far / "fsched.py")
    shutil.chown(far / "queue", USER)
    (far / "fsched.py").chmod(0o755)
    yield Place(tmp_path / "site", far, sshd.settings)


def test_a_farm_on_this_machine_is_in_order_as_it_is(place: Place) -> None:
    found = place.check(job=60.0)
    assert levels(found) == {"ok"}
    assert {"shell", "spool", "output", "disk", "clock", "queue", "history", "python", "links", "runner"} < set(found)
    assert {"step s0", "step s1", "job"} < set(found)
    left = [path.name for path in (place.far / "spool").rglob("*")]
    assert sorted(left) == ["jobs", "logs"], "the trial clears its files away"


def test_another_account_lacks_the_runner_until_it_is_installed(across: Place) -> None:
    found = across.check()
    assert found["runner"].level == "problem" and "site install centre" in found["runner"].remedy
    assert found["steps"].level == "not tried" and levels(found, "runner", "steps") == {"ok"}
    across.install()
    found = across.check(job=60.0)
    assert levels(found, "runner") == {"ok"} and found["runner"].level != "problem", found
    (across.folder / "checksteps.py").write_text("def step(document, work):\n    return {'new': 1}\n")
    changed = across.check()["runner"]
    assert changed.level == "warning" and "files have changed since" in changed.text


def test_what_the_network_and_the_login_can_do(across: Place, sshd: Sshd, tmp_path: Path) -> None:
    key = tmp_path / "other"
    shutil.copy(sshd.folder / "host_ed25519", key)
    cases = [
        ({"port": 1}, "host", Exit.UNAVAILABLE, "refused"),
        ({"host": "surely.not.a.host.invalid"}, "host", Exit.UNAVAILABLE, "cannot be reached"),
        ({"known_hosts": str(tmp_path / "none")}, "host key", Exit.UNAUTHORISED, "ssh-keyscan"),
        ({"key": str(key)}, "login", Exit.UNAUTHORISED, "authorized_keys"),
        ({"key": str(key), "password_from": "env:SURELY_NOT_SET"}, "login", Exit.SETTINGS, "SURELY_NOT_SET"),
    ]
    for change, check, code, said in cases:
        across.farm["access"] = {**sshd.settings, **change, "timeouts": {"connect": 5}}
        found = across.check()
        assert found[check].level == "problem" and found[check].code == code and said in found[check].text
        later = [one.level for name, one in found.items() if name not in ("host", "host key", "login")]
        assert set(later) == {"not tried"} and len(later) == 11


def test_an_account_without_a_shell(tmp_path: Path) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="sshd-", dir="/var/tmp") as folder,
        Sshd(Path(folder), "--sftp-only") as own,
    ):
        found = Place(tmp_path / "site", Path("/home") / USER / "check", own.settings).check()
    assert found["shell"].level == "problem" and "may run commands" in found["shell"].remedy
    assert found["spool"].level == found["disk"].level == "ok", "what can be tried is tried"
    assert {found[name].level for name in ("queue", "python", "runner", "clock")} == {"not tried"}


def test_start_up_files_that_print(across: Place) -> None:
    start = Path("/home") / USER / ".bashrc"
    before = start.read_text()
    try:
        start.write_text("echo Welcome to the centre\n" + before)
        found = across.check()["shell"]
    finally:
        start.write_text(before)
    assert found.level == "problem" and "Welcome to the centre" in found.text and "bashrc" in found.remedy


def test_folders_that_are_not_ours(across: Place) -> None:
    across.farm |= {"spool": "/root/spool", "output": "/etc"}
    found = across.check()
    for name in ("spool", "output"):
        assert found[name].level == "problem" and "farms / centre / " + name in found[name].remedy
    assert found["disk"].level == found["links"].level == "not tried"
    assert found["queue"].level == "ok", "what does not need the folders is tried"


def test_a_spool_that_everybody_may_write_to(place: Place) -> None:
    (place.far / "spool").mkdir()
    (place.far / "spool").chmod(0o777)
    assert place.check()["spool"].level == "warning"


def test_disk_and_clock(place: Place) -> None:
    class Full(LocalTransport):
        free = 0

        def space(self, path: Any) -> Space | None:
            return Space(self.free, 10**12)

    target = place.target()
    for free, level in ((10**6, "problem"), (10**9, "warning"), (10**11, "ok")):
        transport = Full()
        transport.free = free
        used = Target(target.name, target.farm, transport, target.prefix, target.steps)
        assert place.check(used)["disk"].level == level
    for offset, level in ((3600, "warning"), (-3600, "warning"), (0, "ok")):
        found = place.check(clock=lambda offset=offset: time.time() + offset)["clock"]
        assert found.level == level and (offset == 0 or "3600 s" in found.text or "3599 s" in found.text)


def test_a_batch_system_that_is_not_there_or_does_not_answer(place: Place) -> None:
    (place.far / "queue" / "down").touch()
    found = place.check(job=5.0)
    assert found["queue"].level == "problem" and found["queue"].code == Exit.UNAVAILABLE
    assert found["history"].level == found["job"].level == "not tried" and found["runner"].level == "ok"
    place.farm |= {"scheduler": "slurm", "programs": "/surely/not", "environment": {}}
    found = place.check()
    assert found["queue"].level == "problem" and "programs" in found["queue"].remedy


def test_a_python_that_does_not_fit(across: Place) -> None:
    across.farm["python"] = ["/usr/bin/python3.0"]
    found = across.check()
    assert found["python"].level == "problem" and "3.11 or newer" in found["python"].text
    assert found["runner"].level == found["links"].level == "not tried"
    across.farm["python"] = ["/usr/bin/python3"]
    found = across.check()
    assert found["runner"].level == "problem" and "No module named 'orchestrator'" in found["runner"].text
    assert "remove farms / centre / python" in found["runner"].remedy


def test_a_damaged_version(across: Place) -> None:
    across.install()
    for path in (across.far / "spool" / "software").glob("*/lib/procs/noop.py"):
        path.unlink()
    found = across.check()["runner"]
    assert found.level == "problem" and "lib/procs/noop.py is missing" in found.text and "repairs" in found.remedy


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import surely_not_there\n", "has no surely_not_there"),
        ("raise RuntimeError('on purpose')\n", "on purpose"),
        ("def other(document, work): ...\n", "has no 'step'"),
        ("import sys; sys.exit(3)\n", "3"),
    ],
)
def test_a_step_that_cannot_be_loaded(place: Place, code: str, said: str) -> None:
    (place.folder / "checksteps.py").write_text(code)
    found = place.check()
    assert found["step s0"].level == "problem" and said in found["step s0"].text
    assert found["step s1"].level == "ok"


def test_a_job_that_does_not_begin_is_taken_back(place: Place) -> None:
    place.farm["environment"]["FSCHED_SLOTS"] = "0"
    found = place.check(job=2.0)["job"]
    assert found.level == "problem" and "no result within 2 s" in found.text and "waiting" in found.text
    assert "look into" in found.remedy and not list((place.far / "spool" / "jobs").iterdir())


def test_a_job_that_ends_without_a_result_says_its_last_words(place: Place, tmp_path: Path) -> None:
    """A Python that is there for us, and not for the nodes."""
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\ncase "$1" in -m) echo no such Python here >&2; exit 3 ;; esac\nexec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)
    place.farm |= {"python": [str(python)], "path": [str(CODE)], "grace": {"result": "1 s"}}
    found = place.check(job=60.0)["job"]
    assert found.level == "problem" and "ended without a result" in found.text
    assert "exit code 3" in found.text and "no such Python here" in found.text


def test_the_command_ends_with_the_first_problems_code(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from orchestrator.cli import main

    target = place.target()
    chain = {
        "name": "x",
        "farms": {"centre": target.farm.model_dump(mode="json", exclude_defaults=True)},
        "steps": [{"name": "s0", "run": place.run, "executor": "farm", "farm": "centre"}],
    }
    (place.folder / "chain.yaml").write_text(json.dumps(chain))
    words = ["-C", str(place.folder), "site", "check"]
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert main([*words, "--json"]) == Exit.OK
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] and answer["farm"] == "centre" and {one["level"] for one in answer["findings"]} == {"ok"}
    (place.far / "queue" / "down").touch()
    assert main(words) == Exit.UNAVAILABLE
    shown = capsys.readouterr().out
    assert "problem   queue" in shown and "not tried history" in shown and "->" in shown
    assert "1 problem, 0 warnings, 1 not tried." in shown
    assert main([*words, "elsewhere"]) == Exit.SETTINGS
