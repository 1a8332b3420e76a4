"""Keys for connections between machines: who has the secret gets in, nobody else."""

from pathlib import Path

import pytest
import zmq

from orchestrator.errors import SettingsError
from orchestrator.online.keys import Keys, is_loopback, keys_for, make


@pytest.mark.parametrize(
    ("address", "here"),
    [
        ("tcp://127.0.0.1:1", True), ("tcp://127.3.2.1:1", True), ("tcp://localhost:1", True), ("tcp://[::1]:1", True),
        ("ipc:///tmp/x", True), ("tcp://*:1", False), ("tcp://0.0.0.0:1", False), ("tcp://192.168.1.2:1", False),
        ("tcp://daq.example.org:1", False), ("tcp://eth0:1", False), ("tcp://127.0.0.1.example.org:1", False),
    ],
)  # fmt: skip
def test_loopback_is_told_from_the_rest(address: str, here: bool) -> None:
    assert is_loopback(address) is here


def test_another_address_without_a_key_is_refused_in_one_sentence() -> None:
    assert keys_for(None, "tcp://127.0.0.1:5610") is None
    with pytest.raises(SettingsError, match=r"^tcp://\*:5610 can be reached from other machines and so needs a key"):
        keys_for(None, "tcp://127.0.0.1:5611", "tcp://*:5610")


def test_a_key_file_that_others_may_read_or_that_is_no_secret_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    with pytest.raises(SettingsError, match="is not there: make one"):
        Keys(path)
    make(path)
    assert path.stat().st_mode & 0o777 == 0o600
    Keys(path)
    with pytest.raises(SettingsError, match="there already"):
        make(path)
    path.chmod(0o640)
    with pytest.raises(SettingsError, match="others may read"):
        Keys(path)
    path.chmod(0o600)
    path.write_text("short")
    with pytest.raises(SettingsError, match="5 characters"):
        Keys(path)


@pytest.mark.skipif(not zmq.has("curve"), reason="needs a ZeroMQ with CURVE, as in pyzmq's wheels")
def test_who_has_the_key_is_heard_and_nobody_else(tmp_path: Path) -> None:
    make(tmp_path / "right")
    make(tmp_path / "wrong")
    right, wrong = Keys(tmp_path / "right"), Keys(tmp_path / "wrong")
    with zmq.Context() as context, right.door(context):
        server = context.socket(zmq.ROUTER)
        right.listening(server)
        port = server.bind_to_random_port("tcp://127.0.0.1")
        plain, other, same = (context.socket(zmq.DEALER) for _ in range(3))
        # knows the listening side's key, as one who has read along might, but not the secret
        other.curve_serverkey = right.server_key
        other.curve_secretkey, other.curve_publickey = wrong._client, wrong.client_key
        right.connecting(same)
        for socket, word in ((plain, b"plain"), (other, b"other"), (same, b"same")):
            socket.linger = 0
            socket.connect(f"tcp://127.0.0.1:{port}")
            socket.send(word)
        assert server.poll(5000)
        assert server.recv_multipart()[1:] == [b"same"]
        assert not server.poll(200)
        for socket in (server, plain, other, same):
            socket.close(0)
