"""Plots against references: probabilities that are right, and words where none can be said."""

import os
from pathlib import Path
from typing import Any

import hist
import numpy as np
import pytest
import uproot
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from orchestrator.errors import SettingsError
from orchestrator.online import configuration, references, verdict
from orchestrator.online.plot import Plot
from orchestrator.online.references import References, check
from orchestrator.online.rootjson import flow_values
from orchestrator.online.verdict import chi_squared, judge, kolmogorov


def of(values: Any, bins: int = 20, low: float = -3.0, high: float = 3.0) -> hist.Hist:
    made = hist.Hist(hist.axis.Regular(bins, low, high, label="x"), storage=hist.storage.Int64())
    made.fill(values)
    return made


def verdict_of(one: Any, two: Any, **more: Any) -> verdict.Verdict:
    return judge(one, two, **({"test": "ks", "warning": 0.05, "bad": 0.001, "entries": 10} | more))


def test_equal_shapes_are_good_whatever_their_sizes() -> None:
    rng = np.random.default_rng(1)
    one, two = of(rng.normal(size=2000)), of(rng.normal(size=100_000))
    for test in ("ks", "chi2"):
        found = verdict_of(one, two, test=test)
        assert found.quality == "good" and found.probability is not None and found.probability > 0.05
        assert "probability" in found.sentence


def test_other_shapes_are_bad_and_between_there_are_warnings() -> None:
    rng = np.random.default_rng(2)
    reference = of(rng.normal(size=100_000))
    for test in ("ks", "chi2"):
        assert verdict_of(of(rng.normal(0.3, 1, 5000)), reference, test=test).quality == "bad"
        assert verdict_of(of(rng.normal(0, 1, 5000)), reference, test=test, warning=1.0, bad=0.0).quality == "warning"


def test_without_a_base_for_a_verdict_there_is_none_and_it_is_said_why() -> None:
    full, few, empty = of([0.1] * 200), of([0.1]), of([])
    assert verdict_of(few, full).sentence == "no verdict with fewer than 10 entries (there are 1)"
    assert verdict_of(full, empty, name="run 7").sentence == "run 7 is empty"
    assert verdict_of(empty, full, entries=0).sentence == "no entries"
    for other, words in (
        (of([], bins=10), "it has 10 bins, the plot has 20"),
        (of([], low=-2.0), "its bins go from -2 to 3, the plot's from -3 to 3"),
        (hist.Hist(hist.axis.Regular(3, 0, 1), hist.axis.Regular(3, 0, 1)), "it has 2 axes, the plot has 1"),
    ):
        found = verdict_of(full, other)
        assert found.quality == "none" and words in found.sentence


@given(st.lists(st.integers(0, 40), min_size=12, max_size=12), st.lists(st.integers(0, 40), min_size=12, max_size=12))
def test_probabilities_are_probabilities_and_the_same_both_ways(one: list[int], two: list[int]) -> None:
    a, b = np.array(one, float), np.array(two, float)
    if not (a.sum() and b.sum()):
        return
    for test in (kolmogorov, chi_squared):
        probability, value = test(a, b)
        assert 0 <= probability <= 1 and value >= 0
        assert np.allclose(test(b, a), (probability, value))
        assert test(a, a)[0] == 1.0


def test_the_kolmogorov_function_is_scipys() -> None:
    for z in (0.2, 0.5, 0.8276, 1.2, 2.5):
        assert np.isclose(verdict._survival(z), stats.kstwobign.sf(z), rtol=1e-9)


def test_chi_squared_is_that_of_the_table_of_counts() -> None:
    """For unit weights the formula is Pearson's for a table of two rows."""
    rng = np.random.default_rng(3)
    one, two = rng.poisson(30, 15).astype(float), rng.poisson(50, 15).astype(float)
    expected = stats.chi2_contingency(np.array([one, two]), correction=False)
    assert np.isclose(chi_squared(one, two)[0], expected.pvalue)
    weighted = chi_squared(one, two, one, two)
    assert abs(weighted[0] - expected.pvalue) < 0.05  # the form with variances differs a little


def test_chi_squared_probabilities_are_even_for_equal_shapes() -> None:
    rng = np.random.default_rng(4)
    found = [chi_squared(rng.poisson(20, 25).astype(float), rng.poisson(60, 25).astype(float))[0] for _ in range(300)]
    assert stats.kstest(found, "uniform").pvalue > 0.001


def online(*given: dict[str, Any], low: float = 0.0) -> configuration.Online:
    module = "procs.online.reducers.pulses:PulseAmplitude"
    reduce = {"name": "a", "module": module, "settings": {"bins": 10, "low": low}}
    return configuration.Online.model_validate(
        {"input": {"module": "x:Y"}, "reduce": [reduce], "references": list(given)}
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = of(np.linspace(0, 10000, 500), 10, 0, 10000)
    kept = hist.Hist(*made.axes, storage=hist.storage.Double())
    kept.view(flow=True)[...] = made.view(flow=True)
    for path in (tmp_path / "good.root", tmp_path / "online" / "runs" / "6" / "snapshot.root"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with uproot.recreate(path) as out:
            out["amplitude/channel/x"] = kept
    (tmp_path / "no.root").write_text("this is none")
    return tmp_path


def test_references_that_fit_are_accepted_and_compared(folder: Path) -> None:
    for source in ({"file": "good.root"}, {"run": "6"}):
        conf = online({"plots": "amplitude/*", "test": "chi2", **source})
        check(conf, folder)
        known = References(conf.references, folder, folder / "online" / "runs")
        mine = of(np.linspace(0, 10000, 1000), 10, 0, 10000)
        compared = known.compare(Plot("amplitude/channel/x", "X", mine))
        assert compared is not None and compared.verdict.quality == "good"
        inner = flow_values(compared.scaled)[0][1:-1]
        assert np.isclose(inner.sum(), mine.sum())
        assert np.allclose(flow_values(compared.ratio)[0][1:-1], 1.0, atol=0.1)
        assert known.compare(Plot("noise/channel/x", "X", mine)) is None
        assert known.compare(Plot("amplitude/channel/other", "X", mine)) is None


@pytest.mark.parametrize(
    ("source", "low", "words"),
    [
        ({"file": "away.root"}, 0.0, "is not there"),
        ({"file": "no.root"}, 0.0, "cannot be read as a ROOT file"),
        ({"run": "7"}, 0.0, "the reference run 7 has no snapshot"),
        ({"file": "good.root", "plots": "tdc/*"}, 0.0, "no histogram for 'tdc/*'"),
        ({"file": "good.root", "name": "nothing"}, 0.0, "no histogram 'nothing'"),
        ({"file": "good.root", "plots": "amplitude/*"}, -5.0, "does not fit the plot amplitude/channel/x"),
        ({"file": "good.root", "plots": "amplitude/all", "name": "amplitude/channel/x"}, 0.0, ""),
        ({"file": "good.root", "plots": "ampl*", "name": "amplitude/channel/x"}, 0.0, ""),
        ({"file": "good.root", "plots": "ampl*", "name": "amplitude/channel/x"}, -5.0, "does not fit the plot ampl"),
    ],
)
def test_references_that_do_not_fit_are_refused_in_a_sentence(
    source: dict[str, Any], low: float, words: str, folder: Path
) -> None:
    if not words:
        check(online(source, low=low), folder)
        return
    with pytest.raises(SettingsError) as caught:
        check(online(source, low=low), folder)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.fixture
def shared_data() -> Path:
    folder = Path(os.environ.get("ORCHESTRATOR_SHARED_DATA", Path(__file__).parents[4] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"needs the folder of real files: set ORCHESTRATOR_SHARED_DATA ({folder} is not there)")
    return folder


def test_a_real_reference_file_judges_real_histograms(shared_data: Path) -> None:
    path = shared_data / "mice_04235_reference_tof.root"
    found = references.histograms(path, ["*"])
    assert len(found) == 33
    same = verdict_of(found["hnsp_0"], found["hnsp_0"])
    assert same.quality == "good" and same.probability == 1.0
    assert verdict_of(found["hpmthits000"], found["hslabhits10"]).quality in ("good", "warning", "bad")
    assert verdict_of(found["hspxy_0"], found["hspxy_0"]).test == "chi2"
    assert "it has 7 bins on the x axis, the plot has 10" in verdict_of(found["hspxy_0"], found["hspxy_1"]).sentence
    assert verdict_of(found["ht01"], found["ht02"]).quality == "none"
    empty = verdict_of(found["hslabhits00"], found["hslabhits20"], name="run 4235")
    assert empty.sentence == "run 4235 is empty"
    other = references.histograms(shared_data / "uproot-histograms.root", ["one", "three"])
    assert verdict_of(other["one"], other["one"], test="chi2").probability == 1.0
    assert verdict_of(other["three"], other["one"]).sentence.startswith("no verdict with fewer than 10 entries")


def test_plots_against_time_have_no_reference(tmp_path: Path) -> None:
    module = "procs.online.reducers.events:EventSizeRate"
    content = {
        "input": {"module": "x:Y"}, "reduce": [{"name": "a", "module": module}],
        "references": [{"file": "all.root"}],
    }  # fmt: skip
    conf = configuration.Online.model_validate(content)
    with uproot.recreate(tmp_path / "all.root") as out:
        out["events/rate"] = hist.Hist(hist.axis.Regular(77, 0, 770), storage=hist.storage.Double())
        out["events/size"] = hist.Hist(hist.axis.Regular(200, 0, 1000), storage=hist.storage.Double())
    check(conf, tmp_path)
    rate = Plot("events/rate", "Rate", of([0.1]), comparable=False)
    assert References(conf.references, tmp_path, tmp_path).compare(rate) is None
