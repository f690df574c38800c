"""``crush-trio models``: what can be named with ``-m``."""

from __future__ import annotations

import click

from crush_trio.cli.options import ServerFlags, json_option, server_options


@click.command("models")
@click.argument("wanted", metavar="[FILTER]", default="")
@json_option
@server_options
def command(*, wanted: str, as_json: bool, flags: ServerFlags) -> int:
    """List the models whose name contains FILTER, one PROVIDER/MODEL a line."""
    import trio

    from crush_trio.cli.simple_flows import list_models

    return trio.run(list_models, flags, wanted, as_json)
