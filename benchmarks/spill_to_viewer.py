"""How soon a spill is at a viewer: from its arrival at the input until the plot that holds it has been read.

    python benchmarks/spill_to_viewer.py                       # 10 spills a second for 60 s
    python benchmarks/spill_to_viewer.py --spills 300 --refresh 0.5 --json spill_to_viewer.json

Makes a site, starts its whole online system (socket, transform, two workers, a reducer, broadcast, display), has the
simulated DAQ send spills to the socket at a pace, and reads the display's events as a browser does. The time is taken
from the plot's `input_time`, when its newest spill came in. A plot is made anew every `--refresh` seconds, and a spill
waits for that; so what is beyond the refresh is the system's own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import threading
import time
from datetime import datetime
from pathlib import Path

import numpy as np
import requests
import yaml
from common import free_ports

TAKEN = re.compile(rb'"input_time":"([^"]+)"')
PLOT = "events/triggers"


def site(folder: Path, refresh: float) -> tuple[str, str]:
    """Write the site; the DAQ's address and that of the pages."""
    daq, workers, publish, subscribe, web = free_ports(5)
    content = {
        "title": "benchmark",
        "input": {"module": "procs.online.inputs.socket:SocketInput", "settings": {"address": f"tcp://127.0.0.1:{daq}"}},
        "map": [{"module": "procs.online.maps.date:Decode"}],
        "reduce": [{"name": "rates", "module": "procs.online.reducers.events:EventSizeRate",
                    "refresh": {"seconds": refresh}}],
        "workers": {"local": 2, "address": f"tcp://127.0.0.1:{workers}"},
        "broadcast": {"publish": f"tcp://127.0.0.1:{publish}", "subscribe": f"tcp://127.0.0.1:{subscribe}"},
        "store": {"kind": "memory"}, "web_port": web,
    }  # fmt: skip
    (folder / "online.yaml").write_text(yaml.safe_dump(content))
    return f"tcp://127.0.0.1:{daq}", f"http://127.0.0.1:{web}"


def wait_for(page: str, seconds: float = 30.0) -> None:
    """Until the display answers. Raises SystemExit where it does not."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        try:
            requests.get(f"{page}/healthz", timeout=5)
            return
        except requests.ConnectionError:
            time.sleep(0.1)
    raise SystemExit(f"the display at {page} does not answer")


def watch(page: str, late: list[float], stop: threading.Event) -> None:
    """Read the display's events, and note the age of each plot's newest spill."""
    seen = b""
    with requests.get(f"{page}/events", params={"period": 0.05, "plots": PLOT}, stream=True, timeout=30) as answer:
        for line in answer.iter_lines(chunk_size=1):
            now = time.time()
            for taken in TAKEN.findall(line):
                if taken != seen:
                    seen = taken
                    late.append(now - datetime.fromisoformat(taken.decode()).timestamp())
            if stop.is_set():
                return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spills", type=int, default=600)
    parser.add_argument("--pace", type=float, default=0.1, help="s between two spills")
    parser.add_argument("--refresh", type=float, default=0.2, help="s between two pictures of a plot")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    given = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, "-P", "-m", "orchestrator.cli", "-C", str(folder)]
        subprocess.run([*command, "init", str(folder)], check=True, stdout=subprocess.DEVNULL)
        daq, page = site(folder, given.refresh)
        subprocess.run([*command, "online", "start"], check=True, stdout=subprocess.DEVNULL)
        late: list[float] = []
        stop = threading.Event()
        try:
            wait_for(page)
            reader = threading.Thread(target=watch, args=(page, late, stop), daemon=True)
            reader.start()
            options = {"date_runs": 1, "date_spills": given.spills, "pace": given.pace, "socket": daq}
            words = [word for key, value in options.items() for word in ("--option", f"{key}={value}")]
            subprocess.run([*command, "simulate", str(folder / "daq"), "--runs", "0", *words], check=True,
                           stdout=subprocess.DEVNULL)  # fmt: skip
            time.sleep(2 * given.refresh + 1)
            stop.set()
        finally:
            subprocess.run([*command, "online", "stop"], check=False, stdout=subprocess.DEVNULL)
    if not late:
        raise SystemExit("no plot came: see how the online system starts (orchestrator online check)")
    spread = {f"p{q}": round(1000 * float(np.percentile(late, q)), 1) for q in (50, 95, 99, 100)}
    print(f"{given.spills} spills, one every {given.pace:g} s; plots every {given.refresh:g} s, {len(late)} seen")
    print(f"from arrival to viewer, ms: median {spread['p50']}, p95 {spread['p95']}, p99 {spread['p99']}, "
          f"max {spread['p100']} (the refresh is {1000 * given.refresh:g} of that at most)")  # fmt: skip
    result = {**vars(given), "json": None, "seen": len(late), "latency_ms": spread, "load": load,
              "cores": os.cpu_count(), "python": platform.python_version()}  # fmt: skip
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
