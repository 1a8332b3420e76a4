"""SSH packets under AES-GCM, with a fraction of the library's work for each.

paramiko copies each packet seven times on its way out and asks the kernel for the random padding of each: at 32 KiB a
packet that takes longer than the encryption. Here a packet is put together once, sealed into a buffer that stays, and
several go to the socket in one call. What is on the wire is the same (RFC 4253, section 6; RFC 5647; OpenSSH's
PROTOCOL, section 1.6). Any other cipher goes the library's own way.
"""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import paramiko

from orchestrator.transports.stream import Stream

CHANNEL_DATA = 94  # SSH_MSG_CHANNEL_DATA, RFC 4254
_HEAD = struct.Struct(">BBII")  # length of the padding, kind of message, channel, length of the data
_BLOCK = 16  # bytes of AES; length and padding of a packet are chosen so that what is sealed is a multiple
_TAG = 16  # bytes that prove a packet
_AROUND = 64  # bytes around the data of a packet, at most: head, padding, tag
_DATA = 1 << 15  # bytes of data in a packet: what every server must take (RFC 4253, section 6.1); more gains nothing
_ROOM = (1 << 18) + (1 << 14)  # bytes sealed before they are sent: one write of SFTP with what is around it
_LONGEST = 1 << 20  # bytes of a packet that comes; OpenSSH sends 256 KiB at most
_RANDOM = 4096  # bytes of padding fetched at once

Piece = bytes | memoryview


class Data:
    """Pieces of data for one channel, each small enough for a packet of its own."""

    def __init__(self, channel: int, pieces: Sequence[Piece]) -> None:
        self.channel = channel
        self.pieces = pieces


class Packets(paramiko.Packetizer):
    """The library's, with a short way out for `Data` and a short way in."""

    #: Bytes after which new keys are agreed on: for AES far below what RFC 4344 allows (64 GB), and rare enough not to
    #: be felt by files of some GB.
    REKEY_BYTES = 1 << 32

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream)
        self._stream = stream
        self._sealing: Callable[[bytes, memoryview, bytes, memoryview], object] | None = None
        self._fixed, self._counter = b"", 0
        self.sealed = 0  # bytes sent under these keys
        self._opening: Callable[[bytes, bytes, bytes], bytes] | None = None
        self._fixed_in, self._counter_in = b"", 0
        self._opened, self._number_in = 0, 0
        self._one_at_a_time = threading.RLock()
        self._plain = memoryview(bytearray(1 << 16))
        self._out = memoryview(bytearray(_ROOM))
        self._random, self._used = b"", 0

    def set_outbound_cipher(
        self, block_engine: Any, *rest: Any, aead: bool = False, iv_out: bytes | None = None, **named: Any
    ) -> None:
        """Called by the library when new keys are agreed on; nobody sends data meanwhile."""
        with self._one_at_a_time:
            if not aead or iv_out is None:
                super().set_outbound_cipher(block_engine, *rest, **named)
                self._sealing = None
                return
            super().set_outbound_cipher(block_engine, *rest, aead=aead, iv_out=iv_out, **named)
            # RFC 5647, section 7.1: four bytes that stay, and a counter of the packets that begins anywhere.
            self._fixed, self._counter = iv_out[:4], int.from_bytes(iv_out[4:], "big")
            self.sealed = 0
            self._sealing = getattr(block_engine, "encrypt_into", None) or _copying(block_engine)

    def set_inbound_cipher(
        self, block_engine: Any, *rest: Any, aead: bool = False, iv_in: bytes | None = None, **named: Any
    ) -> None:
        """Called by the library, between two packets, when new keys are agreed on."""
        self._opening = None
        if not aead or iv_in is None:
            super().set_inbound_cipher(block_engine, *rest, **named)
            return
        super().set_inbound_cipher(block_engine, *rest, aead=aead, iv_in=iv_in, **named)
        self._fixed_in, self._counter_in = iv_in[:4], int.from_bytes(iv_in[4:], "big")
        self._opened = 0
        self._opening = block_engine.decrypt

    def reset_seqno_in(self) -> None:
        """Called by the library: packets are counted anew."""
        super().reset_seqno_in()
        self._number_in = 0

    def read_message(self) -> tuple[int, paramiko.Message]:
        """The next message, by the one thread that reads.

        Raises:
            paramiko.SSHException, cryptography's InvalidTag: what came is no packet, or not from the far end.
            EOFError: the connection has ended.
        """
        if self._opening is None:
            kind, message = super().read_message()
            self._number_in = (self._number_in + 1) & 0xFFFFFFFF
            return kind, message
        # What has come is taken as it is; the library waits for the rest, and sees to keys and time-outs meanwhile.
        head = self._stream.take(_BLOCK) or self.read_all(_BLOCK, check_rekey=True)
        size = int.from_bytes(head[:4], "big")
        if not _BLOCK <= size <= _LONGEST or size % _BLOCK:
            raise paramiko.SSHException(f"a packet of {size} bytes is no packet of SSH")
        sealed = head[4:] + (self._stream.take(size + 4) or self.read_all(size + 4))
        plain = self._opening(self._fixed_in + self._counter_in.to_bytes(8, "big"), sealed, head[:4])
        self._counter_in = (self._counter_in + 1) & 0xFFFFFFFFFFFFFFFF
        end = size - plain[0]
        if end < 2:
            raise paramiko.SSHException("a packet of SSH holds nothing but padding")
        message = paramiko.Message(plain[2:end])
        message.seqno = self._number_in  # answers to what nobody understands name it
        self._number_in = (self._number_in + 1) & 0xFFFFFFFF
        self._opened += size
        if self._opened >= self.REKEY_BYTES:
            if self._opened >= self.REKEY_BYTES + self.REKEY_BYTES_OVERFLOW_MAX:
                raise paramiko.SSHException("the far end does not agree on new keys")
            if not self.need_rekey():
                self._trigger_rekey()
        return plain[1], message

    def send_message(self, data: paramiko.Message | Data) -> None:
        """Sends a message, or a channel's data in several. Called by one thread or another."""
        with self._one_at_a_time:
            if self._sealing is None:
                self._send_plainly(data)
                return
            if isinstance(data, Data):
                end = 0
                for piece in data.pieces:
                    if end + len(piece) + _AROUND > len(self._out):
                        self._go(end)
                        end = 0
                    self._make_room(len(piece))
                    _HEAD.pack_into(self._plain, 0, 0, CHANNEL_DATA, data.channel, len(piece))
                    self._plain[_HEAD.size : _HEAD.size + len(piece)] = piece
                    end = self._seal(_HEAD.size - 1 + len(piece), end)
            else:
                payload = data.asbytes()
                self._make_room(len(payload))
                self._plain[1 : 1 + len(payload)] = payload
                end = self._seal(len(payload), 0)
            self._go(end)

    def _send_plainly(self, data: paramiko.Message | Data) -> None:
        if not isinstance(data, Data):
            super().send_message(data)
            return
        with self._stream.together():
            for message in _messages(data):
                super().send_message(message)

    def _make_room(self, size: int) -> None:
        """For a message that is longer than any before, of a server that takes such."""
        if size + _AROUND > len(self._plain):
            self._plain = memoryview(bytearray(size + _AROUND))
        if size + _AROUND > len(self._out):
            self._out = memoryview(bytearray(size + _AROUND))

    def _seal(self, payload: int, at: int) -> int:
        """Seals what stands in the plain buffer, behind the byte for the padding's length; where it ends."""
        assert self._sealing is not None
        padding = _BLOCK + 3 - (payload + 4) % _BLOCK  # at least four bytes
        self._plain[0] = padding
        if self._used + padding > len(self._random):
            self._random, self._used = os.urandom(_RANDOM), 0
        length = 1 + payload + padding
        self._plain[1 + payload : length] = self._random[self._used : self._used + padding]
        self._used += padding
        head, nonce = length.to_bytes(4, "big"), self._fixed + self._counter.to_bytes(8, "big")
        # A nonce is never used twice: it is gone before anything can go wrong with the packet that it was for.
        self._counter = (self._counter + 1) & 0xFFFFFFFFFFFFFFFF
        end = at + 4 + length + _TAG
        self._out[at : at + 4] = head
        self._sealing(nonce, self._plain[:length], head, self._out[at + 4 : end])
        return end

    def _go(self, end: int) -> None:
        """Sends what is sealed."""
        self.write_all(self._out[:end])
        self.sealed += end
        if self.sealed >= self.REKEY_BYTES and not self.need_rekey():
            self._trigger_rekey()


def _copying(engine: Any) -> Callable[[bytes, memoryview, bytes, memoryview], object]:
    """What seals into a buffer, where the engine itself cannot (cryptography of old)."""

    def into(nonce: bytes, plain: memoryview, head: bytes, out: memoryview) -> None:
        out[:] = engine.encrypt(nonce, plain, head)

    return into


def _messages(data: Data) -> list[paramiko.Message]:
    made = []
    for piece in data.pieces:
        message = paramiko.Message()
        message.add_byte(bytes([CHANNEL_DATA]))
        message.add_int(data.channel)
        message.add_string(bytes(piece))
        made.append(message)
    return made


def send_all(channel: paramiko.Channel, head: bytes, rest: memoryview | None = None) -> None:
    """Sends ``head`` and then ``rest`` through a channel, in as few calls of the system as its window allows.

    Raises:
        EOFError: the channel is closed.
        TimeoutError: the other side took nothing for as long as the channel's time-out says.
    """
    most = min(_DATA, channel.out_max_packet_size) - _AROUND
    first = b""
    if rest is not None and len(head) < most:
        first, rest = head + rest[: most - len(head)], rest[most - len(head) :]
    views = [memoryview(first or head), *(() if rest is None else (rest,))]
    while views:
        room = _window(channel, sum(map(len, views)))
        pieces: list[Piece] = []
        while room:
            view = views[0]
            piece = view[: min(most, room)]
            pieces.append(piece)
            room -= len(piece)
            if len(piece) == len(view):
                views.pop(0)
            else:
                views[0] = view[len(piece) :]
        channel.transport._send_user_message(Data(channel.remote_chanid, pieces))
        views = [view for view in views if view]


def _window(channel: paramiko.Channel, wanted: int) -> int:
    """Takes room for at most so many bytes from the channel's window; waits until there is some."""
    with channel.lock:
        until = None if channel.timeout is None else time.monotonic() + channel.timeout
        while True:
            if channel.closed or channel.eof_sent:
                raise EOFError
            if channel.out_window_size:
                taken = min(wanted, channel.out_window_size)
                channel.out_window_size -= taken
                return int(taken)
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError("timeout")
            channel.out_buffer_cv.wait(left)
