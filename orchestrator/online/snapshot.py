"""The plots of a run that is over, as files: what stays when its spills are gone.

    <site>/online/runs/<run>/<reducer>.root   the reducer's histograms (TH1D, TH2D), under the plots' names
                             <reducer>.json   written last: its plots' metadata; with it the reducer has finished
                             plots/<plot>.hist.json, .json, .png   each plot: ROOT's JSON, image document, picture
                             snapshot.root    all reducers' histograms, once all have finished
                             run.json         the run's record and its quality, written last of all

Each file appears whole, and the order makes that a snapshot is complete or is made again: by a reducer that was killed
in between from its saved state, with the same counts. Pictures are drawn afterwards, so that the next run need not wait
for them; those that a kill has prevented are drawn after the next start.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from orchestrator import faults
from orchestrator.online import images, rootjson
from orchestrator.online.checkpoint import sync_folder, write_safely
from orchestrator.online.presenting import Shown, worst
from orchestrator.online.publication import Header
from orchestrator.online.rootjson import flow_values
from orchestrator.online.stores.names import checked_run, possible_run

log = logging.getLogger(__name__)

WHOLE = "snapshot.root"
RECORD = "run.json"
PLOTS = "plots"
FORMAT = 1
LOOKED_AT = 20  # newest runs that are looked at for pictures that a kill has prevented


def runs_folder(folder: Path) -> Path:
    """Where the snapshots of a site are."""
    return folder / "online" / "runs"


def run_folder(runs: Path, run: str) -> Path:
    """Where a run's snapshot is. Raises SettingsError for what cannot be a run's name."""
    return runs / checked_run(run)


def write(runs: Path, run: str, reducer: str, shown: Sequence[Shown], about: dict[str, Any]) -> None:
    """Write the snapshot of one reducer.

    Args:
        runs: folder of all snapshots.
        shown: the reducer's last plots, as they are published.
        about: what else is known: versions, spills that could not be counted.

    Raises:
        OSError: the disk is full or away.
    """
    folder = run_folder(runs, run)
    titles = {one.header.name: one.header.title for one in shown}
    problem = _write_root_or_say(
        folder / f"{reducer}.root", {one.header.name: one.histogram for one in shown}, titles
    )
    faults.point("reducer.snapshot")
    folders: set[Path] = set()
    for one in shown:
        where = folder / PLOTS / f"{one.header.name}"
        write_safely(where.with_name(where.name + ".hist.json"), one.body, name_too=False)
        write_safely(where.with_name(where.name + ".json"), _pretty(images.document(one)), name_too=False)
        folders.update(path for path in where.parents if path.is_relative_to(folder))
    for path in folders:
        sync_folder(path)
    content = {
        "format": FORMAT, "run": run, "reducer": reducer, "quality": worst(one.header.quality for one in shown),
        "plots": [images.document(one) for one in shown], "root": problem, **about,
    }  # fmt: skip
    write_safely(folder / f"{reducer}.json", _pretty(content))


def draw(runs: Path, run: str, shown: Iterable[Shown]) -> None:
    """Draw the pictures of a snapshot that are not there, or older than it. Raises OSError."""
    for one in shown:
        where = run_folder(runs, run) / PLOTS / one.header.name
        if not _drawn(where):
            write_safely(where.with_name(where.name + ".png"), images.picture(one, "png"))


def _drawn(where: Path) -> bool:
    """Whether the picture of a plot is there, and not from before the run was begun once more."""
    try:
        picture, body = (where.with_name(where.name + suffix).stat() for suffix in (".png", ".hist.json"))
    except FileNotFoundError:
        return False
    return picture.st_mtime_ns >= body.st_mtime_ns


def undrawn(runs: Path, reducer: str) -> Iterator[tuple[str, list[Shown]]]:
    """The newest runs that a reducer has finished with and that lack pictures, with the plots to be drawn."""
    folders = sorted(runs.glob(f"*/{reducer}.json"), key=lambda path: path.stat().st_mtime)[-LOOKED_AT:]
    for path in folders:
        run = path.parent.name
        if not possible_run(run):
            continue
        part = finished(runs, run, reducer)
        names = [str(document["name"]) for document in part["plots"]] if part is not None else []
        missing = {name for name in names if not _drawn(path.parent / PLOTS / name)}
        if missing:
            there = [(header, body) for header, body in plots(runs, run) if header["name"] in missing]
            yield run, [Shown(Header(**header), body, rootjson.loads(body)) for header, body in there]


def finished(runs: Path, run: str, reducer: str, opened: int = 1, begun: str = "") -> dict[str, Any] | None:
    """What a reducer has written at the end of a run; None where it has not finished.

    ``opened``: how often the run has begun; what was written before it began the last time does not count. ``begun``:
    when it began first; what belongs to an older run of the same name does not count either.
    """
    try:
        found = orjson.loads((run_folder(runs, run) / f"{reducer}.json").read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        return None
    another = begun and found.get("begun", begun) != begun
    return found if found.get("opened", 1) >= opened and not another else None


def unite(runs: Path, run: str, reducers: Iterable[str], record: dict[str, Any]) -> dict[str, Any] | None:
    """Once all reducers have finished: their histograms in one file, and the run's quality. None before that.

    Safe to be done again, and by several at once: the files come out the same. Raises OSError.
    """
    opened, begun = record.get("opened", 1), record.get("begun", "")
    parts = {name: finished(runs, run, name, opened, begun) for name in reducers}
    if not all(part is not None for part in parts.values()):
        return None
    folder = run_folder(runs, run)
    histograms: dict[str, Any] = {}
    for name, part in parts.items():
        if part is not None and not part.get("root"):
            histograms.update(read_root(folder / f"{name}.root"))
    _write_root_or_say(folder / WHOLE, histograms, None)
    verdicts = {
        plot["name"]: plot["quality"]
        for part in parts.values()
        if part is not None
        for plot in part["plots"]
        if plot["quality"] != "none"
    }
    quality = worst(verdicts.values())
    failed = {name: str(part["error"]) for name, part in parts.items() if part is not None and part.get("error")}
    found = {**record, "state": "final", "quality": quality, "verdicts": verdicts, "reducers": list(parts),
             "reducers_failed": failed}  # fmt: skip
    write_safely(folder / RECORD, _pretty(found))
    return found


def plots(runs: Path, run: str) -> Iterator[tuple[dict[str, Any], bytes]]:
    """The header and body of every plot in a run's snapshot, as they were published; those that can be read."""
    folder = run_folder(runs, run)
    for path in sorted(folder.glob("*.json")):
        part = finished(runs, run, path.stem)
        for document in part["plots"] if part is not None and "plots" in part else ():
            try:
                body = (folder / PLOTS / f"{document['name']}.hist.json").read_bytes()
            except (OSError, KeyError, TypeError):
                continue
            yield images.header(document), body


def listed(runs: Path) -> dict[str, dict[str, Any]]:
    """What is known of each run that has a complete snapshot: its record with ``quality`` and ``verdicts``."""
    found = {}
    for path in sorted(runs.glob(f"*/{RECORD}")):
        try:
            content = orjson.loads(path.read_bytes())
        except (OSError, ValueError):
            continue
        if isinstance(content, dict):
            found[path.parent.name] = content
    return found


def write_root(path: Path, histograms: Mapping[str, Any], titles: Mapping[str, str] | None = None) -> None:
    """Histograms as TH1D and TH2D in a ROOT file, which appears whole. Raises OSError.

    ROOT has no histogram without bins (channels that come with their first spill): it is left out. Nor can a histogram
    be called as a folder is: ``hits`` beside ``hits/board_1`` is called ``hits_`` there.
    """
    import uproot

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        folders = _folders(histograms)
        with uproot.recreate(temporary) as out:
            for name, one in histograms.items():
                if all(len(axis) for axis in one.axes):
                    out[_apart(name, histograms, folders)] = writable(one, (titles or {}).get(name, ""))
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _folders(names: Iterable[str]) -> set[str]:
    """The folders that names with slashes stand in."""
    found: set[str] = set()
    for name in names:
        while "/" in name and (name := name.rpartition("/")[0]) not in found:
            found.add(name)
    return found


def _apart(name: str, names: Container[str], folders: Container[str]) -> str:
    """The name, longer where it is that of a folder."""
    made = name
    while made in folders or (made != name and made in names):
        made += "_"
    return made


def _write_root_or_say(path: Path, histograms: Mapping[str, Any], titles: Mapping[str, str] | None) -> str:
    """Histograms as a ROOT file, or why there is none: what ROOT cannot hold must not keep a run from its end.

    The plots are there as ROOT's JSON all the same. Raises OSError.
    """
    try:
        write_root(path, histograms, titles)
    except OSError:
        raise
    except Exception as error:
        path.unlink(missing_ok=True)
        log.error("%s cannot be written as a ROOT file: %s: %s", path, type(error).__name__, error)
        return f"{type(error).__name__}: {error}"[:500]
    return ""


def read_root(path: Path) -> dict[str, Any]:
    """All histograms of a ROOT file by their names."""
    import uproot

    with uproot.open(path) as file:
        kinds = file.classnames(recursive=True, cycle=False)
        return {name: file[name].to_hist() for name, kind in kinds.items() if kind.startswith(("TH1", "TH2"))}


def writable(histogram: Any, title: str = "") -> Any:
    """The histogram as uproot writes it to a ROOT file, with flow bins on every axis and channels' names as labels."""
    import hist
    from uproot.writing.identify import to_THashList, to_TObjString, to_writable

    values, variances = flow_values(histogram)
    axes = [
        hist.axis.Variable(axis.edges, label=axis.label)
        if type(axis).__name__ == "Variable"
        else hist.axis.Regular(len(axis), axis.edges[0], axis.edges[-1], label=axis.label)
        for axis in histogram.axes
    ]
    made = hist.Hist(*axes, storage=hist.storage.Double() if variances is None else hist.storage.Weight())
    made.title = title or getattr(histogram, "title", "") or ""
    if variances is None:
        made.view(flow=True)[...] = values
    else:
        made.view(flow=True).value, made.view(flow=True).variance = values, variances
    found = to_writable(made)
    for axis, name in zip(histogram.axes, ("fXaxis", "fYaxis"), strict=False):
        if type(axis).__name__ == "StrCategory":
            labels = to_THashList([to_TObjString(str(label)) for label in axis])
            for number, label in enumerate(labels, 1):
                label._bases[0]._members["@fUniqueID"] = number  # the bin that it belongs to
            found.member(name)._members["fLabels"] = labels
    return found


def _pretty(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=1, ensure_ascii=False, default=str).encode() + b"\n"
