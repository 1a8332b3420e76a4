"""A gate as the chain file has it: what must hold of a step's output before it counts (see `orchestrator.gates`)."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, model_validator

from orchestrator.units import Bytes, Model, Name


class Gate(Model):
    """One check of a step's output."""

    name: Name = Field(description="unique in the step; stands in the document where it refuses")
    file: str = Field(
        "file", description="which of the result's values names the file that must be there; a dot goes one level down"
    )
    size_min: Bytes | None = Field(None, description="the file is not smaller")
    size_max: Bytes | None = Field(None, description="the file is not larger")
    checksum: bool = Field(False, description="the file is read again, and its checksum is the one in the result")
    value: str = Field(
        "", description="a number in the result, such as entries or coverage.live; a dot goes one level down"
    )
    min: float | None = Field(None, description="the number is not smaller")
    max: float | None = Field(None, description="the number is not larger")
    check: str | None = Field(
        None,
        description="a function as 'package.module:name': (document, result, work) -> None, or why it refuses. "
        "work.settings are the settings here. procs.gates:entries counts the entries of a ROOT tree",
    )
    settings: dict[str, Any] = Field(default_factory=dict, description="handed to the function of check")
    then: Literal["bad", "retry"] = Field(
        "bad",
        description="what follows a refusal: bad, a person must look; retry, the step is tried again as its retries "
        "say, whatever classes they name, and then bad",
    )

    @model_validator(mode="after")
    def _whole(self) -> Gate:
        if self.value and self.min is None and self.max is None:
            raise ValueError(f"gate {self.name!r} looks at {self.value!r}: say min or max")
        if not self.value and (self.min is not None or self.max is not None):
            raise ValueError(f"gate {self.name!r} has min or max: say of which value")
        if self.settings and self.check is None:
            raise ValueError(f"gate {self.name!r} has settings and no function: they are for check")
        if self.check is not None and not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", self.check):
            raise ValueError(f"gate {self.name!r}: {self.check!r} names no function: write 'package.module:function'")
        return self


__all__ = ["Gate"]
