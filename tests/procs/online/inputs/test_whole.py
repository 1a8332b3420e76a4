"""Inputs that take complete files: spill JSON, ROOT, Samba."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.errors import DataError, SettingsError
from orchestrator.online.packing import packed, unpacked
from orchestrator.online.spill import EndOfRun, Item, Spill, StartOfRun
from procs.online.inputs.marks import Marks
from procs.online.inputs.root import RootInput
from procs.online.inputs.samba import SambaInput
from procs.online.inputs.spill_json import SpillJsonInput, documents
from procs.online.inputs.whole import WholeFiles
from procs.simulate import simulate

SHARED = Path(os.environ.get("ORCHESTRATOR_SHARED_DATA", Path(__file__).parents[5] / "shared" / "data"))
real = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the folder of real files: set ORCHESTRATOR_SHARED_DATA")


def names(items: list[Item]) -> list[tuple[Any, ...]]:
    return [
        (type(item).__name__, item.run, getattr(item, "number", None), getattr(item, "how", None)) for item in items
    ]


def read(source: WholeFiles, position: Any = None) -> list[tuple[Item, Any]]:
    return [
        (item, json.loads(json.dumps(source.position))) for item in source.items(position) if item is not None
    ]  # fmt: skip


def spills(source: WholeFiles) -> list[Spill]:
    return [item for item, _ in read(source) if isinstance(item, Spill)]


def resumes_everywhere(make: Callable[[], WholeFiles]) -> list[Item]:
    """From each position come all that was not yielded before it; the whole is returned."""
    whole = read(make())
    for place, (_, position) in enumerate(whole):
        rest = [item for item, _ in read(make(), position)]
        assert names(rest) == names([item for item, _ in whole[place + 1 :]]), (place, position)
    return [item for item, _ in whole]


def problems(source: WholeFiles) -> list[str]:
    found: list[str] = []
    source.problem = found.append  # type: ignore[method-assign]
    list(source.items())
    return found


# Spill JSON


@real
def test_the_real_documents_a_line_each_give_a_run_and_its_spills() -> None:
    items = resumes_everywhere(lambda: SpillJsonInput({"files": str(SHARED / "mice_scifi_spills.json")}))
    assert names(items) == [
        ("StartOfRun", "0", None, None), *[("Spill", "0", n, None) for n in range(1, 6)],
        ("EndOfRun", "0", None, "trailer"),
    ]  # fmt: skip
    start, spill = items[:2]
    assert isinstance(start, StartOfRun) and start.header["job"]["maus_version"] == "MAUS release version 0.9.5"
    assert len(json.dumps(start.header)) < 20_000  # MAUS' whole configuration stays in the file
    assert isinstance(spill, Spill) and spill.data["spill"]["recon_events"]
    assert unpacked(packed(spill)).data["spill"] == spill.data["spill"]


@real
def test_the_real_document_over_several_lines_is_one_spill() -> None:
    items = resumes_everywhere(lambda: SpillJsonInput({"files": str(SHARED / "mice_03407_tof_spill.json")}))
    assert names(items)[1:] == [("Spill", "3407", 1, None), ("EndOfRun", "3407", None, "end of input")]


def spill_document(number: int, run: int = 7, **more: Any) -> dict[str, Any]:
    return {"maus_event_type": "Spill", "daq_event_type": "physics_event", "run_number": run,
            "spill_number": number, **more}  # fmt: skip


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(st.text(max_size=20), min_size=1, max_size=5),
    indents=st.lists(st.sampled_from([None, 1, 4]), min_size=5, max_size=5),
)
def test_documents_in_any_form_one_after_the_other_come_out(
    tmp_path: Path, texts: list[str], indents: list[int | None]
) -> None:
    path = tmp_path / "spills.json"
    given_ = [spill_document(n, text=text, list=[{"a": text}, []]) for n, text in enumerate(texts)]
    written = [json.dumps(one, indent=indent) for one, indent in zip(given_, indents, strict=False)]
    path.write_text("\n".join(written), encoding="utf-8")
    found = list(documents(str(path)))
    assert [value for *_, value in found] == given_
    for _, start, stop, value in found:
        assert json.loads(path.read_bytes()[start:stop]) == value
        assert next(documents(str(path), start))[3] == value


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize(
    "bad", ['{"run_number": 7, "spill_number": 1', '{"a": }', "nonsense", "[1, 2", '{"a": "\\u12', "}{", "null"]
)
def test_a_document_that_is_none_is_named_with_its_line_and_reading_goes_on(
    tmp_path: Path, bad: str, indent: int | None
) -> None:
    path = tmp_path / "spills.json"
    good = [json.dumps(spill_document(number), indent=indent) for number in (0, 2)]
    path.write_text(f"{good[0]}\n{bad}\n{good[1]}\n")
    source = SpillJsonInput({"files": str(path)})
    told = problems(source)
    line = good[0].count("\n") + 2
    assert any(f"line {line} (byte {len(good[0]) + 1})" in one for one in told), told
    if bad != "[1, 2" or indent is None:
        assert [spill.number for spill in spills(SpillJsonInput({"files": str(path)}))] == [0, 2]


def test_a_file_that_has_gone_is_told_and_the_next_one_is_read(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.json").write_text(json.dumps(spill_document(ord(name))))
    source = SpillJsonInput({"files": str(tmp_path / "*.json")})
    items = source.items()
    assert isinstance(next(items), StartOfRun)
    (tmp_path / "b.json").unlink()
    told: list[str] = []
    source.problem = told.append  # type: ignore[method-assign]
    assert [item.number for item in items if isinstance(item, Spill)] == [97]
    assert "b.json cannot be read" in told[0]


def test_a_document_that_is_no_spill_is_named_and_left_out(tmp_path: Path) -> None:
    path = tmp_path / "spills.json"
    lines = [spill_document(0), {"something": "else"}, [1], spill_document(1), {"maus_event_type": "Scalars"}]
    path.write_text("\n".join(json.dumps(one) for one in lines))
    told = problems(SpillJsonInput({"files": str(path)}))
    assert ["line 2" in told[0], "line 3" in told[1], "line 5" in told[2], len(told)] == [True, True, True, 3]
    assert [spill.number for spill in spills(SpillJsonInput({"files": str(path)}))] == [0, 1]


def test_runs_follow_each_other_and_numbers_that_come_again_hide_nothing(tmp_path: Path) -> None:
    path = tmp_path / "spills.json"
    lines = [spill_document(3), spill_document(3), spill_document(-1), spill_document(0, 8), spill_document(1, 8)]
    path.write_text("\n".join(json.dumps(one) for one in lines))
    items = resumes_everywhere(lambda: SpillJsonInput({"files": str(path)}))
    assert [(item.run, item.number) for item in items if isinstance(item, Spill)] == [
        ("7", 3), ("7", 4), ("7", 5), ("8", 0), ("8", 1),
    ]  # fmt: skip
    assert [item.how for item in items if isinstance(item, EndOfRun)] == ["next run", "end of input"]


# ROOT


@real
def test_events_of_a_real_tree_come_in_batches_with_their_columns() -> None:
    items = resumes_everywhere(lambda: RootInput({"files": str(SHARED / "uproot-HZZ.root"), "run": "5"}))
    found = [item for item in items if isinstance(item, Spill)]
    assert [len(one.data["root"]["columns"]["NJet"]) for one in found] == [1000, 1000, 421]
    with uproot.open(SHARED / "uproot-HZZ.root") as file:
        jets = file["events"]["Jet_Px"].array(library="ak")
    again = [unpacked(packed(one)).data["root"] for one in found]
    assert ak.all(ak.concatenate([one["columns"]["Jet_Px"] for one in again]) == jets)
    assert [one["first"] for one in again] == [0, 1000, 2000] and {one.run for one in found} == {"5"}


def write_tree(file: Any, name: str, **columns: np.ndarray) -> None:
    file.mktree(name, {key: value.dtype for key, value in columns.items()}).extend(columns)


def test_files_of_a_run_go_on_with_its_numbers(tmp_path: Path) -> None:
    for run, number in (("ma22a000", 0), ("ma22a000", 1), ("ma23a000", 0)):
        with uproot.recreate(tmp_path / f"{run}_{number:03d}.root") as file:
            write_tree(file, "events", x=np.arange(5), y=np.arange(5.0))
            write_tree(file, "few", z=np.arange(2))
    source = {"files": str(tmp_path / "*.root"), "events": 3, "branches": ["x"]}
    items = resumes_everywhere(lambda: RootInput(source))
    found = [(item.run, item.number, item.data["root"]["columns"]["x"].tolist())
             for item in items if isinstance(item, Spill)]  # fmt: skip
    assert found == [
        ("ma22a000", 0, [0, 1, 2]), ("ma22a000", 1, [3, 4]), ("ma22a000", 2, [0, 1, 2]), ("ma22a000", 3, [3, 4]),
        ("ma23a000", 0, [0, 1, 2]), ("ma23a000", 1, [3, 4]),
    ]  # fmt: skip


def test_a_file_that_is_no_root_file_is_told_and_the_next_one_is_read(tmp_path: Path) -> None:
    (tmp_path / "r_000.root").write_bytes(b"root" + bytes(100))
    with uproot.recreate(tmp_path / "r_001.root") as file:
        write_tree(file, "events", x=np.arange(5))
    source = {"files": str(tmp_path / "*.root")}
    assert "r_000.root" in problems(RootInput(source))[0]
    assert len(spills(RootInput(source))) == 1
    assert "no branch" in problems(RootInput({**source, "branches": "y*"}))[1]


def test_files_that_a_step_makes_are_taken_when_they_are_there(tmp_path: Path) -> None:
    now = [1e9]
    made: list[int] = []

    def wait(seconds: float) -> None:
        now[0] += seconds
        if len(made) < 3:
            path = tmp_path / f"r_{len(made):03d}.root"
            with uproot.recreate(path) as file:
                write_tree(file, "events", x=np.arange(5))
            os.utime(path, (now[0], now[0]))
            made.append(1)

    source = RootInput({"files": str(tmp_path / "*.root"), "grow": True}, clock=lambda: now[0], wait=wait)
    found: list[Spill] = []
    for item in source.items():
        found += [item] if isinstance(item, Spill) else []
        if now[0] > 1e9 + 30:
            break
    assert [spill.number for spill in found] == [0, 1, 2]


# Samba


@pytest.fixture(scope="module")
def samba_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("daq")
    simulate(folder, runs=2, partitions=2, events=25, points=64, date_runs=0)
    return folder


def test_samba_files_give_batches_of_events_numbered_in_the_run(samba_files: Path) -> None:
    source = {"files": str(samba_files / "*" / "*"), "events": 10}
    items = resumes_everywhere(lambda: SambaInput(source))
    assert names(items)[:8] == [
        ("StartOfRun", "ma22a000", None, None), *[("Spill", "ma22a000", n, None) for n in range(6)],
        ("EndOfRun", "ma22a000", None, "trailer"),
    ]  # fmt: skip
    found = [unpacked(packed(item)).data["samba"] for item in items if isinstance(item, Spill)]
    assert [len(one["number"]) for one in found] == [10, 10, 5] * 4
    assert {one["file_number"] for one in found} == {0, 1} and len(found[0]["channels"]) == 4
    assert len(found[0]["samples"]) == int(found[0]["lengths"].sum()) == 10 * 4 * 64


def test_a_samba_file_that_is_cut_gives_all_whole_events_and_says_so(samba_files: Path, tmp_path: Path) -> None:
    whole_file = (samba_files / "ma22a000" / "ma22a000_000").read_bytes()
    (tmp_path / "ma22a000_000").write_bytes(whole_file[: len(whole_file) * 2 // 3])
    source = {"files": str(tmp_path / "ma22a000_000"), "events": 10}
    assert "the last event is not complete" in problems(SambaInput(source))[0]
    assert 10 < sum(len(one.data["samba"]["number"]) for one in spills(SambaInput(source))) < 25


@pytest.mark.parametrize("make", [RootInput, SambaInput])
def test_a_batch_of_no_events_is_refused(make: type[WholeFiles]) -> None:
    with pytest.raises(SettingsError, match="events"):
        make({"files": "x", "events": 0})


# Marks


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(-2, 6), st.booleans()), max_size=12))
def test_runs_are_always_begun_before_their_spills_and_no_number_comes_twice(
    steps: list[tuple[str, int, bool]],
) -> None:
    def go() -> Iterator[Any]:
        marks = Marks()
        for run, wanted, ends in steps:
            yield from marks.begin(run)
            yield Spill(run, marks.number(wanted))
            if ends:
                yield from marks.end("trailer")
            restored = Marks.restored(json.loads(json.dumps(marks.state())))
            assert restored == marks

    current: str | None = None
    seen: set[int] = set()
    last = ""
    for item in go():
        if isinstance(item, StartOfRun):
            assert current is None
            current = item.run
            seen, last = (seen if item.run == last else set()), item.run
        elif isinstance(item, EndOfRun):
            assert current == item.run
            current = None
        else:
            assert current == item.run and item.number not in seen
            seen.add(item.number)


@real
def test_a_position_of_another_kind_of_input_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "spills.json"
    path.write_text(json.dumps(spill_document(1)))
    for position in ({"streams": {}}, "x", {"file": str(path), "run": None, "open": False, "last": -1}):
        assert len(read(SpillJsonInput({"files": str(path)}), position)) == 3
    assert isinstance(next(documents(str(SHARED / "mice_06008.000")))[3], DataError)


@pytest.mark.parametrize(
    ("spoilt", "said"),
    [
        ({"files": 5}, "files is a path, a pattern, or a list of them, not 5"),
        ({"poll": "1 s"}, "poll is a time in seconds, from 0 to a million, not '1 s'"),
        ({"settle": float("nan")}, "settle is a time in seconds"),
        ({"settle": 10**400}, "settle is a time in seconds"),
        ({"grow": "no"}, "grow is true or false, not 'no'"),
        ({"events": True}, "`events` is how many of them make a batch, 1 or more, not True"),
        ({"events": 0}, "`events` is how many"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_before_a_start(spoilt: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(said)):
        SambaInput({"files": "/data/*", **spoilt})
