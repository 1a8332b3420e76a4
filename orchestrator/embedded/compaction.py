"""Forgetting the bodies of revisions that have been replaced.

Old revisions can be read until they are compacted away, as in CouchDB, whose compaction daemon also works unasked. Here
the writer prunes when it has nothing else to do, a slice at a time, and keeps the most recent ones; ``POST _compact``
prunes them all and gives the space back to the disk. The bodies of leaves, conflicting ones included, always stay.
"""

from __future__ import annotations

import sqlite3

from orchestrator.embedded import codec
from orchestrator.embedded.revisions import RevisionTree
from orchestrator.embedded.updates import Counters

KEPT = 20_000  # replaced bodies that may pile up before pruning begins; about 40 MB of usual documents
RECENT = 10_000  # sequences back from the newest that pruning leaves alone
SLICE = 2_000  # sequences looked at in one transaction: some milliseconds, so that no write waits long

_REPLACED = """
    SELECT b.seq FROM bodies b LEFT JOIN docs d ON d.seq = b.seq
    WHERE b.seq > ? AND b.seq <= ? AND (d.seq IS NULL OR d.body <> b.seq)
"""
# The layout has an index of just these rows, so that this costs nothing where there are no conflicts.
_BRANCHED = "SELECT body, tree FROM docs WHERE leaves > 1 OR body <> seq"


def drop(connection: sqlite3.Connection, after: int, upto: int) -> int:
    """Delete the replaced bodies among some sequences, in one transaction. Returns how many."""
    connection.execute("BEGIN IMMEDIATE")
    replaced = {row[0] for row in connection.execute(_REPLACED, (after, upto))}
    if replaced:
        for body, tree in connection.execute(_BRANCHED):
            replaced.discard(body)
            replaced.difference_update(leaf.body for leaf in RevisionTree.decode(tree).leaves())
        connection.executemany("DELETE FROM bodies WHERE seq = ?", [(seq,) for seq in replaced])
    connection.execute("COMMIT")
    return len(replaced)


def compact(connection: sqlite3.Connection) -> tuple[int, set[str]]:
    """Delete all replaced bodies and shrink the file.

    Returns:
        How many bodies went, and the attachments' files that are still named by one that stays.
    """
    last = connection.execute("SELECT coalesce(max(seq), 0) FROM bodies").fetchone()[0]
    gone = drop(connection, 0, last)
    used: set[str] = set()
    for (stored,) in connection.execute("SELECT atts FROM bodies WHERE atts IS NOT NULL"):
        used.update(entry["blob"] for entry in codec.loads(stored).values())
    connection.execute("VACUUM")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return gone, used


class Pruner:
    """Decides when the writer's spare time goes into pruning, and how far it has come."""

    def __init__(self) -> None:
        self._position = 0
        self._target = 0
        self._gone = 0

    def is_due(self, counters: Counters) -> bool:
        """Whether there is a slice to do now."""
        if self._position < self._target:
            return True
        if counters.replaced <= max(KEPT, counters.documents + counters.deleted):
            return False
        self._position, self._target, self._gone = 0, counters.seq - RECENT, 0
        return self._target > 0

    def step(self, connection: sqlite3.Connection, counters: Counters) -> None:
        """Do one slice."""
        upto = min(self._position + SLICE, self._target)
        self._gone += drop(connection, self._position, upto)
        self._position = upto
        if upto == self._target:
            # What is left is recent; where nothing could go, nothing will until there are more.
            counters.replaced = min(counters.replaced - self._gone, RECENT) if self._gone else 0
