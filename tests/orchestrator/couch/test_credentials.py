"""Credentials come from the environment or from a private file, and say how when they do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.couch import Credentials, load_credentials
from orchestrator.errors import SettingsError

ENVIRONMENT = {"ORCHESTRATOR_COUCH_USER": "env", "ORCHESTRATOR_COUCH_PASSWORD": "from env"}


def written(folder: Path, text: str | bytes, mode: int = 0o600) -> Path:
    path = folder / "credentials"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    "text",
    [
        '{"username": "jürgen", "password": "p w=1"}',
        "\ufeff" + '{"password": "p w=1", "username": "jürgen", "note": 1}',
        "jürgen\np w=1\n",
        "username = jürgen\npassword = p w=1\n",
        "[couchdb]\n# a comment\n; another\nuser=jürgen\r\n\r\npassword=p w=1",
    ],
)
def test_the_three_forms_of_a_file(tmp_path: Path, text: str) -> None:
    assert load_credentials(written(tmp_path, text), {}) == Credentials("jürgen", "p w=1")


def test_the_environment_wins(tmp_path: Path) -> None:
    assert load_credentials(tmp_path / "absent", ENVIRONMENT) == Credentials("env", "from env")
    assert load_credentials(None, {}) is None


@pytest.mark.parametrize("missing", ["ORCHESTRATOR_COUCH_USER", "ORCHESTRATOR_COUCH_PASSWORD"])
def test_half_an_environment_is_an_error(missing: str) -> None:
    environment = {name: value for name, value in ENVIRONMENT.items() if name != missing}
    with pytest.raises(SettingsError, match="go together"):
        load_credentials(None, environment)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o601])
def test_a_file_that_others_can_read_is_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    path = written(tmp_path, "a\nb", mode)
    with pytest.raises(SettingsError, match=f"chmod 600 '{path}'"):
        load_credentials(path, {})


@pytest.mark.parametrize("text", ["", "one line", "{}", '{"username": 1, "password": 2}', "{nonsense", "a\nb\nc",
                                  "username = x", b"\xff\xfe\x00", "[section]\nkey = value",
                                  "usr = a\npwd = b"])  # fmt: skip
def test_a_file_of_another_form_says_which_form(tmp_path: Path, text: str | bytes) -> None:
    with pytest.raises(SettingsError, match="username") as caught:
        load_credentials(written(tmp_path, text), {})
    assert str(tmp_path / "credentials") in str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="0600"):
        load_credentials(tmp_path / "absent", {})
    with pytest.raises(SettingsError, match="directory"):
        load_credentials(tmp_path, {})


def test_printing_shows_no_password() -> None:
    assert "secret" not in repr(Credentials("user", "secret"))
    with pytest.raises(SettingsError):
        Credentials("a:b", "secret")
