"""The command ``orchestrator``. Commands are thin: they load, validate, call one function and show what it says.

Modules of commands import nothing but click when they are imported, so that ``--help`` answers at once; what a
command needs is imported inside it. ``main`` is the one place where errors become a sentence and an exit code.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path

import click

from orchestrator import faults
from orchestrator.cli import control as _control
from orchestrator.cli import operations as _operations
from orchestrator.cli.audit import audit
from orchestrator.cli.chain import chain
from orchestrator.cli.check import check
from orchestrator.cli.context import SiteGroup
from orchestrator.cli.couchapp import couchapp
from orchestrator.cli.daemons import db, gather, poll, register, simulate, web
from orchestrator.cli.demo import demo
from orchestrator.cli.documents import explain, show
from orchestrator.cli.farm import farm
from orchestrator.cli.importing import import_
from orchestrator.cli.jobs import job, jobs
from orchestrator.cli.online import online
from orchestrator.cli.provenance import provenance
from orchestrator.cli.remote import remote
from orchestrator.cli.replicate import conflicts, replicate
from orchestrator.cli.run import run
from orchestrator.cli.site import init, settings, version
from orchestrator.cli.status import status
from orchestrator.cli.up import down, up
from orchestrator.cli.user import user
from orchestrator.errors import Exit, OrchestratorError
from orchestrator.version import VERSION


@click.group(
    cls=SiteGroup,
    hide_shared=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(VERSION, prog_name="orchestrator", message="%(prog)s %(version)s")
def cli() -> None:
    """Carry raw files through their processing chain, driven by a run database in CouchDB.

    Each raw file has one document in the database; its status and its proc0, proc1, ... keywords say how far it has
    come. A site is a folder with orchestrator.yaml and chain.yaml: `orchestrator init` makes one, `orchestrator up`
    runs it.

    `orchestrator demo` shows everything at once and needs nothing.
    """


SECTIONS: tuple[tuple[str, tuple[click.Command, ...]], ...] = (
    ("Begin", (demo, init, check, remote)),
    ("Run a site", (up, down)),
    ("Look and act", (status, show, explain, provenance, audit, jobs, job, run)),
    ("Operations on documents", _operations.COMMANDS),
    ("Operations on steps and farms", _control.COMMANDS),
    ("Several sites", (replicate, conflicts)),
    ("In the control room", (online,)),
    ("Files", (register, simulate)),
    ("Chain and database", (chain, couchapp, user, db, import_)),
    ("Single daemons", (poll, gather, farm, web)),
    ("About", (settings, version)),
)
for _, _commands in SECTIONS:
    for _command in _commands:
        cli.add_command(_command)
cli.sections = [(title, [c.name or "" for c in commands]) for title, commands in SECTIONS]


def main(arguments: list[str] | None = None) -> int:
    """Run a command line and return its exit code (``orchestrator.errors.Exit``). Never shows a traceback."""
    try:
        faults.arm(os.environ)
        code = cli.main(args=arguments, prog_name="orchestrator", standalone_mode=False)
        sys.stdout.flush()
        return int(code or 0)
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        _say("stopped")
        return Exit.INTERRUPTED
    except OrchestratorError as error:
        _say(str(error))
        return error.exit_code
    except BrokenPipeError:
        # Whoever read us has had enough (`| head`). Python would complain once more at exit.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.FAILED
    except Exception as error:
        _say(f"{_unexpected(error)}; the details are in {_keep_traceback()}")
        return Exit.FAILED


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        for number, line in enumerate(text.splitlines() or [""]):
            click.echo(f"orchestrator: {line}" if number == 0 else f"  {line}", err=True)


def _unexpected(error: Exception) -> str:
    """A sentence for an error that nobody foresaw. The operating system's own words are often clear enough."""
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else "the system says: "
        return f"{where}{error.strerror}"
    return f"something unforeseen happened ({type(error).__name__}: {str(error)[:200] or 'no more is known'})"


def _keep_traceback() -> str:
    """Write the traceback where it does not scroll by; the name of the file, or a word on why there is none."""
    text = traceback.format_exc()
    name = f"orchestrator-traceback-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}.txt"
    for folder in (Path("logs"), Path(tempfile.gettempdir())):
        with contextlib.suppress(OSError):
            if folder.is_dir():
                (folder / name).write_text(text, encoding="utf-8")
                return str((folder / name).absolute())
    return "no file, since none could be written"


__all__ = ["cli", "main"]
