"""The guide for shifters: what it says that the pages say is what they say, and every button stands in it."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "control-room.md").read_text("utf-8")
SAID = (ROOT / "orchestrator" / "web" / "online" / "room.py").read_text() + (
    ROOT / "orchestrator" / "web" / "static" / "online" / "room.js"
).read_text()
PAGE = (ROOT / "orchestrator" / "web" / "templates" / "online" / "room.html").read_text()


def words(text: str) -> str:
    """Letters alone, so that names in the middle of a sentence and marks do not matter."""
    return " ".join(re.sub(r"\{[\w.'\[\]]+\}", " ", text).replace("`", "").split())


@pytest.mark.parametrize("line", re.findall(r"^\| (\*[^*].+?\*.*?) \|", GUIDE, re.MULTILINE))
def test_a_line_that_the_guide_explains_is_one_that_the_page_shows(line: str) -> None:
    for sentence in re.findall(r"\*([^*]+)\*", line):
        for part in re.split(r"\.\.\.|\. ", sentence):
            assert part.strip() in words(SAID), part


@pytest.mark.parametrize("word", re.findall(r'\{\{ button\("[\w-]+", "\w+", "([\w ]+)"', PAGE))
def test_every_button_stands_in_the_guide(word: str) -> None:
    table = GUIDE[GUIDE.index("### Every button") : GUIDE.index("In the list a tick")]
    assert re.search(rf"^\| [^|]*\b{word}\b", table, re.MULTILINE)


def test_there_are_lines_and_buttons_to_look_at() -> None:
    assert len(re.findall(r"^\| \*[^*]", GUIDE, re.MULTILINE)) >= 10
    assert len(re.findall(r'\{\{ button\("', PAGE)) == 9
