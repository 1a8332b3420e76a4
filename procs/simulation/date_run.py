"""Simulated DATE files: spills of triggers in four TDC boards with known time differences, and small waveforms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from procs.formats import date
from procs.formats import date_layout as layout
from procs.formats.date_writer import EventId, Hit, equipment, flash_words, super_event, v1290_words, write_event
from procs.simulation.pulses import heat_pulse

if TYPE_CHECKING:
    from procs.simulate import SimulationSettings
    from procs.simulation.socket_daq import Sender

BOARDS = (1, 2, 3, 4)  # TDC boards
LDC = 1
SPILL_SECONDS = 3  # between two spills
DIFFERENCE_COUNTS = -60.0  # board 1: channel 1 minus channel 0, in counts of 25 ps; 4 counts less each further board
SIGMA_COUNTS = 2.0  # of the difference
V1724_POINTS, V1731_POINTS = 32, 64  # of each of 8 channels
TRIGGERED, IDLE = 0x20033, 0x200030  # the trigger receiver's word, in a physics event and at the ends of a burst


def expected_difference(board: int) -> float:
    """The mean time of channel 1 minus channel 0 of a board, in counts of 25 ps."""
    return DIFFERENCE_COUNTS - 4.0 * (board - 1)


def write_run(
    path: Path, settings: SimulationSettings, run: int, pause: Callable[[float], None], daq: Sender | None = None
) -> dict[str, Any]:
    """Write one DATE file, growing spill by spill, and send its spills to the socket too. What was put in."""
    differences: dict[int, list[int]] = {board: [] for board in BOARDS}
    events = recorded(Path(settings.date_source), run) if settings.date_source else _events(settings, run, differences)
    counts: Counter[int] = Counter()
    held: list[bytes] = []  # of the spill
    with path.open("wb") as out:
        for event, data in events:
            out.write(data)
            first = not counts[event.type]
            counts[event.type] += 1
            if event.type == layout.START_OF_RUN and first and daq is not None:
                daq.start(str(run), event.seconds, {"source": "simulated DAQ"})
            if event.type in layout.WITH_EQUIPMENT:
                held.append(data)
            if event.type == layout.END_OF_BURST:
                out.flush()
                if daq is not None:
                    daq.spill(str(run), event.spill, b"".join(held), event.seconds)
                    daq.flush()
                held = []
                pause(settings.pace)
            if event.type == layout.END_OF_RUN and first and daq is not None:
                daq.end(str(run), event.seconds, counts[layout.END_OF_BURST])
    facts = {"format": "date", "run_name": path.stem, "run_number": run, "file_number": 0,
             "events": counts.total(), "spills": counts[layout.END_OF_BURST]}  # fmt: skip
    if settings.date_source:
        return {**facts, "source": settings.date_source}
    triggers = settings.date_spills * settings.date_triggers
    return {
        **facts,
        "triggers": triggers,
        "hits": 2 * len(BOARDS) * triggers,
        "waveforms": 16 * triggers,
        "time_difference_counts": {str(board): values for board, values in differences.items()},
        "expected_difference_counts": {str(board): expected_difference(board) for board in BOARDS},
    }


def recorded(path: Path, run: int) -> Iterator[tuple[EventId, bytes]]:
    """The events of a DATE file as if they were of another run: its number in all headers, nothing else changed.

    Raises FormatError.
    """
    for event in date.open(path).events():
        headers = [event.header, *(part.header for part in event.sub_events)]
        event.header = _renumbered(event.header, run)
        for part, header in zip(event.sub_events, headers[1:], strict=True):
            part.header = _renumbered(header, run)
        yield EventId(event.type, run, event.spill, event.number, event.seconds, event.microseconds), write_event(event)


def _renumbered(header: Any, run: int) -> Any:
    changed = header.copy()
    changed[layout.RUN] = run
    return changed


def _events(
    settings: SimulationSettings, run: int, differences: dict[int, list[int]]
) -> Iterator[tuple[EventId, bytes]]:
    """Simulated ones; adds what was put in to ``differences``."""
    rng = np.random.default_rng([settings.seed, 1_000_000 + run])
    start = int(datetime.fromisoformat(settings.first_day).replace(hour=10, tzinfo=UTC).timestamp())

    def made(event: EventId, blocks: list[bytes]) -> tuple[EventId, bytes]:
        return event, super_event(event, [(LDC, blocks)])

    for _ in range(2):
        yield made(EventId(layout.START_OF_RUN, run, 1, 0, start), [])
    for spill in range(settings.date_spills):
        seconds = start + 4 + SPILL_SECONDS * spill
        empty = [equipment(layout.TRIGGER_RECEIVER, 0, [IDLE]), equipment(layout.EVENT_BUILDER, 0)]
        empty += [equipment(layout.V1290, 0) for _ in BOARDS]
        yield made(EventId(layout.START_OF_BURST, run, spill, 0, seconds), empty)
        blocks = _spill(rng, settings.date_triggers, spill, differences)
        yield made(EventId(layout.PHYSICS, run, spill, 1, seconds + 1, 250_000), blocks)
        yield made(EventId(layout.END_OF_BURST, run, spill, 1, seconds + 1, 500_000), empty)
    end = start + 8 + SPILL_SECONDS * settings.date_spills
    for _ in range(2):
        yield made(EventId(layout.END_OF_RUN, run, 1, 0, end), [])


def _spill(rng: np.random.Generator, triggers: int, spill: int, differences: dict[int, list[int]]) -> list[bytes]:
    """The equipment blocks of one physics event; adds what was put in to ``differences``."""
    blocks = [equipment(layout.TRIGGER_RECEIVER, 0, [TRIGGERED]), equipment(layout.EVENT_BUILDER, 0)]
    tags = np.sort(rng.integers(1_000_000, 100_000_000, triggers)).tolist()
    attributes = (0, 0, 0)
    for board in BOARDS:
        first = rng.integers(100_000, 1_900_000, triggers)
        difference = np.rint(rng.normal(expected_difference(board), SIGMA_COUNTS, triggers)).astype(int)
        differences[board] += difference.tolist()
        hits = [
            [Hit(0, 0, 0, int(time)), Hit(0, 1, 0, int(time + step))]
            for time, step in zip(first, difference, strict=True)
        ]
        words = v1290_words(board, spill * triggers, hits, tags)
        blocks.append(equipment(layout.V1290, board, words, attributes, 4))
    for kind, number, points, base, height, sigma in (
        (layout.V1731, 9, V1731_POINTS, 150.0, -60.0, 1.0),
        (layout.V1724, 0, V1724_POINTS, 8000.0, 900.0, 4.0),
    ):
        shape = heat_pulse(np.arange(points, dtype=np.float64) - points / 4.0, 1.5, 6.0)
        heights = height * rng.uniform(0.3, 1.0, (triggers, 8, 1))
        traces = np.rint(base + heights * shape + rng.normal(0.0, sigma, (triggers, 8, points)))
        words = flash_words(kind, number, traces.astype(np.int64), tags)
        blocks.append(equipment(kind, number, words, attributes, 4))
    blocks.append(equipment(layout.V830, 0, rng.integers(0, 100_000, 4).tolist(), attributes, 4))
    return blocks
