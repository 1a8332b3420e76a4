"""proc0 by SFTP: send a raw file to the computing centre, bit for bit, prove it, and go on where a cut left off.

The file is written under a name that carries the attempt's id and ends in ``.part``; sizes and checksums of both sides
must agree before it gets its last name by an atomic rename. A retry takes over the part that an earlier attempt left,
if what is in it is proved to be the file's beginning. One connection serves all files of a worker.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import PurePosixPath
from types import SimpleNamespace
from typing import Any

from orchestrator.errors import DataError, SettingsError, TransientError
from orchestrator.filenames import path_of, text_of
from orchestrator.step import Work
from orchestrator.transports import (
    FileRefused,
    SiteAccess,
    Transport,
    TransportError,
    TransportRefused,
    TransportUnavailable,
    read_access,
    transport_to,
)
from procs.options import choice, options
from procs.outputs import PART, checksum, safe_name
from procs.sftp_source import Source, paced

RESUME_FROM = 4 * 1024 * 1024  # bytes; of smaller files no part is looked for at a first attempt
READ_BACK = 255 * 1024  # bytes; smaller files are proved by reading them back, in the same exchange as the writing
FOLLOW_FROM = 8_000_000  # bytes; larger files are summed up at the far end while they arrive
PROGRESS_EVERY = 32 * 1024 * 1024  # bytes between two reports of progress

DEFAULTS: dict[str, Any] = {
    "access": None,  # the machine and the account: host, user, known_hosts, key, ... (docs/transfer.md)
    "output": "raw",  # folder for the copies there; relative to the account's home
    "second": None,  # a second copy: {output: folder, access: ...}; without an access on the same machine
    "overwrite": "refuse",  # what to do with another file of that name: refuse | replace
    "resume": True,  # go on with what an earlier attempt has sent
    "flush": True,  # wait until the far end has the file on its disk
    "bandwidth": 0.0,  # MB/s for each worker; 0 is no limit
}
SECOND: dict[str, Any] = {"access": None, "output": ""}


class Transfer:
    """The step. Birth reads the settings, process sends one file, close ends the connections."""

    def __init__(
        self,
        settings: Mapping[str, Any],
        log: logging.Logger,
        connect: Callable[[SiteAccess], Transport] = transport_to,
    ) -> None:
        chosen = self._chosen = options(settings, "transfer", DEFAULTS)
        choice(chosen.overwrite, ("refuse", "replace"), "overwrite", "transfer")
        if not 0 <= chosen.bandwidth < 1e9:
            raise SettingsError("the setting 'bandwidth' of the step transfer is MB/s: 0 (no limit) or more")
        if chosen.access is None:
            raise SettingsError(
                "the step transfer needs the setting 'access': host, user, known_hosts (docs/transfer.md)"
            )
        first = connect(read_access(chosen.access, "the setting 'access' of the step transfer"))
        self._log = log
        self._places = [Place(first, chosen.output)]
        if chosen.second is not None:
            if not isinstance(chosen.second, Mapping):
                raise SettingsError("the setting 'second' of the step transfer: write {output: folder}")
            second = options(chosen.second, "transfer (second)", SECOND)
            other = first
            if second.access is not None:
                other = connect(read_access(second.access, "second / access of the step transfer"))
            if not second.output or (other is first and second.output == chosen.output):
                raise SettingsError("the setting 'second' of the step transfer: output must name another folder")
            self._places.append(Place(other, second.output))

    def process(self, document: dict[str, Any], work: Work) -> dict[str, Any]:
        """Send ``work.input`` to ``<output>/<run>/<name>`` at the far end.

        Returns:
            ``file``, ``size``, ``checksum`` of the copy; ``where``, ``source``, ``reused``, ``resumed_from``, ``sent``
            (bytes) and, where there is one, ``second`` with the same of the second copy.

        Raises:
            DataError: the source differs from what was registered, or another file stands in the copy's place.
            TransientError: connection lost, host key or login refused, far disk full, permission denied, source
                changed, copies differ.
            SettingsError: a setting that is wrong, or a password that cannot be read.
        """
        copies = [Copy(place, self._chosen, document, work).made() for place in self._places]
        result = copies[0] | {"source": {"file": text_of(work.input), "checksum": copies[0]["checksum"]}}
        if len(copies) > 1:
            result["second"] = copies[1]
        return result

    def close(self) -> None:
        """End the connections."""
        for place in self._places:
            place.transport.close()


class Place:
    """A folder for copies on one machine, and which sub-folders are known to be there."""

    def __init__(self, transport: Transport, output: str) -> None:
        if not output or output.startswith("~") or "\0" in output:
            raise SettingsError(f"the setting 'output' is {output!r}: a path from the root, or from the account's home")
        self.transport = transport
        self._output = output
        self._root: PurePosixPath | None = None
        self._made: set[PurePosixPath] = set()

    def target(self, document: Mapping[str, Any], name: str) -> PurePosixPath:
        """Where a document's file goes; the folder is made."""
        if self._root is None:
            self._root = PurePosixPath(self.transport.absolute(self._output))
        folder = self._root / safe_name(str(document.get("run_name") or "no run"))
        if folder not in self._made:
            self.transport.mkdir(folder)
            self._made.add(folder)
        return folder / safe_name(name)

    def forget(self) -> None:
        """After a refusal: perhaps somebody has removed a folder."""
        self._made.clear()


class Copy:
    """One file on its way to one place."""

    def __init__(self, place: Place, chosen: SimpleNamespace, document: dict[str, Any], work: Work) -> None:
        self._place, self._transport = place, place.transport
        self._chosen, self._document, self._work = chosen, document, work

    def made(self) -> dict[str, Any]:
        """The copy's description, once it is there and proved."""
        work = self._work
        if not work.input.is_file():
            with Source.opened(work.input):  # says what is the matter, where something is
                raise DataError(f"{work.input} is not a file: nothing to send. Correct the document's file.")
        with Source.opened(work.input) as source, self._explained(source):
            registered = self._registered(source)
            target = self._place.target(self._document, work.input.name)
            # A small file is sent sooner than asked about; the rename then tells whether its name is taken.
            if source.size > READ_BACK and (reused := self._reused(source, target, registered)) is not None:
                return reused
            part = target.with_name(f".{target.name}.{work.attempt}{PART}")
            try:
                with self._explained(source):  # here, so that the room on the disk is looked at before the part goes
                    start = self._resumed(source, target, part)
                    placed = None if start else self._delivered(source, part, target, registered)
                    if placed is None:
                        proved = self._send(source, part, start, registered)
                        placed = self._placed(source, part, target, proved)
                    if not placed:
                        if (reused := self._reused(source, target, registered)) is not None:
                            self._transport.remove(part)
                            return reused
                        self._transport.rename(part, target)
            except BaseException as error:
                # After a cut the part stays, for the next attempt.
                if not isinstance(error.__cause__, TransportUnavailable):
                    with suppress(TransportError):
                        self._transport.remove(part)
                raise
        work.log.info(
            "sent %s to %s:%s (%d of %d bytes, %s)",
            source.path, self._transport.where, target, source.size - start, source.size, source.checksum,
        )  # fmt: skip
        return self._result(
            target, source.size, source.checksum, reused=False, resumed_from=start, sent=source.size - start
        )

    def _result(self, target: PurePosixPath, size: int, total: str, **more: Any) -> dict[str, Any]:
        return {"file": str(target), "size": size, "checksum": total, "where": self._transport.where, **more}

    # ---- before

    def _registered(self, source: Source) -> str | None:
        """The checksum to expect, if the file is the one that was registered."""
        document = self._document
        if not isinstance(document.get("file"), str) or source.path != path_of(document):
            return None
        known, text = document.get("size"), document.get("checksum")
        if isinstance(known, int) and not isinstance(known, bool) and known != source.size:
            raise DataError(
                f"{source.path} has {source.size} bytes, but {known} were registered: it was changed after its "
                "registration. Compare it with the DAQ's copy."
            )
        return text.lower() if isinstance(text, str) and text.lower().startswith("sha256:") else None

    def _reused(self, source: Source, target: PurePosixPath, registered: str | None) -> dict[str, Any] | None:
        """The result, if the file stands at the far end already; None if there is none, or one to replace."""
        found = self._transport.stat(target)
        if found is None or not self._same(source, target, found.size, registered):
            return None
        self._work.log.info("%s is on %s already, with the same checksum", target, self._transport.where)
        return self._result(target, source.size, checksum(source.path), reused=True, resumed_from=0, sent=0)

    def _same(self, source: Source, target: PurePosixPath, size: int, registered: str | None) -> bool:
        """Whether the file that stands in the copy's place is this very file; else it must be one to replace."""
        if size == source.size:
            own = checksum(source.path)
            if registered not in (None, own):
                raise changed(source, own, registered)
            if self._transport.checksum(target) == own:
                return True
        if self._chosen.overwrite == "refuse":
            raise DataError(
                f"{target} is on {self._transport.where} already and is another file than {source.path}: look at both, "
                "then remove one, or set overwrite: replace."
            )
        self._work.log.warning(
            "%s on %s is another file than %s and is replaced", target, self._transport.where, source.path
        )
        return False

    def _resumed(self, source: Source, target: PurePosixPath, part: PurePosixPath) -> int:
        """How many bytes are there already, in a part that was an earlier attempt's and has become ours."""
        if not self._chosen.resume or (source.size < RESUME_FROM and self._number() <= 1):
            return 0
        pattern = re.compile(re.escape(f".{target.name}.") + r"[0-9a-f]{32}" + re.escape(PART))
        left = [entry for entry in self._transport.list(target.parent) if pattern.fullmatch(entry.name)]
        start = 0
        for entry in sorted(left, key=lambda entry: -entry.size):
            old = target.with_name(entry.name)
            if not start and 0 < entry.size <= source.size and self._is_beginning(source, old, entry.size):
                with suppress(FileRefused):  # gone: another attempt was quicker, and has it now
                    self._transport.rename(old, part)
                    start = entry.size
                    continue
            self._transport.remove(old)
        if start:
            self._work.log.info("%d of %d bytes are on %s already", start, source.size, self._transport.where)
        else:
            source.rewind()
        return start

    def _is_beginning(self, source: Source, old: PurePosixPath, size: int) -> bool:
        source.skip(size)
        try:
            return self._transport.checksum(old, size) == source.checksum
        except FileRefused:
            return False

    def _number(self) -> int:
        """Which attempt this is, as the claim in the document says."""
        claims = (claim for claim in self._document.values() if isinstance(claim, dict))
        numbers = [claim.get("number") for claim in claims if claim.get("attempt") == self._work.attempt]
        return next((number for number in numbers if isinstance(number, int)), 1)

    # ---- sending

    def _delivered(
        self, source: Source, part: PurePosixPath, target: PurePosixPath, registered: str | None
    ) -> bool | None:
        """Send a small file, prove it and give it its last name in one exchange: False if the name is taken.

        None, with nothing sent, for larger files and where the far end cannot.
        """
        transport = self._transport
        if source.size > READ_BACK or self._chosen.bandwidth or not transport.places_at_once():
            return None
        data = b"".join(source.chunks(0))
        self._right(source, registered)
        found = transport.deliver(part, target, data, source.checksum, flush=self._chosen.flush)
        if found is None:
            source.rewind()
            return None
        self._compare(source, found.checksum)
        return bool(found.placed)

    def _right(self, source: Source, registered: str | None) -> None:
        """Raise an error unless what was read is the file as it is, and as it was registered."""
        source.unchanged()
        if registered not in (None, source.checksum):
            raise changed(source, source.checksum, registered)

    def _send(self, source: Source, part: PurePosixPath, start: int, registered: str | None) -> bool:
        """Write the rest of the file into ``part``; whether the whole of it is proved to be there."""
        transport = self._transport
        small = source.size <= READ_BACK
        read_back = source.size if small and not transport.places_at_once() else 0
        sent = transport.send(
            part, paced(source.chunks(start), self._chosen.bandwidth * 1e6), offset=start, flush=self._chosen.flush,
            confirmed=self._progress(source.size, start), read_back=read_back,
            follow=source.size >= FOLLOW_FROM,
        )  # fmt: skip
        self._right(source, registered)
        if sent.size != source.size:
            raise TransientError(
                f"the copy of {source.path} on {transport.where} has {sent.size} bytes instead of {source.size}: "
                "tried again."
            )
        if read_back and sent.read_back is not None and len(sent.read_back) == source.size:
            self._compare(source, f"sha256:{hashlib.sha256(sent.read_back).hexdigest()}")
            return True
        return sent.checksum == source.checksum  # else it is summed up again, as a whole

    def _placed(self, source: Source, part: PurePosixPath, target: PurePosixPath, proved: bool) -> bool:
        """Prove the copy, if it is not proved yet, and give it its last name. False if the name is taken."""
        if proved:
            return self._transport.rename_new(part, target)
        if source.size >= PROGRESS_EVERY:
            self._work.progress(1.0, "the far end computes its checksum")
        found = self._transport.place(part, target, source.checksum, source.size)
        self._compare(source, found.checksum)
        return bool(found.placed)

    def _compare(self, source: Source, far: str) -> None:
        if far != source.checksum:
            raise TransientError(
                f"the copy of {source.path} on {self._transport.where} has the checksum {far} instead of "
                f"{source.checksum}: tried again from the beginning."
            )

    def _progress(self, size: int, start: int) -> Callable[[int], None]:
        reported = start

        def confirmed(done: int) -> None:
            nonlocal reported
            if done - reported >= PROGRESS_EVERY:
                reported = done
                self._work.progress(done / size, f"{done / 1e6:.0f} of {size / 1e6:.0f} MB")

        return confirmed

    @contextmanager
    def _explained(self, source: Source) -> Iterator[None]:
        """Turn the transport's errors into a step's."""
        try:
            yield
        except TransportUnavailable as error:
            raise TransientError(f"sending {source.path}: {error}") from error
        except TransportRefused as error:
            # Not the file's fault, and mended by a person without a look at it; a centre whose directory of accounts
            # is away refuses logins as well. The transport itself sees to it that nobody knocks too often.
            raise TransientError(f"sending {source.path}: {error}") from error
        except FileRefused as error:
            self._place.forget()
            if not error.transient and error.errno != errno.ENOENT:
                raise DataError(f"sending {source.path}: {error}. Look at the folder there.") from error
            raise TransientError(f"sending {source.path}: {error}. {self._remedy(error, source.size)}") from error
        except TransportError as error:
            raise TransientError(f"sending {source.path}: {error}") from error

    def _remedy(self, error: FileRefused, size: int) -> str:
        """What may be the reason, and what to do; a server says "failure" for a full disk and for many other things."""
        if error.errno == errno.EACCES:
            return "Let the account write there, or choose another output folder."
        if error.errno == errno.ENOENT:
            return "Its folder has gone: is a file system not mounted there? Tried again later."
        space = None
        with suppress(TransportError):
            space = self._transport.space(self._place.target(self._document, "x").parent)
        if space is None:
            return "Is the disk full, or the quota used up? Tried again later."
        room = f"{space.free / 1e6:.1f} of {space.total / 1e6:.0f} MB are free there"
        if space.free < size:
            return f"The disk is full ({room}): make room or choose another output folder."
        return f"{room}, so perhaps a quota is used up, or a limit reached. Tried again later."


def changed(source: Source, found: str, registered: str | None) -> DataError:
    """The error for a file that is not what was registered."""
    return DataError(
        f"{source.path} has the checksum {found}, but {registered} was registered: the file was changed or damaged "
        "after its registration. Compare it with the DAQ's copy."
    )
