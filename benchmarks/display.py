"""How soon a published plot is at its viewers, and what a hundred of them cost.

    python benchmarks/display.py                                     # 100 viewers, 20 plots, 10 a second, 60 s
    python benchmarks/display.py --viewers 100 --seconds 3600 --json display.json

Starts the broadcast and the display as processes of their own, publishes `--plots` plots `--rate` times a second, and
connects `--viewers` viewers, each of which shows all plots and takes them every 0.1 s. In reality each viewer has a
machine of its own; here `--measured` of them unpack what they get and look at the time, in a process of their own, and
the others only read, in another. Some further ones (`--stuck`) connect and never read.

Measured, after `--warm` seconds: the time from handing a plot to the publisher until the viewer has unpacked its event;
the display's resident memory and its processor time. The viewer's period is part of the time: a plot that comes just
after another waits for it, half a period on average. With `--browser` one more viewer is a real browser (Debian's
chromium, driven by playwright) that shows `--plots` plots on one canvas, and its time is until JSROOT has drawn them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import re
import socket
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

import hist
import numpy as np
import psutil
from common import free_ports

from orchestrator.online import rootjson
from orchestrator.online.presenting import iso
from orchestrator.online.publication import Header
from orchestrator.online.publishing import Publisher

RUN = "6008"
SENT = re.compile(rb'"sent":([0-9.]+)')


async def view(port: int, names: list[str], period: float, late: list[float] | None, since: float, stop: float) -> int:
    """One viewer: reads its stream and, given ``late``, notes how old each plot is. Returns the bytes it was sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**22)
    query = "&".join(f"plots={name}" for name in names)
    request = f"GET /events?period={period}&{query} HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\n\r\n"
    writer.write(request.encode())
    await reader.readuntil(b"\r\n\r\n")
    unpack = zlib.decompressobj(31)
    size, rest = 0, b""
    while time.time() < stop:
        try:
            length = int(await asyncio.wait_for(reader.readline(), 10), 16)
            piece = (await reader.readexactly(length + 2))[:-2]
        except (TimeoutError, ValueError, asyncio.IncompleteReadError):
            break
        size += length
        if late is None:
            continue
        rest += unpack.decompress(piece)
        whole, _, rest = rest.rpartition(b"\n\n")
        now = time.time()
        if now >= since:
            late.extend(now - float(found) for found in SENT.findall(whole))
    writer.close()
    return size


def viewers(
    port: int, count: int, names: list[str], period: float, since: float, stop: float, answer: Any, measured: bool
) -> None:
    """Some viewers, in a process of their own."""

    async def all_of_them() -> None:
        late: list[float] = []
        sizes = await asyncio.gather(
            *(view(port, names, period, late if measured else None, since, stop) for _ in range(count))
        )
        answer.put((late, sum(sizes)))

    asyncio.run(all_of_them())


def browse(port: int, since: float, stop: float, answer: Any) -> None:
    """A real browser, in a process of its own: how old each plot is when it has been drawn."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox", "--headless"])
        page = browser.new_page(viewport={"width": 1920, "height": 1080})
        page.set_default_timeout(120_000)
        page.goto(f"http://127.0.0.1:{port}/?reload=0.1")
        page.wait_for_selector(".plot svg")
        page.evaluate(
            """() => { window.late = []; const paint = window.room.Plot.prototype.paint;
            window.room.Plot.prototype.paint = async function () { const { header } = this.data;
              await paint.call(this); window.late.push(Date.now() - Date.parse(header.output_time)); } }"""
        )
        page.wait_for_timeout(max(0.0, since - time.time()) * 1000)
        page.evaluate("window.late = []")
        page.wait_for_timeout(max(0.0, stop - 1 - time.time()) * 1000)
        answer.put([float(value) for value in page.evaluate("window.late")])
        browser.close()


def spread(values: list[float]) -> dict[str, float] | None:
    """What is said of many times, in ms."""
    if not values:
        return None
    found = np.array(values)
    said = {f"p{part}": round(float(np.percentile(found, part)), 1) for part in (50, 95, 99)}
    return said | {"max": round(float(found.max()), 1)}


def bodies(count: int) -> list[bytes]:
    """Histograms as an experiment has them: most of a hundred bins, every fifth of 64 x 32."""
    random = np.random.default_rng(1)
    made = []
    for number in range(count):
        if number % 5 == 4:
            one = hist.Hist(hist.axis.Regular(64, 0, 64), hist.axis.Regular(32, 0, 32))
            one.fill(random.normal(32, 9, 20_000), random.normal(16, 5, 20_000))
        else:
            one = hist.Hist(hist.axis.Regular(100, 0, 10))
            one.fill(random.gamma(4, 1, 50_000))
        made.append(rootjson.dumps(one, f"h{number}", f"Histogram {number}"))
    return made


def main() -> None:
    """Run it and say what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--viewers", type=int, default=100)
    parser.add_argument("--measured", type=int, default=5, help="of the viewers, how many look at the time")
    parser.add_argument("--plots", type=int, default=20)
    parser.add_argument("--rate", type=float, default=10.0, help="publications of every plot, a second")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--warm", type=float, default=10.0)
    parser.add_argument("--period", type=float, default=0.1, help="a viewer's refresh period, s")
    parser.add_argument("--stuck", type=int, default=5, help="viewers that connect and never read")
    parser.add_argument("--browser", action="store_true", help="one more viewer, a real browser")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = run(Path(folder), given)
    print(json.dumps(result, indent=2))
    if given.json:
        given.json.write_text(json.dumps(result, indent=2) + "\n")


def run(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """One measurement."""
    publish, subscribe, web = free_ports(3)
    (folder / "online.yaml").write_text(
        f"input: {{module: 'x:Y'}}\nweb_port: {web}\nbroadcast: {{publish: 'tcp://127.0.0.1:{publish}', "
        f"subscribe: 'tcp://127.0.0.1:{subscribe}'}}\n"
    )
    command = [sys.executable, "-m", "orchestrator.cli", "-C", str(folder), "online"]
    daemons = [subprocess.Popen([*command, name], stderr=subprocess.DEVNULL) for name in ("broadcast", "display")]
    try:
        wait_for(web)
        with Publisher(f"tcp://127.0.0.1:{publish}") as publisher:
            return measure(publisher, psutil.Process(daemons[1].pid), web, given)
    finally:
        for daemon in daemons:
            daemon.terminate()
        for daemon in daemons:
            daemon.wait(20)


def wait_for(port: int) -> None:
    """Until something listens."""
    for _ in range(300):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit("the display did not start")


def measure(publisher: Publisher, display: psutil.Process, port: int, given: argparse.Namespace) -> dict[str, Any]:
    """Publish, let the viewers read, look at the display meanwhile."""
    names = [f"plot/{number}" for number in range(given.plots)]
    drawn = bodies(given.plots)
    start = time.time()
    since, stop = start + given.warm, start + given.warm + given.seconds
    stuck = []
    for _ in range(given.stuck):
        connection = socket.create_connection(("127.0.0.1", port))
        query = "&".join(f"plots={name}" for name in names)
        connection.sendall(f"GET /events?period=0.1&{query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        stuck.append(connection)
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    reading = [
        context.Process(
            target=viewers, args=(port, count, names, given.period, since, stop, answer, measured), daemon=True
        )
        for count, measured in ((given.measured, True), (given.viewers - given.measured, False))
    ]
    screen = context.Queue()
    looking = context.Process(target=browse, args=(port, since, stop, screen)) if given.browser else None
    for one in [*reading, *([looking] if looking else [])]:
        one.start()
    memory: list[tuple[float, float]] = []
    used, number, due = None, 0, time.time()
    while time.time() < stop:
        number += 1
        for name, body in zip(names, drawn, strict=True):
            now = time.time()
            header = Header(
                RUN, name, name, "bench", number, number, number, 1.0, None, iso(now) or "", verdict={"sent": now}
            )
            publisher.publish("plot", RUN, name, header, body)
        publisher.publish("counts", RUN, "", {"read": number, "done": number, "failed": 0, "pending": 0})
        if time.time() >= since:
            used = display.cpu_times() if used is None else used
            if not memory or time.time() - memory[-1][0] >= 1:
                memory.append((time.time(), display.memory_info().rss / 2**20))
        due += 1 / given.rate
        time.sleep(max(0.0, due - time.time()))
    after = display.cpu_times()
    answers = [answer.get(timeout=120) for _ in reading]
    late, size = [one for answer in answers for one in answer[0]], sum(answer[1] for answer in answers)
    for connection in stuck:
        connection.close()
    drawn_late = None if looking is None else screen.get(timeout=120)
    megabytes = np.array([value for _, value in memory])
    half = max(1, len(megabytes) // 2)
    return {
        "viewers": given.viewers, "measured": given.measured, "stuck": given.stuck, "plots": given.plots,
        "rate": given.rate, "period_ms": given.period * 1000, "seconds": given.seconds,
        "published": number * given.plots,
        "received": len(late), "latency_ms": spread([1000 * value for value in late]),
        "browser": None if drawn_late is None else {"drawn": len(drawn_late), "latency_ms": spread(drawn_late)},
        "memory_MiB": {"first_half": round(float(megabytes[:half].mean()), 1),
                       "second_half": round(float(megabytes[half:].mean()), 1),
                       "max": round(float(megabytes.max()), 1)},
        "cores_used": round((after.user + after.system - used.user - used.system) / given.seconds, 3) if used else None,
        "sent_MB_per_s": round(size / 1e6 / (given.seconds + given.warm), 2),
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]},
    }  # fmt: skip


if __name__ == "__main__":
    main()
