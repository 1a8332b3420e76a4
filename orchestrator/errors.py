"""Every error this project raises on purpose, as one tree.

Each carries a message for the person who reads it: what happened, to which document or file, and what to do.
``exit_code`` is what the command line ends with; ``transient`` says whether trying again can help.

    OrchestratorError
      SettingsError            a setting, a credentials file, a command's words
        ChainError             a chain file that cannot be used
      DatabaseError            the database answered, and the answer is no
        Unavailable            it did not answer
        NotFound               no such document, database or view
        Conflict               the document has changed since it was read
        Unauthorised           login refused, or a role is missing
        Refused                a write that the guard or the database does not allow
      IllegalTransition        a status change that the table of transitions does not have
      FormatError              a raw file that is not what it says it is, with the byte offset
      StepError                a step that could not do its work; its kind says whether to try again
        TransientError         a passing fault: a full disk, a file system away
        DataError              the input is at fault: trying again cannot help
        ResourceError          too little time or memory
"""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """How a command ends. The numbers are part of the interface: scripts test them."""

    OK = 0
    FAILED = 1  # something was tried and did not work; the sentence says what
    USAGE = 2  # the command's words are off (click's own choice)
    SETTINGS = 3  # a setting, the chain file or the credentials file
    UNAVAILABLE = 4  # the database did not answer
    UNAUTHORISED = 5  # it answered, and refused the login or the role
    NOT_FOUND = 6  # no such document, step or database
    CONFLICT = 7  # somebody else changed it first, or a port or a lock is taken
    DATA = 8  # an input file is corrupt
    INTERRUPTED = 130  # Ctrl-C, as shells say it


class OrchestratorError(Exception):
    """The root. ``str()`` of it is one sentence that a user can act on."""

    exit_code: Exit = Exit.FAILED
    transient: bool = False


class SettingsError(OrchestratorError):
    """A setting, a credentials file or a command's words cannot be used."""

    exit_code = Exit.SETTINGS


class ChainError(SettingsError):
    """The chain file cannot be used; the message names the place and the remedy."""


class DatabaseError(OrchestratorError):
    """The database answered with an error that has no class of its own."""


class Unavailable(DatabaseError):
    """The database did not answer, or answered with a fault of its own. Never a reason to change a state."""

    exit_code = Exit.UNAVAILABLE
    transient = True


class NotFound(DatabaseError):
    """No such document, database, view or attachment."""

    exit_code = Exit.NOT_FOUND


class Conflict(DatabaseError):
    """The document has changed since it was read: read it again and decide again."""

    exit_code = Exit.CONFLICT


class Unauthorised(DatabaseError):
    """The login was refused, or the account lacks the role. Stop: repeated attempts lock the account."""

    exit_code = Exit.UNAUTHORISED


class Refused(DatabaseError):
    """The guard (``validate_doc_update``) or the database does not allow this write; the reason says why."""


class IllegalTransition(OrchestratorError):
    """A change of status that the table of transitions does not have."""


class FormatError(OrchestratorError):
    """A raw file is not what it says it is. ``offset`` is the byte where reading stopped, from the file's start."""

    exit_code = Exit.DATA

    def __init__(self, message: str, *, path: str = "", offset: int | None = None) -> None:
        place = f"{path}: " if path else ""
        where = "" if offset is None else f" (at byte {offset})"
        super().__init__(f"{place}{message}{where}")
        self.path = path
        self.offset = offset


class StepError(OrchestratorError):
    """A step could not do its work. ``kind`` is what the retry policy looks at."""

    kind: str = "code"


class TransientError(StepError):
    """A passing fault: a disk that is full, a file system that is away. Worth another try."""

    kind = "transient"
    transient = True


class DataError(StepError):
    """The input is at fault. Trying again cannot help: a person must look."""

    kind = "data"


class ResourceError(StepError):
    """Too little time or memory."""

    kind = "resources"
    transient = True
