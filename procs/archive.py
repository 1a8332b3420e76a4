"""Bundles for tape: one tar of many members' files, with a list of what is in it.

For documents that a gather makes (``members``: id, file, size, checksum). The tar holds each file as
``<run>/<name>`` and, first, ``members.json``: for each its document, its name inside, size and SHA-256, so that a tape
that has lost its database can still be read. No compression: raw data have little to gain, and a tar can be read from
the middle.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any, BinaryIO

from orchestrator.errors import DataError
from orchestrator.step import Work
from procs.options import options
from procs.outputs import atomic_output, inside, safe_name, storage

DEFAULTS: dict[str, Any] = {
    "output": "archive",  # folder, relative to the site's data folder
}
LIST = "members.json"
CHUNK = 1 << 20


def bundle(document: dict[str, Any], work: Work) -> dict[str, Any]:
    """One tar of the files of the document's members, each compared with the size and checksum that are known of it.

    Raises DataError for a document without members, a file that is gone or is not what its document says.
    """
    chosen = options(work.settings, "bundle", DEFAULTS)
    members = document.get("members")
    if not isinstance(members, list) or not members:
        raise DataError("the document has no members: this step is for documents that a gather makes")
    listed = [_member(one) for one in members]
    names = _names(listed)
    root = work.output_path(chosen.output)
    target = inside(root, root / f"{safe_name(str(document['_id']))}.tar")
    for number, (one, name) in enumerate(zip(listed, names, strict=True)):
        one["name"] = name
        one["checksum"] = _sum(Path(one["file"]), one)
        work.progress((number + 1) / (2 * len(listed)), name)
    with atomic_output(target, work.attempt) as temporary, temporary.open("wb") as raw:
        out = _Summing(raw)
        with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]
            text = json.dumps({"document": document["_id"], "members": listed}, indent=1, sort_keys=True).encode()
            tar.addfile(_info(LIST, len(text)), io.BytesIO(text))
            for number, one in enumerate(listed):
                with Path(one["file"]).open("rb") as file:
                    info = _info(one["name"], one["size"])
                    info.mtime = int(Path(one["file"]).stat().st_mtime)
                    tar.addfile(info, file)
                work.progress(0.5 + (number + 1) / (2 * len(listed)), one["name"])
    return {
        "file": str(target), "size": target.stat().st_size, "checksum": f"sha256:{out.digest.hexdigest()}",
        "members": len(listed), "bytes": sum(one["size"] for one in listed),
    }  # fmt: skip


class _Summing:
    """A file that is written to once, front to end, and its SHA-256."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.digest = file, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self._file.write(data)


def _member(one: Any) -> dict[str, Any]:
    if not isinstance(one, dict) or not isinstance(one.get("file"), str) or not one["file"]:
        name = one.get("id") if isinstance(one, dict) else one
        raise DataError(f"member {name!r} names no file")
    kept = ("id", "run_name", "file_number", "file", "size", "checksum", "attempt")
    return {key: one[key] for key in kept if key in one}


def _sum(path: Path, one: dict[str, Any]) -> str:
    digest, size = hashlib.sha256(), 0
    if not path.is_file():
        raise DataError(f"the file {path} of member {one['id']!r} is gone")
    with storage(path, "reading"), path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
    known = one.get("size")
    if isinstance(known, int | float) and int(known) != size:
        raise DataError(f"the file {path} of member {one['id']!r} has {size} bytes, its document says {int(known)}")
    found = f"sha256:{digest.hexdigest()}"
    said = one.get("checksum")
    if isinstance(said, str) and said.startswith("sha256:") and said != found:
        raise DataError(f"the file {path} of member {one['id']!r} is not what its document says: its checksum differs")
    one["size"] = size
    return found


def _names(members: list[dict[str, Any]]) -> list[str]:
    """A name inside the tar for each member, no two alike: ``<run>/<file's name>``, with the id where that is taken."""
    names: list[str] = []
    taken = {LIST}
    for one in members:
        name = f"{safe_name(str(one.get('run_name') or 'no run'))}/{safe_name(Path(one['file']).name)}"
        if name in taken:
            name = f"{name}.{safe_name(str(one['id']))}"
        while name in taken:
            name += "_"
        taken.add(name)
        names.append(name)
    return names


def _info(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info
