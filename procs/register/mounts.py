"""Which file systems tell about every change: those of this machine, not those that another machine can write to."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

#: File systems that others can write to without this kernel noticing. Anything behind FUSE counts as such.
REMOTE: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb2", "smb3", "smbfs", "afs", "9p", "ncpfs", "coda", "virtiofs", "vboxsf", "prl_fs"}
    | {"lustre", "gpfs", "mmfs", "beegfs", "ceph", "glusterfs", "panfs", "ocfs2", "gfs2", "pvfs2", "orangefs", "acfs"}
)

MOUNTS: Final = Path("/proc/self/mounts")


def _unescaped(text: str) -> str:
    """A field of the table of mounts: spaces and such stand there as three octal digits after a backslash."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def file_system(path: str, table: str) -> str | None:
    """The type of the file system that ``path`` (absolute, no symbolic links) is on, from the table of mounts' text.

    Of several that fit, the longest mount point holds, and of equal ones the last that was mounted.
    """
    best: tuple[int, str] | None = None
    for line in table.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = _unescaped(fields[1]).rstrip("/")
        fits = path == point or path.startswith(point + "/")
        if fits and (best is None or len(point) >= best[0]):
            best = (len(point), fields[2])
    return best[1] if best else None


def has_events(path: str, table: Path = MOUNTS) -> bool:
    """Whether file system events can be relied on in the folder ``path``; False where that cannot be found out."""
    try:
        text = table.read_bytes().decode("utf-8", "surrogateescape")
        kind = file_system(str(Path(path).resolve()), text)
    except (OSError, RuntimeError):
        return False
    return kind is not None and kind not in REMOTE and not kind.startswith("fuse")
