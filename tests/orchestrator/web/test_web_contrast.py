"""The palette by the rules of WCAG 2.2, level AA: text 4.5 to 1 (1.4.3), marks and outlines 3 to 1 (1.4.11)."""

from __future__ import annotations

import re

import pytest

from orchestrator.web.render import HERE

STYLE = (HERE / "static" / "style.css").read_text()
STATES = ("open", "waiting", "closed", "ready", "queued", "progress", "done", "failed", "bad")
Colour = tuple[float, float, float]


def palette(scheme: str) -> dict[str, Colour]:
    """The named colours: those of the dark scheme stand over those of the light one."""
    blocks = re.findall(r":root \{(.*?)\n\s*\}", STYLE, re.DOTALL)
    assert len(blocks) == 2
    named: dict[str, Colour] = {}
    for block in blocks[: 2 if scheme == "dark" else 1]:
        for name, code in re.findall(r"--([a-z-]+):\s*#([0-9a-f]{6});", block):
            named[name] = tuple(int(code[i : i + 2], 16) / 255 for i in (0, 2, 4))  # type: ignore[assignment]
    return named


def luminance(colour: Colour) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: Colour, b: Colour) -> float:
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def mixed(a: Colour, part: float, b: Colour) -> Colour:
    """As ``color-mix(in srgb, a part, b)``."""
    return tuple(x * part + y * (1 - part) for x, y in zip(a, b, strict=True))  # type: ignore[return-value]


def test_the_measure_is_that_of_the_rules() -> None:
    assert contrast((0, 0, 0), (1, 1, 1)) == pytest.approx(21)
    assert contrast((0x77 / 255,) * 3, (1, 1, 1)) == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("ink", ["ink", "soft", "link"])
@pytest.mark.parametrize("ground", ["card", "paper", "hover", "code"])
def test_text_can_be_read(scheme: str, ink: str, ground: str) -> None:
    colours = palette(scheme)
    assert contrast(colours[ink], colours[ground]) >= 4.5


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("state", STATES)
def test_a_states_word_can_be_read_on_its_chip_and_on_a_row(scheme: str, state: str) -> None:
    colours = palette(scheme)
    text = colours[f"{state}-text"]
    for ground in (mixed(colours[state], 0.14, colours["card"]), colours["card"], colours["hover"]):
        assert contrast(text, ground) >= 4.5


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_focus_and_marks_can_be_seen(scheme: str) -> None:
    colours = palette(scheme)
    for mark in ("focus", "link", "faint", "progress", "failed", "done", "bad"):
        for ground in ("card", "paper"):
            assert contrast(colours[mark], colours[ground]) >= 3, (mark, ground)


def test_the_colours_stand_where_the_test_looks_for_them() -> None:
    assert "color-mix(in srgb, var(--c) 13%, var(--card))" in STYLE and "var(--c) 14%" in STYLE
    assert not re.search(r"(?<!-)color: var\(--faint\)", STYLE)  # for marks only
    assert ":focus-visible { outline: 2px solid var(--focus)" in STYLE
