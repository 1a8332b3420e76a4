"""JSON in lines between a poller and its workers: nothing of a value is lost on the way."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.lines import line_of, value_of

NUMBERS = st.integers() | st.integers(min_value=2**60).map(lambda n: -n) | st.integers(min_value=2**63)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_a_value_comes_out_as_it_went_in(value: Any) -> None:
    line = line_of(value)
    assert line.endswith(b"\n") and b"\n" not in line[:-1]
    assert repr(value_of(line)) == repr(json.loads(json.dumps(value)))
