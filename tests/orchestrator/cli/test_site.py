"""init, settings, chain and check: a site before anything runs."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import Exit
from orchestrator.newsite import examples, site_file
from orchestrator.settings import TABLE, Settings

Commands = Callable[..., Any]  # see conftest.py


def test_init_makes_what_check_wants(orchestrator: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("ORCHESTRATOR_WEB_PORT", str(a_free_port()))
    folder = tmp_path / "a site"
    made = orchestrator("init", str(folder), "--chain", "noop")
    assert made.code == 0
    assert "made  orchestrator.yaml" in made.out
    checked = orchestrator("-C", str(folder), "check", "--json")
    assert checked.json["findings"], checked.out
    assert [f for f in checked.json["findings"] if f["level"] == "problem"] == []
    assert checked.code == 0


def test_init_overwrites_nothing(orchestrator: Commands, tmp_path: Path) -> None:
    (tmp_path / "orchestrator.yaml").write_text("site: mine\n")
    (tmp_path / "chain.yaml").write_text("mine\n")
    assert "kept  orchestrator.yaml" in orchestrator("init", str(tmp_path)).out
    assert (tmp_path / "orchestrator.yaml").read_text() == "site: mine\n"
    assert (tmp_path / "chain.yaml").read_text() == "mine\n"


def test_init_knows_its_examples(orchestrator: Commands) -> None:
    assert {"samba", "trees", "noop"} <= set(orchestrator("init", "--list", "--json").json)
    wrong = orchestrator("init", "--chain", "sampa")
    assert (wrong.code, "did you mean 'samba'?" in wrong.err) == (Exit.SETTINGS, True)


def test_the_site_file_has_every_setting_and_can_be_read(tmp_path: Path) -> None:
    values = {"watch": ["in"], "web_port": 81, "register": {"quiet": 2.0}, "url": "http://127.0.0.1:5985"}
    text = site_file(values)
    for row in TABLE:
        assert f"{row.name}:" in text
    (tmp_path / "orchestrator.yaml").write_text(text)
    settings = Settings.load(tmp_path)
    assert (settings.web_port, settings.register_settings, settings.watch) == (81, {"quiet": 2.0}, [tmp_path / "in"])
    # Each line that is commented out may be taken in as it stands.
    bare = "\n".join(
        line[2:] if line[2:].split(":")[0] in {r.name for r in TABLE} else line for line in text.splitlines()
    )
    (tmp_path / "orchestrator.yaml").write_text(bare)
    assert Settings.load(tmp_path).model_dump() == settings.model_dump()


def test_settings_show_their_source_and_no_password(orchestrator: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_COUCH_PASSWORD", "top-secret")
    monkeypatch.setenv("ORCHESTRATOR_LEASE", "5")
    shown = orchestrator("settings", "--set", "workers=3")
    assert "environment ORCHESTRATOR_LEASE" in shown.out
    assert "command line" in shown.out
    assert "ORCHESTRATOR_COUCH_PASSWORD is set" in shown.out
    assert "top-secret" not in shown.out + orchestrator("settings", "--json").out


@pytest.mark.parametrize("name", sorted(examples()))
def test_the_example_chains_are_in_order(orchestrator: Commands, name: str) -> None:
    assert orchestrator("chain", "check", str(examples()[name])).code == 0
    assert "proc0" in orchestrator("chain", "show", str(examples()[name])).out


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("steps: [", "this is not YAML"),
        ("name: a\nsteps:\n- {name: b, run: procs.nop:nothing}\n", "cannot be loaded"),
        ("name: a\nsteps:\n- {name: b, run: procs.noop:noting}\n", "did you mean 'nothing'"),
        ("name: a\nsteps:\n- {name: b, comand: [x]}\n", "did you mean 'command'"),
        ("name: a\nsteps:\n- {name: b, command: [no-such-program]}\n", "no executable 'no-such-program'"),
    ],
)
def test_a_corrupt_chain_is_one_sentence(orchestrator: Commands, tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "chain.yaml").write_text(text)
    for words in (("chain", "check"), ("check",)):
        result = orchestrator(*words)
        assert result.code == Exit.SETTINGS
        assert sentence in result.out + result.err
        assert "Traceback" not in result.err


def test_a_step_may_be_a_module_in_the_sites_folder(orchestrator: Commands, tmp_path: Path) -> None:
    (tmp_path / "only_here_step.py").write_text("def step(document, work):\n    return {}\n")
    (tmp_path / "chain.yaml").write_text("name: a\nsteps:\n- {name: b, run: only_here_step:step}\n")
    assert orchestrator("chain", "check").code == 0


def test_a_site_that_has_all_its_steps_done_at_a_farm_is_in_order(orchestrator: Commands, tmp_path: Path) -> None:
    orchestrator("init", str(tmp_path), "--chain", "noop")
    (tmp_path / "chain.yaml").write_text(
        "name: a\nfarms: {centre: {scheduler: slurm, spool: /s}}\n"
        "steps:\n- {name: b, run: 'only.there:step', executor: farm, farm: centre}\n"
    )
    found = orchestrator("check", "--json", "--set", f"web_port={a_free_port()}").json["findings"]
    said = {one["subject"]: one for one in found}
    assert said["farm"]["level"] == "ok" and "site check centre" in said["farm"]["text"]
    assert not [one for one in found if one["subject"] in ("chain", "step") and one["level"] == "problem"]


def test_check_names_a_taken_port_and_a_missing_folder(
    orchestrator: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        monkeypatch.setenv("ORCHESTRATOR_WEB_PORT", str(other.getsockname()[1]))
        monkeypatch.setenv("ORCHESTRATOR_URL", "http://127.0.0.1:1")
        orchestrator("init", str(tmp_path), "--chain", "noop")
        (tmp_path / "incoming").rmdir()
        found = {f["subject"]: f for f in orchestrator("check", "--json").json["findings"] if f["level"] == "problem"}
    assert "is taken by another program" in found["web"]["text"]
    assert "mkdir -p" in found["watch"]["remedy"]


def test_check_names_a_folder_that_cannot_be_written(orchestrator: Commands, tmp_path: Path) -> None:
    orchestrator("init", str(tmp_path), "--chain", "noop")
    (tmp_path / "data").rmdir()
    (tmp_path / "data").write_text("a file where a folder should be; a read-only folder is met in the same way")
    result = orchestrator("check", "--set", "web_port=18999")
    assert result.code == Exit.SETTINGS
    assert "cannot be written" in result.out


def test_check_says_that_a_database_elsewhere_is_away(orchestrator: Commands, tmp_path: Path) -> None:
    orchestrator("init", str(tmp_path), "--chain", "noop")
    result = orchestrator(
        "check", "--set", "url=http://127.0.0.1:1", "--set", "embedded=never", "--set", "web_port=18999"
    )
    assert result.code == Exit.UNAVAILABLE
    assert "problem  database" in result.out


def a_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
