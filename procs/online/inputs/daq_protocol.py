"""How a DAQ and the live system speak: frames over TCP, each message acknowledged when it is stored.

A frame: its length in bytes without this field (4 bytes), its kind (1 byte, an ASCII letter), the length of its head
(4 bytes), the head (JSON, an object), and the body, which is the rest. Numbers are little-endian.

    listener  C  {"protocol": 1, "nonce": "<hex>"}                          as soon as somebody connects
    DAQ       H  {"protocol": 1, "stream": "daq1-4f1c", "answer": "<hex>", "safe": 12}    who it is
    listener  W  {"taken": 17, "safe": 12}                                  go on after 17; null: from your first
    DAQ       R  {"sequence": 18, "run": "6008", "time": 1423848144.5, "header": {}}      a run begins
    DAQ       S  {"sequence": 19, "run": "6008", "number": 0, "time": 1423848148.5}       a spill; body: its bytes
    DAQ       E  {"sequence": 20, "run": "6008", "time": 1423848164.7, "spills": 1}       it has ended
    listener  A  {"safe": 20}                                               stored up to here: may be forgotten
    either    X  {"error": "a sentence"}                                    and hangs up

``sequence`` counts a stream's messages without a gap. A DAQ keeps each message until it is safe; after a broken
connection it connects again, says up to where all is safe, and sends what was not taken. A stream's name stands for its
messages: who counts anew takes a new name. ``answer`` is the HMAC-SHA256 of the nonce with the secret, or empty where
the listener has none, so the secret itself never travels; what is sent is not encrypted. A spill's head may have
``crc32``, the checksum of the body. Standard library only, so that a DAQ can take this file along.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import re
import secrets
import stat
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import DataError, SettingsError

PROTOCOL = 1
CHALLENGE, HELLO, WELCOME, START, SPILL, END, SAFE, ERROR = b"C", b"H", b"W", b"R", b"S", b"E", b"A", b"X"
KINDS = frozenset((CHALLENGE, HELLO, WELCOME, START, SPILL, END, SAFE, ERROR))
MESSAGES = frozenset((START, SPILL, END))  # those that have a sequence and are acknowledged
LARGEST_HEAD = 1 << 20  # bytes; a run's header of a megabyte is a mistake
LARGEST_HELLO = 4096  # bytes of a frame of somebody who has not said who he is
SHORTEST_SECRET = 32  # characters
_FIXED = struct.Struct("<IcI")
_STREAM = re.compile(r"[A-Za-z0-9_.:+-]{1,80}\Z")


@dataclass(frozen=True, slots=True)
class Frame:
    """One message."""

    kind: bytes
    head: dict[str, Any]
    body: bytes = b""


def encoded(kind: bytes, head: Mapping[str, Any], body: bytes = b"") -> bytes:
    """A frame as it travels. Raises DataError for a head that is not JSON."""
    try:
        text = json.dumps(head, allow_nan=False, separators=(",", ":")).encode("utf-8")
    except (TypeError, ValueError) as error:
        raise DataError(f"a message's head is not JSON: {error}") from error
    return _FIXED.pack(5 + len(text) + len(body), kind, len(text)) + text + body


class Frames:
    """Takes bytes as they come and gives out whole frames.

    Args:
        largest: bytes of one frame; may be changed.
    """

    def __init__(self, largest: int) -> None:
        self.largest = largest
        self._held = bytearray()

    def feed(self, data: bytes | memoryview) -> None:
        """Some more bytes."""
        self._held += data

    def __iter__(self) -> Iterator[Frame]:
        """The frames that are whole now. Raises DataError for what is none."""
        while (frame := self.next()) is not None:
            yield frame

    def next(self) -> Frame | None:
        """The first frame, if all of it is here. Raises DataError."""
        if len(self._held) < _FIXED.size:
            return None
        length, kind, size = _FIXED.unpack_from(self._held)
        if kind not in KINDS:
            raise DataError(f"a frame of kind {kind!r}: this is not the DAQ's protocol")
        if length < 5 + size or size > LARGEST_HEAD:
            raise DataError(f"a frame of {length} bytes with a head of {size}: this is not the DAQ's protocol")
        if length > self.largest:
            raise DataError(f"a frame of {length} bytes; the most that is taken is {self.largest}")
        stop = 4 + length
        if len(self._held) < stop:
            return None
        start = _FIXED.size + size
        try:
            head = json.loads(self._held[_FIXED.size : start])
        except (ValueError, RecursionError) as error:  # thousands of brackets are the latter
            raise DataError(f"a frame's head is not JSON: {error}") from error
        if not isinstance(head, dict):
            raise DataError("a frame's head is no JSON object")
        body = bytes(memoryview(self._held)[start:stop])
        del self._held[:stop]
        return Frame(kind, head, body)


def checked_stream(name: Any) -> str:
    """A stream's name. Raises DataError."""
    if not isinstance(name, str) or not _STREAM.match(name):
        raise DataError(f"{str(name)[:80]!r} cannot name a stream: use letters, digits and _.:+-, 80 at most")
    return name


def new_nonce() -> str:
    """What a listener asks to be answered to; never the same twice."""
    return secrets.token_hex(16)


def answer(secret: str, nonce: str) -> str:
    """What proves that one knows the secret; empty without one."""
    return hmac.new(secret.encode(), nonce.encode(), hashlib.sha256).hexdigest() if secret else ""


def right(secret: str, nonce: str, given: Any) -> bool:
    """Whether an answer is the right one."""
    known = isinstance(given, str) and given.isascii()  # ``compare_digest`` raises for other text
    return not secret or (known and hmac.compare_digest(answer(secret, nonce), given))


def secret_of(path: str | Path | None) -> str:
    """The secret in a file; empty where there is no file. Raises SettingsError for a file that others may read."""
    if not path:
        return ""
    path = Path(path)
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise SettingsError(f"the key {path} is not there: make one with `orchestrator online key {path}`") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"the key {path} cannot be read: {error}") from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise SettingsError(f"others may read the key {path}: `chmod 600 {path}`, and make a new one if others did")
    if len(text) < SHORTEST_SECRET:
        raise SettingsError(f"the key {path} has {len(text)} characters; it needs {SHORTEST_SECRET} at least")
    return text


def address_of(text: str) -> tuple[str, int]:
    """Host and port of ``tcp://HOST:PORT`` (or ``HOST:PORT``); ``*`` is every address. Raises SettingsError."""
    host, colon, port = str(text).removeprefix("tcp://").rpartition(":")
    host = host.strip("[]")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise SettingsError(f"{text!r} is no address: write tcp://127.0.0.1:5620")
    return ("" if host == "*" else host), int(port)


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
