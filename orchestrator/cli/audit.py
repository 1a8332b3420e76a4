"""``audit``: database, spool, farms and disk checked against each other."""

from __future__ import annotations

import click

from orchestrator.cli.context import Context, SiteCommand, json_option, pass_site

SHOWN = 20  # findings of one kind on a terminal; --json has up to a thousand
STYLES = {"error": "red", "warning": "yellow", "note": "dim"}


@click.command(cls=SiteCommand, short_help="Check database, spool, farms and disk against each other.")
@click.option("--deep", is_flag=True, help="Read every output and raw file here and compare its checksum.")
@click.option(
    "--grace", type=click.FloatRange(0), default=5.0, show_default=True, metavar="SECONDS",
    help="What seems wrong is looked at again after so long.",
)  # fmt: skip
@json_option
@pass_site
def audit(site: Context, deep: bool, grace: float) -> int:
    """Check database, spool, farms and disk against each other; say what is wrong and how to mend it.

    May be run at any time: what is only on its way is looked at again before it is said. It changes nothing. Ends with
    0 if nothing is wrong (notes do not count), else with 1.
    """
    import time

    from orchestrator.audit.auditor import Auditor

    def tell(text: str) -> None:
        if not site.as_json and site.verbosity >= 0:
            click.echo(f"orchestrator: {text}", err=True)

    auditor = Auditor(
        site.chain, site.database, site.settings, deep=deep, grace=grace, wait=time.sleep, clock=time.time, tell=tell
    )
    result = auditor.run()
    code = 0 if result.clean else 1
    if site.as_json:
        site.output.json(result.to_json())
        return code
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
    return code
