"""Noise spectra, templates and the two filters: known amplitudes come back, with the spread that sigma says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from orchestrator.errors import SettingsError
from procs import noise
from procs.analyser import COLUMNS, Analyser, Recipe
from procs.filters import OptimalFilter, TrapezoidalFilter, rise_time
from procs.templates import SHIPPED, Template, TemplateDatabase, sampled

POINTS, ONSET = 1024, 384
HEAT = Template("heat", 5.0, 60.0)
STEP = Template("step", 0.0, 8.0)


def coloured(rng: np.random.Generator, traces: int, sigma: float, pink: bool) -> np.ndarray:
    """White noise, and with ``pink`` a part that rises to low frequencies."""
    white = rng.normal(0, sigma, (traces, POINTS))
    if not pink:
        return white
    spectrum = np.fft.rfft(white, axis=1)
    frequency = np.arange(spectrum.shape[1])
    spectrum[:, 1:] *= np.sqrt(1 + (20 / frequency[1:]) ** 1.5)
    return np.fft.irfft(spectrum, POINTS, axis=1)


def injected(
    template: Template, ms: float, pink: bool, seed: int = 1, traces: int = 1200, moved: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Digitised traces with offsets, slopes and noise, half of them with a pulse; and the true amplitudes."""
    rng = np.random.default_rng(seed)
    truth = np.where(rng.random(traces) < 0.5, rng.uniform(100, 3000, traces), 0.0)
    data = coloured(rng, traces, 10.0, pink) + truth[:, None] * template.pulse(POINTS, ONSET + moved, ms)
    data += rng.normal(0, 300, traces)[:, None] + rng.normal(0, 0.05, traces)[:, None] * np.arange(POINTS)
    return np.rint(data).astype(np.int16), truth


@pytest.mark.parametrize("pink", [False, True], ids=["white", "pink"])
@pytest.mark.parametrize(("template", "ms"), [(HEAT, 0.5), (STEP, 0.02)], ids=["heat", "step"])
def test_known_amplitudes_come_back_within_their_resolution(template: Template, ms: float, pink: bool) -> None:
    traces, truth = injected(template, ms, pink)
    analyser = Analyser(template, traces[:500], ONSET, ms, Recipe())
    assert "without a pulse" in analyser.noise_source
    found = analyser.analyse(traces)
    pulse = truth > 0
    for method in ("optimal", "trapezoid"):
        sigma = found[f"{method}_sigma"]
        for column, chosen in (
            ("fixed", pulse),
            ("fixed", ~pulse),
            ("amplitude", pulse),
        ):
            pull = ((found[f"{method}_{column}"] - truth) / sigma)[chosen]
            assert abs(pull.mean()) < 0.2, (method, column)
            assert 0.9 < pull.std() < 1.15, (method, column)
        inner = found[f"{method}_baseline_amplitude"] / found[f"{method}_baseline_sigma"]
        assert abs(inner.mean()) < 0.2
        assert 0.9 < inner.std() < 1.15
        assert 0.95 < np.median(found[f"{method}_chi2"]) < 1.08
        assert 0.95 < np.median(found[f"{method}_baseline_chi2"]) < 1.08
    bright = truth > 500
    expected = ONSET + template.peak_ms / ms
    assert abs(np.median(found["optimal_peak"][bright]) - expected) < 0.2
    assert abs(np.median(found["noise"]) - (11.1 if pink else 10.0)) < 0.3


def test_the_optimal_filter_is_the_better_one() -> None:
    traces, _ = injected(HEAT, 0.5, pink=True)
    analyser = Analyser(HEAT, traces[:500], ONSET, 0.5, Recipe())
    assert analyser.optimal.sigma < analyser.trapezoid.sigma


def test_columns_are_those_that_are_documented() -> None:
    traces, _ = injected(HEAT, 0.5, pink=False, traces=100)
    assert set(Analyser(HEAT, traces, ONSET, 0.5, Recipe()).analyse(traces)) == set(COLUMNS)


def test_a_negative_pulse_has_a_negative_amplitude() -> None:
    traces, truth = injected(HEAT, 0.5, pink=False)
    found = Analyser(HEAT, -traces[:500], ONSET, 0.5, Recipe()).analyse(-traces)
    pulse = truth > 0
    assert np.abs(((found["optimal_amplitude"] + truth) / found["optimal_sigma"])[pulse]).mean() < 1.2


def test_a_pulse_that_came_later_is_found_where_it_is() -> None:
    traces, truth = injected(HEAT, 0.5, pink=False, moved=7.0)
    analyser = Analyser(HEAT, traces[:500], ONSET, 0.5, Recipe())
    found = analyser.analyse(traces)
    bright = truth > 500
    expected = ONSET + 7 + HEAT.peak_ms / 0.5
    for method, room in (("optimal", 0.3), ("trapezoid", 1.0)):
        assert abs(np.median(found[f"{method}_peak"][bright]) - expected) < room
        pull = ((found[f"{method}_amplitude"] - truth) / found[f"{method}_sigma"])[bright]
        assert abs(pull.mean()) < 0.5
    # At the trigger's place the optimal filter underestimates such a pulse; the trapezoid's flat top forgives it.
    assert (found["optimal_fixed"][bright] / truth[bright] - 1).mean() < -0.005


def test_a_wrong_template_shows_in_chi2() -> None:
    traces, truth = injected(HEAT, 0.5, pink=False)
    wrong = Analyser(Template("wrong", 1.0, 20.0), traces[:500], ONSET, 0.5, Recipe()).analyse(traces)
    assert np.median(wrong["optimal_chi2"][truth > 1000]) > 3
    assert np.median(wrong["optimal_chi2"][truth == 0]) < 1.1


def test_the_average_of_bright_pulses_serves_as_template() -> None:
    traces, truth = injected(HEAT, 0.5, pink=False)
    guess = Template("guess", 4.0, 50.0)
    plain = Analyser(guess, traces[:500], ONSET, 0.5, Recipe())
    average = Analyser(guess, traces[:500], ONSET, 0.5, Recipe(template="average"))
    assert average.template.source.startswith("average of ")
    pulse = truth > 500
    found = [a.analyse(traces)["optimal_amplitude"][pulse] for a in (plain, average)]
    off = [np.abs(amplitude / truth[pulse] - 1).mean() for amplitude in found]
    assert off[1] < 0.01 < off[0]


def test_an_average_of_too_few_pulses_is_a_fallback_that_is_said() -> None:
    traces, truth = injected(HEAT, 0.5, pink=False)
    analyser = Analyser(HEAT, traces[truth == 0][:200], ONSET, 0.5, Recipe(template="average"))
    assert "bright pulses" in analyser.said()["fallback"]


def test_traces_that_cannot_be_analysed_say_why() -> None:
    for shape, onset, ms, words in (
        ((10, 32), 16, 1.0, "too short"),
        ((10, 128), 4, 1.0, "leaves no baseline"),
        ((10, 128), 127, 1.0, "leaves no baseline"),
        ((10, 128), 64, 0.0, "time between points"),
    ):
        with pytest.raises(ValueError, match=words):
            Analyser(HEAT, np.zeros(shape, dtype=np.int16), onset, ms, Recipe())


def test_dead_and_saturated_channels_give_numbers() -> None:
    for value in (0, 32767, -32768):
        found = Analyser(HEAT, np.full((3, 256), value, dtype=np.int16), 64, 0.5, Recipe()).analyse(
            np.full((3, 256), value, dtype=np.int16)
        )
        assert np.allclose(found["optimal_amplitude"], 0, atol=1e-6)
        assert np.allclose(found["baseline"], value)


def test_white_noise_has_a_flat_spectrum_whatever_is_removed() -> None:
    rng = np.random.default_rng(3)
    traces = rng.normal(0, 5, (4000, 256)) + rng.normal(0, 1, 4000)[:, None] * np.arange(256)
    spectrum = noise.power_spectrum(traces, remove_slope=True)
    assert np.allclose(spectrum[1:] / (256 * 25), 1, atol=0.1)
    assert noise.power_spectrum(traces, remove_slope=False)[1] > 100 * spectrum[1]


def test_few_traces_are_smoothed_and_rounding_sets_the_floor() -> None:
    rng = np.random.default_rng(4)
    few = noise.power_spectrum(rng.normal(0, 5, (4, 1024)))
    assert few[20:400].std() / few[20:400].mean() < 0.2
    assert np.all(noise.power_spectrum(np.zeros((5, 64)))[1:] == 64 / 12)


def test_a_spectrum_is_stretched_to_longer_traces() -> None:
    rng = np.random.default_rng(5)
    short = noise.power_spectrum(rng.normal(0, 5, (2000, 128)))
    long = noise.stretched(short, 128, 1000)
    assert long.shape == (501,)
    assert np.allclose(long / (1000 * 25), 1, atol=0.25)


def test_lines_find_offset_and_slope() -> None:
    points = np.arange(400)
    traces = np.stack([3.0 + 0.5 * points, -7.0 - 0.1 * points])
    fitted = noise.lines(traces, 100)
    assert np.allclose(fitted.slope, [0.5, -0.1])
    assert np.allclose(fitted.values(400), traces)
    assert np.allclose(fitted.noise, 0, atol=1e-6)
    assert np.all(noise.lines(traces, 100, slope=False).slope == 0)


def test_the_filters_answer_exactly_to_a_pulse_without_noise() -> None:
    pulse = HEAT.pulse(POINTS, ONSET, 0.5)
    flat = np.full(POINTS // 2 + 1, float(POINTS))
    traces = np.stack([1234.5 * pulse + 50, -3 * pulse + 0.25 * np.arange(POINTS)])
    optimal, _ = OptimalFilter(pulse, flat, search=20).estimate(traces)
    trapezoid = TrapezoidalFilter(
        pulse, flat, onset=ONSET, decay=120, rise=100, gap=60, baseline=ONSET - 5, search=20
    ).estimate(traces)
    for estimate in (optimal, trapezoid):
        assert np.allclose(estimate.fixed, [1234.5, -3], rtol=1e-9)
        assert np.allclose(estimate.amplitude, [1234.5, -3], rtol=1e-6)
        assert np.allclose(estimate.shift, 0, atol=0.01)


def test_pole_zero_correction_makes_the_trapezoid_flat() -> None:
    pulse = STEP.pulse(POINTS, ONSET, 0.1)
    flat = np.full(POINTS // 2 + 1, float(POINTS))
    right = TrapezoidalFilter(pulse, flat, onset=ONSET, decay=80, rise=50, gap=40, baseline=300)
    wrong = TrapezoidalFilter(pulse, flat, onset=ONSET, decay=1e6, rise=50, gap=40, baseline=300)
    top = slice(ONSET + 55, ONSET + 85)
    assert np.ptp(right._shape(pulse[None, :])[0, top]) < 1e-9
    assert np.ptp(wrong._shape(pulse[None, :])[0, top]) > 0.05


def test_polarity_chooses_the_sign_of_the_best_place() -> None:
    rng = np.random.default_rng(6)
    pulse = HEAT.pulse(POINTS, ONSET, 0.5)
    flat = np.full(POINTS // 2 + 1, POINTS * 100.0)
    traces = rng.normal(0, 10, (300, POINTS))
    for polarity, sign in (("positive", 1), ("negative", -1)):
        estimate, _ = OptimalFilter(pulse, flat, search=40, polarity=polarity).estimate(traces)
        assert (sign * estimate.amplitude > 0).mean() > 0.7


def test_rise_time_of_a_known_edge() -> None:
    level = np.clip((np.arange(200) - 50) / 100, 0, 1)[None, :] * 7.0
    assert np.allclose(rise_time(level, np.array([7.0]), np.array([180])), 80)
    assert np.isnan(rise_time(level, np.array([0.0]), np.array([180]))).all()


def test_template_shapes() -> None:
    for template in (HEAT, STEP, Template("m", 1, 30, samples=(0.0, 2.0, 4.0, 2.0), sample_ms=1.0)):
        pulse = template.pulse(4000, 100, 0.05)
        assert abs(pulse.max() - 1) < 1e-3
        assert np.all(pulse[:100] == 0)
        assert abs(np.argmax(pulse) - 100 - template.peak_ms / 0.05) <= 1
    assert sampled(HEAT, 64, 16.0, 1.0) is sampled(HEAT, 64, 16.0, 1.0)
    with pytest.raises(ValueError, match="read-only"):
        sampled(HEAT, 64, 16.0, 1.0)[0] = 1


def test_the_shipped_database_and_its_fallback() -> None:
    database = TemplateDatabase.load()
    assert database.find("CHALEUR FID802").name == "heat"
    assert database.find("ionisA FID802").fallback == ""
    assert "no template matches the channel 'odd'" in database.find("odd").fallback


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}", "has no 'templates'"),
        ("templates: {a: {rise_ms: 1, decay_ms: 2}}", "as 'fallback'"),
        ("{fallback: a, templates: {a: {rise_ms: x, decay_ms: 2}}}", "needs the numbers"),
        ("{fallback: a, templates: {a: {rise_ms: 3, decay_ms: 2}}}", "needs 0 <= rise_ms < decay_ms"),
        ("{fallback: a, templates: {a: {rise_ms: 1, decay_ms: 2, colour: red}}}", "may have the keys"),
        ("{fallback: a, templates: {a: {rise_ms: 1, decay_ms: 2, samples: [1]}}}", "sample_ms"),
        ("a: [", "cannot be read"),
    ],
)
def test_a_database_that_cannot_be_used(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "t.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=words):
        TemplateDatabase.load(path)
    with pytest.raises(SettingsError, match="cannot be read"):
        TemplateDatabase.load(tmp_path / "none.yaml")
    assert SHIPPED.is_file()
