"""``_all_docs``, ``_design_docs`` and ``_local_docs``: documents by id, sent as they are read."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

from orchestrator.embedded import codec, ranks
from orchestrator.embedded.attachment_parts import whole
from orchestrator.embedded.database import SELECT, SELECT_BARE, DatabaseStore, Row
from orchestrator.embedded.documents import render
from orchestrator.embedded.http_database import token
from orchestrator.embedded.http_documents import conflicts
from orchestrator.embedded.http_request import JSON, LARGEST, MUST_REVALIDATE, Request, Response
from orchestrator.embedded.problems import bad_request, method_not_allowed, query_parse_error
from orchestrator.embedded.problems import unauthorized as unauthorised

_PIECE = 1000  # rows rendered and sent at a time

# Whatever JSON a key is, it is compared with ids, which are strings: these sort before or after all of them.
_LOWEST, _HIGHEST = "", "\U0010ffff"


@dataclass(slots=True)
class Range:
    """What a request for documents by id asks for."""

    start: str | None = None
    stop: str | None = None
    inclusive: bool = True
    descending: bool = False
    skip: int = 0
    limit: int | None = None
    keys: list[Any] | None = None
    include_docs: bool = False
    conflicts: bool = False
    update_seq: bool = False


async def all_docs(request: Request, database: DatabaseStore) -> Response:
    """``GET`` or ``POST /{db}/_all_docs``."""
    if len(request.parts) == 3 and request.parts[2] == "queries":
        return await _queries(request, database, "", "")
    return await _listing(request, database, "", "")


async def design_docs(request: Request, database: DatabaseStore) -> Response:
    """``GET`` or ``POST /{db}/_design_docs``."""
    return await _listing(request, database, "_design/", "_design0")


async def _listing(request: Request, database: DatabaseStore, low: str, high: str) -> Response:
    if request.method not in ("GET", "HEAD", "POST"):
        raise method_not_allowed("GET,HEAD,POST")
    if database.name == "_users" and not request.user.is_admin:
        raise unauthorised("You are not a server admin.")
    asked = dict(request.query)
    body: dict[str, Any] = {}
    if request.method == "POST":
        request.check_type()
        body = await request.json_object()
    options = read_range(asked, body)
    pieces = _pieces(request, database, options, low, high)
    # The first piece is made before the answer begins, so that what goes wrong is still told with a status.
    first = await request.app.thread(next, pieces, None)
    return Response(200, b"", [JSON, MUST_REVALIDATE], _stream(request, first, pieces))


async def _queries(request: Request, database: DatabaseStore, low: str, high: str) -> Response:
    if request.method != "POST":
        raise method_not_allowed("POST")
    request.check_type()
    queries = (await request.json_object()).get("queries")
    if not isinstance(queries, list):
        raise bad_request("`queries` must be an array")

    def gather() -> bytes:
        answers = []
        for query in queries:
            options = read_range({}, query)
            answers.append(b"".join(_pieces(request, database, options, low, high)).rstrip(b"\n"))
        return b'{"results":[\n' + b",\n".join(answers) + b"\n]}\n"

    return Response(200, await request.app.thread(gather))


async def _stream(request: Request, first: bytes | None, pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    piece = first
    while piece is not None:
        yield piece
        piece = await request.app.thread(next, pieces, None)


def read_range(query: dict[str, str], body: dict[str, Any]) -> Range:
    """Read the parameters, the query's outranking the body's.

    Raises:
        Problem: 400 for values of the wrong kind.
    """
    options = Range()
    given = dict(body)
    for name, text in query.items():
        try:
            given[name] = codec.loads(text) if text else text
        except codec.InvalidJson as error:
            if name in ("keys", "key", "startkey", "start_key", "endkey", "end_key"):
                raise bad_request("invalid UTF-8 JSON") from error
            given[name] = text
    if "keys" in given:
        if not isinstance(given["keys"], list):
            where = "body member" if "keys" in body else "parameter"
            raise bad_request(f"`keys` {where} must be an array.")
        options.keys = given["keys"]
    options.descending = _boolean(given, "descending", False)
    options.include_docs = _boolean(given, "include_docs", False)
    options.conflicts = _boolean(given, "conflicts", False)
    options.inclusive = _boolean(given, "inclusive_end", True)
    options.update_seq = _boolean(given, "update_seq", False)
    options.skip = _whole(given, "skip") or 0
    options.limit = _whole(given, "limit")
    for names, attribute in ((("startkey", "start_key"), "start"), (("endkey", "end_key"), "stop")):
        for name in names:
            if name in given:
                setattr(options, attribute, _as_bound(given[name]))
    if "key" in given:
        key = given["key"]
        if isinstance(key, str):
            options.start = options.stop = key
            options.inclusive = True
        else:
            options.limit = 0
    return options


def _as_bound(value: Any) -> str:
    if isinstance(value, str):
        return value
    return _HIGHEST if isinstance(value, list | dict) else _LOWEST


def _boolean(given: dict[str, Any], name: str, default: bool) -> bool:
    value = given.get(name, default)
    if not isinstance(value, bool):
        raise query_parse_error(f"Invalid boolean parameter: \"{value}\"")
    return value


def _whole(given: dict[str, Any], name: str) -> int | None:
    value = given.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise query_parse_error(f"Invalid value for integer: \"{value}\"")
    if value < 0:
        raise query_parse_error(f"Invalid value for positive integer: \"{value}\"")
    return min(value, LARGEST)


def _pieces(request: Request, database: DatabaseStore, options: Range, low: str, high: str) -> Iterator[bytes]:
    with database.reading() as connection:
        connection.execute("BEGIN")
        counters = database.counters
        where, bounds = ["d.deleted = 0"], []
        if high:
            where.append("d.id >= ? AND d.id < ?")
            bounds += [low, high]
            total = connection.execute(
                f"SELECT count(*) FROM docs d WHERE {' AND '.join(where)}", bounds
            ).fetchone()[0]
        else:
            total = counters.documents
        seq = f',"update_seq":"{token(database, counters.seq)}"'.encode() if options.update_seq else b""
        if options.keys is not None:
            yield b'{"total_rows":%d%b,"offset":null,"rows":[\n' % (total, seq)
            yield from _keyed(request, database, options, low, high)
            yield b"\n]}\n"
            return
        first = ">=", "<=" if options.inclusive else "<"
        if options.descending:
            first = "<=", ">=" if options.inclusive else ">"
        offset = 0 if options.start is None else _offset(database, connection, options, list(where), list(bounds))
        for comparison, value in zip(first, (options.start, options.stop), strict=True):
            if value is not None:
                where.append(f"d.id {comparison} ?")
                bounds.append(value)
        offset = min(offset + options.skip, total)
        yield b'{"total_rows":%d,"offset":%d%b,"rows":[\n' % (total, offset, seq)
        select = SELECT if options.include_docs else SELECT_BARE
        limit = -1 if options.limit is None else options.limit
        order = "DESC" if options.descending else "ASC"
        cursor = connection.execute(
            f"{select} WHERE {' AND '.join(where)} ORDER BY d.id {order} LIMIT ? OFFSET ?",
            [*bounds, limit, options.skip],
        )
        separator = b""
        while rows := cursor.fetchmany(_PIECE):
            yield separator + b",\n".join([_row(request, database, options, Row(*values)) for values in rows])
            separator = b",\n"
        yield b"\n]}\n"


def _offset(
    database: DatabaseStore, connection: sqlite3.Connection, options: Range, where: list[str], bounds: list[Any]
) -> int:
    """How many documents of the listing come before its start."""
    start = options.start or ""
    if len(where) == 1 and database.counters.documents > ranks.FEW:
        below = database.ranks.before(connection, start)
        if not options.descending:
            return below
        there = connection.execute("SELECT count(*) FROM docs WHERE id = ? AND deleted = 0", (start,)).fetchone()[0]
        return max(database.counters.documents - below - int(there), 0)
    where.append(f"d.id {'>' if options.descending else '<'} ?")
    query = f"SELECT count(*) FROM docs d WHERE {' AND '.join(where)}"
    return int(connection.execute(query, [*bounds, start]).fetchone()[0])


def _row(request: Request, database: DatabaseStore, options: Range, row: Row) -> bytes:
    name = codec.dumps(row.id)
    head = b'{"id":%b,"key":%b,"value":{"rev":"%b"}' % (name, name, row.rev.encode())
    if not options.include_docs:
        return head + b"}"
    extra = conflicts(row) if options.conflicts and row.leaves > 1 else []
    return head + b',"doc":' + whole(request, database, row, extra) + b"}"


def _keyed(request: Request, database: DatabaseStore, options: Range, low: str, high: str) -> Iterator[bytes]:
    keys = options.keys or []
    if options.descending:
        keys = keys[::-1]
    stop = None if options.limit is None else options.skip + options.limit
    keys = keys[options.skip : stop]
    separator = b""
    for start in range(0, len(keys), _PIECE):
        some = keys[start : start + _PIECE]
        names = list(dict.fromkeys(key for key in some if isinstance(key, str)))
        rows = database.rows(names, options.include_docs)
        lines = []
        for key in some:
            row = rows.get(key) if isinstance(key, str) else None
            if row is None or (high and not low <= row.id < high):
                lines.append(b'{"key":%b,"error":"not_found"}' % codec.dumps(key))
            elif row.deleted:
                name = codec.dumps(row.id)
                line = b'{"id":%b,"key":%b,"value":{"rev":"%b","deleted":true}' % (name, name, row.rev.encode())
                lines.append(line + (b',"doc":null}' if options.include_docs else b"}"))
            else:
                lines.append(_row(request, database, options, row))
        yield separator + b",\n".join(lines)
        separator = b",\n"


async def local_docs(request: Request, database: DatabaseStore) -> Response:
    """``GET`` or ``POST /{db}/_local_docs``."""
    if request.method not in ("GET", "HEAD", "POST"):
        raise method_not_allowed("GET,HEAD,POST")
    body: dict[str, Any] = {}
    if request.method == "POST":
        request.check_type()
        body = await request.json_object({})
    options = read_range(dict(request.query), body)
    return Response(200, await request.app.thread(_local, database, options))


def _local(database: DatabaseStore, options: Range) -> bytes:
    order = "DESC" if options.descending else "ASC"
    with database.reading() as connection:
        stored = connection.execute(f"SELECT id, rev, body FROM local ORDER BY id {order}").fetchall()
    low, high = (options.stop, options.start) if options.descending else (options.start, options.stop)
    chosen = []
    if options.keys is not None:
        known = {row[0]: row for row in stored}
        chosen = [(key, known.get(key)) for key in options.keys]
    else:
        for row in stored:
            if (low is not None and row[0] < low) or (high is not None and row[0] > high):
                continue
            if not options.inclusive and row[0] == options.stop:
                continue
            chosen.append((row[0], row))
    stop = None if options.limit is None else options.skip + options.limit
    lines = []
    for key, row in chosen[options.skip : stop]:
        name = codec.dumps(key)
        if row is None:
            lines.append(b'{"key":%b,"error":"not_found"}' % name)
            continue
        line = b'{"id":%b,"key":%b,"value":{"rev":"0-%d"}' % (name, name, row[1])
        if options.include_docs:
            line += b',"doc":' + render(row[0], f"0-{row[1]}", False, row[2])
        lines.append(line + b"}")
    return b'{"total_rows":null,"offset":null,"rows":[\n' + b",\n".join(lines) + b"\n]}\n"
