"""A run's histograms as one file: the sums of its members', exactly as many entries as they have together.

For documents that a gather makes of a run, after the step histograms: ``members`` name each document's histogram file.
Unlike the running sum that the step histograms keeps while a run goes on, this one is made when the run is whole, of
members whose checksums are compared, and says which attempts it is of.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from orchestrator.errors import DataError
from orchestrator.step import Work
from procs.binning import Counts, merged
from procs.histograms import RUN_PAGES, pages_of
from procs.options import options
from procs.outputs import describe, place, plain, storage
from procs.rootio import PROVENANCE, provenance
from procs.runfiles import MEMBERS, draw, load, save, summary

DEFAULTS: dict[str, Any] = {
    "output": "runs",  # folder, relative to the site's data folder
    "plots": True,
}
TOGETHER = 64  # files held in memory at once while summing


def merge(document: dict[str, Any], work: Work) -> dict[str, Any]:
    """Sum the histograms of the document's members.

    Returns:
        ``file``, ``size``, ``checksum`` of the sum; ``members`` (how many), ``histograms``, ``total``, ``entries``
        by histogram, ``plots`` (file, title, scope).

    Raises:
        DataError: there are no members, or a member's file is gone, not what its document says, or no histograms.
        TransientError: reading or writing failed.
    """
    chosen = options(work.settings, "merge", DEFAULTS)
    members = document.get("members")
    if not isinstance(members, list) or not members:
        raise DataError("the document has no members: this step is for documents that a gather makes")
    total: dict[str, Counts] = {}
    parts: list[dict[str, Counts]] = []
    for number, one in enumerate(members):
        parts.append(_histograms(one))
        if len(parts) == TOGETHER:
            total, parts = merged([total, *parts]), []
        work.progress(0.8 * (number + 1) / len(members), f"{number + 1} of {len(members)} files")
    total = merged([total, *parts])
    run = str(document.get("run_name") or "no run")
    target = place(work.output, work.settings, DEFAULTS["output"], document, f"run_{run}", ".root")
    known = {str(one["id"]): one.get("attempt") for one in members}
    note = provenance("merge", document, work, Path(str(members[0]["file"])), {"members": len(members)})
    save(target, work.attempt, total, {PROVENANCE: note, MEMBERS: json.dumps(known, ensure_ascii=False)})
    title = f"run {run}, {len(members)} file{'' if len(members) == 1 else 's'}"
    plots = draw(target, work, pages_of(total, RUN_PAGES), title, "run") if chosen.plots else []
    return plain({**describe(target), **summary(total), "members": len(members), "plots": plots})


def _histograms(one: Any) -> dict[str, Counts]:
    path = member_file(one)
    loaded = load(path)[0]
    if not loaded:
        raise DataError(f"{path} of member {one.get('id')!r} has no histograms: is it of the step histograms?")
    return loaded


def member_file(one: Any) -> Path:
    """The file of a gathered document's member, with the checksum that its document says. Raises DataError."""
    if not isinstance(one, dict) or not isinstance(one.get("file"), str):
        raise DataError(f"the member {one!r} names no file")
    path = Path(one["file"])
    if not path.is_file():
        raise DataError(f"the histograms {path} of member {one.get('id')!r} are gone")
    said = one.get("checksum")
    if isinstance(said, str) and said.startswith("sha256:"):
        with storage(path, "reading"), path.open("rb") as stream:
            found = f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"
        if found != said:
            raise DataError(f"the histograms {path} of member {one.get('id')!r} are not what its document says")
    return path
