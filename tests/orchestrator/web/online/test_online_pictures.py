"""Bins out of ROOT's JSON, small pictures, PNG."""

from typing import Any

import hist
import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import FormatError
from orchestrator.online import bins, drawing, rootjson
from orchestrator.web.online import thumbnail
from orchestrator.web.online.board import sane

COUNTS = st.lists(st.integers(0, 10**6), min_size=3, max_size=1300)


@given(COUNTS)
@settings(max_examples=40)
def test_the_bins_are_those_of_the_histogram(counts: list[int]) -> None:
    made = hist.Hist(hist.axis.Regular(len(counts) - 2, -1.5, 4, label="time"))
    made.view(flow=True)[...] = counts
    found = bins.read(orjson.loads(rootjson.dumps(made, "h", "a title")))
    assert found.values.tolist() == counts[1:-1]
    assert (found.under, found.over, found.entries) == (counts[0], counts[-1], sum(counts))
    assert np.allclose(found.x.edges, made.axes[0].edges)
    assert (found.title, found.x.title) == ("a title", "time")


@pytest.mark.parametrize("shape", [(3, 2), (70, 40)])
def test_two_axes_are_not_swapped(shape: tuple[int, int]) -> None:
    made = hist.Hist(hist.axis.Regular(shape[0], 0, 1), hist.axis.Variable(np.arange(shape[1] + 1) ** 2.0))
    made.view()[...] = np.arange(shape[0] * shape[1]).reshape(shape)
    found = bins.read(orjson.loads(rootjson.dumps(made, "h", "t")))
    assert np.array_equal(found.values, made.values())
    assert found.y is not None and found.y.edges.tolist() == [n**2 for n in range(shape[1] + 1)]


DAMAGED = st.just("TH1D") | st.none() | st.lists(st.integers(), max_size=4) | st.just({"fNbins": 3, "fXmin": 0})


@given(st.dictionaries(st.sampled_from(["_typename", "fXaxis", "fArray", "fSumw2"]), DAMAGED))
def test_a_damaged_histogram_is_refused_in_words(drawn: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        bins.read(drawn)


@given(st.lists(st.floats(width=32), min_size=1, max_size=300), st.booleans())
@settings(max_examples=40)
def test_a_small_picture_can_be_drawn_of_anything(values: list[float], log: bool) -> None:
    edges = np.arange(len(values) + 1.0)
    array = np.array(values)
    one = bins.Bins("<script>", bins.Axis(edges, "&"), None, "", array, array, 0, 0, 0)
    square = np.outer(array, array[:50])
    two = bins.Bins("", bins.Axis(edges, ""), bins.Axis(edges, ""), "", square, square, 0, 0, 0)
    for drawn in (one, two, None):
        made = thumbnail.draw(drawn, log=log, reference=one)
        assert made.startswith(b"<svg") and made.endswith(b"</svg>")
        assert b"script" not in made and b"nan" not in made and b"inf" not in made and len(made) < 60_000


@pytest.mark.parametrize("two", [False, True])
@pytest.mark.parametrize("style", [{}, {"logy": True, "logx": True, "logz": True}])
def test_a_picture_has_its_size_and_a_hostile_title_is_text(two: bool, style: dict[str, Any]) -> None:
    axes = [hist.axis.Regular(10, 1, 5, label="$\\frac{"), hist.axis.Regular(5, 1, 5)]
    made = hist.Hist(*axes[: 2 if two else 1])
    made.fill(*[np.linspace(1, 5, 100)] * (2 if two else 1))
    body = rootjson.dumps(made, "h", "t", reference_body=rootjson.to_root(made, "r", "r"))
    header = sane({"title": "$\\int_{</title>", "quality": "bad", "style": style}, "6008", "h")
    png = drawing.draw(header, body, (640, 400))
    assert png.startswith(b"\x89PNG")
    assert (int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")) == (640, 400)


def test_a_picture_of_nothing_is_refused_in_words() -> None:
    with pytest.raises(FormatError, match="no JSON"):
        drawing.draw(sane({}, "6008", "h"), b"\xff", (640, 400))


def test_a_picture_of_two_axes_shows_its_reference_and_their_difference() -> None:
    axes = [hist.axis.Regular(10, 0, 1), hist.axis.Regular(10, 0, 1)]
    made, other = hist.Hist(*axes), hist.Hist(*axes)
    made.fill([0.1] * 50, [0.1] * 50)
    other.fill([0.9] * 20, [0.9] * 20)
    header = sane({"title": "t", "reference": "run 5990"}, "6008", "h")
    for beside, there in (({"reference_body": rootjson.to_root(other, "r", "r")}, True), ({}, False)):
        picture = drawing.draw(header, rootjson.dumps(made, "h", "t", **beside), kind="svg").decode()
        assert ("run 5990, scaled" in picture, "difference, in standard deviations" in picture) == (there, there)
    other = hist.Hist(*axes[:1], hist.axis.Regular(3, 0, 1))  # one that does not fit is left out
    picture = drawing.draw(
        header, rootjson.dumps(made, "h", "t", reference_body=rootjson.to_root(other, "r", "r")), kind="svg"
    ).decode()
    assert "run 5990, scaled" not in picture


def test_names_of_bins_that_begin_alike_say_so_once() -> None:
    made = hist.Hist(hist.axis.StrCategory([f"LDC 1 board 9 channel {n}" for n in range(4)], label="channel"))
    picture = drawing.draw(sane({}, "6008", "h"), rootjson.dumps(made, "h", "t"), kind="svg").decode()
    assert picture.count("LDC 1 board 9 channel") == 1
    assert "channel (LDC 1 board 9 channel …)" in picture
