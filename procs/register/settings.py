"""What registration does, as settings. Each field's description is the help that a user reads."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError, field_validator

from orchestrator.errors import SettingsError

#: The ways to know that the DAQ has finished with a file; any one that is listed and met is enough.
Criterion = Literal["marker", "trailer", "partition", "rename", "quiet"]


def _folder(value: Any) -> str:
    """A folder's path, of whatever bytes: pydantic's own text would refuse one that is not UTF-8."""
    if not isinstance(value, str | os.PathLike) or not os.fsdecode(value) or "\0" in os.fsdecode(value):
        raise ValueError("should be the path of a folder")
    return os.fsdecode(value)


Folder = Annotated[str, PlainValidator(_folder)]


class RegisterSettings(BaseModel):
    """Settings of the registrar. Times are in seconds, sizes in bytes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    directories: list[Folder] = Field(
        default_factory=list,
        description="Folders to watch, with all that is below them. Symbolic links inside them are not followed: "
        "name the folder that they point to as well.",
    )
    include: list[str] = Field(
        default=["*"],
        description="File names to take, as patterns (`ma*_???`). A pattern with a `/` is compared with the path "
        "relative to the folder.",
    )
    exclude: list[str] = Field(
        default=["*_log", "*_ntp", "*_seuils", "*_BB", "*_setup.csv"],
        description="File names never to take; the default leaves out what Samba writes beside its partitions.",
    )
    temporary: list[str] = Field(
        default=[".*", "*.part", "*.partial", "*.tmp", "*.temp", "*.filepart", "*.incomplete", "*.swp", "*~"],
        description="Names that files have while they are written or copied. Such a file is not taken before it has "
        "been renamed, and such a folder is not entered.",
    )
    closed_by: list[Criterion] = Field(
        default=["marker", "trailer", "partition", "quiet"],
        min_length=1,
        description="How to know that a file is closed; any one is enough. `marker`: a file with `marker_suffix` "
        "stands beside it. `trailer`: the file ends with its format's end of run. `partition`: the next partition of "
        "the same run is there. `rename`: it has its final name (the DAQ must write under a temporary one). `quiet`: "
        "size and time unchanged for `quiet` seconds.",
    )
    marker_suffix: str = Field(
        default=".done", min_length=1, description="What a marker file's name adds to the file's own."
    )
    quiet: float = Field(
        default=60.0, ge=0, description="Seconds without a change after which a file counts as closed."
    )
    quiet_old: float = Field(
        default=3600.0,
        ge=0,
        description="A file untouched for so long (s) by its own times is taken at once, without `quiet` seconds of "
        "watching: a backlog does not wait after a restart. Larger than any difference between clocks.",
    )
    check_writers: bool = Field(
        default=True,
        description="Ask the kernel whether a process on this machine still has the file open for writing, and wait "
        "if so (for all but `marker`; works for the file's owner and for root, on local disks).",
    )
    partition: str = Field(
        default=r"(?P<run>.+?)[_.][SR]?(?P<number>\d{2,9})",
        description="Regular expression for a whole file name, with the groups `run` and `number`: which run and which "
        "partition a file is where its header does not say.",
    )
    events: Literal["auto", "always", "never"] = Field(
        default="auto",
        description="Whether to listen to file system events. `auto`: where the file system has them for every writer; "
        "network file systems (NFS, Lustre, ...) are polled.",
    )
    poll: float = Field(default=2.0, gt=0, description="Seconds between two looks at a folder that has no events.")
    rescan: float = Field(
        default=60.0,
        gt=0,
        description="Seconds between two full looks at folders that have events: what an event missed is found then.",
    )
    status: Literal["closed", "good"] = Field(
        default="closed", description="Status of a document whose file is in order."
    )
    register_open: bool = Field(
        default=False, description="Make a document with status `open` as soon as a file appears, before it is closed."
    )
    unknown_format: Literal["ignore", "bad"] = Field(
        default="ignore",
        description="A file that no reader knows: leave it alone, or make a document with status `bad`.",
    )
    id_from: Literal["name", "path"] = Field(
        default="name",
        description="`name`: the file's name is the document's id, and a second file of that name elsewhere becomes a "
        "bad document. `path`: ids are made of the path, for data whose names repeat from folder to folder.",
    )
    checksum: Literal["none", "sha256"] = Field(
        default="sha256", description="Checksum that goes into the document at registration."
    )
    checksum_limit: int = Field(
        default=64 * 2**20,
        ge=0,
        description="Largest file, in bytes, that is read through for its checksum at registration; larger ones have "
        "`checksum: null` there and get it in proc0, which reads every byte anyway.",
    )
    type: str = Field(default="daqdocument", min_length=1, description="`type` of the documents: the chain's.")
    site: str = Field(default="here", min_length=1, description="Site where the files are, as the chain names it.")
    hostname: str | None = Field(default=None, description="Machine name for the documents; default: this machine's.")
    priority: int | None = Field(default=None, description="`priority` of the documents: larger is sooner.")
    batch: int = Field(default=500, ge=1, le=10_000, description="Most documents in one write to the database.")

    @field_validator("partition")
    @classmethod
    def _has_groups(cls, value: str) -> str:
        try:
            groups = re.compile(value).groupindex
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        if not {"run", "number"} <= set(groups):
            raise ValueError("needs the groups (?P<run>...) and (?P<number>...)")
        return value

    @classmethod
    def load(cls, table: Mapping[str, Any], **fixed: Any) -> RegisterSettings:
        """Settings from the ``register`` block of a site file, with ``fixed`` values that win over it.

        Raises:
            SettingsError: a sentence for each value that cannot be used, with a near name for a misspelt one.
        """
        try:
            return cls(**{**table, **fixed})
        except ValidationError as error:
            raise SettingsError("register: " + "; ".join(_sentence(item) for item in error.errors())) from error


def _sentence(item: Any) -> str:
    place = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        near = difflib.get_close_matches(place, RegisterSettings.model_fields, n=1)
        return f"there is no setting {place!r}" + (f" (did you mean {near[0]!r}?)" if near else "")
    return f"{place}: {item['msg']}, not {item['input']!r}"
