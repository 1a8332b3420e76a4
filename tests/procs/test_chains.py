"""The example chains can be loaded, name steps that exist, and set only what those steps know."""

from __future__ import annotations

import logging
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from orchestrator import chain as chains
from orchestrator.step import Work, find
from procs import amplitude, convert, histograms, noop, sftp, transfer, trees
from procs.options import options

NAMES = ("samba", "samba-remote", "samba-archive", "trees", "noop")
KNOWN: dict[Any, dict[str, Any]] = {
    transfer.transfer: transfer.DEFAULTS,
    sftp.Transfer: sftp.DEFAULTS,
    convert.convert: convert.DEFAULTS,
    amplitude.Amplitude: amplitude.DEFAULTS,
    histograms.histograms: histograms.DEFAULTS,
    trees.take: trees.TAKE,
    trees.select: trees.SELECT,
    trees.mass_histograms: trees.MASS,
    noop.nothing: {"result": {}},
}


def load(name: str) -> chains.Chain:
    with resources.as_file(resources.files("procs") / "chains" / f"{name}.yaml") as path:
        return chains.load(path)


@pytest.mark.parametrize("name", NAMES)
def test_an_example_chain_is_valid(name: str) -> None:
    chain = load(name)
    assert chain.name == name
    for step in chain.steps:
        assert step.run is not None
        options(step.settings, step.name, KNOWN[find(step.run)])


def test_every_shipped_chain_is_tested() -> None:
    shipped = {path.name.removesuffix(".yaml") for path in (resources.files("procs") / "chains").iterdir()}
    assert shipped == set(NAMES)


def test_the_chain_for_raw_files_has_its_four_steps() -> None:
    assert [step.name for step in load("samba").steps] == ["transfer", "convert", "amplitude", "histograms"]


def test_the_step_that_does_nothing_does_nothing_and_is_light() -> None:
    work = Work({"result": {"a": 1}}, Path(), Path(), "x", logging.getLogger(), None)
    assert noop.nothing({}, work) == {"a": 1}
    code = "import procs.noop, sys; print([m for m in ('numpy', 'uproot', 'awkward', 'yaml') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
