"""The couchapp's functions, run by QuickJS the way CouchDB runs them: one function, JSON in, JSON out."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import quickjs

from orchestrator import chain as chains
from orchestrator import designs

CHAIN = """
name: samba
sites: {here: {}, lyon: {}}
steps:
  - {name: transfer, run: "procs.noop:nothing"}
  - {name: convert, run: "procs.noop:nothing", site: lyon, version: "2.1"}
  - {name: amplitude, run: "procs.noop:nothing"}
  - {name: pictures, run: "procs.noop:nothing", needs: [convert]}
"""

RUNNER = """
function (source, docs) {
  var rows, emit_rows = [], i, fun;
  function json(value) { return value === undefined ? null : value; }
  globalThis.emit = function (key, value) { rows.push([json(key), json(value)]); };
  fun = (0, eval)("(" + source + ")");
  docs = JSON.parse(docs);
  for (i = 0; i < docs.length; i++) { rows = []; fun(docs[i]); emit_rows.push(rows); }
  return JSON.stringify(emit_rows);
}
"""
CALLER = """
function (source, calls) {
  var fun = (0, eval)("(" + source + ")");
  return JSON.stringify(JSON.parse(calls).map(function (args) {
    try { return {value: fun.apply(null, args)}; }
    catch (error) {
      if (error instanceof Error) return {threw: String(error)};
      return {threw: error};
    }
  }));
}
"""


@pytest.fixture(scope="session")
def chain() -> chains.Chain:
    return chains.loads(CHAIN)


@pytest.fixture(scope="session")
def built(chain: chains.Chain) -> dict[str, dict[str, Any]]:
    return designs.build(chain)


@pytest.fixture(scope="session")
def engine() -> quickjs.Context:
    context = quickjs.Context()
    context.set_memory_limit(64 * 1024 * 1024)
    return context


@pytest.fixture(scope="session")
def map_rows(built: dict[str, Any], engine: quickjs.Context) -> Callable[..., list[list[tuple[Any, Any]]]]:
    """``map_rows("work/proc0", docs)``: for each document its rows (key, value)."""
    run = engine.eval(f"({RUNNER})")

    def rows(view: str, docs: list[dict[str, Any]]) -> list[list[tuple[Any, Any]]]:
        design, name = view.split("/")
        source = built[f"_design/{design}"]["views"][name]["map"]
        return [[(key, value) for key, value in one] for one in json.loads(run(source, json.dumps(docs)))]

    return rows


@pytest.fixture(scope="session")
def call(engine: quickjs.Context) -> Callable[[str, list[list[Any]]], list[dict[str, Any]]]:
    """``call(source, calls)``: the function called with each list of arguments; ``{value}`` or ``{threw}``."""
    run = engine.eval(f"({CALLER})")
    return lambda source, calls: json.loads(run(source, json.dumps(calls)))
