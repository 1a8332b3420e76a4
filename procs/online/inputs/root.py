"""ROOT files that a step, or anybody, has produced: events of a tree in batches, a batch being a "spill".

``data["root"]`` has ``file``, ``tree``, ``first`` (entry in the file) and ``columns``: by branch a numpy array, or an
awkward array where entries have different lengths. The run is the setting ``run``, or what the file's name says.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import awkward as ak

from orchestrator.errors import DataError, FormatError
from orchestrator.online.spill import Item, Spill
from procs.online.inputs import files as listing
from procs.online.inputs import whole
from procs.rootio import opened, tree, trees


class RootInput(whole.WholeFiles):
    """Trees in ROOT files, in the order of the files' names."""

    version: ClassVar[str] = "1"
    defaults: ClassVar[Mapping[str, Any]] = {
        **whole.WholeFiles.defaults, "tree": "", "branches": ("*",), "events": 1000, "run": "",
    }  # fmt: skip
    settings_help: ClassVar[Mapping[str, str]] = {
        **whole.WholeFiles.settings_help,
        "tree": "which tree; empty: the one with the most entries",
        "branches": "patterns of the branches that are read",
        "events": "entries of one batch at most",
        "run": "the run that all files belong to; empty: what each file's name says",
    }

    def of_file(self, path: str, place: int) -> Iterator[Item]:
        """The batches of one file; ``place`` is an entry."""
        step = int(self.settings["events"])
        with opened(Path(path)) as file:
            name = str(self.settings["tree"]) or max(
                trees(file), key=lambda one: int(file[one].num_entries), default=""
            )
            if not name:
                raise FormatError("there is no tree in it", path=path)
            found = tree(file, name, Path(path))
            branches = self._branches(found, path)
            run = str(self.settings["run"]) or listing.run_of(str(Path(path).with_suffix("")))
            yield from self._marks.begin(run, None, {"format": "ROOT", "tree": name})
            total = int(found.num_entries)
            for first in range(place, total, step):
                arrays = found.arrays(branches, entry_start=first, entry_stop=min(first + step, total), library="ak")
                columns = {branch: _column(arrays[branch]) for branch in arrays.fields}
                number = self._marks.number()
                self._place = min(first + step, total)
                data = {"file": path, "tree": name, "first": first, "columns": columns}
                yield Spill(run, number, None, None, {"root": data})

    def _branches(self, found: Any, path: str) -> list[str]:
        given = self.settings["branches"]
        patterns = [given] if isinstance(given, str) else [str(one) for one in given]
        names = [one for one in found.keys(recursive=False) if any(fnmatch.fnmatch(one, two) for two in patterns)]
        if not names:
            raise DataError(f"{path}: no branch of {found.name!r} fits {', '.join(patterns)}")
        return names


def _column(array: Any) -> Any:
    """A plain array where every entry has the same form."""
    try:
        return ak.to_numpy(array, allow_missing=False)
    except ValueError:
        return ak.to_packed(array)
