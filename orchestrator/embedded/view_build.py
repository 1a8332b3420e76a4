"""Large parts of an index are built in processes of their own, so that the server's answers do not wait for them.

Two kinds of builds:

    anew      an index that has nothing yet, or less than half: several processes map the documents, each its share, and
              lay the rows down (``view_stage``); one then sorts them into a new file, which takes the index's place
    behind    an index that has most: one process takes in the changes as the server itself would do, in the same file

Such a process is a ``python -m orchestrator.embedded.view_build``. It gets its task as one line of JSON on its standard
input, and ends when that closes, which is when the server is gone. It answers with lines of JSON: ``{"done": n}`` (so
many changes more), ``{"error", "reason", "status"}``, ``{"end": true}``. It gives way to the server and to pollers. A
build that is broken off, by a fault of a design function or by ``kill -9``, goes on where it was.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from orchestrator.embedded import layout, view_stage
from orchestrator.embedded.database import SELECT, Row
from orchestrator.embedded.javascript import DesignFunctions
from orchestrator.embedded.problems import Problem
from orchestrator.embedded.view_file import Emitted, IndexClosed
from orchestrator.embedded.view_index import BATCH, Build, Definition, Mapper, ViewIndex, mapped, script_mapper

NICE = 5  # a build may take as long as it takes; what is acknowledged, started and shown may not
MOST = 4  # processes of one build, at most
AT_ONCE = 2  # builds under way in one server; others wait, so that the memory stays bounded
_LOOK = 0.2  # s between two looks whether the server is stopping
_CHANGES = "WHERE d.seq > ? AND d.seq <= ? ORDER BY d.seq LIMIT ?"

Json = Any


# --- the server's side ---


class Builder:
    """Starts the processes of builds; one object per server.

    Args:
        functions: whose limits design functions have in the builds too.
    """

    def __init__(self, functions: Callable[[], DesignFunctions]) -> None:
        self._functions = functions
        self._turns = threading.Semaphore(AT_ONCE)

    def __call__(self, build: Build) -> Path | None:
        """Bring an index to ``build.target``; see :class:`view_index.Build`.

        Returns:
            The new file, if the index was built anew.

        Raises:
            Problem: a map function cannot be compiled or passed a limit, or the disk is full.
            IndexClosed: the server is stopping.
        """
        while not self._turns.acquire(timeout=_LOOK):
            if build.stopping():
                raise IndexClosed
        try:
            functions = self._functions()
            task = {
                "database": str(build.database), "name": build.name, "folder": str(build.folder), "token": build.token,
                "target": build.target, "design": build.design,
                "timeout": functions.timeout, "memory": functions.memory,
            }  # fmt: skip
            if not build.anew:
                _run([{**task, "mode": "follow"}], build)
                return None
            shares = self._shares(task)
            task |= shares
            _run([{**task, "mode": "stage", "part": part} for part in range(shares["parts"])], build)
            _run([{**task, "mode": "merge"}], build)
            made: Path = _places(task)["made"]
            clear(made.parent, made.name.split(".")[0], made)
            return made
        finally:
            self._turns.release()

    def _shares(self, task: dict[str, Json]) -> dict[str, int]:
        """How the changes are divided; as before where a build is there that was broken off."""
        note = _places(task)["note"]
        with contextlib.suppress(OSError, ValueError):
            known = json.loads(note.read_text())
            if known["token"] == task["token"] and known["target"] <= task["target"]:
                return {key: int(known[key]) for key in ("parts", "step", "target")}
        with contextlib.closing(layout.connect(Path(task["database"]), read_only=True)) as connection:
            there = connection.execute("SELECT count(*) FROM docs INDEXED BY by_id").fetchone()[0]
        cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
        parts = min(cores, MOST)
        step = BATCH * max(task["target"] // max(there, 1), 1)  # sequences of a batch's documents
        found = {"parts": parts, "step": step, "target": task["target"]}
        note.write_text(json.dumps({**found, "token": task["token"]}))
        return found


def _places(task: dict[str, Json]) -> dict[str, Any]:
    """The files of a build."""
    head = Path(task["folder"]) / Definition(task["design"]).signature
    return {
        "note": head.with_name(head.name + ".build"),
        "made": head.with_name(head.name + MADE),
        "stages": [head.with_name(f"{head.name}-{part}{view_stage.SUFFIX}") for part in range(task.get("parts", 0))],
    }


MADE = ".made.sqlite"


def leftovers(folder: Path) -> Iterator[tuple[str, Path]]:
    """The files of builds in a folder, with the signature that each belongs to."""
    for path in folder.glob("*"):
        if view_stage.SUFFIX in path.name or MADE in path.name or path.suffix == ".build":
            yield path.name.split(".")[0].split("-")[0], path


def clear(folder: Path, signature: str, keep: Path | None = None) -> None:
    """Remove the files of an index's build."""
    for name, path in leftovers(folder):
        if name == signature and path != keep:
            path.unlink(missing_ok=True)


def _run(tasks: list[dict[str, Json]], build: Build) -> None:
    """Run processes until all have ended, or one has failed."""
    environment = {**os.environ, "SQLITE_TMPDIR": str(build.folder)}  # sorts go where there is room for an index
    command = [sys.executable, "-P", "-m", "orchestrator.embedded.view_build"]
    children: list[subprocess.Popen[bytes]] = []
    heard: dict[int, bytes] = {}
    with selectors.DefaultSelector() as selector:
        try:
            for task in tasks:
                child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
                children.append(child)
                assert child.stdin is not None
                assert child.stdout is not None
                selector.register(child.stdout, selectors.EVENT_READ, child)
                child.stdin.write(json.dumps(task).encode() + b"\n")
                child.stdin.flush()
            ended: set[int] = set()
            while len(ended) < len(children):
                if build.stopping():
                    raise IndexClosed
                for key, _events in selector.select(_LOOK):
                    child = key.data
                    piece = os.read(key.fd, 1 << 16)
                    *lines, heard[child.pid] = (heard.get(child.pid, b"") + piece).split(b"\n")
                    if not piece or any(_heard(line, build) for line in lines):
                        ended.add(child.pid)
                        selector.unregister(key.fileobj)
                    if not piece:
                        reason = f"The process that builds the index of {build.design['_id']} ended ({child.wait()})."
                        raise Problem(500, "index_error", reason)
        except OSError as error:
            raise Problem(500, "index_error", f"No process to build an index could start: {error}") from error
        finally:
            for child in children:
                child.kill()
                child.wait()
                for stream in (child.stdin, child.stdout):
                    with contextlib.suppress(OSError):
                        stream.close()  # type: ignore[union-attr]


def _heard(line: bytes, build: Build) -> bool:
    """Take in one line of a process; whether it was its last."""
    said = json.loads(line)
    if "error" in said:
        raise Problem(said["status"], said["error"], said["reason"])
    build.advance(said.get("done", 0))
    return "end" in said


# --- the process ---


class _Source:
    """The database as an index reads it, from another process than its own."""

    def __init__(self, task: dict[str, Json]) -> None:
        self.name = str(task["name"])
        self.folder = Path(task["folder"])
        self.token = str(task["token"])
        self.path = Path(task["database"])
        self._target = int(task["target"])
        self._connection = layout.connect(self.path, read_only=True)

    def update_seq(self) -> int:
        return self._target

    def changes_rows(self, since: int, limit: int, *, bodies: bool, upto: int | None = None) -> list[Row]:
        found = self._connection.execute(f"{SELECT} {_CHANGES}", (since, upto or self._target, limit)).fetchall()
        return [Row(*values) for values in found]

    def close(self) -> None:
        self._connection.close()


def _mapper(functions: DesignFunctions, definition: Definition) -> Mapper:
    if definition.language == "query":
        from orchestrator.embedded.mango_index import mapper

        return mapper(definition.maps)
    return script_mapper(functions, definition)


def _stage(task: dict[str, Json], functions: DesignFunctions) -> None:
    """Map this process's share of the changes, one batch ahead of what is being laid down."""
    definition = Definition(task["design"])
    target, step, parts, part = (int(task[key]) for key in ("target", "step", "parts", "part"))
    source = _Source(task)
    build = f"{task['token']} {target} {step} {parts}"
    stage = view_stage.Stage(_places(task)["stages"][part], definition.kinds, build)
    apply = _mapper(functions, definition)

    def lots() -> Iterator[tuple[int, list[Row]]]:
        for start in range(0, target, step):
            if start // step % parts == part:
                if min(start + step, target) <= stage.done:
                    _say(done=min(step, target - start))
                    continue
                rows = source.changes_rows(start, step, bodies=True, upto=min(start + step, target))
                yield min(start + step, target), rows

    def lay(upto: int, rows: Future[list[tuple[str, Emitted | None]]]) -> None:
        before = upto - (upto % step or step)
        stage.take([(id, emitted) for id, emitted in rows.result() if emitted is not None], upto)
        _say(done=upto - before)

    with ThreadPoolExecutor(1) as ahead:
        waiting: tuple[int, Future[list[tuple[str, Emitted | None]]]] | None = None
        for upto, rows in lots():
            following = (upto, ahead.submit(mapped, definition, apply, rows))
            if waiting is not None:
                lay(*waiting)
            waiting = following
        if waiting is not None:
            lay(*waiting)
    stage.close()
    source.close()


def _merge(task: dict[str, Json], functions: DesignFunctions) -> None:
    places, definition = _places(task), Definition(task["design"])
    token, target = str(task["token"]), int(task["target"])
    view_stage.merge(places["stages"], places["made"], definition.kinds, token, target, lambda: _say(done=0))


def _follow(task: dict[str, Json], functions: DesignFunctions) -> None:
    source, definition = _Source(task), Definition(task["design"])
    index = ViewIndex(source, definition, _mapper(functions, definition), advanced=lambda done: _say(done=done))
    index.update()
    index.file.apply([], index.db.update_seq())  # what changed meanwhile has a newer sequence
    index.close()
    source.close()


_MODES = {"stage": _stage, "merge": _merge, "follow": _follow}


def _say(**words: Json) -> None:
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


def _end_with_server() -> None:
    """End when the server does, wherever this process is."""
    while os.read(0, 1):
        pass
    os._exit(0)


def _task() -> dict[str, Json]:
    """The first line; not by sys.stdin, whose lock the thread that waits for the end would keep."""
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(0, 1 << 16)
        if not piece:
            os._exit(0)
        line += piece
    found: dict[str, Json] = json.loads(line)
    return found


def main() -> None:
    """Do one task."""
    os.nice(NICE)
    task = _task()
    threading.Thread(target=_end_with_server, daemon=True).start()
    functions = DesignFunctions(task["timeout"], task["memory"])
    try:
        _MODES[task["mode"]](task, functions)
        _say(end=True)
    except Problem as problem:
        _say(error=problem.error, reason=problem.reason, status=problem.status)
    except (sqlite3.Error, OSError) as error:
        design = task["design"]["_id"]
        reason = f"The index of {design} in {task['name']} cannot be written ({error})."
        _say(error="index_error", reason=reason, status=500)
    finally:
        functions.close()


if __name__ == "__main__":
    main()
