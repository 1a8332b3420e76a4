"""The page of results, ``docs/benchmarks.md``: its tables come from ``benchmarks/results/*.json`` and nowhere else.

Parts between ``<!-- results: NAME -->`` and ``<!-- end -->`` are made here; the rest is written by hand. A test
compares.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from common import BUSY, busy, number, shown, value

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
PAGE = ROOT / "docs" / "benchmarks.md"
IMAGES = ROOT / "docs" / "images" / "benchmarks"
PART = re.compile(r"(<!-- results: ([a-z]+) -->\n).*?(<!-- end -->)", re.DOTALL)
OURS = "orchestrator"

Result = Mapping[str, Any]


def results(folder: Path = RESULTS) -> dict[str, Result]:
    """What was measured last, by benchmark."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def render(page: str, found: Mapping[str, Result]) -> str:
    """The page with every generated part anew."""

    def part(match: re.Match[str]) -> str:
        name = match[2]
        summaries = {"goals": goals, "losses": losses}
        made = summaries[name](found) if name in summaries else section(name, found.get(name))
        return f"{match[1]}{made}\n{match[3]}"

    return PART.sub(part, page)


# --- one benchmark ---


def section(name: str, result: Result | None) -> str:
    """How a result was obtained, its tables and its figure."""
    if result is None:
        return f"Not measured yet: `python benchmarks/run_all.py --only {name}`."
    lines = [obtained(result)]
    if (IMAGES / f"{name}.svg").exists():
        lines += ["", f"![{result['title']}](images/benchmarks/{name}.svg)"]
    for table in result["tables"]:
        lines += ["", *markdown(table)]
    return "\n".join(lines)


def obtained(result: Result) -> str:
    """A sentence on the machine, the versions and the command."""
    machine = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items() if version)
    words = (
        f"Obtained by `{result['command']}` on {result['date'][:10]}, in {duration(result['seconds'])}, on "
        f"{machine['cores']} cores ({machine['processor']}), {machine['memory, GB']} GB, {machine['kernel']}, "
        f"Python {machine['python']}; {versions}. Load before: {machine['load'][0]}."
    )
    if busy(result):
        words += f" **Busy machine**: the load was above {BUSY:g}, so compare within a table only."
    return words


def duration(seconds: float) -> str:
    """How long a run took, in words."""
    return f"{seconds:.0f} seconds" if seconds < 100 else f"{seconds / 60:.0f} minutes"


def markdown(table: Mapping[str, Any]) -> list[str]:
    """A table and its notes."""
    lines = [f"**{table['title']}**"]
    if table["rows"]:
        columns = range(len(table["columns"]))
        numeric = [all(not isinstance(row[place], str) for row in table["rows"]) for place in columns]
        lines += ["", row_of(table["columns"]), row_of("---:" if right else "---" for right in numeric)]
        lines += [row_of(shown(cell) for cell in row) for row in table["rows"]]
    if table["notes"]:
        lines += ["", *(f"{note}  " for note in table["notes"][:-1]), table["notes"][-1]]
    return lines


def row_of(cells: Any) -> str:
    """One line of a table."""
    return f"| {' | '.join(str(cell).strip().replace('|', '/') for cell in cells)} |"


# --- what the goals say ---


def cell(found: Mapping[str, Result], name: str, table: int, row: str, column: int) -> float | None:
    """A number of a result; None where it was not measured. ``row`` is how the row's first cell begins."""
    try:
        rows = found[name]["tables"][table]["rows"]
        return value(next(each for each in rows if str(each[0]).startswith(row))[column])
    except (KeyError, IndexError, StopIteration, TypeError):
        return None


def last_table(found: Mapping[str, Result], name: str, row: str) -> float | None:
    """As `cell`, of the result's last table, which holds ratios."""
    tables = found.get(name, {}).get("tables", [])
    return cell(found, name, len(tables) - 1, row, 1) if len(tables) > 1 else None


def shares(found: Mapping[str, Result], table: str) -> list[tuple[str, float]]:
    """The step's shares of uproot alone, of one kind of file."""
    tables = [each for each in found.get("conversion", {}).get("tables", []) if each["title"].startswith(table)]
    return [(row[0], value(row[2])) for each in tables for row in each["rows"] if row[2] is not None]


Goal = tuple[str, str, float | None, Callable[[float], bool]]


def compared(found: Mapping[str, Result]) -> list[Goal]:
    """What is to be reached: what, the goal in words, what was measured, and whether that is enough."""
    rows: list[Goal] = [
        ("steps a second, embedded, two workers", "3,000", cell(found, "comparison", 0, OURS, 2), lambda x: x >= 3000),
        ("closing a file to the step's start, idle, median, ms", "5",
         cell(found, "latency", 0, OURS, 1), lambda x: x <= 5),
        ("the same, p99, ms", "25", cell(found, "latency", 0, OURS, 3), lambda x: x <= 25),
    ]  # fmt: skip
    largest = max((row[0] for row in found.get("growth", {"tables": [{"rows": []}]})["tables"][0]["rows"]), default=0)
    if largest:
        name = f"{largest:,} documents against 10,000"
        rows += [
            (f"{name}: steps a second, ratio", "at least 1 / 1.2", last_table(found, "growth", "steps/s"),
             lambda x: x >= 1 / 1.2),
            (f"{name}: latency, median, ratio", "at most 1.2", last_table(found, "growth", "latency"),
             lambda x: x <= 1.2),
            (f"{name}: memory of the poller and its workers, ratio", "at most 1.2",
             last_table(found, "growth", "poller and"), lambda x: x <= 1.2),
            (f"resume after kill -9 at {largest:,} documents, s", "under 3",
             cell(found, "growth", 0, str(largest), 5), lambda x: x < 3),
            (f"status page at {largest:,} documents, p95, ms", "under 150",
             cell(found, "growth", 0, str(largest), 6), lambda x: x < 150),
            ("poller and its two workers, MB", "under 150", cell(found, "growth", 0, str(largest), 7),
             lambda x: x < 150),
        ]  # fmt: skip
    large, small = (
        next((place for place, table in enumerate(found.get("transfer", {}).get("tables", []))
              if table["title"].startswith("1 file") == wanted), 99)
        for wanted in (True, False)
    )  # fmt: skip
    rows += [
        ("a large file by SFTP, speed of the `sftp` program", "1", cell(found, "transfer", large, "step, one", 4),
         lambda x: x >= 1),
        ("small files by SFTP, one worker, speed of `sftp -b`", "more than 1",
         cell(found, "transfer", small, "step, one", 4), lambda x: x > 1),
        ("the same with two workers", "more than 1", cell(found, "transfer", small, "step, two", 4), lambda x: x > 1),
    ]  # fmt: skip
    for kind in ("Samba", "DATE"):
        for way, share in shares(found, kind):
            name = way.removeprefix("the step").strip(", ")
            rows.append((f"{kind} conversion, {name}, share of uproot alone", "0.7", share,
                         lambda x: x >= 0.7))  # fmt: skip
    for place, table in enumerate(found.get("submission", {}).get("tables", [])):
        rate = cell(found, "submission", place, "arrays", 1)
        rows.append((f"1,000 documents into {table['title'].partition(':')[0]} by arrays, s", "under 3",
                     1000 / rate if rate else None, lambda x: x < 3))  # fmt: skip
        used = cell(found, "submission", place, "arrays", 3)
        rows.append(("the same, the daemon's processor time, s", "under 3", used, lambda x: x < 3))
    return rows


def goals(found: Mapping[str, Result]) -> str:
    """The goals, what was measured, and whether that is enough."""
    lines = [row_of(("what", "goal", "measured", "reached")), row_of(("---", "---:", "---:", "---"))]
    for what, goal, measured, enough in compared(found):
        if measured is None:
            lines.append(row_of((what, goal, "-", "not measured")))
        else:
            lines.append(row_of((what, goal, number(measured), "yes" if enough(measured) else "**no**")))
    return "\n".join([*lines, *crowded(found)])


def crowded(found: Mapping[str, Result]) -> list[str]:
    """A sentence that names the results of a busy machine; nothing if there are none."""
    names = [name for name, result in found.items() if busy(result)]
    if not names:
        return []
    return [
        "", f"**Measured on a busy machine: {', '.join(names)}.** What is absolute in these (steps a second, "
        "milliseconds) says little: look at the ratios, or measure again.",
    ]  # fmt: skip


def losses(found: Mapping[str, Result]) -> str:
    """What is faster than the orchestrator, in sentences."""
    lines = []
    rows = found.get("comparison", {"tables": [{"rows": []}]})["tables"][0]["rows"]
    for row in rows:
        if row[3] is not None and value(row[3]) < 1 and "limit" not in row[0]:
            times = 1 / value(row[3])
            many = "as many" if times < 1.01 else f"{number(times)} times as many"
            lines.append(f"- {row[0]} does {many} steps a second{lacks(found, row[0])}.")
    rows = found.get("latency", {"tables": [{"rows": []}]})["tables"][0]["rows"]
    mine = next((row for row in rows if row[0] == OURS), None)
    for row in rows if mine else []:
        for place, when in ((1, "idle"), (4, "under load")):
            if row is not mine and row[place] is not None and mine and value(row[place]) < value(mine[place]):
                lines.append(
                    f"- {row[0]} begins a step sooner ({when}, median): {number(value(row[place]))} ms, here "
                    f"{number(value(mine[place]))} ms{lacks(found, row[0])}."
                )
    for table in found.get("transfer", {"tables": []})["tables"]:
        step = next((row for row in table["rows"] if row[0] == "step, one worker"), None)
        for row in table["rows"] if step else []:
            if not row[0].startswith("step") and step and value(row[4]) > value(step[4]):
                lines.append(
                    f"- {row[0]} sends {table['title']} {number(value(row[4]) / value(step[4]))} times as fast as one "
                    "worker's step (it proves no copy on the disk)."
                )
    rows = found.get("histograms", {"tables": [{"rows": []}]})["tables"][0]["rows"]
    for row in rows:
        if row[0].startswith("procs") and value(row[2]) < 1:
            lines.append(f"- boost-histogram alone fills {number(1 / value(row[2]))} times as fast as {row[0]}.")
    for what, goal, measured, enough in compared(found):
        if measured is not None and not enough(measured):
            lines.append(f"- The goal is missed: {what}: {number(measured)}, the goal is {goal}.")
    return "\n".join([*lines, *crowded(found)]) or "None in these results."


def lacks(found: Mapping[str, Result], way: str) -> str:
    """What a faster system does not do meanwhile, as the end of a sentence; from the comparison's second table."""
    tables = found.get("comparison", {}).get("tables", [])
    kept = next((row for row in tables[1]["rows"] if row[0] == way), None) if len(tables) > 1 else None
    if kept is None:
        return ""
    _, starts, results, worker, _, synced = kept
    words = {
        "records no start": starts, "records no result": results, "loses the step of a killed worker": worker,
        "flushes nothing to the disk": synced,
    }  # fmt: skip
    missing = [text for text, cell in words.items() if cell == "no"]
    return f" (it {', '.join(missing)})" if missing else ""


def write() -> bool:
    """Bring the page up to date; whether it changed."""
    before = PAGE.read_text("utf-8")
    after = render(before, results())
    if after != before:
        PAGE.write_text(after, "utf-8")
    return after != before
