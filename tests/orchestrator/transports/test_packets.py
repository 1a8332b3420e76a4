"""What goes out by the short way is what the library would have sent: it reads it itself here."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paramiko
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.transports.packets import CHANNEL_DATA, Data, Packets, send_all
from orchestrator.transports.ssh import SshTransport
from orchestrator.transports.stream import Stream
from orchestrator.transports.testing import Sshd

KEY, IV = bytes(range(16)), b"\0\1\2\3" + bytes(5) + b"\xff\xff\xfd"


class Plain:
    """An engine that cannot seal into a buffer, as those of older libraries."""

    def __init__(self) -> None:
        self.encrypt = AESGCM(KEY).encrypt


class Pair:
    """Our packets at one end of a socket, the library's own at the other."""

    def __init__(self, engine: Any) -> None:
        self.near, self.far = socket.socketpair()
        for one in (self.near, self.far):
            one.settimeout(10)
        self.out, self.into = Packets(Stream(self.near)), paramiko.Packetizer(self.far)
        if engine is not None:
            self.out.set_outbound_cipher(engine, 16, None, 16, None, aead=True, iv_out=IV)
            self.into.set_inbound_cipher(AESGCM(KEY), 16, None, 16, None, aead=True, iv_in=IV)

    def read(self) -> tuple[int, int, bytes]:
        kind, message = self.into.read_message()
        return kind, message.get_int(), message.get_string()

    def close(self) -> None:
        self.near.close()
        self.far.close()


ENGINES = {"seals into a buffer": lambda: AESGCM(KEY), "does not": Plain, "no cipher yet": lambda: None}


@pytest.fixture(params=ENGINES.values(), ids=list(ENGINES))
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    made = Pair(request.param())
    yield made
    made.close()


def test_data_and_messages_arrive_in_their_order(pair: Pair) -> None:
    pieces = [os.urandom(size) for size in (1, 15, 16, 17, 32704, 0, 32704, *[30000] * 12, 70_000, 400_000)]
    got: list[tuple[int, int, bytes]] = []
    reader = threading.Thread(target=lambda: got.extend(pair.read() for _ in range(len(pieces) + 1)), daemon=True)
    reader.start()
    pair.out.send_message(Data(7, [memoryview(piece) for piece in pieces[:5]]))
    message = paramiko.Message()
    message.add_byte(b"\x5f")
    message.add_int(1)
    message.add_string(b"in between" * 30_000)
    pair.out.send_message(message)
    pair.out.send_message(Data(8, pieces[5:]))
    reader.join(10)
    sent = [(CHANNEL_DATA, 7, piece) for piece in pieces[:5]] + [(0x5F, 1, b"in between" * 30_000)]
    assert got == sent + [(CHANNEL_DATA, 8, piece) for piece in pieces[5:]]


def test_what_the_library_sends_is_read_in_whatever_pieces_it_comes() -> None:
    near, far = socket.socketpair()
    near.settimeout(0.05)  # the library looks around meanwhile; what comes in two pieces is whole all the same
    out, into = paramiko.Packetizer(far), Packets(Stream(near))
    messages = [os.urandom(size) for size in (1, 2, 15, 16, 17, 40000, 3, 70000)]

    def send(these: list[bytes]) -> None:
        for data in these:
            message = paramiko.Message()
            message.add_bytes(b"\x5f" + data)
            out.send_message(message)

    try:
        send(messages[:2])  # before there are keys
        got = [into.read_message() for _ in messages[:2]]
        out.set_outbound_cipher(AESGCM(KEY), 16, None, 16, None, aead=True, iv_out=IV)
        into.set_inbound_cipher(AESGCM(KEY), 16, None, 16, None, aead=True, iv_in=IV)
        sender = threading.Thread(target=send, args=(messages[2:],), daemon=True)
        sender.start()
        got += [into.read_message() for _ in messages[2:]]
        sender.join(10)
        assert [(kind, message.asbytes()) for kind, message in got] == [(0x5F, data) for data in messages]
        assert [message.seqno for _, message in got] == list(range(len(messages)))
    finally:
        near.close()
        far.close()


@pytest.mark.parametrize("spoil", ["a bit", "the length", "a short length"])
def test_a_packet_that_was_changed_on_its_way_is_refused(spoil: str) -> None:
    near, far = socket.socketpair()
    into = Packets(Stream(near))
    into.set_inbound_cipher(AESGCM(KEY), 16, None, 16, None, aead=True, iv_in=IV)
    plain = b"\x0a\x5f" + bytes(20) + bytes(10)
    head = len(plain).to_bytes(4, "big")
    sealed = bytearray(head + AESGCM(KEY).encrypt(IV, plain, head))
    if spoil == "a bit":
        sealed[20] ^= 1
    else:
        sealed[:4] = b"\xff\xff\xff\xf0" if spoil == "the length" else b"\0\0\0\0"
    far.sendall(sealed)
    with pytest.raises((InvalidTag, paramiko.SSHException)):
        into.read_message()
    near.close()
    far.close()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 300), min_size=1, max_size=20))
def test_every_length_is_padded_as_the_library_wants_it(sizes: list[int]) -> None:
    pair = Pair(AESGCM(KEY))
    try:
        pieces = [os.urandom(size) for size in sizes]
        pair.out.send_message(Data(1, pieces))
        assert [pair.read()[2] for _ in pieces] == pieces
    finally:
        pair.close()


def test_threads_do_not_mix_their_packets() -> None:
    pair = Pair(AESGCM(KEY))
    sent = {channel: [os.urandom(20000) for _ in range(40)] for channel in (1, 2)}
    threads = [
        threading.Thread(target=lambda n=number: [pair.out.send_message(Data(n, [one, one])) for one in sent[n]])
        for number in sent
    ]
    try:
        for thread in threads:
            thread.start()
        got: dict[int, list[bytes]] = {1: [], 2: []}
        for _ in range(160):
            _, channel, data = pair.read()
            got[channel].append(data)
        assert got == {channel: [one for one in ones for _ in range(2)] for channel, ones in sent.items()}
    finally:
        for thread in threads:
            thread.join(10)
        pair.close()


def test_keys_are_agreed_on_anew_in_the_middle_of_a_file(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Packets, "REKEY_BYTES", 1_000_000)
    times: list[int] = []
    really = Packets.set_outbound_cipher
    monkeypatch.setattr(
        Packets, "set_outbound_cipher", lambda self, *args, **named: (times.append(1), really(self, *args, **named))
    )
    data = os.urandom(8_000_000)
    with SshTransport(sshd.access()) as transport:
        target = f"/tmp/orchestrator-keys-{os.getpid()}"
        try:
            sent = transport.send(target, (data[start : start + 500_000] for start in range(0, len(data), 500_000)))
            assert sent.size == len(data) and transport.read(target) == data
        finally:
            transport.remove(target)
    assert len(times) > 2


def test_a_closed_channel_takes_nothing(sshd: Sshd) -> None:
    with SshTransport(sshd.access()) as transport:
        channel = transport._connection().session()
        channel.exec_command("sleep 5")
        channel.settimeout(0.2)
        with pytest.raises(TimeoutError):  # more than the window, and nobody reads it
            send_all(channel, bytes(8_000_000))
        channel.close()
        with pytest.raises(EOFError):
            send_all(channel, b"x")
