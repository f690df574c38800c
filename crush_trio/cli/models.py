"""``crush-trio models``: what can be named with ``-m``."""

from __future__ import annotations

from functools import partial

import click

from crush_trio.cli.options import ServerFlags, directory_option, json_option, server_options


@click.command("models")
@click.argument("part", metavar="[FILTER]", default="")
@click.option("--provider", metavar="ID", help="Only models of this provider.")
@click.option("--all", "everything", is_flag=True, help="Also models that cannot be used now.")
@click.option(
    "--refresh", is_flag=False, flag_value="", metavar="[URL]",
    help="Fetch a newer list of models [default: options.catalogue_url, or models.dev].",
)  # fmt: skip
@directory_option
@json_option
@server_options
def command(
    *,
    part: str,
    provider: str | None,
    everything: bool,
    refresh: str | None,
    cwd: str,
    as_json: bool,
    flags: ServerFlags,
) -> int:
    """List the models whose name contains FILTER and that can be used now, one a line.

    First its PROVIDER/MODEL, then its window and output limit in tokens, US dollars per million
    tokens read and written, and what it can do; ? is what nobody knows. The last column says which
    is used when none is named.
    """
    import trio

    from crush_trio.cli import models_flow

    if refresh is not None:
        if part or provider or everything:
            raise click.UsageError("--refresh takes nothing but an address: list the models after.")
        return trio.run(partial(models_flow.refresh, flags, refresh, as_json))
    wanted = models_flow.Wanted(part, provider, everything)
    return trio.run(partial(models_flow.list_models, flags, cwd, wanted, as_json))
