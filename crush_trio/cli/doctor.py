"""``crush-trio doctor``: what works here, what does not, and what to do about it."""

from __future__ import annotations

from functools import partial

import click

from crush_trio.cli.completing import model_names
from crush_trio.cli.options import (
    ServerFlags,
    absolute_model,
    directory_option,
    json_option,
    server_options,
)


@click.command("doctor")
@click.option(
    "-m", "--model", metavar="PROVIDER/MODEL", shell_complete=model_names,
    help="The model to look at [default: the one a run would get]",
)  # fmt: skip
@click.option("--offline", is_flag=True, help="Ask no provider: make no request that may cost.")
@click.option("--require-model", is_flag=True, help="Fail without a real language model.")
@directory_option
@json_option
@server_options
def command(
    *,
    model: str | None,
    offline: bool,
    require_model: bool,
    cwd: str,
    as_json: bool,
    flags: ServerFlags,
) -> int:
    """Check configuration, server and model, one line each, with what to do about it.

    The model is asked twice, for a few words and for one call of a tool; its provider may charge
    a fraction of a cent for that. With --offline it is not asked.

    Exit code 0 if nothing fails, 4 if configuration, key, model or TLS do, 7 if no server can be
    reached, 1 if something else fails.
    """
    import trio

    from crush_trio.cli.doctor_flow import Wanted, doctor

    wanted = Wanted(cwd, absolute_model(model), offline, require_model)
    return trio.run(partial(doctor, flags, wanted, as_json))
