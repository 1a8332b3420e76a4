"""JSON as the server takes it: integers keep their digits, hashes are no integers."""

from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.embedded import codec

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
LARGE = 12345678901234567890123


@given(JSON)
def test_whatever_is_written_is_read_as_the_standard_library_reads_it(value: object) -> None:
    text = codec.dumps(value)
    assert codec.loads(text) == json.loads(text)


@pytest.mark.parametrize("text", ["%d", "-%d", "[%d]", "[1,%d]", '{"a":%d}', '{"a": %d}', "[1,\n%d]", "[-%d ]"])
def test_an_integer_beyond_64_bits_keeps_its_digits_wherever_it_stands(text: str) -> None:
    found = codec.loads(text % LARGE)
    while isinstance(found, list | dict):
        found = found["a"] if isinstance(found, dict) else found[-1]
    assert abs(found) == LARGE


def test_digits_in_a_hash_do_not_send_a_whole_request_the_slow_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*_: object, **__: object) -> object:
        raise AssertionError("decoded by the standard library")

    monkeypatch.setattr(codec.json, "loads", slow)
    text = orjson.dumps({"checksum": "sha256:a" + "0" * 63, "run1234567890123456789012": 0.5, "_rev": "3-" + "1" * 32})
    assert codec.loads(text) == orjson.loads(text)
