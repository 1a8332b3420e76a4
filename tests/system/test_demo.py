"""The README's main job, as a user starts it: from one command to files, outputs and a page."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

pytestmark = pytest.mark.system
SHARED = Path(os.environ.get("ORCHESTRATOR_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))


def environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ORCHESTRATOR_")}
    return {**kept, "HOME": str(home), "COLUMNS": "120"}


def demo(folder: Path, *words: str, seconds: float = 240) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "orchestrator.cli", "demo", "--directory", str(folder / "a demo"), "--end", *words]
    return subprocess.run(command, cwd=folder, env=environment(folder), text=True, capture_output=True, timeout=seconds)


def nobody_left(folder: Path) -> bool:
    """Whether no process of the site in ``folder`` lives any more."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        found = [p for p in psutil.process_iter(["cmdline"]) if str(folder) in " ".join(p.info["cmdline"] or [])]
        if not found:
            return True
        time.sleep(0.1)
    return False


def test_simulated_files_go_through_and_a_second_time_too(tmp_path: Path) -> None:
    small = ("--runs", "1", "--partitions", "2", "--events", "20", "--workers", "2", "--json")
    first = demo(tmp_path, *small)
    assert first.returncode == 0, first.stdout + first.stderr
    summary = json.loads(first.stdout)
    assert (summary["files"], summary["steps"], summary["failed"]) == (3, 12, 0)
    outputs = Path(summary["outputs"])
    assert {path.name for path in outputs.iterdir()} >= {"raw", "converted", "amplitudes", "histograms"}
    assert len(list((outputs / "raw").rglob("ma22a000_00?"))) == 2
    assert list((outputs / "histograms").rglob("*.png"))
    assert nobody_left(tmp_path)
    second = json.loads(demo(tmp_path, *small).stdout)
    assert (second["files"], second["failed"]) == (2, 0)  # the next run; the DATE file is there already


def test_the_real_files_with_their_counts(tmp_path: Path) -> None:
    if not SHARED.is_dir():
        pytest.skip("the real files are not here: set ORCHESTRATOR_SHARED_DATA to their folder")
    done = demo(tmp_path, str(SHARED / "mice_06008.000"), "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["steps"] == 4
    document = a_document(tmp_path / "a demo", "mice_06008.000")
    assert document["run_name"] == "mice_06008"
    assert document["proc0"]["size"] == 2_397_088
    assert document["proc1"]["result"]["counts"]["events"] == 22
    trees = [str(SHARED / name) for name in ("uproot-Zmumu.root", "uproot-HZZ.root")]
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli", "demo", "--directory", "trees", "--end", "--json", *trees],
        cwd=tmp_path, env=environment(tmp_path), text=True, capture_output=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    entries = {name: a_document(tmp_path / "trees", name)["proc1"]["result"]["entries"] for name in
               ("uproot-Zmumu.root", "uproot-HZZ.root")}  # fmt: skip
    assert entries == {"uproot-Zmumu.root": 2304, "uproot-HZZ.root": 2421}


def a_document(folder: Path, name: str) -> dict[str, Any]:
    """A document of a demo that has ended, from its database started once more."""
    words = [sys.executable, "-m", "orchestrator.cli", "-C", str(folder)]
    port = free_port()
    env = environment(folder) | {"ORCHESTRATOR_URL": f"http://127.0.0.1:{port}"}
    server = subprocess.Popen([*words, "db", "serve"], env=env, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 20
        while time.monotonic() < end:
            done = subprocess.run([*words, "show", name, "--json"], env=env, text=True, capture_output=True)
            if done.returncode != 4:
                break
        found: dict[str, Any] = json.loads(done.stdout)["document"]
        return found
    finally:
        server.terminate()
        server.wait()


def test_a_corrupt_file_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    from procs.simulate import simulate

    written = simulate(tmp_path / "daq", runs=1, partitions=2, events=5, date_runs=0)
    raw = bytearray(written[1].path.read_bytes())
    raw[len(raw) // 2 :] = b"\xff" * (len(raw) - len(raw) // 2)
    written[1].path.write_bytes(raw)
    (tmp_path / "daq" / "notes_000").write_text("no raw file at all")
    done = demo(tmp_path, str(tmp_path / "daq"), str(tmp_path / "daq" / "notes_000"), "--json")
    assert done.returncode == 1
    summary = json.loads(done.stdout)
    reasons = {one["document"]: one["reason"] for one in summary["failures"]}
    assert set(reasons) == {"ma22a000_001", "notes_000"}
    assert "at byte" in reasons["ma22a000_001"]
    assert "no known format" in reasons["notes_000"]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["/no/such/file"], 3, "there is no file /no/such/file"),
        (["--chain", "nosuch"], 3, "neither an example chain nor a file"),
        (["--chain", "{folder}/corrupt.yaml"], 3, "corrupt.yaml"),
    ],
)
def test_what_cannot_work_is_said_at_once(tmp_path: Path, words: list[str], code: int, sentence: str) -> None:
    (tmp_path / "corrupt.yaml").write_text("name: [")
    done = demo(tmp_path, *(word.format(folder=tmp_path) for word in words), seconds=30)
    assert (done.returncode, sentence in done.stderr) == (code, True), done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[Path, "subprocess.Popen[str]", str]]:
    """A demo that has all done and leaves its page up."""
    command = [
        sys.executable, "-m", "orchestrator.cli", "demo", "--directory", str(tmp_path / "a demo"),
        "--runs", "0", "--workers", "1",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment(tmp_path), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None
    page = ""
    for line in process.stdout:
        if "stays up" in line:
            page = line.split(" at ")[1].split(" until")[0]
            break
    try:
        yield tmp_path, process, page
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        assert nobody_left(tmp_path)


def test_the_page_stays_up_until_ctrl_c(running: tuple[Path, "subprocess.Popen[str]", str]) -> None:
    folder, process, page = running
    answer = requests.get(page, timeout=10)
    assert answer.status_code == 200
    assert "sim_00001" in requests.get(page + "runs", timeout=10).text
    again = demo(folder)
    assert again.returncode == 7
    assert "is running" in again.stderr
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0


def test_kill_minus_nine_of_the_demo_leaves_nobody(running: tuple[Path, "subprocess.Popen[str]", str]) -> None:
    folder, process, _ = running
    process.kill()
    process.wait()
    assert nobody_left(folder)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
