"""Sending files over SSH: the step procs.sftp:Transfer against sftp, scp and rsync, in the same run.

    sudo python benchmarks/transfer.py                       one file of 1 GB, and 1,000 files of 100 kB
    sudo python benchmarks/transfer.py --large 200 --files 100 --rounds 1 --json results.json

It starts a real sshd on the loopback address (deploy/ssh/sshd.sh, hence root; needs openssh-server, openssh-client and
rsync), with the files of both sides in memory (/dev/shm), so that no disk is measured. "Step" is all of the step: the
checksum of the source, the transfer, the flush, size and checksum of the copy computed at the far end, and the rename.
None of the programs proves its copy; rsync has a checksum of its own in the stream. Where the far end has Python, the
step hands small files to that; "no Python there" is an account that has SFTP and nothing else, from where small copies
are read back to prove them.

The ways take turns, each round beginning with another one, after a first copy that is not counted. "Of sftp" is the
median of what each round gives by itself, so that other work on the machine, which comes and goes, weighs on both.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common

from orchestrator.step import Work
from procs.sftp import Transfer

SSHD = Path(__file__).parent.parent / "deploy" / "ssh" / "sshd.sh"
USER = "sshtest"


class Server:
    """A real sshd, and how its clients reach it."""

    def __init__(self, folder: Path, *words: str) -> None:
        """``words``: for sshd.sh."""
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._environment = {**os.environ, "PORT": str(self.port), "SSH_USER": USER}
        self.call("up", *words)

    def call(self, action: str, *words: str) -> None:
        command = [SSHD, action, self.folder, *words]
        subprocess.run(command, env=self._environment, check=True, stdout=subprocess.DEVNULL)

    @property
    def options(self) -> list[str]:
        return [
            "-F", "none", "-i", str(self.folder / "id_ed25519"),
            "-o", f"UserKnownHostsFile={self.folder / 'known_hosts'}",
            "-o", "StrictHostKeyChecking=yes", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
        ]  # fmt: skip

    @property
    def access(self) -> dict[str, Any]:
        return {
            "host": "127.0.0.1", "port": self.port, "user": USER, "agent": False,
            "known_hosts": str(self.folder / "known_hosts"), "key": str(self.folder / "id_ed25519"),
        }  # fmt: skip


def sftp(server: Server, sources: list[Path], target: Path, *more: str) -> None:
    """All files by one ``sftp -b``."""
    batch = "".join(f"put {source} {target}/{source.name}\n" for source in sources)
    command = ["sftp", "-q", *more, *server.options, "-P", str(server.port), "-b", "-", f"{USER}@127.0.0.1"]
    subprocess.run(command, input=batch, text=True, check=True, stdout=subprocess.DEVNULL)


def scp(server: Server, sources: list[Path], target: Path) -> None:
    """All files by one ``scp``."""
    command = ["scp", "-q", *server.options, "-P", str(server.port), *map(str, sources), f"{USER}@127.0.0.1:{target}/"]
    subprocess.run(command, check=True)


def rsync(server: Server, sources: list[Path], target: Path) -> None:
    """All files by one ``rsync``."""
    remote = " ".join(["ssh", "-p", str(server.port), *server.options])
    command = ["rsync", "-W", "-e", remote, *map(str, sources), f"{USER}@127.0.0.1:{target}/"]
    subprocess.run(command, check=True)


def step(server: Server, sources: list[Path], target: Path) -> None:
    """All files by one worker's step."""
    made = Transfer({"access": server.access, "output": str(target)}, logging.getLogger("benchmark"))
    for source in sources:
        work = Work({}, target, target, uuid.uuid4().hex, logging.getLogger("benchmark"), str(source))
        made.process({"_id": source.name, "run_name": "run", "file": str(source)}, work)
    made.close()


def two_workers(server: Server, sources: list[Path], target: Path) -> None:
    """The same by two workers, as a poller has them: processes of their own."""
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=step, args=(server, sources[n::2], target)) for n in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        if worker.exitcode:
            raise SystemExit("a worker failed")


def measure(
    ways: dict[str, Callable[[list[Path], Path], None]], sources: list[Path], root: Path, rounds: int
) -> dict[str, list[float]]:
    """Seconds of each way, round by round, always into an empty folder."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    order = list(ways.items())
    for turn in range(-1, rounds):  # what comes first pays for memory that the machine has not touched yet
        for name, way in [*order[turn:], *order[:turn]] if turn >= 0 else order[:1]:
            target = root / "target"
            target.mkdir()
            shutil.chown(target, USER)
            began = time.monotonic()
            way(sources, target)
            if turn >= 0:
                taken[name].append(time.monotonic() - began)
            copies = [path for path in target.rglob("*") if path.is_file()]
            if sorted(p.stat().st_size for p in copies) != sorted(p.stat().st_size for p in sources):
                raise SystemExit(f"{name}: not all files arrived whole")
            shutil.rmtree(target)
    return taken


def fill(folder: Path, count: int, size: int) -> list[Path]:
    """Files of random bytes."""
    folder.mkdir()
    paths = []
    for number in range(count):
        path = folder / f"ma22a000_{number:04d}"
        with path.open("wb") as stream:
            for start in range(0, size, 1 << 20):
                stream.write(os.urandom(min(1 << 20, size - start)))
        paths.append(path)
    return paths


def shown(title: str, taken: dict[str, list[float]], total: int, count: int) -> dict[str, Any]:
    """The table of one comparison. The first way is the baseline."""
    base = next(iter(taken.values()))
    rows = [
        [
            name, common.spread(seconds), common.spread([total / one / 1e6 for one in seconds]),
            common.spread([count / one for one in seconds]),
            common.spread([theirs / ours for theirs, ours in zip(base, seconds, strict=True)]),
        ]
        for name, seconds in taken.items()
    ]  # fmt: skip
    return common.table(
        title, ["", "s", "MB/s", "files/s", "of sftp"], rows,
        "Of sftp: so many times its speed, taken in each round by itself; more than 1 is faster. The step also proves "
        "each copy by a checksum at the far end, flushes it and renames it.",
    )  # fmt: skip


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--large", type=int, default=1000, help="size of the large file, MB; 0: leave it out")
    parser.add_argument("--files", type=int, default=1000, help="number of small files; 0: leave them out")
    parser.add_argument("--small", type=int, default=100, help="size of each, kB")
    given = parser.parse_args()
    if os.getuid() != 0:
        raise SystemExit("run it as root: it starts an sshd that logs in another account")
    for program in ("sftp", "scp", "rsync"):
        if shutil.which(program) is None:
            raise SystemExit(f"no {program} here: apt-get install openssh-client openssh-server rsync")
    memory = Path("/dev/shm")
    known = common.versions(["paramiko", "cryptography"])
    known |= {"openssh": common.first_line("ssh", "-V"), "rsync": common.first_line("rsync", "--version")}
    run = common.Run("transfer", __doc__, known)
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        root = Path(name)
        root.chmod(0o755)
        server = Server(root / "sshd")
        servers = [server]
        ways: dict[str, Callable[[list[Path], Path], None]] = {
            "sftp (its defaults)": lambda s, t: sftp(server, s, t),
            "sftp -c aes128-gcm@openssh.com": lambda s, t: sftp(server, s, t, "-c", "aes128-gcm@openssh.com"),
            "scp": lambda s, t: scp(server, s, t),
            "rsync -W": lambda s, t: rsync(server, s, t),
            "step, one worker": lambda s, t: step(server, s, t),
        }
        try:
            if given.large:
                sources = fill(root / "large", 1, given.large * 10**6)
                run.say(f"1 file of {given.large} MB")
                taken = measure(ways, sources, root, given.rounds)
                run.add(shown(f"1 file of {given.large} MB", taken, given.large * 10**6, 1))
                shutil.rmtree(root / "large")
            if given.files:
                ways["step, two workers"] = lambda s, t: two_workers(server, s, t)
                bare = Server(root / "bare", "--sftp-only")
                servers.append(bare)
                ways["step, one worker, no Python there"] = lambda s, t: step(bare, s, t)
                sources = fill(root / "small", given.files, given.small * 1000)
                run.say(f"{given.files} files of {given.small} kB")
                taken = measure(ways, sources, root, given.rounds)
                size = given.files * given.small * 1000
                run.add(shown(f"{given.files} files of {given.small} kB", taken, size, given.files))
        finally:
            for one in servers:
                one.call("down")
    run.end(given, draw)


def draw(result: dict[str, Any], path: Path) -> None:
    """Speeds as bars."""
    cells = {f"{table['title']}: {row[0]}": row[2] for table in result["tables"] for row in table["rows"]}
    common.bars(path, "Over SSH on the loopback address", "MB/s", cells)


if __name__ == "__main__":
    main()
