"""JSON as it travels: whatever way it is written, it says the same, and what is no JSON is refused."""

from __future__ import annotations

import datetime
import enum
import json
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.couch import wire
from orchestrator.errors import Refused

NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.lists(inner).map(tuple),
)
DEEP = st.recursive(
    st.just(None), lambda inner: st.dictionaries(st.just("a"), inner, min_size=1) | st.tuples(inner)
)


class Word(enum.StrEnum):
    GOOD = "good"


@given(JSON)
def test_what_is_written_says_what_the_standard_library_would_say(value: Any) -> None:
    assert json.loads(wire.dumps(value)) == json.loads(json.dumps(value))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
@given(value=DEEP)
def test_what_is_no_number_is_refused_however_deep_it_lies(number: float, value: Any) -> None:
    text = json.dumps(value).replace("null", json.dumps(number))
    with pytest.raises(Refused, match="no NaN"):
        wire.dumps(json.loads(text))


@pytest.mark.parametrize("value", [{1, 2}, b"x", object(), uuid.uuid4(), datetime.datetime(2026, 1, 1), {(1, 2): 3}])
def test_an_object_of_another_kind_is_refused(value: Any) -> None:
    with pytest.raises(Refused, match="cannot be written"):
        wire.dumps({"a": [value]})


def test_a_word_of_a_list_of_words_is_its_text() -> None:
    assert wire.dumps({"status": Word.GOOD}) == b'{"status":"good"}'


def test_half_a_character_is_refused() -> None:
    with pytest.raises(Refused, match="not Unicode"):
        wire.document({"_id": "d", "file": "\ud800"})


@given(JSON)
def test_what_is_read_is_what_was_written_to_the_last_digit(value: Any) -> None:
    """Whoever writes a document again that he has read must not change what he does not know."""
    plain = json.loads(json.dumps(value))
    for text in (wire.dumps(value), json.dumps(value), json.dumps(value, indent=1)):
        assert repr(wire.loads(text)) == repr(plain)


def test_long_integers_keep_their_digits_and_long_digits_in_names_stay_quick() -> None:
    for number in (10**30, -(10**18) * 10, 2**63, -(2**63), 2**64, 12345678901234567890123):
        for text in (f'{{"a":{number}}}', f"[1, {number}]", f"{number}", f'{{"x": [\n{number}\n]}}'):
            assert str(number) in repr(wire.loads(text.encode()))
    assert wire.loads(b'{"a":"1234567890123456789012345"}') == {"a": "1234567890123456789012345"}
