"""What runs may be called, and the names that databases, documents and folders get from them."""

from __future__ import annotations

import hashlib
import re

from orchestrator.errors import DataError, SettingsError
from orchestrator.online.spill import MOST_SPILLS

MOST_BYTES = 8 * 1024 * 1024  # of packed data in one Arrivals, or one spill: whoever follows has some of them in memory
LONGEST = 80  # characters of a run's name; a database's name may be three times as long, and a file's 255 bytes
LONGEST_DATABASE = 200  # characters of a database's name: CouchDB takes 238, and files of it have longer names
_RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*\Z")
_SPILL = re.compile(r"spill:([0-9]{9})\Z")


def checked_run(run: str) -> str:
    """The name as it is. Raises SettingsError for one that could not name a folder and a page without escaping."""
    if not isinstance(run, str) or len(run) > LONGEST or not _RUN.match(run):
        raise SettingsError(
            f"{str(run)[:100]!r} cannot be a run's name: use letters, digits, '_', '.', '+' and '-', the first one a "
            f"letter or digit, {LONGEST} at most"
        )
    return run


def possible_run(run: str) -> bool:
    """Whether :func:`checked_run` takes it."""
    return len(run) <= LONGEST and _RUN.match(run) is not None


def database_name(prefix: str, run: str) -> str:
    """The name of a run's database: ``spills-6008``, ``spills-6008$2ereplay1``.

    CouchDB takes lower-case letters, digits and a few signs there; each other character is ``$`` and its number. One
    that would be too long ends with a hash of the run's name.
    """
    name = f"{prefix}-" + "".join(
        one if one in "abcdefghijklmnopqrstuvwxyz0123456789_" else f"${ord(one):02x}" for one in checked_run(run)
    )
    if len(name) <= LONGEST_DATABASE:
        return name
    tail = hashlib.sha256(run.encode()).hexdigest()[:16]
    return f"{name[: LONGEST_DATABASE - len(tail) - 1]}_{tail}"


def spill_id(number: int) -> str:
    """The id of a spill's document."""
    return f"spill:{checked_number(number):09d}"


def spill_number(doc_id: str) -> int | None:
    """The number in a spill's id; None for the id of anything else."""
    match = _SPILL.match(doc_id)
    return int(match[1]) if match else None


def checked_number(number: int) -> int:
    """Raises DataError for what cannot be a spill's number."""
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < MOST_SPILLS:
        raise DataError(f"{number!r} cannot be a spill's number: they go from 0 to {MOST_SPILLS - 1}")
    return number


def text(value: str) -> str:
    """Text that JSON can hold: half characters, from file names that are no text, become question marks."""
    return value.encode("utf-8", "replace").decode()
