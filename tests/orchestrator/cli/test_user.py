"""``user`` on the command line: a password comes from a file or standard input; ``check`` says who is who."""

from __future__ import annotations

import io
import json
import stat
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
import requests

from orchestrator.embedded.security import write_credentials
from orchestrator.embedded.testing import EmbeddedServer
from orchestrator.errors import Exit


@pytest.fixture(autouse=True)
def _no_accounts_left(server: EmbeddedServer, site: Any) -> Any:
    yield
    for one in site("user", "list", "--json").json:
        site("user", "remove", one["name"])


def test_add_list_roles_password_remove(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    file = site.folder / "password"
    file.write_text("a long password\n")
    file.chmod(0o600)
    made = site("user", "add", "ann", "--role", "operator", "--password-file", str(file))
    assert (made.code, "a long password" in made.out + made.err) == (0, False), made.err
    assert site("user", "list", "--json").json == [{"name": "ann", "roles": ["operator"]}]
    assert site("user", "roles", "ann", "operator", "site:here").code == 0
    assert "operator, site:here" in site("user", "roles", "ann").out
    assert site("user", "roles", "ann", "--none", "--json").json == {"name": "ann", "roles": []}
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"another password\n")))
    assert site("user", "password", "ann", "--password-file", "-").code == 0
    assert site("user", "remove", "ann").code == 0
    assert site("user", "list", "--json").json == []


def test_a_password_is_made_and_kept_in_a_file_that_only_its_owner_reads(site: Any, server: EmbeddedServer) -> None:
    file = site.folder / "ann.json"
    made = site("user", "add", "ann", "--generate", str(file))
    assert made.code == 0 and stat.S_IMODE(file.stat().st_mode) == 0o600
    login = json.loads(file.read_text())
    assert login["password"] not in made.out + made.err
    answer = requests.get(f"{server.url}/_session", auth=(login["username"], login["password"]), timeout=10)
    assert answer.json()["userCtx"]["name"] == "ann"
    assert site("user", "add", "bob", "--generate", str(file)).code == 3, "no file is written over"


def test_words_that_cannot_be(site: Any) -> None:
    file = site.folder / "password"
    file.write_text("a long password\n")
    file.chmod(0o644)
    assert "chmod 600" in site("user", "add", "ann", "--password-file", str(file)).err
    file.chmod(0o600)
    assert "did you mean 'operator'" in site("user", "add", "a", "--role", "operater", "--password-file", str(file)).err
    assert "cannot be an account's name" in site("user", "add", "a:b", "--password-file", str(file)).err
    assert site("user", "add", "ann").code == 2, "no terminal, no password"
    assert site("user", "remove", "nobody").code == 6
    assert site("user", "roles", "nobody").code == 6
    file.write_text("short\n")
    refused = site("user", "add", "ann", "--password-file", str(file))
    assert refused.code == 3 and "short" not in refused.err.replace("shortest", "")
    assert site("user", "list", "--json").json == []


def test_check_says_which_daemon_would_be_an_admin(
    site: Any, server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def accounts() -> list[dict[str, Any]]:
        found = site("check", "--json").json["findings"]
        return [one for one in found if one["subject"] == "account"]

    [finding] = accounts()
    assert finding["level"] == "warning" and "server admin" in finding["text"] and "poller" in finding["text"]
    made = site("user", "setup", "--json").json
    assert {one["what"] for one in made} == {"made"}
    # The tests' login stands in the environment, and that wins over the files; a site's own stands in a file.
    for name in ("USER", "PASSWORD"):
        monkeypatch.delenv(f"ORCHESTRATOR_COUCH_{name}")
    write_credentials(site.folder / "credentials.json", server.credentials._asdict())
    assert {one["level"] for one in accounts()} == {"ok"}
    assert any("poller" in one["text"] and "site:here" in one["text"] for one in accounts())
    poller = next(one["name"] for one in made if one["daemon"] == "poller")
    site("user", "roles", poller, "viewer")
    assert any(one["level"] == "problem" and "lacks the role site:here" in one["text"] for one in accounts())
    site("user", "remove", poller)
    assert any(one["level"] == "problem" and "not accepted" in one["text"] for one in accounts())
    assert site("user", "setup").code == 0
    assert {one["level"] for one in accounts()} == {"ok"}


def test_no_credentials_file_is_left_of_what_the_database_refuses(site: Any, tmp_path: Path) -> None:
    file = tmp_path / "new.json"
    name = f"ann-{uuid.uuid4().hex[:8]}"
    assert site("user", "add", name, "--generate", str(tmp_path / "first.json")).code == 0
    assert site("user", "add", name, "--generate", str(file)).code == Exit.CONFLICT
    assert site("user", "password", f"no-{name}", "--generate", str(file)).code == Exit.NOT_FOUND
    assert not file.exists(), "a login that is none"
    assert site("user", "add", name, "--generate", str(tmp_path / "first.json")).code == Exit.SETTINGS
    assert (tmp_path / "first.json").exists(), "the one that was there is somebody's"
    assert site("user", "remove", name).code == 0


@pytest.mark.parametrize("content", ["p" * 1025, "one line\nand another", "with\x00nothing"])
def test_a_password_that_cannot_be_typed_again_is_refused_and_not_cut(site: Any, tmp_path: Path, content: str) -> None:
    file = tmp_path / "password"
    file.write_text(content)
    file.chmod(0o600)
    name = f"ann-{uuid.uuid4().hex[:8]}"
    said = site("user", "add", name, "--password-file", str(file))
    assert said.code == Exit.SETTINGS and content not in said.err
    assert name not in site("user", "list").out
