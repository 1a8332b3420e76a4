"""Plots as PNG, for browsers without scripts and for papers: made in a thread of their own, once for all viewers."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from orchestrator.online.drawing import draw
from orchestrator.web.online.board import Shown

#: Pictures of one plot are drawn at most so often, in seconds: one costs a tenth of a second of one core.
PERIOD = 2.0
#: Bytes of pictures that are kept.
MEMORY = 48 * 1024 * 1024
#: Sizes in pixels.
SIZES = {"large": (1280, 800), "medium": (800, 500)}


class Pictures:
    """PNG of plots as they are now, or were a moment ago."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pool = ThreadPoolExecutor(1, "pictures")
        self._kept: OrderedDict[tuple[str, str, str], tuple[float, int, bytes]] = OrderedDict()
        self._drawing: dict[tuple[str, str, str], asyncio.Task[bytes]] = {}
        self._size = 0

    async def png(self, shown: Shown, size: str = "large") -> bytes:
        """The picture; one that was drawn a moment ago where there is one. Raises FormatError."""
        key = (shown.run, shown.name, size)
        kept = self._kept.get(key)
        if kept is not None and (kept[1] == shown.number or self._clock() - kept[0] < PERIOD):
            self._kept.move_to_end(key)
            return kept[2]
        task = self._drawing.get(key)
        if task is None:
            task = self._drawing[key] = asyncio.create_task(self._draw(key, shown, size))
            task.add_done_callback(lambda _: self._drawing.pop(key, None))
        return await asyncio.shield(task)

    async def _draw(self, key: tuple[str, str, str], shown: Shown, size: str) -> bytes:
        loop = asyncio.get_running_loop()
        made = await loop.run_in_executor(self._pool, draw, shown.header, shown.body, SIZES[size])
        old = self._kept.pop(key, None)
        self._size += len(made) - (len(old[2]) if old is not None else 0)
        self._kept[key] = (self._clock(), shown.number, made)
        while self._size > MEMORY:
            _, (_, _, dropped) = self._kept.popitem(last=False)
            self._size -= len(dropped)
        return made

    def close(self) -> None:
        """Draw no more."""
        self._pool.shutdown(wait=False, cancel_futures=True)
