"""Numbers, sizes and times as people read them. Pure; the exact value goes into the page's ``title`` beside them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, TypeGuard

_THIN = "\u202f"  # a narrow no-break space: groups digits without being taken for a decimal point anywhere


#: A figure beyond this is none of ours, and floats end soon after it.
_FAR = 1e300


def figure(value: Any) -> TypeGuard[int | float]:
    """Whether a value is a number that can be reckoned with: no truth value, no infinity, not of 400 digits."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -_FAR < value < _FAR


def number(value: Any) -> str:
    """A count with its digits grouped (``12 345``); anything that is no number as it is."""
    if not figure(value):
        return "" if value is None else str(value)
    if isinstance(value, float) and (not value.is_integer() or abs(value) >= 1e15):
        return f"{value:.6g}"
    return f"{int(value):,}".replace(",", _THIN)


def size(value: Any) -> str:
    """Bytes in the decimal units that disks and networks are sold in (``1.2 GB``)."""
    if not figure(value):
        return "" if value is None else str(value)
    amount = float(value)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(amount) < 999.5:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 99.5 else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:,.1f} PB"


def duration(value: Any) -> str:
    """Seconds in the one or two units that matter (``840 ms``, ``3 min 20 s``, ``2 d 4 h``)."""
    if not figure(value):
        return "" if value is None else str(value)
    if value < 0:
        return "-" + duration(-value)
    if value < 0.9995:
        return f"{value * 1000:.0f} ms" if value >= 0.001 or value == 0 else f"{value * 1000:.2g} ms"
    if value < 59.95:
        return f"{value:.1f} s"
    whole = round(value)
    for large, small, name, part in ((86400, 3600, "d", "h"), (3600, 60, "h", "min"), (60, 1, "min", "s")):
        if whole >= large:
            rest = whole % large // small
            return f"{whole // large} {name}" + (f" {rest} {part}" if rest else "")
    return f"{whole} s"


def parse_time(text: Any) -> float | None:
    """Seconds since 1970 of an ISO 8601 time, taken as UTC where it names no zone; None where it is no time."""
    if not isinstance(text, str) or len(text) > 40:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def iso(seconds: float | None) -> str | None:
    """The ISO 8601 UTC time, to the millisecond and with Z, of ``seconds`` since 1970; None where it has none."""
    if seconds is None:
        return None
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def clock(text: Any) -> str:
    """An ISO time for the eye: ``2026-01-22 11:00:00 UTC``; what is no time stays as it is."""
    moment = iso(parse_time(text))
    if moment is None:
        return "" if text is None else str(text)
    return f"{moment[:10]} {moment[11:19]} UTC"


def ago(text: Any, now: float) -> str:
    """How long ago (or how soon) an ISO time is: ``12 s ago``, ``in 3 min``; empty for what is no time."""
    seconds = parse_time(text)
    if seconds is None:
        return ""
    away = now - seconds
    if abs(away) < 1:
        return "just now"
    words = coarse(abs(away))
    return f"{words} ago" if away > 0 else f"in {words}"


def coarse(value: float) -> str:
    """A span in one unit, rounded down, so that it changes seldom while one looks (``12 s``, ``3 min``, ``2 d``)."""
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if value >= unit:
            return f"{int(value // unit)} {name}"
    return f"{int(value)} s"
