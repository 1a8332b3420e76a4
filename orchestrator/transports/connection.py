"""One SSH connection: the socket, the jump host before it, the host key's check, the login."""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import paramiko

from orchestrator.transports import hostkeys
from orchestrator.transports.access import SiteAccess, password
from orchestrator.transports.errors import LoginRefused, TransportError, TransportUnavailable
from orchestrator.transports.packets import Packets
from orchestrator.transports.stream import Stream
from orchestrator.transports.watch import Limit, Watch

#: AES-GCM first: with the processor's help it is three times as fast as the ciphers that paramiko prefers.
_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
_DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")
_PACKET = 1 << 18  # bytes of the largest packet we take; OpenSSH's own limit
_BUSY_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)  # s before a session is asked for again
_AGENT_KEYS = 4  # keys of an agent that are tried: a server ends the connection after six attempts

# The library writes traces of every lost connection to its log. Each of them becomes an error here, so they are not
# needed twice.
_QUIET = "orchestrator.transports.paramiko"
logging.getLogger(_QUIET).setLevel(logging.CRITICAL + 1)

#: What the library raises when the other side is gone, in one place or another.
LOST = (paramiko.SSHException, EOFError, OSError)


class Connection:
    """A connection that is logged in. Made by `Connection.open`; given up for good once it is lost."""

    def __init__(self, access: SiteAccess) -> None:
        self.access = access
        self.where = access.where
        self.why_ended = ""
        self._jump: Connection | None = None
        self._socket: socket.socket | paramiko.Channel | None = None
        self._stream: Stream | None = None
        self._transport: paramiko.Transport | None = None
        self.watch = Watch(self._end)

    @classmethod
    def open(cls, access: SiteAccess, environ: Mapping[str, str] = os.environ) -> Connection:
        """Connects and logs in.

        Raises:
            TransportUnavailable: not reached, or no answer in time.
            HostKeyRefused, LoginRefused: reached, and refused.
            SettingsError: the password's source cannot be read.
        """
        made = cls(access)
        try:
            if access.jump is not None:
                made._jump = cls.open(access.jump, environ)
            made._greet()
            made._log_in(environ)
        except BaseException:
            made.close()
            raise
        return made

    # ---- in use

    @property
    def transport(self) -> paramiko.Transport:
        if self._transport is None:
            raise TransportUnavailable(f"there is no connection to {self.where}")
        return self._transport

    @property
    def stream(self) -> Stream:
        """What its packets go through."""
        if self._stream is None:
            raise TransportUnavailable(f"there is no connection to {self.where}")
        return self._stream

    @property
    def alive(self) -> bool:
        return self._transport is not None and self._transport.is_active() and not self.why_ended

    @property
    def server(self) -> str:
        """What the server calls itself, such as ``SSH-2.0-OpenSSH_9.2p1``."""
        return str(self.transport.remote_version)

    def session(self) -> paramiko.Channel:
        """A new channel for one command or subsystem."""
        seconds = self.access.timeouts.login
        with self.guarded("open a session", seconds, "new session"):
            for pause in (*_BUSY_PAUSES, None):
                try:
                    channel = self.transport.open_session(max_packet_size=_PACKET, timeout=seconds)
                except paramiko.SSHException as error:
                    # The server allows so many sessions, and one that has just been closed may still be counted. Of two
                    # threads that are refused at once the library tells only one so; the other gets the bare sentence.
                    refused = isinstance(error, paramiko.ChannelException) or "Unable to open" in str(error)
                    if pause is None or not refused or not self.alive:
                        raise
                    threading.Event().wait(pause)
                else:
                    channel.settimeout(seconds)
                    return channel
            raise AssertionError("not reached: the last try raises or returns")

    @contextmanager
    def guarded(self, doing: str, seconds: float, what: str, *, perhaps_done: bool = False) -> Iterator[Limit]:
        """Turns what the library raises when a connection is lost or too slow into TransportUnavailable.

        Args:
            doing: how the sentence goes on after "could not".
            seconds: the longest silence; ``what`` names what is missing then.
        """
        with self.watch.limit(seconds, what) as limit:
            try:
                yield limit
            except TransportError:
                raise
            except LOST as error:
                raise self.failed(error, doing, limit, perhaps_done=perhaps_done) from error

    def failed(self, error: Exception, doing: str, limit: Limit, *, perhaps_done: bool = False) -> TransportUnavailable:
        """The error for what the library raised; a time-out ends the connection, since nobody knows what comes next."""
        if isinstance(error, TimeoutError) or "timeout" in str(error).lower():
            self._end(f"no {limit.what} within {limit.seconds:g} s")
        return self.lost(doing, str(error), perhaps_done=perhaps_done)

    def lost(self, doing: str, detail: str = "", *, perhaps_done: bool = False) -> TransportUnavailable:
        """The error for an operation that the connection did not survive."""
        why = self.why_ended or detail.rstrip(". ") or "the connection was cut"
        return TransportUnavailable(
            f"could not {doing} ({self.where}): {why}; tried again later", perhaps_done=perhaps_done
        )

    def close(self) -> None:
        self.watch.close()
        with suppress(*LOST):
            if self._transport is not None:
                self._transport.close()
        with suppress(*LOST):
            if self._socket is not None:
                self._socket.close()
        if self._jump is not None:
            self._jump.close()

    def _end(self, why: str) -> None:
        """Frees whoever waits, by making the socket useless first: the library's own close may wait, too."""
        self.why_ended = self.why_ended or why
        if self._jump is not None:
            self._jump._end(why)  # or our own good-bye would wait for room in it
        if isinstance(self._socket, socket.socket):
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        self.close()

    # ---- making

    def _greet(self) -> None:
        """Socket, key exchange, host key."""
        access, waits = self.access, self.access.timeouts
        self._socket = self._connect()
        self._stream = Stream(self._socket)
        with self.guarded("agree on keys", waits.banner + 1, "answer of an SSH server"):
            transport = self._transport = paramiko.Transport(self._stream, packetizer_class=Packets)
            transport.set_log_channel(_QUIET)
            transport.banner_timeout = transport.handshake_timeout = waits.banner
            transport.auth_timeout = transport.channel_timeout = waits.login
            transport.clear_to_send_timeout = waits.stall
            chosen = transport.get_security_options()
            have = [name for name in _CIPHERS if name in chosen.ciphers]
            chosen.ciphers = (*have, *(name for name in chosen.ciphers if name not in have))
            chosen.key_types = hostkeys.key_types(access.known_hosts, access.known_name, tuple(chosen.key_types))
            transport.start_client(timeout=waits.banner)
            key = transport.get_remote_server_key()
        hostkeys.check(access.known_hosts, access.known_name, self.where, key.get_name(), key.asbytes())
        transport.set_keepalive(max(1, int(waits.keepalive)))

    def _connect(self) -> socket.socket | paramiko.Channel:
        access, waits = self.access, self.access.timeouts
        if self._jump is not None:
            jump = self._jump
            with jump.guarded(
                f"reach {access.host} port {access.port} through the jump host", waits.connect, "connection"
            ):
                return jump.transport.open_channel(
                    "direct-tcpip", (access.host, access.port), ("127.0.0.1", 0), timeout=waits.connect
                )
        try:
            made = socket.create_connection((access.host, access.port), timeout=waits.connect)
        except OSError as error:
            why = "no answer" if isinstance(error, TimeoutError) else error.strerror or str(error)
            raise TransportUnavailable(
                f"{self.where} cannot be reached (port {access.port}): {why}; tried again later"
            ) from error
        # Without it each small request waits for the answer to the one before (40 ms, Nagle's algorithm).
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # the kernel's own end of a dead peer
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(waits.stall * 1000))
        return made

    def _log_in(self, environ: Mapping[str, str]) -> None:
        access = self.access
        tried: list[str] = []
        with self.guarded("log in", access.timeouts.login * 2, "decision about the login"):
            for name, use in self._ways(environ, tried):
                tried.append(name)
                try:
                    further = use()
                except paramiko.BadAuthenticationType as error:
                    tried[-1] += f" (it takes only {', '.join(error.allowed_types)})"
                    continue
                except paramiko.AuthenticationException as error:
                    if not self.transport.is_active() or "timeout" in str(error).lower():
                        raise TransportUnavailable(
                            f"{self.where} ended the connection during the login: {error}"
                        ) from error
                    continue
                if self.transport.is_authenticated():
                    return
                tried[-1] += f" (taken, but it also asks for {', '.join(further or ['more'])})"
        means = f"tried: {', '.join(tried)}" if tried else "there is no key, no agent and no password to try"
        raise LoginRefused(
            f"{self.where} refused the login ({means}): put the public key into the account's authorized_keys, "
            "or correct user, key or password_from"
        )

    def _ways(self, environ: Mapping[str, str], problems: list[str]) -> Iterator[tuple[str, Callable[[], list[str]]]]:
        """The ways to log in, cheapest first, each with a name for the error."""
        access, transport = self.access, self.transport
        for path in access.key or [Path("~/.ssh").expanduser() / name for name in _DEFAULT_KEYS]:
            if not access.key and not path.is_file():
                continue
            key = _load(path)
            if isinstance(key, str):
                problems.append(key)
                continue
            yield f"key {path}", partial(transport.auth_publickey, access.user, key)
        if access.agent:
            with suppress(*LOST):
                for number, held in enumerate(paramiko.Agent().get_keys()[:_AGENT_KEYS], 1):
                    yield f"agent's key {number}", partial(transport.auth_publickey, access.user, held)
        if (secret := password(access.password_from, environ)) is not None:
            yield "password", partial(transport.auth_password, access.user, secret.value)


def _load(path: Path) -> paramiko.PKey | str:
    """A private key, or why it cannot be used."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            return f"key {path} (not used: others can read it, mode {mode:04o}: chmod 600 it)"
        return paramiko.PKey.from_path(path)
    except paramiko.PasswordRequiredException:
        return f"key {path} (has a passphrase: add it to an SSH agent with ssh-add)"
    except (OSError, ValueError, TypeError, paramiko.SSHException, paramiko.UnknownKeyType) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOENT:
            return f"key {path} (there is no such file)"
        if "password" in str(error).lower() or "passphrase" in str(error).lower():
            return f"key {path} (has a passphrase: add it to an SSH agent with ssh-add)"
        return f"key {path} (cannot be read as a private key)"
