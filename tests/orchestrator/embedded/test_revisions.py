"""The revision tree: whatever the order of arrival, one winner and one tree."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.embedded import revisions
from orchestrator.embedded.problems import Problem
from orchestrator.embedded.revisions import Revision, RevisionTree

# A universe of revisions: each has at most one parent, one generation above it.
Universe = list[tuple[Revision, int]]  # (revision, index of the parent or -1)


@st.composite
def universes(draw: st.DrawFn) -> tuple[Universe, list[tuple[int, bool]]]:
    """Revisions with their parents, and which of them arrive as leaves, deleted or not."""
    universe: Universe = []
    for number in range(draw(st.integers(1, 12))):
        parent = draw(st.integers(-1, number - 1))
        generation = 1 if parent < 0 else universe[parent][0][0] + 1
        universe.append(((generation, f"{draw(st.integers(0, 15)):x}{number:031x}"), parent))
    parents = {parent for _, parent in universe}
    leaves = [(index, draw(st.booleans())) for index in range(len(universe)) if index not in parents]
    return universe, leaves


def path(universe: Universe, index: int) -> list[Revision]:
    found = []
    while index >= 0:
        revision, index = universe[index]
        found.append(revision)
    return found


@settings(max_examples=150, deadline=None)
@given(universes(), st.randoms())
def test_any_order_gives_the_same_tree(given_: tuple[Universe, list[tuple[int, bool]]], rng: random.Random) -> None:
    universe, leaves = given_
    results = []
    for _ in range(3):
        rng.shuffle(leaves)
        tree = RevisionTree()
        for index, deleted in leaves:
            # Peers know more or less of the history: a path may be cut, but not to nothing.
            whole = path(universe, index)
            tree.merge(whole[: rng.randint(1, len(whole))], index + 1, deleted)
        for index, deleted in leaves:
            tree.merge(path(universe, index), index + 1, deleted)
        results.append((tree.winner().revision, tree.encode()))
    assert results[0] == results[1] == results[2]
    expected = max(leaves, key=lambda leaf: revisions.rank(universe[leaf[0]][0], leaf[1]))
    assert results[0][0] == universe[expected[0]][0]


@settings(max_examples=100, deadline=None)
@given(universes())
def test_what_is_encoded_comes_back(given_: tuple[Universe, list[tuple[int, bool]]]) -> None:
    universe, leaves = given_
    tree = RevisionTree()
    for index, deleted in leaves:
        tree.merge(path(universe, index), index + 1, deleted)
    again = RevisionTree.decode(tree.encode())
    assert again.encode() == tree.encode()
    assert [leaf.revision for leaf in again.leaves()] == [leaf.revision for leaf in tree.leaves()]
    for index, _ in leaves:
        assert again.path(universe[index][0]) == path(universe, index)


@settings(max_examples=100, deadline=None)
@given(universes(), st.integers(1, 5))
def test_stemming_keeps_every_leaf_and_the_winner(
    given_: tuple[Universe, list[tuple[int, bool]]], limit: int
) -> None:
    universe, leaves = given_
    tree = RevisionTree()
    for index, deleted in leaves:
        tree.merge(path(universe, index), index + 1, deleted)
    before = [leaf.revision for leaf in tree.leaves()]
    tree.stem(limit)
    assert [leaf.revision for leaf in tree.leaves()] == before
    # An ancestor that two branches share is kept for the one that is nearer to it.
    assert len(tree.nodes) <= limit * len(leaves)
    RevisionTree.decode(tree.encode())


def test_a_known_revision_is_nothing_new() -> None:
    tree = RevisionTree()
    assert tree.merge([(2, "b"), (1, "a")], 1, False)
    assert not tree.merge([(2, "b"), (1, "a")], 2, False)
    assert not tree.merge([(1, "a")], 3, False)
    assert tree.nodes[(2, "b")].body == 1


def test_what_a_peer_has_and_we_have_not() -> None:
    tree = RevisionTree()
    tree.merge([(2, "b"), (1, "a")], 1, False)
    assert revisions.missing(tree, [(2, "b"), (1, "a")]) == ([], [])
    assert revisions.missing(tree, [(3, "c"), (2, "b")]) == ([(3, "c")], [(2, "b")])
    assert revisions.missing(tree, [(1, "z")]) == ([(1, "z")], [])
    assert revisions.missing(None, [(1, "z")]) == ([(1, "z")], [])


@pytest.mark.parametrize("text", ["", "1", "1-", "-a", "x-a", "1.5-a", "²-a", None, 1, ["1-a"]])
def test_what_is_no_revision(text: object) -> None:
    with pytest.raises(Problem, match="Invalid rev format"):
        revisions.parse(text)


def test_hex_digests_are_compared_and_written_in_lower_case() -> None:
    assert revisions.parse("1-" + "AB" * 16) == (1, "ab" * 16)
    assert revisions.parse("1-Abc") == (1, "Abc")


def test_a_revision_depends_on_content_parent_and_deletion() -> None:
    made = {
        revisions.derive(parent, deleted, body, attachments)
        for parent in ("", "1-a")
        for deleted in (False, True)
        for body in (b"{}", b'{"a":1}')
        for attachments in (b"", b"[]")
    }
    assert len(made) == 16
    assert revisions.derive("1-a", False, b"{}", b"") == revisions.derive("1-a", False, b"{}", b"")
