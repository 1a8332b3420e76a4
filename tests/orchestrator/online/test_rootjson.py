"""Histograms in ROOT's JSON: what is written is read back, and says what the same histogram in a ROOT file says."""

import shutil
import subprocess
from pathlib import Path

import hist
import numpy as np
import orjson
import pytest
import uproot
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import DataError
from orchestrator.online import rootjson

AXES = st.sampled_from(
    [
        hist.axis.Regular(7, -1.0, 2.5, label="x [ns]"),
        hist.axis.Variable([0, 1, 4, 10], label="y"),
        hist.axis.Regular(1200, 0, 1200, label="many"),
        hist.axis.Integer(0, 5, label="channel"),
        hist.axis.StrCategory(["a", "b b"], label="board"),
    ]
)


@st.composite
def histograms(draw: st.DrawFn) -> hist.Hist:
    axes = [draw(AXES) for _ in range(draw(st.integers(1, 2)))]
    axes = [hist.axis.Regular(3, 0, 3, label="x")] if len(axes) == 2 and axes[0] is axes[1] else axes
    storage = draw(st.sampled_from([hist.storage.Int64(), hist.storage.Double(), hist.storage.Weight()]))
    made = hist.Hist(*axes, storage=storage)
    rng = np.random.default_rng(draw(st.integers(0, 100)))
    view = made.view(flow=True)
    share = draw(st.sampled_from([0.001, 0.2, 1.0]))
    counts = np.where(rng.random(view.shape) < share, rng.integers(1, 9, view.shape), 0)
    if isinstance(storage, hist.storage.Weight):
        view.value, view.variance = counts * 0.5, counts * 0.25
    else:
        view[...] = counts
    return made


@given(histograms())
def test_what_is_written_is_read_back(histogram: hist.Hist) -> None:
    body = rootjson.dumps(histogram, "n", "a title")
    back = rootjson.loads(body)
    for one, other in zip(rootjson.flow_values(histogram), rootjson.flow_values(back), strict=True):
        assert np.array_equal(one, other) if one is not None else other is None
    assert [axis.label for axis in back.axes] == [axis.label for axis in histogram.axes]
    assert all(np.allclose(a.edges, b.edges) for a, b in zip(back.axes, histogram.axes, strict=True))
    assert back.name == "a title"
    again = rootjson.loads(rootjson.dumps(back, "n", "a title"))
    assert again == back


@given(histograms())
def test_it_says_what_uproot_says_of_the_same_histogram(histogram: hist.Hist) -> None:
    if any(isinstance(axis, hist.axis.StrCategory) for axis in histogram.axes) and len(histogram.axes) == 2:
        return  # uproot writes no such axis together with another one
    said = rootjson.to_root(histogram, "n", "t")
    values, variances = rootjson.flow_values(histogram)
    if not any(isinstance(axis, hist.axis.StrCategory) for axis in histogram.axes):
        if histogram.storage_type is hist.storage.Int64:  # which uproot does not write
            counted, histogram = histogram, hist.Hist(*histogram.axes, storage=hist.storage.Double())
            histogram.view(flow=True)[...] = counted.view(flow=True)
        members = uproot.writing.identify.to_writable(histogram)
        names = ["fEntries", "fTsumw", "fTsumwx", "fTsumwx2", "fNcells"]
        names += ["fTsumwy", "fTsumwy2", "fTsumwxy"] if len(histogram.axes) == 2 else []
        for name in names:
            assert np.isclose(said[name], members.member(name), rtol=1e-12), name
        for key in ("fXaxis", "fYaxis")[: len(histogram.axes)]:
            for name in ("fNbins", "fXmin", "fXmax", "fTitle"):
                assert said[key][name] == members.member(key).member(name)
        assert np.array_equal(rootjson.array_back(said["fArray"]), np.asarray(members._bases[-1], dtype=float))
    assert len(rootjson.array_back(said["fSumw2"])) == (0 if variances is None else values.size)


def test_a_real_histogram_survives(tmp_path: Path) -> None:
    made = hist.Hist(hist.axis.Regular(50, 0, 10, label="t [ns]"), storage=hist.storage.Double())
    made.fill(np.random.default_rng(1).normal(5, 2, 1000))
    with uproot.recreate(tmp_path / "x.root") as out:
        out["h"] = made
    with uproot.open(tmp_path / "x.root") as file:
        stored = file["h"]
        said = rootjson.to_root(made, "h", "")
        assert said["_typename"] == stored.classname == "TH1D"
        for name in ("fEntries", "fTsumw", "fTsumw2", "fTsumwx", "fTsumwx2", "fNcells"):
            assert np.isclose(said[name], stored.member(name))
        back = rootjson.loads(rootjson.dumps(made, "h", ""))
        assert np.array_equal(back.values(flow=True), stored.values(flow=True))


def test_a_sparse_plane_is_short() -> None:
    plane = hist.Hist(hist.axis.Regular(200, 0, 1), hist.axis.Regular(200, 0, 1), storage=hist.storage.Int64())
    plane.fill([0.5, 0.25], [0.1, 0.9])
    body = rootjson.dumps(plane, "p", "")
    assert len(body) < 5000 and rootjson.loads(body).sum() == 2


def test_members_beside_are_kept() -> None:
    made = hist.Hist(hist.axis.Regular(2, 0, 1))
    found = orjson.loads(rootjson.dumps(made, "h", "", reference_body={"a": 1}))
    assert found["reference_body"] == {"a": 1}


@pytest.mark.parametrize(
    "wrong", [b"", b"[]", b"{}", b'{"_typename":"TGraph"}', b'{"_typename":"TH1D","fXaxis":3}', b'{"_typename":"TH9D"}']
)
def test_what_is_no_histogram_is_refused(wrong: bytes) -> None:
    with pytest.raises(DataError):
        rootjson.loads(wrong)


def test_means_are_refused() -> None:
    with pytest.raises(DataError, match="holds means"):
        rootjson.to_root(hist.Hist(hist.axis.Regular(2, 0, 1), storage=hist.storage.Mean()), "m", "")


JSROOT = Path(rootjson.__file__).parents[1] / "web" / "static" / "jsroot" / "jsroot.min.js"
PARSE = """
const J = require(process.argv[1]);
const found = JSON.parse(require('fs').readFileSync(0, 'utf8')).map((body) => {
  const h = J.parse(body);
  return [h._typename, Array.from(h.fArray), Array.from(h.fSumw2), h.fXaxis.GetBinCenter(1), h.getBinContent(1, 1)];
});
console.log(JSON.stringify(found));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node, which the Debian package nodejs has")
@pytest.mark.skipif(not JSROOT.exists(), reason="needs JSROOT, which npm brings when the project is installed")
def test_jsroot_parses_what_is_written() -> None:
    rng = np.random.default_rng(5)
    made: list[hist.Hist] = []
    for storage in (hist.storage.Int64(), hist.storage.Weight()):
        sparse = hist.Hist(hist.axis.StrCategory(["a", "b"]), hist.axis.Regular(900, 0, 1), storage=storage)
        sparse.fill(["a", "b", "a"], [0.1, 0.5, 7.0])
        dense = hist.Hist(hist.axis.Regular(30, 0, 1), hist.axis.Variable([0, 0.5, 2]), storage=storage)
        dense.fill(rng.random(500), rng.random(500))
        made += [sparse, dense, hist.Hist(hist.axis.Regular(2000, 0, 1), storage=storage).fill(rng.random(300))]
    bodies = orjson.dumps([rootjson.dumps(one, "n", "t").decode() for one in made])
    done = subprocess.run(["node", "-e", PARSE, str(JSROOT)], input=bodies, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    for histogram, (kind, content, squares, centre, first) in zip(made, orjson.loads(done.stdout), strict=True):
        values, variances = rootjson.flow_values(histogram)
        assert kind == f"TH{values.ndim}D" and content == values.T.ravel().tolist()
        assert squares == ([] if variances is None else variances.T.ravel().tolist())
        edges = histogram.axes[0].edges
        assert np.isclose(centre, (edges[0] + edges[1]) / 2) and first == values[(1,) * values.ndim]
