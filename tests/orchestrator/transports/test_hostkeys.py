"""known_hosts files: what OpenSSH would take is taken, and nothing else; every refusal says what to do."""

from __future__ import annotations

import base64
import hashlib
import hmac
from pathlib import Path

import pytest

from orchestrator.transports.errors import HostKeyRefused
from orchestrator.transports.hostkeys import check, fingerprint, key_types, known_keys

BLOB = b"\0\0\0\x0bssh-ed25519" + b"k" * 36
OTHER = b"\0\0\0\x0bssh-ed25519" + b"o" * 36


def line(names: str, blob: bytes = BLOB, kind: str = "ssh-ed25519", marker: str = "") -> str:
    return f"{marker}{names} {kind} {base64.b64encode(blob).decode()} a comment\n"


def hashed(name: str) -> str:
    salt = b"s" * 20
    sign = hmac.new(salt, name.encode(), hashlib.sha1).digest()
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(sign).decode()}"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "known_hosts"


def verdict(file: Path, name: str, blob: bytes = BLOB) -> str:
    try:
        check(file, name, f"user@{name}", "ssh-ed25519", blob)
    except HostKeyRefused as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("names", "name"),
    [
        ("centre.org", "centre.org"),
        ("other,centre.org,192.0.2.1", "centre.org"),
        ("[centre.org]:2222", "[centre.org]:2222"),
        ("*.centre.org", "login.centre.org"),
        ("login?.centre.org", "login1.centre.org"),
        ("CENTRE.org", "centre.org"),
        (hashed("centre.org"), "centre.org"),
        (hashed("[centre.org]:2222"), "[centre.org]:2222"),
    ],
)
def test_a_known_key_is_taken(file: Path, names: str, name: str) -> None:
    file.write_text("# a comment\n\nnonsense\n" + line("elsewhere", OTHER) + line(names))
    assert verdict(file, name) == ""
    assert "the key has changed" in verdict(file, name, OTHER)


@pytest.mark.parametrize(
    "names",
    ["centre.org.evil", "!centre.org,*.org", "[centre.org]:2222", "centre?org?", hashed("centre.com"), "|1|x|y"],
)
def test_a_line_for_another_machine_does_not_count(file: Path, names: str) -> None:
    file.write_text(line(names))
    assert "knows no key of this machine" in verdict(file, "centre.org")


def test_the_sentence_for_an_unknown_machine_names_everything(file: Path) -> None:
    text = verdict(file, "[centre.org]:2222")
    for word in (
        "user@[centre.org]:2222",
        fingerprint(BLOB),
        str(file),
        "compare",
        "ssh-keyscan -p 2222 centre.org >>",
    ):
        assert word in text
    assert "-p" not in verdict(file, "centre.org")


def test_the_sentence_for_a_changed_key_names_both_and_the_line(file: Path) -> None:
    file.write_text("\n" + line("centre.org", OTHER))
    text = verdict(file, "centre.org")
    for word in (
        fingerprint(BLOB),
        fingerprint(OTHER),
        f"line 2 of {file}",
        "has changed",
        "ssh-keygen -R 'centre.org'",
    ):
        assert word in text


def test_a_revoked_key_is_refused_though_another_line_has_it(file: Path) -> None:
    file.write_text(line("centre.org") + line("*", marker="@revoked "))
    assert "revoked" in verdict(file, "centre.org")


def test_a_certificate_authority_vouches_for_nothing(file: Path) -> None:
    file.write_text(line("centre.org", marker="@cert-authority "))
    assert "knows no key" in verdict(file, "centre.org")


def test_the_machine_is_asked_for_a_key_that_can_be_checked(file: Path) -> None:
    offered = ("ecdsa-sha2-nistp256", "ssh-ed25519", "rsa-sha2-512")
    file.write_text(line("centre.org", kind="ssh-rsa"))
    assert key_types(file, "centre.org", offered)[0] == "rsa-sha2-512"
    assert key_types(file, "elsewhere", offered) == offered


def test_fingerprints_look_like_those_of_ssh_keygen() -> None:
    assert fingerprint(b"") == "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU"


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HostKeyRefused, match="cannot be read"):
        known_keys(tmp_path, "centre.org")
