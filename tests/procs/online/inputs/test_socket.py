"""A DAQ at the socket: nothing lost, nothing twice, strangers kept out."""

from __future__ import annotations

import json
import socket
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.embedded.testing import Link
from orchestrator.errors import Conflict, DataError, SettingsError, Unavailable
from orchestrator.online.packing import MAGIC, pack
from orchestrator.online.spill import EndOfRun, Item, Spill, StartOfRun
from procs.online.inputs import daq_protocol as protocol
from procs.online.inputs import socket as module
from procs.online.inputs.daq_protocol import Frames
from procs.online.inputs.socket import SocketInput
from procs.simulation.socket_daq import Sender

SECONDS = 30.0  # longer than any of this takes


class Receiver:
    """An input in a thread of its own; ``position`` is what is stored of it."""

    def __init__(self, position: Any = None, store: bool = True, port: int = 0, **settings_: Any) -> None:
        self.source = SocketInput({"address": f"tcp://127.0.0.1:{port}", **settings_})
        self.items: list[Item] = []
        self.position = position
        self.store = store
        self.moving = threading.Event()
        self.moving.set()
        self.error: BaseException | None = None
        self._stop = threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(SECONDS)

    def _run(self) -> None:
        try:
            for item in self.source.items(self.position):
                self._ready.set()
                if self._stop.is_set():
                    return
                if item is not None:
                    self.items.append(item)
                    if self.store:
                        self.position = json.loads(json.dumps(self.source.position))
                        self.source.safe(self.position)
                    self.moving.wait(SECONDS)
        except BaseException as error:
            self.error = error
            self._ready.set()

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.source.port}"

    def stop(self) -> None:
        self._stop.set()
        self.moving.set()
        self._thread.join(SECONDS)

    def spills(self) -> list[tuple[str, int, bytes]]:
        return [(one.run, one.number, one.data["raw"]["bytes"]) for one in self.items if isinstance(one, Spill)]


@contextmanager
def receiver(**options: Any) -> Iterator[Receiver]:
    found = Receiver(**options)
    try:
        yield found
    finally:
        found.stop()


def send_run(daq: Sender, run: str, spills: int, size: int = 100) -> list[tuple[str, int, bytes]]:
    daq.start(run, 5.0, {"beam": "mu+"})
    sent = []
    for number in range(spills):
        data = bytes([number % 251]) * size
        daq.spill(run, number, data, 5.0 + number)
        sent.append((run, number, data))
    daq.end(run, 100.0, spills)
    return sent


def test_runs_and_spills_arrive_as_they_were_sent() -> None:
    with receiver() as here, Sender(here.address) as daq:
        sent = send_run(daq, "6008", 20) + send_run(daq, "6009", 3, size=400_000)
        daq.finish(SECONDS)
        assert here.spills() == sent and daq.waiting == 0
    marks = [item for item in here.items if not isinstance(item, Spill)]
    assert marks[:2] == [StartOfRun("6008", 5.0, {"beam": "mu+"}), EndOfRun("6008", "trailer", 100.0, 20)]


def test_a_message_is_kept_until_it_is_stored() -> None:
    with receiver(store=False) as here, Sender(here.address) as daq:
        send_run(daq, "1", 5)
        with pytest.raises(Unavailable, match="7 messages"):
            daq.finish(0.3)
        here.source.safe({"streams": {daq.stream: 3}})
        with pytest.raises(Unavailable, match="3 messages"):
            daq.finish(0.3)
        here.source.safe(here.source.position)
        daq.finish(SECONDS)


def test_structured_data_arrive_as_arrays() -> None:
    with receiver() as here, Sender(here.address) as daq:
        daq.spill("1", 0, pack({"hits": np.arange(5, dtype=np.int32)}), packed=True)
        daq.finish(SECONDS)
    (spill,) = here.items
    assert isinstance(spill, Spill) and spill.data["hits"].tolist() == [0, 1, 2, 3, 4]


def test_cuts_in_the_middle_lose_nothing_and_repeat_nothing() -> None:
    with receiver() as here, Link(here.source.port) as link, Sender(f"tcp://127.0.0.1:{link.port}") as daq:
        sent = []
        for run in range(6):
            sent += send_run(daq, str(run), 10, size=30_000 * run)
            link.cut()
            daq.work()
            link.mend()
        daq.finish(SECONDS)
        assert daq.connections > 1
    assert here.spills() == sent


def test_a_receiver_that_was_killed_gets_the_rest_from_its_last_position() -> None:
    with Receiver_of_two() as (first, daq):
        sent = send_run(daq, "1", 10)
        daq.finish(SECONDS)
        saved, port = first.position, first.source.port
        first.store = False  # from here on it takes, and dies before anything is stored
        sent += send_run(daq, "2", 10)
        while len(first.spills()) < 15:
            daq.work(0.01)
        first.stop()
        with receiver(position=saved, port=port) as second:
            daq.finish(SECONDS)
            assert first.spills()[:10] + second.spills() == sent
            assert [type(item) for item in second.items[:1]] == [StartOfRun]


@contextmanager
def Receiver_of_two() -> Iterator[tuple[Receiver, Sender]]:
    here = Receiver()
    with Sender(here.address) as daq:
        yield here, daq
    here.stop()


def test_what_was_acknowledged_is_not_asked_for_again_though_its_position_was_not_written_down() -> None:
    here = Receiver()
    with Sender(here.address) as daq:
        send_run(daq, "1", 4)
        daq.finish(SECONDS)
        here.stop()
        older = {"streams": {daq.stream: 2}}
        with receiver(position=older, port=here.source.port) as again:
            sent = send_run(daq, "2", 2)
            daq.finish(SECONDS)
            assert again.spills() == sent


def test_a_daq_that_is_started_again_with_the_same_messages_goes_on_where_it_was() -> None:
    with receiver() as here:
        with Sender(here.address, stream="file-1") as daq:
            sent = send_run(daq, "1", 5)
            daq.finish(SECONDS)
        with Sender(here.address, stream="file-1") as daq:
            daq.connect()
            assert send_run(daq, "1", 5) == sent
            daq.finish(SECONDS)
            sent += send_run(daq, "2", 2)
            daq.finish(SECONDS)
            assert daq.connections == 1
        assert here.spills() == sent


def test_what_was_taken_and_is_not_stored_yet_is_not_sent_again_by_a_daq_that_is_started_again() -> None:
    with receiver(store=False) as here:
        with Sender(here.address, stream="file-1") as daq:
            sent = send_run(daq, "1", 5)
            while len(here.items) < 7:
                daq.work(0.01)
        with Sender(here.address, stream="file-1") as daq:
            daq.connect()
            send_run(daq, "1", 5)
            sent += send_run(daq, "2", 1)
            while len(here.items) < 10:
                daq.work(0.01)
            assert daq.connections == 1 and daq.waiting == 10
            here.source.safe(here.source.position)
            daq.finish(SECONDS)
        assert here.spills() == sent


def test_a_connection_that_nobody_closed_is_taken_over_by_the_same_daq() -> None:
    with receiver() as here, Link(here.source.port) as link:
        dead = Sender(f"tcp://127.0.0.1:{link.port}", stream="daq")
        dead.start("1")
        dead.finish(SECONDS)
        link.stall()  # its machine has lost its power: no word, no end
        with Sender(here.address, stream="daq") as daq:
            daq.start("1")
            daq.spill("1", 0, b"x")
            daq.finish(SECONDS)
        dead.close()
    assert here.spills() == [("1", 0, b"x")]


def test_a_second_daq_is_told_that_there_is_one() -> None:
    with receiver() as here, Sender(here.address, stream="one") as one:
        one.start("1")
        one.finish(SECONDS)
        with Sender(here.address, stream="two") as two:
            with pytest.raises(Unavailable, match="nobody takes what is to be sent: another DAQ is connected"):
                two.connect(0.1)
            two.start("2")
            with pytest.raises(Unavailable, match="another DAQ is connected: one from"):
                two.finish(0.4)
            one.close()
            two.finish(SECONDS)


def test_a_receiver_that_does_not_take_holds_up_the_daq_and_not_its_memory() -> None:
    with receiver() as here, Sender(here.address, keep=2_000_000) as daq:
        here.moving.clear()
        done = threading.Event()

        def send() -> None:
            for number in range(300):
                daq.spill("1", number, bytes(100_000))
            daq.finish(SECONDS)
            done.set()

        thread = threading.Thread(target=send, daemon=True)
        thread.start()
        assert not done.wait(0.5)
        here.moving.set()
        assert done.wait(SECONDS)
        assert [number for _, number, _ in here.spills()] == list(range(300))


def key(path: Path, mode: int = 0o600, text: str = "s" * 40) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_who_does_not_know_the_key_is_kept_out(tmp_path: Path) -> None:
    right, wrong = key(tmp_path / "a"), key(tmp_path / "b", text="t" * 40)
    with receiver(key=str(right)) as here:
        for keys in (None, wrong):
            with Sender(here.address, key=keys) as daq:
                daq.start("1")
                with pytest.raises(Unavailable, match="does not know the key"):
                    daq.finish(0.4)
        with Sender(here.address, key=right) as daq:
            daq.start("1")
            daq.finish(SECONDS)
        assert len(here.items) == 1


def test_keys_and_addresses_that_let_everybody_in_are_refused(tmp_path: Path) -> None:
    for address in ("tcp://0.0.0.0:5620", "tcp://*:5620", "192.168.1.1:5620", "tcp://daq.example:1"):
        with pytest.raises(SettingsError, match="needs a key"):
            SocketInput({"address": address})
        SocketInput({"address": address, "key": str(key(tmp_path / "k"))})
    with pytest.raises(SettingsError, match="others may read"):
        SocketInput({"key": str(key(tmp_path / "open", 0o640))})
    with pytest.raises(SettingsError, match="needs 32"):
        SocketInput({"key": str(key(tmp_path / "short", text="abc"))})
    with pytest.raises(SettingsError, match="online key"):
        SocketInput({"key": str(tmp_path / "none")})
    with pytest.raises(SettingsError, match="is no address"):
        SocketInput({"address": "nowhere"})


def test_an_address_that_cannot_be_listened_at_is_said_before_the_start(tmp_path: Path) -> None:
    assert "may connect to" in SocketInput({"address": "tcp://127.0.0.1:0"}).check()
    with receiver() as here, pytest.raises(Conflict, match="choose another port"):
        SocketInput({"address": here.address}).check()
    elsewhere = SocketInput({"address": "tcp://203.0.113.7:5620", "key": str(key(tmp_path / "key"))})
    with pytest.raises(SettingsError, match="one of this machine's"):
        elsewhere.check()


def test_a_port_that_is_taken_is_said_in_one_sentence() -> None:
    with receiver() as here, pytest.raises(Conflict, match="cannot be opened"):
        next(iter(SocketInput({"address": here.address}).items()))


@pytest.mark.parametrize(
    "words",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        struct.pack("<IcI", 2**31, b"H", 4),
        struct.pack("<IcI", 9, b"H", 4) + b"[12]",
        protocol.encoded(b"H", {"protocol": 99, "stream": "x"}),
        protocol.encoded(b"H", {"protocol": 1, "stream": "../x"}),
        protocol.encoded(b"S", {"sequence": 0, "run": "1", "number": 0}, b"data"),
    ],
)
def test_a_stranger_is_sent_away_and_the_daq_is_still_welcome(words: bytes) -> None:
    with receiver() as here:
        with socket.create_connection(("127.0.0.1", here.source.port), timeout=SECONDS) as stranger:
            stranger.sendall(words)
            frames = Frames(1 << 20)
            while data := stranger.recv(65536):
                frames.feed(data)
            assert [frame.kind for frame in frames] == [protocol.CHALLENGE, protocol.ERROR]
        with Sender(here.address) as daq:
            daq.start("1")
            daq.finish(SECONDS)
        assert len(here.items) == 1 and here.error is None


@pytest.mark.parametrize(
    ("kind", "head", "said"),
    [
        (b"S", {"run": "1", "number": -1}, "has no number"),
        (b"S", {"run": "1", "number": True}, "has no number"),
        (b"S", {"run": "", "number": 1}, "names no run"),
        (b"S", {"run": "1", "number": 1, "sequence": 7}, "is missing"),
        (b"S", {"run": "1", "number": 1, "sequence": "7"}, "has no sequence"),
        (b"C", {"run": "1", "number": 1}, "not expected"),
    ],
)
def test_a_message_that_is_none_ends_the_connection_with_the_reason(
    kind: bytes, head: dict[str, Any], said: str
) -> None:
    with receiver() as here, Sender(here.address) as daq:
        daq.start("1")
        daq.finish(SECONDS)
        frame = protocol.encoded(kind, {"sequence": 1, **head}, b"data")
        daq._kept.append((1, frame))
        with pytest.raises(Unavailable, match=said):
            daq.finish(0.4)
        assert len(here.items) == 1 and here.error is None


@settings(max_examples=50, deadline=None)
@given(
    bodies=st.lists(st.binary(max_size=50), min_size=1, max_size=5),
    cuts=st.lists(st.integers(0, 500), max_size=6),
)
def test_frames_come_out_whole_however_the_bytes_come(bodies: list[bytes], cuts: list[int]) -> None:
    data = b"".join(protocol.encoded(b"S", {"n": n}, body) for n, body in enumerate(bodies))
    frames, found, start = Frames(10_000), [], 0
    for stop in [*sorted(cuts), len(data)]:
        frames.feed(data[start:stop])
        start = max(start, stop)
        found += list(frames)
    assert [(frame.head["n"], frame.body) for frame in found] == list(enumerate(bodies))


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=60))
def test_any_bytes_are_frames_or_refused(data: bytes) -> None:
    frames = Frames(1000)
    frames.feed(data)
    try:
        list(frames)
    except DataError as error:
        assert str(error)


@pytest.mark.parametrize(
    "head", [b"[" * 4000, json.dumps({"protocol": 1, "stream": "d", "answer": "\u00e9"}).encode(), b"\xff"]
)
def test_a_strangers_odd_first_words_are_refused_and_the_daq_goes_on(head: bytes, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("s" * 40)
    key.chmod(0o600)
    with receiver(key=str(key)) as there:
        with socket.create_connection(("127.0.0.1", there.source.port), SECONDS) as stranger:
            stranger.settimeout(SECONDS)
            stranger.sendall(struct.pack("<IcI", 5 + len(head), b"H", len(head)) + head)
            while stranger.recv(4096):
                pass
        assert there.error is None
        with socket.create_connection(("127.0.0.1", there.source.port), SECONDS) as another:
            assert another.recv(1)


def test_many_who_say_nothing_do_not_use_up_the_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("procs.online.inputs.socket.STRANGERS", 3)
    with receiver() as there:
        silent = [socket.create_connection(("127.0.0.1", there.source.port), SECONDS) for _ in range(6)]
        for one in silent:
            one.settimeout(SECONDS)
        assert [one.recv(1) and _hung_up(one) for one in silent[:3]] == [True] * 3
        for one in silent:
            one.close()
        assert there.error is None


def _hung_up(one: socket.socket) -> bool:
    try:
        while one.recv(4096):
            pass
    except ConnectionResetError:
        pass
    return True


@pytest.mark.parametrize("when", [10**400, float("inf"), float("nan"), -1e300])
def test_a_time_that_is_none_is_left_out(when: float) -> None:
    frame = protocol.Frame(protocol.START, {"run": "1", "time": when})
    assert module._item(frame, 0.0) == StartOfRun("1", None, {})


ARRAY = b'{"$array":["i4,(",[1],0]}'


@pytest.mark.parametrize(
    ("head", "body", "why"),
    [
        ({"packed": True}, b"data", "it cannot be unpacked: "),
        ({"packed": True}, MAGIC + len(ARRAY).to_bytes(4, "little") + ARRAY, "it cannot be unpacked: "),
        ({"packed": True}, pack([1, 2]), "it is packed, and not as a dictionary"),
        ({"crc32": 5}, b"data", "spill 0 of run 1 arrived with other bytes than were sent, twice"),
    ],
    ids=["no magic", "odd array", "no dictionary", "checksum"],
)
def test_a_spill_that_is_damaged_is_a_failed_one_with_its_bytes_and_the_daq_goes_on(
    head: dict[str, Any], body: bytes, why: str
) -> None:
    with receiver() as here, Sender(here.address) as daq:
        daq._kept.append((0, protocol.encoded(b"S", {"sequence": 0, "run": "1", "number": 0, **head}, body)))
        daq._next = 1
        daq.spill("1", 1, b"good")
        daq.finish(SECONDS)
    bad, good = here.items
    assert isinstance(bad, Spill) and bad.errors["input"].startswith(why) and bad.data["raw"]["bytes"] == body
    assert isinstance(good, Spill) and good.errors == {}


def test_a_spill_that_was_damaged_on_its_way_is_whole_when_it_comes_again() -> None:
    with receiver() as here, Sender(here.address) as daq:
        head = {"sequence": 0, "run": "1", "number": 0, "crc32": zlib.crc32(b"good")}
        whole = protocol.encoded(b"S", head, b"good")
        daq._kept.append((0, whole[:-1] + b"?"))
        with pytest.raises(Unavailable, match="other bytes than were sent"):
            daq.finish(0.4)
        daq._kept[0] = (0, whole)
        daq.finish(SECONDS)
    assert here.spills() == [("1", 0, b"good")] and here.items[0].errors == {}  # type: ignore[union-attr]


@pytest.mark.parametrize("described", [["i4,(", [1], 0], ["U0", [2**50], 0], ["f8", [-1], 0]])
def test_arrays_that_are_none_are_told_in_a_sentence(described: list[Any]) -> None:
    tree = json.dumps({"$array": described}).encode()
    body = MAGIC + len(tree).to_bytes(4, "little") + tree
    made = module._item(protocol.Frame(protocol.SPILL, {"run": "1", "number": 0, "packed": True}, body), 0.0)
    assert isinstance(made, Spill) and "damaged" in made.errors["input"]
