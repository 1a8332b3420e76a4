"""Design documents into a database, without a gap for those who use them.

A design document whose views change would have all its indexes rebuilt while everyone waits. So the new one is put
beside it under a staging name, its views are asked for until they are built, and only then it is copied over the live
name: the index belongs to what the functions say, not to the name, and is there already. What has not changed is not
written at all: a hash of what was pushed stands in the document.

Crash-only: an interrupted push leaves a staging document, which the next push takes up or removes. Two pushes at once
are harmless: the last one wins, and both say what they did.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from orchestrator.couch.database import REPLACED, Database
from orchestrator.errors import Conflict, DatabaseError, NotFound, Unavailable

STAGING = "-staging"
MARK = "orchestrator"  # the member of a design document that carries the hash of what was pushed
POLL_TIMEOUT = 5.0  # s a view may stay silent while it is built, before it is asked again
POLL_WAIT = 0.5  # s between two questions
LONGEST_BUILD = 6 * 3600.0  # s; an index over ten million documents takes about a quarter of an hour
FAULTS = 5  # times in a row that the server may answer a build with a fault (a function that throws stays one)
SETTLE_WAIT = 0.1  # s between two looks at whether the server knows the copied document everywhere
SETTLE_LOOKS = 50
ATTEMPTS = 5  # times that a copy is tried again when somebody else pushes at the same time


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a view's index is: ``done`` of ``total`` changes, where the server tells."""

    name: str
    view: str
    done: int | None = None
    total: int | None = None


def fingerprint(design: dict[str, Any]) -> str:
    """A hash of what a design document says, without its id, its revision and the mark itself."""
    text = json.dumps(_content(design), sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def push(
    database: Database,
    designs: dict[str, dict[str, Any]],
    *,
    progress: Callable[[Progress], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
    wait: Callable[[float], Any] | None = None,
    longest: float = LONGEST_BUILD,
) -> list[tuple[str, str]]:
    """Bring ``designs`` (by id) into ``database``.

    Args:
        designs: the design documents, as ``orchestrator.designs.build`` makes them.
        progress: is told how far an index is.
        clock: seconds, monotonic.
        wait: waits so many seconds.
        longest: seconds that one design document's views may take to be built.

    Returns:
        (id, "unchanged" | "created" | "replaced") for each, in order.

    Raises:
        NotFound: there is no such database.
        Refused: the database does not take a design document (a function that does not compile); the live one stays.
        Unauthorised: the account is no admin of the database.
        Unavailable: the database is away, or the index was not built in time; push again to go on.
    """
    wait = wait or threading.Event().wait
    live = show(database, list(designs))
    results = []
    changed = False
    for name, design in designs.items():
        current = live[name]
        if current is not None and _same(current, design):
            results.append((name, "unchanged"))
            _remove_staging(database, name)
            continue
        _push_one(database, name, design, current, progress, clock, wait, longest)
        changed = True
        results.append((name, "created" if current is None else "replaced"))
    if changed:
        database.cleanup_views()
    return results


def _push_one(
    database: Database,
    name: str,
    design: dict[str, Any],
    current: dict[str, Any] | None,
    progress: Callable[[Progress], None] | None,
    clock: Callable[[], float],
    wait: Callable[[float], Any],
    longest: float,
) -> None:
    marked = {**_content(design), MARK: {"hash": fingerprint(design)}}
    views = design.get("views") or {}
    if not views or (current is not None and views == current.get("views")):
        # Nothing to build: the indexes that are there stay those of the new one.
        _put_over(database, name, marked)
        return
    staging = name + STAGING
    _put_over(database, staging, marked)
    _build(database, staging, views, progress, clock, wait, longest)
    for attempt in range(1, ATTEMPTS + 1):
        newest = _get(database, name)
        if newest is not None and _same(newest, design):
            break  # somebody else has pushed the very same meanwhile
        try:
            database.copy(staging, name, None if newest is None else newest["_rev"])
            break
        except NotFound:
            _put_over(database, name, marked)  # another push has removed the staging document: it is built by now
            break
        except Conflict:
            if attempt == ATTEMPTS:
                raise
    _settle(database, staging, name, wait)
    _remove_staging(database, name)


def _settle(database: Database, staging: str, name: str, wait: Callable[[float], Any]) -> None:
    """Have the index asked for under the live name before the staging name goes.

    CouchDB ends the process of an index when the last name that asked for it goes, and with it what it has not yet put
    on disk (the last seconds of a build): readers would wait for that once more.
    """
    for _look in range(SETTLE_LOOKS):
        try:
            if database.index_signature(name) == database.index_signature(staging):
                return
        except NotFound:
            return  # another push has removed the staging document
        wait(SETTLE_WAIT)


def _put_over(database: Database, name: str, content: dict[str, Any]) -> None:
    """Put a design document whatever is there; nothing is written if it is there already."""
    for attempt in range(1, ATTEMPTS + 1):
        current = _get(database, name)
        if current is not None and _same(current, content):
            return
        try:
            database.put({**content, "_id": name, **({"_rev": current["_rev"]} if current else {})})
            return
        except Conflict:
            if attempt == ATTEMPTS:
                raise


def _build(
    database: Database,
    staging: str,
    views: dict[str, Any],
    progress: Callable[[Progress], None] | None,
    clock: Callable[[], float],
    wait: Callable[[float], Any],
    longest: float,
) -> None:
    """Ask for a view until its index is there. All views of one design document share it: one of them is enough.

    A build is not held in one long request, which proxies and time-outs would cut: the server goes on building after
    a request that gave up, so it is asked again and again.
    """
    view = next(iter(sorted(views)))
    design = staging.removeprefix("_design/")
    began = clock()
    faults = 0
    while True:
        try:
            database.view(f"{design}/{view}", limit=0, reduce=False, timeout=POLL_TIMEOUT)
            return
        except NotFound as error:
            if _get(database, staging) is None:
                return  # another push was quicker and has cleared it away
            if REPLACED not in str(error) or clock() - began > longest:
                raise
        except Unavailable as error:
            building = isinstance(error.__cause__, TimeoutError)  # it listened, and had nothing to say yet
            faults = 0 if building else faults + 1
            if faults >= FAULTS:
                raise
            if clock() - began > longest:
                raise Unavailable(
                    f"{staging}: its index was not built within {longest:g} s ({error}). The live one is untouched; "
                    "push again to go on"
                ) from error
        if progress is not None:
            progress(_progress(database, staging, view))
        wait(POLL_WAIT)


def _progress(database: Database, staging: str, view: str) -> Progress:
    """What ``_active_tasks`` says of the build; without figures where it says nothing (it is for admins)."""
    done, total = 0, 0
    try:
        tasks = database.connection.json("GET", ("_active_tasks",), subject=database.subject)
    except DatabaseError:  # Unauthorised, mostly
        tasks = []
    for task in tasks if isinstance(tasks, list) else []:
        here = database.name in str(task.get("database", ""))  # shards/00000000-7fffffff/name.1700000000
        if here and task.get("type") == "indexer" and task.get("design_document") == staging:
            done += int(task.get("changes_done") or 0)
            total += int(task.get("total_changes") or 0)
    return Progress(staging.removesuffix(STAGING), view, done, total) if total else Progress(staging, view)


def show(database: Database, names: list[str]) -> dict[str, dict[str, Any] | None]:
    """The design documents ``names`` as they are in the database; None where there is none."""
    found = database.get_many(names)
    return {name: found.get(name) for name in names}


def diff(database: Database, designs: dict[str, dict[str, Any]]) -> str:
    """What a push would change, for people: a unified diff for each part of each design document; "" if nothing."""
    live = show(database, list(designs))
    lines: list[str] = []
    for name, design in designs.items():
        before, after = _parts(live[name] or {}), _parts(design)
        for part in sorted({*before, *after}):
            old, new = before.get(part, ""), after.get(part, "")
            if old != new:
                here = f"{name}/{part}"
                lines += difflib.unified_diff(
                    old.splitlines(),
                    new.splitlines(),
                    f"database/{here}" if part in before else "(none)",
                    f"chain/{here}" if part in after else "(none)",
                    lineterm="",
                )
    return "\n".join(lines)


def secure(database: Database, security: dict[str, Any]) -> bool:
    """Put ``_security`` (it has no versions: it is put at each deploy). Returns False if it was so already."""
    if database.security() == security:
        return False
    database.set_security(security)
    return True


def _content(design: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in design.items() if key not in ("_id", "_rev", MARK)}


def _same(current: dict[str, Any], design: dict[str, Any]) -> bool:
    """Whether the database holds just this. The hash alone does not do: somebody may have edited by hand."""
    mark = current.get(MARK)
    return isinstance(mark, dict) and mark.get("hash") == fingerprint(design) == fingerprint(current)


def _parts(design: dict[str, Any]) -> dict[str, str]:
    """The parts of a design document as text: ``views/name/map``, ``filters/name``, ``chain``, ..."""
    parts: dict[str, str] = {}

    def walk(path: str, value: Any) -> None:
        if isinstance(value, dict) and path.partition("/")[0] in ("views", "filters", "updates"):
            for key, inner in value.items():
                walk(f"{path}/{key}", inner)
        else:
            parts[path] = value if isinstance(value, str) else json.dumps(value, indent=2, sort_keys=True)

    for key, value in _content(design).items():
        walk(key, value)
    return parts


def _get(database: Database, name: str) -> dict[str, Any] | None:
    return database.get_many([name]).get(name)


def _remove_staging(database: Database, name: str) -> None:
    """Clear away what a push, perhaps one that was interrupted, has left."""
    staging = _get(database, name + STAGING)
    if staging is None:
        return
    try:
        database.delete(staging)
    except (Conflict, NotFound):
        return  # another push is at it
