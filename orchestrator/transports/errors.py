"""What can go wrong between here and a site's machine.

TransportError
  TransportUnavailable     not reached, not answered in time, cut: says nothing about the far end; try again
  TransportRefused         reached, and refused: trying again cannot help until a person changes something
    HostKeyRefused         the machine is not known, or shows another key than the known one
    LoginRefused           no key and no password was accepted, or none could be read
    NoShell                the account runs no commands (only SFTP)
  FileRefused              one file operation was refused; ``errno`` says why where the far end told
"""

from __future__ import annotations

import errno as codes

from orchestrator.errors import Exit, OrchestratorError


class TransportError(OrchestratorError):
    """The root of this room."""


class TransportUnavailable(TransportError):
    """The machine could not be reached, did not answer in time, or the connection was cut.

    It is never evidence about the far end. ``perhaps_done`` is true where the operation had been sent and may have had
    its effect all the same.
    """

    exit_code = Exit.UNAVAILABLE
    transient = True

    def __init__(self, message: str, *, perhaps_done: bool = False) -> None:
        super().__init__(message)
        self.perhaps_done = perhaps_done


class TransportRefused(TransportError):
    """The machine was reached and will not do it. A person must change something first."""

    exit_code = Exit.UNAUTHORISED


class HostKeyRefused(TransportRefused):
    """The machine's host key is not the known one. Nothing was sent to it, no name and no password."""


class LoginRefused(TransportRefused):
    """The login was not accepted. Never repeated in a hurry: repeated attempts lock accounts."""


class NoShell(TransportRefused):
    """The account runs no commands; files can still be transferred."""


class FileRefused(TransportError):
    """A file operation was refused at the far end.

    Attributes:
        errno: as in the module ``errno``: ENOENT, EACCES, EEXIST, ENOSPC, ...; 0 where the far end said only "failure".
        path: the file, as text.
    """

    def __init__(self, message: str, *, errno: int = 0, path: str = "") -> None:
        super().__init__(message)
        self.errno = errno
        self.path = path
        #: What passes with time or by an operator's hand, without a look at the file itself.
        self.transient = errno not in (codes.ENOENT, codes.EEXIST, codes.ENOTDIR, codes.EISDIR, codes.EINVAL)
