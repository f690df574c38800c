"""``crush-trio approvals``: what waits for a person, and the answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

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
    """List the permission requests and questions of a directory that wait, or answer them.

    A request is named by its ID, or by the first characters of it.
    """
    if context.invoked_subcommand is not None:
        _refuse_options_in_front(context)
        return None
    if watching and everywhere:
        raise click.UsageError("--watch shows one directory; leave --all out.")
    from crush_trio.cli import approvals_flow as flow

    if watching:
        return _run(flow.watch_approvals, flags, cwd, as_json)
    return _run(flow.list_approvals, flags, None if everywhere else cwd, as_json)


@command.command("list")
@click.option("-a", "--all", "everywhere", is_flag=True, help="Of all directories.")
@directory_option
@json_option
@server_options
def list_(*, everywhere: bool, cwd: str, as_json: bool, flags: ServerFlags) -> int:
    """List what waits; the same as `approvals` alone."""
    from crush_trio.cli import approvals_flow as flow

    return _run(flow.list_approvals, flags, None if everywhere else cwd, as_json)


@command.command("show", short_help="Show a request whole.")
@click.argument("request", metavar="ID")
@json_option
@server_options
def show(*, request: str, as_json: bool, flags: ServerFlags) -> int:
    """Show a request whole: the command, the change of a file, the questions."""
    from crush_trio.cli import approvals_flow as flow

    return _run(flow.show_approval, flags, request, as_json)


@command.command("watch", short_help="Show each request that comes or ends.")
@directory_option
@json_option
@server_options
def watch(*, cwd: str, as_json: bool, flags: ServerFlags) -> int:
    """Show what waits, and then each request that comes or ends, until Ctrl-C."""
    from crush_trio.cli import approvals_flow as flow

    return _run(flow.watch_approvals, flags, cwd, as_json)


@command.command("allow")
@click.argument("request", metavar="ID")
@click.option("--session", "for_session", is_flag=True, help="And what `show` says it covers.")
@json_option
@server_options
def allow(*, request: str, for_session: bool, as_json: bool, flags: ServerFlags) -> int:
    """Allow this one call."""
    action = "allow_session" if for_session else "allow"
    return _answer(flags, request, action, "", as_json)


@command.command("allow-session", short_help="Allow it for the rest of the session.")
@click.argument("request", metavar="ID")
@json_option
@server_options
def allow_session(*, request: str, as_json: bool, flags: ServerFlags) -> int:
    """Allow it, and what `show` says it covers for the rest of the session."""
    return _answer(flags, request, "allow_session", "", as_json)


@command.command("deny", short_help="Deny the call.")
@click.argument("request", metavar="ID")
@click.option("--message", default="", metavar="TEXT", help="Tell the model why.")
@json_option
@server_options
def deny(*, request: str, message: str, as_json: bool, flags: ServerFlags) -> int:
    """Deny the call; the turn stops, unless permissions.on_deny says "continue"."""
    return _answer(flags, request, "deny", message, as_json)


@command.command("answer", short_help="Answer questions.")
@click.argument("request", metavar="ID")
@click.argument("answers", nargs=-1)
@json_option
@server_options
def answer(*, request: str, answers: tuple[str, ...], as_json: bool, flags: ServerFlags) -> int:
    """Answer questions, one argument each: y or n, numbers of choices, or words; - skips."""
    from crush_trio.cli import answers_flow as flow

    return _run(flow.answer_questions, flags, request, answers, as_json)


@command.command("cancel")
@click.argument("request", metavar="ID")
@json_option
@server_options
def cancel(*, request: str, as_json: bool, flags: ServerFlags) -> int:
    """Cancel questions; the turn stops."""
    from crush_trio.cli import answers_flow as flow

    return _run(flow.cancel_questions, flags, request, as_json)


@command.command("grants")
@click.option("-s", "--session", default="latest", metavar="ID|latest", help="[default: latest]")
@click.option("--forget", metavar="GRANT|all", help="Take one back, or all.")
@directory_option
@json_option
@server_options
def grants(*, session: str, forget: str | None, cwd: str, as_json: bool, flags: ServerFlags) -> int:
    """List what was allowed for a session, or take it back."""
    from crush_trio.cli import answers_flow as flow

    return _run(flow.session_grants, flags, cwd, session, forget, as_json)


def _refuse_options_in_front(context: click.Context) -> None:
    """They belong to the list: an answer would go to another server than the one they name."""
    for param in context.command.params:
        source = context.get_parameter_source(param.name) if param.name else None
        if source is ParameterSource.COMMANDLINE:
            word = context.invoked_subcommand
            raise click.UsageError(f"{param.opts[0]} goes behind {word}, if {word} has it.")


def _answer(flags: ServerFlags, request: str, action: str, message: str, as_json: bool) -> int:
    from crush_trio.cli import answers_flow as flow

    return _run(flow.answer_permission, flags, request, action, message, as_json)


def _run(flow: Callable[..., Awaitable[int]], *arguments: Any) -> int:
    import trio

    return trio.run(flow, *arguments)
