"""The chain file: which steps a document goes through, where each runs, with what settings and limits.

A chain is YAML, validated into the models below. Every error names the place in the file and the remedy, and suggests
the nearest known name for one that is misspelt. ``docs/chain.md`` is made from these models, so what a field is for
stands in its ``description`` here and nowhere else.
"""

from __future__ import annotations

import json
import re
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from orchestrator import jobchain
from orchestrator.access import SiteAccess, Timeouts
from orchestrator.errors import ChainError
from orchestrator.farms import Degrade, Farm, Grace, Limits, farm_faults
from orchestrator.units import Bytes, ErrorClass, Model, Name, Seconds, seconds, size

__all__ = ["Chain", "Retries", "Site", "Step", "load", "loads", "seconds", "size"]

class Retries(Model):
    """What happens after an attempt that failed."""

    count: int = Field(2, ge=0, le=100, description="how many more attempts follow a failed first one")
    wait: Seconds = Field(30.0, description="the wait before the first of them; each further wait is twice as long")
    longest: Seconds = Field(3600.0, description="no wait is longer than this")
    on: tuple[ErrorClass, ...] = Field(
        ("transient", "resources"), description="the classes of errors that are worth another attempt"
    )


class Site(Model):
    """A place with one database endpoint, file systems and perhaps a farm."""

    description: str = Field("", description="for people")


class Step(Model):
    """One step of the chain: what runs, where, with what settings and limits."""

    name: Name = Field(description="unique in the chain; lower case")
    run: str | None = Field(None, description="a Python function or class, as 'package.module:name'")
    command: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="instead of run: an executable and its arguments, each a string of its own (never a shell line). "
        "{document}, {result}, {directory}, {input} and {attempt} are replaced in them",
    )
    site: Name = Field("here", description="the one site that runs this step")
    executor: Literal["local", "farm"] = Field(
        "local", description="how it is run: in the poller's own pool of workers, or as batch jobs on a farm"
    )
    farm: Name | None = Field(None, description="with executor farm: which of the chain's farms")
    documents_per_job: int = Field(
        1, ge=1, le=10_000, description="documents that one batch job does, one after the other"
    )
    cores: int = Field(1, ge=1, le=1024, description="processor cores that a batch job asks for, on one node")
    queue: str = Field("", max_length=100, description="queue or partition of the farm; empty: the farm's default")
    degrade: Degrade = Field(
        default_factory=Degrade, description="what a batch job asks for after one that ran out of time or memory"
    )
    settings: dict[str, Any] = Field(default_factory=dict, description="handed to the step as they are")
    time_limit: Seconds | None = Field(None, description="an attempt that takes longer is ended (class resources)")
    memory_limit: Bytes | None = Field(None, description="an attempt that holds more is ended (class resources)")
    retries: Retries = Field(default_factory=Retries, description="what happens after an attempt that failed")
    needs: tuple[str, ...] | None = Field(
        None, description="the earlier steps that must be done first; without it, all earlier steps"
    )
    version: str = Field("1", description="recorded with every result, so that one knows what to redo")
    description: str = Field("", description="for people")

    number: int = Field(0, exclude=True, json_schema_extra={"internal": True})

    @cached_property
    def key(self) -> str:
        """The step's keyword in a document: ``proc0``, ``proc1``, ..."""
        return f"proc{self.number}"


class Chain(Model):
    """The steps of one type of document."""

    name: Name = Field(description="the chain's name")
    type: Name = Field("daqdocument", description="the type of document that this chain is for")
    description: str = Field("", description="for people")
    sites: dict[Name, Site] = Field(default_factory=lambda: {"here": Site()}, description="the sites, by name")
    farms: dict[Name, Farm] = Field(default_factory=dict, description="the farms that steps can be sent to, by name")
    steps: tuple[Step, ...] = Field(min_length=1, description="the steps in their order: the first is proc0")

    @model_validator(mode="before")
    @classmethod
    def _number(cls, data: Any) -> Any:
        """Steps are numbered by their place; nobody writes the number."""
        if isinstance(data, dict) and isinstance(data.get("steps"), list | tuple):
            data = dict(data)
            if any(isinstance(s, dict) and "number" in s for s in data["steps"]):
                raise ValueError("a step's number is its place in the list and is not written: remove 'number'")
            data["steps"] = [{**s, "number": n} if isinstance(s, dict) else s for n, s in enumerate(data["steps"])]
        return data

    def step(self, name: str) -> Step:
        """The step of that name or keyword (``convert`` or ``proc1``). Raises ChainError with the nearest name."""
        for step in self.steps:
            if name in (step.name, step.key):
                return step
        raise ChainError(f"the chain {self.name!r} has no step {name!r}{_near(name, [s.name for s in self.steps])}")

    def needs(self, step: Step) -> tuple[Step, ...]:
        """The steps that must be done before ``step``, in the chain's order."""
        if step.needs is None:
            return self.steps[: step.number]
        return tuple(s for s in self.steps[: step.number] if s.name in step.needs)

    def at(self, site: str) -> tuple[Step, ...]:
        """The steps that ``site`` runs itself, with the pollers' own workers."""
        return tuple(s for s in self.steps if s.site == site and s.executor == "local")

    def farmed(self, site: str, farm: str | None = None) -> tuple[Step, ...]:
        """The steps that ``site`` sends to ``farm`` (default: to any)."""
        return tuple(
            s for s in self.steps if s.site == site and s.executor == "farm" and farm in (None, s.farm)
        )

    def fingerprint(self) -> str:
        """A short hash of what the chain says, to tell two versions of it apart."""
        return jobchain.fingerprint(self.data())

    def data(self) -> dict[str, Any]:
        """The chain as JSON: what workers and batch jobs get of it (`jobchain.JobChain`)."""
        return self.model_dump(mode="json")


def _near(name: str, known: list[str]) -> str:
    """Words for an error: the nearest known name, else all of them."""
    near = get_close_matches(str(name), known, n=1, cutoff=0.6)
    return f" (did you mean {near[0]!r}?)" if near else f" (known: {', '.join(known)})" if known else ""


def load(path: Path | str) -> Chain:
    """Read and validate a chain file. Raises ChainError, which names the file, every fault's place and its remedy."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ChainError(
            f"there is no chain file {path}: make one with 'orchestrator init', or correct the path"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ChainError(f"the chain file {path} cannot be read: {error}") from error
    return loads(text, str(path))


def loads(text: str, source: str = "chain") -> Chain:
    """Validate a chain given as YAML text; ``source`` is the name used in errors. Raises ChainError."""
    try:
        data = yaml.load(text, Loader=_StrictLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ChainError(f"{source}{place}: this is not YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ChainError(f"{source}: this is not YAML: {error}") from error
    if not isinstance(data, dict):
        raise ChainError(f"{source}: a chain file holds names and values at the top (name:, steps:), not {_kind(data)}")
    try:
        json.dumps(data, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ChainError(
            f"{source}: a value has no place in JSON ({error}); put dates and special numbers in quotes"
        ) from error
    try:
        chain = Chain.model_validate(data)
    except ValidationError as error:
        raise ChainError(_sentences(error, data, source)) from error
    faults = _named_checks(chain)
    if faults:
        raise ChainError("\n".join(f"{source}: {fault}" for fault in faults))
    return chain


class _StrictLoader(yaml.SafeLoader):
    """YAML that refuses a key written twice (plain YAML keeps the last), with only true and false for booleans.

    YAML 1.1 reads ``on``, ``off``, ``yes`` and ``no`` as booleans too, and ``on:`` is a word of ours.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own class attribute
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if isinstance(key, list | dict):
            raise yaml.MarkedYAMLError(problem="a key must be a plain word", problem_mark=key_node.start_mark)
        if key in seen:
            raise yaml.MarkedYAMLError(problem=f"the key {key!r} stands here twice", problem_mark=key_node.start_mark)
        seen.add(key)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _kind(value: Any) -> str:
    names = {
        list: "a list",
        str: "a text",
        int: "a number",
        float: "a number",
        bool: "a yes or no",
        type(None): "nothing",
    }
    return names.get(type(value), type(value).__name__)


def _sentences(error: ValidationError, data: dict[str, Any], source: str) -> str:
    """One line for each fault that pydantic found: the file, the place, what is wrong, what to do."""
    models: dict[str, type[BaseModel]] = {
        "steps": Step, "sites": Site, "retries": Retries, "degrade": Degrade,
        "farms": Farm, "limits": Limits, "grace": Grace,
        "access": SiteAccess, "jump": SiteAccess, "timeouts": Timeouts,
    }  # fmt: skip
    lines = []
    for fault in error.errors():
        location = [part for part in fault["loc"] if part != "[key]"]
        model: type[BaseModel] = Chain
        for part in location[:-1]:
            model = models.get(str(part), model)
        place = _place(location, data)
        if fault["type"] == "extra_forbidden":
            known = [n for n in model.model_fields if n != "number"]
            message = f"{location[-1]!r} is not known here{_near(str(location[-1]), known)}"
        elif fault["type"] == "missing":
            message = "is missing: add it"
        elif fault["type"] == "string_pattern_mismatch":
            message = f"{fault['input']!r} is no name: begin with a lower-case letter, go on with a-z, 0-9, _ and -"
        elif fault["type"] == "literal_error":
            message = f"{fault['input']!r} is not possible here; it must be {fault['ctx']['expected']}"
        elif fault["type"] in _SHAPES:
            message = f"must be {_SHAPES[fault['type']]}, not {_kind(fault['input'])}"
        elif fault["type"] == "too_short":
            deeper = [other["loc"] for other in error.errors() if len(other["loc"]) > len(fault["loc"])]
            if any(inside[: len(fault["loc"])] == fault["loc"] for inside in deeper):
                continue  # its items are at fault, and said so
            message = "must hold at least one"
        else:
            message = fault["msg"].removeprefix("Value error, ")
        lines.append(f"{source}: {place}: {message}")
    return "\n".join(lines)


_SHAPES = {
    "tuple_type": "a list",
    "dict_type": "names and values",
    "model_type": "names and values",
    "model_attributes_type": "names and values",
    "string_type": "a text",
    "int_parsing": "a number",
    "int_type": "a number",
}


def _place(location: list[Any], data: Any) -> str:
    """A place in the file in words: ``steps[2] (convert) / retries / count``."""
    words: list[str] = []
    for part in location:
        data = data[part] if _has(data, part) else None
        if isinstance(part, int):
            name = data.get("name") if isinstance(data, dict) else None
            words[-1] = f"{words[-1]}[{part}]" + (f" ({name})" if isinstance(name, str) else "")
        else:
            words.append(str(part))
    return " / ".join(words) or "the file"


def _has(data: Any, part: Any) -> bool:
    return (isinstance(data, dict) and part in data) or (
        isinstance(data, list) and isinstance(part, int) and part < len(data)
    )


def _named_checks(chain: Chain) -> list[str]:
    """Checks across fields, each of which ends in a sentence."""
    faults = []
    names = [s.name for s in chain.steps]
    for name in sorted({n for n in names if names.count(n) > 1}):
        faults.append(f"steps: all step names must be unique, and {name!r} stands there {names.count(name)} times")
    for step in chain.steps:
        place = f"steps[{step.number}] ({step.name})"
        if (step.run is None) == (step.command is None):
            faults.append(f"{place}: a step has either 'run' or 'command': give exactly one of the two")
        if step.run is not None and not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", step.run):
            faults.append(f"{place} / run: {step.run!r} names no step: write it as 'package.module:function'")
        if step.site not in chain.sites:
            faults.append(f"{place} / site: no site {step.site!r}{_near(step.site, list(chain.sites))}")
        for need in step.needs or ():
            if need not in names:
                faults.append(f"{place} / needs: no step {need!r}{_near(need, names)}")
            elif names.index(need) >= step.number:
                faults.append(f"{place} / needs: {need!r} does not come before this step: move it up, or drop the need")
        if step.name in ("bad", "good", "open", "closed", "failed") or re.fullmatch(r"proc\d+", step.name):
            faults.append(f"{place} / name: {step.name!r} is a word of the documents; choose another")
        if step.executor == "farm" and step.farm not in chain.farms:
            which = "name one" if step.farm is None else f"no farm {step.farm!r}{_near(step.farm, list(chain.farms))}"
            faults.append(f"{place} / farm: a step with executor farm needs one of the chain's farms: {which}")
        if step.executor == "local":
            given = step.model_fields_set & {"farm", "documents_per_job", "cores", "queue", "degrade"}
            faults.extend(f"{place} / {name}: this is for executor farm only" for name in sorted(given))
    for name, farm in chain.farms.items():
        faults.extend(f"farms / {name} / {fault}" for fault in farm_faults(farm))
    return faults
