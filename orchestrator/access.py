"""How a machine is reached by SSH, as a chain file or a step's settings say it: no secret in it, only where one is.

Pure: what is written stays as it is written (``~``, a user who is left out), so that it means the same to whoever reads
the chain; `SiteAccess.resolved` says what it comes to for this account on this machine. The secret itself is read in
``orchestrator.transports``.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from orchestrator.errors import SettingsError
from orchestrator.units import Model, seconds

_SECRET_WORDS = ("password", "passphrase", "secret", "token")


def duration(value: Any) -> float:
    """A duration in seconds. Raises ValueError, without the value."""
    try:
        return seconds(value)
    except ValueError:  # whose own words repeat the value
        raise ValueError("is no duration: write a number and s, min, h or day, such as '10 s'") from None


def _paths(value: Any) -> Any:
    return (value,) if isinstance(value, str | os.PathLike) else value


Duration = Annotated[float, BeforeValidator(duration), Field(gt=0)]


class Timeouts(Model):
    """No wait for another machine is longer than these."""

    connect: Duration = Field(10.0, description="until the machine takes the connection")
    banner: Duration = Field(15.0, description="until it answers as an SSH server and has agreed on keys")
    login: Duration = Field(
        30.0, description="until it has decided about a login; slow where accounts are kept far away"
    )
    command: Duration = Field(60.0, description="for a command that is given no time of its own")
    stall: Duration = Field(60.0, description="without a single byte or answer, while a file is transferred")
    keepalive: Duration = Field(15.0, description="between two signs of life on an idle connection")


class SiteAccess(Model):
    """An account on a machine, and how to be sure of both."""

    host: str = Field(min_length=1, description="name or address of the machine")
    port: int = Field(22, ge=1, le=65535, description="port of its SSH server")
    user: str = Field("", description="the account there; empty: of the same name as here")
    known_hosts: Path = Field(
        Path("~/.ssh/known_hosts"),
        description="file with the machine's host key, as OpenSSH writes it; a machine that is not in it is refused",
    )
    key: Annotated[tuple[Path, ...], BeforeValidator(_paths)] = Field(
        (), description="files of private keys to log in with, readable only by their owner; without it, "
        "~/.ssh/id_ed25519, id_ecdsa and id_rsa where they exist",
    )  # fmt: skip
    agent: bool = Field(True, description="whether keys of a running SSH agent are tried too (after the files)")
    password_from: str | None = Field(
        None,
        description="where the password is, if the machine takes no key: 'env:NAME' for a variable of the "
        "environment or 'file:/path' for a file of mode 0600 with nothing else in it",
    )
    jump: SiteAccess | None = Field(None, description="another machine to go through, with the same settings")
    sessions: int = Field(
        6, ge=1, le=100, description="commands and file sessions at once on the connection; OpenSSH allows 10 by "
        "default, and two are kept for the transport itself",
    )  # fmt: skip
    timeouts: Timeouts = Field(default_factory=Timeouts, description="no wait is longer than these")

    @model_validator(mode="before")
    @classmethod
    def _no_secrets(cls, data: Any) -> Any:
        for name in data if isinstance(data, Mapping) else ():
            if any(word in str(name).lower() for word in _SECRET_WORDS) and name != "password_from":
                raise ValueError(
                    f"{name!r} does not belong here, since this is stored and shown: "
                    "write password_from: env:NAME or file:/path, or use a key"
                )
        return data

    @field_validator("host", "user")
    @classmethod
    def _plain(cls, value: str) -> str:
        if not value.isprintable() or any(c.isspace() for c in value) or "@" in value or value.startswith("-"):
            # The value itself is not repeated: user:password@host has been seen here.
            raise ValueError("is no name: user and host are written apart, without spaces and without @")
        return value

    @field_validator("password_from")
    @classmethod
    def _source(cls, value: str | None) -> str | None:
        kind, _, rest = (value or "").partition(":")
        if value is not None and (kind not in ("env", "file") or not rest):
            # Nor here: somebody may have written the password.
            raise ValueError("must be 'env:NAME' or 'file:/path': it says where the password is and never is one")
        return value

    def resolved(self) -> Self:
        """The same for this account on this machine: the user's name, and paths from the root."""
        return self.model_copy(
            update={
                "user": self.user or getpass.getuser(),
                "known_hosts": self.known_hosts.expanduser(),
                "key": tuple(path.expanduser() for path in self.key),
                "jump": self.jump.resolved() if self.jump is not None else None,
            }
        )

    @property
    def where(self) -> str:
        """``user@host``, with the port where it is not 22."""
        user = f"{self.user}@" if self.user else ""
        return f"{user}{self.host}" + (f":{self.port}" if self.port != 22 else "")

    @property
    def known_name(self) -> str:
        """The machine's name in a known_hosts file."""
        return self.host.lower() if self.port == 22 else f"[{self.host.lower()}]:{self.port}"


def read_access(data: Any, place: str) -> SiteAccess:
    """A checked and resolved SiteAccess of what a settings file says.

    Raises:
        SettingsError: one sentence for each fault, which begins with ``place`` and never repeats a value.
    """
    if not isinstance(data, Mapping):
        raise SettingsError(f"{place}: write names and values, at least host: and user:")
    try:
        return SiteAccess.model_validate(dict(data)).resolved()
    except ValidationError as error:
        faults = []
        for fault in error.errors(include_input=False, include_url=False):
            name = " / ".join([place, *map(str, fault["loc"])])
            message = fault["msg"].removeprefix("Value error, ")
            if fault["type"] == "extra_forbidden":
                message = f"is not known here (known: {', '.join(SiteAccess.model_fields)})"
            faults.append(f"{name}: {message}")
        raise SettingsError("; ".join(faults)) from None
