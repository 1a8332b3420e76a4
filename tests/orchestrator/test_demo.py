"""What a demo decides: the chain for files, free ports, when it is over, how the simulated DAQ goes on."""

import socket
import time
from pathlib import Path

import pytest

from orchestrator import demo, newsite
from orchestrator.errors import ChainError, Conflict, SettingsError
from orchestrator.overview import Overview
from orchestrator.runtime import FOLDER, Lock
from orchestrator.settings import Settings


def test_the_chain_follows_from_the_files(tmp_path: Path) -> None:
    samba, root = tmp_path / "ma22a000_000", tmp_path / "tree.root"
    samba.write_text("* Archive SAMBA\n")
    root.write_bytes(b"root" + bytes(60))
    assert demo.chain_for([samba]) == "samba"
    assert demo.chain_for([root]) == "trees"
    with pytest.raises(SettingsError, match="need different chains"):
        demo.chain_for([tmp_path])
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "notes.txt").write_text("words")
    with pytest.raises(SettingsError, match="no file is of a format that is known"):
        demo.chain_for([tmp_path / "only"])


def test_taken_ports_are_gone_around_and_written_down(tmp_path: Path) -> None:
    with listening() as first, listening() as second:
        taken = {"url": f"http://127.0.0.1:{first.getsockname()[1]}", "web_port": second.getsockname()[1]}
        (tmp_path / "orchestrator.yaml").write_text(newsite.site_file({**taken, "embedded": "always"}))
        settings = demo.make_site(tmp_path, "noop", {}, {})
        assert settings.url_address[1] != first.getsockname()[1]
        assert settings.web_port != taken["web_port"]
        with pytest.raises(Conflict, match="is taken by another program"):
            demo.make_site(tmp_path, "noop", {}, {}, port=taken["web_port"])


def test_a_new_site_has_its_ports_in_its_file(tmp_path: Path) -> None:
    with listening() as other:
        overrides = {"web_port": other.getsockname()[1]}
        made = demo.make_site(tmp_path / "new", "noop", {}, overrides)
    assert Settings.load(tmp_path / "new").web_port == made.web_port


def test_a_database_that_the_user_names_is_used(tmp_path: Path) -> None:
    with listening() as other:
        url = f"http://127.0.0.1:{other.getsockname()[1]}"
        settings = demo.make_site(tmp_path, "noop", {"ORCHESTRATOR_URL": url}, {})
    assert (settings.url, settings.embedded) == (url, "auto")


def test_a_folder_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    newsite.make(tmp_path, "noop")
    with pytest.raises(Conflict, match="another chain already"):
        demo.make_site(tmp_path, "samba", {}, {})
    lock = Lock(tmp_path / FOLDER)
    lock.take()
    with pytest.raises(Conflict, match="is running"):
        demo.make_site(tmp_path, "noop", {}, {})
    lock.release()
    (tmp_path / "bad.yaml").write_text("name: [")
    with pytest.raises(ChainError):
        demo.make_site(tmp_path / "other", str(tmp_path / "bad.yaml"), {}, {})
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("found", "expected", "quiet", "over"),
    [
        (Overview({"proc0": {"done": 2}}, {}, {"good": 2}), 2, 0.0, True),
        (Overview({"proc0": {"done": 1, "failed": 1}}, {}, {"good": 1, "failed": 1}), 2, 0.0, True),
        (Overview({"proc0": {"done": 1, "ready": 1}}, {}, {"good": 2}), 2, 0.0, False),
        (Overview({"proc0": {"in progress": 1}}, {}, {"proc 0 in progress": 1}), 1, 99.0, False),
        (Overview({}, {}, {"open": 1}), 1, 99.0, False),
        (Overview({"proc0": {"done": 1}}, {}, {"good": 1}), 2, 1.0, False),
        (Overview({"proc0": {"done": 1}}, {}, {"good": 1}), 2, 21.0, True),
    ],
)
def test_it_is_over_when_nothing_goes_on(found: Overview, expected: int, quiet: float, over: bool) -> None:
    assert demo.over(found, expected, quiet) is over


def test_the_daq_begins_after_what_is_there(tmp_path: Path) -> None:
    assert not [word for word in demo.daq_options(tmp_path) if word.startswith(("first_day", "date_runs"))]
    for name in ("ma22a000", "ma31a000", "sim_00001", "notes"):
        (tmp_path / name).mkdir()
    assert {"first_day=2012-02-01", "date_runs=0"} <= set(demo.daq_options(tmp_path))


def test_the_clock_runs_from_the_first_file_to_the_last_change() -> None:
    clock, before = demo.Clock(), Overview()
    clock.see(Overview(), before)
    assert clock.seconds == 0.0
    clock.see(Overview({"proc0": {"ready": 1}}, {}, {"closed": 1}), before)
    began = clock.began
    clock.see(Overview({"proc0": {"done": 1}}, {}, {"good": 1}), before)
    assert clock.began == began is not None
    assert 0 < clock.seconds < 5
    assert clock.quiet <= time.monotonic() - began


def listening() -> socket.socket:
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    server.listen()
    return server
