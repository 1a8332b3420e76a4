"""The writes of one transaction: each draft is weighed against the tree it meets, then all rows go out together.

Everything here runs on the writer's thread of one database, inside one SQLite transaction. Nothing is stored until
:meth:`Group.flush`, so a group that fails leaves no trace.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.embedded import codec, documents, revisions
from orchestrator.embedded.documents import Draft
from orchestrator.embedded.problems import Problem, bad_request, conflict
from orchestrator.embedded.revisions import Revision, RevisionTree

_READ = "SELECT seq, rev, deleted, body, leaves, tree FROM docs WHERE id = ?"
_READ_MANY = (
    "SELECT d.id, d.seq, d.rev, d.deleted, d.body, d.leaves, d.tree, b.body, b.atts FROM json_each(?) j "
    "CROSS JOIN docs d ON d.id = j.value LEFT JOIN bodies b ON b.seq = d.body AND ?"
)


@dataclass(slots=True)
class State:
    """What a document looks like at this point of the group."""

    row: int  # the row it has in the file, 0 for a document that has none yet
    seq: int
    rev: str
    deleted: bool
    body: int
    leaves: int
    tree: bytes


@dataclass(slots=True)
class Saved:
    """A write that succeeded."""

    id: str
    rev: str
    deleted: bool = False


@dataclass(slots=True)
class Refusal:
    """A write that did not, and why."""

    id: str
    rev: str | None
    problem: Problem


Outcome = Saved | Refusal


@dataclass(slots=True)
class Counters:
    """What a database keeps count of instead of counting rows."""

    seq: int = 0
    documents: int = 0
    deleted: int = 0
    bytes: int = 0
    replaced: int = 0  # bodies of revisions that are no leaves any more, about


class Group:
    """All document writes of one transaction.

    Args:
        connection: the writer's connection, a transaction open on it.
        counters: advanced as drafts are applied; the caller keeps a copy for the case of a failed commit.
        limit: generations kept on a branch.
    """

    def __init__(self, connection: sqlite3.Connection, counters: Counters, limit: int) -> None:
        self.connection = connection
        self.counters = counters
        self.limit = limit
        self.states: dict[str, State | None] = {}
        self.bodies: dict[int, tuple[int, bytes, bytes | None]] = {}
        self.touched: dict[str, State] = {}
        self.moves: list[tuple[str, int]] = []  # what it creates (1) and deletes (-1)
        self.design_changed = False
        self._read: dict[int, tuple[bytes, bytes | None]] = {}

    def read_ahead(self, identifiers: list[str], bodies: bool) -> None:
        """Read many documents, if asked for with the bodies of their winners, in one statement."""
        plain = [identifier for identifier in identifiers if identifier.isprintable()]  # the others take no short cut
        self.states.update(dict.fromkeys(plain))
        rows = self.connection.execute(_READ_MANY, (codec.dumps(plain).decode(), bodies))
        for identifier, seq, rev, deleted, number, leaves, tree, body, attachments in rows:
            self.states[identifier] = State(seq, seq, rev, bool(deleted), number, leaves, tree)
            if body is not None:
                self._read[number] = (body, attachments)

    def state(self, identifier: str) -> State | None:
        """The document as it is now, earlier writes of this group included."""
        try:
            return self.states[identifier]
        except KeyError:
            row = self.connection.execute(_READ, (identifier,)).fetchone()
            found = None if row is None else State(row[0], row[0], row[1], bool(row[2]), row[3], row[4], row[5])
            self.states[identifier] = found
            return found

    def stored_body(self, number: int) -> tuple[bytes, bytes | None] | None:
        """Body and attachments of a revision, written by this group or before it."""
        fresh = self.bodies.get(number)
        if fresh is not None:
            return fresh[1], fresh[2]
        if number in self._read:
            return self._read[number]
        row = self.connection.execute("SELECT body, atts FROM bodies WHERE seq = ?", (number,)).fetchone()
        return None if row is None else (row[0], row[1])

    def parent(self, draft: Draft) -> tuple[str, int]:
        """The leaf an edit builds on, as (rev, body), ("", 0) for none.

        Raises:
            Problem: 409 if the draft was not made from a leaf.
        """
        state = self.state(draft.id)
        if state is None:
            if draft.revision is not None:
                raise conflict()
            return "", 0
        if draft.revision is None:
            if not state.deleted:
                raise conflict()
            return state.rev, state.body
        given = revisions.text(draft.revision)
        if given == state.rev:
            return state.rev, state.body
        if state.leaves > 1:
            for leaf in RevisionTree.decode(state.tree).leaves():
                if leaf.revision == draft.revision:
                    return given, leaf.body
        raise conflict()

    def is_known(self, draft: Draft) -> bool:
        """Whether a replicated revision is here already."""
        state = self.state(draft.id)
        if state is None or draft.revision is None:
            return False
        if state.rev == revisions.text(draft.revision):
            return True
        node = RevisionTree.decode(state.tree).nodes.get(draft.revision)
        return node is not None and bool(node.body)

    def previous(self, draft: Draft, new_edits: bool) -> bytes | None:
        """The stored document that a validation function is shown as the old one, as JSON.

        Raises:
            Problem: 409 as :meth:`parent`.
        """
        if new_edits:
            rev, number = self.parent(draft)
            if draft.revision is None or not rev:
                return None
            state = self.states[draft.id]
            if state is not None and state.leaves == 1:
                # An unbranched history is its stored form's order.
                rows = codec.loads(state.tree)
                path = {"start": rows[-1][0], "ids": [row[1] for row in reversed(rows)]}
                return self._shown(draft.id, rev, state.deleted, number, path)
            return self._document(draft.id, revisions.parse(rev), number)
        state = self.state(draft.id)
        if state is None:
            return None
        tree = RevisionTree.decode(state.tree)
        for revision in draft.history[1:]:
            node = tree.nodes.get(revision)
            if node is not None and node.body:
                return self._document(draft.id, revision, node.body)
        return None

    def _document(self, identifier: str, revision: Revision, number: int) -> bytes | None:
        state = self.states[identifier]
        tree = RevisionTree.decode(state.tree) if state is not None else RevisionTree()
        node = tree.nodes.get(revision)
        deleted = node is not None and node.deleted
        path = documents.revisions_member(tree.path(revision))
        return self._shown(identifier, revisions.text(revision), deleted, number, path)

    def _shown(self, identifier: str, rev: str, deleted: bool, number: int, path: dict[str, Any]) -> bytes | None:
        stored = self.stored_body(number)
        if stored is None:
            return None
        attachments = documents.stubs(stored[1]) if stored[1] else None
        return documents.shown(identifier, rev, deleted, stored[0], codec.dumps(path), attachments)

    def apply(self, draft: Draft, new_edits: bool) -> Outcome:
        """Weigh one draft and, if it holds, make it part of the group."""
        try:
            return self._edit(draft) if new_edits else self._graft(draft)
        except Problem as problem:
            rev = revisions.text(draft.revision) if draft.revision else None
            return Refusal(draft.id, rev, problem)

    def _edit(self, draft: Draft) -> Saved:
        parent, parent_body = self.parent(draft)
        state = self.states[draft.id]
        generation = int(parent.partition("-")[0]) + 1 if parent else 1
        attachments = None
        digests = b""
        if draft.attachments:
            attachments, digests = self._attachments(draft, generation, [parent_body])
        digest = revisions.derive(parent, draft.deleted, draft.body, digests)
        rev = f"{generation}-{digest}"
        seq = self._store(draft.body, attachments)
        if state is None:
            tree = b'[[%d,"%b",-1,%d,%d]]' % (generation, digest.encode(), seq, draft.deleted)
            made = State(0, seq, rev, draft.deleted, seq, 1, tree)
        elif state.leaves == 1 and generation <= self.limit:
            # An unbranched history grows at its end: no need to decode what is there.
            row = b',[%d,"%b",%d,%d,%d]]' % (
                generation, digest.encode(), state.tree.count(b"[") - 2, seq, draft.deleted,
            )  # fmt: skip
            made = State(state.row, seq, rev, draft.deleted, seq, 1, state.tree[:-1] + row)
        else:
            tree_ = RevisionTree.decode(state.tree)
            tree_.merge([(generation, digest), revisions.parse(parent)], seq, draft.deleted)
            made = self._rebuilt(state, tree_, seq)
        self._replace(draft.id, state, made)
        return Saved(draft.id, rev, draft.deleted)

    def _graft(self, draft: Draft) -> Saved:
        path = draft.history or ([draft.revision] if draft.revision else [])
        if not path:
            path = [(1, revisions.derive("", draft.deleted, draft.body, b""))]
        state = self.state(draft.id)
        tree = RevisionTree() if state is None else RevisionTree.decode(state.tree)
        rev = revisions.text(path[0])
        known = tree.nodes.get(path[0])
        if known is not None and known.body:
            return Saved(draft.id, rev)
        attachments = None
        if draft.attachments:
            ancestors = [node.body for revision in path[1:] if (node := tree.nodes.get(revision)) and node.body]
            attachments, _ = self._attachments(draft, path[0][0], ancestors, keep=True)
        seq = self._store(draft.body, attachments)
        if not tree.merge(path, seq, draft.deleted):
            del self.bodies[seq]
            return Saved(draft.id, rev)
        base = state or State(0, seq, "", True, 0, 0, b"")
        made = self._rebuilt(base, tree, seq)
        self._replace(draft.id, state, made)
        return Saved(draft.id, rev)

    def _rebuilt(self, state: State, tree: RevisionTree, seq: int) -> State:
        tree.stem(self.limit)
        leaves = tree.leaves()
        winner = leaves[0]
        rev = revisions.text(winner.revision)
        return State(state.row, seq, rev, winner.deleted, winner.body, len(leaves), tree.encode())

    def _store(self, body: bytes, attachments: bytes | None) -> int:
        self.counters.seq += 1
        seq = self.counters.seq
        self.bodies[seq] = (seq, body, attachments)
        self.counters.bytes += len(body)
        return seq

    def _replace(self, identifier: str, old: State | None, new: State) -> None:
        moved = (not new.deleted) - (old is not None and not old.deleted)
        if moved:
            self.counters.documents += moved
            self.moves.append((identifier, moved))
        self.counters.deleted += new.deleted - (old is not None and old.deleted)
        self.states[identifier] = new
        self.touched[identifier] = new
        if identifier.startswith("_design/"):
            self.design_changed = True

    def _attachments(
        self, draft: Draft, generation: int, ancestors: list[int], keep: bool = False
    ) -> tuple[bytes, bytes]:
        """Settle stubs against the ancestors' attachments and number the new ones.

        Args:
            keep: take the ``revpos`` that an attachment came with, as replication wants it.

        Returns:
            The stored form, and the names and digests that go into the revision's hash.
        """
        older: dict[str, Mapping[str, Any]] = {}
        for number in reversed(ancestors):
            stored = self.stored_body(number) if number else None
            if stored and stored[1]:
                older.update(codec.loads(stored[1]))
        settled: dict[str, Any] = {}
        for name, entry in (draft.attachments or {}).items():
            if "blob" in entry:
                told = entry.pop("told", None)
                # A replicated attachment is as old as its own server says; a new one is as old as this revision.
                known = keep and isinstance(told, int) and 0 < told <= generation
                settled[name] = {"revpos": told if known else generation, **entry}
            elif name in older and entry.get("revpos") in (None, 0, older[name]["revpos"]):
                settled[name] = {**older[name]}
            else:
                raise Problem(412, "missing_stub", f"Invalid attachment stub in {draft.id} for {name}")
        digests = codec.dumps([[name, entry["digest"], entry["content_type"]] for name, entry in settled.items()])
        return codec.dumps(settled), digests

    def put_local(self, draft: Draft) -> Outcome:
        """Write or delete a `_local` document.

        It has no tree, no place in the feed and no conflict check: the new revision counts on from the one given.
        """
        if draft.attachments:
            return Refusal(draft.id, None, bad_request("Local documents have no attachments"))
        given = draft.revision[1] if draft.revision else "0"
        if not given.isascii() or not given.isdigit():
            return Refusal(draft.id, None, bad_request("Invalid rev format"))
        if draft.deleted:
            self.connection.execute("DELETE FROM local WHERE id = ?", (draft.id,))
            return Saved(draft.id, "0-0")
        number = int(given) + 1
        self.connection.execute(
            "INSERT OR REPLACE INTO local (id, rev, body) VALUES (?, ?, ?)", (draft.id, number, draft.body)
        )
        return Saved(draft.id, f"0-{number}")

    def flush(self) -> None:
        """Send all rows to SQLite; the caller commits."""
        self.counters.replaced += len(self.bodies) - sum(not state.row for state in self.touched.values())
        self.connection.executemany("INSERT INTO bodies (seq, body, atts) VALUES (?, ?, ?)", self.bodies.values())
        fresh, moved = [], []
        for identifier, state in self.touched.items():
            row = (state.seq, identifier, state.rev, int(state.deleted), state.body, state.leaves, state.tree)
            if state.row:
                moved.append((row[0], *row[2:], state.row))
            else:
                fresh.append(row)
        if fresh:
            self.connection.executemany(
                "INSERT INTO docs (seq, id, rev, deleted, body, leaves, tree) VALUES (?, ?, ?, ?, ?, ?, ?)", fresh
            )
        if moved:
            self.connection.executemany(
                "UPDATE docs SET seq = ?, rev = ?, deleted = ?, body = ?, leaves = ?, tree = ? WHERE seq = ?", moved
            )
