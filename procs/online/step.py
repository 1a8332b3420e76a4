"""The reducers of the control room as steps of a chain: the same classes over a file, and over the files of a run.

``reduce`` reads a document's file with the input, puts its spills through the map modules, and gives them to the
reducers, as the live system does. ``merge`` adds up what it left of each member of a document that a gather has made.
Histograms are equal bin by bin to those that were live, since they are sums of whole numbers with fixed axes.

Where a spill's events lie in two files of a DAQ, each file has a part of it; what is computed within a spill (the mean
that a residual is taken from) then differs from the live one, which has the whole.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import uproot

from orchestrator.errors import DataError, SettingsError
from orchestrator.online import configuration
from orchestrator.online.checkpoint import digest
from orchestrator.online.module import Input, Reduce, RunConfiguration, find
from orchestrator.online.packing import pack, unpack, unpacked
from orchestrator.online.pipeline import Pipeline
from orchestrator.online.snapshot import writable
from orchestrator.online.spill import Spill, StartOfRun
from orchestrator.step import Work
from procs.merge import member_file
from procs.options import options
from procs.outputs import atomic_output, describe, place, plain
from procs.rootio import PROVENANCE, opened, provenance

REDUCE: dict[str, Any] = {
    "output": "online",  # folder, relative to the site's data folder
    "configuration": "",  # an online.yaml whose input, map and reduce are used; or these three themselves:
    "input": None,  # module and settings of the input; its `files` is set to the document's file
    "map": None,  # list of modules with settings
    "reduce": None,  # list of reducers with names
    "most_failed": 0.1,  # the largest part of the spills that may fail; with more the step fails
}
MERGE: dict[str, Any] = {**REDUCE, "output": "runs"}
STATE = "state"  # key of the reducers' states: zlib-compressed, base64
EXAMPLES = 5  # errors of spills that are named in the result


def reduce(document: dict[str, Any], work: Work) -> dict[str, Any]:
    """Histograms of the document's file.

    Returns:
        ``file``, ``size``, ``checksum`` of a ROOT file with all histograms; ``spills`` (read, shown, hidden, failed),
        ``errors`` (the first few, by spill), ``entries`` by plot.

    Raises:
        SettingsError: a module or a setting cannot be used.
        DataError: the file has no spills, or too many of them fail.
    """
    chosen = options(work.settings, "reduce", REDUCE)
    online = _configuration(chosen)
    path = work.input
    source = _input(online, path)
    maps = Pipeline(online.map)
    reducers = _reducers(online, work)
    counts = {"read": 0, "shown": 0, "hidden": 0, "failed": 0}
    errors: dict[str, str] = {}
    born = ""
    header: Mapping[str, Any] = {}
    for item in source.items():
        if isinstance(item, StartOfRun):
            header = item.header
        if not isinstance(item, Spill):
            continue
        if item.run != born:
            if born:
                raise DataError(f"{path} has spills of the runs {born} and {item.run}: a document is of one run")
            born = item.run
            maps.birth(RunConfiguration(item.run, header))
            for reducer in reducers.values():
                reducer.birth(RunConfiguration(item.run, header))
        _count(item, maps, reducers, counts, errors)
        work.progress(min(0.9, counts["read"] / (counts["read"] + 20)), f"{counts['read']} spills")
    if not counts["read"]:
        raise DataError(f"{path} has no spills")
    maps.death()
    for reducer in reducers.values():
        reducer.death()
    if counts["failed"] > float(chosen.most_failed) * counts["read"]:
        many = f"{counts['failed']} of {counts['read']} spills of {path} failed"
        raise DataError(f"{many}; spill {next(iter(errors))}: {next(iter(errors.values()))}")
    target = place(work.output, work.settings, chosen.output, document, str(document["_id"]), "_online.root")
    entries = _write(target, document, work, path, online, reducers, {"spills": counts})
    return plain({**describe(target), "spills": counts, "errors": errors, "entries": entries})


def merge(document: dict[str, Any], work: Work) -> dict[str, Any]:
    """The sum of the members' histograms, for a document that a gather has made of what ``reduce`` has left.

    Returns:
        ``file``, ``size``, ``checksum``; ``members``, ``spills`` in all, ``entries`` by plot.

    Raises:
        DataError: there are no members, or one is gone, is not what its document says, or was made otherwise.
    """
    chosen = options(work.settings, "merge", MERGE)
    members = document.get("members")
    if not isinstance(members, list) or not members:
        raise DataError("the document has no members: this step is for documents that a gather makes")
    online = _configuration(chosen)
    reducers = _reducers(online, work)
    run = str(document.get("run_name") or "no run")
    for reducer in reducers.values():
        reducer.birth(RunConfiguration(run))
    counts: dict[str, int] = {}
    for number, one in enumerate(members):
        path = member_file(one)
        held = _state(path)
        for key, value in held["spills"].items():
            counts[key] = counts.get(key, 0) + int(value)
        for name, part in held["reducers"].items():
            if name not in reducers or part["belongs"] != _belongs(online, name):
                raise DataError(f"{path} was made with other reducers or settings than {name} has here: make it again")
            reducers[name].merge(part["state"])
        work.progress(0.9 * (number + 1) / len(members), f"{number + 1} of {len(members)} files")
    target = place(work.output, work.settings, chosen.output, document, f"run_{run}", "_online.root")
    first = Path(str(members[0]["file"]))
    entries = _write(target, document, work, first, online, reducers, {"spills": counts, "members": len(members)})
    return plain({**describe(target), "members": len(members), "spills": counts, "entries": entries})


def _configuration(chosen: Any) -> configuration.Online:
    """The part of an online.yaml that says what is read, done and filled."""
    if chosen.configuration:
        return configuration.load(Path(chosen.configuration))
    parts = {"input": chosen.input, "map": chosen.map or [], "reduce": chosen.reduce}
    if parts["input"] is None:
        parts["input"] = {"module": "procs.online.inputs.date:DateInput"}
    if not parts["reduce"]:
        raise SettingsError("the step needs the setting `configuration` (an online.yaml), or `map` and `reduce`")
    return configuration.loads(json.dumps(parts), "the step's settings")


def _input(online: configuration.Online, path: Path) -> Input:
    kind = find(online.input.module, Input)
    if "files" not in kind.defaults:
        raise SettingsError(f"{online.input.module} reads no files: name an input of files under `input`")
    settings = {**online.input.settings, "files": str(path)}
    if "grow" in kind.defaults:
        settings["grow"] = False
    return cast(Input, kind(settings))


def _reducers(online: configuration.Online, work: Work) -> dict[str, Reduce]:
    if not online.reduce:
        raise SettingsError("no reducer is configured: nothing would be filled")
    return {one.name: cast(Reduce, find(one.module, Reduce)(one.settings, work.log)) for one in online.reduce}


def _count(
    spill: Spill, maps: Pipeline, reducers: dict[str, Reduce], counts: dict[str, int], errors: dict[str, str]
) -> None:
    """One spill through everything, as a worker and the reducers would have it."""
    counts["read"] += 1
    outcome = maps.process(spill)
    if outcome.failed or outcome.packed is None:
        counts["failed"] += 1
        _note(errors, f"{spill.number}", outcome.error.partition("\n")[0])
        return
    counts["shown" if outcome.shown else "hidden"] += 1
    if not outcome.shown:
        return
    for name, reducer in reducers.items():
        try:
            reducer.process(unpacked(outcome.packed))
        except Exception as error:  # a student's class may raise anything; the other reducers have the spill
            _note(errors, f"{spill.number} ({name})", f"{type(error).__name__}: {error}")


def _note(errors: dict[str, str], where: str, sentence: str) -> None:
    if len(errors) < EXAMPLES:
        errors[where] = sentence[:500]


def _write(
    target: Path,
    document: Mapping[str, Any],
    work: Work,
    source: Path,
    online: configuration.Online,
    reducers: dict[str, Reduce],
    extra: Mapping[str, Any],
) -> dict[str, float]:
    """All plots and the states they come from; the entries of each plot. Read back before the file gets its name."""
    plots = {plot.name: plot for reducer in reducers.values() for plot in reducer.plots()}
    entries = {name: float(plot.histogram.sum(flow=True)) for name, plot in plots.items()}
    held = {
        "spills": dict(extra["spills"]),
        "reducers": {
            name: {"belongs": _belongs(online, name), "state": reducer.state()} for name, reducer in reducers.items()
        },
    }

    def check(temporary: Path) -> None:
        with opened(temporary) as file:
            for name, wanted in entries.items():
                found = float(file[name].values(flow=True).sum())
                if abs(found - wanted) > 1e-9 * abs(wanted):
                    raise DataError(f"{target}: {name} was written with {wanted:g} entries and reads back {found:g}")

    with atomic_output(target, work.attempt, check=check) as temporary, uproot.recreate(temporary) as out:
        out[PROVENANCE] = provenance("online", dict(document), work, source, extra)
        out[STATE] = base64.b64encode(zlib.compress(pack(held), 6)).decode()
        for name, plot in plots.items():
            out[name] = writable(plot.histogram, plot.title)
    return entries


def _state(path: Path) -> dict[str, Any]:
    with opened(path) as file:
        if STATE not in file.keys(cycle=False):
            raise DataError(f"{path} has no states of reducers: is it of the step procs.online.step:reduce?")
        text = str(file[STATE])
    try:
        return cast(dict[str, Any], unpack(zlib.decompress(base64.b64decode(text))))
    except (ValueError, zlib.error) as error:
        raise DataError(f"the states in {path} are damaged: {error}. Make it again.") from error


def _belongs(online: configuration.Online, name: str) -> str:
    entry = next(one for one in online.reduce if one.name == name)
    return digest(entry.module, find(entry.module, Reduce).version, entry.settings)


def plots_of(path: Path) -> Iterator[tuple[str, Any]]:
    """The histograms in a file of these steps, by their names."""
    with opened(path) as file:
        for name, kind in file.classnames(recursive=True, cycle=False).items():
            if kind.startswith(("TH1", "TH2")):
                yield name, file[name].to_hist()
