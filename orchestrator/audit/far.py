"""Outputs that lie at a farm which is reached across SSH, for the audit: looked for there, in few calls.

A folder is listed once, however many outputs lie in it, and the last few listings are kept: documents come in the order
of their names, and outputs of one run mostly lie in one folder. A farm that cannot be asked is said once, and is then
left alone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import PurePosixPath

from orchestrator.audit.document import Output
from orchestrator.audit.findings import Finding
from orchestrator.chain import Chain
from orchestrator.errors import OrchestratorError
from orchestrator.transports import Transport, TransportError, transport_to

#: Listings that are kept.
KEPT = 16


class FarOutputs:
    """The outputs at farms of one site. With ``deep`` each is summed up where it lies."""

    def __init__(self, chain: Chain, *, deep: bool) -> None:
        self._chain, self._deep = chain, deep
        self._open: dict[str, Transport] = {}
        self._unseen: dict[str, str] = {}
        self._told: set[str] = set()
        self._folders: OrderedDict[tuple[str, str], dict[str, int | None] | None] = OrderedDict()

    def look(self, outputs: Iterable[Output]) -> Iterator[Finding]:
        """What is wrong with outputs, whose steps all have a farm."""
        by_farm: dict[str, list[Output]] = {}
        for output in outputs:
            by_farm.setdefault(output.step.farm or "", []).append(output)
        for farm, some in by_farm.items():
            if farm not in self._unseen:
                try:
                    yield from self._at(farm, some)
                except (OrchestratorError, TransportError) as error:
                    self._unseen[farm] = str(error)

    def unseen(self) -> Iterator[Finding]:
        """The farms that could not be asked."""
        for farm, why in self._unseen.items():
            yield Finding("not-looked-at", f"outputs at farm {farm}", why)

    def again(self) -> None:
        """Look at everything anew from now on."""
        self._folders.clear()
        self._unseen.clear()

    def close(self) -> None:
        """End all connections."""
        for transport in self._open.values():
            with suppress(OrchestratorError):
                transport.close()
        self._open.clear()

    def _at(self, farm: str, outputs: list[Output]) -> Iterator[Finding]:
        transport = self._open.get(farm)
        if transport is None:
            transport = self._open[farm] = transport_to(self._chain.farms[farm].access)
        wanted = dict.fromkeys(str(PurePosixPath(output.path).parent) for output in outputs)
        unknown = [folder for folder in wanted if (farm, folder) not in self._folders]
        listed: dict[str, dict[str, int | None] | None] = {
            folder: self._folders[farm, folder] for folder in wanted if (farm, folder) in self._folders
        }
        for folder, entries in zip(unknown, transport.list_many(unknown), strict=True):
            sizes: dict[str, int | None] | None = None
            if not isinstance(entries, OrchestratorError):
                sizes = {one.name: one.size if one.is_file else None for one in entries}
            listed[folder] = self._folders[farm, folder] = sizes
        while len(self._folders) > KEPT:
            self._folders.popitem(last=False)
        for output in outputs:
            finding = self._wrong(transport, output, listed[str(PurePosixPath(output.path).parent)])
            if finding is not None:
                yield finding

    def _wrong(self, transport: Transport, output: Output, listed: dict[str, int | None] | None) -> Finding | None:
        name = PurePosixPath(output.path).name
        done = f"{output.step.key} ({output.step.name}) is done; {output.path} at {transport.where}"
        if listed is None or name not in listed:
            return Finding("output-missing", output.document, f"{done} is not there", step=output.step.key)
        size = listed[name]
        if size is None:  # a folder, or a link: what it leads to counts
            found = transport.stat(output.path)
            if found is None:
                return Finding("output-missing", output.document, f"{done} is not there", step=output.step.key)
            size = found.size if found.is_file else None
        if output.size is not None and size is not None and size != output.size:
            text = f"{done} has {size} bytes, recorded are {output.size}"
            return Finding("output-differs", output.document, text, step=output.step.key)
        if self._deep and size is not None and (output.checksum or "").startswith("sha256:"):
            is_now = transport.checksum(output.path)
            if is_now != output.checksum:
                text = f"{done} has checksum {is_now}, recorded is {output.checksum}"
                return Finding("output-differs", output.document, text, step=output.step.key)
        return None
