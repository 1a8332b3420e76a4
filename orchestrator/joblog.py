"""What a batch job has written, for people: found by our own spool layout, read over the farm's transport.

No path is taken from a document, whose text anybody may have written: a job's name must be a plain word, and all else
is made from the chain, the site's settings and the document's id as the runner itself makes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from orchestrator import jobfiles
from orchestrator.capture import safe_file_name
from orchestrator.chain import Chain
from orchestrator.engine.submission import places
from orchestrator.errors import ChainError, NotFound
from orchestrator.farms import Farm
from orchestrator.joblist import NAME
from orchestrator.settings import Settings
from orchestrator.transports import FileRefused, NoShell, Transport

#: What is shown of the end of a log unless all of it is asked for, in bytes: a few screens.
TAIL = 64_000
#: At most so many bytes of a log are handed on at once.
MOST = 8_000_000
STDOUT, STDERR, STEP = "stdout", "stderr", "step"


def path_of(farm: Farm, job: str, task: int, which: str) -> str:
    """Where a task's stdout or stderr is at the farm. Raises NotFound for what cannot be a job's name."""
    if not NAME.match(job) or task < 1:
        raise NotFound(f"there is no batch job {job!r}")
    kind = {STDOUT: "out", STDERR: "err"}[which]
    return f"{jobfiles.logs(farm.spool.rstrip('/'), job)}/{kind}-{task}"


def step_path(farm: Farm, settings: Settings, document: str, step: str, attempt: str) -> str:
    """Where what a step itself printed is kept when an attempt has ended."""
    name = safe_file_name(f"{document}.{attempt}")
    return f"{places(farm, None, settings).logs}/{safe_file_name(step)}/{name}.log"


def farm_of(chain: Chain, name: str) -> Farm:
    """The chain's farm of that name. Raises ChainError."""
    if name not in chain.farms:
        raise ChainError(f"the chain {chain.name!r} has no farm {name!r} any more: its jobs' logs cannot be reached")
    return chain.farms[name]


@dataclass
class Log:
    """One file at a farm. Raises what the transport raises."""

    transport: Transport
    path: str

    def size(self) -> int | None:
        """Its size in bytes, or None while it is not there."""
        found = self.transport.stat(self.path)
        return None if found is None else found.size

    def end(self, most: int = TAIL) -> tuple[str, int]:
        """Its end as text, and its size. Raises NotFound if it is not there."""
        size = self.size()
        if size is None:
            raise NotFound(f"there is no file {self.path} on {self.transport.where} (yet)")
        return self._from(max(0, size - most), size), size

    def follow(self, position: int, alive: Callable[[], bool], wait: Callable[[], object]) -> Iterator[str]:
        """What is written from ``position`` (bytes) on, as it comes, until ``alive`` says no and nothing more does.

        A log that grows by more than MOST between two looks loses its middle.
        """
        while True:
            going = alive()
            size = self.size() or 0
            if size < position:
                position = 0  # written anew
            if size > position:
                yield self._from(max(position, size - MOST), size)
                position = size
            elif not going:
                return
            else:
                wait()

    def _from(self, start: int, end: int) -> str:
        """The bytes from ``start`` to ``end``, as text."""
        if end <= start:
            return ""
        try:
            answer = self.transport.run(["tail", "-c", f"+{start + 1}", self.path])
        except NoShell:
            data = self.transport.read(self.path, limit=end + MOST)[start:end]
            return data.decode("utf-8", "replace")
        if not answer.ok:
            raise FileRefused(f"{self.path} on {self.transport.where}: {answer.said}", path=self.path)
        return answer.stdout.encode("utf-8", "surrogateescape")[: end - start].decode("utf-8", "replace")
