"""Processes that end with the one that started them, so that kill -9 of a parent leaves no orphan at work."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform.startswith("linux") else None


def die_with_parent(number: signal.Signals = signal.SIGKILL) -> None:
    """Ask the kernel to send this process ``number`` when its parent dies (Linux; elsewhere it does nothing).

    The kernel means the *thread* that started this process: start workers from a thread that lives as long as they do.
    """
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)


def orphaned(parent: int) -> bool:
    """Whether ``parent``, this process's parent by its own account, is gone already."""
    return os.getppid() != parent
