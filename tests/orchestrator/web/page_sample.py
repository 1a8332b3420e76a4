"""A small run database for the tests of the page: documents in every state, one of them made to hurt."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from orchestrator import chain as chains
from orchestrator.chain import Chain

#: The moment that the sample's documents are told from: 2026-01-22T12:00:00Z.
NOON = datetime(2026, 1, 22, 12, tzinfo=UTC).timestamp()

CHAIN = """
name: samba
description: From the DAQ's raw files to histograms
steps:
  - {name: transfer, run: "procs.transfer:transfer", settings: {output: raw}, version: "2"}
  - {name: convert, run: "procs.convert:convert", time_limit: 10 min, memory_limit: 2 GB}
  - {name: analyse, run: "procs.amplitude:Amplitude", needs: [convert], settings: {templates: {heat: t.root}}}
  - {name: histogram, run: "procs.histograms:histogram"}
"""


def chain() -> Chain:
    """Four steps, as the documents below have them."""
    made = chains.loads(CHAIN)
    made.steps[0].settings["password"] = "hunter2"  # a chain is refused for it, and one of before may have it
    return made


def iso(seconds: float) -> str:
    """As the documents write their times."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def done(step: str, at: float, seconds: float = 2.5, **more: Any) -> dict[str, Any]:
    """The record of a step that is done."""
    return {
        "step": step,
        "state": "done",
        "attempt": "a" * 32,
        "number": 1,
        "host": "node1",
        "pid": 77,
        "poller": "p1",
        "started": iso(at - seconds),
        "finished": iso(at),
        "seconds": seconds,
        "cpu_seconds": seconds * 0.8,
        "max_rss": 123456789,
        "exit_code": 0,
        "software": {"orchestrator": "1.0", "step": "2"},
        **more,
    }


NAMES = ("transfer", "convert", "analyse", "histogram")


def document(
    run: str, number: int, status: str = "closed", through: int = 0, now: float = NOON, **more: Any
) -> dict[str, Any]:
    """A data document whose first ``through`` steps are done."""
    made: dict[str, Any] = {
        "_id": f"{run}_{number:03d}",
        "type": "daqdocument",
        "run_name": run,
        "file_number": number,
        "file": f"/data/{run}/{run}_{number:03d}",
        "size": 1_500_000 + number,
        "checksum": "sha256:" + "ab" * 32,
        "hostname": f"daq{1 + number % 2}",
        "site": "here",
        "registered": iso(now - 7200 + number),
        "format": "samba",
        "updated": iso(now - 60 * (number + 1)),
        "header": {"Temperature": 17.5, "Detectors": ["heat", "ion"], "Run": run},
        "status": status,
    }
    for step in range(through):
        made[f"proc{step}"] = done(
            NAMES[step], now - 3600 * (3 - step) - 60 * number, file=f"/data/out/{number}_{step}.root"
        )
    return made | more


def claimed(step: int, now: float = NOON) -> dict[str, Any]:
    """The record of a step in progress."""
    return {
        "step": NAMES[step],
        "state": "in progress",
        "attempt": "b" * 32,
        "number": 2,
        "host": "node2",
        "pid": 4711,
        "poller": "node2-4711",
        "started": iso(now - 42),
        "was": "good",
    }


def failure(step: int, reason: str, error_class: str = "data", now: float = NOON) -> dict[str, Any]:
    """The record of a step that failed for good."""
    return done(NAMES[step], now - 300) | {
        "state": "failed",
        "reason": reason,
        "error_class": error_class,
        "exit_code": 1,
    }


def documents(now: float = NOON, files: int = 8) -> list[dict[str, Any]]:
    """Two runs in every state, and one document made to hurt."""
    made = [document("ma22a000", n, "good", 4, now) for n in range(files)]
    made += [document("ma22b001", n, "closed", 0, now) for n in range(3)]
    made += [
        document("ma22b001", 3, "good", 1, now),
        document("ma22b001", 4, "proc 2 in progress", 2, now, proc2=claimed(2, now)),
        document(
            "ma22b001",
            5,
            "proc 1 queued",
            1,
            now,
            proc1={"step": "convert", "state": "queued", "started": iso(now - 9)},
            batchjob=[{"step": "proc1", "scheduler": "slurm", "number": "4711_3", "stdout": "/x/out"}],
        ),
        document("ma22b001", 6, "failed", 1, now, proc1=failure(1, "the event at byte 4711 ends early", now=now)),
        document("ma22b001", 7, "bad", 0, now, reason="the header has no run number"),
        document("ma22b001", 8, "open", 0, now),
        document(
            "ma22b001",
            9,
            "good",
            1,
            now,
            retry={
                "step": "proc1",
                "number": 2,
                "not_before": iso(now + 60),
                "reason": "the disk is full",
                "error_class": "transient",
            },
        ),
        hostile(now),
    ]
    made.append(
        {
            "_id": "attempt:ma22b001_009:proc1:1",
            "type": "attempt",
            "document": "ma22b001_009",
            "step": "proc1",
            "number": 1,
            "attempt": "c" * 32,
            "state": "failed",
            "error_class": "transient",
            "reason": "the disk is full",
            "host": "node1",
            "pid": 9,
            "started": iso(now - 90),
            "finished": iso(now - 80),
            "seconds": 10.0,
            "log_tail": "line one\n<script>alert(1)</script>\n",
            "run_name": "ma22b001",
        }
    )
    return made


NASTY = "<script>alert('x')</script>"
HOSTILE_ID = "a/../b \"><img src=x onerror=alert(1)>\n&'ü?#"


def hostile(now: float = NOON) -> dict[str, Any]:
    """A document each of whose texts tries to become more than text."""
    return document(NASTY, 1, "failed", 1, now) | {
        "_id": HOSTILE_ID,
        "file": "javascript:alert(1)//../../etc/passwd",
        "hostname": '"><script>alert(2)</script>',
        "header": {NASTY: NASTY, "javascript:alert(3)": ["{{ 7*7 }}", None, {"deep": {"er": NASTY}}]},
        "proc1": failure(1, f"{NASTY} & </title><svg onload=alert(4)>", now=now)
        | {"log": "../../../../etc/passwd", "result": {"plots": ["/etc/passwd", "../../x.png", "javascript:x.png"]}},
    }
