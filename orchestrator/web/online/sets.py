"""Views that shifters and experts saved by name: one small file beside the online system's other files.

A set is a name, who it is made for, and the query of the address that shows it. Anybody who may open the pages may save
one, so a set is nothing but a link: names and queries are checked, short, and few.
"""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import orjson

from orchestrator.errors import OrchestratorError, SettingsError
from orchestrator.runtime import write_atomically

#: What there may be of them, and how long, in letters.
MOST = 200
NAME = re.compile(r"[^\x00-\x1f\x7f<>&\"'`\\/]{1,60}\Z")
QUERY_LETTERS = 6000
#: Parameters of a view's address (``static/online/state.js``); nothing else is kept.
KNOWN = frozenset(
    ("run", "show", "at", "rotate", "reload", "paused", "logx", "logy", "logz", "stats", "style", "plane", "reference",
     "ratio", "help", "list")
)  # fmt: skip
GROUPS = ("shifter", "expert")


class BadSet(OrchestratorError):
    """A set that cannot be saved as it is."""


class Sets:
    """The file. Read once; written whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._sets: dict[str, dict[str, str]] | None = None

    def all(self) -> list[dict[str, str]]:
        """Every set, by name. Raises SettingsError for a file that is damaged."""
        with self._lock:
            return [dict(one) for _, one in sorted(self._read().items())]

    def save(self, data: Any) -> dict[str, str]:
        """Add or replace one. Raises BadSet with what is wrong with it."""
        made = checked(data)
        with self._lock:
            sets = dict(self._read())
            if made["name"] not in sets and len(sets) >= MOST:
                raise BadSet(f"there are {MOST} sets already: remove one that nobody uses")
            sets[made["name"]] = made
            self._write(sets)
        return made

    def remove(self, name: str) -> bool:
        """Take one away. False where there is none of that name."""
        with self._lock:
            sets = dict(self._read())
            if sets.pop(name, None) is None:
                return False
            self._write(sets)
            return True

    def _read(self) -> dict[str, dict[str, str]]:
        if self._sets is None:
            try:
                listed = orjson.loads(self._path.read_bytes())
                self._sets = {one["name"]: checked(one) for one in listed}
            except FileNotFoundError:
                self._sets = {}
            except (OSError, ValueError, TypeError, KeyError, BadSet) as error:
                raise SettingsError(
                    f"the saved sets in {self._path} cannot be read ({error}): mend the file, or move it away to begin "
                    "with none"
                ) from error
        return self._sets

    def _write(self, sets: dict[str, dict[str, str]]) -> None:
        text = orjson.dumps([sets[name] for name in sorted(sets)], option=orjson.OPT_INDENT_2).decode()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path, text + "\n")
        except OSError as error:
            raise BadSet(f"it cannot be kept: {self._path}: {error.strerror}") from error
        self._sets = sets


def checked(data: Any) -> dict[str, str]:
    """A set in its one form. Raises BadSet."""
    if not isinstance(data, dict) or not all(isinstance(data.get(key), str) for key in ("name", "group", "query")):
        raise BadSet("a set has a name, a group and a query, all of them text")
    name = " ".join(data["name"].split())
    if not NAME.match(name):
        raise BadSet("a set's name has 1 to 60 letters, and none of < > & \" ' ` \\ /")
    if data["group"] not in GROUPS:
        raise BadSet(f"a set is for a {' or an '.join(GROUPS)}")
    if len(data["query"]) > QUERY_LETTERS:
        raise BadSet("the view shows too much to be saved: choose fewer plots")
    try:
        pairs = parse_qsl(data["query"].removeprefix("?"), max_num_fields=200, errors="strict")
    except ValueError as error:
        raise BadSet(f"its query is none: {error}") from error
    kept = [(key, value) for key, value in pairs if key in KNOWN]
    return {"name": name, "group": data["group"], "query": urlencode(kept)}
