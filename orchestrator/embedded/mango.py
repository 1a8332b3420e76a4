"""Mango queries: ``_find`` and ``_explain``. Selectors are in ``mango_selector``, indexes in ``mango_index``.

A query walks over one index in key order, fetches documents in batches and lets the whole selector decide about each:
the index only narrows what is looked at.
"""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from orchestrator.embedded import codec, revisions
from orchestrator.embedded.collation import ARRAY, HIGHEST, sort_key
from orchestrator.embedded.database import SELECT, Row
from orchestrator.embedded.mango_index import (
    Index,
    Range,
    Sort,
    choose,
    create_index,
    delete_index,
    list_indexes,
    parse_sort,
    range_of,
)
from orchestrator.embedded.mango_selector import (
    Selector,
    SelectorError,
    compile_normal,
    compile_selector,
    get_field,
    normalize,
    parse_field,
)
from orchestrator.embedded.view_blocks import Place, rows
from orchestrator.embedded.view_index import Definition
from orchestrator.embedded.views import Views

__all__ = [
    "SelectorError",
    "compile_selector",
    "create_index",
    "delete_index",
    "explain",
    "find",
    "list_indexes",
]

Json = Any

DEFAULT_LIMIT = 25  # documents, as CouchDB
BATCH = 100  # documents fetched at once
SCAN_WARNING = 10  # documents looked at for each one found before CouchDB warns

_ABSENT = object()
_LAST_ID = "\U0010ffff"  # after every id


@dataclass
class Query:
    """A request to ``_find``, checked."""

    selector: Selector
    sort: Sort
    fields: list[str]
    use_index: list[str]
    limit: int
    skip: int
    bookmark: str
    conflicts: bool
    update: bool
    execution_stats: bool
    options: dict[str, Json]

    @property
    def descending(self) -> bool:
        """Whether the order is downwards."""
        return bool(self.sort) and self.sort[0][1] == "desc"


def parse(request: dict[str, Json]) -> Query:
    """Check a request to ``_find`` or ``_explain``.

    Raises:
        SelectorError: as CouchDB.
    """
    defaults: dict[str, Json] = {
        "selector": _ABSENT, "use_index": [], "bookmark": "nil", "limit": DEFAULT_LIMIT, "skip": 0, "sort": [],
        "fields": [], "partition": "", "r": 1, "conflicts": False, "stale": False, "update": True, "stable": False,
        "execution_stats": False, "allow_fallback": True,
    }  # fmt: skip
    for name in request:
        if name not in defaults:
            raise SelectorError("invalid_key", f"Invalid key {name} for this request.")
    given = {**defaults, **request}
    if given["selector"] is _ABSENT:
        raise SelectorError("missing_required_key", "Missing required key: selector")
    normal = normalize(given["selector"])
    for name in ("limit", "skip"):
        if isinstance(given[name], bool) or not isinstance(given[name], int) or given[name] < 0:
            reason = f"{given[name]!r} is not an integer greater than or equal to zero"
            raise SelectorError("invalid_non_neg_integer", reason)
    if isinstance(given["r"], bool) or not isinstance(given["r"], int) or given["r"] < 1:
        raise SelectorError("invalid_pos_integer", f"{given['r']!r} is not an integer greater than zero")
    for name in ("conflicts", "update", "stable", "execution_stats", "allow_fallback"):
        if not isinstance(given[name], bool):
            raise SelectorError("invalid_boolean", f"Invalid boolean value: {given[name]!r}")
    fields = given["fields"] if given["fields"] != "all_fields" else []
    if not isinstance(fields, list):
        raise SelectorError("invalid_fields", f"Fields must be an array of strings, not: {fields!r}")
    for name in fields:
        if not isinstance(name, str):
            raise SelectorError("invalid_field", f"Invalid JSON for field spec: {name!r}")
    bookmark = given["bookmark"]
    if bookmark is not None and not isinstance(bookmark, str):
        raise SelectorError("invalid_bookmark", f"Invalid bookmark value: {codec.dumps(bookmark).decode()}")
    options = {name: given[name] for name in defaults if name not in ("selector", "allow_fallback")}
    return Query(
        selector=normal,
        sort=parse_sort(given["sort"]),
        fields=fields,
        use_index=_use_index(given["use_index"]),
        limit=given["limit"],
        skip=given["skip"],
        bookmark=bookmark or "nil",
        conflicts=given["conflicts"],
        update=given["update"] and given["stale"] != "ok",
        execution_stats=given["execution_stats"],
        options={**options, "use_index": _use_index(given["use_index"]), "sort": dict(parse_sort(given["sort"]))},
    )


def _use_index(given: Json) -> list[str]:
    if given is None or given == []:
        return []
    if isinstance(given, str) and given:
        parts = given.removeprefix("_design/").split("/")
    elif isinstance(given, list) and len(given) <= 2 and all(isinstance(part, str) and part for part in given):
        parts = [given[0].removeprefix("_design/"), *given[1:]]
    else:
        parts = []
    if not parts or len(parts) > 2:
        raise SelectorError("invalid_index_name", f"Invalid index name: {given!r}")
    return parts


# Reading


@dataclass
class Candidate:
    """A document that an index leads to, and where to go on after it."""

    row: Row
    place: Place


def find(views: Views, db: Any, request: dict[str, Json]) -> dict[str, Json]:
    """Answer ``POST _find``.

    Args:
        views: keeps the indexes.
        db: the database.
        request: the decoded body.

    Returns:
        ``{"docs": [...], "bookmark": ...}``, with ``warning`` and ``execution_stats`` where they belong.

    Raises:
        SelectorError: as CouchDB.
    """
    started = time.perf_counter()
    query = parse(request)
    index, as_named = choose(db, query.selector, query.sort, query.use_index)
    matches = compile_normal(query.selector)
    after = _open_bookmark(query.bookmark)
    # After a bookmark what was skipped on the first page must not be skipped again.
    skip = 0 if after is not None else query.skip
    found: list[Json] = []
    examined = 0
    last: Place | None = None
    if query.limit:
        for candidate in _candidates(views, db, index, query, after):
            examined += 1
            document = candidate.row.document()
            if not matches(document):
                continue
            if skip:
                skip -= 1
                continue
            if query.conflicts:
                _add_conflicts(document, candidate.row)
            found.append(_project(document, query.fields))
            last = candidate.place
            if len(found) >= query.limit:
                break
    answer: dict[str, Json] = {"docs": found, "bookmark": query.bookmark if last is None else _make_bookmark(last)}
    if query.execution_stats:
        answer["execution_stats"] = {
            "total_keys_examined": 0,
            "total_docs_examined": examined,
            "total_quorum_docs_examined": 0,
            "results_returned": len(found),
            "execution_time_ms": round((time.perf_counter() - started) * 1000, 3),
        }
    warning = _warning(index, as_named, query, examined, len(found))
    if warning:
        answer["warning"] = warning
    return answer


def _warning(index: Index, as_named: bool, query: Query, examined: int, returned: int) -> str:
    said = []
    if not as_named:
        ddoc = "_design/" + query.use_index[0]
        if len(query.use_index) == 1:
            said.append(f"{ddoc} was not used because it does not contain a valid index for this query.")
        else:
            said.append(f"{ddoc}, {query.use_index[1]} was not used because it is not a valid index for this query.")
    if index.ddoc is None:
        said.append("No matching index found, create an index to optimize query time.")
    if examined > SCAN_WARNING * max(returned, 1):
        said.append(
            "The number of documents examined is high in proportion to the number of results returned. "
            "Consider adding a more specific index to improve this."
        )
    return "\n".join(said)


def _ranges(index: Index, selector: Selector) -> list[Range]:
    """The ranges of the index's first fields, as far as the selector says something about them."""
    found = []
    for name in index.columns:
        bounds = range_of(selector, name)
        if bounds is None:
            break
        found.append(bounds)
    return found


def _candidates(
    views: Views, db: Any, index: Index, query: Query, after: Place | None
) -> Iterator[Candidate]:
    if query.selector == {"$or": []}:
        return iter(())  # CouchDB finds nothing, although the selector as such holds for everything
    if index.ddoc is None:
        return _by_id(db, query, after)
    ranges = _ranges(index, query.selector)
    if any(bounds.empty for bounds in ranges):
        return iter(())
    return _by_index(views, db, index, ranges, query, after)


def _by_id(db: Any, query: Query, after: Place | None) -> Iterator[Candidate]:
    """Walk over all documents in the order of their ids."""
    low, high = "", _LAST_ID
    bounds = range_of(query.selector, "_id")
    if bounds is not None:
        if bounds.low is not None and isinstance(bounds.low[0], str):
            low = bounds.low[0]
        if bounds.high is not None:
            high = bounds.high[0] + "\0" if isinstance(bounds.high[0], str) else ""
    if after is not None:
        low, high = (low, after[1]) if query.descending else (max(low, after[1] + "\0"), high)
    order = "DESC" if query.descending else "ASC"
    select = f"{SELECT} WHERE d.id >= ? AND d.id < ? AND d.deleted = 0 ORDER BY d.id {order} LIMIT {BATCH}"
    while True:
        with db.reading() as connection:
            batch = [Row(*values) for values in connection.execute(select, (low, high))]
        for row in batch:
            if not row.id.startswith("_design/"):
                yield Candidate(row, (b"", row.id))
        if len(batch) < BATCH:
            return
        if query.descending:
            high = batch[-1].id
        else:
            low = batch[-1].id + "\0"


def _by_index(
    views: Views, db: Any, index: Index, ranges: list[Range], query: Query, after: Place | None
) -> Iterator[Candidate]:
    """Walk over the rows of a JSON index."""
    definition = Definition(db.get(index.ddoc))
    view = definition.views[index.name]
    kept = views.index(db, definition)
    if query.update:
        kept.update()
    low, high = ARRAY, ARRAY
    for bounds in ranges:
        if bounds.low is None:
            break
        low += sort_key(bounds.low[0])
    for bounds in ranges:
        if bounds.high is None:
            break
        high += sort_key(bounds.high[0])
    start, end = (low, ""), (high + HIGHEST, "")
    if after is not None:
        start, end = (start, after) if query.descending else (max(start, (after[0], after[1] + "\0")), end)
    while True:
        with kept.file.reading() as connection:
            batch = []
            for found in rows(connection, view.number, start, end, query.descending):
                batch.append(found)
                if len(batch) == BATCH:
                    break
        documents = db.rows([found.id for found in batch])
        for found in batch:
            row = documents.get(found.id)
            if row is not None and not row.deleted:
                yield Candidate(row, (found.key, found.id))
        if len(batch) < BATCH:
            return
        last = (batch[-1].key, batch[-1].id)
        start, end = (start, last) if query.descending else ((last[0], last[1] + "\0"), end)


# Answers


def _project(document: dict[str, Json], fields: list[str]) -> dict[str, Json]:
    """Keep only some fields, nested as they are."""
    if not fields:
        return document
    kept: dict[str, Json] = {}
    for name in fields:
        value = get_field(document, name, _ABSENT)
        if value is _ABSENT:
            continue
        place = kept
        *parents, leaf = parse_field(name)
        for parent in parents:
            place = place.setdefault(parent, {})
        place[leaf] = value
    return kept


def _add_conflicts(document: dict[str, Json], row: Row) -> None:
    if row.leaves > 1:
        losing = [revisions.text(leaf.revision) for leaf in row.revision_tree().leaves() if not leaf.deleted]
        others = [rev for rev in losing if rev != row.rev]
        if others:
            document["_conflicts"] = others


def _make_bookmark(place: Place) -> str:
    return base64.urlsafe_b64encode(codec.dumps([place[0].hex(), place[1]])).decode("ascii")


def _open_bookmark(bookmark: str) -> Place | None:
    if bookmark == "nil":
        return None
    try:
        key, identifier = codec.loads(base64.urlsafe_b64decode(bookmark.encode("ascii")))
        return bytes.fromhex(key), str(identifier)
    except (ValueError, TypeError, binascii.Error, UnicodeError):
        raise SelectorError("invalid_bookmark", f'Invalid bookmark value: "{bookmark}"') from None


def explain(views: Views, db: Any, request: dict[str, Json]) -> dict[str, Json]:
    """Answer ``POST _explain``: which index a query would use, and what of it."""
    query = parse(request)
    index, _as_named = choose(db, query.selector, query.sort, query.use_index)
    ranges = [] if query.selector == {"$or": []} else _ranges(index, query.selector)
    low: list[Json] = []
    high: list[Json] = []
    for bounds in ranges:
        if bounds.low is None:
            break
        low.append(bounds.low[0])
    for bounds in ranges:
        if bounds.high is None:
            high.append("<MAX>")
            break
        high.append(bounds.high[0])
    else:
        high.append("<MAX>")
    start, end = (low, high) if index.ddoc is not None else ((low or [None])[0], high[0])
    if query.descending:
        start, end = end, start
    return {
        "dbname": db.name,
        "index": index.describe(),
        "partitioned": False,
        "selector": query.selector,
        "opts": query.options,
        "limit": query.limit,
        "skip": query.skip,
        "fields": query.fields,
        "mrargs": {
            "include_docs": True,
            "view_type": "map",
            "reduce": False,
            "partition": None,
            "start_key": start,
            "end_key": end,
            "direction": "rev" if query.descending else "fwd",
            "stable": query.options["stable"],
            "update": query.update,
            "conflicts": query.conflicts or "undefined",
        },
    }
