"""The settings of an access: checked, explained, and without a secret anywhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import SettingsError
from orchestrator.transports import SiteAccess, Timeouts, read_access
from orchestrator.transports.access import Secret, password


def test_what_a_chain_file_would_say() -> None:
    access = read_access(
        {
            "host": "Login.Centre.org",
            "port": 2222,
            "user": "daq",
            "key": "~/.ssh/farm",
            "known_hosts": "/etc/ssh/ssh_known_hosts",
            "jump": {"host": "gate", "user": "daq"},
            "timeouts": {"connect": "5 s", "stall": "2 min"},
        },
        "sites / lyon / access",
    )
    assert access.where == "daq@Login.Centre.org:2222" and access.known_name == "[login.centre.org]:2222"
    assert access.key == (Path("~/.ssh/farm").expanduser(),)
    assert access.jump is not None and access.jump.where == "daq@gate"
    assert (access.timeouts.connect, access.timeouts.stall) == (5.0, 120.0)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({}, "host: Field required"),
        ({"host": "h", "hots": 1}, "hots: is not known here"),
        ({"host": "h", "port": 0}, "port: "),
        ({"host": "u@h"}, "user and host are written apart"),
        ({"host": "-oProxyCommand=x"}, "is no name"),
        ({"host": "h", "timeouts": {"connect": "soon"}}, "is no duration"),
        ({"host": "h", "jump": {"host": "g", "password": "hunter2"}}, "write password_from"),
        ({"host": "h", "password": "hunter2"}, "write password_from"),
        ({"host": "h", "key_passphrase": "hunter2"}, "write password_from"),
        ({"host": "h", "password_from": "hunter2"}, "never is one"),
        ("hunter2", "write names and values"),
    ],
)
def test_a_fault_is_a_sentence_that_repeats_no_secret(data: object, sentence: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_access(data, "the access")
    assert sentence in str(caught.value) and str(caught.value).startswith("the access")
    assert "hunter2" not in str(caught.value) and caught.value.__cause__ is None


def test_every_setting_says_what_it_is_for() -> None:
    for model in (SiteAccess, Timeouts):
        assert all(field.description for field in model.model_fields.values())


def test_a_password_of_the_environment() -> None:
    assert password(None, {}) is None
    found = password("env:FARM", {"FARM": "hunter2"})
    assert found is not None and found.value == "hunter2"
    assert "hunter2" not in repr(found) + str(found)
    with pytest.raises(SettingsError, match="FARM, which is not set"):
        password("env:FARM", {})


def test_a_password_file_is_refused_unless_it_is_private(tmp_path: Path) -> None:
    file = tmp_path / "farm"
    file.write_text("hunter2\n")
    for mode in (0o644, 0o640, 0o604, 0o660):
        file.chmod(mode)
        with pytest.raises(SettingsError, match=f"mode {mode:04o}.*chmod 600"):
            password(f"file:{file}", {})
    file.chmod(0o600)
    assert password(f"file:{file}", {}) == Secret("hunter2")
    for content in (b"", b"two\nlines\n", b"\xff\xfe"):
        file.write_bytes(content)
        with pytest.raises(SettingsError, match="password file") as caught:
            password(f"file:{file}", {})
        assert "two" not in str(caught.value)
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        password(f"file:{tmp_path}/absent", {})
