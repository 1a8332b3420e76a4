"""Design documents from a chain and files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import quickjs

from orchestrator import chain as chains
from orchestrator import designs
from orchestrator.errors import ChainError

CHAIN = chains.loads(
    """
name: samba
type: sambafile
sites: {here: {}, lyon: {}}
steps:
  - {name: transfer, run: "a.b:c"}
  - {name: convert, run: "a.b:c", site: lyon, version: "2.1"}
  - {name: pictures, run: "a.b:c", needs: [transfer]}
"""
)
ES6 = re.compile(
    r"\b(let|const|class|async|await)\b\s|\([^)]*\bof\b|=>|`|\.\.\.|\.(includes|startsWith|endsWith|repeat|find)\("
)


def sources(built: dict[str, Any]) -> list[str]:
    found = []
    for design in built.values():
        found += [view["map"] for view in design.get("views", {}).values()]
        found += list(design.get("filters", {}).values())
        found += [design["validate_doc_update"]] if "validate_doc_update" in design else []
    return found


def test_views_and_filters_for_each_step() -> None:
    built = designs.build(CHAIN)
    names = ("work", "farm", "pages", "conflicts", "filters", "guard")
    assert set(built) == {f"_design/{name}" for name in names}
    assert set(built["_design/work"]["views"]) == {
        "proc0", "proc1", "proc2", "proc0inprogress", "proc1inprogress", "proc2inprogress",
        "inqueue", "inprogress", "failed", "bad",
    }  # fmt: skip
    assert {view["reduce"] for view in built["_design/work"]["views"].values()} == {"_count"}
    assert set(built["_design/farm"]["views"]) == {"jobs", "documents", "cancelled"}
    assert set(built["_design/pages"]["views"]) == {
        "status", "runs", "run_status", "steps", "daq", "files", "search", "recent", "attempts", "past", "throughput",
        "held",
    }  # fmt: skip
    assert set(built["_design/filters"]["filters"]) == {"newproc0", "statusgood", "proc0", "proc1", "proc2"}
    assert '"needs": ["proc0"]}' in built["_design/work"]["views"]["proc2"]["map"]
    assert all(design["language"] == "javascript" for design in built.values())


def test_the_functions_are_plain_es5_anonymous_and_without_tokens() -> None:
    for source in sources(designs.build(CHAIN)):
        assert source.startswith("function (") and source.endswith("}")
        code = re.sub(r"//[^\n]*", "", source)
        assert '"@' not in code
        assert any(word in code for word in ('"sambafile"', '"attempt"', '"past"', "_conflicts")), code
        code = re.sub(r'"[^"\n]*"', '""', code)
        assert not ES6.search(code), ES6.search(code)
        quickjs.Context().eval(f"({source})")


def test_the_files_are_javascript_as_they_stand() -> None:
    files = list(designs.default_source().rglob("*.js"))
    assert len(files) > 20
    for path in files:
        quickjs.Context().eval(path.read_text())


def test_the_chain_stands_in_the_work_design_in_short() -> None:
    assert designs.build(CHAIN)["_design/work"]["chain"] == {
        "name": "samba",
        "type": "sambafile",
        "steps": [
            {"key": "proc0", "number": 0, "needs": [], "name": "transfer", "site": "here", "version": "1"},
            {"key": "proc1", "number": 1, "needs": ["proc0"], "name": "convert", "site": "lyon", "version": "2.1"},
            {"key": "proc2", "number": 2, "needs": ["proc0"], "name": "pictures", "site": "here", "version": "1"},
        ],
    }


def test_a_new_version_or_site_leaves_every_view_and_filter_as_it_was() -> None:
    dump = CHAIN.model_dump(exclude={"steps"})
    steps = [{**step.model_dump(exclude_none=True), "version": "9", "site": "here"} for step in CHAIN.steps]
    before, after = designs.build(CHAIN), designs.build(chains.Chain.model_validate({**dump, "steps": steps}))
    assert before.pop("_design/guard") != after.pop("_design/guard"), "the guard asks for the role of a step's site"
    assert sources(before) == sources(after)


def test_a_text_in_the_chain_cannot_leave_its_literal(tmp_path: Path) -> None:
    path = tmp_path / "map.js"
    path.write_text('// c\nfunction map(doc) { return "@step@"; }')
    nasty = {"key": '"; throw 1; // \u2028 </script> \\'}
    source = designs.function(path, {"step": nasty})
    assert json.loads(quickjs.Context().eval(f"JSON.stringify(({source})())")) == nasty


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("work/views/x/map.js", "function map(doc) { '@step@'; \"@step@\"; }", "@step@"),
        ("work/views/x/map.js", 'function map(doc) { "@chian@"; }', "@chian@"),
        ("work/views/x/map.js", "var x;", "named function"),
        ("work/views/x/map.js", None, "cannot be read"),
        ("work/views/x/reduce", "_median", "no builtin reduce"),
        ("guard/validate_doc_update.js", b"\xff\xfe", "cannot be read"),
    ],
)
def test_a_couchapp_that_cannot_be_used_names_the_file(tmp_path: Path, name: str, text: Any, words: str) -> None:
    files: dict[str, Any] = {
        "work/views/x/map.js": "function map(doc) { emit(1); }",
        "farm/views/x/map.js": "function map(doc) { emit(1); }",
        "pages/views/x/map.js": "function map(doc) { emit(1); }",
        "conflicts/views/x/map.js": "function map(doc) { emit(1); }",
        "filters/filters/x.js": "function f(doc) { return true; }",
        "guard/validate_doc_update.js": "function v(a) { }",
    }
    for path, content in {**files, name: text}.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        if content is not None:
            (tmp_path / path).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ChainError, match=words) as caught:
        designs.build(CHAIN, tmp_path)
    assert Path(name).name in str(caught.value)


def test_a_folder_that_is_missing_or_empty(tmp_path: Path) -> None:
    with pytest.raises(ChainError, match="install it again"):
        designs.build(CHAIN, tmp_path)
    for name in designs.DESIGNS:
        (tmp_path / name).mkdir()
    with pytest.raises(ChainError, match="holds no view"):
        designs.build(CHAIN, tmp_path)
