"""Each benchmark runs from end to end in a tiny form and gives a result; nothing is timed. The page shows them."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest

from orchestrator.schedulers import testing as batch
from orchestrator.transports import testing as transports

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
LONG = bool(os.environ.get("ORCHESTRATOR_LONG"))

#: Every benchmark that gives a result, and how it is made small.
SMALL: dict[str, tuple[str, ...]] = {
    "comparison": ("--documents", "20", "--only", "orchestrator", "the"),
    "latency_comparison": ("--documents", "3", "--only", "orchestrator", "the naive"),
    "growth": ("--largest", "100", "--documents", "10", "--waits", "3"),
    "conversion": ("--megabytes", "1", "--compressions", "zstd-1", "--simulated", "DATE"),
    "histograms": ("--values", "2000", "--histograms", "5"),
}
#: Those that print their figures alone.
PLAIN: dict[str, tuple[str, ...]] = {
    "throughput": ("--documents", "20"),
    "latency": ("--documents", "2"),
    "guard": ("--documents", "20", "--rounds", "1"),
    "page": ("--documents", "150", "--rounds", "1"),
    "steps": ("5", "64"),
    "audit": ("--documents", "30"),
    "embedded_functions": ("500",),
}
#: Of these, those that run each time: with all it would be a minute.
EACH_TIME = ("throughput", "guard")


def run(script: str, *words: str, timeout: float = 250) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), *words], capture_output=True, text=True, timeout=timeout, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def measured(script: str, tmp_path: Path, *words: str, timeout: float = 250) -> dict[str, Any]:
    """The result of one tiny run, which has been drawn too."""
    place, figure = tmp_path / "result.json", tmp_path / "figure.png"
    done = run(script, *words, "--rounds", "1", "--json", str(place), "--plot", str(figure), timeout=timeout)
    result: dict[str, Any] = json.loads(place.read_text())
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert result["machine"]["cores"] == os.cpu_count() and len(result["machine"]["load"]) == 3
    assert result["versions"]["orchestrator"] and result["date"].endswith("Z")
    assert str(tmp_path) not in json.dumps(result), "where somebody's files lie is nobody's business"
    for table in result["tables"]:
        assert table["title"] in done.stdout
        assert table["rows"] and all(len(row) == len(table["columns"]) for row in table["rows"])
    return result


def module(name: str) -> ModuleType:
    """A module of the benchmarks, which are scripts and no package."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", BENCHMARKS / f"{name}.py")
        assert spec is not None and spec.loader is not None
        made = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(made)
        return made
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.mark.parametrize("name", SMALL)
def test_a_benchmark_gives_a_result(name: str, tmp_path: Path) -> None:
    result = measured(f"{name}.py", tmp_path, *SMALL[name])
    known = {"latency_comparison": "latency"}
    assert result["benchmark"] == known.get(name, name)
    rows = [row for table in result["tables"] for row in table["rows"]]
    assert all(cell is None or isinstance(cell, (str, int, float, dict)) for row in rows for cell in row)


@pytest.mark.parametrize("name", PLAIN if LONG else EACH_TIME)
def test_a_benchmark_of_one_part_runs(name: str) -> None:
    assert any(character.isdigit() for character in run(f"{name}.py", *PLAIN[name]).stdout)


def test_transfers_are_measured(tmp_path: Path) -> None:
    if reason := transports.why_not():
        pytest.skip(reason)
    result = measured("transfer.py", tmp_path, "--large", "1", "--files", "2", "--small", "10")
    ways = {row[0] for row in result["tables"][0]["rows"]}
    assert {"scp", "rsync -W", "step, one worker"} <= ways


@pytest.mark.one_by_one
def test_submission_is_measured(tmp_path: Path) -> None:
    if reason := batch.why_not("gridengine"):
        pytest.skip(reason)
    result = measured("submission.py", tmp_path, "--systems", "gridengine", "--documents", "4")
    arrays, *_ = result["tables"][0]["rows"]
    if not arrays[0].startswith("arrays"):
        pytest.skip("Grid Engine is not installed: deploy/batch/install.sh gridengine")
    assert arrays[2]["median"] == 1, "one call submits them all"


@pytest.mark.skipif(not LONG, reason="installs seven systems: ORCHESTRATOR_LONG=1")
@pytest.mark.timeout(1800)
def test_the_others_are_measured(tmp_path: Path) -> None:
    result = measured("comparison.py", tmp_path, "--documents", "50", timeout=1700)
    missing = [row[0] for row in result["tables"][0]["rows"] if row[2] is None]
    assert not missing, result["tables"][0]["notes"]


# --- what is proved of the others' work ---


def marked(tmp_path: Path, *lines: str) -> subprocess.CompletedProcess[str]:
    """What a driver says of such marks of two documents."""
    (tmp_path / "marks").write_text("".join(f"{line}\n" for line in lines))
    return subprocess.run(
        [sys.executable, "-c", "import marks; marks.throughput(2, 0.0, 1.0)"], capture_output=True, text=True,
        env={**os.environ, "BENCHMARK_MARKS": str(tmp_path / "marks"), "PYTHONPATH": str(BENCHMARKS / "others")},
    )  # fmt: skip


ALL = ("0 0 1.5", "1 0 1.6", "0 1 1.7", "1 1 1.8", "0 2 1.9", "1 2 2.5")


def test_a_driver_counts_from_the_first_step_to_the_last(tmp_path: Path) -> None:
    found = json.loads(marked(tmp_path, *ALL).stdout)
    assert (found["steps"], found["seconds"], found["whole"]) == (6, 1.0, 1.5)


@pytest.mark.parametrize(
    "lines", [ALL[:-1], (*ALL, ALL[0]), ("0 0 9", *ALL[1:])], ids=["one is missing", "one came twice", "out of order"]
)
def test_a_driver_refuses_work_that_was_not_done_once_and_in_order(tmp_path: Path, lines: tuple[str, ...]) -> None:
    done = marked(tmp_path, *lines)
    assert done.returncode != 0 and not done.stdout


def test_what_is_not_here_is_said_with_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environments = module("environments")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(environments.NotHere, match=r"deploy/benchmark_services\.sh"), environments.redis(False):
        pass


@pytest.mark.skipif(not LONG, reason="makes a Python environment: ORCHESTRATOR_LONG=1")
def test_a_system_that_cannot_be_installed_is_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environments = module("environments")
    monkeypatch.setattr(environments, "OTHERS", tmp_path)
    monkeypatch.setenv("BENCHMARK_ENVIRONMENTS", str(tmp_path / "made"))
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "requirements.txt").write_text("./nothing-here\n")
    with pytest.raises(environments.NotHere, match="odd could not be installed"):
        environments.environment("odd")


HANGS = """
import os, subprocess, sys, time
code = "import os, sys, time; open(sys.argv[1], 'a').write(f'{os.getpid()} '); time.sleep(60)"
for alone in (True, False):
    subprocess.Popen([sys.executable, "-c", code, "PIDS"], start_new_session=alone)
time.sleep(60)
"""


def ended(pids: Path) -> bool:
    """Whether all processes have ended that left their numbers; they are waited for, since init takes its time."""
    numbers = [int(word) for word in pids.read_text().split()]
    alive = psutil.wait_procs([psutil.Process(pid) for pid in numbers if psutil.pid_exists(pid)], timeout=10)[1]
    return len(numbers) == 2 and not alive


def test_a_driver_that_hangs_is_ended_with_all_that_it_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environments = module("environments")
    (tmp_path / "hangs").mkdir()
    (tmp_path / "hangs" / "driver.py").write_text(HANGS.replace("PIDS", str(tmp_path / "pids")))
    monkeypatch.setattr(environments, "OTHERS", tmp_path)
    monkeypatch.setattr(environments, "PATIENCE", 2.0)
    monkeypatch.setattr(environments, "environment", lambda name: Path(sys.executable))
    with pytest.raises(RuntimeError, match="hangs: not through after 2 s"):
        environments.drive("hangs", "throughput", "least", 1)
    assert ended(tmp_path / "pids")


def test_a_benchmark_that_hangs_or_fails_does_not_keep_the_others_from_running(tmp_path: Path) -> None:
    run_all = module("run_all")
    (tmp_path / "hangs.py").write_text(HANGS.replace("PIDS", str(tmp_path / "pids")))
    assert "and ended" in run_all.run([sys.executable, str(tmp_path / "hangs.py")], 2.0)
    assert ended(tmp_path / "pids")
    assert run_all.run([sys.executable, "-c", "raise SystemExit('no')"], 30.0) == "failed with exit code 1"
    assert run_all.run([sys.executable, "-c", ""], 30.0) == ""


def test_a_system_that_failed_has_a_row_and_a_word_about_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    comparison, place = module("comparison"), tmp_path / "result.json"

    def drive(*_: Any, **__: Any) -> None:
        raise RuntimeError("Prefect: nothing moved for 60 s\nand many more words")

    monkeypatch.setattr(comparison, "drive", drive)
    words = ["comparison.py", "--documents", "20", "--rounds", "1", "--only", "Prefect", "--json", str(place)]
    monkeypatch.setattr(sys, "argv", words)
    comparison.main()
    table = json.loads(place.read_text())["tables"][0]
    assert [row[0] for row in table["rows"]] == ["Prefect"] and table["rows"][0][2] is None
    assert "Prefect: 1 of 1 rounds failed: Prefect: nothing moved for 60 s." in table["notes"]


# --- the page ---


def test_the_page_shows_the_results_that_are_there() -> None:
    report = module("report")
    page = report.PAGE.read_text("utf-8")
    assert report.render(page, report.results()) == page, "run `python benchmarks/run_all.py --render`"


def test_the_page_names_every_benchmark() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text("utf-8")
    helpers = {"common.py", "environments.py", "naive.py", "report.py", "run_all.py", "__main__.py"}
    scripts = {path.name for path in BENCHMARKS.glob("*.py")} - helpers
    assert not [name for name in scripts if f"`{name}`" not in page], "give them a line in the table of the page"
    assert {f"{name}.py" for name in (*SMALL, *PLAIN)} <= scripts


def test_a_goal_that_is_missed_is_said_to_be() -> None:
    report = module("report")
    row = ["orchestrator", 100, {"median": 2000.0, "rounds": [1900.0, 2100.0]}, None, 0.1, 0.1, 100.0]
    faster = ["huey", 100, 4000.0, 0.5, 0.1, 0.1, 70.0]
    found = {"comparison": {"tables": [{"rows": [row, faster]}], "machine": {"load": [0.5], "load at the end": 1.0}}}
    assert "| steps a second, embedded, two workers | 3,000 | 2,000 | **no** |" in report.goals(found)
    assert "huey does 2.00 times as many steps" in report.losses(found)
    assert "The goal is missed: steps a second" in report.losses(found)


def test_what_is_faster_is_said_with_what_it_does_not_do() -> None:
    report = module("report")
    kept = ["huey", "no", "no", "no", "last snapshot", "no"]
    quick, ours = ["huey", 0.8, 3.0, 5.0, 0.8, 3.7, 24.0], ["orchestrator", 4.4, 9.0, 20.0, 6.0, 18.0, 24.0]
    files = [["sftp", 1, 1, 1, 1.0], ["rsync -W", 1, 1, 1, 2.0], ["step, one worker", 1, 1, 1, 1.25]]
    quiet = {"load": [0.5], "load at the end": 1.0}
    said = report.losses({
        "comparison": {"tables": [{"rows": []}, {"rows": [kept]}], "machine": quiet},
        "latency": {"tables": [{"rows": [ours, quick]}], "machine": quiet},
        "transfer": {"tables": [{"title": "9 files", "rows": files}], "machine": quiet},
    })  # fmt: skip
    assert "huey begins a step sooner (idle, median): 0.80 ms, here 4.40 ms (it records no start, " in said
    assert "loses the step of a killed worker, flushes nothing to the disk)." in said
    assert "- rsync -W sends 9 files 1.60 times as fast as one worker's step" in said and "- sftp sends" not in said


def test_a_result_says_that_the_machine_was_busy() -> None:
    common = module("common")
    quiet = {"machine": {"load": [0.4, 1.0, 1.0], "load at the end": 2.5}}
    assert not common.busy(quiet)
    assert common.busy({"machine": {**quiet["machine"], "load": [5.0, 4.0, 4.0]}})


def test_numbers_are_shown_with_the_digits_that_count() -> None:
    common = module("common")
    shown = [common.shown(cell) for cell in (3141.59, 31.4159, 0.031416, 7, "text", None)]
    assert shown == ["3,142", "31.4", "0.0314", "7", "text", "-"]
    assert common.shown({"median": 2.0, "rounds": [1.0, 2.0, 4.0]}) == "2.00 (1.00-4.00)"
