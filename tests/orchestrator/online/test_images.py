"""Images: metadata that follow their schema, files that appear whole, pictures of every kind."""

import dataclasses
import os
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import hist
import jsonschema
import numpy as np
import orjson
import pytest

from orchestrator.errors import DataError, SettingsError
from orchestrator.online import images
from orchestrator.online.configuration import Images, ModuleEntry
from orchestrator.online.drawing import draw
from orchestrator.online.images import Files, Gallery
from orchestrator.online.module import Output, RunConfiguration
from orchestrator.online.outputs import Outputs
from orchestrator.online.plot import Plot
from orchestrator.online.presenting import Contents, Presenter, Shown, worst
from orchestrator.online.references import Compared
from orchestrator.online.verdict import Verdict

STARTS = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF", "json": b"{"}


def plane() -> hist.Hist:
    made = hist.Hist(hist.axis.Regular(4, 0, 1, label="x"), hist.axis.Regular(3, 0, 1, label="y"))
    return made.fill(np.linspace(0, 1, 20), np.linspace(0, 1, 20))


def curve() -> hist.Hist:
    return hist.Hist(hist.axis.Regular(10, 0, 1, label="$x$ <b>")).fill(np.linspace(0, 1, 50))


def presented(*plots: Plot, compared: Compared | None = None, final: bool = False, clock: float = 1e9) -> list[Shown]:
    presenter = Presenter("one", "a tag", lambda plot: compared, lambda: clock)
    return presenter.present(plots, Contents("R1", 7, 5, 1e9), final=final)


ODD = "odd $\\frac{1}{0$ \x1b[31m 漢字 " + "long " * 60


@pytest.mark.parametrize("histogram", [curve(), plane(), hist.Hist(hist.axis.Regular(2, 0, 1)), plane().reset()])
@pytest.mark.parametrize("style", [{}, {"logy": True, "logx": True, "logz": True, "draw": "colz"}])
def test_metadata_follow_the_schema_and_pictures_are_what_they_say(histogram: Any, style: dict[str, Any]) -> None:
    scaled = curve() if len(histogram.axes) == 1 and len(histogram.axes[0]) == 10 else None
    compared = Compared("run 6", Verdict("bad", "bad: ...", "ks", 1e-9, 0.5, 0.05, 0.001), scaled, scaled)
    (shown,) = presented(Plot("a/b", ODD, histogram, "text", ("k",), "help", style), compared=compared)
    jsonschema.validate(images.document(shown), images.SCHEMA, cls=jsonschema.Draft202012Validator)
    assert images.document(shown)["quality"] == "bad" and images.document(shown)["reference"] == "run 6"
    for kind, start in STARTS.items():
        assert images.picture(shown, kind).startswith(start)
    again = images.header(orjson.loads(orjson.dumps(images.document(shown))))
    assert again == orjson.loads(orjson.dumps(dataclasses.asdict(shown.header)))


def test_a_document_with_more_or_less_is_none_by_the_schema() -> None:
    found = images.document(presented(Plot("a", "A", curve()))[0])
    less = {key: value for key, value in found.items() if key != "run"}
    for wrong in ({**found, "password": "x"}, less, {**found, "quality": "?"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, images.SCHEMA)


def test_the_same_picture_has_the_same_bytes() -> None:
    (shown,) = presented(Plot("a", "A", curve()))
    for kind in ("png", "svg", "pdf"):
        header = dataclasses.asdict(shown.header)
        assert draw(header, shown.body, kind=kind) == draw(header, shown.body, kind=kind)


def test_numbers_go_on_after_a_restart_and_nothing_is_overwritten(tmp_path: Path) -> None:
    conf = Images(formats=("png",), prefix="mice_", number=True)
    shown = presented(Plot("tdc/hits", "A", curve()))
    for expected in (["000000"], ["000000", "000001"]):
        Files(conf, tmp_path).write(shown)
        names = sorted(path.name for path in (tmp_path / "R1").iterdir())
        assert names == [f"mice_tdc.hits_{n}.{kind}" for n in expected for kind in ("json", "png")]


def test_without_numbers_the_newest_replaces_the_one_before(tmp_path: Path) -> None:
    for clock in (1e9, 1e9 + 5):
        Files(Images(), tmp_path).write(presented(Plot("a", "A", curve()), clock=clock))
    assert sorted(path.name for path in (tmp_path / "R1").iterdir()) == ["a.json", "a.png"]
    assert orjson.loads((tmp_path / "R1" / "a.json").read_bytes())["output_time"] == "2001-09-09T01:46:45.000Z"


def test_a_full_disk_leaves_no_half_file_and_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    gallery = Gallery([(Files(Images(), tmp_path), 0.01)])
    monkeypatch.setattr(os, "fsync", full)
    called = threading.Event()
    gallery.last(presented(Plot("a", "A", curve())), lambda _: called.set())
    assert called.wait(60)
    assert list((tmp_path / "R1").iterdir()) == []
    gallery.close()


def test_the_last_pictures_are_the_newest(tmp_path: Path) -> None:
    class Slow:
        def __init__(self) -> None:
            self.written: list[int] = []

        def write(self, shown: Iterable[Shown]) -> None:
            threading.Event().wait(0.05)
            self.written += [one.header.sequence for one in shown]

    slow = Slow()
    gallery = Gallery([(slow, 0.0)])
    for clock in range(1, 6):
        gallery.offer(presented(Plot("a", "A", curve()), clock=float(clock)))
    gallery.last(presented(Plot("a", "A", curve()), clock=99.0, final=True), lambda _: None)
    gallery.close(60.0)
    assert slow.written[-1] == 99_000 and slow.written == sorted(slow.written)


def test_a_process_that_ends_leaves_pictures_undrawn_after_a_while() -> None:
    drawn: list[str] = []
    gallery = Gallery()

    def slowly(shown: Iterable[Shown]) -> None:
        for one in shown:
            threading.Event().wait(0.02)
            drawn.append(one.header.name)

    gallery.last(presented(*(Plot(f"p{number}", "A", curve()) for number in range(100))), slowly)
    gallery.close(0.1)
    assert len(drawn) < 100


@pytest.mark.parametrize("name", ["", "/x", "a//b", "a/../b", "a b", "a/", ".x", "x" * 300, "a\n"])
def test_a_plot_with_an_odd_name_is_not_published(name: str) -> None:
    with pytest.raises(DataError, match="cannot be a plot's name"):
        presented(Plot(name, "A", curve()))


def test_two_plots_of_one_name_are_refused() -> None:
    with pytest.raises(DataError, match="two plots called 'a'"):
        presented(Plot("a", "A", curve()), Plot("a", "B", curve()))


def test_a_plot_that_cannot_be_published_is_left_out_and_the_others_are_not() -> None:
    means = hist.Hist(hist.axis.Regular(2, 0, 1), storage=hist.storage.Mean())
    told: list[str] = []
    plots = [Plot("a", "A", curve()), Plot("b", "B", means), Plot("a", "again", curve()), Plot("c", "C", plane())]
    presenter = Presenter("one", "", lambda plot: None, lambda: 1e9)
    shown = presenter.present(plots, Contents("R1"), fault=lambda error: told.append(str(error)))
    assert [one.header.name for one in shown] == ["a", "c"]
    assert "holds means" in told[0] and "two plots called 'a'" in told[1]


def test_a_run_is_as_good_as_its_worst_plot() -> None:
    assert worst([]) == "none" and worst(["none", "good"]) == "good" and worst(["bad", "good", "warning"]) == "bad"


class Noted(Output):
    """Keeps what it was given, and raises where told."""

    defaults = {"raise": False}  # noqa: RUF012
    calls: ClassVar[list[Any]] = []

    def birth(self, configuration: RunConfiguration) -> None:
        self.calls.append(("birth", configuration.run))

    def process(self, plots: Iterable[Plot], *, final: bool) -> None:
        if self.settings["raise"]:
            raise RuntimeError("a student's mistake")
        self.calls.append(([plot.name for plot in plots], final))

    def death(self) -> None:
        self.calls.append("death")


def test_outputs_get_the_plots_of_each_run_whatever_another_one_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tests_online_output", sys.modules[__name__])
    Noted.calls.clear()
    module = "tests_online_output:Noted"
    outputs = Outputs([ModuleEntry(module=module, settings={"raise": True}), ModuleEntry(module=module)])
    plots = [Plot("a", "A", curve()), Plot("b", "B", plane())]
    outputs.write(presented(*plots))
    outputs.write(presented(*plots, final=True))
    outputs.write([])
    twice = [("birth", "R1")] * 2
    assert Noted.calls == [*twice, (["a", "b"], False), (["a", "b"], True), "death", "death"]
    with pytest.raises(SettingsError, match="has no 'Nobody'"):
        Outputs([ModuleEntry(module="tests_online_output:Nobody")])
