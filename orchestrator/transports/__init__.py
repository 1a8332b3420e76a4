"""Ways to a site's machine: commands and files, here (`LocalTransport`) or through SSH (`SshTransport`).

`Transport` is the contract. `transport_to(access)` gives the one that fits; `SiteAccess` holds the settings. Everything
that goes wrong is an error of `orchestrator.transports.errors`, and the line that matters runs between
`TransportUnavailable` (nothing may be concluded; try again) and the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.transports.access import SiteAccess, Timeouts, read_access
from orchestrator.transports.base import Transport
from orchestrator.transports.errors import (
    FileRefused,
    HostKeyRefused,
    LoginRefused,
    NoShell,
    TransportError,
    TransportRefused,
    TransportUnavailable,
)
from orchestrator.transports.local import LocalTransport
from orchestrator.transports.model import Answer, Entry, Sent, Space

if TYPE_CHECKING:
    from orchestrator.transports.ssh import SshTransport

__all__ = [
    "Answer",
    "Entry",
    "FileRefused",
    "HostKeyRefused",
    "LocalTransport",
    "LoginRefused",
    "NoShell",
    "Sent",
    "SiteAccess",
    "Space",
    "SshTransport",
    "Timeouts",
    "Transport",
    "TransportError",
    "TransportRefused",
    "TransportUnavailable",
    "read_access",
    "transport_to",
]


def transport_to(access: SiteAccess | None) -> Transport:
    """The transport to a site: this machine's where it has no access. Connects when it is first used."""
    if access is None:
        return LocalTransport()
    from orchestrator.transports.ssh import SshTransport

    return SshTransport(access)


def __getattr__(name: str) -> Any:
    # The SSH library takes 0.1 s and 15 MB: a process that stays on this machine does without it.
    if name == "SshTransport":
        from orchestrator.transports.ssh import SshTransport

        return SshTransport
    raise AttributeError(name)
