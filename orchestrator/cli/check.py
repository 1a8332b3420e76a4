"""``check``: everything a site needs, looked at before it is needed."""

from __future__ import annotations

import os

import click

from orchestrator.cli.context import Context, SiteCommand, json_option, pass_site
from orchestrator.cli.output import plain


@click.command(cls=SiteCommand, short_help="Check everything a site needs; name the remedies.")
@json_option
@pass_site
def check(site: Context) -> int:
    """Check settings, chain, steps, folders, disk, database and ports; say what to do about each fault.

    Ends with 0 if there is no problem (warnings do not count), else with the first problem's exit code.
    """
    from dataclasses import asdict

    from orchestrator.checks import all_findings

    found = []
    for finding in all_findings(site.settings, os.environ):
        found.append(finding)
        if not site.as_json and not (site.verbosity < 0 and finding.level == "ok"):
            style = {"ok": "green", "warning": "yellow", "problem": "red"}[finding.level]
            from rich.text import Text

            line = Text.assemble((f"{finding.level:8}", style), f" {finding.subject:9} {plain(finding.text)}")
            site.output.console.print(line)
            if finding.remedy and finding.level != "ok":
                site.output.console.print(Text(f"{'':18} -> {finding.remedy}", style="dim"))
    problems = [finding for finding in found if finding.level == "problem"]
    warnings = sum(finding.level == "warning" for finding in found)
    code = int(problems[0].code) if problems else 0
    if site.as_json:
        site.output.json({"ok": not problems, "exit_code": code, "findings": [asdict(finding) for finding in found]})
        return code
    words = [f"{len(problems)} problem{'s' * (len(problems) != 1)}", f"{warnings} warning{'s' * (warnings != 1)}"]
    site.output.line("Everything is in order." if not problems and not warnings else ", ".join(words) + ".")
    return code
