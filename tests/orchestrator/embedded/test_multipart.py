"""The multipart parser: whatever the pieces that bytes come in, the same parts go out."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.embedded.multipart import BadMultipart, Data, Parser, Part, PartEnd, boundary_of, quoted

BOUNDARY = b"frontier"


def body(contents: list[bytes], preamble: bytes = b"", padding: bytes = b"") -> bytes:
    """A multipart body with a part for each of the contents."""
    text = preamble
    for number, content in enumerate(contents):
        text += b"\r\n" if number or preamble else b""
        text += b"--%b%b\r\nContent-Type: text/plain\r\nX-Number: %d\r\n\r\n%b" % (BOUNDARY, padding, number, content)
    return text + b"\r\n--%b--epilogue" % BOUNDARY


def read(text: bytes, cuts: list[int]) -> list[tuple[str, bytes]]:
    """The parts of a body that arrives in pieces."""
    parser = Parser(BOUNDARY)
    found: list[tuple[str, bytes]] = []
    ended = 0
    places = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    for start, stop in itertools.pairwise(places):
        for event in parser.feed(text[start:stop]):
            if isinstance(event, Part):
                assert ended == len(found)
                found.append((event.headers["x-number"], b""))
            elif isinstance(event, Data):
                found[-1] = (found[-1][0], found[-1][1] + event.content)
            else:
                assert isinstance(event, PartEnd)
                ended += 1
    parser.close()
    assert ended == len(found)
    return found


contents = st.lists(
    st.one_of(st.binary(max_size=60), st.lists(st.sampled_from([b"\r\n", b"--", b"front", b"\r", b"-"])).map(b"".join)),
    max_size=4,
).filter(lambda found: all(b"--frontier" not in one for one in found))


@given(contents=contents, cuts=st.lists(st.integers(0, 10_000), max_size=12), preamble=st.sampled_from([b"", b"hello"]))
def test_parts_come_out_as_they_went_in(contents: list[bytes], cuts: list[int], preamble: bytes) -> None:
    if not contents:
        return
    assert read(body(contents, preamble), cuts) == [(str(n), one) for n, one in enumerate(contents)]


@given(contents=contents.filter(bool), keep=st.integers(0, 10_000))
def test_a_body_that_is_cut_is_found_out(contents: list[bytes], keep: int) -> None:
    text = body(contents).removesuffix(b"--epilogue")
    parser = Parser(BOUNDARY)
    list(parser.feed(text[: keep % (len(text) + 1)]))
    with pytest.raises(BadMultipart, match="ended before"):
        parser.close()


def test_spaces_after_a_boundary_are_allowed() -> None:
    assert read(body([b"x"], padding=b"  \t"), []) == [("0", b"x")]


def test_a_part_without_headers() -> None:
    events = list(Parser(BOUNDARY).feed(b"--frontier\r\n\r\nabc\r\n--frontier--"))
    assert events == [Part(), Data(b"abc"), PartEnd()]


def test_headers_without_end() -> None:
    with pytest.raises(BadMultipart, match="headers have no end"):
        list(Parser(BOUNDARY).feed(b"--frontier\r\nX: " + b"y" * 70_000))


@pytest.mark.parametrize("kind", ["multipart/mixed; boundary=abc", 'multipart/mixed; Boundary="abc"; x=y'])
def test_boundary(kind: str) -> None:
    assert boundary_of(kind) == b"abc"


def test_no_boundary() -> None:
    with pytest.raises(BadMultipart, match="no boundary"):
        boundary_of("multipart/mixed")


@given(st.text())
def test_a_file_name_never_ends_its_header(name: str) -> None:
    shown = quoted(name)
    assert "\r" not in shown
    assert "\n" not in shown
    if name.isprintable():
        part = Part({"content-disposition": f'attachment; filename="{shown}"'})
        assert part.filename == name
