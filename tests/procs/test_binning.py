"""Histograms that add up exactly, in any order, whatever range each has seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import uproot
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.drawable import clean
from procs import binning
from procs.binning import MOST_BINS, SAMPLE, WANTED_BINS, Counts, key_name, merged, power_of_two
from procs.pictures import MOST_PANELS, page

PIECES = st.lists(st.lists(st.floats(-1e9, 1e9), max_size=50), min_size=1, max_size=6)


def made(values: object) -> Counts:
    counts = Counts("a", "title", "ADU")
    counts.fill(np.asarray(values, dtype=float))
    return counts


@settings(max_examples=100, deadline=None)
@given(PIECES, st.randoms())
def test_nothing_is_lost_and_the_order_does_not_matter(pieces: list[list[float]], random: object) -> None:
    parts = [made(piece) for piece in pieces]
    forward = merged([{"a": part} for part in parts])["a"]
    backward = merged([{"a": part} for part in reversed(parts)])["a"]
    assert forward.entries == backward.entries == sum(len(piece) for piece in pieces)
    assert forward.width == backward.width
    assert np.array_equal(np.trim_zeros(forward.counts), np.trim_zeros(backward.counts))
    assert len(forward.counts) <= MOST_BINS + 1


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=1, max_size=100))
def test_every_value_lies_in_its_bin(values: list[float]) -> None:
    counts = made(values)
    expected, _ = np.histogram(values, counts.edges())
    assert expected.sum() == len(values)
    inner = np.abs(np.subtract.outer(counts.edges(), values)).min() > 0
    if inner:
        assert np.array_equal(expected, counts.counts)


class Slowly(Counts):
    """The rule of a fill, in as many passes as it takes: bins of the new values, and these added as a histogram."""

    def fill(self, values: np.ndarray) -> int:
        values = values[np.isfinite(values)]
        if not len(values):
            return 0
        if not self.width:
            low, high = np.percentile(values, [2, 98])
            self.width = power_of_two(max(high - low, abs(high) * 1e-6, 1e-9) / WANTED_BINS)
        width = max(self.width, power_of_two(np.abs(values).max() / 2**40))
        index, factor = np.floor(values / width).astype(np.int64), 1
        while index.max() // factor - index.min() // factor + 1 > MOST_BINS:
            factor *= 2
        index //= factor
        self._merge(width * factor, int(index.min()), np.bincount(index - index.min()))
        return len(values)


def near(number: int, exponent: int, side: float) -> float:
    """An edge of bins, or one of its neighbours."""
    return float(np.nextafter(number * 2.0**exponent, side))


EDGES = st.builds(near, st.integers(-999, 999).filter(bool), st.integers(-12, 12), st.sampled_from([-1e9, 0.0, 1e9]))
# Not quite to the end: what is nearer to 0 than 1e-300 of the width counts as 0, and sums of 1e308 are infinite.
NEAR, FAR = (st.floats(-most, most).filter(lambda x: x == 0 or abs(x) > 1e-90) for most in (10, 1e200))
VALUES = st.one_of(NEAR, EDGES, FAR, st.sampled_from([-1e-20, np.nan, np.inf, -np.inf]))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(VALUES, max_size=40), max_size=8), st.integers(1, 50))
@pytest.mark.filterwarnings("error")
def test_a_fill_in_few_passes_gives_the_very_same_bins(pieces: list[list[float]], piece: int) -> None:
    quick, slow = Counts("a", "t", "u"), Slowly("a", "t", "u")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(binning, "PIECE", piece)
        for values in pieces:
            with np.errstate(over="ignore", under="ignore", invalid="ignore"):
                expected = slow.fill(np.array(values, dtype=float))
            assert quick.fill(np.array(values, dtype=float)) == expected
            assert (quick.width, quick.first) == (slow.width, slow.first)
            assert np.array_equal(quick.counts, slow.counts)
            assert quick.counts.dtype == np.int64


def test_far_values_do_not_move_those_that_are_there() -> None:
    counts = made([1.0])
    counts.fill(np.array([0.0, 4097.0]))
    assert counts.width == 1.0 and np.flatnonzero(counts.counts).tolist() == [0, 1, 4097]


def test_a_fill_changes_no_array_that_somebody_else_has() -> None:
    mine = np.array([1, 2, 3])
    counts = Counts("a", "t", "u", 1.0, 0, mine)
    assert counts.fill(np.array([[0.5, 1.5], [2.5, 2.5]])) == 4
    assert counts.counts.tolist() == [2, 3, 5] and mine.tolist() == [1, 2, 3]


def test_of_very_many_values_the_first_width_is_that_of_a_sample() -> None:
    values = np.random.default_rng(4).normal(5, 0.7, 3 * SAMPLE + 17)
    assert made(values).width == made(values[::4]).width
    assert made(values).entries == len(values)


def test_values_that_are_no_numbers_are_left_out() -> None:
    counts = Counts("a", "t", "u")
    assert counts.fill(np.array([np.nan, np.inf, 1.0])) == 1
    assert counts.fill(np.array([])) == 0
    assert counts.entries == 1


def test_constant_and_huge_values_have_a_histogram() -> None:
    for values in ([5.0] * 10, [0.0], [1e300, -1e300], [1e-300], [1e15, 1e15 + 1]):
        assert made(values).entries == len(values)


def test_root_and_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    full, empty = made(rng.normal(1000, 20, 5000)), Counts("b", "none [x]", "keV")
    odd = Counts("c", "channel", "ADU", 1.0, 0, np.array([3, 0, 4]))
    with uproot.recreate(tmp_path / "h.root") as file:
        for counts in (full, empty, odd):
            file[counts.name] = counts.to_hist()
    with uproot.open(tmp_path / "h.root") as file:
        back = {name: Counts.from_root(name, file[name]) for name in ("a", "b", "c")}
    for counts in (full, empty, odd):
        again = back[counts.name]
        assert (again.title, again.unit, again.width) == (counts.title, counts.unit, counts.width)
        assert np.array_equal(again.counts, counts.counts)
        assert again.first == counts.first


def test_zoomed_keeps_the_middle_and_leaves_out_far_values() -> None:
    rng = np.random.default_rng(2)
    counts = made(np.concatenate([rng.normal(0, 1, 10_000), [1e4]]))
    values, edges = counts.zoomed()
    assert edges[-1] < 100
    assert values.sum() >= 9_900
    assert made([]).zoomed()[0].sum() == 0


def test_keys_of_different_labels_differ() -> None:
    labels = ["ionisA FID802", "ionisA_FID802", "ionisA-FID802", "é", "è", "a" * 100, "a" * 99 + "b"]
    keys = {key_name("amplitude", label) for label in labels[:5]}
    assert len(keys) == 5
    assert key_name("amplitude", "ionisA FID802") == "amplitude_ionisA_FID802"
    assert len({key_name("x", label) for label in labels[5:]}) == 2


def test_powers_of_two() -> None:
    assert [power_of_two(v) for v in (1.0, 0.75, 3.0)] == [1.0, 1.0, 4.0]


def test_a_page_is_drawn_whatever_its_titles_say(tmp_path: Path) -> None:
    bad = [Counts(f"h{i}", "$\\frac{1}$\x00 <b>\n%s" + "x" * 200, "$\\bad$") for i in range(MOST_PANELS + 2)]
    for counts in bad:
        counts.fill(np.arange(10.0))
    assert page(tmp_path / "p.png", "abc", "$\\nothing\x07", bad, log=True) == 2
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    assert page(tmp_path / "q.png", "abc", "one empty", [Counts("e", "t", "u")]) == 0
    assert page(tmp_path / "r.png", "abc", "none", []) == 0
    assert clean("a\nb") == "a?b"
