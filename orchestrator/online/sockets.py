"""Sockets of a site on its own machine: files in a folder that is closed to other accounts.

An address ``ipc://NAME`` without a folder means such a file. Whoever may not enter the folder cannot connect, so these
need no key, and two sites on one machine do not get in each other's way.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import stat
from pathlib import Path

from orchestrator.errors import Conflict, SettingsError

SCHEME = "ipc://"
FOLDER = Path("online") / "sockets"  # in the site's folder
LONGEST = 100  # bytes of a socket's path; the kernel takes 107
ELSEWHERE = Path("/tmp")  # a folder in it is made with mode 0700, and checked to be ours


def settled(address: str, site: Path) -> str:
    """The address with its folder: in the site, or, where that lies too deep for a socket, a private one elsewhere."""
    name = address.removeprefix(SCHEME)
    if name == address or "/" in name:
        return address
    path = site / FOLDER / name
    if len(os.fsencode(path)) > LONGEST:
        tail = hashlib.sha256(os.fsencode(site)).hexdigest()[:16]
        path = ELSEWHERE / f"{_prefix()}{tail}" / name
    return f"{SCHEME}{path}"


def must_be_free(address: str, what: str) -> None:
    """Raises Conflict where somebody listens at the address of a file; ``what`` has it in the configuration."""
    if not address.startswith(SCHEME):
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as trial:
        trial.settimeout(1.0)
        trial.connect(address.removeprefix(SCHEME))
        raise Conflict(f"{address} ({what}) is in use by another program: end that, or choose another address")


def prepare(address: str, what: str) -> None:
    """Before a socket is bound: its folder is there, and closed to others if it is one of ours.

    Raises:
        Conflict: somebody listens there already.
        SettingsError: the folder cannot be made, or belongs to somebody else.
    """
    must_be_free(address, what)
    folder = Path(address.removeprefix(SCHEME)).parent
    ours = folder.parts[-2:] == FOLDER.parts or (folder.parent == ELSEWHERE and folder.name.startswith(_prefix()))
    if not (address.startswith(SCHEME) and ours):
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise SettingsError(f"{folder} is not a folder of this account: remove it, or set another {what}")
        if stat.S_IMODE(found.st_mode) != 0o700:
            folder.chmod(0o700)
    except OSError as error:
        raise SettingsError(
            f"the folder {folder} for {what} cannot be made: {error.strerror}; correct that, or set it to "
            "tcp://127.0.0.1:PORT with a key"
        ) from None


def _prefix() -> str:
    return f"orchestrator-{os.geteuid()}-"
