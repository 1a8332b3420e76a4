"""Trees that are written beside the reading: nothing lost, nothing out of order, no fault hidden."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot

from procs.rootio import Writer, branches


@pytest.mark.parametrize("cores", [1, 2])
def test_batches_are_written_in_order(tmp_path: Path, cores: int) -> None:
    path = tmp_path / "x.root"
    with uproot.recreate(path) as out:
        tree = out.mktree("t", branches({"n": "int32", "name": "string", "trace": "var * int16"}))
        with Writer(cores) as writer:
            for start in range(0, 100, 10):
                numbers = np.arange(start, start + 10, dtype=np.int32)
                trace = ak.unflatten(np.repeat(numbers, numbers % 3).astype(np.int16), numbers % 3)
                names = ak.Array([f"name {number}" for number in numbers])
                writer.extend([(tree, {"n": numbers, "name": names, "trace": trace})])
        out["last"] = "written after the trees"
    with uproot.open(path) as file:
        tree = file["t"]
        assert tree["n"].array(library="np").tolist() == list(range(100))
        assert ak.to_list(tree["name"].array())[57] == "name 57"
        assert ak.num(tree["trace"].array(), axis=1).to_list() == [number % 3 for number in range(100)]


class Tree:
    """Takes rows until one says otherwise."""

    def __init__(self) -> None:
        self.rows: list[Any] = []

    def extend(self, rows: Any) -> None:
        if "fault" in rows:
            raise rows["fault"]
        self.rows.append(rows)


@pytest.mark.parametrize("cores", [1, 2])
def test_a_full_disk_met_by_the_writer_ends_the_step(cores: int) -> None:
    tree, full = Tree(), OSError(28, "No space left on device")
    with pytest.raises(OSError, match="No space left") as met, Writer(cores) as writer:
        writer.extend([(tree, {"fault": full})])
        for _ in range(50):  # more than the queue holds: nobody waits for a writer that has given up
            writer.extend([(tree, {"n": 1})])
    assert met.value is full and not tree.rows


def test_a_fault_in_the_last_batch_is_raised_too() -> None:
    with pytest.raises(ValueError, match="of the last"), Writer(2) as writer:
        writer.extend([(Tree(), {"fault": ValueError("of the last")})])


def test_the_readers_own_error_is_not_hidden_and_the_thread_ends() -> None:
    before = threading.active_count()
    with pytest.raises(KeyError, match="of the reader"), Writer(2) as writer:
        writer.extend([(Tree(), {"fault": ValueError("of the writer")})])
        raise KeyError("of the reader")
    assert threading.active_count() == before
