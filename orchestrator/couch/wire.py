"""JSON as it travels: strict on the way out, quick both ways.

JSON has no NaN and no infinity (CouchDB answers 400 to them, ``orjson`` would silently write null), and half
characters (a file name that is no text, read with ``surrogateescape``) are no Unicode. So ``orjson``, where it is
installed, writes only what was looked through and is plain; the standard library's encoder writes the rest, and refuses
what is none. Inwards ``orjson`` is two to three times as quick on feeds and views; what it will not read (integers
beyond 64 bits, escaped half characters) the standard library reads.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from orchestrator.errors import Refused
from orchestrator.lines import has_long_number

try:
    import orjson as _quick
except ImportError:  # an optional speed-up, never needed
    _quick = None  # type: ignore[assignment,unused-ignore]

_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def dumps(value: Any, what: str = "the request") -> bytes:
    """``value`` as UTF-8 JSON. ``what`` names it in the error.

    Raises:
        Refused: something in it is not JSON: NaN, infinity, half a character, or an object of another kind.
    """
    try:
        if _quick is not None and _plain((value,)):
            return _quick.dumps(value)
    except (TypeError, RecursionError):
        pass  # the standard library's encoder says what is wrong, or writes it
    try:
        return _ENCODER.encode(value).encode("utf-8")
    except UnicodeEncodeError as error:
        raise Refused(
            f"{what} holds text that is not Unicode ({error.object[error.start : error.end]!r}): "
            "decode file names with errors='replace', or escape them, before they go into a document"
        ) from error
    except (ValueError, RecursionError) as error:
        raise Refused(
            f"{what} cannot be written as JSON ({error}): JSON has no NaN and no infinity, write null instead"
        ) from error
    except TypeError as error:
        raise Refused(f"{what} cannot be written as JSON: {error}") from error


def _plain(values: Iterable[Any]) -> bool:
    """Whether there is nothing in them but what JSON has and orjson writes as the standard library does.

    By exact types: what is derived from one of them (an enumeration, say) may be written in another way. Texts and keys
    are not looked at: orjson refuses those that are no Unicode, or no text.
    """
    for value in values:
        kind = type(value)
        if kind is str or kind is int or value is None or kind is bool:
            continue
        if kind is dict:
            if not _plain(value.values()):
                return False
        elif kind is list or kind is tuple:
            if not _plain(value):
                return False
        elif kind is not float or value - value != 0.0:  # NaN and infinity less themselves are NaN
            return False
    return True


def document(doc: dict[str, Any]) -> bytes:
    """One document as JSON; an error names it by its id."""
    return dumps(doc, f"document {doc.get('_id', '(no id yet)')!r}")


def loads(data: bytes | str) -> Any:
    """The value that ``data`` is the JSON of. Raises ValueError if it is none."""
    raw = data if isinstance(data, bytes) else data.encode("utf-8", "replace")
    if _quick is not None and not has_long_number(raw):
        try:
            return _quick.loads(data)
        except ValueError:
            pass  # the standard library reads some things that orjson will not
    return json.loads(data)
