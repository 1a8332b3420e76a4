"""The control room's own colours by the same rules as those of all pages: text 4.5 to 1 on what it stands on."""

import re
import sys
from pathlib import Path

import pytest

from orchestrator.web.render import HERE

sys.path.insert(0, str(Path(__file__).parents[1]))
from test_web_contrast import contrast, mixed, palette

STYLE = (HERE / "static" / "online" / "online.css").read_text()
QUALITIES = {"good": "done", "warning": "queued", "bad": "failed", "none": "waiting"}


def part(selector: str) -> float:
    """How much of the colour is in the background that a rule mixes."""
    found = re.search(re.escape(selector) + r" \{[^}]*color-mix\(in srgb, var\(--c\) (\d+)%", STYLE)
    assert found, selector
    return int(found[1]) / 100


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    ("selector", "names"),
    [(".chip.q-bad", ["failed"]), (".chip.q-warning", ["queued"]), (".spot", list(QUALITIES.values())),
     (".message", ["ready", "queued", "failed"])],
)  # fmt: skip
def test_words_and_marks_can_be_read_on_their_ground(scheme: str, selector: str, names: list[str]) -> None:
    colours = palette(scheme)
    for name in names:
        ground = mixed(colours[name], part(selector), colours["card"])
        assert contrast(colours[f"{name}-text"], ground) >= (3 if selector == ".spot" else 4.5), name
        if selector == ".message":
            assert contrast(colours["ink"], ground) >= 4.5, name


def test_each_quality_has_its_colour_from_the_palette() -> None:
    for quality, name in QUALITIES.items():
        assert f".q-{quality} {{ --c: var(--{name}); --t: var(--{name}-text); }}" in STYLE
