"""The chain file: which steps a document goes through, where each runs, with what settings and limits.

A chain is YAML, validated into the models below. Every error names the place in the file and the remedy, and suggests
the nearest known name for one that is misspelt. ``docs/chain.md`` is made from these models, so what a field is for
stands in its ``description`` here and nowhere else.
"""

from __future__ import annotations

import json
import re
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, Field, PrivateAttr, ValidationError, model_validator

from orchestrator import jobchain
from orchestrator.access import SiteAccess, Timeouts
from orchestrator.chainchecks import named_checks, near
from orchestrator.errors import ChainError
from orchestrator.farms import Degrade, Farm, Grace, Limits
from orchestrator.gatemodel import Gate
from orchestrator.lanes import MAIN, Branch
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
    executor: Literal["local", "farm", "gather"] = Field(
        "local",
        description="how it is run: in the poller's own pool of workers, as batch jobs on a farm, or by the document "
        "that a gather makes of many (see gathers / step)",
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
    hang_limit: Seconds | None = Field(
        None,
        description="an attempt is ended (class transient) when for so long neither it nor what it started has written "
        "anything, to outputs or to its log, nor reported progress",
    )
    gates: tuple[Gate, ...] = Field((), description="what must hold of the output before it counts, see below")
    retries: Retries = Field(default_factory=Retries, description="what happens after an attempt that failed")
    needs: tuple[str, ...] | None = Field(
        None,
        description="the steps that must be done first, earlier ones or those of other lanes; without it, all earlier "
        "ones",
    )
    version: str = Field("1", description="recorded with every result, so that one knows what to redo")
    description: str = Field("", description="for people")

    number: int = Field(0, exclude=True, json_schema_extra={"internal": True})
    lane: str = Field("", exclude=True, json_schema_extra={"internal": True})

    @cached_property
    def key(self) -> str:
        """The step's keyword in a document: ``proc0``, ``proc1``, ...; of another lane ``archive_proc0``, ..."""
        return f"{self.lane}_proc{self.number}" if self.lane else f"proc{self.number}"


def _of_lane(step: Step, lane: str) -> Step:
    """The step as another lane knows it."""
    copy = step.model_copy(update={"lane": lane})
    copy.__dict__.pop("key", None)  # a copy takes along what was computed for the original
    return copy


def _numbered(data: Any) -> Any:
    """Steps are numbered by their place; nobody writes the number."""
    if isinstance(data, dict) and isinstance(data.get("steps"), list | tuple):
        data = dict(data)
        for inner in ("number", "lane"):
            if any(isinstance(s, dict) and inner in s for s in data["steps"]):
                raise ValueError(f"a step's {inner} is its place in the file and is not written: remove {inner!r}")
        data["steps"] = [{**s, "number": n} if isinstance(s, dict) else s for n, s in enumerate(data["steps"])]
    return data


class Lane(Model):
    """A side lane: steps of the same documents that go on beside the main ones, with a status of their own."""

    description: str = Field("", description="for people")
    steps: tuple[Step, ...] = Field(min_length=1, description="the steps in their order: the first is <lane>_proc0")

    _number = model_validator(mode="before")(_numbered)


class Gather(Model):
    """Documents of another type that appear when their members are ready, with a chain of their own."""

    description: str = Field("", description="for people")
    type: Name = Field(description="the type of the documents that appear")
    site: Name = Field("here", description="the one site that gathers")
    after: tuple[str, ...] = Field(
        min_length=1,
        description="the steps that must be done in each member; the last of them left the file that is handed on",
    )
    period: Literal["", "day", "month", "year"] = Field(
        "", description="gather over so long a time (by when a file was registered); empty: one document a run"
    )
    settle: Seconds = Field(600.0, description="nothing may have changed in any member for so long")
    leave_out: tuple[Literal["bad", "failed"], ...] = Field(
        ("bad",), description="members that are so are left out; others hold the document back until they are ready"
    )
    own: Bytes | None = Field(
        None, description="with a period: a run of this size or more gets a document of its own, as soon as it is ready"
    )
    largest: Bytes | None = Field(
        None, description="with a period: one document gathers no more than this; a run stays whole"
    )
    step: str = Field(
        "", description="the step of a lane (executor gather) that these documents do for their members; empty: none"
    )
    every: Seconds = Field(30.0, gt=0, description="how often it is looked whether there is something to gather")
    steps: tuple[Step, ...] = Field(min_length=1, description="the steps of the documents that appear")

    _number = model_validator(mode="before")(_numbered)


class Chain(Model):
    """The steps of one type of document."""

    name: Name = Field(description="the chain's name")
    type: Name = Field("daqdocument", description="the type of document that this chain is for")
    description: str = Field("", description="for people")
    sites: dict[Name, Site] = Field(default_factory=lambda: {"here": Site()}, description="the sites, by name")
    farms: dict[Name, Farm] = Field(default_factory=dict, description="the farms that steps can be sent to, by name")
    steps: tuple[Step, ...] = Field(min_length=1, description="the steps in their order: the first is proc0")

    lanes: dict[Name, Lane] = Field(default_factory=dict, description="side lanes of the same documents, by name")
    gathers: dict[Name, Gather] = Field(default_factory=dict, description="documents made of many, by name")

    _branch: Branch = PrivateAttr(default_factory=Branch)
    _elsewhere: dict[str, Step] = PrivateAttr(default_factory=dict)
    _whole: Chain | None = PrivateAttr(None)

    _number = model_validator(mode="before")(_numbered)

    def model_post_init(self, _: Any) -> None:
        """Steps of the lanes are known to the main one by their keys there."""
        for name, lane in self.lanes.items():
            for step in lane.steps:
                self._elsewhere[step.name] = _of_lane(step, name)

    @property
    def branch(self) -> Branch:
        """Which lane or gather this is the chain of; the main one has no name."""
        return self._branch

    @property
    def whole(self) -> Chain:
        """The chain that this is a lane or gather of; of the chain itself, the chain."""
        return self._whole or self

    @property
    def elsewhere(self) -> dict[str, Step]:
        """The steps of other lanes by name, with the keywords by which this lane knows them."""
        return dict(self._elsewhere)

    def branches(self) -> dict[str, Chain]:
        """The chains of all lanes and gathers, by name: each as if it were the only one."""
        return {name: self.of(name) for name in (*self.lanes, *self.gathers)}

    def of(self, name: str) -> Chain:
        """The chain of a lane or a gather; of the empty name, this one. Raises ChainError for one that is not there."""
        if not name:
            return self
        found = self.lanes.get(name) or self.gathers.get(name)
        if found is None:
            known = [*self.lanes, *self.gathers]
            raise ChainError(f"the chain {self.name!r} has no lane or gather {name!r}{near(name, known)}")
        lane = name in self.lanes
        kind = self.type if isinstance(found, Lane) else found.type
        branch = self.model_copy(
            update={"steps": found.steps, "type": kind, "description": found.description, "lanes": {}, "gathers": {}}
        )
        branch._branch = Branch(name, lane)
        branch._whole = self
        branch._elsewhere = {}
        if lane:
            branch._elsewhere = {step.name: _of_lane(step, MAIN) for step in self.steps}
            for other in self.lanes:
                for step in self.lanes[other].steps if other != name else ():
                    branch._elsewhere[step.name] = _of_lane(step, other)
        return branch

    def step(self, name: str) -> Step:
        """The step of that name or keyword (``convert`` or ``proc1``). Raises ChainError with the nearest name."""
        for step in self.steps:
            if name in (step.name, step.key):
                return step
        raise ChainError(f"the chain {self.name!r} has no step {name!r}{near(name, [s.name for s in self.steps])}")

    def needs(self, step: Step) -> tuple[Step, ...]:
        """The steps that must be done before ``step``, in the chain's order."""
        if step.needs is None:
            return self.steps[: step.number]
        elsewhere = tuple(self._elsewhere[name] for name in step.needs if name in self._elsewhere)
        return (*elsewhere, *(s for s in self.steps[: step.number] if s.name in step.needs))

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
    faults = named_checks(chain)
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
        "steps": Step, "sites": Site, "retries": Retries, "gates": Gate, "degrade": Degrade,
        "farms": Farm, "limits": Limits, "grace": Grace,
        "access": SiteAccess, "jump": SiteAccess, "timeouts": Timeouts, "lanes": Lane, "gathers": Gather,
    }  # fmt: skip
    lines = []
    for fault in error.errors():
        location = [part for part in fault["loc"] if part != "[key]"]
        model: type[BaseModel] = Chain
        for part in location[:-1]:
            model = models.get(str(part), model)
        place = _place(location, data)
        if fault["type"] == "extra_forbidden":
            known = [n for n in model.model_fields if n not in ("number", "lane")]
            message = f"{location[-1]!r} is not known here{near(str(location[-1]), known)}"
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
