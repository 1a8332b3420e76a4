"""DATE files as ROOT trees.

- ``events``: one entry per DATE event (start and end of run and burst, physics, ...): ``offset`` and ``size``
  (bytes), ``type`` (1 start of run, 2 end of run, 5 start of burst, 6 end of burst, 7 physics, 8 calibration),
  ``run``, ``spill``, ``number``, ``seconds``, ``microseconds``, ``sub_events``.
- ``spills``: one entry per physics or calibration event: the same, and ``triggers`` (particle triggers), ``hits``,
  ``waveforms``, ``tdc_errors``, ``trigger_word``, ``first_trigger`` (number of its first particle trigger in the
  file).
- ``triggers``: one entry per particle trigger and TDC board: ``spill_entry`` (entry in ``spills``), ``spill``,
  ``index`` (in the spill), ``trigger`` (in the file), ``ldc``, ``equipment``, ``board``, ``count``, ``time_tag``,
  ``words``, ``hits``.
- ``hits``: one entry per TDC measurement: ``spill_entry``, ``spill``, ``index``, ``trigger``, ``ldc``,
  ``equipment``, ``board``, ``tdc``, ``channel``, ``edge`` (0 leading, 1 trailing), ``time`` (counts of 25 ps).
- ``waveforms``: one entry per flash ADC channel and trigger: ``trace`` (int16) and where it comes from.
- ``scalers``: one entry per scaler word; ``raw``: one entry per block that could not be decoded, its ``words``
  kept.
- The texts ``header`` and ``provenance``.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import uproot

from orchestrator.errors import DataError
from orchestrator.step import Work
from procs.baskets import Lists, Trees
from procs.convert_samba import HEADER
from procs.formats import date
from procs.formats.date_layout import EVENT_TYPES
from procs.formats.date_spills import SpillBatch
from procs.outputs import atomic_output, plain, storage, summing
from procs.recount import recount
from procs.rootio import PROVENANCE, Writer, provenance, verified

SPILLS_AT_ONCE = 500  # physics events in memory at most: small ones share baskets
BYTES_AT_ONCE = 4_000_000  # of raw data in memory: some ten MB when decoded, and one basket of each branch

#: For each tree: the prefix of its columns in a SpillBatch, and the columns themselves (name: type).
_TREES: dict[str, tuple[str, dict[str, str]]] = {
    "events": (
        "table_",
        {
            **dict.fromkeys(("offset", "size"), "int64"),
            "type": "int32",
            **dict.fromkeys(("run", "spill"), "int64"),
            "number": "int32",
            "seconds": "int64",
            **dict.fromkeys(("microseconds", "sub_events"), "int32"),
        },
    ),
    "spills": (
        "",
        {
            **dict.fromkeys(("event", "offset", "size"), "int64"),
            "type": "int32",
            **dict.fromkeys(("run", "spill"), "int64"),
            "number": "int32",
            "seconds": "int64",
            **dict.fromkeys(("microseconds", "triggers", "hits", "waveforms", "tdc_errors"), "int32"),
            **dict.fromkeys(("trigger_word", "first_trigger"), "int64"),
        },
    ),
    "triggers": (
        "trigger_",
        {
            **dict.fromkeys(("spill_entry", "spill", "trigger"), "int64"),
            "index": "int32",
            **dict.fromkeys(("ldc", "equipment"), "int64"),
            "board": "int32",
            **dict.fromkeys(("count", "time_tag"), "int64"),
            **dict.fromkeys(("words", "hits"), "int32"),
        },
    ),
    "hits": (
        "hit_",
        {
            **dict.fromkeys(("spill_entry", "spill", "trigger"), "int64"),
            "index": "int32",
            **dict.fromkeys(("ldc", "equipment"), "int64"),
            **dict.fromkeys(("board", "tdc", "channel", "edge", "time"), "int32"),
        },
    ),
    "waveforms": (
        "wave_",
        {
            **dict.fromkeys(("spill_entry", "spill", "trigger"), "int64"),
            "index": "int32",
            **dict.fromkeys(("ldc", "equipment"), "int64"),
            **dict.fromkeys(("kind", "board", "channel", "counter"), "int32"),
            "time_tag": "int64",
            "trace": "var * int16",
        },
    ),
    "scalers": (
        "scaler_",
        {
            **dict.fromkeys(("spill_entry", "spill", "equipment"), "int64"),
            "index": "int32",
            "value": "uint32",
        },
    ),
    "raw": (
        "raw_",
        {
            **dict.fromkeys(("spill_entry", "spill", "ldc", "equipment"), "int64"),
            "kind": "int32",
            "words": "var * uint32",
        },
    ),
}


def convert_date(
    document: dict[str, Any], work: Work, path: Path, target: Path, chosen: SimpleNamespace, squeeze: Any
) -> dict[str, Any]:
    """Write ``target`` from the DATE file ``path``; the counts for the step's result.

    Raises:
        FormatError: the file is corrupt or cut.
        DataError: the output does not read back as it was written.
    """
    with storage(path, "reading"):
        file = date.open(path, strict=chosen.strict)
    entries = dict.fromkeys(_TREES, 0)
    totals = {"triggers": 0, "tdc_errors": 0}
    boards: dict[str, dict[str, int]] = {}
    triggers_per_spill: list[int] = []

    checksum = ""

    def check(temporary: Path) -> None:
        nonlocal checksum
        with summing(temporary) as sums:
            verified(temporary, entries, recount)
        checksum = sums.result()
        if entries["events"] != sum(file.counts.values()):
            raise DataError(
                f"{target}: {sum(file.counts.values())} DATE events were read and {entries['events']} were written"
            )

    with (
        atomic_output(target, work.attempt, check=check) as temporary,
        uproot.recreate(temporary, compression=squeeze) as out,
    ):
        out[PROVENANCE] = provenance("convert", document, work, path, {"format": "date"})
        with Trees(out) as described, Writer() as writer:
            trees = {name: described.add(name, columns) for name, (_, columns) in _TREES.items()}
            for batch in file.spills(SPILLS_AT_ONCE, keep_truncated=chosen.keep_truncated, max_bytes=BYTES_AT_ONCE):
                first = totals["triggers"] + np.concatenate([[0], np.cumsum(batch.triggers, dtype=np.int64)])
                rows = _rows(batch, first, entries["spills"])
                writer.extend([(trees[name], columns) for name, columns in rows.items()])
                for name, columns in rows.items():
                    entries[name] += len(next(iter(columns.values())))
                totals["triggers"] = int(first[-1])
                totals["tdc_errors"] += int(batch.tdc_errors.sum())
                triggers_per_spill.extend(batch.triggers.tolist())
                _count_boards(batch, boards)
                if len(batch.table_offset):
                    read = int(batch.table_offset[-1] + batch.table_size[-1])
                    work.progress(min(0.99, read / max(file.size, 1)), f"{entries['spills']} spills")
        header = {
            "format": "date",
            "run": file.run,
            "first_event": [int(word) for word in file.first_header],
        }
        out[HEADER] = json.dumps(plain(header), ensure_ascii=False)
    return {
        "checksum": checksum,
        "counts": {
            "events": entries["events"],
            "by_type": {EVENT_TYPES.get(kind, f"type {kind}"): count for kind, count in sorted(file.counts.items())},
            "spills": entries["spills"],
            **totals,
            "triggers_per_spill": triggers_per_spill if len(triggers_per_spill) <= 1000 else None,
            "hits": entries["hits"],
            "waveforms": entries["waveforms"],
            "raw_blocks": entries["raw"],
            "boards": boards,
        },
        "entries": entries,
        "run": file.run,
        "truncated": file.truncated and {"offset": file.truncated.offset, "reason": file.truncated.reason},
        "problems": dict(file.problems),
        "problem_examples": file.examples,
        "undecoded": {str(key): count for key, count in file.undecoded.items()},
    }


def _rows(batch: SpillBatch, first: np.ndarray, spills_before: int) -> dict[str, dict[str, Any]]:
    """The columns of every tree for one batch; ``first`` counts particle triggers through the file."""
    result: dict[str, dict[str, Any]] = {}
    for tree, (prefix, columns) in _TREES.items():
        rows: dict[str, Any] = {}
        for name in columns:
            if name == "trace":
                rows[name] = Lists(batch.samples, batch.lengths)
            elif name == "words" and tree == "raw":
                rows[name] = Lists(batch.raw_words, batch.raw_lengths)
            elif name == "first_trigger":
                rows[name] = first[:-1]
            elif name == "spill_entry":
                rows[name] = spills_before + getattr(batch, f"{prefix}event").astype(np.int64)
            elif name == "trigger":
                rows[name] = first[getattr(batch, f"{prefix}event")] + _index(batch, prefix)
            elif name == "index" and tree != "scalers":
                rows[name] = _index(batch, prefix)
            else:
                rows[name] = getattr(batch, f"{prefix}{name}")
        result[tree] = rows
    return result


def _index(batch: SpillBatch, prefix: str) -> np.ndarray:
    """The number of each row's particle trigger in its spill."""
    return getattr(batch, {"trigger_": "trigger_index", "hit_": "hit_trigger", "wave_": "wave_trigger"}[prefix])


def _count_boards(batch: SpillBatch, boards: dict[str, dict[str, int]]) -> None:
    """Add a batch's triggers and hits to the counts of each TDC board."""
    found = np.unique(batch.trigger_ldc << 5 | batch.trigger_board)  # an address has five bits
    for ldc, board in ((int(both) >> 5, int(both) & 0x1F) for both in found):
        count = boards.setdefault(board_name(ldc, board), {"triggers": 0, "leading": 0, "trailing": 0, "channels": 0})
        hits = (batch.hit_ldc == ldc) & (batch.hit_board == board)
        count["triggers"] += int(np.count_nonzero((batch.trigger_ldc == ldc) & (batch.trigger_board == board)))
        count["leading"] += int(np.count_nonzero(batch.hit_edge[hits] == 0))
        count["trailing"] += int(np.count_nonzero(batch.hit_edge[hits] == 1))
        count["channels"] = max(count["channels"], len(np.unique(batch.hit_channel[hits])))


def board_name(ldc: int, board: int) -> str:
    """A TDC board's name in results and titles."""
    return f"LDC {ldc} board {board}"
