"""What the display keeps in memory: the newest of each plot, bounded, whatever comes."""

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.online.bins import parts
from orchestrator.online.subscribing import Message
from orchestrator.web.online.board import Board, counts, ordered, pick, sane, worst

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = (
    *("title", "reducer", "sequence", "spill", "spills", "entries", "input_time", "output_time", "description"),
    *("keywords", "help", "tag", "style", "final", "quality", "verdict", "reference"),
)


def plot(run: str, name: str, body: bytes = b"{}", **header: Any) -> Message:
    return Message("plot", run, name, header, body)


@given(st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=8), VALUES))
def test_whatever_a_header_holds_its_fields_have_their_types(header: dict[str, Any]) -> None:
    made = sane(header, "6008", "tdc/hits")
    assert set(made) == {"run", "name", *FIELDS}
    assert all(isinstance(made[key], str) for key in ("title", "description", "help", "tag", "reference", "reducer"))
    assert made["title"] and len(made["title"]) <= 4000
    assert made["quality"] in ("none", "good", "warning", "bad")
    assert isinstance(made["keywords"], list) and all(isinstance(word, str) for word in made["keywords"])
    orjson.dumps(made)


@given(st.dictionaries(st.sampled_from(["read", "done", "failed", "pending", "workers"]), VALUES))
def test_whatever_counts_hold_they_are_numbers_and_a_list_of_workers(said: dict[str, Any]) -> None:
    made = counts(said)
    assert all(isinstance(made[key], int) for key in ("read", "done", "failed", "pending") if key in made)
    assert isinstance(made["workers"], list)


@given(st.binary(max_size=60))
def test_a_body_that_is_no_histogram_has_a_sentence_and_nothing_else(body: bytes) -> None:
    drawn, reference, ratio, fault = parts(body)
    assert (drawn, reference, ratio) == (None, None, None)
    assert fault


def test_the_newest_of_each_plot_is_kept() -> None:
    board = Board()
    for number in range(5):
        board.take(plot("1", "a", b"x" * number, entries=number), float(number))
    board.take(plot("1", "b"), 9.0)
    run = board.current()
    assert run is not None and [run.plots[name].header["entries"] for name in ("a", "b")] == [4, None]
    assert board.size == 4 + 2


def test_memory_is_bounded_by_runs_by_plots_and_by_bytes() -> None:
    board = Board(runs=2, plots=3, memory=1000)
    for run in range(5):
        for name in range(6):
            board.take(plot(str(run), str(name), b"x" * 100), float(run))
    assert [run.name for run in board.runs()] == ["4", "3"]
    assert all(len(run.plots) == 3 and run.refused for run in board.runs())
    board.take(plot("5", "large", b"x" * 900), 9.0)
    assert [run.name for run in board.runs()] == ["5"]
    assert board.size == 900


def test_the_current_run_is_the_one_that_began_last() -> None:
    board = Board()
    for run, begun in (("7", "2026-01-02T00:00:00Z"), ("6", "2026-01-01T00:00:00Z")):
        board.take(Message("run", run, "", {"state": "begun", "begun": begun}, b""), 1.0)
    board.take(plot("6", "late"), 2.0)
    current = board.current()
    assert current is not None and current.name == "7"
    assert board.run("") is current and board.run("8") is None


def test_counts_close_or_it_is_said() -> None:
    assert counts({"read": 5, "done": 3, "failed": 1, "pending": 1})["closed"] is True
    assert counts({"read": 6, "done": 3, "failed": 1, "pending": 1})["closed"] is False
    assert counts({"read": 6, "workers": {"w1": "idle", "w2": {"state": "busy", "spill": 3}}})["workers"] == [
        {"name": "w1", "state": "idle"}, {"name": "w2", "state": "busy", "spill": 3},
    ]  # fmt: skip


def test_plots_are_picked_in_the_order_of_the_patterns_each_once() -> None:
    names = ["a/1", "a/2", "b", "c/1"]
    assert pick(names, ["c/*", "a/2", "a/*"]) == ["c/1", "a/2", "a/1"]


def test_plots_are_counted_as_people_count() -> None:
    assert ordered(["s/10", "s/2", "a", "s/2/b", "10", "s/02"]) == ["10", "a", "s/2", "s/02", "s/2/b", "s/10"]
    assert ordered(["x" + "9" * 3000, "²", ""])[0] == ""


def test_a_run_is_as_good_as_its_worst_plot() -> None:
    assert [worst(q) for q in ([], ["none", "good"], ["warning", "good"], ["bad", "warning"])] == [
        "none", "good", "warning", "bad",
    ]  # fmt: skip


def test_a_plot_of_a_machine_whose_clock_is_ahead_was_made_when_it_came() -> None:
    board = Board()
    for name, time in (("ahead", "2026-01-01T03:00:00Z"), ("right", "2025-12-31T23:59:59Z")):
        shown = board.take(plot("1", name, output_time=time), 1767225600.0)  # 2026-01-01T00:00:00Z
        assert shown is not None
        assert shown.header["output_time"] == min(time, "2026-01-01T00:00:00Z").replace("Z", ".000Z")
