"""The input's thread: reads ahead and no further, packs, tells what is safe, and survives what an input does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import orjson

from orchestrator.errors import FormatError
from orchestrator.online import reader as module
from orchestrator.online.module import Input
from orchestrator.online.packing import unpacked
from orchestrator.online.reader import Read, Reader
from orchestrator.online.spill import EndOfRun, Spill, StartOfRun


class Given(Input):
    """Yields what it is given; an exception in the list is raised."""

    def __init__(self, items: list[Any]) -> None:
        super().__init__()
        self.given = items
        self.at = 0
        self.told: list[Any] = []
        self.from_: Any = "never asked"

    def items(self, position: Any = None) -> Iterator[Any]:
        self.from_ = position
        for one in self.given[position or 0 :]:
            self.at += 1
            if isinstance(one, Exception):
                raise one
            yield one

    @property
    def position(self) -> Any:
        return self.at

    def safe(self, position: Any) -> None:
        self.told.append((position, threading.current_thread().name))


def until(what: Callable[[], Any]) -> Any:
    end = time.monotonic() + 10
    while not (found := what()):
        assert time.monotonic() < end
        time.sleep(0.002)
    return found


def read(input_: Input, position: Any = None) -> tuple[list[Read], Reader]:
    reader = Reader(input_, position, lambda: None, now=lambda: 1234.5)
    reader.start()
    until(lambda: reader.over)
    return reader.take(10_000), reader


def test_items_come_packed_with_the_position_after_each() -> None:
    given = Given([StartOfRun("1"), Spill("1", 0, data={"x": np.arange(3)}), None, EndOfRun("1")])
    found, reader = read(given)
    assert [(type(one.item), one.position) for one in found] == [(StartOfRun, 1), (Spill, 2), (EndOfRun, 4)]
    spill = unpacked(found[1].payload)
    assert spill.taken == 1234.5 and spill.data["x"].tolist() == [0, 1, 2]
    assert reader.over and reader.error is None and reader.empty


def test_it_begins_where_it_is_told() -> None:
    given = Given([Spill("1", n) for n in range(5)])
    found, _ = read(given, 3)
    assert given.from_ == 3 and [one.item.number for one in found if isinstance(one.item, Spill)] == [3, 4]


def test_a_spill_that_cannot_travel_is_kept_with_the_reason() -> None:
    found, _ = read(Given([Spill("1", 0, data={"x": object()}), Spill("1", 1)]))
    assert unpacked(found[0].payload).errors == {"input": "DataError: data.x: object cannot be packed"}
    assert unpacked(found[1].payload).errors == {}


def test_what_was_read_before_an_input_failed_is_there_and_its_error_too() -> None:
    found, reader = read(Given([Spill("1", 0), FormatError("not what it says", path="f", offset=7)]))
    assert len(found) == 1
    assert str(reader.error) == "f: not what it says (at byte 7)"


def test_it_is_held_back_when_nobody_takes_and_goes_on_when_somebody_does() -> None:
    given = Given([Spill("1", n) for n in range(3 * module.AHEAD)])
    reader = Reader(given, None, lambda: None)
    reader.start()
    until(lambda: given.at >= module.AHEAD)
    time.sleep(0.05)
    assert given.at == module.AHEAD
    assert reader.silence() == 0.0, "an input that is held back is not silent"
    taken = 0
    while taken < 3 * module.AHEAD:
        taken += len(reader.take(100))
    until(lambda: reader.over)


def test_the_input_is_told_what_is_safe_by_its_own_thread() -> None:
    gate = threading.Event()

    class Waiting(Given):
        def items(self, position: Any = None) -> Iterator[Any]:
            yield Spill("1", 0)
            while not gate.is_set():
                yield None

    given = Waiting([])
    reader = Reader(given, None, lambda: None)
    reader.start()
    until(lambda: reader.take(1))
    reader.safe(17)
    until(lambda: given.told == [(17, "input")])
    until(lambda: reader.silence() > 0)
    gate.set()
    until(lambda: reader.over)


def test_a_run_whose_name_could_not_name_a_folder_gets_another() -> None:
    found, _ = read(Given([Spill("../../etc", 0), Spill("../../etc", 1), Spill("6008", 0)]))
    names = [one.item.run for one in found]
    assert names[0] == names[1] and names[0].startswith("run-") and "/" not in names[0]
    assert names[2] == "6008"


def test_an_input_that_hangs_does_not_keep_the_transform_from_ending() -> None:
    class Hanging(Given):
        def items(self, position: Any = None) -> Iterator[Any]:
            threading.Event().wait(60)
            yield None

    reader = Reader(Hanging([]), None, lambda: None)
    reader.start()
    begun = time.monotonic()
    reader.stop(patience=0.1)
    assert time.monotonic() - begun < 30


def test_what_a_header_holds_can_be_written_everywhere() -> None:
    deep: Any = 1
    for _ in range(500):
        deep = [deep]
    odd = {
        "mask": 2**70, "name": "\ud800", "\udfff": 1, "field": float("nan"), "top": -float("inf"), "deep": deep,
        3: {"n": np.int64(7), "of": (1, None, True)}, "good": "as it is",
    }  # fmt: skip
    found, _ = read(Given([StartOfRun("1", header=odd), EndOfRun("1", trailer={"mask": 2**64})]))
    start, end = found[0].item, found[1].item
    assert isinstance(start, StartOfRun) and isinstance(end, EndOfRun)
    assert orjson.loads(orjson.dumps(start.header)) == start.header
    assert start.header["mask"] == str(2**70) and start.header["field"] == "nan" and start.header["good"] == "as it is"
    assert start.header["3"] == {"n": 7, "of": [1, None, True]}
    assert end.trailer == {"mask": str(2**64)}
