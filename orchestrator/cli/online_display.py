"""``online``: the control-room pages."""

from __future__ import annotations

import click

from orchestrator.cli.context import Context, SiteCommand, pass_site


@click.command(cls=SiteCommand, short_help="Serve the control-room pages.")
@click.option("--host", help="Address to listen at (`web_host` in online.yaml).")
@click.option("--port", type=click.IntRange(0, 65535), help="Port; 0 takes a free one (`web_port` in online.yaml).")
@click.option("--root-path", default="", metavar="PATH", help="Path under which a reverse proxy shows the pages.")
@pass_site
def display(site: Context, host: str | None, port: int | None, root_path: str) -> None:
    """Serve the control-room pages until SIGTERM or Ctrl-C: plots as they come, search, runs, two runs side by side.

    Any number of these may run, on any machine that reaches the broadcast; each viewer gets the newest of what it
    shows. They write nothing but the sets that people save, in online/sets.json in the site's folder.
    """
    import socket

    from orchestrator.cli.online_reduce import online_of
    from orchestrator.online.keys import keys_for
    from orchestrator.web.online.app import JSROOT, create_app
    from orchestrator.web.serve import serve

    site.log_to_stderr()
    where = online_of(site)
    settings = site.settings
    keys = keys_for(where.workers.key, where.broadcast.subscribe)
    if not JSROOT.exists():
        words = "plots are pictures: JSROOT is missing; in the sources, `python3 deploy/jsroot.py` gets it"
        click.echo(words, err=True)
    app = create_app(
        where,
        settings.folder / "online",
        secure=keys.connecting if keys else None,
        allowed_hosts=[*settings.web_hosts, where.web_host, host or "", socket.gethostname(), socket.getfqdn()],
        status_port=settings.web_port,
    )
    serve(
        app,
        host=host or where.web_host,
        port=where.web_port if port is None else port,
        root_path=root_path,
        ready=lambda url: click.echo(f"the control room is at {url}", err=True),
    )


#: Added to the group ``orchestrator online``.
COMMANDS: tuple[click.Command, ...] = (display,)
