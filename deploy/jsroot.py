#!/usr/bin/env python3
"""Put JSROOT, which draws the control room's plots, among the pages' own files. Does nothing where it is there already.

    python3 deploy/jsroot.py

It comes with npm, as the package `jsroot`, when the project is installed from its sources or a wheel is made of it; a
wheel has it inside, so users need no Node. Only the built script and its licence are kept. Without npm everything
works but the plots of the control room are pictures. Only the standard library is used here.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

VERSION = "7.11.2"
#: Of the script in that version: another one is not taken, whoever serves it.
SHA256 = "1cc6373cc6dad134d1cdd56a3dedeb7aa97e3a771d1931c631c14f57aa90d838"
SCRIPT = "jsroot.min.js"
WANTED = {"package/build/" + SCRIPT: SCRIPT, "package/LICENSE": "LICENSE"}
FOLDER = Path("orchestrator", "web", "static", "jsroot")
#: For npm, in seconds.
PATIENCE = 120


def there(clone):
    """Whether the script is there, in the right version."""
    try:
        return hashlib.sha256((clone / FOLDER / SCRIPT).read_bytes()).hexdigest() == SHA256
    except OSError:
        return False


def fetch(clone):
    """Put it there. Returns an empty string, or a sentence that says why it could not be done."""
    if there(clone):
        return ""
    npm = shutil.which("npm")
    if npm is None:
        return "npm is not installed (on Debian and Ubuntu: apt-get install npm)"
    folder = clone / FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch:
            return _fetch(npm, Path(scratch), folder)
    except OSError as error:
        return f"{error.filename or folder}: {error.strerror}"


def _fetch(npm, scratch, folder):
    command = [npm, "pack", "jsroot@" + VERSION, "--silent", "--ignore-scripts"]
    try:
        done = subprocess.run(
            command, cwd=str(scratch), stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"npm did not answer within {PATIENCE} s: is the network there?"
    packed = sorted(scratch.glob("jsroot-*.tgz"))
    if done.returncode != 0 or not packed:
        words = done.stderr.decode("utf-8", "replace").split()
        return "npm could not fetch it: " + (" ".join(words)[-300:] or "it does not say why")
    found = {}
    with tarfile.open(str(packed[0])) as archive:
        for member in archive:
            if member.name in WANTED and member.isfile():
                found[WANTED[member.name]] = archive.extractfile(member).read()
    if set(found) != set(WANTED.values()) or hashlib.sha256(found[SCRIPT]).hexdigest() != SHA256:
        return f"what npm brought is not jsroot {VERSION} as it was published"
    for name, data in sorted(found.items()):  # the licence first: the script is what shows that all is there
        temporary = folder / f".{name}.{os.getpid()}"
        temporary.write_bytes(data)
        os.replace(str(temporary), str(folder / name))  # noqa: PTH105
    return ""


def fetch_or_say(clone):
    """The same for those who go on without it: the reason goes to standard error."""
    reason = fetch(clone)
    if reason:
        sys.stderr.write(
            f"the control room's plots will be pictures, for JSROOT is missing: {reason}. "
            "When that is mended: python3 deploy/jsroot.py\n"
        )
    return not reason


if __name__ == "__main__":
    sys.exit(0 if fetch_or_say(Path(__file__).resolve().parent.parent) else 1)
