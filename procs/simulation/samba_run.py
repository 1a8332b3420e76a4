"""Simulated Samba partitions: detectors with an ionisation and a heat channel each, pulses of known energy."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from procs.formats.names import make_run_name
from procs.formats.samba_batch import SambaBatch, blank_columns
from procs.formats.samba_header import Channel, Detector, SambaHeader
from procs.formats.samba_writer import RELEASE, SambaWriter
from procs.simulation import pulses

if TYPE_CHECKING:
    from procs.simulate import SimulationSettings

STAMPS = 100_000  # time stamps a second (10 us each)
HEAT_MS = 0.5  # ms a point: 2 kHz
IONISATION_MS = 0.01  # ms a point: 100 kHz
PRETRIGGER = 0.25  # part of a trace before its trigger
VOLTS = 8.0  # bias: what the drifting charges add to the heat
GAMMA_VOLTS = 3.0  # eV that a gamma needs for an electron-hole pair in germanium: 8 V / 3 V is the heat's gain
FIRST_DETECTOR = 802  # names are FID802, FID803, ...


def make_header(settings: SimulationSettings, run: int, partition: int) -> SambaHeader:
    """The headers of one partition."""
    day = date.fromisoformat(settings.first_day) + timedelta(days=run)
    start = int(datetime(day.year, day.month, day.day, 10, 0, tzinfo=UTC).timestamp())
    name = make_run_name(day)
    header = SambaHeader(version=RELEASE, release=RELEASE, order="<" if settings.byte_order == "little" else ">")
    header.general = {
        "Intitule": "Simulated germanium bolometers",
        "Date": day.strftime("%y/%m/%d"),
        "Heure": "10:00:00",
        "Echantillonage": 100.0,
        "Frequence": 100.0,
        "Bolo.nb": settings.detectors,
        "Voies.nb": 2 * settings.detectors,
        "Type.donnees": "evenements",
        "Fichier": f"{name}_{partition:03d}",
    }
    header.physics = {"liste": ["ionisation", "heat"]}
    for index in range(settings.detectors):
        detector = f"FID{FIRST_DETECTOR + index}"
        header.detectors.append(
            Detector(
                detector,
                {
                    "Bolo.etat": "ok",
                    "Bolo.position": 0x0101 + index,
                    "Bolo.masse": 0.82,
                    "Bolo.hote": "simdaq1",
                    "Bolo.reglages": {
                        "polar-A": VOLTS / 2,
                        "polar-B": -VOLTS / 2,
                        "gain-ionisA": settings.ionisation_adu_per_kev,
                        "gain-chalA": settings.heat_adu_per_kev,
                    },
                },
            )
        )
        for kind in ("ionisA", "chaleur"):
            heat = kind == "chaleur"
            clock = HEAT_MS if heat else IONISATION_MS
            header.channels.append(
                Channel(
                    len(header.channels),
                    f"{kind} {detector}",
                    detector,
                    {
                        "Voie.duree": settings.points * clock,
                        "Voie.pretrigger": 100 * PRETRIGGER,
                        "Voie.ADUenmV": 0.3,
                        "Voie.gain": settings.heat_adu_per_kev if heat else settings.ionisation_adu_per_kev,
                        "Voie.trigger.type": "montee" if heat else "associe",
                        "Voie.trigger.seuil": 5.0
                        * (settings.heat_noise_adu if heat else settings.ionisation_noise_adu),
                    },
                )
            )
    header.run = {
        "Run": name,
        "Type": "Calibration Gamma",
        "Condition": "Source Ba-133",
        "Temperature": 0.018,
        "Heure": "10:00:00",
        "Date.secondes": start,
        "Date.microsecs": 0,
        "GigaStamp0": 0,
        "TimeStamp0": 0,
        "Hote": "simdaq1",
        "Duree.tampon": 20000,
        "Trigger.actif": True,
        "Sauvegarde.evt": "tous",
    }
    return header


def draw_energies(rng: np.random.Generator, settings: SimulationSettings, size: int) -> tuple[Any, Any]:
    """Energies of the ionisation and the heat signal of ``size`` particles, in keV electron equivalent.

    A gamma gives its energy in both. A nuclear recoil of energy E has the yield Q = 0.16 E^0.18, Q E of ionisation
    and E (1 + Q V / 3) / (1 + V / 3) of heat.
    """
    flat = rng.uniform(2.0, 400.0, size)
    lines = rng.choice(settings.lines_kev or (0.0,), size)
    energy = np.where(rng.random(size) < settings.continuum, flat, lines)
    nuclear = rng.random(size) < settings.nuclear_recoils
    recoil = rng.exponential(40.0, size) + 10.0
    quenching = np.where(nuclear, 0.16 * recoil**0.18, 1.0)
    recoil = np.where(nuclear, recoil, energy)
    gain = VOLTS / GAMMA_VOLTS
    return quenching * recoil, recoil * (1.0 + quenching * gain) / (1.0 + gain)


def make_events(
    settings: SimulationSettings, header: SambaHeader, run: int, partition: int
) -> tuple[SambaBatch, dict[str, Any]]:
    """The events of one partition, and what was put into them (lists, one entry a pulse)."""
    rng = np.random.default_rng([settings.seed, run, partition])
    size, width, points = settings.events, len(header.channels), settings.points
    ionisation, heat = draw_energies(rng, settings, size)
    hit = rng.integers(0, settings.detectors, size)
    seconds = np.cumsum(rng.exponential(1.0 / settings.rate_hz, size)) + 3600.0 * partition
    pre = int(points * PRETRIGGER)
    columns = blank_columns(size, size * width)
    columns["counts"][:] = width
    samples = np.empty((size, width, points), dtype=np.int16)
    amplitudes, energies = np.zeros((size, width)), np.zeros((size, width))
    second_pulses = rng.random((size, width)) < settings.pile_up
    for channel in header.channels:
        index = channel.index
        is_heat = channel.kind == "heat"
        clock = HEAT_MS if is_heat else IONISATION_MS
        gain = settings.heat_polarity * settings.heat_adu_per_kev if is_heat else settings.ionisation_adu_per_kev
        sigma = settings.heat_noise_adu if is_heat else settings.ionisation_noise_adu
        energies[:, index] = np.where(hit == index // 2, heat if is_heat else ionisation, 0.0)
        amplitudes[:, index] = gain * energies[:, index]

        def shape(start: NDArray[Any], clock: float = clock, is_heat: bool = is_heat) -> NDArray[np.float64]:
            times = (np.arange(points) - start[:, None]) * clock
            if is_heat:
                return pulses.heat_pulse(times, settings.heat_rise_ms, settings.heat_decay_ms)
            return pulses.ionisation_pulse(times, settings.ionisation_decay_ms)

        offset = 400.0 * (index + 1) + rng.normal(0.0, 3.0, size)
        slope = rng.normal(0.0, 0.5 * sigma / points, size)
        traces = offset[:, None] + slope[:, None] * np.arange(points) + pulses.noise(rng, size, points, sigma)
        traces += amplitudes[:, index, None] * shape(np.full(size, float(pre)))
        late = rng.integers(pre, points, size).astype(np.float64)
        second = np.where(second_pulses[:, index], gain * rng.uniform(5.0, 100.0, size), 0.0)
        if second_pulses[:, index].any():
            traces += second[:, None] * shape(late)
        samples[:, index] = pulses.digitise(traces)
        for name, values in pulses.online_estimates(samples[:, index], pre, clock).items():
            columns[name][index::width] = values
        columns["ns_per_point"][index::width] = clock * 1e6
        columns["trigger_positive"][index::width] = 5.0 * sigma
        columns["trigger_negative"][index::width] = -5.0 * sigma
        columns["channel"][index::width] = index
        columns["pulse_number"][index::width] = index
    columns["lengths"][:] = points
    columns["pretrigger"][:] = pre
    columns["samples"] = samples.reshape(-1)
    _times(columns, header, seconds, partition, width)
    columns["trigger_bits"] = (1 << hit).astype(np.uint64)
    columns["touched_detector"][:] = hit
    columns["touched_channel"][:] = 2 * hit + 1
    columns["temperature"] = 0.018 + rng.normal(0.0, 5e-6, size)
    truth = {
        "event": np.repeat(columns["number"], width).tolist(),
        "channel": [channel.name for channel in header.channels] * size,
        "amplitude_adu": amplitudes.reshape(-1).tolist(),
        "energy_kev": energies.reshape(-1).tolist(),
        "start_point": [pre] * (size * width),
        "pile_up": second_pulses.reshape(-1).tolist(),
    }
    return SambaBatch(0, **columns), truth


def _times(columns: dict[str, Any], header: SambaHeader, seconds: Any, partition: int, width: int) -> None:
    """Numbers, dates, stamps, delays and dead times of the events."""
    size = len(seconds)
    micro = np.rint(seconds * 1e6).astype(np.int64)
    columns["number"] = (partition * size + 1 + np.arange(size)).astype(np.int32)
    columns["seconds"] = header.run["Date.secondes"] + micro // 1_000_000
    columns["microseconds"] = (micro % 1_000_000).astype(np.int32)
    columns["stamp"] = np.rint(seconds * STAMPS).astype(np.int64)
    columns["delay"] = np.diff(seconds, prepend=3600.0 * partition)
    columns["trigger"] = columns["delay"].copy()
    columns["dead_time"] = np.rint(0.05 * np.arange(size) * 1e6) * 1e-6
    columns["pulse_stamp"] = np.repeat(columns["stamp"], width)
    columns["counter_seconds"] = np.repeat(columns["seconds"], width)
    columns["counter_microseconds"] = np.repeat(columns["microseconds"], width)


def write_partition(
    path: Path, settings: SimulationSettings, run: int, partition: int, pause: Callable[[float], None]
) -> dict[str, Any]:
    """Write one partition under its final name, growing; the run's last one ends with the trailer. What was put in."""
    header = make_header(settings, run, partition)
    batch, truth = make_events(settings, header, run, partition)
    with path.open("wb") as out:
        writer = SambaWriter(out, header)
        writer.write_header(log="10:00:00 Debut de run" if partition == 0 else "")
        for start in range(0, len(batch), settings.flush_events):
            writer.write_events(batch, start, start + settings.flush_events)
            out.flush()
            pause(settings.pace)
        if partition == settings.partitions - 1:
            end = int(batch.seconds[-1]) + 1 if len(batch) else header.run["Date.secondes"] + 1
            writer.write_end(end, log="Arret demande")
    return {
        "format": "samba",
        "run_name": header.run["Run"],
        "file_number": partition,
        "events": len(batch),
        "channels": [channel.name for channel in header.channels],
        "pulses": truth,
    }


def write_broken(path: Path, settings: SimulationSettings, number: int) -> None:
    """A file whose DAQ died inside the headers."""
    out = io.BytesIO()
    SambaWriter(out, make_header(settings, 0, number)).write_header()
    path.write_bytes(out.getvalue()[: len(out.getvalue()) // 2])
