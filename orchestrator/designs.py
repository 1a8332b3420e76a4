"""Design documents from a chain and the files under ``couchapp/``: data in, data out, no database.

``couchapp/<design>/views/<view>/map.js`` with ``reduce`` (a builtin's name) or ``reduce.js``,
``couchapp/<design>/filters/<filter>.js``, ``couchapp/<design>/validate_doc_update.js``. A name that begins with
``procN`` stands for one view or filter for each step of the chain.

Each file is JavaScript as it stands, a comment and one named function. What comes from the chain stands in it as a
string literal, which is replaced by a JSON value:

    "@type@"         the type of the chain's documents
    "@step@"         {key, number, needs}: the step that a procN file is made for; needs are keywords
    "@chain@"        {steps: [{key, number, needs}, ...]}
    "@branches@"     {type: {sites: [the site of each step], lanes: {name: [...]}}}: every chain that there is
    "@moves@"        "|closed>good:person any|...": for whom, and how the step's number moves: any, same, later
    "@words@"        {"refused>done": "accepted"}: what a person's word makes of a step's entry
    "@plain@", "@numbered@", "@types@", "@identity@", "@content@", "@people@"
                     the guard's other tables, see orchestrator/roles.py

The functions of views and filters hold nothing of the chain that does not change what they do (no step's name, version
or site), so that most edits of a chain leave the views' indexes as they are.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from orchestrator import roles
from orchestrator.chain import Chain, Step
from orchestrator.errors import ChainError
from orchestrator.lanes import DESIGNS as OF_EACH_BRANCH
from orchestrator.lanes import wrapped
from orchestrator.transitions import WORDS

DESIGNS = ("work", "farm", "pages", "conflicts", "filters", "guard")
BUILTIN_REDUCES = ("_count", "_sum", "_stats", "_approx_count_distinct")

_TOKEN = re.compile(r'"@([a-z]+)@"')
# What CouchDB's older engines want is the bare anonymous function: no comment before it, no name, nothing after.
_HEAD = re.compile(r"\A(?:\s+|//[^\n]*\n|/\*.*?\*/)*function\s+\w+\s*\(", re.DOTALL)


def build(chain: Chain, source: Path | None = None) -> dict[str, dict[str, Any]]:
    """The design documents of ``chain``, by id: ``_design/work``, ``_design/pages``, ...

    ``_design/work`` carries the chain in short, for pages and people:
    ``chain: {name, type, steps: [{name, key, number, needs, site, version}]}``.

    Args:
        chain: the chain.
        source: the folder with the files; default: the installed package ``couchapp``.

    Raises:
        ChainError: the folder or a file of it is missing or cannot be used; the message names it.
    """
    folder = source or default_source()
    designs: dict[str, dict[str, Any]] = {}
    for one in (chain, *chain.branches().values()):
        for name in OF_EACH_BRANCH if one.branch.name else DESIGNS:
            if not (folder / name).is_dir():
                raise ChainError(f"there is no folder {folder / name}: the couchapp is incomplete, install it again")
            design = _design(name, folder / name, one)
            designs[design["_id"]] = design
        designs[f"_design/{one.branch.design('work')}"]["chain"] = summary(one)
    for name in chain.gathers:
        designs[f"_design/gather-{name}"] = _gather(name, folder / "gather", chain)
    return designs


def default_source() -> Path:
    """The folder of the installed ``couchapp`` package."""
    import couchapp  # here: only data, and not needed where a folder is given

    return Path(couchapp.__file__).parent


def summary(chain: Chain) -> dict[str, Any]:
    """The chain in short, as ``_design/work`` carries it. ``needs`` are keywords (``proc0``)."""
    return {
        "name": chain.name,
        "type": chain.type,
        "steps": [
            {**_for_functions(chain, step), "name": step.name, "site": step.site, "version": step.version}
            for step in chain.steps
        ],
    }


def _for_functions(chain: Chain, step: Step) -> dict[str, Any]:
    return {"key": step.key, "number": step.number, "needs": [need.key for need in chain.needs(step)]}


def _design(name: str, folder: Path, chain: Chain) -> dict[str, Any]:
    values: dict[str, Any] = {
        "type": chain.type,
        "chain": {"steps": [_for_functions(chain, step) for step in chain.steps]},
        "branches": roles.branches(chain),
        "moves": roles.moves(),
        "plain": roles.plain_statuses(),
        "numbered": roles.numbered_statuses(),
        "types": roles.types(),
        "words": WORDS,
        "identity": roles.IDENTITY,
        "content": roles.CONTENT,
        "people": roles.PEOPLE,
    }
    design: dict[str, Any] = {"_id": f"_design/{chain.branch.design(name)}", "language": "javascript"}
    views: dict[str, dict[str, str]] = {}
    for view in sorted(path for path in _entries(folder / "views") if path.is_dir()):
        for view_name, step in _expanded(view.name, chain):
            views[view_name] = _view(view, _with_step(values, chain, step), chain)
    filters: dict[str, str] = {}
    for path in sorted(path for path in _entries(folder / "filters") if path.suffix == ".js"):
        for filter_name, step in _expanded(path.stem, chain):
            filters[filter_name] = _inward(function(path, _with_step(values, chain, step)), chain, ("doc", "req"))
    if views:
        design["views"] = views
    if filters:
        design["filters"] = filters
    validate = folder / "validate_doc_update.js"
    if validate.exists():
        design["validate_doc_update"] = function(validate, values)
    if len(design) == 2:
        raise ChainError(f"the folder {folder} holds no view, filter or validation: the couchapp is incomplete")
    return design


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _expanded(name: str, chain: Chain) -> list[tuple[str, Step | None]]:
    """``procN...`` once for each step, any other name once."""
    if not name.startswith("procN"):
        return [(name, None)]
    return [(step.key + name.removeprefix("procN"), step) for step in chain.steps]


def _with_step(values: dict[str, Any], chain: Chain, step: Step | None) -> dict[str, Any]:
    return values if step is None else {**values, "step": _for_functions(chain, step)}


def _inward(source: str, chain: Chain, arguments: tuple[str, ...]) -> str:
    """The function as it is, or, for a lane, handed documents as that lane sees them."""
    return wrapped(source, chain.branch.name, chain.type, arguments) if chain.branch.lane else source


def _gather(name: str, folder: Path, chain: Chain) -> dict[str, Any]:
    """The design document in which a gather looks for its members and for what it has made."""
    gather = chain.gathers[name]
    lane = next((one for one in chain.lanes if any(step.name == gather.step for step in chain.lanes[one].steps)), "")
    whole = chain.of(lane)
    steps = {step.name: step for step in whole.steps} | whole.elsewhere
    values = {
        "type": chain.type,
        "gather": {
            "name": name, "type": gather.type, "period": {"": 0, "year": 4, "month": 7, "day": 10}[gather.period],
            "after": [steps[one].key for one in gather.after], "leave_out": list(gather.leave_out),
            "step": steps[gather.step].key if gather.step else None,
        },
    }  # fmt: skip
    views = {
        view.name: _view(view, values, chain if view.name == "made" else whole)
        for view in sorted(_entries(folder / "views"))
        if view.is_dir()
    }
    return {"_id": f"_design/gather-{name}", "language": "javascript", "views": views}


def _view(folder: Path, values: dict[str, Any], chain: Chain) -> dict[str, str]:
    view = {"map": _inward(function(folder / "map.js", values), chain, ("doc",))}
    builtin = folder / "reduce"
    if (folder / "reduce.js").exists():
        view["reduce"] = function(folder / "reduce.js", values)
    elif builtin.exists():
        name = builtin.read_text(encoding="utf-8").strip()
        if name not in BUILTIN_REDUCES:
            raise ChainError(f"{builtin}: {name!r} is no builtin reduce (known: {', '.join(BUILTIN_REDUCES)})")
        view["reduce"] = name
    return view


def function(path: Path, values: dict[str, Any]) -> str:
    """The function in the file ``path`` as CouchDB takes it: anonymous, with the tokens replaced by ``values``."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ChainError(f"the couchapp file {path} cannot be read: {error}") from error
    head = _HEAD.match(text)
    if head is None:
        raise ChainError(f"{path}: a comment and one named function are expected: function map(doc) {{ ... }}")

    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise ChainError(f"{path}: {match[0]} is not known here (known: {', '.join(sorted(values))})")
        return json.dumps(values[match[1]])

    return _TOKEN.sub(value, "function (" + text[head.end() :].rstrip())
