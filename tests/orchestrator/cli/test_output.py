"""What is printed is what is there, whatever it is called."""

from __future__ import annotations

import pytest

from orchestrator.cli.output import Output


@pytest.mark.parametrize("name", ["attempt:ok:proc1:1", ":x: :smile:", "[bold]r[/]"])
def test_a_name_is_printed_as_it_is(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    Output().line(f"there is no document {name}")
    Output().table(("id",), [(name,)])
    assert capsys.readouterr().out.count(name) == 2


def test_control_characters_do_not_reach_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    Output().line("a\x1b[2Jb\x07")
    assert "\x1b" not in (out := capsys.readouterr().out) and "\x07" not in out
