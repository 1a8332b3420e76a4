"""User and password of the database's account: from the environment, or from a file that only its owner can read.

Never from a URL or a command line: both end up in logs and process lists.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.errors import SettingsError

USER = "ORCHESTRATOR_COUCH_USER"
PASSWORD = "ORCHESTRATOR_COUCH_PASSWORD"
FORMAT = (
    'write {"username": "...", "password": "..."}, or two lines with the user and the password, '
    "or lines username = ... and password = ..."
)


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user's name and password. Printing it shows no password."""

    username: str
    password: str = field(repr=False)

    def __post_init__(self) -> None:
        if not self.username or ":" in self.username:
            raise SettingsError("A user name is not empty and has no ':' in it (basic authentication forbids it)")


def load_credentials(path: Path | str | None, environ: Mapping[str, str]) -> Credentials | None:
    """The account to use: the environment's if it is there, else the file's, else None.

    Args:
        path: the credentials file, mode 0600; None if there is none.
        environ: the environment: ORCHESTRATOR_COUCH_USER and ORCHESTRATOR_COUCH_PASSWORD win over the file.

    Raises:
        SettingsError: only one of the two variables is set; the file is missing, readable by others, or not of
            one of the three forms.
    """
    user, password = environ.get(USER), environ.get(PASSWORD)
    if user and password is not None:
        return Credentials(user, password)
    if user or password:
        raise SettingsError(f"{USER} and {PASSWORD} go together: set both, or neither")
    if path is None:
        return None
    path = Path(path)
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(_mode(file.fileno()))
            if mode & 0o077:
                raise SettingsError(
                    f"Credentials file {path} can be read by others (mode {mode:04o}): chmod 600 '{path}'"
                )
            content = file.read(65536)
    except FileNotFoundError as error:
        raise SettingsError(f"There is no credentials file {path}: make it with mode 0600 and {FORMAT}") from error
    except OSError as error:
        raise SettingsError(f"Credentials file {path} cannot be read: {error.strerror}") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SettingsError(f"Credentials file {path} is not UTF-8 text: {FORMAT}") from error
    return _parsed(text, path)


def _mode(descriptor: int) -> int:
    return os.fstat(descriptor).st_mode  # of the file that is open, not of one put in its place meanwhile


def _parsed(text: str, path: Path) -> Credentials:
    wrong = SettingsError(f"Credentials file {path} has no user and password in a known form: {FORMAT}")
    if text.lstrip().startswith("{"):
        try:
            content = json.loads(text)
        except ValueError:
            raise SettingsError(f"Credentials file {path} is not valid JSON: {FORMAT}") from None
        user, password = content.get("username"), content.get("password")
        if not isinstance(user, str) or not isinstance(password, str):
            raise wrong
        return Credentials(user, password)
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith(("#", ";"))]
    if lines and lines[0].strip().startswith("[") and lines[0].strip().endswith("]"):
        del lines[0]
    pairs = {}
    for line in lines:
        name, equals, value = line.partition("=")
        if equals and name.strip().lower() in ("username", "user", "password"):
            pairs[name.strip().lower()] = value.strip()
    user, password = pairs.get("username", pairs.get("user")), pairs.get("password")
    if user and password is not None:
        return Credentials(user, password)
    plain = [line for line in text.splitlines() if line.strip()]
    named = plain and ("=" in plain[0] or plain[0].lstrip().startswith("["))
    if len(plain) == 2 and not pairs and not named:
        return Credentials(plain[0].strip(), plain[1].strip())
    raise wrong
