"""Writing one file through an SFTP session without waiting for each answer; every answer is checked in the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.transports.errors import FileRefused
from orchestrator.transports.model import Confirmed, Sent
from orchestrator.transports.wire import Kind, Reader, long, text, word

if TYPE_CHECKING:
    from orchestrator.transports.sftp import Sftp

UNDER_WAY = 64  # writes without an answer yet; 16 MB, more than any SSH window


class Upload:
    """Writes to one open file without waiting for each answer; every answer is checked in the end."""

    def __init__(
        self,
        sftp: Sftp,
        handle: bytes,
        path: bytes,
        offset: int = 0,
        confirmed: Confirmed | None = None,
        *,
        before: bytes = b"",
    ) -> None:
        """``before`` is a request that is sent with the first one."""
        self._sftp = sftp
        self._handle = handle
        self._path = path
        self._begin = self._at = self._done = offset
        self._confirmed = confirmed
        self._under_way: dict[int, int] = {}  # requests without an answer, and where in the file each begins
        # The first write is held back, to be sent with the next request: for a small file all goes in one packet.
        self._held: tuple[int, bytes] | None = None
        self._before = before
        self._fault: FileRefused | None = None

    def write(self, chunk: bytes | memoryview) -> bool:
        """Sends a chunk; of its bytes nothing is kept. False once something was refused: go on to `finish`."""
        sftp, view = self._sftp, memoryview(chunk)
        for start in range(0, len(view), sftp.block):
            piece = view[start : start + sftp.block]
            number, head = sftp.request(
                Kind.WRITE, text(self._handle), long(self._at), word(len(piece)), more=len(piece)
            )
            if self._at == self._begin:
                self._held = number, self._before + head + piece
                self._before = b""
            else:
                self._dispatch_held()
                sftp.dispatch(head, piece)
            self._under_way[number] = self._at
            self._at += len(piece)
            self._settle(UNDER_WAY)
        return self._fault is None

    def finish(self, flush: bool = True, read_back: int = 0) -> Sent:
        """Flushes, measures, reads back and closes in one exchange. Raises FileRefused for whatever was refused."""
        sftp, handle = self._sftp, self._handle
        flushed = read = None
        requests = [self._before] if self._held is None else [self._held[1]]
        if flush and b"fsync@openssh.com" in sftp.extensions:
            flushed, data = sftp.request(Kind.EXTENDED, text(b"fsync@openssh.com"), text(handle))
            requests.append(data)
        looked, data = sftp.request(Kind.FSTAT, text(handle))
        requests.append(data)
        if read_back:
            read, data = sftp.request(Kind.READ, text(handle), long(0), word(min(read_back, sftp.block)))
            requests.append(data)
        closed, data = sftp.request(Kind.CLOSE, text(handle))
        sftp.dispatch(b"".join([*requests, data]))
        sftp.closed(handle)
        self._held = None
        self._settle(0)
        answers = {number: sftp.answer(number) for number in (flushed, looked, read, closed) if number is not None}
        if self._fault is not None:
            raise self._fault
        if flushed is not None:
            sftp.expect(Kind.STATUS, *answers[flushed], self._path, "flush")
        size = sftp.expect(Kind.ATTRS, *answers[looked], self._path, "look at").attributes().size
        sftp.expect(Kind.STATUS, *answers[closed], self._path, "close")
        found = None
        if read is not None and answers[read][0] == Kind.DATA:
            found = Reader(answers[read][1]).text()
        return Sent(size, found)

    def give_up(self) -> None:
        """Closes the file after a fault of the source; the session stays usable."""
        if self._held is not None:
            del self._under_way[self._held[0]]
        if self._sftp.usable:
            closed = self._sftp._send(Kind.CLOSE, text(self._handle))
            self._sftp.closed(self._handle)
            self._settle(0)
            self._sftp.answer(closed)

    def _dispatch_held(self) -> None:
        if self._held is not None:
            self._sftp.dispatch(self._held[1])
            self._held = None

    def _settle(self, most: int) -> None:
        """Takes answers until at most ``most`` writes are without one, and those that are there anyway."""
        sftp, before = self._sftp, self._done
        while self._under_way and (len(self._under_way) > most or sftp.ready()):
            number, kind, body = sftp.next_answer()
            if number not in self._under_way:
                sftp.keep(number, kind, body)
                continue
            del self._under_way[number]
            # Up to the oldest write without an answer, since not every server answers in order.
            self._done = next(iter(self._under_way.values()), self._at)
            try:
                sftp.expect(Kind.STATUS, kind, body, self._path, "write")
            except FileRefused as error:
                self._fault = self._fault or error
        if self._confirmed is not None and self._done != before and self._fault is None:
            self._confirmed(self._done)


def at_once(
    sftp: Sftp,
    path: bytes,
    opening: tuple[int, bytes],
    handle: bytes,
    data: bytes,
    *,
    flush: bool,
    read_back: int,
    confirmed: Confirmed | None,
) -> Sent | bytes:
    """Writes a small file in one exchange: all goes with its opening, to the handle that it will likely have.

    Gives the real handle, open and with nothing written, if it is another one: the far end has then refused the rest,
    since the handle that was foreseen is none (nothing else is open).

    Raises:
        FileRefused: the opening was refused, or what followed.
    """  # fmt: skip
    number, request = opening
    upload = Upload(sftp, handle, path, 0, confirmed, before=request)
    if data:
        upload.write(data)
    fault, sent = None, None
    try:
        sent = upload.finish(flush, read_back)
    except FileRefused as error:
        fault = error
    real = sftp.opened(number, path)
    if real != handle:
        return real
    sftp.closed(real)
    if sent is None:
        raise fault or AssertionError("neither sent nor refused")
    return sent
