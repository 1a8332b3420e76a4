"""The revision tree of one document: every leaf is kept, and every server picks the same winner.

A revision is ``N-hash``: its generation and a digest of its content and parent. The winner is the leaf that is
not deleted, then has the most generations, then the greatest hash: CouchDB's rule, so that databases that
replicate agree without talking about it. Pure data in, data out.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Sequence

from orchestrator.embedded import codec
from orchestrator.embedded.problems import bad_request

Revision = tuple[int, str]

DEFAULT_LIMIT = 1000  # generations kept on each branch, CouchDB's default ``revs_limit``


def parse(text: object) -> Revision:
    """Read ``N-hash``.

    Raises:
        Problem: 400, with CouchDB's reason, for anything else.
    """
    if not isinstance(text, str):
        raise bad_request("Invalid rev format")
    generation, dash, digest = text.partition("-")
    if not dash or not digest or not generation.isascii() or not generation.isdigit():
        raise bad_request("Invalid rev format")
    return int(generation), _normal(digest)


def text(revision: Revision) -> str:
    """Write a revision as ``N-hash``."""
    return f"{revision[0]}-{revision[1]}"


def derive(parent: str, deleted: bool, body: bytes, attachments: bytes) -> str:
    """The hash of a new revision: the same content on the same parent always gives the same one.

    Args:
        parent: the parent as ``N-hash``, or an empty string.
        deleted: whether the new revision is a tombstone.
        body: the document's JSON without its special members.
        attachments: names and digests of the attachments, in a fixed form.
    """
    digest = hashlib.md5(b"%d|%b|%d|" % (deleted, parent.encode(), len(attachments)), usedforsecurity=False)
    digest.update(attachments)
    digest.update(body)
    return digest.hexdigest()


def rank(revision: Revision, deleted: bool) -> tuple[bool, int, bytes]:
    """What leaves are compared by: the greatest is the winner."""
    return (not deleted, revision[0], _binary(revision[1]))


def _binary(digest: str) -> bytes:
    # CouchDB keeps 32 hex digits as 16 bytes and anything else as it is, and compares those.
    if len(digest) == 32:
        try:
            return bytes.fromhex(digest)
        except ValueError:
            pass
    return digest.encode()


def _normal(digest: str) -> str:
    if len(digest) == 32:
        try:
            return bytes.fromhex(digest).hex()
        except ValueError:
            pass
    return digest


class Node:
    """One revision in a tree. ``body`` is the sequence under which its body is stored, 0 if there is none."""

    __slots__ = ("body", "deleted", "parent", "revision")

    def __init__(self, revision: Revision, parent: Revision | None, body: int, deleted: bool) -> None:
        self.revision = revision
        self.parent = parent
        self.body = body
        self.deleted = deleted


class RevisionTree:
    """All known revisions of one document.

    Stored as a JSON list of ``[generation, hash, index of the parent or -1, body, deleted]``, parents first, so that
    the last row of an unbranched history is its leaf and a new leaf can be appended without decoding.
    """

    def __init__(self, nodes: Iterable[Node] = ()) -> None:
        self.nodes: dict[Revision, Node] = {node.revision: node for node in nodes}

    @classmethod
    def decode(cls, data: bytes) -> RevisionTree:
        """Read the stored form."""
        rows = codec.loads(data)
        revisions = [(row[0], row[1]) for row in rows]
        return cls(
            Node(revision, None if row[2] < 0 else revisions[row[2]], row[3], bool(row[4]))
            for revision, row in zip(revisions, rows, strict=True)
        )

    def encode(self) -> bytes:
        """The stored form; the same tree always gives the same bytes."""
        ordered = sorted(self.nodes.values(), key=lambda node: node.revision)
        index = {node.revision: number for number, node in enumerate(ordered)}
        return codec.dumps(
            [
                [*node.revision, -1 if node.parent is None else index[node.parent], node.body, int(node.deleted)]
                for node in ordered
            ]
        )

    def leaves(self) -> list[Node]:
        """Revisions without a child, the winner first."""
        parents = {node.parent for node in self.nodes.values()}
        ends = [node for node in self.nodes.values() if node.revision not in parents]
        ends.sort(key=lambda node: rank(node.revision, node.deleted), reverse=True)
        return ends

    def winner(self) -> Node:
        """The revision a plain read answers."""
        return self.leaves()[0]

    def path(self, revision: Revision) -> list[Revision]:
        """A revision and its known ancestors, newest first."""
        found: list[Revision] = []
        node = self.nodes.get(revision)
        while node is not None:
            found.append(node.revision)
            node = None if node.parent is None else self.nodes.get(node.parent)
        return found

    def merge(self, path: Sequence[Revision], body: int, deleted: bool) -> bool:
        """Add a revision with its history, as replication brings it.

        Args:
            path: the revision and its ancestors, newest first, generations falling by one.
            body: where the revision's body is stored.
            deleted: whether it is a tombstone.

        Returns:
            Whether the revision is new here (an ancestor that was only known by name counts as known).
        """
        for child, parent in itertools.pairwise(path):
            node = self.nodes.get(child)
            if node is None:
                self.nodes[child] = Node(child, parent, 0, False)
            elif node.parent is None:
                node.parent = parent
        last = path[-1]
        if last not in self.nodes:
            self.nodes[last] = Node(last, None, 0, False)
        node = self.nodes[path[0]]
        if node.body:
            return False
        is_inner = any(other.parent == node.revision for other in self.nodes.values())
        if is_inner:
            return False
        node.body = body
        node.deleted = deleted
        return True

    def stem(self, limit: int) -> None:
        """Forget ancestors beyond ``limit`` generations on every branch."""
        kept: set[Revision] = set()
        for leaf in self.leaves():
            kept.update(self.path(leaf.revision)[:limit])
        if len(kept) == len(self.nodes):
            return
        self.nodes = {revision: node for revision, node in self.nodes.items() if revision in kept}
        for node in self.nodes.values():
            if node.parent is not None and node.parent not in self.nodes:
                node.parent = None


def missing(tree: RevisionTree | None, asked: Iterable[Revision]) -> tuple[list[Revision], list[Revision]]:
    """Which of the revisions a peer has are unknown here, for ``_revs_diff``.

    Returns:
        The unknown revisions, and leaves here that could be their ancestors (for delta transfer).
    """
    if tree is None:
        return list(asked), []
    unknown = [revision for revision in asked if revision not in tree.nodes]
    if not unknown:
        return [], []
    highest = max(revision[0] for revision in unknown)
    ancestors = [leaf.revision for leaf in tree.leaves() if leaf.revision[0] < highest]
    return unknown, sorted(ancestors)
