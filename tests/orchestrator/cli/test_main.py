"""What holds for every command: help, options, exit codes, and errors that are one sentence."""

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from orchestrator.cli import SECTIONS, cli, main
from orchestrator.errors import Exit


def all_commands(command: click.Command, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], click.Command]]:
    found = [(path, command)]
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            found += all_commands(inner, (*path, name))
    return found


def test_help_comes_at_once() -> None:
    """Nothing heavy may be imported for --help; the limit leaves room for a busy machine."""
    code = (
        "import sys; from orchestrator.cli import main; main(['--help']); "
        "heavy = ('numpy', 'pydantic', 'rich', 'requests', 'fastapi', 'yaml', 'couchdb'); "
        "print([name for name in heavy if name in sys.modules])"
    )
    best = 9.0
    for _ in range(3):
        started = time.monotonic()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        best = min(best, time.monotonic() - started)
    assert done.stdout.splitlines()[-1] == "[]"
    assert best < 0.3


@pytest.mark.parametrize(
    ("path", "command"), [pytest.param(*one, id="-".join(one[0])) for one in all_commands(cli)[1:]]
)
def test_every_command_says_what_it_is_for(path: tuple[str, ...], command: click.Command) -> None:
    assert command.help, f"{path}: no help"
    assert len(command.get_short_help_str(60)) < 60, f"{path}: the short help is cut off"
    assert not command.get_short_help_str(60).endswith("..."), f"{path}: the short help is cut off"
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.hidden or parameter.help, f"{path} {parameter.name}: no help"


def test_every_command_stands_in_a_section() -> None:
    assert sorted(c.name or "" for _, commands in SECTIONS for c in commands) == sorted(cli.commands)


@pytest.mark.parametrize(
    "words", [["nonsense"], ["status", "--nonsense"], ["chain", "nonsense"], ["--set", "x", "status"]]
)
def test_wrong_words_end_with_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == Exit.USAGE
    assert "Traceback" not in capsys.readouterr().err


def test_a_near_name_is_suggested(capsys: pytest.CaptureFixture[str]) -> None:
    main(["statu"])
    assert "status" in capsys.readouterr().err


def test_the_site_may_stand_before_or_after_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "orchestrator.yaml").write_text("site: lab\n")
    for words in (["-C", str(tmp_path), "settings", "--json"], ["settings", "--json", "-C", str(tmp_path)]):
        assert main(words) == 0
        assert '"lab"' in capsys.readouterr().out


def test_a_fault_of_ours_is_a_sentence_and_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "logs").mkdir()
    monkeypatch.setattr("orchestrator.settings.Settings.load", lambda *_: 1 / 0)
    assert main(["settings"]) == Exit.FAILED
    err = capsys.readouterr().err
    assert err.startswith("orchestrator: something unforeseen happened (ZeroDivisionError")
    assert "Traceback" not in err
    [kept] = (tmp_path / "logs").glob("orchestrator-traceback-*.txt")
    assert "Traceback" in kept.read_text()
    assert str(kept) in err


def test_ctrl_c_ends_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("orchestrator.settings.Settings.load", interrupted)
    assert main(["settings"]) == Exit.INTERRUPTED


def test_a_reader_that_has_had_enough_is_no_error(tmp_path: Path) -> None:
    script = f"{shlex.quote(sys.executable)} -m orchestrator.cli chain show --json procs/chains/samba.yaml | head -c 1"
    root = Path(__file__).parents[3]
    done = subprocess.run(["bash", "-c", script], cwd=root, capture_output=True, text=True)
    assert done.stdout == "{"
    assert done.stderr == ""


def test_no_colour_in_a_pipe_or_with_no_color() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli", "check"],
        capture_output=True, text=True, env={**os.environ, "NO_COLOR": "1"}, cwd="/",
    )  # fmt: skip
    assert "\x1b" not in done.stdout + done.stderr


def test_completion_script_is_there() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from orchestrator.cli import main; main()"],
        env={**os.environ, "_ORCHESTRATOR_COMPLETE": "bash_source"}, capture_output=True, text=True,
    )  # fmt: skip
    assert "_orchestrator_completion" in done.stdout
