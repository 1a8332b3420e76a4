"""Links from the status page to the control room: where there is one, and for the runs that it has."""

from pathlib import Path

import pytest

from orchestrator.web.control_room import ControlRoom, control_room

YAML = "input: {module: 'x:Y'}\nweb_port: 8123\n"


def test_a_site_without_a_live_system_or_with_a_broken_one_has_no_link(tmp_path: Path) -> None:
    assert control_room(tmp_path) is None
    (tmp_path / "online.yaml").write_text("inputs: 3\n")
    assert control_room(tmp_path) is None


@pytest.mark.parametrize(
    ("host", "base"), [("daq1", "http://daq1:8123/"), ("::1", "http://[::1]:8123/"), (None, "http://127.0.0.1:8123/")]
)
def test_the_link_goes_to_the_same_machine_at_its_port(tmp_path: Path, host: str | None, base: str) -> None:
    (tmp_path / "online.yaml").write_text(YAML)
    made = control_room(tmp_path)
    assert made is not None and made.page(host) == base


def test_runs_are_linked_that_the_live_system_has(tmp_path: Path) -> None:
    (tmp_path / "runs" / "6008").mkdir(parents=True)
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "tdc.6009.state").touch()
    room = ControlRoom(tmp_path, 8090)
    assert room.run("a", "6008") == "http://a:8090/runs/?name=6008"
    assert room.run("a", "6009") == "http://a:8090/runs/?name=6009"
    assert [room.run("a", name) for name in ("6007", "..", "*", "6008/..", "", None, 6008)] == [""] * 7
