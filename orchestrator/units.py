"""Amounts and names as people write them in a chain file, and the strict base of the chain's models."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

_SECONDS = {
    "s": 1,
    "sec": 1,
    "second": 1,
    "min": 60,
    "m": 60,
    "minute": 60,
    "h": 3600,
    "hour": 3600,
    "d": 86400,
    "day": 86400,
}
_BYTES = {"B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
          "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}  # fmt: skip
_AMOUNT = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*\Z")


def seconds(text: Any) -> float:
    """A duration such as ``90``, ``"30 s"``, ``"10 min"``, ``"2 h"`` or ``"1 day"``, in seconds. Raises ValueError."""
    if isinstance(text, int | float) and not isinstance(text, bool):
        value = float(text)
    else:
        match = _AMOUNT.match(str(text))
        unit = match[2] if match else ""
        factor = 1 if unit == "" else (_SECONDS.get(unit) or _SECONDS.get(unit.rstrip("s")))
        if match is None or factor is None:
            raise ValueError(f"{text!r} is no duration: write a number and s, min, h or day, such as '10 min'")
        value = float(match[1]) * factor
    if not 0 <= value < 10**9:
        raise ValueError(f"{text!r} is out of range for a duration")
    return value


def size(text: Any) -> int:
    """An amount of memory or disk such as ``"2 GB"`` or ``"512 MiB"``, in bytes. Raises ValueError."""
    if isinstance(text, int) and not isinstance(text, bool):
        return text
    match = _AMOUNT.match(str(text))
    factor = _BYTES.get(match[2] or "B") if match else None
    if match is None or factor is None:
        raise ValueError(f"{text!r} is no size: write a number and kB, MB, GB, KiB, MiB or GiB, such as '2 GB'")
    return int(float(match[1]) * factor)


Seconds = Annotated[float, BeforeValidator(seconds)]
Bytes = Annotated[int, BeforeValidator(size), Field(gt=0)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
ErrorClass = Literal["transient", "resources", "data", "code"]


class Model(BaseModel):
    """A part of a chain file: unknown names are faults, and what was read never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)
