"""``audit``: database, spool, farms and disk checked against each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.context import Context, SiteCommand, json_option, pass_site

if TYPE_CHECKING:
    from orchestrator.audit.auditor import Auditor, Result

SHOWN = 20  # findings of one kind on a terminal; --json has up to a thousand
STYLES = {"error": "red", "warning": "yellow", "note": "dim"}


@click.command(cls=SiteCommand, short_help="Check database, spool, farms and disk against each other.")
@click.option("--deep", is_flag=True, help="Read every output and raw file here and compare its checksum.")
@click.option(
    "--grace", type=click.FloatRange(0), default=5.0, show_default=True, metavar="SECONDS",
    help="What seems wrong is looked at again after so long.",
)  # fmt: skip
@click.option("--mend", is_flag=True, help="Mend what can be mended without a person's judgement; asks before.")
@click.option("--yes", is_flag=True, help="With --mend: do not ask.")
@json_option
@pass_site
def audit(site: Context, deep: bool, grace: float, mend: bool, yes: bool) -> int:
    """Check database, spool, farms and disk against each other; say what is wrong and how to mend it.

    May be run at any time: what is only on its way is looked at again before it is said. Without --mend it changes
    nothing. With it, it says what it would do and asks (where nobody can be asked it does nothing, unless --yes is
    given), records what it does as an operation, and looks once more. Ends with 0 if nothing is wrong (notes do not
    count), else with 1.
    """
    import time

    from orchestrator.audit.auditor import Auditor

    if yes and not mend:
        raise click.UsageError("--yes is for --mend.")

    def tell(text: str) -> None:
        if not site.as_json and site.verbosity >= 0:
            click.echo(f"orchestrator: {text}", err=True)

    def look() -> Auditor:
        made = Auditor(
            site.chain, site.database, site.settings, deep=deep, grace=grace, wait=time.sleep, clock=time.time,
            tell=tell,
        )
        made.run()
        return made

    auditor = look()
    mended: dict[str, Any] | None = None
    if mend:
        mended = _mend(site, auditor, yes)
        if mended["done"]:
            auditor = look()
    result = auditor.result
    code = 0 if result.clean else 1
    if site.as_json:
        site.output.json({**result.to_json(), **({"mended": mended} if mended is not None else {})})
        return code
    _show(site, result)
    return code


def _mend(site: Context, auditor: Auditor, yes: bool) -> dict[str, Any]:
    """Say what would be mended, ask, and do it; what was done."""
    import sys
    import time

    from orchestrator.audit.mend import MENDS, Mended, Mender, mendable
    from orchestrator.cli.operations import who

    found = list(auditor.result.findings.kept.values())
    wanted = mendable(found)
    if not site.as_json:
        left = len(found) - len(wanted)
        for one in wanted[:SHOWN]:
            site.output.line(f"{one.kind}: {one.subject}: {one.text}")
            site.output.line(f"    would be mended: {MENDS[one.kind]}", style="dim")
        more = f" ({len(wanted) - SHOWN} more of them are not shown)" if len(wanted) > SHOWN else ""
        site.output.line(f"{len(wanted)} of {len(found)} findings can be mended{more}; {left} are for a person.")
    if not wanted or not (yes or (not site.as_json and sys.stdin.isatty() and click.confirm("Mend them?"))):
        return {**Mended().to_json(), "would": [{"kind": one.kind, "subject": one.subject} for one in wanted]}
    mender = Mender(
        site.chain, site.database, site.settings, who(), clock=time.time, monotonic=time.monotonic, alive=auditor.alive,
        recording=site.database_of("poller"),
    )  # fmt: skip
    mended = mender.run(wanted)
    if not site.as_json:
        for one, why in mended.left.items():
            site.output.line(f"not mended: {one.kind}: {one.subject}: {why}")
        site.output.line(f"{len(mended.done)} mended, recorded as {mended.operation}; looking once more:")
    return mended.to_json()


def _show(site: Context, result: Result) -> None:
    from orchestrator.audit.findings import KINDS

    for kind, about in KINDS.items():
        found = result.findings.of(kind)
        if not found:
            continue
        count = result.findings.counts[kind]
        site.output.line(f"{about.severity}: {kind} ({count}): {about.meaning}", style=STYLES[about.severity])
        for finding in found[:SHOWN]:
            site.output.line(f"  {finding.subject}: {finding.text}")
            site.output.line(f"    -> {finding.remedy}", style="dim")
        if count > SHOWN:
            site.output.line(f"  ... and {count - SHOWN} more")
    states = ", ".join(f"{count} {state}" for state, count in sorted(result.states.items()))
    looked = f"{result.documents} documents ({states or 'none'}), {result.attempts} attempts, {result.files} outputs"
    site.output.line(f"{'Nothing is wrong.' if result.clean else 'Something is wrong.'} Looked at: {looked}.")
