"""Design functions in child processes: what they compute, and what becomes of those that go wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.embedded import javascript
from orchestrator.embedded.javascript import DesignFunctions, FunctionError

SHORT = 0.4  # seconds: long enough for what ends, short enough to wait for what does not

USER = {"db": "d", "name": "ada", "roles": []}


@pytest.fixture(scope="module")
def functions() -> Iterator[DesignFunctions]:
    made = DesignFunctions(timeout=SHORT)
    yield made
    made.close()


def one(functions: DesignFunctions, source: str, doc: dict[str, Any] | None = None, lib: Any = None) -> list[Any]:
    """What one map function emits for one document."""
    return functions.map([source], [doc or {"_id": "a"}], lib)[0][0]


def children(functions: DesignFunctions) -> list[Any]:
    """The idle children of all lanes."""
    return [child for slots in functions._lanes.values() for child in slots.queue if child is not None]


# What they compute


@pytest.mark.parametrize(
    "source",
    [
        "function(doc){emit(1)}",
        "function named(doc) { emit(1); }",
        "(function (doc) { emit(1); });",
        "function (doc) { emit(1); } ; // and a word",
        "/* first */ // words\nfunction (doc) { emit(1); }\n\n",
        "(doc) => { emit(1); }",
        "doc => emit(1)",
    ],
)
def test_ways_to_write_a_function(functions: DesignFunctions, source: str) -> None:
    assert one(functions, source) == [[1, None]]


def test_each_function_for_each_document(functions: DesignFunctions) -> None:
    sources = ["function (doc) { emit(doc.n); emit(doc.n + 1, 'x'); }", "function (doc) { }"]
    assert functions.map(sources, [{"n": 1}, {"n": 2}]) == [[[[1, None], [2, "x"]], []], [[[2, None], [3, "x"]], []]]
    assert functions.map(sources, []) == []


def test_text_of_every_kind_passes(functions: DesignFunctions) -> None:
    text = "é漢\U0001f600\u2028\u0000\n\"\\\x7f"
    assert one(functions, "function (doc) { emit(doc.t, doc.t.length); }", {"t": text}) == [[text, len(text) + 1]]
    assert one(functions, "function (doc) { emit('\\ud800'); }") == [["\ud800", None]]


def test_long_values_pass(functions: DesignFunctions) -> None:
    doc = {"_id": "a", "t": "x" * 3_000_000, "l": list(range(50_000))}
    assert one(functions, "function (doc) { emit(doc._id, doc); }", doc) == [["a", doc]]


def test_many_documents_pass_in_batches(functions: DesignFunctions) -> None:
    count = 2 * javascript.BATCH_TEXTS + 5
    found = functions.map(["function (doc) { emit(doc.n); }"], [{"n": number} for number in range(count)])
    assert [rows[0][0][0] for rows in found] == list(range(count))


def test_documents_are_sealed(functions: DesignFunctions) -> None:
    sources = [
        "function (doc) { doc.n = 2; delete doc.s; emit(doc.n, doc.s); }",
        "function (doc) { doc.l.push(3); emit(1); }",
        "function (doc) { doc.o.deep.er = 1; emit(doc.o); }",
    ]
    doc = {"n": 1, "s": "x", "l": [1], "o": {"deep": {}}}
    assert functions.map(sources, [doc]) == [[[[1, "x"]], [], [[{"deep": {}}, None]]]]


def test_globals_of_one_design_document_are_not_seen_by_another(functions: DesignFunctions) -> None:
    assert one(functions, "function (doc) { spy = doc._id; Array.prototype.evil = 1; emit(1); }") == [[1, None]]
    assert one(functions, "function (doc) { emit(typeof spy, [].evil === undefined); }") == [["undefined", True]]


def test_nothing_of_the_machine_is_there(functions: DesignFunctions) -> None:
    source = "function (doc) { emit([typeof require, typeof std, typeof os, typeof process, typeof fetch]); }"
    assert one(functions, source) == [[["undefined"] * 5, None]]


def test_library(functions: DesignFunctions) -> None:
    lib = {"a": "exports.n = require('./b').n + 1;", "b": "exports.n = 40;", "deep": {"c": "exports.n = 1;"}}
    source = "function (doc) { emit(require('views/lib/a').n + require('views/lib/deep/c').n); }"
    assert one(functions, source, lib=lib) == [[42, None]]
    assert one(functions, "function (doc) { emit(1); require('views/lib/none'); }", lib=lib) == []


def test_logged_lines_reach_the_log(functions: DesignFunctions, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="orchestrator.embedded.javascript")
    one(functions, "function (doc) { log('seen ' + doc._id); log({a: 1}); throw new Error('odd'); }")
    assert "seen a" in caplog.text
    assert '{"a":1}' in caplog.text
    assert "odd" in caplog.text


def test_reduce(functions: DesignFunctions) -> None:
    source = "function (keys, values, rereduce) { return rereduce ? sum(values) : keys.length + sum(values); }"
    assert functions.reduce([source], [[1, "a"], [2, "b"]], [10, 20], False) == [32]
    assert functions.reduce([source], None, [10, 20], True) == [30]
    assert functions.reduce(["function () { return undefined; }"], None, [], True) == [None]


def test_a_reduce_must_shrink(functions: DesignFunctions) -> None:
    with pytest.raises(FunctionError, match="shrink more rapidly") as caught:
        functions.reduce(["function (k, v) { return new Array(500).join('x'); }"], [], [1], False)
    assert caught.value.error == "reduce_overflow_error"


def test_filter(functions: DesignFunctions) -> None:
    docs = [{"_id": str(number), "n": number} for number in range(4)]
    assert functions.filter("function (doc, req) { return doc.n > req.query.n; }", docs, {"query": {"n": "1"}}) == [
        False, False, True, True,
    ]  # fmt: skip
    assert functions.filter("function (doc) { return this.yes === doc.n; }", docs, {}, {"yes": 2}) == [
        False, False, True, False,
    ]  # fmt: skip
    assert functions.view_filter("function (doc) { if (doc.n % 2) { emit(1); } }", docs) == [False, True, False, True]


def test_validate(functions: DesignFunctions) -> None:
    guards: list[tuple[str, str | dict[str, Any]]] = [
        ("_design/a", "function (n, o, u, s) { if (n.bad) { throw({forbidden: 'bad'}); } }"),
        ("_design/b", {"word": "w", "validate_doc_update":
            "function (n, o, u, s) { if (!u.name) { throw({unauthorized: this.word}); } }"}),
    ]  # fmt: skip
    writes = [({"n": 1}, None, USER, {}), ({"bad": 1}, None, USER, {}), ({}, {"n": 1}, {**USER, "name": None}, {})]
    assert functions.validate(guards, writes) == [None, {"forbidden": "bad"}, {"unauthorized": "w"}]
    assert functions.validate([], writes) == [None, None, None]


# What goes wrong


@pytest.mark.parametrize("source", ["function (doc) {", "1", "'text'", "", "var x = 1;", "not javascript"])
def test_texts_that_are_no_function(functions: DesignFunctions, source: str) -> None:
    with pytest.raises(FunctionError):
        functions.map([source], [{"_id": "a"}])
    with pytest.raises(FunctionError):
        functions.check([source])


def test_what_a_filter_throws(functions: DesignFunctions) -> None:
    with pytest.raises(FunctionError, match="on purpose") as caught:
        functions.filter("function (doc) { throw new TypeError('on purpose'); }", [{}], {})
    assert (caught.value.error, caught.value.status) == ("TypeError", 500)


@pytest.mark.parametrize(
    "thrown", ["new Error('x')", "{other: 1}", "'text'", "null", "undefined", "[1]", "{forbidden: 1, b: 2}"]
)
def test_what_a_guard_must_not_throw_fails_its_write_alone(functions: DesignFunctions, thrown: str) -> None:
    guard = f"function (n) {{ if (n.bad) {{ throw({thrown}); }} if (n.no) {{ throw({{forbidden: 'no'}}); }} }}"
    writes = [({}, None, USER, {}), ({"bad": 1}, None, USER, {}), ({"no": 1}, None, USER, {}), ({}, None, USER, {})]
    first, fault, refused, last = functions.validate([("_design/a", guard)], writes)
    assert (first, refused, last) == (None, {"forbidden": "no"}, None)
    assert fault is not None
    assert set(fault) == {"error", "reason"}


def test_a_guard_that_loops_for_one_write_fails_that_one_alone(functions: DesignFunctions) -> None:
    guard = "function (n) { while (n.loop) {} if (n.no) { throw({forbidden: 'no'}); } }"
    writes = [(doc, None, USER, {}) for doc in ({"n": 1}, {"loop": 1}, {"no": 1}, {"n": 2})]
    assert functions.validate([("_design/a", guard)], writes) == [
        None, {"error": "os_process_error", "reason": "OS process timed out."}, {"forbidden": "no"}, None,
    ]  # fmt: skip


def test_a_guard_that_loops_for_every_write_has_three_strikes() -> None:
    functions = DesignFunctions(timeout=0.1)
    started = time.monotonic()
    writes = [({}, None, USER, {})] * 200
    found = functions.validate([("_design/a", "function (n) { while (true) {} }")], writes)
    assert all(verdict is not None and verdict["error"] == "os_process_error" for verdict in found)
    assert time.monotonic() - started < 10
    functions.close()


def test_a_guard_that_is_no_function_fails_all(functions: DesignFunctions) -> None:
    with pytest.raises(FunctionError) as caught:
        functions.validate([("_design/a", "function (")], [({}, None, USER, {})])
    assert caught.value.error == "compilation_error"


ENDLESS = {
    "loop": "while (true) {}",
    "caught loop": "while (true) { try { while (true) {} } catch (e) {} }",
    "regular expression": "/(a+)+b/.test('aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa')",
    "array": "var a = []; while (true) { a.push('some text ' + a.length); }",
    "rows": "while (true) { emit('some text', [1, 2, 3]); }",
    "long text": "var s = []; for (var i = 0; i < 1e6; i++) { s.push(new Array(50).join('x')); } emit(s.join(''));",
    "big buffer": "new ArrayBuffer(1e9); emit(1); var x = []; while (true) { x.push(new ArrayBuffer(1e6)); }",
}


@pytest.mark.parametrize("what", sorted(ENDLESS))
def test_what_takes_too_much_is_an_error_and_harms_nothing_else(functions: DesignFunctions, what: str) -> None:
    started = time.monotonic()
    with pytest.raises(FunctionError) as caught:
        emitted = one(functions, f"function (doc) {{ {ENDLESS[what]} }}")
        # a limit that shows as an exception in the function itself ends only that document
        assert emitted == []
        raise FunctionError("os_process_error", "caught by the map")
    assert caught.value.error == "os_process_error"
    assert time.monotonic() - started < SHORT + javascript.GRACE + 3
    assert one(functions, "function (doc) { emit('still here'); }") == [["still here", None]]


def test_memory_is_bounded_by_the_engine_itself() -> None:
    functions = DesignFunctions(timeout=30.0, memory=16 * 1024 * 1024)
    try:
        with pytest.raises(FunctionError, match="out of memory"):
            one(functions, "function (doc) { var a = []; while (true) { a.push('some text ' + a.length); } }")
        with pytest.raises(FunctionError, match="out of memory"):
            functions.filter("function (doc) { var a = []; while (true) { a.push({a: a.length}); } }", [{}], {})
    finally:
        functions.close()


def test_endless_recursion_ends_only_its_document(functions: DesignFunctions) -> None:
    source = "function (doc) { function f(n) { return f(n + 1) + 1; } emit(1); if (doc.deep) { f(0); } }"
    assert functions.map([source], [{"deep": True}, {}]) == [[[]], [[[1, None]]]]
    assert one(functions, "function (doc) { var a = []; a[0] = a; emit(a); }") == []


def test_other_lanes_go_on_while_one_loops() -> None:
    functions = DesignFunctions(timeout=1.0)
    try:
        guard = [("_design/a", "function (n) { }")]
        functions.validate(guard, [({}, None, USER, {})])
        loop = "function () { while (true) {} }"
        stuck = threading.Thread(target=pytest.raises, args=(FunctionError, one, functions, loop))
        stuck.start()
        started = time.monotonic()
        for _round in range(20):
            functions.validate(guard, [({}, None, USER, {})])
        assert time.monotonic() - started < 0.9
        assert stuck.is_alive()
        stuck.join()
    finally:
        functions.close()


def test_a_killed_child_is_replaced_and_the_batch_done_again(functions: DesignFunctions) -> None:
    one(functions, "function (doc) { emit(1); }")
    for child in children(functions):
        os.kill(child.process.pid, signal.SIGKILL)
    assert one(functions, "function (doc) { emit(1); }") == [[1, None]]


def test_children_end_with_their_parent() -> None:
    script = (
        "import os, sys\n"
        "from orchestrator.embedded.javascript import DesignFunctions\n"
        "functions = DesignFunctions()\n"
        "functions.map(['function (doc) { emit(1); }'], [{}])\n"
        "print(*[c.process.pid for s in functions._lanes.values() for c in s.queue if c], flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)
    pids = [int(word) for word in ended.stdout.split()]
    assert pids
    deadline = time.monotonic() + 5
    while any(_runs(pid) for pid in pids) and time.monotonic() < deadline:
        threading.Event().wait(0.02)
    assert not any(_runs(pid) for pid in pids)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_many_threads_at_once(functions: DesignFunctions) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for _round in range(5):
                assert one(functions, f"function (doc) {{ emit({number}); }}") == [[number, None]]
                assert functions.filter("function (doc) { return doc.n; }", [{"n": number}], {}) == [bool(number)]
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_after_close_nothing_runs() -> None:
    functions = DesignFunctions()
    functions.map(["function (doc) { }"], [{}])
    child = children(functions)[0]
    functions.close()
    assert child.process.poll() is not None
    with pytest.raises(FunctionError, match="stopping"):
        functions.map(["function (doc) { }"], [{}])


def test_more_programs_than_are_kept(functions: DesignFunctions) -> None:
    sources = [f"function (doc) {{ emit({number}); }}" for number in range(40)]
    for _round in range(2):
        for number, source in enumerate(sources):
            assert one(functions, source) == [[number, None]]


def test_texts_split_by_size() -> None:
    big = json.dumps("x" * javascript.BATCH_BYTES)
    assert [len(batch) for batch in javascript._batches([big, big, "1", "2"])] == [1, 1, 2]
    assert javascript._batches([]) == [[]]


def test_a_child_that_a_busy_machine_keeps_from_working_is_waited_for() -> None:
    functions = DesignFunctions(timeout=SHORT)
    try:
        assert one(functions, "function (doc) { emit(1); }") == [[1, None]]
        (slot,) = (child for child in _children(functions) if child is not None)
        os.kill(slot.process.pid, signal.SIGSTOP)
        wakened = threading.Timer(SHORT + javascript.GRACE + 0.5, os.kill, (slot.process.pid, signal.SIGCONT))
        wakened.start()
        assert one(functions, "function (doc) { emit(2); }") == [[2, None]]
        wakened.join()
        assert slot.process.poll() is None, "it was not replaced"
    finally:
        functions.close()


def _children(functions: DesignFunctions) -> list[Any]:
    return list(functions._lanes["build"].queue)
