"""Many small files through one SFTP session in a few round trips: requests go out together, then the answers are taken.

The number of round trips hardly depends on the number of files, so a slow link does not make a farm slow. Everything is
plain SFTP: no shell and no program at the far end is needed.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence

from orchestrator.transports.errors import FileRefused
from orchestrator.transports.model import Entry, shown
from orchestrator.transports.sftp import Sftp
from orchestrator.transports.wire import NO_ATTRIBUTES, Kind, Open, Reader, Status, long, text, word

WAVE = 200  # files or folders that are open at once; a server's process may have 1,024
REMOVALS = 1000  # requests under way
AT_ONCE = 4  # requests for more names of a folder under way; OpenSSH gives 100 names for each

Request = tuple[Kind, bytes]
Asked = list[tuple[bytes, int]]  # path and number of the request


def read_files(sftp: Sftp, paths: Sequence[bytes], limit: int) -> list[bytes | FileRefused]:
    """The contents of files of at most ``limit`` bytes, or for each why it was not given, in the order of ``paths``.

    While one wave's contents are on their way, the next wave is opened.
    """
    waves = [paths[start : start + WAVE] for start in range(0, len(paths), WAVE)]
    found: list[bytes | FileRefused] = []
    opening = _ask(sftp, [(path, _open(path)) for path in waves[0]]) if waves else []
    for following in [*waves[1:], []]:
        handles = _handles(sftp, opening, "open")
        requests: list[bytes] = []
        asked: list[tuple[int, int, int]] = []
        for _, handle in handles:
            if isinstance(handle, bytes):
                looked, one = sftp.request(Kind.FSTAT, text(handle))
                read, two = sftp.request(Kind.READ, text(handle), long(0), word(min(sftp.block, limit + 1)))
                closed, three = sftp.request(Kind.CLOSE, text(handle))
                requests += [one, two, three]
                asked.append((looked, read, closed))
        opening = _ask(sftp, [(path, _open(path)) for path in following], requests)
        answers = iter(asked)
        for path, handle in handles:
            if isinstance(handle, bytes):
                found.append(_content(sftp, path, *next(answers), limit))
            else:
                found.append(handle)
    return found


def _content(sftp: Sftp, path: bytes, looked: int, read: int, closed: int, limit: int) -> bytes | FileRefused:
    """Takes the answers about one file."""
    answers = [sftp.answer(number) for number in (looked, read, closed)]
    try:
        size = sftp.expect(Kind.ATTRS, *answers[0], path, "look at").attributes().size
        kind, body = answers[1]
        if kind == Kind.STATUS and Reader(body).word() == Status.EOF:
            data = b""
        else:
            data = sftp.expect(Kind.DATA, kind, body, path, "read").text()
        if len(data) < size <= limit:  # more than one answer holds: the rest of it by itself
            data = b"".join(sftp.read_file(path, limit + 1))
        if max(len(data), size) > limit:
            raise FileRefused(
                f"{shown(path)!r} on {sftp.where} has more than {limit} bytes: too long to read",
                errno=errno.EFBIG, path=shown(path),
            )  # fmt: skip
    except FileRefused as error:
        return error
    return data


def list_folders(sftp: Sftp, paths: Sequence[bytes]) -> list[list[Entry] | FileRefused]:
    """What folders hold, or for each why it was not told, in the order of ``paths``."""
    found: list[list[Entry] | FileRefused] = []
    for start in range(0, len(paths), WAVE):
        wave = paths[start : start + WAVE]
        handles = _handles(sftp, _ask(sftp, [(path, (Kind.OPENDIR, text(path))) for path in wave]), "list the folder")
        names: list[list[Entry] | FileRefused] = [[] if isinstance(one, bytes) else one for _, one in handles]
        opened = {number: text(one) for number, (_, one) in enumerate(handles) if isinstance(one, bytes)}
        left = list(opened)
        while left:
            requests = [(wave[number], (Kind.READDIR, opened[number])) for number in left for _ in range(AT_ONCE)]
            left = _take_names(sftp, left, _ask(sftp, requests), names)
        for _, number in _ask(sftp, [(wave[number], (Kind.CLOSE, one)) for number, one in opened.items()]):
            sftp.answer(number)
        found += names
    return found


def _take_names(sftp: Sftp, left: list[int], asked: Asked, names: list[list[Entry] | FileRefused]) -> list[int]:
    """Takes the answers about folders; those that have more to tell."""
    ended: set[int] = set()
    for place, (path, number) in enumerate(asked):
        folder = left[place // AT_ONCE]
        kind, body = sftp.answer(number)
        into = names[folder]
        if kind == Kind.STATUS and Reader(body).word() == Status.EOF:
            ended.add(folder)
        elif isinstance(into, list):
            try:
                into += sftp.names(kind, body, path)
            except FileRefused as error:
                names[folder] = error
                ended.add(folder)
    return [folder for folder in left if folder not in ended]


def remove_files(sftp: Sftp, paths: Sequence[bytes]) -> None:
    """Removes files; those that are not there are fine. Raises FileRefused for the first that was refused."""
    refused: FileRefused | None = None
    for start in range(0, len(paths), REMOVALS):
        asked = _ask(sftp, [(path, (Kind.REMOVE, text(path))) for path in paths[start : start + REMOVALS]])
        for path, number in asked:
            kind, body = sftp.answer(number)
            if kind == Kind.STATUS and Reader(body).word() == Status.NO_SUCH_FILE:
                continue
            try:
                sftp.expect(Kind.STATUS, kind, body, path, "remove")
            except FileRefused as error:
                refused = refused or error
    if refused is not None:
        raise refused


def _open(path: bytes) -> Request:
    return Kind.OPEN, text(path) + word(Open.READ) + NO_ATTRIBUTES


def _ask(sftp: Sftp, wanted: Sequence[tuple[bytes, Request]], before: Sequence[bytes] = ()) -> Asked:
    """Sends requests, after those that are made already, all at once."""
    made = [(path, sftp.request(kind, fields)) for path, (kind, fields) in wanted]
    data = b"".join([*before, *(data for _, (_, data) in made)])
    if data:
        sftp.dispatch(data)
    return [(path, number) for path, (number, _) in made]


def _handles(sftp: Sftp, asked: Asked, doing: str) -> list[tuple[bytes, bytes | FileRefused]]:
    """Takes the answers to requests for handles."""
    found: list[tuple[bytes, bytes | FileRefused]] = []
    for path, number in asked:
        kind, body = sftp.answer(number)
        try:
            found.append((path, sftp.expect(Kind.HANDLE, kind, body, path, doing).text()))
        except FileRefused as error:
            found.append((path, error))
    return found
