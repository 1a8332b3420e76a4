"""``up`` starts a daemon for each farm that the site uses, and no poller that would have nothing to do."""

from pathlib import Path

from orchestrator import chain as chains
from orchestrator import children
from orchestrator.settings import Settings

FARMS = "name: x\nfarms: {a: {scheduler: slurm, spool: /s}, b: {scheduler: slurm, spool: /s}}\nsteps:\n"
STEP = "  - {name: %s, run: 'm:f', executor: farm, farm: %s}\n"


def names(tmp_path: Path, text: str) -> list[str]:
    settings = Settings.load(tmp_path, {}, {})
    return [spec.name for spec in children.specs(settings, chains.loads(text), {}, embedded=False)]


def test_a_daemon_for_each_farm(tmp_path: Path) -> None:
    both = FARMS + STEP % ("s0", "a") + STEP % ("s1", "b")
    assert names(tmp_path, both) == ["farm-a", "farm-b", "page"]
    assert names(tmp_path, both + "  - {name: s2, run: 'm:f'}\n") == ["poller", "farm-a", "farm-b", "page"]
    assert names(tmp_path, "name: x\nsteps: [{name: s, run: 'm:f'}]") == ["poller", "page"]
