"""``crush-trio approvals``: what waits for a person, and the answers."""

from __future__ import annotations

import click
from click.core import ParameterSource

from crush_trio.cli.options import ServerFlags, directory_option, json_option, server_options


@click.group("approvals", invoke_without_command=True)
@click.option("-a", "--all", "everywhere", is_flag=True, help="Of all directories.")
@click.option("--watch", "watching", is_flag=True, help="Go on showing what comes and ends.")
@directory_option
@json_option
@server_options
@click.pass_context
def command(
    context: click.Context,
    *,
    everywhere: bool,
    watching: bool,
    cwd: str,
    as_json: bool,
    flags: ServerFlags,
) -> int | None:
    """List the permission requests and questions of a directory that wait, or answer them."""
    if context.invoked_subcommand is not None:
        _refuse_options_in_front(context)
        return None
    if watching and everywhere:
        raise click.UsageError("--watch shows one directory; leave --all out.")
    import trio

    from crush_trio.cli import approvals_flow as flow

    if watching:
        return trio.run(flow.watch_approvals, flags, cwd, as_json)
    return trio.run(flow.list_approvals, flags, None if everywhere else cwd, as_json)


@command.command("allow")
@click.argument("request", metavar="ID")
@json_option
@server_options
def allow(*, request: str, as_json: bool, flags: ServerFlags) -> int:
    """Allow this one call."""
    return _answer(flags, request, "allow", "", as_json)


@command.command("allow-session")
@click.argument("request", metavar="ID")
@json_option
@server_options
def allow_session(*, request: str, as_json: bool, flags: ServerFlags) -> int:
    """Allow it, and the same action of the tool on the same path for the rest of the session."""
    return _answer(flags, request, "allow_session", "", as_json)


@command.command("deny")
@click.argument("request", metavar="ID")
@click.option("--message", default="", metavar="TEXT", help="Tell the model why.")
@json_option
@server_options
def deny(*, request: str, message: str, as_json: bool, flags: ServerFlags) -> int:
    """Deny the call; the turn stops."""
    return _answer(flags, request, "deny", message, as_json)


@command.command("answer")
@click.argument("request", metavar="ID")
@click.argument("answers", nargs=-1)
@json_option
@server_options
def answer(*, request: str, answers: tuple[str, ...], as_json: bool, flags: ServerFlags) -> int:
    """Answer questions, one argument each: y or n, numbers of choices, or words; - skips."""
    import trio

    from crush_trio.cli.approvals_flow import answer_questions

    return trio.run(answer_questions, flags, request, answers, as_json)


@command.command("cancel")
@click.argument("request", metavar="ID")
@json_option
@server_options
def cancel(*, request: str, as_json: bool, flags: ServerFlags) -> int:
    """Cancel questions; the turn stops."""
    import trio

    from crush_trio.cli.approvals_flow import cancel_questions

    return trio.run(cancel_questions, flags, request, as_json)


def _refuse_options_in_front(context: click.Context) -> None:
    """They belong to the list: an answer would go to another server than the one they name."""
    for param in context.command.params:
        source = context.get_parameter_source(param.name) if param.name else None
        if source is ParameterSource.COMMANDLINE:
            word = context.invoked_subcommand
            raise click.UsageError(f"{param.opts[0]} goes behind {word}, if {word} has it.")


def _answer(flags: ServerFlags, request: str, action: str, message: str, as_json: bool) -> int:
    import trio

    from crush_trio.cli.approvals_flow import answer_permission

    return trio.run(answer_permission, flags, request, action, message, as_json)
