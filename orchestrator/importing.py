"""Documents of another run database brought into this one: by rules, with nothing of them lost, dry run first.

What a document was in its old words is somebody else's knowledge: *rules*, a function ``(document, steps) ->
(document, notes)`` as ``procs.edelweiss:translate``. What must hold whatever the rules do is here: the old value of
each key that changes is kept in ``imported``, from which `restore` makes the old document again; passwords go; the
result is a document that the chain and the guard understand, or it is refused with a sentence; and an import that is
begun again goes on where it was.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator import documents, faults, logins
from orchestrator.documents import Document, iso
from orchestrator.engine.pages import pages_by_id
from orchestrator.errors import DataError, Refused, SettingsError
from orchestrator.transitions import HELD, Kind

Rules = Callable[[Mapping[str, Any], Mapping[int, str]], tuple[dict[str, Any], list[str]]]

#: Documents read and written in one request: old ones carry whole file headers, some 50 kB each.
PAGE = 100
#: Names of documents that a report gives as examples of one note.
EXAMPLES = 3
#: Letters of an old status, or of odd keys, that are repeated.
LONG = 60

HIDDEN = "(removed at the import)"


@dataclass
class Report:
    """What an import does, or would do. ``moves``: by type and old status, the new status, how many."""

    source: str
    written: bool
    read: int = 0
    imported: int = 0
    there: int = 0
    designs: int = 0
    moves: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def note(self, text: str, name: str) -> None:
        """Count what was done to a document; the first few are named."""
        self.notes[text] += 1
        shown = self.examples.setdefault(text, [])
        if len(shown) < EXAMPLES:
            shown.append(name)

    def to_json(self) -> dict[str, Any]:
        return {
            "source": self.source, "written": self.written, "read": self.read, "imported": self.imported,
            "already_there": self.there, "design_documents_left": self.designs,
            "moves": [
                {"type": kind, "status": before, "becomes": after, "documents": count}
                for (kind, before, after), count in sorted(self.moves.items())
            ],
            "notes": [{"note": text, "documents": n, "examples": self.examples[text]} for text, n in
                      sorted(self.notes.items())],
            "refused": self.refused,
        }  # fmt: skip


def convert(
    old: Mapping[str, Any], rules: Rules, steps: Mapping[int, str], data_type: str, source: str, by: str, now: float
) -> tuple[Document, list[str]]:
    """The document to be written for ``old``, and what is to be said about it.

    The result has no ``_rev``. ``data_type`` is the type of the chain's documents. Raises DataError where the rules
    make no document of it that holds here, or lose its id.
    """
    _must_be_whole(old)
    clean, redacted = _without_logins({key: value for key, value in old.items() if key not in _OF_DATABASE}, "")
    try:
        new, notes = rules(clean, steps)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise DataError(f"the rules cannot read it ({type(error).__name__}: {error})") from error
    if new.get("_id") != old.get("_id"):
        raise DataError("the rules change its id")
    new = {key: value for key, value in new.items() if key not in ("_rev", "imported", "forced")}
    _must_hold(new, data_type)
    if new.get("type") == data_type:
        _count_on(new)
    was = {
        key: value for key, value in clean.items() if key != "_attachments" and not _same(new.get(key, _NONE), value)
    }
    new["imported"] = {
        "from": source, "rev": old.get("_rev"), "by": by, "at": iso(now), "was": was,
        "added": sorted(key for key in new if key not in clean), "redacted": redacted,
    }  # fmt: skip
    if redacted:
        notes = [*notes, "held a login, which is left out"]
    if new.get("type") == data_type:
        new["updated"] = iso(now)
        if "updated" not in clean:
            new["imported"]["added"].append("updated")
        elif "updated" not in was:
            was["updated"] = clean["updated"]
        # A failed document has no way into the database but this one, which an admin alone has.
        if documents.status_of(new) is not None:
            new["forced"] = {"by": by, "why": f"imported from {source}", "at": iso(now)}
    return new, notes


_NONE = object()
#: What a database says of a document beside its content.
_OF_DATABASE = frozenset(("_rev", "_revisions", "_revs_info", "_conflicts", "_deleted_conflicts", "_local_seq"))
#: What a document may have under a name that begins with a line.
_UNDER = frozenset(("_id", "_attachments")) | _OF_DATABASE


def _must_be_whole(old: Mapping[str, Any]) -> None:
    """Raise DataError for what no database takes: better said of one document than of all that travel with it."""
    if str(old.get("_id")).startswith("_"):
        raise DataError("an id that begins with '_' is for the database's own documents")
    if old.get("_deleted"):
        raise DataError("it has been deleted")
    odd = sorted(key for key in old if key.startswith("_") and key not in _UNDER)
    if odd:
        raise DataError(f"a key that begins with '_' is for the database's own: {', '.join(odd)[:LONG]}")
    for name, one in _items(old.get("_attachments")):
        if not isinstance(one, dict) or "data" not in one:
            raise DataError(f"its attachment {name!r} is only named there: import it from its server")
    try:
        json.dumps(old, allow_nan=False, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise DataError("it holds text that is no Unicode") from None
    except (ValueError, RecursionError):
        raise DataError("it holds a number that is none (NaN or infinite), or is nested too deeply") from None


def _count_on(new: Document) -> None:
    """Attempts that failed in another system have no documents here: only later ones are expected (``numbers``)."""
    known = new.get("numbers")
    after = {
        key: documents.count(entry.get("number"), 1) + 1
        for key, entry in new.items()
        if re.fullmatch(r"proc\d+", key) and entry.get("state") in ("failed", "refused")
    }
    if after:
        new["numbers"] = {**(known if isinstance(known, dict) else {}), **after}


def _items(value: Any) -> Iterable[tuple[str, Any]]:
    return value.items() if isinstance(value, dict) else ()


def _same(one: Any, other: Any) -> bool:
    """Equal, with 1, 1.0 and true apart, as they are different in a document."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(_same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def restore(document: Mapping[str, Any]) -> Document:
    """The document as it was before its import, but for logins and its revision. Raises DataError if it was none."""
    notes = document.get("imported")
    if not isinstance(notes, dict) or not isinstance(notes.get("was"), dict):
        raise DataError(f"document {document.get('_id')!r} was not imported")
    gone = {"imported", "forced", "_rev", *notes.get("added", ())}
    return {**{key: value for key, value in document.items() if key not in gone}, **notes["was"]}


def _must_hold(new: Mapping[str, Any], data_type: str) -> None:
    if not isinstance(new.get("type"), str) or not new["type"]:
        raise DataError("the rules give it no type")
    if new["type"] != data_type:
        return
    status = documents.status_of(new)
    if status is None:
        raise DataError(f"the rules give it the status {new.get('status')!r}, which is not known")
    if status.kind in HELD or status.kind is Kind.OPEN:
        raise DataError(f"the rules leave it {new['status']!r}, and nobody has it: nothing would ever follow")
    for key, value in new.items():
        if re.fullmatch(r"proc\d+", key) and not isinstance(value, dict):
            raise DataError(f"the rules leave {key} as something else than an object")


def _without_logins(value: Any, place: str) -> tuple[Any, list[str]]:
    """A copy without passwords in URLs or under their own name, and where they were."""
    if isinstance(value, str):
        clean = logins.IN_URL.sub(r"\1", value)
        return clean, [place] if clean != value else []
    found: list[str] = []
    if isinstance(value, Mapping):
        copy = {}
        for key, part in value.items():
            where = f"{place}.{key}" if place else str(key)
            if logins.KEY.search(str(key)) and isinstance(part, str) and part:
                copy[key] = HIDDEN
                found.append(where)
                continue
            copy[key], more = _without_logins(part, where)
            found += more
        return copy, found
    if isinstance(value, list):
        parts = []
        for number, part in enumerate(value):
            clean, more = _without_logins(part, f"{place}[{number}]")
            parts.append(clean)
            found += more
        return parts, found
    return value, found


def run(
    pages: Iterable[list[Document]],
    database: Any,
    rules: Rules,
    steps: Mapping[int, str],
    *,
    data_type: str,
    source: str,
    by: str,
    now: float,
    write: bool = False,
    progress: Callable[[int], None] = lambda count: None,
) -> Report:
    """Import documents page by page; with ``write`` False only say what would be done.

    A document that is there already from the same source is passed over, so that an import that broke off is simply
    begun again; one that is there otherwise is refused and left alone. Raises what the database raises.
    """
    report = Report(source, write)
    for page in pages:
        ready: dict[str, tuple[Document, list[str], str]] = {}
        for old in page:
            report.read += 1
            name = str(old.get("_id"))
            if name.startswith("_design/"):
                report.designs += 1
                continue
            try:
                new, notes = convert(old, rules, steps, data_type, source, by, now)
                if name in ready:
                    raise DataError("it stands twice in the source: leave one of the two")
            except DataError as error:
                report.refused[name] = str(error)
                ready.pop(name, None)
                continue
            ready[name] = new, notes, str(old.get("status", "-"))[:LONG]
        there = database.get_many(ready) if ready else {}
        for name, found in there.items():
            if found is None:
                continue
            known = found.get("imported")
            if isinstance(known, dict) and known.get("from") == source:
                report.there += 1
                if known.get("rev") != ready[name][0]["imported"]["rev"]:
                    report.note("has changed at the source since it was imported: it stays as it is here", name)
            else:
                report.refused[name] = "a document of this name is there already, and not from this source"
            del ready[name]
        if write and ready:
            faults.point("import.writing")
            refused = _stored(database, [new for new, _, _ in ready.values()])
            faults.point("import.written")
            report.refused |= refused
            for name in refused:
                del ready[name]
        for name, (new, notes, before) in ready.items():
            report.imported += 1
            report.moves[str(new["type"]), before, str(new.get("status", "-"))] += 1
            for text in notes:
                report.note(text, name)
        progress(report.read)
    return report


def _stored(database: Any, docs: list[Document]) -> dict[str, str]:
    """Write documents; why some were refused, by id. What the database refuses as a whole is tried in halves."""
    try:
        outcomes = database.bulk(docs)
    except Refused as error:
        if len(docs) == 1:
            return {str(docs[0]["_id"]): str(error)}
        middle = len(docs) // 2
        return _stored(database, docs[:middle]) | _stored(database, docs[middle:])
    return {one.id: f"{one.error}: {one.reason}" for one in outcomes if getattr(one, "rev", None) is None}


# --- sources ---


def from_database(database: Any) -> Iterator[list[Document]]:
    """All documents of a database, a page at a time, with their attachments. Raises what the database raises."""
    for rows in pages_by_id(database, PAGE, include_docs=True):
        page = [row.doc for row in rows if row.doc is not None]
        yield [database.get(one["_id"], attachments=True) if one.get("_attachments") else one for one in page]


def from_file(path: Path) -> Iterator[list[Document]]:
    """Documents from a file: a document a line, or what ``_all_docs?include_docs=true`` answered.

    Raises SettingsError for a file that cannot be read or is neither.
    """
    try:
        with path.open(encoding="utf-8") as file:
            page: list[Document] = []
            for one in _documents(file, path):
                page.append(one)
                if len(page) == PAGE:
                    yield page
                    page = []
            if page:
                yield page
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path} is not UTF-8 text (at byte {error.start})") from error


def _documents(lines: Iterable[str], path: Path) -> Iterator[Document]:
    # CouchDB answers _all_docs with a row a line between two lines of its own: read so, a large one needs no memory.
    for number, line in enumerate(lines, 1):
        text = line.strip().rstrip(",")
        if not text or text in ("]}", "]", "[", "}") or (number == 1 and text.endswith("[")):
            continue
        try:
            found = json.loads(text)
        except ValueError as error:
            raise SettingsError(
                f"{path}, line {number}: no JSON document ({error}). Write a document a line, or what "
                "`_all_docs?include_docs=true` answers"
            ) from error
        rows = found["rows"] if isinstance(found, dict) and isinstance(found.get("rows"), list) else [found]
        for row in rows:
            one = row.get("doc", row) if isinstance(row, dict) and "doc" in row else row
            if not isinstance(one, dict) or not isinstance(one.get("_id"), str) or not one["_id"]:
                raise SettingsError(f"{path}, line {number}: a document without an _id")
            yield one


__all__ = ["HIDDEN", "PAGE", "Report", "Rules", "convert", "from_database", "from_file", "restore", "run"]
