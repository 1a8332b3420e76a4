"""Which host key a machine must show: known_hosts files as OpenSSH writes them (sshd(8), its section on the format).

Read here, and not by paramiko, since that one knows no ``@revoked``, no patterns and no negations, and takes a line
that it cannot read for one that is not there.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from orchestrator.transports.errors import HostKeyRefused


@dataclass(frozen=True)
class KnownKey:
    """One line that fits a machine: type and blob of the key, where it stands, and whether it is revoked."""

    kind: str
    blob: bytes
    line: int
    revoked: bool = False


def fingerprint(blob: bytes) -> str:
    """``SHA256:...`` as ssh-keygen -l prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def known_keys(path: Path, name: str) -> list[KnownKey]:
    """The keys that ``path`` has for a machine; none if there is no such file.

    Args:
        name: ``host``, or ``[host]:port`` where the port is not 22.

    Raises:
        HostKeyRefused: the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise HostKeyRefused(
            f"the file of known hosts {path} cannot be read ({error.strerror}): correct its mode or known_hosts"
        ) from error
    return [key for number, line in enumerate(text.splitlines(), 1) for key in _of_line(line, number, name)]


def _of_line(line: str, number: int, name: str) -> Iterator[KnownKey]:
    words = line.split()
    marker = words.pop(0) if words and words[0].startswith("@") else ""
    if len(words) < 3 or words[0].startswith("#") or marker not in ("", "@revoked"):
        return  # certificate authorities are not supported: such a line vouches for nothing here
    if not _fits(words[0], name):
        return
    try:
        blob = base64.b64decode(words[2], validate=True)
    except (binascii.Error, ValueError):
        return
    yield KnownKey(words[1], blob, number, revoked=marker == "@revoked")


def _fits(patterns: str, name: str) -> bool:
    if patterns.startswith("|1|"):  # ssh-keygen -H: HMAC-SHA1 of the name, with a salt
        try:
            salt, wanted = (base64.b64decode(part, validate=True) for part in patterns[3:].split("|"))
        except (binascii.Error, ValueError):
            return False
        return hmac.compare_digest(hmac.new(salt, name.encode(), hashlib.sha1).digest(), wanted)
    found = False
    for pattern in patterns.lower().split(","):
        # Only * and ? mean anything in OpenSSH; the brackets of [host]:port are plain letters.
        plain = pattern.lstrip("!").replace("[", "[[]")
        if fnmatchcase(name, plain):
            if pattern.startswith("!"):
                return False
            found = True
    return found


def check(path: Path, name: str, where: str, kind: str, blob: bytes) -> None:
    """Nothing, if the machine's key is known. The sentence otherwise names host, fingerprint, file, and what to do.

    Raises:
        HostKeyRefused: not known, another than the known one, or revoked.
    """
    keys = known_keys(path, name)
    shows = f"{where} shows the host key {kind} {fingerprint(blob)}"
    host, _, port = name.lstrip("[").partition("]:")
    scan = f"ssh-keyscan {f'-p {port} ' if port else ''}{host} >> {path}"
    if any(key.revoked and key.blob == blob for key in keys):
        raise HostKeyRefused(f"{shows}, which {path} marks as revoked: do not connect; ask the site for its new key")
    if any(key.blob == blob for key in keys if not key.revoked):
        return
    known = [key for key in keys if not key.revoked]
    if not known:
        raise HostKeyRefused(
            f"{shows}, and {path} knows no key of this machine: compare the fingerprint with the one that the site "
            f"publishes, then add the key with: {scan}"
        )
    old = known[0]
    raise HostKeyRefused(
        f"{shows}, but line {old.line} of {path} has {old.kind} {fingerprint(old.blob)}: the key has changed. Somebody "
        f"may be in between: ask the site. If the new one is right: ssh-keygen -R '{name}' -f {path}, then {scan}"
    )


def key_types(path: Path, name: str, offered: tuple[str, ...]) -> tuple[str, ...]:
    """The types to ask for: those whose keys are known first, so that the machine shows one that can be checked."""
    known = {key.kind for key in known_keys(path, name) if not key.revoked}
    if "ssh-rsa" in known:
        known |= {"rsa-sha2-512", "rsa-sha2-256"}
    return tuple(sorted(offered, key=lambda kind: kind not in known))
