"""What an engine has done, in numbers: for the heartbeat and the poller's last line."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.engine.flight import Write


@dataclass
class Counts:
    """Since the engine was made."""

    claimed: int = 0
    done: int = 0
    failed: int = 0
    retried: int = 0
    lost: int = 0
    conflicts: int = 0
    dropped: int = 0

    def ended(self, write: Write) -> None:
        """An attempt's report is written."""
        if write.report is not None and write.report.ok:
            self.done += 1
        elif write.document.get("status") in ("failed", "bad"):
            self.failed += 1
        else:
            self.retried += 1
