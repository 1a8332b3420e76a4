"""JSON as it travels: strict on the way out, quick on the way in.

Outwards the standard library's encoder is used because it can refuse what JSON does not have: NaN and infinity
(CouchDB answers 400 to them, ``orjson`` would silently write null) and half characters (a file name that is no
text, read with ``surrogateescape``). Inwards ``orjson`` is used where it is installed: it is two to three times
as quick on feeds and views; what it will not read (integers beyond 64 bits, escaped half characters) the standard
library reads.
"""

from __future__ import annotations

import json
from typing import Any

from orchestrator.errors import Refused

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


def document(doc: dict[str, Any]) -> bytes:
    """One document as JSON; an error names it by its id."""
    return dumps(doc, f"document {doc.get('_id', '(no id yet)')!r}")


def loads(data: bytes | str) -> Any:
    """The value that ``data`` is the JSON of. Raises ValueError if it is none."""
    if _quick is not None:
        try:
            return _quick.loads(data)
        except ValueError:
            pass  # the standard library reads some things that orjson will not
    return json.loads(data)
