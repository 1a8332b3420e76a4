"""A farm across SSH: documents to another user's account and back, through a real sshd and real batch systems."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import orchestrator
from orchestrator import chain as chains
from orchestrator import designs
from orchestrator.couch import deploy
from orchestrator.errors import Exit
from orchestrator.schedulers import Answer, Command, JobState, Query, ask, get
from orchestrator.schedulers.fsched import PROGRAM
from orchestrator.transports.testing import Sshd, why_not

CODE = Path(orchestrator.__file__).parent.parent
USER = f"orcfar{os.getpid()}"
#: Apart from those of the schedulers' own tests.
PORTS = {"slurm": 20217, "gridengine": 20344, "htcondor": 20418}
ODD = ["a '\"\n$(touch pwned) `touch pwned` ü", "$(touch pwned)", "-rf", "; touch pwned #", "\\ \t x"]

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
]
LONG = bool(os.environ.get("ORCHESTRATOR_LONG"))


class Far:
    """Another user's account on "another machine", with nothing of ours in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        subprocess.run(["useradd", "-m", "-s", "/bin/bash", USER], check=True)
        self.home = Path(pwd.getpwnam(USER).pw_dir)
        self.sshd = Sshd(folder / "sshd", "--password", user=USER)
        self.program = self.home / "fsched.py"
        shutil.copy(PROGRAM, self.program)
        self.program.chmod(0o755)

    @property
    def password(self) -> str:
        return (self.sshd.folder / "password").read_text().strip()

    def processes(self) -> list[psutil.Process]:
        return [one for one in psutil.process_iter(["username"]) if one.info["username"] == USER]

    def gone(self) -> None:
        """End what the account runs, remove the account and all that is its own."""
        self.sshd.down()
        for process in self.processes():
            process.kill()
        psutil.wait_procs(self.processes(), timeout=5)
        subprocess.run(["userdel", "-r", USER], check=False, capture_output=True)


@pytest.fixture(scope="module")
def far() -> Iterator[Far]:
    # /tmp/pytest-... is closed to other accounts
    folder = Path(tempfile.mkdtemp(prefix="orchestrator-far-", dir="/var/tmp"))
    folder.chmod(0o755)
    made = Far(folder)
    try:
        yield made
    finally:
        made.gone()
        shutil.rmtree(folder, ignore_errors=True)


class FarSite:
    """A site whose only step is done at the far account."""

    def __init__(
        self, site: Any, far: Far, *, access: dict[str, Any] | None = None, farm: str = "", step: str = "",
        send: bool = False,
    ) -> None:  # fmt: skip
        """``send``: files are sent there by SFTP first, in a step of this machine's."""
        self.site, self.far, self.folder = site, far, site.folder
        name = f"work-{time.time_ns()}"
        self.work = far.home / name
        subprocess.run(["install", "-d", "-o", USER, self.work, self.work / "queue"], check=True)
        self.access = access or far.sshd.settings
        fake = (
            f"    scheduler: fsched\n    settings: {{python: /usr/bin/python3, program: {far.program}}}\n"
            f"    environment: {{FSCHED_DIR: {self.work}/queue, FSCHED_SLOTS: '3'}}\n"
        )
        text = (
            "name: marks\nfarms:\n  centre:\n    transport: ssh\n"
            f"    access: {json.dumps(self.access)}\n    spool: {self.work}/spool\n    output: {self.work}/out\n"
            "    every: 0.5\n    grace: {submission: 20 s, unknown: 4 s, result: 3 s}\n"
            f"    limits: {{submissions_per_minute: 1000}}\n{farm or fake}"
            "steps:\n"
        )
        if send:
            settings = json.dumps({"access": self.access, "output": f"{self.work}/raw"})
            text += f"  - {{name: send, run: 'procs.sftp:Transfer', settings: {settings}}}\n"
        text += (
            "  - {name: s0, run: 'sitesteps:mark', settings: {step: 0, seconds: 0}, executor: farm,"
            f" farm: centre, retries: {{count: 3, wait: 0.1 s, on: [transient, resources]}}{step}}}\n"
        )
        self.write(text)

    def write(self, text: str) -> None:
        (self.folder / "chain.yaml").write_text(text)
        self.site.chain = chains.loads(text)
        deploy.push(self.site.database, designs.build(self.site.chain))

    def change(self, old: str, new: str) -> None:
        text = (self.folder / "chain.yaml").read_text()
        assert old in text
        self.write(text.replace(old, new))

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": f"{self.folder}{os.pathsep}{CODE}"}
        return subprocess.run(
            [sys.executable, "-m", "orchestrator.cli", *words], cwd=self.folder, env=environment,
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    def install(self) -> str:
        done = self.command("site", "install", "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        return str(json.loads(done.stdout)["name"])

    def add_odd(self) -> None:
        """Documents with odd names, of files with such names, which hold them."""
        (self.folder / "raw").mkdir()
        for odd in ODD:
            (self.folder / "raw" / odd).write_text(odd)
        self.site.database.bulk(
            [
                {
                    "_id": f"{n} {odd}", "type": "daqdocument", "status": "closed", "run_name": odd,
                    "file": str(self.folder / "raw" / odd), "size": len(odd.encode()),
                }
                for n, odd in enumerate(ODD)
            ]
        )  # fmt: skip

    def effects(self) -> Counter[str]:
        """How often the step ran for each document (a name with a newline takes two lines, and two documents)."""
        lines = (self.work / "out" / "effects").read_text().splitlines()
        return Counter(line for line in lines if " 0 " in line)

    def logs(self) -> str:
        return "\n".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("log-*")))

    def fsched(self, *words: str) -> str:
        """As the far account, and past sshd."""
        command = ["runuser", "-u", USER, "--", "env", f"FSCHED_DIR={self.work}/queue", "/usr/bin/python3"]
        return subprocess.run([*command, self.far.program, *words], capture_output=True, text=True, cwd="/").stdout

    def submissions(self) -> Counter[str]:
        rows = map(json.loads, (self.fsched("list") + self.fsched("history")).splitlines())
        return Counter(name for name, _ in {(row["name"], row["number"]) for row in rows if "number" in row})

    def check(self, count: int) -> None:
        found = self.site.everything()
        assert Counter(d["status"] for d in found.values()) == {"good": count}
        for document in found.values():
            job, entry = document["batchjob"][-1], document[self.site.chain.step("s0").key]
            assert job["number"] and job["attempt"] == entry["attempt"]
            made = Path(entry["file"])
            assert made.owner() == USER and made.is_relative_to(self.work / "out")
        assert len(self.effects()) == sum(self.effects().values()), "a step's effect came twice"


@pytest.fixture
def make_far(make_site: Callable[..., Any], far: Far) -> Iterator[Callable[..., FarSite]]:
    made: list[FarSite] = []

    def make(**how: Any) -> FarSite:
        made.append(FarSite(make_site(), far, **how))
        return made[-1]

    yield make
    for one in made:
        one.fsched("stop")


def test_nothing_there_then_installed_then_done_and_no_secret_shows(
    make_far: Callable[..., FarSite], far: Far, tmp_path: Path
) -> None:
    """By password, so that there is one which must not show: in no file, listing, log or document."""
    password = tmp_path / "password"
    password.write_text(far.password)
    password.chmod(0o600)
    access = {**far.sshd.settings, "key": str(tmp_path / "no-key"), "password_from": f"file:{password}"}
    site = make_far(access=access, step=", documents_per_job: 4", send=True)
    site.add_odd()
    text = (site.folder / "sitesteps.py").read_text()
    text = text.replace('["step"])\n', '["step"])\n    name, content = name.encode().hex(), work.input.read_text()\n')
    (site.folder / "sitesteps.py").write_text(text.replace("return {", 'return {"content": content, '))
    site.site.start("farm")
    site.site.start("poll")
    said = "nothing is installed there: run `orchestrator site install centre`"
    site.site.wait(lambda: said in site.command("jobs").stderr, 30, "the list of jobs to say why none is there")
    checked = site.command("site", "check", "--json")
    levels = {one["check"]: one["level"] for one in json.loads(checked.stdout)["findings"]}
    assert checked.returncode == Exit.NOT_FOUND and levels["runner"] == "problem" and levels["steps"] == "not tried"

    def sent() -> bool:
        return {document["status"] for document in site.site.everything().values()} == {"good"}

    site.site.wait(sent, 30, "the files to be sent")
    assert not any("proc1" in one for one in site.site.everything().values()), "nothing is intended in vain"

    site.install()
    listing: set[str] = set()

    def finished() -> bool:
        listing.update(" ".join(one.info["cmdline"] or ()) for one in psutil.process_iter(["cmdline"]))
        return bool(site.site.finished())

    site.site.wait(finished, 60)
    site.check(len(ODD))
    for document in site.site.everything().values():
        assert document["proc1"]["result"]["content"] == document["run_name"]
        assert Path(document["proc0"]["file"]).owner() == USER
    assert set(site.submissions().values()) == {1}
    checked = site.command("site", "check", "--job", "--wait", "60", "--json")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert not site.command("jobs").stderr
    assert any("orchestrator.job" in line for line in listing)
    texts = [path.read_text(errors="replace") for path in site.work.rglob("*") if path.is_file()]
    texts += [site.logs(), checked.stdout, *listing, json.dumps(site.site.everything())]
    texts += [path.read_text(errors="replace") for path in (site.folder / "spool").rglob("*") if path.is_file()]
    for secret in (far.password, site.site.server.credentials.password):
        assert not [text for text in texts if secret in text]
    for place in (site.work, far.home, site.folder, Path("/")):
        assert not list(place.glob("**/pwned") if place != Path("/") else place.glob("pwned"))


def test_sshd_and_the_daemon_killed_in_the_middle(make_far: Callable[..., FarSite], far: Far) -> None:
    site = make_far(step=", documents_per_job: 3")
    site.change("seconds: 0}", "seconds: 0.3}")
    site.install()
    site.site.add(45)
    far.sshd.down()
    daemon = site.site.start("farm")
    site.site.wait(lambda: "cannot be reached" in site.command("jobs").stderr, 30, "the farm to be shown as away")
    far.sshd.up()
    site.site.wait(lambda: bool(site.submissions()), 30, "a submission")
    for turn in range(3):
        if turn == 0:
            far.sshd.signal_sessions(signal.SIGKILL)
        elif turn == 1:
            daemon.kill()
            daemon.wait()
            daemon = site.site.start("farm")
        else:
            far.sshd.down()
            time.sleep(1.0)
            far.sshd.up()
        time.sleep(1.0)
    site.site.wait(site.site.finished, 90)
    site.check(45)
    assert set(site.submissions().values()) == {1}, "a job was submitted twice"
    assert daemon.poll() is None


def test_a_new_version_leaves_the_jobs_of_the_old_one_alone(make_far: Callable[..., FarSite]) -> None:
    site = make_far()
    steps = (site.folder / "sitesteps.py").read_text()
    wait = "    while not work.output_path('go').exists():\n        time.sleep(0.1)\n    return {\"code\": 1, "
    (site.folder / "sitesteps.py").write_text(steps.replace("    return {", wait))
    first = site.install()
    site.site.add(1)
    site.site.start("farm")
    site.site.wait(lambda: bool(list((site.work / "spool").glob("jobs/*/started-1.json"))), 30, "the first job to run")
    (site.folder / "sitesteps.py").write_text(steps.replace("return {", 'return {"code": 2, '))
    second = site.install()
    assert first != second
    software = site.work / "spool" / "software"
    os.utime(software / first / "replaced", (0, 0))
    listed = json.loads(site.command("site", "versions", "--clean", "--json").stdout)
    jobs = {one["name"]: (one["used"], one["jobs"], one["removed"]) for one in listed["versions"]}
    assert jobs == {first: (False, 1, False), second: (True, 0, False)}
    (site.work / "out").mkdir(exist_ok=True)
    (site.work / "out" / "go").touch()
    site.site.add_more(1, 1)
    site.site.wait(site.site.finished, 60)
    codes = {name: document["proc0"]["result"]["code"] for name, document in site.site.everything().items()}
    assert codes == {"r000_000": 1, "t1_000": 2}
    site.site.wait(lambda: not list((site.work / "spool" / "jobs").iterdir()), 20, "the spool to be cleared")
    listed = json.loads(site.command("site", "versions", "--clean", "--json").stdout)
    assert {one["name"]: one["removed"] for one in listed["versions"]} == {first: True, second: False}
    assert not (software / first).exists() and (software / second).is_dir()


@pytest.mark.parametrize("known", ["unknown", "changed"])
def test_a_host_key_that_is_not_the_known_one_is_refused_in_words(
    make_far: Callable[..., FarSite], far: Far, tmp_path: Path, known: str
) -> None:
    hosts = tmp_path / "hosts"
    key = (far.sshd.folder / "id_ed25519.pub").read_text().split()[1]  # a good key, but of something else
    hosts.write_text("" if known == "unknown" else f"[127.0.0.1]:{far.sshd.port} ssh-ed25519 {key}\n")
    site = make_far(access={**far.sshd.settings, "known_hosts": str(hosts)})
    site.site.add(1)
    daemon = site.site.start("farm")
    assert daemon.wait(30) == Exit.UNAUTHORISED
    words = "knows no key of this machine" if known == "unknown" else "the key has changed"
    assert words in site.logs() and "SHA256:" in site.logs() and "Traceback" not in site.logs()
    for command in (("site", "check", "--json"), ("site", "install")):
        done = site.command(*command)
        assert done.returncode == Exit.UNAUTHORISED and words in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        if command[1] == "check":
            found = {one["check"]: one["level"] for one in json.loads(done.stdout)["findings"]}
            assert found["host"] == "ok" and found["host key"] == "problem"
            assert all(level == "not tried" for name, level in found.items() if name not in ("host", "host key"))
    assert site.site.everything()["r000_000"]["status"] == "closed"


class Real:
    """A real batch system whose jobs run as the far account; asked as that account, and past sshd."""

    def __init__(self, name: str, folder: Path, port: int) -> None:
        self.name = name
        self.programs, self.environment = "", {"SLURM_CONF": f"{folder}/slurm.conf"}
        if name == "gridengine":
            self.programs, self.environment = "/usr/lib/gridengine", {
                "SGE_ROOT": str(folder), "SGE_CELL": "default", "SGE_QMASTER_PORT": str(port),
                "SGE_EXECD_PORT": str(port + 1),
            }  # fmt: skip
        elif name == "htcondor":
            self.programs, self.environment = f"{folder}/bin", {}
        self.scheduler = get(name, programs=self.programs, environment=self.environment)

    def run(self, command: Command) -> Answer:
        words = ["runuser", "-u", USER, "--", *command.argv]
        done = subprocess.run(words, capture_output=True, text=True, cwd="/", timeout=60)
        return Answer(done.returncode, done.stdout, done.stderr)

    def running(self, prefix: str) -> list[str]:
        listing = ask.queue(self.scheduler, Query(prefix), self.run)
        return [self.scheduler.key(job.number, job.index) for job in listing.jobs if job.state is JobState.RUNNING]

    def cancel(self, keys: list[str]) -> None:
        ask.cancel(self.scheduler, keys, self.run)


@pytest.fixture(params=PORTS)
def real(request: pytest.FixtureRequest, far: Far) -> Iterator[Real]:
    name = request.param
    if name != "slurm" and not os.environ.get("ALL_BATCH_SYSTEMS"):
        pytest.skip("one real batch system across SSH is enough every day: ALL_BATCH_SYSTEMS=1 tries the others too")
    script, port, folder = CODE / "deploy" / "batch" / f"{name}.sh", PORTS[name], far.folder / name
    environment = {**os.environ, "PORT": str(port), "AT_ONCE": "1", "JOB_USER": USER}
    up = subprocess.run([script, "up", folder], env=environment, capture_output=True, text=True, timeout=120)
    try:
        if up.returncode != 0 and "install.sh" in up.stderr:
            pytest.skip(up.stderr.strip())
        assert up.returncode == 0, up.stdout + up.stderr
        yield Real(name, folder, port)
    finally:
        subprocess.run([script, "down", folder], env=environment, capture_output=True, timeout=120)


@pytest.mark.timeout(1500)
def test_through_a_real_batch_system(make_far: Callable[..., FarSite], far: Far, real: Real) -> None:
    """Jobs cancelled by hand, the daemon killed, the connection cut; with ORCHESTRATOR_LONG=1 again and again."""
    site = make_far(
        farm=f"    scheduler: {real.name}\n    environment: {json.dumps(real.environment)}\n"
        f"    programs: '{real.programs}'\n    setup_time: 60 s\n",
        step=", documents_per_job: 3, time_limit: 5 min, memory_limit: 400 MB",
    )
    site.change("seconds: 0}", "seconds: 0.5}")
    site.install()
    count = 300 if LONG else 30
    site.site.add(count)
    checked = site.command("site", "check", "--job", "--wait", "90", "--json")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    daemon = site.site.start("farm")
    site.site.wait(lambda: bool(real.running("orc-")), 60, "a job to run")
    real.cancel(real.running("orc-")[:2])
    daemon.kill()
    daemon.wait()
    far.sshd.signal_sessions(signal.SIGKILL)
    daemon = site.site.start("farm")
    for turn in range(20 if LONG else 0):
        time.sleep(3)
        if site.site.finished():
            break
        if turn % 4 == 3 and (running := real.running("orc-")[:1]):
            real.cancel(running)
        far.sshd.signal_sessions(signal.SIGKILL)
        daemon.kill()
        daemon.wait()
        daemon = site.site.start("farm")
    site.site.wait(site.site.finished, 900 if LONG else 120)
    found = site.site.everything()
    assert Counter(d["status"] for d in found.values()) == {"good": count}
    assert all(Path(d["proc0"]["file"]).owner() == USER for d in found.values())
    # one that was killed between its effect and its result does it again
    assert {line.split()[0] for line in site.effects()} == set(found)
    retried = sum(d["proc0"]["number"] - 1 for d in found.values())
    records = [row.doc for row in site.site.database.all_docs(include_docs=True) if row.doc.get("type") == "attempt"]
    assert len(records) == retried, "every attempt is accounted for"
