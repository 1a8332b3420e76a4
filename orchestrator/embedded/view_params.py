"""The parameters of a view query: reading them from a URL or a POST body, and CouchDB's rules about which go together.

The sentences of the errors are CouchDB's own, its spelling included, because clients and people compare them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from orchestrator.embedded import codec
from orchestrator.embedded.collation import sort_key
from orchestrator.embedded.problems import Problem, bad_request, query_parse_error

Json = Any
Place = tuple[bytes, str]

LAST_KEY = b"\xff"
"""Greater than every key: no type begins with it."""


class _Unset:
    """The value of a parameter that was not given; None is a key like any other."""


UNSET = _Unset()


@dataclass
class Params:
    """The parameters of one query. ``group_level`` is None for ``group=true``, which compares whole keys."""

    startkey: Json = UNSET
    endkey: Json = UNSET
    keys: list[Json] | None = None
    startkey_docid: str | None = None
    endkey_docid: str | None = None
    inclusive_end: bool = True
    descending: bool = False
    limit: int | None = None
    skip: int = 0
    reduce: bool | None = None
    group: bool | None = None
    level: int | None = None
    include_docs: bool = False
    conflicts: bool | None = None
    attachments: bool = False
    update: str = "true"
    update_seq: bool = False
    is_sorted: bool = True

    @property
    def group_level(self) -> int | None:
        """0 to reduce everything to one row, n for the first n elements, None for whole keys."""
        if self.level is not None:
            if self.group is False and self.level > 0:
                raise query_parse_error("Can't specify group=false and group_level>0 at the same time")
            return self.level
        return None if self.group else 0

    def ranges(self) -> list[tuple[Place, Place]]:
        """The places to read, as (from, up to but not including), in the order of the answer.

        No two keys are such that one is the beginning of the other, so that all rows of a key lie before the key with
        a zero byte added; the same holds for the ids of equal keys.

        Raises:
            Problem: 400 ``query_parse_error`` if no row can lie between the two keys.
        """
        if self.keys is not None:
            return [((key, ""), (key + b"\0", "")) for key in map(sort_key, self.keys)]
        first, last = (self.endkey, self.startkey) if self.descending else (self.startkey, self.endkey)
        first_id, last_id = self.startkey_docid, self.endkey_docid
        if self.descending:
            first_id, last_id = last_id, first_id
        start: Place = (b"", "")
        end: Place = (LAST_KEY, "")
        low = high = b""
        if not isinstance(first, _Unset):
            low = sort_key(first)
            if self.descending and not self.inclusive_end:
                start = (low + b"\0", "") if first_id is None else (low, first_id + "\0")
            else:
                start = (low, first_id or "")
        if not isinstance(last, _Unset):
            high = sort_key(last)
            if self.descending or self.inclusive_end:
                end = (high + b"\0", "") if last_id is None else (high, last_id + "\0")
            else:
                end = (high, last_id or "")
        if low and high and low > high:
            direction = "false" if self.descending else "true"
            raise query_parse_error(
                "No rows can match your key range, reverse your start_key and end_key or set "
                f"descending={direction}"
            )
        return [(start, end)]


def parse(query: dict[str, Json], decoded: bool = False, base: Params | None = None) -> Params:
    """Read parameters.

    Args:
        query: names and values; text as in a URL, where keys are JSON, or values already decoded from a body.
        decoded: whether the values come from a body.
        base: parameters that hold where the query says nothing.

    Raises:
        Problem: 400 ``query_parse_error`` or ``bad_request``.
    """
    params = Params() if base is None else replace(base)
    for name, value in query.items():
        if name in ("key", "startkey", "start_key", "endkey", "end_key", "keys"):
            found = value if decoded else _json(name, value)
            if name == "keys":
                params.keys = found
            if name in ("key", "startkey", "start_key"):
                params.startkey = found
            if name in ("key", "endkey", "end_key"):
                params.endkey = found
        elif name in ("startkey_docid", "start_key_doc_id"):
            params.startkey_docid = _text(name, value)
        elif name in ("endkey_docid", "end_key_doc_id"):
            params.endkey_docid = _text(name, value)
        elif name == "limit":
            params.limit = _count(value)
        elif name == "skip":
            params.skip = _count(value)
        elif name == "group_level":
            params.level = _count(value)
        elif name in ("reduce", "group", "inclusive_end", "include_docs", "conflicts", "attachments", "update_seq"):
            setattr(params, name, _boolean(value))
        elif name == "descending":
            params.descending = _boolean(value)
        elif name == "sorted":
            params.is_sorted = _boolean(value)
        elif name == "update":
            params.update = _word(name, value, ("true", "false", "lazy"))
        elif name == "stable":
            _word(name, value, ("true", "false"))
        elif name == "stale":
            params.update = {"ok": "false", "update_after": "lazy"}[_word(name, value, ("ok", "update_after"))]
        elif name == "partition":
            raise Problem(400, "bad_request", "`partition` is not supported on this database")
    return params


def validate(params: Params, reduces: bool) -> bool:
    """Check what goes together. Returns whether the query reduces.

    Args:
        reduces: whether the view has a reduce function.
    """
    if params.keys is not None and not isinstance(params.keys, list):
        raise query_parse_error("`keys` must be an array of strings.")
    if params.reduce and not reduces:
        raise query_parse_error("Reduce is invalid for map-only views.")
    reducing = reduces and params.reduce is not False
    level = params.group_level
    if reducing and params.keys is not None and level is not None:
        raise query_parse_error("Multi-key fetchs for reduce views must use `group=true`")
    if params.keys and not (isinstance(params.startkey, _Unset) and isinstance(params.endkey, _Unset)):
        raise query_parse_error("`keys` is incompatible with `key`, `start_key` and `end_key`")
    if not reducing and level != 0:
        raise query_parse_error("Invalid use of grouping on a map view.")
    if reducing and params.include_docs:
        raise query_parse_error("`include_docs` is invalid for reduce")
    if reducing and params.conflicts is not None:
        raise query_parse_error("`conflicts` is invalid for reduce views.")
    return reducing


def queries_of(body: dict[str, Json]) -> list[dict[str, Json]]:
    """Return the ``queries`` of a body.

    Raises:
        Problem: 400 ``bad_request``.
    """
    queries = body.get("queries")
    if not isinstance(queries, list) or not all(isinstance(query, dict) for query in queries):
        raise bad_request("`queries` member must be an array.")
    return queries


def from_request(query: dict[str, Json], body: dict[str, Json] | None) -> Params:
    """Read the parameters of a request to a view: those of the URL outrank those of a POST's body.

    A list of one key is that key, so that it may be reduced without ``group``, since CouchDB 3.4.
    """
    if body is None:
        return parse(_single_key(query, decoded=False))
    if "keys" in body and not isinstance(body["keys"], list):
        raise bad_request("`keys` member must be an array.")
    base = parse(_single_key(body, decoded=True), decoded=True)
    return parse(_single_key(query, decoded=False), base=base)


def _single_key(query: dict[str, Json], decoded: bool) -> dict[str, Json]:
    if "keys" not in query:
        return query
    keys = query["keys"] if decoded else _json("keys", query["keys"])
    if not isinstance(keys, list) or len(keys) != 1:
        return query
    rest = {name: value for name, value in query.items() if name != "keys"}
    return {"key": keys[0] if decoded else codec.dumps(keys[0]).decode(), **rest}


def _json(name: str, value: Json) -> Json:
    if not isinstance(value, str):
        return value
    try:
        return codec.loads(value)
    except codec.InvalidJson:
        raise bad_request(f"invalid UTF-8 JSON in parameter {name}: {value[:100]}") from None


def _text(name: str, value: Json) -> str:
    if not isinstance(value, str):
        raise query_parse_error(f"`{name}` must be a string.")
    return value


def _boolean(value: Json) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).lower()
    if text not in ("true", "false"):
        raise query_parse_error(f'Invalid boolean parameter: "{value}"')
    return text == "true"


def _count(value: Json) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise query_parse_error(f'Invalid value for integer: "{value}"')
    try:
        number = int(value)
    except ValueError:
        raise query_parse_error(f'Invalid value for integer: "{value}"') from None
    if number < 0:
        raise query_parse_error(f'Invalid value for positive integer: "{value}"')
    return number


def _word(name: str, value: Json, known: tuple[str, ...]) -> str:
    text = str(value).lower() if isinstance(value, bool) else value
    if text not in known:
        raise query_parse_error(f"Invalid value for `{name}`.")
    return str(text)
