"""Sockets of a site: closed to other accounts, found by all of its processes, and never taken from who has them."""

from __future__ import annotations

import contextlib
import shutil
import stat
import time
from pathlib import Path

import pytest
import zmq

from orchestrator.errors import Conflict, SettingsError
from orchestrator.online import configuration, sockets, wire
from orchestrator.online.broadcast import Broker


def listen(address: str) -> zmq.Socket:
    made = zmq.Context.instance().socket(zmq.ROUTER)
    wire.listen(made, address)
    return made


def test_without_addresses_all_lie_in_a_folder_of_the_site_that_is_closed_to_others(tmp_path: Path) -> None:
    (tmp_path / "online.yaml").write_text("input: {module: 'a:B'}\n")
    found = configuration.load(tmp_path / "online.yaml")
    folder = tmp_path / "online" / "sockets"
    addresses = (found.workers.address, found.broadcast.publish, found.broadcast.subscribe)
    assert addresses == tuple(f"ipc://{folder}/{name}" for name in ("workers", "publish", "subscribe"))
    listen(addresses[0]).close(0)
    Broker(*addresses[1:]).close()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_folder_that_others_may_enter_is_closed_before_anything_listens(tmp_path: Path) -> None:
    folder = tmp_path / "online" / "sockets"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    listen(sockets.settled("ipc://workers", tmp_path)).close(0)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_site_that_lies_too_deep_has_its_sockets_elsewhere(tmp_path: Path) -> None:
    deep = tmp_path / ("deep" * 20) / "site"
    address = sockets.settled("ipc://workers", deep)
    assert len(address) < 80 and address != sockets.settled("ipc://workers", deep / "other")
    folder = Path(address.removeprefix("ipc://")).parent
    try:
        listen(address).close(0)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        shutil.rmtree(folder)
        folder.symlink_to(tmp_path)  # as somebody else may do where everybody may write
        with pytest.raises(SettingsError, match="is not a folder of this account"):
            listen(address)
    finally:
        folder.unlink()


def test_other_addresses_stay_as_they_are(tmp_path: Path) -> None:
    for address in ("tcp://127.0.0.1:5610", "ipc:///run/daq/workers"):
        assert sockets.settled(address, tmp_path) == address


def test_a_socket_that_somebody_listens_at_is_not_taken_from_him(tmp_path: Path) -> None:
    address = sockets.settled("ipc://workers", tmp_path)
    first = listen(address)
    with pytest.raises(Conflict, match=r"workers\.address\) is in use by another program"):
        listen(address)
    first.close(0)
    for _ in range(500):  # ZeroMQ closes it with a thread of its own
        with contextlib.suppress(Conflict):
            sockets.must_be_free(address, "workers.address")
            break
        time.sleep(0.01)
    (tmp_path / sockets.FOLDER / "workers").touch()  # what a killed one leaves behind
    listen(address).close(0)


def test_a_folder_that_cannot_be_made_is_said_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "online").write_text("a file")
    with pytest.raises(SettingsError, match=r"the folder .*sockets for workers\.address cannot be made"):
        listen(sockets.settled("ipc://workers", tmp_path))
