"""Writes the parts of the guides that come from the code, between the markers that stand in them.

    python docs/generate.py            write them
    python docs/generate.py --check    end with 1 if one is out of date (tests/docs does the same)

A generated part begins with ``<!-- begin: name -->`` and ends with ``<!-- end: name -->``. What each name stands for is
the table PARTS; all the rest of a guide is written by hand.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import click
from pydantic import BaseModel

from orchestrator import access, errors, farms, roles, settings, transitions, users
from orchestrator import chain as chains
from orchestrator.cli import SECTIONS, cli

DOCS = Path(__file__).parent
MARKED = re.compile(r"<!-- begin: ([a-z-]+) -->\n.*?<!-- end: \1 -->", re.DOTALL)
WIDTH = 100  # columns of a command's help, whatever the terminal


def table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += [
        "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in rows
    ]
    return "\n".join(lines)


def commands() -> str:
    """Every command's help, as the terminal shows it."""
    parts = [_help(cli, [])]
    for title, group in SECTIONS:
        parts.append(f"## {title}")
        for command in group:
            for path, one in _walk(command, [command.name or ""]):
                parts.append(f"### orchestrator {' '.join(path)}\n\n{_help(one, path)}")
    return "\n\n".join(parts)


def _walk(command: click.Command, path: list[str]) -> Iterator[tuple[list[str], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from _walk(inner, [*path, name])


def _help(command: click.Command, path: list[str]) -> str:
    context: click.Context | None = None
    for depth, name in enumerate(["orchestrator", *path]):
        context = click.Context(
            command if depth == len(path) else click.Group(name),  # a parent's arguments would stand in the usage, too
            info_name=name,
            parent=context,
            terminal_width=WIDTH,
            max_content_width=WIDTH,
            help_option_names=cli.context_settings["help_option_names"],  # as a real call has them
        )
    assert context is not None
    return f"```text\n{command.get_help(context).rstrip()}\n```"


def settings_table() -> str:
    """The table of settings."""
    rows = [
        (
            f"`{row.name}`",
            row.type + (f", {row.unit}" if row.unit else ""),
            f"`{row.default}`",
            f"`{row.variable}`",
            row.help,
        )
        for row in settings.TABLE
    ]
    return table(("setting", "type", "default", "environment", "what it is"), rows)


def register_table() -> str:
    """The registrar's settings."""
    from procs.register.settings import RegisterSettings

    hidden = {"directories", "type", "site"}  # these come from the site's own settings
    return _fields(RegisterSettings, hidden)


def online_inputs() -> str:
    """The settings of the online system's inputs."""
    from orchestrator.online.module import Input, find

    parts = []
    for name in ("date:DateInput", "socket:SocketInput", "samba:SambaInput", "root:RootInput",
                 "converted:ConvertedInput", "spill_json:SpillJsonInput", "replay:ReplayInput"):  # fmt: skip
        kind: Any = find(f"procs.online.inputs.{name}", Input)
        rows = [
            (f"`{key}`", f"`{_plain(value)}`" if value not in ("", {}) else "empty", kind.settings_help[key])
            for key, value in kind.defaults.items()
        ]
        parts.append(f"### {kind.__name__}\n\n{table(('setting', 'default', 'what it is'), rows)}")
    return "\n\n".join(parts)


def online_histograms() -> str:
    """The reducers that come along, and the maps before them: plots, what they should look like, settings."""
    from inspect import getdoc

    from orchestrator.online.module import Module, find
    from procs.online.reducers.events import RATE_HELP

    parts = []
    for name in ("reducers.tdc:TdcHits", "reducers.tdc:ChannelOccupancy", "reducers.tdc:HitTimeDifferences",
                 "reducers.events:EventSizeRate", "reducers.events:DeadTime", "reducers.pulses:PulseAmplitude",
                 "reducers.pulses:BaselineNoise", "reducers.pulses:TracePersistence", "maps.date:Decode",
                 "maps.date:Waveforms", "maps.samba:Pulses"):  # fmt: skip
        kind: Any = find(f"procs.online.{name}", Module)
        said = [f"### {kind.__name__}: `procs.online.{name}`", getdoc(kind) or ""]
        plots = [
            (f"`{one.name}`" if one.single else f"`{one.name}/...`", one.description, one.help)
            for one in getattr(kind, "families", ())
        ]
        plots += [(f"`{plot}`", f"{title}.", "as for each") for plot, title in getattr(kind, "overviews", {}).values()]
        plots += [(f"`{plot}`", text, RATE_HELP) for plot, (_, _, text) in getattr(kind, "trends", {}).items()]
        plots += [(f"`{plot}`", *said_of) for plot, said_of in getattr(kind, "derived", {}).items()]
        if plots:
            said.append(table(("plot", "what it shows", "what you should see, and what to do"), plots))
        rows = [
            (f"`{key}`", f"`{_plain(value)}`" if value != "" else "empty", kind.settings_help[key])
            for key, value in kind.defaults.items()
        ]
        said.append(table(("setting", "default", "what it is"), rows))
        parts.append("\n\n".join(said))
    return "\n\n".join(parts)


def chain_reference() -> str:
    """The fields of a chain file, model by model."""
    parts = []
    for title, model in (
        ("The file", chains.Chain),
        ("A step", chains.Step),
        ("`retries`", chains.Retries),
        ("A gate, in `gates` of a step", chains.Gate),
        ("A site", chains.Site),
        ("A farm", farms.Farm),
        ("`limits` of a farm", farms.Limits),
        ("`grace` of a farm", farms.Grace),
        ("`access` of a farm", access.SiteAccess),
        ("`timeouts` of an access", access.Timeouts),
        ("`degrade` of a step", farms.Degrade),
    ):
        parts.append(f"### {title}\n\n{_fields(model, set())}")
    return "\n\n".join(parts)


def online_reference() -> str:
    """The fields of online.yaml, model by model."""
    from orchestrator.online import configuration as online

    parts = []
    for title, model in (
        ("The file", online.Online),
        ("A module, as in `input`, `map` and `output`", online.ModuleEntry),
        ("A reducer, in `reduce`", online.Reducer),
        ("`refresh` of a reducer", online.Refresh),
        ("`workers`", online.Workers),
        ("`store`", online.StoreSettings),
        ("`broadcast`", online.Broadcast),
        ("`images`", online.Images),
        ("A reference, in `references`", online.Reference),
        ("A canvas, in `canvases`", online.Canvas),
    ):
        parts.append(f"### {title}\n\n{_fields(model, set())}")
    return "\n\n".join(parts)


def _fields(model: type[BaseModel], hidden: set[str]) -> str:
    rows = []
    for name, info in model.model_fields.items():
        extra = info.json_schema_extra
        if name in hidden or (isinstance(extra, dict) and extra.get("internal")):
            continue
        default = "required"
        if not info.is_required():
            value = _plain(info.get_default(call_default_factory=True))
            default = f"`{value}`" if value else "empty"
        rows.append((f"`{name}`", _amount(info.metadata) or _type(info.annotation), default, info.description or ""))
    return table(("field", "type", "default", "what it is"), rows)


def _amount(metadata: list[Any]) -> str:
    """``duration`` or ``size`` where a field is written with a unit."""
    readers = [getattr(one, "func", None) for one in metadata]
    words = {chains.seconds: "duration", chains.size: "size"}
    return next((words[reader] for reader in readers if reader in words), "")


def _plain(value: Any) -> str:
    if isinstance(value, BaseModel):
        return "{}"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_plain(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_plain(item)}" for key, item in value.items()) + "}"
    return {None: "none", True: "true", False: "false"}.get(value, str(value)) if _is_word(value) else str(value)


def _is_word(value: Any) -> bool:
    return value is None or isinstance(value, bool)


def _type(annotation: Any) -> str:
    """A type in words."""
    words = {str: "text", int: "whole number", float: "number", bool: "true or false", dict: "mapping", Path: "path",
             Any: "anything"}  # fmt: skip
    if annotation in words:
        return words[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "mapping"
    if origin in (list, tuple):
        return f"list of {_type(arguments[0])}" if arguments else "list"
    if origin is dict:
        return "mapping"
    if str(origin) == "typing.Literal":
        return " | ".join(f"`{value}`" for value in arguments)
    if hasattr(annotation, "__metadata__"):
        readers = {getattr(one, "func", None): one for one in annotation.__metadata__}
        return {chains.seconds: "duration", chains.size: "size"}.get(next(iter(readers)), "") or _type(arguments[0])
    return " or ".join(_type(one) for one in arguments if one is not type(None)) or str(annotation)


def statuses() -> str:
    """The statuses, with what each means."""
    from inspect import getsource

    meaning = dict(re.findall(r'^    [A-Z_]+ = "([^"]+)"(?:  # (.*))?$', getsource(transitions.Kind), re.MULTILINE))
    rows = []
    for kind in transitions.Kind:
        if kind is not transitions.Kind.NEW:
            written = f"proc X {kind.value}" if kind in transitions.HELD else kind.value
            rows.append((f"`{written}`", meaning.get(kind.value) or "a step is being worked on"))
    return table(("status", "meaning"), rows)


def transitions_table() -> str:
    """The table of transitions."""
    rows = [
        (
            one.name,
            ", ".join(f"`{kind.value}`" for kind in one.before),
            f"`{one.after.value}`",
            one.by,
            one.meaning + ({"same": " (same step)", "later": " (a later step)"}.get(one.step, "")),
        )
        for one in transitions.TRANSITIONS
    ]
    return table(("transition", "from", "to", "who", "when"), rows)


def diagram() -> str:
    """The states as a Mermaid diagram, which GitHub and GitLab draw."""
    name = {"in progress": "in_progress"}
    seen: dict[tuple[str, str], list[str]] = {}
    for one in transitions.TRANSITIONS:
        for before in one.before:
            ends = tuple("[*]" if k == "new" else name.get(k, k) for k in (before.value, one.after.value))
            seen.setdefault((ends[0], ends[1]), []).append(one.name)
    lines = ["```mermaid", "stateDiagram-v2", "    in_progress: proc X in progress", "    queued: proc X queued"]
    lines += [f"    {before} --> {after}: {', '.join(names)}" for (before, after), names in seen.items()]
    return "\n".join([*lines, "```"])


def exit_codes() -> str:
    """The exit codes, from the comments beside them."""
    from inspect import getsource

    found = re.findall(r"^    ([A-Z_]+) = (\d+)  # (.*)$", getsource(errors.Exit), re.MULTILINE)
    found = [("OK", "0", "done"), *found]
    return table(("code", "name", "meaning"), [(number, name, text) for name, number, text in found])


def roles_table() -> str:
    """The roles, for whom they are and what they allow."""
    return table(("role", "for", "may"), [(f"`{one.name}`", one.whom, one.may) for one in roles.ROLES])


def types_table() -> str:
    """Who may write documents that are no data documents."""
    words = {"site": "`site:X` of the step", "person": "`operator`"}

    def who(writers: tuple[str, ...]) -> str:
        return ", ".join([*(words[one] for one in writers), "`admin`"])

    rows = [(f"`{one.name}`", one.meaning, who(one.create), who(one.change), who(one.delete)) for one in roles.TYPES]
    rows.append(("any other", "not ours", *["`admin`"] * 3))
    return table(("type", "what it is", "create", "change", "delete"), rows)


def kept_table() -> str:
    """What of a data document nobody, or no daemon, may change."""
    rows = [
        ("never", roles.IDENTITY, "which file the document is about"),
        ("once the file is no longer `open`", roles.CONTENT, "what the closed file is"),
        ("never by a site's account", roles.PEOPLE, "what people say about it"),
    ]
    return table(
        ("changes", "keys", "what they say"),
        [(when, ", ".join(f"`{k}`" for k in keys), what) for when, keys, what in rows],
    )


def daemons_table() -> str:
    """The daemons' accounts."""
    site = settings.Settings.load("/nowhere", overrides={"site": "X"})
    rows = [
        (one.name, f"`{users.name_of(one.name, site)}`", ", ".join(f"`{r}`" for r in users.roles_of(one.name, site)),
         f"`accounts/{users.file_of(one.name, site).name}`", one.does)
        for one in users.DAEMONS
    ]  # fmt: skip
    return table(("daemon", "account", "roles", "credentials file", "what it does"), rows)


def fate_table() -> str:
    """How a farm job's fate is decided, row by row."""
    from orchestrator.engine.fate import table as rows

    return table(("the job's files", "queue", "accounting", "verdict", "reason"), [*rows()])


def remedies_table() -> str:
    """What to do about each kind of error."""
    from orchestrator.remedies import REMEDIES

    rows = [(f"`{name}`", one.meaning, one.action) for name, one in REMEDIES.items()]
    return table(("error", "what it means", "what to do"), rows)


def mends_table() -> str:
    """What an audit mends, as the table of mends has it."""
    from orchestrator.audit.mend import MENDS

    return table(("finding", "what `--mend` does"), [(f"`{name}`", text) for name, text in MENDS.items()])


def findings_table() -> str:
    """What an audit can find."""
    from orchestrator.audit.findings import KINDS

    words = _Words()
    rows = [(f"`{name}`", one.severity, one.meaning, one.remedy.format_map(words)) for name, one in KINDS.items()]
    return table(("finding", "severity", "what it means", "what to do"), rows)


class _Words(dict[str, str]):
    """{document} as DOCUMENT."""

    def __missing__(self, key: str) -> str:
        return key.upper()


PARTS: dict[str, Callable[[], str]] = {
    "commands": commands,
    "settings": settings_table,
    "register": register_table,
    "chain": chain_reference,
    "statuses": statuses,
    "transitions": transitions_table,
    "diagram": diagram,
    "exit-codes": exit_codes,
    "fate": fate_table,
    "roles": roles_table,
    "types": types_table,
    "kept": kept_table,
    "daemons": daemons_table,
    "findings": findings_table,
    "online": online_reference,
    "online-inputs": online_inputs,
    "online-histograms": online_histograms,
    "mends": mends_table,
    "remedies": remedies_table,
}


def filled(text: str) -> str:
    """A guide's text with its generated parts as they are now. Raises KeyError for an unknown marker."""

    def part(found: re.Match[str]) -> str:
        return f"<!-- begin: {found[1]} -->\n{PARTS[found[1]]()}\n<!-- end: {found[1]} -->"

    return MARKED.sub(part, text)


def stale() -> list[Path]:
    """The guides whose generated parts are out of date."""
    return [path for path in sorted(DOCS.glob("*.md")) if filled(path.read_text("utf-8")) != path.read_text("utf-8")]


def main(words: list[str]) -> int:
    """Write, or check."""
    found = stale()
    for path in found:
        if "--check" in words:
            print(f"{path.name} is out of date: run python docs/generate.py")
        else:
            path.write_text(filled(path.read_text("utf-8")), "utf-8")
            print(f"wrote {path.name}")
    return 1 if found and "--check" in words else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
