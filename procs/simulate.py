"""A simulated DAQ: run directories of Samba files with known pulses, and a DATE file, growing as a DAQ writes them.

    written = simulate(Path("daq"), runs=3, partitions=3, events=100)

What was put into each file is written as JSON into a folder of its own (``<directory>_truth``), so that nothing that
watches the DAQ's directory meets it. The same seed gives the same bytes.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from orchestrator.errors import SettingsError
from procs.formats.names import make_run_name
from procs.simulation import date_run, samba_run

FINISH_SECONDS = 600.0  # s that the live system may take to store a run that it was sent
DONE_SUFFIX = ".done"  # of the marker that says a file is closed


def option(default: Any, help_text: str) -> Any:
    """A setting with its help text."""
    return field(default=default, metadata={"help": help_text})


@dataclass(frozen=True)
class SimulationSettings:
    """Everything the simulated DAQ can be told. ``SETTINGS_HELP`` lists the help texts."""

    runs: int = option(3, "Samba runs to write")
    partitions: int = option(3, "files of each run")
    events: int = option(100, "events of each file")
    detectors: int = option(2, "detectors; each has one ionisation and one heat channel")
    points: int = option(1024, "points of each trace")
    first_day: str = option("2012-01-22", "day of the first run (2000 to 2025: a run's name can say no more)")
    seed: int = option(1, "seed of all random numbers: the same seed gives the same bytes")
    lines_kev: tuple[float, ...] = option((10.4, 356.0), "energies of the lines in the spectrum, in keV")
    continuum: float = option(0.1, "part of the events in a flat continuum instead of a line")
    nuclear_recoils: float = option(0.1, "part of the events that are nuclear recoils, with a small ionisation yield")
    ionisation_adu_per_kev: float = option(20.0, "gain of the ionisation channels, in ADU per keV")
    heat_adu_per_kev: float = option(15.0, "gain of the heat channels, in ADU per keV")
    ionisation_noise_adu: float = option(8.0, "noise of the ionisation channels, standard deviation in ADU")
    heat_noise_adu: float = option(5.0, "noise of the heat channels, standard deviation in ADU")
    heat_polarity: int = option(1, "sign of the heat pulses: 1 or -1")
    ionisation_decay_ms: float = option(8.0, "decay time of the ionisation pulses, in ms")
    heat_rise_ms: float = option(5.0, "rise time of the heat pulses, in ms")
    heat_decay_ms: float = option(60.0, "decay time of the heat pulses, in ms")
    pile_up: float = option(0.0, "part of the pulses with a second pulse in the same trace")
    rate_hz: float = option(0.5, "events a second of simulated time")
    byte_order: str = option("little", "byte order of the traces: little or big")
    date_runs: int = option(1, "DATE files to write")
    date_spills: int = option(4, "spills of each DATE file")
    date_triggers: int = option(50, "particle triggers of each spill")
    date_first: int = option(1, "number of the first DATE run")
    date_source: str = option("", "a DATE file whose events are written instead, with the run's number in them")
    socket: str = option("", "send the DATE spills there, too (tcp://127.0.0.1:5620); see docs/online-inputs.md")
    socket_key: str = option("", "file with the secret that the socket asks for")
    stream: str = option("", "name of these messages, for a DAQ that is started again; empty: a new one")
    pace: float = option(0.0, "seconds to wait after every few events, so that files grow slowly; 0: at once")
    flush_events: int = option(20, "events written between two waits")
    done_marker: bool = option(False, "write <file>.done when a file is closed")
    broken: int = option(0, "more files, cut inside their headers, to see how the chain takes them")

    def check(self) -> None:
        """Raise :class:`SettingsError` with a sentence for the first setting that cannot be used."""
        for name, low, high in (
            ("runs", 0, 1000),
            ("partitions", 1, 999),
            ("events", 0, 10_000_000),
            ("detectors", 1, 16),
            ("points", 16, 1_000_000),
            ("date_runs", 0, 1000),
            ("date_spills", 0, 4095),
            ("date_triggers", 0, 2000),
            ("date_first", 0, 2**31),
            ("flush_events", 1, 1_000_000),
            ("broken", 0, 1000),
            ("pace", 0, 3600),
            ("continuum", 0, 1),
            ("nuclear_recoils", 0, 1),
            ("pile_up", 0, 1),
            ("seed", 0, 2**63),
        ):
            if not low <= getattr(self, name) <= high:
                raise SettingsError(f"simulation setting {name}: expected {low} to {high}, found {getattr(self, name)}")
        if self.byte_order not in ("little", "big"):
            raise SettingsError(f"simulation setting byte_order: expected little or big, found {self.byte_order!r}")
        if self.rate_hz <= 0:
            raise SettingsError(f"simulation setting rate_hz: expected more than 0, found {self.rate_hz}")
        if not self.lines_kev and self.continuum < 1:
            raise SettingsError("simulation setting lines_kev: give at least one energy, or continuum 1")
        try:
            last = date.fromisoformat(self.first_day) + timedelta(days=max(self.runs - 1, 0))
            make_run_name(date.fromisoformat(self.first_day))
            make_run_name(last)
        except ValueError as error:
            raise SettingsError(f"simulation setting first_day: {error}") from None


SETTINGS_HELP: dict[str, str] = {entry.name: entry.metadata["help"] for entry in fields(SimulationSettings)}


@dataclass(frozen=True, slots=True)
class Written:
    """A file that the simulated DAQ has closed. ``truth_path`` is None for a broken one."""

    path: Path
    truth_path: Path | None
    run_name: str
    file_number: int
    events: int


def simulate(
    directory: Path,
    settings: SimulationSettings | None = None,
    *,
    truth: Path | None = None,
    wait: Callable[[float], object] | None = None,
    on_written: Callable[[Written], object] | None = None,
    **changes: Any,
) -> list[Written]:
    """Write all files of a simulated data taking.

    Args:
        directory: where the DAQ writes; one folder for each run is made in it.
        settings: what to write.
        truth: folder for the JSON files that say what was put in; ``<directory>_truth`` by default.
        wait: called with the seconds to wait where ``pace`` is set; ``threading.Event().wait`` by default. If it
            returns something true, the DAQ stops after the file it is writing.
        on_written: called with each file once it is closed.
        **changes: single settings, by name.

    Returns:
        The files, in the order in which they were closed.

    Raises:
        SettingsError: a setting that cannot be used.
        Unavailable: who listens at the socket does not acknowledge what was sent.
    """
    settings = replace(settings or SimulationSettings(), **changes)
    settings.check()
    directory = Path(directory)
    truth = directory.with_name(directory.name + "_truth") if truth is None else Path(truth)
    stop = False

    def pause(seconds: float) -> None:
        nonlocal stop
        if seconds > 0 and not stop:
            stop = bool((wait or threading.Event().wait)(seconds))

    written: list[Written] = []
    for one in _files(directory, truth, settings, pause):
        written.append(one)
        if settings.done_marker:
            one.path.with_name(one.path.name + DONE_SUFFIX).write_bytes(b"")
        if on_written is not None:
            on_written(one)
        if stop:
            break
    return written


def _files(
    directory: Path, truth: Path, settings: SimulationSettings, pause: Callable[[float], None]
) -> Iterator[Written]:
    """Write one file after the other."""
    first = date.fromisoformat(settings.first_day)
    truth.mkdir(parents=True, exist_ok=True)
    for run in range(settings.runs):
        name = make_run_name(first + timedelta(days=run))
        folder = directory / name
        folder.mkdir(parents=True, exist_ok=True)
        for partition in range(settings.partitions):
            path = folder / f"{name}_{partition:03d}"
            facts = samba_run.write_partition(path, settings, run, partition, pause)
            yield Written(path, _truth(truth, path, settings, facts), name, partition, settings.events)
    with _daq(settings) as daq:
        for run in range(settings.date_first, settings.date_first + settings.date_runs):
            name = f"sim_{run:05d}"
            folder = directory / name
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{name}.000"
            facts = date_run.write_run(path, settings, run, pause, daq)
            if daq is not None:
                daq.finish(FINISH_SECONDS)
            yield Written(path, _truth(truth, path, settings, facts), name, 0, facts["events"])
    for number in range(settings.broken):
        name = make_run_name(first, daq=2)
        folder = directory / name
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}_{number:03d}"
        samba_run.write_broken(path, settings, number)
        yield Written(path, None, name, number, 0)


def _daq(settings: SimulationSettings) -> Any:
    """The way to the socket, or to nothing."""
    if not settings.socket:
        return nullcontext()
    from procs.simulation.socket_daq import Sender

    return Sender(settings.socket, stream=settings.stream, key=settings.socket_key or None)


def _truth(folder: Path, path: Path, settings: SimulationSettings, facts: dict[str, Any]) -> Path:
    place = folder / f"{path.name}_truth.json"
    place.write_text(json.dumps({"file": path.name, "settings": asdict(settings), **facts}))
    return place
