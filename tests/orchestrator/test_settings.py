"""Settings: layers, sources, paths, and sentences for what is wrong."""

from pathlib import Path

import pytest

from orchestrator.errors import SettingsError
from orchestrator.settings import SITE_FILE, TABLE, Settings, unknown_variables


def test_defaults_stand_in_the_folder(tmp_path: Path) -> None:
    settings = Settings.load(tmp_path)
    assert settings.folder == tmp_path
    assert settings.chain == tmp_path / "chain.yaml"
    assert settings.source("chain") == "default"
    assert settings.workers >= 1


def test_later_layers_win_and_say_so(tmp_path: Path) -> None:
    (tmp_path / SITE_FILE).write_text("web_port: 1001\nsite: lab\ndatabase: one\n")
    settings = Settings.load(
        tmp_path,
        {"ORCHESTRATOR_WEB_PORT": "1002", "ORCHESTRATOR_SITE": "farm", "HOME": "/root"},
        {"web_port": 1003, "lease": None},
    )
    assert (settings.web_port, settings.site, settings.database) == (1003, "farm", "one")
    assert settings.source("web_port") == "command line"
    assert settings.source("site") == "environment ORCHESTRATOR_SITE"
    assert settings.source("database") == str(tmp_path / SITE_FILE)
    assert settings.source("lease") == "default"


def test_relative_paths_are_taken_from_the_folder(tmp_path: Path) -> None:
    (tmp_path / SITE_FILE).write_text("watch: [incoming, /mnt/daq]\ndata: ../out\n")
    settings = Settings.load(tmp_path)
    assert settings.watch == [tmp_path / "incoming", Path("/mnt/daq")]
    assert settings.data == tmp_path / "../out"


def test_lists_and_mappings_from_the_environment(tmp_path: Path) -> None:
    settings = Settings.load(
        tmp_path,
        {"ORCHESTRATOR_WATCH": "/a b:/c", "ORCHESTRATOR_REGISTER": "{quiet: 3}"},
    )
    assert settings.watch == [Path("/a b"), Path("/c")]
    assert settings.register_settings == {"quiet": 3}


def test_arguments_carry_the_command_line_over(tmp_path: Path) -> None:
    odd = tmp_path / 'a "b" c'
    first = Settings.load(tmp_path, {}, {"watch": [odd], "web_port": "81", "register": {"quiet": 2}, "site": "x y"})
    words = first.arguments()
    assert words[:2] == ["-C", str(tmp_path)]
    overrides = dict(word.split("=", 1) for word in words[3::2])
    again = Settings.load(tmp_path, {}, overrides)
    assert again.model_dump() == first.model_dump()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("web_prot: 80", "there is no setting 'web_prot'. Did you mean 'web_port'?"),
        ("web_port: many", "web_port: input should be a valid integer"),
        ("web_port: 99999", "less than or equal to 65535"),
        ("url: http://me:secret@host", "must not hold a user name or password"),
        ("url: ftp://host", "must begin with http:// or https://"),
        ("database: Runs", "database: string should match pattern"),
        ("- a\n- b", "must hold lines of `name: value`"),
        ("a: b: c", "line 1"),
        ("embedded: maybe", "'auto', 'always' or 'never'"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / SITE_FILE).write_text(text)
    with pytest.raises(SettingsError) as caught:
        Settings.load(tmp_path)
    assert sentence in str(caught.value)
    assert SITE_FILE in str(caught.value)


def test_every_problem_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.load(tmp_path, {"ORCHESTRATOR_LEASE": "-1"}, {"workers": "none"})
    assert "environment ORCHESTRATOR_LEASE: lease" in str(caught.value)
    assert "command line: workers" in str(caught.value)


def test_stray_variables_are_found() -> None:
    found = unknown_variables({"ORCHESTRATOR_DATABSE": "x", "ORCHESTRATOR_COUCH_USER": "u", "PATH": ""})
    assert found == ["ORCHESTRATOR_DATABSE sets nothing. Did you mean 'database'?"]


def test_the_table_is_complete() -> None:
    for row in TABLE:
        assert row.help.endswith("."), f"{row.name}: help is a sentence"
        assert row.default, f"{row.name}: a default that can be shown"


def test_settings_do_not_change(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings.load(tmp_path).web_port = 1  # type: ignore[misc]
