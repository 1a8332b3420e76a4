"""How a site's machine is reached by SSH: settings without a secret in them, and where the secret comes from."""

from __future__ import annotations

import getpass
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from orchestrator.errors import SettingsError

_SECRET_WORDS = ("password", "passphrase", "secret", "token")


def _duration(value: Any) -> float:
    from orchestrator.chain import seconds  # here, since the chain's sites may hold an access one day

    return seconds(value)


def _path(value: Any) -> Any:
    return Path(value).expanduser() if isinstance(value, str | os.PathLike) else value


def _paths(value: Any) -> Any:
    return (value,) if isinstance(value, str | os.PathLike) else value


Duration = Annotated[float, BeforeValidator(_duration), Field(gt=0)]
LocalPath = Annotated[Path, BeforeValidator(_path)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Timeouts(_Model):
    """No wait for another machine is longer than these."""

    connect: Duration = Field(10.0, description="until the machine takes the connection")
    banner: Duration = Field(15.0, description="until it answers as an SSH server and has agreed on keys")
    login: Duration = Field(
        30.0, description="until it has decided about a login; slow where accounts are kept far away"
    )
    command: Duration = Field(60.0, description="for a command that is given no time of its own")
    stall: Duration = Field(60.0, description="without a single byte or answer, while a file is transferred")
    keepalive: Duration = Field(15.0, description="between two signs of life on an idle connection")


class SiteAccess(_Model):
    """An account on a machine, and how to be sure of both."""

    host: str = Field(min_length=1, description="name or address of the machine")
    port: int = Field(22, ge=1, le=65535, description="port of its SSH server")
    user: str = Field(
        default_factory=getpass.getuser,
        min_length=1,
        description="the account there; by default of the same name as here",
    )
    known_hosts: LocalPath = Field(
        default_factory=lambda: Path("~/.ssh/known_hosts").expanduser(),
        description="file with the machine's host key, as OpenSSH writes it; a machine that is not in it is refused",
    )
    key: Annotated[tuple[LocalPath, ...], BeforeValidator(_paths)] = Field(
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
            raise ValueError(f"{value!r} is no name: user and host are written apart, without spaces")
        return value

    @field_validator("password_from")
    @classmethod
    def _source(cls, value: str | None) -> str | None:
        kind, _, rest = (value or "").partition(":")
        if value is not None and (kind not in ("env", "file") or not rest):
            # The value itself is not repeated: somebody may have written the password.
            raise ValueError("must be 'env:NAME' or 'file:/path': it says where the password is and never is one")
        return value

    @property
    def where(self) -> str:
        """``user@host``, with the port where it is not 22."""
        return f"{self.user}@{self.host}" + (f":{self.port}" if self.port != 22 else "")

    @property
    def known_name(self) -> str:
        """The machine's name in a known_hosts file."""
        return self.host.lower() if self.port == 22 else f"[{self.host.lower()}]:{self.port}"


def read_access(data: Any, place: str) -> SiteAccess:
    """A checked SiteAccess of what a settings file says.

    Raises:
        SettingsError: one sentence for each fault, which begins with ``place`` and never repeats a value.
    """
    if not isinstance(data, Mapping):
        raise SettingsError(f"{place}: write names and values, at least host: and user:")
    try:
        return SiteAccess.model_validate(dict(data))
    except ValidationError as error:
        faults = []
        for fault in error.errors(include_input=False, include_url=False):
            name = " / ".join([place, *map(str, fault["loc"])])
            message = fault["msg"].removeprefix("Value error, ")
            if fault["type"] == "extra_forbidden":
                message = f"is not known here (known: {', '.join(SiteAccess.model_fields)})"
            faults.append(f"{name}: {message}")
        raise SettingsError("; ".join(faults)) from None


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
