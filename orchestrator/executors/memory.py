"""How much memory a process and all that it has started hold: by psutil, or by /proc where a farm's Python has none."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

try:
    import psutil
except ImportError:  # a batch job's Python may have nothing but the standard library
    psutil = None


def resident(pid: int) -> int:
    """Resident memory of a process and of all that it started, in bytes; 0 if it is gone."""
    return by_proc(pid) if psutil is None else _by_psutil(pid)


def _by_psutil(pid: int) -> int:
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
    except psutil.Error:
        return 0
    total = 0
    for member in family:
        with contextlib.suppress(psutil.Error):
            total += member.memory_info().rss
    return total


def by_proc(pid: int) -> int:
    """The same from /proc (man 5 proc: stat has the parent in field 4, the resident pages in field 24); Linux only."""
    pages: dict[int, int] = {}
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            # the name, in brackets, may hold anything: what follows its last bracket begins with field 3
            fields = stat.read_text(errors="replace").rpartition(")")[2].split()
            number = int(stat.parent.name)
            pages[number] = int(fields[21])
            children.setdefault(int(fields[1]), []).append(number)
    total, waiting = 0, [pid]
    while waiting:
        number = waiting.pop()
        total += pages.get(number, 0)
        waiting += children.pop(number, [])
    return total * os.sysconf("SC_PAGE_SIZE")
