"""One run of a replication: from the last common checkpoint to the end of the source's changes, or on for ever.

CouchDB's protocol, version 3: compare the logs of both ends, read changes in batches, ask the target which revisions
it lacks, fetch those with their history, write them with ``new_edits=false``, and record the sequence in both logs.
A document that the target refuses (its guard says no) is counted and left; anything else that goes wrong ends the run,
and the next one begins at the last checkpoint.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from orchestrator import faults
from orchestrator.embedded import codec
from orchestrator.embedded.peer import TIMEOUT, Peer, PeerError
from orchestrator.embedded.replication_attachments import carry
from orchestrator.embedded.replication_log import Session, Stats, common_sequence, updated
from orchestrator.embedded.replication_request import Wanted

ROUND = 10.0  # s that the source may keep a question for changes waiting; a dead link is found out soon after
PATIENCE = 20.0  # s beyond that until a silent source counts as away
FETCH = 250  # documents asked for in one _bulk_get, so that a batch of large ones stays within memory
_DENIED = (401, 403)
_NO_SUCH_ENDPOINT = (400, 404, 405, 415, 501)


class Progress:
    """How far a replication has come; written by its thread, read by whoever asks."""

    def __init__(self) -> None:
        self.stats = Stats()
        self.pending: int | None = None
        self.source_seq: Any = 0
        self.through_seq: Any = 0
        self.checkpointed: Any = 0

    def info(self) -> dict[str, Any]:
        """The ``info`` object of ``_scheduler/jobs``."""
        return {
            "revisions_checked": self.stats.revisions_checked,
            "missing_revisions_found": self.stats.missing_found,
            "docs_read": self.stats.docs_read,
            "docs_written": self.stats.docs_written,
            "doc_write_failures": self.stats.doc_write_failures,
            "changes_pending": self.pending,
            "checkpointed_source_seq": self.checkpointed,
            "source_seq": self.source_seq,
            "through_seq": self.through_seq,
        }


class Replication:
    """One run.

    Args:
        wanted: what to replicate.
        server: this server's uuid, a part of the replication's id.
        progress: told how far it has come.
        well: called whenever a round has succeeded.
        timeout: seconds of silence after which an end counts as away.
        clock: seconds since 1970.
        monotonic: seconds, for the distance between checkpoints.
    """

    def __init__(
        self,
        wanted: Wanted,
        server: str,
        progress: Progress,
        well: Callable[[], None] = lambda: None,
        timeout: float = TIMEOUT,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.wanted = wanted
        self.progress = progress
        self._server = server
        self._well = well
        self._clock = clock
        self._monotonic = monotonic
        self.source = Peer(wanted.source.url, wanted.source.headers, timeout)
        self.target = Peer(wanted.target.url, wanted.target.headers, timeout)
        self._bulk_get = wanted.use_bulk_get
        self._logs: dict[str, dict[str, Any]] = {}
        self._log_id = ""
        self._saved_at = 0.0

    def cut(self) -> None:
        """End the run at once, from any thread: it raises Cut."""
        self.source.cut()
        self.target.cut()

    def close(self) -> None:
        """Close the connections; from the thread that ran it."""
        self.source.close()
        self.target.close()

    def identity(self) -> str:
        """The replication's id without its suffix; asks the source for a filter function's code.

        Raises:
            PeerError: the filter cannot be read.
        """
        code = ""
        if self.wanted.filter:
            design, _, name = self.wanted.filter.partition("/")
            found = self.source.json("GET", f"_design/{design}")
            code = str((found.get("filters") or {}).get(name, ""))
        return self.wanted.identity(self._server, code)

    def run(self) -> dict[str, Any]:
        """Replicate. Returns what ``POST /_replicate`` answers at the end of one that is not continuous.

        Raises:
            PeerError: one end failed; the next run goes on from the last checkpoint.
            Cut: it was ended.
        """
        self._open(self.source, "source")
        if self.wanted.create_target:
            made = self.target.ask("PUT")
            if made.status in _DENIED:
                raise made.failure()
        self._open(self.target, "target")
        self._log_id = self.identity()
        begin = self._beginning()
        session = Session(uuid.uuid4().hex, self._clock(), begin)
        stats = self.progress.stats = Stats()
        self.progress.checkpointed = self.progress.through_seq = begin
        seq = recorded = begin
        self._saved_at = self._monotonic()
        while True:
            rows, last, pending = self._changes(seq, wait=seq != recorded)
            if rows:
                self._transfer(rows, stats)
            seq = last
            self.progress.through_seq, self.progress.pending = seq, pending
            self._well()
            ended = not self.wanted.continuous and len(rows) < self.wanted.batch
            due = self._monotonic() - self._saved_at >= self.wanted.checkpoint
            if seq != recorded and (ended or due or not rows):
                self._checkpoint(session, stats, seq)
                recorded = seq
            if ended:
                return self._result(session, begin, seq)

    def _open(self, peer: Peer, name: str) -> None:
        answer = peer.ask("GET")
        if answer.status == 404:
            raise PeerError("db_not_found", f"could not open {peer.url}/", 404)
        if answer.status >= 300:
            error = answer.failure()
            raise PeerError(error.error, f"could not open {peer.url}/: {error.reason}", error.status)
        found = answer.json()
        if not isinstance(found, dict) or "update_seq" not in found:
            raise PeerError("db_not_found", f"the {name} {peer.url}/ is no database", 404)
        if name == "source":
            self.progress.source_seq = found["update_seq"]

    # Where to begin, and how far it is recorded

    def _beginning(self) -> Any:
        self._logs = {}
        for name, peer in (("source", self.source), ("target", self.target)):
            answer = peer.ask("GET", f"_local/{self._log_id}")
            if answer.status != 404:
                if answer.status >= 300:
                    raise answer.failure()
                self._logs[name] = answer.json()
        if self.wanted.since_seq is not None:
            return self.wanted.since_seq
        if not self.wanted.use_checkpoints:
            return 0
        return common_sequence(self._logs.get("source", {}), self._logs.get("target", {}))

    def _checkpoint(self, session: Session, stats: Stats, seq: Any) -> None:
        self._saved_at = self._monotonic()
        if not self.wanted.use_checkpoints:
            return
        faults.point("replication.copied")
        done = self.target.ask("POST", "_ensure_full_commit", body={})
        if done.status >= 300 and done.status not in _NO_SUCH_ENDPOINT:
            raise done.failure()
        # The target first: what only the source has recorded would be passed over after a crash in between.
        for name, peer in (("target", self.target), ("source", self.source)):
            self._record(name, peer, updated(self._logs.get(name, {}), session, stats, seq, self._clock()))
            if name == "target":
                faults.point("replication.recorded")
        self.progress.checkpointed = seq

    def _record(self, name: str, peer: Peer, log: dict[str, Any]) -> None:
        place = f"_local/{self._log_id}"
        for last in (False, True):
            rev = self._logs.get(name, {}).get("_rev")
            answer = peer.ask("PUT", place, body={"_id": place, **({"_rev": rev} if rev else {}), **log})
            if answer.status == 409 and not last:
                known = peer.ask("GET", place)
                self._logs[name] = known.json() if known.status < 300 else {}
                continue
            if answer.status >= 300:
                raise answer.failure()
            self._logs[name] = {**log, "_rev": answer.json()["rev"]}
            return

    def _result(self, session: Session, begin: Any, seq: Any) -> dict[str, Any]:
        stats, now = self.progress.stats, self._clock()
        log = updated(self._logs.get("source", {}), session, stats, seq, now)
        if seq == begin and self._logs.get("source", {}).get("session_id") is not None:
            log = {key: value for key, value in self._logs["source"].items() if not key.startswith("_")}
            return {"ok": True, "no_changes": True, **log}
        return {"ok": True, **log}

    # Changes

    def _changes(self, since: Any, wait: bool) -> tuple[list[dict[str, Any]], Any, int | None]:
        """The next batch of changes: its rows, the sequence after it, and how many are still to come.

        Args:
            wait: progress that is not recorded yet shall not wait longer for company than until its checkpoint is due.
        """
        wanted = self.wanted
        query = {
            "style": "main_only" if wanted.winning_revs_only else "all_docs",
            "since": since if isinstance(since, str) else codec.dumps(since).decode(),
            "limit": str(wanted.batch),
            "feed": "longpoll" if wanted.continuous else "normal",
        }
        longest = ROUND
        if wanted.continuous:
            if wait:
                longest = max(0.1, min(ROUND, self._saved_at + wanted.checkpoint - self._monotonic()))
            query["timeout"] = str(int(longest * 1000))
        body: dict[str, Any] | None = None
        if wanted.doc_ids is not None:
            query["filter"] = "_doc_ids"
            body = {"doc_ids": list(wanted.doc_ids)}
        elif wanted.selector is not None:
            query["filter"] = "_selector"
            body = {"selector": wanted.selector}
        elif wanted.filter:
            query = {**wanted.query_params, **query, "filter": wanted.filter}
        method = "GET" if body is None else "POST"
        found = self.source.json(method, "_changes", query=query, body=body, timeout=longest + PATIENCE)
        rows = [row for row in found["results"] if row.get("id")]
        pending = found.get("pending")
        if rows and pending is not None:
            self.progress.source_seq = found["last_seq"] if pending == 0 else self.progress.source_seq
        return rows, found["last_seq"], pending if isinstance(pending, int) else None

    # Documents

    def _transfer(self, rows: list[dict[str, Any]], stats: Stats) -> None:
        asked: dict[str, list[str]] = {}
        for row in rows:
            asked.setdefault(row["id"], []).extend(change["rev"] for change in row["changes"])
        missing = self.target.json("POST", "_revs_diff", body=asked)
        stats.revisions_checked += sum(map(len, asked.values()))
        stats.missing_found += sum(len(found["missing"]) for found in missing.values())
        names = [name for name in asked if name in missing]
        for start in range(0, len(names), FETCH):
            some = {name: missing[name] for name in names[start : start + FETCH]}
            self._write(list(self._fetch(some, stats)), stats)

    def _fetch(self, missing: dict[str, dict[str, Any]], stats: Stats) -> Iterator[dict[str, Any]]:
        """The documents that lack, but for those with attachments: they have gone over on a way of their own."""
        alone: dict[str, list[str]] = {}
        if self._bulk_get:
            listed = [{"id": name, "rev": rev} for name, found in missing.items() for rev in found["missing"]]
            query = {"revs": "true", "latest": "true", "attachments": "false"}
            answer = self.source.ask("POST", "_bulk_get", query=query, body={"docs": listed})
            if answer.status in _NO_SUCH_ENDPOINT:
                self._bulk_get = False
            elif answer.status >= 300:
                raise answer.failure()
            else:
                seen: set[tuple[str, str]] = set()
                for result in answer.json()["results"]:
                    for one in result["docs"]:
                        document = one.get("ok")
                        if document is None:
                            continue  # the revision is gone: its successor comes with a later change
                        key = (document["_id"], document["_rev"])
                        if key in seen:
                            continue  # two old revisions that have the same successor
                        seen.add(key)
                        if document.get("_attachments"):
                            alone.setdefault(key[0], []).append(key[1])
                            continue
                        stats.docs_read += 1
                        yield document
        if not self._bulk_get:
            alone = {name: found["missing"] for name, found in missing.items()}
        for name, revs in alone.items():
            yield from carry(self.source, self.target, name, revs, missing[name].get("possible_ancestors", []), stats)

    def _write(self, documents: list[dict[str, Any]], stats: Stats) -> None:
        if not documents:
            return
        answer = self.target.ask("POST", "_bulk_docs", body={"docs": documents, "new_edits": False})
        if answer.status == 413:
            if len(documents) == 1:
                stats.doc_write_failures += 1
                return
            middle = len(documents) // 2
            self._write(documents[:middle], stats)
            self._write(documents[middle:], stats)
            return
        if answer.status >= 300:
            raise answer.failure()
        refused = [row for row in answer.json() if "error" in row]
        stats.doc_write_failures += len(refused)
        stats.docs_written += len(documents) - len(refused)
