"""`site install`: what is sent, that it appears whole or not at all, side by side, and what goes when."""

from __future__ import annotations

import ensurepip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import chain as chains
from orchestrator import faults, software
from orchestrator.chain import Chain
from orchestrator.engine.submission import places
from orchestrator.errors import ChainError, SettingsError
from orchestrator.remote import far, install, package, wheels
from orchestrator.remote.far import FarError, Python
from orchestrator.remote.install import Outcome
from orchestrator.remote.target import Target, farm_of, target_of
from orchestrator.settings import Settings
from orchestrator.software import Installed
from orchestrator.transports import LocalTransport, Transport, TransportUnavailable

CHAIN = """
name: x
farms:
  centre: {{scheduler: fsched, spool: {spool}, output: {spool}/out}}
steps:
  - {{name: s0, run: '{run}', executor: farm, farm: centre}}
"""


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with nothing but its standard library, as at a farm."""
    folder = tmp_path_factory.mktemp("bare") / "python"
    venv.create(folder, with_pip=False, symlinks=True)
    return folder / "bin" / "python"


class Place:
    """A site's folder and a farm's spool, both on this machine."""

    def __init__(self, folder: Path, python: Path) -> None:
        self.folder, self.spool, self.python = folder / "site", folder / "far" / "spool", python
        self.folder.mkdir()
        self.step("def step(document, work):\n    return {}\n")

    def step(self, text: str, name: str = "farsteps.py") -> None:
        (self.folder / name).write_text(text)

    def target(self, transport: Transport | None = None, run: str = "farsteps:step") -> Target:
        chain = chains.loads(CHAIN.format(spool=self.spool, run=run))
        made = target_of(chain, Settings.load(self.folder), None)
        return Target(made.name, made.farm, transport or LocalTransport(), made.prefix, made.steps)

    def install(self, transport: Transport | None = None, *, run: str = "farsteps:step", **how: Any) -> Outcome:
        target = self.target(transport, run)
        files = package.collect(self.folder, target.steps)
        if not how.pop("whole", False):  # the runner alone, which is quicker
            kept = re.compile(r"steps/|lib/orchestrator/(\w+\.py|executors/|engine/(__init__|spool)\.py)")
            files = {name: path for name, path in files.items() if kept.match(name)}
        source: Path | None = how.pop("wheels", None)
        made = package.Package(files)
        if source is not None:
            found, names = package.wheels_of(source)
            made = package.Package(files, found, names, "wheels")
        python = far.find(target.transport, [str(self.python)])
        return install.install(target, made, python, time.time(), **how)

    def current(self) -> Installed | None:
        return install.current(LocalTransport(), str(self.spool), self.target().prefix)

    def versions(self) -> list[str]:
        return sorted(path.name for path in (self.spool / "software").iterdir() if path.is_dir())

    def job(self, name: str, version: str | None) -> None:
        """A job in the spool, whose script names a version."""
        (self.spool / "jobs" / name).mkdir(parents=True)
        if version is not None:
            logs = self.spool / "logs" / name
            logs.mkdir(parents=True)
            (logs / "script").write_text(f"export PYTHONPATH={self.spool}/software/{version}/lib\n")


@pytest.fixture
def place(tmp_path: Path, bare: Path) -> Place:
    return Place(tmp_path, bare)


def tree(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix != ".pyc"}


def test_installed_once_is_installed(place: Place) -> None:
    done = place.install(whole=True)
    assert (done.done, done.current, done.faults) == ("installed", True, {})
    found = place.current()
    assert found is not None and found.name == done.name and found.python == (str(place.python),)
    version = Path(found.folder)
    assert (version / "lib/orchestrator/job.py").is_file() and (version / "steps/farsteps.py").is_file()
    assert not (version / "lib/orchestrator/web").exists() and not (version / "package.zip").exists()
    before = tree(place.spool)
    again = place.install(whole=True)
    assert (again.done, again.name) == ("there already", done.name)
    assert tree(place.spool) == before


def test_a_job_runs_with_what_is_installed_and_nothing_else(place: Place, tmp_path: Path) -> None:
    """The very words of a job's script, by a Python that has none of our packages."""
    place.install()
    target, found = place.target(), place.current()
    where = places(target.farm, found, Settings.load(place.folder))
    assert where.python == (str(place.python),) and where.modules == (f"{found.folder if found else ''}/steps",)
    done = subprocess.run(
        [*where.python, "-c", "import orchestrator.job; print(orchestrator.job.__file__)"], cwd=tmp_path,
        env={"PYTHONPATH": ":".join(where.path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.startswith(str(place.spool / "software")), done.stderr


def test_a_python_in_the_chain_goes_before_what_is_installed(place: Place) -> None:
    place.install()
    farm = place.target().farm.model_copy(update={"python": ("/opt/python",)})
    assert places(farm, place.current(), Settings.load(place.folder)).python == ("/opt/python",)
    assert places(place.target().farm, None, Settings.load(place.folder)).python == (sys.executable,)


def test_versions_stand_side_by_side_and_go_when_no_job_names_them(place: Place) -> None:
    first = place.install()
    place.job("orc-1", first.name)
    place.step("def step(document, work):\n    return {'new': True}\n")
    second = place.install()
    assert first.name != second.name and place.versions() == sorted([first.name, second.name])
    used = place.current()
    assert used is not None and used.name == second.name
    target, words = place.target(), [str(place.python)]
    assert not [one for one in install.versions(target, words, remove=True, keep=0.0) if one["removed"]]
    shutil.rmtree(place.spool / "jobs" / "orc-1")
    assert not [one for one in install.versions(target, words, remove=True) if one["removed"]], "replaced just now"
    place.job("orc-2", None)
    assert not [one for one in install.versions(target, words, remove=True, keep=0.0) if one["removed"]], "no script"
    shutil.rmtree(place.spool / "jobs" / "orc-2")
    install.versions(target, words, remove=False)
    assert place.versions() == sorted([first.name, second.name])
    gone = [one["name"] for one in install.versions(target, words, remove=True, keep=0.0) if one["removed"]]
    assert gone == [first.name] and place.versions() == [second.name]


def test_going_back_to_an_older_version_is_installing_it_again(place: Place) -> None:
    old = (place.folder / "farsteps.py").read_text()
    first = place.install()
    place.step(old + "# changed\n")
    place.install()
    place.step(old)
    back = place.install()
    used = place.current()
    assert (back.name, back.done) == (first.name, "there already") and used is not None and used.name == first.name
    assert not (Path(back.folder) / "replaced").exists()


class Cut(LocalTransport):
    """Is cut at one of its calls, before or after its effect."""

    def __init__(self, at: int, after: bool) -> None:
        super().__init__()
        self.left, self.after = at, after

    def _cut(self, call: Callable[..., Any], *words: Any, **more: Any) -> Any:
        self.left -= 1
        if self.left == 0 and not self.after:
            raise TransportUnavailable("cut")
        answer = call(*words, **more)
        if self.left == 0:
            raise TransportUnavailable("cut")
        return answer

    def run(self, *words: Any, **more: Any) -> Any:
        return self._cut(super().run, *words, **more)

    def rename(self, *words: Any) -> Any:
        return self._cut(super().rename, *words)

    def send(self, *words: Any, **more: Any) -> Any:
        return self._cut(super().send, *words, **more)

    def mkdir(self, *words: Any) -> Any:
        return self._cut(super().mkdir, *words)


def test_cut_anywhere_what_is_current_is_whole(place: Place) -> None:
    at, cuts = 0, 0
    while True:
        at += 1
        transport = Cut(at, after=at % 2 == 0)
        place.step(f"def step(document, work):\n    return {{'turn': {at}}}\n")
        try:
            place.install(transport)
        except TransportUnavailable:
            cuts += 1
        found = place.current()
        if found is not None:
            answer = far.call(LocalTransport(), found.python, {"do": "verify", "folder": found.folder})
            assert "manifest" in answer
        if transport.left > 0:
            break
    assert cuts >= 8
    last = place.install()
    used = place.current()
    assert last.done == "there already" and used is not None and used.name == last.name
    leftovers = [path for path in (place.spool / "software").iterdir() if path.name.startswith(".")]
    assert leftovers
    for path in leftovers:
        os.utime(path, (0, 0))
    install.versions(place.target(), used.python, remove=True)
    assert not [path for path in (place.spool / "software").iterdir() if path.name.startswith(".")]


def test_a_damaged_version_is_repaired(place: Place) -> None:
    done = place.install()
    (Path(done.folder) / "lib/orchestrator/job.py").write_text("raise SystemExit(3)\n")
    again = place.install()
    assert (again.done, again.name) == ("repaired", done.name)
    assert place.install().done == "there already"


def test_what_does_not_arrive_as_it_was_sent_is_not_installed(place: Place) -> None:
    class Spoils(LocalTransport):
        def put(self, local: Path, path: Any, mode: int = 0o644) -> None:
            with zipfile.ZipFile(local, "a") as archive:
                archive.writestr("lib/orchestrator/../../../evil", "")
            super().put(local, path, mode)

    with pytest.raises(FarError, match=r"nothing was installed .* what arrived is not what was sent"):
        place.install(Spoils())
    assert place.current() is None and not place.versions()


# ---- packages


def wheel(folder: Path, name: str, code: str) -> Path:
    """A wheel of one module, as PEP 427 says."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", code)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        about = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr(f"{info}/WHEEL", about)
        archive.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return path


def test_a_step_that_lacks_a_package_is_not_switched_to_and_wheels_help(place: Place, tmp_path: Path) -> None:
    place.step("import fardep\ndef step(document, work):\n    return {}\n")
    done = place.install()
    assert not done.current and done.faults == {"s0": "missing fardep"} and place.current() is None
    advice = "\n".join(done.advice)
    assert "has no fardep" in advice and "--download" in advice and "--pip" in advice
    assert place.install(force=True).current, "--force"

    folder = tmp_path / "wheels"
    folder.mkdir()
    wheel(folder, "fardep", "")
    with pytest.raises(FarError, match="has no pip: put pip's own wheel"):
        place.install(wheels=folder)
    bundled = list((Path(ensurepip.__file__).parent / "_bundled").glob("pip-*.whl"))
    if not bundled:
        pytest.skip("this Python brings no wheel of pip: apt-get install python3-venv")
    shutil.copy(bundled[0], folder)
    found = place.install(wheels=folder)
    assert found.current and not found.faults and found.packages == ("fardep",)
    assert (Path(found.folder) / "packages/fardep.py").is_file() and not (Path(found.folder) / "wheels").exists()
    place.step("import fardep\ndef step(document, work):\n    return {'new': 1}\n")
    said: list[str] = []
    again = place.install(wheels=folder, say=said.append)
    assert again.name != found.name and again.current, "loaded there, so its packages are there"
    assert not [word for word in said if "wheels" in word] and found.name in said[-1], "packages travel once"
    wheel(folder, "fardep", "changed = 1\n")
    assert place.install(wheels=folder).name != again.name, "other wheels are another version"
    assert (Path(found.folder) / "packages/fardep.py").read_text() == ""


def test_pip_there_says_what_is_wrong_without_the_logins_of_its_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestrator.remote import farside

    for name, value in (("INDEX_URL", "http://me:hunter2@127.0.0.1:1/simple"), ("RETRIES", "0"), ("FIND_LINKS", "")):
        monkeypatch.setenv(f"PIP_{name}", value)
    said = farside.packages(tmp_path, {"from": "pip", "requirements": ["surely-not-there==1"]})
    assert said.startswith("pip could not install") and "surely-not-there" in said and "hunter2" not in said
    wheel(tmp_path, "fardep", "")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert not farside.packages(tmp_path, {"from": "pip", "requirements": ["fardep==1.0"]})
    assert (tmp_path / "packages" / "fardep.py").is_file()


def test_the_needs_are_what_loading_the_steps_takes(tmp_path: Path) -> None:
    (tmp_path / "needy.py").write_text("import yaml, json\ndef step(document, work): ...\n")
    (tmp_path / "broken.py").write_text("import surely_not_there\n")
    text = """
name: x
farms: {c: {scheduler: slurm, spool: /s}}
steps:
  - {name: one, run: 'needy:step', executor: farm, farm: c}
  - {name: two, run: 'broken:step', executor: farm, farm: c}
  - {name: three, command: [sort], executor: farm, farm: c}
"""
    found = package.needs(tmp_path, chains.loads(text).steps)
    assert [one.partition("==")[0] for one in found.requirements] == ["PyYAML"]
    assert set(found.unknown) == {"two"} and "surely_not_there" in found.unknown["two"]


def test_what_is_sent_is_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site, other = tmp_path / "site", tmp_path / "other"
    for path in ("site/mine.py", "site/pack/__init__.py", "site/pack/deep/x.json", "site/pack/__pycache__/y.pyc",
                 "site/pack/.hidden", "site/data/big.bin", "site/spaced/step.py", "site/.git/z.py",
                 "other/elsewhere.py", "other/unused.py"):  # fmt: skip
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("def step(document, work): ...\n")
    monkeypatch.syspath_prepend(str(other))
    text = """
name: x
farms: {c: {scheduler: slurm, spool: /s}}
steps:
  - {name: one, run: 'elsewhere:step', executor: farm, farm: c}
  - {name: two, run: 'spaced.step:step', executor: farm, farm: c}
"""
    steps = chains.loads(text).steps
    files = package.collect(site, steps)
    assert sorted(name for name in files if name.startswith("steps/")) == [
        "steps/elsewhere.py", "steps/mine.py", "steps/pack/__init__.py", "steps/pack/deep/x.json",
        "steps/spaced/step.py",
    ]  # fmt: skip
    assert "lib/procs/chains/samba.yaml" in files and not [name for name in files if "/web/" in name]
    monkeypatch.setattr(package, "MOST", 10)
    with pytest.raises(SettingsError, match="keep data out of folders with steps"):
        package.collect(site, steps)


def test_wheels_of_every_older_c_library_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def python(libc: tuple[str, ...], platform: str = "linux-x86_64") -> Python:
        return Python(("python3",), (3, 11, 2), "/usr/bin/python3", platform, libc, pip=True)

    tags = wheels.platforms(python(("glibc", "2.28")))
    assert tags[0] == "manylinux_2_28_x86_64" and "manylinux_2_17_x86_64" in tags and "manylinux2014_x86_64" in tags
    assert not [tag for tag in tags if "_2_29_" in tag]
    assert wheels.platforms(python(("", ""), "linux-aarch64")) == ["linux_aarch64"]
    folder, source = tmp_path / "wheels", tmp_path / "source"
    source.mkdir()
    wheel(source, "fardep", "")
    for name, value in (("FIND_LINKS", str(source)), ("NO_INDEX", "1"), ("RETRIES", "0")):
        monkeypatch.setenv(f"PIP_{name}", value)
    wheels.download(folder, ["fardep==1.0"], python(("glibc", "2.28")))
    assert [path.name for path in folder.iterdir()] == ["fardep-1.0-py3-none-any.whl"]
    with pytest.raises(FarError, match=r"Python 3\.11\.2, linux-x86_64, glibc 2\.28 could not .*nothing-such"):
        wheels.download(folder, ["nothing-such"], python(("glibc", "2.28")))


# ---- Python there


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_an_old_python_and_none_are_refused_in_words(tmp_path: Path) -> None:
    old = script(
        tmp_path / "old", """cat > /dev/null; echo 'orchestrator-farside {"version": [3, 6, 8], "executable": "/x"}'"""
    )
    mute = script(tmp_path / "mute", "exit 9")
    for word, said in ((old, "old is 3.6.8"), (mute, "exit code 9 and said nothing"), ("/no/python", "/no/python")):
        with pytest.raises(FarError, match=r"no Python 3\.11 or newer on this machine") as caught:
            far.find(LocalTransport(), [word])
        assert said in str(caught.value) and "--python" in str(caught.value)


def test_the_first_that_is_new_enough_is_taken_past_what_start_up_files_print(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(tmp_path / "python3", "exit 1")
    chatty = script(tmp_path / "python3.12", f"echo Welcome; echo beware >&2; {sys.executable} \"$@\"; echo Bye")
    monkeypatch.setattr(far, "CANDIDATES", ("python3", "python3.12"))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found = far.find(LocalTransport())
    assert found.words == ("python3.12",) and found.lasting == (sys.executable,)
    answer = far.call(LocalTransport(), [chatty], {"do": "verify", "folder": str(tmp_path / "none")})
    assert answer == {"damage": "it is not there"}
    wrapped = far.probe(LocalTransport(), ["env", "A=b", sys.executable])
    assert isinstance(wrapped, Python) and wrapped.lasting == ("env", "A=b", sys.executable)


def test_which_farm() -> None:
    def chain(*farms: str) -> Chain:
        steps = ", ".join(f"{{name: s{n}, run: 'a:b', executor: farm, farm: {f}}}" for n, f in enumerate(farms))
        known = ", ".join(f"{f}: {{scheduler: slurm, spool: /s}}" for f in {*farms, "other"})
        return chains.loads(f"name: x\nfarms: {{{known}}}\nsteps: [{steps or '{name: s, run: a:b}'}]")

    assert farm_of(chain("one"), "here", None) == farm_of(chain("one", "two"), "here", "one") == "one"
    for made, name, said in (
        (chain("one", "two"), None, "say which farm: one, two"),
        (chain(), None, "sends no step of site 'here' to any"),
        (chain("one"), "other", "farms that it uses: one"),
    ):
        with pytest.raises(ChainError, match=said):
            farm_of(made, "here", name)


# ---- the record


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(["/a/v1", "v1", ["python3"]]),
        lambda inner: st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "version", "folder", "python", "installed", "format"]) | st.text(), inner
        ),
        max_leaves=12,
    )
)
def test_a_record_is_whole_or_refused(data: Any) -> None:
    if isinstance(data, dict):
        data["format"] = software.FORMAT
    try:
        found = Installed.from_json(data)
    except ValueError:
        return
    assert found.folder == f"{found.folder.rpartition('/')[0]}/{found.name}" and found.python
    assert Installed.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_a_spoilt_record_is_said_and_mended_by_installing(place: Place) -> None:
    place.install()
    path = Path(software.record(str(place.spool), place.target().prefix))
    path.write_text("{")
    with pytest.raises(FarError, match=r"cannot be used .*: install again"):
        place.current()
    place.install()
    assert place.current() is not None


@pytest.mark.parametrize("name", [name for name in faults.POINTS if name.startswith("install.")])
def test_killed_at_every_point_the_next_installation_does_it_and_leaves_nothing_behind(place: Place, name: str) -> None:
    place.install()
    before = place.current()
    assert before is not None
    place.step("def step(document, work):\n    return {'better': True}\n")
    child = os.fork()
    if child == 0:
        faults.arm({faults.VARIABLE: name})
        place.install()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL, f"nobody came to {name}"
    between = place.current()
    assert between is not None and (between == before) == (name != "install.recorded"), "one that is whole is current"
    assert (Path(between.folder) / "manifest.json").exists() or any(Path(between.folder).iterdir())
    done = place.install()
    assert done.current and not done.faults
    after = place.current()
    assert after is not None and after.name == done.name != before.name
    for path in (place.spool / "software").glob(".*"):  # others may still be sending: they go when they are old
        os.utime(path, (1_700_000_000, 1_700_000_000))
    place.install()
    assert done.name in place.versions()
    assert not list((place.spool / "software").glob(".*")), "unfinished folders go"


def test_clearing_away_leaves_what_others_keep_beside_it(place: Place) -> None:
    first = place.install()
    place.step("def step(document, work):\n    return {'new': True}\n")
    second = place.install()
    software_ = place.spool / "software"
    others = {"root-6.30": None, "mine": {"name": "another"}, "odd": "no object", ".cache": None}
    for name, manifest in others.items():
        (software_ / name).mkdir()
        (software_ / name / "file").write_text("x")
        if manifest is not None:
            (software_ / name / "manifest.json").write_text(json.dumps(manifest))
    for name in (".staging-0123", ".removing-x", ".damaged-y"):
        (software_ / name).mkdir()
    for path in software_.iterdir():
        os.utime(path, (1_700_000_000, 1_700_000_000))
    found = install.versions(place.target(), [str(place.python)], remove=True, keep=0.0)
    assert {one["name"] for one in found} == {first.name, second.name}, "no others are named"
    assert sorted(path.name for path in software_.iterdir() if path.is_dir()) == sorted([second.name, *others])
    assert all((software_ / name / "file").exists() for name in others)
