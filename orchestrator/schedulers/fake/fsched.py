#!/usr/bin/env python3
"""fsched: a small batch system in one file, whose whole state is the folder ``$FSCHED_DIR``.

    fsched.py submit --name NAME [--array N] [--time S] [--warn S] [--memory BYTES] [--hold] --output PATH
                     --error PATH --directory PATH SCRIPT      prints "job NUMBER"
    fsched.py list | history        one JSON object a line, the last one {"end": true}
    fsched.py cancel|hold|release KEY...                       a number, or NUMBER.TASK
    fsched.py down | up             as if the daemon could not be reached, and back
    fsched.py node-fails            running jobs are given up; their programs go on, as on a real farm
    fsched.py stop                  ends everything

A daemon is started by the first submission and ends when nothing waits or runs. Jobs run as processes with an
environment of their own, at most ``$FSCHED_SLOTS`` (4) at once. It uses nothing but Python's standard library, so that
the file can be copied to any machine. It is no protection against anybody: whoever can write the folder runs jobs.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import pwd
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

POLL = 0.03  # seconds between two looks at the folder; a job of a test lasts some tenths
GRACE = 1.0  # seconds between SIGTERM and SIGKILL
MEMORY_EVERY = 0.2  # seconds; walking /proc is dearer than looking at the folder

TABLE = """
create table if not exists jobs (number integer primary key autoincrement);
create table if not exists tasks (
    number integer, task integer, name text, user text, state text, reason text, script text, directory text,
    output text, error text, time real, warn real, memory integer, submitted real, started real, finished real,
    exit_code integer, signal integer, pid integer, wanted text, primary key (number, task));
"""
SHOWN = ["number", "task", "name", "user", "state", "reason", "submitted", "started", "finished", "exit_code", "signal"]


def main() -> int:
    """Runs one command; the exit code is 0, 1 if it could not be done, 2 for wrong words."""
    parser = argparse.ArgumentParser(prog="fsched", description="a batch system in one file and one folder")
    commands = parser.add_subparsers(dest="command", required=True)
    submit = commands.add_parser("submit")
    for option, kind in (("name", str), ("array", int), ("time", float), ("warn", float), ("memory", int)):
        submit.add_argument(f"--{option}", type=kind, required=option == "name")
    for option in ("output", "error", "directory"):
        submit.add_argument(f"--{option}", required=True)
    submit.add_argument("--hold", action="store_true")
    submit.add_argument("script")
    for command in ("cancel", "hold", "release"):
        commands.add_parser(command).add_argument("keys", nargs="+")
    for command in ("list", "history", "down", "up", "node-fails", "stop", "daemon"):
        commands.add_parser(command)
    words = parser.parse_args()
    folder = Path(os.environ.get("FSCHED_DIR", ""))
    if not os.environ.get("FSCHED_DIR") or not folder.is_dir():
        print(f"fsched: FSCHED_DIR must name a folder, not {str(folder)!r}", file=sys.stderr)
        return 1
    if words.command in ("down", "up"):
        (folder / "down").touch() if words.command == "down" else (folder / "down").unlink(missing_ok=True)
        return 0
    if words.command == "daemon":
        return Daemon(folder).run()
    if (folder / "down").exists():
        print("fsched: the daemon cannot be reached: connection refused", file=sys.stderr)
        return 1
    with opened(folder) as db:
        if words.command == "submit":
            return submitted(folder, db, words)
        if words.command in ("list", "history"):
            return listed(db, words.command == "history")
        return changed(folder, db, words)


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[sqlite3.Connection]:
    """The folder's database, one transaction."""
    db = sqlite3.connect(folder / "jobs.sqlite", timeout=20)
    db.row_factory = sqlite3.Row
    try:
        db.execute("pragma journal_mode = wal")
        db.executescript(TABLE)
        with db:
            yield db
    finally:
        db.close()


def submitted(folder: Path, db: sqlite3.Connection, words: argparse.Namespace) -> int:
    if not os.access(words.script, os.X_OK):
        print(f"fsched: submission refused: no program {words.script!r}", file=sys.stderr)
        return 1
    number = db.execute("insert into jobs default values").lastrowid
    state = "held" if words.hold else "waiting"
    user = pwd.getpwuid(os.getuid()).pw_name
    for task in range(1, words.array + 1) if words.array else [0]:
        db.execute(
            "insert into tasks (number, task, name, user, state, reason, script, directory, output, error, time, warn,"
            " memory, submitted) values (?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
            (number, task, words.name, user, state, "held by its submitter" if words.hold else "", words.script,
             words.directory, words.output.replace("%t", str(task)), words.error.replace("%t", str(task)), words.time,
             words.warn, words.memory, time.time()),
        )  # fmt: skip
    db.commit()
    start_daemon(folder)
    print(f"job {number}")
    return 0


def listed(db: sqlite3.Connection, ended: bool) -> int:
    where = "finished is not null" if ended else "finished is null"
    for row in db.execute(f"select {', '.join(SHOWN)} from tasks where {where} order by number, task"):
        print(json.dumps(dict(row)))
    print('{"end": true}')
    return 0


def changed(folder: Path, db: sqlite3.Connection, words: argparse.Namespace) -> int:
    if words.command in ("node-fails", "stop"):
        wanted = "node" if words.command == "node-fails" else "cancel"
        db.execute("update tasks set wanted = ? where state = 'running'", (wanted,))
        if words.command == "stop":
            close(db, "state in ('waiting', 'held')", (), "cancelled", "the batch system was stopped")
    for key in getattr(words, "keys", ()):
        number, _, task = key.partition(".")
        which, values = ("number = ? and task = ?", (number, task)) if task else ("number = ?", (number,))
        if words.command == "hold":
            db.execute(
                f"update tasks set state='held', reason='held by hand' where {which} and state='waiting'", values
            )
        elif words.command == "release":
            db.execute(f"update tasks set state='waiting', reason='' where {which} and state='held'", values)
        else:
            close(db, f"{which} and state in ('waiting', 'held')", values, "cancelled", "cancelled before it began")
            db.execute(f"update tasks set wanted = 'cancel' where {which} and state = 'running'", values)
    db.commit()
    start_daemon(folder)
    return 0


def close(db: sqlite3.Connection, where: str, values: tuple[str, ...], state: str, reason: str) -> None:
    db.execute(f"update tasks set state=?, reason=?, finished=? where {where}", (state, reason, time.time(), *values))


def start_daemon(folder: Path) -> None:
    """One daemon at work and at most one more waiting for its end, so that no submission is overlooked."""
    with (folder / "daemon.log").open("ab") as log:
        subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), "daemon"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/",
        )  # fmt: skip


class Running:
    """One program of ours, and how far its end has come."""

    def __init__(self, row: sqlite3.Row, process: subprocess.Popen[bytes]) -> None:
        self.row, self.process, self.began = row, process, time.monotonic()
        self.ending: tuple[str, str] | None = None
        self.kill_at = 0.0
        self.warned = False
        self.memory_at = 0.0

    def age(self) -> float:
        return time.monotonic() - self.began

    def end(self, state: str, reason: str) -> None:
        if self.ending is None:
            self.ending, self.kill_at = (state, reason), time.monotonic() + GRACE
            self.send(signal.SIGTERM)

    def send(self, number: int, *, group: bool = True) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number) if group else os.kill(self.process.pid, number)

    def watch(self, wanted: str | None) -> None:
        """Warns, ends and kills as limits and wishes say."""
        limit, warn, memory = self.row["time"], self.row["warn"], self.row["memory"]
        if limit and warn and not self.warned and self.age() >= limit - warn:
            self.warned = True
            self.send(signal.SIGUSR1, group=False)
        if limit and self.age() >= limit:
            self.end("timeout", f"ran longer than {limit:g} s")
        if wanted == "cancel":
            self.end("cancelled", "cancelled while it ran")
        if memory and self.age() >= self.memory_at:
            self.memory_at = self.age() + MEMORY_EVERY
            if resident(self.process.pid) > memory:
                self.end("memory", f"used more than {memory} bytes")
        if self.ending and time.monotonic() >= self.kill_at:
            self.send(signal.SIGKILL)


class Daemon:
    """Starts what waits and watches what runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.slots = int(os.environ.get("FSCHED_SLOTS", "4"))
        self.running: dict[tuple[int, int], Running] = {}

    def run(self) -> int:
        with (self.folder / "next.lock").open("w") as turn, (self.folder / "daemon.lock").open("w") as lock:
            try:
                fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return 0  # somebody waits already, and will see what we would see
            fcntl.flock(lock, fcntl.LOCK_EX)
            fcntl.flock(turn, fcntl.LOCK_UN)
            with opened(self.folder) as db:
                # of an earlier daemon that was killed: its programs are not ours to watch
                db.execute("update tasks set wanted = 'node' where state = 'running'")
            while self.round():
                time.sleep(POLL)
        return 0

    def round(self) -> bool:
        """One look at the folder; whether anything is left to do."""
        with opened(self.folder) as db:
            rows = db.execute(
                "select * from tasks where state in ('waiting', 'running') order by number, task"
            ).fetchall()
            for row in rows:
                key = (row["number"], row["task"])
                if row["state"] == "waiting" and len(self.running) < self.slots:
                    self.begin(db, row)
                elif row["wanted"] == "node":
                    self.running.pop(key, None)
                    self.record(db, row, "node", "its node does not answer", None)
                elif key in self.running:
                    self.running[key].watch(row["wanted"])
                    self.collect(db, key)
            return bool(rows)

    def begin(self, db: sqlite3.Connection, row: sqlite3.Row) -> None:
        environment = {key: os.environ[key] for key in ("PATH", "HOME", "USER", "LANG", "TMPDIR") if key in os.environ}
        environment |= {"FSCHED_NUMBER": str(row["number"]), "FSCHED_TASK": str(row["task"] or 1)}
        try:
            with Path(row["output"]).open("wb") as output, Path(row["error"]).open("wb") as error:
                process = subprocess.Popen(
                    [row["script"]], stdin=subprocess.DEVNULL, stdout=output, stderr=error, cwd=row["directory"],
                    env=environment, start_new_session=True,
                )  # fmt: skip
        except OSError as problem:
            self.record(db, row, "failed", f"could not be started: {problem}", None)
            return
        self.running[row["number"], row["task"]] = Running(row, process)
        db.execute("update tasks set state='running', started=?, pid=? where number=? and task=?",
                   (time.time(), process.pid, row["number"], row["task"]))  # fmt: skip

    def collect(self, db: sqlite3.Connection, key: tuple[int, int]) -> None:
        job = self.running[key]
        status = job.process.poll()
        if status is not None:
            job.send(signal.SIGKILL)  # what it left behind
            state, reason = job.ending or ("ended", "")
            self.record(db, job.row, state, reason, status)
            del self.running[key]

    def record(self, db: sqlite3.Connection, row: sqlite3.Row, state: str, reason: str, status: int | None) -> None:
        code = status if status is not None and status >= 0 else None
        number = -status if status is not None and status < 0 else None
        db.execute("update tasks set state=?, reason=?, exit_code=?, signal=?, finished=? where number=? and task=?",
                   (state, reason, code, number, time.time(), row["number"], row["task"]))  # fmt: skip


def resident(session: int) -> int:
    """Bytes of memory of all processes of a session."""
    total = 0
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = status.read_text(errors="replace").rpartition(")")[2].split()
            if int(fields[3]) == session:
                total += int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
    return total


if __name__ == "__main__":
    sys.exit(main())
