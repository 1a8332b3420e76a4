"""What the benchmarks share: the machine they ran on, rounds and their medians, tables, JSON, figures, and databases.

A result is a dict that JSON can hold: what was measured and how it was obtained, the machine, and tables. A cell of a
table is a text, a number, ``None`` (not measured), or a spread: the median of several rounds with all of them. The same
result is printed (rich), written (``--json``), drawn (``--plot``) and rendered into the guide (``run_all.py``).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shlex
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from orchestrator.couch import Credentials, Server
from orchestrator.embedded.testing import EmbeddedServer
from orchestrator.version import VERSION

HERE = Path(__file__).parent
BUSY = 3.0  # load average above which other work on a machine of two cores is part of what was measured
SAMPLE = 0.5  # s between two looks at the memory: a look at a process costs a millisecond


# --- the machine ---


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens at."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def first_line(*command: str) -> str:
    """The first line of what a program says of itself; empty where it is not there."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except OSError:
        return ""
    return next(iter((done.stdout or done.stderr).strip().splitlines()), "")


def processor() -> str:
    """The processor's name, as the kernel has it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def versions(names: Iterable[str]) -> dict[str, str]:
    """The installed versions of Python packages, without those that are not there."""
    found = {}
    for name in names:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def machine() -> dict[str, Any]:
    """What the figures were obtained on, and the load that was there before."""
    return {
        "processor": processor(), "cores": os.cpu_count(), "memory, GB": round(psutil.virtual_memory().total / 1e9, 1),
        "kernel": f"{platform.system()} {platform.release().partition('-')[0]}", "python": platform.python_version(),
        "load": [round(load, 1) for load in os.getloadavg()],
    }  # fmt: skip


# --- figures ---


def spread(values: Sequence[float]) -> dict[str, Any]:
    """The cell of several rounds: their median, and all of them."""
    return {"median": statistics.median(values), "rounds": list(values)}


def value(cell: Any) -> float:
    """The number of a cell, of a spread its median."""
    return float(cell["median"] if isinstance(cell, Mapping) else cell)


def number(amount: float) -> str:
    """A number with three digits that count, thousands apart."""
    if amount == 0 or (isinstance(amount, int) and abs(amount) < 1000):
        return str(round(amount))
    if abs(amount) >= 100:
        return f"{amount:,.0f}"
    return f"{amount:.1f}" if abs(amount) >= 10 else f"{amount:.2f}" if abs(amount) >= 0.1 else f"{amount:.3g}"


def shown(cell: Any) -> str:
    """A cell as text: a spread as ``median (lowest-highest)``."""
    if cell is None:
        return "-"
    if isinstance(cell, Mapping):
        low, high = number(min(cell["rounds"])), number(max(cell["rounds"]))
        return number(cell["median"]) + (f" ({low}-{high})" if low != high else "")
    return cell if isinstance(cell, str) else number(cell)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], *notes: str) -> dict[str, Any]:
    """One table of a result. Notes are sentences that stand below it."""
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(f"{title}: {row!r} has not the columns {columns!r}")
    return {"title": title, "columns": list(columns), "rows": [list(row) for row in rows], "notes": list(notes)}


def interleaved(
    ways: Mapping[str, Callable[[], Any]], rounds: int, say: Callable[[str], None] | None = None
) -> dict[str, list[Any]]:
    """Each way once a round, every round beginning with another one, so that what else runs harms all alike."""
    names = list(ways)
    found: dict[str, list[Any]] = {name: [] for name in names}
    for turn in range(rounds):
        first = turn % len(names) if names else 0
        for name in names[first:] + names[:first]:
            if say is not None:
                say(f"round {turn + 1} of {rounds}: {name}")
            found[name].append(ways[name]())
    return found


def quantiles(waits: Sequence[float]) -> dict[str, float]:
    """Median, p95 and p99 of times in seconds, in milliseconds."""
    cuts = statistics.quantiles(waits, n=100, method="inclusive")
    return {name: 1000 * cuts[part - 1] for name, part in (("median", 50), ("p95", 95), ("p99", 99))}


# --- memory ---


def pss(pids: Iterable[int]) -> float:
    """Memory (MB) of processes and all their children: what several share is divided among them (Linux' PSS)."""
    family: dict[int, psutil.Process] = {}
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            family |= {one.pid: one for one in (process, *process.children(recursive=True))}
    total = 0
    for pid in family:
        with contextlib.suppress(OSError, StopIteration):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += 1024 * int(next(line for line in lines if line.startswith("Pss:")).split()[1])
    return total / 1e6


class Memory:
    """The most memory that some processes and their children took while the block ran: ``most``, MB.

    Without ``pids``: all children of this process.
    """

    def __init__(self, *pids: int) -> None:
        self.most = 0.0
        self._pids = pids
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._end.wait(SAMPLE):
            pids = self._pids or [child.pid for child in psutil.Process().children()]
            self.most = max(self.most, pss(pids))


# --- databases ---


@contextlib.contextmanager
def database_server(synchronous: str = "full", folder: Path | None = None) -> Iterator[tuple[Server, Credentials, str]]:
    """An embedded server of its own, or the one of COUCHDB_URL (COUCHDB_USER, COUCHDB_PASSWORD): with its name."""
    if outside := os.environ.get("COUCHDB_URL"):
        credentials = Credentials(os.environ["COUCHDB_USER"], os.environ["COUCHDB_PASSWORD"])
        server = Server(outside, credentials, timeout=600.0)
        yield server, credentials, f"CouchDB {server.info().get('version', '')}".strip()
        return
    with (
        tempfile.TemporaryDirectory() as temporary,
        EmbeddedServer(folder or Path(temporary), synchronous=synchronous) as embedded,
    ):
        credentials = Credentials(*embedded.credentials)
        yield Server(embedded.url, credentials, timeout=600.0), credentials, f"embedded, synchronous={synchronous}"


def login(credentials: Credentials) -> dict[str, str]:
    """The environment of a process that logs in to the database."""
    return {"ORCHESTRATOR_COUCH_USER": credentials.username, "ORCHESTRATOR_COUCH_PASSWORD": credentials.password}


# --- the command line and the result ---


def parser(doc: str | None, rounds: int = 3) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rounds", type=int, default=rounds, help="how often each way is measured (medians are shown)")
    made.add_argument("--json", type=Path, metavar="FILE", help="write the result to this file")
    made.add_argument("--plot", type=Path, metavar="FILE", help="draw the result into this file (png, svg or pdf)")
    return made


class Run:
    """One run of a benchmark: notes the machine at its beginning, says how far it is, and ends in a result."""

    def __init__(self, name: str, doc: str | None, what: Mapping[str, str] | None = None) -> None:
        """``what``: names and versions of what is compared, besides this project's own."""
        self.console = Console(width=None if sys.stdout.isatty() else 160)
        self._began = time.monotonic()
        words = [Path(sys.argv[0]).name, *sys.argv[1:]]
        self.result: dict[str, Any] = {
            "benchmark": name, "title": (doc or "").strip().splitlines()[0].rstrip("."),
            "command": shlex.join(["python", f"benchmarks/{words[0]}", *shorn(words[1:])]),
            "date": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            "machine": machine(), "versions": {"orchestrator": VERSION, **(what or {})}, "tables": [],
        }  # fmt: skip
        described = ", ".join(f"{key} {item}" for key, item in self.result["machine"].items() if key != "load")
        self.console.print(f"{self.result['title']}\n{described}; load {self.result['machine']['load'][0]}")

    def say(self, text: str) -> None:
        """A line that tells somebody who waits how far it is."""
        self.console.print(f"[dim]{time.monotonic() - self._began:6.0f} s  {text}[/dim]", highlight=False)

    def add(self, found: dict[str, Any]) -> None:
        """Print a table and keep it."""
        self.result["tables"].append(found)
        drawn = Table(title=found["title"], title_justify="left")
        for place, name in enumerate(found["columns"]):
            drawn.add_column(name, justify="right" if place and _numeric(found, place) else "left")
        for row in found["rows"]:
            drawn.add_row(*map(shown, row))
        self.console.print(drawn)
        for note in found["notes"]:
            self.console.print(f"  {note}", highlight=False)

    def end(self, given: argparse.Namespace, plot: Callable[[dict[str, Any], Path], None] | None = None) -> None:
        """Note the load at the end, and write and draw what was asked for."""
        self.result["seconds"] = round(time.monotonic() - self._began, 1)
        self.result["machine"]["load at the end"] = round(os.getloadavg()[0], 1)
        self.result["busy"] = busy(self.result)
        if self.result["busy"]:
            self.console.print(f"[bold]busy machine[/bold]: the load was above {BUSY:g}; compare within a table only")
        if given.json:
            given.json.parent.mkdir(parents=True, exist_ok=True)
            given.json.write_text(json.dumps(self.result, indent=1, ensure_ascii=False) + "\n")
        if given.plot and plot is not None:
            given.plot.parent.mkdir(parents=True, exist_ok=True)
            plot(self.result, given.plot)


def busy(result: Mapping[str, Any]) -> bool:
    """Whether others used the machine before or during the run. A benchmark itself makes a load of about its cores."""
    return max(result["machine"]["load"][0], result["machine"]["load at the end"] - (os.cpu_count() or 1)) > BUSY


def shorn(words: Sequence[str]) -> list[str]:
    """The words of a command without where its result goes, and files without their folders, which matter to nobody."""
    kept: list[str] = []
    skip = False
    for word in words:
        if skip or word.startswith(("--json=", "--plot=")):
            skip = False
            continue
        skip = word in ("--json", "--plot")
        if not skip:
            kept.append(Path(word).name if os.sep in word else word)
    return kept


def _numeric(found: Mapping[str, Any], place: int) -> bool:
    return all(not isinstance(row[place], str) for row in found["rows"])


# --- figures ---


def figure(width: float = 7.0, height: float = 4.0) -> tuple[Any, Any]:
    """A matplotlib figure and its axes, without a display; the same data give the same file."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "benchmarks"
    from matplotlib import pyplot

    return pyplot.subplots(figsize=(width, height), layout="constrained")


def save(drawn: Any, path: Path) -> None:
    """Write a figure; the date stays out of it."""
    drawn.savefig(path, dpi=120, metadata={"Date": None} if path.suffix == ".svg" else None)
    from matplotlib import pyplot

    pyplot.close(drawn)


def bars(
    path: Path, title: str, unit: str, cells: Mapping[str, Any], ours: str = "", logarithmic: bool = False
) -> None:
    """One bar for each name, with the rounds' range as a line; those that begin with ``ours`` in another colour."""
    known = {name: cell for name, cell in cells.items() if cell is not None}
    drawn, axes = figure(height=1.2 + 0.32 * len(known))
    for place, (name, cell) in enumerate(reversed(known.items())):
        mine = bool(ours) and name.startswith(ours)
        axes.barh(place, value(cell), color="#1f5fa8" if mine else "#a9b4c2")
        if isinstance(cell, Mapping):
            axes.plot([min(cell["rounds"]), max(cell["rounds"])], [place, place], color="#222222", linewidth=1.5)
        axes.annotate(
            number(value(cell)), (max(cell["rounds"]) if isinstance(cell, Mapping) else cell, place),
            va="center", fontsize=8, xytext=(4, 0), textcoords="offset points",
        )  # fmt: skip
    axes.set_yticks(range(len(known)), list(reversed(known)), fontsize=8)
    axes.set_xlabel(unit)
    axes.set_title(title, fontsize=10, loc="left")
    axes.margins(x=0.12)
    if logarithmic:
        axes.set_xscale("log")
    axes.spines[["top", "right"]].set_visible(False)
    save(drawn, path)
