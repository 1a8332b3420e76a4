"""Encrypted, authenticated connections between machines, from one secret that both have in a file.

Loopback needs no key. Any other address does, and who lacks it reaches nothing: the key pairs of ZeroMQ's CURVE are
made from the secret, the listening side's and the connecting side's each by a hash of its own, and the listening side
lets in that one key only. Whoever has the file may connect; nobody else may, or may read along.
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq
from zmq.utils import z85

from orchestrator.errors import SettingsError

SHORTEST = 32  # characters of a secret; `orchestrator online key` writes 64, of 256 random bits
LONGEST = 4096
Secure = Callable[[Any], None]  # gives a socket its keys, before it binds or connects


def make(path: Path) -> None:
    """Write a new secret, readable by its owner alone. Raises SettingsError where the file is there already."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise SettingsError(f"{path} is there already: remove it first if its key shall not be used any more") from None
    except OSError as error:
        raise SettingsError(f"{path} cannot be written: {error.strerror}") from None
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secrets.token_hex(32) + "\n")


class Keys:
    """The key pairs that follow from one secret.

    Args:
        path: the file with the secret.

    Raises:
        SettingsError: it is not there, too short, or others may read it.
    """

    def __init__(self, path: Path) -> None:
        text = _secret(path)
        self._server, self.server_key = _pair(b"online listening side\0" + text)
        self._client, self.client_key = _pair(b"online connecting side\0" + text)

    def listening(self, socket: Any) -> None:
        """Before a socket binds: nobody without the key gets in. Its context needs :meth:`door` open."""
        socket.curve_server = True
        socket.curve_secretkey = self._server
        socket.curve_publickey = self.server_key
        socket.zap_domain = b"online"

    def connecting(self, socket: Any) -> None:
        """Before a socket connects."""
        socket.curve_serverkey = self.server_key
        socket.curve_secretkey = self._client
        socket.curve_publickey = self.client_key

    @contextlib.contextmanager
    def door(self, context: Any) -> Any:
        """While it is entered, a context's listening sockets ask here whether a key is the right one."""
        from zmq.auth.thread import ThreadAuthenticator  # with asyncio behind it: for those who listen only

        keeper = ThreadAuthenticator(context)
        keeper.start()
        try:
            keeper.configure_curve_callback("online", credentials_provider=self)
            yield self
        finally:
            keeper.stop()

    def callback(self, domain: str, key: bytes) -> bool:
        """Whether a key that knocks, as ZeroMQ writes keys, is the one (what the authenticator calls)."""
        return secrets.compare_digest(key, self.client_key)


def keys_for(key: Path | None, *addresses: str) -> Keys | None:
    """The keys that these addresses need; None where there is no key and all are loopback.

    Raises SettingsError for an address beyond loopback without a key, for a key file that cannot be used, and where
    ZeroMQ was built without encryption.
    """
    open_ones = [address for address in addresses if not is_loopback(address)]
    if key is None:
        if open_ones:
            raise SettingsError(
                f"{open_ones[0]} can be reached from other machines and so needs a key: make one with `orchestrator "
                "online key FILE` and name it in `workers.key`, or use tcp://127.0.0.1:PORT"
            )
        return None
    if not zmq.has("curve"):
        raise SettingsError(
            "this machine's ZeroMQ was built without encryption (CURVE), so keys cannot be used: install pyzmq from "
            "its wheel, or use loopback addresses without a key"
        )
    return Keys(key)


def is_loopback(address: str) -> bool:
    """Whether a ZeroMQ address can be reached from this machine only."""
    if address.startswith(("ipc://", "inproc://")):
        return True
    host = address.removeprefix("tcp://").rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # *, an interface's name, a host's name: reachable for others as far as one can tell from here


def _secret(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise SettingsError(
            f"the key {path} is not there: make one with `orchestrator online key {path}` and copy it to each machine"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"the key {path} cannot be read: {error}") from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise SettingsError(f"others may read the key {path}: `chmod 600 {path}`, and make a new one if others did")
    if not SHORTEST <= len(text) <= LONGEST:
        raise SettingsError(f"the key {path} has {len(text)} characters; it needs {SHORTEST} to {LONGEST}")
    return text.encode()


def _pair(text: bytes) -> tuple[bytes, bytes]:
    secret = z85.encode(hashlib.sha256(text).digest())  # any 32 bytes are a secret key of Curve25519
    if not zmq.has("curve"):
        return secret, b""
    return secret, bytes(zmq.curve_public(secret))
