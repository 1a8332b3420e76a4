"""Mango's indexes: their definitions in design documents, their map function, and which one serves a query.

An index of type ``json`` is a view of a design document with the language ``query``; its rows have the key
``[value of field 1, ...]`` for each document that has all fields and passes ``partial_filter_selector``. The rest of
the machinery is that of views.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from orchestrator.embedded import codec, documents
from orchestrator.embedded.collation import sort_key
from orchestrator.embedded.mango_selector import Selector, SelectorError, compile_selector, get_field, normalize
from orchestrator.embedded.problems import Problem, missing, not_implemented
from orchestrator.embedded.updates import Refusal
from orchestrator.embedded.view_file import Emitted
from orchestrator.embedded.view_index import Mapper

Json = Any
Sort = list[tuple[str, str]]

_ABSENT = object()

RANGING = ("$lt", "$lte", "$eq", "$gte", "$gt")
"""Operators that leave one range of a field's values; an index can be read for these alone."""

CREATE_KEYS = ("index", "type", "name", "ddoc", "w", "partitioned")


@dataclass(frozen=True)
class Index:
    """An index that a query could use. ``ddoc`` is None for ``_all_docs``."""

    ddoc: str | None
    name: str
    fields: tuple[tuple[str, str], ...]
    partial: Selector = field(default_factory=dict, hash=False)

    @property
    def columns(self) -> list[str]:
        """The fields, in order."""
        return [name for name, _direction in self.fields]

    def describe(self) -> dict[str, Json]:
        """The index as ``_index`` and ``_explain`` show it."""
        definition: dict[str, Json] = {"fields": [{name: direction} for name, direction in self.fields]}
        if self.partial:
            definition["partial_filter_selector"] = self.partial
        if self.ddoc is None:
            return {"ddoc": None, "name": self.name, "type": "special", "def": definition}
        return {"ddoc": self.ddoc, "name": self.name, "type": "json", "partitioned": False, "def": definition}


ALL_DOCS = Index(None, "_all_docs", (("_id", "asc"),))


def indexes_of(ddoc: dict[str, Json]) -> list[Index]:
    """The indexes that a design document defines; views that are no index definitions are passed over."""
    if ddoc.get("language") != "query" or not isinstance(ddoc.get("views"), dict):
        return []
    found = []
    for name, view in ddoc["views"].items():
        definition = view.get("map") if isinstance(view, dict) else None
        fields = definition.get("fields") if isinstance(definition, dict) else None
        if not isinstance(fields, dict) or not isinstance(definition, dict):
            continue
        partial = definition.get("partial_filter_selector") or {}
        found.append(Index(ddoc["_id"], name, tuple(fields.items()), partial))
    return found


def all_indexes(db: Any) -> list[Index]:
    """All indexes of a database, ``_all_docs`` first."""
    found = [index for ddoc in db.design_docs() for index in indexes_of(ddoc)]
    return [ALL_DOCS, *sorted(found, key=lambda index: (index.ddoc or "", index.name))]


def list_indexes(db: Any, limit: int | None = None, skip: int = 0) -> dict[str, Json]:
    """Answer ``GET _index``."""
    found = [index.describe() for index in all_indexes(db)]
    if (limit is not None and limit < 1) or skip < 0:
        raise SelectorError("invalid_list_index_params", "Index parameter ranges: limit > 1, skip > 0", 500)
    return {"total_rows": len(found), "indexes": found[skip : None if limit is None else skip + limit]}


# Definitions


def parse_sort(given: Json) -> Sort:
    """Read the fields of an index, or of a query's ``sort``.

    Raises:
        SelectorError: as CouchDB: no list, no field names, directions that differ.
    """
    if not isinstance(given, list):
        raise SelectorError("invalid_sort_json", f"Sort must be an array of sort specs, not: {given!r}")
    found: Sort = []
    for each in given:
        if isinstance(each, str) and each:
            found.append((each, "asc"))
        elif isinstance(each, dict) and len(each) == 1:
            ((name, direction),) = each.items()
            if direction not in ("asc", "desc"):
                raise SelectorError("invalid_sort_field", f"Invalid sort field: {each!r}")
            found.append((name, direction))
        else:
            raise SelectorError("invalid_sort_field", f"Invalid sort field: {each!r}")
    if len({direction for _name, direction in found}) > 1:
        reason = "Sorts currently only support a single direction for all fields."
        raise SelectorError("unsupported_mixed_sort", reason)
    return found


def create_index(db: Any, request: dict[str, Json], user: dict[str, Json] | None = None) -> dict[str, Json]:
    """Answer ``POST _index``: write the design document, unless it is there already.

    Args:
        user: the userCtx under which the design document is written.

    Raises:
        Problem: a definition that is none, a kind of index that is not supported, or the write was refused.
    """
    for name in request:
        if name not in CREATE_KEYS:
            raise SelectorError("invalid_key", f"Invalid key {name} for this request.")
    if "index" not in request:
        raise SelectorError("missing_required_key", "Missing required key: index")
    kind = request.get("type", "json")
    if not isinstance(kind, str):
        raise SelectorError("invalid_string", f"Invalid string: {kind!r}")
    if kind in ("text", "nouveau"):
        raise not_implemented(f"An index of type {kind!r}")
    if kind != "json":
        raise SelectorError("invalid_index", f"Invalid type for index: {kind}")
    if request.get("partitioned"):
        raise not_implemented("A partitioned index")
    definition = request["index"]
    if not isinstance(definition, dict):
        raise SelectorError("invalid_index", f"JSON indexes must be an object, not: {definition!r}")
    unknown = set(definition) - {"fields", "partial_filter_selector"}
    if unknown:
        raise SelectorError("invalid_key", f"Invalid key {min(unknown)} for this request.")
    if "fields" not in definition:
        raise SelectorError("missing_required_key", "Missing required key: fields")
    fields = parse_sort(definition["fields"])
    if not fields:
        raise SelectorError("invalid_sort_json", "An index needs at least one field.")
    partial = normalize(definition.get("partial_filter_selector", {}))
    generated = hashlib.sha1(json.dumps([fields, partial]).encode(), usedforsecurity=False).hexdigest()
    name, ddoc_id = (_name(request.get(key, generated)) for key in ("name", "ddoc"))
    if not ddoc_id.startswith("_design/"):
        ddoc_id = "_design/" + ddoc_id
    view = {
        "map": {"fields": dict(fields), "partial_filter_selector": partial},
        "reduce": "_count",
        "options": {"def": {**definition, "fields": definition["fields"]}},
    }
    ddoc = db.get(ddoc_id) or {"_id": ddoc_id, "language": "query"}
    if ddoc.get("language") != "query":
        language = ddoc.get("language")
        raise SelectorError("invalid_ddoc_lang", f"Existing design doc has an invalid language: {language!r}")
    views = dict(ddoc.get("views") or {})
    if views.get(name) == view:
        return {"result": "exists", "id": ddoc_id, "name": name}
    _write(db, {**ddoc, "views": {**views, name: view}}, user)
    return {"result": "created", "id": ddoc_id, "name": name}


def delete_index(
    db: Any, ddoc_id: str, kind: str, name: str, user: dict[str, Json] | None = None
) -> dict[str, Json]:
    """Answer ``DELETE _index/_design/x/json/name``.

    Raises:
        Problem: 404 if there is no such index.
    """
    if not ddoc_id.startswith("_design/"):
        ddoc_id = "_design/" + ddoc_id
    ddoc = db.get(ddoc_id)
    if ddoc is None or kind != "json" or name not in [index.name for index in indexes_of(ddoc)]:
        raise missing()
    views = {other: view for other, view in ddoc["views"].items() if other != name}
    rest = {key: value for key, value in ddoc.items() if key != "views"}
    if views:
        rest["views"] = views
    elif set(rest) == {"_id", "_rev", "language"}:
        rest = {"_id": ddoc_id, "_rev": ddoc["_rev"], "_deleted": True}
    _write(db, rest, user)
    return {"ok": True}


def _name(given: Json) -> str:
    if not isinstance(given, str) or not given:
        raise SelectorError("invalid_string", f"Invalid string: {given!r}")
    return given


def _write(db: Any, ddoc: dict[str, Json], user: dict[str, Json] | None) -> None:
    outcome = db.write([documents.draft(ddoc)], user=user)[0]
    if isinstance(outcome, Refusal):
        problem = outcome.problem
        raise Problem(problem.status, problem.error, problem.reason)


def mapper(definitions: list[dict[str, Json]]) -> Mapper:
    """Return the mapper of an index file: for each definition the key of the fields, if the document has them all."""
    prepared = [
        (list(definition["fields"]), compile_selector(definition.get("partial_filter_selector") or {}))
        for definition in definitions
    ]

    def keys(doc: dict[str, Json]) -> list[list[tuple[Json, Json]]]:
        found = []
        for fields, accepts in prepared:
            values = [get_field(doc, name, _ABSENT) for name in fields] if accepts(doc) else [_ABSENT]
            found.append([] if any(value is _ABSENT for value in values) else [(values, None)])
        return found

    def apply(texts: list[bytes]) -> list[Emitted]:
        return [keys(codec.loads(text)) for text in texts]

    return apply


# Choice


@dataclass
class Range:
    """What a selector says about one field: bounds as JSON, None where there is none. ``empty``: nothing can match."""

    low: tuple[Json] | None = None
    high: tuple[Json] | None = None
    empty: bool = False


def conditions(normal: Selector, wanted: str | None = None) -> list[tuple[str, str, Json]]:
    """The (field, operator, argument) that must hold for a selector in normal form; not those inside alternatives."""
    if not normal:
        return []
    ((name, argument),) = normal.items()
    if name == "$and":
        return [condition for part in argument for condition in conditions(part, wanted)]
    if name.startswith("$"):
        return []
    ((operator, operand),) = argument.items()
    return [(name, operator, operand)] if wanted in (None, name) else []


def range_of(normal: Selector, name: str) -> Range | None:
    """Return the range that a selector leaves to a field, None if it does not say."""
    found = [item for item in conditions(normal, name) if item[1] in RANGING]
    if not found:
        return None
    bounds = Range()
    open_low = open_high = False
    for _name, operator, value in found:
        key = sort_key(value)
        if operator in ("$eq", "$gte", "$gt") and (bounds.low is None or key >= sort_key(bounds.low[0])):
            open_low = operator == "$gt" or (open_low and bounds.low is not None and key == sort_key(bounds.low[0]))
            bounds.low = (value,)
        if operator in ("$eq", "$lte", "$lt") and (bounds.high is None or key <= sort_key(bounds.high[0])):
            open_high = operator == "$lt" or (open_high and bounds.high is not None and key == sort_key(bounds.high[0]))
            bounds.high = (value,)
    if bounds.low is not None and bounds.high is not None:
        low, high = sort_key(bounds.low[0]), sort_key(bounds.high[0])
        bounds.empty = low > high or (low == high and (open_low or open_high))
    return bounds


def required(normal: Selector) -> set[str]:
    """The fields that every matching document must have."""
    if not normal:
        return set()
    ((name, argument),) = normal.items()
    if name == "$and":
        return set().union(*map(required, argument))
    if name == "$or":
        return set.intersection(*map(required, argument)) if argument else set()
    if name.startswith("$"):
        return set()
    return set() if argument == {"$exists": False} else {name}


def usable(index: Index, normal: Selector, sort: Sort) -> bool:
    """Whether an index holds every document that the query can match, in the order that it asks for."""
    wanted = [name for name, _direction in sort]
    columns = index.columns
    if index.ddoc is None:
        return not wanted or (range_of(normal, "_id") is not None and wanted == ["_id"])
    needed = set(columns) - set(wanted) - {"_id", "_rev"}
    if not normal or not needed <= required(normal):
        return False
    while wanted:
        if not columns:
            return False
        if columns[0] == wanted[0]:
            return columns[: len(wanted)] == wanted
        if not any(operator == "$eq" for _name, operator, _value in conditions(normal, columns[0])):
            return False
        columns = columns[1:]
    return True


def choose(db: Any, normal: Selector, sort: Sort, use_index: list[str]) -> tuple[Index, bool]:
    """Choose an index as CouchDB does: the one the query names if it fits; else the closest to the selector's ranges,
    then the one with the fewest fields, then by name.

    Returns:
        The index, and whether the one that ``use_index`` names (if it names one) was used.

    Raises:
        SelectorError: 400 ``no_usable_index`` if none gives the order that is asked for.
    """
    existing = all_indexes(db)
    named = [index for index in existing if use_index and _is_named(index, use_index)]
    candidates = [index for index in existing if not index.partial or index in named]
    fitting = [index for index in candidates if usable(index, normal, sort)]
    if not fitting:
        raise SelectorError("no_usable_index", "No index exists for this sort, try indexing by the sort fields.")
    chosen = [index for index in fitting if index in named]
    pool = [index for index in chosen or fitting if index.ddoc is not None] or [ALL_DOCS]
    ranged = {name for name, operator, _value in conditions(normal) if operator in RANGING}

    def distance(index: Index) -> tuple[int, int, str, str]:
        prefix = 0
        for name in index.columns:
            if name not in ranged:
                break
            prefix += 1
        return len(ranged) - prefix, len(index.columns), index.ddoc or "", index.name

    return min(pool, key=distance), bool(chosen) or not use_index


def _is_named(index: Index, use_index: list[str]) -> bool:
    ddoc = use_index[0] if use_index[0].startswith("_design/") else "_design/" + use_index[0]
    return index.ddoc == ddoc and (len(use_index) == 1 or index.name == use_index[1])
