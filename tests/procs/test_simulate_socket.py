"""The simulated DAQ at the socket, and with recorded events instead of its own."""

from __future__ import annotations

import threading
from pathlib import Path

from orchestrator.online.spill import EndOfRun, Item, Spill, StartOfRun
from procs.formats import date
from procs.online.inputs.date import DateInput
from procs.online.inputs.socket import SocketInput
from procs.simulate import simulate


def test_what_is_sent_to_the_socket_is_what_stands_in_the_files(tmp_path: Path) -> None:
    source = SocketInput({"address": "tcp://127.0.0.1:0"})
    found: list[Item] = []
    ready, ended = threading.Event(), threading.Event()

    def receive() -> None:
        for item in source.items():
            ready.set()
            if item is not None:
                found.append(item)
                source.safe(source.position)
            if ended.is_set():
                return

    thread = threading.Thread(target=receive)
    thread.start()
    assert ready.wait(20)
    address = f"tcp://127.0.0.1:{source.port}"
    written = simulate(tmp_path / "daq", runs=0, date_runs=2, date_spills=3, date_triggers=5, socket=address)
    ended.set()
    thread.join(20)
    assert [type(item) for item in found] == [StartOfRun, Spill, Spill, Spill, EndOfRun] * 2
    expected = []
    for one in written:
        for item in DateInput({"files": str(one.path)}).items():
            if isinstance(item, Spill):
                raw = item.data["raw"]
                content = Path(raw["file"]).read_bytes()[raw["offset"] : raw["offset"] + raw["size"]]
                expected.append((item.run, item.number, content))
    assert [(one.run, one.number, one.data["raw"]["bytes"]) for one in found if isinstance(one, Spill)] == expected
    assert [one.spills for one in found if isinstance(one, EndOfRun)] == [3, 3]


def test_recorded_events_become_further_runs(tmp_path: Path, shared_data: Path) -> None:
    source = shared_data / "mice_06008.000"
    options = {"runs": 0, "date_runs": 2, "date_first": 6008, "date_source": str(source)}
    first, second = simulate(tmp_path / "daq", **options)  # type: ignore[arg-type]
    assert first.path.read_bytes() == source.read_bytes()
    events = list(date.open(second.path).events())
    assert {event.run for event in events} == {6009} and len(events) == 22
    assert {int(part.header[5]) for event in events for part in event.sub_events} == {6009}
