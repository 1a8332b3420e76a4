"""Conversion of raw files into ROOT files: MB of raw data a second, beside reading the bytes and uproot alone.

    python benchmarks/conversion.py                              Samba and DATE, four compressions
    python benchmarks/conversion.py --megabytes 20 --rounds 1 --real /data/mice_06008.000

Simulated Samba and DATE files, and with ``--real`` files as they were taken (several times over, if they are small).
All in memory (/dev/shm) where there is one. The rounds take turns among the ways, each in a process of its own:

- *reading*: the file's bytes, in pieces of 1 MB.
- *the step*: ``procs.convert``, all of it: reading, decoding, compressing, flushing, opening again and counting,
  checksum. It uses up to two cores: it writes beside its reading, and makes the checksum beside the counting.
- *the step on one core*: the same, bound to one core. Uproot alone uses one anyhow.
- *uproot alone*: the arrays that the step's own output holds, read before the clock runs, written into the same trees
  in pieces as large as the step's, with the same compression; no flush, no check, no checksum.

- *its analysis*: the step that follows in the shipped chains, on the converted file, in MB of raw data.

Each process does its work once before the clock runs. The share is taken within a round. Memory is the process' peak
with all libraries; the last line of each table is the step in two processes at once, each with a file of its own.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import common

ANALYSIS = "procs.amplitude:Amplitude"  # the step after the conversion, for both kinds of file
COMPRESSIONS = ("none", "lz4-1", "zstd-1", "zlib-1")
POINTS = 4096  # of a Samba trace
TRIGGERS = 500  # of a DATE spill
SPILL_BYTES = 0.63e6  # about, of a spill of so many triggers
BINDS = hasattr(os, "sched_setaffinity")  # a process can be bound to a core
WORTH = 20e6  # bytes: a smaller real file is converted so often in one measurement that it is about as much


def child(words: dict[str, Any]) -> dict[str, Any]:
    """One measurement, in this process: seconds and peak memory (MB)."""
    import awkward
    import uproot

    from orchestrator.step import Work
    from procs.convert import convert
    from procs.rootio import compression

    logging.disable(logging.WARNING)
    folder, source = Path(words["folder"]), Path(words["source"])

    def step(settings: dict[str, Any]) -> dict[str, Any]:
        work = Work(settings, folder, folder, uuid.uuid4().hex, logging.getLogger("benchmark"), str(source))
        return convert({"_id": f"b{uuid.uuid4().hex}", "run_name": "bench", "file": str(source)}, work)

    result: dict[str, Any] = {}
    if words["cores"] == 1:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    if words["way"] == "reading":
        began = time.perf_counter()
        for _again in range(words["times"]):
            with source.open("rb", buffering=0) as stream:
                while stream.read(1 << 20):
                    pass
        result["seconds"] = time.perf_counter() - began
    elif words["way"] == "analysis":
        from orchestrator.step import birth

        converted = step({"compression": "zstd-1"})["file"]
        made = birth(ANALYSIS, {}, logging.getLogger("benchmark"))
        for _again in range(2):  # the first sets up what a worker keeps
            work = Work({}, folder, folder, uuid.uuid4().hex, logging.getLogger("benchmark"), converted)
            began = time.perf_counter()
            made.process({"_id": f"a{uuid.uuid4().hex}", "run_name": "bench", "file": converted}, work)
            result["seconds"] = time.perf_counter() - began
    elif words["way"] == "step":
        step({"compression": words["compression"]})  # a worker lives longer than one file: imports are over
        began, used = time.perf_counter(), time.process_time()
        made = [step({"compression": words["compression"]}) for _again in range(words["times"])]
        result |= {"seconds": time.perf_counter() - began, "processor": time.process_time() - used}
        result["size"] = made[0]["size"]
    else:
        converted = Path(step({"compression": "none"})["file"])
        pieces: list[tuple[str, dict[str, Any]]] = []
        kinds: dict[str, dict[str, Any]] = {}
        with uproot.open(converted) as file:
            for name in sorted(set(file.keys(filter_classname="TTree", cycle=False))):
                tree = file[name]
                counters = {f"n{branch.name}" for branch in tree.branches}
                branches = [branch for branch in tree.branches if branch.name not in counters]
                edges = branches[0].entry_offsets
                for start, stop in pairwise(edges):
                    arrays = tree.arrays([b.name for b in branches], entry_start=start, entry_stop=stop, library="ak")
                    columns = {field: awkward.materialize(arrays[field]) for field in arrays.fields}
                    columns = {
                        field: awkward.to_numpy(column) if column.layout.is_numpy else awkward.to_packed(column)
                        for field, column in columns.items()
                    }
                    kinds.setdefault(name, {
                        field: column.dtype if hasattr(column, "dtype") else column.type.content
                        for field, column in columns.items()
                    })  # fmt: skip
                    pieces.append((name, columns))

        def write(path: Path) -> None:
            with uproot.recreate(path, compression=compression(words["compression"])) as out:
                trees = {name: out.mktree(name, branches) for name, branches in kinds.items()}
                for name, columns in pieces:
                    trees[name].extend(columns)

        write(folder / "alone.root")
        began, used = time.perf_counter(), time.process_time()
        for _again in range(words["times"]):
            write(folder / "alone.root")
        result |= {"seconds": time.perf_counter() - began, "processor": time.process_time() - used}
        result["size"] = (folder / "alone.root").stat().st_size
    # Not getrusage: its peak is inherited from the process that started this one.
    status = Path("/proc/self/status").read_text()
    result["memory"] = int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6
    return result


def launch(way: str, source: Path, times: int, compression: str, folder: Path, cores: int) -> subprocess.Popen[str]:
    """A process that makes one measurement, on one core or (``cores`` other than 1) as many as it likes."""
    folder.mkdir()
    words = {"way": way, "source": str(source), "times": times, "compression": compression, "folder": str(folder),
             "cores": cores}  # fmt: skip
    command = [sys.executable, __file__, "--child", json.dumps(words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def collect(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What such a process found."""
    output = process.communicate()[0]
    if process.returncode:
        raise SystemExit("a measurement failed")
    found: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
    return found


def one(
    way: str, source: Path, times: int, compression: str, root: Path, processes: int = 1, cores: int = 0
) -> dict[str, Any]:
    """One measurement by so many processes at once; MB of raw data a second of all together."""
    folders = [root / uuid.uuid4().hex for _ in range(processes)]
    running = [launch(way, source, times, compression, folder, cores) for folder in folders]
    found = [collect(process) for process in running]
    for folder in folders:
        shutil.rmtree(folder)
    raw = source.stat().st_size * times / 1e6
    return {**found[0], "rate": sum(raw / each["seconds"] for each in found)}


def sources(root: Path, megabytes: float, real: list[Path]) -> dict[str, tuple[Path, int]]:
    """The files, and how often each is converted in one measurement."""
    from procs.simulate import simulate

    events = max(1, round(megabytes * 1e6 / (4 * 2 * POINTS)))
    spills = max(1, round(megabytes * 1e6 / SPILL_BYTES))
    wanted = {"runs": 1, "partitions": 1, "events": events, "points": POINTS, "broken": 0}
    written = simulate(root / "daq", **wanted, date_runs=1, date_spills=spills, date_triggers=TRIGGERS)
    found = {"Samba" if "sim_" not in one.path.name else "DATE": (one.path, 1) for one in written}
    for path in real:
        copy = root / path.name
        shutil.copyfile(path, copy)
        found[path.name] = (copy, max(1, round(min(WORTH, megabytes * 1e6) / path.stat().st_size)))
    return found


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(child(json.loads(sys.argv[2]))))
        return
    parser = common.parser(__doc__)
    parser.add_argument("--megabytes", type=float, default=60.0, help="size of each simulated file")
    parser.add_argument("--real", type=Path, nargs="*", default=[], metavar="FILE", help="raw files of a DAQ")
    parser.add_argument("--compressions", nargs="*", default=list(COMPRESSIONS))
    parser.add_argument("--simulated", nargs="*", default=["Samba", "DATE"], metavar="FORMAT", help="Samba, DATE")
    given = parser.parse_args()
    if absent := [str(path) for path in given.real if not path.is_file()]:
        parser.error(f"--real: there is no file {', '.join(absent)}")
    run = common.Run("conversion", __doc__, common.versions(["uproot", "awkward", "numpy"]))
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        root = Path(name)
        wanted = {*given.simulated, *(path.name for path in given.real)}
        files = {kind: file for kind, file in sources(root, given.megabytes, given.real).items() if kind in wanted}
        sizes = [f"{kind} {path.stat().st_size / 1e6:.1f} MB" for kind, (path, _) in files.items()]
        run.say(f"raw files: {', '.join(sizes)}")
        for kind, (source, times) in files.items():
            ways = {("reading", ""): partial(one, "reading", source, times, "none", root)}
            for squeeze in given.compressions:
                ways["step", squeeze] = partial(one, "step", source, times, squeeze, root)
                ways["uproot", squeeze] = partial(one, "uproot", source, times, squeeze, root)
                if BINDS:
                    ways["one core", squeeze] = partial(one, "step", source, times, squeeze, root, cores=1)
            ways["two", "zstd-1"] = partial(one, "step", source, times, "zstd-1", root, 2)
            if times == 1:
                ways["analysis", ""] = partial(one, "analysis", source, times, "zstd-1", root)
            named = {" ".join((kind, *key)): way for key, way in ways.items()}
            found = dict(zip(ways, common.interleaved(named, given.rounds, run.say).values(), strict=True))
            run.add(shown(kind, source, times, found, given.compressions))
    run.end(given, draw)


def shown(kind: str, source: Path, times: int, found: dict[Any, Any], compressions: list[str]) -> dict[str, Any]:
    """The table of one kind of file."""
    rows: list[list[Any]] = []

    def row(name: str, rounds: list[dict[str, Any]], base: list[dict[str, Any]] | None) -> None:
        pairs = list(zip(rounds, base or (), strict=False))
        share = common.spread([ours["rate"] / theirs["rate"] for ours, theirs in pairs]) if pairs else None
        by_processor = [theirs["processor"] / ours["processor"] for ours, theirs in pairs]
        size = rounds[0].get("size")
        rows.append([name, common.spread([each["rate"] for each in rounds]), share,
                     common.spread(by_processor) if pairs else None,
                     size / source.stat().st_size if size else None,
                     common.spread([each["memory"] for each in rounds])])  # fmt: skip

    row("reading the bytes", found["reading", ""], None)
    for squeeze in compressions:
        row(f"uproot alone, {squeeze}", found["uproot", squeeze], None)
        row(f"the step, {squeeze}", found["step", squeeze], found["uproot", squeeze])
        if BINDS:
            row(f"the step on one core, {squeeze}", found["one core", squeeze], found["uproot", squeeze])
    single = found.get(("step", "zstd-1"))
    row("the step, zstd-1, two at once", found["two", "zstd-1"], None)
    if ("analysis", "") in found:
        row(f"its analysis, {ANALYSIS.partition(':')[0]}", found["analysis", ""], None)
    size = source.stat().st_size / 1e6
    note = f"A file of {size:.1f} MB" + (f", {times} times in one measurement." if times > 1 else ".")
    notes = [
        note + " The share is the step's speed divided by that of uproot alone; by processor time, the processor time "
        "of uproot alone divided by the step's. The step uses up to two cores: it writes in a thread of its own, "
        "beside its reading, and makes the checksum beside the counting. Uproot alone uses one."
    ]
    if single:
        pairs = zip(found["two", "zstd-1"], single, strict=True)
        gain = common.spread([two["rate"] / alone["rate"] for two, alone in pairs])
        notes.append(f"Two at once do {common.shown(gain)} times as much as one.")
    columns = ["", "MB/s", "share of uproot", "by processor time", "size of raw", "memory, MB"]
    return common.table(f"{kind}: MB of raw data a second", columns, rows, *notes)


def draw(result: dict[str, Any], path: Path) -> None:
    """All rates as bars."""
    cells = {
        f"{table['title'].partition(':')[0]}: {row[0]}": row[1]
        for table in result["tables"] for row in table["rows"] if "bytes" not in row[0]
    }  # fmt: skip
    common.bars(path, "Conversion, raw data", "MB/s", {k.replace("the step", "step"): v for k, v in cells.items()})


if __name__ == "__main__":
    main()
