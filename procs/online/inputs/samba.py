"""Samba files as an input: a "spill" is a batch of events of one file, numbered from 0 in the run.

``data["samba"]`` has the columns of :class:`procs.formats.samba_batch.SambaBatch`, the names of ``channels`` with their
``detectors`` and ``kinds`` (the column ``channel`` counts through them), ``reference_words``, ``file`` and its number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any, ClassVar

from orchestrator.online.spill import Item, Spill
from procs.formats import samba
from procs.formats.samba_batch import SambaBatch
from procs.online.inputs import whole

COLUMNS = tuple(field.name for field in fields(SambaBatch))


class SambaInput(whole.WholeFiles):
    """Partitions of Samba runs, in the order of their names. A run ends with its trailer, or with the next run."""

    version: ClassVar[str] = "1"
    defaults: ClassVar[Mapping[str, Any]] = {**whole.WholeFiles.defaults, "events": 100}
    settings_help: ClassVar[Mapping[str, str]] = {
        **whole.WholeFiles.settings_help, "events": "events of one batch at most",
    }  # fmt: skip

    def of_file(self, path: str, place: int) -> Iterator[Item]:
        """The batches of one file; ``place`` is a number of events."""
        file = samba.open(path)
        said = file.run.get("Date.secondes")
        begun = float(said) if isinstance(said, int | float) else None
        header = {"format": "Samba", "condition": file.run.get("Condition"), "release": str(file.header.release)}
        yield from self._marks.begin(file.run_name, begun, header)
        for batch in file.batches(int(self.settings["events"]), keep_truncated=True):
            # Batches are the same each time, for they depend on the file alone; those that are safe are gone through.
            if batch.first + len(batch) <= place:
                continue
            number = self._marks.number()
            self._place = batch.first + len(batch)
            yield Spill(file.run_name, number, _time(batch), None, {"samba": self._data(file, batch)})
        if file.truncated is not None:
            self.problem(
                f"{path}: the last event is not complete (at byte {file.truncated.offset}): {file.truncated.reason}"
            )
        if file.end_of_run is not None:
            trailer = {key: value for key, value in file.end_of_run.items() if isinstance(value, str | int | float)}
            self._place = whole.ALL
            yield from self._marks.end("trailer", None, trailer)

    @staticmethod
    def _data(file: samba.SambaFile, batch: SambaBatch) -> dict[str, Any]:
        return {
            **{name: getattr(batch, name) for name in COLUMNS},
            "channels": [one.name for one in file.channels],
            "detectors": [one.detector for one in file.channels],
            "kinds": [one.kind for one in file.channels],
            "reference_words": list(file.reference_words),
            "file": str(file.path),
            "file_number": file.file_number,
        }


def _time(batch: SambaBatch) -> float | None:
    """Of the first event."""
    return float(batch.seconds[0]) + float(batch.microseconds[0]) / 1e6 if len(batch) else None
