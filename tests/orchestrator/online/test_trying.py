"""One module alone on a file, from the command line: all four kinds, and what goes wrong in a first attempt."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import uproot

from orchestrator.cli import main

MODULES = '''
import hist
from orchestrator.online.module import Input, Map, Module, Output, Reduce
from orchestrator.online.plot import Plot
from orchestrator.online.spill import EndOfRun, Spill, StartOfRun

class Lines(Input):
    defaults = {"file": ""}
    def items(self, position=None):
        yield StartOfRun("1", header={"beam": "mu"})
        for number, line in enumerate(open(self.settings["file"])):
            yield Spill("1", number, data={"value": line.strip()})
        yield EndOfRun("1", "end of input")

class Twice(Map):
    defaults = {"fails": -1}
    def process(self, spill):
        if spill.number == self.settings["fails"]:
            raise KeyError("nothing")
        value = spill.data.pop("spill")["value"]
        spill.data["twice"] = {"value": 2 * value}
        return value < 3

class Values(Reduce):
    def birth(self, configuration):
        self.held = hist.Hist(hist.axis.Regular(10, 0, 10, label="value"))
    def process(self, spill):
        self.held.fill(spill.data["twice"]["value"])
    def plots(self):
        yield Plot("values/all", "All values", self.held)

class Names(Output):
    defaults = {"to": ""}
    def process(self, plots, *, final):
        open(self.settings["to"], "a").write(" ".join(plot.name for plot in plots) + f" {final}")

class Neither(Module):
    pass
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "student.py").write_text(MODULES)
    lines = [json.dumps({"run_number": 1, "spill_number": n, "value": n}) for n in range(4)]
    (tmp_path / "spills.json").write_text("\n".join(lines))
    yield tmp_path
    sys.modules.pop("student", None)


def test_a_map_says_what_it_changes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["online", "try", "student:Twice", "spills.json"]) == 0
    said = capsys.readouterr().out
    assert "  + twice.value: 2\n" in said and "  - spill.value: 1\n" in said
    assert "is left out of the plots" in said
    assert "run 1: 4 spills, 1 left out, 0 failed" in said


def test_a_map_that_raises_is_shown_with_where(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["online", "try", "student:Twice", "spills.json", "--setting", "fails=2"]) == 1
    said = capsys.readouterr()
    assert "spill 2 failed: KeyError: 'nothing'" in said.err and 'raise KeyError("nothing")' in said.err
    assert "4 spills, 1 left out, 1 failed" in said.out


def test_a_reducers_histograms_are_shown_and_saved(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["online", "try", "student:Values", "spills.json", "--map", "student:Twice", "--to", "out"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "values/all: All values\n  entries 3\n  |█ █ █     |\n  0.0 ... 10.0 value\n" in said
    with uproot.open(folder / "out" / "Values.root") as file:
        assert file["values/all"].values().tolist() == [1, 0, 1, 0, 1, 0, 0, 0, 0, 0]
    assert (folder / "out" / "values_all.png").exists()


def test_an_input_says_what_it_makes_of_a_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "lines.txt").write_text("a\nb\n")
    assert main(["online", "try", "student:Lines", "lines.txt"]) == 0
    said = capsys.readouterr().out
    assert "run 1 begins {'beam': 'mu'}\nspill 0 of run 1\n  value: 'a'\nspill 1" in said
    assert "run 1 ends (end of input)" in said


def test_an_output_gets_the_histograms_of_a_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["online", "try", "student:Values", "spills.json", "--map", "student:Twice", "--to", "out"]) == 0
    assert main(["online", "try", "student:Names", "out/Values.root", "--setting", "to=names.txt"]) == 0
    assert (folder / "names.txt").read_text() == "values/all True"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["student:Thrice", "spills.json"], "'student' has no 'Thrice': correct the module's name"),
        (["nobody:Twice", "spills.json"], "the module 'nobody:Twice' cannot be loaded: No module named 'nobody'"),
        (["student.Twice", "spills.json"], "'student.Twice' names no module: write it as 'package.module:Class'"),
        (["student:Neither", "spills.json"], "is neither Input, Map, Reduce nor Output: let it inherit from one"),
        (["student:Twice", "spills.json", "--setting", "fail=2"], "Twice has no setting 'fail' (settings: fails)"),
        (["student:Twice", "student.py"], "student.py is neither DATE nor"),
        (["student:Names", "spills.json", "--setting", "to=x"], "spills.json cannot be read as a ROOT file"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], sentence: str
) -> None:
    assert main(["online", "try", *words]) != 0
    said = capsys.readouterr().err.strip()
    assert sentence in said and len(said.splitlines()) == 1
