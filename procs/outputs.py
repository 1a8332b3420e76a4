"""How a step puts a file where others will read it: whole, flushed and under its last name, or not at all.

Every step writes with :func:`atomic_output`. A process killed at any line leaves at most one ``.part`` file, whose
name carries the attempt, so that the clean-up command knows whose it was. A storage fault (full disk, read-only or
vanished file system) becomes a :class:`~orchestrator.errors.TransientError` with a sentence that names the file.

Names that come from a document (run names, file names, ids) go through :func:`safe_name` before they touch a path.
"""

from __future__ import annotations

import errno
import hashlib
import math
import os
import shutil
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from orchestrator.errors import DataError, TransientError
from orchestrator.filenames import text_of

NAME_LIMIT = 180  # bytes; file systems allow 255, and ".", ".<attempt: 32>.part" and suffixes must fit beside the name
PART = ".part"  # the suffix of every unfinished file

# What passes with time or by an operator's hand, not by looking at the data.
PASSING = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission is denied",
    errno.EPERM: "the operation is not permitted",
    errno.ESTALE: "the network file system lost the file (stale handle)",
    errno.EIO: "the disk reported an input/output error",
    errno.ENODEV: "the device is away",
    errno.ENXIO: "the device is away",
    errno.ETIMEDOUT: "the file system did not answer in time",
    errno.EHOSTDOWN: "the file server is down",
    errno.EMFILE: "too many files are open",
    errno.ENFILE: "too many files are open on this machine",
}


def storage_fault(
    error: OSError, path: Path, doing: str = "writing", named: bool = True
) -> TransientError | DataError:
    """The sentence for an :class:`OSError` met at ``path``; what cannot pass with time is a DataError.

    With ``named`` the path that the error itself names comes before ``path``.
    """
    reason = PASSING.get(error.errno or 0)
    if named and isinstance(error.filename, str):
        path = Path(error.filename)
    if error.errno == errno.ENOENT and not path.parent.is_dir():
        reason = "its folder is not there (a file system that is not mounted?)"
    if reason is None:
        return DataError(f"{doing} {path} failed: {error.strerror or error}. Look at the path and its folder.")
    remedy = "Tried again later."
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        remedy = f"{free_space(path)} Make room or choose another output folder."
    elif error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        remedy = "Let the account that runs the steps write there, or choose another output folder."
    return TransientError(f"{doing} {path} failed: {reason}. {remedy}")


def free_space(path: Path) -> str:
    """How much room is left on the disk of ``path``, as a sentence (empty if that cannot be asked)."""
    for folder in (path, *path.parents):
        with suppress(OSError):
            usage = shutil.disk_usage(folder)
            return f"{usage.free / 1e6:.1f} of {usage.total / 1e6:.0f} MB are free on the disk of {folder}."
    return ""


@contextmanager
def storage(path: Path, doing: str = "writing") -> Iterator[None]:
    """Turn every :class:`OSError` inside into the project's own error about ``path``."""
    try:
        yield
    except OSError as error:
        raise storage_fault(error, path, doing) from error


@contextmanager
def atomic_output(
    path: Path, attempt: str, *, check: Callable[[Path], None] | None = None
) -> Iterator[Path]:
    """Give the name to write to; afterwards flush, check and rename it to ``path``.

    Args:
        path: the last name. Its folder is made.
        attempt: the attempt's id; it makes the temporary name ``.<name>.<attempt>.part`` in the same folder.
        check: called with the temporary file once it is on disk; raises if the file is not good enough.

    Raises:
        TransientError: full disk, no permission, file system away.
        Whatever the block or ``check`` raises; the temporary file is gone then.
    """
    temporary = path.with_name(f".{path.name}.{attempt}{PART}")
    with storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        try:
            yield temporary
            sync(temporary)
            if check is not None:
                check(temporary)
            temporary.replace(path)
            sync(path.parent)
        except BaseException as error:
            # Said before the file goes, so that the sentence tells how full the disk was.
            own = isinstance(error, OSError) and error.filename == str(temporary)
            fault = storage_fault(error, path, named=not own) if isinstance(error, OSError) else None
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            if fault is not None:
                raise fault from error
            raise


def sync(path: Path) -> None:
    """Flush a file's bytes, or a folder's names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems refuse to flush a folder; the rename is on its way all the same.
        if error.errno != errno.EINVAL or not path.is_dir():
            raise
    finally:
        os.close(handle)


def checksum(path: Path, algorithm: str = "sha256") -> str:
    """The file's checksum as ``<algorithm>:<hex>``, read in chunks."""
    with storage(path, "reading"), path.open("rb") as stream:
        return f"{algorithm}:{hashlib.file_digest(stream, algorithm).hexdigest()}"


@contextmanager
def summing(path: Path) -> Iterator[Future[str]]:
    """The checksum of a file, made in a thread while the block does something else; it is there after the block."""
    with ThreadPoolExecutor(1, "checksum") as pool:
        yield pool.submit(checksum, path)


def describe(path: Path) -> dict[str, Any]:
    """The three keys that a step's result lifts into the document: ``file``, ``size`` (bytes), ``checksum``."""
    return {"file": str(path), "size": path.stat().st_size, "checksum": checksum(path)}


def safe_name(text: str) -> str:
    """A file name made of a text that comes from a document; never a path.

    A name that is safe comes back as it is. In any other, what is unsafe (slashes, control characters, a leading dot)
    becomes ``_``, what is too long is cut, and eight hex digits of the text's checksum keep different texts apart.
    """
    raw = text.encode("utf-8", "surrogatepass")
    name = "".join("_" if _unsafe(character) else character for character in text).strip()
    if name.startswith("."):
        name = "_" + name[1:]
    short = name.encode("utf-8")[: NAME_LIMIT - 9].decode("utf-8", "ignore") if len(raw) > NAME_LIMIT else name
    if short == text and short:
        return short
    return f"{short or '_'}-{hashlib.sha256(raw).hexdigest()[:8]}"


def _unsafe(character: str) -> bool:
    # Cc control, Cs lone surrogate, Cf direction marks that make a name look like another, Zl/Zp line ends.
    return character in "/\\" or unicodedata.category(character) in ("Cc", "Cs", "Cf", "Zl", "Zp")


def inside(root: Path, path: Path) -> Path:
    """``path``, if it lies in ``root`` with all links followed.

    Raises:
        DataError: it lies elsewhere.
    """
    if not path.resolve().is_relative_to(root.resolve()):
        raise DataError(f"{path} lies outside of {root}: refused. Look at the names in the document.")
    return path


def place(
    output: Path,
    settings: Mapping[str, Any],
    default: str,
    document: Mapping[str, Any],
    name: str,
    suffix: str = "",
) -> Path:
    """Where a step's file for a document goes: ``<output>/<settings' output or default>/<run>/<name><suffix>``.

    Args:
        output: the site's data folder.
        settings: the step's settings; ``output`` may be absolute or relative to the site's data folder.
        default: the folder if the settings name none.
        document: its ``run_name`` names the sub-folder.
        name: the file's name, made safe here.
        suffix: what stays at its end whatever the name is, such as ``.root``.
    """
    root = output / str(settings.get("output", default))
    return inside(root, root / safe_name(str(document.get("run_name") or "no run")) / (safe_name(name) + suffix))


def plain(value: Any) -> Any:
    """``value`` as strict JSON can carry it: numpy numbers become Python's, NaN and infinity become None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return text_of(value)
    if hasattr(value, "tolist") and not isinstance(value, (str, bytes)):  # numpy's scalars and arrays
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
