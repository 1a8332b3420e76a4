"""A long shift: ten spills a second, twenty plots, many viewers, run after run; nothing grows and nothing is lost.

    ORCHESTRATOR_LONG=1 pytest tests/system/online/test_soak.py -s
    ORCHESTRATOR_LONG=1 SOAK_SECONDS=14400 SOAK_VIEWERS=100 SOAK_FILE=soak.tsv pytest tests/system/online/test_soak.py

SOAK_FILE gets a line every ten seconds: the time, and the resident memory of each process in MB.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import uproot

from orchestrator.embedded.testing import EmbeddedServer

LONG = bool(os.environ.get("ORCHESTRATOR_LONG"))
SECONDS = float(os.environ.get("SOAK_SECONDS", "3600"))
VIEWERS = int(os.environ.get("SOAK_VIEWERS", "100"))
RATE = 10  # spills a second
RUN = int(max(50, min(3000, SECONDS * RATE / 6)))  # spills of one run: five minutes of an hour
PLOTS = 20
#: Factor, and MB, that a process may have grown between the third and the last quarter. What it loads at a run's first
#: end, and the caches of a database, are full by then.
GROWTH = 1.1, 10.0
SAMPLE = 10.0  # s

TWENTY = f"""

class Twenty(Folded):
    def plots(self):
        for number in range({PLOTS}):
            yield Plot(f"folded/{{number}}", f"Folded numbers {{number}}", self.held)
"""


class Viewers(threading.Thread):
    """So many that show all plots and read what they get."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._port = port
        self.bytes = [0] * VIEWERS
        self._over = threading.Event()

    def run(self) -> None:
        asyncio.run(self._all())

    def stop(self) -> None:
        self._over.set()
        self.join(20)

    async def _all(self) -> None:
        await asyncio.gather(*(self._one(number) for number in range(VIEWERS)))

    async def _one(self, number: int) -> None:
        query = "&".join(f"plots=folded/{plot}" for plot in range(PLOTS))
        asked = f"GET /events?period=1&{query} HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\n\r\n".encode()
        while not self._over.is_set():
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                writer.write(asked)
                while not self._over.is_set() and (found := await asyncio.wait_for(reader.read(1 << 16), 30)):
                    self.bytes[number] += len(found)
                writer.close()
            except (OSError, TimeoutError):
                await asyncio.sleep(1.0)


class Memory:
    """Of all processes of a site, by what they are."""

    def __init__(self, site: Any, server: int, file: str) -> None:
        self._site, self._server = site, server
        self.samples: dict[str, list[float]] = {}
        self._file = Path(file) if file else None
        self._begun = time.monotonic()

    def sample(self) -> None:
        found: dict[str, float] = {"database": _resident(self._server)}
        for process in psutil.process_iter(["pid", "cmdline"]):
            words = process.info["cmdline"] or []
            if str(self._site.folder) in words and "online" in words:
                found[_name(words[words.index("online") + 1 :])] = _resident(process.info["pid"])
        for name, size in found.items():
            self.samples.setdefault(name, []).append(size)
        if self._file is not None:
            line = "\t".join(f"{name}={size:.1f}" for name, size in sorted(found.items()))
            with self._file.open("a") as out:
                out.write(f"{time.monotonic() - self._begun:.0f}\t{line}\n")

    def grown(self) -> dict[str, tuple[float, float]]:
        """The processes that have grown, with their memory in the third and in the last quarter."""
        found = {}
        for name, sizes in self.samples.items():
            quarter = max(1, len(sizes) // 4)
            third, last = sorted(sizes[-2 * quarter : -quarter]), sorted(sizes[-quarter:])
            before, after = third[len(third) // 2], last[len(last) // 2]
            if after > GROWTH[0] * before + GROWTH[1]:
                found[name] = (before, after)
        return found


def _name(words: list[str]) -> str:
    if words[0] == "worker":
        return f"worker {words[words.index('--name') + 1]}"
    return " ".join(word for word in words[:2] if not word.startswith("-"))


def _resident(pid: int) -> float:
    try:
        return float(psutil.Process(pid).memory_info().rss) / 1e6
    except psutil.Error:
        return 0.0


@pytest.mark.system
@pytest.mark.skipif(not LONG, reason="works for an hour: ORCHESTRATOR_LONG=1")
@pytest.mark.timeout(SECONDS + 900)
def test_nothing_grows_and_nothing_is_lost_in_a_long_shift(online: Any, tmp_path: Path) -> None:
    runs = max(2, int(SECONDS * RATE / RUN))
    with (online.folder / "numbered.py").open("a") as modules:
        modules.write(TWENTY)
    with EmbeddedServer(tmp_path / "database") as server:
        (online.folder / "orchestrator.yaml").write_text(
            f"url: {server.url}\ncredentials: {server.credentials_file}\nembedded: never\n"
        )
        online.online["store"] = {"kind": "couch", "most": 2}
        online.online["input"]["settings"] = {"spills": RUN, "runs": runs, "words": 1000, "pause": 1 / RATE}
        online.online["reduce"][0] |= {"module": "numbered:Twenty", "refresh": {"seconds": 1.0}}
        online.start()
        memory = Memory(online, server.pid, os.environ.get("SOAK_FILE", ""))
        viewers = Viewers(online.online["web_port"])
        viewers.start()
        begun = time.monotonic()
        last = str(100 + runs - 1)
        snapshots = online.folder / "online" / "runs"
        while not (snapshots / last / "run.json").exists():
            assert time.monotonic() - begun < 1.5 * SECONDS + 600, online.logs()
            time.sleep(SAMPLE)
            memory.sample()
        viewers.stop()
        status = online.status()
        online.stop()
    for name, sizes in sorted(memory.samples.items()):
        steps = sizes[:: max(1, len(sizes) // 10)]
        print(f"{name:20s} " + " ".join(f"{size:6.1f}" for size in steps), "MB")
    seen = min(viewers.bytes) / 1e6
    print(f"{time.monotonic() - begun:.0f} s, {runs} runs, {seen:.1f} MB at least to each of {VIEWERS} viewers")
    assert memory.grown() == {}
    assert min(viewers.bytes) > 0
    assert all(one["restarts"] == 0 for one in status["system"]["children"])
    for number in range(runs):
        with uproot.open(snapshots / str(100 + number) / "folded.root") as file:
            assert file["folded/7"].values().sum() == RUN * 1000
