"""The chain file: what is read, and that every mistake ends in a sentence with its place and the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import chain
from orchestrator.errors import ChainError

GOOD = """
name: samba
steps:
  - {name: transfer, run: "procs.transfer:transfer", time_limit: 10 min, memory_limit: 2 GB}
  - {name: convert, command: [convert, "{input}"], retries: {count: 1, wait: 5 s, on: [transient]}}
  - {name: report, run: "a:b", needs: [transfer]}
"""


def test_steps_are_numbered_by_their_place() -> None:
    made = chain.loads(GOOD)
    assert [(step.key, step.name) for step in made.steps] == [
        ("proc0", "transfer"), ("proc1", "convert"), ("proc2", "report"),
    ]  # fmt: skip
    assert made.steps[0].time_limit == 600
    assert made.steps[0].memory_limit == 2_000_000_000
    assert made.steps[1].retries.on == ("transient",)
    assert made.step("proc1") is made.step("convert")


def test_without_needs_a_step_needs_all_earlier_ones() -> None:
    made = chain.loads(GOOD)
    assert [s.name for s in made.needs(made.steps[1])] == ["transfer"]
    assert [s.name for s in made.needs(made.steps[2])] == ["transfer"]


def test_a_chain_travels_as_json() -> None:
    made = chain.loads(GOOD)
    assert chain.Chain.model_validate(made.model_dump(mode="json")) == made


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name: x\nname: y", "line 2, column 1: this is not YAML: the key 'name' stands here twice"),
        ("a: [", "line 1"),
        ("- a", "not a list"),
        ("name: x\nstps: []", r"stps: 'stps' is not known here \(did you mean 'steps'\?\)"),
        ("name: x", "steps: is missing: add it"),
        ("name: X\nsteps: [{name: a, run: 'a:b'}]", "'X' is no name"),
        ("name: x\nsteps: []", "steps: must hold at least one"),
        (
            "name: x\nsteps: [{name: a, run: 'a:b', tme_limit: 3}]",
            r"steps\[0\] \(a\) / tme_limit.*did you mean 'time_l",
        ),
        ("name: x\nsteps: [{name: a, run: 'a:b', time_limit: 3 parsec}]", "'3 parsec' is no duration"),
        ("name: x\nsteps: [{name: a, run: 'a:b', memory_limit: 3 GX}]", "'3 GX' is no size"),
        ("name: x\nsteps: [{name: a, run: 'a:b', retries: {on: [transiet]}}]", r"retries / on\[0\]: 'transiet' is not"),
        ("name: x\nsteps: [{name: a}]", "either 'run' or 'command'"),
        ("name: x\nsteps: [{name: a, run: 'a:b', command: [c]}]", "either 'run' or 'command'"),
        ("name: x\nsteps: [{name: a, run: a.b}]", "'a.b' names no step"),
        ("name: x\nsteps: [{name: a, run: 'a:b', site: lyon}]", r"no site 'lyon' \(known: here\)"),
        ("name: x\nsteps: [{name: a, run: 'a:b'}, {name: a, run: 'a:b'}]", "'a' stands there 2 times"),
        ("name: x\nsteps: [{name: abc, run: 'a:b'}, {name: b, run: 'a:b', needs: [abd]}]", "did you mean 'abc'"),
        ("name: x\nsteps: [{name: abc, run: 'a:b', needs: [b]}, {name: b, run: 'a:b'}]", "does not come before"),
        ("name: x\nsteps: [{name: a, run: 'a:b', number: 3}]", "is not written: remove 'number'"),
        ("name: x\nsteps: [{name: a, run: 'a:b', settings: {when: 2026-01-01}}]", "no place in JSON"),
        ("name: x\nsteps: [{name: a, run: 'a:b', settings: {x: .nan}}]", "no place in JSON"),
        ("name: x\nsteps: [{name: proc1, run: 'a:b'}]", "a word of the documents"),
        ("x: &a [*a]", "not YAML"),
    ],
)
def test_a_mistake_ends_in_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(ChainError, match=sentence) as caught:
        chain.loads(text, "c.yaml")
    assert str(caught.value).startswith("c.yaml")


def test_on_and_off_are_words() -> None:
    made = chain.loads("name: x\nsteps: [{name: a, run: 'a:b', settings: {on: off, sure: true}}]")
    assert made.steps[0].settings == {"on": "off", "sure": True}


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ChainError, match="orchestrator init"):
        chain.load(tmp_path / "chain.yaml")


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "chain.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ChainError, match="cannot be read"):
        chain.load(tmp_path / "chain.yaml")


@given(st.text(max_size=200))
@settings(max_examples=200)
def test_no_text_ends_in_anything_but_a_chain_or_a_sentence(text: str) -> None:
    try:
        chain.loads(text)
    except ChainError as error:
        assert str(error)


def test_a_step_that_is_not_there_is_named_with_the_nearest() -> None:
    with pytest.raises(ChainError, match="did you mean 'convert'"):
        chain.loads(GOOD).step("convrt")
