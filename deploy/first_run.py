#!/usr/bin/env python3
"""From a fresh clone to a running chain, with nothing but Python 3.11 or newer.

    python3 deploy/first_run.py demo [ARGUMENTS]    set up, then `orchestrator demo ARGUMENTS`
    python3 deploy/first_run.py test [ARGUMENTS]    set up with the test tools, then all tests (`pytest ARGUMENTS`)
    python3 deploy/first_run.py run  ARGUMENTS      set up, then `orchestrator ARGUMENTS`
    python3 deploy/first_run.py setup               set up only

Setting up makes the virtual environment `.venv` in the clone and installs the project into it; it is done again only
when setup.cfg, pyproject.toml or Python itself have changed. Only the standard library is used here, and nothing
outside the clone is written (but for pip's own cache).
"""

# No newer syntax than Python 3.6 in this file: an old Python must be able to read it in order to be refused in words.

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

NEEDED = (3, 11)
CLONE = Path(__file__).resolve().parent.parent
ENVIRONMENT = CLONE / ".venv"
STAMP = ENVIRONMENT / "first-run-stamp"
NETWORK_WORDS = (
    "NewConnectionError", "name resolution", "Failed to establish", "Connection refused", "ConnectTimeout",
    "Network is unreachable", "ProxyError", "ReadTimeout", "SSLError", "No matching distribution", "No route to host",
)  # fmt: skip


def main(words):
    """Do what the words say; the exit code."""
    if len(words) < 1 or words[0] not in ("demo", "test", "run", "setup"):
        print(__doc__.strip())
        return 0 if words[:1] in (["-h"], ["--help"]) else 2
    what, rest = words[0], words[1:]
    python = set_up(tests=what == "test")
    if what == "setup":
        say("ready: " + str(python.parent / "orchestrator"))
        return 0
    environment = dict(os.environ, PYTHONNOUSERSITE="1")
    if what == "test":
        command = [str(python), "-m", "pytest", *rest]
        os.chdir(str(CLONE))
    else:
        command = [str(python), "-P", "-m", "orchestrator.cli"] + (["demo"] if what == "demo" else []) + rest
    sys.stdout.flush()
    os.execve(command[0], command, environment)  # Ctrl-C and exit codes are the command's own from here on
    return None


def set_up(tests):
    """Make the environment where it is missing or out of date. Returns its Python."""
    if sys.version_info < NEEDED:
        fail(
            "Python {}.{} or newer is needed, and this is {}.{} ({}). Install a newer one and start this with it, "
            "such as: python3.11 deploy/first_run.py".format(*NEEDED, *sys.version_info[:2], sys.executable)
        )
    python = ENVIRONMENT / "bin" / "python"
    extras = "[test]" if tests else ""
    wanted = fingerprint()
    have = STAMP.read_text().split() if STAMP.exists() else []
    if have[:1] == [wanted] and (not tests or "test" in have[1:]) and works(python):
        fetch_jsroot()
        return python
    started = time.monotonic()
    if not works(python):
        make_environment()
    say("installing the project into " + str(ENVIRONMENT) + " (a minute or two the first time)")
    install(python, extras or ("[test]" if "test" in have[1:] else ""))
    STAMP.write_text(wanted + (" test" if tests or "test" in have[1:] else "") + "\n")
    fetch_jsroot()
    say(f"installed in {time.monotonic() - started:.0f} s")
    return python


def fetch_jsroot():
    """What draws the control room's plots; the installation has brought it, unless npm was missing at that time."""
    script = CLONE / "deploy" / "jsroot.py"
    if script.exists() and not (CLONE / "orchestrator" / "web" / "static" / "jsroot" / "jsroot.min.js").exists():
        subprocess.call([sys.executable, str(script)])


def fingerprint():
    """What the environment depends on, in one word."""
    digest = hashlib.sha256(repr((sys.version_info[:2], str(CLONE))).encode())
    for name in ("setup.cfg", "pyproject.toml"):
        digest.update((CLONE / name).read_bytes())
    return digest.hexdigest()[:16]


def works(python):
    """Whether the environment's Python is there, runs, is new enough and has pip."""
    if not python.exists():
        return False
    code = f"import sys, pip; sys.exit(sys.version_info < {NEEDED})"
    try:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.call([str(python), "-c", code], cwd=str(CLONE), **quiet) == 0
    except OSError:
        return False


def make_environment():
    """A new, empty virtual environment."""
    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if missing:
        fail(
            f"this Python lacks the module {missing[0]}, which makes virtual environments. On Debian and Ubuntu: "
            "apt-get install python3-venv; elsewhere install Python from its own packages."
        )
    say("making a virtual environment in " + str(ENVIRONMENT))
    try:
        if ENVIRONMENT.exists():
            shutil.rmtree(str(ENVIRONMENT))
        made = subprocess.run(
            [sys.executable, "-m", "venv", str(ENVIRONMENT)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
    except OSError as error:
        fail(f"{error.filename or ENVIRONMENT}: {error.strerror}. The clone's folder must be writable.")
    if made.returncode != 0:
        hint = "apt-get install python3-venv" if "ensurepip" in made.stdout else "is the clone's folder writable?"
        fail(f"the virtual environment could not be made ({hint}):\n{made.stdout.strip()}")


def install(python, extras):
    """The project and what it needs, in place (editable): a change of the clone takes effect at once."""
    command = [
        str(python), "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check",
        "--progress-bar", "off", "--editable", str(CLONE) + extras,
    ]  # fmt: skip
    environment = dict(os.environ, PYTHONNOUSERSITE="1", PIP_ROOT_USER_ACTION="ignore")
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        command, cwd=str(CLONE), env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    if done.returncode == 0:
        return
    tail = "\n".join("    " + line for line in done.stdout.strip().splitlines()[-12:])
    if any(word in done.stdout for word in NETWORK_WORDS):
        hint = (
            "the packages could not be fetched. Is the network there? Behind a proxy set HTTPS_PROXY; with a mirror "
            "set PIP_INDEX_URL; then start this again."
        )
    elif "No space left" in done.stdout:
        hint = f"the disk is full: about 700 MB are needed in {CLONE}."
    else:
        hint = "pip could not install the project."
    fail(f"{hint}\npip said:\n{tail}")


def say(text):
    """A line on what happens."""
    print("first run: " + text, flush=True)


def fail(text):
    """End with a sentence."""
    sys.stdout.flush()
    sys.stderr.write("first run: " + text + "\n")
    sys.exit(1)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.stderr.write("first run: stopped; start it again to go on\n")
        sys.exit(130)
