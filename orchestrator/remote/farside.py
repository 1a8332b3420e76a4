"""What runs at the farm: this file's own text, on the standard input of the farm's Python (`far.call`).

Nothing but the standard library of Python 3.11, and nothing of this project, since it may not be there yet. One order
comes in, one line of JSON goes out, marked, since a site's start-up files may print as well.
"""

from __future__ import annotations

import compileall
import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

MARK = "orchestrator-farside "
TRY = "import orchestrator.job, orchestrator.worker, orchestrator.version as v; print(v.VERSION)"
# Loads one step as the runner does, and says in one line what is wrong with it.
STEP = """
import sys
from orchestrator.step import find
sys.path += [p for p in sys.argv[2:] if p not in sys.path]
try:
    find(sys.argv[1])
except BaseException as error:
    deepest = error
    while deepest.__cause__ is not None:
        deepest = deepest.__cause__
    missing = getattr(deepest, "name", None) if isinstance(deepest, ModuleNotFoundError) else None
    print("missing " + missing if missing else " ".join(str(error).split())[:500] or type(error).__name__)
"""
STEP_LIMIT = 120.0  # s for loading one step; a shared file system is slow when it is cold
PIP_LIMIT = 1500.0  # s for installing packages


def main(order: dict[str, Any]) -> None:
    """Carry out one order and print what came of it."""
    work = {"install": install, "verify": verify, "imports": imports, "clean": clean, "spool": spool}[order["do"]]
    try:
        answer = work(order)
    except OSError as error:
        answer = {"error": f"{error.filename or 'the system'}: {error.strerror}"}
    sys.stdout.write("\n" + MARK + json.dumps(answer) + "\n")


# ---- installing


def install(order: dict[str, Any]) -> dict[str, Any]:
    """Unpack what was sent into the staging folder, add packages, try it, write the manifest."""
    staging = Path(order["staging"])
    with zipfile.ZipFile(staging / "package.zip") as archive:
        if sorted(archive.namelist()) != sorted(order["files"]):
            return {"error": "what arrived is not what was sent"}
        archive.extractall(staging)
    for name in ("lib", "steps", "packages"):
        (staging / name).mkdir(exist_ok=True)
    damaged = [name for name, total in order["files"].items() if digest(staging / name) != total]
    if damaged:
        return {"error": f"{damaged[0]} did not arrive as it was sent: is the disk in order?"}
    (staging / "package.zip").unlink()
    fault = packages(staging, order["packages"])
    if fault:
        return {"error": fault}
    shutil.rmtree(staging / "wheels", ignore_errors=True)
    for name in ("lib", "steps"):
        compileall.compile_dir(staging / name, quiet=2, workers=1)
    done = python(TRY, staging, ())
    if done.returncode != 0:
        return {"error": f"the runner does not start there: {last_line(done.stderr)}"}
    count, size = measure(staging / "packages")
    manifest = {**order["manifest"], "files": order["files"], "packages": {"files": count, "bytes": size}}
    with (staging / "manifest.json").open("w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    return {"version": done.stdout.strip(), "bytes": size, "steps": faults(order, staging)}


def packages(staging: Path, wanted: dict[str, Any]) -> str:
    """Install packages into the staging folder with pip; what is wrong, or nothing."""
    if not wanted["requirements"]:
        return ""
    if wanted.get("sibling"):
        shutil.copytree(
            Path(wanted["sibling"]) / "packages", staging / "packages", copy_function=_link, dirs_exist_ok=True
        )
        return ""
    wheels = staging / "wheels"
    own = sorted(wheels.glob("pip-*.whl"))
    pip = [sys.executable, str(own[-1] / "pip")] if own else [sys.executable, "-m", "pip"]
    if not own and subprocess.run([*pip, "--version"], capture_output=True, check=False).returncode != 0:
        return (
            f"{sys.executable} has no pip: put pip's own wheel with the others (pip download pip), "
            "or have python3-pip installed there"
        )
    words = [*pip, "--no-input", "--disable-pip-version-check"]
    if wanted["from"] == "wheels":
        words += ["--isolated", "--no-cache-dir", "install", "--no-index", "--find-links", str(wheels)]
    else:
        words += ["install"]
    words += ["--only-binary", ":all:", "--quiet", "--target", str(staging / "packages"), *wanted["requirements"]]
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PIP_LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        return f"pip did not end within {PIP_LIMIT:g} s"
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")] or done.stderr.splitlines()
        # An index's URL may carry a login.
        return "pip could not install the packages: " + re.sub(r"://[^/@\s]*@", "://...@", " ".join(said)[:600])
    return ""


def _link(source: str, target: str) -> None:
    """The same file under a second name: installed files never change. A copy where that cannot be."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def measure(folder: Path) -> tuple[int, int]:
    """How many files a folder holds, and their bytes; compiled ones do not count, since they come and go."""
    found = [p for p in folder.rglob("*") if p.is_file() and p.suffix != ".pyc"] if folder.is_dir() else []
    return len(found), sum(path.stat().st_size for path in found)


def digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def verify(order: dict[str, Any]) -> dict[str, Any]:
    """Whether an installed version is whole: what is missing or changed."""
    version = Path(order["folder"])
    try:
        manifest = json.loads((version / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return {"damage": "it is not there" if not version.exists() else f"manifest.json: {type(error).__name__}"}
    changed = [name for name, total in manifest["files"].items() if digest(version / name) != total]
    if changed:
        more = f", and {len(changed) - 1} more" if len(changed) > 1 else ""
        return {"damage": f"{changed[0]} is missing or changed{more}"}
    if measure(version / "packages") != (manifest["packages"]["files"], manifest["packages"]["bytes"]):
        return {"damage": "files in packages/ are missing or changed"}
    return {"manifest": manifest}


# ---- trying


def python(code: str, version: Path | None, words: tuple[str, ...], path: tuple[str, ...] = ()) -> Any:
    """Run a few lines as a job would find them: the version's folders on the path, the account's environment."""
    folders = [str(version / "lib"), str(version / "packages")] if version else []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*folders, *path])}
    command = [sys.executable, "-c", code, *words]
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", env=environment,
            timeout=STEP_LIMIT, check=False, cwd="/",
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"no end within {STEP_LIMIT:g} s")


def faults(order: dict[str, Any], version: Path | None) -> dict[str, str]:
    """What is wrong with each step there, by name; those in order are left out."""
    found = {}
    for name, step in order["steps"].items():
        if step.get("command"):
            word = step["command"]
            if "{" not in word and shutil.which(word) is None:
                found[name] = f"there is no executable {word!r}"
            continue
        modules = (str(version / "steps"),) if version else tuple(order.get("modules", ()))
        done = python(STEP, version, (step["run"], *modules), tuple(order.get("path", ())))
        said = last_line(done.stdout)
        if done.returncode != 0 or said:
            found[name] = said or last_line(done.stderr)
    return found


def imports(order: dict[str, Any]) -> dict[str, Any]:
    """Whether the runner starts, which version it is, and what is wrong with each step."""
    version = Path(order["folder"]) if order.get("folder") else None
    done = python(TRY, version, (), tuple(order.get("path", ())))
    if done.returncode != 0:
        return {"runner": last_line(done.stderr) or f"exit code {done.returncode}"}
    return {"version": last_line(done.stdout), "steps": faults(order, version)}


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:500] if lines else ""


def spool(order: dict[str, Any]) -> dict[str, Any]:
    """Whether a folder does what jobs ask of it: a name made exclusively by a hard link, a file in place of another."""
    first, second = Path(order["folder"]) / f".{order['name']}.1", Path(order["folder"]) / f".{order['name']}.2"
    answer: dict[str, Any] = {"umask": os.umask(0), "now": time.time()}
    os.umask(answer["umask"])
    try:
        first.write_bytes(b"1")
        try:
            second.hardlink_to(first)
            with contextlib.suppress(FileExistsError):
                second.hardlink_to(first)
                answer["link"] = "a second link of the same name was made"
        except OSError as error:
            answer["link"] = error.strerror
        first.replace(second)
    finally:
        first.unlink(missing_ok=True)
        second.unlink(missing_ok=True)
    return answer


# ---- clearing away


def _is_version(folder: Path) -> bool:
    """Whether a folder is a version of ours: it says so itself. Others may keep software beside it."""
    try:
        return bool(json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["name"] == folder.name)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def clean(order: dict[str, Any]) -> dict[str, Any]:
    """The versions there, with the jobs that name each; those that nothing names any more are removed if so ordered.

    A version that was replaced a moment ago is kept: a daemon may just be writing a script that names it.
    """
    software, jobs = Path(order["software"]), Path(order["spool"]) / "jobs"
    current = set()
    for path in software.glob("*current.json"):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            current.add(json.loads(path.read_text(encoding="utf-8"))["name"])
    scripts: dict[str, str | None] = {}
    for job in sorted(jobs.iterdir()) if jobs.is_dir() else ():
        if job.name.startswith("orc-check-") and order["remove"]:
            with contextlib.suppress(OSError):  # left by a trial that was killed
                if time.time() - job.stat().st_mtime > order["leftover"]:
                    shutil.rmtree(job, ignore_errors=True)
                    continue
        try:
            scripts[job.name] = (Path(order["spool"]) / "logs" / job.name / "script").read_text(errors="replace")
        except OSError:
            scripts[job.name] = None  # being made just now, or without its script: it may name any version
    found, now = [], time.time()
    for version in sorted(software.iterdir()) if software.is_dir() else ():
        if version.name.startswith("."):
            # left by an installation or a removal that was interrupted; other people's are none of ours
            ours = version.name.startswith((".staging-", ".removing-", ".damaged-"))
            if ours and order["remove"] and now - version.stat().st_mtime > order["leftover"]:
                shutil.rmtree(version, ignore_errors=True)
            continue
        if not version.is_dir() or not _is_version(version):
            continue
        replaced = version / "replaced"
        named = [job for job, text in scripts.items() if text is None or f"/{version.name}/" in text]
        one = {"name": version.name, "current": version.name in current, "jobs": len(named), "removed": False}
        with contextlib.suppress(OSError, ValueError):
            manifest = json.loads((version / "manifest.json").read_text(encoding="utf-8"))
            told = ("version", "installed", "python", "requirements", "packages_key")
            one |= {key: manifest.get(key) for key in told}
        if one["current"]:
            replaced.unlink(missing_ok=True)
        elif order["remove"]:
            if not replaced.exists():
                replaced.touch()
            elif not named and now - replaced.stat().st_mtime > order["keep"]:
                gone = software / f".removing-{version.name}-{os.getpid()}"
                version.rename(gone)
                shutil.rmtree(gone, ignore_errors=True)
                one["removed"] = True
        found.append(one)
    return {"versions": found}
