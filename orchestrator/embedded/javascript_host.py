"""The child process in which design functions run. Started by ``javascript``, never imported by the server.

It knows one thing: take a *program* (the functions of one kind in one design document), apply it to a batch of JSON
texts, answer one JSON text for each. Each program has a JavaScript engine of its own, so no design document can touch
another's globals; the engine bounds memory, stack and processor time for each text, and an alarm ends the process if
even that fails. It ends when its socket closes, which is when the server is gone.

Frames in both directions: four bytes of length (big-endian), then text lines separated by LF. The first line is a
header, the others are JSON texts without LF. A request's header::

    {"key": "<hash>", "kind": "map|reduce|filter|view_filter|validate", "program": {...} | null,
     "argument": <any>, "timeout": seconds, "memory": bytes}

with ``program`` = ``{"sources": [...], "ddoc": {...} | null}`` or null if this child should know the key. Answers are
one or more frames: ``{"state": "more"}`` and results so far, then ``{"state": "done"}``; or ``{"state": "unknown"}``
(send the program again); or ``{"state": "error", "error": ..., "reason": ..., "fatal": bool}`` after which, if fatal,
the process ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import sys
import time
from collections import OrderedDict
from typing import Any

import _quickjs

BOOTSTRAP = r"""
'use strict';
var __host = (function (global) {
  var parse = JSON.parse, stringify = JSON.stringify, freeze = Object.freeze, keys = Object.keys;
  var evaluate = global.eval, funcs = [], ddoc = null, kind = '', argument = null, rows = [], lines = [];

  global.emit = function (key, value) { rows.push([key, value]); };
  global.sum = function (values) { var total = 0; for (var i in values) { total += values[i]; } return total; };
  global.isArray = Array.isArray;
  global.toJSON = function (value) { return stringify(value); };
  global.log = function (message) {
    if (lines.length < 50) {
      lines.push(String(typeof message === 'string' ? message : stringify(message)).slice(0, 1000));
    }
  };

  function seal(value) {
    if (value === null || typeof value !== 'object') { return; }
    freeze(value);
    if (Array.isArray(value)) {
      for (var i = 0; i < value.length; i++) { if (typeof value[i] === 'object') { seal(value[i]); } }
      return;
    }
    var names = keys(value);
    for (var j = 0; j < names.length; j++) {
      var part = value[names[j]];
      if (typeof part === 'object') { seal(part); }
    }
  }

  function fail(error, reason) { throw { couch: true, error: error, reason: reason }; }

  function describe(error) {
    if (error === null || error === undefined) { return ['InternalError', String(error)]; }
    if (error.couch === true) { return [error.error, error.reason]; }
    if (Array.isArray(error)) {
      var offset = error[0] === 'error' || error[0] === 'fatal' ? 1 : 0;
      return [String(error[offset]), text(error[offset + 1])];
    }
    if (error instanceof Error) { return [error.name, String(error.message)]; }
    if (typeof error === 'object') {
      if (error.error && error.reason) { return [String(error.error), text(error.reason)]; }
      if (error.forbidden !== undefined) { return ['forbidden', text(error.forbidden)]; }
      if (error.unauthorized !== undefined) { return ['unauthorized', text(error.unauthorized)]; }
    }
    return ['unnamed_error', text(error)];
  }
  function text(value) {
    if (typeof value === 'string') { return value; }
    try { return String(stringify(value)); } catch (e) { return String(value); }
  }

  function resolve(names, place) {
    for (var i = 0; i < names.length; i++) {
      var name = names[i];
      if (name === '.') { place = place.parent || place; }
      else if (name === '..') {
        place = place.parent && place.parent.parent;
        if (!place) { fail('invalid_require_path', 'Object has no parent'); }
      } else {
        var next = place.current;
        if (typeof next !== 'object' || next === null || !Object.prototype.hasOwnProperty.call(next, name)) {
          fail('invalid_require_path', 'Object has no property "' + name + '".');
        }
        place = { current: next[name], parent: place, id: place.id ? place.id + '/' + name : name };
      }
    }
    return place;
  }
  var modules = {};
  function requirer(base) {
    return function (path) {
      var parts = String(path).split('/');
      var relative = parts[0] === '.' || parts[0] === '..';
      var found = resolve(parts, relative && base ? base : { current: ddoc, parent: null, id: '' });
      if (typeof found.current !== 'string') {
        fail('invalid_require_path', 'Must require a JavaScript string, not: ' + typeof found.current);
      }
      if (Object.prototype.hasOwnProperty.call(modules, found.id)) { return modules[found.id].exports; }
      var module = { id: found.id, exports: {}, parent: found.parent, current: found.current };
      modules[found.id] = module;
      try {
        var body = evaluate('(function (module, exports, require) {' + found.current + '\n})');
        body.call(global, module, module.exports, requirer(found));
      } catch (e) {
        delete modules[found.id];
        if (e && e.couch === true) { throw e; }
        fail('compilation_error', "Module require('" + path + "') raised error " + String(e));
      }
      return module.exports;
    };
  }

  function compile(source) {
    if (typeof source !== 'string' || source === '') { fail('not_found', 'missing function'); }
    var made;
    try {
      // as a value, not a statement: anonymous functions, leading comments and a last semicolon are all usual
      evaluate('globalThis.__made = ' + source);
      made = global.__made;
    } catch (first) {
      if (first && first.couch === true) { throw first; }
      try { made = evaluate(source); } catch (second) {
        if (second && second.couch === true) { throw second; }
        fail('compilation_error', String(first) + ' (' + source + ')');
      }
    }
    delete global.__made;
    if (typeof made !== 'function') {
      fail('compilation_error', 'Expression does not eval to a function. (' + source + ')');
    }
    return made;
  }

  function fatal(error) {
    return error === null || (error instanceof InternalError && /memory|interrupted/.test(error.message));
  }

  var run = {
    map: function (line) {
      var doc = parse(line), out = [];
      seal(doc);
      for (var i = 0; i < funcs.length; i++) {
        rows = [];
        try {
          funcs[i](doc);
          out.push(rows.length ? stringify(rows) : '[]');
        } catch (error) {
          if (fatal(error)) { throw error; }
          if (error === 'fatal_error') { fail('map_runtime_error', "function raised 'fatal_error'"); }
          if (error && error[0] === 'fatal') { throw error; }
          global.log('function raised exception ' + describe(error).join(': ') + ' with doc._id ' + doc._id);
          out.push('[]');
        }
      }
      rows = [];
      return ['[', out.join(','), ']'].join('');
    },
    reduce: function (line) {
      var call = parse(line), out = [];
      for (var i = 0; i < funcs.length; i++) {
        try {
          var made = funcs[i](call[0], call[1], call[2]);
          out.push(made === undefined ? null : made);
        } catch (error) {
          if (fatal(error)) { throw error; }
          if (error === 'fatal_error') { fail('map_runtime_error', "function raised 'fatal_error'"); }
          if (error && error[0] === 'fatal') { throw error; }
          global.log('function raised exception ' + describe(error).join(': '));
          out.push(null);
        }
      }
      return stringify(out);
    },
    filter: function (line) { return funcs[0].call(ddoc, parse(line), argument) ? 'true' : 'false'; },
    view_filter: function (line) {
      rows = [];
      funcs[0](parse(line));
      return rows.length ? 'true' : 'false';
    },
    validate: function (line) {
      var call = parse(line);
      try {
        funcs[0].call(ddoc, call[0], call[1], call[2], call[3]);
      } catch (error) {
        if (fatal(error)) { throw error; }
        if (error === undefined || error.couch === true || (error.name && error.stack)) {
          // a fault of the guard, told apart from what it threw on purpose, and of this write alone
          return ['!', stringify(describe(error))].join('');
        }
        return stringify(error) || 'null';
      }
      return '1';
    }
  };

  return {
    setup: function (line) {
      var call = parse(line);
      kind = call.kind;
      ddoc = call.ddoc;
      // Only design documents given whole have modules; the name must stay unknown elsewhere, as on the real server.
      if (ddoc) { global.require = requirer(null); }
      funcs = call.sources.map(compile);
    },
    begin: function (line) { argument = parse(line); lines = []; },
    run: function (line) { return run[kind](line); },
    safely: function (line) {
      // Joined, not added: the engine makes long sums ropes, which cannot be handed to Python.
      try { return ['+', run[kind](line)].join(''); } catch (error) {
        if (fatal(error)) { throw error; }
        return ['-', stringify(describe(error))].join('');
      }
    },
    setup_safely: function (line) {
      try { this.setup(line); return ''; } catch (error) {
        if (fatal(error)) { throw error; }
        return stringify(describe(error));
      }
    },
    take_log: function () { return stringify(lines); }
  };
})(globalThis);
function __setup(line) { return __host.setup_safely(line); }
function __begin(line) { __host.begin(line); }
function __run(line) { return __host.safely(line); }
function __log() { return __host.take_log(); }
"""
"""What every engine begins with: the functions CouchDB gives to design functions, and the loop body for each kind."""

MAX_PROGRAMS = 24  # engines kept; the least recently used goes first
MAX_KEPT_BYTES = 8 * 1024 * 1024  # an engine that holds more than this after a batch is not kept
MAX_RESULT = 32 * 1024 * 1024  # characters of one answer: more is refused, so that the server's memory stays its own
STACK = 512 * 1024  # bytes of engine stack: some thousand nested calls, far below the thread's own stack
FLUSH_SECONDS = 0.25  # how often a long batch shows that it moves


class Program:
    """One engine with the compiled functions of one kind."""

    def __init__(self, kind: str, program: dict[str, Any], timeout: float, memory: int) -> None:
        self.context = _quickjs.Context()
        self.context.set_memory_limit(memory)
        self.context.set_max_stack_size(STACK)
        self.context.set_time_limit(timeout)
        self.context.eval(BOOTSTRAP)
        self.run = self.context.get("__run")
        self.begin = self.context.get("__begin")
        self.log = self.context.get("__log")
        failure = self.context.get("__setup")(json.dumps({"kind": kind, **program}))
        if failure:
            raise CompileError(*json.loads(failure))

    def size(self) -> int:
        return int(self.context.memory()["malloc_size"])


class CompileError(Exception):
    """A design function's text is not a function."""


class Channel:
    """Frames over the socket that the server gave as standard input."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.stream = sock.makefile("rb", buffering=1 << 16)

    def receive(self) -> bytes | None:
        head = self.stream.read(4)
        if len(head) < 4:
            return None
        size = int.from_bytes(head, "big")
        body = self.stream.read(size)
        return body if len(body) == size else None

    def send(self, header: dict[str, Any], lines: list[str] | None = None) -> None:
        body = "\n".join([json.dumps(header), *(lines or [])]).encode("utf-8", "surrogatepass")
        self.sock.sendall(len(body).to_bytes(4, "big") + body)


def fault(error: BaseException) -> dict[str, Any]:
    """Turn what the engine raised, outside the reach of a design function, into an answer. Always fatal."""
    text = str(error).strip()
    if "interrupted" in text:
        return {"state": "error", "error": "os_process_error", "reason": "OS process timed out.", "fatal": True}
    if "memory" in text or isinstance(error, MemoryError) or text in ("null", ""):
        reason = "out of memory: the function needs more than a design function may use"
        return {"state": "error", "error": "os_process_error", "reason": reason, "fatal": True}
    return {"state": "error", "error": "os_process_error", "reason": text[:1000], "fatal": True}


def serve_batch(channel: Channel, program: Program, argument: str, texts: list[str], alarm: float) -> None:
    """Apply the program to each text and send the results, in several frames if it takes long."""
    run, clock = program.run, time.monotonic
    program.begin(argument)
    results: list[str] = []
    size = 0
    flushed = clock()
    for text in texts:
        result = run(text)
        if result[0] == "-":
            error, reason = json.loads(result[1:])
            channel.send({"state": "error", "error": error, "reason": reason, "fatal": False})
            return
        results.append(result[1:])
        size += len(result)
        if size > MAX_RESULT:
            channel.send({
                "state": "error", "error": "os_process_error", "fatal": True,
                "reason": f"the function's output is larger than {MAX_RESULT} characters",
            })  # fmt: skip
            sys.exit(1)
        now = clock()
        if now - flushed > FLUSH_SECONDS:
            channel.send({"state": "more"}, results)
            results, size, flushed = [], 0, now
            signal.setitimer(signal.ITIMER_PROF, alarm)
    channel.send({"state": "done", "log": json.loads(program.log())}, results)


def main() -> None:
    """Serve batches until the socket closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which then closes the socket
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(1)  # views and filters give way to the server
    channel = Channel(socket.socket(fileno=0))
    programs: OrderedDict[str, Program] = OrderedDict()
    limited = False
    while (body := channel.receive()) is not None:
        first, _, rest = body.decode("utf-8").partition("\n")
        header = json.loads(first)
        timeout, memory = float(header["timeout"]), int(header["memory"])
        if not limited:
            # A net below the engine's own limit: several engines, and the texts on their way in and out.
            ceiling = 4 * memory + 512 * 1024 * 1024
            with contextlib.suppress(ValueError, OSError):  # not every system has it; the engine's limit stands
                resource.setrlimit(resource.RLIMIT_AS, (ceiling, ceiling))
            limited = True
        key = header["key"]
        program = programs.get(key)
        try:
            signal.setitimer(signal.ITIMER_PROF, timeout + 2.0)
            if program is None:
                if header["program"] is None:
                    channel.send({"state": "unknown"})
                    continue
                program = programs[key] = Program(header["kind"], header["program"], timeout, memory)
            programs.move_to_end(key)
            texts = rest.split("\n") if rest else []
            serve_batch(channel, program, json.dumps(header["argument"]), texts, timeout + 2.0)
            if program.size() > MAX_KEPT_BYTES:
                del programs[key]
        except CompileError as error:
            channel.send({"state": "error", "error": error.args[0], "reason": error.args[1], "fatal": False})
        except (_quickjs.JSException, _quickjs.StackOverflow, MemoryError) as error:
            channel.send(fault(error))
            return
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        while len(programs) > MAX_PROGRAMS:
            programs.popitem(last=False)


if __name__ == "__main__":
    main()
