"""Making a site: its folder, its commented settings file, its chain, the directories that they name.

Nothing that exists is overwritten, so making a site twice is harmless.
"""

from __future__ import annotations

import difflib
import json
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from orchestrator.errors import SettingsError
from orchestrator.settings import SITE_FILE, TABLE, Setting

INCOMING = "incoming"  # where the DAQ of a new site puts its files
HEAD = """\
# Settings of this site. What is commented out has the value shown, its default.
# The environment (ORCHESTRATOR_<NAME>) and the command line (--set name=value) win over this file;
# `orchestrator settings` prints every value and where it came from. Relative paths start in this folder.
"""


@dataclass
class Made:
    """What ``make`` did: names relative to the folder."""

    folder: Path
    made: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)


def examples() -> dict[str, Path]:
    """The example chains that come with the package, by name."""
    folder = Path(str(resources.files("procs"))) / "chains"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def description(chain: Path) -> str:
    """The description that stands in a chain file; empty where it has none or cannot be read."""
    return _word(chain, "description")


def name_of(chain: Path) -> str:
    """The name that stands in a chain file; empty where it has none or cannot be read."""
    return _word(chain, "name")


def _word(chain: Path, key: str) -> str:
    try:
        found = yaml.safe_load(chain.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return ""
    return str(found.get(key, "")) if isinstance(found, dict) else ""


def chain_file(name: str) -> Path:
    """The chain that ``name`` means: an example's name or a file. Raises SettingsError with the nearest name."""
    known = examples()
    if name in known:
        return known[name]
    path = Path(name).expanduser()
    if path.is_file():
        return path
    near = difflib.get_close_matches(name, list(known), n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"the examples are {', '.join(known) or 'not installed'}"
    raise SettingsError(f"there is neither an example chain nor a file {name!r}: {hint}")


def make(folder: Path, chain: str, values: Mapping[str, Any] | None = None) -> Made:
    """Make a site.

    Args:
        folder: made if it is not there.
        chain: an example's name, or a chain file to copy.
        values: settings to write into the new settings file, besides ``watch: [incoming]``.

    Raises:
        SettingsError: no such chain, or the folder cannot be written.
    """
    source = chain_file(chain)
    made = Made(folder.absolute())
    written = {"watch": [INCOMING], **(values or {})}
    try:
        for directory in (".", INCOMING, "data", "spool", "logs"):
            path = made.folder / directory
            if path.is_dir():
                if directory != ".":
                    made.kept.append(f"{directory}/")
                continue
            path.mkdir(parents=True)
            if directory != ".":
                made.made.append(f"{directory}/")
        for name, text in ((SITE_FILE, site_file(written)), ("chain.yaml", source.read_text(encoding="utf-8"))):
            path = made.folder / name
            if path.exists():
                made.kept.append(name)
            else:
                path.write_text(text, encoding="utf-8")
                made.made.append(name)
    except OSError as error:
        raise SettingsError(f"the site cannot be made: {error.filename}: {error.strerror}") from None
    return made


def site_file(values: Mapping[str, Any]) -> str:
    """The text of a settings file: every setting with its help; those in ``values`` set, the others commented out."""
    parts = [HEAD]
    for row in TABLE:
        parts.append(_block(row, values[row.name]) if row.name in values else _block(row))
    return "\n".join(parts)


_UNSET = object()


def _block(row: Setting, value: Any = _UNSET) -> str:
    unit = f" [{row.unit}]" if row.unit else ""
    lines = textwrap.wrap(row.help + unit, width=96)
    if value is _UNSET:
        example = row.default if row.computed is None else row.computed
        lines.append(f"{row.name}: {example}")
        return "".join(f"# {line}\n" for line in lines)
    if isinstance(value, list | dict):
        text = f"{row.name}: {json.dumps(value, ensure_ascii=False, default=str)}\n"  # JSON is YAML, on one line
    else:
        text = yaml.safe_dump({row.name: value}, width=10**6, allow_unicode=True)
    return "".join(f"# {line}\n" for line in lines) + text
