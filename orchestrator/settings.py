"""The settings of a site: one table, four layers, and every value can say where it came from.

The fields of ``Settings`` are the table. Name, type, default, unit and help stand there once; the command
line's help, the commented site file that ``orchestrator init`` writes, ``orchestrator settings`` and
docs/settings.md all come from it. A later layer wins over an earlier one:

    default < orchestrator.yaml < environment ORCHESTRATOR_<NAME> < command line --set name=value

Relative paths are taken from the site's folder, so a command does the same wherever it is started. No secret
is a setting: ``credentials`` names a file, and its contents are never shown.
"""

from __future__ import annotations

import difflib
import os
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator

from orchestrator.errors import SettingsError

SITE_FILE = "orchestrator.yaml"
PREFIX = "ORCHESTRATOR_"

# Variables with our prefix that are no settings: logins (orchestrator.couch), the site's folder
# (orchestrator.cli), fault points (orchestrator.faults) and what only the tests read.
NOT_SETTINGS = frozenset(
    {"COUCH_USER", "COUCH_PASSWORD", "FOLDER", "SHARED_DATA", "TRACEBACK", "FAULT", "FAULT_NOTE", "LONG"}
)


def _field(default: Any, help: str, *, unit: str = "", shown: str = "", **rules: Any) -> Any:
    """One row of the table. ``shown`` says in words what a computed default is."""
    extra: dict[str, Any] = {"unit": unit, "shown": shown}
    if callable(default):
        return Field(default_factory=default, description=help, json_schema_extra=extra, **rules)
    return Field(default=default, description=help, json_schema_extra=extra, **rules)


def cores() -> int:
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Settings(BaseModel):
    """All settings of one site, checked. Made by ``Settings.load``; never changed afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    url: str = _field(
        "http://127.0.0.1:5984",
        "Where the database answers: the embedded one (see embedded) or any CouchDB 3. Never with a login.",
    )
    database: str = _field(
        "runs",
        "The run database: lower-case letters, digits and _$()+- .",
        pattern=r"^[a-z][a-z0-9_$()+-]*$",
    )
    credentials: Path = _field(
        Path("credentials.json"),
        "File with the database's user name and password, mode 0600. "
        "ORCHESTRATOR_COUCH_USER and ORCHESTRATOR_COUCH_PASSWORD, where set, win over it.",
    )
    accounts: Path = _field(
        Path("accounts"),
        "Folder with a credentials file for each daemon (poller.json, registrar.json, farm.json, web.json), made by "
        "`orchestrator user setup`. A daemon that has none uses credentials.",
    )
    site: str = _field("here", "Which of the chain's sites this is: its steps are run here.", min_length=1)
    chain: Path = _field(Path("chain.yaml"), "The chain file: which steps there are and how they run.")
    data: Path = _field(Path("data"), "Where steps put their output files.")
    spool: Path = _field(Path("spool"), "Scratch directories of attempts, and results that wait for the database.")
    logs: Path = _field(Path("logs"), "Where the daemons and the steps write their logs.")
    workers: int = _field(cores, "Steps that run at once on this machine.", shown="one for each core", ge=1, le=1024)
    pollers: int = _field(1, "Poller processes that `up` starts; they share the workers.", ge=0, le=64)
    watch: list[Path] = _field(
        list, "Directories in which finished raw files are looked for and registered.", shown="none"
    )
    register_settings: dict[str, Any] = _field(
        dict,
        "How a raw file is known to be finished and which format it has.",
        shown="the usual rules",
        alias="register",
    )
    web_host: str = _field("127.0.0.1", "Address of the status page. Anything but loopback shows it to the network.")
    web_port: int = _field(8080, "Port of the status page.", ge=1, le=65535)
    web_hosts: list[str] = _field(
        list,
        "Names by which the status page may be opened, besides addresses and this machine's own names; * allows any.",
        shown="none",
    )
    web_reading: Literal["anyone", "login"] = _field(
        "anyone", "Who may read the status page: whoever reaches it, or only people who have logged in."
    )
    embedded: Literal["auto", "always", "never"] = _field(
        "auto",
        "Whether `up` starts the embedded database; auto: if url is a loopback address with nothing behind it.",
    )
    embedded_path: Path = _field(Path("database"), "Folder of the embedded database.")
    synchronous: Literal["full", "normal"] = _field(
        "full",
        "How the embedded database writes: full survives a power cut; normal, faster, a crash of the process.",
    )
    replicate: dict[str, Any] = _field(
        dict,
        "Databases that this one is replicated with: for each a name and "
        "{url, credentials, database, direction, types}.",
        shown="none",
    )
    lease: float = _field(
        60.0,
        "A poller without heartbeat for so long counts as dead: its claims are taken back. Where pollers of other "
        "machines watch, one that cannot write it ends its own steps at three quarters of this.",
        unit="s",
        gt=0,
    )
    sweep: float = _field(60.0, "How often a poller looks at all work, besides following changes.", unit="s", gt=0)
    drain: float = _field(30.0, "How long running steps may go on after SIGTERM.", unit="s", ge=0)
    ask_above: int = _field(
        10, "Operations of people on more documents than this ask first, or want --yes.", unit="documents", ge=0
    )
    web_changes: Literal["login", "anyone-here"] = _field(
        "login",
        "Who may change documents through the page: people who have logged in, or anyone at this machine without a "
        "login (for a laptop that nobody shares).",
    )
    log_size: float = _field(20.0, "A daemon's log is turned over at this size; five are kept.", unit="MB", gt=0)

    _folder: Path = PrivateAttr(default=Path())
    _sources: dict[str, str] = PrivateAttr(default_factory=dict)

    # -- making

    @field_validator("url")
    @classmethod
    def _plain_url(cls, value: str) -> str:
        parts = urllib.parse.urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must begin with http:// or https:// and name a host, such as http://127.0.0.1:5984")
        if parts.username or parts.password:
            raise ValueError("must not hold a user name or password; put those into the credentials file")
        return value.rstrip("/")

    @classmethod
    def load(
        cls,
        folder: Path | str = ".",
        environ: Mapping[str, str] | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> Settings:
        """Read the layers for the site in ``folder``.

        Args:
            folder: the site's folder; its orchestrator.yaml need not exist.
            environ: the environment; none means no variable is looked at.
            overrides: values from the command line; None values are as if absent.

        Raises:
            SettingsError: naming every value that cannot be used, where it stands and what would be right.
        """
        root = Path(folder).absolute()
        values: dict[str, Any] = {}
        sources: dict[str, str] = {}
        file = root / SITE_FILE
        for name, value in _read(file).items():
            values[name] = value
            sources[name] = str(file)
        for variable, text in (environ or {}).items():
            name = variable.removeprefix(PREFIX).lower()
            if variable.startswith(PREFIX) and name in _BY_NAME:
                values[name] = _from_text(name, text)
                sources[name] = f"environment {variable}"
        for name, value in (overrides or {}).items():
            if value is not None:
                values[name] = _from_text(name, value) if isinstance(value, str) else value
                sources[name] = "command line"
        try:
            made = cls.model_validate(values)
        except ValidationError as error:
            raise SettingsError(_explain(error, sources)) from None
        made._settle(root, sources)
        return made

    def _settle(self, root: Path, sources: dict[str, str]) -> None:
        """Fix paths to the site's folder. The model is frozen for everyone else."""
        self._folder = root
        self._sources = sources
        for row in TABLE:
            value = getattr(self, row.field)
            if isinstance(value, Path):
                self.__dict__[row.field] = root / value.expanduser()
            elif row.name == "watch":
                self.__dict__[row.field] = [root / path.expanduser() for path in value]

    # -- reading

    @property
    def folder(self) -> Path:
        """The site's folder, absolute."""
        return self._folder

    def source(self, name: str) -> str:
        """Where a value came from: "default", the site file's path, a variable, or "command line"."""
        return self._sources.get(name, "default")

    def value(self, name: str) -> Any:
        """A setting by its written name (``register``, not ``register_settings``)."""
        return getattr(self, _BY_NAME[name].field)

    def arguments(self) -> list[str]:
        """The words that make another ``orchestrator`` command use the same settings as this one."""
        words = ["-C", str(self.folder)]
        for name, source in sorted(self._sources.items()):
            if source == "command line":
                words += ["--set", f"{name}={_to_text(self.value(name))}"]
        return words

    def rows(self) -> list[tuple[Setting, Any, str]]:
        """Every setting with its value and source, in the table's order."""
        return [(row, self.value(row.name), self.source(row.name)) for row in TABLE]

    @property
    def loopback(self) -> bool:
        """Whether url is this very machine by its loopback address."""
        host = urllib.parse.urlsplit(self.url).hostname or ""
        return host in ("localhost", "::1") or host.startswith("127.")

    @property
    def url_address(self) -> tuple[str, int]:
        """Host and port of url."""
        parts = urllib.parse.urlsplit(self.url)
        return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


@dataclass(frozen=True)
class Setting:
    """One row of the table.

    ``field`` is the attribute's name; ``unit`` is empty where there is none; ``computed`` is this machine's value
    of a default that is worked out, which ``default`` says in words.
    """

    name: str
    field: str
    type: str
    default: str
    unit: str
    help: str
    computed: str | None = None

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return PREFIX + self.name.upper()


def _type_name(annotation: Any) -> str:
    if annotation in (str, int, float):
        return {str: "text", int: "whole number", float: "number"}[annotation]
    if annotation is Path:
        return "path"
    if annotation == list[Path]:
        return "list of paths"
    if annotation == list[str]:
        return "list of texts"
    if annotation == dict[str, Any]:
        return "mapping"
    return " | ".join(annotation.__args__)


def _table() -> tuple[Setting, ...]:
    rows = []
    for field, info in Settings.model_fields.items():
        extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
        value = str(info.get_default(call_default_factory=True))
        words = str(extra.get("shown") or "")
        rows.append(
            Setting(
                name=info.alias or field,
                field=field,
                type=_type_name(info.annotation),
                default=words or value,
                unit=str(extra.get("unit", "")),
                help=info.description or "",
                computed=value if words else None,
            )
        )
    return tuple(rows)


TABLE: tuple[Setting, ...] = _table()
_BY_NAME: dict[str, Setting] = {row.name: row for row in TABLE}


def _read(file: Path) -> dict[str, Any]:
    """The site file as a mapping; empty where there is none."""
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file}: cannot be read: {error}") from None
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise SettingsError(f"{file}{where}: {problem}. Each line must read `name: value`.") from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise SettingsError(f"{file}: must hold lines of `name: value`, not a {type(found).__name__}.")
    return {str(name): value for name, value in found.items()}


def _from_text(name: str, text: str) -> Any:
    """A value as it is written in the environment or after --set: paths by ``:``, mappings as YAML."""
    row = _BY_NAME.get(name)
    if row is None or row.type not in ("list of paths", "list of texts", "mapping"):
        return text
    if row.type == "list of texts" and not text.lstrip().startswith("["):
        return text.replace(",", " ").split()
    if row.type == "list of paths" and not text.lstrip().startswith("["):
        return [part for part in text.split(os.pathsep) if part]
    try:
        return yaml.safe_load(text) or ({} if row.type == "mapping" else [])
    except yaml.YAMLError:
        raise SettingsError(f"{name}: {text!r} is not YAML; write it as {{name: value}}.") from None


def _to_text(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(yaml.safe_dump(str(item), default_style='"').strip() for item in value) + "]"
    if isinstance(value, dict):
        return yaml.safe_dump(value, default_flow_style=True, width=10**6).strip()
    return str(value)


def suggest(name: str, known: list[str]) -> str:
    """`` Did you mean 'x'?`` for the nearest known name, or nothing."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f" Did you mean {near[0]!r}?" if near else ""


def _explain(error: ValidationError, sources: Mapping[str, str]) -> str:
    """A sentence for each value that was refused."""
    sentences = []
    for item in error.errors():
        name = str(item["loc"][0]) if item["loc"] else ""
        where = sources.get(name, "default")
        if item["type"] == "extra_forbidden":
            sentences.append(f"{where}: there is no setting {name!r}.{suggest(name, list(_BY_NAME))}")
            continue
        problem = item["msg"].removeprefix("Value error, ")
        row = _BY_NAME.get(name)
        wanted = f" (wanted: {row.type}{', in ' + row.unit if row.unit else ''})" if row else ""
        problem = problem[:1].lower() + problem[1:]
        sentences.append(f"{where}: {name}: {problem}, not {item['input']!r}{wanted}")
    return "; ".join(sentences)


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Variables that look like settings and are none: a sentence each, for ``orchestrator check``."""
    found = []
    for variable in sorted(environ):
        name = variable.removeprefix(PREFIX)
        if variable.startswith(PREFIX) and name not in NOT_SETTINGS and name.lower() not in _BY_NAME:
            found.append(f"{variable} sets nothing.{suggest(name.lower(), list(_BY_NAME))}")
    return found
