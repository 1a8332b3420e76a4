"""Map modules as one: order, groups, failures with their trace, and what two machines are compared by."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.errors import SettingsError
from orchestrator.online.configuration import ModuleEntry, maps_from_json
from orchestrator.online.module import RunConfiguration
from orchestrator.online.packing import unpacked
from orchestrator.online.pipeline import LONGEST, Pipeline, differing, versions
from orchestrator.online.spill import Spill

MODULES = '''
from orchestrator.errors import SettingsError
from orchestrator.online.module import Map
from orchestrator.online.spill import Spill

LIFE = []

class Say(Map):
    defaults = {"word": "", "returns": None, "raises": "", "fails": False}
    def birth(self, configuration):
        if self.settings["fails"]:
            raise SettingsError("there is no calibration for run " + configuration.run)
        LIFE.append("birth " + self.settings["word"])
    def process(self, spill):
        spill.data.setdefault("said", []).append(self.settings["word"])
        if self.settings["raises"]:
            self.deeper()
        return self.settings["returns"]
    def deeper(self):
        raise ValueError(self.settings["raises"])
    def death(self):
        LIFE.append("death " + self.settings["word"])

class Another(Map):
    def process(self, spill):
        return Spill(spill.run, spill.number, data={"said": [*spill.data["said"], "another"]})

class Unpackable(Map):
    def process(self, spill):
        spill.data["object"] = object()

class Leaves(Map):
    def process(self, spill):
        raise SystemExit("enough")
'''


@pytest.fixture
def life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    (tmp_path / "saying.py").write_text(MODULES)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("saying", None)
    import saying  # type: ignore[import-not-found]

    yield saying.LIFE
    sys.modules.pop("saying", None)


def say(word: str, **settings: Any) -> ModuleEntry:
    return ModuleEntry(module="saying:Say", settings={"word": word, **settings})


def run(*maps: Any) -> Any:
    pipeline = Pipeline(maps, "w")
    pipeline.birth(RunConfiguration("1"))
    outcome = pipeline.process(Spill("1", 7, data={"x": np.arange(3)}))
    pipeline.death()
    return outcome


def test_modules_run_in_order_and_groups_in_theirs(life: list[str]) -> None:
    outcome = run(say("a"), (say("b"), say("c", returns=True)), ModuleEntry(module="saying:Another"), say("d"))
    assert (outcome.number, outcome.failed, outcome.shown, outcome.worker) == (7, False, True, "w")
    assert unpacked(outcome.packed).data["said"] == ["a", "b", "c", "another", "d"]
    assert life == ["birth a", "birth b", "birth c", "birth d", "death d", "death c", "death b", "death a"]


def test_false_leaves_a_spill_out_of_the_plots_and_ends_the_work_on_it(life: list[str]) -> None:
    outcome = run(say("a"), (say("b", returns=False), say("c")), say("d"))
    assert not outcome.shown and not outcome.failed
    assert unpacked(outcome.packed).data["said"] == ["a", "b"]


def test_an_exception_is_kept_in_the_spill_with_the_end_of_its_trace(life: list[str]) -> None:
    outcome = run(say("a"), say("b", raises="nothing fits"), say("c"))
    assert outcome.failed and outcome.module == "saying:Say"
    assert outcome.error.startswith("ValueError: nothing fits\n")
    assert "in deeper" in outcome.error and "pipeline.py" not in outcome.error
    spill = unpacked(outcome.packed)
    assert spill.errors == {"saying:Say": outcome.error}
    assert spill.data["said"] == ["a", "b"]


def test_a_long_error_is_cut(life: list[str]) -> None:
    outcome = run(say("a", raises="x" * 100_000))
    assert len(outcome.error) < LONGEST + 600


@pytest.mark.parametrize(
    ("module", "error"),
    [
        (say("a", returns=3), "TypeError: process returned 3; it may return None, True, False or a spill"),
        (ModuleEntry(module="saying:Leaves"), "SystemExit: enough"),
        (ModuleEntry(module="saying:Unpackable"), "DataError: data.object: object cannot be packed"),
    ],
)
def test_whatever_a_module_does_the_spill_fails_and_the_worker_goes_on(
    life: list[str], module: ModuleEntry, error: str
) -> None:
    outcome = run(module)
    assert outcome.error.splitlines()[0] == error


def test_a_spill_that_the_input_found_damaged_has_failed(life: list[str]) -> None:
    pipeline = Pipeline((say("a"),))
    pipeline.birth(RunConfiguration("1"))
    outcome = pipeline.process(Spill("1", 7, errors={"input": "half of it is missing"}))
    assert (outcome.module, outcome.error) == ("input", "half of it is missing")
    assert unpacked(outcome.packed).data == {}


def test_a_birth_that_fails_names_module_and_reason_and_ends_the_others(life: list[str]) -> None:
    pipeline = Pipeline((say("a"), say("b", fails=True), say("c")))
    with pytest.raises(SettingsError, match=r"^saying:Say: there is no calibration for run 9$"):
        pipeline.birth(RunConfiguration("9"))
    assert life == ["birth a", "death a"]


def test_another_version_or_another_code_is_told(life: list[str], tmp_path: Path) -> None:
    classes = Pipeline((say("a"),)).classes
    ours = versions(classes)
    assert differing(ours, ours) == ""
    (tmp_path / "saying.py").write_text(MODULES + "\n# changed\n")
    theirs = versions(classes) | {"numpy": "1.0"}
    said = differing(theirs, ours)
    assert said.startswith("has numpy 1.0 instead of ") and " and saying:Say 1 (" in said
    assert differing({}, {"a": "1"}) == "has a not at all instead of 1"


def test_a_list_of_modules_is_the_same_after_its_way_to_a_worker() -> None:
    given = [{"module": "a:B"}, [{"module": "c:D", "settings": {"x": 1}}, {"module": "e:F"}]]
    made = maps_from_json(given)
    assert made == (
        ModuleEntry(module="a:B"),
        (ModuleEntry(module="c:D", settings={"x": 1}), ModuleEntry(module="e:F")),
    )
