"""``orchestrator online display``: serves, ends when told to, and says in a sentence why it cannot start."""

import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from orchestrator.errors import Exit
from orchestrator.web.serve import bind

COMMAND = [sys.executable, "-m", "orchestrator.cli"]
YAML = "input: {module: 'x:Y'}\nbroadcast: {subscribe: 'tcp://127.0.0.1:1'}\n"


def refused(folder: Path, *words: str) -> tuple[int, str]:
    done = subprocess.run([*COMMAND, "-C", str(folder), "online", "display", *words], capture_output=True, text=True,
                          timeout=120)  # fmt: skip
    return done.returncode, done.stderr.strip().splitlines()[-1]


def test_it_serves_without_a_broadcast_and_says_so_and_ends_when_told_to(tmp_path: Path) -> None:
    (tmp_path / "online.yaml").write_text(YAML)
    display = subprocess.Popen(
        [*COMMAND, "-C", str(tmp_path), "online", "display", "--port", "0"], stderr=subprocess.PIPE, text=True
    )
    try:
        assert display.stderr is not None
        line = next(line for line in display.stderr if "the control room is at" in line)
        url = line.split(" is at ")[1].strip()
        health = httpx.get(url + "healthz")
        assert (health.status_code, health.json()["connected"]) == (503, False)
        page = httpx.get(url)
        assert page.status_code == 200 and "The broadcast is away" in page.text
        with httpx.stream("GET", url + "events") as stream:  # somebody looks on while it ends
            assert next(stream.iter_raw())
            display.send_signal(signal.SIGTERM)
            assert display.wait(30) == 0
    finally:
        display.kill()
        display.wait()


def test_a_port_in_use_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "online.yaml").write_text(YAML)
    with bind("127.0.0.1", 0) as taken:
        code, said = refused(tmp_path, "--port", str(taken.getsockname()[1]))
    assert code == Exit.CONFLICT
    assert "another program does; end it, or choose another port" in said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("title: MICE\n", "input: is missing: add it"),
        (YAML.replace("127.0.0.1:1", "10.0.0.1:5612"), "needs a key"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused_in_one_sentence(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "online.yaml").write_text(text)
    code, said = refused(tmp_path)
    assert code == Exit.SETTINGS
    assert words in said and said.startswith("orchestrator: ")
