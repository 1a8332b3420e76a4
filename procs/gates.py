"""Checks of outputs for the gates of a chain: functions (document, result, work) -> why it refuses, or None."""

from __future__ import annotations

from typing import Any


def entries(document: dict[str, Any], result: dict[str, Any], work: Any) -> str | None:
    """The ROOT file of the result has a tree with enough entries.

    Settings: ``tree``, its name; ``min`` and ``max`` (entries); ``same_as``, the name of a number in the result that it
    must agree with. It counts in the file itself, so that what the step believes is not asked.
    """
    import uproot

    name, settings = str(work.settings.get("tree") or ""), work.settings
    path = str(result.get("file") or "")
    try:
        with uproot.open(path) as file:
            if name not in {key.split(";")[0] for key in file.keys(recursive=True)}:
                return f"{path} has no tree {name!r}"
            count = int(file[name].num_entries)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        return f"{path} cannot be read as a ROOT file: {error}"
    if count < settings.get("min", 0):
        return f"the tree {name} has {count} entries, and must have {settings['min']}"
    if "max" in settings and count > settings["max"]:
        return f"the tree {name} has {count} entries, and may have {settings['max']}"
    if "same_as" in settings and count != result.get(settings["same_as"]):
        return f"the tree {name} has {count} entries, and the step says {result.get(settings['same_as'])}"
    return None
