"""How a machine is logged in to: where a password comes from that no settings may hold. The settings: `SiteAccess`."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.access import SiteAccess, Timeouts, read_access
from orchestrator.errors import SettingsError

__all__ = ["Secret", "SiteAccess", "Timeouts", "password", "read_access"]


@dataclass(frozen=True, slots=True)
class Secret:
    """A password. Printing it shows nothing."""

    value: str = field(repr=False)

    def __str__(self) -> str:
        return "<secret>"


def password(source: str | None, environ: Mapping[str, str]) -> Secret | None:
    """The password that ``password_from`` points at; None where it is not set.

    Raises:
        SettingsError: the variable is not set; the file is missing, empty, or can be read by others.
    """
    if source is None:
        return None
    kind, _, rest = source.partition(":")
    if kind == "env":
        if not environ.get(rest):
            raise SettingsError(
                f"password_from names the environment variable {rest}, which is not set: set it, or use a key"
            )
        return Secret(environ[rest])
    path = Path(rest).expanduser()
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & 0o077:
                raise SettingsError(
                    f"the password file {path} can be read by others (mode {mode:04o}): chmod 600 '{path}'"
                )
            text = file.read(4096).decode("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise SettingsError(f"the password file {path} cannot be read: {reason}") from None
    if not text or "\n" in text:
        raise SettingsError(f"the password file {path} must hold one line, the password, and nothing else")
    return Secret(text)
