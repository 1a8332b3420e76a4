"""One module alone on a file, for who writes one: what an input makes of it, what a map changes of each spill, what a
reducer makes of all, what an output does with the histograms in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.errors import DataError, SettingsError
from orchestrator.online.configuration import Maps
from orchestrator.online.module import Input, Map, Output, Reduce, RunConfiguration
from orchestrator.online.packing import packed, unpacked
from orchestrator.online.pipeline import ModuleFailed, Pipeline
from orchestrator.online.plot import Plot
from orchestrator.online.presenting import Contents, Presenter
from orchestrator.online.rootjson import flow_values
from orchestrator.online.spill import Spill, StartOfRun

WIDTH = 72  # columns of a histogram as text
SHOWN = 4  # values of an array that are shown
BLOCKS = " ▁▂▃▄▅▆▇█"


@dataclass
class Tried:
    """What has come of it: spills by what became of them, the failures, and a reducer's plots by name."""

    run: str = ""
    spills: int = 0
    hidden: int = 0
    failed: int = 0
    errors: dict[int, str] = field(default_factory=dict)
    plots: list[Plot] = field(default_factory=list)
    seconds: float = 0.0


def try_map(module: Map, source: Input, before: Maps, most: int | None, say: Callable[[str], None]) -> Tried:
    """Run a map over a file's spills and say what it changes of each. Raises DataError where there are none."""
    tried = Tried()

    def one(spill: Spill) -> None:
        old = described(spill.data)
        begun = time.perf_counter()
        found = module.process(spill)
        seconds = time.perf_counter() - begun
        tried.seconds += seconds
        if isinstance(found, Spill):
            spill = found
        elif found not in (None, True, False):
            raise TypeError(f"process returned {found!r:.80}; it may return None, True, False or a spill")
        packed(spill)  # what cannot travel to the reducers would fail there
        tried.hidden += found is False
        say(f"spill {spill.number} ({1000 * seconds:.1f} ms){' is left out of the plots' if found is False else ''}")
        for line in changes(old, described(spill.data)):
            say(f"  {line}")

    return _run(module, source, before, most, tried, one, say)


def try_reduce(module: Reduce, source: Input, before: Maps, most: int | None, say: Callable[[str], None]) -> Tried:
    """Run a reducer over a file's spills; its plots are in the answer. Raises DataError where there are none."""
    tried = Tried()

    def one(spill: Spill) -> None:
        held = unpacked(packed(spill))  # as it comes from the store: arrays that cannot be written
        begun = time.perf_counter()
        module.process(held)
        tried.seconds += time.perf_counter() - begun

    _run(module, source, before, most, tried, one, say)
    tried.plots = list(module.plots())
    return tried


def try_input(source: Input, most: int | None, say: Callable[[str], None]) -> Tried:
    """Say what an input makes of a file. Raises DataError where it makes nothing."""
    tried = Tried()
    found = False
    begun = time.perf_counter()
    for item in _items(source):
        found, tried.run = True, item.run
        if isinstance(item, Spill):
            tried.spills += 1
            problem = f" (damaged: {'; '.join(item.errors.values())})" if item.errors else ""
            say(f"spill {item.number} of run {item.run}{problem}")
            for place, words in described(item.data).items():
                say(f"  {place}: {words}")
            try:
                packed(item)
            except DataError as error:
                tried.failed += 1
                tried.errors[item.number] = str(error)
        elif isinstance(item, StartOfRun):
            say(f"run {item.run} begins {dict(item.header) or ''}".rstrip())
        else:
            say(f"run {item.run} ends ({item.how})")
        if most is not None and tried.spills >= most:
            break
    if not found:
        raise DataError("the input makes nothing of it")
    tried.seconds = time.perf_counter() - begun
    return tried


def try_output(module: Output, file: Path) -> Tried:
    """Give an output the histograms of a ROOT file, such as a run's snapshot, as a run's last plots."""
    from orchestrator.online.snapshot import read_root

    try:
        found = read_root(file)
    except Exception as error:  # damage shows itself in many ways
        raise DataError(f"{file} cannot be read as a ROOT file: {' '.join(str(error).split())[:200]}") from error
    if not found:
        raise DataError(f"{file} has no histograms to give to an output")
    tried = Tried(file.stem, plots=[Plot(name, str(one.label or name), one) for name, one in found.items()])
    module.birth(RunConfiguration(file.stem))
    begun = time.perf_counter()
    module.process(tried.plots, final=True)
    tried.seconds = time.perf_counter() - begun
    module.death()
    return tried


def _run(
    module: Map | Reduce, source: Input, before: Maps, most: int | None, tried: Tried,
    one: Callable[[Spill], None], say: Callable[[str], None],
) -> Tried:  # fmt: skip
    pipeline = Pipeline(before)
    header: Mapping[str, Any] = {}
    try:
        for item in _items(source):
            if isinstance(item, StartOfRun):
                header = item.header
            if not isinstance(item, Spill):
                continue
            if item.run != tried.run:
                if tried.run:
                    say(f"run {item.run} begins: only the first run, {tried.run}, is looked at")
                    break
                tried.run = item.run
                configuration = RunConfiguration(item.run, header)
                pipeline.birth(configuration)
                module.birth(configuration)
            _one(item, pipeline, one, tried)
            if most is not None and tried.spills >= most:
                break
        if not tried.spills:
            raise DataError("there are no spills in it: is the input the right one? (--input says which)")
    finally:
        pipeline.death()
        if tried.run:
            module.death()
    return tried


def _one(spill: Spill, pipeline: Pipeline, one: Callable[[Spill], None], tried: Tried) -> None:
    tried.spills += 1
    outcome = pipeline.process(spill)
    if outcome.failed or outcome.packed is None:
        tried.failed += 1
        tried.errors[spill.number] = f"{outcome.module}: {outcome.error}"
        return
    if not outcome.shown:
        tried.hidden += 1
        return
    try:
        one(unpacked(outcome.packed))
    except Exception as error:
        failed = ModuleFailed("module", error)
        tried.failed += 1
        tried.errors[spill.number] = failed.trace()


def _items(source: Input) -> Iterator[Any]:
    """What the file has now; an input that waits for more is left then."""
    for item in source.items():
        if item is None:
            return
        yield item


def described(data: Mapping[str, Any], at: str = "") -> dict[str, str]:
    """Each value of a spill's data by its place, in a few words."""
    found: dict[str, str] = {}
    for key, value in data.items():
        place = f"{at}.{key}" if at else str(key)
        if isinstance(value, Mapping) and value:
            found |= described(value, place)
        else:
            found[place] = _words(value)
    return found


def changes(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """What is new (+), gone (-) and other (~)."""
    found = [f"+ {key}: {new[key]}" for key in new if key not in old]
    found += [f"~ {key}: {old[key]} -> {new[key]}" for key in new if key in old and old[key] != new[key]]
    found += [f"- {key}: {old[key]}" for key in old if key not in new]
    return found or ["(nothing changed)"]


def _words(value: Any) -> str:
    if isinstance(value, np.ndarray):
        shape = "x".join(str(one) for one in value.shape) or "1"
        some = ", ".join(f"{one:.6g}" if value.dtype.kind == "f" else str(one) for one in value.reshape(-1)[:SHOWN])
        more = ", ..." if value.size > SHOWN else ""
        total = f"; sum {value.sum():.10g}" if value.dtype.kind in "iufb" and value.size else ""
        return f"{value.dtype}[{shape}] {some}{more}{total}"
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def as_text(plot: Plot) -> list[str]:
    """A plot in a few lines of text: its title, its entries, and one axis as a row of bars."""
    values = np.nan_to_num(flow_values(plot.histogram)[0])
    inside = values[1:-1] if values.ndim == 1 else values[1:-1, 1:-1]
    lines = [f"{plot.name}: {plot.title}", f"  entries {inside.sum():.10g}"]
    outside = values.sum() - inside.sum()
    if outside:
        lines[-1] += f", out of range {outside:.10g}"
    if inside.ndim == 1 and inside.size:
        width = min(WIDTH, inside.size)
        parts = np.array([part.sum() for part in np.array_split(inside, width)])
        top = parts.max()
        levels = np.ceil(parts / top * (len(BLOCKS) - 1)).clip(0).astype(int) if top > 0 else np.zeros(width, int)
        axis = plot.histogram.axes[0]
        low, high = (axis.edges[0], axis.edges[-1]) if hasattr(axis, "edges") else (axis.value(0), axis.value(-1))
        lines += [f"  |{''.join(BLOCKS[one] for one in levels)}|", f"  {low} ... {high} {axis.label}"]
    elif inside.ndim == 2:
        lines[-1] += f", {inside.shape[0]} x {inside.shape[1]} bins, {int((inside != 0).sum())} of them filled"
    return lines


def save(tried: Tried, reducer: str, folder: Path) -> list[Path]:
    """Write the plots as one ROOT file and a picture each. Raises SettingsError where the folder cannot be written."""
    from orchestrator.online.drawing import draw
    from orchestrator.online.snapshot import write_root

    presenter = Presenter(reducer, "", lambda plot: None, time.time)
    shown = presenter.present(tried.plots, Contents(tried.run, None, tried.spills - tried.failed - tried.hidden))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{reducer}.root"]
        write_root(paths[0], {one.header.name: one.histogram for one in shown})
        for one in shown:
            path = folder / f"{one.header.name.replace('/', '_')}.png"
            path.write_bytes(draw(asdict(one.header), one.body))
            paths.append(path)
    except OSError as error:
        raise SettingsError(f"{folder} cannot be written: {error.strerror}") from None
    return paths
