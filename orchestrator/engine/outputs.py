"""Old output files of steps that are reset: kept, moved beside, or removed; never outside the site's data folder.

A document names its files, and a document's text is not trusted: each path is walked from the data folder down, folder
by folder, without following a link, and only a plain file at its end is touched. What is moved goes to
``<data>/past/<operation>/``, under the path that it had, on the same disk. Doing it again after a crash harms nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from orchestrator.chain import Chain
from orchestrator.errors import IllegalTransition, OrchestratorError
from orchestrator.filenames import text_of

#: The folder in the data folder that takes what is moved.
PAST = "past"
#: Keys of a step's result under which its further files (pictures) stand.
FURTHER = ("plots", "plot", "pictures", "images", "png")
#: States of a step that has left something. What else a document says of files is nobody's word.
LEFT = ("done", "refused")
#: Keys of steps' entries, of this lane and of others.
_ENTRY = re.compile(r"(?:\A|_)proc\d+\Z")
#: Files of one step that are looked at; more were not written by a step.
MOST = 1000


class OutputFault(OrchestratorError):
    """An output file could not be moved or removed; the sentence names it."""


@dataclass(frozen=True)
class Outputs:
    """What shall become of old outputs, at the site whose data folder this is. ``what``: moved or removed."""

    site: str
    data: Path
    what: str
    operation: str

    def check(self, chain: Chain, document: Mapping[str, Any], entries: Mapping[str, Any]) -> None:
        """Raise IllegalTransition where outputs of a document cannot be dealt with from here."""
        for key, entry in entries.items():
            if not isinstance(entry, dict) or not self.files(document, {key: entry}):
                continue
            owner = entry.get("site") or next((step.site for step in chain.steps if step.key == key), "")
            if owner != self.site:
                raise IllegalTransition(
                    f"document {document.get('_id')!r}: the output of {key} is at site {owner!r}, and this is "
                    f"{self.site!r}: give the command there, or let the outputs be kept"
                )
            for file in self.files(document, {key: entry}):
                if self.relative(file) is None:
                    raise IllegalTransition(
                        f"document {document.get('_id')!r}: {file!r}, the output of {key}, is not in this site's data "
                        f"folder {self.data}, and is not touched: let the outputs be kept"
                    )

    def files(self, document: Mapping[str, Any], entries: Mapping[str, Any]) -> list[str]:
        """The files that these entries name as their own: none that is the raw file or that a step which stays has."""
        kept = {document.get("file")}
        for key, entry in document.items():
            if _ENTRY.search(key) and key not in entries and isinstance(entry, dict):  # of other lanes too
                kept |= set(_named(entry))
        own = [entry for entry in entries.values() if isinstance(entry, dict) and entry.get("state") in LEFT]
        found = [file for entry in own for file in _named(entry)]
        return [file for file in dict.fromkeys(found) if file not in kept][:MOST]

    def relative(self, file: str) -> PurePosixPath | None:
        """A file's path below the data folder, or None where it does not lie there."""
        path = PurePosixPath(file)
        if not path.is_absolute():
            path = PurePosixPath(str(self.data)) / path
        for root in (self.data, self.data.resolve()):
            with contextlib.suppress(ValueError):
                inner = path.relative_to(PurePosixPath(str(root)))
                if inner.parts and ".." not in inner.parts and "\0" not in file:
                    return inner
        return None

    def carry_out(self, files: list[str]) -> list[dict[str, str | None]]:
        """Move or remove the files; what became of each: ``{file, to}``, ``to`` null where it is gone.

        Raises OutputFault at the first that cannot be dealt with; those before it are.
        """
        return [{"file": file, "to": self._one(file)} for file in files]

    def _one(self, file: str) -> str | None:
        inner = self.relative(file)
        if inner is None:
            raise OutputFault(f"{file!r} is not in the data folder {self.data}, and is not touched")
        target = self.data / PAST / self.operation.replace(":", "-") / inner
        try:
            with _folder(self.data, inner.parts[:-1]) as source:
                name = inner.name
                if not stat.S_ISREG(os.stat(name, dir_fd=source, follow_symlinks=False).st_mode):
                    raise OutputFault(f"{file!r} is no plain file (a link or a folder), and is not touched")
                if self.what == "removed":
                    os.unlink(name, dir_fd=source)
                    return None
                with _folder(self.data, target.relative_to(self.data).parts[:-1], make=True) as place:
                    # A file of that name there is from the same operation, cut short: this one is the same or newer.
                    os.rename(name, name, src_dir_fd=source, dst_dir_fd=place)
                    os.fsync(place)
                os.fsync(source)
        except FileNotFoundError:
            return text_of(target) if self.what == "moved" and target.is_file() else None
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise OutputFault(f"{file!r} lies behind a link, and is not touched") from error
            raise OutputFault(f"{file!r} could not be {self.what}: {error.strerror}") from error
        return text_of(target)


def _named(entry: Mapping[str, Any]) -> Iterator[str]:
    """The files that a step's entry names: its output, and its pictures that are not of a whole run."""
    result = entry.get("result")
    if isinstance(result, dict) and "gathered" in result:
        return  # a bundle of many documents, which is that of the gathered one
    if isinstance(entry.get("file"), str) and entry["file"]:
        yield entry["file"]
    if isinstance(result, dict):
        for key in FURTHER:
            yield from _pictures(result.get(key))


def _pictures(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if value.lower().endswith(".png"):
            yield value
    elif isinstance(value, list):
        for item in value[:MOST]:
            yield from _pictures(item)
    elif isinstance(value, dict) and value.get("scope") != "run":
        path = value.get("file", value.get("path"))
        yield from _pictures(path if isinstance(path, str) else list(value.values()))


@contextlib.contextmanager
def _folder(root: Path, parts: tuple[str, ...], *, make: bool = False) -> Iterator[int]:
    """A descriptor of a folder below ``root``, come to without following a link. Raises OSError."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    here = os.open(root, flags)  # the data folder itself may be a link: the site's settings say so, not a document
    try:
        for part in parts:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, dir_fd=here)
            inner = os.open(part, flags | os.O_NOFOLLOW, dir_fd=here)
            os.close(here)
            here = inner
        yield here
    finally:
        os.close(here)
